"""How long to wait."""

from __future__ import annotations

from datetime import timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from userlens_instrument._core.backoff import backoff, parse_retry_after


# 2026-11-23 18:00:00 UTC.
WALL = 1_795_456_800.0

SECONDS = st.floats(0.001, 86_400.0)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10**9), SECONDS, SECONDS, DRAWS)
@example(10**9, 0.001, 86_400.0, 0.0)
@example(10**9, 86_400.0, 86_400.0, 0.999_999)
def test_bounds(attempt, base, cap, draw):
    """
    After any attempt, the wait is from 0 to the cap, and at most base * 2 ** (attempt - 1).
    """
    wait = backoff(attempt, base=base, cap=cap, draw=lambda: draw)

    assert 0.0 <= wait <= cap
    assert wait <= base * 2.0 ** min(attempt - 1, 1000)


@pytest.mark.parametrize(
    ("attempt", "expected"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10**9, 30.0)]
)
def test_doubles(attempt, expected):
    """
    The bound of the wait doubles with each attempt until it meets the cap.
    """
    assert expected == backoff(attempt, base=0.5, cap=30.0, draw=lambda: 1.0)


def test_full_jitter():
    """
    The wait is drawn from all of zero to the bound.
    """
    draws = iter([0.0, 0.25, 0.5])

    waits = [backoff(2, base=0.5, cap=30.0, draw=lambda: next(draws)) for _ in range(3)]

    assert [0.0, 0.25, 0.5] == waits


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt):
    """
    There is no attempt before the first.
    """
    with pytest.raises(ValueError, match="attempts count from 1"):
        backoff(attempt, base=0.5, cap=30.0, draw=lambda: 0.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("600", 600.0),
        ("601", 600.0),
        ("9" * 5000, 600.0),
        ("0" * 5000 + "7", 7.0),
        ("Mon, 23 Nov 2026 18:00:07 GMT", 7.0),
        ("Mon, 23 Nov 2026 18:00:07 -0000", 7.0),
        ("Mon, 23 Nov 2026 20:00:07 +0200", 7.0),
        ("Monday, 23-Nov-26 18:00:07 GMT", 7.0),
        ("Mon, 23 Nov 2026 17:59:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600.0),
    ],
)
def test_retry_after(value, expected):
    """
    A Retry-After is a number of seconds or a date, capped, and never negative.
    """
    assert expected == parse_retry_after(value, wall=WALL, cap=600.0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "   ",
        "soon",
        "-5",
        "+5",
        "1.5",
        "1e3",
        "5 seconds",
        "5, 6",
        "\u0667",  # a digit, but no ASCII one
        "²",
        "nan",
        "inf",
        "-" * 5000,
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Mon, 99 Nov 2026 18:00:07 GMT",
        "Mon, 23 Nov 2026 18:00:07 +999999999999",
        "x" * 20_000,
        "7" * 20_000,
        "\ud800",
        "\x00",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_retry_after_makes_no_sense(value):
    """
    A Retry-After that makes no sense asks for nothing, and raises nothing.
    """
    assert parse_retry_after(value, wall=WALL, cap=600.0) is None


@given(
    st.text()
    | st.text(alphabet="0123456789+-:., GMTMonNovMay", max_size=40)
    | st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [+-]?[0-9A-Z]{0,6}"
    ),
    SECONDS,
)
def test_any_retry_after(text, cap):
    """
    Any text is a wait from 0 to the cap, or none; nothing is raised.
    """
    wait = parse_retry_after(text, wall=WALL, cap=cap)

    assert wait is None or 0.0 <= wait <= cap


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_any_date(moment):
    """
    Any HTTP date asks for the seconds until then.
    """
    moment = moment.replace(microsecond=0, year=max(1970, moment.year))

    wait = parse_retry_after(format_datetime(moment, usegmt=True), wall=WALL, cap=1e12)

    assert max(0.0, moment.timestamp() - WALL) == wait
