"""Faults that mean events, through both doors."""

from typing import Any

import pytest

from tests.simulator.conftest import Clock, Door, event, events, operation


def kept(door: Door) -> list[tuple[str, dict[str, Any]]]:
    return [(one["name"], one["attributes"]) for one in door.simulator.events()]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({"event_id": "e1"}, ["b2", "c3"]),
        ({"name": "b"}, ["a1", "c3"]),
        ({"name": "a", "event_id": "e1"}, ["b2", "c3"]),
        ({}, []),
    ],
)
def test_named_events_are_refused_alone(either_door: Door, wanted: dict[str, str], left: list[str]) -> None:
    """Each event that is meant is an error without attribute; the operation's attributes and other events stay."""
    sent = [event(name, event_id=f"e{number}") for number, name in enumerate("abc", 1)]
    either_door.simulator.inject({"partial": [{"custom_id": "x", "event": wanted, "reason": "no"}]})
    answer = either_door.post([events("y", *sent), events("x", *sent, plan="gold")]).json()
    assert answer["errors"] == [{"category": "event", "bulk_index": 1, "reason": "no"}] * (3 - len(left))
    found = either_door.simulator.events("x")
    assert [one["name"] + one["attributes"]["event_id"][1] for one in found] == left
    assert len(either_door.simulator.events("y")) == 3
    profile = either_door.simulator.profile("x")
    assert profile is not None
    assert set(profile["custom"]) == {"plan"}
    stats = either_door.simulator.stats
    assert (stats["events"], stats["events_refused"]) == (3 + len(left), 3 - len(left))


def test_a_refused_event_is_waited_for(door: Door) -> None:
    """The fault leaves calls that hold the profile without the event, or the event of another profile."""
    door.simulator.inject({"partial": [{"custom_id": "x", "event": {"event_id": "e1"}}]})
    assert door.post([events("x", event(event_id="e2")), events("y", event(event_id="e1"))]).json()["code"] == "SUCCESS"
    assert door.post([operation("x")]).json()["code"] == "SUCCESS"
    answer = door.post([events("x", event(event_id="e1"))]).json()
    assert answer["errors"] == [{"category": "event", "bulk_index": 0, "reason": "injected fault"}]


def test_an_attribute_of_events_is_refused(door: Door) -> None:
    """A named attribute is taken from the profile's, else from each event that has it, wrapped or not."""
    door.simulator.inject({"partial": [{"custom_id": "x", "attribute": "d"}], "times": 2})
    dated = {"date(d)": "2026-01-01T00:00:00Z"}
    error = {"category": "attribute", "bulk_index": 0, "reason": "injected fault", "attribute": "d"}
    assert door.post([events("x", event("one", n=1, **dated), d=5)]).json()["errors"] == [error]
    assert door.post([events("x", event("two", n=1, **dated), event("three", n=2), event(d=3))]).json()["errors"] == [
        error, error,
    ]  # fmt: skip
    assert kept(door) == [
        ("one", {"n": 1, "d": "2026-01-01T00:00:00Z"}), ("two", {"n": 1}), ("three", {"n": 2}), ("bought", {}),
    ]  # fmt: skip
    assert door.simulator.stats["events_refused"] == 0


def test_a_refused_operation_takes_its_events_along(door: Door) -> None:
    """Without attribute and event the operation is refused whole."""
    door.simulator.inject({"partial": [{"custom_id": "x"}]})
    door.post([events("x", event(), event()), events("y", event())])
    assert [one["custom_id"] for one in door.simulator.events()] == ["y"]
    assert door.simulator.stats["events_refused"] == 2


def test_calls_matched_by_event(either_door: Door) -> None:
    """A fault can wait for the call that holds an event, alone or together with a custom id."""
    either_door.simulator.inject(
        {"status": 400, "match": {"event_id": "e1"}}, {"status": 503, "match": {"event_id": "e2", "custom_id": "b"}}
    )
    calls = [("a", "e2"), ("b", "e3"), ("a", "e1"), ("b", "e2"), ("a", "e1")]
    statuses = [either_door.post([events(who, event(event_id=which))]).status_code for who, which in calls]
    assert statuses == [202, 202, 400, 503, 202]
    assert [one["attributes"]["event_id"] for one in either_door.simulator.events()] == ["e2", "e3", "e1"]


def test_unapplied_and_late_events(door: Door, clock: Clock) -> None:
    """Events follow their call: a lie of a 202 keeps none, a 500 after the effect keeps all, a late one waits."""
    door.simulator.inject({"apply": False}, {"status": 500, "apply": True}, {"status": 504, "late": 5})
    for name in ("lost", "doubted", "late"):
        door.post([events("x", event(name))])
    assert kept(door) == [("doubted", {})]
    clock.now += 5
    assert kept(door) == [("doubted", {}), ("late", {})]
