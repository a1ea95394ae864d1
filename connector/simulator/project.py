"""One project: what it holds, its buckets, its faults, and what it makes of a call."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock
from typing import Any, NamedTuple, get_args

from connector.simulator.answers import ACCEPTED, TOO_MANY_REQUESTS, Answer, failure, faulty, success
from connector.simulator.calls import Call, parse
from connector.simulator.faults import Fault, FaultQueue
from connector.simulator.limits import Endpoint, Settings, TokenBucket
from connector.simulator.refusals import refuse_part
from connector.simulator.rules import Judged, MalformedError, judge
from connector.simulator.store import Store
from connector.simulator.values import Refusal


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
        requests: Calls with a known project, the refused ones too.
        operations: Operations in them.
        accepted: Operations of calls that were applied, or will be.
        partial_errors: Items of `errors` answered in a 202.
        throttled: 429s by the rate limit, injected ones apart.
        duplicates: Custom ids that a call held again.
        overlapping: Calls that came while another one with a custom id of theirs was not answered yet.
        events: Events that were applied, or will be.
        events_refused: Events that calls answered with 202 held besides.
        event_overtakes: Events applied after a later one of their profile; those sent without a time apart.
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
    by_status: Counter[int] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)


Clock = Callable[[], float]


class Project:
    """The state behind one project key. Safe to use from several threads."""

    def __init__(self, store: Store, settings: Settings, clock: Clock, wall: Clock, *, record: bool) -> None:
        self._lock = RLock()
        self._store = store
        self._clock = clock
        self._wall = wall
        self._record = record
        self._sequence = count()
        self._late: list[tuple[float, int, list[Judged]]] = []
        self._open: dict[int, frozenset[str]] = {}
        self.faults = FaultQueue()
        self.requests: list[Request] = []
        self._tally = Tally()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Enforce other limits from now on, with full buckets."""
        with self._lock:
            self.settings = settings
            rates = {endpoint: settings.rate(endpoint) for endpoint in get_args(Endpoint)}
            now = self._clock()
            self._buckets = {name: TokenBucket(rate, now) for name, rate in rates.items() if rate}

    def receive(self, endpoint: Endpoint, body: bytes) -> Answer:
        """The answer to an authenticated call, after its effect."""
        with self.exchange(endpoint, body) as answer:
            return answer

    @contextmanager
    def exchange(self, endpoint: Endpoint, body: bytes) -> Iterator[Answer]:
        """The same for who holds the answer back: until the block ends, the call is not answered."""
        call = parse(body)
        number = self._arrive(call.ids)
        try:
            with self._lock:
                self._apply_late()
                answer = self._answer(endpoint, call, self.faults.take(call))
                self.count(endpoint, answer.status, call)
            yield answer
        finally:
            with self._lock:
                del self._open[number]

    def count(self, endpoint: str, status: int, call: Call | None = None) -> None:
        """Count a call, and log it if this simulator records."""
        call = call or Call([])
        with self._lock:
            self._tally.requests += 1
            self._tally.operations += len(call.operations)
            self._tally.by_status[status] += 1
            if self._record:
                event_ids = call.event_ids()
                self.requests.append(
                    Request(
                        endpoint,
                        status,
                        len(call.operations),
                        call.custom_ids,
                        self._clock(),
                        len(event_ids),
                        event_ids,
                    )
                )

    def profiles(self, after: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Profiles behind `after` in the order of their custom ids, at most `limit`."""
        with self._lock:
            self._apply_late()
            return self._store.profiles.page(after, limit)

    def profile(self, custom_id: str) -> dict[str, Any] | None:
        """One profile, or None."""
        with self._lock:
            self._apply_late()
            return self._store.profiles.get(custom_id)

    def events(
        self, custom_id: str | None = None, after: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Events behind the sequence `after` in the order of their application, of everybody or one profile."""
        with self._lock:
            self._apply_late()
            return self._store.events.page(custom_id, after, limit)

    def stats(self) -> dict[str, Any]:
        """The tally, with the faults still waiting."""
        with self._lock:
            self._apply_late()
            counts = {name: getattr(self._tally, name) for name in Tally.__slots__}
            by_status = {str(status): calls for status, calls in self._tally.by_status.items()}
            return counts | {
                "by_status": by_status,
                "warnings": dict(self._tally.warnings),
                "faults": len(self.faults),
            }

    def inject(self, *faults: dict[str, Any]) -> None:
        """Queue faults for the next calls (see `Fault`).

        Raises:
            UsageError: A fault has an unknown field or a bad value; none is queued.
        """
        with self._lock:
            self.faults.add(faults)

    def clear_faults(self) -> None:
        """Drop the faults that no call has met yet."""
        with self._lock:
            self.faults.clear()

    def reset(self) -> None:
        """Forget profiles, events, faults, counts and late writes; full buckets."""
        with self._lock:
            self._store.clear()
            self.faults.clear()
            self.requests.clear()
            self._late.clear()
            self._tally = Tally()
            self.configure(self.settings)

    def _arrive(self, ids: frozenset[str]) -> int:
        with self._lock:
            self._tally.overlapping += any(not ids.isdisjoint(others) for others in self._open.values())
            number = next(self._sequence)
            self._open[number] = ids
            return number

    def _answer(self, endpoint: Endpoint, call: Call, fault: Fault | None) -> Answer:
        if fault is None:
            return self._accept(endpoint, call, None)
        if not fault.applies:
            return faulty(fault, success([]))
        answer = self._accept(endpoint, call, fault)
        return faulty(fault, answer) if answer.status == ACCEPTED else replace(answer, delay=fault.delay)

    def _accept(self, endpoint: Endpoint, call: Call, fault: Fault | None) -> Answer:
        try:
            self._check_shape(endpoint, call)
            wait = self._throttle(endpoint, len(call.operations))
            if wait:
                return self._too_many(wait)
            now = self._wall()
            judged = [self._judge(index, operation, now) for index, operation in enumerate(call.operations)]
        except MalformedError as error:
            return failure(400, str(error))
        for item in fault.partial if fault else ():
            judged = [refuse_part(operation, item) for operation in judged]
        self._apply(judged, fault)
        return success(self._settle(judged, call))

    def _check_shape(self, endpoint: Endpoint, call: Call) -> None:
        if call.problem:
            raise MalformedError(call.problem)
        most = self.settings.operations(endpoint)
        if len(call.operations) > most:
            raise MalformedError(f"the call holds {len(call.operations)} operations, at most {most} are allowed")
        if not call.operations and self.settings.empty_call == "refuse":
            raise MalformedError("the call holds no operation")

    def _judge(self, index: int, operation: object, now: float) -> Judged:
        try:
            return judge(operation, self.settings, now)
        except MalformedError as error:
            raise MalformedError(f"operation {index}: {error}") from None

    def _throttle(self, endpoint: Endpoint, operations: int) -> float:
        bucket = self._buckets.get(endpoint)
        return bucket.take(operations, self._clock()) if bucket else 0.0

    def _too_many(self, wait: float) -> Answer:
        self._tally.throttled += 1
        headers = {"retry-after": str(math.ceil(wait))} if self.settings.retry_after else {}
        return failure(TOO_MANY_REQUESTS, "more operations per second than allowed; nothing was applied", headers)

    def _settle(self, judged: list[Judged], call: Call) -> list[dict[str, object]]:
        errors = [_error(index, refusal) for index, operation in enumerate(judged) for refusal in operation.refusals]
        self._tally.accepted += len(judged)
        self._tally.partial_errors += len(errors)
        self._tally.duplicates += len(call.custom_ids) - len(call.ids)
        events = sum(len(operation.events) for operation in judged)
        self._tally.events += events
        self._tally.events_refused += call.events - events
        for operation in judged:
            self._tally.warnings.update(operation.warnings)
        return errors

    def _apply(self, judged: list[Judged], fault: Fault | None) -> None:
        if fault is None or fault.late is None:
            self._write(judged)
            return
        due = self._clock() + fault.delay + fault.late
        heapq.heappush(self._late, (due, next(self._sequence), judged))

    def _apply_late(self) -> None:
        while self._late and self._late[0][0] <= self._clock():
            self._write(heapq.heappop(self._late)[2])

    def _write(self, judged: list[Judged]) -> None:
        self._tally.event_overtakes += self._store.apply(judged)


def _error(index: int, refusal: Refusal) -> dict[str, object]:
    error: dict[str, object] = {
        "category": refusal.category,
        "bulk_index": index,
        "reason": refusal.reason,
    }
    return error if refusal.attribute is None else error | {"attribute": refusal.attribute}
