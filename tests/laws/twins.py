"""Two worlds with one source, one history and one API's moods: their runs differ in the engine, or in what they may hold."""

import gzip
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx

from connector.report import Report
from tests.laws.ceilings import lowered
from tests.simulation.machine import Clock, machine
from tests.world import World, replayed_by

COUNTS = (
    "outcome", "read", "unchanged", "added", "changed", "retried", "removed", "invalid", "withheld", "skipped", "planned",
    "accepted", "rejected", "unsent", "known", "full",
)  # fmt: skip

Operations = dict[str, dict[str, Any]]
"""What was sent of each custom ID; of several operations the last value of each attribute."""


class Recorder(httpx.AsyncBaseTransport):
    """The way to an API, and what went there."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._sent: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        body = await request.aread()
        text = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        self._sent += json.loads(text)
        return await self._inner.handle_async_request(request)

    def sent(self) -> Operations:
        """The operations since the last call."""
        found: Operations = {}
        for operation in self._sent:
            found.setdefault(operation["identifiers"]["custom_id"], {}).update(operation["attributes"])
        self._sent.clear()
        return found


class Side:
    """One of the two: a world, its warehouse, and its engine."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.world = World(folder, clock)
        assert self.world.transport
        self.wire = Recorder(self.world.transport)
        self.world.transport = self.wire
        self.engine = "local"
        self.bounds: Callable[[], AbstractContextManager[None]] = nullcontext
        """What its runs and plans happen within."""

    def sql(self, *statements: tuple[str, list[Any]]) -> None:
        """Change the source."""
        with duckdb.connect(str(self.world.database)) as connection:
            connection.execute("SET TimeZone='UTC'")
            for statement, given in statements:
                connection.execute(statement, given)

    def configure(self, keys: dict[str, str]) -> None:
        """The sync's settings."""
        self.world.sync(**keys, engine=self.engine)

    def held(self) -> dict[str, Any]:
        """What the API holds."""
        return {key: attributes for key, attributes in self.world.held().items() if attributes}

    def rejects(self) -> list[tuple[Any, ...]]:
        """What is listed, without times; of rows without a key, which share one place, without their reason."""
        names = ("key", "attribute", "source", "reason", "attempts")
        rows = (row if row["key"] else row | {"reason": ""} for row in self.world.rejects())
        return sorted((tuple(row[name] for name in names) for row in rows), key=repr)

    def due(self) -> list[tuple[Any, ...]]:
        """What is due again, without times."""
        return sorted((row["key"], row["reason"], row["whole"]) for row in self.world.due())


@dataclass
class Step:
    """What both sides did in one step."""

    reports: list[Report]
    sent: list[Operations]
    plans: list[dict[str, int]]

    def counts(self) -> list[dict[str, Any]]:
        """The two reports' counts."""
        return [{name: getattr(report, name) for name in COUNTS} for report in self.reports]


TYPES = {
    "s": "VARCHAR", "i": "BIGINT", "f": "DOUBLE", "d": "DECIMAL(12,2)", "b": "BOOLEAN", "day": "DATE", "t": "TIMESTAMP",
    "z": "TIMESTAMPTZ", "l": "VARCHAR[]", "j": "JSON", "n": "INTEGER[]",
}  # fmt: skip

NAIVE = datetime(2020, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None)

VALUES: dict[str, list[Any]] = {
    "s": [None, "", "x", "y", " ", "a'\"b", "7"],
    "i": [None, 0, 1, 2**53, -1],
    "f": [None, 0.0, 1.5, 0.1, float("nan"), float("inf")],
    "d": [None, Decimal("1.10"), Decimal("2.00"), Decimal("0.01")],
    "b": [None, True, False],
    "day": [None, date(2020, 2, 29), date(1999, 12, 31)],
    "t": [None, NAIVE, NAIVE.replace(microsecond=1000), NAIVE.replace(microsecond=1001)],
    "z": [None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 6, 1, 1, tzinfo=UTC)],
    "l": [None, [], ["x"], ["x", "y"], ["y", "x"], ["x", None]],
    "j": [None, '["x"]', '["x", "y"]', '[ "x","y"]', "{}", "[]"],
    "n": [None, [1], [1, 2]],
}  # fmt: skip

ATTRIBUTES = {
    "s": "s", "kept": "{column: s, on_null: keep}", "i": "i", "i_text": "{column: i, type: string}", "f": "f", "d": "d",
    "b": "b", "day": "day", "t": "t", "z": "z", "l": "l", "bag": "{column: l, unordered: true}",
    "j": "{column: j, type: array}", "n": "n", "s_number": "{column: s, type: integer}",
}  # fmt: skip

KEYS: dict[str, list[Any]] = {
    "VARCHAR": [*(f"c{number}" for number in range(9)), None, "", "null", "é'\""],
    "BIGINT": [*range(9), None, -5],
    "DOUBLE": [*(float(number) for number in range(9)), None, 1.5, float("nan")],
    "DECIMAL(9,2)": [*(Decimal(number) for number in range(9)), None, Decimal("1.50")],
    "HUGEINT": [*range(9), None, 2**70],
}


