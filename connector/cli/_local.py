"""`demo` and `simulate`: everything on this machine, no account needed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console

from connector import demo as story
from connector.cli._answer import Answer, Call, console
from connector.cli._folder import loaded
from connector.cli._moments import moment
from connector.cli._runs import plan_json
from connector.cli._tables import table
from connector.config import is_loopback
from connector.errors import ConnectorError, UsageError
from connector.simulator import Served, Simulator, run_forever

_COLUMNS = {
    "profiles": ("read", "added", "changed", "unchanged", "withheld", "accepted", "requests"),
    "events": ("read", "already_sent", "planned", "accepted", "held", "requests"),
    "export": ("rows", "files", "bytes", "requests", "export_id"),
}
"""What the demo's tables show of a run, by the sync's kind."""

_DAGSTER_PORT = 3000
_PATIENCE = 20.0
"""Seconds that Dagster may take to end."""


def demo(call: Call, folder: Path | None, port: int, *, serve: bool) -> Answer:
    """Run the demo; with `serve`, keep it open in Dagster until Ctrl-C."""
    if serve and find_spec("dagster_webserver") is None:
        raise UsageError("dagster-webserver is not installed", remedy="install the extra 'ui', or leave --serve out")

    def tell(line: str) -> None:
        click.echo(line, err=call.json)

    with _ended_politely(), story.demonstrated(folder or story.default_folder(port), port, tell) as done:
        answer = Answer(_demo_json(done), lambda out: _show_demo(out, done), 1 if done.differing else 0)
        if serve:
            answer.show(console(stderr=call.json))
            _open_dagster(call, done)
            return answer._replace(show=lambda _out: None)

    def show(out: Console) -> None:
        answer.show(out)
        _show_ways_on(out, done)

    return answer._replace(show=show)


@contextmanager
def _ended_politely() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that it takes the children with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Keys(NamedTuple):
    """What opens the local API, and where that comes from."""

    project: str
    rest: str
    source: str
    folder: Path | None = None
    """Where the project's own local API keeps its profiles."""


