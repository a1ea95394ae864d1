"""A dataset of the emulator, empty for each test."""

import base64
import os
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from google.cloud import bigquery

from connector.warehouses.bigquery import BigQuery
from tests.emulators.bigquery import client, endpoints

PROJECT = f"tests-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
"""One for each process of a test run: they share the emulator, and datasets have fixed names."""

DATASET = "shop"

_STRUCT = (bigquery.SchemaField("a", "INT64"), bigquery.SchemaField("b", "STRING"))


class BigQueryBench:
    types: ClassVar = {
        "integer": "INT64",
        "small": "INT64",
        "huge": "NUMERIC",
        "text": "STRING",
        "float": "FLOAT64",
        "decimal": "NUMERIC",
        "boolean": "BOOL",
        "date": "DATE",
        "naive": "DATETIME",
        "aware": "TIMESTAMP",
        "binary": "BYTES",
        "json": "JSON",
        "texts": "ARRAY<STRING>",
        "struct": "STRUCT",
        "structs": "ARRAY<STRUCT>",
    }
    arrays_hold_nulls = False
    series = "SELECT i, CONCAT('row ', i) AS t FROM UNNEST(GENERATE_ARRAY(0, 119999)) AS i"
    failing = (
        "SELECT CAST(CASE WHEN i = 200000 THEN 's3cret' ELSE '1' END AS INT64) AS i"
        " FROM UNNEST(GENERATE_ARRAY(0, 249999)) AS i"
    )

    _made: ClassVar[set[str]] = set()

    def __init__(self, _root: Path) -> None:
        where = endpoints()
        self.settings = BigQuery(
            type="bigquery", project=PROJECT, dataset=DATASET, api_endpoint=where.api, storage_endpoint=where.storage
        )
        self._client = client(PROJECT)
        for dataset in self._client.list_datasets() if self._made else ():  # those that a load made, too
            self._client.delete_dataset(dataset.dataset_id, delete_contents=True)
        self._made.clear()
        self._make(DATASET)

    def create(self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        dataset, _, name = table.rpartition(".")
        if dataset:
            self._make(dataset)
        schema = [_field(column, self.types[kind]) for column, kind in columns.items()]
        made = self._client.create_table(bigquery.Table(f"{PROJECT}.{dataset or DATASET}.{name}", schema))
        if any("'" in column for column in columns):  # these the emulator's insertAll does not quote
            self._client.query(f"INSERT INTO {dataset or DATASET}.{name} VALUES {', '.join(map(str, rows))}").result()
        elif rows:
            given = [zip(columns, map(_json, row), strict=True) for row in rows]
            written = [{column: value for column, value in row if value is not None} for row in given]
            assert self._client.insert_rows_json(made, written) == []

    def execute(self, *statements: str) -> None:
        """Statements, each done before the next; tables then say that they changed, which is the real service's doing."""
        for statement in statements:
            self._client.query(statement).result()
        for listed in self._client.list_tables(DATASET):
            table = self._client.get_table(listed)
            table.description = uuid4().hex
            self._client.update_table(table, ["description"])

    def rest(self) -> None:
        """A stamp can always be had."""

    def _make(self, dataset: str) -> None:
        if dataset not in self._made:
            self._client.create_dataset(dataset)
            self._made.add(dataset)


def _field(name: str, kind: str) -> bigquery.SchemaField:
    inner = kind.removeprefix("ARRAY<").removesuffix(">")
    mode = "NULLABLE" if inner == kind else "REPEATED"
    return bigquery.SchemaField(name, inner, mode, fields=_STRUCT if inner == "STRUCT" else ())


def _json(value: Any) -> Any:
    match value:
        case Decimal():
            return str(value)
        case int() if not isinstance(value, bool):
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case date() | datetime():
            return value.isoformat()
        case _:
            return value
