"""The demo's project on the other warehouses: its rows and its YAML, every command of a user.

Of the YAML only the warehouse is another one, and the local API, for whose limits nobody waits here.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import duckdb
import pytest
from google.cloud import bigquery

from connector import invented
from connector.cli import main
from connector.demo import EXAMPLE
from connector.simulator import Simulator, serve
from tests.emulators.bigquery import client, endpoints
from tests.emulators.relay import Relay, relaying
from tests.emulators.snowflake_bench import SnowflakeBench, pytest_with_client_4
from tests.world import FAST

Row = dict[str, Any]

SYNCS = ("customers", "orders", "profile_attributes")
CUSTOMERS, ORDERS = "marts.customers", "marts.orders"
EVERYBODY = invented.CUSTOMERS + invented.NEW
CHANGED = invented.UPGRADED + 1 + invented.NEW


class House(Protocol):
    """A warehouse as its administrator sees it, through the client of its own maker."""

    block: Row
    """Its settings in `connector.yaml`."""

    def fill(self, table: str, rows: list[Row]) -> None:
        """The table has these rows and no others."""

    def rows(self, table: str) -> list[Row]:
        """A table's rows; what is JSON there may be text."""

    def touched(self) -> set[tuple[str, ...]]:
        """Schema and name of each table that somebody named in a statement or a request of the connector's."""


_SNOWFLAKE = {
    CUSTOMERS: "custom_id VARCHAR, email VARCHAR, phone VARCHAR, language VARCHAR, first_name VARCHAR, born_on DATE,"
    " plan_name VARCHAR, interests ARRAY, orders NUMBER(38,0), spend NUMBER(10,2), last_updated_at TIMESTAMP_NTZ",
    ORDERS: "order_id VARCHAR, custom_id VARCHAR, ordered_at TIMESTAMP_NTZ, status VARCHAR, tags ARRAY,"
    " amount NUMBER(10,2), items ARRAY, loaded_at TIMESTAMP_NTZ",
}


