"""From columns to events: conventions, every mistake at once, and rows judged as events."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.event_mapping import (
    ID,
    NAME,
    ROW,
    TIME,
    EventAttributeMapping,
    EventColumns,
    EventMapping,
    apply,
    marks,
    resolve,
)
from connector.judging import WITHHELD
from connector.mapping import KEY, Column
from connector.nested import EVENT_VALUE_DTYPE

TEXT, WHOLE = pl.String(), pl.Int64()
MOMENT = pl.Datetime("us")
BINARY = pl.Binary()
STRUCT = pl.Struct({"sku": pl.String()})

CLOUD: dict[str, Any] = {"custom_id": TEXT, "event_name": TEXT, "event_time": MOMENT}
"""The columns of a view that was written for Batch Cloud Sync."""


def wanted(**changes: Any) -> EventColumns:
    """The columns that a sync without any key in its YAML looks for, but for the changes."""
    defaults = {
        "key": "custom_id", "name": None, "name_column": "event_name", "time": "event_time", "time_optional": True,
        "id": None, "cursor": None, "restamp": False,
    }  # fmt: skip
    return EventColumns(**(defaults | changes))


def columns_of(types: dict[str, Any], *, json: tuple[str, ...] = ()) -> list[Column]:
    return [Column(name, dtype, json=name in json) for name, dtype in types.items()]


def resolved(types: dict[str, Any], attributes: dict[str, Any] | None = None, **changes: Any) -> EventMapping:
    """The mapping; an attribute is a column's name, or what the YAML's long form holds."""
    long = None
    if attributes is not None:
        forms = {name: {"column": form} if isinstance(form, str) else form for name, form in attributes.items()}
        long = {name: EventAttributeMapping(**form) for name, form in forms.items()}
    return resolve(columns_of(types), wanted(**changes), long)


def refused(types: dict[str, Any], attributes: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    """The problems of a mapping that cannot be."""
    with pytest.raises(WarehouseError) as caught:
        resolved(types, attributes, **changes)
    assert caught.value.remedy == "correct the mapping or the source"
    return caught.value.message.split("; ")


def sent(mapping: EventMapping) -> dict[str, str]:
    return {attribute.column: attribute.json_key for attribute in mapping.attributes}


def test_view_for_cloud_sync_needs_no_mapping() -> None:
    """Every column but key, name, time and cursor is an attribute under its own name, date and URL by prefix."""
    types = CLOUD | {"DATE__Due": TEXT, "url__page": TEXT, "Amount": pl.Float64(), "last_updated_at": MOMENT}
    mapping = resolved(types, cursor="last_updated_at")
    assert sent(mapping) == {"DATE__Due": "date(due)", "url__page": "url(page)", "Amount": "amount"}
    assert mapping.columns == ["custom_id", "event_name", "event_time", "DATE__Due", "url__page", "Amount"]
    assert (mapping.key_column, mapping.name_column, mapping.time_column) == ("custom_id", "event_name", "event_time")
    assert (mapping.id, mapping.id_column) == (None, None)


def test_special_columns_are_found_without_case_and_are_no_attributes() -> None:
    """CUSTOM_ID is the key, ORDER_ID the id; neither is sent a second time as an attribute."""
    types = {
        "CUSTOM_ID": TEXT,
        "EVENT_NAME": TEXT,
        "EVENT_TIME": MOMENT,
        "ORDER_ID": WHOLE,
        "LOADED": MOMENT,
        "X": TEXT,
    }
    mapping = resolved(types, id="order_id", cursor="loaded")
    assert sent(mapping) == {"X": "x"}
    assert mapping.columns == ["CUSTOM_ID", "EVENT_NAME", "EVENT_TIME", "ORDER_ID", "X"]


def test_constant_name_leaves_a_column_event_name_an_attribute() -> None:
    """Where the YAML names the event, a column event_name is data like any other."""
    mapping = resolved(CLOUD, name="order_placed", name_column=None)
    assert sent(mapping) == {"event_name": "event_name"}
    assert mapping.name_column is None


def test_source_may_be_nothing_but_events() -> None:
    """An event needs no attribute."""
    assert resolved(CLOUD).attributes == ()
    assert resolved(CLOUD, {}).attributes == ()


def test_missing_time_is_allowed_only_where_it_was_not_named() -> None:
    """Without the default column event_time Batch takes the time of reception; a named column must be there."""
    types = {"custom_id": TEXT, "event_name": TEXT, "order_at": MOMENT}
    mapping = resolved(types, {})
    assert (mapping.time, mapping.time_column) == (None, None)
    found = refused(types, {}, time="ordered_at", time_optional=False)
    assert found == ["time: the source has no column 'ordered_at'", "did you mean 'order_at'?"]


def test_every_missing_column_is_named_at_once() -> None:
    """Key, name, time, id, cursor and attributes in one error, each with what was meant or with what there is."""
    types = {"custom_idd": TEXT, "event_nam": TEXT, "x": TEXT}
    problems = refused(
        types, {"a": "X", "b": "zzzzzz"}, time="at", time_optional=False, id="order_id", cursor="loaded_at"
    )
    has = "it has custom_idd, event_nam, x"
    assert problems == [
        "key: the source has no column 'custom_id'", "did you mean 'custom_idd'?",
        "event: the source has no column 'event_name'", "did you mean 'event_nam'?",
        "time: the source has no column 'at'", has,
        "id: the source has no column 'order_id'", has,
        "cursor: the source has no column 'loaded_at'", has,
        "attribute 'b': the source has no column 'zzzzzz'", has,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "dtype", "problem"),
    [
        ("custom_id", pl.Boolean(), "key column 'custom_id': type Boolean cannot be a key or an id"),
        ("event_name", WHOLE, "event: column 'event_name' is of type Int64, text is needed"),
        ("event_time", WHOLE, "time: column 'event_time': type Int64 cannot be a date"),
        ("order_id", MOMENT, "id column 'order_id': type Datetime(time_unit='us', time_zone=None) cannot be a key or an id"),
        ("loaded_at", TEXT, "cursor: column 'loaded_at' is of type String, a timestamp or date is needed"),
        ("x", BINARY, "attribute 'x', column 'x': type Binary has no attribute type"),
        ("x", pl.Object(), "attribute 'x', column 'x': type Object has no attribute type"),
        ("x", pl.Duration("us"), "attribute 'x', column 'x': type Duration(time_unit='us') has no attribute type"),
        ("x", pl.List(BINARY), "attribute 'x', column 'x': type Binary cannot be sent as text"),
    ],
)  # fmt: skip
def test_column_whose_type_cannot_serve_is_named(column: str, dtype: pl.DataType, problem: str) -> None:
    """What the column is, and what it would have to be."""
    types = CLOUD | {"order_id": WHOLE, "loaded_at": MOMENT, "x": TEXT, column: dtype}
    problems = refused(types, {"x": "x"}, id="order_id", cursor="loaded_at")
    assert problems[0] == problem
    assert all(found.startswith("cast") for found in problems[1:]), problems


@pytest.mark.parametrize(
    ("name", "form", "dtype", "problem"),
    [
        ("$label", {}, pl.List(TEXT), "type List(String) cannot be sent as text"),
        ("$tags", {}, WHOLE, "type Int64 cannot be an array"),
        ("$tags", {}, pl.List(STRUCT), "cannot be sent as text"),
        ("x", {"type": "object"}, WHOLE, "type Int64 cannot be an object"),
        ("x", {"type": "array"}, STRUCT, "a struct cannot be an array"),
        ("x", {"unordered": True}, pl.List(STRUCT), "objects cannot be unordered"),
        ("x", {"type": "url"}, WHOLE, "type Int64 cannot be a URL"),
        ("x", {"type": "boolean"}, pl.Float64(), "type Float64 cannot be a boolean"),
        ("x", {"type": "integer"}, pl.Boolean(), "type Boolean cannot be an integer"),
        ("x", {}, pl.Struct({"a b": TEXT}), "has a field 'a b', names are 1 to 30"),
    ],
)
def test_attribute_that_the_column_cannot_become_is_named(
    name: str, form: dict[str, Any], dtype: pl.DataType, problem: str
) -> None:
    """The attribute, its column and why."""
    found = refused(CLOUD | {"c": dtype}, {name: {"column": "c", **form}})
    assert found[0].startswith(f"attribute '{name}', column 'c': ")
    assert problem in found[0]


def test_types_follow_the_columns_unless_told() -> None:
    """Structs and lists of structs are objects, $label is text and $tags an array whatever the column is."""
    types = {
        "s": STRUCT,
        "l": pl.List(STRUCT),
        "t": pl.List(TEXT),
        "n": WHOLE,
        "d": pl.Date(),
        "j": TEXT,
        "u": pl.Null(),
    }
    forms: dict[str, Any] = {name: name for name in types}
    forms |= {
        "$label": "n",
        "$tags": "j",
        "m": {"column": "n", "type": "string"},
        "p": {"column": "j", "type": "array"},
    }
    mapping = resolve(
        columns_of(CLOUD | types, json=("j",)), wanted(),
        {name: EventAttributeMapping(**({"column": form} if isinstance(form, str) else form)) for name, form in forms.items()},
    )  # fmt: skip
    assert {attribute.name: attribute.type for attribute in mapping.attributes} == {
        "s": "object", "l": "object", "t": "array", "n": "integer", "d": "date", "j": "object", "u": "string",
        "$label": "string", "$tags": "array", "m": "string", "p": "object",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "own", "most"),
    [
        ({}, "", 20),
        ({"id": "order_id"}, " with event_id", 19),
        ({"restamp": True}, " with occurred_at", 19),
        ({"id": "order_id", "restamp": True}, " with event_id and occurred_at", 18),
    ],
)
def test_twenty_attributes_with_ours_among_them(changes: dict[str, Any], own: str, most: int) -> None:
    """event_id and occurred_at take two of the twenty places, and the message says so."""
    types = CLOUD | {"order_id": WHOLE}
    attributes = {f"a{number}": "order_id" for number in range(most + 1)}
    assert refused(types, attributes, **changes) == [
        f"21 attributes{own}, an event takes 20", "name fewer under attributes",
    ]  # fmt: skip
    del attributes["a0"]
    assert len(resolved(types, attributes, **changes).attributes) == most


def test_names_that_we_add_are_taken() -> None:
    """A column that would become event_id or occurred_at beside ours is refused, by convention or by mapping."""
    types = CLOUD | {"order_id": WHOLE, "event_id": TEXT, "date__occurred_at": TEXT}
    taken = "attribute '{}' is added by us"
    remedy = "map its column under another name"
    expected = [taken.format("event_id"), remedy, taken.format("occurred_at"), remedy]
    assert refused(types, id="order_id", restamp=True) == expected
    assert refused(types, {"event_id": "event_id", "occurred_at": "order_id"}, id="order_id", restamp=True) == expected
    free = resolved(types)
    assert sent(free)["event_id"] == "event_id"
    assert sent(free)["date__occurred_at"] == "date(occurred_at)"
    assert sent(resolved(types, id="event_id")).keys() == {"order_id", "date__occurred_at"}


@pytest.mark.parametrize("name", ["a b", "x" * 31, "Été", "$tags", "date__a-b"])
def test_column_that_no_attribute_can_be_named_after(name: str) -> None:
    """Its name is told, with what names may be."""
    assert refused(CLOUD | {name: TEXT}) == [
        f"column '{name}' would become attribute '{name.lower().removeprefix('date__')}', names are 1 to 30 of a-z, 0-9 and _",
        "map it under attributes",
    ]


def test_no_prefix_makes_a_native_attribute() -> None:
    """`batch__x` is for profiles; of events it is a name like any other, and $label has to be mapped."""
    types = CLOUD | {"batch__label": TEXT, "date__": TEXT, "x__y": TEXT, "url__date__z": TEXT}
    assert sent(resolved(types)) == {
        "batch__label": "batch__label", "date__": "date__", "x__y": "x__y", "url__date__z": "url(date__z)",
    }  # fmt: skip


def test_columns_that_become_one_attribute_are_both_named() -> None:
    """Lower-casing and prefixes can make two columns collide."""
    assert refused(CLOUD | {"Due": TEXT, "date__due": TEXT}) == [
        "columns 'Due' and 'date__due' both become attribute 'due'", "map one of them under attributes",
    ]  # fmt: skip


AT = datetime(2026, 3, 1, 8, 30, 0, 123456)  # noqa: DTZ001 - naive timestamps are what warehouses have
MS = 1_772_353_800_123

TYPES: dict[str, Any] = {
    "k": TEXT, "name": TEXT, "t": MOMENT, "id": TEXT, "n": pl.Float64(), "tags": pl.List(TEXT), "o": STRUCT,
}  # fmt: skip
GOOD = {"k": "c1", "name": "order_placed", "t": AT, "id": "7", "n": 1.5, "tags": ["a"], "o": {"sku": "s"}}
SECRET = "s3cret"


def judged(*rows: dict[str, Any], **changes: Any) -> tuple[EventMapping, pl.DataFrame]:
    """The mapping of all the columns, and a frame of good rows with these changes."""
    terms = {"key": "k", "name_column": "name", "time": "t", "id": "id"} | changes
    mapping = resolved(TYPES, {"n": "n", "$tags": "tags", "o": "o"}, **terms)
    return mapping, pl.DataFrame([GOOD | row for row in rows], schema=TYPES, orient="row")


def test_good_row_is_an_event() -> None:
    """Time in milliseconds, cut; the id as text; objects as JSON text; nothing withheld."""
    valid, rejected = apply(*judged({}))
    assert valid.row(0, named=True) == {
        ROW: 0, KEY: "c1", NAME: "order_placed", TIME: MS, ID: "7", "n": 1.5, "$tags": ["a"], "o": '{"sku":"s"}',
        WITHHELD: 0,
    }  # fmt: skip
    assert rejected.is_empty()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"k": None}, "the key is null"),
        ({"k": "null"}, "the key is a reserved word"),
        ({"name": None}, "the event's name is null"),
        ({"name": ""}, "the event's name is not 1 to 30 of a-z, 0-9 and _"),
        ({"name": "Order"}, "the event's name is not 1 to 30 of a-z, 0-9 and _"),
        ({"name": "a\n"}, "the event's name is not 1 to 30 of a-z, 0-9 and _"),
        ({"name": "x" * 31}, "the event's name is not 1 to 30 of a-z, 0-9 and _"),
        ({"t": None}, "the event's time is null"),
        ({"id": None}, "the event's id is null"),
        ({"id": ""}, "the event's id is null"),
        ({"id": " "}, "the event's id: only white space"),
        ({"id": SECRET * 51}, "the event's id: longer than 300 characters"),
        ({"k": None, "name": None, "t": None, "id": None}, "the key is null"),
        ({"id": None, "n": float("nan")}, "the event's id is null"),
    ],
)
def test_what_an_event_cannot_do_without(change: dict[str, Any], reason: str) -> None:
    """A bad key, name, time or id makes the event invalid, once, whatever else is wrong; its neighbours go."""
    valid, rejected = apply(*judged({}, change, {"k": "c3"}))
    assert valid[KEY].to_list() == ["c1", "c3"]
    assert valid[ROW].to_list() == [0, 2]
    assert rejected.select(ROW, "attribute", "reason").rows() == [(1, None, reason)]
    assert SECRET not in str(rejected["reason"].to_list())


def test_bad_values_are_withheld_and_the_event_goes() -> None:
    """Each broken value is one entry with who it belongs to; the event goes without it."""
    bad = {"n": float("inf"), "tags": ["x"] * 11, "o": {"sku": SECRET * 51}}
    valid, rejected = apply(*judged(bad, {"o": None, "tags": []}))
    assert valid.select("n", "$tags", "o", WITHHELD).rows() == [(None, None, None, 0b111), (1.5, None, None, 0)]
    assert rejected.select(ROW, KEY, NAME, ID, TIME, "attribute").rows() == [
        (0, "c1", "order_placed", "7", MS, name) for name in ("n", "$tags", "o")
    ]
    assert SECRET not in str(rejected["reason"].to_list())


@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        (WHOLE, [7, -7, 0], ["7", "-7", "0"]),
        (pl.UInt64(), [2**64 - 1], ["18446744073709551615"]),
        (pl.Float64(), [7.0, 1e15], ["7", "1000000000000000"]),
        (pl.Decimal(10, 0), [7], ["7"]),
        (TEXT, ["007", "é"], ["007", "é"]),
        (pl.Categorical(), ["a"], ["a"]),
    ],
)  # fmt: skip
def test_id_is_text_whatever_the_column_is(dtype: pl.DataType, values: list[Any], told: list[str]) -> None:
    """The id of a number is its digits, so that a column may change its type without making all events new."""
    mapping = resolved(CLOUD | {"i": dtype}, {}, id="i", name="a", name_column=None)
    frame = pl.DataFrame(
        {"custom_id": ["c"] * len(values), "event_time": [AT] * len(values), "i": pl.Series(values, dtype=dtype)}
    )
    assert apply(mapping, frame).valid[ID].to_list() == told


@pytest.mark.parametrize(
    ("dtype", "value", "milliseconds"),
    [
        (pl.Datetime("us", "UTC"), AT.replace(tzinfo=UTC), MS),
        (pl.Datetime("ns", "Europe/Paris"), AT.replace(tzinfo=UTC), MS),
        (MOMENT, AT, MS - 3_600_000),
        (pl.Date(), date(2026, 3, 1), 1_772_323_200_000),
        (TEXT, "2026-03-01T08:30:00.123Z", MS),
        (TEXT, "2026-03-01 08:30:00.123", MS - 3_600_000),
    ],
)
def test_times_of_every_type(dtype: pl.DataType, value: Any, milliseconds: int) -> None:
    """Aware ones as they are, naive ones in the source's zone, a date as midnight UTC."""
    columns = columns_of(CLOUD | {"event_time": dtype})
    mapping = resolve(columns, wanted(name="a", name_column=None), {}, timezone="Europe/Paris")
    frame = pl.DataFrame({"custom_id": ["c"], "event_name": ["x"], "event_time": pl.Series([value], dtype=dtype)})
    assert apply(mapping, frame).valid[TIME].to_list() == [milliseconds]


