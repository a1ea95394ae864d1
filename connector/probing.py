"""A source, read once: each row hashed and looked up in the snapshot's index, unchanged ones dropped at once.

Only what is left is held against the rules. Memory is bounded by a few record batches, the index and a share of the
ceiling; candidates go through files.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Mappings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.changes import POSITION, TRIED, WHOLE, Index, with_due
from connector.hashing import KEY_HASH, Hashes, fingerprints, hashed
from connector.judging import UNSEEN, apply, unjudged
from connector.mapping import KEY, Attribute, Mapping
from connector.state.database import translated
from connector.state.files import gathered
from connector.state.snapshots import Snapshot

WORKERS = 2
"""Record batches that are probed at once, while the next is read; beyond them one more waits."""

JUDGED_ROWS = 20_000
"""Rows that are judged together: where few are left of each record batch, what each call costs would outweigh them."""

HELD_SHARE = 128
"""One part in so many of the ceiling is held of candidates: to compare them takes several times as much."""

PART_ROWS = 250_000
"""Rows of a part of the snapshot whose candidates are compared together, unless it has more than PARTS_MAX of them."""

PARTS_MAX = 32

Slots: TypeAlias = npt.NDArray[np.int64]

_T = TypeVar("_T")

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
    places = _Places(len(job.index))
    unknown_hashes: list[Hashes] = [np.empty(0, np.uint64)]
    rejected: list[pl.DataFrame] = [REJECTED.to_frame()]
    due_seen: list[pl.Series] = [pl.Series(KEY, [], dtype=pl.String)]
    judged_rows = 0
    spool = _Spool(folder, job)
    for judged in _ahead(gathered(_others(batches, job, places), JUDGED_ROWS), lambda rows: _judged(rows, job)):
        judged_rows += judged.read
        rejected.append(judged.rejected)
        places.note(judged.slots)
        due_seen.append(judged.due_seen)
        unknown_hashes.append(judged.unknown_hashes)
        spool.add(judged.candidates)
    new, times = np.unique(np.concatenate(unknown_hashes), return_counts=True)
    repeated, repeats = places.repeated()
    return Sifted(
        read=places.dropped + judged_rows,
        spool=spool.close(),
        rejected=pl.concat(rejected),
        duplicates=np.concatenate([new[times > 1], job.index.key_hashes[repeated]]),
        duplicate_rows=int(times[times > 1].sum()) + len(repeated) + repeats,
        unchanged=int(places.same.sum()),
        seen=places.seen,
        same=places.same,
        due_seen=pl.concat(due_seen),
    )


class _Places:
    """What was found in the index so far: one Boolean a row of it, as in `Sifted`."""

    def __init__(self, size: int) -> None:
        self.seen, self.same = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.dropped = 0
        self._again: list[Slots] = [np.empty(0, np.int64)]

    def note(self, slots: Slots) -> None:
        """These were found, in whatever order."""
        slots = np.sort(slots)
        before = self.seen[slots]
        before[1:] |= slots[1:] == slots[:-1]
        self.seen[slots] = True
        if before.any():
            self._again.append(slots[before])

    def drop(self, slots: Slots) -> None:
        """These were found unchanged."""
        self.note(slots)
        self.same[slots] = True
        self.dropped += len(slots)

    def repeated(self) -> tuple[Slots, int]:
        """Those found more than once, none of which is `same` from now on, and how often they were found again."""
        again = np.concatenate(self._again)
        repeated = np.unique(again)
        self.same[repeated] = False
        return repeated, len(again)


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


def _others(batches: Iterable[pl.DataFrame], job: Job, places: _Places) -> Iterator[pl.DataFrame]:
    """The rows that have to be looked at; the others are noted as dropped."""
    for slots, others in _ahead(batches, lambda batch: _dropped(batch, job)):
        places.drop(slots)
        yield others


def _dropped(batch: pl.DataFrame, job: Job) -> tuple[Slots, pl.DataFrame]:
    """Places in the index of the rows that equal what Batch has accepted and are not due again; and the other rows.

    No rule is held against those that are dropped: an equal row broke none.
    """
    if job.resend or not len(job.index):
        return np.empty(0, np.int64), batch
    rows = unjudged(job.mapping, batch)
    key_hashes, row_hashes = fingerprints(rows, job.attributes, job.seed)
    slots = job.index.slots(key_hashes)
    same = (slots >= 0) & (job.index.row_hashes.take(slots, mode="clip") == row_hashes) & ~rows[UNSEEN].to_numpy()
    if job.due.height:
        same &= ~rows[KEY].is_in(job.due["key"].implode()).fill_null(value=False).to_numpy()
    others = batch.filter(pl.Series(~same))
    return slots[same], _alone(others) if others.height < batch.height // 2 else others


def _alone(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows, copied: a few rows that Polars filtered keep the text of their whole record batch in memory."""
    copy = BytesIO()
    rows.write_ipc(copy)
    return pl.read_ipc(copy.getvalue())


class _Judged(NamedTuple):
    """Rows that were not dropped, mapped, held against the rules and looked up in the index.

    Attributes:
        read: How many.
        rejected: `key`, `attribute`, `reason` of what breaks a rule.
        slots: Places in the index of the valid rows that it has.
        unknown_hashes: Key hashes of the other valid rows.
        due_seen: Keys of the valid rows that are due again.
        candidates: The valid rows with hashes, position and what is due of them.
    """

    read: int
    rejected: pl.DataFrame
    slots: Slots
    unknown_hashes: Hashes
    due_seen: pl.Series
    candidates: pl.DataFrame


def _judged(rows: pl.DataFrame, job: Job) -> _Judged:
    valid, rejected = apply(job.mapping, rows)
    hashes = hashed(valid, job.attributes, job.seed)
    key_hashes = hashes[KEY_HASH].to_numpy()
    slots = job.index.slots(key_hashes)
    known = slots >= 0
    positions = np.full(len(slots), -1)
    positions[known] = job.index.positions[slots[known]]
    due = with_due(valid.select(KEY), job.due)
    marks = due.select(WHOLE, TRIED, pl.Series(POSITION, positions, dtype=pl.Int64))
    return _Judged(
        read=rows.height,
        rejected=rejected,
        slots=slots[known],
        unknown_hashes=key_hashes[~known],
        due_seen=due.filter(pl.col(WHOLE).is_not_null())[KEY],
        candidates=valid.hstack(hashes).hstack(marks),
    )


def _ahead(batches: Iterable[pl.DataFrame], work: Callable[[pl.DataFrame], _T]) -> Iterator[_T]:
    """What `work` makes of each, in order; it goes on while the next is read: Polars and numpy let go of the GIL."""
    with ThreadPoolExecutor(WORKERS) as pool:
        begun: deque[Future[_T]] = deque()
        for batch in batches:
            begun.append(pool.submit(work, batch))
            if len(begun) > WORKERS:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


__all__ = ["PART_ROWS", "REJECTED", "Job", "Sifted", "sift"]
