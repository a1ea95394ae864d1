"""The state's tables in SQLite, in the state folder: one writer at a time, durable when a transaction ends."""

import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from connector.errors import StateError

_DAMAGED = "restore the state folder from a backup, or move it away: then every row is sent again"


def engine(folder: Path) -> sa.Engine:
    """Connections to `state.db` in the folder, which is made if there is none.

    Raises:
        StateError: There is none any more: the folder has files that it named.
    """
    return _engine(_prepared(folder))


def _engine(database: Path) -> sa.Engine:
    address = sa.URL.create("sqlite", database=str(database))  # as text it would be unquoted: `%2F` is a folder's name
    made = sa.create_engine(address, connect_args={"timeout": 30}, hide_parameters=True)

    @sa.event.listens_for(made, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would be a late one
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(made, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        # Two that read first and write later would meet in a deadlock that SQLite ends with an error.
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return made


def _prepared(folder: Path) -> Path:
    """The database's path, after it was made, or found whole."""
    database = folder / "state.db"
    lost = not database.exists() or not database.stat().st_size
    if lost and (any((folder / "snapshots").glob("*/*")) or any((folder / "ledger").glob("*/*"))):
        raise StateError(
            f"the state folder '{folder}' has files of what was delivered but no state.db",
            remedy="restore state.db from a backup, or move the folder away: then every row is sent again, but of syncs"
            " that are adopted before they run (connector adopt SYNC)",
        )
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    database.chmod(0o600)
    return database


def check(connection: sa.Connection, folder: Path) -> None:
    """Read the whole database once: a page that a disk has spoilt is found before it is believed.

    Raises:
        StateError: It is damaged.
    """
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise StateError(f"the state database '{folder / 'state.db'}' cannot be used: it is damaged", remedy=_DAMAGED)


def refused(error: sa.exc.DBAPIError) -> tuple[str, str]:
    """What SQLite said, and what to do."""
    detail = str(error.orig)
    remedy = "free the disk or correct the folder's permissions, then run again: nothing is lost"
    if "locked" in detail:
        remedy = "another process writes to it: wait for it, or stop it, then run again"
    if "malformed" in detail or "not a database" in detail:
        remedy = _DAMAGED
    return detail, remedy
