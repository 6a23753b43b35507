"""
Where log calls leave their payloads: bounded by events and bytes, and never waiting.

A log call compares two numbers and appends to a deque; it takes no lock, so
that a signal handler or a ``__del__`` that logs, in the middle of a log call,
cannot deadlock on itself. The numbers are kept by whoever holds the sender's
lock. So the bounds are exact to what has not been taken in yet: each thread
may pass them by one event.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument._core.encode import AnyPayload
    from userlens_instrument._core.stored import RawTrack


#: What a payload may count for that is not weighed when it comes in.
LIGHT = 6_144
# With drop_oldest, room is made after the event has come in; this many times
# the bound is where even that policy drops the newest.
_HARD_BOUND = 2


class Buffer:
    """
    The inbox of one sender.

    Args:
        max_events: Most events held, those in the lanes included.
        max_bytes: Most bytes of payloads held.
        drop_oldest: Whether a full buffer makes room for a new event.
    """

    __slots__ = (
        "_drop_oldest",
        "_max_bytes",
        "_max_events",
        "_shut",
        "held_bytes",
        "held_events",
        "inbox",
        "put",
        "room",
    )

    def __init__(self, *, max_events: int, max_bytes: int, drop_oldest: bool) -> None:
        """Start empty."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._shut = False
        self.inbox: deque[AnyPayload | RawTrack] = deque()
        #: What the short way hands its payloads to: the inbox, unless there is a spool.
        self.put: Callable[[AnyPayload | RawTrack], None] = self.inbox.append
        self.weigh(0, 0)

    def weigh(self, events: int, size: int) -> None:
        """Take note of what the lanes hold. The sender's lock must be held."""
        self.held_events = events
        self.held_bytes = size
        left = min(self._max_events - events, (self._max_bytes - size) // LIGHT)
        #: How long the inbox may become of light payloads before it has to be
        #: taken in, whatever the bounds say: enough for a log call to compare with.
        self.room = 0 if self._shut or left < 0 else left

    def pass_on(self, payload: AnyPayload) -> None:
        """
        Take *payload* off the inbox, into what the lanes hold. The sender's lock must be held.

        Log calls go on meanwhile, and each compares the inbox with the room: so
        that is less before the inbox is shorter.
        """
        self.held_events += 1
        self.held_bytes += payload.size
        self.room -= 1 + payload.size // LIGHT
        self.inbox.popleft()

    def shut(self) -> None:
        """Have no room from now on: each payload takes the long way, where it is told why."""
        self._shut = True
        self.room = 0

    def takes(self, payload: AnyPayload) -> bool:
        """Return whether *payload* can come in without anything being weighed."""
        return payload.size <= LIGHT and len(self.inbox) < self.room

    def offer(self, payload: AnyPayload) -> bool:
        """Take *payload* in, or return False: the buffer is full. Never waits."""
        events = self.held_events + len(self.inbox)
        size = self.held_bytes + payload.size
        most = _HARD_BOUND if self._drop_oldest else 1
        if events >= self._max_events * most or size > self._max_bytes * most:
            return False
        self.inbox.append(payload)
        return True

    @property
    def overfull(self) -> bool:
        """Whether the oldest events have to go: only ever with ``drop_oldest``."""
        return self.held_events > self._max_events or self.held_bytes > self._max_bytes
