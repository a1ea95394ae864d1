"""Batch's own word against what was delivered: profiles that it lost, attributes that it holds otherwise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from connector import export_tables, values
from connector.changes import Index
from connector.export_tables import Extract, TargetColumn, spellings
from connector.hashing import HASH, KEY_HASH, NULL, ROW_HASH, UNKNOWN, hashed
from connector.mapping import KEY, Attribute
from connector.rules import AttributeType
from connector.state.snapshots import AT, DELETED, Snapshot

SUSPECTS = 200_000
"""Rows whose hashes are looked up in one go."""

_HELD = "held:"
"""Prefix of the column with what a line says of an attribute."""

DIFFERS = "#differs"
"""UInt64, bit i set: Batch holds another value of attribute i than was delivered."""

_LOST = (1 << 64) - 1
"""What `#differs` says of a profile that Batch does not have."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What Batch is held against.

    Attributes:
        snapshot: What was delivered.
        attributes: Of these.
        unordered: Of these, the arrays whose order means nothing.
        seed: The state's.
        until: When Batch was asked, in seconds since 1970: what was acknowledged later is not judged.
    """

    snapshot: Snapshot
    attributes: tuple[Attribute, ...]
    unordered: frozenset[str]
    seed: int
    until: float

    @property
    def names(self) -> list[str]:
        """The attributes' names, in the order of the bits of `#differs`."""
        return [attribute.name for attribute in self.attributes]


@dataclass(frozen=True, slots=True)
class Drift:
    """Where Batch and the snapshot disagree.

    Attributes:
        checked: Profiles of the snapshot that were judged.
        rows: One a profile that is missing or differs: `#key`, `#kh`, `#rh`, `#at`, `#differs` and its `h:` hashes in
            the snapshot.
        by_attribute: Profiles that Batch has with another value, by attribute name.
        unknown: Custom IDs at Batch that the snapshot does not have.
    """

    checked: int
    rows: pl.DataFrame
    by_attribute: dict[str, int]
    unknown: int

    @property
    def missing(self) -> pl.DataFrame:
        """The rows of profiles that Batch does not have."""
        return self.rows.filter(pl.col(DIFFERS) == _LOST)

    @property
    def differing(self) -> pl.DataFrame:
        """The rows of profiles that it has otherwise."""
        return self.rows.filter(pl.col(DIFFERS) != _LOST)


def extracts(types: Mapping[str, AttributeType]) -> list[Extract]:
    """What to take out of a line of an attributes export, as text, to hold it against what was delivered."""
    found = [Extract(TargetColumn(KEY, "text"), (("identifiers", "custom_id"),))]
    for name, type_ in types.items():
        paths = tuple(("attributes", spelling) for spelling in spellings(name, type_))
        found.append(Extract(TargetColumn(_HELD + name, "text"), paths))
    return found


def compare(frames: Iterable[pl.DataFrame], delivered: Delivered) -> Drift:
    """Hold Batch's profiles against the snapshot.

    Args:
        frames: String columns, as `extracts` takes them out of lines.
        delivered: What was delivered.
    """
    index = delivered.snapshot.index()
    tally = _Tally(delivered, index, np.zeros(len(index), np.bool_))
    for frame in frames:
        tally.add(frame.filter(pl.col(KEY).is_not_null()))
    tally.flush()
    return tally.drift()


