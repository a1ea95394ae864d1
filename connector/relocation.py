"""Where a snapshot lies: its tables in a warehouse, and how it moves between the engines with no row sent again."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from connector import valued
from connector._steps import step
from connector.config import ProfileSync, Project
from connector.errors import StateError, WarehouseError
from connector.hashing import KEY_HASH, VERSION, hashed, self_test
from connector.judging import WITHHELD, apply
from connector.mapping import KEY
from connector.state import snapshots
from connector.state.database import WAYS_OUT, State, translated
from connector.state.files import write_frames
from connector.state.runs import outbox
from connector.state.snapshots import Snapshot
from connector.valued import Terms, types_of
from connector.warehouses._differ import Comparison, Differ

ENGINE = "warehouse"

DELTA, PLAN = "delta", "plan"
"""What a run's table of a comparison is called, and a plan's."""


class Keep(Protocol):
    """Makes a snapshot the sync's current one, in a transaction of its own."""

    def __call__(self, snapshot: Snapshot) -> None:
        """From now on it is."""


@dataclass(frozen=True, slots=True)
class Corner:
    """A sync's tables in its warehouse, over an open connection.

    Attributes:
        differ: The connection.
        state: Whose sync it is: two states never share a table.
        sync: The sync's name.
        warehouse: The warehouse's name.
        run: The run that is there.
    """

    differ: Differ
    state: State
    sync: str
    warehouse: str
    run: str

    @property
    def stem(self) -> str:
        """What the names of its tables begin with."""
        return stem(self.state, self.sync)

    def named(self, what: str) -> str:
        """A table of the run."""
        return f"{self.stem}_{what}_{self.run.rpartition('-')[2]}"

    def over(self) -> None:
        """Remove what the run or the plan compared."""
        with suppress(WarehouseError):  # the next run sweeps
            self.differ.drop([self.named(DELTA), self.named(PLAN)])

    def sweep(self, snapshot: Snapshot) -> None:
        """Remove what runs left behind; only while none is open."""
        kept, plans = snapshot.manifest.get("table"), f"{self.stem}_{PLAN}_"
        left = self.differ.tables(self.stem + "_")
        self.differ.drop([table for table in left if table != kept and not table.startswith(plans)])


def stem(state: State, sync: str) -> str:
    """What the names of a sync's tables begin with: its own name, and digits that no other state has."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in sync.lower())[:40]
    return f"s_{plain}_{state.digest(sync)[:8]}"


def _fits(snapshot: Snapshot, terms: Terms) -> bool:
    """Whether the snapshot is one of values that were mapped like this."""
    manifest = snapshot.manifest
    return snapshot.engine == ENGINE and (manifest["warehouse"], manifest["recipe"]) == (
        terms.sync.warehouse,
        terms.recipe,
    )


def home(
    project: Project, state: State, sync: ProfileSync, snapshot: Snapshot, run: str, keep: Keep | None
) -> Snapshot:
    """The snapshot as this engine, or this warehouse, can have it: one that lies elsewhere comes back as hashes.

    Args:
        project: The project.
        state: Its state.
        sync: Whose snapshot.
        snapshot: As it stands.
        run: The run that needs it.
        keep: Makes it the current one; None where nothing may change: then it lies in the run's own folder.

    Raises:
        StateError: Its table is gone, or the project does not know the warehouse.
        WarehouseError: The table cannot be read.
    """
    where = snapshot.manifest.get("warehouse")
    if snapshot.engine != ENGINE or (sync.engine == ENGINE and where == sync.warehouse):
        return snapshot
    with opened(project, state, sync.name, str(where), run, write=keep is not None) as corner:
        require(corner, snapshot)
        back = downloaded(corner.differ, snapshot, state.seed, _apart(state, run) if keep is None else snapshot.folder)
        if keep:
            keep(back)
            corner.sweep(back)
    return back


def folder(state: State, run: str) -> Path:
    """Where a run's own files lie while it drafts; made where it is missing."""
    found = outbox(state, run).with_suffix(".spool")
    with translated(found):
        found.mkdir(mode=0o700, exist_ok=True)
    return found


def _apart(state: State, run: str) -> Path:
    """Where the snapshot lies that only one plan needs: not in the folder that is made anew when rows are sifted."""
    return outbox(state, run).with_suffix(".home")


def ready(corner: Corner, snapshot: Snapshot, terms: Terms, keep: Keep | None, *, whole: bool = False) -> Snapshot:
    """The snapshot in the warehouse, as these terms need it: what was delivered stays delivered.

    It comes as hashes, for the local engine to compare this time, where nothing may change (`keep` is None), and where
    other attributes were delivered than are mapped now: what is known of them is given up by a commit alone.

    Raises:
        StateError: The snapshot's table is gone.
        WarehouseError: The right to write is missing.
    """
    try:
        require(corner, snapshot)
    except StateError:
        if not whole:  # else all is sent again, on the operator's word
            raise
        snapshot = snapshots.nothing(corner.state, corner.sync)
    if keep is not None:
        corner.sweep(snapshot)
    if _fits(snapshot, terms):
        return snapshot
    if keep is None:
        return downloaded(corner.differ, snapshot, corner.state.seed, _apart(corner.state, corner.run))
    local = downloaded(corner.differ, snapshot, corner.state.seed, snapshot.folder)
    if local is not snapshot:  # from here on a kill finds a state as the local engine leaves it
        keep(local)
        corner.sweep(local)
    if local.files and local.manifest["attributes"] != types_of(terms.mapping):
        return local
    pushed = _uploaded(corner, local, terms)
    step("warehouse.moved")
    keep(pushed)
    corner.sweep(pushed)
    return pushed


