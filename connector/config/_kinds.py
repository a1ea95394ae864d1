"""The kinds of sync, and the model of each."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from connector._model import MistakeError, Model
from connector.config._events import EventSync
from connector.config._exports import ExportSync
from connector.config._profiles import ProfileSync
from connector.config._wording import nearest

Kind = Literal["profiles", "events", "export"]

Outbound: TypeAlias = ProfileSync | EventSync
"""A sync that sends rows to Batch."""

Sync: TypeAlias = ProfileSync | EventSync | ExportSync
"""A sync of any kind."""

SYNC_MODELS: Mapping[Kind, type[Sync]] = {"profiles": ProfileSync, "events": EventSync, "export": ExportSync}
"""What a file of each kind holds."""


class SyncKind(Model):
    """What a file of `syncs/` says first: its kind decides which other keys there are."""

    model_config = ConfigDict(extra="ignore")

    kind: Kind = Field(description="what the sync is about: profiles, events or an export")

    @model_validator(mode="before")
    @classmethod
    def _misspelt(cls, value: dict[str, object]) -> dict[str, object]:
        known = {name for model in SYNC_MODELS.values() for name in model.model_fields}
        if "kind" not in value and (near := nearest("kind", value.keys() - known)):
            raise MistakeError("unknown key; did you mean 'kind'?", near)
        return value
