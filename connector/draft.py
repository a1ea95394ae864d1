"""Reads a sync's source as it is due this time and drafts what has to be sent; sends nothing."""

import shutil
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from connector import opt_outs, pushdown, relocation
from connector.api import profiles
from connector.changes import Kind
from connector.config import ProfileSync
from connector.errors import StateError, WarehouseError
from connector.hashing import KEY_HASH, key_hashes
from connector.judging import keys
from connector.mapping import KEY, Mapping, resolve
from connector.payload import Chunk, chunks
from connector.planning import ChangeSet, build, removed_rows
from connector.probing import Job, Sifted, sift
from connector.reading import Reading, batches_of, estimated, how_to_read, keys_again, latest_of, unless_still
from connector.relocation import Corner, Keep
from connector.report import Report, Seconds
from connector.state import runs
from connector.state.database import State
from connector.state.snapshots import Snapshot
from connector.task import Progress, Task, named, tags, told
from connector.valued import Terms, types_of
from connector.warehouses._base import Changes, Reader, WarehouseSettings
from connector.warehouses._differ import Comparison


@dataclass(frozen=True, slots=True)
class Draft:
    """What a run would do, with all that delivery and commit need.

    Attributes:
        mapping: The resolved mapping.
        reading: How the source was read.
        change_set: What has to be sent, on disk.
        chunks: Its requests.
        endpoint: The one they go to.
        done: Keys that were due and have nothing to send: gone from the source, or equal to what Batch has.
        report: The counts so far.
        snapshot: What was delivered before, where it lies now.
        read_bytes: That the read was to be billed for, where this is a plan and the warehouse bills them.
    """

    mapping: Mapping
    reading: Reading
    change_set: ChangeSet
    chunks: list[Chunk]
    endpoint: profiles.Endpoint
    done: list[str]
    report: Report
    snapshot: Snapshot
    read_bytes: int | None

    @property
    def attributes(self) -> dict[str, str]:
        """Type by attribute name."""
        return types_of(self.mapping)

    @property
    def outbox(self) -> Path:
        """The change set's file."""
        return self.change_set.path

    @property
    def by_attribute(self) -> dict[str, int]:
        """Rows whose request holds it, by attribute name."""
        return self.change_set.by_attribute

    @property
    def sample(self) -> list[str]:
        """A few keys."""
        return self.change_set.sample

    @property
    def faulty(self) -> int:
        """Rows that are invalid or have a value withheld."""
        return self.change_set.faulty


@dataclass(frozen=True, slots=True)
class _Source:
    """What a source is read for."""

    task: Task[ProfileSync]
    state: State
    report: Report
    due: pl.DataFrame
    keep: Keep | None
    progress: Progress


class _Read(NamedTuple):
    """A source, read.

    Attributes:
        terms: How its values become attributes.
        reading: How it was read.
        sifted: What may have to be sent.
        job: On what terms.
        snapshot: What was delivered, where it lies now.
        known: Its rows.
        keys: Of `reading.keys` those that exist.
        over: To be called within the context where nothing will be sent.
        bytes: See `Draft.read_bytes`.
    """

    terms: Terms
    reading: Reading
    sifted: Sifted
    job: Job
    snapshot: Snapshot
    known: int
    keys: AbstractSet[str]
    over: Callable[[], None] = lambda: None
    bytes: int | None = None


