"""`dagster dev` on a small project, driven as its UI drives it: runs, dry runs, checks, cancel and resume, backfill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import httpx
import pytest

from assets.metadata import COUNTS
from connector.simulator import Simulator, serve

pytest.importorskip("dagster_webserver")

ROOT = Path(__file__).parents[2]
PROJECT_KEY, REST_KEY = "project_dev", "rest_dev"
SLOW_ROWS = 3000
PER_CALL = 20
DAYS, ORDERS = 30, 120
FIRST_DAY = datetime.now(UTC).date() - timedelta(days=DAYS)

MAIN = """\
batch:
  project_key: {{file: project_key}}
  rest_key: {{file: rest_key}}
  base_url: {base_url}
  limits:
    update: {{per_second: 100000, burst: 100000, per_call: {per_call}}}
    other: {{per_second: 1000}}
delivery: {{in_flight: 4}}
warehouses:
  local: {{type: duckdb, path: warehouse.duckdb}}
"""

SYNC = """\
kind: profiles
warehouse: local
source: {{table: marts.{name}}}
attributes: {{plan: plan_name, points: points}}
"""

EVENTS = """\
kind: events
warehouse: local
source: {{table: marts.{name}}}
event: order_placed
time: ordered_at
id: order_id
late: restamp
attributes: {{amount: amount}}
partitions: {{daily: {first}}}
schedule: "*/15 * * * *"
"""

EXPORT = """\
kind: export
warehouse: local
export: attributes
table: batch.profile_attributes
attributes: [plan, points]
"""

LAUNCH = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILLED = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { runs { runId } } } }"""
CHECKS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError {
  ... on AssetChecks { checks { name jobNames canExecuteIndividually } } } } } }"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status endTime } } }"
TERMINATE = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
LOG = """query($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events { __typename
  ... on MessageEvent { message }
  ... on MaterializationEvent { partition metadataEntries { label
    ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on TextMetadataEntry { text }
    ... on BoolMetadataEntry { boolValue } } }
  ... on AssetCheckEvaluationEvent { evaluation { checkName success
    metadataEntries { label ... on BoolMetadataEntry { boolValue } ... on IntMetadataEntry { intValue } } } } } } } }"""


class Dev:
    """A running `dagster dev`, and the local API behind its syncs."""

    def __init__(self, url: str, simulator: Simulator) -> None:
        self.url = url
        self.simulator = simulator

    def query(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(self.url, json={"query": query, "variables": variables}, timeout=30).json()
        assert "errors" not in answer, answer
        (result,) = answer["data"].values()
        return result

    def launch(self, sync: str, job: str = "__ASSET_JOB", **config: Any) -> str:
        """As Materialize and its Launchpad do it: the asset, and all its checks that are in that job."""
        ops = {f"batch__{sync}": {"config": config}} if config else {}
        along = [_handle(sync, check) for check in self.checks(sync) if job in check["jobNames"]]
        return self._launch(job, [{"path": ["batch", sync]}], along, ops)

    def check(self, sync: str, name: str) -> str:
        """As Execute on the asset's Checks tab does it: the check alone, in the first job that has it."""
        (check,) = (check for check in self.checks(sync) if check["name"] == name)
        assert check["canExecuteIndividually"] == "CAN_EXECUTE"
        return self._launch(check["jobNames"][0], [], [_handle(sync, check)], {})

    def checks(self, sync: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.query(CHECKS, key={"path": ["batch", sync]})["assetChecksOrError"]["checks"]
        return found

    def scheduled(self, job: str) -> str:
        """As a schedule or the job's own page does it: everything that the job selects."""
        return self._launch(job, None, None, {})

    def _launch(
        self, job: str, assets: list[dict[str, Any]] | None, checks: list[dict[str, Any]] | None, ops: dict[str, Any]
    ) -> str:
        params = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "batch_connector",
                "jobName": job,
                "assetSelection": assets,
                "assetCheckSelection": checks,
            },
            "runConfigData": {"ops": ops},
            "mode": "default",
        }
        result = self.query(LAUNCH, p=params)
        assert result["__typename"] == "LaunchRunSuccess", result
        return str(result["run"]["runId"])

    def backfill(self, sync: str, partitions: list[str]) -> list[str]:
        """The runs that a backfill was cut into, all at its daemon's first look."""
        params = {"assetSelection": [{"path": ["batch", sync]}], "partitionNames": partitions}
        launched = self.query(BACKFILL, p=params)
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        runs: list[str] = []

        def started() -> bool:
            runs[:] = [run["runId"] for run in self.query(BACKFILLED, id=launched["backfillId"])["runs"]]
            return bool(runs)

        until(started, "the backfill")
        return runs

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.query(RUN, id=run)
        return found

    def finished(self, run: str) -> str:
        until(lambda: self.run(run)["status"] in ("SUCCESS", "FAILURE", "CANCELED"), f"the end of run {run}")
        return str(self.run(run)["status"])

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.query(LOG, id=run)["events"] if event["__typename"] == kind]

    def materializations(self, run: str) -> dict[str | None, dict[str, Any]]:
        """Metadata by partition."""
        return {
            event["partition"]: {
                entry.pop("label"): next(iter(entry.values()), None) for entry in event["metadataEntries"]
            }
            for event in self.events(run, "MaterializationEvent")
        }

    def verdicts(self, run: str) -> dict[str, tuple[bool, dict[str, Any]]]:
        """Whether each check passed, and its numbers and flags."""
        found = {}
        for event in self.events(run, "AssetCheckEvaluationEvent"):
            said = event["evaluation"]
            entries = {entry.pop("label"): next(iter(entry.values()), None) for entry in said["metadataEntries"]}
            found[said["checkName"]] = (said["success"], entries)
        return found

    def messages(self, run: str) -> str:
        return "\n".join(event.get("message", "") for event in self.query(LOG, id=run)["events"])


