"""One run of a sync at a time: a lease row with a fencing number, and beside it a kernel lock or a pulse.

In the state folder the kernel's lock decides, which it frees when its holder dies. Where several hosts share the state
nothing tells them of each other's processes, so the lease does, by the database's clock: its holder renews it all the
while, and one that is silent for LEASE_SECONDS is taken for dead. Of a process on the same host it is seen sooner.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connector.errors import BusyError, StateError
from connector.state import clocks, postgres
from connector.state.clocks import clock, is_shared
from connector.state.database import LEASES, State, note

logger = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
"""How long a lease outlives its last renewal, for another host; on the same one a dead process's is free at once."""

PULSE_SECONDS = LEASE_SECONDS / 6
"""How often the holder of a lease that hosts share renews it: a few renewals may fail."""

# Built once: it is executed in every transaction of a run, and to build it costs as much as to execute it.
_MINE = (LEASES.c.sync == sa.bindparam("of")) & (LEASES.c.fence == sa.bindparam("as_of")) & LEASES.c.run.is_not(None)
_RENEWED = sa.update(LEASES).where(_MINE)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a sync.

    Attributes:
        sync: Its name.
        run: Id of the run that holds it.
        fence: Grows with every holder; a write under an older number is refused.
        since: When it was taken, by `State.now`.
    """

    sync: str
    run: str
    fence: int
    since: float

    @property
    def _what(self) -> str:
        return "the project's right to send" if self.sync.startswith("#") else f"sync '{self.sync}'"

    def check(self, connection: sa.Connection) -> None:
        """Renew the lease inside a transaction that writes under it.

        Raises:
            StateError: Somebody else holds it by now: this run was taken for dead.
        """
        who = {"of": self.sync, "as_of": self.fence}
        if is_shared(connection):
            renewed = connection.execute(_RENEWED.values(expires=clock(connection) + LEASE_SECONDS), who)
        else:
            renewed = connection.execute(_RENEWED, {**who, "expires": time.time() + LEASE_SECONDS})
        if renewed.rowcount != 1:
            raise StateError(
                f"{self._what}: run {self.run} lost its lease to a newer run",
                remedy="nothing to do: the newer run takes over what this one left",
            )


@contextmanager
def hold(state: State, sync: str, run: str) -> Iterator[Lease]:
    """The lease of a sync for the length of a run.

    Raises:
        BusyError: Another run of the sync is under way.
    """
    with _locked(state, sync):
        lease = _taken(state, sync, run)
        try:
            with _renewed(state, lease):
                yield lease
        finally:
            _let_go(state, lease)


def _let_go(state: State, lease: Lease) -> None:
    """Free at once for the next run; where that cannot be noted, it is when the lease ends: the run's word stands."""
    mine = (LEASES.c.sync == lease.sync) & (LEASES.c.run == lease.run)
    try:
        with state.write() as connection:
            connection.execute(sa.update(LEASES).where(mine).values(run=None, expires=0))
    except StateError as error:
        logger.warning("run %s: its lease ends by itself: %s", lease.run, error.message)


def is_held(state: State, sync: str) -> bool:
    """Whether somebody runs the sync now; of a state folder, a process of this host."""
    if state.is_shared:
        return is_alive(state, sync)
    try:
        with _locked(state, sync):
            return False
    except BusyError:
        return True


def is_alive(state: State, sync: str) -> bool:
    """Whether the lease's holder lives and renews it, as one does that sends; looking takes no lock from anybody."""
    with state.read() as connection:
        row = _row(connection, sync)
    return bool(row and row.valid and (row.host != _host(state) or _exists(row.pid)))


def _row(connection: sa.Connection, sync: str) -> sa.Row[Any] | None:
    """The lease's row, and whether it is `valid` by the state's clock."""
    valid = LEASES.c.run.is_not(None) & (LEASES.c.expires > clock(connection))
    return connection.execute(sa.select(LEASES, valid.label("valid")).where(LEASES.c.sync == sync)).one_or_none()


def _host(state: State) -> str:
    return postgres.host() if state.is_shared else socket.gethostname()


@contextmanager
def _renewed(state: State, lease: Lease) -> Iterator[None]:
    """The lease lives as long as this process does; of a state folder it need not, as the kernel's lock decides."""
    if not state.is_shared:
        yield
        return
    ended = threading.Event()

    def pulse() -> None:
        while not ended.wait(PULSE_SECONDS):
            # Whether the lease is lost or the server out of reach, the run's own next write says it.
            with suppress(StateError), state.write() as connection:
                lease.check(connection)

    thread = threading.Thread(target=pulse, name=f"lease of {lease.sync}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def _taken(state: State, sync: str, run: str) -> Lease:
    host, since = _host(state), state.now()
    with state.write() as connection:
        row = _row(connection, sync)
        # Of a state folder the kernel's lock has already told that no process of this host holds it.
        if row and row.valid and (row.host != host or (state.is_shared and _exists(row.pid))):
            raise _busy(sync, f"run {row.run} on {row.host}, process {row.pid}")
        fence = (row.fence if row else 0) + 1
        connection.execute(sa.delete(LEASES).where(LEASES.c.sync == sync))
        values = {
            "sync": sync,
            "fence": fence,
            "run": run,
            "host": host,
            "pid": os.getpid(),
            "expires": clock(connection) + LEASE_SECONDS,
        }
        connection.execute(sa.insert(LEASES).values(values))
        if not state.is_shared:
            note(connection, {"clock": clocks.noted(state.ahead)})
    return Lease(sync, run, fence, since)


@contextmanager
def _locked(state: State, sync: str) -> Iterator[None]:
    if state.is_shared:
        yield
        return
    path: Path = state.folder / "locks" / f"{sync}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(
            f"the lock file '{path}' cannot be opened: {error.strerror}",
            remedy="correct the folder's permissions",
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        with state.read() as connection:
            row = connection.execute(sa.select(LEASES.c.run, LEASES.c.pid).where(LEASES.c.sync == sync)).one_or_none()
        raise _busy(sync, f"run {row.run}, process {row.pid}" if row else "another process") from None
    except OSError as error:
        os.close(handle)
        why = f"the lock file '{path}' cannot be locked: {error.strerror}"
        raise StateError(why, remedy="keep the state folder on a local disk") from None
    try:
        yield
    finally:
        os.close(handle)


def _busy(sync: str, holder: str) -> BusyError:
    return BusyError(
        f"sync '{sync}' is already running: {holder}",
        remedy="wait for it to end, or cancel it; nothing was sent by this call",
    )
