"""Durable Parquet files: written once, a row group a frame, never changed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from connector._steps import step
from connector.state.database import translated


def write_frames(path: Path, frames: Iterable[pl.DataFrame], *, keeps: bool = False) -> int:
    """Write frames of one schema as one durable Parquet file, a row group each; the number of rows (0: no file).

    Args:
        path: Must not exist.
        frames: All of one schema.
        keeps: The file is here to stay and to be read often: it is made small.

    Raises:
        StateError: The disk is full or the folder cannot be written.
    """
    rows = 0
    with (
        durable(path) as file,
        ExitStack() as stack,
    ):  # an unfinished writer must let go of the file before it is closed
        writer: pq.ParquetWriter | None = None
        for frame in frames:
            if frame.height:
                table = frame.to_arrow()
                writer = writer or stack.enter_context(_writer(file, table.schema, _small(frame) if keeps else _QUICK))
                writer.write_table(table)
                rows += frame.height
    if not rows:
        path.unlink()
    return rows


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A new file, its owner's alone, which survives a power cut once the context has ended.

    Raises:
        StateError: The disk is full or the folder cannot be written.
    """
    with (
        translated(path.parent),
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        step("file.begun")
        yield file
        file.flush()
        step("file.written")
        os.fsync(file.fileno())
        sync_folder(path.parent)
        step("file.synced")


_QUICK = {"compression": "lz4", "use_dictionary": False}


def _writer(file: BinaryIO, schema: pa.Schema, how: dict[str, Any]) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, write_statistics=False, **how)


def _small(frame: pl.DataFrame) -> dict[str, Any]:
    """How the columns are written, by the first of their frames: dictionaries where values repeat, else they only cost.

    Text by zstd, which halves it; hashes cannot be compressed, and lz4 leaves them quick to read.
    """
    different = frame.select(pl.all().approx_n_unique()).row(0, named=True)
    return {
        "compression": {name: "zstd" if dtype == pl.String else "lz4" for name, dtype in frame.schema.items()},
        "use_dictionary": [name for name, count in different.items() if 2 * count <= frame.height],
    }


def read_frames(path: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The file's frames in order, as they were written, with these columns only."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        yield pl.DataFrame(file.read_row_group(group, columns=list(columns)))


def read_arrow(path: Path) -> pl.DataFrame:
    """The rows of an Arrow file; its path is taken literally, also where it looks like a pattern."""
    return pl.scan_ipc(path, glob=False).collect()


def gathered(
    frames: Iterable[pl.DataFrame], least: int, size: Callable[[pl.DataFrame], float] = len
) -> Iterator[pl.DataFrame]:
    """The same rows in frames of at least so many, but for the last; frames without rows are left out.

    Args:
        frames: Of one schema.
        least: Rows of a frame, or what `size` tells of it.
        size: Of a frame.
    """
    held: list[pl.DataFrame] = []
    total = 0.0
    for frame in frames:
        held += [frame] if frame.height else []
        total += size(frame)
        if held and total >= least:
            yield pl.concat(held)
            held, total = [], 0.0
    if held:
        yield pl.concat(held)


def checksum(path: Path) -> str:
    """The file's SHA-256: Polars reads a flipped bit in Parquet without an error, so nothing is believed without it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make what was made, named or removed in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
