"""Events as JSON: held against the standard library over hostile values; and the ids that make an event this event."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connector.event_mapping import ID, NAME, TIME, EventAttribute, EventAttributeMapping, EventColumns, apply, resolve
from connector.hashing import HI, LO, derived_ids, identities
from connector.mapping import KEY, Column
from connector.payload import EVENT, LATE, OPERATION, body, event_operations, events

SEED = 0x0123456789ABCDEF
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def built(
    rows: list[dict[str, Any]], columns: dict[str, tuple[Any, pl.DataType]], *, with_id: bool = True
) -> list[str]:
    """The events of rows that hold `id`, `time`, `late` and the columns' values."""
    frame = pl.DataFrame([
        pl.Series(NAME, ["order_placed"] * len(rows), dtype=pl.String),
        pl.Series(TIME, [milliseconds(row.get("time")) for row in rows], dtype=pl.Int64),
        pl.Series(ID, [row.get("id") for row in rows], dtype=pl.String),
        pl.Series(LATE, [row.get("late", False) for row in rows], dtype=pl.Boolean),
        *(pl.Series(name, [row.get(name) for row in rows], dtype=dtype) for name, (_, dtype) in columns.items()),
    ])  # fmt: skip
    attributes = [EventAttribute(name, type_, name) for name, (type_, _) in columns.items()]
    found = events(frame, attributes, with_id=with_id)
    assert found.name == EVENT
    return found.to_list()


DATES = pl.Datetime("ms", "UTC")
COLUMNS: dict[str, tuple[Any, pl.DataType]] = {
    "$label": ("string", pl.String()), "$tags": ("array", pl.List(pl.String)), "n": ("integer", pl.Int64()),
    "f": ("float", pl.Float64()), "b": ("boolean", pl.Boolean()), "d": ("date", DATES), "u": ("url", pl.String()),
    "o": ("object", pl.String()),
}  # fmt: skip


def test_event_of_every_type() -> None:
    """Name, time, then the id and the attributes in the mapping's order; dates and URLs by their wrappers."""
    at = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
    row = {
        "id": "7", "time": at, "$label": "pumpkin", "$tags": ["a", "b"], "n": -1, "f": 0.5, "b": False,
        "d": at + timedelta(milliseconds=40), "u": "https://a.b/", "o": '{"x":[1]}',
    }  # fmt: skip
    attributes = (
        '"event_id":"7","$label":"pumpkin","$tags":["a","b"],"n":-1,"f":0.5,"b":false,'
        '"date(d)":"2026-03-01T08:30:00.040Z","url(u)":"https://a.b/","o":{"x":[1]}'
    )
    event = f'{{"name":"order_placed","time":"2026-03-01T08:30:00Z","attributes":{{{attributes}}}}}'
    assert built([row], COLUMNS) == [event]


def test_what_is_null_is_left_out() -> None:
    """No member is null: not the time, not an attribute; an event without any has an empty object."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert built([{"time": at}, {}, {"time": at, "n": 0}], COLUMNS, with_id=False) == [
        '{"name":"order_placed","time":"2026-03-01T00:00:00Z","attributes":{}}',
        '{"name":"order_placed","attributes":{}}',
        '{"name":"order_placed","time":"2026-03-01T00:00:00Z","attributes":{"n":0}}',
    ]
    assert built([{}], {}, with_id=False) == ['{"name":"order_placed","attributes":{}}']
    assert built([], COLUMNS) == []


def test_late_event_has_no_time_of_its_own_but_says_when_it_was() -> None:
    """Sent as of now, with its real time as `date(occurred_at)` behind the attributes; its neighbours are as ever."""
    at = datetime(2025, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)
    late, fresh = ({"id": "7", "n": 1, "time": at, "late": late} for late in (True, False))
    assert built([late, fresh], {"n": COLUMNS["n"]}) == [
        '{"name":"order_placed","attributes":{"event_id":"7","n":1,"date(occurred_at)":"2025-01-01T00:00:00.005Z"}}',
        '{"name":"order_placed","time":"2025-01-01T00:00:00.005Z","attributes":{"event_id":"7","n":1}}',
    ]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (FIRST, "0001-01-01T00:00:00Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), "1969-12-31T23:59:59.999Z"),
        (datetime(2024, 2, 29, 12, 0, 0, 5000, tzinfo=UTC), "2024-02-29T12:00:00.005Z"),
        (LAST, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_in_json(moment: datetime, text: str) -> None:
    """The event's own time and a date among its attributes: four digits of year, Z, milliseconds where there are any."""
    event = json.loads(built([{"time": moment, "d": moment}], {"d": COLUMNS["d"]}, with_id=False)[0])
    assert (event["time"], event["attributes"]) == (text, {"date(d)": text})


