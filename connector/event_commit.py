"""From settled chunks to the ledger: what was sent is never sent again, what is in doubt or refused is listed.

A run that ends and a run that was killed are committed by the same code, from the outbox and the chunks' states alone.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from connector._steps import step
from connector.event_grouping import HIS, IDS, LOS, TIMES
from connector.event_planning import AGE_MAX, ALONE, EXPIRED, HELD, IN_DOUBT
from connector.hashing import HI, LO
from connector.mapping import KEY
from connector.settled import ACCEPTED, REFUSED, UNKNOWN, UNSENT, UNVERIFIED, Outcomes, outcomes
from connector.state import ledger as ledgers
from connector.state import runs, snapshots
from connector.state.database import State
from connector.state.files import read_frames
from connector.state.ids import Ids, among, ordered
from connector.state.lease import Lease
from connector.state.ledger import LISTED_SCHEMA, TIME, Ledger

_FOUND = [name for name in LISTED_SCHEMA if name not in ("attempts", "first_seen", "last_seen")]
_ENTRY = [HI, LO, "attribute"]


class EventsSettled(NamedTuple):
    """What became of a run's events.

    Attributes:
        accepted: Applied whole.
        rejected: Refused, wholly or in part, or in an operation of which something was refused.
        held: Perhaps applied: they wait for a decision.
        unsent: Not sent, or perhaps applied and due again.
    """

    accepted: int = 0
    rejected: int = 0
    held: int = 0
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class Closing:
    """A run's answers.

    Attributes:
        settled: Counts.
        sent: `#hi`, `#lo`, `#time` of events that are never to be sent again.
        found: What `rejects` is to show of them (LISTED_SCHEMA without attempts and times seen).
        closes: When Batch stops taking the oldest that was not sent, in seconds since 1970.
    """

    settled: EventsSettled
    sent: list[pl.DataFrame]
    found: list[pl.DataFrame]
    closes: float | None


@dataclass(frozen=True, slots=True)
class Examined:
    """What this run's read has shown, and a killed run's has not.

    Attributes:
        found: What `rejects` is to show of it.
        again: Entries that were looked up.
        full: The whole source was read.
        settled: All that was planned was sent or is listed; then what was looked at and not found is mended or gone.
        let_go: `#hi`, `#lo`, `#time` of events that are never to be sent, on the operator's word.
    """

    found: list[pl.DataFrame]
    again: pl.DataFrame
    full: bool
    settled: bool
    let_go: pl.DataFrame


_SENT, _PARTLY, _REFUSED, _AMBIGUOUS, _IN_DOUBT, _LIKELY, _UNSENT = range(7)
"""What became of an operation: its events were applied; without some attributes; not at all; all but one that is not
named; perhaps; probably, as Batch answered; not sent."""

_BY_OUTCOME = {ACCEPTED: _SENT, REFUSED: _REFUSED, UNKNOWN: _IN_DOUBT, UNVERIFIED: _LIKELY, UNSENT: _UNSENT}


def closing(state: State, run: str, *, hold: bool) -> Closing:
    """What became of a run's events.

    Args:
        state: Where its chunks and its outbox are.
        run: Its id.
        hold: Events of which nobody knows whether they arrived are held; else they are due again.
    """
    chunks = runs.chunk_rows(state, run)
    fates, refusals = _fates(outcomes(chunks, state.now()))
    counts: Counter[int] = Counter()
    sent: list[pl.DataFrame] = []
    found: list[pl.DataFrame] = []
    closes = pl.Series([], dtype=pl.Int64)
    first = 0
    for frame in read_frames(runs.outbox(state, run), [KEY, HIS, LOS, IDS, TIMES]) if chunks else ():
        operations = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True)
        rows = frame.with_columns(
            operations.alias("row"),
            _decided(fates[first : first + frame.height], frame[HIS].list.len().to_numpy(), hold=hold),
        )
        first += frame.height
        rows = rows.explode(HIS, LOS, IDS, TIMES).rename({HIS: HI, LOS: LO, TIMES: TIME})
        counts.update(dict(rows["fate"].value_counts().rows()))
        sent.append(rows.filter(pl.col("fate").is_in([_SENT, _PARTLY])).select(HI, LO, TIME))
        found += _listed(rows, refusals)
        closes = closes.append(rows.filter(~pl.col("fate").is_in([_SENT, _PARTLY]))[TIME])
    settled = EventsSettled(
        accepted=counts[_SENT],
        rejected=counts[_PARTLY] + counts[_REFUSED],
        held=counts[_AMBIGUOUS] + counts[_IN_DOUBT],
        unsent=counts[_UNSENT],
    )
    return Closing(settled, sent, found, soonest(closes))


def soonest(times: pl.Series) -> float | None:
    """When Batch stops taking the first of these events that it still takes, in seconds since 1970; None: none of them.

    Args:
        times: When they happened, Int64, milliseconds since 1970; null where unknown.
    """
    ends = (times + AGE_MAX) / 1000
    first = ends.filter(ends > time.time()).min()
    return None if first is None else float(first)  # type: ignore[arg-type]


def listed_after(ledger: Ledger, closed: Closing, examined: Examined | None) -> pl.DataFrame:
    """All that `rejects` shows after a run (LISTED_SCHEMA): what was found again counts one attempt more.

    An entry for a whole event goes when the event was sent; one for an invalid event also when it was looked at and is
    so no longer, or gone.
    """
    before: pl.DataFrame = ledger.listed()
    # Of an id that stands in several rows, what became of the one that was sent counts.
    found = pl.concat([_nothing(), *closed.found, *(examined.found if examined else ())])
    found = found.unique(_ENTRY, keep="first", maintain_order=True)
    found = found.filter(~_sent_now(found, closed))
    if before.is_empty() and found.is_empty():
        return before
    now = time.time()
    earlier = before.select(*_ENTRY, "attempts", "first_seen")
    news: pl.DataFrame = found.join(earlier, on=_ENTRY, how="left").with_columns(
        pl.col("attempts").fill_null(0) + 1, pl.col("first_seen").fill_null(now), pl.lit(now).alias("last_seen")
    )
    kept: pl.DataFrame = before.join(found, on=_ENTRY, how="anti")
    kept = kept.filter(~_sent_now(kept, closed))
    if examined:
        kept = kept.filter(~_mended(kept, examined))
        let_go = pl.Series(_among(kept, examined.let_go)) & (kept["state"] == HELD)
        kept = kept.with_columns(pl.when(let_go).then(pl.lit(EXPIRED)).otherwise("state").alias("state"))
    return pl.concat([kept, news.select(kept.columns)])


@dataclass(frozen=True, slots=True)
class EventBooks:
    """What a commit writes into: the state under a lease, and the ledger as it stands."""

    state: State
    lease: Lease
    ledger: Ledger


def commit(
    books: EventBooks,
    run: str,
    report: dict[str, Any],
    handled: Sequence[pl.DataFrame],
    listed: pl.DataFrame,
    entries: dict[str, Any],
) -> Ledger:
    """Add what was handled to the ledger, keep the list of rejects, and close the run: one transaction.

    Args:
        books: What to write into.
        run: The run whose chunks are committed; another one than the lease's where a killed run is taken over.
        report: The run's report, as it is kept.
        handled: `#hi`, `#lo`, `#time` of events that are never to be sent again.
        listed: From `listed_after`.
        entries: The manifest's further entries.

    Returns:
        The ledger as it is now.
    """
    moved = ledgers.moved(books.ledger, ledgers.write(books.ledger, handled), listed, time.time(), entries)
    snapshots.put(books.state, moved.folder, moved.manifest, books.ledger.manifest)
    step("commit.prepared")
    with books.state.write() as connection:
        books.lease.check(connection)
        snapshots.store(connection, books.lease.sync, moved.manifest, moved.generation)
        runs.close_run(connection, books.lease, run, report)
        step("commit.written")
    step("commit.done")
    runs.drop_outbox(books.state, run)
    step("outbox.removed")
    return moved


def _fates(results: Outcomes) -> tuple[npt.NDArray[np.int8], pl.DataFrame]:
    """What became of each operation by the answers alone; and `row`, `attribute`, `reason` of what was refused."""
    fates = np.array([_BY_OUTCOME[outcome] for outcome in range(len(_BY_OUTCOME))], np.int8)[results.outcome]
    for row, attribute, _reason in results.refusals.rows():
        if fates[row] in (_SENT, _PARTLY):
            fates[row] = _PARTLY if attribute else _AMBIGUOUS
    return fates, results.refusals


def _decided(fates: npt.NDArray[np.int8], events: npt.NDArray[np.uint32], *, hold: bool) -> pl.Series:
    """The fates of the operations' events: of one alone the answer is clear; what is in doubt is as the YAML has it."""
    fates = np.where((fates == _AMBIGUOUS) & ((events == 1) | (not hold)), _REFUSED, fates)
    fates = np.where((fates == _IN_DOUBT) & (not hold), _UNSENT, fates)
    # What Batch answered, if in other words than we know, has probably arrived: a copy at every run would be no remedy.
    return pl.Series("fate", np.where(fates == _LIKELY, _IN_DOUBT, fates).astype(np.int8))


