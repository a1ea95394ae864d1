"""The state's tables in PostgreSQL, so that several hosts share them: all that differs from SQLite, but the clocks.

What SQLite gives by having one writer holds here too: every transaction that writes begins with one advisory lock of
its state, and each statement in it sees what the one before it committed. All settings are the transaction's own, so
that a pooler between us and the server does no harm.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from connector.errors import ConfigError, StateError

PATIENCE_SECONDS = 30
"""How long a writer waits for the one before it."""

_FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+"  # a password with a bare '@' or '/' would reach into it

# A server that is gone is noticed in a minute, instead of a run that hangs. Nothing is prepared: poolers forget it.
_CONNECTION = {
    "application_name": "batch-connector",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "prepare_threshold": None,
}

_REMEDIES = {
    "25006": "name the server that takes writes in the URL of state.database",
    "28000": "correct the user in the URL of state.database",
    "28P01": "correct the password in the URL of state.database",
    "3D000": "make the database, or correct its name in the URL of state.database",
    "3F000": "let the role create the schema, or create it and make the role its owner",
    "42501": "let the role create the schema, or create it and make the role its owner",
    "53100": "free the server's disk, then run again: nothing is lost",
    "55P03": "another process writes to it: wait for it, or stop it, then run again",
}
"""What to do, by SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html."""

_FILES = ("state.db", "snapshots/*/*", "ledger/*/*")
"""What shows that a folder is in use."""

_OF_VALUES = ("22", "23")
"""Classes of errors whose words may hold values."""


class Server(NamedTuple):
    """Where a state's tables are.

    Attributes:
        url: Of the database; shown without its password.
        schema: Of this state's own, a plain lower-case name.
        bucket: The URI of the bucket that holds the state's files; None: its folder does.
    """

    url: sa.URL
    schema: str
    bucket: str | None = None

    def __str__(self) -> str:
        """Schema, database and host; neither user nor password."""
        return f"{self.schema} of {self.url.database} on {self.url.host or self.url.query.get('host')}"


class AnyText(sa.TypeDecorator[str]):
    """Text of people's data, in which U+0000 may stand: SQLite takes it, PostgreSQL does not; in order of its bytes."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[str]:
        """The order does not depend on where the server was set up."""
        return sa.Text(collation="C") if dialect.name == "postgresql" else sa.Text()

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """U+0000 as U+0001 and 0, U+0001 as U+0001 and 1."""
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\x01", "\x011").replace("\0", "\x010")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """As it was."""
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\x010", "\0").replace("\x011", "\x01")


def server(url: str, schema: str) -> Server:
    """The server of a URL.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, with options of libpq such as `?sslmode=verify-full`.
        schema: A plain lower-case name.

    Raises:
        ConfigError: It is no such URL; nothing of it is repeated, as it may hold a password in any place.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the port is no number
        parsed = sa.make_url("other://")
    host = parsed.host or "socket" * ("host" in parsed.query)
    is_postgres = parsed.drivername in ("postgresql", "postgres")
    if not is_postgres or not parsed.database or not re.fullmatch(_HOST, host):
        raise ConfigError(
            f"state.database: the URL that is kept there is not of the form {_FORM}",
            remedy="correct it; write '@', '/', ':' and '%' of a user or password as %40, %2F, %3A and %25",
        )
    return Server(parsed.set(drivername="postgresql+psycopg"), schema)


