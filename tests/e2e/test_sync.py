"""A profile sync end to end, in process: a DuckDB file, the YAML, the local Profile API, an independent comparison."""

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.config import load_project
from connector.sync import run_sync
from tests.world import PROJECT_KEY, REST_KEY, World

CUSTOMERS = """create table customers as select
    'c' || i as custom_id,
    'customer ' || i || case when i % 7 = 0 then ' "q" \\ é 😀' else '' end as name,
    case when i % 5 > 0 then 'user' || i || '@example.org' end as batch__email_address,
    i as orders,
    i / 7.0 as spend,
    (i * 1.25)::decimal(12, 2) as balance,
    i % 3 = 0 as vip,
    date '2020-01-01' + (i % 400)::int as date__since,
    timestamp '2026-01-01 10:00:00' + to_milliseconds(i * 37) as seen_at,
    'https://example.org/p/' || i as url__page,
    case when i % 4 > 0 then ['a', 'b' || i] else [] end as tags,
    [2000 + i % 20, 1990] as years,
    null::varchar as nothing
from range({rows}) as t(i)"""

AS_BATCH_HOLDS_IT = """select * exclude (batch__email_address, date__since, url__page),
    batch__email_address as "$email_address", date__since as since, url__page as page from customers"""

TYPES = {
    "name": "string", "orders": "integer", "spend": "float", "balance": "float", "vip": "boolean", "since": "date",
    "seen_at": "date", "page": "url", "tags": "array", "years": "array",
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "project")
    world.sync()
    world.sql(CUSTOMERS.format(rows=1500))
    return world


def test_api_holds_what_the_view_returns_row_by_row_and_type_by_type(world: World) -> None:
    """G1: after a green run every profile has each mapped attribute's value, in its type."""
    report = world.run()
    assert (report.outcome, report.added, report.accepted) == ("green", 1500, 1500)
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)
    for profile in world.api.profiles(limit=50):
        assert {name: typed["type"] for name, typed in profile["custom"].items()}.items() <= TYPES.items()


def test_second_run_sends_nothing_and_a_change_sends_only_itself(world: World) -> None:
    """Only the attributes that changed travel: 50 rows in 2 columns are 50 operations of 2 attributes."""
    world.run()
    world.sent()
    assert world.run().requests == 0
    world.sql("update customers set orders = orders + 1, name = name || '!' where orders % 30 = 0")
    plan = world.plan()
    assert {name: rows for name, rows in plan.by_attribute.items() if rows} == {"orders": 50, "name": 50}
    report = world.run()
    assert (report.changed, report.accepted, report.unchanged, report.requests) == (50, 50, 1450, 1)
    assert len(world.sent()) == 50
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)


def test_plan_says_what_the_run_then_does_and_changes_nothing(world: World) -> None:
    """A plan's counts are the run's, it makes no request, and it may be made twice."""
    plan = world.plan()
    assert world.api.requests == []
    assert world.plan().report.planned == plan.report.planned == 1500
    report = world.run()
    assert (plan.calls, plan.report.added, plan.bytes) == (report.requests, report.accepted, report.bytes)
    assert not list((world.folder / ".connector" / "outbox").iterdir())


def test_bad_value_stays_back_and_the_rest_of_its_row_goes(world: World) -> None:
    """A withheld value is listed with key, attribute and reason; once corrected it goes by itself."""
    world.sql("update customers set name = repeat('x', 301) where custom_id = 'c1'")
    world.sql("update customers set batch__email_address = 'nobody' where custom_id = 'c2'")
    world.sql("update customers set spend = 'nan' where custom_id = 'c3'")
    world.sql("update customers set url__page = 'page' where custom_id = 'c4'")
    world.sql("update customers set tags = range(26)::varchar[] where custom_id = 'c5'")
    report = world.run()
    assert (report.outcome, report.withheld, report.accepted, report.invalid) == ("green", 5, 1500, 0)
    listed = {(reject["key"], reject["attribute"]) for reject in world.rejects()}
    assert listed == {("c1", "name"), ("c2", "$email_address"), ("c3", "spend"), ("c4", "page"), ("c5", "tags")}
    assert all(reject["source"] == "invalid" and reject["reason"] for reject in world.rejects())
    held = world.held()
    assert "spend" not in held["c3"]
    assert held["c3"]["orders"] == 3
    world.sql("update customers set name = 'ok', batch__email_address = null, spend = 1, tags = ['a']")
    world.sql("update customers set url__page = 'https://example.org'")
    world.sent()
    assert world.run(allow_mass_change="test").withheld == 0
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)
    assert world.rejects() == []
    world.sent()
    assert world.run().requests == 0


