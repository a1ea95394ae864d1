"""A state of an older version is brought forward whole, or left as it was; a spoilt page is found before it is believed."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from connector.errors import StateError
from connector.state import database, rate
from connector.state.database import META, SCHEMA, open_state
from connector.state.exports import ask_anew
from connector.state.lease import hold
from tests.world import PROJECT_KEY, World

VERSIONS = {
    1: """ALTER TABLE runs DROP COLUMN began; DROP TABLE exports; ALTER TABLE chunks DROP COLUMN parts; DROP TABLE buckets;
        CREATE TABLE buckets (endpoint TEXT NOT NULL PRIMARY KEY, clock TEXT NOT NULL, paid_until FLOAT NOT NULL,
            hold_until FLOAT NOT NULL);
        INSERT INTO buckets VALUES ('update', 'a boot', 1.0, 2.0)""",
    2: "ALTER TABLE runs DROP COLUMN began; DROP TABLE exports",
    3: "ALTER TABLE runs DROP COLUMN began",
}
"""What makes today's database one of that version: the difference in the history of `connector/state/database.py`."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A project that delivered ten rows."""
    made = World(tmp_path / "project")
    made.sql("create table customers as select 'c' || i as custom_id, i as visits from range(10) t(i)")
    made.sync(attributes="{visits: visits}", endpoint="update")
    assert made.run().accepted == 10
    return made


def set_back(folder: Path, version: int) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.executescript(VERSIONS[version])
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema'", [str(version)])
        connection.execute("DELETE FROM meta WHERE name = 'checked'")
    connection.close()


def tables(folder: Path) -> dict[str, set[str]]:
    """The columns of each table."""
    engine = sa.create_engine(f"sqlite:///{folder / 'state.db'}")
    found = sa.inspect(engine)
    columns = {name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()}
    engine.dispose()
    return columns


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_state_is_brought_forward(world: World, version: int) -> None:
    """What was delivered is still known, so that nothing is sent again, and all that came since works."""
    folder = world.folder / ".connector"
    today = tables(folder)
    set_back(folder, version)
    assert tables(folder) != today
    assert world.run().requests == 0
    assert tables(folder) == today
    with open_state(folder, PROJECT_KEY) as state:
        with state.read() as connection:
            assert connection.execute(sa.select(META.c.value).where(META.c.name == "schema")).scalar_one() == str(
                SCHEMA
            )
        with state.write() as connection:
            rate.hold(connection, "update", 1.0, refused=time.monotonic())
        with hold(state, "profile_attributes", "run-1") as lease:
            assert ask_anew(state, lease, None, {}, "").number == 1
    world.sql("update customers set visits = 100 where custom_id = 'c3'")
    assert world.run().accepted == 1


def test_every_version_has_its_way_forward() -> None:
    """Who raises SCHEMA says how a state gets there."""
    assert sorted(database.MIGRATIONS) == list(range(1, SCHEMA))


def test_a_migration_that_fails_leaves_the_state_as_it_was(world: World) -> None:
    """All steps are one transaction: half a migration would be of no version."""
    folder = world.folder / ".connector"
    set_back(folder, 1)
    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("ALTER TABLE chunks ADD COLUMN parts JSON")  # so that the first step fails
        connection.execute("CREATE TABLE keep (x)")
    connection.close()
    before = tables(folder)
    with pytest.raises(StateError, match="duplicate column name: parts"), open_state(folder, PROJECT_KEY):
        pytest.fail("it opens")
    assert tables(folder) == before


def test_a_state_of_another_project_is_not_brought_forward(world: World) -> None:
    """Whose it is, is looked at first."""
    folder = world.folder / ".connector"
    set_back(folder, 1)
    before = tables(folder)
    with pytest.raises(StateError, match="another Batch project"), open_state(folder, "project_other"):
        pytest.fail("it opens")
    assert tables(folder) == before


def test_a_spoilt_page_is_found_once_a_day(world: World) -> None:
    """A page that SQLite would have read only some day stops the next day's first run, with the way out."""
    folder = world.folder / ".connector"
    with open_state(folder, PROJECT_KEY) as state, state.write() as connection:
        connection.exec_driver_sql("CREATE TABLE filler (x)")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200)"
        connection.exec_driver_sql(f"{numbers} INSERT INTO filler SELECT randomblob(900) FROM n")
    path = folder / "state.db"
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    assert world.run().outcome == "green", "it was looked at a moment ago"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'checked'")
    connection.close()
    report = world.run()
    assert report.error
    assert (report.outcome, report.error["code"]) == ("failed", "state")
    assert "is damaged" in str(report.error["message"])
    assert "backup" in str(report.error["remedy"])
