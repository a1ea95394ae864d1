"""Profiles and events of every project in one SQLite file."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from connector.errors import StateError
from connector.simulator.events import StoredEvent
from connector.simulator.profiles import Profile
from connector.simulator.values import Value

_PROFILES = """CREATE TABLE IF NOT EXISTS profile (
    project TEXT, custom_id TEXT, state TEXT, PRIMARY KEY (project, custom_id)
) WITHOUT ROWID"""
_EVENTS = """CREATE TABLE IF NOT EXISTS event (
    project TEXT, sequence INTEGER, custom_id TEXT, at REAL, received REAL, kept BLOB, PRIMARY KEY (project, sequence)
) WITHOUT ROWID"""


class StateFile:
    """What every project holds, in one file that one simulator has at a time."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file.

        Raises:
            StateError: The folder cannot be used, another simulator holds it, or the file is damaged.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / "profiles.sqlite", timeout=0, isolation_level=None, check_same_thread=False
            )
            # Exclusive: a second simulator would answer from its own, older memory.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_PROFILES)
            self._database.execute(_EVENTS)
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"the simulator's folder '{folder}' cannot be used: {error}",
                remedy="stop the other simulator that holds it, or give another folder",
            ) from error

    def profiles(self, project: str) -> Iterator[tuple[str, Profile]]:
        """Every profile of the project, by custom id."""
        rows = self._database.execute("SELECT custom_id, state FROM profile WHERE project = ?", (project,))
        for custom_id, state in rows:
            profile_id, native, custom = json.loads(state)
            yield custom_id, Profile(profile_id, _values(native), _values(custom))

    def events(self, project: str) -> Iterator[StoredEvent]:
        """Every event of the project, in the order of their application."""
        rows = self._database.execute(
            "SELECT custom_id, at, received, kept FROM event WHERE project = ? ORDER BY sequence", (project,)
        )
        return (StoredEvent(*row) for row in rows)

    def save(
        self, project: str, profiles: Iterable[tuple[str, Profile]], events: Iterable[StoredEvent], after: int
    ) -> None:
        """Write these profiles, and append these events behind the sequence `after`, in one transaction."""
        states = [
            (project, custom_id, json.dumps([profile.profile_id, profile.native, profile.custom]))
            for custom_id, profile in profiles
        ]
        appended = [(project, sequence, *event) for sequence, event in enumerate(events, after + 1)]
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO profile VALUES (?, ?, ?)", states)
            self._database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", appended)

    def forget(self, project: str, custom_id: str) -> None:
        """Forget one profile."""
        with self._transaction():
            self._database.execute("DELETE FROM profile WHERE project = ? AND custom_id = ?", (project, custom_id))

    def clear(self, project: str) -> None:
        """Forget the project's profiles and events."""
        with self._transaction():
            self._database.execute("DELETE FROM profile WHERE project = ?", (project,))
            self._database.execute("DELETE FROM event WHERE project = ?", (project,))

    def close(self) -> None:
        """Release the file for another simulator."""
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database


def _values(pairs: dict[str, list[Any]]) -> dict[str, Value]:
    return {name: Value(*pair) for name, pair in pairs.items()}
