"""A source that did not change is not read; whatever may have changed, or may be due, is."""

import os
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest

from connector.plan import plan_sync
from connector.report import Report
from connector.state import snapshots
from connector.state.database import open_state
from connector.sync import Options, run_sync
from tests.simulation.fixed import set_plan
from tests.simulation.oracles import problems
from tests.simulation.universe import CUSTOMERS, Setup, universe
from tests.world import PROJECT_KEY, World, timeless, wait

ATTRIBUTES = "{plan: plan, points: points}"


@pytest.fixture
def world() -> Iterator[World]:
    """Twenty customers, delivered by a run that saw a table at rest."""
    with timeless() as world:
        world.sync(attributes=ATTRIBUTES)
        world.sql(
            "create table customers as select 'c' || i as custom_id, 'gold' as plan, i as points from range(20) t(i)"
        )
        world.rest()
        assert world.run().accepted == 20
        world.sent()
        yield world


def stamp(world: World) -> Any:
    """What the state remembers of the table."""
    with open_state(world.folder / ".connector", PROJECT_KEY) as state:
        return snapshots.load(state, "customers").manifest.get("stamp")


def skipped(report: Report) -> bool:
    """Whether nothing was read, and why is said."""
    assert bool(report.notes) == (report.read == 0)
    return bool(report.notes)


def test_a_table_that_stands_is_not_read(world: World) -> None:
    """Run after run is green and says so; what is known stays known, and no guard judges what was not read."""
    world.sync(attributes=ATTRIBUTES, guard="{min_rows: 100}")
    for _ in range(3):
        report = world.run()
        assert (report.outcome, report.read, report.planned, report.known, report.full) == ("green", 0, 0, 20, False)
        (note,) = report.notes
        assert note.startswith("customers did not change since the run of 20")
        assert note.endswith(" UTC: not read; --full (in Dagster: full) reads it")
    plan = world.plan()
    assert (plan.report.read, plan.notes) == (0, report.notes)
    assert world.sent() == []


@pytest.mark.parametrize("change", ["insert into customers values ('new', 'gold', 1)", "delete from customers where points = 3",
    "update customers set plan = 'pro' where points = 5", "alter table customers add column more int",
    "create or replace table customers as select custom_id, 'pro' as plan, points from customers limit 9"])  # fmt: skip
def test_a_change_is_seen_after_any_number_of_runs_that_read_nothing(world: World, change: str) -> None:
    """The stamp that counts is that of the last read, however often it was compared."""
    world.sync(attributes=ATTRIBUTES, on_removed="clear", guard="{max_removed: 100%}")
    assert not skipped(world.run())
    assert skipped(world.run())
    assert skipped(world.run())
    world.sql(change)
    assert not skipped(world.run())
    assert {key: held for key, held in world.held().items() if any(held.values())} == {
        key: {name: row[name] for name in ("plan", "points")} for key, row in world.wanted().items()
    }
    assert not skipped(world.run()), "it was written to a moment ago: nobody can tell"
    world.rest()
    assert not skipped(world.run())
    assert skipped(world.run())


@pytest.mark.parametrize(
    "options", [{"full": True}, {"resend": True}, {"limit": 3}, {"keys": ("c1",)}, {"allow_mass_change": "x"}]
)
def test_whoever_asks_for_something_gets_a_read(world: World, options: dict[str, Any]) -> None:
    """An option is a wish; after a look at some keys the next run reads all."""
    assert not skipped(world.run(**options))
    assert skipped(world.run()) == ("keys" not in options)


@pytest.mark.parametrize("keys", [
    {"attributes": "{plan: plan}"}, {"attributes": "{plan: {column: plan, on_null: keep}, points: points}"},
    {"source": "{query: select * from customers}"}, {"on_removed": "clear"}, {"dedupe": "error"},
    {"source": "{table: customers, timezone: Europe/Paris}"}, {"engine": "warehouse"},
])  # fmt: skip
def test_an_edited_sync_reads(world: World, keys: dict[str, str]) -> None:
    """What decides which rows are read, or what becomes of them, was not so when the stamp was taken."""
    world.sync(**({"attributes": ATTRIBUTES} | keys))
    assert not skipped(world.run())


@pytest.mark.parametrize("where", ["path: warehouse.duckdb, state_schema: x", "path: copy.duckdb"])
def test_a_warehouse_with_other_settings_is_another_one(world: World, where: str) -> None:
    """The same table of another file, or another account, may hold other rows."""
    shutil.copy2(world.database, world.folder / "copy.duckdb")
    main = world.folder / "connector.yaml"
    main.write_text(main.read_text().replace("path: warehouse.duckdb", where))
    assert not skipped(world.run())


