"""What has to be sent: record batches probed against a snapshot's index, then compared attribute by attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.hashing import HASH, NULL, ROW_HASH, UNKNOWN, Hashes
from connector.judging import WITHHELD
from connector.mapping import KEY, Attribute

Positions: TypeAlias = npt.NDArray[np.integer[Any]]

POSITION = "#position"
"""Where a row stands in the snapshot (Int64); -1: the snapshot does not have it."""

SEND = "#send"
"""UInt64, bit i set: attribute i goes into the request, as its value or as null."""

KIND = "#kind"

OPTED_OUT = "#opted_out"
"""UInt32: values that stay back because Batch has the person unsubscribed."""

WHOLE = "#whole"
"""Boolean of a row that is due again: every attribute is due; null where the row is not due again."""

TRIED = "#tried"
"""UInt64 of a row that is due again: the source row's hash when it was last tried."""


class Kind(StrEnum):
    """What becomes of a row of the source."""

    ADDED = "added"
    CHANGED = "changed"
    RETRIED = "retried"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    REMOVED = "removed"


_NOBODY: Mapping[str, pl.Series] = {}

PLANNED = (Kind.ADDED, Kind.CHANGED, Kind.RETRIED)


@dataclass(frozen=True, slots=True)
class Index:
    """What a snapshot holds, sorted by key hash; three arrays of one length.

    Attributes:
        key_hashes: UInt64, ascending, no two alike.
        row_hashes: UInt64.
        positions: The row's place in the snapshot's files, counted through.
    """

    key_hashes: Hashes
    row_hashes: Hashes
    positions: Positions
    _firsts: npt.NDArray[np.uint32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_firsts", _firsts(self.key_hashes))

    def __len__(self) -> int:
        """Rows of the snapshot."""
        return len(self.key_hashes)

    def slots(self, key_hashes: Hashes) -> npt.NDArray[np.int64]:
        """For each key hash its place in these arrays, -1 where it is not among them."""
        if not len(self):
            return np.full(len(key_hashes), -1, np.int64)
        # Hashes are evenly spread, so that the upper bits lead to within a few places: one look at memory, not twenty.
        found = self._firsts[key_hashes >> _shift(len(self._firsts))].astype(np.int64)
        behind = np.flatnonzero(self.key_hashes.take(found, mode="clip") < key_hashes)
        while behind.size:
            found[behind] += 1
            behind = behind[found[behind] < len(self)]
            behind = behind[self.key_hashes[found[behind]] < key_hashes[behind]]
        return np.where(self.key_hashes.take(found, mode="clip") == key_hashes, found, -1)


_BLOCK = 1 << 20


def _shift(buckets: int) -> np.uint64:
    """What leaves of 64 bits those that number so many buckets, a power of two."""
    return np.uint64(65 - buckets.bit_length())


def _firsts(key_hashes: Hashes) -> npt.NDArray[np.uint32]:
    """For each value of the upper bits the place of the first key hash that has it, or would follow."""
    counts = np.zeros(1 << max(1, len(key_hashes).bit_length() - 2), np.uint32)
    for start in range(0, len(key_hashes), _BLOCK):
        upper = key_hashes[start : start + _BLOCK] >> _shift(len(counts))
        counts[upper[0] : upper[-1] + np.uint64(1)] += np.bincount((upper - upper[0]).astype(np.int64)).astype(
            np.uint32
        )
    return np.cumsum(counts, dtype=np.uint32) - counts


def decide(
    candidates: pl.DataFrame,
    stored: pl.DataFrame,
    attributes: Sequence[Attribute],
    *,
    resend: bool = False,
    opted_out: Mapping[str, pl.Series] = _NOBODY,
) -> pl.DataFrame:
    """Which attributes of which rows are due.

    Args:
        candidates: `#key`, `#kh`, `#rh`, `#position`, `#withheld`, each attribute's value and `h:` hash; `#whole`,
            `#tried` as `with_due` adds them.
        stored: The `h:` hashes of the same rows in the snapshot, in the same order; anything where `#position` is -1.
        attributes: At most 64, in the order of the bits of `#withheld` and `#send`.
        resend: Every row is due whole.
        opted_out: Keys (String) by attribute name: for them nothing but `unsubscribed` is sent, as if it never were.

    Returns:
        The candidates with `#send`, `#kind` (`Kind`, text), `#opted_out` and, in the `h:` columns, what the snapshot
        will hold once the row is accepted.
    """
    frame = pl.concat([candidates, stored.rename(lambda name: "stored " + name)], how="horizontal")
    new = pl.col(POSITION) == -1
    doubtful = pl.col(WHOLE).fill_null(value=False)
    whole = new | doubtful | pl.lit(resend)
    sends, holds, after = [], [], []
    for bit, attribute in enumerate(attributes):
        current, before = pl.col(HASH + attribute.name), pl.col("stored " + HASH + attribute.name)
        withheld = (pl.col(WITHHELD) // (1 << bit)) % 2 == 1
        kept = pl.col(attribute.name).is_null() & pl.lit(attribute.keep)
        due = ~withheld & ~kept & (whole | (current != before))
        held = _resubscribes(attribute, opted_out)
        holds.append((due & held).cast(pl.UInt32))
        sends.append((due & ~held).cast(pl.UInt64) * (1 << bit))
        # Batch may hold what a lost request brought, as long as nothing else was sent over it.
        doubt = pl.when(withheld | doubtful).then(pl.lit(UNKNOWN, pl.UInt64)).otherwise(pl.lit(NULL, pl.UInt64))
        unsent = pl.when(new | doubtful).then(doubt).otherwise(before)
        after.append(pl.when(withheld | kept | held).then(unsent).otherwise(current).alias(HASH + attribute.name))
    decided = frame.with_columns(
        pl.sum_horizontal(pl.lit(0, pl.UInt64), *sends).alias(SEND),
        pl.sum_horizontal(pl.lit(0, pl.UInt32), *holds).alias(OPTED_OUT),
        *after,
    )
    again = pl.col(TRIED) == pl.col(ROW_HASH)
    fresh = new | _never_accepted(attributes)
    same = ~new & pl.lit(resend) & _same(attributes)
    nothing = (1 << len(attributes)) - 1
    kind = (
        pl.when(pl.col(WITHHELD) == nothing).then(pl.lit(Kind.INVALID))
        .when(pl.col(SEND) == 0).then(pl.lit(Kind.UNCHANGED))
        .when(again | same).then(pl.lit(Kind.RETRIED))
        .when(fresh).then(pl.lit(Kind.ADDED))
        .otherwise(pl.lit(Kind.CHANGED))
    )  # fmt: skip
    return decided.with_columns(kind.alias(KIND)).select(pl.exclude(r"^stored .*$"))


def cleared(
    keys: pl.DataFrame, attributes: Sequence[Attribute], opted_out: Mapping[str, pl.Series] = _NOBODY
) -> pl.DataFrame:
    """Rows that null every attribute of profiles that left the source.

    Args:
        keys: `#key`, `#kh`.
        attributes: The attributes to null.
        opted_out: Keys (String) by attribute name: that one is left as it is.

    Returns:
        The columns of `decide` that an outbox needs; all values and hashes null, and every bit of `#send` set but for
        those left.
    """
    return keys.with_columns(
        *(pl.lit(None, dtype=pl.String).alias(attribute.name) for attribute in attributes),
        *(pl.lit(NULL, pl.UInt64).alias(HASH + attribute.name) for attribute in attributes),
        pl.lit(NULL, pl.UInt64).alias(ROW_HASH),
        pl.lit(Kind.REMOVED.value).alias(KIND),
    ).with_columns(
        pl.sum_horizontal(
            pl.lit(0, pl.UInt64),
            *((~_resubscribes(each, opted_out)).cast(pl.UInt64) * (1 << bit) for bit, each in enumerate(attributes)),
        ).alias(SEND)
    )


def with_due(candidates: pl.DataFrame, due: pl.DataFrame) -> pl.DataFrame:
    """The candidates with `#whole` and `#tried` of the rows that are due again.

    Args:
        candidates: Has `#key`.
        due: `key`, `reason`, `whole`, `source_hash`; a key may stand there for more than one reason.
    """
    tried = pl.col("source_hash").filter(pl.col("reason") != "withheld").last().fill_null(0)
    once = due.group_by(pl.col("key").alias(KEY)).agg(pl.col("whole").any().alias(WHOLE), tried.alias(TRIED))
    return candidates.join(once, on=KEY, how="left", maintain_order="left")


def _resubscribes(attribute: Attribute, opted_out: Mapping[str, pl.Series]) -> pl.Expr:
    """Whether the value would overrule that somebody has unsubscribed at Batch, as a null would, too."""
    keys = opted_out.get(attribute.name)
    if keys is None:
        return pl.lit(value=False)
    return pl.col(KEY).is_in(keys.implode()) & pl.col(attribute.name).ne_missing(pl.lit("unsubscribed"))


def _never_accepted(attributes: Sequence[Attribute]) -> pl.Expr:
    """A row that is in the snapshot only because a request with it may have been applied."""
    before = [pl.col("stored " + HASH + attribute.name) for attribute in attributes]
    return pl.all_horizontal(hash_.is_in([UNKNOWN, NULL]) for hash_ in before) & pl.any_horizontal(
        hash_ == UNKNOWN for hash_ in before
    )


def _same(attributes: Sequence[Attribute]) -> pl.Expr:
    return pl.all_horizontal(
        pl.col(HASH + attribute.name) == pl.col("stored " + HASH + attribute.name) for attribute in attributes
    )


__all__ = [
    "KIND",
    "OPTED_OUT",
    "PLANNED",
    "POSITION",
    "SEND",
    "Index",
    "Kind",
    "cleared",
    "decide",
    "with_due",
]
