"""What a warehouse must be able to do: one narrow interface, plain values in and out."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import Field

from connector._model import Model
from connector.errors import WarehouseError
from connector.export_tables import POSITION, ColumnType, TargetColumn
from connector.mapping import Column
from connector.warehouses._grants import Needs

if TYPE_CHECKING:
    from connector.warehouses._differ import Differ

RECORD_BATCH_ROWS = 50_000
"""Rows of one record batch: large enough to be columnar, small enough to bound memory."""

_MINUTE = timedelta(minutes=1)


class Relation(NamedTuple):
    """What is read: a table by name, or the text of one SELECT. Exactly one of the two is set."""

    table: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Rows whose cursor lies in the half-open interval [since, until), both aware; None: from the start."""

    column: str
    since: datetime | None
    until: datetime
    timezone: str = "UTC"
    """The zone of naive cursor columns."""

    def wall_times(self) -> tuple[datetime | None, datetime]:
        """`since` and `until` for a naive cursor column: the zone's wall times, without a zone.

        Where clocks go back, an hour's wall times come twice: until they came the second time the bound stays
        before them, so that windows in a row miss no row (some rows come in a later window).
        """
        zone = ZoneInfo(self.timezone)
        return self.since and _wall_time(self.since, zone), _wall_time(self.until, zone)


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that were written in [since, until), both aware, by the warehouse's own record of it.

    With a `key`: today's rows of every value of that column among what was written, removed or changed, however
    often. Without one: the rows that were added, as they were then.
    """

    key: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Keys:
    """Rows whose key, written as text the way the mapping writes it, is among `values`."""

    column: str
    values: Sequence[str]


class Latest(NamedTuple):
    """The columns by which the newest row of a key is told."""

    key: str
    cursor: str


class Reader(Protocol):
    """An open connection that only reads. One thread at a time."""

    def columns(self, relation: Relation) -> list[Column]:
        """The columns of the relation, in its order, without reading rows.

        Raises:
            WarehouseError: There is no such table, or the query is wrong.
        """

    def now(self) -> datetime:
        """The warehouse's own clock, aware, in UTC."""

    def stamp(self, relation: Relation) -> str | None:
        """A text that changes whenever the relation's rows or columns may have changed; reads no row.

        While a stamp is the one taken before a read, that read would find the same again. It may change for less: of a
        change that is none, nobody takes harm.

        Returns:
            None where that cannot be told: of a query, a view, and whatever else changes without a table's changing.

        Raises:
            WarehouseError: There is no such table, or the warehouse does not answer.
        """

    def read(
        self,
        relation: Relation,
        columns: Sequence[str],
        rows: Window | Changes | Keys | None = None,
        *,
        latest: Latest | None = None,
    ) -> Iterator[pl.DataFrame]:
        """The named columns as frames of one schema and at most RECORD_BATCH_ROWS rows, in no promised order.

        Args:
            relation: The table or query.
            columns: Names as `columns` gives them; a name given twice comes once.
            rows: Which rows; None for all.
            latest: Of the rows with one key only those with the highest cursor; rows that tie or have no key all come.

        Raises:
            WarehouseError: The read failed; what was yielded until then must not be taken as complete.
        """

    def estimate(
        self,
        relation: Relation,
        columns: Sequence[str],
        rows: Window | Changes | Keys | None = None,
        *,
        latest: Latest | None = None,
    ) -> int | None:
        """Bytes that `read` would be billed for, given the same; None where bytes are not what is billed.

        Raises:
            WarehouseError: As `read` does at once.
        """


class BilledOtherwise:
    """Of a reader whose warehouse bills no bytes: its time, or nothing at all."""

    def estimate(self, *_asked: object, **_latest: object) -> int | None:
        """None: see `Reader.estimate`."""
        return None


class Load(NamedTuple):
    """Rows of one export, and the table that they belong in."""

    table: str
    """As the YAML names it: table, schema.table or database.schema.table."""
    columns: Sequence[TargetColumn]
    """`export_id` (text) and `loaded_at` (timestamp) among them: by these a table is known as one of ours."""
    files: Sequence[Path]
    """Local Parquet files of these columns and POSITION; text and JSON as String."""
    write: Literal["replace", "append", "merge"]
    """`replace`: of all rows; `append`: of the same export's rows only; `merge`: only rows whose key is new."""
    export_id: str
    """Of the form [A-Za-z0-9_-]+; every row has it in its column `export_id`."""
    key: str | None
    """The column whose last row counts where a key stands in the files twice; rows without a key all count."""
    repeated: bool = False
    """Whether a key may stand in the files twice; False spares the search."""


