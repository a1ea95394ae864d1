"""What Batch accepted, row by row: immutable Parquet files, and the manifest in the database that names them.

A file has `#key`, `#kh`, `#rh`, `#deleted` (Boolean: the profile left), `#at` (Int64, seconds since 1970: when it was
acknowledged) and one `h:NAME` an attribute.
Of rows with one key hash the last one counts. No value is kept, only keyed hashes: nothing personal lies here but the
key.
"""

import os
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from connector.changes import Index, Positions
from connector.errors import StateError
from connector.hashing import HASH, KEY_HASH, NULL, ROW_HASH, VERSION, Hashes, row_hashes, self_test
from connector.mapping import KEY
from connector.state import indexes
from connector.state.bucket import Bucket
from connector.state.database import SNAPSHOTS, WAYS_OUT, State, translated
from connector.state.files import checksum, gathered, sync_folder, write_frames
from connector.state.lease import Lease
from connector.state.picking import take

DELETED = "#deleted"
AT = "#at"

_GROUP_ROWS = 50_000
"""Rows of a row group: an outbox's frames are smaller, and dictionaries would not pay."""

ORPHAN_SECONDS = 3600
"""Age at which a file that nothing names is nobody's: a reader of the generation before may still hold younger ones."""

_NO_INDEX = Index(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of a sync's snapshot.

    Attributes:
        folder: Where its files lie.
        manifest: `files` (name, rows, sha256), `index` (name, files, sha256) where one is kept, `key`, `attributes`
            (name to type), `hash_version`, `self_test`, `cursor` (value, scope), `full_read_at`, `stamp` (as a
            `Reading` has it); where it is a table, `engine`, `warehouse`, `table` and `recipe` (how its values are
            mapped) in place of files and hashes.
        generation: 0 where nothing was ever delivered.
    """

    folder: Path
    manifest: dict[str, Any]
    generation: int

    @property
    def engine(self) -> str:
        """Where it is: `local`, or `warehouse`, where it is a table of values and has no files."""
        return str(self.manifest.get("engine", "local"))

    @property
    def files(self) -> list[dict[str, Any]]:
        """Name, rows and SHA-256 of each file, oldest first."""
        return list(self.manifest.get("files", []))

    @property
    def size(self) -> int:
        """Rows of all files; some may be superseded by later ones."""
        return sum(int(file["rows"]) for file in self.files)

    @property
    def in_index(self) -> int:
        """Files, counted from the oldest, whose index is kept in a file."""
        kept = self.manifest.get("index", {"files": []})["files"]
        return len(kept) if kept == [file["name"] for file in self.files[: len(kept)]] else 0

    @property
    def names(self) -> set[str]:
        """Of all its files in the folder."""
        kept = {self.manifest["index"]["name"]} if self.in_index else set()
        return {file["name"] for file in self.files} | kept

    def index(self) -> Index:
        """The live rows' hashes and places: 24 bytes a row in memory, or 20 mapped where they are kept in a file."""
        index = indexes.mapped(self.folder, self.manifest["index"]) if self.in_index else _NO_INDEX
        late = self.files[self.in_index :]
        if not late:
            return index
        columns = [KEY_HASH, ROW_HASH, DELETED]
        rows = pl.concat(pl.read_parquet(self.folder / file["name"], columns=columns, glob=False) for file in late)
        newest = indexes.newest(rows[KEY_HASH].to_numpy())
        key_hashes, row_hashes, deleted = (rows[name].to_numpy()[newest] for name in columns)
        before = sum(int(file["rows"]) for file in self.files[: self.in_index])
        return indexes.merged(index, Index(key_hashes, row_hashes, newest + before), deleted)

    def delivered_since(self, moment: float) -> list[str]:
        """Keys of rows that were acknowledged at that time or later, in seconds since 1970."""
        late = pl.col(AT) >= int(moment)
        scans = [
            pl.scan_parquet(self.folder / file["name"], glob=False).filter(late).select(KEY) for file in self.files
        ]
        return pl.concat(scans).unique().collect()[KEY].to_list() if scans else []

    def newest(self) -> Positions:
        """The places of each key's newest row, be it of a profile that left."""
        hashes = [pl.read_parquet(self.folder / file["name"], columns=[KEY_HASH], glob=False) for file in self.files]
        return indexes.newest(pl.concat(hashes)[KEY_HASH].to_numpy()) if hashes else np.empty(0, np.int64)

    def rows(
        self,
        positions: Positions,
        attributes: Iterable[str],
        *,
        key_hashes: Hashes | None = None,
        at: bool = False,
    ) -> pl.DataFrame:
        """`#key` and `h:` hashes of the rows at these places, in order; null at -1, NULL where a file lacks it.

        Args:
            positions: As the index has them, or -1.
            attributes: Whose hashes.
            key_hashes: Of the rows at these places, anything at -1: with them scattered rows are found sooner.
            at: Whether `#at` comes too.
        """
        columns = [KEY, *([AT] if at else []), *(HASH + name for name in attributes)]
        order = np.argsort(positions, kind="stable")
        wanted: Positions = positions[order].astype(np.int64)
        hashes = None if key_hashes is None else key_hashes[order]
        parts = [_blank(int(np.searchsorted(wanted, 0)), columns)]
        first = 0
        for file in self.files:
            low, high = np.searchsorted(wanted, [first, first + file["rows"]])
            if low < high:
                # All keys of a file are looked at: that pays where many of its parts would be read otherwise.
                wide = wanted[high - 1] - wanted[low] > file["rows"] // 4
                of = hashes[low:high] if hashes is not None and wide else None
                parts.append(take(self.folder / file["name"], wanted[low:high] - first, columns, of))
            first += file["rows"]
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pl.concat(parts)[back]


def load(state: State, sync: str) -> Snapshot:
    """The sync's current snapshot, every file's checksum compared.

    Raises:
        StateError: A file is missing, altered or out of reach, its hashes are of another recipe, or the sync was of
            another kind.
    """
    with state.read() as connection:
        manifest, generation = current(connection, sync, "profiles")
    if not generation:
        return nothing(state, sync)
    snapshot = Snapshot(state.folder / "snapshots" / sync, manifest, generation)
    remedy = WAYS_OUT.format(sync=sync)
    for file in snapshot.files:
        check(snapshot.folder / file["name"], file["sha256"], f"sync '{sync}': the snapshot", remedy, state.bucket)
    if "index" in manifest and not indexes.believed(snapshot.folder, manifest["index"]):
        snapshot = without_index(snapshot)
    if snapshot.engine != "local":  # it holds values, and no hashes that could be of another recipe
        return snapshot
    if (manifest["hash_version"], manifest["self_test"]) != (VERSION, self_test(state.seed)):
        raise StateError(
            f"sync '{sync}': the snapshot's hashes were made by another recipe than this software's",
            remedy=remedy,
        )
    return snapshot


def write(snapshot: Snapshot, frames: Iterable[pl.DataFrame]) -> dict[str, Any] | None:
    """A new, durable snapshot file of these rows, not yet named by any manifest; None where there are no rows.

    Args:
        snapshot: Whose folder it goes to.
        frames: `#key`, `#kh`, `#deleted`, `#at` and `h:` columns; the row hash is added.
    """
    make_folder(snapshot.folder)
    path = snapshot.folder / f"{uuid.uuid4().hex}.parquet"
    rows = write_frames(path, gathered(map(_with_row_hash, frames), _GROUP_ROWS), keeps=True)
    return {"name": path.name, "rows": rows, "sha256": checksum(path)} if rows else None


def without_index(snapshot: Snapshot) -> Snapshot:
    """The snapshot as if no index were kept of it."""
    manifest = {name: value for name, value in snapshot.manifest.items() if name != "index"}
    return Snapshot(snapshot.folder, manifest, snapshot.generation)


def put(state: State, folder: Path, manifest: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Make the files of a manifest durable for all hosts, before `store` names them there.

    Args:
        state: The state.
        folder: Where the files lie.
        manifest: The one to be stored.
        before: The one that is stored now, whose files are durable.

    Raises:
        StateError: They lie in a bucket, and it refuses them or is out of reach.
    """
    state.put(folder / name for name in sorted(names(manifest) - names(before)))


def names(manifest: Mapping[str, Any]) -> set[str]:
    """The files that a manifest of any kind names."""
    listed = manifest.get("listed")
    return {str(file["name"]) for file in (*manifest.get("files", ()), *([listed] if listed else ()))}


def store(connection: sa.Connection, sync: str, manifest: dict[str, Any], generation: int) -> None:
    """Move the pointer: from the end of this transaction the manifest is the truth."""
    connection.execute(sa.delete(SNAPSHOTS).where(SNAPSHOTS.c.sync == sync))
    connection.execute(sa.insert(SNAPSHOTS), {"sync": sync, "generation": generation, "manifest": manifest})


def nothing(state: State, sync: str) -> Snapshot:
    """The snapshot of a sync that never delivered anything."""
    return Snapshot(state.folder / "snapshots" / sync, {}, 0)


def forget(connection: sa.Connection, state: State, sync: str) -> Snapshot:
    """An empty snapshot in place of the sync's, whose files go with a later sweep.

    Raises:
        StateError: What is current is another kind's: it is not thrown away under the name of a snapshot.
    """
    drop(connection, sync, "profiles")
    return nothing(state, sync)


def drop(connection: sa.Connection, sync: str, kind: str) -> None:
    """Remove the sync's manifest.

    Raises:
        StateError: It is another kind's.
    """
    current(connection, sync, kind)
    connection.execute(sa.delete(SNAPSHOTS).where(SNAPSHOTS.c.sync == sync))


def sweep(snapshot: Snapshot) -> None:
    """Remove files that no manifest names, left by a killed run or folded long enough ago that no reader holds them."""
    sweep_folder(snapshot.folder, snapshot.names)


def current(connection: sa.Connection, sync: str, kind: str) -> tuple[dict[str, Any], int]:
    """The sync's current manifest and its generation; an empty one and 0 where there is none.

    Args:
        connection: A transaction.
        sync: Whose.
        kind: `profiles` or `events`, as the sync is now.

    Raises:
        StateError: The manifest was written when the sync was of another kind.
    """
    row = connection.execute(sa.select(SNAPSHOTS).where(SNAPSHOTS.c.sync == sync)).mappings().one_or_none()
    if row is None:
        return {}, 0
    was = row["manifest"].get("kind", "profiles")
    if was != kind:
        raise StateError(
            f"sync '{sync}' is of kind {kind}, but the state remembers what a sync of that name and of kind {was} sent",
            remedy="give the sync another name",
        )
    return row["manifest"], row["generation"]


def manifest_of(connection: sa.Connection, sync: str, kind: str) -> dict[str, Any]:
    """The sync's current manifest; an empty one where there is none of that kind."""
    found = connection.execute(sa.select(SNAPSHOTS.c.manifest).where(SNAPSHOTS.c.sync == sync)).scalar_one_or_none()
    return found if found and found.get("kind", "profiles") == kind else {}


def check(path: Path, sha256: str, whose: str, remedy: str, bucket: Bucket | None = None) -> None:
    """Believe a file only as it was written; where the folder lacks it so, the bucket has it.

    Raises:
        StateError: It is missing or altered, in the words "`whose` file 'path' …", or the bucket is out of reach.
    """
    with translated(path):
        found = checksum(path) if path.exists() else None
    if found != sha256 and bucket:
        found = bucket.fetch(path, sha256)
    where = bucket.at(path) if bucket else path
    if found is None:
        raise StateError(f"{whose} file '{where}' is missing", remedy=remedy)
    if found != sha256:
        raise StateError(f"{whose} file '{where}' was altered: its checksum differs", remedy=remedy)


def make_folder(folder: Path) -> None:
    """A folder for its owner alone that survives a power cut; its parent exists."""
    with translated(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def let_go(folder: Path, names: Iterable[str]) -> None:
    """Start the time after which `sweep_folder` removes these: a plan that is being made now may still read them."""
    with translated(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the bucket's, which this host never needed
                os.utime(folder / name)


def sweep_bucket(state: State, lease: Lease, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove from the bucket what the sync's manifest does not name and was put long ago; as `clear`."""
    named = names(manifest)
    if state.bucket:
        ages = state.bucket.ages(folder)
        old = [folder / name for name, age in ages.items() if name not in named and age > ORPHAN_SECONDS]
        clear(state, lease, old)


def sweep_folder(folder: Path, named: Collection[str]) -> None:
    """Remove a sync's files that are not named and not young."""
    for path in folder.glob("*"):
        if path.name not in named and path.stat().st_mtime < time.time() - ORPHAN_SECONDS:
            path.unlink(missing_ok=True)


def clear(state: State, lease: Lease, paths: Sequence[Path]) -> None:
    """Remove what was found in the bucket, as long as the lease holds: no other run can have named it since.

    Raises:
        StateError: The lease is lost, or the bucket refuses it or is out of reach.
    """
    if state.bucket and paths:
        with state.write() as connection:
            lease.check(connection)
        state.bucket.remove(paths)


def _with_row_hash(frame: pl.DataFrame) -> pl.DataFrame:
    names = sorted(name for name in frame.columns if name.startswith(HASH))
    return frame.select(KEY, KEY_HASH, row_hashes(frame.select(KEY, *names)), DELETED, AT, *names)


def _blank(height: int, columns: list[str]) -> pl.DataFrame:
    empty = {KEY: pl.repeat(None, height, dtype=pl.String), AT: pl.repeat(None, height, dtype=pl.Int64)}
    return pl.select(empty.get(name, pl.repeat(NULL, height, dtype=pl.UInt64)).alias(name) for name in columns)
