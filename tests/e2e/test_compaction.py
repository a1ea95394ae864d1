"""Folding what is remembered: by itself, by `connector compact`, and without a difference to what is sent next."""

import random
from pathlib import Path
from typing import Any

import pytest

from connector.compaction import compact_sync
from connector.config import load_project
from connector.errors import BusyError, StateError
from connector.state import folding, ledger, snapshots
from connector.state.lease import hold
from connector.state.snapshots import Snapshot
from tests.simulation.crash import Crash, Steps
from tests.world import Dying, World, timeless, wait

NAMES = ("visits", "points")


def snapshot(world: World) -> Snapshot:
    with world.opened_state() as state:
        return snapshots.load(state, "customers")


def live(found: Snapshot) -> list[tuple[Any, ...]]:
    """What the snapshot says of every profile, whatever its files."""
    rows = found.rows(found.index().positions, NAMES, at=True)
    return sorted(rows.rows())


def changed(world: World, chance: random.Random, keys: int) -> None:
    for key in chance.sample(range(keys), 5):
        world.sql(f"delete from customers where custom_id = 'c{key}'")
        if chance.random() < 0.7:
            world.sql(f"insert into customers values ('c{key}', {chance.randrange(5)}, {chance.randrange(5)})")


@pytest.mark.parametrize("seed", range(3))
def test_folding_changes_nothing_that_is_remembered(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However files are folded, and with an index file or without: the same rows live, and the next run sends the same."""
    chance = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(folding, "FILES_MAX", chance.choice([2, 3, 5, 32]))
    monkeypatch.setattr(folding, "INDEX_ROWS", chance.choice([1, 10, 250_000]))
    with timeless() as world, timeless() as plain:
        for each in (world, plain):
            each.sync(on_removed="clear", guard="{max_changed: 100%, max_removed: 100%, min_rows: 0}")
            each.sql(
                "create table customers as select 'c' || i as custom_id, 0 as visits, 0 as points from range(200) t(i)"
            )
        for number in range(12):
            for each in (world, plain):
                changed(each, random.Random(seed + number), 200)  # noqa: S311
            if chance.random() < 0.3:
                compact_sync(load_project(world.folder), load_project(world.folder).sync("customers"))
                assert len(snapshot(world).files) <= 1
            with monkeypatch.context() as patch:
                patch.setattr(folding, "FILES_MAX", 1000)
                patch.setattr(folding, "INDEX_ROWS", 10**9)
                plain.run()
            world.run()
            assert sorted(world.sent()) == sorted(plain.sent())
            assert [row[0] for row in live(snapshot(world))] == [row[0] for row in live(snapshot(plain))]
        assert world.run().planned == 0
        assert world.held() == plain.held()


def test_late_files_are_folded_among_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit writes stays in proportion to what was accepted: the first file is left until the others weigh something."""
    monkeypatch.setattr(folding, "FILES_MAX", 4)
    with timeless() as world:
        world.sync()
        world.sql(
            "create table customers as select 'c' || i as custom_id, 0 as visits, 0 as points from range(1000) t(i)"
        )
        world.run()
        first = snapshot(world).files[0]
        for number in range(1, 6):
            world.sql(f"update customers set visits = {number} where custom_id in ('c1', 'c{number}')")
            world.run()
        assert [file["rows"] for file in snapshot(world).files] == [1000, 4, 2]
        assert snapshot(world).files[0] == first
        for number in range(10, 14):
            world.sql(f"update customers set visits = {number} where length(custom_id) = {number % 2 + 3}")
            world.run(allow_mass_change="all of them")
        assert len(snapshot(world).files) <= 4
        assert live(snapshot(world))
        assert world.run().planned == 0


def test_the_ledger_is_folded_to_a_file_a_day(tmp_path: Path) -> None:
    """No event that was sent is sent again."""
    world = World(tmp_path / "project")
    world.events_sync()
    world.sql("create table orders (custom_id text, order_id text, ordered_at timestamp)")
    for number in range(5):
        world.sql(f"insert into orders values ('c1', 'o{number}', now()::timestamp - interval 1 minute)")
        world.run("orders")
    project = load_project(world.folder)
    done = compact_sync(project, project.sync("orders"))
    assert (done.files_before, done.files_after) == (5, 1)
    with world.opened_state() as state:
        assert len(ledger.load(state, "orders").files) == 1
    report = world.run("orders")
    assert (report.already_sent, report.planned) == (5, 0)
    again = compact_sync(project, project.sync("orders"))
    assert (again.files_before, again.files_after) == (1, 1)


def test_a_sync_that_runs_or_was_killed_is_left_alone(tmp_path: Path) -> None:
    """A run holds its files; what a killed one delivered has to be noted first."""
    world = World(tmp_path / "project")
    world.sync()
    world.sql("create table customers as select 'c' || i as custom_id, i as visits from range(1000) t(i)")
    project = load_project(world.folder)
    with world.opened_state() as state, hold(state, "customers", "a-run"), pytest.raises(BusyError):
        compact_sync(project, project.sync("customers"))
    steps = Steps(world.folder / ".connector")
    with steps.watched(), pytest.raises(Crash), steps.counted(("answer", 1)), Dying(world, steps):
        world.run()
    with pytest.raises(StateError, match="run it first: connector run customers"):
        compact_sync(project, project.sync("customers"))
    world.run()
    assert compact_sync(project, project.sync("customers")).files_after == 1


def test_killed_at_every_step_of_a_compaction() -> None:
    """Wherever it dies, the snapshot is what it was or what it was to become, and nothing is sent again."""
    step, died = 0, True
    while died:
        step += 1
        with timeless() as world:
            world.sync()
            world.sql(
                "create table customers as select 'c' || i as custom_id, 0 as visits, 0 as points from range(9) t(i)"
            )
            world.run()
            world.sql("update customers set visits = 1 where custom_id = 'c1'")
            world.run()
            before, steps = live(snapshot(world)), Steps(world.folder / ".connector")
            world.sent()
            project = load_project(world.folder)
            try:
                with steps.watched(), steps.counted(step):
                    compact_sync(project, project.sync("customers"))
                died = False
            except Crash:
                wait(3600)
            assert live(snapshot(world)) == before, f"died at step {step}"
            assert (world.run().planned, world.sent()) == (0, []), f"died at step {step}"
    assert step > 3
