"""What one project holds: profiles and events in memory, written through to a file where there is one."""

from collections.abc import Sequence

from connector.simulator.events import Events
from connector.simulator.file import StateFile
from connector.simulator.profiles import Profile, Profiles
from connector.simulator.rules import Judged


class Store:
    """The profiles and events of one project."""

    def __init__(self, project: str, file: StateFile | None = None) -> None:
        self._project = project
        self._file = file
        self.profiles = Profiles(project, file.profiles(project) if file else ())
        self.events = Events(file.events(project) if file else ())

    def apply(self, operations: Sequence[Judged]) -> int:
        """Apply the operations in order, attributes before events, and write them through together.

        Returns:
            Events that were overtaken: applied after a later event of their profile.
        """
        before, overtaken = len(self.events), 0
        touched: dict[str, Profile] = {}
        for operation in operations:
            if operation.custom_id is not None:
                touched[operation.custom_id] = self.profiles.apply(operation.custom_id, operation.changes)
                overtaken += self.events.add(operation.custom_id, operation.events)
        if self._file and touched:
            self._file.save(self._project, touched.items(), self.events.since(before), before)
        return overtaken

    def clear(self) -> None:
        """Forget everybody."""
        self.profiles.clear()
        self.events.clear()
        if self._file:
            self._file.clear(self._project)
