"""The state database: the only thing that changes in place. Everything large lies in immutable files that it names."""

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from connector.errors import StateError

SCHEMA = 2
"""Version of these tables; a state of another version is refused."""

WAYS_OUT = (
    "restore the state folder from a backup, or decide: connector run {sync} --resend sends everything again, "
    "connector adopt {sync} takes today's rows as delivered and sends nothing"
)
"""What an operator can do about a state that cannot be believed."""

_tables = sa.MetaData()

META = sa.Table(
    "meta", _tables, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

RUNS = sa.Table(
    "runs",
    _tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sync", sa.Text, nullable=False, index=True),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),  # null while open
    sa.Column("key_column", sa.Text),
    sa.Column("attributes", sa.JSON),  # name to type, of the rows in the outbox
    sa.Column("outbox_sha256", sa.Text),
    sa.Column("report", sa.JSON),
)

CHUNKS = sa.Table(
    "chunks",
    _tables,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # planned → sent → done | unknown
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("unknown_at", sa.Float),  # the last attempt whose outcome is unknown
    sa.Column("settled_at", sa.Float),
    sa.Column("refusals", sa.JSON),  # [[row in the chunk, attribute or null, reason]]
    sa.Column("parts", sa.JSON),  # [[first row, rows, state]] of a chunk that was split
)

SNAPSHOTS = sa.Table(
    "snapshots",
    _tables,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("manifest", sa.JSON, nullable=False),
)

DUE = sa.Table(
    "due",
    _tables,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),  # unknown | refused | withheld
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("quiet_until", sa.Float, nullable=False),
    sa.Column("source_hash", sa.Text, nullable=False),  # UInt64 as digits: SQLite's integers are signed
)

REJECTS = sa.Table(
    "rejects",
    _tables,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),  # '' where the source's key is null
    sa.Column("attribute", sa.Text, primary_key=True),  # '' where the whole row is meant
    sa.Column("source", sa.Text, primary_key=True),  # invalid | rejected
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_seen", sa.Float, nullable=False),
    sa.Column("last_seen", sa.Float, nullable=False),
)

EXPORTS = sa.Table(
    "exports",
    _tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("sync", sa.Text, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),  # intended → sent → requested → loaded | failed
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Column("export_id", sa.Text),
    sa.Column("files", sa.JSON),  # [[file id, SHA-256]] of files that are here whole, by their place
)

LEASES = sa.Table(
    "leases",
    _tables,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("run", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("expires", sa.Float, nullable=False),
)

BUCKETS = sa.Table(
    "buckets",
    _tables,
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("clock", sa.Text, nullable=False),  # which clock the times are read from: they mean nothing on another
    sa.Column("paid_until", sa.Float, nullable=False),
    sa.Column("hold_until", sa.Float, nullable=False),
    sa.Column("share", sa.Float, nullable=False),  # of the configured rate, as Batch refused more
    sa.Column("seen", sa.Float, nullable=False),  # when the share last grew
    sa.Column("cut", sa.Float, nullable=False),  # when it was last cut
)


@dataclass(frozen=True, slots=True)
class State:
    """An open state folder.

    Attributes:
        folder: Holds `state.db`, `snapshots/`, `outbox/`, `locks/`; readable by its owner alone.
        engine: The database.
        seed: Secret of this state's hashes, 0 to 2**64 - 1.
    """

    folder: Path
    engine: sa.Engine
    seed: int

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock from its start; durable when it ends.

        Raises:
            StateError: The database is locked, full, read-only or damaged.
        """
        with translated(self.folder), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for queries.

        Raises:
            StateError: The database is locked or damaged.
        """
        with translated(self.folder), self.engine.connect().execution_options(reads=True) as connection:
            yield connection

    def digest(self, key: str) -> str:
        """A keyed hash of a profile's key, 12 hexadecimal digits: it stands for the key in logs and metadata."""
        return hashlib.blake2b(key.encode(), digest_size=6, key=self.seed.to_bytes(8, "big")).hexdigest()

    def close(self) -> None:
        """Let go of the database file."""
        self.engine.dispose()


@contextmanager
def open_state(folder: Path, project_key: str) -> Iterator[State]:
    """The state in `folder`, made if there is none, for the length of a command.

    Args:
        folder: The state folder.
        project_key: The Batch project's key: the state is bound to it, by fingerprint, at its first use.

    Raises:
        StateError: The folder cannot be used: it belongs to another project, is damaged in part, locked, or of
            another version.
    """
    with translated(folder):
        engine = _engine(_prepared(folder))
    try:
        with translated(folder), engine.begin() as connection:
            seed = _bound(connection, folder, project_key)
        yield State(folder, engine, seed)
    finally:
        engine.dispose()


def _prepared(folder: Path) -> Path:
    """The database's path, after the folder was made, or found whole."""
    database = folder / "state.db"
    lost = not database.exists() or not database.stat().st_size
    if lost and (any((folder / "snapshots").glob("*/*")) or any((folder / "ledger").glob("*/*"))):
        raise StateError(
            f"the state folder '{folder}' has files of what was delivered but no state.db",
            remedy="restore state.db from a backup, or move the folder away: then every row is sent again, but of syncs"
            " that are adopted before they run (connector adopt SYNC)",
        )
    for part in (folder, folder / "snapshots", folder / "ledger", folder / "outbox", folder / "locks"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.chmod(0o700)
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    database.chmod(0o600)
    return database


def _engine(database: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{database}", connect_args={"timeout": 30}, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would be a late one
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        # Two that read first and write later would meet in a deadlock that SQLite ends with an error.
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _bound(connection: sa.Connection, folder: Path, project_key: str) -> int:
    _tables.create_all(connection)
    meta = {row.name: row.value for row in connection.execute(sa.select(META))}
    if not meta:
        meta = {"schema": str(SCHEMA), "seed": str(secrets.randbits(64)), "salt": secrets.token_hex(16)}
        meta["project"] = _fingerprint(project_key, meta["salt"])
        connection.execute(sa.insert(META), [{"name": name, "value": value} for name, value in meta.items()])
    if meta["schema"] != str(SCHEMA):
        raise StateError(
            f"the state folder '{folder}' has version {meta['schema']}, this software reads version {SCHEMA}",
            remedy="use the version of the connector that wrote it, or another state folder",
        )
    if meta["project"] != _fingerprint(project_key, meta["salt"]):
        raise StateError(
            f"the state folder '{folder}' belongs to another Batch project than the key in batch.project_key",
            remedy="set `state:` to a folder of this project's own, or correct the key",
        )
    return int(meta["seed"])


def _fingerprint(project_key: str, salt: str) -> str:
    return hashlib.scrypt(project_key.encode(), salt=salt.encode(), n=1024, r=8, p=1, dklen=16).hex()


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Errors of the driver and the file system, in words; statements and their values are left out."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        detail = str(error.orig)
        remedy = "free the disk or correct the folder's permissions, then run again: nothing is lost"
        if "locked" in detail:
            remedy = "another process writes to it: wait for it, or stop it, then run again"
        if "malformed" in detail or "not a database" in detail:
            remedy = "restore the state folder from a backup, or move it away: then every row is sent again"
        raise StateError(
            f"the state database '{folder / 'state.db'}' cannot be used: {detail}", remedy=remedy
        ) from None
    except OSError as error:
        raise StateError(
            f"the state folder '{folder}' cannot be used: {error.strerror or error}",
            remedy="free the disk or correct the folder's permissions, then run again: nothing is lost",
        ) from None
