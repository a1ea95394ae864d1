"""When a request may leave: what happens to one that waits while Batch asks for a pause, or while it is cancelled."""

import asyncio
import threading
import time

from connector.api._http import UpdateLimit
from connector.pacing import Mark, Pace
from connector.state import rate
from connector.state.database import State
from connector.state.group import GroupCommit
from connector.state.lease import Lease

LIMIT = UpdateLimit(per_second=10, burst=1, per_call=1)


def test_who_waits_looks_at_the_pause_again_before_leaving(state: State, lease: Lease) -> None:
    """A pause that begins while a request waits for its share holds it, though its share was booked before."""
    left: list[float] = []

    async def one_that_waits() -> float:
        pace = Pace(GroupCommit(state, lease), "update", LIMIT, threading.Event())
        await pace.leave(2, lambda _: None)
        began = time.monotonic()
        waiting = asyncio.create_task(pace.leave(2, lambda _: left.append(time.monotonic())))
        await asyncio.sleep(0.05)
        with state.write() as connection:
            rate.hold(connection, "update", 0.6)
        await waiting
        return began

    began = asyncio.run(one_that_waits())
    assert len(left) == 1
    assert left[0] - began > 0.6


def test_who_is_cancelled_before_the_booking_keeps_nobody_waiting(state: State, lease: Lease) -> None:
    """It neither books nor marks, and the one beside it leaves as if it were alone."""
    left: list[str] = []

    def noted(name: str) -> Mark:
        return lambda _connection: left.append(name)

    async def two() -> None:
        pace = Pace(GroupCommit(state, lease), "update", LIMIT, threading.Event())
        gone = asyncio.create_task(pace.leave(1, noted("gone")))
        stays = asyncio.create_task(pace.leave(1, noted("stays")))
        await asyncio.sleep(0)  # both have asked, nothing is written yet
        gone.cancel()
        await asyncio.wait_for(stays, 5)
        assert gone.cancelled()

    asyncio.run(two())
    assert left == ["stays"]
