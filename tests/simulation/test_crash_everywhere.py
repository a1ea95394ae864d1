"""Fixed stories in which a run dies at its first step, at its second, … and lives to its end."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.simulation.fixed import place_orders, set_plan
from tests.simulation.image import Image
from tests.simulation.oracles import problems
from tests.simulation.universe import CUSTOMERS, ORDERS, Setup, Universe, universe

_TWO = {"in_flight": 2}
_SETTLED = 1200
"""Seconds after which no lost request can be applied any more."""


@pytest.mark.parametrize("on_unknown", ["hold", "resend"])
def test_events_survive_a_death_at_any_step(folder: Path, on_unknown: str) -> None:
    """G2 to G5, G9: killed anywhere, no event is lost unlisted; under `hold` none comes twice, else few do."""
    setup = Setup(delivery=_TWO, per_call=2, orders={"on_unknown": on_unknown, "cursor": "loaded_at"})
    with universe(folder, 1, setup) as world:
        place_orders(world, 20, most=17)
        for image in _images(world, ORDERS):
            found = [*_last(world, ORDERS, discard_held=True), *problems(world)]
            assert not found, f"died at {image.died}: {found}"
            held = 20 - len(world.held().events)
            assert held <= (18 if on_unknown == "hold" and image.died else 0), f"died at {image.died}"


def test_profiles_survive_a_death_at_any_step_and_values_that_go_back(folder: Path) -> None:
    """G1, G2: the revert trap: killed anywhere while a change leaves, and then the change is taken back."""
    setup = Setup(delivery=_TWO, per_call=2, customers={"cursor": {"column": "updated_at", "overlap": "0s"}})
    with universe(folder, 1, setup) as world:
        set_plan(world, "free")
        world.run(CUSTOMERS)
        set_plan(world, "pro")
        for image in _images(world, CUSTOMERS):
            set_plan(world, "free")
            world.run(CUSTOMERS)
            found = [*_last(world, CUSTOMERS), *problems(world)]
            assert not found, f"died at {image.died}: {found}"


@pytest.mark.parametrize("sync", [CUSTOMERS, ORDERS])
def test_a_recovery_that_dies_five_times_ends_well(folder: Path, sync: str) -> None:
    """G2 to G4, G9: what a killed run left is taken over in the end, however often taking it over is killed."""
    for step in count(1, 4):
        with universe(folder / str(step), 1, Setup(delivery=_TWO, per_call=2)) as world:
            if sync == CUSTOMERS:
                set_plan(world, "free")
            else:
                place_orders(world, 8)
            assert world.run(sync, die_at=("applied", 2)).died
            deaths = [world.run(sync, die_at=step).died for _ in range(5)]
            options = {"discard_held": True} if sync == ORDERS else {}
            found = [*_last(world, sync, **options), *_last(world, sync), *problems(world)]
            assert not found, f"died at step {step}, {deaths}: {found}"
            if not any(deaths):
                break
    assert step > 12, "the steps are not counted any more"


def _images(world: Universe, sync: str) -> Iterator[Image]:
    """What a death of the next run would leave, of each of its steps in turn, and at last what its end does."""
    images: list[Image] = []
    world.run(sync, images=images)
    assert len(images) > 25, "the steps are not counted any more"
    for number, image in enumerate(images):
        world.go_on_from(image, f"image {number}")
        yield image


def _last(world: Universe, sync: str, **options: bool) -> list[str]:
    """What is wrong with the run after which all is to be quiet."""
    world.clock.sleep(_SETTLED)
    report = world.run(sync, **options).report
    return [] if report and report.outcome == "green" else [f"the last run ended otherwise than green: {report}"]
