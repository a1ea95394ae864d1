"""`dagster dev` on a small project, driven as its UI drives it: materialize, dry run, cancel and resume."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import httpx
import pytest

from assets.metadata import COUNTS
from connector.simulator import Settings, Simulator, serve

pytest.importorskip("dagster_webserver")

ROOT = Path(__file__).parents[2]
PROJECT_KEY, REST_KEY = "project_dev", "rest_dev"
SLOW_ROWS = 3000
PER_CALL = 20

MAIN = """\
batch:
  project_key: {{file: project_key}}
  rest_key: {{file: rest_key}}
  base_url: {base_url}
  limits:
    update: {{per_second: 100000, burst: 100000, per_call: {per_call}}}
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

LAUNCH = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status endTime } } }"
TERMINATE = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
EVENTS = """query($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events { __typename
  ... on MessageEvent { message }
  ... on MaterializationEvent { metadataEntries { label
    ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on TextMetadataEntry { text } } }
  ... on AssetCheckEvaluationEvent { evaluation { checkName success } } } } } }"""


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

    def launch(self, sync: str, **config: Any) -> str:
        params = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "batch_connector",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": ["batch", sync]}],
                "assetCheckSelection": None,
            },
            "runConfigData": {"ops": {f"batch__{sync}": {"config": config}}},
            "mode": "default",
        }
        result = self.query(LAUNCH, p=params)
        assert result["__typename"] == "LaunchRunSuccess", result
        return str(result["run"]["runId"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.query(RUN, id=run)
        return found

    def finished(self, run: str) -> str:
        until(lambda: self.run(run)["status"] in ("SUCCESS", "FAILURE", "CANCELED"), f"the end of run {run}")
        return str(self.run(run)["status"])

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.query(EVENTS, id=run)["events"] if event["__typename"] == kind]


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
        for name, rows in {"customers": 50, "slow": SLOW_ROWS}.items():
            (root / "syncs" / f"{name}.yaml").write_text(SYNC.format(name=name))
            connection.execute(
                f"""create table marts.{name} as
                    select '{name}' || i as custom_id, 'gold' as plan_name, i as points from range({rows}) t(i)"""
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
    simulator = Simulator({PROJECT_KEY: REST_KEY}, settings=Settings(update_rate=None), record=True)
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
    (materialization,) = dev.events(run, "MaterializationEvent")
    found = {entry.pop("label"): next(iter(entry.values()), None) for entry in materialization["metadataEntries"]}
    assert found.keys() >= set(COUNTS)
    assert (found["accepted"], found["rejected"], found["dagster/row_count"], found["outcome"]) == (50, 0, 50, "green")
    checks = {
        event["evaluation"]["checkName"]: event["evaluation"]["success"]
        for event in dev.events(run, "AssetCheckEvaluationEvent")
    }
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
    print("CANCEL SECONDS", dev.run(run)["endTime"] - asked)
    assert not dev.events(run, "MaterializationEvent")
    sent = len(dev.simulator.profiles())
    assert 0 < sent < SLOW_ROWS

    dev.simulator.clear_faults()
    rest = dev.launch("slow")
    assert dev.finished(rest) == "SUCCESS"
    assert len(dev.simulator.profiles()) == SLOW_ROWS
    operations = [custom_id for request in dev.simulator.requests for custom_id in request.custom_ids]
    assert len(operations) == len(set(operations)) == SLOW_ROWS, json.dumps({"sent before the cancel": sent})
