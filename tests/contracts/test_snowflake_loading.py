"""What loading does in Snowflake's own way: its stages, its names, its rights, and a session that ends under it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
import snowflake.connector as driver

from connector.errors import WarehouseError
from connector.warehouses import _snowflake_load as loading
from connector.warehouses._base import POSITION, Load, Loaded, Loader, TargetColumn
from connector.warehouses._snowflake_errors import translated
from tests.emulators.snowflake_bench import SnowflakeBench

COLUMNS = [TargetColumn("k", "text"), TargetColumn("export_id", "text"), TargetColumn("loaded_at", "timestamp")]


@pytest.fixture
def bench(tmp_path: Path) -> SnowflakeBench:
    return SnowflakeBench(tmp_path)


@pytest.fixture
def loader(bench: SnowflakeBench, tmp_path: Path) -> Iterator[Loader]:
    with bench.settings.load_into(tmp_path, tags={"sync": "profiles", "run": "r1"}) as loader:
        yield loader


def _load(root: Path, keys: Sequence[str], table: str = "batch.t") -> Load:
    rows = {"k": keys, "export_id": ["e1"] * len(keys), POSITION: range(len(keys))}
    frame = pl.DataFrame(rows).with_columns(loaded_at=pl.lit(None, pl.Datetime("us", "UTC")))
    file = root / f"{'_'.join(keys)}.parquet"
    frame.write_parquet(file)
    return Load(table, COLUMNS, [file], "replace", "e1", "k")


def _tables(bench: SnowflakeBench) -> list[str]:
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'BATCH'"
    return sorted(name for (name,) in bench.execute(query))


def _statements(bench: SnowflakeBench) -> list[str]:
    return [entry["sql"] for entry in bench.diary() if "sql" in entry and not entry["describe"]]


def test_the_session_says_what_it_loads_for(bench: SnowflakeBench, loader: Loader, tmp_path: Path) -> None:
    """The tag of every statement names the sync and the run beside us."""
    loader.load(_load(tmp_path, ["a"]))
    (login,) = (entry["login"] for entry in bench.diary() if "login" in entry and "QUERY_TAG" in str(entry))
    tag = {"app": "batch-warehouse-connector", "sync": "profiles", "run": "r1"}
    assert json.loads(login["SESSION_PARAMETERS"]["QUERY_TAG"]) == tag


def test_the_visible_change_is_one_transaction(bench: SnowflakeBench, loader: Loader, tmp_path: Path) -> None:
    """Between its beginning and its end stand a DELETE and an INSERT, and nothing that Snowflake would commit at."""
    loader.load(_load(tmp_path, ["a"]))
    words = [statement.split()[0] for statement in _statements(bench)]
    start = words.index("BEGIN")
    assert words[start : start + 4] == ["BEGIN", "DELETE", "INSERT", "COMMIT"]


def test_a_left_over_staging_table_is_replaced_and_none_is_left(
    bench: SnowflakeBench, loader: Loader, tmp_path: Path
) -> None:
    """A load that was killed does not stand in the way of the next one of the same export."""
    load = _load(tmp_path, ["a"])
    loader.load(load)
    (made,) = (text for text in _statements(bench) if "TRANSIENT" in text)
    name = made.split()[5]
    bench.execute(f"CREATE TABLE {name} (other NUMBER)", f"INSERT INTO {name} VALUES (1)")
    assert len(_tables(bench)) == 2
    assert loader.load(load) == Loaded(1, 1)
    assert _tables(bench) == ["T"]


@pytest.mark.parametrize("word", ["PUT", "COPY", "DELETE", "INSERT", "COMMIT"])
def test_a_session_that_ends_at_any_statement_leaves_the_table(
    bench: SnowflakeBench, loader: Loader, tmp_path: Path, word: str
) -> None:
    """Others see the rows of before, and the staging table goes where it still can."""
    loader.load(_load(tmp_path, ["a"]))
    bench.fail(word)
    with pytest.raises(WarehouseError, match=r"table 'batch\.t' cannot be written: the connection broke off"):
        loader.load(_load(tmp_path, ["b", "c"]))
    assert bench.execute("SELECT k FROM batch.t") == [("a",)]
    assert _tables(bench) == ["T"]


def test_files_of_one_name_are_kept_apart(loader: Loader, tmp_path: Path) -> None:
    """Exports in folders of their own have parts of the same name, and none is put over another."""
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    load, other = _load(tmp_path / "1", ["a"]), _load(tmp_path / "2", ["a"])
    assert loader.load(load._replace(files=[*load.files, *other.files])) == Loaded(2, 2)


@pytest.mark.parametrize(
    ("table", "stored"),
    [("Batch.Profiles", '"BATCH"."PROFILES"'), ('"MyBatch"."Profiles_é"', '"MyBatch"."Profiles_é"')],
)
def test_names_fold_as_snowflake_folds_them(
    bench: SnowflakeBench, loader: Loader, tmp_path: Path, table: str, stored: str
) -> None:
    """People find the table and its columns without quotes, unless the YAML has some."""
    load = _load(tmp_path, ["a"], table)
    for _ in range(2):
        assert loader.load(load) == Loaded(1, 1)
    assert f'CREATE TABLE IF NOT EXISTS {stored} ("K" VARCHAR, "EXPORT_ID" VARCHAR, "LOADED_AT" ' in str(
        _statements(bench)
    )
    assert bench.execute(f"SELECT k, export_id FROM {stored}") == [("a", "e1")]
    assert loader.columns(table) == COLUMNS


REFUSALS = [
    ("Insufficient privileges to operate on schema 'BATCH'", 3001, "42501"),
    ("Schema 'ANALYTICS.BATCH' does not exist or not authorized.", 2003, "02000"),
]


@pytest.mark.parametrize(("said", "number", "state"), REFUSALS)
def test_a_missing_right_is_named(said: str, number: int, state: str) -> None:
    """Snowflake's sentence says on what, ours which rights."""
    with pytest.raises(WarehouseError) as raised, translated("table 't' cannot be written", loading._REMEDIES):
        raise driver.ProgrammingError(said, errno=number, sqlstate=state)
    assert said.rstrip(".") in str(raised.value)
    assert "USAGE, CREATE TABLE and CREATE STAGE on the schema" in str(raised.value)


@pytest.mark.parametrize("name", ["it's", "two words", "Zoë", "a*[b]?"])
def test_a_folder_of_any_name_serves(loader: Loader, tmp_path: Path, name: str) -> None:
    """PUT would take some for patterns, and the driver's version 4 for the end of the path."""
    (tmp_path / name).mkdir()
    assert loader.load(_load(tmp_path / name, ["a"])) == Loaded(1, 1)
