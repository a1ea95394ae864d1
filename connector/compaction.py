"""Folds what is remembered of a sync into as few files as can be; runs do so by themselves, where it pays."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from connector.config import EventSync, Outbound, Project
from connector.errors import StateError
from connector.state import folding, runs, snapshots
from connector.state import ledger as ledgers
from connector.state.database import State, open_state
from connector.state.lease import Lease, hold
from connector.state.ledger import Ledger
from connector.state.snapshots import Snapshot


class Compaction(NamedTuple):
    """What was folded: files and bytes of a sync's snapshot or ledger, before and after."""

    sync: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


def compact_sync(project: Project, sync: Outbound) -> Compaction:
    """Fold a sync's files; what was delivered stays as it is, and the old files go with a sweep an hour later.

    Raises:
        BusyError: A run of the sync is under way.
        StateError: A killed run has to be taken over first, a file is damaged, or the disk is full.
    """
    key = project.access().project_key.get_secret_value()
    run = f"{sync.name}-compact-{uuid.uuid4().hex[:10]}"
    with (
        open_state(project.state_dir, key, project.state_server()) as state,
        hold(state, sync.name, run) as lease,
    ):
        if left := runs.unfinished(state, sync.name):
            raise StateError(
                f"sync '{sync.name}': run {left[0].id} was killed, and what it delivered is not noted yet",
                remedy=f"run it first: connector run {sync.name}",
            )
        return _ledger(state, lease) if isinstance(sync, EventSync) else _snapshot(state, lease)


def _snapshot(state: State, lease: Lease) -> Compaction:
    before = after = snapshots.load(state, lease.sync)
    if len(before.files) > 1:
        after = folding.indexed(folding.folded(before, before.manifest["attributes"]))
        _store(state, lease, before, after.manifest)
    return _told(lease.sync, before.folder, before.files, after.files)


def _ledger(state: State, lease: Lease) -> Compaction:
    before = ledgers.load(state, lease.sync)
    after = ledgers.compacted(before)
    if after.files != before.files:
        _store(state, lease, before, after.manifest)
    return _told(lease.sync, before.folder, before.files, after.files)


def _store(state: State, lease: Lease, before: Snapshot | Ledger, manifest: dict[str, Any]) -> None:
    snapshots.put(state, before.folder, manifest, before.manifest)
    with state.write() as connection:
        lease.check(connection)
        snapshots.store(connection, lease.sync, manifest, before.generation + 1)


def _told(sync: str, folder: Path, before: Iterable[dict[str, Any]], after: Iterable[dict[str, Any]]) -> Compaction:
    sizes = [[(folder / file["name"]).stat().st_size for file in files] for files in (before, after)]
    return Compaction(sync, len(sizes[0]), len(sizes[1]), sum(sizes[0]), sum(sizes[1]))


__all__ = ["Compaction", "compact_sync"]
