"""`status` and `rejects`: what the state remembers."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console

from connector.cli._answer import Answer, Call
from connector.cli._folder import loaded
from connector.cli._moments import event_time, moment
from connector.cli._tables import table
from connector.config import EventSync, Project, Sync
from connector.event_commit import soonest
from connector.event_planning import EXPIRED, HELD
from connector.report import ExportReport, Report
from connector.state import ledger, postgres, runs
from connector.state.database import State, open_state, translated

RUNS_SHOWN = 20
"""Runs that people see; `--json` has all that are kept."""

REJECTS_SHOWN = 200
"""Rejects that people see; `--json` has all."""


class _Due(NamedTuple):
    """What is left of a sync's runs.

    Attributes:
        kept_back: What `rejects` lists, but for held events.
        waiting: Rows that are due again, but not yet: a late write may still land.
        undecided: Held events, None where the sync is not one of events.
        closes: When Batch stops taking the first event that it still takes and that was not sent, in seconds since
            1970.
    """

    kept_back: int = 0
    waiting: int = 0
    undecided: int | None = None
    closes: float | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What the newest report of the sync has beside its counts."""
        events = {} if self.undecided is None else {"undecided": self.undecided, "closes": moment(self.closes)}
        return {"waiting": self.waiting, **events}


def status(call: Call, sync: str | None) -> Answer:
    """The runs of one sync or of all, newest first, and what is due of each."""
    project = loaded(call)
    syncs = [project.sync(sync)] if sync else [project.syncs[name] for name in sorted(project.syncs)]
    with _state(project) as state:
        reports = runs.reports(state, sync) if state else []
        newest = {report["sync"]: report for report in reversed(reports)}
        due = {one.name: _due(state, one, newest.get(one.name, {})) for one in syncs}
    answers = [
        _whole(report) | (due.get(report["sync"], _Due()).told if report is newest[report["sync"]] else {})
        for report in reports
    ]
    return Answer(answers, lambda out: _show_status(out, answers, due))


def rejects(call: Call, sync: str) -> Answer:
    """The sync's rejected and invalid values and its events that are held or expired, with their reasons."""
    project = loaded(call)
    found = project.sync(sync)
    events = isinstance(found, EventSync)
    with _state(project) as state:
        listed = [] if state is None else _events(state, sync) if events else _values(state, sync)
    return Answer(listed, lambda out: _show_rejects(out, sync, listed, events=events))


@contextmanager
def _state(project: Project) -> Iterator[State | None]:
    """The open state; None where no run has made one yet, as looking must not."""
    key = project.settings.batch.project_key.read(project.root)
    server = project.state_server()
    with translated(project.state_dir):
        made = project.state_dir.exists() if server is None else postgres.has_state(server)
    if not made:
        yield None
        return
    with open_state(project.state_dir, key.get_secret_value(), server) as state:
        yield state


def _whole(report: dict[str, Any]) -> dict[str, Any]:
    """A report with every count, also of a run that is open."""
    made = ExportReport if report["kind"] == "export" else Report
    whole = {**made(sync=report["sync"], run=report["run"]).to_dict(), **report}
    return {**whole, **{name: moment(whole[name]) for name in ("started", "finished", "closes") if name in whole}}


def _due(state: State | None, sync: Sync, report: Mapping[str, Any]) -> _Due:
    """What is left, after the newest report."""
    if isinstance(sync, EventSync):
        listed = ledger.load(state, sync.name).listed() if state else pl.DataFrame(schema=ledger.LISTED_SCHEMA)
        held = listed.filter((pl.col("state") == HELD) & (pl.col("attribute") == ""))
        # The report also knows of events that were not sent and are not listed, as the next run reads them again.
        ends = [end for end in (soonest(held["time"]), report.get("closes")) if end is not None and end > time.time()]
        return _Due(listed.height - held.height, 0, held.height, min(ends, default=None))
    if state is None:
        return _Due()
    waiting = runs.due(state, sync.name).filter(pl.col("not_before") > state.now())["key"].n_unique()
    return _Due(runs.rejects(state, sync.name).height, waiting)


