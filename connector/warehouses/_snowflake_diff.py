"""A comparison inside Snowflake: the snapshot is a transient table in a schema of ours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import snowflake.connector as driver
from snowflake.connector import SnowflakeConnection

from connector.warehouses import _snowflake_sql as sql
from connector.warehouses._base import Relation
from connector.warehouses._differ import Comparison
from connector.warehouses._diffing import KEYS, MARKS, Dialect, Selected, SqlDiffer, Value, condition
from connector.warehouses._names import Part, parts, quoted
from connector.warehouses._snowflake import SnowflakeReader
from connector.warehouses._snowflake_errors import translated
from connector.warehouses._snowflake_load import put

_GRANTS = (
    "grant the role USAGE, CREATE TABLE and CREATE STAGE on the schema, or CREATE SCHEMA on its database; or set "
    "engine: local in the sync"
)
_REMEDIES = {
    "": "run again; the snapshot is as it was",
    "02": _GRANTS,
    "22": "run again; the snapshot is as it was",
    "42501": _GRANTS,
    "42S02": _GRANTS,
    "57014": "raise the warehouse's `statement_timeout`, or let a larger virtual warehouse compare",
}
_NOT_THERE = 2003


class SnowflakeDiffer(SqlDiffer):
    """An open session whose tables of ours are written."""

    dialect = Dialect(
        lambda name: quoted(name.upper()),
        "BITAND({mask}, {bit}) <> 0",
        {pl.String: "VARCHAR", pl.Int64: "NUMBER(38,0)", pl.Boolean: "BOOLEAN"},
    )

    def __init__(self, connection: SnowflakeConnection, reader: SnowflakeReader, schema: str) -> None:
        self._connection = connection
        self._reader = reader
        self._schema = parts(schema)

    @property
    def reader(self) -> SnowflakeReader:
        """See `Differ.reader`."""
        return self._reader

    def tables(self, prefix: str) -> list[str]:
        """See `Differ.tables`."""
        *database, own = map(sql.stored, self._schema)
        where = "".join(f"{quoted(name)}." for name in database)
        query = (
            f"SELECT TABLE_NAME FROM {where}INFORMATION_SCHEMA.TABLES "  # noqa: S608 - the name is quoted
            "WHERE TABLE_SCHEMA = ? AND STARTSWITH(TABLE_NAME, ?)"
        )
        with self._cursor("read") as cursor:
            found = cursor.execute(query, (own, prefix.upper())).fetchall()
        return [str(name).lower() for (name,) in found]

    def rows(self, table: str) -> int:
        """See `Differ.rows`."""
        with self._cursor("read") as cursor:
            (rows,) = cursor.execute(f"SELECT COUNT(*) FROM {self._name(table)}").fetchone()  # noqa: S608
        return int(rows)

    def read(self, table: str, columns: Sequence[str], side: str | None = None) -> Iterator[pl.DataFrame]:
        """See `Differ.read`."""
        query = self._read(self._name(table), columns, side)
        named = {column.upper(): column for column in columns}
        for frame in self._reader.read(Relation(query=query), list(named)):
            yield frame.rename(named).cast(
                {name: pl.Int64 for name in columns if name in MARKS and MARKS[name] == pl.Int64}
            )

    def make(self, snapshot: str, comparison: Comparison) -> None:
        """See `Differ.make`."""
        query = self._snapshot(comparison, self._selected(comparison, sql.source(comparison.source)))
        statement = f"CREATE OR REPLACE TRANSIENT TABLE {self._name(snapshot)} AS {query}"
        with self._cursor("written") as cursor:
            try:
                cursor.execute(statement)
            except driver.ProgrammingError as error:
                if error.errno != _NOT_THERE:
                    raise
                self._make_schema(cursor)
                cursor.execute(statement)

    def compare(self, comparison: Comparison, snapshot: str, delta: str) -> None:
        """See `Differ.compare`."""
        keys = self._name(f"{delta}_keys") if comparison.keys else None
        selected = self._selected(comparison, sql.source(comparison.source))
        selection = self._selection(comparison)
        where = selection.where
        if comparison.parts:
            k = self.dialect.quoted("k")
            among = f"{selected.text} IN (SELECT {k} FROM {keys})" if keys else "FALSE"  # noqa: S608
            where = f"WHERE ({condition(where) or 'FALSE'}) OR {among}"
        if comparison.latest:
            key, cursor_column = (self._reader.field(comparison.source, name).name for name in comparison.latest)
            where = sql.newest(sql.Selection(where), key, cursor_column).where
        if where:
            selected = selected._replace(rows=f"(SELECT * FROM {selected.rows} {where})")  # noqa: S608
        query = self._delta(comparison, selected, self._name(snapshot), keys)
        with self._cursor("written") as cursor:
            if keys and comparison.keys:
                self._load(cursor, keys, comparison.keys, KEYS)
            cursor.execute(f"CREATE OR REPLACE TRANSIENT TABLE {self._name(delta)} AS {query}", selection.bound or None)
            if keys:
                cursor.execute(f"DROP TABLE IF EXISTS {keys}")

    def settle(self, snapshot: str, delta: str, columns: Sequence[str], marks: Path) -> None:
        """See `Differ.settle`."""
        staging = self._name(f"{delta}_marks")
        with self._cursor("written") as cursor:
            self._load(cursor, staging, marks, MARKS)
            cursor.execute(self._merge(self._name(snapshot), self._name(delta), staging, columns))
            cursor.execute(f"DROP TABLE IF EXISTS {staging}")

    def drop(self, tables: Sequence[str]) -> None:
        """See `Differ.drop`."""
        with self._cursor("written") as cursor:
            for table in tables:
                cursor.execute(f"DROP TABLE IF EXISTS {self._name(table)}")

    def _make_schema(self, cursor: Any) -> None:  # noqa: ANN401
        """Not before it is missed: the right to do so is needed even where the schema is there."""
        here = self._connection.database, self._connection.schema
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(quoted(sql.stored(part)) for part in self._schema)}")
        if all(here):  # Snowflake went into the new one, where the source's name would mean another table
            cursor.execute(f"USE SCHEMA {'.'.join(quoted(str(name)) for name in here)}")

    def _load(self, cursor: Any, table: str, file: Path, columns: Mapping[str, pl.DataType]) -> None:  # noqa: ANN401
        """A table of the file's rows, in place of the one that a killed run may have left."""
        declared = ", ".join(
            f"{self.dialect.quoted(name)} {self.dialect.types[type(dtype)]}" for name, dtype in columns.items()
        )
        cursor.execute(f"CREATE OR REPLACE TRANSIENT TABLE {table} ({declared})")
        cursor.execute(f"CREATE OR REPLACE TEMPORARY STAGE {table}")
        put(cursor, [file], table)
        cursor.execute(
            f"COPY INTO {table} FROM @{table} FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE)"
            " MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE ON_ERROR=ABORT_STATEMENT"
        )

    def _selection(self, comparison: Comparison) -> sql.Selection:
        if comparison.window is None:
            return sql.Selection()
        return sql.within(self._reader.field(comparison.source, comparison.window.column), comparison.window)

    def _selected(self, comparison: Comparison, rows: str) -> Selected:
        fields = [self._reader.field(comparison.source, column) for _, column in comparison.attributes]
        key = self._reader.field(comparison.source, comparison.key)
        values = [Value(quoted(field.name), "TO_JSON({})" if field.json else "{}") for field in fields]
        return Selected(rows, quoted(key.name), _text(key), values)

    def _name(self, table: str) -> str:
        return ".".join(quoted(sql.stored(part)) for part in (*self._schema, Part(table, in_quotes=False)))

    @contextmanager
    def _cursor(self, done: str) -> Iterator[Any]:
        what = f"schema '{'.'.join(part.text for part in self._schema)}' in Snowflake cannot be {done}"
        with translated(what, _REMEDIES), self._connection.cursor() as cursor:
            yield cursor


def _text(field: sql.Field) -> str:
    """The key as the mapping writes it: a number with a fraction is null, as none can be a key."""
    column = quoted(field.name)
    if field.type == "FLOAT" or (field.type.startswith("NUMBER") and not field.type.endswith(",0)")):
        whole = f"{column} = FLOOR({column}) AND ABS({column}) < 9223372036854775808"
        return f"CASE WHEN {whole} THEN CAST(CAST({column} AS NUMBER(38,0)) AS VARCHAR) END"
    return f"CAST({column} AS VARCHAR)"
