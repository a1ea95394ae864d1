"""Snapshots of values: their rows as those of a snapshot of hashes, and the marks by which they move."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from connector import values
from connector.changes import SEND
from connector.config import ProfileSync
from connector.errors import WarehouseError
from connector.hashing import HASH, NULL, UNKNOWN, hashed
from connector.judging import WITHHELD, judged, keys, valid
from connector.mapping import KEY, Attribute, Column, Mapping
from connector.state.snapshots import AT, DELETED
from connector.warehouses._differ import Differ

FORGOTTEN = (1 << 64) - 1
"""The hash of a value that was delivered and is not kept: like none that there is."""

Recipe = Sequence[Sequence[Any]]
"""Name, type, the column's type, time zone, and whether its order means nothing, of each attribute."""

_DOUBT, _OTHER = "#doubt", "#other"


class Terms(NamedTuple):
    """How values become attributes: what a snapshot of values has to be read with.

    Attributes:
        mapping: The run's.
        columns: The source's.
        sync: Its settings.
    """

    mapping: Mapping
    columns: Sequence[Column]
    sync: ProfileSync

    @property
    def recipe(self) -> list[list[Any]]:
        """Name, type, the column's type, zone and order of each attribute: with another one a snapshot is made anew."""
        dtypes = {column.name: str(column.dtype) for column in self.columns}
        given = self.sync.attributes or {}
        return [
            [
                each.name,
                each.type,
                dtypes[each.column],
                self.sync.source.timezone,
                each.name in given and given[each.name].unordered,
            ]
            for each in self.mapping.attributes
        ]

    @property
    def attributes(self) -> list[tuple[str, str]]:
        """Each attribute's column in the snapshot, and in the source."""
        return [(own_column(each.name), each.column) for each in self.mapping.attributes]

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Of the source's columns."""
        return {column.name: column.dtype for column in self.columns}


def types_of(mapping: Mapping) -> dict[str, str]:
    """Type by attribute name."""
    return {attribute.name: attribute.type for attribute in mapping.attributes}


def own_column(attribute: str) -> str:
    """An attribute's column in a snapshot: a name that every warehouse takes, `a_plan`, `n_email_address`."""
    return f"n_{attribute[1:]}" if attribute.startswith("$") else f"a_{attribute}"


def hashes(frames: Iterable[pl.DataFrame], recipe: Recipe, own: Sequence[str], seed: int) -> Iterator[pl.DataFrame]:
    """Rows of a snapshot of values (`k`, `doubt`, `other`, `at` and its columns `own`) as those of one of hashes."""
    attributes = [
        Attribute(name, type_, column, keep=False) for (name, type_, *_), column in zip(recipe, own, strict=True)
    ]
    marks = {"k": KEY, "doubt": _DOUBT, "other": _OTHER, "at": AT}
    for frame in frames:
        typed = {
            name: values.typed(column, frame.schema[column], type_, timezone=zone, unordered=unordered)
            for (name, type_, _, zone, unordered), column in zip(recipe, own, strict=True)
        }
        identity = [values.source(name).alias(mark) for name, mark in marks.items()]
        rows = valid(judged(frame, identity, (), typed), list(marks.values()), list(typed))
        hashes = hashed(rows, attributes, seed)
        believed = [_believed(name, bit) for bit, name in enumerate(typed)]
        yield rows.select(*marks.values()).hstack(hashes).with_columns(*believed, pl.lit(value=False).alias(DELETED))


def sources(differ: Differ, delta: str, terms: Terms, side: str) -> Iterator[pl.DataFrame]:
    """The delta's new side as the source's own record batches.

    Args:
        differ: The warehouse.
        delta: A table that it compared.
        terms: How its values become attributes.
        side: Which rows; see `_diffing.SIDES`.

    Raises:
        WarehouseError: The read failed, or a key is not written as it is sent.
    """
    wanted = {terms.mapping.key_column: "key"}
    for own, column in terms.attributes:
        wanted.setdefault(column, f"new_{own}")
    for frame in differ.read(delta, ["k", *wanted.values()], side):
        batch = frame.select(
            pl.Series(column, frame[name]).cast(terms.dtypes[column]) for column, name in wanted.items()
        )
        _require_one_spelling(terms, batch, frame["k"])
        yield batch


