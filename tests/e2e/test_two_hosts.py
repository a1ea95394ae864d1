"""Two hosts, one state: runs of the command line against PostgreSQL, one of which another host's row stands for."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from connector.simulator import serve
from connector.state.database import LEASES
from tests.e2e.forks import Fork
from tests.e2e.test_fencing import wait_until
from tests.emulators import postgres
from tests.states import Home
from tests.world import World

ROWS = 60
SLOW = {"delay": 0.2, "apply": True, "share": 1.0}


@pytest.fixture
def world(tmp_path: Path, shared_home: Home) -> Iterator[World]:
    made = World(tmp_path / "project", server=shared_home.server)
    made.sql(f"create table customers as select 'c' || i as custom_id, i as visits from range({ROWS}) t(i)")
    made.sync(attributes="{visits: visits}", endpoint="update")
    with serve(made.api) as server:
        limits = "{update: {per_second: 1000000, burst: 1000000, per_call: 2}}"
        made.configure(server.base_url, limits, "{in_flight: 2, give_up_after: 20s, quiet: 0s}")
        yield made


def move_elsewhere(world: World, *, expired: bool = False) -> None:
    """Let every lease that is held be another host's."""
    values = {"host": "elsewhere"} | ({"expires": 1.0} if expired else {})
    with world.opened_state() as state, state.write() as connection:
        connection.execute(sa.update(LEASES).where(LEASES.c.run.is_not(None)).values(**values))


def test_a_second_run_sends_nothing(world: World) -> None:
    """What one host delivered the other knows, and all that tells of it is the same as with a state folder."""
    first = Fork(world.folder, "run", "customers").ended()
    assert (first.status, first.report["accepted"]) == (0, ROWS)
    again = Fork(world.folder, "run", "customers").ended()
    assert (again.status, again.report["unchanged"], again.report["requests"]) == (0, ROWS, 0)
    world.sql("update customers set visits = 1000 where custom_id = 'c7'")
    assert Fork(world.folder, "run", "customers").ended().report["accepted"] == 1
    assert world.held() == world.wanted()
    assert len(json.loads(told(world, "status").stdout)) == 3


def test_another_host_is_busy_until_the_lease_of_a_dead_one_ends(world: World) -> None:
    """G8, G9: while a run lives elsewhere this one ends with 5; once it is dead and its lease over, this one resumes."""
    world.api.inject(SLOW)
    run = Fork(world.folder, "run", "customers")
    wait_until(lambda: len(world.api.requests) >= 6)
    move_elsewhere(world)
    other = Fork(world.folder, "run", "customers").ended()
    assert (other.status, other.report["requests"]) == (5, 0)
    assert "on elsewhere, process" in other.report["error"]["message"]
    run.kill()
    run.ended()
    assert Fork(world.folder, "run", "customers").ended().status == 5, "nobody here knows that it is dead"
    move_elsewhere(world, expired=True)
    time.sleep(0.3)  # requests that the server still works on
    world.api.clear_faults()
    before = Counter(world.sent())
    assert 0 < len(before) < ROWS
    assert Fork(world.folder, "run", "customers").ended().status == 0
    again = [key for key in world.sent() if key in before]
    assert len(again) <= 4, "acknowledged chunks were sent again"
    assert world.held() == world.wanted()


def test_every_kind_of_sync_keeps_its_books_there(tmp_path: Path, shared_home: Home) -> None:
    """Events and their ledger, exports and reconciliation find again what the run before left in the database."""
    world = World(tmp_path / "project", server=shared_home.server)
    world.sql("create table customers as select 'c' || i as custom_id, i as visits from range(5) t(i)")
    world.sql("""create table orders as select custom_id, visits as order_id, 1.5 as amount,
        case when visits = 4 then now()::timestamp - interval 2 day else now()::timestamp - interval 1 minute end
        as ordered_at from customers""")
    world.sync(attributes="{visits: visits}")
    world.events_sync(attributes="{amount: amount}")
    world.export_sync(attributes="[visits]")
    assert world.run().accepted == 5
    first, again = world.run("orders"), world.run("orders")
    assert (first.accepted, first.held, again.already_sent, again.held) == (4, 1, 4, 1)
    assert world.listed()[0]["state"] == "held"
    assert [world.pull().rows, world.pull().rows] == [5, 5]
    assert [export["state"] for export in world.exports()] == ["loaded", "loaded"]
    assert len(world.rows("batch.profile_attributes")) == 5
    assert world.reconcile().differing == 0


def told(world: World, *command: str) -> "subprocess.CompletedProcess[str]":
    arguments = [sys.executable, "-m", "connector", "--project", str(world.folder), *command, "--json"]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [("run", "customers"), ("plan", "customers"), ("status",), ("check", "customers")])
@pytest.mark.parametrize("fault", ["no server", "another password", "no URL", "none"])
def test_no_output_has_the_password(world: World, command: tuple[str, ...], fault: str) -> None:
    """Whatever is wrong with the database: the exit status says whose fault it is, and no word holds the secret."""
    file = world.folder / "state_url"
    address, port = file.read_text(), str(world.server.url.port) if world.server else ""
    faulty = {
        "no server": (address.replace(f":{port}/", ":1/"), 1),
        "another password": (address.replace(postgres.PASSWORD, postgres.PASSWORD + "x"), 1),
        "no URL": (address.replace("postgresql:", "oracle:"), 2),
        "none": (address, 0),
    }
    (world.folder / ".connector").mkdir(mode=0o700)  # so that status looks
    text, status = faulty[fault]
    file.write_text(text)
    ended = told(world, *command)
    assert ended.returncode == status, ended
    said = ended.stdout + ended.stderr
    assert postgres.PASSWORD not in said
    if command[0] != "status" or status:
        assert ("state" in said) is (status > 0 or command[0] == "check"), said


def test_check_says_what_the_first_run_makes(world: World) -> None:
    """A check reaches the server and changes nothing there; afterwards it finds the state."""
    assert world.server
    before = told(world, "check", "customers")
    assert f"and {world.server.schema} of postgres on 127.0.0.1" in before.stdout, before
    with postgres.connected() as connection:
        assert connection.execute(sa.select(sa.func.to_regnamespace(world.server.schema))).scalar_one() is None
    assert Fork(world.folder, "run", "customers").ended().status == 0
    assert "is this project's, and so is" in told(world, "check", "customers").stdout
