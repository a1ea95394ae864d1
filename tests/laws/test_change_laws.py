"""Laws of the diff, held by the real functions against a real snapshot on disk and a model of what Batch holds."""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from connector.changes import PLANNED, Kind
from connector.state import folding
from connector.state.snapshots import Snapshot
from tests.laws.ceilings import lowered
from tests.laws.stores import NAMES, Profiles, Row, due_frame, few, store


def meant(row: Row) -> Row:
    """What Batch should hold of a row: its values, nulls and what counts as null left out."""
    return {name: row[name] for name in NAMES if row[name] not in (None, "", [])}


def profiles_of(rows: list[Row]) -> Profiles:
    return {row["k"]: meant(row) for row in rows}


VALUES = {
    "s": st.none() | st.sampled_from(["", "x", "y", 'q"']),
    "i": st.none() | st.integers(0, 2),
    "f": st.none() | st.sampled_from([0.0, -0.0, 0.1, 0.1 + 0.2, 0.3]),
    "a": st.none() | st.sampled_from([[], ["x"], ["x", "y"], ["y", "x"]]),
}
ROW = st.fixed_dictionaries({"k": st.sampled_from([f"k{number}" for number in range(9)]), **VALUES})
BAD = {"s": " ", "f": float("nan"), "a": ["x", None]}
FAULTY = st.builds(
    lambda row, bad: {**row, **{name: BAD[name] for name in bad}},
    ROW,
    st.sets(st.sampled_from(sorted(BAD)), max_size=3),
)
UNIQUE = st.lists(ROW, max_size=8, unique_by=lambda row: str(row["k"]))
ANY = st.lists(
    FAULTY | st.builds(lambda row, key: {**row, "k": key}, ROW, st.sampled_from([None, "", "null", "a\nb"])),
    max_size=14,
)
CUTS = st.lists(st.integers(0, 14), max_size=3).map(tuple)


@few
@given(UNIQUE, CUTS, st.randoms(use_true_random=False))
def test_nothing_changed_sends_nothing(rows: list[Row], cuts: tuple[int, ...], random: Any) -> None:
    """A source equal to what was delivered plans no row, in whatever order and pieces it is read."""
    with store(rows) as delivered:
        again = random.sample(rows, len(rows))
        planned = delivered.plan(again, cuts=cuts, remove=True)
        assert planned.changes.planned == 0
        assert planned.count(Kind.UNCHANGED) == len(rows)


@few
@given(st.lists(UNIQUE, min_size=2, max_size=4), CUTS)
def test_delivering_the_difference_gives_the_source(sources: list[list[Row]], cuts: tuple[int, ...]) -> None:
    """Source after source, Batch holds exactly the last one, and only differences were sent."""
    with store() as delivered:
        for rows in sources:
            before, expected = deepcopy(delivered.profiles), profiles_of(rows)
            planned = delivered.plan(rows, cuts=cuts, remove=True)
            delivered.deliver(planned)
            assert {key: held for key, held in delivered.profiles.items() if held} == {
                key: held for key, held in expected.items() if held
            }
            for key, attributes in planned.sent.items():
                if planned.keys[key] == Kind.CHANGED:
                    changed = {name for name in NAMES if before[key].get(name) != expected[key].get(name)}
                    assert attributes.keys() == changed


@few
@given(UNIQUE, UNIQUE)
def test_changed_attributes_are_those_whose_values_differ(old: list[Row], new: list[Row]) -> None:
    """Value by value: known rows send exactly what differs, new rows everything, and the counts by attribute add up."""
    with store(old) as delivered:
        planned = delivered.plan(new)
    before, after = ({row["k"]: row for row in rows} for rows in (old, new))
    expected = {
        key: {name for name in NAMES if key not in before or meant(row).get(name) != meant(before[key]).get(name)}
        for key, row in after.items()
    }
    assert {key: set(sent) for key, sent in planned.sent.items()} == {
        key: names for key, names in expected.items() if names
    }
    assert planned.changes.by_attribute == {name: sum(name in names for names in expected.values()) for name in NAMES}
    assert planned.count(Kind.ADDED) == len(after.keys() - before.keys())


@few
@given(UNIQUE, ANY, CUTS, CUTS, st.randoms(use_true_random=False))
def test_order_and_pieces_do_not_matter(old: list[Row], new: list[Row], one: Any, two: Any, random: Any) -> None:
    """The same rows in another order, other record batches, and files of a row or two give the same operations and counts."""
    with store(old) as delivered:
        first = delivered.plan(new, cuts=one, remove=True)
        with lowered(random):
            second = delivered.plan(random.sample(new, len(new)), cuts=two, remove=True)
    assert first.sent == second.sent
    assert first.keys == second.keys
    assert (first.changes.counts, first.changes.faulty) == (second.changes.counts, second.changes.faulty)
    rejects = [Counter(planned.changes.rejected.rows()) for planned in (first, second)]
    assert rejects[0] == rejects[1]


