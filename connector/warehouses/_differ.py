"""What a warehouse must be able to do to be the engine of a sync: one narrow interface."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from connector.warehouses._base import Latest, Reader, Relation, Window


@dataclass(frozen=True, slots=True)
class Comparison:
    """What of a source is compared with a snapshot.

    Attributes:
        source: The table or query.
        key: The source's column of the key.
        attributes: Of each attribute its column in the snapshot ([a-z][a-z0-9_]{0,60}) and the source's.
        whole: Every row, equal or not.
        window: Rows of this window alone, and those of `keys`; what the source lacks is then not told.
        keys: A Parquet file of `k` (String, distinct): rows to look at whatever their values.
        asked: Rows of `keys` alone.
        latest: See `Reader.read`.
    """

    source: Relation
    key: str
    attributes: Sequence[tuple[str, str]]
    whole: bool = False
    window: Window | None = None
    keys: Path | None = None
    asked: bool = False
    latest: Latest | None = None

    @property
    def names(self) -> list[str]:
        """The attributes' columns in the snapshot."""
        return [name for name, _ in self.attributes]

    @property
    def parts(self) -> bool:
        """Not the whole source is read."""
        return self.asked or self.window is not None


class Differ(Protocol):
    """An open connection that compares a source with a snapshot of values in a schema of ours. One thread at a time.

    Tables are named without their schema. All may be repeated after a kill.
    """

    @property
    def reader(self) -> Reader:
        """Reads over the same connection."""

    def tables(self, prefix: str) -> list[str]:
        """The names of our schema's tables that begin so; none where there is no schema."""

    def rows(self, table: str) -> int:
        """The rows of a table of ours.

        Raises:
            WarehouseError: There is no such table.
        """

    def read(self, table: str, columns: Sequence[str], side: str | None = None) -> Iterator[pl.DataFrame]:
        """Columns of a table of ours; of a delta also one side: see `_diffing.SIDES`.

        Raises:
            WarehouseError: The read failed; what was yielded until then must not be taken as complete.
        """

    def make(self, snapshot: str, comparison: Comparison) -> None:
        """An empty snapshot for a source with these columns, and the schema where it is missing.

        Raises:
            WarehouseError: The right to do so is missing; the remedy names it.
        """

    def compare(self, comparison: Comparison, snapshot: str, delta: str) -> None:
        """Make a table of the rows whose values differ, whose key is new, gone or there twice, and those asked for.

        Raises:
            WarehouseError: The source cannot be read, or our schema not be written.
        """

    def settle(self, snapshot: str, delta: str, columns: Sequence[str], marks: Path) -> None:
        """Move a snapshot: all rows or none.

        Args:
            snapshot: Its table.
            delta: Where new values come from.
            columns: The snapshot's attributes; bit i of the masks is about the i-th.
            marks: A Parquet file of distinct `k`, `takes` (the attributes whose new value counts; the others stay),
                `doubt` and `other` (as they stand from now on), `gone` (the row goes) and `at`; see `_diffing.MARKS`.

        Raises:
            WarehouseError: Our schema cannot be written.
        """

    def drop(self, tables: Sequence[str]) -> None:
        """Remove tables of ours, those that are there.

        Raises:
            WarehouseError: The right to do so is missing.
        """
