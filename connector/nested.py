"""Values of events: what profiles take, and objects and arrays of objects, which travel as JSON text.

Structs and lists of structs become that text by expressions alone, at any depth.
"""

from collections.abc import Iterator
from typing import cast

import polars as pl

from connector import values
from connector.nested_json import NAMES_ALLOWED, Name, Place, Shape, json_key, named, read
from connector.rules import (
    ARRAY_MAX,
    LABEL_MAX,
    OBJECT_ATTRIBUTES_MAX,
    OBJECT_DEPTH_MAX,
    TAG_MAX,
    TAGS_MAX,
    AttributeType,
    EventAttributeType,
    Rule,
    Typed,
)
from connector.values import _SCALARS, UnsupportedError, _array, _date, _instance, _is_text

EVENT_VALUE_DTYPE: dict[EventAttributeType, pl.DataType] = {"object": pl.String()}
EVENT_VALUE_DTYPE.update(values.VALUE_DTYPE.items())
"""The Polars type of each attribute type's values; an object's is JSON text, as it will stand in the request body."""

NATIVE_TYPES: dict[str, EventAttributeType] = {"$label": "string", "$tags": "array"}
"""The native attributes of an event and their only type."""

_LINE_BREAK = r"[\r\n]"
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"


def inferred(dtype: pl.DataType, *, json: bool) -> EventAttributeType:
    """The attribute type that a column's own type suggests.

    Raises:
        UnsupportedError: No attribute type fits.
    """
    return "object" if json or _holds_objects(dtype) else values.inferred(dtype, json=False)


def typed(
    column: str,
    dtype: pl.DataType,
    type_: EventAttributeType,
    *,
    timezone: str = "UTC",
    json: bool = False,
    unordered: bool = False,
) -> tuple[EventAttributeType, Typed]:
    """The type that `column` travels as, and how it becomes that: an `array` that may hold objects goes as `object`.

    Args:
        column: Name of the column in the record batches.
        dtype: The column's Polars type.
        type_: The attribute type. In text, `array` is a JSON array of text or of objects, `object` is a JSON object or
            an array of objects.
        timezone: Zone of naive timestamps, an IANA name. Dates in JSON text have to carry their own.
        json: The warehouse's own type is semi-structured: as `object` it may hold an array of text as well.
        unordered: Arrays of text only: sort the items and drop repeated ones.

    Raises:
        UnsupportedError: This column, or a field inside it, cannot become this attribute type.
    """
    if type_ != "object" and not (type_ == "array" and (_is_text(dtype) or _holds_objects(dtype))):
        return type_, values.typed(column, dtype, type_, timezone=timezone, unordered=unordered)
    raw = values.source(column)
    if _is_text(dtype):
        shapes, otherwise = _shapes(type_, json=json)
        return "object", read(raw.cast(pl.String), shapes, otherwise, unordered=unordered)
    if dtype == pl.Null:
        return "object", Typed(pl.lit(None, dtype=pl.String), ())
    if not _holds_objects(dtype):
        allowed = "it must be a struct, a list of structs, or JSON text"
        raise UnsupportedError(f"type {dtype} cannot be an object; {allowed}")
    if isinstance(dtype, pl.Struct) and type_ == "array":
        raise UnsupportedError("a struct cannot be an array; declare it an object")
    if unordered:
        raise UnsupportedError("objects cannot be unordered, only arrays of text can; sort them in a query")
    return "object", _nested(raw, dtype, Place(), timezone)


def native_rules(name: str, value: pl.Expr) -> tuple[Rule, ...]:
    """The further rules of `$label` (String) and `$tags` (List(String)); none for other attributes."""
    if name == "$label":
        return (
            Rule(f"longer than {LABEL_MAX} characters", _longer(value, LABEL_MAX)),
            Rule("has a line break", value.str.contains(_LINE_BREAK)),
        )
    if name == "$tags":
        tag = pl.element()
        return (
            Rule(f"more than {TAGS_MAX} items", value.list.len() > TAGS_MAX),
            Rule(f"an item is longer than {TAG_MAX} characters", value.list.eval(_longer(tag, TAG_MAX)).list.any()),
            Rule("an item has a line break", value.list.eval(tag.str.contains(_LINE_BREAK)).list.any()),
        )
    return ()


def _longer(text: pl.Expr, limit: int) -> pl.Expr:
    """True where `text` has more than `limit` UTF-16 units."""
    return text.str.len_chars() + text.str.count_matches(_ASTRAL) > limit


def _shapes(type_: EventAttributeType, *, json: bool) -> tuple[tuple[Shape, ...], str]:
    """What JSON text may hold, and the reason where it holds something else."""
    if type_ == "array":
        return ("objects", "texts"), "not a JSON array of text or of objects"
    if json:
        return ("object", "objects", "texts"), "neither a JSON object nor an array of text or of objects"
    return ("object", "objects"), "neither a JSON object nor an array of objects"


def _holds_objects(dtype: pl.DataType) -> bool:
    return isinstance(_item(dtype) or dtype, pl.Struct)


