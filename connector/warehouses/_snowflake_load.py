"""Exports loaded into Snowflake: files put on a stage, copied into a staging table, and moved from there at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import snowflake.connector as driver
from snowflake.connector import SnowflakeConnection

from connector.warehouses import _loading as loading
from connector.warehouses import _snowflake_sql as sql
from connector.warehouses._base import ColumnType, Load, Loaded, TargetColumn
from connector.warehouses._names import Part, parts, quoted
from connector.warehouses._snowflake_errors import translated

_TYPES: dict[str, ColumnType] = {
    "TEXT": "text",
    "NUMBER(38,0)": "integer",
    "FLOAT": "float",
    "BOOLEAN": "boolean",
    "TIMESTAMP_TZ": "timestamp",
    "VARIANT": "json",
}
_DIALECT = loading.Dialect(
    lambda name: quoted(name.upper()),  # as Snowflake keeps it, so that people need not quote it
    {**{type_: name for name, type_ in _TYPES.items()}, "text": "VARCHAR"},
    "PARSE_JSON({})",
)

_GRANTS = (
    "grant the role USAGE, CREATE TABLE and CREATE STAGE on the schema, and let it own the table; or CREATE SCHEMA "
    "on the database"
)
_REMEDIES = {
    "": loading.AS_IT_WAS,
    "02": _GRANTS,
    "22": loading.AS_IT_WAS,
    "42501": _GRANTS,
    "42S02": _GRANTS,
    "57014": "raise the warehouse's `statement_timeout`, or let a larger virtual warehouse load",
}
_NOT_THERE = 2003
"""Snowflake's number of "does not exist or not authorized"."""


class SnowflakeLoader:
    """An open session that writes. One thread at a time.

    A client that is killed within the transaction leaves it to Snowflake, which rolls it back, and lets the next load
    wait for its lock for five minutes at most.
    """

    def __init__(self, connection: SnowflakeConnection) -> None:
        self._connection = connection

    def close(self) -> None:
        """End the session, and with it the stages that it made."""
        with suppress(driver.Error):  # a session that broke off is closed, too
            self._connection.close()

    def columns(self, table: str) -> list[TargetColumn] | None:
        """See `Loader.columns`. Needs no virtual warehouse.

        Raises:
            WarehouseError: The table cannot be looked at, or the session ended.
        """
        with self._cursor(f"table '{table}' cannot be read") as cursor:
            try:
                described = cursor.describe(f"SELECT * FROM {_name(parts(table))}")  # noqa: S608 - names are quoted
            except driver.ProgrammingError as error:
                if error.errno == _NOT_THERE:
                    return None
                raise
        found = []
        for each in described:
            field = sql.field(sql.Described(each.name, each.type_code, each.precision, each.scale))
            plain = field.name.lower() if field.name.isupper() else field.name
            found.append(TargetColumn(plain, _TYPES.get(field.type, "other")))
        return found

    def load(self, load: Load) -> Loaded:
        """See `Loader.load`: the files wait in a transient table beside the target, which one transaction takes over.

        Raises:
            WarehouseError: The table was not made by a load, a column has another type, or Snowflake refuses.
        """
        loading.require_plain(load)
        existing = self.columns(load.table)
        lacking = loading.missing(load, existing)
        *owner, own = parts(load.table)
        staging = _name([*owner, Part(loading.staging(own.text, load.export_id), own.in_quotes)])
        with self._cursor(f"table '{load.table}' cannot be written") as cursor:
            self._prepare(cursor, load, None if existing is None else lacking)
            try:
                self._stage(cursor, load, staging)
                return self._move(cursor, load, staging)
            finally:
                with suppress(driver.Error):  # the next load of this export replaces it
                    cursor.execute(f"DROP TABLE IF EXISTS {staging}")

    def _prepare(self, cursor: Any, load: Load, lacking: list[TargetColumn] | None) -> None:  # noqa: ANN401
        """Make the table, where `lacking` is None, or these columns."""
        table = _name(parts(load.table))
        if lacking:
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN {loading.declared(lacking, _DIALECT)}")
        if lacking is not None:
            return
        statement = f"CREATE TABLE IF NOT EXISTS {table} ({loading.declared(load.columns, _DIALECT)})"
        try:
            cursor.execute(statement)
        except driver.ProgrammingError as error:
            *owner, _ = parts(load.table)
            if error.errno != _NOT_THERE or not owner:
                raise
            # Not before: the right to do so is needed even where the schema is there.
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(owner)}")
            cursor.execute(statement)

    def _stage(self, cursor: Any, load: Load, staging: str) -> None:  # noqa: ANN401
        columns = loading.declared(loading.staged(load), _DIALECT)
        cursor.execute(f"CREATE OR REPLACE TRANSIENT TABLE {staging} ({columns})")
        if load.files:
            cursor.execute(f"CREATE OR REPLACE TEMPORARY STAGE {staging}")
            put(cursor, load.files, staging)
            cursor.execute(
                f"COPY INTO {staging} FROM @{staging} FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE)"
                " MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE ON_ERROR=ABORT_STATEMENT"
            )
        loading.require_rows(load.table, load.files, _number(cursor, f"SELECT COUNT(*) FROM {staging}"))  # noqa: S608

    def _move(self, cursor: Any, load: Load, staging: str) -> Loaded:  # noqa: ANN401
        change = loading.statements(load, _name(parts(load.table)), staging, _DIALECT)
        cursor.execute("BEGIN TRANSACTION")
        try:
            cursor.execute(change.delete)
            inserted = cursor.execute(change.insert).rowcount
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(driver.Error):  # a session that ended rolls back by itself
                cursor.execute("ROLLBACK")
            raise
        if load.write != "merge":
            return Loaded(inserted, inserted)
        return Loaded(_number(cursor, loading.counted(load, staging, _DIALECT)), inserted)

    @contextmanager
    def _cursor(self, what: str) -> Iterator[Any]:
        with translated(what, _REMEDIES), self._connection.cursor() as cursor:
            yield cursor


def _name(name: list[Part]) -> str:
    return ".".join(quoted(sql.stored(part)) for part in name)


def _number(cursor: Any, query: str) -> int:  # noqa: ANN401 - two versions' own class
    (number,) = cursor.execute(query).fetchone()
    return int(number)


def put(cursor: Any, files: Sequence[Path], stage: str) -> None:  # noqa: ANN401
    """Upload the files by plain names: PUT takes some characters for patterns, and the driver 4 fails at quotes."""
    with TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            link = Path(folder, f"{number}.parquet")
            link.symlink_to(file.resolve())
            options = "AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE"
            cursor.execute(f"PUT 'file://{link}' @{stage} {options}")
