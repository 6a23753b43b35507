"""
The one voice: rate-limited lines on the ``userlens_instrument`` logger.

A line is never written by the thread that logs (its handlers may hold any
lock, and Python 3.13.4 silences loggers within a log call), nor by a sender (a
host's handler that hangs would hang delivery): see `Errands`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.errands import Errands


if TYPE_CHECKING:
    from userlens_instrument.typing import Clock


LOGGER = "userlens_instrument"

# One line of a kind a minute, as logfire and Vector do: enough to be found,
# too little to fill a disk.
_INTERVAL = 60.0
# How many kinds are told apart; past that the oldest may speak again.
_MOST_KINDS = 1_024
# How many lines are remembered to know them again: behind a bridge's queue there
# may be as many, each an event's if its program logs everything about deliveries.
_MOST_SAID = 4_096
# A program with thousands of wrong call sites is told of the first of them.
_MOST_WAITING = 256


class Voice:
    """
    Says things, each kind once a minute, with the number of times it was meant to.

    Args:
        clock: For the interval.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Start silent, with no thread."""
        self._clock = clock or SystemClock()
        self._last: dict[str, tuple[float, int]] = {}
        self._kinds: deque[str] = deque()
        # Hashes, as keys: the oldest goes first.
        self._said: dict[int, None] = {}
        self._lines = Errands("userlens-diagnostics", self._write)
        # Reentrant: a host's handler may fork.
        self._writing = threading.RLock()
        self._paused_by: int | None = None

    def reset(self) -> None:
        """Start afresh in a forked child: locks may have been held."""
        self._lines.reset()
        self._last.clear()
        self._kinds.clear()
        self._writing = threading.RLock()
        self._paused_by = None

    def say(self, kind: str | None, message: str, level: int = logging.WARNING) -> None:
        """
        Have *message* written soon, unless one of its *kind* was in the last minute.

        Never blocks and never raises. Callable from anywhere.

        Args:
            kind: What the limit applies to, such as a reason and a call site; None for no limit.
            message: One line, without an event's content and without the write code.
            level: As in `logging`.
        """
        with suppress(Exception):  # a voice that fails has nobody left to tell
            self._say(kind, message, level)

    def _say(self, kind: str | None, message: str, level: int) -> None:
        if kind is not None:
            held_back = self._held_back(kind)
            if held_back is None:
                return
            if held_back:
                message = f"{message} (and {held_back} more like it since the last line)"
        if len(self._lines) < _MOST_WAITING:
            self._lines.put((level, message))

    def _held_back(self, kind: str) -> int | None:
        """Return how many of *kind* were kept back since the last line; None to keep this one."""
        now = self._clock.monotonic()
        last = self._last.get(kind)
        if last is not None and now - last[0] < _INTERVAL:
            self._last[kind] = (last[0], last[1] + 1)
            return None
        if last is None:
            self._kinds.append(kind)
            if len(self._kinds) > _MOST_KINDS:
                self._last.pop(self._kinds.popleft(), None)
        self._last[kind] = (now, 0)
        return 0 if last is None else last[1]

    def _write(self, line: tuple[int, str]) -> None:
        level, message = line
        with self._writing:
            self._remember(message)
            logging.getLogger(LOGGER).log(level, "%s", message)

    def _remember(self, message: str) -> None:
        said, key = self._said, hash(message)
        said.pop(key, None)
        said[key] = None
        if len(said) > _MOST_SAID:
            del said[next(iter(said))]

    def has_said(self, text: str) -> bool:
        """
        Return whether *text* is a line of ours, of the last thousands.

        By its text alone: a bridge to another library, or a filter that renames
        loggers, leaves nothing else of who has logged it.
        """
        return hash(text) in self._said

    def pause(self, timeout: float) -> None:
        """Write nothing until `resume`; wait *timeout* seconds at most for a line being written."""
        if self._writing.acquire(timeout=timeout):
            self._paused_by = threading.get_ident()

    def resume(self) -> None:
        """End what `pause` began on this thread, if it could."""
        if self._paused_by == threading.get_ident():
            self._paused_by = None
            self._writing.release()

    def drain(self, timeout: float) -> None:
        """
        Have what waits written before this returns: the exit hook's part.

        Args:
            timeout: How long to wait for it, in seconds.
        """
        if self._lines.finish(timeout):
            return
        # The thread does not get to run. If it hangs in a host's handler, it has
        # the lock, and the exit does not join it there.
        if self._writing.acquire(blocking=False):
            try:
                self._lines.do_here()
            finally:
                self._writing.release()


voice = Voice()


def forget_inherited() -> None:
    """Start afresh in a forked child: the thread did not come along."""
    voice.reset()
