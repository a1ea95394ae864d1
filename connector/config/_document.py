"""What one file says, with the place of every key and value, and what is wrong with it."""

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from connector._model import KeyPath
from connector.errors import Problem

Value: TypeAlias = "str | int | float | bool | dict[str, Value] | list[Value] | None"


class Place(NamedTuple):
    """Where something stands in its file; both 1-based."""

    line: int
    column: int


class Marks(NamedTuple):
    """Where a value and the key before it stand."""

    key: Place
    value: Place


@dataclass
class Document:
    """What a file says, where it says it, and what is wrong with its YAML."""

    file: str
    value: Value = None
    marks: dict[KeyPath, Marks] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unknown: set[KeyPath] = field(default_factory=set)
    """Values that were refused, about which nothing more can be said."""

    def refuse(self, place: Place, message: str) -> None:
        """Note a problem at a place."""
        self.problems.append(Problem(self.file, *place, message))

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """Where the path's value stands, or its key: always the key of a mapping, a list or an empty value.

        A path that the file does not write out is placed at its nearest written parent.
        """
        for length in range(len(path), -1, -1):
            if marks := self.marks.get(path[:length]):
                return marks.key if key or isinstance(self.at(path[:length]), dict | list | None) else marks.value
        return Place(1, 1)

    def at(self, path: KeyPath) -> Value:
        """The value at the path, None where there is none."""
        return value_at(self.value, path)


def value_at(value: Value, path: KeyPath) -> Value:
    """The part of the value that the path leads to, None where there is none."""
    for step in path:
        match value, step:
            case dict(), str():
                value = value.get(step)
            case list(), int() if step < len(value):
                value = value[step]
            case _:
                return None
    return value
