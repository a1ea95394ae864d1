"""The Snowflake driver's errors in our words."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import polars as pl
import snowflake.connector as driver

from connector.errors import WarehouseError

_ABOUT_SQL = ("02", "0A", "42", "57")
"""Classes of SQL states whose text is about statements, names and rights; that of any other may quote a row."""

REMEDIES = {
    "": "correct `source` in the sync's YAML",
    "02": "check the name, and that the role may read it",
    "42501": "grant the role the right, or set another `role`",
    "42S02": "check the name, and that the role may read it",
    "57014": "raise the warehouse's `statement_timeout`, or let a larger virtual warehouse read",
    "57P03": "set `warehouse`, the virtual warehouse that computes, and grant its USAGE to the role",
    "08": "look whether Snowflake can be reached, and run again",
    "HY": "look whether Snowflake can be reached, and run again",
    "22": "run it in Snowflake to see the row",
}
"""What to do, by SQL state or its class."""

_NO_DATABASE = (90105, 90106)


@contextmanager
def translated(what: str, remedies: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Raises the driver's errors as ours.

    Args:
        what: The beginning of the message: what cannot be done.
        remedies: What to do, by SQL state, its class, or "" for all others, where it is not what it is for reads.

    Raises:
        WarehouseError: In place of any error of the driver.
    """
    try:
        yield
    except pl.exceptions.PolarsError as error:  # its text quotes values
        reason = f"a chunk's types are not those announced ({type(error).__name__})"
        raise WarehouseError(f"{what}: {reason}", remedy="run again; the table was altered meanwhile") from None
    except OSError as error:  # version 4 lets the errors of its HTTP library through
        reason = f"the connection broke off ({type(error).__name__})"
        raise WarehouseError(f"{what}: {reason}", remedy=REMEDIES["08"]) from None
    except driver.Error as error:
        raise WarehouseError(f"{what}: {_sentence(error)}", remedy=_remedy(error, remedies)) from None


def _state(error: driver.Error) -> str:
    """The SQL state; that of a broken connection where Snowflake gave none."""
    state = error.sqlstate or ""
    return state if re.fullmatch(r"\w{5}", state) else "08000"


def _remedy(error: driver.Error, others: Mapping[str, str]) -> str:
    if error.errno in _NO_DATABASE:
        return "set `database` and `schema`, or write database.schema.table"
    state, remedies = _state(error), {**REMEDIES, **others}
    return remedies.get(state) or remedies.get(state[:2], remedies[""])


def _sentence(error: driver.Error) -> str:
    """Snowflake's own sentence where it is about SQL; otherwise one that holds no value of a row."""
    state = _state(error)
    if state[:2] in _ABOUT_SQL or error.errno in _NO_DATABASE:
        return _one_line(error)
    if state[:2] in ("08", "HY"):
        return f"the connection broke off (code {error.errno})"  # the text may hold a chunk's signed URL
    return f"a value cannot be computed (code {error.errno}, SQL state {state})"


def no_login(error: Exception, options: Mapping[str, Any]) -> WarehouseError:
    """Why there is no session, without the secrets that the driver may quote."""
    what = f"Snowflake '{options.get('connection_name') or options.get('account')}' cannot be logged in to"
    if not isinstance(error, driver.Error):
        if "private_key_file" in options:
            reason, remedy = "the private key does not open", "check private_key_file and private_key_passphrase"
        else:
            reason, remedy = type(error).__name__, "check the warehouse's settings"
        return WarehouseError(f"{what}: {reason}", remedy=remedy)
    said = _one_line(error)
    for name in ("password", "token", "private_key_password"):
        if secret := options.get(name):
            said = said.replace(secret, "…")
    return WarehouseError(f"{what}: {said}", remedy="check the warehouse's settings, and that Snowflake can be reached")


def _one_line(error: Exception) -> str:
    """The text without codes and ids, which the driver puts around it."""
    text = re.sub(r"\s*\((request_id|sfqid)=[^)]*\)$", "", str(error))
    text = re.sub(r"^(\d{6} \(\w{5}\): |\d{6}: |[0-9a-f]{8}-[0-9a-f-]{27}: )+", "", " ".join(text.split()))
    return text.removesuffix(".")
