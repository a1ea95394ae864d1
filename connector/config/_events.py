"""The model of a sync file of kind `events`."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from connector._model import MistakeError, Model, kind_of
from connector.config._scalars import Text, attribute_name, attribute_pattern, short_form
from connector.config._sync import OutboundBase, check_types
from connector.config._wording import listing
from connector.event_mapping import EVENT_ID, OCCURRED_AT, EventAttributeMapping
from connector.nested import NATIVE_TYPES
from connector.rules import OBJECT_ATTRIBUTES_MAX

_EVENT_NAME = r"^[a-z0-9_]{1,30}$"
_DAY = r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$"  # a century that calendars and Dagster can count from


def _event_name(name: str) -> str:
    if not re.fullmatch(_EVENT_NAME, name):
        near = re.sub(r"[^a-z0-9_]", "_", name.strip().lower())
        hint = f"did you mean '{near}'?" if re.fullmatch(_EVENT_NAME, near) else "rename it, or name a {column: …}"
        raise ValueError(f"an event's name is 1 to 30 lower-case letters, digits and '_'; {hint}")
    return name


def _name_or_column(value: object) -> object:
    if isinstance(value, str | dict | NameColumn):
        return value
    raise ValueError(f"must be an event's name or {{column: …}}, got {kind_of(value)}")


def _form(value: object) -> str:
    return "(name)" if isinstance(value, str) else "(column)"


def _day(value: object) -> date:
    if isinstance(value, date):
        return value
    with suppress(ValueError):
        if isinstance(value, str) and re.fullmatch(_DAY, value):
            return date.fromisoformat(value)
    raise ValueError("must be a day of this century, such as 2026-01-01")


class NameColumn(Model):
    """The column that holds each event's name."""

    column: Text = Field(description="a column of text")


class Partitions(Model):
    """How the asset is cut into partitions by event time."""

    daily: Annotated[date, BeforeValidator(_day, json_schema_input_type=Annotated[str, Field(pattern=_DAY)])] = Field(
        description="one partition a day (UTC), from this day on"
    )


NameOrColumn = Annotated[
    Annotated[str, AfterValidator(_event_name), Field(json_schema_extra={"pattern": _EVENT_NAME}), Tag("(name)")]
    | Annotated[NameColumn, Tag("(column)")],
    Discriminator(_form),
    BeforeValidator(_name_or_column),
]
"""The name of every event of a sync, or the column that holds each one's."""

EventAttributeName = Annotated[
    str,
    AfterValidator(attribute_name(NATIVE_TYPES, "an event")),
    Field(json_schema_extra={"pattern": attribute_pattern(NATIVE_TYPES)}),
]
"""`$label`, `$tags`, or 1 to 30 of a-z, 0-9 and _."""

EventAttributeOrColumn = Annotated[
    EventAttributeMapping,
    BeforeValidator(short_form("column", "a column's name"), json_schema_input_type=EventAttributeMapping | Text),
]
"""An event attribute's mapping, or its column's name alone."""


class EventSync(OutboundBase):
    """One sync: rows of a warehouse become events of profiles."""

    kind: Literal["events"] = Field(description="events: a row is an event of a profile")
    event: NameOrColumn = Field(
        default=NameColumn(column="event_name"),
        description="the events' name, or {column: …} that holds it; the column event_name by default",
    )
    time: Text = Field(default="event_time", description="the column that tells when the event happened")
    id: Text | None = Field(
        default=None,
        description=f"the column of the event's stable id, sent as {EVENT_ID}; without it one is derived from the row",
    )
    late: Literal["hold", "drop", "restamp"] = Field(
        default="hold",
        description=f"an event older than Batch takes: hold it, drop it, or send it as now, with {OCCURRED_AT}",
    )
    on_unknown: Literal["hold", "resend"] = Field(
        default="hold", description="an event of which nobody knows whether it arrived: hold it, or send it again"
    )
    attributes: dict[EventAttributeName, EventAttributeOrColumn] | None = Field(
        default=None,
        min_length=1,
        json_schema_extra={"maxProperties": OBJECT_ATTRIBUTES_MAX},
        description="Batch name to column; omitted: every other column, by the Cloud Sync conventions",
    )
    partitions: Partitions | None = Field(default=None, description="cuts the asset by event time, for backfills")
    engine: Literal["local"] = Field(default="local", description="where events are told from those sent before: here")

    @field_validator("engine", mode="before")
    @classmethod
    def _has_no_diff(cls, value: object) -> object:
        if value == "warehouse":
            raise ValueError("is for profiles: an event sync has no diff for the warehouse to make; remove it")
        return value

    @field_validator("attributes")
    @classmethod
    def _attributes_fit(
        cls, value: dict[str, EventAttributeMapping] | None, info: ValidationInfo
    ) -> dict[str, EventAttributeMapping] | None:
        ours = {EVENT_ID: "id"} if info.data.get("id") else {}
        if info.data.get("late") == "restamp":
            ours[OCCURRED_AT] = "late: restamp"
        _check_room(value or {}, ours)
        check_types(value or {}, NATIVE_TYPES)
        return value


def _check_room(attributes: Mapping[str, EventAttributeMapping], ours: Mapping[str, str]) -> None:
    """No attribute has the name of one that we add, and all together are not too many."""
    if taken := next((name for name in attributes if name in ours), None):
        raise MistakeError(f"'{ours[taken]}' sends an attribute of this name; give this one another", taken)
    allowed = OBJECT_ATTRIBUTES_MAX - len(ours)
    if len(attributes) > allowed:
        beside = f" beside {listing(ours, 'and')} ({listing(ours.values(), 'and')})" if ours else ""
        raise MistakeError(f"at most {allowed} are allowed{beside}; remove the rest")
