"""A world at one moment of a run, as a process that dies there leaves it: stories can go on from it, one after another."""

import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connector.config import Project
from connector.simulator import Simulator
from tests.simulation.warehouse import Rows

Files = dict[str, tuple[bytes | None, int]]
"""Content (None: a folder) and time of change by path, a folder before what is in it."""

_OF_THE_MACHINE = frozenset(("_lock", "_clock", "_wall", "_desk", "_sequence", "_open"))
"""What a simulated project has besides what it remembers; no scenario asks for exports."""


@dataclass(frozen=True, slots=True)
class Image:
    """A moment.

    Attributes:
        died: The step that was about to be taken; "" where the run lived to its end.
        files: The state folder.
        api: What the API remembers.
        clock: See `Clock.reading`.
        rows: Of the warehouse.
        history: See `Universe`.
        runs: All until now, the one that died too.
        underway: Bodies of requests that had left and not arrived.
        late: See `Universe`.
        setup: What was configured.
        project: The same, parsed.
    """

    died: str
    files: Files
    api: bytes
    clock: tuple[float, float, float]
    rows: Rows
    history: dict[str, frozenset[tuple[Any, ...]]]
    runs: Sequence[Any]
    underway: tuple[bytes, ...]
    late: bool
    setup: Any
    project: Project


def read_files(folder: Path, torn: Path | None = None) -> Files:
    """What lies in a folder; of the torn file, whose content is not yet safe, half is there, as after a power cut."""
    found: Files = {}
    pending = [folder] if folder.exists() else []
    while pending:
        place = pending.pop()
        found[str(place)] = (None, 0)
        for entry in os.scandir(place):
            path = Path(entry.path)
            if entry.is_dir():
                pending.append(path)
                continue
            content = path.read_bytes()
            found[entry.path] = (content[: len(content) // 2] if path == torn else content, entry.stat().st_mtime_ns)
    return found


def write_files(folder: Path, files: Files) -> None:
    """Make the folder what it was."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, (content, changed) in files.items():
        if content is None:
            Path(name).mkdir(mode=0o700)
        else:
            Path(name).write_bytes(content)
            os.utime(name, ns=(changed, changed))


def remembered(api: Simulator) -> bytes:
    """What the API holds, counts and has still to apply or to get wrong."""
    kept = {name: value for name, value in vars(api.project()).items() if name not in _OF_THE_MACHINE}
    return pickle.dumps((kept, api.credentials))


def remind(api: Simulator, memory: bytes) -> None:
    """Have the API hold that again."""
    kept, api.credentials = pickle.loads(memory)  # noqa: S301 - our own
    vars(api.project()).update(kept)
