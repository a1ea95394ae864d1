"""Which clock tells what: the database server's where hosts share the state, else this host's own."""

import platform
import time
from functools import cache
from pathlib import Path

import sqlalchemy as sa


def is_shared(database: sa.Engine | sa.Connection) -> bool:
    """Whether several hosts may use the database."""
    return database.dialect.name == "postgresql"


def clock(database: sa.Engine | sa.Connection) -> sa.ColumnElement[float]:
    """Seconds since 1970 by the clock that all users of the database share: its server's, else this host's."""
    if is_shared(database):
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float)
    return sa.literal(time.time())


def steady(connection: sa.Connection) -> tuple[str, float]:
    """A clock that all processes on the state share, and its name: times of one mean nothing on another.

    Of a state folder it is this host's that nobody can set, which means nothing after a reboot; where hosts share the
    state it is the database server's. Read it inside the transaction: then it is never before what another noted, but
    for a server's clock that was set back.
    """
    if is_shared(connection):
        return "server", _servers(connection)
    return boot() or platform.node(), time.monotonic()


def ahead(connection: sa.Connection, known: str) -> float:
    """Seconds by which `State.now` is ahead of `since_start`.

    Args:
        connection: The state's.
        known: What was last noted; empty: nothing.
    """
    if is_shared(connection):
        return _servers(connection) - since_start()
    start, *numbers = known.split() or [""]
    if not numbers:
        return time.time() - since_start()
    before, last, wall = map(float, numbers)
    if start == boot():
        return before
    return last + max(time.time() - wall, 0.0) - since_start()  # never back, though the host's clock may come up so


def noted(ahead: float) -> str:
    """What the next one to open the state has to know of a clock that is so much ahead."""
    return f"{boot() or '-'} {ahead!r} {since_start() + ahead!r} {time.time()!r}"


def since_start() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the host sleeps, where there is such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@cache
def boot() -> str:
    """This start of this host, which a process does not outlive; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _servers(connection: sa.Connection) -> float:
    return float(connection.execute(sa.select(clock(connection))).scalar_one())


__all__ = ["ahead", "clock", "is_shared", "noted", "since_start", "steady"]
