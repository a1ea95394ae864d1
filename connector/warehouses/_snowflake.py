"""An open Snowflake session: logging in, streaming from it, and its errors in our words."""

import json
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import polars as pl
import snowflake.connector as driver
from snowflake.connector import SnowflakeConnection

from connector.errors import WarehouseError
from connector.warehouses import _snowflake_sql as sql
from connector.warehouses import _snowflake_stamp as stamps
from connector.warehouses._base import (
    RECORD_BATCH_ROWS,
    BilledOtherwise,
    Changes,
    Column,
    Keys,
    Latest,
    Relation,
    Window,
)
from connector.warehouses._names import did_you_mean, folded, named, parts, quoted
from connector.warehouses._snowflake_errors import REMEDIES, no_login, translated

APPLICATION = "batch_warehouse_connector"
"""Our name in Snowflake's history of sessions and queries."""

LOGIN_SECONDS = 60
GRACE_SECONDS = 60
"""The client gives a statement up later than Snowflake does, which says why."""

CHUNKS_AHEAD = 2
"""Chunks that are fetched while one is worked at: each may hold 100 MB."""

_IS_VERSION_4 = driver.__version__.startswith("4.")
_OF_VERSION_4 = {"query_timeout": "network_timeout", "private_key_password": "private_key_file_pwd"}
"""What the driver's version 5 renamed."""

_SESSION = {
    "ABORT_DETACHED_QUERY": True,
    "JSON_INDENT": 0,
    "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
    "STRICT_JSON_OUTPUT": True,  # else `undefined` and NaN stand in what is called JSON
    "TIMESTAMP_INPUT_FORMAT": "AUTO",  # an account's own would misread a window's bounds
    "TIMEZONE": "UTC",
}

_PARTS = ("database_name", "schema_name", "name")


def connect(options: Mapping[str, Any], tag: Mapping[str, str], statement_seconds: int) -> SnowflakeConnection:
    """A session in UTC that reads.

    Args:
        options: What the driver is to log in with; a key's passphrase is `private_key_password`.
        tag: What Snowflake's history says of each statement.
        statement_seconds: How long a statement may run.

    Raises:
        WarehouseError: Snowflake cannot be reached, or refuses the login.
    """
    given = {**options, "query_timeout": statement_seconds + GRACE_SECONDS}
    if _IS_VERSION_4:
        given = {_OF_VERSION_4.get(name, name): value for name, value in given.items()}
    session = {**_SESSION, "QUERY_TAG": json.dumps(tag), "STATEMENT_TIMEOUT_IN_SECONDS": statement_seconds}
    try:
        return driver.connect(
            **given,
            application=APPLICATION,
            arrow_number_to_decimal=True,
            client_session_keep_alive=False,
            enable_server_session_keep_alive_auto_detection=False,
            login_timeout=LOGIN_SECONDS,
            paramstyle="qmark",
            session_parameters=session,
        )
    except (driver.Error, OSError, TypeError, ValueError) as error:  # a key that does not open is no driver's error
        raise no_login(error, options) from None


