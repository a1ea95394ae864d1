"""Faults of exports, through both doors."""

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import httpx
import pytest

from connector.errors import UsageError
from connector.simulator.fault_fields import BECOMES
from tests.simulator.conftest import Clock, Door, operations
from tests.simulator.export_calls import VERSION, create, created, fetch, link, page, parts, view

ANYTHING = {"export_type": "ATTRIBUTES", "identifiers": ["custom_id"]}


@pytest.fixture
def shop(either_door: Door) -> Door:
    """Ten people, and exports that are done at once."""
    either_door.simulator.configure(
        other_rate=None, export_seconds=0, part_lines=1000, part_bytes=10**6, export_gzip=False
    )
    either_door.post(operations(10))
    return either_door


def file_of(door: Door, **fault: Any) -> dict[str, Any]:
    """The only file of an export that a fault struck, if one is given."""
    if fault:
        door.simulator.inject({"endpoint": "export"} | fault)
    (file,) = view(door, created(door))["files"]
    return dict(file)


def ids(content: bytes) -> list[str]:
    return [json.loads(line)["identifiers"]["custom_id"] for line in content.splitlines()]


def ask(door: Door, endpoint: str) -> httpx.Response:
    """A good call of the endpoint."""
    if endpoint == "export":
        return create(door, **ANYTHING)
    if endpoint == "list":
        return door.call("GET", f"/{VERSION}/exports/list")
    export = door.simulator.exports()[0]
    if endpoint == "view":
        return door.call("GET", f"/{VERSION}/exports/view", params={"id": export["id"]})
    if endpoint == "download":
        return door.call("GET", export["files"][0]["url"])
    return fetch(door, link(door, export["files"][0]))


GOOD = {"export": 202, "view": 200, "list": 200, "download": 307, "file": 200}


@pytest.mark.parametrize("endpoint", GOOD)
def test_a_fault_strikes_its_endpoint_alone(shop: Door, endpoint: str) -> None:
    """A status with its headers strikes one endpoint in its turn, and leaves the others and the updates alone."""
    created(shop)
    shop.simulator.inject(
        {"endpoint": endpoint, "status": 503, "retry_after": 7, "skip": 1}, {"endpoint": endpoint, "body": "<html>"}
    )
    for other in GOOD.keys() - {endpoint, "file" if endpoint == "download" else endpoint}:
        assert ask(shop, other).status_code == GOOD[other]
    assert shop.post(operations(1)).status_code == 202
    assert ask(shop, endpoint).status_code == GOOD[endpoint]
    answer = ask(shop, endpoint)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json()["error_code"] == "MAINTENANCE"
    answer = ask(shop, endpoint)
    assert (answer.status_code, answer.text) == (GOOD[endpoint], "<html>")
    assert ask(shop, endpoint).status_code == GOOD[endpoint]
    assert shop.simulator.stats["faults"] == 0


def test_faults_of_updates_leave_exports_alone(shop: Door) -> None:
    """A fault without an endpoint waits for an update, as before."""
    shop.simulator.inject({"status": 500})
    for endpoint, status in GOOD.items():
        assert ask(shop, endpoint).status_code == status
    assert shop.post(operations(1)).status_code == 500


@pytest.mark.parametrize("endpoint", ["export", "view", "list", "file"])
def test_cut_answers(shop: Door, endpoint: str) -> None:
    """A cut answer ends half-way: half of it in process, a broken connection over HTTP."""
    created(shop)
    shop.simulator.inject({"endpoint": endpoint, "cut": True})
    if shop.over_http:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(shop, endpoint)
    else:
        answer = ask(shop, endpoint)
        assert len(answer.content) == int(answer.headers["content-length"]) // 2
    assert ask(shop, endpoint).status_code == GOOD[endpoint]


@pytest.mark.parametrize("endpoint", GOOD)
def test_delays(shop: Door, endpoint: str) -> None:
    """An answer can be held back at every endpoint."""
    created(shop)
    shop.simulator.inject({"endpoint": endpoint, "delay": 0.15})
    start = time.monotonic()
    answer = ask(shop, endpoint)
    assert time.monotonic() - start >= 0.15
    assert (answer.status_code, "location" in answer.headers) == (GOOD[endpoint], endpoint == "download")


def test_created_and_answered_otherwise(shop: Door) -> None:
    """A creation can take effect behind a failure, or have none behind a success."""
    shop.simulator.inject({"endpoint": "export", "status": 500, "apply": True})
    assert create(shop, **ANYTHING).status_code == 500
    assert page(shop)["count"] == 1
    shop.simulator.inject({"endpoint": "export", "status": 500}, {"endpoint": "export", "apply": False})
    assert create(shop, **ANYTHING).status_code == 500
    lie = created(shop)
    assert shop.call("GET", f"/{VERSION}/exports/view", params={"id": lie}).status_code == 404
    assert page(shop)["count"] == shop.simulator.stats["exports_created"] == 1
    shop.simulator.inject({"endpoint": "export", "status": 500, "apply": True})
    assert create(shop).status_code == 400


