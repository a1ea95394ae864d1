"""A source held against a snapshot that is too large for one look: lookups, repeated keys, parts."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.changes import Index, Kind
from connector.hashing import HASH, KEY_HASH, hashed
from connector.judging import apply
from connector.mapping import KEY, AttributeMapping, Column, resolve
from connector.payload import OPERATION
from connector.planning import COLLISION, build
from connector.probing import HELD_SHARE, PART_ROWS, Job, Sifted, sift
from connector.state import folding, snapshots
from connector.state.runs import DUE_SCHEMA
from connector.state.snapshots import AT, DELETED, Snapshot

TOP = 2**64 - 1
HASHES = st.integers(0, TOP) | st.integers(0, 40) | st.integers(TOP - 40, TOP) | st.integers(2**63 - 20, 2**63 + 20)
COLUMNS = {"s": AttributeMapping(column="s"), "n": AttributeMapping(column="n")}
MAPPING = resolve([Column("k", pl.String()), Column("s", pl.String()), Column("n", pl.Int64())], "k", COLUMNS)


NOTHING = Index(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


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


def test_the_ceiling_bounds_what_is_held_of_the_rows_that_differ(tmp_path: Path) -> None:
    """Candidates go to disk before they are more than their share of `memory`, but for the rows judged together."""
    job = Job(MAPPING, Snapshot(tmp_path, {}, 0), NOTHING, pl.DataFrame(schema=DUE_SCHEMA), 7)
    rows = source(range(400_000))
    whole, small = (
        sift(rows.iter_slices(50_000), replace(job, memory=held * HELD_SHARE), tmp_path / str(held)).spool
        for held in (10**9, 5 * 10**6)
    )
    assert len(whole) == 1 < len(small)
    assert all(pl.read_ipc(path).estimated_size() < 2 * 10**7 for path in small)  # of which 3 MB are one batch
    assert pl.concat(map(pl.read_ipc, small)).equals(pl.read_ipc(whole[0]))


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


def test_two_people_with_one_key_hash_are_not_mixed(tmp_path: Path) -> None:
    """Somebody new whose key hash is that of a delivered profile with the same values is told, never taken for it."""
    snapshot = delivered(source(range(1)), tmp_path / "files")
    stranger = source(range(7, 8)).with_columns(pl.lit(0, pl.Int64).alias("n"))
    key_hashes = hashed(apply(MAPPING, stranger).valid, MAPPING.attributes, 7)[KEY_HASH].to_numpy()
    index = replace(snapshot.index(), key_hashes=key_hashes)
    job = Job(MAPPING, snapshot, index, pl.DataFrame(schema=DUE_SCHEMA), 7)
    sifted = sift([stranger], job, tmp_path / "spool")
    changes = build(sifted, job, pl.DataFrame(schema={KEY: pl.String, KEY_HASH: pl.UInt64}), tmp_path / "outbox")
    assert (sifted.unchanged, changes.planned, changes.counts[Kind.INVALID]) == (0, 0, 1)
    assert changes.rejected.rows() == [("7", None, COLLISION)]


def test_a_value_that_is_lost_is_told_where_none_was_delivered(tmp_path: Path) -> None:
    """A bad value becomes null, which is what Batch has: the row is not dropped, its value is listed."""
    columns = [Column("k", pl.String()), Column("n", pl.String())]
    mapping = resolve(columns, "k", {"n": AttributeMapping(column="n", type="integer")})
    frame = pl.DataFrame({"k": ["1", "2"], "n": ["", "4"]})
    valid = apply(mapping, frame).valid
    hashes = hashed(valid, mapping.attributes, 7).select(KEY_HASH, f"^{HASH}.*$")
    rows = valid.select(KEY).hstack(hashes).with_columns(pl.lit(value=False).alias(DELETED), pl.lit(0).alias(AT))
    file = snapshots.write(Snapshot(tmp_path / "files", {}, 0), [rows])
    snapshot = Snapshot(tmp_path / "files", {"files": [file]}, 1)
    job = Job(mapping, snapshot, snapshot.index(), pl.DataFrame(schema=DUE_SCHEMA), 7)
    assert sift([frame], job, tmp_path / "spool").unchanged == 2
    sifted = sift([frame.with_columns(pl.Series("n", ["four", "4"]))], job, tmp_path / "spool")
    assert (sifted.unchanged, sifted.rejected.rows()) == (1, [("1", "n", "not a whole number of 64 bits")])


NUMBERS = st.sets(st.integers(0, 30), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.booleans()), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_an_index_in_a_file_says_what_the_files_say(commits: list[Any], random: Any) -> None:
    """After commits of new, changed and removed rows, an index written at any of them, each row is found as it is."""
    with TemporaryDirectory() as folder:
        snapshot = Snapshot(Path(folder), {}, 0)
        for round_, (there, gone, written) in enumerate(commits):
            rows = [hashes_of(there, round_, deleted=False), hashes_of(gone - there, round_, deleted=True)]
            if file := snapshots.write(snapshot, rows):
                snapshot = replace(snapshot, manifest={**snapshot.manifest, "files": [*snapshot.files, file]})
            if written:
                snapshot = folding.indexed(snapshot, rows_min=1)
        plain = replace(snapshot, manifest={"files": snapshot.files}).index()
        index = snapshot.index()
        found = (index.key_hashes, index.row_hashes, index.positions)
        assert [array.tolist() for array in found] == [
            array.tolist() for array in (plain.key_hashes, plain.row_hashes, plain.positions)
        ]
        assert set(snapshot.rows(index.positions, [])[KEY]) == alive(commits)


def hashes_of(numbers: set[int], round_: int, *, deleted: bool) -> pl.DataFrame:
    frame = source(range(40)).filter(pl.col("n").is_in(list(numbers))).with_columns(pl.col("n") + round_)
    valid = apply(MAPPING, frame).valid
    hashes = hashed(valid, MAPPING.attributes, 7).select(KEY_HASH, f"^{HASH}.*$")
    return valid.select(KEY).hstack(hashes).with_columns(pl.lit(deleted).alias(DELETED), pl.lit(0).alias(AT))


def alive(commits: list[Any]) -> set[str]:
    found: set[int] = set()
    for there, gone, _ in commits:
        found = (found - gone) | there
    return {str(number) for number in found}


def test_an_index_of_other_files_is_not_used(tmp_path: Path) -> None:
    """A manifest whose files are not those that its index was made of has its index built anew."""
    snapshot = folding.indexed(delivered(source(range(50)), tmp_path), rows_min=1)
    other = delivered(source(range(50, 60)), tmp_path)
    mixed = replace(snapshot, manifest={**snapshot.manifest, "files": other.files})
    assert snapshot.in_index == 1
    assert mixed.in_index == 0
    assert mixed.rows(mixed.index().positions, [])[KEY].sort().to_list() == [str(n) for n in range(50, 60)]
