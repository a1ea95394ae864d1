"""The clients of BigQuery: who they sign in as, and where they connect to."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import google.auth
import grpc
from google.api_core import retry
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.oauth2 import service_account

from connector.errors import WarehouseError
from connector.warehouses.bigquery import BigQuery

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_ANSWER_TIMEOUT = 60.0
"""Seconds that one request may take; waiting for a query is many requests."""


class Clients(NamedTuple):
    """Connected as one account."""

    api: bigquery.Client
    storage: BigQueryReadClient | None
    """None: results are paged through the API, which is slower."""
    retry: retry.Retry
    timeout: float
    """Seconds that one request may take."""


@contextmanager
def connected(settings: BigQuery, root: Path, patience: float) -> Iterator[Clients]:
    """The clients, closed when the context ends.

    Raises:
        WarehouseError: There are no credentials, or their file cannot be used.
    """
    credentials = _credentials(settings, root)
    options = {"api_endpoint": settings.api_endpoint} if settings.api_endpoint else None
    with ExitStack() as stack:
        api = bigquery.Client(
            settings.project, credentials=credentials, location=settings.location, client_options=options
        )
        stack.callback(api.close)
        storage = _storage(settings, credentials)
        if storage:
            stack.callback(storage.transport.close)
        # Shorter than the client's own ten minutes, which a run would spend silent.
        again = bigquery.DEFAULT_RETRY.with_timeout(patience)
        yield Clients(api, storage, again, _ANSWER_TIMEOUT)


def _storage(settings: BigQuery, credentials: Credentials) -> BigQueryReadClient | None:
    if not settings.is_emulated:
        options = {"api_endpoint": settings.storage_endpoint} if settings.storage_endpoint else None
        return BigQueryReadClient(credentials=credentials, client_options=options)
    if settings.storage_endpoint is None:
        return None
    # A real answer has 10 MiB at the most; an emulator's may be larger.
    channel = grpc.insecure_channel(settings.storage_endpoint, options=[("grpc.max_receive_message_length", -1)])
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def _credentials(settings: BigQuery, root: Path) -> Credentials:
    if settings.is_emulated:
        return AnonymousCredentials()
    if settings.credentials_file:
        source = _from_file(root / Path(settings.credentials_file).expanduser())
    else:
        source = _default()
    if settings.impersonate_service_account is None:
        return source
    return impersonated_credentials.Credentials(source, settings.impersonate_service_account, list(_SCOPES))


def _from_file(path: Path) -> Credentials:
    try:
        return cast("Credentials", service_account.Credentials.from_service_account_file(str(path), scopes=_SCOPES))
    except OSError as error:
        raise WarehouseError(
            f"the credentials file {path} cannot be read: {error.strerror}",
            remedy="check credentials_file, which is relative to the project folder, and its permissions",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):  # whatever else a JSON document can be
        raise WarehouseError(
            f"the credentials file {path} is not a service account's key",
            remedy="name a JSON key file; for other kinds leave credentials_file out and set "
            "GOOGLE_APPLICATION_CREDENTIALS",
        ) from None


def _default() -> Credentials:
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except DefaultCredentialsError:
        raise WarehouseError(
            "no usable Google credentials were found on this machine",
            remedy="run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or name a "
            "credentials_file",
        ) from None
    return credentials
