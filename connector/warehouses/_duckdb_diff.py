"""A comparison inside a DuckDB file: the snapshot is a table of it, in a schema of ours."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl

from connector.warehouses import _duckdb_sql as sql
from connector.warehouses._base import Relation
from connector.warehouses._differ import Comparison
from connector.warehouses._diffing import Dialect, Selected, SqlDiffer, Value, condition
from connector.warehouses._duckdb import DuckDBReader
from connector.warehouses._duckdb_open import translated
from connector.warehouses._names import parts, quoted

PASSING = '"#passing"'
"""The database, in memory, of what a comparison makes that may not write."""

_REMEDY = "let this user write to the file, or set engine: local in the sync; the snapshot is as it was"
_INT64 = "BETWEEN -9223372036854775808 AND 9223372036854774784"


class DuckDBDiffer(SqlDiffer):
    """An open database whose tables of ours are written; where it may not, what is made is gone with the connection."""

    dialect = Dialect(
        quoted, "({mask} & {bit}) <> 0", {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Boolean: "BOOLEAN"}
    )

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, reader: DuckDBReader, schema: str, *, write: bool
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._schema = ".".join(quoted(part.text) for part in parts(schema))
        self._own = parts(schema)[-1].text
        self._write = write
        if not write:
            connection.execute(f"ATTACH ':memory:' AS {PASSING} (READ_WRITE)")

    @property
    def reader(self) -> DuckDBReader:
        """See `Differ.reader`."""
        return self._reader

    def tables(self, prefix: str) -> list[str]:
        """See `Differ.tables`."""
        query = "SELECT table_name FROM duckdb_tables() WHERE schema_name = ? AND starts_with(table_name, ?)"
        with self._translated("read"):
            return [name for (name,) in self._connection.execute(query, [self._own, prefix]).fetchall()]

    def rows(self, table: str) -> int:
        """See `Differ.rows`."""
        with self._translated("read"):
            ((rows,),) = self._connection.execute(f"SELECT COUNT(*) FROM {self._name(table)}").fetchall()  # noqa: S608
        return int(rows)

    def read(self, table: str, columns: Sequence[str], side: str | None = None) -> Iterator[pl.DataFrame]:
        """See `Differ.read`."""
        passing = not self._write and side
        name = f"{PASSING}.{quoted(table)}" if passing else self._name(table)
        return self._reader.read(Relation(query=self._read(name, columns, side)), columns)

    def make(self, snapshot: str, comparison: Comparison) -> None:
        """See `Differ.make`."""
        with self._reader.source(comparison.source) as (session, rows), self._translated("written"):
            session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            query = self._snapshot(comparison, self._selected(comparison, rows))
            session.execute(f"CREATE OR REPLACE TABLE {self._name(snapshot)} AS {query}")

    def compare(self, comparison: Comparison, snapshot: str, delta: str) -> None:
        """See `Differ.compare`."""
        keys = _file(comparison.keys) if comparison.keys else None
        with self._reader.source(comparison.source) as (session, rows):
            selection = self._selection(comparison)
            for name, value in selection.variables.items():
                session.execute(f"SET VARIABLE {name} = ?", [value])
            selected = self._selected(comparison, rows)
            where = selection.where
            if comparison.parts:
                among = f"{selected.text} IN (SELECT k FROM {keys})" if keys else "FALSE"  # noqa: S608
                where = f"WHERE ({condition(where) or 'FALSE'}) OR {among}"
            if comparison.latest:
                key, cursor = (self._reader.field(comparison.source, name).name for name in comparison.latest)
                where = sql.newest(sql.Selection(where), key, cursor).where
            if where:
                selected = selected._replace(rows=f"(SELECT * FROM {rows} {where})")  # noqa: S608
            query = self._delta(comparison, selected, self._name(snapshot), keys)
            target = self._name(delta) if self._write else f"{PASSING}.{quoted(delta)}"
            session.execute(f"CREATE OR REPLACE TABLE {target} AS {query}")

    def settle(self, snapshot: str, delta: str, columns: Sequence[str], marks: Path) -> None:
        """See `Differ.settle`."""
        with self._translated("written"):
            self._connection.execute(self._merge(self._name(snapshot), self._name(delta), _file(marks), columns))

    def drop(self, tables: Sequence[str]) -> None:
        """See `Differ.drop`."""
        if not self._write:  # what is passing goes with the connection
            return
        with self._translated("written"):
            for table in tables:
                self._connection.execute(f"DROP TABLE IF EXISTS {self._name(table)}")

    def _name(self, table: str) -> str:
        return f"{self._schema}.{quoted(table)}"

    def _selection(self, comparison: Comparison) -> sql.Selection:
        if comparison.window is None:
            return sql.Selection()
        return sql.within(self._reader.field(comparison.source, comparison.window.column), comparison.window)

    def _selected(self, comparison: Comparison, rows: str) -> Selected:
        fields = [self._reader.field(comparison.source, column) for _, column in comparison.attributes]
        key = self._reader.field(comparison.source, comparison.key)
        return Selected(rows, quoted(key.name), _text(key), [Value(str(field.sql)) for field in fields])

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        with translated(f"schema '{self._own}' cannot be {done}", _REMEDY):
            yield


def _text(field: sql.Field) -> str:
    """The key as the mapping writes it: a number with a fraction is null, as none can be a key."""
    column = quoted(field.name)
    if field.type.id in ("float", "double") or (field.type.id == "decimal" and dict(field.type.children)["scale"]):
        whole = f"{column} = floor({column}) AND {column} {_INT64}"
        return f"CASE WHEN {whole} THEN CAST(CAST({column} AS BIGINT) AS VARCHAR) END"
    return f"CAST({column} AS VARCHAR)"


def _file(path: Path) -> str:
    return f"read_parquet({sql.literal(glob.escape(str(path)))})"
