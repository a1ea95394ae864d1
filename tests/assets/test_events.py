"""How the runs of an event sync look in Dagster: by the cursor, by partition, in a backfill, and with events held."""

import time
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest

from tests.assets.conftest import EVENTS, EVENTS_STEP, House, checks, failure, logged, metadata

FIRST = date(2026, 3, 1)
DAYS = [(FIRST + timedelta(days=day)).isoformat() for day in range(30)]
A_DAY = 4
ALL = A_DAY * len(DAYS)

ALL_GOOD = {"delivery": True, "rejected_share": True, "guard": True}


@pytest.fixture
def shop(house: House) -> House:
    """A project with 30 days of orders, all too old to be sent as they are."""
    house.order(FIRST, len(DAYS), A_DAY)
    return house


def by_partition(result: dg.ExecuteInProcessResult) -> dict[str | None, dict[str, Any]]:
    """Each materialization's metadata."""
    found = result.asset_materializations_for_node(EVENTS_STEP)
    return {event.partition: {name: value.value for name, value in event.metadata.items()} for event in found}


def test_a_run_without_a_partition_sends_what_is_new(shop: House) -> None:
    """As scheduled: all that was not sent, whatever its day, as one materialization; the row count is what was sent."""
    result = shop.run("orders")
    found = metadata(result, EVENTS_STEP)
    assert list(by_partition(result)) == [None]
    assert (found["read"], found["planned"], found["accepted"], found["dagster/row_count"]) == (ALL, ALL, ALL, ALL)
    assert not found.keys() & {"window_total", "window_closes", "hours_left"}
    assert checks(result) == ALL_GOOD
    assert len(shop.simulator.events()) == ALL
    again = metadata(shop.run("orders"), EVENTS_STEP)
    assert (again["read"], again["already_sent"], again["accepted"], again["dagster/row_count"]) == (ALL, ALL, 0, 0)


def test_a_partition_sends_its_day_alone(shop: House) -> None:
    """A day is half-open: its first instant belongs to it, the next day's does not."""
    result = shop.run("orders", [DAYS[3]])
    assert list(by_partition(result)) == [DAYS[3]]
    assert metadata(result, EVENTS_STEP)["accepted"] == A_DAY
    assert "window_total" not in metadata(result, EVENTS_STEP)
    sent = {event["attributes"]["occurred_at"] for event in shop.simulator.events()}
    assert {moment[:10] for moment in sent} == {DAYS[3]}


def test_a_backfill_is_one_read_of_all_its_days_and_says_whose_counts_it_shows(shop: House) -> None:
    """Every partition is materialized, with the counts of the whole window, marked as such."""
    result = shop.run("orders", DAYS[10:15])
    found = by_partition(result)
    assert sorted(str(day) for day in found) == DAYS[10:15]
    assert {(entry["accepted"], entry["window_total"]) for entry in found.values()} == {(5 * A_DAY, True)}
    assert len(shop.simulator.events()) == 5 * A_DAY


def test_a_backfill_of_thirty_sent_days_sends_nothing(shop: House) -> None:
    """Whatever was sent, by cursor or partition, is not sent again by a backfill: no request leaves."""
    shop.run("orders")
    requests = len(shop.simulator.requests)
    found = by_partition(shop.run("orders", DAYS))
    assert len(found) == 30
    assert {(entry["already_sent"], entry["planned"]) for entry in found.values()} == {(ALL, 0)}
    assert len(shop.simulator.requests) == requests


@pytest.mark.parametrize(("days", "partition", "rows"), [(DAYS[:1], DAYS[0], A_DAY), (DAYS, None, ALL)])
def test_a_dry_run_of_partitions_observes_and_sends_nothing(
    shop: House, days: list[str], partition: str | None, rows: int
) -> None:
    """A plan of a day is that day's observation, of several the asset's; nothing is materialized."""
    result = shop.run("orders", days, dry_run=True)
    (event,) = result.asset_observations_for_node(EVENTS_STEP)
    assert (event.partition, event.metadata["planned"].value) == (partition, rows)
    assert ("window_total" in event.metadata) == (len(days) > 1)
    assert result.success
    assert not by_partition(result)
    assert not shop.simulator.requests


