"""The events of one project in the order of their application, in memory."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import from_json

from connector.simulator.event_rules import Event
from connector.simulator.moments import rfc3339
from connector.simulator.names import bare_name, parsed

_TYPES = {str: "string", int: "integer", float: "float", bool: "boolean", list: "array", dict: "object"}


class StoredEvent(NamedTuple):
    """An applied event; `at` (None without a time) and `received` in seconds since 1970, `kept` its JSON."""

    custom_id: str
    at: float | None
    received: float
    kept: bytes

    def as_json(self, sequence: int) -> dict[str, Any]:
        """As the control routes show it: attributes by bare name, those inside objects as they were sent."""
        sent = from_json(self.kept)
        attributes = sent.get("attributes", {})
        return {
            "sequence": sequence,
            "custom_id": self.custom_id,
            "name": sent["name"],
            "time": sent["time"] if "time" in sent else rfc3339(self.received),
            "received": self.received,
            "attributes": {bare_name(key): value for key, value in attributes.items()},
            "types": {bare_name(key): _type(key, value) for key, value in attributes.items()},
        }


@dataclass(slots=True)
class _Timeline:
    """The sequences of one profile's events, and the latest time that any of them was sent with."""

    sequences: list[int] = field(default_factory=list)
    latest: float = float("-inf")


class Events:
    """The events of one project; the first one has the sequence 1."""

    def __init__(self, stored: Iterable[StoredEvent] = ()) -> None:
        self._stored: list[StoredEvent] = []
        self._timelines: dict[str, _Timeline] = {}
        for event in stored:
            self._append(event)

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, custom_id: str, events: Iterable[Event]) -> int:
        """How many of them were overtaken: applied after a later event of the profile."""
        return sum(self._append(StoredEvent(custom_id, one.at, one.received, one.kept)) for one in events)

    def since(self, sequence: int) -> Sequence[StoredEvent]:
        """The events behind this sequence."""
        return self._stored[sequence:]

    def page(self, custom_id: str | None, after: int | None, limit: int | None) -> list[dict[str, Any]]:
        """Events behind the sequence `after`, of everybody or one profile, at most `limit`."""
        if custom_id is None:
            sequences: Sequence[int] = range(1, len(self._stored) + 1)
        else:
            sequences = self._timelines.get(custom_id, _Timeline()).sequences
        start = bisect_right(sequences, after or 0)
        end = None if limit is None else start + limit
        return [self._stored[sequence - 1].as_json(sequence) for sequence in sequences[start:end]]

    def clear(self) -> None:
        """Forget them all."""
        self._stored.clear()
        self._timelines.clear()

    def _append(self, event: StoredEvent) -> bool:
        self._stored.append(event)
        timeline = self._timelines.get(event.custom_id)
        if timeline is None:
            timeline = self._timelines[event.custom_id] = _Timeline()
        timeline.sequences.append(len(self._stored))
        if event.at is None or event.at >= timeline.latest:
            timeline.latest = timeline.latest if event.at is None else event.at
            return False
        return True


def _type(key: str, value: object) -> str:
    name = parsed(key)
    return name[0] if name and name[0] else _TYPES[type(value)]
