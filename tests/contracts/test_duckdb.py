"""What DuckDB does in its own way: its file, its lock, its types, its memory."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import Keys, Relation
from connector.warehouses.duckdb import DuckDB

SETTINGS = DuckDB(type="duckdb", path="w.duckdb")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("database") / "w.duckdb"
    with duckdb.connect(file) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i, 'row ' || range AS s FROM range(200000)")
    return file


@pytest.fixture
def root(tmp_path: Path, database: Path) -> Path:
    """A project folder whose w.duckdb has the table t."""
    shutil.copy(database, tmp_path)
    return tmp_path


def _python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _can_write(file: Path) -> bool:
    """Whether another process may now open the file to write."""
    return _python("import duckdb, sys; duckdb.connect(sys.argv[1])", file).returncode == 0


@contextmanager
def _writer(file: Path, seconds: float = 60) -> "Iterator[subprocess.Popen[str]]":
    """Another process that has the file open to write, for so long at the most."""
    code = f"import duckdb, time; c = duckdb.connect({str(file)!r}); print(1, flush=True); time.sleep({seconds})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def _refusal(root: Path, settings: DuckDB = SETTINGS) -> str:
    with pytest.raises(WarehouseError) as raised, settings.open(root, patience=0):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_missing_file_is_named_with_its_whole_path(tmp_path: Path) -> None:
    """A relative path is shown as it was understood, and no empty database is made."""
    message = _refusal(tmp_path, DuckDB(type="duckdb", path="data/../no.duckdb"))
    assert f"there is no DuckDB file {tmp_path / 'no.duckdb'}" in message
    assert "relative to the project folder" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"abc", b"hello" * 5000, b"SQLite format 3\0" * 300], ids=len)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """Text, an empty file or another database is told apart before DuckDB fetches an extension for it."""
    (tmp_path / "w.duckdb").write_bytes(content)
    assert "is not a DuckDB database" in _refusal(tmp_path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder in the place of the file is an error of ours, not of the operating system."""
    assert "cannot be read: Is a directory" in _refusal(tmp_path, DuckDB(type="duckdb", path="."))


def test_a_damaged_file_is_refused(root: Path) -> None:
    """A broken header is reported as damage."""
    file = root / "w.duckdb"
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 20_000)
    assert "w.duckdb cannot be opened: the database file is corrupt" in _refusal(root)


def test_a_lock_names_its_holder_and_two_ways_out(root: Path) -> None:
    """Whoever reads the message can find the process, or do without it."""
    with _writer(root / "w.duckdb") as process:
        message = _refusal(root)
    assert f"is locked by process {process.pid} (" in message
    assert "close it and run again" in message
    assert "select * from 'export.parquet'" in message


def test_a_short_lock_is_waited_for(root: Path) -> None:
    """A writer that is done within the patience delays the run and does not fail it."""
    with _writer(root / "w.duckdb", seconds=0.3), SETTINGS.open(root, patience=20) as reader:
        assert len(reader.columns(Relation("t"))) == 2


def test_a_writer_in_this_process_is_told_apart(root: Path) -> None:
    """A connection of our own process has no pid to look for."""
    with duckdb.connect(root / "w.duckdb"):
        assert "is open in this very process with other settings" in _refusal(root)


