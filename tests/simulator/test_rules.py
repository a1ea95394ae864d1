"""Each rule of the Profile API, held against one operation."""

import json
from typing import Any

import pytest

from connector.simulator.limits import Settings
from connector.simulator.names import bare_name
from connector.simulator.rules import Judged, MalformedError, judge
from connector.simulator.values import Partial, Value

EMOJI = "\N{GRINNING FACE}"
DEFAULTS = Settings()


def judged(attributes: dict[str, Any], custom_id: str = "c1") -> Judged:
    return judge({"identifiers": {"custom_id": custom_id}, "attributes": attributes}, DEFAULTS)


@pytest.mark.parametrize(
    ("key", "value", "name", "change"),
    [
        ("plan", "gold", "plan", Value("string", "gold")),
        ("0_a", "x", "0_a", Value("string", "x")),
        ("n" * 30, "x", "n" * 30, Value("string", "x")),
        ("text", "a" * 300, "text", Value("string", "a" * 300)),
        ("text", EMOJI * 150, "text", Value("string", EMOJI * 150)),
        ("count", 3, "count", Value("integer", 3)),
        ("count", 2**63 - 1, "count", Value("integer", 2**63 - 1)),
        ("count", -(2**63), "count", Value("integer", -(2**63))),
        ("spend", 3.0, "spend", Value("float", 3.0)),
        ("vip", True, "vip", Value("boolean", True)),
        ("date(born)", "2024-05-31T22:15:00Z", "born", Value("date", "2024-05-31T22:15:00Z")),
        ("date(born)", "2024-05-31T22:15:00.123Z", "born", Value("date", "2024-05-31T22:15:00.123Z")),
        ("url(site)", "https://example.org", "site", Value("url", "https://example.org")),
        ("url(site)", "app://host?q#f", "site", Value("url", "app://host?q#f")),
        (
            "url(site)",
            "https://h/" + "a" * 2038,
            "site",
            Value("url", "https://h/" + "a" * 2038),
        ),
        ("tags", ["a"] * 25, "tags", Value("array", ["a"] * 25)),
        ("tags", {"$add": ["a"]}, "tags", Partial(["a"], [])),
        ("tags", {"$add": ["a"], "$remove": ["b"]}, "tags", Partial(["a"], ["b"])),
        ("plan", None, "plan", None),
        ("date(born)", None, "born", None),
        ("$email_address", "a.b+c@example.org", "$email_address", Value("string", "a.b+c@example.org")),
        ("$email_address", None, "$email_address", None),
        ("$email_marketing", "subscribed", "$email_marketing", Value("string", "subscribed")),
        ("$sms_marketing", "unsubscribed", "$sms_marketing", Value("string", "unsubscribed")),
        ("$phone_number", "+33612345678", "$phone_number", Value("string", "+33612345678")),
        ("$language", "fr", "$language", Value("string", "fr")),
        ("$region", "FR", "$region", Value("string", "FR")),
        ("$timezone", "Europe/Paris", "$timezone", Value("string", "Europe/Paris")),
        ("$topic_preferences", ["news_1"], "$topic_preferences", Value("array", ["news_1"])),
        ("$topic_preferences", {"$remove": ["news"]}, "$topic_preferences", Partial([], ["news"])),
    ],
)
def test_a_valid_value_keeps_its_type(key: str, value: object, name: str, change: object) -> None:
    """A value within every rule becomes a change of its documented type, under the bare name."""
    result = judged({key: value})
    assert result.changes == {name: change}
    assert not result.refusals
    assert not result.warnings
    if isinstance(change, Value):
        assert type(result.changes[name].value) is type(value)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Plan", "x"),
        ("", "x"),
        ("a-b", "x"),
        ("plan\n", "x"),
        ("n" * 31, "x"),
        (f"date({'n' * 31})", "2024-05-31T22:15:00Z"),
        ("date($email_address)", "2024-05-31T22:15:00Z"),
        ("array(x)", ["a"]),
        ("text", ""),
        ("text", "  \t"),
        ("text", "a" * 301),
        ("text", EMOJI * 150 + "a"),
        ("count", 2**63),
        ("count", -(2**63) - 1),
        ("spend", float("inf")),
        ("date(born)", 1717193700),
        ("date(born)", True),
        ("date(born)", "2024-05-31"),
        ("date(born)", "2024-05-31T22:15:00"),
        ("date(born)", "2024-05-31 22:15:00Z"),
        ("date(born)", "2024-02-30T22:15:00Z"),
        ("date(born)", "2024-05-31T24:00:00Z"),
        ("date(born)", "2024-05-31T22:15:00Z\n"),
        ("date(born)", "٢024-05-31T22:15:00Z"),
        ("date(born)", {"$add": ["a"]}),
        ("url(site)", "example.org"),
        ("url(site)", "https:///path"),
        ("url(site)", "https://:80/"),
        ("url(site)", "https://user@"),
        ("url(site)", "https://a b"),
        ("url(site)", "mailto:a@example.org"),
        ("url(site)", "https://h/" + "a" * 2039),
        ("url(site)", 5),
        ("tags", []),
        ("tags", ["a"] * 26),
        ("tags", ["a", ""]),
        ("tags", ["a" * 301]),
        ("tags", ["a", 1]),
        ("tags", ["a", None]),
        ("tags", [["a"]]),
        ("tags", {}),
        ("tags", {"$add": []}),
        ("tags", {"$add": "a"}),
        ("tags", {"$add": ["a"], "$remove": ["a"]}),
        ("tags", {"$add": ["a"], "other": 1}),
        ("tags", {"$remove": ["a"] * 26}),
        ("object", {"a": 1}),
        ("$unknown", "x"),
        ("$email_address", "nobody"),
        ("$email_address", "a b@example.org"),
        ("$email_address", "a@example.org\n"),
        ("$email_address", "a" * 245 + "@example.org"),
        ("$email_marketing", "yes"),
        ("$sms_marketing", True),
        ("$phone_number", "0612345678"),
        ("$phone_number", "+" + "1" * 16),
        ("$language", "FR"),
        ("$language", "french"),
        ("$region", "fr"),
        ("$timezone", "Europe/Nowhere"),
        ("$timezone", "Europe"),
        ("$topic_preferences", ["News"]),
        ("$topic_preferences", {"$add": ["a b"]}),
        ("$topic_preferences", "news"),
    ],
)
def test_a_bad_value_is_refused_alone(key: str, value: object) -> None:
    """A value that breaks a rule is dropped and named as it was sent; its neighbour stays."""
    result = judged({key: value, "other": 1})
    assert [(refusal.category, refusal.attribute) for refusal in result.refusals] == [("attribute", key)]
    assert result.changes == {"other": Value("integer", 1)}


