"""What goes back to a caller: status, body and how it is delivered.

Batch documents one error code, AUTHENTICATION_INVALID. The others are this simulator's own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from connector.simulator.faults import Fault

ACCEPTED = 202
TOO_MANY_REQUESTS = 429

_CODES = {
    400: "MALFORMED_REQUEST",
    401: "AUTHENTICATION_INVALID",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_ENCODING",
    429: "TOO_MANY_REQUESTS",
    503: "MAINTENANCE",
}
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `delay` in seconds before it is sent, `cut` to end the connection half-way."""

    status: int
    body: str
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


def of(status: int, body: Mapping[str, object]) -> Answer:
    """An answer with this body as JSON."""
    return Answer(status, json.dumps(body))


def success(errors: list[dict[str, object]]) -> Answer:
    """The 202, with the partial errors if there are any."""
    return of(ACCEPTED, {"code": "SUCCESS_WITH_PARTIAL_ERRORS", "errors": errors} if errors else {"code": "SUCCESS"})


def denied(message: str) -> Answer:
    """The 403 of the host of files."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>'
    return Answer(403, body, "application/xml")


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    """A refusal with the documented body."""
    body = {"error_code": _CODES.get(status, "UNEXPECTED_ERROR"), "error_message": message}
    return Answer(status, json.dumps(body), headers=headers or {})


def too_many(wait: float, *, told: bool) -> Answer:
    """The 429 of a rate limit; `told` whether it says how long to wait, in seconds."""
    headers = {"retry-after": str(math.ceil(wait))} if told else {}
    return failure(TOO_MANY_REQUESTS, "more operations per second than allowed; nothing was applied", headers)


def faulty(fault: Fault, accepted: Answer) -> Answer:
    """The fault's answer where a call would have been answered with `accepted`."""
    status = fault.status or accepted.status
    answer = accepted if status == accepted.status else failure(status, "injected fault")
    body = "" if status in _WITHOUT_BODY else answer.body if fault.body is None else fault.body
    headers = answer.headers if fault.location is None else {"location": fault.location}
    if fault.retry_after is not None:
        headers = headers | {"retry-after": str(fault.retry_after)}
    return replace(
        answer,
        status=status,
        body=body,
        content_type=fault.content_type or answer.content_type,
        headers=headers,
        delay=fault.delay,
        cut=fault.cut,
    )
