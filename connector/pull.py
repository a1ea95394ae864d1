"""The story of a pull: what Batch holds becomes rows of a table, once and complete, or not at all."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
import polars as pl

from connector.api._http import Access
from connector.asking import Calls
from connector.config import ExportSync, ProfileSync, Project
from connector.errors import ConnectorError, ExportError, PendingError
from connector.export_requests import next_window, request, scope
from connector.export_tables import ColumnType, Extract, extracts, key_column, table_columns
from connector.exporting import Brought, Errand, bring
from connector.landing import Broken, Parsed, Terms, parse
from connector.report import ExportReport, ExportSeconds, Reason, killed
from connector.rules import NATIVE_TYPES, AttributeType
from connector.state import exports, runs, snapshots
from connector.state.database import State
from connector.state.exports import Asked
from connector.state.lease import Lease
from connector.state.runs import REJECTS_SCHEMA
from connector.story import require_same_kind, unforeseen
from connector.task import Progress, Task, discard, named
from connector.warehouses._base import Load, Loaded, Relation

BROKEN_LISTED = 1000
"""Broken lines that `rejects` lists."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pull:
    """One run of an export sync, under its lease."""

    task: Task[ExportSync]
    state: State
    lease: Lease
    progress: Progress

    def run(self, report: ExportReport, access: Access, transport: httpx.AsyncBaseTransport | None) -> ExportReport:
        """The story, top to bottom; its report says how it ended."""
        watch, calls = _Watch(), Calls()
        errand = Errand(self.state, self.lease, self.task.project.settings, access, transport, self.progress, calls)
        report = replace(report, table=self.task.sync.table)
        asked: Asked | None = None
        broken: list[Broken] = []
        end: exports.End | None = None
        self._take_over()
        exports.sweep(self.state)
        try:
            with named(self.task.sync):
                table = self._table()
                asked = self._asked(table)
                report = replace(report, since=asked.request.get("from"), until=asked.request.get("to"))
                self._open(report)
                brought = bring(errand, asked)
                report, broken = self._landed(report, brought, table, watch)
                end = "loaded"
        except ExportError as error:
            report, end = report.failed(error), "failed"
        except PendingError as error:
            report = report.judged([Reason("pending", str(error))])
        except ConnectorError as error:
            report = report.failed(error)
        except BaseException as error:  # a cancel, or a fault of ours: the export stays open and the next run goes on
            self._close(watch.told(report.failed(unforeseen(error)), calls), asked, end, broken)
            raise
        return self._close(watch.told(report, calls), asked, end, broken)

    def _take_over(self) -> None:
        """Close what killed runs left open; the export that they were about goes on."""
        for run in runs.unfinished(self.state, self.lease.sync):
            require_same_kind(self.task.sync, run)
            with self.state.write() as connection:
                self.lease.check(connection)
                ended = killed({}, f"run {self.lease.run} goes on with its export")
                runs.close_run(connection, self.lease, run.id, {**run.report, **ended})

    def _table(self) -> "_Table":
        """The table as it is, and the columns that lines fill: those that are there keep their type.

        Raises:
            WarehouseError: The warehouse cannot be opened.
        """
        sync, project = self.task.sync, self.task.project
        with project.warehouse(sync).load_into(project.root, tags=self._tags) as loader:
            existing = loader.columns(sync.table)
        there = {column.name: column.type for column in existing or ()}
        wanted = extracts(sync.export, sync.identifiers, attribute_types(project, self.state, sync.attributes))
        if sync.export == "attributes":
            wanted = [_kept(extract, there) for extract in wanted]
        return _Table(wanted, existing is not None)

    def _asked(self, table: "_Table") -> Asked:
        """The export that an earlier run left open, else a new one: noted, and not asked for yet."""
        sync, options, now = self.task.sync, self.task.options, datetime.fromtimestamp(time.time(), UTC)
        scoped = scope(sync)
        left, last = exports.open_export(self.state, sync.name), exports.last_loaded(self.state, sync.name, scoped)
        if last and not table.made and sync.export != "attributes":  # it was dropped, and all that had been loaded
            left_off, begun = None, None
        else:
            left_off, begun = left, last.request.get("to") if last else None
        if left_off and not options.full and self._goes_on(left_off, scoped, now):
            return left_off
        body = request(sync, next_window(sync, begun, now, options.window, full=options.full))
        # A window of the operator's own says nothing about what lies before it.
        return exports.ask_anew(self.state, self.lease, left, body, "" if options.window else scoped)

    def _goes_on(self, left: Asked, scoped: str, now: datetime) -> bool:
        """Whether an export that was left open is what is asked for now."""
        sync, window = self.task.sync, self.task.options.window
        if left.is_stale:
            return False
        if sync.export == "attributes":
            return left.request == request(sync, None)
        if window:
            return left.request == request(sync, next_window(sync, None, now, window))
        return left.scope == scoped

    def _open(self, report: ExportReport) -> None:
        with self.state.write() as connection:
            runs.open_run(
                connection, self.lease, runs.Opened(self.lease.run, "", {}, "", report.to_dict(), self.lease.since), []
            )

    def _landed(
        self, report: ExportReport, brought: Brought, table: "_Table", watch: "_Watch"
    ) -> tuple[ExportReport, list[Broken]]:
        """The export in its table, and the lines that are not."""
        export_id = brought.asked.export_id or ""
        terms = _terms(self.task.sync, table.extracts, export_id)
        with watch("parse"):
            parsed = parse(brought.files, terms, self.progress)
        if table.made and not parsed.rows:
            self._require_empty()
        self.progress("load", 0, parsed.rows)
        with watch("load"):
            loaded = self._loaded(parsed, terms, export_id)
        self.progress("load", loaded.rows, loaded.rows)
        counted = replace(
            report,
            export_id=export_id,
            rows=loaded.rows,
            inserted=loaded.inserted,
            duplicates=parsed.rows - loaded.rows,
            quarantined=len(parsed.broken),
            mistyped=parsed.mistyped,
            files=len(brought.files),
        )
        return _judged(counted), parsed.broken

    def _loaded(self, parsed: Parsed, terms: Terms, export_id: str) -> Loaded:
        sync, project = self.task.sync, self.task.project
        load = Load(
            table=sync.table,
            columns=table_columns(terms.extracts),
            files=parsed.files,
            write=sync.write if sync.export == "attributes" else "merge",
            export_id=export_id,
            key=terms.key,
            repeated=parsed.repeated,
        )
        spill = self.state.folder / "outbox" / f"{self.lease.run}.spool"
        memory = project.settings.memory // 2
        try:
            with project.warehouse(sync).load_into(project.root, memory=memory, spill=spill, tags=self._tags) as loader:
                return loader.load(load)
        finally:
            discard(self.state, self.lease.run)

    def _require_empty(self) -> None:
        """An export without rows must not empty a table that has some."""
        sync, project = self.task.sync, self.task.project
        if sync.export != "attributes" or sync.write != "replace" or sync.allow_empty:
            return
        with project.warehouse(sync).open(project.root, tags=self._tags) as reader:
            filled = any(frame.height for frame in reader.read(Relation(table=sync.table), ["export_id"]))
        if filled:
            raise ExportError(
                f"the export has no rows, and table {sync.table} has: it stays as it is",
                remedy="if Batch is meant to hold nobody, set allow_empty: true",
            )

    def _close(
        self, report: ExportReport, asked: Asked | None, end: exports.End | None, broken: Sequence[Broken]
    ) -> ExportReport:
        """The run is over, and with `end` its export too: one transaction, whose end makes the load count."""
        name = self.lease.sync
        with self.state.write() as connection:
            self.lease.check(connection)
            if asked and end:
                exports.close(connection, name, asked.number, end)
            if end == "loaded":
                runs.replace_rejects(connection, name, _listed(broken))
            runs.close_run(connection, self.lease, self.lease.run, report.to_dict())
        if asked and end:
            exports.discard(self.state, asked)
        logger.info("run %s: %s, %d rows of export %s", report.run, report.outcome, report.rows, report.export_id)
        return report

    @property
    def _tags(self) -> dict[str, str]:
        return {"sync": self.lease.sync, "run": self.lease.run}