def _handle(sync: str, check: dict[str, Any]) -> dict[str, Any]:
    return {"assetKey": {"path": ["batch", sync]}, "name": check["name"]}


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_project(root: Path, base_url: str) -> None:
    (root / "syncs").mkdir(parents=True)
    (root / "connector.yaml").write_text(MAIN.format(base_url=base_url, per_call=PER_CALL))
    (root / "project_key").write_text(PROJECT_KEY)
    (root / "rest_key").write_text(REST_KEY)
    with duckdb.connect(str(root / "warehouse.duckdb")) as connection:
        connection.execute("create schema marts")
        for name, rows in {"customers": 50, "members": 50, "slow": SLOW_ROWS}.items():
            reconcile = "reconcile: {heal: true}\n" if name == "members" else ""
            (root / "syncs" / f"{name}.yaml").write_text(SYNC.format(name=name) + reconcile)
            connection.execute(
                f"""create table marts.{name} as
                    select '{name}' || i as custom_id, 'gold' as plan_name, i as points from range({rows}) t(i)"""
            )
        (root / "syncs" / "profile_attributes.yaml").write_text(EXPORT)
        for name in ("orders", "refunds"):
            (root / "syncs" / f"{name}.yaml").write_text(EVENTS.format(name=name, first=FIRST_DAY))
            connection.execute(
                f"""create table marts.{name} as
                    select '{name}' || i % {2 * PER_CALL} as custom_id, '{name}' || i as order_id, i as amount,
                        timestamp '{FIRST_DAY}' + i * interval {DAYS * 86_400 // ORDERS} second as ordered_at
                    from range({ORDERS}) t(i)"""
            )


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`dagster dev -w workspace.yaml` with the shipped dagster.yaml.example, on a project of its own."""
    folder = tmp_path_factory.mktemp("dev")
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    example = ROOT / "assets" / "project" / "dagster.yaml.example"
    (folder / "home" / "dagster.yaml").write_text(example.read_text())
    port = free_port()
    simulator = Simulator({PROJECT_KEY: REST_KEY}, record=True)
    simulator.configure(update_rate=None, other_rate=None)
    with serve(simulator) as served:
        make_project(folder / "project", served.base_url)
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "CONNECTOR_PROJECT": str(folder / "project"),
        }
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
        with (folder / "dev.log").open("wb") as log:
            process = start(command, environment, log)
            try:
                wait_until_up(port, process, folder / "dev.log")
                yield Dev(f"http://127.0.0.1:{port}/graphql", simulator)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def start(command: list[str], environment: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
    # A shell's background job ignores SIGINT, its children inherit that, and dagster dev then ignores every signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until_up(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/server_info", timeout=5).is_success
        except httpx.TransportError:
            return False

    until(is_up, "dagster dev")


def test_a_dry_run_observes_and_a_run_materializes_with_metadata_and_checks(dev: Dev) -> None:
    """Launched as the UI does it: first a dry run that sends nothing, then a run whose numbers and checks show."""
    dev.simulator.reset()
    dry = dev.launch("customers", dry_run=True)
    assert dev.finished(dry) == "SUCCESS"
    assert len(dev.events(dry, "ObservationEvent")) == 1
    assert not dev.events(dry, "MaterializationEvent")
    assert not dev.simulator.requests

    run = dev.launch("customers")
    assert dev.finished(run) == "SUCCESS"
    (found,) = dev.materializations(run).values()
    assert found.keys() >= set(COUNTS)
    assert (found["accepted"], found["rejected"], found["dagster/row_count"], found["outcome"]) == (50, 0, 50, "green")
    checks = {name: passed for name, (passed, _) in dev.verdicts(run).items()}
    assert checks == {"delivery": True, "rejected_share": True, "guard": True}
    assert len(dev.simulator.profiles()) == 50


def test_a_misspelt_option_is_refused_before_anything_runs(dev: Dev) -> None:
    """A wrong key in the Launchpad gives Dagster's own message with what is expected."""
    with pytest.raises(AssertionError, match="dryrun"):
        dev.launch("customers", dryrun=True)


