"""What loading does in DuckDB's own way: its file, its lock, its format, and a kill in the middle."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import POSITION, Load, Loaded, TargetColumn
from connector.warehouses.duckdb import DuckDB

SETTINGS = DuckDB(type="duckdb", path="w.duckdb")
COLUMNS = [TargetColumn("k", "text"), TargetColumn("export_id", "text"), TargetColumn("loaded_at", "timestamp")]
COLUMNS += [TargetColumn("raw", "json")]


def _load(root: Path, rows: int, export: str) -> Load:
    """A file `<export>.parquet` of so many rows, and its load into t."""
    number = pl.int_range(rows, eager=True).alias(POSITION)
    frame = pl.DataFrame(number).select(
        k=pl.format("key {}", POSITION),
        export_id=pl.lit(export),
        loaded_at=pl.lit(None, pl.Datetime("us", "UTC")),
        raw=pl.concat_str(pl.lit('{"of": "'), pl.col(POSITION).hash(), pl.lit('"}')),
        **{POSITION: pl.col(POSITION)},
    )
    frame.write_parquet(root / f"{export}.parquet")
    return Load("t", COLUMNS, [root / f"{export}.parquet"], "replace", export, "k")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with 10 rows of the export e0 in t."""
    duckdb.connect(tmp_path / "w.duckdb").close()
    with SETTINGS.load_into(tmp_path) as loader:
        loader.load(_load(tmp_path, 10, "e0"))
    return tmp_path / "w.duckdb"


def _counts(file: Path) -> dict[str, int]:
    """Rows by export."""
    with duckdb.connect(file, read_only=True) as connection:
        return dict(connection.execute("SELECT export_id, count(*) FROM t GROUP BY ALL").fetchall())


CODE = """
    import os, sys
    from pathlib import Path
    from connector.warehouses._base import Load, TargetColumn
    from connector.warehouses.duckdb import DuckDB
    root = Path(sys.argv[1])
    columns = [TargetColumn(*column.split(":")) for column in sys.argv[2].split()]
    with DuckDB(type="duckdb", path="w.duckdb").load_into(root) as loader:
        loader.load(Load("t", columns, [root / "e1.parquet"], "replace", "e1", "k"))
        os._exit(0)
"""


def _loading(root: Path) -> "subprocess.Popen[bytes]":
    """A process that loads e1.parquet, and ends without closing the file."""
    columns = " ".join(":".join(column) for column in COLUMNS)
    command = [sys.executable, "-c", textwrap.dedent(CODE), str(root), columns]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def test_a_kill_in_the_middle_leaves_what_was_there(file: Path) -> None:
    """Old rows removed and new ones half written: the next to open the file sees the old ones, and can load."""
    load = _load(file.parent, 400_000, "e1")
    before = file.stat().st_size
    with _loading(file.parent) as process:
        while file.stat().st_size < before + 1_000_000 and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    assert _counts(file) == {"e0": 10}
    with SETTINGS.load_into(file.parent) as loader:
        assert loader.load(load) == Loaded(400_000, 400_000)
    assert _counts(file) == {"e1": 400_000}


def test_a_kill_after_the_load_leaves_it_done(file: Path) -> None:
    """What `load` returned from is there, although nobody closed the file."""
    _load(file.parent, 1000, "e1")
    with _loading(file.parent) as process:
        assert process.wait() == 0
    assert _counts(file) == {"e1": 1000}


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """A typing error in the path does not start a new warehouse."""
    with pytest.raises(WarehouseError, match="there is no DuckDB file"), SETTINGS.load_into(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_memory_is_no_place_to_load_into(tmp_path: Path) -> None:
    """What is loaded there would be gone with the run."""
    with (
        pytest.raises(WarehouseError, match="':memory:' keeps nothing; name a warehouse whose path is a file"),
        DuckDB(type="duckdb", path=":memory:").load_into(tmp_path),
    ):
        pass


def test_a_file_that_is_read_is_waited_for_and_then_named(file: Path) -> None:
    """A reader holds the file, too; its process is named, and no other way is offered."""
    code = f"import duckdb; c = duckdb.connect({str(file)!r}, read_only=True); print(1, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(WarehouseError) as raised, SETTINGS.load_into(file.parent, patience=0):
            pass
        process.kill()
    assert f"is locked by process {process.pid} (" in str(raised.value)
    assert str(raised.value).endswith("; close it and run again")


def test_the_file_is_free_afterwards(file: Path) -> None:
    """Also after a load that failed."""
    broken = _load(file.parent, 10, "e1")._replace(files=[file.parent / "none.parquet"])
    with pytest.raises(WarehouseError, match=r"none\.parquet"), SETTINGS.load_into(file.parent) as loader:
        loader.load(broken)
    assert _counts(file) == {"e0": 10}


@pytest.mark.parametrize(("version", "compression"), [("v1.0.0", False), ("v1.5.0", True)])
def test_a_file_keeps_the_version_of_its_format(tmp_path: Path, version: str, compression: bool) -> None:
    """An older DuckDB that made the file can still read it; JSON is compressed as the format allows."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'w.duckdb'}' AS w (STORAGE_VERSION '{version}')")
        connection.execute("CREATE TABLE w.other AS SELECT 1 AS i")
    told = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'w'"
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
        before = connection.execute(told).fetchall()
    with SETTINGS.load_into(tmp_path) as loader:
        loader.load(_load(tmp_path, 50_000, "e1"))
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
        assert connection.execute(told).fetchall() == before
        used = connection.execute("SELECT compression FROM pragma_storage_info('t') WHERE column_name = 'raw'")
        assert any("ZSTD" in name for (name,) in used.fetchall()) == compression


def test_replacing_again_and_again_does_not_swell_the_file(file: Path) -> None:
    """The space of removed rows is used again: there is room for two loads, not for ten."""
    load = _load(file.parent, 50_000, "e1")
    sizes = []
    for _ in range(6):
        with SETTINGS.load_into(file.parent) as loader:
            loader.load(load)
        sizes.append(file.stat().st_size)
    assert sizes[-1] <= 2.5 * sizes[0]


def test_memory_and_spill_are_the_connection_s(file: Path) -> None:
    """The limit holds for what is loaded as it does for what is read."""
    spill = file.parent / "spill"
    with SETTINGS.load_into(file.parent, memory=300_000_000, spill=spill, tags={"sync": "x"}) as loader:
        told = "SELECT current_setting('memory_limit'), current_setting('temp_directory'), current_setting('TimeZone')"
        assert loader._connection.execute(told).fetchall() == [("286.1 MiB", str(spill), "UTC")]


def test_a_view_cannot_be_loaded_into(file: Path) -> None:
    """DuckDB's sentence says so, and that nothing was changed."""
    with duckdb.connect(file) as connection:
        connection.execute("CREATE VIEW v AS SELECT * FROM t")
    load = _load(file.parent, 1, "e1")._replace(table="v")
    with (
        SETTINGS.load_into(file.parent) as loader,
        pytest.raises(WarehouseError, match=r"table 'v' in .* cannot be written: .*the table is as it was"),
    ):
        loader.load(load)


def test_a_table_may_be_qualified_and_quoted(file: Path) -> None:
    """By the database's own name, and with a dot inside quotes."""
    load = _load(file.parent, 3, "e1")
    with SETTINGS.load_into(file.parent) as loader:
        for table in ("w.main.u", 'w."my.schema"."My Table"'):
            assert loader.load(load._replace(table=table)) == Loaded(3, 3)
            assert loader.load(load._replace(table=table, write="merge")) == Loaded(3, 0)
            assert loader.columns(table) == COLUMNS
