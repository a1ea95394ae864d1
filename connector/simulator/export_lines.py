"""The lines of an export: what Batch holds, in the shape that it hands out.

How dates and URLs come back is documented nowhere; `Settings` chooses between the two readings.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json, to_json

from connector.simulator.events import StoredEvent
from connector.simulator.export_rules import Wanted
from connector.simulator.ids import made_hex
from connector.simulator.limits import Settings
from connector.simulator.moments import in_utc, milliseconds, rfc3339
from connector.simulator.names import parsed
from connector.simulator.profiles import Profile
from connector.simulator.store import Store
from connector.simulator.values import Value

_STYLED = frozenset(("date", "url"))


def export_lines(wanted: Wanted, store: Store, settings: Settings) -> Iterator[bytes]:
    """Each line with its line feed: attributes by custom id, the others in the order that they happened.

    Events of people who were forgotten are left out while nobody creates them again.
    """
    style = _Style(settings)
    if wanted.kind == "ATTRIBUTES":
        return _profile_lines(wanted, store, style, blanks=settings.export_blanks)
    found = _events(wanted, store, style) if wanted.kind == "EVENTS" else _contacts(wanted, store)
    return _event_lines(wanted, store, found)


class _Style:
    """How keys and dates are written."""

    def __init__(self, settings: Settings) -> None:
        self._wrapped = settings.export_style == "wrapped"
        self._date: Callable[[str], object] = in_utc if settings.export_dates == "rfc3339" else milliseconds

    def pair(self, wrapper: str, name: str, value: object) -> tuple[str, object]:
        """The key and the value; `wrapper` is "date", "url" or says nothing."""
        if wrapper not in _STYLED:
            return name, value
        shown = self._date(str(value)) if wrapper == "date" else value
        return (f"{wrapper}({name})" if self._wrapped else name), shown

    def inside(self, value: object) -> Any:  # noqa: ANN401 - parsed JSON
        """A value of an event, whose objects have keys as they were sent."""
        if isinstance(value, list):
            return [self.inside(item) for item in value]
        if not isinstance(value, dict):
            return value
        return dict(self.pair(*_parsed(key), self.inside(item)) for key, item in value.items())


def _parsed(key: str) -> tuple[str, str]:
    return parsed(key) or ("", key)


def _profile_lines(wanted: Wanted, store: Store, style: _Style, *, blanks: bool) -> Iterator[bytes]:
    named = "custom_id" in wanted.identifiers
    for custom_id, profile in store.profiles:
        attributes = _attributes(profile, wanted.attributes, style)
        if attributes or blanks:
            yield _line({"identifiers": {"custom_id": custom_id} if named else {}, "attributes": attributes})


def _attributes(profile: Profile, names: tuple[str, ...], style: _Style) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in names:
        held: Value | None = (profile.native if name[0] == "$" else profile.custom).get(name)
        if held is None:
            continue
        # Most values come back as they are, and there may be millions.
        key, value = style.pair(held.type, name, held.value) if held.type in _STYLED else (name, held.value)
        found[key] = value
    return found


def _event_lines(wanted: Wanted, store: Store, found: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[bytes]:
    for custom_id, event in found:
        profile_id = store.profiles.profile_id(custom_id)
        if profile_id is not None:
            whose = {"profile_id": profile_id}
            if "custom_id" in wanted.identifiers:
                whose["custom_id"] = custom_id
            yield _line({"event": event, "identifiers": whose})


def _contacts(wanted: Wanted, store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    return store.contacts.between(wanted.start, wanted.end, wanted.channels)


def _events(wanted: Wanted, store: Store, style: _Style) -> Iterator[tuple[str, dict[str, Any]]]:
    for sequence, stored in enumerate(store.events.since(0), 1):
        at = stored.received if stored.at is None else stored.at
        if wanted.start <= at < wanted.end:
            event = _event(stored, at, made_hex(store.project, "event", sequence, stored.received), style)
            if not wanted.events or event["name"] in wanted.events:
                yield stored.custom_id, event


def _event(stored: StoredEvent, at: float, event_id: str, style: _Style) -> dict[str, Any]:
    sent = from_json(stored.kept)
    attributes = style.inside(sent.get("attributes", {}))
    return {"id": event_id, "name": sent["name"], "timestamp": rfc3339(at), "attributes": attributes}


def _line(content: dict[str, Any]) -> bytes:
    return to_json(content) + b"\n"
