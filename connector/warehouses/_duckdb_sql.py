"""The SQL of a DuckDB read: names, what each type is read as, and the conditions of windows and keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from duckdb.sqltypes import DuckDBPyType

from connector.errors import WarehouseError
from connector.warehouses._base import Keys, Window
from connector.warehouses._names import parts, quoted

KEY_SLICE = 100_000
"""Keys looked up by one statement, that is by one scan of the source: many, for few scans; bounded, for memory."""

KEYS = "#keys"
"""The table, of one text column `k`, that a statement's keys are in."""

_NAIVE = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
_SIGNED = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_UNSIGNED = ("utinyint", "usmallint", "uinteger", "ubigint")
_NUMBERS = (*_SIGNED, *_UNSIGNED, "float", "double", "decimal")
_TEXT = ("varchar", "enum")
_AS_JSON = ("variant", "map")
_OPAQUE = ("interval", "union", "bignum", "varint", "bit", "geometry", "uhugeint", *_AS_JSON)
"""Types that Polars refuses, panics at, or (uhugeint from 2^127) reads wrongly."""


class Field(NamedTuple):
    """A column as DuckDB declares it, and the SQL that reads it."""

    name: str
    type: DuckDBPyType
    sql: str | None
    """None: it cannot be read."""
    json: bool


class Selection(NamedTuple):
    """A condition, `WHERE` included, and what it refers to.

    Not parameters: with those, DuckDB 1.5 would hold the whole result instead of streaming it.
    """

    where: str = ""
    variables: Mapping[str, datetime] = MappingProxyType({})
    keys: Sequence[str] = ()


def field(name: str, type_: DuckDBPyType) -> Field:
    """How a column is read. MAP and VARIANT become JSON, seconds microseconds; what Polars cannot hold has no SQL."""
    column = quoted(name)
    if type_.id in _AS_JSON:  # DuckDB 1.5 casts a null VARIANT to the text 'null', hence the CASE
        json = f"CASE WHEN {column} IS NOT NULL THEN CAST({column} AS JSON) END"
        return Field(name, type_, json, json=True)
    if type_.id == "timestamp_s":  # Polars would widen its infinity to a moment of 1969
        return Field(name, type_, f"CAST({column} AS TIMESTAMP)", json=False)
    return Field(name, type_, None if _is_opaque(type_) else column, json=str(type_) == "JSON")


def _is_opaque(type_: DuckDBPyType) -> bool:
    match type_.id:
        case "struct":
            inner = [child for _, child in type_.children]
        case "list" | "array":
            inner = [child for name, child in type_.children if name == "child"]
        case _:
            return type_.id in _OPAQUE
    return any(isinstance(child, DuckDBPyType) and _is_opaque(child) for child in inner)


def select(fields: Sequence[Field]) -> str:
    """`SELECT` and the columns, each under its field's name."""
    return "SELECT " + ", ".join(f"{field.sql} AS {quoted(field.name)}" for field in fields)


def within(field: Field, window: Window) -> Selection:
    """The rows of a window; the column stays bare, so that DuckDB skips row groups.

    Raises:
        WarehouseError: The column is neither a timestamp nor a date.
    """
    column, kind = quoted(field.name), str(field.type)
    if kind == "TIMESTAMP WITH TIME ZONE":
        since, until, bound = window.since, window.until, kind
    elif kind in (*_NAIVE, "DATE"):
        (since, until), bound = window.wall_times(), "TIMESTAMP"
        if since and kind == "DATE":  # a day's stamp is written until the day ends
            since = since.replace(hour=0, minute=0, second=0, microsecond=0)
    else:
        raise WarehouseError(
            f"the column '{field.name}' has the type {kind}, which is neither a timestamp nor a date",
            remedy="choose another column, or cast it in a query",
        )
    upper = f"WHERE {column} < CAST(getvariable('until') AS {bound})"
    if since is None:
        return Selection(upper, {"until": until})
    both = f"{upper} AND {column} >= CAST(getvariable('since') AS {bound})"
    return Selection(both, {"until": until, "since": since})


def among(field: Field, keys: Keys) -> list[Selection]:
    """The rows of the keys, in slices. A number matches in the mapping's spelling alone: 7, not 007 or 7.0.

    Raises:
        WarehouseError: The column's type cannot be a key.
    """
    matching = f"SELECT k FROM {quoted(KEYS)}"  # noqa: S608 - a name of ours
    if field.type.id in (*_NUMBERS, "uuid"):
        # Comparing in the column's own type lets DuckDB skip row groups; casting the column would not.
        value = f"TRY_CAST(k AS {field.type})"
        spelt = value if field.type.id == "uuid" else f"TRY_CAST({value} AS HUGEINT)"
        matching = f"SELECT {value} FROM ({matching}) WHERE CAST({spelt} AS VARCHAR) = k"  # noqa: S608
    elif field.type.id not in _TEXT:
        raise WarehouseError(
            f"the key column '{field.name}' has the type {field.type}, allowed are text, numbers and UUID",
            remedy="cast it to text in a query",
        )
    distinct = list(dict.fromkeys(keys.values))
    slices = (distinct[start : start + KEY_SLICE] for start in range(0, len(distinct), KEY_SLICE))
    return [Selection(f"WHERE {quoted(field.name)} IN ({matching})", keys=slice_) for slice_ in slices]


def newest(selection: Selection, key: str, cursor: str) -> Selection:
    """Of the selected rows with one key those with the highest cursor; rows that tie or have no key all stay."""
    order = f"PARTITION BY {quoted(key)} ORDER BY {quoted(cursor)} DESC NULLS LAST"
    return selection._replace(where=f"{selection.where} QUALIFY rank() OVER ({order}) = 1 OR {quoted(key)} IS NULL")


def table(name: str) -> str:
    """A table's name, quoted part by part.

    Raises:
        WarehouseError: It is not one to three parts.
    """
    return ".".join(quoted(part.text) for part in parts(name))


def literal(text: str) -> str:
    """A text constant of SQL."""
    return "'" + text.replace("'", "''") + "'"
