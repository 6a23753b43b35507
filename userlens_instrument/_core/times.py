"""Points in time: seconds since the epoch to ISO 8601, and whatever a record holds back again."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any


# Years 1970 to 2199. Outside of it a number is not a time in seconds (it may
# be one in milliseconds), and guessing would put an event on a wrong day.
_LATEST = 7_258_118_400.0

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"\s*(Z|[+-]\d\d:?[0-5]\d)?",
    re.ASCII | re.IGNORECASE,
)

# The text of the last whole second: events come in bursts, and formatting a
# date costs more than all the rest of an event's timestamp. One tuple, swapped
# whole, so that threads need no lock.
_last_second: tuple[int, str] = (-1, "")


def format_time(seconds: float) -> str:
    """Return *seconds* since the epoch as ISO 8601 in UTC: ``2026-11-23T18:00:00.000000Z``."""
    global _last_second  # noqa: PLW0603 - a cache of one entry, see above
    micros = round(seconds * 1_000_000)
    second, micro = divmod(micros, 1_000_000)
    known, text = _last_second
    if known != second:
        text = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        _last_second = (second, text)
    return f"{text}.{micro:06d}Z"


def parse_time(value: object) -> float | None:
    """
    Return the seconds since the epoch that *value* means, or None if it means none.

    Never raises an `Exception`.

    Args:
        value: A datetime, a number of seconds since the epoch, or an ISO 8601
            text. Without a time zone it is local time, as everywhere in Python
            (and as structlog's ``TimeStamper(utc=False)`` writes it).
    """
    try:
        return _within(_seconds(value, type(value)))
    except Exception:  # a time zone, or a subclass, is foreign code
        return None


def _seconds(value: Any, kind: type) -> float | None:
    if issubclass(kind, datetime):
        return float(value.timestamp())
    if issubclass(kind, bool):
        return None
    if issubclass(kind, (int, float)):
        return float(value)
    if issubclass(kind, str) and (match := _ISO.fullmatch(str.strip(value))):
        return _from_match(match)
    return None


def _within(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= _LATEST else None


def _from_match(match: re.Match[str]) -> float | None:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = datetime(  # noqa: DTZ001 - the zone is put on below, where there is one
        int(year),
        int(month),
        int(day),
        int(hour),
        int(minute),
        int(second or 0),
        int((fraction or "0")[:6].ljust(6, "0")),
    )
    if zone is None:
        return moment.timestamp()
    offset = timedelta()
    if zone not in "Zz":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        offset = offset if zone[0] == "+" else -offset
    # Raises for an offset of a day or more, as datetime() above for a 30th of February.
    return moment.replace(tzinfo=timezone(offset)).timestamp()
