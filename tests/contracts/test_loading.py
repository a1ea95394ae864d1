"""What loading does alike on every warehouse; each test reads back what others would see."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import POSITION, ColumnType, Load, Loaded, Loader, Relation, TargetColumn
from connector.warehouses._loading import require_rows
from tests.contracts.test_warehouses import WAREHOUSES, Bench

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
TABLE = "batch.profiles"
DTYPES: dict[ColumnType, Any] = {
    "text": pl.String,
    "json": pl.String,
    "integer": pl.Int64,
    "float": pl.Float64,
    "boolean": pl.Boolean,
    "timestamp": pl.Datetime("us", "UTC"),
}
OURS = (TargetColumn("export_id", "text"), TargetColumn("loaded_at", "timestamp"))
COLUMNS = (TargetColumn("custom_id", "text"), TargetColumn("plan", "text"), *OURS, TargetColumn("raw", "json"))

Row = tuple[str | None, str | None]
"""A custom ID and a plan."""

Write = Literal["replace", "append", "merge"]


@pytest.fixture(params=WAREHOUSES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return WAREHOUSES[request.param](tmp_path)


class Project:
    """A bench, and the files of exports that a test loads into it."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self._bench = bench
        self._root = root
        self._files = 0

    def file(self, columns: Sequence[TargetColumn], rows: Sequence[Sequence[Any]], start: int = 0) -> Path:
        """A Parquet file of these rows, whose positions begin with `start`."""
        self._files += 1
        file = self._root / f"it's [{self._files}]*.parquet"
        schema = {column.name: DTYPES[column.type] for column in columns}
        frame = pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
        frame.with_row_index(POSITION, start).cast({POSITION: pl.Int64}).write_parquet(file)
        return file

    def profiles(self, rows: Sequence[Row], export: str = "e1", start: int = 0, raw: str | None = None) -> Path:
        """The same of COLUMNS; `raw` is the last row's."""
        lines = [json.dumps({"id": key}) for key, _ in rows]
        if raw:
            lines[-1] = raw
        full = [(key, plan, export, NOON, line) for (key, plan), line in zip(rows, lines, strict=True)]
        return self.file(COLUMNS, full, start)

    def load(self, files: Sequence[Path], write: Write = "replace", export: str = "e1", **more: Any) -> Loaded:
        """What a connection of its own says after a load of `profiles`."""
        given = {"table": TABLE, "columns": COLUMNS, "key": "custom_id", **more}
        with self._bench.settings.load_into(self._root) as loader:
            return loader.load(Load(files=files, write=write, export_id=export, **given))

    def known(self, table: str = TABLE) -> list[TargetColumn] | None:
        """The table's columns."""
        with self._bench.settings.load_into(self._root) as loader:
            return loader.columns(table)

    def rows(self, *columns: str, table: str = TABLE) -> list[tuple[Any, ...]]:
        """What others see of the table, sorted."""
        with self._bench.settings.open(self._root) as reader:
            frames = list(reader.read(Relation(table), columns or ("custom_id", "plan", "export_id")))
        return sorted((row for frame in frames for row in frame.rows()), key=repr)


@pytest.fixture
def project(bench: Bench, tmp_path: Path) -> Project:
    return Project(bench, tmp_path)


@pytest.fixture
def loader(bench: Bench, tmp_path: Path) -> Iterator[Loader]:
    with bench.settings.load_into(tmp_path) as loader:
        yield loader


VALUES: dict[ColumnType, Any] = {
    "text": "Zoë 🚀\n'",
    "integer": -(2**53) - 1,
    "float": -0.1,
    "boolean": False,
    "timestamp": NOON,
    "json": '{"a":[1,null,"é"]}',
}


@pytest.mark.parametrize("table", ["profiles", "batch.profiles"])
def test_a_value_and_a_null_of_each_type_arrive_in_a_table_that_was_not_there(project: Project, table: str) -> None:
    """Schema, table and columns are made, and each value comes back as it went."""
    columns = [TargetColumn(f"of_{type_}", type_) for type_ in VALUES] + list(OURS)
    file = project.file(columns, [(*VALUES.values(), "e1", NOON), (*[None] * len(VALUES), "e1", NOON)])
    assert project.known(table) is None
    assert project.load([file], columns=columns, table=table, key=None) == Loaded(2, 2)
    assert project.known(table) == columns
    first, second = project.rows(*[column.name for column in columns], table=table)
    null, full = sorted((first, second), key=lambda row: row[0] is not None)
    assert null == (*[None] * len(VALUES), "e1", NOON)
    assert (*full[:5], json.loads(full[5]), *full[6:]) == (
        *list(VALUES.values())[:5],
        json.loads(VALUES["json"]),
        "e1",
        NOON,
    )