def doubtful(rows: pl.DataFrame, names: Sequence[str], kept: Sequence[str] = ()) -> pl.DataFrame:
    """The snapshot's rows that make the next run mend a drift: what differs stands there as not known.

    Args:
        rows: Of a `Drift`.
        names: Its attributes.
        kept: Attributes that stay as they are where Batch has the profile.

    Returns:
        The rows that anything is to be mended of, with the columns of a snapshot file.
    """
    mask = sum(1 << bit for bit, name in enumerate(names) if name not in kept)
    mends = pl.when(pl.col(DIFFERS) == _LOST).then(pl.col(DIFFERS)).otherwise(pl.col(DIFFERS) & mask)
    hashes = [
        pl.when((pl.col(DIFFERS) // (1 << bit)) % 2 == 1)
        .then(pl.lit(UNKNOWN, pl.UInt64))
        .otherwise(HASH + name)
        .alias(HASH + name)
        for bit, name in enumerate(names)
    ]
    chosen = rows.with_columns(mends.alias(DIFFERS)).filter(pl.col(DIFFERS) != 0)
    return chosen.with_columns(*hashes, pl.lit(value=False).alias(DELETED))


def lost() -> pl.Expr:
    """Whether Batch does not have the profile at all (Boolean), of a `Drift`'s rows."""
    return pl.col(DIFFERS) == _LOST


@dataclass(slots=True)
class _Tally:
    """A comparison while the lines stream by."""

    delivered: Delivered
    index: Index
    seen: npt.NDArray[np.bool_]
    recent: int = 0
    unknown: int = 0
    found: list[pl.DataFrame] = field(default_factory=list)
    suspects: list[pl.DataFrame] = field(default_factory=list)

    def add(self, rows: pl.DataFrame) -> None:
        held = _held(rows, self.delivered)
        hashes = hashed(held, self.delivered.attributes, self.delivered.seed)
        slots = self.index.slots(hashes[KEY_HASH].to_numpy())
        known = slots >= 0
        self.seen[slots[known]] = True
        self.unknown += int((~known).sum())
        places = np.flatnonzero(known)
        other = places[self.index.row_hashes[slots[places]] != hashes[ROW_HASH].to_numpy()[places]]
        self.suspects.append(hashes.with_columns(held[KEY], pl.Series("#slot", slots))[other])
        if sum(frame.height for frame in self.suspects) >= SUSPECTS:
            self.flush()

    def flush(self) -> None:
        """Look up what the snapshot says of the suspects, attribute by attribute."""
        if not self.suspects:
            return
        suspects = pl.concat(self.suspects)
        self.suspects = []
        stored = self._stored(suspects["#slot"].to_numpy())
        differs = pl.zeros(stored.height, pl.UInt64, eager=True)
        for bit, attribute in enumerate(self.delivered.attributes):
            column = HASH + attribute.name
            differs += _differs(attribute, suspects[column], stored[column]).cast(pl.UInt64) * (1 << bit)
        same_key = stored[KEY] == suspects[KEY]  # another key's hash may be the same
        self._note(stored.filter(same_key), differs.filter(same_key))

    def drift(self) -> Drift:
        lost = self._stored(np.flatnonzero(~self.seen))
        nothing = pl.all_horizontal(pl.col(HASH + name).is_in([NULL, UNKNOWN]) for name in self.delivered.names)
        lost = lost.filter(~nothing)  # of these nothing is known to be at Batch, and it may give no line for them
        self._note(lost, pl.repeat(_LOST, lost.height, dtype=pl.UInt64, eager=True))
        rows = pl.concat(self.found).unique(KEY, keep="last", maintain_order=True)  # lines may be repeated
        differing = rows.filter(pl.col(DIFFERS) != _LOST)[DIFFERS]
        names = enumerate(self.delivered.names)
        by_attribute = {name: int(((differing // (1 << bit)) % 2).sum()) for bit, name in names}
        return Drift(len(self.index) - self.recent, rows, by_attribute, self.unknown)

    def _stored(self, slots: npt.NDArray[np.int64]) -> pl.DataFrame:
        stored = self.delivered.snapshot.rows(self.index.positions[slots], self.delivered.names, at=True)
        return stored.with_columns(
            pl.Series(KEY_HASH, self.index.key_hashes[slots]), pl.Series(ROW_HASH, self.index.row_hashes[slots])
        )

    def _note(self, rows: pl.DataFrame, differs: pl.Series) -> None:
        rows = rows.with_columns(differs.alias(DIFFERS))
        recent = pl.col(AT) >= int(self.delivered.until)  # `#at` has no fractions: of that second nothing is sure
        self.recent += rows.filter(recent).height
        self.found.append(rows.filter(~recent & (pl.col(DIFFERS) != 0)))


def _held(rows: pl.DataFrame, delivered: Delivered) -> pl.DataFrame:
    """What lines say, in the types in which attributes are hashed: as a mapping of their texts would have it."""
    held = (_value(attribute, delivered.unordered).alias(attribute.name) for attribute in delivered.attributes)
    return values.as_source(rows).select(values.source(KEY).alias(KEY), *held)


def _value(attribute: Attribute, unordered: frozenset[str]) -> pl.Expr:
    text = values.source(_HELD + attribute.name)
    match attribute.type:
        case "integer":
            return export_tables.typed(text, "integer")
        case "float":
            return export_tables.typed(text, "float")
        case "boolean":
            return export_tables.typed(text, "boolean")
        case "date":
            return export_tables.typed(text, "timestamp").dt.cast_time_unit("ms")
        case _:
            sorts = attribute.name in unordered
            return values.typed(_HELD + attribute.name, pl.String(), attribute.type, unordered=sorts).value


def _differs(attribute: Attribute, held: pl.Series, stored: pl.Series) -> pl.Series:
    """Where Batch holds another value than was delivered (Boolean); what is in doubt anyway is no drift."""
    differs = (held != stored) & (stored != UNKNOWN)
    if attribute.keep:  # a null that is kept says nothing about what Batch holds
        differs &= stored != NULL
    return differs
