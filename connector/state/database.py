"""The state database: the only thing that changes in place. Everything large lies in immutable files that it names."""

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from connector.errors import StateError
from connector.state import clocks, postgres, sqlite
from connector.state.bucket import OWNER, Bucket, bucket
from connector.state.postgres import AnyText, Server

SCHEMA = 4
"""Version of these tables; a state of an older version is brought forward, a newer one is refused."""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    1: ("ALTER TABLE chunks ADD COLUMN parts JSON",),
    2: ("DROP TABLE buckets",),  # the first of that version lack columns; made anew they start empty, which is safe
    3: ("ALTER TABLE runs ADD COLUMN began FLOAT", "UPDATE runs SET began = started"),
}
"""What brings a state of a version to the next one; new tables need no word of it."""

CHECK_SECONDS = 86_400.0
"""How often SQLite's file is read whole: 100 MB take 0.1 s, which not every look at the state should."""

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
    sa.Column("began", sa.Float),  # the same by `State.now`; null where it ended without sending
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
    sa.Column("unknown_at", sa.Float),  # the last attempt whose outcome is unknown, by `State.now`
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
    sa.Column("key", AnyText, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),  # unknown | refused | withheld
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("not_before", sa.Float, nullable=False),  # by `State.now`, as the next
    sa.Column("quiet_until", sa.Float, nullable=False),
    sa.Column("source_hash", sa.Text, nullable=False),  # UInt64 as digits: SQLite's integers are signed
)

