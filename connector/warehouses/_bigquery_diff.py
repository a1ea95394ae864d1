"""A comparison inside BigQuery: the snapshot is a table, clustered by key, in a dataset of ours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
from google.api_core import exceptions as api
from google.cloud import bigquery

from connector.warehouses import _bigquery_sql as sql
from connector.warehouses import _loading as loading
from connector.warehouses._base import Relation
from connector.warehouses._bigquery import BigQueryReader
from connector.warehouses._bigquery_client import Clients
from connector.warehouses._bigquery_errors import FAILURES, translated
from connector.warehouses._bigquery_jobs import Jobs
from connector.warehouses._bigquery_load import STAGING_LIFE
from connector.warehouses._differ import Comparison
from connector.warehouses._diffing import KEYS, MARKS, Dialect, Selected, SqlDiffer, Value, condition
from connector.warehouses.bigquery import BigQuery

_UNEQUALLED = ("ARRAY", "STRUCT", "JSON")
"""Types without an equality: what is compared is their JSON."""


class BigQueryDiffer(SqlDiffer):
    """BigQuery, where tables of ours are written; where they may not stay, BigQuery itself drops them within a day."""

    dialect = Dialect(sql.quoted, "({mask} & {bit}) <> 0", {pl.String: "STRING", pl.Int64: "INT64", pl.Boolean: "BOOL"})

    def __init__(
        self, settings: BigQuery, clients: Clients, reader: BigQueryReader, tags: Mapping[str, str], *, write: bool
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._reader = reader
        self._jobs = Jobs(settings, clients, tags)
        self._write = write
        project, own, _ = sql.table(f"{settings.state_schema}.any", settings.project, None)
        self._dataset = bigquery.DatasetReference(project, own)

    @property
    def reader(self) -> BigQueryReader:
        """See `Differ.reader`."""
        return self._reader

    def tables(self, prefix: str) -> list[str]:
        """See `Differ.tables`. Free of charge."""
        clients = self._clients
        with self._translated("read"):
            try:
                found = list(clients.api.list_tables(self._dataset, retry=clients.retry, timeout=clients.timeout))
            except api.NotFound:
                return []
        return [table.table_id for table in found if table.table_id.startswith(prefix)]

    def rows(self, table: str) -> int:
        """See `Differ.rows`."""
        with self._translated("read"):
            query = f"SELECT COUNT(*) FROM {self._name(table)}"  # noqa: S608 - names are quoted
            ((rows,),) = self._jobs.rows(self._jobs.started(query))
        return int(rows)

    def read(self, table: str, columns: Sequence[str], side: str | None = None) -> Iterator[pl.DataFrame]:
        """See `Differ.read`."""
        return self._reader.read(Relation(query=self._read(self._name(table), columns, side)), columns)

    def make(self, snapshot: str, comparison: Comparison) -> None:
        """See `Differ.make`."""
        query = self._snapshot(comparison, self._selected(comparison))
        statement = f"CREATE OR REPLACE TABLE {self._name(snapshot)} CLUSTER BY {sql.quoted('k')} AS {query}"
        with self._translated("written"):
            self._make_dataset()
            self._jobs.rows(self._jobs.started(statement))

    def compare(self, comparison: Comparison, snapshot: str, delta: str) -> None:
        """See `Differ.compare`."""
        with self._translated("written"):
            keys = self._uploaded(f"{delta}_keys", comparison.keys, KEYS) if comparison.keys else None
            selected = self._selected(comparison)
            where = self._where(comparison, selected, keys)
            if where:
                selected = selected._replace(rows=f"(SELECT * FROM {selected.rows} {where}) AS {sql.ROWS}")  # noqa: S608
            query = self._delta(comparison, selected, self._name(snapshot), keys)
            expires = (
                f" OPTIONS (expiration_timestamp = {_literal('TIMESTAMP', _tomorrow())})" if not self._write else ""
            )
            self._jobs.rows(self._jobs.started(f"CREATE OR REPLACE TABLE {self._name(delta)}{expires} AS {query}"))
            self._let_go(keys)

    def settle(self, snapshot: str, delta: str, columns: Sequence[str], marks: Path) -> None:
        """See `Differ.settle`."""
        with self._translated("written"):
            staging = self._uploaded(f"{delta}_marks", marks, MARKS)
            merge = self._merge(self._name(snapshot), self._name(delta), staging, columns)
            self._jobs.rows(self._jobs.started(merge))
            self._let_go(staging)

    def drop(self, tables: Sequence[str]) -> None:
        """See `Differ.drop`."""
        clients = self._clients
        with self._translated("written"):
            for table in tables:
                reference = self._dataset.table(table)
                clients.api.delete_table(reference, not_found_ok=True, retry=clients.retry, timeout=clients.timeout)

    def _uploaded(self, name: str, file: Path, columns: Mapping[str, pl.DataType]) -> str:
        """A table of the file's rows, under another name each time: a job of a killed run must not write into it."""
        schema = [bigquery.SchemaField(column, self.dialect.types[type(dtype)]) for column, dtype in columns.items()]
        table = bigquery.Table(self._dataset.table(f"{name}_{uuid4().hex[:8]}"), schema)
        table.expires = datetime.now(UTC) + STAGING_LIFE
        self._clients.api.create_table(table, retry=self._clients.retry, timeout=self._clients.timeout)
        came = self._jobs.appended(file, table)
        loading.require_rows(table.table_id, [file], came)
        return self._name(table.table_id)

    def _let_go(self, uploaded: str | None) -> None:
        if uploaded:
            with suppress(*FAILURES):  # it expires
                self._jobs.rows(self._jobs.started(f"DROP TABLE {uploaded}"))

    def _make_dataset(self) -> None:
        clients = self._clients
        try:
            clients.api.get_dataset(self._dataset, retry=clients.retry, timeout=clients.timeout)
        except api.NotFound:
            dataset = bigquery.Dataset(self._dataset)
            dataset.location = self._settings.location
            clients.api.create_dataset(dataset, exists_ok=True, retry=clients.retry, timeout=clients.timeout)

    def _where(self, comparison: Comparison, selected: Selected, keys: str | None) -> str:
        """The rows to compare, with values in place of parameters: statements that make tables take none."""
        where = ""
        if comparison.window:
            found = sql.within(self._reader.field(comparison.source, comparison.window.column), comparison.window)
            where = found.where
            for parameter in found.parameters:
                assert isinstance(parameter.value, date)  # noqa: S101 - bounds are moments
                where = where.replace(f"@{parameter.name}", _literal(parameter.type, parameter.value))
        if comparison.parts:
            among = f"{selected.text} IN (SELECT {sql.quoted('k')} FROM {keys})" if keys else "FALSE"  # noqa: S608
            where = f" WHERE ({condition(where) or 'FALSE'}) OR {among}"
        if comparison.latest:
            key, cursor = (self._reader.field(comparison.source, name) for name in comparison.latest)
            where = sql.newest(sql.Selection(where), key, cursor).where
        return where

    def _selected(self, comparison: Comparison) -> Selected:
        fields = [self._reader.field(comparison.source, column) for _, column in comparison.attributes]
        key = self._reader.field(comparison.source, comparison.key)
        values = [
            Value(field.sql, "TO_JSON_STRING({})" if field.type.startswith(_UNEQUALLED) else "{}") for field in fields
        ]
        rows = f"{self._reader.source(comparison.source)} AS {sql.ROWS}"
        return Selected(rows, key.sql, _text(key), values)

    def _name(self, table: str) -> str:
        return ".".join(map(sql.quoted, (self._dataset.project, self._dataset.dataset_id, table)))

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        what = f"dataset '{self._dataset.dataset_id}' in project {self._dataset.project} cannot be {done}"
        with translated(what, writing=True, comparing=True):
            yield


def _text(field: sql.Field) -> str:
    """The key as the mapping writes it: a number with a fraction is null, as none can be a key."""
    match field.type:
        case "FLOAT64":
            whole = f"{field.sql} = FLOOR({field.sql}) AND ABS({field.sql}) < 9223372036854775808"
            return f"CASE WHEN {whole} THEN CAST(CAST({field.sql} AS INT64) AS STRING) END"
        case "NUMERIC" | "BIGNUMERIC":
            digits = f"REGEXP_REPLACE(CAST({field.sql} AS STRING), r'[.]0*$', '')"
            return f"CASE WHEN {field.sql} = FLOOR({field.sql}) THEN {digits} END"
        case _:
            return f"CAST({field.sql} AS STRING)"


def _tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def _literal(type_: str, moment: date) -> str:
    return f"CAST('{moment.isoformat()}' AS {type_})"
