"""What the code location holds, and that it loads without network, warehouse, credentials or environment."""

import socket
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import current_project
from assets.factory import build_project_defs
from assets.metadata import upstream_key
from connector.config import load_project
from tests.assets.conftest import EVENTS, MAIN, SYNC

FULL = """\
kind: profiles
warehouse: local
source: {table: prod.marts.customers}
cursor: last_updated_at
attributes:
  $email_address: email
  birthdate: {column: born_on, type: date}
  plan: {column: plan_name, on_null: keep}
schedule: {cron: "*/15 * * * *", timezone: Europe/Paris, enabled: true}
dagster: {group: crm, owners: ["team:growth"], tags: {tier: gold}, freshness: 2h}
"""

QUERY = """\
kind: profiles
warehouse: local
source: {query: "select 1 as custom_id"}
schedule: "0 4 * * *"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two syncs; neither its warehouse nor its variables exist."""
    (tmp_path / "syncs").mkdir()
    (tmp_path / "connector.yaml").write_text(MAIN)
    (tmp_path / "syncs" / "customers.yaml").write_text(FULL)
    (tmp_path / "syncs" / "leads.yaml").write_text(QUERY)
    return tmp_path


def definitions(root: Path) -> dg.Definitions:
    return build_project_defs(load_project(root))


def spec(defs: dg.Definitions, name: str) -> dg.AssetSpec:
    return defs.resolve_asset_graph().get(dg.AssetKey(["batch", name])).to_asset_spec()


def test_each_sync_is_an_asset_with_checks_a_job_and_its_schedule(project: Path) -> None:
    """Keys, dependencies, checks, jobs and schedules follow from the YAML alone."""
    defs = definitions(project)
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == {"batch/customers", "batch/leads"}
    assert [dep.asset_key.path for dep in spec(defs, "customers").deps] == [["marts", "customers"]]
    assert not list(spec(defs, "leads").deps)
    assert {key.to_user_string() for key in graph.asset_check_keys} == {
        f"batch/{sync}:{check}" for sync in ("customers", "leads") for check in ("delivery", "guard", "rejected_share")
    }
    repository = defs.get_repository_def()
    assert {job.name for job in repository.get_all_jobs()} == {"customers_job", "leads_job", "__ASSET_JOB"}
    schedules = {schedule.name: schedule for schedule in repository.schedule_defs}
    assert schedules["customers_schedule"].execution_timezone == "Europe/Paris"
    assert schedules["customers_schedule"].default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedules["leads_schedule"].default_status is dg.DefaultScheduleStatus.STOPPED
    (sensor,) = repository.sensor_defs
    assert (sensor.default_status, [target.job_name for target in sensor.targets]) == (
        dg.DefaultSensorStatus.STOPPED,
        ["customers_job"],
    )


def test_the_asset_carries_what_the_yaml_says(project: Path) -> None:
    """Group, owners, tags, kinds, version, pool, columns with their types and lineage."""
    defs = definitions(project)
    asset = spec(defs, "customers")
    schema = asset.metadata["dagster/column_schema"]
    lineage = asset.metadata["dagster/column_lineage"].deps_by_column
    assert (asset.group_name, list(asset.owners), asset.tags["tier"]) == ("crm", ["team:growth"], "gold")
    assert asset.kinds == {"duckdb", "polars"}
    assert asset.code_version
    assert asset.freshness_policy is not None
    assert defs.resolve_assets_def(asset.key).op.pool == "sync_customers"
    assert {column.name: column.type for column in schema.columns} == {
        "$email_address": "string", "birthdate": "date", "plan": "inferred",
    }  # fmt: skip
    assert lineage["birthdate"] == [
        dg.TableColumnDep(asset_key=dg.AssetKey(["marts", "customers"]), column_name="born_on")
    ]
    assert "prod.marts.customers" in (asset.description or "")
    assert "dagster/column_schema" not in spec(defs, "leads").metadata


def test_nothing_but_a_person_or_a_schedule_starts_a_run_again(project: Path) -> None:
    """Retries are the delivery's own: Dagster repeats neither the step nor the run, which would count twice."""
    defs = definitions(project)
    job = defs.get_repository_def().get_job("customers_job")
    assert defs.resolve_assets_def(spec(defs, "customers").key).op.retry_policy is None
    assert all(node.retry_policy is None for node in job.nodes)
    assert not {"dagster/max_retries", "dagster/retry_strategy"} & job.tags.keys()


def test_an_event_sync_shows_what_it_sends_and_where_it_is_from(project: Path) -> None:
    """Columns and lineage hold the attributes that we add; name, time and cursor are in the description."""
    (project / "syncs" / "orders.yaml").write_text(EVENTS + "cursor: loaded_at\n")
    asset = spec(definitions(project), "orders")
    schema = {column.name: column for column in asset.metadata["dagster/column_schema"].columns}
    lineage = asset.metadata["dagster/column_lineage"].deps_by_column
    assert {name: column.type for name, column in schema.items()} == {
        "$label": "string", "amount": "inferred", "event_id": "string", "occurred_at": "date",
    }  # fmt: skip
    assert {name: dep.column_name for name, (dep,) in lineage.items()} == {
        "$label": "status", "amount": "amount_usd", "event_id": "order_id", "occurred_at": "ordered_at",
    }  # fmt: skip
    assert "a null is left out" in (schema["amount"].description or "")
    shown = asset.description or ""
    assert all(f"`{word}`" in shown for word in ("marts.orders", "order_placed", "ordered_at", "loaded_at"))
    assert asset.partitions_def is None


