"""The texts of a sync file that have rules of their own: names, columns, time zones, cron."""

import re
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from connector._model import Duration, Model, kind_of
from connector.config._cron import checked_cron
from connector.config._wording import suggestion
from connector.mapping import ATTRIBUTE_NAME
from connector.rules import NATIVE_TYPES

_ATTRIBUTE_NAME_MAX = 30
_LONGEST = timedelta(days=3650)
_TOO_LONG = "must be at most 3650d; write a shorter one"
_SYNC_NAME = r"^[a-z0-9_]{1,60}$"


def attribute_name(natives: Collection[str], owner: str) -> Callable[[str], str]:
    """Lets a native attribute's name or a custom one pass, and refuses any other text.

    Args:
        natives: The native names, each with its `$`.
        owner: What has them, for the message: `Batch`, `an event`.
    """

    def checked(name: str) -> str:
        wrapped = re.fullmatch(r"(date|url)\((.*)\)", name)
        if wrapped:
            raise ValueError(f"write the bare name and its type: {{column: …, type: {wrapped[1]}}}")
        if not name.startswith("$"):
            return _custom_name(name)
        if name not in natives:
            near = suggestion(name, natives) or ";"
            raise ValueError(f"no native attribute of {owner}{near} these are: {', '.join(natives)}")
        return name

    return checked


def attribute_pattern(natives: Collection[str]) -> str:
    """The names that `attribute_name` lets pass, as a regular expression."""
    return rf"^([a-z0-9_]{{1,30}}|{'|'.join(re.escape(name) for name in natives)})$"


def _custom_name(name: str) -> str:
    if len(name) > _ATTRIBUTE_NAME_MAX:
        raise ValueError(
            f"an attribute's name has at most {_ATTRIBUTE_NAME_MAX} characters, got {len(name)}; shorten it"
        )
    if ATTRIBUTE_NAME.fullmatch(name.lower()) and name != name.lower():
        raise ValueError(f"an attribute's name is in lower case only; did you mean '{name.lower()}'?")
    if not ATTRIBUTE_NAME.fullmatch(name):
        raise ValueError("an attribute's name is 1 to 30 lower-case letters, digits and '_'; rename it")
    return name


def _sync_name(name: str) -> str:
    if not re.fullmatch(_SYNC_NAME, name):
        raise ValueError(
            "a sync's name is 1 to 60 lower-case letters, digits and '_'; "
            "rename the file, or write another 'name' into it"
        )
    return name


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = suggestion(name, available_timezones())
        raise ValueError(f"no time zone of the IANA list{near or ', such as Europe/Paris'}") from None
    return name


def _countable(value: object) -> object:
    if isinstance(value, str) and re.search(r"\d{9}", value):  # more days than Python can count
        raise ValueError(_TOO_LONG)
    return value


def _bounded(length: timedelta) -> timedelta:
    if length > _LONGEST:
        raise ValueError(_TOO_LONG)
    return length


def _positive(length: timedelta) -> timedelta:
    if not length:
        raise ValueError("must be longer than 0s; write for instance 60s")
    return length


def short_form(key: str, text: str) -> Callable[[object], object]:
    """Reads a bare text as the mapping that has only this key.

    Args:
        key: The key that the text is the value of.
        text: What the text is, for the message about anything else: `a column's name`.
    """

    def long_form(value: object) -> object:
        if isinstance(value, dict | Model):
            return value
        if isinstance(value, str):
            return {key: value}
        raise ValueError(f"must be {text} or a mapping, got {kind_of(value)}")

    return long_form


Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""

BoundedDuration = Annotated[Duration, AfterValidator(_bounded), BeforeValidator(_countable)]
"""A length of time up to ten years."""

PositiveDuration = Annotated[BoundedDuration, AfterValidator(_positive)]
"""A length of time that is not nothing, up to ten years."""

AttributeName = Annotated[
    str,
    AfterValidator(attribute_name(NATIVE_TYPES, "Batch")),
    Field(json_schema_extra={"pattern": attribute_pattern(NATIVE_TYPES)}),
]
"""A native attribute of Batch, or 1 to 30 of a-z, 0-9 and _."""

SyncName = Annotated[str, AfterValidator(_sync_name), Field(json_schema_extra={"pattern": _SYNC_NAME})]
"""A name that can be part of a Dagster asset key and of a file name."""

Zone = Annotated[str, AfterValidator(_zone)]
"""The IANA name of a time zone."""

Cron = Annotated[str, AfterValidator(checked_cron)]
"""Five fields: minute, hour, day of the month, month, day of the week."""
