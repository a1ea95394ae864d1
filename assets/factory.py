"""From a sync's YAML to Dagster definitions: an asset with its checks, a job, perhaps a schedule."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.checks import DELIVERY, check_results, check_specs, dry_run_results
from assets.metadata import asset_key, definition_metadata, description, plan_metadata, report_metadata, upstream_key
from assets.partitions import Days, beta_accepted, daily, days
from assets.resources import Connector
from assets.run_config import SyncRunConfig
from assets.sensors import alert_sensor
from connector.config import Project, Sync, code_version
from connector.errors import ConnectorError
from connector.plan import Plan
from connector.report import Report

PROGRESS_SECONDS = 5.0
"""Seconds between two lines of progress: each is a row of Dagster's event log for ever."""

Events = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


def build_project_defs(project: Project) -> dg.Definitions:
    """The definitions of all syncs of a project; no network, no warehouse, no value of the environment."""
    webhook = project.settings.alerts.webhook
    shared = dg.Definitions(
        resources={"connector": Connector(project)},
        # One step a run: a process of its own for it would cost seconds and make a cancel slower.
        executor=dg.in_process_executor,
        sensors=[alert_sensor(project.root, webhook, list(project.syncs.values()))] if webhook else [],
    )
    return dg.Definitions.merge(*(build_sync_defs(project, sync) for sync in project.syncs.values()), shared)


def build_sync_defs(project: Project, sync: Sync) -> dg.Definitions:
    """One sync: its asset, its job, and a schedule where the YAML has one; it starts stopped unless `enabled`.

    A schedule's run of a partitioned sync has no partition, which Dagster allows: today's events are due now, and
    today is no partition before it is over.
    """
    job = dg.define_asset_job(
        f"{sync.name}_job",
        selection=dg.AssetSelection.assets(asset_key(sync)),
        description=f"Runs the sync {sync.name}.",
    )
    schedules = []
    if sync.schedule:
        status = dg.DefaultScheduleStatus.RUNNING if sync.schedule.enabled else dg.DefaultScheduleStatus.STOPPED
        schedules.append(
            dg.ScheduleDefinition(
                name=f"{sync.name}_schedule",
                job=job,
                cron_schedule=sync.schedule.cron,
                execution_timezone=sync.schedule.timezone,
                default_status=status,
            )
        )
    return dg.Definitions(assets=[build_sync_asset(project, sync)], jobs=[job], schedules=schedules)


def build_sync_asset(project: Project, sync: Sync) -> dg.AssetsDefinition:
    """The asset of a sync; it needs the resource `connector` (`Connector`).

    It has no retry policy: Dagster's in-process executor would start a cancelled run again because of it, and the
    library retries what can be retried.
    """
    key, upstream, freshness, partitions = asset_key(sync), upstream_key(sync), sync.dagster.freshness, daily(sync)

    def materialize(
        context: dg.AssetExecutionContext, config: SyncRunConfig, connector: dg.ResourceParam[Connector]
    ) -> Events:
        asked, progress = days(context, sync), Milestones(context.log)
        options = config.options(asked.window)
        try:
            if config.dry_run:
                yield from _planned(context, connector.plan(sync.name, options, progress), sync, asked)
            else:
                yield from _ended(connector.run(sync.name, options, progress), sync, asked)
        except ConnectorError as error:
            raise _failure(str(error), "failed", error.code) from None

    with beta_accepted():
        return dg.asset(
            key=key,
            deps=[upstream] if upstream else [],
            description=description(sync),
            group_name=sync.dagster.group,
            owners=list(sync.dagster.owners),
            tags=sync.dagster.tags,
            kinds={project.warehouse(sync).type, "polars"},
            code_version=code_version(sync),
            metadata=definition_metadata(sync),
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=freshness) if freshness else None,
            pool=f"sync_{sync.name}",
            check_specs=check_specs(key),
            output_required=False,  # a dry run ends without a materialization
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        )(materialize)


class Milestones:
    """Progress as lines of a run's log: one a phase, then at most one every PROGRESS_SECONDS."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._phase = ""
        self._due = 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Log the phase's progress, or not."""
        if phase == self._phase and time.monotonic() < self._due and done != total:
            return
        self._phase, self._due = phase, time.monotonic() + PROGRESS_SECONDS
        of_total = f" of {total:,}" if total else ""
        self._log.info(f"{phase}: {done:,}{of_total} rows" if done or total else phase)


def _planned(context: dg.AssetExecutionContext, plan: Plan, sync: Sync, asked: Days) -> Events:
    """A dry run: the plan as an observation, no materialization."""
    key = asset_key(sync)
    partition = asked.keys[0] if len(asked.keys) == 1 else None
    metadata = plan_metadata(plan, sync) | asked.metadata
    context.log_event(dg.AssetObservation(asset_key=key, partition=partition, metadata=metadata))
    for note in plan.notes:
        context.log.info(note)
    yield from dry_run_results(plan.report, key, context.instance)


def _ended(report: Report, sync: Sync, asked: Days) -> Events:
    """What a run's end means in Dagster: green succeeds; anything else fails the run, visibly and with its reason."""
    key = asset_key(sync)
    metadata = report_metadata(report, sync) | asked.metadata
    match report.outcome:
        case "green" | "incomplete":
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=check_results(report, sync, key))
        case "guarded":
            yield from check_results(report, sync, key)
        case "failed":  # the other checks would pass for want of anything to judge
            yield from (result for result in check_results(report, sync, key) if result.check_name == DELIVERY)
        case "busy":
            pass  # the run that holds the sync answers the checks
    if report.outcome != "green":
        error = report.error or {"message": "; ".join(report.reasons), "remedy": "", "code": report.outcome}
        text = "; ".join(part for part in (error["message"], error["remedy"]) if part)
        raise _failure(text, report.outcome, error["code"], metadata)


def _failure(text: str, outcome: str, code: str, metadata: dict[str, Any] | None = None) -> dg.Failure:
    return dg.Failure(text, metadata={**(metadata or {}), "outcome": outcome, "code": code}, allow_retries=False)
