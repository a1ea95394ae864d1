"""Laws of the diff over every type that a warehouse's column can have: values are told apart as Batch would tell them.

Each column comes with values and, beside each, what Batch is to hold of it: the model knows nothing of hashes.
"""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import WarehouseError
from connector.mapping import AttributeMapping, Column, Mapping, resolve
from connector.rules import AttributeType
from tests.laws.ceilings import lowered
from tests.laws.stores import Row, few, store

BAD = object()
"""Breaks a rule: the value stays back."""

NAIVE = datetime(2020, 2, 29, 12, tzinfo=UTC).replace(tzinfo=None)
PARIS = ZoneInfo("Europe/Paris")


@dataclass(frozen=True)
class Kind:
    """A column: its type, the attribute's, and its values, each with what Batch is to hold of it."""

    dtype: pl.DataType
    type: AttributeType | None
    values: tuple[tuple[Any, Any], ...]
    json: bool = False
    unordered: bool = False


def kind(dtype: pl.DataType, *values: tuple[Any, Any], as_: AttributeType | None = None, **more: bool) -> Kind:
    return Kind(dtype, as_, ((None, None), *values), **more)


def of_instants(unit: Any) -> Kind:
    """Naive timestamps of the source's zone, Paris: one that is there twice is the first, one that is not is no date."""
    return kind(
        pl.Datetime(unit),
        (NAIVE, "2020-02-29T11:00:00Z"),
        (NAIVE.replace(microsecond=1000), "2020-02-29T11:00:00.001Z"),
        *([] if unit == "ms" else [(NAIVE.replace(microsecond=1999), "2020-02-29T11:00:00.001Z")]),
        (NAIVE.replace(month=10, day=25, hour=2, minute=30), "2020-10-25T00:30:00Z"),
        (NAIVE.replace(month=3, day=29, hour=2, minute=30), BAD),
    )


NUMBERS = ((0.0, 0.0), (-0.0, 0.0), (1.5, 1.5), (float("nan"), BAD), (float("inf"), BAD), (float("-inf"), BAD))

KINDS: dict[str, Kind] = {
    "text": kind(pl.String(), ("", None), (" ", BAD), ("x", "x"), ("X", "X"), ("é'\"\\", "é'\"\\"), ("1", "1")),
    "cat": kind(pl.Categorical(), ("x", "x"), ("y", "y"), ("", None)),
    "enum": kind(pl.Enum(["x", "y"]), ("x", "x"), ("y", "y")),
    "digits": kind(pl.String(), ("7", 7), ("-0", 0), ("0", 0), ("", None), ("7.5", BAD), as_="integer"),
    "yes": kind(pl.String(), ("true", True), ("TRUE", True), ("false", False), ("1", BAD), as_="boolean"),
    "site": kind(pl.String(), ("https://a.example", "https://a.example"), ("a", BAD), ("", None), as_="url"),
    "flag": kind(pl.Boolean(), (True, True), (False, False)),
    "tiny": kind(pl.Int8(), (0, 0), (-128, -128), (1, 1)),
    "large": kind(pl.UInt64(), (0, 0), (2**63 - 1, 2**63 - 1), (2**63, BAD)),
    "whole": kind(pl.Int64(), (0, 0), (1, 1), (2**53, 2**53), (2**53 + 1, 2**53 + 1), (-(2**63), -(2**63))),
    "wide": kind(pl.Int128(), (1, 1), (2**63, BAD)),
    "bit": kind(pl.Int32(), (0, False), (1, True), (2, BAD), as_="boolean"),
    "single": kind(pl.Float32(), *NUMBERS, (0.1, 0.1)),
    "double": kind(pl.Float64(), *NUMBERS, (0.1, 0.1), (0.1 + 0.2, 0.1 + 0.2), (0.3, 0.3)),
    "money": kind(pl.Decimal(12, 2), (Decimal("1.10"), 1.1), (Decimal("1.00"), 1.0), (Decimal("0.00"), 0.0)),
    "count": kind(pl.Decimal(20, 0), (Decimal(1), 1), (Decimal(2**63), BAD)),
    "day": kind(pl.Date(), (date(2020, 2, 29), "2020-02-29T00:00:00Z"), (date(1, 1, 1), "0001-01-01T00:00:00Z")),
    "ms": of_instants("ms"),
    "us": of_instants("us"),
    "ns": of_instants("ns"),
    "paris": kind(
        pl.Datetime("us", "Europe/Paris"),
        (datetime(2020, 6, 1, 2, tzinfo=PARIS), "2020-06-01T00:00:00Z"),
        (datetime(2020, 6, 1, 1, tzinfo=PARIS), "2020-05-31T23:00:00Z"),
    ),
    "when": kind(
        pl.String(),
        ("2020-02-29", "2020-02-29T00:00:00Z"),
        ("2020-02-29T12:00:00", "2020-02-29T11:00:00Z"),
        ("2020-02-29 12:00:00+01:00", "2020-02-29T11:00:00Z"),
        ("", None),
        ("soon", BAD),
        as_="date",
    ),
    "tags": kind(
        pl.List(pl.String()), ([], None), (["x"], ["x"]), (["x", "y"], ["x", "y"]), (["y", "x"], ["y", "x"]),
        (["xy"], ["xy"]), (["x", None], BAD), ([""], BAD),
    ),
    "bag": kind(
        pl.List(pl.String()), ([], None), (["x", "y"], ["x", "y"]), (["y", "x"], ["x", "y"]), (["x", "x"], ["x"]),
        unordered=True,
    ),
    "pair": kind(pl.Array(pl.String(), 2), (["x", "y"], ["x", "y"]), (["y", "x"], ["y", "x"])),
    "places": kind(pl.List(pl.Int32()), ([], None), ([1], ["1"]), ([1, 2], ["1", "2"]), ([12], ["12"])),
    "shares": kind(pl.List(pl.Float64()), ([0.5], ["0.5"]), ([float("nan")], BAD)),
    "variant": kind(
        pl.String(), ('["x"]', ["x"]), ('[ "x" ]', ["x"]), ('["x", 1]', ["x", "1"]), ("[]", None), ("null", None),
        ('[["x"]]', BAD), ("{}", BAD), json=True,
    ),
}  # fmt: skip

