"""Reads an event sync's source as it is due this time and drafts what has to be sent; sends nothing."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from connector.api import profiles
from connector.config import EventSync
from connector.errors import WarehouseError
from connector.event_grouping import EventSet, build
from connector.event_mapping import ID as EVENT
from connector.event_mapping import TIME, EventColumns, EventMapping, marks, resolve
from connector.event_planning import AGE_MAX, ALONE, FUTURE, HELD, IN_DOUBT, EventJob, Sifted, sift
from connector.hashing import HI, LO
from connector.mapping import KEY
from connector.payload import Chunk
from connector.reading import since_then
from connector.report import Report, Seconds
from connector.state import runs
from connector.state.database import State
from connector.state.ids import Ids, ordered
from connector.state.ledger import Ledger
from connector.task import Progress, Task, named, tags, told
from connector.warehouses._base import Changes, Keys, Reader, Window

logger = logging.getLogger(__name__)

LOOKED_AT_DAYS = 2
"""How long an event that could not be sent is looked up again, whatever its cursor says; by then it is too old."""

PROFILES_MAX = 200
"""Profiles of one call with events, on either endpoint: when nobody knows whether it arrived, all of it is in doubt."""

MARGIN_SECONDS = 3600.0
"""Time left for the oldest event below which a run says so."""

AGAIN_MAX = 200_000
"""Events that are looked up one by one; for more the whole source is read."""


@dataclass(frozen=True, slots=True)
class EventReading:
    """How the source is read this time.

    Attributes:
        full: The whole source.
        until: Upper end of what is read, by the warehouse's clock; the cursor's next start.
        rows: What is read of it; None: all.
        again: Listed events to look up whatever their cursor says (LISTED_SCHEMA).
        asked: Only a part, on the operator's word: the cursor stays.
        keys: Of the window only these profiles; empty for all.
        scope: What the cursor's position is good for.
    """

    full: bool
    until: datetime
    rows: Window | Changes | Keys | None
    again: pl.DataFrame
    asked: bool = False
    keys: tuple[str, ...] = ()
    scope: str = ""

    @property
    def by_cursor(self) -> bool:
        """What is not sent is read again by the cursor; of any other reading it may lie behind it."""
        return not self.full and not self.asked


@dataclass(frozen=True, slots=True)
class EventDraft:
    """What a run would do, with all that delivery and commit need.

    Attributes:
        reading: How the source was read.
        sifted: What became of each of its rows.
        events: What has to be sent, on disk.
        chunks: Its requests.
        endpoint: The one they go to.
        recipe: What an event's identity is made of: of another recipe, events that were sent would look new.
        discarded: Events that were held and are so no longer (LISTED_SCHEMA).
        report: The counts so far.
        read_bytes: That the read was to be billed for, where this is a plan and the warehouse bills them.
    """

    reading: EventReading
    sifted: Sifted
    events: EventSet
    chunks: list[Chunk]
    endpoint: profiles.Endpoint
    recipe: str
    discarded: pl.DataFrame
    report: Report
    read_bytes: int | None

    @property
    def attributes(self) -> dict[str, str]:
        """What a takeover needs to know beside the outbox."""
        return {"recipe": self.recipe, "by_cursor": "yes" if self.reading.by_cursor else ""}

    @property
    def outbox(self) -> Path:
        """The operations' file."""
        return self.events.path

    @property
    def by_attribute(self) -> dict[str, int]:
        """Rows whose request holds it, by attribute name."""
        return self.events.by_attribute

    @property
    def sample(self) -> list[str]:
        """A few keys."""
        return self.events.sample

    @property
    def faulty(self) -> int:
        """Rows that are invalid or have a value withheld."""
        return self.sifted.faulty


