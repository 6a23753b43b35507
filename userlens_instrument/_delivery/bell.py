"""Wakes a thread that sleeps, from any thread, a signal handler or a ``__del__``; once for many."""

from __future__ import annotations

import threading
from contextlib import suppress


class Bell:
    """
    A lock that is held while nothing has happened.

    Not `queue.SimpleQueue`: its ``get`` with a timeout that is over before it
    looks again waits for ever (CPython 3.10 to 3.13, measured: ``get(timeout=1e-6)``
    does not return), so that a worker whose retry is due in a moment would sleep
    until the next event. Not `threading.Condition` or ``Event``: a signal
    handler that rings, in the middle of another ring, would wait for itself.
    """

    __slots__ = ("_silence",)

    def __init__(self) -> None:
        """Start silent."""
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wake one that waits, or have the next one not wait. Never blocks."""
        with suppress(RuntimeError):  # it rings already
            self._silence.release()

    def wait(self, timeout: float) -> bool:
        """
        Wait until it rings; return whether it has.

        Args:
            timeout: Longest wait, in seconds.
        """
        return self._silence.acquire(timeout=timeout)
