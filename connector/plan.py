"""What a run would do: the draft of a run, told instead of sent."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from connector import adoption, guards
from connector import draft as profile_drafts
from connector import event_draft as event_drafts
from connector.api import profiles
from connector.config import EventSync, ExportSync, Outbound, ProfileSync, Project
from connector.draft import Draft
from connector.errors import GuardError, StateError, UsageError
from connector.event_draft import MARGIN_SECONDS, EventDraft
from connector.report import Report
from connector.state import ledger as ledgers
from connector.state import runs, snapshots
from connector.state.database import State, open_state
from connector.task import Options, Progress, Task, check_options, discard, silent, tolerance_notes

_EVERYTHING = Options()

_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        report: The counts; `guarded` where a guard would stop it.
        by_attribute: Rows whose request would hold the attribute.
        calls: Requests.
        bytes: Of all their bodies.
        minutes: At the configured rate.
        read_bytes: That the warehouse says it bills for the read; None where bytes are not what is billed.
        sample: A few keys, for the operator's eyes only.
        notes: What else is worth knowing.
    """

    report: Report
    by_attribute: dict[str, int]
    calls: int
    bytes: int
    minutes: float
    read_bytes: int | None
    sample: list[str]
    notes: tuple[str, ...] = ()


def plan_sync(project: Project, name: str, options: Options = _EVERYTHING, *, progress: Progress | None = None) -> Plan:
    """Read and diff; send nothing, change nothing.

    Raises:
        UsageError: There is no such sync, or an option that its kind does not have.
        ConnectorError: The plan cannot be made; a guard is no error here, the report tells of it.
    """
    sync = project.sync(name)
    if isinstance(sync, ExportSync):
        raise UsageError(f"'{name}' is an export: it sends nothing, so there is nothing to plan", remedy="run it")
    check_options(sync, options)
    report = Report(sync=name, kind=sync.kind, run=f"{name}-plan-{uuid.uuid4().hex[:10]}", started=time.time())
    key = project.access().project_key.get_secret_value()
    with open_state(project.state_dir, key, project.state_server()) as state:
        try:
            drafted, stopped = _drafted(project, sync, options, state, report, progress or silent)
        finally:
            discard(state, report.run)
        opened = runs.unfinished(state, name)
    report = drafted.report
    report = replace(report, unsent=report.planned - report.held - report.expired)
    if stopped:
        report = report.failed(stopped)
    limit = profiles.limit(project.settings.batch.limits, drafted.endpoint)
    operations = sum(chunk.rows for chunk in drafted.chunks)
    minutes = round(max(operations - limit.burst, 0) / limit.per_second / 60, 2)
    task = Task(project, sync, options)
    return Plan(
        report=report,
        by_attribute=drafted.by_attribute,
        calls=len(drafted.chunks),
        bytes=sum(chunk.bytes for chunk in drafted.chunks),
        minutes=minutes,
        read_bytes=drafted.read_bytes,
        sample=drafted.sample,
        notes=(
            *report.notes,
            *_open_notes(opened),
            *(why.text for why in tolerance_notes(task, report, drafted.faulty)),
            *_late_notes([chunk.closes for chunk in drafted.chunks if chunk.closes is not None], minutes),
        ),
    )


def _drafted(
    project: Project,
    sync: Outbound,
    options: Options,
    state: State,
    report: Report,
    progress: Progress,
) -> tuple[Draft | EventDraft, GuardError | None]:
    match sync:
        case EventSync():
            task = Task(project, sync, options)
            ledger = _believed(ledgers.load, ledgers.nothing, state, sync.name, options)
            drafted = event_drafts.draft(task, state, ledger, report, progress, plans=True)
            return drafted, guards.events(task, ledger, drafted.recipe, drafted.report.planned)
        case ProfileSync():
            profile_task = Task(project, sync, options)
            snapshot = _believed(snapshots.load, snapshots.nothing, state, sync.name, options)
            change = profile_drafts.draft(profile_task, state, snapshot, report, progress)
            return change, guards.profiles(profile_task, change.report)


def _open_notes(opened: Sequence[runs.Opened]) -> list[str]:
    return [
        f"run {run.id} was to adopt the rows and did not end: no run sends anything until one does"
        if adoption.was(run)
        else f"run {run.id} was killed or is running: of its {run.report['planned']} rows those in flight will be due"
        for run in opened
    ]


def _late_notes(closes: Sequence[float], minutes: float) -> list[str]:
    """Whether events may become too old before their turn comes."""
    if not closes or min(closes) > time.time() + minutes * 60 + MARGIN_SECONDS:
        return []
    first = datetime.fromtimestamp(min(closes), UTC)
    return [f"the oldest event can be sent until {first:%Y-%m-%d %H:%M} UTC only; sending takes {minutes:g} minutes"]


def _believed(
    load: Callable[[State, str], _Kept],
    nothing: Callable[[State, str], _Kept],
    state: State,
    sync: str,
    options: Options,
) -> _Kept:
    """What was delivered; nothing where it cannot be believed and everything is sent again anyway."""
    try:
        return load(state, sync)
    except StateError:
        if not options.whole:
            raise
        return nothing(state, sync)
