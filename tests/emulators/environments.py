"""Emulators of warehouses: each installed once into a virtual environment of its own, and started once a test run."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import pytest

CACHE_VARIABLE = "CONNECTOR_TEST_CACHE"
"""The environment variable that names another folder for installed emulators."""

INSTALL_TIMEOUT = 900
"""Seconds for each step of making an environment."""

RUN_VARIABLE = "CONNECTOR_TEST_RUN"
"""The environment variable that names a test run: the tests that a test starts share its emulators."""

_KEEPER = Path(__file__).with_name("keeper.py")
_KEPT: list[IO[Any] | "subprocess.Popen[bytes]"] = []
"""What this process holds until it ends: its share of each running emulator."""


class Environment(NamedTuple):
    """What an emulator needs, and how it is started."""

    name: str
    pythons: tuple[str, ...]
    """Versions of Python that it runs on, such as `3.13`, the best first."""
    requirements: tuple[str, ...]
    ports: int
    command: tuple[str, ...]
    """`{folder}` is the environment, `{data}` an empty folder, `{0}` and so on are free ports."""
    prepare: str = ""
    """Python to run in the new environment, with its folder as argument."""


def running(environment: Environment) -> tuple[int, ...]:
    """The ports, on this machine, of the emulator that all processes of this test run share.

    It stops when the last of them ends. Without what it needs the test is skipped; in CI (`CI=true`) it fails.
    """
    found = _ports_or_reason(environment)
    return _unavailable(found) if isinstance(found, str) else found


@cache
def _ports_or_reason(environment: Environment) -> tuple[int, ...] | str:
    try:
        return _shared(environment, installed(environment))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return f"the emulator of {environment.name} is missing: {error}"


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def installed(environment: Environment) -> Path:
    """The folder of the environment, made where it is not there yet; others that need it wait meanwhile.

    Raises:
        RuntimeError: There is no Python to make it with, or the requirements cannot be installed.
    """
    recipe = "\n".join([*environment.pythons, *environment.requirements, environment.prepare])
    cached = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/batch-connector-tests").expanduser()
    folder = cached / f"{environment.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    cached.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), fcntl.LOCK_EX):
        if not (folder / "ready").exists():
            interpreter = _interpreter(environment.pythons)
            shutil.rmtree(folder, ignore_errors=True)
            _run(interpreter, "-m", "venv", folder)
            python = folder / "bin" / "python"
            _run(python, "-m", "pip", "install", "--quiet", *environment.requirements)
            _run(python, "-c", environment.prepare, folder)
            (folder / "ready").touch()
    return folder


def _interpreter(versions: Sequence[str]) -> str:
    for version in versions:
        found = [
            sys.executable,
            shutil.which(f"python{version}"),
            *Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser().glob(f"versions/{version}.*/bin/python"),
            *Path("~/.local/share/uv/python").expanduser().glob(f"cpython-{version}.*/bin/python{version}"),
        ]
        for candidate in found:
            if candidate and _version(candidate) == version:
                return str(candidate)
    raise RuntimeError(f"it runs on Python {' or '.join(versions)}; install one, by `uv python install {versions[0]}`")


def _version(python: str | Path) -> str:
    """Asked of it: a shim of pyenv is there whether or not the version is."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def _run(*command: str | Path) -> None:
    ended = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(
            f"`{Path(command[0]).name} {' '.join(map(str, command[1:4]))} …` failed: {said[-1]}; "
            f"give this machine a package index, or make it elsewhere and set {CACHE_VARIABLE} to its folder's parent"
        )


def _shared(environment: Environment, folder: Path) -> tuple[int, ...]:
    run = os.environ.setdefault(RUN_VARIABLE, os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid()))
    place = Path(tempfile.gettempdir()) / f"connector-emulators-{os.getuid()}-{run}" / environment.name
    _KEPT.append(_joined(place))
    ports = place / "ports"
    with _locked(place / "starting", fcntl.LOCK_EX):
        if not ports.exists():
            command = [part.replace("{folder}", str(folder)) for part in environment.command]
            with (place / "log").open("wb") as log:
                keeper = subprocess.Popen(
                    [sys.executable, _KEEPER, place, str(environment.ports), *command],
                    env={**os.environ, "HOME": str(folder / "home")},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C ends the tests, and with the last of them the emulator
                )
            _KEPT.append(keeper)
            while not ports.exists():
                if keeper.poll() is not None:
                    raise RuntimeError(f"it did not start: {(place / 'log').read_text(errors='replace')[-1000:]}")
                time.sleep(0.05)
    return tuple(map(int, ports.read_text().split()))


def _joined(place: Path) -> IO[str]:
    """A share of the users' lock, which the kernel gives back however this process ends."""
    while True:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            users = (place / "users").open("w")
            fcntl.flock(users, fcntl.LOCK_SH)
            if os.fstat(users.fileno()).st_nlink:  # else a keeper that ended took the folder with it
                return users
            users.close()


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield
