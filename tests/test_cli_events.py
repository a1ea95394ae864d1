"""The command line over an event sync: windows, decisions on what is held, and what is said of them."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connector.cli import main
from connector.cli._moments import event_time
from connector.simulator import serve
from tests.test_cli import CANARY, COUNTS, RFC_3339, Answer, Say
from tests.world import World

NOW = datetime.now(UTC).replace(microsecond=0)

ORDERS = f"""create table orders as select
    'c' || i % 3 as custom_id, 'o' || i as order_id, ?::timestamp - to_hours(i::int * 6) as ordered_at,
    ?::timestamp as loaded_at, [{{'sku': '{CANARY}', 'quantity': i}}] as items
from range(6) as t(i)"""
"""Six orders, six hours apart: the last two, o4 and o5, are too old for Batch."""

KEYS = {
    "kind": "events",
    "source": "{table: orders}",
    "event": "order_placed",
    "time": "ordered_at",
    "id": "order_id",
    "cursor": "loaded_at",
}


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The orders are as old as they say, however long the tests before took."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Six orders, not yet sent, and the local API on a port."""
    world = World(tmp_path / "project")
    world.sync("orders", **KEYS)
    world.sql(ORDERS, naive(hours_ago(1)), naive(NOW))
    with serve(world.api) as served:
        world.configure(served.base_url)
        yield world


def naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


@pytest.fixture
def say(world: World, capfd: pytest.CaptureFixture[str]) -> Say:
    """Calls `connector --project …` in this process."""

    def say(*arguments: str) -> Answer:
        status = main(["--project", str(world.folder), *arguments])
        return Answer(status, *capfd.readouterr())

    return say


def sent(world: World) -> list[str]:
    return sorted(event["attributes"]["event_id"] for event in world.api.events())


def check_identities(report: dict[str, Any]) -> None:
    assert set(report) >= COUNTS | {"sync", "kind", "run", "outcome", "seconds", "undecided", "closes"}
    count = report.__getitem__
    assert count("kind") == "events"
    assert count("planned") == sum(map(count, ("accepted", "rejected", "held", "expired", "unsent")))
    assert count("read") == sum(map(count, ("planned", "already_sent", "invalid", "skipped")))


def test_run_sends_what_batch_takes_and_holds_the_rest(world: World, say: Say) -> None:
    """A plan and a run count alike, the run ends with 3 while events wait, and a second one sends nothing."""
    plan = say("plan", "orders", "--json").json
    check_identities(plan)
    assert (plan["planned"], plan["held"], plan["unsent"], plan["calls"]) == (6, 2, 4, 1)
    assert sent(world) == []
    first = say("run", "orders", "--json")
    check_identities(first.json)
    assert (first.status, first.json["outcome"]) == (3, "incomplete")
    assert [first.json[name] for name in ("accepted", "held", "undecided", "closes")] == [4, 2, 2, None]
    second = say("run", "orders", "--json").json
    check_identities(second)
    assert (second["already_sent"], second["accepted"], second["requests"]) == (4, 0, 0)
    assert sent(world) == ["o0", "o1", "o2", "o3"]


def test_people_see_what_an_event_run_counts(say: Say) -> None:
    """The tables of plan and run have the held and the sent ones, and the reason names the ways on."""
    assert re.search(r"held +2\b", say("plan", "orders").out)
    first = say("run", "orders").out
    assert re.search(r"held +2\n.*undecided +2\n", first, re.DOTALL)
    assert "--retry-held or --discard-held" in first
    assert re.search(r"already_sent +4\b", say("run", "orders").out)