@dataclass
class History:
    """A random history of one source, played on two sides.

    Attributes:
        chance: Where every choice comes from.
        clock: Of both sides.
        sides: The local engine's side, and the other.
        settled: Whether nothing moves between engines: then both do the same to the letter.
        engines: Whether the second side's is the warehouse; else its runs are held to lowered bounds.
    """

    chance: random.Random
    clock: Clock
    sides: tuple[Side, Side]
    settled: bool
    engines: bool = True
    key: str = "VARCHAR"
    cursor: bool = False
    names: list[str] = field(default_factory=list)
    on_removed: str = "ignore"
    dedupe: str = "reject"

    def begin(self) -> None:
        """The table, and the first mapping."""
        chance = self.chance
        self.key, self.cursor = chance.choice(list(KEYS)), chance.random() < 0.4
        self.names = sorted(chance.sample(list(ATTRIBUTES), chance.randint(1, 6)))
        self.on_removed = chance.choice(["ignore", "clear"])
        self.dedupe = chance.choice(["reject", "reject", *(["latest"] if self.cursor else [])])
        columns = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
        for side in self.sides:
            side.sql((f"create table customers (custom_id {self.key}, {columns}, updated_at TIMESTAMPTZ)", []))
        if self.engines:
            self.sides[1].engine = "warehouse"
        else:
            self.sides[1].bounds = lambda: lowered(self.chance)

    def mutate(self) -> None:
        """Some rows come, change, go, or come twice."""
        now = datetime.now(UTC)  # the warehouse's clock is this machine's
        statements: list[tuple[str, list[Any]]] = []
        for _ in range(self.chance.randint(0, 7)):
            key = self.chance.choice(KEYS[self.key])
            if self.chance.random() < 0.85:  # else the key may come twice
                statements.append(("delete from customers where custom_id is not distinct from ?", [key]))
            if self.chance.random() < 0.85:
                row = [self.chance.choice(VALUES[name]) for name in TYPES]
                places = ", ".join("?" * (len(row) + 2))
                statements.append((f"insert into customers values ({places})", [key, *row, now]))
            if self.chance.random() < 0.3:
                name = self.chance.choice(list(TYPES))
                change = f"update customers set {name} = ?, updated_at = ? where custom_id is not distinct from ?"
                statements.append((change, [self.chance.choice(VALUES[name]), now, key]))
        for side in self.sides:
            side.sql(*statements)

    def remap(self) -> None:
        """Another mapping, another way with removed rows, or another engine."""
        if not self.settled and self.chance.random() < 0.25:
            self.names = sorted(self.chance.sample(list(ATTRIBUTES), self.chance.randint(1, 6)))
        if self.engines and not self.settled and self.chance.random() < 0.3:
            self.sides[1].engine = self.chance.choice(["local", "warehouse"])
        if self.chance.random() < 0.1:
            self.on_removed = self.chance.choice(["ignore", "clear"])

    def trouble(self) -> None:
        """The API refuses, fails, or does what it was told without saying so; both do alike."""
        faults: list[dict[str, Any]] = []
        key = str(self.chance.choice(KEYS[self.key][:9])).removesuffix(".0")
        match self.chance.randint(0, 7):
            case 0:
                faults = [
                    {
                        "partial": [{"custom_id": key, "attribute": self.chance.choice(self.names), "reason": "no"}],
                        "times": 1,
                    }
                ]
            case 1:
                faults = [{"partial": [{"custom_id": key, "reason": "no"}], "times": 1}]
            case 2:
                faults = [{"status": 500, "apply": self.chance.random() < 0.5, "times": 9}]
        for side in self.sides:
            side.world.api.clear_faults()
            if faults:
                side.world.api.inject(*faults)

    def step(self) -> Step:
        """One change of the world, and a run on each side."""
        self.mutate()
        self.remap()
        self.trouble()
        mapped = ", ".join(f"{name}: {ATTRIBUTES[name]}" for name in self.names)
        keys = {"attributes": f"{{{mapped}}}", "on_removed": self.on_removed, "dedupe": self.dedupe}
        if self.cursor:
            keys["cursor"] = "{column: updated_at, overlap: 1m}"
        options: dict[str, Any] = {"allow_mass_change": "a test" if self.chance.random() < 0.9 else None}
        options["full"] = self.chance.random() < 0.2
        if self.settled and self.chance.random() < 0.15:
            options["keys"] = tuple(str(key) for key in KEYS["VARCHAR"][:2] + KEYS["BIGINT"][:2])
        if self.chance.random() < 0.08:
            options["resend"] = True
        self.clock.sleep(self.chance.choice([61, 120, 1200]))
        for side in self.sides:
            side.configure(keys)
        plans = []
        for side in self.sides:
            with side.bounds():
                plans.append(side.world.plan(**options).by_attribute)
        at = self.clock.wall()
        reports = []
        for side in self.sides:
            self.clock.sleep(at - self.clock.wall() if at > self.clock.wall() else 0)
            with side.bounds():
                reports.append(side.world.run(**options))
        return Step(reports, [side.wire.sent() for side in self.sides], plans)


@contextmanager
def history(seed: int, *, settled: bool, engines: bool = True) -> Iterator[History]:
    """A history whose every choice comes from the seed; its folders are in memory where there is such a place."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is made for us alone
    clock = Clock(datetime(2026, 3, 2, 9, tzinfo=UTC) + timedelta(seconds=seed % 1000))
    with (
        tempfile.TemporaryDirectory(prefix="twins-", dir=memory if memory.is_dir() else None) as folder,
        machine(clock, seed),
        replayed_by(f"ENGINE_SEED={seed}"),
    ):
        sides = (Side(Path(folder) / "one", clock), Side(Path(folder) / "two", clock))
        found = History(random.Random(seed), clock, sides, settled, engines)  # noqa: S311 - the same for the same seed
        found.begin()
        try:
            yield found
        finally:
            for side in sides:
                side.world.api.close()
