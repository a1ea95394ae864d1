"""What the assets need from outside Dagster, as one resource that a test or a user can replace."""

from dataclasses import dataclass

import httpx

from connector.config import Project
from connector.plan import Plan, plan_sync
from connector.reconcile import Healing, reconcile_sync
from connector.report import AnyReport, ReconcileReport
from connector.sync import Options, Progress, run_sync


@dataclass(frozen=True)
class Connector:
    """Runs, plans and reconciles the syncs of a project; nothing is opened and no secret is read before that.

    Attributes:
        project: The project, as it was when the code location loaded.
        transport: Another way to Batch than the network, such as the local API's in-process door.
    """

    project: Project
    transport: httpx.AsyncBaseTransport | None = None

    def run(self, name: str, options: Options, progress: Progress) -> AnyReport:
        """Run a sync.

        Raises:
            ConfigError: A secret is missing.
        """
        return run_sync(self.project, name, options, progress=progress, transport=self.transport)

    def plan(self, name: str, options: Options, progress: Progress) -> Plan:
        """Read and diff; send nothing, change nothing.

        Raises:
            ConnectorError: The plan cannot be made.
        """
        return plan_sync(self.project, name, options, progress=progress)

    def reconcile(self, name: str, healing: Healing, progress: Progress) -> ReconcileReport:
        """Compare Batch's own export with what was delivered.

        Raises:
            ConfigError: A secret is missing.
        """
        return reconcile_sync(self.project, name, healing, progress=progress, transport=self.transport)
