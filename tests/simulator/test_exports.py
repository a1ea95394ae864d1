"""Exports as requests: what is refused, how they live, how they are listed, what limits them."""

from collections.abc import Iterator
from typing import Any

import pytest

from connector.simulator import Settings
from tests.simulator.conftest import HEADERS, Clock, Door, Wall, opened, operations
from tests.simulator.export_calls import VERSION, create, created, fetch, link, page, parts, view

ROUTES = [
    ("POST", "profiles/export", "export"),
    ("GET", "exports/view", "view"),
    ("GET", "exports/list", "list"),
    ("GET", "exports/download", "download"),
]


@pytest.fixture(autouse=True)
def _free(request: pytest.FixtureRequest) -> None:
    """No limit of calls, so that a test says what it is about."""
    for name in ("door", "either_door"):
        if name in request.fixturenames:
            request.getfixturevalue(name).simulator.configure(other_rate=None)


def test_an_export_lives_by_the_clock(either_door: Door, served_clock: Clock) -> None:
    """An export goes through its statuses in thirds, and shows dates and files only once they are there."""
    either_door.post(operations(2))
    export_id = created(either_door)
    assert (export_id[:7], len(export_id)) == ("export_", 39)
    seen = []
    for _ in range(4):
        seen.append(view(either_door, export_id))
        served_clock.now += 0.101
    assert [one["status"] for one in seen] == ["CREATED", "PENDING", "RUNNING", "SUCCESS"]
    assert [one.keys() & {"start_date", "completion_date"} for one in seen] == [
        set(), set(), {"start_date"}, {"start_date", "completion_date"},
    ]  # fmt: skip
    assert [len(one["files"]) for one in seen] == [0, 0, 0, 1]
    done = seen[-1]
    assert (done["id"], done["scope"]) == (export_id, "PROFILE_ATTRIBUTES")
    assert done["request"] == {"export_type": "ATTRIBUTES", "identifiers": ["custom_id"]}
    file = done["files"][0]
    assert (file["part"], file["id"][:5], len(file["id"])) == (1, "file_", 37)
    assert file["url"].endswith(f"/{VERSION}/exports/download?id={file['id']}")
    assert file["url"].startswith("http://")
    shown = either_door.simulator.exports()
    assert shown == either_door.call("GET", "/simulator/exports").json()["exports"]
    assert (shown[0]["id"], shown[0]["status"]) == (export_id, "SUCCESS")


def test_dates_are_the_wall_clocks(door: Door, clock: Clock, wall: Wall) -> None:
    """The three dates are RFC 3339 in UTC, and do not move with the moment of asking."""
    export_id = created(door)
    clock.now += 100
    wall.now += 5000
    shown = view(door, export_id)
    dates = [shown[name] for name in ("request_date", "start_date", "completion_date")]
    assert dates == [wall.text(-5000), wall.text(-4999.8), wall.text(-4999.7)]


def test_content_is_that_of_the_creation(door: Door, clock: Clock) -> None:
    """What is written after an export was created is not in it, not even while it waits to run."""
    door.post(operations(1))
    export_id = created(door)
    door.post(operations(3))
    clock.now += 1
    assert [len(part.splitlines()) for part in parts(door, export_id)] == [1]


def test_the_list_has_pages(either_door: Door, served_clock: Clock) -> None:
    """Pages go from the newest to the oldest, and an export made meanwhile shifts none of them."""
    ids = [created(either_door) for _ in range(12)]
    assert [one["id"] for one in page(either_door)["exports"]] == ids[:1:-1]
    first = page(either_door, limit="5")
    assert (first["count"], first["has_more"]) == (5, True)
    created(either_door)
    second = page(either_door, limit="5", **{"from": first["next_from"]})
    last = page(either_door, limit="5", **{"from": second["next_from"]})
    found = [one["id"] for one in (*first["exports"], *second["exports"], *last["exports"])]
    assert found == ids[::-1]
    assert (last["count"], last["has_more"], "next_from" in last) == (2, False, False)
    assert page(either_door, limit="100")["exports"][0] == view(either_door, either_door.simulator.exports()[-1]["id"])


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"from": "x"}, {"from": "é"}])
def test_bad_pages(door: Door, params: dict[str, str]) -> None:
    """A limit outside 1 to 100 and an invented cursor are refused."""
    assert door.call("GET", f"/{VERSION}/exports/list", params=params).status_code == 400


