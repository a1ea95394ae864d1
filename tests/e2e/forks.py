"""Runs of the command line in processes of their own that start in a blink: forked from one that has imported all.

Such a process is as real as one from a shell: its own memory, file handles and locks, killed by the kernel.
"""

import json
import multiprocessing
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from connector.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([
    "tests.e2e.forks", "connector.cli._runs", "connector.sync", "connector.warehouses.duckdb", "connector.warehouses._duckdb",
    "connector.simulator", "duckdb", "httpx", "polars", "polars_hash", "pyarrow.parquet", "sqlalchemy.dialects.sqlite",
])  # fmt: skip


class Ended(NamedTuple):
    """How a run ended: its exit status, negative the signal that killed it, and what it printed."""

    status: int
    report: dict[str, Any]


class Fork:
    """One call of the command line, under way."""

    def __init__(self, project: Path, *arguments: str, **environment: str) -> None:
        self._out = project / f"out-{uuid.uuid4().hex}"  # of its own: a frozen one writes when it wakes up
        command = ["--project", str(project), *arguments, "--json"]
        # The server of forks has the environment of its own start.
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._process = _CONTEXT.Process(target=_called, args=(command, keys | environment, self._out), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process number."""
        assert self._process.pid
        return self._process.pid

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()

    def ended(self) -> Ended:
        """How it ended, once it has."""
        self._process.join(60)
        assert self._process.exitcode is not None, "the run does not end"
        said = self._out.read_text()
        return Ended(self._process.exitcode, json.loads(said) if said else {})


def _called(command: list[str], environment: Mapping[str, str], out: Path) -> None:
    os.environ.update(environment)
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), sys.stdout.fileno())
    sys.exit(main(command))
