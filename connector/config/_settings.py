"""The models of `connector.yaml`: what every sync of a project shares."""

import re
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from connector._model import KeptSecret, MistakeError, Model, Size, is_loopback
from connector.api._http import Limits
from connector.config._scalars import BoundedDuration, PositiveDuration, Text, short_form
from connector.warehouses import Warehouse

BASE_URL = "https://api.batch.com/2.11"
"""The version of the Profile API that the code is written against."""


def _base_url(text: str) -> str:
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise ValueError(f"must be a URL such as {BASE_URL}") from None
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise ValueError(f"must begin with https:// (http:// only for this machine), such as {BASE_URL}")
    if not host or "@" in url.netloc or re.search(r"[?#\s\\]", text):
        raise ValueError(f"must be a host and a path without user, query or spaces, such as {BASE_URL}")
    if not re.search(r"/\d+\.\d+$", url.path):
        raise ValueError(f"must end in the version of the API and no slash, such as {BASE_URL}")
    return text


def _warehouse_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", name):
        raise ValueError("a warehouse's name is 1 to 60 lower-case letters, digits, '_' and '-'; rename it")
    return name


_BUCKET = "s3://BUCKET/PREFIX"
_BUCKET_OPTIONS = {"region", "endpoint_override", "scheme"}
_SCHEMES = {("https", False), ("https", True), ("http", True)}  # and whether it is on this machine


def _files(text: str) -> str:
    return _bucket(text) if "://" in text else text


def _bucket(text: str) -> str:
    if not text.startswith("s3://"):
        raise ValueError(
            f"must be a folder or {_BUCKET}; other object storages are not available yet, and a database is named by "
            "{database: {env: NAME}, files: …}"
        )
    try:
        url = urlsplit(text)
        options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        host = urlsplit(f"//{options.get('endpoint_override', '')}").hostname or ""
    except ValueError:
        raise ValueError(f"must be of the form {_BUCKET}?region=REGION") from None
    if re.search("[@:]", url.netloc):
        raise ValueError(f"must be {_BUCKET} without keys, which are read from the environment, a profile or a role")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", url.netloc) or url.fragment:
        raise ValueError(f"must be of the form {_BUCKET}: a bucket's name is 3 to 63 of a-z, 0-9, '.' and '-'")
    if not re.fullmatch(r"(/[A-Za-z0-9!_.*'()=-]+)+", url.path.rstrip("/")):
        raise ValueError(f"must be {_BUCKET} with a prefix of the project's own, of letters, digits, '_', '-' and '.'")
    if not options.keys() <= _BUCKET_OPTIONS or not all(options.values()):
        raise ValueError("may end in ?region=…, &endpoint_override=HOST:PORT and &scheme=http, and in nothing else")
    if (options.get("scheme", "https"), is_loopback(host)) not in _SCHEMES:
        raise ValueError("may have scheme=http only with an endpoint_override on this machine")
    return text


def _schema_name(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError("a schema's name is 1 to 63 lower-case letters, digits and '_', the first no digit; rename it")
    return name


class StateSettings(Model):
    """Where the project remembers what was delivered and what is due."""

    files: Annotated[str, Field(min_length=1), AfterValidator(_files)] = Field(
        description="the folder; with a database one that all hosts share, or s3://BUCKET/PREFIX"
    )
    database: KeptSecret | None = Field(
        default=None,
        description="where the URL of a PostgreSQL database that several hosts share is kept, "
        "postgresql://USER:PASSWORD@HOST/DATABASE: {env: NAME} or {file: PATH}",
    )
    schema_: Annotated[str, AfterValidator(_schema_name)] = Field(
        default="batch_connector", alias="schema", description="the schema of the database that is this project's own"
    )
    cache: Annotated[str, Field(min_length=1, pattern="^[^:]*$")] = Field(
        default=".connector", description="with files in a bucket: the folder of this host that keeps copies of them"
    )

    @property
    def bucket(self) -> str | None:
        """The URI of the bucket of the files; None where they lie in a folder."""
        return self.files if "://" in self.files else None

    @model_validator(mode="after")
    def _schema_is_of_a_database(self) -> Self:
        if self.database is None and "schema_" in self.model_fields_set:
            raise MistakeError("has no meaning without a database; remove it or add `database`", "schema")
        return self

    @model_validator(mode="after")
    def _bucket_needs_a_database(self) -> Self:
        if self.bucket and self.database is None:
            raise MistakeError("a bucket cannot hold the database too; add `database`, or name a folder", "files")
        if self.bucket is None and "cache" in self.model_fields_set:
            raise MistakeError("has no meaning where the files lie in a folder; remove it", "cache")
        return self


StateOrFolder = Annotated[
    StateSettings, BeforeValidator(short_form("files", "a folder"), json_schema_input_type=StateSettings | Text)
]
"""Where the state is, or its folder alone."""


class BatchSettings(Model):
    """How to reach the project at Batch."""

    project_key: KeptSecret = Field(description="where the project key is kept: {env: NAME} or {file: PATH}")
    rest_key: KeptSecret = Field(description="where the REST API key is kept: {env: NAME} or {file: PATH}")
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default=BASE_URL, description="the API's address with its version; http:// on this machine only"
    )
    limits: Limits = Field(default=Limits(), description="rates and sizes; the documented ones by default")


class DeliverySettings(Model):
    """How requests are sent, and when a run gives up."""

    in_flight: int = Field(default=8, ge=1, le=64, description="requests at once")
    timeout: PositiveDuration = Field(default=timedelta(seconds=60), description="of a whole request")
    give_up_after: PositiveDuration = Field(
        default=timedelta(minutes=2), description="outage until a run ends incomplete"
    )
    quiet: BoundedDuration = Field(
        default=timedelta(minutes=15), description="how late a timed-out write may still land"
    )


class Alerts(Model):
    """Where a sync that turns bad or good is told."""

    webhook: KeptSecret | None = Field(
        default=None, description="where the webhook's URL is kept: {env: NAME} or {file: PATH}"
    )


class ProjectSettings(Model):
    """`connector.yaml`: what every sync of the project shares."""

    batch: BatchSettings = Field(description="how to reach the project at Batch")
    memory: Size = Field(
        default=10**9,
        validate_default=False,
        description="ceiling of what a run holds of its source, in bytes; beyond it, it spills to disk",
    )
    state: StateOrFolder = Field(
        default=StateSettings(files=".connector"),
        description="what was delivered and what is due: its folder, or {database, files, schema, cache}",
    )
    warehouses: dict[
        Annotated[str, AfterValidator(_warehouse_name), Field(json_schema_extra={"pattern": "^[a-z0-9_-]{1,60}$"})],
        Warehouse,
    ] = Field(min_length=1, description="the warehouses by name; at least one")
    delivery: DeliverySettings = Field(default=DeliverySettings(), description="how requests are sent")
    alerts: Alerts = Field(default=Alerts(), description="where failures are told")

    @field_validator("warehouses")
    @classmethod
    def _told_apart(cls, value: dict[str, Warehouse]) -> dict[str, Warehouse]:
        for name in value:
            other = name.replace("-", "__")
            if other != name and other in value:
                raise MistakeError(f"'{name}' and '{other}' would be one name in Dagster; rename one of them", name)
        return value