def test_exports_are_kept_90_days(door: Door, clock: Clock, wall: Wall) -> None:
    """An export is forgotten after 90 days by the wall clock, with its files."""
    old = created(door)
    clock.now += 1
    file = view(door, old)["files"][0]
    address = link(door, file)
    wall.now += 90 * 86_400
    young = created(door)
    assert [one["id"] for one in page(door)["exports"]] == [young, old]
    wall.now += 1
    assert [one["id"] for one in page(door)["exports"]] == [young]
    assert door.call("GET", f"/{VERSION}/exports/view", params={"id": old}).status_code == 404
    assert door.call("GET", file["url"]).status_code == 404
    assert fetch(door, address).status_code == 403


@pytest.mark.parametrize(("method", "path", "endpoint"), ROUTES)
def test_credentials_and_versions(either_door: Door, method: str, path: str, endpoint: str) -> None:
    """Every route wants both headers and a version 2.x, answers Batch's error body, and is counted by its name."""
    for missing in ("authorization", "x-batch-project"):
        headers = {name: text for name, text in HEADERS.items() if name != missing}
        answer = either_door.call(method, f"/{VERSION}/{path}", body={} if method == "POST" else None, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "AUTHENTICATION_INVALID")
    assert either_door.call(method, f"/1.0/{path}", body={} if method == "POST" else None).status_code == 404
    assert either_door.call("PUT", f"/{VERSION}/{path}").status_code == 405
    log = either_door.simulator.requests
    assert [(one.endpoint, one.status, one.operations) for one in log] == [(endpoint, 401, 0)] * 2
    assert either_door.simulator.stats["by_status"] == {"401": 2}


@pytest.mark.parametrize("path", ["view", "download"])
def test_ids_that_are_none(door: Door, path: str) -> None:
    """A missing id is a 400, an unknown one a 404, that of the other kind too."""
    export_id = created(door)
    other = {"view": door.simulator.exports()[0]["files"], "download": export_id}[path]
    for params, status in ({}, 400), ({"id": ""}, 400), ({"id": "x"}, 404), ({"id": str(other)}, 404):
        assert door.call("GET", f"/{VERSION}/exports/{path}", params=params).status_code == status


def test_no_link_before_success(door: Door, clock: Clock) -> None:
    """A file of an export that is not done is refused."""
    export_id = created(door)
    clock.now += 1
    file = view(door, export_id)["files"][0]
    clock.now -= 1
    assert door.call("GET", file["url"]).status_code == 400
    clock.now += 1
    assert link(door, file)


def test_calls_about_exports_share_a_limit(door: Door, clock: Clock) -> None:
    """All four routes take from one bucket, and a throttled call does nothing; updates have their own."""
    door.simulator.configure(other_rate=Settings().other_rate, retry_after=True)
    export_id = created(door)
    view(door, export_id)
    for method, path, _ in ROUTES:
        answer = door.call(method, f"/{VERSION}/{path}", body={} if method == "POST" else None)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert door.post(operations(1)).status_code == 202
    clock.now += 1
    assert page(door)["count"] == 1
    assert (door.simulator.stats["throttled"], door.simulator.stats["exports_created"]) == (4, 1)


def test_everything_is_counted(either_door: Door, served_clock: Clock) -> None:
    """The counts and the log say what was asked about exports."""
    either_door.post(operations(3))
    export_id = created(either_door)
    served_clock.now += 1
    size = sum(map(len, parts(either_door, export_id)))
    page(either_door)
    stats = either_door.simulator.stats
    names = ("exports_created", "downloads", "file_requests", "file_bytes", "credentials_leaked", "requests")
    assert [stats[name] for name in names] == [1, 1, 1, size, 0, 5]
    assert [(one.endpoint, one.status, one.operations) for one in either_door.simulator.requests[1:]] == [
        ("export", 202, 0), ("view", 200, 0), ("download", 307, 0), ("list", 200, 0),
    ]  # fmt: skip
    either_door.simulator.reset()
    assert either_door.simulator.exports() == []


