"""What an answer means: the whole table, and no answer that is believed by accident."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.outcome import (
    RETRY_AFTER_MAX,
    Answer,
    Refusal,
    Verdict,
    bare,
    classify,
    no_answer,
    not_sent,
    retry_after,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROWS = 10
SUCCESS = b'{"code":"SUCCESS"}'


def verdict(status: int, body: bytes = b"", **headers: str) -> Verdict:
    answer = Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    return classify(answer, ROWS, now=NOW).verdict


def partial(*errors: object, code: object = "SUCCESS_WITH_PARTIAL_ERRORS") -> bytes:
    return json.dumps({"code": code, "errors": list(errors)}).encode()


TABLE = {
    Verdict.SPLIT: [400, 413, 422],
    Verdict.STOP: [301, 302, 303, 304, 307, 308, 401, 403, 404, 405, 410, 451],
    Verdict.LATER: [408, 425, 429],
    Verdict.UNKNOWN: [500, 502, 503, 504, 520, 599],
    Verdict.UNVERIFIED: [200, 201, 203, 204, 206],
}


@pytest.mark.parametrize(
    ("status", "expected"), [(status, expected) for expected, statuses in TABLE.items() for status in statuses]
)
@pytest.mark.parametrize("body", [b"", SUCCESS, b"<html>"])
def test_statuses(status: int, expected: Verdict, body: bytes) -> None:
    """Each status has its class, whatever the body says: SUCCESS under another status is no success."""
    assert verdict(status, body) is expected


def test_maintenance_with_an_end_was_not_applied() -> None:
    """503 is unknown, but with a Retry-After that makes sense it is a refusal."""
    assert verdict(503, retry_after="10") is Verdict.LATER
    assert verdict(503, retry_after="soon") is Verdict.UNKNOWN
    assert verdict(500, retry_after="10") is Verdict.UNKNOWN


@pytest.mark.parametrize("status", [408, 425, 429, 503, 500])
def test_the_wait_is_passed_on(status: int) -> None:
    """Whoever is told to wait knows how long; without the header, nothing is made up."""
    assert classify(Answer(status, {"retry-after": "7"}, b""), ROWS, now=NOW).retry_after == 7
    assert classify(Answer(status, {}, b""), ROWS, now=NOW).retry_after is None


def test_what_never_left_and_what_was_never_answered() -> None:
    """No connection means not applied; a body without an answer may have been applied."""
    assert not_sent("refused").verdict is Verdict.LATER
    assert no_answer("reset").verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        SUCCESS,
        b'{"code":"SUCCESS","errors":[]}',
        b'{"code":"SUCCESS","errors":null,"new":{"a":1}}',
        b' {"code":"SUCCESS"} \n',
    ],
)
def test_success(body: bytes) -> None:
    """SUCCESS without errors is the whole chunk; fields that we do not know are tolerated."""
    outcome = classify(Answer(202, {}, body), ROWS, now=NOW)
    assert (outcome.verdict, outcome.refusals) == (Verdict.ACCEPTED, ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b'{"code":"SUCCESS"',
        b"null",
        b'"SUCCESS"',
        b'["SUCCESS"]',
        b"{}",
        b'{"code":null}',
        b"\xff\xfe",
        b'{"code":"success"}',
        b'{"code":"SUCCESS "}',
        b'{"code":["SUCCESS"]}',
        b'{"CODE":"SUCCESS"}',
        b'{"code":"ACCEPTED"}',
        b'{"code":"FAILURE","code":"SUCCESS"}',
        b'{"code":"SUCCESS","errors":[],"errors":[]}',
        b"[" * 100_000,
        b'{"code":"SUCCESS"}{"code":"SUCCESS"}',
        b'{"code":"SUCCESS","n":' + b"1" * 5000 + b"}",
        partial({"bulk_index": 0}, code="SUCCESS"),
        partial(),
        b'{"code":"SUCCESS_WITH_PARTIAL_ERRORS"}',
        b'{"code":"SUCCESS_WITH_PARTIAL_ERRORS","errors":{"bulk_index":0}}',
        b'{"code":"SUCCESS","errors":{}}',
        b'{"code":"SUCCESS","errors":""}',
        b'{"code":"SUCCESS","errors":false}',
        b'{"code":"SUCCESS","errors":0}',
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
def test_a_202_in_doubt(body: bytes) -> None:
    """A 202 whose words we cannot read whole settles nothing."""
    outcome = classify(Answer(202, {}, body), ROWS, now=NOW)
    assert (outcome.verdict, outcome.refusals) == (Verdict.UNVERIFIED, ())


def test_partial_errors() -> None:
    """Each error names its row and bare attribute; several may name one row; the order is kept."""
    body = partial(
        {"category": "attribute", "bulk_index": 3, "attribute": "date(birth)", "reason": "no date"},
        {"bulk_index": 3, "attribute": "$language", "reason": "no language", "more": 1},
        {"category": "identifier", "bulk_index": 9},
    )
    outcome = classify(Answer(202, {}, body), ROWS, now=NOW)
    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.refusals == (
        Refusal(3, "birth", "no date"),
        Refusal(3, "$language", "no language"),
        Refusal(9, None, "no reason given"),
    )


@pytest.mark.parametrize(
    "item",
    [
        {"reason": "x"},
        {"bulk_index": ROWS},
        {"bulk_index": -1},
        {"bulk_index": "3"},
        {"bulk_index": 3.0},
        {"bulk_index": True},
        {"bulk_index": None},
        {"bulk_index": 10**30},
        {"bulk_index": 0, "attribute": 5},
        {"bulk_index": 0, "attribute": ["a"]},
        None,
        "text",
        3,
        [],
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_odd_error_makes_all_odd(item: Any, place: int) -> None:
    """An error that names no row of the chunk could be anybody's: then no row is believed to be applied."""
    errors = [{"bulk_index": 1, "attribute": "a", "reason": "r"}]
    errors.insert(place, item)
    outcome = classify(Answer(202, {}, partial(*errors)), ROWS, now=NOW)
    assert (outcome.verdict, outcome.refusals) == (Verdict.UNVERIFIED, ())


