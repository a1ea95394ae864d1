"""The SQL that BigQuery is sent, as text: much of it the emulator does not tell from other SQL, but the bill does."""

import json
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import WarehouseError
from connector.warehouses import _bigquery_sql as sql
from connector.warehouses._base import Changes, Keys, Window


class Declared(NamedTuple):
    name: str
    field_type: str
    mode: str = "NULLABLE"
    precision: int | None = None
    scale: int | None = None
    fields: tuple[Any, ...] = ()


SINCE, UNTIL = datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)


def _field(kind: str, name: str = "c") -> sql.Field:
    return sql.field(Declared(name, kind))


@pytest.mark.parametrize(
    ("kind", "since", "until"),
    [
        ("TIMESTAMP", SINCE, UNTIL),
        ("DATETIME", datetime(2026, 3, 1, 11), datetime(2026, 3, 2, 1, 0, 1)),  # noqa: DTZ001 - wall times
        ("DATE", date(2026, 3, 1), date(2026, 3, 3)),
    ],
)
def test_a_window_is_bound_in_the_column_s_own_type(kind: str, since: date, until: date) -> None:
    """The column stays bare and the bounds are parameters of its type: BigQuery skips partitions and blocks."""
    selection = sql.within(_field(kind), Window("c", SINCE, UNTIL, "Europe/Paris"))
    assert selection.where == " WHERE _connector_rows.`c` < @until AND _connector_rows.`c` >= @since"
    assert selection.parameters == (("until", kind, until), ("since", kind, since))


def test_a_feed_is_asked_by_commit_time_and_read_from_the_table() -> None:
    """Profiles come as they are today, by the keys that were written; events as they were added."""
    bound = (("since", "TIMESTAMP", SINCE), ("until", "TIMESTAMP", UNTIL))
    changed = sql.changed(_field("STRING"), "`p`.`d`.`t`", Changes("c", SINCE, UNTIL))
    among = "SELECT `c` FROM CHANGES(TABLE `p`.`d`.`t`, @since, @until)"
    assert changed == (f" WHERE _connector_rows.`c` IN ({among})", bound)
    added = sql.added("`p`.`d`.`t`", Changes(None, SINCE, UNTIL))
    assert added == ("APPENDS(TABLE `p`.`d`.`t`, @since, @until)", [("", bound)])


def test_a_window_without_a_start_has_one_bound() -> None:
    """The first incremental read takes everything until now, and no row without a stamp."""
    selection = sql.within(_field("TIMESTAMP"), Window("c", None, UNTIL))
    assert selection == (" WHERE _connector_rows.`c` < @until", (("until", "TIMESTAMP", UNTIL),))


@pytest.mark.parametrize(
    ("kind", "keys", "bound"),
    [
        ("STRING", ["007", "a'", "a'"], ["007", "a'"]),
        ("INTEGER", ["7", "-7", "007", "7.0", "x", "", "0", "9223372036854775808"], [7, -7, 0]),
        ("FLOAT", ["7", "7.5", "9007199254740993"], [7.0]),
        ("NUMERIC", ["7", "7.0", "1" + "0" * 29], ["7"]),
        ("BIGNUMERIC", ["-7"], ["-7"]),
    ],
)
def test_keys_are_bound_in_the_column_s_own_type(kind: str, keys: list[str], bound: list[object]) -> None:
    """The column stays bare; what cannot be the mapping's spelling of a value is not asked for."""
    (selection,) = sql.among(_field(kind), Keys("c", keys))
    assert selection.where == " WHERE _connector_rows.`c` IN UNNEST(@keys)"
    assert selection.parameters == (("keys", _field(kind).type, bound),)


def test_keys_that_no_row_can_have_ask_for_nothing() -> None:
    """No statement is billed for keys that are not the column's."""
    assert sql.among(_field("INTEGER"), Keys("c", ["x", "1.5"])) == []


def test_many_keys_are_joined_and_every_statement_fits_a_request() -> None:
    """A long list is not compared one by one, and what BigQuery would refuse as too large goes in several."""
    keys = [f"{number:0>400}é" for number in range(30_000)]
    selections = sql.among(_field("STRING"), Keys("c", keys))
    assert len(selections) == 3
    assert {each.where for each in selections} == {
        " WHERE _connector_rows.`c` IN (SELECT key FROM UNNEST(@keys) AS key)"
    }
    assert [key for each in selections for key in each.parameters[0].value] == keys  # type: ignore[union-attr]
    assert all(len(json.dumps([{"value": k} for k in each.parameters[0].value])) < 5_200_000 for each in selections)  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "same"), [("STRING", "{}"), ("FLOAT", "CAST({} AS STRING)")])
def test_the_latest_row_is_told_in_one_statement(kind: str, same: str) -> None:
    """BigQuery wants a condition before QUALIFY, and does not group by floats."""
    key = "_connector_rows.`k`"
    ranked = f"RANK() OVER (PARTITION BY {same.format(key)} ORDER BY _connector_rows.`c` DESC NULLS LAST)"
    selection = sql.newest(sql.Selection(), _field(kind, "k"), _field("TIMESTAMP"))
    assert selection.where == f" WHERE TRUE QUALIFY {ranked} = 1 OR {key} IS NULL"
    assert sql.newest(sql.Selection(" WHERE x"), _field(kind, "k"), _field("DATE")).where.startswith(" WHERE x QUALIFY")


