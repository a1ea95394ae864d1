"""The steps of `connector check`: each tries one thing that a run needs, and changes nothing anywhere."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from connector.api import profiles
from connector.api._http import Access, connect
from connector.cli._check_sources import Source, source
from connector.cli._tables import size
from connector.config import ExportSync, Outbound, Project, Sync
from connector.config._document import Document
from connector.config._yaml import read_document
from connector.errors import ApiError, ConfigError, ConnectorError, Problem, StateError
from connector.outcome import Outcome, Verdict
from connector.state import postgres
from connector.state.bucket import OWNER, bucket
from connector.state.database import open_state, translated
from connector.warehouses._base import Reader

TIMEOUT = 15.0
"""Seconds that the call to Batch may take."""


class Step(NamedTuple):
    """One thing that was tried: what came of it, and where the YAML speaks of it if it failed."""

    name: str
    message: str
    problem: Problem | None = None
    exit_status: int = 0


class _Place(NamedTuple):
    """A key of a file: None for connector.yaml, else a sync's name."""

    sync: str | None
    path: tuple[str, ...]


def checked(project: Project, syncs: Sequence[Sync]) -> list[Step]:
    """Every step for these syncs, in the order in which a run would need them."""
    tried = _Tried(project)
    tried.step("state folder", _Place(None, ("state",)), lambda: _state(project))
    for sync in syncs:
        tried.sync(sync)
    tried.step("Batch credentials", _Place(None, ("batch",)), lambda: _credentials(project))
    return tried.steps


class _Tried:
    """Steps as they are tried."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.steps: list[Step] = []

    def step(self, name: str, place: _Place, attempt: Callable[[], str]) -> bool:
        """Try; an error on purpose is a failed step."""
        try:
            self.steps.append(Step(name, attempt()))
        except ConnectorError as error:
            problem = _problem(self._project, place, error)
            self.steps.append(Step(name, str(error), problem, error.exit_status))
            return False
        return True

    def sync(self, sync: Sync) -> None:
        """The warehouse's side of a sync; the first step that fails ends it."""
        if isinstance(sync, ExportSync):
            place = _Place(sync.name, ("table",))
            self.step(f"{sync.name}: table", place, lambda: _table(self._project, sync))
            return
        warehouse = self._project.warehouse(sync)
        opened = warehouse.open(self._project.root, memory=self._project.settings.memory // 2)
        try:
            with opened as reader:
                self.steps.append(Step(f"{sync.name}: warehouse", f"'{sync.warehouse}' opens"))
                self._columns(sync, reader)
        except ConnectorError as error:
            problem = _problem(self._project, _Place(None, ("warehouses", sync.warehouse)), error)
            self.steps.append(Step(f"{sync.name}: warehouse", str(error), problem, error.exit_status))

    def _columns(self, sync: Outbound, reader: Reader) -> None:
        found: list[Source] = []

        def resolved() -> str:
            found.append(source(sync, reader.columns(sync.source.relation)))
            billed = reader.estimate(sync.source.relation, found[0].mapping.columns)
            return found[0].found + (f"; a full read is billed as {size(billed)}" if billed is not None else "")

        if self.step(f"{sync.name}: columns", _Place(sync.name, ("source",)), resolved):
            what, key = ("events", "source") if sync.kind == "events" else ("keys", "key")
            self.step(f"{sync.name}: {what}", _Place(sync.name, (key,)), lambda: found[0].examined(reader))


def _table(project: Project, sync: ExportSync) -> str:
    with project.warehouse(sync).load_into(project.root) as loader:
        made = loader.columns(sync.table) is not None
    return f"'{sync.table}' in '{sync.warehouse}' " + ("is there" if made else "is made by the first run")


def _state(project: Project) -> str:
    key = project.settings.batch.project_key.read(project.root)
    folder = project.state_dir
    server = project.state_server()
    where = server.bucket if server and server.bucket else folder
    with translated(folder):
        made = folder.exists() if server is None else postgres.has_state(server)
    if made:
        with open_state(folder, key.get_secret_value(), server):
            return f"'{where}' is this project's" + (f", and so is {server}" if server else "")
    if server and server.bucket:
        bucket(server.bucket, folder).read(OWNER)  # whether it lets us look
    parent = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise StateError(
            f"the state folder '{folder}' cannot be made: '{parent}' may not be written to",
            remedy="correct its permissions, or set `state:` to another folder",
        )
    return f"the first run makes '{where}'" + (f" and {server}" if server else "")


def _credentials(project: Project) -> str:
    batch = project.settings.batch
    access = Access(batch.base_url, batch.project_key.read(project.root), batch.rest_key.read(project.root))
    outcome = asyncio.run(_probed(access))
    host = urlsplit(batch.base_url).netloc
    match outcome.verdict:
        case Verdict.SPLIT | Verdict.ACCEPTED:
            return f"{host} takes the keys (inferred: it judged an empty request, which changes nobody)"
        case Verdict.STOP:
            remedy = "check batch.project_key, batch.rest_key and batch.base_url"
            raise ApiError(f"{host} refuses the keys: {outcome.reason}", remedy=remedy)
        case _:
            remedy = "check batch.base_url and this machine's network, or try again later"
            raise ApiError(f"{host} gave no usable answer: {outcome.reason}", remedy=remedy)


async def _probed(access: Access) -> Outcome:
    async with connect(access, timeout=TIMEOUT, connections=1) as client:
        return await profiles.probe(client)


def _problem(project: Project, place: _Place, error: ConnectorError) -> Problem:
    """The error, where the YAML speaks of what failed."""
    if isinstance(error, ConfigError) and error.problems:
        return error.problems[0]
    document = _document(project, place.sync)
    return Problem(document.file, *document.place(place.path, key=True), str(error))


def _document(project: Project, sync: str | None) -> Document:
    if sync is None:
        return read_document(project.root / "connector.yaml", "connector.yaml")
    documents = _sync_documents(project.root)
    return next(document for stem, document in documents if (document.at(("name",)) or stem) == sync)


def _sync_documents(root: Path) -> Iterator[tuple[str, Document]]:
    for path in sorted((root / "syncs").glob("*.yaml")):
        yield path.stem, read_document(path, f"syncs/{path.name}")