def test_options_go_along_with_a_partition(shop: House) -> None:
    """A limit holds within the window, and the rest of the day stays due."""
    assert metadata(shop.run("orders", [DAYS[0]], limit=1), EVENTS_STEP)["skipped"] == A_DAY - 1
    assert metadata(shop.run("orders", [DAYS[0]]), EVENTS_STEP)["accepted"] == A_DAY - 1


def test_held_events_fail_delivery_until_they_are_sent(shop: House) -> None:
    """Events in doubt wait: the check fails with their count, later runs too, and `retry_held` sends them."""
    shop.simulator.inject({"status": 500, "match": {"custom_id": "c1"}})
    result = shop.run("orders")
    held = metadata(result, EVENTS_STEP)["held"]
    assert held > 0
    assert checks(result) == {**ALL_GOOD, "delivery": False}
    (check,) = (found for found in result.get_asset_check_evaluations() if found.check_name == "delivery")
    assert (check.metadata["held"].value, check.metadata["undecided"].value) == (held, held)
    assert "retry_held" in failure(result).description
    assert metadata(shop.run("orders"), EVENTS_STEP)["undecided"] == held
    decided = shop.run("orders", retry_held=True)
    assert checks(decided) == ALL_GOOD
    assert metadata(decided, EVENTS_STEP)["accepted"] == held
    assert metadata(decided, EVENTS_STEP)["undecided"] == 0


def test_discarded_events_are_never_sent(shop: House) -> None:
    """`discard_held` lets held events go: they count as expired, and the sync is green again."""
    shop.simulator.inject({"status": 500, "match": {"custom_id": "c1"}})
    held = metadata(shop.run("orders"), EVENTS_STEP)["held"]
    found = metadata(shop.run("orders", discard_held=True), EVENTS_STEP)
    assert (found["expired"], found["undecided"], found["outcome"]) == (held, 0, "green")
    assert metadata(shop.run("orders"), EVENTS_STEP)["planned"] == 0
    assert len(shop.simulator.events()) == ALL - held


def test_both_decisions_at_once_are_refused(shop: House) -> None:
    """Held events cannot be sent and let go: the run fails as a mistake in usage."""
    result = shop.run("orders", retry_held=True, discard_held=True)
    assert failure(result).metadata["code"].value == "usage"
    assert not shop.simulator.requests


def test_the_time_that_is_left_is_in_the_metadata(shop: House) -> None:
    """Where an event of the last hours is in doubt, it shows until when Batch takes it, and in how many hours."""
    shop.sql("update marts.orders set ordered_at = now()::timestamp - interval 2 hour where custom_id = 'c1'")
    shop.simulator.inject({"status": 500, "match": {"custom_id": "c1"}})
    found = metadata(shop.run("orders"), EVENTS_STEP)
    assert found["hours_left"] == pytest.approx(22, abs=0.05)
    assert found["window_closes"] - time.time() == pytest.approx(22 * 3600, abs=180)


def test_events_that_were_sent_and_look_new_stop_at_the_guard(shop: House) -> None:
    """Without its id every event would have another identity: the check `guard` fails before a request."""
    shop.run("orders")
    requests = len(shop.simulator.requests)
    shop.write("syncs/orders.yaml", EVENTS.replace("id: order_id\n", ""))
    result = shop.run("orders")
    assert checks(result) == {"delivery": False, "rejected_share": True, "guard": False}
    assert failure(result).metadata["outcome"].value == "guarded"
    assert not by_partition(result)
    assert len(shop.simulator.requests) == requests


def test_a_partitioned_run_beside_a_profile_sync_leaves_that_one_whole(shop: House) -> None:
    """A partition that a run has for the sake of another asset is no window of profiles."""
    assert metadata(shop.run("customers", DAYS[:2]))["accepted"] == 40


def test_no_event_id_and_no_value_reaches_the_event_log(shop: House) -> None:
    """Metadata, checks, log lines and failures hold no id of an event and no custom id."""
    shop.simulator.inject({"status": 500, "match": {"custom_id": "c1"}})
    kept = "".join(logged(shop.instance, shop.run("orders", DAYS, dry_run=dry).run_id) for dry in (True, False))
    assert "undecided" in kept
    assert not [text for text in ("canary", '"c1"', "'c1'") if text in kept]
