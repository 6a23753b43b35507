"""
Where log calls leave their payloads: bounded by events and bytes, and never waiting.

A log call appends to a deque and reads two numbers; it takes no lock, so that
a signal handler or a ``__del__`` that logs, in the middle of a log call,
cannot deadlock on itself. The numbers are kept by whoever holds the sender's
lock. So the bounds are exact to what has not been taken in yet: each thread
may pass them by one event, and bytes by `_UNWEIGHED` small bodies.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from userlens_instrument.events import Payload


# Payloads that may lie in the inbox before somebody has to weigh them.
_UNWEIGHED = 64
# A body of this many bytes is weighed at once.
_HEAVY = 4_096
# With drop_oldest, room is made after the event has come in; this many times
# the bound is where even that policy drops the newest.
_HARD_BOUND = 2


class Buffer:
    """
    The inbox of one sender.

    Args:
        max_events: Most events held, those in the lanes included.
        max_bytes: Most bytes of bodies held.
        drop_oldest: Whether a full buffer makes room for a new event.
    """

    __slots__ = ("_drop_oldest", "_max_bytes", "_max_events", "held_bytes", "held_events", "inbox")

    def __init__(self, *, max_events: int, max_bytes: int, drop_oldest: bool) -> None:
        """Start empty."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self.inbox: deque[Payload] = deque()
        #: What the lanes hold; written by whoever holds the sender's lock.
        self.held_events = 0
        self.held_bytes = 0

    def offer(self, payload: Payload) -> bool:
        """Take *payload* in, or return False: the buffer is full. Never waits."""
        events = self.held_events + len(self.inbox)
        size = self.held_bytes + len(payload.body)
        most = _HARD_BOUND if self._drop_oldest else 1
        if events >= self._max_events * most or size > self._max_bytes * most:
            return False
        self.inbox.append(payload)
        return True

    def needs_weighing(self, payload: Payload) -> bool:
        """Return whether the bounds want the inbox to be taken in now, after *payload*."""
        return len(self.inbox) >= _UNWEIGHED or len(payload.body) >= _HEAVY

    @property
    def overfull(self) -> bool:
        """Whether the oldest events have to go: only ever with ``drop_oldest``."""
        return self.held_events > self._max_events or self.held_bytes > self._max_bytes
