"""`run` and `plan`: call the story, and show its report."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from connector import errors
from connector.cli import _tables
from connector.cli._answer import INTERRUPTED, Answer, Call, console, empty
from connector.cli._folder import loaded
from connector.cli._moments import moment
from connector.config import Project
from connector.errors import CancelledRunError, ConnectorError
from connector.plan import Plan, plan_sync
from connector.report import AnyReport, Ended, ExportReport
from connector.sync import Options, Progress, run_sync

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_ECHO_SECONDS = 0.5
"""A second signal so soon is the first one told twice: wrappers such as timeout(1) tell the process and its group."""

_STATUS_BY_CODE = {error.code: error.exit_status for error in ConnectorError.__subclasses__()}


def run(call: Call, sync: str, options: Mapping[str, Any]) -> Answer:
    """Run the sync; a signal ends it as soon as the chunks in flight are settled."""
    project = _loaded(call, sync)
    with cancellable() as signals, progress_bars(call) as progress:
        try:
            report: AnyReport = run_sync(project, sync, Options(**options), progress=progress)
        except CancelledRunError as error:  # it came before the run was under way
            report = empty(call).failed(error)
    status = exit_status(report)
    if status == errors.CancelledRunError.exit_status and signals[:1] == [signal.SIGINT]:
        status = INTERRUPTED
    return Answer(report_json(report), lambda out: _tables.show_report(out, report), status)


def plan(call: Call, sync: str, options: Mapping[str, Any]) -> Answer:
    """Say what a run would do."""
    call.command = "plan"
    project = _loaded(call, sync)
    with progress_bars(call) as progress:
        planned = plan_sync(project, sync, Options(**options), progress=progress)
    return Answer(plan_json(planned), lambda out: _tables.show_plan(out, planned), exit_status(planned.report))


def exit_status(report: Ended) -> int:
    """The exit status of a report: its outcome's, or that of the error that ended it."""
    return _STATUS_BY_CODE.get(report.error["code"], 1) if report.error else report.exit_status


def report_json(report: AnyReport) -> dict[str, Any]:
    """A report as `run --json` has it."""
    told = {**report.to_dict(), "started": moment(report.started)}
    return told if isinstance(report, ExportReport) else {**told, "closes": moment(report.closes)}


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as `plan --json` has it."""
    return {
        **report_json(plan.report),
        "by_attribute": plan.by_attribute,
        "calls": plan.calls,
        "bytes": plan.bytes,
        "minutes": plan.minutes,
        "read_bytes": plan.read_bytes,
        "sample": plan.sample,
        "notes": list(plan.notes),
    }


def _loaded(call: Call, sync: str) -> Project:
    """The project; what a refusal later on says of the sync is of its kind."""
    project = loaded(call)
    call.kind = project.sync(sync).kind
    return project


@contextmanager
def cancellable() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM raise CancelledRunError, once; a second one ends the process at once, as a crash does."""
    caught: list[int] = []
    first_at = 0.0

    def cancel(number: int, _frame: FrameType | None) -> None:
        nonlocal first_at
        caught.append(number)
        if len(caught) == 1:
            first_at = time.monotonic()
            raise CancelledRunError("the run was cancelled", remedy="run it again: it goes on where it stopped")
        if time.monotonic() - first_at > _ECHO_SECONDS:
            # To raise would tear the settling of chunks in flight; what a crash leaves, the next run takes over.
            os._exit(INTERRUPTED if number == signal.SIGINT else CancelledRunError.exit_status)

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bars(call: Call) -> Iterator[Progress | None]:
    """Bars on stderr where a person sees them."""
    out = console(stderr=True)
    if call.json or not out.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=out, transient=True) as bars:
        yield _Phases(bars)


class _Phases:
    """One bar a phase."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)
