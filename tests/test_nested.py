"""Objects and arrays of objects: both ways to them say the same, whatever is inside, and a broken rule says where."""

# ruff: noqa: DTZ001 - naive timestamps are what warehouses have

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from connector import nested
from connector.rules import Rule
from connector.values import UnsupportedError, as_source

SMILE = "\N{GRINNING FACE}"
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Withheld:
    def __repr__(self) -> str:  # test ids must not hold an address
        return "withheld"


BAD = Withheld()


def why(rules: tuple[Rule, ...]) -> pl.Expr:
    told = [
        pl.when(rule.broken).then(pl.lit(rule.reason) if isinstance(rule.reason, str) else rule.reason)
        for rule in rules
    ]
    return pl.coalesce(*told, pl.lit(None, dtype=pl.String))


def judged(series: pl.Series, type_: Any = None, **options: Any) -> list[tuple[Any, str | None]]:
    """Each value's JSON, parsed, and the reason why it stays back; one of them is None."""
    json_column = options.get("json", False)
    travels, typed = nested.typed(
        "c", series.dtype, type_ or nested.inferred(series.dtype, json=json_column), **options
    )
    found = as_source(series.to_frame("c")).select(typed.value.alias("value"), why(typed.rules).alias("reason"))
    assert found.height == len(series)
    assert found.schema["value"] == nested.EVENT_VALUE_DTYPE[travels]
    return [
        (None, reason) if reason else (parsed(value) if travels == "object" else value, None)
        for value, reason in found.rows()
    ]


def parsed(text: str | None) -> Any:
    """What the JSON holds; without NaN, and without a name that is there twice."""
    if text is None:
        return None
    return json.loads(text, object_pairs_hook=once, parse_constant=pytest.fail)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def column(rows: list[Any], dtype: Any) -> pl.Series:
    return pl.Series(rows, dtype=dtype)


def struct(rows: list[Any], dtype: Any, **options: Any) -> list[tuple[Any, str | None]]:
    """Judges a struct {x: value} for each value."""
    return judged(column([{"x": row} for row in rows], pl.Struct({"x": dtype})), **options)


def text(value: Any, type_: Any = "object", **options: Any) -> tuple[Any, str | None]:
    """Judges one JSON text; what is no text is written as JSON first."""
    given = value if isinstance(value, str) else json.dumps(value)
    return judged(column([given], pl.String), type_, **options)[0]


# --- the law: a plain reading, value by value, that knows neither expressions nor JSON text


class BrokenError(Exception):
    pass


def plain(value: Any, wrapper: str | None = None) -> Any:
    """The value as it has to arrive; None: left out."""
    if value is None or value in ("", [], {}):
        return None
    if wrapper == "date" or isinstance(value, datetime):
        return plain_date(value)
    if isinstance(value, dict | list):
        return plain_object(value) if isinstance(value, dict) else plain_list(value)
    if isinstance(value, str):
        longest = 2048 if wrapper == "url" else 300
        bad_url = wrapper == "url" and not value.startswith("https://")
        return refuse(value, bad_url or value.isspace() or len(value.encode("utf-16-le")) > 2 * longest)
    if isinstance(value, float):
        return refuse(value or 0.0, not math.isfinite(value))
    return value


def refuse(value: Any, broken: bool) -> Any:
    if broken:
        raise BrokenError
    return value


def plain_date(value: Any) -> str:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BrokenError from None
    value = value.astimezone(UTC)
    fraction = f".{value.microsecond // 1000:03}" if value.microsecond >= 1000 else ""
    return f"{value.year:04}-{value:%m-%dT%H:%M:%S}{fraction}Z"


def plain_object(value: dict[str, Any]) -> Any:
    found = {}
    for name, inner in value.items():
        prefix, separator, rest = name.lower().partition("__")
        wrapper = prefix if separator and prefix in ("date", "url") else "date" if isinstance(inner, datetime) else None
        bare = rest if separator and prefix in ("date", "url") else name.lower()
        arrived = plain(inner, wrapper)
        if arrived is not None:
            found[f"{wrapper}({bare})" if wrapper else bare] = arrived
    return found or None


