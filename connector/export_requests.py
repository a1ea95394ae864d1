"""What Batch is asked to export: the body of the request, its window, and how ours is told from others."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from connector.api.exports import Export
from connector.config import LOOKBACK, ExportSync
from connector.errors import UsageError

OVERLAP = timedelta(hours=1)
"""Of a window with the one before: events that reached Batch late stand there under an earlier time."""

MARGIN = timedelta(minutes=10)
"""Kept from the start of what Batch has: it judges a window later than we do, and by its own clock."""

REACHABILITY_FROM = datetime(2024, 10, 10, tzinfo=UTC)
"""Batch has no reachability events before. Source: its page of the export endpoint."""

SKEW_SECONDS = 300.0
"""How far Batch's clock may be from ours when exports are told apart by it."""

_TYPES = {"attributes": "ATTRIBUTES", "events": "EVENTS", "reachability": "REACHABILITY"}


class Window(NamedTuple):
    """Events that happened in the half-open interval [since, until), both aware."""

    since: datetime
    until: datetime


def attributes_request(
    attributes: Sequence[str], identifiers: Sequence[str], segment: str | None = None
) -> dict[str, Any]:
    """The body that asks for attributes of profiles."""
    body: dict[str, Any] = {"export_type": _TYPES["attributes"], "identifiers": list(identifiers)}
    if attributes:
        body["attributes"] = list(attributes)
    if segment:
        body["filter"] = {"segment": segment}
    return body


def request(sync: ExportSync, window: Window | None) -> dict[str, Any]:
    """The body that asks for a sync's export; `window` is None for attributes."""
    if window is None:
        return attributes_request(sync.attributes, sync.identifiers, sync.segment)
    return {
        "export_type": _TYPES[sync.export],
        "identifiers": list(sync.identifiers),
        "from": written(window.since),
        "to": written(window.until),
    }


def next_window(
    sync: ExportSync,
    last: str | None,
    now: datetime,
    asked: tuple[datetime, datetime] | None = None,
    *,
    full: bool = False,
) -> Window | None:
    """The window to export now; None for attributes.

    Args:
        sync: The sync.
        last: The end of the last window that was loaded, as its request said it.
        now: This moment, aware.
        asked: The operator's own window.
        full: Start over `since` ago, or where the last window ended if that is earlier: as far back as Batch goes.

    Raises:
        UsageError: It starts before what Batch keeps, or ends in the future.
    """
    if sync.export == "attributes":
        return None
    earliest = now - LOOKBACK + MARGIN
    if sync.export == "reachability":
        earliest = max(earliest, REACHABILITY_FROM)
    if asked:
        return _asked_window(sync, Window(*asked), now, earliest)
    first = max(now - sync.first_window, earliest)  # a window as long as Batch's own must not start a moment before it
    follows = datetime.fromisoformat(last) - OVERLAP if last else first
    if full:
        return Window(max(min(first, follows), earliest), now)
    if follows < earliest:
        raise UsageError(
            f"sync '{sync.name}': its last window ended {last}, {_kept(sync, earliest)}: "
            "what happened in between is no longer there",
            remedy="run it once with --full: it starts again as far back as Batch goes",
        )
    if follows >= now:
        raise UsageError(
            f"sync '{sync.name}': its last window ended {last}, which is later than this machine's clock says it is",
            remedy="correct the clock, or wait until then",
        )
    return Window(follows, now)


def _asked_window(sync: ExportSync, window: Window, now: datetime, earliest: datetime) -> Window:
    if window.until > now:
        raise UsageError(f"sync '{sync.name}': the window ends in the future", remedy="end it now at the latest")
    if window.since < earliest:
        said = f"sync '{sync.name}': the window starts {written(window.since)}, {_kept(sync, earliest)}"
        raise UsageError(said, remedy="start later")
    return window


def _kept(sync: ExportSync, earliest: datetime) -> str:
    return f"Batch has {sync.export} from {written(earliest)} on"


def scope(sync: ExportSync) -> str:
    """16 hexadecimal digits that change with what a window's end is good for: other rows, or another table."""
    parts = sync.model_dump(mode="json", include={"warehouse", "export", "identifiers", "table"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def is_ours(export: Export, body: Mapping[str, Any], asked_at: float, known: set[str]) -> bool:
    """Whether an export of Batch's list is the one that was asked for with this body and is not known by its id.

    Batch may add to the request that it repeats, and write its times in another way.
    """
    if export.id in known or (export.requested_at is not None and export.requested_at < asked_at - SKEW_SECONDS):
        return False
    return all(_same(export.request.get(name), value) for name, value in body.items())


def written(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _same(theirs: object, ours: object) -> bool:
    if isinstance(theirs, list) and isinstance(ours, list):
        return sorted(map(str, theirs)) == sorted(map(str, ours))
    if isinstance(theirs, str) and isinstance(ours, str) and theirs != ours:
        try:
            return datetime.fromisoformat(theirs) == datetime.fromisoformat(ours)
        except (ValueError, TypeError):
            return False
    return theirs == ours
