"""One event of an operation: what is kept of it, what is refused, how many nulls are ignored. Pure."""

import re
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from connector.simulator.limits import (
    ARRAY_ITEMS,
    EVENT_ATTRIBUTES,
    EVENT_BYTES,
    EVENT_DEPTH,
    LABEL_LENGTH,
    TAG_LENGTH,
    TAGS,
    Settings,
)
from connector.simulator.names import named_twice, parsed
from connector.simulator.values import Refusal, RefusedError, moment, read, text, texts

_NAME = re.compile(r"[a-z0-9_]{1,30}")
_FIELDS = frozenset(("name", "time", "attributes"))


class Event(NamedTuple):
    """An event that is accepted.

    Attributes:
        at: Its time in seconds since 1970; None where it was sent without one.
        received: When its call came in, in the same seconds.
        attributes: By key as sent, without nulls and without what was refused.
        kept: The event with those attributes, as compact UTF-8 JSON.
    """

    name: str
    at: float | None
    received: float
    attributes: dict[str, Any]
    kept: bytes

    def without(self, keys: set[str]) -> "Event":
        """The event without these attributes."""
        attributes = {key: value for key, value in self.attributes.items() if key not in keys}
        return self._replace(attributes=attributes, kept=to_json(from_json(self.kept) | {"attributes": attributes}))


class Verdict(NamedTuple):
    """An event after the rules, its refused attributes, and how many nulls it held."""

    event: Event
    refusals: list[Refusal]
    nulls: int


def read_event(sent: object, settings: Settings, now: float) -> Verdict:
    """The event as it is kept; `now` in seconds since 1970.

    Raises:
        RefusedError: The event is refused alone; the message never holds a value.
    """
    if not isinstance(sent, dict) or not sent.keys() <= _FIELDS:
        raise RefusedError("event is not an object with name, time and attributes alone")
    name = sent.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RefusedError("event name is not 1 to 30 characters of a-z, 0-9 and _")
    at = _time(sent["time"], settings, now) if "time" in sent else None
    attributes = sent.get("attributes", {})
    if not isinstance(attributes, dict):
        raise RefusedError("event attributes are not an object")
    whole = _compact(sent)
    # The text is searched because few events hold a null, and a walk through each would cost more than its rules.
    attributes, nulls = _without_nulls(attributes) if b"null" in whole else (attributes, 0)
    refusals = _refusals(attributes)
    event = Event(name, at, now, attributes, whole)
    return Verdict(
        event.without({one.attribute or "" for one in refusals}) if refusals or nulls else event, refusals, nulls
    )


def _time(value: Any, settings: Settings, now: float) -> float:  # noqa: ANN401 - parsed JSON
    try:
        at = moment(value).timestamp()
    except RefusedError:
        raise RefusedError("event time is not an RFC 3339 string with a zone") from None
    if at < now - settings.event_age:
        raise RefusedError(f"event is older than {settings.event_age / 3600:g} hours")
    if at > now + settings.event_ahead:
        raise RefusedError("event lies in the future")
    return at


def _compact(event: dict[str, Any]) -> bytes:
    try:
        whole = to_json(event)
    except PydanticSerializationError:
        raise RefusedError(f"event is nested in more than {EVENT_DEPTH} levels") from None
    if len(whole) > EVENT_BYTES:
        raise RefusedError(f"event is larger than {EVENT_BYTES} bytes")
    return whole


def _without_nulls(attributes: dict[str, Any], level: int = 0) -> tuple[dict[str, Any], int]:
    kept: dict[str, Any] = {}
    nulls = 0
    for key, value in attributes.items():
        if value is None:
            nulls += 1
            continue
        kept[key], inner = _inside(value, level + 1) if level < EVENT_DEPTH else (value, 0)
        nulls += inner
    return kept, nulls


def _inside(value: Any, level: int) -> tuple[Any, int]:  # noqa: ANN401
    if isinstance(value, dict):
        return _without_nulls(value, level)
    if not isinstance(value, list):
        return value, 0
    items = [_without_nulls(item, level) if isinstance(item, dict) else (item, 0) for item in value]
    return [item for item, _ in items], sum(nulls for _, nulls in items)


def _refusals(attributes: dict[str, Any]) -> list[Refusal]:
    _check_count(attributes)
    refusals: list[Refusal] = []
    twice = named_twice(tuple(attributes))
    for key, value in attributes.items():
        if key in twice:
            refusals.append(Refusal("attribute", "the same name is used twice in one event", key))
            continue
        try:
            _check(key, value, 0)
        except RefusedError as error:
            refusals.append(Refusal("attribute", str(error), key))
    return refusals


def _check(key: str, value: Any, level: int) -> None:  # noqa: ANN401
    """Check one attribute; `level` of the object that holds it, 0 for the event itself."""
    if level == 0 and key == "$label":
        _check_line(value, LABEL_LENGTH)
        return
    if level == 0 and key == "$tags":
        _check_tags(value)
        return
    name = parsed(key)
    if name is None:
        raise RefusedError("name is not 1 to 30 characters of a-z, 0-9 and _")
    if name[0] or not isinstance(value, dict | list):
        read(name[0], value)
    elif level == EVENT_DEPTH:
        raise RefusedError(f"objects and arrays are nested in more than {EVENT_DEPTH} levels")
    elif isinstance(value, dict):
        _check_object(value, level + 1)
    else:
        _check_array(value, level + 1)


def _check_object(value: dict[str, Any], level: int) -> None:
    _check_count(value)
    if named_twice(tuple(value)):
        raise RefusedError("the same name is used twice in one object")
    for key, inner in value.items():
        _check(key, inner, level)


def _check_array(value: list[Any], level: int) -> None:
    if not value or not all(isinstance(item, dict) for item in value):
        texts(value)
        return
    if len(value) > ARRAY_ITEMS:
        raise RefusedError(f"array holds more than {ARRAY_ITEMS} items")
    for item in value:
        _check_object(item, level)


def _check_count(attributes: dict[str, Any]) -> None:
    if len(attributes) > EVENT_ATTRIBUTES:
        raise RefusedError(f"object has more than {EVENT_ATTRIBUTES} attributes")


def _check_line(value: Any, limit: int) -> None:  # noqa: ANN401
    line = text(value, limit)
    if "\n" in line or "\r" in line:
        raise RefusedError("string value holds a line break")


def _check_tags(value: Any) -> None:  # noqa: ANN401
    if not isinstance(value, list) or not 1 <= len(value) <= TAGS:
        raise RefusedError(f"$tags is not an array of 1 to {TAGS} items")
    for tag in value:
        _check_line(tag, TAG_LENGTH)