def plain_list(value: list[Any]) -> Any:
    if any(item is None for item in value):
        raise BrokenError
    if all(isinstance(item, str) for item in value):
        return refuse(value, len(value) > 25 or any(not i.strip() or plain(i) is None for i in value))
    found = [arrived for item in value if (arrived := plain(item)) is not None]
    return refuse(found, len(found) > 25) or None


def as_json(value: Any) -> Any:
    """The value as a warehouse writes it into JSON: a timestamp becomes text, under the name that says so."""
    if isinstance(value, dict):
        return {
            f"date({name.lower()})" if isinstance(inner, datetime) else name.lower(): as_json(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["", " ", "\u2003", '"', "\\", '"x":null', "null", "{}", "[]", "},{", "a" * 300, "é" * 301]),
    st.sampled_from([SMILE * 150, SMILE * 151, "\x00\x1f\u2028", "</script>", "'; DROP TABLE x; --", "\u202e", "%{x}"]),
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)
LEAVES: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("", pl.String(), TEXTS),
    ("", pl.Int64(), st.integers(INT_MIN, INT_MAX)),
    ("", pl.Float64(), st.floats()),
    ("", pl.Boolean(), st.booleans()),
    ("", pl.Datetime("us", "UTC"), MOMENTS),
    ("", pl.List(pl.String), st.lists(st.one_of(TEXTS, st.none()), max_size=2) | st.just(["a"] * 26)),
    (
        "url__",
        pl.String(),
        st.sampled_from(["", "https://a", 'https://a/"{},', "https://" + "a" * 2041, "ftp//x", " "]),
    ),
    (
        "date__",
        pl.String(),
        st.one_of(MOMENTS.map(lambda at: at.isoformat()), st.sampled_from(["", "soon", "2024-13-01T00:00:00Z"])),
    ),
]


@st.composite
def objects(draw: st.DrawFn, level: int = 1) -> tuple[Any, st.SearchStrategy[Any]]:
    """A struct type, and its values."""
    fields: dict[str, Any] = {}
    members: dict[str, st.SearchStrategy[Any]] = {}
    for bare in draw(
        st.lists(st.sampled_from(["x", "Y", "price", "a1_", "n" * 30, "date"]), min_size=1, max_size=4, unique=True)
    ):
        kind = draw(st.integers(0, len(LEAVES) + (1 if level < 3 else -1)))
        if kind < len(LEAVES):
            prefix, dtype, inner = LEAVES[kind]
        else:
            prefix, (dtype, inner) = "", draw(objects(level + 1))
            if kind > len(LEAVES):
                dtype, inner = (
                    pl.List(dtype),
                    st.lists(st.one_of(st.none(), inner) if draw(st.booleans()) else inner, max_size=3),
                )
        fields[prefix + bare] = dtype
        members[prefix + bare] = st.one_of(st.none(), inner)
    return pl.Struct(fields), st.fixed_dictionaries(members)


@st.composite
def columns(draw: st.DrawFn) -> pl.Series:
    dtype, rows = draw(objects())
    if draw(st.booleans()):
        dtype, rows = pl.List(dtype), st.lists(rows, max_size=3)
    return column(draw(st.lists(st.one_of(st.none(), rows), max_size=5)), dtype)


