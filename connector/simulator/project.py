"""One project: its profiles, its buckets, its faults, and what it makes of a call."""

import heapq
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock
from typing import Any, NamedTuple, NoReturn, get_args

from connector.simulator.answers import ACCEPTED, TOO_MANY_REQUESTS, Answer, failure, faulty, success
from connector.simulator.faults import Fault, FaultQueue
from connector.simulator.limits import Endpoint, Settings, TokenBucket
from connector.simulator.profiles import Profiles
from connector.simulator.rules import Judged, MalformedError, Refusal, bare_name, judge


class Request(NamedTuple):
    """One logged call; `at` is the simulator's clock, in seconds."""

    endpoint: str
    status: int
    operations: int
    custom_ids: list[str]
    at: float


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
        by_status: Calls by the status that was answered.
        warnings: Rules bent, by the rule's id.
    """

    requests: int = 0
    operations: int = 0
    accepted: int = 0
    partial_errors: int = 0
    throttled: int = 0
    duplicates: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)


class Call(NamedTuple):
    """A parsed body: its operations, or why it has none; and the custom ids that could be found."""

    operations: list[Any]
    problem: str
    custom_ids: list[str]


Clock = Callable[[], float]


class Project:
    """The state behind one project key. Safe to use from several threads."""

    def __init__(self, profiles: Profiles, settings: Settings, clock: Clock, *, record: bool) -> None:
        self._lock = RLock()
        self._profiles = profiles
        self._clock = clock
        self._record = record
        self._sequence = count()
        self._late: list[tuple[float, int, list[Judged]]] = []
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
        with self._lock:
            self._apply_late()
            call = _parse(body)
            fault = self.faults.take(set(call.custom_ids))
            answer = self._answer(endpoint, call, fault)
            self.count(endpoint, answer.status, call)
            return answer

    def count(self, endpoint: str, status: int, call: Call | None = None) -> None:
        """Count a call, and log it if this simulator records."""
        call = call or Call([], "", [])
        with self._lock:
            self._tally.requests += 1
            self._tally.operations += len(call.operations)
            self._tally.by_status[status] += 1
            if self._record:
                self.requests.append(Request(endpoint, status, len(call.operations), call.custom_ids, self._clock()))

    def profiles(self, after: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Profiles behind `after` in the order of their custom ids, at most `limit`."""
        with self._lock:
            self._apply_late()
            return self._profiles.page(after, limit)

    def profile(self, custom_id: str) -> dict[str, Any] | None:
        """One profile, or None."""
        with self._lock:
            self._apply_late()
            return self._profiles.get(custom_id)

    def stats(self) -> dict[str, Any]:
        """The tally, with the faults still waiting."""
        with self._lock:
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
        """Forget profiles, faults, counts and late writes; full buckets."""
        with self._lock:
            self._profiles.clear()
            self.faults.clear()
            self.requests.clear()
            self._late.clear()
            self._tally = Tally()
            self.configure(self.settings)

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
            judged = [self._judge(index, operation) for index, operation in enumerate(call.operations)]
        except MalformedError as error:
            return failure(400, str(error))
        if fault and fault.partial:
            judged = [_refuse_parts(operation, fault) for operation in judged]
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

    def _judge(self, index: int, operation: object) -> Judged:
        try:
            return judge(operation, self.settings)
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
        self._tally.duplicates += len(call.custom_ids) - len(set(call.custom_ids))
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
        self._profiles.apply((one.custom_id, one.changes) for one in judged if one.custom_id is not None)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse(body: bytes) -> Call:
    try:
        parsed = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\ud" in body.lower():
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        return Call([], "the body is not UTF-8, or holds half of a surrogate pair", [])
    except (ValueError, RecursionError):
        return Call([], "the body is not JSON", [])
    if not isinstance(parsed, list):
        return Call([], "the body is not an array of operations", [])
    return Call(parsed, "", [found for found in map(_custom_id, parsed) if found is not None])


def _custom_id(operation: object) -> str | None:
    identifiers = operation.get("identifiers") if isinstance(operation, dict) else None
    custom_id = identifiers.get("custom_id") if isinstance(identifiers, dict) else None
    return custom_id if isinstance(custom_id, str) else None


def _refuse_parts(operation: Judged, fault: Fault) -> Judged:
    for item in fault.partial:
        if item["custom_id"] != operation.custom_id:
            continue
        attribute = item.get("attribute")
        refusal = Refusal(item.get("category", "attribute"), item.get("reason", "injected fault"), attribute)
        if attribute is None:
            return Judged(None, {}, [refusal], [])
        name = bare_name(attribute)
        if name in operation.changes:
            del operation.changes[name]
            operation.refusals.append(refusal)
    return operation


def _error(index: int, refusal: Refusal) -> dict[str, object]:
    error: dict[str, object] = {
        "category": refusal.category,
        "bulk_index": index,
        "reason": refusal.reason,
    }
    return error if refusal.attribute is None else error | {"attribute": refusal.attribute}