def draft(
    task: Task[ProfileSync],
    state: State,
    snapshot: Snapshot,
    report: Report,
    progress: Progress,
    keep: Keep | None = None,
) -> Draft:
    """Read the source and make the change set, in the outbox under the report's run.

    Args:
        task: The sync, and what is asked of it.
        state: The project's.
        snapshot: What was delivered.
        report: The run's.
        progress: Told of the rows read.
        keep: Makes the snapshot current where it has to move between engines; None: nothing may change.

    Raises:
        WarehouseError: The source cannot be read, or not become what the mapping asks.
        StateError: The snapshot was made with another key, or the disk is full.
    """
    sync, start = task.sync, time.monotonic()
    _require_same_key(task, snapshot)
    due = runs.due(state, sync.name)
    due = due.filter(pl.col("not_before") <= state.now())
    outbox = runs.outbox(state, report.run)
    with named(sync):
        snapshot = relocation.home(task.project, state, sync, snapshot, report.run, keep)
    with _read(_Source(task, state, report, due, keep, progress), snapshot) as found:
        job, sifted, reading = found.job, found.sifted, found.reading
        _refuse_duplicates(sync, sifted)
        read_seconds = time.monotonic() - start
        progress("diff", 0, None)
        gone = set(due["key"]) - set(sifted.due_seen) if reading.full else set(reading.keys) - found.keys
        clears = sync.on_removed == "clear"
        removed, doubted = _removed(job, sifted, reading, gone, clears=clears)
        change_set = build(sifted, job, removed if clears else removed.clear(), outbox)
        doubtful = due.filter(pl.col("reason") == "unknown")  # what a commit says of these needs the comparison, too
        if keep is None or not (change_set.planned or doubtful.height):
            found.over()
    progress("diff", change_set.planned, change_set.planned)
    shutil.rmtree(outbox.with_suffix(".spool"), ignore_errors=True)
    endpoint = profiles.choose(sync.endpoint, change_set.planned)
    per_call = profiles.limit(task.project.settings.batch.limits, endpoint).per_call
    total = time.monotonic() - start
    counted = replace(
        _counted(report, sifted, change_set, found.known + doubted),
        removed=change_set.counts[Kind.REMOVED] if clears else removed.height,
        full=reading.full,
        notes=_notes(sync, reading),
        seconds=Seconds(read=read_seconds, diff=total - read_seconds, total=total),
    )
    requests = list(chunks(change_set.lengths, max_profiles=per_call))
    done = [*change_set.idle, *(gone - set(removed[KEY]) if clears else gone)]
    return Draft(job.mapping, reading, change_set, requests, endpoint, done, counted, found.snapshot, found.bytes)


@contextmanager
def _read(source: _Source, snapshot: Snapshot) -> Iterator[_Read]:
    """The source, read; a warehouse that compared stays open for the context, any other is closed before."""
    task, state, run = source.task, source.state, source.report.run
    sync = task.sync
    opted_out = _opted_out(source)
    with named(sync), ExitStack() as stack:
        settings: WarehouseSettings = task.project.warehouse(sync)
        how, corner = _how_to_open(source), None
        if sync.engine == relocation.ENGINE:
            differ = stack.enter_context(settings.diff_in(task.project.root, write=source.keep is not None, **how))
            corner, reader = Corner(differ, state, sync.name, sync.warehouse, run), differ.reader
        else:
            reader = stack.enter_context(settings.open(task.project.root, **how))
        terms = _terms(sync, reader)
        if corner:
            snapshot = relocation.ready(corner, snapshot, terms, source.keep, whole=task.options.whole)
        again = keys_again(source.due, runs.rejects(state, sync.name))
        reading = how_to_read(task, reader.now(), snapshot, terms.mapping, again)
        reading = unless_still(task, state, reader, snapshot, reading)
        resend, limit, memory = task.options.resend, task.options.limit, task.project.settings.memory
        job = Job(
            terms.mapping, snapshot, snapshot.index(), source.due, state.seed,
            resend=resend, limit=limit, opted_out=opted_out, memory=memory,
        )  # fmt: skip
        elsewhere = corner and snapshot.engine == relocation.ENGINE
        if corner and elsewhere and reading.still is None:
            yield _compared(source, corner, job, reading, terms)
        else:
            found: set[str] = set()
            billed = estimated(task, reader, terms.mapping, reading) if source.keep is None else None
            batches = batches_of(task, reader, terms.mapping, reading, found)
            sifted = sift(told(batches, source.progress), job, how["spill"])
            known = corner.differ.rows(snapshot.manifest["table"]) if corner and elsewhere else len(job.index)
            stack.close()
            yield _Read(terms, reading, sifted, job, snapshot, known, found, bytes=billed)


def _how_to_open(source: _Source) -> dict[str, Any]:
    memory = source.task.project.settings.memory // 2  # the other half is ours
    spill = runs.outbox(source.state, source.report.run).with_suffix(".spool")
    return {"memory": memory, "spill": spill, "tags": tags(source.report)}


def _terms(sync: ProfileSync, reader: Reader) -> Terms:
    columns = reader.columns(sync.source.relation)
    cursor = sync.cursor.column if sync.cursor else None
    mapping = resolve(columns, sync.key, sync.attributes, cursor=cursor, timezone=sync.source.timezone)
    return Terms(mapping, columns, sync)


