"""From decided rows to request bodies: this is where the JSON that Batch receives is built."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from connector.changes import SEND
from connector.event_mapping import EVENT_ID, ID, NAME, OCCURRED_AT, TIME, EventAttribute
from connector.mapping import KEY, Attribute

OPERATION = "#operation"
_ROW = "#row"
EVENT = "#event"

LATE = "#late"
"""Boolean: the event is sent as if it happened now, with its real time as an attribute."""

_ALIKE = 500
"""Rows from which on those that send the same attributes are written apart."""

EVENTS_MAX = 15
"""Events of one operation. Source: Batch's update page as third parties read it."""

EVENT_BYTES_MAX = 25_000
"""Bytes of one event's JSON. Same source; whether it counts bytes or characters is unknown, bytes are the larger."""

BODY_BYTES_MAX = 4_000_000
"""Bytes of one request body. Batch documents no maximum: this one is ours, to stay clear of common gateways' 10 MB."""


class Chunk(NamedTuple):
    """Consecutive rows of an outbox that travel in one request.

    Attributes:
        first: The first row's number in the outbox, from 0.
        rows: How many, at least 1.
        bytes: Length of the request body.
        wave: Chunks of one wave may be in flight together; a later wave's leave when all of it is acknowledged.
        closes: When Batch stops taking its oldest event, in seconds since 1970; None: never.
    """

    first: int
    rows: int
    bytes: int
    wave: int = 0
    closes: float | None = None


def operations(rows: pl.DataFrame, attributes: Sequence[Attribute]) -> pl.Series:
    """One update operation a row, as JSON text: `{"identifiers":{"custom_id":…},"attributes":{…}}`.

    A value is sent as itself, a null as `null` (Batch clears it), and an attribute whose bit is not set in `#send` is
    absent (Batch keeps it).

    Args:
        rows: `#key`, `#send` and each attribute's value.
        attributes: In the order of the bits of `#send`.
    """
    alike = rows[SEND].value_counts().filter(pl.col("count") >= _ALIKE)[SEND]
    numbered = rows.with_row_index(_ROW)
    parts = [_operations(numbered.filter(pl.col(SEND) == send), _together(rows, attributes, send)) for send in alike]
    others = numbered.filter(~pl.col(SEND).is_in(alike.implode()))
    parts.append(_operations(others, _one_by_one(rows, attributes)))
    return pl.concat(parts).sort(_ROW)[OPERATION]


def _operations(numbered: pl.DataFrame, values: pl.Expr) -> pl.DataFrame:
    operation = pl.concat_str(
        pl.lit('{"identifiers":{'), _member("custom_id", pl.col(KEY)), pl.lit('},"attributes":'), values, pl.lit("}")
    )
    return numbered.select(_ROW, operation.alias(OPERATION))


def _together(rows: pl.DataFrame, attributes: Sequence[Attribute], send: int) -> pl.Expr:
    """The attributes of rows that all send the same ones, written at once: half the work."""
    due = [attribute for bit, attribute in enumerate(attributes) if (send >> bit) & 1]
    fields = (_wire(rows.schema[each.name], each.name).alias(each.json_key) for each in due)
    return pl.struct(fields).struct.json_encode() if due else pl.lit("{}")


