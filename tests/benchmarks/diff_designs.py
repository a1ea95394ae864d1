"""Ways to find what changed between two versions of a table, one a process.

Run: python diff_designs.py DESIGN OLD NEW FOLDER     (FOLDER: what `ours_snapshot` and `duckdb_snapshot` made, and room)

Each prints a JSON object; those that compare tell `added`, `changed` and `removed`, so that they check each other.
"""

# ruff: noqa: PLC0415 - a process imports what it measures, and nothing else

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

KEY, SKIPPED = "custom_id", ("custom_id", "updated_at")
SEED = 7
BATCH_ROWS = 49_152
GROUP = 245_760
"""Rows of a row group, as `diff_rows` writes them."""
ACCEPTED = 100_000
"""Rows of a commit."""
OLD, NEW, FOLDER = (Path(path) for path in sys.argv[2:5])

Answer = dict[str, Any]


# The connector's own functions, in the order in which a run calls them.


def _frames(path: Path, columns: list[str], *, share: int = 1) -> Iterator[Any]:
    """Record batches as a warehouse would yield them, decoded by Polars; of a share the first 1/share of the rows."""
    import polars as pl

    source = pl.scan_parquet(path).select(columns)
    rows = source.select(pl.len()).collect().item() // share
    for start in range(0, rows, GROUP):
        part = source.slice(start, min(GROUP, rows - start)).collect(engine="in-memory")
        yield from part.iter_slices(BATCH_ROWS)


def _mapping(path: Path) -> Any:
    import polars as pl

    from connector.mapping import Column, resolve

    columns = [Column(name, dtype) for name, dtype in pl.read_parquet_schema(path).items()]
    return resolve(columns, KEY, None, cursor="updated_at")


def _snapshot() -> Any:
    from connector.state.snapshots import Snapshot

    folder = FOLDER / "snapshot"
    stored = folder / "manifest.json"
    return Snapshot(folder / "files", json.loads(stored.read_text()) if stored.exists() else {}, 1)


def ours_snapshot() -> Answer:
    """The snapshot of OLD, as the commit of a first run leaves it."""
    import polars as pl

    from connector.hashing import HASH, KEY_HASH, hashed
    from connector.judging import apply
    from connector.mapping import KEY as MAPPED_KEY
    from connector.state import folding, snapshots
    from connector.state.snapshots import AT, DELETED

    mapping, snapshot = _mapping(OLD), _snapshot()
    (FOLDER / "snapshot").mkdir()

    def rows() -> Iterator[Any]:
        for frame in _frames(OLD, mapping.columns):
            valid = apply(mapping, frame).valid
            hashes = hashed(valid, mapping.attributes, SEED).select(KEY_HASH, f"^{HASH}.*$")
            marks = (pl.lit(value=False).alias(DELETED), pl.lit(1_750_000_000, pl.Int64).alias(AT))
            yield valid.select(MAPPED_KEY).hstack(hashes).with_columns(*marks)

    file = snapshots.write(snapshot, rows())
    assert file
    kept = folding.indexed(replace(snapshot, manifest={"files": [file]}))
    (FOLDER / "snapshot" / "manifest.json").write_text(json.dumps(kept.manifest))
    size = (FOLDER / "snapshot" / "files" / file["name"]).stat().st_size
    return {"bytes_a_row": round(size / file["rows"], 1)}


def _ours(*, full: bool, empty: bool = False, share: int = 1) -> Answer:
    import numpy as np
    import polars as pl

    from connector.changes import Kind
    from connector.planning import build, removed_rows
    from connector.probing import Job, sift
    from connector.state.runs import DUE_SCHEMA
    from connector.state.snapshots import Snapshot

    laps, began = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        laps[name], began = round(time.process_time() - began, 2), time.process_time()

    mapping = _mapping(NEW)
    snapshot = Snapshot(FOLDER / "none", {}, 0) if empty else _snapshot()
    index = snapshot.index()
    lap("index")
    job = Job(mapping, snapshot, index, pl.DataFrame(schema=DUE_SCHEMA), SEED)
    sifted = sift(_frames(NEW, mapping.columns, share=share), job, FOLDER / "outbox.spool")
    lap("sift")
    removed = removed_rows(job, sifted.seen) if full else removed_rows(job, np.ones(len(index), np.bool_))
    changes = build(sifted, job, removed.clear(), FOLDER / "changes.parquet")
    lap("build")
    (FOLDER / "changes.parquet").unlink(missing_ok=True)
    shutil.rmtree(FOLDER / "outbox.spool")
    counts = {"added": changes.counts[Kind.ADDED], "changed": changes.counts[Kind.CHANGED]}
    return {**counts, **({"removed": removed.height} if full else {}), "cpu": laps}


