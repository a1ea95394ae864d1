"""What stands in the files of exports."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulator.conftest import Clock, Door, Wall, event, events, opened, operation
from tests.simulator.export_calls import lines


@pytest.fixture
def done(clock: Clock, wall: Wall) -> Iterator[Door]:
    """A simulator whose exports are done at once."""
    with opened(clock=clock, wall=wall) as found:
        found.simulator.configure(export_seconds=0, other_rate=None)
        yield found


def test_attributes_as_they_were_sent(done: Door) -> None:
    """A line holds the wanted attributes alone, in UTC, sorted by custom id, and no key for what is absent."""
    done.post(
        [
            operation(
                "b", plan="gold", n=1, f=1.5, v=True, tags=["x", "y"], other=1,
                **{"$language": "fr", "date(d)": "2024-06-01T00:15:00+02:00", "url(u)": "https://example.org"},
            ),
            operation("a"),
        ]
    )  # fmt: skip
    wanted = ["plan", "n", "f", "v", "tags", "d", "u", "$language", "never"]
    assert lines(done, attributes=wanted) == [
        {"identifiers": {"custom_id": "a"}, "attributes": {}},
        {
            "identifiers": {"custom_id": "b"},
            "attributes": {
                "plan": "gold", "n": 1, "f": 1.5, "v": True, "tags": ["x", "y"], "$language": "fr",
                "d": "2024-05-31T22:15:00Z", "u": "https://example.org",
            },
        },
    ]  # fmt: skip
    assert lines(done, attributes=["plan"], identifiers=["installation_ids"])[1] == {
        "identifiers": {}, "attributes": {"plan": "gold"},
    }  # fmt: skip
    assert lines(done, identifiers=["custom_id", "installation_ids"])[0] == {
        "identifiers": {"custom_id": "a"}, "attributes": {},
    }  # fmt: skip


def test_the_other_guesses(done: Door) -> None:
    """Dates and URLs can come back wrapped, dates as milliseconds, and empty profiles not at all."""
    done.post([operation("a", x="1", **{"date(d)": "1970-01-01T00:00:01.5Z", "url(u)": "a://b"}), operation("b")])
    done.simulator.configure(export_style="wrapped", export_dates="epoch_ms", export_blanks=False)
    assert lines(done, attributes=["d", "u", "x"]) == [
        {"identifiers": {"custom_id": "a"}, "attributes": {"date(d)": 1500, "url(u)": "a://b", "x": "1"}}
    ]


def test_events_of_a_window(done: Door, wall: Wall) -> None:
    """Events from `from` to before `to` come in the order they were applied, by their time or their reception."""
    for name, at in ("too_early", -11), ("late", -1), ("first", -10), ("too_late", 0):
        done.post([events("a", event(name, wall.text(at)))])
    wall.now += 5
    done.post([events("b", event("received"))])
    wall.now += 5
    asked = {"export_type": "EVENTS", "from": wall.text(-20), "to": wall.text(-10)}
    found = lines(done, **asked)
    assert [(line["event"]["name"], line["event"]["timestamp"]) for line in found] == [
        ("late", wall.text(-11)), ("first", wall.text(-20)),
    ]  # fmt: skip
    assert [line["event"]["id"] for line in lines(done, **asked)] == [line["event"]["id"] for line in found]
    later = lines(done, **asked | {"to": wall.text(-4)})
    assert [line["event"]["name"] for line in later] == ["late", "first", "too_late", "received"]
    assert len({line["event"]["id"] for line in later if len(line["event"]["id"]) == 32}) == 4
    assert [line["event"]["name"] for line in lines(done, **asked, events=["first", "x"])] == ["first"]


@pytest.mark.parametrize(
    ("style", "attributes"),
    [
        ("bare", {"due": "2025-12-31T23:00:00Z", "u": "a://b", "o": {"d": "2026-01-01T00:00:00Z"}}),
        ("wrapped", {"date(due)": "2025-12-31T23:00:00Z", "url(u)": "a://b", "o": {"date(d)": "2026-01-01T00:00:00Z"}}),
    ],
)
def test_attributes_of_events(done: Door, wall: Wall, style: str, attributes: dict[str, Any]) -> None:
    """An event's attributes follow the style too, inside objects as well; who it is about stands beside."""
    sent = event(
        o={"date(d)": "2026-01-01T00:00:00Z"}, items=[{"url(u)": "a://b"}], n=1.5, gone=None,
        **{"date(due)": "2026-01-01T00:00:00+01:00", "url(u)": "a://b", "$label": "web", "$tags": ["a"]},
    )  # fmt: skip
    done.post([events("c", sent)])
    done.simulator.configure(export_style=style)
    wall.now += 1
    window = {"export_type": "EVENTS", "from": wall.text(-9), "to": wall.text()}
    (line,) = lines(done, **window)
    common = {"items": [{"u" if style == "bare" else "url(u)": "a://b"}], "n": 1.5, "$label": "web", "$tags": ["a"]}
    assert line["event"]["attributes"] == attributes | common
    profile = done.simulator.profile("c")
    assert profile is not None
    assert line["identifiers"] == {"profile_id": profile["profile_id"], "custom_id": "c"}
    (line,) = lines(done, **window, identifiers=["installation_id"])
    assert line["identifiers"] == {"profile_id": profile["profile_id"]}


def test_texts_stay_on_their_line(done: Door) -> None:
    """A value with line breaks of any kind is one line, in UTF-8."""
    done.post([operation("é", x="a\nb\u2028c\r\x85")])
    assert lines(done, attributes=["x"]) == [
        {"identifiers": {"custom_id": "é"}, "attributes": {"x": "a\nb\u2028c\r\x85"}}
    ]
