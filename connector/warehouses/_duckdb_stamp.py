"""When a DuckDB table may have changed: when its file may have, as DuckDB knows no time of a table's last change."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from connector.warehouses._base import digest
from connector.warehouses._names import parts

RACY_SECONDS = 2.0
"""A file written to so recently may be written to again and bear the same time: that of FAT goes in steps of 2 s."""

TOLD = """
    SELECT EXISTS (FROM duckdb_tables() WHERE NOT temporary AND lower(table_name) = lower($own))
    AND NOT EXISTS (FROM duckdb_views() WHERE lower(view_name) = lower($own))
    AND NOT EXISTS (
        FROM duckdb_tables()
        WHERE lower(schema_name) = lower($ours) OR (lower(table_name) = lower($own) AND sql ILIKE '%GENERATED%')
    )
"""
"""Whether the file tells of a table: it is one, and no view, which may read elsewhere, is called so; no column
of it is computed; and `engine: warehouse` keeps no snapshot in the file, as then each of its runs writes to it.
"""


class Files(NamedTuple):
    """A database's files, as they stood before it was opened.

    Before: what is read then may be newer than this says, and never older, also where the file is put in another's
    place meanwhile.
    """

    stats: tuple[tuple[int, ...], ...]
    """Device, inode, size and times of the database, and of its write-ahead log where there is one."""
    written_at: float
    """When the younger of them was written to, in seconds since 1970."""
    ours: str
    """The schema in which snapshots of ours would be."""


def files(path: str, ours: str) -> Files | None:
    """The files of a database; None where there are none, as of one in memory."""
    found = []
    with suppress(OSError):
        found.append(Path(path).stat())
        found.append(Path(path + ".wal").stat())
    if not found:
        return None
    stats = tuple((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for at in found)
    return Files(stats, max(at.st_mtime for at in found), parts(ours)[-1].text)


def stamp(files: Files, now: datetime) -> str | None:
    """The stamp of all tables of the files.

    Args:
        files: From before the database was opened.
        now: The clock while it is open, and so locked: who writes, writes later.
    """
    return digest(files.stats) if now.timestamp() - files.written_at >= RACY_SECONDS else None
