"""What each attribute type takes from each column type: every documented corner, and no value in any reason."""

# ruff: noqa: DTZ001 - naive timestamps are what warehouses have

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.judging import UNSEEN, WITHHELD, apply, unjudged
from connector.mapping import KEY, AttributeMapping, Column, resolve


class Withheld:
    def __repr__(self) -> str:  # test ids must not hold an address
        return "withheld"


BAD = Withheld()

SMILE = "\N{GRINNING FACE}"
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def judged(values: Any, dtype: pl.DataType, type_: Any = None, **options: Any) -> list[Any]:
    """The values as they would be sent, BAD where withheld; checks that bits and rejects agree.

    And that a bad value never looks like a good one to those who compare before they judge.
    """
    name, timezone = options.pop("name", "a"), options.pop("timezone", "UTC")
    json = options.pop("json", False)
    series = values if isinstance(values, pl.Series) else pl.Series("c", values, dtype=dtype, strict=False)
    frame = pl.DataFrame({"k": [f"key{row}" for row in range(len(series))], "c": series})
    mapping = resolve(
        [Column("k", pl.String()), Column("c", series.dtype, json)],
        "k",
        {name: AttributeMapping(column="c", type=type_, **options)},
        timezone=timezone,
    )
    valid, rejected = apply(mapping, frame)
    assert valid[KEY].to_list() == frame["k"].to_list()
    assert valid.filter(pl.col(WITHHELD) == 1)[KEY].to_list() == rejected["key"].to_list()
    assert valid.filter(pl.col(WITHHELD) == 1)[name].null_count() == rejected.height
    assert set(rejected["attribute"]) <= {name}
    assert rejected["reason"].null_count() == 0
    bad, raw = valid[WITHHELD] == 1, unjudged(mapping, frame)
    good, seen = raw.filter(~bad), raw.filter(bad & ~raw[UNSEEN])[name]
    assert good[name].equals(valid.filter(~bad)[name])
    assert not good[UNSEEN].any()
    known = [None, *good[name].to_physical().to_list()]
    assert not any(value in known for value in seen.to_physical().to_list())
    return [BAD if bit else value for value, bit in zip(valid[name].to_list(), valid[WITHHELD].to_list(), strict=True)]


def table(cases: dict[Any, Any]) -> tuple[list[Any], list[Any]]:
    return list(cases), list(cases.values())


TEXT = {
    "plain": "plain",
    "": None,
    " ": BAD,
    "\t\r\n": BAD,
    "\u00a0": BAD,
    "\u2003": BAD,
    " a ": " a ",
    "a" * 300: "a" * 300,
    "a" * 301: BAD,
    "é" * 300: "é" * 300,
    "é" * 301: BAD,
    SMILE * 150: SMILE * 150,
    SMILE * 150 + "a": BAD,
    "null": "null",
    'quote"\\\x00\x1f\u2028': 'quote"\\\x00\x1f\u2028',
    "\u202eright to left": "\u202eright to left",
}


@pytest.mark.parametrize("dtype", [pl.String(), pl.Categorical(), pl.Enum(sorted(TEXT))], ids=["text", "cat", "enum"])
def test_text_columns(dtype: pl.DataType) -> None:
    """Text counts UTF-16 units up to 300, empty is null, blank is withheld, all else stays byte for byte."""
    values, expected = table(TEXT)
    assert judged([*values, None], dtype) == [*expected, None]


@pytest.mark.parametrize("separator", ["\x1c", "\x1d", "\x1e", "\x1f"])
def test_blank_is_blank_to_any_reader(separator: str) -> None:
    """The information separators are white space to some languages, the local API's too: alone they are blank."""
    assert judged([separator], pl.String()) == [BAD]
    assert judged([["a", separator]], pl.List(pl.String)) == [BAD]
    assert judged([f"a{separator}b@example.org"], pl.String(), name="$email_address") == [BAD]
    assert keyed(pl.Series([separator])) == ([], [(separator, "the key is blank")])


