"""The hash recipe stands still, tells values apart, and does not care how rows arrive."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.hashing import (
    HASH,
    KEY_HASH,
    NULL,
    ROW_HASH,
    UNKNOWN,
    VERSION,
    fingerprints,
    hashed,
    row_hashes,
    self_test,
)
from connector.mapping import KEY, Attribute
from connector.rules import AttributeType
from connector.values import VALUE_DTYPE

SEED = 0x0123456789ABCDEF


def frame_of(columns: dict[str, tuple[AttributeType, list[Any]]]) -> tuple[pl.DataFrame, list[Attribute]]:
    rows = len(next(iter(columns.values()))[1])
    keys = pl.Series(KEY, [f"key{row}" for row in range(rows)])
    values = [pl.Series(name, values, dtype=VALUE_DTYPE[kind]) for name, (kind, values) in columns.items()]
    return pl.DataFrame([keys, *values]), [
        Attribute(name, kind, name, keep=False) for name, (kind, _) in columns.items()
    ]


def hashes(kind: AttributeType, values: list[Any], seed: int = SEED) -> list[int]:
    frame, attributes = frame_of({"x": (kind, values)})
    return hashed(frame, attributes, seed)[HASH + "x"].to_list()


GOLDEN: dict[AttributeType, dict[Any, int]] = {
    "string": {"": 422309460748211256, "a": 7707801555022505883, "é\U0001f600": 6269757373163898943},
    "url": {"http://a": 236579221747684451},
    "integer": {
        0: 6590478047899503227,
        1: 2552837783686225661,
        -1: 3383893306461590096,
        2**63 - 1: 13007108445271842797,
    },
    "float": {0.0: 7298806374924329482, 1.0: 18403850696657715303, 0.1: 4723290020610358926},
    "boolean": {True: 6197513416308944942, False: 4780071303253640086},
    "date": {
        datetime(1970, 1, 1, tzinfo=UTC): 4739443001257594419,
        datetime(2024, 5, 31, 22, 15, 0, 123000, tzinfo=UTC): 1335766817584554202,
    },
    "array": {("a",): 12343421062232698106, ("a", "b"): 18255200231799872607, ("b", "a"): 2298517513925256645},
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_vectors(kind: AttributeType) -> None:
    """Another Polars, platform or recipe that changes one hash would send everybody again: it fails here first."""
    values = [list(value) if kind == "array" else value for value in GOLDEN[kind]]
    assert hashes(kind, [*values, None]) == [*GOLDEN[kind].values(), NULL]


def test_golden_keys_and_rows() -> None:
    """The hashes of keys and of whole rows stand still too, and so does the version that names the recipe."""
    frame, attributes = frame_of({"s": ("string", ["a", None]), "i": ("integer", [1, 1])})
    found = hashed(frame.with_columns(pl.Series(KEY, ["0", "1"])), attributes, SEED)
    assert found[KEY_HASH].to_list() == [1705898622240070403, 11325332823054324125]
    assert found[ROW_HASH].to_list() == [5533293862379818643, 1505907064969100960]
    assert VERSION == 2


def test_golden_self_test() -> None:
    """The number that a snapshot is believed by, which SQLite's signed integers can hold."""
    assert [self_test(seed) for seed in (SEED, 0, 2**64 - 1)] == [
        8063423942148547061,
        1455356107339766370,
        8294798884596073233,
    ]
    assert max(self_test(seed) for seed in range(50)) < 2**63


def test_no_hash_is_null() -> None:
    """Every column is UInt64 without nulls; a null value hashes to NULL."""
    frame, attributes = frame_of({kind: (kind, [None, None]) for kind in VALUE_DTYPE})
    found = hashed(frame, attributes, SEED)
    assert set(found.dtypes) == {pl.UInt64()}
    assert sum(found.null_count().row(0)) == 0
    assert set(found.select(f"^{HASH}.*$").row(0)) == {NULL}


def test_values_avoid_the_reserved_hashes() -> None:
    """The integers whose mixing under this seed gives 0 and 1 hash to neither: no value is NULL or UNKNOWN."""
    assert hashes("integer", [-4005245185505268130, 6775451750520236940]) == [2, 3]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_only_null_is_null(values: list[int | None], seed: int) -> None:
    """Under any seed a hash is NULL where the value is null, and there only; UNKNOWN never."""
    found = hashes("integer", values, seed)
    assert [value == NULL for value in found] == [value is None for value in values]
    assert UNKNOWN not in found


def test_types_differ() -> None:
    """1, 1.0, true, '1', ['1'] and the first millisecond are six values."""
    first = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    values: list[tuple[AttributeType, Any]] = [
        ("integer", 1),
        ("float", 1.0),
        ("boolean", True),
        ("string", "1"),
        ("array", ["1"]),
        ("date", first),
        ("url", "1"),
    ]
    assert len({hashes(kind, [value])[0] for kind, value in values}) == len(values)


