"""A whole small world for tests: a DuckDB warehouse, a project folder, the local Profile API, and an independent look at both."""

import json
import logging
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import sqlalchemy as sa

from connector.config import load_project
from connector.plan import Plan, plan_sync
from connector.reconcile import Healing, reconcile_sync
from connector.report import ExportReport, ReconcileReport, Report
from connector.simulator import Simulator
from connector.state import ledger, runs
from connector.state.database import EXPORTS, State, open_state
from connector.state.postgres import Server
from connector.sync import Options, Progress, run_sync
from tests.simulation.crash import Steps
from tests.simulation.machine import Clock, machine

PROJECT_KEY, REST_KEY = "project_test", "rest_test"

FAST = (
    "{update: {per_second: 1000000, burst: 1000000, per_call: 200}, mass_update: {per_second: 1000000, per_call: 1000}, "
    "other: {per_second: 1000}}"
)


class World:
    """A project in a folder, with its warehouse and its local Profile API."""

    def __init__(self, folder: Path, clock: Clock | None = None, server: Server | None = None, **settings: Any) -> None:
        self.folder = folder
        self.server = server
        self.cache = ".connector"
        self.database = folder / "warehouse.duckdb"
        clocks = {"clock": clock.monotonic, "wall": clock.wall} if clock else {}
        self.api = Simulator({PROJECT_KEY: REST_KEY}, record=True, **clocks)
        self.api.configure(**({"update_rate": None, "mass_update_rate": None, "other_rate": None} | settings))
        self.transport: httpx.AsyncBaseTransport | None = httpx.ASGITransport(app=self.api.app)
        (folder / "syncs").mkdir(parents=True)
        (folder / "project_key").write_text(PROJECT_KEY)
        (folder / "rest_key").write_text(REST_KEY)
        if server:
            address = server.url.set(drivername="postgresql").render_as_string(hide_password=False)
            (folder / "state_url").write_text(address)
        self.configure()

    def rest(self) -> None:
        """A table that did not change is not read from now on, and the last write was long ago."""
        path = self.folder / "connector.yaml"
        path.write_text(
            path.read_text().replace("path: warehouse.duckdb}", "path: warehouse.duckdb, skip_unchanged: true}")
        )
        long_ago = time.time() - 3600
        os.utime(self.database, (long_ago, long_ago))

    def configure(
        self, base_url: str = "http://127.0.0.1:1/2.11", limits: str = FAST, delivery: str = "{give_up_after: 20s}"
    ) -> None:
        (self.folder / "connector.yaml").write_text(
            f"""batch:
  project_key: {{file: project_key}}
  rest_key: {{file: rest_key}}
  base_url: {base_url}
  limits: {limits}
warehouses:
  local: {{type: duckdb, path: warehouse.duckdb}}
delivery: {delivery}
"""
            + (
                f"state: {{database: {{file: state_url}}, {self._files()}, schema: {self.server.schema}}}\n"
                if self.server
                else ""
            )
        )

    def _files(self) -> str:
        bucket = self.server.bucket if self.server else None
        return f"files: '{bucket}', cache: {self.cache}" if bucket else "files: .connector"

    def move(self, cache: str) -> None:
        """Be another host from now on: of a state in a bucket all that a host has is its cache."""
        path = self.folder / "connector.yaml"
        path.write_text(path.read_text().replace(f"cache: {self.cache}", f"cache: {cache}"))
        self.cache = cache

    def opened_state(self) -> AbstractContextManager[State]:
        """The project's state, which must be there."""
        return open_state(self.folder / self.cache, PROJECT_KEY, self.server)

    def sync(self, name: str = "customers", **keys: str) -> None:
        lines = {"kind": "profiles", "warehouse": "local", "source": "{table: customers}"} | keys
        (self.folder / "syncs" / f"{name}.yaml").write_text(
            "".join(f"{key}: {value}\n" for key, value in lines.items())
        )

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database)) as connection:
            connection.execute("SET TimeZone='UTC'")
            return connection.execute(statement, list(values)).fetchall()

    def run(self, name: str = "customers", progress: Progress | None = None, **options: Any) -> Report:
        project = load_project(self.folder)
        report = run_sync(project, name, Options(**options), progress=progress, transport=self.transport)
        assert isinstance(report, Report)
        check_counts(report)
        return report

    def plan(self, name: str = "customers", **options: Any) -> Plan:
        return plan_sync(load_project(self.folder), name, Options(**options))

    def sent(self) -> list[str]:
        """Every custom ID of every request so far, in order; forgets them."""
        ids = [custom_id for request in self.api.requests for custom_id in request.custom_ids]
        self.api.requests.clear()
        return ids

    def rejects(self, name: str = "customers") -> list[dict[str, Any]]:
        """What `rejects` lists, with null where the database has ''."""
        with self.opened_state() as state:
            rows = runs.rejects(state, name).to_dicts()
        return [row | {"key": row["key"] or None, "attribute": row["attribute"] or None} for row in rows]

    def due(self, name: str = "customers") -> list[dict[str, Any]]:
        """The keys that are due again."""
        with self.opened_state() as state:
            return runs.due(state, name).to_dicts()

    def events_sync(self, name: str = "orders", **keys: str) -> None:
        """A sync of events; its id is the column order_id unless told otherwise."""
        lines = {
            "kind": "events", "source": "{table: orders}", "event": "order_placed", "time": "ordered_at", "id": "order_id",
        }  # fmt: skip
        self.sync(name, **{key: value for key, value in (lines | keys).items() if value})

    def listed(self, name: str = "orders") -> list[dict[str, Any]]:
        """What `rejects` shows of an event sync."""
        with self.opened_state() as state:
            return ledger.load(state, name).listed().to_dicts()

    def event_ids(self) -> Counter[str]:
        """How often each event stands at the API, by its event_id."""
        return Counter(str(event["attributes"]["event_id"]) for event in self.api.events())

    def export_sync(self, name: str = "profile_attributes", **keys: str) -> None:
        """An export; of attributes into a table of its name unless told otherwise."""
        lines = {"kind": "export", "export": "attributes", "table": f"batch.{name}"}
        self.sync(name, **(lines | keys))
        path = self.folder / "syncs" / f"{name}.yaml"
        path.write_text(path.read_text().replace("source: {table: customers}\n", ""))

    def pull(self, name: str = "profile_attributes", progress: Progress | None = None, **options: Any) -> ExportReport:
        project = load_project(self.folder)
        report = run_sync(project, name, Options(**options), progress=progress, transport=self.transport)
        assert isinstance(report, ExportReport)
        return report

    def reconcile(self, name: str = "customers", progress: Progress | None = None, **healing: Any) -> ReconcileReport:
        project = load_project(self.folder)
        return reconcile_sync(project, name, Healing(**healing), progress=progress, transport=self.transport)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows in the order of their first columns; JSON is read."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone='UTC'")
            cursor = connection.execute(f"select * from {table} order by all")
            names, types = zip(*((column[0], str(column[1])) for column in cursor.description), strict=True)
            read = [json.loads if type_ == "JSON" else lambda value: value for type_ in types]
            return [
                {
                    name: value if value is None else made(value)
                    for name, made, value in zip(names, read, row, strict=True)
                }
                for row in cursor.fetchall()
            ]

    def exports(self, name: str = "profile_attributes") -> list[dict[str, Any]]:
        """What the state says of a sync's exports, the oldest first."""
        query = sa.select(EXPORTS).where(EXPORTS.c.sync == name).order_by(EXPORTS.c.number)
        with self.opened_state() as state, state.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def held(self) -> dict[str, dict[str, object]]:
        """What the API holds: custom ID to attribute values, dates as text, types checked elsewhere."""
        return {
            profile["custom_id"]: profile["native"]
            | {name: typed["value"] for name, typed in profile["custom"].items()}
            for profile in self.api.profiles()
        }

    def wanted(self, query: str = "select * from customers", key: str = "custom_id") -> dict[str, dict[str, object]]:
        """What the API should hold, by a row loop that shares nothing with the connector."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone='UTC'")
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {
            str(row[key]): {
                name: told for name, value in row.items() if name != key and (told := as_sent(value)) is not None
            }
            for row in rows
        }


class Dying(httpx.AsyncBaseTransport):
    """For its context the world's way to Batch, where a run may die before a request and before its answer is there."""

    def __init__(self, world: World, steps: Steps) -> None:
        self._world = world
        self._steps = steps

    def __enter__(self) -> None:
        self._inner, self._world.transport = self._world.transport, self

    def __exit__(self, *_error: object) -> None:
        self._world.transport = self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        assert self._inner
        self._steps.step("request")
        answer = await self._inner.handle_async_request(request)
        self._steps.step("answer")
        return answer


