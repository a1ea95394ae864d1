"""An event sync end to end, in process: a DuckDB file, the YAML, the local Profile API, an independent comparison."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connector.errors import UsageError
from connector.state import ledger
from connector.state.database import open_state
from tests.world import PROJECT_KEY, World

ORDERS = """create table orders as select
    'c' || (i % {customers}) as custom_id,
    i as order_id,
    now()::timestamp - to_seconds(60 + (i * 7919) % 80000) as ordered_at,
    'state ' || (i % 3) as status,
    ['t' || (i % 5), 'é"'] as tags,
    (i * 1.25)::decimal(12, 2) as amount,
    case when i % 4 > 0 then i end as points,
    i % 2 = 0 as gift,
    [{{sku: 's' || i, price: i / 4.0, date__since: date '2026-01-01' + (i % 300)::int, note: case when i % 3 = 0 then 'n' end}}] as items,
    {{city: 'Lyon', geo: {{lat: 45.5::double, lon: 4.8::double}}}} as shop,
    now()::timestamp as loaded_at
from range({rows}) as t(i)"""

MAPPED = "{$label: status, $tags: tags, amount: amount, points: points, gift: gift, items: items, shop: shop}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "project")
    world.sql(ORDERS.format(rows=1500, customers=400))
    world.events_sync(attributes=MAPPED)
    return world


def orders(world: World) -> list[dict[str, Any]]:
    """The rows as Batch should hold them, by a row loop that shares nothing with the connector."""
    names = ("custom_id", "order_id", "ordered_at", "status", "tags", "amount", "points", "gift", "items", "shop")
    rows = world.sql(f"select {', '.join(names)} from orders order by ordered_at, order_id")
    return [expected(dict(zip(names, row, strict=True))) for row in rows]


def expected(row: dict[str, Any]) -> dict[str, Any]:
    at = row["ordered_at"]
    attributes = {
        "event_id": str(row["order_id"]), "$label": row["status"], "$tags": row["tags"], "amount": float(row["amount"]),
        "points": row["points"], "gift": row["gift"],
        "items": [
            {key: value for key, value in {
                "sku": item["sku"], "price": item["price"], "date(since)": f"{item['date__since']}T00:00:00Z", "note": item["note"],
            }.items() if value is not None}
            for item in row["items"]
        ],
        "shop": row["shop"],
    }  # fmt: skip
    return {
        "custom_id": row["custom_id"],
        "name": "order_placed",
        "time": at.replace(tzinfo=UTC, microsecond=at.microsecond // 1000 * 1000),
        "attributes": {name: value for name, value in attributes.items() if value is not None},
    }


def at_api(world: World) -> list[dict[str, Any]]:
    """The API's events in the order in which they were applied."""
    return [
        {
            "custom_id": e["custom_id"],
            "name": e["name"],
            "time": datetime.fromisoformat(e["time"]),
            "attributes": e["attributes"],
        }
        for e in world.api.events()
    ]


