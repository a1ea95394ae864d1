"""A state folder that cannot be written, is old, is gone or was tampered with: the run says so, and nothing is lost."""

import errno
import multiprocessing
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from connector._steps import KILL_AT
from connector.cli import main
from connector.simulator import serve
from tests.e2e.forks import Fork
from tests.world import World, timeless, wait

ROWS = 12
CURSOR = {"cursor": "{column: updated_at, overlap: 0s}", "guard": "{max_changed: 100%}"}


def make(world: World, **sync: str) -> World:
    """A dozen customers, in chunks of four."""
    limits = "{update: {per_second: 1000000, burst: 1000000, per_call: 4}, other: {per_second: 1000}}"
    world.configure(limits=limits, delivery="{in_flight: 2, give_up_after: 20s, quiet: 0s}")
    world.sql(f"""create table customers as select 'c' || i as custom_id, i as visits,
        now() - interval 1 hour as updated_at from range({ROWS}) t(i)""")
    world.sync(**({"attributes": "{visits: visits}", "guard": "{max_changed: 100%}"} | sync))
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(World(tmp_path / "project"))


def settled(world: World) -> None:
    """A run, and another for what was in doubt: Batch holds what the warehouse says, and then nothing is sent."""
    assert world.run().outcome == "green"
    world.run()
    assert world.held() == world.wanted("select custom_id, visits from customers")
    assert world.run().requests == 0


class Disk:
    """A disk whose fsync fails from the n-th on."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self._sync = os.fsync

    @contextmanager
    def broken(self, nth: int) -> Iterator[None]:
        """Until the context ends."""
        self.synced.clear()

        def fsync(handle: int) -> None:
            self.synced.append(os.fstat(handle).st_ino)
            if len(self.synced) >= nth:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._sync(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield


def test_a_file_that_cannot_be_made_safe_is_not_believed(world: World) -> None:
    """G2: whichever fsync fails, it is not tried again, the run fails with a remedy, and the next one goes on."""
    disk, nth = Disk(), 1
    settled(world)
    while True:
        world.sql("update customers set visits = visits + 100")
        with disk.broken(nth):
            report = world.run()
        if len(disk.synced) < nth:
            break
        assert len(disk.synced) == nth, "it was tried again, or something else was written"
        assert (report.outcome, (report.error or {})["code"]) == ("failed", "state")
        assert "Input/output error" in str((report.error or {})["message"])
        settled(world)
        nth += 1
    assert nth > 4, "outbox and snapshot are synced, and their folders"


@pytest.mark.parametrize("folder", ["file", "file/state", "/proc/state"])
def test_a_state_that_cannot_be_there_is_one_sentence(world: World, folder: str) -> None:
    """Nothing is read or sent, and the operator is told which folder and what to do, without a traceback."""
    (world.folder / "file").write_text("")
    settings = world.folder / "connector.yaml"
    settings.write_text(f"{settings.read_text()}state: {folder}\n")
    report = world.run()
    assert (report.outcome, report.read, report.error and report.error["code"]) == ("failed", 0, "state")
    assert "state folder" in str((report.error or {})["message"])
    assert (report.error or {})["remedy"]
    assert world.api.requests == []


def starved(project: Path, spare: int) -> None:
    """A run of the command line in a process that may open so many files more, and no other."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for handle in taken[:spare]:
        os.close(handle)
    sys.exit(main(["--project", str(project), "run", "customers", "--json"]))


def test_too_few_file_handles_lose_nothing(world: World) -> None:
    """G2: wherever a run can open no further file it fails, and the next one does what it could not."""
    ended = []
    with serve(world.api) as server:
        world.configure(base_url=server.base_url, delivery="{in_flight: 1, give_up_after: 1s, quiet: 0s}")
        for spare in range(2, 16, 2):
            world.sql("update customers set visits = visits + 100")
            run = multiprocessing.get_context("forkserver").Process(target=starved, args=(world.folder, spare))
            run.start()
            run.join(60)
            ended.append(run.exitcode)
            settled(world)
    assert ended[0] == 1
    assert ended[-1] == 0
    assert set(ended) <= {0, 1, 3}


def test_an_outbox_that_was_altered_is_not_taken_over(world: World) -> None:
    """What a killed run had sent is told by its outbox alone: altered, it is not believed, and --resend is a way out."""
    with serve(world.api) as server:
        world.configure(base_url=server.base_url)
        assert Fork(world.folder, "run", "customers", **{KILL_AT: "chunk.settled"}).ended().status == -9
    (outbox,) = (world.folder / ".connector" / "outbox").glob("*.parquet")
    content = bytearray(outbox.read_bytes())
    content[len(content) // 2] ^= 1
    outbox.write_bytes(content)
    world.sent()
    report = world.run()
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "state")
    assert "was altered" in str((report.error or {})["message"])
    assert world.sent() == []
    assert world.run(resend=True).accepted == ROWS
    settled(world)


def test_a_state_from_an_old_backup_converges(tmp_path: Path) -> None:
    """What changed since the backup goes again, cursor or not; what went back to its old value, a reconciliation finds."""
    with timeless() as world:
        make(world, **CURSOR)
        state, backup = world.folder / ".connector", tmp_path / "backup"
        world.run()
        shutil.copytree(state, backup)
        world.sql(
            "update customers set visits = visits + 100, updated_at = now() where custom_id in ('c1', 'c2', 'c3')"
        )
        wait(60)
        assert world.run().accepted == 3
        shutil.rmtree(state)
        shutil.copytree(backup, state)
        world.sql("update customers set visits = 3, updated_at = now() where custom_id = 'c3'")
        world.sent()
        assert world.run().outcome == "green"
        assert sorted(world.sent()) == ["c1", "c2"]
        wait(60)
        found = world.reconcile(heal=True)
        assert (found.missing, found.differing, found.healed) == (0, 1, 1)
        settled(world)


def test_a_state_that_is_gone_starts_at_the_beginning(tmp_path: Path) -> None:
    """Without what was delivered everything is due, cursor or not: never only what is new from now on."""
    world = make(World(tmp_path / "project"), **CURSOR)
    world.run()
    assert world.run().read == 0
    shutil.rmtree(world.folder / ".connector")
    report = world.run()
    assert (report.full, report.read, report.added, report.accepted) == (True, ROWS, ROWS, ROWS)


def test_another_key_column_is_refused(world: World) -> None:
    """The snapshot is of other people then: nothing is compared with it, and nothing sent unasked."""
    world.run()
    world.sql("alter table customers add column email text; update customers set email = custom_id || '@example.org'")
    world.sync(attributes="{visits: visits}", key="email")
    world.sent()
    report = world.run()
    assert (report.outcome, (report.error or {})["code"]) == ("failed", "state")
    assert "was made with key 'custom_id'" in str((report.error or {})["message"])
    assert world.sent() == []
    assert world.run(resend=True).accepted == ROWS
