"""A window's bounds for cursor columns without a zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from connector.warehouses._base import Window

ZONES = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]
# Hours around the clock changes of 2026 in these zones, and ordinary ones.
CHANGES = [
    (2026, 10, 24),
    (2026, 11, 1),
    (2026, 4, 4),
    (2026, 3, 28),
    (2026, 3, 8),
    (2026, 10, 3),
    (2026, 7, 1),
]
INSTANTS = st.builds(
    lambda day, seconds: datetime(*day, tzinfo=UTC) + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(0, 2 * 86_400),
)


def _bound(instant: datetime, zone: str) -> datetime:
    return Window("at", None, instant, zone).wall_times()[1]


@given(instant=INSTANTS, later=st.integers(0, 7200), zone=st.sampled_from(ZONES))
def test_a_row_written_after_a_window_is_not_before_its_end(instant: datetime, later: int, zone: str) -> None:
    """Whatever clocks do, the stamp of a row written after a window's end lies in a later window."""
    stamp = (instant + timedelta(seconds=later)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    assert _bound(instant, zone) <= stamp


@given(instant=INSTANTS, later=st.integers(0, 7200), zone=st.sampled_from(ZONES))
def test_bounds_never_go_back(instant: datetime, later: int, zone: str) -> None:
    """Windows in a row stay in a row as wall times."""
    assert _bound(instant, zone) <= _bound(instant + timedelta(seconds=later), zone)


def test_bounds_are_exact_where_clocks_do_not_change() -> None:
    """On an ordinary day the bound is the wall time itself, to the microsecond; no start has none."""
    instant = datetime(2026, 7, 1, 8, 15, 0, 1, tzinfo=UTC)
    window = Window("at", None, instant, "Europe/Paris")
    assert window.wall_times() == (None, datetime.fromisoformat("2026-07-01 10:15:00.000001"))
    assert Window("at", instant, instant).wall_times() == (instant.replace(tzinfo=None),) * 2
