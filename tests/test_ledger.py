"""The ledger of events: what was handled is known until it is forgotten, and what is forgotten is not sent again."""

import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connector.errors import StateError
from connector.hashing import HI, LO
from connector.state import ledger, snapshots
from connector.state.database import State, open_state
from connector.state.ids import mapped
from connector.state.ledger import FILES_A_DAY, KEPT_DAYS, LISTED_DAYS, LISTED_SCHEMA, TIME, Ledger
from tests.states import Home

Event = tuple[int, int, int | None]

DAY = 86_400
HOUR = 3_600_000  # in ms
NOW = 20_000.5 * DAY
SCHEMA = {HI: pl.UInt64, LO: pl.UInt64, TIME: pl.Int64}
LAST = 2**64 - 1
NOTHING_LISTED = pl.DataFrame(schema=LISTED_SCHEMA)

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "40"))
"""Of each law; every run draws others, so a soak is LAW_EXAMPLES=2000."""

few = settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@pytest.fixture
def state(home: Home) -> Iterator[State]:
    with home.opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """One state for all examples of the laws, each of which has a sync of its own."""
    with open_state(tmp_path_factory.mktemp("shared") / "state", "project") as opened:
        yield opened


def frame(events: Iterable[Event]) -> pl.DataFrame:
    return pl.DataFrame(list(events), schema=SCHEMA, orient="row")


def ms(at: float) -> int:
    return int(at * 1000)


def store(state: State, after: Ledger) -> Ledger:
    """The ledger once it is the current one, loaded anew."""
    sync = after.folder.name
    with state.write() as connection:
        snapshots.store(connection, sync, after.manifest, after.generation)
    return ledger.load(state, sync)


def handle(
    state: State, events: Iterable[Event], at: float = NOW, listed: pl.DataFrame = NOTHING_LISTED, sync: str = "orders"
) -> Ledger:
    """The ledger after a run handled these events."""
    before = ledger.load(state, sync)
    return store(state, ledger.moved(before, ledger.write(before, [frame(events)]), listed, at, {}))


def sent(book: Ledger, events: Iterable[Event]) -> list[bool]:
    return book.sent(frame(events)).to_list()


def held_ids(book: Ledger) -> set[tuple[int, int]]:
    """The ids in the ledger's files; in each they ascend, so that none is there twice."""
    held = set()
    for file in book.files:
        ids = [
            pair
            for part in mapped(book.folder / file["name"])
            for pair in zip(*map(np.ndarray.tolist, part), strict=True)
        ]
        assert all(one < other for one, other in pairwise(ids))
        assert len(ids) == file["rows"]
        held.update(ids)
    return held


def listed_rows(*rows: dict[str, Any]) -> pl.DataFrame:
    plain = {
        HI: 1, LO: 2, "key": "anna", "id": "o-1", "attribute": "", "reason": "too late", "source": "invalid", "state": "",
        "time": ms(NOW), "attempts": 1, "first_seen": NOW, "last_seen": NOW,
    }  # fmt: skip
    return pl.DataFrame([{**plain, **row} for row in rows], schema=LISTED_SCHEMA)


halves = st.sampled_from([0, 1, 2, 2**63, LAST - 1, LAST])
numbers = st.tuples(halves, halves | st.integers(0, LAST))
ages = st.integers(0, 40) | st.none()


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[float, list[tuple[int, int, int | None]]]]:
    """Days since the run before, and what was handled: id, and how many hours before it happened."""
    event = st.tuples(halves, halves | st.integers(0, LAST), ages)
    pause = st.sampled_from([0.0, 0.0, 0.01, 0.01, 0.3, 1.0, 45.0, KEPT_DAYS + 0.1])
    return draw(st.lists(st.tuples(pause, st.lists(event, max_size=12)), max_size=24))


@few
@given(story=runs(), strangers=st.lists(numbers, max_size=20))
def test_a_ledger_is_a_set_that_forgets_by_age(shared: State, story: list[Any], strangers: list[Any]) -> None:
    """After any runs, folds and pruning: all that was handled is known, nothing else is, and only the old is let go."""
    now, sync = NOW, uuid.uuid4().hex
    handled: list[tuple[float, Event]] = []
    book = ledger.load(shared, sync)
    for pause, events in story:
        now += pause * DAY
        dated = [(hi, lo, None if hours is None else ms(now) - hours * HOUR) for hi, lo, hours in events]
        book = handle(shared, dated, now, sync=sync)
        handled += [(now, event) for event in dated]
    check_memory(book, handled, now)
    assert all(sent(book, [event for _, event in handled if event[2] is not None]))
    known = {event[:2] for _, event in handled}
    times = [(*pair, ms(now) - hours * HOUR) for pair in strangers if pair not in known for hours in (0, 30, 5000)]
    assert sent(book, times) == [book.forgotten is not None and time <= book.forgotten for _, _, time in times]


