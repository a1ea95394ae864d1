"""What the tests of exports do through a door."""

import json
from typing import Any

import httpx

from tests.simulator.conftest import HEADERS, Door

VERSION = "2.11"
PUBLIC = {name: value for name, value in HEADERS.items() if name == "content-type"}
"""Headers without what authenticates."""


def create(door: Door, **body: Any) -> httpx.Response:
    return door.call("POST", f"/{VERSION}/profiles/export", body=body)


def created(door: Door, **body: Any) -> str:
    answer = create(door, **({"export_type": "ATTRIBUTES", "identifiers": ["custom_id"]} | body))
    assert answer.status_code == 202
    assert answer.json().keys() == {"id"}
    return str(answer.json()["id"])


def view(door: Door, export_id: str) -> dict[str, Any]:
    answer = door.call("GET", f"/{VERSION}/exports/view", params={"id": export_id})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def page(door: Door, **params: str) -> dict[str, Any]:
    answer = door.call("GET", f"/{VERSION}/exports/list", params=params)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def link(door: Door, file: dict[str, Any]) -> str:
    answer = door.call("GET", file["url"])
    assert answer.status_code == 307
    assert answer.content == b""
    return str(answer.headers["location"])


def fetch(door: Door, address: str, **headers: str) -> httpx.Response:
    return door.call("GET", address, headers=PUBLIC | {name.replace("_", "-"): text for name, text in headers.items()})


def parts(door: Door, export_id: str) -> list[bytes]:
    """Each listed file of a finished export, checked against its size."""
    found = []
    for file in view(door, export_id)["files"]:
        answer = fetch(door, link(door, file))
        assert (answer.status_code, len(answer.content)) == (200, file["size"])
        found.append(answer.content)
    return found


def lines(door: Door, **body: Any) -> list[dict[str, Any]]:
    """The lines of a new export of one part."""
    (content,) = parts(door, created(door, **body))
    return [json.loads(line) for line in content.splitlines()]
