"""The files of exports: parts, links, ranges."""

import gc
import gzip
import json
import tempfile
from pathlib import Path

import httpx
import pytest

from connector.simulator import Simulator
from tests.simulator.conftest import HEADERS, KEY, PROJECT, Clock, Door, opened, operation, operations
from tests.simulator.export_calls import created, fetch, link, parts, view


@pytest.fixture
def shop(either_door: Door) -> Door:
    """Ten people, and exports that are done at once, in parts of four lines."""
    either_door.simulator.configure(
        other_rate=None, export_seconds=0, part_lines=4, part_bytes=10**6, export_gzip=False
    )
    either_door.post(operations(10))
    return either_door


def ids(content: bytes) -> list[str]:
    return [json.loads(line)["identifiers"]["custom_id"] for line in content.splitlines()]


def a_link(door: Door) -> str:
    return link(door, view(door, created(door))["files"][0])


def test_parts_by_lines(shop: Door) -> None:
    """Parts are numbered from 1, hold so many lines each, and together every line once in order."""
    export_id = created(shop)
    assert [file["part"] for file in view(shop, export_id)["files"]] == [1, 2, 3]
    assert [ids(part) for part in parts(shop, export_id)] == [
        ["c0", "c1", "c2", "c3"], ["c4", "c5", "c6", "c7"], ["c8", "c9"],
    ]  # fmt: skip


def test_parts_by_bytes(shop: Door) -> None:
    """No part is larger than allowed; a line that is larger has a part of its own."""
    line = len(b'{"identifiers":{"custom_id":"c0"},"attributes":{}}\n')
    shop.simulator.configure(part_lines=99, part_bytes=3 * line)
    assert [len(part) for part in parts(shop, created(shop))] == [3 * line] * 3 + [line]
    shop.simulator.configure(part_bytes=1)
    assert len(parts(shop, created(shop))) == 10


def test_nobody_is_one_empty_part(shop: Door) -> None:
    """An export without lines has one file without bytes."""
    shop.simulator.reset()
    assert parts(shop, created(shop)) == [b""]


def test_gzip(shop: Door) -> None:
    """Compressed files have sizes as they are sent, come without Content-Encoding, and are the same each time."""
    shop.simulator.configure(export_gzip=True)
    first, second = parts(shop, created(shop)), parts(shop, created(shop))
    assert first == second
    assert first[0][4:8] == bytes(4), "a time in the header makes each archive another"
    assert ids(gzip.decompress(first[0])) == ["c0", "c1", "c2", "c3"]
    answer = fetch(shop, a_link(shop))
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "application/gzip"


def test_links_are_absolute_and_signed(shop: Door) -> None:
    """A link leads to the host that was asked, needs no credentials, and its signature."""
    address = httpx.URL(a_link(shop))
    assert address.host in ("127.0.0.1", "inside")
    assert address.path.startswith("/simulator/files/")
    assert address.path.endswith(".json")
    assert a_link(shop) != str(address)
    assert fetch(shop, str(address)).status_code == 200
    for wrong in (address.copy_remove_param("signature"), address.copy_set_param("signature", "0" * 32)):
        answer = fetch(shop, str(wrong))
        assert (answer.status_code, "AccessDenied" in answer.text) == (403, True)
    assert fetch(shop, str(address.copy_with(path="/simulator/files/0/x.json"))).status_code == 403
    assert shop.call("HEAD", str(address)).status_code == 403
    assert shop.call("POST", str(address)).status_code == 405


def test_links_expire(shop: Door, served_clock: Clock) -> None:
    """A link is good for 20 minutes of the simulator's clock; a new one of the same file is good again."""
    file = view(shop, created(shop))["files"][0]
    address = link(shop, file)
    served_clock.now += 1199.9
    assert fetch(shop, address).status_code == 200
    served_clock.now += 0.1
    assert fetch(shop, address).status_code == 403
    assert fetch(shop, link(shop, file)).status_code == 200


