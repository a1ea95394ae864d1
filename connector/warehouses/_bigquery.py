"""An open BigQuery: its jobs, and the stream of their results."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast

import polars as pl
import pyarrow as pa
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery.table import RowIterator
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1 import types as storage

from connector.errors import WarehouseError
from connector.warehouses import _bigquery_sql as sql
from connector.warehouses._base import RECORD_BATCH_ROWS, Changes, Column, Keys, Latest, Relation, Window, digest
from connector.warehouses._bigquery_client import Clients
from connector.warehouses._bigquery_errors import FAILURES, translated
from connector.warehouses._bigquery_jobs import FIRST_PAGE_ROWS, Jobs
from connector.warehouses._names import did_you_mean, named
from connector.warehouses.bigquery import BigQuery

OPEN_STREAMS = 2
"""Streams of a result that are received at once, in answers of up to 10 MiB."""

BY_ITSELF = ("streamingBuffer", "maxStaleness", "externalDataConfiguration", "biglakeConfiguration")
"""What a table has whose rows change before, or without, its time of last change.

https://cloud.google.com/bigquery/docs/reference/rest/v2/tables: of streamed rows that time may be minutes behind.
"""

_STAMPED = ("creationTime", "lastModifiedTime", "etag", "numRows", "numBytes")

_DATASETS_SEARCHED = 50
_TABLES_SEARCHED = 1000


class BigQueryReader:
    """BigQuery, read by query jobs. One thread at a time; reads may interleave."""

    def __init__(self, settings: BigQuery, clients: Clients, tags: Mapping[str, str]) -> None:
        self._settings = settings
        self._clients = clients
        self._jobs = Jobs(settings, clients, tags)
        self._known: dict[Relation, list[sql.Field]] = {}
        self._closed = False

    def close(self) -> None:
        """End every unfinished read."""
        self._closed = True

    def columns(self, relation: Relation) -> list[Column]:
        """See `Reader.columns`. A table is looked up and a query tried dry: neither is billed.

        Raises:
            WarehouseError: There is no such table, or the query is wrong.
        """
        return [Column(field.name, field.dtype, field.json) for field in self._fields(relation)]

    def now(self) -> datetime:
        """BigQuery's clock, aware, in UTC.

        Raises:
            WarehouseError: It cannot be asked.
        """
        with self._translated("the clock"):
            ((instant,),) = self._result("the clock", "SELECT CURRENT_TIMESTAMP()")[1]
        return cast("datetime", instant).astimezone(UTC)

    def stamp(self, relation: Relation) -> str | None:
        """See `Reader.stamp`. One look at the table's metadata, which is not billed.

        Raises:
            WarehouseError: There is no such table.
        """
        if relation.table is None:
            return None
        with self._translated(named(relation), rows=False):
            return stamp_of(self._described(relation).to_api_repr())

    def read(
        self,
        relation: Relation,
        columns: Sequence[str],
        rows: Window | Changes | Keys | None = None,
        *,
        latest: Latest | None = None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.read`. Names match without case, as in BigQuery; frames carry them as asked for.

        Raises:
            WarehouseError: At once, a column is missing or its type does not serve; later, the read failed.
        """
        found = [self.field(relation, name)._replace(name=name) for name in dict.fromkeys(columns)]
        for field in found:
            if field.dtype == pl.Object():
                raise WarehouseError(
                    f"column '{field.name}' of {named(relation)} cannot be read as {field.type}",
                    remedy="cast it in a query, to text for instance",
                )
        selections, source = [sql.Selection()], self.source(relation)
        if isinstance(rows, Window):
            selections = [sql.within(self.field(relation, rows.column), rows)]
        elif isinstance(rows, Changes):
            if rows.key:
                selections = [sql.changed(self.field(relation, rows.key), source, rows)]
            else:
                source, selections = sql.added(source, rows)
        elif isinstance(rows, Keys):
            selections = sql.among(self.field(relation, rows.column), rows)
        schema = pl.Schema({field.name: field.dtype for field in found})
        if latest:
            key, cursor = (self.field(relation, name) for name in latest)
            selections = [sql.newest(selection, key, cursor) for selection in selections]
        return self._frames(named(relation), sql.select(found, source), selections, schema)

    def _frames(
        self, what: str, text: str, selections: Sequence[sql.Selection], schema: pl.Schema
    ) -> Iterator[pl.DataFrame]:
        for selection in selections:
            with self._translated(what):
                job, rows = self._result(what, text + selection.where, selection.parameters)
                read = 0
                for batch in self._batches(job, rows):
                    read += batch.num_rows
                    for start in range(0, batch.num_rows, RECORD_BATCH_ROWS):
                        self._require_open()
                        yield pl.DataFrame(_plain(batch.slice(start, RECORD_BATCH_ROWS))).cast(schema)
            if read != rows.total_rows:  # rows that do not come would be taken for removed
                raise WarehouseError(f"{what}: {read} of {rows.total_rows} rows came", remedy="run again")

    def _batches(self, job: bigquery.QueryJob, rows: RowIterator) -> Iterator[pa.RecordBatch]:
        """The result's record batches: from the API where they are few, else from the Storage API."""
        if self._clients.storage and rows.total_rows > FIRST_PAGE_ROWS:
            yield from self._streamed(self._clients.storage, job.destination)
        elif rows.total_rows:
            yield from rows.to_arrow_iterable()

    def _streamed(self, client: BigQueryReadClient, table: bigquery.TableReference) -> Iterator[pa.RecordBatch]:
        wanted = storage.ReadSession(table=table.to_bqstorage(), data_format=storage.DataFormat.ARROW)
        wanted.read_options.arrow_serialization_options = storage.ArrowSerializationOptions(
            buffer_compression=storage.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
        )
        again, timeout = self._clients.retry, self._clients.timeout
        parent = f"projects/{self._settings.project}"
        session = client.create_read_session(parent=parent, read_session=wanted, retry=again, timeout=timeout)
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        waiting = [stream.name for stream in session.streams]
        streams: deque[Iterator[storage.ReadRowsResponse]] = deque()
        while waiting or streams:
            while waiting and len(streams) < OPEN_STREAMS:
                streams.append(iter(client.read_rows(waiting.pop(), retry=again)))
            if answer := next(streams[0], None):
                yield pa.ipc.read_record_batch(pa.py_buffer(answer.arrow_record_batch.serialized_record_batch), schema)
                streams.rotate()
            else:
                streams.popleft()

    def _result(
        self, what: str, text: str, parameters: Sequence[sql.Parameter] = ()
    ) -> tuple[bigquery.QueryJob, RowIterator]:
        """The finished job of a statement, and its rows."""
        self._require_open()
        with self._translated(what, rows=False):  # a statement that is refused has read no row
            job = self._jobs.started(text, parameters)
        return job, self._jobs.rows(job)

    def source(self, relation: Relation) -> str:
        """What stands after FROM."""
        if relation.query is not None:
            return sql.subquery(relation.query)
        return ".".join(map(sql.quoted, self._table(relation)))

    def _table(self, relation: Relation) -> tuple[str, str, str]:
        return sql.table(relation.table or "", self._settings.project, self._settings.dataset)

    def _fields(self, relation: Relation) -> list[sql.Field]:
        if relation not in self._known:
            with self._translated(named(relation), rows=False):
                schema = self._table_schema(relation) if relation.query is None else self._query_schema(relation.query)
            self._known[relation] = [sql.field(declared) for declared in schema]
        return self._known[relation]

    def _table_schema(self, relation: Relation) -> Sequence[sql.Declared]:
        return cast("Sequence[sql.Declared]", self._described(relation).schema)

    def _described(self, relation: Relation) -> bigquery.Table:
        """The table's metadata, as they are now."""
        self._require_open()
        project, dataset, own = self._table(relation)
        reference = bigquery.DatasetReference(project, dataset).table(own)
        clients = self._clients
        try:
            return clients.api.get_table(reference, retry=clients.retry, timeout=clients.timeout)
        except api.NotFound:
            raise WarehouseError(
                f"there is no table '{relation.table}' in project {project}",
                remedy=did_you_mean((relation.table or "").replace("`", ""), self._tables(project)),
            ) from None

    def _query_schema(self, query: str) -> Sequence[sql.Declared]:
        self._require_open()
        sql.subquery(query)
        job = self._jobs.dry(query)
        sql.require_select(job.statement_type)
        return cast("Sequence[sql.Declared]", job.schema)

    def _tables(self, project: str) -> list[str]:
        """The names of the project's tables, as a source names them; none where they may not be listed."""
        names: list[str] = []
        clients, own = self._clients, project == self._settings.project
        with suppress(*FAILURES):
            datasets = clients.api.list_datasets(project, retry=clients.retry, timeout=clients.timeout)
            for dataset in islice(datasets, _DATASETS_SEARCHED):
                prefix = f"{dataset.dataset_id}." if own else f"{project}.{dataset.dataset_id}."
                if own and dataset.dataset_id == self._settings.dataset:
                    prefix = ""
                tables = clients.api.list_tables(
                    dataset, max_results=_TABLES_SEARCHED, retry=clients.retry, timeout=clients.timeout
                )
                names += [prefix + table.table_id for table in tables]
        return names

    def field(self, relation: Relation, name: str) -> sql.Field:
        """A column of the relation, whatever the case of its name.

        Raises:
            WarehouseError: There is none.
        """
        fields = self._fields(relation)
        for field in fields:
            if field.name.lower() == name.lower():
                return field
        raise WarehouseError(
            f"{named(relation)} in project {self._settings.project} has no column '{name}'",
            remedy=did_you_mean(name, [field.name for field in fields]),
        )

    @contextmanager
    def _translated(self, what: str, *, rows: bool = True) -> Iterator[None]:
        with translated(f"{what} in project {self._settings.project} cannot be read", rows=rows):
            yield

    def _require_open(self) -> None:
        if self._closed:
            raise WarehouseError("the warehouse was closed before the read ended", remedy="open it again")


def stamp_of(table: Mapping[str, Any]) -> str | None:
    """The stamp of a table that the API describes so; None of what is no table, or changes by itself."""
    expires = table.get("timePartitioning", {}).get("expirationMs")
    if table.get("type") != "TABLE" or expires or any(table.get(name) for name in BY_ITSELF):
        return None
    if not (table.get("lastModifiedTime") and table.get("etag")):
        return None
    return digest(table.get("tableReference"), [table.get(name) for name in _STAMPED])


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The record batch without the extension types that BigQuery puts on DATETIME and JSON, at any depth."""
    return batch.cast(pa.schema([(field.name, _plain_type(field.type)) for field in batch.schema]))


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_plain_type(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _plain_type(field.type)) for field in type_])
    return type_
