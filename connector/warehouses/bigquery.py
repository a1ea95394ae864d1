"""BigQuery: one query job a read, its result streamed by the Storage API; load jobs and one script a load."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from connector._model import Duration, Size, is_loopback
from connector.warehouses._base import Needs, WarehouseSettings

if TYPE_CHECKING:
    from connector.warehouses._bigquery import BigQueryReader
    from connector.warehouses._bigquery_diff import BigQueryDiffer
    from connector.warehouses._bigquery_load import BigQueryLoader

PATIENCE = 60.0
"""Seconds of trying again where a request fails that may pass later."""

_LONGEST = timedelta(hours=6)
"""BigQuery ends a query after as long itself."""


def _of_form(pattern: str, sentence: str) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return text

    return checked


def _address(text: str) -> str:
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise ValueError("must be a URL such as https://bigquery.example.com") from None
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https:// (http:// only for this machine)")
    if not host or url.netloc + url.path != url.netloc or re.search(r"[@?#\s\\]", text):
        raise ValueError("must be a host without path, user or query, such as https://bigquery.example.com")
    return text


def _limit(length: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= length <= _LONGEST:
        raise ValueError("must be 1s to 6h; write for instance 30m")
    return length


_Project = Annotated[
    str,
    AfterValidator(
        _of_form(
            r"([a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*",
            "must be a project's id: lower-case letters, digits and '-'; copy it from the Google Cloud console",
        )
    ),
]
_Location = Annotated[
    str, AfterValidator(_of_form(r"[A-Za-z0-9-]+", "must be a location of BigQuery, such as EU or europe-west1"))
]
_Dataset = Annotated[
    str,
    AfterValidator(_of_form(r"\w+", "must be a dataset's name alone: letters, digits and '_'; remove the rest")),
]
_Address = Annotated[str, AfterValidator(_address)]
_HostAndPort = Annotated[
    str, AfterValidator(_of_form(r"(\[[0-9a-f:]+\]|[\w.-]+):\d{1,5}", "must be host:port, such as localhost:9060"))
]
_Email = Annotated[str, AfterValidator(_of_form(r"[^@\s]+@[^@\s]+", "must be a service account's e-mail address"))]


class BigQuery(WarehouseSettings):
    """BigQuery, as the account that Google's application default credentials, a key file or impersonation give."""

    type: Literal["bigquery"]
    project: _Project = Field(description="the id of the project that runs and pays for the queries")
    location: _Location | None = Field(
        default=None, description="where the datasets are, such as EU; found out where left out"
    )
    dataset: _Dataset | None = Field(default=None, description="the dataset of tables that are named without one")
    api_endpoint: _Address | None = Field(
        default=None, description="another address of the API; http:// on this machine only, without signing in"
    )
    storage_endpoint: _HostAndPort | None = Field(default=None, description="another host:port of the Storage API")
    credentials_file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="a service account's key file; relative to the project folder"
    )
    impersonate_service_account: _Email | None = Field(
        default=None, description="the e-mail of the service account to act as"
    )
    maximum_bytes_billed: Size | None = Field(
        default=None, description="a query that would bill more fails, free of charge, such as 100GB"
    )
    timeout: Annotated[Duration, AfterValidator(_limit)] = Field(
        default=timedelta(hours=1), description="of one query, 1s to 6h"
    )

    @property
    def is_emulated(self) -> bool:
        """Whether the API is a stand-in on this machine, to which no credentials are sent."""
        return _is_plain(self.api_endpoint)

    @field_validator("storage_endpoint")
    @classmethod
    def _as_the_api(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        local = endpoint is not None and is_loopback(endpoint.rpartition(":")[0].strip("[]"))
        if endpoint and "api_endpoint" in info.data and local != _is_plain(info.data["api_endpoint"]):
            raise ValueError("must be on this machine where api_endpoint is http://, and only there")
        return endpoint

    @field_validator("credentials_file", "impersonate_service_account")
    @classmethod
    def _only_over_tls(cls, given: str | None, info: ValidationInfo) -> str | None:
        if given and _is_plain(info.data.get("api_endpoint")):
            raise ValueError("not allowed beside an api_endpoint of http://, which nobody signs in to; remove one")
        return given

    @contextmanager
    def open(
        self,
        root: Path,
        *,
        memory: int | None = None,  # noqa: ARG002 - BigQuery computes elsewhere
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> "Iterator[BigQueryReader]":
        """Find the credentials; the first request is that of the first read.

        Args:
            root: The project folder; `credentials_file` is relative to it.
            memory: Not used.
            spill: Not used.
            tags: What this is read for, such as the sync and the run: labels of each job, for the bill.
            patience: Seconds of trying again where a request fails that may pass later.

        Raises:
            WarehouseError: There are no credentials, or their file cannot be used.
        """
        from connector.warehouses import _bigquery, _bigquery_client  # noqa: PLC0415 - settings load fast

        with _bigquery_client.connected(self, root, patience) as clients:
            reader = _bigquery.BigQueryReader(self, clients, tags or {})
            try:
                yield reader
            finally:
                reader.close()

    @contextmanager
    def load_into(
        self,
        root: Path,
        *,
        memory: int | None = None,  # noqa: ARG002
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> "Iterator[BigQueryLoader]":
        """Find the credentials; the first request is that of the first load.

        Args:
            root: As for `open`, like those that follow.
            memory: Not used.
            spill: Not used.
            tags: As for `open`.
            patience: As for `open`.

        Raises:
            WarehouseError: There are no credentials, or their file cannot be used.
        """
        from connector.warehouses import _bigquery_client, _bigquery_load  # noqa: PLC0415

        with _bigquery_client.connected(self, root, patience) as clients:
            yield _bigquery_load.BigQueryLoader(self, clients, tags or {})

    @contextmanager
    def diff_in(
        self,
        root: Path,
        *,
        memory: int | None = None,  # noqa: ARG002
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,
        write: bool = True,
    ) -> "Iterator[BigQueryDiffer]":
        """Find the credentials, to compare.

        Args:
            root: As for `open`, like those that follow.
            memory: Not used.
            spill: Not used.
            tags: As for `open`.
            write: Whether what is made is to stay longer than a day.

        Raises:
            WarehouseError: There are no credentials, or their file cannot be used.
        """
        from connector.warehouses import _bigquery, _bigquery_client, _bigquery_diff  # noqa: PLC0415

        with _bigquery_client.connected(self, root, PATIENCE) as clients:
            reader = _bigquery.BigQueryReader(self, clients, tags or {})
            try:
                yield _bigquery_diff.BigQueryDiffer(self, clients, reader, tags or {}, write=write)
            finally:
                reader.close()

    def grants(self, needs: Needs) -> list[str]:
        """See `WarehouseSettings.grants`.

        Raises:
            WarehouseError: A table's name is malformed, or names no dataset where there is no default.
        """
        from connector.warehouses import _bigquery_grants  # noqa: PLC0415

        return _bigquery_grants.granted(self, needs)


def _is_plain(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith("http://")
