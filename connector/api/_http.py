"""The only HTTP client: authentication, deadline, size cap, no redirects, no proxy surprises."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

import httpx
from pydantic import Field, SecretStr

from connector._model import Model
from connector._steps import step
from connector.outcome import Answer

ANSWER_BYTES_MAX = 8_000_000
"""Bytes of an answer that are read at most: 10,000 partial errors fit many times over."""


class UpdateLimit(Model):
    """What the live endpoint takes (documented: 300 a second, a bucket of 1,000, 200 a call)."""

    per_second: float = Field(default=300, gt=0, description="profiles a second")
    burst: int = Field(default=1000, ge=0, description="profiles that Batch's bucket holds")
    per_call: int = Field(default=200, gt=0, le=200, description="profiles of one call")


class MassUpdateLimit(Model):
    """What the bulk endpoint takes (documented: 10,000 a second, no burst, 10,000 a call).

    Calls of 1,000 leave room for the jitter of the network, which calls of 10,000 do not.
    """

    per_second: float = Field(default=10_000, gt=0, description="profiles a second")
    burst: int = Field(default=0, ge=0, description="profiles beyond a second's worth that Batch's bucket holds")
    per_call: int = Field(default=1000, gt=0, le=10_000, description="profiles of one call")


EndpointLimit = UpdateLimit | MassUpdateLimit


class OtherLimit(Model):
    """What every other endpoint takes."""

    per_second: float = Field(default=1, gt=0, description="calls a second")


class Limits(Model):
    """Documented limits of the Profile API (profile updates, not calls), overridable."""

    update: UpdateLimit = Field(default=UpdateLimit(), description="the live endpoint")
    mass_update: MassUpdateLimit = Field(default=MassUpdateLimit(), description="the bulk endpoint")
    other: OtherLimit = Field(default=OtherLimit(), description="all other endpoints")


@dataclass(frozen=True, slots=True)
class Access:
    """Where Batch is and what opens it; the secrets show in no repr."""

    base_url: str
    project_key: SecretStr
    rest_key: SecretStr


class NotSentError(Exception):
    """No connection was made: nothing left this machine."""


class NoAnswerError(Exception):
    """The request left, wholly or in part, and no whole answer came back."""


@dataclass(frozen=True, slots=True)
class Client:
    """An open client; the whole of an exchange ends within the timeout.

    It speaks to the transport itself: what httpx's own client adds is cookies, redirects and proxies, which no call of
    ours may have, and a sixth of the time that a call takes.
    """

    transport: httpx.AsyncBaseTransport
    base_url: str
    headers: httpx.Headers
    timeout: float

    async def post(self, path: str, content: bytes) -> Answer:
        """POST a JSON body.

        Raises:
            NotSentError: No connection was made.
            NoAnswerError: No whole answer came: time-out, reset, cut off, or larger than ANSWER_BYTES_MAX.
        """
        return await self._exchange("POST", path, content=content)

    async def get(self, path: str, **params: str) -> Answer:
        """GET with query parameters.

        Raises:
            NotSentError: No connection was made.
            NoAnswerError: No whole answer came, as with `post`.
        """
        return await self._exchange("GET", path, params=params)

    async def _exchange(
        self, method: str, path: str, *, content: bytes | None = None, params: dict[str, str] | None = None
    ) -> Answer:
        # The end of the whole exchange must not come first: it could not tell that nothing had been sent.
        limits = httpx.Timeout(self.timeout, connect=min(10.0, self.timeout / 2)).as_dict()
        length = {} if content is None else {"Content-Length": str(len(content))}
        request = httpx.Request(
            method,
            _url(self.base_url + path),
            params=params,
            headers={**self.headers, **length},
            content=None if content is None else _once(content),
            extensions={"timeout": limits},
        )
        try:
            async with (
                asyncio.timeout(self.timeout),
                aclosing(await self.transport.handle_async_request(request)) as response,
            ):
                step("answer.begun")
                body = await _read(response)
                step("answer.read")
                return Answer(response.status_code, dict(response.headers), body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSentError(_why(error)) from error
        # A broken TLS record is an error that httpx lets through as it is.
        except (httpx.TransportError, httpx.DecodingError, ssl.SSLError, TimeoutError) as error:
            raise NoAnswerError(type(error).__name__) from error


_url = lru_cache(maxsize=16)(httpx.URL)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    """The body, of which the request keeps nothing.

    What is left of a call are objects that refer to each other, which Python finds late: bodies would pile up in them.
    """
    yield content


def _why(error: Exception) -> str:
    """Why there is no connection, as far as an operator can do something about it."""
    root: BaseException = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if isinstance(root, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid: {root.verify_message}"
    if isinstance(root, socket.gaierror):
        return "the server's name is not known"
    return type(error).__name__


async def _read(response: httpx.Response) -> bytes:
    # Raw bytes: an answer that unpacks to a gigabyte is refused by its packed form already, as we asked for none.
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise NoAnswerError("the answer is too large")
        parts.append(part)
    return b"".join(parts)


@asynccontextmanager
async def connect(
    access: Access, *, timeout: float, connections: int, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Client]:
    """A client for the length of a run.

    Args:
        access: Where and with what keys.
        timeout: Seconds of a whole exchange.
        connections: Most connections at a time; each is for one exchange.
        transport: Another way to a server than the network: the local API's in-process door.
    """
    headers = {
        "Authorization": f"Bearer {access.rest_key.get_secret_value()}",
        "X-Batch-Project": access.project_key.get_secret_value(),
        "Content-Type": "application/json",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        # A kept connection could hold an answer that nobody asked for, which the next call would take for its own; and
        # a server that closes it just then would leave that call in doubt. A new one costs a handshake, 10 a second.
        "Connection": "close",
        "User-Agent": "batch-warehouse-connector",
    }
    # No proxy and no .netrc of this machine gets the keys unasked.
    async with transport or httpx.AsyncHTTPTransport(
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=0), trust_env=False
    ) as opened:
        yield Client(opened, access.base_url.rstrip("/"), httpx.Headers(headers), timeout)
