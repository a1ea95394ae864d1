"""From record batches to a change set on disk: map, drop what is unchanged, decide what is due, build the operations.

Memory is bounded by a few record batches and 40 bytes a row of the snapshot; candidates go through files in the outbox.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Mappings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.changes import (
    KIND,
    OPTED_OUT,
    PLANNED,
    POSITION,
    SEND,
    TRIED,
    WHOLE,
    Index,
    Kind,
    cleared,
    decide,
    with_due,
)
from connector.hashing import HASH, KEY_HASH, ROW_HASH, Hashes, hashed
from connector.mapping import KEY, WITHHELD, Attribute, Mapped, Mapping, apply
from connector.payload import OPERATION, operations
from connector.state.database import translated
from connector.state.files import write_frames
from connector.state.snapshots import Snapshot

SPOOL_ROWS = 100_000
"""Rows of candidates that are compared with the snapshot in one go."""

BUILD_ROWS = 10_000
"""Rows whose JSON is built in one go: it is many times larger than the columns that it is made of."""

DUPLICATE = "the key is found more than once in the source"
COLLISION = "the key's hash equals that of another key; change the key by a character"

_REJECTED = pl.Schema({"key": pl.String, "attribute": pl.String, "reason": pl.String})


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
    """

    mapping: Mapping
    snapshot: Snapshot
    index: Index
    due: pl.DataFrame
    seed: int
    resend: bool = False
    limit: int | None = None
    opted_out: Mappings[str, pl.Series] = field(default_factory=dict)

    @property
    def attributes(self) -> Sequence[Attribute]:
        """In the order of the bits of `#send`."""
        return self.mapping.attributes


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What a run has to send, on disk in sending order.

    Attributes:
        path: Parquet: `#key`, `#kh`, `#rh`, `#send`, `#kind`, `#operation` (JSON) and `h:` hashes as they stand
            once accepted; absent where `planned` is 0.
        counts: Rows by `Kind`; `unchanged` and `invalid` are whole counts of the run.
        faulty: Rows that are invalid or have a value withheld.
        skipped: Rows left out by the limit.
        uncleared: Removed rows left out by the limit.
        idle: Keys that were due again and have nothing to send.
        readded: Of the added rows those that are in the snapshot already, as perhaps delivered.
        opted_out: Values not sent because Batch has the person unsubscribed.
        lengths: Bytes of each operation.
        by_attribute: Rows whose request holds it, by attribute name.
        rejected: `key`, `attribute`, `reason`: all that breaks a rule.
        sample: A few keys.
    """

    path: Path
    counts: dict[Kind, int]
    faulty: int
    skipped: int
    uncleared: int
    idle: list[str]
    readded: int
    opted_out: int
    lengths: npt.NDArray[np.int64]
    by_attribute: dict[str, int]
    rejected: pl.DataFrame
    sample: list[str]

    @property
    def planned(self) -> int:
        """Rows to send."""
        return len(self.lengths)


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
    times_seen = np.zeros(len(job.index), np.uint32)
    times_same = np.zeros(len(job.index), np.uint32)
    unknown_hashes: list[Hashes] = [np.empty(0, np.uint64)]
    rejected: list[pl.DataFrame] = [_REJECTED.to_frame()]
    due_seen: list[pl.Series] = [pl.Series(KEY, [], dtype=pl.String)]
    read = 0
    spool = _Spool(folder)
    for batch in batches:
        mapped = apply(job.mapping, batch)
        read += batch.height
        rejected.append(mapped.rejected)
        candidates, slots = _probed(mapped, job)
        same = (candidates["#same"]).to_numpy()
        np.add.at(times_seen, slots[slots >= 0], 1)
        np.add.at(times_same, slots[same], 1)
        due_seen.append(candidates.filter(pl.col(WHOLE).is_not_null())[KEY])
        unknown_hashes.append(candidates[KEY_HASH].to_numpy()[slots < 0])
        spool.add(candidates.filter(~pl.col("#same")).drop("#same"))
    new, times = np.unique(np.concatenate(unknown_hashes), return_counts=True)
    repeated = times_seen > 1
    return Sifted(
        read=read,
        spool=spool.close(),
        rejected=pl.concat(rejected),
        duplicates=np.concatenate([new[times > 1], job.index.key_hashes[repeated]]),
        duplicate_rows=int(times[times > 1].sum() + times_seen[repeated].sum()),
        unchanged=int(times_same[~repeated].sum()),
        seen=times_seen > 0,
        same=(times_same > 0) & ~repeated,
        due_seen=pl.concat(due_seen),
    )


def build(sifted: Sifted, job: Job, removed: pl.DataFrame, path: Path) -> ChangeSet:
    """Compare the candidates attribute by attribute and write the change set.

    Args:
        sifted: From `sift`.
        job: The same terms.
        removed: `#key`, `#kh` of profiles whose attributes are to be cleared.
        path: Where the change set goes.
    """
    tally = _Tally(job, sifted)
    write_frames(path, tally.frames(removed))
    counts = {
        **{kind: tally.counts.get(kind, 0) for kind in Kind},
        Kind.UNCHANGED: tally.counts.get(Kind.UNCHANGED, 0) + sifted.unchanged,
    }
    bad_keys = sifted.rejected.filter(pl.col("attribute").is_null()).height
    only_bad_values = tally.counts.get(Kind.INVALID, 0)
    counts[Kind.INVALID] = only_bad_values + tally.collisions + bad_keys + sifted.duplicate_rows
    rejected = pl.concat(tally.rejected)
    whole = rejected.filter(pl.col("attribute").is_null())["key"]
    partly = rejected.filter(pl.col("attribute").is_not_null() & ~pl.col("key").is_in(whole.drop_nulls().implode()))
    lengths = np.concatenate(tally.lengths) if tally.lengths else np.empty(0, np.int64)
    faulty = counts[Kind.INVALID] - only_bad_values + partly["key"].n_unique()
    return ChangeSet(
        path=path,
        counts=counts,
        faulty=faulty,
        skipped=tally.skipped,
        uncleared=tally.uncleared,
        idle=tally.idle,
        readded=tally.readded,
        opted_out=tally.opted_out,
        lengths=lengths,
        by_attribute=tally.by_attribute,
        rejected=rejected,
        sample=tally.sample,
    )


def removed_rows(job: Job, seen: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """`#key` and `#kh` of the snapshot's rows that the source no longer has."""
    gone = ~seen
    rows = job.snapshot.rows(job.index.positions[gone], [])
    return rows.with_columns(pl.Series(KEY_HASH, job.index.key_hashes[gone])).select(KEY, KEY_HASH)


