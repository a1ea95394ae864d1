"""Columns to typed attributes: which column feeds which attribute, and how it becomes one."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

import polars as pl
from pydantic import Field

from connector import rules, values
from connector._model import Model
from connector.errors import WarehouseError
from connector.rules import AttributeType, EventAttributeType, Typed
from connector.values import UnsupportedError

KEY = "#key"
"""Names of our own columns start with '#', which no attribute can."""

ATTRIBUTES_MAX = 50
"""Attributes of one operation: the limit of the web SDK and of Batch's own Segment destination."""

ATTRIBUTE_NAME = re.compile(r"[a-z0-9_]{1,30}")


class AttributeMapping(Model):
    """Where an attribute's value comes from and how it is sent."""

    column: str = Field(min_length=1, description="the column that holds the value")
    type: AttributeType | None = Field(default=None, description="how Batch keeps it; inferred from the column")
    on_null: Literal["clear", "keep"] = Field(default="clear", description="what a null does to Batch's value")
    unordered: bool = Field(default=False, description="arrays: the order of items means nothing")


class Column(NamedTuple):
    """One column of a source: its name as the warehouse spells it, its Polars type, and whether it is JSON."""

    name: str
    dtype: pl.DataType
    """`pl.Object` where the warehouse's type has no counterpart: such a column cannot be read."""
    json: bool = False
    """True where the warehouse's own type is semi-structured (JSON, VARIANT, OBJECT, ARRAY as text)."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a sync, resolved against the source's columns."""

    name: str
    type: AttributeType
    column: str
    keep: bool
    """True: a null is not sent, what Batch holds stays."""

    @property
    def json_key(self) -> str:
        """The key under which Batch expects the value: `date(x)`, `url(x)` or the name itself."""
        return json_key(self.name, self.type)


def json_key(name: str, type_: EventAttributeType) -> str:
    """The key under which Batch expects a value: `date(x)`, `url(x)` or the name itself."""
    return f"{type_}({name})" if type_ in ("date", "url") else name


@dataclass(frozen=True, slots=True)
class Mapping:
    """A sync's mapping, ready to be applied to record batches of its source."""

    key_column: str
    key: Typed
    attributes: tuple[Attribute, ...]
    values: tuple[Typed, ...]

    @property
    def columns(self) -> list[str]:
        """The source columns that have to be read, each once."""
        return list(dict.fromkeys([self.key_column, *(attribute.column for attribute in self.attributes)]))


