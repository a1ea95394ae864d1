"""The lines of an export on their way into a table: judged and typed once, for every warehouse alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from connector import export_lines
from connector.export_lines import NUMBER, Frame
from connector.export_tables import LINE, POSITION, Extract, typed
from connector.exporting import File
from connector.hashing import Hashes
from connector.state.files import write_frames
from connector.task import Progress

NOT_JSON, NO_KEY = "no JSON object", "no event id"


class Terms(NamedTuple):
    """What a line becomes.

    Attributes:
        extracts: The columns that it fills.
        key: The column by which two rows are one.
        keyed: Whether a line without a key is broken, as it could not be told from itself.
        constants: What every row has besides.
    """

    extracts: Sequence[Extract]
    key: str
    keyed: bool
    constants: Sequence[pl.Expr]


class Broken(NamedTuple):
    """A line that is no row: its place, from 1, and why."""

    file: int
    line: int
    reason: str


class Parsed(NamedTuple):
    """An export's lines, in files for the warehouse.

    Attributes:
        files: Parquet, one a file of Batch's that has rows.
        rows: Lines in them.
        repeated: Whether two of them have the same key.
        broken: The lines left out.
        mistyped: Values that are not of their column's type, and null there.
    """

    files: list[Path]
    rows: int
    repeated: bool
    broken: list[Broken]
    mistyped: int


def parse(files: Sequence[File], terms: Terms, progress: Progress) -> Parsed:
    """Every line of every file, in Parquet beside it; nothing of it counts before the last line was read.

    The Parquet files have `_position` (Int64), the extracts' columns by their types, the constants, and `raw`.

    Raises:
        ExportError: A file is not whole.
        StateError: The disk is full.
    """
    tally = _Tally()
    written = []
    with export_lines.json_reader() as reader:
        for number, file in enumerate(files, 1):
            path = file.path.with_suffix(".parquet")
            path.unlink(missing_ok=True)
            frames = export_lines.read(reader, file.path, file.size, terms.extracts)
            if write_frames(path, (tally.noted(frame, number, terms) for frame in frames)):
                written.append(path)
            progress("parse", tally.rows, None)
    return Parsed(written, tally.rows, tally.repeated, tally.broken, tally.mistyped)


@dataclass(slots=True)
class _Tally:
    """The counts of an export while its lines stream by."""

    rows: int = 0
    mistyped: int = 0
    broken: list[Broken] = field(default_factory=list)
    keys: list[Hashes] = field(default_factory=lambda: [np.empty(0, np.uint64)])

    @property
    def repeated(self) -> bool:
        keys = np.sort(np.concatenate(self.keys))
        return bool((keys[1:] == keys[:-1]).any())

    def noted(self, frame: Frame, file: int, terms: Terms) -> pl.DataFrame:
        """The frame as rows of the table, counted."""
        self.broken += [Broken(file, line, NOT_JSON) for line in frame.broken]
        rows = frame.rows
        if terms.keyed:
            self.broken += [Broken(file, line, NO_KEY) for line in rows.filter(pl.col(terms.key).is_null())[NUMBER]]
            rows = rows.filter(pl.col(terms.key).is_not_null())
        positions = pl.int_range(self.rows, self.rows + pl.len(), dtype=pl.Int64).alias(POSITION)
        made = rows.select(positions, *_values(terms), *terms.constants, LINE)
        self.rows += made.height
        self.mistyped += sum(made[name].null_count() - rows[name].null_count() for name in _names(terms))
        self.keys.append(made[terms.key].drop_nulls().hash().to_numpy())
        return made


def _values(terms: Terms) -> Iterator[pl.Expr]:
    for extract in terms.extracts:
        name, type_ = extract.column
        yield typed(pl.col(name), type_).alias(name)


def _names(terms: Terms) -> Iterator[str]:
    return (extract.column.name for extract in terms.extracts)
