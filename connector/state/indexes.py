"""A snapshot's index as a file beside it: mapped instead of built from Parquet at each start.

It is derived: the manifest says of which files, and with which checksum. Whatever is odd about it, it is built anew.

A file is Arrow IPC, uncompressed, of one record batch: `#kh` (ascending), `#rh` (UInt64) and `#position` (UInt32).
"""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connector.changes import POSITION, Index, Positions
from connector.hashing import KEY_HASH, ROW_HASH, Hashes
from connector.state.database import translated
from connector.state.files import checksum, durable

_SCHEMA = pa.schema([(KEY_HASH, pa.uint64()), (ROW_HASH, pa.uint64()), (POSITION, pa.uint32())])


def write(folder: Path, index: Index, files: Sequence[str]) -> dict[str, Any]:
    """A new, durable file of the index of these snapshot files; what the manifest says of it.

    Raises:
        StateError: The disk is full or the folder cannot be written.
    """
    path = folder / f"{uuid.uuid4().hex}.index"
    columns = (index.key_hashes, index.row_hashes, index.positions.astype(np.uint32))
    with durable(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        writer.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=_SCHEMA))
    return {"name": path.name, "files": list(files), "sha256": checksum(path)}


def believed(folder: Path, kept: dict[str, Any]) -> bool:
    """Whether the file is there, as it was written."""
    path = folder / str(kept["name"])
    with translated(path):
        return path.exists() and checksum(path) == kept["sha256"]


def mapped(folder: Path, kept: dict[str, Any]) -> Index:
    """The index, in memory only where it is touched."""
    path = folder / str(kept["name"])
    with translated(path):
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    return Index(*(column.to_numpy() for column in batch.columns))


def newest(key_hashes: Hashes) -> npt.NDArray[np.int64]:
    """Places of the last row of each key hash, by ascending key hash."""
    order: npt.NDArray[np.int64] = np.argsort(key_hashes, kind="stable")
    ordered = key_hashes[order]
    last: npt.NDArray[np.int64] = order[np.append(ordered[1:] != ordered[:-1], [True] * bool(len(order)))]
    return last


def merged(index: Index, later: Index, deleted: npt.NDArray[np.bool_]) -> Index:
    """The index after later rows, of which some only say that theirs is gone.

    Args:
        index: Of what was there.
        later: Of the later rows.
        deleted: One a row of `later`.
    """
    after = _only(later, ~deleted)
    if not len(index):
        return after
    slots = index.slots(later.key_hashes)
    stays = np.ones(len(index), np.bool_)
    stays[slots[slots >= 0]] = False
    before = _only(index, stays)
    places = np.searchsorted(before.key_hashes, after.key_hashes)
    positions: Positions = np.insert(before.positions, places, after.positions.astype(before.positions.dtype))
    return Index(
        np.insert(before.key_hashes, places, after.key_hashes),
        np.insert(before.row_hashes, places, after.row_hashes),
        positions,
    )


def _only(index: Index, rows: npt.NDArray[np.bool_]) -> Index:
    if rows.all():
        return index
    return Index(index.key_hashes[rows], index.row_hashes[rows], index.positions[rows])
