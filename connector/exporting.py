"""One export, from asking for it to its files on this disk: resumable after any end, and asked for once."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from connector._model import is_loopback
from connector.api import exports as api
from connector.api import files as remote
from connector.api._http import Access, NoAnswerError, connect
from connector.api.exports import Export, ExportFile
from connector.asking import Asker, Calls, pauses
from connector.config import ProjectSettings
from connector.errors import ExportError, PendingError
from connector.export_requests import is_ours
from connector.outcome import Answer
from connector.state import exports
from connector.state.database import State, translated
from connector.state.exports import Asked
from connector.state.files import checksum
from connector.state.lease import Lease
from connector.task import Progress

DEADLINE = 6 * 3600.0
"""Seconds after which a run no longer waits for an export; the next one looks at it again."""

FILE_BYTES_MAX = 1_000_000_000
"""Documented are 100 MB a file."""

ATTEMPTS = 5
"""Downloads of a file in a row that bring nothing new before the run gives up."""


class File(NamedTuple):
    """A file of an export, here and whole: its path, and the size that Batch says."""

    path: Path
    size: int


class Brought(NamedTuple):
    """An export with all its files."""

    asked: Asked
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Errand:
    """What it takes to bring an export: the state under a lease, the ways to Batch, and who is told."""

    state: State
    lease: Lease
    settings: ProjectSettings
    access: Access
    transport: httpx.AsyncBaseTransport | None
    progress: Progress
    calls: Calls


def bring(errand: Errand, asked: Asked) -> Brought:
    """Ask for the export unless Batch has it, wait until it is made, and fetch its files.

    Raises:
        ApiError: Batch refuses the keys.
        ExportError: The export failed, or is not whole: it is over.
        PendingError: It is not made yet, or Batch does not answer: the next run goes on with it.
        StateError: The disk is full, or the lease is lost.
    """
    return asyncio.run(_bring(errand, asked))


async def _bring(errand: Errand, asked: Asked) -> Brought:
    local = is_loopback(urlsplit(errand.access.base_url).hostname or "")
    timeout = errand.settings.delivery.timeout.total_seconds()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            connect(errand.access, timeout=timeout, connections=1, transport=errand.transport)
        )
        store = await stack.enter_async_context(remote.reach(local=local, timeout=timeout, transport=errand.transport))
        asker = Asker(client, errand.state, errand.settings, errand.calls)
        return await _Talk(errand, asker, store).brought(asked)


@dataclass(frozen=True, slots=True)
class _Talk:
    """An errand with its connections open."""

    errand: Errand
    asker: Asker
    store: remote.Store

    async def brought(self, asked: Asked) -> Brought:
        start = time.monotonic()
        asked = asked if asked.export_id else await self._requested(asked)
        export = await self._made(asked)
        files = _whole(export)
        self.errand.calls.seconds["wait"] = time.monotonic() - start
        start = time.monotonic()
        paths = []
        for done, file in enumerate(files):
            self.errand.progress("download", done, len(files))
            asked, path = await self._downloaded(asked, file, str(done + 1))
            paths.append(File(path, file.size))
        self.errand.progress("download", len(files), len(files))
        self.errand.calls.seconds["download"] = time.monotonic() - start
        return Brought(asked, tuple(paths))

    async def _requested(self, asked: Asked) -> Asked:
        """The export with Batch's id: of the one that an earlier request made, else of a new request."""
        while True:
            if found := await self._adopted(asked):
                # It may have been made before we asked: what it says is as old as that.
                moment = min(asked.asked_at, found.requested_at or asked.asked_at)
                adopted = asked._replace(state="requested", export_id=found.id, asked_at=moment)
                return exports.update(self._state, self._lease, adopted)
            asked = exports.update(self._state, self._lease, asked._replace(state="sent", asked_at=time.time()))
            if export_id := await self.asker.created(asked.request):
                return exports.update(self._state, self._lease, asked._replace(state="requested", export_id=export_id))

    async def _adopted(self, asked: Asked) -> Export | None:
        """The export that a request of unknown outcome made; looked for until it can no longer turn up."""
        if asked.state != "sent":
            return None
        known = exports.ours(self._state)
        patience = 2 * self.errand.settings.delivery.timeout.total_seconds()
        until = time.monotonic() + min(max(asked.asked_at + patience - time.time(), 0.0), patience)
        pause = pauses()
        while True:
            for export in await self._listed():
                if is_ours(export, asked.request, asked.asked_at, known):
                    return export
            if time.monotonic() >= until:
                return None
            self._keep_lease()
            await asyncio.sleep(min(next(pause), max(until - time.monotonic(), 0.0)))

    async def _listed(self) -> list[Export]:
        """Every export that Batch remembers; what order they come in is not documented."""
        found: list[Export] = []
        start: str | None = None
        seen: set[str] = set()
        while True:
            page, start = await self.asker.got(lambda: api.listing(self.asker.client, start), api.OK, api.listed)  # noqa: B023 - called at once
            found += page
            if start is None or start in seen:
                return found
            seen.add(start)

    async def _made(self, asked: Asked) -> Export:
        """The export, once it is made.

        Raises:
            ExportError: Batch could not make it.
            PendingError: It is not made within DEADLINE of the request.
        """
        export_id, pause = asked.export_id or "", pauses()
        while True:
            export = await self.asker.got(lambda: api.view(self.asker.client, export_id), api.OK, api.viewed)
            self.errand.progress(f"export {export.status.lower()[:20]}", 0, None)
            if export.status == "SUCCESS":
                return export
            if export.status == "ERROR":
                raise ExportError(f"Batch could not make the export {export_id}", remedy="run again: it is asked anew")
            if time.time() > asked.asked_at + DEADLINE:
                hours = f"{(time.time() - asked.asked_at) / 3600:.1f} hours"
                raise PendingError(
                    f"the export {export_id} is still {export.status} after {hours}",
                    remedy="the next run looks again; a day after it was asked for, a new one is",
                )
            self._keep_lease()
            await asyncio.sleep(next(pause))

    async def _downloaded(self, asked: Asked, file: ExportFile, place: str) -> tuple[Asked, Path]:
        """A file, here and as Batch keeps it; one that is here already is not fetched again."""
        folder = asked.folder(self._state)
        with translated(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / place
        before = (asked.files or {}).get(place)
        if before and before[0] == file.id and path.exists() and checksum(path) == before[1]:
            return asked, path
        await self._fetched(file, path)
        with translated(folder):
            mine = [file.id, checksum(path)]
        self.errand.calls.bytes += path.stat().st_size
        return exports.update(
            self._state, self._lease, asked._replace(files={**(asked.files or {}), place: mine})
        ), path

    async def _fetched(self, file: ExportFile, path: Path) -> None:
        if file.size > FILE_BYTES_MAX:
            raise ExportError(f"a file of the export has {file.size:,} bytes, at most {FILE_BYTES_MAX:,} are read")
        piece, idle, pause = remote.Piece(), 0, pauses()
        while True:
            url = await self.asker.got(lambda: api.link(self.asker.client, file.id), api.REDIRECT, _location)
            before = piece
            try:
                with translated(path.parent):
                    piece, whole = await remote.fetch(self.store, url, path, piece, file.size)
                if whole:
                    return
                why = "the connection ended early"
            except remote.ExpiredError:
                why = "its link was no longer good"
            except NoAnswerError as error:
                why = f"no usable answer: {error}"
            idle += 1
            if piece.size > before.size:
                idle, pause = 0, pauses()
            if idle == ATTEMPTS:
                raise PendingError(
                    f"a file of the export could not be fetched in {ATTEMPTS} attempts: {why}",
                    remedy="the next run goes on with this export",
                )
            self._keep_lease()
            await asyncio.sleep(next(pause))

    def _keep_lease(self) -> None:
        with self._state.write() as connection:
            self._lease.check(connection)

    @property
    def _state(self) -> State:
        return self.errand.state

    @property
    def _lease(self) -> Lease:
        return self.errand.lease


def _location(answer: Answer) -> str:
    url = answer.headers.get("location", "")
    if not url:
        raise NoAnswerError("a redirect that leads nowhere")
    return url


def _whole(export: Export) -> list[ExportFile]:
    """The export's files in order, each once.

    Raises:
        ExportError: A part is missing, or there twice.
    """
    files = sorted(dict.fromkeys(export.files), key=lambda file: file.part)
    parts = [file.part for file in files]
    if parts != list(range(1, len(files) + 1)) or len({file.id for file in files}) != len(files):
        raise ExportError(
            f"the export {export.id} names the parts {', '.join(map(str, parts[:20]))}: one is missing, or there twice",
            remedy="nothing was loaded; run again: a new export is asked for",
        )
    return files
