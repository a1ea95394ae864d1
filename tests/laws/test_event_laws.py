"""Laws of the event planning, held by the real functions against plain Python.

The model is a row loop: rows and events are dictionaries and tuples, JSON is written by the standard library.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count, groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connector import event_grouping
from connector import event_planning as planning
from connector.event_grouping import EventSet, build
from connector.event_mapping import EventAttributeMapping, EventColumns, resolve
from connector.event_planning import AGE_MARGIN, AGE_MAX, EXPIRED, HELD, EventJob, Sifted, sift
from connector.hashing import HI, LO, derived_ids, identities
from connector.mapping import KEY, Column
from connector.payload import EVENT_BYTES_MAX, EVENTS_MAX, OPERATION
from connector.state import ledger as ledgers
from connector.state.ids import Ids, ordered
from connector.state.ledger import LISTED_SCHEMA, TIME, Ledger

Row = dict[str, Any]
Half = tuple[int, int]

SEED = 7
NOW = 1_750_000_000_123
SCHEMA = {
    "k": pl.String(), "id": pl.Int64(), "name": pl.String(), "t": pl.Datetime("ms", "UTC"),
    "n": pl.Int64(), "s": pl.String(), "o": pl.Struct({"x": pl.Int64(), "y": pl.String()}), "big": pl.List(pl.String()),
}  # fmt: skip
ATTRIBUTES = {
    name: EventAttributeMapping(column=column)
    for name, column in {"$label": "s", "n": "n", "o": "o", "big": "big", "more": "big"}.items()
}

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "12"))
"""Of each law; every run draws others, so a soak is LAW_EXAMPLES=500."""

few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@dataclass(frozen=True)
class Terms:
    """What a plan is asked, in numbers of events: those that were sent, are held, or go alone."""

    timed: bool = True
    named_ids: bool = True
    late: Any = "hold"
    resend: bool = False
    retry: bool = False
    limit: int | None = None
    sent: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    alone: frozenset[int] = frozenset()


AGES = [
    *[1000 + step for step in (0, 0, 1, 7, 1000, 5_000, 3_600_000, 80_000_000)] * 6,
    0, AGE_MAX - AGE_MARGIN, AGE_MAX - AGE_MARGIN + 1, AGE_MAX + 9, 40 * AGE_MAX, -1, -9_000_000,
]  # fmt: skip
"""Milliseconds before NOW: equal ones, just fine, just late, just in the future."""


def source(seed: int, sizes: Sequence[int], *, distinct: bool = False) -> list[Row]:
    """Rows of profiles with that many events, in any order; most fine, some bad, some that stand there twice."""
    draw = random.Random(seed)  # noqa: S311 - invents rows
    numbers = count()
    rows = [one(draw, f"k{place}", next(numbers)) for place, size in enumerate(sizes) for _ in range(size)]
    for row in draw.sample(rows, len(rows) // 12):
        row.update(draw.choice([{"k": None}, {"name": None}, {"name": "Bad"}, {"id": None}, {"t": None}, {"s": " "}]))
    if not distinct:
        rows += [again(draw, row) for row in draw.choices(rows, k=len(rows) // 8)]
    return draw.sample(rows, len(rows))


def one(draw: random.Random, key: str, number: int) -> Row:
    return {
        "k": key, "id": number, "name": draw.choice(["a", "a", "b_2"]), "t": moment(draw),
        "n": draw.choice([None, 0, -7, number]), "s": draw.choice([None, "x", 'q"\\', "é\U0001f600"]),
        "o": draw.choice([None, {"x": 1, "y": None}, {"x": None, "y": None}, {"x": None, "y": '"\n'}]),
        "big": ["\u20ac" * 300] * 25 if draw.random() < 0.03 else None,
    }  # fmt: skip


def again(draw: random.Random, row: Row) -> Row:
    """A row of the same id, of another time and perhaps of another profile."""
    changed = {"t": row["t"] and moment(draw), "n": draw.choice([row["n"], 5])}
    return {**row, **changed, "k": row["k"] and draw.choice([row["k"], row["k"], "k0"])}


def moment(draw: random.Random) -> datetime:
    return datetime.fromtimestamp((NOW - draw.choice(AGES)) / 1000, UTC)


class Event(NamedTuple):
    """What plain Python makes of a row that can be sent."""

    key: str
    time: int | None
    id: str
    half: Half
    number: int | None
    text: str
    names: tuple[str, ...]
    late: bool
    alone: bool = False


def milliseconds(row: Row) -> int:
    return round(float(row["t"].timestamp()) * 1000)


def stamp(time: int) -> str:
    whole = datetime.fromtimestamp(time // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return whole + (f".{time % 1000:03}Z" if time % 1000 else "Z")


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def attributes_of(row: Row) -> Row:
    """The row's attributes as Batch is to have them: no nulls, no value that breaks a rule, no empty object."""
    fields = {name: value for name, value in (row["o"] or {}).items() if value is not None}
    label = None if row["s"] == " " else row["s"]
    found = {"$label": label, "n": row["n"], "o": fields or None, "big": row["big"], "more": row["big"]}
    return {name: value for name, value in sorted(found.items()) if value is not None}


