"""Broken files of kind `events`. A `⟪` in a text marks the place that the problem must name."""

from pathlib import Path

import pytest

from tests.config.conftest import EVENTS, the_problem


def events(extra: str) -> str:
    return EVENTS + extra


def attributes(count: int) -> str:
    return f"attributes: {{{', '.join(f'a{number}: b' for number in range(count))}}}\n"


EVENT_KEYS = (
    "attributes, cursor, dagster, endpoint, engine, event, id, key, kind, late, name, on_unknown, partitions, "
    "schedule, source, time, tolerance, warehouse"
)
TOO_MANY = "attributes: at most"

BROKEN_EVENTS = {
    "guard": (events("⟪guard: {min_rows: 1}\n"), f"unknown key 'guard'; allowed here: {EVENT_KEYS}"),
    "dedupe": (events("⟪dedupe: latest\n"), f"unknown key 'dedupe'; allowed here: {EVENT_KEYS}"),
    "on_removed": (events("⟪on_removed: clear\n"), "unknown key 'on_removed'"),
    "full_read_every": (events("⟪full_read_every: 7d\n"), "unknown key 'full_read_every'"),
    "reconcile": (events("⟪reconcile: {heal: true}\n"), "unknown key 'reconcile'"),
    "misspelt key": (events("⟪on_unknwon: hold\n"), "unknown key 'on_unknwon'; did you mean 'on_unknown'?"),
    "no source": ("⟪kind: events\nwarehouse: local\n", "source: missing; add it (the rows: {table"),
    "unknown warehouse": (
        "kind: events\nwarehouse: ⟪locl\nsource: {table: a}\n",
        "warehouse: connector.yaml has no 'locl'; did you mean 'local'? it has local",
    ),
    "upper-case event": (
        events("event: ⟪Order_Placed\n"),
        "event: an event's name is 1 to 30 lower-case letters, digits and '_'; did you mean 'order_placed'?",
    ),
    "event in words": (events("event: ⟪order placed\n"), "did you mean 'order_placed'?"),
    "long event": (events(f"event: ⟪{'a' * 31}\n"), "event: an event's name is 1 to 30 lower-case letters"),
    "empty event": (events("event: ⟪''\n"), "event: an event's name is 1 to 30 lower-case letters"),
    "nothing for an event": (events("⟪event:\n"), "event: must be an event's name or {column: …}, got nothing"),
    "number for an event": (events("event: ⟪5\n"), "event: must be an event's name or {column: …}, got a number"),
    "event as a list": (events("⟪event: [a]\n"), "event: must be an event's name or {column: …}, got a list"),
    "event without a column": (events("⟪event: {}\n"), "event.column: missing; add it (a column of text)"),
    "event of an empty column": (events("event: {column: ⟪''}\n"), "event.column: must not be empty"),
    "misspelt column of an event": (
        events("event: {⟪colunm: name}\n"),
        "event: unknown key 'colunm'; did you mean 'column'? allowed here: column",
    ),
    "second key of an event": (events("event: {column: a, ⟪name: b}\n"), "event: unknown key 'name'; allowed here"),
    "number for time": (events("time: ⟪5\n"), "time: must be text, got a number; put it in quotes"),
    "empty id": (events("id: ⟪''\n"), "id: must not be empty; write it or remove the key"),
    "misspelt late": (
        events("late: ⟪restmap\n"),
        "late: must be hold, drop or restamp, got 'restmap'; did you mean 'restamp'?",
    ),
    "misspelt on_unknown": (events("on_unknown: ⟪drop\n"), "on_unknown: must be hold or resend, got 'drop'"),
    "misspelt endpoint": (events("endpoint: ⟪mass\n"), "endpoint: must be auto, update or mass_update, got 'mass'"),
    "share over 100": (events("tolerance: {invalid: ⟪101%}\n"), "tolerance.invalid: a share is a percentage"),
    "cursor of a number": (events("cursor: ⟪5\n"), "cursor: must be a column's name or a mapping, got a number"),
    "partitions alone": (events("partitions: ⟪daily\n"), "partitions: must be a mapping, got text"),
    "partitions of nothing": (events("⟪partitions: {}\n"), "partitions.daily: missing; add it (one partition a day"),
    "partitions by hour": (events("partitions: {⟪hourly: 2026-01-01, daily: 2026-01-01}\n"), "unknown key 'hourly'"),
    "no day": (
        events("partitions: {daily: ⟪2026-02-30}\n"),
        "partitions.daily: must be a day of this century, such as 2026-01-01",
    ),
    "a time for a day": (events("partitions: {daily: ⟪2026-01-01T00:00:00Z}\n"), "must be a day of this century"),
    "a number for a day": (events("partitions: {daily: ⟪20260101}\n"), "must be a day of this century"),
    "a day that Dagster cannot count from": (
        events("partitions: {daily: ⟪9999-12-31}\n"),
        "must be a day of this century",
    ),
    "no attributes": (events("⟪attributes: {}\n"), "attributes: must not be empty; write at least one"),
    "native attribute of profiles": (
        events("attributes: {⟪$email_address: email}\n"),
        "no native attribute of an event; these are: $label, $tags",
    ),
    "misspelt native": (events("attributes: {⟪$lable: a}\n"), "did you mean '$label'? these are: $label, $tags"),
    "date as a name": (
        events("attributes: {⟪date(paid): a}\n"),
        "write the bare name and its type: {column: …, type: date}",
    ),
    "url as a name": (events("attributes: {⟪url(site): a}\n"), "{column: …, type: url}"),
    "upper case": (events("attributes: {⟪Amount: a}\n"), "in lower case only; did you mean 'amount'?"),
    "odd name": (events("attributes: {⟪order-id: a}\n"), "1 to 30 lower-case letters, digits and '_'; rename it"),
    "long name": (events(f"attributes: {{⟪{'a' * 31}: a}}\n"), "at most 30 characters, got 31; shorten it"),
    "number for a column": (
        events("attributes: {amount: ⟪5}\n"),
        "attributes.amount: must be a column's name or a mapping, got a number",
    ),
    "on_null": (
        events("attributes: {amount: {column: a, ⟪on_null: keep}}\n"),
        "attributes.amount: unknown key 'on_null'; allowed here: column, type, unordered",
    ),
    "misspelt type": (
        events("attributes: {items: {column: a, type: ⟪objects}}\n"),
        "boolean, date, url, array or object, got 'objects'; did you mean 'object'?",
    ),
    "type of $label": (
        events("attributes: {$label: {column: a, type: ⟪integer}}\n"),
        "attributes.$label.type: $label is always of type string; remove the type",
    ),
    "type of $tags": (
        events("attributes: {$tags: {column: a, type: ⟪string}}\n"),
        "attributes.$tags.type: $tags is always of type array; remove the type",
    ),
    "unordered $label": (
        events("attributes: {$label: {column: a, unordered: ⟪true}}\n"),
        "attributes.$label.unordered: only arrays can be unordered; remove it",
    ),
    "unordered objects": (
        events("attributes: {items: {column: a, type: object, unordered: ⟪true}}\n"),
        "attributes.items.unordered: only arrays can be unordered; remove it",
    ),
    "event_id beside id": (
        events("id: order_id\nattributes: {event_id: ⟪order_id}\n"),
        "attributes.event_id: 'id' sends an attribute of this name; give this one another",
    ),
    "occurred_at beside restamp": (
        events("attributes: {occurred_at: ⟪ordered_at}\nlate: restamp\n"),
        "attributes.occurred_at: 'late: restamp' sends an attribute of this name; give this one another",
    ),
    "21 attributes": (events(f"⟪{attributes(21)}"), f"{TOO_MANY} 20 are allowed; remove the rest"),
    "20 attributes and id": (
        events(f"⟪{attributes(20)}id: order_id\n"),
        f"{TOO_MANY} 19 are allowed beside event_id (id); remove the rest",
    ),
    "20 attributes and restamp": (
        events(f"⟪{attributes(20)}late: restamp\n"),
        f"{TOO_MANY} 19 are allowed beside occurred_at (late: restamp); remove the rest",
    ),
    "19 attributes, id and restamp": (
        events(f"late: restamp\nid: order_id\n⟪{attributes(19)}"),
        f"{TOO_MANY} 18 are allowed beside event_id and occurred_at (id and late: restamp); remove the rest",
    ),
    "engine": (events("engine: ⟪warehouse\n"), "engine: is for profiles: an event sync has no diff"),
    "duplicate key": (events("time: a\n⟪time: b\n"), "the key 'time' stands twice, first in line 4; keep one"),
    "schedule": (events("schedule: ⟪'* * * *'\n"), "a cron text has five fields"),
    "name": (events("name: ⟪Orders\n"), "name: a sync's name is 1 to 60 lower-case letters, digits and '_'"),
}


@pytest.mark.parametrize("case", BROKEN_EVENTS)
def test_a_broken_sync_of_events_is_told_at_its_place(case: str, tmp_path: Path) -> None:
    """A mistake in a sync file of events is one problem too, in the terms of events."""
    text, words = BROKEN_EVENTS[case]
    assert words in the_problem(tmp_path, "syncs/orders.yaml", text)
