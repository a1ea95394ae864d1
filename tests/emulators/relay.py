"""A server between a client and an emulator that sees every request, and answers or loses some itself."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Seen(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    """What was sent as JSON; where that is one part of several, the first one."""
    content: bytes = b""
    """What was sent."""


class Reply(NamedTuple):
    """What is answered in the place of the emulator."""

    status: int
    body: Any
    after: float = 0
    """Seconds to wait before."""


Rule = Callable[[Seen], Reply | None]
"""An answer of the relay's own, or None to let the request pass."""


class Relay:
    """Listens at `url`. Its rules are asked in turn; what none answers goes to the emulator."""

    def __init__(self, upstream: str | None) -> None:
        self.seen: list[Seen] = []
        self.rules: list[Rule] = []
        self.lost: Callable[[Seen], bool] = lambda _: False
        """Whether the emulator's answer gets lost on its way back."""
        self._upstream = urlsplit(upstream).netloc if upstream else None
        self.url = ""

    def answer(self, seen: Seen) -> Reply | None:
        """The reply to a request; None where it is lost."""
        self.seen.append(seen)
        own = next((reply for rule in self.rules if (reply := rule(seen))), None)
        if own:
            time.sleep(own.after)
            return own
        assert self._upstream, f"no rule answers {seen.method} {seen.path}"
        upstream = HTTPConnection(self._upstream)
        kind = {"Content-Type": seen.headers.get("content-type", "application/json")}
        upstream.request(seen.method, seen.path, seen.content or None, kind)
        answered = upstream.getresponse()
        reply = Reply(answered.status, json.loads(answered.read() or b"null"))
        upstream.close()
        return None if self.lost(seen) else reply

    def requests(self, method: str, fragment: str) -> list[Seen]:
        """Those seen with this method and this in their path."""
        return [seen for seen in self.seen if seen.method == method and fragment in seen.path]


def _json(sent: bytes) -> Any:
    if sent.startswith(b"--"):  # several parts, the first of which is JSON
        sent = sent.split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0]
    return json.loads(sent) if sent else None


@contextmanager
def relaying(upstream: str | None = None) -> Iterator[Relay]:
    """A relay in front of an emulator, or alone."""
    relay = Relay(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = relay.answer(Seen(self.command, self.path, headers, _json(sent), sent))
            if reply is None:
                self.close_connection = True
                return
            answered = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answered)))
            self.end_headers()
            self.wfile.write(answered)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    relay.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
