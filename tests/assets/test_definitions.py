"""What the code location holds, and that it loads without network, warehouse, credentials or environment."""

import socket
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import current_project
from assets.factory import build_project_defs
from assets.metadata import upstream_key
from connector.config import load_project
from tests.assets.conftest import MAIN, SYNC

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
    assert not repository.sensor_defs


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
    (sensor,) = definitions(project).get_repository_def().sensor_defs
    assert (sensor.name, sensor.default_status) == ("alert_sensor", dg.DefaultSensorStatus.RUNNING)


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
    assert "connector.yaml:7:9: memory" in str(caught.value)
    assert "syncs/leads.yaml:2:1: " in str(caught.value)
