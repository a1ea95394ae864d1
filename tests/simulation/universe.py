"""One simulated project: its warehouse, its state on disk, the local Profile API, and runs that may die."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from connector.config import EventSync, ProfileSync, Project, ProjectSettings
from connector.report import Report
from connector.simulator import Simulator
from connector.sync import Options, run_sync
from tests.simulation.crash import Crash, Death, Steps
from tests.simulation.machine import Clock, machine
from tests.simulation.warehouse import InMemory, Row, Tables
from tests.simulation.wire import Traffic, Wire
from tests.world import PROJECT_KEY, REST_KEY, check_counts

CUSTOMERS, ORDERS = "customers", "orders"


@dataclass(frozen=True, slots=True)
class Setup:
    """What is configured, as in YAML: `delivery`, `customers` and `orders` add to what every scenario has."""

    start: datetime = datetime(2026, 3, 2, 9, tzinfo=UTC)
    delivery: dict[str, Any] = field(default_factory=dict)
    per_call: int = 3
    customers: dict[str, Any] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)


class Content(NamedTuple):
    """Rows of the warehouse at one moment."""

    customers: dict[str, Row]
    orders: dict[int, Row]


class Held(NamedTuple):
    """What the API holds: each event's reference as often as it was applied, and attributes by custom ID."""

    events: Counter[str]
    profiles: dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as the outside saw it.

    Attributes:
        sync: Its name.
        options: What was asked.
        died: At which step, if it did.
        report: None where it died or was interrupted.
        traffic: What it said to the API.
        tables: What stood in the warehouse.
        api: What the API held at its end.
        ended: The wall clock then.
        commits: Transactions that it committed.
    """

    sync: str
    options: dict[str, Any]
    died: str | None
    report: Report | None
    traffic: Traffic
    tables: Content
    api: Held
    ended: float
    commits: int

    @property
    def plain(self) -> bool:
        """Nothing was left out on the operator's word."""
        return self.options.keys() <= {"full", "retry_held", "discard_held"}


class Universe:
    """Everything of one scenario, driven from one seed."""

    def __init__(self, folder: Path, seed: int, setup: Setup) -> None:
        self.setup = setup
        self.chance = random.Random(seed)  # noqa: S311 - the same for the same seed
        self.clock = Clock(setup.start)
        self.api = Simulator({PROJECT_KEY: REST_KEY}, clock=self.clock.monotonic, wall=self.clock.wall)
        self.api.configure(update_rate=None, mass_update_rate=None)
        self.tables = Tables(self.clock)
        self.steps = Steps(folder / ".connector")
        self.wire = Wire(self.api, self.steps, self.chance)
        self.runs: list[Run] = []
        self.late = False
        """Some request may be applied after a newer one."""
        self.history: dict[str, set[tuple[Any, ...]]] = {}
        """Whose each event was and its values, as it ever stood in the warehouse, by its reference."""
        self.project = _project(folder, setup, self.tables)

    def run(self, sync: str, *, die_at: Death | None = None, interrupt_at: int | None = None, **options: Any) -> Run:
        """Run a sync; it dies at step `die_at`, or is interrupted when it tells its progress that often."""
        self.wire.traffic = Traffic()
        self.steps.commits = 0
        tables = Content(deepcopy(self.tables.customers), deepcopy(self.tables.orders))
        report, died = None, None
        try:
            with self.steps.counted(die_at):
                report = self._run(sync, interrupt_at, options)
        except Crash as crash:
            died = str(crash)
        except KeyboardInterrupt:
            pass
        traffic, ended = self.wire.traffic, self.clock.wall()
        done = Run(sync, options, died, report, traffic, tables, self.held(), ended, self.steps.commits)
        self.runs.append(done)
        if report:
            check_counts(report)
        return done

    def remember(self, order: Row) -> None:
        """Note what the event of an order may rightly say."""
        self.history.setdefault(order["ref"], set()).update(
            (order["custom_id"], status, amount)
            for status in (order["status"], None)  # refused attributes are left out
            for amount in (order["amount"], None)
        )

    def held(self) -> Held:
        """What the API holds now."""
        profiles = {
            profile["custom_id"]: {name: typed["value"] for name, typed in profile["custom"].items()}
            for profile in self.api.profiles()
        }
        return Held(Counter(str(event["attributes"]["ref"]) for event in self.api.events()), profiles)

    def _run(self, sync: str, interrupt_at: int | None, options: dict[str, Any]) -> Report:
        told = 0

        def progress(_phase: str, _done: int, _total: int | None) -> None:
            nonlocal told
            told += 1
            if told == interrupt_at:
                raise KeyboardInterrupt

        transport: httpx.AsyncBaseTransport = self.wire
        return run_sync(self.project, sync, Options(**options), progress=progress, transport=transport)


@contextmanager
def universe(folder: Path, seed: int, setup: Setup) -> Iterator[Universe]:
    """A universe whose time and chance rule until the context ends."""
    made = Universe(folder, seed, setup)
    try:
        with machine(made.clock, seed), made.steps.watched():
            yield made
    finally:
        made.tables.close()
        made.api.close()


def _project(folder: Path, setup: Setup, tables: Tables) -> Project:
    folder.mkdir(parents=True)
    (folder / "project_key").write_text(PROJECT_KEY)
    (folder / "rest_key").write_text(REST_KEY)
    fast = {"per_second": 1e6, "burst": 10**6}
    settings = ProjectSettings.model_validate({
        "batch": {
            "project_key": {"file": "project_key"}, "rest_key": {"file": "rest_key"},
            "base_url": "http://127.0.0.1:1/2.11",
            "limits": {"update": {**fast, "per_call": setup.per_call}},
        },
        "warehouses": {"memory": {"type": "duckdb", "path": ":memory:"}},
        "delivery": {"timeout": "2s", "give_up_after": "20s", **setup.delivery},
    })  # fmt: skip
    settings = settings.model_copy(update={"warehouses": {"memory": InMemory.of(tables)}})
    customers = ProfileSync.model_validate({
        "name": CUSTOMERS, "kind": "profiles", "warehouse": "memory", "source": {"table": CUSTOMERS},
        "attributes": {"plan": "plan", "points": "points", "tags": "tags"},
        "guard": {"max_changed": "100%", "max_removed": "100%", "min_rows": 0}, "tolerance": {"invalid": "100%"},
        **setup.customers,
    })  # fmt: skip
    orders = EventSync.model_validate({
        "name": ORDERS, "kind": "events", "warehouse": "memory", "source": {"table": ORDERS}, "event": "order_placed",
        "id": "order_id", "time": "ordered_at",
        "attributes": {"$label": "status", "amount": "amount", "ref": "ref"}, "tolerance": {"invalid": "100%"},
        **setup.orders,
    })  # fmt: skip
    return Project(folder, settings, {CUSTOMERS: customers, ORDERS: orders})