def test_every_character_is_seen_or_blank_as_python_says() -> None:
    """A text, an item and a key of one character are withheld where Python calls it white space, and nowhere else."""
    every, some = range(0x3100), range(0x3100, 0x110000, 997)  # nothing beyond U+3000 is white space
    characters = [chr(code) for code in (*every, *some) if not 0xD800 <= code < 0xE000]
    expected = [BAD if character.isspace() else character for character in characters]
    assert judged(characters, pl.String()) == expected
    listed = judged([["a", character] for character in characters], pl.List(pl.String))
    assert [found is BAD for found in listed] == [value is BAD for value in expected]
    blank = {key for key, reason in keyed(pl.Series(characters))[1] if reason == "the key is blank"}
    assert blank == {character for character in characters if character.isspace()}


@pytest.mark.parametrize(
    ("dtype", "cases"),
    [
        (pl.Int64(), {5: "5", INT_MIN: str(INT_MIN)}),
        (pl.UInt64(), {2**64 - 1: str(2**64 - 1)}),
        (pl.Int128(), {2**100: str(2**100)}),
        (pl.Boolean(), {True: "true", False: "false"}),
        (pl.Decimal(10, 2), {Decimal("1.50"): "1.50"}),
        (pl.Date(), {date(2024, 2, 29): "2024-02-29"}),
        (pl.Float64(), {0.1: "0.1", 2.5: "2.5"}),
        (pl.Float32(), {0.5: "0.5"}),
    ],
    ids=str,
)
def test_other_columns_as_text(dtype: pl.DataType, cases: dict[Any, str]) -> None:
    """Numbers, booleans and days can be declared `string`, and go as their own digits."""
    values, expected = table(cases)
    assert judged([*values, None], dtype, "string") == [*expected, None]


@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Float32()], ids=str)
def test_no_number_is_no_text_either(dtype: pl.DataType) -> None:
    """NaN and infinities stay back where a float column is declared `string`: 'NaN' is nobody's text."""
    assert judged([float("nan"), float("inf"), float("-inf"), 1.5], dtype, "string") == [BAD, BAD, BAD, "1.5"]


@pytest.mark.parametrize("inner", [False, True], ids=["text", "array"])
def test_what_is_no_number_is_not_taken_for_the_same_text(inner: bool) -> None:
    """'NaN' in a text column is text that Batch may have; a NaN that became 'NaN' is seen to break a rule all the same."""
    values = [[float("nan")], [1.5]] if inner else [float("nan"), 1.5]
    frame = pl.DataFrame({"k": ["a", "b"], "c": values})
    type_: Any = "array" if inner else "string"
    columns = [Column(name, dtype) for name, dtype in frame.schema.items()]
    mapping = resolve(columns, "k", {"c": AttributeMapping(column="c", type=type_)})
    assert unjudged(mapping, frame)[UNSEEN].to_list() == [True, False]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.Int8(), [-128, 127, None], [-128, 127, None]),
        (pl.Int64(), [INT_MIN, INT_MAX], [INT_MIN, INT_MAX]),
        (pl.UInt64(), [INT_MAX, INT_MAX + 1, 2**64 - 1], [INT_MAX, BAD, BAD]),
        (pl.Int128(), [INT_MAX, INT_MAX + 1, INT_MIN, INT_MIN - 1, 2**100], [INT_MAX, BAD, INT_MIN, BAD, BAD]),
        (pl.Decimal(38, 0), [Decimal(INT_MAX), Decimal(INT_MAX + 1), Decimal(10**37)], [INT_MAX, BAD, BAD]),
        (pl.Decimal(38, 0), [Decimal(INT_MIN), Decimal(INT_MIN - 1), Decimal(0)], [INT_MIN, BAD, 0]),
    ],
    ids=str,
)
def test_integers_by_inference(dtype: pl.DataType, values: list[Any], expected: list[Any]) -> None:
    """Integers and decimals of scale 0 are integers, withheld outside 64 bits."""
    assert judged(values, dtype) == expected


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.Float64(), [3.0, 3.5, -0.0, float("nan"), float("inf"), None], [3, BAD, 0, BAD, BAD, None]),
        (pl.Float64(), [2.0**63, -(2.0**63), 1e300, 2.0**53 + 2], [BAD, INT_MIN, BAD, 2**53 + 2]),
        (pl.Float32(), [16777216.0, 0.5], [16777216, BAD]),
        (pl.Decimal(38, 2), [Decimal("2.00"), Decimal("2.01"), Decimal("-0.00")], [2, BAD, 0]),
        (pl.Decimal(38, 2), [Decimal(f"{INT_MAX}.00"), Decimal(f"{INT_MAX + 1}.00")], [INT_MAX, BAD]),
        (pl.String(), ["12", "-7", str(INT_MAX), str(INT_MAX + 1), ""], [12, -7, INT_MAX, BAD, None]),
        (pl.String(), ["1.5", "1_0", "0x1", "\u0663", "one", " ", "1e3"], [BAD] * 7),
        (pl.Enum(["7", "x"]), ["7", "x", None], [7, BAD, None]),
    ],
    ids=str,
)
def test_integers_by_declaration(dtype: pl.DataType, values: list[Any], expected: list[Any]) -> None:
    """What is declared `integer` is whole and within 64 bits, or withheld; nothing is rounded."""
    found = judged(values, dtype, "integer")
    assert found == expected
    assert {type(value) for value in found} <= {int, type(None), Withheld}


