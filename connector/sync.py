"""The story of a profile sync, top to bottom: recover, draft, guard, send, commit."""

import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx
import polars as pl

from connector._model import exceeds
from connector.api import profiles
from connector.api._http import Access
from connector.commit import Books, Judged, Settled, commit, settled
from connector.config import Project
from connector.delivery import Parcel, Terms, Traffic, deliver
from connector.draft import Draft, Options, Progress, Task, discard, draft, guarded, silent, tolerance_notes
from connector.errors import CancelledRunError, ConnectorError, StateError
from connector.report import Report
from connector.state import runs, snapshots
from connector.state.database import State, open_state
from connector.state.files import checksum
from connector.state.lease import Lease, hold
from connector.state.snapshots import Snapshot

logger = logging.getLogger(__name__)

_EVERYTHING = Options()


def run_sync(
    project: Project,
    name: str,
    options: Options = _EVERYTHING,
    *,
    progress: Progress | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Report:
    """Run a sync; its report says how it ended, also when it failed, was guarded, or found the sync busy.

    An interrupt that is no ConnectorError (KeyboardInterrupt, a cancel in Dagster) is raised again once the chunks in
    flight are settled and committed.

    Args:
        project: The project.
        name: The sync's name.
        options: What the operator asked for.
        progress: Told of each phase's progress now and then.
        transport: Another way to Batch than the network.

    Raises:
        ConfigError: A secret is missing.
        UsageError: There is no such sync.
    """
    task = Task(project, project.sync(name), options)
    access = project.access()
    report = Report(sync=name, run=f"{name}-{uuid.uuid4().hex[:10]}", started=time.time())
    key = access.project_key.get_secret_value()
    try:
        with open_state(project.state_dir, key) as state, hold(state, name, report.run) as lease:
            return _Run(task, state, lease, progress or silent).story(report, access, transport)
    except ConnectorError as error:
        logger.warning("sync %s: %s: %s", name, error.code, error.message)
        return report.failed(error)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one sync, under its lease."""

    task: Task
    state: State
    lease: Lease
    progress: Progress

    def story(self, report: Report, access: Access, transport: httpx.AsyncBaseTransport | None) -> Report:
        snapshot = self._recovered()
        allowed = False
        try:
            drafted = draft(self.task, self.state, snapshot, report, self.progress)
            if stopped := guarded(self.task, drafted):
                return self._ended_early(drafted.report.failed(stopped))
            allowed = True
        except ConnectorError as error:
            return self._ended_early(report.failed(error))
        finally:
            if not allowed:  # also where an interrupt ended the reading: no value may stay behind
                discard(self.state, report.run)
        return self._delivered(snapshot, drafted, self._terms(drafted, access, transport))

    def _recovered(self) -> Snapshot:
        """The snapshot, after killed runs were taken over.

        What they had delivered is committed; their chunks in flight have an unknown outcome, so those keys are due.
        """
        sync = self.lease.sync
        try:
            snapshot = snapshots.load(self.state, sync)
            for run in runs.unfinished(self.state, sync):
                snapshot = self._taken_over(run, snapshot)
        except StateError:
            if not self.task.options.whole:
                raise
            logger.warning("sync %s: what it had delivered is lost; everything is sent again, as asked", sync)
            snapshot = self._started_over()
        self._sweep(snapshot)
        return snapshot

    def _taken_over(self, run: runs.Opened, snapshot: Snapshot) -> Snapshot:
        runs.check_outbox(self.state, run)
        result = settled(self.state, run.id, run.attributes)
        logger.warning("run %s was killed; %d rows had been delivered", run.id, result.accepted)
        books = self._books(snapshot, run.attributes, run.key_column)
        killed = _killed(result, f"run {self.lease.run} took over what it had delivered")
        return commit(books, run.id, {**run.report, **killed})

    def _started_over(self) -> Snapshot:
        """An empty snapshot in place of one that cannot be believed; killed runs are closed without it."""
        with self.state.write() as connection:
            self.lease.check(connection)
            for run in runs.unfinished(self.state, self.lease.sync):
                lost = _killed(Settled(unsent=run.report["planned"]), f"run {self.lease.run} sends everything again")
                runs.close_run(connection, self.lease, run.id, {**run.report, **lost})
            return snapshots.forget(connection, self.state, self.lease.sync)

    def _sweep(self, snapshot: Snapshot) -> None:
        """Remove what killed runs of this sync left behind; a plan that is being made now is left alone."""
        snapshots.sweep(snapshot)
        for path in (self.state.folder / "outbox").glob(f"{self.lease.sync}-*"):
            with suppress(FileNotFoundError):  # a plan that ends just now takes its files with it
                if "-plan-" not in path.name or path.stat().st_mtime < time.time() - snapshots.ORPHAN_SECONDS:
                    discard(self.state, path.stem)

    def _delivered(self, snapshot: Snapshot, drafted: Draft, terms: Terms) -> Report:
        """Send the change set and commit what was accepted, whatever ends the sending."""
        start = time.monotonic()
        traffic = Traffic()
        ended: ConnectorError | None = None
        try:
            if drafted.chunks:
                self._open(drafted)
                self._send(drafted, terms, traffic)
        except ConnectorError as error:
            ended = error
        except BaseException as error:  # a cancel, or a fault of ours: what was accepted is kept all the same
            self._committed(snapshot, drafted, _with_traffic(drafted.report, traffic, start), _unforeseen(error))
            raise
        return self._committed(snapshot, drafted, _with_traffic(drafted.report, traffic, start), ended, traffic.reasons)

    def _committed(
        self,
        snapshot: Snapshot,
        drafted: Draft,
        report: Report,
        ended: ConnectorError | None,
        reasons: Sequence[str] = (),
    ) -> Report:
        """The run's last report, after what Batch accepted was committed."""
        try:
            report = _with_result(report, settled(self.state, self.lease.run, drafted.attributes))
            report = report.failed(ended) if ended else self._judged(report, drafted.change_set.faulty, reasons)
            judged = self._findings(drafted, moves=not ended and not report.unsent)
            books = self._books(snapshot, drafted.attributes, self.task.sync.key)
            commit(books, self.lease.run, report.to_dict(), judged)
        except StateError as error:  # the run stays open, and the next one takes over what it delivered
            return report.failed(ended or error)
        logger.info("run %s: %s, %d of %d accepted", report.run, report.outcome, report.accepted, report.planned)
        return report

    def _open(self, drafted: Draft) -> None:
        """Make the run durable: what it would send, and that it is about to."""
        opened = runs.Opened(
            id=self.lease.run,
            key_column=self.task.sync.key,
            attributes=drafted.attributes,
            outbox_sha256=checksum(drafted.change_set.path),
            report=drafted.report.to_dict(),
        )
        with self.state.write() as connection:
            runs.open_run(connection, self.lease, opened, drafted.chunks)

    def _send(self, drafted: Draft, terms: Terms, traffic: Traffic) -> None:
        parcel = Parcel(self.state, self.lease, drafted.change_set.path, drafted.chunks)
        deliver(parcel, terms, traffic, lambda rows: self.progress("deliver", rows, drafted.report.planned))

    def _terms(self, drafted: Draft, access: Access, transport: httpx.AsyncBaseTransport | None) -> Terms:
        settings = self.task.project.settings
        return Terms(
            access=access,
            endpoint=drafted.endpoint,
            limit=profiles.limit(settings.batch.limits, drafted.endpoint),
            in_flight=settings.delivery.in_flight,
            timeout=settings.delivery.timeout.total_seconds(),
            give_up_after=settings.delivery.give_up_after.total_seconds(),
            transport=transport,
        )

    def _judged(self, report: Report, faulty: int, reasons: Sequence[str]) -> Report:
        """Green, or incomplete with the reasons why."""
        tolerance, known = self.task.sync.tolerance, report.known
        see = f"see: connector rejects {report.sync}"
        why = list(reasons)
        if report.unsent:
            again = "ask for --resend again" if self.task.options.resend else "they stay due"
            why.append(f"rows not sent, or with an unknown outcome: {report.unsent}; {again}")
        if exceeds(report.rejected, tolerance.rejected, known):
            allowed = f"tolerance.rejected allows {tolerance.rejected:.0%}"
            why.append(
                f"rows that Batch refused: {report.rejected}; {allowed} of the {known} rows that it knows; {see}"
            )
        why += tolerance_notes(self.task, report, faulty)
        return replace(report, outcome="incomplete" if why else "green", reasons=tuple(why))

    def _findings(self, drafted: Draft, *, moves: bool) -> Judged:
        """What the read has shown; the cursor moves only past rows that are all settled or noted as due."""
        rejected, reading, cursor = drafted.change_set.rejected, drafted.reading, self.task.sync.cursor
        withheld = rejected.filter(pl.col("attribute").is_not_null()).select("key").unique()
        left_out = drafted.change_set.skipped or drafted.change_set.uncleared
        moved = cursor and moves and not reading.asked and not left_out
        return Judged(
            invalid=rejected,
            withheld=withheld,
            done=drafted.done,
            keys=list(reading.keys) if reading.asked else None,
            full=reading.full,
            cursor={"value": reading.until.isoformat(), "scope": reading.scope} if moved else None,
        )

    def _books(self, snapshot: Snapshot, attributes: dict[str, str], key_column: str) -> Books:
        quiet = self.task.project.settings.delivery.quiet.total_seconds()
        return Books(self.state, self.lease, snapshot, key_column, attributes, quiet)

    def _ended_early(self, report: Report) -> Report:
        """Keep the report of a run that sent nothing."""
        with self.state.write() as connection:
            self.lease.check(connection)
            runs.close_run(connection, self.lease, self.lease.run, report.to_dict())
        return report


def _with_result(report: Report, result: Settled) -> Report:
    unsent = report.planned - result.accepted - result.rejected
    return replace(report, accepted=result.accepted, rejected=result.rejected, unsent=unsent)


def _killed(result: Settled, remedy: str) -> dict[str, object]:
    """What a killed run's report says beside what it had planned."""
    message = "the run was killed"
    return {
        "outcome": "failed",
        "accepted": result.accepted,
        "rejected": result.rejected,
        "unsent": result.unsent,
        "reasons": [message],
        "error": {"code": "killed", "message": message, "remedy": remedy},
    }


def _unforeseen(error: BaseException) -> ConnectorError:
    if isinstance(error, Exception):
        return ConnectorError("the run ended by an unexpected error", remedy="report it, and run again to go on")
    return CancelledRunError("the run was cancelled", remedy="run it again: it goes on where it stopped")


def _with_traffic(report: Report, traffic: Traffic, start: float) -> Report:
    """The report with what went over the wire; `accepted` is what was acknowledged, until the chunks tell exactly."""
    seconds = time.monotonic() - start
    total = report.seconds.total + seconds
    return replace(
        report,
        accepted=traffic.settled,
        requests=traffic.requests,
        retries=traffic.retries,
        throttled=traffic.throttled,
        bytes=traffic.bytes,
        seconds=replace(report.seconds, deliver=seconds, waiting_for_rate=traffic.waited, total=total),
    )


__all__ = ["Options", "Progress", "run_sync"]