def draft(
    task: Task[EventSync], state: State, ledger: Ledger, report: Report, progress: Progress, *, plans: bool = False
) -> EventDraft:
    """Read the source and write the operations, in the outbox under the report's run.

    Raises:
        WarehouseError: The source cannot be read, or not become what the mapping asks.
        StateError: The ledger is damaged, or the disk is full.
    """
    sync, options, start = task.sync, task.options, time.monotonic()
    listed = ledger.listed()
    waiting = listed.filter((pl.col("state") == HELD) & (pl.col("attribute") == ""))
    outbox = runs.outbox(state, report.run)
    memory = task.project.settings.memory // 2  # the other half is ours
    spill = outbox.with_suffix(".spool")
    opened = task.project.warehouse(sync).open(task.project.root, memory=memory, spill=spill, tags=tags(report))
    with named(sync), opened as reader:
        columns = reader.columns(sync.source.relation)
        mapping = resolve(columns, wanted(sync), sync.attributes, timezone=sync.source.timezone)
        now = datetime.fromtimestamp(time.time(), UTC)
        named_by = "id" if mapping.id_column else "key"
        again = _again(listed.filter(pl.col(named_by) != ""), now, options.retry_held)
        reading = _how_to_read(task, reader.now(), ledger, mapping, again)
        job = EventJob(
            mapping=mapping,
            ledger=ledger,
            held=_ids(waiting),
            alone=_ids(_refused(listed, options.retry_held)),
            seed=state.seed,
            now=_milliseconds(now),
            late="restamp" if options.adopt else sync.late,  # however old, it is taken as delivered
            resend=options.resend,
            retry=options.retry_held or options.adopt,
            discard=options.discard_held,
            limit=options.limit,
        )
        billed = reader.estimate(sync.source.relation, mapping.columns, reading.rows) if plans else None
        batches = _batches(task, reader, mapping, reading, _milliseconds(now) - AGE_MAX)
        sifted = sift(told(batches, progress), job, spill)
    read_seconds = time.monotonic() - start
    progress("diff", 0, None)
    events = build(sifted, job, outbox)
    shutil.rmtree(spill, ignore_errors=True)
    progress("diff", events.events, events.events)
    endpoint = profiles.choose(sync.endpoint, events.sizes.height)
    most = profiles.limit(task.project.settings.batch.limits, endpoint).per_call
    chunks = events.chunks(min(most, PROFILES_MAX))
    first = min((chunk.closes for chunk in chunks if chunk.closes is not None), default=None)
    total = time.monotonic() - start
    seconds = Seconds(read=read_seconds, diff=total - read_seconds, total=total)
    discarded = waiting if options.discard_held else waiting.clear()
    margin = None if first is None else first - now.timestamp()
    if margin is not None and margin < MARGIN_SECONDS:
        logger.warning("sync %s: the oldest event can be sent for %.0f minutes more", sync.name, margin / 60)
    judged_again = options.discard_held or options.retry_held or options.resend or options.adopt
    undecided = sifted.held + (0 if judged_again else waiting.height)
    begun = replace(report, full=reading.full, margin=margin, undecided=undecided, seconds=seconds)
    counted = _counted(begun, sifted, events, discarded)
    return EventDraft(reading, sifted, events, chunks, endpoint, _recipe(sync, mapping), discarded, counted, billed)


def wanted(sync: EventSync) -> EventColumns:
    """Where the sync's YAML finds what makes an event."""
    return EventColumns(
        key=sync.key,
        name=sync.event if isinstance(sync.event, str) else None,
        name_column=None if isinstance(sync.event, str) else sync.event.column,
        time=sync.time,
        time_optional="time" not in sync.model_fields_set and sync.partitions is None,
        id=sync.id,
        cursor=sync.cursor.column if sync.cursor else None,
        restamp=sync.late == "restamp",
    )


def _counted(report: Report, sifted: Sifted, events: EventSet, discarded: pl.DataFrame) -> Report:
    """The counts so far. Held events that are let go count as read, planned and expired, found in the source or not."""
    waiting = pl.concat([pl.DataFrame(schema=discarded.select(HI, LO).schema), *sifted.waiting])
    seen, gone = waiting.height, discarded.height - waiting.n_unique()
    held = sifted.held + (0 if discarded.height else seen)
    expired = sifted.expired + (seen + gone if discarded.height else 0)
    read = sifted.read + (gone if discarded.height else 0)
    return replace(
        report,
        read=read,
        already_sent=sifted.already_sent,
        invalid=sifted.invalid,
        withheld=sifted.withheld,
        skipped=sifted.skipped,
        held=held,
        expired=expired,
        planned=events.events + held + expired,
        known=read,
        notes=_notes(sifted),
    )


def _notes(sifted: Sifted) -> tuple[str, ...]:
    if not sifted.repeated:
        return ()
    what = "an event is one by its id and name, whoever it is about"
    return (f"rows of an event that another row of this read has: {sifted.repeated}; each event is sent once ({what})",)


def _how_to_read(
    task: Task[EventSync], now: datetime, ledger: Ledger, mapping: EventMapping, again: pl.DataFrame
) -> EventReading:
    """The events of a window or of keys that were asked for, what is new by the cursor, or the whole source."""
    sync, options, cursor = task.sync, task.options, task.sync.cursor
    until = now - (cursor.lag if cursor else timedelta())
    nothing = again.clear()
    if options.window:
        if mapping.time_column is None:
            raise WarehouseError(
                f"the source has no column '{sync.time}' that tells when an event happened",
                remedy="name it under time, or leave --window and partitions out",
            )
        rows = Window(mapping.time_column, *options.window, sync.source.timezone)
        return EventReading(full=False, until=until, rows=rows, again=nothing, asked=True, keys=options.keys)
    if options.keys:
        keys = Keys(mapping.key_column, tuple(dict.fromkeys(options.keys)))
        return EventReading(full=False, until=until, rows=keys, again=nothing, asked=True)
    last, scope = ledger.manifest.get("cursor"), _scope(sync)
    whole = options.full or options.resend or options.adopt or again.height > AGAIN_MAX
    if not cursor or not last or last["scope"] != scope or whole:
        return EventReading(full=True, until=until, rows=None, again=nothing, scope=scope)
    new = since_then(sync, last["value"], until, key=None)
    return EventReading(full=new is None, until=until, rows=new, again=again if new else nothing, scope=scope)


