"""What `connector check` finds in a sync's source: columns that can be sent, and the rows that cannot."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from connector._model import exceeds
from connector.config import EventSync, Outbound, ProfileSync
from connector.errors import WarehouseError
from connector.event_draft import wanted
from connector.event_mapping import ID, NAME, TIME, EventMapping, apply
from connector.event_mapping import resolve as resolve_events
from connector.event_planning import AGE_MARGIN, AGE_MAX
from connector.judging import keys
from connector.mapping import KEY, Mapping, resolve
from connector.warehouses._base import Column, Reader

_LATE = {"hold": "would be held", "drop": "would be dropped", "restamp": "would be sent as of now"}


class Source(Protocol):
    """A source whose columns can become what the mapping asks."""

    @property
    def mapping(self) -> Mapping | EventMapping:
        """Which of them are read, and what they become."""

    @property
    def found(self) -> str:
        """The columns in words."""

    def examined(self, reader: Reader) -> str:
        """The rows in words, after a whole read of the columns that decide whether a row can be sent.

        Raises:
            WarehouseError: A run could not be green with them.
        """


def source(sync: Outbound, columns: Sequence[Column]) -> Source:
    """The sync's source, which has these columns.

    Raises:
        WarehouseError: A column is missing, or its type cannot become what the mapping asks; all mistakes at once.
    """
    zone, cursor = sync.source.timezone, sync.cursor.column if sync.cursor else None
    actual = next((column.name for column in columns if cursor and column.name.lower() == cursor.lower()), None)
    match sync:
        case EventSync():
            events = resolve_events(columns, wanted(sync), sync.attributes, timezone=zone)
            return _EventSource(sync, events, actual)
        case ProfileSync():
            profiles = resolve(columns, sync.key, sync.attributes, cursor=cursor, timezone=zone)
            return _ProfileSource(sync, profiles, actual)


class _Keys(NamedTuple):
    """What the key and cursor columns of a profile sync hold, in rows."""

    rows: int
    null: int
    bad: int
    repeated: int
    no_cursor: int


class _ProfileSource(NamedTuple):
    sync: ProfileSync
    mapping: Mapping
    cursor: str | None

    @property
    def found(self) -> str:
        attributes = len(self.mapping.attributes)
        return f"key '{self.sync.key}' and {attributes} attributes are there, with types that can be sent"

    def examined(self, reader: Reader) -> str:
        counted, sync = self._counted(reader), self.sync
        said = _said(counted.rows, [
            (counted.null, "with a null key"),
            (counted.bad, "with a key that Batch does not take"),
            (counted.repeated, "that share their key with another"),
            _without_cursor(counted.no_cursor),
        ])  # fmt: skip
        unusable = counted.null + counted.bad + (0 if sync.dedupe == "latest" else counted.repeated)
        _require_few(
            sync, said, counted.rows if counted.repeated and sync.dedupe == "error" else unusable, counted.rows
        )
        if counted.rows < sync.guard.min_rows:
            raise WarehouseError(said, remedy=f"guard.min_rows asks for {sync.guard.min_rows}")
        return said

    def _counted(self, reader: Reader) -> _Keys:
        """Counts, streaming: 8 bytes a row are kept."""
        rows = null = bad = no_cursor = 0
        hashes = []
        for frame in reader.read(self.sync.source.relation, _columns(self.mapping.key_column, self.cursor)):
            judged = keys(self.mapping, frame)
            rows += frame.height
            null += frame[self.mapping.key_column].null_count()
            bad += frame.height - judged["reason"].null_count()
            no_cursor += frame[self.cursor].null_count() if self.cursor else 0
            hashes.append(judged.filter(pl.col("reason").is_null())[KEY].hash().to_numpy())
        return _Keys(rows, null, bad - null, _repeated(hashes), no_cursor)


class _Events(NamedTuple):
    """What the columns that make an event hold, in rows; `invalid` by the reason that `rejects` would give."""

    rows: int
    invalid: Counter[str]
    repeated: int
    late: int
    future: int
    no_cursor: int


class _EventSource(NamedTuple):
    sync: EventSync
    mapping: EventMapping
    cursor: str | None

    @property
    def found(self) -> str:
        columns, attributes = self.mapping, len(self.mapping.attributes)
        when = f"time '{columns.time_column}'" if columns.time_column else "no time (Batch takes that of reception)"
        id_ = f"id '{columns.id_column}'" if columns.id_column else "no id (one is derived from each row)"
        return f"key '{columns.key_column}', {when}, {id_} and {attributes} attributes, with types that can be sent"

    def examined(self, reader: Reader) -> str:
        counted, late = self._counted(reader), self.sync.late
        said = _said(counted.rows, [
            *((count, f"invalid: {reason}") for reason, count in sorted(counted.invalid.items())),
            (counted.future, "with a time in the future, which wait until they are due"),
            (counted.repeated, "that share their id with another, one of which is sent"),
            (counted.late, f"older than 24 hours, which {_LATE[late]} (late: {late}) unless they were sent before"),
            _without_cursor(counted.no_cursor),
        ])  # fmt: skip
        _require_few(self.sync, said, counted.invalid.total() + counted.future, counted.rows)
        return said

    def _counted(self, reader: Reader) -> _Events:
        """Counts, streaming: 8 bytes a row are kept."""
        bare = replace(self.mapping, attributes=(), values=())
        now = int(time.time() * 1000)
        rows = late = future = no_cursor = 0
        invalid: Counter[str] = Counter()
        hashes = []
        for frame in reader.read(self.sync.source.relation, _columns(*bare.columns, self.cursor)):
            judged = apply(bare, frame)
            rows += frame.height
            invalid.update(judged.rejected["reason"].to_list())
            late += int((judged.valid[TIME] < now - AGE_MAX + AGE_MARGIN).sum())
            future += int((judged.valid[TIME] > now).sum())
            no_cursor += frame[self.cursor].null_count() if self.cursor else 0
            if bare.id_column:
                hashes.append(judged.valid.select(pl.struct(NAME, ID).hash()).to_series().to_numpy())
        return _Events(rows, invalid, _repeated(hashes), late, future, no_cursor)


def _columns(*names: str | None) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def _repeated(hashes: Sequence[npt.NDArray[np.uint64]]) -> int:
    """How many rows share their hash with another."""
    times = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]), return_counts=True)[1]
    return int(times[times > 1].sum())


def _without_cursor(count: int) -> tuple[int, str]:
    return count, "with a null cursor, which only full reads see"


def _said(rows: int, parts: Sequence[tuple[int, str]]) -> str:
    return f"{rows} rows" + "".join(f", {count} {words}" for count, words in parts if count)


def _require_few(sync: Outbound, said: str, unusable: int, rows: int) -> None:
    """Raise WarehouseError where more rows than the tolerance allows cannot be sent."""
    allowed = sync.tolerance.invalid
    if exceeds(unusable, allowed, rows):
        remedy = f"correct the source, or narrow it with a query; tolerance.invalid allows {allowed:.0%}"
        raise WarehouseError(said, remedy=remedy)


__all__ = ["Source", "source"]
