"""The rate, against a server that counts strictly: how much of it is used, and whether a call of ours is ever refused.

Run: pytest -m benchmark -s tests/benchmarks/test_rate.py; RATE_SECONDS=60 gives each row a minute (default: 8 seconds).
"""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest

from tests.benchmarks.strict import Arrival, Ended, run, strict, used

SECONDS = int(os.environ.get("RATE_SECONDS", "8"))

STEPPED = (
    "import time, itertools; real, calls = time.time, itertools.count(); "
    "time.time = lambda: real() + (0, 86400, -86400)[next(calls) // 50 % 3]; from connector.cli import main"
)
"""A command line whose wall clock is now right, now a day ahead, now a day behind."""


class Limit(NamedTuple):
    """A documented limit; what Batch's bucket holds."""

    per_second: int
    holds: int
    per_call: int


LIMITS = {"update": Limit(300, 1000, 200), "mass_update": Limit(10_000, 10_000, 1000)}


class Case(NamedTuple):
    """Runs one after another, each of so many syncs at once; what must be reached of the true limit."""

    runs: int
    at_once: int
    least: float
    true_share: float = 1.0
    main: str = "from connector.cli import main"


CASES = {
    "one process": Case(1, 1, 0.99),
    "restarts in between": Case(3, 1, 0.99),
    "two processes, two syncs": Case(1, 2, 0.98),
    "three processes, three syncs": Case(1, 3, 0.98),
    "the clock stepped by a day": Case(1, 1, 0.99, main=STEPPED),
    "the true limit is 40 %": Case(1, 1, 0.90, 0.4),
}


def project(folder: Path, url: str, endpoint: str, syncs: Sequence[str], rows: int) -> None:
    """A project with the documented limits and so many rows a sync."""
    (folder / "syncs").mkdir(parents=True)
    (folder / "key").write_text("benchmark")
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        for sync in syncs:
            connection.execute(
                f"create table {sync} as select '{sync}' || i as custom_id, i as visits from range({rows}) t(i)"
            )
            (folder / "syncs" / f"{sync}.yaml").write_text(
                f"kind: profiles\nwarehouse: local\nsource: {{table: {sync}}}\nendpoint: {endpoint}\n"
                "attributes: {visits: visits}\nguard: {max_changed: 100%}\n"
            )
    (folder / "connector.yaml").write_text(
        f"batch:\n  project_key: {{file: key}}\n  rest_key: {{file: key}}\n  base_url: {url}/2.11\n"
        "warehouses:\n  local: {type: duckdb, path: warehouse.duckdb}\n"
    )


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("endpoint", LIMITS)
def test_the_limit_is_used_up_and_no_call_is_refused(tmp_path: Path, endpoint: str, name: str) -> None:
    """G10: alone at least 99 % of the documented limit, shared 98 %, no 429; of a lower true limit 90 %, few a minute."""
    limit, case = LIMITS[endpoint], CASES[name]
    per_second = limit.per_second * case.true_share
    rows = int(SECONDS * per_second / case.runs / case.at_once) + limit.per_call
    syncs = ["ones", "twos", "threes"][: case.at_once]
    ended: list[Ended] = []
    spans: list[list[Arrival]] = []
    with strict(per_second, int(limit.holds * case.true_share)) as server:
        project(tmp_path / "p", server.url, endpoint, syncs, rows)
        seen = 0
        for _ in range(case.runs):
            ended += run(tmp_path / "p", server, *syncs, main=case.main)
            arrivals = sorted(server.arrivals())
            spans.append(arrivals[seen:])
            seen = len(arrivals)
            with duckdb.connect(str(tmp_path / "p" / "warehouse.duckdb")) as connection:
                connection.execute(f"update {syncs[0]} set visits = visits + 1")
    share = used(spans, per_second)
    refused = sum(not arrival.taken for span in spans for arrival in span)
    length = sum(span[-1].at - span[0].at for span in spans)
    cpu = sum(each.sending for each in ended) / length
    peak = max(each.peak for each in ended)
    gap = max(late.at - early.at for span in spans for early, late in pairwise(span))
    print(
        f"\n{endpoint:11} | {name:28} | {length:5.1f} s | used {share:7.2%} | refused {refused:2} | CPU {cpu:5.1%} of a core"
        f" | {peak:4.0f} MB | longest gap {gap:.2f} s | load {os.getloadavg()[0]:.1f}"
    )
    assert refused <= (0 if case.true_share == 1 else 10 * max(length / 60, 1))
    assert share >= case.least