def test_rejects_lists_what_waits_first(world: World, say: Say) -> None:
    """Each entry has the contract's fields, its state and its time; held ones come first, the oldest of them before."""
    world.sql("insert into orders values ('a', 'future', ?, ?, [])", naive(NOW + timedelta(hours=2)), naive(NOW))
    world.sql("insert into orders values ('', 'nobody', ?, ?, [])", naive(hours_ago(30)), naive(NOW))
    say("run", "orders")
    listed = say("rejects", "orders", "--json").json
    fields = {"key", "id", "attribute", "reason", "source", "attempts", "first_seen", "last_seen", "state", "time"}
    assert all(set(entry) == fields for entry in listed)
    assert [(entry["id"], entry["state"], entry["key"]) for entry in listed] == [
        ("o5", "held", "c2"), ("o4", "held", "c1"), ("nobody", None, None), ("future", None, "a"),
    ]  # fmt: skip
    oldest = listed[0]
    assert (oldest["time"], oldest["attribute"], oldest["source"]) == (rfc3339(hours_ago(31)), None, "invalid")
    assert oldest["attempts"] == 1
    assert RFC_3339.fullmatch(oldest["first_seen"])
    shown = say("rejects", "orders").out
    assert re.search(r"c2 +o5 +held +\(whole event\)", shown)
    assert CANARY not in shown


def test_an_event_that_travels_alone_next_time_is_in_no_state(world: World, say: Say) -> None:
    """What Batch refused for certain is listed as rejected; how it will be sent again is nobody's business."""
    world.sql("delete from orders where order_id <> 'o0'")
    refused = {"custom_id": "c0", "event": {"event_id": "o0"}, "reason": "refused for a test"}
    world.api.inject({"partial": [refused]})
    say("run", "orders")
    (entry,) = say("rejects", "orders", "--json").json
    assert (entry["id"], entry["source"], entry["state"]) == ("o0", "rejected", None)
    assert (entry["attribute"], entry["reason"]) == (None, "refused for a test")


def test_held_events_are_sent_or_let_go_on_the_operators_word(world: World, say: Say) -> None:
    """--discard-held lists them as expired for good; before that --retry-held judges them by today's YAML."""
    say("run", "orders")
    again = say("run", "orders", "--retry-held", "--json")
    assert (again.status, again.json["held"]) == (3, 2)
    gone = say("run", "orders", "--discard-held", "--json")
    check_identities(gone.json)
    assert [gone.json[name] for name in ("expired", "undecided", "accepted")] == [2, 0, 0]
    assert [entry["state"] for entry in say("rejects", "orders", "--json").json] == ["expired", "expired"]
    world.sync("orders", **KEYS, late="restamp")
    assert say("run", "orders", "--retry-held", "--json").json["accepted"] == 0
    assert sent(world) == ["o0", "o1", "o2", "o3"]


def test_retry_held_sends_what_the_yaml_now_allows(world: World, say: Say) -> None:
    """Events held as they were late go once `late: restamp` says so and the operator asks for it."""
    say("run", "orders")
    world.sync("orders", **KEYS, late="restamp")
    plan = say("plan", "orders", "--retry-held", "--json").json
    assert (plan["held"], plan["unsent"]) == (0, 2)
    answer = say("run", "orders", "--retry-held", "--json")
    assert (answer.status, answer.json["accepted"], answer.json["undecided"]) == (0, 2, 0)
    assert sent(world) == ["o0", "o1", "o2", "o3", "o4", "o5"]
    assert say("rejects", "orders", "--json").json == []
    assert "has no rejected or invalid event" in say("rejects", "orders").out