def check_memory(book: Ledger, handled: list[tuple[float, Event]], now: float) -> None:
    """What is young is in the files, what is old is not, and the latest time of the old is noted."""
    # A file of several runs goes when its newest is old; it never spans more than a day.
    kept = [event for at, event in handled if at >= now - KEPT_DAYS * DAY]
    # An event without a time could not be told from a forgotten one: its file stays, with what it was folded with.
    undated = {at // DAY for at, event in handled if event[2] is None}
    at_most = [event for at, event in handled if at >= now - (KEPT_DAYS + 1) * DAY or at // DAY in undated]
    assert {event[:2] for event in kept} <= held_ids(book) <= {event[:2] for event in at_most}
    assert all(sent(book, kept))
    gone = [event[2] for at, event in handled if at < now - KEPT_DAYS * DAY and event[2] is not None]
    at_least = [
        event[2]
        for at, event in handled
        if at < now - (KEPT_DAYS + 1) * DAY and event[2] is not None and at // DAY not in undated
    ]
    never = -(2**63)
    forgotten = never if book.forgotten is None else book.forgotten
    assert max(at_least, default=never) <= forgotten <= max(gone, default=never)


@few
@given(
    inside=st.lists(numbers, min_size=1, max_size=60), outside=st.lists(numbers, max_size=60), frames=st.integers(1, 5)
)
def test_ids_are_told_apart_by_both_halves(shared: State, inside: list[Any], outside: list[Any], frames: int) -> None:
    """Ids that share their upper half, in any order and more than once: those that were written are found, no others."""
    events = [(*pair, 7) for pair in inside]
    book = ledger.nothing(shared, uuid.uuid4().hex)
    entry = ledger.write(book, [frame(events[number::frames]) for number in range(frames)])
    book = ledger.moved(book, entry, NOTHING_LISTED, NOW, {})
    assert held_ids(book) == set(inside)
    assert sent(book, [(*pair, 7) for pair in (*outside, *inside)]) == [pair in inside for pair in (*outside, *inside)]


def test_a_long_run_of_one_upper_half(state: State) -> None:
    """Five thousand ids with one upper half are each found, and their neighbours are not."""
    book = handle(state, [(9, lo * 2, 0) for lo in range(5000)])
    assert all(sent(book, [(9, lo * 2, 0) for lo in range(5000)]))
    assert not any(sent(book, [(9, lo * 2 + 1, 0) for lo in range(5000)] + [(8, 0, 0), (10, 0, 0), (9, LAST, 0)]))


def test_a_file_of_several_parts(state: State) -> None:
    """A million ids, with the smallest and the largest, written and folded in parts: each found, no stranger."""
    chance = np.random.default_rng(5)
    rows = pl.DataFrame({
        HI: np.append(chance.integers(0, LAST, 1_200_000, dtype=np.uint64), np.array([0, LAST], np.uint64)),
        LO: chance.integers(0, LAST, 1_200_002, dtype=np.uint64),
        TIME: np.zeros(1_200_002, np.int64),
    })  # fmt: skip
    book = ledger.load(state, "orders")
    entries = [ledger.write(book, [rows[first::9][:80_000], rows[first::9][80_000:]]) for first in range(9)]
    for entry in entries:
        book = ledger.moved(book, entry, NOTHING_LISTED, NOW, {})
    (file,) = book.files
    parts = mapped(book.folder / file["name"])
    assert len(parts) == 2
    assert max(len(part.hi) for part in parts) < 700_000
    assert all(one.hi[-1] < other.hi[0] for one, other in pairwise(parts))
    assert file["rows"] == rows.height
    assert book.sent(rows).all()
    assert not book.sent(rows.with_columns(pl.col(LO) ^ pl.lit(1, pl.UInt64))).any()


def test_answers_stand_in_the_order_of_the_rows(state: State) -> None:
    """One answer a row, in place, for rows in any order, with doubles, and for none."""
    book = handle(state, [(5, 5, 0), (1, 1, 0)])
    assert sent(book, [(9, 9, 0), (5, 5, 0), (1, 1, 0), (3, 3, 0), (5, 5, 0)]) == [False, True, True, False, True]
    assert book.sent(frame([])).dtype == pl.Boolean
    assert sent(book, []) == []


def test_only_files_that_can_hold_the_times_are_opened(state: State) -> None:
    """A run of today neither reads nor checks the files of other days: one of them may even be damaged."""
    today, before = ms(NOW), ms(NOW - 40 * DAY)
    handle(state, [(1, 1, before)], NOW - 40 * DAY)
    book = handle(state, [(2, 2, today)])
    path = book.folder / book.files[0]["name"]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert sent(book, [(2, 2, today), (1, 1, today)]) == [True, False]
    for event in ((1, 1, before), (1, 1, None)):
        with pytest.raises(StateError, match="altered"):
            sent(book, [event])


def test_events_without_a_time_are_known_too(state: State) -> None:
    """An id whose time is unknown, now or then, is looked for in all files that can hold it."""
    handle(state, [(1, 1, None)])
    book = ledger.load(state, "orders")
    entry = ledger.write(book, [frame([(3, 3, None)]), frame([(2, 2, 5)])])
    book = ledger.moved(book, entry, NOTHING_LISTED, NOW, {})
    assert sent(book, [(1, 1, None), (1, 1, 5), (3, 3, None), (2, 2, None), (4, 4, None)]) == [True] * 4 + [False]
    assert sent(book, [(3, 3, 900), (4, 4, 900)]) == [True, False]


def test_what_is_forgotten_counts_as_sent(state: State) -> None:
    """Ids are let go 90 days after they were sent; an event as old as the latest of them is not sent again."""
    first = ms(NOW)
    handle(state, [(1, 1, first), (2, 2, first - 5)])
    book = handle(state, [], NOW + KEPT_DAYS * DAY)
    assert (book.forgotten, len(book.files)) == (None, 1)
    book = handle(state, [(4, 4, first + 9)], NOW + KEPT_DAYS * DAY + 1)
    assert book.forgotten == first
    assert held_ids(book) == {(4, 4)}
    assert sent(book, [(1, 1, first), (7, 7, first), (7, 7, first + 1), (7, 7, None)]) == [True, True, False, False]
    book = handle(state, [], NOW + 3 * KEPT_DAYS * DAY)
    assert (book.forgotten, book.files) == (first + 9, [])
    assert handle(state, []).forgotten == first + 9


def test_event_without_a_time_is_never_forgotten(state: State) -> None:
    """Nothing could tell it from a new one once its id was gone, so its file stays."""
    handle(state, [(1, 1, ms(NOW)), (3, 3, None)])
    book = handle(state, [(4, 4, ms(NOW))], NOW + 3 * KEPT_DAYS * DAY)
    assert sent(book, [(3, 3, None), (1, 1, ms(NOW)), (5, 5, None)]) == [True, True, False]


def test_corrected_time_does_not_make_a_sent_event_new(state: State) -> None:
    """In the first days after it was sent an event is known by its id, whatever its time says by now."""
    handle(state, [(1, 1, ms(NOW))])
    book = handle(state, [(2, 2, ms(NOW) + 5 * HOUR)], NOW + 2 * DAY)
    assert sent(book, [(1, 1, ms(NOW) + 30 * HOUR), (1, 1, None), (3, 3, ms(NOW))]) == [True, True, False]


def test_files_of_a_day_stay_few_and_ids_are_seldom_copied(state: State) -> None:
    """Of a hundred runs a day at most eight files are left, each id having been copied less than four times."""
    book = ledger.load(state, "orders")
    names: set[str] = set()
    copied = 0
    for run in range(100):
        book = ledger.moved(book, ledger.write(book, [frame([(run, 0, run)])]), NOTHING_LISTED, NOW + run, {})
        copied += sum(file["rows"] for file in book.files if file["name"] not in names and file["rows"] > 1)
        names = {file["name"] for file in book.files}
        assert len(book.files) <= FILES_A_DAY
    assert held_ids(book) == {(run, 0) for run in range(100)}
    assert copied < 4 * 100
    assert max(file["at"] for file in book.files) == NOW + 99
    book = ledger.moved(book, ledger.write(book, [frame([(1, 1, 1)])]), NOTHING_LISTED, NOW + DAY, {})
    assert book.files[-1]["rows"] == 1  # days are not folded together: each is forgotten in its time


@pytest.mark.parametrize("undated", [True, False])
def test_a_folded_file_stands_for_all_its_files(state: State, undated: bool) -> None:
    """It has the first and last time of any, was sent with the newest, and has events without a time if one had."""
    book = ledger.load(state, "orders")
    for number in range(FILES_A_DAY + 1):
        events = [(number, 0, ms(NOW) + number), (number, 1, None if undated and number == 3 else ms(NOW) - number)]
        book = handle(state, events, NOW + number)
    (file,) = book.files
    assert {name: file[name] for name in ("rows", "first", "last", "undated", "at")} == {
        "rows": 18, "first": ms(NOW) - 8, "last": ms(NOW) + 8, "undated": undated, "at": NOW + 8,
    }  # fmt: skip


def test_any_flipped_bit_is_found(state: State) -> None:
    """A flipped bit, a cut, an added byte: the file is not believed, neither to answer nor to be folded."""
    book = handle(state, [(number, number, 0) for number in range(2)])
    path = book.folder / book.files[0]["name"]
    whole = path.read_bytes()
    flips = [(at, 1 << at % 8) for at in range(0, len(whole), len(whole) // 40)]
    damaged = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at, bit in flips]
    for content in [*damaged, b"", whole[:-1], whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(
            StateError, match=r"sync 'orders': the ledger file .* was altered: its checksum differs"
        ) as caught:
            sent(ledger.load(state, "orders"), [(1, 1, 0)])
        assert caught.value.remedy == "restore the state folder from a backup"
    for number in range(FILES_A_DAY - 1):
        handle(state, [(number, 1, 0)])
    with pytest.raises(StateError, match="altered"):
        handle(state, [(99, 1, 0)])
    path.write_bytes(whole)
    assert all(sent(ledger.load(state, "orders"), [(1, 1, 0), (6, 1, 0)]))


def test_a_checksum_is_compared_once(state: State) -> None:
    """A ledger that has believed a file does not read it whole for every look-up; one that is loaded anew does."""
    book = handle(state, [(1, 1, 0)])
    assert sent(book, [(1, 1, 0)]) == [True]
    path = book.folder / book.files[0]["name"]
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    assert book.checked == {path.name}
    book.checked_path(book.files[0])
    with pytest.raises(StateError, match="altered"):
        sent(ledger.load(state, "orders"), [(1, 1, 0)])


@pytest.mark.parametrize("which", ["ids", "listed"])
def test_a_missing_file_is_refused(state: State, which: str) -> None:
    """A ledger with a hole is not loaded: what stood there would be sent twice."""
    book = handle(state, [(1, 1, 0)], listed=listed_rows({}))
    name = book.files[0]["name"] if which == "ids" else book.manifest["listed"]["name"]
    (book.folder / name).unlink()
    with pytest.raises(StateError, match=f"sync 'orders': the ledger file '.*{name}' is missing; restore"):
        ledger.load(state, "orders")


def test_until_it_is_stored_the_generation_before_is_whole(state: State) -> None:
    """A run killed before its transaction leaves all as it was, folded and pruned files too; its own go by a sweep."""
    handle(state, [(100, 0, 0)], NOW - KEPT_DAYS * DAY - 1)
    before = ledger.load(state, "orders")
    for number in range(FILES_A_DAY):
        before = handle(state, [(number, 0, ms(NOW))], NOW - 2, listed=listed_rows({}))
    was = before.manifest
    files = {path.name for path in before.folder.iterdir()}
    os.utime(before.folder / before.files[0]["name"], (0, 0))
    lost = ledger.moved(before, ledger.write(before, [frame([(50, 0, ms(NOW))])]), listed_rows({"id": "o-2"}), NOW, {})
    assert (len(before.files), len(lost.files)) == (1 + FILES_A_DAY, 1)
    assert (before.forgotten, lost.forgotten) == (None, 0)
    again = ledger.load(state, "orders")
    assert (again.manifest, again.generation) == (was, before.generation)
    assert sent(again, [(number, 0, ms(NOW)) for number in (*range(FILES_A_DAY), 50)]) == [True] * FILES_A_DAY + [False]
    ledger.sweep(lost)  # as the next run would, had it been stored: readers of the generation before still have an hour
    assert files <= {path.name for path in before.folder.iterdir()}
    for path in before.folder.iterdir():
        os.utime(path, (0, 0))
    ledger.sweep(again)
    assert {path.name for path in before.folder.iterdir()} == {file["name"] for file in (*again.files, was["listed"])}
    assert again.listed()["id"].to_list() == ["o-1"]


def test_the_files_are_private(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600 whatever the umask, and a file of ids has no more than ids."""
    before = os.umask(0)
    try:
        with open_state(tmp_path / "state", "project") as made:
            book = handle(made, [(1, 1, 0)], listed=listed_rows({}))
            paths = [book.folder.parent, book.folder, *book.folder.iterdir()]
            modes = [oct(stat.S_IMODE(path.stat().st_mode)) for path in paths]
            columns = list(pl.read_ipc_schema(book.folder / book.files[0]["name"]))
    finally:
        os.umask(before)
    assert modes == ["0o700", "0o700", "0o600", "0o600"]
    assert columns == [HI, LO]


def test_a_sync_of_another_kind_is_refused(state: State) -> None:
    """A name that was a profile sync's is not taken over by events, nor the other way, nor thrown away for a resend."""
    with state.write() as connection:
        snapshots.store(connection, "customers", {"files": []}, 3)
    with pytest.raises(
        StateError, match=r"'customers' is of kind events, .* of kind profiles sent; give the sync another"
    ):
        ledger.load(state, "customers")
    handle(state, [(1, 1, 0)])
    with pytest.raises(
        StateError, match=r"'orders' is of kind profiles, .* of kind events sent; give the sync another"
    ):
        snapshots.load(state, "orders")
    with pytest.raises(StateError, match="of kind events"), state.write() as connection:
        snapshots.forget(connection, state, "orders")
    assert sent(ledger.load(state, "orders"), [(1, 1, 0)]) == [True]


def test_nothing_to_write_makes_no_file(state: State) -> None:
    """Without a row there is neither a file nor an entry; a sync that never ran has an empty ledger."""
    book = ledger.load(state, "orders")
    assert (book.generation, book.files, book.forgotten) == (0, [], None)
    assert sent(book, [(0, 0, 0)]) == [False]
    assert book.listed().schema == LISTED_SCHEMA
    assert ledger.write(book, []) is None
    assert ledger.write(book, [frame([])]) is None
    ledger.sweep(book)
    assert not book.folder.exists()


def test_what_is_listed_comes_back(state: State) -> None:
    """The listed events come back as they were given; their file is written anew only where they changed."""
    rows = listed_rows({"state": "held", "time": None}, {HI: LAST, "key": "", "reason": 'with "quotes", ünïcode'})
    book = handle(state, [], listed=rows)
    assert book.listed().equals(rows)
    assert book.listed().schema == LISTED_SCHEMA
    same = handle(state, [(1, 1, 1)], listed=rows.select(reversed(rows.columns)))
    assert same.manifest["listed"] == book.manifest["listed"]
    other = handle(state, [], listed=rows[:1])
    assert other.manifest["listed"]["name"] != book.manifest["listed"]["name"]
    assert other.listed().equals(rows[:1])
    assert not handle(state, []).manifest["listed"]


def test_what_is_listed_is_dropped_when_it_is_over(state: State) -> None:
    """After 30 days without being seen again a listed event is dropped, unless it is held."""
    old = NOW - LISTED_DAYS * DAY
    rows = listed_rows(
        {"id": "held", "state": "held", "last_seen": old - 1, "first_seen": 0.0},
        {"id": "over", "state": "expired", "last_seen": old - 1},
        {"id": "alone", "state": "alone", "last_seen": old - 1},
        {"id": "seen", "state": "expired", "last_seen": old, "first_seen": 0.0},
    )
    assert handle(state, [], listed=rows).listed()["id"].to_list() == ["held", "seen"]


def test_an_altered_list_is_refused(state: State) -> None:
    """A flipped bit in the listed events is found as well."""
    book = handle(state, [], listed=listed_rows({}))
    path = book.folder / book.manifest["listed"]["name"]
    content = path.read_bytes()
    path.write_bytes(content[:9] + bytes([content[9] ^ 4]) + content[10:])
    with pytest.raises(StateError, match="altered"):
        ledger.load(state, "orders").listed()


def test_further_entries_are_kept(state: State) -> None:
    """The caller's entries replace those of their name and stay until then; all of it is plain JSON."""
    book = ledger.load(state, "orders")
    several: list[dict[str, Any]] = [{"cursor": "a", "recipe": 1}, {"cursor": "b"}, {"kind": "profiles", "files": 0}]
    for number, entries in enumerate(several):
        entry = ledger.write(book, [frame([(number, LAST, number)])])
        book = store(state, ledger.moved(book, entry, NOTHING_LISTED, NOW, entries))
    assert (book.manifest["cursor"], book.manifest["recipe"], book.manifest["kind"]) == ("b", 1, "events")
    assert (len(book.files), book.generation) == (3, 3)
    assert json.loads(json.dumps(book.manifest)) == book.manifest