def test_json_is_a_type_of_its_own(bench: Bench, project: Project, tmp_path: Path) -> None:
    """People can query into it, and the connector reads it back as JSON, not as text."""
    project.load([project.profiles([("a", "free")])])
    with bench.settings.open(tmp_path) as reader:
        (raw,) = [column for column in reader.columns(Relation(TABLE)) if column.name.lower() == "raw"]
    assert raw.json


def test_replace_leaves_exactly_the_files_rows(project: Project) -> None:
    """Rows of earlier exports go, those of every file are there, and a repetition changes nothing."""
    project.load([project.profiles([("a", "old"), ("z", "old")], "e0")], export="e0")
    files = [project.profiles([("a", "free")]), project.profiles([("b", "pro")], start=1)]
    for _ in range(2):
        assert project.load(files) == Loaded(2, 2)
        assert project.rows() == [("a", "free", "e1"), ("b", "pro", "e1")]


def test_append_takes_the_place_of_its_own_export_alone(project: Project) -> None:
    """Each export's rows stay beside the others', once, however often one is loaded."""
    for export, plan in (("e1", "free"), ("e2", "pro"), ("e1", "plus")):
        assert project.load([project.profiles([("a", plan), (None, plan)], export)], "append", export) == Loaded(2, 2)
    assert project.rows("custom_id", "export_id", "plan") == [
        ("a", "e1", "plus"),
        ("a", "e2", "pro"),
        (None, "e1", "plus"),
        (None, "e2", "pro"),
    ]


def test_merge_leaves_keys_that_are_there_alone(project: Project) -> None:
    """An overlapping export adds what is new, and a repetition adds nothing."""
    assert project.load([project.profiles([("a", "free"), ("b", "free")])], "merge") == Loaded(2, 2)
    later = [project.profiles([("b", "pro"), ("c", "pro")], "e2")]
    assert project.load(later, "merge", "e2") == Loaded(2, 1)
    assert project.load(later, "merge", "e2") == Loaded(2, 0)
    assert project.rows() == [("a", "free", "e1"), ("b", "free", "e1"), ("c", "pro", "e2")]


def test_a_merge_repeated_holds_rows_without_a_key_once(project: Project) -> None:
    """Nothing tells them apart but their export: its own are taken anew, another's stay."""
    project.load([project.profiles([(None, "other")], "e0")], "merge", "e0")
    file = project.profiles([(None, "x"), (None, "x"), ("a", "free")])
    for inserted in (3, 2):
        assert project.load([file], "merge") == Loaded(3, inserted)
    assert project.rows("plan", "export_id") == [("free", "e1"), ("other", "e0"), ("x", "e1"), ("x", "e1")]


@pytest.mark.parametrize("write", ["replace", "append", "merge"])
def test_of_rows_with_one_key_the_last_counts(project: Project, write: Write) -> None:
    """Across files and in whatever order these are named; rows without a key all count."""
    first = project.profiles([("a", "first"), ("b", "only"), (None, "x"), ("a", "second")])
    second = project.profiles([(None, "x"), ("a", "last"), (None, "y")], start=4)
    assert project.load([second, first], write, repeated=True) == Loaded(5, 5)
    assert project.rows("plan", "custom_id") == [("last", "a"), ("only", "b"), ("x", None), ("x", None), ("y", None)]


def test_a_table_gains_columns_and_loses_none(project: Project) -> None:
    """Columns that a later export has are added, and those that it lacks are null in its rows."""
    project.load([project.profiles([("a", "free")], "e1")], "append")
    columns = [TargetColumn("custom_id", "text"), TargetColumn("points", "integer"), TargetColumn("tags", "json")]
    columns += OURS
    file = project.file(columns, [("b", 7, "[1]", "e2", NOON)])
    assert project.load([file], "append", "e2", columns=columns) == Loaded(1, 1)
    assert project.known() == [*COLUMNS, *columns[1:3]]
    assert project.rows("custom_id", "plan", "points") == [("a", "free", None), ("b", None, 7)]


def test_no_files_are_no_rows(project: Project) -> None:
    """An empty export that replaces empties the table, and one that adds leaves it."""
    project.load([project.profiles([("a", "free")])])
    for write, left in (("merge", 1), ("append", 0), ("replace", 0)):
        assert project.load([], write) == Loaded(0, 0)  # type: ignore[arg-type]
        assert len(project.rows()) == left


