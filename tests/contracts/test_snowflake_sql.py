"""The SQL that Snowflake is sent: what the emulator would let pass as well, held as text."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import WarehouseError
from connector.warehouses import _snowflake_sql as sql
from connector.warehouses._base import Changes, Keys, Relation, Window

UTC_TIME = pl.Datetime("us", "UTC")
TYPES = [
    (0, 38, 0, "NUMBER(38,0)", pl.Decimal(38, 0), False),
    (0, 19, 0, "NUMBER(19,0)", pl.Decimal(38, 0), False),
    (0, 18, 0, "NUMBER(18,0)", pl.Int64, False),
    (0, 12, 2, "NUMBER(12,2)", pl.Decimal(12, 2), False),
    (1, None, None, "FLOAT", pl.Float64, False),
    (2, None, None, "TEXT", pl.String, False),
    (3, None, None, "DATE", pl.Date, False),
    (5, None, None, "VARIANT", pl.String, True),
    (6, 0, 9, "TIMESTAMP_LTZ", UTC_TIME, False),
    (7, 0, 9, "TIMESTAMP_TZ", UTC_TIME, False),
    (8, 0, 9, "TIMESTAMP_NTZ", pl.Datetime("us"), False),
    (9, None, None, "OBJECT", pl.String, True),
    (10, None, None, "ARRAY", pl.String, True),
    (11, None, None, "BINARY", pl.Object, False),
    (12, 0, 9, "TIME", pl.Object, False),
    (13, None, None, "BOOLEAN", pl.Boolean, False),
    (14, None, None, "GEOGRAPHY", pl.Object, False),
    (16, None, None, "VECTOR", pl.Object, False),
    (99, None, None, "of code 99", pl.Object, False),
]

SINCE = datetime(2026, 3, 1, 10, tzinfo=UTC)
UNTIL = datetime(2026, 3, 2, 12, 0, 0, 1, tzinfo=UTC)


def _field(code: int, precision: int | None = None, scale: int | None = None, name: str = "C") -> sql.Field:
    return sql.field(sql.Described(name, code, precision, scale))


@pytest.mark.parametrize(("code", "precision", "scale", "type_", "dtype", "json"), TYPES, ids=[row[3] for row in TYPES])
def test_each_type_has_one_reading(
    code: int, precision: int | None, scale: int | None, type_: str, dtype: Any, json: bool
) -> None:
    """A type is read as what holds all its values, or is told to be unreadable; a type of tomorrow is, too."""
    field = _field(code, precision, scale)
    assert (field.type, field.dtype, field.json) == (type_, dtype, json)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("customers", '"CUSTOMERS"'),
        ("Marts.customers", '"MARTS"."CUSTOMERS"'),
        ('raw."Orders".v_2$', '"RAW"."Orders"."V_2$"'),
        ('"a.b"."say ""hi"""', '"a.b"."say ""hi"""'),
    ],
)
def test_a_table_s_name_folds_as_in_snowflake(written: str, stored: str) -> None:
    """What is not in quotes becomes upper case, what is stays, and all is quoted, so that no name is SQL."""
    assert sql.source(Relation(written)) == stored


@pytest.mark.parametrize("stored", ["CUSTOMERS", "V_2$", "Orders", "two words", 'say "hi"', "ÜNI", "1ST", "a.b"])
def test_a_stored_name_is_shown_as_it_can_be_written(stored: str) -> None:
    """Who copies a name from a message finds the table."""
    assert sql.source(Relation(sql.written(stored))) == sql.quoted(stored)


def test_a_read_names_its_columns_and_nothing_else() -> None:
    """Columns are quoted as stored and come under the names asked for; there is no `*`."""
    fields = [(_field(2, name='A"B'), "x"), (_field(2, name="C"), "c")]
    assert sql.select(fields, sql.source(Relation("t"))) == 'SELECT "A""B" AS "x", "C" AS "c" FROM "T"'


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("select 1", "select 1"),
        ("  WITH a AS (SELECT ';') SELECT * FROM a ; ", "  WITH a AS (SELECT ';') SELECT * FROM a "),
        ("/* a; b */ (select 1) -- ;\n;\n// c;\n;", "/* a; b */ (select 1) -- ;\n"),
        ("select 'it''s; \\'?' as \"a;?\", $$;?$$", "select 'it''s; \\'?' as \"a;?\", $$;?$$"),
        ("select a:b::int, 'https://x' from t -- what?", "select a:b::int, 'https://x' from t -- what?"),
    ],
)
def test_a_query_s_end_is_found(query: str, kept: str) -> None:
    """Semicolons and question marks in texts, names and comments end nothing and ask for nothing."""
    assert sql.one_select(query) == kept
    assert sql.source(Relation(query=query)) == f"(\n{kept}\n)"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "holds 0 statements"),
        (" ;; /* select 1 */", "holds 0 statements"),
        ("select 1; select 2", "holds 2 statements"),
        ("select 1; drop table t", "holds 2 statements"),
        ("delete from t", "begins with DELETE"),
        ("call p()", "begins with CALL"),
        ("begin select 1; end", "holds 2 statements"),
        ("select ?", "has parameters"),
        ("show tables", "begins with SHOW"),
    ],
)
def test_what_is_not_one_select_is_refused(query: str, words: str) -> None:
    """Nothing that could change the warehouse is sent."""
    with pytest.raises(WarehouseError, match=words):
        sql.one_select(query)


