"""The ways in which a green run could hide a difference, each walked into on purpose."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa

from connector.config import load_project
from connector.state import runs, snapshots
from connector.state.database import open_state
from connector.sync import run_sync
from tests.world import PROJECT_KEY, World

IMPATIENT = "{give_up_after: 1s, in_flight: 1, quiet: 1s}"
STAMPED = ", now() - interval 3 hour as updated_at"
CURSOR = {"cursor": "{column: updated_at, overlap: 1m}", "guard": "{max_changed: 100%, max_removed: 100%}"}


def make(folder: Path, *, rows: int = 50, columns: str = "i as a, 'n' || i as b", **sync: Any) -> World:
    world = World(folder / "project")
    world.configure(delivery=IMPATIENT)
    world.sql(f"create table customers as select 'c' || i as custom_id, {columns}{STAMPED} from range({rows}) t(i)")
    world.sync(**({"attributes": "{a: a, b: b}"} | sync))
    return world


@contextmanager
def outage(world: World, *, after: int = 0) -> Iterator[None]:
    """Batch asks for a quarter of an hour, so a run ends incomplete at once; over at the end."""
    world.api.inject({"status": 503, "retry_after": 900, "skip": after, "times": 999})
    yield
    world.api.clear_faults()
    with sqlite3.connect(world.folder / ".connector" / "state.db") as connection:
        connection.execute("delete from buckets")
    connection.close()


def applied_without_an_answer(world: World) -> None:
    """The next run's first request is applied, its answer lost; then the outage ends the run."""
    world.api.inject({"status": 500, "apply": True})
    with outage(world):
        assert world.run().outcome == "incomplete"


@pytest.mark.parametrize("ending", ["limit", "key", "outage"])
def test_new_column_reaches_everybody_though_the_full_read_it_needs_ends_early(tmp_path: Path, ending: str) -> None:
    """A cursor's position counts only for the mapping it was made with: the next run reads all again."""
    world = make(tmp_path, rows=500, **CURSOR | {"attributes": "{a: a}"})
    world.run()
    world.sync(**CURSOR, attributes="{a: a, b: b}")
    if ending == "outage":
        with outage(world, after=1):
            world.run()
    else:
        world.run(**{"limit": {"limit": 5}, "key": {"keys": ("c1",)}}[ending])
    assert world.run().outcome == "green"
    assert all("b" in attributes for attributes in world.held().values())


@pytest.mark.parametrize("change", ["column", "table", "timezone"])
def test_reading_otherwise_reads_all_again(tmp_path: Path, change: str) -> None:
    """Another column, source or time zone changes values whose cursor never moves."""
    world = make(
        tmp_path,
        columns="i as a, i + 100 as b, timestamp '2026-01-01 10:00' as t",
        **CURSOR | {"attributes": "{a: a, t: t}"},
    )
    world.run()
    world.sql("create table others as select custom_id, a + 100 as a, t, updated_at from customers")
    changed = {
        "column": {"attributes": "{a: b, t: t}"},
        "table": {"source": "{table: others}"},
        "timezone": {"source": "{table: customers, timezone: Europe/Paris}"},
    }
    world.sync(**CURSOR, **{"attributes": "{a: a, t: t}"} | changed[change])
    world.run()
    held = world.held()["c1"]
    assert (held["a"], held["t"]) == (
        (1, "2026-01-01T09:00:00Z") if change == "timezone" else (101, "2026-01-01T10:00:00Z")
    )


@pytest.mark.parametrize("on_removed", ["ignore", "clear"])
def test_value_reverts_while_its_row_is_away(tmp_path: Path, on_removed: str) -> None:
    """A to B, outcome unknown, the row leaves and comes back as A: Batch ends with A."""
    world = make(tmp_path, on_removed=on_removed)
    world.run()
    world.sql("update customers set a = 999 where custom_id = 'c7'")
    applied_without_an_answer(world)
    world.sql("create table kept as select * replace (7 as a) from customers where custom_id = 'c7'")
    world.sql("delete from customers where custom_id = 'c7'")
    with outage(world):
        world.run()
    world.sql("insert into customers select * from kept")
    world.run()
    assert world.held()["c7"] == {"a": 7, "b": "n7"}


