"""Exports loaded into a DuckDB file: straight from Parquet, all in one transaction."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from connector.errors import WarehouseError
from connector.warehouses import _duckdb_sql as sql
from connector.warehouses import _loading as loading
from connector.warehouses._base import ColumnType, Load, Loaded, TargetColumn
from connector.warehouses._duckdb_open import MEMORY, database_path, translated
from connector.warehouses._names import parts, quoted

_TYPES: dict[str, ColumnType] = {
    "VARCHAR": "text",
    "BIGINT": "integer",
    "DOUBLE": "float",
    "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "JSON": "json",
}
_DIALECT = loading.Dialect(quoted, {type_: name for name, type_ in _TYPES.items()}, "CAST({} AS JSON)")

_ZSTD_SINCE = (1, 2)
"""The format of files, by DuckDB's version, that can hold the compression that suits JSON lines."""


def writable_path(root: Path, path: str) -> str:
    """The resolved path of the database file.

    Raises:
        WarehouseError: As of `database_path`, or it is no file.
    """
    if path == MEMORY:
        raise WarehouseError(
            f"a warehouse with the path '{MEMORY}' keeps nothing", remedy="name a warehouse whose path is a file"
        )
    return database_path(root, path)


class DuckDBLoader:
    """An open database that is written to. One thread at a time."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: str, settings: Sequence[str], spill: Path | None
    ) -> None:
        self._connection = connection
        self._path = path
        for setting in settings:
            connection.execute(setting)
        if spill:
            connection.execute(f"SET temp_directory = {sql.literal(str(spill))}")

    def columns(self, table: str) -> list[TargetColumn] | None:
        """See `Loader.columns`.

        Raises:
            WarehouseError: The table cannot be looked at.
        """
        with translated(f"table '{table}' in {self._path} cannot be read"):
            try:
                described = self._connection.sql(f"FROM {sql.table(table)}")
            except duckdb.CatalogException:
                return None
        types = (_TYPES.get(str(type_), "other") for type_ in described.types)
        return [TargetColumn(name.lower(), type_) for name, type_ in zip(described.columns, types, strict=True)]

    def load(self, load: Load) -> Loaded:
        """See `Loader.load`: rows go from the files into the table without a stop between.

        Raises:
            WarehouseError: The table was not made by a load, a column has another type, or DuckDB refuses.
        """
        loading.require_plain(load)
        existing = self.columns(load.table)
        lacking = loading.missing(load, existing)
        table, rows = sql.table(load.table), _rows(load)
        change = loading.statements(load, table, rows, _DIALECT)
        with self._transaction(load.table):
            if existing is None:
                self._make(load)
            else:
                for column in lacking:
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {loading.declared([column], _DIALECT)}")
            self._connection.execute(change.delete)
            inserted = self._number(change.insert)
            counted = inserted if load.write != "merge" else self._number(loading.counted(load, rows, _DIALECT))
        return Loaded(counted, inserted)

    def _make(self, load: Load) -> None:
        *owner, _ = parts(load.table)
        if owner:
            schema = ".".join(quoted(part.text) for part in owner)
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        json = _DIALECT.types["json"] + (" USING COMPRESSION zstd" if self._has_zstd() else "")
        dialect = _DIALECT._replace(types={**_DIALECT.types, "json": json})
        self._connection.execute(f"CREATE TABLE {sql.table(load.table)} ({loading.declared(load.columns, dialect)})")

    def _has_zstd(self) -> bool:
        """Whether the file's format knows it: half the size of what DuckDB would choose, in less time."""
        told = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
        (version,) = self._connection.execute(told).fetchall()[0]  # such as v1.0.0+
        numbers = str(version).strip("v+").split(".")
        return all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) >= _ZSTD_SINCE

    def _number(self, statement: str) -> int:
        """The one number that a statement answers with."""
        (number,) = self._connection.execute(statement).fetchall()[0]
        return int(number)

    @contextmanager
    def _transaction(self, table: str) -> Iterator[None]:
        with translated(f"table '{table}' in {self._path} cannot be written", loading.AS_IT_WAS):
            self._connection.begin()
            try:
                yield
                self._connection.commit()
            except BaseException:
                with suppress(duckdb.Error):  # a failed commit has rolled back
                    self._connection.rollback()
                raise


def _rows(load: Load) -> str:
    """The files as a table."""
    if load.files:
        paths = [sql.literal(glob.escape(str(file))) for file in load.files]
        return f"read_parquet([{', '.join(paths)}])"
    columns = (f"CAST(NULL AS {_DIALECT.types[type_]}) AS {quoted(name)}" for name, type_ in loading.staged(load))
    return f"(SELECT {', '.join(columns)} WHERE FALSE)"
