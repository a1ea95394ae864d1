"""BigQuery's jobs: each started once, labelled, limited, and cancelled where nobody waits for it any longer."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery.table import RowIterator

from connector.warehouses import _bigquery_sql as sql
from connector.warehouses._bigquery_client import Clients
from connector.warehouses._bigquery_errors import FAILURES
from connector.warehouses.bigquery import BigQuery

FIRST_PAGE_ROWS = 1000
"""Rows that come with a query's first answer, 5 kB of memory each: a result with no more needs no second service."""

PAGE_ROWS = 10_000
"""Rows of a page where there is only the API."""

_CANCEL_TIMEOUT = 10.0

_Job = TypeVar("_Job", bigquery.QueryJob, bigquery.LoadJob)


class Jobs:
    """Starts jobs for one purpose; their errors are those of the client libraries."""

    def __init__(self, settings: BigQuery, clients: Clients, tags: Mapping[str, str]) -> None:
        self._settings = settings
        self._clients = clients
        self._labels = {"app": "batch_connector", **{_label(key): _label(value) for key, value in tags.items()}}

    def started(self, text: str, parameters: Sequence[sql.Parameter] = ()) -> bigquery.QueryJob:
        """The job of a statement."""
        config = bigquery.QueryJobConfig(query_parameters=[_parameter(each) for each in parameters])
        if self._settings.maximum_bytes_billed:
            config.maximum_bytes_billed = self._settings.maximum_bytes_billed
        return self._once(config, lambda job_id: self._query(text, config, job_id))

    def dry(self, query: str, parameters: Sequence[sql.Parameter] = ()) -> bigquery.QueryJob:
        """What BigQuery says of a query without running it."""
        config = bigquery.QueryJobConfig(query_parameters=[_parameter(each) for each in parameters])
        config.dry_run, config.use_query_cache = True, False
        return self._query(query, config, None)

    def rows(self, job: bigquery.QueryJob) -> RowIterator:
        """The rows of a job, once it is done."""
        page = FIRST_PAGE_ROWS if self._clients.storage else PAGE_ROWS
        return cast("RowIterator", self._result(job, page_size=page, retry=self._clients.retry))

    def appended(self, file: Path, table: bigquery.Table) -> int:
        """The rows of a Parquet file, once they are in the table, which is there."""
        config = bigquery.LoadJobConfig(
            schema=table.schema,
            source_format=bigquery.SourceFormat.PARQUET,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
        )

        def upload(job_id: str | None) -> bigquery.LoadJob:
            with file.open("rb") as opened:
                return self._clients.api.load_table_from_file(
                    opened,
                    table.reference,
                    size=file.stat().st_size,  # known: a small file goes in one request
                    num_retries=0,  # ours come on top, within the same patience as everywhere
                    job_config=config,
                    job_id=job_id,
                    timeout=self._clients.timeout,
                )

        job = self._once(config, self._clients.retry(upload))
        self._result(job, retry=self._clients.retry)
        return int(job.output_rows or 0)

    def _once(self, config: bigquery.QueryJobConfig | bigquery.LoadJobConfig, start: Callable[[str], _Job]) -> _Job:
        """The job, started once: its id is known beforehand, so that a request sent again finds the first one's."""
        config.labels = self._labels
        config.job_timeout_ms = int(self._settings.timeout.total_seconds() * 1000)
        job_id = "_".join([*self._labels.values(), uuid4().hex])
        try:
            return start(job_id)
        except api.Conflict:
            clients = self._clients
            return cast("_Job", clients.api.get_job(job_id, retry=clients.retry, timeout=clients.timeout))

    def _query(self, text: str, config: bigquery.QueryJobConfig, job_id: str | None) -> bigquery.QueryJob:
        settings, clients = self._settings, self._clients
        config.labels = self._labels
        if settings.dataset:
            config.default_dataset = f"{settings.project}.{settings.dataset}"
        return clients.api.query(
            text, job_config=config, job_id=job_id, job_retry=None, retry=clients.retry, timeout=clients.timeout
        )

    def _result(self, job: bigquery.QueryJob | bigquery.LoadJob, **how: Any) -> Any:  # noqa: ANN401 - of either job
        try:
            return job.result(timeout=self._settings.timeout.total_seconds(), **how)
        finally:
            if job.state != "DONE":  # nobody waits for it any longer, and it would be billed
                with suppress(*FAILURES):
                    job.cancel(retry=None, timeout=_CANCEL_TIMEOUT)


def _parameter(given: sql.Parameter) -> bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter:
    if isinstance(given.value, date):
        return bigquery.ScalarQueryParameter(given.name, given.type, given.value)
    return bigquery.ArrayQueryParameter(given.name, given.type, given.value)


def _label(text: str) -> str:
    """A label as BigQuery takes it: at most 63 lower-case letters, digits, `_` and `-`."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]
