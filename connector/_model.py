"""The strict, frozen base of every settings model, and the scalar types that YAML needs."""

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from connector.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""The way to a value of a YAML file: `("attributes", "plan", "on_null")`."""

_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Model(BaseModel):
    """Frozen, no unknown keys, and errors that never echo what was put in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class MistakeError(ValueError):
    """A broken rule found by a model's own check, with the way from that model to the guilty value."""

    def __init__(self, sentence: str, *path: str | int) -> None:
        super().__init__(sentence)
        self.path: KeyPath = path


def kind_of(value: object) -> str:
    """What sort of thing a YAML value is; never the value itself."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+)\s*(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("a duration is a whole number and a unit: ms, s, m, h or d, such as 15m")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError("a duration is at most some years") from None


def _share(value: object) -> object:
    if isinstance(value, float):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    if not match or float(match[1]) > 100:  # noqa: PLR2004
        raise ValueError("a share is a percentage from 0% to 100%, such as 50%")
    return float(match[1]) / 100


def _size(value: object) -> object:
    match = re.fullmatch(r"([1-9][0-9]{0,5})\s*([kMG]i?B|KiB)", value) if isinstance(value, str) else None
    if not match or match[2] not in _SIZES:
        raise ValueError("must be a whole number and a unit, kB, MB or GB, such as 1GB")
    return int(match[1]) * _SIZES[match[2]]


type_pattern = r"^\d+\s*(ms|s|m|h|d)$"
Duration = Annotated[
    timedelta, BeforeValidator(_duration, json_schema_input_type=Annotated[str, Field(pattern=type_pattern)])
]
"""A length of time, written `15m`, `60s`, `7d`."""

Share = Annotated[
    float, BeforeValidator(_share, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$")])
]
"""A fraction from 0 to 1, written as a percentage: `50%`."""


Size = Annotated[
    int,
    BeforeValidator(_size, json_schema_input_type=Annotated[str, Field(pattern=r"^[1-9][0-9]*\s*([kMG]B|[KMG]iB)$")]),
]
"""A number of bytes, written `512MB`."""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exceeds(count: int, share: float, whole: int) -> bool:
    """Whether `count` is above that share of `whole`; at it is not above it, whatever floats make of 29 %."""
    return count > share * whole * (1 + 1e-12)


def _sendable(secret: str, where: str) -> SecretStr:
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"{where} holds a character that is not printable ASCII",
            remedy="copy it again: it is plain ASCII on one line; in a URL other characters are percent-encoded",
        )
    return SecretStr(secret)


class EnvSecret(Model):
    """The name of an environment variable that holds a secret."""

    env: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

    def read(self, root: Path) -> SecretStr:  # noqa: ARG002
        """The variable's value, without surrounding white space.

        Raises:
            ConfigError: The variable is missing or empty.
        """
        value = os.environ.get(self.env, "").strip().lstrip("\ufeff")
        if not value:
            raise ConfigError(
                f"the environment variable {self.env} is {'empty' if self.env in os.environ else 'not set'}",
                remedy=f"set it, for instance: export {self.env}=…",
            )
        return _sendable(value, f"the environment variable {self.env}")


class FileSecret(Model):
    """The path of a file that holds a secret; relative to the project folder."""

    file: Annotated[str, Field(min_length=1)]

    def read(self, root: Path) -> SecretStr:
        """The file's text, without surrounding white space.

        Raises:
            ConfigError: The file is missing, unreadable or empty.
        """
        try:
            value = (root / self.file).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the secret file '{self.file}' cannot be read: {type(error).__name__}",
                remedy="check the path, which is relative to the project folder, and its permissions",
            ) from None
        if not value:
            raise ConfigError(f"the secret file '{self.file}' is empty", remedy="put the secret into it")
        return _sendable(value, f"the secret file '{self.file}'")


Secret = EnvSecret | FileSecret
"""Where a secret is kept; never the secret itself."""


def _kept_elsewhere(value: object) -> object:
    match value:
        case EnvSecret() | FileSecret():
            return value
        case {"env": str(name), **others} if not others:
            if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                return value
            raise MistakeError("must be the name of an environment variable: letters, digits and '_'", "env")
        case {"file": str(path), **others} if path and not others:
            return value
    raise ValueError(
        f"must be {{env: NAME}} or {{file: PATH}}, got {kind_of(value)}; a secret never stands in the file"
    )


KeptSecret = Annotated[Secret, BeforeValidator(_kept_elsewhere)]
"""Where a secret is kept; what is wrong about it is said without showing it."""
