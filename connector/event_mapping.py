"""Columns to events: which column names the event, tells its time and its id, and which attributes go with it."""

from collections.abc import Mapping as Mappings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
from pydantic import Field

from connector import nested, values
from connector._model import Model
from connector.errors import WarehouseError
from connector.judging import judged, rejected, valid
from connector.mapping import KEY, Column, check_cursor, conventional, find, json_key, typed_key
from connector.rules import OBJECT_ATTRIBUTES_MAX, EventAttributeType, Rule, Typed, text_rules
from connector.values import UnsupportedError, as_source

EVENT_ID = "event_id"
"""The attribute under which an event's id is sent: Batch has no key against duplicates, readers of its data then do."""

OCCURRED_AT = "occurred_at"
"""The attribute that holds the real time of an event that is sent as if it happened now."""

NAME, TIME, ID = "#name", "#time", "#id"

ROW = "#row"
"""UInt32: a row's place in its record batch, which ties what was rejected of it to what is left."""

_TEXT = (pl.String, pl.Categorical, pl.Enum)

EVENT_NAME = r"\A[a-z0-9_]{1,30}\z"


class EventAttributeMapping(Model):
    """Where an event attribute's value comes from and how it is sent; a null is left out."""

    column: str = Field(min_length=1, description="the column that holds the value")
    type: EventAttributeType | None = Field(default=None, description="how Batch keeps it; inferred from the column")
    unordered: bool = Field(default=False, description="arrays of text: the order of items means nothing")


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Where a sync finds what makes an event.

    Attributes:
        key: Column of the custom ID.
        name: The event's name, if it is a constant.
        name_column: Else the column that holds it.
        time: Column of the time.
        time_optional: The source may lack it: Batch then takes the time of reception.
        id: Column of the event's stable id; None: an id is derived from what is sent.
        cursor: A timestamp or date; without an `attributes` block it is not sent.
        restamp: Late events are sent with an attribute of ours.
    """

    key: str
    name: str | None
    name_column: str | None
    time: str
    time_optional: bool
    id: str | None
    cursor: str | None
    restamp: bool

    @property
    def ours(self) -> tuple[str, ...]:
        """Attributes that we add."""
        return ((EVENT_ID,) if self.id else ()) + ((OCCURRED_AT,) if self.restamp else ())


class EventAttribute(NamedTuple):
    """One attribute of an event, resolved against the source's columns."""

    name: str
    type: EventAttributeType
    column: str

    @property
    def json_key(self) -> str:
        """The key under which Batch expects the value: `date(x)`, `url(x)` or the name itself."""
        return json_key(self.name, self.type)


@dataclass(frozen=True, slots=True)
class EventMapping:
    """A sync's mapping, ready to be applied to record batches of its source."""

    key_column: str
    key: Typed
    name: Typed
    name_column: str | None
    time: Typed | None
    time_column: str | None
    id: Typed | None
    id_column: str | None
    attributes: tuple[EventAttribute, ...]
    values: tuple[Typed, ...]

    @property
    def columns(self) -> list[str]:
        """The source columns that have to be read, each once."""
        special = (self.key_column, self.name_column, self.time_column, self.id_column)
        found = [*special, *(attribute.column for attribute in self.attributes)]
        return list(dict.fromkeys(column for column in found if column is not None))


class MappedEvents(NamedTuple):
    """A record batch, judged; both frames have a row a row of the source, or less.

    Attributes:
        valid: `#row`, `#key`, `#name` (String, not null), `#time` (Int64, milliseconds since 1970; null: the source has
            no time), `#id` (String; null where one has to be derived), one column an attribute (type by
            `nested.EVENT_VALUE_DTYPE`, null: left out) and `#withheld` (UInt64, bit i set: attribute i is left out as
            its value breaks a rule).
        rejected: One row a broken rule: `#row`, `#key`, `#name`, `#id`, `#time` as above, each null where the source's
            is; `attribute` (String, null: the whole event), `reason` (String).
    """

    valid: pl.DataFrame
    rejected: pl.DataFrame


