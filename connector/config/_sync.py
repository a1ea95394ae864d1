"""What sync files have in common: those of every kind, and those that send rows to Batch."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from connector._model import MistakeError, Model, Share
from connector.config._dagster import DagsterSettings, ScheduleOrCron
from connector.config._scalars import SyncName, Text
from connector.config._source import CursorOrColumn, Source
from connector.event_mapping import EventAttributeMapping
from connector.mapping import AttributeMapping


class Tolerance(Model):
    """Shares of the rows above which a run is not green: of profiles the known ones, of events those read."""

    rejected: Share = Field(default=0.01, description="rows that Batch refused, wholly or in part")
    invalid: Share = Field(default=0.01, description="rows with a value that breaks a rule")


class SyncBase(Model):
    """What sync files of every kind have in common."""

    name: SyncName = Field(description="the sync's name; the file's name without .yaml by default")
    kind: str = Field(description="what the sync is about")
    warehouse: Text = Field(description="the name of a warehouse in connector.yaml")
    schedule: ScheduleOrCron | None = Field(default=None, description="when it runs: a cron text of five fields")
    dagster: DagsterSettings = Field(default=DagsterSettings(), description="how the asset looks in Dagster")


class OutboundBase(SyncBase):
    """Rows of a warehouse go to Batch."""

    source: Source = Field(description="the rows: {table: …}, {query: …} or {query_file: …}")
    key: Text = Field(default="custom_id", description="the column that holds the custom ID")
    cursor: CursorOrColumn | None = Field(default=None, description="the column that tells when a row last changed")
    endpoint: Literal["auto", "update", "mass_update"] = Field(
        default="auto", description="auto: update up to 10,000 changes, mass_update above"
    )
    tolerance: Tolerance = Field(default=Tolerance(), description="shares above which a run is not green")


def check_types(attributes: Mapping[str, AttributeMapping | EventAttributeMapping], natives: Mapping[str, str]) -> None:
    """Holds every attribute's type against the one type that a native attribute has, and `unordered` against arrays.

    Raises:
        MistakeError: The two do not go together; its path begins at the attribute's name.
    """
    for name, mapping in attributes.items():
        own = natives.get(name)
        if own and mapping.type not in (None, own):
            raise MistakeError(f"{name} is always of type {own}; remove the type", name, "type")
        if mapping.unordered and (mapping.type or own or "array") != "array":
            raise MistakeError("only arrays can be unordered; remove it", name, "unordered")
