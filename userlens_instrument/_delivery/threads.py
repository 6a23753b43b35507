"""Which threads are ours: what they log, or urllib3 logs on them, never becomes an event."""

from __future__ import annotations

import _thread
import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Mark(threading.local):
    ours = False


_local = threading.local


@cache
def _late_mark() -> _Mark:
    # For when gevent or eventlet is patched in after this was loaded: what was
    # a thread's own is then all greenlets', the application's included.
    class LateMark(threading.local):
        ours = False

    return LateMark()  # type: ignore[return-value]  # of the same shape


def _mark() -> _Mark:
    return own_thread if threading.local is _local else _late_mark()


def make_of_threads() -> object:
    """Return what tells threads from what gevent or eventlet put in their place."""
    return _thread.get_ident


#: Its attribute `ours` says it of the calling thread, for those who ask very often.
own_thread = _Mark()


def end_of_thread() -> None:
    """
    Have the calling thread end quietly, if gevent or eventlet was patched in since it began.

    `threading` looks for it by the number that it has now, and prints a
    traceback if it finds none under that.
    """
    active = getattr(threading, "_active", None)
    if active is not None and threading.local is not _local:
        active.setdefault(threading.get_ident(), threading.main_thread())


_vetoes: list[Callable[[], bool]] = []


def veto_threads(veto: Callable[[], bool]) -> None:
    """Have no thread of ours started while *veto* returns True; what there is to do waits."""
    _vetoes.append(veto)


def may_start_threads() -> bool:
    """Return whether the host can bear a thread at the moment."""
    # Once the interpreter is taken down, a thread that is started never runs,
    # and whoever starts it waits for that.
    return not sys.is_finalizing() and not any(veto() for veto in _vetoes)


def mark_own_thread() -> None:
    """Mark the calling thread as one of ours, for as long as it lives."""
    _mark().ours = True


def unmark_own_thread() -> None:
    """Take the mark off: in a child, the thread that forked is nobody's but the application's."""
    _mark().ours = False


@contextmanager
def lent_thread() -> Iterator[None]:
    """Mark the calling thread as one of ours for a while: a flush that delivers by itself."""
    mark = _mark()
    before, mark.ours = mark.ours, True
    try:
        yield
    finally:
        mark.ours = before


def is_own_thread() -> bool:
    """Return whether the calling thread is one of ours."""
    return _mark().ours
