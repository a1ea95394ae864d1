"""Sending events: what is in doubt is not repeated, waves wait for each other, one run of a project sends at a time."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from connector.api._http import Access, UpdateLimit
from connector.delivery import DRAIN_SECONDS, Parcel, Terms, Traffic, deliver
from connector.errors import ApiError, CancelledRunError, StateError
from connector.patience import UNKNOWN_MAX, UNVERIFIED_MAX
from connector.payload import OPERATION, Chunk
from connector.state import rate, runs
from connector.state.database import LEASES, State, open_state
from connector.state.files import write_frames
from connector.state.lease import Lease, hold
from connector.task import silent
from connector.turn import TURN, turn
from tests.simulation.machine import Clock, machine

PROJECT = "project"
OK = (202, {"code": "SUCCESS"})
NO_LIMIT = UpdateLimit(per_second=1e6, burst=1_000_000)

Answer = tuple[int, Any]


class Api(httpx.AsyncBaseTransport):
    """A server in this process: `answers` gives the status and body for a call's custom IDs; it notes every call.

    Attributes:
        calls: Custom IDs of each call, in the order of arrival.
        bodies: How often each body came.
        overlaps: Of each call, the custom IDs of the calls that were not answered yet.
    """

    def __init__(
        self, answers: Callable[[list[str]], Answer] = lambda _: OK, *, seconds: float = 0.0, retry_after: int = 0
    ) -> None:
        self.answers = answers
        self.seconds = seconds
        self.retry_after = retry_after
        self.calls: list[list[str]] = []
        self.bodies: Counter[bytes] = Counter()
        self.overlaps: list[set[str]] = []
        self._open: list[list[str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        ids = [operation["identifiers"]["custom_id"] for operation in json.loads(body)]
        self.bodies[body] += 1
        self.calls.append(ids)
        self.overlaps.append({id_ for others in self._open for id_ in others})
        self._open.append(ids)
        await asyncio.sleep(self.seconds)
        self._open.remove(ids)
        status, answer = self.answers(ids)
        if status == 0:
            raise httpx.ReadError("reset")
        headers = {"retry-after": str(self.retry_after)} if status == 429 else {}
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(json.dumps(answer).encode()))


class Run:
    """A run of an event sync, opened with an outbox of operations, one a custom ID."""

    def __init__(self, state: State, lease: Lease, chunks: list[Chunk]) -> None:
        self.state = state
        self.lease = lease
        self.chunks = chunks
        self.traffic = Traffic()
        ids = [f"c{place}" for place in range(sum(chunk.rows for chunk in chunks))]
        texts = [f'{{"identifiers":{{"custom_id":"{id_}"}},"events":[]}}' for id_ in ids]
        write_frames(runs.outbox(state, lease.run), pl.DataFrame({OPERATION: texts}).iter_slices(3))
        opened = runs.Opened(lease.run, "k", {}, "", {"kind": "events", "started": 0.0}, 0.0)
        with state.write() as connection:
            runs.open_run(connection, lease, opened, chunks)

    def send(
        self,
        api: httpx.AsyncBaseTransport,
        *,
        in_flight: int = 1,
        repeats: bool = False,
        timeout: float = 5.0,
        limit: UpdateLimit = NO_LIMIT,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Traffic:
        """Deliver all of it."""
        parcel = Parcel(self.state, self.lease, self.lease, runs.outbox(self.state, self.lease.run), self.chunks)
        terms = Terms(
            access=Access("http://api.test/2.11", SecretStr("project_key"), SecretStr("rest_key")),
            endpoint="update",
            limit=limit,
            in_flight=in_flight,
            timeout=timeout,
            give_up_after=20.0,
            repeats=repeats,
            transport=api,
        )
        deliver(parcel, terms, self.traffic, progress)
        return self.traffic

    @property
    def rows(self) -> list[runs.ChunkRow]:
        return runs.chunk_rows(self.state, self.lease.run)

    @property
    def states(self) -> str:
        """The first letter of each chunk's state: done, planned, sent, unknown."""
        return "".join(row.state[0] for row in self.rows)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with open_state(tmp_path / "state", PROJECT) as opened:
        yield opened


