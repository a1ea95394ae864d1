"""Which values an attribute may take, and as which type it is kept. Pure; one function a rule."""

import math
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import available_timezones

from connector.simulator.limits import ARRAY_ITEMS, EMAIL_LENGTH, INTEGER_RANGE, STRING_LENGTH, URL_LENGTH

_DATE = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^\s/?#@]*@)?[^\s/?#@:][^\s/?#@]*(?:[/?#]\S*)?", re.ASCII | re.IGNORECASE)
# The range A-z is what Batch's iOS SDK has.
_EMAIL = re.compile(r"[^@\s]+@[A-z0-9\-.]+\.[A-z0-9]+")
_PHONE = re.compile(r"\+[0-9]{1,15}")
_LANGUAGE = re.compile(r"[a-z]{2}")
_REGION = re.compile(r"[A-Z]{2}")
_TOPIC = re.compile(r"[a-z0-9_]+")


class RefusedError(Exception):
    """One part of an operation breaks a rule; the message never holds the value."""


class Refusal(NamedTuple):
    """A part of an operation that is dropped alone; `attribute` is the key as it was sent."""

    category: str
    reason: str
    attribute: str | None = None


class Value(NamedTuple):
    """A typed attribute: string, integer, float, boolean, date, url or array, as it was sent."""

    type: str
    value: str | int | float | bool | list[str]


class Partial(NamedTuple):
    """A change of an array that is kept as a set: items to add, items to remove."""

    add: list[str]
    remove: list[str]

    def merged(self, current: Value | None) -> Value | None:
        """The array after the change, or None where nothing is left; another type counts as empty."""
        kept = current.value if current and isinstance(current.value, list) else []
        removed = set(self.remove)
        items = [item for item in dict.fromkeys([*kept, *self.add]) if item not in removed]
        return Value("array", items) if items else None


Change = Value | Partial | None
"""What to do with one attribute; None deletes it."""


def utf16_length(text: str) -> int:
    """UTF-16 units, as Batch's Android and web SDKs count: an emoji is 2."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def read(wrapper: str, value: Any) -> Change:  # noqa: ANN401 - parsed JSON
    """The change that a custom attribute asks for; `wrapper` is "date", "url" or "".

    Raises:
        RefusedError: The value breaks a rule.
    """
    if value is None:
        return None
    if wrapper:
        return Value("date", _date(value)) if wrapper == "date" else Value("url", _url(value))
    return _BY_TYPE[type(value)](value)


def read_native(name: str, value: Any) -> Change:  # noqa: ANN401 - parsed JSON
    """The change that a native attribute asks for.

    Raises:
        RefusedError: The attribute is unknown, or the value breaks its rule.
    """
    rule = _NATIVE.get(name)
    if rule is None:
        raise RefusedError("unknown native attribute")
    return None if value is None else rule(value)


def text(value: Any, limit: int = STRING_LENGTH) -> str:  # noqa: ANN401
    """The value, a text that says something within `limit` UTF-16 units.

    Raises:
        RefusedError: It is another type, blank or longer.
    """
    if not isinstance(value, str):
        raise RefusedError("value is not a string")
    if not value or value.isspace():
        raise RefusedError("string value is empty")
    if utf16_length(value) > limit:
        raise RefusedError(f"string value is longer than {limit} characters")
    return value


def texts(value: Any) -> list[str]:  # noqa: ANN401
    """The value, an array of 1 to 25 texts.

    Raises:
        RefusedError: It is another type, or has too few, too many or bad items.
    """
    if not isinstance(value, list):
        raise RefusedError("value is not an array")
    if not 1 <= len(value) <= ARRAY_ITEMS:
        raise RefusedError(f"array does not hold 1 to {ARRAY_ITEMS} items")
    return [text(item) for item in value]


def moment(value: Any) -> datetime:  # noqa: ANN401
    """The moment that an RFC 3339 text with a zone means.

    Raises:
        RefusedError: It is another type, another format or no day of the calendar.
    """
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise RefusedError("date value is not an RFC 3339 string with a zone")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise RefusedError("date value is not a day of the calendar") from None


def _date(value: Any) -> str:  # noqa: ANN401
    moment(value)
    return str(value)


def _url(value: Any) -> str:  # noqa: ANN401
    if not _URL.fullmatch(text(value, URL_LENGTH)):
        raise RefusedError("URL value lacks a scheme or a host")
    return str(value)


def _integer(value: int) -> Value:
    if value not in INTEGER_RANGE:
        raise RefusedError("integer value exceeds 64 bits")
    return Value("integer", value)


def _float(value: float) -> Value:
    if not math.isfinite(value):
        raise RefusedError("number is not finite")
    return Value("float", value)


def _partial(value: dict[str, Any]) -> Partial:
    if not value or value.keys() - {"$add", "$remove"}:
        raise RefusedError("objects are not supported, except with $add or $remove alone")
    change = Partial(*(texts(value[side]) if side in value else [] for side in ("$add", "$remove")))
    if not set(change.add).isdisjoint(change.remove):
        raise RefusedError("the same item is in $add and in $remove")
    return change


_BY_TYPE: dict[type, Callable[[Any], Change]] = {
    str: lambda value: Value("string", text(value)),
    bool: lambda value: Value("boolean", value),
    int: _integer,
    float: _float,
    list: lambda value: Value("array", texts(value)),
    dict: _partial,
}


def _matching(pattern: re.Pattern[str], shape: str, limit: int = STRING_LENGTH) -> Callable[[Any], Change]:
    def rule(value: Any) -> Change:  # noqa: ANN401
        if not pattern.fullmatch(text(value, limit)):
            raise RefusedError(f"value is not {shape}")
        return Value("string", value)

    return rule


def _subscription(value: Any) -> Change:  # noqa: ANN401
    if value not in ("subscribed", "unsubscribed"):
        raise RefusedError("value is neither 'subscribed' nor 'unsubscribed'")
    return Value("string", value)


_zones = cache(available_timezones)


def _timezone(value: Any) -> Change:  # noqa: ANN401
    if text(value) not in _zones():
        raise RefusedError("value is not an IANA time zone")
    return Value("string", value)


def _topics(value: Any) -> Change:  # noqa: ANN401
    change = _partial(value) if isinstance(value, dict) else Value("array", texts(value))
    items = [*change.add, *change.remove] if isinstance(change, Partial) else value
    if not all(_TOPIC.fullmatch(item) for item in items):
        raise RefusedError("a topic has other characters than a-z, 0-9 and _")
    return change


_NATIVE: dict[str, Callable[[Any], Change]] = {
    "$email_address": _matching(_EMAIL, "an e-mail address", EMAIL_LENGTH),
    "$email_marketing": _subscription,
    "$phone_number": _matching(_PHONE, "an E.164 phone number"),
    "$sms_marketing": _subscription,
    "$language": _matching(_LANGUAGE, "a two-letter lowercase ISO 639 code"),
    "$region": _matching(_REGION, "a two-letter uppercase ISO 3166 code"),
    "$timezone": _timezone,
    "$topic_preferences": _topics,
}

NATIVE = frozenset(_NATIVE)
"""The native attributes that are known."""