def test_window_reads_events_by_their_time(world: World, say: Say) -> None:
    """FROM is in, TO is out, zones count, and what was sent by a window is not sent again without one."""
    start, end = hours_ago(13), hours_ago(1)
    zoned = start.astimezone(UTC).replace(tzinfo=None) + timedelta(hours=2)
    first = say("run", "orders", "--window", f"{zoned.isoformat()}+02:00", rfc3339(end), "--json").json
    check_identities(first)
    assert (first["read"], first["accepted"], sent(world)) == (2, 2, ["o1", "o2"])
    rest = say("run", "orders", "--json").json
    assert (rest["read"], rest["already_sent"], rest["accepted"]) == (6, 2, 2)


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in Tokyo."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_a_date_is_midnight_utc(say: Say) -> None:
    """A window of one day holds that day's events and no other's, wherever the machine stands."""
    times = [hours_ago(1 + 6 * number) for number in range(6)]
    for day in sorted({moment.date() for moment in times}):
        dates = str(day), str(day + timedelta(days=1))
        read = say("plan", "orders", "--window", *dates, "--json").json["read"]
        assert read == sum(moment.date() == day for moment in times)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--window", "yesterday", "2026-01-31"], "'yesterday' is not a date of the years 1900 to 2099, or RFC 3339"),
        (["--window", "2026-01-30T06:00:00", "2026-01-31"], "RFC 3339 with a zone; write 2026-01-31"),
        (["--window", "2026-02-30", "2026-03-01"], "'2026-02-30' is not a date"),
        (["--window", "2026-01-31", "2026-01-31"], "FROM must be before TO"),
        (["--window", "2026-01-31T01:00:00+02:00", "2026-01-30T23:00:00Z"], "FROM must be before TO"),
        (["--window", "2026-01-31"], "'--window' requires 2 arguments"),
        (["--retry-held", "--discard-held"], "exclude each other"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_wrong_options_end_with_2(world: World, say: Say, command: str, arguments: list[str], said: str) -> None:
    """A wrong call says what was found and what is allowed; nothing is sent, and the answer is of the sync's kind."""
    person, script = say(command, "orders", *arguments), say(command, "orders", "--json", *arguments)
    assert (person.status, script.status, person.out) == (2, 2, "")
    assert said in person.err
    assert said in script.json["error"]["message"]
    assert sent(world) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_769_860_800_250, "2026-01-31T12:00:00.250Z"),
        (253_402_300_800_000, None),
        (-(2**63), None),
    ],
)
def test_event_times_are_rfc_3339_or_null(given: int | None, told: str | None) -> None:
    """Milliseconds show where there are any; what no calendar of four digits holds is null."""
    assert event_time(given) == told


def test_status_tells_how_long_there_is_to_decide(world: World, say: Say) -> None:
    """The newest report counts the held events of all runs, and says until when the first of them can still go."""
    world.api.inject({"status": 500, "apply": True})
    doubtful = say("run", "orders", "--limit", "4", "--json").json
    say("run", "orders", "--window", rfc3339(hours_ago(40)), rfc3339(hours_ago(39)), "--json")
    newest, oldest = say("status", "orders", "--json").json
    closes = rfc3339(hours_ago(19) + timedelta(days=1))
    assert (doubtful["closes"], oldest["closes"], newest["closes"]) == (closes, closes, closes)
    assert (newest["undecided"], newest["waiting"], newest["planned"]) == (6, 0, 0)
    assert RFC_3339.fullmatch(newest["finished"])
    assert "waiting" not in oldest
    world.sql("alter table orders rename to gone")
    assert say("run", "orders").status == 1
    newest = say("status", "orders", "--json").json[0]
    assert (newest["outcome"], newest["undecided"], newest["closes"]) == ("failed", 6, closes)
    shown = say("status").out
    assert re.search(r"orders +0 +0 +6 +(5\.0|4\.9) h", shown)
    assert "connector run orders --retry-held, or --discard-held" in shown
    assert "connector rejects orders" in shown


def test_status_counts_what_waits_now(world: World, say: Say) -> None:
    """Once a decision was made nothing waits, though the report of the run before said so."""
    assert say("status", "--json").json == []
    assert "no run yet" in say("status").out
    say("run", "orders")
    say("run", "orders", "--discard-held")
    newest, oldest = say("status", "--json").json
    assert (newest["undecided"], newest["expired"], oldest["undecided"], oldest["held"]) == (0, 2, 2, 2)
    assert re.search(r"orders +2 +0 +0 *\n", say("status", "orders").out)


def _without_time(world: World) -> None:
    world.sync("orders", **KEYS | {"time": "orderd_at"})


def _cursor_of_text(world: World) -> None:
    world.sync("orders", **KEYS | {"cursor": "custom_id"})


def _two_columns(world: World) -> None:
    world.sync("orders", **KEYS | {"id": "orderid", "key": "customid"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_time, ["did you mean 'ordered_at'?"]),
        (_cursor_of_text, ["a timestamp or date is needed"]),
        (_two_columns, ["did you mean 'order_id'?", "did you mean 'custom_id'?"]),
    ],
)
def test_check_names_columns_that_are_missing(
    world: World, say: Say, spoil: Callable[[World], None], said: list[str]
) -> None:
    """All mistakes of a mapping are told at once, at their file; a plan refuses it in the name of an event sync."""
    spoil(world)
    answer = say("check", "orders", "--json")
    (error,) = answer.json["errors"]
    assert (answer.status, error["file"]) == (1, "syncs/orders.yaml")
    for part in said:
        assert part in error["message"]
    refused = say("plan", "orders", "--json").json
    assert (refused["kind"], refused["error"]["code"]) == ("events", "warehouse")


