"""The demo: invented customers in DuckDB, a local Profile API, two runs through Dagster, and a comparison."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

import connector
from connector import invented
from connector.config import ProfileSync, Project, load_project
from connector.errors import ConnectorError, UsageError
from connector.plan import Plan, plan_sync
from connector.simulator import Simulator, serve
from connector.state import runs
from connector.state.database import open_state

SYNC = "customers"
FOLDER = Path("connector-demo")
"""Where the demo goes when there is no checkout around it."""

SIMULATOR_FOLDER = ".simulator"
PORT = 8765

_MARKER = "made-by-the-demo"
_PACKAGES = Path(connector.__file__).parent.parent
EXAMPLE = _PACKAGES / "assets" / "project"

_MADE = ("warehouse.duckdb", "warehouse.duckdb.wal", ".connector", SIMULATOR_FOLDER)

Say = Callable[[str], None]


@dataclass
class Demo:
    """What happened.

    Attributes:
        folder: The project.
        port: Of the local API, which answers as long as the demo's context is open.
        base_url: The same, for a client.
        reports: One a run, in order.
        plan: Made before the second run.
        profile: A profile that changed, as the API holds it.
        differing: Profiles that are not what the warehouse says; 0 is right.
        compared: Profiles that were compared.
    """

    folder: Path
    port: int
    base_url: str
    reports: list[dict[str, Any]] = field(default_factory=list)
    plan: Plan | None = None
    profile: dict[str, Any] = field(default_factory=dict)
    differing: int = 0
    compared: int = 0

    @property
    def made(self) -> list[Path]:
        """What the demo made and left."""
        return [path for name in _MADE if (path := self.folder / name).exists()]


def default_folder(port: int) -> Path:
    """The example of the checkout that this is run in, else a folder of its own."""
    local = Path("assets") / "project"
    return local if port == PORT and (local / "connector.yaml").is_file() else FOLDER


@contextmanager
def demonstrated(folder: Path, port: int, say: Say) -> Iterator[Demo]:
    """The demo, done; the local API stays up as long as the context.

    Args:
        folder: Where; what an earlier demo made there is made anew, anything else is refused.
        port: Of the local API.
        say: Told each step.

    Raises:
        UsageError: The folder holds something else, or the port is taken.
        ConnectorError: A run was not green.
    """
    folder = folder.resolve()
    _require_free(port)
    _prepare(folder, port)
    project = load_project(folder)
    batch = project.settings.batch
    keys = {batch.project_key.read(folder).get_secret_value(): batch.rest_key.read(folder).get_secret_value()}
    with Simulator(keys, folder=folder / SIMULATOR_FOLDER) as simulator, serve(simulator, port=port) as served:
        demo = Demo(folder, port, served.base_url)
        warehouse = folder / "warehouse.duckdb"
        invented.make(warehouse)
        say(f"1/5  {invented.CUSTOMERS} invented customers are in DuckDB, a local Profile API listens on port {port}")
        say("2/5  first run, through Dagster: every customer is new")
        demo.reports.append(_run(project))
        invented.change(warehouse, datetime.now(UTC).replace(tzinfo=None))
        say(f"3/5  {invented.UPGRADED + 1} rows changed and {invented.NEW} arrived; planned what that means")
        demo.plan = plan_sync(project, SYNC)
        say("4/5  second run, through Dagster: only the differences go")
        demo.reports.append(_run(project))
        held = {profile["custom_id"]: profile for profile in simulator.profiles()}
        demo.profile = held.get("customer-0100", {})
        demo.differing, demo.compared = _compared(warehouse, held, _told(project.sync(SYNC)))
        say(f"5/5  compared {demo.compared} profiles with the warehouse: {demo.differing} differ")
        yield demo


def _prepare(folder: Path, port: int) -> None:
    """The example's YAML in the folder, and nothing of an earlier demo."""
    if folder == EXAMPLE.resolve():
        if port != PORT:
            raise UsageError(f"the example's YAML says port {PORT}", remedy="give another folder with --dir")
    else:
        _copy_example(folder, port)
    marker = folder / SIMULATOR_FOLDER / _MARKER
    found = [name for name in _MADE if (folder / name).exists()]
    if found and not marker.is_file():
        raise UsageError(
            f"'{folder}' has a {found[0]} that the demo did not make",
            remedy="move it away, or give another folder with --dir",
        )
    for name in found:
        _remove(folder / name)
    marker.parent.mkdir(parents=True)
    marker.touch()
    (marker.parent / ".gitignore").write_text("*\n", encoding="utf-8")


