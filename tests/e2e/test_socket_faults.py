"""The real client on real sockets, and between it and the local Profile API a wire that breaks in every way we could think of."""

import json
import logging
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import certifi
import pytest

from connector.api._http import ANSWER_BYTES_MAX
from connector.outcome import Verdict
from connector.report import Report
from connector.simulator import Served, serve
from tests.certificates import Authority
from tests.wire_faults import OK, Act, Exchange, Wire, passed, wire
from tests.world import PROJECT_KEY, REST_KEY, World

ROWS, PER_CALL, IN_FLIGHT = 40, 10, 2
SUCCESS = b'{"code":"SUCCESS"}'
CANARY = "canary-value"
WHOLE = OK + b"Content-Length: 18\r\n\r\n" + SUCCESS
MEMORY = 40_000_000
"""Bytes of Python objects at most, whatever is answered: the cap of an answer a few times over."""


class Fault(NamedTuple):
    """What happens on the wire, and what the client can know of its request then."""

    act: Act
    verdict: Verdict
    slow: bool = False
    """It only ends by our own deadline."""


def _said(answer: bytes, *, applied: bool = False, pause: float = 0, size: int = 65_536) -> Act:
    """The request is read, perhaps applied, and this is answered, after which the connection ends."""

    def act(exchange: Exchange) -> None:
        _ = exchange.applied() if applied else exchange.body()
        exchange.say(answer, pause, size)
        exchange.close()

    return act


def _reset_after(share: float, *, applied: bool = False, answer: bytes = b"") -> Act:
    """The connection is reset when that share of the body is there; -1: not even the head is."""

    def act(exchange: Exchange) -> None:
        if applied:
            exchange.applied()
        elif share >= 0:
            exchange.body(share)
        exchange.say(answer)
        exchange.wait(0.02 if answer else 0)  # else the reset overtakes it
        exchange.reset()

    return act


def _silent(exchange: Exchange) -> None:
    exchange.applied()
    exchange.silent()


def _unread(exchange: Exchange) -> None:
    exchange.silent()


def _late(exchange: Exchange) -> None:
    answer = exchange.applied()
    exchange.wait(1.3)
    exchange.say(answer)


def _deaf_before(exchange: Exchange) -> None:
    exchange.deaf()
    exchange.applied()
    exchange.silent()


def _deaf_after(exchange: Exchange) -> None:
    exchange.applied()
    exchange.deaf()
    exchange.silent()


def _endless(begins: bytes, piece: bytes) -> Act:
    """An answer that goes on for as long as somebody reads it."""

    def act(exchange: Exchange) -> None:
        exchange.applied()
        exchange.say(OK + begins)
        while True:
            exchange.say(piece)
            assert exchange.sent < 100 * ANSWER_BYTES_MAX

    return act


def _echo(status: str) -> Act:
    """A page that shows what it was sent, keys and all."""

    def act(exchange: Exchange) -> None:
        page = b"<html><body>" + exchange.head() + exchange.body() + b"</body></html>"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
        exchange.say(head.encode() + page)

    return act


@cache
def _packed() -> bytes:
    packing = zlib.compressobj(wbits=31)
    return b"".join(packing.compress(bytes(1_000_000)) for _ in range(100)) + packing.flush()


def _bomb(exchange: Exchange) -> None:
    """An answer that nobody asked to be compressed, small as long as nobody unpacks it."""
    packed = _packed()
    exchange.body()
    exchange.say(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)


def _closed_when_idle(exchange: Exchange) -> None:
    """The answer promises to keep the connection, which is then closed."""
    passed(exchange)
    exchange.close()


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SPACES = b" " * 64_000
MOVED = b"Content-Length: 0\r\n\r\n"