HOSTILE = [
    '"', "\\", '\\"}', '\\u0022', "\x00", "\x01", "\x1f", "\x7f", "\n", "\r\n", "\t", "\b", "\f", "\u0085", "\u2028",
    "\ufeff", "\u202eevil", "\U0001f600", "é", "{}", "}}]}", ",", "null", '","name":"x', "%s", "$1", "",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4)
TEXTS = TEXT.map("".join)
MOMENTS = st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=st.just(UTC))
SCALARS = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
OBJECTS = st.recursive(
    st.dictionaries(TEXTS, SCALARS, max_size=3),
    lambda inner: st.dictionaries(TEXTS, SCALARS | inner | st.lists(inner, max_size=2), max_size=3),
    max_leaves=4,
)
ROWS = st.fixed_dictionaries({
    "id": TEXTS, "time": st.none() | MOMENTS, "late": st.booleans(), "$label": st.none() | TEXTS,
    "$tags": st.none() | st.lists(TEXTS, max_size=3), "n": st.none() | st.integers(-(2**63), 2**63 - 1),
    "f": st.none() | st.floats(allow_nan=False, allow_infinity=False), "b": st.none() | st.booleans(),
    "d": st.none() | MOMENTS, "u": st.none() | TEXTS, "o": st.none() | OBJECTS | st.lists(OBJECTS, max_size=2),
}).map(lambda row: row | {"late": row["late"] and row["time"] is not None})  # fmt: skip
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | TEXTS

few = settings(max_examples=40, deadline=None, report_multiple_bugs=False, phases=[Phase.explicit, Phase.generate])


def rfc3339(moment: datetime) -> str:
    fraction = f".{moment.microsecond // 1000:03}" if moment.microsecond // 1000 else ""
    return moment.replace(tzinfo=None, microsecond=0).isoformat() + fraction + "Z"


def expected(row: dict[str, Any], *, with_id: bool) -> dict[str, Any]:
    """The event by plain Python, members in the order in which they have to stand."""
    wrapped = {"d": "date(d)", "u": "url(u)"}
    told = {wrapped.get(name, name): row[name] for name in COLUMNS}
    told["date(d)"] = row["d"] and rfc3339(row["d"])
    event: dict[str, Any] = {"name": "order_placed"}
    if row["time"] and not row["late"]:
        event["time"] = rfc3339(row["time"])
    event["attributes"] = {"event_id": row["id"]} if with_id else {}
    event["attributes"] |= {name: value for name, value in told.items() if value is not None}
    if row["late"]:
        event["attributes"]["date(occurred_at)"] = rfc3339(row["time"])
    return event


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a name stands twice"
    return dict(pairs)


def same(actual: str, wanted: object) -> None:
    """Equal members in the same order, of the same types: 1 is neither 1.0 nor true."""
    assert json.dumps(json.loads(actual, object_pairs_hook=once)) == json.dumps(wanted)


@few
@given(st.lists(ROWS, min_size=1, max_size=4), st.booleans())
def test_hostile_values_are_as_the_standard_library_writes_them(rows: list[dict[str, Any]], with_id: bool) -> None:
    """Quotes, control characters, emoji, what looks like JSON: each event is the one that plain Python means."""
    texts = [row | {"o": None if row["o"] is None else json.dumps(row["o"], ensure_ascii=False)} for row in rows]
    for text, row in zip(built(texts, COLUMNS, with_id=with_id), rows, strict=True):
        same(text, expected(row, with_id=with_id))