@pytest.mark.parametrize(
    ("dtype", "type_", "values", "expected"),
    [
        (pl.Float64(), None, [0.1, 5e-324, 1.7976931348623157e308, None], [0.1, 5e-324, 1.7976931348623157e308, None]),
        (pl.Float64(), None, [float("nan"), float("inf"), float("-inf")], [BAD] * 3),
        (pl.Float32(), None, [0.1, 3.4028235e38, float("nan"), float("inf")], [0.1, 3.4028235e38, BAD, BAD]),
        (
            pl.Decimal(38, 2),
            None,
            [Decimal("1.50"), Decimal("12345678901234567890.12")],
            [1.5, 12345678901234567890.12],
        ),
        (pl.Decimal(10, 4), None, [Decimal("1.1000"), Decimal("-0.0001")], [1.1, -0.0001]),
        (pl.Int64(), "float", [7, 2**53 + 1], [7.0, 2.0**53]),
        (pl.UInt64(), "float", [2**64 - 1], [2.0**64]),
        (pl.Decimal(38, 0), "float", [Decimal(7)], [7.0]),
        (pl.String(), "float", ["1.5", "-2e3", "", "nan", "inf", "1e999"], [1.5, -2000.0, None, BAD, BAD, BAD]),
        (pl.String(), "float", ["abc", " 1", "1,5", "0x1"], [BAD] * 4),
    ],
    ids=str,
)
def test_floats(dtype: pl.DataType, type_: str | None, values: list[Any], expected: list[Any]) -> None:
    """Floats are finite; single precision keeps its shortest form; decimals with a scale become floats."""
    assert judged(values, dtype, type_) == expected


@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Float32(), pl.Decimal(5, 2), pl.String()], ids=str)
def test_zero_has_no_sign(dtype: pl.DataType) -> None:
    """-0.0 and 0.0 are one value, so that it does not look changed."""
    values = {pl.String(): ["-0.0", "0"], pl.Decimal(5, 2): [Decimal("-0.00"), Decimal(0)]}.get(dtype, [-0.0, 0.0])
    assert [str(value) for value in judged(values, dtype, "float")] == ["0.0", "0.0"]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.Boolean(), [True, False, None], [True, False, None]),
        (pl.Int64(), [1, 0, 2, -1, None], [True, False, BAD, BAD, None]),
        (pl.UInt8(), [1, 0, 2], [True, False, BAD]),
        (pl.String(), ["true", "FALSE", "", "1", "yes", " true", "t"], [True, False, None, BAD, BAD, BAD, BAD]),
        (pl.Enum(["True", "no"]), ["True", "no"], [True, BAD]),
    ],
    ids=str,
)
def test_booleans(dtype: pl.DataType, values: list[Any], expected: list[Any]) -> None:
    """True and false, 1 and 0 of integers, and nothing that has to be guessed."""
    found = judged(values, dtype, "boolean")
    assert found == expected
    assert {type(value) for value in found} <= {bool, type(None), Withheld}


FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999000)


