"""The asset checks of a sync, answered from the run's own report."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from connector.config import ExportSync, Sync
from connector.report import AnyReport, ExportReport, Report

DELIVERY, REJECTED_SHARE, GUARD, COMPLETE = "delivery", "rejected_share", "guard", "complete"

_COMPLETE = "Every line of the export is a row of the table, once."

_DESCRIPTIONS = {
    DELIVERY: "All that was planned was accepted by Batch, within the sync's tolerance.",
    REJECTED_SHARE: "The share of rows that Batch refused is within tolerance.rejected.",
    GUARD: "No guard stopped the run: no mass change, and no sent events that look new.",
}


def check_specs(sync: Sync, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of a sync; `delivery` holds back what depends on it, as does `complete` of an export."""
    if isinstance(sync, ExportSync):
        return [dg.AssetCheckSpec(name=COMPLETE, asset=key, description=_COMPLETE, blocking=True)]
    return [
        dg.AssetCheckSpec(name=name, asset=key, description=text, blocking=name == DELIVERY)
        for name, text in _DESCRIPTIONS.items()
    ]


def check_results(report: AnyReport, sync: Sync, key: dg.AssetKey) -> list[dg.AssetCheckResult]:
    """What the report says of each check."""
    if isinstance(report, ExportReport) or isinstance(sync, ExportSync):
        return [_complete(report, key)]
    allowed = sync.tolerance.rejected
    share = report.rejected / report.known if report.known else 0.0
    guarded = report.outcome == "guarded"
    settled = ("planned", "accepted", "rejected", "held", "expired", "undecided", "unsent", "run")
    return [
        dg.AssetCheckResult(
            check_name=DELIVERY,
            asset_key=key,
            passed=report.outcome == "green",
            description="; ".join(report.reasons) or None,
            metadata={name: getattr(report, name) for name in settled},
        ),
        dg.AssetCheckResult(
            check_name=REJECTED_SHARE,
            asset_key=key,
            passed=share <= allowed,
            metadata={"rejected": report.rejected, "known": report.known, "share": share, "allowed": allowed},
        ),
        dg.AssetCheckResult(
            check_name=GUARD,
            asset_key=key,
            passed=not guarded,
            description="; ".join(report.reasons) if guarded else None,
            metadata={"changed": report.changed, "removed": report.removed, "known": report.known},
        ),
    ]


def _complete(report: AnyReport, key: dg.AssetKey) -> dg.AssetCheckResult:
    counts = ("rows", "duplicates", "quarantined", "mistyped", "run")
    return dg.AssetCheckResult(
        check_name=COMPLETE,
        asset_key=key,
        passed=report.outcome == "green",
        description="; ".join(report.reasons) or None,
        metadata={name: getattr(report, name) for name in counts if hasattr(report, name)},
    )


def dry_run_results(report: Report, key: dg.AssetKey, instance: dg.DagsterInstance) -> Iterator[dg.AssetCheckResult]:
    """`guard` as planned; the other checks repeat their last verdict, for a dry run proves nothing about delivery.

    Dagster wants every declared check answered; a failure is a warning here, so that it ends no dry run.
    """
    for name in _DESCRIPTIONS:
        if name == GUARD:
            passed, text = report.outcome != "guarded", "; ".join(report.reasons)
        else:
            last = last_verdict(dg.AssetCheckKey(key, name), instance)
            passed = last is None or last.passed
            text = "A dry run sent nothing; this repeats the last verdict."
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key=key,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=text or None,
            metadata={"dry_run": True},
        )


def last_verdict(key: dg.AssetCheckKey, instance: dg.DagsterInstance) -> AssetCheckEvaluation | None:
    """The check's newest evaluation; None where it was never judged."""
    judged = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=judged)
    event = records[0].event.dagster_event if records and records[0].event else None
    return event.asset_check_evaluation_data if event else None
