"""Runs a sync of any kind; and the story of a profile sync."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import httpx
import polars as pl
import sqlalchemy as sa

from connector import guards, pushdown, relocation
from connector._steps import step
from connector.commit import Books, Judged, commit, settled
from connector.config import EventSync, ExportSync, Outbound, ProfileSync, Project
from connector.draft import Draft, draft
from connector.errors import ConnectorError, GuardError
from connector.events import EventStory
from connector.pull import Pull
from connector.report import AnyReport, ExportReport, Reason, Report, killed
from connector.state import runs, snapshots
from connector.state.database import State, open_state
from connector.state.lease import Lease, hold
from connector.state.snapshots import Snapshot
from connector.story import Story
from connector.task import Options, Progress, Task, check_options, silent, tolerance_notes

logger = logging.getLogger(__name__)

_EVERYTHING = Options()

R = TypeVar("R", Report, ExportReport)


def run_sync(
    project: Project,
    name: str,
    options: Options = _EVERYTHING,
    *,
    progress: Progress | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AnyReport:
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
        UsageError: There is no such sync, or an option that its kind does not have.
    """
    sync = project.sync(name)
    check_options(sync, options)
    access = project.access()
    run, told = f"{name}-{uuid.uuid4().hex[:10]}", progress or silent
    if isinstance(sync, ExportSync):
        pulled = ExportReport(sync=name, run=run, started=time.time())
        pull = Task(project, sync, options)
        return led(project, pulled, lambda state, lease: Pull(pull, state, lease, told).run(pulled, access, transport))
    report = Report(sync=name, kind=sync.kind, run=run, started=time.time(), adopted=options.adopt)

    def story(state: State, lease: Lease) -> Report:
        return _story(project, sync, options, state, lease, told).run(report, access, transport)

    return led(project, report, story)


def led(project: Project, report: R, story: Callable[[State, Lease], R]) -> R:
    """The story's report, told under the sync's lease; an error on purpose ends it and is in its report."""
    key, server = project.access().project_key.get_secret_value(), project.state_server()
    try:
        with open_state(project.state_dir, key, server) as state, hold(state, report.sync, report.run) as lease:
            told = story(state, lease)
        step("lease.freed")
        return told
    except ConnectorError as error:
        logger.warning("sync %s: %s: %s", report.sync, error.code, error.message)
        return report.failed(error)


def _story(
    project: Project, sync: Outbound, options: Options, state: State, lease: Lease, progress: Progress
) -> Story[Any, Any, Any]:
    match sync:
        case EventSync():
            return EventStory(Task(project, sync, options), state, lease, progress)
        case ProfileSync():
            return ProfileStory(Task(project, sync, options), state, lease, progress)


@dataclass(frozen=True, slots=True)
class ProfileStory(Story[ProfileSync, Snapshot, Draft]):
    """A run of a profile sync: what was delivered is a snapshot."""

    def load(self) -> Snapshot:
        """The sync's snapshot."""
        return snapshots.load(self.state, self.lease.sync)

    def take_over(self, run: runs.Opened, kept: Snapshot) -> Snapshot:
        """The snapshot after a killed run's answers; its keys in flight are due."""
        result = settled(self.state, run.id, run.attributes)
        logger.warning("run %s was killed; %d rows had been delivered", run.id, result.accepted)
        ended = killed(result._asdict(), f"run {self.lease.run} took over what it had delivered")
        return commit(self._books(kept, run.attributes, run.key_column), run.id, {**run.report, **ended}, run.began)

    def forget(self, connection: sa.Connection) -> Snapshot:
        """An empty snapshot."""
        return snapshots.forget(connection, self.state, self.lease.sync)

    def sweep(self, kept: Snapshot) -> None:
        """Remove snapshot files that nothing names."""
        snapshots.sweep(kept)
        snapshots.sweep_bucket(self.state, self.lease, kept.folder, kept.manifest)

    def draft(self, kept: Snapshot, report: Report) -> Draft:
        """The change set."""
        return draft(self.task, self.state, kept, report, self.progress, self._keep)

    def stopped(self, kept: Snapshot, drafted: Draft) -> GuardError | None:  # noqa: ARG002 - shares counted it
        """A guard of the sync."""
        return guards.profiles(self.task, drafted.report)

    def close(
        self,
        kept: Snapshot,  # noqa: ARG002 - drafting may have moved it
        drafted: Draft,
        report: Report,
        ended: ConnectorError | None,
        reasons: Sequence[Reason],
    ) -> Report:
        """Commit the accepted rows to the snapshot."""
        result = settled(self.state, self.lease.run, drafted.attributes)
        unsent = report.planned - result.accepted - result.rejected
        report = replace(report, accepted=result.accepted, rejected=result.rejected, unsent=unsent)
        notes = tolerance_notes(self.task, report, drafted.faulty)
        report = report.failed(ended) if ended else self.judged(report, [*reasons, *notes])
        judged = self._findings(drafted, report, moves=not ended and not report.unsent)
        books = self._books(drafted.snapshot, drafted.attributes, self.task.sync.key)
        commit(books, self.lease.run, report.to_dict(), self.lease.since, judged)
        return report

    def _findings(self, drafted: Draft, report: Report, *, moves: bool) -> Judged:
        """What the read has shown; the cursor moves only past rows that are all settled or noted as due."""
        rejected, reading, cursor = drafted.change_set.rejected, drafted.reading, self.task.sync.cursor
        withheld = rejected.filter(pl.col("attribute").is_not_null()).select("key").unique()
        left_out = drafted.change_set.skipped or drafted.change_set.uncleared
        moved = cursor and moves and not reading.asked and not left_out
        return Judged(
            invalid=rejected,
            withheld=withheld,
            done=drafted.done,
            keys=list(reading.keys) if reading.asked or reading.still else None,
            full=reading.full,
            cursor={"value": reading.until.isoformat(), "scope": reading.scope} if moved else None,
            stamp=reading.stamp if report.outcome == "green" and not left_out else None,
        )

    def _books(self, snapshot: Snapshot, attributes: dict[str, str], key_column: str) -> Books:
        quiet = self.task.project.settings.delivery.quiet.total_seconds()
        elsewhere = None
        if snapshot.engine == relocation.ENGINE:
            elsewhere = partial(pushdown.kept, self.task.project, self.state, self.task.sync, snapshot)
        return Books(self.state, self.lease, snapshot, key_column, attributes, quiet, elsewhere)

    def _keep(self, snapshot: Snapshot) -> None:
        """Make a snapshot of new files the current one."""
        snapshots.put(self.state, snapshot.folder, snapshot.manifest, {})
        with self.state.write() as connection:
            self.lease.check(connection)
            snapshots.store(connection, self.lease.sync, snapshot.manifest, snapshot.generation)


__all__ = ["Options", "ProfileStory", "Progress", "run_sync"]
