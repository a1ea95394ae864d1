"""Secrets as they come out of variables and files: copied with a line's end or a mark they serve, else they are named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from connector.config import load_project
from connector.errors import ConfigError
from tests.config.conftest import MAIN, SECRET, Write

Keep = Callable[[Path, str, bytes | None], None]
"""Keeps a key of that name for the project in the folder; None: does not."""


@pytest.fixture(params=["env", "file"])
def keep(request: pytest.FixtureRequest, write: Write, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """A project whose two keys are variables, or files, and how to set one."""
    names = {"project_key": "BATCH_PROJECT_KEY", "rest_key": "BATCH_REST_API_KEY"}
    main = MAIN
    if request.param == "file":
        for name, variable in names.items():
            main = main.replace(f"{{env: {variable}}}", f"{{file: {name}}}")
    write({"connector.yaml": main})

    def keep(root: Path, name: str, value: bytes | None) -> None:
        if request.param == "file":
            (root / name).unlink(missing_ok=True)
            if value is not None:
                (root / name).write_bytes(value)
        elif value is None:
            monkeypatch.delenv(names[name], raising=False)
        else:
            monkeypatch.setenv(names[name], value.decode("utf-8", "surrogateescape"))

    return keep


@pytest.mark.parametrize("around", [b"%b", b"%b\n", b"%b\r\n", b" %b\t", b"\xef\xbb\xbf%b\n"])
def test_what_copying_adds_is_no_part_of_a_key(tmp_path: Path, keep: Keep, around: bytes) -> None:
    """A line's end, white space and a byte order mark around it do not reach Batch."""
    for name in ("project_key", "rest_key"):
        keep(tmp_path, name, around % SECRET.encode())
    assert load_project(tmp_path).access().rest_key.get_secret_value() == SECRET


@pytest.mark.parametrize("value", [None, b"", b" \n", b"\xef\xbb\xbf", b"a\nb", b"a\x07", "é".encode(), b"\xff"])
def test_keys_that_cannot_be_are_named_together(tmp_path: Path, keep: Keep, value: bytes | None) -> None:
    """Missing, empty, of two lines or no header: one error with both keys of the YAML, and nothing of what they hold."""
    for name in ("project_key", "rest_key"):
        keep(tmp_path, name, value)
    project = load_project(tmp_path)
    with pytest.raises(ConfigError) as raised:
        project.access()
    assert "batch.project_key: the " in str(raised.value)
    assert "batch.rest_key: the " in str(raised.value)
    assert raised.value.remedy
    assert "é" not in str(raised.value)