def _values(state: State, sync: str) -> list[dict[str, Any]]:
    """The rejects of a profile sync, as `--json` has them."""
    return [_entry(row) for row in runs.rejects(state, sync).to_dicts()]


def _events(state: State, sync: str) -> list[dict[str, Any]]:
    """The rejects of an event sync, as `--json` has them: those that wait for a decision first, the oldest of them."""
    listed = ledger.load(state, sync).listed()
    listed = listed.sort(pl.col("state") != HELD, "time", "key", "id", "attribute", nulls_last=True)
    return [
        {
            **_entry(row),
            "id": row["id"] or None,
            "state": row["state"] if row["state"] in (HELD, EXPIRED) else None,
            "time": event_time(row["time"]),
        }
        for row in listed.iter_rows(named=True)
    ]


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": row["key"] or None,
        "id": None,
        "attribute": row["attribute"] or None,
        "reason": row["reason"],
        "source": row["source"],
        "attempts": row["attempts"],
        "first_seen": moment(row["first_seen"]),
        "last_seen": moment(row["last_seen"]),
    }


def _show_status(out: Console, reports: list[dict[str, Any]], due: Mapping[str, _Due]) -> None:
    events = any(one.undecided is not None for one in due.values())
    if reports:
        pulled = any(report["kind"] == "export" for report in reports)
        counts = ("planned", "accepted", "rejected", *(("held",) if events else ()), "unsent")
        counts += ("rows",) if pulled else ()
        rows = [
            (
                _minute(report["started"]), report["sync"], report["outcome"],
                *(f"{report[name]:,}" if name in report else None for name in counts),
            )
            for report in reports[:RUNS_SHOWN]
        ]  # fmt: skip
        heads = ("started (UTC)", "sync", "outcome", *counts)
        out.print(table(heads, rows, right=range(3, len(heads))))
    else:
        out.print("no run yet; start one with: connector run SYNC")
    if len(reports) > RUNS_SHOWN:
        out.print(f"… and {len(reports) - RUNS_SHOWN} earlier runs: --json has them")
    heads = ("sync", "values kept back", "rows waiting", *(("events held", "first closes in") if events else ()))
    lines = [(name, one.kept_back, one.waiting, one.undecided, _hours(one.closes)) for name, one in due.items()]
    out.print(table(heads, [line[: len(heads)] for line in lines], right=range(1, len(heads))))
    for name, one in due.items():
        if one.undecided:
            out.print(f"to decide on what is held: connector run {name} --retry-held, or --discard-held")
        if one.kept_back or one.undecided:
            out.print(f"what was kept back, and why: connector rejects {name}")


def _show_rejects(out: Console, sync: str, found: list[dict[str, Any]], *, events: bool) -> None:
    if not found:
        out.print(f"sync '{sync}' has no rejected or invalid {'event' if events else 'value'}")
        return
    own = ("id", "state") if events else ()
    heads = ("key", *own, "attribute", "reason", "source", "tries", "last seen (UTC)")
    rows = [
        (
            "(null)" if row["key"] is None else row["key"], *(row[name] for name in own),
            row["attribute"] or ("(whole event)" if events else "(whole row)"), row["reason"], row["source"],
            row["attempts"], _minute(row["last_seen"]),
        )
        for row in found[:REJECTS_SHOWN]
    ]  # fmt: skip
    out.print(table(heads, rows, right=(heads.index("tries"),)))
    if len(found) > REJECTS_SHOWN:
        out.print(f"… and {len(found) - REJECTS_SHOWN} more: --json has them")


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _hours(closes: float | None) -> str | None:
    """How long until then."""
    return f"{(closes - time.time()) / 3600:.1f} h" if closes else None
