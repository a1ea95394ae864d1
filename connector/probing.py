"""A source, read once: each row mapped, hashed and looked up in the snapshot's index, unchanged ones dropped at once.

Memory is bounded by a few record batches, the index and a share of the ceiling; candidates go through files.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Mappings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.changes import POSITION, TRIED, WHOLE, Index, with_due
from connector.hashing import KEY_HASH, ROW_HASH, Hashes, hashed
from connector.mapping import KEY, WITHHELD, Attribute, Mapping, apply
from connector.state.database import translated
from connector.state.snapshots import Snapshot

WORKERS = 2
"""Record batches that are probed at once, while the next is read; beyond them one more waits."""

HELD_SHARE = 16
"""One part in so many of the ceiling is held of candidates: to compare them takes several times as much."""

PART_ROWS = 250_000
"""Rows of a part of the snapshot whose candidates are compared together, unless it has more than PARTS_MAX of them."""

PARTS_MAX = 32

REJECTED = pl.Schema({"key": pl.String, "attribute": pl.String, "reason": pl.String})


@dataclass(frozen=True, slots=True)
class Sifted:
    """A source, read: what was unchanged is gone, the rest waits on disk.

    Attributes:
        read: Rows read.
        spool: Files of candidates.
        rejected: `key`, `attribute`, `reason` of what breaks a rule.
        duplicates: Key hashes (UInt64) that more than one row has.
        duplicate_rows: Rows of the source that have one of them.
        unchanged: Rows dropped at once, none of them a duplicate.
        seen: One Boolean a row of the index: the source has it.
        same: One Boolean a row of the index: it was dropped at once.
    """

    read: int
    spool: list[Path]
    rejected: pl.DataFrame
    duplicates: Hashes
    duplicate_rows: int
    unchanged: int
    seen: npt.NDArray[np.bool_]
    same: npt.NDArray[np.bool_]
    due_seen: pl.Series
    """Keys that are due again and were found."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a plan is made with.

    Attributes:
        mapping: The resolved mapping.
        snapshot: What was delivered.
        index: The snapshot's.
        due: Keys due again now (`key`, `whole`, `source_hash`).
        seed: The state's.
        resend: Every row is due whole.
        limit: Rows planned at most.
        opted_out: Who has unsubscribed at Batch: keys (String) by attribute name.
        memory: Ceiling of what is held of the source, in bytes.
    """

    mapping: Mapping
    snapshot: Snapshot
    index: Index
    due: pl.DataFrame
    seed: int
    resend: bool = False
    limit: int | None = None
    opted_out: Mappings[str, pl.Series] = field(default_factory=dict)
    memory: int = 10**9

    @property
    def held_bytes(self) -> int:
        """Candidates that are in memory at once."""
        return self.memory // HELD_SHARE

    @property
    def attributes(self) -> Sequence[Attribute]:
        """In the order of the bits of `#send`."""
        return self.mapping.attributes


def sift(batches: Iterable[pl.DataFrame], job: Job, folder: Path) -> Sifted:
    """Read the source once: drop what the snapshot has already, put the rest into files.

    Args:
        batches: Record batches with `job.mapping.columns`.
        job: The plan's terms.
        folder: Where the files go; made anew.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with translated(folder):
        folder.mkdir(mode=0o700)
    seen, same = np.zeros(len(job.index), np.bool_), np.zeros(len(job.index), np.bool_)
    again: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    unknown_hashes: list[Hashes] = [np.empty(0, np.uint64)]
    rejected: list[pl.DataFrame] = [REJECTED.to_frame()]
    due_seen: list[pl.Series] = [pl.Series(KEY, [], dtype=pl.String)]
    read = 0
    spool = _Spool(folder, job)
    for probed in _ahead(batches, lambda batch: _probed(batch, job)):
        read += probed.read
        rejected.append(probed.rejected)
        again += _repeated(seen, np.sort(probed.slots[probed.slots >= 0]))
        same[probed.slots[probed.same]] = True
        due_seen.append(probed.due_seen)
        unknown_hashes.append(probed.unknown_hashes)
        spool.add(probed.candidates)
    new, times = np.unique(np.concatenate(unknown_hashes), return_counts=True)
    repeats = np.concatenate(again)
    repeated = np.unique(repeats)
    same[repeated] = False
    return Sifted(
        read=read,
        spool=spool.close(),
        rejected=pl.concat(rejected),
        duplicates=np.concatenate([new[times > 1], job.index.key_hashes[repeated]]),
        duplicate_rows=int(times[times > 1].sum()) + len(repeated) + len(repeats),
        unchanged=int(same.sum()),
        seen=seen,
        same=same,
        due_seen=pl.concat(due_seen),
    )