def test_too_many_bad_values_are_not_green(world: World) -> None:
    """G11: above the tolerance a run is incomplete and says why, though all that could go went."""
    world.sql("update customers set spend = 'inf' where orders < 16")
    report = world.run()
    assert (report.outcome, report.exit_status, report.withheld, report.unsent) == ("incomplete", 3, 16, 0)
    assert "tolerance.invalid" in report.reasons[0]
    world.sync(tolerance="{invalid: 2%}")
    assert world.run().outcome == "green"


def test_bad_keys_and_duplicates_are_invalid_and_the_others_go(world: World) -> None:
    """A null, reserved, blank or repeated key makes its rows invalid, whatever the other rows are."""
    world.run()
    for key in ("null", "'undefined'", "' '", "'twice'", "'twice'", "'c7'"):
        world.sql(f"insert into customers (custom_id, orders) values ({key}, 9)")
    report = world.run()
    assert (report.read, report.invalid, report.unchanged, report.added) == (1506, 7, 1499, 0)
    assert {reject["key"] for reject in world.rejects()} == {None, "undefined", " ", "twice", "c7"}
    assert world.held()["c7"]["orders"] == 7
    world.sync(dedupe="error")
    report = world.run()
    assert report.outcome == "failed"
    assert "found more than once: 2" in report.reasons[0]


def test_latest_row_of_a_key_wins_by_the_cursor(world: World) -> None:
    """`dedupe: latest` takes the row with the highest cursor; rows that tie stay invalid."""
    world.sync(cursor="seen_at", dedupe="latest", attributes="{orders: orders}")
    world.sql("insert into customers (custom_id, orders, seen_at) values ('c1', 77, timestamp '2026-02-01')")
    world.sql(
        "insert into customers (custom_id, orders, seen_at) select custom_id, 5, seen_at from customers where custom_id = 'c2'"
    )
    report = world.run()
    assert (report.added, report.invalid) == (1499, 2)
    assert world.held()["c1"] == {"orders": 77}
    assert "c2" not in world.held()


def test_faults_of_the_api_end_in_the_state_of_the_view(world: World) -> None:
    """G2: partial errors, 429, 500 after applying, a cut answer: nothing is lost, and the counts add up."""
    world.api.inject(
        {"partial": [{"custom_id": "c7", "attribute": "orders", "reason": "no"}, {"custom_id": "c8", "reason": "no"}]},
        {"status": 429, "times": 2}, {"status": 500, "apply": True}, {"status": 503, "retry_after": 1}, {"cut": True},
    )  # fmt: skip
    report = world.run()
    assert report.rejected == 2
    assert report.throttled == 2
    assert report.retries >= 3
    assert {(reject["key"], reject["attribute"]) for reject in world.rejects()} == {("c7", "orders"), ("c8", None)}
    assert world.run().rejected == 0
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)
    assert world.rejects() == []
    assert world.run().requests == 0


def test_time_out_after_accepting_is_sent_again_and_once_more_after_the_quiet_time(world: World) -> None:
    """An unknown outcome is retried, and the key is due once more when a late write can no longer land."""
    world.configure(delivery="{timeout: 300ms, quiet: 2s, give_up_after: 20s}")
    world.sync(attributes="{orders: orders}")
    world.run()
    world.sql("update customers set orders = orders + 1 where custom_id in ('c1', 'c2')")
    world.sent()
    world.api.inject({"apply": True, "delay": 2})
    report = world.run()
    assert (report.outcome, report.accepted, report.retries) == ("green", 2, 1)
    assert world.sent() == ["c1", "c2"] * 2
    assert world.run().requests == 0  # waiting
    time.sleep(2.1)
    assert (world.run().retried, sorted(world.sent())) == (2, ["c1", "c2"])
    assert world.run().requests == 0


def test_value_that_reverts_after_an_unknown_outcome_is_sent_again(world: World) -> None:
    """The revert trap: snapshot and warehouse agree again, but Batch may hold the other value."""
    world.configure(delivery="{timeout: 200ms, give_up_after: 500ms, quiet: 1s}")
    world.sync(attributes="{orders: orders}")
    world.run()
    world.sql("update customers set orders = 1000 where custom_id = 'c1'")
    world.api.inject({"apply": True, "delay": 1, "times": 50})
    report = world.run()
    assert (report.outcome, report.unsent) == ("incomplete", 1)
    assert world.held()["c1"]["orders"] == 1000
    world.api.clear_faults()
    world.sql("update customers set orders = 1 where custom_id = 'c1'")
    assert world.run().planned == 1
    assert world.held()["c1"]["orders"] == 1


