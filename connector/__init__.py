"""Warehouse sync connector for Batch.com: rows of a warehouse become profiles at Batch, only the differences.

>>> from pathlib import Path
>>> from connector import load_project, run_sync
>>> report = run_sync(load_project(Path("my-project")), "customers")  # doctest: +SKIP
"""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["Options", "Report", "load_project", "plan_sync", "run_sync"]

_HOMES = {
    "load_project": "connector.config",
    "run_sync": "connector.sync",
    "plan_sync": "connector.plan",
    "Options": "connector.sync",
    "Report": "connector.report",
}


# An edge that wants the log sets it up; without one Python would print warnings a second time.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    # Loaded when asked for: the command line must answer --help before Polars is there.
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def _version() -> str:
    try:
        return version("batch-warehouse-connector")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
