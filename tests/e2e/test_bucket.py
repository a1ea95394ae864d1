"""State files in a bucket: hosts that share nothing but it and the database, one of which a cache of its own stands for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector._steps import BUCKET_STEPS, KILL_AT
from connector.errors import StateError
from connector.report import Report
from connector.simulator import serve
from connector.state import snapshots
from connector.state.bucket import Bucket
from connector.state.database import State
from connector.state.lease import Lease, hold
from connector.state.postgres import Server
from tests.e2e.forks import Fork
from tests.e2e.test_kill_points import DELIVERY, LIMITS, PER_CALL, Events, Profiles
from tests.emulators import postgres, s3
from tests.emulators.s3 import Store
from tests.states import Home
from tests.world import World

ROWS = 8


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in s3.KEYS.items():
        monkeypatch.setenv(name, value)
    with s3.new_bucket() as made:
        yield made


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    made = postgres.new_server()._replace(bucket=store.uri)
    yield made
    postgres.drop(made)


@pytest.fixture
def world(tmp_path: Path, server: Server) -> World:
    made = World(tmp_path / "project", server=server, export_seconds=0)
    made.configure(limits=LIMITS, delivery=DELIVERY)
    made.sql(f"create table customers as select 'c' || i as custom_id, i as visits from range({ROWS}) t(i)")
    made.sql("""create table orders as select custom_id, visits as order_id, 1.5 as amount,
        now()::timestamp - interval 1 minute as ordered_at from customers""")
    made.sync(attributes="{visits: visits}", endpoint="update", guard="{max_changed: 100%}")
    made.events_sync(attributes="{amount: amount}", endpoint="update")
    return made


def told(world: World, *command: str) -> "subprocess.CompletedProcess[str]":
    arguments = [sys.executable, "-m", "connector", "--project", str(world.folder), *command, "--json"]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def named(world: World, sync: str, kind: str) -> set[str]:
    """What the state's database names."""
    with world.opened_state() as state, state.read() as connection:
        manifest, _ = snapshots.current(connection, sync, kind)
    return snapshots.names(manifest)


def refused(world: World, sync: str) -> dict[str, object]:
    """The error of a run that sends nothing."""
    world.sent()
    report = world.run(sync)
    assert (report.outcome, world.sent()) == ("failed", [])
    assert report.error
    assert report.error["code"] == "state"
    return dict(report.error)


def counted(report: Report) -> tuple[str, int, int]:
    return report.outcome, report.accepted, report.requests


def test_another_host_goes_on_where_the_first_one_ended(world: World, store: Store) -> None:
    """Rows and events that one host delivered the other knows, and the first one what the other delivered after it."""
    assert [world.run(sync).accepted for sync in ("customers", "orders")] == [ROWS, ROWS]
    assert store.names("outbox") == []
    world.move(".elsewhere")
    assert [counted(world.run(sync)) for sync in ("customers", "orders")] == [("green", 0, 0)] * 2
    world.sql("update customers set visits = 1000 where custom_id = 'c7'")
    assert world.run().accepted == 1
    world.move(".connector")
    assert counted(world.run()) == ("green", 0, 0)
    assert world.held() == world.wanted()
    files = {f"snapshots/customers/{name}" for name in named(world, "customers", "profiles")}
    files |= {f"ledger/orders/{name}" for name in named(world, "orders", "events")}
    assert set(store.names()) == files | {"owner"}, "and no value is left in the outbox"
    for path in (world.folder / ".elsewhere").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


KILLS = [
    "run.opened",
    "chunk.sent:3",
    "commit.done",
    *BUCKET_STEPS,
    *(f"{s}:2" for s in BUCKET_STEPS),
]


