"""A small project on DuckDB, and the local Profile API behind it."""

import os
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from assets.factory import build_sync_asset, build_sync_defs
from assets.metadata import asset_key
from assets.resources import Connector
from connector.config import load_project
from connector.simulator import Simulator

PROJECT_KEY, REST_KEY = "project_assets", "rest_canary_7f3a"
STEP, EVENTS_STEP = "batch__customers", "batch__orders"

MAIN = """\
batch:
  project_key: {env: ASSETS_TEST_PROJECT_KEY}
  rest_key: {env: ASSETS_TEST_REST_KEY}
  base_url: http://127.0.0.1:1/2.11
  limits: {other: {per_second: 1000}}
delivery: {give_up_after: 60s}
warehouses:
  local: {type: duckdb, path: warehouse.duckdb}
"""

SYNC = """\
kind: profiles
warehouse: local
source: {table: marts.customers}
attributes:
  $email_address: email
  plan: plan_name
  points: {column: points, type: integer, on_null: keep}
"""

EVENTS = """\
kind: events
warehouse: local
source: {table: marts.orders}
event: order_placed
time: ordered_at
id: order_id
late: restamp
attributes: {$label: status, amount: amount_usd}
"""


EXPORT = """\
kind: export
warehouse: local
export: attributes
table: batch.profile_attributes
attributes: [$email_address, plan, points]
"""

MOVES = """\
kind: export
warehouse: local
export: events
table: batch.moves
"""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class House:
    """A project folder with a warehouse, a simulator, and Dagster's ephemeral instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root = root
        self.instance = instance
        self.simulator = Simulator({PROJECT_KEY: REST_KEY}, record=True)
        self.simulator.configure(other_rate=None, export_seconds=0.0)
        self.write("connector.yaml", MAIN)
        self.write("syncs/customers.yaml", SYNC)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def sql(self, *statements: str) -> None:
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    def rest(self, seconds: float) -> None:
        """A table that did not change is not read from now on, and the last write was so long ago."""
        path = self.root / "connector.yaml"
        path.write_text(
            path.read_text().replace("path: warehouse.duckdb}", "path: warehouse.duckdb, skip_unchanged: true}")
        )
        moment = time.time() - seconds
        os.utime(self.root / "warehouse.duckdb", (moment, moment))

    def fill(self, rows: int) -> None:
        self.sql(
            "create schema if not exists marts",
            f"""create or replace table marts.customers as
                select 'c' || i as custom_id, 'canary' || i || '@example.org' as email, 'gold' as plan_name, i as points
                from range({rows}) t(i)""",
        )

    def order(self, first: date, days: int, a_day: int) -> None:
        """Orders of ten customers, from the first day on, at equal distances."""
        self.write("syncs/orders.yaml", EVENTS + f"partitions: {{daily: {first}}}\n")
        self.sql(
            "create schema if not exists marts",
            f"""create or replace table marts.orders as
                select 'c' || i % 10 as custom_id, 'order_canary' || i as order_id, 'paid' as status, i as amount_usd,
                    timestamp '{first}' + i * interval {86_400 // a_day} second as ordered_at
                from range({days * a_day}) t(i)""",
        )

    def run(
        self, sync: str = "customers", days: Sequence[str] = (), beside: Sequence[Any] = (), **config: Any
    ) -> dg.ExecuteInProcessResult:
        """Run the sync: without a partition, or with those from the first of `days` to the last; and what is `beside`."""
        project = load_project(self.root)
        asked = project.sync(sync)
        ends = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
        step = asset_key(asked).to_python_identifier()
        return dg.materialize(
            [build_sync_asset(project, asked), *beside],
            instance=self.instance,
            resources={"connector": self.connector},
            run_config={"ops": {step: {"config": config}}, **QUIET},
            partition_key=days[0] if len(days) == 1 else None,
            tags=dict(zip(ends, (days[0], days[-1]), strict=True)) if len(days) > 1 else None,
            raise_on_error=False,
        )

    def job(
        self, name: str, selection: Sequence[dg.AssetKey] | None = None, **ops: dict[str, Any]
    ) -> dg.ExecuteInProcessResult:
        """Run a job of customers; `selection` of the job of all assets is what the UI's Materialize runs."""
        project = load_project(self.root)
        shared = dg.Definitions(resources={"connector": self.connector}, executor=dg.in_process_executor)
        job = dg.Definitions.merge(build_sync_defs(project, project.sync("customers")), shared).resolve_job_def(name)
        return job.execute_in_process(
            run_config={"ops": {step: {"config": config} for step, config in ops.items()}, **QUIET},
            instance=self.instance,
            asset_selection=selection,
            raise_on_error=False,
        )

    @property
    def connector(self) -> Connector:
        return Connector(load_project(self.root), httpx.ASGITransport(self.simulator.app))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A project of 40 customers whose keys are set."""
    monkeypatch.setenv("ASSETS_TEST_PROJECT_KEY", PROJECT_KEY)
    monkeypatch.setenv("ASSETS_TEST_REST_KEY", REST_KEY)
    with dg.DagsterInstance.ephemeral() as instance:
        house = House(tmp_path, instance)
        house.fill(40)
        yield house


def metadata(result: dg.ExecuteInProcessResult, step: str = STEP) -> dict[str, Any]:
    """The run's first materialization, as plain values."""
    found = result.asset_materializations_for_node(step)
    assert found, [event.step_failure_data.error_display_string for event in result.get_step_failure_events()]
    return {name: value.value for name, value in found[0].metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Which checks passed."""
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> Any:
    """What the run's failure said: `description` and `metadata`."""
    (event,) = result.get_step_failure_events()
    return event.step_failure_data.user_failure_data


def logged(instance: dg.DagsterInstance, run: str) -> str:
    """All that Dagster keeps of the run, as text."""
    return "\n".join(f"{entry} {entry.to_json()}" for entry in instance.all_logs(run))
