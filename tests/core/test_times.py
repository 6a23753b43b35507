"""Points in time, out and in."""

# ruff: noqa: DTZ001, DTZ901 - times without a zone are what applications log

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import ANY_VALUES, HOSTILE, RaisingZone

from userlens_instrument._core.times import format_time, parse_time


# The ends of what is taken for a time: 1970 and 2200.
LATEST = 7_258_118_400.0
# Half a microsecond, and what a float of that size leaves of it.
PRECISION = 0.000_001


@pytest.fixture
def in_new_york(monkeypatch):
    """Local time is five or four hours behind UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@given(st.floats(0, LATEST))
@example(1_700_000_000.999_999_9)
@example(LATEST)
def test_round_trip(seconds):
    """
    Any time, written and read again, is the same to the microsecond.
    """
    assert seconds == pytest.approx(parse_time(format_time(seconds)), rel=0, abs=PRECISION)


@given(st.integers(0, 4_102_444_800), st.integers(0, 999_999))
def test_every_microsecond_is_its_own(second, micro):
    """
    A time that was read from a text is written as that very text.
    """
    moment = datetime.fromtimestamp(second, timezone.utc).replace(microsecond=micro)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    assert text == format_time(parse_time(text))


@given(st.floats(0, LATEST), st.floats(0, LATEST))
def test_format(first, second):
    """
    A time is written as ISO 8601 in UTC with microseconds and a Z, whatever was written before.
    """
    for seconds in (first, second, first):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", format_time(seconds))
        assert seconds == pytest.approx(parse_time(format_time(seconds)), rel=0, abs=PRECISION)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30)), st.integers(-1439, 1439))
def test_any_offset(naive, minutes):
    """
    An offset from UTC is taken into account, in a datetime and in its text.
    """
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))

    assert moment.timestamp() == parse_time(moment)
    assert moment.timestamp() == parse_time(moment.isoformat())


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T18:00:00Z",
        "2026-11-23T18:00:00z",
        "2026-11-23t18:00:00Z",
        "2026-11-23 18:00:00Z",
        "2026-11-23 18:00:00 Z",
        "2026-11-23T18:00Z",
        "2026-11-23T18:00:00.000Z",
        "2026-11-23T18:00:00,000000000Z",
        "2026-11-23T18:00:00+00:00",
        "2026-11-23T18:00:00-0000",
        "2026-11-23T20:30:00+02:30",
        "2026-11-23T13:00:00-0500",
        "  2026-11-23T18:00:00Z\n",
    ],
)
def test_spellings(text):
    """
    ISO 8601 is read in each of the spellings that logs are full of.
    """
    assert 1_795_456_800.0 == parse_time(text)


def test_nanoseconds():
    """
    More than six digits of a second are cut to microseconds.
    """
    assert parse_time("2026-11-23T18:00:00.123456Z") == parse_time("2026-11-23T18:00:00.123456789Z")


def test_local_time(in_new_york):
    """
    A time without a zone is local time, as a datetime and as text.
    """
    assert 1_795_456_800.0 == parse_time("2026-11-23T13:00:00")
    assert 1_795_456_800.0 == parse_time(datetime(2026, 11, 23, 13))


@pytest.mark.parametrize("seconds", [0, 0.5, 1_795_456_800, True + 1])
def test_numbers(seconds):
    """
    A number is seconds since the epoch.
    """
    assert float(seconds) == parse_time(seconds)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        "",
        "yesterday",
        "2026-11-23",
        "1795456800",
        "2026-02-30T00:00:00Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T18:00:60Z",
        "2026-11-23T18:00:00.Z",
        "2026-11-23T18:00:00+24:00",
        "2026-11-23T18:00:00+05:99",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",  # overflows, and once raised
        "9999-12-31T23:59:59-01:00",
        "٢٠٢٦-11-23T18:00:00Z",
        "2026-11-23T18:00:00Z" * 1000,
        -1,
        -0.001,
        LATEST + 1,
        1_795_456_800_000,  # milliseconds
        10**400,
        float("nan"),
        float("inf"),
        b"2026-11-23T18:00:00Z",
        datetime(1, 1, 1),
        datetime.max,
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime(2026, 1, 1, tzinfo=RaisingZone()),
        datetime(2026, 1, 1).date(),
        timedelta(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_times(value):
    """
    What is no time, or one outside of 1970 to 2199, is None.
    """
    assert parse_time(value) is None


@given(ANY_VALUES)
def test_never_raises(value):
    """
    Any object at all is a time from 1970 to 2199, or is none; nothing is raised.
    """
    found = parse_time(value)

    assert found is None or (type(found) is float and 0 <= found <= LATEST)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_never_raises_over_hostile_objects(number):
    """
    An object that raises whatever it is asked is a time, or is none; nothing is raised.
    """
    found = parse_time(HOSTILE[number]())

    assert found is None or (type(found) is float and 0 <= found <= LATEST)


@given(st.text(alphabet="0123456789-+:.,TZtz \n٣", max_size=40))
def test_nearly_a_time(text):
    """
    A text made of what times are made of is a time, or is none; nothing is raised.
    """
    found = parse_time(text)

    assert found is None or 0 <= found <= LATEST