@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_first_and_last_moment(unit: Any, zone: str | None) -> None:
    """The years 1 and 9999 go, the moments around them are withheld."""
    first, last = -62_135_596_800_000, 253_402_300_799_999
    factor = {"ms": 1, "us": 1000}[unit]
    moments = [first * factor, last * factor, (first - 1) * factor, (last + 1) * factor]
    series = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime(unit, zone))
    assert judged(series, series.dtype) == [FIRST.replace(tzinfo=UTC), LAST.replace(tzinfo=UTC), BAD, BAD]


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Paris"])
@pytest.mark.parametrize(
    "dtype", [pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("us", "UTC"), pl.Datetime("ms", "Asia/Tokyo")], ids=str
)
def test_infinite_moments_are_withheld(dtype: pl.DataType, timezone: str) -> None:
    """A timestamp of 'infinity', as DuckDB writes it, is withheld: no calendar has it, and no run may end by it."""
    series = pl.Series([2**63 - 1, -(2**63) + 1, 0], dtype=pl.Int64).cast(dtype)
    assert judged(series, dtype, timezone=timezone)[:2] == [BAD, BAD]


def test_infinite_days_are_withheld() -> None:
    """A day of 'infinity', as DuckDB writes it, is withheld."""
    series = pl.Series([2**31 - 1, -(2**31) + 1, 0], dtype=pl.Int32).cast(pl.Date)
    assert judged(series, pl.Date()) == [BAD, BAD, datetime(1970, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_units_and_zones_agree(unit: Any, zone: str | None) -> None:
    """One instant is one value, whatever the column's unit and zone; parts of a millisecond are cut, not rounded."""
    instant = datetime(2024, 5, 31, 22, 15, 0, 123000, tzinfo=UTC)
    micros = int(instant.timestamp()) * 1_000_000 + 123_000 + (0 if unit == "ms" else 999)
    series = pl.Series([micros], dtype=pl.Int64).cast(pl.Datetime("us", zone)).dt.cast_time_unit(unit)
    assert judged(series, series.dtype) == [instant]


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_moments_before_1970_are_cut_downwards(unit: Any) -> None:
    """A microsecond before 1970 falls into the last millisecond of 1969."""
    series = pl.Series([-1, -1001], dtype=pl.Int64).cast(pl.Datetime("us")).dt.cast_time_unit(unit)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert judged(series, series.dtype) == [epoch - timedelta(milliseconds=1), epoch - timedelta(milliseconds=2)]


NAIVE = {
    datetime(2024, 7, 1, 12): datetime(2024, 7, 1, 10, tzinfo=UTC),
    datetime(2024, 1, 1): datetime(2023, 12, 31, 23, tzinfo=UTC),
    datetime(2024, 3, 31, 1, 59, 59): datetime(2024, 3, 31, 0, 59, 59, tzinfo=UTC),
    datetime(2024, 3, 31, 2, 30): BAD,
    datetime(2024, 3, 31, 3): datetime(2024, 3, 31, 1, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30): datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
}


@pytest.mark.parametrize("dtype", [pl.Datetime("us"), pl.Datetime("ns"), pl.String()], ids=str)
def test_naive_timestamps_in_a_zone(dtype: pl.DataType) -> None:
    """Wall times are of the source's zone: the skipped hour is withheld, the doubled one taken the first time."""
    values, expected = table(NAIVE)
    given = [str(value) for value in values] if dtype == pl.String else values
    assert judged(given, dtype, "date", timezone="Europe/Paris") == expected


def test_years_leave_the_calendar_by_their_zone() -> None:
    """The first hour of year 1 in Paris lies in year 0 of UTC: withheld."""
    values = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)]
    assert judged(values, pl.Datetime("us"), timezone="Europe/Paris")[0] is BAD
    assert judged(values, pl.Datetime("us"), timezone="America/New_York")[1] is BAD


def test_a_day_is_midnight_utc_in_any_zone() -> None:
    """A DATE has no zone to be shifted by."""
    values, expected = table(
        {date(2024, 2, 29): datetime(2024, 2, 29, tzinfo=UTC), date(1, 1, 1): datetime(1, 1, 1, tzinfo=UTC)}
    )
    assert judged([*values, None], pl.Date(), timezone="Asia/Tokyo") == [*expected, None]


