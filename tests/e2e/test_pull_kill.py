"""Exports killed at every step, and real processes killed: the next run finishes the same export, once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.simulator import serve
from tests.simulation.crash import Crash, Death, Steps
from tests.world import Dying, World, timeless

TABLE = "batch.profile_attributes"
PEOPLE = 6


def told(world: World, kind: str) -> None:
    """A few people, how they can be reached, and an export of either."""
    world.sql("select 1")
    for n in range(PEOPLE):
        world.api.alter(f"c{n}", {"$email_address": f"p{n}@example.org", "plan": f"plan {n}"})
    if kind == "reachability":
        world.export_sync(export=kind)
    else:
        world.export_sync(attributes="[$email_address, plan]", write=kind)
    time.sleep(1)


@pytest.mark.parametrize(
    ("kind", "deaths"),
    [("replace", range(1, 1000)), *((kind, [(f"load {n} of {PEOPLE}", 1) for n in (0, PEOPLE)]) for kind in ("append", "reachability"))],
)
def test_killed_at_every_step(kind: str, deaths: Sequence[Death]) -> None:
    """G13: wherever a run dies, the next one leaves each line of one export in the table once, and asks for no second."""
    last = None
    with timeless() as world, (steps := Steps(world.folder / ".connector")).watched():
        told(world, kind)
        for death in deaths:
            asked, last = world.api.stats["exports_created"], death
            known = len(world.exports())
            died = dies(world, steps, death)
            over = [one["state"] for one in world.exports()[known:]] == ["loaded"]
            time.sleep(3600)  # what a killed run asked for can no longer turn up
            report = world.pull()
            place = f"died at step {death}, {died}"
            assert report.outcome == "green", f"{place}: {report}"
            assert world.api.stats["exports_created"] - asked == 1 + over, place
            check_rows(world, kind, place)
            assert list((world.folder / ".connector" / "outbox").iterdir()) == [], place
            assert {one["state"] for one in world.exports()} == {"loaded"}, place
            if died is None:
                break
    assert last == deaths[-1] or int(str(last)) > 25, "the steps are not counted any more"


def dies(world: World, steps: Steps, death: Death) -> str | None:
    """A run that dies at this step; at what, or None where it came to its end before."""
    try:
        with steps.counted(death), Dying(world, steps):
            world.pull(progress=lambda phase, done, total: steps.step(f"{phase} {done} of {total}"))
    except Crash as crash:
        return str(crash)
    return None


def check_rows(world: World, kind: str, place: str) -> None:
    rows = world.rows(TABLE)
    if kind == "reachability":
        assert len({row["event_id"] for row in rows}) == len(rows) == PEOPLE, place
        return
    newest = world.api.exports()[-1]["id"]
    people = {f"c{n}": f"plan {n}" for n in range(PEOPLE)}
    assert {row["custom_id"]: row["plan"] for row in rows if row["export_id"] == newest} == people, place
    exports = {row["export_id"] for row in rows}
    assert len(rows) == PEOPLE * len(exports), place
    assert len(exports) == (1 if kind == "replace" else world.api.stats["exports_created"]), place


def command(world: World, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "connector", "--project", str(world.folder), *arguments, "--json"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finished(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=60)
    assert out, err
    return process.returncode, json.loads(out)


@pytest.mark.parametrize("endpoint", ["export", "file"])
def test_kill_9(tmp_path: Path, endpoint: str) -> None:
    """A process killed while Batch answers its request, or while a file comes, is made up for by the next one."""
    world = World(tmp_path / "project", export_seconds=0)
    world.sql("select 1")
    for n in range(PEOPLE):
        world.api.alter(f"c{n}", {"plan": f"plan {n}"})
    world.export_sync(attributes="[plan]")
    with serve(world.api) as server:
        world.configure(server.base_url, delivery="{timeout: 30s}")
        world.api.inject({"endpoint": endpoint, "delay": 30})
        process = command(world, "run", "profile_attributes")
        counter = "exports_created" if endpoint == "export" else "file_requests"
        deadline = time.monotonic() + 30
        while not world.api.stats[counter]:
            assert time.monotonic() < deadline, "the run asks for nothing"
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert not world.sql("select * from information_schema.tables where table_name = 'profile_attributes'")
        status, report = finished(command(world, "run", "profile_attributes"))
        assert (status, report["outcome"], report["rows"]) == (0, "green", PEOPLE)
        assert len(world.api.exports()) == 1
        check_rows(world, "replace", endpoint)
