"""From record batches to candidates: every event judged, what was sent dropped, the rest built and spooled.

Memory is bounded by a few record batches, 32 bytes an event that is to be sent, RANGE_BYTES of JSON, and what has to be
listed of events that are not.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.event_mapping import ID, NAME, ROW, TIME, EventAttribute, EventMapping, apply
from connector.hashing import HI, KEY_HASH, LO, derived_ids, identities, key_hashes
from connector.mapping import KEY
from connector.payload import EVENT, EVENT_BYTES_MAX, LATE, events
from connector.state.database import translated
from connector.state.ids import Ids, among, ordered
from connector.state.ledger import Ledger

AGE_MAX = 24 * 3600 * 1000
"""Milliseconds that an event may be old. Source: Batch's page of the older trigger API, word for word, and its update
page as third parties read it."""

AGE_MARGIN = 30 * 1000
"""Milliseconds before that end at which an event counts as late: our clock and Batch's may differ a little."""

RANGE_BYTES = 64_000_000
"""JSON of the profiles that are grouped in one go; more than that goes to files until then."""

EXPIRED_LISTED = 100_000
"""Events of one run that are listed as expired; beyond them they are counted: a table's whole history may be."""

ALONE, HELD, EXPIRED = "alone", "held", "expired"
"""What is listed of an event: it travels in an operation of its own, waits for a decision, or will never be sent."""

IN_DOUBT = "sent, but nobody knows whether it arrived"
OLD = "older than the 24 hours that Batch takes"
FUTURE = "the event's time is in the future; it is tried again until it is due"
LARGE = f"the event is larger than {EVENT_BYTES_MAX:,} bytes"

Late = Literal["hold", "drop", "restamp"]

_VERDICT = "#verdict"
HAS, APART, ORDER = "#has", "#alone", "#order"
"""Columns of a candidate: bit i set: it has attribute i; it must travel alone; its number, which `chosen` is by."""


@dataclass(frozen=True, slots=True)
class EventJob:
    """What a plan is made with.

    Attributes:
        mapping: The resolved mapping.
        ledger: What was sent.
        held: Events that wait for a decision.
        alone: Events that have to travel in an operation of their own.
        seed: The state's.
        now: Milliseconds since 1970.
        late: What becomes of an event that is too old.
        resend: Whatever was sent is sent again.
        retry: Held events are judged again.
        discard: Events that are too old are let go for good.
        limit: Events planned at most, the oldest first.
    """

    mapping: EventMapping
    ledger: Ledger
    held: Ids
    alone: Ids
    seed: int
    now: int
    late: Late = "hold"
    resend: bool = False
    retry: bool = False
    discard: bool = False
    limit: int | None = None

    @property
    def attributes(self) -> list[EventAttribute]:
        """By name: the order of the YAML's lines, or of the source's columns, must not make a derived id another."""
        return sorted(self.mapping.attributes)


@dataclass(slots=True)
class Sifted:
    """A source, read: what was sent is gone, the rest waits on disk.

    Attributes:
        read: Rows read.
        already_sent: Rows of events that were sent, or that stand in the source more than once.
        repeated: Of these, those of an event that another row of this read has.
        invalid: Rows of which nothing can be sent.
        faulty: Rows that are invalid or have a value withheld.
        withheld: Values that break a rule, of events that go.
        held: Events that are held now, as they are too old.
        expired: Events too old, where those are dropped.
        skipped: Events left out by the limit.
        waiting: `#hi`, `#lo` of events that were held before, a row of the source each.
        let_go: `#hi`, `#lo`, `#time` of events that are too old and are let go for good.
        found: What `rejects` is to show of this read: `#hi`, `#lo`, `key`, `id`, `attribute`, `reason`, `source`,
            `state`, `time`.
        spool: Candidates, in files and in memory, each part sorted by key hash.
        chosen: One Boolean a candidate: it is to be sent.
        bytes: JSON of all candidates.
    """

    read: int = 0
    already_sent: int = 0
    repeated: int = 0
    invalid: int = 0
    faulty: int = 0
    withheld: int = 0
    held: int = 0
    waiting: list[pl.DataFrame] = field(default_factory=list)
    expired: int = 0
    skipped: int = 0
    let_go: list[pl.DataFrame] = field(default_factory=list)
    found: list[pl.DataFrame] = field(default_factory=list)
    spool: list[pl.DataFrame | Path] = field(default_factory=list)
    chosen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    bytes: int = 0


