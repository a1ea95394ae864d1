"""What an asset and its runs say about themselves: numbers that plot, a summary to read; no key and no value."""

import re
from typing import Any

import dagster as dg

from connector.config import ProfileSync, code_version
from connector.mapping import AttributeMapping
from connector.plan import Plan
from connector.report import Report
from connector.rules import NATIVE_TYPES

COUNTS = (
    "read", "unchanged", "added", "changed", "retried", "removed", "invalid", "withheld", "already_sent", "skipped",
    "planned", "accepted", "rejected", "held", "expired", "unsent", "requests", "retries", "throttled", "bytes",
    "known",
)  # fmt: skip
"""Numbers of a report that become metadata under the same name, zeros too: a plot with holes misleads."""


def asset_key(sync: ProfileSync) -> dg.AssetKey:
    """The key of the sync's asset."""
    return dg.AssetKey(["batch", sync.name])


def upstream_key(sync: ProfileSync) -> dg.AssetKey | None:
    """The key of the table that the sync reads: as the YAML names it, else schema and table; None for a query."""
    key = None
    if sync.dagster.upstream:
        key = dg.AssetKey(list(sync.dagster.upstream))
    elif sync.source.table:
        parts = re.findall(r'"[^"]+"|[^."]+', sync.source.table)
        key = dg.AssetKey([part.strip('"') for part in parts[-2:]])
    # A schema may be called batch, and an asset cannot depend on itself.
    return None if key == asset_key(sync) else key


def definition_metadata(sync: ProfileSync) -> dict[str, Any]:
    """Columns, and where each comes from; nothing without an `attributes` block: a run finds them out."""
    metadata: dict[str, Any] = {}
    if sync.attributes:
        columns = [_column(name, mapping) for name, mapping in sync.attributes.items()]
        metadata["dagster/column_schema"] = dg.TableSchema(columns=columns)
        if upstream := upstream_key(sync):
            lineage = {
                name: [dg.TableColumnDep(asset_key=upstream, column_name=mapping.column)]
                for name, mapping in sync.attributes.items()
            }
            metadata["dagster/column_lineage"] = dg.TableColumnLineage(deps_by_column=lineage)
    return metadata


def description(sync: ProfileSync) -> str:
    """A sentence for the asset's page."""
    source = sync.source.table or sync.source.query_file or "a query"
    mode = f"incrementally by `{sync.cursor.column}`" if sync.cursor else "whole"
    return (
        f"Rows of `{source}` (warehouse `{sync.warehouse}`), read {mode}, as profiles of Batch with `{sync.key}` "
        "as custom ID. Only attributes that changed since Batch last accepted them are sent."
    )


def report_metadata(report: Report, sync: ProfileSync) -> dict[str, Any]:
    """Every number of the report under its own name, `seconds_…` for times, and what a person wants to read first."""
    seconds = {f"seconds_{name}": round(getattr(report.seconds, name), 3) for name in report.seconds.__slots__}
    return {
        "summary": dg.MetadataValue.md(_summary(report)),
        "outcome": report.outcome,
        "run": report.run,
        "code_version": code_version(sync),
        "full": report.full,
        "dagster/row_count": report.known,
        **{name: getattr(report, name) for name in COUNTS},
        **seconds,
    }


def plan_metadata(plan: Plan, sync: ProfileSync) -> dict[str, Any]:
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


def _column(name: str, mapping: AttributeMapping) -> dg.TableColumn:
    on_null = "leaves" if mapping.on_null == "keep" else "clears"
    return dg.TableColumn(
        name=name,
        type=mapping.type or NATIVE_TYPES.get(name) or "inferred",
        description=f"column {mapping.column}; a null {on_null} the attribute",
    )


def _summary(report: Report) -> str:
    shown = [name for name in COUNTS if getattr(report, name) or name in ("read", "planned", "accepted")]
    rows = "\n".join(f"| {name} | {getattr(report, name):,} |" for name in shown)
    reasons = "".join(f"\n- {reason}" for reason in report.reasons)
    return f"**{report.outcome}**\n{reasons}\n\n| | |\n|---|--:|\n{rows}"