class _Spool:
    """Candidates on their way to disk, gathered into files of about SPOOL_ROWS."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[pl.DataFrame] = []
        self._rows = 0
        self._files: list[Path] = []

    def add(self, candidates: pl.DataFrame) -> None:
        if candidates.height:
            self._parts.append(candidates)
            self._rows += candidates.height
        if self._rows >= SPOOL_ROWS:
            self._flush()

    def close(self) -> list[Path]:
        if self._rows:
            self._flush()
        return self._files

    def _flush(self) -> None:
        path = self._folder / f"{len(self._files):05d}.arrow"
        with translated(self._folder):
            pl.concat(self._parts).write_ipc(path, compression="lz4")
        self._files.append(path)
        self._parts, self._rows = [], 0


class _Tally:
    """The counts of a change set while its frames stream to disk."""

    def __init__(self, job: Job, sifted: Sifted) -> None:
        self._job = job
        self._sifted = sifted
        self._planned = 0
        self.counts: dict[Kind, int] = {}
        self.collisions = 0
        self.skipped = 0
        self.uncleared = 0
        self.idle: list[str] = []
        self.readded = 0
        self.opted_out = 0
        self.lengths: list[npt.NDArray[np.int64]] = []
        self.by_attribute = {attribute.name: 0 for attribute in job.attributes}
        self.rejected = [sifted.rejected]
        self.sample: list[str] = []

    def frames(self, removed: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The change set's frames: the candidates' files one by one, then the removed rows."""
        for path in self._sifted.spool:
            decided = self._decided(self._unique(pl.read_ipc(path)))
            yield from map(self._noted, decided.iter_slices(BUILD_ROWS))
        self._repeated_keys_of_dropped_rows()
        for part in removed.iter_slices(BUILD_ROWS):
            yield self._noted(cleared(part, self._job.attributes, self._job.opted_out))

    def _unique(self, candidates: pl.DataFrame) -> pl.DataFrame:
        repeated = pl.col(KEY_HASH).is_in(pl.Series(self._sifted.duplicates, dtype=pl.UInt64).implode())
        if len(self._sifted.duplicates):
            self._reject(candidates.filter(repeated)[KEY].unique(), DUPLICATE)
            candidates = candidates.filter(~repeated)
        return candidates

    def _decided(self, candidates: pl.DataFrame) -> pl.DataFrame:
        names = [attribute.name for attribute in self._job.attributes]
        stored = self._job.snapshot.rows(candidates[POSITION].to_numpy(), names)
        strangers = (candidates[POSITION] >= 0) & (candidates[KEY] != stored[KEY])
        if strangers.any():
            self._reject(candidates.filter(strangers)[KEY], COLLISION)
            self.collisions += int(strangers.sum())
            candidates, stored = candidates.filter(~strangers), stored.filter(~strangers)
        job = self._job
        decided = decide(candidates, stored.drop(KEY), job.attributes, resend=job.resend, opted_out=job.opted_out)
        self.opted_out += int(decided[OPTED_OUT].sum())
        unchanged = pl.col(KIND) == Kind.UNCHANGED
        self.idle += decided.filter(unchanged & pl.col(TRIED).is_not_null())[KEY].to_list()
        self.readded += decided.filter((pl.col(KIND) == Kind.ADDED) & (pl.col(POSITION) >= 0)).height
        for kind in (Kind.UNCHANGED, Kind.INVALID):
            self._count(kind, decided.filter(pl.col(KIND) == kind).height)
        return decided.filter(pl.col(KIND).is_in([kind.value for kind in PLANNED]))

    def _noted(self, planned: pl.DataFrame) -> pl.DataFrame:
        """The rows that the limit leaves, counted, with their operations."""
        room = planned.height if self._job.limit is None else max(self._job.limit - self._planned, 0)
        if (over := planned.height - room) > 0:
            if planned[KIND][0] == Kind.REMOVED:
                self.uncleared += over
            else:
                self.skipped += over
            planned = planned.head(room)
        self._planned += planned.height
        for kind, rows in planned[KIND].value_counts().rows():
            self._count(Kind(kind), rows)
        for bit, attribute in enumerate(self._job.attributes):
            self.by_attribute[attribute.name] += int(((planned[SEND] // (1 << bit)) % 2).sum())
        self.sample += planned[KEY].head(10 - len(self.sample)).to_list()
        rows = planned.with_columns(operations(planned, self._job.attributes).alias(OPERATION))
        self.lengths.append(rows[OPERATION].str.len_bytes().to_numpy().astype(np.int64))
        hashes = [HASH + attribute.name for attribute in self._job.attributes]
        return rows.select(KEY, KEY_HASH, ROW_HASH, SEND, KIND, OPERATION, *hashes)

    def _repeated_keys_of_dropped_rows(self) -> None:
        """A repeated key whose rows all equalled the snapshot left no candidate to take the key from."""
        slots = self._job.index.slots(self._sifted.duplicates)
        keys = self._job.snapshot.rows(self._job.index.positions[slots[slots >= 0]], [])[KEY]
        noted = pl.concat(self.rejected).filter(pl.col("reason") == DUPLICATE)["key"]
        self._reject(keys.filter(~keys.is_in(noted.implode())), DUPLICATE)

    def _reject(self, keys: pl.Series, reason: str) -> None:
        rows = pl.DataFrame({"key": keys}).select(
            "key", pl.lit(None, dtype=pl.String).alias("attribute"), pl.lit(reason).alias("reason")
        )
        noted = pl.concat(self.rejected).filter(pl.col("reason") == reason)["key"]
        self.rejected.append(rows.filter(~pl.col("key").is_in(noted.implode())))

    def _count(self, kind: Kind, rows: int) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + rows


def _probed(mapped: Mapped, job: Job) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """The valid rows with hashes, position, what is due of them, and `#same`; and their slots in the index."""
    rows = mapped.valid.hstack(hashed(mapped.valid, job.attributes, job.seed))
    slots = job.index.slots(rows[KEY_HASH].to_numpy())
    known = slots >= 0
    positions, before = np.full(rows.height, -1, np.int64), np.zeros(rows.height, np.uint64)
    positions[known] = job.index.positions[slots[known]]
    before[known] = job.index.row_hashes[slots[known]]
    rows = with_due(rows.with_columns(pl.Series(POSITION, positions), pl.Series("#before", before)), job.due)
    same = (
        (pl.col(POSITION) >= 0)
        & (pl.col("#before") == pl.col(ROW_HASH))
        & (pl.col(WITHHELD) == 0)
        & pl.col(WHOLE).is_null()
    )
    return rows.with_columns((same & pl.lit(not job.resend)).alias("#same")).drop("#before"), slots
