"""One simulated project: its warehouse, its state on disk, the local Profile API, and runs that may die."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from connector.config import EventSync, ProfileSync, Project, ProjectSettings
from connector.report import Report
from connector.simulator import Rate, Simulator
from connector.state import database, sqlite
from connector.sync import Options, run_sync
from tests.simulation.crash import Crash, Death, Steps
from tests.simulation.image import Image, read_files, remembered, remind, write_files
from tests.simulation.machine import Clock, machine
from tests.simulation.warehouse import InMemory, Row, Tables
from tests.simulation.wire import Traffic, Wire
from tests.world import PROJECT_KEY, REST_KEY, check_counts

CUSTOMERS, ORDERS = "customers", "orders"


@dataclass(frozen=True, slots=True)
class Setup:
    """What is configured, as in YAML: `delivery`, `customers` and `orders` add to what every scenario has.

    `rate` is the API's limit and the one that is configured; None: neither has any.
    """

    start: datetime = datetime(2026, 3, 2, 9, tzinfo=UTC)
    delivery: dict[str, Any] = field(default_factory=dict)
    per_call: int = 3
    customers: dict[str, Any] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)
    rate: Rate | None = None


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
        mapped: Attributes of customers, by the configuration.
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
    mapped: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Nothing was left out on the operator's word."""
        return self.options.keys() <= {"full", "retry_held", "discard_held"}


class Universe:
    """Everything of one scenario, driven from one seed."""

    def __init__(self, folder: Path, seed: int, setup: Setup) -> None:
        self.folder = folder
        self.chance = random.Random(seed)  # noqa: S311 - the same for the same seed
        self.machine = self.chance  # of secrets and UUIDs: the machine's own, once it rules
        self.clock = Clock(setup.start)
        self.api = Simulator({PROJECT_KEY: REST_KEY}, clock=self.clock.monotonic, wall=self.clock.elsewhere)
        self.api.configure(update_rate=setup.rate, mass_update_rate=setup.rate)
        self.tables = Tables(self.clock)
        self.steps = Steps(folder / ".connector")
        self.wire = Wire(self.api, self.steps, self.chance)
        self.runs: list[Run] = []
        self.late = False
        """Some request may be applied after a newer one."""
        self.history: dict[str, frozenset[tuple[Any, ...]]] = {}
        """Whose each event was and its values, as it ever stood in the warehouse, by its reference."""
        self.underway: tuple[bytes, ...] = ()
        """Bodies of requests that had left when a run died, and have not arrived."""
        folder.mkdir(parents=True)
        (folder / "project_key").write_text(PROJECT_KEY)
        self.rotate(REST_KEY)
        self.configure(setup)

    def configure(self, setup: Setup) -> None:
        """Have another configuration from the next run on; the API's limit stays."""
        self.setup, self.project = setup, _project(self.folder, setup, self.tables)

    def rotate(self, key: str) -> None:
        """Tell the next run of another REST API key."""
        (self.folder / "rest_key").write_text(key)

    def run(
        self,
        sync: str,
        *,
        die_at: Death | None = None,
        interrupt_at: int | None = None,
        images: list[Image] | None = None,
        **options: Any,
    ) -> Run:
        """Run a sync.

        Args:
            sync: Its name.
            die_at: The step at which it dies.
            interrupt_at: Interrupted when it tells its progress that often.
            images: Gets what a death would leave, of each step, and at last what the run itself leaves.
            options: As `Options` has them.
        """
        self.wire.traffic = Traffic()
        self.steps.commits = 0
        tables = Content(dict(self.tables.customers), dict(self.tables.orders))
        report, died = None, None

        def seen(step: str, torn: Path | None) -> None:
            assert images is not None
            dead = self._run_so_far(sync, options, step, None, tables)
            images.append(self._image(step, torn, replace(dead, traffic=deepcopy(dead.traffic))))

        try:
            with self.steps.counted(die_at, seen if images is not None else None):
                report = self._run(sync, interrupt_at, options)
        except Crash as crash:
            died = str(crash)
        except KeyboardInterrupt:
            pass
        done = self._run_so_far(sync, options, died, report, tables)
        self.runs.append(done)
        if report:
            check_counts(report)
        if images is not None:
            images.append(self._image("", None))
        return done

    @property
    def mapped(self) -> tuple[str, ...]:
        """Attributes of customers that are sent."""
        return tuple(self.project.syncs[CUSTOMERS].attributes or ())  # type: ignore[union-attr]

    def _run_so_far(
        self, sync: str, options: dict[str, Any], died: str | None, report: Report | None, tables: Content
    ) -> Run:
        ended, commits = self.clock.wall(), self.steps.commits
        return Run(sync, options, died, report, self.wire.traffic, tables, self.held(), ended, commits, self.mapped)

    def _image(self, died: str, torn: Path | None, *dead: Run) -> Image:
        return Image(
            died=died,
            files=read_files(self.project.state_dir, torn),
            api=remembered(self.api),
            clock=self.clock.reading(),
            rows=self.tables.rows(),
            history=dict(self.history),
            runs=(*self.runs, *dead),
            underway=(*self.underway, *self.wire.underway.values()),
            late=self.late,
            setup=self.setup,
            project=self.project,
        )

    def go_on_from(self, image: Image, chance: str) -> None:
        """Be as it was then; what is drawn from now on is the same for the same `chance`, whatever was drawn before."""
        write_files(self.project.state_dir, image.files)
        remind(self.api, image.api)
        self.rotate(self.api.credentials[PROJECT_KEY])
        self.clock.read_again(image.clock)
        self.tables.restore(image.rows)
        self.history, self.runs = dict(image.history), list(image.runs)
        self.underway, self.late = image.underway, image.late
        self.setup, self.project = image.setup, image.project
        for each in (random, self.chance, self.machine):
            each.seed(chance)

    def land(self) -> None:
        """What had left when a run died arrives."""
        if self.underway:
            self.api.configure(update_rate=None)  # it was paid for when it left
            for body in self.underway:
                self.api.project().receive("update", body)
            self.api.configure(update_rate=self.setup.rate)
            self.underway = ()

    def remember(self, order: Row) -> None:
        """Note what the event of an order may rightly say."""
        self.history[order["ref"]] = self.history.get(order["ref"], frozenset()) | {
            (order["custom_id"], status, amount)
            for status in (order["status"], None)  # refused attributes are left out
            for amount in (order["amount"], None)
        }

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
        with machine(made.clock, seed) as made.machine, made.steps.watched(), _once():
            yield made
    finally:
        made.tables.close()
        made.api.close()


@contextmanager
def _once() -> Iterator[None]:
    """What is the same for every run, and would cost each more than its rows, is made once."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((sqlite, "_engine"), (database, "_fingerprint")):
            patch.setattr(module, name, cache(getattr(module, name)))
        yield


def _project(folder: Path, setup: Setup, tables: Tables) -> Project:
    rate = setup.rate or Rate(1e6, 10**6)
    settings = ProjectSettings.model_validate({
        "batch": {
            "project_key": {"file": "project_key"}, "rest_key": {"file": "rest_key"},
            "base_url": "http://127.0.0.1:1/2.11",
            "limits": {"update": {"per_second": rate.per_second, "burst": rate.burst, "per_call": setup.per_call}},
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
