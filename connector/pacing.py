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
        self._holds = self._holds_seen = 0
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()

    async def leave(self, rows: int, mark: Mark) -> None:
        """Wait for the share of so many rows, then `mark`, durably: the request may leave.

        Raises:
            StoppedError: The run was told to stop, and nothing was marked.
            StateError: The state cannot be written.
        """
        caller = asyncio.current_task()
        assert caller  # noqa: S101 - who awaits this is a task
        try:
            left = False
            while not left:
                await self._nobody_waits.wait()
                if self._stop.is_set():
                    raise StoppedError
                wait = await self._group.write(partial(self._book, caller, rows, mark))
                left = wait == 0
                if wait:
                    await self._wait(wait)
                    self._give_way(caller)  # the next one books its share where this one is marked
                    left = await self._group.write(partial(self._go, caller, mark))
        finally:
            self._give_way(caller)

    def hold(self, connection: sa.Connection, seconds: float, refused: float | None) -> None:
        """Nobody may leave for that long, in any process on this state; see `rate.hold`."""
        self._holds += 1
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
        """Seconds to wait; 0: it is marked already. None: by now another waits, or nobody does."""
        if self._first is not None or caller.cancelling():
            return None
        wait = rate.reserve(connection, self._endpoint, rows, per_second=self._per_second, burst=self._burst)
        step("chunk.paid")
        if wait > 0:
            self._take_place(caller)
            return wait
        mark(connection)
        return 0.0

    def _go(self, caller: _Caller, mark: Mark, connection: sa.Connection) -> bool:
        """Whether it is marked; not where Batch asked for a pause since the booking, which holds for it no more."""
        if self._holds != self._holds_seen or rate.held(connection, self._endpoint) > 0:
            return False
        if not caller.cancelling():
            mark(connection)
        return True

    def _take_place(self, caller: _Caller) -> None:
        self._first, self._holds_seen = caller, self._holds
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
