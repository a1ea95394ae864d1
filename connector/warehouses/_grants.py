"""What syncs need of a warehouse, from which its rights follow; what is granted is text that an administrator runs."""

from typing import NamedTuple


class Needs(NamedTuple):
    """What the syncs of one warehouse do there, each name once and as the YAML has it."""

    tables: tuple[str, ...] = ()
    """Tables and views that are read."""
    queries: tuple[str, ...] = ()
    """Names of the syncs that read by a query, whose tables nobody knows without running it."""
    targets: tuple[str, ...] = ()
    """Tables that exports are loaded into."""
    compares: bool = False
    """Whether a sync has `engine: warehouse`."""

    @property
    def reads(self) -> bool:
        """Whether anything is read."""
        return bool(self.tables or self.queries)

    @property
    def writes(self) -> bool:
        """Whether tables of ours are made."""
        return bool(self.targets) or self.compares


def comment(text: str) -> str:
    """The text as one comment of SQL: on one line, whatever names it holds."""
    return "-- " + " ".join(text.split())