def test_text_dates() -> None:
    """RFC 3339, a date and time without a zone, or a day; anything else is withheld."""
    instant = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
    good = {
        "2024-02-29T12:00:00Z": instant,
        "2024-02-29 12:00:00Z": instant,
        "2024-02-29T14:00:00+02:00": instant,
        "2024-02-29T12:00:00.123999Z": instant + timedelta(milliseconds=123),
        "2024-02-29T12:00:00": instant,
        "2024-02-29 12:00:00.5": instant + timedelta(milliseconds=500),
        "2024-02-29": datetime(2024, 2, 29, tzinfo=UTC),
        "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
        "2016-12-31T23:59:60Z": datetime(2017, 1, 1, tzinfo=UTC),  # a leap second, which no clock of Batch's has
        "": None,
    }
    values, expected = table(good)
    assert judged(values, pl.String(), "date") == expected
    bad = [
        "tomorrow",
        "2023-02-29",
        "2024-13-01",
        "29/02/2024",
        "0000-01-01",
        "10000-01-01",
        "2024-02-29T25:00:00Z",
        "1",
    ]
    assert judged(bad, pl.String(), "date") == [BAD] * len(bad)


URL_HEAD = "https://example.org/"


@pytest.mark.parametrize("dtype", [pl.String(), pl.Categorical()], ids=str)
def test_urls(dtype: pl.DataType) -> None:
    """A scheme and a host, no white space, up to 2,048 UTF-16 units."""
    longest = URL_HEAD + "a" * (2048 - len(URL_HEAD))
    good = [
        "http://a",
        "HTTPS://User:pw@Example.org:80/x?y#z",
        "app+x.1-2://host",
        "http://é.fr/ü",
        "http://[::1]/",
        longest,
    ]
    assert judged([*good, "", None], dtype, "url") == [*good, None, None]
    bad = ["example.org", "http://", "http:///path", "http://?q", "http://:80", "mailto:a@b", "http://a b", " http://a"]
    bad += ["http://a\n", "1http://a", longest + "a", URL_HEAD + SMILE * 1015, "//a", "http:/a", " "]
    assert judged(bad, dtype, "url") == [BAD] * len(bad)


ITEMS = [str(number) for number in range(26)]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.List(pl.String), [["b", "a", "b"], [], None], [["b", "a", "b"], None, None]),
        (pl.List(pl.String), [ITEMS[:25], ITEMS], [ITEMS[:25], BAD]),
        (pl.List(pl.String), [["a", None], [None], ["a", ""], ["a", " "]], [BAD] * 4),
        (
            pl.List(pl.String),
            [["a" * 300], ["a" * 301], [SMILE * 150], [SMILE * 151]],
            [["a" * 300], BAD, [SMILE * 150], BAD],
        ),
        (pl.List(pl.Int64), [[1, -2], [1, None], []], [["1", "-2"], BAD, None]),
        (pl.List(pl.Float64), [[1.5], [float("nan")], [1.0, float("inf")]], [["1.5"], BAD, BAD]),
        (pl.List(pl.Boolean), [[True, False]], [["true", "false"]]),
        (pl.List(pl.Date), [[date(2024, 1, 2)]], [["2024-01-02"]]),
        (pl.List(pl.Decimal(10, 2)), [[Decimal("1.50")]], [["1.50"]]),
        (pl.List(pl.Enum(["x", "y"])), [["y", "x"], None], [["y", "x"], None]),
        (pl.List(pl.Categorical), [["y", "x"], None], [["y", "x"], None]),
        (pl.Array(pl.String, 2), [["b", "a"], ["a", None], None], [["b", "a"], BAD, None]),
        (pl.List(pl.Null), [[], None], [None, None]),
    ],
    ids=str,
)
def test_arrays(dtype: pl.DataType, values: list[Any], expected: list[Any]) -> None:
    """1 to 25 items of text in their order; an empty array is null; one bad item withholds the array."""
    assert judged(values, dtype) == expected


def test_unordered_arrays_are_sets() -> None:
    """`unordered` sorts, drops repeated items, and judges what is left: that is what would be sent."""
    values = [["b", "a", "b"], ["a"] * 26, ["a", None, "a"], None]
    assert judged(values, pl.List(pl.String), unordered=True) == [["a", "b"], ["a"], BAD, None]