def test_an_export_can_be_read_while_the_file_is_locked(root: Path) -> None:
    """The way out that the message offers works; paths in queries are relative to the project folder."""
    (root / "exports").mkdir()
    with duckdb.connect(root / "w.duckdb", read_only=True) as connection:
        connection.execute(f"COPY (SELECT * FROM t LIMIT 3) TO '{root / 'exports' / 'e.parquet'}'")
    relation = Relation(query="select * from 'exports/e.parquet'")
    settings = DuckDB(type="duckdb", path=":memory:")
    with _writer(root / "w.duckdb"), settings.open(root) as reader:
        assert sum(frame.height for frame in reader.read(relation, ["s"])) == 3


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO t VALUES (1, 'x') RETURNING i",
        "WITH x AS (INSERT INTO t VALUES (1, 'x') RETURNING i) SELECT i FROM x",
        "COPY t TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "SELECT nextval('s') AS i",
    ],
)
def test_nothing_writes(root: Path, query: str) -> None:
    """No query changes the file or makes another, and nobody else can open it to write meanwhile."""
    with duckdb.connect(root / "w.duckdb") as connection:
        connection.execute("CREATE SEQUENCE s")
    before = hashlib.sha256((root / "w.duckdb").read_bytes()).digest()
    with SETTINGS.open(root) as reader:
        with pytest.raises(WarehouseError):
            list(reader.read(Relation(query=query), ["i"]))
        with pytest.raises(duckdb.ConnectionException):
            duckdb.connect(root / "w.duckdb")
        assert sum(frame.height for frame in reader.read(Relation("t"), ["i"])) == 200_000
    assert [path.name for path in root.iterdir()] == ["w.duckdb"]
    assert hashlib.sha256((root / "w.duckdb").read_bytes()).digest() == before


def test_reads_left_half_way_free_the_file(root: Path) -> None:
    """However many reads were begun, a writer may come once the warehouse is closed."""
    with SETTINGS.open(root) as reader:
        begun = [reader.read(Relation("t"), ["i"]) for _ in range(3)]
        begun += [reader.read(Relation(query="SELECT * FROM t"), ["i"], Keys("i", ["1", "2"]))]
        for frames in begun:
            next(frames)
        assert not _can_write(root / "w.duckdb")
    assert _can_write(root / "w.duckdb")
    for frames in begun:
        with pytest.raises(WarehouseError, match="closed before the read ended"):
            next(frames)


def test_a_failed_read_frees_the_file(root: Path) -> None:
    """An error in our own code or in the query leaves no lock behind."""
    with suppress(KeyError), SETTINGS.open(root) as reader:
        next(reader.read(Relation("t"), ["i"]))
        raise KeyError
    with pytest.raises(WarehouseError), SETTINGS.open(root) as reader:
        list(reader.read(Relation(query="SELECT error('x') AS i FROM t"), ["i"]))
    assert _can_write(root / "w.duckdb")


TYPES: list[tuple[str, Any, Any]] = [
    ("99::HUGEINT", pl.Decimal(38, 0), Decimal(99)),
    ("5::UBIGINT", pl.UInt64, 5),
    ("1.5::FLOAT", pl.Float32, 1.5),
    ("'a'::ENUM('a', 'b')", pl.String, "a"),
    ("['a']::ENUM('a', 'b')[]", pl.List(pl.String), ["a"]),
    ("{'x': 'b'}::STRUCT(x ENUM('a', 'b'))", pl.Struct({"x": pl.String}), {"x": "b"}),
    ("[1, 2]::INTEGER[2]", pl.List(pl.Int32), [1, 2]),
    ("[['a']]::ENUM('a')[1][]", pl.List(pl.List(pl.String)), [["a"]]),
    (
        "{'size': 1, 'child': 'x'}",
        pl.Struct({"size": pl.Int32, "child": pl.String}),
        {"size": 1, "child": "x"},
    ),
    ("MAP {'k': 1}", pl.String, '{"k":1}'),
    ("'x'::VARIANT", pl.String, '"x"'),
    ("TIMESTAMPTZ '2026-01-01 00:00:00+02'::VARCHAR", pl.String, "2025-12-31 22:00:00+00"),
]


@pytest.mark.parametrize(("value", "dtype", "read"), TYPES, ids=[row[0] for row in TYPES])
def test_types_without_a_counterpart_become_plain_ones(root: Path, value: str, dtype: Any, read: Any) -> None:
    """Dictionaries come as text at any depth, arrays as lists, maps and variants as JSON, time in UTC."""
    relation = Relation(query=f"SELECT {value} AS v UNION ALL SELECT NULL")
    with SETTINGS.open(root) as reader:
        (column,) = reader.columns(relation)
        frame = pl.concat(reader.read(relation, ["v"]))
    assert column.dtype == dtype == frame.schema["v"]
    assert column.json == (value.startswith("MAP") or "VARIANT" in value)
    assert sorted(frame["v"].to_list(), key=str) == sorted([read, None], key=str)


