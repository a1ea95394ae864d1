"""Each rule for events, held against one event."""

import json
from typing import Any

import pytest

from connector.simulator.event_rules import Verdict, read_event
from connector.simulator.limits import Settings
from connector.simulator.rules import MalformedError, judge
from connector.simulator.values import RefusedError
from tests.simulator.conftest import Wall, event, events

WALL = Wall()
EMOJI = "\N{GRINNING FACE}"


def verdict(sent: object, **settings: Any) -> Verdict:
    return read_event(sent, Settings(**settings), WALL.now)


def nested(levels: int, value: object) -> object:
    for _ in range(levels):
        value = {"o": value}
    return value


def of_size(size: int) -> dict[str, Any]:
    """An event of exactly `size` bytes: 19 arrays of ASCII and a rest, characters of two bytes in one."""
    sent = event(**{f"a{number:02}": ["x" * 300] * 4 for number in range(19)}, rest=["é" * 100])
    missing = size - len(verdict(sent).event.kept)
    sent["attributes"]["rest"] += ["x" * 297] * (missing // 300)
    sent["attributes"]["rest"] += ["x" * (missing % 300 - 3)]
    return sent


@pytest.mark.parametrize(
    "sent",
    [
        {"name": "n" * 30},
        {"name": "0_a", "attributes": {}},
        event(time=WALL.text()),
        event(time=WALL.text(-86_400)),
        event(time="2026-05-28T22:26:40+02:00"),
        event(text="a" * 300, emoji=EMOJI * 150, count=2**63 - 1, spend=1.5, vip=False),
        event(**{"date(d)": "1990-01-01T00:00:00Z", "url(u)": "https://h/" + "a" * 2038}),
        event(**{"$label": "a" * 200, "$tags": ["a" * 64] * 10}),
        event(**{f"a{number}": number for number in range(20)}),
        event(o={f"a{number}": number for number in range(20)}),
        event(texts=["a"] * 25, objects=[{"sku": "a", "date(d)": "2026-01-01T00:00:00Z"}] * 25),
        event(o=nested(2, {"x": 1})),
        event(o=nested(1, {"x": ["a"], "y": [{"z": 1}]})),
        event(o={}),
        of_size(25_000),
    ],
)
def test_a_valid_event_is_kept_whole(sent: dict[str, Any]) -> None:
    """An event within every rule keeps all that was sent, without a refusal or a warning."""
    found = verdict(sent)
    assert (found.refusals, found.nulls) == ([], 0)
    assert found.event.attributes == sent.get("attributes", {})
    assert (found.event.name, found.event.at is None) == (sent["name"], "time" not in sent)


@pytest.mark.parametrize(
    "sent",
    [
        "bought",
        None,
        {},
        {"name": "bought", "id": "e1"},
        {"name": "n" * 31},
        {"name": "Bought"},
        {"name": "bought\n"},
        {"name": ""},
        {"name": 5},
        {"name": "bought", "attributes": None},
        {"name": "bought", "attributes": []},
        {"name": "bought", "time": None},
        {"name": "bought", "time": WALL.now},
        event(time="2026-05-28T20:26:40"),
        event(time="2026-05-28"),
        event(time=WALL.text(0.001)),
        event(time=WALL.text(-86_400.001)),
        event(**{f"a{number}": number for number in range(21)}),
        of_size(25_001),
    ],
)
def test_a_bad_event_is_refused_alone(sent: object) -> None:
    """A broken event is one partial error without attribute; its operation's other events and attributes stay."""
    judged = judge(events("c1", event("first"), sent, event("last"), plan="gold"), Settings(), WALL.now)
    assert [(one.category, one.attribute) for one in judged.refusals] == [("event", None)]
    assert [one.name for one in judged.events] == ["first", "last"]
    assert set(judged.changes) == {"plan"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Plan", "x"),
        ("n" * 31, "x"),
        ("$email_address", "a@example.org"),
        ("text", ""),
        ("text", " "),
        ("text", "a" * 301),
        ("count", 2**63),
        ("spend", float("inf")),
        ("date(d)", "2026-05-28"),
        ("date(d)", {"a": 1}),
        ("url(u)", "example.org"),
        ("url(u)", ["https://a.org"]),
        ("texts", []),
        ("texts", ["a"] * 26),
        ("texts", ["a", 1]),
        ("texts", [None]),
        ("texts", [["a"]]),
        ("objects", [{"a": 1}] * 26),
        ("objects", [{"a": 1}, "a"]),
        ("objects", [{"a": 1}, [{"a": 1}]]),
        ("objects", [{"a": 1}, {"a": ""}]),
        ("o", {f"a{number}": number for number in range(21)}),
        ("o", {"a": {"Bad": 1}}),
        ("o", {"$label": "a"}),
        ("o", {"a": {"$tags": ["a"]}}),
        ("o", {"$add": ["a"]}),
        ("o", {"x": "a", "url(x)": "https://a.org"}),
        ("o", nested(3, {"x": 1})),
        ("o", nested(2, {"x": ["a"]})),
        ("o", nested(2, {"x": [{"y": 1}]})),
        ("o", nested(1, {"x": [{"y": {"z": 1}}]})),
        ("o", nested(100, 1)),
        ("$label", ""),
        ("$label", "a" * 201),
        ("$label", "a\nb"),
        ("$label", 5),
        ("$tags", []),
        ("$tags", "a"),
        ("$tags", ["a"] * 11),
        ("$tags", ["a" * 65]),
        ("$tags", ["a", ""]),
        ("$tags", ["a\rb"]),
        ("$tags", [{"a": 1}]),
    ],
)
def test_a_bad_attribute_is_refused_alone(key: str, value: object) -> None:
    """A bad value, however deep, refuses its top-level attribute by the key as sent; the event keeps the others."""
    found = verdict(event(**{"good": 1, key: value, "also": "x"}))
    assert [(one.category, one.attribute) for one in found.refusals] == [("attribute", key)]
    assert found.event.attributes == {"good": 1, "also": "x"}
    assert found.event.kept == b'{"name":"bought","attributes":{"good":1,"also":"x"}}'


