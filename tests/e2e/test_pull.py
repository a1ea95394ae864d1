"""Exports end to end, in process: whatever Batch and the way to its files do, a table has an export whole, or as it was."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from connector.errors import UsageError
from connector.simulator import serve
from connector.state import runs
from connector.state.database import open_state
from connector.sync import Progress
from tests.world import PROJECT_KEY, REST_KEY, World, logged, timeless, wait

CANARY = "canary"
TABLE = "batch.profile_attributes"

CUSTOMERS = f"""create table customers as select
    'c' || i as custom_id, '{CANARY}' || i || '@example.org' as email, ['gold', 'é "x"', null][1 + i % 3] as plan,
    i * 1000003 as orders, i / 8.0 as spend, i % 2 = 0 as vip,
    timestamp '1950-01-01 00:00:00.5' + to_days((i * 997)::int) as born,
    'https://example.org/{CANARY}?' || i as site, ['t' || i, 'a"b', 'c\\d'] as tags
from range(50) as t(i)"""
MAPPED = """{$email_address: email, plan: {column: plan, type: string}, orders: {column: orders, type: integer},
  spend: {column: spend, type: float}, vip: {column: vip, type: boolean}, born: {column: born, type: date},
  site: {column: site, type: url}, tags: {column: tags, type: array}}"""
UNTYPED = "{$email_address: email, plan: plan, orders: orders, spend: spend, vip: vip, born: born, site: {column: site, type: url}, tags: tags}"
PEOPLE = 12
NAMES = ("$email_address", "plan", "orders", "spend", "vip", "born", "site", "tags")
ASKED = f"[{', '.join(NAMES)}]"


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    """A dozen people at Batch, an export of them; whatever a test does, nothing secret or personal gets about."""
    caplog.set_level(logging.DEBUG)
    with timeless() as world:
        world.sync(attributes=MAPPED)
        world.sql("select 1")
        for n in range(PEOPLE):
            world.api.alter(f"c{n}", {
                "$email_address": f"{CANARY}{n}@example.org", "plan": ["gold", 'é "x"'][n % 2], "orders": n, "spend": n / 8,
                "vip": n % 3 == 0, "date(born)": f"19{70 + n}-01-02T03:04:05.678Z", "tags": [CANARY, 'a"b', "c\\d"],
            })  # fmt: skip
        world.export_sync(attributes=ASKED)
        yield world
        check_discretion(world, logged(caplog))


@pytest.fixture
def delivered(world: World) -> World:
    """50 delivered customers, whose types their columns tell."""
    world.api.reset()
    world.sync(attributes=UNTYPED)
    world.sql(CUSTOMERS)
    assert world.run().outcome == "green"
    return world


def check_discretion(world: World, log: str) -> None:
    """No key, value or link in logs and reports, no credentials at the files' host, no value on disk without need."""
    with open_state(world.folder / ".connector", PROJECT_KEY) as state:
        told = log + json.dumps(runs.reports(state))
    for secret in (CANARY, "signature", REST_KEY, PROJECT_KEY):
        assert secret not in told
    assert world.api.stats["credentials_leaked"] == 0
    open_exports = sum(one["state"] == "requested" for one in world.exports())
    assert len(list((world.folder / ".connector" / "outbox").iterdir())) <= open_exports


def expected(world: World) -> list[dict[str, Any]]:
    """The rows that an export of today should become, by a loop over what the API holds."""
    made = []
    for profile in sorted(world.api.profiles(), key=lambda one: str(one["custom_id"])):
        values = dict(profile["native"]) | {name: held["value"] for name, held in profile["custom"].items()}
        row = {name.removeprefix("$"): values.get(name) for name in NAMES}
        row["born"] = row["born"] and datetime.fromisoformat(row["born"])
        made.append({"custom_id": profile["custom_id"]} | row)
    return made


def loaded(world: World, table: str = TABLE) -> list[dict[str, Any]]:
    """The table's rows without what the load adds."""
    added = ("export_id", "loaded_at", "raw")
    return [{name: value for name, value in row.items() if name not in added} for row in world.rows(table)]


def events_of(world: World, *events: tuple[str, str, datetime, dict[str, Any]]) -> None:
    """Somebody else's calls tell Batch of these events: whose, what, when, with what."""
    body = [
        {
            "identifiers": {"custom_id": who},
            "events": [{"name": name, "time": at.isoformat(timespec="milliseconds"), "attributes": attributes}],
        }
        for who, name, at, attributes in events
    ]
    call(world, "/profiles/update", body)


def call(world: World, route: str, body: Any) -> None:
    """Somebody else's call."""
    headers = {"Authorization": f"Bearer {REST_KEY}", "X-Batch-Project": PROJECT_KEY}

    async def post() -> int:
        async with httpx.AsyncClient(transport=world.transport, base_url="http://127.0.0.1:1/2.11") as client:
            return (await client.post(route, json=body, headers=headers)).status_code

    assert asyncio.run(post()) == 202


def asked(world: World) -> list[dict[str, Any]]:
    """The bodies of all requests for exports, the oldest first."""
    return [export["request"] for export in world.api.exports()]


def moment(text: str | None) -> datetime:
    assert text
    return datetime.fromisoformat(text)