@pytest.mark.parametrize(
    "value",
    [
        "INTERVAL 1 DAY",
        "[INTERVAL 1 DAY]",
        "{'a': [INTERVAL 1 DAY]}",
        "union_value(n := 1)",
        "'101'::BIT",
        "5::BIGNUM",
        "5::UHUGEINT",
        "[MAP {'k': 1}]",
        "['1'::VARIANT]",
    ],
)
def test_a_type_that_cannot_be_read_is_announced(root: Path, value: str) -> None:
    """Such a column is listed, hinders no other, and is refused by name when it is asked for."""
    relation = Relation(query=f"SELECT 1 AS a, {value} AS v")
    with SETTINGS.open(root) as reader:
        assert [column.dtype for column in reader.columns(relation)] == [pl.Int32, pl.Object]
        assert pl.concat(reader.read(relation, ["a"])).rows() == [(1,)]
        with pytest.raises(WarehouseError, match=r"column 'v' of the query cannot be read as .*cast it"):
            reader.read(relation, ["v"])
        assert reader.columns(Relation(query=f"SELECT {value} AS v"))[0].dtype == pl.Object


def test_the_machine_s_time_zone_plays_no_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a query makes of a time is the same on a laptop in Tokyo and on a server."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    code = """
        import sys
        from pathlib import Path
        from connector.warehouses._base import Relation
        from connector.warehouses.duckdb import DuckDB
        query = "SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00' AS t, t::VARCHAR AS v, TIMESTAMPTZ '2026-01-01' AS u"
        with DuckDB(type="duckdb", path="w.duckdb").open(Path(sys.argv[1])) as reader:
            (frame,) = reader.read(Relation(query=query), ["t", "v", "u"])
        print(frame.write_csv())
    """
    done = _python(code, root)
    assert done.stdout.split("\n")[1] == (
        "2026-01-01T00:00:00.000000+0000,2026-01-01 00:00:00+00,2026-01-01T00:00:00.000000+0000"
    ), done.stderr


def test_an_enum_may_be_a_key(root: Path) -> None:
    """It is text, and a key outside its values is no error."""
    relation = Relation(query="SELECT unnest(['a', 'b', NULL]::ENUM('a', 'b')[]) AS e")
    with SETTINGS.open(root) as reader:
        assert pl.concat(reader.read(relation, ["e"], Keys("e", ["b", "c"]))).rows() == [("b",)]


def test_a_failed_conversion_names_its_column(root: Path) -> None:
    """The column tells where to look, even if a value pretends to be one."""
    query = "SELECT CAST(v AS INTEGER) AS i FROM (SELECT s || ' when casting from source column x' AS v FROM t)"
    with SETTINGS.open(root) as reader, pytest.raises(WarehouseError, match=r"\(column v\); run it in DuckDB"):
        list(reader.read(Relation(query=query), ["i"]))


def test_names_match_without_case(root: Path) -> None:
    """As in DuckDB; the frame has the name that was asked for."""
    with SETTINGS.open(root) as reader:
        (frame,) = reader.read(Relation("T"), ["I"], Keys("i", ["7"]))
    assert frame.to_dicts() == [{"I": 7}]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("w.main.u", 1),
        ("main.u", 1),
        ('"s.x"."a ""b"".c"', 2),
        ('main."u"', 1),
        ("s.x.u", None),
        ("a..b", None),
    ],
)
def test_table_names_may_have_three_parts_and_quotes(root: Path, name: str, found: int | None) -> None:
    """A dot inside double quotes belongs to the name."""
    with duckdb.connect(root / "w.duckdb") as connection:
        connection.execute('CREATE TABLE u AS SELECT 1 AS i; CREATE SCHEMA "s.x"')
        connection.execute('CREATE TABLE "s.x"."a ""b"".c" AS SELECT 2 AS i')
    with SETTINGS.open(root) as reader:
        if found:
            assert pl.concat(reader.read(Relation(name), ["i"])).rows() == [(found,)]
        else:
            with pytest.raises(WarehouseError, match=r"table '|table name '"):
                reader.columns(Relation(name))


def test_a_view_over_a_lost_table_is_not_called_missing(root: Path) -> None:
    """The table that lacks is named, not the view that is there."""
    with duckdb.connect(root / "w.duckdb") as connection:
        connection.execute("CREATE TABLE lost AS SELECT 1 AS i; CREATE VIEW v AS SELECT * FROM lost; DROP TABLE lost")
    with (
        SETTINGS.open(root) as reader,
        pytest.raises(WarehouseError, match=r"'v' .*name lost does not exist"),
    ):
        reader.columns(Relation("v"))


def test_a_variable_of_ours_is_no_table(root: Path) -> None:
    """DuckDB would find Python variables by the names in a query."""
    relation = pl.DataFrame({"i": [1]})  # noqa: F841 - what must not be found, nor names inside our code
    with SETTINGS.open(root) as reader:
        for name in ("relation", "fields", "batch"):
            with pytest.raises(WarehouseError, match=f"name {name} does not exist"):
                reader.columns(Relation(query=f"SELECT * FROM {name}"))


def test_parameters_in_a_query_are_refused(root: Path) -> None:
    """A query that waits for values would never get them."""
    with SETTINGS.open(root) as reader, pytest.raises(WarehouseError, match="the query has parameters: 1"):
        reader.columns(Relation(query="SELECT ? AS a"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT CAST(s AS INTEGER) AS i FROM t",
        "SELECT error(s) AS i FROM t",
        "SELECT CAST(i * 1000000 AS SMALLINT) AS i FROM t WHERE i = 199999",
        "SELECT CAST(s AS DATE) AS i FROM t",
        "SELECT (i + 199999000000000) * (i + 199999000000000) AS i FROM t",
        "SELECT strptime(s, '%Y') AS i FROM t",
    ],
)
def test_no_message_quotes_a_row(root: Path, query: str) -> None:
    """DuckDB puts the offending value into its message; ours says what happened without it."""
    with (
        SETTINGS.open(root) as reader,
        pytest.raises(WarehouseError, match=r"the query in .* cannot be read") as raised,
    ):
        list(reader.read(Relation(query=query), ["i"]))
    assert "row " not in str(raised.value).replace("the row", "")
    assert "199999" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_the_memory_limit_is_set(root: Path) -> None:
    """A query beyond the limit fails by name, not by the machine's end."""
    query = "SELECT list(i::VARCHAR || s) AS a FROM (SELECT i, s FROM t, range(20))"
    with (
        SETTINGS.open(root, memory=20_000_000) as reader,
        pytest.raises(WarehouseError, match="Out of Memory"),
    ):
        list(reader.read(Relation(query=query), ["a"]))