def expected(value: Any) -> Any:
    try:
        return plain(value)
    except BrokenError:
        return BAD


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])
@given(columns())
@example(column([[{"x": 1.0}] * 26, [{"x": 1.0}] * 25 + [{"x": None}]], pl.List(pl.Struct({"x": pl.Float64}))))
@example(column([{"x": '"x":null,', "y": None}], pl.Struct({"x": pl.String, "y": pl.String})))
@example(column([], pl.List(pl.Struct({"x": pl.String}))))
def test_both_ways_and_a_plain_reading_agree(rows: pl.Series) -> None:
    """Structs by expressions, the same as JSON text, and a reading in plain Python give equal JSON or all refuse."""
    wanted = [expected(value) for value in rows.to_list()]
    texts = column([json.dumps(as_json(value)) for value in rows.to_list()], pl.String)
    for found in (judged(rows), judged(texts, "object")):
        assert repr([BAD if reason else value for value, reason in found]) == repr(wanted)  # repr tells 1 from 1.0


# --- structs and lists of structs


def test_a_list_of_products() -> None:
    """The plain case: exactly this JSON text."""
    rows = column(
        [[{"Name": "Café", "price": 2.5, "in_sales": True}, {"Name": "Tea", "price": None, "in_sales": False}]], None
    )
    travels, typed = nested.typed("c", rows.dtype, "object")
    found = as_source(rows.to_frame("c")).select(typed.value).item()
    assert travels == "object"
    assert found == '[{"name":"Café","price":2.5,"in_sales":true},{"name":"Tea","in_sales":false}]'


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (pl.Decimal(10, 0), [Decimal(5), None], [{"x": 5}, None]),
        (pl.Decimal(10, 2), [Decimal("1.50"), Decimal("2.00")], [{"x": 1.5}, {"x": 2.0}]),
        (pl.Float32(), [0.1, -0.0], [{"x": 0.1}, {"x": 0.0}]),
        (pl.Float64(), [1e300, 5e-324, 0.1 + 0.2], [{"x": 1e300}, {"x": 5e-324}, {"x": 0.30000000000000004}]),
        (pl.UInt64(), [INT_MAX, INT_MAX + 1], [{"x": INT_MAX}, BAD]),
        (pl.Int128(), [INT_MIN, INT_MIN - 1], [{"x": INT_MIN}, BAD]),
        (pl.Int8(), [-1], [{"x": -1}]),
        (pl.Date(), [date(2024, 2, 29)], [{"date(x)": "2024-02-29T00:00:00Z"}]),
        (pl.Datetime("ns"), [datetime(2024, 5, 1, 12)], [{"date(x)": "2024-05-01T12:00:00Z"}]),
        (pl.Categorical(), ["a", ""], [{"x": "a"}, None]),
        (pl.Enum(["a"]), ["a", None], [{"x": "a"}, None]),
        (pl.List(pl.Int64), [[1, 2], []], [{"x": ["1", "2"]}, None]),
        (pl.List(pl.Float64), [[math.inf], [0.5]], [BAD, {"x": ["0.5"]}]),
        (pl.Array(pl.String, 2), [["a", "b"], None], [{"x": ["a", "b"]}, None]),
        (pl.Array(pl.Struct({"y": pl.Int64}), 1), [[{"y": 1}], [{"y": None}]], [{"x": [{"y": 1}]}, None]),
        (pl.Null(), [None], [None]),
        (pl.List(pl.Null), [[], [None], None], [None, BAD, None]),
        (pl.Struct({"y": pl.Null}), [{"y": None}, None], [None, None]),
    ],
    ids=str,
)
def test_field_types(dtype: Any, values: list[Any], expected: list[Any]) -> None:
    """Fields of a struct, in a list or not, become what columns of their type become."""
    assert [BAD if reason else value for value, reason in struct(values, dtype)] == expected
    listed = judged(column([[{"x": value}] for value in values], pl.List(pl.Struct({"x": dtype}))))
    assert [BAD if reason else value for value, reason in listed] == [
        [value] if isinstance(value, dict) else value for value in expected
    ]


