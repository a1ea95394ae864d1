"""Faults on demand, through both doors."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from connector.errors import UsageError
from connector.simulator.calls import Call
from connector.simulator.faults import FaultQueue
from tests.simulator.conftest import Clock, Door, opened, operation, operations


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504])
def test_statuses(either_door: Door, status: int) -> None:
    """A failing status answers with Batch's error body once, applies nothing, and the next call passes."""
    either_door.simulator.inject({"status": status})
    answer = either_door.post(operations(1))
    assert answer.status_code == status
    assert set(answer.json()) == {"error_code", "error_message"}
    assert either_door.simulator.profiles() == []
    assert either_door.post(operations(1)).status_code == 202
    assert either_door.simulator.stats["throttled"] == 0


@pytest.mark.parametrize("retry_after", [7, "soon", "-1", "Fri, 21 Nov 2031 07:28:00 GMT"])
def test_retry_after(either_door: Door, retry_after: int | str) -> None:
    """Retry-After is sent as it was asked for, sensible or not."""
    either_door.simulator.inject({"status": 429, "retry_after": retry_after})
    assert either_door.post(operations(1)).headers["retry-after"] == str(retry_after)


def test_failure_after_applying(either_door: Door) -> None:
    """A 500 can come after the call took effect."""
    either_door.simulator.inject({"status": 500, "apply": True})
    assert either_door.post(operations(1)).status_code == 500
    assert len(either_door.simulator.profiles()) == 1


def test_success_without_applying(either_door: Door) -> None:
    """A 202 can be a lie."""
    either_door.simulator.inject({"apply": False})
    assert either_door.post(operations(1)).json() == {"code": "SUCCESS"}
    assert either_door.simulator.profiles() == []


def test_own_refusals_stay(either_door: Door) -> None:
    """A call that the simulator refuses itself is not dressed up as the fault."""
    either_door.simulator.inject({"status": 500, "apply": True})
    assert either_door.post([]).status_code == 400


@pytest.mark.parametrize(
    ("body", "content_type"), [("<html>busy</html>", "text/html"), ("", None), ('{"code":"SUC', None)]
)
def test_literal_bodies(either_door: Door, body: str, content_type: str | None) -> None:
    """The body and its type can be anything, while the call is applied."""
    fault: dict[str, Any] = {"body": body} | ({"content_type": content_type} if content_type else {})
    either_door.simulator.inject(fault)
    answer = either_door.post(operations(1))
    assert (answer.status_code, answer.text) == (202, body)
    assert answer.headers["content-type"].partition(";")[0] == (content_type or "application/json")
    assert len(either_door.simulator.profiles()) == 1


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_redirects(either_door: Door, status: int) -> None:
    """A redirect points where it was told to and applies nothing."""
    either_door.simulator.inject({"status": status, "location": "http://127.0.0.1:9/x"})
    answer = either_door.post(operations(1))
    assert (answer.status_code, answer.headers["location"]) == (status, "http://127.0.0.1:9/x")
    assert either_door.simulator.profiles() == []


def test_cut_answers(either_door: Door) -> None:
    """A cut answer is applied and unreadable: half of it in process, a broken connection over HTTP."""
    either_door.simulator.inject({"cut": True})
    if either_door.over_http:
        with pytest.raises(httpx.RemoteProtocolError):
            either_door.post(operations(1))
    else:
        answer = either_door.post(operations(1))
        assert len(answer.content) * 2 <= int(answer.headers["content-length"])
    assert len(either_door.simulator.profiles()) == 1
    assert either_door.post(operations(1)).status_code == 202


def test_accept_then_time_out(either_door: Door) -> None:
    """A caller who gives up on a delayed answer has been applied all the same."""
    either_door.simulator.inject({"apply": True, "delay": 30})

    async def give_up() -> None:
        async with asyncio.timeout(0.3):
            await either_door.acall("POST", "/2.11/profiles/update", body=operations(1))

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert len(either_door.simulator.profiles()) == 1


def test_a_delay_holds_nobody_else(either_door: Door) -> None:
    """A delayed answer comes after its time, and a call made meanwhile is answered before."""
    either_door.simulator.inject({"delay": 0.4, "match": {"custom_id": "slow"}})

    async def both() -> list[str]:
        order: list[str] = []

        async def call(custom_id: str) -> None:
            await either_door.acall("POST", "/2.11/profiles/update", body=[operation(custom_id)])
            order.append(custom_id)

        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(call("slow"))
            group.create_task(call("quick"))
        assert time.monotonic() - start >= 0.4
        return order

    assert asyncio.run(both()) == ["quick", "slow"]


def test_late_writes(either_door: Door, served_clock: Clock) -> None:
    """A late call is seen once its time has passed, over what came in between."""
    either_door.simulator.inject({"late": 120, "status": 500})
    assert either_door.post([operation(x=1)]).status_code == 500
    assert either_door.post([operation(x=2)]).status_code == 202
    served_clock.now += 119.9
    assert either_door.simulator.profiles()[0]["custom"]["x"]["value"] == 2
    served_clock.now += 0.1
    assert either_door.simulator.profiles()[0]["custom"]["x"]["value"] == 1


