"""From settled chunks to the snapshot: the only place where it moves, and only what Batch accepted looks delivered.

A run that ends and a run that was killed are committed by the same code, from the outbox and the chunks' states alone.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from connector._steps import step
from connector.changes import KIND, SEND, Kind
from connector.due import Judged, due_after, lapsed_keys
from connector.hashing import HASH, KEY_HASH, ROW_HASH, UNKNOWN, VERSION, key_hashes, self_test
from connector.mapping import KEY
from connector.settled import ACCEPTED, REFUSED, UNSENT, UNVERIFIED, outcomes
from connector.settled import UNKNOWN as UNKNOWN_OUTCOME
from connector.state import folding, runs, snapshots
from connector.state.database import State
from connector.state.files import read_frames
from connector.state.lease import Lease
from connector.state.runs import ChunkRow
from connector.state.snapshots import AT, DELETED, Snapshot

Elsewhere = Callable[[str, Iterable[pl.DataFrame]], AbstractContextManager[None]]
"""Moves a snapshot that is in a warehouse, given a run and its rows; the state's transaction is within the context."""


class Settled(NamedTuple):
    """What became of a run's planned rows.

    Attributes:
        accepted: Rows applied whole.
        rejected: Rows that Batch refused, wholly or in part.
        unsent: Rows that were not sent, or whose outcome is unknown.
    """

    accepted: int = 0
    rejected: int = 0
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """What a commit writes into: the state under a lease, and the snapshot as it stands."""

    state: State
    lease: Lease
    snapshot: Snapshot
    key_column: str
    attributes: dict[str, str]
    quiet: float
    elsewhere: Elsewhere | None = None
    """Where the snapshot is in a warehouse."""


@dataclass(frozen=True, slots=True)
class _Results:
    """The state of every row of an outbox, and of its attributes, as arrays of its length."""

    outcome: npt.NDArray[np.int8]
    settled_at: npt.NDArray[np.float64]
    unknown_at: npt.NDArray[np.float64]
    refused_bits: npt.NDArray[np.uint64]
    refusals: pl.DataFrame = field(repr=False)

    @property
    def plain(self) -> bool:
        """Nothing is in doubt or refused."""
        known = np.isin(self.outcome, (UNSENT, ACCEPTED)).all()
        return bool(known) and not self.unknown_at.any() and self.refusals.is_empty()

    def settled(self) -> Settled:
        partly = (self.outcome == ACCEPTED) & (self.refused_bits != 0)
        whole = int((self.outcome == ACCEPTED).sum() - partly.sum())
        rejected = int((self.outcome == REFUSED).sum() + partly.sum())
        return Settled(whole, rejected, len(self.outcome) - whole - rejected)


def settled(state: State, run: str, attributes: dict[str, str]) -> Settled:
    """What became of a run's rows so far."""
    return _results(runs.chunk_rows(state, run), list(attributes), state.now()).settled()


def commit(books: Books, run: str, report: dict[str, Any], began: float, judged: Judged | None = None) -> Snapshot:
    """Move the snapshot to what Batch accepted, note what stays due, and close the run: one transaction.

    Args:
        books: What to write into.
        run: The run whose chunks are committed; another one than the lease's where a killed run is taken over.
        report: The run's report, as it is kept; of it `full` (it read the whole source) counts here.
        began: When the run began, by `State.now`.
        judged: What the read has shown; None for a killed run, whose source is read again.

    Returns:
        The snapshot as it is now.
    """
    state, sync = books.state, books.lease.sync
    path = runs.outbox(state, run)
    chunks = runs.chunk_rows(state, run)
    results = _results(chunks, list(books.attributes), state.now())
    due, rejects = runs.due(state, sync), runs.rejects(state, sync)
    lapsed = lapsed_keys(due, judged, began)
    rows = _snapshot_rows(path, results, list(books.attributes)) if chunks else iter(())
    # Mostly all was accepted and nothing was open: then the outbox need not be read again to say so.
    answers = _answers(path, results) if chunks and not (results.plain and due.is_empty()) else pl.DataFrame()
    refused = _refused(path, results) if chunks and not (results.plain and rejects.is_empty()) else None
    due = due_after(due, answers, (began, books.quiet), judged)
    rejects = _rejects_after(rejects, refused, judged)
    with ExitStack() as stack:
        anything = chunks or len(lapsed)
        file = _moved(books, run, chain(rows, [_doubted(lapsed, books)]), stack) if anything else None
        manifest = _manifest(books, file, judged, full=bool(report["full"]))
        manifest["stamp"] = judged.stamp if judged and due.is_empty() and rejects.is_empty() else None
        moved = Snapshot(books.snapshot.folder, manifest, books.snapshot.generation + 1)
        if _remapped(books):
            moved = folding.folded(moved, books.attributes)
        moved = folding.indexed(folding.compacted(moved, books.attributes))
        snapshots.put(state, moved.folder, moved.manifest, books.snapshot.manifest)
        step("commit.prepared")
        with state.write() as connection:
            books.lease.check(connection)
            snapshots.store(connection, sync, moved.manifest, moved.generation)
            runs.replace_due(connection, sync, due)
            runs.replace_rejects(connection, sync, rejects)
            runs.close_run(connection, books.lease, run, report)
            step("commit.written")
        step("commit.done")
    runs.drop_outbox(state, run)
    step("outbox.removed")
    return moved


