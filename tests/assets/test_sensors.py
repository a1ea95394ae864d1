"""The alert: a webhook hears of a change of state, once, and of nothing else."""

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from assets.sensors import alert_sensor
from connector._model import EnvSecret
from connector.api import webhook
from connector.config import load_project
from connector.errors import ApiError
from connector.state.database import open_state
from connector.state.lease import hold
from tests.assets.conftest import EXPORT, PROJECT_KEY, REST_KEY, SYNC, House


class Listener:
    """A webhook that keeps what it hears; answers with `status`, and with 503 once it has no more room."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.status = 200
        self.room = 100
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = listener.status if listener.room else 503
                if status == 200:
                    listener.heard.append(json.loads(body))
                    listener.room -= 1
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Keep the test's output clean."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-path-canary"


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A webhook on this machine."""
    listener = Listener()
    thread = threading.Thread(target=listener.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield listener
    listener.server.shutdown()
    thread.join()
    listener.server.server_close()


class Watch:
    """The sensor, looking again from where it was."""

    def __init__(self, house: House) -> None:
        project = load_project(house.root)
        self.house = house
        self.sensor = alert_sensor(house.root, EnvSecret(env="ASSETS_TEST_WEBHOOK"), list(project.syncs.values()))
        self.cursor: str | None = None
        self.look()

    def look(self) -> None:
        context = dg.build_sensor_context(instance=self.house.instance, cursor=self.cursor)
        self.sensor(context)  # where it raises, Dagster keeps the cursor from before
        self.cursor = context.cursor


@pytest.fixture
def watch(house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A sensor that has had its first look."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    return Watch(house)


def test_the_first_failure_and_the_recovery_are_told_once(house: House, watch: Watch, listener: Listener) -> None:
    """Green, red, red, green: two messages, the first at once, neither of them again."""
    house.run()
    watch.look()
    assert listener.heard == []
    house.simulator.credentials[PROJECT_KEY] = "another"
    house.sql("update marts.customers set plan_name = 'silver' where points = 3")
    failed = house.run()
    watch.look()
    house.run()
    watch.look()
    assert [(said["sync"], said["state"], said["outcome"]) for said in listener.heard] == [
        ("customers", "failed", "failed")
    ]
    assert listener.heard[0]["run"] == failed.run_id
    assert "batch.rest_key" in listener.heard[0]["message"]
    house.simulator.credentials[PROJECT_KEY] = REST_KEY
    house.run()
    watch.look()
    watch.look()
    assert [said["state"] for said in listener.heard] == ["failed", "recovered"]
    assert not [text for text in ("canary", "silver", "c3 ", PROJECT_KEY) if text in json.dumps(listener.heard)]


def test_runs_before_the_first_look_are_no_news(
    house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that is new does not tell of old failures."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    house.simulator.credentials[PROJECT_KEY] = "another"
    house.run()
    Watch(house).look()
    assert listener.heard == []


def test_a_backfill_that_ends_badly_is_one_message(
    house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many partitions in one run are one change of state, and a dry run of them is none."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    house.order(date(2026, 3, 1), 3, 4)
    watch = Watch(house)
    house.simulator.inject({"status": 500, "match": {"custom_id": "c1"}})
    failed = house.run("orders", ["2026-03-01", "2026-03-03"])
    house.run("orders", ["2026-03-01", "2026-03-03"], dry_run=True)
    watch.look()
    assert [(said["sync"], said["outcome"], said["run"]) for said in listener.heard] == [
        ("orders", "incomplete", failed.run_id)
    ]


def test_a_message_that_was_not_taken_is_sent_at_the_next_look(house: House, watch: Watch, listener: Listener) -> None:
    """The cursor stays before a change of state until the webhook has taken it."""
    house.simulator.credentials[PROJECT_KEY] = "another"
    house.run()
    listener.status = 503
    with pytest.raises(ApiError, match="answered 503"):
        watch.look()
    listener.status = 200
    watch.look()
    assert len(listener.heard) == 1


def test_a_message_that_was_taken_is_not_sent_again_when_the_next_is_not(
    house: House, watch: Watch, listener: Listener
) -> None:
    """A failure and a recovery in one look, and the webhook falls silent in between: each is told once."""
    house.simulator.credentials[PROJECT_KEY] = "another"
    house.run()
    house.simulator.credentials[PROJECT_KEY] = REST_KEY
    house.run()
    listener.room = 1
    watch.look()
    listener.room = 1
    watch.look()
    assert [said["state"] for said in listener.heard] == ["failed", "recovered"]


def test_a_dry_run_is_no_recovery(house: House, watch: Watch, listener: Listener) -> None:
    """A dry run that succeeds says nothing about a sync that failed."""
    house.simulator.credentials[PROJECT_KEY] = "another"
    house.run()
    house.run(dry_run=True)
    watch.look()
    assert [said["state"] for said in listener.heard] == ["failed"]


def test_an_old_run_that_is_touched_again_is_no_news(house: House, watch: Watch, listener: Listener) -> None:
    """A tag added to an old failure does not make it the sync's latest state."""
    house.simulator.credentials[PROJECT_KEY] = "another"
    failed = house.run()
    watch.look()
    house.simulator.credentials[PROJECT_KEY] = REST_KEY
    house.run()
    watch.look()
    house.instance.add_run_tags(failed.run_id, {"looked": "at"})
    watch.look()
    assert [said["state"] for said in listener.heard] == ["failed", "recovered"]


def test_a_busy_run_is_no_failure_of_the_sync(house: House, watch: Watch, listener: Listener) -> None:
    """A run that finds the sync at work changes nothing about how the sync is."""
    with open_state(house.root / ".connector", PROJECT_KEY) as state, hold(state, "customers", "the other"):
        house.run()
    watch.look()
    assert listener.heard == []


def test_an_export_is_watched_as_a_sync_is(house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that Batch cannot make is one message, and so is the next one that lands."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    house.write("syncs/profile_attributes.yaml", EXPORT)
    watch = Watch(house)
    house.simulator.inject({"endpoint": "export", "becomes": "error"})
    house.run("profile_attributes")
    watch.look()
    house.run("profile_attributes")
    watch.look()
    assert [(said["sync"], said["state"], said["outcome"]) for said in listener.heard] == [
        ("profile_attributes", "failed", "failed"),
        ("profile_attributes", "recovered", "green"),
    ]


def test_a_drift_is_told_beside_its_sync(house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drift, its repetition by a materialization, its end: two messages, and the sync itself was never bad."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    house.write("syncs/customers.yaml", SYNC + "reconcile: {}\n")
    watch = Watch(house)
    house.run()
    house.simulator.forget("c7")
    drifted = house.job("customers_reconcile_job")
    watch.look()
    house.job("__ASSET_JOB", [dg.AssetKey(["batch", "customers"])])
    watch.look()
    assert [(said["sync"], said["check"], said["outcome"], said["run"]) for said in listener.heard] == [
        ("customers", "drift", "drift", drifted.run_id)
    ]
    assert "Check drift of sync customers failed" in listener.heard[0]["text"]
    house.write("syncs/customers.yaml", SYNC + "reconcile: {heal: true}\n")
    house.job("customers_reconcile_job")
    watch.look()
    assert [(said["check"], said["state"]) for said in listener.heard[1:]] == [("drift", "recovered")]
    assert not [text for text in ("canary", '"c7"', "c7 ", PROJECT_KEY) if text in json.dumps(listener.heard)]


def test_a_repeated_verdict_is_no_news(house: House, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drift that was found before the sensor existed is not told by a materialization that repeats it."""
    monkeypatch.setenv("ASSETS_TEST_WEBHOOK", listener.url)
    house.write("syncs/customers.yaml", SYNC + "reconcile: {}\n")
    house.run()
    house.simulator.forget("c7")
    house.job("customers_reconcile_job")
    watch = Watch(house)
    house.job("__ASSET_JOB", [dg.AssetKey(["batch", "customers"])])
    watch.look()
    assert listener.heard == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://hooks.example.org/secret-canary", "https://"),
        ("file:///secret-canary", "https://"),
        ("secret-canary", "https://"),
        ("https://[secret-canary", "https://"),
        ("http://127.0.0.1:1/secret-canary", "did not answer: ConnectError"),
    ],
)
def test_a_bad_webhook_is_named_without_its_url(url: str, words: str) -> None:
    """Plain HTTP to other machines is refused, and no message shows the URL, which is a secret."""
    with pytest.raises(ApiError) as caught:
        webhook.post(SecretStr(url), {"text": "hello"})
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_redirect_is_an_error_and_is_not_followed(listener: Listener) -> None:
    """A redirect would carry the message to a place that nobody configured."""
    listener.status = 302
    with pytest.raises(ApiError, match="answered 302"):
        webhook.post(SecretStr(listener.url), {"text": "hello"})


def test_a_silent_webhook_is_given_up_after_the_deadline() -> None:
    """A webhook that takes the connection and never answers does not hold the sensor."""
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ApiError, match="did not answer"):
        webhook.post(SecretStr(f"http://127.0.0.1:{silent.getsockname()[1]}/"), {}, deadline=0.2)
