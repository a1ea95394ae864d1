"""Events through the doors: what is stored, in which order, what is counted and what survives."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from connector.simulator import Simulator
from tests.simulator.conftest import KEY, PROJECT, Clock, Door, Wall, event, events, opened, operation


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found]


def test_events_are_shown_as_kept(door: Door, wall: Wall) -> None:
    """An event shows its time as sent, its reception, and its attributes with their types under bare names."""
    sent = event(
        time=wall.text(-60), event_id="e1", n=1, f=1.5, b=True, t=["a"], gone=None, bad="",
        o={"date(d)": "2026-01-01T00:00:00Z"}, items=[{"sku": "x"}],
        **{"date(due)": "2026-01-01T00:00:00Z", "url(u)": "a://b", "$label": "web", "$tags": ["a"]},
    )  # fmt: skip
    answer = door.post([events("c1", sent)])
    assert answer.json()["errors"] == [
        {"category": "attribute", "bulk_index": 0, "reason": "string value is empty", "attribute": "bad"}
    ]
    assert door.simulator.events() == [
        {
            "sequence": 1,
            "custom_id": "c1",
            "name": "bought",
            "time": wall.text(-60),
            "received": wall.now,
            "attributes": {
                "event_id": "e1", "n": 1, "f": 1.5, "b": True, "t": ["a"],
                "o": {"date(d)": "2026-01-01T00:00:00Z"}, "items": [{"sku": "x"}],
                "due": "2026-01-01T00:00:00Z", "u": "a://b", "$label": "web", "$tags": ["a"],
            },
            "types": {
                "event_id": "string", "n": "integer", "f": "float", "b": "boolean", "t": "array",
                "o": "object", "items": "array", "due": "date", "u": "url", "$label": "string", "$tags": "array",
            },
        }
    ]  # fmt: skip


def test_an_event_without_time_has_that_of_its_reception(door: Door, wall: Wall) -> None:
    """Reception time stands in, by the wall clock, and such an event without attributes shows none."""
    door.post([events("c1", event())])
    found = door.simulator.events()[0]
    assert (found["time"], found["received"]) == (wall.text(), wall.now)
    assert (found["attributes"], found["types"]) == ({}, {})


def test_events_create_their_profile(door: Door) -> None:
    """An operation with events alone is a success and creates its profile; an empty array is none."""
    assert door.post([{"identifiers": {"custom_id": "a"}, "events": [event()]}]).json() == {"code": "SUCCESS"}
    assert door.post([{"identifiers": {"custom_id": "b"}, "events": []}]).json() == {"code": "SUCCESS"}
    assert [profile["custom_id"] for profile in door.simulator.profiles()] == ["a", "b"]
    assert [one["custom_id"] for one in door.simulator.events()] == ["a"]


def test_refused_events_are_told_without_their_index(door: Door, wall: Wall) -> None:
    """Two bad events of an operation are two errors that nobody can tell apart, as with the real API."""
    late = event("late", wall.text(-90_000))
    answer = door.post([operation("a"), events("b", late, event("good"), late, plan="gold")])
    assert answer.status_code == 202
    assert answer.json() == {
        "code": "SUCCESS_WITH_PARTIAL_ERRORS",
        "errors": [{"category": "event", "bulk_index": 1, "reason": "event is older than 24 hours"}] * 2,
    }
    assert names(door.simulator.events()) == ["good"]
    stats = door.simulator.stats
    assert (stats["events"], stats["events_refused"], stats["partial_errors"]) == (1, 2, 2)
    found = door.simulator.profile("b")
    assert found is not None
    assert set(found["custom"]) == {"plan"}


def test_only_answered_events_are_counted(door: Door) -> None:
    """Events of a refused operation are refused, those of a refused call are neither."""
    door.post([events("a", *[event()] * 16), events("b", event())])
    door.post([events("null", event())])
    assert (door.simulator.stats["events"], door.simulator.stats["events_refused"]) == (1, 16)


def test_pages_of_events(either_door: Door) -> None:
    """Pages follow the order of application, by profile too, and cover every event once through both doors."""
    for turn in range(3):
        either_door.post([events(custom_id, event(f"{custom_id}_{turn}")) for custom_id in ("b", "a")])
    assert names(either_door.simulator.events()) == ["b_0", "a_0", "b_1", "a_1", "b_2", "a_2"]
    assert names(either_door.simulator.events("a", after=2)) == ["a_1", "a_2"]
    assert either_door.simulator.events("nobody") == []
    seen: list[str] = []
    after = 0
    for _ in range(3):
        params = {"custom_id": "a", "limit": "2", "after": str(after)}
        page = either_door.call("GET", "/simulator/events", params=params).json()
        seen += names(page["events"])
        after = page["next"]
        if after is None:
            break
    assert seen == ["a_0", "a_1", "a_2"]
    assert either_door.call("GET", "/simulator/events").json() == {
        "events": either_door.simulator.events(), "next": None,
    }  # fmt: skip


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "x"}, {"after": "-1"}, {"after": "1.5"}, {"after": ""}])
def test_bad_places_in_the_pages(door: Door, params: dict[str, str]) -> None:
    """A limit or a sequence that is no whole number is refused."""
    assert door.call("GET", "/simulator/events", params=params).status_code == 400


def test_the_log_names_events(either_door: Door) -> None:
    """The log holds the number of events and their ids in order, of refused calls too."""
    either_door.post([events("a", event(event_id="e1"), event()), events("b", event(event_id=7), {"name": "x"})])
    either_door.post([events("a", event(event_id="e2")), events("null", "bad", event(event_id=None))])
    log = either_door.call("GET", "/simulator/requests", params={"log": "1"}).json()["log"]
    assert [(entry["status"], entry["events"], entry["event_ids"]) for entry in log] == [
        (202, 4, ["e1", "", "7", ""]),
        (400, 3, ["e2", "", ""]),
    ]
    assert log == [entry._asdict() for entry in either_door.simulator.requests]


def test_late_events(door: Door, clock: Clock, wall: Wall) -> None:
    """A late call's events come after those applied meanwhile, judged by the age that they had when received."""
    door.simulator.inject({"late": 120})
    assert door.post([events("c1", event("early", wall.text(-86_400)))]).json() == {"code": "SUCCESS"}
    received = wall.now
    wall.now += 120
    assert names(door.simulator.events()) == []
    door.post([events("c1", event("meanwhile", wall.text()))])
    clock.now += 120
    found = door.simulator.events()
    assert names(found) == ["meanwhile", "early"]
    assert (found[1]["received"], found[1]["sequence"]) == (received, 2)
    assert door.simulator.stats["event_overtakes"] == 1