def by_customer(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found.setdefault(event["custom_id"], []).append(event)
    return found


def test_every_event_is_at_the_api_once_in_order_and_with_its_attributes(world: World) -> None:
    """G3, G5, G6: each row is one event of its profile, in time order, nested attributes as they are, nulls left out."""
    plan = world.plan("orders")
    report = world.run("orders")
    assert (report.outcome, report.read, report.accepted, report.withheld) == ("green", 1500, 1500, 0)
    assert (plan.calls, plan.bytes, plan.by_attribute["points"]) == (report.requests, report.bytes, 1125)
    assert by_customer(at_api(world)) == by_customer(orders(world))
    assert world.api.stats["event_overtakes"] == 0
    assert sum(request.operations for request in world.api.requests) == 400, "a profile's events share an operation"


def test_what_was_sent_is_never_sent_again(world: World) -> None:
    """G5: a second run, changed rows, restored rows, a full read, a window and single keys send nothing twice."""
    world.run("orders")
    world.sql("create table kept as from orders")
    world.sql("update orders set amount = amount + 1, loaded_at = now()::timestamp + interval 1 second")
    today = datetime.now(UTC)
    for options in ({}, {"full": True}, {"window": (today - timedelta(days=2), today)}, {"keys": ("c1", "c2")}):
        report = world.run("orders", **options)
        assert (report.outcome, report.requests, report.already_sent) == ("green", 0, report.read)
    world.sql("delete from orders")
    world.run("orders")
    world.sql("insert into orders from kept")
    assert world.run("orders").already_sent == 1500
    assert set(world.event_ids().values()) == {1}


def test_new_events_go_and_overlapping_windows_send_each_once(world: World) -> None:
    """With a cursor only what is new is read, and what the overlap brings again is known by its id."""
    world.events_sync(attributes=MAPPED, cursor="{column: loaded_at, overlap: 1h}")
    assert world.run("orders").accepted == 1500
    world.sql("update orders set loaded_at = loaded_at - interval 5 hours where order_id < 1000")
    insert = "insert into orders (custom_id, order_id, ordered_at, loaded_at) values ('c1', {}, now()::timestamp, now()::timestamp)"
    world.sql(insert.format(5000))
    report = world.run("orders")
    assert (report.full, report.read, report.already_sent, report.accepted) == (False, 501, 500, 1)
    assert world.event_ids()["5000"] == 1


def test_row_that_stands_twice_is_one_event(world: World) -> None:
    """An id that comes more than once in a read is sent once; the others count as already sent, and a note tells of them."""
    world.sql("insert into orders from orders where order_id < 10")
    report = world.run("orders")
    assert (report.read, report.accepted, report.already_sent) == (1510, 1500, 10)
    assert [note.startswith("rows of an event that another row of this read has: 10") for note in report.notes] == [
        True
    ]
    world.sql("delete from orders where order_id < 10")
    assert world.run("orders").notes == ()


def test_without_an_id_it_is_derived_from_the_row(world: World) -> None:
    """Rows that are equal in all that is sent are one event; a changed row is another."""
    world.events_sync(id="", attributes="{amount: amount}")
    world.sql("delete from orders where order_id >= 10")
    world.sql("insert into orders from orders where order_id = 3")
    report = world.run("orders")
    assert (report.accepted, report.already_sent) == (10, 1)
    assert world.run("orders").already_sent == 11
    world.sql("update orders set amount = 99 where order_id = 4")
    report = world.run("orders")
    assert (report.accepted, report.already_sent) == (1, 10)
    assert "event_id" not in world.api.events()[0]["attributes"]


def test_names_from_a_column_tell_events_of_one_id_apart(world: World) -> None:
    """An order that is placed and then shipped is two events; a constant name may change without sending anything again."""
    world.run("orders")
    world.events_sync(attributes=MAPPED, event="order_paid")
    assert world.run("orders").already_sent == 1500
    world.sql(
        "create table steps as select custom_id, order_id, ordered_at, unnest(['placed', 'Shipped', 'shipped', null]) as event_name from orders where order_id < 3"
    )
    world.events_sync("steps", source="{table: steps}", event="", attributes="{day: {column: ordered_at, type: date}}")
    report = world.run("steps")
    assert (report.read, report.accepted, report.invalid) == (12, 6, 6)
    assert {entry["reason"] for entry in world.listed("steps")} == {
        "the event's name is null", "the event's name is not 1 to 30 of a-z, 0-9 and _",
    }  # fmt: skip


def test_cloud_sync_columns_need_no_mapping(world: World) -> None:
    """A view written for Batch Cloud Sync works unchanged: custom_id, event_name, event_time, everything else an attribute."""
    world.sql(
        """create view cloud as select custom_id, 'order_placed' as event_name, ordered_at as event_time, date '2026-02-01' as date__due,
        'https://example.org' as url__page, amount as Amount, loaded_at as last_updated_at from orders where order_id = 7"""
    )
    world.events_sync("cloud", source="{table: cloud}", event="", time="", id="", cursor="last_updated_at")
    assert world.run("cloud").accepted == 1
    (event,) = world.api.events()
    assert event["attributes"] == {"due": "2026-02-01T00:00:00Z", "page": "https://example.org", "amount": 8.75}
    assert event["types"] == {"due": "date", "page": "url", "amount": "float"}


def test_source_without_a_time_takes_the_time_of_reception(world: World) -> None:
    """A source that has no column event_time sends its events without a time; asked for a window it says what it lacks."""
    world.sql("create view untimed as select custom_id, order_id, amount from orders")
    world.events_sync("untimed", source="{table: untimed}", time="")
    assert world.run("untimed").accepted == 1500
    assert world.run("untimed").already_sent == 1500
    report = world.run("untimed", window=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))
    assert report.outcome == "failed"
    assert "no column 'event_time'" in report.reasons[0]


