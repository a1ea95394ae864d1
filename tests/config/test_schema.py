"""The JSON Schemas: what they tell editors, and that they agree with the loader."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from connector.config import load_project, project_schema, sync_schema
from connector.config._yaml import read_document
from connector.errors import ConfigError
from tests.config.conftest import Write

SCHEMA = sync_schema()
MODELS = {name: SCHEMA["$defs"][name] for name in ("ProfileSync", "EventSync", "ExportSync")}

SHARED = "warehouse: local\nsource: {table: a}\n"
PROFILES = "kind: profiles\n" + SHARED
EVENTS = "kind: events\n" + SHARED
MANY = f"attributes: {{{', '.join(f'a{number}: b' for number in range(21))}}}\n"

RIGHT = [
    PROFILES,
    PROFILES + "name: people\ncursor: at\nfull_read_every: 1d\nguard: {max_changed: 1%}\ndedupe: latest\n",
    PROFILES + "attributes: {$email_address: email, plan: {column: p, on_null: keep}}\nschedule: '0 4 * * *'\n",
    PROFILES + MANY,
    EVENTS,
    EVENTS + "name: orders\nevent: order_placed\ntime: at\nid: order_id\ncursor: {column: at, lag: 1m}\n",
    EVENTS + "event: {column: event_name}\nlate: restamp\non_unknown: resend\nendpoint: update\n",
    EVENTS + "attributes: {$label: a, $tags: {column: b, unordered: true}, items: {column: c, type: object}}\n",
    EVENTS + "partitions: {daily: 2026-01-01}\ntolerance: {invalid: 2%}\ndagster: {upstream: [marts, orders]}\n",
    EVENTS + "id: null\nattributes: null\npartitions: null\n",
]

WRONG = [
    SHARED,
    "kind: export\n" + SHARED,
    "kind: profiles\nwarehouse: local\n",
    PROFILES + "event: order_placed\n",
    PROFILES + "attributes: {$label: a}\n",
    PROFILES + "attributes: {items: {column: a, type: object}}\n",
    PROFILES + "partitions: {daily: 2026-01-01}\n",
    "kind: events\nsource: {table: a}\n",
    EVENTS + "guard: {min_rows: 1}\n",
    EVENTS + "dedupe: reject\n",
    EVENTS + "on_removed: ignore\n",
    EVENTS + "full_read_every: 7d\n",
    EVENTS + "event: Order\n",
    EVENTS + "event: 5\n",
    EVENTS + "event: {}\n",
    EVENTS + "event: {column: a, name: b}\n",
    EVENTS + "event: null\n",
    EVENTS + "time: ''\n",
    EVENTS + "late: never\n",
    EVENTS + "on_unknown: drop\n",
    EVENTS + "engine: warehouse\n",
    EVENTS + "attributes: {}\n",
    EVENTS + "attributes: {$email_address: a}\n",
    EVENTS + "attributes: {date(a): b}\n",
    EVENTS + "attributes: {a: {column: b, on_null: keep}}\n",
    EVENTS + MANY,
    EVENTS + "partitions: {daily: 20260101}\n",
    EVENTS + "partitions: {daily: 1999-01-01}\n",
    EVENTS + "partitions: daily\n",
]


def verdicts(write: Write, text: str) -> tuple[bool, bool]:
    """Whether the loader takes the file, and whether the schema does."""
    root = write({"syncs/orders.yaml": text})
    value = read_document(root / "syncs/orders.yaml", "orders").value
    try:
        loaded = bool(load_project(root).syncs)
    except ConfigError:
        loaded = False
    return loaded, Draft202012Validator(SCHEMA).is_valid(value)


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_loader_takes_the_schema_takes(text: str, write: Write) -> None:
    """An editor marks nothing in a file that loads."""
    assert verdicts(write, text) == (True, True)


@pytest.mark.parametrize("text", WRONG)
def test_what_the_schema_can_refuse_it_refuses_as_the_loader(text: str, write: Write) -> None:
    """An editor marks keys, values and names that the kind does not have."""
    assert verdicts(write, text) == (False, False)


@pytest.mark.parametrize("schema", [project_schema(), SCHEMA], ids=["project", "sync"])
def test_schemas_are_of_the_draft_that_they_name(schema: dict[str, Any]) -> None:
    """An editor can read the schema."""
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("schema", [project_schema(), *MODELS.values()], ids=["project", *MODELS])
def test_schemas_describe_every_key_and_allow_no_other(schema: dict[str, Any]) -> None:
    """Editors get every key with its meaning, and mark the unknown ones."""
    assert all("description" in each for each in schema["properties"].values())
    inner = schema.get("$defs", SCHEMA["$defs"]).values()
    assert all(each["additionalProperties"] is False for each in [schema, *inner])


def test_one_document_holds_every_kind() -> None:
    """The kind is asked for first and decides which keys there are; `name` may always be left out."""
    assert SCHEMA["properties"]["kind"]["enum"] == ["profiles", "events", "export"]
    assert SCHEMA["discriminator"]["mapping"] == {
        "profiles": "#/$defs/ProfileSync",
        "events": "#/$defs/EventSync",
        "export": "#/$defs/ExportSync",
    }
    assert [MODELS[model]["required"] for model in ("ProfileSync", "EventSync")] == [
        ["kind", "warehouse", "source"]
    ] * 2
    assert MODELS["ExportSync"]["required"] == ["kind", "warehouse", "export", "table"]


@pytest.mark.parametrize(("model", "mapping"), [("ProfileSync", "AttributeMapping"), ("EventSync", "EventAttribute")])
def test_the_sync_schema_allows_short_forms(model: str, mapping: str) -> None:
    """A cursor, an attribute and a schedule may be text."""
    properties = MODELS[model]["properties"]
    for key in ("cursor", "schedule"):
        assert "string" in [each.get("type") for each in properties[key]["anyOf"]]
    names = properties["attributes"]["anyOf"][0]
    assert names["additionalProperties"] is False
    assert f"$defs/{mapping}" in str(names["patternProperties"])


def test_defaults_read_as_one_writes_them() -> None:
    """Lengths of time, shares and sizes stand in the schema as in YAML."""
    assert MODELS["ProfileSync"]["properties"]["full_read_every"]["default"] == "7d"
    assert SCHEMA["$defs"]["Guard"]["properties"]["max_changed"]["default"] == "50%"
    assert MODELS["EventSync"]["properties"]["time"]["default"] == "event_time"
    assert project_schema()["properties"]["memory"]["default"] == "1GB"
