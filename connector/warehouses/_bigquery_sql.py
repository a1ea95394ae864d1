"""The SQL of a BigQuery read: names, what each type is read as, and the conditions of windows and keys."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple, Protocol

import polars as pl

from connector.errors import WarehouseError
from connector.warehouses._base import Changes, Keys, Window

KEY_BYTES = 5_000_000
"""Keys looked up by one statement, as JSON: many, for each statement is billed; a request has 10 MB at the most."""

FEW_KEYS = 1000
"""Keys compared one by one, by which BigQuery skips blocks; more would touch them all, and are joined."""

_ENVELOPE = len('{"value": },')

ROWS = "_connector_rows"
"""The alias of what is read: a column keeps its meaning whatever the aliases beside it are."""

_ONE_SELECT = "write exactly one SELECT statement"
_BEGINNINGS = ("SELECT", "WITH", "FROM", "(")
"""What a query may begin with; FROM where it is in pipe syntax."""

_LEGACY = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""Names that the API gives to types of SQL."""

_SCALARS: dict[str, pl.DataType] = {
    "STRING": pl.String(),
    "INT64": pl.Int64(),
    "FLOAT64": pl.Float64(),
    "BOOL": pl.Boolean(),
    "BYTES": pl.Binary(),
    "DATE": pl.Date(),
    "TIME": pl.Time(),
    "DATETIME": pl.Datetime("us"),
    "TIMESTAMP": pl.Datetime("us", "UTC"),
    "JSON": pl.String(),
    "NUMERIC": pl.Decimal(38, 9),
}
"""Types as they arrive. GEOGRAPHY, INTERVAL and RANGE would come as texts that nobody asked for."""

_TOKEN = re.compile(
    r"""(?P<idle>\s+|(?:--|\#)[^\n]*|/\*.*?\*/)
      | (?P<end>;)
      | \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
      | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `(?:\\.|[^`\\])*`
      | [^\s;"'`\#/-]+ | .""",
    re.VERBOSE | re.DOTALL,
)


class Declared(Protocol):
    """A column as the API declares it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def field_type(self) -> str:
        """Its type, by one of two names."""

    @property
    def mode(self) -> str:
        """NULLABLE, REQUIRED or REPEATED."""

    @property
    def precision(self) -> int | None:
        """Digits of a decimal that limits them."""

    @property
    def scale(self) -> int | None:
        """Digits after the point of a decimal that limits them."""

    @property
    def fields(self) -> Sequence["Declared"]:
        """The fields of a STRUCT."""


class Field(NamedTuple):
    """A column, its type as SQL writes it, and the SQL that reads it."""

    name: str
    type: str
    dtype: pl.DataType
    """`pl.Object` where it cannot be read."""
    sql: str
    json: bool


class Parameter(NamedTuple):
    """A bound parameter; an array where its value is a list."""

    name: str
    type: str
    value: datetime | date | Sequence[int | float | str]


class Selection(NamedTuple):
    """A condition, `WHERE` included, and its parameters."""

    where: str = ""
    parameters: tuple[Parameter, ...] = ()


def field(declared: Declared) -> Field:
    """How a column is read. BIGNUMERIC becomes NUMERIC: what has no place there fails, more digits are rounded."""
    type_, column = _type(declared), _column(declared.name)
    if type_ == "BIGNUMERIC":
        return Field(declared.name, type_, _decimal(declared), f"CAST({column} AS NUMERIC)", json=False)
    return Field(declared.name, type_, _dtype(declared) or pl.Object(), column, json=type_ == "JSON")


def _type(declared: Declared) -> str:
    name = _LEGACY.get(declared.field_type, declared.field_type)
    if name == "STRUCT":
        name = f"STRUCT<{', '.join(f'{quoted(each.name)} {_type(each)}' for each in declared.fields)}>"
    return f"ARRAY<{name}>" if declared.mode == "REPEATED" else name


def _dtype(declared: Declared) -> pl.DataType | None:
    """The Polars type; None where it has none."""
    name = _LEGACY.get(declared.field_type, declared.field_type)
    if name == "STRUCT":
        inner = {each.name: _dtype(each) for each in declared.fields}
        dtype: pl.DataType | None = None if None in inner.values() else pl.Struct(inner)  # type: ignore[arg-type]
    else:
        dtype = _decimal(declared) if name == "NUMERIC" else _SCALARS.get(name)
    return pl.List(dtype) if dtype is not None and declared.mode == "REPEATED" else dtype


def _decimal(declared: Declared) -> pl.DataType:
    """NUMERIC's type: whole numbers where its declaration allows no others, for those become integer attributes."""
    return pl.Decimal(38, 0) if declared.precision and not declared.scale else pl.Decimal(38, 9)


def select(fields: Sequence[Field], source: str) -> str:
    """`SELECT` the columns, each under its field's name, `FROM` the source."""
    columns = ", ".join(f"{field.sql} AS {quoted(field.name)}" for field in fields)
    return f"SELECT {columns} FROM {source} AS {ROWS}"  # noqa: S608 - every name is quoted


def within(field: Field, window: Window) -> Selection:
    """The rows of a window; the column stays bare, so that BigQuery skips partitions and blocks.

    Raises:
        WarehouseError: The column is neither a timestamp nor a date.
    """
    since: datetime | date | None
    until: datetime | date
    since, until = window.since, window.until
    if field.type in ("DATETIME", "DATE"):
        since, until = window.wall_times()
        if field.type == "DATE":  # a day's stamp is written until the day ends
            since, until = since and since.date(), (until + timedelta(days=1, microseconds=-1)).date()
    elif field.type != "TIMESTAMP":
        raise WarehouseError(
            f"the column '{field.name}' has the type {field.type}, which is neither a timestamp nor a date",
            remedy="choose another cursor, or cast it in a query",
        )
    column = _column(field.name)
    upper = Selection(f" WHERE {column} < @until", (Parameter("until", field.type, until),))
    if since is None:
        return upper
    return Selection(
        f"{upper.where} AND {column} >= @since", (*upper.parameters, Parameter("since", field.type, since))
    )