def interrupting(phase: str) -> Progress:
    """Somebody presses Ctrl-C once this phase is told."""

    def progress(told: str, _done: int, _total: int | None) -> None:
        if told.startswith(phase):
            raise KeyboardInterrupt

    return progress


class TestWhatLands:
    """Rows, columns, types."""

    @pytest.mark.parametrize(
        ("packed", "style", "dates"),
        [
            (False, "bare", "rfc3339"),
            (True, "wrapped", "rfc3339"),
            (True, "bare", "epoch_ms"),
            (False, "wrapped", "epoch_ms"),
        ],
    )
    def test_attributes_as_the_api_holds_them(self, delivered: World, packed: bool, style: str, dates: str) -> None:
        """However Batch writes dates, names and files, the same typed rows arrive, each with its line and export."""
        delivered.api.configure(export_gzip=packed, export_style=style, export_dates=dates, part_lines=5)
        report = delivered.pull()
        assert (report.outcome, report.rows, report.inserted, report.files) == ("green", 50, 50, 10)
        assert (report.duplicates, report.quarantined, report.mistyped) == (0, 0, 0)
        assert loaded(delivered) == expected(delivered)
        rows = delivered.rows(TABLE)
        assert {row["export_id"] for row in rows} == {report.export_id}
        assert all(row["raw"]["identifiers"]["custom_id"] == row["custom_id"] for row in rows)
        assert report.bytes == sum(file["size"] for file in delivered.api.exports()[0]["files"])

    def test_columns_have_the_types_of_what_was_sent(self, delivered: World) -> None:
        """Types come from the sync that sends them; what no sync sends is text."""
        delivered.export_sync(attributes=f"[{', '.join(NAMES)}, stranger]", identifiers="[custom_id, installation_ids]")
        delivered.api.alter("c1", {"stranger": 5})
        assert delivered.pull().outcome == "green"
        found = {name: type_ for name, type_, *_ in delivered.sql(f"describe {TABLE}")}
        time = "TIMESTAMP WITH TIME ZONE"
        assert found == {
            "custom_id": "VARCHAR", "installation_ids": "JSON", "email_address": "VARCHAR", "plan": "VARCHAR", "orders": "BIGINT",
            "spend": "DOUBLE", "vip": "BOOLEAN", "born": time, "site": "VARCHAR", "tags": "JSON", "stranger": "VARCHAR",
            "export_id": "VARCHAR", "loaded_at": time, "raw": "JSON",
        }  # fmt: skip
        assert delivered.sql(f"select custom_id, stranger from {TABLE} where stranger is not null") == [("c1", "5")]

    @pytest.mark.parametrize("kind", ["events", "attributes"])
    def test_a_profile_sync_that_once_sent_events_is_in_nobodys_way(self, world: World, kind: str) -> None:
        """It says nothing of attributes' types; what is wrong with it is told by its own run alone."""
        world.sql(
            "create table orders as select 'c1' as custom_id, 'o1' as order_id, now()::timestamp - interval 1 minute as ordered_at"
        )
        world.events_sync("orders")
        assert world.run("orders").outcome == "green"
        world.sync("orders", attributes="{plan: plan}")
        world.export_sync("told", export=kind, **({"attributes": "[other]"} if kind == "attributes" else {}))
        assert world.pull("told").outcome == "green"

    def test_a_column_that_is_there_keeps_its_type_and_a_new_attribute_adds_one(self, delivered: World) -> None:
        """The table's own types win over what syncs say; new attributes add columns, dropped ones stay as nulls."""
        delivered.sync(attributes="{plan: plan}")
        delivered.export_sync(attributes="[orders, born, plan]")
        with open_state(delivered.folder / ".connector", PROJECT_KEY) as state, state.write() as connection:
            connection.exec_driver_sql("delete from snapshots")
        assert delivered.pull().outcome == "green"
        delivered.sync(attributes=UNTYPED)
        delivered.run()
        delivered.export_sync(attributes="[orders, born, spend]")
        assert delivered.pull().outcome == "green"
        found = {name: type_ for name, type_, *_ in delivered.sql(f"describe {TABLE}")}
        assert (found["orders"], found["born"], found["spend"]) == ("VARCHAR", "VARCHAR", "DOUBLE")
        (row,) = delivered.sql(f"select orders, born, spend, plan from {TABLE} where custom_id = 'c1'")
        assert row == ("1000003", "1952-09-24T00:00:00.500Z", 0.125, None)

    def test_values_of_another_type_are_counted_and_kept_in_the_line(self, world: World) -> None:
        """A value that is none of its column's type is null there, counted, whole in `raw`, and no reason to be red."""
        line = {"identifiers": {"custom_id": "z"}, "attributes": {
            "orders": "many", "spend": "inf", "vip": "maybe", "born": "someday", "tags": CANARY, "plan": {"a": [1]}, "new": 1,
        }, "more": None}  # fmt: skip
        world.api.inject({"endpoint": "export", "lines": [json.dumps(line)]})
        report = world.pull()
        assert (report.outcome, report.rows, report.mistyped) == ("green", PEOPLE + 1, 4)
        (row,) = [row for row in world.rows(TABLE) if row["custom_id"] == "z"]
        assert row["raw"] == line
        assert (row["orders"], row["spend"], row["vip"], row["born"]) == (None, None, None, None)
        assert (row["tags"], json.loads(row["plan"])) == (CANARY, {"a": [1]})

    def test_events_as_the_api_holds_them(self, world: World) -> None:
        """Events arrive by their ids, with moment, owner and attributes."""
        now = datetime.now(UTC).replace(microsecond=0)
        told = [
            (
                f"c{n % 3}",
                "bought",
                now - timedelta(minutes=n),
                {"n": n, "amount": n / 2, "tags": ["a"], "o": {"x": CANARY}},
            )
            for n in range(1, 40)
        ]
        events_of(world, *told)
        world.export_sync("happened", export="events", identifiers="[custom_id, installation_id]")
        report = world.pull("happened")
        assert (report.outcome, report.rows, report.inserted) == ("green", 39, 39)
        rows = world.rows("batch.happened")
        found = {(row["custom_id"], row["name"], row["occurred_at"], json.dumps(row["attributes"])) for row in rows}
        assert found == {(who, name, at, json.dumps(attributes)) for who, name, at, attributes in told}
        assert len({row["event_id"] for row in rows}) == 39
        assert all(row["profile_id"].startswith("profile_") for row in rows)

    def test_reachability_as_the_api_holds_it(self, world: World) -> None:
        """Each opt-out is a row of its own, with channel, reasons and state."""
        for name in ("c1", "c2"):
            world.api.alter(name, {"$email_marketing": "unsubscribed", "$phone_number": "+33612345678"})
        wait(1)
        world.export_sync("reach", export="reachability")
        assert world.pull("reach").outcome == "green"
        rows = world.sql(
            "select custom_id, channel, reasons::varchar, has_email_address, email_marketing, has_phone_number from batch.reach"
            " where loaded_at is not null and event_id is not null and custom_id in ('c1', 'c2') order by 1, 2, 3"
        )
        mail = [("EMAIL", '["EMAIL_ADDRESS_ADDED"]', True, None, None),
                ("EMAIL", '["UNSUBSCRIBED_FROM_EMAIL_MARKETING"]', True, "unsubscribed", None),
                ("SMS", '["PHONE_NUMBER_ADDED"]', None, None, True)]  # fmt: skip
        assert rows == [(name, *one) for name in ("c1", "c2") for one in mail]

    def test_an_export_of_nobody_makes_an_empty_table(self, world: World) -> None:
        """Nobody to export is a fact where the table is new."""
        world.api.inject({"endpoint": "export", "becomes": "empty"})
        report = world.pull()
        assert (report.outcome, report.rows, report.files) == ("green", 0, 0)
        assert world.rows(TABLE) == []


