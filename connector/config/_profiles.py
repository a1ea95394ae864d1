"""The model of a sync file of kind `profiles`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from connector._model import Model, Share
from connector.config._dagster import ScheduleOrCron
from connector.config._scalars import AttributeName, PositiveDuration, Text, short_form
from connector.config._source import Cursor
from connector.config._sync import OutboundBase, check_types
from connector.mapping import ATTRIBUTES_MAX, AttributeMapping
from connector.rules import NATIVE_TYPES

AttributeOrColumn = Annotated[
    AttributeMapping,
    BeforeValidator(short_form("column", "a column's name"), json_schema_input_type=AttributeMapping | Text),
]
"""An attribute's mapping, or its column's name alone."""


class Guard(Model):
    """Limits of one run, checked before its first request; refused above them, not at them."""

    max_changed: Share = Field(default=0.5, description="changed profiles, of those in the snapshot")
    max_removed: Share = Field(default=0.1, description="removed profiles, of those in the snapshot")
    min_rows: int = Field(default=1, ge=0, description="rows that a full read must find")


class Reconcile(Model):
    """When Batch's own word is held against what was delivered, and what is done about a drift."""

    schedule: ScheduleOrCron | None = Field(default=None, description="when: a cron text of five fields")
    heal: bool = Field(default=False, description="whether what Batch lost or holds otherwise is sent again")


class Consent(Model):
    """Who decides about consent to marketing."""

    owner: Literal["batch", "warehouse"] = Field(
        default="batch", description="batch: consent that differs is reported, and not healed"
    )


class ProfileSync(OutboundBase):
    """One sync: rows of a warehouse become attributes of profiles."""

    kind: Literal["profiles"] = Field(description="profiles: a row holds the attributes of a profile")
    engine: Literal["local", "warehouse"] = Field(
        default="local", description="where rows are compared with what was delivered: here, or in the warehouse"
    )
    full_read_every: PositiveDuration = Field(
        default=timedelta(days=7),
        validate_default=False,
        description="with a cursor: how often the whole source is read, to see removed and late rows",
    )
    attributes: dict[AttributeName, AttributeOrColumn] | None = Field(
        default=None,
        min_length=1,
        max_length=ATTRIBUTES_MAX,
        description="Batch name to column; omitted: every other column, by the Cloud Sync conventions",
    )
    on_removed: Literal["ignore", "clear"] = Field(
        default="ignore", description="a row that left the source: ignore it, or clear every mapped attribute"
    )
    guard: Guard = Field(default=Guard(), description="limits that stop a mass change before its first request")
    reconcile: Reconcile | None = Field(
        default=None, description="compare what Batch holds with what was delivered, on a schedule"
    )
    consent: Consent = Field(default=Consent(), description="who decides about consent to marketing")
    respect_opt_out: bool = Field(
        default=False, description="do not subscribe again who has unsubscribed at Batch, by a loaded export"
    )
    dedupe: Literal["reject", "error", "latest"] = Field(
        default="reject",
        description="a key found twice: reject its rows, send nothing, or take the latest by the cursor",
    )

    @field_validator("full_read_every")
    @classmethod
    def _full_read_needs_cursor(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if info.data.get("cursor", ...) is None:
            raise ValueError("has no meaning without a cursor, every read is a full one; remove it or add a cursor")
        return value

    @field_validator("dedupe")
    @classmethod
    def _latest_needs_cursor(cls, value: str, info: ValidationInfo) -> str:
        cursor = info.data.get("cursor", ...)
        if value == "latest" and (cursor is None or (isinstance(cursor, Cursor) and cursor.feed)):
            raise ValueError("'latest' needs a cursor's column to order the rows; add one, or use reject or error")
        return value

    @field_validator("reconcile")
    @classmethod
    def _reconcile_is_local(cls, value: Reconcile | None, info: ValidationInfo) -> Reconcile | None:
        if value and info.data.get("engine") == "warehouse":
            raise ValueError("needs engine: local; what the warehouse keeps cannot be compared with Batch yet")
        return value

    @field_validator("attributes")
    @classmethod
    def _types_fit(cls, value: dict[str, AttributeMapping] | None) -> dict[str, AttributeMapping] | None:
        check_types(value or {}, NATIVE_TYPES)
        return value
