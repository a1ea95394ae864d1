"""A state that several hosts share: their clocks, their processes and their folders are not trusted."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from connector.errors import BusyError, StateError
from connector.state import lease as leases
from connector.state import postgres, rate, runs, snapshots
from connector.state.database import BUCKETS, LEASES, META, State
from connector.state.lease import hold, is_alive, is_held
from connector.state.postgres import Server
from tests.emulators import postgres as emulator
from tests.states import Home, held_for


@pytest.fixture
def home(shared_home: Home) -> Home:
    return shared_home


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Server]:
    """Another schema of the same database."""
    server = emulator.new_server()
    yield server
    emulator.drop(server)


def refusal(home: Home, project: str = "project_s3cret") -> StateError:
    with pytest.raises(StateError) as caught, home.opened(project):
        pytest.fail("it opens")
    return caught.value


def test_two_projects_share_a_database_and_nothing_else(shared_home: Home, another: Server, tmp_path: Path) -> None:
    """Each project has a schema and a folder; leases, rates and seeds of one mean nothing to the other."""
    other = Home(tmp_path / "other", another)
    with shared_home.opened() as one, other.opened("project_other") as two:
        assert one.seed != two.seed
        with one.write() as connection:
            rate.hold(connection, "update", 30.0)
        assert held_for(two, "update") == 0
        with hold(one, "customers", "run-1"), hold(two, "customers", "run-2") as lease:
            assert lease.fence == 1
    assert "belongs to another Batch project" in str(refusal(other))


def test_a_host_whose_folder_is_not_the_shared_one_is_refused(shared_home: Home, tmp_path: Path) -> None:
    """A second host with a folder of its own would see a snapshot without files, and one with an old copy wrong ones."""
    with shared_home.opened():
        pass
    elsewhere = shared_home._replace(folder=tmp_path / "unmounted")
    assert "lacks the files of the state in state.database" in str(refusal(elsewhere))
    assert "that all hosts share" in refusal(elsewhere).remedy


def test_a_folder_of_another_state_is_refused(shared_home: Home, another: Server, tmp_path: Path) -> None:
    """Neither a folder with SQLite in it, nor another schema's, is taken: one state would remove the other's files."""
    for number, home in enumerate((Home(tmp_path / "sqlite", None), shared_home)):
        with home.opened():
            pass
        assert "belongs to another state" in str(refusal(Home(home.folder, another))), number
    with emulator.connected() as connection:
        found = connection.execute(sa.select(sa.func.to_regnamespace(another.schema))).scalar_one()
    assert found is None, "a refused state left a schema behind"


def test_a_lost_database_is_not_a_fresh_start(shared_home: Home) -> None:
    """Files without their tables: everybody would be sent again."""
    assert shared_home.server
    with shared_home.opened() as state:
        (state.folder / "ledger" / "orders").mkdir()
        (state.folder / "ledger" / "orders" / "1.arrow").touch()
    emulator.drop(shared_home.server)
    assert "restore the database" in refusal(shared_home).remedy


def test_a_first_run_that_was_killed_is_begun_anew(shared_home: Home) -> None:
    """A folder that is marked for a state which was never made, or was dropped before it delivered, is taken again."""
    assert shared_home.server
    with shared_home.opened():
        pass
    mark = shared_home.folder / "owner"
    for cut in (len(mark.read_text()), 7, 0):
        mark.write_text(mark.read_text()[:cut])
        emulator.drop(shared_home.server)
        with shared_home.opened(), shared_home.opened():
            pass


def test_writers_follow_one_another(shared_home: Home, state: State) -> None:
    """Who writes waits for who began before, and then sees what that one wrote: no update of a count is lost."""
    begun = threading.Event()

    def second() -> None:
        begun.wait()
        with shared_home.opened() as mine, mine.write() as connection:
            value = connection.execute(sa.select(META.c.value).where(META.c.name == "n")).scalar_one()
            connection.execute(sa.update(META).where(META.c.name == "n").values(value=value + "2"))

    thread = threading.Thread(target=second)
    thread.start()
    with state.write() as connection:
        connection.execute(sa.insert(META), {"name": "n", "value": "1"})
        begun.set()
        thread.join(0.3)
        assert thread.is_alive(), "two write at once"
        with state.read() as reader:
            assert not reader.execute(sa.select(META).where(META.c.name == "n")).all(), "readers see what is done"
    thread.join()
    with state.read() as connection:
        assert connection.execute(sa.select(META.c.value).where(META.c.name == "n")).scalar_one() == "12"


def test_a_reader_sees_one_moment(state: State) -> None:
    """What is written between two queries of a reader is not seen by the second alone."""
    with state.read() as reader:
        assert reader.execute(sa.select(sa.func.count()).select_from(META)).scalar_one() == 4
        with state.write() as connection:
            connection.execute(sa.insert(META), {"name": "n", "value": "1"})
        assert reader.execute(sa.select(sa.func.count()).select_from(META)).scalar_one() == 4
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            reader.execute(sa.delete(META))


def test_the_hosts_own_clock_decides_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is hours ahead neither takes a lease that is valid nor overtakes the rate."""
    with state.write() as connection:
        other = {"sync": "customers", "fence": 7, "run": "run-7", "host": "elsewhere", "pid": 1}
        expires = sa.extract("epoch", sa.func.clock_timestamp()) + 60
        connection.execute(sa.insert(LEASES).values(expires=expires, **other))
        rate.hold(connection, "update", 30.0)
    real, monotonic = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 7200)
    assert is_alive(state, "customers")
    assert is_held(state, "customers")
    with pytest.raises(BusyError, match="run run-7 on elsewhere"), hold(state, "customers", "run-8"):
        pytest.fail("two hold it")
    assert 29 < held_for(state, "update") <= 30
    with state.write() as connection:
        wait = rate.reserve(connection, "update", 200, per_second=300.0, burst=0.0)
    monkeypatch.undo()
    assert 29 < wait <= 31