def _item(dtype: pl.DataType) -> pl.DataType | None:
    """The type of a list's items; None where it is no list."""
    return _instance(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else None


def _nested(raw: pl.Expr, dtype: pl.DataType, place: Place, timezone: str) -> Typed:
    """JSON text of a struct or of a list of structs; null where it holds no value."""
    struct = cast("pl.Struct", _item(dtype) or dtype)
    if isinstance(dtype, pl.Struct):
        return _object(raw, struct, place, timezone)
    listed = raw.arr.to_list() if isinstance(dtype, pl.Array) else raw
    item = _object(pl.element(), struct, place, timezone)
    texts = listed.list.eval(item.value).list.join(",")  # leaves nulls out
    # Items without a value do not count: only a list that may be too long is looked into.
    suspect = pl.when(listed.list.len() > ARRAY_MAX).then(listed)
    sent = suspect.list.eval(item.value.is_not_null()).list.sum()
    rules = (
        Rule(place.told("an item is null"), listed.list.eval(pl.element().is_null()).list.any()),
        Rule(place.told(f"more than {ARRAY_MAX} items"), sent > ARRAY_MAX),
        *(Rule(rule.reason, listed.list.eval(rule.broken).list.any()) for rule in item.rules),
    )
    return Typed(_unless("[]", pl.concat_str(pl.lit("["), texts, pl.lit("]"))), rules)


def _object(raw: pl.Expr, dtype: pl.Struct, place: Place, timezone: str) -> Typed:
    """JSON text of a struct's fields that have a value; null where none has."""
    members = [
        _member(raw.struct.field(field.name), _instance(field.dtype), name, place.at(name.bare), timezone)
        for name, field in _fields(dtype, place)
    ]
    joined = pl.concat_str(*(member.value for member in members), separator=",", ignore_nulls=True)
    value = _unless("{}", pl.concat_str(pl.lit("{"), joined, pl.lit("}")))
    return Typed(value, tuple(rule for member in members for rule in member.rules))


def _unless(empty: str, text: pl.Expr) -> pl.Expr:
    """Null where the text is `empty`."""
    # `when(text != empty).then(text)` would build the text twice, at every level of what is nested.
    return text.replace(empty, None)


def _fields(dtype: pl.Struct, place: Place) -> Iterator[tuple[Name, pl.Field]]:
    """The fields with their names, once the limits that a type alone can break are known to be kept."""
    where = f"field '{place.path}'" if place.path else "the object"
    if place.level > OBJECT_DEPTH_MAX:
        depth = f"an object at level {place.level}, allowed are {OBJECT_DEPTH_MAX}"
        raise UnsupportedError(f"{where} is {depth}; flatten it in a query")
    if not 1 <= len(dtype.fields) <= OBJECT_ATTRIBUTES_MAX:
        count = f"{len(dtype.fields)} fields, allowed are 1 to {OBJECT_ATTRIBUTES_MAX}"
        raise UnsupportedError(f"{where} has {count}; select others in a query")
    seen: dict[str, str] = {}
    for field in dtype.fields:
        name = named(field.name.lower())
        if name is None:
            raise UnsupportedError(
                f"{where} has a field '{field.name}', names are {NAMES_ALLOWED}; rename it in a query"
            )
        if name.bare in seen:
            both = f"'{seen[name.bare]}' and '{field.name}', which both become '{name.bare}'"
            raise UnsupportedError(f"{where} has fields {both}; rename one in a query")
        seen[name.bare] = field.name
        yield name, field


def _member(raw: pl.Expr, dtype: pl.DataType, name: Name, place: Place, timezone: str) -> Typed:
    """`"name":value` as JSON text; null where the field has no value."""
    if name.wrapper is None and _holds_objects(dtype):
        nested = _nested(raw, dtype, place, timezone)
        return Typed(pl.concat_str(pl.lit(f'"{name.bare}":'), nested.value), nested.rules)
    try:
        type_ = name.wrapper or values.inferred(dtype, json=False)
        scalar = _scalar(raw, dtype, type_, timezone)
    except UnsupportedError as error:
        raise UnsupportedError(f"field '{place.path}' has type {dtype}: {error}") from None
    value = _rfc3339(scalar.value) if type_ == "date" else scalar.value
    key = json_key(name.bare, type_)
    member = pl.struct(value.alias(key)).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
    rules = tuple(Rule(place.told(str(rule.reason)), rule.broken) for rule in scalar.rules)
    return Typed(_unless(f'"{key}":null', member), rules)


def _scalar(raw: pl.Expr, dtype: pl.DataType, type_: AttributeType, timezone: str) -> Typed:
    """As `values.typed`, of a field in place of a column."""
    if dtype == pl.Null:
        return Typed(raw.cast(values.VALUE_DTYPE[type_]), ())
    if type_ == "date":
        return _date(raw, dtype, timezone)
    return _array(raw, dtype, unordered=False) if type_ == "array" else _SCALARS[type_](raw, dtype)


def _rfc3339(moment: pl.Expr) -> pl.Expr:
    """Whole seconds where nothing would be lost, else milliseconds."""
    whole, fraction = moment.dt.to_string("%Y-%m-%dT%H:%M:%SZ"), moment.dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ")
    return pl.when(moment.dt.millisecond() == 0).then(whole).otherwise(fraction)
