"""The SQL of a Snowflake read: names, what each type is read as, and the conditions of windows and keys."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import polars as pl

from connector.errors import WarehouseError
from connector.warehouses._base import Changes, Keys, Relation, Window
from connector.warehouses._names import Part, parts, quoted

KEY_SLICE = 20_000
"""Keys looked up by one statement: with 512 characters each they stay below the 16 MB of a bound text."""

_INT64_DIGITS = 18
"""Digits that surely fit into 64 bits; longer numbers come as decimals."""

_PLAIN_NAME = re.compile(r"[A-Z_][A-Z0-9_$]*")
_REMEDY = "write exactly one SELECT statement"

_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* | //[^\n]* | /\*.*?\*/ | \s+ )
  | (?P<literal> '(?:[^'\\]|\\.|'')*' | "(?:[^"]|"")*" | \$\$.*?\$\$ )
  | (?P<word> \w+ )
  | .
    """,
    re.VERBOSE | re.DOTALL,
)

_NEARLY_A_DAY = timedelta(days=1) - timedelta.resolution
_UTC = pl.Datetime("us", "UTC")

# https://docs.snowflake.com/en/developer-guide/python-connector/python-connector-api#label-python-connector-type-codes
_TYPES: dict[int, tuple[str, pl.DataType]] = {
    1: ("FLOAT", pl.Float64()),
    2: ("TEXT", pl.String()),
    3: ("DATE", pl.Date()),
    4: ("TIMESTAMP_NTZ", pl.Datetime("us")),
    5: ("VARIANT", pl.String()),
    6: ("TIMESTAMP_LTZ", _UTC),
    7: ("TIMESTAMP_TZ", _UTC),
    8: ("TIMESTAMP_NTZ", pl.Datetime("us")),
    9: ("OBJECT", pl.String()),
    10: ("ARRAY", pl.String()),
    11: ("BINARY", pl.Object()),
    12: ("TIME", pl.Object()),
    13: ("BOOLEAN", pl.Boolean()),
    14: ("GEOGRAPHY", pl.Object()),
    15: ("GEOMETRY", pl.Object()),
    16: ("VECTOR", pl.Object()),
    17: ("MAP", pl.Object()),
}
_NUMBER = 0
_JSON = ("VARIANT", "OBJECT", "ARRAY")


class Described(NamedTuple):
    """A column as the driver describes it."""

    name: str
    code: int
    precision: int | None
    scale: int | None


class Field(NamedTuple):
    """A column as Snowflake declares it, and the type that it is read as."""

    name: str
    type: str
    dtype: pl.DataType
    """`pl.Object`: it cannot be read."""
    whole_digits: int = 0
    """Of a number, those before the point."""

    @property
    def json(self) -> bool:
        """Whether its text is JSON."""
        return self.type in _JSON


class Selection(NamedTuple):
    """A condition, `WHERE` included, and the texts bound to its question marks."""

    where: str = ""
    bound: tuple[str, ...] = ()


def field(column: Described) -> Field:
    """How a column is read."""
    if column.code != _NUMBER:
        unknown = f"of code {column.code}", pl.Object()
        return Field(column.name, *_TYPES.get(column.code, unknown))
    precision, scale = column.precision or 38, column.scale or 0
    dtype: pl.DataType = pl.Decimal(precision, scale)
    if scale == 0:
        dtype = pl.Int64() if precision <= _INT64_DIGITS else pl.Decimal(38, 0)
    return Field(column.name, f"NUMBER({precision},{scale})", dtype, max(precision - scale, 1))


def select(fields: Sequence[tuple[Field, str]], rows: str) -> str:
    """The statement that reads each column of `rows` under the name asked for; a condition may follow it."""
    columns = ", ".join(f"{quoted(found.name)} AS {quoted(name)}" for found, name in fields)
    return f"SELECT {columns} FROM {rows}"  # noqa: S608 - names are quoted, a query is the user's own


def source(relation: Relation) -> str:
    """What stands after FROM.

    Raises:
        WarehouseError: The table's name is malformed, or the query is not one SELECT.
    """
    if relation.query is not None:
        # On lines of its own: its last one may end in a comment.
        return f"(\n{one_select(relation.query)}\n)"
    return ".".join(quoted(stored(part)) for part in parts(relation.table or ""))


def written_in(relation: Relation, changes: Changes) -> str:
    """What stands after FROM for the table's rows that were written then; its end counts too, as Snowflake has it.

    The moments are literals: time travel takes constants alone.

    Raises:
        WarehouseError: The table's name is malformed.
    """
    since, until = (f"'{moment.isoformat()}'::TIMESTAMP_TZ" for moment in (changes.since, changes.until))
    kind = "DEFAULT" if changes.key else "APPEND_ONLY"
    return f"{source(relation)} CHANGES (INFORMATION => {kind}) AT (TIMESTAMP => {since}) END (TIMESTAMP => {until})"