JSON = {
    '["a","b"]': ["a", "b"],
    ' [ "a" , "b" ]\n': ["a", "b"],
    '[1,true,-2.5,"x"]': ["1", "true", "-2.5", "x"],
    "[1234567890123456789, -9223372036854775808]": ["1234567890123456789", str(INT_MIN)],
    r'["\u00e9\ud83d\ude00\n\"\\"]': [f'é{SMILE}\n"\\'],
    "[]": None,
    "null": None,
    "": None,
    '["a",null]': BAD,
    '[" "]': BAD,
    '[["a"]]': BAD,
    '{"a":1}': BAD,
    '"a"': BAD,
    '["a"': BAD,
    '["a",]': BAD,
    '["a"] x': BAD,
    "[NaN]": BAD,
    "[01]": BAD,
    r'["\ud83d"]': BAD,
    '["\t"]': BAD,
    "not json": BAD,
}


@pytest.mark.parametrize("dtype", [pl.String(), pl.Categorical()], ids=str)
def test_json_text_arrays(dtype: pl.DataType) -> None:
    """A text column declared `array` holds JSON arrays of scalars; all else is withheld."""
    values, expected = table(JSON)
    assert judged([*values, None], dtype, "array") == [*expected, None]


@pytest.mark.parametrize("text", ['\u00a0["a"]', '["a"]\u2003', '\x0b["a"]', "[1e400]", "[-1e999]", f"[{10**400}]"])
def test_hostile_json_ends_no_run(text: str) -> None:
    """Text that the JSON parser chokes on is withheld, and its neighbours go."""
    assert judged([text, '["a"]'], pl.String(), "array")[1] == ["a"]
    assert judged([text, '["a"]'], pl.String(), "array")[0] is BAD


def test_json_of_the_warehouse_is_an_array_by_itself() -> None:
    """A column of the warehouse's JSON type is an array; a plain text column stays text."""
    assert judged(['["a"]'], pl.String(), json=True) == [["a"]]
    assert judged(['["a"]'], pl.String()) == ['["a"]']


@pytest.mark.parametrize("type_", ["string", "integer", "float", "boolean", "date", "url", "array", None])
def test_a_column_of_nothing_is_null_in_every_type(type_: str | None) -> None:
    """A column whose type is Null has no value to be wrong."""
    assert judged([None, None], pl.Null(), type_) == [None, None]