@pytest.fixture
def lease(state: State) -> Iterator[Lease]:
    with hold(state, "orders", "orders-1") as held:
        yield held


def chunks(*rows: int, waves: tuple[int, ...] = (), closes: dict[int, float] | None = None) -> list[Chunk]:
    """Chunks of that many operations each."""
    found, first = [], 0
    for number, size in enumerate(rows):
        found.append(Chunk(first, size, 0, waves[number] if waves else 0, (closes or {}).get(number)))
        first += size
    return found


IN_DOUBT: list[Answer] = [(500, {}), (0, None), (502, {}), (202, {"code": "HELLO"}), (202, [])]


@pytest.mark.parametrize("answer", IN_DOUBT)
def test_body_of_unknown_outcome_is_not_sent_twice(state: State, lease: Lease, answer: Answer) -> None:
    """A server error, a reset, words that cannot be trusted: the chunk is left in doubt, the others go."""
    run, api = Run(state, lease, chunks(2, 2, 2)), Api(lambda ids: answer if "c2" in ids else OK)
    traffic = run.send(api)
    assert (run.states, traffic.requests, traffic.retries) == ("dud", 3, 0)
    assert set(api.bodies.values()) == {1}
    assert traffic.settled == 4


def test_body_of_unknown_outcome_goes_again_where_that_is_asked(state: State, lease: Lease) -> None:
    """With `resend` the very same bytes go at once; acknowledged, nothing is in doubt."""
    answers: Iterator[Answer] = iter([(500, {}), OK])
    run, api = Run(state, lease, chunks(2)), Api(lambda _: next(answers))
    run.send(api, repeats=True)
    assert run.states == "d"
    assert list(api.bodies.values()) == [2]


def test_what_was_certainly_not_applied_is_tried_again(state: State, lease: Lease) -> None:
    """A server that gave up waiting is no doubt: the same body goes until it is taken."""
    answers: Iterator[Answer] = iter([(408, {}), OK])
    run, api = Run(state, lease, chunks(1)), Api(lambda _: next(answers))
    traffic = run.send(api)
    assert (run.states, traffic.retries, traffic.settled) == ("d", 1, 1)
    assert list(api.bodies.values()) == [2]


def test_refused_for_speed_and_then_in_doubt_is_in_doubt(state: State, lease: Lease) -> None:
    """The last answer decides: after a 429 the copy that met a 500 may have been applied, and is the only one."""
    answers: Iterator[Answer] = iter([(429, {}), (500, {})])
    run, api = Run(state, lease, chunks(1)), Api(lambda _: next(answers))
    run.send(api)
    assert (run.states, len(api.calls)) == ("u", 2)


@pytest.mark.parametrize(("answer", "most"), [((500, {}), UNKNOWN_MAX), ((202, {"code": "?"}), UNVERIFIED_MAX)])
def test_outage_leaves_few_chunks_in_doubt(state: State, lease: Lease, answer: Answer, most: int) -> None:
    """After so many in a row nothing more is sent: the rest is certainly not applied."""
    run, api = Run(state, lease, chunks(*[1] * 10)), Api(lambda _: answer)
    traffic = run.send(api)
    assert run.states == "u" * most + "p" * (10 - most)
    assert traffic.requests == most
    assert "in a row" in traffic.reasons[0].text


def test_doubts_between_answers_do_not_end_the_run(state: State, lease: Lease) -> None:
    """It is doubts in a row that tell of an outage: an acknowledged call between them starts the count anew."""
    run = Run(state, lease, chunks(*[1] * 9))
    run.send(Api(lambda ids: OK if ids[0] in ("c2", "c5", "c8") else (500, {})))
    assert run.states == "uuduuduud"


