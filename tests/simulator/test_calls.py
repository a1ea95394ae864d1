"""Calls of the update endpoints: statuses, bodies, and what they leave in the profiles."""

import pytest

from connector.simulator import Simulator
from tests.simulator.conftest import HEADERS, KEY, PROJECT, Door, operation, operations


def test_profiles_are_typed_and_native_apart(either_door: Door) -> None:
    """What was sent can be read back, type by type, through both doors alike."""
    answer = either_door.post([operation("a/b é", plan="gold", n=1, **{"$language": "fr", "url(u)": "a://b"})])
    assert (answer.status_code, answer.json()) == (202, {"code": "SUCCESS"})
    found = either_door.simulator.profile("a/b é")
    assert found is not None
    assert found["native"] == {"$language": "fr"}
    assert found["custom"] == {
        "plan": {"type": "string", "value": "gold"},
        "n": {"type": "integer", "value": 1},
        "u": {"type": "url", "value": "a://b"},
    }
    assert found["profile_id"].startswith("profile_")
    assert len(found["profile_id"]) == len("profile_") + 32
    assert either_door.call("GET", "/simulator/profiles/a%2Fb%20%C3%A9").json() == found
    assert either_door.call("GET", "/simulator/profiles").json() == {"profiles": [found], "next": None}


def test_updates_merge(door: Door) -> None:
    """A later call changes what it names, null deletes, the later type replaces the earlier one."""
    door.post([operation(x="2024", y=1, z=True, **{"$region": "FR"})])
    door.post([operation(y=None, **{"date(x)": "2024-01-01T00:00:00Z", "$region": None})])
    found = door.simulator.profile("c1")
    assert found is not None
    assert found["custom"] == {
        "x": {"type": "date", "value": "2024-01-01T00:00:00Z"},
        "z": {"type": "boolean", "value": True},
    }
    assert found["native"] == {}


def test_identifiers_alone_create_a_profile(door: Door) -> None:
    """An operation without attributes is a success and creates its profile."""
    assert door.post([{"identifiers": {"custom_id": "new"}}]).json() == {"code": "SUCCESS"}
    assert door.simulator.profile("new") is not None
    assert door.simulator.profile("other") is None


def test_partial_errors_apply_the_rest(either_door: Door) -> None:
    """Refused attributes are named with their index; everything else of the call is applied."""
    many = {f"a{number}": 1 for number in range(51)}
    answer = either_door.post(
        [operation("a", good=1, bad="", **{"date(worse)": 1}), operation("b", x=2), operation("c", **many)]
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body["code"] == "SUCCESS_WITH_PARTIAL_ERRORS"
    places = [(item["bulk_index"], item["category"], item.get("attribute")) for item in body["errors"]]
    assert places == [(0, "attribute", "bad"), (0, "attribute", "date(worse)"), (2, "attribute", None)]
    assert all(item["reason"] for item in body["errors"])
    assert "attribute" not in body["errors"][2]
    assert [profile["custom_id"] for profile in either_door.simulator.profiles()] == ["a", "b"]
    assert either_door.simulator.profiles()[0]["custom"] == {"good": {"type": "integer", "value": 1}}
    assert either_door.simulator.stats["partial_errors"] == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b'"text"',
        b"[]",
        b"[1]",
        b'[{"identifiers":{"custom_id":"a"},"attributes":{"x":NaN}}]',
        b'[{"identifiers":{"custom_id":"a"},"attributes":{"x":-Infinity}}]',
        b'[{"identifiers":{"custom_id":"a"},"attributes":{"x":"\\uD83D"}}]',
        b'[{"identifiers":{"custom_id":"a"},"attributes":{"x":"\xff"}}]',
        b'\xef\xbb\xbf[{"identifiers":{"custom_id":"a"}}]',
        b"[" * 100_000,
        b'[{"identifiers":{"custom_id":"good"}},{"identifiers":{"custom_id":"null"}}]',
        b'[{"identifiers":{"custom_id":"a"},"events":{"name":"x"}}]',
    ],
)
def test_malformed_calls_are_refused_whole(door: Door, body: bytes) -> None:
    """A body that breaks a rule of the call is a 400 with Batch's error body, and nothing is applied."""
    answer = door.call("POST", "/2.11/profiles/update", body=body)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "MALFORMED_REQUEST"
    assert answer.json()["error_message"]
    assert door.simulator.profiles() == []


def test_a_whole_emoji_escape_is_text(door: Door) -> None:
    """A surrogate pair written as two escapes is one character, not malformed."""
    body = b'[{"identifiers":{"custom_id":"a"},"attributes":{"x":"\\ud83d\\ude00"}}]'
    assert door.call("POST", "/2.11/profiles/update", body=body).json() == {"code": "SUCCESS"}


@pytest.mark.parametrize(
    "change",
    [
        {"authorization": ""},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer other"},
        {"x-batch-project": ""},
        {"x-batch-project": "project_other"},
    ],
)
def test_bad_credentials(either_door: Door, change: dict[str, str]) -> None:
    """A wrong or missing key or project is a 401, counted, and nothing is applied."""
    answer = either_door.call("POST", "/2.11/profiles/update", body=operations(1), headers=HEADERS | change)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "AUTHENTICATION_INVALID")
    assert either_door.simulator.profiles() == []
    assert either_door.simulator.stats["by_status"] == {"401": 1}


