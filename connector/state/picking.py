"""Rows of a snapshot's file by their places: a few of many, or most of them, without the file being held."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from connector.changes import Positions
from connector.hashing import KEY_HASH, NULL, Hashes

_PIECE_ROWS = 250_000
"""Rows of a file that are decoded at once."""

_GAP_ROWS = 50_000
"""Rows between two that are wanted above which a second read costs less than reading on."""

_SCATTERED = 16
"""Of how many rows that would be read one is wanted, at most, for a look at the keys of all of them to cost less."""

_PLACE = "#place"


def take(path: Path, places: Positions, columns: Sequence[str], key_hashes: Hashes | None = None) -> pl.DataFrame:
    """The rows at places of one file, in order; NULL in columns that the file lacks.

    Args:
        path: The file.
        places: Ascending.
        columns: What is wanted of the rows.
        key_hashes: Theirs, which tell scattered rows apart before the other columns are decoded.
    """
    schema = pl.scan_parquet(path, glob=False).collect_schema()
    stored = [name for name in columns if name in schema]
    gaps = (np.diff(places) > _GAP_ROWS) | (np.diff(places // _PIECE_ROWS) > 0)
    runs = np.split(places, np.flatnonzero(gaps) + 1)
    if key_hashes is not None and sum(run[-1] - run[0] + 1 for run in runs) > _SCATTERED * len(places):
        rows = _sifted(path, places, stored, key_hashes)
    else:
        source = pl.scan_parquet(path, glob=False).select(stored)
        rows = pl.concat(source.slice(run[0], run[-1] - run[0] + 1).collect()[run - run[0]] for run in runs)
    lacking = (pl.lit(NULL, pl.UInt64).alias(name) for name in columns if name not in schema)
    return rows.with_columns(lacking).select(columns)


def _sifted(path: Path, places: Positions, columns: Sequence[str], key_hashes: Hashes) -> pl.DataFrame:
    """Polars decodes the other columns only of rows whose key hash is wanted; of these the places decide."""
    wanted = pl.Series(key_hashes).unique().implode()
    source = pl.scan_parquet(path, glob=False, row_index_name=_PLACE, parallel="prefiltered")
    found = source.filter(pl.col(KEY_HASH).is_in(wanted)).select(_PLACE, *columns).collect()
    return found[np.searchsorted(found[_PLACE].to_numpy(), places)].drop(_PLACE)


__all__ = ["take"]
