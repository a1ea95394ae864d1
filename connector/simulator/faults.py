"""Faults on demand: a queue that successive requests consume."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connector.simulator.calls import Call
from connector.simulator.fault_fields import checked


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault as it was asked for.

    Attributes:
        endpoint: "export", "view", "list", "download" or "file" (the request by a link); by default the updates.
        status: Answered instead of 202, or of what else the endpoint answers.
        apply: Whether the call takes effect before the answer; by default only where `status` is absent.
            A call that the simulator itself refuses keeps that refusal.
        delay: Seconds before the answer.
        late: Seconds by the simulator's clock between the answer and its effect; implies `apply`. An export exists
            at once, and only the list shows it late.
        cut: End the connection half-way through the answer's body.
        body: Literal text of the answer.
        retry_after: The header's value, seconds or any text.
        location: The header's value, for 3xx; on "download" the link that is given.
        times: Requests hit; by default 1, or all of them with `share`.
        skip: Requests let through first.
        match: `{"custom_id"?, "event_id"?}`: only calls that hold it, or both of them.
        partial: `{"custom_id", "attribute" or "event"?, "reason"?, "category"?}`, refused inside a 202; the fault
            then waits for calls that hold one of them. An attribute that the profile's operation does not have
            is refused to its events; `event` is `{"name"?, "event_id"?}`; without both the operation is refused.
        share: Random share of the matching requests, 0 to 1, drawn from `seed`.
        becomes: What becomes of the export: "stuck" (running until the faults are cleared), "error", "empty" (no
            file), "bomb" (one small archive that unpacks to a thousand times its size), "missing_part" (the second of
            at least three is not listed), "repeated_part" (the first is listed twice), "renamed" (the files' ids are
            hostile as paths), "garbage" (compressed, with bytes behind the archive's end).
        lines: Texts at the end of the export's first file, as they are.
        truncated: The file ends at its half, and so does its announced length.
        corrupt: A byte in the file's middle is another.
        expired: The link is refused as expired.
        changed: From now on the file has another content, its lines the other way round, and another ETag.
    """

    endpoint: str | None = None
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
    becomes: str | None = None
    lines: Sequence[str] = ()
    truncated: bool = False
    corrupt: bool = False
    expired: bool = False
    changed: bool = False

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
            UsageError: A fault has an unknown field, a value that its field does not take, or fields that do not go
                together.
        """
        parsed = [Fault(**checked(fault)) for fault in faults]
        # A fault that is asked for again must strike the same requests: no cryptography here.
        self._waiting.extend((fault, random.Random(fault.seed)) for fault in parsed)  # noqa: S311

    def clear(self) -> None:
        """Drop what is left."""
        self._waiting.clear()

    def take(self, call: Call, endpoint: str | None = None) -> Fault | None:
        """The fault for this call, if any; `endpoint` as a fault names it, None for an update."""
        for entry in self._waiting:
            fault, draw = entry
            if fault.endpoint != endpoint or not fault.targets(call):
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
