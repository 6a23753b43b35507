"""
The caller's way into the spool: what a log call returned for is on disk.

A log call waits for another's commit, never for a disk that is gone: past
`PATIENCE` its event stays in memory, is counted as late, and a worker writes it
as soon as that can be. While the spool cannot be used at all, events are
delivered from memory, and the first thing that works is the spool again.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from userlens_instrument._core.stored import to_columns
from userlens_instrument._delivery.buffer import LIGHT
from userlens_instrument._delivery.errands import Errands
from userlens_instrument._delivery.spool import OPENING, PATIENCE
from userlens_instrument._delivery.threads import may_start_threads
from userlens_instrument.exceptions import SpoolError


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userlens_instrument._core.encode import AnyPayload
    from userlens_instrument._core.stored import Columns, RawTrack
    from userlens_instrument._delivery.buffer import Buffer
    from userlens_instrument._delivery.spool import Spool
    from userlens_instrument.typing import Clock


# Rows of one commit: a burst of threads, or what waited for the disk.
_MOST_ROWS = 500
# Seconds after which the spool is tried again: the first time, and at most.
_FIRST_RETRY = 0.5
_LAST_RETRY = 30.0
# Seconds for which events are gathered before they are written, in relaxed
# mode: what a SIGKILL can cost, the write itself aside.
_GATHER = 0.005
# Seconds for which another program may hold the file before we go on without it.
_MOST_LOCKED = 1.0

_FIXES = {
    "locked": "end the program that holds it",
    # Until its log fits into the file, nothing can be taken out of it.
    "full": "free some space there ({mib} MiB at least), or raise spool_max_bytes",
    "denied": "let this user write to it and to its directory",
    "newer": "upgrade userlens-instrument",
    "foreign": "give the spool a path of its own",
    "shared": "give each write code a spool of its own",
}

# What comes of a fault of ours, or of no memory; anything else was raised by a
# signal handler, and is none of our business.
UNFORESEEN = (
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
)

_popleft = deque.popleft


def hold(lock: Any, act: Callable[[], object], patience: float) -> bool:
    """
    Do *act* while *lock* is held, and return whether it could be had.

    A signal handler may raise between any two lines of this (a task's time
    limit does); `list.extend` keeps what `acquire` returned before one can.

    Args:
        lock: A `threading.Lock`.
        act: What to do.
        patience: Longest wait for the lock, in seconds.
    """
    taken: list[bool] = []
    try:
        taken.extend(map(lock.acquire, (True,), (max(0.0, patience),)))
        if taken[0]:
            act()
    finally:
        if taken and taken[0]:
            lock.release()
    return taken[0]


class Inlet:
    """
    Takes payloads from log calls into a spool.

    Args:
        spool: The file.
        clock: For the retries and the time of the rows.
        buffer: What bounds the events in memory.
        say: As of the `Sender`.
        origin: This process' number, see `Row`.
        relaxed: Whether a worker writes, some milliseconds later, and not the log call.
        drop: Called with a reason, a problem and the payload that there is no room for.
        max_events: Most events in memory.
        max_bytes: Most bytes in memory.
        drop_oldest: Whether those make room for a new one.

    Attributes:
        waiting: What is in memory, in order.
        down: Why the spool cannot be used at present; None if it can.
        fresh: Whether something was written that the outlet may not have seen.
        left: Events that were dropped, or are delivered from memory.
        handed_over: Events given to another process after they were written.
        draining: Whether it is this process that delivers.
        unspooled: Events that were in memory alone when their log call returned, though the
            setting is another.
        last: The number of the last row written.
    """

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        buffer: Buffer,
        say: Callable[[str | None, str], None],
        *,
        origin: int,
        relaxed: bool,
        drop: Callable[[str, str, AnyPayload | RawTrack], None],
        max_events: int,
        max_bytes: int,
        drop_oldest: bool,
    ) -> None:
        """Open nothing yet."""
        self.spool = spool
        self._wall = clock.wall
        self._monotonic = clock.monotonic
        self._buffer = buffer
        self._say = say
        self._origin = origin
        self._relaxed = relaxed
        self._drop = drop
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._lock = threading.Lock()
        self._acquire = self._lock.acquire
        # Threads that have the lock, or wait for it.
        self._inside: set[int] = set()
        self.waiting: deque[AnyPayload | RawTrack] = deque()
        self._weight = 0
        # Swapped whole, so that they add up whatever interrupts.
        self._books = _Books(0, 0, [], [])
        # Whether log calls leave the writing to a worker: relaxed, locked or down.
        self._hands_off = relaxed
        # Never set: what waits for it waits for its time to pass.
        self._nap = threading.Event()
        self._locked_since: float | None = None
        self._next_try = 0.0
        self._wait = _FIRST_RETRY
        self.down: SpoolError | None = None
        #: Called under the lock when the file has been opened.
        self.on_open: Callable[[], None] = _nothing
        # Who writes in relaxed mode.
        self._scribe: Errands[None] = Errands("userlens-spool", self._write_soon)
        self._called = False
        self.fresh = False
        #: Whether a fork has closed the file.
        self.suspended = False
        #: Whether nothing is written any more.
        self.closed = False
        self.left = 0
        self.handed_over = 0
        self.draining = False
        self.unspooled = 0
        self.last = 0

    # ------------------------------------------------------------ on the caller's thread

    def put(self, item: AnyPayload | RawTrack) -> None:
        """Take *item* over. Waits for `PATIENCE` at most, and raises nothing of its own."""
        # Or it is too early to open anything: a fork is to come of which we would not hear.
        if self._hands_off or not (self.spool.is_open or may_start_threads()):
            self._leave(item)
            return
        waiting, inside, me = self.waiting, self._inside, threading.get_ident()
        waiting.append(item)
        if me in inside:
            # A signal handler, in the middle of this: whoever it has interrupted writes it.
            return
        taken: list[bool] = []
        try:
            inside.add(me)
            taken.extend(map(self._acquire, (False,)))
            if not taken[0]:
                taken.extend(map(self._acquire, (True,), (PATIENCE,)))
            if not taken[-1]:
                self.unspooled += 1
            elif waiting:
                if taken[0] or self._locked_since is None:
                    self._write()
                    self.unspooled += bool(self._books.batch)
                else:
                    # Who had the lock has waited for another program, in vain,
                    # and this call for them: that is enough.
                    self.unspooled += 1
        finally:
            if taken and taken[-1]:
                self._lock.release()
            inside.discard(me)
            if waiting or self._books.batch:
                # Of a signal handler that came in the last moment, or nobody had the lock.
                self.fresh = True

    def _leave(self, item: AnyPayload | RawTrack) -> None:
        """Leave *item* in memory, if there is room."""
        buffer = self._buffer
        size = _size(item)
        if (
            len(self.waiting) + buffer.held_events >= self._max_events
            or self._weight + buffer.held_bytes + size > self._max_bytes
        ):
            if not (self._drop_oldest and self.waiting):
                self.left += 1
                self._drop("queue_full", "the buffer is full", item)
                return
            with suppress(IndexError):  # a worker has just taken them
                oldest = self.waiting.popleft()
                self.left += 1
                self._weight -= _size(oldest)
                self._drop("queue_full", "the buffer is full, and the oldest made room", oldest)
        self.unspooled += not self._relaxed or self.down is not None
        self._weight += size
        self.waiting.append(item)
        self.fresh = True
        if self._relaxed and self.down is None and not self._called:
            self._called = True
            self._scribe.put(None)

    def _write_soon(self, nothing: None) -> None:  # noqa: ARG002 - an errand's item
        """Write what has come in a while: the relaxed way."""
        self._nap.wait(_GATHER)
        self._called = False
        self.held(self.sweep, PATIENCE)

    # ------------------------------------------------------------ under the lock

    def held(self, act: Callable[[], object], patience: float) -> bool:
        """Do *act* under the lock; return whether it could be had. May raise what *act* does."""
        inside, me = self._inside, threading.get_ident()
        if me in inside:
            return False  # a signal handler, which would wait for what it has interrupted
        try:
            inside.add(me)
            return hold(self._lock, act, patience)
        finally:
            inside.discard(me)

    def _write(self) -> None:
        """Write what waits. Whatever is wrong with the spool is taken note of here."""
        try:
            self._write_all()
        except SpoolError as error:
            self.fail(error)
        except UNFORESEEN as error:
            # Not SQLite's, so the next try may fare no better: from memory, then.
            self.fail(SpoolError(str(self.spool.path), "failed", type(error).__name__))

    def _write_all(self) -> None:
        spool, waiting = self.spool, self.waiting
        while True:
            if self._books.done:
                # The call before was interrupted, and yet it had committed.
                self._close_books()
            batch, done = self._books.batch, self._books.done
            if not batch:
                number = min(len(waiting), _MOST_ROWS)
                if not number:
                    break
                # In one step: what is popped is never nowhere.
                batch.extend(map(_popleft, [waiting] * number))
            if not spool.is_open:
                self._open(PATIENCE)
            spool.roll_back()
            self.last = spool.insert(self._columns(batch), done)
            self._close_books()
        self._weight = 0
        self._locked_since = None

    def _open(self, patience: float) -> None:
        self.spool.open(patience=patience)
        self.on_open()

    def resume(self) -> None:
        """Open again what was closed for a fork. The lock must be held."""
        self.suspended = False
        if not (self.spool.is_open or self.closed):
            self._open(OPENING)

    def _columns(self, batch: list[Any]) -> Sequence[Columns]:
        at, origin = self._wall(), self._origin
        return [to_columns(item, at=at, origin=origin) for item in batch]

    def _close_books(self) -> None:
        """Take note of what has been written."""
        written, others, batch, _ = self._books
        number = len(batch)
        self._books = _Books(written + number, others + (not self.draining) * number, [], [])
        self.fresh = True

    def fail(self, error: SpoolError) -> None:
        """Take note that the spool has failed. The lock must be held."""
        now = self._monotonic()
        self.fresh = True
        if error.kind == "locked":
            # For a moment, or for good? Each log call waits its moment, so that
            # none that is in haste fills the memory meanwhile.
            if self._locked_since is None:
                self._locked_since = now
            if now - self._locked_since < _MOST_LOCKED:
                return
            self._locked_since = None
        self._next_try = now + self._wait
        self._wait = min(_LAST_RETRY, self._wait * 2)
        self._hands_off = True
        self.down = error
        mib = self.spool.wal_bytes() // 2**20 + 1
        fix = _FIXES.get(error.kind, "see to its disk").format(mib=mib)
        self._say(
            f"spool {error.kind}",
            f"{error}; until it can be used again, events are held in memory alone, and delivered "
            f"from there: {fix}",
        )

    def sweep(self, patience: float = PATIENCE) -> None:
        """
        Write what waits, if the spool is thought to work, or may again. The lock must be held.

        Raises nothing: see `down`.

        Args:
            patience: Longest wait for whoever opens the file, in seconds.
        """
        if self.closed or (self._hands_off and self._monotonic() < self._next_try):
            return
        was_down = self.down
        try:
            if was_down is not None and self.spool.is_open and not self.spool.is_in_place():
                # Set aside by another process, say.
                self.spool.close()
            if self.spool.is_open and was_down is not None:
                self.spool.roll_back()
                self.spool.put("tried", "")
            elif not self.spool.is_open and (was_down is not None or self.unwritten):
                self._open(patience)
            self._write_all()
        except SpoolError as error:
            self.fail(error)
            return
        except UNFORESEEN as error:
            self.fail(SpoolError(str(self.spool.path), "failed", type(error).__name__))
            return
        self._locked_since = None
        self._hands_off = self._relaxed
        self._wait = _FIRST_RETRY
        self.down = None
        if was_down is not None:
            self._say("spool again", f"the spool {self.spool.path} is in use again")

    def retry_now(self) -> None:
        """Have the next `sweep` try the spool: what was wrong with it is put right."""
        self._next_try = 0.0

    def attend(self) -> None:
        """
        Open the file as it is, though nothing was handed over. The lock must be held.

        Raises:
            SpoolError: If it cannot be used; it is not made where there is none.
        """
        if self.down is not None:
            raise self.down
        if not self.spool.is_open:
            self.spool.open(create=False)
            self.on_open()

    def withdraw(self) -> list[AnyPayload | RawTrack]:
        """Return what waits, to be delivered from memory. The lock must be held."""
        if self._books.done:
            self._close_books()
        written, others, batch, _ = self._books
        batch.extend(map(_popleft, [self.waiting] * len(self.waiting)))
        self._books = _Books(written, others, [], [])
        self._weight = 0
        return batch

    def hold_for_fork(self, patience: float) -> list[threading.Lock]:
        """Return the lock, taken, unless it cannot be had."""
        if threading.get_ident() in self._inside or not self._lock.acquire(timeout=patience):
            return []
        self.suspended = self.suspended or self.spool.is_open
        return [self._lock]

    @property
    def wants_worker(self) -> bool:
        """Whether what is written is for this process to deliver, or something is not written."""
        return bool(self.draining or self._hands_off or self.waiting or self._books.batch)

    @property
    def is_full(self) -> bool:
        """Whether the spool cannot be used because there is no room for it."""
        return self.down is not None and self.down.kind == "full"

    @property
    def unwritten(self) -> int:
        """How many events are in memory alone."""
        _, _, batch, done = self._books
        return len(self.waiting) + (0 if done else len(batch))

    @property
    def written(self) -> int:
        """How many events have been written; this only grows."""
        return self._books.written

    @property
    def gone(self) -> int:
        """How many events are not in here any more; this only grows."""
        return self._books.written + self.left

    @property
    def retry_in(self) -> float:
        """Seconds until the spool is worth another try; 0.0 if it works."""
        if self._hands_off and (self.down is not None or self._locked_since is not None):
            return max(0.0, self._next_try - self._monotonic())
        return 0.0

    @property
    def accepted(self) -> int:
        """Events that were handed over, but for what was dropped or withdrawn."""
        return self._books.written + len(self._books.batch) + len(self.waiting)

    @property
    def spooled(self) -> int:
        """Events that it is for another process to deliver."""
        return self._books.others + self.handed_over


class _Books(NamedTuple):
    """
    What has been written, and what is being.

    Attributes:
        written: How many events were.
        others: How many of them while another process was the one to deliver them.
        batch: What is being written.
        done: Not empty once it has been: a commit and the note of it are one step.
    """

    written: int
    others: int
    batch: list[Any]
    done: list[object]


def _nothing() -> None:
    """Do nothing: nobody has asked to be told."""


def _size(item: AnyPayload | RawTrack) -> int:
    # What is taken the short way is never heavier.
    return LIGHT if type(item) is tuple else item.size  # type: ignore[union-attr]  # no tuple
