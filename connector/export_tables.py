"""What the lines of an export become: the columns of each kind's table, and the expression that fills each.

Batch documents the lines of reachability exports; those of attributes and events are known from third parties, or
modelled on the documented ones. How dates, URLs and arrays come back is not known. All that is assumed about it stands
here: a line's paths (`KINDS`), the two spellings of a name (`spellings`), and the two forms of a date (`typed`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl

from connector.rules import AttributeType

ExportKind = Literal["attributes", "events", "reachability"]

ColumnType = Literal["text", "integer", "float", "boolean", "timestamp", "json", "other"]
"""What a column can be, on every warehouse: integers of 64 bits, times in microseconds and UTC.

`other` is what no export writes: a column that somebody added to the table.
"""

POSITION = "_position"
"""Column of the files for the warehouse, Int64: ascends through all rows of an export; the table does not have it."""

LINE = "raw"
"""The whole line, as JSON text."""

Path = tuple[str, str]
"""An object of a line, and a name in it."""


class TargetColumn(NamedTuple):
    """A column of an export's table."""

    name: str
    """Of the form [a-z][a-z0-9_]{0,60}; where a warehouse folds names, it folds as if unquoted."""
    type: ColumnType


class Extract(NamedTuple):
    """A column, and where its value stands in a line; of several paths the first that holds something counts."""

    column: TargetColumn
    paths: tuple[Path, ...]


_KEPT = (TargetColumn("export_id", "text"), TargetColumn("loaded_at", "timestamp"), TargetColumn(LINE, "json"))
"""What every row has besides."""

ATTRIBUTES_COLUMNS = (TargetColumn("custom_id", "text"), TargetColumn("installation_ids", "json"), *_KEPT)
"""Names that no attribute's column can have."""

_CUSTOM_ID = Extract(TargetColumn("custom_id", "text"), (("identifiers", "custom_id"),))
_PROFILE_ID = Extract(TargetColumn("profile_id", "text"), (("identifiers", "profile_id"),))


def _of_event(name: str, type_: ColumnType = "text", *others: str) -> Extract:
    return Extract(TargetColumn(name, type_), tuple(("event", other) for other in others or (name,)))


_EVENT_COLUMNS = (
    _of_event("event_id", "text", "id"),
    _of_event("name"),
    _of_event("occurred_at", "timestamp", "timestamp"),
    _CUSTOM_ID,
    _PROFILE_ID,
    _of_event("attributes", "json"),
)

_REACHABILITY_COLUMNS = (
    _of_event("event_id", "text", "id"),
    # The page's table calls it export_type in one place; its example says channel.
    _of_event("channel", "text", "channel", "export_type"),
    _of_event("occurred_at", "timestamp", "timestamp"),
    _of_event("reasons", "json"),
    _of_event("has_phone_number", "boolean"),
    _of_event("has_email_address", "boolean"),
    _of_event("sms_marketing"),
    _of_event("email_marketing"),
    _of_event("is_optin", "boolean"),
    _of_event("platform"),
    _PROFILE_ID,
    _CUSTOM_ID,
    Extract(TargetColumn("installation_id", "text"), (("identifiers", "installation_id"),)),
)

_COLUMN_TYPES: Mapping[AttributeType, ColumnType] = {
    "string": "text",
    "integer": "integer",
    "float": "float",
    "boolean": "boolean",
    "date": "timestamp",
    "url": "text",
    "array": "json",
}

_DTYPES: Mapping[ColumnType, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "boolean": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
    "json": pl.String(),
}

_EPOCH_MS = r"^-?[0-9]{1,15}$"


def column_name(attribute: str) -> str:
    """The column of an attribute: its name without the `$`, which not every warehouse takes."""
    return attribute.removeprefix("$")


def key_column(kind: ExportKind) -> str:
    """The column by which two rows are one."""
    return "custom_id" if kind == "attributes" else "event_id"


def extracts(
    kind: ExportKind, identifiers: Sequence[str] = (), attributes: Mapping[str, AttributeType | None] | None = None
) -> list[Extract]:
    """The columns of an export's table that lines fill, in its order.

    Args:
        kind: What is exported.
        identifiers: Asked for; of attributes exports each is a column.
        attributes: Asked for, by name, with the type that Batch keeps each as; None: not known, kept as text.
    """
    if kind == "events":
        return list(_EVENT_COLUMNS)
    if kind == "reachability":
        return list(_REACHABILITY_COLUMNS)
    installations = Extract(TargetColumn("installation_ids", "json"), (("identifiers", "installation_ids"),))
    found = [_CUSTOM_ID, *([installations] if "installation_ids" in identifiers else [])]
    for name, type_ in (attributes or {}).items():
        column = TargetColumn(column_name(name), _COLUMN_TYPES[type_] if type_ else "text")
        found.append(Extract(column, tuple(("attributes", spelling) for spelling in spellings(name, type_))))
    return found


def spellings(attribute: str, type_: AttributeType | None) -> tuple[str, ...]:
    """How an attribute may be called in a line: by its bare name, or as it was sent."""
    if attribute.startswith("$"):
        return (attribute,)
    wrapped = [wrapper for wrapper in ("date", "url") if type_ in (wrapper, None)]
    return (attribute, *(f"{wrapper}({attribute})" for wrapper in wrapped))


def table_columns(found: Sequence[Extract]) -> list[TargetColumn]:
    """All columns of the table."""
    return [*(extract.column for extract in found), *_KEPT]


def typed(text: pl.Expr, type_: ColumnType) -> pl.Expr:
    """A value from its text in a line; null where it is none, or is not of that type.

    Args:
        text: JSON text of an array or object, the characters of a text, the digits of a number, true or false.
        type_: The column's. A timestamp is RFC 3339 (UTC where it names no zone), or milliseconds since 1970.
    """
    match type_:
        case "integer":
            return text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        case "float":
            number = text.cast(pl.Float64, strict=False)
            return pl.when(number.is_finite()).then(number)
        case "boolean":
            return text.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
        case "timestamp":
            return _timestamp(text)
        case _:
            return text


def dtype(type_: ColumnType) -> pl.DataType:
    """How a column's values stand in a file for the warehouse."""
    return _DTYPES[type_]


def _timestamp(text: pl.Expr) -> pl.Expr:
    zoned = text.str.replace(r"[zZ]$", "+00:00").str.replace(" ", "T", literal=True)
    parsed = zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
    rest = pl.when(~text.str.ends_with("Z")).then(zoned)  # mostly nothing, which other forms are not tried on
    naive = [rest.str.to_datetime(form, time_unit="us", strict=False) for form in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")]
    milliseconds = pl.when(rest.str.contains(_EPOCH_MS)).then(rest).cast(pl.Int64, strict=False)
    return pl.coalesce(
        parsed,
        *(form.dt.replace_time_zone("UTC") for form in naive),
        milliseconds.cast(pl.Datetime("ms", "UTC")).dt.cast_time_unit("us"),
    )
