"""The profiles of one project, in memory, and written through to a file where a folder was given."""

import base64
import hashlib
import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connector.errors import StateError
from connector.simulator.values import Change, Partial, Value

_ALPHABET = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")


@dataclass(slots=True)
class Profile:
    """One person: typed attributes, native ones apart."""

    profile_id: str
    native: dict[str, Value] = field(default_factory=dict)
    custom: dict[str, Value] = field(default_factory=dict)

    def apply(self, changes: dict[str, Change]) -> None:
        """Merge the changes in; attributes that they do not name keep their value."""
        for name, change in changes.items():
            home = self.native if name[0] == "$" else self.custom
            value = change.merged(home.get(name)) if isinstance(change, Partial) else change
            if value is None:
                home.pop(name, None)
            else:
                home[name] = value

    def as_json(self, custom_id: str) -> dict[str, Any]:
        """As the control routes show it; `custom` with types, `native` bare."""
        return {
            "custom_id": custom_id,
            "profile_id": self.profile_id,
            "native": {name: value.value for name, value in self.native.items()},
            "custom": {name: value._asdict() for name, value in self.custom.items()},
        }


class ProfileFile:
    """The profiles of every project in one SQLite file, held by one simulator at a time."""

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
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS profile"
                " (project TEXT, custom_id TEXT, state TEXT, PRIMARY KEY (project, custom_id)) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"the simulator's folder '{folder}' cannot be used: {error}",
                remedy="stop the other simulator that holds it, or give another folder",
            ) from error

    def load(self, project: str) -> Iterator[tuple[str, Profile]]:
        """Every profile of the project, by custom id."""
        rows = self._database.execute("SELECT custom_id, state FROM profile WHERE project = ?", (project,))
        for custom_id, state in rows:
            profile_id, native, custom = json.loads(state)
            yield custom_id, Profile(profile_id, _values(native), _values(custom))

    def save(self, project: str, profiles: Iterable[tuple[str, Profile]]) -> None:
        """Write these profiles in one transaction."""
        rows = [
            (project, custom_id, json.dumps([profile.profile_id, profile.native, profile.custom]))
            for custom_id, profile in profiles
        ]
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO profile VALUES (?, ?, ?)", rows)

    def clear(self, project: str) -> None:
        """Forget the project's profiles."""
        self._database.execute("DELETE FROM profile WHERE project = ?", (project,))

    def close(self) -> None:
        """Release the file for another simulator."""
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database


class Profiles:
    """The profiles of one project by custom id; an unknown id is created by its first operation."""

    def __init__(self, project: str, file: ProfileFile | None = None) -> None:
        self._project = project
        self._file = file
        self._profiles = dict(file.load(project)) if file else {}
        self._ordered: list[str] = []

    def apply(self, operations: Iterable[tuple[str, dict[str, Change]]]) -> None:
        """Apply (custom id, changes) in order, and write them through together."""
        touched: dict[str, Profile] = {}
        for custom_id, changes in operations:
            profile = self._profiles.get(custom_id)
            if profile is None:
                profile = self._profiles[custom_id] = Profile(self._new_profile_id(custom_id))
            profile.apply(changes)
            touched[custom_id] = profile
        if self._file and touched:
            self._file.save(self._project, touched.items())

    def get(self, custom_id: str) -> dict[str, Any] | None:
        """One profile as JSON, or None."""
        profile = self._profiles.get(custom_id)
        return profile.as_json(custom_id) if profile else None

    def page(self, after: str | None, limit: int | None) -> list[dict[str, Any]]:
        """Profiles in the order of their custom ids, those behind `after`, at most `limit`."""
        if len(self._ordered) != len(self._profiles):
            self._ordered = sorted(self._profiles)
        start = 0 if after is None else bisect_right(self._ordered, after)
        end = None if limit is None else start + limit
        return [self._profiles[custom_id].as_json(custom_id) for custom_id in self._ordered[start:end]]

    def clear(self) -> None:
        """Forget everybody."""
        self._profiles.clear()
        self._ordered.clear()
        if self._file:
            self._file.clear(self._project)

    def _new_profile_id(self, custom_id: str) -> str:
        digest = hashlib.blake2b(f"{self._project}\n{custom_id}".encode(), digest_size=20).digest()
        return "profile_" + base64.b32encode(digest).translate(_ALPHABET).decode()


def _values(pairs: dict[str, list[Any]]) -> dict[str, Value]:
    return {name: Value(*pair) for name, pair in pairs.items()}
