"""Real processes killed at every named step of a run whose engine is the warehouse; the next run finds nothing lost."""

from collections.abc import Iterator

import pytest

from connector._steps import KILL_AT, STEPS
from connector.simulator import serve
from tests.e2e.forks import Fork
from tests.e2e.test_kill_points import DELIVERY, LIMITS, PER_CALL, Profiles
from tests.world import World

AGAIN = ["file.begun:3", "file.synced:4", "chunk.sent:3", "answer.begun:2", "chunk.settled:3"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiles]:
    """A sync of four chunks a run."""
    world = World(tmp_path_factory.mktemp("small") / "project")
    with serve(world.api) as server:
        world.configure(base_url=server.base_url, delivery=DELIVERY, limits=LIMITS)
        yield Profiles(world, 4 * PER_CALL)


def compare_in(world: World, engine: str) -> None:
    """From now on the sync has this engine."""
    world.sync(attributes="{visits: visits, name: name}", endpoint="update", guard="{max_changed: 100%}", engine=engine)


def tables(world: World) -> list[str]:
    """Our tables in the warehouse."""
    found = world.sql("select table_name from duckdb_tables() where schema_name = 'batch_connector'")
    return [str(name) for (name,) in found]


@pytest.mark.parametrize("step", [*STEPS, "warehouse.compared", "warehouse.settled", *AGAIN])
def test_kill_at_a_named_step_loses_nothing(small: Profiles, step: str) -> None:
    """Before the delta, after it, while sending, between the two commits: the rest is sent, and little of it twice."""
    compare_in(small.world, "warehouse")
    small.change()
    kills = 1
    if step.startswith("recovery."):  # a killed run must be there to be recovered
        assert Fork(small.world.folder, "run", small.sync, **{KILL_AT: "chunk.sent:2"}).ended().status == -9
        kills = 2
    assert Fork(small.world.folder, "run", small.sync, **{KILL_AT: step}).ended().status == -9, "the step is not taken"
    small.settle(kills)
    assert len(tables(small.world)) == 1, "the snapshot alone stays in the warehouse"


@pytest.mark.parametrize("step", ["warehouse.moved", "commit.prepared", "warehouse.settled"])
def test_kill_while_the_engine_is_switched_loses_nothing(small: Profiles, step: str) -> None:
    """Half a move is none: what was delivered stays known, on either side."""
    compare_in(small.world, "local")
    assert Fork(small.world.folder, "run", small.sync).ended().status == 0
    compare_in(small.world, "warehouse")
    small.change()
    assert Fork(small.world.folder, "run", small.sync, **{KILL_AT: step}).ended().status == -9, "the step is not taken"
    small.settle(1)
    assert len(tables(small.world)) == 1


def test_kill_while_what_means_the_same_is_taken_over(small: Profiles) -> None:
    """A null that became an empty text is taken over without a row sent, or again at the next run."""
    compare_in(small.world, "warehouse")
    small.change()
    small.world.sql("update customers set name = null")
    assert Fork(small.world.folder, "run", small.sync).ended().status == 0
    small.world.sent()
    small.world.sql("update customers set name = ''")
    killed = Fork(small.world.folder, "run", small.sync, **{KILL_AT: "warehouse.absorbed"})
    assert killed.ended().status == -9, "the step is not taken"
    _, report = Fork(small.world.folder, "run", small.sync).ended()
    assert (report["planned"], report["unchanged"], small.world.sent()) == (0, small.rows, [])
    small.world.sql("update customers set name = 'n'")
    small.settle(0)