def test_a_cancelled_run_ends_within_two_seconds_and_the_next_one_sends_only_the_rest(dev: Dev) -> None:
    """Terminate: CANCELED within 2 s, what was acknowledged is kept, nothing is sent twice."""
    dev.simulator.reset()
    dev.simulator.inject({"delay": 0.2, "share": 1.0})
    run = dev.launch("slow")
    until(lambda: len(dev.simulator.profiles()) >= 10 * PER_CALL, "the first chunks")
    asked = time.time()
    assert dev.query(TERMINATE, id=run)["__typename"] == "TerminateRunSuccess"
    assert dev.finished(run) == "CANCELED"
    assert dev.run(run)["endTime"] - asked < 2
    assert not dev.events(run, "MaterializationEvent")
    sent = len(dev.simulator.profiles())
    assert 0 < sent < SLOW_ROWS

    dev.simulator.clear_faults()
    rest = dev.launch("slow")
    assert dev.finished(rest) == "SUCCESS"
    assert len(dev.simulator.profiles()) == SLOW_ROWS
    operations = [custom_id for request in dev.simulator.requests for custom_id in request.custom_ids]
    assert len(operations) == len(set(operations)) == SLOW_ROWS, json.dumps({"sent before the cancel": sent})


def test_a_backfill_of_thirty_sent_days_is_one_run_and_sends_nothing(dev: Dev) -> None:
    """First a run without a partition, as the schedule's are, sends all; then 30 partitions find it all sent."""
    dev.simulator.reset()
    days = [(FIRST_DAY + timedelta(days=day)).isoformat() for day in range(DAYS)]
    run = dev.launch("orders", "orders_job")
    assert dev.finished(run) == "SUCCESS"
    assert {day: found["accepted"] for day, found in dev.materializations(run).items()} == {None: ORDERS}
    requests = len(dev.simulator.requests)

    (backfilled,) = dev.backfill("orders", days)
    assert dev.finished(backfilled) == "SUCCESS"
    found = dev.materializations(backfilled)
    assert sorted(str(day) for day in found) == days
    counts = {(entry["already_sent"], entry["planned"], entry["window_total"]) for entry in found.values()}
    assert counts == {(ORDERS, 0, True)}
    assert len(dev.simulator.requests) == requests
    assert len(dev.simulator.events()) == ORDERS


