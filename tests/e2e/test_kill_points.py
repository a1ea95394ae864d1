"""Real processes killed by the kernel at every named step of a run, and anywhere; the next run finds nothing lost."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector._steps import KILL_AT, STEPS
from connector.simulator import serve
from connector.state.postgres import Server
from tests.e2e.forks import Fork
from tests.emulators import postgres
from tests.world import World

KILLS = int(os.environ.get("KILLS", "10"))
"""Random kills; more of them for a long look."""

IN_FLIGHT, PER_CALL = 2, 2
MOST = IN_FLIGHT * PER_CALL
"""Rows, or events, that a kill may leave in doubt."""

LATER = ["file.begun:2", "file.written:2", "file.synced:2", "chunk.sent:3", "answer.begun:2", "chunk.settled:3"]
"""The same steps again: the file is the snapshot's or the ledger's by then, and some chunks are settled."""

LIMITS = f"{{update: {{per_second: 1000000, burst: 1000000, per_call: {PER_CALL}}}}}"
DELIVERY = f"{{in_flight: {IN_FLIGHT}, give_up_after: 20s, quiet: 0s}}"


class Profiles:
    """A profile sync whose customers all change at each round."""

    sync = "customers"

    def __init__(self, world: World, rows: int) -> None:
        self.world = world
        self.rows = rows
        self._reverting = [f"c{number}" for number in range(0, rows, 2)]
        world.sync(attributes="{visits: visits, name: name}", endpoint="update", guard="{max_changed: 100%}")
        world.sql(
            "create table customers as select 'c' || i as custom_id, 0 as visits, 'n' || i as name "
            f"from range({rows}) t(i)"
        )

    def change(self) -> None:
        """All rows are new to Batch."""
        self.world.sql("update customers set visits = visits + 1")
        self.world.sent()

    def settle(self, kills: int) -> None:
        """Every other row goes back to what it was; run until nothing is due: all is there, and little came twice."""
        before = Counter(key for key in self.world.sent() if key not in self._reverting)
        self.world.sql(
            "update customers set visits = visits - 1 where custom_id in (select unnest(?))", self._reverting
        )
        status, report = Fork(self.world.folder, "run", self.sync).ended()
        assert (status, report["outcome"]) == (0, "green")
        assert self.world.held() == self.world.wanted()
        again = Counter(self.world.sent()) & before
        assert again.total() <= MOST * kills, "acknowledged chunks were sent again"
        if doubtful := len(self.world.due()):
            assert doubtful <= MOST * kills
            status, report = Fork(self.world.folder, "run", self.sync).ended()
            assert (status, report["planned"], report["retried"]) == (0, doubtful, doubtful), (
                "once more, as it is quiet"
            )
            assert self.world.held() == self.world.wanted()
        assert self.world.due() == []
        assert left_over(self.world) == []


class Events:
    """An event sync with new orders at each round."""

    sync = "orders"

    def __init__(self, world: World, rows: int, on_unknown: str = "hold") -> None:
        self.world = world
        self.rows = rows
        self._holds = on_unknown == "hold"
        self._orders = 0
        self._copies = 0
        world.events_sync(attributes="{amount: amount}", endpoint="update", on_unknown=on_unknown)
        world.sql("create table orders (custom_id text, order_id int, amount double, ordered_at timestamp)")

    def change(self) -> None:
        """All rows are new."""
        self.world.sql(
            f"""insert into orders select 'c' || i, i + {self._orders}, i * 1.5, now()::timestamp - to_seconds(60 + i)
            from range({self.rows}) t(i)"""
        )
        self._orders += self.rows

    def settle(self, kills: int) -> None:
        """Run until nothing waits: every event is there, none came twice unless it was in doubt."""
        status, report = Fork(self.world.folder, "run", self.sync).ended()
        held = {entry["id"] for entry in self.world.listed()}
        wanted = {str(number) for number in range(self._orders)}
        assert (status, report["held"]) == (3 if held else 0, len(held))
        assert len(held) <= MOST * kills, "more is held than was in flight"
        assert set(self.world.event_ids()) | held == wanted, "an event is lost"
        if self._holds:
            assert self._twice() == self._copies, "none comes twice unasked"
        if held:
            status, report = Fork(self.world.folder, "run", self.sync, "--retry-held").ended()
            assert (status, report["outcome"], report["accepted"]) == (0, "green", len(held))
        assert set(self.world.event_ids()) == wanted
        copies, self._copies = self._copies, self._twice()
        assert self._copies - copies <= MOST * kills, "more came twice than was in flight"
        assert self.world.listed() == []
        assert left_over(self.world) == []

    def _twice(self) -> int:
        """Copies at the API beyond the first."""
        ids = self.world.event_ids()
        return ids.total() - len(ids)


def left_over(world: World) -> list[Path]:
    """Values lie on disk while a run is open only."""
    return list((world.folder / world.cache / "outbox").iterdir())


KINDS = ["profiles", "events", "events that are sent again"]


def bench(folder: Path, kind: str, rows: int, server: Server | None = None) -> Iterator[Profiles | Events]:
    world = World(folder, server=server)
    with serve(world.api) as served:
        world.configure(base_url=served.base_url, delivery=DELIVERY, limits=LIMITS)
        if kind == "profiles":
            yield Profiles(world, rows)
        else:
            yield Events(world, rows, "hold" if kind == "events" else "resend")


@pytest.fixture(scope="module", params=[*KINDS[:2], *(f"{kind} in PostgreSQL" for kind in KINDS[:2])])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiles | Events]:
    """A sync of four chunks a run."""
    kind, _, shared = request.param.partition(" in ")
    state = postgres.new_server() if shared else None
    yield from bench(tmp_path_factory.mktemp("small") / "project", kind, 4 * PER_CALL, state)
    if state:
        postgres.drop(state)


@pytest.fixture(scope="module", params=KINDS)
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profiles | Events]:
    """A sync of forty chunks a run."""
    yield from bench(tmp_path_factory.mktemp("large") / "project", request.param, 40 * PER_CALL)


@pytest.mark.parametrize("step", [*STEPS, *LATER])
def test_kill_at_a_named_step_loses_nothing(small: Profiles | Events, step: str) -> None:
    """G2 to G4, G9: the process dies at this very step; the next run sends the rest, and little of it twice."""
    small.change()
    kills = 1
    if step.startswith("recovery."):  # a killed run must be there to be recovered
        assert Fork(small.world.folder, "run", small.sync, **{KILL_AT: "chunk.sent:2"}).ended().status == -9
        kills = 2
    assert Fork(small.world.folder, "run", small.sync, **{KILL_AT: step}).ended().status == -9, "the step is not taken"
    small.settle(kills)


@pytest.mark.parametrize("seed", range(-(-KILLS // len(KINDS))))
def test_kill_anywhere_loses_nothing(large: Profiles | Events, seed: int) -> None:
    """G2 to G4, G9: the process dies at a moment drawn from the seed, and sometimes the one that recovers, too."""
    chance = random.Random(seed)  # noqa: S311 - the same moments for the same seed
    large.change()
    kills = 0
    while not kills or chance.random() < 0.3:
        run = Fork(large.world.folder, "run", large.sync)
        time.sleep(chance.uniform(0.0, 1.0) ** 1.5)
        run.kill()
        assert run.ended().status in (-9, 0), "it was killed, or had ended"
        kills += 1
    large.settle(kills)
