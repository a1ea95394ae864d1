"""The model of a sync file of kind `export`."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from connector._model import MistakeError
from connector.config._events import Partitions
from connector.config._scalars import AttributeName, PositiveDuration, Text
from connector.config._sync import SyncBase
from connector.config._wording import listing
from connector.export_tables import ATTRIBUTES_COLUMNS, POSITION, ExportKind, column_name

LOOKBACK = timedelta(days=90)
"""How far back Batch exports events and reachability. Source: Batch's page of the export endpoint."""

_TABLE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}$"
_BY_KIND: dict[str, tuple[ExportKind, ...]] = {
    "attributes": ("attributes",),
    "segment": ("attributes",),
    "write": ("attributes",),
    "allow_empty": ("attributes",),
    "since": ("events", "reachability"),
    "partitions": ("events", "reachability"),
}
"""Keys that not every export has."""

_IDENTIFIERS: dict[ExportKind, tuple[str, ...]] = {
    "attributes": ("custom_id", "installation_ids"),
    "events": ("custom_id", "installation_id"),
    "reachability": ("custom_id", "installation_id"),
}


def _table(name: str) -> str:
    if not re.fullmatch(_TABLE, name):
        raise ValueError("a table's name is table, schema.table or database.schema.table, of letters, digits and '_'")
    return name


def _within_lookback(length: timedelta) -> timedelta:
    if length > LOOKBACK:
        raise ValueError(f"Batch exports the last {LOOKBACK.days} days only; write at most {LOOKBACK.days}d")
    return length


class ExportSync(SyncBase):
    """One sync: what Batch holds becomes rows of a table."""

    kind: Literal["export"] = Field(description="export: what Batch holds becomes rows of a table")
    export: ExportKind = Field(description="what Batch exports")
    attributes: tuple[AttributeName, ...] = Field(
        default=(), description="attributes exports: those to export, each becomes a column"
    )
    identifiers: tuple[Literal["custom_id", "installation_ids", "installation_id"], ...] = Field(
        default=("custom_id",), json_schema_extra={"minItems": 1}, description="what tells whose a row is"
    )
    segment: Text | None = Field(default=None, description="attributes exports: only profiles of this segment's code")
    since: Annotated[PositiveDuration, AfterValidator(_within_lookback)] | None = Field(
        default=None,
        description="events, reachability: the first window (7d, 90d); afterwards from the last one, an hour's overlap",
    )
    table: Annotated[str, AfterValidator(_table), Field(json_schema_extra={"pattern": _TABLE})] = Field(
        description="where the rows land; made if there is none"
    )
    write: Literal["replace", "append"] = Field(
        default="replace",
        description="attributes exports: replace the table's rows, or append; the others merge by event id",
    )
    allow_empty: bool = Field(
        default=False, description="attributes exports: let an export without rows empty a filled table"
    )
    partitions: Partitions | None = Field(
        default=None, description="events, reachability: cuts the asset by event time, for backfills"
    )

    def tells_of(self, consent: str) -> bool:
        """Whether its table says who has unsubscribed by this attribute."""
        everybody = "custom_id" in self.identifiers and self.segment is None
        return everybody and (self.export == "reachability" or consent in self.attributes)

    @property
    def first_window(self) -> timedelta:
        """How far back the first export goes: of reachability as far as Batch does, unless the YAML says otherwise."""
        return self.since or (LOOKBACK if self.export == "reachability" else timedelta(days=7))

    @model_validator(mode="after")
    def _keys_fit_the_export(self) -> Self:
        for key, kinds in _BY_KIND.items():
            if key in self.model_fields_set and self.export not in kinds:
                raise MistakeError(f"{listing(kinds)} exports only, this is one of {self.export}; remove it", key)
        if not self.identifiers:  # pydantic's own bound would also complain of a list whose items are wrong
            raise MistakeError("must not be empty; write at least one", "identifiers")
        allowed = _IDENTIFIERS[self.export]
        for place, name in enumerate(self.identifiers):
            if name not in allowed:
                said = f"an export of {self.export} has no '{name}'; allowed: {listing(allowed)}"
                raise MistakeError(said, "identifiers", place)
        for key in ("identifiers", "attributes"):
            _require_once(key, getattr(self, key))
        _require_columns(self.attributes)
        return self


def _require_once(key: str, names: tuple[str, ...]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise MistakeError(f"'{name}' stands here twice; remove one", key, place)


def _require_columns(attributes: tuple[str, ...]) -> None:
    """Every attribute has a column of its own."""
    taken = dict.fromkeys((POSITION, *(column.name for column in ATTRIBUTES_COLUMNS)), "every export")
    for place, name in enumerate(attributes):
        column = column_name(name)
        if column in taken:
            raise MistakeError(
                f"its column '{column}' would be that of {taken[column]}; remove one", "attributes", place
            )
        taken[column] = f"'{name}'"
