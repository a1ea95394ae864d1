"""The check `drift`: Batch's own word against what was delivered, in a job and perhaps on a schedule of its own."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from assets.checks import last_verdict
from assets.jobs import job_defs
from assets.metadata import asset_key
from assets.resources import Connector
from assets.run_config import DriftRunConfig
from assets.runs import Milestones, failure_by, failure_of
from connector.config import ProfileSync, Reconcile
from connector.errors import ConnectorError
from connector.reconcile import Healing
from connector.report import ReconcileReport

DRIFT = "drift"
REPEATED = "repeated"
"""Metadata of a verdict that is not new."""

_DESCRIPTION = "Batch holds what was delivered, by its own export: no profile is missing, no attribute differs."


def drift_key(sync: ProfileSync) -> dg.AssetCheckKey:
    """The key of the sync's check."""
    return dg.AssetCheckKey(asset_key(sync), DRIFT)


def drift_step(sync: ProfileSync) -> str:
    """The name of the step that answers it, for run config."""
    return f"{asset_key(sync).to_python_identifier()}_{DRIFT}"


def build_drift_defs(sync: ProfileSync, settings: Reconcile) -> dg.Definitions:
    """The check, a job that does nothing else, and its schedule where the YAML has one."""
    told = job_defs(
        f"{sync.name}_reconcile",
        dg.AssetSelection.checks(drift_key(sync)),
        f"Compares what Batch holds with what the sync {sync.name} delivered.",
        settings.schedule,
    )
    return dg.Definitions.merge(told, dg.Definitions(asset_checks=[build_drift_check(sync, settings)]))


def build_drift_check(sync: ProfileSync, settings: Reconcile) -> dg.AssetChecksDefinition:
    """The check, which asks Batch for an export only where a run is about it alone.

    Dagster runs every check of an asset along with its materialization: then it repeats its last verdict, and gives
    none where there is none yet.
    """

    # Of the two decorators, because only this one's checks may stay unanswered.
    @dg.multi_asset_check(
        name=drift_step(sync),
        specs=[dg.AssetCheckSpec(DRIFT, asset=asset_key(sync), description=_DESCRIPTION)],
        can_subset=True,
        pool=f"reconcile_{sync.name}",
    )
    def drift(
        context: dg.AssetCheckExecutionContext, config: DriftRunConfig, connector: dg.ResourceParam[Connector]
    ) -> Iterator[dg.AssetCheckResult]:
        if asset_key(sync) in context.job_def.asset_layer.executable_asset_keys:
            last = last_verdict(drift_key(sync), context.instance)
            yield from [_repeated(last)] if last else []
            return
        healing = Healing(settings.heal, config.allow_mass_change)
        try:
            report = connector.reconcile(sync.name, healing, Milestones(context.log.info))
        except ConnectorError as error:
            raise failure_by(error) from None
        if not _is_judged(report):
            raise failure_of(report)
        yield _result(report, sync)

    return drift


def _is_judged(report: ReconcileReport) -> bool:
    """Whether anything was compared: a drift that a guard keeps from being healed was."""
    drifted = report.missing + report.differing > 0
    return report.outcome in ("green", "guarded") or (report.outcome == "incomplete" and drifted)


def _result(report: ReconcileReport, sync: ProfileSync) -> dg.AssetCheckResult:
    """What was found, in numbers and attribute names; no key."""
    counts = ("checked", "missing", "differing", "unknown", "healed")
    rows = "\n".join(f"| `{name}` | {count:,} |" for name, count in report.by_attribute.items())
    remedy = report.error["remedy"] if report.error else ""
    return dg.AssetCheckResult(
        check_name=DRIFT,
        asset_key=asset_key(sync),
        passed=report.outcome == "green",
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(filter(None, [*report.reasons, remedy])) or None,
        metadata={
            **{name: getattr(report, name) for name in counts},
            "by_attribute": dg.MetadataValue.md(f"| attribute | profiles |\n|---|--:|\n{rows}"),
            "outcome": report.outcome,
            "run": report.run,
            "export_id": report.export_id or "",
        },
    )


def _repeated(last: AssetCheckEvaluation) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=last.check_name,
        asset_key=last.asset_key,
        passed=last.passed,
        severity=last.severity,
        description=last.description,
        metadata={**last.metadata, REPEATED: True},
    )
