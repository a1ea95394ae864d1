"""What BigQuery does in its own way: its jobs, its bill, its credentials, its errors."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from connector.errors import WarehouseError
from connector.warehouses import _bigquery
from connector.warehouses._base import Keys, Relation
from connector.warehouses._bigquery_jobs import PAGE_ROWS
from connector.warehouses.bigquery import BigQuery
from tests.emulators.bigquery import client, endpoints
from tests.emulators.bigquery_bench import DATASET, PROJECT, BigQueryBench
from tests.emulators.relay import Relay, Reply, Seen, relaying
from tests.emulators.storage import streaming

ONE = Relation(query="SELECT 1 AS a")
CLOSED_PORT = 9  # "discard": nothing listens there


@pytest.fixture
def bench(tmp_path: Path) -> BigQueryBench:
    return BigQueryBench(tmp_path)


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay in front of the emulator."""
    with relaying(endpoints().api) as relay:
        yield relay


@pytest.fixture
def alone() -> Iterator[Relay]:
    """A BigQuery of a test's own, which answers by rules only."""
    with relaying() as relay:
        yield relay


def _settings(relay: Relay, **more: Any) -> BigQuery:
    return BigQuery(type="bigquery", project=PROJECT, dataset=DATASET, api_endpoint=relay.url, **more)


def _started(relay: Relay) -> list[dict[str, Any]]:
    """The configurations of the jobs that were started, dry ones left out."""
    jobs = [seen.body["configuration"] for seen in relay.requests("POST", "/jobs?")]
    return [job for job in jobs if not job.get("dryRun")]


# ── the bill ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_job_says_what_it_is_for_and_what_it_may_cost(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """Labels, the limit of bytes, the time-out and the default dataset go with each job; labels as BigQuery takes them."""
    bench.create("t", {"a": "integer"}, [(1,)])
    settings = _settings(relay, maximum_bytes_billed="20GB", timeout="90s")
    with settings.open(tmp_path, tags={"sync": "Customers é", "run": "9" * 70}) as reader:
        reader.now()
        list(reader.read(Relation("t"), ["a"]))
        list(reader.read(Relation(query="SELECT a FROM t"), ["a"], Keys("a", ["1"])))
    started = _started(relay)
    assert len(started) == 3
    for job in started:
        assert job["labels"] == {"app": "batch_connector", "sync": "customers__", "run": "9" * 63}
        assert job["query"]["maximumBytesBilled"] == str(20 * 10**9)
        assert job["jobTimeoutMs"] == "90000"
        assert job["query"]["defaultDataset"] == {"projectId": PROJECT, "datasetId": DATASET}
        assert job["query"]["useLegacySql"] is False


