"""The YAML of a project: its models, and how it is found and read."""

from connector._model import is_loopback
from connector.config._across import PROJECT_FILE
from connector.config._dagster import DagsterSettings, Schedule
from connector.config._events import EventSync, NameColumn, Partitions
from connector.config._exports import LOOKBACK, ExportSync
from connector.config._kinds import Outbound, Sync
from connector.config._profiles import Guard, ProfileSync, Reconcile
from connector.config._project import PROJECT_VARIABLE, Project, find_project, load_project
from connector.config._schema import project_schema, sync_schema
from connector.config._settings import Alerts, BatchSettings, DeliverySettings, ProjectSettings
from connector.config._source import Cursor, Source
from connector.config._sync import Tolerance
from connector.config._version import code_version

__all__ = [
    "LOOKBACK",
    "PROJECT_FILE",
    "PROJECT_VARIABLE",
    "Alerts",
    "BatchSettings",
    "Cursor",
    "DagsterSettings",
    "DeliverySettings",
    "EventSync",
    "ExportSync",
    "Guard",
    "NameColumn",
    "Outbound",
    "Partitions",
    "ProfileSync",
    "Project",
    "ProjectSettings",
    "Reconcile",
    "Schedule",
    "Source",
    "Sync",
    "Tolerance",
    "code_version",
    "find_project",
    "is_loopback",
    "load_project",
    "project_schema",
    "sync_schema",
]