class _Table(NamedTuple):
    """Where the rows land: the columns that lines fill, and whether it is there."""

    extracts: list[Extract]
    made: bool


@dataclass(slots=True)
class _Watch:
    """Where the time goes."""

    start: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent[phase] = time.monotonic() - start

    def told(self, report: ExportReport, calls: Calls) -> ExportReport:
        """The report with its times, and with what went over the wire."""
        seconds = ExportSeconds(**calls.seconds, **self.spent, total=time.monotonic() - self.start)
        return replace(report, requests=calls.requests, throttled=calls.throttled, bytes=calls.bytes, seconds=seconds)


def attribute_types(project: Project, state: State, names: Sequence[str]) -> dict[str, AttributeType | None]:
    """How Batch keeps each attribute, as far as a sync that sends it knows; None where none does."""
    found: dict[str, AttributeType | None] = dict.fromkeys(names)
    for sync in project.syncs.values():
        if isinstance(sync, ProfileSync):
            with state.read() as connection:
                manifest = snapshots.manifest_of(connection, sync.name, "profiles")
            declared = {name: mapping.type for name, mapping in (sync.attributes or {}).items() if mapping.type}
            sent: Mapping[str, AttributeType] = {**manifest.get("attributes", {}), **declared, **NATIVE_TYPES}
            found |= {name: sent[name] for name in names if name in sent and found[name] is None}
    return {name: type_ or NATIVE_TYPES.get(name) for name, type_ in found.items()}


def _kept(extract: Extract, there: Mapping[str, ColumnType]) -> Extract:
    column = extract.column
    type_ = there.get(column.name, "other")
    return extract if type_ == "other" else extract._replace(column=column._replace(type=type_))


def _terms(sync: ExportSync, columns: Sequence[Extract], export_id: str) -> Terms:
    loaded_at = pl.lit(datetime.fromtimestamp(time.time(), UTC)).cast(pl.Datetime("us", "UTC")).alias("loaded_at")
    constants = (pl.lit(export_id).alias("export_id"), loaded_at)
    return Terms(columns, key_column(sync.export), sync.export != "attributes", constants)


def _judged(report: ExportReport) -> ExportReport:
    """Green, or incomplete where a line of the export is in no table."""
    if not report.quarantined:
        return report
    said = f"lines of the export that are no rows: {report.quarantined}; see: connector rejects {report.sync}"
    return report.judged([Reason("quarantined", said)])


def _listed(broken: Sequence[Broken]) -> pl.DataFrame:
    """The lines as `rejects` lists them: by their place, as values lie in no other place than the outbox."""
    now = time.time()
    rows = [
        ("", f"file {line.file}, line {line.line}", "invalid", line.reason, 1, now, now)
        for line in broken[:BROKEN_LISTED]
    ]
    return pl.DataFrame(rows, schema=REJECTS_SCHEMA, orient="row")