def test_check_says_what_becomes_of_the_events(world: World, say: Say) -> None:
    """Rows that run into no rule pass; what the policy does with late and repeated ones is told beside."""
    world.sql("insert into orders select * from orders where order_id = 'o1'")
    answer = say("check", "orders", "--json").json
    columns, events = answer["steps"][2]["message"], answer["steps"][3]["message"]
    assert (answer["ok"], answer["steps"][3]["name"]) == (True, "orders: events")
    assert columns.startswith("key 'custom_id', time 'ordered_at', id 'order_id' and 1 attributes")
    assert events.startswith("7 rows, 2 that share their id with another")
    assert "2 older than 24 hours, which would be held (late: hold)" in events
    world.sync("orders", **KEYS, late="drop")
    assert "2 older than 24 hours, which would be dropped (late: drop)" in say("check", "orders").out
    assert not (world.folder / ".connector").exists()


def test_check_counts_events_that_no_run_can_send(world: World, say: Say) -> None:
    """Bad keys, names, times and ids are counted by the reason that `rejects` would give; above the tolerance it fails."""
    world.sync("orders", **KEYS | {"event": "{column: name}"})
    world.sql("alter table orders add column name varchar default 'bought'")
    soon = naive(NOW + timedelta(hours=2))
    world.sql(
        "insert into orders values (null, 'p0', ?, ?, [], 'bought'), ('c', null, ?, ?, [], 'bought'),"
        " ('c', 'p1', null, ?, [], 'bought'), ('c', 'p2', ?, null, [], 'Bought!'), ('c', 'p3', ?, ?, [], 'bought'),"
        " ('c0', 'o0', ?, ?, [], 'returned')",
        *(naive(NOW),) * 4, naive(NOW), naive(NOW), soon, naive(NOW), naive(NOW), naive(NOW),
    )  # fmt: skip
    answer = say("check", "orders", "--json")
    (error,) = answer.json["errors"]
    assert (answer.status, error["file"]) == (1, "syncs/orders.yaml")
    for part in (
        "12 rows, 1 invalid: the event's id is null, 1 invalid: the event's name is not 1 to 30",
        "1 invalid: the event's time is null, 1 invalid: the key is null",
        "1 with a time in the future",
        "2 older than 24 hours",
        "1 with a null cursor",
        "tolerance.invalid allows 1%",
    ):
        assert part in error["message"]
    assert "share their id" not in error["message"]
    world.sync("orders", **KEYS | {"event": "{column: name}", "tolerance": "{invalid: 50%}"})
    assert say("check", "orders").status == 0


def test_check_takes_a_source_without_time_and_id(world: World, say: Say) -> None:
    """What is not there is said: Batch takes the time of reception, and an id is derived from each row."""
    world.sql("create table visits as select 'c1' as custom_id, 'home' as page")
    world.sync("visits", kind="events", source="{table: visits}", event="visited")
    answer = say("check", "visits", "--json").json
    assert answer["ok"]
    assert "no time (Batch takes that of reception), no id (one is derived" in answer["steps"][2]["message"]
    assert answer["steps"][3]["message"] == "1 rows"


def test_no_value_of_an_event_is_ever_shown(world: World, say: Say) -> None:
    """Whatever the command, its output holds no attribute's value."""
    world.sql("update orders set items = [{'sku': repeat(?, 100), 'quantity': 1}] where order_id = 'o0'", CANARY)
    shown = ""
    for command in ("check", "plan orders", "run orders", "run orders --retry-held", "status", "rejects orders"):
        for form in ([], ["--json"]):
            answer = say(*command.split(), *form)
            shown += answer.out + answer.err
    assert json.dumps("items") in shown
    assert CANARY not in shown
