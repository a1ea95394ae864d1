"""Whether a text is a cron schedule that Dagster can keep: five fields, in range, and some day matches."""

import re
from typing import NamedTuple

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SECONDS_TOO = 6


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


def checked_cron(text: str) -> str:
    """The same text, with single spaces.

    Raises:
        ValueError: It is no cron schedule of five fields, or no day ever matches it.
    """
    parts = text.split()
    if len(parts) == _SECONDS_TOO:
        raise ValueError("a cron text has five fields and this has 6; there are no seconds, remove the first field")
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"a cron text has five fields (minute hour day month weekday), got {len(parts)}; "
            "write for instance '*/15 * * * *'"
        )
    _, _, days, months, _ = (_values(field, part) for field, part in zip(_FIELDS, parts, strict=True))
    if min(days) > max(_DAYS_OF_MONTH[month - 1] for month in months):
        raise ValueError("the cron text names a day that its months never have; choose another day or month")
    return " ".join(parts)


def _values(field: _Field, text: str) -> set[int]:
    return {value for item in text.split(",") for value in _item(field, item)}


def _item(field: _Field, item: str) -> range:
    match = re.fullmatch(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]{1,3}))?", item.lower())
    if not match:
        raise _refusal(field)
    first, last, step = match.groups()
    if step and first and not last:
        raise ValueError(f"the {field.name} of the cron text has a step without a range; write for instance */{step}")
    start = _number(field, first) if first else field.low
    stop = _number(field, last) if last else start if first else field.high
    if start > stop or not 1 <= int(step or 1) <= field.high:
        raise _refusal(field)
    return range(start, stop + 1, int(step or 1))


def _number(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    if not re.fullmatch(r"[0-9]{1,2}", text) or not field.low <= int(text) <= field.high:
        raise _refusal(field)
    return int(text)


def _refusal(field: _Field) -> ValueError:
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return ValueError(
        f"the {field.name} of the cron text must be {field.low} to {field.high}{names}, '*', a range a-b, "
        "a list a,b or a step */n"
    )