class TestAgain:
    """Runs in a row."""

    def test_replace(self, world: World) -> None:
        """The table is always today's export, however often it runs."""
        world.pull()
        world.api.alter("c1", {"plan": "bronze"})
        world.api.forget("c2")
        for _ in range(2):
            assert world.pull().rows == PEOPLE - 1
            assert loaded(world) == expected(world)

    def test_append(self, world: World) -> None:
        """Each export is added, and told apart by its id."""
        world.export_sync(attributes=ASKED, write="append")
        ids = [world.pull().export_id for _ in range(3)]
        counts = world.sql(f"select export_id, count(*), count(distinct custom_id) from {TABLE} group by 1 order by 1")
        assert counts == [(export_id, PEOPLE, PEOPLE) for export_id in sorted(map(str, ids))]

    def test_merge(self, world: World) -> None:
        """Windows overlap, events are there once."""
        world.export_sync("happened", export="events")
        now = datetime.now(UTC)
        events_of(world, *[("c1", "e", now - timedelta(minutes=n), {"n": n}) for n in range(1, 9)])
        assert (first := world.pull("happened")).inserted == 8
        assert (second := world.pull("happened")).inserted == 0
        assert (first.rows, second.rows) == (8, 8)
        assert len(world.rows("batch.happened")) == 8


