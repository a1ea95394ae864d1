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

_SEE_ROLES = (
    "grant the account BigQuery Job User and BigQuery Read Session User on the project, and BigQuery Data Viewer on "
    "what it reads"
)

_SEE_ROLES_TO_WRITE = (
    "grant the account BigQuery Job User on the project, and BigQuery Data Editor on the table's dataset, which has to "
    "be there"
)

_SEE_ROLES_TO_COMPARE = (
    "grant the account BigQuery Job User on the project, Data Viewer on the source and Data Editor on "
    "that dataset, or on the project for it to be made; or set engine: local in the sync"
)

_RAISE_TIMEOUT = "raise the warehouse's `timeout`, or let the query read less"

_BY_REASON = {
    "stopped": _RAISE_TIMEOUT,
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


_UNSAID: tuple[tuple[type[Exception], str, str], ...] = (
    (FutureTimeoutError, "the query took longer than `timeout` allows", _RAISE_TIMEOUT),
    (api.BadRequest, "the query failed while it ran ({why})", "see the row in {job}"),
    (api.GoogleAPICallError, "BigQuery failed ({why})", "run again later; see {job}"),
    (TransportError, "Google cannot be reached ({why})", "check the network and the proxy"),
    (GoogleAuthError, "Google refuses the credentials ({why})", "make new ones, or check the account's rights"),
    (requests.RequestException, "BigQuery cannot be reached ({why})", "check the network, the proxy and api_endpoint"),
    (Exception, "the answer broke off ({why})", "run again"),
)
"""The sentence and the remedy of everything else, whose own message may quote rows, queries or addresses."""


@contextmanager
def translated(what: str, *, rows: bool = True, writing: bool = False, comparing: bool = False) -> Iterator[None]:
    """Raises a client's error as ours.

    Args:
        what: The beginning of the message: what cannot be done.
        rows: Whether rows were read, whose values an error may quote.
        writing: Whether rights to write are what may lack.
        comparing: Whether those of `engine: warehouse` are.

    Raises:
        WarehouseError: In place of any error of a client.
    """
    try:
        yield
    except FAILURES as error:
        sentence, remedy = _told(error, rows=rows)
        if writing and remedy == _SEE_ROLES:
            remedy = _SEE_ROLES_TO_COMPARE if comparing else _SEE_ROLES_TO_WRITE
        raise WarehouseError(f"{what}: {sentence}", remedy=remedy) from None


def _told(error: Exception, *, rows: bool) -> tuple[str, str]:
    """The sentence and the remedy."""
    if isinstance(error, api.RetryError) and error.cause is not None:
        return _told(error.cause, rows=rows)
    reason = _detail(error, "reason")
    remedy = _BY_REASON.get(reason) or next((remedy for class_, remedy in _BY_CLASS if isinstance(error, class_)), None)
    if isinstance(error, api.BadRequest) and not rows:
        remedy = remedy or "correct `source` in the sync's YAML"
    if remedy:
        return _said(error), remedy
    sentence, advice = next(words for class_, *words in _UNSAID if isinstance(error, class_))
    why = reason or type(error).__name__
    return sentence.format(why=why), advice.format(job=_job(error))


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