def test_late_events_are_held_until_somebody_decides(world: World) -> None:
    """`late: hold`: counted, listed, not green; retried they are still too old; let go they expire and never come back."""
    world.sql("update orders set ordered_at = ordered_at - interval 3 days where order_id < 20")
    report = world.run("orders")
    assert (report.outcome, report.exit_status, report.accepted, report.held) == ("incomplete", 3, 1480, 20)
    assert "retry-held" in report.reasons[0]
    listed = world.listed()
    assert {(entry["state"], entry["source"]) for entry in listed} == {("held", "invalid")}
    assert {entry["id"] for entry in listed} == {str(number) for number in range(20)}
    again = world.run("orders")
    assert (again.outcome, again.held, again.already_sent, again.undecided) == ("incomplete", 20, 1480, 20)
    assert world.run("orders", retry_held=True).held == 20
    world.sql("delete from orders where order_id < 5")
    report = world.run("orders", discard_held=True)
    assert (report.outcome, report.read, report.expired, report.held, report.undecided) == ("green", 1500, 20, 0, 0)
    assert {entry["state"] for entry in world.listed()} == {"expired"}
    assert world.run("orders").already_sent == 1495
    assert len(world.event_ids()) == 1480


def test_first_run_can_let_history_go(world: World) -> None:
    """--discard-held on a table full of history: what is too old is let go at once, for good."""
    world.sql("update orders set ordered_at = ordered_at - interval 3 days where order_id < 1400")
    report = world.run("orders", discard_held=True)
    assert (report.outcome, report.accepted, report.expired) == ("green", 100, 1400)
    report = world.run("orders")
    assert (report.outcome, report.already_sent) == ("green", 1500)


def test_late_events_are_dropped_where_the_yaml_says_so(world: World) -> None:
    """`late: drop`: too old counts as expired at each read, is listed, and the run is green."""
    world.events_sync(attributes=MAPPED, late="drop")
    world.sql("update orders set ordered_at = ordered_at - interval 3 days where order_id < 20")
    for accepted in (1480, 0):
        report = world.run("orders")
        assert (report.outcome, report.accepted, report.expired) == ("green", accepted, 20)
    assert {entry["state"] for entry in world.listed()} == {"expired"}


def test_history_is_replayed_once_by_restamp(world: World) -> None:
    """`late: restamp`: sent as of now with its own time as occurred_at; a second replay sends nothing."""
    world.events_sync(attributes=MAPPED, late="restamp")
    world.sql("update orders set ordered_at = ordered_at - interval 30 days where order_id < 20")
    report = world.run("orders")
    assert (report.outcome, report.accepted) == ("green", 1500)
    old = [event for event in world.api.events() if int(event["attributes"]["event_id"]) < 20]
    when = dict(world.sql("select order_id, ordered_at from orders where order_id < 20"))
    for event in old:
        occurred = datetime.fromisoformat(event["attributes"]["occurred_at"])
        assert abs(occurred - when[int(event["attributes"]["event_id"])].replace(tzinfo=UTC)) < timedelta(
            milliseconds=1
        )
        assert datetime.now(UTC) - datetime.fromisoformat(event["time"]) < timedelta(minutes=1)
    assert world.run("orders").already_sent == 1500


def test_held_events_go_once_the_yaml_restamps_them(world: World) -> None:
    """Held as too old, they stay so when the YAML changes, until --retry-held sends them."""
    world.sql("update orders set ordered_at = ordered_at - interval 3 days where order_id < 20")
    world.run("orders")
    world.events_sync(attributes=MAPPED, late="restamp")
    assert world.run("orders").held == 20
    report = world.run("orders", retry_held=True)
    assert (report.outcome, report.accepted, report.undecided) == ("green", 20, 0)
    assert world.listed() == []


