"""The token bucket, and the limits at their edges through a call."""

import pytest

from connector.simulator import Rate
from connector.simulator.limits import TokenBucket
from tests.simulator.conftest import Clock, Door, opened, operation, operations


def test_bucket_gives_exactly_what_it_holds() -> None:
    """A call of all the tokens passes, one more token is refused and costs nothing."""
    bucket = TokenBucket(Rate(300, 1000), 0.0)
    assert bucket.take(1001, 0.0) == pytest.approx(1 / 300)
    assert bucket.take(1000, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(1 / 300)


def test_bucket_refills_at_equality() -> None:
    """Waiting exactly as long as the bucket said is enough, in spite of floating point."""
    bucket, now = TokenBucket(Rate(300, 1000), 0.1), 0.1
    bucket.take(1000, now)
    for tokens in (7, 200, 13, 199) * 50:
        now += bucket.take(tokens, now)
        assert bucket.take(tokens, now) == 0.0
    assert now - 0.1 == pytest.approx(419 * 50 / 300)


def test_bucket_never_overflows_nor_goes_back() -> None:
    """An idle hour fills the bucket once, and a clock that jumps back takes nothing away."""
    bucket = TokenBucket(Rate(300, 1000), 5000.0)
    assert bucket.take(1000, 0.0) == 0.0
    assert bucket.take(1001, 3600.0) > 0
    assert bucket.take(1000, 3600.0) == 0.0


@pytest.mark.parametrize(
    ("endpoint", "count", "status"),
    [("update", 200, 202), ("update", 201, 400), ("mass-update", 10_000, 202), ("mass-update", 10_001, 400)],
)
def test_operations_per_call(door: Door, endpoint: str, count: int, status: int) -> None:
    """A call over its endpoint's cap is refused whole."""
    answer = door.post(operations(count), endpoint=endpoint)
    assert answer.status_code == status
    assert len(door.simulator.profiles()) == (count if status == 202 else 0)


def test_throttled_call_changes_nothing(door: Door, clock: Clock) -> None:
    """The sixth full call of a burst gets a bare 429, applies nothing, and passes once refilled."""
    assert [door.post(operations(200, 200 * turn)).status_code for turn in range(5)] == [202] * 5
    late = operations(200, 1000)
    answer = door.post(late)
    assert answer.status_code == 429
    assert answer.json()["error_code"] == "TOO_MANY_REQUESTS"
    assert "retry-after" not in answer.headers
    assert len(door.simulator.profiles()) == 1000
    clock.now += 200 / 300
    assert door.post(late).status_code == 202
    assert door.simulator.stats["throttled"] == 1


def test_endpoints_have_their_own_buckets(door: Door) -> None:
    """A full mass-update call leaves no burst there, and the other endpoint untouched."""
    assert door.post(operations(10_000), endpoint="mass-update").status_code == 202
    assert door.post([operation()], endpoint="mass-update").status_code == 429
    assert door.post([operation()]).status_code == 202


def test_retry_after_and_rates_are_switches(clock: Clock) -> None:
    """Retry-After is there when asked for, rounded up; a rate of None is no limit."""
    with opened(clock=clock) as door:
        door.simulator.configure(retry_after=True, update_rate=Rate(2, 4), mass_update_rate=None)
        assert door.post(operations(4)).status_code == 202
        assert door.post(operations(3)).headers["retry-after"] == "2"
        for _ in range(3):
            assert door.post(operations(10_000), endpoint="mass-update").status_code == 202


def test_lowered_call_cap(door: Door) -> None:
    """A cap changed while the simulator runs counts from the next call."""
    door.simulator.configure(update_operations=10)
    assert door.post(operations(11)).status_code == 400
    assert door.post(operations(10)).status_code == 202


def test_malformed_calls_cost_tokens_too(door: Door) -> None:
    """A call refused for one operation has been counted: a client has to pay for every attempt."""
    for _ in range(5):
        assert door.post([operation("null"), *operations(199)]).status_code == 400
    assert door.post([operation()]).status_code == 429
