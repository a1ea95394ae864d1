"""From a sync's YAML to Dagster definitions: an asset with its checks, a job, perhaps a schedule."""

from collections.abc import Callable

import dagster as dg

from assets.checks import check_specs
from assets.drift import build_drift_defs, drift_key
from assets.jobs import job_defs
from assets.metadata import asset_key, definition_metadata, description, upstream_key
from assets.partitions import beta_accepted, daily, days
from assets.resources import Connector
from assets.run_config import ExportRunConfig, SyncRunConfig
from assets.runs import Events, Milestones, ended, failure_by, planned
from assets.sensors import alert_sensor
from assets.table_sensors import table_sensors
from connector.config import ExportSync, Outbound, ProfileSync, Project, Sync, code_version
from connector.errors import ConnectorError


def build_project_defs(project: Project) -> dg.Definitions:
    """The definitions of all syncs of a project; no network, no warehouse, no value of the environment."""
    webhook = project.settings.alerts.webhook
    parts = [build_sync_defs(project, sync) for sync in project.syncs.values()]
    jobs = {job.name: job for part in parts for job in part.jobs or ()}
    alerts = [alert_sensor(project.root, webhook, list(project.syncs.values()))] if webhook else []
    shared = dg.Definitions(
        resources={"connector": Connector(project)},
        # One step a run: a process of its own for it would cost seconds and make a cancel slower.
        executor=dg.in_process_executor,
        sensors=[*alerts, *table_sensors(project, jobs)],
    )
    return dg.Definitions.merge(*parts, shared)


def build_sync_defs(project: Project, sync: Sync) -> dg.Definitions:
    """One sync: its asset and its job, with a schedule where the YAML has one; the check `drift` with its own."""
    selection: dg.AssetSelection = dg.AssetSelection.assets(asset_key(sync))
    parts = [dg.Definitions(assets=[build_sync_asset(project, sync)])]
    if isinstance(sync, ProfileSync) and sync.reconcile:
        # An asset's selection has its checks in it, and a run of the sync is no occasion to ask Batch for an export.
        selection -= dg.AssetSelection.checks(drift_key(sync))
        parts.append(build_drift_defs(sync, sync.reconcile))
    parts.append(job_defs(sync.name, selection, f"Runs the sync {sync.name}.", sync.schedule))
    return dg.Definitions.merge(*parts)


def build_sync_asset(project: Project, sync: Sync) -> dg.AssetsDefinition:
    """The asset of a sync; it needs the resource `connector` (`Connector`).

    It has no retry policy: Dagster's in-process executor would start a cancelled run again because of it, and the
    library retries what can be retried.
    """
    key, upstream, freshness, partitions = asset_key(sync), upstream_key(sync), sync.dagster.freshness, daily(sync)
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
            check_specs=check_specs(sync, key),
            output_required=False,  # a dry run ends without a materialization
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        )(_pulls(sync) if isinstance(sync, ExportSync) else _delivers(sync))


def _delivers(sync: Outbound) -> Callable[..., Events]:
    def materialize(
        context: dg.AssetExecutionContext, config: SyncRunConfig, connector: dg.ResourceParam[Connector]
    ) -> Events:
        asked, progress = days(context, sync), Milestones(context.log.info)
        options = config.options(asked.window)
        try:
            if config.dry_run:
                yield from planned(context, connector.plan(sync.name, options, progress), sync, asked)
            else:
                yield from ended(connector.run(sync.name, options, progress), sync, asked)
        except ConnectorError as error:
            raise failure_by(error) from None

    return materialize


def _pulls(sync: ExportSync) -> Callable[..., Events]:
    def materialize(
        context: dg.AssetExecutionContext, config: ExportRunConfig, connector: dg.ResourceParam[Connector]
    ) -> Events:
        asked = days(context, sync)
        try:
            report = connector.run(sync.name, config.options(asked.window), Milestones(context.log.info))
        except ConnectorError as error:
            raise failure_by(error) from None
        yield from ended(report, sync, asked)

    return materialize