def _opted_out(source: _Source) -> opt_outs.OptOuts:
    """Who has unsubscribed; asked before the source is opened, as DuckDB opens a file in one way at a time."""
    project, sync = source.task.project, source.task.sync
    names = list(sync.attributes or ())
    if sync.respect_opt_out and not names:
        with named(sync), project.warehouse(sync).open(project.root, **_how_to_open(source)) as reader:
            names = [attribute.name for attribute in _terms(sync, reader).mapping.attributes]
    with named(sync):
        return opt_outs.opted_out(project, source.state, sync, names)


def _compared(source: _Source, corner: Corner, job: Job, reading: Reading, terms: Terms) -> _Read:
    """The same, where the warehouse compares."""
    found = set[str]()
    assert not isinstance(reading.window, Changes)  # noqa: S101 - a project that asks for both is refused
    comparison = Comparison(
        terms.sync.source.relation,
        terms.mapping.key_column,
        terms.attributes,
        whole=job.resend,
        window=reading.window,
        keys=pushdown.keys_file(corner, sorted(set(source.due["key"]) if reading.full else reading.keys)),
        asked=not reading.full and reading.window is None,
        latest=latest_of(source.task, job.mapping),
    )

    def noted(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for batch in told(batches, source.progress):
            found.update(keys(job.mapping, batch)[KEY].drop_nulls())
            yield batch

    keeps = source.keep is not None
    sifted, brought, known = pushdown.sifted(corner, job, terms, comparison, noted, keeps=keeps)
    return _Read(terms, reading, sifted, brought, job.snapshot, known, found & set(reading.keys), corner.over)


def _notes(sync: ProfileSync, reading: Reading) -> tuple[str, ...]:
    """That the source was not read, or all of it against the cursor, and why."""
    if reading.beyond and sync.cursor:
        hours = sync.cursor.reach.total_seconds() / 3600
        return (f"the last reading is longer ago than cursor.reach ({hours:g} h), so the whole source was read",)
    if reading.still is None:
        return ()
    since = datetime.fromtimestamp(reading.still, UTC)
    once = "--full (in Dagster: full) reads it"
    return (f"{sync.source.table} did not change since the run of {since:%Y-%m-%d %H:%M} UTC: not read; {once}",)


def _require_same_key(task: Task[ProfileSync], snapshot: Snapshot) -> None:
    before, sync = snapshot.manifest.get("key", task.sync.key), task.sync.name
    if before != task.sync.key and not (task.options.resend or task.options.adopt):
        raise StateError(
            f"sync '{task.sync.name}': the snapshot was made with key '{before}', the sync now says '{task.sync.key}'",
            remedy=f"put the key back, or decide: connector run {sync} --resend sends everything under the new one, "
            f"connector adopt {sync} takes it as delivered",
        )


def _removed(
    job: Job, sifted: Sifted, reading: Reading, gone: AbstractSet[str], *, clears: bool
) -> tuple[pl.DataFrame, int]:
    """`#key`, `#kh` of profiles that left the source: all after a full read, else those that were looked for.

    Where they are to be cleared, also those that no snapshot has, but of which a lost request may still be applied; how
    many these are is the second value.
    """
    nothing = pl.DataFrame(schema={KEY: pl.String, KEY_HASH: pl.UInt64})
    missing = removed_rows(job, sifted.seen) if reading.full or gone else nothing
    missing = missing if reading.full else missing.filter(pl.col(KEY).is_in(list(gone)))
    lost = job.due.filter((pl.col("reason") == "unknown") & pl.col("key").is_in(list(gone)))["key"].unique()
    lost = lost.filter(~lost.is_in(missing[KEY].implode())).alias(KEY)
    again = pl.DataFrame([lost, key_hashes(lost, job.seed)]) if clears else nothing
    return pl.concat([missing, again]), again.height


def _refuse_duplicates(sync: ProfileSync, sifted: Sifted) -> None:
    if sync.dedupe == "error" and len(sifted.duplicates):
        raise WarehouseError(
            f"keys that are found more than once: {len(sifted.duplicates)}; dedupe is error",
            remedy=f"make column '{sync.key}' unique, or set dedupe to reject or latest; nothing was sent",
        )


def _counted(report: Report, sifted: Sifted, change_set: ChangeSet, snapshot_rows: int) -> Report:
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
        opted_out=change_set.opted_out,
        planned=change_set.planned,
        known=snapshot_rows + counts[Kind.ADDED] - change_set.readded,
    )
