"""One operation of a call: what to apply, what is refused, what deserves a warning. Pure."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

from connector.simulator.limits import ARRAY_ATTRIBUTES, ATTRIBUTES, Settings
from connector.simulator.values import Change, RefusedError, Value, read, read_native, utf16_length

_KEY = re.compile(r"(?P<plain>[a-z0-9_]{1,30})|(?P<wrapper>date|url)\((?P<inner>[a-z0-9_]{1,30})\)")
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


class Refusal(NamedTuple):
    """A part of an operation that is dropped alone; `attribute` is the key as it was sent."""

    category: str
    reason: str
    attribute: str | None = None


class Judged(NamedTuple):
    """One operation after the rules.

    Attributes:
        custom_id: Whom to change; None where nothing is applied (refused whole, or an installation,
            none of which this simulator knows).
        changes: By bare attribute name (`birthdate`, `$language`).
        refusals: What goes into the answer's `errors`.
        warnings: Ids of the rules that were bent: I04, I05, A06, A12.
    """

    custom_id: str | None
    changes: dict[str, Change]
    refusals: list[Refusal]
    warnings: list[str]


def judge(operation: object, settings: Settings) -> Judged:
    """The operation's valid changes, and every part that a rule refuses.

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
    judged = Judged(custom_id, *_read_all(attributes), [])
    judged.warnings.extend(_warnings(judged))
    return judged


def bare_name(key: str) -> str:
    """The attribute's name without `date(…)` or `url(…)` around it."""
    parsed = _parsed(key)
    return parsed[1] if parsed else key


def _fields(operation: object) -> dict[str, Any]:
    if not isinstance(operation, dict):
        raise MalformedError("not an object")
    if "events" in operation:
        raise MalformedError("events are not available yet in this simulator")
    if operation.keys() - {"identifiers", "attributes"}:
        raise MalformedError("has other fields than identifiers, attributes and events")
    if not isinstance(operation.get("attributes", {}), dict):
        raise MalformedError("attributes is not an object")
    return operation


def _refused_whole(category: str, reason: str, scope: str) -> Judged:
    if scope == "call":
        raise MalformedError(reason)
    return Judged(None, {}, [Refusal(category, reason)], [])


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


@lru_cache(maxsize=4096)
def _parsed(key: str) -> tuple[str, str] | None:
    match = _KEY.fullmatch(key)
    return (match["wrapper"] or "", match["inner"] or match["plain"]) if match else None


def _read_all(attributes: dict[str, Any]) -> tuple[dict[str, Change], list[Refusal]]:
    changes: dict[str, Change] = {}
    refusals: list[Refusal] = []
    twice = _named_twice(attributes)
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
    parsed = _parsed(key)
    if parsed is None:
        raise RefusedError("name is not 1 to 30 characters of a-z, 0-9 and _")
    wrapper, name = parsed
    return name, read(wrapper, value)


def _named_twice(attributes: dict[str, Any]) -> set[str]:
    names = [bare_name(key) for key in attributes]
    if len(set(names)) == len(names):
        return set()
    return {key for key, name in zip(attributes, names, strict=True) if names.count(name) > 1}


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
