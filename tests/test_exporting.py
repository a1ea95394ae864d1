"""Bringing an export: the rate that all share, the patience, the lease, and what is asked of a list of parts."""

import time
from collections.abc import Iterator

import pytest

from connector.api.exports import Export, ExportFile
from connector.asking import PAUSE_MAX
from connector.errors import ExportError
from connector.exporting import DEADLINE, _whole
from connector.simulator import Rate
from tests.world import World, timeless


@pytest.fixture
def world() -> Iterator[World]:
    """Three people, and two exports of them."""
    with timeless() as world:
        world.sql("select 1")
        for n in range(3):
            world.api.alter(f"c{n}", {"plan": "x"})
        world.export_sync(attributes="[plan]")
        world.export_sync("other", attributes="[plan]")
        yield world


def shown(*parts: int) -> Export:
    return Export("export_1", "SUCCESS", {}, None, tuple(ExportFile(f"file_{part}", part, 1) for part in parts))


@pytest.mark.parametrize(("parts", "kept"), [((), []), ((1,), [1]), ((2, 1, 3), [1, 2, 3]), ((1, 2, 2, 1), [1, 2])])
def test_parts_in_any_order(parts: tuple[int, ...], kept: list[int]) -> None:
    """They are put in order, and a file that is named twice is one."""
    assert [file.part for file in _whole(shown(*parts))] == kept


@pytest.mark.parametrize(
    "export",
    [
        shown(2), shown(0, 1), shown(1, 3), shown(1, 2, 4, 5), shown(1)._replace(files=(ExportFile("a", 1, 1), ExportFile("b", 1, 1))),
        shown(1)._replace(files=(ExportFile("a", 1, 1), ExportFile("a", 2, 1))), shown(1)._replace(files=(ExportFile("a", 1, 1), ExportFile("a", 1, 2))),
    ],
)  # fmt: skip
def test_parts_that_are_no_whole(export: Export) -> None:
    """One is missing, two claim one place, or one claims two."""
    with pytest.raises(ExportError, match="one is missing, or there twice"):
        _whole(export)


def test_the_documented_rate_is_kept(world: World) -> None:
    """One call a second for all exports of a state together: Batch has nothing to refuse."""
    world.configure(limits="{}")
    world.api.configure(other_rate=Rate(1, 1), export_seconds=9)
    start, before = time.time(), world.api.stats["requests"]
    reports = [world.pull("profile_attributes"), world.pull("other")]
    assert [(report.outcome, report.throttled) for report in reports] == [("green", 0)] * 2
    assert world.api.stats["throttled"] == 0
    calls = world.api.stats["requests"] - before
    assert calls == sum(report.requests for report in reports) <= 16
    assert time.time() - start >= calls - 1


def test_a_refusal_holds_everybody(world: World) -> None:
    """What a 429 asks for is waited by the next run of another sync, too."""
    world.configure(delivery="{give_up_after: 1s}")
    world.api.inject({"endpoint": "export", "status": 429, "retry_after": 50})
    report = world.pull("profile_attributes")
    assert (report.outcome, report.throttled) == ("incomplete", 1)
    start = time.time()
    assert world.pull("other").outcome == "green"
    assert time.time() - start >= 50


def test_pauses_grow_and_end(world: World) -> None:
    """An export of an hour is looked at some hundred times, and found soon after it is made."""
    world.api.configure(export_seconds=3600)
    start = time.time()
    report = world.pull()
    assert report.outcome == "green"
    assert 3600 <= time.time() - start <= 3600 + PAUSE_MAX + 1
    assert report.requests < 150
    assert report.seconds.wait >= 3600
    assert DEADLINE > 3600
