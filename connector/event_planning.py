"""From record batches to operations with events on disk: judge, drop what was sent, group by profile, order by time.

Memory is bounded by a few record batches, 32 bytes an event that is to be sent, and one range of profiles at a time.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from connector import payload
from connector.event_mapping import ID, NAME, ROW, TIME, EventMapping, apply
from connector.hashing import HI, KEY_HASH, LO, derived_ids, identities, key_hashes
from connector.mapping import KEY
from connector.payload import EVENT, EVENT_BYTES_MAX, EVENTS_MAX, LATE, OPERATION, Chunk, event_operations, events
from connector.state.database import translated
from connector.state.files import write_frames
from connector.state.ids import Ids, among
from connector.state.ledger import Ledger

AGE_MAX = 24 * 3600 * 1000
"""Milliseconds that an event may be old. Source: Batch's page of the older trigger API, word for word, and its update
page as third parties read it."""

AGE_MARGIN = 30 * 1000
"""Milliseconds before that end at which an event counts as late: our clock and Batch's may differ a little."""

RANGE_BYTES = 128_000_000
"""JSON of the profiles that are grouped in one go; more than that goes to files until then."""

BUILD_ROWS = 10_000
"""Operations of one row group of the outbox."""

ALONE, HELD, EXPIRED = "alone", "held", "expired"
"""What is listed of an event: it travels in an operation of its own, waits for a decision, or will never be sent."""

OLD = "older than the 24 hours that Batch takes"
FUTURE = "the event's time is in the future; it is tried again until it is due"
LARGE = f"the event is larger than {EVENT_BYTES_MAX:,} bytes"

IDS, TIMES, HIS, LOS = "#ids", "#times", "#his", "#los"
"""Columns of the outbox that say which events an operation holds, one list item an event."""

Late = Literal["hold", "drop", "restamp"]

_VERDICT = "#verdict"
_HAS = "#has"
_ALONE = "#alone"
_ORDER = "#order"
_SIZES = pl.Schema({"bytes": pl.UInt32(), "#wave": pl.Int32(), "#closes": pl.Float64()})
_WAVE = "#wave"
_FIRST = "#first"
_CLOSES = "#closes"


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
    limit: int | None = None


@dataclass(slots=True)
class Sifted:
    """A source, read: what was sent is gone, the rest waits on disk.

    Attributes:
        read: Rows read.
        already_sent: Rows of events that were sent, or that stand in the source more than once.
        invalid: Rows of which nothing can be sent.
        faulty: Rows that are invalid or have a value withheld.
        withheld: Values that break a rule, of events that go.
        held: Events that are held now, as they are too old.
        expired: Events too old, where those are dropped.
        skipped: Events left out by the limit.
        waiting: `#hi`, `#lo` of events that were held before, a row of the source each.
        found: What `rejects` is to show of this read: `#hi`, `#lo`, `key`, `id`, `attribute`, `reason`, `source`,
            `state`, `time`.
        spool: Candidates, in files and in memory, each part sorted by key hash.
        chosen: One Boolean a candidate: it is to be sent.
        bytes: JSON of all candidates.
    """

    read: int = 0
    already_sent: int = 0
    invalid: int = 0
    faulty: int = 0
    withheld: int = 0
    held: int = 0
    waiting: list[pl.DataFrame] = field(default_factory=list)
    expired: int = 0
    skipped: int = 0
    found: list[pl.DataFrame] = field(default_factory=list)
    spool: list[pl.DataFrame | Path] = field(default_factory=list)
    chosen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class EventSet:
    """What a run has to send, on disk in sending order.

    Attributes:
        path: Parquet, one row an operation: `#key`, `#operation` (JSON), `#his`, `#los` (List(UInt64)), `#ids`
            (List(String)), `#times` (List(Int64), milliseconds); absent where nothing is to be sent.
        sizes: `bytes`, `#wave` and `#closes` (seconds since 1970; infinite: never) of each operation.
        events: Events in it.
        by_attribute: Events that have it, by attribute name.
        sample: A few keys.
    """

    path: Path
    sizes: pl.DataFrame
    events: int
    by_attribute: dict[str, int]
    sample: list[str]

    def chunks(self, per_call: int) -> list[Chunk]:
        """The operations' requests; none holds operations of two waves, so no custom ID comes twice in a call."""
        found: list[Chunk] = []
        first = 0
        for (wave,), part in self.sizes.group_by(_WAVE, maintain_order=True):
            closes = part[_CLOSES].to_numpy()
            for chunk in payload.chunks(part["bytes"].to_numpy().astype(np.int64), max_profiles=per_call):
                ends = float(closes[chunk.first : chunk.first + chunk.rows].min())
                closing = ends if np.isfinite(ends) else None
                found.append(chunk._replace(first=first + chunk.first, wave=int(wave), closes=closing))
            first += part.height
        return found


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