def test_an_event_sync_by_the_conventions_names_the_column_of_its_names(project: Path) -> None:
    """Without `event`, `time`, `id` and `attributes` the description has the defaults, and no columns are claimed."""
    (project / "syncs" / "orders.yaml").write_text("kind: events\nwarehouse: local\nsource: {table: marts.orders}\n")
    asset = spec(definitions(project), "orders")
    assert "named by `event_name`" in (asset.description or "")
    assert "`event_time`" in (asset.description or "")
    assert "dagster/column_schema" not in asset.metadata


def test_partitions_are_the_days_that_are_over_and_backfill_in_one_run(project: Path) -> None:
    """`partitions: {daily: …}` cuts the asset by UTC days; a start in the future gives no partition, and still loads."""
    for name, first in {"orders": date(2026, 1, 1), "later": date(2099, 1, 1)}.items():
        (project / "syncs" / f"{name}.yaml").write_text(EVENTS + f"partitions: {{daily: {first}}}\n")
    defs = definitions(project)
    dg.Definitions.validate_loadable(defs)
    orders, later = (defs.resolve_assets_def(dg.AssetKey(["batch", name])) for name in ("orders", "later"))
    assert orders.backfill_policy == dg.BackfillPolicy.single_run()
    assert isinstance(orders.partitions_def, dg.DailyPartitionsDefinition)
    assert orders.partitions_def.timezone == "UTC"
    found = orders.partitions_def.get_partition_keys(current_time=datetime(2026, 1, 4, 23, 59, tzinfo=UTC))
    assert found == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert later.partitions_def is not None
    assert later.partitions_def.get_partition_keys() == []
    assert defs.resolve_assets_def(dg.AssetKey(["batch", "customers"])).backfill_policy is None


def test_the_schedule_of_a_partitioned_sync_asks_for_no_partition(project: Path) -> None:
    """What is new is sent by the cursor, today's events too, although today is no partition yet."""
    text = EVENTS + 'partitions: {daily: 2026-01-01}\nschedule: "*/15 * * * *"\n'
    (project / "syncs" / "orders.yaml").write_text(text)
    repository = definitions(project).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance, dg.build_schedule_context(instance) as context:
        (request,) = repository.get_schedule_def("orders_schedule").evaluate_tick(context).run_requests or ()
    assert request.partition_key is None
    assert not [tag for tag in request.tags if "partition" in tag]


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ("{table: customers}", "", ["customers"]),
        ("{table: 'PROD.\"My.Schema\".T'}", "", ["My.Schema", "T"]),
        ("{table: raw.people}", "dagster: {upstream: [dbt, people]}", ["dbt", "people"]),
        ("{query: select 1}", "dagster: {upstream: [dbt, people]}", ["dbt", "people"]),
        ("{query: select 1}", "", None),
        ("{table: batch.customers}", "", None),
    ],
)
def test_upstream_is_what_the_yaml_names_else_schema_and_table(
    project: Path, source: str, settings: str, expected: list[str] | None
) -> None:
    """A sync depends on its table's key, on none for a query, and never on itself."""
    text = SYNC.split("source:")[0] + f"source: {source}\n{settings}\n"
    (project / "syncs" / "customers.yaml").write_text(text)
    found = upstream_key(load_project(project).sync("customers"))
    assert (found.path if found else None) == expected
    dg.Definitions.validate_loadable(definitions(project))


def test_two_syncs_of_one_table_load_together(project: Path) -> None:
    """A table that feeds several syncs is one upstream asset, not a conflict."""
    (project / "syncs" / "leads.yaml").write_text(FULL)
    dg.Definitions.validate_loadable(definitions(project))


def test_the_alert_sensor_exists_only_where_alerts_are_configured_and_then_runs(project: Path) -> None:
    """Who configures a webhook is told; nobody else's code location calls out."""
    (project / "connector.yaml").write_text(MAIN + "alerts: {webhook: {env: NOT_SET_ANYWHERE}}\n")
    sensors = {sensor.name: sensor for sensor in definitions(project).get_repository_def().sensor_defs}
    assert sensors["alert_sensor"].default_status == dg.DefaultSensorStatus.RUNNING


def test_definitions_load_without_a_socket(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading opens no connection and needs no variable but the project's folder."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("CONNECTOR_PROJECT", str(project))
    assert set(current_project().syncs) == {"customers", "leads"}
    dg.Definitions.validate_loadable(build_project_defs(current_project()))


def test_the_example_project_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without CONNECTOR_PROJECT and outside any project the example is what loads."""
    monkeypatch.delenv("CONNECTOR_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "customers" in current_project().syncs


def test_every_mistake_of_every_file_is_in_the_load_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad file names itself, and the others' mistakes come along, each with its place."""
    (project / "syncs" / "leads.yaml").write_text(QUERY.replace("warehouse", "warehuose"))
    (project / "connector.yaml").write_text(MAIN + "memory: 7\n")
    monkeypatch.setenv("CONNECTOR_PROJECT", str(project))
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        current_project()
    assert f"connector.yaml:{MAIN.count(chr(10)) + 1}:9: memory" in str(caught.value)
    assert "syncs/leads.yaml:2:1: " in str(caught.value)
