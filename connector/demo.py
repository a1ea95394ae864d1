"""The demo: invented rows in DuckDB, a local Profile API, runs through Dagster, an export, and a comparison."""

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

import connector
from connector import invented, proof
from connector.config import Project, load_project
from connector.errors import ConnectorError, UsageError
from connector.plan import Plan, plan_sync
from connector.proof import Compared
from connector.simulator import Simulator, serve
from connector.state import runs
from connector.state.database import open_state

SYNC, EVENTS, EXPORT = "customers", "orders", "profile_attributes"
FOLDER = Path("connector-demo")
"""Where the demo goes when there is no checkout around it."""

SIMULATOR_FOLDER = ".simulator"
PORT = 8765

_MARKER = "made-by-the-demo"
_PACKAGES = Path(connector.__file__).parent.parent
EXAMPLE = _PACKAGES / "assets" / "project"

_WAREHOUSE = "warehouse.duckdb"
_MADE = (_WAREHOUSE, f"{_WAREHOUSE}.wal", ".connector", SIMULATOR_FOLDER)
_SHOWN = "customer-0100"

_MATERIALIZE = """
import sys
from assets.materialize import main
for sync in sys.argv[1:]:
    if status := main([sync]):
        sys.exit(status)
"""
"""One process for all of them: Dagster takes seconds to start."""

Say = Callable[[str], None]


@dataclass
class Demo:
    """What happened.

    Attributes:
        folder: The project.
        port: Of the local API, which answers as long as the demo's context is open.
        base_url: The same, for a client.
        reports: One a run of the two syncs, in order.
        export: The report of the export's run.
        plan: Of the customers, made before their second run.
        profile: A profile that changed, as the API holds it.
        event: Its last event, likewise.
        profiles: How many are not what the warehouse says.
        events: How many are missing, not what the warehouse says, there twice, or behind a later one of their profile.
        rows: How many of the export's table are missing, there twice, or not what the warehouse says.
    """

    folder: Path
    port: int
    base_url: str
    reports: list[dict[str, Any]] = field(default_factory=list)
    export: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    profile: dict[str, Any] = field(default_factory=dict)
    event: dict[str, Any] = field(default_factory=dict)
    profiles: Compared = field(default_factory=Compared)
    events: Compared = field(default_factory=Compared)
    rows: Compared = field(default_factory=Compared)

    @property
    def differing(self) -> int:
        """Profiles, events and rows that are not right."""
        return self.profiles.differing + self.events.differing + self.rows.differing

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
        _runs(demo, project, say)
        _prove(demo, project, simulator)
        found = {"profiles": demo.profiles, "events": demo.events, "rows of the export": demo.rows}
        same = ", ".join(f"{each.differing} of {each.compared} {what}" for what, each in found.items())
        say(f"5/5  compared with the warehouse: {same} differ")
        yield demo


def _runs(demo: Demo, project: Project, say: Say) -> None:
    """Both syncs, a day's changes, both again: attributes before events, which may start an automation; an export."""
    warehouse = project.root / _WAREHOUSE
    invented.make(warehouse, _now())
    made = f"{invented.CUSTOMERS} invented customers and {invented.ORDERS} orders are in DuckDB"
    say(f"1/5  {made}, a local Profile API listens on port {demo.port}")
    say("2/5  first runs, through Dagster: every customer and every order is new")
    demo.reports += _materialized(project, SYNC, EVENTS)
    invented.change(warehouse, _now())
    ordered = f"{invented.UPGRADED} orders and {invented.NEW} customers arrived"
    say(f"3/5  {invented.UPGRADED + 1} customers changed, {ordered}; planned what that means")
    demo.plan = plan_sync(project, SYNC)
    say("4/5  second runs, through Dagster: only what is new goes; then an export brings the profiles back")
    *seconds, demo.export = _materialized(project, SYNC, EVENTS, EXPORT)
    demo.reports += seconds


def _prove(demo: Demo, project: Project, simulator: Simulator) -> None:
    """Compare all that the API holds, and what came back, with the warehouse."""
    warehouse = project.root / _WAREHOUSE
    held = {profile["custom_id"]: profile for profile in simulator.profiles()}
    told = proof.profile_attributes(project.sync(SYNC))
    customers = invented.rows(warehouse, "marts.customers")
    demo.profiles = proof.compare_profiles(customers, held, told)
    kept = proof.event_attributes(project.sync(EVENTS))
    demo.events = proof.compare_events(invented.rows(warehouse, "marts.orders"), simulator.events(), kept)
    if (brought := proof.exported_attributes(project.sync(EXPORT))) is not None:
        landed = invented.rows(warehouse, demo.export["table"])
        demo.rows = proof.compare_table(customers, landed, told & brought)
    demo.profile = held.get(_SHOWN, {})
    demo.event = next(reversed(simulator.events(_SHOWN)), {})


def _now() -> datetime:
    """As the warehouse has it: naive, in UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


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


def _materialized(project: Project, *syncs: str) -> list[dict[str, Any]]:
    """The reports of the syncs' runs through Dagster: in a process of its own, as this library knows nothing of it."""
    command = [sys.executable, "-c", _MATERIALIZE, *syncs]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=_PACKAGES, env=environment(project.root), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ConnectorError(f"a run through Dagster ended with exit status {done.returncode}", remedy=last)
    key = project.settings.batch.project_key.read(project.root).get_secret_value()
    with open_state(project.state_dir, key, project.state_server()) as state:
        return [runs.reports(state, sync)[0] for sync in syncs]


def environment(folder: Path) -> dict[str, str]:
    """This process's variables, with the project that Dagster is to load."""
    paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "CONNECTOR_PROJECT": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


__all__ = [
    "EVENTS",
    "EXAMPLE",
    "EXPORT",
    "FOLDER",
    "PORT",
    "SIMULATOR_FOLDER",
    "SYNC",
    "Demo",
    "default_folder",
    "demonstrated",
    "environment",
]
