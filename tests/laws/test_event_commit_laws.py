"""Laws of the commit of a run with events, held by the real functions against plain Python and a real state.

The model is what an operator expects: each event by its number, what the answers say of it, and what is listed.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connector.event_commit import Closing, EventBooks, EventsSettled, Examined, closing, commit, listed_after, soonest
from connector.event_planning import AGE_MAX, ALONE, EXPIRED, FUTURE, HELD, OLD
from connector.hashing import HI, LO, identities
from connector.mapping import KEY
from connector.outcome import Refusal
from connector.payload import Chunk
from connector.state import ledger as ledgers
from connector.state import runs
from connector.state.database import State, open_state
from connector.state.files import write_frames
from connector.state.lease import hold
from connector.state.ledger import LISTED_SCHEMA, TIME

Half = tuple[int, int]

SEED = 7
RUN_AT = datetime.now(UTC).timestamp()
IDS = {HI: pl.UInt64, LO: pl.UInt64, TIME: pl.Int64}
FOUND = {name: LISTED_SCHEMA[name] for name in (HI, LO, "key", "id", "attribute", "reason", "source", "state", "time")}

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "12"))
"""Of each law; every run draws others, so a soak is LAW_EXAMPLES=500."""

few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@dataclass
class Sent:
    """An operation of a run that is settled: its events by number, and what the answers say of it."""

    events: list[int]
    state: str = "planned"
    refused: list[str | None] = field(default_factory=list)

    def fate(self, *, holds: bool) -> str:
        """One of accepted, partly, refused, held, unsent."""
        if self.state in ("planned", "refused"):
            return {"planned": "unsent", "refused": "refused"}[self.state]
        if self.state in ("sent", "unknown"):
            return "held" if holds else "unsent"
        if None in self.refused:
            return "held" if holds and len(self.events) > 1 else "refused"
        return "partly" if self.refused else "accepted"


ANSWERS = ["done", "done", "done", "unknown", "planned", "sent", "split"]


def half(number: int) -> Half:
    (found,) = identities(pl.Series([str(number)]), SEED).rows()
    return found


def time_of(number: int) -> int | None:
    """Of every third event the time is unknown; Batch takes some of the others for some hours yet, some no longer."""
    return None if number % 3 == 0 else 1_000 * int(RUN_AT) - number * 3_600_000


class Run:
    """A run of an event sync over a real state: opened, settled chunk by chunk, not yet committed."""

    def __init__(self, draw: random.Random, numbers: Sequence[int]) -> None:
        self.operations: list[Sent] = []
        left = list(numbers)
        while left:
            size = draw.choice([1, 1, 2, 3])
            self.operations.append(Sent(left[:size]))
            left = left[size:]
        self.chunks: list[tuple[Chunk, str, list[Refusal], list[tuple[int, int, str]]]] = []
        first = 0
        while first < len(self.operations):
            part = self.operations[first : first + draw.randint(1, 4)]
            self.chunks.append(self._answered(draw, first, part))
            first += len(part)

    def _answered(
        self, draw: random.Random, first: int, part: list[Sent]
    ) -> tuple[Chunk, str, list[Refusal], list[tuple[int, int, str]]]:
        state, refusals, parts = draw.choice(ANSWERS), [], []
        for place, operation in enumerate(part):
            operation.state = draw.choice(["done", "refused", "planned", "unknown"]) if state == "split" else state
            if operation.state == "refused":
                refusals.append(Refusal(place, None, "malformed"))
            elif operation.state == "done":
                operation.refused = draw.choice(
                    [[], [], ["n"], ["n", "o"], [None], [None, None], ["n", None], [None, "n"]]
                )
                refusals += [Refusal(place, name, f"no {name}") for name in operation.refused]
            parts.append((place, 1, operation.state))
        if state != "split":
            parts = []
        elif {operation.state for operation in part} <= {"done", "refused"}:
            state = "done"
        else:
            state = "unknown"
        return Chunk(first, len(part), 2), state, refusals, parts

    def settle(self, state: State, sync: str, run: str, draw: random.Random) -> None:
        """Leave in the state what this run's delivery leaves there."""
        rows = [
            {
                KEY: f"c{place}", "#his": [half(number)[0] for number in operation.events],
                "#los": [half(number)[1] for number in operation.events],
                "#ids": [str(number) for number in operation.events],
                "#times": [time_of(number) for number in operation.events],
            }
            for place, operation in enumerate(self.operations)
        ]  # fmt: skip
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            KEY: pl.String, "#his": pl.List(pl.UInt64), "#los": pl.List(pl.UInt64), "#ids": pl.List(pl.String),
            "#times": pl.List(pl.Int64),
        }  # fmt: skip
        if rows:
            write_frames(runs.outbox(state, run), pl.DataFrame(rows, schema=schema).iter_slices(draw.randint(1, 9)))
        with hold(state, sync, run) as lease:
            opened = runs.Opened(run, "k", {}, "", {"kind": "events", "started": 0.0}, 0.0)
            with state.write() as connection:
                runs.open_run(connection, lease, opened, [chunk for chunk, *_ in self.chunks])
                for number, (_, outcome, refusals, parts) in enumerate(self.chunks):
                    if outcome == "sent":
                        runs.mark_sent(connection, run, number, runs.Standing("sent"))
                    elif outcome != "planned" or draw.random() < 0.5:
                        runs.settle(connection, run, number, runs.Standing(outcome, refusals, parts))

    def fates(self, *, holds: bool) -> dict[int, str]:
        return {number: one.fate(holds=holds) for one in self.operations for number in one.events}