class TestWindows:
    """What is asked for."""

    @pytest.fixture(autouse=True)
    def _events(self, world: World) -> None:
        world.api.configure(event_age=1e9)
        world.export_sync("happened", export="events", since="7d")

    def tell(self, world: World, n: int, age: timedelta) -> None:
        events_of(world, ("c1", "e", datetime.fromtimestamp(time.time(), UTC) - age, {"n": n}))

    def names(self, world: World) -> list[int]:
        return sorted(row["attributes"]["n"] for row in world.rows("batch.happened"))

    def test_since_then_from_the_last_window_with_an_hour_more(self, world: World) -> None:
        """First `since`; then from the last loaded window's end, an hour earlier, for what reached Batch late."""
        self.tell(world, 1, timedelta(days=8))
        self.tell(world, 2, timedelta(days=6))
        report = world.pull("happened")
        start = datetime.fromtimestamp(time.time(), UTC)
        assert moment(report.until) <= start
        assert abs(moment(report.since) - (moment(report.until) - timedelta(days=7))) < timedelta(milliseconds=1)
        assert self.names(world) == [2]
        wait(86_400)
        self.tell(world, 3, timedelta(hours=24, minutes=30))  # before the last end
        self.tell(world, 4, timedelta(hours=25, minutes=30))  # too late for the overlap
        self.tell(world, 5, timedelta(hours=1))
        following = world.pull("happened")
        assert moment(following.since) == moment(report.until) - timedelta(hours=1)
        assert self.names(world) == [2, 3, 5]

    def test_a_failed_window_is_asked_for_again(self, world: World) -> None:
        """Only what was loaded moves the watermark."""
        first = world.pull("happened")
        wait(3600)
        world.api.inject({"endpoint": "export", "becomes": "error"})
        assert world.pull("happened").outcome == "failed"
        wait(3600)
        assert moment(world.pull("happened").since) == moment(first.until) - timedelta(hours=1)

    def test_full_starts_again(self, world: World) -> None:
        """--full asks for `since` again."""
        world.pull("happened")
        wait(86_400)
        report = world.pull("happened", full=True)
        assert moment(report.until) - moment(report.since) == timedelta(days=7)

    def test_a_window_of_the_operators_own_moves_nothing(self, world: World) -> None:
        """--window asks for exactly that; the next run goes on as if it had not been."""
        first = world.pull("happened")
        wait(86_400)
        self.tell(world, 1, timedelta(hours=5))
        self.tell(world, 2, timedelta(hours=3))
        now = datetime.fromtimestamp(time.time(), UTC)
        window = (now - timedelta(hours=6), now - timedelta(hours=4))
        report = world.pull("happened", window=window)
        assert abs(moment(report.since) - window[0]) < timedelta(milliseconds=1)
        assert abs(moment(report.until) - window[1]) < timedelta(milliseconds=1)
        assert self.names(world) == [1]
        assert moment(world.pull("happened").since) == moment(first.until) - timedelta(hours=1)
        assert self.names(world) == [1, 2]

    def test_a_table_that_was_dropped_is_filled_again(self, world: World) -> None:
        """What had been loaded went with it: the window starts `since` ago again, not an hour before the last end."""
        for days in range(1, 6):
            self.tell(world, days, timedelta(days=days))
        assert world.pull("happened").inserted == 5
        world.sql("drop table batch.happened")
        wait(60)
        assert world.pull("happened").inserted == 5
        assert self.names(world) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("since", ["90d", "2160h"])
    def test_ninety_days_are_what_batch_gives(self, world: World, since: str) -> None:
        """As long a window as Batch's own is taken by it, although it judges a moment later."""
        world.export_sync("happened", export="events", since=since)
        self.tell(world, 1, timedelta(days=89, hours=20))
        world.api.inject({"endpoint": "export", "status": 503, "retry_after": 5, "times": 2})
        assert world.pull("happened").outcome == "green"
        assert self.names(world) == [1]

    def test_a_watermark_older_than_ninety_days_is_refused_before_any_request(self, world: World) -> None:
        """What is no longer there is not passed over in silence, and --full starts again."""
        world.pull("happened")
        wait(91 * 86_400)
        requests = world.api.stats["requests"]
        report = world.pull("happened")
        assert report.outcome == "failed"
        assert report.error
        assert report.error["code"] == "usage"
        assert "no longer there" in report.error["message"]
        assert world.api.stats["requests"] == requests
        assert world.pull("happened", full=True).outcome == "green"

    @pytest.mark.parametrize(("start", "end"), [(91, 1), (1, -1)])
    def test_windows_that_batch_has_not(self, world: World, start: int, end: int) -> None:
        """A window that starts too early or ends in the future is refused before any request."""
        now = datetime.fromtimestamp(time.time(), UTC)
        report = world.pull("happened", window=(now - timedelta(days=start), now - timedelta(days=end)))
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "usage")
        assert asked(world) == []

    def test_attributes_have_no_window(self, world: World) -> None:
        """--window is refused for an export of attributes."""
        with pytest.raises(UsageError, match="--window"):
            world.pull(window=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))

    def test_another_question_starts_again(self, world: World) -> None:
        """A watermark is good for the table and the identifiers that it was made with."""
        world.pull("happened")
        wait(86_400)
        world.export_sync("happened", export="events", since="7d", table="batch.other")
        report = world.pull("happened")
        assert moment(report.until) - moment(report.since) == timedelta(days=7)


