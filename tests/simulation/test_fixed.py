"""Fixed stories: what the simulation has found, and what it would seldom find, each as short as can be."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.fixed import late_copy, refused_attribute
from tests.simulation.universe import ORDERS, Setup, Universe, universe

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


def test_late_copy_does_not_outlive_the_quiet_time(folder: Path) -> None:
    """G1: what a lost request brings after a newer value is set right by the send once more."""
    late_copy(folder)


def test_refused_attribute_is_tried_again_whatever_the_cursor_says(folder: Path) -> None:
    """G7: a refused attribute stays due though its row is behind the cursor."""
    refused_attribute(folder)
