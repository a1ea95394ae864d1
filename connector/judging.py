"""Record batches held against the rules: what can be sent, and which rows and values stay back and why."""

from collections.abc import Mapping as Mappings
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from connector.mapping import KEY, Mapping
from connector.rules import Rule, Typed
from connector.values import as_source

WITHHELD = "#withheld"
"""UInt64, bit i set: attribute i's value breaks a rule."""

UNSEEN = "#unseen"
"""Boolean: a rule is broken that the values do not show."""


class Mapped(NamedTuple):
    """A record batch, judged.

    Attributes:
        valid: `#key` (String, not null), one column an attribute (type by `values.VALUE_DTYPE`, null where the
            source has no value or the value is withheld) and `#withheld`.
        rejected: One row a broken rule: `key` (String, null if the source's is), `attribute` (String, null: the whole
            row), `reason` (String).
    """

    valid: pl.DataFrame
    rejected: pl.DataFrame


def apply(mapping: Mapping, frame: pl.DataFrame) -> Mapped:
    """Judge a record batch: what can be sent, and every value and row that cannot, with its reason.

    Args:
        mapping: From `resolve`.
        frame: Holds at least `mapping.columns`.
    """
    names = [attribute.name for attribute in mapping.attributes]
    rows = judged(
        frame, [mapping.key.value.alias(KEY)], mapping.key.rules, dict(zip(names, mapping.values, strict=True))
    )
    return Mapped(valid(rows, [KEY], names), rejected(rows, [pl.col(KEY).alias("key")], names))


def unjudged(mapping: Mapping, frame: pl.DataFrame) -> pl.DataFrame:
    """A record batch as it would be sent if no value broke a rule.

    A row of it that equals one that Batch has accepted breaks none, unless `#unseen` says so.

    Args:
        mapping: From `resolve`.
        frame: Holds at least `mapping.columns`.

    Returns:
        The rows in their order: `#key` (String, null where there is none), one column an attribute (as in `Mapped`),
        and `#unseen` (Boolean: a rule is broken that the values do not show).
    """
    typed = dict(zip((attribute.name for attribute in mapping.attributes), mapping.values, strict=True))
    unseen = [rule for each in mapping.values for rule in each.rules if rule.unseen]
    found = (
        as_source(frame)
        .lazy()
        .select(
            mapping.key.value.alias(KEY),
            *(value.value.alias(name) for name, value in typed.items()),
            _broken(unseen).fill_null(value=False).alias(UNSEEN),
        )
    )
    return found.collect(engine="in-memory")


def judged(
    frame: pl.DataFrame, marks: Sequence[pl.Expr], whole: Sequence[Rule], values: Mappings[str, Typed]
) -> pl.DataFrame:
    """Every row with its marks, its values, and which rules they break.

    Args:
        frame: A record batch.
        marks: What makes the row's identity.
        whole: The rules of a row as a whole.
        values: Expressions and rules by attribute name.

    Returns:
        The marks, `#reason` (String, null: the row can be sent), each value, `#withheld` (UInt64, bit i set: attribute
        i's value breaks a rule) and, of attributes of which any value does, `#reason NAME`.
    """
    source = as_source(frame)
    found = source.lazy().select(
        *marks,
        _broken(whole).alias("#reason"),
        *(value.value.alias(name) for name, value in values.items()),
        *(_broken(value.rules).alias(f"#reason {name}") for name, value in values.items()),
    )
    rows = found.collect(engine="in-memory")  # lazy: what the rules of a value have in common is worked out once
    reasons = {"#reason": whole, **{f"#reason {name}": value.rules for name, value in values.items()}}
    clean = [name for name in reasons if not rows[name].any()]
    told = source.select(reason(rules).alias(name) for name, rules in reasons.items() if name not in clean)
    rows = rows.drop(name for name in clean if name != "#reason").with_columns(told)
    if "#reason" in clean:
        rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias("#reason"))
    broken = (
        pl.col(f"#reason {name}").is_not_null().cast(pl.UInt64) * (1 << bit)
        for bit, name in enumerate(values)
        if f"#reason {name}" not in clean
    )
    return rows.with_columns(pl.sum_horizontal(pl.lit(0, pl.UInt64), *broken).alias(WITHHELD))


def valid(rows: pl.DataFrame, marks: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
    """Of judged rows those that can be sent: marks, values (null where one breaks a rule) and `#withheld`."""
    good = rows if rows["#reason"].null_count() == rows.height else rows.filter(pl.col("#reason").is_null())
    kept = (
        pl.when(pl.col(f"#reason {name}").is_null()).then(pl.col(name)).alias(name)
        for name in names
        if f"#reason {name}" in rows.columns
    )
    return good.with_columns(kept).select(*marks, *names, WITHHELD)


def rejected(rows: pl.DataFrame, marks: Sequence[pl.Expr], names: Sequence[str]) -> pl.DataFrame:
    """Of judged rows one row a broken rule: marks, `attribute` (String, null: the whole row), `reason` (String)."""
    whole = rows.filter(pl.col("#reason").is_not_null())
    parts = [whole.select(*marks, pl.lit(None, dtype=pl.String).alias("attribute"), pl.col("#reason").alias("reason"))]
    suspects = rows.filter(pl.col("#reason").is_null() & (pl.col(WITHHELD) != 0))
    if suspects.height:
        parts += [
            suspects.filter(pl.col(f"#reason {name}").is_not_null()).select(
                *marks, pl.lit(name).alias("attribute"), pl.col(f"#reason {name}").alias("reason")
            )
            for name in names
            if f"#reason {name}" in rows.columns
        ]
    return pl.concat(parts)


def keys(mapping: Mapping, frame: pl.DataFrame) -> pl.DataFrame:
    """`#key` (String, as it would be sent) and `reason` (String, null where the key serves) of each row.

    Args:
        mapping: From `resolve`.
        frame: Holds at least `mapping.key_column`.
    """
    return as_source(frame).select(mapping.key.value.alias(KEY), reason(mapping.key.rules).alias("reason"))


def reason(broken: Sequence[Rule]) -> pl.Expr:
    """The first broken rule's reason (String), null where none is."""
    return pl.coalesce(*(pl.when(rule.broken).then(_told(rule)) for rule in broken), pl.lit(None, dtype=pl.String))


def _broken(rules: Sequence[Rule]) -> pl.Expr:
    """Whether any rule is broken (Boolean)."""
    return pl.any_horizontal(rule.broken for rule in rules) if rules else pl.lit(value=False)


def _told(rule: Rule) -> pl.Expr:
    return rule.reason if isinstance(rule.reason, pl.Expr) else pl.lit(rule.reason)
