"""Request bodies: bytes counted right, and JSON that says what a row means, held against the local API's rules."""

# ruff: noqa: DTZ001 - naive timestamps are what warehouses have

import json
import math
from datetime import UTC, date, datetime
from itertools import zip_longest
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from connector import payload
from connector.changes import SEND
from connector.judging import WITHHELD, apply
from connector.mapping import KEY, Attribute, AttributeMapping, Column, resolve
from connector.payload import BODY_BYTES_MAX, Chunk, body, chunks, operations
from connector.simulator.limits import Settings
from connector.simulator.rules import judge

WHERE = [
    Attribute("s", "string", "s", keep=False),
    Attribute("d", "date", "d", keep=False),
    Attribute("u", "url", "u", keep=False),
]


def rows(send: list[int], **columns: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(
        {KEY: [f"key{row}" for row in range(len(send))], SEND: pl.Series(send, dtype=pl.UInt64), **columns}
    )


def test_three_states() -> None:
    """A value is sent, a null is sent as null, what is not due is absent: Batch tells the three apart."""
    frame = rows(
        [0b111, 0b111, 0b010, 0],
        s=pl.Series(["x", None, "y", "z"]),
        d=pl.Series([datetime(2024, 5, 31, 22, 15), None, None, None], dtype=pl.Datetime("ms")).dt.replace_time_zone(
            "UTC"
        ),
        u=pl.Series(["http://a/b", None, "http://c", None]),
    )
    assert operations(frame, WHERE).to_list() == [
        '{"identifiers":{"custom_id":"key0"},"attributes":{"s":"x","date(d)":"2024-05-31T22:15:00Z","url(u)":"http://a/b"}}',
        '{"identifiers":{"custom_id":"key1"},"attributes":{"s":null,"date(d)":null,"url(u)":null}}',
        '{"identifiers":{"custom_id":"key2"},"attributes":{"date(d)":null}}',
        '{"identifiers":{"custom_id":"key3"},"attributes":{}}',
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.integers(1, 9))
def test_rows_that_send_the_same_are_written_as_any_other(sends: list[int], alike: int) -> None:
    """Written together or one by one, every row has the same text, in its own place."""
    days = [None if row % 4 == 0 else datetime(2026, 1, 1 + row % 28, tzinfo=UTC) for row in range(len(sends))]
    frame = rows(
        sends,
        s=pl.Series([None if row % 3 == 0 else f'"{row}"\\' for row in range(len(sends))], dtype=pl.String),
        d=pl.Series(days, dtype=pl.Datetime("ms", "UTC")),
        u=pl.Series([f"http://{row}" for row in range(len(sends))]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload, "_ALIKE", 10**9)
        apart = operations(frame, WHERE).to_list()
        patch.setattr(payload, "_ALIKE", alike)
        assert operations(frame, WHERE).to_list() == apart
    assert [json.loads(text)["identifiers"]["custom_id"] for text in apart] == frame[KEY].to_list()


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(1, 1, 1), "0001-01-01T00:00:00Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999000), "1969-12-31T23:59:59.999Z"),
        (datetime(2024, 2, 29, 12, 0, 0, 5000), "2024-02-29T12:00:00.005Z"),
        (datetime(9999, 12, 31, 23, 59, 59), "9999-12-31T23:59:59Z"),
    ],
)
def test_dates_in_json(moment: datetime, text: str) -> None:
    """Four digits of year, Z, whole seconds where the fraction is zero, else milliseconds."""
    frame = rows(
        [0b010],
        s=pl.Series([""]),
        d=pl.Series([moment.replace(tzinfo=UTC)], dtype=pl.Datetime("ms", "UTC")),
        u=pl.Series([""]),
    )
    assert json.loads(operations(frame, WHERE)[0])["attributes"] == {"date(d)": text}


def test_the_last_of_fifty_attributes() -> None:
    """Bit 49 chooses the fiftieth attribute."""
    attributes = [Attribute(f"c{number}", "integer", "", keep=False) for number in range(50)]
    frame = rows([1 << 49], **{attribute.name: pl.Series([number]) for number, attribute in enumerate(attributes)})
    assert json.loads(operations(frame, attributes)[0])["attributes"] == {"c49": 49}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 10), st.integers(3, 150))
