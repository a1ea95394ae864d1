"""A server that counts with a strict token bucket, some way off, and runs of the command line against it."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx

from connector.simulator.limits import Rate, TokenBucket

WAY, JITTER = 0.03, 0.02
"""Seconds to the server and back each, and what comes on top of them on average."""

_LINE = "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
_TICKS = os.sysconf("SC_CLK_TCK")


class Arrival(NamedTuple):
    """A call at the bucket: when by the monotonic clock, its profiles, whether they were taken."""

    at: float
    profiles: int
    taken: bool


class Ended(NamedTuple):
    """A run of the command line: its report, CPU seconds whole and since its first call, peak memory in MB."""

    report: dict[str, object]
    seconds: float
    sending: float
    peak: float


class Strict:
    """The server, seen from outside."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def arrivals(self) -> list[Arrival]:
        """Every call so far."""
        return [Arrival(*each) for each in httpx.get(f"{self.url}/arrivals", trust_env=False).json()]


@contextmanager
def strict(per_second: float, burst: int, way: float = WAY, jitter: float = JITTER) -> Iterator[Strict]:
    """A strict server in a process of its own; a rate of 0 takes everything."""
    arguments = [str(each) for each in (per_second, burst, way, jitter)]
    command = [sys.executable, "-m", "tests.benchmarks.strict", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield Strict(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def run(project: Path, server: Strict, *syncs: str, main: str = "from connector.cli import main") -> list[Ended]:
    """Runs of these syncs, started at once, when all have ended."""
    before = len(server.arrivals())
    script = f"import sys; {main}; sys.exit(main(sys.argv[1:]))"
    running = []
    for sync in syncs:
        command = [sys.executable, "-c", script, "--project", str(project), "run", sync, "--json"]
        with (project / f"{sync}.json").open("wb") as out:
            running.append(subprocess.Popen(command, stdout=out))
    begun: dict[int, float] = {}
    while len(begun) < len(running) and any(_cpu(process.pid) is not None for process in running):
        if len(server.arrivals()) > before:
            begun = {process.pid: _cpu(process.pid) or 0.0 for process in running}
        time.sleep(0.1)
    ended = []
    for sync, process in zip(syncs, running, strict=True):
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        report = json.loads((project / f"{sync}.json").read_text())
        assert process.returncode == 0, report
        seconds = used.ru_utime + used.ru_stime
        ended.append(Ended(report, seconds, seconds - begun.get(process.pid, 0.0), used.ru_maxrss / 1024))
    return ended


def used(spans: Sequence[Sequence[Arrival]], per_second: float) -> float:
    """The share of the limit that the calls of each span used; the first call of a span opens it."""
    taken = sum(arrival.profiles for span in spans for arrival in span[1:] if arrival.taken)
    return taken / sum(span[-1].at - span[0].at for span in spans) / per_second


def _cpu(pid: int) -> float | None:
    """CPU seconds of a process so far; None once it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return None if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / _TICKS


async def _serve(per_second: float, burst: int, way: float, jitter: float) -> None:
    bucket = TokenBucket(Rate(per_second, burst), time.monotonic()) if per_second else None
    arrivals: list[Arrival] = []

    def answered(head: bytes, body: bytes) -> tuple[str, bytes]:
        if head.startswith(b"GET"):
            return "200 OK", json.dumps(arrivals).encode()
        now, profiles = time.monotonic(), body.count(b'"custom_id"')
        taken = not (bucket and bucket.take(profiles, now))
        arrivals.append(Arrival(now, profiles, taken))
        return ("202 Accepted", b'{"code":"SUCCESS"}') if taken else ("429 Too Many", b"{}")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(*lengths) if lengths else b""
            if lengths and way:
                await asyncio.sleep(way + random.expovariate(1 / jitter))
            status, content = answered(head, body)
            if lengths and way:
                await asyncio.sleep(way)
            writer.write(_LINE.format(status=status, length=len(content)).encode() + content)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Serve until killed; the port is printed."""
    per_second, burst, way, jitter = arguments
    asyncio.run(_serve(float(per_second), int(burst), float(way), float(jitter)))


if __name__ == "__main__":
    main(sys.argv[1:])
