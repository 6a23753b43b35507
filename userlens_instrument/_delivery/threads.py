"""Which threads are ours: what they log, or urllib3 logs on them, never becomes an event."""

from __future__ import annotations

import threading


class _Mark(threading.local):
    ours = False


_mark = _Mark()


def mark_own_thread() -> None:
    """Mark the calling thread as one of ours, for as long as it lives."""
    _mark.ours = True


def unmark_own_thread() -> None:
    """Take the mark off: the thread was lent to us (a flush that delivers by itself)."""
    _mark.ours = False


def is_own_thread() -> bool:
    """Return whether the calling thread is one of ours."""
    return _mark.ours