@few
@given(st.lists(st.tuples(KEYS, st.lists(ROWS, min_size=1, max_size=3)), min_size=1, max_size=3))
def test_operations_hold_their_profile_and_its_events(profiles: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """The body that leaves is an array of operations, each with its custom ID and its events in order."""
    wanted = [
        {"identifiers": {"custom_id": key}, "events": [expected({**row, "o": None}, with_id=True) for row in rows]}
        for key, rows in profiles
    ]
    texts = [",".join(built([{**row, "o": None} for row in rows], COLUMNS)) for _, rows in profiles]
    operations = event_operations(pl.Series([key for key, _ in profiles]), pl.Series(texts))
    assert operations.name == OPERATION
    same(body(operations).decode(), wanted)


def test_nested_columns_arrive_nested() -> None:
    """From a source's structs and lists to the event, through the mapping: what is null or empty inside is left out."""
    frame = pl.DataFrame({
        "k": ["c1", "c2"], "id": [1, 2], "t": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
        "shop": [{"city": 'L"yon', "geo": {"lat": 45.5, "lon": None}}, {"city": None, "geo": None}],
        "items": [[{"sku": "a\\", "date__due": date(2026, 2, 1)}, {"sku": "b", "date__due": None}], []],
    })  # fmt: skip
    columns = [Column(name, dtype) for name, dtype in frame.schema.items()]
    wanted = EventColumns("k", "order_placed", None, "t", False, "id", None, False)
    attributes = {name: EventAttributeMapping(column=name) for name in ("shop", "items")}
    mapping = resolve(columns, wanted, attributes)
    valid = apply(mapping, frame).valid.with_columns(pl.lit(value=False).alias(LATE))
    told = [json.loads(event)["attributes"] for event in events(valid, mapping.attributes, with_id=True)]
    assert told == [
        {
            "event_id": "1", "shop": {"city": 'L"yon', "geo": {"lat": 45.5}},
            "items": [{"sku": "a\\", "date(due)": "2026-02-01T00:00:00Z"}, {"sku": "b"}],
        },
        {"event_id": "2"},
    ]  # fmt: skip


GOLDEN_IDS = {
    "": "2d06800538d394c2602b0e2cd6662c8b",
    'c1\n{"name":"order_placed","time":"2026-03-01T08:30:00Z","attributes":{"n":1}}': "f0707a39a21f2aeddac4cd89fb445155",
    "é\U0001f600\n{}": "1e2f1b6875f6cc403859d3869e265d24",
}
GOLDEN_IDENTITIES = {
    "": (14707810090481130588, 12891583380956620310),
    "7": (922303240443575498, 10724981246152124405),
    "order_placed\n7": (12025590243750808981, 8710019706061141491),
    "é\U0001f600": (11100801683541164480, 16931186035853601091),
}


def test_golden_derived_ids() -> None:
    """Another Polars, platform or recipe that changes one id would send every event of a source without ids again."""
    assert derived_ids(pl.Series("x", list(GOLDEN_IDS))).to_list() == list(GOLDEN_IDS.values())
    assert derived_ids(pl.Series("x", [], dtype=pl.String)).to_list() == []


def test_golden_identities() -> None:
    """What the ledger's files hold stands still as long as the state does."""
    found = identities(pl.Series(list(GOLDEN_IDENTITIES)), SEED)
    assert found.rows() == list(GOLDEN_IDENTITIES.values())
    assert found.schema == {HI: pl.UInt64, LO: pl.UInt64}


@few
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_ids_tell_texts_apart_and_nothing_else(texts: list[str]) -> None:
    """Equal text, equal id, wherever it stands; other text, another id; of an identity each half does so by itself."""
    ids = derived_ids(pl.Series(texts)).to_list()
    halves = identities(pl.Series(texts), SEED)
    for found in (ids, halves[HI].to_list(), halves[LO].to_list()):
        assert len(set(found)) == len(set(texts)) == len(set(zip(texts, found, strict=True)))
    assert ids == [derived_ids(pl.Series([text]))[0] for text in texts]
    assert all(len(id_) == 32 and set(id_) <= set("0123456789abcdef") for id_ in ids)
    assert not set(halves[HI]) & set(halves[LO])


def test_identities_are_a_states_own_and_derived_ids_are_not() -> None:
    """Two states' ledgers say nothing about each other; an id that is sent is the same from every machine."""
    texts = pl.Series(["7", "8"])
    first, second = identities(texts, SEED), identities(texts, SEED + 1)
    assert not set(first[HI]) & set(second[HI])
    assert not set(first[LO]) & set(second[LO])
    assert derived_ids(texts)[0] == "06eed105b82285fa5a6afe222a4231f6"


EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({}, False),
        ({"t": datetime(2026, 1, 1, 2, tzinfo=EAST)}, False),
        ({"unmapped": "y"}, False),
        ({"k": "c2"}, True),
        ({"t": datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)}, True),
        ({"n": 2}, True),
        ({"n": None}, True),
        ({"s": "1"}, True),
    ],
)
def test_derived_id_changes_with_what_is_sent(change: dict[str, Any], new: bool) -> None:
    """Key, name, time and attributes make the id of an event without one; a column that is not sent does not."""
    row = {"k": "c1", "t": datetime(2026, 1, 1, tzinfo=UTC), "n": 1, "s": None, "unmapped": "x"}
    first, second = ids_of([row, row | change])
    assert (first != second) == new


def ids_of(rows: list[dict[str, Any]]) -> list[str]:
    """The derived ids of rows, as the plan makes them: of the key and the event."""
    schema = {"k": pl.String(), "t": DATES, "n": pl.Int64(), "s": pl.String(), "unmapped": pl.String()}
    wanted = EventColumns("k", "order_placed", None, "t", False, None, None, False)
    columns = [Column(name, dtype) for name, dtype in schema.items()]
    mapping = resolve(columns, wanted, {name: EventAttributeMapping(column=name) for name in ("n", "s")})
    valid = apply(mapping, pl.DataFrame(rows, schema=schema, orient="row")).valid
    told = events(valid.with_columns(pl.lit(value=False).alias(LATE)), mapping.attributes, with_id=False)
    return derived_ids(valid[KEY] + "\n" + told).to_list()