def test_only_named_columns_are_selected() -> None:
    """Never `*`: BigQuery bills by column."""
    fields = [_field("STRING", "a`b"), _field("BIGNUMERIC", "n")]
    assert sql.select(fields, "`p`.`d`.`t`") == (
        "SELECT _connector_rows.`a\\`b` AS `a\\`b`, CAST(_connector_rows.`n` AS NUMERIC) AS `n` "
        "FROM `p`.`d`.`t` AS _connector_rows"
    )


@given(st.text(max_size=20))
def test_no_name_ends_its_own_quotes(name: str) -> None:
    """Whatever a column is called, it is one identifier."""
    inside = sql.quoted(name)[1:-1]
    assert "`" not in inside.replace("\\\\", "").replace("\\`", "")
    assert inside.replace("\\\\", "\0").replace("\\`", "`").replace("\0", "\\") == name or "\0" in name


TYPES = {
    "FLOAT": (pl.Float64(), False),
    "BOOLEAN": (pl.Boolean(), False),
    "BYTES": (pl.Binary(), False),
    "TIME": (pl.Time(), False),
    "JSON": (pl.String(), True),
    "NUMERIC": (pl.Decimal(38, 9), False),
    "BIGNUMERIC": (pl.Decimal(38, 9), False),
    "GEOGRAPHY": (pl.Object(), False),
    "INTERVAL": (pl.Object(), False),
    "RANGE": (pl.Object(), False),
    "TYPE_OF_TOMORROW": (pl.Object(), False),
}


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_read_as_what_it_means_or_not_at_all(kind: str) -> None:
    """What would arrive as a text that nobody asked for, or not at all, is announced as unreadable."""
    field = _field(kind)
    assert (field.dtype, field.json) == TYPES[kind]


def test_decimals_that_are_declared_whole_are_whole() -> None:
    """NUMERIC(20) becomes an integer attribute; NUMERIC(20, 2) and NUMERIC a float."""
    assert sql.field(Declared("n", "NUMERIC", precision=20)).dtype == pl.Decimal(38, 0)
    assert sql.field(Declared("n", "NUMERIC", precision=20, scale=2)).dtype == pl.Decimal(38, 9)


def test_nested_types_are_told_whole() -> None:
    """A message names the type as SQL does; one unreadable field makes the whole column so."""
    inner = (Declared("a b", "INTEGER"), Declared("g", "GEOGRAPHY", "REPEATED"))
    field = sql.field(Declared("s", "RECORD", "REPEATED", fields=inner))
    assert field.type == "ARRAY<STRUCT<`a b` INT64, `g` ARRAY<GEOGRAPHY>>>"
    assert field.dtype == pl.Object()
    assert sql.field(Declared("s", "RECORD", "REPEATED", fields=inner[:1])).dtype == pl.List(
        pl.Struct({"a b": pl.Int64})
    )


TABLES = {
    "t": ("acme", "main", "t"),
    "marts.t": ("acme", "marts", "t"),
    "other.marts.t": ("other", "marts", "t"),
    "`other.marts.t-1`": ("other", "marts", "t-1"),
    "`other`.`marts`.`t`": ("other", "marts", "t"),
    "acme.com:other.marts.t": ("acme.com:other", "marts", "t"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_named_as_in_the_console(name: str) -> None:
    """Two parts or three, with backticks or without; one where the warehouse names a dataset."""
    assert sql.table(name, "acme", "main") == TABLES[name]


@pytest.mark.parametrize("name", ["t", "", "marts.", ".t", "a..t"])
def test_a_table_that_is_nowhere_is_refused(name: str) -> None:
    """A table without a dataset says how to name one."""
    with pytest.raises(WarehouseError, match=r"is not of the form dataset\.table .*or set the warehouse's `dataset`"):
        sql.table(name, "acme", None)


ONE = [
    "SELECT 1",
    " (SELECT 1) UNION ALL (SELECT 2) ; ",
    "with x as (select 1) select * from x;\n-- done",
    "# a; comment\nSELECT ';' AS a, \";\" AS b, '''it's; \n''' AS c, `;` FROM t /* ; */ ;;",
    "FROM marts.t |> WHERE a > 1",
    "SELECT r'\\';' AS a, 'it\\'s;' AS b, 1-2 AS c, 4/2 AS d",
]


@pytest.mark.parametrize("query", ONE)
def test_one_select_becomes_a_subquery(query: str) -> None:
    """Semicolons in texts and comments end nothing; the one that ends the statement goes, a last comment stays."""
    text = sql.subquery(query)
    assert text.startswith("(\n")
    assert text.endswith("\n)")
    assert sql.subquery(text) == f"(\n{text}\n)"


@pytest.mark.parametrize(
    ("query", "got"),
    [
        ("SELECT 1; SELECT 2", "holds 2 statements"),
        ("SELECT '1\\'; SELECT 2", "SELECT"),
        (" ; -- SELECT 1\n # x\n /* y */", "holds 0 statements"),
        ("CREATE TEMP FUNCTION f() AS (1); SELECT f()", "holds 2 statements"),
        ("DELETE FROM t", "a statement of type DELETE"),
        ("EXPORT DATA OPTIONS() AS SELECT 1", "a statement of type EXPORT"),
        ("'SELECT 1'", "a statement of type ?"),
    ],
)
def test_anything_else_is_refused(query: str, got: str) -> None:
    """What is not one SELECT reaches BigQuery neither alone nor in brackets."""
    with pytest.raises(WarehouseError, match=r"exactly one SELECT") as raised:
        sql.subquery(query)
    assert got in str(raised.value)
