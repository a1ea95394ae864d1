"""Laws of what is remembered: whatever interrupts, refuses or folds it, in the end Batch holds what the source says."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from connector.compaction import compact_sync
from connector.config import load_project
from connector.errors import StateError
from connector.report import Report
from connector.state import snapshots
from connector.state.snapshots import AT, Snapshot
from tests.laws.ceilings import lowered
from tests.simulation.crash import Crash, Steps
from tests.world import Dying, World, replayed_by, timeless, wait

HISTORIES = int(os.environ.get("CONVERGENCE_HISTORIES", "6"))
"""Every run draws others, so a soak is CONVERGENCE_HISTORIES=300; CONVERGENCE_SEED=N plays one again."""

MOVES = 14

KEYS = [f"c{number}" for number in range(24)]
VALUES: dict[str, tuple[str, list[Any]]] = {
    "s": ("VARCHAR", [None, "", "x", "é'\""]),
    "i": ("BIGINT", [None, 0, 1, 2**53]),
    "f": ("DOUBLE", [None, 0.0, -0.0, 0.1]),
    "l": ("VARCHAR[]", [None, [], ["x"], ["x", "y"]]),
}


@dataclass
class Life:
    """A sync through random changes of its source, and through whatever may befall what it remembers."""

    world: World
    chance: random.Random
    steps: Steps

    def begin(self) -> None:
        """The table, and a sync that clears who leaves it; with a cursor or without."""
        columns = ", ".join(f"{name} {type_}" for name, (type_, _) in VALUES.items())
        self.world.sql(f"create table customers (custom_id VARCHAR, {columns}, updated_at TIMESTAMPTZ)")
        cursor = {"cursor": "{column: updated_at, overlap: 1m}", "full_read_every": "1h"}
        self.world.sync(
            **(cursor if self.chance.random() < 0.3 else {}),
            attributes=f"{{{', '.join(f'{name}: {name}' for name in VALUES)}}}",
            on_removed="clear",
            guard="{max_changed: 100%, max_removed: 100%, min_rows: 0}",
        )

    def change(self) -> None:
        """Some rows come, change or go."""
        with duckdb.connect(str(self.world.database)) as connection:
            for key in self.chance.sample(KEYS, self.chance.randint(1, 6)):
                connection.execute("delete from customers where custom_id = ?", [key])
                if self.chance.random() < 0.75:
                    row = [self.chance.choice(values) for _, values in VALUES.values()]
                    connection.execute(
                        "insert into customers values (?, ?, ?, ?, ?, ?)", [key, *row, datetime.now(UTC)]
                    )

    def refuse(self) -> None:
        """Batch takes a part of a row, none of it, or says nothing of what it does; for some calls."""
        refused = {"custom_id": self.chance.choice(KEYS), "reason": "no"}
        if self.chance.random() < 0.7:
            refused["attribute"] = self.chance.choice(list(VALUES))
        fault: dict[str, Any] = {"partial": [refused]}
        if self.chance.random() < 0.3:
            fault = {"status": 500, "apply": self.chance.random() < 0.5}
        self.world.api.inject({**fault, "times": self.chance.randint(1, 3)})

    def run(self) -> Report | None:
        """A run, perhaps of a few rows only, which may die at any step; None: it did."""
        limit = self.chance.choice([None, None, 1, 4])
        with self.mortal() as died, Dying(self.world, self.steps):
            return self.world.run(limit=limit)
        assert died
        return None

    def compact(self) -> None:
        """`connector compact`, which may die at any step; what a killed run delivered has to be noted before."""
        project = load_project(self.world.folder)
        with self.mortal():
            try:
                compact_sync(project, project.sync("customers"))
            except StateError as error:
                if "run it first" not in error.remedy:
                    raise

    def damage(self) -> None:
        """The index file, if there is one, is lost, cut, or not what was written."""
        for path in (self.world.folder / ".connector" / "snapshots" / "customers").glob("*.index"):
            whole = path.read_bytes()
            match self.chance.randrange(3 if whole else 1):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(whole[: self.chance.randrange(len(whole))])
                case _:
                    at = self.chance.randrange(len(whole))
                    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    @contextmanager
    def mortal(self) -> Iterator[list[str]]:
        """What is done in the context may die at any step; tells where, if it did."""
        died: list[str] = []
        try:
            with self.steps.counted(self.chance.choice([None, self.chance.randint(1, 40)])):
                yield died
        except Crash as crash:
            died.append(str(crash))
            wait(self.chance.choice([0, 60, 4000]))

    def settle(self) -> None:
        """Batch is well, and runs follow each other until nothing is due and nothing waits."""
        self.world.api.clear_faults()
        for _ in range(3):
            wait(1000)  # the quiet time after an unknown outcome is over
            report = self.world.run(full=True)
            assert report.outcome == "green", report

    def snapshot(self) -> Snapshot:
        """What is remembered."""
        with self.world.opened_state() as state:
            return snapshots.load(state, "customers")


def remembered(found: Snapshot) -> list[tuple[Any, ...]]:
    """Each profile's key and hashes, whatever files they lie in."""
    index = found.index()
    rows = found.rows(index.positions, VALUES).with_columns(index=index.row_hashes)
    return sorted(rows.drop(AT, strict=False).rows())


def seeds() -> list[int]:
    if given := os.environ.get("CONVERGENCE_SEED"):
        return [int(given)]
    return [random.SystemRandom().randrange(10**6) for _ in range(HISTORIES)]


@pytest.mark.parametrize("nth", range(HISTORIES))
def test_refusals_deaths_and_folding_end_at_the_source(nth: int) -> None:
    """Runs, compactions, deaths, lost index files in any order: Batch ends up with the source, more runs plan nothing, no file is left over."""
    for seed in seeds()[nth : nth + 1]:
        chance, place = random.Random(seed), f"CONVERGENCE_SEED={seed}"  # noqa: S311 - the same for the same seed
        with timeless() as world, lowered(chance), replayed_by(place):
            life = Life(world, chance, Steps(world.folder / ".connector"))
            life.begin()
            with life.steps.watched():
                for _ in range(MOVES):
                    move = chance.choices(
                        [life.change, life.refuse, life.run, life.compact, life.damage], [4, 1, 5, 2, 1]
                    )[0]
                    move()
            life.settle()
            held = {key: attributes for key, attributes in world.held().items() if attributes}
            wanted = world.wanted(f"select custom_id, {', '.join(VALUES)} from customers")
            assert held == {key: attributes for key, attributes in wanted.items() if attributes}, place
            before = remembered(life.snapshot())
            assert {row[0] for row in before} == wanted.keys(), place
            life.compact()
            life.damage()
            assert remembered(life.snapshot()) == before, place
            world.sent()
            for _ in range(2):
                wait(4000)  # by then no reader can hold what was folded
                assert (world.run(full=True).planned, world.sent()) == (0, []), place
            found = life.snapshot()
            assert {path.name for path in found.folder.glob("*")} == found.names, place
