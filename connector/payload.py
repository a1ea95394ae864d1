"""From decided rows to request bodies: this is where the JSON that Batch receives is built."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from connector.changes import SEND
from connector.mapping import KEY, Attribute

OPERATION = "#operation"

BODY_BYTES_MAX = 4_000_000
"""Bytes of one request body. Batch documents no maximum: this one is ours, to stay clear of common gateways' 10 MB."""


class Chunk(NamedTuple):
    """Consecutive rows of an outbox that travel in one request.

    Attributes:
        first: The first row's number in the outbox, from 0.
        rows: How many, at least 1.
        bytes: Length of the request body.
    """

    first: int
    rows: int
    bytes: int


def operations(rows: pl.DataFrame, attributes: Sequence[Attribute]) -> pl.Series:
    """One update operation a row, as JSON text: `{"identifiers":{"custom_id":…},"attributes":{…}}`.

    A value is sent as itself, a null as `null` (Batch clears it), and an attribute whose bit is not set in `#send` is
    absent (Batch keeps it).

    Args:
        rows: `#key`, `#send` and each attribute's value.
        attributes: In the order of the bits of `#send`.
    """
    fields = [
        pl.when((pl.col(SEND) // (1 << bit)) % 2 == 1).then(
            _member(attribute.json_key, _wire(rows.schema[attribute.name], attribute.name))
        )
        for bit, attribute in enumerate(attributes)
    ]
    operation = pl.concat_str(
        pl.lit('{"identifiers":{'), _member("custom_id", pl.col(KEY)), pl.lit('},"attributes":{'),
        pl.concat_str(*fields, separator=",", ignore_nulls=True), pl.lit("}}"),
    )  # fmt: skip
    return rows.select(operation.alias(OPERATION)).to_series()


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


def _wire(dtype: pl.DataType, name: str) -> pl.Expr:
    """Dates as RFC 3339 in UTC, whole seconds where nothing would be lost; all else as it is."""
    value = pl.col(name)
    if not isinstance(dtype, pl.Datetime):
        return value
    whole = value.dt.millisecond() == 0
    return (
        pl.when(whole)
        .then(value.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
        .otherwise(value.dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ"))
    )