def test_naive_times_inside_are_in_the_zone_of_the_source() -> None:
    """A naive timestamp or date text in a struct means the source's time zone."""
    rows = column([{"at": datetime(2024, 7, 1, 12), "date__on": "2024-07-01 12:00:00"}], None)
    assert judged(rows, timezone="Europe/Paris") == [
        ({"date(at)": "2024-07-01T10:00:00Z", "date(on)": "2024-07-01T10:00:00Z"}, None)
    ]


NESTED = pl.List(
    pl.Struct(
        {
            "Price": pl.Float64,
            "deep": pl.Struct({"tags": pl.List(pl.String), "all": pl.List(pl.Struct({"url__at": pl.String}))}),
        }
    )
)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"Price": math.nan}, "price: not a finite number (NaN or infinite)"),
        ({"deep": {"tags": ["a"] * 26}}, "deep.tags: more than 25 items"),
        ({"deep": {"tags": ["secret", ""]}}, "deep.tags: an item is empty or only white space"),
        ({"deep": {"all": [{"url__at": "secret"}]}}, "deep.all.at: not a URL with a scheme and a host"),
        ({"deep": {"all": [None]}}, "deep.all: an item is null"),
        ({"deep": {"all": [{"url__at": "https://a"}] * 26}}, "deep.all: more than 25 items"),
        (None, "an item is null"),
    ],
)
def test_reasons_name_the_field(item: Any, reason: str) -> None:
    """The reason holds the path to the broken field and no value, natively and in JSON text, and holds for its row alone."""
    good = {"Price": 1.5}
    assert judged(column([[good], [good, item], None, []], NESTED)) == [
        ([{"price": 1.5}], None), (None, reason), (None, None), (None, None)
    ]  # fmt: skip
    lowered = {name.lower(): value for name, value in item.items()} if item else None
    assert text([{"price": 1.5}, lowered]) == (None, reason)


def test_no_number_becomes_null() -> None:
    """NaN and infinities hold the whole attribute back: as null they would have looked like no value."""
    assert {reason for _, reason in struct([math.nan, math.inf, -math.inf], pl.Float64)} == {
        "x: not a finite number (NaN or infinite)"
    }


def test_slices_and_masked_values() -> None:
    """Rows of a slice are its own, and what stands under a null is never sent."""
    rows = column([[{"x": value}] for value in range(100)], pl.List(pl.Struct({"x": pl.Int64})))
    assert judged(rows[40:42]) == [([{"x": 40}], None), ([{"x": 41}], None)]
    inner = column([{"x": "hidden"}, {"x": "seen"}], None)
    masked = pl.select(pl.when(column([False, True], pl.Boolean)).then(inner)).to_series()
    assert judged(masked) == [(None, None), ({"x": "seen"}, None)]


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (pl.Struct({"a": pl.Struct({"b": pl.Duration})}), ["field 'a.b' has type Duration"]),
        (pl.Struct({"a": pl.List(pl.Struct({"b": pl.Binary}))}), ["field 'a.b' has type Binary"]),
        (pl.List(pl.Struct({"a": pl.Time})), ["field 'a' has type Time"]),
        (pl.Struct({"a": pl.Object}), ["field 'a' has type Object"]),
        (pl.Struct({"a": pl.List(pl.List(pl.String))}), ["field 'a' has type List(List(String))"]),
        (pl.Struct({"a": pl.List(pl.List(pl.Struct({"b": pl.String})))}), ["field 'a' has type List(List("]),
        (pl.Struct({"a": pl.List(pl.Binary)}), ["field 'a' has type List(Binary)"]),
        (pl.Struct({"a": pl.List(pl.Duration)}), ["field 'a' has type List(Duration"]),
        (pl.Struct({"url__a": pl.Int64}), ["field 'a' has type Int64", "must be text"]),
        (pl.Struct({"date__a": pl.Struct({"b": pl.Int64})}), ["field 'a' has type Struct", "cannot be a date"]),
        (pl.Struct({"a-b": pl.Int64}), ["field 'a-b'", "1 to 30 of a-z, 0-9 and _"]),
        (pl.Struct({"o": pl.Struct({"": pl.Int64})}), ["field 'o'", "field ''"]),
        (pl.Struct({"a" * 31: pl.Int64}), ["1 to 30"]),
        (pl.Struct({"$label": pl.String}), ["'$label'"]),
        (pl.Struct({"straße": pl.String}), ["'straße'"]),
        (pl.Struct({"A": pl.Int64, "a": pl.Int64}), ["'A' and 'a'"]),
        (pl.Struct({"a": pl.Int64, "date__a": pl.Date}), ["'a' and 'date__a'"]),
        (pl.Struct({f"a{n}": pl.Int64 for n in range(21)}), ["21 fields, allowed are 1 to 20"]),
        (pl.Struct({}), ["0 fields"]),
        (pl.Struct({"a": pl.Struct({"b": pl.Struct({"c": pl.Struct({"d": pl.Int64})})})}), ["field 'a.b.c'", "level 4", "allowed are 3"]),
        (pl.List(pl.Struct({"a": pl.List(pl.Struct({"b": pl.List(pl.Struct({"c": pl.Struct({"d": pl.Int64})}))}))})), ["field 'a.b.c'"]),
    ],
)  # fmt: skip
def test_types_that_cannot_be_sent(dtype: Any, words: list[str]) -> None:
    """A struct that can never be sent is refused before a row is read, and the error says where inside."""
    with pytest.raises(UnsupportedError) as error:
        nested.typed("c", dtype, "object")
    for word in words:
        assert word in str(error.value)


