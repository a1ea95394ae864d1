"""A warehouse in memory, read by the real DuckDB reader; its rows stay here as Python has them, for the oracles."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa
from pydantic import PrivateAttr

from connector.warehouses._base import Loader, Needs, Relation, WarehouseSettings
from connector.warehouses._duckdb import DuckDBReader
from connector.warehouses._duckdb_open import MEMORY, session_settings
from tests.simulation.machine import Clock

Row = dict[str, Any]

_STAMP = pa.timestamp("us")
CUSTOMERS = pa.schema([
    ("custom_id", pa.string()), ("plan", pa.string()), ("points", pa.int64()), ("tags", pa.list_(pa.string())),
    ("updated_at", _STAMP),
])  # fmt: skip
ORDERS = pa.schema([
    ("custom_id", pa.string()), ("order_id", pa.int64()), ("ref", pa.string()), ("status", pa.string()),
    ("amount", pa.float64()), ("ordered_at", _STAMP), ("loaded_at", _STAMP),
])  # fmt: skip


class Rows(NamedTuple):
    """What stands in the warehouse, and how often each table was written, with what."""

    customers: dict[str, Row]
    orders: dict[int, Row]
    written: dict[str, tuple[int, dict[Any, Row]]]


class Tables:
    """Customers by custom ID and orders by number, as they are now; a row is never changed, but replaced."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._database = duckdb.connect(MEMORY)
        self._database.execute("SET threads = 1")
        self.customers: dict[str, Row] = {}
        self.orders: dict[int, Row] = {}
        self.written: dict[str, tuple[int, dict[Any, Row]]] = {}
        """How often each table's rows have changed, and what they are."""
        self._stored: dict[str, dict[Any, Row]] = {}

    def write(self) -> None:
        """Make DuckDB's tables what they are here."""
        for name, rows in (("customers", self.customers), ("orders", self.orders)):
            changes, before = self.written.get(name, (0, {}))
            if rows != before:
                self.written[name] = (changes + 1, dict(rows))  # type: ignore[arg-type]
        self._store()

    def rows(self) -> Rows:
        """What `restore` takes."""
        return Rows(dict(self.customers), dict(self.orders), dict(self.written))

    def restore(self, rows: Rows) -> None:
        """Be as it was."""
        self.customers, self.orders, self.written = dict(rows.customers), dict(rows.orders), dict(rows.written)
        self._store()

    def _store(self) -> None:
        for name, schema in (("customers", CUSTOMERS), ("orders", ORDERS)):
            rows = self.written.get(name, (0, {}))[1]
            if self._stored.get(name) != rows:
                self._database.register("rows_", pa.Table.from_pylist(list(rows.values()), schema))
                self._database.execute(f"create or replace table {name} as from rows_")
                self._database.unregister("rows_")
                self._stored[name] = rows

    def close(self) -> None:
        """Let go of the memory."""
        self._database.close()

    def open(self) -> "Reader":
        """A reader of the tables."""
        return Reader(self._database.cursor(), self)


class Reader(DuckDBReader):
    """The real one, but for the clock and the stamp."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
        super().__init__(connection, MEMORY, session_settings(Path(), None), None)
        self._tables = tables

    def now(self) -> datetime:
        """The simulated clock."""
        return self._tables.clock.utc().astimezone(UTC)

    def stamp(self, relation: Relation) -> str | None:
        """How often the table's rows have changed."""
        return str(self._tables.written[relation.table][0]) if relation.table in self._tables.written else None


class InMemory(WarehouseSettings):
    """Settings that lead to `Tables`."""

    type: Literal["duckdb"] = "duckdb"
    _tables: Tables = PrivateAttr()

    @classmethod
    def of(cls, tables: Tables) -> "InMemory":
        """The settings of these tables."""
        settings = cls()
        settings._tables = tables
        return settings

    @contextmanager
    def open(
        self,
        root: Path,  # noqa: ARG002 - the interface's
        *,
        memory: int | None = None,  # noqa: ARG002
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> Iterator[DuckDBReader]:
        """See `WarehouseSettings.open`."""
        reader = self._tables.open()
        try:
            yield reader
        finally:
            reader.close()

    def load_into(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Loader]:
        """No export lands here."""
        raise NotImplementedError

    def grants(self, needs: Needs) -> list[str]:
        """Nobody has to grant anything."""
        raise NotImplementedError