class Entry(NamedTuple):
    """What `rejects` shows of an event, or of one of its attributes."""

    state: str
    source: str
    attempts: int = 0


Entries = dict[tuple[str, str], Entry]
"""By id and attribute."""


@dataclass
class Books:
    """The model's memory of a sync: what must never be sent again, and what is listed."""

    sent: set[int] = field(default_factory=set)
    listed: Entries = field(default_factory=dict)

    def settle(self, run: Run, looked: "Looked | None", *, holds: bool) -> None:
        """Note a run."""
        gone = {number for number, fate in run.fates(holds=holds).items() if fate in ("accepted", "partly")}
        found = {entry: Entry(state, "invalid") for entry, state in looked.found.items()} if looked else {}
        for operation in run.operations:
            fate = operation.fate(holds=holds)
            for number in operation.events:
                if fate in ("held", "refused"):
                    found[str(number), ""] = Entry({"held": HELD, "refused": ALONE}[fate], "rejected")
                elif fate == "partly":
                    found |= {(str(number), str(name)): Entry("", "rejected") for name in operation.refused}
        kept = {at: entry for at, entry in self.listed.items() if at not in found and not self._over(at, gone, looked)}
        self.sent |= gone
        if looked:
            let_go = {at for at, entry in kept.items() if entry.state == HELD and int(at[0]) in looked.discarded}
            kept |= {at: kept[at]._replace(state=EXPIRED) for at in let_go}
            late = {int(id_) for (id_, _), state in looked.found.items() if state == EXPIRED and looked.dropped}
            self.sent |= looked.discarded | late
        before = self.listed
        self.listed = kept | {
            at: entry._replace(attempts=(before[at].attempts if at in before else 0) + 1) for at, entry in found.items()
        }

    def _over(self, at: tuple[str, str], gone: set[int], looked: "Looked | None") -> bool:
        """An entry for a whole event that was sent, or that was looked at and nothing was found of it."""
        number, entry = int(at[0]), self.listed[at]
        seen = looked and looked.settled and (looked.full or number in looked.again)
        mended = seen and (entry.state, entry.source) == ("", "invalid")
        return at[1] == "" and (number in gone or bool(mended))


