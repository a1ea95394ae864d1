"""Which keys are due at the next runs, and since which request nobody knows what Batch holds of them."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from connector.mapping import KEY
from connector.settled import ACCEPTED, REFUSED, UNKNOWN
from connector.state.runs import DUE_SCHEMA

_DUE = list(DUE_SCHEMA)
_AT_ONCE = pl.lit(0.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """What this run's read has shown, and a killed run's has not.

    Attributes:
        invalid: `key`, `attribute`, `reason` of what breaks a rule.
        withheld: `key` of rows with a value that stays back.
        done: Keys that were due and have nothing to send: gone from the source, or equal to what Batch has.
        keys: The only keys that were read; None: all that could be due.
        full: The whole source was read.
        cursor: Upper end of the window, and the scope that it is good for, if the cursor moves.
        stamp: What tells the next run that the source did not change since, where nothing stays to be done.
    """

    invalid: pl.DataFrame
    withheld: pl.DataFrame
    done: list[str]
    keys: list[str] | None = None
    full: bool = True
    cursor: dict[str, str] | None = None
    stamp: dict[str, Any] | None = None


def due_after(
    before: pl.DataFrame, answers: pl.DataFrame, times: tuple[float, float], judged: Judged | None
) -> pl.DataFrame:
    """The keys that are due at the next runs (DUE_SCHEMA).

    An unknown outcome makes a key due at once and, because the lost request may still be applied late, once more after
    the quiet time.

    Args:
        before: Those that were due (DUE_SCHEMA).
        answers: `key`, `source_hash`, `outcome`, `unknown_at`, `partly` of what was sent.
        times: When the run began, by `State.now`, and the quiet time in seconds.
        judged: What the read has shown; None for a killed run.
    """
    began, quiet = times
    due = before
    if judged:  # but what a lost request may still bring is waited for
        due = due.filter(~pl.col("key").is_in(judged.done) | _in_doubt(began, quiet=False))
    if answers.height:
        due = pl.concat([_undecided(due, answers, began), _from_answers(answers, quiet)])
    if judged:
        again = pl.col("reason") == "withheld"
        if judged.keys is not None:
            again &= pl.col("key").is_in(judged.keys)
        held = _entries(
            judged.withheld.with_columns(pl.lit(0, pl.UInt64).alias("source_hash")), "withheld", pl.lit(value=False)
        )
        due = pl.concat([due.filter(~again), held.unique("key")])
    return due.unique(["key", "reason"], keep="last")


def lapsed_keys(due: pl.DataFrame, judged: Judged | None, began: float) -> pl.Series:
    """Keys of unknown outcome that no request can mend: there is nothing to send, and nothing comes late any more.

    Args:
        due: The keys that were due (DUE_SCHEMA).
        judged: What the read has shown; None for a killed run: then there are none.
        began: When the run began, by `State.now`.
    """
    done = due.filter(pl.col("key").is_in(judged.done if judged else []) & _in_doubt(began, quiet=True))
    return done["key"].unique().alias(KEY)


def _in_doubt(began: float, *, quiet: bool) -> pl.Expr:
    """Entries of unknown outcome whose quiet time had, or had not, ended when the run began."""
    over = pl.col("quiet_until") <= began
    return (pl.col("reason") == "unknown") & (over if quiet else ~over)


def _undecided(before: pl.DataFrame, answers: pl.DataFrame, began: float) -> pl.DataFrame:
    """Earlier entries that these answers leave open: other keys', and those sent within their quiet time."""
    sent = answers.select("key", "outcome", pl.col("source_hash").alias("sent_hash"))
    joined = before.join(sent, on="key", how="left")
    answered = pl.col("outcome").is_not_null() & pl.col("outcome").is_in([ACCEPTED, REFUSED])
    waiting = pl.col("quiet_until") > began
    left = joined.filter(~answered | (pl.col("reason") == "withheld") | waiting)
    again = pl.when(answered & waiting)
    return left.with_columns(
        again.then("quiet_until").otherwise("not_before").alias("not_before"),
        again.then("sent_hash").otherwise("source_hash").alias("source_hash"),
    ).select(_DUE)


def _from_answers(answers: pl.DataFrame, quiet: float) -> pl.DataFrame:
    until = pl.col("unknown_at") + quiet
    doubtful = answers.filter((pl.col("outcome") == UNKNOWN) | (pl.col("unknown_at") > 0))
    at_once = pl.when(pl.col("outcome") == UNKNOWN).then(0.0).otherwise(until)
    unknown = _entries(doubtful, "unknown", pl.lit(value=True), not_before=at_once, quiet_until=until)
    whole = pl.col("outcome") == REFUSED
    refused = answers.filter(whole | ((pl.col("outcome") == ACCEPTED) & pl.col("partly")))
    return pl.concat([unknown, _entries(refused, "refused", whole)])


def _entries(
    rows: pl.DataFrame, reason: str, whole: pl.Expr, *, not_before: pl.Expr = _AT_ONCE, quiet_until: pl.Expr = _AT_ONCE
) -> pl.DataFrame:
    """Due entries (DUE_SCHEMA) of rows that have `key` and `source_hash`."""
    return rows.select(
        "key",
        pl.lit(reason).alias("reason"),
        whole.alias("whole"),
        not_before.alias("not_before"),
        quiet_until.alias("quiet_until"),
        "source_hash",
    )


__all__ = ["Judged", "due_after", "lapsed_keys"]
