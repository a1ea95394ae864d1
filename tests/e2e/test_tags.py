"""Whatever a run does in a warehouse, that warehouse's history can say for which sync and run."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import PrivateAttr

from connector.config import Project, load_project
from connector.sync import Options, run_sync
from connector.warehouses.duckdb import DuckDB
from tests.world import World, timeless


class Opened(NamedTuple):
    """One connection: what for, and what it said of itself."""

    how: str
    tags: Mapping[str, str] | None


class Logbook(DuckDB):
    """A DuckDB file that remembers who came."""

    _visits: list[Opened] = PrivateAttr(default_factory=list)

    def open(self, root: Path, **how: Any) -> AbstractContextManager[Any]:
        self._visits.append(Opened("read", how.get("tags")))
        return super().open(root, **how)

    def load_into(self, root: Path, **how: Any) -> AbstractContextManager[Any]:
        self._visits.append(Opened("load", how.get("tags")))
        return super().load_into(root, **how)

    def diff_in(self, root: Path, **how: Any) -> AbstractContextManager[Any]:
        self._visits.append(Opened("compare", how.get("tags")))
        return super().diff_in(root, **how)


@pytest.fixture
def world() -> Iterator[World]:
    with timeless() as world:
        world.sql("""create table customers as select 'c' || i as custom_id, 'p' || i as plan from range(3) t(i);
            create table orders as select custom_id, plan as order_id, now()::timestamp - interval 1 minute as ordered_at
            from customers""")
        world.sync(attributes="{plan: plan}")
        world.sync("compared", attributes="{plan: plan}", engine="warehouse")
        world.events_sync()
        world.export_sync(attributes="[plan]")
        yield world


def watched(world: World) -> tuple[Logbook, Project]:
    """The project with a log book in the place of its warehouse, which is the same file."""
    logbook, project = Logbook(type="duckdb", path="warehouse.duckdb"), load_project(world.folder)
    return logbook, replace(project, settings=project.settings.model_copy(update={"warehouses": {"local": logbook}}))


@pytest.mark.parametrize(
    ("sync", "ways"),
    [("customers", {"read"}), ("orders", {"read"}), ("compared", {"compare"}), ("profile_attributes", {"load"})],
)
def test_every_connection_of_a_run_says_whose_it_is(world: World, sync: str, ways: set[str]) -> None:
    """Sync and run, each time: what a warehouse bills can be told apart by them."""
    logbook, project = watched(world)
    report = run_sync(project, sync, Options(), transport=world.transport)
    assert report.outcome == "green"
    assert {visit.how for visit in logbook._visits} >= ways
    assert [visit.tags for visit in logbook._visits] == [{"sync": sync, "run": report.run}] * len(logbook._visits)


def test_a_look_at_what_an_export_would_empty_says_whose_it_is(world: World) -> None:
    """An export of nobody over a table of somebody is looked at once more, which is a read like any other."""
    world.run()
    world.pull()
    logbook, project = watched(world)
    world.api.inject({"endpoint": "export", "becomes": "empty"})
    report = run_sync(project, "profile_attributes", Options(), transport=world.transport)
    assert report.outcome == "failed"
    assert Opened("read", {"sync": "profile_attributes", "run": report.run}) in logbook._visits