def test_partly_refused_row_is_due_in_what_was_refused_only(world: World) -> None:
    """An attribute refused inside a 202 stays due with today's value; the accepted ones are not sent again."""
    world.run()
    world.sql("update customers set orders = 500, name = 'new' where custom_id = 'c9'")
    world.api.inject({"partial": [{"custom_id": "c9", "attribute": "orders", "reason": "no"}]})
    assert world.run().rejected == 1
    world.sql("update customers set orders = 9 where custom_id = 'c9'")  # back to what the snapshot said
    plan = world.plan()
    assert {name for name, rows in plan.by_attribute.items() if rows} == {"orders"}
    assert world.run().accepted == 1
    assert world.run().requests == 0


def test_poisoned_row_is_found_by_halving_and_the_others_go(world: World) -> None:
    """A 400 for one row in 200 costs a few calls, rejects that row alone and names it."""
    world.api.inject({"status": 400, "match": {"custom_id": "c123"}, "times": 99})
    report = world.run()
    assert (report.accepted, report.rejected, report.unsent) == (1499, 1, 0)
    assert report.requests <= 8 + 2 * 8
    assert [(reject["key"], reject["attribute"], reject["source"]) for reject in world.rejects()] == [
        ("c123", None, "rejected")
    ]


def test_refused_key_stops_the_run_and_loses_nothing(world: World) -> None:
    """401 ends the run at once with one sentence; corrected, the next run sends everything."""
    world.api.inject({"status": 401, "times": 99})
    report = world.run()
    assert (report.outcome, report.exit_status, report.accepted, report.unsent) == ("failed", 1, 0, 1500)
    assert report.requests <= 8
    assert report.error
    assert "401" in report.error["message"]
    assert "rest_key" in report.error["remedy"]
    world.api.clear_faults()
    assert world.run().accepted == 1500


def test_everything_refused_with_400_is_not_blamed_on_the_rows(world: World) -> None:
    """When each row alone is refused it is the request that is wrong: the run stops instead of rejecting everybody."""
    world.api.inject({"status": 400, "times": 10_000})
    report = world.run()
    assert (report.outcome, report.rejected) == ("failed", 0)
    assert report.requests < 1200


def test_answers_that_cannot_be_trusted_end_the_run_incomplete(world: World) -> None:
    """A captive portal's 202 with HTML counts as unknown: nothing is believed, everything stays due."""
    world.api.inject({"status": 202, "body": "<html>", "content_type": "text/html", "times": 99})
    report = world.run()
    assert (report.outcome, report.accepted, report.unsent) == ("incomplete", 0, 1500)
    world.api.clear_faults()
    assert world.run().accepted == 1500
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)


def test_outage_ends_incomplete_and_the_next_run_goes_on(world: World) -> None:
    """After `give_up_after` without a success the run ends with exit 3; what was accepted is not sent again."""
    world.configure(delivery="{give_up_after: 1s, in_flight: 1}")
    world.api.inject({"status": 503, "skip": 3, "times": 10_000})
    report = world.run()
    assert (report.outcome, report.exit_status, report.accepted, report.unsent) == ("incomplete", 3, 600, 900)
    world.api.clear_faults()
    world.sent()
    report = world.run()
    assert (report.outcome, report.planned, report.unchanged) == ("green", 900, 600)
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)


def test_retry_after_holds_all_senders(world: World) -> None:
    """A 429 with Retry-After: for that long no call leaves, from any sender; those under way cannot be called back."""
    world.configure(delivery="{in_flight: 8, give_up_after: 20s}")
    world.api.inject({"status": 429, "retry_after": 2})
    world.run()
    times = [request.at for request in world.api.requests]
    first = next(request.at for request in world.api.requests if request.status == 429)
    assert len([at for at in times if first < at < first + 1.9]) < 8
    assert max(times) > first + 1.9


def test_documented_bucket_is_never_overrun(tmp_path: Path) -> None:
    """G10: with the documented limits of both endpoints the strict local API never answers 429, across runs."""
    from connector.simulator import Rate  # noqa: PLC0415

    world = World(tmp_path / "p", update_rate=Rate(300, 1000), mass_update_rate=Rate(10_000, 10_000))
    world.configure(limits="{}", delivery="{}")
    world.sync(endpoint="mass_update", attributes="{orders: orders}")
    world.sql("create table customers as select i as custom_id, i as orders from range(20000) as t(i)")
    assert (world.run().throttled, world.run(resend=True, limit=5000).throttled) == (0, 0)
    world.sync(endpoint="update", attributes="{orders: orders}")
    for limit in (400, 200, 600):
        assert world.run(resend=True, limit=limit).throttled == 0
    assert world.api.stats["throttled"] == 0


