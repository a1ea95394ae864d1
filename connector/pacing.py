"""When a request may leave: at the rate that all processes on the state share, and none overtakes one that waits."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import sqlalchemy as sa

from connector._steps import step
from connector.api._http import EndpointLimit
from connector.api.profiles import Endpoint
from connector.state import rate
from connector.state.group import GroupCommit

_POLL_SECONDS = 0.05

Mark = Callable[[sa.Connection], None]

_Caller: TypeAlias = asyncio.Task[Any]


class StoppedError(Exception):
    """The run was told to stop while a request waited."""


class Pace:
    """The way out for the calls of one delivery; `waited` is how many seconds it was closed so far.

    The rate is booked for one waiting request at a time: of what a stopped run has booked little is lost to the next.
    """

    def __init__(self, group: GroupCommit, endpoint: Endpoint, limit: EndpointLimit, stop: threading.Event) -> None:
        self.waited = 0.0
        self._group = group
        self._endpoint = endpoint
        self._per_second = limit.per_second
        self._burst = rate.burst(limit.burst, limit.per_second, limit.per_call)
        self._stop = stop
        self._first: _Caller | None = None
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()

    async def leave(self, rows: int, mark: Mark) -> None:
        """Wait for the share of so many rows, then `mark`, durably: the request may leave.

        Raises:
            StoppedError: The run was told to stop, and nothing was marked.
            StateError: The state cannot be written.
        """
        caller, wait = asyncio.current_task(), None
        assert caller  # noqa: S101 - who awaits this is a task
        try:
            while wait is None:
                await self._nobody_waits.wait()
                if self._stop.is_set():
                    raise StoppedError
                wait = await self._group.write(partial(self._book, caller, rows, mark))
            while wait > 0:
                await self._wait(wait)
                self._give_way(caller)  # the next one books its share in the transaction in which this one is marked
                wait = await self._group.write(partial(self._go, caller, mark))
        finally:
            self._give_way(caller)

    def hold(self, connection: sa.Connection, seconds: float, refused: float | None) -> None:
        """Nobody may leave for that long, in any process on this state; see `rate.hold`."""
        rate.hold(connection, self._endpoint, seconds, refused=refused)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not through a stop.

        Raises:
            StoppedError: The run was told to stop.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop.is_set():
                raise StoppedError
            await asyncio.sleep(min(left, _POLL_SECONDS))
        if self._stop.is_set():
            raise StoppedError

    def _book(self, caller: _Caller, rows: int, mark: Mark, connection: sa.Connection) -> float | None:
        """Seconds to wait; where there are none, it is marked already. None: by now another waits, or nobody does."""
        if self._first is not None or caller.cancelling():
            return None
        wait = rate.reserve(connection, self._endpoint, rows, per_second=self._per_second, burst=self._burst)
        step("chunk.paid")
        if wait <= 0:
            mark(connection)
        else:
            self._take_place(caller)
        return wait

    def _go(self, caller: _Caller, mark: Mark, connection: sa.Connection) -> float:
        """Seconds to wait, because Batch asked for a pause meanwhile; where there are none, it is marked."""
        held = rate.held(connection, self._endpoint)
        if caller.cancelling():
            return 0.0
        if held <= 0:
            mark(connection)
        elif self._first is None:
            self._take_place(caller)
        return held

    def _take_place(self, caller: _Caller) -> None:
        self._first = caller
        self._nobody_waits.clear()

    def _give_way(self, caller: _Caller) -> None:
        if self._first is caller:
            self._first = None
            self._nobody_waits.set()

    async def _wait(self, seconds: float) -> None:
        start = time.monotonic()
        try:
            await self.sleep(seconds)
        finally:
            self.waited += time.monotonic() - start


__all__ = ["Mark", "Pace", "StoppedError"]
