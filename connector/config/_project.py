"""A project folder, read whole: `connector.yaml`, `syncs/*.yaml`, and every mistake of every file at once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import connector
from connector.api._http import Access
from connector.config import _across as across
from connector.config._across import PROJECT_FILE
from connector.config._document import Document
from connector.config._kinds import SYNC_MODELS, Sync, SyncKind
from connector.config._problems import parsed
from connector.config._settings import ProjectSettings
from connector.config._wording import listing, quoted, suggestion
from connector.config._yaml import read_document
from connector.errors import ConfigError, Problem, UsageError
from connector.warehouses import Warehouse

if TYPE_CHECKING:
    from connector.state.postgres import Server

SYNC_FOLDER = "syncs"
PROJECT_VARIABLE = "CONNECTOR_PROJECT"
"""The environment variable that names the project folder."""


@dataclass(frozen=True)
class Project:
    """A project whose files are all right; a frozen copy, so that an edit during a run changes nothing."""

    root: Path
    settings: ProjectSettings
    syncs: dict[str, Sync]

    @property
    def state_dir(self) -> Path:
        """The folder that holds what was delivered and what is due; its copies, where a bucket holds it."""
        state = self.settings.state
        return self.root / (state.cache if state.bucket else state.files)

    def state_server(self) -> "Server | None":
        """Where the state's tables are, if not in its folder; the URL is read now from where the YAML says it is kept.

        Raises:
            ConfigError: It is missing, or no URL of a PostgreSQL database.
        """
        settings = self.settings.state
        if settings.database is None:
            return None
        from connector.state import postgres  # noqa: PLC0415 - settings load where a start must be quick

        try:
            url = settings.database.read(self.root)
        except ConfigError as error:
            raise ConfigError(f"state.database: {error.message}", remedy=error.remedy) from None
        return postgres.server(url.get_secret_value(), settings.schema_)._replace(bucket=settings.bucket)

    def sync(self, name: str) -> Sync:
        """The sync of that name.

        Raises:
            UsageError: The project has none.
        """
        if name not in self.syncs:
            near = suggestion(name, self.syncs).removeprefix("; ")
            raise UsageError(
                f"there is no sync {quoted(name)} in this project",
                remedy=near or f"it has {listing(self.syncs, 'and')}",
            )
        return self.syncs[name]

    def access(self) -> Access:
        """Where Batch is, and the keys, read now from where the YAML says they are kept.

        Raises:
            ConfigError: A key is missing; names all that are.
        """
        batch = self.settings.batch
        found, missing = [], []
        for name, secret in (("batch.project_key", batch.project_key), ("batch.rest_key", batch.rest_key)):
            try:
                found.append(secret.read(self.root))
            except ConfigError as error:
                missing.append(ConfigError(f"{name}: {error.message}", remedy=error.remedy))
        if missing:
            raise ConfigError("; ".join(error.message for error in missing), remedy=missing[0].remedy)
        return Access(batch.base_url, *found)

    def warehouse(self, sync: Sync) -> Warehouse:
        """The settings of the sync's warehouse."""
        return self.settings.warehouses[sync.warehouse]


def find_project(explicit: Path | None = None) -> Path:
    """The project folder: the given one, else `CONNECTOR_PROJECT`, else the current folder, else the example.

    Raises:
        UsageError: The given folder is no project.
        ConfigError: The folder of `CONNECTOR_PROJECT` is no project, or there is no project anywhere.
    """
    if explicit is not None:
        if not _is_project(explicit):
            raise UsageError(f"there is no {PROJECT_FILE} in '{explicit}'", remedy="name the folder that holds it")
        return explicit.resolve()
    if named := os.environ.get(PROJECT_VARIABLE):
        if not _is_project(Path(named)):
            raise ConfigError(
                f"{PROJECT_VARIABLE} names '{named}', which has no {PROJECT_FILE}",
                remedy="name the folder that holds it",
            )
        return Path(named).resolve()
    example = Path(connector.__file__).parent.parent / "assets" / "project"
    for folder in (Path.cwd(), example):
        if _is_project(folder):
            return folder.resolve()
    raise ConfigError(f"there is no {PROJECT_FILE} in this folder", remedy="name the project folder with --project")


def _is_project(folder: Path) -> bool:
    try:
        return (folder / PROJECT_FILE).is_file()
    except OSError:  # a folder that may not be looked into
        return False


def load_project(root: Path) -> Project:
    """The project in the folder. Reads its files only: no network, no warehouse, no value of the environment.

    Raises:
        ConfigError: With every mistake of every file in `problems`.
    """
    root = root.resolve()
    main = _main_document(root)
    settings = parsed(ProjectSettings, main, root=root)
    documents = _sync_documents(root)
    syncs: dict[str, Sync] = {}
    names: dict[str, str] = {}
    claims: dict[str, str] = {}
    for document in documents:
        stem = Path(document.file).stem
        sync = _sync(document, root, stem)
        across.check_warehouse(document, main)
        across.check_name(document, names, sync.name if sync else document.at(("name",)) or stem)
        if sync and sync.name not in syncs:
            across.check_claims(document, claims, sync)
            syncs[sync.name] = sync
    for document in documents:
        if sync := syncs.get(str(document.at(("name",)) or Path(document.file).stem)):
            across.check_opt_outs(document, sync, syncs)
            across.check_feed(document, sync, settings)
    problems = [problem for document in (main, *documents) for problem in document.problems]
    if problems or settings is None:
        raise _config_error(problems)
    return Project(root, settings, syncs)


def _main_document(root: Path) -> Document:
    if _is_project(root):
        return read_document(root / PROJECT_FILE, PROJECT_FILE)
    stray = root / "connector.yml"
    remedy = f"rename connector.yml to {PROJECT_FILE}" if stray.is_file() else "write it, or name another folder"
    return _refused(PROJECT_FILE, f"there is no such file; {remedy}")


def _sync_documents(root: Path) -> list[Document]:
    """The files of `syncs/` by name; refused ones too, and one for the folder where it holds none."""
    try:
        paths = sorted(path for path in (root / SYNC_FOLDER).iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        paths = []
    except OSError as error:
        return [
            _refused(
                f"{SYNC_FOLDER}/",
                f"the folder cannot be read ({type(error).__name__}); check its permissions",
            )
        ]
    documents = [_sync_document(path) for path in paths if path.suffix.lower() in (".yaml", ".yml")]
    return documents or [
        _refused(f"{SYNC_FOLDER}/", "there is no sync; write one file a sync, such as syncs/customers.yaml")
    ]


def _sync_document(path: Path) -> Document:
    file = f"{SYNC_FOLDER}/{path.name.encode(errors='replace').decode()}"
    if path.suffix == ".yaml":
        return read_document(path, file)
    return _refused(file, f"only files named .yaml are syncs; rename it to {Path(file).stem}.yaml")


def _sync(document: Document, root: Path, stem: str) -> Sync | None:
    """The file's sync; None where it is refused. Of an unknown kind nothing else is said: it decides the other keys."""
    known = parsed(SyncKind, document, root=root)
    return parsed(SYNC_MODELS[known.kind], document, root=root, given={"name": stem}) if known else None


def _refused(file: str, message: str) -> Document:
    document = Document(file, unknown={()})
    document.refuse(document.place(()), message)
    return document


def _config_error(problems: list[Problem]) -> ConfigError:
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.file != PROJECT_FILE, *problem)))
    first = str(ordered[0])
    message = first if len(ordered) == 1 else f"{len(ordered)} mistakes in the configuration, the first in {first}"
    return ConfigError(message, remedy="correct the YAML and try again", problems=ordered)