@example([100, 1, 100, 100], 5, 10)
@example([8], 5, 10)
@example([9], 5, 10)
def test_chunks(lengths: list[int], max_profiles: int, max_bytes: int) -> None:
    """All rows in order, as full as both limits allow; one too long goes alone; bytes are those of the body."""
    found = list(chunks(np.array(lengths, np.int64), max_profiles=max_profiles, max_bytes=max_bytes))
    assert [row for chunk in found for row in range(chunk.first, chunk.first + chunk.rows)] == list(range(len(lengths)))
    for chunk, following in zip_longest(found, found[1:]):
        part = lengths[chunk.first : chunk.first + chunk.rows]
        assert chunk.bytes == len(body(pl.Series(["x" * length for length in part])))
        assert 1 <= chunk.rows <= max_profiles
        assert chunk.bytes <= max_bytes or chunk.rows == 1
        if following:  # the next row would not have fitted
            assert chunk.rows == max_profiles or chunk.bytes + 1 + lengths[following.first] > max_bytes


def test_chunks_of_many_rows() -> None:
    """Ten thousand rows at once, by count; and the ordinary limit of bytes."""
    lengths = np.full(10_001, 300, np.int64)
    assert [chunk.rows for chunk in chunks(lengths, max_profiles=1000)] == [1000] * 10 + [1]
    assert list(chunks(np.array([BODY_BYTES_MAX]), max_profiles=5)) == [Chunk(0, 1, BODY_BYTES_MAX + 2)]


def test_bodies_are_utf_8() -> None:
    """Lengths are of bytes, not of characters."""
    operation = operations(rows([1], s=pl.Series(["é\U0001f600"]), d=pl.Series([""]), u=pl.Series([""])), WHERE[:1])
    sent = body(operation)
    assert json.loads(sent)[0]["attributes"] == {"s": "é\U0001f600"}
    assert [chunk.bytes for chunk in chunks(operation.str.len_bytes().to_numpy().astype(np.int64), max_profiles=9)] == [
        len(sent)
    ]


COLUMNS: dict[str, tuple[pl.DataType, AttributeMapping]] = {
    "s": (pl.String(), AttributeMapping(column="s")),
    "i": (pl.Int128(), AttributeMapping(column="i")),
    "f": (pl.Float64(), AttributeMapping(column="f")),
    "b": (pl.Boolean(), AttributeMapping(column="b")),
    "t": (pl.Datetime("us"), AttributeMapping(column="t")),
    "d": (pl.Date(), AttributeMapping(column="d")),
    "u": (pl.String(), AttributeMapping(column="u", type="url")),
    "a": (pl.List(pl.String), AttributeMapping(column="a")),
    "j": (pl.String(), AttributeMapping(column="j", type="array")),
    "$email_address": (pl.String(), AttributeMapping(column="$email_address")),
    "$topic_preferences": (pl.List(pl.String), AttributeMapping(column="$topic_preferences")),
}

HOSTILE = st.sampled_from(
    [
        '"',
        "\\",
        '\\"}',
        "\x00",
        "\x1c",
        "\x1f",
        "\x7f",
        "\u0085",
        "\u00a0",
        "\u2028",
        "\u200b",
        "\ufeff",
        "\u202eevil",
        "\U0001f600",
        " ",
        "",
        "null",
        "}}",
        '{"$add":["x"]}',
        "a" * 300,
        "a" * 301,
        "\U0001f600" * 151,
        "é" * 300,
    ]
)
TEXTS = (
    st.none()
    | HOSTILE
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.lists(HOSTILE, max_size=3).map("".join)
)
ITEMS = st.none() | st.lists(TEXTS, max_size=3) | st.integers(24, 27).map(lambda size: ["x"] * size)
NUMBERS = st.none() | st.integers(-(2**63) - 2, 2**63 + 1) | st.sampled_from([0, 2**63, -(2**63), 2**100])
MOMENTS = st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
URLS = st.none() | st.builds(
    "{}{}{}".format, st.sampled_from(["http://", "x", "HTTPS://", "a:/", "//"]), HOSTILE, HOSTILE
)
URLS |= st.builds("http://h{}".format, st.text(st.characters(exclude_categories=["Cs"]), max_size=4))
JSON_TEXTS = TEXTS | ITEMS.map(json.dumps) | st.builds("{}{}{}".format, HOSTILE, ITEMS.map(json.dumps), HOSTILE)
JSON_TEXTS |= st.lists(st.integers() | st.floats() | st.booleans() | st.none(), max_size=2).map(json.dumps)
JSON_TEXTS |= st.sampled_from(["[1e400]", '\x0b["a"]', '["\\ud800"]', '["\\u0000"]', "[-]", "[1.5e3]"])
EMAILS = TEXTS | st.builds(
    "{}@{}.{}".format, HOSTILE, st.sampled_from(["a", "é", "a-b", "^"]), st.sampled_from(["c", "", "d_"])
)
TOPICS = ITEMS | st.lists(st.sampled_from(["a", "a_1", "a-b", "A", "é"]), max_size=3)
KEYS = st.lists(
    TEXTS | st.sampled_from(["NULL", "true", "a\nb", "1.0", "x" * 512, "x" * 513]), min_size=1, max_size=1
).map(lambda some: some[0])

