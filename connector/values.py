"""How a column becomes the value of an attribute: what each type makes of each Polars type, one expression each."""

from collections.abc import Callable

import polars as pl

from connector.rules import (
    AttributeType,
    Rule,
    Typed,
    finite_rule,
    item_rules,
    items_rule,
    key_rules,
    text_rules,
    url_rules,
)

_JSON_PAIR = r"[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"  # a lone surrogate is no text
_JSON_UNIT = rf"u(?:[0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{{3}}|[dD][0-7][0-9A-Fa-f]{{2}}|{_JSON_PAIR})"
_JSON_ESCAPE = rf'\\(?:["\\/bfnrt]|{_JSON_UNIT})'
_JSON_NUMBER = r"-?(?:0|[1-9][0-9]{0,37})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"  # what a double certainly holds
_JSON_ITEM = rf'(?:"(?:[^"\\\x00-\x1f]|{_JSON_ESCAPE})*"|{_JSON_NUMBER}|true|false|null)'
_JSON_SPACE = r"[ \t\r\n]*"
_JSON_MORE = rf"(?:{_JSON_SPACE},{_JSON_SPACE}{_JSON_ITEM})*"
_JSON_ARRAY = rf"\A{_JSON_SPACE}\[{_JSON_SPACE}(?:{_JSON_ITEM}{_JSON_MORE}{_JSON_SPACE})?\]{_JSON_SPACE}\z"


class UnsupportedError(Exception):
    """A column's type cannot become the attribute type; the text says what to do instead."""


def inferred(dtype: pl.DataType, *, json: bool) -> AttributeType:
    """The attribute type that a column's own type suggests.

    Raises:
        UnsupportedError: No attribute type fits.
    """
    if json or dtype.base_type() in (pl.List, pl.Array):
        return "array"
    if dtype.is_decimal():
        return "integer" if dtype.scale == 0 else "float"  # type: ignore[attr-defined]
    if dtype.is_integer():
        return "integer"
    families: dict[type[pl.DataType], AttributeType] = {
        pl.Float32: "float",
        pl.Float64: "float",
        pl.Boolean: "boolean",
        pl.Date: "date",
        pl.Datetime: "date",
    }
    if found := families.get(dtype.base_type()):
        return found
    if _is_text(dtype) or dtype == pl.Null:
        return "string"
    raise UnsupportedError(f"type {dtype} has no attribute type; cast it in a query, to text for instance")


def typed(
    column: str, dtype: pl.DataType, type_: AttributeType, *, timezone: str = "UTC", unordered: bool = False
) -> Typed:
    """How `column` becomes an attribute of `type_`: String, Int64, Float64, Boolean, Datetime(ms, UTC) or List(String).

    Args:
        column: Name of the column in the record batches.
        dtype: The column's Polars type.
        type_: The attribute type.
        timezone: Zone of naive timestamps, an IANA name.
        unordered: Arrays only: sort the items and drop repeated ones.

    Raises:
        UnsupportedError: This column cannot become this attribute type.
    """
    raw = source(column)
    if dtype == pl.Null:
        return Typed(pl.lit(None, dtype=VALUE_DTYPE[type_]), ())
    if type_ == "date":
        return _date(raw, dtype, timezone)
    if type_ == "array":
        return _array(raw, dtype, unordered=unordered, items_rules=items_rule)
    return _SCALARS[type_](raw, dtype)


VALUE_DTYPE: dict[AttributeType, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Datetime("ms", "UTC"),
    "url": pl.String(),
    "array": pl.List(pl.String()),
}
"""The Polars type in which each attribute type's values travel between mapping, hash and payload."""


def key_text(column: str, dtype: pl.DataType) -> Typed:
    """The custom ID as text: integers and whole floats as digits, text as it stands.

    Raises:
        UnsupportedError: The column's type cannot be a key.
    """
    raw, value = source(column), digits_or_text(column, dtype)
    fraction = dtype.is_float() or (dtype.is_decimal() and dtype.scale)  # type: ignore[attr-defined]
    whole = (Rule("the key is not a whole number", _lost(raw, value)),) if fraction else ()
    return Typed(value, (*whole, *key_rules(raw, value)))


def digits_or_text(column: str, dtype: pl.DataType) -> pl.Expr:
    """An identifier as text: integers and whole floats as digits, text as it stands, null for other numbers.

    Raises:
        UnsupportedError: The column's type cannot be an identifier.
    """
    raw = source(column)
    if dtype.is_float() or (dtype.is_decimal() and dtype.scale):  # type: ignore[attr-defined]
        return _whole(raw, dtype).cast(pl.String)
    if _is_text(dtype) or dtype.is_integer() or dtype.is_decimal():
        return raw.cast(pl.String)
    raise UnsupportedError(f"type {dtype} cannot be a key or an id; cast it to text in a query")


def source(column: str) -> pl.Expr:
    """A column of a record batch that went through `as_source`; its name is no pattern, whatever it looks like."""
    return pl.col(_SOURCE + column)