def test_future_event_is_invalid_and_goes_when_it_is_due(world: World) -> None:
    """An event of tomorrow is listed and looked up at each run, cursor or not, until its time has come."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at", tolerance="{invalid: 100%}")
    world.sql("update orders set ordered_at = now()::timestamp + interval 1 hour where order_id = 9")
    report = world.run("orders")
    assert (report.outcome, report.invalid, report.accepted) == ("green", 1, 1499)
    world.sql("update orders set loaded_at = loaded_at - interval 5 hours")
    report = world.run("orders")
    assert (report.read, report.invalid) == (1, 1)
    assert world.listed()[0]["attempts"] == 2
    world.sql("update orders set ordered_at = now()::timestamp where order_id = 9")
    assert world.run("orders").accepted == 1
    assert world.listed() == []
    assert world.run("orders").read == 0


def test_bad_values_stay_back_and_bad_events_are_invalid(world: World) -> None:
    """A bad attribute is withheld and the event goes without it; a bad key, time, id or size makes the event invalid."""
    world.events_sync(attributes=MAPPED, tolerance="{invalid: 100%}")
    for number, change in enumerate((
        "custom_id = null", "custom_id = 'null'", "ordered_at = null", "order_id = null",
        "status = repeat('x', 201)", "tags = range(11)::varchar[]", "status = E'two\\nlines'",
        "items = [{sku: repeat('x', 301), price: 1, date__since: null, note: null}]",
        "items = [{sku: 'a', price: 'nan'::double, date__since: null, note: null}]",
        "items = list_transform(range(26), lambda x: {sku: 'a', price: 1, date__since: null, note: null})",
    )):  # fmt: skip
        world.sql(f"update orders set {change} where order_id = {number}")
    world.sql(
        "create table large as select *, [repeat('y', 300) for x in range(25)] as a, [repeat('z', 300) for x in range(25)] as b from orders where order_id in (20, 21)"
    )
    report = world.run("orders")
    assert (report.invalid, report.withheld, report.accepted) == (4, 6, 1496)
    reasons = {(entry["attribute"], entry["reason"]) for entry in world.listed()}
    assert {attribute for attribute, _ in reasons} == {"", "$label", "$tags", "items"}
    assert not any("xx" in reason for _, reason in reasons), "a reason holds no value"
    world.events_sync(
        "large",
        source="{table: large}",
        attributes="{" + ", ".join(f"a{i}: {'ab'[i % 2]}" for i in range(6)) + "}",
        tolerance="{invalid: 100%}",
    )
    report = world.run("large")
    assert (report.invalid, report.planned) == (2, 0)
    assert "25,000 bytes" in world.listed("large")[0]["reason"]


def test_json_text_becomes_objects_and_arrays(world: World) -> None:
    """JSON columns, and text declared `object` or `array`, arrive as objects; text that is no JSON is withheld."""
    world.sql(
        """create table papers as select * from (values
        ('c1', 1, '{"sku": "a", "price": 1.5, "date(due)": "2026-01-01T01:00:00+01:00"}'::json, '[{"n": 1}, {"n": 2}]', now()::timestamp),
        ('c2', 2, '["x", "y"]'::json, 'no json', now()::timestamp)) t(custom_id, order_id, thing, things, ordered_at)"""
    )
    world.events_sync(
        "papers",
        source="{table: papers}",
        attributes="{thing: thing, things: {column: things, type: array}}",
        tolerance="{invalid: 100%}",
    )
    report = world.run("papers")
    assert (report.accepted, report.withheld) == (2, 1)
    held = {event["custom_id"]: event["attributes"] for event in world.api.events()}
    assert held["c1"]["thing"] == {"sku": "a", "price": 1.5, "date(due)": "2026-01-01T00:00:00Z"}
    assert held["c1"]["things"] == [{"n": 1}, {"n": 2}]
    assert held["c2"] == {"event_id": "2", "thing": ["x", "y"]}


def test_more_events_than_an_operation_takes_go_in_order_and_in_calls_of_their_own(world: World) -> None:
    """G6: 100 events of one profile are seven operations in seven calls, each sent when the one before is acknowledged."""
    world.sql("update orders set custom_id = 'busy' where order_id < 100")
    report = world.run("orders")
    assert (report.outcome, report.accepted) == ("green", 1500)
    calls = [request for request in world.api.requests if "busy" in request.custom_ids]
    assert [Counter(request.custom_ids)["busy"] for request in calls] == [1] * 7
    assert by_customer(at_api(world))["busy"] == by_customer(orders(world))["busy"]
    assert (world.api.stats["event_overtakes"], world.api.stats["overlapping"]) == (0, 0)


def test_wave_that_fails_holds_the_next_one_back(world: World) -> None:
    """Later events of a profile never overtake earlier ones: what follows an unacknowledged call waits for the next run."""
    world.configure(delivery="{give_up_after: 1s}")
    world.sql("update orders set custom_id = 'busy' where order_id < 100")
    world.api.inject({"status": 503, "retry_after": 5, "match": {"custom_id": "busy"}})
    report = world.run("orders")
    assert report.outcome == "incomplete"
    assert "busy" not in by_customer(at_api(world))
    world.api.clear_faults()
    assert world.run("orders").outcome == "green"
    assert by_customer(at_api(world)) == by_customer(orders(world))


def test_unknown_outcome_is_held_and_nothing_is_sent_twice(world: World) -> None:
    """G4 with `hold`: a call that was applied without an answer is listed; it goes again on the operator's word alone."""
    world.api.inject({"status": 500, "apply": True, "match": {"custom_id": "c7"}})
    report = world.run("orders")
    assert (report.outcome, report.requests, report.held) == ("incomplete", 2, 1500 - report.accepted)
    assert report.held > 0
    assert report.closes is not None
    assert {(entry["state"], entry["source"]) for entry in world.listed()} == {("held", "rejected")}
    again = world.run("orders")
    assert (again.held, again.requests) == (report.held, 0)
    assert set(world.event_ids().values()) == {1}
    assert len(world.event_ids()) == 1500
    world.run("orders", retry_held=True)
    assert Counter(world.event_ids().values()) == {1: report.accepted, 2: report.held}
    assert world.listed() == []