NATIVE: dict[str, tuple[list[Any], list[Any]]] = {
    "$email_address": (
        ["jo@example.org", "é+x@a-b.co", "a" * 244 + "@example.org"],
        ["jo", "jo@example", "@a.b", "a@@b.c", "a b@c.d", "a@b.c\n", "a" * 245 + "@example.org"],
    ),
    "$phone_number": (["+1", "+123456789012345"], ["1", "+", "+1234567890123456", "+33 1", "0033", "+\u0661", "+1\n"]),
    "$email_marketing": (["subscribed", "unsubscribed"], ["SUBSCRIBED", "yes", "subscribed\n"]),
    "$sms_marketing": (["subscribed", "unsubscribed"], ["SUBSCRIBED", "true", " subscribed"]),
    "$language": (["fr"], ["FR", "fra", "f", "é!"]),
    "$region": (["FR"], ["fr", "FRA", "F"]),
    "$timezone": (["Europe/Paris", "UTC"], ["europe/paris", "Mars/Base", "CET+1"]),
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_attributes(name: str) -> None:
    """Each native attribute has its own pattern; null and empty text reset it."""
    good, bad = NATIVE[name]
    found = judged([*good, *bad, None, ""], pl.String(), name=name)
    assert found == [*good, *([BAD] * len(bad)), None, None]


def test_topics() -> None:
    """Topics are lower-case letters, digits and underscores: what the strictest of Batch's own validators takes."""
    values = [["news", "a_1"], ["News"], ["a b"], ["é"], ["a-b"], [], None]
    found = judged(values, pl.List(pl.String), name="$topic_preferences")
    assert found == [["news", "a_1"], BAD, BAD, BAD, BAD, None, None]


@pytest.mark.parametrize(
    ("dtype", "type_"),
    [
        (pl.Binary(), None),
        (pl.Time(), None),
        (pl.Duration("us"), None),
        (pl.Struct({"a": pl.Int64()}), None),
        (pl.Object(), None),
        (pl.List(pl.List(pl.String)), None),
        (pl.List(pl.Struct({"a": pl.Int64()})), None),
        (pl.Binary(), "string"),
        (pl.Datetime("us"), "string"),
        (pl.Boolean(), "integer"),
        (pl.Date(), "integer"),
        (pl.Boolean(), "float"),
        (pl.Float64(), "boolean"),
        (pl.Int64(), "date"),
        (pl.Int64(), "url"),
        (pl.Int64(), "array"),
    ],
    ids=str,
)
def test_unsupported_columns_name_themselves(dtype: pl.DataType, type_: Any) -> None:
    """A column that cannot become what is asked is refused before a row is read, by attribute, column and type."""
    columns = [Column("k", pl.String()), Column("my_column", dtype)]
    with pytest.raises(WarehouseError, match=r"attribute 'plan', column 'my_column': type .*"):
        resolve(columns, "k", {"plan": AttributeMapping(column="my_column", type=type_)})


KEYS = {
    "a": None,
    " edge ": None,
    "jo@example.org": None,
    "None": None,
    "1.0": None,
    "a" * 512: None,
    SMILE * 256: None,
    "": "blank",
    "\t ": "blank",
    "a\nb": "line break",
    "a\r": "line break",
    "a" * 513: "longer than 512",
    SMILE * 256 + "a": "longer than 512",
    "NULL": "reserved",
    "Undefined": "reserved",
    "nil": "reserved",
    "(null)": "reserved",
    "[object Object]": "reserved",
    "TRUE": "reserved",
    "false": "reserved",
    "NaN": "reserved",
    "Infinity": "reserved",
    "-infinity": "reserved",
}


def keyed(series: pl.Series) -> tuple[list[str], list[tuple[str | None, str]]]:
    mapping = resolve([Column("k", series.dtype), Column("c", pl.String())], "k", None)
    valid, rejected = apply(mapping, pl.DataFrame({"k": series, "c": ["x"] * len(series)}))
    assert rejected["attribute"].null_count() == rejected.height
    return valid[KEY].to_list(), list(rejected.select("key", "reason").iter_rows())


@pytest.mark.parametrize("dtype", [pl.String(), pl.Enum(sorted(KEYS)), pl.Categorical()], ids=["text", "enum", "cat"])
def test_text_keys(dtype: pl.DataType) -> None:
    """Blank, long, broken and reserved keys reject their row, with the reason; all others stay as they stand."""
    valid, rejected = keyed(pl.Series(list(KEYS), dtype=dtype))
    assert valid == [key for key, reason in KEYS.items() if reason is None]
    bad = {key: reason for key, reason in KEYS.items() if reason}
    assert [key for key, _ in rejected] == list(bad)
    assert all(expected in reason for expected, (_, reason) in zip(bad.values(), rejected, strict=True))


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.Int64(), [1, -1, INT_MIN], ["1", "-1", str(INT_MIN)]),
        (pl.UInt64(), [2**64 - 1], [str(2**64 - 1)]),
        (pl.Int128(), [2**100], [str(2**100)]),
        (pl.Float64(), [1.0, -0.0, 1e15], ["1", "0", "1000000000000000"]),
        (pl.Float32(), [16777216.0], ["16777216"]),
        (pl.Decimal(38, 2), [Decimal("12345678901.00")], ["12345678901"]),
        (pl.Decimal(38, 0), [Decimal(7), Decimal(2**70)], ["7", str(2**70)]),
    ],
    ids=str,
)
def test_number_keys(dtype: pl.DataType, values: list[Any], expected: list[str]) -> None:
    """Integers become their digits, whole floats and decimals too."""
    assert keyed(pl.Series(values, dtype=dtype)) == (expected, [])


def test_float_keys_must_be_whole() -> None:
    """A float key with a fraction, NaN or infinity is no key; a null is named as null."""
    valid, rejected = keyed(pl.Series([1.5, float("nan"), float("inf"), None, 2.0]))
    assert valid == ["2"]
    assert [reason for _, reason in rejected] == ["the key is not a whole number"] * 3 + ["the key is null"]


@pytest.mark.parametrize(
    "dtype", [pl.Boolean(), pl.Date(), pl.Datetime("us"), pl.Binary(), pl.List(pl.String)], ids=str
)
def test_types_that_are_no_key(dtype: pl.DataType) -> None:
    """A key column of another type is refused, by name and type."""
    with pytest.raises(WarehouseError, match=r"key column 'k': type .* cannot be a key"):
        resolve([Column("k", dtype), Column("c", pl.String())], "k", None)