@pytest.mark.parametrize("leaked", ["authorization", "x-batch-project"])
def test_leaked_credentials_are_counted(shop: Door, leaked: str) -> None:
    """A request for a file that carries a header of the API is served, and noticed."""
    address = a_link(shop)
    fetch(shop, address)
    assert shop.simulator.stats["credentials_leaked"] == 0
    assert fetch(shop, address, **{leaked: HEADERS[leaked]}).status_code == 200
    assert fetch(shop, address + "0", **{leaked: "x"}).status_code == 403
    assert shop.simulator.stats["credentials_leaked"] == 2
    assert shop.simulator.stats["file_requests"] == 3


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=5-9", 5, 9), ("bytes=7-", 7, -1), ("bytes=-3", -3, -1), ("bytes=7-99999", 7, -1)],
)
def test_ranges(shop: Door, asked: str, first: int, last: int) -> None:
    """A range is a 206 with those bytes, counted as sent, also where its ETag is still the file's."""
    address = a_link(shop)
    whole = fetch(shop, address)
    size = len(whole.content)
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", str(size))
    before = shop.simulator.stats["file_bytes"]
    answer = fetch(shop, address, range=asked, if_range=whole.headers["etag"])
    start, end = first % size, last % size
    assert (answer.status_code, answer.content) == (206, whole.content[start : end + 1])
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{size}"
    assert answer.headers["etag"] == whole.headers["etag"]
    assert shop.simulator.stats["file_bytes"] - before == len(answer.content)


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=٣-"])
def test_ranges_that_count_as_none(shop: Door, asked: str) -> None:
    """What is no single range, and a range of another ETag, is answered with the whole file."""
    address = a_link(shop)
    whole = fetch(shop, address).content
    if asked.isascii():
        answer = fetch(shop, address, range=asked)
        assert (answer.status_code, answer.content) == (200, whole)
    answer = fetch(shop, address, range="bytes=1-2", if_range='"other"')
    assert (answer.status_code, answer.content) == (200, whole)


@pytest.mark.parametrize("behind", ["bytes={size}-", "bytes=5-3", "bytes=-0"])
def test_ranges_behind_the_end(shop: Door, behind: str) -> None:
    """A range without a byte in the file is a 416 that names its size."""
    address = a_link(shop)
    size = len(fetch(shop, address).content)
    answer = fetch(shop, address, range=behind.format(size=size))
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")


def test_large_files_come_in_pieces(shop: Door) -> None:
    """A file of many pieces arrives as it was written, in whole and by ranges across them."""
    shop.simulator.reset()
    shop.simulator.configure(part_lines=10**6, mass_update_rate=None)
    shop.post([operation(f"{n}" * 60, x=f"{n}" * 250) for n in range(1000, 3000)], endpoint="mass-update")
    export_id = created(shop, attributes=["x"])
    (whole,) = parts(shop, export_id)
    assert len(whole) > 2**19
    assert len(set(ids(whole))) == 2000
    found = fetch(shop, link(shop, view(shop, export_id)["files"][0]), range=f"bytes={2**18 - 5}-{2**19 + 5}")
    assert found.content == whole[2**18 - 5 : 2**19 + 6]


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("simulator-exports-*"))


def test_files_go_with_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is made for the first export alone, and removed when the simulator is closed, reset or dropped."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with opened() as door:
        assert folders() == set()
        created(door)
        (first,) = folders()
        door.simulator.reset()
        assert folders() == set()
        created(door)
        assert folders() != {first}
    assert folders() == set()
    simulator = Simulator({PROJECT: KEY})
    created(Door(simulator))
    assert len(folders()) == 1
    del simulator
    gc.collect()
    assert folders() == set()


def test_projects_have_their_own_exports() -> None:
    """A project sees its own exports and files alone; a link opens the file of whoever was given it."""
    keys = {PROJECT: KEY, "project_two": "rest_two"}
    with Simulator(keys) as simulator:
        for key in keys:
            simulator.configure(other_rate=None, export_seconds=0, project=key)
            simulator.alter(f"in_{key}", {}, project=key)
        door = Door(simulator)
        export_id = created(door)
        file = view(door, export_id)["files"][0]
        assert ids(fetch(door, link(door, file)).content) == [f"in_{PROJECT}"]
        other = HEADERS | {"x-batch-project": "project_two", "authorization": "Bearer rest_two"}
        assert door.call("GET", "/2.11/exports/view", params={"id": export_id}, headers=other).status_code == 404
        assert door.call("GET", file["url"], headers=other).status_code == 404
        assert fetch(door, "/simulator/files/0/x.json").status_code == 404
        assert simulator.exports(project="project_two") == []
