"""Whose turn it is to send: one run of a project at a time."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from connector._steps import step
from connector.errors import BusyError
from connector.state import runs
from connector.state.database import State
from connector.state.lease import Lease, hold, is_alive
from connector.task import Progress

TURN = "#delivery"
"""Name of the lease of the run that sends: no sync can have it."""

_POLL_SECONDS = 0.1
_RENEW_SECONDS = 10.0


@contextmanager
def turn(state: State, lease: Lease, *, attributes_first: bool, progress: Progress) -> Iterator[Lease]:
    """The right to send, a lease: one run of a project at a time, so that no profile is ever in two calls at once.

    The rate is the project's anyway, so that waiting costs no throughput; reading and comparing go on meanwhile.

    Args:
        state: The project's.
        lease: The run's; renewed while it waits.
        attributes_first: Let runs of profile syncs that are ready go first, as an event's automation reads attributes.
        progress: Told that the run waits.
    """
    renew_at = time.monotonic() + _RENEW_SECONDS
    with ExitStack() as stack:
        while (attributes_first and _attributes_are_ready(state)) or not (held := _entered(stack, state, lease.run)):
            progress("wait", 0, None)
            time.sleep(_POLL_SECONDS)
            if time.monotonic() > renew_at:
                renew_at = time.monotonic() + _RENEW_SECONDS
                with state.write() as connection:
                    lease.check(connection)
        step("turn.taken")
        yield held


def _entered(stack: ExitStack, state: State, run: str) -> Lease | None:
    try:
        return stack.enter_context(hold(state, TURN, run))
    except BusyError:
        return None


def _attributes_are_ready(state: State) -> bool:
    return any(is_alive(state, sync) for sync in runs.open_syncs(state, "profiles"))


__all__ = ["TURN", "turn"]