def as_source(frame: pl.DataFrame) -> pl.DataFrame:
    """The record batch with names that Polars takes literally: `*` and `^…$` alone would mean other columns.

    Nested columns come in one piece: Polars 2.1 panics in `list.eval` over a piece of one row that it evaluated before,
    joined with a slice of another.
    """
    nested = (column.rechunk() for column in frame.get_columns() if column.dtype.is_nested())
    return frame.with_columns(nested).rename(lambda name: _SOURCE + name)


_SOURCE = "source "


def _lost(given: pl.Expr, value: pl.Expr) -> pl.Expr:
    """True where something was given that became no value."""
    return given.is_not_null() & value.is_null()


def _is_text(dtype: pl.DataType) -> bool:
    return dtype.base_type() in (pl.String, pl.Categorical, pl.Enum)


def _text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if _is_text(dtype) or dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.String)
    if dtype == pl.Date:
        return pl.when(_in_calendar(raw, "days")).then(raw).dt.to_string("%Y-%m-%d")
    raise UnsupportedError(f"type {dtype} cannot be sent as text; cast it in a query")


def _filled(text: pl.Expr) -> pl.Expr:
    """Empty text counts as null: the API refuses it."""
    return pl.when(text != "").then(text)


def _string(raw: pl.Expr, dtype: pl.DataType) -> Typed:
    value = _filled(_text(raw, dtype))
    rules = [finite_rule(raw)._replace(unseen=True)] if dtype.is_float() else []
    if dtype == pl.Date:
        rules.append(Rule("a date that no calendar holds", _lost(raw, value), unseen=True))
    return Typed(value, (*rules, *text_rules(value)))


def _url(raw: pl.Expr, dtype: pl.DataType) -> Typed:
    if not _is_text(dtype):
        raise UnsupportedError(f"type {dtype} cannot be a URL; it must be text")
    value = _filled(raw.cast(pl.String))
    return Typed(value, url_rules(value))


def _whole(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Int64 where the number is whole and fits in 64 bits, else null."""
    if dtype.is_float():
        number = raw.cast(pl.Float64)
        fits = (number == number.floor()) & (number >= -(2.0**63)) & (number < 2.0**63)
        return pl.when(fits).then(number).cast(pl.Int64, strict=False)
    if dtype.is_decimal() and dtype.scale:  # type: ignore[attr-defined]
        return pl.when(raw == raw.cast(pl.Decimal(38, 0), strict=False)).then(raw).cast(pl.Int64, strict=False)
    return raw.cast(pl.Int64, strict=False)


def _integer(raw: pl.Expr, dtype: pl.DataType) -> Typed:
    if _is_text(dtype):
        text = _filled(raw.cast(pl.String))
        value = text.cast(pl.Int64, strict=False)
        return Typed(value, (Rule("not a whole number of 64 bits", _lost(text, value), unseen=True),))
    if not dtype.is_numeric():
        raise UnsupportedError(f"type {dtype} cannot be an integer; cast it in a query")
    value = _whole(raw, dtype)
    reason = (
        "not a whole number within 64 bits" if dtype.is_float() or dtype.is_decimal() else "a number outside 64 bits"
    )
    return Typed(value, (Rule(reason, _lost(raw, value), unseen=True),))


def _float(raw: pl.Expr, dtype: pl.DataType) -> Typed:
    source = raw
    if dtype == pl.Float32:
        value = raw.cast(pl.String).cast(pl.Float64)  # shortest text: 0.1 stays 0.1, not 0.10000000149
    elif dtype.is_numeric():
        value = raw.cast(pl.Float64)
    elif _is_text(dtype):
        source = _filled(raw.cast(pl.String))
        value = source.cast(pl.Float64, strict=False)
    else:
        raise UnsupportedError(f"type {dtype} cannot be a float; cast it in a query")
    value = pl.when(value == 0).then(pl.lit(0.0)).otherwise(value)  # -0.0 and 0.0 are one value
    return Typed(
        value,
        (
            Rule("not a number", _lost(source, value), unseen=True),
            finite_rule(value),
        ),
    )


def _boolean(raw: pl.Expr, dtype: pl.DataType) -> Typed:
    if dtype == pl.Boolean:
        return Typed(raw, ())
    if dtype.is_integer():
        value = pl.when(raw.is_in([0, 1])).then(raw == 1)
        return Typed(value, (Rule("neither 0 nor 1", _lost(raw, value), unseen=True),))
    if _is_text(dtype):
        text = _filled(raw.cast(pl.String)).str.to_lowercase()
        value = pl.when(text.is_in(["true", "false"])).then(text == "true")
        return Typed(value, (Rule("neither true nor false", _lost(text, value), unseen=True),))
    raise UnsupportedError(f"type {dtype} cannot be a boolean; cast it in a query")


def _date(raw: pl.Expr, dtype: pl.DataType, timezone: str) -> Typed:
    given = raw
    if _is_text(dtype):
        given = _filled(raw.cast(pl.String))
        value = _parsed(given, timezone)
        beyond = pl.lit(value=False)
    elif isinstance(dtype, pl.Date | pl.Datetime):
        # A timestamp of 'infinity' is one that no calendar holds: Polars would panic at it.
        beyond = ~_in_calendar(raw, _unit(dtype))
        value = _instant(pl.when(~beyond).then(raw), dtype, timezone)
    else:
        raise UnsupportedError(f"type {dtype} cannot be a date; cast it to a timestamp in a query")
    value = value.dt.cast_time_unit("ms")
    outside = beyond | ~value.to_physical().is_between(_FIRST_MS, _LAST_MS)
    return Typed(
        value,
        (
            Rule("a date outside the years 1 to 9999", outside),
            Rule("not a date, or an hour that does not exist in its time zone", _lost(given, value), unseen=True),
        ),
    )


_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999 in milliseconds: what RFC 3339 can write."""

_CALENDAR = {"days": 10**7, "ms": 10**15, "us": 10**18, "ns": 2**63 - 2}
"""Some 30,000 years around 1970, by unit, and all that nanoseconds can tell but infinity: it stands at their ends."""


def _in_calendar(moment: pl.Expr, unit: str) -> pl.Expr:
    return moment.to_physical().is_between(-_CALENDAR[unit], _CALENDAR[unit])


def _unit(dtype: pl.Date | pl.Datetime) -> str:
    return dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"


def _instant(raw: pl.Expr, dtype: pl.Date | pl.Datetime, timezone: str) -> pl.Expr:
    if isinstance(dtype, pl.Date):
        return raw.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    coarse = raw.dt.cast_time_unit("ms")  # nanoseconds have no room for an hour more at their ends
    return coarse.dt.convert_time_zone("UTC") if dtype.time_zone else _localised(coarse, timezone)


def _localised(naive: pl.Expr, timezone: str) -> pl.Expr:
    # An hour that occurs twice is taken the first time; one that does not exist is no date.
    local = naive.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _parsed(text: pl.Expr, timezone: str) -> pl.Expr:
    """RFC 3339 with a zone; else a naive date and time, or a date alone (midnight UTC, as a DATE is)."""
    zoned = text.str.replace(" ", "T", literal=True).str.to_datetime(
        "%+", time_unit="ms", time_zone="UTC", strict=False
    )
    naive = text.str.replace(" ", "T", literal=True).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="ms", strict=False
    )
    day = text.str.to_datetime("%Y-%m-%d", time_unit="ms", strict=False).dt.replace_time_zone("UTC")
    held = pl.when(_in_calendar(naive, "ms")).then(naive)
    return pl.coalesce(zoned, _localised(held, timezone), day)


