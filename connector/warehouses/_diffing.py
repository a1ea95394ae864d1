"""The statements of a comparison inside a warehouse: text alone, alike on every warehouse but for its dialect.

The snapshot of a sync is a table of `k` (the key as text), `doubt` and `other` (bit i: what stands in column i is not
what Batch holds: that is unknown, or a value that is not kept), `at`, and one column an attribute. A delta is a table
of the rows that may have to be sent, with what the source says (`new_…`) beside what the snapshot said (`old_…`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from connector.warehouses._base import Reader
from connector.warehouses._differ import Comparison

MARKS: Mapping[str, pl.DataType] = {
    "k": pl.String(),
    "takes": pl.Int64(),
    "doubt": pl.Int64(),
    "other": pl.Int64(),
    "gone": pl.Boolean(),
    "at": pl.Int64(),
}
"""The columns of the file by which a snapshot moves; see `Differ.settle`."""

KEYS: Mapping[str, pl.DataType] = {"k": pl.String()}

SIDES = {"here": "{here}", "there": "{there}", "once": "{here} AND NOT {twice}"}
"""Of a delta's rows those that the source has, that the snapshot has, and whose key the source has only once."""


class Dialect(NamedTuple):
    """How a warehouse writes what the statements are made of."""

    quoted: Callable[[str], str]
    """A column's name."""
    bit: str
    """Whether a bit is set; `{mask}` and `{bit}` stand for the two numbers."""
    types: Mapping[type[pl.DataType], str]
    """Of the columns of MARKS."""


class Value(NamedTuple):
    """A column of the source: the SQL that reads it, and what is compared of it, where `{}` stands for it."""

    sql: str
    compared: str = "{}"


class Selected(NamedTuple):
    """The rows of a source, in a warehouse's SQL.

    Attributes:
        rows: What stands after FROM.
        key: The key's column.
        text: The key as the mapping writes it; null where the mapping may refuse it.
        values: Of each attribute, in order.
    """

    rows: str
    key: str
    text: str
    values: Sequence[Value]