def test_unknown_outcome_is_sent_again_where_the_yaml_prefers_that(world: World) -> None:
    """G3 with `resend`: at least once; only the events of the call without an answer stand there twice."""
    world.events_sync(attributes=MAPPED, on_unknown="resend")
    world.api.inject({"status": 500, "apply": True, "match": {"custom_id": "c7"}})
    report = world.run("orders")
    assert (report.outcome, report.accepted, report.requests) == ("green", 1500, 3)
    twice = {event for event, times in world.event_ids().items() if times == 2}
    in_call = next(request for request in world.api.requests if "c7" in request.custom_ids)
    assert twice == set(in_call.event_ids)


def test_api_that_answers_nothing_is_left_alone_soon(world: World) -> None:
    """With `hold` an outage must not turn everything into doubt: after three calls in a row the rest stays unsent."""
    world.sql(ORDERS.format(rows=9000, customers=5000).replace("table orders", "or replace table orders"))
    world.configure(delivery="{in_flight: 2, give_up_after: 20s}")
    world.api.inject({"status": 500, "share": 1.0})
    report = world.run("orders")
    assert report.requests <= 4
    assert report.unsent > report.held > 0
    assert "3 requests in a row" in " ".join(report.reasons)
    world.api.clear_faults()
    report = world.run("orders")
    assert (report.unsent, report.accepted + report.held) == (0, 9000)


def test_refusals_429_and_refused_connections_never_duplicate(world: World) -> None:
    """G4: what was certainly not applied is tried again without a copy."""
    world.api.inject({"status": 429, "retry_after": 0, "times": 2}, {"status": 503, "retry_after": 0, "times": 2})
    report = world.run("orders")
    assert (report.outcome, report.accepted, report.retries) == ("green", 1500, 4)
    assert set(world.event_ids().values()) == {1}


def test_refused_event_of_several_is_held_or_sent_alone(world: World) -> None:
    """A 202 that refuses one event of an operation does not say which: all of them are held, or go one by one."""
    refusal = {"partial": [{"custom_id": "c7", "event": {"event_id": "407"}, "reason": "no"}]}
    world.api.inject(refusal)
    report = world.run("orders")
    theirs = len([row for row in orders(world) if row["custom_id"] == "c7"])
    assert (report.outcome, report.held, report.accepted) == ("incomplete", theirs, 1500 - theirs)
    assert {entry["key"] for entry in world.listed()} == {"c7"}
    report = world.run("orders", discard_held=True)
    assert (report.expired, report.undecided) == (theirs, 0)


def test_refused_event_of_several_goes_alone_where_the_yaml_resends(world: World) -> None:
    """With `resend` they go one by one, so that the next refusal names its event, and each good one is there."""
    world.events_sync(attributes=MAPPED, on_unknown="resend")
    refusal = {"partial": [{"custom_id": "c7", "event": {"event_id": "407"}, "reason": "no"}]}
    world.api.inject(refusal)
    first = world.run("orders")
    theirs = {row["attributes"]["event_id"] for row in orders(world) if row["custom_id"] == "c7"}
    assert (first.rejected, first.unsent) == (len(theirs), 0)
    world.api.inject(refusal)
    second = world.run("orders")
    assert (second.planned, second.rejected) == (len(theirs), 1)
    (entry,) = world.listed()
    assert (entry["id"], entry["reason"], entry["source"]) == ("407", "no", "rejected")
    assert world.run("orders").accepted == 1
    ids = world.event_ids()
    assert {event: ids[event] for event in theirs} == {event: 1 if event == "407" else 2 for event in theirs}
    assert world.listed() == []


