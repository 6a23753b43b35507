"""Which threads are ours: what they log, or urllib3 logs on them, never becomes an event."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterator


class _Mark(threading.local):
    ours = False


#: Its attribute `ours` says it of the calling thread, for those who ask very often.
own_thread = _Mark()


def mark_own_thread() -> None:
    """Mark the calling thread as one of ours, for as long as it lives."""
    own_thread.ours = True


def unmark_own_thread() -> None:
    """Take the mark off: in a child, the thread that forked is nobody's but the application's."""
    own_thread.ours = False


@contextmanager
def lent_thread() -> Iterator[None]:
    """Mark the calling thread as one of ours for a while: a flush that delivers by itself."""
    before, own_thread.ours = own_thread.ours, True
    try:
        yield
    finally:
        own_thread.ours = before


def is_own_thread() -> bool:
    """Return whether the calling thread is one of ours."""
    return own_thread.ours