def test_reasons_of_refusals_are_bounded() -> None:
    """Thousands of errors with endless reasons fit into the book."""
    body = partial(*({"bulk_index": row % ROWS, "reason": "x" * 10_000} for row in range(100)))
    outcome = classify(Answer(202, {}, body), ROWS, now=NOW)
    assert len(outcome.refusals) == 100
    assert max(len(refusal.reason) for refusal in outcome.refusals) <= 500


def test_words_of_the_outcome_hold_nothing_of_the_body() -> None:
    """`reason` goes to logs, so the answer's words do not go into it."""
    for status in (202, 200, 400, 401, 429, 500):
        for body in (b"s3cret", partial({"bulk_index": 0, "reason": "s3cret"}), b'{"error_message":"s3cret"}'):
            assert "s3cret" not in classify(Answer(status, {}, body), ROWS, now=NOW).reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("SUCCESS"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["code", "errors", "bulk_index"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
BODIES |= st.binary(max_size=5).map(lambda tail: SUCCESS + tail)


@settings(max_examples=200, deadline=None)
@given(BODIES)
def test_no_body_is_accepted_by_accident(body: bytes) -> None:
    """Whatever stands in a 202: it is accepted only if its code is one of the two, and nothing is ever raised."""
    outcome = classify(Answer(202, {}, body), ROWS, now=NOW)
    if outcome.verdict is Verdict.ACCEPTED:
        parsed = json.loads(body)
        assert parsed["code"] in ("SUCCESS", "SUCCESS_WITH_PARTIAL_ERRORS")
        assert bool(parsed.get("errors")) == (parsed["code"] != "SUCCESS") == bool(outcome.refusals)
    else:
        assert (outcome.verdict, outcome.refusals) == (Verdict.UNVERIFIED, ())


ITEM = st.fixed_dictionaries(
    {},
    optional={
        "bulk_index": st.integers(-2, ROWS + 1) | st.sampled_from(["1", None, 1.0, True]),
        "attribute": st.sampled_from(["a", "date(a)", "$email_address", "", None, 7]),
        "reason": st.text(max_size=5) | st.none(),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ITEM, max_size=4))
def test_partial_errors_are_believed_whole_or_not_at_all(items: list[dict[str, Any]]) -> None:
    """Every refusal is of a row of the chunk, one for each error; or the answer is in doubt."""
    outcome = classify(Answer(202, {}, partial(*items)), ROWS, now=NOW)
    sound = [
        type(item.get("bulk_index")) is int and 0 <= item["bulk_index"] < ROWS and item.get("attribute") != 7
        for item in items
    ]
    assert (outcome.verdict is Verdict.ACCEPTED) == (bool(items) and all(sound))
    if outcome.verdict is Verdict.ACCEPTED:
        assert [refusal.row for refusal in outcome.refusals] == [item["bulk_index"] for item in items]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("5", 5),
        (" 7 ", 7),
        ("900", 900),
        ("901", 900),
        ("1" + "0" * 9, 900),
        ("9" * 400, 900),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("\u0665", None),
        ("0x10", None),
        ("5, 6", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30),
        ("Thu, 01 Jan 2026 13:00:30 +0100", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Thu, 01 Jan 0001 00:00:00 +2359", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 900),
        ("Thu, 01 Jan 2026 25:00:00 GMT", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Thu, 99999999999999999999 Jan 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """Seconds or a date, capped at a quarter of an hour, never negative; what makes no sense is as if it were absent."""
    assert retry_after(text, NOW) == seconds


DATES = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "", "x"]),
    st.integers(-1, 10**20),
    st.sampled_from(["Jan", "Dec", "x"]),
    st.integers(-1, 10**20),
    st.integers(-1, 99),
    st.integers(-1, 99),
    st.integers(-1, 10**20),
    st.sampled_from(["GMT", "+0000", "-2400", "+99999999999", ""]),
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | DATES | st.integers().map(str))
@example("Thu, 01 Jan 2026 00:00:00 +" + "9" * 400)
def test_retry_after_takes_anything(text: str) -> None:
    """No header raises, and no wait is outside its bounds."""
    seconds = retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX


@settings(max_examples=50, deadline=None)
@given(st.integers(-10_000, 10_000))
def test_retry_after_dates_are_measured_from_now(seconds: int) -> None:
    """A date is as many seconds away as it is, within the bounds."""
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after(header, NOW) == min(max(seconds, 0), RETRY_AFTER_MAX)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("a", "a"),
        ("date(a)", "a"),
        ("url(a)", "a"),
        ("$language", "$language"),
        ("date(a", "date(a"),
        ("data(a)", "data(a)"),
    ],
)
def test_bare_names(sent: str, name: str) -> None:
    """What Batch calls `date(x)` is `x` to the operator."""
    assert bare(sent) == name
