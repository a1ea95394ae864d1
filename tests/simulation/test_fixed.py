"""Fixed stories: what the simulation has found, and what it would seldom find, each as short as can be."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connector.state import runs
from connector.state.database import open_state
from tests.simulation.fixed import kill_in_a_pause, late_copy, refused_attribute, set_plan
from tests.simulation.universe import CUSTOMERS, ORDERS, Setup, Universe, universe
from tests.world import PROJECT_KEY

CURSOR = {"column": "loaded_at", "overlap": "0s"}
HOUR = 3600.0


def _place(world: Universe, number: int, hours: float) -> None:
    """An order that is loaded now and placed that many hours later."""
    now = world.clock.utc().replace(tzinfo=None)
    row = {
        "custom_id": "c1", "order_id": number, "ref": str(number), "status": "new", "amount": 1.0,
        "ordered_at": now + timedelta(hours=hours), "loaded_at": now,
    }  # fmt: skip
    world.tables.orders[number] = row
    world.tables.write()
    world.clock.sleep(1)


@pytest.mark.parametrize("identity", ["order_id", None])
def test_future_event_that_is_looked_at_too_late_is_held(folder: Path, identity: str | None) -> None:
    """G3: listed as not yet due, next read a day after it was: it is held and counted, with an id and without."""
    with universe(folder, 45, Setup(orders={"id": identity, "cursor": CURSOR})) as world:
        _place(world, 1, hours=2)
        world.run(ORDERS)
        world.clock.sleep(27 * HOUR)
        report = world.run(ORDERS).report
        assert report is not None
        assert (report.held, report.undecided) == (1, 1)


@pytest.mark.parametrize(("fault", "options"), [({"status": 401}, {}), (None, {"limit": 1})])
def test_future_event_that_comes_due_in_a_run_that_does_not_send_it_is_sent_later(
    folder: Path, fault: dict[str, Any] | None, options: dict[str, Any]
) -> None:
    """G3: a cursor that is past it must not lose it: it stays listed until it was sent."""
    with universe(folder, 1047, Setup(orders={"cursor": CURSOR})) as world:
        for number in (1, 2):
            _place(world, number, hours=2)
        world.run(ORDERS)
        world.clock.sleep(3 * HOUR)
        world.api.inject(*[fault] if fault else [])
        world.run(ORDERS, **options)
        world.api.clear_faults()
        world.clock.sleep(60)
        world.run(ORDERS)
        assert world.held().events == {"1": 1, "2": 1}


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_late_copy_does_not_outlive_the_quiet_time(folder: Path, hours: int) -> None:
    """G1: what a lost request brings after a newer value is set right by the send once more, however the clock is set."""
    late_copy(folder, hours)


def test_refused_attribute_is_tried_again_whatever_the_cursor_says(folder: Path) -> None:
    """G7: a refused attribute stays due though its row is behind the cursor."""
    refused_attribute(folder)


@pytest.mark.parametrize("sync", [ORDERS, CUSTOMERS])
@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 408}, {"status": 503, "retry_after": 5}])
def test_kill_in_the_pause_after_a_refusal_leaves_nothing_in_doubt(
    folder: Path, sync: str, fault: dict[str, Any]
) -> None:
    """G4: what Batch said it did not take is unsent from the moment of its answer, not from the end of the wait."""
    kill_in_a_pause(folder, sync, fault)


def _due(world: Universe) -> dict[str, str]:
    """Why each customer is due."""
    with open_state(world.project.state_dir, PROJECT_KEY) as state:
        return {entry["key"]: entry["reason"] for entry in runs.due(state, CUSTOMERS).to_dicts()}


def test_send_once_more_counts_as_retried_whatever_was_sent_meanwhile(folder: Path) -> None:
    """The source did not change since it was last sent: the guards must not take the repetition for a change."""
    with universe(folder, 1, Setup()) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"status": 500, "late": 600})
        world.run(CUSTOMERS)
        set_plan(world, "free")
        report = world.run(CUSTOMERS).report
        assert report is not None
        assert (report.changed, report.retried) == (3, 0)
        world.clock.sleep(1200)
        report = world.run(CUSTOMERS).report
        assert report is not None
        assert (report.changed, report.retried) == (0, 3)


@pytest.mark.parametrize("cursor", [None, {"column": "updated_at", "overlap": "0s"}])
@pytest.mark.parametrize("answered", [True, False])
def test_profile_in_doubt_that_left_is_let_go_and_sent_whole_when_it_comes_back(
    folder: Path, cursor: dict[str, str] | None, answered: bool
) -> None:
    """G1: nothing is due for ever for a profile that is gone; but nothing of it looks delivered either."""
    with universe(folder, 1, Setup(customers={"cursor": cursor})) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        # Its copy lands later, over whatever was sent meanwhile; `answered`: another try was accepted.
        world.api.inject({"status": 500, "late": 600}, *([] if answered else [{"status": 500, "times": 99}]))
        world.run(CUSTOMERS)
        world.api.clear_faults()
        if answered:
            set_plan(world, "free")
            world.run(CUSTOMERS)
        world.tables.customers.clear()
        world.tables.write()
        world.run(CUSTOMERS)
        assert set(_due(world).values()) == {"unknown"}, "what is on its way may still arrive"
        world.clock.sleep(1200)
        report = world.run(CUSTOMERS).report
        assert report is not None
        assert (report.outcome, report.requests, _due(world)) == ("green", 0, {})
        assert {attributes["plan"] for attributes in world.held().profiles.values()} == {"pro"}
        set_plan(world, "free")
        world.run(CUSTOMERS)
        assert {attributes["plan"] for attributes in world.held().profiles.values()} == {"free"}
        again = world.run(CUSTOMERS).report
        assert again is not None
        assert again.requests == 0


def test_value_in_doubt_that_became_a_null_to_keep_is_let_go(folder: Path) -> None:
    """There is nothing to send over it, so it is not due; the next value is sent, also if it is the one before."""
    keep = {"plan": {"column": "plan", "on_null": "keep"}}
    with universe(folder, 1, Setup(customers={"attributes": keep})) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"status": 500, "apply": True}, {"status": 500, "times": 99})
        world.run(CUSTOMERS)
        world.api.clear_faults()
        set_plan(world, None)
        world.clock.sleep(1200)
        world.run(CUSTOMERS)
        assert _due(world) == {}
        set_plan(world, "free")
        world.run(CUSTOMERS)
        assert {attributes["plan"] for attributes in world.held().profiles.values()} == {"free"}


def test_profiles_that_are_cleared_once_more_are_no_reason_to_stop_the_clearing(folder: Path) -> None:
    """G12: cleared again because a lost request may have come late, they count among all that may be cleared, too."""
    setup = Setup(delivery={"in_flight": 1}, per_call=1, customers={"on_removed": "clear"})
    with universe(folder, 1, setup) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"status": 500, "apply": True, "times": 2, "skip": 1})
        world.run(CUSTOMERS)
        for gone in ("c1", "c0"):
            for key in {gone, "c2"} & world.tables.customers.keys():
                del world.tables.customers[key]
            world.tables.write()
            report = world.run(CUSTOMERS, full=True).report
            assert report is not None
            assert (report.outcome, report.accepted) == ("green", 2)
            world.clock.sleep(1200)
        assert set(map(str, world.held().profiles.values())) == {"{}"}