Picks = dict[str, dict[str, int]]
"""A source: of each key's columns which of the kind's values it has."""


@cache
def mapping() -> Mapping:
    columns = [Column("k", pl.String()), *(Column(name, each.dtype, each.json) for name, each in KINDS.items())]
    wanted = {
        name: AttributeMapping(column=name, type=each.type, unordered=each.unordered) for name, each in KINDS.items()
    }
    return resolve(columns, "k", wanted, timezone="Europe/Paris")


def frame(source: Picks) -> pl.DataFrame:
    columns = {name: [each.values[picks[name]][0] for picks in source.values()] for name, each in KINDS.items()}
    return pl.DataFrame(
        {"k": pl.Series(list(source), dtype=pl.String)}
        | {name: pl.Series(values, dtype=KINDS[name].dtype, strict=False) for name, values in columns.items()}
    )


def told(source: Picks) -> dict[str, Row]:
    """What Batch is to hold of each key, BAD and null where it is not to be sent, or is to be cleared."""
    return {key: {name: KINDS[name].values[pick][1] for name, pick in picks.items()} for key, picks in source.items()}


def bare(attributes: Row) -> Row:
    return {
        name.removeprefix("date(").removeprefix("url(").removesuffix(")"): value for name, value in attributes.items()
    }


def differs(one: Any, other: Any) -> bool:
    """Of two values as Batch tells them apart: 1 and true are two, and what is not known equals nothing."""
    return BAD in (one, other) or json.dumps(one) != json.dumps(other)


PICKS = st.fixed_dictionaries({name: st.integers(0, len(each.values) - 1) for name, each in KINDS.items()})
SOURCE = st.dictionaries(st.sampled_from([f"k{number}" for number in range(6)]), PICKS, max_size=5)


@few
@given(st.lists(SOURCE, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_what_is_sent_is_what_differs_value_by_value(sources: list[Picks], random: Any) -> None:
    """Source after source, of each type: known rows send what differs and nothing else, and the same again sends nothing."""
    known: dict[str, Row] = {}
    with store() as delivered:
        for source in sources:
            planned = delivered.compared(frame(source), mapping(), cuts=(random.randint(0, 5),), remove=True)
            expected = {key: expected_of(known.get(key), row) for key, row in told(source).items()}
            gone = {key: dict.fromkeys(KINDS) for key in known if key not in source}
            assert {key: bare(sent) for key, sent in planned.sent.items()} == gone | {
                key: row for key, row in expected.items() if row
            }
            delivered.deliver(planned)
            known = {key: held_after(known.get(key), row) for key, row in told(source).items()}
            again = dict(random.sample(list(source.items()), len(source)))
            with lowered(random):
                assert delivered.compared(frame(again), mapping(), remove=True).changes.planned == 0


def expected_of(before: Row | None, row: Row) -> Row:
    """What is to be sent of a row: of a new one all that may be, nulls too."""
    return {
        name: value
        for name, value in row.items()
        if value is not BAD and (before is None or differs(before[name], value))
    }


def held_after(before: Row | None, row: Row) -> Row:
    """What Batch holds after that row: a value that stays back leaves what was there, of a new profile nobody knows."""
    return {name: (before[name] if before else BAD) if value is BAD else value for name, value in row.items()}


@pytest.mark.parametrize("name", KINDS)
def test_each_two_values_are_told_apart_as_batch_would(name: str) -> None:
    """From each value of a column to each other: it is sent where Batch would see another value, and else is not."""
    values = KINDS[name].values
    pairs = {f"from {one} to {other}": (one, other) for one in range(len(values)) for other in range(len(values))}
    rest = dict.fromkeys(KINDS, 0)
    with store() as delivered:
        for step in (0, 1):
            source = {key: {**rest, "tiny": 3, name: pair[step]} for key, pair in pairs.items()}
            planned = delivered.compared(frame(source), mapping())
            delivered.deliver(planned)
    expected = {
        key: {name: values[other][1]}
        for key, (one, other) in pairs.items()
        if values[other][1] is not BAD and differs(values[one][1], values[other][1])
    }
    assert {key: bare(sent) for key, sent in planned.sent.items()} == expected


@pytest.mark.parametrize("dtype", [pl.List(pl.List(pl.String)), pl.List(pl.Datetime("us")), pl.Struct({"x": pl.Int64})])
def test_what_no_attribute_can_hold_is_refused(dtype: pl.DataType) -> None:
    """Lists of lists, lists of timestamps and structs are no attribute of a profile: the mapping says so, nothing is guessed."""
    with pytest.raises(WarehouseError, match="attribute 'v', column 'v'"):
        resolve([Column("k", pl.String()), Column("v", dtype)], "k", {"v": AttributeMapping(column="v")})
