"""What an asset and its runs say about themselves: numbers that plot, a summary to read; no key and no value."""

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import dagster as dg

from connector import nested, rules
from connector.config import LOOKBACK, EventSync, ExportSync, ProfileSync, Sync, code_version
from connector.event_mapping import EVENT_ID, OCCURRED_AT
from connector.export_tables import column_name, extracts, table_columns
from connector.plan import Plan
from connector.report import AnyReport, ExportReport, Report

COUNTS = (
    "read", "unchanged", "added", "changed", "retried", "removed", "invalid", "withheld", "already_sent", "skipped",
    "opted_out", "planned", "accepted", "rejected", "held", "expired", "unsent", "undecided", "requests", "retries",
    "throttled", "bytes", "known",
)  # fmt: skip
"""Numbers of a report that become metadata under the same name, zeros too: a plot with holes misleads."""

EXPORT_COUNTS = (
    "rows", "inserted", "duplicates", "quarantined", "mistyped", "files", "bytes", "requests", "throttled",
)  # fmt: skip
"""The same of a pull's report."""


def asset_key(sync: Sync) -> dg.AssetKey:
    """The key of the sync's asset: an export's is its table's schema and name, so that dbt can depend on it."""
    return dg.AssetKey(_table_key(sync.table) if isinstance(sync, ExportSync) else ["batch", sync.name])


def upstream_key(sync: Sync) -> dg.AssetKey | None:
    """The key of the table that the sync reads: as the YAML names it, else schema and table; None for a query."""
    key = None
    if sync.dagster.upstream:
        key = dg.AssetKey(list(sync.dagster.upstream))
    elif not isinstance(sync, ExportSync) and sync.source.table:
        key = dg.AssetKey(_table_key(sync.source.table))
    # A schema may be called batch, and an asset cannot depend on itself.
    return None if key == asset_key(sync) else key


def _table_key(table: str) -> list[str]:
    """Schema and name of a table, as dbt's assets are called; its database stands in no key."""
    return [part.strip('"') for part in re.findall(r'"[^"]+"|[^."]+', table)[-2:]]


def definition_metadata(sync: Sync) -> dict[str, Any]:
    """Columns, and where each comes from; nothing without an `attributes` block: a run finds them out."""
    metadata: dict[str, Any] = {}
    if isinstance(sync, ExportSync):
        metadata["dagster/column_schema"] = dg.TableSchema(columns=list(_export_columns(sync)))
        metadata["dagster/table_name"] = sync.table
    elif sync.attributes:
        columns = list(_event_columns(sync) if isinstance(sync, EventSync) else _profile_columns(sync))
        metadata["dagster/column_schema"] = dg.TableSchema(columns=[column.described() for column in columns])
        if upstream := upstream_key(sync):
            lineage = {
                column.name: [dg.TableColumnDep(asset_key=upstream, column_name=column.source)] for column in columns
            }
            metadata["dagster/column_lineage"] = dg.TableColumnLineage(deps_by_column=lineage)
    return metadata


def description(sync: Sync) -> str:
    """A sentence or a few for the asset's page."""
    if isinstance(sync, ExportSync):
        return _described_export(sync)
    source = sync.source.table or sync.source.query_file or "a query"
    mode = f"incrementally by `{sync.cursor.column or sync.cursor.feed}`" if sync.cursor else "whole"
    rows = f"Rows of `{source}` (warehouse `{sync.warehouse}`), read {mode}"
    if isinstance(sync, ProfileSync):
        return (
            f"{rows}, as profiles of Batch with `{sync.key}` as custom ID. "
            "Only attributes that changed since Batch last accepted them are sent."
        )
    name = f"`{sync.event}`" if isinstance(sync.event, str) else f"named by `{sync.event.column}`"
    days = " A partition is a day of that time (UTC); a run without one reads as above." if sync.partitions else ""
    return (
        f"{rows}, as events {name} of Batch's profiles with `{sync.key}` as custom ID, at the time in `{sync.time}`. "
        f"An event that Batch has accepted is not sent again.{days}"
    )


def _described_export(sync: ExportSync) -> str:
    what = {
        "attributes": "Attributes of Batch's profiles, as an export has them",
        "events": "Events of Batch's profiles, merged by event id",
        "reachability": "Opt-ins, opt-outs and changed addresses of Batch's profiles, merged by event id",
    }[sync.export]
    how = f" ({sync.write})" if sync.export == "attributes" else ""
    days = f" A partition is a day (UTC); Batch has the last {LOOKBACK.days} of them." if sync.partitions else ""
    return f"{what}, in table `{sync.table}` of warehouse `{sync.warehouse}`{how}.{days}"