def test_wave_waits_for_the_one_before(state: State, lease: Lease) -> None:
    """While a call of a wave is unanswered, none of a later one leaves; within a wave they go side by side."""
    run, api = Run(state, lease, chunks(1, 1, 1, 1, 1, waves=(0, 0, 0, 1, 2))), Api(seconds=0.03)
    run.send(api, in_flight=4)
    assert run.states == "ddddd"
    assert [sorted(ids) for ids in api.calls] == [["c0"], ["c1"], ["c2"], ["c3"], ["c4"]]
    assert api.overlaps[2] == {"c0", "c1"}
    assert api.overlaps[3:] == [set(), set()]


@pytest.mark.parametrize("answer", [(500, {}), (202, {"code": "HELLO"})])
def test_wave_in_doubt_is_the_last(state: State, lease: Lease, answer: Answer) -> None:
    """Its other calls still go; those of later waves stay unsent, so that no event overtakes another."""
    run = Run(state, lease, chunks(1, 1, 1, 1, waves=(0, 0, 1, 2)))
    run.send(Api(lambda ids: answer if ids == ["c0"] else OK))
    assert run.states == "udpp"


def test_wave_with_a_refused_operation_is_over_all_the_same(state: State, lease: Lease) -> None:
    """A refusal is an answer: the next wave goes."""
    run = Run(state, lease, chunks(2, 1, waves=(0, 1)))
    run.send(Api(lambda ids: (400, {}) if "c1" in ids else OK))
    assert run.states == "dd"


def test_chunk_whose_events_became_too_old_is_not_sent(state: State, lease: Lease) -> None:
    """It stays unsent, the reason is told, the rest of its wave goes, a later wave does not."""
    old = {1: time.time() - 1}
    run, api = Run(state, lease, chunks(1, 1, 1, 1, waves=(0, 0, 0, 1), closes=old)), Api()
    traffic = run.send(api)
    assert run.states == "dpdp"
    assert api.calls == [["c0"], ["c2"]]
    assert traffic.reasons == [("too_old", "events became too old for Batch while they waited to be sent")]


def test_chunk_that_becomes_too_old_while_it_waits_is_not_sent(state: State, lease: Lease) -> None:
    """What counts is the moment at which it would leave, not the one at which the run began."""
    end = time.time() + 0.5
    run, api = Run(state, lease, chunks(1, 1, closes={0: end, 1: end})), Api(seconds=0.6)
    run.send(api)
    assert run.states == "dp"


def test_chunk_that_becomes_too_old_between_two_attempts_is_not_sent_again(state: State, lease: Lease) -> None:
    """Batch asks to wait for a second, and by then no longer takes the events: they were not applied, and stay unsent."""
    answers: Iterator[Answer] = iter([(429, {}), OK])
    run, api = Run(state, lease, chunks(1, closes={0: time.time() + 0.5})), Api(lambda _: next(answers), retry_after=1)
    run.send(api)
    assert (run.states, len(api.calls)) == ("p", 1)


def refusing(*bad: str) -> Callable[[list[str]], Answer]:
    """A server that takes no call with one of these custom IDs."""
    return lambda ids: (400, {}) if set(ids) & set(bad) else OK


def parts(run: Run) -> list[list[Any]] | None:
    (row,) = run.rows
    return row.parts


def test_refused_call_is_halved_until_the_guilty_operation_is_alone(state: State, lease: Lease) -> None:
    """Each operation is applied once, the guilty one never; where it stands is noted."""
    taken: Counter[str] = Counter()
    refuse = refusing("c2")

    def answer(ids: list[str]) -> Answer:
        taken.update(ids if refuse(ids) is OK else [])
        return refuse(ids)

    run = Run(state, lease, chunks(4))
    run.send(Api(answer))
    assert parts(run) == [[0, 2, "done"], [2, 1, "refused"], [3, 1, "done"]]
    assert taken == Counter({"c0": 1, "c1": 1, "c3": 1})
    assert run.rows[0].refusals == [[2, None, "400: the request is malformed"]]


