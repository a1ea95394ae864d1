"""What became of each row of an outbox, as its chunks tell it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.state.runs import ChunkRow

UNSENT, ACCEPTED, UNKNOWN, REFUSED, UNVERIFIED = range(5)

_OUTCOMES = {
    "done": ACCEPTED,
    "planned": UNSENT,
    "sent": UNKNOWN,
    "unknown": UNKNOWN,
    "unverified": UNVERIFIED,
    "refused": REFUSED,
}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The state of every row of an outbox, as arrays of its length.

    Attributes:
        outcome: UNSENT, ACCEPTED (but for refusals), UNKNOWN, UNVERIFIED (answered as if applied, in words we cannot
            trust), or REFUSED: nothing of it was applied.
        settled_at: When, in seconds since 1970.
        unknown_at: The last attempt whose outcome is unknown, by `State.now`; 0: there was none.
        refusals: `row` (Int64), `attribute` (String, null: the operation, or an event of it), `reason` (String).
    """

    outcome: npt.NDArray[np.int8]
    settled_at: npt.NDArray[np.float64]
    unknown_at: npt.NDArray[np.float64]
    refusals: pl.DataFrame = field(repr=False)


def outcomes(chunks: Sequence[ChunkRow], now: float) -> Outcomes:
    """The outcomes of a run's rows, from its chunks in order.

    Args:
        chunks: From `runs.chunk_rows`.
        now: By `State.now`: a chunk left `sent` by a kill may have been applied at any moment until then.
    """
    rows = np.array([chunk.rows for chunk in chunks], np.int64)
    today = time.time()
    parts = [(chunk, length, state) for chunk in chunks for length, state in _parts(chunk)]
    lengths = [length for _, length, _ in parts]
    refusals = [
        (chunk.first + row, attribute, reason) for chunk in chunks for row, attribute, reason in chunk.refusals or ()
    ]
    schema = {"row": pl.Int64, "attribute": pl.String, "reason": pl.String}
    return Outcomes(
        outcome=np.repeat(np.array([_OUTCOMES[state] for _, _, state in parts], np.int8), lengths),
        settled_at=np.repeat(np.array([chunk.settled_at or today for chunk in chunks], np.float64), rows),
        unknown_at=np.repeat(np.array([_doubt(chunk, state, now) for chunk, _, state in parts], np.float64), lengths),
        refusals=pl.DataFrame(refusals, schema=schema, orient="row"),
    )


def _doubt(chunk: ChunkRow, state: str, now: float) -> float:
    """When a request with these rows was last sent without an answer to believe; 0: never."""
    if state == "sent":
        return now
    return chunk.unknown_at or (now if state in ("unknown", "unverified") else 0.0)


def _parts(chunk: ChunkRow) -> Iterator[tuple[int, str]]:
    """Rows and state of the chunk's parts."""
    if chunk.parts:
        yield from ((rows, state) for _, rows, state in chunk.parts)
    else:
        yield chunk.rows, chunk.state