@dataclass
class Looked:
    """What a run's read has shown, in numbers of events; `found` by id and attribute, with its state."""

    full: bool
    again: set[int]
    discarded: set[int]
    dropped: bool
    settled: bool
    found: dict[tuple[str, str], str]

    def examined(self) -> Examined:
        """The same for the real functions."""
        rows = [
            (*half(int(id_)), "c", id_, attribute, "a reason", "invalid", state, time_of(int(id_)))
            for (id_, attribute), state in self.found.items()
        ]
        found = pl.DataFrame(rows, schema=FOUND, orient="row")
        return Examined([found], listed_of(self.again), self.full, self.settled, self.handled())

    def handled(self) -> pl.DataFrame:
        """What is let go for good."""
        late = {int(id_) for (id_, _), state in self.found.items() if state == EXPIRED and self.dropped}
        rows = [(*half(number), time_of(number)) for number in sorted(self.discarded | late)]
        return pl.DataFrame(rows, schema=IDS, orient="row")


def listed_of(numbers: set[int]) -> pl.DataFrame:
    rows = [(*half(number), "c", str(number), "", "", "", HELD, time_of(number), 1, 0.0, 0.0) for number in numbers]
    return pl.DataFrame(rows, schema=LISTED_SCHEMA, orient="row")


NOTHING = Entry("", "")


def read(draw: random.Random, books: Books, run: Run) -> Looked:
    """What the read of a run may have shown, of events that it does not send."""
    busy = {number for operation in run.operations for number in operation.events}
    free = [number for number in range(40) if number not in busy | books.sent]
    waiting = [number for number in free if books.listed.get((str(number), ""), NOTHING).state == HELD]
    dropped = bool(draw.randrange(2))
    states = [EXPIRED, ""] if dropped else [EXPIRED, HELD, ""]
    found = {(str(number), ""): draw.choice(states) for number in draw.sample(free, min(5, len(free)))}
    found |= {(str(number), "withheld"): "" for number in draw.sample(sorted(busy), min(2, len(busy)))}
    again = {int(id_) for id_, attribute in books.listed if not attribute and draw.random() < 0.5}
    discarded = {number for number in waiting if (str(number), "") not in found} if dropped else set()
    return Looked(bool(draw.randrange(2)), again, discarded, dropped, bool(draw.randrange(2)), found)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[State, Iterator[int]]]:
    """One state for all examples, and numbers for their syncs and runs."""
    with open_state(tmp_path_factory.mktemp("shared") / "state", "project") as opened:
        yield opened, count()


@few
@given(
    seed=st.integers(0, 2**32), size=st.integers(0, 30), more=st.lists(st.booleans(), max_size=3), holds=st.booleans()
)
def test_every_event_of_a_run_is_accounted_for_once(
    shared: tuple[State, Iterator[int]], seed: int, size: int, more: list[bool], holds: bool
) -> None:
    """Accepted, rejected, held or unsent; never sent again are exactly those that Batch took or that were let go; run after run."""
    state, numbers = shared
    draw, books, sync = random.Random(seed), Books(), f"s{next(numbers)}"  # noqa: S311 - invents answers
    book = ledgers.nothing(state, sync)
    for looks in [True, *more]:
        due = [number for number in range(40) if number not in books.sent]
        run, name = Run(draw, draw.sample(due, min(size, len(due)))), f"{sync}-{next(numbers)}"
        run.settle(state, sync, name, draw)
        looked = read(draw, books, run) if looks else None
        closed = closing(state, name, hold=holds)
        check_settled(closed, run, holds=holds)
        books.settle(run, looked, holds=holds)
        examined = looked.examined() if looked else None
        listed = listed_after(book, closed, examined)
        rows = listed.select("id", "attribute", "state", "source", "attempts").rows()
        assert {(id_, attribute): Entry(*entry) for id_, attribute, *entry in rows} == books.listed
        with hold(state, sync, f"{name}-commit") as lease:
            handled = [*closed.sent, *([looked.handled()] if looked else [])]
            commit(EventBooks(state, lease, book), name, {"started": 0.0}, handled, listed, {"x": 1})
        book = ledgers.load(state, sync)
        everything = [(*half(number), time_of(number)) for number in range(40)]
        known = book.sent(pl.DataFrame(everything, schema=IDS, orient="row"))
        assert {number for number in range(40) if known[number]} == books.sent
        assert book.listed().height == len(books.listed)
        assert not runs.outbox(state, name).exists()
        assert runs.unfinished(state, sync) == []