def _array(
    raw: pl.Expr,
    dtype: pl.DataType,
    *,
    unordered: bool,
    items_rules: Callable[[pl.Expr], tuple[Rule, ...]] = item_rules,
) -> Typed:
    rules: list[Rule] = []
    if _is_text(dtype):
        text = _filled(raw.cast(pl.String))
        items = _json_items(text)
        rules.append(Rule("not a JSON array of text", _lost(text, items) & (text != "null"), unseen=True))
    elif isinstance(dtype, pl.Array | pl.List):
        listed = raw.arr.to_list() if isinstance(dtype, pl.Array) else raw
        inner = _instance(dtype.inner)
        items = listed.list.eval(_text(pl.element(), inner))
        if inner.is_float():
            finite = listed.list.eval(pl.element().is_finite())
            rules.append(Rule("an item is not a finite number", ~finite.list.all(), unseen=True))
        if inner == pl.Date:
            lost = listed.list.eval(~_in_calendar(pl.element(), "days"))
            rules.append(Rule("an item is a date that no calendar holds", lost.list.any(), unseen=True))
    else:
        raise UnsupportedError(f"type {dtype} cannot be an array; it must be a list, or JSON text")
    value: pl.Expr = pl.when(items.list.len() > 0).then(items)
    if unordered:
        value = value.list.unique().list.sort()
    return Typed(value, (*rules, *items_rules(value)))


def _json_items(text: pl.Expr) -> pl.Expr:
    # Polars fails on a column with one bad text, so only what is known to be good is decoded.
    return pl.when(text.str.contains(_JSON_ARRAY)).then(text).str.json_decode(pl.List(pl.String))


def _instance(dtype: object) -> pl.DataType:
    found = dtype() if isinstance(dtype, type) else dtype
    assert isinstance(found, pl.DataType)  # noqa: S101 - Polars also takes a type's class for the type
    return found


_SCALARS: dict[AttributeType, Callable[[pl.Expr, pl.DataType], Typed]] = {
    "string": _string,
    "integer": _integer,
    "float": _float,
    "boolean": _boolean,
    "url": _url,
}
