"""An API that is out of reach, rotates its keys, lowers its limits or hears a request twice: short stories of each."""

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from connector.config import load_project
from connector.delivery import TRIES
from connector.report import Report
from connector.simulator import serve
from connector.sync import run_sync
from tests.e2e.forks import Fork
from tests.world import PROJECT_KEY, World, timeless

ROWS = 500
LONG = "repeat('x', 300)"


def make(world: World, rows: int = ROWS) -> World:
    world.sql(
        f"create table customers as select 'c' || i as custom_id, i as visits, {LONG} as note from range({rows}) t(i)"
    )
    world.sync(attributes="{visits: visits, note: note}", endpoint="update", guard="{max_changed: 100%}")
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(World(tmp_path / "project"))


def settled(world: World) -> None:
    """Batch holds what the warehouse says, and nothing is left to send."""
    assert world.held() == world.wanted()
    assert world.run().requests == 0


@contextmanager
def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str] | OSError) -> Iterator[list[str]]:
    """What a look-up of `localhost` answers, time after time, the last one for ever; who was looked up."""
    real, left, asked = socket.getaddrinfo, list(answers), []

    def getaddrinfo(host: str | bytes, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in ("localhost", b"localhost"):
            return real(host, port, *arguments, **options)
        asked.append("localhost")
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return [found for address in answer for found in real(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked


@contextmanager
def silent_address(port: int) -> Iterator[str]:
    """An address of this machine at which nothing answers, not even with a refusal: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


def test_a_name_that_is_not_known_for_a_moment_costs_a_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent while the name was unknown: the same body goes once it is known, and nothing is in doubt."""
    lost = socket.gaierror(-3, "Temporary failure in name resolution")
    with serve(world.api) as server, names(monkeypatch, lost, lost, ["127.0.0.1"]) as asked:
        world.configure(base_url=f"http://localhost:{server.port}/2.11", delivery="{in_flight: 1, give_up_after: 20s}")
        world.transport = None
        report = world.run()
    assert len(asked) >= 3
    assert (report.outcome, report.accepted, report.retries) == ("green", ROWS, 2)
    assert set(world.sent()) == {f"c{i}" for i in range(ROWS)}
    assert world.due() == []


def test_an_address_that_swallows_everything_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two addresses the first never answers: the other is tried soon, as long before the time-out."""
    with serve(world.api) as server, silent_address(server.port) as hole, names(monkeypatch, [hole, "127.0.0.1"]):
        world.configure(base_url=f"http://localhost:{server.port}/2.11", delivery="{in_flight: 1, give_up_after: 20s}")
        world.transport = None
        began = time.monotonic()
        report = world.run()
    assert (report.outcome, report.retries) == ("green", 0)
    assert time.monotonic() - began < 8


def test_an_address_that_swallows_everything_leaves_nothing_in_doubt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection nothing was sent: the rows are unsent when the run gives up, and none is due as unknown."""
    with serve(world.api) as server, silent_address(server.port) as hole, names(monkeypatch, [hole]):
        delivery = "{in_flight: 2, timeout: 300ms, give_up_after: 1s}"
        world.configure(base_url=f"http://localhost:{server.port}/2.11", delivery=delivery)
        world.transport = None
        report = world.run()
    assert (report.outcome, report.unsent) == ("incomplete", ROWS)
    assert (world.sent(), world.due()) == ([], [])


def test_keys_that_change_under_a_run_stop_it_and_the_next_one_reads_them_anew(world: World) -> None:
    """A 401 in the middle: few more calls leave, what was accepted stays, and the new key delivers the rest."""
    world.configure(limits="{update: {per_second: 1000000, burst: 1000000, per_call: 20}}", delivery="{in_flight: 2}")
    inner = world.transport
    assert inner

    class Rotating(httpx.AsyncBaseTransport):
        calls = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.calls += 1
            if self.calls == 5:
                world.api.credentials[PROJECT_KEY] = "rotated"
            return await inner.handle_async_request(request)

    world.transport = Rotating()
    report = world.run()
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "api")
    assert (report.accepted, report.requests <= 4 + 2) == (80, True)
    before = set(world.sent())
    (world.folder / "rest_key").write_text("rotated")
    report = world.run()
    assert (report.outcome, report.accepted) == ("green", ROWS - 80)
    assert len(before & set(world.sent())) <= 40, "acknowledged rows went again"
    settled(world)


def test_limits_that_batch_lowered_are_found_by_halving(world: World) -> None:
    """A call that is too large by now is refused whole: its halves go, until they are small enough, and nobody is blamed."""
    world.api.configure(update_operations=60)
    report = world.run()
    assert (report.outcome, report.accepted, report.rejected) == ("green", ROWS, 0)
    settled(world)


def test_a_request_that_arrives_twice_changes_nothing(world: World) -> None:
    """What a proxy repeats is the same whole values once more."""
    inner = world.transport
    assert inner

    class Twice(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            content = await request.aread()
            again = httpx.Request(request.method, request.url, headers=request.headers, content=content)
            await inner.handle_async_request(again)
            return await inner.handle_async_request(request)

    world.transport = Twice()
    world.run()
    world.sql("update customers set visits = visits + 1, note = case when visits > 9 then note end")
    assert world.run().outcome == "green"
    assert Counter(world.sent()).most_common(1)[0][1] == 4
    settled(world)


def test_a_storm_of_refusals_is_met_with_few_calls() -> None:
    """429 for ten minutes and no word of how long: senders wait ever longer, all together, and then everything goes."""
    with timeless() as world:
        make(world, rows=5000)
        world.configure(delivery="{in_flight: 8, give_up_after: 15m}", limits="{}")
        world.api.inject({"status": 429, "times": 1_000_000})
        began = time.time()

        def progress(_phase: str, _done: int, _total: int | None) -> None:
            if time.time() - began > 600:
                world.api.clear_faults()

        report = run_sync(load_project(world.folder), "customers", progress=progress, transport=world.transport)
        assert isinstance(report, Report)
        assert time.time() - began > 600
        assert 8 <= report.throttled <= 8 * TRIES + 8, "of each call in flight so many attempts, and one of the next"
        assert (report.rejected, report.accepted + report.unsent) == (0, 5000)
        world.run()
        settled(world)


def test_kill_while_a_body_is_half_sent_loses_nothing(tmp_path: Path) -> None:
    """G2: what had left was no request yet: the rows are in doubt for us all the same, and go with the next run."""
    world = make(World(tmp_path / "project"), rows=4000)
    notes = "".join(f", n{n}: note" for n in range(12))
    world.sync(attributes=f"{{visits: visits{notes}}}", endpoint="mass_update")
    limits = "{mass_update: {per_second: 1000000, per_call: 4000}}"
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        listener.settimeout(30)
        world.configure(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/2.11", limits=limits)
        run = Fork(world.folder, "run", "customers")
        client, _ = listener.accept()
        with client:
            got = client.recv(100_000)
            run.kill()
            assert run.ended().status == -9
            length = int(re.search(rb"(?i)content-length: (\d+)", got)[1])  # type: ignore[index]
            with suppress(ConnectionResetError):
                while more := client.recv(1_000_000):
                    got += more
    assert 0 < len(got) < length, "the whole body had left"
    assert world.run().accepted == 4000
    notes = "".join(f", note as n{n}" for n in range(12))
    assert world.held() == world.wanted(f"select custom_id, visits{notes} from customers")
