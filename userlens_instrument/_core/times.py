"""Points in time: seconds since the epoch to ISO 8601, and whatever a record holds back again."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone


# Years 1970 to 2199. Outside of it a number is not a time in seconds (it may
# be one in milliseconds), and guessing would put an event on a wrong day.
_LATEST = 7_258_118_400.0

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"\s*(Z|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)

# The text of the last whole second: events come in bursts, and formatting a
# date costs more than all the rest of an event's timestamp. One tuple, swapped
# whole, so that threads need no lock.
_last_second: tuple[int, str] = (-1, "")


def format_time(seconds: float) -> str:
    """Return *seconds* since the epoch as ISO 8601 in UTC: ``2026-11-23T18:00:00.000000Z``."""
    global _last_second  # noqa: PLW0603 - a cache of one entry, see above
    micros = int(seconds * 1_000_000)
    second, micro = divmod(micros, 1_000_000)
    known, text = _last_second
    if known != second:
        text = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        _last_second = (second, text)
    return f"{text}.{micro:06d}Z"


def parse_time(value: object) -> float | None:
    """
    Return the seconds since the epoch that *value* means, or None if it means none.

    Args:
        value: A datetime, a number of seconds since the epoch, or an ISO 8601
            text. Without a time zone it is local time, as everywhere in Python
            (and as structlog's ``TimeStamper(utc=False)`` writes it).
    """
    if isinstance(value, datetime):
        return _within(_timestamp(value))
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return _within(value)
    if isinstance(value, str) and (match := _ISO.fullmatch(value.strip())):
        return _within(_from_match(match))
    return None


def _within(seconds: float | None) -> float | None:
    # Compared before it is converted: a huge integer does not fit into a float.
    if seconds is None or not 0 <= seconds <= _LATEST:
        return None
    return float(seconds)


def _timestamp(moment: datetime) -> float | None:
    try:
        return moment.timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _from_match(match: re.Match[str]) -> float | None:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(  # noqa: DTZ001 - the zone is put on below, where there is one
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second or 0),
            int((fraction or "0")[:6].ljust(6, "0")),
        )
    except ValueError:
        return None
    if zone is None:
        return _timestamp(moment)
    offset = timedelta()
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return _timestamp(moment.replace(tzinfo=timezone.utc) - offset)
