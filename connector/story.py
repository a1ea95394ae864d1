"""What the runs of every kind of sync have in common: recover, draft, guard, wait for the turn, send, commit."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import httpx
import sqlalchemy as sa
from polars.exceptions import PanicException

from connector import adoption
from connector._model import exceeds
from connector._steps import step
from connector.api import profiles
from connector.api._http import Access
from connector.config import Outbound, Sync
from connector.delivery import Parcel, Terms, Traffic, deliver
from connector.errors import CancelledRunError, ConnectorError, GuardError, StateError, WarehouseError
from connector.payload import Chunk
from connector.report import Reason, Report, killed
from connector.state import exports, runs, snapshots
from connector.state.database import State
from connector.state.files import checksum
from connector.state.lease import Lease
from connector.task import Progress, Task, discard
from connector.turn import turn

logger = logging.getLogger(__name__)


class Drafted(Protocol):
    """What has to be sent, as far as sending needs to know it."""

    @property
    def report(self) -> Report:
        """The counts so far."""

    @property
    def chunks(self) -> list[Chunk]:
        """The requests."""

    @property
    def endpoint(self) -> profiles.Endpoint:
        """The one they go to."""

    @property
    def attributes(self) -> dict[str, str]:
        """Type by name of the attributes in the outbox, as far as a takeover needs them."""

    @property
    def outbox(self) -> Path:
        """The file that holds the operations."""


S = TypeVar("S", bound=Outbound)
Kept = TypeVar("Kept")
D = TypeVar("D", bound=Drafted)


@dataclass(frozen=True, slots=True)
class Story(ABC, Generic[S, Kept, D]):
    """One run of one sync, under its lease. `Kept` is what was delivered before, `D` the draft."""

    task: Task[S]
    state: State
    lease: Lease
    progress: Progress

    @abstractmethod
    def load(self) -> Kept:
        """What was delivered."""

    @abstractmethod
    def take_over(self, run: runs.Opened, kept: Kept) -> Kept:
        """What was delivered, after that of a killed run was committed."""

    @abstractmethod
    def forget(self, connection: sa.Connection) -> Kept:
        """Nothing in place of what was delivered."""

    @abstractmethod
    def sweep(self, kept: Kept) -> None:
        """Remove files that nothing names any more."""

    @abstractmethod
    def draft(self, kept: Kept, report: Report) -> D:
        """Read the source and write the outbox."""

    @abstractmethod
    def stopped(self, kept: Kept, drafted: D) -> GuardError | None:
        """The guard that stops this draft, if one does."""

    @abstractmethod
    def close(
        self, kept: Kept, drafted: D, report: Report, ended: ConnectorError | None, reasons: Sequence[Reason]
    ) -> Report:
        """The run's last report, after what Batch accepted was committed.

        Raises:
            StateError: It could not be; the run stays open, and the next one takes over what it delivered.
            WarehouseError: The same, where the warehouse keeps what was delivered.
        """

    @property
    def repeats(self) -> bool:
        """Whether a request of unknown outcome is sent again at once."""
        return True

    @property
    def attributes_first(self) -> bool:
        """Whether runs of profile syncs that are ready to send go before this one."""
        return False

    def run(self, report: Report, access: Access, transport: httpx.AsyncBaseTransport | None) -> Report:
        """The story, top to bottom; its report says how it ended."""
        step("lease.taken")
        if self.task.options.adopt:
            adoption.begin(self.state, self.lease, report)
        kept, lost = self._recovered()
        if self.task.options.adopt and not lost:
            adoption.waive(self.state, self.lease)
        owed, allowed = self.task.options.adopt and lost, False
        try:
            drafted = self.draft(kept, report)
            if stopped := self.stopped(kept, drafted):
                return self._ended_early(drafted.report.failed(stopped), owed=owed)
            allowed = True
        except ConnectorError as error:
            return self._ended_early(report.failed(error), owed=owed)
        finally:
            if not allowed:  # also where an interrupt ended the reading: no value may stay behind
                discard(self.state, report.run)
        return self._delivered(kept, drafted, self._terms(drafted, access, transport))

    def judged(self, report: Report, why: Sequence[Reason]) -> Report:
        """Green, or incomplete with the reasons why: those given, and what Batch did not take."""
        known, allowed = report.known, self.task.sync.tolerance.rejected
        reasons = list(why)
        if report.unsent:
            again = "ask for --resend again" if self.task.options.resend else "they stay due"
            text = f"rows not sent, or with an unknown outcome: {report.unsent}; {again}"
            reasons.append(Reason("unsent", text))
        if exceeds(report.rejected, allowed, known):
            share = f"tolerance.rejected allows {allowed:.0%} of the {known} rows that it knows"
            see = f"see: connector rejects {report.sync}"
            reasons.append(Reason("rejected", f"rows that Batch refused: {report.rejected}; {share}; {see}"))
        return report.judged(reasons)

    def _recovered(self) -> tuple[Kept, bool]:
        """What was delivered, after killed runs were taken over; and whether it is lost, or an adoption was owed.

        What they had delivered is committed; their chunks in flight have an unknown outcome.
        """
        sync, lost = self.lease.sync, False
        try:
            kept = self.load()
            for run in self._unfinished():
                step("recovery.begun")
                require_same_kind(self.task.sync, run)
                if adoption.was(run):
                    adoption.end(self.state, self.lease, run, whole=self.task.options.whole)
                    lost = True
                    continue
                runs.check_outbox(self.state, run)
                kept = self.take_over(run, kept)
                step("recovery.committed")
        except StateError:
            if not self.task.options.whole:
                raise
            asked = "is taken as delivered" if self.task.options.adopt else "is sent again"
            logger.warning("sync %s: what it had delivered is lost; everything %s, as asked", sync, asked)
            kept, lost = self._started_over(), True
        self.sweep(kept)
        sweep_outbox(self.state, self.lease)
        exports.sweep(self.state)
        step("recovery.swept")
        return kept, lost

    def _unfinished(self) -> list[runs.Opened]:
        """Runs that were killed; an adoption is open itself."""
        return [run for run in runs.unfinished(self.state, self.lease.sync) if run.id != self.lease.run]

    def _started_over(self) -> Kept:
        """Nothing in place of what cannot be believed; killed runs are closed without it."""
        with self.state.write() as connection:
            self.lease.check(connection)
            for run in self._unfinished():
                lost = {"unsent": run.report["planned"] - run.report["held"] - run.report["expired"]}
                ended = killed(lost, f"run {self.lease.run} started over without it")
                runs.close_run(connection, self.lease, run.id, {**run.report, **ended})
            return self.forget(connection)

    def _delivered(self, kept: Kept, drafted: D, terms: Terms) -> Report:
        """Send the outbox and commit what was accepted, whatever ends the sending."""
        start = time.monotonic()
        traffic = Traffic()
        ended: ConnectorError | None = None
        try:
            if drafted.chunks:
                self._open(drafted)
                if self.task.options.adopt:
                    adoption.take(self.state, self.lease)
                else:
                    self._send(drafted, terms, traffic)
        except ConnectorError as error:
            ended = error
        except BaseException as error:  # a cancel, or a fault of ours: what was accepted is kept all the same
            self._closed(kept, drafted, _with_traffic(drafted.report, traffic, start), unforeseen(error))
            raise
        return self._closed(kept, drafted, _with_traffic(drafted.report, traffic, start), ended, traffic.reasons)

    def _closed(
        self,
        kept: Kept,
        drafted: D,
        report: Report,
        ended: ConnectorError | None,
        reasons: Sequence[Reason] = (),
    ) -> Report:
        try:
            report = self.close(kept, drafted, report, ended, reasons)
        except (StateError, WarehouseError) as error:
            logger.warning("run %s: %s", report.run, error.message)
            return report.failed(error if ended is None or isinstance(ended, CancelledRunError) else ended)
        logger.info("run %s: %s, %d of %d accepted", report.run, report.outcome, report.accepted, report.planned)
        return report

    def _open(self, drafted: D) -> None:
        """Make the run durable: what it would send, and that it is about to."""
        opened = runs.Opened(
            id=self.lease.run,
            key_column=self.task.sync.key,
            attributes=drafted.attributes,
            outbox_sha256=checksum(drafted.outbox),
            report=drafted.report.to_dict(),
            began=self.lease.since,
        )
        self.state.put([drafted.outbox])
        with self.state.write() as connection:
            runs.open_run(connection, self.lease, opened, drafted.chunks)
        step("run.opened")

    def _send(self, drafted: D, terms: Terms, traffic: Traffic) -> None:
        rows = sum(chunk.rows for chunk in drafted.chunks)
        with turn(self.state, self.lease, attributes_first=self.attributes_first, progress=self.progress) as held:
            parcel = Parcel(self.state, self.lease, held, drafted.outbox, drafted.chunks)
            deliver(parcel, terms, traffic, lambda done: self.progress("deliver", done, rows))
        step("delivery.ended")

    def _terms(self, drafted: D, access: Access, transport: httpx.AsyncBaseTransport | None) -> Terms:
        settings = self.task.project.settings
        return Terms(
            access=access,
            endpoint=drafted.endpoint,
            limit=profiles.limit(settings.batch.limits, drafted.endpoint),
            in_flight=settings.delivery.in_flight,
            timeout=settings.delivery.timeout.total_seconds(),
            give_up_after=settings.delivery.give_up_after.total_seconds(),
            repeats=self.repeats,
            transport=transport,
        )

    def _ended_early(self, report: Report, *, owed: bool) -> Report:
        """Keep the report of a run that sent nothing; an adoption that is owed stays so."""
        if owed:
            return report
        with self.state.write() as connection:
            self.lease.check(connection)
            runs.close_run(connection, self.lease, self.lease.run, report.to_dict())
        return report


def sweep_outbox(state: State, lease: Lease) -> None:
    """Remove what killed runs of the sync left behind; a plan that is being made now is left alone."""
    folder, name = state.folder / "outbox", f"{lease.sync}-*"
    if state.bucket:
        snapshots.clear(state, lease, [folder / each for each in state.bucket.ages(folder) if fnmatch(each, name)])
    for path in folder.glob(name):
        with suppress(FileNotFoundError):  # a plan that ends just now takes its files with it
            if "-plan-" not in path.name or path.stat().st_mtime < time.time() - snapshots.ORPHAN_SECONDS:
                discard(state, path.stem)


def require_same_kind(sync: Sync, run: runs.Opened) -> None:
    """A killed run is taken over by its own kind.

    Raises:
        StateError: The sync was of another one.
    """
    kind = run.report["kind"]
    if kind != sync.kind:
        raise StateError(
            f"sync '{sync.name}': its killed run {run.id} was of kind '{kind}', the sync is of kind '{sync.kind}'",
            remedy="give the sync another name, or put the kind back and run it once",
        )


def unforeseen(error: BaseException) -> ConnectorError:
    """What to say of a run that no error of ours ended: a cancel, or a fault of ours."""
    if isinstance(error, Exception | PanicException):  # Polars' panics are no Exception
        return ConnectorError("the run ended by an unexpected error", remedy="report it, and run again to go on")
    return CancelledRunError("the run was cancelled", remedy="run it again: it goes on where it stopped")


def _with_traffic(report: Report, traffic: Traffic, start: float) -> Report:
    """The report with what went over the wire; `accepted` is what was acknowledged, until the chunks tell exactly."""
    seconds = time.monotonic() - start
    total = report.seconds.total + seconds
    return replace(
        report,
        accepted=traffic.settled if report.kind == "profiles" else 0,  # an operation holds several events
        requests=traffic.requests,
        retries=traffic.retries,
        throttled=traffic.throttled,
        bytes=traffic.bytes,
        seconds=replace(report.seconds, deliver=seconds, waiting_for_rate=traffic.waited, total=total),
    )