class SqlDiffer(ABC):
    """A comparison by these statements; see `Differ`. A warehouse adds how they are run."""

    dialect: Dialect

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """See `Differ.reader`."""

    @abstractmethod
    def tables(self, prefix: str) -> list[str]:
        """See `Differ.tables`."""

    @abstractmethod
    def rows(self, table: str) -> int:
        """See `Differ.rows`."""

    @abstractmethod
    def read(self, table: str, columns: Sequence[str], side: str | None = None) -> Iterator[pl.DataFrame]:
        """See `Differ.read`."""

    @abstractmethod
    def make(self, snapshot: str, comparison: Comparison) -> None:
        """See `Differ.make`."""

    @abstractmethod
    def compare(self, comparison: Comparison, snapshot: str, delta: str) -> None:
        """See `Differ.compare`."""

    @abstractmethod
    def settle(self, snapshot: str, delta: str, columns: Sequence[str], marks: Path) -> None:
        """See `Differ.settle`."""

    @abstractmethod
    def drop(self, tables: Sequence[str]) -> None:
        """See `Differ.drop`."""

    def _snapshot(self, comparison: Comparison, selected: Selected) -> str:
        """A query of no rows with a snapshot's columns, of the types of the source's."""
        q, types = self.dialect.quoted, self.dialect.types
        own = (
            f"CAST(NULL AS {types[type(dtype)]}) AS {q(name)}"
            for name, dtype in MARKS.items()
            if name not in ("takes", "gone")
        )
        values = (f"{value.sql} AS {q(name)}" for name, value in zip(comparison.names, selected.values, strict=True))
        return f"SELECT {', '.join((*own, *values))} FROM {selected.rows} WHERE FALSE"  # noqa: S608 - names are quoted

    def _delta(self, comparison: Comparison, selected: Selected, snapshot: str, keys: str | None) -> str:
        """A query of the rows that may have to be sent: one full outer join, so that nothing moves meanwhile."""
        q = self.dialect.quoted
        k, key, here, there, twice, doubt, other = map(q, ("k", "key", "here", "there", "twice", "doubt", "other"))
        pairs = list(zip(comparison.names, selected.values, strict=True))
        new = [q("new_" + name) for name in comparison.names]
        read = (f"{value.sql} AS {name}" for name, (_, value) in zip(new, pairs, strict=True))
        columns = (
            f"COALESCE(s.{k}, p.{k}) AS {k}",
            f"s.{key} AS {key}",
            f"s.{here} IS NOT NULL AS {here}",
            f"p.{k} IS NOT NULL AS {there}",
            f"d.{k} IS NOT NULL AS {twice}",
            f"COALESCE(p.{doubt}, 0) AS {doubt}",
            f"COALESCE(p.{other}, 0) AS {other}",
            *(f"s.{name} AS {name}" for name in new),
            *(f"p.{q(name)} AS {q('old_' + name)}" for name in comparison.names),
        )
        asked = f" LEFT JOIN {keys} AS q ON q.{k} = COALESCE(s.{k}, p.{k})" if keys else ""
        return (
            f"WITH s AS (SELECT {selected.text} AS {k}, {selected.key} AS {key}, TRUE AS {here}, {', '.join(read)} "  # noqa: S608
            f"FROM {selected.rows}), "
            f"d AS (SELECT {k} FROM s WHERE {k} IS NOT NULL GROUP BY {k} HAVING COUNT(*) > 1) "
            f"SELECT {', '.join(columns)} FROM s FULL OUTER JOIN {snapshot} AS p ON s.{k} = p.{k} "
            f"LEFT JOIN d ON d.{k} = s.{k}{asked} WHERE {self._wanted(comparison, pairs, asked=bool(keys))}"
        )

    def _wanted(self, comparison: Comparison, pairs: Sequence[tuple[str, Value]], *, asked: bool) -> str:
        q = self.dialect.quoted
        k, here = q("k"), q("here")
        also = [f"q.{k} IS NOT NULL"] if asked else []
        if comparison.parts:
            return " OR ".join([f"s.{here} IS NOT NULL", *also])
        if comparison.whole:
            return "TRUE"
        sides = ((value.compared, "s." + q("new_" + name), "p." + q(name)) for name, value in pairs)
        differs = (f"{text.format(new)} IS DISTINCT FROM {text.format(old)}" for text, new, old in sides)
        missing = (f"s.{here} IS NULL", f"p.{k} IS NULL", f"d.{k} IS NOT NULL")
        doubt = (f"p.{q('doubt')} <> 0", f"p.{q('other')} <> 0")
        return " OR ".join([*missing, *doubt, *also, *differs])

    def _merge(self, snapshot: str, delta: str, marks: str, columns: Sequence[str]) -> str:
        """The one statement by which a snapshot moves; the same again changes nothing."""
        q = self.dialect.quoted
        k, gone = q("k"), q("gone")
        own, names = [q(name) for name in ("doubt", "other", "at")], [q(name) for name in columns]
        bits = (self.dialect.bit.format(mask=f"m.{q('takes')}", bit=1 << bit) for bit in range(len(columns)))
        values = (
            f"CASE WHEN {taken} THEN d.{q('new_' + name)} ELSE d.{q('old_' + name)} END AS {q(name)}"
            for name, taken in zip(columns, bits, strict=True)
        )
        rows = ", ".join((*(f"m.{name} AS {name}" for name in (k, gone, *own)), *values))
        after = [*own, *names]
        return (
            f"MERGE INTO {snapshot} AS t USING (SELECT {rows} FROM {marks} AS m "  # noqa: S608 - names are quoted
            f"LEFT JOIN (SELECT * FROM {delta} WHERE NOT {q('twice')}) AS d ON d.{k} = m.{k}) AS u ON t.{k} = u.{k} "
            f"WHEN MATCHED AND u.{gone} THEN DELETE "
            f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{name} = u.{name}' for name in after)} "
            f"WHEN NOT MATCHED AND NOT u.{gone} THEN INSERT ({', '.join((k, *after))}) "
            f"VALUES ({', '.join(f'u.{name}' for name in (k, *after))})"
        )

    def _read(self, table: str, columns: Sequence[str], side: str | None) -> str:
        """The query of `Differ.read`."""
        q = self.dialect.quoted
        where = f" WHERE {SIDES[side].format(**{name: q(name) for name in ('here', 'there', 'twice')})}" if side else ""
        return f"SELECT {', '.join(map(q, columns))} FROM {table}{where}"  # noqa: S608 - names are quoted


def condition(where: str) -> str:
    """A selection's condition without the word before it."""
    return where.strip().removeprefix("WHERE ")
