"""An adoption: today's rows count as delivered, and nothing is sent.

Where what was delivered before is lost, and once it has begun to take rows, it is owed until one comes to its end:
meanwhile no run sends what was to count as delivered.
"""

import time

import sqlalchemy as sa

from connector._steps import step
from connector.errors import StateError
from connector.report import Report, killed
from connector.state import runs
from connector.state.database import CHUNKS, RUNS, WAYS_OUT, State
from connector.state.lease import Lease


def begin(state: State, lease: Lease, report: Report) -> None:
    """Note that it is owed, before it is known what was delivered."""
    with state.write() as connection:
        runs.open_run(connection, lease, runs.Opened(report.run, "", {}, "", report.to_dict(), lease.since), [])
    step("run.opened")


def waive(state: State, lease: Lease) -> None:
    """Note that it is not owed: what was delivered before is known, and a run that follows sends what differs."""
    with state.write() as connection:
        lease.check(connection)
        connection.execute(sa.delete(RUNS).where(RUNS.c.id == lease.run))


def take(state: State, lease: Lease) -> None:
    """Note every chunk of the run as done, though none was sent: the operator knows that Batch has them."""
    with state.write() as connection:
        lease.check(connection)
        chunks = sa.update(CHUNKS).where(CHUNKS.c.run == lease.run)
        connection.execute(chunks.values(state="done", settled_at=time.time()))
    step("delivery.ended")


def was(run: runs.Opened) -> bool:
    """Whether the run was one."""
    return bool(run.report.get("adopted"))


def end(state: State, lease: Lease, run: runs.Opened, *, whole: bool) -> None:
    """Close an adoption that was killed, or failed; what it took is taken anew.

    Args:
        state: The project's.
        lease: The present run's.
        run: The adoption.
        whole: The present run adopts, or sends, all rows as they are.

    Raises:
        StateError: It does neither: the adoption stays owed.
    """
    if not whole:
        raise StateError(
            f"sync '{lease.sync}': run {run.id}, which was to adopt its rows, did not come to its end",
            remedy=WAYS_OUT.format(sync=lease.sync),
        )
    with state.write() as connection:
        runs.close_run(connection, lease, run.id, {**run.report, **killed({}, f"run {lease.run} does it anew")})
