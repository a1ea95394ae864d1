"""A first run end to end: at the documented 10,000 a second, and as fast as it goes.

Run: pytest -m benchmark -s tests/benchmarks/test_delivery.py; DELIVERY_ROWS=1000000 gives the figures of the documentation.
"""

import os
import shutil
from pathlib import Path

import duckdb
import pytest

from tests.benchmarks.phases import noted
from tests.benchmarks.strict import Strict, run, strict, used

ROWS = int(os.environ.get("DELIVERY_ROWS", "100000"))
ROUNDS = int(os.environ.get("DELIVERY_ROUNDS", "3"))
PHASED = "from tests.benchmarks.phases import main"


def project(folder: Path, server: Strict, rows: int, attributes: int, limits: str = "{}") -> None:
    """A project whose one sync has so many rows and attributes, half of them text and half numbers."""
    (folder / "syncs").mkdir(parents=True)
    (folder / "key").write_text("benchmark")
    columns = [f"i * {n} % 1000 as a{n}" if n % 2 else f"'text ' || i % {n + 7} as a{n}" for n in range(attributes)]
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute(
            f"create table customers as select 'u' || lpad(i::varchar, 8, '0') as custom_id, {', '.join(columns)}"
            f" from range({rows}) t(i)"
        )
    (folder / "syncs" / "customers.yaml").write_text(
        "kind: profiles\nwarehouse: local\nsource: {table: customers}\nendpoint: mass_update\n"
    )
    (folder / "connector.yaml").write_text(
        f"batch:\n  project_key: {{file: key}}\n  rest_key: {{file: key}}\n  base_url: {server.url}/2.11\n"
        f"  limits: {limits}\nwarehouses:\n  local: {{type: duckdb, path: warehouse.duckdb}}\n"
    )


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_the_limit_of_10_000_a_second_is_used_up(tmp_path: Path) -> None:
    """A first run uses 99 % of the limit from its first call to its last, and no call is refused."""
    with strict(10_000, 10_000) as server:
        project(tmp_path / "p", server, ROWS, 12)
        (ended,) = run(tmp_path / "p", server, "customers")
        arrivals = sorted(server.arrivals())
    length = arrivals[-1].at - arrivals[0].at
    share = used([arrivals], 10_000)
    print(
        f"\n{ROWS:,} rows x 12 attributes at 10,000/s: used {share:.2%}, refused {sum(not each.taken for each in arrivals)},"
        f" CPU from the first call on {ended.sending / length:.1%} of a core, peak {ended.peak:.0f} MB,"
        f" load {os.getloadavg()[0]:.1f}"
    )
    assert share >= 0.99
    assert all(each.taken for each in arrivals)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("attributes", [1, 4, 12])
def test_a_first_run_without_a_limit(tmp_path: Path, attributes: int) -> None:
    """Profiles a CPU second, the interpreter's start included, and what each phase of the run takes of time and memory."""
    with strict(0, 0, way=0) as server:
        limits = "{mass_update: {per_second: 1000000000}}"
        project(tmp_path / "p", server, ROWS, attributes, limits)
        rounds = []
        for _ in range(ROUNDS):
            shutil.rmtree(tmp_path / "p" / ".connector", ignore_errors=True)
            (ended,) = run(tmp_path / "p", server, "customers", main=PHASED)
            rounds.append((ended, noted(tmp_path / "p")))
        best, phases = min(rounds, key=lambda each: each[0].seconds)
        calls = len(server.arrivals()) // ROUNDS
    print(
        f"\n{ROWS:,} rows x {attributes} attributes, {calls} calls, best of {ROUNDS}: {ROWS / best.seconds:,.0f} profiles a CPU second"
        f" ({best.seconds:.2f} s), {1e3 * phases['deliver'].seconds / calls:.1f} ms a call,"
        f" peak {max(phase.peak for phase in phases.values()):.0f} MB, load {os.getloadavg()[0]:.1f}\n   "
        + ", ".join(f"{name} {phase.seconds:.2f} s {phase.peak:.0f} MB" for name, phase in phases.items())
    )
    assert all(ended.report["accepted"] == ROWS for ended, _ in rounds)
