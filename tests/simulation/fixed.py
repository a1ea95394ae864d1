"""Short fixed stories of profiles that random ones seldom tell to the end."""

from pathlib import Path

from tests.simulation.oracles import problems
from tests.simulation.universe import CUSTOMERS, Setup, Universe, universe

_CURSOR = {"cursor": {"column": "updated_at", "overlap": "0s"}}


def late_copy(folder: Path) -> None:
    """A request without an answer is applied ten minutes later, over a newer value.

    Raises:
        AssertionError: It stayed there.
    """
    with universe(folder, 1, Setup(customers=_CURSOR)) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        world.api.inject({"status": 500, "late": 600})
        world.run(CUSTOMERS)
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


def set_plan(world: Universe, plan: str) -> None:
    """Three customers with this plan, as of now; a second passes."""
    now = world.clock.utc().replace(tzinfo=None)
    for number in range(3):
        row = {"custom_id": f"c{number}", "plan": plan, "points": number, "tags": ["a"], "updated_at": now}
        world.tables.customers[f"c{number}"] = row
    world.tables.write()
    world.clock.sleep(1)
