"""What a run says in Dagster: its progress, and what its end means for the asset and its checks."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from assets.checks import COMPLETE, DELIVERY, check_results, dry_run_results
from assets.metadata import asset_key, plan_metadata, report_metadata
from assets.partitions import Days
from connector.config import Outbound, Sync
from connector.errors import ConnectorError
from connector.plan import Plan
from connector.report import AnyReport, Ended, ExportReport

PROGRESS_SECONDS = 5.0
"""Seconds between two lines of progress: each is a row of Dagster's event log for ever."""

Events = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


class Milestones:
    """Progress as lines of a run's log: one a phase, then at most one every PROGRESS_SECONDS."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._phase = ""
        self._since = 0.0
        self._due = 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Log the phase's progress, or not."""
        now = self._clock()
        if phase == self._phase and now < self._due and done != total:
            return
        if phase != self._phase:
            self._phase, self._since = phase, now
        self._due = now + PROGRESS_SECONDS
        self._say(self._line(done, total, now))

    def _line(self, done: int, total: int | None, now: float) -> str:
        if done or total:
            of_total = f" of {total:,}" if total else ""
            return f"{self._phase}: {done:,}{of_total} {'files' if self._phase == 'download' else 'rows'}"
        waited = round(now - self._since)
        return f"{self._phase}, for {waited} s" if waited else self._phase


def planned(context: dg.AssetExecutionContext, plan: Plan, sync: Outbound, asked: Days) -> Events:
    """A dry run: the plan as an observation, no materialization."""
    key = asset_key(sync)
    partition = asked.keys[0] if len(asked.keys) == 1 else None
    metadata = plan_metadata(plan, sync) | asked.metadata
    context.log_event(dg.AssetObservation(asset_key=key, partition=partition, metadata=metadata))
    for note in plan.notes:
        context.log.info(note)
    yield from dry_run_results(plan.report, key, context.instance)


def ended(report: AnyReport, sync: Sync, asked: Days) -> Events:
    """What a run's end means: green succeeds; anything else fails the run, visibly and with its reason.

    Raises:
        Failure: The run was not green.
    """
    key = asset_key(sync)
    metadata = report_metadata(report, sync) | asked.metadata
    results = check_results(report, sync, key)
    match report.outcome:
        case "green":
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=results)
        case "incomplete" if _has_landed(report):
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=results)
        case "guarded":
            yield from results
        case "incomplete" | "failed":  # the other checks would pass for want of anything to judge
            yield from (result for result in results if result.check_name in (DELIVERY, COMPLETE))
        case "busy":
            pass  # the run that holds the sync answers the checks
    if report.outcome != "green":
        raise failure_of(report, metadata)


def failure_of(report: Ended, metadata: dict[str, Any] | None = None) -> dg.Failure:
    """A report that is not green as Dagster's failure."""
    error = report.error or {"message": "; ".join(report.reasons), "remedy": "", "code": report.codes[0]}
    text = "; ".join(part for part in (error["message"], error["remedy"]) if part)
    return _failure(text, report.outcome, error["code"], metadata or {})


def failure_by(error: ConnectorError) -> dg.Failure:
    """An error that left no report as Dagster's failure."""
    return _failure(str(error), "failed", error.code, {})


def _has_landed(report: AnyReport) -> bool:
    """Whether an incomplete run has anything to materialize: an export that is not made yet has changed no table."""
    return not isinstance(report, ExportReport) or report.quarantined > 0


def _failure(text: str, outcome: str, code: str, metadata: dict[str, Any]) -> dg.Failure:
    return dg.Failure(text, metadata={**metadata, "outcome": outcome, "code": code}, allow_retries=False)
