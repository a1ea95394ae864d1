"""`compact`: fold what is remembered into fewer files."""

from collections.abc import Sequence

from rich.console import Console

from connector.cli._answer import Answer, Call
from connector.cli._folder import loaded
from connector.cli._tables import size, table
from connector.compaction import Compaction, compact_sync
from connector.config import ExportSync
from connector.errors import UsageError


def compact(call: Call, sync: str | None) -> Answer:
    """Of one sync or of all that send rows.

    Raises:
        UsageError: The sync is an export, of which nothing is remembered.
    """
    project = loaded(call)
    asked = [project.sync(sync)] if sync else list(project.syncs.values())
    outbound = [one for one in asked if not isinstance(one, ExportSync)]
    if sync and not outbound:
        raise UsageError(f"'{sync}' is an export: nothing that it delivered is remembered", remedy="name another sync")
    done = [compact_sync(project, one) for one in outbound]
    return Answer([one._asdict() for one in done], lambda out: _show(out, done))


def _show(out: Console, done: Sequence[Compaction]) -> None:
    rows = [
        (one.sync, f"{one.files_before} → {one.files_after}", f"{size(one.bytes_before)} → {size(one.bytes_after)}")
        for one in done
    ]
    out.print(table(("sync", "files", "size"), rows, right=(1, 2)))