class TestBeingAsked:
    """One export, whatever becomes of the request."""

    @pytest.mark.parametrize(
        "faults",
        [
            [{"status": 500, "apply": True}],
            [{"status": 500, "apply": True, "late": 90}],
            [{"status": 500}],
            [{"status": 502}, {"status": 500, "apply": True}],
            [{"delay": 600}],
            [{"delay": 600, "status": 500, "apply": False}],
            [{"body": "<html>"}],
            [{"cut": True}],
            [{"status": 503, "retry_after": 7, "times": 2}],
            [{"status": 429, "retry_after": 2}],
            [{"status": 429}],
            [{"status": 408}],
        ],
    )
    def test_an_unclear_answer_never_makes_a_second_export(self, world: World, faults: list[dict[str, Any]]) -> None:
        """What a request made is found in the list, and only what it did not make is asked for again."""
        world.api.inject(*({"endpoint": "export"} | fault for fault in faults))
        report = world.pull()
        assert (report.outcome, len(world.api.exports())) == ("green", 1)
        assert loaded(world) == expected(world)

    def test_an_orphan_behind_a_page_of_others(self, world: World) -> None:
        """The list is read to its end, and exports of others or of our past are not taken for ours."""
        world.pull()
        world.api.inject({"endpoint": "export", "status": 500, "apply": True}, {"endpoint": "list", "status": 401})
        assert world.pull().outcome == "failed"
        for _ in range(105):
            call(world, "/profiles/export", {"export_type": "ATTRIBUTES", "attributes": ["plan"]})
        world.api.inject({"endpoint": "list", "status": 500, "skip": 1})
        assert world.pull().export_id == world.api.exports()[1]["id"]
        assert len(world.api.exports()) == 2 + 105

    def test_an_odd_export_in_the_list_hides_no_other(self, world: World) -> None:
        """Somebody's export that makes no sense is not ours; the one that our request made is found beside it."""
        inner = world.transport
        assert inner
        odd = {"id": "export_x", "status": "ERROR", "request": None, "files": [{"id": None}]}

        class Listing(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                answer = await inner.handle_async_request(request)
                if "/exports/list" not in str(request.url):
                    return answer
                page = json.loads(b"".join([part async for part in answer.aiter_raw()]))
                page["exports"] = [odd, None, *page["exports"], odd]
                return httpx.Response(200, stream=httpx.ByteStream(json.dumps(page).encode()))

        world.transport = Listing()
        world.api.inject({"endpoint": "export", "status": 500, "apply": True})
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 1

    def test_an_export_that_is_taken_for_ours_is_as_old_as_it_is(self, world: World) -> None:
        """It says what was when it was made: nothing that came after is judged by it as if it were of now."""
        made = time.time()
        call(
            world,
            "/profiles/export",
            {"export_type": "ATTRIBUTES", "identifiers": ["custom_id"], "attributes": list(NAMES)},
        )
        wait(60)
        world.api.inject({"endpoint": "export", "status": 500})
        assert world.pull().export_id == world.api.exports()[0]["id"]
        (taken,) = world.exports()
        assert abs(taken["asked_at"] - made) < 1

    def test_a_cancel_leaves_the_export_and_the_next_run_goes_on(self, world: World) -> None:
        """Whoever stops a run while it waits, downloads or parses finds the same export finished by the next one."""
        world.api.configure(export_seconds=3)
        for phase in ("export running", "download", "parse", "load"):
            with pytest.raises(KeyboardInterrupt):
                world.pull(progress=interrupting(phase))
        report = world.pull()
        assert (report.outcome, len(world.api.exports()), len(world.exports())) == ("green", 1, 1)
        assert world.exports()[0]["state"] == "loaded"

    def test_an_export_that_takes_too_long_is_looked_at_by_the_next_run(self, world: World) -> None:
        """After six hours a run no longer waits; the same id is polled by the next, never a second one is made."""
        world.api.inject({"endpoint": "export", "becomes": "stuck"})
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("export running"))
        wait(6 * 3600 + 1)
        for _ in range(2):
            before = world.api.stats["requests"]
            report = world.pull()
            assert report.outcome == "incomplete"
            assert "still RUNNING after 6.0 hours" in report.reasons[0]
            assert world.api.stats["requests"] == before + 1
        world.api.clear_faults()
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 1

    def test_waiting_ends_by_itself(self, world: World) -> None:
        """A run that nobody stops gives up after six hours, having asked with growing pauses."""
        world.api.inject({"endpoint": "export", "becomes": "stuck"})
        start, before = time.time(), world.api.stats["requests"]
        assert world.pull().outcome == "incomplete"
        assert 6 * 3600 <= time.time() - start < 6 * 3600 + 120
        assert world.api.stats["requests"] - before < 800

    def test_full_asks_anew(self, world: World) -> None:
        """--full lets go of an export that is stuck, and of what was fetched of it."""
        world.api.inject({"endpoint": "export", "becomes": "stuck"})
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("export running"))
        assert world.pull(full=True).outcome == "green"
        assert [one["state"] for one in world.exports()] == ["failed", "loaded"]

    def test_attributes_of_yesterday_are_asked_for_anew(self, world: World) -> None:
        """An export that lay about for a day says what was, so a new one is asked for; its files are gone."""
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("load"))
        assert list((world.folder / ".connector" / "outbox").iterdir())
        wait(86_401)
        world.api.alter("c1", {"plan": "bronze"})
        assert world.pull().outcome == "green"
        assert loaded(world) == expected(world)
        assert len(world.api.exports()) == 2

    def test_events_of_yesterday_are_asked_for_anew(self, world: World) -> None:
        """An export of events that hangs for a day is let go of, and the window is asked for again."""
        world.export_sync("happened", export="events")
        events_of(world, ("c1", "e", datetime.fromtimestamp(time.time(), UTC) - timedelta(minutes=5), {}))
        world.api.inject({"endpoint": "export", "becomes": "stuck"})
        with pytest.raises(KeyboardInterrupt):
            world.pull("happened", progress=interrupting("export running"))
        wait(86_401)
        report = world.pull("happened")
        assert (report.outcome, report.inserted, len(world.api.exports())) == ("green", 1, 2)
        assert [one["state"] for one in world.exports("happened")] == ["failed", "loaded"]

    def test_files_of_a_sync_that_has_another_name_now(self, world: World) -> None:
        """Nobody goes on with its export: a day later any run of the state removes the lines that lie there in clear."""
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("load"))
        outbox = world.folder / ".connector" / "outbox"
        (left,) = outbox.iterdir()
        (world.folder / "syncs" / "profile_attributes.yaml").rename(world.folder / "syncs" / "people.yaml")
        assert world.pull("people").outcome == "green"
        assert list(outbox.iterdir()) == [left], "it could still be gone on with"
        wait(86_401)
        assert world.pull("people").outcome == "green"
        assert list(outbox.iterdir()) == []

    def test_another_question_is_asked_anew(self, world: World) -> None:
        """An open export of other attributes is not taken for the answer, and its files go at once."""
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("load"))
        world.export_sync(attributes="[plan]")
        world.api.inject({"endpoint": "export", "becomes": "error"})
        assert world.pull().outcome == "failed"
        assert list((world.folder / ".connector" / "outbox").iterdir()) == []

    def test_an_export_in_error(self, world: World) -> None:
        """Batch's failure is told, and the next run asks anew."""
        world.api.inject({"endpoint": "export", "becomes": "error"})
        report = world.pull()
        assert (report.outcome, report.exit_status) == ("failed", 1)
        assert report.error
        assert "could not make the export" in report.error["message"]
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 2

    def test_an_export_that_batch_never_made(self, world: World) -> None:
        """An accepted request without an export behind it fails, and the next run asks anew."""
        world.api.inject({"endpoint": "export", "apply": False})
        assert world.pull().outcome == "failed"
        assert world.pull().outcome == "green"

    @pytest.mark.parametrize("endpoint", ["export", "view", "download"])
    def test_refused_keys(self, world: World, endpoint: str) -> None:
        """A 401 ends the run at once; with good keys the same export is brought."""
        world.api.inject({"endpoint": endpoint, "status": 401})
        report = world.pull()
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "api")
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 1

    def test_a_refused_request(self, world: World) -> None:
        """A 400 is final: the sync is told to be mended."""
        world.api.inject({"endpoint": "export", "status": 400})
        report = world.pull()
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "export")
        assert "check the sync's attributes" in (report.error or {})["remedy"]

    @pytest.mark.parametrize("endpoint", ["export", "view", "download", "file"])
    @pytest.mark.parametrize("fault", [{"status": 429}, {"status": 503, "retry_after": 2}, {"status": 500}])
    def test_refusals_for_now_on_every_route(self, world: World, endpoint: str, fault: dict[str, Any]) -> None:
        """Each call is made again after a pause, and the export is asked for once."""
        world.api.inject({"endpoint": endpoint, "times": 2} | fault)
        start = time.time()
        assert world.pull().outcome == "green"
        assert time.time() - start >= 1
        assert len(world.api.exports()) == 1
        assert loaded(world) == expected(world)

    @pytest.mark.parametrize("endpoint", ["export", "view", "download", "file"])
    def test_an_outage(self, world: World, endpoint: str) -> None:
        """After `give_up_after` the run ends incomplete, and the next one goes on with the same export."""
        world.api.inject({"endpoint": endpoint, "status": 503, "retry_after": 1, "times": 1000})
        report = world.pull()
        assert (report.outcome, report.exit_status) == ("incomplete", 3)
        assert report.error is None
        world.api.clear_faults()
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 1


