"""From candidates to a change set on disk: decide what is due, attribute by attribute, and build the operations."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.changes import KIND, OPTED_OUT, PLANNED, POSITION, SEND, TRIED, Kind, cleared, decide
from connector.hashing import HASH, KEY_HASH, ROW_HASH
from connector.mapping import KEY
from connector.payload import OPERATION, operations
from connector.probing import Job, Sifted
from connector.state.files import gathered, read_arrow, write_frames

BUILD_ROWS = 10_000
"""Rows whose JSON is built in one go: it is many times larger than the columns that it is made of."""

DUPLICATE = "the key is found more than once in the source"
COLLISION = "the key's hash equals that of another key; change the key by a character"


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
        spooled = map(read_arrow, self._sifted.spool)
        for candidates in gathered(spooled, self._job.held_bytes, pl.DataFrame.estimated_size):
            decided = self._decided(self._unique(candidates))
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
        places, key_hashes = (candidates[name].to_numpy() for name in (POSITION, KEY_HASH))
        stored = self._job.snapshot.rows(places, names, key_hashes=key_hashes)
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
        self._reject(keys, DUPLICATE)

    def _reject(self, keys: pl.Series, reason: str) -> None:
        rows = pl.DataFrame({"key": keys}).select(
            "key", pl.lit(None, dtype=pl.String).alias("attribute"), pl.lit(reason).alias("reason")
        )
        noted = pl.concat(self.rejected).filter(pl.col("reason") == reason)["key"]
        self.rejected.append(rows.filter(~pl.col("key").is_in(noted.implode())))

    def _count(self, kind: Kind, rows: int) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + rows
