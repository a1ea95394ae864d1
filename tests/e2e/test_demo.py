"""The demo as a newcomer runs it: one command, no account, and the proof that it worked."""

import copy
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest

import connector
from connector import invented, proof
from connector.cli import main
from connector.config import load_project
from connector.simulator import Simulator, serve

ROOT = Path(connector.__file__).parent.parent


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demo(folder: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "connector", "demo", "--dir", str(folder), "--port", str(port), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer") / "demo"


@pytest.fixture(scope="module")
def shown(folder: Path, port: int) -> str:
    """What the first demo prints."""
    done = demo(folder, port)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def runs_of(shown: str, sync: str) -> list[list[int]]:
    """The numbers of the two runs in the sync's table."""
    lines = shown.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{sync} "))
    return [[int(word) for word in line.split()[2:]] for line in lines[start + 2 : start + 4]]


def test_demo_shows_two_runs_and_that_both_sides_are_equal(shown: str, folder: Path) -> None:
    """The tables have both runs, a profile and an event are shown, and what was made is named and there."""
    first, second = runs_of(shown, "customers")
    assert first[:6] == [500, 500, 0, 0, 2, 500]
    assert (second[1:3], second[5:]) == ([5, 21], [26, 1])
    assert "the API holds what the warehouse says, in all 505 profiles" in shown
    assert "the API holds what the warehouse says, in all 620 events" in shown
    assert "customer100@example.org" in shown
    assert "order-00601" in shown
    for name in ("warehouse.duckdb", ".connector", ".simulator"):
        assert str(folder / name) in shown
        assert (folder / name).exists()


def test_demo_brings_the_profiles_back_by_an_export(shown: str) -> None:
    """The table says where they landed and of which export, and holds what the warehouse says."""
    lines = shown.splitlines()
    columns = next(line.split() for line in lines if line.startswith("profile_attributes "))[1:]
    brought = dict(
        zip(columns, next(line.split() for line in lines if line.startswith("batch.profile"))[1:], strict=True)
    )
    assert (brought["rows"], brought["files"], brought["requests"]) == ("505", "1", "3")
    assert int(brought["bytes"].replace(",", "")) > 100_000
    assert brought["export_id"].startswith("export_")
    assert "batch.profile_attributes holds what the warehouse says, in all 505 rows" in shown
    assert "not available" not in shown


def test_the_way_back_goes_on_after_the_demo(
    shown: str, folder: Path, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the local API up again an export lands, nothing has drifted, and the history has every run."""
    assert shown
    batch = load_project(folder).settings.batch
    keys = {batch.project_key.read(folder).get_secret_value(): batch.rest_key.read(folder).get_secret_value()}
    answers = []
    with Simulator(keys, folder=folder / ".simulator") as simulator, serve(simulator, port=port):
        for command in (["run", "profile_attributes"], ["reconcile", "customers"], ["status"]):
            assert main(["--project", str(folder), *command, "--json"]) == 0
            answers.append(json.loads(capfd.readouterr().out))
    pulled, compared, history = answers
    assert (pulled["rows"], pulled["outcome"]) == (505, "green")
    assert [compared[name] for name in ("checked", "missing", "differing", "unknown", "healed")] == [505, 0, 0, 0, 0]
    assert {run["sync"] for run in history} == {"customers", "orders", "profile_attributes"}


def test_demo_sends_each_order_once(shown: str, folder: Path) -> None:
    """The second run reads some orders again, as its window overlaps the first one's, and sends the day's new ones only."""
    first, second = runs_of(shown, "orders")
    assert first[:5] == [600, 0, 600, 600, 0]
    read, already_sent, planned, accepted, held, requests = second
    assert (planned, accepted, held, requests) == (20, 20, 0, 1)
    assert already_sent > 0
    assert read == planned + already_sent
    assert str(folder) in shown


def test_orders_can_be_planned_after_the_demo(shown: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is left to send; of a source that was never sent all would go, as the orders are of the last hours."""
    assert shown
    assert main(["--project", str(folder), "plan", "orders", "--full", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["read"], plan["already_sent"], plan["planned"]) == (620, 620, 0)
    assert main(["--project", str(folder), "plan", "orders", "--resend", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["planned"], plan["held"], plan["unsent"], plan["by_attribute"]["items"]) == (620, 0, 620, 620)


def test_demo_starts_over_in_its_own_folder(shown: str, folder: Path, port: int) -> None:
    """A second demo removes what the first one made, and answers in JSON with the same counts."""
    assert shown
    done = demo(folder, port, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["differing"], answer["compared"]) == (0, True, 0, 505)
    runs = [(run["sync"], run["accepted"]) for run in answer["runs"]]
    assert runs == [("customers", 500), ("orders", 600), ("customers", 26), ("orders", 20)]
    assert (answer["events_compared"], answer["events_differing"]) == (620, 0)
    assert answer["event"]["attributes"]["items"] == [
        {"sku": "PL-900", "title": "Gold plan", "quantity": 1, "price": 49.9}
    ]
    assert answer["plan"]["planned"] == 26
    export = answer["export"]
    assert (export["rows"], export["table"], export["outcome"]) == (505, "batch.profile_attributes", "green")
    assert (answer["rows_compared"], answer["rows_differing"]) == (505, 0)


@pytest.mark.parametrize("name", ["warehouse.duckdb", "connector.yaml", "syncs/orders.yaml"])
def test_demo_touches_nothing_that_it_did_not_make(
    tmp_path: Path, port: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's file in the folder ends the demo with 2, and stays as it is."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert main(["demo", "--dir", str(tmp_path), "--port", str(port)]) == 2
    assert "--dir" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_demo_names_the_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where somebody listens already the demo ends with 2 before it makes or removes anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--dir", str(tmp_path / "demo"), "--port", str(port)]) == 2
    assert f"cannot listen on port {port}" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


NOW = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - as the warehouse has it


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb"
    invented.make(path, NOW)
    return path


def test_comparison_counts_profiles_that_either_side_lacks(warehouse: Path) -> None:
    """The demo's proof can fail: rows that the API lacks, and a profile that the warehouse lacks, all count."""
    stranger = {"stranger": {"custom_id": "stranger", "native": {}, "custom": {}}}
    customers = invented.rows(warehouse, "marts.customers")
    everybody = invented.CUSTOMERS + 1
    told = frozenset(proof.CUSTOMER_COLUMNS)
    assert proof.compare_profiles(customers, stranger, told) == (everybody, everybody)


def _as_held(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": row["custom_id"],
            "name": "order_placed",
            "time": row["ordered_at"].isoformat() + "Z",
            "attributes": {
                "event_id": row["order_id"],
                "$label": row["status"],
                **({"$tags": row["tags"]} if row["tags"] else {}),
                "amount": float(row["amount"]),
                "items": [{**item, "price": float(item["price"])} for item in row["items"]],
            },
        }
        for row in orders
    ]


def _lost(held: list[dict[str, Any]]) -> None:
    del held[3]


def _twice(held: list[dict[str, Any]]) -> None:
    held.append(held[-1])


def _stranger(held: list[dict[str, Any]]) -> None:
    held.append({**held[-1], "attributes": {**held[-1]["attributes"], "event_id": "stranger"}})


def _nested_value(held: list[dict[str, Any]]) -> None:
    held[3]["attributes"]["items"][0]["quantity"] += 1


def _somebody_elses(held: list[dict[str, Any]]) -> None:
    held[3]["custom_id"] = "customer-9999"


def _overtaken(held: list[dict[str, Any]]) -> None:
    """The last order of a customer comes before the one before it."""
    who = Counter(event["custom_id"] for event in held).most_common(1)[0][0]
    *_, earlier, later = (place for place, event in enumerate(held) if event["custom_id"] == who)
    held[earlier], held[later] = held[later], held[earlier]


def test_comparison_passes_events_that_are_right(warehouse: Path) -> None:
    """Each order once, whole and in order: nothing differs; attributes that somebody edited are left out."""
    orders = invented.rows(warehouse, "marts.orders")
    held, told = _as_held(orders), frozenset(proof.ORDER_COLUMNS)
    assert proof.compare_events(orders, held, told) == (0, invented.ORDERS)
    for event in held:
        del event["attributes"]["amount"]
    assert proof.compare_events(orders, held, told).differing == invented.ORDERS
    assert proof.compare_events(orders, held, told - {"amount"}).differing == 0
    assert proof.compare_events(orders, held, None) == (0, 0)


@pytest.mark.parametrize("spoil", [_lost, _twice, _stranger, _nested_value, _somebody_elses, _overtaken])
def test_comparison_counts_an_event_that_is_wrong(
    warehouse: Path, spoil: Callable[[list[dict[str, Any]]], None]
) -> None:
    """The demo's proof can fail: one event too few, too many, altered, misplaced or out of order is one that differs."""
    orders = invented.rows(warehouse, "marts.orders")
    held = copy.deepcopy(_as_held(orders))
    spoil(held)
    assert proof.compare_events(orders, held, frozenset(proof.ORDER_COLUMNS)).differing == 1


def _as_landed(customers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the export's table; of the two bad values nothing is at Batch."""
    return [
        {
            "custom_id": row["custom_id"],
            "email_address": row["email"] if "@" in row["email"] else None,
            "phone_number": row["phone"] if (row["phone"] or "").startswith("+") else None,
            "birthdate": datetime.combine(row["born_on"], time(), UTC) if row["born_on"] else None,
            "plan": row["plan_name"],
            "interests": json.dumps(row["interests"][::-1]) if row["interests"] else None,
            "spend": float(row["spend"]),
            **{name: row[name] for name in ("language", "first_name", "orders")},
        }
        for row in customers
    ]


@pytest.mark.parametrize(
    ("spoil", "differ"),
    [
        (lambda _: None, 0),
        (lambda landed: landed.pop(3), 1),
        (lambda landed: landed.append(landed[3]), 1),
        (lambda landed: landed.append({**landed[3], "custom_id": "stranger"}), 1),
        (lambda landed: landed[3].update(custom_id="customer-0001"), 2),
        (lambda landed: landed[3].update(orders=99), 1),
        (lambda landed: landed[3].update(birthdate=datetime(1999, 1, 1, tzinfo=UTC)), 1),
        (lambda landed: landed[3].update(email_address=None), 1),
        (lambda landed: landed[3].update(interests='["other"]'), 1),
        (lambda landed: landed.clear(), invented.CUSTOMERS),
    ],
    ids=["right", "lost", "twice", "stranger", "misplaced", "number", "date", "null", "array", "empty"],
)
def test_comparison_counts_a_row_that_is_wrong(
    warehouse: Path, spoil: Callable[[list[dict[str, Any]]], object], differ: int
) -> None:
    """The demo's proof of its export can fail: one row too few, too many, or with another value is one that differs."""
    customers = invented.rows(warehouse, "marts.customers")
    landed = _as_landed(customers)
    spoil(landed)
    assert proof.compare_table(customers, landed, frozenset(proof.CUSTOMER_COLUMNS)).differing == differ


def test_an_edited_export_is_not_compared(warehouse: Path) -> None:
    """Who exports fewer attributes is compared by those; another kind of export, or another table, not at all."""
    export = load_project(ROOT / "assets" / "project").sync("profile_attributes")
    assert proof.exported_attributes(export) == frozenset(proof.CUSTOMER_COLUMNS)
    assert proof.exported_attributes(export.model_copy(update={"attributes": ("plan",)})) == {"plan"}
    for edited in ({"segment": "vip"}, {"write": "append"}, {"table": "batch.others"}):
        assert proof.exported_attributes(export.model_copy(update=edited)) is None
    customers = invented.rows(warehouse, "marts.customers")
    landed = [{"custom_id": row["custom_id"], "plan": row["plan"]} for row in _as_landed(customers)]
    assert proof.compare_table(customers, landed, frozenset({"plan"})) == (0, invented.CUSTOMERS)
    assert proof.compare_table(customers, landed, None) == (0, 0)


def test_edited_events_are_not_compared() -> None:
    """Who makes other events of the orders, or maps an attribute otherwise, edits an example and breaks nothing."""
    example = ROOT / "assets" / "project"
    orders = load_project(example).sync("orders")
    assert proof.event_attributes(orders) == frozenset(proof.ORDER_COLUMNS)
    assert proof.event_attributes(orders.model_copy(update={"event": "bought"})) is None
    fewer = {name: mapping for name, mapping in (orders.attributes or {}).items() if name != "items"}
    assert proof.event_attributes(orders.model_copy(update={"attributes": fewer})) == {"$label", "$tags", "amount"}


def test_example_project_is_right_and_says_that_its_keys_are_no_secrets() -> None:
    """The example that people copy is a valid project with a note on its keys."""
    example = ROOT / "assets" / "project"
    assert list(load_project(example).syncs) == ["customers", "orders", "profile_attributes"]
    assert "no secrets" in (example / "connector.yaml").read_text(encoding="utf-8")