def test_limits_are_allowed() -> None:
    """Twenty fields, three levels and names of thirty characters after the prefix are within the limits."""
    many = {f"a{n}": n for n in range(20)}
    deep = {"a": [{"b": {"c": 1}}]}
    name = "n" * 30
    for value in (many, deep, {f"date__{name}": "2024-05-01T00:00:00Z"}):
        native, as_text = judged(column([value], None))[0], text(value)
        assert native == as_text
        assert native[1] is None
    assert text({f"date__{name}": "2024-05-01T00:00:00Z"})[0] == {f"date({name})": "2024-05-01T00:00:00Z"}


# --- what is declared


STRUCT = pl.Struct({"x": pl.Int64})


@pytest.mark.parametrize(
    ("dtype", "json_column", "type_"),
    [
        (STRUCT, False, "object"),
        (pl.List(STRUCT), False, "object"),
        (pl.Array(STRUCT, 2), False, "object"),
        (pl.String(), True, "object"),
        (pl.String(), False, "string"),
        (pl.List(pl.String), False, "array"),
        (pl.Datetime("us"), False, "date"),
        (pl.Int8(), False, "integer"),
    ],
)
def test_inference(dtype: Any, json_column: bool, type_: str) -> None:
    """Structs, lists of them and semi-structured columns are objects; all else is as on profiles."""
    assert nested.inferred(dtype, json=json_column) == type_


@pytest.mark.parametrize(
    ("dtype", "type_", "travels"),
    [
        (STRUCT, "object", "object"),
        (pl.List(STRUCT), "object", "object"),
        (pl.List(STRUCT), "array", "object"),
        (pl.String(), "array", "object"),
        (pl.Categorical(), "object", "object"),
        (pl.List(pl.String), "array", "array"),
        (pl.Null(), "object", "object"),
        (pl.Null(), "array", "array"),
        (pl.String(), "string", "string"),
        (pl.Int64(), "string", "string"),
        (pl.String(), "url", "url"),
    ],
)
def test_what_a_type_travels_as(dtype: Any, type_: Any, travels: str) -> None:
    """Whatever may hold objects travels as JSON text, all else as on profiles."""
    found, typed = nested.typed("c", dtype, type_)
    assert found == travels
    assert as_source(column([None], dtype).to_frame("c")).select(typed.value).dtypes == [
        nested.EVENT_VALUE_DTYPE[found]
    ]