def test_looking_at_columns_starts_no_job(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """A table is looked up and a query tried dry, once each: neither is billed."""
    bench.create("t", {"a": "integer"}, [])
    with _settings(relay).open(tmp_path) as reader:
        for relation in (Relation("t"), Relation(query="SELECT a FROM t")) * 2:
            reader.columns(relation)
        assert _started(relay) == []
        assert len(relay.seen) == 2


def test_keys_travel_as_parameters(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """A key is data: no text of it becomes part of a statement."""
    hostile = "x') OR TRUE -- `"
    bench.create("t", {"k": "text"}, [(hostile,), ("y",)])
    with _settings(relay).open(tmp_path) as reader:
        (frame,) = reader.read(Relation("t"), ["k"], Keys("k", [hostile]))
    assert frame["k"].to_list() == [hostile]
    assert hostile not in _started(relay)[0]["query"]["query"]


def test_nobody_signs_in_to_a_stand_in(relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials are looked for and none are sent where the address has no TLS."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with _settings(relay).open(tmp_path) as reader:
        reader.now()
    assert not [seen for seen in relay.seen if "authorization" in seen.headers]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_storage_api_results_are_paged(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """Every row comes, in small frames of the same schema, and no page before it is needed."""
    relation = Relation(query="SELECT i, CONCAT('row ', i) AS t FROM UNNEST(GENERATE_ARRAY(0, 24999)) AS i")
    with bench.settings.open(tmp_path) as reader:
        streamed = next(reader.read(relation, ["i", "t"])).schema
    with _settings(relay).open(tmp_path) as reader:
        frames = reader.read(relation, ["i", "t"])
        read = [next(frames)]
        before = len(relay.seen)
        read.extend(frames)
    assert len(relay.seen) >= before + 2
    assert max(frame.height for frame in read) == PAGE_ROWS
    assert {tuple(frame.schema.items()) for frame in read} == {tuple(streamed.items())}
    assert pl.concat(read)["i"].sort().to_list() == list(range(25_000))


@pytest.mark.parametrize("rows", [3, 12_000])
def test_nested_and_exact_values_arrive_by_either_way(bench: BigQueryBench, tmp_path: Path, rows: int) -> None:
    """A small result, paged, and a large one, streamed, hold the same: decimals, JSON, arrays of structs."""
    query = (
        "SELECT CAST('12.5' AS NUMERIC) AS n, CAST('-7.25' AS BIGNUMERIC) AS b, JSON '{\"a\": [1]}' AS j, "
        "DATETIME '2026-01-31 22:30:15.123456' AS d, [STRUCT(1 AS x, DATETIME '2026-01-31 22:30:15' AS y)] AS s "
        f"FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS i"
    )
    relation = Relation(query=query)
    with bench.settings.open(tmp_path) as reader:
        announced = {column.name: column.dtype for column in reader.columns(relation)}
        frame = pl.concat(reader.read(relation, ["n", "b", "j", "d", "s"]))
    assert frame.height == rows
    assert frame.schema == announced
    (row,) = frame.unique().rows(named=True)
    assert (row["n"], row["b"], json.loads(row["j"])) == (Decimal("12.5"), Decimal("-7.25"), {"a": [1]})
    assert row["d"].isoformat() == "2026-01-31T22:30:15.123456"
    assert [(each["x"], each["y"].isoformat()) for each in row["s"]] == [(1, "2026-01-31T22:30:15")]


def test_what_cannot_be_read_is_announced_and_refused(bench: BigQueryBench, tmp_path: Path) -> None:
    """An interval, a place or a range stops nobody from reading the columns beside it."""
    client(PROJECT).query(f"CREATE TABLE {DATASET}.t (a INT64, v INTERVAL, g GEOGRAPHY, r RANGE<DATE>)").result()
    with bench.settings.open(tmp_path) as reader:
        unreadable = [column.name for column in reader.columns(Relation("t")) if column.dtype == pl.Object()]
        assert unreadable == ["v", "g", "r"]
        assert list(reader.read(Relation("t"), ["a"])) == []
        with pytest.raises(WarehouseError, match=r"column 'G' of table 't' cannot be read as GEOGRAPHY; cast it"):
            reader.read(Relation("t"), ["G"])


def test_columns_match_without_case(bench: BigQueryBench, tmp_path: Path) -> None:
    """As in BigQuery; the frame has the name that was asked for."""
    bench.create("t", {"CustomId": "text"}, [("x",)])
    with bench.settings.open(tmp_path) as reader:
        (frame,) = reader.read(Relation("t"), ["custom_id".replace("_", "")])
    assert frame.to_dict(as_series=False) == {"customid": ["x"]}


def test_a_query_with_parameters_is_refused(bench: BigQueryBench, tmp_path: Path) -> None:
    """A parameter of the user's query is never filled with one of ours."""
    with bench.settings.open(tmp_path) as reader, pytest.raises(WarehouseError, match="parameter 'keys' not found"):
        reader.columns(Relation(query="SELECT @keys AS a"))


def _numbers(start: int, end: int) -> pa.RecordBatch:
    return pa.record_batch({"a": pa.array(range(start, end), pa.int64())})


def _answering_in_streams(alone: Relay) -> None:
    """A query whose result is left to the Storage API."""
    job = _job()
    job["configuration"]["query"]["destinationTable"] = {"projectId": "acme", "datasetId": "_d", "tableId": "r"}
    job["statistics"]["query"]["schema"]["fields"][0]["type"] = "INTEGER"
    page = {"jobReference": _REFERENCE, "jobComplete": True, "totalRows": "5000", "rows": [{"f": [{"v": "0"}]}]}
    page |= {"schema": job["statistics"]["query"]["schema"], "pageToken": "1"}
    alone.rules += [_when("GET", "/queries/", Reply(200, page)), _when("", "/jobs", Reply(200, job))]


def test_streams_of_any_length_lose_and_repeat_no_row(alone: Relay, tmp_path: Path) -> None:
    """Uneven, empty and broken streams give each row once: one that breaks goes on where it was."""
    _answering_in_streams(alone)
    streams = [[_numbers(n, n + 100) for n in range(0, 500, 100)], [_numbers(500, 501)], [], [_numbers(501, 5000)]]
    with (
        streaming(streams, {("s0", 0), ("s0", 3), ("s3", 0)}) as storage,
        _settings(alone, storage_endpoint=storage.address).open(tmp_path) as reader,
    ):
        frames = list(reader.read(ONE, ["a"]))
    assert sorted(pl.concat(frames)["a"]) == list(range(5000))
    assert not storage.breaks
    (asked,) = storage.asked
    assert asked.read_session.table == "projects/acme/datasets/_d/tables/r"
    assert asked.read_session.read_options.arrow_serialization_options.buffer_compression.name == "LZ4_FRAME"
    assert asked.parent == f"projects/{PROJECT}"


def test_rows_that_do_not_come_fail_the_read(alone: Relay, tmp_path: Path) -> None:
    """Streams that end early are no complete result, although nobody reports an error."""
    _answering_in_streams(alone)
    with (
        streaming([[_numbers(0, 4999)]]) as storage,
        _settings(alone, storage_endpoint=storage.address).open(tmp_path) as reader,
        pytest.raises(WarehouseError, match="the query: 4999 of 5000 rows came; run again"),
    ):
        list(reader.read(ONE, ["a"]))


def test_a_stream_is_not_read_ahead_without_bound(alone: Relay, tmp_path: Path) -> None:
    """Of many streams two are open; the others are asked for when these end."""
    _answering_in_streams(alone)
    with (
        streaming([[_numbers(n, n + 1000)] for n in range(0, 5000, 1000)]) as storage,
        _settings(alone, storage_endpoint=storage.address).open(tmp_path) as reader,
    ):
        frames = reader.read(ONE, ["a"])
        next(frames)
        assert len(storage.opened) == 2
        assert sum(frame.height for frame in frames) == 4000
        assert len(storage.opened) == 5


def test_a_missing_right_to_stream_names_the_role(alone: Relay, tmp_path: Path) -> None:
    """The one role that only large results need is named when it is missing."""
    _answering_in_streams(alone)
    with (
        streaming([[_numbers(0, 1)]], denied="Permission 'bigquery.readsessions.create' denied") as storage,
        _settings(alone, storage_endpoint=storage.address).open(tmp_path, patience=0.5) as reader,
        pytest.raises(WarehouseError, match=r"bigquery\.readsessions\.create.*; grant .* BigQuery Read Session User"),
    ):
        list(reader.read(ONE, ["a"]))


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_whose_start_is_not_answered_runs_once(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """The request is sent again under the same id, and finds the first one's job and rows."""
    bench.create("t", {"a": "integer"}, [(1,), (2,)])
    relay.lost = lambda seen: seen.method == "POST" and len(_started(relay)) == 1
    with _settings(relay).open(tmp_path) as reader:
        (frame,) = reader.read(Relation("t"), ["a"])
    assert sorted(frame["a"]) == [1, 2]
    ids = [seen.body["jobReference"]["jobId"] for seen in relay.requests("POST", "/jobs?")]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert ids[0].startswith("batch_connector_")


def test_a_passing_failure_is_tried_again(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """A 503 at each step of a read delays it and does not fail it."""
    bench.create("t", {"a": "integer"}, [(1,)])
    failed: set[str] = set()

    def once(seen: Seen) -> Reply | None:
        step = f"{seen.method} {seen.path.partition('?')[0].rpartition('/')[0]}"
        if step in failed:
            return None
        failed.add(step)
        return _failure(503, "backendError", "Try again")

    relay.rules.append(once)
    with _settings(relay).open(tmp_path) as reader:
        assert [frame.rows() for frame in reader.read(Relation("t"), ["a"])] == [[(1,)]]
    assert len(failed) >= 3


def test_a_query_that_takes_too_long_is_cancelled(alone: Relay, tmp_path: Path) -> None:
    """The run ends with the remedy, and BigQuery is told to stop, for the job would be billed."""
    running = {**_job(), "status": {"state": "RUNNING"}}
    alone.rules += [
        _when("POST", "/cancel", Reply(200, {"job": running})),
        _when("GET", "/queries/", Reply(200, {"jobReference": _REFERENCE, "jobComplete": False}, after=0.2)),
        _when("", "/jobs", Reply(200, running)),
    ]
    settings = _settings(alone, timeout="1s")
    with settings.open(tmp_path) as reader, pytest.raises(WarehouseError, match="longer than `timeout` allows; raise"):
        reader.now()
    assert len(alone.requests("POST", "/cancel")) == 1


@pytest.mark.parametrize("storage", [None, f"127.0.0.1:{CLOSED_PORT}"])
def test_a_service_that_does_not_answer_is_given_up(bench: BigQueryBench, storage: str | None, tmp_path: Path) -> None:
    """Nobody waits ten minutes for a wrong address."""
    where = {"storage_endpoint": storage} if storage else {"api_endpoint": f"http://127.0.0.1:{CLOSED_PORT}"}
    settings = bench.settings.model_copy(update=where)
    with settings.open(tmp_path, patience=0.5) as reader, pytest.raises(WarehouseError) as raised:
        list(reader.read(Relation(query=bench.series), ["i"]))
    expected = "BigQuery failed (ServiceUnavailable)" if storage else "BigQuery cannot be reached (ConnectionError)"
    assert expected in str(raised.value)


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_REFERENCE = {"projectId": "acme", "jobId": "j1", "location": "EU"}


def _job(**status: Any) -> dict[str, Any]:
    """A job as BigQuery describes it."""
    return {
        "jobReference": _REFERENCE,
        "configuration": {"query": {"query": "SELECT 's3cret'"}},
        "status": {"state": "DONE", **status},
        "statistics": {"query": {"statementType": "SELECT", "schema": {"fields": [{"name": "a", "type": "STRING"}]}}},
    }


def _failure(status: int, reason: str, message: str) -> Reply:
    error = {"reason": reason, "message": message, "domain": "global"}
    return Reply(status, {"error": {"code": status, "message": message, "errors": [error]}})


def _when(method: str, fragment: str, reply: Reply) -> Callable[[Seen], Reply | None]:
    return lambda seen: reply if seen.method.startswith(method) and fragment in seen.path else None


REFUSALS = {
    (403, "accessDenied", "Access Denied: Project acme: User does not have bigquery.jobs.create permission."): (
        "the query in project acme cannot be read: Access Denied: Project acme: User does not have "
        "bigquery.jobs.create permission; grant the account BigQuery Job User"
    ),
    (403, "quotaExceeded", "Quota exceeded: free query bytes scanned"): "raise the project's quota",
    (403, "billingNotEnabled", "BigQuery: billing has not been enabled"): "enable billing for the project",
    (404, "notFound", "Not found: Dataset acme:marts was not found in location US"): (
        "was not found in location US; check project, location"
    ),
    (401, "authError", "Invalid Credentials"): "Google refuses the credentials",
    (400, "invalidQuery", "Unrecognized name: emial; Did you mean email? at\n [1:8]"): (
        "Unrecognized name: emial; Did you mean email? at [1:8]; correct `source`"
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[1])
def test_a_refused_query_is_told_in_bigquery_s_words(
    refusal: tuple[int, str, str], alone: Relay, tmp_path: Path
) -> None:
    """Before a row is read BigQuery's own sentence says most; the remedy says what to do."""
    alone.rules.append(_when("POST", "/jobs", _failure(*refusal)))
    settings = _settings(alone).model_copy(update={"project": "acme"})
    with settings.open(tmp_path, patience=0.5) as reader, pytest.raises(WarehouseError) as raised:
        reader.columns(ONE)
    assert REFUSALS[refusal] in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "SELECT 1" not in str(raised.value)


FAILURES = {
    (
        "invalidQuery",
        "Bad int64 value: s3cret",
    ): "failed while it ran (invalidQuery); see the row in BigQuery's job acme:EU.j1",
    ("invalid", "Array cannot have a null element; s3cret"): "failed while it ran (invalid); see the row in",
    ("bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 1000. 20971520 or higher required."): (
        "20971520 or higher required; let the query read less, or raise maximum_bytes_billed"
    ),
    (
        "stopped",
        "Job execution was cancelled: Job timed out after 1s",
    ): "timed out after 1s; raise the warehouse's `timeout`",
    ("resourcesExceeded", "Resources exceeded during query execution"): "make the query simpler",
    (
        "jobBackendError",
        "Error s3cret",
    ): "BigQuery failed (jobBackendError); run again later; see BigQuery's job acme:EU.j1",
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure[0])
def test_a_query_that_fails_while_it_runs_repeats_no_value(
    failure: tuple[str, str], alone: Relay, tmp_path: Path
) -> None:
    """BigQuery puts a row's value, and the client the whole query, into the message; ours names the job instead."""
    reason, message = failure
    error = {"reason": reason, "message": message}
    alone.rules += [
        lambda seen: Reply(200, _job()) if seen.body and seen.body["configuration"].get("dryRun") else None,
        _when("", "/jobs", Reply(200, _job(errorResult=error, errors=[error]))),
    ]
    with _settings(alone).open(tmp_path, patience=0.5) as reader:
        frames = reader.read(ONE, ["a"])
        with pytest.raises(WarehouseError) as raised:
            list(frames)
    assert FAILURES[failure] in str(raised.value)
    assert "s3cret" not in str(raised.value)


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _refused(tmp_path: Path, **more: Any) -> str:
    with pytest.raises(WarehouseError) as raised, BigQuery(type="bigquery", project="acme", **more).open(tmp_path):
        pass
    return str(raised.value)


def test_a_missing_key_file_is_named_with_its_whole_path(tmp_path: Path) -> None:
    """A relative path is shown as it was understood."""
    message = _refused(tmp_path, credentials_file="keys/bot.json")
    assert f"the credentials file {tmp_path}/keys/bot.json cannot be read: No such file or directory" in message


@pytest.mark.parametrize(
    "content",
    [
        *("", "s3cret", "[]", '"s3cret"', "{}"),
        '{"type": "authorized_user", "refresh_token": "s3cret"}',
        '{"client_email": "a@b.c", "token_uri": "https://x", "private_key": "s3cret"}',
    ],
)
def test_a_file_that_is_no_key_is_refused_unread(tmp_path: Path, content: str) -> None:
    """Whatever the file holds stays in it."""
    (tmp_path / "key.json").write_text(content)
    message = _refused(tmp_path, credentials_file="key.json")
    assert "key.json is not a service account's key; name a JSON key file" in message
    assert "s3cret" not in message


def test_no_credentials_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nobody signed in on says the three ways to do so."""
    for name, value in {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert "no usable Google credentials were found on this machine; run `gcloud auth" in _refused(tmp_path)


def test_settings_load_without_the_driver() -> None:
    """Validating a file must not wait for Google's libraries to load."""
    code = "import connector.warehouses, sys; print([m for m in sys.modules if m.split('.')[0] in ('google', 'grpc')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_of_one_hour_is_the_longest_by_default() -> None:
    """A forgotten query does not run for BigQuery's own six hours."""
    assert BigQuery(type="bigquery", project="acme").timeout == timedelta(hours=1)


DESCRIBED = {
    "type": "TABLE", "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "creationTime": "1795333962039",
    "lastModifiedTime": "1795333962040", "etag": "ABC==", "numRows": "3", "numBytes": "48",
}  # fmt: skip
"""A table as https://cloud.google.com/bigquery/docs/reference/rest/v2/tables has it."""


@pytest.mark.parametrize("more", [
    {"streamingBuffer": {"estimatedRows": "1"}}, {"maxStaleness": "0-0 0 0:15:0"}, {"type": "EXTERNAL"}, {"type": "SNAPSHOT"},
    {"type": "MATERIALIZED_VIEW"}, {"timePartitioning": {"type": "DAY", "expirationMs": "86400000"}},
    {"biglakeConfiguration": {"tableFormat": "ICEBERG"}}, {"lastModifiedTime": None}, {"etag": None},
])  # fmt: skip
def test_a_table_that_changes_by_itself_has_no_stamp(more: dict[str, Any]) -> None:
    """Streamed rows show in no time of change for minutes; partitions expire; what is stored elsewhere is not told of."""
    assert _bigquery.stamp_of(DESCRIBED)
    assert _bigquery.stamp_of({**DESCRIBED, "timePartitioning": {"type": "DAY"}})
    assert _bigquery.stamp_of({**DESCRIBED, **more}) is None


@pytest.mark.parametrize("name", ["creationTime", "lastModifiedTime", "etag", "numRows", "numBytes"])
def test_a_stamp_is_of_all_that_tells_of_a_change(name: str) -> None:
    """Time, etag, rows and bytes: one of them is enough."""
    assert _bigquery.stamp_of({**DESCRIBED, name: "9"}) != _bigquery.stamp_of(DESCRIBED)


def test_a_stamp_starts_no_job_and_is_asked_anew(bench: BigQueryBench, relay: Relay, tmp_path: Path) -> None:
    """One look at the metadata each time, which is not billed; a table that is streamed to meanwhile has no stamp more."""
    bench.create("customers", {"custom_id": "text"}, [("a",)])
    with _settings(relay).open(tmp_path) as reader:
        assert reader.stamp(Relation(table="customers"))
        relay.rules.append(lambda _: Reply(200, {**DESCRIBED, "streamingBuffer": {"estimatedRows": "1"}}))
        assert reader.stamp(Relation(table="customers")) is None
    assert [(seen.method, "/jobs" in seen.path or "/queries" in seen.path) for seen in relay.seen] == [
        ("GET", False)
    ] * 2