def _moved(books: Books, run: str, rows: Iterable[pl.DataFrame], stack: ExitStack) -> dict[str, Any] | None:
    """The new file of the snapshot; none where it is in a warehouse, which has the rows then."""
    if books.elsewhere is None:
        return snapshots.write(books.snapshot, rows)
    stack.enter_context(books.elsewhere(run, rows))
    return None


def _remapped(books: Books) -> bool:
    """Rows' hashes cover the attributes that were mapped: with another set they would all look changed at every run."""
    before = books.snapshot.manifest.get("attributes")
    return before is not None and before != books.attributes


def _manifest(books: Books, file: dict[str, Any] | None, judged: Judged | None, *, full: bool) -> dict[str, Any]:
    before = books.snapshot.manifest
    of_files = {
        "files": books.snapshot.files + ([file] if file else []),
        "hash_version": VERSION,
        "self_test": self_test(books.state.seed),
        **({"index": before["index"]} if "index" in before else {}),
    }
    manifest = {
        **(before if books.elsewhere else of_files),
        "key": books.key_column,
        "attributes": books.attributes,
        "cursor": before.get("cursor"),
        "full_read_at": before.get("full_read_at"),
    }
    if judged and judged.cursor:
        manifest["cursor"] = judged.cursor
        manifest["full_read_at"] = time.time() if judged.full else manifest["full_read_at"]
    elif full:  # it saw rows that no cursor shows again, and did not come to its end: the next run owes a full read
        manifest["full_read_at"] = None
    return manifest


def _results(chunks: list[ChunkRow], names: list[str], now: float) -> _Results:
    rows = outcomes(chunks, now)
    bits = np.zeros(len(rows.outcome), np.uint64)
    outcome = np.where(rows.outcome == UNVERIFIED, UNKNOWN_OUTCOME, rows.outcome).astype(np.int8)
    for row, attribute, _reason in rows.refusals.rows():
        if attribute in names:
            bits[row] |= np.uint64(1 << names.index(attribute))
        else:  # the operation as a whole, or an attribute that we do not know: then nothing of the row is certain
            outcome[row] = REFUSED
    return _Results(outcome, rows.settled_at, rows.unknown_at, bits, rows.refusals)


def _frames(path: Path, columns: list[str]) -> Iterator[tuple[slice, pl.DataFrame]]:
    """The outbox's row groups, each with its place among the results."""
    first = 0
    for frame in read_frames(path, columns):
        yield slice(first, first + frame.height), frame
        first += frame.height


