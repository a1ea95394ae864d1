"""An S3-compatible server of a test run, installed as a wheel; every test gets a bucket of its own.

It is moto's: of the S3 protocol all that is used here, but no real credentials and no real consistency.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import httpx

from tests.emulators.environments import Environment, running

SECRET = "s3cret-of-the-bucket"

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTER", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
"""What a process needs in its environment; any key is taken."""

ENVIRONMENT = Environment(
    name="s3",
    pythons=("3.11", "3.12", "3.13"),
    requirements=("moto[s3,server]==5.0.28",),  # of later ones pyarrow refuses the end of an upload in parts
    ports=1,
    command=("{folder}/bin/moto_server", "-H", "127.0.0.1", "-p", "{0}"),
)

PREFIX = "batch/eu"


class Store:
    """A bucket of the test's own, seen without the connector; its faults are those of its gate."""

    def __init__(self, gate: "Gate", bucket: str) -> None:
        self.gate = gate
        self._url = f"{server()}/{bucket}"
        self._client = httpx.Client(headers={"Authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/x"})
        self._client.put(self._url).raise_for_status()
        self.uri = f"s3://{bucket}/{PREFIX}?region=us-east-1&endpoint_override={urlsplit(gate.url).netloc}&scheme=http"

    def names(self, below: str = "") -> list[str]:
        """The files' names below the prefix."""
        listed = self._client.get(f"{self._url}?list-type=2&prefix={PREFIX}/{below}").text
        names = [part.split("</Key>")[0] for part in listed.split("<Key>")[1:]]
        return sorted(name.removeprefix(f"{PREFIX}/") for name in names if not name.endswith("/"))

    def get(self, name: str) -> bytes:
        return self._client.get(f"{self._url}/{PREFIX}/{name}").raise_for_status().content

    def put(self, name: str, content: bytes) -> None:
        self._client.put(f"{self._url}/{PREFIX}/{name}", content=content).raise_for_status()

    def delete(self, name: str) -> None:
        self._client.delete(f"{self._url}/{PREFIX}/{name}").raise_for_status()

    def close(self) -> None:
        self._client.close()


Rule = Callable[[int], bool]
"""Whether the n-th request, from 1, is denied."""


class Gate:
    """A way to the server that sees each request, and denies some."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.denies: Rule = lambda _: False
        self.url = ""

    @contextmanager
    def closed(self, rule: Rule) -> Iterator[None]:
        """Deny what the rule says, until the context ends."""
        self.seen, self.denies = [], rule
        try:
            yield
        finally:
            self.denies = lambda _: False


_DENIED = b"<Error><Code>AccessDenied</Code><Message>of some AKIATESTER</Message></Error>"


@contextmanager
def gated() -> Iterator[Gate]:  # noqa: C901 - a handler knows its gate by being made in here
    """A gate that is open."""
    gate = Gate()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            sent = self._sent()
            gate.seen.append(f"{self.command} {self.path}")
            if gate.denies(len(gate.seen)):
                self._answer(403, {"Content-Type": "application/xml"}, _DENIED)
                return
            upstream = HTTPConnection(urlsplit(server()).netloc, timeout=10)
            passed = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            upstream.request(self.command, self.path, sent, passed | {"Content-Length": str(len(sent))})
            reply = upstream.getresponse()
            self._answer(reply.status, dict(reply.getheaders()), reply.read())
            upstream.close()

        def _sent(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            length = {"Content-Length": headers.get("Content-Length") if self.command == "HEAD" else str(len(body))}
            kept = {name: value for name, value in headers.items() if name.lower() not in _OWN}
            for name, value in {**kept, **length}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    gate.url = f"http://127.0.0.1:{listening.server_port}"
    thread = Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield gate
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


_HOP = {"content-length", "connection", "transfer-encoding", "expect"}
_OWN = {"content-length", "connection", "transfer-encoding", "server", "date"}


@cache
def server() -> str:
    """The server's address, once it answers; the test is skipped where there can be none."""
    (port,) = running(ENVIRONMENT)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
    while True:
        with suppress(httpx.TransportError):
            httpx.get(address)
            return address
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.05)


@contextmanager
def new_bucket() -> Iterator[Store]:
    """A bucket that nobody has used."""
    server()
    with gated() as gate:
        store = Store(gate, f"test-{uuid.uuid4().hex[:12]}")
        try:
            yield store
        finally:
            store.close()
