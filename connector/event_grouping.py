"""Groups events by profile into operations, in sending order: every profile's first operation, then its second."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from connector import event_planning, payload
from connector.event_mapping import ID, TIME
from connector.event_planning import AGE_MAX, APART, HAS, ORDER, EventJob, Sifted
from connector.hashing import HI, KEY_HASH, LO
from connector.mapping import KEY
from connector.payload import EVENT, EVENTS_MAX, LATE, OPERATION, Chunk, event_operations
from connector.state.database import translated
from connector.state.files import read_arrow, write_frames

BUILD_ROWS = 10_000
"""Operations of one row group of the outbox."""

IDS, TIMES, HIS, LOS = "#ids", "#times", "#his", "#los"
"""Columns of the outbox that say which events an operation holds, one list item an event."""

_WAVE, _FIRST, _CLOSES = "#wave", "#first", "#closes"
_SIZES = pl.Schema({"bytes": pl.UInt32(), _WAVE: pl.Int32(), _CLOSES: pl.Float64()})


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
        for number in range(ranges := max(1, -(-sifted.bytes // event_planning.RANGE_BYTES))):
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
                yield from map(self._noted, read_arrow(path).iter_slices(BUILD_ROWS))

    def _counted(self, going: pl.DataFrame) -> pl.DataFrame:
        self.events += going.height
        for bit, name in enumerate(self.by_attribute):
            self.by_attribute[name] += int(((going[HAS] // (1 << bit)) % 2).sum())
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
        rows = part if isinstance(part, pl.DataFrame) else read_arrow(part)  # mapped: only the slice is read
        hashes = rows[KEY_HASH].to_numpy()
        start = int(np.searchsorted(hashes, np.uint64(low)))
        end = len(hashes) if number + 1 == ranges else int(np.searchsorted(hashes, np.uint64(high)))
        shares.append(rows.slice(start, end - start))
    if not shares:
        return pl.DataFrame(schema={HAS: pl.UInt64})
    going = pl.concat(shares)
    going = going.filter(pl.Series(sifted.chosen[going[ORDER].to_numpy()]))
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
    alone = going[APART].to_numpy()
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


__all__ = ["EventSet", "build"]
