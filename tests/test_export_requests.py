"""What is asked for, and how ours is told from others."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.api._http import NoAnswerError
from connector.api.exports import Export, created, listed, viewed
from connector.config import ExportSync
from connector.errors import UsageError
from connector.export_requests import (
    LOOKBACK,
    MARGIN,
    OVERLAP,
    REACHABILITY_FROM,
    is_ours,
    next_window,
    request,
    scope,
    written,
)
from connector.outcome import Answer

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def sync(export: str = "events", **keys: Any) -> ExportSync:
    given = {"name": "x", "kind": "export", "warehouse": "local", "export": export, "table": "batch.x"}
    return ExportSync.model_validate(given | keys)


def test_the_body_of_each_kind() -> None:
    """Bodies are what Batch documents, with nothing that was not asked for."""
    people = sync(
        "attributes",
        attributes=("$email_address", "plan"),
        identifiers=("custom_id", "installation_ids"),
        segment="vip",
    )
    assert request(people, None) == {
        "export_type": "ATTRIBUTES", "attributes": ["$email_address", "plan"], "identifiers": ["custom_id", "installation_ids"],
        "filter": {"segment": "vip"},
    }  # fmt: skip
    assert request(sync("attributes"), None) == {"export_type": "ATTRIBUTES", "identifiers": ["custom_id"]}
    window = next_window(sync("reachability"), None, NOW)
    assert request(sync("reachability"), window) == {
        "export_type": "REACHABILITY", "identifiers": ["custom_id"], "from": "2026-01-31T12:10:00.000Z", "to": "2026-05-01T12:00:00.000Z",
    }  # fmt: skip


def test_windows() -> None:
    """`since` at first, then an hour before the last end; reachability starts when Batch started to keep it."""
    assert next_window(sync("attributes"), None, NOW) is None
    assert next_window(sync(), None, NOW) == (NOW - timedelta(days=7), NOW)
    assert next_window(sync(), "2026-05-01T10:00:00.000Z", NOW) == (NOW - timedelta(hours=3), NOW)
    early = REACHABILITY_FROM + timedelta(days=2)
    assert next_window(sync("reachability"), None, early) == (REACHABILITY_FROM, early)
    start = next_window(sync(since=timedelta(days=90)), None, NOW)
    assert start == (NOW - LOOKBACK + MARGIN, NOW)
    asked = (NOW - timedelta(days=3), NOW - timedelta(days=2))
    assert next_window(sync(), "2020-01-01T00:00:00Z", NOW, asked) == asked


@pytest.mark.parametrize(
    ("export", "last", "asked", "says"),
    [
        ("events", "2026-01-30T00:00:00.000Z", None, "what happened in between is no longer there"),
        ("events", "2026-05-01T13:00:00.000Z", None, "later than this machine's clock says it is"),
        (
            "events",
            None,
            (NOW - timedelta(days=91), NOW),
            "the window starts 2026-01-30T12:00:00.000Z, Batch has events from",
        ),
        ("events", None, (NOW - timedelta(days=1), NOW + timedelta(seconds=1)), "ends in the future"),
        ("reachability", None, (datetime(2024, 10, 9, tzinfo=UTC), NOW), "Batch has reachability from"),
    ],
)
def test_windows_that_batch_has_not(export: str, last: str | None, asked: Any, says: str) -> None:
    """Refused with what there is, before any request."""
    with pytest.raises(UsageError, match=says):
        next_window(sync(export), last, NOW, asked)


def test_the_scope_of_a_watermark() -> None:
    """It changes with the rows or the table, and with nothing else."""
    same = [sync(), sync(since=timedelta(days=1)), sync(schedule="* * * * *")]
    assert len({scope(one) for one in same}) == 1
    others = [
        sync("reachability"),
        sync(identifiers=("installation_id",)),
        sync(table="batch.y"),
        sync(warehouse="snow"),
    ]
    assert len({scope(one) for one in [sync(), *others]}) == 5


BODY = request(sync(), next_window(sync(), None, NOW))


def export(**changes: Any) -> Export:
    return Export("export_1", "RUNNING", BODY, NOW.timestamp(), ())._replace(**changes)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (export(), True), (export(requested_at=None), True), (export(requested_at=NOW.timestamp() - 299), True),
        (export(requested_at=NOW.timestamp() - 301), False), (export(id="known"), False),
        (export(request={**BODY, "added": 1}), True), (export(request={**BODY, "from": "2026-04-24T14:00:00+02:00"}), True),
        (export(request={**BODY, "from": "2026-04-24T12:00:00.001Z"}), False), (export(request={**BODY, "from": "x"}), False),
        (export(request={**BODY, "from": 5}), False), (export(request={**BODY, "from": "2026-04-24T12:00:00"}), False),
        (export(request={**BODY, "identifiers": ["custom_id", "installation_id"]}), False), (export(request={}), False),
        (export(request={**BODY, "export_type": "REACHABILITY"}), False),
    ],
)  # fmt: skip
def test_ours_and_others(theirs: Export, ours: bool) -> None:
    """The same question asked since then, under no known id, however Batch writes it."""
    assert is_ours(theirs, BODY, NOW.timestamp(), {"known"}) is ours


@given(st.integers(1_740_000_000_000_000, 1_900_000_000_000_000), st.integers(1, 89))
def test_any_window_is_found_again_as_it_was_written(at: int, days: int) -> None:
    """Law: what is written is the moment cut to milliseconds, and windows in a row leave no gap."""
    now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at)
    assert timedelta(0) <= now - datetime.fromisoformat(written(now)) < timedelta(milliseconds=1)
    window = next_window(sync(since=timedelta(days=days)), written(now - timedelta(days=days)), now)
    assert window
    assert window.since + OVERLAP == datetime.fromisoformat(written(now - timedelta(days=days)))
    assert window.until == now


def answer(body: Any) -> Answer:
    return Answer(200, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


SHOWN = {
    "id": "export_1",
    "status": "SUCCESS",
    "request": {},
    "files": [{"id": "file_1", "part": 1, "size": 5, "url": "u"}],
}


def test_answers_as_documented() -> None:
    """Ids, states, files and pages are read; unknown fields are nobody's business."""
    assert created(answer({"id": "export_1", "new": 1})) == "export_1"
    shown = viewed(answer(SHOWN | {"request_date": "2026-05-01T12:00:00Z", "more": {}}))
    assert (shown.id, shown.status, shown.requested_at, shown.files) == (
        "export_1",
        "SUCCESS",
        NOW.timestamp(),
        (("file_1", 1, 5),),
    )
    assert viewed(answer(SHOWN | {"requested_at": "2026-05-01T12:00:00"})).requested_at == NOW.timestamp()
    assert viewed(answer(SHOWN | {"request_date": "soon", "files": None})).requested_at is None
    found, following = listed(answer({"exports": [SHOWN], "has_more": True, "next_from": "abc"}))
    assert ([one.id for one in found], following) == (["export_1"], "abc")
    for end in ({"has_more": False, "next_from": "abc"}, {"has_more": True}, {}):
        assert listed(answer({"exports": []} | end)) == ([], None)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"\xff", b"[" * 100_000, [], {}, SHOWN | {"id": 5}, SHOWN | {"status": None}, SHOWN | {"files": 5}, SHOWN | {"files": [5]},
        SHOWN | {"files": [{"id": "f", "part": True, "size": 1}]}, SHOWN | {"files": [{"id": "f", "part": 1, "size": -1}]},
        SHOWN | {"files": [{"part": 1, "size": 1}]},
    ],
)  # fmt: skip
def test_answers_that_make_no_sense(body: Any) -> None:
    """No answer is better than half of one."""
    with pytest.raises(NoAnswerError):
        viewed(answer(body))
    if isinstance(body, dict):  # in a list it is one of many, perhaps of somebody else's
        assert [export.id for export in listed(answer({"exports": [body, SHOWN]}))[0]] == [SHOWN["id"]]
    else:
        with pytest.raises(NoAnswerError):
            listed(answer(body))