def _one_by_one(rows: pl.DataFrame, attributes: Sequence[Attribute]) -> pl.Expr:
    fields = [
        pl.when((pl.col(SEND) // (1 << bit)) % 2 == 1).then(
            _member(attribute.json_key, _wire(rows.schema[attribute.name], attribute.name))
        )
        for bit, attribute in enumerate(attributes)
    ]
    return pl.concat_str(pl.lit("{"), pl.concat_str(*fields, separator=",", ignore_nulls=True), pl.lit("}"))


def events(rows: pl.DataFrame, attributes: Sequence[EventAttribute], *, with_id: bool) -> pl.Series:
    """One event a row, as JSON text: `{"name":…,"time":…,"attributes":{…}}`; what is null is left out.

    Args:
        rows: `#name`, `#time`, `#id`, `#late` and each attribute's value. A late event has no `time`, so that Batch
            takes the time of reception, and its own as `date(occurred_at)`.
        attributes: The attributes to send.
        with_id: Whether `#id` goes as the attribute `event_id`.
    """
    time = pl.col(TIME).cast(pl.Datetime("ms", "UTC"))
    late = pl.col(LATE)
    fields = [
        *([_member(EVENT_ID, pl.col(ID))] if with_id else []),
        *(
            pl.when(pl.col(attribute.name).is_not_null()).then(_event_member(attribute, rows.schema[attribute.name]))
            for attribute in attributes
        ),
        pl.when(late).then(_member(f"date({OCCURRED_AT})", _rfc3339(time))),
    ]
    joined = pl.concat_str(*fields, separator=",", ignore_nulls=True)
    event = pl.concat_str(
        pl.lit('{"name":"'), NAME, pl.lit('"'),  # a name is a-z, 0-9 and _ alone
        pl.when(~late).then(pl.concat_str(pl.lit(',"time":"'), _rfc3339(time), pl.lit('"'))),
        pl.lit(',"attributes":{'), joined, pl.lit("}}"), ignore_nulls=True,
    )  # fmt: skip
    return rows.select(event.alias(EVENT)).to_series()


def event_operations(keys: pl.Series, events: pl.Series) -> pl.Series:
    """One update operation a row, as JSON text: `{"identifiers":{"custom_id":…},"events":[…]}`.

    Args:
        keys: The custom IDs.
        events: Each profile's events in order, as JSON text with commas between.
    """
    operation = pl.concat_str(
        pl.lit('{"identifiers":{'), _member("custom_id", pl.col(KEY)), pl.lit('},"events":['), EVENT, pl.lit("]}")
    )
    return pl.DataFrame([keys.alias(KEY), events.alias(EVENT)]).select(operation.alias(OPERATION)).to_series()


def body(operations: pl.Series) -> bytes:
    """The request body of a chunk: a JSON array of its operations, UTF-8."""
    return f"[{operations.str.join(',').item()}]".encode()


def chunks(
    lengths: "np.typing.NDArray[np.int64]", *, max_profiles: int, max_bytes: int = BODY_BYTES_MAX
) -> Iterator[Chunk]:
    """Group operations, in order, into bodies within both limits; an operation too long for any body goes alone.

    Args:
        lengths: Bytes of each operation.
        max_profiles: Operations of one call.
        max_bytes: Bytes of a whole body.
    """
    ends = np.cumsum(lengths + 1)  # each operation and its comma; the two brackets weigh one comma more
    first = 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        fitting = int(np.searchsorted(ends, before + max_bytes - 1, side="right"))
        end = max(first + 1, min(fitting, first + max_profiles))
        yield Chunk(first, end - first, int(ends[end - 1]) - before + 1)
        first = end


def _member(name: str, value: pl.Expr) -> pl.Expr:
    """`"name":value`, escaped by Polars' own JSON writer."""
    return pl.struct(value.alias(name)).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")


def _event_member(attribute: EventAttribute, dtype: pl.DataType) -> pl.Expr:
    """As `_member`; what is nested is JSON text already."""
    if attribute.type == "object":
        return pl.concat_str(pl.lit(f'"{attribute.json_key}":'), attribute.name)
    return _member(attribute.json_key, _wire(dtype, attribute.name))


def _wire(dtype: pl.DataType, name: str) -> pl.Expr:
    """Dates as RFC 3339 in UTC; all else as it is."""
    return _rfc3339(pl.col(name)) if isinstance(dtype, pl.Datetime) else pl.col(name)


def _rfc3339(moment: pl.Expr) -> pl.Expr:
    """Whole seconds where nothing would be lost, else milliseconds."""
    whole = moment.dt.millisecond() == 0
    return (
        pl.when(whole)
        .then(moment.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
        .otherwise(moment.dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ"))
    )