@pytest.mark.parametrize(("answer", "left"), [((401, {}), "planned"), ((500, {}), "unknown")])
def test_split_chunk_that_is_stopped_keeps_what_was_accepted(
    state: State, lease: Lease, answer: Answer, left: str
) -> None:
    """The first half is done; the part in doubt is in doubt, and what was behind it is unsent."""
    run = Run(state, lease, chunks(8))

    def answers(ids: list[str]) -> Answer:
        if len(ids) > 4 or ids == ["c4", "c5", "c6", "c7"]:
            return 400, {}
        return OK if "c0" in ids else answer

    if answer[0] == 401:
        with pytest.raises(ApiError, match="Batch refuses the request"):
            run.send(Api(answers))
    else:
        run.send(Api(answers))
    assert parts(run) == [[0, 4, "done"], [4, 2, left], [6, 2, "planned"]]
    assert run.states == "u"


def test_refusals_inside_an_acknowledged_half_name_their_operation(state: State, lease: Lease) -> None:
    """The place of a refused operation counts from the chunk's start, whatever half it travelled in."""
    partial = {
        "code": "SUCCESS_WITH_PARTIAL_ERRORS",
        "errors": [{"bulk_index": 1, "attribute": "date(x)", "reason": "no"}],
    }
    run = Run(state, lease, chunks(4))
    run.send(Api(lambda ids: (413, {}) if len(ids) == 4 else (202, partial) if "c3" in ids else OK))
    assert run.rows[0].refusals == [[3, "x", "no"]]
    assert run.states == "d"


# How the rate and the state are shared by calls under way.


def test_rate_is_booked_for_one_call_ahead(state: State, lease: Lease) -> None:
    """Of eight that could leave one books the rate and waits; a run that is stopped leaves at most that to be made up."""
    run, limit = Run(state, lease, chunks(*[100] * 8)), UpdateLimit(per_second=100, burst=200)

    def interrupt(_done: int) -> None:
        raise CancelledRunError("cancelled")

    with pytest.raises(CancelledRunError):
        run.send(Api(), in_flight=8, limit=limit, progress=interrupt)
    assert run.states == "p" * 8
    with state.write() as connection:
        wait = rate.reserve(connection, "update", 1, per_second=100.0, burst=0.0)
    assert wait <= 4


