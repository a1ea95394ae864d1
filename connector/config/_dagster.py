"""How a sync shows in Dagster: its schedule and its asset; checked here, so that definitions always load."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from connector._model import Model
from connector.config._scalars import Cron, PositiveDuration, Text, Zone, short_form


def _group(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError("a group's name is made of letters, digits and '_'; rename it")
    return name


def _owner(owner: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:\S+", owner):
        raise ValueError("an owner is an e-mail address or team:NAME")
    return owner


def _tag_key(key: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}", key):
        raise ValueError(
            "a tag's key is 1 to 63 letters, digits, '_', '.' and '-', with at most one prefix before a '/'"
        )
    return key


def _tag_value(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("a tag's value is at most 63 letters, digits, '_', '.' and '-'")
    return value


class Schedule(Model):
    """When a sync runs by itself."""

    cron: Cron = Field(description="five fields: minute, hour, day of the month, month, day of the week")
    timezone: Zone = Field(default="UTC", description="the zone of the cron text")
    enabled: bool = Field(
        default=False, description="whether the schedule starts running, else it waits to be switched on"
    )


ScheduleOrCron = Annotated[
    Schedule, BeforeValidator(short_form("cron", "a cron text"), json_schema_input_type=Schedule | Text)
]
"""A schedule, or its cron text alone."""


class DagsterSettings(Model):
    """What the sync's asset carries in Dagster."""

    group: Annotated[str, AfterValidator(_group)] = Field(default="batch", description="the asset's group")
    owners: tuple[Annotated[str, AfterValidator(_owner)], ...] = Field(
        default=(), description="e-mail addresses or team:NAME"
    )
    tags: dict[Annotated[str, AfterValidator(_tag_key)], Annotated[str, AfterValidator(_tag_value)]] = Field(
        default={}, description="tags of the asset"
    )
    upstream: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="the asset key of the source, such as [marts, customers]"
    )
    freshness: PositiveDuration | None = Field(default=None, description="how old the last good run may be")