def ours_full() -> Answer:
    """NEW against the snapshot of OLD: up to the operations on disk."""
    return _ours(full=True)


def ours_incremental() -> Answer:
    """The same, where one row of a hundred arrives."""
    return _ours(full=False, share=100)


def ours_first() -> Answer:
    """NEW against nothing: every row is judged, built and written."""
    return _ours(full=True, empty=True)


def ours_commit() -> Answer:
    """Batch has taken 100,000 rows of NEW: they join the snapshot of OLD; `cpu` is of the commit alone."""
    import os

    import numpy as np
    import polars as pl
    import sqlalchemy as sa

    from connector.commit import Books, Judged, commit
    from connector.hashing import self_test
    from connector.payload import chunks
    from connector.planning import build, removed_rows
    from connector.probing import REJECTED, Job, sift
    from connector.state import runs, snapshots
    from connector.state.database import CHUNKS, open_state
    from connector.state.lease import hold

    mapping, kept = _mapping(NEW), _snapshot()
    nobody, run = pl.DataFrame(schema=runs.DUE_SCHEMA), "benchmark"
    attributes = {attribute.name: str(attribute.type) for attribute in mapping.attributes}
    with open_state(FOLDER / "state", "project") as state, hold(state, "customers", run) as lease:
        snapshot = replace(snapshots.nothing(state, "customers"), manifest=kept.manifest, generation=1)
        snapshot.folder.mkdir()
        for name in kept.names:
            os.link(kept.folder / name, snapshot.folder / name)
        job = Job(mapping, snapshot, snapshot.index(), nobody, SEED, resend=True, limit=ACCEPTED)
        share = max(1, snapshot.size // ACCEPTED)
        sifted = sift(_frames(NEW, mapping.columns, share=share), job, FOLDER / "outbox.spool")
        changes = build(sifted, job, removed_rows(job, np.ones(len(job.index), np.bool_)), runs.outbox(state, run))
        report = {"started": time.time(), "sync": "customers", "kind": "profiles", "full": False}
        opened = runs.Opened(run, "custom_id", attributes, "", report, lease.since)
        with state.write() as connection:
            runs.open_run(connection, lease, opened, list(chunks(changes.lengths, max_profiles=1000)))
            connection.execute(sa.update(CHUNKS).values(state="done", settled_at=time.time(), refusals=[]))
        self_test(state.seed)  # a run has asked for it by then
        judged = Judged(REJECTED.to_frame(), pl.DataFrame(schema={"key": pl.String}), [], full=False)
        began = time.process_time(), time.perf_counter()
        moved = commit(Books(state, lease, snapshot, "custom_id", attributes, 900.0), run, report, lease.since, judged)
        took = time.process_time() - began[0], time.perf_counter() - began[1]
    shutil.rmtree(FOLDER / "outbox.spool")
    file = moved.files[-1]
    size = (moved.folder / file["name"]).stat().st_size
    shutil.rmtree(FOLDER / "state")
    told = {"rows": file["rows"], "bytes_a_row": round(size / file["rows"], 1)}
    return {**told, "cpu": {"commit": round(took[0], 3)}, "wall": round(took[1], 3)}


# Peers. What differs is told by attribute, the rows that differ are written, as ours are.


def _duckdb() -> Any:
    import duckdb

    connection = duckdb.connect()
    for setting in ("threads = 2", "memory_limit = '8GB'", f"temp_directory = '{FOLDER}/spill'"):
        connection.execute(f"set {setting}")
    connection.execute("set preserve_insertion_order = false")
    described = connection.execute(f"describe select * from '{NEW}'").fetchall()
    return connection, [row[0] for row in described if row[0] not in SKIPPED]


def _counted(connection: Any, query: str) -> Answer:
    found = FOLDER / "found.parquet"
    connection.execute(f"copy ({query}) to '{found}' (format parquet)")
    kinds = dict(connection.execute(f"select kind, count(*) from '{found}' group by kind").fetchall())
    found.unlink()
    return {kind: kinds.get(kind, 0) for kind in ("added", "changed", "removed")}


def duckdb_full() -> Answer:
    """A full outer join of the values."""
    connection, names = _duckdb()
    differs = " | ".join(f"((o.{name} is distinct from n.{name})::bigint << {bit})" for bit, name in enumerate(names))
    return _counted(
        connection,
        f"""select coalesce(n.{KEY}, o.{KEY}) as key, {", ".join(f"n.{name}" for name in names)}, {differs} as sends,
            case when o.{KEY} is null then 'added' when n.{KEY} is null then 'removed' else 'changed' end as kind
        from '{OLD}' o full outer join '{NEW}' n on o.{KEY} = n.{KEY}
        where o.{KEY} is null or n.{KEY} is null or ({differs}) <> 0""",
    )


def duckdb_snapshot() -> Answer:
    """Hashes of OLD, by DuckDB's own function: what the fair peer compares with."""
    connection, names = _duckdb()
    connection.execute(
        f"""copy (select {KEY}, hash({KEY}) as kh, hash({", ".join(names)}) as rh,
            {", ".join(f"hash({name}) as h_{name}" for name in names)} from '{OLD}')
        to '{FOLDER}/hashes.parquet' (format parquet, compression lz4)"""
    )
    return {}


def duckdb_hashes() -> Answer:
    """NEW hashed, joined by key and row hash with the stored ones; attributes compared by hash where a row's differs."""
    connection, names = _duckdb()
    old = f"'{FOLDER}/hashes.parquet'"
    connection.execute(
        f"""create temp table d as select coalesce(n.k, o.kh) as kh, o.kh is null as a, n.k is null as r
        from (select kh, rh from {old}) o
        full outer join (select hash({KEY}) as k, hash({", ".join(names)}) as h from '{NEW}') n on o.kh = n.k
        where o.kh is null or n.k is null or o.rh <> n.h"""
    )
    differs = " | ".join(
        f"((o.h_{name} is distinct from hash(n.{name}))::bigint << {bit})" for bit, name in enumerate(names)
    )
    return _counted(
        connection,
        f"""select coalesce(n.{KEY}, o.{KEY}) as key, {", ".join(f"n.{name}" for name in names)}, {differs} as sends,
            case when d.a then 'added' when d.r then 'removed' else 'changed' end as kind
        from d left join {old} o on o.kh = d.kh left join '{NEW}' n on hash(n.{KEY}) = d.kh""",
    )


def polars_join() -> Answer:
    """A full outer join of the values, streaming."""
    import polars as pl

    names = [name for name in pl.read_parquet_schema(NEW) if name not in SKIPPED]
    old, new = (pl.scan_parquet(path).select(KEY, *names) for path in (OLD, NEW))
    differ = [pl.col(name).ne_missing(pl.col(f"{name} new")) for name in names]
    here, there = pl.col(KEY).is_not_null(), pl.col(f"{KEY} new").is_not_null()
    kind = pl.when(~here).then(pl.lit("added")).when(~there).then(pl.lit("removed")).otherwise(pl.lit("changed"))
    joined = old.join(new, on=KEY, how="full", suffix=" new").filter(~here | ~there | pl.any_horizontal(differ))
    sends = pl.sum_horizontal(each.cast(pl.Int64) * (1 << bit) for bit, each in enumerate(differ))
    found = joined.select(kind.alias("kind"), sends.alias("sends"), "^.* new$").collect(engine="streaming")
    kinds = dict(found.group_by("kind").len().iter_rows())
    return {kind: kinds.get(kind, 0) for kind in ("added", "changed", "removed")}


def decode() -> Answer:
    """Both sides' values decoded and dropped: what a comparison of values cannot go below."""
    import polars as pl

    for path in (OLD, NEW):
        schema = pl.read_parquet_schema(path)
        kept = [pl.col(name) for name in schema if name != "updated_at"]
        maxima = [each.list.len().max() if schema[each.meta.output_name()] == pl.List else each.max() for each in kept]
        pl.scan_parquet(path).select(maxima).collect(engine="streaming")
    return {}


DESIGNS: dict[str, Callable[[], Answer]] = {
    each.__name__: each
    for each in (
        ours_snapshot, ours_full, ours_incremental, ours_first, ours_commit,
        duckdb_snapshot, duckdb_full, duckdb_hashes, polars_join, decode,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(DESIGNS[sys.argv[1]]()))
