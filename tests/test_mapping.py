"""From columns to attributes: names, conventions, every mistake at once; and rows judged value by value."""

import polars as pl
import pytest

from connector.errors import WarehouseError
from connector.judging import WITHHELD, apply
from connector.mapping import KEY, AttributeMapping, Column, Mapping, resolve

TEXT = pl.String()


def conventional(*names: str, cursor: str | None = None) -> dict[str, str]:
    """Attribute keys as they are sent, by column, of a source with a key and these text columns."""
    times = {cursor: pl.Datetime("us")}
    columns = [Column("custom_id", TEXT), *(Column(name, times.get(name.lower(), TEXT)) for name in names)]
    mapping = resolve(columns, "custom_id", None, cursor=cursor)
    return {attribute.column: attribute.json_key for attribute in mapping.attributes}


def refused(columns: list[Column], key: str = "custom_id", **attributes: AttributeMapping) -> str:
    with pytest.raises(WarehouseError) as caught:
        resolve(columns, key, attributes or None)
    assert caught.value.remedy
    return caught.value.message


def test_conventions() -> None:
    """Prefixes choose the type or the native attribute, everything is lower-cased, key and cursor stay out."""
    found = conventional("DATE__Birth", "url__site", "Batch__Language", "Plan", "LAST", cursor="last")
    assert found == {
        "DATE__Birth": "date(birth)", "url__site": "url(site)", "Batch__Language": "$language", "Plan": "plan",
    }  # fmt: skip


@pytest.mark.parametrize(("cursor", "word"), [("updated", "did you mean 'updated_at'"), ("city", "timestamp or date")])
def test_a_cursor_that_tells_no_time_is_refused_before_the_first_read(cursor: str, word: str) -> None:
    """A misspelt or textual cursor is found out by the first run, not by the one after it."""
    columns = [Column("custom_id", TEXT), Column("city", TEXT), Column("updated_at", pl.Datetime("us"))]
    with pytest.raises(WarehouseError, match=word):
        resolve(columns, "custom_id", None, cursor=cursor)


def test_a_prefix_counts_once() -> None:
    """Only the first prefix is one; a prefix with nothing after it is a name."""
    found = conventional("date__date__x", "date__", "__x", "url__batch__y")
    assert found == {
        "date__date__x": "date(date__x)",
        "date__": "date__",
        "__x": "__x",
        "url__batch__y": "url(batch__y)",
    }


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("Plan", "plan", "plan"),
        ("date__x", "X", "x"),
        ("url__x", "date__x", "x"),
        ("batch__region", "Batch__Region", "$region"),
    ],
)
def test_columns_that_collide_are_refused(first: str, second: str, name: str) -> None:
    """Two columns that become one attribute are both named."""
    message = refused([Column("custom_id", TEXT), Column(first, TEXT), Column(second, TEXT)])
    assert f"columns '{first}' and '{second}' both become attribute '{name}'" in message


@pytest.mark.parametrize("name", ["a b", "x" * 31, "é", "batch__unknown", "a-b", "date(x)"])
def test_bad_names_are_refused(name: str) -> None:
    """A column whose name no attribute can have is named, with what names may be."""
    message = refused([Column("custom_id", TEXT), Column(name, TEXT)])
    assert f"column '{name}' would become attribute" in message
    assert "1 to 30 of a-z, 0-9 and _" in message


def test_names_up_to_the_limit_go() -> None:
    """Thirty characters count without the wrapper, and a digit or underscore may come first."""
    assert conventional("date__" + "x" * 30, "0", "_") == {"date__" + "x" * 30: f"date({'x' * 30})", "0": "0", "_": "_"}


