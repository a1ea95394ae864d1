"""`reconcile`: call the story, and show where Batch and the snapshot disagree."""

import time
from typing import Any

from rich.console import Console

from connector.cli._answer import Answer, Call
from connector.cli._folder import loaded
from connector.cli._moments import moment
from connector.cli._runs import cancellable, exit_status, progress_bars
from connector.cli._tables import keys, table, verdict
from connector.reconcile import Healing, reconcile_sync
from connector.report import ReconcileReport


def reconcile(call: Call, sync: str, *, heal: bool, allow_mass_change: str | None) -> Answer:
    """Compare, and with `heal` make due what differs."""
    project = loaded(call)
    with cancellable(), progress_bars(call) as progress:
        report = reconcile_sync(project, sync, Healing(heal, allow_mass_change), progress=progress)
    return Answer(_json(report), lambda out: _show(out, report), exit_status(report))


def _json(report: ReconcileReport) -> dict[str, Any]:
    return {**report.to_dict(), "started": moment(report.started), "sample": list(report.sample)}


def _show(out: Console, report: ReconcileReport) -> None:
    counts = [(name, f"{getattr(report, name):,}") for name in ("checked", "missing", "differing", "unknown", "healed")]
    out.print(table((report.sync, "profiles"), counts, right=(1,)))
    if report.by_attribute:
        rows = [(name, f"{count:,}") for name, count in report.by_attribute.items()]
        out.print(table(("attribute", "profiles that have it otherwise"), rows, right=(1,)))
    if report.sample:
        keys(out, "sample of keys", report.sample)
    verdict(out, report, time.time() - report.started)