def _require_one_spelling(terms: Terms, batch: pl.DataFrame, spelt: pl.Series) -> None:
    """Refuse keys that the warehouse writes otherwise than the mapping: their rows would never be found again."""
    judged = keys(terms.mapping, batch).with_columns(spelt)
    if judged.filter(pl.col("reason").is_null() & pl.col(KEY).ne_missing(pl.col("k"))).height:
        raise WarehouseError(
            f"the warehouse writes keys of column '{terms.mapping.key_column}' otherwise than they are sent",
            remedy="cast the key to text in a query, or set engine: local",
        )


def marks(stored: pl.DataFrame, names: Sequence[str], now: pl.DataFrame | None = None) -> pl.DataFrame:
    """Marks (see `Differ.settle`) of rows of a snapshot of hashes.

    Args:
        stored: The rows.
        names: Their attributes.
        now: The same rows of the source, mapped and hashed; None where it does not have them.
    """
    takes, doubt, other = [], [], []
    for bit, name in enumerate(names):
        before = stored[HASH + name]
        same = pl.repeat(value=False, n=stored.height, dtype=pl.Boolean, eager=True)
        if now is not None:
            same = (now[HASH + name] == before) & ((now[WITHHELD] // (1 << bit)) % 2 == 0)
        takes.append(same.cast(pl.Int64) * (1 << bit))
        doubt.append((before == UNKNOWN).cast(pl.Int64) * (1 << bit))
        other.append((~same & ~before.is_in([UNKNOWN, NULL])).cast(pl.Int64) * (1 << bit))
    masks = {"takes": takes, "doubt": doubt, "other": other}
    return pl.DataFrame({
        "k": stored[KEY],
        **{name: sum(bits, pl.zeros(stored.height, pl.Int64, eager=True)) for name, bits in masks.items()},
        "gone": pl.repeat(value=False, n=stored.height, dtype=pl.Boolean, eager=True),
        "at": stored[AT],
    })  # fmt: skip


def moves(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Marks of rows of an outbox: what was sent and accepted takes its new value, all else stays, or is in doubt."""
    takes, doubt, other = [], [], []
    for bit, name in enumerate(names):
        unknown = pl.col(HASH + name) == UNKNOWN
        sent = (pl.col(SEND) // (1 << bit)) % 2 == 1
        takes.append((sent & ~unknown).cast(pl.Int64) * (1 << bit))
        doubt.append(unknown.cast(pl.Int64) * (1 << bit))
        other.append((pl.col(HASH + name) == FORGOTTEN).cast(pl.Int64) * (1 << bit))
    masks = {"takes": takes, "doubt": doubt, "other": other}
    return frame.select(
        pl.col(KEY).alias("k"),
        *(pl.sum_horizontal(bits).alias(name) for name, bits in masks.items()),
        pl.col(DELETED).alias("gone"),
        pl.col(AT).alias("at"),
    )


def whole(keys: pl.Series, attributes: int) -> pl.DataFrame:
    """Marks (see `Differ.settle`) of rows whose new values all count."""
    zero = pl.lit(0, pl.Int64)
    return pl.DataFrame({"k": keys}).select(
        "k",
        pl.lit((1 << attributes) - 1, pl.Int64).alias("takes"),
        zero.alias("doubt"),
        zero.alias("other"),
        pl.lit(value=False).alias("gone"),
        zero.alias("at"),
    )


def _believed(name: str, bit: int) -> pl.Expr:
    """The hash of a value, where what stands there is to be believed."""

    def has(mask: str) -> pl.Expr:
        return (pl.col(mask) // (1 << bit)) % 2 == 1

    said = pl.when(has(_DOUBT)).then(pl.lit(UNKNOWN, pl.UInt64)).when(has(_OTHER)).then(pl.lit(FORGOTTEN, pl.UInt64))
    return said.otherwise(HASH + name).alias(HASH + name)