GOOD: list[dict[str, Any]] = [
    {"export_type": "ATTRIBUTES", "attributes": ["plan", "$email_address", "0_a"]},
    {"export_type": "ATTRIBUTES", "identifiers": ["custom_id", "installation_ids"]},
    {"export_type": "ATTRIBUTES", "attributes": ["plan", "plan"], "filter": {"segment": "vip"}},
    {"export_type": "EVENTS", "from": -90 * 86_400, "to": 0},
    {"export_type": "EVENTS", "from": -2, "to": -1, "events": ["bought"], "identifiers": ["installation_id"]},
    {"export_type": "REACHABILITY", "from": -2, "to": -1, "channels": ["EMAIL", "SMS", "PUSH"]},
]
BAD: list[Any] = [
    [],
    {},
    {"export_type": ["ATTRIBUTES"], "attributes": ["plan"]},
    {"export_type": "attributes", "attributes": ["plan"]},
    {"export_type": "ATTRIBUTES"},
    {"export_type": "ATTRIBUTES", "attributes": []},
    {"export_type": "ATTRIBUTES", "attributes": "plan"},
    {"export_type": "ATTRIBUTES", "attributes": [], "identifiers": ["custom_id"]},
    {"export_type": "ATTRIBUTES", "attributes": ["date(birthdate)"]},
    {"export_type": "ATTRIBUTES", "attributes": ["Plan"]},
    {"export_type": "ATTRIBUTES", "attributes": ["$city"]},
    {"export_type": "ATTRIBUTES", "attributes": ["a" * 31]},
    {"export_type": "ATTRIBUTES", "attributes": [None]},
    {"export_type": "ATTRIBUTES", "identifiers": ["installation_id"]},
    {"export_type": "ATTRIBUTES", "attributes": ["plan"], "from": -2},
    {"export_type": "ATTRIBUTES", "attributes": ["plan"], "format": "csv"},
    {"export_type": "ATTRIBUTES", "attributes": ["plan"], "filter": {}},
    {"export_type": "ATTRIBUTES", "attributes": ["plan"], "filter": {"segment": ""}},
    {"export_type": "ATTRIBUTES", "attributes": ["plan"], "filter": {"segment": "vip", "code": 1}},
    {"export_type": "EVENTS", "to": -1},
    {"export_type": "EVENTS", "from": -2},
    {"export_type": "EVENTS", "from": "2026-01-01", "to": -1},
    {"export_type": "EVENTS", "from": -90 * 86_400 - 1, "to": -1},
    {"export_type": "EVENTS", "from": -2, "to": -2},
    {"export_type": "EVENTS", "from": -1, "to": -2},
    {"export_type": "EVENTS", "from": -2, "to": 1},
    {"export_type": "EVENTS", "from": -2, "to": -1, "attributes": ["plan"]},
    {"export_type": "EVENTS", "from": -2, "to": -1, "identifiers": ["installation_ids"]},
    {"export_type": "EVENTS", "from": -2, "to": -1, "events": ["Bought"]},
    {"export_type": "EVENTS", "from": -2, "to": -1, "channels": ["SMS"]},
    {"export_type": "REACHABILITY", "from": -2, "to": -1, "channels": ["LETTER"]},
    {"export_type": "REACHABILITY", "from": -2, "to": -1, "events": ["bought"]},
]


def timed(body: Any, wall: Wall) -> Any:
    """The body with seconds from now as texts."""
    if not isinstance(body, dict):
        return body
    return body | {name: wall.text(body[name]) for name in ("from", "to") if isinstance(body.get(name), int)}


@pytest.mark.parametrize("body", GOOD)
def test_good_requests(door: Door, wall: Wall, body: dict[str, Any]) -> None:
    """What is documented is accepted, and its echo is what was sent."""
    asked = timed(body, wall)
    assert create(door, **asked).status_code == 202
    assert door.simulator.exports()[0]["request"] == asked


@pytest.mark.parametrize("body", BAD)
def test_bad_requests(door: Door, wall: Wall, body: Any) -> None:
    """What is not documented is a 400 with Batch's error body, and makes no export."""
    answer = door.call("POST", f"/{VERSION}/profiles/export", body=timed(body, wall))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")
    assert door.simulator.exports() == []


@pytest.fixture
def early() -> Iterator[tuple[Door, Wall]]:
    """A simulator at 2024-11-01."""
    wall = Wall()
    wall.now = 1_730_419_200.0
    with opened(wall=wall) as door:
        yield door, wall


@pytest.mark.parametrize(("start", "status"), [("2024-10-09T23:59:59Z", 400), ("2024-10-10T00:00:00Z", 202)])
def test_the_first_day_of_reachability(early: tuple[Door, Wall], start: str, status: int) -> None:
    """Reachability starts on 2024-10-10; events of the same window are older."""
    door, wall = early
    window = {"from": start, "to": wall.text()}
    assert create(door, export_type="REACHABILITY", **window).status_code == status
    assert create(door, export_type="EVENTS", **window).status_code == 202
