"""One project: what it holds, its buckets, its faults, and what it makes of a call."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import RLock
from typing import Any, get_args

from connector.simulator.alterations import altered
from connector.simulator.answers import ACCEPTED, Answer, failure, faulty, success, too_many
from connector.simulator.calls import Call, parse
from connector.simulator.content import Content, Fetch
from connector.simulator.export_calls import Ask, ExportDesk
from connector.simulator.exports import Now
from connector.simulator.faults import Fault, FaultQueue
from connector.simulator.limits import Endpoint, ExportEndpoint, Settings, TokenBucket
from connector.simulator.refusals import refuse_part
from connector.simulator.rules import Judged, MalformedError, judge
from connector.simulator.store import Store
from connector.simulator.tally import Log, Request
from connector.simulator.values import Refusal

Clock = Callable[[], float]


class Project:
    """The state behind one project key. Safe to use from several threads."""

    def __init__(self, store: Store, settings: Settings, clock: Clock, wall: Clock, *, record: bool) -> None:
        self._lock = RLock()
        self._store = store
        self._clock = clock
        self._wall = wall
        self._sequence = count()
        self._late: list[tuple[float, int, list[Judged]]] = []
        self._open: dict[int, frozenset[str]] = {}
        self.faults = FaultQueue()
        self._log = Log(record=record)
        self._desk = ExportDesk(store, self.faults, self._log)
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Enforce other limits from now on, with full buckets."""
        with self._lock:
            self.settings = settings
            rates = {endpoint: settings.rate(endpoint) for endpoint in get_args(Endpoint)}
            now = self._clock()
            self._buckets = {name: TokenBucket(rate, now) for name, rate in rates.items() if rate}
            self._desk.configure(settings, now)

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
                self._log.count(endpoint, answer.status, self._clock(), call)
            yield answer
        finally:
            with self._lock:
                del self._open[number]

    def count(self, endpoint: str, status: int) -> None:
        """Count a call that was refused unread, and log it if this simulator records."""
        with self._lock:
            self._log.count(endpoint, status, self._clock())

    def ask(self, endpoint: ExportEndpoint, ask: Ask) -> Answer:
        """The answer to an authenticated call about exports, after its effect."""
        with self._lock:
            self._apply_late()
            return self._desk.ask(endpoint, ask, self._now())

    def fetch(self, asked: Fetch) -> Content | Answer:
        """What the host of files gives for a link."""
        with self._lock:
            return self._desk.fetch(asked, self._now())

    def gave(self, token: str) -> bool:
        """Whether a link to a file of this project has this token."""
        with self._lock:
            return self._desk.knows(token)

    def count_sent(self, size: int) -> None:
        """Count bytes of a file as sent."""
        with self._lock:
            self._log.tally.file_bytes += size

    def exports(self) -> list[dict[str, Any]]:
        """Every export, the oldest first, as `exports/view` shows it; addresses lack their host."""
        with self._lock:
            return self._desk.all(self._now())

    def alter(self, custom_id: str, attributes: dict[str, Any]) -> None:
        """Change a profile as if somebody else did: no call is counted, no limit of calls applies.

        Raises:
            UsageError: A rule refuses the custom id or an attribute; nothing is changed.
        """
        with self._lock:
            self._apply_late()
            self._write([altered(custom_id, attributes, self.settings)])

    def forget(self, custom_id: str) -> bool:
        """Whether there was such a profile, which is deleted as if for inactivity."""
        with self._lock:
            self._apply_late()
            return self._store.forget(custom_id)

    def close(self) -> None:
        """Remove the files of exports."""
        with self._lock:
            self._desk.clear()

    @property
    def requests(self) -> list[Request]:
        """Every call that was recorded."""
        return self._log.requests

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
            return self._log.stats() | {"faults": len(self.faults)}

    def inject(self, *faults: dict[str, Any]) -> None:
        """Queue faults for the next calls (see `Fault`).

        Raises:
            UsageError: A fault has an unknown field or a bad value; none is queued.
        """
        with self._lock:
            self.faults.add(faults)

    def clear_faults(self) -> None:
        """Drop the faults that no call has met yet, and let go of exports that are stuck."""
        with self._lock:
            self.faults.clear()
            self._desk.release()

    def reset(self) -> None:
        """Forget profiles, events, exports, faults, counts and late writes; full buckets."""
        with self._lock:
            self._store.clear()
            self.faults.clear()
            self._late.clear()
            self._log.clear()
            self._desk.clear()
            self.configure(self.settings)

    def _now(self) -> Now:
        return Now(self._clock(), self._wall())

    def _arrive(self, ids: frozenset[str]) -> int:
        with self._lock:
            self._log.tally.overlapping += any(not ids.isdisjoint(others) for others in self._open.values())
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
                self._log.tally.throttled += 1
                return too_many(wait, told=self.settings.retry_after)
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

    def _settle(self, judged: list[Judged], call: Call) -> list[dict[str, object]]:
        errors = [_error(index, refusal) for index, operation in enumerate(judged) for refusal in operation.refusals]
        self._log.tally.accepted += len(judged)
        self._log.tally.partial_errors += len(errors)
        self._log.tally.duplicates += len(call.custom_ids) - len(call.ids)
        events = sum(len(operation.events) for operation in judged)
        self._log.tally.events += events
        self._log.tally.events_refused += call.events - events
        for operation in judged:
            self._log.tally.warnings.update(operation.warnings)
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
        self._log.tally.event_overtakes += self._store.apply(judged, self._wall())


def _error(index: int, refusal: Refusal) -> dict[str, object]:
    error: dict[str, object] = {
        "category": refusal.category,
        "bulk_index": index,
        "reason": refusal.reason,
    }
    return error if refusal.attribute is None else error | {"attribute": refusal.attribute}