def test_late_write_after_a_clear_is_cleared_again(tmp_path: Path) -> None:
    """A lost request that lands after the profile was cleared does not stay."""
    world = make(tmp_path, on_removed="clear")
    world.run()
    world.sql("update customers set a = 999 where custom_id = 'c7'")
    world.api.inject({"status": 500, "late": 0.5})
    with outage(world):
        world.run()
    world.sql("delete from customers where custom_id = 'c7'")
    assert world.run().removed == 1
    time.sleep(1.2)
    world.run()
    assert world.held()["c7"] == {}
    assert world.run().requests == 0


@pytest.mark.parametrize("how", ["withheld", "kept"])
def test_value_reverts_after_it_could_not_be_sent(tmp_path: Path, how: str) -> None:
    """A to B, outcome unknown, then a value that is not sent, then A again: Batch ends with A."""
    keep = "{column: a, on_null: keep}" if how == "kept" else "a"
    world = make(
        tmp_path,
        columns="i::double as a, 'n' || i as b",
        attributes=f"{{a: {keep}, b: b}}",
        tolerance="{invalid: 100%}",
    )
    world.run()
    world.sql("update customers set a = 999 where custom_id = 'c7'")
    applied_without_an_answer(world)
    unsendable = "null" if how == "kept" else "'nan'"
    world.sql(f"update customers set a = {unsendable} where custom_id = 'c7'")
    world.run()
    time.sleep(1.1)
    world.run()
    world.sql("update customers set a = 7 where custom_id = 'c7'")
    world.run()
    assert world.held()["c7"]["a"] == 7


@pytest.mark.parametrize("mended", ["unmapped", "null"])
def test_refusal_ends_when_nothing_is_left_to_send(tmp_path: Path, mended: str) -> None:
    """An attribute that was refused and is then unmapped, or null and kept, is no longer due nor listed."""
    attributes = "{a: a, b: {column: b, on_null: keep}}"
    world = make(tmp_path, attributes=attributes, tolerance="{rejected: 100%}")
    world.run()
    world.sql("update customers set b = 'bad' where custom_id = 'c7'")
    world.api.inject({"partial": [{"custom_id": "c7", "attribute": "b", "reason": "no"}]})
    assert world.run().rejected == 1
    if mended == "unmapped":
        world.sync(attributes="{a: a}")
    else:
        world.sql("update customers set b = null where custom_id = 'c7'")
    assert world.run().outcome == "green"
    assert (world.rejects(), world.due()) == ([], [])


def test_refused_removal_stays_listed(tmp_path: Path) -> None:
    """A clear that Batch refuses is tried at every run, and `rejects` counts the attempts."""
    world = make(tmp_path, on_removed="clear", tolerance="{rejected: 100%}")
    world.run()
    world.sql("delete from customers where custom_id = 'c7'")
    world.api.inject({"partial": [{"custom_id": "c7", "reason": "no"}], "times": 99})
    for attempt in (1, 2, 3):
        assert world.run().rejected == 1
        assert [(reject["key"], reject["attempts"]) for reject in world.rejects()] == [("c7", attempt)]


def test_removals_that_were_not_sent_are_owed(tmp_path: Path) -> None:
    """What only a full read can see and did not get out is looked for by the next run, cursor or not."""
    world = make(tmp_path, **CURSOR, on_removed="clear")
    world.run()
    world.sql("delete from customers where custom_id in ('c1', 'c2', 'c3')")
    assert world.run(full=True, limit=1).accepted == 1
    with outage(world):
        world.run()
    assert world.run().outcome == "green"
    assert [world.held()[key] for key in ("c1", "c2", "c3")] == [{}, {}, {}]
    assert world.run().full is False