def test_refused_attribute_is_listed_and_the_event_counts_as_sent(world: World) -> None:
    """A 202 that names an attribute: the event was applied without it and is not sent again."""
    world.api.inject({"partial": [{"custom_id": "c399", "attribute": "amount", "reason": "no"}]})
    report = world.run("orders")
    assert report.rejected == len([row for row in orders(world) if row["custom_id"] == "c399"])
    assert {(entry["attribute"], entry["state"]) for entry in world.listed()} == {("amount", "")}
    assert world.run("orders").requests == 0
    assert len(world.event_ids()) == 1500


def test_call_that_is_refused_whole_is_halved_until_the_guilty_operation_is_alone(world: World) -> None:
    """A 400 for one operation costs its events alone, listed; they go by themselves at the next run."""
    world.api.inject({"status": 400, "match": {"custom_id": "c7"}, "times": 9})
    report = world.run("orders")
    theirs = len([row for row in orders(world) if row["custom_id"] == "c7"])
    assert (report.rejected, report.accepted) == (theirs, 1500 - theirs)
    world.api.clear_faults()
    report = world.run("orders")
    assert (report.outcome, report.accepted) == ("green", theirs)
    assert set(world.event_ids().values()) == {1}
    assert by_customer(at_api(world)) == by_customer(orders(world))


def test_refused_event_within_the_tolerance_leaves_the_run_green(world: World) -> None:
    """One refused event of 1,500 is listed and goes again by itself; a share that the YAML allows is no reason."""
    alone = world.sql(
        "select custom_id, order_id from orders qualify count(*) over (partition by custom_id) = 3 limit 1"
    )[0]
    world.sql("update orders set custom_id = 'single' where order_id = ?", alone[1])
    world.api.inject({"partial": [{"custom_id": "single", "event": {}, "reason": "no"}]})
    report = world.run("orders")
    assert (report.outcome, report.rejected, report.accepted) == ("green", 1, 1499)
    assert report.closes is not None
    assert world.run("orders").accepted == 1


def test_limit_takes_the_oldest_and_leaves_the_rest_due(world: World) -> None:
    """--limit sends the oldest events, so that none is overtaken; the cursor waits for the others."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at")
    report = world.run("orders", limit=100)
    assert (report.accepted, report.skipped) == (100, 1400)
    oldest = [row["attributes"]["event_id"] for row in orders(world)[:100]]
    assert set(world.event_ids()) == set(oldest)
    assert world.run("orders").accepted == 1400


def test_window_reads_by_event_time_and_leaves_the_cursor(world: World) -> None:
    """--window is half-open and by event time; the next ordinary run still reads all that is new."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at")
    times = sorted(row["time"] for row in orders(world))
    report = world.run("orders", window=(times[100], times[200]))
    assert report.accepted == len([time for time in times if times[100] <= time < times[200]])
    assert world.run("orders").already_sent == report.accepted


def test_keys_of_a_window_are_both_asked_for(world: World) -> None:
    """--window with --key reads those profiles alone; --full beside a window has no meaning and says so."""
    now = datetime.now(UTC)
    window = (now - timedelta(days=2), now)
    theirs = len([row for row in orders(world) if row["custom_id"] in ("c1", "c2")])
    report = world.run("orders", window=window, keys=("c1", "c2"))
    assert (report.read, report.accepted) == (theirs, theirs)
    with pytest.raises(UsageError, match="--window and --full exclude"):
        world.run("orders", window=window, full=True)


def test_mapping_that_makes_sent_events_look_new_is_guarded(world: World) -> None:
    """Without an id, another mapping gives every event another identity: the run stops before it sends them again."""
    world.events_sync(id="", attributes="{amount: amount}")
    world.run("orders")
    world.events_sync(id="", attributes="{amount: amount, points: points}")
    report = world.run("orders")
    assert (report.outcome, report.exit_status, report.requests) == ("guarded", 4, 0)
    assert world.plan("orders").report.outcome == "guarded"
    assert "name an id" in report.error["remedy"]  # type: ignore[index]
    assert world.run("orders", allow_mass_change="test").outcome == "green"