@pytest.fixture(scope="module", params=["profiles", "events"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiles | Events]:
    """A sync of four chunks a run, whose state is in a bucket."""
    kept = {name: os.environ.get(name) for name in s3.KEYS}
    os.environ.update(s3.KEYS)
    with s3.new_bucket() as store:
        state = postgres.new_server()._replace(bucket=store.uri)
        world = World(tmp_path_factory.mktemp("bucket") / "project", server=state)
        with serve(world.api) as served:
            world.configure(base_url=served.base_url, delivery=DELIVERY, limits=LIMITS)
            yield (Profiles if request.param == "profiles" else Events)(world, 4 * PER_CALL)
        postgres.drop(state)
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.parametrize("step", KILLS)
def test_a_killed_run_is_taken_over_by_a_host_that_has_none_of_its_files(bench: Profiles | Events, step: str) -> None:
    """G2 to G4 across hosts: killed at any step, nothing is lost, and no more comes twice than was in flight."""
    bench.change()
    killed = Fork(bench.world.folder, "run", bench.sync, **{KILL_AT: step, **s3.KEYS}).ended()
    assert killed.status == -9, "the step is not taken"
    shutil.rmtree(bench.world.folder / ".next", ignore_errors=True)
    bench.world.move(".connector" if bench.world.cache == ".next" else ".next")
    bench.settle(1)


@pytest.mark.parametrize("harm", ["gone", "altered", "cut", "the whole cache"])
def test_what_the_cache_lacks_is_fetched(world: World, harm: str) -> None:
    """A cache may be deleted or damaged at will: the checksum in the database says so, and the bucket has the file."""
    for sync in ("customers", "orders"):
        world.run(sync)
    files = [path for kind in ("snapshots", "ledger") for path in (world.folder / ".connector" / kind).glob("*/*")]
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert len(sums) == 2
    for path in files:
        content = path.read_bytes()
        if harm == "gone":
            path.unlink()
        elif harm != "the whole cache":
            path.write_bytes(content[:-20] if harm == "cut" else content[:50] + bytes([content[50] ^ 1]) + content[51:])
    if harm == "the whole cache":
        shutil.rmtree(world.folder / ".connector")
    assert [counted(world.run(sync)) for sync in ("customers", "orders")] == [("green", 0, 0)] * 2
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == sums


@pytest.mark.parametrize("harm", ["altered", "missing"])
@pytest.mark.parametrize(("sync", "kind"), [("customers", "snapshots"), ("orders", "ledger")])
def test_what_the_bucket_lost_is_not_believed(world: World, store: Store, sync: str, kind: str, harm: str) -> None:
    """An object that is gone or was altered stops the run before it sends, names the ways out, and displaces nothing."""
    world.run(sync)
    (name,) = store.names(kind)
    whole = store.get(name)
    if harm == "missing":
        store.delete(name)
    else:
        store.put(name, whole[:-1] + bytes([whole[-1] ^ 1]))
    assert counted(world.run(sync)) == ("green", 0, 0), "the cache has it, and it is sound"
    world.move(".elsewhere")
    error = refused(world, sync)
    assert f"/{s3.PREFIX}/{name}' " in str(error["message"])
    assert harm in str(error["message"])
    assert "backup" in str(error["remedy"])
    assert not list((world.folder / ".elsewhere" / kind).glob("*/*"))
    store.put(name, whole)
    assert counted(world.run(sync)) == ("green", 0, 0)


@pytest.mark.parametrize("sync", ["customers", "orders"])
def test_a_bucket_that_denies_a_request_ends_the_run_and_the_next_one_goes_on(
    world: World, store: Store, sync: str
) -> None:
    """From whichever request on: one sentence with a remedy, and another host does what was not finished."""
    world.run(sync)
    nth, failed = 1, 0
    while True:
        if sync == "customers":
            world.sql("update customers set visits = visits + 100")
        else:
            world.sql("insert into orders select custom_id, visits, 1.5, now()::timestamp from customers")
            world.sql("update customers set visits = visits + 100")
        with store.gate.closed(lambda number, first=nth: number >= first):  # type: ignore[misc]
            report = world.run(sync)
        if len(store.gate.seen) < nth:
            break
        if report.outcome != "green":
            assert report.error
            assert "ACCESS_DENIED" in str(report.error["message"])
            assert "ListBucket" in str(report.error["remedy"])
            assert "AKIATESTER" not in str(report.error)
            failed += 1
        shutil.rmtree(world.folder / ".elsewhere", ignore_errors=True)
        world.move(".elsewhere" if world.cache == ".connector" else ".connector")
        assert world.run(sync).outcome == "green"
        if sync == "customers":
            assert world.held() == world.wanted()
            assert world.due() == []
        else:
            ids = world.event_ids()
            assert set(ids) == {str(row[0]) for row in world.sql("select order_id from orders")}
            assert max(ids.values()) == 1
        assert store.names("outbox") == []
        nth += 1
    assert failed >= 6, "a run asks for more than that"


def test_a_bucket_out_of_reach_is_said_in_one_sentence(world: World, store: Store) -> None:
    """Exit status 1 before anything is read, no secret in the output, and nothing lost when it is back."""
    path = world.folder / "connector.yaml"
    text = path.read_text()
    port = store.gate.url.rpartition(":")[2]
    world.run()
    path.write_text(text.replace(f":{port}", ":1"))
    ended = told(world, "run", "customers")
    said = ended.stdout + ended.stderr
    assert (ended.returncode, "NETWORK_CONNECTION" in said) == (1, True), ended
    assert "see that it can be reached" in said
    assert s3.SECRET not in said
    assert "AKIATESTER" not in said
    path.write_text(text)
    world.move(".elsewhere")
    assert len(json.loads(told(world, "status").stdout)) == 1, "a host that never ran shows what the others did"
    assert f"'{store.uri}' is this project's" in told(world, "check", "customers").stdout
    assert counted(world.run()) == ("green", 0, 0)


def test_orphans_are_swept_from_the_bucket(world: World, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What killed runs left goes once it is old, the outbox at once; what is named, or another sync's, stays."""
    for sync in ("customers", "orders"):
        world.run(sync)
    kept = store.names()
    others = ["snapshots/customers_eu/a.parquet", "outbox/customers_eu-1.parquet", "ledger/customers/a.arrow"]
    young = ["snapshots/customers/a.parquet", "ledger/orders/a.arrow"]
    for name in (*others, *young, "outbox/customers-1.parquet", "outbox/orders-1.parquet"):
        store.put(name, b"left")
    for sync in ("customers", "orders"):
        world.run(sync)
    assert store.names() == sorted([*kept, *others, *young])
    monkeypatch.setattr(snapshots, "ORPHAN_SECONDS", -60)
    for sync in ("customers", "orders"):
        world.run(sync)
    assert store.names() == sorted([*kept, *others])


def test_a_run_that_was_replaced_removes_nothing(world: World, store: Store) -> None:
    """A frozen run that wakes up after another host's might take that one's files for orphans: its lease is looked at."""
    world.run()
    with world.opened_state() as state, hold(state, "customers", "customers-1") as lease:
        paths = [state.folder / name for name in store.names("snapshots")]
        with pytest.raises(StateError, match="lost its lease"):
            snapshots.clear(state, Lease("customers", "customers-0", lease.fence - 1, lease.since), paths)
        assert len(store.names("snapshots")) == 1


def test_a_bucket_or_a_cache_of_another_state_is_refused(server: Server, store: Store, tmp_path: Path) -> None:
    """Two states in one place would remove each other's files; a database that was lost is not a fresh start."""
    home, other = Home(tmp_path / "a", server), Home(tmp_path / "b", postgres.new_server()._replace(bucket=store.uri))
    with home.opened():
        pass
    with home.opened() as state:  # a first run that was killed, or dropped before it delivered, is begun anew
        assert state.bucket
    postgres.drop(server)
    shutil.rmtree(home.folder)
    with home.opened(), home.opened():
        pass
    for wrong, words in (
        (other, "the bucket 's3://"),
        (Home(tmp_path / "local", server), f"the cache folder '{tmp_path / 'local'}'"),
    ):
        with Home(tmp_path / "local", None).opened():
            pass
        with pytest.raises(StateError, match="belongs to another state") as caught, wrong.opened():
            pytest.fail("it opens")
        assert caught.value.message.startswith(words)
    store.delete("owner")
    with pytest.raises(StateError, match="lacks the files of the state"), home.opened():
        pytest.fail("it opens")
    store.put("snapshots/customers/a.parquet", b"")
    postgres.drop(server)
    shutil.rmtree(home.folder)
    with pytest.raises(StateError, match="belongs to another state"), home.opened():
        pytest.fail("it opens")


def test_a_large_file_comes_back_whole(server: Server, tmp_path: Path) -> None:
    """What is larger than a request goes up in parts and comes back by its checksum, to this name and no other."""
    with Home(tmp_path / "state", server).opened() as state:
        bucket, path = bucket_of(state), state.folder / "outbox" / "large.parquet"
        path.write_bytes(os.urandom(25_000_000))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        state.put([path])
        path.unlink()
        assert bucket.fetch(path, "another") == sha256
        assert not path.exists()
        assert bucket.fetch(path, sha256) == sha256
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        assert [each.name for each in path.parent.iterdir()] == ["large.parquet"]
        assert bucket.fetch(path.with_name("none"), sha256) is None


def bucket_of(state: State) -> Bucket:
    assert state.bucket
    return state.bucket


def test_exports_and_reconciliation_keep_their_books_there(world: World) -> None:
    """What an export downloads stays on its host; another one pulls again, and heals what Batch lost."""
    world.sync(attributes="{visits: visits}", guard="{max_changed: 100%}")
    world.export_sync(attributes="[visits]")
    world.run()
    assert world.pull().rows == ROWS
    world.move(".elsewhere")
    assert world.pull().rows == ROWS
    world.api.reset()
    assert world.reconcile(heal=True, allow_mass_change="all are lost").healed == ROWS
    world.move(".connector")
    assert world.run().accepted == ROWS
    assert world.held() == world.wanted()