@pytest.mark.parametrize("rows", ["None", "Window('at', since, until)", "Keys('i', ['0', '1', '2'])"])
def test_a_long_read_keeps_memory_flat(root: Path, rows: str) -> None:
    """Two million rows pass through a process that grows by a fraction of their size, whichever rows are asked for."""
    code = f"""
        import resource, sys
        from datetime import UTC, datetime
        from pathlib import Path
        from connector.warehouses._base import Keys, Relation, Window
        from connector.warehouses.duckdb import DuckDB
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        since, until = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
        columns = "'customer' || range || '@example.com' AS s, range / 7 AS f, TIMESTAMP '2026-01-01' AS at"
        query = f"SELECT range % 3 AS i, {{columns}} FROM range({{{{}}}})"
        with DuckDB(type="duckdb", path="w.duckdb").open(Path(sys.argv[1]), memory=300_000_000) as reader:
            read = lambda n: sum(
                f.height for f in reader.read(Relation(query=query.format(n)), ["i", "s", "f"], {rows})
            )
            read(200_000)
            before = peak()
            print(read(2_000_000), peak() - before)
    """
    done = _python(code, root)
    assert done.returncode == 0, done.stderr
    count, megabytes = map(int, done.stdout.split())
    assert count == 2_000_000
    assert megabytes < 60  # the rows themselves are about 100 MB


