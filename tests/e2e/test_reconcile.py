"""Reconciliation end to end: what somebody else changed at Batch is found, exactly that, and the next run mends it."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connector.cli import main
from connector.errors import UsageError
from connector.report import ReconcileReport
from connector.simulator import serve
from connector.state.database import open_state
from connector.state.lease import hold
from tests.simulation.crash import Crash, Death, Steps
from tests.world import PROJECT_KEY, REST_KEY, Dying, World, timeless, wait

CANARY = "canary"
MAPPED = "{$email_address: email, plan: plan, orders: orders, born: born, site: {column: site, type: url}, tags: {column: tags, unordered: true}}"
CUSTOMERS = f"""create table customers as select
    'c' || i as custom_id, '{CANARY}' || i || '@example.org' as email, case when i % 3 > 0 then 'gold ' || i end as plan,
    i as orders, timestamp '1960-01-01' + to_days(i::int) as born, 'https://example.org/' || i as site, ['b' || i, 'a'] as tags,
    timestamp '2026-01-01' + to_seconds(i) as seen_at
from range({{rows}}) as t(i)"""


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    """30 delivered customers; whatever a test does, nothing secret or personal gets about."""
    caplog.set_level(logging.DEBUG)
    with timeless() as world:
        world.sync(attributes=MAPPED)
        deliver(world, 30)
        yield world
        for secret in (CANARY, "signature", REST_KEY, PROJECT_KEY):
            assert secret not in caplog.text
        assert world.api.stats["credentials_leaked"] == 0
        assert all(
            one["state"] == "requested" for one in world.exports("#reconcile-customers")
        ) or not list((world.folder / ".connector" / "outbox").iterdir())


def deliver(world: World, rows: int) -> None:
    world.sql(CUSTOMERS.format(rows=rows))
    assert world.run().accepted == rows
    world.api.requests.clear()


def counts(report: ReconcileReport) -> tuple[str, int, int, int, int, int]:
    return report.outcome, report.checked, report.missing, report.differing, report.unknown, report.healed


def mended(world: World) -> None:
    """Batch holds what the warehouse says, a reconciliation finds nothing, and the next run sends nothing."""
    wanted, held = world.wanted("select * exclude (seen_at) from customers"), world.held()
    names = {"email": "$email_address"}
    for key, row in wanted.items():
        row["tags"] = sorted(row["tags"])  # type: ignore[call-overload]
        assert held[key] == {names.get(name, name): value for name, value in row.items()}
    assert world.reconcile().outcome == "green"
    assert world.run().requests == 0


@pytest.mark.parametrize("cursor", [None, "seen_at"])
@pytest.mark.parametrize("style", [{}, {"export_style": "wrapped", "export_dates": "epoch_ms", "export_gzip": True, "part_lines": 200}])
def test_exactly_what_somebody_else_changed(world: World, cursor: str | None, style: dict[str, Any]) -> None:
    """100 altered and 20 forgotten of 1,000: those are found, healed by the next run alone, with a cursor too."""
    world.api.configure(**style)
    world.api.reset()
    world.sync("people", attributes=MAPPED, **({"cursor": cursor} if cursor else {}))
    world.sql("drop table customers")
    world.sql(CUSTOMERS.format(rows=1000))
    assert world.run("people").accepted == 1000
    wait(1)
    assert world.run("people").requests == 0
    for n in range(60):
        world.api.alter(f"c{n}", {"plan": "iron"})
    for n in range(60, 90):
        world.api.alter(f"c{n}", {"orders": None, "date(born)": "1999-01-01T00:00:00Z"})
    for n in range(90, 100):
        world.api.alter(f"c{n}", {"tags": ["other"], "$email_address": None, "url(site)": "https://example.com/x"})
    for n in range(100, 120):
        world.api.forget(f"c{n}")
    world.api.alter("stranger", {"plan": "iron"})
    found = {"plan": 60, "orders": 30, "born": 30, "tags": 10, "$email_address": 10, "site": 10}
    report = world.reconcile("people")
    assert counts(report) == ("incomplete", 1000, 20, 100, 1, 0)
    assert (report.by_attribute, report.exit_status) == (found, 3)
    assert set(report.sample) <= {f"c{n}" for n in range(120)}
    assert len(report.sample) == 10
    assert world.run("people").requests == 0
    report = world.reconcile("people", heal=True)
    assert counts(report) == ("green", 1000, 20, 100, 1, 120)
    assert report.by_attribute == found
    world.api.requests.clear()
    report = world.run("people")
    assert (report.outcome, report.planned, report.accepted, report.retried) == ("green", 120, 120, 120)
    assert set(world.sent()) == {f"c{n}" for n in range(120)}
    assert world.run("people").requests == 0
    assert counts(world.reconcile("people")) == ("green", 1000, 0, 0, 1, 0)
    held, wanted = world.held(), world.wanted("select * exclude (seen_at) from customers")
    for key, row in wanted.items():
        row["$email_address"] = row.pop("email")
        row["tags"] = sorted(row["tags"])  # type: ignore[call-overload]
        assert held[key] == row


def test_only_what_differs_goes(world: World) -> None:
    """Of an altered profile the differing attribute goes alone, of a forgotten one everything."""
    wait(1)
    world.api.alter("c1", {"plan": "iron", "foreign": 1})
    world.api.forget("c2")
    assert world.reconcile(heal=True).healed == 2
    world.api.alter("c1", {"orders": -1})
    world.run()
    held = world.held()
    assert (held["c1"]["plan"], held["c1"]["orders"], held["c1"]["foreign"]) == ("gold 1", -1, 1)
    assert held["c2"].keys() == {"$email_address", "plan", "orders", "born", "site", "tags"}


def test_a_healed_row_that_changes_meanwhile(world: World) -> None:
    """What goes is the warehouse's value of that day; a row that left is no longer due."""
    world.api.alter("c1", {"plan": "iron"})
    world.api.alter("c2", {"plan": "iron"})
    world.reconcile(heal=True)
    world.sql("update customers set plan = 'new' where custom_id = 'c1'")
    world.sql("delete from customers where custom_id = 'c2'")
    assert world.run().outcome == "green"
    assert world.held()["c1"]["plan"] == "new"
    assert world.run().requests == 0
    assert world.due() == []


