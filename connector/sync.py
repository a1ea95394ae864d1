"""The story of a profile sync, top to bottom: recover, read, plan, guard, send, commit."""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl

from connector.api import profiles
from connector.api._http import Access
from connector.changes import Kind
from connector.commit import Books, Judged, commit, settled
from connector.config import ProfileSync, Project
from connector.delivery import Terms, Traffic, deliver
from connector.errors import CancelledRunError, ConnectorError, GuardError, StateError, WarehouseError
from connector.hashing import KEY_HASH
from connector.mapping import KEY, Mapping, resolve
from connector.payload import Chunk, chunks
from connector.planning import ChangeSet, Job, Sifted, build, removed_rows, sift
from connector.report import Report, Seconds
from connector.state import runs, snapshots
from connector.state.database import State, open_state
from connector.state.lease import Lease, hold
from connector.state.snapshots import Snapshot
from connector.warehouses._base import Keys, Reader, Window

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Told the phase (`read`, `diff`, `deliver`), the rows done, and how many there are where that is known."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may ask of one run.

    Attributes:
        full: Read the whole source, cursor or not.
        resend: Send every row whole.
        limit: Plan at most so many rows; the others stay due.
        keys: Read only these keys.
        allow_mass_change: The reason why the guards may be passed this once.
    """

    full: bool = False
    resend: bool = False
    limit: int | None = None
    keys: tuple[str, ...] = ()
    allow_mass_change: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        report: The counts; `guarded` where a guard would stop it.
        by_attribute: Rows whose request would hold the attribute.
        calls: Requests.
        bytes: Of all their bodies.
        minutes: At the documented rate.
        sample: A few keys, for the operator's eyes only.
        notes: What else is worth knowing.
    """

    report: Report
    by_attribute: dict[str, int]
    calls: int
    bytes: int
    minutes: float
    sample: list[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """How the source is read this time."""

    full: bool
    until: datetime
    window: Window | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A plan with all that delivery and commit need."""

    mapping: Mapping
    read: _Read
    sifted: Sifted
    change_set: ChangeSet
    chunks: list[Chunk]
    endpoint: profiles.Endpoint
    gone: list[str]
    report: Report


def run_sync(
    project: Project,
    name: str,
    options: Options = Options(),
    *,
    progress: Progress | None = None,
    transport: httpx.AsyncBaseTransport | None = None,  # noqa: B008 - frozen
) -> Report:
    """Run a sync; its report says how it ended, also when it failed, was guarded, or found the sync busy.

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
    sync = project.sync(name)
    access = _access(project)
    report = Report(sync=name, run=f"{name}-{uuid.uuid4().hex[:10]}", started=time.time())
    story = _Story(project, sync, options, access, progress or _silent, transport)
    try:
        with (
            open_state(project.state_dir, access.project_key.get_secret_value()) as state,
            hold(state, name, report.run) as lease,
        ):
            return story.run(state, lease, report)
    except ConnectorError as error:
        logger.warning("sync %s: %s: %s", name, error.code, error.message)
        return report.failed(error)


def plan_sync(project: Project, name: str, options: Options = Options(), *, progress: Progress | None = None) -> Plan:  # noqa: B008 - frozen
    """Read and diff; send nothing, change nothing.

    Raises:
        ConnectorError: The plan cannot be made; a guard is no error here, the report tells of it.
    """
    sync = project.sync(name)
    access = _access(project)
    report = Report(sync=name, run=f"{name}-plan-{uuid.uuid4().hex[:10]}", started=time.time())
    story = _Story(project, sync, options, access, progress or _silent, None)
    with open_state(project.state_dir, access.project_key.get_secret_value()) as state:
        try:
            drafted = story.draft(state, snapshots.load(state, name), report)
        finally:
            _clean(state, report.run)
        notes = (
            ("a run was killed: the next one first takes over what it had delivered",)
            if runs.unfinished(state, name)
            else ()
        )
    limit = profiles.limit(project.settings.batch.limits, drafted.endpoint)
    report = replace(drafted.report, unsent=drafted.report.planned)
    if guarded := story.guarded(drafted):
        report = report.failed(guarded)
    size = sum(chunk.bytes for chunk in drafted.chunks)
    minutes = max(drafted.report.planned - limit.burst, 0) / limit.per_second / 60
    change_set = drafted.change_set
    return Plan(
        report,
        change_set.by_attribute,
        len(drafted.chunks),
        size,
        round(minutes, 2),
        change_set.sample,
        notes,
    )


@dataclass(frozen=True, slots=True)
class _Story:
    """One run of one sync."""

    project: Project
    sync: ProfileSync
    options: Options
    access: Access
    progress: Progress
    transport: httpx.AsyncBaseTransport | None

    def run(self, state: State, lease: Lease, report: Report) -> Report:
        snapshot = self.recover(state, lease)
        try:
            drafted = self.draft(state, snapshot, report)
        except ConnectorError as error:
            _clean(state, report.run)
            return self._close(state, lease, report.failed(error))
        if guarded := self.guarded(drafted):
            _clean(state, report.run)
            return self._close(state, lease, drafted.report.failed(guarded))
        return self._deliver(state, lease, snapshot, drafted)

    def recover(self, state: State, lease: Lease) -> Snapshot:
        """Take over what killed runs had delivered; their chunks in flight have an unknown outcome, so those keys are due again."""
        snapshot = snapshots.load(state, lease.sync)
        for run, attributes in runs.unfinished(state, lease.sync):
            if not runs.outbox(state, run).exists():
                remedy = "restore the state folder from a backup, or send everything again on purpose with: connector run SYNC --resend"
                raise StateError(f"sync '{lease.sync}': the outbox of the killed run {run} is missing", remedy=remedy)
            result = settled(state, run, attributes)
            planned = result.accepted + result.rejected + result.unsent
            report = Report(lease.sync, run, planned=planned, accepted=result.accepted, rejected=result.rejected)
            killed = report.failed(
                ConnectorError("the run was killed", remedy=f"run {lease.run} took over what it had delivered")
            )
            logger.warning(
                "sync %s: run %s was killed; %d of %d rows were delivered",
                lease.sync,
                run,
                result.accepted,
                planned,
            )
            snapshot = commit(self._books(state, lease, snapshot, attributes), run, killed.to_dict())
        _sweep(state, lease.sync, snapshot)
        return snapshot

    def draft(self, state: State, snapshot: Snapshot, report: Report) -> _Drafted:
        """Read the source and make the change set."""
        start = time.monotonic()
        if snapshot.generation and snapshot.manifest["key"] != self.sync.key and not self.options.resend:
            raise StateError(
                f"sync '{self.sync.name}': the snapshot was made with key '{snapshot.manifest['key']}', the sync now says '{self.sync.key}'",
                remedy="put the key back, or send everything again on purpose with --resend",
            )
        due = runs.due(state, self.sync.name)
        due = due.filter(pl.col("not_before") <= time.time())
        spool = runs.outbox(state, report.run).with_suffix(".spool")
        with self.project.warehouse(self.sync).open(
            self.project.root, memory=self.project.settings.memory // 2
        ) as reader:
            relation = self.sync.source.relation
            columns = reader.columns(relation)
            cursor = self.sync.cursor.column if self.sync.cursor else None
            mapping = resolve(
                columns,
                self.sync.key,
                self.sync.attributes,
                cursor=cursor,
                timezone=self.sync.source.timezone,
            )
            read = self._how_to_read(reader, snapshot, mapping)
            job = Job(mapping, snapshot, snapshot.index(), due, state.seed, self.options.resend, self.options.limit)
            again = [] if read.full else self._keys_again(state, due)
            found: set[str] = set()
            sifted = sift(self._batches(reader, mapping, read, again, found), job, spool)
        read_seconds = time.monotonic() - start
        self._refuse_duplicates(sifted)
        gone = sorted(set(due["key"]) - set(sifted.due_seen)) if read.full else sorted(set(again) - found)
        removed = self._removed(job, sifted, read, gone)
        clears = self.sync.on_removed == "clear"
        self.progress("diff", 0, None)
        change_set = build(sifted, job, removed if clears else removed.clear(), runs.outbox(state, report.run))
        shutil.rmtree(spool)
        endpoint = profiles.choose(self.sync.endpoint, change_set.planned)
        per_call = profiles.limit(self.project.settings.batch.limits, endpoint).per_call
        seconds = Seconds(
            read=read_seconds, diff=time.monotonic() - start - read_seconds, total=time.monotonic() - start
        )
        counted = _counted(report, sifted, change_set, len(job.index), seconds)
        counted = replace(
            counted, removed=change_set.counts[Kind.REMOVED] if clears else removed.height, full=read.full
        )
        return _Drafted(
            mapping,
            read,
            sifted,
            change_set,
            list(chunks(change_set.lengths, max_profiles=per_call)),
            endpoint,
            gone,
            counted,
        )

    def guarded(self, drafted: _Drafted) -> GuardError | None:
        """The guard that stops this change set, if one does."""
        guard, report = self.sync.guard, drafted.report
        known = report.known - report.added
        reasons = []
        if drafted.read.full and report.read < guard.min_rows:
            reasons.append(f"the source has {report.read} rows, guard.min_rows asks for {guard.min_rows}")
        if known and report.changed > guard.max_changed * known:
            reasons.append(
                f"{report.changed} of {known} profiles would change, guard.max_changed allows {guard.max_changed:.0%}"
            )
        if known and self.sync.on_removed != "ignore" and report.removed > guard.max_removed * known:
            reasons.append(
                f"{report.removed} of {known} profiles would be cleared, guard.max_removed allows {guard.max_removed:.0%}"
            )
        if not reasons or self.options.allow_mass_change:
            return None
        remedy = 'look at the plan; if the change is meant, run once with --allow-mass-change "reason"'
        return GuardError(f"sync '{self.sync.name}': " + "; ".join(reasons), remedy=remedy)

    def _deliver(self, state: State, lease: Lease, snapshot: Snapshot, drafted: _Drafted) -> Report:
        """Send the change set and commit what was accepted, whatever ends the sending."""
        start = time.monotonic()
        attributes = {attribute.name: attribute.type for attribute in drafted.mapping.attributes}
        books = self._books(state, lease, snapshot, attributes)
        traffic = Traffic()
        error: ConnectorError | None = CancelledRunError(
            "the run was cancelled", remedy="run it again: it goes on where it stopped"
        )
        if drafted.chunks:
            with state.write() as connection:
                runs.open_run(connection, lease, attributes, drafted.chunks)
        try:
            if drafted.chunks:
                self._send(state, lease, drafted, traffic)
            error = None
        except ConnectorError as failure:
            error = failure
        finally:
            result = settled(state, lease.run, attributes)
            seconds = drafted.report.seconds
            deliver_seconds = time.monotonic() - start
            seconds = replace(
                seconds,
                deliver=deliver_seconds,
                waiting_for_rate=traffic.waited,
                total=seconds.total + deliver_seconds,
            )
            report = replace(
                drafted.report, accepted=result.accepted, rejected=result.rejected, unsent=result.unsent, seconds=seconds,
                requests=traffic.requests, retries=traffic.retries, throttled=traffic.throttled, bytes=traffic.bytes,
            )  # fmt: skip
            report = report.failed(error) if error else self._judged(report, drafted.change_set.faulty, traffic.reasons)
            commit(
                books,
                lease.run,
                report.to_dict(),
                self._findings(drafted, moves=not error and not report.unsent),
            )
        logger.info(
            "sync %s: %s, %d accepted of %d planned",
            report.sync,
            report.outcome,
            report.accepted,
            report.planned,
        )
        return report

    def _send(self, state: State, lease: Lease, drafted: _Drafted, traffic: Traffic) -> None:
        settings = self.project.settings
        terms = Terms(
            access=self.access,
            endpoint=drafted.endpoint,
            limit=profiles.limit(settings.batch.limits, drafted.endpoint),
            in_flight=settings.delivery.in_flight,
            timeout=settings.delivery.timeout.total_seconds(),
            give_up_after=settings.delivery.give_up_after.total_seconds(),
            transport=self.transport,
        )
        planned = drafted.report.planned
        deliver(
            state,
            lease,
            drafted.change_set.path,
            drafted.chunks,
            terms,
            traffic,
            lambda rows: self.progress("deliver", rows, planned),
        )

    def _judged(self, report: Report, faulty: int, reasons: Sequence[str]) -> Report:
        """Green, or incomplete with the reasons why."""
        tolerance = self.sync.tolerance
        why = list(reasons)
        if report.unsent:
            why.append(f"{report.unsent} rows were not sent, or their outcome is unknown; they stay due")
        if report.rejected > tolerance.rejected * report.known:
            why.append(
                f"Batch refused {report.rejected} of {report.known} rows, tolerance.rejected allows {tolerance.rejected:.0%}; see: connector rejects {report.sync}"
            )
        if faulty > tolerance.invalid * report.known:
            why.append(
                f"{faulty} of {report.known} rows are invalid or have a value withheld, tolerance.invalid allows {tolerance.invalid:.0%}; see: connector rejects {report.sync}"
            )
        return replace(report, outcome="incomplete" if why else "green", reasons=tuple(why))

    def _findings(self, drafted: _Drafted, *, moves: bool) -> Judged:
        rejected = drafted.change_set.rejected
        values = rejected.filter(pl.col("attribute").is_not_null())
        cursor = None
        if self.sync.cursor and moves and not drafted.read.keys and not drafted.change_set.skipped:
            cursor = {"column": self.sync.cursor.column, "value": drafted.read.until.isoformat()}
        withheld = values.select("key").unique().with_columns(pl.lit(0, pl.UInt64).alias("source_hash"))
        keys = list(drafted.read.keys) or None
        return Judged(rejected, withheld, drafted.gone, keys, drafted.read.full, cursor)

    def _how_to_read(self, reader: Reader, snapshot: Snapshot, mapping: Mapping) -> _Read:
        """The whole source, what is new by the cursor, or the keys that were asked for."""
        cursor, manifest = self.sync.cursor, snapshot.manifest
        until = reader.now() - (cursor.lag if cursor else timedelta())
        if self.options.keys:
            return _Read(full=False, until=until, keys=self.options.keys)
        last = manifest.get("cursor")
        attributes = {attribute.name: attribute.type for attribute in mapping.attributes}
        stale = (
            manifest.get("full_read_at") is None
            or time.time() - manifest["full_read_at"] >= self.sync.full_read_every.total_seconds()
        )
        whole = self.options.full or self.options.resend or stale or manifest.get("attributes") != attributes
        if cursor is None or last is None or last["column"] != cursor.column or whole:
            return _Read(full=True, until=until)
        since = datetime.fromisoformat(last["value"]).astimezone(UTC) - cursor.overlap
        return _Read(full=False, until=until, window=Window(cursor.column, since, until, self.sync.source.timezone))

    def _keys_again(self, state: State, due: pl.DataFrame) -> list[str]:
        """Keys that an incremental read must look at whatever their cursor says: due again, or invalid when last seen."""
        invalid = runs.rejects(state, self.sync.name).filter((pl.col("source") == "invalid") & (pl.col("key") != ""))[
            "key"
        ]
        return sorted((set(due["key"]) | set(invalid)) if not self.options.keys else set(self.options.keys))

    def _batches(
        self, reader: Reader, mapping: Mapping, read: _Read, again: Sequence[str], found: set[str]
    ) -> Iterator[pl.DataFrame]:
        relation = self.sync.source.relation
        rows = 0
        if again:
            for batch in reader.read(relation, mapping.columns, Keys(mapping.key_column, again)):
                found.update(batch.select(mapping.key.value.alias(KEY)).to_series().drop_nulls())
                rows += batch.height
                yield batch
        if read.full or read.window:
            asked = pl.Series(again, dtype=pl.String).implode()
            for batch in reader.read(relation, mapping.columns, read.window):
                fresh = batch.filter(~mapping.key.value.is_in(asked).fill_null(value=False)) if again else batch
                rows += fresh.height
                self.progress("read", rows, None)
                yield fresh

    def _removed(self, job: Job, sifted: Sifted, read: _Read, gone: Sequence[str]) -> pl.DataFrame:
        """`#key`, `#kh` of profiles that left the source: all of them after a full read, else those that were due and are gone."""
        missing = (
            removed_rows(job, sifted.seen)
            if read.full or gone
            else pl.DataFrame(schema={KEY: pl.String, KEY_HASH: pl.UInt64})
        )
        return missing if read.full else missing.filter(pl.col(KEY).is_in(list(gone)))

    def _refuse_duplicates(self, sifted: Sifted) -> None:
        if self.sync.dedupe == "error" and len(sifted.duplicates):
            raise WarehouseError(
                f"sync '{self.sync.name}': {len(sifted.duplicates)} keys are found more than once in the source, and dedupe is error",
                remedy=f"make column '{self.sync.key}' unique, or set dedupe to reject or latest; nothing was sent",
            )

    def _books(self, state: State, lease: Lease, snapshot: Snapshot, attributes: dict[str, str]) -> Books:
        return Books(
            state,
            lease,
            snapshot,
            self.sync.key,
            attributes,
            self.project.settings.delivery.quiet.total_seconds(),
        )

    def _close(self, state: State, lease: Lease, report: Report) -> Report:
        """Keep the report of a run that sent nothing."""
        with state.write() as connection:
            lease.check(connection)
            runs.close_run(connection, lease, lease.run, report.to_dict())
        return report


def _counted(report: Report, sifted: Sifted, change_set: ChangeSet, snapshot_rows: int, seconds: Seconds) -> Report:
    counts = change_set.counts
    return replace(
        report,
        read=sifted.read,
        unchanged=counts[Kind.UNCHANGED],
        added=counts[Kind.ADDED],
        changed=counts[Kind.CHANGED],
        retried=counts[Kind.RETRIED],
        invalid=counts[Kind.INVALID],
        withheld=change_set.rejected.filter(pl.col("attribute").is_not_null()).height,
        skipped=change_set.skipped,
        planned=change_set.planned,
        known=snapshot_rows + counts[Kind.ADDED],
        seconds=seconds,
    )


def _access(project: Project) -> Access:
    batch = project.settings.batch
    return Access(batch.base_url, batch.project_key.read(project.root), batch.rest_key.read(project.root))


def _clean(state: State, run: str) -> None:
    """Values lie in the outbox only while a run is open."""
    path = runs.outbox(state, run)
    shutil.rmtree(path.with_suffix(".spool"), ignore_errors=True)
    path.unlink(missing_ok=True)


def _sweep(state: State, sync: str, snapshot: Snapshot) -> None:
    """Remove what killed runs of this sync left behind; a plan that is being made now is left alone."""
    snapshots.sweep(snapshot)
    for path in (state.folder / "outbox").glob(f"{sync}-*"):
        if "-plan-" not in path.name or path.stat().st_mtime < time.time() - snapshots.ORPHAN_SECONDS:
            _clean(state, path.stem)


def _silent(_phase: str, _done: int, _total: int | None) -> None:
    """Nobody wants to know."""


__all__ = ["Options", "Plan", "Progress", "plan_sync", "run_sync"]
