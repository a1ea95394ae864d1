"""The rate limit, in profiles: one bucket an endpoint, and one pause, for every process on this state."""

import platform
import time
from pathlib import Path

import sqlalchemy as sa

from connector.state.database import BUCKETS, State

JITTER_SECONDS = 0.5
"""How much a request's way to Batch may vary before our spacing and Batch's counting could disagree."""


def burst(capacity: int, per_second: float, per_call: int) -> float:
    """Profiles that may leave at once, from 0 to what Batch's bucket holds less what jitter may cost.

    Args:
        capacity: Profiles that Batch's own bucket holds; 0: it is documented to hold no burst, so it holds a
            second's worth.
        per_second: Profiles a second.
        per_call: Profiles of the largest call.
    """
    held = capacity or per_second
    # Three calls at once catch up with any stall; more would only use up the room for jitter.
    return max(min(held - per_second * JITTER_SECONDS, 3.0 * per_call), 0.0)


def reserve(state: State, endpoint: str, profiles: int, *, per_second: float, burst: float) -> float:
    """Book `profiles` and return how many seconds to wait before they may leave (negative: they could have left).

    The first booking on a new state, after a reboot or on another host starts from an empty bucket: a full one would
    let each restart send a burst.

    Args:
        state: Where the bucket is shared.
        endpoint: Which bucket.
        profiles: Operations of the request.
        per_second: The bucket's rate.
        burst: From `burst`.
    """
    clock, now = _clock()
    with state.write() as connection:
        row = connection.execute(sa.select(BUCKETS).where(BUCKETS.c.endpoint == endpoint)).mappings().one_or_none()
        if row and row["clock"] == clock:
            paid, hold = float(row["paid_until"]), float(row["hold_until"])
        else:
            paid, hold = now + burst / per_second, 0.0
        # Nothing is saved up beyond the burst, and nothing at all while Batch had us wait: its bucket is empty then.
        paid = max(paid, now, hold + burst / per_second) + profiles / per_second
        _store(connection, endpoint, clock, paid, hold)
    return max(hold, paid - max(burst, profiles) / per_second) - now


def hold(state: State, endpoint: str, seconds: float) -> None:
    """Let nobody send to the endpoint for that long, in any process on this state."""
    clock, now = _clock()
    with state.write() as connection:
        row = connection.execute(sa.select(BUCKETS).where(BUCKETS.c.endpoint == endpoint)).mappings().one_or_none()
        same = row is not None and row["clock"] == clock
        paid = float(row["paid_until"]) if row and same else now
        held = float(row["hold_until"]) if row and same else 0.0
        _store(connection, endpoint, clock, paid, max(held, now + seconds))


def held(state: State, endpoint: str) -> float:
    """Seconds until anybody may send to the endpoint again; 0 where nobody is held."""
    clock, now = _clock()
    with state.read() as connection:
        row = connection.execute(sa.select(BUCKETS).where(BUCKETS.c.endpoint == endpoint)).mappings().one_or_none()
    return max(0.0, float(row["hold_until"]) - now) if row and row["clock"] == clock else 0.0


def _store(connection: sa.Connection, endpoint: str, clock: str, paid: float, hold_until: float) -> None:
    values = {"clock": clock, "paid_until": paid, "hold_until": hold_until}
    if not connection.execute(sa.update(BUCKETS).where(BUCKETS.c.endpoint == endpoint).values(values)).rowcount:
        connection.execute(sa.insert(BUCKETS), {"endpoint": endpoint, **values})


def _clock() -> tuple[str, float]:
    """A clock that nobody can set, shared by this host's processes, and its name: it means nothing after a reboot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text().strip() if boot.exists() else platform.node()
    return name, time.monotonic()
