"""A disk that is full, or a database that may only be read, from any write of a run on: nothing half done, nothing lost."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from connector.report import Report
from tests.world import World

ROWS = 12
LIMITS = "{update: {per_second: 1000000, burst: 1000000, per_call: 4}}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "project")
    made.configure(limits=LIMITS, delivery="{in_flight: 2, give_up_after: 20s, quiet: 0s}")
    made.sql(f"create table customers as select 'c' || i as custom_id, i as visits from range({ROWS}) t(i)")
    made.sql("create table orders (custom_id text, order_id int, amount double, ordered_at timestamp)")
    made.sync(attributes="{visits: visits}", endpoint="update", guard="{max_changed: 100%}")
    made.events_sync(attributes="{amount: amount}", endpoint="update", on_unknown="resend")
    return made


class Disk:
    """Spoils the writes of a run from the n-th on."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._from = 0
        self.writes = 0

    @contextmanager
    def spoilt(self, nth: int) -> Iterator[None]:
        """Until the context ends every write to a file, or to the database, fails from the n-th transaction on."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._from, self.writes = nth, 0
        sa.event.listen(sa.Engine, "begin", self._on_begin)
        try:
            yield
        finally:
            sa.event.remove(sa.Engine, "begin", self._on_begin)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def _on_begin(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("reads"):
            return
        self.writes += 1
        if self.writes < self._from:
            return
        if self._fault == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        else:
            connection.exec_driver_sql("PRAGMA query_only=ON")


def change(world: World, number: int) -> None:
    """Every row of both syncs is due."""
    world.sql("update customers set visits = visits + 100")
    world.sql(f"""insert into orders select custom_id, visits, {number}, now()::timestamp - to_seconds(60)
        from customers""")


def mend(world: World, sync: str) -> Report:
    """Run as often as in-doubt rows need; the last report."""
    report = world.run(sync)
    for _ in range(3):
        if report.planned == 0:
            break
        assert report.outcome == "green", report
        report = world.run(sync)
    return report


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("sync", ["customers", "orders"])
def test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on(world: World, sync: str, fault: str) -> None:
    """G2: from whichever write on, the run fails with a remedy, and what it did not finish the next one does.

    But for the last write, which only gives the lease back: the run is what it was.
    """
    disk, nth, failed, green = Disk(fault), 1, 0, 0
    mend(world, sync)
    while True:
        change(world, nth)
        with disk.spoilt(nth):
            report = world.run(sync)
        if disk.writes < nth:
            break
        if report.outcome == "green":
            assert (green, disk.writes) == (0, nth)
            green += 1
        else:
            assert (report.outcome, report.error and report.error["code"]) == ("failed", "state")
            assert "nothing is lost" in str(report.error and report.error["remedy"])
            failed += 1
        assert mend(world, sync).planned == 0
        if sync == "customers":
            assert world.held() == world.wanted()
            assert world.due() == []
        else:
            assert set(world.event_ids()) == {str(row[0]) for row in world.sql("select order_id from orders")}
        assert list((world.folder / ".connector" / "outbox").iterdir()) == []
        nth += 1
    assert failed + green >= 10, "a run has more writes than that"  # calls under way share theirs
    assert green == 1