def simulate(call: Call, *, port: int, folder: Path | None, project_key: str | None, rest_key: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    if (project_key is None) != (rest_key is None):
        raise UsageError("only one of --project-key and --rest-key is given", remedy="give both, or neither")
    keys = _Keys(project_key, rest_key, "the command line") if project_key and rest_key else _project_keys(call)
    home = folder or keys.folder
    with Simulator({keys.project: keys.rest}, folder=home) as simulator:
        run_forever(simulator, port, on_ready=lambda served: _ready(call, served, keys.source, home))


def _project_keys(call: Call) -> _Keys:
    try:
        project = loaded(call)
        batch = project.settings.batch
        found = [secret.read(project.root).get_secret_value() for secret in (batch.project_key, batch.rest_key)]
    except ConnectorError as error:
        if call.project:
            raise
        return _Keys("project_local_demo", "rest_local_demo", f"the demo's, as the project's cannot be read ({error})")
    host = batch.base_url.split("/")[2].rpartition(":")[0].strip("[]")
    local = is_loopback(host)  # the profiles of a project that talks to Batch itself have no place in its folder
    home = project.root / story.SIMULATOR_FOLDER if local else None
    return _Keys(found[0], found[1], f"the project in {project.root}", home)


def _ready(call: Call, served: Served, source: str, home: Path | None) -> None:
    if call.json:
        found = {"base_url": served.base_url, "control": f"{served.root}/simulator", "keys": source}
        click.echo(json.dumps({**found, "state": str(home) if home else None}))
        return
    lines = (
        f"the local Profile API listens; Ctrl-C ends it\n  base_url  {served.base_url}",
        f"  keys      {source}",
        f"  kept      {home or 'in memory only'}",
        f"read a page of profiles, or one:\n  curl {served.root}/simulator/profiles?limit=10",
        f"  curl {served.root}/simulator/profiles/CUSTOM_ID",
        f"read a page of events, or those of one profile:\n  curl {served.root}/simulator/events?limit=10",
        f"  curl '{served.root}/simulator/events?custom_id=CUSTOM_ID'",
        f"counts of calls:\n  curl {served.root}/simulator/requests",
        "make the next call fail, and take that back; forget everything:",
        f"""  curl -d '{{"status": 503}}' {served.root}/simulator/faults""",
        f"  curl -X DELETE {served.root}/simulator/faults",
        f"  curl -X POST {served.root}/simulator/reset",
    )
    click.echo("\n".join(lines))
    sys.stdout.flush()


def _demo_json(done: story.Demo) -> dict[str, Any]:
    return {
        "ok": not done.differing,
        "project": str(done.folder),
        "base_url": done.base_url,
        "runs": [_timed(report) for report in done.reports],
        "plan": plan_json(done.plan) if done.plan else None,
        "profile": done.profile,
        "event": done.event,
        "compared": done.profiles.compared,
        "differing": done.profiles.differing,
        "events_compared": done.events.compared,
        "events_differing": done.events.differing,
        "export": _timed(done.export),
        "rows_compared": done.rows.compared,
        "rows_differing": done.rows.differing,
        "made": [str(path) for path in done.made],
    }


def _timed(report: dict[str, Any]) -> dict[str, Any]:
    times = ("started", "finished", "closes")
    return {**report, **{name: moment(report[name]) for name in times if name in report}}


def _show_demo(out: Console, done: story.Demo) -> None:
    for sync in (story.SYNC, story.EVENTS):
        reports = [report for report in done.reports if report["sync"] == sync]
        columns = _COLUMNS[reports[0]["kind"]]
        rows = [
            (name, *(f"{report[column]:,}" for column in columns))
            for name, report in zip(("first run", "second run"), reports, strict=True)
        ]
        out.print()
        out.print(table((sync, *columns), rows, right=range(1, len(columns) + 1)))
    columns = _COLUMNS["export"]
    brought = [done.export["table"], *(_shown(done.export[column]) for column in columns)]
    out.print()
    out.print(table((story.EXPORT, *columns), [brought], right=range(1, len(columns))))
    if done.plan:
        changes = ", ".join(f"{name} {count}" for name, count in done.plan.by_attribute.items() if count)
        out.print(f"\nthe plan before the second run of customers: {done.plan.report.planned} rows; {changes}")
    _show_held(out, done)
    for holder, what, found in (
        ("the API", "profiles", done.profiles),
        ("the API", "events", done.events),
        (done.export["table"], "rows", done.rows),
    ):
        equal = f"{holder} holds what the warehouse says, in all {found.compared} {what}"
        out.print(f"{found.differing} of {found.compared} {what} differ" if found.differing else equal)
    out.print("made:")
    for path in done.made:
        out.print(f"  {path}", soft_wrap=True)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _show_held(out: Console, done: story.Demo) -> None:
    """A profile and an event."""
    out.print(f"\nprofile {done.profile.get('custom_id')} as the API holds it:")
    held = [(name, "native", value) for name, value in done.profile["native"].items()]
    held += [(name, value["type"], value["value"]) for name, value in done.profile["custom"].items()]
    out.print(table(("attribute", "type", "value"), held))
    if event := done.event:
        out.print(f"\nits last event, {event['name']} of {event['time']}:")
        parts = [(name, event["types"][name], value) for name, value in event["attributes"].items()]
        out.print(table(("attribute", "type", "value"), parts))
    out.print()


def _show_ways_on(out: Console, done: story.Demo) -> None:
    own = "" if done.folder == story.EXAMPLE.resolve() else f" --project {done.folder}"
    for line in ("go on with:", f"  connector{own} rejects {story.SYNC}", f"  connector{own} plan {story.EVENTS}"):
        out.print(line, soft_wrap=True)
    out.print(f"  connector{own} simulate --port {done.port}    (the local API, as this one ends now)", soft_wrap=True)
    out.print("  connector demo --serve     (all of it again, then Dagster on this project)")


def _open_dagster(call: Call, done: story.Demo) -> None:
    """`dagster dev` on the demo's project, until it or we are told to end."""
    port = _free_port()
    lines = f"local Profile API  {done.base_url}\nDagster            http://127.0.0.1:{port}\nCtrl-C ends both"
    click.echo(f"\n{lines}", err=call.json)
    sys.stdout.flush()
    workspace = Path("workspace.yaml")
    where = ["-w", str(workspace)] if workspace.is_file() else ["-m", "assets.definitions"]
    command = [sys.executable, "-m", "dagster", "dev", *where, "-h", "127.0.0.1", "-p", str(port)]
    environment = story.environment(done.folder)
    # In a group of its own: Dagster leaves a server behind for a while, which ends with the group.
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True)  # noqa: S603 - our own
    try:
        if process.wait():
            raise ConnectorError(f"Dagster ended with exit status {process.returncode}", remedy="its log says why")
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    for port in (_DAGSTER_PORT, 0):
        with socket.socket() as probe:
            if port and probe.connect_ex(("127.0.0.1", port)) == 0:
                continue  # somebody listens there
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise UsageError("there is no free port", remedy="free one")