def test_array_items_keep_place_and_boundary() -> None:
    """Arrays that read alike when joined are different; so are orders and repetitions."""
    arrays = [
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
        ["c", "ab"],
        ["a", "b", "c"],
        ["a,b", "c"],
        ["a", "b,c"],
        ["a\x1fb"],
        ["a", "b"],
        ["a", "a"],
        ["a"],
        ["a", "b", "a"],
        ["a", "a", "b"],
        ["a\x00"],
        ["a", "\x00"],
        ['a","b'],
    ]
    assert len(set(hashes("array", arrays))) == len(arrays)


def test_arrays_beside_null_arrays() -> None:
    """A null array before, between or after others takes nothing from its neighbours."""
    alone = [hashes("array", [value])[0] for value in (["a", "b"], ["c"])]
    assert hashes("array", [None, ["a", "b"], None, None, ["c"], None]) == [0, alone[0], 0, 0, alone[1], 0]
    assert hashes("array", [None]) == [0]
    assert hashes("array", []) == []


def test_the_seed_matters() -> None:
    """Another state's hashes say nothing about this one's values."""
    for kind, values in GOLDEN.items():
        value = next(iter(values))
        given = [list(value) if kind == "array" else value]
        assert hashes(kind, given, SEED) != hashes(kind, given, SEED + 1)


VALUES = st.fixed_dictionaries(
    {
        "s": st.text(max_size=5) | st.none(),
        "f": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        "b": st.booleans() | st.none(),
        "a": st.lists(st.text(max_size=3), min_size=1, max_size=4) | st.none(),
    }
)
KINDS: dict[str, AttributeType] = {"s": "string", "f": "float", "b": "boolean", "a": "array"}


@settings(max_examples=15, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=12), st.data())
def test_hashes_do_not_depend_on_how_rows_arrive(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Record batches cut or ordered otherwise, columns in another order: the same hashes."""
    frame, attributes = frame_of({name: (kind, [row[name] for row in rows]) for name, kind in KINDS.items()})
    whole = hashed(frame, attributes, SEED)
    cut = data.draw(st.integers(0, frame.height))
    parts = [hashed(part, attributes, SEED) for part in (frame[:cut], frame[cut:]) if part.height]
    assert pl.concat(parts).equals(whole)
    assert hashed(pl.concat([frame[:cut], frame[cut:]], rechunk=False), attributes, SEED).equals(whole)
    order = data.draw(st.permutations(range(frame.height)))
    assert hashed(frame[order], attributes, SEED).equals(whole[order])
    turned = hashed(frame, attributes[::-1], SEED)
    assert turned.select(whole.columns).equals(whole)


def test_an_attribute_without_values_leaves_the_rows_as_they_were() -> None:
    """A newly mapped column that is null everywhere makes no row look changed; one value changes its row alone."""
    columns: dict[str, tuple[AttributeType, list[Any]]] = {"s": ("string", ["x", "y"]), "i": ("integer", [1, None])}
    before = hashed(*frame_of(columns), SEED)[ROW_HASH].to_list()
    assert hashed(*frame_of({"new": ("array", [None, None]), **columns}), SEED)[ROW_HASH].to_list() == before
    after = hashed(*frame_of({**columns, "new": ("boolean", [None, False])}), SEED)[ROW_HASH].to_list()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


def test_values_that_change_places_change_the_row() -> None:
    """A row hash knows which attribute has which value."""
    one = hashed(*frame_of({"a": ("string", ["x"]), "b": ("string", ["y"])}), SEED)
    two = hashed(*frame_of({"a": ("string", ["y"]), "b": ("string", ["x"])}), SEED)
    assert one[ROW_HASH].to_list() != two[ROW_HASH].to_list()
    keyed = one.select(pl.lit("key0").alias(KEY), HASH + "b", HASH + "a")
    assert row_hashes(keyed).to_list() == one[ROW_HASH].to_list()


def test_rows_of_two_keys_differ() -> None:
    """Where two keys have one key hash, equal values still do not make them one row."""
    frame, attributes = frame_of({"a": ("string", ["x", "x"])})
    one, two = hashed(frame, attributes, SEED)[ROW_HASH]
    assert one != two


@given(st.lists(st.sampled_from([[None], ["x"], ["x", "y", "z"], None]), min_size=1, max_size=8), st.data())
def test_fingerprints_are_those_hashes(arrays: list[Any], data: st.DataObject) -> None:
    """What a row is looked up by is what was stored of it."""
    numbers = data.draw(st.lists(st.none() | st.floats(), min_size=len(arrays), max_size=len(arrays)))
    frame, attributes = frame_of({"a": ("array", arrays), "f": ("float", numbers)})
    stored = hashed(frame, attributes, SEED)
    key_hashes, found = fingerprints(frame, attributes, SEED)
    assert (key_hashes.tolist(), found.tolist()) == (stored[KEY_HASH].to_list(), stored[ROW_HASH].to_list())
