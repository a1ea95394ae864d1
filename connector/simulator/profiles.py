"""The profiles of one project, in memory."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from connector.simulator.ids import made_id
from connector.simulator.values import Change, Partial, Value


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


class Profiles:
    """The profiles of one project by custom id; an unknown id is created by its first operation."""

    def __init__(self, project: str, profiles: Iterable[tuple[str, Profile]] = ()) -> None:
        self._project = project
        self._profiles = dict(profiles)
        self._ordered: list[str] = []

    def apply(self, custom_id: str, changes: dict[str, Change]) -> Profile:
        """The profile after the changes."""
        profile = self._profiles.get(custom_id)
        if profile is None:
            profile = self._profiles[custom_id] = Profile(made_id("profile_", self._project, custom_id))
        profile.apply(changes)
        return profile

    def get(self, custom_id: str) -> dict[str, Any] | None:
        """One profile as JSON, or None."""
        profile = self._profiles.get(custom_id)
        return profile.as_json(custom_id) if profile else None

    def native(self, custom_id: str) -> dict[str, Value]:
        """A copy of the native attributes; empty for who is unknown."""
        profile = self._profiles.get(custom_id)
        return dict(profile.native) if profile else {}

    def profile_id(self, custom_id: str) -> str | None:
        """The id that Batch gave, or None for who is unknown."""
        profile = self._profiles.get(custom_id)
        return profile.profile_id if profile else None

    def forget(self, custom_id: str) -> bool:
        """Whether there was such a profile to forget."""
        # As many are forgotten as created between two pages perhaps, so their number alone would not tell.
        self._ordered = []
        return self._profiles.pop(custom_id, None) is not None

    def __iter__(self) -> Iterator[tuple[str, Profile]]:
        """Every profile, in the order of the custom ids."""
        return ((custom_id, self._profiles[custom_id]) for custom_id in self._in_order())

    def page(self, after: str | None, limit: int | None) -> list[dict[str, Any]]:
        """Profiles in the order of their custom ids, those behind `after`, at most `limit`."""
        ordered = self._in_order()
        start = 0 if after is None else bisect_right(ordered, after)
        end = None if limit is None else start + limit
        return [self._profiles[custom_id].as_json(custom_id) for custom_id in ordered[start:end]]

    def clear(self) -> None:
        """Forget everybody."""
        self._profiles.clear()
        self._ordered.clear()

    def _in_order(self) -> list[str]:
        if len(self._ordered) != len(self._profiles):
            self._ordered = sorted(self._profiles)
        return self._ordered
