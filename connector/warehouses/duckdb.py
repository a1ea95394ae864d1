"""DuckDB, the embedded default warehouse: opened late, read-only and streaming, closed early."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from connector.warehouses._base import WarehouseSettings

if TYPE_CHECKING:
    from connector.warehouses._duckdb import DuckDBReader

LOCK_PATIENCE = 3.0
"""Seconds to wait for a file that another process holds: a writer's transaction, not its working day."""


class DuckDB(WarehouseSettings):
    """A DuckDB file, or `:memory:` to read other files, such as Parquet exports, by a query."""

    type: Literal["duckdb"]
    path: str

    @contextmanager
    def open(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        patience: float = LOCK_PATIENCE,
    ) -> "Iterator[DuckDBReader]":
        """Connect, read-only; the file is free again when the context ends, whatever was left half read.

        While it is open nobody can write to the file.

        Args:
            root: The project folder; the path, and those of files in queries, are relative to it.
            memory: Bytes that DuckDB may use; None for its own default (80 % of the machine's).
            spill: Folder for what does not fit into them; None for DuckDB's default, beside the file.
            patience: Seconds to wait for a file that is locked.

        Raises:
            WarehouseError: There is no such file, it is no DuckDB database, or it is still locked.
        """
        from connector.warehouses import _duckdb  # noqa: PLC0415 - settings load where a start must be quick

        path = _duckdb.database_path(root, self.path)
        connection = _duckdb.connect(path, patience)
        try:
            reader = _duckdb.DuckDBReader(connection, path, root, memory, spill)
            try:
                yield reader
            finally:
                reader.close()
        finally:
            connection.close()