class TestFiles:
    """What is wrong with a file is told, and nothing of it lands."""

    FILLED = "select count(*), min(export_id) from batch.profile_attributes"

    @pytest.mark.parametrize(
        ("fault", "says", "settings"),
        [
            ({"endpoint": "file", "truncated": True}, "Batch said", {}),
            ({"endpoint": "file", "truncated": True}, "Batch said|cut", {"export_gzip": True}),
            ({"endpoint": "file", "corrupt": True}, "not whole", {"export_gzip": True}),
            ({"endpoint": "export", "becomes": "bomb"}, "unpacks to more than|longer than", {}),
            ({"endpoint": "export", "becomes": "garbage"}, "something else stands behind its end", {}),
            ({"endpoint": "export", "becomes": "missing_part"}, "parts 1, 3: one is missing", {}),
            ({"endpoint": "export", "becomes": "empty"}, "no rows", {}),
            ({"endpoint": "export", "lines": ["[" + "1," * 600_000 + "1]"]}, "longer than 1,000,000 bytes", {}),
            ({"endpoint": "download", "location": "http://example.org/f"}, "does not begin with https://", {}),
            ({"endpoint": "download", "location": "ftp://127.0.0.1/f"}, "does not begin with https://", {}),
            ({"endpoint": "download", "location": "https://10.1.2.3/f"}, "no public address", {}),
            ({"endpoint": "download", "location": "https://169.254.169.254/f"}, "no public address", {}),
            ({"endpoint": "download", "location": "https://[::ffff:10.0.0.1]/f"}, "no public address", {}),
            ({"endpoint": "download", "location": "https://u:p@192.168.0.1:8443/f"}, "no public address", {}),
            ({"endpoint": "download", "location": "https:///f"}, "no host", {}),
            ({"endpoint": "download", "location": f"https://{'a' * 70}.example.org/f"}, "is no URL", {}),
            ({"endpoint": "file", "status": 302, "location": "http://10.0.0.1/x"}, "does not begin with https://", {}),
            ({"endpoint": "file", "status": 302, "location": "?again", "times": 9}, "more than 3 times", {}),
        ],
    )  # fmt: skip
    def test_nothing_lands(self, world: World, fault: dict[str, Any], says: str, settings: dict[str, Any]) -> None:
        """Cut, altered, bombed, followed by something else, led astray: the table stays, and a new export is asked for."""
        world.pull()
        before = world.sql(self.FILLED)
        world.api.configure(**settings)
        world.api.inject(fault)
        report = world.pull()
        assert report.outcome == "failed"
        assert report.error
        assert report.error["code"] == "export"
        assert any(words in report.error["message"] for words in says.split("|")), report.error
        assert "profile_attributes" in report.error["message"]
        assert world.sql(self.FILLED) == before
        assert [one["state"] for one in world.exports()] == ["loaded", "failed"]

    def test_the_last_of_many_parts(self, world: World) -> None:
        """Nothing of five good parts lands where the sixth is cut."""
        world.pull()
        before = world.sql(self.FILLED)
        world.api.configure(part_lines=2, export_gzip=True)
        world.api.inject({"endpoint": "file", "truncated": True, "skip": 5})
        assert world.pull().outcome == "failed"
        assert world.sql(self.FILLED) == before

    @pytest.mark.parametrize(("write", "allowed"), [("replace", "true"), ("append", "false")])
    def test_an_empty_export_where_it_may_be_empty(self, world: World, write: str, allowed: str) -> None:
        """`allow_empty` lets nobody replace somebody; appending nobody is no loss."""
        world.pull()
        world.export_sync(attributes=ASKED, write=write, allow_empty=allowed)
        world.api.inject({"endpoint": "export", "becomes": "empty"})
        assert world.pull().outcome == "green"
        assert len(world.rows(TABLE)) == (0 if write == "replace" else PEOPLE)

    def test_no_events_are_no_error(self, world: World) -> None:
        """A window in which nothing happened leaves the table as it is."""
        world.export_sync("happened", export="events")
        events_of(world, ("c1", "e", datetime.now(UTC) - timedelta(minutes=5), {}))
        world.pull("happened")
        world.api.inject({"endpoint": "export", "becomes": "empty"})
        assert world.pull("happened").outcome == "green"
        assert len(world.rows("batch.happened")) == 1

    def test_a_byte_of_a_plain_file(self, world: World) -> None:
        """Without a checksum a broken byte costs its line: told, and the others land."""
        world.api.inject({"endpoint": "file", "corrupt": True})
        report = world.pull()
        assert (report.outcome, report.quarantined) == ("incomplete", 1)
        assert report.rows >= PEOPLE - 2

    def test_lines_that_are_no_rows(self, world: World) -> None:
        """They are counted, listed by their place without their content, and the others are loaded; then forgotten."""
        broken = ['{"broken":', "[1]", "null", f'"{CANARY}"', "", '{"identifiers":{"custom_id":"ok"}}', "\ud7ff{"]
        world.api.configure(part_lines=5)
        world.api.inject({"endpoint": "export", "lines": broken})
        report = world.pull()
        assert (report.outcome, report.exit_status, report.rows, report.quarantined) == ("incomplete", 3, PEOPLE + 1, 5)
        assert report.reasons == ("lines of the export that are no rows: 5; see: connector rejects profile_attributes",)
        listed = world.rejects("profile_attributes")
        assert {row["attribute"] for row in listed} == {f"file 1, line {n}" for n in (6, 7, 8, 9, 12)}
        assert {(row["reason"], row["source"]) for row in listed} == {("no JSON object", "invalid")}
        assert CANARY not in json.dumps(listed)
        assert world.pull().outcome == "green"
        assert world.rejects("profile_attributes") == []

    def test_an_event_without_an_id(self, world: World) -> None:
        """It could not be told from itself, so it is no row."""
        world.export_sync("happened", export="events")
        good = '{"event":{"id":"e1","name":"e","timestamp":"2026-01-01T00:00:00Z"},"identifiers":{}}'
        world.api.inject({"endpoint": "export", "lines": ['{"event":{"name":"x"}}', good, good]})
        report = world.pull("happened")
        assert (report.outcome, report.rows, report.quarantined, report.duplicates) == ("incomplete", 1, 1, 1)
        assert [row["reason"] for row in world.rejects("happened")] == ["no event id"]

    def test_lines_that_come_twice(self, world: World) -> None:
        """Of two lines of one profile the later counts, across parts too."""
        last = '{"identifiers":{"custom_id":"c1"},"attributes":{"plan":"last"}}'
        world.api.configure(part_lines=60)
        world.api.inject({"endpoint": "export", "lines": [last.replace("last", "first"), last]})
        report = world.pull()
        assert (report.outcome, report.rows, report.duplicates) == ("green", PEOPLE, 2)
        assert world.sql(f"select plan from {TABLE} where custom_id = 'c1'") == [("last",)]

    def test_a_part_that_is_listed_twice(self, world: World) -> None:
        """The same file named twice is one file."""
        world.api.configure(part_lines=5)
        world.api.inject({"endpoint": "export", "becomes": "repeated_part"})
        report = world.pull()
        assert (report.outcome, report.rows, report.files) == ("green", PEOPLE, 3)
        assert loaded(world) == expected(world)

    def test_hostile_names(self, world: World) -> None:
        """Batch's names of files are never names of ours."""
        world.api.configure(part_lines=3)
        world.api.inject({"endpoint": "export", "becomes": "renamed"})
        seen: set[str] = set()

        def look(phase: str, _done: int, _total: int | None) -> None:
            if phase == "load":
                (folder,) = (world.folder / ".connector" / "outbox").glob("#export-*")
                seen.update(path.name for path in folder.iterdir())

        assert world.pull(progress=look).outcome == "green"
        assert seen == {f"{n}{suffix}" for n in range(1, 5) for suffix in ("", ".parquet")}
        assert loaded(world) == expected(world)

    def test_a_link_that_is_no_longer_good(self, world: World) -> None:
        """A new link is asked for, as often as it needs to be within reason."""
        world.api.inject({"endpoint": "file", "expired": True, "times": 3})
        before = world.api.stats["downloads"]
        assert world.pull().outcome == "green"
        assert world.api.stats["downloads"] == before + 4

    def test_links_that_are_never_good(self, world: World) -> None:
        """A file that never comes ends the run incomplete; the export is kept for the next one."""
        world.api.inject({"endpoint": "file", "expired": True, "times": 1000})
        report = world.pull()
        assert report.outcome == "incomplete"
        assert "its link was no longer good" in report.reasons[0]
        world.api.clear_faults()
        assert world.pull().outcome == "green"
        assert len(world.api.exports()) == 1

    def test_a_file_larger_than_it_should_be(self, world: World) -> None:
        """More bytes than Batch said are not taken."""
        world.api.inject({"endpoint": "file", "body": "x" * 100_000})
        report = world.pull()
        assert "is larger than the" in (report.error or {})["message"]

    def test_files_that_are_here_are_not_fetched_again(self, world: World) -> None:
        """A run that goes on fetches only what is missing or was altered on this disk."""
        world.api.configure(part_lines=3)
        with pytest.raises(KeyboardInterrupt):
            world.pull(progress=interrupting("load"))
        (folder,) = (world.folder / ".connector" / "outbox").glob("#export-*")
        (folder / "2").unlink()
        (folder / "4").write_bytes(b"{}")
        before = world.api.stats["file_requests"]
        assert world.pull().outcome == "green"
        assert world.api.stats["file_requests"] == before + 2
        assert loaded(world) == expected(world)


