"""What is sent of a file: all of it, a range, or what a fault leaves of it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from connector.simulator.answers import Answer
from connector.simulator.faults import Fault
from connector.simulator.files import ExportFile

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


class Fetch(NamedTuple):
    """A request for a file by its link; `leaking` whether it carries a header meant for the API alone."""

    token: str
    signature: str
    method: str
    range: str | None = None
    if_range: str | None = None
    leaking: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a file to send.

    Attributes:
        status: 200, or 206 for a range.
        start: The first byte, from 0.
        length: How many are announced.
        corrupt: The byte of the file to flip, if one.
        delay: Seconds before it is sent.
        cut: Whether the connection ends half-way.
    """

    status: int
    headers: Mapping[str, str]
    file: ExportFile
    start: int
    length: int
    corrupt: int | None = None
    delay: float = 0.0
    cut: bool = False


def content(file: ExportFile, asked: Fetch, fault: Fault) -> Content | Answer:
    """What the file's host sends, or the 416 where the range lies behind the end."""
    whole = file.size
    held = whole // 2 if fault.truncated else whole
    corrupt = whole // 2 if fault.corrupt else None
    headers = {"etag": file.etag, "accept-ranges": "bytes"}
    match = _RANGE.fullmatch(asked.range or "") if asked.if_range in (None, file.etag) else None
    # A range that cannot be read counts as none, as the standard says.
    if match is None or match[0] == "bytes=-":
        return Content(200, headers, file, 0, held, corrupt, fault.delay, fault.cut)
    span = _span(match[1], match[2], held)
    if not span:
        return Answer(416, "", "application/xml", {"content-range": f"bytes */{held}"}, fault.delay)
    headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{held}"
    return Content(206, headers, file, span.start, len(span), corrupt, fault.delay, fault.cut)


def _span(first: str, last: str, size: int) -> range:
    """The bytes that a range means, none where it lies behind the end."""
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1) if last else size)