def test_missing_columns_are_all_named() -> None:
    """Every missing column in one error, each with what was meant or with what there is."""
    columns = [Column("custom_idd", TEXT), Column("plan", TEXT)]
    message = refused(columns, p=AttributeMapping(column="plam"), q=AttributeMapping(column="zzz"))
    assert "key: the source has no column 'custom_id'; did you mean 'custom_idd'?" in message
    assert "attribute 'p': the source has no column 'plam'; did you mean 'plan'?" in message
    assert "attribute 'q': the source has no column 'zzz'; it has custom_idd, plan" in message


def test_columns_match_without_case_unless_two_do() -> None:
    """ID is found as id; where two columns differ only in case, the exact one or none is meant."""
    one = resolve([Column("ID", TEXT), Column("Plan", TEXT)], "id", {"p": AttributeMapping(column="PLAN")})
    assert one.columns == ["ID", "Plan"]
    both = [Column("id", TEXT), Column("Plan", TEXT), Column("plan", TEXT)]
    assert resolve(both, "id", {"p": AttributeMapping(column="Plan")}).columns == ["id", "Plan"]
    assert "no column 'PLAN'" in refused(both, key="id", p=AttributeMapping(column="PLAN"))


def test_fifty_attributes_and_no_more() -> None:
    """An operation takes 50 attributes."""
    columns = [Column("custom_id", TEXT), *(Column(f"c{number}", TEXT) for number in range(51))]
    assert len(resolve(columns[:51], "custom_id", None).attributes) == 50
    assert "51 attributes, an operation takes 50" in refused(columns)


def test_one_column_may_feed_two_attributes() -> None:
    """A column is read once, whatever is made of it; the key column may be sent too."""
    columns = [Column("custom_id", TEXT), Column("n", pl.Int64())]
    attributes = {
        "a": AttributeMapping(column="n"), "b": AttributeMapping(column="n", type="string"),
        "c": AttributeMapping(column="custom_id"),
    }  # fmt: skip
    mapping = resolve(columns, "custom_id", attributes)
    assert mapping.columns == ["custom_id", "n"]
    row = apply(mapping, pl.DataFrame({"custom_id": ["k"], "n": [7]})).valid.row(0, named=True)
    assert (row["a"], row["b"], row["c"]) == (7, "7", "k")


@pytest.mark.parametrize("name", ["*", "^.*$", "^n$", "#key", "#reason", "a.b", 'quo"te'])
def test_column_names_are_taken_literally(name: str) -> None:
    """A column's name is no pattern, whatever it looks like."""
    mapping = resolve(
        [Column("k", TEXT), Column(name, TEXT), Column("n", TEXT)], "k", {"a": AttributeMapping(column=name)}
    )
    frame = pl.DataFrame({"k": ["key"], name: ["right"], "n": ["wrong"]})
    assert apply(mapping, frame).valid["a"].to_list() == ["right"]


def test_lists_in_pieces_are_judged_whatever_became_of_the_pieces_before() -> None:
    """A piece of one row that Polars evaluated before, joined with a slice of another, is judged as one piece would be."""
    mapping = resolve([Column("k", TEXT), Column("l", pl.List(pl.Int64()))], "k", None)
    one = pl.DataFrame({"k": ["a"], "l": [[1]]})
    others = pl.DataFrame({"k": ["b", "c", "d"], "l": [[7, 7], [2, 3], None]})
    one.select(pl.col("l").list.eval(pl.element().cast(pl.String)))
    assert apply(mapping, pl.concat([one, others[1:]])).valid["l"].to_list() == [["1"], ["2", "3"], None]


