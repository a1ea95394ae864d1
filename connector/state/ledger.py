"""Which events were handled, so that nothing is sent twice: immutable files of ids, and the manifest that names them.

A file of ids is uncompressed Arrow, `#hi` and `#lo` (UInt64, the halves of a 128-bit id) in ascending order: it is
mapped and bisected, never loaded, so that a look-up takes the same memory however long the ledger is. When an event
happened stands in the manifest alone, as the first and last moment of each file. Nothing personal lies in these files;
the file of listed events, those that `rejects` shows, has their keys and ids.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from connector.errors import StateError
from connector.hashing import HI, LO
from connector.state import snapshots
from connector.state.bucket import Bucket
from connector.state.database import State
from connector.state.files import checksum, write_frames
from connector.state.ids import Ids, mapped, ordered, within, write_ids

TIME = "#time"

KIND = "events"

KEPT_DAYS = 90
"""How long an id is kept after it was sent: 16 bytes an event."""

RECENT_DAYS = 8
"""How long after it was sent an event is known by its id alone; from then on by its id and about the same time."""

LISTED_DAYS = 30
"""How long `rejects` shows an event that waits for nothing any more, after it was last seen."""

FILES_A_DAY = 8
"""Files of one UTC day before small ones are folded: each costs an open and a bisection at every look-up."""

LISTED_SCHEMA = pl.Schema({
    HI: pl.UInt64(),
    LO: pl.UInt64(),
    "key": pl.String(),  # '' where the source's key is null
    "id": pl.String(),
    "attribute": pl.String(),  # '' where the whole event is meant
    "reason": pl.String(),
    "source": pl.String(),  # invalid | rejected
    "state": pl.String(),  # '' | held | expired | alone
    "time": pl.Int64(),  # ms since 1970; null where unknown
    "attempts": pl.Int64(),
    "first_seen": pl.Float64(),
    "last_seen": pl.Float64(),
})  # fmt: skip

_DAY = 86_400
_REMEDY = "restore the state folder from a backup"  # to start over would send every event of the source once more


@dataclass(frozen=True, slots=True)
class Ledger:
    """One generation of a sync's ledger.

    Attributes:
        folder: Where its files lie.
        manifest: `kind`, `files` (name, rows, sha256, `first` and `last` in ms since 1970 or null, `undated`: some of
            its events have no time, `at`: when they were sent, seconds since 1970, the newest), `listed` (name, rows,
            sha256) if any, `forgotten` if any, and what the caller adds.
        generation: 0 where nothing was ever handled.
        checked: Names of the files whose checksum was compared.
        bucket: Where the folder's files come from, if not only from there.
    """

    folder: Path
    manifest: dict[str, Any]
    generation: int
    checked: set[str] = field(default_factory=set, repr=False, compare=False)
    bucket: Bucket | None = field(default=None, repr=False, compare=False)

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files of ids, by the day on which they were sent."""
        return list(self.manifest.get("files", []))

    @property
    def forgotten(self) -> int | None:
        """The latest time (ms since 1970) among the ids that were pruned; None where none was."""
        return self.manifest.get("forgotten")

    def listed(self) -> pl.DataFrame:
        """The events that `rejects` shows (LISTED_SCHEMA).

        Raises:
            StateError: Their file is missing or altered.
        """
        listed = self.manifest.get("listed")
        return pl.read_parquet(self.checked_path(listed), glob=False) if listed else pl.DataFrame(schema=LISTED_SCHEMA)

    def sent(self, rows: pl.DataFrame) -> pl.Series:
        """Which events were handled: a file that can hold their time has them, or they are as old as what is forgotten.

        Args:
            rows: `#hi`, `#lo`, and `#time` (Int64, ms since 1970; null where unknown, then every file is looked at).

        Returns:
            Boolean, one a row.

        Raises:
            StateError: A file that had to be opened is missing or altered.
        """
        known = rows[TIME].is_not_null().to_numpy()
        times = rows[TIME].fill_null(0).to_numpy()
        found = known & (times <= self.forgotten) if self.forgotten is not None else np.zeros(rows.height, np.bool_)
        hi, lo = rows[HI].to_numpy(), rows[LO].to_numpy()
        order = np.argsort(hi)
        recent = self._recent()
        for file in self._files_about(rows[TIME], recent):
            possible = ~found
            if file["name"] not in recent:
                possible &= ~known | ((file["first"] <= times) & (times <= file["last"]))
            asked = order[possible[order]]
            if asked.size:
                found[asked] = within(mapped(self.checked_path(file)), Ids(hi[asked], lo[asked]))
        return pl.Series("sent", found)

    def _files_about(self, times: pl.Series, recent: set[str]) -> list[dict[str, Any]]:
        """The files that can hold any of these times: mostly few, so that no row is compared with all of them."""
        if times.is_empty() or times.has_nulls():
            return self.files
        early, late = times.to_frame("time").select(early=pl.min("time"), late=pl.max("time")).row(0)
        return [
            file for file in self.files if file["name"] in recent or (file["first"] <= late and early <= file["last"])
        ]

    def _recent(self) -> set[str]:
        """Files that are looked at whatever the times: an event's time may be corrected after it was sent."""
        newest = max((file["at"] for file in self.files), default=0.0)
        return {file["name"] for file in self.files if file["undated"] or file["at"] >= newest - RECENT_DAYS * _DAY}

    def checked_path(self, file: dict[str, Any]) -> Path:
        """The path of a file of the manifest, once its checksum was compared.

        Raises:
            StateError: It is missing or altered.
        """
        path = self.folder / str(file["name"])
        if path.name not in self.checked:
            snapshots.check(path, file["sha256"], f"sync '{self.folder.name}': the ledger", _REMEDY, self.bucket)
            self.checked.add(path.name)
        return path