def _listed(rows: pl.DataFrame, refusals: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Entries for what was refused or is in doubt; what was refused travels alone next time: its answer is clear."""
    doubtful = rows.filter(pl.col("fate") == _IN_DOUBT)
    if doubtful.height:
        yield _entries(doubtful, pl.lit(IN_DOUBT), HELD)
    if refusals.is_empty():
        return
    parts = rows.filter(pl.col("fate") == _PARTLY).join(refusals, on="row", how="inner")
    yield _entries(parts, pl.col("reason"), "", pl.col("attribute"))
    whole = refusals.filter(pl.col("attribute").is_null()).unique("row", keep="first")
    for fate, state in ((_REFUSED, ALONE), (_AMBIGUOUS, HELD)):
        refused = rows.filter(pl.col("fate") == fate).join(whole, on="row", how="inner")
        yield _entries(refused, pl.col("reason"), state)


_WHOLE = pl.lit("")


def _entries(rows: pl.DataFrame, reason: pl.Expr, state: str, attribute: pl.Expr = _WHOLE) -> pl.DataFrame:
    return rows.select(
        HI,
        LO,
        pl.col(KEY).alias("key"),
        pl.col(IDS).alias("id"),
        attribute.alias("attribute"),
        reason.alias("reason"),
        pl.lit("rejected").alias("source"),
        pl.lit(state).alias("state"),
        pl.col(TIME).alias("time"),
    )


def _sent_now(entries: pl.DataFrame, closed: Closing) -> pl.Series:
    """Entries for whole events that this run sent."""
    sent = pl.concat([_nothing().select(HI, LO), *(part.select(HI, LO) for part in closed.sent)])
    return pl.Series(_among(entries, sent)) & (entries["attribute"] == "")


def _mended(entries: pl.DataFrame, examined: Examined) -> pl.Series:
    """Entries for invalid events that were looked at and are so no longer, or gone; not found again, that is."""
    looked_at = pl.Series(_among(entries, examined.again)) | examined.full
    invalid = (entries["state"] == "") & (entries["source"] == "invalid") & (entries["attribute"] == "")
    return looked_at & invalid & examined.settled


def _among(rows: pl.DataFrame, ids: pl.DataFrame) -> npt.NDArray[np.bool_]:
    return among(Ids(*_halves(rows)), [ordered(*_halves(ids))])


def _halves(rows: pl.DataFrame) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    return rows[HI].to_numpy(), rows[LO].to_numpy()


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema={name: LISTED_SCHEMA[name] for name in _FOUND})


__all__ = ["Closing", "EventBooks", "EventsSettled", "Examined", "closing", "commit", "listed_after", "soonest"]
