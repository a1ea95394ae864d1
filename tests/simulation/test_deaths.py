"""Scenarios in which a run dies at step 1, 2, 3, … n; `--seed N` plays those of a seed, `--step` with it one of them.

SIMULATION_SCENARIOS=N plays more of them, or fewer.
"""

import os
from math import ceil
from pathlib import Path

import pytest

from tests.simulation.deaths import SCENARIOS, play

SEEDS = ceil(int(os.environ.get("SIMULATION_SCENARIOS", "4200")) / SCENARIOS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        asked = metafunc.config.getoption("seed")
        metafunc.parametrize("seed", range(SEEDS) if asked is None else [asked])


def test_every_promise_holds_wherever_a_run_dies(seed: int, folder: Path, pytestconfig: pytest.Config) -> None:
    """G1 to G7, G9 to G11: whatever happens meanwhile, the run after a death or two brings everything to its place."""
    step = pytestconfig.getoption("step")
    assert len(play(folder, seed, step)) == (SCENARIOS if step is None else 1)


def test_a_step_always_tells_the_same_story(folder: Path) -> None:
    """A failure can be replayed: alone a scenario is what it is among those of its seed, also one of two deaths."""
    stories = play(folder / "all", 8)
    for step in (next(iter(stories)), next(step for step in stories if "." in step)):
        assert play(folder / step, 8, step) == {step: stories[step]}
