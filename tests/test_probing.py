"""A source held against a snapshot that is too large for one look: lookups, repeated keys, parts."""

import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.changes import Index, Kind
from connector.hashing import HASH, KEY_HASH, hashed
from connector.mapping import KEY, AttributeMapping, Column, apply, resolve
from connector.payload import OPERATION
from connector.planning import build
from connector.probing import PART_ROWS, Job, Sifted, sift
from connector.state import snapshots
from connector.state.runs import DUE_SCHEMA
from connector.state.snapshots import AT, DELETED, Snapshot

TOP = 2**64 - 1
HASHES = st.integers(0, TOP) | st.integers(0, 40) | st.integers(TOP - 40, TOP) | st.integers(2**63 - 20, 2**63 + 20)
COLUMNS = {"s": AttributeMapping(column="s"), "n": AttributeMapping(column="n")}
MAPPING = resolve([Column("k", pl.String()), Column("s", pl.String()), Column("n", pl.Int64())], "k", COLUMNS)


def source(numbers: range, *, moved: int = 0) -> pl.DataFrame:
    """Rows of these numbers; every `moved`-th has another `n`."""
    n = pl.Series("n", numbers)
    return pl.DataFrame({"k": n.cast(pl.String), "s": "s" + (n % 7).cast(pl.String), "n": n}).with_columns(
        pl.col("n") + (pl.col("n") % moved == 0) if moved else pl.col("n")
    )


def delivered(frame: pl.DataFrame, folder: Path) -> Snapshot:
    valid = apply(MAPPING, frame).valid
    hashes = hashed(valid, MAPPING.attributes, 7).select(KEY_HASH, f"^{HASH}.*$")
    rows = valid.select(KEY).hstack(hashes).with_columns(pl.lit(value=False).alias(DELETED), pl.lit(0).alias(AT))
    file = snapshots.write(Snapshot(folder, {}, 0), rows.iter_slices(70_000))
    return Snapshot(folder, {"files": [file]}, 1)


@settings(max_examples=60, deadline=None)
@given(st.sets(HASHES, max_size=60), st.lists(HASHES, max_size=30))
def test_a_lookup_finds_every_hash_and_no_other(known: set[int], others: list[int]) -> None:
    """However hashes lie, at the ends, side by side or spread, each known one has its place and others have none."""
    ascending = np.array(sorted(known), np.uint64)
    index = Index(ascending, ascending, np.arange(len(known)))
    asked = [*sorted(known, key=lambda value: value % 1009), *others]
    places = {value: place for place, value in enumerate(sorted(known))}
    assert index.slots(np.array(asked, np.uint64)).tolist() == [places.get(value, -1) for value in asked]


def test_changes_all_over_a_large_snapshot(tmp_path: Path) -> None:
    """More candidates than are held at once, of many parts of the snapshot: each is compared with its own row."""
    known, new = 2 * PART_ROWS + 50_000, 1000
    snapshot = delivered(source(range(known)), tmp_path / "files")
    job = Job(MAPPING, snapshot, snapshot.index(), pl.DataFrame(schema=DUE_SCHEMA), 7)
    now = source(range(known + new), moved=3).sample(fraction=1, shuffle=True, seed=5)
    sifted = sift(now.iter_slices(50_000), job, tmp_path / "spool")
    changes = build(sifted, job, pl.DataFrame(schema={KEY: pl.String, KEY_HASH: pl.UInt64}), tmp_path / "outbox")
    moved = -(-known // 3)
    assert len(sifted.spool) > 2
    assert (changes.counts[Kind.CHANGED], changes.counts[Kind.ADDED]) == (moved, new)
    assert (changes.counts[Kind.UNCHANGED], changes.counts[Kind.INVALID]) == (known - moved, 0)
    assert changes.by_attribute == {"s": new, "n": moved + new}
    sent = [json.loads(text) for text in pl.read_parquet(tmp_path / "outbox", columns=[OPERATION])[OPERATION]]
    expected = {str(n): {"n": n + 1} for n in range(0, known, 3)} | {
        str(n): {"s": f"s{n % 7}", "n": n + (n % 3 == 0)} for n in range(known, known + new)
    }
    assert len(sent) == len(expected)
    assert {each["identifiers"]["custom_id"]: each["attributes"] for each in sent} == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_repeated_keys_are_found_wherever_they_stand(numbers: list[int], cuts: list[int]) -> None:
    """A key that comes again, in one record batch or in several, known or not, is repeated with all its rows."""
    with TemporaryDirectory() as folder:
        sifted = _sifted(numbers, cuts, Path(folder))
    repeated = {n for n in numbers if numbers.count(n) > 1}
    assert len(sifted.duplicates) == len(repeated)
    assert sifted.duplicate_rows == sum(numbers.count(n) for n in repeated)
    assert sifted.unchanged == len({n for n in numbers if n < 6} - repeated)
    assert int(sifted.seen.sum()) == len({n for n in numbers if n < 6})


def _sifted(numbers: list[int], cuts: list[int], folder: Path) -> Sifted:
    snapshot = delivered(source(range(6)), folder / "files")
    job = Job(MAPPING, snapshot, snapshot.index(), pl.DataFrame(schema=DUE_SCHEMA), 7)
    frame = pl.concat([source(range(0)), *(source(range(n, n + 1)) for n in numbers)])
    bounds = [0, *sorted(min(cut, len(numbers)) for cut in cuts), len(numbers)]
    return sift((frame[start:end] for start, end in pairwise(bounds)), job, folder / "spool")