def event_of(row: Row, terms: Terms) -> Event | None:
    """The event of a row; None where it can be none."""
    if row["k"] is None or row["name"] not in ("a", "b_2") or (terms.timed and row["t"] is None):
        return None
    if terms.named_ids and row["id"] is None:
        return None
    time = milliseconds(row) if terms.timed else None
    late = time is not None and time < NOW - AGE_MAX + AGE_MARGIN
    attributes = attributes_of(row)
    dated = {"name": row["name"], **({"time": stamp(time)} if time is not None else {}), "attributes": attributes}
    id_ = str(row["id"]) if terms.named_ids else derived_ids(pl.Series([f"{row['k']}\n{dumped(dated)}"]))[0]
    body = {
        **({"event_id": id_} if terms.named_ids else {}),
        **attributes,
        **({"date(occurred_at)": stamp(time)} if late and time is not None else {}),
    }
    text = dumped({**dated, "attributes": body})
    if late:
        text = dumped({"name": row["name"], "attributes": body})
    (half,) = identities(pl.Series([f"{row['name']}\n{id_}"]), SEED).rows()
    return Event(row["k"], time, id_, half, row["id"], text, tuple(attributes), late)


@dataclass
class Model:
    """What a plan has to be."""

    counts: Counter[str] = field(default_factory=Counter)
    listed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    going: list[Event] = field(default_factory=list)

    @property
    def operations(self) -> list[list[tuple[str, list[Event]]]]:
        """By wave: each profile's operation, by key."""
        waves: list[list[tuple[str, list[Event]]]] = []
        events = sorted(self.going, key=lambda event: (event.key, event.time or 0, event.half[0]))
        for key, theirs in groupby(events, key=lambda event: event.key):
            for wave, part in enumerate(cut(list(theirs))):
                waves += [[]] if wave == len(waves) else []
                waves[wave].append((key, part))
        return waves


def cut(events: list[Event]) -> Iterator[list[Event]]:
    """One profile's events in operations."""
    part: list[Event] = []
    for event in events:
        if part and (event.alone or part[-1].alone or len(part) == EVENTS_MAX):
            yield part
            part = []
        part.append(event)
    yield part


def count_old(model: Model, old: list[Event], terms: Terms, going: set[Half]) -> None:
    """Events too old; one that goes by another row is not held as well: that row counts as sent."""
    for event in old:
        state = {"hold": HELD, "drop": EXPIRED}[terms.late]
        if state == HELD and event.half in going:
            model.counts["already_sent"] += 1
        else:
            model.counts[state] += 1
            model.listed[event.id, planning.OLD, state] += 1


