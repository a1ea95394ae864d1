"""The demo as a newcomer runs it: one command, no account, and the proof that it worked."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import connector
from connector import demo as story
from connector import invented
from connector.cli import main
from connector.config import load_project

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


def test_demo_shows_two_runs_and_that_both_sides_are_equal(shown: str, folder: Path) -> None:
    """The table has both runs, a profile is shown, and what was made is named and there."""
    first, second = (line.split() for line in shown.splitlines() if line.startswith(("first run", "second run")))
    assert first[2:] == ["500", "500", "0", "0", "2", "500", first[-1]]
    assert second[3:5] + second[7:] == ["5", "21", "26", "1"]
    assert "the API holds what the warehouse says, in all 505 profiles" in shown
    assert "customer100@example.org" in shown
    for name in ("warehouse.duckdb", ".connector", ".simulator"):
        assert str(folder / name) in shown
        assert (folder / name).exists()


def test_demo_starts_over_in_its_own_folder(shown: str, folder: Path, port: int) -> None:
    """A second demo removes what the first one made, and answers in JSON with the same counts."""
    assert shown
    done = demo(folder, port, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["differing"], answer["compared"]) == (0, True, 0, 505)
    assert [run["accepted"] for run in answer["runs"]] == [500, 26]
    assert answer["plan"]["planned"] == 26


@pytest.mark.parametrize("name", ["warehouse.duckdb", "connector.yaml", "syncs/customers.yaml"])
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


def test_comparison_counts_profiles_that_either_side_lacks(tmp_path: Path) -> None:
    """The demo's proof can fail: rows that the API lacks, and a profile that the warehouse lacks, all count."""
    warehouse = tmp_path / "warehouse.duckdb"
    invented.make(warehouse)
    stranger = {"stranger": {"custom_id": "stranger", "native": {}, "custom": {}}}
    assert story._compared(warehouse, stranger, frozenset(story._COLUMNS)) == (
        invented.CUSTOMERS + 1,
        invented.CUSTOMERS + 1,
    )


def test_example_project_is_right_and_says_that_its_keys_are_no_secrets() -> None:
    """The example that people copy is a valid project with a note on its keys."""
    example = ROOT / "assets" / "project"
    assert list(load_project(example).syncs) == ["customers"]
    assert "no secrets" in (example / "connector.yaml").read_text(encoding="utf-8")
