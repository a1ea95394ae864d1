"""The machine that a simulated run lives on: its clock, its chance and its process number, all from one seed."""

import os
import random
import secrets
import selectors
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

NO_PROCESS = 2**22 + 1
"""More than any process number that Linux gives: whoever asks whether a killed run lives is told no."""


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self, start: datetime) -> None:
        self._start = start.timestamp()
        self._passed = 0.0
        self._ahead = 0.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._start + self._passed + self._ahead

    def elsewhere(self) -> float:
        """Seconds since 1970 by the clocks of the warehouse and of Batch, which nobody sets ahead."""
        return self._start + self._passed

    def set_ahead(self, ahead: timedelta) -> None:
        """Set this machine's wall clock, as an operator may: so much ahead of what it should show."""
        self._ahead = ahead.total_seconds()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._passed

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self._passed += max(seconds, 0.0)

    def set(self, seconds: float) -> None:
        """Somebody sets the wall clock, so many seconds forwards or back."""
        self._start += seconds

    def reading(self) -> tuple[float, float, float]:
        """What `read_again` takes."""
        return self._start, self._passed, self._ahead

    def read_again(self, reading: tuple[float, float, float]) -> None:
        """Be as it was."""
        self._start, self._passed, self._ahead = reading

    def utc(self) -> datetime:
        """The time elsewhere, aware."""
        return datetime.fromtimestamp(self.elsewhere(), UTC)


@contextmanager
def machine(clock: Clock, seed: int) -> Iterator[random.Random]:
    """Everything that a run asks the machine for comes from the clock and the seed until the context ends: its chance."""
    chance = random.Random(seed)  # noqa: S311 - the same for the same seed
    before = random.getstate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", clock.wall)
        patch.setattr(time, "monotonic", clock.monotonic)
        patch.setattr(time, "clock_gettime", lambda _clock: clock.monotonic())
        patch.setattr(time, "sleep", clock.sleep)
        patch.setattr(selectors, "DefaultSelector", lambda: _Selector(clock))
        patch.setattr(os, "getpid", lambda: NO_PROCESS)
        patch.setattr(secrets, "randbits", chance.getrandbits)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4))
        random.seed(seed)
        try:
            yield chance
        finally:
            random.setstate(before)


class _Selector(selectors.SelectSelector):
    """An event loop that has nothing to do but to wait for a moment is there at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self._clock.sleep(timeout)
        return ready
