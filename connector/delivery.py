"""Sends a run's chunks: `sent` before the first byte leaves, `done` once the answer is understood."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import httpx
import polars as pl
import sqlalchemy as sa

from connector._steps import step
from connector.api import profiles
from connector.api._http import Access, Client, EndpointLimit, connect
from connector.api.profiles import Endpoint
from connector.errors import ConnectorError, StateError
from connector.outcome import Outcome, Verdict
from connector.pacing import Pace, StoppedError
from connector.patience import Patience
from connector.payload import OPERATION, Chunk, body
from connector.receipt import Part, Receipt
from connector.report import Reason
from connector.state import runs
from connector.state.database import State
from connector.state.files import read_frames
from connector.state.group import GroupCommit
from connector.state.lease import Lease

TRIES = 8
"""Attempts at one body before the next run takes it over."""

DRAIN_SECONDS = 30.0
"""How long calls in flight are waited for after a stop."""

_BACKOFF_FIRST, _BACKOFF_MAX = 1.0, 60.0
_POLL_SECONDS = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How to deliver.

    Attributes:
        access: Where and with what keys.
        endpoint: The run's one endpoint.
        limit: What it takes.
        in_flight: Calls at a time.
        timeout: Seconds of a whole request.
        give_up_after: Seconds of an outage until the run ends.
        repeats: A request of unknown outcome is sent again at once; not where a copy would count twice.
        transport: Another way than the network: the local API's in-process door.
    """

    access: Access
    endpoint: Endpoint
    limit: EndpointLimit
    in_flight: int
    timeout: float
    give_up_after: float
    repeats: bool = True
    transport: httpx.AsyncBaseTransport | None = None


