"""The demo's proof: what the API holds, and what an export brought back, against what the warehouse says.

It has its own reading of what each column means, and shares no code with the syncs that it checks.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from connector.config import EventSync, ExportSync, Outbound, ProfileSync, Sync

Row = Mapping[str, Any]

CUSTOMER_COLUMNS = {
    "$email_address": "email", "$phone_number": "phone", "$language": "language", "first_name": "first_name",
    "birthdate": "born_on", "plan": "plan_name", "interests": "interests", "orders": "orders", "spend": "spend",
}  # fmt: skip
"""Where the attributes of the example's profiles come from."""

ORDER_COLUMNS = {"$label": "status", "$tags": "tags", "amount": "amount", "items": "items"}
"""Where the attributes of the example's events come from."""

_EVENT = {"key": "custom_id", "event": "order_placed", "time": "ordered_at", "id": "order_id"}


_EXPORT = {"export": "attributes", "segment": None, "write": "replace", "table": "batch.profile_attributes"}


class Compared(NamedTuple):
    """How many of what is on either side differ; 0 is right."""

    differing: int = 0
    compared: int = 0


def profile_attributes(sync: Sync) -> frozenset[str]:
    """The attributes that the sync still maps as the example does: of what somebody edited, nothing is known here."""
    return _unedited(sync, CUSTOMER_COLUMNS) if isinstance(sync, ProfileSync) else frozenset()


def event_attributes(sync: Sync) -> frozenset[str] | None:
    """The same of an event sync; None where it makes other events of the rows."""
    if not isinstance(sync, EventSync) or any(getattr(sync, name) != value for name, value in _EVENT.items()):
        return None
    return _unedited(sync, ORDER_COLUMNS)


def exported_attributes(sync: Sync) -> frozenset[str] | None:
    """The attributes that an export brings; None where it is another one than the example's."""
    if not isinstance(sync, ExportSync) or any(getattr(sync, name) != value for name, value in _EXPORT.items()):
        return None
    return frozenset(sync.attributes)


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


def compare_table(customers: Iterable[Row], landed: Iterable[Row], told: frozenset[str] | None) -> Compared:
    """Rows of an export's table against `marts.customers`: each customer is there once, as the warehouse has it.

    Args:
        customers: Rows of `marts.customers`.
        landed: Rows of the export's table.
        told: The attributes to compare; None: nothing.
    """
    if told is None:
        return Compared()
    expected = {row["custom_id"]: {name: value for name, (_, value) in _profile(row).items()} for row in customers}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in landed:
        found[row["custom_id"]].append(_only(_landed(row), told))
    everybody = expected.keys() | found.keys()
    differ = sum(key not in expected or found.get(key) != [_only(expected[key], told)] for key in everybody)
    return Compared(differ, len(everybody))


def _unedited(sync: Outbound, columns: Mapping[str, str]) -> frozenset[str]:
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


def _landed(row: Row) -> dict[str, Any]:
    """A row of the export's table in the values that the API would hold; nulls are left out."""
    found: dict[str, Any] = {}
    for name in CUSTOMER_COLUMNS:
        match row.get(name.removeprefix("$")):
            case None:
                continue
            case datetime() as moment:
                found[name] = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            case str() as text if name == "interests":
                found[name] = sorted(json.loads(text))
            case value:
                found[name] = value
    return found


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
    "compare_table",
    "event_attributes",
    "exported_attributes",
    "profile_attributes",
]