def test_held_events_are_sent_once_the_run_config_says_so(dev: Dev) -> None:
    """Events in doubt fail the run and wait; `retry_held` in the Launchpad sends them, and nothing else again."""
    dev.simulator.reset()
    dev.simulator.inject({"status": 500, "match": {"custom_id": "refunds3"}})
    doubtful = dev.launch("refunds")
    assert dev.finished(doubtful) == "FAILURE"
    (before,) = dev.materializations(doubtful).values()
    assert before["undecided"] == before["held"] == ORDERS - before["accepted"] > 0

    decided = dev.launch("refunds", retry_held=True)
    assert dev.finished(decided) == "SUCCESS"
    (after,) = dev.materializations(decided).values()
    assert (after["accepted"], after["undecided"], after["already_sent"]) == (before["held"], 0, before["accepted"])
    ids = [event["attributes"]["event_id"] for event in dev.simulator.events()]
    assert len(ids) == len(set(ids)) == ORDERS


def test_an_export_that_is_cancelled_is_gone_on_with_by_the_next_run(dev: Dev) -> None:
    """Terminate while Batch still makes it: CANCELED, no table, and a fresh run lands the one export there is."""
    dev.simulator.reset()
    for number in range(5):
        dev.simulator.alter(f"c{number}", {"plan": "gold", "points": number})
    dev.simulator.inject({"endpoint": "export", "becomes": "stuck"})
    run = dev.launch("profile_attributes")
    until(lambda: "export running" in dev.messages(run), "the export to be running")
    asked = time.time()
    assert dev.query(TERMINATE, id=run)["__typename"] == "TerminateRunSuccess"
    assert dev.finished(run) == "CANCELED"
    assert dev.run(run)["endTime"] - asked < 2
    assert not dev.events(run, "MaterializationEvent")

    dev.simulator.clear_faults()
    rest = dev.launch("profile_attributes")
    assert dev.finished(rest) == "SUCCESS"
    (export,) = dev.simulator.exports()
    (found,) = dev.materializations(rest).values()
    assert (found["rows"], found["files"], found["dagster/row_count"]) == (5, 1, 5)
    assert (found["export_id"], found["bytes"]) == (export["id"], export["files"][0]["size"])
    assert dev.verdicts(rest)["complete"][0]


def test_what_a_sync_alone_understands_is_refused_of_an_export(dev: Dev) -> None:
    """A dry run of an export is refused in the Launchpad, which names what there is."""
    with pytest.raises(AssertionError, match=r'"dry_run" at path .*full\?'):
        dev.launch("profile_attributes", dry_run=True)


def test_drift_is_compared_when_it_is_asked_for_and_never_by_a_materialization(dev: Dev) -> None:
    """The Checks tab and the job compare; Materialize repeats the verdict, and asks Batch for nothing."""
    dev.simulator.reset()
    assert dev.finished(dev.launch("members")) == "SUCCESS"
    assert not dev.simulator.exports()
    for number in range(3):
        dev.simulator.alter(f"members{number}", {"plan": "iron"})
    compared = dev.check("members", "drift")
    assert dev.finished(compared) == "SUCCESS"
    passed, found = dev.verdicts(compared)["drift"]
    assert (passed, found["checked"], found["differing"], found["missing"], found["healed"]) == (True, 50, 3, 0, 3)
    assert not dev.events(compared, "MaterializationEvent")

    mended = dev.launch("members")
    assert dev.finished(mended) == "SUCCESS"
    verdicts = dev.verdicts(mended)
    assert verdicts.keys() == {"delivery", "rejected_share", "guard", "drift"}
    assert verdicts["drift"] == (True, {**found, "repeated": True})
    assert len(dev.simulator.exports()) == 1

    again = dev.scheduled("members_reconcile_job")
    assert dev.finished(again) == "SUCCESS"
    assert [dev.verdicts(again)["drift"][1][name] for name in ("checked", "differing", "healed")] == [50, 0, 0]
    assert len(dev.simulator.exports()) == 2
