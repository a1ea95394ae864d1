"""Real processes, real kills: what was acknowledged is not sent again, what was not is not lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.simulator import Rate, Served, serve
from tests.states import Home
from tests.world import World

ROWS = 20_000

in_a_folder = pytest.mark.parametrize("home", ["sqlite"], indirect=True)
"""For what has nothing to do with where the state is."""


@pytest.fixture
def served(tmp_path: Path, home: Home) -> Iterator[tuple[World, Served]]:
    world = World(tmp_path / "project", server=home.server)
    world.sync(attributes="{orders: orders, name: name}")
    world.sql(
        f"create table customers as select 'c' || i as custom_id, i as orders, 'n' || i as name from range({ROWS}) t(i)"
    )
    with serve(world.api) as server:
        world.configure(base_url=server.base_url, delivery="{in_flight: 4, give_up_after: 20s, quiet: 1s}")
        yield world, server


def start(world: World, sync: str = "customers") -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "connector",
        "--project",
        str(world.folder),
        "run",
        sync,
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_for_operations(world: World, operations: int) -> None:
    deadline = time.monotonic() + 30
    while world.api.stats["operations"] < operations:
        assert time.monotonic() < deadline, "the run sends nothing"
        time.sleep(0.01)


def finished(process: subprocess.Popen[str]) -> tuple[int, dict[str, object]]:
    out, err = process.communicate(timeout=60)
    assert out, err
    return process.returncode, json.loads(out)


def test_kill_in_the_middle_loses_nothing_and_repeats_only_what_was_in_flight(served: tuple[World, Served]) -> None:
    """G2, G9: after kill -9 the next run sends what was not acknowledged, at most the chunks in flight twice."""
    world, _ = served
    world.api.inject({"delay": 0.05, "apply": True, "share": 1.0})
    process = start(world)
    wait_for_operations(world, 5000)
    process.kill()
    process.communicate()
    time.sleep(0.2)  # requests that the server still works on
    world.api.clear_faults()
    before = Counter(world.sent())
    assert 5000 <= len(before) < ROWS
    status, report = finished(start(world))
    after = Counter(world.sent())
    assert (status, report["outcome"]) == (0, "green")
    twice = [key for key in before if key in after]
    assert len(twice) <= 4 * 1000, "acknowledged chunks were sent again"
    assert set(before) | set(after) == {f"c{i}" for i in range(ROWS)}
    assert world.held() == world.wanted()
    time.sleep(1.1)  # the quiet time of the chunks in flight
    status, report = finished(start(world))
    assert report["planned"] == 0 or report["retried"] == report["planned"]
    assert finished(start(world))[1]["requests"] == 0


@in_a_folder
def test_kill_before_anything_was_sent_leaves_no_trace(served: tuple[World, Served]) -> None:
    """A run killed while it reads changes nothing, and its leftovers are gone after the next run."""
    world, _ = served
    process = start(world)
    deadline = time.monotonic() + 30
    outbox = world.folder / ".connector" / "outbox"
    while not (outbox.is_dir() and any(outbox.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    status, report = finished(start(world))
    assert (status, report["outcome"]) == (0, "green")
    assert list(outbox.iterdir()) == []
    assert world.held() == world.wanted()


@in_a_folder
@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_settles_what_is_in_flight_and_ends_with_143(served: tuple[World, Served], times: int) -> None:
    """The first SIGTERM stops taking chunks, keeps what was acknowledged, reports and exits 143; nothing is sent twice.

    A wrapper that tells the process and its group tells it twice, and means it once.
    """
    world, _ = served
    world.api.inject({"delay": 0.1, "apply": True, "share": 1.0})
    process = start(world)
    wait_for_operations(world, 4000)
    told = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)  # else the kernel would make one of them
    status, report = finished(process)
    assert time.monotonic() - told < 5
    assert status == 143
    assert report["error"]["code"] == "cancelled"  # type: ignore[index]
    assert 0 < report["accepted"] < ROWS
    world.api.clear_faults()
    status, report = finished(start(world))
    assert (status, report["outcome"]) == (0, "green")
    assert Counter(world.sent()).most_common(1)[0][1] == 1
    assert world.held() == world.wanted()


@in_a_folder
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_ends_at_once_like_a_crash(served: tuple[World, Served], number: int, expected: int) -> None:
    """Who cannot wait for the calls in flight ends the process; the next run finds nothing lost."""
    world, _ = served
    world.api.inject({"delay": 1, "apply": True, "times": 4}, {"delay": 20, "apply": True, "share": 1.0})
    process = start(world)
    wait_for_operations(world, 4001)
    process.send_signal(number)
    time.sleep(0.7)  # sooner it would count as the first one told twice
    assert process.poll() is None, "the calls in flight were not waited for"
    told = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (expected, "")
    assert time.monotonic() - told < 2
    world.api.clear_faults()
    before = Counter(world.sent())
    status, report = finished(start(world))
    after = Counter(world.sent())
    assert (status, report["outcome"]) == (0, "green")
    assert len([key for key in before if key in after]) <= 4 * 1000, "acknowledged chunks were sent again"
    assert world.held() == world.wanted()


def test_second_run_of_a_sync_is_busy_while_the_first_runs(served: tuple[World, Served]) -> None:
    """G8: whoever starts a sync that runs is told who holds it, exits 5 and sends nothing; the first goes on."""
    world, _ = served
    world.api.inject({"delay": 2.0, "apply": True, "share": 1.0})  # until the second one has started on a busy machine
    first = start(world)
    wait_for_operations(world, 1000)
    status, report = finished(start(world))
    assert (status, report["outcome"], report["requests"]) == (5, "busy", 0)
    assert str(first.pid) in report["error"]["message"]  # type: ignore[index]
    world.api.clear_faults()
    assert finished(first)[0] == 0
    assert Counter(world.sent()).most_common(1)[0][1] == 1


@in_a_folder
def test_value_that_reverts_after_a_kill_is_sent_again(served: tuple[World, Served]) -> None:
    """Killed while a call was applied: the snapshot and the warehouse agree again, but Batch holds the other value."""
    world, _ = served
    world.sql("delete from customers where orders >= 100")
    assert finished(start(world))[0] == 0
    world.sql("update customers set orders = orders + 1000 where custom_id = 'c7'")
    world.api.inject({"apply": True, "delay": 20})
    process = start(world)
    deadline = time.monotonic() + 30
    while world.held()["c7"]["orders"] != 1007 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    world.sql("update customers set orders = 7 where custom_id = 'c7'")
    status, report = finished(start(world))
    assert (status, report["planned"]) == (0, 1)
    assert world.held() == world.wanted()


def test_two_processes_share_one_rate(served: tuple[World, Served]) -> None:
    """G10: two syncs of one project, run at once, together keep to the documented bucket; none is refused for speed."""
    world, server = served
    world.api.configure(update_rate=Rate(300, 1000))
    world.configure(base_url=server.base_url, limits="{}", delivery="{}")
    for name, first in (("ones", 0), ("others", 10_000)):
        query = f"select * from customers where orders >= {first} and orders < {first + 1000}"
        world.sync(name, source=f"{{query: '{query}'}}", attributes="{orders: orders}", endpoint="update")
    both = [start(world, name) for name in ("ones", "others")]
    ended = [finished(process) for process in both]
    assert [status for status, _ in ended] == [0, 0]
    assert [report["throttled"] for _, report in ended] == [0, 0]
    assert world.api.stats["throttled"] == 0
    assert len(world.held()) == 2000
