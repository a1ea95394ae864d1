"""Faults on demand: a queue that successive requests consume."""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connector.errors import UsageError
from connector.simulator.calls import Call


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault as it was asked for.

    Attributes:
        status: Answered instead of 202.
        apply: Whether the call takes effect before the answer; by default only where `status` is absent.
            A call that the simulator itself refuses keeps that refusal.
        delay: Seconds before the answer.
        late: Seconds by the simulator's clock between the answer and its effect; implies `apply`.
        cut: End the connection half-way through the answer's body.
        body: Literal text of the answer.
        retry_after: The header's value, seconds or any text.
        location: The header's value, for 3xx.
        times: Requests hit; by default 1, or all of them with `share`.
        skip: Requests let through first.
        match: `{"custom_id"?, "event_id"?}`: only calls that hold it, or both of them.
        partial: `{"custom_id", "attribute" or "event"?, "reason"?, "category"?}`, refused inside a 202; the fault
            then waits for calls that hold one of them. An attribute that the profile's operation does not have
            is refused to its events; `event` is `{"name"?, "event_id"?}`; without both the operation is refused.
        share: Random share of the matching requests, 0 to 1, drawn from `seed`.
    """

    status: int | None = None
    apply: bool | None = None
    delay: float = 0.0
    late: float | None = None
    cut: bool = False
    body: str | None = None
    content_type: str | None = None
    retry_after: float | str | None = None
    location: str | None = None
    times: int | None = None
    skip: int = 0
    match: Mapping[str, str] | None = None
    partial: Sequence[Mapping[str, Any]] = ()
    share: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.times is None and self.share is None:
            self.times = 1

    @property
    def applies(self) -> bool:
        """Whether the call takes effect, now or late."""
        return self.late is not None or (self.status is None if self.apply is None else self.apply)

    def targets(self, call: Call) -> bool:
        """Whether this call is meant."""
        if self.match is not None and not _holds(call, **self.match):
            return False
        return not self.partial or any(_holds_part(call, item) for item in self.partial)


class FaultQueue:
    """Faults in order; a request takes the first that means it.

    A fault with requests left to skip lets its request through and holds the faults behind it; one that does
    not match, or whose share was not drawn, leaves the request to them.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Fault, random.Random]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Queue the faults, all or none.

        Raises:
            UsageError: A fault has an unknown field or a value that its field does not take.
        """
        parsed = [_parsed(fault) for fault in faults]
        # A fault that is asked for again must strike the same requests: no cryptography here.
        self._waiting.extend((fault, random.Random(fault.seed)) for fault in parsed)  # noqa: S311

    def clear(self) -> None:
        """Drop what is left."""
        self._waiting.clear()

    def take(self, call: Call) -> Fault | None:
        """The fault for this call, if any."""
        for entry in self._waiting:
            fault, draw = entry
            if not fault.targets(call):
                continue
            if fault.skip:
                fault.skip -= 1
                return None
            if fault.share is not None and draw.random() >= fault.share:
                continue
            if fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    self._waiting.remove(entry)
            return fault
        return None


def _holds(call: Call, custom_id: str | None = None, event_id: str | None = None) -> bool:
    if custom_id is not None and custom_id not in call.ids:
        return False
    return event_id is None or call.holds_event({"event_id": event_id})


def _holds_part(call: Call, item: Mapping[str, Any]) -> bool:
    custom_id = item["custom_id"]
    return custom_id in call.ids and ("event" not in item or call.holds_event(item["event"], custom_id))


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _is_seconds(value: Any) -> bool:  # noqa: ANN401
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_header(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _is_texts(value: Any, known: set[str]) -> bool:  # noqa: ANN401
    return isinstance(value, dict) and value.keys() <= known and all(isinstance(text, str) for text in value.values())


def _is_part(value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, dict) or "custom_id" not in value or value.keys() >= {"attribute", "event"}:
        return False
    event, texts = value.get("event", {}), {name: text for name, text in value.items() if name != "event"}
    return _is_texts(event, {"name", "event_id"}) and _is_texts(texts, {"custom_id", "attribute", "reason", "category"})


def _is_partial(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, list | tuple) and all(map(_is_part, value))


def _is_match(value: Any) -> bool:  # noqa: ANN401
    return bool(value) and _is_texts(value, {"custom_id", "event_id"})


_FLAG = (lambda value: isinstance(value, bool), "true or false")
_SECONDS = (_is_seconds, "seconds, 0 or more")
_HEADER = (_is_header, "printable ASCII text")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "status": (lambda value: type(value) is int and value in range(200, 600), "a status from 200 to 599"),
    "apply": _FLAG,
    "delay": _SECONDS,
    "late": _SECONDS,
    "cut": _FLAG,
    "body": (lambda value: isinstance(value, str), "text"),
    "content_type": _HEADER,
    "retry_after": (lambda value: type(value) in (int, float) or _is_header(value), "seconds or text"),
    "location": _HEADER,
    "times": (_is_count(1), "a whole number, 1 or more"),
    "skip": (_is_count(0), "a whole number, 0 or more"),
    "match": (_is_match, "an object with custom_id or event_id or both"),
    "partial": (_is_partial, "a list of objects with custom_id and perhaps attribute or event, reason, category"),
    "share": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1"),
    "seed": (lambda value: type(value) is int, "a whole number"),
}


def _parsed(fault: Mapping[str, Any]) -> Fault:
    if not isinstance(fault, dict):
        raise UsageError("a fault is not an object", remedy='write it such as {"status": 500, "times": 2}')
    for name, value in fault.items():
        if name not in _FIELDS:
            raise UsageError(f"a fault has the unknown field '{name}'", remedy=f"use {', '.join(_FIELDS)}")
        fits, allowed = _FIELDS[name]
        if not fits(value):
            raise UsageError(f"the field '{name}' of a fault is not {allowed}", remedy="correct the fault")
    return Fault(**fault)
