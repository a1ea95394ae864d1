"""The demo's proof: what the API holds against what the warehouse says.

It has its own reading of what each column means, and shares no code with the syncs that it checks.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from connector.config import EventSync, ProfileSync

Row = Mapping[str, Any]

CUSTOMER_COLUMNS = {
    "$email_address": "email", "$phone_number": "phone", "$language": "language", "first_name": "first_name",
    "birthdate": "born_on", "plan": "plan_name", "interests": "interests", "orders": "orders", "spend": "spend",
}  # fmt: skip
"""Where the attributes of the example's profiles come from."""

ORDER_COLUMNS = {"$label": "status", "$tags": "tags", "amount": "amount", "items": "items"}
"""Where the attributes of the example's events come from."""

_EVENT = {"key": "custom_id", "event": "order_placed", "time": "ordered_at", "id": "order_id"}


class Compared(NamedTuple):
    """How many of what is on either side differ; 0 is right."""

    differing: int = 0
    compared: int = 0


def profile_attributes(sync: ProfileSync | EventSync) -> frozenset[str]:
    """The attributes that the sync still maps as the example does: of what somebody edited, nothing is known here."""
    return _unedited(sync, CUSTOMER_COLUMNS) if isinstance(sync, ProfileSync) else frozenset()


def event_attributes(sync: ProfileSync | EventSync) -> frozenset[str] | None:
    """The same of an event sync; None where it makes other events of the rows."""
    same = isinstance(sync, EventSync) and all(getattr(sync, name) == value for name, value in _EVENT.items())
    return _unedited(sync, ORDER_COLUMNS) if same else None


def compare_profiles(customers: Iterable[Row], held: Mapping[str, Row], told: frozenset[str]) -> Compared:
    """Profiles against `marts.customers`.

    Args:
        customers: Its rows.
        held: Profiles by custom ID, as the local API gives them.
        told: The attributes to compare.
    """
    expected = {row["custom_id"]: _profile(row) for row in customers}
    everybody = expected.keys() | held.keys()
    differ = 0
    for key in everybody:
        here, there = expected.get(key), _comparable(held.get(key))
        differ += here is None or there is None or _only(here, told) != _only(there, told)
    return Compared(differ, len(everybody))


def compare_events(orders: Iterable[Row], held: Sequence[Row], told: frozenset[str] | None) -> Compared:
    """Events against `marts.orders`: each order is there once, whole, and not behind a later one of its customer.

    Args:
        orders: Its rows.
        held: Events as the local API gives them, in the order of their application.
        told: The attributes to compare; None: nothing.
    """
    if told is None:
        return Compared()
    expected = {row["order_id"]: _event(row, told) for row in orders}
    found: dict[object, list[object]] = defaultdict(list)
    latest: dict[str, str] = {}
    overtaken = 0
    for event in held:
        who, time, attributes = event["custom_id"], event["time"], event["attributes"]
        found[attributes.get("event_id")].append((who, event["name"], time, _only(attributes, told)))
        overtaken += time < latest.get(who, "")  # whole seconds in UTC: text sorts as time does
        latest[who] = max(time, latest.get(who, ""))
    everything = expected.keys() | found.keys()
    differ = sum(found.get(id_) != [expected.get(str(id_))] for id_ in everything)
    return Compared(differ + overtaken, len(everything))


def _unedited(sync: ProfileSync | EventSync, columns: Mapping[str, str]) -> frozenset[str]:
    mapped = sync.attributes or {}
    return frozenset(name for name, column in columns.items() if name in mapped and mapped[name].column == column)


def _only(attributes: Mapping[str, Any], told: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name in told}


def _profile(row: Row) -> dict[str, tuple[str, object]]:
    """An attribute's type and value as the API should hold them; the two invented bad values should be absent."""
    phone = row["phone"] if row["phone"] and row["phone"].startswith("+") else None
    email = row["email"] if "@" in row["email"] else None
    attributes = {
        "$email_address": ("native", email),
        "$phone_number": ("native", phone),
        "$language": ("native", row["language"]),
        "first_name": ("string", row["first_name"]),
        "birthdate": ("date", f"{row['born_on']}T00:00:00Z" if row["born_on"] else None),
        "plan": ("string", row["plan_name"]),
        "interests": ("array", sorted(row["interests"])),
        "orders": ("integer", row["orders"]),
        "spend": ("float", float(row["spend"])),
    }
    return {name: pair for name, pair in attributes.items() if pair[1] not in (None, [])}


def _comparable(profile: Row | None) -> dict[str, tuple[str, object]] | None:
    if profile is None:
        return None
    native = {name: ("native", value) for name, value in profile["native"].items()}
    custom = {
        name: (held["type"], sorted(held["value"]) if held["type"] == "array" else held["value"])
        for name, held in profile["custom"].items()
    }
    return {**native, **custom}


def _event(row: Row, told: frozenset[str]) -> tuple[str, str, str, dict[str, Any]]:
    attributes = {
        "$label": row["status"],
        "$tags": row["tags"] or None,
        "amount": float(row["amount"]),
        "items": [{**item, "price": float(item["price"])} for item in row["items"]],
    }
    sent = {name: value for name, value in attributes.items() if value is not None}
    return row["custom_id"], "order_placed", f"{row['ordered_at']:%Y-%m-%dT%H:%M:%SZ}", _only(sent, told)


__all__ = [
    "CUSTOMER_COLUMNS",
    "ORDER_COLUMNS",
    "Compared",
    "compare_events",
    "compare_profiles",
    "event_attributes",
    "profile_attributes",
]