@pytest.mark.parametrize(
    ("dtype", "type_", "options"),
    [
        (STRUCT, "array", {}),
        (STRUCT, "string", {}),
        (pl.List(STRUCT), "string", {}),
        (pl.List(STRUCT), "object", {"unordered": True}),
        (pl.List(pl.String), "object", {}),
        (pl.Int64(), "object", {}),
        (pl.Binary(), "object", {}),
        (pl.List(pl.List(STRUCT)), "array", {}),
        (pl.List(pl.List(STRUCT)), "object", {}),
    ],
)
def test_what_cannot_be_declared(dtype: Any, type_: Any, options: Any) -> None:
    """A type that the column can never have is refused before a row is read."""
    with pytest.raises(UnsupportedError):
        nested.typed("c", dtype, type_, **options)


A_TEXT, AN_OBJECT, OBJECTS = ["a", "b"], {"x": 1}, [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("type_", "json_column", "taken", "refused"),
    [
        ("object", False, [AN_OBJECT, OBJECTS], [A_TEXT]),
        ("array", False, [OBJECTS, A_TEXT], [AN_OBJECT]),
        ("array", True, [OBJECTS, A_TEXT], [AN_OBJECT]),
        ("object", True, [AN_OBJECT, OBJECTS, A_TEXT], []),
    ],
)
def test_shapes_of_json_text(type_: Any, json_column: bool, taken: list[Any], refused: list[Any]) -> None:
    """JSON text holds what its declaration says; scalars never; null and what is empty is no value."""
    for value in taken:
        assert text(value, type_, json=json_column) == (value, None)
    for value in [*refused, 5, 1.5, True, "a", "NaN", '"a"']:
        assert text(value, type_, json=json_column)[1] is not None
    for nothing in ("null", "{}", "[]", "", " [ ] ", '{"a":null,"b":"","c":[],"d":{},"e":{"f":null}}'):
        assert (len(nothing) > 9 and type_ == "array") or text(nothing, type_, json=json_column) == (None, None)


def test_unordered_arrays_of_text() -> None:
    """An array of text whose order means nothing is sorted and loses repeated items, before they are counted."""
    assert text(["b", "a", "b"], "array", unordered=True) == (["a", "b"], None)
    assert text(["b", "a"] * 13, "array", unordered=True) == (["a", "b"], None)
    assert text(["b", "a", "b"], "array") == (["b", "a", "b"], None)
    assert text([{"x": 2}, {"x": 1}], "array", unordered=True) == ([{"x": 2}, {"x": 1}], None)


