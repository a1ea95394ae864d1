"""`status` and `rejects`: what the state remembers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich.console import Console

from connector.cli._answer import Answer, Call
from connector.cli._folder import loaded
from connector.cli._runs import moment
from connector.cli._tables import table
from connector.config import Project
from connector.report import Report
from connector.state import runs
from connector.state.database import State, open_state

RUNS_SHOWN = 20
"""Runs that people see; `--json` has all that are kept."""

REJECTS_SHOWN = 200
"""Rejects that people see; `--json` has all."""


def status(call: Call, sync: str | None) -> Answer:
    """The runs of one sync or of all, newest first, and what is due of each."""
    project = loaded(call)
    names = [project.sync(sync).name] if sync else sorted(project.syncs)
    with _state(project) as state:
        reports = [_whole(report) for report in runs.reports(state, sync)] if state else []
        waiting = {name: _waiting(state, name) if state else 0 for name in names}
        kept_back = {name: runs.rejects(state, name).height if state else 0 for name in names}
    newest: set[str] = set()
    for report in reports:
        if report["sync"] not in newest:
            newest.add(report["sync"])
            report["waiting"] = waiting.get(report["sync"], 0)
    return Answer(reports, lambda out: _show_status(out, reports, waiting, kept_back))


def rejects(call: Call, sync: str) -> Answer:
    """The sync's rejected and invalid values with their reasons."""
    project = loaded(call)
    name = project.sync(sync).name
    with _state(project) as state:
        rows = runs.rejects(state, name).to_dicts() if state else []
    found = [
        {
            "key": row["key"] or None,
            "id": None,
            "attribute": row["attribute"] or None,
            "reason": row["reason"],
            "source": row["source"],
            "attempts": row["attempts"],
            "first_seen": moment(row["first_seen"]),
            "last_seen": moment(row["last_seen"]),
        }
        for row in rows
    ]
    return Answer(found, lambda out: _show_rejects(out, name, found))


@contextmanager
def _state(project: Project) -> Iterator[State | None]:
    """The open state; None where no run has made one yet, as looking must not."""
    key = project.settings.batch.project_key.read(project.root)
    if not project.state_dir.exists():
        yield None
        return
    with open_state(project.state_dir, key.get_secret_value()) as state:
        yield state


def _whole(report: dict[str, Any]) -> dict[str, Any]:
    """A report with every count, also of a run that is open."""
    times = {"started": moment(report["started"]), "finished": moment(report["finished"])}
    return {**Report(sync=report["sync"], run=report["run"]).to_dict(), **report, **times}


def _waiting(state: State, sync: str) -> int:
    """Keys that are due again, but not yet: a late write may still land."""
    return runs.due(state, sync).filter(pl.col("not_before") > time.time())["key"].n_unique()


def _show_status(
    out: Console, reports: list[dict[str, Any]], waiting: dict[str, int], kept_back: dict[str, int]
) -> None:
    if reports:
        heads = ("started (UTC)", "sync", "outcome", "planned", "accepted", "rejected", "unsent")
        rows = [
            (
                _minute(report["started"]), report["sync"], report["outcome"],
                *(f"{report[name]:,}" for name in ("planned", "accepted", "rejected", "unsent")),
            )
            for report in reports[:RUNS_SHOWN]
        ]  # fmt: skip
        out.print(table(heads, rows, right=(3, 4, 5, 6)))
    else:
        out.print("no run yet; start one with: connector run SYNC")
    if len(reports) > RUNS_SHOWN:
        out.print(f"… and {len(reports) - RUNS_SHOWN} earlier runs: --json has them")
    due = [(name, kept_back[name], waiting[name]) for name in waiting]
    out.print(table(("sync", "values kept back", "rows waiting"), due, right=(1, 2)))
    for name in (name for name, count in kept_back.items() if count):
        out.print(f"what was kept back, and why: connector rejects {name}")


def _show_rejects(out: Console, sync: str, found: list[dict[str, Any]]) -> None:
    if not found:
        out.print(f"sync '{sync}' has no rejected or invalid value")
        return
    heads = ("key", "attribute", "reason", "source", "tries", "last seen (UTC)")
    rows = [
        (
            "(null)" if row["key"] is None else row["key"], row["attribute"] or "(whole row)", row["reason"],
            row["source"], row["attempts"], _minute(row["last_seen"]),
        )
        for row in found[:REJECTS_SHOWN]
    ]  # fmt: skip
    out.print(table(heads, rows, right=(4,)))
    if len(found) > REJECTS_SHOWN:
        out.print(f"… and {len(found) - REJECTS_SHOWN} more: --json has them")


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")
