"""The rate from end to end, in time that passes only where somebody waits: real runs, a strict bucket, a way that varies."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from connector.simulator import Rate
from connector.simulator.tally import Request
from tests.simulation.machine import Clock, machine
from tests.world import World

LIMITS = {
    "update": "{update: {per_second: 300, burst: 1000, per_call: 200}}",
    "mass_update": "{mass_update: {per_second: 1000, per_call: 100}}",  # a tenth of the documented one
}
PER_SECOND = {"update": 300, "mass_update": 1000}
HOLDS = {"update": 1000, "mass_update": 1000}
SECONDS = 60


class Way(httpx.AsyncBaseTransport):
    """The way to the API and back, which takes a call up to so many seconds; the wall clock jumps at each."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Clock, slowest: float, step: float) -> None:
        self._inner = inner
        self._clock = clock
        self._slowest = slowest
        self._step = timedelta(seconds=step)
        self._chance = random.Random(5)  # noqa: S311 - repeatable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        self._clock.set_ahead(self._chance.choice([-self._step, timedelta(0), self._step]))
        await asyncio.sleep(self._chance.uniform(0.0, self._slowest))
        answer = await self._inner.handle_async_request(request)
        await asyncio.sleep(self._chance.uniform(0.0, 0.1))
        return answer


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    with machine(made, 1):
        yield made


def sent(
    folder: Path,
    clock: Clock,
    endpoint: str,
    *,
    runs: int = 1,
    true_share: float = 1.0,
    slowest: float = 0.4,
    step: float = 0,
) -> list[Request]:
    """Calls as they came to the API, while a minute's worth of rows goes in so many runs."""
    true = Rate(PER_SECOND[endpoint] * true_share, int(HOLDS[endpoint] * true_share))
    world = World(folder / "project", clock, **{f"{endpoint}_rate": true})
    assert world.transport
    world.transport = Way(world.transport, clock, slowest, step)
    world.configure(limits=LIMITS[endpoint], delivery="{}")
    world.sync(endpoint=endpoint, guard="{max_changed: 100%}", attributes="{visits: visits}")
    rows = int(SECONDS * true.per_second / runs)
    world.sql(f"create table customers as select i as custom_id, i as visits from range({rows}) t(i)")
    random.seed(4)  # of the pauses after a refusal: short ones
    for _ in range(runs):
        assert world.run().outcome == "green"
        world.sql("update customers set visits = visits + 1")
        clock.sleep(0.2)
    return sorted(world.api.requests, key=lambda request: request.at)


def used(requests: list[Request], per_second: float) -> float:
    """The share of the limit that was used between the first call and the last."""
    taken = sum(request.operations for request in requests[1:] if request.status == 202)
    return taken / (requests[-1].at - requests[0].at) / per_second


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("endpoint", LIMITS)
def test_a_minute_at_the_limit_is_used_up_and_never_refused(
    tmp_path: Path, clock: Clock, endpoint: str, runs: int
) -> None:
    """G10: at least 99 % of the documented limit, not one 429, also when a run follows on a run."""
    requests = sent(tmp_path, clock, endpoint, runs=runs)
    assert {request.status for request in requests} == {202}
    assert used(requests, PER_SECOND[endpoint]) >= 0.99


@pytest.mark.parametrize("endpoint", LIMITS)
def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, clock: Clock, endpoint: str) -> None:
    """G10: set a day ahead or back between any two calls, it neither opens the bucket nor closes it."""
    requests = sent(tmp_path, clock, endpoint, step=86_400)
    assert {request.status for request in requests} == {202}
    assert used(requests, PER_SECOND[endpoint]) >= 0.99


@pytest.mark.parametrize("endpoint", LIMITS)
def test_a_limit_that_is_lower_than_documented_is_found(tmp_path: Path, clock: Clock, endpoint: str) -> None:
    """Of a limit of 40 % at least 90 % are used, with at most ten refusals in the minute."""
    requests = sent(tmp_path, clock, endpoint, true_share=0.4, slowest=0.1)
    assert used(requests, PER_SECOND[endpoint] * 0.4) >= 0.9
    assert sum(request.status == 429 for request in requests) <= 10