REJECTS = sa.Table(
    "rejects",
    _tables,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("key", AnyText, primary_key=True),  # '' where the source's key is null
    sa.Column("attribute", AnyText, primary_key=True),  # '' where the whole row is meant
    sa.Column("source", sa.Text, primary_key=True),  # invalid | rejected
    sa.Column("reason", AnyText, nullable=False),
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
    """An open state.

    Attributes:
        folder: Holds `snapshots/`, `ledger/`, `outbox/`, `locks/`, and `state.db` where that is the database;
            readable by its owner alone.
        engine: The database.
        seed: Secret of this state's hashes, 0 to 2**64 - 1.
        ahead: Seconds by which `now` is ahead of the time since this host's start.
        bucket: Holds the files that other hosts need, the folder then being their cache; None: the folder holds them.
    """

    folder: Path
    engine: sa.Engine
    seed: int
    ahead: float
    bucket: Bucket | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may use it: its database is PostgreSQL."""
        return clocks.is_shared(self.engine)

    def now(self) -> float:
        """Seconds since 1970 by a clock that a correction of the host's own does not touch.

        What is waited for is told by it: a request of unknown outcome may come late, however the host's clock was set
        meanwhile. It counts the time since the host's start, from where the host's own clock stood at the first run
        after it, and never goes back; or from where the server's stands. So it is for spans, not to be shown.
        """
        return clocks.since_start() + self.ahead

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock from its start; durable when it ends.

        Raises:
            StateError: The database is locked, full, read-only, damaged or out of reach.
        """
        with translated(self.folder), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for queries, which all see the same moment.

        Raises:
            StateError: The database is locked, damaged or out of reach.
        """
        with translated(self.folder), self.engine.connect().execution_options(reads=True) as connection:
            yield connection

    def put(self, paths: Iterable[Path]) -> None:
        """Make files of the folder durable for all hosts, before the database names them.

        Raises:
            StateError: They lie in a bucket, and it refuses them or is out of reach.
        """
        if self.bucket:
            for path in paths:
                self.bucket.put(path)

    def digest(self, key: str) -> str:
        """A keyed hash of a profile's key, 12 hexadecimal digits: it stands for the key in logs and metadata."""
        return hashlib.blake2b(key.encode(), digest_size=6, key=self.seed.to_bytes(8, "big")).hexdigest()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


@contextmanager
def open_state(folder: Path, project_key: str, server: Server | None = None) -> Iterator[State]:
    """The state in `folder`, made if there is none, for the length of a command.

    Args:
        folder: The state folder.
        project_key: The Batch project's key: the state is bound to it, by fingerprint, at its first use.
        server: Where its tables are, if not in the folder; it may name a bucket, whose cache the folder is then.

    Raises:
        StateError: It cannot be used: it belongs to another project, is damaged in part, locked, out of reach, or
            of a newer version.
    """
    with translated(folder):
        for part in (folder, *(folder / name for name in ("snapshots", "ledger", "outbox", "locks"))):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.chmod(0o700)
        engine = postgres.engine(server) if server else sqlite.engine(folder)
    try:
        store = bucket(server.bucket, folder) if server and server.bucket else None
        with translated(folder), engine.begin() as connection:
            if server:
                postgres.make_schema(connection, server.schema)
            meta = _bound(connection, folder, project_key, server, store)
            ahead = clocks.ahead(connection, meta.get("clock", ""))
        if server and store:  # outside the transaction, so that nobody waits behind a bucket that does not answer
            _claim(store, _owner(meta), server, new=False)
        yield State(folder, engine, int(meta["seed"]), ahead, store)
    finally:
        engine.dispose()


def _bound(
    connection: sa.Connection, folder: Path, project_key: str, server: Server | None, store: Bucket | None
) -> dict[str, str]:
    """What the state says of itself, after it was made, or found to be this project's and whole."""
    if not _tables.tables.keys() <= set(sa.inspect(connection).get_table_names()):  # `create_all` asks for each of them
        _tables.create_all(connection)
    meta = {row.name: row.value for row in connection.execute(sa.select(META))}
    new = not meta
    if new:
        meta = {"schema": str(SCHEMA), "seed": str(secrets.randbits(64)), "salt": secrets.token_hex(16)}
        meta["project"] = _fingerprint(project_key, meta["salt"])
        note(connection, meta)
    if meta["project"] != _fingerprint(project_key, meta["salt"]):
        raise StateError(
            f"the state folder '{folder}' belongs to another Batch project than the key in batch.project_key",
            remedy="set `state:` to a folder, or a schema of the database, of this project's own, or correct the key",
        )
    if meta["schema"] != str(SCHEMA):
        _migrate(connection, folder, int(meta["schema"]))
    if server:
        if store and new:
            _claim(store, _owner(meta), server, new=True)
        postgres.claim_folder(folder, _owner(meta), server, new=new or store is not None)
    elif time.time() - float(meta.get("checked", 0)) > CHECK_SECONDS:
        sqlite.check(connection, folder)
        note(connection, {"checked": str(time.time())})
    return meta


def _owner(meta: Mapping[str, str]) -> str:
    """What stands for the state where its files lie."""
    return hashlib.sha256(meta["salt"].encode()).hexdigest()[:32]


def _claim(store: Bucket, owner: str, server: Server, *, new: bool) -> None:
    """Make sure that the bucket is the one of this state's files."""
    used = new and any(store.ages(store.folder / name) for name in ("snapshots", "ledger"))
    place = postgres.Place(f"bucket '{store.name}'", "state.files", store.read(OWNER), used)
    if text := postgres.claim(place, owner, server, new=new):
        store.write(OWNER, text)


def note(connection: sa.Connection, values: Mapping[str, str]) -> None:
    """Make the state say so of itself."""
    connection.execute(sa.delete(META).where(META.c.name.in_(values)))
    connection.execute(sa.insert(META), [{"name": name, "value": value} for name, value in values.items()])


def _migrate(connection: sa.Connection, folder: Path, version: int) -> None:
    """Bring the tables to SCHEMA, in the caller's transaction."""
    if version > SCHEMA:
        raise StateError(
            f"the state folder '{folder}' has version {version}, this software reads version {SCHEMA}",
            remedy="use the version of the connector that wrote it, or another state folder",
        )
    for before in range(version, SCHEMA):
        for statement in MIGRATIONS[before]:
            connection.exec_driver_sql(statement)
    _tables.create_all(connection)
    note(connection, {"schema": str(SCHEMA)})


def _fingerprint(project_key: str, salt: str) -> str:
    return hashlib.scrypt(project_key.encode(), salt=salt.encode(), n=1024, r=8, p=1, dklen=16).hex()


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Errors of the driver and the file system, in words; statements and their values are left out."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _refused(folder, error) from None
    except OSError as error:
        raise StateError(
            f"the state folder '{folder}' cannot be used: {error.strerror or error}",
            remedy="free the disk or correct the folder's permissions, then run again: nothing is lost",
        ) from None


def _refused(folder: Path, error: sa.exc.DBAPIError) -> StateError:
    if isinstance(error.orig, sqlite3.Error):
        where, (detail, remedy) = f"'{folder / 'state.db'}'", sqlite.refused(error)
    else:
        where, (detail, remedy) = "in PostgreSQL", postgres.refused(error)
    return StateError(f"the state database {where} cannot be used: {detail}", remedy=remedy)
