"""The story of an event sync: what was sent is a ledger of event ids."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from connector import guards
from connector.config import EventSync
from connector.errors import ConnectorError, GuardError
from connector.event_commit import EventBooks, Examined, closing, commit, listed_after, soonest
from connector.event_draft import EventDraft, draft
from connector.event_planning import HELD
from connector.hashing import HI, LO
from connector.report import Reason, Report, killed
from connector.state import ledger as ledgers
from connector.state import runs, snapshots
from connector.state.ledger import TIME, Ledger
from connector.story import Story
from connector.task import tolerance_notes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventStory(Story[EventSync, Ledger, EventDraft]):
    """A run of an event sync."""

    @property
    def repeats(self) -> bool:
        """A copy of an event counts twice: only where the YAML prefers that to a lost one."""
        return self.task.sync.on_unknown == "resend"

    @property
    def attributes_first(self) -> bool:
        """An automation that an event starts reads the profile's attributes."""
        return True

    def load(self) -> Ledger:
        """The sync's ledger."""
        return ledgers.load(self.state, self.lease.sync)

    def take_over(self, run: runs.Opened, kept: Ledger) -> Ledger:
        """The ledger after a killed run's answers; its events in flight are held, or read again by the next run."""
        closed = closing(self.state, run.id, hold=not self.repeats)
        logger.warning("run %s was killed; %d events had been delivered", run.id, closed.settled.accepted)
        counts = {**closed.settled._asdict(), "held": run.report["held"] + closed.settled.held}
        ended = killed(counts, f"run {self.lease.run} took over what it had delivered")
        entries = {"recipe": kept.manifest.get("recipe") or run.attributes["recipe"]}
        if not run.attributes["by_cursor"]:
            entries |= _READ_ALL
        books, listed = EventBooks(self.state, self.lease, kept), listed_after(kept, closed, None)
        return commit(books, run.id, {**run.report, **ended}, closed.sent, listed, entries)

    def forget(self, connection: sa.Connection) -> Ledger:
        """An empty ledger."""
        return ledgers.forget(connection, self.state, self.lease.sync)

    def sweep(self, kept: Ledger) -> None:
        """Remove ledger files that nothing names."""
        ledgers.sweep(kept)
        snapshots.sweep_bucket(self.state, self.lease, kept.folder, kept.manifest)

    def draft(self, kept: Ledger, report: Report) -> EventDraft:
        """The events that are due."""
        return draft(self.task, self.state, kept, report, self.progress)

    def stopped(self, kept: Ledger, drafted: EventDraft) -> GuardError | None:
        """Events that were sent must not look new."""
        return guards.events(self.task, kept, drafted.recipe, drafted.report.planned)

    def close(
        self, kept: Ledger, drafted: EventDraft, report: Report, ended: ConnectorError | None, reasons: Sequence[Reason]
    ) -> Report:
        """Commit the accepted events to the ledger."""
        closed = closing(self.state, self.lease.run, hold=not self.repeats)
        settled = closed.settled
        held = report.held + settled.held
        unsent = report.planned - settled.accepted - settled.rejected - held - report.expired
        report = replace(report, accepted=settled.accepted, rejected=settled.rejected, held=held, unsent=unsent)
        settled_all = not ended and not unsent and not drafted.sifted.skipped
        examined = _examined(drafted, settled=settled_all)
        listed = listed_after(kept, closed, examined)
        waiting = listed.filter((pl.col("state") == HELD) & (pl.col("attribute") == ""))
        ends = [end for end in (closed.closes, soonest(waiting["time"])) if end is not None]
        report = replace(report, undecided=waiting.height, closes=min(ends, default=None))
        notes = [*reasons, *tolerance_notes(self.task, report, drafted.faulty), *_waiting_notes(report)]
        report = report.failed(ended) if ended else self.judged(report, notes)
        books, handled = EventBooks(self.state, self.lease, kept), [*closed.sent, examined.let_go]
        entries = self._entries(kept, drafted, settled=settled_all)
        commit(books, self.lease.run, report.to_dict(), handled, listed, entries)
        return report

    def _entries(self, kept: Ledger, drafted: EventDraft, *, settled: bool) -> dict[str, Any]:
        """The manifest's further entries; the cursor moves only past events that are all sent, listed or let go."""
        reading, cursor = drafted.reading, self.task.sync.cursor
        entries: dict[str, Any] = {}
        if self.task.options.allow_mass_change or "recipe" not in kept.manifest:
            entries["recipe"] = drafted.recipe
        if not settled and not reading.by_cursor:
            return entries | _READ_ALL
        if cursor and settled and not reading.asked:
            entries["cursor"] = {"value": reading.until.isoformat(), "scope": reading.scope}
        return entries


_READ_ALL: dict[str, Any] = {"cursor": None}
"""What was not sent may lie behind the cursor: the next run reads the whole source; the ledger tells what is new."""


def _examined(drafted: EventDraft, *, settled: bool) -> Examined:
    """What the read has shown."""
    discarded = drafted.discarded.select(HI, LO, pl.col("time").alias(TIME))
    return Examined(
        found=drafted.sifted.found,
        again=drafted.reading.again,
        full=drafted.reading.full,
        settled=settled,
        let_go=pl.concat([discarded, *drafted.sifted.let_go]),
    )


def _waiting_notes(report: Report) -> list[Reason]:
    """Why a run with events that wait for a decision is not green, and how long there is to decide."""
    notes = []
    if report.undecided:
        decide = "decide with --retry-held or --discard-held"
        see = f"see: connector rejects {report.sync}"
        text = f"events held: {report.undecided}; {decide} (in Dagster: retry_held, discard_held); {see}"
        notes.append(Reason("held", text))
    # Refused events within the tolerance are no reason: they go again by themselves.
    if report.closes is not None and (report.undecided or report.unsent):
        at = datetime.fromtimestamp(report.closes, UTC)
        hours = (report.closes - time.time()) / 3600
        text = f"the oldest event that was not sent can be sent until {at:%Y-%m-%d %H:%M} UTC, {hours:.1f} h from now"
        notes.append(Reason("closing", text))
    return notes


__all__ = ["EventStory"]
