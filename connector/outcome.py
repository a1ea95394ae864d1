"""What an answer of the update endpoints means for the chunk that was sent: one table, no I/O."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import NamedTuple

RETRY_AFTER_MAX = 900.0
"""Seconds that a Retry-After is obeyed at most; what asks for more is no rate limit."""

ACCEPTED_STATUS = 202
TOO_MANY = 429


class Verdict(Enum):
    """What the caller does with the chunk."""

    ACCEPTED = auto()
    """Applied, but for the refusals."""
    LATER = auto()
    """Not applied: wait, then send the same bytes."""
    UNKNOWN = auto()
    """Perhaps applied: send the same bytes, and remember that an earlier copy may still land."""
    UNVERIFIED = auto()
    """Answered as if applied, in words we cannot trust: not sent again in this run, due at the next."""
    SPLIT = auto()
    """Not applied, and it never will be as it is: halve it until the guilty row is alone."""
    STOP = auto()
    """Not applied, and nothing else will be: end the run."""


class Refusal(NamedTuple):
    """What Batch refused inside a 202.

    Attributes:
        row: Place of the operation in the chunk, from 0.
        attribute: The bare attribute name; None: the operation as a whole.
        reason: Batch's words; they may quote a value, so they go to the operator and never to a log.
    """

    row: int
    attribute: str | None
    reason: str


class Outcome(NamedTuple):
    """A verdict with its details; `reason` is a few words that hold nothing personal, `throttled`: we send too fast."""

    verdict: Verdict
    reason: str
    refusals: tuple[Refusal, ...] = ()
    retry_after: float | None = None
    throttled: bool = False


class Answer(NamedTuple):
    """An HTTP answer, read whole: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_BY_STATUS: dict[int, tuple[Verdict, str]] = {
    400: (Verdict.SPLIT, "the request is malformed"),
    401: (Verdict.STOP, "the REST API key is not valid for this project"),
    403: (Verdict.STOP, "the REST API key may not do this"),
    404: (Verdict.STOP, "the route, API version or project is unknown"),
    408: (Verdict.LATER, "the server gave up waiting"),
    410: (Verdict.STOP, "this version of the API is gone"),
    413: (Verdict.SPLIT, "the request is too large"),
    422: (Verdict.SPLIT, "the request cannot be processed"),
    425: (Verdict.LATER, "too early"),
    429: (Verdict.LATER, "too many requests"),
}

_BY_FAMILY: dict[int, tuple[Verdict, str]] = {
    1: (Verdict.UNVERIFIED, "no final answer"),
    2: (Verdict.UNVERIFIED, "an unexpected kind of success"),
    3: (Verdict.STOP, "a redirect, which is never followed"),
    4: (Verdict.STOP, "an answer that no retry will change"),
    5: (Verdict.UNKNOWN, "server error"),
}


def not_sent(reason: str) -> Outcome:
    """No connection was made, so nothing left."""
    return Outcome(Verdict.LATER, reason)


def no_answer(reason: str) -> Outcome:
    """The body left, wholly or in part, and no answer came."""
    return Outcome(Verdict.UNKNOWN, reason)


def classify(answer: Answer, rows: int, *, now: datetime) -> Outcome:
    """What `answer` means for a chunk of `rows` operations.

    Args:
        answer: The answer to one POST.
        rows: Operations sent.
        now: Wall clock, aware; for a Retry-After that is a date.
    """
    status = answer.status
    wait = retry_after(answer.headers.get("retry-after"), now)
    if status == ACCEPTED_STATUS:
        return _accepted(answer.body, rows)
    if known := _BY_STATUS.get(status):
        return Outcome(known[0], f"{status}: {known[1]}", retry_after=wait, throttled=status == TOO_MANY)
    if status == 503 and wait is not None:  # noqa: PLR2004
        return Outcome(Verdict.LATER, "503: under maintenance", retry_after=wait)
    verdict, reason = _BY_FAMILY.get(status // 100, (Verdict.UNVERIFIED, "no HTTP status"))
    return Outcome(verdict, f"{status}: {reason}", retry_after=wait)


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds to wait, from 0 to RETRY_AFTER_MAX; None where the header is absent or makes no sense."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), RETRY_AFTER_MAX)


def bare(attribute: str) -> str:
    """`date(x)` and `url(x)` as `x`; other names as they are."""
    for wrapper in ("date(", "url("):
        if attribute.startswith(wrapper) and attribute.endswith(")"):
            return attribute[len(wrapper) : -1]
    return attribute


def _accepted(body: bytes, rows: int) -> Outcome:
    try:
        parsed = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return Outcome(Verdict.UNVERIFIED, "202 with a body that is not JSON")
    if not isinstance(parsed, dict):
        return Outcome(Verdict.UNVERIFIED, "202 with a body that is not an object")
    match parsed.get("code"), parsed.get("errors"):
        case "SUCCESS", None | []:
            return Outcome(Verdict.ACCEPTED, "202")
        case "SUCCESS_WITH_PARTIAL_ERRORS", list(items):
            refusals = [_refusal(item, rows) for item in items]
            if refusals and None not in refusals:
                return Outcome(Verdict.ACCEPTED, "202 with partial errors", tuple(item for item in refusals if item))
            return Outcome(Verdict.UNVERIFIED, "202 with partial errors that name no row of the chunk")
        case _:
            return Outcome(Verdict.UNVERIFIED, "202 with an unknown code")


def _refusal(item: object, rows: int) -> Refusal | None:
    if not isinstance(item, dict):
        return None
    row, attribute, reason = item.get("bulk_index"), item.get("attribute"), item.get("reason")
    if type(row) is not int or not 0 <= row < rows or not isinstance(attribute, str | None):
        return None
    name = _text(bare(attribute)) if attribute else None
    return Refusal(row, name, _text(str(reason or "no reason given"))[:500])


def _text(text: str) -> str:
    """The text without half characters, which no file and no database takes."""
    return text.encode("utf-8", "replace").decode()


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys stand there once: a second `code` must not silently win."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