def check_settled(closed: Closing, run: Run, *, holds: bool) -> None:
    """The counts, the ids and the end of a closing against the operations."""
    fates = run.fates(holds=holds)
    counts = Counter(fates.values())
    assert closed.settled == EventsSettled(
        accepted=counts["accepted"], rejected=counts["partly"] + counts["refused"], held=counts["held"], unsent=counts["unsent"],
    )  # fmt: skip
    assert sum(closed.settled) == len(fates)
    gone = sorted(half(number) for number, fate in fates.items() if fate in ("accepted", "partly"))
    assert sorted(row for frame in closed.sent for row in frame.select(HI, LO).rows()) == gone
    times = [time_of(number) for number, fate in fates.items() if fate not in ("accepted", "partly")]
    ends = [(time + AGE_MAX) / 1000 for time in times if time is not None and (time + AGE_MAX) / 1000 > RUN_AT + 300]
    assert closed.closes == min(ends, default=None)


def test_soonest_end_is_of_an_event_that_batch_still_takes() -> None:
    """What is too old already ends nothing, nor does an event without a time."""
    now = int(RUN_AT * 1000)
    ages = [None, AGE_MAX + 1, AGE_MAX - 3_600_000, 0]
    times = pl.Series([None if age is None else now - age for age in ages], dtype=pl.Int64)
    assert soonest(times) == pytest.approx((now + 3_600_000) / 1000)
    assert soonest(times[:2]) is None


def shown(reason: str, number: int) -> Examined:
    """A read with a row of this event that is in the future or too old."""
    row = (*half(number), "c", str(number), "", reason, "invalid", {FUTURE: "", OLD: HELD}[reason], time_of(number))
    found = pl.DataFrame([row], schema=FOUND, orient="row")
    return Examined([found], listed_of(set()), True, True, pl.DataFrame(schema=IDS))


def ended(number: int, *, sent: bool) -> Closing:
    """A run of this event alone, which was sent or is in doubt."""
    row = (*half(number), "c", str(number), "", "in doubt", "rejected", HELD, time_of(number))
    doubt = pl.DataFrame([] if sent else [row], schema=FOUND, orient="row")
    ids = pl.DataFrame([(*half(number), time_of(number))] if sent else [], schema=IDS, orient="row")
    return Closing(EventsSettled(), [ids], [doubt], None)


@pytest.mark.parametrize("reason", [FUTURE, OLD], ids=["future", "old"])
def test_event_in_doubt_is_held_whatever_another_row_of_its_id_is(
    shared: tuple[State, Iterator[int]], reason: str
) -> None:
    """Two rows of one id, one sent and in doubt, the other in the future or too old: it is not sent again unasked."""
    state, numbers = shared
    book = ledgers.nothing(state, f"s{next(numbers)}")
    (entry,) = listed_after(book, ended(7, sent=False), shown(reason, 7)).to_dicts()
    assert (entry["state"], entry["source"]) == (HELD, "rejected")


@pytest.mark.parametrize("reason", [FUTURE, OLD], ids=["future", "old"])
def test_event_that_was_sent_is_not_listed_for_another_row_of_its_id(
    shared: tuple[State, Iterator[int]], reason: str
) -> None:
    """Two rows of one id, one sent, the other in the future or too old: nothing is left to decide."""
    state, numbers = shared
    book = ledgers.nothing(state, f"s{next(numbers)}")
    assert listed_after(book, ended(7, sent=True), shown(reason, 7)).is_empty()
