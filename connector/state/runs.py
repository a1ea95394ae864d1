"""Runs, their chunks, and what stays due: the book that makes a killed run resumable."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa

from connector.errors import StateError
from connector.outcome import Refusal
from connector.payload import Chunk
from connector.state.database import CHUNKS, DUE, REJECTS, RUNS, WAYS_OUT, State, translated
from connector.state.files import checksum
from connector.state.lease import Lease, is_held

RUNS_KEPT = 200
"""Finished runs that `status` can still show, a sync."""

DUE_SCHEMA = pl.Schema({
    "key": pl.String(), "reason": pl.String(), "whole": pl.Boolean(), "not_before": pl.Float64(),
    "quiet_until": pl.Float64(), "source_hash": pl.UInt64(),
})  # fmt: skip
"""Keys that are due again.

`reason`: unknown, refused or withheld. Times by `State.now`. `source_hash`: the row's when it was last tried.
"""

REJECTS_SCHEMA = pl.Schema({
    "key": pl.String(), "attribute": pl.String(), "source": pl.String(), "reason": pl.String(), "attempts": pl.Int64(),
    "first_seen": pl.Float64(), "last_seen": pl.Float64(),
})  # fmt: skip
"""Values rejected by Batch or invalid by our rules.

`key` is '' where the source's is null, `attribute` is '' where the whole row is meant.
"""

# Built once: two of them are executed for every call, and to build one costs as much as to execute it.
_CHUNK = sa.update(CHUNKS).where((CHUNKS.c.run == sa.bindparam("of_run")) & (CHUNKS.c.number == sa.bindparam("at")))
_ANOTHER_ATTEMPT = _CHUNK.values(attempts=CHUNKS.c.attempts + 1)


class Opened(NamedTuple):
    """A run as it was opened.

    Attributes:
        id: Its id.
        key_column: Where its keys come from.
        attributes: Name to type, of the rows in its outbox.
        outbox_sha256: Checksum of its outbox.
        report: What it had planned.
        began: When, by `State.now`.
    """

    id: str
    key_column: str
    attributes: dict[str, str]
    outbox_sha256: str
    report: dict[str, Any]
    began: float


class Standing(NamedTuple):
    """How a chunk stands.

    Attributes:
        state: `planned` (nothing of it was applied), `sent` (under way, or killed then), `unknown`, `unverified`
            (answered as if applied, in words we cannot trust), or `done` but for the refusals.
        refusals: What Batch refused.
        parts: First row, rows and state (`refused` too) of each part, where the chunk had to be split; else empty.
        unknown_at: When the last attempt ended without an answer to believe, by `State.now`; None: none did.
    """

    state: str
    refusals: Sequence[Refusal] = ()
    parts: Sequence[tuple[int, int, str]] = ()
    unknown_at: float | None = None


class ChunkRow(NamedTuple):
    """A chunk as the database knows it."""

    number: int
    first: int
    rows: int
    state: str
    unknown_at: float | None
    settled_at: float | None
    refusals: list[list[Any]] | None
    parts: list[list[Any]] | None = None
    """First row, rows and state of each part, where the chunk had to be split."""


def outbox(state: State, run: str) -> Path:
    """The file of a run's operations, in chunk order; it exists while the run is open."""
    return state.folder / "outbox" / f"{run}.parquet"


def open_run(connection: sa.Connection, lease: Lease, run: Opened, chunks: Sequence[Chunk]) -> None:
    """Note a run and its chunks, all `planned`: durable before the first byte leaves; in place of its own row."""
    lease.check(connection)
    connection.execute(sa.delete(RUNS).where(RUNS.c.id == run.id))
    connection.execute(sa.insert(RUNS), {**run._asdict(), "sync": lease.sync, "started": run.report["started"]})
    if chunks:
        rows = [
            {
                "run": lease.run,
                "number": number,
                "first": chunk.first,
                "rows": chunk.rows,
                "state": "planned",
                "attempts": 0,
            }
            for number, chunk in enumerate(chunks)
        ]
        connection.execute(sa.insert(CHUNKS), rows)


def mark_sent(connection: sa.Connection, run: str, number: int, standing: Standing) -> None:
    """The next attempt of a chunk, or of the part of it that is `sent`, is about to leave.

    Args:
        connection: Of a transaction that checks the run's lease.
        run: The run's id.
        number: The chunk's.
        standing: How it then stands.
    """
    connection.execute(_ANOTHER_ATTEMPT, {"of_run": run, "at": number, **_columns(standing)})


def settle(connection: sa.Connection, run: str, number: int, standing: Standing) -> None:
    """Note what an attempt at a chunk came to: durable before anything is waited for."""
    settled = {"settled_at": time.time(), **_columns(standing)}
    connection.execute(_CHUNK, {"of_run": run, "at": number, **settled})


def _columns(standing: Standing) -> dict[str, Any]:
    return {
        "state": standing.state,
        "refusals": [list(refusal) for refusal in standing.refusals],
        "parts": [list(part) for part in standing.parts] or None,
        "unknown_at": standing.unknown_at,
    }


def unfinished(state: State, sync: str) -> list[Opened]:
    """Runs that ended without a word, oldest first."""
    names = [RUNS.c[name] for name in Opened._fields]
    open_ones = (RUNS.c.sync == sync) & RUNS.c.finished.is_(None)
    with state.read() as connection:
        rows = connection.execute(sa.select(*names).where(open_ones).order_by(RUNS.c.started)).all()
    # A process of version 3 that was under way when the state was brought forward left no `began`.
    return [Opened(*row)._replace(began=row.report["started"] if row.began is None else row.began) for row in rows]