def test_created_and_timed_out(shop: Door) -> None:
    """A caller who gives up on the answer has an export all the same."""
    shop.simulator.inject({"endpoint": "export", "delay": 30})

    async def give_up() -> None:
        async with asyncio.timeout(0.3):
            await shop.acall("POST", f"/{VERSION}/profiles/export", body=ANYTHING)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert page(shop)["count"] == 1


def test_a_late_export(shop: Door, served_clock: Clock) -> None:
    """A late export can be viewed by its id at once, and is listed once its time has passed."""
    shop.simulator.inject({"endpoint": "export", "late": 120})
    export_id = created(shop)
    assert view(shop, export_id)["status"] == "SUCCESS"
    served_clock.now += 119
    assert page(shop)["count"] == 0
    assert len(shop.simulator.exports()) == 1
    served_clock.now += 1
    assert page(shop)["exports"][0]["id"] == export_id


def test_a_stuck_export_until_the_faults_are_cleared(shop: Door, served_clock: Clock) -> None:
    """A stuck export runs for as long as it is let."""
    shop.simulator.inject({"endpoint": "export", "becomes": "stuck"})
    export_id = created(shop)
    served_clock.now += 86_400
    assert (view(shop, export_id)["status"], view(shop, export_id)["files"]) == ("RUNNING", [])
    shop.simulator.clear_faults()
    assert view(shop, export_id)["status"] == "SUCCESS"


def test_exports_that_end_without_files(shop: Door) -> None:
    """An export can end in an error, or as a success without a file."""
    for becomes, status in ("error", "ERROR"), ("empty", "SUCCESS"):
        shop.simulator.inject({"endpoint": "export", "becomes": becomes})
        shown = view(shop, created(shop))
        assert (shown["status"], shown["files"], "completion_date" in shown) == (status, [], True)


def test_a_missing_part(shop: Door) -> None:
    """The second part is not listed, of a small export too, and its lines are nowhere else."""
    for people, left in (10, 6), (1, 1), (0, 0):
        shop.simulator.reset()
        shop.post(operations(people)) if people else None
        shop.simulator.inject({"endpoint": "export", "becomes": "missing_part"})
        export_id = created(shop)
        assert [file["part"] for file in view(shop, export_id)["files"]] == [1, 3]
        assert len(ids(b"".join(parts(shop, export_id)))) == left


def test_a_repeated_part(shop: Door) -> None:
    """A file is listed twice, the very same."""
    shop.simulator.configure(part_lines=5)
    shop.simulator.inject({"endpoint": "export", "becomes": "repeated_part"})
    files = view(shop, created(shop))["files"]
    assert [file["part"] for file in files] == [1, 1, 2]
    assert files[0] == files[1]


def test_hostile_names(shop: Door) -> None:
    """Files with ids that no path may have are downloaded by them, and by nothing else."""
    shop.simulator.configure(part_lines=3)
    shop.simulator.inject({"endpoint": "export", "becomes": "renamed"})
    export_id = created(shop)
    names = [file["id"] for file in view(shop, export_id)["files"]]
    assert [names[0][:9], names[1][:5], "\0" in names[2], len(names[3])] == ["../../../", "/etc/", True, 300]
    assert ids(b"".join(parts(shop, export_id))) == [f"c{number}" for number in range(10)]
    for name in names:
        answer = shop.call("GET", f"/{VERSION}/exports/download", params={"id": name})
        assert fetch(shop, answer.headers["location"]).status_code == 200


def test_a_bomb(shop: Door) -> None:
    """A bomb unpacks to more than a thousand times its honest size."""
    file = file_of(shop, becomes="bomb")
    content = fetch(shop, link(shop, file)).content
    assert len(content) == file["size"]
    assert len(gzip.decompress(content)) > 1000 * len(content)


def test_garbage_behind_the_archive(shop: Door) -> None:
    """The archive is whole, and bytes that the size counts follow its end."""
    file = file_of(shop, becomes="garbage")
    content = fetch(shop, link(shop, file)).content
    assert len(content) == file["size"]
    archive = zlib.decompressobj(31)
    assert len(ids(archive.decompress(content))) == 10
    assert archive.eof
    assert archive.unused_data


@pytest.mark.parametrize("packed", [False, True])
def test_lines_as_they_are(shop: Door, packed: bool) -> None:
    """Any text can stand behind the lines of the first file."""
    shop.simulator.configure(export_gzip=packed, part_lines=6)
    strange = ['{"broken":', "", '{"identifiers":{"custom_id":5}}']
    shop.simulator.inject({"endpoint": "export", "lines": strange})
    first, second = (gzip.decompress(part) if packed else part for part in parts(shop, created(shop)))
    assert first.decode().split("\n")[6:] == [*strange, ""]
    assert len(ids(second)) == 4


