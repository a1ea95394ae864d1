"""A stable 64-bit hash of every value that is sent: equal across Polars versions, platforms and processes.

Recipe, version 1. Text is hashed by xxh3-64 under a seed; numbers, booleans and dates by mixing their 64 bits with it;
an array by
mixing each item's hash with its place and adding up. The seed is secret and differs by attribute type, so that 1, 1.0,
'1' and true
are four values. `pl.hash` would be less to write, but it changes between Polars versions. Anything changed here needs
a new VERSION;
golden vectors in the tests hold it still.
"""

from binascii import hexlify
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash  # noqa: F401 - registers the `nchash` namespace

from connector.mapping import KEY, Attribute
from connector.rules import AttributeType

VERSION = 1

NULL = 0
"""The hash of no value, and of a column that a snapshot lacks: a new column is due only where it has values."""

UNKNOWN = 1
"""Stored where it is not known what Batch holds: equals no value's hash, so the attribute stays due."""

KEY_HASH = "#kh"
ROW_HASH = "#rh"
HASH = "h:"
"""Prefix of the column that holds an attribute's hash: `h:plan`."""

HI, LO = "#hi", "#lo"
"""The two halves of an event's identity."""

Hashes: TypeAlias = npt.NDArray[np.uint64]

_RESERVED = 2
_TEXTUAL = ("string", "url", "array")
_SECOND = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_SALTS: dict[AttributeType, int] = {
    "string": 0x9AE16A3B2F90404F,
    "integer": 0xC949C7DEFE36A3B1,
    "float": 0xB492B66FBE98F273,
    "boolean": 0x8CB92BA72F3D8DD7,
    "date": 0xD6E8FEB86659FD93,
    "url": 0xE7037ED1A0B428DB,
    "array": 0xA0761D6478BD642F,
}


def hashed(frame: pl.DataFrame, attributes: Sequence[Attribute], seed: int) -> pl.DataFrame:
    """Hashes of a mapped record batch.

    Args:
        frame: `Mapped.valid`: `#key` and one column an attribute.
        attributes: The attributes to hash.
        seed: Secret of the state, 0 to 2**64 - 1.

    Returns:
        UInt64 columns, none null: `#kh`, `#rh`, and `h:NAME` for each attribute.
    """
    columns = {HASH + attribute.name: _values(frame[attribute.name], attribute.type, seed) for attribute in attributes}
    hashes = pl.DataFrame({KEY_HASH: key_hashes(frame[KEY], seed), **columns})
    return hashes.insert_column(1, row_hashes(hashes.drop(KEY_HASH)).alias(ROW_HASH))


def key_hashes(keys: pl.Series, seed: int) -> pl.Series:
    """One UInt64 a key, named `#kh`."""
    return pl.Series(KEY_HASH, _xxh3(keys, seed))


def identities(ids: pl.Series, seed: int) -> pl.DataFrame:
    """128 bits an id, `#hi` and `#lo` (UInt64): of 10 million events a day no two meet by chance in a lifetime."""
    return pl.DataFrame({HI: _xxh3(ids, seed), LO: _xxh3(ids, seed ^ _SECOND)})


def derived_ids(events: pl.Series) -> pl.Series:
    """32 hexadecimal digits that depend on the text alone: the same on every machine, whatever the state's seed."""
    pairs = np.stack([_xxh3(events, 0), _xxh3(events, _SECOND)], axis=1).astype(">u8")
    digits = np.frombuffer(hexlify(pairs.tobytes()), dtype="S32")
    return pl.Series(events.name, digits, dtype=pl.Binary).cast(pl.String)


def row_hashes(hashes: pl.DataFrame) -> pl.Series:
    """One UInt64 a row over its `h:NAME` columns: independent of their order, and nulls add nothing.

    So an attribute that is null everywhere leaves every row's hash as it was.
    """
    total, one = np.zeros(hashes.height, np.uint64), np.empty(hashes.height, np.uint64)
    for name in hashes.columns:
        total += np.multiply(hashes[name].to_numpy(), _factor(name), out=one)
    return pl.Series(ROW_HASH, total)


@lru_cache(maxsize=1024)
def _factor(name: str) -> np.uint64:
    """What a column's hashes count for in the row's: an odd number, so that no bit of them is lost."""
    return np.uint64(int(_xxh3(pl.Series([name]), 0)[0]) | 1)


@lru_cache
def self_test(seed: int) -> int:
    """A hash over one value of each kind: stored with a snapshot, and compared before the snapshot is believed."""
    frame = pl.DataFrame({"s": ["é"], "i": [-7], "f": [0.1], "b": [True], "a": [["x", "y"]]})
    kinds: dict[str, AttributeType] = {
        "s": "string",
        "i": "integer",
        "f": "float",
        "b": "boolean",
        "a": "array",
    }
    return (
        int(row_hashes(pl.DataFrame({name: _values(frame[name], kind, seed) for name, kind in kinds.items()}))[0]) >> 1
    )


def _values(series: pl.Series, kind: AttributeType, seed: int) -> pl.Series:
    """UInt64, NULL where the value is null, and never a reserved number otherwise."""
    seed = (seed ^ _SALTS[kind]) & _MASK
    if kind in ("string", "url"):
        hashes = _xxh3(series, seed)  # NULL where there is no text
    elif kind == "array":
        hashes = _items(series, seed)
    else:
        hashes = _mix(_bits(series) ^ np.uint64(seed))
    there = series.is_not_null().to_numpy() if series.null_count() else np.True_
    if (low := (hashes < _RESERVED) & there).any():
        hashes = np.where(low, hashes + np.uint64(_RESERVED), hashes)
    if series.null_count() and kind not in _TEXTUAL:
        hashes = np.multiply(hashes, there)  # NULL is 0, and a product is quicker than a choice at every row
    return pl.Series(series.name, hashes)


def _xxh3(series: pl.Series, seed: int) -> Hashes:
    column = pl.DataFrame({"text": series.cast(pl.String)})
    hashes = column.select(pl.col("text").nchash.xxh3_64(seed=seed).fill_null(NULL))  # type: ignore[attr-defined]
    return hashes.to_series().to_numpy()


def _items(series: pl.Series, seed: int) -> Hashes:
    """Arrays are never empty here: an empty array counts as null."""
    hashes = np.zeros(len(series), np.uint64)
    arrays = series.drop_nulls()
    if len(arrays):
        lengths = arrays.list.len().to_numpy().astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        place = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        places = _mix(np.arange(1, lengths.max() + 1, dtype=np.uint64))
        mixed = _mix(_xxh3(arrays.explode(), seed) + places[place])
        hashes[series.is_not_null().to_numpy()] = _mix(np.add.reduceat(mixed, starts))
    return hashes


def _bits(series: pl.Series) -> Hashes:
    """The value's own 64 bits: of a float its IEEE form, of a date its milliseconds."""
    if series.dtype == pl.Float64:
        return series.fill_null(0.0).to_numpy().view(np.uint64)
    return series.to_physical().cast(pl.Int64).fill_null(0).to_numpy().view(np.uint64)


def _mix(bits: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = bits ^ (bits >> np.uint64(shift))
        bits *= np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))
