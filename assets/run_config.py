"""What a person may ask of one run, in the Launchpad."""

import dagster as dg
from pydantic import Field

from connector.sync import Options


class SyncRunConfig(dg.Config):
    """Options of one run; the defaults are those of a scheduled one."""

    full: bool = Field(default=False, description="Read the whole source, cursor or not.")
    resend: bool = Field(default=False, description="Send every row whole, changed or not.")
    dry_run: bool = Field(default=False, description="Read and compare; send nothing, materialize nothing.")
    limit: int | None = Field(default=None, ge=1, description="Send at most so many rows; the others stay due.")
    keys: list[str] = Field(default_factory=list, description="Only these keys; Dagster stores what is written here.")
    allow_mass_change: str | None = Field(
        default=None, min_length=1, description="Why the guards may be passed this once."
    )

    def options(self) -> Options:
        """The same, as the library takes it."""
        return Options(
            full=self.full,
            resend=self.resend,
            limit=self.limit,
            keys=tuple(self.keys),
            allow_mass_change=self.allow_mass_change,
        )
