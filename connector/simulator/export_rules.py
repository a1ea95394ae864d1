"""What an export is asked for, and what is refused of it. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json

from connector.simulator.limits import LOOKBACK, REACHABILITY_SINCE
from connector.simulator.reachability import CHANNELS
from connector.simulator.rules import MalformedError
from connector.simulator.values import NATIVE, RefusedError, moment

_NAME = re.compile(r"[a-z0-9_]{1,30}")
_CHANNELS = frozenset((*(channel.name for channel in CHANNELS), "PUSH"))
_FIELDS = {
    "ATTRIBUTES": frozenset(("export_type", "attributes", "identifiers", "filter")),
    "EVENTS": frozenset(("export_type", "from", "to", "identifiers", "events")),
    "REACHABILITY": frozenset(("export_type", "from", "to", "identifiers", "channels")),
}


class Wanted(NamedTuple):
    """An export that may be made.

    Attributes:
        kind: ATTRIBUTES, EVENTS or REACHABILITY.
        body: As it was sent.
        attributes: Names with `$` or bare, each once.
        identifiers: Those to name in each line.
        start: Seconds since 1970 of the first moment; 0 for a snapshot.
        end: Those of the first moment behind it.
        events: Names of the events, or empty for all.
        channels: Those of reachability; by default all.
    """

    kind: str
    body: dict[str, Any]
    attributes: tuple[str, ...]
    identifiers: frozenset[str]
    start: float
    end: float
    events: frozenset[str]
    channels: frozenset[str]


def read_export(body: bytes, now: float) -> Wanted:
    """The export that a body asks for; `now` in seconds since 1970.

    A filter by segment is checked and selects everybody: the simulator knows no segments.

    Raises:
        MalformedError: The body breaks a rule; the message never holds a value.
    """
    asked = _object(body)
    kind = asked.get("export_type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise MalformedError(f"export_type is not one of {', '.join(_FIELDS)}")
    if not asked.keys() <= _FIELDS[kind]:
        raise MalformedError(f"an export of {kind} has other fields than {', '.join(sorted(_FIELDS[kind]))}")
    wanted = Wanted(
        kind,
        asked,
        _texts(asked, "attributes", _is_attribute, "the name of an attribute"),
        frozenset(_texts(asked, "identifiers", _identifiers(kind).__contains__, "an identifier of this export")),
        *((0.0, 0.0) if kind == "ATTRIBUTES" else _window(asked, kind, now)),
        frozenset(_texts(asked, "events", _is_name, "the name of an event")),
        frozenset(_texts(asked, "channels", _CHANNELS.__contains__, "a channel")) or _CHANNELS,
    )
    _check_snapshot(wanted)
    return wanted


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise MalformedError("the body is not JSON in UTF-8") from None
    if not isinstance(asked, dict):
        raise MalformedError("the body is not an object")
    return asked


def _texts(asked: Mapping[str, Any], field: str, allowed: Callable[[str], object], what: str) -> tuple[str, ...]:
    if field not in asked:
        return ()
    items = asked[field]
    if not isinstance(items, list) or not items:
        raise MalformedError(f"{field} is not an array of at least one text")
    if not all(isinstance(item, str) and allowed(item) for item in items):
        raise MalformedError(f"{field} holds something that is not {what}")
    return tuple(dict.fromkeys(items))


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_attribute(text: str) -> bool:
    return text in NATIVE or _is_name(text)


def _identifiers(kind: str) -> frozenset[str]:
    return frozenset(("custom_id", "installation_ids" if kind == "ATTRIBUTES" else "installation_id"))


def _check_snapshot(wanted: Wanted) -> None:
    if wanted.kind == "ATTRIBUTES" and not wanted.attributes and not wanted.identifiers:
        raise MalformedError("an export of ATTRIBUTES names neither attributes nor identifiers")
    chosen = wanted.body.get("filter", {"segment": "everybody"})
    segment = chosen.get("segment") if isinstance(chosen, dict) and chosen.keys() == {"segment"} else None
    if not isinstance(segment, str) or not segment.strip():
        raise MalformedError("filter is not an object with the code of a segment alone")


def _window(asked: Mapping[str, Any], kind: str, now: float) -> tuple[float, float]:
    start, end = (_moment(asked, field, now) for field in ("from", "to"))
    if start < now - LOOKBACK:
        raise MalformedError(f"from is older than {LOOKBACK / 86_400:g} days")
    if kind == "REACHABILITY" and start < REACHABILITY_SINCE:
        raise MalformedError("from is before 2024-10-10, since when reachability is kept")
    if end <= start:
        raise MalformedError("to is not later than from")
    return start, end


def _moment(asked: Mapping[str, Any], field: str, now: float) -> float:
    try:
        at = moment(asked.get(field)).timestamp()
    except RefusedError:
        raise MalformedError(f"{field} is not an RFC 3339 string with a zone") from None
    if at > now:
        raise MalformedError(f"{field} lies in the future")
    return at