def stored(part: Part) -> str:
    """The name that Snowflake keeps: without quotes it is folded to upper case."""
    return part.text if part.in_quotes else part.text.upper()


def written(name: str) -> str:
    """A stored name as it is written in YAML: in lower case where Snowflake would fold it back."""
    return name.lower() if _PLAIN_NAME.fullmatch(name) else quoted(name)


def one_select(query: str) -> str:
    """The query without what follows its end.

    Raises:
        WarehouseError: It is not exactly one SELECT, or waits for parameters.
    """
    starts, end, after_end = [], len(query), True
    for token in _TOKEN.finditer(query):
        if token["comment"]:
            continue
        if token[0] == ";":
            end, after_end = min(end, token.start()), True
        elif after_end:
            starts.append(token[0].upper())
            after_end = False
        if token[0] == "?":
            raise WarehouseError("the query has parameters: ?", remedy="write values instead")
    if len(starts) != 1:
        raise WarehouseError(f"the query holds {len(starts)} statements", remedy=_REMEDY)
    if starts[0] not in ("SELECT", "WITH", "("):
        raise WarehouseError(f"the query is a statement that begins with {starts[0][:20]}", remedy=_REMEDY)
    return query[:end]


def within(field: Field, window: Window) -> Selection:
    """The rows of a window; the column stays bare, so that Snowflake skips partitions.

    Raises:
        WarehouseError: The column is neither a timestamp nor a date.
    """
    if field.type in ("TIMESTAMP_TZ", "TIMESTAMP_LTZ"):
        since, until = window.since, window.until
    elif field.type in ("TIMESTAMP_NTZ", "DATE"):
        since, until = window.wall_times()
    else:
        raise WarehouseError(
            f"the column '{field.name}' has the type {field.type}, which is neither a timestamp nor a date",
            remedy="choose another cursor, or cast it in a query",
        )
    if field.type == "DATE":  # both ends up to midnight; the first day whole, as its stamp is written until it ends
        bound = [moment.date().isoformat() for moment in (until + _NEARLY_A_DAY, since) if moment]
    else:
        bound = [moment.isoformat(timespec="microseconds") for moment in (until, since) if moment]
    conditions = [f"{quoted(field.name)} {comparison} CAST(? AS {field.type})" for comparison in ("<", ">=")]
    return Selection("WHERE " + " AND ".join(conditions[: len(bound)]), tuple(bound))


def among(field: Field, keys: Keys) -> list[Selection]:
    """The rows of the keys, in slices. A number matches in the mapping's spelling alone: 7, not 007 or 7.0.

    Raises:
        WarehouseError: The column's type cannot be a key.
    """
    matching = "SELECT CAST(value AS VARCHAR) AS k FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?)))"
    if field.type == "FLOAT" or field.type.startswith("NUMBER"):
        # Comparing in the column's own type lets Snowflake skip partitions; casting the column would not.
        spelt = f"TO_VARCHAR(TRY_CAST(k AS NUMBER({field.whole_digits or 38},0)))"
        matching = f"SELECT TRY_CAST(k AS {field.type}) FROM ({matching}) WHERE {spelt} = k"  # noqa: S608 - no values
    elif field.type != "TEXT":
        raise WarehouseError(
            f"the key column '{field.name}' has the type {field.type}, allowed are text and numbers",
            remedy="cast it to text in a query",
        )
    where = f"WHERE {quoted(field.name)} IN ({matching})"
    distinct = list(dict.fromkeys(keys.values))
    slices = (distinct[start : start + KEY_SLICE] for start in range(0, len(distinct), KEY_SLICE))
    return [Selection(where, (json.dumps(slice_, ensure_ascii=False),)) for slice_ in slices]


def changed(field: Field, relation: Relation, changes: Changes) -> Selection:
    """Today's rows of the keys that were written then.

    Raises:
        WarehouseError: See `written_in`.
    """
    key = quoted(field.name)
    return Selection(f"WHERE {key} IN (SELECT {key} FROM {written_in(relation, changes)})")  # noqa: S608 - quoted


def newest(selection: Selection, key: str, cursor: str) -> Selection:
    """Of the selected rows with one key those with the highest cursor; rows that tie or have no key all stay."""
    order = f"PARTITION BY {quoted(key)} ORDER BY {quoted(cursor)} DESC NULLS LAST"
    return selection._replace(where=f"{selection.where} QUALIFY RANK() OVER ({order}) = 1 OR {quoted(key)} IS NULL")
