"""The fields of a fault: what each may hold, and at which endpoints it means something. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from connector.errors import UsageError

ENDPOINTS = ("export", "view", "list", "download", "file")
"""Those that a fault can name; without one it is for the updates."""

WHOLE = ("error", "empty", "bomb")
"""What becomes of an export that then has no line of its own."""

BECOMES = ("stuck", *WHOLE, "missing_part", "repeated_part", "renamed", "garbage")
"""What can become of an export."""


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _is_seconds(value: Any) -> bool:  # noqa: ANN401
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_header(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _is_texts(value: Any, known: set[str]) -> bool:  # noqa: ANN401
    return isinstance(value, dict) and value.keys() <= known and all(isinstance(text, str) for text in value.values())


def _is_part(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, dict) or "custom_id" not in value or value.keys() >= {"attribute", "event"}:
        return False
    event, texts = value.get("event", {}), {name: text for name, text in value.items() if name != "event"}
    return _is_texts(event, {"name", "event_id"}) and _is_texts(texts, {"custom_id", "attribute", "reason", "category"})


def _is_partial(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, list | tuple) and all(map(_is_part, value))


def _is_match(value: Any) -> bool:  # noqa: ANN401
    return bool(value) and _is_texts(value, {"custom_id", "event_id"})


def _is_lines(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, list | tuple) and all(isinstance(line, str) for line in value)


def _is_one_of(allowed: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: isinstance(value, str) and value in allowed), f"one of {', '.join(allowed)}"


_FLAG = (lambda value: isinstance(value, bool), "true or false")
_SECONDS = (_is_seconds, "seconds, 0 or more")
_HEADER = (_is_header, "printable ASCII text")
_EVERYWHERE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "endpoint": _is_one_of(ENDPOINTS),
    "status": (lambda value: type(value) is int and value in range(200, 600), "a status from 200 to 599"),
    "delay": _SECONDS,
    "cut": _FLAG,
    "body": (lambda value: isinstance(value, str), "text"),
    "content_type": _HEADER,
    "retry_after": (lambda value: type(value) in (int, float) or _is_header(value), "seconds or text"),
    "location": _HEADER,
    "times": (_is_count(1), "a whole number, 1 or more"),
    "skip": (_is_count(0), "a whole number, 0 or more"),
    "share": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1"),
    "seed": (lambda value: type(value) is int, "a whole number"),
}
_EFFECTS = {"apply": _FLAG, "late": _SECONDS}
_UPDATES = {
    "match": (_is_match, "an object with custom_id or event_id or both"),
    "partial": (_is_partial, "a list of objects with custom_id and perhaps attribute or event, reason, category"),
}
_EXPORT = {"becomes": _is_one_of(BECOMES), "lines": (_is_lines, "a list of texts")}
_FILE = dict.fromkeys(("truncated", "corrupt", "expired", "changed"), _FLAG)
_AT: Mapping[str | None, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    None: _EVERYWHERE | _EFFECTS | _UPDATES,
    "export": _EVERYWHERE | _EFFECTS | _EXPORT,
    "file": _EVERYWHERE | _FILE,
}
_KNOWN = _EVERYWHERE | _EFFECTS | _UPDATES | _EXPORT | _FILE


def checked(fault: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fault as it was given.

    Raises:
        UsageError: It has an unknown field, a value that its field does not take, or fields that do not go together.
    """
    if not isinstance(fault, dict):
        raise UsageError("a fault is not an object", remedy='write it such as {"status": 500, "times": 2}')
    for name, value in fault.items():
        if name not in _KNOWN:
            raise UsageError(f"a fault has the unknown field '{name}'", remedy=f"use {', '.join(_KNOWN)}")
        fits, allowed = _KNOWN[name]
        if not fits(value):
            raise UsageError(f"the field '{name}' of a fault is not {allowed}", remedy="correct the fault")
    _check_together(fault)
    return fault


def _check_together(fault: Mapping[str, Any]) -> None:
    endpoint = fault.get("endpoint")
    here = _AT.get(endpoint, _EVERYWHERE)
    astray = [name for name in fault if name not in here]
    if astray:
        where = "the endpoints of updates" if endpoint is None else f"the endpoint '{endpoint}'"
        raise UsageError(
            f"the field '{astray[0]}' of a fault means nothing at {where}", remedy=f"use {', '.join(here)} there"
        )
    if fault.get("lines") and fault.get("becomes") in WHOLE:
        raise UsageError(
            f"a fault adds lines to an export that becomes '{fault['becomes']}' and has none",
            remedy="leave one of the two fields out",
        )
