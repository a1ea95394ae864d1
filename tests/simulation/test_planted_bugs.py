"""The simulation's own test: with each of these bugs planted it must fail, or the promise that they break is untested."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from connector import commit, delivery, event_commit, events, outcome, settled, sync
from connector.api import profiles
from connector.event_planning import HELD
from connector.outcome import Outcome
from connector.state import rate, runs
from connector.state.ledger import Ledger
from tests.simulation import deaths, scenario
from tests.simulation.fixed import kill_in_a_pause, late_copy, refused_attribute
from tests.simulation.universe import ORDERS

TRIES = 10
"""Seeds within which a planted bug must show."""

Plant = Callable[[pytest.MonkeyPatch], None]


def _dies(first: int) -> Callable[[Path], None]:
    """The scenarios of death from a seed on; the first is one that was seen to show the bug, so that the test is quick."""

    def scenarios(folder: Path) -> None:
        for seed in range(first, first + TRIES):
            deaths.play(folder / str(seed), seed)

    return scenarios


def _lives(first: int) -> Callable[[Path], None]:
    """The same with long stories."""

    def stories(folder: Path) -> None:
        for seed in range(first, first + TRIES):
            scenario.play(folder / str(seed), seed)

    return stories


def _no_sent_mark(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runs, "mark_sent", lambda *_: None)


def _unknown_events_count_as_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(event_commit._BY_OUTCOME, settled.UNKNOWN, event_commit._SENT)


def _unknown_events_go_again_under_hold(patch: pytest.MonkeyPatch) -> None:
    real = event_commit.closing
    patch.setattr(events, "closing", lambda state, run, **_: real(state, run, hold=False))


def _ledger_moves_before_the_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(event_commit._BY_OUTCOME, settled.UNSENT, event_commit._SENT)


def _waves_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delivery, "groupby", lambda bodies, **_: groupby(bodies, key=lambda _: 0))


def _unknown_attributes_count_as_delivered(patch: pytest.MonkeyPatch) -> None:
    real = settled.outcomes

    def believed(chunks: Sequence[runs.ChunkRow], now: float) -> settled.Outcomes:
        found = real(chunks, now)
        fates = np.where(found.outcome == settled.UNKNOWN, settled.ACCEPTED, found.outcome).astype(np.int8)
        return settled.Outcomes(fates, found.settled_at, np.zeros_like(found.unknown_at), found.refusals)

    patch.setattr(commit, "outcomes", believed)


def _held_events_are_not_listed(patch: pytest.MonkeyPatch) -> None:
    real = event_commit._listed

    def listed(rows: pl.DataFrame, refusals: pl.DataFrame) -> list[pl.DataFrame]:
        return [frame.filter(pl.col("state") != HELD) for frame in real(rows, refusals)]

    patch.setattr(event_commit, "_listed", listed)


def _no_quiet_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sync, "Books", lambda *parts: replace(commit.Books(*parts), quiet=0.0))


def _cursor_passes_what_was_not_sent(patch: pytest.MonkeyPatch) -> None:
    real = events.EventStory._entries
    patch.setattr(
        events.EventStory, "_entries", lambda story, kept, drafted, **_: real(story, kept, drafted, settled=True)
    )


def _partial_errors_are_ignored(patch: pytest.MonkeyPatch) -> None:
    real = outcome.classify

    def deaf(*arguments: Any, **options: Any) -> Outcome:
        return real(*arguments, **options)._replace(refusals=())

    patch.setattr(profiles, "classify", deaf)


def _killed_runs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runs, "unfinished", lambda *_: [])


def _ledger_is_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "sent", lambda _, rows: pl.Series("sent", np.zeros(rows.height, np.bool_)))


def _nothing_is_due_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runs, "replace_due", lambda *_: None)


def _refusals_are_noted_after_the_pause(patch: pytest.MonkeyPatch) -> None:
    real = runs.settle

    def late(connection: sa.Connection, run: str, number: int, standing: runs.Standing) -> None:
        if standing.state != "planned":
            real(connection, run, number, standing)

    patch.setattr(runs, "settle", late)


def _rate_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rate, "reserve", lambda *_, **__: 0.0)


PLANTED: list[tuple[Plant, Callable[[Path], object]]] = [
    (_no_sent_mark, _dies(0)),
    (_unknown_events_count_as_sent, _dies(0)),
    (_unknown_events_go_again_under_hold, _dies(0)),
    (_ledger_moves_before_the_answers, _dies(0)),
    (_waves_do_not_wait, _dies(10)),
    (_unknown_attributes_count_as_delivered, _dies(2)),
    (_held_events_are_not_listed, _dies(0)),
    (_no_quiet_time, _dies(8)),
    (_cursor_passes_what_was_not_sent, _dies(0)),
    (_partial_errors_are_ignored, _dies(0)),
    (_killed_runs_are_forgotten, _dies(0)),
    (_ledger_is_not_asked, _dies(0)),
    (_nothing_is_due_again, _dies(8)),
    (_rate_is_forgotten, _dies(2)),
    (_waves_do_not_wait, _lives(2)),
    (_unknown_attributes_count_as_delivered, _lives(10)),
    (_cursor_passes_what_was_not_sent, _lives(22)),
    (_partial_errors_are_ignored, _lives(11)),
    (_killed_runs_are_forgotten, _lives(3)),
    (_no_quiet_time, late_copy),
    (_nothing_is_due_again, refused_attribute),
    (_refusals_are_noted_after_the_pause, lambda folder: kill_in_a_pause(folder, ORDERS, {"status": 429})),
]
"""Each bug, and the stories among which one must break: scenarios of death or long stories from a seed on, or a fixed one."""


@pytest.mark.parametrize(("plant", "stories"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_planted_bug_shows(
    plant: Plant, stories: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bug planted a story breaks a promise; any other exception is a fault of this test."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        stories(folder)