@contextmanager
def timeless(**settings: Any) -> Iterator[World]:
    """A world whose time passes only where somebody waits; its exports are made at once unless told otherwise.

    Its folder is in memory where there is such a place: what is tested here needs no disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is made for us alone
    clock = Clock(datetime.now(UTC).replace(microsecond=250_000))
    with (
        tempfile.TemporaryDirectory(prefix="world-", dir=memory if memory.is_dir() else None) as folder,
        machine(clock, 1),
    ):
        world = World(Path(folder) / "project", clock, **({"export_seconds": 0} | settings))
        try:
            yield world
        finally:
            world.api.close()


@contextmanager
def replayed_by(place: str) -> Iterator[None]:
    """Whatever goes wrong in it is noted with the words that play it again."""
    try:
        yield
    except BaseException as error:  # Polars' panics are no Exception
        error.add_note(place)
        raise


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that the test has logged, for a fixture's end: `caplog.text` is that of the phase alone."""
    return "\n".join(logging.Formatter().format(record) for record in caplog.get_records("call"))


def wait(seconds: float) -> None:
    """Let time pass in a timeless world."""
    time.sleep(seconds)


def as_sent(value: object) -> object:
    """A warehouse value as Batch should hold it; None: nothing."""
    told: object = value
    match value:
        case "" | []:
            told = None
        case datetime():
            aware = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
            fraction = f".{aware.microsecond // 1000:03d}" if aware.microsecond // 1000 else ""
            told = aware.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
        case date():
            told = value.strftime("%Y-%m-%dT00:00:00Z")
        case Decimal():
            told = int(value) if value.as_tuple().exponent == 0 else float(value)
        case list():
            told = [item if isinstance(item, str) else str(item) for item in value]
        case float() if not math.isfinite(value):
            told = None
    return told


def check_counts(report: Report) -> None:
    """The two identities of the JSON contract."""
    assert report.planned == report.accepted + report.rejected + report.held + report.expired + report.unsent, report
    if report.kind == "events":
        assert report.read == report.planned + report.already_sent + report.invalid + report.skipped, report
        return
    parts = report.unchanged + report.added + report.changed + report.retried + report.invalid + report.skipped
    assert report.read == parts, report