class TestWarehouses:
    """What the table says."""

    def test_a_table_of_somebody_else(self, world: World) -> None:
        """A table that no export made is refused before Batch is asked, and stays."""
        world.sql("create schema batch")
        world.sql(f"create table {TABLE} as select 1 as custom_id, 'x' as note")
        report = world.pull()
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "warehouse")
        assert world.sql(f"select * from {TABLE}") == [(1, "x")]

    def test_a_load_that_fails_is_made_up_for(self, world: World) -> None:
        """An export whose load fails is kept, and loaded once the warehouse is mended."""
        world.pull()
        world.sql(f"alter table {TABLE} alter orders type integer")
        report = world.pull()
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "warehouse")
        world.sql(f"alter table {TABLE} alter orders type bigint")
        assert world.pull().outcome == "green"
        assert loaded(world) == expected(world)


@pytest.fixture
def served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    """200 delivered customers behind a port."""
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path / "project", export_seconds=0)
    world.sync(attributes=UNTYPED)
    world.sql(CUSTOMERS.replace("range(50)", "range(200)"))
    world.run()
    world.export_sync(attributes=ASKED)
    with serve(world.api) as server:
        world.configure(server.base_url, delivery="{timeout: 1s, give_up_after: 20s}")
        world.transport = None
        yield world
    check_discretion(world, logged(caplog))


def test_a_cut_download_goes_on_where_it_stopped(served: World) -> None:
    """The second half is asked for by range, and the bytes come once."""
    served.api.inject({"endpoint": "file", "cut": True})
    report = served.pull()
    assert report.outcome == "green"
    (file,) = served.api.exports()[0]["files"]
    assert served.api.stats["file_bytes"] == file["size"]
    assert served.api.stats["file_requests"] == 2
    assert loaded(served) == expected(served)


def test_a_file_that_changes_while_it_is_fetched(served: World) -> None:
    """What was fetched of the old content is thrown away; halves of two files never meet."""
    served.api.inject({"endpoint": "file", "cut": True}, {"endpoint": "file", "changed": True})
    assert served.pull().outcome == "green"
    assert loaded(served) == expected(served)


def test_an_answer_that_breaks_off(served: World) -> None:
    """A cut answer to the request for an export makes no second one."""
    served.api.inject({"endpoint": "export", "cut": True}, {"endpoint": "view", "cut": True})
    assert served.pull().outcome == "green"
    assert len(served.api.exports()) == 1
