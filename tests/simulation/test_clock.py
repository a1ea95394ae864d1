"""A wall clock that is set while a run is under way, or between two: nothing is refused, nobody waits for it."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from connector.simulator import Rate
from tests.simulation.machine import Clock, machine
from tests.world import World

ROWS = 3000
SECONDS = (ROWS - 1000) / 300
"""How long the documented bucket takes for that many, once it is full."""


class Setting(httpx.AsyncBaseTransport):
    """The way to Batch, at whose n-th request somebody sets the clock."""

    def __init__(self, world: World, clock: Clock, nth: int, seconds: float) -> None:
        self._inner, world.transport = world.transport, self
        self._clock, self._seconds, self._left = clock, seconds, nth

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        assert self._inner
        self._left -= 1
        if self._left == 0:
            self._clock.set(self._seconds)
        return await self._inner.handle_async_request(request)


@pytest.mark.parametrize("seconds", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_while_a_run_sends(folder: Path, seconds: float) -> None:
    """G10: by a day, forwards or back, and once more before the next run: the rate stays what it was."""
    clock = Clock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    with machine(clock, 1):
        world = World(folder, clock, update_rate=Rate(300, 1000))
        world.configure(limits="{}", delivery="{}")
        world.sql(f"create table customers as select 'c' || i as custom_id, i as visits from range({ROWS}) t(i)")
        world.sync(attributes="{visits: visits}", endpoint="update", guard="{max_changed: 100%}")
        world.api.inject({"status": 429, "retry_after": 5, "skip": 4})
        Setting(world, clock, 5, seconds)
        began = clock.monotonic()
        report = world.run()
        assert (report.outcome, report.accepted, report.throttled) == ("green", ROWS, 1)
        assert 5 <= clock.monotonic() - began < 2 * SECONDS + 10
        world.sql("update customers set visits = visits + 1")
        clock.set(seconds)
        began = clock.monotonic()
        report = world.run()
        assert (report.outcome, report.accepted, report.throttled) == ("green", ROWS, 0)
        assert clock.monotonic() - began < 2 * SECONDS + 10
        assert world.run().requests == 0
        world.api.close()
