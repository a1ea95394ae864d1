"""Who has unsubscribed at Batch, by the exports that were loaded: nobody is subscribed again behind their back."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl

from connector.config import ExportSync, ProfileSync, Project
from connector.errors import WarehouseError
from connector.export_requests import scope
from connector.export_tables import column_name
from connector.rules import CONSENT
from connector.state import exports
from connector.state.database import State
from connector.state.exports import Asked
from connector.task import named
from connector.warehouses._base import Relation

_NOTHING_SAID = pl.Schema({
    "key": pl.String(), "attribute": pl.String(), "state": pl.String(), "at": pl.Datetime("us", "UTC"),
})  # fmt: skip

FOLDED_ROWS = 1_000_000
"""Statements that are gathered before only the last ones are kept."""

OptOuts = Mapping[str, pl.Series]
"""The custom IDs that Batch has unsubscribed (String), by attribute name."""


class _Source(NamedTuple):
    """A table that an export was loaded into, and what it tells of."""

    sync: ExportSync
    loaded: Asked
    attributes: list[str]


def opted_out(project: Project, state: State, sync: ProfileSync, attributes: Sequence[str]) -> OptOuts:
    """Who has unsubscribed; empty where the sync does not ask for it, or sends no consent.

    Args:
        project: Holds the exports that tell of it.
        state: Knows which of them were loaded.
        sync: The sync.
        attributes: What it sends.

    Raises:
        WarehouseError: No export that tells of a consent that is sent was loaded yet, or its table cannot be read.
    """
    wanted = [name for name in CONSENT if name in attributes] if sync.respect_opt_out else []
    if not wanted:
        return {}
    sources = [_source(export, state, wanted) for export in project.syncs.values() if isinstance(export, ExportSync)]
    loaded = [source for source in sources if source]
    for name in wanted:
        if not any(name in source.attributes for source in loaded):
            raise WarehouseError(
                f"respect_opt_out: no export that tells of {name} was loaded yet, so nothing was sent",
                remedy=f"run a sync of kind export first: reachability, or attributes with {name}",
            )
    latest = _latest(frame for source in loaded for frame in _statements(project, source))
    refused = latest.filter(pl.col("state") == "unsubscribed")
    return {name: refused.filter(pl.col("attribute") == name)["key"] for name in wanted}


def _source(export: ExportSync, state: State, wanted: Sequence[str]) -> _Source | None:
    """What the export's table tells of what is wanted; None where that is nothing, or it was never loaded."""
    loaded = exports.last_loaded(state, export.name, scope(export))
    if loaded is None or "filter" in loaded.request or "custom_id" not in loaded.request["identifiers"]:
        return None
    # What was asked for then, which the YAML may no longer say.
    had = wanted if export.export == "reachability" else loaded.request.get("attributes", ())
    told = [name for name in wanted if export.tells_of(name) and name in had]
    return _Source(export, loaded, told) if told else None


def _statements(project: Project, source: _Source) -> Iterator[pl.DataFrame]:
    """What the table says: `key`, `attribute`, `state` (subscribed or unsubscribed) and `at` (UTC)."""
    sync, columns = source.sync, [column_name(name) for name in source.attributes]
    events = sync.export == "reachability"
    at = pl.col("occurred_at") if events else pl.lit(source.loaded.asked_at * 1e6).cast(pl.Int64)
    reads = ["custom_id", "export_id", *(["occurred_at"] if events else []), *columns]
    warehouse = project.warehouse(sync)
    with named(sync), warehouse.open(project.root, memory=project.settings.memory // 2) as reader:
        for batch in reader.read(Relation(table=sync.table), reads):
            # Of snapshots the last one counts, whose moment is that of its request.
            rows = batch if events else batch.filter(pl.col("export_id") == source.loaded.export_id)
            for name, column in zip(source.attributes, columns, strict=True):
                yield rows.filter(pl.col("custom_id").is_not_null() & pl.col(column).is_not_null()).select(
                    pl.col("custom_id").alias("key"),
                    pl.lit(name).alias("attribute"),
                    pl.col(column).alias("state"),
                    at.cast(pl.Datetime("us", "UTC")).alias("at"),
                )


def _latest(statements: Iterator[pl.DataFrame]) -> pl.DataFrame:
    """The last statement of each key and attribute."""
    latest = [_NOTHING_SAID.to_frame()]
    for frame in statements:
        latest.append(frame)
        if sum(part.height for part in latest) > FOLDED_ROWS:
            latest = [_last(pl.concat(latest))]
    return _last(pl.concat(latest))


def _last(statements: pl.DataFrame) -> pl.DataFrame:
    """Of each key and attribute the last; where that cannot be told, the one that keeps messages away."""
    refuses = pl.col("state") == "unsubscribed"
    always = pl.lit(datetime(9999, 1, 1, tzinfo=UTC)).cast(pl.Datetime("us", "UTC"))
    at = pl.when(refuses & pl.col("at").is_null()).then(always).otherwise("at").alias("at")
    ordered = statements.with_columns(at).sort("at", refuses, nulls_last=False, maintain_order=True)
    return ordered.unique(["key", "attribute"], keep="last", maintain_order=True)