def sift(batches: Iterable[pl.DataFrame], job: EventJob, folder: Path) -> Sifted:
    """Read the source once: judge every event, drop what was sent, put the rest into files.

    Args:
        batches: Record batches with `job.mapping.columns`.
        job: The plan's terms.
        folder: Where the files go; made anew.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with translated(folder):
        folder.mkdir(mode=0o700)
    sifted, spool = Sifted(), _Spool(folder, job)
    for batch in batches:
        sifted.read += batch.height
        spool.add(_candidates(batch, job, sifted))
    sifted.spool, sifted.bytes = spool.close(), spool.bytes
    _choose(spool, job.limit, sifted)
    return sifted


class _Verdict(StrEnum):
    """What becomes of an event of the source in this run."""

    SENT = "sent"
    HELD = "held"
    FUTURE = "future"
    LATE = "late"
    LARGE = "large"
    GO = "go"


def _candidates(batch: pl.DataFrame, job: EventJob, sifted: Sifted) -> pl.DataFrame:
    """The batch's events that are to be sent, built; all others are counted and listed."""
    mapped = apply(job.mapping, batch)
    rows = _judged(_identified(mapped.valid, job), job)
    going = _built(rows.filter(pl.col(_VERDICT) == _Verdict.GO), job)
    large = going[EVENT].str.len_bytes() > EVENT_BYTES_MAX
    future, late = (rows.filter(pl.col(_VERDICT) == verdict) for verdict in (_Verdict.FUTURE, _Verdict.LATE))
    bad = mapped.rejected.filter(pl.col("attribute").is_null())
    going, oversize = going.filter(~large), going.filter(large)
    values = mapped.rejected.filter(pl.col("attribute").is_not_null()).drop(ID)
    values = values.join(going.select(ROW, ID, HI, LO), on=ROW, how="inner")
    unfit = bad.height + future.height + oversize.height
    sifted.already_sent += int((rows[_VERDICT] == _Verdict.SENT).sum())
    sifted.waiting.append(rows.filter(pl.col(_VERDICT) == _Verdict.HELD).select(HI, LO))
    sifted.invalid += unfit
    sifted.faulty += unfit + values[ROW].n_unique()
    sifted.withheld += values.height
    shown = late
    if job.late == "hold" and not job.discard:
        state = HELD
        sifted.held += late.height
    else:
        state = EXPIRED
        shown = late.head(max(EXPIRED_LISTED - sifted.expired, 0))
        sifted.expired += late.height
        sifted.let_go += [late.select(HI, LO, TIME)] if job.discard else []
    sifted.found += [
        _found(_unnamed(bad, job.seed)),
        _found(future, reason=FUTURE),
        _found(oversize, reason=LARGE),
        _found(shown, reason=OLD, state=state),
        _found(values),
    ]
    return going


def _identified(valid: pl.DataFrame, job: EventJob) -> pl.DataFrame:
    """The events with `#id`, derived where the source has none, `#hi` and `#lo`.

    An id tells events of one name apart; a constant name may change without making all events new.
    """
    rows, mapping = valid, job.mapping
    if mapping.id is None:
        rows = rows.with_columns(pl.lit(value=False).alias(LATE))
        built = events(rows, job.attributes, with_id=False)
        rows = rows.with_columns(derived_ids(rows[KEY] + "\n" + built).alias(ID), built)
    named = rows[NAME] + "\n" + rows[ID] if mapping.name_column else rows[ID]
    return rows.hstack(identities(named, job.seed))


def _judged(rows: pl.DataFrame, job: EventJob) -> pl.DataFrame:
    """The events with `#verdict`, `#late` and `#alone`."""
    late = (rows[TIME] < job.now - AGE_MAX + AGE_MARGIN).fill_null(value=False)
    held = _among(rows, job.held)
    flags = pl.DataFrame([
        # What was sent and is too old by now stays so, also where all is sent again.
        (job.ledger.sent(rows) & (late | (not job.resend))).alias("sent"),
        (held & (not (job.resend or job.retry))).alias("held"),
        _among(rows, job.alone).alias(APART),
        (rows[TIME] > job.now).fill_null(value=False).alias("future"),
        late.alias(LATE),
    ])  # fmt: skip
    verdict = (
        pl.when("sent").then(pl.lit(_Verdict.SENT))
        .when("held").then(pl.lit(_Verdict.HELD))
        .when("future").then(pl.lit(_Verdict.FUTURE))
        .when(pl.col(LATE) & pl.lit(job.late != "restamp")).then(pl.lit(_Verdict.LATE))
        .otherwise(pl.lit(_Verdict.GO))
    )  # fmt: skip
    return rows.with_columns(flags.select(verdict.alias(_VERDICT), APART, LATE))


def _among(rows: pl.DataFrame, ids: Ids) -> pl.Series:
    return pl.Series(among(Ids(rows[HI].to_numpy(), rows[LO].to_numpy()), [ids]))


def _built(going: pl.DataFrame, job: EventJob) -> pl.DataFrame:
    """The events with their JSON; of a derived id it was made already, but for events that are sent as of now."""
    if EVENT in going.columns and not going[LATE].any():
        return going
    return going.with_columns(events(going, job.attributes, with_id=job.mapping.id is not None))


