"""A job, and the schedule that the YAML gives it."""

import dagster as dg

from connector.config import Schedule


def job_defs(name: str, selection: dg.AssetSelection, description: str, schedule: Schedule | None) -> dg.Definitions:
    """The job `NAME_job` and perhaps `NAME_schedule`, which starts stopped unless `enabled`.

    A schedule's run of a partitioned sync has no partition, which Dagster allows: today's events are due now, and
    today is no partition before it is over.
    """
    job = dg.define_asset_job(f"{name}_job", selection=selection, description=description)
    schedules = []
    if schedule:
        status = dg.DefaultScheduleStatus.RUNNING if schedule.enabled else dg.DefaultScheduleStatus.STOPPED
        schedules.append(
            dg.ScheduleDefinition(
                name=f"{name}_schedule",
                job=job,
                cron_schedule=schedule.cron,
                execution_timezone=schedule.timezone,
                default_status=status,
            )
        )
    return dg.Definitions(jobs=[job], schedules=schedules)
