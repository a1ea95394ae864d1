"""What every warehouse does alike. A new one joins by an entry in WAREHOUSES."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol
from uuid import UUID

import duckdb
import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import (
    RECORD_BATCH_ROWS,
    Keys,
    Latest,
    Reader,
    Relation,
    WarehouseSettings,
    Window,
)
from connector.warehouses.duckdb import DuckDB
from tests.emulators.bigquery_bench import BigQueryBench
from tests.emulators.snowflake_bench import SnowflakeBench


class Bench(Protocol):
    """A warehouse of a test's own: how to fill it, and how to open it."""

    settings: WarehouseSettings
    types: dict[str, str]
    """Kind of column to the warehouse's type; a kind that it does not have is left out."""
    arrays_hold_nulls: bool
    """Whether an array may be null, or hold a null; where not, it is empty, or holds none."""
    series: str
    """A query of 120,000 rows `i`, from 0, with a text `t`."""
    failing: str
    """A query that fails at a late row, whose value is `s3cret`."""

    def create(self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """A table of columns by kind."""

    def execute(self, *statements: str) -> object:
        """Statements of the warehouse's SQL."""

    def rest(self) -> None:
        """Let so much time seem to pass that a stamp can be had."""


class DuckDBBench:
    types: ClassVar = {
        "integer": "BIGINT",
        "small": "SMALLINT",
        "huge": "HUGEINT",
        "text": "VARCHAR",
        "float": "DOUBLE",
        "decimal": "DECIMAL(12, 2)",
        "boolean": "BOOLEAN",
        "date": "DATE",
        "naive": "TIMESTAMP",
        "aware": "TIMESTAMPTZ",
        "uuid": "UUID",
        "binary": "BLOB",
        "json": "JSON",
        "texts": "VARCHAR[]",
        "struct": "STRUCT(a INTEGER, b VARCHAR)",
        "structs": "STRUCT(a INTEGER, b VARCHAR)[]",
    }
    arrays_hold_nulls = True
    series = "SELECT range AS i, 'row ' || range AS t FROM range(120000)"
    failing = "SELECT CAST(CASE WHEN range = 200000 THEN 's3cret' ELSE '1' END AS INTEGER) AS i FROM range(250000)"

    def __init__(self, root: Path) -> None:
        self.settings = DuckDB(type="duckdb", path="warehouse.duckdb", skip_unchanged=True)
        self._file = root / "warehouse.duckdb"
        duckdb.connect(self._file).close()

    def create(self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        declared = ", ".join(f'"{name}" {self.types[kind]}' for name, kind in columns.items())
        with duckdb.connect(self._file) as connection:
            if "." in table:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
            connection.execute(f"CREATE TABLE {table} ({declared})")
            connection.begin()
            for row in rows:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row))
            connection.commit()

    def execute(self, *statements: str) -> None:
        with duckdb.connect(self._file) as connection:
            for statement in statements:
                connection.execute(statement)

    def rest(self) -> None:
        long_ago = time.time() - 3600
        os.utime(self._file, (long_ago, long_ago))


WAREHOUSES: dict[str, Callable[[Path], Bench]] = {
    "duckdb": DuckDBBench,
    "snowflake": SnowflakeBench,
    "bigquery": BigQueryBench,
}