def modelled(rows: list[Row], terms: Terms) -> Model:  # noqa: C901 - one branch a verdict
    """The rows, judged one by one; rows are told apart by their number in `id`, sent or not."""
    model = Model()
    known = {
        name: {event_of(row, terms) for row in rows if row["id"] in getattr(terms, name)}
        for name in ("sent", "held", "alone")
    }
    halves = {name: {event.half for event in events if event} for name, events in known.items()}
    candidates: list[Event] = []
    old: list[Event] = []
    for row in rows:
        event = event_of(row, terms)
        if event is None:
            model.counts["invalid"] += 1
        elif event.half in halves["sent"] and (event.late or not terms.resend):
            model.counts["already_sent"] += 1
        elif event.half in halves["held"] and not (terms.resend or terms.retry):
            model.counts["waiting"] += 1
        elif event.time is not None and event.time > NOW:
            model.counts["invalid"] += 1
            model.listed[event.id, planning.FUTURE, ""] += 1
        elif event.late and terms.late != "restamp":
            old.append(event)
        elif len(event.text.encode()) > EVENT_BYTES_MAX:
            model.counts["invalid"] += 1
            model.listed[event.id, planning.LARGE, ""] += 1
        else:
            candidates.append(event._replace(alone=event.half in halves["alone"]))
    count_old(model, old, terms, {event.half for event in candidates})
    once: dict[Half, Event] = {}
    for event in sorted(candidates, key=lambda event: event.time or 0):
        once.setdefault(event.half, event)
    model.counts["already_sent"] += len(candidates) - len(once)
    oldest = sorted(once.values(), key=lambda event: (event.time or 0, event.half[0]))
    model.going = oldest[: terms.limit]
    model.counts["skipped"] = len(oldest) - len(model.going)
    return model


@dataclass
class Planned:
    """A plan, read back."""

    sifted: Sifted
    events: EventSet
    frame: pl.DataFrame

    @property
    def counts(self) -> Counter[str]:
        sifted = self.sifted
        found = Counter(
            {name: getattr(sifted, name) for name in ("already_sent", "invalid", "held", "expired", "skipped")}
        )
        return +(found + Counter(waiting=sum(frame.height for frame in sifted.waiting)))

    @property
    def listed(self) -> Counter[tuple[str, str, str]]:
        """Whole events with a certain identity that `rejects` is to show: id, reason, state."""
        reasons = [planning.FUTURE, planning.OLD, planning.LARGE]
        found = pl.concat(self.sifted.found).filter(pl.col("reason").is_in(reasons))
        return Counter(found.select("id", "reason", "state").rows())

    @property
    def by_wave(self) -> list[list[Row]]:
        """The outbox as dictionaries, wave by wave, each in the order of keys."""
        rows = self.frame.with_columns(self.events.sizes).to_dicts()
        waves = [list(part) for _, part in groupby(rows, key=lambda row: row["#wave"])]
        assert [part[0]["#wave"] for part in waves] == list(range(len(waves)))
        return [sorted(part, key=lambda row: str(row[KEY])) for part in waves]


def planned(
    rows: list[Row], terms: Terms, folder: Path, cuts: Sequence[int] = (), book: Ledger | None = None
) -> Planned:
    """A plan of these rows by the real functions, read in record batches that end at the cuts."""
    columns = [Column(name, dtype) for name, dtype in SCHEMA.items() if terms.timed or name != "t"]
    wanted = EventColumns(
        "k", None, "name", "t", not terms.timed, "id" if terms.named_ids else None, None, terms.late == "restamp"
    )
    marked = {name: halves_of(rows, getattr(terms, name), terms) for name in ("sent", "held", "alone")}
    job = EventJob(
        mapping=resolve(columns, wanted, ATTRIBUTES),
        ledger=book or book_of(folder, marked["sent"]),
        held=ids_of(marked["held"]), alone=ids_of(marked["alone"]), seed=SEED, now=NOW,
        late=terms.late, resend=terms.resend, retry=terms.retry, limit=terms.limit,
    )  # fmt: skip
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").drop([] if terms.timed else ["t"])
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    sifted = sift((frame[start:end] for start, end in pairwise(bounds)), job, folder / "outbox.spool")
    path = folder / "outbox.parquet"
    path.unlink(missing_ok=True)
    events = build(sifted, job, path)
    assert sifted.read == len(rows)
    assert path.exists() == (events.events > 0)
    return Planned(sifted, events, pl.read_parquet(path) if path.exists() else pl.DataFrame())


def halves_of(rows: list[Row], numbers: frozenset[int], terms: Terms) -> dict[Half, int | None]:
    """The identities of these rows and their times."""
    return {event.half: event.time for row in rows if row["id"] in numbers and (event := event_of(row, terms))}


def ids_of(halves: dict[Half, int | None]) -> Ids:
    return ordered(*(np.array([half[side] for half in halves], np.uint64) for side in (0, 1)))