def test_cursor_reads_what_is_new_and_what_is_due(world: World) -> None:
    """With a cursor only new rows are read, and the keys that are due again, with today's value."""
    world.sql("alter table customers add column updated_at timestamptz")
    world.sql("update customers set updated_at = now() - interval 3 hour")
    world.sync(cursor="{column: updated_at, overlap: 1m}")
    assert world.run().read == 1500
    assert world.run().read == 0
    world.sql("update customers set orders = 5000, updated_at = now() where custom_id in ('c10', 'c11')")
    world.api.inject({"partial": [{"custom_id": "c11", "reason": "no"}]})
    report = world.run()
    assert (report.full, report.read, report.changed, report.rejected) == (False, 2, 2, 1)
    world.sql("update customers set orders = 6000, updated_at = now() - interval 2 hour where custom_id = 'c11'")
    report = world.run()
    assert (report.read, report.changed + report.retried, report.accepted) == (2, 1, 1)
    assert world.held()["c11"]["orders"] == 6000
    assert world.run().read == 1  # c10, still within the overlap
    world.sql("update customers set orders = 1 where custom_id = 'c12'")
    assert world.run(full=True).changed == 1


def test_cursor_does_not_move_past_rows_that_were_not_sent(world: World) -> None:
    """Rows left out by a limit or an outage come again at the next incremental run."""
    world.sql("alter table customers add column updated_at timestamptz")
    world.sql("update customers set updated_at = now() - interval 1 hour")
    world.sync(cursor="{column: updated_at, overlap: 0s}")
    world.run()
    world.sql("update customers set orders = 7777, updated_at = now() where orders < 100")
    time.sleep(0.01)
    first = world.run(limit=30)
    assert (first.planned, first.skipped) == (30, 70)
    second = world.run()
    assert (second.full, second.changed) == (False, 70)
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT.replace("exclude (", "exclude (updated_at, "))


def test_full_read_finds_what_the_cursor_hides(world: World) -> None:
    """Every `full_read_every` the whole source is read: late rows and removed ones are seen."""
    world.sql("alter table customers add column updated_at timestamptz")
    world.sql("update customers set updated_at = now() - interval 1 day")
    world.sync(cursor="updated_at", full_read_every="2s", on_removed="clear", guard="{max_removed: 50%}")
    world.run()
    world.sql("update customers set orders = 1 where custom_id = 'c20'")
    world.sql("delete from customers where custom_id = 'c21'")
    assert world.run().read == 0
    time.sleep(2)
    report = world.run()
    assert (report.full, report.changed, report.removed) == (True, 1, 1)
    assert world.held()["c21"] == {}


def test_new_column_sends_itself_where_it_has_values_and_a_removed_one_nothing(world: World) -> None:
    """A newly mapped column is the only attribute that travels, and its nulls do not; unmapping sends nothing."""
    world.sync(attributes="{orders: orders}")
    world.run()
    world.sync(attributes="{orders: orders, email: {column: batch__email_address}}", guard="{max_changed: 100%}")
    plan = world.plan()
    assert plan.by_attribute == {"orders": 0, "email": 1200}
    assert world.run().changed == 1200
    world.sync(attributes="{email: {column: batch__email_address}}")
    assert world.run().requests == 0
    assert world.run().unchanged == 1500


def test_changed_type_sends_the_column_again(world: World) -> None:
    """An attribute that changes its type is due for every row that has a value."""
    world.sync(attributes="{orders: orders, name: name}", guard="{max_changed: 100%}")
    world.run()
    world.sync(attributes="{orders: {column: orders, type: float}, name: name}", guard="{max_changed: 100%}")
    assert world.plan().by_attribute == {"orders": 1500, "name": 0}
    world.run()
    assert world.api.profile("c5")["custom"]["orders"] == {"type": "float", "value": 5.0}


def test_null_clears_or_keeps_as_the_mapping_says(world: World) -> None:
    """`on_null: clear` sends the null, `keep` leaves what Batch holds; an empty text counts as null."""
    world.sync(attributes="{name: name, page: {column: url__page, type: url, on_null: keep}}")
    world.run()
    world.sql("update customers set name = '', url__page = null where custom_id = 'c1'")
    assert world.run().changed == 1
    assert world.held()["c1"] == {"page": "https://example.org/p/1"}
    assert world.run().requests == 0


