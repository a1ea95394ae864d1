"""The exports of one project and their life: created, pending, running, then a success or an error."""

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote

from connector.simulator.export_rules import Wanted
from connector.simulator.files import ExportFile, Folder, Shape, write_bomb, write_parts
from connector.simulator.ids import made_hex, made_id
from connector.simulator.limits import LOOKBACK, Settings
from connector.simulator.moments import rfc3339
from connector.simulator.rules import MalformedError

_PARTS = 3
"""Parts of an export that misses its second one."""


class Twist(NamedTuple):
    """What a fault makes of an export; `late` the seconds until the list shows it."""

    becomes: str | None = None
    lines: Sequence[str] = ()
    late: float = 0.0


class Now(NamedTuple):
    """One moment: `clock` in seconds that never go back, `wall` in seconds since 1970."""

    clock: float
    wall: float


@dataclass(slots=True)
class Export:
    """One export request; `seconds` from its creation to its end."""

    id: str
    number: int
    wanted: Wanted
    created: Now
    seconds: float
    twist: Twist
    files: list[ExportFile] = field(default_factory=list)
    released: bool = False

    def status(self, clock: float) -> str:
        """Where in its life it is."""
        age = clock - self.created.clock
        for third, status in enumerate(("CREATED", "PENDING", "RUNNING"), 1):
            if age < self.seconds * third / 3:
                return status
        if self.twist.becomes == "stuck" and not self.released:
            return "RUNNING"
        return "ERROR" if self.twist.becomes == "error" else "SUCCESS"

    def as_json(self, clock: float, base: str) -> dict[str, Any]:
        """As `exports/view` shows it; `base` the address of the API with its version."""
        status = self.status(clock)
        shown: dict[str, Any] = {"id": self.id, "request_date": rfc3339(self.created.wall)}
        if status not in ("CREATED", "PENDING"):
            shown["start_date"] = rfc3339(self.created.wall + self.seconds * 2 / 3)
        if status in ("SUCCESS", "ERROR"):
            shown["completion_date"] = rfc3339(self.created.wall + self.seconds)
        files = self.files if status == "SUCCESS" else []
        return shown | {
            "scope": f"PROFILE_{self.wanted.kind}",
            "status": status,
            "request": self.wanted.body,
            "files": [_file_json(file, base) for file in files],
        }


class Exports:
    """The exports of one project, in memory and in a temporary folder; a restart forgets them."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._numbers = count(1)
        self._exports: dict[str, Export] = {}
        self._files: dict[str, tuple[Export, ExportFile]] = {}
        self._folder = Folder()

    def create(self, wanted: Wanted, lines: Iterable[bytes], settings: Settings, now: Now, twist: Twist) -> Export:
        """A new export, whose content is written now: what changes afterwards, even before it runs, is not in it."""
        number = next(self._numbers)
        export = Export(self._new_id(number, now.wall), number, wanted, now, settings.export_seconds, twist)
        files = list(self._written(export, lines, settings))
        self._files.update((file.id, (export, file)) for file in files)
        if twist.becomes == "missing_part":
            del files[1]
        elif twist.becomes == "repeated_part":
            files.insert(1, files[0])
        export.files = files
        self._exports[export.id] = export
        return export

    def unmade_id(self, wall: float) -> str:
        """The id of an export that nobody makes."""
        return self._new_id(next(self._numbers), wall)

    def get(self, export_id: str) -> Export | None:
        """The export of this id, or None."""
        return self._exports.get(export_id)

    def file(self, file_id: str) -> tuple[Export, ExportFile] | None:
        """The file of this id and its export, or None."""
        return self._files.get(file_id)

    def page(self, cursor: str | None, limit: int, clock: float) -> tuple[list[Export], str | None]:
        """Exports behind the cursor, the newest first, and the cursor of the next page if there is one.

        Raises:
            MalformedError: The cursor is not one that was given.
        """
        before = math.inf if cursor is None else _number(cursor)
        found = [one for one in reversed(self._exports.values()) if one.number < before and _is_listed(one, clock)]
        following = _cursor(found[limit - 1]) if len(found) > limit else None
        return found[:limit], following

    def all(self) -> list[Export]:
        """Every export that is kept, the oldest first, those too that the list does not show yet."""
        return list(self._exports.values())

    def expire(self, wall: float) -> None:
        """Forget those that are older than 90 days, with their files."""
        for export in [one for one in self._exports.values() if one.created.wall < wall - LOOKBACK]:
            del self._exports[export.id]
            for file_id in [name for name, (owner, _) in self._files.items() if owner is export]:
                self._files.pop(file_id)[1].path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go of those that are stuck."""
        for export in self._exports.values():
            export.released = True

    def clear(self) -> None:
        """Forget them all, with their files."""
        self._exports.clear()
        self._files.clear()
        self._folder.close()

    def _new_id(self, number: int, wall: float) -> str:
        # The time is in it so that a restarted simulator gives other ids.
        return made_id("export_", self._project, number, wall)

    def _written(self, export: Export, lines: Iterable[bytes], settings: Settings) -> Iterator[ExportFile]:
        becomes = export.twist.becomes
        if becomes in ("error", "empty"):
            return
        if becomes == "bomb":
            yield ExportFile(made_id("file_", export.id, 1), 1, write_bomb(self._folder), gzip=True)
            return
        garbage = becomes == "garbage"
        shape = Shape(settings.part_lines, settings.part_bytes, settings.export_gzip or garbage, garbage)
        if becomes == "missing_part":
            lines = list(lines)
            shape = shape._replace(lines=min(shape.lines, max(1, math.ceil(len(lines) / _PARTS))))
        paths = write_parts(self._folder, lines, shape, export.twist.lines)
        while becomes == "missing_part" and len(paths) < _PARTS:
            paths += write_parts(self._folder, (), shape)
        for part, path in enumerate(paths, 1):
            name = _hostile(export, part) if becomes == "renamed" else made_id("file_", export.id, part)
            yield ExportFile(name, part, path, shape.gzip)


def _hostile(export: Export, part: int) -> str:
    unique = made_hex(export.id, part)
    names = (f"../../../{unique}", f"/etc/{unique}", f"file_\0{unique}", unique.ljust(300, "x"))
    return names[(part - 1) % len(names)]


def _is_listed(export: Export, clock: float) -> bool:
    return clock >= export.created.clock + export.twist.late


def _file_json(file: ExportFile, base: str) -> dict[str, Any]:
    address = f"{base}/exports/download?id={quote(file.id, safe='')}"
    return {"id": file.id, "part": file.part, "size": file.size, "url": address}


def _cursor(export: Export) -> str:
    return base64.urlsafe_b64encode(f"{export.id} {export.number}".encode()).decode()


def _number(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor).decode().rpartition(" ")[2])
    except ValueError:
        raise MalformedError("from is not the next_from of an earlier page") from None