def test_damaged_ledger_is_refused_before_anything_is_sent(world: World) -> None:
    """A flipped bit, a lost file: exit 1 with the ways out, no request; on purpose all can be sent again."""
    world.run("orders")
    world.sent()
    (path,) = (world.folder / ".connector" / "ledger" / "orders").glob("*.arrow")
    good = path.read_bytes()
    path.write_bytes(good[:-300] + bytes([good[-300] ^ 1]) + good[-299:])
    report = world.run("orders")
    assert (report.outcome, report.exit_status, report.requests) == ("failed", 1, 0)
    assert "checksum" in report.error["message"]  # type: ignore[index]
    path.unlink()
    assert "missing" in world.run("orders").error["message"]  # type: ignore[index]
    assert world.api.requests == []


def test_sync_does_not_change_its_kind(world: World) -> None:
    """The ledger of an event sync is no snapshot: a profile sync of the same name is refused, and the other way round."""
    world.run("orders")
    world.sync("orders", source="{table: orders}", attributes="{amount: amount}")
    report = world.run("orders")
    assert (report.outcome, report.exit_status) == ("failed", 1)
    assert "another name" in report.error["remedy"]  # type: ignore[index]


def test_options_of_events_are_refused_for_profiles(world: World) -> None:
    """--window and --retry-held mean nothing for profiles, and say so."""
    world.sync(source="{query: 'select distinct on (custom_id) custom_id, amount from orders'}")
    with pytest.raises(UsageError, match="--window is for event syncs"):
        world.run(window=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))
    with pytest.raises(UsageError, match="exclude each other"):
        world.run("orders", retry_held=True, discard_held=True)


def test_events_about_to_be_too_old_are_reported(world: World) -> None:
    """The time left before Batch takes the oldest unsent event no longer is part of the reasons."""
    world.configure(delivery="{give_up_after: 1s}")
    world.sql("update orders set ordered_at = now()::timestamp - interval 23 hours where order_id = 1")
    world.api.inject({"status": 503, "retry_after": 9, "share": 1.0})
    report = world.run("orders")
    assert report.closes == pytest.approx(datetime.now(UTC).timestamp() + 3600, abs=30)
    assert any("1.0 h from now" in reason for reason in report.reasons)
    assert any("can be sent until" in note for note in world.plan("orders").notes)


def test_ledger_keeps_no_personal_value(world: World) -> None:
    """What stays on disk after a run are hashes of ids alone; nothing of the outbox is left."""
    world.run("orders")
    state = world.folder / ".connector"
    assert list((state / "outbox").iterdir()) == []
    content = b"".join(path.read_bytes() for path in (state / "ledger").rglob("*") if path.is_file())
    assert b"state 1" not in content
    assert b"c399" not in content
    with open_state(state, PROJECT_KEY) as opened:
        assert json.dumps(ledger.load(opened, "orders").manifest)


@pytest.mark.parametrize(
    "change",
    ["{points: points, amount: amount}", "{amount: order_id, points: points}", "{amount: {column: amount, type: string}, points: points}"],
    ids=["reordered", "another column", "another type"],
)  # fmt: skip
def test_derived_id_is_of_what_is_sent_and_where_it_comes_from(world: World, change: str) -> None:
    """Lines of the YAML may change places; another column or type under the same name is guarded, now and later."""
    world.events_sync(id="", attributes="{amount: amount, points: points}", cursor="loaded_at")
    world.run("orders")
    world.sql("update orders set loaded_at = loaded_at - interval 5 hours")
    world.events_sync(id="", attributes=change, cursor="loaded_at")
    assert world.run("orders").outcome == "green"
    report = world.run("orders", full=True)
    if change.startswith("{points"):
        assert (report.outcome, report.already_sent) == ("green", 1500)
    else:
        assert (report.outcome, report.requests) == ("guarded", 0)


def test_event_that_was_looked_up_and_not_sent_stays_listed(world: World) -> None:
    """A future event that is due by now, and then an outage: it is looked up until it is sent."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at")
    world.configure(delivery="{give_up_after: 1s}")
    world.sql("update orders set ordered_at = now()::timestamp + interval 1 hour where order_id = 9")
    world.run("orders")
    world.sql(
        "update orders set loaded_at = loaded_at - interval 5 hours, ordered_at = least(ordered_at, now()::timestamp)"
    )
    world.api.inject({"status": 503, "retry_after": 9})
    assert world.run("orders").unsent == 1
    assert world.run("orders").accepted == 1
    assert (world.event_ids()["9"], world.listed()) == (1, [])


@pytest.mark.parametrize("options", [{"full": True}, {"keys": ("late",)}])
def test_what_a_read_behind_the_cursor_did_not_send_is_read_again(world: World, options: dict[str, Any]) -> None:
    """A row that the cursor never shows, found by a full read or by its key and then not sent, is not forgotten."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at")
    world.configure(delivery="{give_up_after: 1s}")
    world.run("orders")
    world.sql(
        "insert into orders (custom_id, order_id, ordered_at, loaded_at) values ('late', 7777, now()::timestamp, timestamp '2020-01-01')"
    )
    assert world.run("orders").planned == 0
    world.api.inject({"status": 503, "retry_after": 9})
    assert world.run("orders", **options).unsent == 1
    assert world.run("orders").accepted == 1