class Loaded(NamedTuple):
    """What a load did."""

    rows: int
    """Rows of the files that count."""
    inserted: int
    """Rows that were written: all of them, but for a merge, which leaves keys that were there alone."""


class Loader(Protocol):
    """An open connection that writes tables of exports. One thread at a time."""

    def columns(self, table: str) -> list[TargetColumn] | None:
        """The table's columns; None where there is no such table.

        Raises:
            WarehouseError: The table cannot be looked at.
        """

    def load(self, load: Load) -> Loaded:
        """Write the rows, all at once: until it returns others see the table as it was, and after an error always.

        Makes the schema, the table and its columns where they are missing; columns that the table has besides stay.
        The same load again changes nothing, but that a merge and an append write their rows anew where they have no
        key, or are of this export.

        Raises:
            WarehouseError: The table was not made by a load, a column has another type, or the warehouse refuses.
        """


class WarehouseSettings(Model):
    """Base of each warehouse's settings; `type` tells them apart."""

    stamp_seconds: ClassVar[int] = 60
    """Seconds to leave between two looks at stamps: what a look costs decides."""

    state_schema: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")] = Field(
        default="batch_connector", description="the schema of ours in which engine: warehouse keeps its snapshots"
    )
    skip_unchanged: bool = Field(
        default=True, description="a profile sync without a cursor reads nothing where its table did not change since"
    )

    @abstractmethod
    def open(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Reader]:
        """Connect, read-only.

        Args:
            root: The project folder; relative paths are relative to it.
            memory: Bytes that a warehouse running in this process may use; None for its own default.
            spill: Folder for what does not fit into that memory; None for its own default.
            tags: What this is for, such as the sync and the run, where the warehouse's history can say so.

        Raises:
            WarehouseError: It cannot be reached, opened or read.
        """

    @abstractmethod
    def load_into(
        self,
        root: Path,
        *,
        memory: int | None = None,
        spill: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Loader]:
        """Connect, to write tables of exports; what is given is as for `open`.

        Raises:
            WarehouseError: It cannot be reached or opened, or not to write.
        """

    @abstractmethod
    def grants(self, needs: Needs) -> list[str]:
        """The least rights that do for these needs, made without connecting: statements, and comments of one line.

        Raises:
            WarehouseError: A table's name is malformed.
        """

    def diff_in(
        self,
        root: Path,  # noqa: ARG002
        *,
        memory: int | None = None,  # noqa: ARG002 - of those that can
        spill: Path | None = None,  # noqa: ARG002
        tags: Mapping[str, str] | None = None,  # noqa: ARG002
        write: bool = True,  # noqa: ARG002
    ) -> "AbstractContextManager[Differ]":
        """Connect, to compare; what is given is as for `open`, and where not to `write`, all that is made is passing.

        Raises:
            WarehouseError: It cannot be reached or opened, or not to write.
        """
        raise WarehouseError(
            f"a warehouse of type {self.kind()} cannot compare rows", remedy="set engine: local in the sync"
        )

    def kind(self) -> str:
        """The warehouse's type as YAML names it."""
        return str(getattr(self, "type"))  # noqa: B009 - each subclass declares its own literal


def digest(*parts: object) -> str:
    """32 hexadecimal digits that change with any of the parts, as `repr` writes them: a stamp."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _wall_time(instant: datetime, zone: ZoneInfo) -> datetime:
    local = instant.astimezone(zone)
    if local.fold == 0 and _comes_twice(local):
        local = local.replace(second=0, microsecond=0)
        while _comes_twice(local - _MINUTE):
            local -= _MINUTE
    return local.replace(tzinfo=None, fold=0)


def _comes_twice(local: datetime) -> bool:
    return local.replace(fold=0).timestamp() < local.replace(fold=1).timestamp()


__all__ = [
    "POSITION",
    "RECORD_BATCH_ROWS",
    "BilledOtherwise",
    "Changes",
    "Column",
    "ColumnType",
    "Keys",
    "Latest",
    "Load",
    "Loaded",
    "Loader",
    "Needs",
    "Reader",
    "Relation",
    "TargetColumn",
    "WarehouseSettings",
    "Window",
    "digest",
]