def test_row_that_was_perhaps_created_is_cleared_when_it_leaves(tmp_path: Path) -> None:
    """A first delivery whose outcome is unknown may have made a profile: it counts as one."""
    world = make(tmp_path, on_removed="clear")
    world.run()
    world.sql("insert into customers values ('new', 1, 'x', now())")
    applied_without_an_answer(world)
    world.sql("delete from customers where custom_id = 'new'")
    world.run()
    assert world.held()["new"] == {}


def test_resend_is_a_way_out_of_a_damaged_state(tmp_path: Path) -> None:
    """What the refusal of a damaged snapshot advises works: everything is sent again, and the next run is quiet."""
    world = make(tmp_path)
    world.run()
    next((world.folder / ".connector" / "snapshots" / "customers").iterdir()).unlink()
    assert "--resend" in (world.run().error or {})["remedy"]
    assert world.run(resend=True, limit=1).outcome == "failed"
    assert world.run(resend=True).accepted == 50
    assert world.run().requests == 0


def test_many_guilty_neighbours_are_rejected_and_the_others_go(tmp_path: Path) -> None:
    """Rows that Batch refuses with a 400 one after the other do not stall the sync."""
    world = make(tmp_path, rows=400)
    guilty = [{"status": 400, "match": {"custom_id": f"c{i}"}, "times": 9999} for i in range(25)]
    world.api.inject(*guilty)
    report = world.run()
    assert (report.accepted, report.rejected) == (375, 25)


def test_share_at_the_limit_is_allowed(tmp_path: Path) -> None:
    """29 of 100 is 29 %, though floats say 28.999999999999996."""
    world = make(tmp_path, rows=100, guard="{max_changed: 29%}")
    world.run()
    world.sql("update customers set a = a + 1000 where a < 29")
    assert world.run().outcome == "green"


def test_interrupt_while_reading_leaves_no_value_behind(tmp_path: Path) -> None:
    """Whatever ends a run before it sends, the outbox is empty afterwards."""
    world = make(tmp_path)

    def interrupt(phase: str, _done: int, _total: int | None) -> None:
        if phase == "diff":
            raise KeyboardInterrupt

    transport = httpx.ASGITransport(app=world.api.app)
    with pytest.raises(KeyboardInterrupt):
        run_sync(load_project(world.folder), "customers", progress=interrupt, transport=transport)
    assert list((world.folder / ".connector" / "outbox").iterdir()) == []
    assert world.run().accepted == 50


def test_error_that_ends_the_delivery_while_progress_is_told_is_not_swallowed(tmp_path: Path) -> None:
    """A 401 is a failure also if the terminal or the event log was slow at that moment."""
    world = make(tmp_path)

    def slow(phase: str, _done: int, _total: int | None) -> None:
        if phase == "deliver":
            time.sleep(0.6)

    world.api.inject({"status": 401, "delay": 0.7, "times": 9})
    transport = httpx.ASGITransport(app=world.api.app)
    report = run_sync(load_project(world.folder), "customers", progress=slow, transport=transport)
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "api")


def test_half_a_character_in_a_reason_is_no_obstacle(tmp_path: Path) -> None:
    """A server that cuts an emoji in two in its words does not stop the sync."""
    world = make(tmp_path, rows=3)
    body = b'{"code":"SUCCESS_WITH_PARTIAL_ERRORS","errors":[{"bulk_index":0,"reason":"bad \\ud83d"}]}'
    transport = httpx.MockTransport(lambda _request: httpx.Response(202, stream=httpx.ByteStream(body)))
    assert run_sync(load_project(world.folder), "customers", transport=transport).rejected == 1
    assert world.run().accepted == 1


def test_what_never_left_is_not_in_doubt(tmp_path: Path) -> None:
    """A change that an outage kept here and that the warehouse takes back costs no request."""
    world = make(tmp_path)
    world.run()
    world.sql("update customers set a = a + 1000")
    with outage(world):
        assert world.run(allow_mass_change="test").unsent == 50
    world.sql("update customers set a = a - 1000")
    assert (world.run().outcome, world.run().requests) == ("green", 0)
    assert world.sent().count("c7") == 2, "the first run and the refused call of the outage"