@pytest.mark.parametrize("text", ["soon", "2026-02-30T00:00:00Z", "12"])
def test_text_that_tells_no_time_is_told(text: str) -> None:
    """A time that cannot be read makes the event invalid, and says what it is not."""
    mapping = resolved(CLOUD | {"event_time": TEXT}, {})
    frame = pl.DataFrame({"custom_id": ["c"], "event_name": ["x"], "event_time": [text]})
    (reason,) = apply(mapping, frame).rejected["reason"]
    assert reason == "the event's time is not one, or an hour that does not exist in its time zone"


def test_empty_text_is_a_null_time() -> None:
    """Empty text counts as null everywhere, so the event is invalid, and not one that happened now."""
    mapping = resolved(CLOUD | {"event_time": TEXT}, {})
    frame = pl.DataFrame({"custom_id": ["c"], "event_name": ["x"], "event_time": [""]})
    assert apply(mapping, frame).rejected["reason"].to_list() == ["the event's time is null"]


def test_marks_are_those_of_the_events() -> None:
    """Key, id and time of each row, valid or not, are the ones that judging it gives."""
    rows: list[dict[str, Any]] = [
        {}, {"k": None}, {"id": None}, {"t": None}, {"id": " "}, {"name": "Bad", "id": "8"}, {"n": float("nan")},
        {"k": "null"}, {"t": datetime(1, 1, 1)}, {"k": "é", "id": "\U0001f600"},  # noqa: DTZ001
    ]  # fmt: skip
    for changes in ({}, {"id": None}, {"time": "none"}, {"name": "a", "name_column": None}):
        mapping, frame = judged(*rows, **changes)
        found = marks(mapping, frame)
        assert found.columns == [KEY, ID, TIME]
        assert found.schema == {KEY: pl.String, ID: pl.String, TIME: pl.Int64}
        both = found.with_row_index(ROW)
        valid, rejected = apply(mapping, frame)
        whole = rejected.filter(pl.col("attribute").is_null())
        told = pl.concat([part.select(ROW, KEY, ID, TIME) for part in (valid, whole)]).sort(ROW)
        assert told.rows() == both.select(ROW, KEY, ID, TIME).rows()


