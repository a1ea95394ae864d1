"""An open DuckDB file, and streaming from it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar, cast

import duckdb
import polars as pl
import pyarrow as pa

from connector.errors import WarehouseError
from connector.warehouses import _duckdb_sql as sql
from connector.warehouses import _duckdb_stamp as stamps
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
from connector.warehouses._duckdb_open import translated
from connector.warehouses._names import did_you_mean, folded, named, parts

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VIEW = '"#source"'

_TABLES = """
    SELECT nullif(schema_name, 'main'), table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary
    UNION ALL
    SELECT nullif(schema_name, 'main'), view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary
"""


class _Closable(Protocol):
    def close(self) -> None: ...


_Resource = TypeVar("_Resource", bound=_Closable)


class DuckDBReader(BilledOtherwise):
    """An open database. One thread at a time; reads may interleave."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: str,
        settings: Sequence[str],
        spill: Path | None,
        files: stamps.Files | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._files = files
        self._open: list[_Closable] = []
        self._settings = settings
        if spill:  # not for every session: DuckDB refuses to change it once it was used
            connection.execute(f"SET temp_directory = {sql.literal(str(spill))}")

    def close(self) -> None:
        """End every unfinished read: a stream left open would keep the file locked."""
        while self._open:
            self._open.pop().close()

    def columns(self, relation: Relation) -> list[Column]:
        """See `Reader.columns`.

        Raises:
            WarehouseError: There is no such table, or the query is wrong.
        """
        with self._session(named(relation)) as session:
            source = _source(session, relation)
            fields = self._fields(session, relation, source)
            readable = [field for field in fields if field.sql]
            schema = pl.Schema()
            if readable:
                empty = session.sql(f"{sql.select(readable)} FROM {source} LIMIT 0").to_arrow_table()
                schema = _plain(pl.DataFrame(empty).schema)
        return [Column(field.name, schema.get(field.name, pl.Object()), field.json) for field in fields]

    def now(self) -> datetime:
        """This machine's clock as DuckDB reads it, aware, in UTC.

        Raises:
            WarehouseError: The warehouse was closed.
        """
        with self._session("the clock") as session:
            (microseconds,) = session.execute("SELECT epoch_us(now())").fetchall()[0]
        return _EPOCH + timedelta(microseconds=microseconds)

    def stamp(self, relation: Relation) -> str | None:
        """See `Reader.stamp`: any write to the database's file counts, to whatever table.

        Raises:
            WarehouseError: There is no such table, or the warehouse was closed.
        """
        if relation.table is None or self._files is None:
            return None
        names = {"own": parts(relation.table)[-1].text, "ours": self._files.ours}
        with self.source(relation) as (session, rows):
            self._fields(session, relation, rows)
            ((told,),) = session.execute(stamps.TOLD, names).fetchall()
        return stamps.stamp(self._files, self.now()) if told else None

    def read(
        self,
        relation: Relation,
        columns: Sequence[str],
        rows: Window | Changes | Keys | None = None,
        *,
        latest: Latest | None = None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.read`. Names match without case, as in DuckDB; frames carry them as asked for.

        Raises:
            WarehouseError: At once, a column is missing or its type does not serve; later, the read failed.
        """
        with self._session(named(relation)) as session:
            fields = self._fields(session, relation, _source(session, relation))
        found = [self._field(relation, fields, name)._replace(name=name) for name in dict.fromkeys(columns)]
        for field in found:
            if field.sql is None:
                raise WarehouseError(
                    f"column '{field.name}' of {named(relation)} cannot be read as {field.type}",
                    remedy="cast it in a query, to text for instance",
                )
        selections = [sql.Selection()]
        if isinstance(rows, Window):
            selections = [sql.within(self._field(relation, fields, rows.column), rows)]
        elif isinstance(rows, Changes):
            raise WarehouseError("DuckDB records no changes", remedy="name a column as the cursor")
        elif isinstance(rows, Keys):
            selections = sql.among(self._field(relation, fields, rows.column), rows)
        if latest:
            key, cursor = (self._field(relation, fields, name).name for name in latest)
            selections = [sql.newest(selection, key, cursor) for selection in selections]
        return self._frames(relation, found, selections)

    @contextmanager
    def source(self, relation: Relation) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """A session, and what stands after FROM in it."""
        with self._session(named(relation)) as session:
            yield session, _source(session, relation)

    def field(self, relation: Relation, name: str) -> sql.Field:
        """A column of the relation, whatever the case of its name.

        Raises:
            WarehouseError: There is none.
        """
        with self.source(relation) as (session, rows):
            return self._field(relation, self._fields(session, relation, rows), name)

    def _frames(
        self, relation: Relation, fields: Sequence[sql.Field], selections: Sequence[sql.Selection]
    ) -> Iterator[pl.DataFrame]:
        with self._session(named(relation)) as session:
            text = f"{sql.select(fields)} FROM {_source(session, relation)} "
            for selection in selections:
                _bind(session, selection)
                # From a relation this streams; after `execute`, DuckDB 2 would hold the whole result.
                rows = session.sql(text + selection.where)
                with self._kept(rows.to_arrow_reader(RECORD_BATCH_ROWS)) as stream:
                    for batch in stream:
                        columns = pl.DataFrame(batch).get_columns()  # by position: a name such as * means others
                        yield pl.DataFrame([column.cast(_plain_type(column.dtype)) for column in columns])

    @contextmanager
    def _session(self, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one read: an unfinished stream allows no other statement on its own."""
        with (
            translated(f"{what} in {self._path} cannot be read"),
            self._kept(self._connection.cursor()) as session,
        ):
            for setting in self._settings:
                session.execute(setting)
            yield session

    @contextmanager
    def _kept(self, resource: _Resource) -> Iterator[_Resource]:
        self._open.append(resource)
        try:
            yield resource
        finally:
            self._open = [kept for kept in self._open if kept is not resource]
            resource.close()

    def _fields(self, session: duckdb.DuckDBPyConnection, relation: Relation, source: str) -> list[sql.Field]:
        try:
            described = session.sql(f"FROM {source}")
        except duckdb.CatalogException:
            tables = session.execute(_TABLES).fetchall()
            known = [f"{schema}.{table}" if schema else table for schema, table in tables]
            if relation.table is None or folded(relation.table) in map(folded, known):
                raise
            raise WarehouseError(
                f"there is no table '{relation.table}' in {self._path}",
                remedy=did_you_mean(relation.table, known),
            ) from None
        return [sql.field(*column) for column in zip(described.columns, described.types, strict=True)]

    def _field(self, relation: Relation, fields: Sequence[sql.Field], name: str) -> sql.Field:
        for field in fields:
            if field.name.lower() == name.lower():
                return field
        raise WarehouseError(
            f"{named(relation)} in {self._path} has no column '{name}'",
            remedy=did_you_mean(name, [field.name for field in fields]),
        )


def _source(session: duckdb.DuckDBPyConnection, relation: Relation) -> str:
    """What stands after FROM. A query becomes a temporary view: DuckDB, not we, takes its text apart."""
    if relation.query is None:
        return sql.table(relation.table or "")
    _require_one_select(session, relation.query)
    session.execute(f"CREATE OR REPLACE TEMP VIEW {_VIEW} AS {relation.query}")
    return f"temp.main.{_VIEW}"


def _bind(session: duckdb.DuckDBPyConnection, selection: sql.Selection) -> None:
    for name, value in selection.variables.items():
        session.execute(f"SET VARIABLE {name} = ?", [value])
    if selection.keys:
        session.register(sql.KEYS, pa.table({"k": pa.array(selection.keys, pa.string())}))


def _require_one_select(session: duckdb.DuckDBPyConnection, query: str) -> None:
    remedy = "write exactly one SELECT statement"
    statements = session.extract_statements(query)
    if len(statements) != 1:
        raise WarehouseError(f"the query holds {len(statements)} statements", remedy=remedy)
    if (kind := statements[0].type) != duckdb.StatementType.SELECT:
        raise WarehouseError(f"the query is a statement of type {kind.name}", remedy=remedy)
    if names := sorted(statements[0].named_parameters):
        raise WarehouseError(f"the query has parameters: {', '.join(names)}", remedy="write values instead")


def _plain(schema: pl.Schema) -> pl.Schema:
    """The schema with dictionaries as text and arrays of fixed length as lists, at any depth."""
    return pl.Schema({name: _plain_type(dtype) for name, dtype in schema.items()})


def _plain_type(dtype: object) -> pl.DataType:
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return pl.String()
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_plain_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain_type(field.dtype) for field in dtype.fields})
    return cast("pl.DataType", dtype)
