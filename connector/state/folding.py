"""Fewer and quicker files of a snapshot: late ones folded into one, the index kept beside them."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
import polars as pl

from connector.errors import StateError
from connector.hashing import HASH, KEY_HASH
from connector.mapping import KEY
from connector.state import indexes
from connector.state.picking import take
from connector.state.snapshots import AT, DELETED, Snapshot, let_go, without_index, write

FILES_MAX = 32
"""Files of a snapshot before some are folded into one: each costs a read at every run."""

INDEX_ROWS = 250_000
"""Rows from which on the index is kept in a file: below, it is built in a moment."""

PIECE_ROWS = 100_000
"""Rows that are in memory at once while files are folded."""

logger = logging.getLogger(__name__)


def folded(snapshot: Snapshot, attributes: Iterable[str], *, since: int = 0) -> Snapshot:
    """The snapshot with files from `since` on as one new file, with these attributes only; not yet the current one.

    Of each key the newest row is left; where all files are folded, none of a profile that left.
    """
    tail = Snapshot(snapshot.folder, {"files": snapshot.files[since:]}, snapshot.generation)
    left = np.sort(tail.newest() if since else snapshot.index().positions)
    columns = [KEY, KEY_HASH, DELETED, AT, *(HASH + name for name in attributes)]

    def frames() -> Iterator[pl.DataFrame]:
        first = 0
        for file in tail.files:
            low, high = np.searchsorted(left, [first, first + file["rows"]])
            for start in range(low, high, PIECE_ROWS):
                yield take(snapshot.folder / file["name"], left[start : min(start + PIECE_ROWS, high)] - first, columns)
            first += file["rows"]

    file = write(snapshot, frames())
    kept = without_index(snapshot) if snapshot.in_index > since else snapshot
    after = {**kept.manifest, "files": [*snapshot.files[:since], *([file] if file else [])]}
    moved = Snapshot(snapshot.folder, after, snapshot.generation)
    let_go(snapshot.folder, snapshot.names - moved.names)
    return moved


def compacted(snapshot: Snapshot, attributes: Iterable[str]) -> Snapshot:
    """The snapshot with fewer files, where that is due: what it costs stays in proportion to what was accepted.

    The first file, which has most of the rows, is folded with those that follow once they have a quarter of its rows;
    before, they are folded among themselves.
    """
    if not snapshot.files:
        return snapshot
    base = int(snapshot.files[0]["rows"])
    late, many = snapshot.size - base, len(snapshot.files) > FILES_MAX
    if late > max(base // 4, INDEX_ROWS) or (many and late > base // 4):
        return folded(snapshot, attributes)
    return folded(snapshot, attributes, since=1) if many else snapshot


def indexed(snapshot: Snapshot, rows_min: int | None = None) -> Snapshot:
    """The snapshot with its index in a file, where building it at each start would take long; not yet the current one.

    Args:
        snapshot: Any.
        rows_min: Rows that the index file, if there is one, does not have, from which on a new one is written, by
            default INDEX_ROWS; and at least an eighth of those that it has, so that what is written stays in proportion
            to what was accepted.
    """
    has = sum(int(file["rows"]) for file in snapshot.files[: snapshot.in_index])
    if snapshot.size - has < max(INDEX_ROWS if rows_min is None else rows_min, has // 8):
        return snapshot
    try:
        kept = indexes.write(snapshot.folder, snapshot.index(), [file["name"] for file in snapshot.files])
    except StateError as error:  # it can be built again, and what was accepted must be kept
        logger.warning("no index file: %s", error.message)
        return without_index(snapshot)
    if old := snapshot.manifest.get("index"):
        with suppress(StateError):
            let_go(snapshot.folder, [old["name"]])
    return Snapshot(snapshot.folder, {**snapshot.manifest, "index": kept}, snapshot.generation)