def test_empty_record_batch_keeps_its_types() -> None:
    """No rows give no rows, in the types that later batches will have, also where name, id and time are constants."""
    for changes in ({}, {"id": None, "time": "none", "name": "a", "name_column": None}):
        mapping, frame = judged({}, **changes)
        full, empty = apply(mapping, frame), apply(mapping, frame.clear())
        assert (empty.valid.height, empty.rejected.height) == (0, 0)
        assert (empty.valid.schema, empty.rejected.schema) == (full.valid.schema, full.rejected.schema)
        assert marks(mapping, frame.clear()).schema == marks(mapping, frame).schema
        types = {attribute.name: EVENT_VALUE_DTYPE[attribute.type] for attribute in mapping.attributes}
        assert {name: full.valid.schema[name] for name in types} == types


@pytest.mark.parametrize("name", ["*", "^.*$", "#key", "#time", "a.b", 'quo"te'])
def test_column_names_are_taken_literally(name: str) -> None:
    """A column's name is no pattern, whether it holds the id, the time or an attribute."""
    types = {"custom_id": TEXT, name: TEXT, "event_name": TEXT}
    frame = pl.DataFrame({"custom_id": ["c"], name: ["2026-03-01T08:30:00.123Z"], "event_name": ["x"]})
    mapping = resolved(types, {"a": name}, id=name, time=name)
    row = apply(mapping, frame).valid.row(0, named=True)
    assert (row["a"], row[ID], row[TIME]) == ("2026-03-01T08:30:00.123Z", "2026-03-01T08:30:00.123Z", MS)
