"""Real processes that send events: killed, told to stop, and beside a profile sync of the same customers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connector.simulator import Served, serve
from connector.state import runs
from connector.state.database import State, open_state
from connector.state.lease import hold
from connector.turn import TURN
from tests.world import PROJECT_KEY, World

EVENTS, CUSTOMERS, IN_FLIGHT = 20_000, 6_000, 4

ORDERS = f"""create table orders as select
    'c' || (i % {CUSTOMERS}) as custom_id, i as order_id, i * 1.5 as amount, {{sku: 's' || i, price: i / 4.0}} as item,
    now()::timestamp - to_seconds(60 + (i * 7919) % 80000) as ordered_at
    from range({EVENTS}) as t(i)"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[World, Served]]:
    world = World(tmp_path / "project")
    world.sql(ORDERS)
    world.events_sync(attributes="{amount: amount, item: item}")
    with serve(world.api) as server:
        world.configure(base_url=server.base_url, delivery=f"{{in_flight: {IN_FLIGHT}, give_up_after: 20s, quiet: 1s}}")
        yield world, server


def start(world: World, sync: str = "orders", *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "connector", "--project", str(world.folder), "run", sync, "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finished(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=60)
    assert out, err
    return process.returncode, json.loads(out)


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def killed(world: World) -> None:
    """A run killed in the middle of its events, while calls are in flight; then the API is fast again."""
    world.api.inject({"delay": 0.2, "apply": True, "share": 1.0})
    process = start(world)
    wait_until(lambda: world.api.stats["events"] >= EVENTS // 3, "the run sends nothing")
    process.kill()
    process.communicate()
    time.sleep(0.3)  # requests that the server still works on
    world.api.clear_faults()


def in_order(world: World) -> bool:
    """Whether each profile's events were applied in the order of their times, copies apart."""
    latest: dict[str, str] = {}
    seen: set[str] = set()
    for event in world.api.events():
        id_, key, at = event["attributes"]["event_id"], event["custom_id"], event["time"]
        if id_ not in seen and at < latest.get(key, ""):
            return False
        seen.add(id_)
        latest[key] = max(at, latest.get(key, ""))
    return True


def largest_calls(world: World, calls: int) -> int:
    """Events of the largest calls so far."""
    return sum(sorted((request.events for request in world.api.requests), reverse=True)[:calls])


def test_kill_under_hold_sends_nothing_twice_and_lists_what_was_in_flight(served: tuple[World, Served]) -> None:
    """G3, G4, G9: after kill -9 the rest goes, what was in flight waits for a decision, and goes on the operator's word."""
    world, _ = served
    killed(world)
    before = world.event_ids()
    assert EVENTS // 3 <= len(before) < EVENTS
    in_flight = largest_calls(world, IN_FLIGHT)
    status, report = finished(start(world))
    assert (status, report["outcome"]) == (3, "incomplete")
    assert set(world.event_ids().values()) == {1}, "nothing twice"
    held = {entry["id"] for entry in world.listed() if entry["state"] == "held"}
    assert 0 < len(held) == report["held"] <= in_flight
    assert set(world.event_ids()) | held == {str(number) for number in range(EVENTS)}, "nothing lost"
    assert report["accepted"] == EVENTS - len(held) - report["already_sent"]
    status, report = finished(start(world, "orders", "--retry-held"))
    assert (status, report["outcome"], report["accepted"]) == (0, "green", len(held))
    after = world.event_ids()
    assert set(after) == {str(number) for number in range(EVENTS)}
    assert {event for event, times in after.items() if times > 1} <= held
    assert max(after.values()) <= 2
    assert world.listed() == []
    assert in_order(world)


def test_kill_under_resend_repeats_only_what_was_in_flight(served: tuple[World, Served]) -> None:
    """G3, G4: after kill -9 the next run sends all that was not acknowledged; copies are those of calls in flight."""
    world, _ = served
    world.events_sync(attributes="{amount: amount, item: item}", on_unknown="resend")
    killed(world)
    in_flight = largest_calls(world, IN_FLIGHT)
    status, report = finished(start(world))
    assert (status, report["outcome"], report["held"]) == (0, "green", 0)
    times = world.event_ids()
    assert set(times) == {str(number) for number in range(EVENTS)}
    twice = {event for event, count in times.items() if count > 1}
    assert 0 < len(twice) <= in_flight
    assert max(times.values()) == 2
    assert report["already_sent"] == EVENTS - report["accepted"]
    assert in_order(world)
    assert finished(start(world))[1]["requests"] == 0


def test_sigterm_settles_the_events_in_flight_and_nothing_is_in_doubt(served: tuple[World, Served]) -> None:
    """The first SIGTERM stops taking chunks and waits for the answers: exit 143, nothing held, nothing sent twice."""
    world, _ = served
    world.api.inject({"delay": 0.1, "apply": True, "share": 1.0})
    process = start(world)
    wait_until(lambda: world.api.stats["events"] >= EVENTS // 4, "the run sends nothing")
    process.send_signal(signal.SIGTERM)
    status, report = finished(process)
    assert (status, report["error"]["code"], report["held"]) == (143, "cancelled", 0)
    assert 0 < report["accepted"] == len(world.event_ids()) < EVENTS
    assert report["accepted"] + report["unsent"] == report["planned"] == EVENTS
    world.api.clear_faults()
    status, report = finished(start(world))
    assert (status, report["outcome"]) == (0, "green")
    assert set(world.event_ids().values()) == {1}
    assert len(world.event_ids()) == EVENTS
    assert world.api.stats["event_overtakes"] == 0


def both_ready(state: State) -> bool:
    return all(runs.open_syncs(state, kind) for kind in ("profiles", "events"))


def test_attributes_and_events_of_a_profile_never_travel_at_once(served: tuple[World, Served]) -> None:
    """G6: two processes with the same customers; both ready, all attributes are applied before the first event leaves."""
    world, _ = served
    world.sql("delete from orders where order_id >= 3000")
    world.sql("create table customers as select distinct on (custom_id) custom_id, amount as spent from orders")
    world.sync("customers", attributes="{spent: spent}", endpoint="update")
    world.api.inject({"delay": 0.1, "apply": True, "share": 1.0})
    with open_state(world.folder / ".connector", PROJECT_KEY) as state:
        with hold(state, TURN, "test-1"):  # nobody sends until both have something to send
            processes = {sync: start(world, sync) for sync in ("orders", "customers")}
            wait_until(lambda: both_ready(state), "the runs do not come to their sending")
            assert world.api.requests == []
        ended = {sync: finished(process) for sync, process in processes.items()}
    assert {sync: status for sync, (status, _) in ended.items()} == {"orders": 0, "customers": 0}
    requests = world.api.requests
    kinds = "".join("e" if request.events else "a" for request in requests)
    assert kinds == "a" * 15 + "e" * 15, "attributes first"
    both = Counter(custom_id for request in requests for custom_id in request.custom_ids)
    assert set(both.values()) == {2}
    assert world.api.stats["overlapping"] == 0