def open_syncs(state: State, kind: str) -> list[str]:
    """Syncs of that kind with a run that has something to send and did not end."""
    with state.read() as connection:
        rows = connection.execute(sa.select(RUNS.c.sync, RUNS.c.report).where(RUNS.c.finished.is_(None))).all()
    return [row.sync for row in rows if row.report["kind"] == kind]


def check_outbox(state: State, run: Opened) -> None:
    """Make sure that a killed run's outbox is what it was; another host's comes from the bucket.

    Raises:
        StateError: It is missing or altered, or the bucket is out of reach.
    """
    path = outbox(state, run.id)
    with translated(path):
        sound = path.exists() and checksum(path) == run.outbox_sha256
    if not sound and state.bucket:
        sound = state.bucket.fetch(path, run.outbox_sha256) == run.outbox_sha256
    if not sound:
        sync = run.report["sync"]
        raise StateError(
            f"sync '{sync}': the outbox '{path}' of the killed run is missing or was altered",
            remedy=WAYS_OUT.format(sync=sync),
        )


def drop_outbox(state: State, run: str) -> None:
    """Remove the outbox of a run that is over; what cannot be removed goes with the next run's sweep."""
    path = outbox(state, run)
    with suppress(OSError, StateError):
        path.unlink(missing_ok=True)
        if state.bucket:
            state.bucket.remove([path])


def chunk_rows(state: State, run: str) -> list[ChunkRow]:
    """A run's chunks in order."""
    names = [CHUNKS.c[name] for name in ChunkRow._fields]
    with state.read() as connection:
        return [
            ChunkRow(*row)
            for row in connection.execute(sa.select(*names).where(CHUNKS.c.run == run).order_by(CHUNKS.c.number))
        ]


def close_run(connection: sa.Connection, lease: Lease, run: str, report: dict[str, Any]) -> None:
    """The run is over: its report stays, its chunks go."""
    connection.execute(sa.delete(CHUNKS).where(CHUNKS.c.run == run))
    closed = connection.execute(sa.update(RUNS).where(RUNS.c.id == run).values(finished=time.time(), report=report))
    if not closed.rowcount:  # it ended before it had anything to send
        values = {
            "id": run,
            "sync": lease.sync,
            "started": report["started"],
            "finished": time.time(),
            "report": report,
        }
        connection.execute(sa.insert(RUNS), values)
    kept = sa.select(RUNS.c.id).where(RUNS.c.sync == lease.sync).order_by(RUNS.c.started.desc()).limit(RUNS_KEPT)
    connection.execute(
        sa.delete(RUNS).where((RUNS.c.sync == lease.sync) & RUNS.c.finished.is_not(None) & RUNS.c.id.not_in(kept))
    )


def reports(state: State, sync: str | None = None) -> list[dict[str, Any]]:
    """Reports of the last runs, newest first; of one sync or of all. Without an end: `running` or `killed`."""
    query = sa.select(RUNS).order_by(RUNS.c.started.desc())
    with state.read() as connection:
        rows = connection.execute(query.where(RUNS.c.sync == sync) if sync else query).mappings().all()
    return [
        {**row["report"], "started": row["started"], "finished": row["finished"]}
        | ({} if row["finished"] else {"outcome": "running" if is_held(state, row["sync"]) else "killed"})
        for row in rows
    ]


def due(state: State, sync: str) -> pl.DataFrame:
    """The sync's keys that are due again, by DUE_SCHEMA."""
    names = [DUE.c[name] for name in DUE_SCHEMA]
    with state.read() as connection:
        rows = connection.execute(sa.select(*names).where(DUE.c.sync == sync)).all()
    text = pl.Schema({**DUE_SCHEMA, "source_hash": pl.String()})
    return pl.DataFrame([tuple(row) for row in rows], schema=text, orient="row").cast({"source_hash": pl.UInt64})


def rejects(state: State, sync: str) -> pl.DataFrame:
    """The sync's rejected and invalid values, by REJECTS_SCHEMA."""
    names = [REJECTS.c[name] for name in REJECTS_SCHEMA]
    with state.read() as connection:
        rows = connection.execute(
            sa.select(*names).where(REJECTS.c.sync == sync).order_by(REJECTS.c.key, REJECTS.c.attribute)
        ).all()
    return pl.DataFrame([tuple(row) for row in rows], schema=REJECTS_SCHEMA, orient="row")


def replace_due(connection: sa.Connection, sync: str, frame: pl.DataFrame) -> None:
    """Make `frame` (DUE_SCHEMA) the sync's keys that are due again."""
    connection.execute(sa.delete(DUE).where(DUE.c.sync == sync))
    _insert(connection, DUE, sync, frame.with_columns(pl.col("source_hash").cast(pl.String)))


def replace_rejects(connection: sa.Connection, sync: str, frame: pl.DataFrame) -> None:
    """Make `frame` (REJECTS_SCHEMA) the sync's rejected and invalid values."""
    connection.execute(sa.delete(REJECTS).where(REJECTS.c.sync == sync))
    _insert(connection, REJECTS, sync, frame)


def _insert(connection: sa.Connection, table: sa.Table, sync: str, frame: pl.DataFrame) -> None:
    for part in frame.iter_slices(20_000):
        connection.execute(sa.insert(table), part.with_columns(pl.lit(sync).alias("sync")).to_dicts())
