"""The Profile API's limits with their sources, switches for what nobody documents, and the token bucket."""

from dataclasses import dataclass
from typing import Literal

Endpoint = Literal["update", "mass-update"]
ExportEndpoint = Literal["export", "view", "list", "download"]

VERSION = "2.11"
"""The version in addresses that the simulator makes itself; it takes any 2.x."""

UPDATE_OPERATIONS = 200
"""Operations in one call of `profiles/update`. Source: Batch's page of that endpoint."""

MASS_UPDATE_OPERATIONS = 10_000
"""Operations in one call of `profiles/mass-update`. Source: Batch's page of that endpoint."""

ATTRIBUTES = 50
"""Attributes in one operation. Source: Batch's web SDK and its Segment destination."""

ARRAY_ATTRIBUTES = 15
"""Array attributes before a warning. Source: Batch's web SDK; unconfirmed for the REST API."""

CUSTOM_ID_LENGTH = 512
"""UTF-16 units of a custom id. Unconfirmed: Batch's mobile SDKs take 1,024."""

STRING_LENGTH = 300
"""UTF-16 units of a text, also inside an array. Source: the page of `profiles/update`."""

URL_LENGTH = 2048
"""UTF-16 units of a URL. Source: the page of `profiles/update` and Batch's SDKs."""

ARRAY_ITEMS = 25
"""Items of an array, or of one side of `$add`/`$remove`. Source: Batch's SDKs."""

EMAIL_LENGTH = 256
"""UTF-16 units of `$email_address`. Source: Batch's mobile SDKs; the web SDK takes 128."""

INTEGER_RANGE = range(-(2**63), 2**63)
"""Signed 64 bits. Source: Batch's mobile SDKs."""

EVENTS = 15
"""Events in one operation. Source: the page of `profiles/update` as third parties read it."""

EVENT_BYTES = 25_000
"""Bytes of one event as compact UTF-8 JSON. Source: the page of `profiles/update` as a third party read it (25 kB)."""

EVENT_AGE = 86_400.0
"""Seconds that an event may lie back. Source: the page of `profiles/update` as a third party read it; word for word on
that of the older trigger events."""

EVENT_ATTRIBUTES = 20
"""Attributes of an event, and of each object in it. Source: Batch's SDKs; unconfirmed for the REST API."""

EVENT_DEPTH = 3
"""Levels of objects and arrays below an event's attributes; objects of an array are on its. Source: Batch's SDKs."""

LABEL_LENGTH = 200
"""UTF-16 units of an event's `$label`. Source: Batch's SDKs, and the page of the older trigger events."""

TAGS = 10
"""Items of an event's `$tags`. Source: Batch's SDKs, and the page of the older trigger events."""

TAG_LENGTH = 64
"""UTF-16 units of one of the `$tags`. Source: Batch's SDKs, and the page of the older trigger events."""

LOOKBACK = 90 * 86_400.0
"""Seconds that an export of events may look back, and that an export is kept. Source: the page of `profiles/export`,
and that of `exports/list`, which says 3 months and 4 months."""

REACHABILITY_SINCE = 1_728_518_400.0
"""2024-10-10 in seconds since 1970: no change of reachability is older. Source: the page of `profiles/export`."""

LIST_PAGE = 10
"""Exports in a page of `exports/list` by default. Source: that page."""

LIST_PAGE_MOST = 100
"""Exports that a page of `exports/list` may hold. Source: that page."""

PART_BYTES = 100_000_000
"""Bytes of one file of an export, before compression. Source: the page of `exports/view`."""

LINK_SECONDS = 1200.0
"""Seconds that the link to a file is good for. Source: the page of `exports/download`."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's shape: operations per second, and how many at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a simulator enforces; the defaults are the documented limits.

    Attributes:
        update_rate: Operations on `update`; None switches the limit off.
        mass_update_rate: Operations on `mass-update`; None switches the limit off.
        retry_after: Whether a throttled call is told how long to wait (Batch documents no such header).
        body_bytes: Largest body before a 413; None for no limit (Batch documents none).
        bad_identifier: Whether a bad identifier refuses the whole call or only its operation.
        too_many_attributes: Whether more than 50 attributes refuse their operation or the whole call.
        too_many_events: Whether more than 15 events refuse their operation or the whole call.
        event_age: Seconds by the wall clock that an event's time may lie back; an older event is refused alone.
        event_ahead: Seconds that it may lie in the future (Batch documents: never).
        empty_call: Whether an empty array is refused.
        other_rate: Calls on the four endpoints of exports together; None switches the limit off.
        export_seconds: From an export's creation to its end, in thirds: created, pending, running.
        part_lines: Lines of one file of an export.
        part_bytes: Bytes of one, before compression.
        export_gzip: Whether the files are compressed (Batch does not say).
        export_style: Whether dates and URLs come back under their bare names, or as `date(…)` and `url(…)`.
        export_dates: Whether dates come back as RFC 3339 in UTC or as milliseconds since 1970.
        export_blanks: Whether a profile with none of the wanted attributes has a line (Batch does not say).
        link_seconds: How long the link to a file is good for.
    """

    update_operations: int = UPDATE_OPERATIONS
    mass_update_operations: int = MASS_UPDATE_OPERATIONS
    update_rate: Rate | None = Rate(300, 1000)
    mass_update_rate: Rate | None = Rate(10_000, 10_000)
    retry_after: bool = False
    body_bytes: int | None = None
    custom_id_length: int = CUSTOM_ID_LENGTH
    bad_identifier: Literal["call", "operation"] = "call"
    too_many_attributes: Literal["call", "operation"] = "operation"
    too_many_events: Literal["call", "operation"] = "operation"
    event_age: float = EVENT_AGE
    event_ahead: float = 0.0
    empty_call: Literal["refuse", "accept"] = "refuse"
    other_rate: Rate | None = Rate(1, 2)
    export_seconds: float = 0.3
    part_lines: int = 1_000_000
    part_bytes: int = PART_BYTES
    export_gzip: bool = False
    export_style: Literal["bare", "wrapped"] = "bare"
    export_dates: Literal["rfc3339", "epoch_ms"] = "rfc3339"
    export_blanks: bool = True
    link_seconds: float = LINK_SECONDS

    def operations(self, endpoint: Endpoint) -> int:
        """The most operations that one call may hold."""
        return self.update_operations if endpoint == "update" else self.mass_update_operations

    def rate(self, endpoint: Endpoint) -> Rate | None:
        """The endpoint's rate, or None where it is switched off."""
        return self.update_rate if endpoint == "update" else self.mass_update_rate


class TokenBucket:
    """Full at first, refilled steadily; a call takes all its tokens or none."""

    # Sums of floats stray by far less; an operation is 1.
    _ROUNDING = 1e-6

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._seen = now

    def take(self, tokens: int, now: float) -> float:
        """0 if the tokens were there and are taken, else the seconds until they would be."""
        elapsed = max(0.0, now - self._seen)
        self._seen = now
        self._tokens = min(self._rate.burst, self._tokens + elapsed * self._rate.per_second)
        missing = tokens - self._tokens
        if missing > self._ROUNDING:
            return missing / self._rate.per_second
        self._tokens = max(0.0, -missing)
        return 0.0
