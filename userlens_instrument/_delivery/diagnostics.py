"""
The one voice: rate-limited lines on the ``userlens_instrument`` logger.

A line is never written by the thread that logs (its handlers may hold any
lock, and Python 3.13.4 silences loggers within a log call), nor by a sender (a
host's handler that hangs would hang delivery). A thread of its own writes it,
that starts when there is something to say and ends when there is not.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.threads import mark_own_thread


if TYPE_CHECKING:
    from userlens_instrument.typing import Clock


LOGGER = "userlens_instrument"

# One line of a kind a minute, as logfire and Vector do: enough to be found,
# too little to fill a disk.
_INTERVAL = 60.0
# How many kinds are told apart; past that the oldest may speak again.
_MOST_KINDS = 1_024
# A program with thousands of wrong call sites is told of the first of them.
_MOST_WAITING = 256
# Idle seconds after which the thread ends.
_IDLE = 1.0


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
        # An event among the lines is set when those before it are written.
        self._lines: SimpleQueue[tuple[int, str] | threading.Event] = SimpleQueue()
        self._running = False
        self._writing = threading.Lock()
        self._paused_by: int | None = None

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
        if self._lines.qsize() < _MOST_WAITING:
            self._lines.put((level, message))
        if not self._running:
            self._start()

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

    def _start(self) -> None:
        self._running = True
        try:
            threading.Thread(target=self._run, name="userlens-diagnostics", daemon=True).start()
        except Exception:
            # The interpreter is on its way out; the exit hook writes instead.
            self._running = False

    def _run(self) -> None:
        mark_own_thread()
        lines = self._lines
        while True:
            try:
                line = lines.get(timeout=_IDLE)
            except Empty:
                if self._lines is not lines:  # started afresh; this thread is of before
                    return
                self._running = False
                # What came between the time-out and the line above started no
                # thread; go on in its place.
                if lines.empty():
                    return
                self._running = True
                continue
            self._write(line)

    def _write(self, line: tuple[int, str] | threading.Event, timeout: float = -1) -> bool:
        if isinstance(line, threading.Event):
            line.set()
            return True
        level, message = line
        writing = self._writing
        if not writing.acquire(timeout=timeout):
            return False
        try:
            logging.getLogger(LOGGER).log(level, "%s", message)
        except BaseException:  # noqa: S110 - a host's handler that raises is the host's affair
            pass
        finally:
            writing.release()
        return True

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
        written = threading.Event()
        self._lines.put(written)
        if not self._running:
            self._start()
        # By the thread if there is one: a host's handler may hang, and the
        # exit must not. Here only if no thread is to be had (3.12 at exit), or
        # if the one there is does not get to run; one that hangs has the lock.
        if self._running and written.wait(timeout):
            return
        with suppress(Empty):
            while self._write(self._lines.get_nowait(), timeout=0):
                pass


voice = Voice()


def forget_inherited() -> None:
    """Start afresh in a forked child: the thread did not come along, locks may have been held."""
    voice.__init__()  # type: ignore[misc]  # every holder of the name keeps its object