def test_guards_stop_before_the_first_request(world: World) -> None:
    """G12: a mass change, a mass removal or an empty source stops the run; a reason lifts the guard once."""
    world.sync(on_removed="clear")
    world.run()
    world.sent()
    world.sql("update customers set orders = orders + 1 where orders < 751")
    report = world.run()
    assert (report.outcome, report.exit_status, report.planned, report.unsent) == ("guarded", 4, 751, 751)
    assert world.plan().report.outcome == "guarded"
    assert list((world.folder / ".connector" / "outbox").iterdir()) == []
    assert world.run(allow_mass_change="new pricing").outcome == "green"
    world.sent()
    world.sql("delete from customers where orders > 1300")
    assert "max_removed" in world.run().reasons[0]
    world.sql("delete from customers")
    assert "min_rows" in world.run().reasons[0]
    assert world.sent() == []


def test_exactly_half_changed_is_not_guarded(world: World) -> None:
    """A guard refuses above its limit, not at it."""
    world.run()
    world.sql("update customers set orders = orders + 1 where orders < 750")
    assert world.run().outcome == "green"


def test_removed_rows_are_cleared_once(world: World) -> None:
    """`on_removed: clear` nulls every mapped attribute; a row that comes back is sent whole."""
    world.sync(on_removed="clear")
    world.run()
    world.sql("create table kept as select * from customers where custom_id = 'c30'")
    world.sql("delete from customers where custom_id = 'c30'")
    report = world.run()
    assert (report.removed, report.planned, report.accepted, report.unchanged) == (1, 1, 1, 1499)
    assert world.held()["c30"] == {}
    assert world.run().requests == 0
    world.sql("insert into customers select * from kept")
    assert world.run().added == 1
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)


def test_limit_and_keys_choose_rows_and_leave_the_others_due(world: World) -> None:
    """--limit plans at most so many rows, --key only those; the rest is skipped and goes later."""
    report = world.run(limit=100)
    assert (report.planned, report.skipped, report.read) == (100, 1400, 1500)
    report = world.run(keys=("c1400", "c1401"))
    assert (report.read, report.accepted) == (2, 2)
    assert world.run().accepted == 1398
    assert world.held() == world.wanted(AS_BATCH_HOLDS_IT)
    report = world.run(resend=True, keys=("c1",))
    assert (report.retried, report.accepted) == (1, 1)


def test_state_of_another_project_is_refused(world: World) -> None:
    """A state folder is bound to its Batch project: with another key nothing is read or sent."""
    world.run()
    (world.folder / "project_key").write_text("project_other")
    report = run_sync(load_project(world.folder), "customers")
    assert (report.outcome, report.exit_status) == ("failed", 1)
    assert "another Batch project" in report.reasons[0]


def test_altered_snapshot_is_refused_with_the_ways_out(world: World) -> None:
    """One flipped bit in a snapshot file stops the run before it reads, with what to do."""
    world.run()
    file = next((world.folder / ".connector" / "snapshots" / "customers").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    report = world.run()
    assert report.outcome == "failed"
    assert "checksum" in report.reasons[0]
    file.unlink()
    assert "missing" in world.run().reasons[0]


def test_no_value_key_or_secret_reaches_a_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """G14: logs and reports hold no attribute value, no custom ID and no secret, also when things go wrong."""
    caplog.set_level(logging.DEBUG)
    world.sql(
        "update customers set name = 'canary-value', spend = 'nan', batch__email_address = 'canary@' where orders < 50"
    )
    world.sql("update customers set custom_id = 'canary-key' where custom_id = 'c60'")
    world.api.inject(
        {"partial": [{"custom_id": "canary-key", "reason": "canary-value is bad"}]}, {"status": 500}, {"cut": True}
    )
    report = world.run()
    text = caplog.text + json.dumps(report.to_dict())
    for secret in ("canary-value", "canary@", "canary-key", REST_KEY, PROJECT_KEY):
        assert secret not in text


def test_state_files_are_for_their_owner_alone_and_hold_no_values(world: World) -> None:
    """Nothing of an attribute lies on disk after a run, and nobody else may read the state."""
    world.sql("update customers set name = 'canary-value-on-disk'")
    world.run()
    state = world.folder / ".connector"
    for path in state.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert not path.is_file() or b"canary-value-on-disk" not in path.read_bytes(), path


def test_cursor_window_follows_the_warehouse_clock_and_lag(world: World) -> None:
    """Rows younger than the lag wait for the next run."""
    world.sql("alter table customers add column updated_at timestamp")
    world.sql("update customers set updated_at = timestamp '2026-01-01'")
    world.sync(cursor="{column: updated_at, overlap: 0s, lag: 1h}")
    world.run()
    recent = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=10)
    world.sql("update customers set orders = 1, updated_at = ? where custom_id = 'c40'", recent)
    assert world.run().read == 0
