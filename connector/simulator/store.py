"""What one project holds: profiles and events in memory, written through to a file where there is one.

Changes of reachability are in memory alone: a restart forgets them.
"""

from collections.abc import Sequence

from connector.simulator.events import Events
from connector.simulator.file import StateFile
from connector.simulator.profiles import Profile, Profiles
from connector.simulator.reachability import CONTACT, Contacts
from connector.simulator.rules import Judged
from connector.simulator.values import Change


class Store:
    """The profiles and events of one project."""

    def __init__(self, project: str, file: StateFile | None = None) -> None:
        self.project = project
        self._file = file
        self.profiles = Profiles(project, file.profiles(project) if file else ())
        self.events = Events(file.events(project) if file else ())
        self.contacts = Contacts(project)

    def apply(self, operations: Sequence[Judged], now: float) -> int:
        """Apply the operations in order, attributes before events, and write them through together.

        Args:
            operations: After the rules.
            now: Seconds since 1970, of changes of reachability.

        Returns:
            Events that were overtaken: applied after a later event of their profile.
        """
        before, overtaken = len(self.events), 0
        touched: dict[str, Profile] = {}
        for operation in operations:
            if operation.custom_id is not None:
                touched[operation.custom_id] = self._changed(operation.custom_id, operation.changes, now)
                overtaken += self.events.add(operation.custom_id, operation.events)
        if self._file and touched:
            self._file.save(self.project, touched.items(), self.events.since(before), before)
        return overtaken

    def forget(self, custom_id: str) -> bool:
        """Whether there was such a profile to forget; its events stay, for who counts what was delivered."""
        known = self.profiles.forget(custom_id)
        if known and self._file:
            self._file.forget(self.project, custom_id)
        return known

    def clear(self) -> None:
        """Forget everybody."""
        self.profiles.clear()
        self.events.clear()
        self.contacts.clear()
        if self._file:
            self._file.clear(self.project)

    def _changed(self, custom_id: str, changes: dict[str, Change], now: float) -> Profile:
        if CONTACT.isdisjoint(changes):
            return self.profiles.apply(custom_id, changes)
        before = self.profiles.native(custom_id)
        profile = self.profiles.apply(custom_id, changes)
        self.contacts.note(custom_id, now, before, profile.native)
        return profile
