"""Answers on the wire, and what every authenticated call is checked for."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from connector.simulator.answers import Answer, failure
from connector.simulator.content import Content

if TYPE_CHECKING:
    from connector.simulator.simulator import Simulator

_VERSION = re.compile(r"2\.[0-9]+")
_PIECE = 2**18
"""Bytes of a file in memory at a time."""


class CutResponse(Response):
    """Declares its whole length and sends half of it.

    The server then ends the connection. In process there is none to end, so the caller gets the half.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the head and half of the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": False})


class ContentResponse(Response):
    """Bytes of a file, a piece at a time; a cut one ends as `CutResponse` does."""

    def __init__(self, content: Content, on_sent: Callable[[int], None]) -> None:
        """Send this; `on_sent` is told the bytes of each piece as it goes."""
        headers = {**content.headers, "content-length": str(content.length)}
        super().__init__(None, content.status, headers, media_type=content.file.content_type)
        self._content = content
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the head and the bytes."""
        with closing(self._content.file.path.open("rb")) as source:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for piece in _pieces(source, self._content):
                self._on_sent(len(piece))  # first: who has the last byte finds it counted
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def response(answer: Answer) -> Response:
    """The answer as Starlette sends it."""
    kind = CutResponse if answer.cut else Response
    return kind(answer.body, answer.status, answer.headers, media_type=answer.content_type)


def is_version(request: Request) -> bool:
    """Whether the path names a version of the API that is served."""
    return _VERSION.fullmatch(request.path_params["version"]) is not None


async def hold_back(sleep: Awaitable[None], request: Request) -> None:
    """Sleep; less where the caller hangs up, whose next call shall not count as made beside this one."""
    ends = [asyncio.ensure_future(sleep), asyncio.ensure_future(request.receive())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


def refusal(simulator: "Simulator", request: Request, key: str, size: int) -> Answer | None:
    """Why a call with a body of this many bytes is refused before it is read, or None."""
    rest_key = simulator.credentials.get(key)
    if rest_key is None or request.headers.get("authorization") != f"Bearer {rest_key}":
        return failure(401, "the REST API key is not valid for this project")
    if request.method == "GET":
        return None
    if request.headers.get("content-encoding", "identity") != "identity":
        return failure(415, "Content-Encoding is not identity")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return failure(400, "Content-Type is not application/json")
    most = simulator.project(key).settings.body_bytes
    if most is not None and size > most:
        return failure(413, f"the body has {size} bytes, at most {most} are allowed")
    return None


def _pieces(source: BinaryIO, content: Content) -> Iterator[bytes]:
    at = content.start
    end = at + (content.length // 2 if content.cut else content.length)
    source.seek(at)
    while at < end:
        piece = source.read(min(_PIECE, end - at))
        if not piece:
            return
        yield _flipped(piece, content.corrupt - at) if content.corrupt is not None else piece
        at += len(piece)


def _flipped(piece: bytes, at: int) -> bytes:
    return piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :] if 0 <= at < len(piece) else piece
