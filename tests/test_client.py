"""The HTTP client against servers that misbehave, over real sockets."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr

from connector.api import _http, profiles
from connector.api._http import Access, connect
from connector.outcome import Outcome, Verdict

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
REST_KEY = "rest_canary"


async def outcome_of(server: Server, *, timeout: float = 1.0, body: bytes = b"[]") -> tuple[Outcome, list[bytes]]:
    """What the client makes of one POST to a server that behaves like this; and what the server was told."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(2)
            await server(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    access = Access(f"http://127.0.0.1:{port}/2.11", SecretStr("project_canary"), SecretStr(REST_KEY))
    async with listening, connect(access, timeout=timeout, connections=1) as client:
        return await profiles.send(client, "update", body, 1), heads


def posted(server: Server, *, timeout: float = 1.0) -> tuple[Outcome, list[bytes]]:
    return asyncio.run(outcome_of(server, timeout=timeout))


async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b'Content-Length: 18\r\n\r\n{"code":"SUCCESS"}')


def test_request_carries_both_keys_and_asks_for_no_compression() -> None:
    """A POST to the versioned route, with the headers that Batch documents."""
    outcome, (head,) = posted(accept)
    assert outcome.verdict is Verdict.ACCEPTED
    assert head.startswith(b"POST /2.11/profiles/update HTTP/1.1\r\n")
    for line in (
        b"Authorization: Bearer rest_canary",
        b"X-Batch-Project: project_canary",
        b"Accept-Encoding: identity",
        b"Content-Length: 2\r\n",
    ):
        assert line.lower() in head.lower()
    assert b"transfer-encoding" not in head.lower()


class _Body(bytes):
    """A body whose end is seen."""

    ended = False

    def __del__(self) -> None:
        _Body.ended = True


def test_a_body_is_let_go_of_once_it_was_sent() -> None:
    """What is left of a call, cycles that Python collects late, does not hold what it sent: millions of rows fit."""

    async def sent() -> bool:
        await outcome_of(accept, body=_Body(b"[]"))
        return _Body.ended

    gc.disable()
    try:
        assert asyncio.run(sent())
    finally:
        gc.enable()


def test_dripping_answer_is_cut_by_the_deadline_of_the_whole_exchange() -> None:
    """A byte now and then keeps every single read alive; the request ends all the same, with an unknown outcome."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    start = time.monotonic()
    outcome, _ = posted(drip, timeout=0.5)
    assert outcome.verdict is Verdict.UNKNOWN
    assert time.monotonic() - start < 2


def test_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    """A 307 stops the run; nothing is asked of the address that it names."""

    async def redirect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    outcome, heads = posted(redirect)
    assert (outcome.verdict, len(heads)) == (Verdict.STOP, 1)


@pytest.mark.parametrize("encoding", [b"", b"Content-Encoding: gzip\r\n"])
def test_endless_answer_is_not_read_to_its_end(encoding: bytes) -> None:
    """An answer beyond the cap is an unknown outcome, whether it is large or only unpacks to something large."""
    received = 0

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        writer.write(OK + encoding + b"Content-Length: 1000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 100_000)
            received += 100_000
            await writer.drain()

    outcome, _ = posted(endless, timeout=20)
    assert outcome.verdict is Verdict.UNKNOWN
    assert received < 4 * _http.ANSWER_BYTES_MAX


@pytest.mark.parametrize("said", [b"", OK + b'Content-Length: 18\r\n\r\n{"code":', OK + b'\r\n{"code":'])
def test_answer_that_breaks_off_is_no_acknowledgement(said: bytes) -> None:
    """A connection closed before, in or without a declared length of the answer leaves the outcome in doubt."""

    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    outcome, _ = posted(cut)
    assert outcome.verdict in (Verdict.UNKNOWN, Verdict.UNVERIFIED)


def test_refused_connection_left_nothing_behind() -> None:
    """Where nobody listens nothing was sent, so trying later is safe."""

    async def attempt() -> Outcome:
        access = Access("http://127.0.0.1:1/2.11", SecretStr("p"), SecretStr("r"))
        async with connect(access, timeout=1, connections=1) as client:
            return await profiles.send(client, "update", b"[]", 1)

    assert asyncio.run(attempt()).verdict is Verdict.LATER


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable of this machine does not get the keys unasked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert posted(accept)[0].verdict is Verdict.ACCEPTED


def test_secrets_show_in_no_repr() -> None:
    """What is printed of the access by accident holds no key."""
    assert REST_KEY not in repr(Access("http://127.0.0.1/2.11", SecretStr("project"), SecretStr(REST_KEY)))
