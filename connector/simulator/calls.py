"""A call's body, parsed; what it holds can be told before it is judged."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pydantic_core import from_json


class Call:
    """The operations of a body, or the problem why it has none; neither is judged yet."""

    def __init__(self, operations: list[Any], problem: str = "") -> None:
        self.operations = operations
        self.problem = problem

    @cached_property
    def custom_ids(self) -> list[str]:
        """The custom ids that could be found, in order."""
        return [found for found in map(_custom_id, self.operations) if found is not None]

    @cached_property
    def ids(self) -> frozenset[str]:
        """The same, each once."""
        return frozenset(self.custom_ids)

    @property
    def events(self) -> int:
        """How many events it holds."""
        return sum(len(_events(operation)) for operation in self.operations)

    def event_ids(self) -> list[str]:
        """The attribute `event_id` of each event, in order; "" where it has none."""
        return [event_id(attributes) for _, _, attributes in self._each_event()]

    def holds_event(self, wanted: Mapping[str, str], custom_id: str | None = None) -> bool:
        """Whether an event is meant by `wanted`, of this profile or of any."""
        return any(
            custom_id in (None, whose) and is_meant(wanted, name, attributes)
            for whose, name, attributes in self._each_event()
        )

    def _each_event(self) -> Iterator[tuple[str | None, object, object]]:
        for operation in self.operations:
            custom_id = _custom_id(operation)
            for event in _events(operation):
                fields = event if isinstance(event, dict) else {}
                yield custom_id, fields.get("name"), fields.get("attributes")


def parse(body: bytes) -> Call:
    """The call in a body."""
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError:
        return Call([], "the body is not JSON in UTF-8")
    if not isinstance(parsed, list):
        return Call([], "the body is not an array of operations")
    return Call(parsed)


def event_id(attributes: object) -> str:
    """The attribute `event_id`, a number as text; "" where there is none."""
    found = attributes.get("event_id") if isinstance(attributes, dict) else None
    return str(found) if type(found) in (str, int) else ""


def is_meant(wanted: Mapping[str, str], name: object, attributes: object) -> bool:
    """Whether `wanted`, a `name` or an `event_id` or both, means this event; an empty one means any."""
    return wanted.get("name", name) == name and wanted.get("event_id") in (None, event_id(attributes))


def _custom_id(operation: object) -> str | None:
    identifiers = operation.get("identifiers") if isinstance(operation, dict) else None
    custom_id = identifiers.get("custom_id") if isinstance(identifiers, dict) else None
    return custom_id if isinstance(custom_id, str) else None


def _events(operation: object) -> list[Any]:
    events = operation.get("events") if isinstance(operation, dict) else None
    return events if isinstance(events, list) else []