def test_retried_events_of_a_refused_operation_go_one_by_one(world: World) -> None:
    """One bad event of several, held: a single --retry-held delivers the good ones and names the bad one."""
    refusal = {"partial": [{"custom_id": "c7", "event": {"event_id": "407"}, "reason": "no"}]}
    world.api.inject(refusal)
    held = world.run("orders").held
    world.api.inject(refusal)
    report = world.run("orders", retry_held=True)
    assert (report.accepted, report.rejected, report.undecided) == (held - 1, 1, 0)
    assert [(entry["id"], entry["source"]) for entry in world.listed()] == [("407", "rejected")]


def test_empty_time_is_no_time(world: World) -> None:
    """Empty text in a time column is null: the event is invalid, and not one that happens now."""
    world.sql(
        "create view texts as select custom_id, order_id, case when order_id > 0 then ordered_at::varchar else '' end as ordered_at from orders"
    )
    world.events_sync(source="{table: texts}")
    assert (world.run("orders").accepted, world.listed()[0]["reason"]) == (1499, "the event's time is null")


def test_invalid_event_that_cannot_be_looked_up_stays_listed(world: World) -> None:
    """A row without an id is not found again by it: a run that read something else does not take it for mended."""
    world.events_sync(attributes=MAPPED, cursor="loaded_at", tolerance="{invalid: 100%}")
    world.sql("update orders set order_id = null where order_id = 3")
    world.run("orders")
    world.sql("update orders set loaded_at = loaded_at - interval 5 hours")
    world.run("orders")
    assert [entry["reason"] for entry in world.listed()] == ["the event's id is null"]
    world.sql("delete from orders where order_id is null")
    world.run("orders", full=True)
    assert world.listed() == []


def test_letting_go_is_about_all_that_is_held(world: World) -> None:
    """--discard-held beside a part of the source would let go of more than was asked for: it is refused."""
    for option in ({"keys": ("c1",)}, {"limit": 1}, {"resend": True}):
        with pytest.raises(UsageError, match="--discard-held is about all held events"):
            world.run("orders", discard_held=True, **option)


def test_resend_sends_again_only_what_batch_still_takes(world: World) -> None:
    """--resend repeats what is in the window; what was sent and is too old by now is neither sent nor held."""
    world.run("orders")
    world.sql("update orders set ordered_at = ordered_at - interval 2 days where order_id < 100")
    report = world.run("orders", resend=True)
    assert (report.outcome, report.accepted, report.already_sent, report.undecided) == ("green", 1400, 100, 0)


def test_answer_that_nobody_understands_is_no_reason_for_copies(world: World) -> None:
    """A 202 in other words: its events have probably arrived, so they are held even where doubt is resent."""
    world.events_sync(attributes=MAPPED, on_unknown="resend")
    world.api.inject({"body": '{"code": "ALL_FINE"}', "apply": True, "match": {"custom_id": "c7"}})
    report = world.run("orders")
    assert (report.held, report.unsent) == (1500 - report.accepted, 0)
    assert world.run("orders").requests == 0
    assert set(world.event_ids().values()) == {1}


def test_window_is_by_the_time_that_is_sent(world: World) -> None:
    """A DATE is midnight UTC, whatever the source's zone: a window takes exactly the events whose time is in it."""
    world.sql("create view days as select custom_id, order_id, ordered_at::date as ordered_at from orders")
    world.events_sync(source="{table: days, timezone: Asia/Tokyo}", late="restamp")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = world.sql("select count(*) from days where ordered_at = ?", midnight.date())[0][0]
    assert world.run("orders", window=(midnight - timedelta(hours=12), midnight)).read == 0
    assert world.run("orders", window=(midnight, midnight + timedelta(days=1))).accepted == today