def _snapshot_rows(path: Path, results: _Results, names: list[str]) -> Iterator[pl.DataFrame]:
    """The snapshot's rows of all that was sent.

    What Batch accepted stands with its hash. What it refused, and all that was sent without an answer to believe, is
    UNKNOWN: Batch may hold either value, so neither may ever look delivered, whatever the source says by then.
    """
    doubted = [
        pl.when((pl.col("#doubt") // (1 << bit)) % 2 == 1)
        .then(pl.lit(UNKNOWN, pl.UInt64))
        .otherwise(HASH + name)
        .alias(HASH + name)
        for bit, name in enumerate(names)
    ]
    for place, frame in _frames(path, [KEY, KEY_HASH, SEND, KIND, *(HASH + name for name in names)]):
        outcome = results.outcome[place]
        bits = np.where(outcome == ACCEPTED, results.refused_bits[place], frame[SEND].to_numpy())
        rows = frame.with_columns(
            pl.Series("#doubt", bits),
            pl.Series(AT, results.settled_at[place].astype(np.int64)),
            ((pl.col(KIND) == Kind.REMOVED) & pl.Series(bits == 0)).alias(DELETED),
        )
        rows = rows.with_columns(doubted) if bits.any() else rows  # mostly there is no doubt
        yield rows.filter(pl.Series(outcome != UNSENT)).drop("#doubt", KIND)


def _doubted(keys: pl.Series, books: Books) -> pl.DataFrame:
    """Their rows in the snapshot: what Batch holds nobody knows, so that they are sent whole should they come back."""
    unknown = (pl.lit(UNKNOWN, pl.UInt64).alias(HASH + name) for name in books.attributes)
    now, lives = pl.lit(int(time.time()), pl.Int64), pl.lit(value=False)
    hashed = pl.DataFrame([keys, key_hashes(keys, books.state.seed)])
    return hashed.with_columns(now.alias(AT), lives.alias(DELETED), pl.lit(0, pl.UInt64).alias(SEND), *unknown)


def _answers(path: Path, results: _Results) -> pl.DataFrame:
    """Rows answered or in doubt: `key`, `source_hash`, `outcome`, `unknown_at`, `partly`."""
    parts = []
    for place, frame in _frames(path, [KEY, ROW_HASH]):
        parts.append(
            frame.select(pl.col(KEY).alias("key"), pl.col(ROW_HASH).alias("source_hash")).with_columns(
                pl.Series("outcome", results.outcome[place]),
                pl.Series("unknown_at", results.unknown_at[place]),
                (pl.Series("partly", results.refused_bits[place]) != 0),
            )
        )
    return pl.concat(parts).filter(pl.col("outcome") != UNSENT)


def _refused(path: Path, results: _Results) -> tuple[pl.Series, pl.DataFrame]:
    """The keys that were answered, and `key`, `attribute`, `reason` of what was refused."""
    keys = pl.concat(frame[KEY] for _, frame in _frames(path, [KEY]))
    answered = keys.filter(pl.Series(np.isin(results.outcome, (ACCEPTED, REFUSED))))
    refusals = results.refusals.with_columns(keys.gather(results.refusals["row"]).alias("key"))
    return answered, refusals.select("key", "attribute", "reason")


def _rejects_after(
    before: pl.DataFrame, refused: tuple[pl.Series, pl.DataFrame] | None, judged: Judged | None
) -> pl.DataFrame:
    """The list of `rejects` after this run: what was found again counts one attempt more, what was mended is gone."""
    after = before
    if judged:
        after = after.filter((pl.col("source") == "invalid") | ~pl.col("key").is_in(judged.done))
    if refused:
        answered, refusals = refused
        settled = (pl.col("source") == "rejected") & pl.col("key").is_in(answered.implode())
        after = pl.concat([after.filter(~settled), _found("rejected", refusals, before)])
    if judged:
        again = pl.col("source") == "invalid"
        if judged.keys is not None:
            again &= pl.col("key").is_in(judged.keys)
        elif not judged.full:
            again &= pl.col("key") != ""  # rows without a key cannot be read again by key
        after = pl.concat([after.filter(~again), _found("invalid", judged.invalid, before)])
    return after.unique(["key", "attribute", "source"], keep="last")


def _found(source: str, rows: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    now = time.time()
    places = ["key", "attribute"]
    once = rows.with_columns(pl.col(places).fill_null("")).unique(places, keep="first", maintain_order=True)
    earlier = before.filter(pl.col("source") == source).select(*places, "attempts", "first_seen")
    return once.join(earlier, on=places, how="left").select(
        *places,
        pl.lit(source).alias("source"),
        "reason",
        pl.col("attempts").fill_null(0) + 1,
        pl.col("first_seen").fill_null(now),
        pl.lit(now).alias("last_seen"),
    )


__all__ = ["Books", "Judged", "Settled", "commit", "settled"]
