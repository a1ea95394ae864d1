"""Fetches a file of an export from wherever Batch keeps it; not everywhere is gone, and with no header of ours."""

import asyncio
import ipaddress
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from connector._model import is_loopback
from connector.api._http import NoAnswerError
from connector.errors import ExportError

REDIRECTS_MAX = 3

_FOUND, _PARTIAL, _RANGE = 200, 206, 416
_REDIRECTS = {301, 302, 303, 307, 308}
_EXPIRED = {401, 403, 404, 410}

_NO_URL = "the link to a file of the export is no URL, so it was not followed"


for _name in ("httpx", "httpcore"):  # they log whole URLs and headers, and a link is a secret
    logging.getLogger(_name).setLevel(logging.WARNING)


class ExpiredError(Exception):
    """The link is no longer good; Batch gives a new one."""


@dataclass(frozen=True, slots=True)
class Store:
    """A way to the files' hosts, which knows no secret of ours.

    Attributes:
        http: Sends none of our headers.
        local: Whether this machine may be such a host, as where Batch itself is the local API.
        timeout: Seconds without a byte after which a download is cut.
    """

    http: httpx.AsyncClient
    local: bool
    timeout: float


class Piece(NamedTuple):
    """What is here of a file so far: its bytes, and the ETag of what they belong to."""

    size: int = 0
    etag: str | None = None


@asynccontextmanager
async def reach(
    *, local: bool, timeout: float, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Store]:
    """A way to the files' hosts for the length of a run; see `Store`.

    Args:
        local: Whether this machine may be such a host.
        timeout: Seconds without a byte.
        transport: Another way than the network: the local API's in-process door.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "batch-warehouse-connector"}
    async with httpx.AsyncClient(
        headers=headers, timeout=timeout, follow_redirects=False, trust_env=False, transport=transport
    ) as http:
        yield Store(http, local, timeout)


async def fetch(store: Store, url: str, path: Path, piece: Piece, most: int) -> tuple[Piece, bool]:
    """Fetch what is missing of a file; what is here of it then, and whether that is all.

    Args:
        store: The way there.
        url: Where it is; a secret, never in a message.
        path: Where its bytes go; `piece` says how many of them are there already.
        piece: What is here: the rest is asked for, and all of it again where the file has changed since.
        most: Bytes that it may have.

    Raises:
        ExpiredError: The link is no longer good.
        NoAnswerError: No connection, or a refusal for now.
        ExportError: The link leads where no file of Batch's can be, or the file is larger than it may be.
    """
    for _ in range(REDIRECTS_MAX + 1):
        request = await _request(store, url, piece)
        try:
            response = await store.http.send(request, stream=True)
        except (httpx.TransportError, ssl.SSLError) as error:
            raise NoAnswerError(type(error).__name__) from error
        except UnicodeError:  # of the client's, which reads where a redirect leads although it does not follow
            raise ExportError(_NO_URL) from None
        try:
            if response.status_code not in _REDIRECTS:
                return await _received(response, path, piece, most)
            url = urljoin(url, response.headers.get("location", ""))
        finally:
            await response.aclose()
    raise ExportError(f"the link to a file of the export leads on more than {REDIRECTS_MAX} times")


async def _request(store: Store, url: str, piece: Piece) -> httpx.Request:
    """A request to the very address that was judged: a name could mean another one a moment later."""
    parts = _parts(url)
    host, port = parts.hostname or "", parts.port
    headers = {"Range": f"bytes={piece.size}-", "If-Range": piece.etag} if piece.size and piece.etag else {}
    local = store.local and is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ExportError(
            "the link to a file of the export does not begin with https://, so it was not followed",
            remedy="nothing was loaded; tell Batch's support if it stays so",
        )
    if local:
        return store.http.build_request("GET", url, headers=headers)
    address = await _public_address(host, port or 443)
    pinned = httpx.URL(url).copy_with(host=address)
    return store.http.build_request(
        "GET", pinned, headers={**headers, "Host": parts.netloc.rpartition("@")[2]}, extensions={"sni_hostname": host}
    )


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url), (parts.hostname or "").encode("idna")
    except (ValueError, httpx.InvalidURL):
        raise ExportError(_NO_URL) from None
    if not parts.hostname:
        raise ExportError("the link to a file of the export names no host, so it was not followed")
    return parts


async def _public_address(host: str, port: int) -> str:
    """An address of the host, after all of them were found to be public.

    Raises:
        NoAnswerError: The name is not known.
        ExportError: One of them is not.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAnswerError(type(error).__name__) from error
    addresses = [str(address[4][0]) for address in found]
    if not addresses or not all(_is_public(address) for address in addresses):
        raise ExportError(
            f"the link to a file of the export leads to '{host}', which is no public address, so it was not followed",
            remedy="nothing was loaded; tell Batch's support if it stays so",
        )
    return addresses[0]


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global and not found.is_multicast


async def _received(response: httpx.Response, path: Path, piece: Piece, most: int) -> tuple[Piece, bool]:
    status, etag = response.status_code, response.headers.get("etag")
    if status in _EXPIRED:
        raise ExpiredError
    if status == _RANGE:
        return Piece(), False  # what is here belongs to another file
    if status == _PARTIAL and _continues(response, piece):
        return await _written(response, path, piece, most)
    if status == _FOUND:
        return await _written(response, path, Piece(0, etag), most)
    if status == _PARTIAL:
        return Piece(), False
    raise NoAnswerError(f"answer {status}")


def _continues(response: httpx.Response, piece: Piece) -> bool:
    start = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return bool(start) and int(start[1]) == piece.size and response.headers.get("etag", piece.etag) == piece.etag  # type: ignore[index]


async def _written(response: httpx.Response, path: Path, piece: Piece, most: int) -> tuple[Piece, bool]:
    """Append the answer's bytes to what is here; cut where the connection ends before they are all there."""
    size = piece.size
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.seek(size)
        file.truncate()
        try:
            async for part in response.aiter_raw():
                size += len(part)
                if size > most:
                    raise ExportError(f"a file of the export is larger than the {most:,} bytes that Batch said")
                file.write(part)
        except (httpx.TransportError, ssl.SSLError):  # a broken record, which httpx lets through
            return Piece(size, piece.etag), False
        finally:
            file.flush()
            os.fsync(file.fileno())
    return Piece(size, piece.etag), True
