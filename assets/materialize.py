"""`python -m assets.materialize SYNC` materializes a sync through Dagster, in this process, without a Dagster home."""

import argparse
import sys
from collections.abc import Sequence

import dagster as dg

from assets.definitions import current_project
from assets.factory import build_sync_asset
from assets.metadata import asset_key
from assets.resources import Connector
from assets.run_config import ExportRunConfig, SyncRunConfig
from connector.config import ExportSync, Project
from connector.errors import ConnectorError, UsageError
from connector.report import EXIT_STATUS

CONFIGURATION_STATUS = 2

_STATUS: dict[str, int] = {str(outcome): status for outcome, status in EXIT_STATUS.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the run: 0 green, 1 failed, 2 usage or configuration, 3 incomplete, 4 guarded, 5 busy."""
    parser = argparse.ArgumentParser(prog="python -m assets.materialize", description="Materialize a sync in Dagster.")
    parser.add_argument("sync")
    parser.add_argument("--dry-run", action="store_true", help="read and compare; send nothing")
    asked = parser.parse_args(arguments)
    try:
        status, message = materialize(current_project(), asked.sync, dry_run=asked.dry_run)
    except (ConnectorError, dg.DagsterInvalidDefinitionError) as error:
        status, message = CONFIGURATION_STATUS, str(error)
    if message:
        sys.stderr.write(f"{message}\n")
    return status


def materialize(project: Project, name: str, *, dry_run: bool = False) -> tuple[int, str]:
    """The exit status and, where that is not 0, a sentence that says why.

    Raises:
        UsageError: There is no such sync, or it sends nothing that a dry run could show.
    """
    sync = project.sync(name)
    if isinstance(sync, ExportSync) and dry_run:
        raise UsageError(f"'{name}' is an export: it sends nothing, so --dry-run has no meaning", remedy="leave it out")
    step = asset_key(sync).to_python_identifier()
    asked = ExportRunConfig() if isinstance(sync, ExportSync) else SyncRunConfig(dry_run=dry_run)
    config = {
        "ops": {step: {"config": asked.model_dump()}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [build_sync_asset(project, sync)],
            instance=instance,
            resources={"connector": Connector(project)},
            run_config=config,
            raise_on_error=False,
        )
    for event in result.get_step_failure_events():
        if said := event.step_failure_data.user_failure_data:
            code, outcome = (str(said.metadata[label].value) for label in ("code", "outcome"))
            status = CONFIGURATION_STATUS if code in ("usage", "configuration") else _STATUS[outcome]
            return status, said.description or ""
        return _STATUS["failed"], event.step_failure_data.error_display_string
    return (0, "") if result.success else (_STATUS["failed"], "the run failed")


if __name__ == "__main__":
    sys.exit(main())
