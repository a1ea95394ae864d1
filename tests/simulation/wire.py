"""The way to the local Profile API, and a log of what was said on it that shares nothing with the connector."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import httpx

from connector.simulator import Simulator
from tests.simulation.crash import Steps

Answered = Literal["accepted", "not applied", "unknown"]

_NOT_APPLIED = frozenset((400, 401, 403, 404, 408, 413, 422, 425, 429))


class Part:
    """One operation of a call: whose it is, its events' references and times, and what a 202 refused of it."""

    def __init__(self, operation: dict[str, Any]) -> None:
        events = operation.get("events", [])
        self.key = str(operation["identifiers"]["custom_id"])
        self.events = [str(event["attributes"]["ref"]) for event in events]
        self.times = [datetime.fromisoformat(event["time"]) if "time" in event else None for event in events]
        """None for an event that is sent as of now."""
        self.refused: list[str | None] = []

    @property
    def applied(self) -> bool:
        """Wholly, where the call was accepted."""
        return not self.refused

    @property
    def ambiguous(self) -> bool:
        """One of its several events was refused, and which is not said."""
        return None in self.refused and len(self.events) > 1


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        parts: Its operations.
        answer: What the client could know of it.
        status: The answer's; 0 without one.
        open: The client still waits, or died waiting.
        commits: Transactions of the run when the answer came.
    """

    parts: list[Part]
    answer: Answered = "unknown"
    status: int = 0
    open: bool = True
    commits: int = 0

    @property
    def events(self) -> Counter[str]:
        """References of its events."""
        return Counter(event for part in self.parts for event in part.events)


@dataclass(slots=True)
class Traffic:
    """What one run said."""

    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What no run may ever do."""


class Wire(httpx.AsyncBaseTransport):
    """Requests take a moment there and back, so that calls in flight overlap."""

    def __init__(self, api: Simulator, steps: Steps, chance: random.Random) -> None:
        self._inner = httpx.ASGITransport(app=api.app)
        self._steps = steps
        self._chance = chance
        self.traffic = Traffic()
        self.underway: dict[int, bytes] = {}
        """Bodies that have left and not arrived, by a number."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        self._steps.step("request")
        content = await request.aread()
        call = Call([Part(operation) for operation in json.loads(content)])
        self._check(call)
        self.traffic.calls.append(call)
        try:
            self.underway[id(call)] = content
            try:
                await asyncio.sleep(self._chance.uniform(0.0, 0.05))
            finally:
                self.underway.pop(id(call), None)
            inner = await self._inner.handle_async_request(request)
            body = b"".join([part async for part in inner.aiter_raw()])
            self._steps.step("applied")
            await asyncio.sleep(self._chance.uniform(0.0, 0.05))
        except asyncio.CancelledError:
            call.open = self._steps.dead
            raise
        _read(call, inner, body)
        call.open, call.commits = False, self._steps.commits
        return httpx.Response(inner.status_code, headers=inner.headers, stream=httpx.ByteStream(body))

    def _check(self, call: Call) -> None:
        keys = [part.key for part in call.parts]
        if len(set(keys)) < len(keys):
            self.traffic.faults.append("a call holds a custom ID twice")
        if max(call.events.values(), default=1) > 1:
            self.traffic.faults.append("a call holds an event twice")
        others = {part.key for other in self.traffic.calls if other.open for part in other.parts}
        if not others.isdisjoint(keys):
            self.traffic.faults.append("a custom ID is in two calls at once")


def _read(call: Call, response: httpx.Response, body: bytes) -> None:
    call.status = response.status_code
    if call.status in _NOT_APPLIED or (call.status == 503 and "retry-after" in response.headers):
        call.answer = "not applied"
        return
    try:
        answer = json.loads(body)
    except ValueError:
        return
    if call.status == 202 and answer.get("code", "").startswith("SUCCESS"):
        call.answer = "accepted"
        for error in answer.get("errors", []):
            call.parts[error["bulk_index"]].refused.append(error.get("attribute"))