class SnowflakeHouse:
    def __init__(self, folder: Path) -> None:
        self._bench = SnowflakeBench(folder)
        (folder / "keys" / "password").write_text("not checked")
        self.block = {
            "type": "snowflake",
            "account": "test",
            "user": "tester",
            "password": {"file": "keys/password"},
            "role": "BATCH_READER",
            "warehouse": "BATCH_SYNC",
            "database": self._bench.database,
            "schema": "PUBLIC",
            "host": "127.0.0.1",
            "port": self._bench.port,
            "protocol": "http",
        }

    def fill(self, table: str, rows: list[Row]) -> None:
        named = [column.split() for column in re.split(r",\s*(?!\d)", _SNOWFLAKE[table])]
        values = ", ".join(f"value:{name}::{type_}" for name, type_ in named)
        with self._bench.connected() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA IF NOT EXISTS marts")
            cursor.execute(f"CREATE OR REPLACE TABLE {table} ({_SNOWFLAKE[table]})")
            insert = f"INSERT INTO {table} SELECT {values} FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?)))"
            cursor.execute(insert, [json.dumps(rows, default=_as_json)])

    def rows(self, table: str) -> list[Row]:
        with self._bench.connected() as connection, connection.cursor() as cursor:
            found = cursor.execute(f"SELECT * FROM {table}").fetchall()
            names = [column.name.lower() for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def touched(self) -> set[tuple[str, ...]]:
        said = [entry["sql"] for entry in self._bench.diary() if "USE SCHEMA" not in entry.get("sql", "USE SCHEMA")]
        return {(schema, own) for sql in said for schema, own in re.findall(r'"([^"]+)"\."([^"]+)"', sql)}


_FIELD = bigquery.SchemaField
_ITEM = (_FIELD("sku", "STRING"), _FIELD("title", "STRING"), _FIELD("quantity", "INT64"), _FIELD("price", "NUMERIC"))
_BIGQUERY = {
    CUSTOMERS: [
        *(_FIELD(name, "STRING") for name in ("custom_id", "email", "phone", "language", "first_name")),
        *(_FIELD("born_on", "DATE"), _FIELD("plan_name", "STRING"), _FIELD("interests", "STRING", "REPEATED")),
        *(_FIELD("orders", "INT64"), _FIELD("spend", "NUMERIC"), _FIELD("last_updated_at", "DATETIME")),
    ],
    ORDERS: [
        *(_FIELD(name, "STRING") for name in ("order_id", "custom_id")),
        *(_FIELD("ordered_at", "DATETIME"), _FIELD("status", "STRING"), _FIELD("tags", "STRING", "REPEATED")),
        *(_FIELD("amount", "NUMERIC"), _FIELD("items", "STRUCT", "REPEATED", fields=_ITEM)),
        _FIELD("loaded_at", "DATETIME"),
    ],
}


class BigQueryHouse:
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._project = f"demo-{uuid4().hex[:8]}"
        self._client = client(self._project)
        self._client.create_dataset("marts")
        self.block = {
            "type": "bigquery",
            "project": self._project,
            "location": "US",
            "api_endpoint": relay.url,
            "storage_endpoint": endpoints().storage,
        }

    def fill(self, table: str, rows: list[Row]) -> None:
        name = f"{self._project}.{table}"
        self._client.delete_table(name, not_found_ok=True)
        made = self._client.create_table(bigquery.Table(name, _BIGQUERY[table]))
        given = [json.loads(json.dumps(row, default=_plain)) for row in rows]
        told = [{column: value for column, value in row.items() if value is not None} for row in given]
        assert self._client.insert_rows_json(made, told) == []

    def rows(self, table: str) -> list[Row]:
        return [dict(row) for row in self._client.query(f"SELECT * FROM {table}").result()]

    def touched(self) -> set[tuple[str, ...]]:
        found = set()
        for seen in self._relay.seen:
            found |= set(re.findall(r"`[^`]+`\.`([^`]+)`\.`([^`]+)`", _sql(seen.body)))
            found |= set(re.findall(r"/datasets/([^/]+)/tables/([^/?]+)", seen.path))
        return found


def _sql(body: Any) -> str:
    """The statement of a request that starts a job."""
    found = ((body or {}).get("configuration") or {}).get("query") or body or {}
    return str(found.get("query") or "")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _as_json(value: object) -> str | float:
    """As Snowflake's own functions write it: a number stays a number inside a VARIANT."""
    return float(value) if isinstance(value, Decimal) else _plain(value)


@contextmanager
def snowflake_house(folder: Path) -> Iterator[House]:
    yield SnowflakeHouse(folder)


@contextmanager
def bigquery_house(_folder: Path) -> Iterator[House]:
    with relaying(endpoints().api) as relay:
        yield BigQueryHouse(relay)


HOUSES = {"snowflake": snowflake_house, "bigquery": bigquery_house}


class Town:
    """The demo's project in a folder, its warehouse, the local API, and the generator's rows as they are by now."""

    def __init__(self, folder: Path, house: House, api: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.house = house
        self.api = api
        self._capfd = capfd
        self._made = folder / "made.duckdb"
        invented.make(self._made, _now())
        self._deliver()

    def change(self) -> None:
        """A day's work in the shop."""
        invented.change(self._made, _now())
        self._deliver()

    def correct(self, statement: str) -> None:
        """Change rows, but not their time."""
        with duckdb.connect(self._made) as connection:
            connection.execute(statement)
        self._deliver()

    def _deliver(self) -> None:
        for table in (CUSTOMERS, ORDERS):
            self.house.fill(table, invented.rows(self._made, table))

    def answer(self, *command: str, status: int = 0) -> Any:
        """What the command line prints as JSON."""
        self._capfd.readouterr()
        ended = main(["--project", str(self.folder), *command, "--json"])
        said = self._capfd.readouterr()
        assert ended == status, said.out + said.err
        return json.loads(said.out)

    def edit(self, sync: str, *, drop: str = "", add: str = "") -> None:
        """Change a line of the sync's YAML."""
        path = self.folder / "syncs" / f"{sync}.yaml"
        kept = [line for line in path.read_text().splitlines() if not drop or not line.startswith(drop)]
        path.write_text("\n".join([*kept, add, ""]))

    def check(self) -> None:
        """All that the API holds is what the warehouse says, row by row."""
        customers, orders = self.house.rows(CUSTOMERS), self.house.rows(ORDERS)
        held = {profile["custom_id"]: _held(profile) for profile in self.api.profiles()}
        assert held == {row["custom_id"]: _profile(row) for row in customers}
        came = {event["attributes"]["event_id"]: event for event in self.api.events()}
        assert len(came) == len(self.api.events()) == len(orders)
        for row in orders:
            event = came[row["order_id"]]
            assert (event["custom_id"], event["name"], event["time"]) == (
                row["custom_id"],
                "order_placed",
                _moment(row["ordered_at"]),
            )
            assert event["attributes"] == {**_order(row), "event_id": row["order_id"]}


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _list(value: Any) -> list[Any]:
    """Semi-structured values come as JSON text, or as what they are."""
    return list(json.loads(value) if isinstance(value, str) else value or [])


def _profile(row: Row) -> Row:
    """What Batch should hold of a customer: nothing of the two values that break a rule."""
    born: date | None = row["born_on"]
    attributes = {
        "$email_address": row["email"] if "@" in row["email"] else None,
        "$phone_number": row["phone"] if (row["phone"] or "").startswith("+") else None,
        "$language": row["language"],
        "first_name": row["first_name"],
        "birthdate": born and f"{born.isoformat()}T00:00:00Z",
        "plan": row["plan_name"],
        "interests": sorted(_list(row["interests"])),
        "orders": row["orders"],
        "spend": float(row["spend"]),
    }
    return {name: value for name, value in attributes.items() if value not in (None, [])}


def _held(profile: Row) -> Row:
    values = {name: typed["value"] for name, typed in profile["custom"].items()}
    interests = {"interests": sorted(values["interests"])} if "interests" in values else {}
    return {**profile["native"], **values, **interests}


def _landed(row: Row) -> Row:
    """A row of the export's table, as the values that Batch held."""
    values = {
        ("$" if name.endswith(("_address", "_number", "guage")) else "") + name: value for name, value in row.items()
    }
    born: datetime | None = row["birthdate"]
    values |= {"birthdate": born and _moment(born.astimezone(UTC)), "interests": sorted(_list(row["interests"]))}
    ours = ("custom_id", "export_id", "loaded_at", "raw")
    return {name: value for name, value in values.items() if name not in ours and value not in (None, [])}


def _order(row: Row) -> Row:
    items = [{**item, "price": float(item["price"])} for item in _list(row["items"])]
    tags = {"$tags": found} if (found := _list(row["tags"])) else {}
    return {"$label": row["status"], **tags, "amount": float(Decimal(row["amount"])), "items": items}


@pytest.fixture(params=HOUSES)
def town(request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Town]:
    for name in ("connector.yaml", "syncs", "keys"):
        copy: Callable[[Path, Path], Any] = shutil.copytree if (EXAMPLE / name).is_dir() else shutil.copy
        copy(EXAMPLE / name, tmp_path / name)
    project_key, rest_key = (
        (tmp_path / "keys" / f"{name}.txt").read_text().strip() for name in ("project_key", "rest_key")
    )
    api = Simulator({project_key: rest_key}, record=True)
    api.configure(update_rate=None, mass_update_rate=None, other_rate=None, export_seconds=0)
    main_file = tmp_path / "connector.yaml"
    with HOUSES[request.param](tmp_path) as house, serve(api) as served:
        text = re.sub(r"(?m)^  local: .*$", f"  local: {json.dumps(house.block)}", main_file.read_text())
        ours = f"  base_url: {served.base_url}\n  limits: {FAST}"
        main_file.write_text(re.sub(r"(?m)^  base_url: .*$", ours, text))
        yield Town(tmp_path, house, api, capfd)
    api.close()


def _day_one(town: Town) -> None:
    """The YAML is right, everything is there, all rows are new."""
    assert town.answer("validate")["ok"]
    checked = town.answer("check")
    assert (checked["ok"], len(checked["steps"])) == (True, 9)
    plan = town.answer("plan", "customers")
    assert plan["planned"] == invented.CUSTOMERS
    assert (plan["read_bytes"] is None) == ("bytes" not in str(checked["steps"]))
    runs = [town.answer("run", sync) for sync in SYNCS[:2]]
    assert [(run["accepted"], run["withheld"]) for run in runs] == [(invented.CUSTOMERS, 2), (invented.ORDERS, 0)]
    town.check()


def _day_two(town: Town) -> None:
    """Only what changed goes, and then nothing."""
    town.change()
    plan = town.answer("plan", "customers")
    assert (plan["planned"], plan["by_attribute"]["orders"]) == (CHANGED, invented.UPGRADED + invented.NEW)
    assert [town.answer("run", sync)["accepted"] for sync in SYNCS[:2]] == [CHANGED, invented.UPGRADED]
    town.check()
    town.api.requests.clear()
    assert [town.answer("run", sync)["planned"] for sync in SYNCS[:2]] == [0, 0]
    assert [request for request in town.api.requests if request.custom_ids] == []


def _way_back(town: Town) -> None:
    """What Batch holds is what the export's table holds, and what was delivered."""
    assert town.answer("run", "profile_attributes")["rows"] == EVERYBODY
    landed = town.house.rows("batch.profile_attributes")
    assert len(landed) == EVERYBODY
    assert {row["custom_id"]: _landed(row) for row in landed} == {
        row["custom_id"]: _profile(row) for row in town.house.rows(CUSTOMERS)
    }
    drift = town.answer("reconcile", "customers")
    assert [drift[name] for name in ("checked", "missing", "differing", "unknown")] == [EVERYBODY, 0, 0, 0]


def _other_engine(town: Town) -> None:
    """The same sync with `engine: warehouse` sends nothing again, and then what changed."""
    town.edit("customers", drop="reconcile:", add="engine: warehouse")  # which cannot be reconciled yet
    assert town.answer("run", "customers")["planned"] == 0
    town.correct("UPDATE marts.customers SET plan_name = 'silver', interests = ['chess', 'music'] WHERE orders = 8")
    changed = sum(row["orders"] == 8 for row in town.house.rows(CUSTOMERS))
    assert town.answer("run", "customers", "--full")["accepted"] == changed > 0
    town.check()


def _rights(town: Town) -> None:
    """The tables and schemas of `check --grants` are those that all these runs named, and no others."""
    (grants,) = town.answer("check", "--grants")["grants"].values()
    said = [statement for statement in grants if statement.startswith("GRANT")]
    tables = {_last(statement, 2) for statement in said if " ON TABLE " in statement}
    schemas = {_last(statement, 1) for statement in said if "CREATE TABLE" in statement or "dataEditor" in statement}
    touched = town.house.touched()
    assert {name for name in touched if name[:1] not in schemas} == tables
    assert {name[:1] for name in touched} - {name[:1] for name in tables} == schemas


def _last(statement: str, parts: int) -> tuple[str, ...]:
    """The end of the name that a statement grants something on."""
    name = statement.partition(" ON ")[2].partition(" TO ")[0].split(" ", 1)[1]
    return tuple(part.strip('"`') for part in name.split("."))[-parts:]


def test_the_demo_runs_on_every_warehouse(town: Town) -> None:
    """Every command of a user, events, the way back, both engines: each number and each value is right."""
    _day_one(town)
    _day_two(town)
    _way_back(town)
    _other_engine(town)
    _rights(town)


def test_the_demo_runs_with_the_driver_s_version_4() -> None:
    """On Snowflake users' environments have either of the driver's major versions."""
    this = f"{Path(__file__)}::test_the_demo_runs_on_every_warehouse"
    command = pytest_with_client_4("-q", "-k", "snowflake", "-p", "no:cacheprovider", this)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