def resolve(
    columns: Sequence[Column],
    wanted: EventColumns,
    attributes: Mappings[str, EventAttributeMapping] | None,
    *,
    timezone: str = "UTC",
) -> EventMapping:
    """The mapping of a source with these columns.

    Args:
        columns: The source's columns.
        wanted: Which of them make the event.
        attributes: Attribute name to mapping; None takes every other column, by the Cloud Sync conventions.
        timezone: Zone of naive timestamps.

    Raises:
        WarehouseError: A column is missing, or its type cannot become what the mapping asks; all mistakes at once.
    """
    problems: list[str] = []
    key_column = find(columns, wanted.key, "key", problems)
    key = typed_key(key_column, problems) if key_column else None
    name_column, name = _name(columns, wanted, problems)
    time_column, time = _time(columns, wanted, timezone, problems)
    id_column = find(columns, wanted.id, "id", problems) if wanted.id else None
    if wanted.cursor:
        check_cursor(columns, wanted.cursor, problems)
    if attributes is None:
        cursor = find(columns, wanted.cursor, "", []) if wanted.cursor else None
        apart = [column.name for column in (key_column, name_column, time_column, id_column, cursor) if column]
        found = conventional(columns, apart, (), problems)
        attributes = {name: EventAttributeMapping(column=name_, type=type_) for name, (name_, type_) in found.items()}
    _check_names(attributes, wanted.ours, problems)
    pairs = []
    for attribute, mapping in attributes.items():
        if column := find(columns, mapping.column, f"attribute '{attribute}'", problems):
            pairs += _typed_attribute(attribute, mapping, column, timezone, problems)
    id_ = _typed_id(id_column, problems) if id_column else None
    if problems or key_column is None or key is None or name is None:
        raise WarehouseError("; ".join(problems), remedy="correct the mapping or the source")
    return EventMapping(
        key_column=key_column.name,
        key=key,
        name=name,
        name_column=name_column.name if name_column else None,
        time=time,
        time_column=time_column.name if time_column else None,
        id=id_,
        id_column=id_column.name if id_column else None,
        attributes=tuple(pair[0] for pair in pairs),
        values=tuple(pair[1] for pair in pairs),
    )


def apply(mapping: EventMapping, frame: pl.DataFrame) -> MappedEvents:
    """Judge a record batch: what can be sent, and every value and event that cannot, with its reason.

    Args:
        mapping: From `resolve`.
        frame: Holds at least `mapping.columns`.
    """
    names = [attribute.name for attribute in mapping.attributes]
    whole = [rule for typed in (mapping.key, mapping.name, mapping.time, mapping.id) if typed for rule in typed.rules]
    marks_ = [*_marks(mapping), mapping.name.value.alias(NAME)]
    rows = judged(frame, marks_, whole, dict(zip(names, mapping.values, strict=True))).with_row_index(ROW)
    who = [ROW, KEY, NAME, TIME, ID]
    return MappedEvents(valid(rows, who, names), rejected(rows, [pl.col(name) for name in who], names))


def marks(mapping: EventMapping, frame: pl.DataFrame) -> pl.DataFrame:
    """`#key`, `#id` and `#time` of each row as `apply` has them, whatever rules they break.

    Args:
        mapping: From `resolve`.
        frame: Holds at least `mapping.columns`.
    """
    return as_source(frame).select(*_marks(mapping))


def _marks(mapping: EventMapping) -> tuple[pl.Expr, ...]:
    absent = pl.lit(None, dtype=pl.String)
    id_, time = (typed.value if typed else absent for typed in (mapping.id, mapping.time))
    return mapping.key.value.alias(KEY), id_.alias(ID), time.cast(pl.Int64).alias(TIME)


