"""Group commit: what several tasks write at once goes into one transaction, as each costs the disk the same."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from connector.errors import StateError
from connector.state.database import State
from connector.state.lease import Lease

T = TypeVar("T")


class GroupCommit:
    """Writes under a lease, for the tasks of one event loop.

    All that is asked for before a transaction begins goes into it, in the order of the asking.
    """

    def __init__(self, state: State, lease: Lease) -> None:
        self._state = state
        self._lease = lease
        self._asked: list[Callable[[sa.Connection], Any]] = []
        self._written: asyncio.Task[list[Any]] | None = None

    async def write(self, entry: Callable[[sa.Connection], T]) -> T:
        """What the entry returns, once the transaction is durable; who is cancelled meanwhile has written all the same.

        Args:
            entry: Writes into the transaction. A StateError that it raises is its own: what the others wrote is kept.

        Raises:
            StateError: The entry's own; or the transaction failed or the lease is lost, and nothing of it is kept.
        """
        if self._written is None:  # the others of this turn of the loop ask before the task begins
            self._written = asyncio.create_task(self._write())
        place = len(self._asked)
        self._asked.append(entry)
        result = (await asyncio.shield(self._written))[place]
        if isinstance(result, StateError):
            raise result
        answer: T = result
        return answer

    async def _write(self) -> list[Any]:
        asked, self._asked, self._written = self._asked, [], None
        with self._state.write() as connection:
            self._lease.check(connection)
            return [_tried(entry, connection) for entry in asked]


def _tried(entry: Callable[[sa.Connection], T], connection: sa.Connection) -> T | StateError:
    try:
        return entry(connection)
    except StateError as error:
        return error


__all__ = ["GroupCommit"]