def require(corner: Corner, snapshot: Snapshot) -> None:
    """Make sure that a snapshot of values is there.

    Raises:
        StateError: It is not.
    """
    table = snapshot.manifest.get("table")
    if table and table not in corner.differ.tables(corner.stem):
        raise StateError(
            f"sync '{corner.sync}': its snapshot, table '{table}' of warehouse '{corner.warehouse}', is gone",
            remedy=WAYS_OUT.format(sync=corner.sync),
        )


def downloaded(differ: Differ, snapshot: Snapshot, seed: int, folder: Path) -> Snapshot:
    """The snapshot as hashes in files of `folder`, as the local engine has it; the same where it is that already.

    Raises:
        WarehouseError: The table cannot be read.
    """
    if snapshot.engine != ENGINE:
        return snapshot
    manifest = snapshot.manifest
    names = [name for name, *_ in manifest["recipe"]]
    own = [valued.own_column(name) for name in names]
    frames = differ.read(manifest["table"], ["k", "doubt", "other", "at", *own])
    kept = valued.hashes(frames, manifest["recipe"], own, seed)
    file = snapshots.write(Snapshot(folder, {}, 0), kept)
    plain = {name: value for name, value in manifest.items() if name not in ("engine", "warehouse", "table", "recipe")}
    hashes = {"hash_version": VERSION, "self_test": self_test(seed)}
    return Snapshot(folder, {**plain, **hashes, "files": [file] if file else []}, snapshot.generation + 1)


_OF_FILES = ("files", "index", "hash_version", "self_test")
"""What only the manifest of a snapshot of hashes says."""


def _uploaded(corner: Corner, local: Snapshot, terms: Terms) -> Snapshot:
    """A new table with what the source says, as far as it is what was delivered."""
    differ, table = corner.differ, corner.named("of")
    comparison = Comparison(terms.sync.source.relation, terms.mapping.key_column, terms.attributes)
    differ.make(table, comparison)
    if local.files:
        copy, path = corner.named("copy"), folder(corner.state, corner.run) / "over"
        differ.compare(comparison, table, copy)
        if write_frames(path, _taken_over(corner, local, terms, copy)):
            differ.settle(table, copy, comparison.names, path)
    manifest = {
        **{name: value for name, value in local.manifest.items() if name not in _OF_FILES},
        "engine": ENGINE,
        "warehouse": terms.sync.warehouse,
        "table": table,
        "recipe": terms.recipe,
        "key": terms.sync.key,
        "attributes": types_of(terms.mapping),
    }
    return Snapshot(local.folder, manifest, local.generation + 1)


def _taken_over(corner: Corner, local: Snapshot, terms: Terms, copy: str) -> Iterator[pl.DataFrame]:
    """Marks of every row of the local snapshot: the source's value counts where its hash is the one delivered."""
    index, names = local.index(), [each.name for each in terms.mapping.attributes]
    seen = np.zeros(len(index), np.bool_)
    for frame in valued.sources(corner.differ, copy, terms, "once"):
        mapped = apply(terms.mapping, frame).valid
        rows = mapped.select(KEY, WITHHELD).hstack(hashed(mapped, terms.mapping.attributes, corner.state.seed))
        slots = index.slots(rows[KEY_HASH].to_numpy())
        known = slots >= 0
        stored = local.rows(index.positions[slots[known]], names, at=True)
        rows = rows.filter(pl.Series(known))
        same = rows[KEY] == stored[KEY]
        seen[slots[known][same.to_numpy()]] = True
        yield valued.marks(stored.filter(same), names, rows.filter(same))
    rest = local.rows(index.positions[~seen], names, at=True)
    for part in rest.iter_slices(100_000):
        yield valued.marks(part, names)


@contextmanager
def opened(
    project: Project, state: State, sync: str, warehouse: str, run: str, *, write: bool = True
) -> Iterator[Corner]:
    """The sync's tables in a warehouse that the project names.

    Raises:
        StateError: It names it no longer.
        WarehouseError: It cannot be opened.
    """
    settings = project.settings.warehouses.get(warehouse)
    if settings is None:
        raise StateError(
            f"sync '{sync}': its snapshot lies in warehouse '{warehouse}', which connector.yaml no longer has",
            remedy="name that warehouse again, at least for one run; " + WAYS_OUT.format(sync=sync),
        )
    with settings.diff_in(project.root, tags={"sync": sync, "run": run}, write=write) as differ:
        yield Corner(differ, state, sync, warehouse, run)
