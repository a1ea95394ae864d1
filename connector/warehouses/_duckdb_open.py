"""Opening a DuckDB file, and DuckDB's errors in our words."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from connector.errors import WarehouseError
from connector.warehouses import _duckdb_sql as sql

MEMORY = ":memory:"
"""The path that means no file."""

_EXPORT_QUERY = "select * from 'export.parquet'"

_ABOUT_SQL = ("Parser", "Syntax", "Binder", "Catalog", "IO", "Connection", "Permission", "Out of Memory")
"""Errors whose text is about statements and files; that of any other may quote a row."""

_ABOUT_ROWS = {
    "Conversion": "a value cannot be converted to the type asked for",
    "Out of Range": "a number is out of range",
    "Invalid Input": "a function or a file reader refused its input",
}


def database_path(root: Path, path: str) -> str:
    """The resolved path of the database file, or `:memory:`.

    Raises:
        WarehouseError: There is no such file, it cannot be read, or it is no DuckDB database.
    """
    if path == MEMORY:
        return path
    file = (root / Path(path).expanduser()).resolve()
    try:
        with file.open("rb") as opened:
            magic = opened.read(12)[8:]
    except FileNotFoundError:
        raise WarehouseError(
            f"there is no DuckDB file {file}",
            remedy=f"check the warehouse's path, which is relative to the project folder {root.resolve()}",
        ) from None
    except OSError as error:
        raise WarehouseError(
            f"the DuckDB file {file} cannot be read: {error.strerror}",
            remedy="check the warehouse's path and its permissions",
        ) from None
    if magic != b"DUCK":
        raise WarehouseError(f"{file} is not a DuckDB database", remedy="check the warehouse's path")
    return str(file)


def connect(path: str, patience: float, *, write: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection, once nobody else holds the file; read-only unless it is to write.

    Args:
        path: From `database_path`.
        patience: Seconds to wait for a lock.
        write: Whether it is to write. The file keeps the version of its format: one made by DuckDB 1.5 stays readable
            for 1.5 after 2.0 has written to it (tried with 1.5.5 and 2.0.0, also after a kill).

    Raises:
        WarehouseError: The file is still locked, or cannot be opened.
    """
    deadline = time.monotonic() + patience
    pause = 0.05
    while True:
        try:
            return duckdb.connect(path, read_only=path != MEMORY and not write)
        except duckdb.Error as error:
            locked = _locked(path, str(error), write=write)
            if locked is None:
                raise WarehouseError(f"{path} cannot be opened: {_sentence(error)}") from None
            if time.monotonic() + pause > deadline:
                raise locked from None
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def session_settings(root: Path, memory: int | None) -> list[str]:
    """The statements with which every session begins; `memory` in bytes."""
    return [
        "SET TimeZone = 'UTC'",  # given at connect, it fails without a network
        "SET preserve_insertion_order = false",
        "SET python_enable_replacements = false",  # a missing table must not become a variable of ours
        f"SET file_search_path = {sql.literal(str(root.resolve()))}",
        *([f"SET memory_limit = '{memory}B'"] if memory else []),
    ]


def _locked(path: str, message: str, *, write: bool) -> WarehouseError | None:
    """What to raise where DuckDB's message says that somebody holds the file; None for any other message."""
    if "different configuration" in message or "current process" in message:
        return WarehouseError(
            f"{path} is open in this very process with other settings",
            remedy="close that connection before the sync",
        )
    if "Could not set lock on file" not in message:
        return None
    found = re.search(r"held in (?:(?P<command>\S.*?) )?\(?PID (?P<pid>\d+)", message)
    holder = f"process {found['pid']}" if found else "another process"
    command = f" ({found['command']})" if found and found["command"] else ""
    or_else = f", or read a Parquet export: the warehouse's path '{MEMORY}', the source's query {_EXPORT_QUERY}"
    return WarehouseError(
        f"{path} is locked by {holder}{command}", remedy="close it and run again" + ("" if write else or_else)
    )


@contextmanager
def translated(what: str, remedy: str = "") -> Iterator[None]:
    """Raises DuckDB's errors as ours.

    Args:
        what: The beginning of the message: what cannot be done.
        remedy: What to do; that of a read where it is left out.

    Raises:
        WarehouseError: In place of any error of DuckDB.
    """
    try:
        yield
    except pa.ArrowInvalid:
        raise WarehouseError(f"{what}: the warehouse was closed before the read ended") from None
    except (duckdb.Error, OSError) as error:  # Arrow passes DuckDB's errors on as OSError
        about_sql = _kind(error) in _ABOUT_SQL
        of_a_read = "correct `source` in the sync's YAML" if about_sql else "run it in DuckDB to see the row"
        raise WarehouseError(f"{what}: {_sentence(error)}", remedy=remedy or of_a_read) from None


def _kind(error: Exception) -> str:
    found = re.match(r"([A-Z][A-Za-z ]+) Error: ", str(error))
    return found[1] if found else ""


def _sentence(error: Exception) -> str:
    """DuckDB's own sentence where it is about SQL; otherwise one that holds no value of a row."""
    kind, text = _kind(error), str(error).partition("\n\nLINE ")[0]
    if "Corrupt database file" in text:
        return "the database file is corrupt"
    if kind in _ABOUT_SQL:
        sentence = " ".join(text.split()).removesuffix(".")
        return re.sub(r"\b(https?|s3|gs)://\S+", r"\1://…", sentence)  # a signed address is a secret
    column = re.search(r" when casting from source column (\w+)$", text)
    where = f" (column {column[1]})" if column else ""
    return f"{kind or type(error).__name__}: {_ABOUT_ROWS.get(kind, 'the statement failed')}{where}"