def test_nothing_is_changed_without_heal(world: World) -> None:
    """A look leaves snapshot and due list as they are, and what is not healed is found again."""
    world.api.alter("c1", {"plan": "iron"})
    for _ in range(2):
        assert world.reconcile().outcome == "incomplete"
        assert (world.due(), world.run().requests) == ([], 0)


def test_what_is_delivered_after_batch_was_asked_is_not_judged(world: World) -> None:
    """A run may deliver while the export is made; what Batch could not yet say is no drift."""
    world.api.configure(export_seconds=60)
    once: list[int] = []

    def progress(phase: str, _done: int, _total: int | None) -> None:
        if phase.startswith("export") and not once:
            once.append(1)
            thread = threading.Thread(target=change)
            thread.start()
            thread.join()

    def change() -> None:
        world.sql("update customers set plan = 'new' where orders < 5")
        assert world.run().accepted == 5

    world.api.alter("c9", {"plan": "iron"})
    assert counts(world.reconcile(progress=progress)) == ("incomplete", 25, 0, 1, 0, 0)
    assert once
    world.api.configure(export_seconds=0)
    wait(1)
    assert counts(world.reconcile()) == ("incomplete", 30, 0, 1, 0, 0)


def test_consent_is_reported_and_left_to_its_owner(world: World) -> None:
    """An opt-out at Batch is told and kept; only a warehouse that owns consent takes it back."""
    keys = {"source": "{query: \"select *, 'subscribed' as mail from customers\"}"}
    mapped = MAPPED.replace("{$email", "{$email_marketing: mail, $email", 1)
    world.sync(attributes=mapped, **keys)
    world.run(allow_mass_change="a new attribute")
    wait(1)
    world.api.alter("c1", {"$email_marketing": "unsubscribed"})
    world.api.alter("c2", {"$email_marketing": "unsubscribed", "plan": "iron"})
    world.api.forget("c3")
    report = world.reconcile(heal=True)
    assert counts(report) == ("incomplete", 30, 1, 2, 0, 2)
    assert report.by_attribute == {"$email_marketing": 2, "plan": 1}
    assert "consent: {owner: warehouse}" in " ".join(report.reasons)
    world.run()
    held = world.held()
    assert [held[f"c{n}"]["$email_marketing"] for n in (1, 2, 3)] == ["unsubscribed", "unsubscribed", "subscribed"]
    assert held["c2"]["plan"] == "gold 2"
    world.sync(attributes=mapped, consent="{owner: warehouse}", **keys)
    assert counts(world.reconcile(heal=True))[3:] == (2, 0, 2)
    world.run()
    assert {held["$email_marketing"] for held in world.held().values()} == {"subscribed"}