def _repeated(seen: npt.NDArray[np.bool_], slots: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Those of the ascending slots that were seen before, or come again here; all are seen from now on."""
    before = seen[slots]
    before[1:] |= slots[1:] == slots[:-1]
    seen[slots] = True
    return [slots[before]] if before.any() else []


class _Spool:
    """Candidates on their way to disk, gathered into files as large as may be held.

    Of a large snapshot each part has files of its own, so that what is stored of it is decoded once or twice, however
    many candidates there are.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder = folder
        self._part_rows = max(PART_ROWS, job.snapshot.size // PARTS_MAX + 1)
        self._room = job.held_bytes
        self._held: list[pl.DataFrame] = []
        self._bytes = 0
        self._flushes = 0

    def add(self, candidates: pl.DataFrame) -> None:
        if candidates.height:
            self._held.append(candidates)
            self._bytes += int(candidates.estimated_size())
        if self._held and self._bytes >= self._room:
            self._flush()

    def close(self) -> list[Path]:
        """The files, part by part."""
        if self._held:
            self._flush()
        return sorted(self._folder.glob("*.arrow"))

    def _flush(self) -> None:
        part = (pl.max_horizontal(POSITION, 0) // self._part_rows).alias("#part")
        parts = pl.concat(self._held).with_columns(part).partition_by("#part", as_dict=True, include_key=False)
        with translated(self._folder):
            for (number,), rows in parts.items():
                rows.write_ipc(self._folder / f"{number:03d}-{self._flushes:06d}.arrow", compression="lz4")
        self._held, self._bytes, self._flushes = [], 0, self._flushes + 1


class _Probed(NamedTuple):
    """A record batch, mapped and looked up in the index.

    Attributes:
        read: Its rows.
        rejected: `key`, `attribute`, `reason` of what breaks a rule.
        slots: Of each valid row its place in the index, or -1.
        same: Of each valid row whether it is dropped.
        due_seen: Keys of the valid rows that are due again.
        unknown_hashes: Key hashes of the valid rows that the index does not have.
        candidates: The valid rows that are not dropped, with hashes, position and what is due of them.
    """

    read: int
    rejected: pl.DataFrame
    slots: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    due_seen: pl.Series
    unknown_hashes: Hashes
    candidates: pl.DataFrame


def _probed(batch: pl.DataFrame, job: Job) -> _Probed:
    valid, rejected = apply(job.mapping, batch)
    hashes = hashed(valid, job.attributes, job.seed)
    key_hashes = hashes[KEY_HASH].to_numpy()
    slots = job.index.slots(key_hashes)
    known = slots >= 0
    same = np.zeros(valid.height, np.bool_)
    due = with_due(valid.select(KEY), job.due)
    if not job.resend:
        same[known] = job.index.row_hashes[slots[known]] == hashes[ROW_HASH].to_numpy()[known]
        same &= (valid[WITHHELD] == 0).to_numpy() & due[WHOLE].is_null().to_numpy()
    rows = valid.hstack(hashes).hstack([due[WHOLE], due[TRIED]]).filter(pl.Series(~same))
    positions = np.where(known, 0, -1)[~same]
    positions[known[~same]] = job.index.positions[slots[known & ~same]]
    return _Probed(
        read=batch.height,
        rejected=rejected,
        slots=slots,
        same=same,
        due_seen=due.filter(pl.col(WHOLE).is_not_null())[KEY],
        unknown_hashes=key_hashes[~known],
        candidates=rows.with_columns(pl.Series(POSITION, positions, dtype=pl.Int64)),
    )


def _ahead(batches: Iterable[pl.DataFrame], work: Callable[[pl.DataFrame], _Probed]) -> Iterator[_Probed]:
    """What `work` makes of each, in order; it goes on while the next is read: Polars and numpy let go of the GIL."""
    with ThreadPoolExecutor(WORKERS) as pool:
        begun: deque[Future[_Probed]] = deque()
        for batch in batches:
            begun.append(pool.submit(work, batch))
            if len(begun) > WORKERS:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


__all__ = ["PART_ROWS", "REJECTED", "Job", "Sifted", "sift"]
