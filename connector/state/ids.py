"""Files of 128-bit ids: in ascending order, uncompressed, mapped and bisected, never loaded.

A file is Arrow IPC with `#hi` and `#lo` (UInt64, the halves of an id), in parts of ascending ids that do not overlap.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connector.hashing import HI, LO
from connector.state.database import translated
from connector.state.files import durable

_PART_ROWS = 1 << 20  # ids that are in memory at once to be sorted
_SCHEMA = pa.schema([(HI, pa.uint64()), (LO, pa.uint64())])


class Ids(NamedTuple):
    """The halves of ids, the upper ones ascending."""

    hi: npt.NDArray[np.uint64]
    lo: npt.NDArray[np.uint64]


def write_ids(path: Path, runs: Sequence[Ids]) -> int:
    """Write all ids of the runs, each once, as one durable file; their number.

    Args:
        path: Must not exist.
        runs: In memory, or mapped from other files: then no more than a part of each is held at a time.

    Raises:
        StateError: The disk is full or the folder cannot be written.
    """
    rows = 0
    with durable(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for part in _merged(runs):
            writer.write_batch(pa.record_batch([pa.array(half) for half in part], schema=_SCHEMA))
            rows += len(part.hi)
    return rows


def ordered(hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64]) -> Ids:
    """The ids in ascending order, each once."""
    order = np.argsort(hi)
    hi, lo = hi[order], lo[order]
    if not (hi[1:] == hi[:-1]).any():
        return Ids(hi, lo)
    order = np.lexsort((lo, hi))
    hi, lo = hi[order], lo[order]
    new = np.append(True, (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]))
    return Ids(hi[new], lo[new])


def _merged(runs: Sequence[Ids]) -> Iterator[Ids]:
    """The runs' ids in order, each once, in parts of about _PART_ROWS: ids are hashes, evenly spread."""
    parts = sum(len(run.hi) for run in runs) // _PART_ROWS + 1
    bounds = np.array([(part << 64) // parts for part in range(1, parts)], np.uint64)
    cuts = [[0, *np.searchsorted(run.hi, bounds), len(run.hi)] for run in runs]
    for part in range(parts):
        places = [slice(cut[part], cut[part + 1]) for cut in cuts]
        hi = np.concatenate([run.hi[place] for run, place in zip(runs, places, strict=True)])
        lo = np.concatenate([run.lo[place] for run, place in zip(runs, places, strict=True)])
        if hi.size:
            yield ordered(hi, lo)


def mapped(path: Path) -> list[Ids]:
    """The parts of a file of ids, in memory only where they are touched."""
    with translated(path):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return [Ids(batch.column(0).to_numpy(), batch.column(1).to_numpy()) for batch in batches]


def within(parts: Iterable[Ids], asked: Ids) -> npt.NDArray[np.bool_]:
    """Which of the ids are in the parts of a file."""
    found = np.zeros(len(asked.hi), np.bool_)
    for part in parts:
        first = int(np.searchsorted(asked.hi, part.hi[0]))
        last = int(np.searchsorted(asked.hi, part.hi[-1], side="right"))
        if first < last:
            found[first:last] = _bisected(part, Ids(asked.hi[first:last], asked.lo[first:last]))
    return found


def among(asked: Ids, parts: Iterable[Ids]) -> npt.NDArray[np.bool_]:
    """Which of the ids, in any order, are in the parts of a file."""
    found = np.zeros(len(asked.hi), np.bool_)
    order = np.argsort(asked.hi)
    found[order] = within((part for part in parts if len(part.hi)), Ids(asked.hi[order], asked.lo[order]))
    return found


def _bisected(part: Ids, asked: Ids) -> npt.NDArray[np.bool_]:
    """Which of the ids are in a part: upper halves lead to a run of equals, mostly of one, then lower halves."""
    found = np.zeros(len(asked.hi), np.bool_)
    low = np.searchsorted(part.hi, asked.hi)
    left = np.flatnonzero(part.hi[low] == asked.hi)
    high = low.copy()
    high[left] = np.searchsorted(part.hi, asked.hi[left], side="right")
    while left.size:
        middle = (low[left] + high[left]) // 2
        there, wanted = part.lo[middle], asked.lo[left]
        found[left] = there == wanted
        low[left] = np.where(there < wanted, middle + 1, low[left])
        high[left] = np.where(there < wanted, high[left], middle)
        left = left[(there != wanted) & (low[left] < high[left])]
    return found