def test_a_name_used_twice_refuses_both() -> None:
    """A name bare and wrapped in one event leaves neither, in the order sent."""
    found = verdict(event(**{"x": 1, "y": 2, "date(x)": "2026-01-01T00:00:00Z"}))
    assert [one.attribute for one in found.refusals] == ["x", "date(x)"]
    assert found.event.attributes == {"y": 2}


def test_nulls_are_ignored_with_a_warning() -> None:
    """A null is dropped wherever it lies, and each counts as a bent V08."""
    sent = event(a=None, b={"c": None, "d": 1, "e": {"f": None}}, g=[{"h": None}, {"i": "null"}])
    judged = judge(events("c1", sent), Settings(), WALL.now)
    assert judged.warnings == ["V08"] * 4
    assert not judged.refusals
    left = {"b": {"d": 1, "e": {}}, "g": [{}, {"i": "null"}]}
    assert judged.events[0].attributes == json.loads(judged.events[0].kept)["attributes"] == left


def test_nulls_do_not_count_as_attributes() -> None:
    """Twenty attributes beside a null are within the limit."""
    assert len(verdict(event(gone=None, **{f"a{number}": 1 for number in range(20)})).event.attributes) == 20


def test_an_event_nested_beyond_reason_is_refused() -> None:
    """Nesting that cannot even be written again refuses the event instead of failing the simulator."""
    with pytest.raises(RefusedError, match="nested"):
        verdict(event(o=nested(5000, 1)))


def test_the_window_is_a_setting() -> None:
    """Age and lead are counted in seconds of the wall clock, the bounds included."""
    assert verdict(event(time=WALL.text(-60)), event_age=60).event.at == WALL.now - 60
    assert verdict(event(time=WALL.text(300)), event_ahead=300).event.at == WALL.now + 300
    with pytest.raises(RefusedError, match="older than 1 hours"):
        verdict(event(time=WALL.text(-3601)), event_age=3600)


@pytest.mark.parametrize(("count", "kept"), [(15, 15), (16, 0)])
def test_events_per_operation(count: int, kept: int) -> None:
    """Sixteen events refuse their operation whole, attributes too; fifteen pass."""
    judged = judge(events("c1", *[event()] * count, plan="gold"), Settings(), WALL.now)
    assert (len(judged.events), judged.custom_id) == (kept, "c1" if kept else None)
    assert [(one.category, one.attribute) for one in judged.refusals] == ([] if kept else [("event", None)])


def test_too_many_events_can_refuse_the_call() -> None:
    """What nobody documents can be switched: too many events refuse the whole call."""
    with pytest.raises(MalformedError, match="more than 15 events"):
        judge(events("c1", *[event()] * 16), Settings(too_many_events="call"), WALL.now)
