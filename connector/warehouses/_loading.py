"""What loading is on every warehouse: whose table it is, what it lacks, and the statements that change it."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from connector.errors import WarehouseError
from connector.warehouses._base import POSITION, ColumnType, Load, TargetColumn

OWN_COLUMNS = ("export_id", "loaded_at")
"""Columns by which a table is known as made by a load."""

AS_IT_WAS = "the table is as it was; mend that and run again"
"""The remedy of failures whose sentence says enough."""


class Dialect(NamedTuple):
    """How a warehouse writes what the statements are made of."""

    quoted: Callable[[str], str]
    """A column's name."""
    types: Mapping[ColumnType, str]
    json: str
    """A value of its JSON type from a text, which stands for `{}`."""


class Statements(NamedTuple):
    """The change to a table: the statements of one transaction."""

    delete: str
    insert: str


def require_plain(load: Load) -> None:
    """Refuse what would become something else in a statement.

    Raises:
        ValueError: The export's ID is not of the form that `Load` asks for, or a merge has no key.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", load.export_id):
        raise ValueError("the export's ID has other characters than letters, digits, '_' and '-'")
    if load.write == "merge" and load.key is None:
        raise ValueError("a merge needs a key")


def staging(own: str, export_id: str) -> str:
    """The name of the table beside `own` that an export's rows wait in."""
    return f"{own}__load_{hashlib.sha256(export_id.encode()).hexdigest()[:10]}"


def missing(load: Load, existing: Sequence[TargetColumn] | None) -> list[TargetColumn]:
    """The load's columns that the table lacks: all of them where there is no table.

    Raises:
        WarehouseError: The table was not made by a load, or a column has another type.
    """
    if existing is None:
        return list(load.columns)
    types = {column.name: column.type for column in existing}
    if not all(name in types for name in OWN_COLUMNS):
        raise WarehouseError(
            f"table '{load.table}' was not made by an export: it has no columns {' and '.join(OWN_COLUMNS)}",
            remedy="name another table, or none that there is",
        )
    for column in load.columns:
        if types.get(column.name, column.type) != column.type:
            raise WarehouseError(
                f"column '{column.name}' of table '{load.table}' is of type {types[column.name]}, "
                f"and the export's is {column.type}",
                remedy="drop or rename the table's column, or name another table",
            )
    return [column for column in load.columns if column.name not in types]


def declared(columns: Sequence[TargetColumn], dialect: Dialect) -> str:
    """The columns and their types, as a statement that makes a table lists them."""
    return ", ".join(f"{dialect.quoted(column.name)} {dialect.types[column.type]}" for column in columns)


def staged(load: Load) -> list[TargetColumn]:
    """The columns of the staging table: those of the files, whose JSON is text."""
    columns = [TargetColumn(name, "text" if type_ == "json" else type_) for name, type_ in load.columns]
    return [*columns, TargetColumn(POSITION, "integer")]


def _rows_in(files: Sequence[Path]) -> int:
    return int(pl.scan_parquet(list(files), glob=False).select(pl.len()).collect().item()) if files else 0


def require_rows(table: str, files: Sequence[Path], came: int) -> None:
    """Refuse to go on with fewer rows than the files of a table have.

    Raises:
        WarehouseError: Some are missing, or came twice.
    """
    if came != (sent := _rows_in(files)):
        raise WarehouseError(f"table '{table}' cannot be written: {came} of {sent} rows came", remedy="run again")


def statements(load: Load, table: str, rows: str, dialect: Dialect) -> Statements:
    """The change that the load is.

    Args:
        load: What is loaded, as `require_plain` wants it.
        table: The table's name in SQL.
        rows: What stands after FROM: the rows of the files.
        dialect: The warehouse's.
    """
    names = [dialect.quoted(column.name) for column in load.columns]
    values = [
        dialect.json.format(f"s.{name}") if column.type == "json" else f"s.{name}"
        for name, column in zip(names, load.columns, strict=True)
    ]
    where = _counts(load, rows, dialect)
    if load.write == "merge" and load.key:
        key = dialect.quoted(load.key)
        where += f" AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.{key} = s.{key})"  # noqa: S608 - names are quoted
    selected = f"SELECT {', '.join(values)} FROM {rows} AS s {where}"  # noqa: S608
    insert = f"INSERT INTO {table} ({', '.join(names)}) {selected}"
    return Statements(f"DELETE FROM {table} WHERE {_replaced(load, dialect)}", insert)  # noqa: S608 - names are quoted


def counted(load: Load, rows: str, dialect: Dialect) -> str:
    """A query of the number of rows that count."""
    return f"SELECT COUNT(*) FROM {rows} AS s {_counts(load, rows, dialect)}"  # noqa: S608 - names are quoted


def _counts(load: Load, rows: str, dialect: Dialect) -> str:
    """The condition of rows that count. By position, not by a window, which would carry whole rows along."""
    if load.key is None or not load.repeated:
        return "WHERE TRUE"
    key, position = dialect.quoted(load.key), dialect.quoted(POSITION)
    each = f"{key}, CASE WHEN {key} IS NULL THEN {position} END"
    return f"WHERE s.{position} IN (SELECT MAX({position}) FROM {rows} AS r GROUP BY {each})"  # noqa: S608 - names are quoted


def _replaced(load: Load, dialect: Dialect) -> str:
    """The condition of the table's rows that this load takes the place of."""
    if load.write == "replace":
        return "TRUE"
    same = f"{dialect.quoted('export_id')} = '{load.export_id}'"
    if load.write == "append" or load.key is None:
        return same
    # A merge recognises its own rows by their key; those without one would come again with each repetition.
    return f"{same} AND {dialect.quoted(load.key)} IS NULL"
