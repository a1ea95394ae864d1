"""A small project on DuckDB, and the local Profile API behind it."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from assets.factory import build_sync_asset
from assets.resources import Connector
from assets.run_config import SyncRunConfig
from connector.config import load_project
from connector.simulator import Simulator

PROJECT_KEY, REST_KEY = "project_assets", "rest_canary_7f3a"
STEP, EVENTS_STEP = "batch__customers", "batch__orders"

MAIN = """\
batch:
  project_key: {env: ASSETS_TEST_PROJECT_KEY}
  rest_key: {env: ASSETS_TEST_REST_KEY}
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


class House:
    """A project folder with a warehouse, a simulator, and Dagster's ephemeral instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root = root
        self.instance = instance
        self.simulator = Simulator({PROJECT_KEY: REST_KEY}, record=True)
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

    def run(self, sync: str = "customers", days: Sequence[str] = (), **config: Any) -> dg.ExecuteInProcessResult:
        """Run the sync: without a partition, or with those from the first of `days` to the last."""
        project = load_project(self.root)
        ends = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
        return dg.materialize(
            [build_sync_asset(project, project.sync(sync))],
            instance=self.instance,
            resources={"connector": Connector(project, httpx.ASGITransport(self.simulator.app))},
            run_config={
                "ops": {f"batch__{sync}": {"config": SyncRunConfig(**config).model_dump(exclude_none=True)}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            partition_key=days[0] if len(days) == 1 else None,
            tags=dict(zip(ends, (days[0], days[-1]), strict=True)) if len(days) > 1 else None,
            raise_on_error=False,
        )


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