def among(field: Field, keys: Keys) -> list[Selection]:
    """The rows of the keys, in slices. A number matches in the mapping's spelling alone: 7, not 007 or 7.0.

    Raises:
        WarehouseError: The column's type cannot be a key.
    """
    distinct: Iterable[str | int | float] = dict.fromkeys(keys.values)
    match field.type:
        case "STRING":
            pass
        case "INT64":
            distinct = (number for number in _whole(keys) if -(2**63) <= number < 2**63)
        case "FLOAT64":
            distinct = (float(number) for number in _whole(keys) if abs(number) < 2**64 and number == float(number))
        case "NUMERIC" | "BIGNUMERIC":
            distinct = (str(number) for number in _whole(keys) if abs(number) < 10**29)
        case _:
            raise WarehouseError(
                f"the key column '{field.name}' has the type {field.type}, allowed are text and numbers",
                remedy="cast it to text in a query",
            )
    return [_matching(field, slice_) for slice_ in _slices(distinct)]


def _matching(field: Field, keys: list[str | int | float]) -> Selection:
    among = "UNNEST(@keys)" if len(keys) <= FEW_KEYS else "(SELECT key FROM UNNEST(@keys) AS key)"
    return Selection(f" WHERE {_column(field.name)} IN {among}", (Parameter("keys", field.type, keys),))


def _whole(keys: Keys) -> Iterator[int]:
    """The keys that are whole numbers in the mapping's spelling, each once."""
    return (int(key) for key in dict.fromkeys(keys.values) if re.fullmatch(r"0|-?[1-9][0-9]{0,38}", key))


def _slices(values: Iterable[str | int | float]) -> Iterator[list[str | int | float]]:
    slice_: list[str | int | float] = []
    size = 0
    for value in values:
        size += len(json.dumps(value)) + _ENVELOPE
        if size > KEY_BYTES and slice_:
            yield slice_
            slice_, size = [], len(json.dumps(value)) + _ENVELOPE
        slice_.append(value)
    if slice_:
        yield slice_


def changed(field: Field, table: str, changes: Changes) -> Selection:
    """Today's rows of the keys that were written then."""
    key = quoted(field.name)
    among = f"SELECT {key} FROM CHANGES(TABLE {table}, @since, @until)"  # noqa: S608 - names are quoted
    return Selection(f" WHERE {_column(field.name)} IN ({among})", _bounds(changes))


def added(table: str, changes: Changes) -> tuple[str, list[Selection]]:
    """What stands after FROM for the rows that were added then, and its parameters."""
    return f"APPENDS(TABLE {table}, @since, @until)", [Selection("", _bounds(changes))]


def _bounds(changes: Changes) -> tuple[Parameter, ...]:
    return Parameter("since", "TIMESTAMP", changes.since), Parameter("until", "TIMESTAMP", changes.until)


def newest(selection: Selection, key: Field, cursor: Field) -> Selection:
    """Of the selected rows with one key those with the highest cursor; rows that tie or have no key all stay."""
    column = _column(key.name)
    same = f"CAST({column} AS STRING)" if key.type == "FLOAT64" else column  # BigQuery groups by no FLOAT64
    order = f"PARTITION BY {same} ORDER BY {_column(cursor.name)} DESC NULLS LAST"
    where = selection.where or " WHERE TRUE"
    return selection._replace(where=f"{where} QUALIFY RANK() OVER ({order}) = 1 OR {column} IS NULL")


def table(name: str, project: str, dataset: str | None) -> tuple[str, str, str]:
    """A table's project, dataset and own name; backticks, as pasted from a query, do not count.

    Raises:
        WarehouseError: It is not one to three parts, or names no dataset where there is no default.
    """
    *owner, own = name.replace("`", "").rsplit(".", 2)
    parts = [*[project, dataset][: 2 - len(owner)], *owner, own]
    if not all(parts):
        raise WarehouseError(
            f"the table name '{name}' is not of the form dataset.table or project.dataset.table",
            remedy="write it so, or set the warehouse's `dataset`",
        )
    return str(parts[0]), str(parts[1]), own


def subquery(query: str) -> str:
    """The query in brackets, without the semicolon that may end it.

    Raises:
        WarehouseError: It is not one SELECT.
    """
    tokens = list(_TOKEN.finditer(query))
    statements: list[list[str]] = [[]]
    for token in tokens:
        if token["end"]:
            statements.append([])
        elif not token["idle"]:
            statements[-1].append(token[0])
    if len(given := [statement for statement in statements if statement]) != 1:
        raise WarehouseError(f"the query holds {len(given)} statements", remedy=_ONE_SELECT)
    if not (begins := re.match(r"\(|\w+", given[0][0])) or begins[0].upper() not in _BEGINNINGS:
        require_select(begins[0].upper() if begins else "?")
    text = "".join(token[0] for token in tokens if not token["end"])
    return f"(\n{text}\n)"


def require_select(kind: str | None) -> None:
    """Refuse a statement that is no SELECT, by the type that BigQuery gives it.

    Raises:
        WarehouseError: It is none.
    """
    if kind != "SELECT":
        raise WarehouseError(f"the query is a statement of type {kind}", remedy=_ONE_SELECT)


def quoted(name: str) -> str:
    """An identifier of SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _column(name: str) -> str:
    return f"{ROWS}.{quoted(name)}"
