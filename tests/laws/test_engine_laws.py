"""Laws of the two engines, and of a run that may hold next to nothing: whatever happens, they plan the same."""

import os
import random

import pytest

from tests.laws.twins import History, Operations, history

HISTORIES = int(os.environ.get("ENGINE_HISTORIES", "4"))
"""Of each law; every run draws others, so a soak is ENGINE_HISTORIES=200."""

STEPS = 7


def seeds() -> list[int]:
    if given := os.environ.get("ENGINE_SEED"):
        return [int(given)]
    return [random.SystemRandom().randrange(10**6) for _ in range(HISTORIES)]


def is_idle(sent: Operations, more: Operations, held: Operations) -> bool:
    """Whether `more` sends what `sent` does, and besides only what Batch holds anyway."""
    for key, attributes in more.items():
        expected = sent.get(key, {})
        for name, value in attributes.items():
            bare = name.removeprefix("date(").removesuffix(")")
            if name in expected:
                if value != expected[name]:
                    return False
            elif held.get(key, {}).get(bare) != value:
                return False
    return all(name in more.get(key, {}) for key, attributes in sent.items() for name in attributes)


@pytest.mark.parametrize("nth", range(HISTORIES))
def test_switching_engines_and_mappings_changes_nothing_at_batch(nth: int) -> None:
    """Whenever the engine or the mapping changes, what the local engine would send is sent, and else nothing new."""
    for seed in seeds()[nth : nth + 1]:
        with history(seed, settled=False) as twins:
            one, two = twins.sides
            for number in range(STEPS):
                step, place = twins.step(), f"ENGINE_SEED={seed}, step {number}"
                assert step.reports[1].outcome == step.reports[0].outcome, f"{place}: {step.reports}"
                assert is_idle(*step.sent, one.held()), f"{place}: {step.sent}"
                assert one.held() == two.held(), place


@pytest.mark.parametrize("nth", range(HISTORIES))
def test_both_engines_do_the_same_to_the_letter(nth: int) -> None:
    """Counts, operations, rejects, what is due and what Batch holds are the same after every run of a history."""
    for seed in seeds()[nth : nth + 1]:
        with history(seed, settled=True) as twins:
            is_same_to_the_letter(twins, f"ENGINE_SEED={seed}")


@pytest.mark.parametrize("nth", range(HISTORIES))
def test_bounds_so_low_that_everything_spills_change_nothing(nth: int) -> None:
    """Every candidate, row, part and file of its own: counts, operations and all else are those of a run that spills nothing."""
    for seed in seeds()[nth : nth + 1]:
        with history(seed, settled=False, engines=False) as twins:
            is_same_to_the_letter(twins, f"ENGINE_SEED={seed}")


def is_same_to_the_letter(twins: History, place: str) -> None:
    one, two = twins.sides
    for number in range(STEPS):
        step, at = twins.step(), f"{place}, step {number}"
        first, second = step.counts()
        assert first == second, f"{at}: {step.reports}"
        assert step.plans[0] == step.plans[1], at
        assert step.sent[0] == step.sent[1], at
        assert one.held() == two.held(), at
        assert one.rejects() == two.rejects(), at
        assert one.due() == two.due(), at
