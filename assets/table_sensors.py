"""A sensor a warehouse: it starts the syncs whose table has changed, and nothing while all tables stand."""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from assets.metadata import asset_key
from connector.config import ExportSync, Outbound, Project
from connector.errors import ConnectorError, WarehouseError
from connector.warehouses._base import Relation

Jobs = Mapping[str, dg.JobDefinition | UnresolvedAssetJobDefinition]


def table_sensors(project: Project, jobs: Jobs) -> list[dg.SensorDefinition]:
    """A sensor `NAME_table_changed`, stopped at first, for each warehouse that has a table which a sync reads.

    Args:
        project: The project.
        jobs: Its jobs by name; a sync is started by `SYNC_job`, without a partition, as its schedule does it.
    """
    watched: dict[str, list[Outbound]] = {}
    for sync in project.syncs.values():
        if not isinstance(sync, ExportSync) and sync.source.table:
            watched.setdefault(sync.warehouse, []).append(sync)
    return [_sensor(project, name, syncs, jobs) for name, syncs in watched.items()]


def _sensor(project: Project, name: str, syncs: list[Outbound], jobs: Jobs) -> dg.SensorDefinition:
    """The sensor of one warehouse. Its first tick, and that of a sync which is new to it, only remember."""

    @dg.sensor(
        name=_named(name),
        jobs=[jobs[_job(sync.name)] for sync in syncs],
        minimum_interval_seconds=project.settings.warehouses[name].stamp_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Starts the syncs of warehouse {name} whose table changed; asks the warehouse, reads no row.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            found = _look(project, name, [sync.source.table or "" for sync in syncs])
        except ConnectorError as error:
            return dg.SkipReason(str(error))
        before = _remembered(context.cursor)
        after: dict[str, _Seen] = {}
        requests = []
        for sync in syncs:
            stamp, last = found.stamps.get(sync.source.table or ""), before.get(sync.name)
            if last is None or stamp in (None, last.stamp):
                after[sync.name] = last or _Seen(stamp, 0)
            elif _runs(context.instance, sync):  # which may have read before the change: the next tick asks again
                after[sync.name] = last
            else:
                after[sync.name] = _Seen(stamp, last.changes + 1)
                key = f"{sync.name} {last.changes + 1} {stamp}"  # a table may become again what it was
                requests.append(dg.RunRequest(run_key=key, job_name=_job(sync.name)))
        cursor = json.dumps(after)
        return dg.SensorResult(run_requests=requests, cursor=cursor, skip_reason=None if requests else found.said())

    return sensor


class _Seen(NamedTuple):
    """What the sensor remembers of a sync: its table's last stamp, and how many changes it has answered."""

    stamp: str | None
    changes: int


class _Look(NamedTuple):
    """Stamps by table, and what stood in the way of some."""

    stamps: dict[str, str | None]
    troubles: list[str]

    def said(self) -> str:
        """Why no sync is started."""
        silent = [table for table, stamp in self.stamps.items() if stamp is None]
        what = f"; whether they did cannot be told of {', '.join(silent)}: use schedules" if silent else ""
        return "; ".join([f"no table is known to have changed{what}", *self.troubles])


def _look(project: Project, name: str, tables: Iterable[str]) -> _Look:
    """One look at each table, over one connection.

    Raises:
        ConnectorError: The warehouse cannot be opened.
    """
    look = _Look({}, [])
    with project.settings.warehouses[name].open(project.root, tags={"sensor": _named(name)}) as reader:
        for table in dict.fromkeys(tables):
            try:
                look.stamps[table] = reader.stamp(Relation(table=table))
            except WarehouseError as error:
                look.troubles.append(str(error))
    return look


def _remembered(cursor: str | None) -> dict[str, _Seen]:
    return {sync: _Seen(*seen) for sync, seen in json.loads(cursor).items()} if cursor else {}


def _runs(instance: dg.DagsterInstance, sync: Outbound) -> bool:
    """Whether a run of the sync waits or is under way: its job's, or one that somebody materializes it by."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))
    return any(run.job_name == _job(sync.name) or asset_key(sync) in (run.asset_selection or ()) for run in unfinished)


def _named(warehouse: str) -> str:
    """The sensor's name; Dagster takes no hyphen."""
    return f"{warehouse.replace('-', '__')}_table_changed"


def _job(sync: str) -> str:
    return f"{sync}_job"
