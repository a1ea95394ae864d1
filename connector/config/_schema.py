"""JSON Schema (draft 2020-12) of the YAML files, for editors."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, WithDefaultSchema

from connector.config._kinds import SYNC_MODELS, Sync, SyncKind
from connector.config._settings import ProjectSettings
from connector.config._wording import written, written_size


def project_schema() -> dict[str, Any]:
    """What `connector.yaml` may hold."""
    return _schema(ProjectSettings)


def sync_schema() -> dict[str, Any]:
    """What a file of `syncs/` may hold: its `kind`, and what that allows."""
    schema = {**_schema(SyncKind), **_schema(Annotated[Sync, Field(discriminator="kind")])}
    for model in SYNC_MODELS.values():
        schema["$defs"][model.__name__]["required"].remove("name")  # the file's name gives it
    return schema


def _schema(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - a model, or a choice of models
    schema = TypeAdapter[Any](annotation).json_schema(schema_generator=_AsWritten)
    return {"$schema": _AsWritten.schema_dialect, **schema}


class _AsWritten(GenerateJsonSchema):
    """Shows defaults as YAML has them, `15m` and `50%`; those of a section stand in the section."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - titles repeat the key
        return False

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        result = super().dict_schema(schema)
        return {**result, "additionalProperties": False} if "patternProperties" in result else result

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        default = schema.get("default")
        result = super().default_schema(schema)
        if isinstance(default, BaseModel):
            result.pop("default", None)
        elif result.get("type") == "string" and default is not None and not isinstance(default, str):
            result["default"] = _written(default)
        return result


def _written(default: object) -> str:
    match default:
        case timedelta():
            return written(default)
        case int():
            return written_size(default)
        case _:
            return f"{default:.0%}"