def _check_names(attributes: Mappings[str, EventAttributeMapping], ours: Sequence[str], problems: list[str]) -> None:
    if len(attributes) + len(ours) > OBJECT_ATTRIBUTES_MAX:
        own = f" with {' and '.join(ours)}" if ours else ""
        count = f"{len(attributes) + len(ours)} attributes{own}"
        problems.append(f"{count}, an event takes {OBJECT_ATTRIBUTES_MAX}; name fewer under attributes")
    problems += [
        f"attribute '{name}' is added by us; map its column under another name" for name in ours if name in attributes
    ]


def _name(columns: Sequence[Column], wanted: EventColumns, problems: list[str]) -> tuple[Column | None, Typed | None]:
    if wanted.name_column is None:
        return None, Typed(pl.lit(wanted.name), ())
    column = find(columns, wanted.name_column, "event", problems)
    if column is None:
        return None, None
    if column.dtype.base_type() not in _TEXT:
        problems.append(f"event: column '{column.name}' is of type {column.dtype}, text is needed")
        return column, None
    value = values.source(column.name).cast(pl.String)
    rules = (
        Rule("the event's name is null", value.is_null()),
        Rule("the event's name is not 1 to 30 of a-z, 0-9 and _", ~value.str.contains(EVENT_NAME)),
    )
    return column, Typed(value, rules)


def _time(
    columns: Sequence[Column], wanted: EventColumns, timezone: str, problems: list[str]
) -> tuple[Column | None, Typed | None]:
    missing: list[str] = []
    column = find(columns, wanted.time, "time", missing)
    if column is None:
        problems += [] if wanted.time_optional else missing
        return None, None
    try:
        typed = values.typed(column.name, column.dtype, "date", timezone=timezone)
    except UnsupportedError as error:
        problems.append(f"time: column '{column.name}': {error}")
        return column, None
    given = values.source(column.name)
    empty = given.cast(pl.String) == "" if column.dtype.base_type() in _TEXT else pl.lit(value=False)
    null = Rule("the event's time is null", given.is_null() | empty)
    told = (
        Rule(f"the event's time is {str(rule.reason).replace('a date', 'one', 1)}", rule.broken) for rule in typed.rules
    )
    return column, Typed(typed.value, (null, *told))


def _typed_id(column: Column, problems: list[str]) -> Typed | None:
    try:
        value = values.digits_or_text(column.name, column.dtype)
    except UnsupportedError as error:
        problems.append(f"id column '{column.name}': {error}")
        return None
    rules = (Rule(f"the event's id: {rule.reason}", rule.broken) for rule in text_rules(value))
    return Typed(value, (Rule("the event's id is null", value.is_null() | (value == "")), *rules))


def _typed_attribute(
    name: str, mapping: EventAttributeMapping, column: Column, timezone: str, problems: list[str]
) -> list[tuple[EventAttribute, Typed]]:
    """The attribute and its expressions; none, and a problem noted, where the column cannot become it."""
    try:
        travels, value = _typed_value(name, mapping, column, timezone)
    except UnsupportedError as error:
        problems.append(f"attribute '{name}', column '{column.name}': {error}")
        return []
    rules = value.rules + nested.native_rules(name, value.value)
    return [(EventAttribute(name, travels, column.name), Typed(value.value, rules))]


def _typed_value(
    name: str, mapping: EventAttributeMapping, column: Column, timezone: str
) -> tuple[EventAttributeType, Typed]:
    """The type that the value travels as, and its expressions."""
    if name == "$label":
        return "string", values.typed(column.name, column.dtype, "string")
    if name == "$tags":
        return "array", values.typed(column.name, column.dtype, "array", unordered=mapping.unordered)
    type_ = mapping.type or nested.inferred(column.dtype, json=column.json)
    return nested.typed(
        column.name, column.dtype, type_, timezone=timezone, json=column.json, unordered=mapping.unordered
    )


__all__ = [
    "EVENT_ID",
    "ID",
    "NAME",
    "OCCURRED_AT",
    "ROW",
    "TIME",
    "EventAttribute",
    "EventAttributeMapping",
    "EventColumns",
    "EventMapping",
    "MappedEvents",
    "apply",
    "marks",
    "resolve",
]
