"""Points in time as the command line takes and gives them: RFC 3339."""

import re
from datetime import UTC, datetime, timedelta

import click

_GIVEN = re.compile(r"(?:19|20)\d\d-\d\d-\d\d(?P<time>[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d))?")
_START = datetime(1970, 1, 1, tzinfo=UTC)


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC, whole seconds; None for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def event_time(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339 in UTC; None for none, and outside the years 1 to 9999."""
    try:
        at = None if milliseconds is None else _START + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    if at is None:
        return None
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def window(_ctx: click.Context, _option: click.Parameter, given: tuple[str, str] | None) -> object:
    """The interval that `--window FROM TO` names, both ends aware.

    Raises:
        BadParameter: An end is neither a date nor RFC 3339 with a zone, or FROM is not before TO.
    """
    if given is None:
        return None
    start, end = (_given(text) for text in given)
    if start >= end:
        raise click.BadParameter(f"FROM must be before TO, got {given[0]} and {given[1]}: TO itself is left out")
    return start, end


def _given(text: str) -> datetime:
    found = _GIVEN.fullmatch(text)
    try:
        at = datetime.fromisoformat(text.upper()) if found else None
    except ValueError:
        at = None
    if found is None or at is None:
        allowed = "a date of the years 1900 to 2099, or RFC 3339 with a zone"
        raise click.BadParameter(f"'{text}' is not {allowed}; write 2026-01-31 or 2026-01-31T06:00:00Z")
    return at if found["time"] else at.replace(tzinfo=UTC)


__all__ = ["event_time", "moment", "window"]
