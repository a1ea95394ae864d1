"""A window's bounds for cursor columns without a zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from connector.warehouses._base import Window

CHANGES = [
    ("Europe/Paris", "2026-10-25 01:00"),  # clocks go back an hour
    ("Europe/Paris", "2026-03-29 01:00"),  # and forward
    ("America/New_York", "2026-11-01 06:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),  # half an hour
    ("Africa/Casablanca", "2026-02-15 02:00"),
    ("Asia/Kathmandu", "2026-07-01 00:00"),  # nothing happens
    ("UTC", "2026-10-25 01:00"),
]
AROUND_A_CHANGE = st.tuples(st.sampled_from(CHANGES), st.integers(-7200, 7200)).map(
    lambda drawn: (drawn[0][0], datetime.fromisoformat(drawn[0][1] + "+00:00") + timedelta(seconds=drawn[1]))
)


def _bound(instant: datetime, zone: str) -> datetime:
    return Window("at", None, instant, zone).wall_times()[1]


@given(AROUND_A_CHANGE, st.integers(0, 7200))
def test_a_row_written_after_a_window_is_not_before_its_end(end: tuple[str, datetime], later: int) -> None:
    """Whatever clocks do, the stamp of a row written after a window's end lies in a later window."""
    zone, instant = end
    stamp = (instant + timedelta(seconds=later)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    assert _bound(instant, zone) <= stamp


@given(AROUND_A_CHANGE, st.integers(0, 7200))
def test_bounds_never_go_back(end: tuple[str, datetime], later: int) -> None:
    """Windows in a row stay in a row as wall times, and lag by no more than the repeated hour."""
    zone, instant = end
    wall = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    assert timedelta(0) <= wall - _bound(instant, zone) < timedelta(hours=1)
    assert _bound(instant, zone) <= _bound(instant + timedelta(seconds=later), zone)


def test_bounds_are_exact_where_clocks_do_not_change() -> None:
    """On an ordinary day the bound is the wall time itself, to the microsecond; no start has none."""
    instant = datetime(2026, 7, 1, 8, 15, 0, 1, tzinfo=UTC)
    window = Window("at", None, instant, "Europe/Paris")
    assert window.wall_times() == (None, datetime.fromisoformat("2026-07-01 10:15:00.000001"))
    assert Window("at", instant, instant).wall_times() == (instant.replace(tzinfo=None),) * 2