def engine(where: Server) -> sa.Engine:
    """Connections to the server, made when they are needed.

    Raises:
        StateError: The driver is not installed.
    """
    try:
        made = sa.create_engine(where.url, hide_parameters=True, pool_pre_ping=True, connect_args=_CONNECTION)
    except sa.exc.ArgumentError:  # NoSuchModuleError, too: of a plugin that the URL asks for
        raise StateError(
            f"the URL of state.database has options that the driver does not take, for {where}",
            remedy="correct what stands behind the '?'; nothing of it is shown, as it may hold a password",
        ) from None
    except ModuleNotFoundError:
        raise StateError(
            "a state in PostgreSQL needs the driver psycopg 3, which is not installed",
            remedy="install it: pip install 'batch-warehouse-connector[postgres]'",
        ) from None
    path = f'SET LOCAL search_path TO "{where.schema}"'
    read = f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; {path}"
    number = int.from_bytes(hashlib.blake2b(where.schema.encode(), digest_size=8).digest(), "big", signed=True)
    mode = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"  # what it sees must not be older than the lock
    patience = f"SET LOCAL lock_timeout TO '{PATIENCE_SECONDS}s'"
    write = f"{mode}; {path}; {patience}; SELECT pg_advisory_xact_lock({number})"

    @sa.event.listens_for(made, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(read if connection.get_execution_options().get("reads", False) else write)

    return made


def has_state(where: Server) -> bool:
    """Whether the server, which is reached, has the state's tables: a schema may have been made for them before."""
    connections = engine(where)
    try:
        with connections.connect().execution_options(reads=True) as connection:
            found = connection.execute(sa.select(sa.func.to_regclass(f"{where.schema}.meta").is_not(None)))
            return bool(found.scalar_one())
    finally:
        connections.dispose()


def make_schema(connection: sa.Connection, schema: str) -> None:
    """Make the state's schema where there is none: a role that may not make one can use what was made for it."""
    if not _is_there(connection, schema):
        connection.execute(sa.schema.CreateSchema(schema))


def _is_there(connection: sa.Connection, schema: str) -> bool:
    return bool(connection.execute(sa.select(sa.func.to_regnamespace(schema).is_not(None))).scalar_one())


class Place(NamedTuple):
    """Where files lie, that a state may claim.

    Attributes:
        name: For messages, such as "state folder '/mnt/shared'".
        key: The key of the YAML that names it.
        mark: What the state that claimed it wrote there; None: nothing did.
        used: Whether files lie there.
    """

    name: str
    key: str
    mark: str | None
    used: bool


def claim(place: Place, owner: str, where: Server, *, new: bool) -> str | None:
    """The mark to write, so that the place is the one of this state's files; None where it is there.

    Two states in one place would remove each other's files.

    Args:
        place: Of the files.
        owner: Stands for the state; not a secret.
        where: Its tables.
        new: The state has just been made, so that a place without files becomes its own.

    Raises:
        StateError: It is another state's, or one that this state's files do not lie in.
    """
    found, there, *_ = [*(place.mark or "").splitlines(), "", ""]  # or cut by a crash
    if found == owner:
        return None
    if not new and not found:
        raise StateError(
            f"the {place.name} lacks the files of the state in state.database",
            remedy=f"name the one in {place.key} that all hosts share, or restore it from a backup",
        )
    # A first run that was killed leaves its mark, and no state.
    if not new or there not in ("", str(where)) or place.used:
        raise StateError(
            f"the {place.name} belongs to another state than that of state.database",
            remedy=f"name another one in {place.key}, or restore the database that belongs to this one",
        )
    return f"{owner}\n{where}\n"


def claim_folder(folder: Path, owner: str, where: Server, *, new: bool) -> None:
    """Claim the folder, which is a cache where the files lie in a bucket; as `claim`."""
    mark = folder / "owner"
    kind, key = ("cache folder", "state.cache") if where.bucket else ("state folder", "state.files")
    used = any(next(folder.glob(files), None) for files in _FILES)
    place = Place(f"{kind} '{folder}'", key, mark.read_text() if mark.exists() else None, used)
    if text := claim(place, owner, where, new=new):
        with os.fdopen(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            os.fsync(file.fileno())


def host() -> str:
    """This host, and this container on it: what tells whether a process number means anything here."""
    name, namespace = os.uname().nodename, Path("/proc/self/ns/pid")
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not (namespace.is_symlink() and boot.exists()):
        return name
    return f"{name}/{hashlib.sha256((boot.read_text() + str(namespace.readlink())).encode()).hexdigest()[:8]}"


def refused(error: sa.exc.DBAPIError) -> tuple[str, str]:
    """What the server or the driver said, without values, and what to do."""
    code = getattr(error.orig, "sqlstate", None)
    if code is None:  # no connection: of its sentences the first that says why
        said = str(error.orig).strip().splitlines()
        remedy = next((_REMEDIES[code] for words, code in _WITHOUT_CODE.items() if words in str(error.orig)), "")
        return said[0] if said else type(error.orig).__name__, remedy or (
            "see that the server is up and the URL of state.database is right, then run again: nothing is lost"
        )
    said_so = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    named = type(error.orig).__name__ if code.startswith(_OF_VALUES) or not said_so else said_so
    return f"{named} ({code})", _REMEDIES.get(code, "see the server's log, then run again: nothing is lost")


_WITHOUT_CODE = {
    "password authentication failed": "28P01",
    "does not exist": "3D000",
}
"""libpq gives no SQLSTATE where it could not connect."""