FAULTS = {
    # what is odd, yet a whole answer
    "answer until the connection ends": Fault(_said(OK + b"\r\n" + SUCCESS, applied=True), Verdict.ACCEPTED),
    "answer in chunks": Fault(_said(CHUNKED + b"12\r\n" + SUCCESS + b"\r\n0\r\n\r\n", applied=True), Verdict.ACCEPTED),
    "answer byte by byte, in time": Fault(_said(WHOLE, applied=True, pause=0.001, size=1), Verdict.ACCEPTED),
    "interim answers first": Fault(
        _said(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE, applied=True), Verdict.ACCEPTED
    ),
    "kept connection closed": Fault(_closed_when_idle, Verdict.ACCEPTED),
    # the connection breaks
    "reset at once": Fault(_reset_after(-1), Verdict.UNKNOWN),
    "reset before the body": Fault(_reset_after(0), Verdict.UNKNOWN),
    "reset in the body": Fault(_reset_after(0.5), Verdict.UNKNOWN),
    "reset after the body": Fault(_reset_after(1), Verdict.UNKNOWN),
    "reset after it was applied": Fault(_reset_after(1, applied=True), Verdict.UNKNOWN),
    "reset in the answer's head": Fault(_reset_after(1, applied=True, answer=OK[:20]), Verdict.UNKNOWN),
    "reset in the answer's body": Fault(_reset_after(1, applied=True, answer=WHOLE[:-9]), Verdict.UNKNOWN),
    "closed before the answer": Fault(_said(b""), Verdict.UNKNOWN),
    "closed after it was applied": Fault(_said(b"", applied=True), Verdict.UNKNOWN),
    "half-closed before the body": Fault(_deaf_before, Verdict.UNKNOWN),
    "half-closed after the body": Fault(_deaf_after, Verdict.UNKNOWN),
    "answer cut in its head": Fault(_said(OK[:-6], applied=True), Verdict.UNKNOWN),
    "answer cut, of a known length": Fault(_said(WHOLE[:-9], applied=True), Verdict.UNKNOWN),
    "answer cut, in chunks": Fault(_said(CHUNKED + b"12\r\n" + SUCCESS[:9], applied=True), Verdict.UNKNOWN),
    "answer cut after a whole chunk": Fault(
        _said(CHUNKED + b"12\r\n" + SUCCESS + b"\r\n", applied=True), Verdict.UNKNOWN
    ),
    "answer cut, of unknown length": Fault(_said(OK + b"\r\n" + SUCCESS[:9], applied=True), Verdict.UNVERIFIED),
    "empty answer of unknown length": Fault(_said(OK + b"\r\n", applied=True), Verdict.UNVERIFIED),
    # time passes
    "no answer": Fault(_silent, Verdict.UNKNOWN, slow=True),
    "never read": Fault(_unread, Verdict.UNKNOWN, slow=True),
    "answered too late": Fault(_late, Verdict.UNKNOWN, slow=True),
    "answer dripped": Fault(_said(WHOLE, applied=True, pause=0.05, size=1), Verdict.UNKNOWN, slow=True),
    # what is said makes no sense
    "endless answer": Fault(_endless(b"Content-Length: 10000000000\r\n\r\n", SPACES), Verdict.UNKNOWN),
    "endless head": Fault(_endless(b"X-Filler: ", SPACES), Verdict.UNKNOWN),
    "endless chunks": Fault(_endless(CHUNKED[len(OK) :], b"fa00\r\n" + SPACES + b"\r\n"), Verdict.UNKNOWN),
    "gzip bomb": Fault(_bomb, Verdict.UNVERIFIED),
    "garbage": Fault(_said(b"\x16\x03\x01 this is not HTTP\r\n\r\n" * 100), Verdict.UNKNOWN),
    "two lengths": Fault(_said(OK + b"Content-Length: 18\r\nContent-Length: 9\r\n\r\n" + SUCCESS), Verdict.UNKNOWN),
    "portal with 200": Fault(_echo("200 OK"), Verdict.UNVERIFIED),
    "portal with 202": Fault(_echo("202 Accepted"), Verdict.UNVERIFIED),
    "error page with 500": Fault(_echo("500 Internal Server Error"), Verdict.UNKNOWN),
    "error page with 502": Fault(_echo("502 Bad Gateway"), Verdict.UNKNOWN),
    "maintenance": Fault(_said(b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\n" + MOVED), Verdict.LATER),
}  # fmt: skip

GREEN, INCOMPLETE, FAILED = "green", "incomplete", "failed"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "project")
    made.sql(f"""create table customers as select 'c' || i as custom_id, i as visits, '{CANARY}' as name from range({ROWS}) t(i);
        create table orders as select custom_id, visits as order_id, name, now()::timestamp - to_seconds(60 + visits) as ordered_at
        from customers""")
    made.sync(attributes="{visits: visits, name: name}", endpoint="update", guard="{max_changed: 100%}")
    made.events_sync(attributes="{name: name}", endpoint="update")
    made.transport = None  # real sockets
    return made


@pytest.fixture
def server(world: World) -> Iterator[Served]:
    with serve(world.api) as served:
        yield served


@pytest.fixture
def relay(world: World, server: Served) -> Iterator[Wire]:
    with wire(server.port) as made:
        yield made


def configure(world: World, base_url: str, *, slow: bool = False, give_up_after: str = "10s") -> None:
    world.configure(
        base_url,
        f"{{update: {{per_second: 1000000, burst: 1000000, per_call: {PER_CALL}}}}}",
        f"{{in_flight: {IN_FLIGHT}, timeout: {'1s' if slow else '20s'}, give_up_after: {give_up_after}, quiet: 0s}}",
    )


def applied(relay: Wire) -> set[str]:
    """Whose requests met the fault and were applied all the same."""
    return set(chain.from_iterable(exchange.keys() for exchange in relay.met if exchange.was_applied))


def bounded_run(world: World, sync: str, **options: bool) -> Report:
    """A run that ends soon, and whose counts add up."""
    start = time.monotonic()
    report = world.run(sync, **options)
    assert time.monotonic() - start < 20
    return report


def check_discretion(text: str) -> None:
    """Nothing secret or personal was told, though pages echo all that was sent."""
    for secret in (REST_KEY, PROJECT_KEY, CANARY, '"visits"'):
        assert secret not in text


@pytest.mark.parametrize("name", FAULTS)
def test_profiles_survive_whatever_the_wire_does(
    world: World, relay: Wire, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G2, G11: one call is hit, then all are: each run ends soon and says the truth, and the next makes everything right."""
    caplog.set_level(logging.DEBUG)
    fault = FAULTS[name]
    url = f"http://127.0.0.1:{relay.port}/2.11"

    configure(world, url, slow=fault.slow)
    relay.meet(fault.act, times=1)
    once = bounded_run(world, "customers")
    assert once.outcome == (INCOMPLETE if fault.verdict is Verdict.UNVERIFIED else GREEN), once.reasons
    assert once.accepted == ROWS - (PER_CALL if fault.verdict is Verdict.UNVERIFIED else 0)
    assert once.retries == (fault.verdict in (Verdict.UNKNOWN, Verdict.LATER))
    assert {key for key, times in Counter(world.sent()).items() if times > 1} <= applied(relay)

    world.sql("update customers set visits = visits + 1000")
    configure(world, url, slow=fault.slow, give_up_after="100ms")
    relay.meet(fault.act)
    always = bounded_run(world, "customers")
    assert always.planned == ROWS
    assert (always.outcome, always.accepted) == (
        (GREEN, ROWS) if fault.verdict is Verdict.ACCEPTED else (INCOMPLETE, 0)
    ), always.reasons

    relay.meet(passed)
    configure(world, url)
    assert world.run().outcome == GREEN
    assert world.held() == world.wanted()
    world.run()  # what was in doubt goes once more, when a late copy can no longer land
    assert world.run().requests == 0
    check_discretion(caplog.text + json.dumps([once.to_dict(), always.to_dict()]))


@pytest.mark.parametrize("name", FAULTS)
def test_no_event_goes_twice_whatever_the_wire_does(
    world: World, relay: Wire, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G4: events whose call was hit are held when it may have been applied, never repeated by themselves, and none is lost."""
    caplog.set_level(logging.DEBUG)
    fault = FAULTS[name]
    doubted = fault.verdict in (Verdict.UNKNOWN, Verdict.UNVERIFIED)
    url = f"http://127.0.0.1:{relay.port}/2.11"

    configure(world, url, slow=fault.slow)
    relay.meet(fault.act, times=1)
    once = bounded_run(world, "orders")
    assert (once.outcome, once.held) == ((INCOMPLETE, PER_CALL) if doubted else (GREEN, 0)), once.reasons
    assert once.accepted == ROWS - once.held

    world.sql("insert into orders select custom_id, order_id + 1000, name, now()::timestamp from orders")
    configure(world, url, slow=fault.slow, give_up_after="100ms")
    relay.meet(fault.act)
    always = bounded_run(world, "orders")
    assert always.outcome == (GREEN if fault.verdict is Verdict.ACCEPTED else INCOMPLETE), always.reasons
    assert always.accepted == (ROWS if fault.verdict is Verdict.ACCEPTED else 0)
    assert (always.held > once.held) is doubted

    relay.meet(passed)
    configure(world, url)
    healed = world.run("orders")
    assert healed.held == always.held, "what is in doubt waits for a decision"
    assert set(world.event_ids().values()) == {1}, "an event went twice"
    assert world.run("orders", retry_held=True).outcome == GREEN
    went = world.event_ids()
    assert len(went) == 2 * ROWS
    assert sum(went.values()) - len(went) <= always.held
    assert world.run("orders").requests == 0
    check_discretion(caplog.text + json.dumps([once.to_dict(), always.to_dict()]))


@pytest.mark.parametrize("name", [name for name in FAULTS if name.startswith("endless") or name == "gzip bomb"])
def test_an_answer_without_end_takes_little_memory(world: World, relay: Wire, name: str) -> None:
    """However much is answered, and to however many calls, not much more than the cap is read of each."""
    configure(world, f"http://127.0.0.1:{relay.port}/2.11", give_up_after="100ms")
    relay.meet(FAULTS[name].act)
    tracemalloc.start()
    try:
        assert bounded_run(world, "customers").accepted == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert max(exchange.sent for exchange in relay.met) < 2 * ANSWER_BYTES_MAX


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_ends_the_run_and_our_key_goes_nowhere_else(world: World, relay: Wire, status: int) -> None:
    """Nothing is asked of the other address; the run says why it stopped, and the next one goes on."""
    with wire(0) as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.port}/2.11/profiles/update"
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\n".encode()
        relay.meet(_said(head + MOVED))
        configure(world, f"http://127.0.0.1:{relay.port}/2.11")
        for sync in ("customers", "orders"):
            report = bounded_run(world, sync)
            assert (report.outcome, report.accepted, report.held) == (FAILED, 0, 0)
            assert "redirect" in report.reasons[0]
        assert elsewhere.connections == 0
    relay.meet(passed)
    assert (world.run().outcome, world.run("orders").outcome) == (GREEN, GREEN)
    assert set(world.event_ids().values()) == {1}
    assert world.held() == world.wanted("select custom_id, visits, name from customers")


def test_an_answer_that_nobody_asked_for_acknowledges_nothing(world: World, relay: Wire) -> None:
    """A proxy that answers a call twice must not make the next call, which it loses, look accepted."""

    def twice(exchange: Exchange) -> None:
        exchange.say(exchange.applied() + WHOLE)
        exchange.again()
        exchange.body()
        exchange.close()

    configure(world, f"http://127.0.0.1:{relay.port}/2.11", give_up_after="100ms")
    relay.meet(twice)
    report = bounded_run(world, "orders")
    assert report.accepted == len(world.event_ids())
    assert bounded_run(world, "customers").accepted == len([held for held in world.held().values() if "visits" in held])


class Host(NamedTuple):
    """A host that cannot be reached, or not be trusted; what is said of it."""

    certificate: str | None
    said: str


HOSTS = {
    "nobody listens": Host(None, "ConnectError"),
    "its name is not known": Host(None, "the server's name is not known"),
    "its certificate has expired": Host("expired", "certificate has expired"),
    "its certificate is its own word": Host("self-signed", "self-signed certificate"),
    "its certificate is of somebody unknown": Host("unknown", "unable to get local issuer certificate"),
    "its certificate is for another host": Host("other host", "not valid for"),
    "its TLS is of long ago": Host("old TLS", "ConnectError"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_left_where_no_connection_was_made(
    world: World, server: Served, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, or somebody who cannot prove who it is, gets neither key nor row; nothing is in doubt, and all goes later."""
    host = HOSTS[name]
    authority = Authority(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(authority.trusted))
    with wire(server.port, authority.server("right")) as good, ExitStack() as stack:
        url, bad = f"https://127.0.0.1:{good.port}/2.11", good
        if host.certificate:
            bad = stack.enter_context(wire(server.port, authority.server(host.certificate)))
        elif name == "nobody listens":
            stack.enter_context(good.deserted())
        away = url.replace("127.0.0.1", "nobody.invalid") if "name" in host.said else url
        configure(world, away.replace(str(good.port), str(bad.port)), give_up_after="100ms")
        bad.meet(passed)
        for sync in ("customers", "orders"):
            report = bounded_run(world, sync)
            assert (report.outcome, report.accepted, report.held, report.unsent) == (INCOMPLETE, 0, 0, ROWS)
            assert host.said in report.reasons[0]
        assert bad.met == []
        stack.close()
        configure(world, url)
        assert [world.run(sync).outcome for sync in ("customers", "orders")] == [GREEN, GREEN]
    assert set(world.event_ids().values()) == {1}
    assert max(Counter(world.sent()).values()) == 2, "once as a profile, once with its event"


def test_a_spoilt_tls_record_leaves_the_request_in_doubt(
    world: World, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was applied though its answer cannot be read is sent once more, in the same run."""

    def spoilt(exchange: Exchange) -> None:
        exchange.applied()
        exchange.spoil()

    authority = Authority(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(authority.trusted))
    with wire(server.port, authority.server("right")) as relay:
        configure(world, f"https://127.0.0.1:{relay.port}/2.11")
        relay.meet(spoilt, times=1)
        report = bounded_run(world, "customers")
        assert len(relay.met) == 1
    assert (report.outcome, report.accepted, report.retries) == (GREEN, ROWS, 1)


@pytest.mark.parametrize("name", ["never read", "read by drops", "reset in the body", "refused unread"])
def test_a_body_larger_than_any_buffer_is_given_up_too(world: World, relay: Wire, name: str) -> None:
    """A server that stops reading holds up the sending itself; that ends by the deadline, and what was not applied goes later."""

    def drops(exchange: Exchange) -> None:
        while True:
            exchange.more(1000)
            exchange.wait(0.05)

    def refused(exchange: Exchange) -> None:
        exchange.head()
        exchange.say(b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\n" + MOVED)
        exchange.reset()

    acts: dict[str, Act] = {
        "never read": _unread, "read by drops": drops, "reset in the body": _reset_after(0.3), "refused unread": refused
    }  # fmt: skip
    columns = ", ".join(f"repeat('x', 300) as a{number}" for number in range(40))
    world.sql(f"create or replace table customers as select 'c' || i as custom_id, {columns} from range(600) t(i)")
    world.sync(endpoint="mass_update")
    configure(world, f"http://127.0.0.1:{relay.port}/2.11", slow=True, give_up_after="100ms")
    relay.meet(acts[name])
    report = bounded_run(world, "customers")
    assert (report.outcome, report.accepted, world.held()) == (INCOMPLETE, 0, {})
    assert report.bytes > 3_000_000
    relay.meet(passed)
    configure(world, f"http://127.0.0.1:{relay.port}/2.11")
    assert world.run().outcome == GREEN
    assert world.held() == world.wanted()
