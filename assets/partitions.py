"""Event syncs and exports of events, cut by the day: the asset's partitions, and what a run of some is about."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import dagster as dg

from connector.config import ProfileSync, Sync


class Days(NamedTuple):
    """The days that a run is asked for.

    Attributes:
        window: From the first one's start to the last one's end, half-open, UTC; None: whatever the cursor says.
        keys: The partitions; empty without a window.
    """

    window: tuple[datetime, datetime] | None = None
    keys: tuple[str, ...] = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """Says so where Dagster shows the run's counts, which are those of all its days, under each of them."""
        return {"window_total": True} if len(self.keys) > 1 else {}


def daily(sync: Sync) -> dg.DailyPartitionsDefinition | None:
    """The days that are over (UTC), from the first one in the YAML on; None where it has no `partitions`."""
    if isinstance(sync, ProfileSync) or sync.partitions is None:
        return None
    return dg.DailyPartitionsDefinition(sync.partitions.daily.isoformat(), timezone="UTC")


def days(context: dg.AssetExecutionContext, sync: Sync) -> Days:
    """What the run is asked for: a partition, a range of them, or none, as a schedule's run is.

    A run may have a partition for the sake of another asset in it.
    """
    if daily(sync) is None or not (context.has_partition_key or context.has_partition_key_range):
        return Days()
    window = context.partition_time_window
    return Days((window.start, window.end), tuple(context.partition_keys))


@contextmanager
def beta_accepted() -> Iterator[None]:
    """Without Dagster's warning, at every load of every sync, that backfill policies are in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)
        yield