def book_of(folder: Path, halves: dict[Half, int | None]) -> Ledger:
    """A ledger on disk that has these events."""
    empty = Ledger(folder / "ledger" / "orders", {}, 0)
    frame = pl.DataFrame([(*half, time) for half, time in halves.items()], schema=IDS, orient="row")
    return ledgers.moved(empty, ledgers.write(empty, [frame]), NOTHING_LISTED, NOW / 1000, {})


IDS = {HI: pl.UInt64, LO: pl.UInt64, TIME: pl.Int64}
NOTHING_LISTED = pl.DataFrame(schema=LISTED_SCHEMA)


@contextmanager
def small(range_bytes: int) -> Iterator[Path]:
    """A folder; meanwhile that many bytes of JSON are grouped in one go, and operations are written five at a time."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "RANGE_BYTES", range_bytes)
        patch.setattr(event_grouping, "BUILD_ROWS", 5)
        yield Path(folder)


SOURCES = (st.integers(0, 2**32), st.lists(st.sampled_from([1, 2, 5, 14, 15, 16, 31, 50]), min_size=1, max_size=5))
CUTS = st.lists(st.integers(0, 120), max_size=4)
RANGES = st.sampled_from([700, 4000, 128_000_000])
SOME = st.frozensets(st.integers(0, 60), max_size=12)
TERMS = st.builds(
    Terms, st.booleans(), st.booleans(), st.sampled_from(["hold", "drop", "restamp"]), st.booleans(), st.booleans(),
    st.none() | st.integers(0, 70), SOME, SOME, SOME,
)  # fmt: skip


@few
@given(*SOURCES, TERMS, CUTS, RANGES)
def test_outbox_holds_the_events_that_a_row_loop_says(
    seed: int, sizes: list[int], terms: Terms, cuts: list[int], range_bytes: int
) -> None:
    """Each once, in its profile's operation and wave, in time order, as the standard library's JSON; the counts add up."""
    rows = source(seed, sizes)
    model = modelled(rows, terms)
    with small(range_bytes) as folder:
        found = planned(rows, terms, folder, cuts)
    assert found.counts == +model.counts
    assert found.listed == model.listed
    assert found.events.events == len(model.going) == len(rows) - sum(model.counts.values())
    assert found.events.by_attribute == {name: sum(name in event.names for event in model.going) for name in ATTRIBUTES}
    assert len(found.by_wave) == len(model.operations)
    for actual, expected in zip(found.by_wave, model.operations, strict=True):
        assert [row[KEY] for row in actual] == [key for key, _ in expected], "one operation a profile in each wave"
        for row, (key, events) in zip(actual, expected, strict=True):
            texts = ",".join(event.text for event in events)
            assert row[OPERATION] == f'{{"identifiers":{{"custom_id":"{key}"}},"events":[{texts}]}}'
            assert row["bytes"] == len(row[OPERATION].encode())
            assert (row["#ids"], row["#times"]) == ([event.id for event in events], [event.time for event in events])
            assert list(zip(row["#his"], row["#los"], strict=True)) == [event.half for event in events]
            ends = [(event.time + AGE_MAX) / 1000 for event in events if event.time is not None and not event.late]
            assert row["#closes"] == pytest.approx(min(ends, default=float("inf")))


@few
@given(*SOURCES, TERMS, RANGES, st.integers(1, 7))
def test_chunks_keep_waves_apart(seed: int, sizes: list[int], terms: Terms, range_bytes: int, per_call: int) -> None:
    """All operations in order; no chunk of two waves, none with a custom ID twice; it closes with its first event."""
    rows = source(seed, sizes)
    with small(range_bytes) as folder:
        found = planned(rows, terms, folder)
    operations = found.frame.with_columns(found.events.sizes).to_dicts()
    place = 0
    for chunk in found.events.chunks(per_call):
        part = operations[chunk.first : chunk.first + chunk.rows]
        assert chunk.first == place
        assert 1 <= chunk.rows == len(part) == len({row[KEY] for row in part}) <= per_call
        assert {row["#wave"] for row in part} == {chunk.wave}
        assert chunk.bytes == sum(row["bytes"] + 1 for row in part) + 1
        ends = min(row["#closes"] for row in part)
        assert chunk.closes == (None if ends == float("inf") else ends)
        place += chunk.rows
    assert place == len(operations)
    assert sum(len(row["#ids"]) for row in operations) == found.events.events


def test_oldest_go_first() -> None:
    """In each wave the operations leave by the time of their first event, so that the next to become too old is first."""
    with small(128_000_000) as folder:
        found = planned(source(1, [17] * 9), Terms(late="restamp"), folder)
    rows = found.frame.with_columns(found.events.sizes).to_dicts()
    for _, part in groupby(rows, key=lambda row: row["#wave"]):
        starts = [row["#times"][0] for row in part]
        assert len(starts) > 1
        assert starts == sorted(starts)


@few
@given(*SOURCES, TERMS, CUTS, CUTS, RANGES, RANGES, st.randoms(use_true_random=False))
def test_order_and_pieces_do_not_matter(  # noqa: PLR0917
    seed: int, sizes: list[int], terms: Terms, one_cut: list[int], other_cut: list[int], one_range: int, other_range: int,
    shuffle: random.Random,
) -> None:  # fmt: skip
    """The same rows in another order, other record batches and other ranges: the same operations, counts and entries."""
    rows = source(seed, sizes, distinct=True)
    with small(one_range) as folder:
        first = planned(rows, terms, folder, one_cut)
    with small(other_range) as folder:
        second = planned(shuffle.sample(rows, len(rows)), terms, folder, other_cut)
    assert first.by_wave == second.by_wave
    assert (first.counts, first.sifted.withheld, first.sifted.faulty) == (
        second.counts, second.sifted.withheld, second.sifted.faulty,
    )  # fmt: skip
    entries = [Counter(pl.concat(one.sifted.found).rows()) for one in (first, second)]
    assert entries[0] == entries[1]


@few
@given(*SOURCES, TERMS, st.integers(20, 60), RANGES)
def test_runs_with_a_limit_send_everything_once_and_in_order(
    seed: int, sizes: list[int], terms: Terms, limit: int, range_bytes: int
) -> None:
    """The oldest first, run after run, until nothing is left: what the ledger has is not planned again."""
    rows = source(seed, sizes)
    terms = replace(terms, resend=False, limit=None)
    wanted = modelled(rows, terms).going
    times: list[int] = []
    seen: dict[Half, int | None] = halves_of(rows, terms.sent, terms)
    with small(range_bytes) as folder:
        for _ in range(len(wanted) // limit + 2):
            found = planned(rows, replace(terms, limit=limit), folder, book=book_of(folder, seen))
            events = (
                []
                if found.frame.is_empty()
                else found.frame.select("#his", "#los", "#times").explode("#his", "#los", "#times").rows()
            )
            assert len(events) <= limit
            assert not {(high, low) for high, low, _ in events} & seen.keys(), "sent twice"
            times += sorted(time or 0 for _, _, time in events)
            seen |= {(high, low): time for high, low, time in events}
    assert seen.keys() == {event.half for event in wanted} | halves_of(rows, terms.sent, terms).keys()
    assert times == sorted(event.time or 0 for event in wanted)


@few
@given(*SOURCES, SOME, SOME)
def test_values_that_break_a_rule_are_counted_and_listed(
    seed: int, sizes: list[int], sent: frozenset[int], held: frozenset[int]
) -> None:
    """A withheld value is one entry of an event that goes; rows with a fault are rows that are invalid or lack a value."""
    rows, terms = source(seed, sizes, distinct=True), Terms(sent=sent, held=held)
    for row in rows:
        row["s"] = " " if row["id"] in sent | held | {3, 7} else row["s"]
    blank = {row["id"] for row in rows if row["s"] == " "}
    withheld = sum(event.number in blank for event in modelled(rows, terms).going)
    with small(128_000_000) as folder:
        sifted = planned(rows, terms, folder).sifted
    entries = pl.concat(sifted.found).filter(pl.col("attribute") == "$label")
    assert (sifted.withheld, entries.height, sifted.faulty) == (withheld, withheld, sifted.invalid + withheld)
    assert set(entries.select("reason", "source", "state").rows()) <= {("only white space", "invalid", "")}