def build(sifted: Sifted, job: EventJob, path: Path) -> EventSet:
    """Group the candidates into operations and write them in sending order.

    Args:
        sifted: From `sift`.
        job: The same terms.
        path: Where they go.
    """
    tally = _Tally([attribute.name for attribute in job.mapping.attributes])
    write_frames(path, tally.frames(sifted, path.with_suffix(".spool")))
    return EventSet(path, pl.concat(tally.sizes), tally.events, tally.by_attribute, tally.sample)


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
    state = HELD if job.late == "hold" else EXPIRED
    sifted.held += late.height if job.late == "hold" else 0
    sifted.expired += late.height if job.late == "drop" else 0
    sifted.found += [
        _found(_unnamed(bad, job.seed)),
        _found(future, reason=FUTURE),
        _found(oversize, reason=LARGE),
        _found(late, reason=OLD, state=state),
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
        built = events(rows, mapping.attributes, with_id=False)
        rows = rows.with_columns(derived_ids(rows[KEY] + "\n" + built).alias(ID), built)
    named = rows[NAME] + "\n" + rows[ID] if mapping.name_column else rows[ID]
    return rows.hstack(identities(named, job.seed))


def _judged(rows: pl.DataFrame, job: EventJob) -> pl.DataFrame:
    """The events with `#verdict`, `#late` and `#alone`."""
    none = pl.Series(np.zeros(rows.height, np.bool_))
    flags = pl.DataFrame([
        (none if job.resend else job.ledger.sent(rows)).alias("sent"),
        (none if job.resend or job.retry else _among(rows, job.held)).alias("held"),
        _among(rows, job.alone).alias(_ALONE),
        (rows[TIME] > job.now).fill_null(value=False).alias("future"),
        (rows[TIME] < job.now - AGE_MAX + AGE_MARGIN).fill_null(value=False).alias(LATE),
    ])  # fmt: skip
    verdict = (
        pl.when("sent").then(pl.lit(_Verdict.SENT))
        .when("held").then(pl.lit(_Verdict.HELD))
        .when("future").then(pl.lit(_Verdict.FUTURE))
        .when(pl.col(LATE) & pl.lit(job.late != "restamp")).then(pl.lit(_Verdict.LATE))
        .otherwise(pl.lit(_Verdict.GO))
    )  # fmt: skip
    return rows.with_columns(flags.select(verdict.alias(_VERDICT), _ALONE, LATE))


def _among(rows: pl.DataFrame, ids: Ids) -> pl.Series:
    return pl.Series(among(Ids(rows[HI].to_numpy(), rows[LO].to_numpy()), [ids]))


def _built(going: pl.DataFrame, job: EventJob) -> pl.DataFrame:
    """The events with their JSON; of a derived id it was made already, but for events that are sent as of now."""
    if EVENT in going.columns and not going[LATE].any():
        return going
    return going.with_columns(events(going, job.mapping.attributes, with_id=job.mapping.id is not None))


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
            key_hashes(going[KEY], self._job.seed), KEY, TIME, ID, HI, LO, LATE, _ALONE, self._has(), EVENT
        ).with_row_index(_ORDER, offset=self._rows)
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
        return pl.sum_horizontal(pl.lit(0, pl.UInt64), *present).alias(_HAS)


def _choose(spool: _Spool, limit: int | None, sifted: Sifted) -> None:
    """Of the candidates those that go: each event once, and no more than the limit, the oldest first."""
    marks = (
        pl.concat(spool.marks) if spool.marks else pl.DataFrame(schema={HI: pl.UInt64, LO: pl.UInt64, TIME: pl.Int64})
    )
    high, low = marks[HI].to_numpy(), marks[LO].to_numpy()
    time = marks[TIME].fill_null(0).to_numpy()
    chosen = np.ones(len(marks), np.bool_)
    if marks[HI].n_unique() < len(high):  # hashes, so it is by a repeated event as good as always
        order = np.lexsort((time, low, high))
        again = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
        chosen[order[1:][again]] = False
        sifted.already_sent += int(again.sum())
    if limit is not None and chosen.sum() > limit:
        order = np.lexsort((high, time))
        rest = order[chosen[order]][limit:]
        chosen[rest] = False
        sifted.skipped += len(rest)
    sifted.chosen = chosen


