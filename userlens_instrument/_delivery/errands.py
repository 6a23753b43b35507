"""
Calls into the application, one after the other, on a thread that is there while they last.

What the application gives us to call (its logging handlers, its ``on_error``)
may hang, raise, or hold any lock: neither a log call nor a sender can wait for
it. The thread starts when there is something to do, and ends when there is not.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from userlens_instrument._delivery.bell import Bell
from userlens_instrument._delivery.threads import (
    end_of_thread,
    lent_thread,
    make_of_threads,
    mark_own_thread,
    may_start_threads,
)


if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

# Idle seconds after which the thread ends.
_IDLE = 1.0


class Errands(Generic[T]):
    """
    Does *act* with each item that is `put`, in order.

    Args:
        name: The thread's.
        act: What to do; whatever it raises is dropped.
    """

    def __init__(self, name: str, act: Callable[[T], object]) -> None:
        """Start with nothing to do, and no thread."""
        self._name = name
        self._act = act
        self.reset()

    def reset(self) -> None:
        """
        Start afresh; in a forked child what waits is the parent's.

        If the fork was made on this very thread, by what it called, it ends there.
        """
        # An event among the items is set when those before it are done.
        self._items: deque[T | threading.Event] = deque()
        self._bell = Bell()
        self._make = make_of_threads()
        self._running = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Have *item* done soon. Never blocks and never raises an `Exception`."""
        self._put(item)

    def _put(self, item: T | threading.Event) -> None:
        self._items.append(item)
        self._bell.ring()
        if not self._running:
            self._start()

    def _start(self) -> None:
        if not may_start_threads():
            return
        if self._make is not make_of_threads():
            # The next one is a greenlet, and the old bell would stop them all.
            self._make, self._bell = make_of_threads(), Bell()
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._running = True
            thread.start()
        except BaseException as error:
            # The interpreter is on its way out, or the machine is full: the
            # next item tries again, and the exit hook does it itself. Or a
            # signal handler raised, which goes on; perhaps when it had started.
            self._running = thread.ident is not None
            if not isinstance(error, Exception):
                raise

    def _run(self) -> None:
        mark_own_thread()
        items, bell = self._items, self._bell
        while self._items is items:
            try:
                item = items.popleft()
            except IndexError:
                # Started afresh meanwhile: this thread is of before.
                if bell.wait(_IDLE) or self._items is not items:
                    continue
                self._running = False
                # What came between the time-out and the line above started no
                # thread; go on in its place.
                if not items:
                    end_of_thread()
                    return
                self._running = True
                continue
            self._do(item)

    def _do(self, item: T | threading.Event) -> None:
        if isinstance(item, threading.Event):
            item.set()
            return
        # Whatever it raises, SystemExit included, is the application's affair.
        with suppress(BaseException):
            self._act(item)

    def finish(self, timeout: float, instead: Callable[[], None] | None = None) -> bool:
        """
        Wait until what was put before is done; return whether it is.

        Args:
            timeout: Longest wait for it, in seconds.
            instead: Has `do_here` called where no thread is to be had (3.12 at exit);
                on the calling thread, if absent.
        """
        if not self._running and not self._items:
            return True
        done = threading.Event()
        self._put(done)
        if not self._running:
            (instead or self.do_here)()
        return done.wait(timeout)

    def do_here(self) -> None:
        """Do what waits on the calling thread, one item after the other."""
        with lent_thread(), suppress(IndexError):
            while True:
                self._do(self._items.popleft())