def _copy_example(folder: Path, port: int) -> None:
    """The example's files, its port replaced; a file that says something else is somebody's work and is refused."""
    for source in sorted(EXAMPLE.rglob("*")):
        name = source.relative_to(EXAMPLE)
        if name.parts[0] not in ("connector.yaml", "syncs", "keys") or not source.is_file():
            continue
        text = _with_port(source.read_text(encoding="utf-8"), port)
        target = folder / name
        if target.exists() and _with_port(target.read_text(encoding="utf-8"), port) != text:
            raise UsageError(
                f"'{target}' is not what the demo would write",
                remedy="give a new folder with --dir",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def _with_port(text: str, port: int) -> str:
    return re.sub(r"(http://127\.0\.0\.1:)\d+", rf"\g<1>{port}", text)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _require_free(port: int) -> None:
    """Before anything is removed: who listens there may be using it."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise UsageError(
            f"the local API cannot listen on port {port}: {os.strerror(error.errno or 0)}",
            remedy="end what listens there (perhaps `connector simulate`), or give another port with --port and --dir",
        ) from None


def _run(project: Project) -> dict[str, Any]:
    """The report of a run through Dagster: in a process of its own, as this library knows nothing of Dagster."""
    command = [sys.executable, "-m", "assets.materialize", SYNC]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=_PACKAGES, env=environment(project.root), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ConnectorError(f"the run through Dagster ended with exit status {done.returncode}", remedy=last)
    key = project.settings.batch.project_key.read(project.root).get_secret_value()
    with open_state(project.state_dir, key) as state:
        return runs.reports(state, SYNC)[0]


def environment(folder: Path) -> dict[str, str]:
    """This process's variables, with the project that Dagster is to load."""
    paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "CONNECTOR_PROJECT": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def _compared(warehouse: Path, held: dict[str, dict[str, Any]], told: frozenset[str]) -> tuple[int, int]:
    """How many profiles differ from the warehouse's rows in `told` attributes, and how many there are on either side.

    Its own reading of what each column means: it shares no code with the sync that it checks.
    """
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        rows = connection.execute("FROM marts.customers").fetchall()
        names = [column[0] for column in connection.description or ()]
    expected = {row["custom_id"]: _expected(row) for row in (dict(zip(names, row, strict=True)) for row in rows)}
    everybody = expected.keys() | held.keys()
    differ = 0
    for key in everybody:
        here, there = expected.get(key), _comparable(held.get(key))
        differ += here is None or there is None or _only(here, told) != _only(there, told)
    return differ, len(everybody)


def _only(attributes: dict[str, tuple[str, object]], told: frozenset[str]) -> dict[str, tuple[str, object]]:
    return {name: pair for name, pair in attributes.items() if name in told}


def _told(sync: ProfileSync) -> frozenset[str]:
    """The attributes that the sync still maps as the example does: of what somebody edited, this demo knows nothing."""
    mapped = sync.attributes or {}
    return frozenset(name for name, column in _COLUMNS.items() if name in mapped and mapped[name].column == column)


_COLUMNS = {
    "$email_address": "email", "$phone_number": "phone", "$language": "language", "first_name": "first_name",
    "birthdate": "born_on", "plan": "plan_name", "interests": "interests", "orders": "orders", "spend": "spend",
}  # fmt: skip
"""Where the example's attributes come from."""


def _expected(row: dict[str, Any]) -> dict[str, tuple[str, object]]:
    """An attribute's type and value as the API should hold them; the two invented bad values should be absent."""
    phone = row["phone"] if row["phone"] and row["phone"].startswith("+") else None
    email = row["email"] if "@" in row["email"] else None
    attributes = {
        "$email_address": ("native", email),
        "$phone_number": ("native", phone),
        "$language": ("native", row["language"]),
        "first_name": ("string", row["first_name"]),
        "birthdate": ("date", f"{row['born_on']}T00:00:00Z" if row["born_on"] else None),
        "plan": ("string", row["plan_name"]),
        "interests": ("array", sorted(row["interests"])),
        "orders": ("integer", row["orders"]),
        "spend": ("float", float(row["spend"])),
    }
    return {name: pair for name, pair in attributes.items() if pair[1] not in (None, [])}


def _comparable(profile: dict[str, Any] | None) -> dict[str, tuple[str, object]] | None:
    if profile is None:
        return None
    native = {name: ("native", value) for name, value in profile["native"].items()}
    custom = {
        name: (held["type"], sorted(held["value"]) if held["type"] == "array" else held["value"])
        for name, held in profile["custom"].items()
    }
    return {**native, **custom}


__all__ = [
    "EXAMPLE",
    "FOLDER",
    "PORT",
    "SIMULATOR_FOLDER",
    "SYNC",
    "Demo",
    "default_folder",
    "demonstrated",
    "environment",
]
