"""What a person may ask of one run, in the Launchpad."""

from datetime import datetime

import dagster as dg
from pydantic import Field

from connector.sync import Options


class SyncRunConfig(dg.Config):
    """Options of one run that sends rows to Batch; the defaults are those of a scheduled one."""

    full: bool = Field(default=False, description="Read the whole source, cursor or not.")
    resend: bool = Field(default=False, description="Send every row whole, changed or not; events a second time.")
    dry_run: bool = Field(default=False, description="Read and compare; send nothing, materialize nothing.")
    limit: int | None = Field(default=None, ge=1, description="Send at most so many rows; the others stay due.")
    keys: list[str] = Field(default_factory=list, description="Only these keys; Dagster stores what is written here.")
    allow_mass_change: str | None = Field(
        default=None, min_length=1, description="Why the guards may be passed this once."
    )
    retry_held: bool = Field(default=False, description="Events: judge held ones again, and send what may be sent.")
    discard_held: bool = Field(default=False, description="Events: never send held ones.")

    def options(self, window: tuple[datetime, datetime] | None = None) -> Options:
        """The same, as the library takes it.

        Args:
            window: Of the partitions that the run is asked for, half-open.
        """
        return Options(
            full=self.full,
            resend=self.resend,
            limit=self.limit,
            keys=tuple(self.keys),
            allow_mass_change=self.allow_mass_change,
            window=window,
            retry_held=self.retry_held,
            discard_held=self.discard_held,
        )


class ExportRunConfig(dg.Config):
    """Options of one run of an export; Dagster refuses those of the other kinds by name."""

    full: bool = Field(
        default=False, description="Ask for a new export, whatever is still open; of events the whole first window."
    )

    def options(self, window: tuple[datetime, datetime] | None = None) -> Options:
        """The same, as the library takes it.

        Args:
            window: Of the partitions that the run is asked for, half-open.
        """
        return Options(full=self.full, window=window)


class DriftRunConfig(dg.Config):
    """Options of one run of the check `drift`."""

    allow_mass_change: str | None = Field(
        default=None, min_length=1, description="Why guard.max_changed may be passed this once when a drift is healed."
    )