@given(st.text("ab'\"$-/*;? \n\\", max_size=30))
def test_the_rest_of_a_query_never_slips_through(text: str) -> None:
    """Whatever stands in it: what is kept is the query's beginning, and its rest holds no other statement."""
    try:
        kept = sql.one_select(f"select {text}")
    except WarehouseError:
        return
    rest = f"select {text}"[len(kept) :]
    assert f"select {text}" == kept + rest
    if rest:
        with pytest.raises(WarehouseError, match="holds 0"):
            sql.one_select(rest)


WINDOWS = [
    (8, "TIMESTAMP_NTZ", ("2026-03-02T12:00:00.000001", "2026-03-01T10:00:00.000000")),
    (7, "TIMESTAMP_TZ", ("2026-03-02T12:00:00.000001+00:00", "2026-03-01T10:00:00.000000+00:00")),
    (6, "TIMESTAMP_LTZ", ("2026-03-02T12:00:00.000001+00:00", "2026-03-01T10:00:00.000000+00:00")),
    (3, "DATE", ("2026-03-03", "2026-03-01")),
]


@pytest.mark.parametrize(("code", "type_", "bound"), WINDOWS, ids=[row[1] for row in WINDOWS])
def test_a_window_is_bound_in_the_column_s_own_type(code: int, type_: str, bound: tuple[str, ...]) -> None:
    """The column stays bare, so that partitions are skipped; no value stands in the statement."""
    both = sql.within(_field(code), Window("c", SINCE, UNTIL))
    assert both == (f'WHERE "C" < CAST(? AS {type_}) AND "C" >= CAST(? AS {type_})', bound)
    assert sql.within(_field(code), Window("c", None, UNTIL)) == (f'WHERE "C" < CAST(? AS {type_})', bound[:1])


def test_a_day_that_has_not_begun_is_in_no_window() -> None:
    """A window that ends at midnight does not take the next day."""
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert sql.within(_field(3), Window("c", None, midnight)).bound == ("2026-03-02",)
    assert sql.within(_field(3), Window("c", None, midnight + timedelta(microseconds=1))).bound == ("2026-03-03",)


def test_keys_are_bound_and_compared_in_the_column_s_own_type() -> None:
    """A statement holds no key, and reads a number only in the spelling that the mapping gives it."""
    (text,) = sql.among(_field(2), Keys("c", ["it's", "it's", "ü"]))
    assert text.where == (
        'WHERE "C" IN (SELECT CAST(value AS VARCHAR) AS k FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?))))'
    )
    assert text.bound == ('["it\'s", "ü"]',)
    (number,) = sql.among(_field(0, 12, 2), Keys("c", ["7"]))
    assert "SELECT TRY_CAST(k AS NUMBER(12,2))" in number.where
    assert "WHERE TO_VARCHAR(TRY_CAST(k AS NUMBER(10,0))) = k" in number.where
    (share,) = sql.among(_field(0, 2, 2), Keys("c", ["0"]))
    assert "TRY_CAST(k AS NUMBER(1,0))" in share.where


def test_a_feed_is_asked_by_commit_time_and_read_from_the_table() -> None:
    """Moments are literals, as time travel takes constants alone; profiles come as they are today, events as added."""
    during = "AT (TIMESTAMP => '2026-03-01T10:00:00+00:00'::TIMESTAMP_TZ)"
    until = "END (TIMESTAMP => '2026-03-02T12:00:00.000001+00:00'::TIMESTAMP_TZ)"
    relation = Relation("marts.customers")
    changed = sql.changed(_field(2, name="CUSTOM_ID"), relation, Changes("custom_id", SINCE, UNTIL))
    recorded = f'"MARTS"."CUSTOMERS" CHANGES (INFORMATION => DEFAULT) {during} {until}'
    assert changed == (f'WHERE "CUSTOM_ID" IN (SELECT "CUSTOM_ID" FROM {recorded})', ())
    added = sql.written_in(relation, Changes(None, SINCE, UNTIL))
    assert added == f'"MARTS"."CUSTOMERS" CHANGES (INFORMATION => APPEND_ONLY) {during} {until}'


def test_keys_come_in_slices() -> None:
    """However many there are, a bound text stays below what Snowflake takes."""
    slices = sql.among(_field(2), Keys("c", [str(i) for i in range(2 * sql.KEY_SLICE + 1)]))
    assert len(slices) == 3
    assert sql.among(_field(2), Keys("c", [])) == []


def test_the_newest_rows_are_told_by_rank() -> None:
    """Rows that tie all stay, and so do rows without a key."""
    newest = sql.newest(sql.Selection("WHERE x", ("1",)), "K", "AT")
    assert newest == (
        'WHERE x QUALIFY RANK() OVER (PARTITION BY "K" ORDER BY "AT" DESC NULLS LAST) = 1 OR "K" IS NULL',
        ("1",),
    )