@pytest.mark.parametrize("back", [5.0, 86_400.0])
def test_a_server_clock_that_is_set_back_stops_nobody(state: State, back: float) -> None:
    """Times of a bucket that lie in the future are moved with the clock: no burst, and no wait for the old hour."""
    for _ in range(3):
        with state.write() as connection:
            before = rate.reserve(connection, "update", 300, per_second=300.0, burst=0.0)
    moved = {name: BUCKETS.c[name] + back for name in ("paid_until", "hold_until", "seen", "cut")}
    with state.write() as connection:
        connection.execute(sa.update(BUCKETS).values(**moved))
        wait = rate.reserve(connection, "update", 300, per_second=300.0, burst=0.0)
    assert wait == pytest.approx(before + 1, abs=0.3)


def test_a_live_holder_keeps_its_lease_while_it_is_busy_elsewhere(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that reads for an hour writes nothing, and is not taken for dead by another host."""
    monkeypatch.setattr(leases, "PULSE_SECONDS", 0.02)
    with hold(state, "customers", "run-1"):
        with state.write() as connection:
            connection.execute(sa.update(LEASES).values(expires=1.0, host="elsewhere"))
        deadline = time.monotonic() + 10
        while not is_alive(state, "customers"):
            assert time.monotonic() < deadline, "nobody renews it"
            time.sleep(0.01)
        with state.write() as connection:  # somebody took it over: it is not won back
            connection.execute(sa.update(LEASES).values(expires=1.0, fence=9))
        time.sleep(0.2)
        assert not is_alive(state, "customers")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


def test_a_process_number_of_another_container_means_nothing(state: State) -> None:
    """A holder in another container of this host is respected until its lease expires, whoever has its number here."""
    name = postgres.host()
    assert ("/" in name) == Path("/proc/self/ns/pid").is_symlink(), "it is the container's too"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with hold(state, "customers", "run-1"):
        pass
    for host, is_busy in ((name, False), (name.split("/")[0] + "/other", True)):
        with state.write() as connection:
            connection.execute(sa.update(LEASES).values(run="run-2", host=host, pid=gone.pid, expires=2e11))
        assert is_held(state, "customers") is is_busy
    with pytest.raises(BusyError), hold(state, "customers", "run-3"):
        pytest.fail("two hold it")


def test_any_text_comes_back(home: Home) -> None:
    """Keys and reasons hold what people typed, U+0000 too, which PostgreSQL does not take; their order is of bytes."""
    keys = ["\0", "\x01", "\x010", "\x01\x00", "a\0b", "B", "a", "é", "😀"]
    frame = pl.DataFrame({
        "key": keys, "attribute": keys, "source": ["invalid"] * 9, "reason": keys[::-1], "attempts": [1] * 9,
        "first_seen": [0.0] * 9, "last_seen": [1.5] * 9,
    }, schema=runs.REJECTS_SCHEMA)  # fmt: skip
    with home.opened() as state:
        with state.write() as connection:
            runs.replace_rejects(connection, "customers", frame)
        found = runs.rejects(state, "customers")
        refused = {"files": {"a\0b": ["\0", "é"]}}
        with state.write() as connection:
            snapshots.store(connection, "customers", refused, 1)
            assert snapshots.current(connection, "customers", "profiles") == (refused, 1)
    assert found.sort("key").rows() == frame.sort("key").rows()
    printable = [key for key in found["key"] if key.isprintable()]
    assert printable == sorted(printable)


@pytest.mark.parametrize(
    ("change", "words", "remedy"),
    [
        ({"password": "wr0ng-s3cret"}, "password authentication failed", "correct the password"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist', "make the database"),
        ({"port": 1}, "Connection refused|refused", "see that the server is up"),
        ({"query": {"nonsense": "1"}}, "invalid connection option", "see that the server is up"),
    ],
)
def test_what_keeps_us_from_the_server_is_said_without_the_password(
    shared_home: Home, change: dict[str, object], words: str, remedy: str
) -> None:
    """One sentence, what to do, and nothing secret, in the error nor in what led to it."""
    assert shared_home.server
    url = shared_home.server.url.set(**change)  # type: ignore[arg-type]
    error = refusal(shared_home._replace(server=Server(url, "s")))
    assert error.message.startswith("the state database in PostgreSQL cannot be used: ")
    assert any(each in error.message for each in words.split("|")), error
    assert remedy in error.remedy
    assert url.password
    assert url.password not in str(error) + repr(error) + repr(error.__cause__)
    assert "\n" not in str(error)


def test_errors_of_the_server_hold_no_values(state: State) -> None:
    """A row that is there already, a lock that another holds, a server that only reads: words and a remedy, no keys."""
    row = {"sync": "customers", "key": "jo@example.org", "attribute": "", "source": "invalid", "reason": "r"}
    row |= {"attempts": 1, "first_seen": 0.0, "last_seen": 0.0}
    cases = {
        "UniqueViolation (23505)": (sa.insert(runs.REJECTS), [row, row]),
        "lock timeout (55P03)": (sa.text("SET LOCAL lock_timeout = '1ms'; SELECT pg_advisory_xact_lock(7)"), None),
        "read-only transaction (25006)": (sa.text("SET TRANSACTION READ ONLY; DELETE FROM meta"), None),
    }
    with emulator.connected() as blocker:
        blocker.exec_driver_sql("SELECT pg_advisory_lock(7)")
        for words, (statement, values) in cases.items():
            with pytest.raises(StateError) as caught, state.write() as connection:
                connection.execute(statement, values)
            assert words in caught.value.message
            assert caught.value.remedy
            assert "jo@" not in str(caught.value)
            assert "INSERT" not in str(caught.value)


def test_a_role_with_no_right_to_make_a_schema_uses_one_made_for_it(shared_home: Home) -> None:
    """The least that a role needs is to own its schema."""
    assert shared_home.server
    role = shared_home.server.schema
    with emulator.connected() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'r0le-s3cret'")
        url = shared_home.server.url.set(username=role, password="r0le-s3cret")
        home = shared_home._replace(server=Server(url, role))
        error = refusal(home)
        assert "permission denied" in error.message
        assert "owner" in error.remedy
        shutil.rmtree(home.folder)
        connection.exec_driver_sql(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
        with home.opened() as state, hold(state, "customers", "run-1") as lease:
            assert lease.fence == 1
        connection.exec_driver_sql(f"DROP SCHEMA {role} CASCADE")
        connection.exec_driver_sql(f"DROP ROLE {role}")


def test_a_connection_that_was_cut_is_made_again(state: State) -> None:
    """A run goes on after the server was restarted between two of its writes; a cut in the middle is an error of the state."""
    with state.write() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with emulator.connected() as killer:
        killer.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
    with state.write() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.execute(sa.insert(META), {"name": "n", "value": "1"})
    with (  # noqa: PT012 - a transaction
        emulator.connected() as killer,
        pytest.raises(StateError, match=r"cannot be used: .*terminat"),
        state.write() as connection,
    ):
        connection.execute(sa.delete(META))
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        killer.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.execute(sa.select(META))
    with state.read() as connection:
        assert len(connection.execute(sa.select(META)).all()) == 5
