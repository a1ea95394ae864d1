"""Profiles that survive a restart of the simulator."""

from pathlib import Path

import pytest

from connector.errors import StateError
from connector.simulator import Simulator
from tests.simulator.conftest import KEY, PROJECT, opened, operation


def test_a_restarted_simulator_knows_its_profiles(tmp_path: Path) -> None:
    """Profiles, types and ids are the same after a restart, and go on from there."""
    with opened(folder=tmp_path / "new") as door:
        door.post(
            [operation("é", n=1, f=1.0, b=True, a=["x"], **{"$language": "fr", "date(d)": "2024-01-01T00:00:00Z"})]
        )
        door.post([operation("é", n=None), operation("two")])
        before = door.simulator.profiles()
    with opened(folder=tmp_path / "new") as door:
        assert door.simulator.profiles() == before
        assert type(before[1]["custom"]["f"]["value"]) is float
        door.post([operation("é", a={"$add": ["y"]})])
        found = door.simulator.profile("é")
        assert found is not None
        assert found["custom"]["a"]["value"] == ["x", "y"]


def test_profiles_are_written_before_the_answer(tmp_path: Path) -> None:
    """A simulator that is not closed in order has lost nothing that it answered."""
    simulator = Simulator({PROJECT: KEY}, folder=tmp_path)
    simulator.project().receive("update", b'[{"identifiers":{"custom_id":"a"}}]')
    copies = tmp_path / "copy"
    copies.mkdir()
    for file in tmp_path.glob("profiles.sqlite*"):
        (copies / file.name).write_bytes(file.read_bytes())
    simulator.close()
    with Simulator({PROJECT: KEY}, folder=copies) as again:
        assert [profile["custom_id"] for profile in again.profiles()] == ["a"]


def test_reset_reaches_the_file(tmp_path: Path) -> None:
    """A reset project is empty after a restart; the other project keeps its profiles."""
    credentials = {PROJECT: KEY, "project_two": "rest_two"}
    with Simulator(credentials, folder=tmp_path) as simulator:
        for key in credentials:
            simulator.project(key).receive("update", b'[{"identifiers":{"custom_id":"a"}}]')
        simulator.reset(project=PROJECT)
    with Simulator(credentials, folder=tmp_path) as simulator:
        assert simulator.profiles(project=PROJECT) == []
        assert len(simulator.profiles(project="project_two")) == 1


def test_a_folder_has_one_simulator(tmp_path: Path) -> None:
    """A second simulator on the folder is refused with a remedy instead of answering from old memory."""
    with (
        Simulator({PROJECT: KEY}, folder=tmp_path),
        pytest.raises(StateError, match=r"locked.*stop the other simulator"),
    ):
        Simulator({PROJECT: KEY}, folder=tmp_path)
    with Simulator({PROJECT: KEY}, folder=tmp_path):
        pass


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database is an error that names the folder, not an empty simulator."""
    (tmp_path / "profiles.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match=tmp_path.name):
        Simulator({PROJECT: KEY}, folder=tmp_path)