@pytest.mark.parametrize(
    "fault", [{"partial": [{"custom_id": "c3", "attribute": "plan", "reason": "no"}]}, {"status": 500}]
)
def test_what_batch_did_not_take_is_due_and_read(world: World, fault: dict[str, Any]) -> None:
    """A row that is due, also one that waits for its quiet time to end, is worth a read; and when all is well, none is."""
    world.sql("update customers set plan = 'pro'")
    world.rest()
    world.api.inject({"times": 1, **fault})
    assert world.run(allow_mass_change="meant").planned == 20
    world.api.clear_faults()
    while world.due():
        assert not skipped(world.run())
        wait(600)
    assert skipped(world.run())
    assert world.held() == world.wanted()


@pytest.mark.parametrize("bad", ["('c1', 'gold', 1)", "(null, 'gold', 1)", "('long', repeat('x', 400), 1)"])
def test_a_row_that_is_not_well_is_read_each_time(world: World, bad: str) -> None:
    """What is invalid or withheld is judged at every run, so that its list and the outcome stay true."""
    world.sync(attributes=ATTRIBUTES, tolerance="{invalid: 100%}")
    world.sql(f"insert into customers values {bad}")
    world.rest()
    for _ in range(2):
        assert not skipped(world.run())
        assert world.rejects()


def test_a_drift_that_is_healed_is_read(world: World) -> None:
    """What Batch lost is due, though the table stands."""
    world.api.forget("c7")
    assert skipped(world.run())
    assert world.reconcile(heal=True).healed == 1
    assert world.run().accepted == 1
    assert world.held() == world.wanted()


def test_with_a_cursor_nothing_is_skipped(world: World) -> None:
    """The last run may have left out rows that were there; the window is cheap anyway."""
    world.sql("alter table customers add column seen_at timestamp default '2026-01-01 10:00:00'")
    world.rest()
    world.sync(attributes=ATTRIBUTES, cursor="seen_at")
    for _ in range(3):
        assert not world.run().notes
        assert stamp(world) is None


def test_once_in_a_while_it_is_read_anyway(world: World) -> None:
    """What a role may see of a table can change without the table, so no stamp is believed for longer than a week."""
    wait(6.9 * 86_400)
    assert skipped(world.run())
    wait(0.2 * 86_400)
    assert not skipped(world.run())
    assert skipped(world.run())


def test_a_file_put_in_the_place_of_the_other_during_the_read_is_seen(world: World) -> None:
    """The stamp is older than what is read, never newer: the read was of the file that is no more."""
    other = world.folder / "other.duckdb"
    shutil.copy(world.database, other)
    with duckdb.connect(str(other)) as connection:
        connection.execute("update customers set plan = 'pro' where custom_id = 'c3'")
    long_ago = time.time() - 3600
    os.utime(other, (long_ago, long_ago))

    def replaced(phase: str, _done: int, _total: int | None) -> None:
        if phase == "read" and other.exists():
            other.replace(world.database)

    assert world.run(full=True, progress=replaced).unchanged == 20
    assert world.run().changed == 1
    assert world.held() == world.wanted()


def test_rows_written_during_the_read_are_read_by_the_next_run(tmp_path: Path) -> None:
    """A table that changes under the reader leaves a stamp that is out of date at once."""
    with universe(tmp_path / "project", 1, Setup()) as world:
        set_plan(world, "free")
        assert (first := world.run(CUSTOMERS).report)
        assert first.accepted == 3

        def write(phase: str, _done: int, _total: int | None) -> None:
            if phase == "read" and world.tables.customers["c1"]["plan"] == "free":
                set_plan(world, "pro")

        run_sync(world.project, CUSTOMERS, Options(full=True), progress=write, transport=world.wire)
        assert (last := world.run(CUSTOMERS).report)
        assert last.changed == 3
        assert (after := world.run(CUSTOMERS).report)
        assert skipped(after)


def test_a_run_that_dies_anywhere_leaves_no_stamp_of_what_did_not_arrive(tmp_path: Path) -> None:
    """Killed at each of its steps, the next runs deliver what the table says, and only then rest."""
    for step in count(1):
        with universe(tmp_path / str(step), 1, Setup()) as world:
            set_plan(world, "free")
            world.run(CUSTOMERS)
            set_plan(world, "pro")
            died = world.run(CUSTOMERS, die_at=step).died
            for _ in range(3):
                world.run(CUSTOMERS)
                world.clock.sleep(1200)
            found = problems(world)
            assert not found, f"at step {step}: {found}"
            assert all(profile["plan"] == "pro" for profile in world.held().profiles.values()), f"at step {step}"
            assert (last := world.run(CUSTOMERS).report)
            assert skipped(last), f"at step {step}"
            if died is None:
                break
    assert step > 20


def test_a_plan_beside_a_killed_run_reads(tmp_path: Path) -> None:
    """What a killed run has in flight is not yet noted as due, and the stamp before it says nothing of that."""
    with universe(tmp_path / "project", 1, Setup()) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        assert skipped(plan_sync(world.project, CUSTOMERS).report)
        assert world.run(CUSTOMERS, resend=True, die_at=("request", 1)).died
        assert not skipped(plan_sync(world.project, CUSTOMERS).report)
        assert (last := world.run(CUSTOMERS).report)
        assert last.retried == 3