def test_reasons_hold_no_value() -> None:
    """A refusal explains the rule without repeating the personal value."""
    result = judged({"$email_address": "secret-person", "$phone_number": "secret-phone"})
    assert "secret" not in json.dumps(result.refusals)


def test_one_name_twice_refuses_both() -> None:
    """`x` and `date(x)` in one operation are both refused: which one should win is unknowable."""
    result = judged({"x": 1, "date(x)": "2024-05-31T22:15:00Z", "y": 2})
    assert {refusal.attribute for refusal in result.refusals} == {"x", "date(x)"}
    assert set(result.changes) == {"y"}


@pytest.mark.parametrize(("count", "applied"), [(50, 50), (51, 0)])
def test_attributes_per_operation(count: int, applied: int) -> None:
    """50 attributes pass; 51 refuse the operation with one error that names no attribute."""
    result = judged({f"a{number}": number for number in range(count)})
    assert len(result.changes) == applied
    assert [refusal.attribute for refusal in result.refusals] == ([] if applied else [None])
    assert (result.custom_id is None) == (not applied)


@pytest.mark.parametrize(
    "custom_id",
    ["c1", "a@example.org", "x/y z?é", "C1", "a" * 512, EMOJI * 256, "0", "Nullable"],
)
def test_good_custom_ids(custom_id: str) -> None:
    """A custom id is any text within the limits, kept as given."""
    assert judged({}, custom_id).custom_id == custom_id


@pytest.mark.parametrize(
    "custom_id",
    [
        *("", "  ", "a\nb", "a\rb", "a" * 513, EMOJI * 256 + "a", 5, None, True),
        *("NULL", "nil", "NaN", "[object Object]", "Undefined", "-Infinity", "(null)", "TRUE"),
    ],
)
def test_bad_custom_ids_refuse_the_call(custom_id: object) -> None:
    """A custom id that a real profile cannot have refuses the whole call."""
    with pytest.raises(MalformedError, match="custom_id"):
        judge({"identifiers": {"custom_id": custom_id}}, DEFAULTS)