@pytest.mark.parametrize("missing", ["authorization", "x-batch-project"])
def test_missing_credentials(door: Door, missing: str) -> None:
    """A request without one of the two headers is a 401."""
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    assert door.call("POST", "/2.11/profiles/update", body=operations(1), headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/2.1/profiles/update", 202),
        ("POST", "/2.13/profiles/mass-update", 202),
        ("POST", "/1.1/profiles/update", 404),
        ("POST", "/2/profiles/update", 404),
        ("POST", "/v2.11/profiles/update", 404),
        ("POST", "/2.11/profiles/export", 400),
        ("POST", "/2.11/other", 404),
        ("GET", "/2.11/profiles/update", 405),
    ],
)
def test_routes(door: Door, method: str, path: str, status: int) -> None:
    """Any version 2.x is served; what does not exist answers with Batch's error body."""
    answer = door.call(method, path, body=operations(1) if method == "POST" else None)
    assert answer.status_code == status
    assert status == 202 or answer.json()["error_code"]


def test_encoding_type_and_size(door: Door) -> None:
    """Compression is a 415, another content type a 400, and a body over the configured size a 413."""
    path, body = "/2.11/profiles/update", operations(1)
    assert door.call("POST", path, body=body, headers=HEADERS | {"content-encoding": "gzip"}).status_code == 415
    assert door.call("POST", path, body=body, headers=HEADERS | {"content-encoding": "identity"}).status_code == 202
    assert door.call("POST", path, body=body, headers=HEADERS | {"content-type": "text/plain"}).status_code == 400
    door.simulator.configure(body_bytes=100)
    assert door.call("POST", path, body=b"x" * 101).status_code == 413
    assert door.call("POST", path, body=b"x" * 100).status_code == 400


def test_empty_calls_can_be_switched_on(door: Door) -> None:
    """An empty array is accepted once the switch says so."""
    door.simulator.configure(empty_call="accept")
    assert door.post([]).json() == {"code": "SUCCESS"}


def test_duplicates_apply_in_order_and_are_counted(door: Door) -> None:
    """A custom id twice in a call is applied in the order of the array, with a warning."""
    door.post([operation(x=1), operation(x=2, y=3), operation("c2")])
    found = door.simulator.profile("c1")
    assert found is not None
    assert {name: item["value"] for name, item in found["custom"].items()} == {"x": 2, "y": 3}
    assert door.simulator.stats["duplicates"] == 1


def test_pages(either_door: Door) -> None:
    """Pages follow the order of the custom ids and cover everybody once."""
    either_door.post(operations(5))
    either_door.post([operation("b")])
    seen: list[str] = []
    after: str | None = None
    for _ in range(4):
        params = {"limit": "2"} | ({"after": after} if after else {})
        page = either_door.call("GET", "/simulator/profiles", params=params).json()
        seen += [profile["custom_id"] for profile in page["profiles"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["b", "c0", "c1", "c2", "c3", "c4"]
    assert [profile["custom_id"] for profile in either_door.simulator.profiles("c2", 1)] == ["c3"]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_bad_page_limits(door: Door, limit: str) -> None:
    """A page size that is no positive whole number is refused."""
    assert door.call("GET", "/simulator/profiles", params={"limit": limit}).status_code == 400


def test_counts_and_log(either_door: Door) -> None:
    """The counts and the log of requests are the same through both doors."""
    either_door.post(operations(2))
    either_door.post({})
    answer = either_door.call("GET", "/simulator/requests", params={"log": "1"}).json()
    log = answer.pop("log")
    assert answer == either_door.simulator.stats
    assert (answer["requests"], answer["operations"], answer["accepted"]) == (2, 2, 2)
    assert answer["by_status"] == {"202": 1, "400": 1}
    assert log == [entry._asdict() for entry in either_door.simulator.requests]
    assert (log[0]["endpoint"], log[0]["status"], log[0]["custom_ids"]) == ("update", 202, ["c0", "c1"])


def test_reset_forgets_everything(either_door: Door) -> None:
    """After a reset the simulator is as new, buckets included."""
    for _ in range(5):
        either_door.post(operations(200))
    either_door.simulator.inject({"status": 500})
    assert either_door.call("POST", "/simulator/reset").status_code == 200
    assert either_door.simulator.profiles() == []
    assert either_door.simulator.stats["requests"] == either_door.simulator.stats["faults"] == 0
    assert either_door.simulator.requests == []
    assert either_door.post(operations(200)).status_code == 202


def test_projects_are_apart() -> None:
    """Each project has its own key, profiles and buckets; control routes then want ?project=."""
    simulator = Simulator({PROJECT: KEY, "project_two": "rest_two"})
    door = Door(simulator)
    door.post(operations(200))
    crossed = HEADERS | {"x-batch-project": "project_two"}
    assert door.call("POST", "/2.11/profiles/update", body=operations(1), headers=crossed).status_code == 401
    assert simulator.profiles(project="project_two") == []
    assert len(simulator.profiles(project=PROJECT)) == 200
    assert door.call("GET", "/simulator/profiles", params={"project": "project_two"}).json()["profiles"] == []
    assert door.call("GET", "/simulator/profiles").status_code == 400
