"""Short fixed stories of profiles that random ones seldom tell to the end."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from connector.state import runs
from connector.state.database import open_state
from tests.simulation.image import Image
from tests.simulation.oracles import problems
from tests.simulation.universe import CUSTOMERS, Setup, Universe, universe
from tests.world import PROJECT_KEY

_CURSOR = {"cursor": {"column": "updated_at", "overlap": "0s"}}


def late_copy(folder: Path, hours: int = 0) -> None:
    """A request without an answer is applied ten minutes later, over a newer value; the clock is set ahead meanwhile.

    Raises:
        AssertionError: It stayed there.
    """
    with universe(folder, 1, Setup(customers=_CURSOR)) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"status": 500, "late": 600})
        world.run(CUSTOMERS)
        world.clock.set_ahead(timedelta(hours=hours))
        set_plan(world, "free")
        world.run(CUSTOMERS)
        world.clock.sleep(1200)
        world.run(CUSTOMERS)
        found = problems(world)
        assert not found, found


def refused_attribute(folder: Path) -> None:
    """An attribute is refused that no cursor shows again, and would be taken later.

    Raises:
        AssertionError: It was not tried again.
    """
    with universe(folder, 1, Setup(customers=_CURSOR)) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"partial": [{"custom_id": "c1", "attribute": "plan"}]})
        world.run(CUSTOMERS)
        world.clock.sleep(1200)
        world.run(CUSTOMERS)
        found = problems(world)
        assert not found, found


def kill_in_a_pause(folder: Path, sync: str, fault: dict[str, Any]) -> None:
    """The first answer is a refusal of the whole request; the run is killed at each step of the wait that follows.

    Raises:
        AssertionError: The next run did not know that nothing had been applied.
    """
    pauses = 0
    with universe(folder, 1, Setup()) as world:
        set_plan(world, "free")
        place_orders(world, 3)
        world.api.inject(fault)
        images: list[Image] = []
        world.run(sync, images=images)
        for number, image in enumerate(images):
            run = image.runs[-1]
            calls = run.traffic.calls
            answered = [call.answer for call in calls] == ["not applied"]
            if not answered or image.died in ("", "request") or run.commits == calls[0].commits:
                continue  # killed before the answer was there, or noted; or when the next request left
            pauses += 1
            world.go_on_from(image, f"image {number}")
            with open_state(world.project.state_dir, PROJECT_KEY) as state:
                (left,) = runs.unfinished(state, sync)
                assert [chunk.state for chunk in runs.chunk_rows(state, left.id)] == ["planned"], f"at {image.died}"
            report = world.run(sync).report
            assert report is not None
            assert (report.outcome, report.accepted, report.held) == ("green", 3, 0), f"at {image.died}"
    assert pauses, "no run was killed in its pause"


def place_orders(world: Universe, orders: int, most: int = 0) -> None:
    """So many orders, of which one customer has `most` and the others have one each in turn; a second passes."""
    now = world.clock.utc().replace(tzinfo=None)
    for number in range(orders):
        row = {
            "custom_id": "c0" if number < most else f"c{number % 3}", "order_id": number, "ref": str(number),
            "status": "new", "amount": 1.0, "ordered_at": now - timedelta(minutes=100 - number), "loaded_at": now,
        }  # fmt: skip
        world.tables.orders[number] = row
        world.remember(row)
    world.tables.write()
    world.clock.sleep(1)


def set_plan(world: Universe, plan: str | None) -> None:
    """Three customers with this plan, as of now; a second passes."""
    now = world.clock.utc().replace(tzinfo=None)
    for number in range(3):
        row = {"custom_id": f"c{number}", "plan": plan, "points": number, "tags": ["a"], "updated_at": now}
        world.tables.customers[f"c{number}"] = row
    world.tables.write()
    world.clock.sleep(1)