# --- JSON text alone


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ('{"date(x)": "2024-05-01T12:00:00+02:00"}', {"date(x)": "2024-05-01T10:00:00Z"}),
        ('{"date__x": "2024-05-01t12:00:00.1239z"}', {"date(x)": "2024-05-01T12:00:00.123Z"}),
        ('{"date(x)": "1969-12-31 23:59:59.99999999999Z"}', {"date(x)": "1969-12-31T23:59:59.999Z"}),
        ('{"date(x)": "0001-01-01T00:00:00Z"}', {"date(x)": "0001-01-01T00:00:00Z"}),
        ('{"date(x)": "2024-05-01T12:00:00.0009Z"}', {"date(x)": "2024-05-01T12:00:00Z"}),
        ('{"date(x)": ""}', None),
        ('{"url(x)": "https://a/?b=\\"c\\""}', {"url(x)": 'https://a/?b="c"'}),
        ('{"url__x": "app://u:p@h/\\u00e9"}', {"url(x)": "app://u:p@h/é"}),
        ('{"date": "a", "url": "b", "date__": "c", "_": 1, "0": 2}', {"date": "a", "url": "b", "date__": "c", "_": 1, "0": 2}),
        ('{"x": -0.0, "y": 0, "z": false}', {"x": 0.0, "y": 0, "z": False}),
        ('{"x": 9223372036854775807, "y": -9223372036854775808, "z": 1E2}', {"x": INT_MAX, "y": INT_MIN, "z": 100.0}),
        ('{"x": "\\ud83d\\ude00\\u0000\\u2028"}', {"x": SMILE + "\x00\u2028"}),
        ('{"x": [{}, {"y": null}, {"y": 1}]}', {"x": [{"y": 1}]}),
        ('\r\n\t {"x" : [ "a" , "b" ] } ', {"x": ["a", "b"]}),
        ('{"a":{"b":{"c":{}}}}', None),
        ('{"a":{"b":{"c":[{}]}}}', None),
        (json.dumps({"x": [{"y": 1}] * 25 + [{}]}), {"x": [{"y": 1}] * 25}),
        (json.dumps({f"a{n}": n or None for n in range(21)}), {f"a{n}": n for n in range(1, 21)}),
    ],
)  # fmt: skip
def test_json_text_that_is_sent(given: str, sent: Any) -> None:
    """JSON text arrives with Batch's names, dates in UTC, and without what has no value."""
    assert repr(text(given)) == repr((sent, None))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('{"x": 1, "x": 1}', "x: the name is there twice"),
        ('{"x": null, "date(x)": null}', "x: the name is there twice"),
        ('{"y": {"url(x)": "https://a", "url__x": "https://a"}}', "y.x: the name is there twice"),
        ('{"X": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"y": [{"secret@example.org": 1}]}', "y: a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"x\\n": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"\\u0663": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"DATE(x)": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"date(x": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"x": 9223372036854775808}', "x: a number outside 64 bits"),
        (f'{{"x": {2**70}}}', "x: a number outside 64 bits"),
        ('{"x": 1e999}', "x: not a finite number (NaN or infinite)"),
        ('{"x": -Infinity}', "x: not a finite number (NaN or infinite)"),
        ('{"x": "\\ud800"}', "x: half a surrogate pair, which is no text"),
        ('{"x": ["a\\udc00"]}', "x: half a surrogate pair, which is no text"),
        ('{"url(x)": "https://a/\\ud800"}', "x: half a surrogate pair, which is no text"),
        ('{"\\ud800": 1}', "a name is not 1 to 30 of a-z, 0-9 and _"),
        ('{"x": "\\u001f\\u00a0"}', "x: only white space"),
        (json.dumps({"x": SMILE * 150 + "a"}), "x: longer than 300 characters"),
        (json.dumps({"x": ["a", "é" * 301]}), "x: an item is longer than 300 characters"),
        ('{"x": [1, 2]}', "x: the items are neither all text nor all objects"),
        ('{"x": ["a", {"y": 1}]}', "x: the items are neither all text nor all objects"),
        ('{"x": [["a"]]}', "x: the items are neither all text nor all objects"),
        ('{"x": ["a", null]}', "x: an item is null"),
        ('[{"x": 1}, null]', "an item is null"),
        ('{"x": ["a", ""]}', "x: an item is empty or only white space"),
        (json.dumps([{"x": 1}] * 26), "more than 25 items"),
        (json.dumps({"y": {f"a{n}": n for n in range(21)}}), "y: more than 20 attributes"),
        ('{"a":{"b":{"c":{"d":1}}}}', "a.b.c: objects at more than 3 levels"),
        ('[{"a":[{"b":[{"c":[{"d":null}]}]}]}]', "a.b.c: objects at more than 3 levels"),
        ('{"date(x)": "2024-05-01T12:00:00"}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": "2024-05-01"}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": 1714564800}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": {"y": 1}}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": "2023-02-29T00:00:00Z"}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": "٢٠٢٤-05-01T00:00:00Z"}', "x: not a date and time with a zone (RFC 3339)"),
        ('{"date(x)": "0001-01-01T00:00:00+01:00"}', "x: a date outside the years 1 to 9999"),
        ('{"url(x)": 5}', "x: not a URL with a scheme and a host"),
        ('{"url(x)": "//host"}', "x: not a URL with a scheme and a host"),
        (json.dumps({"url(x)": "https://" + "a" * 2041}), "x: a URL longer than 2048 characters"),
        ("{'x': 1}", "not JSON"),
        ('{"x": 1} {"x": 2}', "not JSON"),
        ('{"x": 1,}', "not JSON"),
        ("\ufeff{}", "not JSON"),
        (" ", "not JSON"),
        ('{"x": "\n"}', "not JSON"),
        ('{"x": 01}', "not JSON"),
        ('{"x": ' + "9" * 5000 + "}", "not JSON"),
    ],
)  # fmt: skip
def test_json_text_that_stays_back(given: str, reason: str) -> None:
    """Every rule that JSON text can break has its reason, which names the field and holds no value."""
    assert text(given) == (None, reason)


