"""The state folder: of one project, private, not believed when damaged; one run at a time; a rate never exceeded."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from connector.errors import BusyError, StateError
from connector.hashing import KEY_HASH, VERSION, self_test
from connector.mapping import KEY
from connector.simulator.limits import Rate, TokenBucket
from connector.state import clocks, folding, postgres, rate, runs, snapshots, sqlite
from connector.state.database import BUCKETS, LEASES, META, RUNS, SCHEMA, SNAPSHOTS, State, open_state
from connector.state.group import GroupCommit
from connector.state.lease import Lease, hold
from connector.state.runs import Standing, settle
from tests.states import PROJECT, Home, held_for


def opened(folder: Path, project: str = PROJECT) -> int:
    """The seed of a state that is opened and closed."""
    with open_state(folder, project) as found:
        return found.seed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def with_snapshot(state: State, sync: str = "customers", **manifest: Any) -> Path:
    """A snapshot of three rows, as a run would leave it; its file."""
    frame = pl.DataFrame({
        KEY: ["a", "b", "c"], KEY_HASH: [1, 2, 3], "#deleted": [False] * 3, "#at": [0] * 3, "h:x": [7, 8, 9],
    }, schema_overrides={KEY_HASH: pl.UInt64, "h:x": pl.UInt64})  # fmt: skip
    file = snapshots.write(snapshots.load(state, sync), [frame])
    whole = {"files": [file], "hash_version": VERSION, "self_test": self_test(state.seed), **manifest}
    with state.write() as connection:
        snapshots.store(connection, sync, whole, 1)
    assert file
    return state.folder / "snapshots" / sync / str(file["name"])


def test_the_folder_is_private(home: Home) -> None:
    """Folders are 0700 and files 0600 whatever the umask: keys of people stand in them."""
    before = os.umask(0)
    try:
        with home.opened() as made:
            with_snapshot(made)
            with hold(made, "customers", "run-1"):
                paths = [made.folder, *made.folder.rglob("*")]
                modes = {path.relative_to(made.folder.parent).as_posix(): mode(path) for path in paths}
    finally:
        os.umask(before)
    assert len(modes) >= (8 if home.server is None else 7)
    assert {name: oct(bits) for name, bits in modes.items() if bits & 0o077} == {}


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    """A folder that existed before, readable by all, is made private."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)
    opened(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700


def test_a_state_stays_with_its_project(home: Home) -> None:
    """Another project's key is refused, without a word of either key; the right one still opens, with its seed."""
    with home.opened() as state:
        seed = state.seed
    with pytest.raises(StateError, match="another Batch project") as caught, home.opened("project_other"):
        pytest.fail("two projects in one state")
    assert caught.value.remedy
    assert "project_" not in str(caught.value).replace("project_key", "")
    with home.opened() as state:
        assert state.seed == seed


def test_the_project_key_is_not_in_the_folder(state: State) -> None:
    """Only a salted fingerprint of the key is kept, not the key nor its plain hash."""
    with_snapshot(state)
    everything = b"".join(path.read_bytes() for path in state.folder.rglob("*") if path.is_file())
    with state.read() as connection:
        everything += repr(connection.execute(sa.select(META)).all()).encode()
    assert PROJECT.encode() not in everything
    assert hashlib.sha256(PROJECT.encode()).hexdigest().encode() not in everything


def test_two_states_have_two_seeds(tmp_path: Path) -> None:
    """The hashes of one state say nothing about another's values."""
    assert opened(tmp_path / "one") != opened(tmp_path / "two")


def test_a_newer_version_is_refused(home: Home) -> None:
    """A state written by newer software is named with both versions, and left as it is."""
    with home.opened() as found, found.write() as connection:
        connection.execute(sa.update(META).where(META.c.name == "schema").values(value="99"))
        connection.execute(sa.schema.DropTable(BUCKETS))
    with (
        pytest.raises(StateError, match=f"has version 99, this software reads version {SCHEMA}") as caught,
        home.opened(),
    ):
        pytest.fail("it is read")
    assert "use the version of the connector that wrote it" in caught.value.remedy
    engine = sqlite.engine(home.folder) if home.server is None else postgres.engine(home.server)
    with engine.connect() as connection:
        assert not sa.inspect(connection).has_table(BUCKETS.name), "it was touched"
    engine.dispose()


def test_files_without_a_database_are_refused(tmp_path: Path) -> None:
    """Snapshots whose database is lost are not taken for a fresh start: everybody would be sent again."""
    with open_state(tmp_path / "state", PROJECT) as found:
        with_snapshot(found)
    for path in (tmp_path / "state").glob("state.db*"):
        path.unlink()
    with pytest.raises(StateError, match=r"has files of what was delivered but no state\.db") as caught:
        opened(tmp_path / "state")
    assert "backup" in caught.value.remedy
    assert not (tmp_path / "state" / "state.db").exists()


def test_an_emptied_database_is_refused(tmp_path: Path) -> None:
    """A database of no bytes beside snapshot files is a lost one, not a new one."""
    with open_state(tmp_path / "state", PROJECT) as found:
        with_snapshot(found)
    for path in (tmp_path / "state").glob("state.db*"):
        path.write_bytes(b"")
    with pytest.raises(StateError):
        opened(tmp_path / "state")


@pytest.mark.parametrize("damage", ["junk", "torn"])
def test_a_damaged_database_is_refused(tmp_path: Path, damage: str) -> None:
    """What is no database any more is named as such, with a remedy instead of a traceback."""
    with open_state(tmp_path / "state", PROJECT) as found:
        with_snapshot(found)
    path = tmp_path / "state" / "state.db"
    path.write_bytes(b"junk" * 2000 if damage == "junk" else path.read_bytes()[:4096] + b"\xff" * 8192)
    with pytest.raises(StateError, match=r"state\.db' cannot be used") as caught:
        opened(tmp_path / "state")
    assert "backup" in caught.value.remedy


def test_a_database_without_its_files_is_refused(state: State) -> None:
    """A file that the manifest names and the disk lacks stops the run, with both ways out."""
    with_snapshot(state).unlink()
    with pytest.raises(StateError, match=r"snapshot file '.*' is missing") as caught:
        snapshots.load(state, "customers")
    assert "restore" in caught.value.remedy
    assert "--resend" in caught.value.remedy


def test_any_flipped_bit_is_found(state: State) -> None:
    """Forty single bits, a cut and an added byte: none is believed; the file as it was is."""
    path = with_snapshot(state)
    whole = path.read_bytes()
    chance = random.Random(1)  # noqa: S311 - repeatable
    flips = [(chance.randrange(len(whole)), 1 << chance.randrange(8)) for _ in range(40)]
    damaged = [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at, bit in flips]
    for content in [*damaged, b"", whole[:-1], whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(StateError, match="was altered: its checksum differs"):
            snapshots.load(state, "customers")
    path.write_bytes(whole)
    believed = snapshots.load(state, "customers")
    assert believed.rows(believed.index().positions, ["x"]).rows() == [
        ("a", 7), ("b", 8), ("c", 9),
    ]  # fmt: skip


@pytest.mark.parametrize("manifest", [{"hash_version": VERSION + 1}, {"self_test": 1}])
def test_another_hash_recipe_is_refused(state: State, manifest: Any) -> None:
    """Hashes of another recipe would make everybody look changed: the run stops instead."""
    with_snapshot(state, **manifest)
    with pytest.raises(StateError, match="hashes were made by another recipe"):
        snapshots.load(state, "customers")


def test_the_pointer_moves_with_its_transaction(state: State) -> None:
    """A transaction that fails leaves the old generation named, and the files of a sync are its own."""
    with_snapshot(state)
    with pytest.raises(ZeroDivisionError), state.write() as connection:  # noqa: PT012 - a transaction
        snapshots.store(connection, "customers", {"files": []}, 2)
        raise ZeroDivisionError
    assert snapshots.load(state, "customers").generation == 1
    assert snapshots.load(state, "orders").generation == 0


@pytest.mark.parametrize("damage", ["missing", "altered", "cut"])
def test_an_index_file_that_is_not_whole_is_built_anew(state: State, damage: str) -> None:
    """What is derived is never believed as it lies there: a damaged index costs time, and changes no answer."""
    with_snapshot(state)
    kept = folding.indexed(snapshots.load(state, "customers"), rows_min=1)
    with state.write() as connection:
        snapshots.store(connection, "customers", kept.manifest, 2)
    assert snapshots.load(state, "customers").in_index == 1
    path = kept.folder / kept.manifest["index"]["name"]
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:100] if damage == "cut" else content.replace(b"\x02", b"\x03", 1))
    believed = snapshots.load(state, "customers")
    assert believed.in_index == 0
    assert believed.rows(believed.index().positions, [])[KEY].to_list() == ["a", "b", "c"]
    os.utime(path.with_name(believed.files[0]["name"]), (0, 0))
    if path.exists():
        os.utime(path, (0, 0))
    snapshots.sweep(believed)
    assert [found.name for found in path.parent.iterdir()] == [believed.files[0]["name"]]


