"""Environments of their own for the emulators, and the emulators as processes that the workers of a test run share.

An environment is made once, in `$CONNECTOR_TEST_CACHE` (else `~/.cache/batch-connector-tests`), in a folder named by
the hash of its requirements. A server is started by the first worker that needs it, and stopped after the last.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60
MAKE_SECONDS = 900

_keepers: list[subprocess.Popen[bytes]] = []
"""Started here, outlive the worker where others still need them: nobody waits for their end."""


class MissingError(Exception):
    """An emulator cannot be had here; the text says why and what to do."""


def required(missing: MissingError) -> None:
    """Fails a test that lacks its emulator in CI, and skips it elsewhere."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(str(missing), pytrace=False)
    pytest.skip(str(missing))


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is made when it is first needed."""

    name: str
    requirements: tuple[str, ...]
    interpreters: tuple[str, ...] = (sys.executable,)
    """Paths, or names on the path; the first that is there makes the environment."""
    finish: Callable[[Path], None] | None = None
    """What is left to do in the environment's folder after the installation."""

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        cache = os.environ.get("CONNECTOR_TEST_CACHE") or Path.home() / ".cache/batch-connector-tests"
        recipe = "\n".join([*self.requirements, self._interpreter()])
        return Path(cache) / f"{self.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"

    def python(self) -> Path:
        """Its interpreter, made where it is not there yet.

        Raises:
            MissingError: There is no interpreter to make it with, or the requirements cannot be installed.
        """
        python, whole = self.folder / "bin/python", self.folder / "whole"
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.folder.with_suffix(".lock")):
            if not whole.exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                self._run(self._interpreter(), "-m", "venv", str(self.folder))
                self._run(str(python), "-m", "pip", "install", "--quiet", *self.requirements)
                if self.finish:
                    self.finish(self.folder)
                whole.touch()
        return python

    def _interpreter(self) -> str:
        for name in self.interpreters:
            if found := shutil.which(name):
                return found
        wanted = " or ".join(self.interpreters)
        raise MissingError(f"the {self.name} emulator needs {wanted}; put one of them on the PATH")

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MAKE_SECONDS)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            remedy = f"give this machine access to a package index, or fill {self.folder} elsewhere"
            raise MissingError(f"the environment of the {self.name} emulator cannot be made: {said}; {remedy}")


@contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Holds a file's lock; the kernel frees it when the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield


@contextmanager
def serving(
    name: str, command: Callable[[Sequence[int]], Sequence[str]], ports: int, shared: Path
) -> Iterator[list[int]]:
    """The ports of a server that all workers share, and that ends after the last of them, however that one ends.

    Args:
        name: Of its files in the folder.
        command: What starts it on the ports given.
        ports: How many it listens on.
        shared: A folder that the workers of this test run have in common.

    Raises:
        MissingError: It does not start.
    """
    state, gate, users = (shared / f"{name}.{what}" for what in ("ports", "gate", "users"))
    with ExitStack() as using:
        with locked(gate):
            using.enter_context(locked(users, fcntl.LOCK_SH))  # waits for the end of one that is stopping
            if not state.exists():
                state.write_text(json.dumps(_started(command, ports, users, state)))
        yield json.loads(state.read_text())


def _started(command: Callable[[Sequence[int]], Sequence[str]], count: int, users: Path, state: Path) -> list[int]:
    ports, log = _free_ports(count), users.with_suffix(".log")
    keeper = [sys.executable, str(Path(__file__).with_name("keeper.py")), str(users), str(state)]
    with log.open("wb") as file:
        process = subprocess.Popen([*keeper, *command(ports)], stdout=file, stderr=file, start_new_session=True)
    _keepers.append(process)
    deadline = time.monotonic() + START_SECONDS
    for port in ports:
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                raise MissingError(f"the emulator does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
    return ports


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True