ROW = st.fixed_dictionaries(
    {
        "key": KEYS,
        "s": TEXTS,
        "i": NUMBERS,
        "f": st.none() | st.floats(),
        "b": st.none() | st.booleans(),
        "t": MOMENTS,
        "d": st.none() | st.dates(),
        "u": URLS,
        "a": ITEMS,
        "j": JSON_TEXTS,
        "$email_address": EMAILS,
        "$topic_preferences": TOPICS,
    }
)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def as_text(value: str) -> Any:
    return ... if value.isspace() or units(value) > 300 else value or None


def as_items(items: list[Any]) -> Any:
    if any(item is None or item == "" or as_text(item) is ... for item in items) or len(items) > 25:
        return ...
    return items or None


def as_moment(value: datetime) -> str:
    cut = value.microsecond // 1000
    return f"{value:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + (f".{cut:03}Z" if cut else "Z")


EXPECTED = {
    "s": as_text,
    "i": lambda value: value if -(2**63) <= value < 2**63 else ...,
    "f": lambda value: value if math.isfinite(value) else ...,
    "b": lambda value: value,
    "t": as_moment,
    "d": lambda value: as_moment(datetime(value.year, value.month, value.day)),
    "a": as_items,
}
"""By plain Python: what is to be sent for a value that is not null; `...`: nothing, it is withheld."""


@settings(
    max_examples=60, deadline=None, report_multiple_bugs=False, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
@given(st.lists(ROW, min_size=1, max_size=4), st.integers(0, 2 ** len(COLUMNS) - 1))
def test_what_our_rules_let_through_the_local_api_takes(given_rows: list[dict[str, Any]], due: int) -> None:
    """Hostile rows: each body means what plain Python says, and the API's own rules refuse no part of it."""
    schema = {"key": pl.String(), **{name: dtype for name, (dtype, _) in COLUMNS.items()}}
    frame = pl.DataFrame(given_rows, schema=schema, orient="row")
    columns = [Column(name, dtype) for name, dtype in schema.items()]
    mapping = resolve(columns, "key", {name: attribute for name, (_, attribute) in COLUMNS.items()})
    valid, rejected = apply(mapping, frame)
    assert valid.height + rejected["attribute"].null_count() == frame.height
    planned = valid.with_columns(((pl.lit(due, pl.UInt64) | pl.col(WITHHELD)) - pl.col(WITHHELD)).alias(SEND))
    sent = json.loads(body(operations(planned, mapping.attributes)))
    by_key = {row["key"]: row for row in given_rows}
    for operation, key, withheld in zip(sent, valid[KEY], valid[WITHHELD], strict=True):
        assert operation.keys() == {"identifiers", "attributes"}
        assert operation["identifiers"] == {"custom_id": key}
        chosen = {
            attribute.json_key: attribute.name
            for bit, attribute in enumerate(mapping.attributes)
            if due >> bit & 1 and not withheld >> bit & 1
        }
        assert operation["attributes"].keys() == chosen.keys()
        if [row["key"] for row in given_rows].count(key) == 1:
            agrees(by_key[key], operation["attributes"], chosen)
            holds_back(by_key[key], withheld, mapping.attributes)
        judged = judge(operation, Settings())
        assert (judged.custom_id, judged.refusals) == (key, [])


def agrees(row: dict[str, Any], attributes: dict[str, Any], names: dict[str, str]) -> None:
    for json_key, value in attributes.items():
        name = names[json_key]
        if row[name] is None:
            assert value is None
        elif name in EXPECTED:
            expected = EXPECTED[name](row[name])
            assert (value, type(value)) == (expected, type(expected)), name


def holds_back(row: dict[str, Any], withheld: int, attributes: Any) -> None:
    for bit, attribute in enumerate(attributes):
        if attribute.name in EXPECTED and row[attribute.name] is not None:
            assert bool(withheld >> bit & 1) == (EXPECTED[attribute.name](row[attribute.name]) is ...), attribute.name


def test_the_plain_python_answer_itself() -> None:
    """The law above is only as good as its own idea of right."""
    assert as_moment(datetime(1, 1, 1, 0, 0, 0, 1999)) == "0001-01-01T00:00:00.001Z"
    assert EXPECTED["d"](date(2024, 2, 29)) == "2024-02-29T00:00:00Z"
    assert (as_text(""), as_text(" "), as_text("\U0001f600" * 151), as_items([]), as_items([""])) == (
        None,
        ...,
        ...,
        None,
        ...,
    )