@pytest.fixture(params=WAREHOUSES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return WAREHOUSES[request.param](tmp_path)


@pytest.fixture
def opened(bench: Bench, tmp_path: Path) -> Iterator[Callable[[], Reader]]:
    """Opens the warehouse once the test has filled it."""
    contexts = []

    def open_() -> Reader:
        contexts.append(bench.settings.open(tmp_path))
        return contexts[-1].__enter__()

    yield open_
    for context in contexts:
        context.__exit__(None, None, None)


def _rows(frames: Iterator[pl.DataFrame]) -> list[tuple[Any, ...]]:
    return sorted((row for frame in frames for row in frame.rows()), key=repr)


class Kind(NamedTuple):
    kind: str
    value: Any
    read: Any
    dtypes: tuple[Any, ...]


WINTER = datetime.fromisoformat("2026-01-31 22:30:15.123456")
SMALL, LARGE = (pl.Struct({"a": dtype, "b": pl.String}) for dtype in (pl.Int32, pl.Int64))
KINDS = [
    Kind("integer", 2**62, 2**62, (pl.Int64, pl.Decimal(38, 0))),
    Kind("small", -7, -7, (pl.Int16, pl.Int64)),
    Kind("huge", 2**70, Decimal(2**70), (pl.Decimal(38, 0), pl.Decimal(38, 9))),
    Kind("text", "Zoë 🚀\n", "Zoë 🚀\n", (pl.String,)),
    Kind("float", -0.1, -0.1, (pl.Float64,)),
    Kind("decimal", Decimal("12.30"), Decimal("12.30"), (pl.Decimal(12, 2), pl.Decimal(38, 9))),
    Kind("boolean", False, False, (pl.Boolean,)),
    Kind("date", date(1969, 12, 31), date(1969, 12, 31), (pl.Date,)),
    Kind("naive", WINTER, WINTER, (pl.Datetime("us"), pl.Datetime("ns"))),
    Kind("aware", WINTER.replace(tzinfo=UTC), WINTER.replace(tzinfo=UTC), (pl.Datetime("us", "UTC"),)),
    Kind(
        "uuid",
        UUID("4AC7A9E9-607C-4C8A-84F3-843F0191E3FD"),
        "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd",
        (pl.String,),
    ),
    Kind("binary", b"\0x", b"\0x", (pl.Binary,)),
    Kind("texts", ["b", None, "a"], ["b", None, "a"], (pl.List(pl.String),)),
    Kind("struct", {"a": 1, "b": None}, {"a": 1, "b": None}, (SMALL, LARGE)),
    Kind("structs", [{"a": 1, "b": "x"}], [{"a": 1, "b": "x"}], (pl.List(SMALL), pl.List(LARGE))),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_value_and_a_null_of_each_type_arrive_as_they_are(
    bench: Bench, opened: Callable[[], Reader], kind: Kind
) -> None:
    """A value keeps its meaning, a null stays null, and the column's type is announced as it then comes."""
    if kind.kind not in bench.types:
        pytest.skip("the warehouse has no such type")
    value, read, null = kind.value, kind.read, None
    if isinstance(value, list) and not bench.arrays_hold_nulls:
        value, read, null = (
            [each for each in value if each is not None],
            [each for each in read if each is not None],
            [],
        )
    bench.create("t", {"v": kind.kind}, [(value,), (None,)])
    reader = opened()
    (column,) = reader.columns(Relation("t"))
    frames = list(reader.read(Relation("t"), ["v"]))
    assert column.name == "v"
    assert column.dtype in kind.dtypes
    assert not column.json
    assert all(frame.schema == {"v": column.dtype} for frame in frames)
    assert _rows(iter(frames)) == sorted([(read,), (null,)], key=repr)


def test_json_is_text_that_says_so(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A semi-structured column comes as text marked as JSON, a text column that looks like it does not."""
    bench.create("t", {"j": "json", "s": "text"}, [('{"a": [1, null]}', '{"a": 1}'), (None, None)])
    reader = opened()
    assert [(column.name, column.dtype, column.json) for column in reader.columns(Relation("t"))] == [
        ("j", pl.String, True),
        ("s", pl.String, False),
    ]
    values = pl.concat(reader.read(Relation("t"), ["j"]))["j"].to_list()
    assert [value and json.loads(value) for value in sorted(values, key=str, reverse=True)] == [
        {"a": [1, None]},
        None,
    ]


def test_an_empty_table_still_tells_its_columns(bench: Bench, opened: Callable[[], Reader]) -> None:
    """No rows are no error, and the schema does not depend on them."""
    bench.create("t", {"id": "integer", "at": "aware"}, [])
    reader = opened()
    assert [column.name for column in reader.columns(Relation("t"))] == ["id", "at"]
    assert _rows(reader.read(Relation("t"), ["id", "at"])) == []


def test_only_the_columns_asked_for_are_read_in_their_order(bench: Bench, opened: Callable[[], Reader]) -> None:
    """Unmapped columns never leave the warehouse, and one that is asked for twice comes once."""
    bench.create("t", {"a": "integer", "b": "text", "c": "text"}, [(1, "x", "y")])
    (frame,) = opened().read(Relation("t"), ["c", "a", "c"])
    assert frame.columns == ["c", "a"]
    assert frame.rows() == [("y", 1)]


def test_a_name_needs_quoting_nowhere(bench: Bench, opened: Callable[[], Reader]) -> None:
    """Reserved words, spaces and quotes in column names are read like any other."""
    names = ["select", "at", "two words", "Ünïcode", "it's"]
    bench.create("t", dict.fromkeys(names, "integer"), [(1, 2, 3, 4, 5)])
    reader = opened()
    assert [column.name for column in reader.columns(Relation("t"))] == names
    assert _rows(reader.read(Relation("t"), names)) == [(1, 2, 3, 4, 5)]


def test_a_query_is_read_like_a_table(bench: Bench, opened: Callable[[], Reader]) -> None:
    """Comments, a semicolon and a common table expression are part of what people write."""
    bench.create("t", {"a": "integer"}, [(1,), (2,), (3,)])
    relation = Relation(
        query="-- the rest\nWITH x AS (SELECT a AS b FROM t) SELECT b FROM x WHERE b > 1 -- ;\n;\n-- end"
    )
    reader = opened()
    assert [column.name.lower() for column in reader.columns(relation)] == ["b"]
    assert _rows(reader.read(relation, ["b"])) == [(2,), (3,)]
    assert _rows(reader.read(relation, ["b"], Keys("b", ["3"]))) == [(3,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS a; SELECT 2 AS a",
        "DELETE FROM t",
        "CREATE TABLE u (a INTEGER)",
        "DROP TABLE t",
        "",
        "-- nothing",
        "SELECT 1 AS a; DROP TABLE t",
    ],
)
def test_a_source_is_exactly_one_select(bench: Bench, opened: Callable[[], Reader], query: str) -> None:
    """What could change the warehouse, or is not one statement, is refused, and changes nothing."""
    bench.create("t", {"a": "integer"}, [(1,)])
    reader = opened()
    with pytest.raises(WarehouseError, match="exactly one SELECT"):
        reader.columns(Relation(query=query))
    assert _rows(reader.read(Relation("t"), ["a"])) == [(1,)]


def test_a_wrong_query_is_explained(bench: Bench, opened: Callable[[], Reader]) -> None:
    """The warehouse's own sentence reaches the reader, on one line."""
    reader = opened()
    with pytest.raises(WarehouseError, match=r"(?i)the query .*syntax error") as raised:
        reader.columns(Relation(query="SELECT FROM WHERE"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("marts.custmers", "marts.customers"), ("customers", "marts.customers"), ("ordres", "orders")],
)
def test_a_missing_table_names_the_one_that_was_meant(
    bench: Bench, opened: Callable[[], Reader], asked: str, meant: str
) -> None:
    """A typing error and a forgotten schema are both recognised."""
    bench.create("marts.customers", {"a": "integer"}, [])
    bench.create("orders", {"a": "integer"}, [])
    with pytest.raises(WarehouseError, match=f"no table '{asked}'.*did you mean '{meant}'"):
        opened().columns(Relation(asked))


def test_a_table_may_be_qualified(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A schema in front of the table is not part of its name."""
    bench.create("marts.customers", {"a": "integer"}, [(1,)])
    assert _rows(opened().read(Relation("marts.customers"), ["a"])) == [(1,)]


@pytest.mark.parametrize("rows", [None, Keys("e_mail", ["x"]), Window("e_mail", None, datetime.now(UTC))])
def test_a_missing_column_is_named_at_once(
    bench: Bench, opened: Callable[[], Reader], rows: Window | Keys | None
) -> None:
    """A column that is not there fails before the first row, with the one that was meant."""
    bench.create("t", {"id": "integer", "email": "text"}, [])
    columns = ["id"] if rows else ["id", "e_mail"]
    with pytest.raises(WarehouseError, match=r"no column 'e_mail'.*did you mean 'email'"):
        opened().read(Relation("t"), columns, rows)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


STAMPS = [
    "2026-03-01 10:00:00",
    "2026-03-01 10:00:00.000001",
    "2026-03-01 11:59:59.999999",
    "2026-03-01 12:00:00",
]
SINCE, UNTIL = _instant("2026-03-01 10:00:00"), _instant("2026-03-01 12:00:00")


@pytest.mark.parametrize("kind", ["naive", "aware"])
def test_a_window_takes_its_start_and_not_its_end(bench: Bench, opened: Callable[[], Reader], kind: str) -> None:
    """Windows in a row share no row and miss none, to the microsecond; a row without a stamp is in none."""
    stamps = [_instant(text) if kind == "aware" else datetime.fromisoformat(text) for text in STAMPS]
    bench.create("t", {"id": "integer", "at": kind}, [*enumerate(stamps), (9, None)])
    reader = opened()

    def ids(since: datetime | None, until: datetime) -> list[int]:
        return [row[0] for row in _rows(reader.read(Relation("t"), ["id"], Window("at", since, until)))]

    assert ids(SINCE, UNTIL) == [0, 1, 2]
    assert ids(SINCE + timedelta(microseconds=1), UNTIL + timedelta(microseconds=1)) == [1, 2, 3]
    assert ids(None, UNTIL) == [0, 1, 2]
    assert ids(None, SINCE) == []


def test_a_window_on_naive_stamps_is_in_their_zone(bench: Bench, opened: Callable[[], Reader]) -> None:
    """Ten o'clock in Paris is nine in UTC in winter."""
    bench.create("t", {"id": "integer", "at": "naive"}, list(enumerate(map(datetime.fromisoformat, STAMPS))))
    window = Window("at", _instant("2026-03-01 09:00:00"), _instant("2026-03-01 11:00:00"), "Europe/Paris")
    assert _rows(opened().read(Relation("t"), ["id"], window)) == [(0,), (1,), (2,)]


def test_a_window_on_dates_takes_the_whole_first_day(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A row written later on the day of the last read has that day's stamp: the day is read again."""
    days = [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 2), None]
    bench.create("t", {"id": "integer", "on": "date"}, list(enumerate(days)))
    reader = opened()
    afternoon = Window("on", SINCE, _instant("2026-03-02 00:00:00"))
    assert _rows(reader.read(Relation("t"), ["id"], afternoon)) == [(1,)]
    next_day = Window("on", SINCE, _instant("2026-03-02 00:00:01"))
    assert _rows(reader.read(Relation("t"), ["id"], next_day)) == [(1,), (2,)]


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_a_cursor_that_is_no_time_is_refused(bench: Bench, opened: Callable[[], Reader], kind: str) -> None:
    """A number or a text compares otherwise than time does."""
    bench.create("t", {"id": "integer", "c": kind}, [])
    with pytest.raises(WarehouseError, match=r"the column 'c' has the type .*neither a timestamp nor a date"):
        opened().read(Relation("t"), ["id"], Window("c", None, UNTIL))


KEYS = {
    "integer": ([7, -7, 70, None], ["7", "-7", "007", "7.0", " 7", "x"], [7, -7]),
    "huge": ([2**70, 7], [str(2**70), "8"], [Decimal(2**70)]),
    "text": (["007", "7", "é'", "7 ", None], ["7", "é'", "none"], ["7", "é'"]),
    "float": ([7.0, 7.5, -0.0, 1e15, None], ["7", "7.5", "7.0", "0", "1000000000000000"], [7.0, -0.0, 1e15]),
    "decimal": ([Decimal("7.00"), Decimal("7.50"), None], ["7", "7.50"], [Decimal("7.00")]),
    "uuid": (
        [UUID("4ac7a9e9-607c-4c8a-84f3-843f0191e3fd"), UUID(int=1)],
        ["4ac7a9e9-607c-4c8a-84f3-843f0191e3fd", str(UUID(int=1)).replace("-", "")],
        ["4ac7a9e9-607c-4c8a-84f3-843f0191e3fd"],
    ),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_match_as_the_mapping_writes_them(bench: Bench, opened: Callable[[], Reader], kind: str) -> None:
    """A key's text finds its row and no other: no leading zero, no other spelling, no half of a number."""
    if kind not in bench.types:
        pytest.skip("the warehouse has no such type")
    stored, asked, found = KEYS[kind]
    bench.create("t", {"k": kind}, [(value,) for value in stored])
    assert _rows(opened().read(Relation("t"), ["k"], Keys("k", asked))) == sorted(
        [(value,) for value in found], key=repr
    )


def test_many_keys_find_each_row_once(bench: Bench, opened: Callable[[], Reader]) -> None:
    """Keys beyond one statement's worth, some given twice, return their rows once; no keys return none."""
    reader = opened()
    asked = [str(i) for i in range(119_999)] * 2
    relation = Relation(query=bench.series)
    frames = list(reader.read(relation, ["i", "t"], Keys("i", asked)))
    assert sum(frame.height for frame in frames) == 119_999
    assert pl.concat(frames)["i"].n_unique() == 119_999
    assert list(reader.read(relation, ["i"], Keys("i", []))) == []


@pytest.mark.parametrize("kind", ["boolean", "date", "texts"])
def test_a_key_of_another_type_is_refused(bench: Bench, opened: Callable[[], Reader], kind: str) -> None:
    """What has no one spelling as a key is not guessed at."""
    if kind not in bench.types:
        pytest.skip("the warehouse has no such type")
    bench.create("t", {"k": kind}, [])
    with pytest.raises(WarehouseError, match="key column 'k' has the type"):
        opened().read(Relation("t"), ["k"], Keys("k", ["1"]))


def test_the_latest_row_of_each_key_is_the_one_with_the_highest_cursor(
    bench: Bench, opened: Callable[[], Reader]
) -> None:
    """Older rows stay back, also among selected rows; rows that tie all come, so that nobody guesses."""
    early, late = _instant("2026-03-01 10:00:00"), _instant("2026-03-01 11:00:00")
    rows = [("a", early, 1), ("a", late, 2), ("a", None, 3), ("b", late, 4), ("b", late, 5), ("c", None, 6)]
    bench.create("t", {"k": "text", "at": "aware", "n": "integer"}, rows)
    reader, latest = opened(), Latest("k", "at")

    def numbers(selected: Window | Keys | None) -> list[int]:
        return [row[0] for row in _rows(reader.read(Relation("t"), ["n"], selected, latest=latest))]

    assert numbers(None) == [2, 4, 5, 6]
    assert numbers(Keys("k", ["a", "c"])) == [2, 6]
    assert numbers(Window("at", None, late)) == [1]


def test_record_batches_are_bounded_and_alike(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A long result comes in frames of one schema, none longer than a record batch, every row once."""
    frames = list(opened().read(Relation(query=bench.series), ["t", "i"]))
    assert len(frames) >= 3
    assert max(frame.height for frame in frames) <= RECORD_BATCH_ROWS
    assert len({tuple(frame.schema.items()) for frame in frames}) == 1
    assert pl.concat(frames)["i"].sort().to_list() == list(range(120_000))


def test_reads_interleave(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A second read, the columns and the clock do not end a read that is under way."""
    reader = opened()
    relation = Relation(query=bench.series)
    first = reader.read(relation, ["i"])
    total = next(first).height
    assert sum(frame.height for frame in reader.read(relation, ["t"])) == 120_000
    reader.columns(relation)
    reader.now()
    assert total + sum(frame.height for frame in first) == 120_000


def test_a_failure_half_way_is_an_error_without_values(bench: Bench, opened: Callable[[], Reader]) -> None:
    """A row that breaks the query after many others ends the read loudly, and its value is not repeated."""
    frames = opened().read(Relation(query=bench.failing), ["i"])
    with pytest.raises(WarehouseError, match="cannot be read") as raised:
        list(frames)
    assert "s3cret" not in str(raised.value)


def test_a_read_ends_with_the_connection(bench: Bench, tmp_path: Path) -> None:
    """What was left half read cannot go on afterwards, and does not look complete."""
    with bench.settings.open(tmp_path) as reader:
        frames = reader.read(Relation(query=bench.series), ["i"])
        next(frames)
    with pytest.raises(WarehouseError):
        list(frames)
    with pytest.raises(WarehouseError):
        reader.now()


def test_the_clock_is_the_warehouse_s_in_utc(opened: Callable[[], Reader]) -> None:
    """The watermark of a run comes from here: aware, in UTC, and about now."""
    now = opened().now()
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)


CHANGES = {
    "a row added": ("insert into {shop}customers (custom_id, plan) values ('c', 'gold')",),
    "a row removed": ("delete from {shop}customers where custom_id = 'a'",),
    "a value changed": ("update {shop}customers set plan = 'platinum' where custom_id = 'a'",),
    "a column added": ("alter table {shop}customers add column points numeric",),
    "made anew": ("drop table {shop}customers", "create table {shop}customers (custom_id {text}, plan {text})"),
}


def _stamp(bench: Bench, root: Path, table: str) -> str | None:
    with bench.settings.open(root) as reader:
        return reader.stamp(Relation(table=table))


@pytest.mark.parametrize("change", CHANGES)
def test_a_stamp_changes_with_the_table(bench: Bench, tmp_path: Path, change: str) -> None:
    """A table that stands keeps its stamp, from connection to connection; rows, columns or another table change it."""
    bench.create("customers", {"custom_id": "text", "plan": "text"}, [("a", "gold"), ("b", None)])
    bench.rest()
    before = _stamp(bench, tmp_path, "customers")
    assert before
    assert _stamp(bench, tmp_path, "customers") == before
    shop = "shop." if isinstance(bench, BigQueryBench) else ""
    bench.execute(*(text.format(shop=shop, text=bench.types["text"]) for text in CHANGES[change]))
    assert _stamp(bench, tmp_path, "customers") != before


def test_what_is_no_table_has_no_stamp(bench: Bench, tmp_path: Path) -> None:
    """A view may read the clock or other tables, and a query too; a table that is not there is an error."""
    bench.create("customers", {"custom_id": "text"}, [("a",)])
    shop = "shop." if isinstance(bench, BigQueryBench) else ""
    bench.execute(f"create view {shop}seen as select * from {shop}customers")
    bench.rest()
    assert _stamp(bench, tmp_path, "seen") is None
    with bench.settings.open(tmp_path) as reader:
        assert reader.stamp(Relation(query=f"select * from {shop}customers")) is None
        with pytest.raises(WarehouseError, match="there is no table 'strangers'"):
            reader.stamp(Relation(table="strangers"))
