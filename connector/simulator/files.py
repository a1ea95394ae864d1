"""The files of exports, in a temporary folder that goes with the simulator; a restart forgets them."""

import gzip
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, cast

from connector.simulator.ids import made_hex

_LEVEL = 1
"""zlib's quickest: these files are read once."""

_GARBAGE = b"\x00these bytes follow the end of the archive"
_BOMB_BYTES = 32 * 2**20


class Shape(NamedTuple):
    """How lines become files: the most of each, whether compressed, whether with bytes behind the archive's end."""

    lines: int
    bytes: int
    gzip: bool = False
    garbage: bool = False


@dataclass(slots=True)
class ExportFile:
    """One part of an export; `id` is what callers name it by and may be hostile, so it is never a path."""

    id: str
    part: int
    path: Path
    gzip: bool
    version: int = 0

    @property
    def size(self) -> int:
        """Its bytes, as they are sent."""
        return self.path.stat().st_size

    @property
    def etag(self) -> str:
        """Strong: another one once the content is another."""
        return f'"{made_hex(self.id, self.version)}"'

    @property
    def content_type(self) -> str:
        """What the file's host calls it."""
        return "application/gzip" if self.gzip else "application/x-ndjson"

    def change(self) -> None:
        """From now on its lines are in the opposite order."""
        held = self.path.read_bytes()
        lines = (gzip.decompress(held) if self.gzip else held).splitlines(keepends=True)
        with _opened(self.path, gzipped=self.gzip) as out:
            out.writelines(reversed(lines))
        self.version += 1


class Folder:
    """A folder that is made when it is first needed and removed at `close`, or else with this object."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._remove: Callable[[], object] = lambda: None
        self._made = 0

    def new_path(self) -> Path:
        """Where the next file goes, by a name of our own."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="simulator-exports-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
        self._made += 1
        return self._path / str(self._made)

    def close(self) -> None:
        """Remove it with everything in it; the next file makes another one."""
        self._remove()
        self._path = None


def write_parts(folder: Folder, lines: Iterable[bytes], shape: Shape, extra: Sequence[str] = ()) -> list[Path]:
    """The files of these lines, at least one; `extra` stands at the end of the first one, as it is."""
    remaining = _Lines(lines)
    paths: list[Path] = []
    while remaining or not paths:
        paths.append(folder.new_path())
        with _opened(paths[-1], gzipped=shape.gzip) as out:
            out.writelines(remaining.up_to(shape))
            if len(paths) == 1:
                out.writelines(f"{text}\n".encode() for text in extra)
        if shape.garbage:
            with paths[-1].open("ab") as end:
                end.write(_GARBAGE)
    return paths


def write_bomb(folder: Folder) -> Path:
    """A small archive of one line that unpacks to more than a thousand times its size."""
    path = folder.new_path()
    path.write_bytes(gzip.compress(b"0" * _BOMB_BYTES, 9, mtime=0))
    return path


class _Lines:
    """Lines that are taken a file at a time."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def up_to(self, shape: Shape) -> Iterator[bytes]:
        """The lines of one file; a line that is too long for any has one of its own."""
        count = size = 0
        while self._next is not None and count < shape.lines and (not count or size + len(self._next) <= shape.bytes):
            count += 1
            size += len(self._next)
            yield self._next
            self._next = next(self._lines, None)


@contextmanager
def _opened(path: Path, *, gzipped: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as out:
        if not gzipped:
            yield out
            return
        # Without a name and a time in it, the same lines are the same bytes.
        with gzip.GzipFile("", "wb", _LEVEL, cast("BytesIO", out), mtime=0) as packed:
            yield cast("IO[bytes]", packed)
