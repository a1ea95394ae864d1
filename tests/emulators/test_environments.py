"""How emulators are installed, shared and stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.emulators.environments import CACHE_VARIABLE, RUN_VARIABLE, Environment, running

USER = """
import sys
from tests.emulators.environments import Environment, running
prepare = "import pathlib, sys; pathlib.Path(sys.argv[1]).with_name('made').open('a').write('x')"
command = ("{folder}/bin/python", "-m", "http.server", "--bind", "127.0.0.1", "{0}")
print(*running(Environment("web", ("%d.%d" % sys.version_info[:2],), ("pip",), 1, command, prepare)), flush=True)
sys.stdin.read()
"""


def _user(folder: Path) -> "subprocess.Popen[str]":
    """A process that says the port of its emulator, and uses it until its input ends."""
    own = {CACHE_VARIABLE: str(folder / "cache"), RUN_VARIABLE: "one", "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", USER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **own},
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_processes_that_start_at_once_share_one_emulator_until_the_last_is_killed(tmp_path: Path) -> None:
    """One makes the environment and starts the server, it outlives the first user, and ends with the last."""
    with _user(tmp_path) as first, _user(tmp_path) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        port = int(first.stdout.readline())
        assert int(second.stdout.readline()) == port
        assert (tmp_path / "cache/made").read_text() == "x"
        first.communicate(timeout=10)
        assert _listens(port)
        second.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _listens(port) or list(tmp_path.glob("connector-emulators-*")):
        assert time.monotonic() < deadline, "the emulator outlives its users"
        time.sleep(0.05)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_python_fails_in_ci_and_skips_elsewhere(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason names the emulator and what it needs, and the remedy installs it."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(
        outcome, match=r"emulator of web is missing: it runs on Python 3\.99; .*`uv python install 3\.99`"
    ):
        running(Environment("web", ("3.99",), ("pip",), 1, ()))
