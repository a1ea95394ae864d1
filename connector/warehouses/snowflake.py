"""Snowflake: a session that only reads, or one that loads, opened for a run and closed as soon as that ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from connector._model import Duration, KeptSecret, MistakeError, is_loopback
from connector.errors import WarehouseError
from connector.warehouses._base import Needs, WarehouseSettings

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from connector.warehouses._snowflake import SnowflakeReader
    from connector.warehouses._snowflake_diff import SnowflakeDiffer
    from connector.warehouses._snowflake_load import SnowflakeLoader

APPLICATION = "batch-warehouse-connector"
"""What Snowflake's history calls a statement, beside its sync and run."""

_LONGEST = timedelta(days=7)
_CREDENTIALS = ("password", "private_key_file", "token", "workload_identity_provider")
_IN_THE_FILE = ("account", "user", *_CREDENTIALS, "private_key_passphrase", "authenticator", "host", "port")
_PASSED_ON = ("connection_name", "account", "user", "role", "warehouse", "database", "host", "port")


def _account(text: str) -> str:
    if "/" in text or text.lower().endswith("snowflakecomputing.com"):
        raise ValueError("must be the account's identifier, such as myorg-myaccount; leave out the rest of the address")
    return text


def _timeout(length: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= length <= _LONGEST:
        raise ValueError("must be from 1s to 7d, such as 1h")
    return length


Name = Annotated[str, Field(min_length=1)]


class Snowflake(WarehouseSettings):
    """A Snowflake account: a connection of `connections.toml`, or an account, a user and one way to log in."""

    stamp_seconds: ClassVar[int] = 300  # each look logs in

    type: Literal["snowflake"]
    connection_name: Name | None = Field(default=None, description="a connection of Snowflake's connections.toml")
    account: Annotated[Name, AfterValidator(_account)] | None = Field(
        default=None, description="the account's identifier, such as myorg-myaccount"
    )
    user: Name | None = Field(default=None, description="who logs in")
    password: KeptSecret | None = Field(
        default=None, description="where the password is kept: {env: NAME} or {file: PATH}"
    )
    private_key_file: Name | None = Field(default=None, description="a PKCS#8 key; relative to the project folder")
    private_key_passphrase: KeptSecret | None = Field(
        default=None, description="where the key's passphrase is kept: {env: NAME} or {file: PATH}"
    )
    token: KeptSecret | None = Field(default=None, description="where a token is kept: {env: NAME} or {file: PATH}")
    authenticator: Literal["oauth", "programmatic_access_token"] | None = Field(
        default=None, description="what the token is"
    )
    workload_identity_provider: Literal["AWS", "AZURE", "GCP", "OIDC"] | None = Field(
        default=None, description="whose identity this machine has; OIDC needs a token"
    )
    role: Name | None = Field(default=None, description="the role; the user's default without it")
    warehouse: Name | None = Field(default=None, description="the virtual warehouse that computes")
    database: Name | None = Field(default=None, description="the database of names that say none")
    schema_: Name | None = Field(default=None, alias="schema", description="the schema of names that say none")
    host: Name | None = Field(default=None, description="another host than the account's, for a private link")
    port: int | None = Field(default=None, ge=1, le=65535, description="another port than 443")
    protocol: Literal["https", "http"] = Field(default="https", description="http on this machine only")
    statement_timeout: Annotated[Duration, AfterValidator(_timeout)] = Field(
        default=timedelta(hours=1), description="how long Snowflake may work at one statement"
    )

    @contextmanager
    def open(
        self,
        root: Path,
        *,
        memory: int | None = None,  # noqa: ARG002 - Snowflake computes elsewhere
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,
    ) -> "Iterator[SnowflakeReader]":
        """Log in; the session ends with the context, whatever was left half read.

        Args:
            root: The project folder; the files of keys and secrets are relative to it.
            memory: Not used.
            spill: Not used.
            tags: What Snowflake's history says of each statement beside our name: the sync and the run.

        Raises:
            ConfigError: A secret is missing.
            WarehouseError: Snowflake cannot be reached, or refuses the login.
        """
        from connector.warehouses import _snowflake  # noqa: PLC0415 - settings load where a start must be quick

        reader = _snowflake.SnowflakeReader(self._connected(root, tags))
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
    ) -> "Iterator[SnowflakeLoader]":
        """Log in, to write; the session ends with the context, and with it what was not committed.

        Args:
            root: As for `open`, like those that follow.
            memory: Not used.
            spill: Not used.
            tags: As for `open`.

        Raises:
            ConfigError: A secret is missing.
            WarehouseError: Snowflake cannot be reached, or refuses the login.
        """
        from connector.warehouses import _snowflake_load  # noqa: PLC0415

        loader = _snowflake_load.SnowflakeLoader(self._connected(root, tags))
        try:
            yield loader
        finally:
            loader.close()

    @contextmanager
    def diff_in(
        self,
        root: Path,
        *,
        memory: int | None = None,  # noqa: ARG002
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,
        write: bool = True,  # noqa: ARG002 - what a plan makes it drops
    ) -> "Iterator[SnowflakeDiffer]":
        """Log in, to compare; the session ends with the context.

        Args:
            root: As for `open`, like those that follow.
            memory: Not used.
            spill: Not used.
            tags: As for `open`.
            write: Not used.

        Raises:
            ConfigError: A secret is missing.
            WarehouseError: Snowflake cannot be reached, or refuses the login.
        """
        from connector.warehouses import _snowflake, _snowflake_diff  # noqa: PLC0415

        connection = self._connected(root, tags)
        reader = _snowflake.SnowflakeReader(connection)
        try:
            yield _snowflake_diff.SnowflakeDiffer(connection, reader, self.state_schema)
        finally:
            reader.close()

    def grants(self, needs: Needs) -> list[str]:
        """See `WarehouseSettings.grants`.

        Raises:
            WarehouseError: A table's name is malformed.
        """
        from connector.warehouses import _snowflake_grants  # noqa: PLC0415

        return _snowflake_grants.granted(self, needs)

    def _connected(self, root: Path, tags: Mapping[str, str] | None) -> "SnowflakeConnection":
        from connector.warehouses import _snowflake  # noqa: PLC0415

        seconds = int(self.statement_timeout.total_seconds())
        return _snowflake.connect(self._options(root), {"app": APPLICATION, **(tags or {})}, seconds)

    def _options(self, root: Path) -> dict[str, Any]:
        """The driver's own names for what it is to log in with."""
        secrets = {
            "password": self.password,
            "token": self.token,
            "private_key_password": self.private_key_passphrase,
        }
        options = {
            **{name: getattr(self, name) for name in _PASSED_ON},
            **{name: kept.read(root).get_secret_value() for name, kept in secrets.items() if kept},
            "schema": self.schema_,
            "authenticator": self.authenticator and self.authenticator.upper(),
            "protocol": self.protocol if self.protocol != "https" else None,
        }
        if self.private_key_file:
            options |= {"authenticator": "SNOWFLAKE_JWT", "private_key_file": _key_file(root, self.private_key_file)}
        if self.workload_identity_provider:
            provider = self.workload_identity_provider
            options |= {"authenticator": "WORKLOAD_IDENTITY", "workload_identity_provider": provider}
        return {name: value for name, value in options.items() if value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.connection_name:
            for name in _IN_THE_FILE:
                if getattr(self, name) is not None:
                    raise MistakeError(f"the connection of connections.toml gives {name}; keep one of the two", name)
            return self
        if not self.account:
            raise MistakeError("needs connection_name, or account and a way to log in; write one of the two")
        self._one_way_to_log_in()
        if self.protocol == "http" and not is_loopback(self.host or ""):
            raise MistakeError("must be https; http is for a host on this machine only", "protocol")
        return self

    def _one_way_to_log_in(self) -> None:
        given = [name for name in _CREDENTIALS if getattr(self, name) is not None]
        if self.workload_identity_provider == "OIDC":
            if self.token is None:
                raise MistakeError("OIDC needs a token; write token: {env: NAME} or {file: PATH}")
            given.remove("token")
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise MistakeError(f"needs exactly one of {', '.join(_CREDENTIALS)}, got {got}; keep one")
        if (given == ["token"]) != bool(self.authenticator):
            raise MistakeError("token and authenticator (oauth or programmatic_access_token) need each other")
        if self.private_key_passphrase and given != ["private_key_file"]:
            raise MistakeError("belongs to a private_key_file; remove it", "private_key_passphrase")
        nameless = self.workload_identity_provider or self.authenticator == "oauth"
        if self.user is None and not nameless:
            raise MistakeError("needs user; write who logs in")


def _key_file(root: Path, path: str) -> str:
    file = (root / Path(path).expanduser()).resolve()
    try:
        file.open("rb").close()
    except OSError as error:
        raise WarehouseError(
            f"the private key {file} cannot be read: {error.strerror}",
            remedy=f"check private_key_file, which is relative to the project folder {root.resolve()}",
        ) from None
    return str(file)
