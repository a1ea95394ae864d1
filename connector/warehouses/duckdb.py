"""DuckDB, the embedded default warehouse: opened late, read-only and streaming, closed early."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from connector.warehouses._base import Needs, WarehouseSettings
from connector.warehouses._grants import comment

if TYPE_CHECKING:
    from connector.warehouses._duckdb import DuckDBReader
    from connector.warehouses._duckdb_diff import DuckDBDiffer
    from connector.warehouses._duckdb_load import DuckDBLoader

LOCK_PATIENCE = 3.0
"""Seconds to wait for a file that another process holds: a writer's transaction, not its working day."""

DIFF_PATIENCE = 30.0
"""The same where a run's commit depends on it."""


class DuckDB(WarehouseSettings):
    """A DuckDB file, or `:memory:` to read other files, such as Parquet exports, by a query."""

    type: Literal["duckdb"]
    path: str
    skip_unchanged: bool = Field(  # reading a file of one's own costs nothing that is billed
        default=False, description="a profile sync without a cursor reads nothing where its file did not change since"
    )

    @contextmanager
    def open(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,  # noqa: ARG002 - DuckDB keeps no history
        patience: float = LOCK_PATIENCE,
    ) -> "Iterator[DuckDBReader]":
        """Connect, read-only; the file is free again when the context ends, whatever was left half read.

        While it is open nobody can write to the file.

        Args:
            root: The project folder; the path, and those of files in queries, are relative to it.
            memory: Bytes that DuckDB may use; None for its own default (80 % of the machine's).
            spill: Folder for what does not fit into them; None for DuckDB's default, beside the file.
            tags: Not used.
            patience: Seconds to wait for a file that is locked.

        Raises:
            WarehouseError: There is no such file, it is no DuckDB database, or it is still locked.
        """
        from connector.warehouses import _duckdb, _duckdb_open, _duckdb_stamp  # noqa: PLC0415 - settings load where a start must be quick

        path = _duckdb_open.database_path(root, self.path)
        files = _duckdb_stamp.files(path, self.state_schema)
        connection = _duckdb_open.connect(path, patience)
        try:
            reader = _duckdb.DuckDBReader(connection, path, _duckdb_open.session_settings(root, memory), spill, files)
            try:
                yield reader
            finally:
                reader.close()
        finally:
            connection.close()

    @contextmanager
    def load_into(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,  # noqa: ARG002
        patience: float = LOCK_PATIENCE,
    ) -> "Iterator[DuckDBLoader]":
        """Connect, to write; nobody else can read or write the file until the context ends.

        A file made by an older DuckDB stays readable for that one: see `_duckdb_open.connect`.

        Args:
            root: As for `open`, like those that follow.
            memory: As for `open`.
            spill: As for `open`.
            tags: Not used.
            patience: Seconds to wait for a file that is locked.

        Raises:
            WarehouseError: There is no such file, it cannot be written to, or it is still locked.
        """
        from connector.warehouses import _duckdb_load, _duckdb_open  # noqa: PLC0415

        path = _duckdb_load.writable_path(root, self.path)
        connection = _duckdb_open.connect(path, patience, write=True)
        try:
            yield _duckdb_load.DuckDBLoader(connection, path, _duckdb_open.session_settings(root, memory), spill)
        finally:
            connection.close()

    @contextmanager
    def diff_in(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,  # noqa: ARG002
        write: bool = True,
    ) -> "Iterator[DuckDBDiffer]":
        """Connect, to compare; to write means that nobody else can read or write the file until the context ends.

        Args:
            root: As for `open`, like those that follow.
            memory: As for `open`.
            spill: As for `open`.
            tags: Not used.
            write: Whether what is made is to stay.

        Raises:
            WarehouseError: There is no such file, it cannot be opened so, or it is still locked.
        """
        from connector.warehouses import _duckdb, _duckdb_diff, _duckdb_load, _duckdb_open  # noqa: PLC0415

        path = _duckdb_load.writable_path(root, self.path)
        connection = _duckdb_open.connect(path, DIFF_PATIENCE, write=write)
        try:
            settings = _duckdb_open.session_settings(root, memory)
            for setting in settings:
                connection.execute(setting)
            reader = _duckdb.DuckDBReader(connection, path, settings, spill)
            try:
                yield _duckdb_diff.DuckDBDiffer(connection, reader, self.state_schema, write=write)
            finally:
                reader.close()
        finally:
            connection.close()

    def grants(self, needs: Needs) -> list[str]:
        """See `WarehouseSettings.grants`: DuckDB knows no rights, the file system does; all lines are comments."""
        verb = "writes to the file, and makes files beside it" if needs.writes else "reads the file"
        queries = (f"sync '{sync}' reads the files that its query names" for sync in needs.queries)
        return [comment(text) for text in (f"{self.path}: who runs this {verb}", *queries)]
