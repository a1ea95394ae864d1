"""The warehouse as the engine: it keeps what was delivered as values, and tells the rows that may have changed.

It only filters. What it finds, both sides of it, goes through the mapping and the hashes of the local engine, and from
there on nothing knows where the comparison began.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from connector import valued
from connector._steps import step
from connector.config import ProfileSync, Project
from connector.errors import StateError
from connector.mapping import KEY
from connector.probing import Job, Sifted, sift
from connector.relocation import DELTA, PLAN, Corner, folder, opened, require
from connector.state import snapshots
from connector.state.database import WAYS_OUT, State
from connector.state.files import write_frames
from connector.state.runs import outbox
from connector.state.snapshots import Snapshot
from connector.valued import Terms
from connector.warehouses._differ import Comparison


def keys_file(corner: Corner, keys: Sequence[str]) -> Path | None:
    """The file of keys that a comparison is to look at; None where there are none."""
    path = folder(corner.state, corner.run) / "keys"
    return path if write_frames(path, [pl.DataFrame({"k": pl.Series(keys, dtype=pl.String)})]) else None


def sifted(
    corner: Corner, job: Job, terms: Terms, comparison: Comparison,
    told: Callable[[Iterator[pl.DataFrame]], Iterable[pl.DataFrame]], *, keeps: bool,
) -> tuple[Sifted, Job, int]:  # fmt: skip
    """Let the warehouse compare, and sift what it found.

    Returns:
        As if the source had been read here; the job with that part of the snapshot that the comparison brought; and the
        rows of the whole snapshot.
    """
    differ, table = corner.differ, job.snapshot.manifest["table"]
    delta = corner.named(DELTA if keeps else PLAN)
    names, spill = comparison.names, folder(corner.state, corner.run)
    known = differ.rows(table)
    differ.compare(comparison, table, delta)
    step("warehouse.compared")
    brought = _brought(
        differ.read(delta, ["k", "doubt", "other", *(f"old_{name}" for name in names)], "there"), terms, job.seed, spill
    )
    job = replace(job, snapshot=brought, index=brought.index())
    rows = valued.sources(differ, delta, terms, "here")
    found = sift(told(rows), job, spill / "new")
    apart = 0 if comparison.parts else known - len(job.index)
    if keeps and not comparison.parts:
        _absorb(corner, table, delta, job.snapshot.rows(job.index.positions[found.same], [])[KEY], names)
    return replace(found, read=found.read + apart, unchanged=found.unchanged + apart), job, known


def _brought(frames: Iterator[pl.DataFrame], terms: Terms, seed: int, spill: Path) -> Snapshot:
    """The delta's old side as a snapshot of hashes: the part of the whole that matters now."""
    names = [own for own, _ in terms.attributes]
    dtypes = {f"old_{own}": terms.dtypes[column] for own, column in terms.attributes}
    cast = (frame.cast(dtypes).with_columns(pl.lit(0, pl.Int64).alias("at")) for frame in frames)  # type: ignore[arg-type]
    file = snapshots.write(
        Snapshot(spill / "old", {}, 0), valued.hashes(cast, terms.recipe, [f"old_{name}" for name in names], seed)
    )
    return Snapshot(spill / "old", {"files": [file] if file else []}, 0)


def _absorb(corner: Corner, table: str, delta: str, keys: pl.Series, names: Sequence[str]) -> None:
    """Take over values that are written otherwise than before and mean the same, so that they do not come each time."""
    if not len(keys):
        return
    path = folder(corner.state, corner.run) / "marks"
    write_frames(path, [valued.whole(keys, len(names))])
    corner.differ.settle(table, delta, names, path)
    step("warehouse.absorbed")


@contextmanager
def kept(
    project: Project, state: State, sync: ProfileSync, snapshot: Snapshot, run: str, rows: Iterable[pl.DataFrame]
) -> Iterator[None]:
    """Move a snapshot in the warehouse to what was accepted; the run's tables go when the context ended well.

    Repeated, it changes nothing: until the state says that the run is over, outbox and delta are there.

    Args:
        project: The project.
        state: Its state.
        sync: Whose snapshot.
        snapshot: As it stands.
        run: The run whose answers these are.
        rows: As a snapshot's file has them, with `#send`.

    Raises:
        StateError: The snapshot or the run's delta is gone.
        WarehouseError: The warehouse cannot be written.
    """
    manifest = snapshot.manifest
    names = [name for name, *_ in manifest["recipe"]]
    path = outbox(state, run).with_suffix(".marks")
    path.unlink(missing_ok=True)
    write_frames(path, (valued.moves(frame, names) for frame in rows))
    try:
        with opened(project, state, sync.name, manifest["warehouse"], run) as corner:
            delta = corner.named(DELTA)
            require(corner, snapshot)
            if path.exists():
                if delta not in corner.differ.tables(delta):
                    raise StateError(
                        f"sync '{sync.name}': what run {run} compared, table '{delta}' of its warehouse, is gone",
                        remedy=WAYS_OUT.format(sync=sync.name),
                    )
                corner.differ.settle(manifest["table"], delta, [valued.own_column(name) for name in names], path)
                step("warehouse.settled")
            yield
            corner.over()
    finally:
        path.unlink(missing_ok=True)
