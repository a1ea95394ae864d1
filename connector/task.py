"""What a run is asked to do, and what the drafts of every kind of sync share."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import polars as pl

from connector._model import exceeds
from connector._steps import step
from connector.config import EventSync, ExportSync, Outbound, Project, Sync
from connector.errors import ExportError, PendingError, UsageError, WarehouseError
from connector.report import Ended, Reason, Report
from connector.state import runs
from connector.state.database import State

Progress = Callable[[str, int, int | None], None]
"""Told the phase (`read`, `diff`, `wait`, `deliver`), the rows done, and how many there are where that is known."""

S_co = TypeVar("S_co", bound=Sync, covariant=True)


def silent(_phase: str, _done: int, _total: int | None) -> None:
    """The Progress of those who do not want to know."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may ask of one run.

    Attributes:
        full: Read the whole source, cursor or not.
        resend: Send every row whole; events also if they were sent before.
        limit: Plan at most so many rows; the others stay due.
        keys: Read only these keys.
        allow_mass_change: The reason why the guards may be passed this once.
        window: Events only: read those that happened in this half-open interval; both ends aware.
        retry_held: Events only: judge held ones again, and send what may be sent.
        discard_held: Events only: never send held ones.
        adopt: Take today's rows as delivered, and send nothing.
    """

    full: bool = False
    resend: bool = False
    limit: int | None = None
    keys: tuple[str, ...] = ()
    allow_mass_change: str | None = None
    window: tuple[datetime, datetime] | None = None
    retry_held: bool = False
    discard_held: bool = False
    adopt: bool = False

    @property
    def whole(self) -> bool:
        """All rows are sent, or taken as sent, so that what was delivered before need not be known."""
        return self.adopt or (self.resend and self.limit is None and not self.keys and self.window is None)


@dataclass(frozen=True, slots=True)
class Task(Generic[S_co]):
    """A sync of a project, and what the operator asks of it this time."""

    project: Project
    sync: S_co
    options: Options


def check_options(sync: Sync, options: Options) -> None:
    """Refuse options that the sync's kind does not have.

    Raises:
        UsageError: Names the option.
    """
    _require_known_options(sync, options)
    if options.retry_held and options.discard_held:
        raise UsageError("--retry-held and --discard-held exclude each other", remedy="give one of them")
    if options.discard_held and (options.window or options.keys or options.limit or options.resend):
        raise UsageError(
            "--discard-held is about all held events, so it goes with no --window, --key, --limit or --resend",
            remedy="leave them out",
        )
    if options.window and options.full:
        raise UsageError("--window and --full exclude each other", remedy="give one of them")


def _require_known_options(sync: Sync, options: Options) -> None:
    of_events = {"--window": options.window, "--retry-held": options.retry_held, "--discard-held": options.discard_held}
    of_rows = {
        "adopt": options.adopt,
        "--resend": options.resend,
        "--limit": options.limit,
        "--key": options.keys,
        "--allow-mass-change": options.allow_mass_change,
    }
    match sync:
        case EventSync():
            foreign: Mapping[str, object] = {}
        case ExportSync(export="attributes"):
            foreign = {**of_rows, **of_events}
        case ExportSync():
            foreign = {**of_rows, **of_events, "--window": None}
        case _:
            foreign = of_events
    if given := next((name for name, value in foreign.items() if value), None):
        kind = f"an export of {sync.export}" if isinstance(sync, ExportSync) else f"one of {sync.kind}"
        allowed = "event syncs" if given in of_events else "syncs that send rows to Batch"
        raise UsageError(f"{given} is for {allowed}, and '{sync.name}' is {kind}", remedy="leave it out")


def tolerance_notes(task: Task[Outbound], report: Report, faulty: int) -> list[Reason]:
    """Why the run is not green although all that can be sent was sent; empty within the tolerance."""
    allowed = task.sync.tolerance.invalid
    if not exceeds(faulty, allowed, report.known):
        return []
    what = f"rows that are invalid or have a value withheld: {faulty}"
    share = f"tolerance.invalid allows {allowed:.0%} of the {report.known} rows that the sync knows"
    return [Reason("invalid", f"{what}; {share}; see: connector rejects {report.sync}")]


@contextmanager
def named(sync: Sync) -> Iterator[None]:
    """A warehouse's errors, and those of exports, do not know which sync met them."""
    try:
        yield
    except (WarehouseError, ExportError, PendingError) as error:
        raise type(error)(f"sync '{sync.name}': {error.message}", remedy=error.remedy) from None


def told(batches: Iterator[pl.DataFrame], progress: Progress) -> Iterator[pl.DataFrame]:
    """The same record batches; `progress` hears of each."""
    rows = 0
    for batch in batches:
        rows += batch.height
        progress("read", rows, None)
        step("read.batch")
        yield batch
    progress("read", rows, rows)
    step("read.ended")


def tags(report: Ended) -> dict[str, str]:
    """What a warehouse's history shows of what a run does there."""
    return {"sync": report.sync, "run": report.run}


def discard(state: State, run: str) -> None:
    """Remove a draft's files: values lie in the outbox only while a run is open."""
    path = runs.outbox(state, run)
    for folder in (".spool", ".home"):
        shutil.rmtree(path.with_suffix(folder), ignore_errors=True)
    for file in (path, path.with_suffix(".marks")):
        file.unlink(missing_ok=True)
