"""On every warehouse both engines plan the same, whatever the source does; each test runs whole syncs against it."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connector.config import Project, load_project
from connector.plan import plan_sync
from connector.report import Report
from connector.sync import Options, run_sync
from tests.contracts.test_warehouses import WAREHOUSES, Bench, DuckDBBench
from tests.emulators.bigquery_bench import BigQueryBench
from tests.laws.twins import COUNTS, Operations, Recorder
from tests.world import World, check_counts

STEPS = 4
MOMENT = datetime(2026, 3, 1, 12, 0, 0, 5000, UTC)
VALUES: dict[str, list[Any]] = {
    "text": [None, "", "x", "a'\"b", " "],
    "integer": [None, 0, -1, 2**53],
    "float": [None, 0.5, 2.0],
    "decimal": [None, Decimal("1.10"), Decimal("2.00")],
    "boolean": [None, True, False],
    "date": [None, date(2020, 2, 29), date(1999, 12, 31)],
    "naive": [None, MOMENT.replace(tzinfo=None), datetime(2020, 6, 1, tzinfo=UTC).replace(tzinfo=None)],
    "aware": [None, MOMENT, datetime(2020, 6, 1, tzinfo=UTC)],
    "json": [None, '["x"]', '["x","y"]'],
    "texts": [[], ["x"], ["x", "y"]],
}
KEYS: dict[str, list[Any]] = {
    "text": [*(f"c{number}" for number in range(6)), None, "null"],
    "integer": [*range(6), None],
    "decimal": [*(Decimal(number) for number in range(6)), Decimal("1.50"), None],
    "float": [*(float(number) for number in range(6)), 1.5, None],
}


class Side:
    """A project whose warehouse is the bench, with one of the engines."""

    def __init__(self, folder: Path, bench: Bench, engine: str) -> None:
        self.world = World(folder)
        assert self.world.transport
        self.wire = Recorder(self.world.transport)
        self.engine = engine
        self._bench = bench

    def project(self, **keys: str) -> Project:
        """With a sync of these settings."""
        self.world.sync(**keys, engine=self.engine)
        found = load_project(self.world.folder)
        return replace(
            found, settings=found.settings.model_copy(update={"warehouses": {"local": self._bench.settings}})
        )

    def run(self, options: Options, **keys: str) -> tuple[dict[str, Any], Operations]:
        """The counts of a run, and what it sent; a plan says the same before, and leaves nothing behind."""
        project = self.project(**keys)
        planned = plan_sync(project, "customers", options).report
        report = run_sync(project, "customers", options, transport=self.wire)
        assert isinstance(report, Report)
        assert report.error is None, report.error
        check_counts(report)
        assert (planned.planned, planned.unchanged) == (report.planned, report.unchanged)
        return {name: getattr(report, name) for name in COUNTS}, self.wire.sent()


@pytest.fixture(params=WAREHOUSES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return WAREHOUSES[request.param](tmp_path)


@pytest.fixture
def sides(bench: Bench, tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    (tmp_path / "password").write_text("not checked")
    pair = Side(tmp_path / "one", bench, "local"), Side(tmp_path / "two", bench, "warehouse")
    for side in pair:
        (side.world.folder / "password").write_text("not checked")
        if (tmp_path / "warehouse.duckdb").exists():
            (side.world.folder / "warehouse.duckdb").symlink_to(tmp_path / "warehouse.duckdb")
    yield pair
    for side in pair:
        side.world.api.close()


class Source:
    """A table that changes: another table each time."""

    def __init__(self, bench: Bench, chance: random.Random, key: str) -> None:
        self._bench, self._chance = bench, chance
        self.kinds = [kind for kind in VALUES if kind in bench.types]
        self._key = key
        self._rows: dict[Any, tuple[Any, ...]] = {}
        self._number = 0

    def changed(self, *, values: bool = True) -> str:
        """The name of the table after some rows came, changed, went or came twice."""
        for key in self._chance.sample(KEYS[self._key], 4 if values else 0):
            self._rows.pop(key, None)
            if self._chance.random() < 0.8:
                self._rows[key] = tuple(self._chance.choice(VALUES[kind]) for kind in self.kinds)
        twice = [row for row in self._rows.items() if values and self._chance.random() < 0.1]
        rows = [(key, *row) for key, row in [*self._rows.items(), *twice]]
        self._number += 1
        name = f"customers_{self._number}"
        columns = {"custom_id": self._key, **{f"of_{kind}": kind for kind in self.kinds}}
        self._bench.create(name, columns, rows)
        return name


@pytest.mark.parametrize("key", KEYS)
def test_both_engines_send_the_same(bench: Bench, sides: tuple[Side, Side], key: str) -> None:
    """Types, nulls, odd keys, removed and repeated rows, refusals and unknown outcomes: step by step alike."""
    seed = int(os.environ.get("ENGINE_SEED") or random.SystemRandom().randrange(10**6))
    chance = random.Random(seed)  # noqa: S311 - the same for the same seed
    source = Source(bench, chance, key)
    for number in range(STEPS):
        table, place = source.changed(), f"seed {seed}, step {number}"
        removed = chance.choice(["ignore", "clear"])
        faults: list[dict[str, Any]] = [
            {"partial": [{"custom_id": "c1", "reason": "no"}, {"custom_id": "1", "reason": "no"}]}
        ]
        faults += [{"status": 500, "apply": True}]  # sent again at once, and due once more
        fault = chance.choice([None, *faults])
        for side in sides:
            side.world.api.clear_faults()
            if fault:
                side.world.api.inject(fault)
        options = Options(allow_mass_change="a test", resend=chance.random() < 0.1)
        one, two = (side.run(options, source=f"{{table: {table}}}", on_removed=removed) for side in sides)
        assert one == two, place
        assert sides[0].world.held() == sides[1].world.held(), place


def test_switching_engines_sends_nothing(bench: Bench, sides: tuple[Side, Side]) -> None:
    """There and back: what was delivered is known on either side."""
    side, source = sides[0], Source(bench, random.Random(1), "text")  # noqa: S311
    table = source.changed()
    keys = {"source": f"{{table: {table}}}"}
    first, sent = side.run(Options(), **keys)
    assert first["planned"] == len(sent) > 0
    for engine in ("warehouse", "warehouse", "local", "local", "warehouse"):
        side.engine = engine
        counts, sent = side.run(Options(), **keys)
        assert (sent, counts["planned"]) == ({}, 0), engine
        assert counts["unchanged"] == first["added"]
        with bench.settings.diff_in(side.world.folder) as differ:
            left = differ.tables("s_customers")
        assert len(left) == (engine == "warehouse"), f"{engine}: {left}"


def test_a_table_that_stands_is_not_read(bench: Bench, sides: tuple[Side, Side]) -> None:
    """On each warehouse, by either engine, unless the snapshot lies in the very file; a row that comes is sent."""
    bench.create("customers", {"custom_id": "text", "plan": "text"}, [("a", "gold"), ("b", "gold")])
    bench.rest()
    shop = "shop." if isinstance(bench, BigQueryBench) else ""
    for added, side in zip("cd", sides, strict=True):
        before = 2 + sides.index(side)
        reads = [_report(side).read for _ in range(3)]
        in_the_file = isinstance(bench, DuckDBBench) and side.engine == "warehouse"
        assert reads == ([before] * 3 if in_the_file else [before, 0, 0])
        assert _report(side).known == before
        bench.execute(f"insert into {shop}customers values ('{added}', 'gold')")
        assert _report(side).added == 1


def _report(side: Side) -> Report:
    report = run_sync(side.project(), "customers", transport=side.wire)
    assert isinstance(report, Report)
    assert report.outcome == "green"
    return report
