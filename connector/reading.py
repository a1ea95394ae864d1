"""How a profile sync's source is read this time: whole, what is new by the cursor, or some keys."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

import connector
from connector.config import Outbound, ProfileSync
from connector.hashing import VERSION
from connector.judging import keys
from connector.mapping import KEY, Mapping
from connector.state import runs
from connector.state.database import State
from connector.state.snapshots import Snapshot
from connector.task import Options, Task
from connector.valued import types_of
from connector.warehouses._base import Changes, Keys, Latest, Reader, Window

AGAIN_MAX = 100_000
"""Keys that are looked up one by one at most; beyond them the whole source is read."""

_DECIDING = {"warehouse", "source", "key", "attributes", "dedupe", "respect_opt_out"}
"""What of a sync decides which rows are read and what becomes of them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the source is read this time.

    Attributes:
        full: The whole source.
        until: Upper end of what is read, by the warehouse's clock; the cursor's next start.
        window: What is new by the cursor; None where `full`, or where only keys are read.
        keys: Keys to look at whatever their cursor says; empty where `full`.
        asked: Only these keys, on the operator's word.
        scope: What the cursor's position is good for: a sync that reads or maps otherwise has to read all again.
        beyond: All is read because a feed does not reach back to the last reading.
        stamp: What tells the next run that nothing changed since, if all of this arrives: `value`, `scope`, `read_at`.
        still: When the last run read what still stands there, in seconds since 1970: nothing is read; None: it is.
    """

    full: bool
    until: datetime
    window: Window | Changes | None = None
    keys: tuple[str, ...] = ()
    asked: bool = False
    scope: str = ""
    beyond: bool = False
    stamp: dict[str, Any] | None = None
    still: float | None = None


def how_to_read(
    task: Task[ProfileSync], now: datetime, snapshot: Snapshot, mapping: Mapping, again: tuple[str, ...]
) -> Reading:
    """The whole source, what is new by the cursor, or the keys that were asked for."""
    sync, options, manifest = task.sync, task.options, snapshot.manifest
    cursor, last = sync.cursor, manifest.get("cursor")
    until = now - (cursor.lag if cursor else timedelta())
    scope = _scope(sync, mapping)
    if options.keys:
        return Reading(full=False, until=until, keys=tuple(dict.fromkeys(options.keys)), asked=True)
    read_at = manifest.get("full_read_at")
    stale = read_at is None or time.time() - read_at >= sync.full_read_every.total_seconds()
    if options.full or options.resend or options.adopt or stale or not cursor or not last or last["scope"] != scope:
        return Reading(full=True, until=until, scope=scope)
    window = since_then(sync, last["value"], until, key=mapping.key_column)
    if isinstance(window, Changes):
        # A warehouse may tell the net of all changes alone: of a value that was A, was delivered as B, and is A again
        # it tells nothing. So what was delivered since the window's start is looked up, too.
        delivered = snapshot.delivered_since(window.since.timestamp() - cursor.overlap.total_seconds())
        again = tuple(sorted({*again, *delivered}))
    if window is None or len(again) > AGAIN_MAX:
        return Reading(full=True, until=until, scope=scope, beyond=window is None)
    return Reading(full=False, until=until, window=window, keys=again, scope=scope)


def since_then(sync: Outbound, last: str, until: datetime, *, key: str | None) -> Window | Changes | None:
    """What is new by the cursor; None where a feed does not reach back so far.

    Args:
        sync: Has a cursor.
        last: Where the last read ended, ISO 8601.
        until: Where this one is to end.
        key: With a feed: the column whose rows are looked up; None for rows that are only ever added.
    """
    cursor = sync.cursor
    assert cursor  # noqa: S101 - of those that have none, all is read
    since = datetime.fromisoformat(last).astimezone(UTC)
    if cursor.column:
        return Window(cursor.column, since - cursor.overlap, until, sync.source.timezone)
    return Changes(key, since, until) if until + cursor.lag - since < cursor.reach else None


def unless_still(
    task: Task[ProfileSync], state: State, reader: Reader, snapshot: Snapshot, reading: Reading
) -> Reading:
    """The reading with the source's stamp; one of nothing where the source stands as the last run has read it.

    Every doubt reads: whatever may be due, whatever was asked for, and once in `full_read_every` in any case, as what a
    role may see of a table can change without the table. With a cursor the last run may have left out rows that were
    there, newer than `lag` or dated in the future; so nothing is skipped.
    """
    sync = task.sync
    skips = task.project.warehouse(sync).skip_unchanged
    if not skips or sync.cursor or sync.respect_opt_out or not reading.full:
        return reading
    value = reader.stamp(sync.source.relation)
    if value is None:
        return reading
    stamp, last = {"value": value, "scope": _stamp_scope(task, reading)}, snapshot.manifest.get("stamp")
    now = time.time()
    if (
        last
        and {**last, **stamp} == last
        and task.options == Options()
        and 0 <= now - last["read_at"] < sync.full_read_every.total_seconds()
        and not (runs.unfinished(state, sync.name) or runs.due(state, sync.name).height)
    ):
        return replace(reading, full=False, stamp=last, still=last["read_at"])
    return replace(reading, stamp={**stamp, "read_at": now})


def keys_again(due: pl.DataFrame, rejects: pl.DataFrame) -> tuple[str, ...]:
    """Keys to look at whatever their cursor says: due again by now, or invalid when last seen."""
    invalid = rejects.filter((pl.col("source") == "invalid") & (pl.col("key") != ""))
    return tuple(sorted({*due["key"], *invalid["key"]}))


def batches_of(
    task: Task[ProfileSync], reader: Reader, mapping: Mapping, reading: Reading, found: set[str]
) -> Iterator[pl.DataFrame]:
    """Record batches in which no row comes twice; the keys of `reading.keys` that exist are put into `found`."""
    relation, latest = task.sync.source.relation, latest_of(task, mapping)
    if reading.keys:
        rows = Keys(mapping.key_column, reading.keys)
        for batch in reader.read(relation, mapping.columns, rows, latest=latest):
            found.update(keys(mapping, batch)[KEY].drop_nulls())
            yield batch
    if reading.full or reading.window:
        seen = pl.Series(reading.keys, dtype=pl.String).implode()
        window = reading.window
        for batch in reader.read(relation, mapping.columns, window, latest=latest):
            yield batch.filter(~keys(mapping, batch)[KEY].is_in(seen).fill_null(value=False)) if reading.keys else batch


def estimated(task: Task[ProfileSync], reader: Reader, mapping: Mapping, reading: Reading) -> int | None:
    """Bytes that the reading will be billed for; None where bytes are not what is billed."""
    wanted = [Keys(mapping.key_column, reading.keys)] if reading.keys else []
    parts = [*wanted, *([reading.window] if reading.full or reading.window else [])]
    if not parts:
        return None
    relation, latest = task.sync.source.relation, latest_of(task, mapping)
    found = [reader.estimate(relation, mapping.columns, rows, latest=latest) for rows in parts]
    billed = [each for each in found if each is not None]
    return sum(billed) if len(billed) == len(found) else None


def latest_of(task: Task[ProfileSync], mapping: Mapping) -> Latest | None:
    """How the newest row of a key is told, where the sync asks for it."""
    if task.sync.cursor and task.sync.cursor.column and task.sync.dedupe == "latest":
        return Latest(mapping.key_column, task.sync.cursor.column)
    return None


def _stamp_scope(task: Task[ProfileSync], reading: Reading) -> str:
    """The same of a stamp: it changes also with this software, with where the source lies, and what else is due."""
    sync, where = task.sync, task.project.warehouse(task.sync).model_dump(mode="json")
    parts = [reading.scope, VERSION, connector.__version__, sync.engine, sync.on_removed, where]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _scope(sync: ProfileSync, mapping: Mapping) -> str:
    """16 hexadecimal digits that change with whatever decides which rows are read and what becomes of them."""
    parts = sync.model_dump(mode="json", include=_DECIDING)
    cursor = (sync.cursor.column or sync.cursor.feed) if sync.cursor else None
    text = json.dumps([parts, sync.source.relation, cursor, types_of(mapping)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