@pytest.mark.parametrize(
    "given", ["[" * 200_000, "[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000]
)
def test_deep_nesting_is_no_crash(given: str) -> None:
    """Text that nests beyond what a parser can follow stays back like any other."""
    assert text(given)[1] is not None


def test_a_url_that_never_ends_is_judged_at_once() -> None:
    """A long text that almost is a URL costs no more than its length."""
    assert text({"url(x)": "a://" + "b" * 200_000 + " "})[1] == "x: not a URL with a scheme and a host"


def test_rows_keep_their_places() -> None:
    """Texts that occur often are read once, and each row gets its own answer, column after column, as compact text."""
    _, typed = nested.typed("c", pl.String(), "object")
    answers = {'{"x":1}': '{"x":1}', '{ "x" : "\\u00e9", "y": "" }': '{"x":"é"}', "bad": None, "": None, None: None}
    for rows in (list(answers) * 2, list(answers)[::-1] * 2, ['{"x":1}'], ["bad"], [], [None]):
        frame = as_source(column(rows, pl.String).to_frame("c"))
        found = frame.select(typed.value.alias("v"), why(typed.rules).alias("r"))
        assert found["v"].to_list() == [answers[row] for row in rows]
        assert found["r"].to_list() == ["not JSON" if row == "bad" else None for row in rows]


# --- native attributes


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("$label", "a" * 200, None),
        ("$label", SMILE * 100, None),
        ("$label", "a" * 201, "longer than 200 characters"),
        ("$label", SMILE * 100 + "a", "longer than 200 characters"),
        ("$label", "a\nb", "has a line break"),
        ("$label", "a\rb", "has a line break"),
        ("$label", None, None),
        ("$tags", ["a"] * 10, None),
        ("$tags", ["a"] * 11, "more than 10 items"),
        ("$tags", ["a" * 64, SMILE * 32], None),
        ("$tags", ["b", "a" * 65], "an item is longer than 64 characters"),
        ("$tags", [SMILE * 32 + "a"], "an item is longer than 64 characters"),
        ("$tags", ["b", "a\n"], "an item has a line break"),
        ("$tags", None, None),
        ("label", "a\nb" * 99, None),
    ],
)
def test_label_and_tags(name: str, value: Any, reason: str | None) -> None:
    """A label has up to 200 UTF-16 units, tags are up to ten of 64, each in one line; other names have no further rule."""
    dtype = nested.EVENT_VALUE_DTYPE[nested.NATIVE_TYPES.get(name, "string")]
    found = pl.DataFrame({"v": column([value], dtype)}).select(why(nested.native_rules(name, pl.col("v"))))
    assert found.item() == reason


def test_times_of_day_and_raw_bytes_have_no_place_at_the_top_either() -> None:
    """What a column cannot be, it cannot be by inference."""
    for rows in ([time(1)], [b"a"], [timedelta(1)], [[["a"]]]):
        series = column(rows, None)
        with pytest.raises(UnsupportedError):
            nested.typed("c", series.dtype, nested.inferred(series.dtype, json=False))