def test_a_null_that_is_kept_says_nothing(world: World) -> None:
    """With `on_null: keep` whatever Batch holds where the warehouse has null is right; else it is a drift."""
    world.sync(attributes=MAPPED.replace("plan: plan", "plan: {column: plan, on_null: keep}"))
    world.run()
    wait(1)
    world.api.alter("c0", {"plan": "theirs"})
    assert world.reconcile().outcome == "green"
    world.sync(attributes=MAPPED)
    world.run()
    assert world.reconcile().by_attribute == {"plan": 1}


def test_an_attribute_that_was_mapped_just_now(world: World) -> None:
    """An attribute that was never delivered is not judged; once it was, it is."""
    world.sync(attributes=MAPPED.replace("plan: plan", "plan: plan, seen: {column: seen_at, type: date}"))
    assert world.reconcile().outcome == "green"
    assert world.run(allow_mass_change="a new attribute").outcome == "green"
    wait(1)
    world.api.alter("c3", {"date(seen)": "2000-01-01T00:00:00Z"})
    assert world.reconcile().by_attribute == {"seen": 1}


def test_an_attribute_that_is_no_longer_mapped(world: World) -> None:
    """What the sync no longer sends is not judged."""
    wait(1)
    world.api.alter("c1", {"plan": "iron"})
    world.sync(attributes="{orders: orders}")
    assert world.reconcile().outcome == "green"
    world.run()
    assert world.reconcile(heal=True).healed == 0


def test_arrays_whose_order_means_nothing(world: World) -> None:
    """Another order is a drift only where order was declared to mean something."""
    wait(1)
    world.api.alter("c1", {"tags": ["b1", "a"]})
    assert world.reconcile().outcome == "green"
    world.api.alter("c1", {"tags": ["b1"]})
    assert world.reconcile().by_attribute == {"tags": 1}


def test_names_that_are_columns_of_ours_elsewhere(world: World) -> None:
    """An attribute may be called as a part of a line is."""
    world.sync("odd", source="{query: 'select custom_id, plan as raw, orders as identifiers, orders as custom from customers'}", attributes="{raw: raw, identifiers: identifiers, custom: custom}")
    world.run("odd")
    wait(1)
    world.api.alter("c1", {"raw": "iron"})
    assert world.reconcile("odd").by_attribute == {"raw": 1}


def test_everybody_was_removed(world: World) -> None:
    """A snapshot of nobody is compared all the same."""
    world.sync(attributes=MAPPED, on_removed="clear", guard="{max_removed: 100%, min_rows: 0}")
    world.run()
    world.sql("delete from customers")
    assert world.run().removed == 30
    assert counts(world.reconcile()) == ("green", 0, 0, 0, 30, 0)


def test_profiles_that_have_no_value_may_have_no_line(world: World) -> None:
    """Whether Batch writes a line for a profile without any value is not known: neither is a drift."""
    world.sync("bare", source="{query: 'select custom_id, null::varchar as note from customers'}", attributes="{note: note}")
    world.run("bare")
    wait(1)
    for blanks in (True, False):
        world.api.configure(export_blanks=blanks)
        assert world.reconcile("bare").outcome == "green"