def test_partial_refusals(either_door: Door) -> None:
    """Named parts are refused inside a 202, whole operations too, and only they stay unapplied."""
    either_door.simulator.inject(
        {
            "partial": [
                {"custom_id": "a", "attribute": "d", "reason": "no"},
                {"custom_id": "a", "attribute": "absent"},
                {"custom_id": "b", "category": "profile"},
            ]
        }
    )
    either_door.post([operation("other")])
    answer = either_door.post(
        [operation("c", x=1), operation("a", x=1, **{"date(d)": "2024-01-01T00:00:00Z"}), operation("b", x=1)]
    )
    assert answer.json() == {
        "code": "SUCCESS_WITH_PARTIAL_ERRORS",
        "errors": [
            {"category": "attribute", "bulk_index": 1, "reason": "no", "attribute": "d"},
            {"category": "profile", "bulk_index": 2, "reason": "injected fault"},
        ],
    }
    assert {profile["custom_id"]: set(profile["custom"]) for profile in either_door.simulator.profiles()} == {
        "a": {"x"},
        "c": {"x"},
        "other": set(),
    }
    assert either_door.post([operation("b")]).json() == {"code": "SUCCESS"}


def test_order_times_and_skip(either_door: Door) -> None:
    """Faults strike in their order, each as often as asked, after the requests that they let through."""
    either_door.simulator.inject({"status": 500, "times": 2, "skip": 1}, {"status": 503})
    statuses = [either_door.post(operations(1)).status_code for _ in range(5)]
    assert statuses == [202, 500, 500, 503, 202]


def test_matching_calls_only(either_door: Door) -> None:
    """A fault for one custom id leaves other calls to the faults behind it."""
    either_door.simulator.inject({"status": 400, "match": {"custom_id": "bad"}, "times": 2}, {"status": 500})
    calls = [["good"], ["good", "bad"], ["bad"], ["bad"]]
    statuses = [either_door.post([operation(one) for one in ids]).status_code for ids in calls]
    assert statuses == [500, 400, 400, 202]


def test_shares_are_drawn_from_the_seed() -> None:
    """A share hits about that part of the requests, the same ones for the same seed, without end."""

    def hits(seed: int) -> list[bool]:
        queue = FaultQueue()
        queue.add([{"status": 500, "share": 0.05, "seed": seed}])
        return [queue.take(Call([operation("c")])) is not None for _ in range(2000)]

    assert hits(1) == hits(1) != hits(2)
    assert 60 < sum(hits(1)) < 140


def test_control_routes_for_faults(either_door: Door) -> None:
    """Faults can be queued, alone or many, and dropped over HTTP."""
    assert either_door.call("POST", "/simulator/faults", body={"status": 500}).json() == {"faults": 1}
    assert either_door.call("POST", "/simulator/faults", body=[{"status": 503}]).json() == {"faults": 2}
    assert either_door.post(operations(1)).status_code == 500
    assert either_door.call("DELETE", "/simulator/faults").status_code == 200
    assert either_door.post(operations(1)).status_code == 202


@pytest.mark.parametrize(
    "fault",
    [
        {"state": 500},
        {"status": "500"},
        {"status": 99},
        {"status": True},
        {"delay": -1},
        {"delay": float("nan")},
        {"times": 0},
        {"skip": -1},
        {"share": 1.5},
        {"match": {}},
        {"match": {"custom_id": 5}},
        {"match": {"custom_id": "c", "name": "x"}},
        {"match": {"event_id": 5}},
        {"partial": [{"attribute": "x"}]},
        {"partial": [{"custom_id": "c", "event": "e1"}]},
        {"partial": [{"custom_id": "c", "event": {"id": "e1"}}]},
        {"partial": [{"custom_id": "c", "event": {"name": 5}}]},
        {"partial": [{"custom_id": "c", "event": {}, "attribute": "x"}]},
        {"retry_after": "a\nb"},
        {"location": "http://é"},
        {"apply": 1},
        "status",
    ],
)
def test_bad_faults_are_refused(door: Door, fault: Any) -> None:
    """A fault that would not do what was meant is refused with its field, and none of the list is queued."""
    with pytest.raises(UsageError, match="fault"):
        door.simulator.inject({"status": 500}, fault)
    assert door.call("POST", "/simulator/faults", body=[{"status": 500}, fault]).status_code == 400
    assert door.simulator.stats["faults"] == 0


def test_injected_sleep(clock: Clock) -> None:
    """A test in virtual time takes delays itself."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with opened(clock=clock) as door:
        door.simulator.sleep = sleep
        door.simulator.inject({"delay": 30})
        assert door.post(operations(1)).status_code == 202
    assert slept == [30]