def test_calls_under_way_share_transactions(state: State, lease: Lease) -> None:
    """Forty calls, eight at a time, are noted as sent and as done in fewer transactions than calls."""
    commits = 0

    def note(_connection: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    run = Run(state, lease, chunks(*[2] * 40))
    sa.event.listen(state.engine, "commit", note)
    run.send(Api(), in_flight=8)
    sa.event.remove(state.engine, "commit", note)
    assert run.states == "d" * 40
    assert commits <= 40


def test_a_transaction_that_fails_once_loses_no_answer(state: State, lease: Lease) -> None:
    """Four answers are noted together; the database refuses that once, and all four are noted the second time."""
    refused = 0

    def refuse(_connection: sa.Connection) -> None:
        nonlocal refused
        if api.calls and not refused:
            refused += 1
            raise sa.exc.OperationalError("commit", {}, Exception("the connection is gone"))

    run, api = Run(state, lease, chunks(2, 2, 2, 2)), Api(seconds=0.2)
    sa.event.listen(state.engine, "commit", refuse)
    try:
        run.send(api, in_flight=4)
    finally:
        sa.event.remove(state.engine, "commit", refuse)
    assert (refused, run.states, len(api.calls)) == (1, "d" * 4, 4)


# How a delivery ends early.


class Interrupted(Api):
    """Calls are under way until the run's own thread was interrupted; then `then` happens, and they are answered."""

    def __init__(
        self, interrupt: BaseException, then: Callable[[], None] = lambda: None, *, seconds: float = 0
    ) -> None:
        super().__init__(seconds=seconds)
        self._interrupt = interrupt
        self._then = then
        self._interrupted = threading.Event()

    def progress(self, _done: int) -> None:
        """Told twice a second while calls are under way."""
        self._interrupted.set()
        raise self._interrupt

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self._interrupted.wait(10)
        self._then()
        return await super().handle_async_request(request)


def take_lease(state: State) -> None:
    """Another host has taken the run for dead."""
    with state.write() as connection:
        connection.execute(sa.update(LEASES).values(fence=LEASES.c.fence + 1))


class Together(Api):
    """Answers so many calls at the same moment, after `then` happened."""

    def __init__(
        self, calls: int, then: Callable[[], None], answers: Callable[[list[str]], Answer] = lambda _: OK
    ) -> None:
        super().__init__(answers)
        self._all = asyncio.Barrier(calls)
        self._then = then

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if await self._all.wait() == 0:
            self._then()
        await self._all.wait()
        return await super().handle_async_request(request)


def test_errors_of_all_senders_are_collected(state: State, lease: Lease, caplog: pytest.LogCaptureFixture) -> None:
    """Four calls find the lease lost at once: one error ends the run, and none is left for Python to complain about."""
    run = Run(state, lease, chunks(1, 1, 1, 1))
    with pytest.raises(StateError, match="lost its lease"):
        run.send(Together(4, lambda: take_lease(state)), in_flight=4)
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []
    assert run.states == "ssss"


def test_fault_of_ours_is_not_hidden_by_a_lost_lease(state: State, lease: Lease) -> None:
    """Of several errors the gravest is told, whichever came first."""
    run = Run(state, lease, chunks(1, 1, 1, 1))

    def answer(ids: list[str]) -> Answer:
        return (1 // 0, {}) if ids == ["c3"] else OK

    with pytest.raises(ZeroDivisionError):
        run.send(Together(4, lambda: take_lease(state), answer), in_flight=4)


def test_lost_lease_is_told_though_the_run_was_cancelled(state: State, lease: Lease) -> None:
    """Who stops a run must not be told that all is well with the state when it is not."""
    run = Run(state, lease, chunks(1))
    api = Interrupted(CancelledRunError("cancelled"), lambda: take_lease(state))
    with pytest.raises(StateError, match="lost its lease"):
        run.send(api, progress=api.progress)


def test_calls_in_flight_are_waited_for_half_a_minute(state: State, lease: Lease) -> None:
    """After a stop the answers are waited for, but not for ever: what has none by then stays in doubt."""
    run, clock = Run(state, lease, chunks(1, 1)), Clock(datetime(2026, 3, 2, tzinfo=UTC))
    told: list[float] = []
    api = Interrupted(KeyboardInterrupt(), lambda: told.append(clock.monotonic()), seconds=1e6)
    with machine(clock, 1), pytest.raises(KeyboardInterrupt):
        run.send(api, timeout=1e9, progress=api.progress)
    assert DRAIN_SECONDS <= clock.monotonic() - told[0] < 1e5
    assert run.states == "sp"


# The right to send.


@contextmanager
def waiting_turn(state: State, sync: str, *, attributes_first: bool = False) -> Iterator[None]:
    """A run of this sync that has its turn."""
    with (
        hold(state, sync, f"{sync}-1") as lease,
        turn(state, lease, attributes_first=attributes_first, progress=silent),
    ):
        yield


def test_one_run_of_a_project_sends_at_a_time(tmp_path: Path, state: State) -> None:
    """Runs of three syncs, in threads with states of their own: never two have the turn, and all get it."""
    inside = threading.Lock()
    seen: list[str] = []
    clashes: list[str] = []

    def run(sync: str) -> None:
        with open_state(tmp_path / "state", PROJECT) as own:
            for _ in range(2):
                with waiting_turn(own, sync):
                    if not inside.acquire(blocking=False):
                        clashes.append(sync)
                        continue
                    seen.append(sync)
                    time.sleep(0.02)
                    inside.release()

    threads = [threading.Thread(target=run, args=(sync,)) for sync in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert Counter(seen) == Counter({"a": 2, "b": 2, "c": 2})


@contextmanager
def ready(state: State, sync: str, kind: str, *, alive: bool = True) -> Iterator[None]:
    """A run of another sync that is opened, so that it has something to send; its process may have died since."""
    with hold(state, sync, f"{sync}-1") as lease:
        opened = runs.Opened(lease.run, "k", {}, "", {"kind": kind, "started": 0.0}, 0.0)
        with state.write() as connection:
            runs.open_run(connection, lease, opened, [])
        if alive:
            yield
            with state.write() as connection:
                runs.close_run(connection, lease, lease.run, {"kind": kind, "started": 0.0})
    if not alive:
        yield


def entered(state: State, *, attributes_first: bool = True) -> threading.Event:
    """Set once an event sync has its turn, which it gives back at once."""
    done = threading.Event()

    def run() -> None:
        with waiting_turn(state, "orders", attributes_first=attributes_first):
            done.set()

    threading.Thread(target=run, daemon=True).start()
    return done


def test_events_wait_for_attributes_that_are_ready(state: State) -> None:
    """G6: while a profile sync has something to send, the events wait, though nobody is sending; then they go."""
    with ready(state, "customers", "profiles"):
        got = entered(state)
        assert not got.wait(0.4)
    assert got.wait(5)


@pytest.mark.parametrize(("kind", "alive"), [("events", True), ("profiles", False)])
def test_events_wait_for_nobody_else(state: State, kind: str, alive: bool) -> None:
    """Neither another event sync that is ready nor a profile sync whose process was killed holds them back."""
    with ready(state, "others", kind, alive=alive):
        assert entered(state).wait(5)


def test_attributes_do_not_wait_for_attributes_that_are_ready(state: State) -> None:
    """Two profile syncs that are ready do not wait for each other for ever."""
    with ready(state, "customers", "profiles"):
        assert entered(state, attributes_first=False).wait(5)


HOLDER = """
import sys, time
from pathlib import Path
from connector.state.database import open_state
from connector.state.lease import hold
from connector.turn import TURN
with open_state(Path(sys.argv[1]), "project") as state, hold(state, TURN, "other-1"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_turn_of_a_killed_process_is_free_at_once(tmp_path: Path, state: State) -> None:
    """A run in another process that has the turn keeps it until it ends, however it ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    got = entered(state)
    assert not got.wait(0.3)
    process.kill()
    process.communicate()
    assert got.wait(2)


def test_waiting_run_says_so_and_an_interrupt_ends_the_wait(state: State, lease: Lease) -> None:
    """Who waits hears of it, and what stops them lets go of everything."""
    told: list[str] = []

    def progress(phase: str, _done: int, _total: int | None) -> None:
        told.append(phase)
        if len(told) == 3:
            raise KeyboardInterrupt

    with (
        hold(state, TURN, "other-1"),
        pytest.raises(KeyboardInterrupt),
        turn(state, lease, attributes_first=True, progress=progress),
    ):
        pass
    assert told == ["wait"] * 3
    with turn(state, lease, attributes_first=True, progress=silent):
        pass


def test_turn_ends_with_what_was_done_in_it(state: State, lease: Lease) -> None:
    """An error while sending gives the turn back."""
    with pytest.raises(ApiError), turn(state, lease, attributes_first=True, progress=silent):
        raise ApiError("no", remedy="none")
    assert entered_by_another(state)


def entered_by_another(state: State) -> bool:
    with waiting_turn(state, "another"):
        return True
