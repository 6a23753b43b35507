"""
What came of an attempt: one pure function from an answer to what to do.

The transport reports an `Answer`; nobody but `classify` judges it.

The table (wire contract, "Answers"; RFC 9110 where the contract is silent):

====================================  ==============================================
2xx                                   delivered: the status line decides
1xx as the final answer, no answer    try this event again
400, 404, 405, 411, 413, 422, other   refused: this event is set aside, the others go on
4xx, 501, 505
408, 500, 502, 504, other 5xx         try this event again; Retry-After is honoured
429, 503                              hold everything: it is the service that is busy
401, 403, 3xx, TLS not trusted        hold everything: a setting is wrong; probe rarely
refused, DNS, connect timeout, proxy  hold everything: nobody is there
====================================  ==============================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from userlens_instrument._core.backoff import backoff, parse_retry_after


if TYPE_CHECKING:
    from collections.abc import Callable


class Failure(Enum):
    """Why there was no answer. Each value is the word that diagnostics use."""

    DNS = "the host name does not resolve"
    CONNECT = "no connection"
    CONNECT_TIMEOUT = "no connection in time"
    PROXY = "the proxy does not connect"
    TLS = "the server's certificate is not trusted"
    #: A kept-alive connection that the server had closed while it was idle.
    STALE = "the kept-alive connection was closed"
    TIMEOUT = "no answer in time"
    RESET = "the connection broke before the answer"
    MALFORMED = "the answer is not HTTP"
    #: Something in us or below us raised what it should not have.
    INTERNAL = "an internal error"


class Answer(NamedTuple):
    """
    What the transport saw: a status, or a failure.

    Attributes:
        status: HTTP status, if a status line was read.
        retry_after: Text of the ``Retry-After`` header.
        excerpt: The first bytes of the answer's body, for dead letters and diagnostics.
        failure: Why there was no answer.
        detail: Name of the exception below, never its text: it may hold a URL or header.
    """

    status: int | None = None
    retry_after: str | None = None
    excerpt: bytes = b""
    failure: Failure | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The event arrived."""


class Refused(NamedTuple):
    """
    This event will never be taken; set it aside, go on with the others.

    Attributes:
        reason: The word that statistics count by.
    """

    reason: str


class RetryLater(NamedTuple):
    """
    This event failed; try it again, others may go on.

    Attributes:
        at: When, on the monotonic clock.
        free: Whether the attempt does not count: nothing can have been read.
        stated: Whether the time is the server's wish; see `EndpointDown`.
    """

    at: float
    free: bool = False
    stated: bool = False


class EndpointDown(NamedTuple):
    """
    Nothing can arrive; hold everything, and try one event at a time.

    Attributes:
        at: When to try the next one, on the monotonic clock.
        reason: ``unavailable``, or what has to be put right: ``unauthorized``,
            ``redirect``, ``tls``.
        stated: Whether the time is the server's wish or a setting's, which a
            closing sender keeps to, and not our own guess, which it cuts short.
    """

    at: float
    reason: str
    stated: bool = False


Outcome = Delivered | Refused | RetryLater | EndpointDown


class Waits(NamedTuple):
    """
    How long to wait, in seconds; see `Settings` for each.

    Attributes:
        base: Upper bound of the first wait.
        cap: Upper bound of every wait.
        retry_after_cap: Longest wait that a server can ask for.
        probe_interval: Wait while a setting is wrong.
    """

    base: float
    cap: float
    retry_after_cap: float
    probe_interval: float


_BUSY = frozenset({429, 503})
# The server does not do this, and will not after a wait.
_NEVER = frozenset({501, 505})
_NOBODY = frozenset({Failure.DNS, Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.PROXY})


def classify(  # noqa: C901 - a table, one row a branch
    answer: Answer,
    *,
    attempt: int,
    now: float,
    wall: float,
    draw: Callable[[], float],
    waits: Waits,
) -> Outcome:
    """
    Return what came of *attempt*.

    Args:
        answer: What the transport saw.
        attempt: How often this failed in a row, this time included; 1 or more.
        now: The monotonic clock, in seconds.
        wall: Seconds since the epoch, for a ``Retry-After`` that is a date.
        draw: Returns a float in [0.0, 1.0): the dice of the jitter.
        waits: The bounds.

    .. versionadded:: 0.1.0
    """
    status = answer.status
    if status is None:
        if answer.failure is Failure.STALE:
            return RetryLater(at=now, free=True)
        if answer.failure is Failure.TLS:
            return EndpointDown(at=now + waits.probe_interval, reason="tls", stated=True)
    elif 200 <= status < 300:
        return Delivered()
    elif status in (401, 403):
        return EndpointDown(at=now + waits.probe_interval, reason="unauthorized", stated=True)
    elif 300 <= status < 400:
        return EndpointDown(at=now + waits.probe_interval, reason="redirect", stated=True)
    elif status == 413:
        return Refused(reason="too_large")
    elif status in _NEVER or (400 <= status < 500 and status not in (408, 429)):
        return Refused(reason="rejected")

    wait = backoff(attempt, base=waits.base, cap=waits.cap, draw=draw)
    wish = parse_retry_after(answer.retry_after, wall=wall, cap=waits.retry_after_cap)
    # The longer of the two: "Retry-After: 0" is no leave to hammer.
    at = now + (wait if wish is None else max(wait, wish))
    if status in _BUSY:
        return EndpointDown(at=at, reason="unavailable", stated=wish is not None)
    if status is None and answer.failure in _NOBODY:
        return EndpointDown(at=at, reason="unavailable")
    return RetryLater(at=at, stated=wish is not None)
