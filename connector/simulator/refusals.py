"""Parts that a fault refuses inside a 202, though no rule does."""

from collections.abc import Mapping
from typing import Any

from connector.simulator.calls import is_meant
from connector.simulator.event_rules import Event
from connector.simulator.names import bare_name
from connector.simulator.rules import Judged
from connector.simulator.values import Refusal


def refuse_part(operation: Judged, item: Mapping[str, Any]) -> Judged:
    """The operation without the part that the item of `partial` names, and with its refusal."""
    if item["custom_id"] != operation.custom_id:
        return operation
    category, reason = item.get("category"), item.get("reason", "injected fault")
    if "event" in item:
        return _without_events(operation, item["event"], Refusal(category or "event", reason))
    refusal = Refusal(category or "attribute", reason, item.get("attribute"))
    if refusal.attribute is None:
        return Judged(None, {}, [], [refusal], [])
    return _without_attribute(operation, bare_name(refusal.attribute), refusal)


def _without_events(operation: Judged, wanted: Mapping[str, str], refusal: Refusal) -> Judged:
    kept = [event for event in operation.events if not is_meant(wanted, event.name, event.attributes)]
    refused = len(operation.events) - len(kept)
    return operation._replace(events=kept, refusals=[*operation.refusals, *[refusal] * refused])


def _without_attribute(operation: Judged, name: str, refusal: Refusal) -> Judged:
    if name in operation.changes:
        changes = {other: change for other, change in operation.changes.items() if other != name}
        return operation._replace(changes=changes, refusals=[*operation.refusals, refusal])
    events: list[Event] = []
    refusals = list(operation.refusals)
    for event in operation.events:
        keys = {key for key in event.attributes if bare_name(key) == name}
        events.append(event.without(keys) if keys else event)
        refusals += [refusal] * len(keys)
    return operation._replace(events=events, refusals=refusals)