def report_metadata(report: AnyReport, sync: Sync) -> dict[str, Any]:
    """Every number of the report under its own name, `seconds_…` for times, and what a person wants to read first."""
    seconds = {f"seconds_{name}": round(getattr(report.seconds, name), 3) for name in report.seconds.__slots__}
    ended = {"outcome": report.outcome, "run": report.run, "code_version": code_version(sync)}
    if isinstance(report, ExportReport):
        window = {name: value for name in ("since", "until") if (value := getattr(report, name))}
        return {
            "summary": dg.MetadataValue.md(_summary(report, EXPORT_COUNTS)),
            **ended,
            **window,
            "export_id": report.export_id or "",
            "dagster/row_count": report.rows,
            **{name: getattr(report, name) for name in EXPORT_COUNTS},
            **seconds,
        }
    return {
        "summary": dg.MetadataValue.md(_summary(report, COUNTS)),
        **ended,
        "full": report.full,
        "dagster/row_count": report.accepted if isinstance(sync, EventSync) else report.known,
        **{name: getattr(report, name) for name in COUNTS},
        **seconds,
        **_closing(report),
    }


def plan_metadata(plan: Plan, sync: Sync) -> dict[str, Any]:
    """The report's numbers as planned, and what sending would take; no sample of keys."""
    rows = "\n".join(f"| `{name}` | {rows} |" for name, rows in plan.by_attribute.items())
    # A row count would claim that something is in Batch now.
    planned = {name: value for name, value in report_metadata(plan.report, sync).items() if "row_count" not in name}
    return {
        **planned,
        "dry_run": True,
        "calls": plan.calls,
        "bytes": plan.bytes,
        "minutes": plan.minutes,
        "by_attribute": dg.MetadataValue.md(f"| attribute | rows |\n|---|--:|\n{rows}"),
    }


class _Column(NamedTuple):
    """An attribute that is sent, and the source's column that it comes from."""

    name: str
    type: str | None
    source: str
    note: str

    def described(self) -> dg.TableColumn:
        return dg.TableColumn(self.name, self.type or "inferred", f"column {self.source}; {self.note}")


def _export_columns(sync: ExportSync) -> Iterator[dg.TableColumn]:
    """The table's columns; the type of an attribute of the project's own is that of the sync that sends it."""
    types = {name: rules.NATIVE_TYPES.get(name) for name in sync.attributes}
    unknown = {column_name(name) for name, type_ in types.items() if type_ is None}
    for name, type_ in table_columns(extracts(sync.export, sync.identifiers, types)):
        yield dg.TableColumn(name, "inferred" if name in unknown else type_)


def _profile_columns(sync: ProfileSync) -> Iterator[_Column]:
    for name, mapping in (sync.attributes or {}).items():
        note = f"a null {'leaves' if mapping.on_null == 'keep' else 'clears'} the attribute"
        yield _Column(name, mapping.type or rules.NATIVE_TYPES.get(name), mapping.column, note)


def _event_columns(sync: EventSync) -> Iterator[_Column]:
    for name, mapping in (sync.attributes or {}).items():
        yield _Column(name, mapping.type or nested.NATIVE_TYPES.get(name), mapping.column, "a null is left out")
    if sync.id:
        yield _Column(EVENT_ID, "string", sync.id, "the event's stable id")
    if sync.late == "restamp":
        yield _Column(OCCURRED_AT, "date", sync.time, "the real time of an event that is sent late")


def _closing(report: Report) -> dict[str, Any]:
    """Until when the oldest event that was not sent can go, and the hours that the oldest to send had left."""
    found: dict[str, Any] = {}
    if report.margin is not None:
        found["margin_hours"] = round(report.margin / 3600, 2)
    if report.closes is not None:
        hours = round((report.closes - time.time()) / 3600, 2)
        found |= {"window_closes": dg.MetadataValue.timestamp(report.closes), "hours_left": hours}
    return found


def _summary(report: AnyReport, counts: Iterable[str]) -> str:
    shown = [name for name in counts if getattr(report, name) or name in ("read", "planned", "accepted", "rows")]
    rows = "\n".join(f"| {name} | {getattr(report, name):,} |" for name in shown)
    notes = () if isinstance(report, ExportReport) else report.notes
    reasons = "".join(f"\n- {sentence}" for sentence in (*report.reasons, *notes))
    return f"**{report.outcome}**\n{reasons}\n\n| | |\n|---|--:|\n{rows}"