def test_a_date_that_no_calendar_holds_is_withheld_whatever_it_becomes() -> None:
    """PostgreSQL's 'infinity' as text, in a list and as a date: one bad value each, and Polars does not panic."""
    days = pl.Series([0, 2**31 - 1, -(2**31) + 1, None], dtype=pl.Int32).cast(pl.Date)
    frame = pl.DataFrame({"k": list("abcd"), "d": days, "l": days.reshape((-1, 1)).arr.to_list()}).with_columns(
        t=pl.Series(["2020-01-01", "+262142-12-31T23:59:60", "+262142-12-31 23:59:59", None])
    )
    columns = [Column(name, dtype) for name, dtype in frame.schema.items()]
    wanted = {
        "day": AttributeMapping(column="d"), "text": AttributeMapping(column="d", type="string"),
        "list": AttributeMapping(column="l"), "said": AttributeMapping(column="t", type="date"),
    }  # fmt: skip
    valid, rejected = apply(resolve(columns, "k", wanted, timezone="America/St_Johns"), frame)
    assert valid["text"].to_list() == ["1970-01-01", None, None, None]
    assert valid[WITHHELD].to_list()[:3] == [0, 0b1111, 0b1111]
    listed = rejected.filter((pl.col("attribute") == "list") & pl.col("key").is_in(["b", "c"]))
    assert listed["reason"].to_list() == ["an item is a date that no calendar holds"] * 2


def mapping_of_three() -> Mapping:
    columns = [Column("k", TEXT), Column("s", TEXT), Column("i", pl.UInt64()), Column("f", pl.Float64())]
    return resolve(columns, "k", None)


SECRETS = ["s3cret" * 51, "s3cret"]
FRAME = pl.DataFrame(
    {
        "k": ["good", "partly", "wholly", None, "NULL", "good"],
        "s": ["x", SECRETS[0], " ", SECRETS[1], "x", ""],
        "i": [1, 2, 2**64 - 1, 3, 2**64 - 1, None],
        "f": [0.5, 1.5, float("nan"), float("nan"), 1.0, None],
    },
    schema_overrides={"i": pl.UInt64()},
)


def test_a_bad_value_is_withheld_and_its_row_goes() -> None:
    """The bits tell which values stay back; the good values of the same row are there; bad keys are not."""
    valid = apply(mapping_of_three(), FRAME).valid
    assert valid.rows() == [
        ("good", "x", 1, 0.5, 0), ("partly", None, 2, 1.5, 0b001), ("wholly", None, None, None, 0b111),
        ("good", None, None, None, 0),
    ]  # fmt: skip
    assert valid.schema[WITHHELD] == pl.UInt64
    assert valid.columns == [KEY, "s", "i", "f", WITHHELD]


def test_rejects_name_key_attribute_and_reason() -> None:
    """One line a broken value, one a bad key whatever its values are; never a value."""
    rejected = apply(mapping_of_three(), FRAME).rejected
    assert set(rejected.select("key", "attribute").rows()) == {
        (None, None), ("NULL", None), ("partly", "s"), ("wholly", "s"), ("wholly", "i"), ("wholly", "f"),
    }  # fmt: skip
    assert rejected.height == 6
    assert not any("s3cret" in reason or str(2**64 - 1) in reason for reason in rejected["reason"])


def test_withheld_and_null_are_two_things() -> None:
    """A null value sets no bit: it is sent as null; a withheld one is not sent."""
    valid = apply(mapping_of_three(), FRAME).valid
    assert valid.select("s", "i", "f", WITHHELD).rows()[2:] == [(None, None, None, 0b111), (None, None, None, 0)]


def test_fifty_bits() -> None:
    """The last of fifty attributes has the last of fifty bits."""
    columns = [Column("k", TEXT), *(Column(f"c{number}", TEXT) for number in range(50))]
    frame = pl.DataFrame({"k": ["a"], **{f"c{number}": [" " if number == 49 else "x"] for number in range(50)}})
    assert apply(resolve(columns, "k", None), frame).valid[WITHHELD].to_list() == [1 << 49]


def test_an_empty_record_batch_keeps_its_types() -> None:
    """No rows give no rows, in the types that later batches will have."""
    full, empty = (apply(mapping_of_three(), frame) for frame in (FRAME, FRAME.clear()))
    assert (empty.valid.height, empty.rejected.height) == (0, 0)
    assert (empty.valid.schema, empty.rejected.schema) == (full.valid.schema, full.rejected.schema)