def resolve(
    columns: Sequence[Column],
    key: str,
    attributes: dict[str, AttributeMapping] | None,
    *,
    cursor: str | None = None,
    timezone: str = "UTC",
) -> Mapping:
    """The mapping of a source with these columns.

    Args:
        columns: The source's columns.
        key: Column of the custom ID.
        attributes: Batch name to mapping; None takes every other column, by the Cloud Sync conventions.
        cursor: A timestamp or date; without an `attributes` block it is not sent.
        timezone: Zone of naive timestamps.

    Raises:
        WarehouseError: A column is missing, or its type cannot become what the mapping asks; all mistakes at once.
    """
    problems: list[str] = []
    key_column = find(columns, key, "key", problems)
    key_typed = typed_key(key_column, problems) if key_column else None
    if cursor:
        check_cursor(columns, cursor, problems)
    if attributes is None:
        apart = {key_column and key_column.name, _name_of(columns, cursor)}
        found = conventional(columns, apart, rules.NATIVE_TYPES, problems)
        attributes = {name: AttributeMapping(column=column, type=type_) for name, (column, type_) in found.items()}
    if not attributes and not problems:
        problems.append(f"the source has no column beside its key '{key}', so there is nothing to send")
    if len(attributes) > ATTRIBUTES_MAX:
        remedy = "split the sync in two, or name fewer under attributes"
        problems.append(f"{len(attributes)} attributes, an operation takes {ATTRIBUTES_MAX}; {remedy}")
    pairs = []
    for name, mapping in attributes.items():
        if column := find(columns, mapping.column, f"attribute '{name}'", problems):
            pairs += _typed_attribute(name, mapping, column, timezone, problems)
    if problems or key_column is None or key_typed is None:
        raise WarehouseError("; ".join(problems), remedy="correct the mapping or the source")
    return Mapping(key_column.name, key_typed, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def check_cursor(columns: Sequence[Column], cursor: str, problems: list[str]) -> None:
    """Note a cursor that does not exist or tells no time: it is found out before the first full read was sent."""
    column = find(columns, cursor, "cursor", problems)
    if column and not isinstance(column.dtype, pl.Date | pl.Datetime):
        problems.append(f"cursor: column '{column.name}' is of type {column.dtype}, a timestamp or date is needed")


def typed_key(column: Column, problems: list[str]) -> Typed | None:
    """The custom ID's expressions; None, and a problem noted, where the column cannot be a key."""
    try:
        return values.key_text(column.name, column.dtype)
    except UnsupportedError as error:
        problems.append(f"key column '{column.name}': {error}")
    return None


def _typed_attribute(
    name: str, mapping: AttributeMapping, column: Column, timezone: str, problems: list[str]
) -> list[tuple[Attribute, Typed]]:
    """The attribute and its expressions; none, and a problem noted, where the column cannot become it."""
    try:
        type_ = mapping.type or rules.NATIVE_TYPES.get(name) or values.inferred(column.dtype, json=column.json)
        value = values.typed(column.name, column.dtype, type_, timezone=timezone, unordered=mapping.unordered)
    except UnsupportedError as error:
        problems.append(f"attribute '{name}', column '{column.name}': {error}")
        return []
    attribute = Attribute(name, type_, column.name, mapping.on_null == "keep")
    return [(attribute, Typed(value.value, value.rules + rules.native_rules(name, value.value)))]


def find(columns: Sequence[Column], name: str, role: str, problems: list[str]) -> Column | None:
    """The column of that name; without case where only one is meant. A miss is noted in `problems`."""
    exact = [column for column in columns if column.name == name]
    loose = exact or [column for column in columns if column.name.lower() == name.lower()]
    if len(loose) == 1:
        return loose[0]
    close = get_close_matches(name, [column.name for column in columns], n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; it has {', '.join(column.name for column in columns)}"
    problems.append(f"{role}: the source has no column '{name}'{hint}")
    return None


def _name_of(columns: Sequence[Column], name: str | None) -> str | None:
    found = find(columns, name, "", []) if name else None
    return found.name if found else None


def conventional(
    columns: Sequence[Column], apart: Collection[str | None], natives: Collection[str], problems: list[str]
) -> dict[str, tuple[str, AttributeType | None]]:
    """Every other column, and perhaps its type, under the name that Batch Cloud Sync would give it.

    Args:
        columns: The source's.
        apart: Columns that are no attributes.
        natives: Native attributes that columns may become.
        problems: Grows by two columns of one name, and by names that Batch does not take.
    """
    found: dict[str, tuple[str, AttributeType | None]] = {}
    for column in columns:
        if column.name in apart:
            continue
        name, type_ = _conventional_name(column.name, natives)
        if name in found:
            both = f"columns '{found[name][0]}' and '{column.name}' both become attribute '{name}'"
            problems.append(f"{both}; map one of them under attributes")
        elif not (ATTRIBUTE_NAME.fullmatch(name) or name in natives):
            allowed = "names are 1 to 30 of a-z, 0-9 and _"
            problems.append(
                f"column '{column.name}' would become attribute '{name}', {allowed}; map it under attributes"
            )
        else:
            found[name] = (column.name, type_)
    return found


def _conventional_name(column: str, natives: Collection[str]) -> tuple[str, AttributeType | None]:
    prefix, separator, rest = column.lower().partition("__")
    match prefix if separator and rest else "":
        case "date":
            return rest, "date"
        case "url":
            return rest, "url"
        case "batch" if natives:
            return f"${rest}", None
        case _:
            return column.lower(), None
