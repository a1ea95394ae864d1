"""Scenarios drawn from seeds; `--seed N` replays one, SIMULATION_SEEDS=N plays more of them."""

import os
from pathlib import Path

import pytest

from tests.simulation.scenario import play

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "40"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        asked = metafunc.config.getoption("seed")
        metafunc.parametrize("seed", range(SEEDS) if asked is None else [asked])


def test_every_promise_holds_after_faults_and_deaths(seed: int, folder: Path) -> None:
    """G1 to G7, G9, G11: whatever fails and whenever a run dies, quiet days bring everything to its place."""
    play(folder, seed)


def test_a_seed_always_tells_the_same_story(folder: Path) -> None:
    """A failure can be replayed: two worlds of one seed see the same calls and steps."""
    assert play(folder / "first", 8) == play(folder / "second", 8)