def test_a_truncated_file(shop: Door) -> None:
    """A file can end at its half with a length that says so; only the listed size tells, to ranges too."""
    file = file_of(shop)
    shop.simulator.inject({"endpoint": "file", "truncated": True, "times": 2})
    answer = fetch(shop, link(shop, file))
    half = file["size"] // 2
    assert (answer.status_code, len(answer.content), answer.headers["content-length"]) == (200, half, str(half))
    assert fetch(shop, link(shop, file), range=f"bytes={half}-").status_code == 416
    assert len(fetch(shop, link(shop, file)).content) == file["size"]


def test_a_corrupt_file(shop: Door) -> None:
    """A byte in the middle can be another, with the same length and ETag, seen through a range as well."""
    file = file_of(shop)
    good = fetch(shop, link(shop, file))
    shop.simulator.inject({"endpoint": "file", "corrupt": True, "times": 2})
    bad = fetch(shop, link(shop, file))
    middle = file["size"] // 2
    assert [at for at in range(file["size"]) if good.content[at] != bad.content[at]] == [middle]
    assert (len(bad.content), bad.headers["etag"]) == (len(good.content), good.headers["etag"])
    assert fetch(shop, link(shop, file), range=f"bytes={middle}-{middle}").content == bad.content[middle : middle + 1]
    assert fetch(shop, link(shop, file)).content == good.content


def test_an_expired_link(shop: Door) -> None:
    """A link can be refused before its time, once."""
    address = link(shop, file_of(shop))
    shop.simulator.inject({"endpoint": "file", "expired": True})
    assert [fetch(shop, address).status_code for _ in range(2)] == [403, 200]


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_changes(shop: Door, packed: bool) -> None:
    """From then on the file has other bytes, another ETag and its size, and an old range brings the whole of it."""
    shop.simulator.configure(export_gzip=packed)
    export_id = created(shop)
    address = link(shop, view(shop, export_id)["files"][0])
    old = fetch(shop, address)
    shop.simulator.inject({"endpoint": "file", "changed": True})
    new = fetch(shop, address, range="bytes=5-", if_range=old.headers["etag"])
    assert new.status_code == 200
    assert new.headers["etag"] != old.headers["etag"]
    before, after = (gzip.decompress(one.content) if packed else one.content for one in (old, new))
    assert ids(after) == ids(before)[::-1]
    assert parts(shop, export_id) == [new.content]


def test_a_download_that_leads_elsewhere(shop: Door) -> None:
    """The link can point anywhere, with any status of a redirect."""
    file = file_of(shop)
    shop.simulator.inject(
        {"endpoint": "download", "location": "http://169.254.169.254/"},
        {"endpoint": "download", "status": 302, "location": "ftp://example.org/x"},
        {"endpoint": "file", "status": 302, "location": "http://127.0.0.1:9/"},
    )
    answers = [shop.call("GET", file["url"]) for _ in range(2)]
    assert [(one.status_code, one.headers["location"]) for one in answers] == [
        (307, "http://169.254.169.254/"), (302, "ftp://example.org/x"),
    ]  # fmt: skip
    answer = fetch(shop, link(shop, file))
    assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "fault",
    [
        {"endpoint": "update", "status": 500},
        {"endpoint": "export", "becomes": "late"},
        {"endpoint": "export", "becomes": ["stuck"]},
        {"endpoint": "export", "lines": "text"},
        {"endpoint": "export", "lines": [5]},
        {"endpoint": "export", "becomes": "bomb", "lines": ["x"]},
        {"endpoint": "export", "partial": []},
        {"endpoint": "export", "truncated": True},
        {"endpoint": "view", "becomes": "stuck"},
        {"endpoint": "view", "apply": True},
        {"endpoint": "list", "late": 5},
        {"endpoint": "download", "expired": True},
        {"endpoint": "file", "late": 5},
        {"endpoint": "file", "corrupt": 1},
        {"endpoint": "file", "match": {"custom_id": "c"}},
        {"becomes": "stuck"},
        {"truncated": True},
    ],
)
def test_bad_faults_are_refused(door: Door, fault: Any) -> None:
    """A fault that would mean nothing where it strikes is refused in a sentence, and none of the list is queued."""
    with pytest.raises(UsageError, match=r"fault.*;"):
        door.simulator.inject({"endpoint": "view", "status": 500}, fault)
    assert door.call("POST", "/simulator/faults", body=fault).status_code == 400
    assert door.simulator.stats["faults"] == 0


def test_every_outcome_can_be_asked_for(door: Door) -> None:
    """Each documented outcome is accepted, alone and with lines where it has any."""
    door.simulator.inject(*({"endpoint": "export", "becomes": becomes} for becomes in BECOMES))
    door.simulator.inject({"endpoint": "export", "becomes": "renamed", "lines": ["x"], "late": 1, "status": 500})
    assert door.simulator.stats["faults"] == len(BECOMES) + 1
