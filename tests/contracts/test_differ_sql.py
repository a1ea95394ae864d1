"""The statements of a comparison as text, and what a warehouse says that may not be written to."""

import os
from pathlib import Path

import duckdb
import pytest

from connector.errors import WarehouseError
from connector.warehouses._base import Relation
from connector.warehouses._bigquery_diff import BigQueryDiffer
from connector.warehouses._differ import Comparison
from connector.warehouses._diffing import Selected, SqlDiffer, Value
from connector.warehouses._snowflake_diff import SnowflakeDiffer
from connector.warehouses.duckdb import DuckDB

COMPARISON = Comparison(Relation("t"), "id", [("a_x", "x"), ("a_j", "j")])
SELECTED = Selected("t", "t.id", "CAST(t.id AS TEXT)", [Value("t.x"), Value("t.j", "TO_JSON({})")])


def differ(kind: str) -> SqlDiffer:
    """One without a connection: only its words are asked for."""
    found: type[SqlDiffer] = SnowflakeDiffer if kind == "snowflake" else BigQueryDiffer
    return found.__new__(found)


@pytest.mark.parametrize(("kind", "x", "here"), [("snowflake", '"A_X"', '"HERE"'), ("bigquery", "`a_x`", "`here`")])
def test_a_comparison_is_one_statement(kind: str, x: str, here: str) -> None:
    """One full outer join, so that nothing moves between its parts; JSON is compared as text."""
    text = differ(kind)._delta(COMPARISON, SELECTED, "snapshot", "keys")
    assert text.count("FULL OUTER JOIN snapshot AS p") == 1
    new = x.replace("a_", "new_a_").replace("A_", "NEW_A_")
    assert f"s.{new} IS DISTINCT FROM p.{x}" in text
    json = x.replace("a_x", "a_j").replace("A_X", "A_J")
    new_json = json.replace("a_", "new_a_").replace("A_", "NEW_A_")
    assert f"TO_JSON(s.{new_json}) IS DISTINCT FROM TO_JSON(p.{json})" in text
    assert f"s.{here} IS NULL" in text
    assert "LEFT JOIN keys AS q" in text


@pytest.mark.parametrize(
    ("kind", "bit"), [("snowflake", 'BITAND(m."TAKES", 2) <> 0'), ("bigquery", "(m.`takes` & 2) <> 0")]
)
def test_a_snapshot_moves_by_one_statement(kind: str, bit: str) -> None:
    """A MERGE: all rows or none; each value by its own bit."""
    text = differ(kind)._merge("snapshot", "delta", "marks", ["a_x", "a_j"])
    assert text.startswith("MERGE INTO snapshot AS t USING (SELECT ")
    assert f"CASE WHEN {bit} THEN d." in text
    assert [text.count(words) for words in ("THEN DELETE", "THEN UPDATE SET", "THEN INSERT")] == [1, 1, 1]


def test_a_part_of_the_source_never_tells_what_is_gone() -> None:
    """With a window, rows that the source lacks are told only of keys that were asked for."""
    found = differ("snowflake")
    part = Comparison(COMPARISON.source, "id", COMPARISON.attributes, asked=True)
    assert found._delta(part, SELECTED, "snapshot", None).endswith('WHERE s."HERE" IS NOT NULL')
    assert found._delta(part, SELECTED, "snapshot", "keys").endswith('WHERE s."HERE" IS NOT NULL OR q."K" IS NOT NULL')


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    """The message names the other engine as a way out."""
    file = tmp_path / "w.duckdb"
    duckdb.connect(str(file)).close()
    file.chmod(0o400)
    with pytest.raises(WarehouseError), DuckDB(type="duckdb", path="w.duckdb").diff_in(tmp_path):
        pass
