"""How long to wait: exponential backoff with full jitter, and what ``Retry-After`` asks for."""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable


# 2.0 ** 64 times the smallest base is past every cap; larger exponents would
# overflow a float after a thousand attempts.
_MOST_DOUBLINGS = 64
# Twenty digits of seconds are longer than the universe is old. More are not
# worth parsing: int() refuses past 4300 digits.
_MOST_DIGITS = 20


def backoff(attempt: int, *, base: float, cap: float, draw: Callable[[], float]) -> float:
    """
    Return how long to wait after failed *attempt*.

    Full jitter ("Exponential Backoff and Jitter", AWS Architecture Blog): a
    fleet that failed together does not come back together.

    Args:
        attempt: The attempt that failed; the first one is 1.
        base: Upper bound of the first wait, in seconds.
        cap: Upper bound of every wait, in seconds.
        draw: Returns a float in [0.0, 1.0).

    Returns:
        Seconds from 0.0 to *cap*, for any *attempt*, however large.

    Raises:
        ValueError: If *attempt* is smaller than 1.

    .. versionadded:: 0.1.0
    """
    if attempt < 1:
        raise ValueError(f"attempts count from 1, not from {attempt}")
    bound = min(cap, base * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
    return bound * draw()


def parse_retry_after(value: str | None, *, wall: float, cap: float) -> float | None:
    """
    Return the seconds that a ``Retry-After`` header asks for, or None if it makes no sense.

    RFC 9110, section 10.2.3: a whole number of seconds, or an HTTP date.
    urllib3's own parser raises for some foreign values and sleeps up to six
    hours for others, hence this one.

    Args:
        value: The header's text, as foreign as it comes.
        wall: Seconds since the epoch, for the date form.
        cap: Longest answer, in seconds.

    Returns:
        Seconds from 0.0 to *cap*; a date in the past is 0.0.

    .. versionadded:: 0.1.0
    """
    text = (value or "").strip()
    if not text or len(text) > 10_000:
        return None
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0")
        return cap if len(digits) > _MOST_DIGITS else min(cap, float(digits or "0"))
    # http.client has imported it for the answer: nothing is loaded here.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - and not at anybody's start

    try:
        date = parsedate_to_datetime(text)
        # "-0000" gives a naive date; HTTP dates are in GMT whatever they say.
        seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - wall
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        # The parser's documented errors, and those that hostile dates get out of it.
        return None
    return min(cap, max(0.0, seconds))