def test_many_runs_leave_few_files_and_the_same_answers(tmp_path: Path) -> None:
    """A snapshot of many small deliveries is folded into one file by itself, and says what it said before."""
    world = make(tmp_path, rows=10)
    for number in range(35):
        world.sql(f"update customers set a = {1000 + number} where custom_id = 'c7'")
        assert world.run().accepted == (10 if number == 0 else 1)
    with open_state(world.folder / ".connector", PROJECT_KEY) as state:
        assert len(snapshots.load(state, "customers").files) < 10
    assert world.run().requests == 0
    world.sql("update customers set b = 'new' where custom_id = 'c3'")
    assert {name: rows for name, rows in world.plan().by_attribute.items() if rows} == {"b": 1}


@pytest.mark.parametrize("name", ["feature%2Fx", "pl[ai]n", "a*b #1 {2}"])
def test_a_folder_is_taken_by_its_name_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    """The state lies in the project's own folder, which no driver may take for an address or a pattern."""
    world = make(tmp_path / name, rows=500)
    world.sql("create table orders as select 'o1' as order_id, 'c1' as custom_id, now() as ordered_at, 1 as n")
    world.events_sync(attributes="{n: n}")
    assert [world.run().accepted, world.run("orders").accepted] == [500, 1]
    world.sql("update customers set a = a + 1 where custom_id in ('c3', 'c7')")
    assert [world.run().accepted, world.run("orders").requests] == [2, 0]
    assert {path.parent for path in tmp_path.rglob("state.db")} == {tmp_path / name / "project" / ".connector"}


class Panicking(httpx.AsyncBaseTransport):
    """A way to Batch on which the second call meets what no Exception is."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        self._calls += 1
        if self._calls == 2:
            raise pl.exceptions.PanicException
        return await self._inner.handle_async_request(request)


def test_a_fault_of_ours_while_sending_is_no_quiet_end(tmp_path: Path) -> None:
    """Polars' panics are no Exception: the run fails all the same, and what was accepted is kept."""
    world = make(tmp_path, rows=500, endpoint="update")
    inner = world.transport
    assert inner
    world.transport = Panicking(inner)
    with pytest.raises(pl.exceptions.PanicException):
        world.run()
    world.transport = inner
    with world.opened_state() as state:
        (kept,) = runs.reports(state)
    assert (kept["outcome"], kept["accepted"], kept["unsent"]) == ("failed", 200, 300)
    assert world.run().accepted == 300


@pytest.mark.parametrize("lease", ["customers", "#delivery"])
def test_a_lease_that_cannot_be_given_back_takes_nothing_from_the_run(tmp_path: Path, lease: str) -> None:
    """What was accepted is told as it was; the lease ends by itself."""
    world = make(tmp_path, rows=5)

    def failing(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("UPDATE leases SET run=") and lease in parameters:
            raise sqlite3.OperationalError("disk I/O error")

    sa.event.listen(sa.Engine, "before_cursor_execute", failing)
    try:
        report = world.run()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", failing)
    assert (report.outcome, report.accepted) == ("green", 5)
    assert world.run().requests == 0


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"])
@pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_infinity_is_no_moment_whatever_keeps_it(tmp_path: Path, kind: str, timezone: str) -> None:
    """Such a value is withheld and listed, the largest that is finite is sent as it is, and the row goes."""
    far = "timestamp '2262-04-11 23:00:00'"
    columns = f"case i when 0 then 'infinity' when 1 then '-infinity' when 2 then {far}::text end::{kind} as a, 1 as b"
    world = make(tmp_path, rows=4, columns=columns, source=f"{{table: customers, timezone: {timezone}}}")
    assert world.run().withheld == 2
    held = world.held()
    assert [sorted(held[f"c{number}"]) for number in (0, 1, 3)] == [["b"]] * 3
    assert held["c2"]["a"].startswith("2262-04-1")
