"""The rate limit, in profiles: one bucket an endpoint, and one pause, for every process on this state."""

import time
from typing import NamedTuple

import sqlalchemy as sa

from connector.state.clocks import steady
from connector.state.database import BUCKETS

JITTER_SECONDS = 0.5
"""How much a request's way to Batch may vary before our spacing and Batch's counting could disagree."""

CUT, CUT_SOON, SOON = 0.9, 0.7, 5.0
"""What is left of the rate after a refusal; after one within so many seconds of the last, as it is far too high."""

GROWTH = 0.005
"""Share of the configured rate by which it grows again, a second."""

SHARE_MIN = 0.02

_NEVER = float("-inf")


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


def reserve(connection: sa.Connection, endpoint: str, profiles: int, *, per_second: float, burst: float) -> float:
    """Book `profiles` and return how many seconds to wait before they may leave (negative: they could have left).

    The first booking on a new state, after a reboot or on another host starts from an empty bucket: a full one would
    let each restart send a burst.

    Args:
        connection: Of a transaction that writes where the bucket is shared.
        endpoint: Which bucket.
        profiles: Operations of the request.
        per_second: The bucket's rate.
        burst: From `burst`.
    """
    name, now = steady(connection)
    bucket = _bucket(connection, endpoint, name, now) or _Bucket(now + burst / per_second, 0.0, 1.0, now, _NEVER)
    share = min(1.0, bucket.share + GROWTH * (now - bucket.seen))
    rate = per_second * share
    # Nothing is saved up beyond the burst, and nothing at all while Batch had us wait: its bucket is empty then.
    paid = max(bucket.paid_until, now, bucket.hold_until + burst / rate) + profiles / rate
    _store(connection, endpoint, name, bucket._replace(paid_until=paid, share=share, seen=now))
    return max(bucket.hold_until, paid - max(burst, profiles) / rate) - now


def hold(connection: sa.Connection, endpoint: str, seconds: float, *, refused: float | None = None) -> None:
    """Let nobody send to the endpoint for that long, in any process on this state.

    Args:
        connection: Of a transaction that writes where the bucket is shared.
        endpoint: Which bucket.
        seconds: From now.
        refused: When the call left, by `time.monotonic`, of which Batch said that it was too much: from now on less is
            sent, and slowly more again. Somebody else may use the project's keys, or the true limit is lower than the
            configured one.
    """
    name, now = steady(connection)
    bucket = _bucket(connection, endpoint, name, now) or _Bucket(now, 0.0, 1.0, now, _NEVER)
    share, cut = bucket.share, bucket.cut
    # By its age, as the bucket's clock may be a server's; those in flight are refused for the same reason.
    if refused is not None and now - (time.monotonic() - refused) > cut:
        share = max(share * (CUT if now - cut > SOON else CUT_SOON), SHARE_MIN)
        cut = now
    until = max(bucket.hold_until, now + seconds)
    _store(connection, endpoint, name, bucket._replace(hold_until=until, share=share, cut=cut))


def held(connection: sa.Connection, endpoint: str) -> float:
    """Seconds until anybody may send to the endpoint again; 0 where nobody is held."""
    name, now = steady(connection)
    bucket = _bucket(connection, endpoint, name, now)
    return max(0.0, bucket.hold_until - now) if bucket else 0.0


class _Bucket(NamedTuple):
    """A row of the table; times by the clock that it names."""

    paid_until: float
    hold_until: float
    share: float
    seen: float
    cut: float


# Built once: both are executed for every call, and to build one costs as much as to execute it.
_SELECT = sa.select(*(BUCKETS.c[name] for name in _Bucket._fields)).where(
    (BUCKETS.c.endpoint == sa.bindparam("of")) & (BUCKETS.c.clock == sa.bindparam("by"))
)
_UPDATE = sa.update(BUCKETS).where(BUCKETS.c.endpoint == sa.bindparam("of"))


def _bucket(connection: sa.Connection, endpoint: str, clock_name: str, now: float) -> _Bucket | None:
    """The endpoint's bucket; None where there is none, or its times are of another clock."""
    row = connection.execute(_SELECT, {"of": endpoint, "by": clock_name}).one_or_none()
    if row is None:
        return None
    found = _Bucket(*row)
    back = max(found.seen - now, 0.0)  # by which a server's clock was set back since; a host's own never is
    times = {name: getattr(found, name) - back for name in ("paid_until", "hold_until", "seen", "cut")}
    return found._replace(**times)


def _store(connection: sa.Connection, endpoint: str, clock_name: str, bucket: _Bucket) -> None:
    values = {"clock": clock_name, **bucket._asdict()}
    if not connection.execute(_UPDATE, {"of": endpoint, **values}).rowcount:
        connection.execute(sa.insert(BUCKETS), {"endpoint": endpoint, **values})
