"""A stable 64-bit hash of every value that is sent: equal across Polars versions, platforms and processes.

Recipe, version 2. Text is hashed by xxh3-64 under a seed; numbers, booleans and dates by mixing their 64 bits with it;
an array by mixing each item's hash with its place and adding up. The seed is secret and differs by attribute type, so
that 1, 1.0, '1' and true are four values. A row's hash adds up those of its values, each times a number of its name,
and a second hash of its key, so that two keys of one hash are two rows. `pl.hash` would be less to write, but it
changes between Polars versions. Anything changed here needs a new VERSION; golden vectors in the tests hold it still.
"""

from binascii import hexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash  # noqa: F401 - registers the `nchash` namespace

from connector.mapping import KEY, Attribute
from connector.rules import AttributeType

VERSION = 2

NULL = 0
"""The hash of no value, and of a column that a snapshot lacks: a new column is due only where it has values."""

UNKNOWN = 1
"""Stored where it is not known what Batch holds: equals no value's hash, so the attribute stays due."""

KEY_HASH = "#kh"
ROW_HASH = "#rh"
_KEY_SECOND = "#kh2"
HASH = "h:"
"""Prefix of the column that holds an attribute's hash: `h:plan`."""

HI, LO = "#hi", "#lo"
"""The two halves of an event's identity."""

Hashes: TypeAlias = npt.NDArray[np.uint64]

_RESERVED = 2
_TEXT = ("string", "url")
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
    bits = _bits(frame, attributes, seed)
    columns = dict(_hashes(frame, bits, attributes, seed))
    rows = _total(bits[_KEY_SECOND], columns.items())
    return pl.DataFrame({KEY_HASH: bits[KEY_HASH], ROW_HASH: rows, **columns})


def fingerprints(frame: pl.DataFrame, attributes: Sequence[Attribute], seed: int) -> tuple[Hashes, Hashes]:
    """`#kh` and `#rh` as `hashed` has them, for less: what each row is looked up by."""
    bits = _bits(frame, attributes, seed)
    return bits[KEY_HASH].to_numpy(), _total(bits[_KEY_SECOND], _hashes(frame, bits, attributes, seed))


def key_hashes(keys: pl.Series, seed: int) -> pl.Series:
    """One UInt64 a key, named `#kh`."""
    return pl.Series(KEY_HASH, _text_hashes(keys, seed))


def identities(ids: pl.Series, seed: int) -> pl.DataFrame:
    """128 bits an id, `#hi` and `#lo` (UInt64): of 10 million events a day no two meet by chance in a lifetime."""
    return pl.DataFrame({HI: _text_hashes(ids, seed), LO: _text_hashes(ids, seed ^ _SECOND)})


def derived_ids(events: pl.Series) -> pl.Series:
    """32 hexadecimal digits that depend on the text alone: the same on every machine, whatever the state's seed."""
    pairs = np.stack([_text_hashes(events, 0), _text_hashes(events, _SECOND)], axis=1).astype(">u8")
    digits = np.frombuffer(hexlify(pairs.tobytes()), dtype="S32")
    return pl.Series(events.name, digits, dtype=pl.Binary).cast(pl.String)


def row_hashes(hashes: pl.DataFrame) -> pl.Series:
    """One UInt64 a row over its `#key` and its `h:NAME` columns: independent of their order, and nulls add nothing.

    So an attribute that is null everywhere leaves every row's hash as it was.
    """
    named = ((name, hashes[name].to_numpy()) for name in hashes.columns if name != KEY)
    return pl.Series(ROW_HASH, _total(hashes.select(_xxh3(pl.col(KEY), _SECOND)).to_series(), named))


def _total(keys: pl.Series, named: Iterable[tuple[str, Hashes]]) -> Hashes:
    total, one = keys.to_numpy().copy(), np.empty(len(keys), np.uint64)
    for name, hashes in named:
        total += np.multiply(hashes, _factor(name), out=one)
    return total


@lru_cache(maxsize=1024)
def _factor(name: str) -> np.uint64:
    """What a column's hashes count for in the row's: an odd number, so that no bit of them is lost."""
    return np.uint64(int(_text_hashes(pl.Series([name]), 0)[0]) | 1)


