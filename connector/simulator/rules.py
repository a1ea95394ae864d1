"""One operation of a call: what to apply, what is refused, what deserves a warning. Pure."""

import re
import time
from typing import Any, NamedTuple

from connector.simulator.event_rules import Event, read_event
from connector.simulator.limits import ARRAY_ATTRIBUTES, ATTRIBUTES, EVENTS, Settings
from connector.simulator.names import named_twice, parsed
from connector.simulator.values import Change, Refusal, RefusedError, Value, read, read_native, utf16_length

_FLOAT_ID = re.compile(r"[0-9]+\.0")
_RESERVED = frozenset(
    (
        "undefined",
        "null",
        "nil",
        "(null)",
        "[object object]",
        "true",
        "false",
        "nan",
        "infinity",
        "-infinity",
    )
)
_UNAVAILABLE_TO_INSTALLATIONS = frozenset(("$email_address", "$email_marketing", "$phone_number", "$sms_marketing"))


class MalformedError(Exception):
    """The whole call is refused; the message never holds a value."""


class Judged(NamedTuple):
    """One operation after the rules.

    Attributes:
        custom_id: Whom to change; None where nothing is applied (refused whole, or an installation,
            none of which this simulator knows).
        changes: By bare attribute name (`birthdate`, `$language`).
        events: What is kept of them, in the order sent.
        refusals: What goes into the answer's `errors`.
        warnings: Ids of the rules that were bent: I04, I05, A06, A12, V08.
    """

    custom_id: str | None
    changes: dict[str, Change]
    events: list[Event]
    refusals: list[Refusal]
    warnings: list[str]


def judge(operation: object, settings: Settings, now: float | None = None) -> Judged:
    """The operation's valid changes and events, and every part that a rule refuses.

    Args:
        operation: As it was parsed.
        settings: The limits.
        now: When it came in, in seconds since 1970; by default now.

    Raises:
        MalformedError: The operation refuses the whole call.
    """
    fields = _fields(operation)
    try:
        custom_id = _custom_id(fields.get("identifiers"), settings.custom_id_length)
    except RefusedError as error:
        return _refused_whole("identifier", str(error), settings.bad_identifier)
    attributes = fields.get("attributes", {})
    if len(attributes) > ATTRIBUTES:
        reason = f"operation has more than {ATTRIBUTES} attributes"
        return _refused_whole("attribute", reason, settings.too_many_attributes)
    events = fields.get("events", [])
    if len(events) > EVENTS:
        return _refused_whole("event", f"operation has more than {EVENTS} events", settings.too_many_events)
    changes, refusals = _read_all(attributes)
    judged = Judged(custom_id, changes, [], refusals, [])
    judged.warnings.extend(_warnings(judged))
    _read_events(events, judged, settings, time.time() if now is None else now)
    return judged


def _fields(operation: object) -> dict[str, Any]:
    if not isinstance(operation, dict):
        raise MalformedError("not an object")
    if operation.keys() - {"identifiers", "attributes", "events"}:
        raise MalformedError("has other fields than identifiers, attributes and events")
    if not isinstance(operation.get("attributes", {}), dict):
        raise MalformedError("attributes is not an object")
    if not isinstance(operation.get("events", []), list):
        raise MalformedError("events is not an array")
    return operation


def _refused_whole(category: str, reason: str, scope: str) -> Judged:
    if scope == "call":
        raise MalformedError(reason)
    return Judged(None, {}, [], [Refusal(category, reason)], [])


def _custom_id(identifiers: Any, limit: int) -> str | None:  # noqa: ANN401 - parsed JSON
    if not isinstance(identifiers, dict) or identifiers.keys() not in ({"custom_id"}, {"installation"}):
        raise RefusedError("identifiers is not an object with exactly one of custom_id and installation")
    if "installation" in identifiers:
        _check_installation(identifiers["installation"])
        return None
    custom_id = identifiers["custom_id"]
    if not isinstance(custom_id, str):
        raise RefusedError("custom_id is not a string")
    if not custom_id.strip():
        raise RefusedError("custom_id is blank")
    if "\n" in custom_id or "\r" in custom_id:
        raise RefusedError("custom_id holds a line break")
    if utf16_length(custom_id) > limit:
        raise RefusedError(f"custom_id is longer than {limit} characters")
    if custom_id.lower() in _RESERVED:
        raise RefusedError("custom_id is a reserved word")
    return custom_id


def _check_installation(installation: Any) -> None:  # noqa: ANN401 - parsed JSON
    if not isinstance(installation, dict) or installation.keys() != {"apikey", "installation_id"}:
        raise RefusedError("installation is not an object with apikey and installation_id")
    if not all(isinstance(text, str) and text for text in installation.values()):
        raise RefusedError("installation holds something else than texts")


def _read_all(attributes: dict[str, Any]) -> tuple[dict[str, Change], list[Refusal]]:
    changes: dict[str, Change] = {}
    refusals: list[Refusal] = []
    twice = named_twice(tuple(attributes))
    for key, value in attributes.items():
        if key in twice:
            refusals.append(Refusal("attribute", "the same name is used twice in one operation", key))
            continue
        try:
            name, change = _read(key, value)
        except RefusedError as error:
            refusals.append(Refusal("attribute", str(error), key))
        else:
            changes[name] = change
    return changes, refusals


def _read(key: str, value: Any) -> tuple[str, Change]:  # noqa: ANN401 - parsed JSON
    if key.startswith("$"):
        return key, read_native(key, value)
    found = parsed(key)
    if found is None:
        raise RefusedError("name is not 1 to 30 characters of a-z, 0-9 and _")
    wrapper, name = found
    return name, read(wrapper, value)


def _read_events(events: list[Any], judged: Judged, settings: Settings, now: float) -> None:
    for sent in events:
        try:
            event, refusals, nulls = read_event(sent, settings, now)
        except RefusedError as error:
            judged.refusals.append(Refusal("event", str(error)))
        else:
            judged.events.append(event)
            judged.refusals.extend(refusals)
            judged.warnings.extend(["V08"] * nulls)


def _warnings(judged: Judged) -> list[str]:
    found = []
    if judged.custom_id is not None and _FLOAT_ID.fullmatch(judged.custom_id):
        found.append("I04")
    if judged.custom_id is None and not _UNAVAILABLE_TO_INSTALLATIONS.isdisjoint(judged.changes):
        found.append("I05")
    types = [change.type for change in judged.changes.values() if isinstance(change, Value)]
    if "date" in types:
        found += ["A06" for change in judged.changes.values() if _date_with_offset(change)]
    if types.count("array") > ARRAY_ATTRIBUTES:
        found.append("A12")
    return found


def _date_with_offset(change: Change) -> bool:
    return isinstance(change, Value) and change.type == "date" and not str(change.value).endswith("Z")