def test_sweeping_leaves_what_is_named_or_young(state: State) -> None:
    """Only files that nothing names and that are an hour old are removed."""
    named = with_snapshot(state)
    old, young = named.with_name("old.parquet"), named.with_name("young.parquet")
    for path in (old, young):
        shutil.copy(named, path)
    for path in (old, named):
        os.utime(path, (0, 0))
    snapshots.sweep(snapshots.load(state, "customers"))
    assert sorted(path.name for path in named.parent.iterdir()) == sorted([named.name, young.name])


def test_digests_are_keyed(tmp_path: Path) -> None:
    """A key's digest is stable in a state, short, and worthless elsewhere."""
    with open_state(tmp_path / "one", PROJECT) as one, open_state(tmp_path / "two", PROJECT) as two:
        assert one.digest("jo@example.org") == one.digest("jo@example.org") != one.digest("jo@example.com")
        assert one.digest("jo@example.org") != two.digest("jo@example.org")
        assert len(one.digest("x" * 1000)) == 12


def test_a_writer_in_the_way_is_named(tmp_path: Path) -> None:
    """Errors of SQLite come as one sentence with a remedy, without the statement."""
    opened(tmp_path / "state")
    with open_state(tmp_path / "state", PROJECT) as found:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'state' / 'state.db'}", connect_args={"timeout": 0})
        impatient = State(found.folder, engine, found.seed, found.ahead)
        with sqlite3.connect(tmp_path / "state" / "state.db") as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateError, match="locked") as caught, impatient.write() as connection:
                connection.execute(sa.insert(META), {"name": "n", "value": "v"})
            other.execute("ROLLBACK")
        other.close()
        engine.dispose()
    assert "another process writes to it" in caught.value.remedy
    assert "INSERT" not in str(caught.value)