@few
@given(
    UNIQUE,
    ANY,
    CUTS,
    st.none() | st.integers(0, 5),
    st.booleans(),
    st.sets(st.integers(0, 8), max_size=3),
    st.booleans(),
)
def test_every_row_read_is_counted_once(  # noqa: PLR0917
    old: list[Row], new: list[Row], cuts: Any, limit: int | None, resend: bool, due: set[int], keep: bool
) -> None:
    """Read = unchanged + added + changed + retried + invalid + skipped, always; and rows with a fault are rows."""
    with store(old) as delivered:
        again = due_frame(*(f"k{number}" for number in due))
        planned = delivered.plan(new, cuts=cuts, limit=limit, resend=resend, due=again, keep=keep, remove=True)
    counts, changes = planned.changes.counts, planned.changes
    assert (
        planned.read == len(new) == changes.skipped + sum(n for kind, n in counts.items() if kind is not Kind.REMOVED)
    )
    assert changes.planned == sum(counts[kind] for kind in PLANNED) + counts[Kind.REMOVED] == planned.frame.height
    assert counts[Kind.INVALID] <= changes.faulty <= planned.read
    assert len(changes.sample) <= 10
    assert set(changes.sample) <= set(planned.keys)


@few
@given(UNIQUE, ANY, CUTS)
def test_repeated_keys_are_rejected_wherever_they_stand(old: list[Row], new: list[Row], cuts: Any) -> None:
    """A key that stands twice sends nothing, is listed once, and stays; also where both rows equal the snapshot."""
    source = new + [row for row in old if row["k"] in ("k0", "k1")] * 2
    with store(old) as delivered:
        planned = delivered.plan(source, cuts=cuts)
    keys = Counter(row["k"] for row in source if row["k"] not in (None, "", "null", "a\nb"))
    repeated = {key for key, times in keys.items() if times > 1}
    assert repeated.isdisjoint(planned.sent)
    whole = planned.changes.rejected.filter(pl.col("attribute").is_null() & pl.col("key").is_in(list(keys)))
    assert sorted(whole["key"]) == sorted(repeated)
    assert whole["reason"].str.contains("more than once").all()


@few
@given(UNIQUE, UNIQUE, CUTS)
def test_removed_rows_are_those_that_left(old: list[Row], new: list[Row], cuts: Any) -> None:
    """Rows of the snapshot that the source no longer has are cleared in every attribute, once; they can come back."""
    left = {row["k"] for row in old} - {row["k"] for row in new}
    with store(old) as delivered:
        planned = delivered.plan(new, cuts=cuts, remove=True)
        assert {key for key, kind in planned.keys.items() if kind == Kind.REMOVED} == left
        assert all(planned.sent[key] == dict.fromkeys(NAMES) for key in left)
        delivered.deliver(planned)
        assert delivered.plan(new, remove=True).changes.planned == 0
        back = delivered.plan(old)
        assert {key for key, kind in back.keys.items() if kind == Kind.ADDED} == left


@few
@given(UNIQUE, UNIQUE, st.integers(0, 6), CUTS)
def test_a_limit_is_never_exceeded_and_nothing_is_lost_by_it(
    old: list[Row], new: list[Row], limit: int, cuts: Any
) -> None:
    """At most `limit` rows are planned, the rest are skipped, and runs with a limit get there in the end."""
    with store(old) as delivered:
        everything = delivered.plan(new).changes.planned
        limited = delivered.plan(new, cuts=cuts, limit=limit)
        assert limited.changes.planned == min(limit, everything)
        assert limited.changes.skipped == everything - limited.changes.planned
        for _ in range(len(new) + 1):
            delivered.deliver(delivered.plan(new, limit=max(limit, 1)))
        assert {row["k"]: delivered.profiles.get(row["k"], {}) for row in new} == profiles_of(new)


@few
@given(UNIQUE, st.sampled_from(NAMES))
def test_a_newly_mapped_column_sends_itself_alone(rows: list[Row], name: str) -> None:
    """Mapping one more column sends its values where there are any, and nothing else of anybody."""
    with store() as delivered:
        delivered.deliver(delivered.plan(rows, names=[other for other in NAMES if other != name]))
        planned = delivered.plan(rows)
    assert planned.sent == {row["k"]: {name: meant(row)[name]} for row in rows if name in meant(row)}


@few
@given(UNIQUE, st.sampled_from(NAMES))
def test_a_column_no_longer_mapped_sends_nothing(rows: list[Row], name: str) -> None:
    """Mapping one column less leaves Batch as it is."""
    with store(rows) as delivered:
        assert delivered.plan(rows, names=[other for other in NAMES if other != name]).changes.planned == 0