class _Tally:
    """What is known of the operations once they have streamed to disk."""

    def __init__(self, names: Sequence[str]) -> None:
        self.events = 0
        self.by_attribute = dict.fromkeys(names, 0)
        self.sample: list[str] = []
        self.sizes: list[pl.DataFrame] = [pl.DataFrame(schema=_SIZES)]

    def frames(self, sifted: Sifted, folder: Path) -> Iterator[pl.DataFrame]:
        """The outbox's frames: every profile's first operation, then every profile's second, and so on."""
        later: dict[int, list[Path]] = {}
        for number in range(ranges := max(1, -(-sifted.bytes // RANGE_BYTES))):
            for wave, operations in _operations(self._counted(_range(sifted, number, ranges))):
                if wave == 0:
                    yield from map(self._noted, operations.iter_slices(BUILD_ROWS))
                    continue
                path = folder / f"wave-{wave:06d}-{number:06d}.arrow"
                with translated(folder):
                    operations.write_ipc(path)
                later.setdefault(wave, []).append(path)
        for wave in sorted(later):
            for path in later[wave]:
                yield from map(self._noted, pl.read_ipc(path).iter_slices(BUILD_ROWS))

    def _counted(self, going: pl.DataFrame) -> pl.DataFrame:
        self.events += going.height
        for bit, name in enumerate(self.by_attribute):
            self.by_attribute[name] += int(((going[_HAS] // (1 << bit)) % 2).sum())
        return going

    def _noted(self, operations: pl.DataFrame) -> pl.DataFrame:
        self.sizes.append(operations.select(pl.col(OPERATION).str.len_bytes().alias("bytes"), _WAVE, _CLOSES))
        self.sample += operations[KEY].head(10 - len(self.sample)).to_list()
        return operations.select(KEY, OPERATION, HIS, LOS, IDS, TIMES)


def _range(sifted: Sifted, number: int, ranges: int) -> pl.DataFrame:
    """The chosen events of one range of profiles, by profile and time. Each part's share of it is one slice."""
    low, high = (number << 64) // ranges, ((number + 1) << 64) // ranges
    shares = []
    for part in sifted.spool:
        rows = part if isinstance(part, pl.DataFrame) else pl.read_ipc(part)  # mapped: only the slice is read
        hashes = rows[KEY_HASH].to_numpy()
        start = int(np.searchsorted(hashes, np.uint64(low)))
        end = len(hashes) if number + 1 == ranges else int(np.searchsorted(hashes, np.uint64(high)))
        shares.append(rows.slice(start, end - start))
    if not shares:
        return pl.DataFrame(schema={_HAS: pl.UInt64})
    going = pl.concat(shares)
    going = going.filter(pl.Series(sifted.chosen[going[_ORDER].to_numpy()]))
    return going.sort(KEY_HASH, KEY, TIME, HI)


def _operations(going: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Wave by wave the operations of these events, the oldest first; `going` is sorted by profile and time.

    A profile's events share an operation, at most EVENTS_MAX of them, as a custom ID is one update whatever it carries.
    """
    if not going.height:
        return
    starts, waves = _starts(going)
    ends = np.append(starts[1:], going.height)
    offsets = pa.array(np.append(starts, going.height), pa.int64())

    def listed(column: str) -> pl.Series:
        values = going[column].to_arrow(compat_level=pl.CompatLevel.oldest())
        return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values)))

    closes = pl.select(pl.when(~going[LATE]).then((going[TIME] + AGE_MAX) / 1000).fill_null(np.inf)).to_series()
    first = going[starts]
    operations = pl.DataFrame([
        first[KEY],
        event_operations(first[KEY], _joined(going[EVENT], starts, ends)),
        listed(HI).alias(HIS), listed(LO).alias(LOS), listed(ID).alias(IDS), listed(TIME).alias(TIMES),
        pl.Series(_CLOSES, np.minimum.reduceat(closes.to_numpy(), starts)),
        pl.Series(_WAVE, waves.astype(np.int32)),
        first[TIME].alias(_FIRST),
    ])  # fmt: skip
    operations = operations.sort(_WAVE, _FIRST, maintain_order=True).drop(_FIRST)
    bounds = np.append(0, np.cumsum(np.bincount(waves)))
    for wave, (start, end) in enumerate(pairwise(bounds.tolist())):
        yield wave, operations.slice(start, end - start)


def _starts(going: pl.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each operation begins, and which of its profile's operations it is, from 0."""
    place = np.arange(going.height)
    other = going.select((pl.col(KEY) != pl.col(KEY).shift()).fill_null(value=True)).to_series().to_numpy()
    alone = going[_ALONE].to_numpy()
    cut = other | alone | np.append(False, alone[:-1])
    within = place - np.maximum.accumulate(np.where(cut, place, 0))
    begins = within % EVENTS_MAX == 0
    number = np.cumsum(begins) - 1
    profile_begins = np.maximum.accumulate(np.where(other, number, 0))
    return place[begins], (number - profile_begins)[begins]


def _joined(texts: pl.Series, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> pl.Series:
    """The texts of each stretch with commas between: stretches of one buffer, in which each text ends in a comma."""
    column = (texts + ",").to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    bounds = pa.array(np.append(offsets[starts], offsets[ends[-1]]), pa.int64())
    joined = pa.LargeStringArray.from_buffers(len(starts), bounds.buffers()[1], column.buffers()[2])
    return pl.Series(EVENT, pl.from_arrow(joined)).str.strip_suffix(",")


__all__ = ["ALONE", "EXPIRED", "HELD", "EventJob", "EventSet", "Sifted", "build", "sift"]
