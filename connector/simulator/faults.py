"""Faults on demand: a queue that successive requests consume."""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connector.errors import UsageError


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
        match: `{"custom_id": …}`: only calls that hold it.
        partial: `{"custom_id", "attribute"?, "reason"?, "category"?}`, refused inside a 202; the fault then
            waits for calls that hold one of them.
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
    partial: Sequence[Mapping[str, str]] = ()
    share: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.times is None and self.share is None:
            self.times = 1

    @property
    def applies(self) -> bool:
        """Whether the call takes effect, now or late."""
        return self.late is not None or (self.status is None if self.apply is None else self.apply)

    def targets(self, custom_ids: set[str]) -> bool:
        """Whether a call with these custom ids is meant."""
        if self.match is not None and self.match["custom_id"] not in custom_ids:
            return False
        return not self.partial or any(item["custom_id"] in custom_ids for item in self.partial)


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

    def take(self, custom_ids: set[str]) -> Fault | None:
        """The fault for a request with these custom ids, if any."""
        for entry in self._waiting:
            fault, draw = entry
            if not fault.targets(custom_ids):
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


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _is_seconds(value: Any) -> bool:  # noqa: ANN401
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_header(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _is_partial(value: Any) -> bool:  # noqa: ANN401
    known = {"custom_id", "attribute", "reason", "category"}
    return isinstance(value, list | tuple) and all(
        isinstance(item, dict)
        and "custom_id" in item
        and item.keys() <= known
        and all(isinstance(text, str) for text in item.values())
        for item in value
    )


def _is_match(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, dict) and value.keys() == {"custom_id"} and isinstance(value["custom_id"], str)


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
    "match": (_is_match, "an object with custom_id alone"),
    "partial": (_is_partial, "a list of objects with custom_id and perhaps attribute, reason, category"),
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