def test_overtaken_events_are_counted(door: Door, wall: Wall) -> None:
    """An event applied after a later one of its profile is an overtake; equal times, others' and untimed are none."""
    door.post([events("a", event(time=wall.text(-10))), events("b", event(time=wall.text(-50)))])
    door.post([events("a", event(time=wall.text(-10)), event(), event(time=wall.text(-9)))])
    door.post([events("b", event(time=wall.text(-40)))])
    assert door.simulator.stats["event_overtakes"] == 0
    door.post([events("a", event(time=wall.text(-20)), event(time=wall.text(-15)), event(time=wall.text(-5)))])
    assert door.simulator.stats["event_overtakes"] == 2


def test_installations_keep_no_event(door: Door) -> None:
    """Events for an unknown installation succeed and are seen nowhere."""
    identifiers = {"installation": {"apikey": "a", "installation_id": "b"}}
    assert door.post([{"identifiers": identifiers, "events": [event()]}]).json() == {"code": "SUCCESS"}
    assert door.simulator.events() == []


def test_events_survive_a_restart(tmp_path: Path, wall: Wall) -> None:
    """Events, their order and the latest time of each profile are the same after a restart, and go on from there."""
    with opened(folder=tmp_path, wall=wall) as door:
        door.post([events("é", event("one", wall.text(-5), x="é", **{"url(u)": "a://b"}), event("two"))])
        door.post([events("b", event("three"))])
        before = door.simulator.events()
    wall.now += 10
    with opened(folder=tmp_path, wall=wall) as door:
        assert door.simulator.events() == before
        door.post([events("é", event("four", wall.text(-20)))])
        assert names(door.simulator.events("é")) == ["one", "two", "four"]
        assert door.simulator.events()[-1]["sequence"] == 4
        assert door.simulator.stats["event_overtakes"] == 1


