"""Calls of the export endpoints: at the rate that all processes share, and again as long as that may help."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from connector.api import exports as api
from connector.api._http import Client, NoAnswerError, NotSentError
from connector.config import ProjectSettings
from connector.errors import ApiError, ExportError, PendingError
from connector.outcome import TOO_MANY, Answer, Verdict, classify
from connector.state import rate
from connector.state.database import State

PAUSE_FIRST, PAUSE_MAX, PAUSE_GROWTH = 0.5, 30.0, 1.6
"""Seconds between two attempts, and between two looks."""

_OTHER = "other"
"""The rate of all endpoints but the two of updates: calls a second."""

T = TypeVar("T")


def pauses() -> Iterator[float]:
    """Seconds to wait, each time longer, without end."""
    pause = PAUSE_FIRST
    while True:
        yield pause
        pause = min(pause * PAUSE_GROWTH, PAUSE_MAX)


@dataclass(slots=True)
class Calls:
    """What went over the wire."""

    requests: int = 0
    throttled: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"wait": 0.0, "download": 0.0})


@dataclass(frozen=True, slots=True)
class Asker:
    """An open connection to the export endpoints."""

    client: Client
    state: State
    settings: ProjectSettings
    calls: Calls

    async def created(self, request: dict[str, Any]) -> str | None:
        """Batch's id of a new export; None where it may have been made without our knowing.

        Raises:
            ExportError: Batch refuses the request.
        """
        patience = self._patience()
        while True:
            await self._turn()
            try:
                answer = await api.create(self.client, request)
            except NotSentError as error:
                await patience.spend(f"no connection: {error}")
                continue
            except NoAnswerError:
                return None
            if answer.status == api.ACCEPTED:
                try:
                    return api.created(answer)
                except NoAnswerError:
                    return None
            if not await self._later(answer, patience):
                return None

    async def _later(self, answer: Answer, patience: "_Patience") -> bool:
        """After a refusal for now, once it is over: True. False: what the request did is not known.

        Raises:
            ApiError: Batch refuses the keys.
            ExportError: It refuses the request.
        """
        outcome = classify(answer, 0, now=datetime.fromtimestamp(time.time(), UTC))
        match outcome.verdict:
            case Verdict.LATER:
                self._hold(answer.status, outcome.retry_after)
                await patience.spend(outcome.reason, outcome.retry_after)
                return True
            case Verdict.STOP:
                raise ApiError(
                    f"Batch refuses to export: {outcome.reason}",
                    remedy="check batch.project_key, batch.rest_key and batch.base_url",
                )
            case Verdict.SPLIT:
                raise ExportError(
                    f"Batch refuses this export: {outcome.reason}",
                    remedy="check the sync's attributes, identifiers, segment and window, and this machine's clock",
                )
            case _:
                return False

    async def got(self, call: Callable[[], Awaitable[Answer]], expected: int, read: Callable[[Answer], T]) -> T:
        """What a harmless call answers; asked again as long as it may help.

        Raises:
            ApiError: Batch refuses the keys.
            ExportError: There is no such export or file.
            PendingError: No usable answer for `delivery.give_up_after`.
        """
        patience = self._patience()
        while True:
            await self._turn()
            try:
                answer = await call()
                if answer.status == expected:
                    return read(answer)
            except (NotSentError, NoAnswerError) as error:
                await patience.spend(f"no usable answer: {error}")
                continue
            if answer.status == api.NOT_FOUND:
                raise ExportError("Batch no longer has this export")
            if not await self._later(answer, patience):
                await patience.spend(f"answer {answer.status}")

    async def _turn(self) -> None:
        """Wait for the rate that all processes on this state share."""
        per_second = self.settings.batch.limits.other.per_second
        burst = rate.burst(0, per_second, 1)
        with self.state.write() as connection:
            wait = rate.reserve(connection, _OTHER, 1, per_second=per_second, burst=burst)
        self.calls.requests += 1
        await asyncio.sleep(max(wait, 0.0))

    def _hold(self, status: int, seconds: float | None) -> None:
        refused = status == TOO_MANY
        self.calls.throttled += refused
        with self.state.write() as connection:
            rate.hold(connection, _OTHER, seconds or 0.0, refused=time.monotonic() if refused else None)

    def _patience(self) -> "_Patience":
        return _Patience(time.monotonic() + self.settings.delivery.give_up_after.total_seconds())


@dataclass(slots=True)
class _Patience:
    """Pauses that grow, until one too many."""

    until: float
    pauses: Iterator[float] = field(default_factory=pauses)

    async def spend(self, why: str, seconds: float | None = None) -> None:
        """Wait.

        Raises:
            PendingError: The outage lasts too long.
        """
        pause = next(self.pauses) if seconds is None else seconds
        if time.monotonic() + pause > self.until:
            raise PendingError(
                f"Batch did not answer for delivery.give_up_after; the last time: {why}",
                remedy="the next run goes on with this export",
            )
        await asyncio.sleep(pause)
