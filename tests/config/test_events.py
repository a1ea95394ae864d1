"""Syncs of events that are right: their values and defaults."""

from datetime import date, timedelta

import pytest

from connector.config import EventSync, NameColumn, Partitions, ProfileSync, code_version, load_project
from connector.event_mapping import EventAttributeMapping
from connector.warehouses._base import Relation
from tests.config.conftest import EVENTS, Write

FULL = """\
kind: events
name: placed_orders
warehouse: local
source: {table: marts.orders, timezone: Europe/Paris}
key: customer
event: order_placed
time: ordered_at
id: order_id
cursor: {column: loaded_at, overlap: 1h, lag: 5s}
attributes:
  $label: status
  $tags: {column: tags, unordered: true}
  amount: amount_usd
  paid_at: {column: paid_on, type: date}
  items: {column: items, type: object}
engine: local
endpoint: mass_update
late: restamp
on_unknown: resend
tolerance: {rejected: 0%, invalid: 2%}
partitions: {daily: 2026-01-01}
schedule: {cron: "*/15 * * * *", timezone: Europe/Paris, enabled: true}
dagster: {group: shop, owners: [a@b.com], tags: {tier: gold}, upstream: [marts, orders], freshness: 2h}
"""


def read(write: Write, text: str) -> EventSync:
    (sync,) = (
        sync for sync in load_project(write({"syncs/orders.yaml": text})).syncs.values() if sync.kind == "events"
    )
    return sync


def test_a_full_sync_of_events_is_read_as_written(write: Write) -> None:
    """Every key of the file reaches its setting."""
    sync = read(write, FULL)
    assert (sync.name, sync.kind, sync.warehouse, sync.key) == ("placed_orders", "events", "local", "customer")
    assert (sync.source.relation, sync.source.timezone) == (Relation(table="marts.orders"), "Europe/Paris")
    assert (sync.event, sync.time, sync.id) == ("order_placed", "ordered_at", "order_id")
    assert sync.cursor is not None
    assert sync.cursor.model_dump() == {
        "column": "loaded_at",
        "feed": None,
        "overlap": timedelta(hours=1),
        "lag": timedelta(seconds=5),
        "reach": timedelta(hours=23),
    }
    assert sync.attributes == {
        "$label": EventAttributeMapping(column="status"),
        "$tags": EventAttributeMapping(column="tags", unordered=True),
        "amount": EventAttributeMapping(column="amount_usd"),
        "paid_at": EventAttributeMapping(column="paid_on", type="date"),
        "items": EventAttributeMapping(column="items", type="object"),
    }
    assert (sync.engine, sync.endpoint, sync.late, sync.on_unknown) == ("local", "mass_update", "restamp", "resend")
    assert (sync.tolerance.rejected, sync.tolerance.invalid) == (0.0, 0.02)
    assert sync.partitions == Partitions(daily=date(2026, 1, 1))
    assert sync.schedule is not None
    assert (sync.schedule.timezone, sync.schedule.enabled) == ("Europe/Paris", True)
    assert (sync.dagster.group, sync.dagster.upstream) == ("shop", ("marts", "orders"))


def test_a_small_sync_of_events_has_the_documented_defaults(write: Write) -> None:
    """What is left out has the value that the contract gives it, and is known as left out."""
    sync = read(write, EVENTS)
    assert (sync.name, sync.key, sync.event, sync.time) == (
        "orders",
        "custom_id",
        NameColumn(column="event_name"),
        "event_time",
    )
    assert (sync.id, sync.cursor, sync.attributes, sync.partitions, sync.schedule) == (None,) * 5
    assert (sync.engine, sync.endpoint, sync.late, sync.on_unknown) == ("local", "auto", "hold", "hold")
    assert (sync.tolerance.rejected, sync.tolerance.invalid) == (0.01, 0.01)
    assert "time" not in sync.model_fields_set
    assert "time" in read(write, EVENTS + "time: event_time\n").model_fields_set


def test_the_example_of_the_contract_is_read(write: Write) -> None:
    """The file that the contract shows loads, with its short forms."""
    text = (
        "key: custom_id\nevent: order_placed  # a constant\ntime: ordered_at\nid: order_id\ncursor: loaded_at\n"
        "attributes: {$label: status, $tags: tags, amount: amount_usd, items: {column: items}}\n"
        "late: hold\non_unknown: hold\npartitions: {daily: 2026-01-01}\n"
    )
    sync = read(write, EVENTS + text)
    assert sync.attributes is not None
    assert {name: each.column for name, each in sync.attributes.items()} == {
        "$label": "status",
        "$tags": "tags",
        "amount": "amount_usd",
        "items": "items",
    }
    assert sync.partitions == Partitions(daily=date(2026, 1, 1))
    assert read(write, EVENTS + "event: {column: event_name}\n").event == read(write, EVENTS).event


@pytest.mark.parametrize(
    "text",
    [
        "attributes: {event_id: a}\nlate: restamp\n",
        "attributes: {occurred_at: a}\nid: b\n",
        "attributes: {$label: {column: a, type: string}, $tags: {column: b, type: array}}\n",
        "attributes: {sizes: {column: a, unordered: true}, ids: {column: a, type: array, unordered: true}}\n",
        f"attributes: {{{', '.join(f'a{number}: b' for number in range(20))}}}\n",
        f"attributes: {{{', '.join(f'a{number}: b' for number in range(18))}}}\nid: a\nlate: restamp\n",
        "partitions: {daily: '2028-02-29'}\n",
        "event: '1'\n",
    ],
)
def test_what_no_rule_forbids_is_read(text: str, write: Write) -> None:
    """A name is ours only where we send it, the bound is met at its number, and a day may be in quotes."""
    assert read(write, EVENTS + text).name == "orders"


def test_a_project_holds_both_kinds(write: Write) -> None:
    """Profiles and events stand side by side, each with its own keys."""
    project = load_project(write({"syncs/orders.yaml": EVENTS}))
    assert isinstance(project.sync("customers"), ProfileSync)
    assert isinstance(project.sync("orders"), EventSync)
    assert project.warehouse(project.sync("orders")).kind() == "duckdb"


def test_the_code_version_follows_what_the_events_are(write: Write) -> None:
    """The schedule and Dagster's looks leave the version; the name, the id, the day and the mapping change it."""
    version = code_version(read(write, EVENTS))
    assert version == code_version(read(write, EVENTS + "schedule: 0 4 * * *\ndagster: {group: crm}\n"))
    others = ["event: a\n", "id: a\n", "late: drop\n", "partitions: {daily: 2026-01-01}\n", "attributes: {a: b}\n"]
    assert len({version, *(code_version(read(write, EVENTS + extra)) for extra in others)}) == 6
