"""Which threads are ours: what they log, or urllib3 logs on them, never becomes an event."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterator


class _Mark(threading.local):
    ours = False


_mark = _Mark()


def mark_own_thread() -> None:
    """Mark the calling thread as one of ours, for as long as it lives."""
    _mark.ours = True


def unmark_own_thread() -> None:
    """Take the mark off: in a child, the thread that forked is nobody's but the application's."""
    _mark.ours = False


@contextmanager
def lent_thread() -> Iterator[None]:
    """Mark the calling thread as one of ours for a while: a flush that delivers by itself."""
    before, _mark.ours = _mark.ours, True
    try:
        yield
    finally:
        _mark.ours = before


def is_own_thread() -> bool:
    """Return whether the calling thread is one of ours."""
    return _mark.ours