def load(state: State, sync: str) -> Ledger:
    """The sync's current ledger; its files are all there, their checksums are compared when they are opened.

    Raises:
        StateError: A file is missing, or the sync was of another kind.
    """
    with state.read() as connection:
        manifest, generation = snapshots.current(connection, sync, KIND)
    ledger = replace(nothing(state, sync), manifest=manifest, generation=generation)
    missing = [path for name in sorted(_names(ledger)) if not (path := ledger.folder / name).exists()]
    if missing and state.bucket:  # what is there is fetched when it is needed
        there = state.bucket.ages(ledger.folder)
        missing = [path for path in missing if path.name not in there]
    if missing:
        where = state.bucket.at(missing[0]) if state.bucket else missing[0]
        raise StateError(f"sync '{sync}': the ledger file '{where}' is missing", remedy=_REMEDY)
    return ledger


def nothing(state: State, sync: str) -> Ledger:
    """The ledger of a sync that never handled an event."""
    return Ledger(state.folder / "ledger" / sync, {}, 0, bucket=state.bucket)


def forget(connection: sa.Connection, state: State, sync: str) -> Ledger:
    """An empty ledger in place of the sync's, whose files go with a later sweep.

    Raises:
        StateError: What is current is another kind's.
    """
    snapshots.drop(connection, sync, KIND)
    return nothing(state, sync)


def write(ledger: Ledger, ids: Iterable[pl.DataFrame]) -> dict[str, Any] | None:
    """A new, durable file of these ids, each once, not yet named by any manifest; None where there are none.

    All are held in memory at once: 16 bytes a row, and 100 MB.

    Args:
        ledger: Whose folder it goes to.
        ids: `#hi`, `#lo`, `#time` (null where unknown).

    Raises:
        StateError: The disk is full or the folder cannot be written.
    """
    runs: list[Ids] = []
    times: list[int | None] = []
    undated = False
    for frame in ids:
        if frame.height:
            runs.append(ordered(frame[HI].to_numpy(), frame[LO].to_numpy()))
            times += frame.select(first=pl.min(TIME), last=pl.max(TIME)).row(0)
            undated = undated or frame[TIME].has_nulls()
    if not runs:
        return None
    return _written(ledger, runs, {**_span(times), "undated": undated})


def moved(
    ledger: Ledger, new: dict[str, Any] | None, listed: pl.DataFrame, now: float, entries: dict[str, Any]
) -> Ledger:
    """The next generation: with the new file, small ones folded, what is over dropped; not yet the current one.

    Nothing of the generation before is touched: until `snapshots.store` has moved the pointer it stays whole.

    Args:
        ledger: The generation before.
        new: What `write` returned.
        listed: All that `rejects` shall show (LISTED_SCHEMA).
        now: When the new file's events were sent, seconds since 1970.
        entries: Further entries of the manifest, which replace those of their name.

    Raises:
        StateError: A file to be folded is missing or altered, or the disk is full.
    """
    files = [*ledger.files, *([{**new, "at": now}] if new else [])]
    over = [file for file in files if file["at"] < now - KEPT_DAYS * _DAY and not file["undated"]]
    kept = [file for file in files if file not in over]
    gone = [file["last"] for file in over]
    manifest = {
        **ledger.manifest,
        **entries,
        "kind": KIND,
        "files": _folded(ledger, kept),
        "forgotten": _span([ledger.forgotten, *gone])["last"],
        "listed": _listed(ledger, listed, now),
    }
    after = replace(ledger, manifest=manifest, generation=ledger.generation + 1)
    snapshots.let_go(ledger.folder, _names(ledger) - _names(after))
    return after


