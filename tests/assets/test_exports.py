"""Exports in Dagster: an asset whose key is its table, what a run of it shows, and each way to end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb
import pytest

from assets.definitions import current_project
from assets.factory import build_project_defs
from assets.metadata import EXPORT_COUNTS
from assets.run_config import ExportRunConfig
from connector.config import load_project
from connector.sync import Options
from tests.assets.conftest import EXPORT, MOVES, PROJECT_KEY, House, checks, failure, logged, metadata

STEP, MOVES_STEP = "batch__profile_attributes", "batch__moves"
KEY = dg.AssetKey(["batch", "profile_attributes"])
TODAY = datetime.now(UTC).date()


@pytest.fixture
def way_back(house: House) -> House:
    """A project of a profile sync and exports of attributes and events; Batch holds a few of each."""
    house.write("syncs/profile_attributes.yaml", EXPORT)
    house.write("syncs/moves.yaml", MOVES)
    for number in range(5):
        house.simulator.alter(
            f"c{number}", {"$email_address": f"canary{number}@example.org", "plan": "gold", "points": number}
        )
    return house


def rows(house: House, table: str = "batch.profile_attributes") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(house.root / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(f"select custom_id from {table} order by all").fetchall()


def test_the_key_is_the_table_and_the_asset_says_what_lands_there(way_back: House) -> None:
    """Key, columns, upstream, kinds and check follow from the YAML; a database's name stands in no key."""
    way_back.write("syncs/profile_attributes.yaml", EXPORT + "dagster: {upstream: [batch, customers]}\n")
    way_back.write("syncs/reach.yaml", EXPORT.split("export:")[0] + "export: reachability\ntable: lake.batch.reach\n")
    defs = build_project_defs(load_project(way_back.root))
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    asset = graph.get(KEY).to_asset_spec()
    schema = {column.name: column.type for column in asset.metadata["dagster/column_schema"].columns}
    assert schema == {
        "custom_id": "text", "email_address": "text", "plan": "inferred", "points": "inferred", "export_id": "text",
        "loaded_at": "timestamp", "raw": "json",
    }  # fmt: skip
    assert [dep.asset_key.path for dep in asset.deps] == [["batch", "customers"]]
    assert asset.kinds == {"duckdb", "polars"}
    assert "batch.profile_attributes" in (asset.description or "")
    assert dg.AssetKey(["batch", "reach"]) in graph.materializable_asset_keys
    assert [(check.key.name, check.blocking) for check in graph.asset_check_nodes if check.key.asset_key == KEY] == [
        ("complete", True)
    ]


def test_a_pull_materializes_with_its_numbers_and_lands(way_back: House) -> None:
    """Rows, files, bytes, calls and the export's id are metadata, the check passes, and the table holds the rows."""
    result = way_back.run("profile_attributes")
    found = metadata(result, STEP)
    (export,) = way_back.simulator.exports()
    assert {name: found[name] for name in EXPORT_COUNTS} == {
        **dict.fromkeys(EXPORT_COUNTS, 0),
        "rows": 5, "inserted": 5, "files": 1, "requests": 3, "bytes": export["files"][0]["size"],
    }  # fmt: skip
    assert (found["export_id"], found["dagster/row_count"], found["outcome"]) == (export["id"], 5, "green")
    assert {"seconds_wait", "seconds_download", "seconds_parse", "seconds_load", "seconds_total"} <= found.keys()
    assert "since" not in found
    assert checks(result) == {"complete": True}
    assert rows(way_back) == [(f"c{number}",) for number in range(5)]


def test_what_depends_on_the_table_runs_after_it_and_not_after_a_bad_one(way_back: House) -> None:
    """A dbt-like asset names the table's key: it sees the rows, and is held back where lines are in no table."""
    seen: list[int] = []

    @dg.asset(deps=[KEY])
    def report() -> None:
        seen.append(len(rows(way_back)))

    assert way_back.run("profile_attributes", beside=[report]).success
    assert seen == [5]
    way_back.simulator.inject({"endpoint": "export", "lines": ["no json"]})
    result = way_back.run("profile_attributes", beside=[report])
    found = metadata(result, STEP)
    assert (found["rows"], found["quarantined"], found["outcome"]) == (5, 1, "incomplete")
    assert checks(result) == {"complete": False}
    assert "connector rejects profile_attributes" in failure(result).description
    assert seen == [5]


def test_a_day_is_the_window_of_its_export(way_back: House) -> None:
    """Partitions ask for their days alone, a backfill for all of them in one export, and each day is materialized."""
    way_back.write("syncs/moves.yaml", MOVES + f"partitions: {{daily: {TODAY - timedelta(days=200)}}}\n")
    moves = build_project_defs(load_project(way_back.root)).resolve_assets_def(dg.AssetKey(["batch", "moves"]))
    assert moves.backfill_policy == dg.BackfillPolicy.single_run()
    days = [(TODAY - timedelta(days=back)).isoformat() for back in (5, 4, 3)]
    result = way_back.run("moves", days)
    materialized = {event.partition: event.metadata for event in result.asset_materializations_for_node(MOVES_STEP)}
    assert sorted(str(day) for day in materialized) == days
    (export,) = way_back.simulator.exports()
    assert (export["request"]["from"][:10], export["request"]["to"][:10]) == (days[0], str(TODAY - timedelta(days=2)))
    assert {(entry["window_total"].value, entry["since"].value[:10]) for entry in materialized.values()} == {
        (True, days[0])
    }
    old = way_back.run("moves", [(TODAY - timedelta(days=100)).isoformat()])
    assert "Batch has events from" in failure(old).description
    assert failure(old).metadata["code"].value == "usage"
    assert len(way_back.simulator.exports()) == 1


