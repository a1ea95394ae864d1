"""The local Profile API: every project it serves, and the door for Python."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.applications import Starlette

from connector.errors import UsageError
from connector.simulator.app import build_app
from connector.simulator.file import StateFile
from connector.simulator.limits import Settings
from connector.simulator.project import Clock, Project
from connector.simulator.store import Store
from connector.simulator.tally import Request


class Simulator:
    """A stand-in for Batch's Profile API with the documented rules and limits.

    Each method speaks of the project it is given, by default the only one, and gives what the control route
    of the same name gives. Safe to use while a server thread serves `app`.
    """

    def __init__(
        self,
        credentials: Mapping[str, str],
        *,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        folder: Path | None = None,
        record: bool = False,
    ) -> None:
        """A simulator of these projects.

        Args:
            credentials: REST API key by project key.
            clock: Seconds that never go back; drives the rate limits and late writes.
            wall: Seconds since 1970; the age of events is judged by it.
            folder: Where profiles and events survive a restart; by default they live in memory. Late writes,
                exports and changes of reachability always do.
            record: Whether `requests` keeps every call with its custom ids and event ids.

        Raises:
            StateError: The folder cannot be used, or another simulator holds it.
        """
        self.credentials = dict(credentials)
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._file = StateFile(folder) if folder else None
        self._projects = {
            key: Project(Store(key, self._file), Settings(), clock, wall, record=record) for key in self.credentials
        }

    @cached_property
    def app(self) -> Starlette:
        """The ASGI application for callers in this process."""
        return build_app(self)

    @property
    def stats(self) -> dict[str, Any]:
        """Counts of the only project; see `Tally`."""
        return self.project().stats()

    @property
    def requests(self) -> list[Request]:
        """Every call to the only project, if this simulator records."""
        return self.project().requests

    def project(self, key: str | None = None) -> Project:
        """The project of this key, by default the only one.

        Raises:
            UsageError: There is no such project, or there are several and no key was given.
        """
        if key is None and len(self._projects) == 1:
            return next(iter(self._projects.values()))
        if key is None or key not in self._projects:
            found = "no project was named" if key is None else "the simulator has no project of that key"
            raise UsageError(found, remedy=f"name one of its {len(self._projects)} projects")
        return self._projects[key]

    def accountable(self, key: str) -> Project | None:
        """The project whose counts show a call that named this one: it, or the only one there is."""
        alone = next(iter(self._projects.values())) if len(self._projects) == 1 else None
        return self._projects.get(key, alone)

    def giver(self, token: str) -> Project | None:
        """The project that gave the link with this token, or the only project there is."""
        return next((one for one in self._projects.values() if one.gave(token)), self.accountable(""))

    def profiles(
        self, after: str | None = None, limit: int | None = None, *, project: str | None = None
    ) -> list[dict[str, Any]]:
        """Profiles behind `after` in the order of their custom ids, at most `limit` (default: all)."""
        return self.project(project).profiles(after, limit)

    def profile(self, custom_id: str, *, project: str | None = None) -> dict[str, Any] | None:
        """One profile, or None."""
        return self.project(project).profile(custom_id)

    def events(
        self,
        custom_id: str | None = None,
        after: int | None = None,
        limit: int | None = None,
        *,
        project: str | None = None,
    ) -> list[dict[str, Any]]:
        """Events in the order of their application, of everybody or one profile.

        Args:
            custom_id: Whose; by default everybody's.
            after: Only those behind this sequence; the first event has 1.
            limit: At most so many; by default all.
            project: The project's key.
        """
        return self.project(project).events(custom_id, after, limit)

    def exports(self, *, project: str | None = None) -> list[dict[str, Any]]:
        """Every export, the oldest first, as `exports/view` shows it; addresses lack their host."""
        return self.project(project).exports()

    def alter(self, custom_id: str, attributes: dict[str, Any], *, project: str | None = None) -> None:
        """Change a profile as if somebody else at Batch did, or create it; null removes an attribute.

        Raises:
            UsageError: A rule of updates refuses the custom id or an attribute; nothing is changed.
        """
        self.project(project).alter(custom_id, attributes)

    def forget(self, custom_id: str, *, project: str | None = None) -> bool:
        """Delete a profile as Batch does for inactivity; whether there was one."""
        return self.project(project).forget(custom_id)

    def inject(self, *faults: dict[str, Any], project: str | None = None) -> None:
        """Queue faults for the next calls (see `Fault`).

        Raises:
            UsageError: A fault has an unknown field, a bad value or fields that do not go together; none is queued.
        """
        self.project(project).inject(*faults)

    def clear_faults(self, *, project: str | None = None) -> None:
        """Drop the faults that no call has met yet, and let go of exports that are stuck."""
        self.project(project).clear_faults()

    def reset(self, *, project: str | None = None) -> None:
        """Forget profiles, events, exports, faults, counts and late writes; full buckets."""
        self.project(project).reset()

    def configure(self, *, project: str | None = None, **changes: Any) -> None:  # noqa: ANN401 - fields of Settings
        """Change some fields of the project's `Settings`; its buckets are full again."""
        target = self.project(project)
        target.configure(replace(target.settings, **changes))

    def close(self) -> None:
        """Release the folder, and remove the files of exports."""
        for project in self._projects.values():
            project.close()
        if self._file:
            self._file.close()

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
