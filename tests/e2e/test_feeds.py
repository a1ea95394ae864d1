"""`cursor: {feed: changes}` on the Snowflake emulator, whose record of what was written the tests keep themselves."""

from pathlib import Path

import polars as pl
import pytest

from connector.state import snapshots
from connector.state.files import checksum
from tests.emulators.snowflake_bench import SnowflakeBench
from tests.world import World

CUSTOMERS = {"CUSTOM_ID": "text", "VISITS": "small"}
ORDERS = {"CUSTOM_ID": "text", "ORDER_ID": "text", "ORDERED_AT": "aware"}


class Source:
    """A project on a Snowflake database of its own, and tables whose changes are recorded."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.bench = SnowflakeBench(folder)
        settings = f"""{{type: snowflake, account: test, user: tester, password: {{file: password}}, host: 127.0.0.1,
    port: {self.bench.port}, protocol: http, database: {self.bench.database}, schema: PUBLIC}}"""
        path = folder / "connector.yaml"
        path.write_text(path.read_text().replace("{type: duckdb, path: warehouse.duckdb}", settings))

    def create(self, table: str, columns: dict[str, str]) -> None:
        """An empty table, and the record of what is written to it."""
        self.bench.create(table, columns, [])
        self.bench.create(f"{table}_WRITTEN", {**columns, "WRITTEN_AT": "aware"}, [])

    def write(self, table: str, key: str, *values: str, where: str = "custom_id") -> None:
        """Replaces the rows of a key, or removes them where no values are given; on record either way."""
        row = f"'{key}', " + ", ".join(values or ["NULL"])
        statements = [f"DELETE FROM {table} WHERE {where} = '{key}'"]
        statements += [f"INSERT INTO {table} SELECT {row}"] if values else []
        self.bench.execute(*statements, f"INSERT INTO {table}_WRITTEN SELECT {row}, SYSDATE()")

    def pause(self) -> None:
        """As if the rows had been delivered long before the next run."""
        with self.world.opened_state() as state:
            snapshot = snapshots.load(state, "customers")
            file = snapshot.folder / snapshot.files[0]["name"]
            pl.read_parquet(file).with_columns(pl.col(snapshots.AT) - 3600).write_parquet(file)
            named = [{**snapshot.files[0], "sha256": checksum(file)}]
            with state.write() as connection:
                manifest = {**snapshot.manifest, "files": named}
                snapshots.store(connection, "customers", manifest, snapshot.generation)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "project")


def test_only_what_was_written_is_read_and_as_it_is_today(source: Source) -> None:
    """A change is read by its key, a value written and taken back sends nothing, and what is gone stays as it was."""
    source.create("customers", CUSTOMERS)
    source.world.sync(cursor="{feed: changes, overlap: 0s}")
    for number in range(5):
        source.write("customers", f"c{number}", str(number))
    first = source.world.run()
    assert (first.full, first.read, first.accepted) == (True, 5, 5)

    source.write("customers", "c1", "10")
    source.write("customers", "c1", "11")
    source.write("customers", "c2", "20")
    source.write("customers", "c2", "2")
    source.write("customers", "c3")
    source.bench.execute("UPDATE customers SET visits = 40 WHERE custom_id = 'c4'")  # not on record
    source.pause()
    second = source.world.run()
    assert (second.full, second.read, second.changed, second.unchanged) == (False, 2, 1, 1)
    assert source.world.held()["c1"]["visits"] == 11


def test_a_pause_longer_than_the_record_reads_all(source: Source) -> None:
    """What the warehouse no longer tells of is found by comparing everything."""
    source.create("customers", CUSTOMERS)
    source.write("customers", "c1", "1")
    source.world.sync(cursor="{feed: changes, overlap: 0s}", guard="{max_changed: 100%}")
    source.world.run()
    source.bench.execute("UPDATE customers SET visits = 2")  # not on record
    source.pause()
    assert source.world.run().planned == 0
    source.world.sync(cursor="{feed: changes, overlap: 0s, reach: 1ms}", guard="{max_changed: 100%}")
    report = source.world.run()
    assert (report.full, report.changed) == (True, 1)
    assert "longer ago than cursor.reach" in report.notes[0]


def test_what_was_delivered_meanwhile_is_looked_up_whatever_the_record_says(source: Source) -> None:
    """A value that was delivered and is by now what it was before is no net change, and is sent all the same."""
    source.create("customers", CUSTOMERS)
    source.world.sync(cursor="{feed: changes}", guard="{max_changed: 100%}")
    source.write("customers", "c1", "1")
    source.world.run()
    source.bench.execute("UPDATE customers SET visits = 2")
    assert source.world.run(keys=("c1",)).changed == 1
    source.bench.execute("UPDATE customers SET visits = 1")
    assert source.world.run().changed == 1
    assert source.world.held()["c1"]["visits"] == 1


def test_events_are_read_as_they_were_added(source: Source) -> None:
    """An event that was added and removed again happened all the same; none is sent twice."""
    source.create("orders", ORDERS)
    source.world.events_sync(cursor="{feed: changes}")
    source.write("orders", "o1", "'1'", "SYSDATE()")
    assert source.world.run("orders").accepted == 1
    source.write("orders", "o2", "'2'", "SYSDATE()")
    source.bench.execute("DELETE FROM orders")
    report = source.world.run("orders")
    assert (report.full, report.accepted, report.already_sent) == (False, 1, 0)
    assert source.world.event_ids() == {"1": 1, "2": 1}