@lru_cache
def self_test(seed: int) -> int:
    """A hash over one value of each kind: stored with a snapshot, and compared before the snapshot is believed."""
    values = {"s": "é", "i": -7, "f": 0.1, "b": True, "a": ["x", "y"]}
    types: tuple[AttributeType, ...] = ("string", "integer", "float", "boolean", "array")
    attributes = [Attribute(name, type_, name, keep=False) for name, type_ in zip(values, types, strict=True)]
    frame = pl.DataFrame({KEY: ["k"], **{name: [value] for name, value in values.items()}})
    return int(hashed(frame, attributes, seed)[ROW_HASH][0]) >> 1


def _bits(frame: pl.DataFrame, attributes: Sequence[Attribute], seed: int) -> pl.DataFrame:
    """All that Polars works out, in one query: `#kh`, the key's second hash, and of each attribute what is hashed.

    Of text its hash itself; of a number, a boolean or a date its own 64 bits; of an array the number of its items.
    """
    kinds: dict[AttributeType, Callable[[pl.Expr], pl.Expr]] = {
        "string": lambda text: _xxh3(text, _salted("string", seed)),
        "url": lambda text: _xxh3(text, _salted("url", seed)),
        "array": lambda items: items.list.len(),
        "float": lambda number: number.fill_null(0.0),
    }
    return frame.select(
        _xxh3(pl.col(KEY), seed).alias(KEY_HASH),
        _xxh3(pl.col(KEY), _SECOND).alias(_KEY_SECOND),
        *(kinds.get(attribute.type, _integer)(pl.col(attribute.name)) for attribute in attributes),
    )


def _integer(value: pl.Expr) -> pl.Expr:
    return value.to_physical().cast(pl.Int64).fill_null(0)


def _hashes(
    frame: pl.DataFrame, bits: pl.DataFrame, attributes: Sequence[Attribute], seed: int
) -> Iterator[tuple[str, Hashes]]:
    """`h:NAME` and its hashes: NULL where the value is null, and never a reserved number otherwise."""
    for name, type_ in ((attribute.name, attribute.type) for attribute in attributes):
        series, salted = frame[name], _salted(type_, seed)
        if type_ in _TEXT:
            hashes = bits[name].to_numpy()  # NULL where there is no text
        elif type_ == "array":
            hashes = _items(series, bits[name], salted)
        else:
            hashes = _mix(bits[name].to_numpy().view(np.uint64) ^ np.uint64(salted))
            if series.null_count():  # NULL is 0, and a product is quicker than a choice at every row
                hashes *= series.is_not_null().to_numpy()
        if np.count_nonzero(hashes < _RESERVED) > series.null_count():
            low = (hashes < _RESERVED) & series.is_not_null().to_numpy()
            hashes = np.where(low, hashes + np.uint64(_RESERVED), hashes)
        yield HASH + name, hashes


def _items(series: pl.Series, lengths: pl.Series, seed: int) -> Hashes:
    """Arrays are never empty here: an empty array counts as null."""
    hashes = np.zeros(len(series), np.uint64)
    counts = lengths.drop_nulls().to_numpy()
    if len(counts):
        ends = np.cumsum(counts, dtype=np.int64)
        starts = ends - counts
        place = np.arange(ends[-1])
        place -= np.repeat(starts, counts)
        mixed = _mix(np.arange(1, counts.max() + 1, dtype=np.uint64))[place]
        mixed += _text_hashes(series.drop_nulls().explode(), seed)
        hashes[series.is_not_null().to_numpy()] = _mix(np.add.reduceat(_mix(mixed), starts))
    return hashes


def _salted(type_: AttributeType, seed: int) -> int:
    return (seed ^ _SALTS[type_]) & _MASK


def _text_hashes(texts: pl.Series, seed: int) -> Hashes:
    return texts.to_frame("").select(_xxh3(pl.col(""), seed)).to_series().to_numpy()


def _xxh3(text: pl.Expr, seed: int) -> pl.Expr:
    found: pl.Expr = text.cast(pl.String).nchash.xxh3_64(seed=seed).fill_null(NULL)  # type: ignore[attr-defined]
    return found


def _mix(bits: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    mixed = bits >> np.uint64(30)
    mixed ^= bits
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
