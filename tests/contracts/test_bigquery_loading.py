"""What loading does in BigQuery's own way: its jobs and their labels, staging tables, lost answers, missing roles."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import POSITION, Load, Loaded, TargetColumn
from connector.warehouses.bigquery import BigQuery
from tests.emulators.bigquery import client, endpoints
from tests.emulators.bigquery_bench import DATASET, PROJECT, BigQueryBench
from tests.emulators.relay import Relay, Reply, Seen, relaying

COLUMNS = [TargetColumn("k", "text"), TargetColumn("export_id", "text"), TargetColumn("loaded_at", "timestamp")]


@pytest.fixture
def bench(tmp_path: Path) -> BigQueryBench:
    return BigQueryBench(tmp_path)


@pytest.fixture
def relay(bench: BigQueryBench) -> Iterator[Relay]:
    """A relay in front of the emulator."""
    with relaying(endpoints().api) as relay:
        yield relay


def _settings(relay: Relay, **more: Any) -> BigQuery:
    return BigQuery(type="bigquery", project=PROJECT, dataset=DATASET, api_endpoint=relay.url, **more)


def _load(root: Path, keys: Sequence[str], name: str = "a") -> Load:
    rows = {"k": keys, "export_id": ["e1"] * len(keys), POSITION: range(len(keys))}
    frame = pl.DataFrame(rows).with_columns(loaded_at=pl.lit(None, pl.Datetime("us", "UTC")))
    frame.write_parquet(root / f"{name}.parquet", compression="uncompressed")
    return Load("t", COLUMNS, [root / f"{name}.parquet"], "replace", "e1", "k")


def _jobs(relay: Relay) -> list[Seen]:
    return relay.requests("POST", "/jobs?")


def _keys() -> list[str]:
    return sorted(row.k for row in client(PROJECT).query(f"SELECT k FROM {DATASET}.t").result())


def _tables() -> list[str]:
    return [table.table_id for table in client(PROJECT).list_tables(DATASET)]


def test_every_job_of_a_load_is_labelled(relay: Relay, tmp_path: Path) -> None:
    """Load jobs and the script carry the sync and the run, as BigQuery takes labels, for the bill."""
    load = _load(tmp_path, ["a"])
    with _settings(relay, timeout="90s").load_into(tmp_path, tags={"sync": "Profiles é", "run": "R1"}) as loader:
        loader.load(load)
        loader.load(load._replace(columns=[*COLUMNS, TargetColumn("more", "json")], files=[]))
    ids = [seen.body["jobReference"]["jobId"] for seen in _jobs(relay)]
    assert len(ids) == 4
    for job in map(client(PROJECT).get_job, ids):
        assert job.labels == {"app": "batch_connector", "sync": "profiles__", "run": "r1"}
    assert {seen.body["configuration"]["jobTimeoutMs"] for seen in _jobs(relay)} == {"90000"}


def test_a_table_is_clustered_by_its_key(relay: Relay, tmp_path: Path) -> None:
    """A merge then reads the blocks of its keys, and nothing is partitioned."""
    with _settings(relay).load_into(tmp_path) as loader:
        loader.load(_load(tmp_path, ["a"]))
    table = client(PROJECT).get_table(f"{PROJECT}.{DATASET}.t")
    assert (table.clustering_fields, table.time_partitioning) == (["k"], None)


@pytest.mark.parametrize("fragment", ["/upload/", "/projects"])
def test_a_job_whose_start_is_not_answered_runs_once(relay: Relay, tmp_path: Path, fragment: str) -> None:
    """A file that was sent again, or a script, finds the first one's job: no row comes twice."""
    load = _load(tmp_path, ["a", "b"])
    lost: list[Seen] = []

    def once(seen: Seen) -> bool:
        hit = (
            not lost
            and seen.method == "POST"
            and "/jobs?" in seen.path
            and ("/upload/" in seen.path) == (fragment == "/upload/")
        )
        if hit:
            lost.append(seen)
        return hit

    relay.lost = once
    with _settings(relay).load_into(tmp_path) as loader:
        assert loader.load(load) == Loaded(2, 2)
    assert len(lost) == 1
    assert len(_jobs(relay)) == 3
    assert _keys() == ["a", "b"]


def test_a_staging_table_expires_and_is_dropped(relay: Relay, tmp_path: Path) -> None:
    """It goes with the load, also with one that failed; one that nobody dropped goes a day later."""
    with _settings(relay).load_into(tmp_path, patience=0.3) as loader:
        loader.load(_load(tmp_path, ["a"]))
        relay.rules.append(lambda seen: _refusal(503, "backendError", "no") if "/upload/" in seen.path else None)
        with pytest.raises(WarehouseError, match=r"cannot be written: BigQuery failed \(backendError\)"):
            loader.load(_load(tmp_path, ["b"]))
    made = [seen.body for seen in relay.requests("POST", "/tables?") if "__load_" in str(seen.body)]
    names = {body["tableReference"]["tableId"] for body in made}
    assert len(names) == 2
    for body in made:
        left = datetime.fromtimestamp(int(body["expirationTime"]) / 1000, UTC) - datetime.now(UTC)
        assert timedelta(hours=23) < left < timedelta(hours=25)
    assert _tables() == ["t"]
    assert _keys() == ["a"]


def test_a_large_file_is_sent_in_parts(bench: BigQueryBench, tmp_path: Path) -> None:
    """Beyond 5 MB the client uploads piece by piece."""
    noise = random.Random(1)  # noqa: S311 - what does not compress
    keys = [noise.randbytes(500).hex() for _ in range(6000)]
    load = _load(tmp_path, keys)
    assert load.files[0].stat().st_size > 6_000_000
    with bench.settings.load_into(tmp_path) as loader:
        assert loader.load(load) == Loaded(6000, 6000)
    assert _keys() == sorted(keys)


def _refusal(status: int, reason: str, message: str) -> Reply:
    error = {"reason": reason, "message": message, "domain": "global"}
    return Reply(status, {"error": {"code": status, "message": message, "errors": [error]}})


@pytest.mark.parametrize("fragment", ["/tables/t?", "/tables?", "/upload/", "/jobs?prettyPrint"])
def test_a_missing_role_is_named(relay: Relay, tmp_path: Path, fragment: str) -> None:
    """Whichever request is refused: BigQuery's sentence says what, ours which roles; the table is as it was."""
    load = _load(tmp_path, ["a"])
    with _settings(relay).load_into(tmp_path, patience=0.5) as loader:
        loader.load(load)
        said = "Access Denied: Dataset acme:batch: Permission bigquery.tables.updateData denied"
        relay.rules.append(lambda seen: _refusal(403, "accessDenied", said) if fragment in seen.path else None)
        with pytest.raises(WarehouseError) as raised:
            loader.load(_load(tmp_path, ["b"], "b"))
    assert said in str(raised.value)
    assert "BigQuery Data Editor on the table's dataset" in str(raised.value)
    assert _keys() == ["a"]


def test_a_loader_needs_credentials_as_a_reader_does(tmp_path: Path) -> None:
    """The file that is missing is named."""
    settings = BigQuery(type="bigquery", project="acme", credentials_file="none.json")
    with pytest.raises(WarehouseError, match=r"none\.json cannot be read"), settings.load_into(tmp_path):
        pass