def test_a_run_without_a_partition_goes_on_from_the_last_one(way_back: House) -> None:
    """As scheduled: the first window is `since`, the next begins an hour before the end of the one before."""
    first = metadata(way_back.run("moves"), MOVES_STEP)
    second = metadata(way_back.run("moves"), MOVES_STEP)
    ends = [datetime.fromisoformat(found[name]) for found in (first, second) for name in ("since", "until")]
    assert ends[1] - ends[0] == timedelta(days=7)
    assert ends[1] - ends[2] == timedelta(hours=1)


def test_full_asks_anew_and_other_options_are_refused_before_anything_runs(way_back: House) -> None:
    """`full` reaches the library; what only syncs have is refused by name, with what there is, and nothing is asked."""
    window = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))
    assert ExportRunConfig(full=True).options() == Options(full=True)
    assert ExportRunConfig().options(window) == Options(window=window)
    assert way_back.run("profile_attributes", full=True).success
    for option in ({"dry_run": True}, {"limit": 3}, {"keys": ["c1"]}):
        with pytest.raises(
            dg.DagsterInvalidConfigError, match=f'unexpected config entry "{next(iter(option))}"'
        ) as said:
            way_back.run("profile_attributes", **option)
        assert "full?" in str(said.value)
    assert len(way_back.simulator.exports()) == 1


@pytest.fixture
def impatient(way_back: House) -> House:
    """The same, whose runs give up at once where Batch does not answer."""
    path = way_back.root / "connector.yaml"
    path.write_text(path.read_text().replace("give_up_after: 60s", "give_up_after: 100ms"))
    return way_back


def test_an_export_that_is_not_made_yet_materializes_nothing_and_is_gone_on_with(impatient: House) -> None:
    """Batch falls silent: the check fails with why, the table stays as it is, and the next run asks for no other one."""
    impatient.simulator.inject({"endpoint": "view", "status": 503, "times": 100})
    result = impatient.run("profile_attributes")
    assert not result.asset_materializations_for_node(STEP)
    assert checks(result) == {"complete": False}
    assert "the next run goes on with this export" in failure(result).description
    assert failure(result).metadata["outcome"].value == "incomplete"
    impatient.simulator.clear_faults()
    assert metadata(impatient.run("profile_attributes"), STEP)["rows"] == 5
    assert len(impatient.simulator.exports()) == 1


def test_an_export_that_fails_leaves_the_table_and_fails_the_run(way_back: House) -> None:
    """A part is missing: nothing is materialized, what was there stays, and the failure says what to do."""
    way_back.run("profile_attributes")
    way_back.simulator.inject({"endpoint": "export", "becomes": "missing_part"})
    result = way_back.run("profile_attributes")
    assert not result.asset_materializations_for_node(STEP)
    assert checks(result) == {"complete": False}
    assert "one is missing" in failure(result).description
    assert failure(result).metadata["outcome"].value == "failed"
    assert len(rows(way_back)) == 5


def test_no_key_value_or_link_reaches_the_event_log(way_back: House) -> None:
    """Metadata, checks, log lines and failures hold no custom id, no value, no secret, no address of a file."""
    way_back.simulator.inject({"endpoint": "export", "lines": ["canary line"]})
    kept = logged(way_back.instance, way_back.run("profile_attributes").run_id)
    assert "quarantined" in kept
    assert not [text for text in ("canary", '"c1"', "'c1'", PROJECT_KEY, "exports/download") if text in kept]


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        ({"syncs/copy.yaml": EXPORT}, "syncs/profile_attributes.yaml:4:", "table: this would be the asset batch/profile_attributes"),
        ({"syncs/profiles.yaml": EXPORT.replace("profile_attributes", "customers")}, "syncs/profiles.yaml:4:", "syncs/customers.yaml"),
        (
            {"syncs/copy.yaml": EXPORT.replace("batch.", "lake.batch.")},
            "syncs/profile_attributes.yaml:4:",
            "give one of them another name or table",
        ),
    ],
    ids=["two exports", "an export and a sync", "a database's name is in no key"],
)  # fmt: skip
def test_two_assets_of_one_key_are_a_mistake_of_the_yaml(
    way_back: House, files: dict[str, str], place: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster would refuse the whole code location: the mistake is said with its place instead."""
    for name, text in files.items():
        way_back.write(name, text)
    monkeypatch.setenv("CONNECTOR_PROJECT", str(way_back.root))
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        current_project()
    assert place in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
