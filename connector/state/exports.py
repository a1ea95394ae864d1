"""Exports that were asked for: noted before Batch hears of them, so that none is asked for twice and none is lost."""

import shutil
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from connector.state.database import EXPORTS, State, translated
from connector.state.lease import Lease

KEPT = 100
"""Exports of a sync that are over and still known: their ids tell that they are ours."""

STALE_SECONDS = 86_400.0
"""Age at which an export that was never loaded is asked for anew: it says what was, not what is."""

End = Literal["loaded", "failed"]

_OPEN = ("intended", "sent", "requested")


class Asked(NamedTuple):
    """An export as it was asked for.

    Attributes:
        number: Ours.
        state: `intended`: Batch does not have it; `sent`: perhaps it has; `requested`: it has; `loaded` or `failed`:
            it is over.
        request: The body of the request.
        scope: What its window continues: another scope starts from the beginning.
        asked_at: When Batch was last asked for it (where it was not: when it was noted), in seconds since 1970.
        export_id: Batch's.
        files: Id and SHA-256 of each file that is here whole, by its place.
    """

    number: int
    state: str
    request: dict[str, Any]
    scope: str
    asked_at: float
    export_id: str | None
    files: dict[str, list[str]] | None

    @property
    def is_stale(self) -> bool:
        """Whether it was asked for so long ago that it is asked for anew."""
        return time.time() - self.asked_at >= STALE_SECONDS

    def folder(self, state: State) -> Path:
        """Where its files lie as long as it is open."""
        return state.folder / "outbox" / f"#export-{self.number}"


def open_export(state: State, sync: str) -> Asked | None:
    """The sync's export that is not over; there is one at most."""
    found = _found(state, (EXPORTS.c.sync == sync) & EXPORTS.c.state.in_(_OPEN))
    return found[0] if found else None


def last_loaded(state: State, sync: str, scope: str) -> Asked | None:
    """The sync's newest export of that scope that was loaded."""
    found = _found(state, (EXPORTS.c.sync == sync) & (EXPORTS.c.scope == scope) & (EXPORTS.c.state == "loaded"))
    return found[0] if found else None


def ours(state: State) -> set[str]:
    """Batch's ids of every export that some sync asked for."""
    with state.read() as connection:
        return set(connection.execute(sa.select(EXPORTS.c.export_id).where(EXPORTS.c.export_id.is_not(None))).scalars())


def ask_anew(state: State, lease: Lease, left: Asked | None, request: dict[str, Any], scope: str) -> Asked:
    """A new export, noted before Batch is asked for it, in place of the one that was left open."""
    now = time.time()
    values = {"sync": lease.sync, "state": "intended", "request": request, "scope": scope, "asked_at": now}
    with state.write() as connection:
        lease.check(connection)
        if left:
            close(connection, lease.sync, left.number, "failed")
        inserted = connection.execute(sa.insert(EXPORTS).values(values)).inserted_primary_key
    if left:
        discard(state, left)
    return Asked(int(inserted[0]) if inserted else 0, "intended", request, scope, now, None, None)


def update(state: State, lease: Lease, asked: Asked) -> Asked:
    """Note what became of an export; itself."""
    values = asked._asdict()
    number = values.pop("number")
    with state.write() as connection:
        lease.check(connection)
        connection.execute(sa.update(EXPORTS).where(EXPORTS.c.number == number).values(values))
    return asked


def close(connection: sa.Connection, sync: str, number: int, end: End) -> None:
    """The export is over. The oldest of the sync are forgotten, but for the newest that was loaded."""
    connection.execute(sa.update(EXPORTS).where(EXPORTS.c.number == number).values(state=end))
    of_sync = EXPORTS.c.sync == sync
    newest = sa.select(EXPORTS.c.number).where(of_sync).order_by(EXPORTS.c.number.desc()).limit(KEPT)
    loaded = sa.select(sa.func.coalesce(sa.func.max(EXPORTS.c.number), 0)).where(of_sync, EXPORTS.c.state == "loaded")
    old = EXPORTS.c.number.not_in(newest) & EXPORTS.c.number.not_in(loaded)
    connection.execute(sa.delete(EXPORTS).where(of_sync & old))


def discard(state: State, asked: Asked) -> None:
    """Remove an export's files: values lie on disk only while it is open."""
    with translated(state.folder):
        shutil.rmtree(asked.folder(state), ignore_errors=True)


def sweep(state: State) -> None:
    """Remove the files of exports that are over, stale or unknown, whosever they were: they hold lines in clear.

    An export that goes on all the same fetches them again.
    """
    kept = {asked.folder(state) for asked in _found(state, EXPORTS.c.state.in_(_OPEN)) if not asked.is_stale}
    for folder in (state.folder / "outbox").glob("#export-*"):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _found(state: State, which: sa.ColumnElement[bool]) -> list[Asked]:
    names = [EXPORTS.c[name] for name in Asked._fields]
    query = sa.select(*names).where(which).order_by(EXPORTS.c.number.desc())
    with state.read() as connection:
        return [Asked(*row) for row in connection.execute(query)]
