"""The comparison of a table with what was delivered, beside what else could do it.

Run: pytest -m benchmark tests/benchmarks/test_diff.py -s

DIFF_ROWS=10000000 (1,000,000 without it) and DIFF_CHANGED=0.1,1,10,100 (percent, 1 without it) ask for more, DIFF_ROUNDS
(2) for more rounds, DIFF_DESIGNS=ours_full,decode for some designs only. 10 million rows take 5 GB of disk.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROWS = int(os.environ.get("DIFF_ROWS", "1000000"))
CHANGED = [float(rate) for rate in os.environ.get("DIFF_CHANGED", "1").split(",")]
ROUNDS = int(os.environ.get("DIFF_ROUNDS", "2"))
WANTED = os.environ.get(
    "DIFF_DESIGNS", "ours_full,ours_incremental,ours_first,ours_commit,duckdb_full,duckdb_hashes,polars_join,decode"
).split(",")

HERE = Path(__file__).parent
SHIFTED = 0.5
"""Percent of the rows that are new, and that are gone."""

MEASURED = """
import json, os, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True)
wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e6, "answer": json.loads(done.stdout)}))
"""
"""Measures one process and those it starts, none of which lives beside another."""


class Figures(NamedTuple):
    """What a process took: seconds, CPU seconds, GB, the machine's load when it began, and what it said."""

    wall: float
    cpu: float
    peak: float
    load: float
    answer: dict[str, Any]


def measured(script: str, *arguments: str) -> Figures:
    load = os.getloadavg()[0]
    command = [sys.executable, "-c", MEASURED, sys.executable, str(HERE / script), *arguments]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return Figures(said["wall"], said["cpu"], said["peak"], load, said["answer"])


def made(path: Path, *percent: float) -> Path:
    command = [sys.executable, str(HERE / "diff_rows.py"), str(path), str(ROWS), *map(str, percent)]
    subprocess.run(command, check=True)
    return path


def table(rounds: dict[str, list[Figures]]) -> str:
    """As Markdown: of each design the round that took the least CPU time."""
    floor = min(each.cpu for each in rounds["decode"]) if "decode" in rounds else 0.0
    lines = ["| design | CPU s | wall s | peak GB | to decode | load |", "|---|---|---|---|---|---|"]
    for design, figures in rounds.items():
        best = min(figures, key=lambda each: each.cpu)
        ratio = f"{best.cpu / floor:.2f}" if floor else ""
        lines.append(f"| {design} | {best.cpu:.2f} | {best.wall:.2f} | {best.peak:.2f} | {ratio} | {best.load:.1f} |")
    return "\n".join(lines)


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("changed", CHANGED)
def test_a_table_against_what_was_delivered(tmp_path: Path, changed: float) -> None:
    """Every design finds the same rows; ours takes less CPU time than a join of the values, and a fraction of its memory."""
    old, new = made(tmp_path / "old.parquet"), made(tmp_path / "new.parquet", changed, SHIFTED, SHIFTED)
    paths = [str(path) for path in (old, new, tmp_path)]
    snapshot = measured("diff_designs.py", "ours_snapshot", *paths)
    if "duckdb_hashes" in WANTED:
        measured("diff_designs.py", "duckdb_snapshot", *paths)
    rounds: dict[str, list[Figures]] = {design: [] for design in WANTED}
    for _ in range(ROUNDS):  # interleaved, so that a busy machine is busy for all
        for design in WANTED:
            rounds[design].append(measured("diff_designs.py", design, *paths))
    print(
        f"\n{ROWS:,} rows x 25 columns, {changed:g} % changed, {SHIFTED} % added, {SHIFTED} % removed; best of {ROUNDS}"
    )
    print(
        f"snapshot: {snapshot.answer['bytes_a_row']} bytes a row; {os.cpu_count()} cores; {time.strftime('%Y-%m-%d')}\n"
    )
    print(table(rounds))
    if "ours_commit" in rounds:
        commits = [each.answer for each in rounds["ours_commit"]]
        print(f"\ncommit of accepted rows alone: {min(commits, key=lambda each: float(each['cpu']['commit']))}")
    whole = {"ours_full", "duckdb_full", "duckdb_hashes", "polars_join"} & rounds.keys()
    told = [{kind: rounds[design][0].answer[kind] for kind in ("added", "changed", "removed")} for design in whole]
    assert all(each == told[0] for each in told)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    if ROWS >= 5_000_000 and {"ours_full", "duckdb_full"} <= rounds.keys() and changed <= 1:
        ours, theirs = (min(rounds[name], key=lambda each: each.cpu) for name in ("ours_full", "duckdb_full"))
        assert ours.cpu < theirs.cpu
        assert ours.peak < theirs.peak