@pytest.mark.parametrize(
    "operation",
    [
        "text",
        None,
        {},
        {"identifiers": {}},
        {"identifiers": "c1"},
        {"identifiers": {"custom_id": "c1", "installation": {"apikey": "a", "installation_id": "b"}}},
        {"identifiers": {"custom_id": "c1", "email": "x"}},
        {"identifiers": {"installation": {"apikey": "a"}}},
        {"identifiers": {"installation": {"apikey": "a", "installation_id": 5}}},
        {"identifiers": {"custom_id": "c1"}, "overwrite": True},
        {"identifiers": {"custom_id": "c1"}, "attributes": None},
        {"identifiers": {"custom_id": "c1"}, "attributes": []},
        {"identifiers": {"custom_id": "c1"}, "events": {}},
        {"identifiers": {"custom_id": "c1"}, "events": None},
    ],
)
def test_malformed_operations_refuse_the_call(operation: object) -> None:
    """An operation of another shape than documented refuses the whole call."""
    with pytest.raises(MalformedError):
        judge(operation, DEFAULTS)


def test_undocumented_refusals_are_switches() -> None:
    """What nobody documents can be switched: bad identifiers and too many attributes."""
    lenient = Settings(bad_identifier="operation", too_many_attributes="call", custom_id_length=1024)
    refused = judge({"identifiers": {"custom_id": ""}, "attributes": {"a": 1}}, lenient)
    assert (refused.custom_id, refused.changes) == (None, {})
    assert refused.refusals[0].category == "identifier"
    assert judge({"identifiers": {"custom_id": "a" * 1024}}, lenient).custom_id == "a" * 1024
    many = {f"a{number}": 1 for number in range(51)}
    with pytest.raises(MalformedError, match="more than 50"):
        judge({"identifiers": {"custom_id": "c1"}, "attributes": many}, lenient)


@pytest.mark.parametrize(
    ("custom_id", "attributes", "warnings"),
    [
        ("123.0", {}, ["I04"]),
        ("c1", {"date(x)": "2024-05-31T22:15:00+02:00"}, ["A06"]),
        ("c1", {f"a{number}": ["x"] for number in range(15)}, []),
        ("c1", {f"a{number}": ["x"] for number in range(16)}, ["A12"]),
    ],
)
def test_warnings(custom_id: str, attributes: dict[str, Any], warnings: list[str]) -> None:
    """What is accepted but suspicious is counted by its rule."""
    assert judged(attributes, custom_id).warnings == warnings


def test_installations_apply_nothing() -> None:
    """An operation for an unknown installation succeeds, changes nobody, and warns about contact data."""
    identifiers = {"installation": {"apikey": "a", "installation_id": "b"}}
    result = judge({"identifiers": identifiers, "attributes": {"$phone_number": "+331"}}, DEFAULTS)
    assert (result.custom_id, result.refusals, result.warnings) == (None, [], ["I05"])


@pytest.mark.parametrize(
    ("current", "change", "after"),
    [
        (None, Partial(["a"], []), ["a"]),
        (Value("array", ["a"]), Partial(["a", "b"], []), ["a", "b"]),
        (Value("string", "a"), Partial(["b"], []), ["b"]),
        (Value("array", ["a", "b"]), Partial([], ["a"]), ["b"]),
        (Value("array", ["a"]), Partial([], ["a"]), None),
        (Value("integer", 5), Partial([], ["a"]), None),
        (None, Partial([], ["a"]), None),
        (Value("array", ["a"]), Partial(["c"], ["a"]), ["c"]),
    ],
)
def test_partial_arrays_are_sets(current: Value | None, change: Partial, after: list[str] | None) -> None:
    """$add and $remove work on a set; another type counts as none, and an emptied array is gone."""
    assert change.merged(current) == (Value("array", after) if after else None)


@pytest.mark.parametrize(("key", "name"), [("a", "a"), ("date(a)", "a"), ("url(a)", "a"), ("$x", "$x"), ("A", "A")])
def test_bare_names(key: str, name: str) -> None:
    """A wrapped key and its bare name are one attribute."""
    assert bare_name(key) == name
