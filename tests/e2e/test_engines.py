"""`engine: warehouse` as an operator meets it: guards, windows, mistakes and lost tables."""

from pathlib import Path

import pytest

from connector.report import Report
from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "project")
    world.sync(engine="warehouse")
    world.sql("create table customers as select 'c' || i as custom_id, i as visits, 'n' as name from range(20) t(i)")
    assert world.run().accepted == 20
    world.sent()
    return world


def failed(report: Report) -> str:
    """The message of a run that failed."""
    assert report.outcome == "failed"
    assert report.error
    return str(report.error["message"]) + str(report.error["remedy"])


def ours(world: World) -> list[str]:
    """The tables of our schema."""
    query = "select table_name from duckdb_tables() where schema_name = 'batch_connector'"
    return [str(name) for (name,) in world.sql(query)]


def test_a_mass_change_stops_before_the_first_request(world: World) -> None:
    """The guard counts as it does for the local engine, and the same rows are due at the next run."""
    world.sql("update customers set visits = visits + 1")
    report = world.run()
    assert (report.outcome, report.changed, report.unsent, world.sent()) == ("guarded", 20, 20, [])
    assert world.run(allow_mass_change="it is meant").accepted == 20
    assert world.held() == world.wanted()


def test_an_empty_source_clears_nobody(world: World) -> None:
    """`min_rows` and `max_removed` are asked before the snapshot is touched."""
    world.sync(engine="warehouse", on_removed="clear")
    world.sql("delete from customers")
    assert world.run().outcome == "guarded"
    assert world.sent() == []


def test_repeated_keys_can_stop_a_run(world: World) -> None:
    """`dedupe: error` sends nothing, though the two rows equal what was delivered."""
    world.sync(engine="warehouse", dedupe="error")
    world.sql("insert into customers select * from customers where custom_id = 'c1'")
    assert "found more than once: 1" in failed(world.run())


def test_a_limit_leaves_the_rest_due(world: World) -> None:
    """At most so many rows are planned, and runs with a limit get there in the end."""
    world.sql("update customers set visits = visits + 1")
    for _ in range(4):
        assert world.run(limit=5, allow_mass_change="it is meant").planned == 5
    assert world.run().planned == 0
    assert world.held() == world.wanted()


def test_a_plan_writes_nothing(world: World) -> None:
    """Neither a table nor a row, while the file is open to other readers."""
    world.sql("update customers set visits = 99 where custom_id = 'c3'")
    before = ours(world)
    for _ in range(2):
        assert world.plan().by_attribute == {"visits": 1, "name": 0}
    assert ours(world) == before


def test_a_snapshot_that_is_gone_is_told_with_the_ways_out(world: World) -> None:
    """Nothing is sent unasked; `--resend` starts anew."""
    world.sql(f"drop table batch_connector.{ours(world)[0]}")
    assert "is gone" in failed(world.run())
    assert world.sent() == []
    assert world.run(resend=True, allow_mass_change="it is meant").accepted == 20
    assert world.run().planned == 0


def test_reconciling_is_refused(world: World) -> None:
    """Rather than finding nothing to compare."""
    report = world.reconcile()
    assert report.outcome == "failed"
    assert report.error
    assert "cannot be reconciled yet" in str(report.error["message"])


def test_removed_rows_are_cleared_once_and_may_come_back(world: World) -> None:
    """Cleared and accepted, a row leaves the snapshot."""
    world.sync(engine="warehouse", on_removed="clear")
    world.sql("delete from customers where custom_id = 'c1'")
    assert (world.run().removed, world.run().planned) == (1, 0)
    world.sql("insert into customers values ('c1', 7, 'n')")
    assert (world.run().added, world.held()) == (1, world.wanted())


@pytest.mark.parametrize("engine", ["local", "warehouse"])
def test_what_changed_when_the_engine_did_is_sent_alone(world: World, engine: str) -> None:
    """A value, a null that has a value by now, a row that came: each goes, and nothing else does."""
    other = "warehouse" if engine == "local" else "local"
    world.sync(engine=other)
    world.sql("update customers set name = null where custom_id = 'c1'")
    world.run()
    world.sent()
    world.sync(engine=engine)
    world.sql("update customers set name = 'back' where custom_id = 'c1'")
    world.sql("update customers set visits = 99 where custom_id = 'c2'")
    world.sql("insert into customers values ('new', 1, 'n')")
    report = world.run()
    assert (report.added, report.changed, sorted(world.sent())) == (1, 2, ["c1", "c2", "new"])
    assert world.held() == world.wanted()
