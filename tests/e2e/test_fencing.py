"""A run that was frozen, taken for dead and replaced, and then goes on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connector.simulator import serve
from connector.state import runs
from connector.state.database import LEASES, SNAPSHOTS
from tests.e2e.forks import Fork
from tests.states import Home
from tests.world import World

ROWS = 40
SLOW = {"delay": 0.2, "apply": True, "share": 1.0}


@pytest.fixture
def world(tmp_path: Path, home: Home) -> Iterator[World]:
    made = World(tmp_path / "project", server=home.server)
    made.sql(f"create table customers as select 'c' || i as custom_id, i as visits from range({ROWS}) t(i)")
    made.sql("""create table orders as select custom_id, visits as order_id, 1.5 as amount,
        now()::timestamp - to_seconds(60 + visits) as ordered_at from customers""")
    made.sync(attributes="{visits: visits}", endpoint="update")
    made.events_sync(attributes="{amount: amount}", endpoint="update")
    with serve(made.api) as server:
        limits = "{update: {per_second: 1000000, burst: 1000000, per_call: 2}}"
        made.configure(server.base_url, limits, "{in_flight: 2, give_up_after: 20s, quiet: 0s}")
        yield made


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def frozen(world: World, sync: str) -> Fork:
    """A run that stands still in the middle of its calls."""
    world.api.inject(SLOW)
    run = Fork(world.folder, "run", sync)
    wait_until(lambda: len(world.api.requests) >= 4)
    os.kill(run.pid, signal.SIGSTOP)
    return run


def remembered(world: World, sync: str) -> list[Any]:
    """All that the state holds of a sync, its lease apart."""
    with world.opened_state() as state, state.read() as connection:
        manifests = [dict(row) for row in connection.execute(SNAPSHOTS.select()).mappings()]
        return [
            manifests,
            runs.due(state, sync).sort("key").to_dicts(),
            runs.reports(state),
            runs.unfinished(state, sync),
        ]


@pytest.mark.parametrize("sync", ["customers", "orders"])
def test_frozen_run_that_was_replaced_is_fenced(world: World, sync: str) -> None:
    """G8: what it wakes up with it may neither write nor send; the run that replaced it lost and repeated nothing."""
    run = frozen(world, sync)
    assert Fork(world.folder, "run", sync).ended().status == 5, "it lives"
    for lock in (world.folder / ".connector" / "locks").iterdir():
        lock.unlink()  # another host does not see its locks, and takes over when the lease is over
    with world.opened_state() as state, state.write() as connection:
        connection.execute(sa.update(LEASES).values(expires=1.0))
    world.api.clear_faults()
    status, report = Fork(world.folder, "run", sync).ended()
    assert status == (3 if sync == "orders" else 0)
    assert report["held"] in (range(1, 5) if sync == "orders" else [0]), "what was in flight, and no more"
    before, requests = remembered(world, sync), len(world.api.requests)
    os.kill(run.pid, signal.SIGCONT)
    status, report = run.ended()
    assert (status, report["outcome"], report["error"]["code"]) == (1, "failed", "state")
    assert "lost its lease to a newer run" in report["error"]["message"]
    assert remembered(world, sync) == before, "it wrote into the other's state"
    assert len(world.api.requests) == requests, "it sent something"
    assert set(world.event_ids().values()) == ({1} if sync == "orders" else set())
    assert Fork(world.folder, "run", sync, *(["--retry-held"] if sync == "orders" else [])).ended().status == 0
    assert len(world.event_ids() if sync == "orders" else world.held()) == ROWS


def test_a_paused_run_of_one_sync_does_not_send_beside_one_of_another(tmp_path: Path, shared_home: Home) -> None:
    """Hosts share the right to send: who lost it in a pause stops, though nobody took the lease of its own sync."""
    world = World(tmp_path / "project", server=shared_home.server)
    for name in ("customers", "vips"):
        world.sql(f"create table {name} as select '{name}' || i as custom_id, i as visits from range(60) t(i)")
        world.sync(name, source=f"{{table: {name}}}", endpoint="update")
    with serve(world.api) as server:
        limits = "{update: {per_second: 1000000, burst: 1000000, per_call: 2}}"
        world.configure(server.base_url, limits, "{in_flight: 2, give_up_after: 20s, quiet: 0s}")
        world.api.inject(SLOW)
        paused = Fork(world.folder, "run", "customers")
        wait_until(lambda: len(world.api.requests) >= 6)
        os.kill(paused.pid, signal.SIGSTOP)
        with world.opened_state() as state, state.write() as connection:
            connection.execute(sa.update(LEASES).values(expires=1.0))  # as if it had been paused for so long
        before = len(world.api.requests)
        other = Fork(world.folder, "run", "vips")
        wait_until(lambda: len(world.api.requests) >= before + 8)
        os.kill(paused.pid, signal.SIGCONT)
        wait_until(lambda: not paused.alive() and not other.alive())
        late = [request for request in world.api.requests[before:] if request.custom_ids[0].startswith("customers")]
        assert len(late) <= 2, "those that were in flight"
        world.api.clear_faults()
        assert Fork(world.folder, "run", "customers").ended().status == 0
    assert len(world.held()) == 120