HOLDER = """
import sys
from connector.errors import BusyError
from connector.state.lease import hold
from tests.states import Home
with Home.of(*sys.argv[2:]).opened() as state:
    try:
        with hold(state, "customers", sys.argv[1]) as lease:
            print("held", lease.fence, flush=True)
            sys.stdin.read()
    except BusyError as error:
        print("busy", error, flush=True)
"""


class Holder:
    """A process that takes the lease and keeps it until it is told or killed."""

    def __init__(self, home: Home, run: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, run, *home.arguments()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def said(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def test_of_two_processes_one_runs_and_a_killed_one_is_free_at_once(home: Home, state: State) -> None:
    """Of two started together exactly one holds the sync; kill -9 frees it without waiting, and the fence has grown."""
    holders = [Holder(home, f"run-{number}") for number in range(2)]
    said = [holder.said() for holder in holders]
    try:
        assert sorted(words.split()[0] for words in said) == ["busy", "held"]
        winner = next(number for number, words in enumerate(said) if words.startswith("held"))
        with (
            pytest.raises(BusyError, match=f"run run-{winner}.*, process {holders[winner].process.pid}"),
            hold(state, "customers", "run-2"),
        ):
            pytest.fail("two hold it")
        with hold(state, "orders", "run-3"):
            pass  # another sync is another lease
        holders[winner].end(kill=True)
        with hold(state, "customers", "run-4") as lease:
            assert lease.fence == int(said[winner].split()[1]) + 1
    finally:
        for holder in holders:
            holder.end(kill=True)


def test_leases_follow_one_another(state: State) -> None:
    """Each holder has a higher fence; a holder that failed frees the sync as one that ended does."""
    fences = []
    for number in range(3):
        try:
            with hold(state, "customers", f"run-{number}") as lease:
                fences.append(lease.fence)
                1 / (number - 1)
        except ZeroDivisionError:
            pass
    assert fences == [1, 2, 3]


def test_a_holder_on_another_host_is_respected_until_its_lease_expires(state: State) -> None:
    """The kernel knows nothing of other hosts, so there the clock decides; the error names who holds it."""
    with hold(state, "customers", "run-1"):
        pass
    with state.write() as connection:
        connection.execute(sa.update(LEASES).values(run="run-9", host="elsewhere", pid=7, expires=2e11))
    with pytest.raises(BusyError, match="run run-9 on elsewhere, process 7"), hold(state, "customers", "run-2"):
        pytest.fail("two hold it")
    with state.write() as connection:
        connection.execute(sa.update(LEASES).values(expires=1.0))
    with hold(state, "customers", "run-3") as lease:
        assert lease.fence == 2


def test_a_run_that_was_taken_for_dead_cannot_write(state: State) -> None:
    """Once a newer holder has the sync, every write of the older one is refused, and nothing of it is kept."""
    with hold(state, "customers", "run-1") as stale:
        let_expire(state)
        with hold(state, "customers", "run-2") as fresh:
            late = GroupCommit(state, stale).write(lambda connection: settle(connection, "run-1", 0, Standing("done")))
            with pytest.raises(StateError, match="run run-1 lost its lease"):
                asyncio.run(late)
        assert fresh.fence == stale.fence + 1
        with pytest.raises(StateError, match="lost its lease"), state.write() as connection:  # noqa: PT012 - a transaction
            connection.execute(sa.insert(SNAPSHOTS), {"sync": "customers", "generation": 9, "manifest": {}})
            stale.check(connection)
    assert snapshots.load(state, "customers").generation == 0


def let_expire(state: State) -> None:
    """The holder of the lease is taken for dead, as one is that was silent for too long and whose locks nobody sees."""
    (state.folder / "locks" / "customers.lock").unlink(missing_ok=True)
    with state.write() as connection:
        connection.execute(sa.update(LEASES).values(expires=1.0))


class Sender:
    """Requests on one bucket in virtual time: moving the clock on means moving the bucket's times back."""

    def __init__(self, state: State, per_second: float, capacity: int, per_call: int) -> None:
        self.state = state
        self.per_second, self.per_call = per_second, per_call
        self.burst = rate.burst(capacity, per_second, per_call)
        self.ahead = 0.0

    @property
    def now(self) -> float:
        return time.monotonic() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds
        moved = {name: BUCKETS.c[name] - seconds for name in ("paid_until", "hold_until", "seen", "cut")}
        with self.state.write() as connection:
            connection.execute(sa.update(BUCKETS).values(**moved))

    def leave(self, profiles: int) -> float:
        """When a request may leave, in virtual time."""
        before = self.now
        with self.state.write() as connection:
            wait = rate.reserve(connection, "update", profiles, per_second=self.per_second, burst=self.burst)
        return before + max(wait, 0.0)


LIMITS = {
    "update": (300.0, 1000, 200),
    "mass_update": (10_000.0, 10_000, 1000),
    "mass_update, undocumented burst": (10_000.0, 0, 1000),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("seed", range(3))
def test_a_strict_bucket_never_refuses(home: Home, limit: str, seed: int) -> None:
    """Calls of any size, pauses, restarts and 0 to 0.4 s on the way: Batch's own bucket always has room."""
    per_second, capacity, per_call = LIMITS[limit]
    chance = random.Random(seed)  # noqa: S311 - repeatable
    arrivals: list[tuple[float, int]] = []
    ahead = 0.0
    for _restart in range(4):
        with home.opened() as state:
            sender = Sender(state, per_second, capacity, per_call)
            sender.ahead = ahead
            for _ in range(40):
                profiles = chance.choice([1, per_call // 3, per_call, per_call])
                leaves = sender.leave(profiles)
                arrivals.append((leaves + chance.uniform(0, 0.4), profiles))
                if chance.random() < 0.2:
                    sender.advance(chance.choice([max(leaves - sender.now, 0.0), 0.5, 30.0]))
            sender.advance(chance.choice([0.0, 60.0]))
            ahead = sender.ahead
    bucket = TokenBucket(Rate(per_second, capacity or int(per_second)), min(arrivals)[0])
    refused = [arrived for arrived, profiles in sorted(arrivals) if bucket.take(profiles, arrived)]
    assert refused == []


@pytest.mark.parametrize("limit", LIMITS)
def test_the_rate_is_used_up(home: Home, limit: str) -> None:
    """With always more to send, at least 99 % of the limit is used, and over the whole time no more than it."""
    per_second, capacity, per_call = LIMITS[limit]
    with home.opened() as state:
        sender = Sender(state, per_second, capacity, per_call)
        leaves = []
        for _ in range(150):
            leaves.append(sender.leave(per_call))
            sender.advance(max(leaves[-1] - sender.now, 0.0))
    used = per_call * (len(leaves) - 1) / (leaves[-1] - leaves[0]) / per_second
    assert 0.99 <= used <= 1.005


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_true_limit_below_the_configured_one_is_found(state: State, share: float) -> None:
    """Where Batch takes a part of the configured rate only, refusals are few a minute, and little of it is left unused."""
    sender = Sender(state, 10_000.0, 10_000, 1000)
    strict = TokenBucket(Rate(10_000 * share, int(10_000 * share)), sender.now)
    chance = random.Random(7)  # noqa: S311 - repeatable
    start, accepted, refusals = sender.now, 0, []
    while sender.now - start < 180:
        sender.advance(max(sender.leave(1000) - sender.now, 0.0))
        if strict.take(1000, sender.now):
            refusals.append(sender.now - start)
            pause = chance.uniform(0.0, 1.0)
            with state.write() as connection:
                rate.hold(connection, "update", pause, refused=time.monotonic())
            sender.advance(pause)
        else:
            accepted += 1000
    assert accepted / 180 >= 0.9 * 10_000 * share
    assert max(len([at for at in refusals if minute <= at < minute + 60]) for minute in range(0, 120, 10)) <= 10


def test_two_senders_share_one_bucket(home: Home, state: State) -> None:
    """What one process books, the other waits for; another endpoint is another bucket."""
    with home.opened() as other:
        one, two = (Sender(each, 300.0, 1000, 200) for each in (state, other))
        times = sorted([one.leave(200) if number % 2 else two.leave(200) for number in range(60)])
        with other.write() as connection:
            assert rate.reserve(connection, "export", 1, per_second=1.0, burst=0.0) <= 1.0
    assert 200 * 59 / (times[-1] - times[0]) == pytest.approx(300.0, rel=0.01)


def test_a_pause_holds_everybody(home: Home, state: State) -> None:
    """A Retry-After reaches other processes, is not shortened by a smaller one, and ends."""
    with home.opened() as other:
        for each, seconds in ((state, 30.0), (other, 5.0)):
            with each.write() as connection:
                rate.hold(connection, "update", seconds)
        sender = Sender(other, 300.0, 1000, 200)
        assert 29 < held_for(other, "update") <= 30
        assert 29 < sender.leave(200) - sender.now <= 31
        assert held_for(other, "mass_update") == 0
        sender.advance(31)
        assert held_for(state, "update") == 0
        assert sender.leave(1) - sender.now < 2


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_is_set_does_not_move_the_states_own(home: Home, monkeypatch: Any, hours: int) -> None:
    """Neither while it is open nor for who opens it next: what is waited for takes as long as it should."""
    real = time.time
    with home.opened() as state, hold(state, "customers", "run-1"):
        before = state.now()
        assert before == pytest.approx(real(), abs=5)
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
        assert 0 <= state.now() - before < 5
    with home.opened() as state:
        assert 0 <= state.now() - before < 5


@pytest.mark.parametrize("start", ["two", ""])
def test_after_a_start_of_the_host_time_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """By as much as the host's own clock has gone on meanwhile; but never back, where it comes up too early."""
    real = time.time

    def opened_at(hours: float, boot: str) -> float:
        """What the state's clock is ahead of the test's, in hours, as a run begins."""
        monkeypatch.setattr(clocks, "boot", lambda: boot)
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
        with open_state(tmp_path, PROJECT) as state, hold(state, "customers", "run-1") as lease:
            assert lease.since == pytest.approx(state.now(), abs=5)
            return round((state.now() - real()) / 3600, 2)

    assert opened_at(0, "one") == 0
    assert opened_at(3, "one") == 0
    assert opened_at(5, start) == 2  # of which three were no time: somebody had set the clock
    assert opened_at(-4, "three") == 2
    assert opened_at(0, "four") == 6


def test_a_lease_that_was_given_back_is_nobodys(state: State) -> None:
    """Whoever still has it in hand writes nothing under it, though nobody has taken it since."""
    with hold(state, "customers", "run-1") as lease:
        pass
    with pytest.raises(StateError, match="lost its lease"), state.write() as connection:
        lease.check(connection)


def test_a_run_that_an_older_version_left_began_when_it_started(state: State, lease: Lease) -> None:
    """A process that was under way while the state was brought forward notes no time by the state's own clock."""
    with state.write() as connection:
        report = {"kind": "profiles", "started": 123.0}
        runs.open_run(connection, lease, runs.Opened(lease.run, "k", {}, "", report, 456.0), [])
    assert [run.began for run in runs.unfinished(state, "customers")] == [456.0]
    with state.write() as connection:
        connection.execute(sa.update(RUNS).values(began=None))
    assert [run.began for run in runs.unfinished(state, "customers")] == [123.0]


@pytest.mark.parametrize("of_another_boot", [1e9, -1e9])
def test_the_clock_of_another_boot_is_not_believed(state: State, of_another_boot: float) -> None:
    """After a reboot, or on another host, old times neither block nor allow a burst: the bucket starts empty."""
    sender = Sender(state, 300.0, 1000, 200)
    sender.leave(200)
    with state.write() as connection:
        rate.hold(connection, "update", 60.0, refused=time.monotonic())
        values = {"clock": "another boot", "paid_until": of_another_boot, "hold_until": of_another_boot}
        connection.execute(sa.update(BUCKETS).values(**values))
    assert held_for(state, "update") == 0
    assert [sender.leave(200) - sender.now for _ in range(3)] == pytest.approx([2 / 3, 4 / 3, 2], abs=0.1)


@pytest.mark.parametrize(
    ("capacity", "per_second", "per_call", "expected"),
    [(1000, 300, 200, 600), (10_000, 10_000, 1000, 3000), (0, 10_000, 1000, 3000), (0, 1, 1, 0.5), (100, 300, 200, 0)],
)
def test_bursts_stay_within_what_batch_holds(capacity: int, per_second: float, per_call: int, expected: float) -> None:
    """A burst is at most three calls, and leaves room for the jitter of the way."""
    assert rate.burst(capacity, per_second, per_call) == expected


def test_state_is_json_all_the_way(state: State) -> None:
    """A manifest comes back as it went in: SQLite's integers are signed, ours are chosen to fit."""
    with_snapshot(state, attributes={"x": "string"}, cursor=None)
    manifest = snapshots.load(state, "customers").manifest
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["self_test"] == self_test(state.seed)
