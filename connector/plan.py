"""What a run would do: the draft of a run, told instead of sent."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from connector.api import profiles
from connector.config import Project
from connector.draft import Options, Progress, Task, discard, draft, guarded, silent, tolerance_notes
from connector.errors import StateError
from connector.report import Report
from connector.state import runs, snapshots
from connector.state.database import State, open_state
from connector.state.snapshots import Snapshot

_EVERYTHING = Options()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        report: The counts; `guarded` where a guard would stop it.
        by_attribute: Rows whose request would hold the attribute.
        calls: Requests.
        bytes: Of all their bodies.
        minutes: At the configured rate.
        sample: A few keys, for the operator's eyes only.
        notes: What else is worth knowing.
    """

    report: Report
    by_attribute: dict[str, int]
    calls: int
    bytes: int
    minutes: float
    sample: list[str]
    notes: tuple[str, ...] = ()


def plan_sync(project: Project, name: str, options: Options = _EVERYTHING, *, progress: Progress | None = None) -> Plan:
    """Read and diff; send nothing, change nothing.

    Raises:
        ConnectorError: The plan cannot be made; a guard is no error here, the report tells of it.
    """
    task = Task(project, project.sync(name), options)
    report = Report(sync=name, run=f"{name}-plan-{uuid.uuid4().hex[:10]}", started=time.time())
    with open_state(project.state_dir, project.access().project_key.get_secret_value()) as state:
        try:
            drafted = draft(task, state, _believed(task, state), report, progress or silent)
        finally:
            discard(state, report.run)
        opened = runs.unfinished(state, name)
    report = replace(drafted.report, unsent=drafted.report.planned)
    if stopped := guarded(task, drafted):
        report = report.failed(stopped)
    limit = profiles.limit(project.settings.batch.limits, drafted.endpoint)
    return Plan(
        report=report,
        by_attribute=drafted.change_set.by_attribute,
        calls=len(drafted.chunks),
        bytes=sum(chunk.bytes for chunk in drafted.chunks),
        minutes=round(max(report.planned - limit.burst, 0) / limit.per_second / 60, 2),
        sample=drafted.change_set.sample,
        notes=(*_open_notes(opened), *tolerance_notes(task, report, drafted.change_set.faulty)),
    )


def _open_notes(opened: Sequence[runs.Opened]) -> list[str]:
    return [
        f"run {run.id} was killed or is running: of its {run.report['planned']} rows those in flight will be due"
        for run in opened
    ]


def _believed(task: Task, state: State) -> Snapshot:
    """The snapshot; an empty one where it cannot be believed and everything is sent again anyway."""
    try:
        return snapshots.load(state, task.sync.name)
    except StateError:
        if not task.options.whole:
            raise
        return snapshots.nothing(state, task.sync.name)