class SnowflakeReader(BilledOtherwise):
    """An open session. One thread at a time; reads may interleave."""

    def __init__(self, connection: SnowflakeConnection) -> None:
        self._connection = connection
        self._closed = False

    def close(self) -> None:
        """End the session, and with it every unfinished read."""
        self._closed = True
        with suppress(driver.Error):  # a session that broke off is closed, too
            self._connection.close()

    def columns(self, relation: Relation) -> list[Column]:
        """See `Reader.columns`. Needs no virtual warehouse.

        Raises:
            WarehouseError: There is no such table, or the query is wrong.
        """
        return [Column(field.name, field.dtype, field.json) for field in self._fields(relation)]

    def now(self) -> datetime:
        """Snowflake's clock, aware, in UTC.

        Raises:
            WarehouseError: The session ended.
        """
        with self._cursor("the clock") as cursor:
            (now,) = cursor.execute("SELECT SYSDATE()").fetchone()
        return now.replace(tzinfo=UTC)  # type: ignore[no-any-return]

    def stamp(self, relation: Relation) -> str | None:
        """See `Reader.stamp`. Needs no virtual warehouse; None where Snowflake refuses to tell.

        Raises:
            WarehouseError: There is no such table, or the session broke off.
        """
        if relation.table is None:
            return None
        fields = self._fields(relation)
        with self._cursor(named(relation)) as cursor:
            return stamps.taken(cursor, relation.table, fields)

    def read(
        self,
        relation: Relation,
        columns: Sequence[str],
        rows: Window | Changes | Keys | None = None,
        *,
        latest: Latest | None = None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.read`. Names match without case where only one is meant; frames carry them as asked for.

        Raises:
            WarehouseError: At once, a column is missing or its type does not serve; later, the read failed.
        """
        fields = self._fields(relation)
        found = [(_field(relation, fields, name), name) for name in dict.fromkeys(columns)]
        for field, name in found:
            if field.dtype == pl.Object():
                raise WarehouseError(
                    f"column '{name}' of {named(relation)} cannot be read as {field.type}",
                    remedy="cast it in a query, to text for instance",
                )
        selections = [sql.Selection()]
        source = sql.source(relation)
        if isinstance(rows, Window):
            selections = [sql.within(_field(relation, fields, rows.column), rows)]
        elif isinstance(rows, Changes) and rows.key:
            selections = [sql.changed(_field(relation, fields, rows.key), relation, rows)]
        elif isinstance(rows, Changes):
            source = sql.written_in(relation, rows)
        elif isinstance(rows, Keys):
            selections = sql.among(_field(relation, fields, rows.column), rows)
        if latest:
            key, cursor = (_field(relation, fields, name).name for name in latest)
            selections = [sql.newest(selection, key, cursor) for selection in selections]
        schema = pl.Schema({name: field.dtype for field, name in found})
        return self._frames(relation, sql.select(found, source), selections, schema)

    def field(self, relation: Relation, name: str) -> sql.Field:
        """A column of the relation; without case where only one is meant.

        Raises:
            WarehouseError: There is none.
        """
        return _field(relation, self._fields(relation), name)

    def _frames(
        self, relation: Relation, text: str, selections: Sequence[sql.Selection], schema: pl.Schema
    ) -> Iterator[pl.DataFrame]:
        what = named(relation)
        for selection in selections:
            with self._cursor(what) as cursor:
                cursor.execute(f"{text} {selection.where}", selection.bound or None)
                rows = 0
                with closing(_chunks(cursor, schema)) as chunks:
                    for frame in _resliced(chunks):
                        rows += frame.height
                        yield frame
                        if self._closed:
                            raise WarehouseError(f"{what} cannot be read: the session was closed before its end")
                if rows != cursor.rowcount:
                    raise WarehouseError(f"{what} cannot be read: {rows} of {cursor.rowcount} rows came; run again")

    @contextmanager
    def _cursor(self, what: str) -> Iterator[Any]:
        if self._closed:
            raise WarehouseError(f"{what} cannot be read: the session is closed")
        with translated(f"{what} cannot be read"):
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    def _fields(self, relation: Relation) -> list[sql.Field]:
        statement = f"SELECT * FROM {sql.source(relation)}"  # noqa: S608 - names are quoted, a query is the user's own
        with self._cursor(named(relation)) as cursor:
            try:
                described = cursor.describe(statement)
            except driver.ProgrammingError as error:
                if relation.table is None or error.sqlstate != "42S02":
                    raise
                raise self._no_table(relation.table) from None
        return [sql.field(sql.Described(each.name, each.type_code, each.precision, each.scale)) for each in described]

    def _no_table(self, name: str) -> WarehouseError:
        first, *others = parts(name)
        elsewhere = len(others) > 1
        where = f"DATABASE {quoted(sql.stored(first))}" if elsewhere else "DATABASE"
        known = []
        with suppress(driver.Error), self._connection.cursor() as cursor:
            here = self._connection.schema
            cursor.execute(f"SHOW TERSE OBJECTS IN {where}")
            place = {column.name: i for i, column in enumerate(cursor.description or ())}
            for row in cursor.fetchall():
                database, schema, table = (row[place[part]] for part in _PARTS)
                shown = (database, schema, table) if elsewhere else (schema, table) if schema != here else (table,)
                known.append(".".join(map(sql.written, shown)))
        remedy = did_you_mean(name, known)
        if folded(name) in map(folded, known):
            remedy = REMEDIES["42S02"]
        return WarehouseError(f"there is no table '{name}' in Snowflake that the role may read", remedy=remedy)


def _chunks(cursor: Any, schema: pl.Schema) -> Generator[pl.DataFrame]:  # noqa: ANN401 - two versions' own class
    """The chunks of a result, some of them fetched ahead.

    Not as one stream: a number's width differs from chunk to chunk, and the driver's version 5.2 would read all of
    them in that of the first.
    """
    how = {"connection": cursor.connection, **({} if _IS_VERSION_4 else {"number_to_decimal": True})}
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(CHUNKS_AHEAD)
    try:
        for chunk in cursor.get_result_batches() or ():
            if not chunk.rowcount:  # version 4 would need pandas to make a table of nothing
                continue
            waiting.append(pool.submit(chunk.to_arrow, **how))
            if len(waiting) > CHUNKS_AHEAD:
                yield pl.DataFrame(waiting.popleft().result()).cast(schema)
        while waiting:
            yield pl.DataFrame(waiting.popleft().result()).cast(schema)
    finally:
        pool.shutdown(cancel_futures=True)


def _resliced(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows in frames of RECORD_BATCH_ROWS: chunks are of the server's choice, from a handful to a million."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += frame.height
        if rows >= RECORD_BATCH_ROWS:
            whole, rest = pl.concat(held), rows % RECORD_BATCH_ROWS
            yield from whole.head(rows - rest).iter_slices(RECORD_BATCH_ROWS)
            held, rows = [whole.tail(rest)], rest
    if rows:
        yield pl.concat(held)


def _field(relation: Relation, fields: Sequence[sql.Field], name: str) -> sql.Field:
    exact = [field for field in fields if field.name == name]
    loose = exact or [field for field in fields if field.name.lower() == name.lower()]
    if len(loose) == 1:
        return loose[0]
    if loose:
        both = " and ".join(f"'{field.name}'" for field in loose)
        raise WarehouseError(f"{named(relation)} has the columns {both}", remedy="write the one that is meant")
    known = [sql.written(field.name).strip('"') for field in fields]
    raise WarehouseError(f"{named(relation)} has no column '{name}'", remedy=did_you_mean(name, known))