def test_events_are_written_before_the_answer(tmp_path: Path) -> None:
    """A simulator that is not closed in order has lost no event that it answered."""
    simulator = Simulator({PROJECT: KEY}, folder=tmp_path / "live")
    simulator.project().receive("update", json.dumps([events("a", event())]).encode())
    copies = tmp_path / "copy"
    copies.mkdir()
    for file in (tmp_path / "live").glob("profiles.sqlite*"):
        (copies / file.name).write_bytes(file.read_bytes())
    simulator.close()
    with Simulator({PROJECT: KEY}, folder=copies) as again:
        assert names(again.events()) == ["bought"]


def test_reset_forgets_events(tmp_path: Path) -> None:
    """A reset project has no events, in memory nor in the file, and counts its sequences anew; the other keeps its."""
    credentials = {PROJECT: KEY, "project_two": "rest_two"}
    body = json.dumps([events("a", event())]).encode()
    with Simulator(credentials, folder=tmp_path) as simulator:
        for key in credentials:
            simulator.project(key).receive("update", body)
        simulator.reset(project=PROJECT)
        assert simulator.events(project=PROJECT) == []
        assert simulator.project(PROJECT).stats()["events"] == 0
        simulator.project(PROJECT).receive("update", body)
    with Simulator(credentials, folder=tmp_path) as simulator:
        assert [one["sequence"] for one in simulator.events(project=PROJECT)] == [1]
        assert len(simulator.events(project="project_two")) == 1


async def _together(door: Door, *calls: list[object]) -> None:
    async with asyncio.TaskGroup() as group:
        for operations in calls:
            group.create_task(door.acall("POST", "/2.11/profiles/update", body=operations))


def test_overlapping_calls_are_counted(either_door: Door) -> None:
    """Calls in flight together count as overlapping where they share a custom id, whoever answers first."""
    either_door.simulator.inject({"delay": 0.2, "share": 1})
    asyncio.run(_together(either_door, [operation("a")], [operation("b")], [operation("c"), operation("d")]))
    assert either_door.simulator.stats["overlapping"] == 0
    asyncio.run(_together(either_door, [operation("a"), operation("b")], [events("b", event())], [operation("c")]))
    assert either_door.simulator.stats["overlapping"] == 1


def test_calls_one_after_the_other_do_not_overlap(either_door: Door) -> None:
    """An answered call is over, also where its answer was an error, was cut or held back."""
    either_door.simulator.inject({"delay": 0.05}, {"status": 500}, {"cut": True}, {"late": 60})
    for _ in range(5):
        try:
            either_door.post([operation("a"), operation("a")])
        except httpx.RemoteProtocolError:
            assert either_door.over_http
    assert either_door.simulator.stats["requests"] == 5
    assert either_door.simulator.stats["overlapping"] == 0


def test_an_abandoned_call_is_over(either_door: Door) -> None:
    """Who hangs up on a held back answer and calls again has one call in flight, not two."""
    either_door.simulator.inject({"delay": 30})

    async def give_up() -> None:
        async with asyncio.timeout(0.2):
            await either_door.acall("POST", "/2.11/profiles/update", body=[operation("a")])

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    either_door.call("GET", "/simulator/requests")
    either_door.post([operation("a")])
    assert either_door.simulator.stats["overlapping"] == 0