def test_values_in_doubt_are_no_drift(world: World) -> None:
    """What is due anyway, as its delivery is in doubt, is not counted a second time."""
    world.sql("update customers set plan = 'new' where custom_id = 'c1'")
    world.api.inject({"partial": [{"custom_id": "c1", "attribute": "plan"}]})
    assert world.run().rejected == 1
    wait(1)
    assert world.reconcile().outcome == "green"


def test_lines_that_come_twice(world: World) -> None:
    """A profile that stands in the export twice is counted once."""
    wait(1)
    world.api.alter("c1", {"plan": "iron"})
    (line,) = [json.dumps({"identifiers": {"custom_id": "c1"}, "attributes": {"plan": "iron"}})]
    world.api.inject({"endpoint": "export", "lines": [line, line]})
    report = world.reconcile(heal=True)
    assert (report.differing, report.healed) == (1, 1)
    assert world.run().planned == 1


def test_a_mass_change_is_guarded(world: World) -> None:
    """More than `guard.max_changed` is not made due unasked; what was found is told all the same."""
    wait(1)
    for n in range(16):
        world.api.alter(f"c{n}", {"plan": "iron"})
    report = world.reconcile(heal=True)
    assert (report.outcome, report.exit_status, report.error and report.error["code"]) == ("guarded", 4, "guarded")
    assert (report.differing, report.healed, report.by_attribute) == (16, 0, {"plan": 16})
    assert world.run().requests == 0
    assert world.reconcile(heal=True, allow_mass_change="they were all wrong").healed == 16
    assert world.run().accepted == 16
    mended(world)


def test_half_is_not_too_many(world: World) -> None:
    """A guard refuses above its limit, not at it."""
    wait(1)
    for n in range(15):
        world.api.forget(f"c{n}")
    assert world.reconcile(heal=True).healed == 15
    world.run()
    mended(world)


@pytest.mark.parametrize(
    "fault",
    [
        {"endpoint": "export", "lines": ["{"]}, {"endpoint": "file", "truncated": True}, {"endpoint": "export", "becomes": "error"},
        {"endpoint": "export", "becomes": "missing_part"}, {"endpoint": "export", "becomes": "bomb"},
        {"endpoint": "download", "location": "https://10.0.0.1/"}, {"endpoint": "view", "status": 401},
    ],
)  # fmt: skip
def test_an_export_that_is_not_whole_proves_nothing(world: World, fault: dict[str, Any]) -> None:
    """Nobody looks lost because a file was; the next reconciliation is as good as ever."""
    world.api.inject(fault)
    report = world.reconcile(heal=True)
    assert (report.outcome, report.missing, report.healed) == ("failed", 0, 0)
    assert report.error
    assert world.run().requests == 0
    assert world.reconcile(heal=True).outcome == "green"


def test_an_outage_is_waited_for_by_the_next_reconciliation(world: World) -> None:
    """Without an answer it ends incomplete, and the next one compares the same export."""
    world.api.inject({"endpoint": "view", "status": 503, "retry_after": 1, "times": 999})
    assert (world.reconcile().outcome, world.reconcile().exit_status) == ("incomplete", 3)
    world.api.clear_faults()
    assert world.reconcile().outcome == "green"
    assert len(world.api.exports()) == 1


def test_a_killed_run_comes_first(world: World) -> None:
    """What a killed run delivered is not known yet: the sync has to run before it can be judged."""
    world.sql("update customers set plan = 'new'")
    steps = Steps(world.folder / ".connector")
    with steps.watched(), pytest.raises(Crash), steps.counted(("answer", 1)), Dying(world, steps):
        world.run(allow_mass_change="all is new")
    report = world.reconcile()
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "state")
    assert "connector run customers" in (report.error or {})["remedy"]
    world.run(allow_mass_change="all is new")
    wait(1000)
    world.run()
    mended(world)


def test_a_sync_that_runs_on_and_on(world: World) -> None:
    """A run is waited for, and if it does not end, the reconciliation is busy; its export is kept for the next one."""
    with open_state(world.folder / ".connector", PROJECT_KEY) as state, hold(state, "customers", "a-long-run"):
        start = time.time()
        report = world.reconcile()
        assert (report.outcome, report.exit_status) == ("busy", 5)
        assert 600 <= time.time() - start < 660
    assert world.reconcile().outcome == "green"
    assert len(world.api.exports()) == 1