def test_settings_load_without_the_drivers() -> None:
    """Validating a file must not wait for DuckDB and Arrow to load."""
    done = _python("import connector.warehouses, sys; print({'duckdb', 'pyarrow'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


LONG_AGO = time.time() - 86_400


def _stamp(root: Path, table: str = "t", settings: DuckDB = SETTINGS) -> str | None:
    with settings.open(root, patience=0) as reader:
        return reader.stamp(Relation(table=table))


def _rest(root: Path) -> None:
    """The last write to the file was long ago, always at the same moment."""
    os.utime(root / "w.duckdb", (LONG_AGO, LONG_AGO))


def _write(root: Path, *statements: str) -> None:
    with duckdb.connect(root / "w.duckdb") as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_file_of_this_moment_has_no_stamp(root: Path) -> None:
    """It may be written to again at what its time of change takes for the same moment."""
    os.utime(root / "w.duckdb")
    assert _stamp(root) is None
    moment = time.time() + 3600  # of a clock that was set back
    os.utime(root / "w.duckdb", (moment, moment))
    assert _stamp(root) is None
    _rest(root)
    assert _stamp(root)


def test_a_write_shows_also_where_its_time_was_set_back(root: Path) -> None:
    """As a copy that keeps times does it, in place or by another file of the same size."""
    _rest(root)
    before = _stamp(root)
    _write(root, "UPDATE t SET s = 'other' WHERE i = 1")
    _rest(root)
    in_place = _stamp(root)
    copy = shutil.copy(root / "w.duckdb", root / "copy.duckdb")
    Path(copy).replace(root / "w.duckdb")
    _rest(root)
    assert len({before, in_place, _stamp(root), None}) == 4


def test_what_is_in_the_write_ahead_log_only_shows(root: Path) -> None:
    """A process that was killed leaves rows there, which the next one reads."""
    _rest(root)
    before = _stamp(root)
    code = """
        import duckdb, os, sys
        connection = duckdb.connect(sys.argv[1])
        connection.execute("SET checkpoint_threshold = '1TB'")
        connection.execute("INSERT INTO t VALUES (-1, 'new')")
        os._exit(0)
    """
    assert _python(code, root / "w.duckdb").returncode == 0
    _rest(root)
    assert (root / "w.duckdb.wal").stat().st_size
    assert _stamp(root) is None, "the log is of this moment"
    os.utime(root / "w.duckdb.wal", (LONG_AGO, LONG_AGO))
    assert _stamp(root) not in (None, before)


@pytest.mark.parametrize("statement", [
    "CREATE TABLE own (a INTEGER, b DOUBLE GENERATED ALWAYS AS (random()))", "CREATE VIEW own AS SELECT now() AS a",
    "CREATE SCHEMA other; CREATE TABLE other.own (a INTEGER); CREATE VIEW OWN AS SELECT 1 AS a",
])  # fmt: skip
def test_what_changes_by_itself_has_no_stamp(root: Path, statement: str) -> None:
    """A computed column and a view may read the clock."""
    _write(root, statement)
    _rest(root)
    assert _stamp(root, "own") is None
    assert _stamp(root)


def test_a_file_read_as_a_table_has_no_stamp(root: Path) -> None:
    """Its times are not those of the database."""
    pl.DataFrame({"a": [1]}).write_parquet(root / "export.parquet")
    _rest(root)
    assert _stamp(root, '"export.parquet"') is None
    assert _stamp(root, '"export.parquet"', DuckDB(type="duckdb", path=":memory:")) is None


def test_a_file_that_holds_our_snapshots_has_no_stamp(root: Path) -> None:
    """Each run of `engine: warehouse` writes to it, so that it would always look changed, by ourselves."""
    _write(root, "CREATE SCHEMA batch_connector", "CREATE TABLE batch_connector.s (k VARCHAR)")
    _rest(root)
    assert _stamp(root) is None
    assert _stamp(root, settings=DuckDB(type="duckdb", path="w.duckdb", state_schema="elsewhere"))