@dataclass(slots=True)
class Traffic:
    """What went over the wire; grows while chunks are sent."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    bytes: int = 0
    settled: int = 0
    waited: float = 0.0
    reasons: list[Reason] = field(default_factory=list)
    """Why the delivery ended early, if it did."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What to deliver.

    Attributes:
        state: Where chunks are settled and the rate is shared.
        lease: The run's.
        turn: Its right to send.
        outbox: The change set's file.
        chunks: Its chunks, in order.
    """

    state: State
    lease: Lease
    turn: Lease
    outbox: Path
    chunks: Sequence[Chunk]


def deliver(parcel: Parcel, terms: Terms, traffic: Traffic, progress: Callable[[int], None]) -> None:
    """Send the chunks; what comes of each is in the state, `traffic` has the figures.

    An interrupt of the calling thread (Ctrl-C, SIGTERM, a cancel in Dagster) stops taking chunks at once and waits for
    those in flight.

    Args:
        parcel: What to deliver.
        terms: How.
        traffic: Counts as it goes, so that an interrupted run has its figures too.
        progress: Told the settled rows now and then, in the calling thread.

    Raises:
        ApiError: Batch refuses every request.
        StateError: The state cannot be written; the chunk in question stays `sent`.
    """
    stop = threading.Event()
    sender = _Sender(parcel, terms, traffic, stop)
    with ThreadPoolExecutor(1, thread_name_prefix="delivery") as pool:
        # In a thread of its own, so that an interrupt cannot tear the event loop in the middle of a settlement.
        future = pool.submit(lambda: asyncio.run(sender.run(_bodies(parcel))))
        try:
            while wait([future], timeout=0.5).not_done:
                progress(traffic.settled)
        except ConnectorError:
            stop.set()
            future.result()  # what went wrong with the chunks in flight is graver than that the run was told to stop
            raise
        finally:
            stop.set()
        future.result()
        progress(traffic.settled)


def _bodies(parcel: Parcel) -> Iterator[tuple[int, Chunk, pl.Series]]:
    """Each chunk with its operations, read from the outbox one row group at a time."""
    frames = read_frames(parcel.outbox, [OPERATION])
    held = pl.Series(OPERATION, [], dtype=pl.String)
    for number, chunk in enumerate(parcel.chunks):
        while len(held) < chunk.rows:
            held = pl.concat([held, next(frames)[OPERATION]])
        yield number, chunk, held.head(chunk.rows)
        held = held.slice(chunk.rows)


class _UnderWay(NamedTuple):
    """A chunk that is being sent: its number, when Batch stops taking it, what became of it so far."""

    number: int
    closes: float | None
    receipt: Receipt

    @property
    def too_old(self) -> bool:
        """Batch no longer takes its events."""
        return self.closes is not None and self.closes <= time.time()


class _Hold(NamedTuple):
    """Nobody may send for so many seconds; when the refused call left, by `time.monotonic`, if that is why."""

    seconds: float
    refused: float | None


class _Sender:
    """The event loop's side: workers that share the chunks, the way out, and the patience with Batch."""

    def __init__(self, parcel: Parcel, terms: Terms, traffic: Traffic, stop: threading.Event) -> None:
        self._state = parcel.state
        self._lease = parcel.lease
        self._turn = parcel.turn
        self._group = GroupCommit(parcel.state, parcel.lease)
        self._terms = terms
        self._traffic = traffic
        self._stop = stop
        self._patience = Patience(terms.give_up_after, repeats=terms.repeats, reasons=traffic.reasons, stop=stop)
        self._pace = Pace(self._group, terms.endpoint, terms.limit, stop)
        self._unfinished = False

    async def run(self, bodies: Iterator[tuple[int, Chunk, pl.Series]]) -> None:
        """Send wave after wave; one with a chunk that was not answered is the last, so that no event overtakes another.

        What Batch refused was answered: later events of that profile do not wait for it.
        """
        terms = self._terms
        async with connect(
            terms.access, timeout=terms.timeout, connections=terms.in_flight, transport=terms.transport
        ) as client:
            try:
                for _, wave in groupby(bodies, key=lambda item: item[1].wave):
                    await self._wave(client, wave)
                    if self._unfinished or self._stop.is_set():
                        break
            finally:
                self._traffic.waited = self._pace.waited
        if self._patience.error:
            raise self._patience.error

    async def _wave(self, client: Client, bodies: Iterator[tuple[int, Chunk, pl.Series]]) -> None:
        workers = {asyncio.create_task(self._work(client, bodies)) for _ in range(self._terms.in_flight)}
        working = workers
        drained_by = float("inf")
        while working and time.monotonic() < drained_by:
            done, working = await asyncio.wait(working, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if any(worker.exception() for worker in done):
                self._stop.set()  # the others settle what they have in flight
            if self._stop.is_set():
                drained_by = min(drained_by, time.monotonic() + DRAIN_SECONDS)
        for worker in working:
            worker.cancel()  # its chunk stays `sent`: an unknown outcome
        ended = await asyncio.gather(*workers, return_exceptions=True)
        # Polars' panics are no Exception.
        if errors := [e for e in ended if isinstance(e, BaseException) and not isinstance(e, asyncio.CancelledError)]:
            raise self._gravest(errors)

    def _gravest(self, errors: Sequence[BaseException]) -> BaseException:
        """A fault of ours before one of the state, and that before the others, which are told to the log alone."""
        worst = min(errors, key=lambda error: (isinstance(error, ConnectorError), not isinstance(error, StateError)))
        for error in errors:
            if error is not worst:
                logger.warning("sync %s: another call ended with %s", self._lease.sync, type(error).__name__)
        return worst

    async def _work(self, client: Client, bodies: Iterator[tuple[int, Chunk, pl.Series]]) -> None:
        while not self._stop.is_set() and (item := next(bodies, None)):
            number, chunk, operations = item
            under_way = _UnderWay(number, chunk.closes, Receipt([Part(0, chunk.rows)]))
            if await self._chunk(client, under_way, operations) == "done":
                self._traffic.settled += chunk.rows
            else:
                self._unfinished = True

    async def _chunk(self, client: Client, chunk: _UnderWay, operations: pl.Series) -> str:
        """Sends a chunk; halves what Batch will not take until the guilty row is alone. How it stands then."""
        receipt = chunk.receipt
        while receipt.waiting:
            part = receipt.waiting[0]
            content = body(operations.slice(part.first, part.rows))
            outcome = await self._settled(client, chunk, content)
            if outcome.verdict is Verdict.SPLIT and part.rows == 1:
                self._patience.refused_alone(outcome.reason)
            if outcome.verdict not in (Verdict.ACCEPTED, Verdict.SPLIT):
                break
        if self._patience.request_at_fault:
            receipt.forgive()
            await self._note_standing(chunk)
        return receipt.standing.state

    async def _settled(self, client: Client, chunk: _UnderWay, content: bytes) -> Outcome:
        """The same bytes, until there is an outcome to act on; what each attempt came to is on the receipt."""
        outcome, rows = Outcome(Verdict.LATER, ""), chunk.receipt.waiting[0].rows
        try:
            for attempt in range(TRIES):
                if not chunk.too_old:
                    await self._pace.leave(rows, partial(self._mark_sent, chunk))
                if not chunk.receipt.left:  # the next run judges its events one by one
                    self._patience.note(
                        Reason("too_old", "events became too old for Batch while they waited to be sent")
                    )
                    break
                step("chunk.sent")
                self._traffic.requests += 1
                self._traffic.retries += attempt > 0
                self._traffic.bytes += len(content)
                left = time.monotonic()
                outcome = await profiles.send(client, self._terms.endpoint, content, rows)
                chunk.receipt.note(outcome, self._state.now())
                again = self._patience.heard(outcome)
                pause = self._pause(outcome, attempt) if again else 0.0
                held = again and (outcome.throttled or outcome.retry_after is not None)
                # Before any wait: killed in a pause, what Batch did not take must not look as if it may have.
                await self._note_standing(chunk, _Hold(pause, left if outcome.throttled else None) if held else None)
                step("chunk.settled")
                if not again:
                    break
                self._patience.spend(outcome, pause)
                if attempt + 1 < TRIES:
                    await self._pace.sleep(pause)
            else:
                self._patience.note(
                    Reason("unanswered", f"a chunk was tried {TRIES} times, the last: {outcome.reason}")
                )
        except StoppedError:
            logger.debug("chunk %d waits for the next run", chunk.number)
        return outcome

    async def _note_standing(self, chunk: _UnderWay, hold: _Hold | None = None) -> None:
        """How the chunk stands; in the same transaction nobody may leave for a while, in any process on this state."""
        run, standing = self._lease.run, chunk.receipt.standing

        def note(connection: sa.Connection) -> None:
            runs.settle(connection, run, chunk.number, standing)
            if hold:
                self._pace.hold(connection, *hold)

        try:
            await self._group.write(note)
        except StateError:  # answers of other calls were in that transaction, too: none is lost to one failure
            await self._group.write(note)

    def _mark_sent(self, chunk: _UnderWay, connection: sa.Connection) -> None:
        """Note that a request is about to leave, unless Batch would no longer take its events."""
        if chunk.too_old:
            return
        if self._state.is_shared:  # of two hosts one may have lost its turn alone
            self._turn.check(connection)
        chunk.receipt.leave()
        runs.mark_sent(connection, self._lease.run, chunk.number, chunk.receipt.standing)

    def _pause(self, outcome: Outcome, attempt: int) -> float:
        """Seconds until the same bytes go once more: full jitter, or what Batch asks for if that is longer."""
        self._traffic.throttled += outcome.throttled
        logger.info("sync %s: %s; attempt %d", self._lease.sync, outcome.reason, attempt + 1)
        pause = random.uniform(0, min(_BACKOFF_MAX, _BACKOFF_FIRST * 2**attempt))  # noqa: S311 - spreads retries, guards nothing
        return max(outcome.retry_after or 0.0, pause)


__all__ = ["DRAIN_SECONDS", "TRIES", "Parcel", "Terms", "Traffic", "deliver"]