def _refused(listed: pl.DataFrame, retry_held: bool) -> pl.DataFrame:  # noqa: FBT001 - the operator's word
    """Entries of events that Batch refused, perhaps with others: each goes alone next time: its answer is clear."""
    several = (pl.col("state") == HELD) & (pl.col("source") == "rejected") & (pl.col("reason") != IN_DOUBT)
    return listed.filter((pl.col("state") == ALONE) | (pl.lit(retry_held) & several))


def _again(listed: pl.DataFrame, now: datetime, retry_held: bool) -> pl.DataFrame:  # noqa: FBT001 - the operator's word
    """Listed events to look up: refused or invalid ones that may be mended in time, future ones, held ones if asked."""
    recent = pl.col("first_seen") >= now.timestamp() - LOOKED_AT_DAYS * 86_400
    invalid = (pl.col("state") == "") & (pl.col("source") == "invalid")
    waits = (pl.col("state") == ALONE) | (pl.col("reason") == FUTURE)
    due = waits | (recent & invalid) | (pl.lit(retry_held) & (pl.col("state") == HELD))
    return listed.filter((pl.col("attribute") == "") & due)


def _batches(
    task: Task[EventSync], reader: Reader, mapping: EventMapping, reading: EventReading, oldest: int
) -> Iterator[pl.DataFrame]:
    """Record batches in which no row comes twice: the events to look up, then what is read anyway without them."""
    relation, again = task.sync.source.relation, reading.again
    by_id = mapping.id_column is not None
    names = again["id" if by_id else "key"].unique()
    column = mapping.id_column or mapping.key_column
    # By key come all events of a profile: of those that nobody asked for only what Batch would still take.
    asked = (pl.col(TIME) >= oldest) | pl.col(TIME).is_in(again["time"].drop_nulls().implode())
    looked_up = pl.col(EVENT if by_id else KEY).is_in(names.implode()).fill_null(value=False)
    looked_up &= pl.lit(by_id) | asked.fill_null(value=True)
    if len(names):
        for batch in reader.read(relation, mapping.columns, Keys(column, names.to_list())):
            yield batch.filter(marks(mapping, batch).select(looked_up).to_series())
    kept = _asked_for(task, reading) if reading.asked else ~looked_up
    for batch in reader.read(relation, mapping.columns, reading.rows):
        yield batch.filter(marks(mapping, batch).select(kept).to_series()) if reading.asked or len(names) else batch


def _asked_for(task: Task[EventSync], reading: EventReading) -> pl.Expr:
    """Of what the warehouse gives for a window, which may be more, the events of that window, and of those keys."""
    kept = pl.lit(value=True)
    if task.options.window:
        since, until = (_milliseconds(end) for end in task.options.window)
        kept &= (pl.col(TIME) >= since) & (pl.col(TIME) < until)
    if reading.keys:
        kept &= pl.col(KEY).is_in(reading.keys)
    return pl.repeat(value=True, n=pl.len()) & kept.fill_null(value=False)


def _scope(sync: EventSync) -> str:
    """16 hexadecimal digits that change with whatever decides which rows are read."""
    parts = sync.model_dump(mode="json", include={"warehouse", "source"})
    cursor = (sync.cursor.column or sync.cursor.feed) if sync.cursor else None
    return _digest([parts, sync.source.relation, cursor])


def _recipe(sync: EventSync, mapping: EventMapping) -> str:
    """16 hexadecimal digits that change with what an event's identity is made of."""
    if mapping.id_column:
        return _digest(["id", mapping.id_column, mapping.name_column])
    attributes = sorted((attribute.json_key, attribute.type, attribute.column) for attribute in mapping.attributes)
    name = sync.event if isinstance(sync.event, str) else None
    columns = [mapping.key_column, name, mapping.name_column, mapping.time_column, sync.source.timezone]
    return _digest(["row", *columns, attributes])


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _ids(listed: pl.DataFrame) -> Ids:
    return ordered(listed[HI].to_numpy(), listed[LO].to_numpy())


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


__all__ = ["EventDraft", "EventReading", "draft", "wanted"]
