"""The sensor of a warehouse starts the syncs whose table has changed, once for each change, and no others."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import duckdb
import pytest

from assets.factory import build_project_defs
from assets.table_sensors import table_sensors
from connector.config import load_project
from tests.assets.conftest import EVENTS, EXPORT, SYNC, House

NAME = "local_table_changed"


class Watch:
    """The sensor, looking again from where it was."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.cursor: str | None = None
        self.definitions = build_project_defs(load_project(house.root))
        self.sensor = self.definitions.resolve_sensor_def(NAME)

    def look(self, *, keep: bool = True) -> tuple[list[dg.RunRequest], str]:
        """What it asks for, and what it says; where `keep` is not, as in a process that died then."""
        context = dg.build_sensor_context(
            instance=self.house.instance, cursor=self.cursor, definitions=self.definitions, sensor_name=NAME
        )
        data = self.sensor.evaluate_tick(context)
        if keep:
            self.cursor = data.cursor
        return list(data.run_requests or ()), data.skip_message or ""

    def started(self) -> list[str]:
        """The jobs that it starts now."""
        return sorted(str(request.job_name) for request in self.look()[0])


@pytest.fixture
def watch(house: House) -> Watch:
    """Customers and orders in one file, long at rest; the sensor has seen them."""
    house.order(date(2026, 1, 1), days=1, a_day=10)
    house.write("syncs/profile_attributes.yaml", EXPORT)
    house.rest(7200)
    watch = Watch(house)
    assert watch.started() == [], "what happened before is no news"
    return watch


def test_a_change_starts_each_sync_of_the_table_once(watch: Watch) -> None:
    """The first look remembers, a table that stands starts nothing, a change starts profiles and events by their jobs."""
    assert watch.started() == []
    watch.house.fill(50)
    watch.house.rest(3600)
    assert watch.started() == ["customers_job", "orders_job"]
    assert watch.started() == []


def test_a_table_that_is_being_written_to_is_looked_at_again(watch: Watch) -> None:
    """Nothing can be told of a file of this moment; that it was written to is not forgotten."""
    watch.house.fill(50)
    requests, said = watch.look()
    assert requests == []
    assert said.count("marts.customers") == said.count("marts.orders") == 1
    watch.house.rest(3600)
    assert watch.started() == ["customers_job", "orders_job"]


def test_a_look_that_is_repeated_asks_for_the_same_runs(watch: Watch) -> None:
    """Dagster starts no run twice for one key, so that a daemon may die after it started some."""
    watch.house.fill(50)
    watch.house.rest(3600)
    first, _ = watch.look(keep=False)
    second, _ = watch.look()
    assert [request.run_key for request in first] == [request.run_key for request in second]
    watch.house.fill(60)
    watch.house.rest(1800)
    third, _ = watch.look()
    assert not {request.run_key for request in second} & {request.run_key for request in third}


def test_a_run_under_way_is_waited_for(watch: Watch) -> None:
    """A run may have read before the change, and a second one would find the sync busy: the next look starts it."""
    run = watch.house.instance.create_run_for_job(
        watch.definitions.resolve_job_def("customers_job"), status=dg.DagsterRunStatus.STARTED
    )
    watch.house.fill(50)
    watch.house.rest(3600)
    assert watch.started() == ["orders_job"]
    watch.house.instance.report_run_canceled(run)
    assert watch.started() == ["customers_job"]
    assert watch.started() == []


def test_a_partitioned_sync_runs_as_its_schedule_does(watch: Watch) -> None:
    """Without a partition: it sends what is new."""
    watch.house.fill(50)
    watch.house.rest(3600)
    asked, _ = watch.look()
    (orders,) = (request for request in asked if request.job_name == "orders_job")
    assert orders.partition_key is None
    watch.house.simulator.configure(update_rate=None)
    assert watch.house.run("orders").success


def test_a_view_starts_nothing_and_is_named(house: House) -> None:
    """A sync whose table tells nothing is not forgotten silently."""
    house.sql("create view marts.seen as select * from marts.customers")
    house.write("syncs/customers.yaml", SYNC.replace("marts.customers", "marts.seen"))
    house.rest(7200)
    watch = Watch(house)
    watch.look()
    house.sql("update marts.customers set points = 0")
    house.rest(3600)
    asked, said = watch.look()
    assert asked == []
    assert said == ("no table is known to have changed; whether they did cannot be told of marts.seen: use schedules")


def test_a_missing_table_does_not_stop_the_others(watch: Watch) -> None:
    """The look says what is wrong with it, and starts the syncs of the tables that are there."""
    watch.house.sql("drop table marts.orders")
    watch.house.rest(3600)
    assert watch.started() == ["customers_job"]
    _, said = watch.look()
    assert "there is no table 'marts.orders'" in said


def test_a_warehouse_that_cannot_be_opened_is_told_in_a_sentence(watch: Watch) -> None:
    """A skipped look with the reason, and nothing forgotten."""
    watch.house.fill(50)
    watch.house.rest(3600)
    with duckdb.connect(str(watch.house.root / "warehouse.duckdb")):
        asked, said = watch.look()
    assert asked == []
    assert "is open in this very process" in said
    assert watch.started() == ["customers_job", "orders_job"]


def test_a_file_that_holds_snapshots_of_ours_starts_nothing(house: House) -> None:
    """With `engine: warehouse` each run writes to the file: it would start itself for ever."""
    house.write("syncs/customers.yaml", SYNC + "engine: warehouse\n")
    house.rest(7200)
    watch = Watch(house)
    watch.look()
    house.fill(41)
    house.rest(3600)
    assert watch.started() == ["customers_job"]
    assert house.run().success
    house.rest(1800)
    assert watch.started() == []


@pytest.mark.parametrize(("warehouse", "seconds"), [("{type: duckdb, path: w.duckdb}", 60),
    ("{type: bigquery, project: acme}", 60), ("{type: snowflake, connection_name: prod}", 300)])  # fmt: skip
def test_sensors_are_there_where_a_table_is_read_and_start_stopped(house: House, warehouse: str, seconds: int) -> None:
    """One a warehouse, at the pace that its looks cost; none where there are queries and exports alone."""
    main = (house.root / "connector.yaml").read_text()
    house.write("connector.yaml", main + f"  other-one: {warehouse}\n")
    house.write("syncs/customers.yaml", SYNC.replace("{table: marts.customers}", "{query: select 1}"))
    house.write("syncs/profile_attributes.yaml", EXPORT)
    assert sensors(house) == []
    house.write("syncs/orders.yaml", EVENTS.replace("warehouse: local", "warehouse: other-one"))
    (sensor,) = sensors(house)
    assert (sensor.name, sensor.minimum_interval_seconds) == ("other__one_table_changed", seconds)
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def sensors(house: House) -> Sequence[dg.SensorDefinition]:
    """The table sensors of the project; those that its definitions have."""
    project = load_project(house.root)
    loaded = build_project_defs(project).resolve_all_job_defs()
    made = table_sensors(project, {job.name: job for job in loaded})
    dg.Definitions.validate_loadable(build_project_defs(project))
    return made
