"""Profiles changed and deleted by somebody else, and what becomes of people's reachability."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connector.errors import UsageError
from tests.simulator.conftest import Clock, Door, Wall, event, events, opened, operation
from tests.simulator.export_calls import lines


@pytest.fixture
def done(clock: Clock, wall: Wall) -> Iterator[Door]:
    """A simulator whose exports are done at once."""
    with opened(clock=clock, wall=wall) as found:
        found.simulator.configure(export_seconds=0, other_rate=None)
        yield found


def reached(door: Door, wall: Wall, **asked: Any) -> list[dict[str, Any]]:
    """The events of reachability until now, each checked for its id and without it."""
    wall.now += 1
    found = lines(door, **{"export_type": "REACHABILITY", "from": wall.text(-99), "to": wall.text()} | asked)
    assert len({line["event"].pop("id") for line in found}) == len(found)
    return found


def test_altering_is_an_update_that_nobody_sent(either_door: Door) -> None:
    """An altered profile follows the rules of updates, null removes, an unknown one is created, no call is counted."""
    either_door.post([operation("a/é", plan="gold", n=1)])
    before = either_door.simulator.stats
    either_door.simulator.alter("a/é", {"plan": None, "date(d)": "2026-01-01T00:00:00Z"})
    answer = either_door.call(
        "POST", "/simulator/profiles/a%2F%C3%A9", body={"$email_marketing": "unsubscribed", "n": 2}
    )
    found = either_door.simulator.profile("a/é")
    assert answer.json() == found
    assert found is not None
    assert found["native"] == {"$email_marketing": "unsubscribed"}
    assert found["custom"] == {
        "n": {"type": "integer", "value": 2}, "d": {"type": "date", "value": "2026-01-01T00:00:00Z"},
    }  # fmt: skip
    either_door.simulator.alter("new", {})
    assert either_door.simulator.profile("new") is not None
    assert either_door.simulator.stats == before


@pytest.mark.parametrize(
    ("custom_id", "attributes"),
    [("a", {"Plan": "x"}), ("a", {"$email_marketing": "no"}), ("null", {}), ("a", {f"a{n}": 1 for n in range(51)})],
)
def test_bad_alterations(door: Door, custom_id: str, attributes: dict[str, Any]) -> None:
    """What an update could not set is refused whole, in words without the value."""
    with pytest.raises(UsageError, match="cannot be altered") as caught:
        door.simulator.alter(custom_id, {"good": 1} | attributes)
    assert "no'" not in str(caught.value)
    assert door.call("POST", f"/simulator/profiles/{custom_id}", body=attributes).status_code == 400
    assert door.call("POST", "/simulator/profiles/a", body=[]).status_code == 400
    assert door.call("POST", "/simulator/profiles/a", body=b"{").status_code == 400
    assert door.simulator.profiles() == []


def test_forgetting(either_door: Door) -> None:
    """A forgotten profile is gone from pages and counts, can be created anew, and can be forgotten once."""
    either_door.post([operation("a", x=1), operation("b")])
    assert [one["custom_id"] for one in either_door.simulator.profiles()] == ["a", "b"]
    assert either_door.simulator.forget("a")
    assert not either_door.simulator.forget("a")
    either_door.post([operation("0")])
    assert [one["custom_id"] for one in either_door.simulator.profiles()] == ["0", "b"]
    assert either_door.call("DELETE", "/simulator/profiles/b").status_code == 200
    assert either_door.call("DELETE", "/simulator/profiles/b").status_code == 404
    either_door.post([operation("a")])
    again = either_door.simulator.profile("a")
    assert again is not None
    assert again["custom"] == {}


def test_a_restart_remembers_who_was_forgotten(tmp_path: Path) -> None:
    """Alterations and deletions reach the file."""
    with opened(folder=tmp_path) as door:
        door.post([operation("a"), operation("b")])
        door.simulator.forget("a")
        door.simulator.alter("b", {"x": 1})
        before = door.simulator.profiles()
    with opened(folder=tmp_path) as door:
        assert door.simulator.profiles() == before
        assert [one["custom_id"] for one in before] == ["b"]


def test_changes_of_reachability(done: Door, wall: Wall) -> None:
    """Each change of an address or a subscription is an event of its channel with every reason of the change."""
    profile = "$email_address", "$email_marketing", "$phone_number", "$sms_marketing"
    for values in (
        ("a@example.org", "subscribed", "+331", None),
        ("a@example.org", "subscribed", "+331", None),
        ("b@example.org", "unsubscribed", None, "subscribed"),
        (None, None, None, "unsubscribed"),
    ):
        done.post([operation("a", x=1, **dict(zip(profile, values, strict=True)))])
    done.post([operation("b", x=1)])
    found = reached(done, wall)
    held = done.simulator.profile("a")
    assert held is not None
    assert {tuple(line["identifiers"].items()) for line in found} == {
        (("profile_id", held["profile_id"]), ("custom_id", "a"))
    }
    assert all(line["event"].pop("timestamp") == wall.text(-1) for line in found)
    assert [line["event"] for line in found] == [
        {
            "channel": "EMAIL",
            "reasons": ["EMAIL_ADDRESS_ADDED", "SUBSCRIBED_TO_EMAIL_MARKETING"],
            "has_email_address": True,
            "email_marketing": "subscribed",
        },
        {"channel": "SMS", "reasons": ["PHONE_NUMBER_ADDED"], "has_phone_number": True},
        {
            "channel": "EMAIL",
            "reasons": ["EMAIL_ADDRESS_UPDATED", "UNSUBSCRIBED_FROM_EMAIL_MARKETING"],
            "has_email_address": True,
            "email_marketing": "unsubscribed",
        },
        {
            "channel": "SMS",
            "reasons": ["PHONE_NUMBER_REMOVED", "SUBSCRIBED_TO_SMS_MARKETING"],
            "has_phone_number": False,
            "sms_marketing": "subscribed",
        },
        {"channel": "EMAIL", "reasons": ["EMAIL_ADDRESS_REMOVED"], "has_email_address": False},
        {
            "channel": "SMS",
            "reasons": ["UNSUBSCRIBED_FROM_SMS_MARKETING"],
            "has_phone_number": False,
            "sms_marketing": "unsubscribed",
        },
    ]


def test_opt_outs_by_somebody_else(done: Door, wall: Wall) -> None:
    """An alteration is an event at its own moment, in its channel and window alone."""
    done.post([operation("a", **{"$email_marketing": "subscribed", "$sms_marketing": "subscribed"})])
    wall.now += 100
    done.simulator.alter("a", {"$email_marketing": "unsubscribed"})
    (line,) = reached(done, wall)
    assert line["event"]["reasons"] == ["UNSUBSCRIBED_FROM_EMAIL_MARKETING"]
    assert line["event"]["timestamp"] == wall.text(-1)
    everything = {"from": wall.text(-200)}
    assert [line["event"]["channel"] for line in reached(done, wall, **everything, channels=["SMS"])] == ["SMS"]
    assert reached(done, wall, **everything, channels=["PUSH"]) == []
    moment = {"from": line["event"]["timestamp"], "to": wall.text()}
    assert len(reached(done, wall, **moment)) == 1
    assert reached(done, wall, **{"from": wall.text(-50), "to": moment["from"]}) == []


def test_the_forgotten_are_in_no_export(done: Door, wall: Wall) -> None:
    """Nothing of a forgotten person is exported, while what was delivered still counts."""
    done.post([events("a", event(), **{"$sms_marketing": "subscribed"}), operation("b")])
    done.simulator.forget("a")
    assert reached(done, wall) == []
    assert lines(done, export_type="EVENTS", **{"from": wall.text(-99), "to": wall.text()}) == []
    assert [line["identifiers"]["custom_id"] for line in lines(done)] == ["b"]
    assert len(done.simulator.events()) == 1


def test_a_reset_forgets_reachability(done: Door, wall: Wall) -> None:
    """After a reset nothing of the past is told of who is created anew."""
    done.post([operation("a", **{"$sms_marketing": "subscribed"})])
    done.simulator.reset()
    done.post([operation("a")])
    assert reached(done, wall) == []
