"""The story of a reconciliation: Batch is asked what it holds, and what it lost or holds otherwise is due again."""

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import httpx
import polars as pl

from connector import drift, export_lines, guards
from connector.api._http import Access
from connector.asking import Calls
from connector.config import ProfileSync, Project
from connector.drift import Delivered
from connector.errors import ConnectorError, ExportError, PendingError, StateError, UsageError
from connector.export_requests import attributes_request
from connector.exporting import Brought, Errand, bring
from connector.hashing import ROW_HASH
from connector.mapping import KEY, Attribute
from connector.report import Reason, ReconcileReport
from connector.rules import CONSENT
from connector.state import exports, runs, snapshots
from connector.state.database import State, open_state
from connector.state.exports import Asked
from connector.state.lease import Lease, hold, is_held
from connector.state.snapshots import Snapshot
from connector.task import Progress, named, silent

PATIENCE_SECONDS, POLL_SECONDS = 600.0, 0.5
"""How long a run of the sync is waited for, and how often it is looked at."""

SAMPLE = 10
"""Keys that a report names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Healing:
    """What the operator allows.

    Attributes:
        heal: Make due what Batch lost or holds otherwise.
        allow_mass_change: The reason why the guard may be passed this once.
    """

    heal: bool = False
    allow_mass_change: str | None = None


_LOOK = Healing()


def reconcile_sync(
    project: Project,
    name: str,
    healing: Healing = _LOOK,
    *,
    progress: Progress | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ReconcileReport:
    """Compare Batch's own export with what was delivered; its report says how it ended, also when it failed.

    The sync may run meanwhile, but for the moment of the comparison: what it delivers after Batch was asked is not
    judged.

    Args:
        project: The project.
        name: The sync's name.
        healing: What may be done about a drift.
        progress: Told of each phase's progress now and then.
        transport: Another way to Batch than the network.

    Raises:
        ConfigError: A secret is missing.
        UsageError: There is no such sync, or it is none of profiles.
    """
    sync = project.sync(name)
    if not isinstance(sync, ProfileSync):
        raise UsageError(f"'{name}' is no sync of profiles, so there is nothing to compare", remedy="name another sync")
    access, server = project.access(), project.state_server()
    report = ReconcileReport(sync=name, run=f"{name}-reconcile-{uuid.uuid4().hex[:10]}", started=time.time())
    try:
        with (
            named(sync),
            open_state(project.state_dir, access.project_key.get_secret_value(), server) as state,
            hold(state, f"#reconcile-{name}", report.run) as lease,
        ):
            told = _Reconciliation(project, sync, healing, state, lease, progress or silent)
            return told.run(report, access, transport)
    except PendingError as error:
        return report.judged([Reason("pending", str(error))])
    except ConnectorError as error:
        logger.warning("reconciliation of %s: %s: %s", name, error.code, error.message)
        return report.failed(error)


@dataclass(frozen=True, slots=True)
class _Reconciliation:
    project: Project
    sync: ProfileSync
    healing: Healing
    state: State
    lease: Lease
    progress: Progress

    def run(
        self, report: ReconcileReport, access: Access, transport: httpx.AsyncBaseTransport | None
    ) -> ReconcileReport:
        """The story, top to bottom."""
        exports.sweep(self.state)
        attributes = self._attributes(snapshots.load(self.state, self.sync.name))
        asked = self._asked([attribute.name for attribute in attributes])
        errand = Errand(self.state, self.lease, self.project.settings, access, transport, self.progress, Calls())
        try:
            brought = bring(errand, asked)
            with _in_turn(self.state, self.sync.name, self.lease) as lease:
                report = self._compared(report, brought, lease)
        except ExportError:
            self._end(asked, "failed")
            raise
        self._end(asked, "loaded")
        logger.info(
            "run %s: %s, %d missing, %d differing", report.run, report.outcome, report.missing, report.differing
        )
        return report

    def _attributes(self, snapshot: Snapshot) -> tuple[Attribute, ...]:
        """What was delivered, as far as the sync still maps it."""
        if snapshot.engine != "local":
            raise UsageError(
                f"sync '{self.sync.name}' keeps what was delivered in its warehouse, which cannot be reconciled yet",
                remedy="set engine: local and run it once",
            )
        delivered = snapshot.manifest.get("attributes", {})
        mapped = self.sync.attributes
        keeps = {name for name, mapping in (mapped or {}).items() if mapping.on_null == "keep"}
        names = [name for name in delivered if mapped is None or name in mapped]
        if not names:
            raise UsageError(
                f"sync '{self.sync.name}' has delivered nothing yet, so there is nothing to compare",
                remedy="run it first",
            )
        return tuple(Attribute(name, delivered[name], name, name in keeps) for name in names)

    def _asked(self, names: Sequence[str]) -> Asked:
        """The export that an earlier reconciliation left open, else a new one."""
        body = attributes_request(names, ["custom_id"])
        left = exports.open_export(self.state, self.lease.sync)
        if left and left.request == body and not left.is_stale:
            return left
        asked = exports.ask_anew(self.state, self.lease, left, body, "")
        # Deliveries are known by their second: those of this one could not be told from later ones.
        time.sleep(1.0 - time.time() % 1.0)
        return asked

    def _compared(self, report: ReconcileReport, brought: Brought, lease: Lease) -> ReconcileReport:
        """Batch's word held against the snapshot of this moment, under the sync's own lease."""
        if left := runs.unfinished(self.state, self.sync.name):
            raise StateError(
                f"run {left[0].id} was killed, and what it delivered is not known yet",
                remedy=f"run the sync once, then reconcile again: connector run {self.sync.name}",
            )
        snapshot = snapshots.load(self.state, self.sync.name)
        attributes = self._attributes(snapshot)
        unordered = {name for name, mapping in (self.sync.attributes or {}).items() if mapping.unordered}
        until = brought.asked.asked_at
        delivered = Delivered(snapshot, attributes, frozenset(unordered), self.state.seed, until)
        found = drift.compare(self._lines(brought, attributes), delivered)
        report = replace(
            report,
            export_id=brought.asked.export_id,
            checked=found.checked,
            missing=found.missing.height,
            differing=found.differing.height,
            unknown=found.unknown,
            by_attribute={name: rows for name, rows in found.by_attribute.items() if rows},
            sample=tuple(found.rows[KEY].head(SAMPLE)),
        )
        mended = drift.doubtful(found.rows, delivered.names, () if self.sync.consent.owner == "warehouse" else CONSENT)
        if self.healing.heal and mended.height:
            stopped = guards.healing(self.sync, mended.height, found.checked)
            if stopped and not self.healing.allow_mass_change:
                return report.failed(stopped)
            self._heal(snapshot, mended, lease)
            report = replace(report, healed=mended.height)
        return _judged(report, mended.height)

    def _lines(self, brought: Brought, attributes: Sequence[Attribute]) -> Iterator[pl.DataFrame]:
        wanted = drift.extracts({attribute.name: attribute.type for attribute in attributes})
        rows = 0
        with export_lines.json_reader() as reader:
            for frame in chain.from_iterable(export_lines.read(reader, *file, wanted) for file in brought.files):
                if frame.broken:  # what stands there may be a profile that would look lost
                    raise ExportError(f"line {frame.broken[0]} of the export is no JSON object: nothing was compared")
                rows += frame.rows.height
                self.progress("compare", rows, None)
                yield frame.rows.select(extract.column.name for extract in wanted)

    def _heal(self, snapshot: Snapshot, mended: pl.DataFrame, lease: Lease) -> None:
        """One transaction makes them due: the snapshot no longer says that Batch has them."""
        file = snapshots.write(snapshot, [mended])
        manifest = {**snapshot.manifest, "files": [*snapshot.files, file]}
        due = pl.concat([runs.due(self.state, self.sync.name), _due(mended)]).unique(["key", "reason"], keep="last")
        snapshots.put(self.state, snapshot.folder, manifest, snapshot.manifest)
        with self.state.write() as connection:
            lease.check(connection)
            snapshots.store(connection, self.sync.name, manifest, snapshot.generation + 1)
            runs.replace_due(connection, self.sync.name, due)

    def _end(self, asked: Asked, end: exports.End) -> None:
        with self.state.write() as connection:
            self.lease.check(connection)
            exports.close(connection, self.lease.sync, asked.number, end)
        exports.discard(self.state, asked)


@contextmanager
def _in_turn(state: State, sync: str, lease: Lease) -> Iterator[Lease]:
    """The sync's own lease, once its run has ended; the export may have taken hours, so it is worth some patience."""
    until = time.monotonic() + PATIENCE_SECONDS
    while is_held(state, sync) and time.monotonic() < until:
        with state.write() as connection:
            lease.check(connection)
        time.sleep(POLL_SECONDS)
    with hold(state, sync, lease.run) as held:
        yield held


def _due(mended: pl.DataFrame) -> pl.DataFrame:
    """Entries of the due list (DUE_SCHEMA): what Batch lost goes whole."""
    nothing = pl.lit(0.0)
    return mended.select(
        pl.col(KEY).alias("key"),
        pl.lit("drift").alias("reason"),
        drift.lost().alias("whole"),
        nothing.alias("not_before"),
        nothing.alias("quiet_until"),
        pl.col(ROW_HASH).alias("source_hash"),
    )


def _judged(report: ReconcileReport, mendable: int) -> ReconcileReport:
    """Green, or incomplete where a drift is left."""
    left = report.missing + report.differing - report.healed
    if not left:
        return report
    said = f"profiles that Batch lost or holds otherwise: {report.missing + report.differing}, healed: {report.healed}"
    why = [said]
    if mendable and not report.healed:
        why.append(f"to make them due: connector reconcile {report.sync} --heal")
    if mendable < report.missing + report.differing:
        why.append("consent that differs is healed only with consent: {owner: warehouse}")
    return report.judged([Reason("drift", text) for text in why])