def test_two_reconciliations_at_once(world: World) -> None:
    """The second is busy at once."""
    with open_state(world.folder / ".connector", PROJECT_KEY) as state, hold(state, "#reconcile-customers", "other"):
        assert world.reconcile().outcome == "busy"
    assert world.api.exports() == []


def test_syncs_that_cannot_be_reconciled(world: World) -> None:
    """Only profiles are held against a snapshot, and only once there is one."""
    world.export_sync(attributes="[plan]")
    with pytest.raises(UsageError, match="no sync of profiles"):
        world.reconcile("profile_attributes")
    world.sync("never", attributes=MAPPED)
    report = world.reconcile("never")
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "usage")
    assert world.api.exports() == []


def test_killed_at_every_step_of_a_heal() -> None:
    """Wherever a heal dies, the next one and a run leave Batch with what the warehouse says, by one export."""
    with timeless() as world, (steps := Steps(world.folder / ".connector")).watched():
        world.sync(attributes=MAPPED)
        deliver(world, 8)
        assert heals(world, steps, None) is None
        first, last = steps.names.index("compare"), len(steps.names)  # before it is what pulls do, too
        assert world.run().planned == 2
        for step in range(first, last + 2):
            before = world.api.stats["exports_created"]
            died = heals(world, steps, step)
            wait(3600)
            place = f"died at step {step}, {died}"
            report = world.reconcile(heal=True)
            assert report.outcome == "green", f"{place}: {report}"
            assert world.api.stats["exports_created"] - before <= 2, place
            run = world.run()
            assert (run.outcome, run.planned) == ("green", 2), place
            assert world.held().keys() == {f"c{n}" for n in range(8)}, place
            assert world.held()["c1"]["plan"] == "gold 1", place
            assert list((world.folder / ".connector" / "outbox").iterdir()) == [], place
        assert died is None


def heals(world: World, steps: Steps, death: Death | None) -> str | None:
    """Somebody changes two profiles, and the heal of it dies at this step; at what, or None where it lives."""
    wait(1)
    world.api.alter("c1", {"plan": "iron"})
    world.api.forget("c2")
    try:
        with steps.counted(death), Dying(world, steps):
            world.reconcile(heal=True, progress=lambda phase, *_: steps.step(phase))
    except Crash as crash:
        return str(crash)
    return None


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The JSON contract and the exit statuses: 3 on drift, 0 once healed, 4 guarded, 2 for no sync of profiles."""
    world = World(tmp_path / "project", export_seconds=0)
    world.sync(attributes=MAPPED)
    deliver(world, 20)
    world.export_sync(attributes="[plan]")

    def say(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = main(["--project", str(world.folder), *arguments, "--json"])
        return status, json.loads(capfd.readouterr().out)

    with serve(world.api) as server:
        world.configure(server.base_url)
        world.api.alter("c1", {"plan": "iron"})
        status, told = say("reconcile", "customers")
        names = ("checked", "missing", "differing", "unknown", "healed", "by_attribute", "sample")
        assert status == 3
        assert [told[name] for name in names] == [20, 0, 1, 0, 0, {"plan": 1}, ["c1"]]
        assert say("reconcile", "customers", "--heal")[0] == 0
        status, told = say("run", "customers")
        assert (status, told["planned"]) == (0, 1)
        for n in range(20):
            world.api.forget(f"c{n}")
        status, told = say("reconcile", "customers", "--heal")
        assert (status, told["outcome"], told["missing"], told["healed"]) == (4, "guarded", 20, 0)
        assert say("reconcile", "customers", "--heal", "--allow-mass-change", "all are gone")[1]["healed"] == 20
        assert say("reconcile", "profile_attributes")[0] == 2
        world.api.credentials[PROJECT_KEY] = "another"
        assert say("reconcile", "customers")[0] == 1
