"""The two doors of the simulator behind one synchronous client."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from connector.simulator import Simulator, serve

PROJECT, KEY = "project_test", "rest_test"
HEADERS = {"authorization": f"Bearer {KEY}", "x-batch-project": PROJECT, "content-type": "application/json"}

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: a client that reads the certificates takes longer to open than its call."""


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wall(Clock):
    """A wall clock that passes only when told to; `text` writes a moment some seconds from now."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0

    def text(self, seconds: float = 0.0) -> str:
        return datetime.fromtimestamp(self.now + seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Door:
    """A caller of one simulator, in process or over HTTP."""

    def __init__(self, simulator: Simulator, root: str | None = None) -> None:
        self.simulator = simulator
        self.over_http = root is not None
        self._root = root or "http://inside"

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        return asyncio.run(self.acall(method, path, body=body, headers=headers, params=params))

    async def acall(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        transport = None if self.over_http else httpx.ASGITransport(self.simulator.app)
        async with httpx.AsyncClient(
            transport=transport, base_url=self._root, trust_env=False, verify=NO_TLS, timeout=5
        ) as client:
            return await client.request(
                method, path, content=content, headers=HEADERS if headers is None else headers, params=params
            )

    def post(self, operations: object, *, endpoint: str = "update", version: str = "2.11") -> httpx.Response:
        return self.call("POST", f"/{version}/profiles/{endpoint}", body=operations)


def operation(custom_id: object = "c1", **attributes: Any) -> dict[str, Any]:
    return {"identifiers": {"custom_id": custom_id}, "attributes": attributes}


def events(custom_id: str, *sent: object, **attributes: Any) -> dict[str, Any]:
    return operation(custom_id, **attributes) | {"events": list(sent)}


def event(name: str = "bought", time: str | None = None, **attributes: Any) -> dict[str, Any]:
    timed = {"name": name} if time is None else {"name": name, "time": time}
    return timed | {"attributes": attributes} if attributes else timed


def operations(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [operation(f"c{number}", plan="gold") for number in range(start, start + count)]


@contextmanager
def opened(**options: Any) -> Iterator[Door]:
    with Simulator({PROJECT: KEY}, **options) as simulator:
        yield Door(simulator)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def door(clock: Clock, wall: Wall) -> Iterator[Door]:
    """A caller in this process, of a simulator of its own."""
    with opened(clock=clock, wall=wall, record=True) as found:
        yield found


@pytest.fixture(scope="module")  # no longer: a simulation may take over this process's clock meanwhile
def both_doors() -> Iterator[tuple[Clock, dict[str, Door]]]:
    clock = Clock()
    simulator = Simulator({PROJECT: KEY}, clock=clock, record=True)
    with serve(simulator) as served:
        yield clock, {"process": Door(simulator), "http": Door(simulator, served.root)}


@pytest.fixture
def served_clock(both_doors: tuple[Clock, dict[str, Door]]) -> Clock:
    """The clock behind `either_door`."""
    return both_doors[0]


@pytest.fixture(params=["process", "http"])
def either_door(request: pytest.FixtureRequest, both_doors: tuple[Clock, dict[str, Door]]) -> Door:
    """A caller in this process, and one over HTTP, of one simulator as good as new."""
    door = both_doors[1][request.param]
    door.simulator.reset()
    return door