def test_a_table_of_somebody_else_is_refused(bench: Bench, project: Project) -> None:
    """A mistyped name must not empty the company's customers."""
    bench.create("customers", {"custom_id": "text", "plan": "text"}, [("a", "free")])
    with pytest.raises(WarehouseError, match=r"table 'customers' was not made by an export.*name another table"):
        project.load([project.profiles([("b", "pro")])], table="customers")
    assert project.rows("custom_id", "plan", table="customers") == [("a", "free")]
    assert project.known("customers") == [TargetColumn("custom_id", "text"), TargetColumn("plan", "text")]


def test_a_column_of_another_type_is_refused(project: Project) -> None:
    """Both types are named, and nothing is changed, not even a column added."""
    project.load([project.profiles([("a", "free")])])
    columns = [TargetColumn("plan", "integer"), TargetColumn("extra", "text"), *OURS]
    file = project.file(columns, [(7, "x", "e2", NOON)])
    with pytest.raises(WarehouseError, match=r"column 'plan' of table .* is of type text, and the export's is integer"):
        project.load([file], columns=columns, key=None)
    assert project.known() == list(COLUMNS)
    assert project.rows() == [("a", "free", "e1")]


def test_a_type_that_no_load_writes_is_told_as_other(bench: Bench, loader: Loader) -> None:
    """Somebody's own column in the table is no reason not to load."""
    bench.create("t", {"a": "text", "born_on": "date"}, [])
    assert loader.columns("t") == [TargetColumn("a", "text"), TargetColumn("born_on", "other")]


@pytest.fixture
def broken(project: Project) -> Callable[[Write], WarehouseError]:
    """A load that fails at its last row, whose value is s3cret, after everything before went well."""

    def fail(write: Write) -> WarehouseError:
        rows: list[Row] = [(f"k{number}", "new") for number in range(3000)]
        file = project.profiles(rows, raw='{"s3cret')
        with pytest.raises(WarehouseError, match=rf"table '{TABLE}'.*cannot be written") as raised:
            project.load([file], write)
        return raised.value

    return fail


@pytest.mark.parametrize("write", ["replace", "append"])
def test_a_load_that_fails_half_way_leaves_the_table_as_it_was(
    project: Project, broken: Callable[[Write], WarehouseError], write: Write
) -> None:
    """What was removed to make room is there again, the message quotes no value, and the next load is as the first."""
    project.load([project.profiles([("a", "free")])], write)
    assert "s3cret" not in str(broken(write))
    assert project.rows() == [("a", "free", "e1")]
    assert project.load([project.profiles([("b", "pro")])], write) == Loaded(1, 1)
    assert project.rows() == [("b", "pro", "e1")]


def test_a_failed_connection_serves_the_next_load(project: Project, loader: Loader) -> None:
    """A load that is rolled back leaves no transaction open behind it."""
    bad, good = project.profiles([("a", "free")], raw="{"), project.profiles([("a", "free")])
    load = Load(TABLE, COLUMNS, [bad], "replace", "e1", "custom_id")
    with pytest.raises(WarehouseError):
        loader.load(load)
    assert loader.load(load._replace(files=[good])) == Loaded(1, 1)
    assert loader.columns(TABLE) == list(COLUMNS)


def test_a_longer_export_arrives_whole(project: Project) -> None:
    """Twenty thousand rows in three files, some of them twice."""
    files = [
        project.profiles([(f"k{n}", "free") for n in range(6000 * number, 6000 * number + 8000)], start=8000 * number)
        for number in range(3)
    ]
    assert project.load(files, repeated=True) == Loaded(20_000, 20_000)
    assert len({key for (key,) in project.rows("custom_id")}) == 20_000


def test_rows_that_do_not_arrive_end_the_load(project: Project) -> None:
    """A part of an export is never taken for all of it."""
    load = Load(TABLE, COLUMNS, [project.profiles([("a", "free"), ("b", "pro")])], "replace", "e1", "custom_id")
    require_rows(load.table, load.files, 2)
    with pytest.raises(WarehouseError, match="1 of 2 rows came; run again"):
        require_rows(load.table, load.files, 1)


def test_an_export_id_is_never_sql(loader: Loader) -> None:
    """It stands in statements: one of another form is refused before anything is sent."""
    with pytest.raises(ValueError, match="other characters"):
        loader.load(Load(TABLE, COLUMNS, [], "append", "x' OR TRUE --", None))
    assert loader.columns(TABLE) is None
