"""BigQuery's errors in our words: by reason and class, and never with a value of a row."""

from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

import pyarrow as pa
import requests
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError

from connector.errors import WarehouseError

FAILURES = (api.GoogleAPIError, GoogleAuthError, requests.RequestException, FutureTimeoutError, pa.ArrowInvalid)
"""What the client libraries raise."""

STOPPED = "the query took longer than the warehouse's `timeout` allows, or was cancelled"
_RAISE_TIMEOUT = "raise `timeout`, or let the query read less"
_SEE_ROLES = (
    "grant the account BigQuery Job User and BigQuery Read Session User on the project, and BigQuery Data Viewer on "
    "what it reads"
)

_BY_REASON = {
    "bytesBilledLimitExceeded": "let the query read less, or raise maximum_bytes_billed",
    "quotaExceeded": "wait, or raise the project's quota in the Google Cloud console",
    "billingNotEnabled": "enable billing for the project",
    "accessDenied": _SEE_ROLES,
    "resourcesExceeded": "make the query simpler, or a table of its result",
    "responseTooLarge": "make the query's result smaller, or a table of it",
}
"""The remedy of reasons whose message is about resources, never about rows."""

_BY_CLASS: tuple[tuple[type[api.GoogleAPICallError], str], ...] = (
    (api.Unauthorized, "check the credentials"),
    (api.Forbidden, _SEE_ROLES),
    (api.NotFound, "check project, location, dataset and the names in the source"),
    (api.TooManyRequests, "run again later"),
)
"""The same by class, for errors without a reason: those of the Storage API."""


@contextmanager
def translated(what: str, *, rows: bool = True) -> Iterator[None]:
    """Raises a client's error as ours.

    Args:
        what: The beginning of the message: what cannot be done.
        rows: Whether rows were read, whose values an error may quote.

    Raises:
        WarehouseError: In place of any error of a client.
    """
    try:
        yield
    except FAILURES as error:
        sentence, remedy = _told(error, rows=rows)
        raise WarehouseError(f"{what}: {sentence}", remedy=remedy) from None


def reason(error: Exception) -> str:
    """BigQuery's own word for what went wrong; empty where it has none."""
    return _detail(error, "reason")


def _told(error: Exception, *, rows: bool) -> tuple[str, str]:
    """The sentence and the remedy."""
    if isinstance(error, api.RetryError) and error.cause is not None:
        return _told(error.cause, rows=rows)
    said, why = _said(error), reason(error)
    if why == "stopped" or isinstance(error, FutureTimeoutError):
        return STOPPED, _RAISE_TIMEOUT
    if why in _BY_REASON:
        return said, _BY_REASON[why]
    for class_, remedy in _BY_CLASS:
        if isinstance(error, class_):
            return said, remedy
    match error:
        case api.BadRequest() if not rows:
            return said, "correct `source` in the sync's YAML"
        case api.BadRequest():
            return f"the query failed while it ran ({why or 'invalid'})", f"see the row in {_job(error)}"
        case api.GoogleAPICallError():
            return f"BigQuery failed ({why or type(error).__name__})", f"run again later; see {_job(error)}"
        case TransportError() | requests.RequestException():
            return f"BigQuery cannot be reached ({type(error).__name__})", "check the network, proxy and api_endpoint"
        case GoogleAuthError():
            return f"Google refuses the credentials ({type(error).__name__})", "make new ones, or check their rights"
        case _:
            return f"the answer broke off ({type(error).__name__})", "run again"


def _job(error: Exception) -> str:
    """Where BigQuery keeps the whole story."""
    job = getattr(error, "query_job", None)
    return f"BigQuery's job {job.project}:{job.location}.{job.job_id}" if job else "BigQuery's job history"


def _said(error: Exception) -> str:
    """BigQuery's own sentence on one line, without the address and the query that the client adds to it."""
    text = _detail(error, "message") or getattr(error, "message", "") or type(error).__name__
    return " ".join(str(text).split()).removesuffix(".")


def _detail(error: Exception, key: str) -> str:
    details = getattr(error, "errors", None) or [{}]
    return str(details[0].get(key, "")) if isinstance(details[0], dict) else ""
