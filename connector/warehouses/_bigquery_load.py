"""Exports loaded into BigQuery: files appended to a staging table, and moved from there by one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from google.api_core import exceptions as api
from google.cloud import bigquery

from connector.warehouses import _bigquery_sql as sql
from connector.warehouses import _loading as loading
from connector.warehouses._base import ColumnType, Load, Loaded, TargetColumn
from connector.warehouses._bigquery_client import Clients
from connector.warehouses._bigquery_errors import FAILURES, translated
from connector.warehouses._bigquery_jobs import Jobs
from connector.warehouses.bigquery import BigQuery

STAGING_LIFE = timedelta(days=1)
"""After which BigQuery itself drops a staging table that was left over."""

_TYPES: dict[str, ColumnType] = {
    "STRING": "text",
    "INT64": "integer",
    "FLOAT64": "float",
    "BOOL": "boolean",
    "TIMESTAMP": "timestamp",
    "JSON": "json",
}
_DIALECT = loading.Dialect(
    sql.quoted,
    {type_: name for name, type_ in _TYPES.items()},
    "PARSE_JSON({}, wide_number_mode=>'round')",  # else a number of too many digits fails the load
)


class BigQueryLoader:
    """BigQuery, written to by load jobs and one script a load. One thread at a time."""

    def __init__(self, settings: BigQuery, clients: Clients, tags: Mapping[str, str]) -> None:
        self._settings = settings
        self._clients = clients
        self._jobs = Jobs(settings, clients, tags)

    def columns(self, table: str) -> list[TargetColumn] | None:
        """See `Loader.columns`. Free of charge.

        Raises:
            WarehouseError: The table may not be looked at.
        """
        with self._translated(f"table '{table}'", "read"):
            try:
                looked_up = self._clients.api.get_table(
                    self._reference(table), retry=self._clients.retry, timeout=self._clients.timeout
                )
            except api.NotFound:
                return None
        fields = map(sql.field, looked_up.schema)
        return [TargetColumn(field.name.lower(), _TYPES.get(field.type, "other")) for field in fields]

    def load(self, load: Load) -> Loaded:
        """See `Loader.load`: the files wait in a table beside the target, which one script takes over.

        Raises:
            WarehouseError: The table was not made by a load, a column has another type, or BigQuery refuses.
        """
        loading.require_plain(load)
        existing = self.columns(load.table)
        lacking = loading.missing(load, existing)
        target = self._reference(load.table)
        # Another name each time: a job that a killed run left behind must not write into this one's.
        waiting = f"{loading.staging(target.table_id, load.export_id)}_{uuid4().hex[:8]}"
        staging = bigquery.Table(bigquery.DatasetReference(target.project, target.dataset_id).table(waiting))
        staging.schema = _schema(loading.staged(load))
        staging.expires = datetime.now(UTC) + STAGING_LIFE
        with self._translated(f"table '{load.table}'", "written"):
            if existing is None:
                self._make(load, target)
            elif lacking:
                added = ", ".join(f"ADD COLUMN {loading.declared([column], _DIALECT)}" for column in lacking)
                self._jobs.rows(self._jobs.started(f"ALTER TABLE {_name(target)} {added}"))
            self._create(staging)
            try:
                loading.require_rows(
                    load.table, load.files, sum(self._jobs.appended(file, staging) for file in load.files)
                )
                return self._move(load, _name(target), _name(staging.reference))
            finally:
                with suppress(*FAILURES):  # it expires
                    self._clients.api.delete_table(staging, retry=self._clients.retry, timeout=self._clients.timeout)

    def _move(self, load: Load, table: str, staging: str) -> Loaded:
        change = loading.statements(load, table, staging, _DIALECT)
        script = (
            f"DECLARE inserted INT64;\nBEGIN TRANSACTION;\n{change.delete};\n{change.insert};\n"
            "SET inserted = @@row_count;\nCOMMIT TRANSACTION;\n"
            f"SELECT ({loading.counted(load, staging, _DIALECT)}), inserted"
        )
        ((rows, inserted),) = self._jobs.rows(self._jobs.started(script))
        return Loaded(rows, inserted)

    def _make(self, load: Load, target: bigquery.TableReference) -> None:
        table = bigquery.Table(target, _schema(load.columns))
        if load.key:
            table.clustering_fields = [load.key]
        try:
            self._create(table)
        except api.NotFound:
            dataset = bigquery.Dataset(bigquery.DatasetReference(target.project, target.dataset_id))
            dataset.location = self._settings.location
            clients = self._clients
            clients.api.create_dataset(dataset, exists_ok=True, retry=clients.retry, timeout=clients.timeout)
            self._create(table)

    def _create(self, table: bigquery.Table) -> None:
        self._clients.api.create_table(table, exists_ok=True, retry=self._clients.retry, timeout=self._clients.timeout)

    def _reference(self, table: str) -> bigquery.TableReference:
        project, dataset, own = sql.table(table, self._settings.project, self._settings.dataset)
        return bigquery.DatasetReference(project, dataset).table(own)

    @contextmanager
    def _translated(self, what: str, done: str) -> Iterator[None]:
        with translated(f"{what} in project {self._settings.project} cannot be {done}", writing=True):
            yield


def _schema(columns: Sequence[TargetColumn]) -> list[bigquery.SchemaField]:
    return [bigquery.SchemaField(column.name, _DIALECT.types[column.type]) for column in columns]


def _name(table: bigquery.TableReference) -> str:
    return ".".join(map(sql.quoted, (table.project, table.dataset_id, table.table_id)))
