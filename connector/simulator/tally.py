"""What is counted of the calls to one project, and what its log holds of each."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from connector.simulator.calls import Call


class Request(NamedTuple):
    """One logged call; `at` is the simulator's clock, in seconds, `event_ids` has "" for an event without one."""

    endpoint: str
    status: int
    operations: int
    custom_ids: list[str]
    at: float
    events: int
    event_ids: list[str]


@dataclass(slots=True)
class Tally:
    """Counts since the start or the last reset.

    Attributes:
        requests: Calls with a known project, the refused ones too; those for files apart.
        operations: Operations in them.
        accepted: Operations of calls that were applied, or will be.
        partial_errors: Items of `errors` answered in a 202.
        throttled: 429s by the rate limit, injected ones apart.
        duplicates: Custom ids that a call held again.
        overlapping: Calls that came while another one with a custom id of theirs was not answered yet.
        events: Events that were applied, or will be.
        events_refused: Events that calls answered with 202 held besides.
        event_overtakes: Events applied after a later one of their profile; those sent without a time apart.
        exports_created: Export requests that exist, whatever their caller was answered.
        downloads: Links to a file that were given.
        file_requests: Requests for a file by its link, the refused ones too.
        file_bytes: Bytes of files sent.
        credentials_leaked: Requests for a file with a header that is meant for the API alone.
        by_status: Calls by the status that was answered.
        warnings: Rules bent, by the rule's id.
    """

    requests: int = 0
    operations: int = 0
    accepted: int = 0
    partial_errors: int = 0
    throttled: int = 0
    duplicates: int = 0
    overlapping: int = 0
    events: int = 0
    events_refused: int = 0
    event_overtakes: int = 0
    exports_created: int = 0
    downloads: int = 0
    file_requests: int = 0
    file_bytes: int = 0
    credentials_leaked: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)


class Log:
    """Counts every call, and keeps each if it is to `record`."""

    def __init__(self, *, record: bool) -> None:
        self._record = record
        self.tally = Tally()
        self.requests: list[Request] = []

    def count(self, endpoint: str, status: int, at: float, call: Call | None = None) -> None:
        """Count a call that was answered at this moment of the simulator's clock."""
        call = call or Call([])
        self.tally.requests += 1
        self.tally.operations += len(call.operations)
        self.tally.by_status[status] += 1
        if self._record:
            ids = call.event_ids()
            self.requests.append(Request(endpoint, status, len(call.operations), call.custom_ids, at, len(ids), ids))

    def stats(self) -> dict[str, Any]:
        """The counts, as JSON has them."""
        counts = {name: getattr(self.tally, name) for name in Tally.__slots__}
        by_status = {str(status): calls for status, calls in self.tally.by_status.items()}
        return counts | {"by_status": by_status, "warnings": dict(self.tally.warnings)}

    def clear(self) -> None:
        """Count from nothing."""
        self.tally = Tally()
        self.requests.clear()
