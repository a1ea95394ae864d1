"""`connector adopt`: today's rows count as delivered, and nothing is sent."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from connector.errors import UsageError
from tests.simulation.crash import Crash, Steps
from tests.world import World, timeless, wait

LONG_AGO = "now()::timestamp - interval 10 day"


@pytest.fixture(params=["local", "warehouse"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    world = World(tmp_path / "project")
    world.sync(engine=request.param, on_removed="clear")
    world.sql("create table customers as select 'c' || i as custom_id, i as visits from range(1000) t(i)")
    return world


def test_rows_that_another_tool_delivered_are_never_sent(world: World) -> None:
    """Nothing is sent; from then on a change is, and only that."""
    report = world.run(adopt=True)
    assert (report.outcome, report.adopted, report.accepted, report.requests) == ("green", True, 1000, 0)
    assert world.run().planned == 0
    world.sql("update customers set visits = -1 where custom_id = 'c7'")
    assert world.run().changed == 1
    assert world.sent() == ["c7"]


def test_what_changed_meanwhile_counts_as_delivered(world: World) -> None:
    """Changed, new and removed rows alike, past every guard: nothing goes out that one would have to hold back."""
    world.run()
    world.sent()
    world.sql("update customers set visits = visits + 1")
    world.sql("delete from customers where custom_id < 'c5'")
    world.sql("insert into customers values ('new', 1)")
    assert world.run(adopt=True).outcome == "green"
    assert (world.run().planned, world.sent()) == (0, [])


def test_a_lost_state_is_adopted_instead_of_sent_again(world: World) -> None:
    """Files that cannot be believed stop every run, and say so; `adopt` starts over without them."""
    world.sync(engine="local")
    world.run()
    world.sent()
    shutil.rmtree(world.folder / ".connector" / "snapshots")
    stopped = world.run()
    assert stopped.error
    assert "connector adopt customers" in str(stopped.error["remedy"])
    assert world.run(adopt=True).accepted == 1000
    assert (world.run().planned, world.sent()) == (0, [])


def test_hashes_of_another_recipe_are_made_anew_and_nothing_is_sent(world: World) -> None:
    """After an upgrade that hashes otherwise every run stops and says so; one full read by `adopt` mends it."""
    world.sync(engine="local")
    world.run()
    world.sent()
    with closing(sqlite3.connect(world.folder / ".connector" / "state.db")) as database:
        database.execute("update snapshots set manifest = json_set(manifest, '$.hash_version', 1)")
        database.commit()
    stopped = world.run()
    assert stopped.error
    assert "another recipe" in str(stopped.error["message"])
    assert "connector adopt customers" in str(stopped.error["remedy"])
    assert world.run(adopt=True).accepted == 1000
    world.sql("update customers set visits = -1 where custom_id = 'c7'")
    assert (world.run().changed, world.sent()) == (1, ["c7"])


def test_a_value_that_breaks_a_rule_is_not_adopted(world: World) -> None:
    """It stays withheld, as nobody can have delivered it, and goes once it is mended."""
    world.sql("alter table customers add column born varchar")
    world.sync(attributes="{visits: visits, born: {column: born, type: date}}")
    world.sql("update customers set born = 'x' where custom_id = 'c1'")
    assert world.run(adopt=True).withheld == 1
    world.sql("update customers set born = '1990-01-02' where custom_id = 'c1'")
    assert world.run().planned == 1
    assert world.held()["c1"]["born"]


@pytest.mark.parametrize("late", ["hold", "drop", "restamp"])
def test_events_of_all_ages_count_as_sent(tmp_path: Path, late: str) -> None:
    """Old ones and held ones too: what comes later is sent, and nothing else."""
    world = World(tmp_path / "project")
    world.events_sync(late=late)
    world.sql(
        f"""create table orders as select 'c' || i as custom_id, 'o' || i as order_id,
            case when i % 2 = 0 then {LONG_AGO} else now()::timestamp - interval 1 hour end as ordered_at from range(10) t(i)"""
    )
    if late == "hold":
        world.run("orders", limit=1)
        world.sent()
    report = world.run("orders", adopt=True)
    assert (report.outcome, report.requests, report.undecided) == ("green", 0, 0)
    again = world.run("orders")
    assert (again.already_sent, again.planned, world.sent()) == (10, 0, [])
    world.sql("insert into orders values ('c1', 'new', now()::timestamp)")
    assert world.run("orders").accepted == 1


def test_an_export_delivers_nothing_that_could_be_adopted(tmp_path: Path) -> None:
    """A mistake of the caller's, told as one."""
    world = World(tmp_path / "project")
    world.export_sync()
    with pytest.raises(UsageError, match="adopt is for syncs that send rows"):
        world.pull(adopt=True)


def test_an_adoption_of_a_lost_state_that_failed_stays_owed(world: World) -> None:
    """No run sends anything until one adopted the rows; a plan says so."""
    world.sync(engine="local")
    world.run()
    world.sent()
    shutil.rmtree(world.folder / ".connector" / "snapshots")
    world.sync(engine="local", attributes="{visits: visits, gone: gone}")
    assert "no column 'gone'" in str(world.run(adopt=True).error)
    world.sync(engine="local")
    stopped = world.run()
    assert stopped.error
    assert "did not come to its end" in str(stopped.error["message"])
    assert "was to adopt the rows" in world.plan().notes[0]
    assert world.sent() == []
    assert world.run(adopt=True).accepted == 1000
    assert (world.run().planned, world.sent()) == (0, [])


def test_a_mistake_in_an_adoption_leaves_a_whole_state_as_it_was(world: World) -> None:
    """What failed before a row was taken owes nothing: the next run sends what differs, and no more."""
    world.sync(engine="local")
    world.run()
    world.sent()
    world.sync(engine="local", source="{table: costumers}")
    assert world.run(adopt=True).outcome == "failed"
    world.sync(engine="local")
    world.sql("update customers set visits = -1 where custom_id = 'c7'")
    assert (world.run().outcome, world.sent()) == ("green", ["c7"])


def test_an_empty_source_is_not_adopted(world: World) -> None:
    """`guard.min_rows` holds: else everybody would look new, or gone, once the table is filled again."""
    world.run()
    world.sent()
    world.sql("create table kept as from customers")
    world.sql("delete from customers")
    stopped = world.run(adopt=True)
    assert (stopped.outcome, stopped.accepted) == ("guarded", 0)
    assert "lower guard.min_rows" in str((stopped.error or {})["remedy"])
    world.sql("insert into customers from kept")
    assert (world.run().planned, world.sent()) == (0, [])


def test_killed_at_every_step_of_an_adoption() -> None:
    """Wherever it dies, no run sends a row, and the next adoption comes to its end."""
    step, died = 0, True
    while died:
        step += 1
        with timeless() as world:
            world.sync()
            world.sql("create table customers as select 'c' || i as custom_id, i as visits from range(8) t(i)")
            world.run()
            world.sent()
            world.sql("update customers set visits = -1 where custom_id < 'c3'")
            shutil.rmtree(world.folder / ".connector" / "snapshots" / "customers")
            steps = Steps(world.folder / ".connector")
            try:
                with steps.watched(), steps.counted(step):
                    world.run(adopt=True)
                died = False
            except Crash:
                wait(3600)
            owed = world.run()
            assert owed.planned == 0, f"died at step {step}"
            assert world.run(adopt=True).outcome == "green", f"died at step {step}"
            assert (world.run().planned, world.sent()) == (0, []), f"died at step {step}"
    assert step > 20
