"""One run of a sync at a time: a kernel lock beside a lease row with a fencing number."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from connector.errors import BusyError, StateError
from connector.state.database import LEASES, State

LEASE_SECONDS = 120.0
"""How long a lease outlives its last renewal, for another host; here the kernel frees a dead process's lock at once."""

# Built once: it is executed twice for every call, and to build it costs as much as to execute it.
_RENEWED = sa.update(LEASES).where((LEASES.c.sync == sa.bindparam("of")) & (LEASES.c.fence == sa.bindparam("held_as")))


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a sync.

    Attributes:
        sync: Its name.
        run: Id of the run that holds it.
        fence: Grows with every holder; a write under an older number is refused.
    """

    sync: str
    run: str
    fence: int

    def check(self, connection: sa.Connection) -> None:
        """Renew the lease inside a transaction that writes under it.

        Raises:
            StateError: Somebody else holds it by now: this run was taken for dead.
        """
        until = {"of": self.sync, "held_as": self.fence, "expires": time.time() + LEASE_SECONDS}
        renewed = connection.execute(_RENEWED, until)
        if renewed.rowcount != 1:
            raise StateError(
                f"sync '{self.sync}': run {self.run} lost its lease to a newer run",
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
            yield lease
        finally:
            with state.write() as connection:
                mine = (LEASES.c.sync == sync) & (LEASES.c.run == run)
                connection.execute(sa.update(LEASES).where(mine).values(run=None, expires=0))


def is_held(state: State, sync: str) -> bool:
    """Whether a process of this host runs the sync now."""
    try:
        with _locked(state, sync):
            return False
    except BusyError:
        return True


def is_alive(state: State, sync: str) -> bool:
    """Whether the lease's holder lives and renews it, as one does that sends; looking takes no lock from anybody."""
    with state.read() as connection:
        row = connection.execute(sa.select(LEASES).where(LEASES.c.sync == sync)).mappings().one_or_none()
    if row is None or not row["run"] or row["expires"] < time.time():
        return False
    return row["host"] != socket.gethostname() or _exists(row["pid"])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def _taken(state: State, sync: str, run: str) -> Lease:
    host = socket.gethostname()
    with state.write() as connection:
        row = connection.execute(sa.select(LEASES).where(LEASES.c.sync == sync)).mappings().one_or_none()
        if row and row["run"] and row["host"] != host and row["expires"] > time.time():
            raise _busy(sync, f"run {row['run']} on {row['host']}, process {row['pid']}")
        fence = (row["fence"] if row else 0) + 1
        connection.execute(sa.delete(LEASES).where(LEASES.c.sync == sync))
        values = {
            "sync": sync,
            "fence": fence,
            "run": run,
            "host": host,
            "pid": os.getpid(),
            "expires": time.time() + LEASE_SECONDS,
        }
        connection.execute(sa.insert(LEASES), values)
    return Lease(sync, run, fence)


@contextmanager
def _locked(state: State, sync: str) -> Iterator[None]:
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
