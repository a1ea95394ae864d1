"""One way to answer: a JSON document for scripts or tables for people, and an exit status."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from connector.errors import ConfigError, ConnectorError, Problem
from connector.report import AnyReport, ExportReport, Report

if TYPE_CHECKING:  # tables are for those who look at them
    from rich.console import Console

PIPE_COLUMNS = 200
"""Columns of a line that no terminal wraps: paths and sentences stay whole for grep."""

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


@dataclass
class Call:
    """What was called, as far as the arguments are read."""

    json: bool
    project: Path | None = None
    command: str = ""
    sync: str = ""
    kind: str = "profiles"
    """The sync's, once the project is read."""


class Answer(NamedTuple):
    """What a command has to say.

    Attributes:
        data: For `--json`.
        show: Prints the same for people.
        exit_status: 0 green, 1 failed, 2 usage, 3 incomplete, 4 guarded, 5 busy.
    """

    data: object
    show: "Callable[[Console], None]"
    exit_status: int = 0


def give(call: Call, answer: Answer) -> int:
    """Print the answer; its exit status."""
    if call.json:
        click.echo(json.dumps(answer.data))
    else:
        answer.show(console())
    return answer.exit_status


def refuse(call: Call, error: ConnectorError) -> int:
    """Print why there is no answer; the exit status that goes with it."""
    if call.json:
        click.echo(json.dumps(_refusal(call, error)))
        return error.exit_status
    problems = error.problems if isinstance(error, ConfigError) else ()
    for problem in problems:
        click.echo(printable(str(problem)), err=True)
    if not problems:
        click.echo(f"error: {printable(error.message)}", err=True)
    if error.remedy:
        click.echo(f"  {printable(error.remedy)}", err=True)
    return error.exit_status


def console(*, stderr: bool = False) -> "Console":
    """A terminal that takes text as it stands; no colours and no narrow lines where there is none."""
    from rich.console import Console  # noqa: PLC0415 - only people wait for it

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def printable(text: str) -> str:
    """The text without control characters: a key must not steer the operator's terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def located(problem: Problem) -> dict[str, Any]:
    """A problem as `validate --json` has it."""
    return problem._asdict()


def empty(call: Call) -> AnyReport:
    """The report of a call that did nothing."""
    if call.kind == "export":
        return ExportReport(sync=call.sync, run="")
    return Report(sync=call.sync, run="", kind=call.kind)


def _refusal(call: Call, error: ConnectorError) -> dict[str, Any]:
    reason = {"code": error.code, "message": error.message, "remedy": error.remedy}
    match call.command:
        case "run" | "plan":
            extra: dict[str, Any] = {"by_attribute": {}, "calls": 0, "minutes": 0.0, "sample": [], "notes": []}
            report = empty(call).failed(error).to_dict()
            return {**report, "started": None, **(extra if call.command == "plan" else {})}
        case "validate" | "check":
            problems = error.problems if isinstance(error, ConfigError) else ()
            nowhere = {"file": None, "line": None, "column": None, "message": str(error)}
            return {"ok": False, "errors": [located(problem) for problem in problems] or [nowhere], "error": reason}
        case _:
            return {"ok": False, "error": reason}
