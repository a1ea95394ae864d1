"""The commands, their arguments and their help; each loads the code behind it when it is called."""
# ruff: noqa: PLC0415 - `connector --help` must not wait for Polars

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from connector.cli._answer import Answer, Call, give
from connector.cli._moments import window as read_window
from connector.errors import UsageError

LATER = ("erase", "explain", "init")
"""Commands of the contract that a later version brings."""

Body = Callable[..., Answer]


class _Group(click.Group):
    """Knows the commands that are not there yet by name."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER:
            ctx.obj.command = cmd_name
            _not_yet(cmd_name)
        return super().get_command(ctx, cmd_name)


def _not_yet(name: str) -> NoReturn:
    raise UsageError(f"'{name}' is not available yet", remedy="see what is: connector --help")


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        import connector

        click.echo(f"connector {connector.__version__}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print it.")
@click.option(
    "--project",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The project folder; by default $CONNECTOR_PROJECT, this folder, or the example.",
)
@click.pass_obj
def commands(call: Call, project: Path | None) -> None:
    """Sync a warehouse's rows to profiles and events at Batch: only what is new.

    Exit status: 0 green, 1 failed, 2 usage or configuration, 3 incomplete, 4 guarded, 5 busy, 143 SIGTERM.
    """
    call.project = project


def answers(body: Body) -> Callable[..., Any]:
    """Adds --json, and prints what the body answers."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else there.")
    @wraps(body)
    def command(*, as_json: bool, **arguments: Any) -> int:  # noqa: ANN401 - as click read them
        ctx = click.get_current_context()
        call: Call = ctx.obj
        call.command, call.json, call.sync = ctx.info_name or "", as_json, arguments.get("sync") or ""
        return give(call, body(call, **arguments))

    return command


def reading_options(body: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run` and `plan` share."""
    reason = click.option(
        "--allow-mass-change", metavar="REASON", callback=_reason, help="Pass the guards this once, and say why."
    )
    key = click.option("--key", "keys", multiple=True, metavar="KEY", help="Read only this key; may stand often.")
    limit = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Plan at most N rows.")
    resend = click.option("--resend", is_flag=True, help="Send every row whole; events also if they were sent before.")
    full = click.option("--full", is_flag=True, help="Read the whole source, whatever the cursor says.")
    window = click.option(
        "--window",
        nargs=2,
        metavar="FROM TO",
        callback=read_window,
        help="Events: read those from FROM until before TO, by their time: dates (midnight UTC) or RFC 3339.",
    )
    retry = click.option("--retry-held", is_flag=True, help="Events: judge held ones again, and send what may be sent.")
    discard = click.option("--discard-held", is_flag=True, help="Events: never send the held ones.")
    for option in (discard, retry, window, reason, key, limit, resend, full):
        body = option(body)
    return body


def _reason(_ctx: click.Context, _option: click.Parameter, reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise click.BadParameter("the reason is empty")
    return reason


@commands.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where it makes its files.")
@click.option("--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="Of the local API.")
@click.option("--serve", is_flag=True, help="Leave the local API running and open Dagster on the project.")
@answers
def demo(call: Call, *, folder: Path | None, port: int, serve: bool) -> Answer:
    """Try it: invented customers and their orders, a local API, runs in Dagster."""
    from connector.cli import _local

    return _local.demo(call, folder, port, serve=serve)


@commands.command()
@answers
def validate(call: Call) -> Answer:
    """Read the YAML alone: no network, no warehouse."""
    from connector.cli import _project

    return _project.validate(call)


@commands.command()
@click.argument("sync", required=False)
@click.option("--grants", is_flag=True, help="Print the rights that the warehouses must give, and connect to nothing.")
@answers
def check(call: Call, *, sync: str | None, grants: bool) -> Answer:
    """Connect to the warehouse and to Batch, and name what is missing. Changes nothing."""
    from connector.cli import _project

    return _project.check(call, sync, grants=grants)


@commands.command()
@click.argument("sync")
@reading_options
@answers
def plan(call: Call, *, sync: str, **options: Any) -> Answer:  # noqa: ANN401 - the fields of Options
    """Read and compare; send nothing, change nothing."""
    from connector.cli import _runs

    return _runs.plan(call, sync, options)


@commands.command()
@click.argument("sync")
@reading_options
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@answers
def run(call: Call, *, sync: str, dry_run: bool, **options: Any) -> Answer:  # noqa: ANN401 - the fields of Options
    """Sync: read, compare, send the differences."""
    from connector.cli import _runs

    return _runs.plan(call, sync, options) if dry_run else _runs.run(call, sync, options)


@commands.command()
@click.argument("sync")
@answers
def adopt(call: Call, *, sync: str) -> Answer:
    """Take today's rows as delivered already, and send nothing: after a lost state, or in another tool's place."""
    from connector.cli import _runs

    return _runs.run(call, sync, {"adopt": True})


@commands.command()
@click.argument("sync", required=False)
@answers
def compact(call: Call, *, sync: str | None) -> Answer:
    """Fold what is remembered of a sync, or of all, into few files; runs do it by themselves where it pays."""
    from connector.cli import _compact

    return _compact.compact(call, sync)


@commands.command()
@click.argument("sync")
@click.option("--heal", is_flag=True, help="Make due what Batch lost or holds otherwise: the next run mends it.")
@click.option(
    "--allow-mass-change", metavar="REASON", callback=_reason, help="Pass guard.max_changed this once, and say why."
)
@answers
def reconcile(call: Call, *, sync: str, heal: bool, allow_mass_change: str | None) -> Answer:
    """Compare what Batch holds, by its own export, with what was delivered."""
    from connector.cli import _reconcile

    return _reconcile.reconcile(call, sync, heal=heal, allow_mass_change=allow_mass_change)


@commands.command()
@click.argument("sync", required=False)
@answers
def status(call: Call, *, sync: str | None) -> Answer:
    """The last runs, and what is rejected, held or waiting."""
    from connector.cli import _history

    return _history.status(call, sync)


@commands.command()
@click.argument("sync")
@answers
def rejects(call: Call, *, sync: str) -> Answer:
    """Values and events that were refused, are held or break a rule, and why."""
    from connector.cli import _history

    return _history.rejects(call, sync)


@commands.command("explain-code")
@click.argument("code", required=False)
@answers
def explain_code(call: Call, *, code: str | None) -> Answer:  # noqa: ARG001
    """What an outcome, an error's code or a reason's code means, and what to do about it."""
    from connector.cli import _codes

    return _codes.explain(code)


@commands.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
@click.option(
    "--state", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where it keeps what it was sent."
)
@click.option("--project-key", metavar="KEY", help="The only project it knows; by default the project's.")
@click.option("--rest-key", metavar="KEY", help="The key that opens it; by default the project's.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object.")
@click.pass_obj
def simulate(call: Call, /, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - as click read them
    """A local Profile API with Batch's rules and limits, until Ctrl-C."""
    from connector.cli import _local

    call.command, call.json = "simulate", as_json
    _local.simulate(call, **options)


@commands.command()
@click.option("--project-file", is_flag=True, help="Of connector.yaml instead of syncs/*.yaml.")
@click.option("--json", "as_json", is_flag=True, hidden=True, expose_value=False)
def schema(*, project_file: bool) -> None:
    """JSON Schema of the YAML, for editors."""
    import json

    from connector.config import project_schema, sync_schema

    click.echo(json.dumps(project_schema() if project_file else sync_schema(), indent=2))
