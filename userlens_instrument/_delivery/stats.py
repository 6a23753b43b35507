"""Counts by reason: what became of every event, to the unit."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping


# A tally longer than this is folded by whoever adds to it, so that it does not
# grow while nobody asks.
_FOLD_AT = 1_024
# Seconds to wait for a fold, which takes microseconds.
_PATIENCE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    What became of every event, at one moment.

    At any moment, to the unit:
    ``accepted + recovered == delivered + sum(refused) + sum(dropped) + spooled + pending``.

    Attributes:
        accepted: Valid events that were handed over, whatever became of them.
        delivered: Events that Userlens answered with success.
        refused: Events that Userlens will never take, by reason: ``rejected``, ``too_large``.
        dropped: Events lost on this side, by reason: ``queue_full``, ``expired``,
            ``attempts_exhausted``, ``shutdown``, ``closed``, ``disabled``, ``no_write_code``,
            ``internal``; and of a spool: ``spool_full``, ``spool_expired``, ``spool_damaged``.
        spooled: Events that are in the spool for another process to deliver: the one that
            drains it now, or the next one.
        recovered: Events that this process took out of the spool and had not put there to
            deliver: another's, or an earlier process'.
        unspooled: Events that were in memory alone when their log call returned, because the
            spool could not be used, or not at once.
        pending: Events held, those on their way included; of a spool, those that this
            process is to deliver.
        pending_bytes: Bytes of the bodies held in memory.
        retried: Attempts that failed and were, or will be, made again.
        invalid: Tagged records and calls that were no events, by reason; ``own_thread``
            is what `Settings.on_error`, or an object collected meanwhile, logged on a
            thread of ours: an event made of that could go on for ever.
        duplicates: Records that met a second entrance, and were not sent twice.
        sampled: Events that a rule's ``sample`` left out.
        cut: Values shortened or left out for their size.
        redacted: Values hidden for their names.
        threads: Sender threads alive.
        workers_failed: Sender threads that met an error nobody foresaw (``died``), or could not
            be started (``refused``): what they had in hand is tried again.
        held_back: Why nothing is sent at the moment, if so: ``unavailable``,
            ``unauthorized``, ``redirect`` or ``tls``.

    .. versionadded:: 0.1.0
    """

    accepted: int = 0
    delivered: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    spooled: int = 0
    recovered: int = 0
    unspooled: int = 0
    pending: int = 0
    pending_bytes: int = 0
    retried: int = 0
    invalid: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    sampled: int = 0
    cut: int = 0
    redacted: int = 0
    threads: int = 0
    workers_failed: Mapping[str, int] = field(default_factory=dict)
    held_back: str | None = None

    def __add__(self, other: Stats) -> Stats:
        """Return the sum: what became of the events of both."""
        both: dict[str, object] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, int):
                both[item.name] = mine + theirs
            elif item.name == "held_back":
                both[item.name] = mine or theirs
            else:
                both[item.name] = dict(Counter(mine) + Counter(theirs))
        return Stats(**both)  # type: ignore[arg-type]  # fields of this very class


class Ledger:
    """
    Counts from any thread, without a lock on the way in.

    `deque.append` cannot be interrupted half-way, so no count is lost, and a
    signal handler or a ``__del__`` that logs cannot deadlock on itself.
    """

    __slots__ = ("_counts", "_lock", "_tally")

    def __init__(self) -> None:
        """Start at zero."""
        self._tally: deque[tuple[str, str, int]] = deque()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def count(self, what: str, reason: str = "", number: int = 1) -> None:
        """Count *number* more of *what*, for *reason*."""
        self._tally.append((what, reason, number))
        if len(self._tally) >= _FOLD_AT and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def _fold(self) -> None:
        tally = self._tally
        for _ in range(len(tally)):
            what, reason, number = tally.popleft()
            self._counts[what, reason] += number

    def read(self) -> Counter[tuple[str, str]]:
        """Return all counts: how many of what, for which reason."""
        # Bounded: a signal handler that asks may have interrupted the very fold.
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                self._fold()
            finally:
                self._lock.release()
        return self._counts.copy()


def make_stats(
    counts: Counter[tuple[str, str]], *, pending_bytes: int, threads: int, held_back: str | None
) -> Stats:
    """Return the `Stats` that the counts of a `Ledger` make."""

    def total(what: str) -> int:
        return sum(number for (name, _), number in counts.items() if name == what)

    def by_reason(what: str) -> Mapping[str, int]:
        return {reason: number for (name, reason), number in sorted(counts.items()) if name == what}

    came = total("accepted") + total("recovered")
    went = total("delivered") + total("refused") + total("dropped") + total("spooled")
    return Stats(
        accepted=total("accepted"),
        delivered=total("delivered"),
        refused=by_reason("refused"),
        dropped=by_reason("dropped"),
        spooled=total("spooled"),
        recovered=total("recovered"),
        unspooled=total("unspooled"),
        # Worked out, not counted: an event is counted as accepted before
        # anything else can happen to it, so this is exact at any moment.
        pending=came - went,
        pending_bytes=pending_bytes,
        retried=total("retried"),
        invalid=by_reason("invalid"),
        duplicates=total("duplicates"),
        sampled=total("sampled"),
        cut=total("cut"),
        redacted=total("redacted"),
        threads=threads,
        workers_failed=by_reason("workers_failed"),
        held_back=held_back,
    )
