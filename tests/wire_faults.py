"""A relay of bytes between a client and an HTTP server, that does to each exchange what a network, a proxy or a tired server may do."""

import json
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from threading import Event, Thread
from typing import Any

OK = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
_PIECE = 65_536


class _GoneError(Exception):
    """The client has closed its connection."""


class Exchange:
    """One request on a connection of the client's, from before its first byte."""

    def __init__(self, client: socket.socket, server: int, ended: Event) -> None:
        self._client = client
        self._server = server
        self._ended = ended
        self._got = b""
        self.sent = 0
        """Bytes that went to the client."""
        self.was_applied = False
        """The server has it."""

    def head(self) -> bytes:
        """The request's head, with the empty line at its end."""
        while b"\r\n\r\n" not in self._got:
            self.more()
        return self._got[: self._got.index(b"\r\n\r\n") + 4]

    def body(self, share: float = 1.0) -> bytes:
        """Of the request's body at least this share; the rest is not waited for."""
        head = self.head()
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        while len(self._got) < len(head) + length * share:
            self.more()
        return self._got[len(head) :]

    def again(self) -> None:
        """From now on the next request on this connection is meant."""
        self._got = b""

    def keys(self) -> list[str]:
        """The custom IDs in the body."""
        return [operation["identifiers"]["custom_id"] for operation in json.loads(self.body())]

    def applied(self) -> bytes:
        """The request goes to the server, once; its answer, whole."""
        body = self.body()
        self.was_applied = True
        with socket.create_connection(("127.0.0.1", self._server), timeout=30) as upstream:
            upstream.sendall(self.head() + body)
            answer = HTTPResponse(upstream)
            answer.begin()
            content = answer.read()
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    def say(self, data: bytes, pause: float = 0, size: int = _PIECE) -> None:
        """Send to the client, in pieces of that many bytes with seconds between them if asked."""
        for at in range(0, len(data), size):
            if pause:
                self.wait(pause)
            try:
                self._client.sendall(data[at : at + size])
            except OSError:
                raise _GoneError from None
            self.sent += len(data[at : at + size])

    def wait(self, seconds: float) -> None:
        """Let time pass, but not past the relay's end."""
        if self._ended.wait(seconds):
            raise _GoneError

    def silent(self) -> None:
        """Neither read nor answer until the client is gone."""
        while not _hung_up(self._client):
            self.wait(0.02)
        raise _GoneError

    def deaf(self) -> None:
        """Say that no more will come; the client may go on."""
        self._client.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection as a crash does: RST, and what was on its way is lost."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _GoneError

    def spoil(self) -> None:
        """Put something on the wire that no TLS record is; the client speaks TLS."""
        os.write(self._client.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        raise _GoneError

    def close(self) -> None:
        """End the connection in good order."""
        raise _GoneError

    def more(self, most: int = _PIECE) -> None:
        """Read some more of the request, at most so many bytes."""
        try:
            data = self._client.recv(most)
        except OSError:
            raise _GoneError from None
        if not data:
            raise _GoneError
        self._got += data


Act = Callable[[Exchange], None]
"""What is done to an exchange; it may end the connection."""


def passed(exchange: Exchange) -> None:
    """To the server and back, as if there were no relay."""
    exchange.say(exchange.applied())


class Wire:
    """A relay at `port`. The next `times` exchanges meet the `act`, all others pass."""

    def __init__(self, server: int, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._tls = tls
        self._ended = Event()
        self._deserted = Event()
        self._act: Act = passed
        self._times = 0.0
        self._threads: list[Thread] = []
        self.met: list[Exchange] = []
        """The exchanges that met the act."""
        self.connections = 0
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]

    def meet(self, act: Act, times: float = float("inf")) -> None:
        """From now on so many exchanges meet this act; forgets those that met another."""
        self.met = []
        self._act, self._times = act, times

    @contextmanager
    def deserted(self) -> Iterator[None]:
        """For its context nobody listens at the port."""
        self._desert()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)

    def close(self) -> None:
        """End every connection."""
        self._ended.set()
        self._desert()
        for thread in self._threads:
            thread.join()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # who reads nothing soon holds the sender up
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(0.02)
        self._deserted.clear()
        self._acceptor = self._start(self._accepting, listener)
        return listener

    def _desert(self) -> None:
        self._deserted.set()
        self._acceptor.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> Thread:
        thread = Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accepting(self, listener: socket.socket) -> None:
        while not self._deserted.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(30)
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            while _is_asked(client, self._ended):
                exchange = Exchange(client, self._server, self._ended)
                act = passed
                if self._times > 0:
                    act, self._times = self._act, self._times - 1
                    self.met.append(exchange)
                act(exchange)
        except (_GoneError, OSError):
            pass
        finally:
            client.close()


def _is_asked(client: socket.socket, ended: Event) -> bool:
    """Whether a request comes, before the client or the relay ends."""
    while not ended.is_set():
        if (isinstance(client, ssl.SSLSocket) and client.pending()) or select.select([client], [], [], 0.02)[0]:
            return not _hung_up(client)
    return False


def _hung_up(client: socket.socket) -> bool:
    """Whether the client has closed; what it sent before may still wait to be read."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


@contextmanager
def wire(server: int, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """A relay in front of the server at this port; with a context, its clients speak TLS to it."""
    made = Wire(server, tls)
    try:
        yield made
    finally:
        made.close()
