"""Moments as texts. Pure."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_utc(text: str) -> str:
    """The same moment with a `Z`; what has one already stays as it was written.

    Args:
        text: RFC 3339 with a zone.
    """
    if text.endswith("Z"):
        return text
    return datetime.fromisoformat(text).astimezone(UTC).isoformat().replace("+00:00", "Z")


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 text with a zone, rounded."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