def _unnamed(bad: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Events of which not even the identity is certain, told apart by what there is of them."""
    parts = (pl.col(name).cast(pl.String).fill_null("") for name in (KEY, NAME, ID, TIME))
    known = bad.select(pl.concat_str(*parts, separator="\n")).to_series()
    return bad.hstack(identities(known, seed ^ 1))  # of no event that is valid


def _found(rows: pl.DataFrame, *, reason: str | None = None, state: str = "") -> pl.DataFrame:
    """Entries for the list of rejects: whole events, or the values of a frame that has `attribute` and `reason`."""
    told = ("attribute", "reason") if reason is None else ()
    return rows.select(
        HI,
        LO,
        pl.col(KEY).fill_null("").alias("key"),
        pl.col(ID).fill_null("").alias("id"),
        pl.col("attribute").fill_null("") if told else pl.lit("").alias("attribute"),
        pl.col("reason") if told else pl.lit(reason).alias("reason"),
        pl.lit("invalid").alias("source"),
        pl.lit(state).alias("state"),
        pl.col(TIME).alias("time"),
    )


class _Spool:
    """Candidates on their way to disk, and what has to be known of all of them at once."""

    def __init__(self, folder: Path, job: EventJob) -> None:
        self._folder = folder
        self._job = job
        self._parts: list[pl.DataFrame] = []
        self._bytes = 0
        self._rows = 0
        self.files: list[Path] = []
        self.bytes = 0
        self.marks: list[pl.DataFrame] = []
        """`#hi`, `#lo`, `#time` of the candidates, in the order of `#order`."""

    def add(self, going: pl.DataFrame) -> None:
        if not going.height:
            return
        rows = going.select(
            key_hashes(going[KEY], self._job.seed), KEY, TIME, ID, HI, LO, LATE, APART, self._has(), EVENT
        ).with_row_index(ORDER, offset=self._rows)
        self.marks.append(rows.select(HI, LO, TIME))
        size = int(rows[EVENT].str.len_bytes().sum())
        self.bytes += size
        self._bytes += size
        self._rows += rows.height
        self._parts.append(rows)
        if self._bytes >= RANGE_BYTES:
            self._flush()

    def close(self) -> list[pl.DataFrame | Path]:
        """All candidates by key hash: in files, and the last of them as they are."""
        rest = [pl.concat(self._parts).sort(KEY_HASH)] if self._parts else []
        return [*self.files, *rest]

    def _flush(self) -> None:
        path = self._folder / f"{len(self.files):05d}.arrow"
        with translated(self._folder):
            pl.concat(self._parts).sort(KEY_HASH).write_ipc(path)
        self.files.append(path)
        self._parts, self._bytes = [], 0

    def _has(self) -> pl.Expr:
        """Bit i set: the event has attribute i."""
        present = (
            pl.col(attribute.name).is_not_null().cast(pl.UInt64) * (1 << bit)
            for bit, attribute in enumerate(self._job.mapping.attributes)
        )
        return pl.sum_horizontal(pl.lit(0, pl.UInt64), *present).alias(HAS)


def _choose(spool: _Spool, limit: int | None, sifted: Sifted) -> None:
    """Of the candidates those that go: each event once, and no more than the limit, the oldest first."""
    marks = pl.concat([pl.DataFrame(schema={HI: pl.UInt64, LO: pl.UInt64, TIME: pl.Int64}), *spool.marks])
    high, low = marks[HI].to_numpy(), marks[LO].to_numpy()
    time = marks[TIME].fill_null(0).to_numpy()
    chosen = np.ones(len(marks), np.bool_)
    if marks[HI].n_unique() < len(high):  # hashes, so it is by a repeated event as good as always
        order = np.lexsort((time, low, high))
        again = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
        chosen[order[1:][again]] = False
        sifted.repeated += int(again.sum())
        sifted.already_sent += int(again.sum())
    if limit is not None and chosen.sum() > limit:
        order = np.lexsort((high, time))
        rest = order[chosen[order]][limit:]
        chosen[rest] = False
        sifted.skipped += len(rest)
    sifted.chosen = chosen
    _without_elder_rows(marks, sifted)


def _without_elder_rows(marks: pl.DataFrame, sifted: Sifted) -> None:
    """An event that goes is not held as well, for another row of its id that is too old: that one counts as sent."""
    going = ordered(marks[HI].to_numpy(), marks[LO].to_numpy())
    for number, found in enumerate(sifted.found):
        elder = (found["reason"] == OLD) & (found["state"] == HELD) & _among(found, going)
        if elder.any():
            sifted.held -= int(elder.sum())
            sifted.already_sent += int(elder.sum())
            sifted.found[number] = found.filter(~elder)


__all__ = ["EventJob", "Sifted", "sift"]
