"""What stops a run before its first request: more would change than anybody is likely to have meant."""

from connector._model import exceeds
from connector.config import EventSync, ProfileSync
from connector.errors import GuardError
from connector.report import Report
from connector.state.ledger import Ledger
from connector.task import Task

_ONCE = '--allow-mass-change "reason" (in Dagster: allow_mass_change)'


def profiles(task: Task[ProfileSync], report: Report) -> GuardError | None:
    """The guard that stops this change set, if one does and the operator did not lift it.

    Args:
        task: The sync, and what was asked of it.
        report: The counts of its draft.
    """
    guard = task.sync.guard
    known = 0 if task.options.adopt else report.known - report.added  # of an adoption nothing is sent
    reasons = []
    if report.full and report.read < guard.min_rows:
        reasons.append(f"the source has {report.read} rows, guard.min_rows asks for {guard.min_rows}")
    if known and exceeds(report.changed, guard.max_changed, known):
        share = f"guard.max_changed allows {guard.max_changed:.0%}"
        reasons.append(f"{report.changed} of {known} profiles would change, {share}")
    if known and task.sync.on_removed != "ignore" and exceeds(report.removed, guard.max_removed, known):
        share = f"guard.max_removed allows {guard.max_removed:.0%}"
        reasons.append(f"{report.removed} of {known} profiles would be cleared, {share}")
    if not reasons or task.options.allow_mass_change:
        return None
    remedy = f"look at the plan; if the change is meant, run once with {_ONCE}"
    if task.options.adopt:
        remedy = "look at the source; if it is meant to be so, lower guard.min_rows, and adopt again"
    return GuardError(f"sync '{task.sync.name}': " + "; ".join(reasons), remedy=remedy)


def events(task: Task[EventSync], ledger: Ledger, recipe: str, planned: int) -> GuardError | None:
    """Stops a run for which sent events would look new, unless the operator says so.

    Args:
        task: The sync, and what was asked of it.
        ledger: What was sent.
        recipe: What an event's identity is made of now.
        planned: Events that would be sent.
    """
    lifted = task.options.allow_mass_change or task.options.adopt
    if ledger.manifest.get("recipe", recipe) == recipe or not planned or lifted:
        return None
    what = "id and event" if task.sync.id else "key, event, time and attributes, as there is no id"
    return GuardError(
        f"sync '{task.sync.name}': an event's identity is made of other columns than before ({what}), so events that"
        f" were sent look new; {planned} would be planned",
        remedy=f"put the columns back, or name an id; if none of these was sent before, run once with {_ONCE}",
    )


def healing(sync: ProfileSync, rows: int, checked: int) -> GuardError | None:
    """Stops a reconciliation that would make more profiles due again than the sync may change.

    Args:
        sync: Whose profiles they are.
        rows: Profiles that would be due.
        checked: Profiles that were judged.
    """
    allowed = sync.guard.max_changed
    if not exceeds(rows, allowed, checked):
        return None
    return GuardError(
        f"sync '{sync.name}': {rows} of {checked} profiles would be due again, guard.max_changed allows {allowed:.0%}",
        remedy="look at by_attribute: a form that Batch writes otherwise than expected is no drift; "
        'if it is meant, reconcile once with --allow-mass-change "reason"',
    )


__all__ = ["events", "healing", "profiles"]
