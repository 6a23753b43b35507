"""What came of an attempt: the whole table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userlens_instrument._core.outcome import (
    Answer,
    Delivered,
    EndpointDown,
    Failure,
    Refused,
    RetryLater,
    Waits,
    classify,
)


NOW = 100.0
# 2026-11-23 18:00:00 UTC.
WALL = 1_795_456_800.0
WAITS = Waits(base=1.0, cap=30.0, retry_after_cap=600.0, probe_interval=60.0)

# With a draw of a half, the first attempt is waited for half a second.
SOON = NOW + 0.5

REFUSED = Refused(reason="rejected")
RETRY = RetryLater(at=SOON)
BUSY = EndpointDown(at=SOON, reason="unavailable")
UNAUTHORIZED = EndpointDown(at=NOW + 60.0, reason="unauthorized", stated=True)
REDIRECT = EndpointDown(at=NOW + 60.0, reason="redirect", stated=True)
TLS = EndpointDown(at=NOW + 60.0, reason="tls", stated=True)


def ask(answer, *, attempt=1, draw=0.5):
    return classify(answer, attempt=attempt, now=NOW, wall=WALL, draw=lambda: draw, waits=WAITS)


def expected_of(status):
    """The table of design.md, wire-contract.md and reliability-anchors.md, said once more."""
    if status < 200:
        return RETRY
    if status < 300:
        return Delivered()
    if status < 400:
        return REDIRECT
    exceptions = {
        401: UNAUTHORIZED,
        403: UNAUTHORIZED,
        408: RETRY,
        413: Refused(reason="too_large"),
        429: BUSY,
        501: REFUSED,
        503: BUSY,
        505: REFUSED,
    }
    return exceptions.get(status, REFUSED if status < 500 else RETRY)


def test_every_status():
    """
    Each status from 100 to 599 means what the table says, and nothing else.
    """
    expected = {status: expected_of(status) for status in range(100, 600)}

    assert expected == {status: ask(Answer(status=status)) for status in range(100, 600)}


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure.DNS, BUSY),
        (Failure.CONNECT, BUSY),
        (Failure.CONNECT_TIMEOUT, BUSY),
        (Failure.PROXY, BUSY),
        (Failure.TLS, TLS),
        (Failure.STALE, RetryLater(at=NOW, free=True)),
        (Failure.TIMEOUT, RETRY),
        (Failure.RESET, RETRY),
        (Failure.MALFORMED, RETRY),
        (Failure.INTERNAL, RETRY),
    ],
)
def test_every_failure(failure, expected):
    """
    Nobody there holds everything; somebody who did not answer one event does not.
    """
    assert expected == ask(Answer(failure=failure))


def test_no_failure_is_forgotten():
    """
    The table above has a row for every way to fail.
    """
    rows = test_every_failure.pytestmark[0].args[1]

    assert set(Failure) == {failure for failure, _ in rows}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize(
    ("wish", "wait"),
    [
        ("7", 7.0),
        ("Mon, 23 Nov 2026 18:00:07 GMT", 7.0),
        ("86400", 600.0),
        ("0", 0.5),
        ("Mon, 23 Nov 2026 17:00:00 GMT", 0.5),
        ("soon", 0.5),
        ("", 0.5),
        (None, 0.5),
    ],
)
def test_retry_after(status, wish, wait):
    """
    A Retry-After is kept to, up to its cap; one that is shorter than the backoff does not hurry us.
    """
    assert NOW + wait == ask(Answer(status=status, retry_after=wish)).at


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("wish", "stated"), [("7", True), ("0", True), ("soon", False), (None, False)]
)
def test_whose_wish_it_is(status, wish, stated):
    """
    The wait of a busy service is stated if it named one, and our guess if not.
    """
    assert stated == ask(Answer(status=status, retry_after=wish)).stated


@pytest.mark.parametrize("status", [200, 301, 400, 401, 413])
def test_retry_after_where_it_means_nothing(status):
    """
    A Retry-After changes nothing where nothing is retried for it.
    """
    assert ask(Answer(status=status)) == ask(Answer(status=status, retry_after="7"))


@pytest.mark.parametrize("status", [500, 503])
def test_backoff_grows(status):
    """
    The wait grows with the attempts, up to the cap.
    """
    waits = [ask(Answer(status=status), attempt=n, draw=1.0).at - NOW for n in (1, 2, 3, 6, 1000)]

    assert [1.0, 2.0, 4.0, 30.0, 30.0] == waits


@given(
    st.none() | st.integers(0, 999),
    st.none() | st.sampled_from(Failure),
    st.none() | st.text(),
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_any_answer(status, failure, retry_after, attempt, draw):
    """
    Any answer has an outcome, and no wait is longer than what the settings allow.
    """
    answer = Answer(status=status, failure=failure, retry_after=retry_after)

    outcome = ask(answer, attempt=attempt, draw=draw)

    if not isinstance(outcome, (Delivered, Refused)):
        assert NOW <= outcome.at <= NOW + 600.0