@few
@given(UNIQUE, UNIQUE)
def test_kept_nulls_stay_at_batch(old: list[Row], new: list[Row]) -> None:
    """`on_null: keep` never sends null, and a value that comes back after a null is not sent again."""
    with store() as delivered:
        delivered.deliver(delivered.plan(old, keep=True))
        planned = delivered.plan(new, keep=True)
        assert all(value is not None for sent in planned.sent.values() for value in sent.values())
        delivered.deliver(planned)
        assert delivered.plan(old, keep=True).sent == {
            key: differing
            for key, values in profiles_of(old).items()
            if (
                differing := {
                    name: value for name, value in values.items() if delivered.profiles[key].get(name) != value
                }
            )
        }
        assert delivered.plan(new, keep=True).changes.planned == 0


@few
@given(UNIQUE, st.lists(FAULTY, max_size=8, unique_by=lambda row: row["k"]))
def test_withheld_values_are_not_sent_and_take_nothing_with_them(old: list[Row], new: list[Row]) -> None:
    """A bad value stays back, the rest of its row arrives, and the corrected value goes alone."""
    mended = {"s": "mended", "f": 2.5, "a": ["mended"]}

    def is_bad(row: Row, name: str) -> bool:
        return name in BAD and str(row[name]) == str(BAD[name])

    with store(old) as delivered:
        before = deepcopy(delivered.profiles)
        planned = delivered.plan(new)
        delivered.deliver(planned)
        for row in new:
            for name in NAMES:
                expected = before.get(row["k"], {}).get(name) if is_bad(row, name) else meant(row).get(name)
                assert delivered.profiles.get(row["k"], {}).get(name) == expected
        correct = [{name: mended[name] if is_bad(row, name) else value for name, value in row.items()} for row in new]
        delivered.deliver(after := delivered.plan(correct))
        assert {key: held for key, held in delivered.profiles.items() if key in profiles_of(new)} == profiles_of(
            correct
        )
        for row in new:
            names = {name for name in NAMES if is_bad(row, name)}
            if len(names) < len(NAMES) and row["k"] in planned.sent:
                assert set(after.sent.get(row["k"], {})) == names


@few
@given(UNIQUE, st.sets(st.integers(0, 8)), st.booleans())
def test_rows_due_again_go_whole_and_others_do_not(rows: list[Row], due: set[int], changed: bool) -> None:
    """A key whose outcome is unknown goes whole though nothing changed; its neighbours stay."""
    keys = {f"k{number}" for number in due}
    with store(rows) as delivered:
        planned = delivered.plan(rows, due=due_frame(*keys))
        once = delivered.plan(rows, due=due_frame(*keys, whole=False))
    known = {row["k"] for row in rows}
    assert {key: set(sent) for key, sent in planned.sent.items()} == {key: set(NAMES) for key in keys & known}
    assert once.changes.planned == 0


@few
@given(UNIQUE, UNIQUE)
def test_resend_sends_every_row_whole(old: list[Row], new: list[Row]) -> None:
    """Told to send everything, each row goes with every attribute, nulls too; unchanged ones count as retried."""
    with store(old) as delivered:
        planned = delivered.plan(new, resend=True)
    assert {key: set(sent) for key, sent in planned.sent.items()} == {row["k"]: set(NAMES) for row in new}
    same = profiles_of(old)
    assert planned.count(Kind.RETRIED) == sum(same.get(row["k"]) == meant(row) for row in new)


@few
@given(UNIQUE, UNIQUE, st.sets(st.integers(0, 8)))
def test_only_accepted_rows_move_the_snapshot(old: list[Row], new: list[Row], lost: set[int]) -> None:
    """What Batch did not take is planned again, the very same; what it took is not."""
    refused = {f"k{number}" for number in lost}
    with store(old) as delivered:
        planned = delivered.plan(new, remove=True)
        delivered.deliver(planned, accepted=lambda key: key not in refused)
        again = delivered.plan(new, remove=True)
    assert again.sent == {key: sent for key, sent in planned.sent.items() if key in refused}


@few
@given(st.lists(UNIQUE, min_size=2, max_size=5))
def test_folding_changes_nothing(sources: list[list[Row]]) -> None:
    """A snapshot of many files, folded into one or from any of them on, answers every question as before."""
    with store() as delivered:
        for rows in sources:
            delivered.deliver(delivered.plan(rows, remove=True))
        before = known(delivered.snapshot)
        for since in range(len(delivered.snapshot.files)):
            fewer = folding.folded(delivered.snapshot, NAMES, since=since)
            assert len(fewer.files) <= since + 1
            assert known(fewer) == before
    assert set(before) == {row["k"] for row in sources[-1]}


def known(snapshot: Snapshot) -> Mapping[str, tuple[int, ...]]:
    index = snapshot.index()
    rows = snapshot.rows(index.positions, NAMES)
    return {
        key: (int(row_hash), *hashes) for (key, *hashes), row_hash in zip(rows.rows(), index.row_hashes, strict=True)
    }