def compacted(ledger: Ledger) -> Ledger:
    """The ledger with one file a day; not yet the current one.

    Raises:
        StateError: A file to be folded is missing or altered, or the disk is full.
    """
    days: dict[int, list[dict[str, Any]]] = {}
    for file in ledger.files:
        days.setdefault(int(file["at"] // _DAY), []).append(file)
    files = [files[0] if len(files) == 1 else _fold(ledger, files) for _, files in sorted(days.items())]
    after = replace(ledger, manifest={**ledger.manifest, "files": files})
    snapshots.let_go(ledger.folder, _names(ledger) - _names(after))
    return after


def sweep(ledger: Ledger) -> None:
    """Remove files that no manifest names, left by a killed run or let go long enough ago that no reader holds them."""
    snapshots.sweep_folder(ledger.folder, _names(ledger))


def _names(ledger: Ledger) -> set[str]:
    return snapshots.names(ledger.manifest)


def _new_path(ledger: Ledger, suffix: str) -> Path:
    snapshots.make_folder(ledger.folder.parent)
    snapshots.make_folder(ledger.folder)
    return ledger.folder / f"{uuid.uuid4().hex}.{suffix}"


def _listed(ledger: Ledger, listed: pl.DataFrame, now: float) -> dict[str, Any] | None:
    """The entry of the listed events that are not over: the one before where they are the same."""
    waits = (pl.col("state") == "held") | (pl.col("last_seen") >= now - LISTED_DAYS * _DAY)
    shown = listed.select(LISTED_SCHEMA.names()).filter(waits)
    if shown.equals(ledger.listed()):
        return ledger.manifest.get("listed")
    if shown.is_empty():
        return None
    path = _new_path(ledger, "parquet")
    return {"name": path.name, "rows": write_frames(path, [shown], keeps=True), "sha256": checksum(path)}


def _folded(ledger: Ledger, files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files by their day, with at most FILES_A_DAY of any."""
    days: dict[int, list[dict[str, Any]]] = {}
    for file in files:
        days.setdefault(int(file["at"] // _DAY), []).append(file)
    return [file for day in sorted(days) for file in _fewer(ledger, days[day])]


def _fewer(ledger: Ledger, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files of a day, the smallest folded into one where there are too many.

    A larger one is folded only with smaller ones that weigh as much together: so an id is seldom copied.
    """
    if len(files) <= FILES_A_DAY:
        return files
    files = sorted(files, key=lambda file: int(file["rows"]))
    count, rows = 2, files[0]["rows"] + files[1]["rows"]
    while count < len(files) and files[count]["rows"] <= rows:
        rows += files[count]["rows"]
        count += 1
    return [*files[count:], _fold(ledger, files[:count])]


def _fold(ledger: Ledger, files: list[dict[str, Any]]) -> dict[str, Any]:
    runs = [run for file in files for run in mapped(ledger.checked_path(file))]
    entries = {
        **_span(file[end] for file in files for end in ("first", "last")),
        "undated": any(file["undated"] for file in files),
        "at": max(file["at"] for file in files),
    }
    return _written(ledger, runs, entries)


def _span(times: Iterable[int | None]) -> dict[str, int | None]:
    """The first and last of the known times; null where none is known."""
    known = [time for time in times if time is not None]
    return {"first": min(known, default=None), "last": max(known, default=None)}


def _written(ledger: Ledger, runs: Sequence[Ids], entries: dict[str, Any]) -> dict[str, Any]:
    """A new file of all the runs' ids, and its entry."""
    path = _new_path(ledger, "arrow")
    rows = write_ids(path, runs)
    return {"name": path.name, "rows": rows, "sha256": checksum(path), **entries}


__all__ = [
    "KEPT_DAYS",
    "LISTED_DAYS",
    "LISTED_SCHEMA",
    "TIME",
    "Ledger",
    "compacted",
    "forget",
    "load",
    "moved",
    "nothing",
    "sweep",
    "write",
]
