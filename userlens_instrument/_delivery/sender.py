"""
Worker threads: ask the schedule, attempt, report, wait.

Every decision is the schedule's, made under one lock that is held for
microseconds and never while anything waits. A log call never takes it: it
appends to the buffer's inbox, and rings the bell if a worker sleeps.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from userlens_instrument._core.batches import Batching, BatchSchedule
from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.outcome import Answer, Failure, Waits
from userlens_instrument._core.schedule import AnyAttempt, Attempt, Held, Policy, Schedule, Wait
from userlens_instrument._delivery.bell import Bell
from userlens_instrument._delivery.buffer import Buffer
from userlens_instrument._delivery.errands import Errands
from userlens_instrument._delivery.lines import closed_line, problem_of
from userlens_instrument._delivery.stats import Ledger, Stats, make_stats
from userlens_instrument._delivery.threads import (
    end_of_thread,
    is_own_thread,
    lent_thread,
    make_of_threads,
    mark_own_thread,
    may_start_threads,
)
from userlens_instrument.events import Loss
from userlens_instrument.exceptions import SpoolError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from userlens_instrument._core.encode import AnyPayload
    from userlens_instrument._core.stored import RawTrack
    from userlens_instrument._delivery.inlet import Inlet
    from userlens_instrument._delivery.outlet import Outlet
    from userlens_instrument.settings import Settings
    from userlens_instrument.typing import Clock, Transport


T = TypeVar("T")

# Seconds without work after which a worker beyond the first ends.
_IDLE = 5.0
# Seconds after which a worker whose batch waits for company looks whether it is full.
_GLANCE = 0.1
# Seconds that an answer has to take for each worker that is busy. Where answers
# come faster, the interpreter is what they wait for, and one keeps the other from
# it: against a server without latency, eight workers cost twice the processor
# time of two and deliver half as much (measured).
_WORTH = 0.000_4
# Seconds after which the worker that keeps out of the others' way looks whether
# they still get on: a request may hang.
_ASIDE = 0.02
# Seconds between two looks at a spool into which events come one after the other: as
# long as its relaxed way gathers.
_MOMENT = 0.005
# Seconds that a worker rests for after an error that nobody foresaw, such as no memory.
_REST = 0.1
# Seconds after which a flush looks whether there is still a worker to wait for.
_LOOK = 0.5
# How much the newest answer counts for in the mean of how long they take.
_NEWEST = 0.125
# The answer to an attempt that came to nothing on this side.
_NONE = Answer(failure=Failure.INTERNAL)
# Documented: "more than 10,000 events a minute: contact us first".
_DOCUMENTED_PACE = 10_000
# Losses that wait for on_error to be called, each with its body; past that they
# are counted only. Not a bound for those of the shutdown, which are held anyway.
_MOST_LOSSES = 256

# What `acquire` is called with, to take a lock or leave it.
_AT_ONCE = (False,)

# Seconds that on_error has at the end, however late it is.
_LAST_WORDS = 0.25
# Seconds for which an exit waits for another process that drains the spool.
_GLIMPSE = 1.0
# Seconds to wait for the lock at the end. It is held for microseconds, unless
# by the very thread that a signal handler of ours has interrupted.
_PATIENCE = 0.1
# The same, for statistics: a worker may be taking in ten thousand events, on a
# busy machine; what is counted without the lock may be one event off.
_STATS_PATIENCE = 1.0


def draw_evenly() -> float:
    """Return a float in [0.0, 1.0), another one in each process of a fork."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class _Barrier:
    """Waits until every event up to a number has an outcome."""

    __slots__ = ("done", "left", "seq")

    def __init__(self, seq: int, left: int) -> None:
        self.seq = seq
        self.left = left
        self.done = threading.Event()
        if not left:
            self.done.set()


#: Called after each request, on the thread that made it: seconds that it took, and its answer.
request_watchers: list[Callable[[float, Answer], object]] = []


class Sender:
    """
    Delivers payloads in the background, one user's in order, users side by side.

    Args:
        settings: Bounds, waits and policies.
        transport: Puts bytes on the wire.
        clock: Both clocks.
        say: Takes diagnostics: a kind to limit by, and a line.
        draw: Returns a float in [0.0, 1.0): the dice of the jitter.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        clock: Clock,
        say: Callable[[str | None, str], None],
        draw: Callable[[], float] = draw_evenly,
    ) -> None:
        """Start empty, with no thread."""
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._say = say
        self._draw = draw
        self._drop_oldest = settings.overflow == "drop_oldest"
        self._policy = _policy(settings)
        self._losses = Errands("userlens-on-error", self._tell)
        self.reset()

    def reset(self) -> None:
        """
        Start afresh: at the beginning, and in a forked child.

        There the parent delivers what the parent took in; every lock may have
        been held at the fork, and no thread came along.
        """
        settings = self._settings
        self.ledger = Ledger()
        self._make_locks()
        self.buffer = Buffer(
            max_events=settings.max_queue_events,
            max_bytes=settings.max_queue_bytes,
            drop_oldest=self._drop_oldest,
        )
        self._schedule = self._make_schedule()
        # What the ids of batched events begin with: in the form of a random UUID,
        # and as good as one. It is this process' own; the last part counts.
        self._ids = str(uuid.uuid4())[:24].encode()
        self._barriers: list[_Barrier] = []
        # How many events of the attempt that is being taken in are counted so far.
        self._accounted = 0
        self._losses.reset()
        self._open_spool()
        # Whether a worker looks after the spool while it sleeps.
        self._watched = False
        self._threads = 0
        self._sleeping = 0
        # Whether a worker keeps out of the others' way.
        self._aside = False
        # Seconds that answers take, their mean; so long that the first workers start.
        self._took = 1.0
        # When the last answer came.
        self._moved = 0.0
        # Whether a worker is to call on_error: see `_lend_a_worker`.
        self._lent = False
        # How many events have been taken in, here and not by every log call.
        self._admitted = 0
        # Read by log calls without the lock: whether a ring would be of use.
        self.call = True
        self._closed = False
        # Whether nothing is sent any more: see `halt`.
        self._halted = False
        # Seconds that the exit may still wait for events; None before the exit.
        self._exit_seconds: float | None = None
        self._last_words: Callable[[], None] = _nothing
        self._minute = (0.0, 0)

    def _make_locks(self) -> None:
        self._make = make_of_threads()
        self._lock = threading.Lock()
        self._bell = Bell()
        # Never set: what waits for it waits for its time to pass.
        self._nap = threading.Event()

    def _make_schedule(self, last_seq: int = 0) -> Schedule:
        settings = self._settings
        if settings.delivery == "event":
            return Schedule(self._policy, last_seq=last_seq)
        batching = Batching(
            max_events=settings.batch_max_events,
            max_bytes=settings.batch_max_bytes,
            linger=settings.batch_linger,
        )
        return BatchSchedule(self._policy, batching, last_seq=last_seq)

    def _open_spool(self) -> None:
        """Make both ends of the spool, if there is to be one; no file is opened yet."""
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        settings = self._settings
        if settings.spool is None:
            return
        # Late: who has no spool does not pay for SQLite.
        from userlens_instrument._delivery.inlet import Inlet  # noqa: PLC0415
        from userlens_instrument._delivery.outlet import Desk, Outlet  # noqa: PLC0415
        from userlens_instrument._delivery.spool import Spool  # noqa: PLC0415

        origin = int.from_bytes(os.urandom(7), "big")
        spool = Spool(
            settings.spool,
            sync=settings.spool_sync,
            max_bytes=settings.spool_max_bytes,
            destination=settings.write_code or "",
        )
        self._inlet = Inlet(
            spool,
            self._clock,
            self.buffer,
            self._say,
            origin=origin,
            relaxed=settings.spool_sync == "relaxed",
            drop=self._drop_item,
            max_events=settings.max_queue_events,
            max_bytes=settings.max_queue_bytes,
            drop_oldest=self._drop_oldest,
        )
        desk = Desk(
            feed=self._feed,
            take=self._take,
            room=self._room,
            unfed=self._unfed,
            lose=self._lose_row,
            hide=self._hide,
        )
        self._outlet = Outlet(
            self._inlet,
            desk,
            self.ledger,
            self._say,
            self._clock,
            origin=origin,
            max_bytes=settings.spool_max_bytes,
            max_age=settings.spool_max_age,
        )
        self.buffer.put = self._inlet.put

    def hold_for_fork(self, patience: float) -> list[threading.Lock]:
        """Return locks of ours, taken: no thread is in the middle of SQLite then."""
        return [] if self._outlet is None else self._outlet.hold_for_fork(patience)

    def reset_after_fork(self) -> None:
        """Start afresh in a forked child, with connections of its own."""
        if self._inlet is not None:
            self._inlet.spool.abandon()
        self.reset()
        self._transport.forget()

    def __repr__(self) -> str:
        """Show the state; no setting, so no write code."""
        stats = self.stats()
        return (
            f"<Sender {stats.pending} held, {stats.delivered} delivered, {self._threads} threads>"
        )

    # ------------------------------------------------------------ on the caller's thread

    def submit(self, payload: AnyPayload) -> None:
        """Take *payload* over. Never blocks and never raises; what does not fit is counted."""
        if self._closed:
            self._turn_away("closed", "the client is closed", payload)
            return
        if self._inlet is not None:
            self._inlet.put(payload)
            if self._exit_seconds is not None:
                self._halted = False
            if self.call and (not self._threads or self._inlet.wants_worker):
                self.ring()
            self._deliver_at_exit()
            return
        light = self.buffer.takes(payload)
        if not light:
            self._if_free(self._admit_now)
        if not self.buffer.offer(payload):
            self._turn_away("queue_full", "the buffer is full", payload)
            return
        if self.call or (not light and self._schedule.lingers):
            self.ring()
        if not light:
            self._if_free(self._admit_now)
        if self._exit_seconds is not None:
            self._deliver_at_exit()

    def ring(self) -> None:
        """Have a worker look for what has come; a log call does so if `call` says that it helps."""
        # In this order, against `_fall_asleep`'s opposite one: whoever falls
        # asleep meanwhile is either seen here and rung for, or sees the inbox.
        self.call = False
        if self._sleeping:
            self._bell.ring()
        elif not self._threads and not self.start():
            self.call = True

    def start(self) -> bool:
        """Start a worker, unless there is one; return whether there is one now."""
        if not may_start_threads():
            return self._threads > 0
        # Whoever holds the lock is a worker, or about to start one; if not, the
        # next event tries again.
        reserved: list[bool] = []
        self._if_free(lambda: reserved.append(self._reserve()))
        if any(reserved):
            self._spawn()
        return self._threads > 0

    def _reserve(self) -> bool:
        """Count a worker that is about to start, unless there is one. The lock must be held."""
        first = not self._threads
        if first and self._make is not make_of_threads():
            # gevent or eventlet was patched in after the first event. The last
            # thread has ended; the next is a greenlet, which the old locks,
            # a sleep on the old bell and the old sockets would stop together with
            # all others.
            self._make_locks()
            self._transport.close()
        self._threads += first
        return first

    def _if_free(self, act: Callable[[], object]) -> None:
        """
        Do *act* under the lock, unless somebody has it.

        A signal handler may raise between any two lines of this (a task's time
        limit does). `list.extend` keeps what `acquire` returned before one can:
        otherwise the lock would stay taken for good, and nothing be sent any more.
        """
        lock = self._lock
        taken: list[bool] = []
        try:
            taken.extend(map(lock.acquire, _AT_ONCE))
            if taken[0]:
                act()
        finally:
            if taken and taken[0]:
                lock.release()

    def _admit_now(self) -> None:
        self._admit(self._clock.monotonic())

    def _turn_away(self, reason: str, problem: str, payload: AnyPayload) -> None:
        # What has come in is counted there.
        self.ledger.count("accepted")
        self._drop(reason, problem, payload)

    def _drop(self, reason: str, problem: str, payload: AnyPayload) -> None:
        self.ledger.count("dropped", reason)
        self._say(f"dropped {reason}", f"an event was dropped: {problem}")
        self._note_loss(Loss(reason=reason, problem=problem, body=payload.body))

    def _drop_item(self, reason: str, problem: str, item: AnyPayload | RawTrack) -> None:
        payload = TrackPayload(*item) if isinstance(item, tuple) else item
        self._turn_away(reason, problem, payload)

    def _note_loss(self, loss: Loss, *, at_exit: bool = False) -> None:
        if self._settings.on_error is not None and (len(self._losses) < _MOST_LOSSES or at_exit):
            self._losses.put(loss)

    # ------------------------------------------------------------ under the lock

    def _admit(self, now: float) -> None:
        """Move what log calls left in the inbox to the lanes."""
        inbox, schedule = self.buffer.inbox, self._schedule
        for _ in range(len(inbox)):
            found = inbox[0]
            payload = TrackPayload(*found) if isinstance(found, tuple) else found
            schedule.add(payload, now)
            self.buffer.pass_on(payload)
            self._admitted += 1
        self._weigh()
        # Without drop_oldest nothing can be evicted, and each thread may pass
        # the bounds by one event.
        while self.buffer.overfull and (held := schedule.evict()) is not None:
            self._drop("queue_full", "the buffer is full, and the oldest made room", held.payload)
            if self._outlet is not None:
                self._outlet.ended(held.payload, "queue_full", None)
            self._lower_barriers(held)
            self._weigh()

    def _weigh(self) -> None:
        self.buffer.weigh(self._schedule.events, self._schedule.size)

    def step(self) -> AnyAttempt | float | None:
        """
        Return what to send now, or the seconds until there may be something.

        None means: until something happens. The lock must be held.
        """
        now = self._clock.monotonic()
        self._admit(now)
        if self._halted:
            return None
        self._schedule.rushing = bool(self._barriers)
        found = self._schedule.next(now)
        if not isinstance(found, Wait):
            return found
        return None if found.until is None else max(0.0, found.until - now)

    def _settle(self, attempt: AnyAttempt, answer: Answer) -> None:
        before, self._accounted = self._schedule.events, 0
        # Of these a spool has to hear, whatever comes in between.
        spooled = [] if self._outlet is None else _events_of(attempt)
        try:
            self._take_in(attempt, answer)
        except BaseException:
            # There was no memory, say, in the middle of it. What is still held
            # goes out once more, or its lane would be blocked for good.
            self._schedule.put_back(attempt)
            missing = before - self._schedule.events - self._accounted
            self._account_for(missing, answer, spooled)
            raise

    def _account_for(self, missing: int, answer: Answer, spooled: list[Held]) -> None:
        """Count *missing* events that have ended, and have flushes wait for none of them."""
        arrived = answer.status is not None and 200 <= answer.status < 300
        if missing:
            what, reason = ("delivered", "") if arrived else ("dropped", "internal")
            self._account(what, reason, missing)
        if self._outlet is not None:
            for held in spooled:
                if not self._schedule.holds(held):
                    self._outlet.ended(held.payload, None if arrived else "internal", answer)
        self._weigh()
        for barrier in tuple(self._barriers):
            barrier.left = self._schedule.held_up_to(barrier.seq)
            if not barrier.left:
                barrier.done.set()

    def _account(self, what: str, reason: str = "", number: int = 1) -> None:
        self.ledger.count(what, reason, number)
        self._accounted += number

    def _take_in(self, attempt: AnyAttempt, answer: Answer) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        settled = self._schedule.settle(attempt, answer, now=now, wall=wall, draw=self._draw)
        self._weigh()
        if settled.retried:
            self.ledger.count("retried")
        delivered = sum(loss is None for _, loss in settled.ended)
        if delivered:
            self._account("delivered", "", delivered)
        for held, loss in settled.ended:
            if loss is not None:
                self._lost(held, loss, answer)
            if self._outlet is not None:
                self._outlet.ended(held.payload, loss, answer)
            if self._barriers:
                self._lower_barriers(held)
        if settled.closed is not None:
            self._say(
                f"closed {settled.closed}",
                closed_line(settled.closed, answer, self._schedule.events, self._settings),
            )
        if settled.opened:
            self._say("opened", "Userlens takes events again")
        self._watch_pace(now, len(settled.ended) or 1)

    def _lost(self, held: Held, loss: str, answer: Answer) -> None:
        refused = loss in ("rejected", "too_large")
        self._account("refused" if refused else "dropped", loss)
        problem = problem_of(loss, answer)
        kept = "" if self._outlet is None else "it is a dead letter in the spool, "
        self._say(
            f"lost {loss} {answer.status}",
            f"an event is not delivered: {problem}; it is counted as {loss}, {kept}"
            "and on_error gets its body",
        )
        self._note_loss(
            Loss(reason=loss, problem=problem, status=answer.status, body=held.payload.body)
        )

    def _lower_barriers(self, held: Held) -> None:
        # A copy: a flush whose time is up takes its barrier away without the lock,
        # and a list that shrinks under a loop has the loop pass one over.
        for barrier in tuple(self._barriers):
            if held.seq <= barrier.seq:
                barrier.left -= 1
                if barrier.left <= 0:
                    barrier.done.set()

    def _watch_pace(self, now: float, events: int) -> None:
        if self._settings.max_events_per_minute is not None:
            return
        since, number = self._minute
        if now - since >= 60.0:
            since, number = now, 0
        self._minute = (since, number + events)
        if number < _DOCUMENTED_PACE <= number + events:
            self._say(
                "pace",
                "more than 10,000 events a minute: Userlens asks to be contacted first "
                "(or set max_events_per_minute)",
            )

    # ------------------------------------------------------------ what the spool asks for

    def _feed(self, payloads: Sequence[AnyPayload]) -> bool:
        """Take *payloads*, which are in the spool, into the lanes; return whether that was done."""
        with self._locked(_PATIENCE) as locked:
            if locked:
                now, wall = self._clock.monotonic(), self._clock.wall()
                self._admit(now)
                for payload in payloads:
                    # As old as it is, and no older because a clock was set.
                    self._schedule.add(payload, now - max(0.0, wall - payload.at))
                self._weigh()
        return locked

    def _take(self, items: Sequence[AnyPayload | RawTrack]) -> None:
        """Take *items*, which are in memory alone, into the lanes."""
        self.buffer.inbox.extend(items)

    def _room(self) -> tuple[int, int]:
        """Return how many events, and bytes, of the spool may come into the lanes."""
        buffer, settings = self.buffer, self._settings
        # What cannot be spooled has to fit in, too.
        events = max(1, settings.max_queue_events * 3 // 4) - buffer.held_events
        # What is in the lanes is on its way, and cannot make room in the spool any more.
        size = min(settings.max_queue_bytes * 3 // 4, settings.spool_max_bytes // 4)
        return events - len(buffer.inbox), size - buffer.held_bytes

    def _unfed(self) -> int:
        """Return how many events, of those that this process is to deliver, are in no lane."""
        stats = self.stats()
        unwritten = 0 if self._inlet is None else self._inlet.unwritten
        return stats.pending - unwritten - self._schedule.events - len(self.buffer.inbox)

    def _lose_row(self, reason: str, problem: str, body: bytes | None) -> None:
        self._note_loss(Loss(reason=reason, problem=problem, body=body))

    def _hide(self, excerpt: bytes) -> str:
        """Return the beginning of an answer, for a file: without the write code."""
        text = excerpt.decode("utf-8", "replace")
        code = self._settings.write_code or ""
        token = base64.b64encode(f"{code}:".encode()).decode()
        for secret in filter(None, (token, token.rstrip("="), code)):
            text = text.replace(secret, "[redacted]")
        return text

    # ------------------------------------------------------------ workers

    def _spawn(self) -> None:
        """Start the worker that `_threads` already counts, if the interpreter lets us."""
        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(target=self._work, name="userlens-sender", daemon=True)
            thread.start()
        except BaseException as error:
            # No thread is to be had: at the interpreter's exit (3.12 and
            # later), or because the machine is full. A flush delivers by
            # itself, and the next event tries again. Or a signal handler raised
            # (a task's time limit): that goes on, but not with a thread counted
            # that there is not.
            if thread is None or thread.ident is None:
                with self._lock:
                    self._threads -= 1
                    self.call = True
                self._miss_thread(error)
            if not isinstance(error, Exception):
                raise

    def _miss_thread(self, error: BaseException) -> None:
        self.ledger.count("workers_failed", "refused")
        if threading.main_thread().is_alive():  # or it is what 3.12 does at its exit
            self._say(
                "no thread",
                f"no thread can be started ({type(error).__name__}): events are held until one "
                "can be, or flush() or the exit delivers them itself",
            )

    def _work(self) -> None:
        mark_own_thread()
        lock = self._lock
        # A fork on this very thread (by an object that is collected there,
        # say) replaces the lock: in the child this is not a worker any more.
        goes_on = True
        make = self._make
        while self._lock is lock and goes_on and make is make_of_threads():
            try:
                goes_on = self._work_once()
                if self._lent:
                    self._lent = False
                    self._losses.do_here()
            except BaseException as error:  # noqa: PERF203 - that is what the loop is for
                goes_on = self._lock is lock and self._outlive(error)
        if self._lock is lock and goes_on:
            # See `_reserve`.
            with lock:
                self._threads -= 1
                self.call = True
            self._wake_all()
        end_of_thread()

    def _outlive(self, error: BaseException) -> bool:
        """
        Return whether this worker goes on after *error*, which nobody foresaw.

        Where memory is short a new thread would not be had. What asks a thread
        to end (SystemExit, gevent's GreenletExit) has its will; then the next
        starts, unless there is nothing to do.
        """
        self.ledger.count("workers_failed", "died")
        kind = type(error).__name__
        self._say("worker", f"a sender thread met {kind}: what it had in hand is tried again")
        if isinstance(error, Exception):
            self._nap.wait(_REST)
            return True
        with self._lock:
            self._threads -= 1
            self.call = True
            work = self._schedule.events or self.buffer.inbox
        if work:
            self.start()
        return False

    def _work_once(self) -> bool:
        """Send one event, or sleep until there may be one; return False to end this worker."""
        outlet, watch = self._outlet, None
        if outlet is not None:
            watch = outlet.pump(rushing=bool(self._barriers) and not self._halted)
        busy = outlet is not None and watch is None
        with self._lock:
            if self._is_crowded(self._threads - self._sleeping - self._aside):
                return self._make_room()
            schedule = self._schedule
            found = self.step()
            attempt = None if isinstance(found, (float, type(None))) else found
            spare = attempt is not None and self._wants_spare()
            # More rows will come as fast: they are looked for in a moment, and
            # no log call has to ring for each.
            naps = attempt is None and not busy and self._has_fed and not self._barriers
            if attempt is None and not naps and not self._fall_asleep(busy=busy):
                return True
        if naps:
            self._nap.wait(_MOMENT)
            return True
        if isinstance(found, (float, type(None))):
            return self._sleep(found, _ASIDE if busy else watch)
        try:
            if spare:
                self._spawn()
        finally:
            # Whatever happens there: it is in flight, and nobody else would send it.
            self._attempt(found, schedule)
        return True

    @property
    def _has_fed(self) -> bool:
        return self._outlet is not None and self._outlet.has_fed

    def _is_crowded(self, busy: int) -> bool:
        """Return whether *busy* workers are more than answers are slow enough for."""
        moves = self._clock.monotonic() - self._moved < _ASIDE
        return moves and busy > 1 and self._took < busy * _WORTH

    def _make_room(self) -> bool:
        """
        Leave the rest to the others: for a moment, if nobody does yet, or for good.

        The lock is held, and given back meanwhile.
        """
        if self._aside:
            self._threads -= 1
            return False
        self._aside = True
        lock = self._lock
        lock.release()
        try:
            self._nap.wait(_ASIDE)
        finally:
            lock.acquire()
            self._aside = False
        return True

    def _wants_spare(self) -> bool:
        """
        Return whether to start another worker, before this one goes off to send.

        One more than are busy, up to the bound: whoever logs while all are
        busy cannot wait for a thread to start.
        """
        if self._is_crowded(self._threads - self._sleeping - self._aside + 1):
            return False
        if self._sleeping:
            if self._schedule.more(self._clock.monotonic()):
                self._bell.ring()
                self.call = False
            else:
                self.call = not self._schedule.lingers
            return False
        spare = self._threads < self._settings.max_workers
        self._threads += spare
        return spare

    def _fall_asleep(self, *, busy: bool) -> bool:
        """
        Announce that a ring will be of use; return False if something has come meanwhile.

        Args:
            busy: Whether another thread is at the spool, and sees to what comes there.
        """
        self._sleeping += 1
        if self._schedule.lingers:
            # What comes meanwhile waits for the same moment: nobody need ring.
            return True
        self.call = True
        inlet = self._inlet
        if self.buffer.inbox or (
            inlet is not None and inlet.fresh and inlet.wants_worker and not busy
        ):
            self._sleeping -= 1
            return False
        return True

    def _sleep(self, seconds: float | None, watch: float | None = None) -> bool:
        """
        Wait for the bell, or for *seconds*; return False if this worker is to end.

        Args:
            seconds: None for however long.
            watch: Seconds after which somebody has to see to the spool, if there is one.
        """
        lock = self._lock
        most = _GLANCE if self._schedule.lingers else _IDLE
        watches = watch is not None and not self._watched
        if watches and watch is not None:
            self._watched = True
            most = min(most, watch)
        try:
            rung = self._bell.wait(most if seconds is None else min(seconds, most))
        except BaseException:
            with lock:
                self._sleeping -= 1
            raise
        idle = not rung and not watches and (seconds is None or seconds >= _IDLE)
        with lock:
            self._watched = self._watched and not watches
            self._sleeping -= 1
            self.call = self._sleeping > 0 and not self._schedule.lingers
            ends = (idle and self._threads > 1) or (self._closed and not self._schedule.events)
            self._threads -= ends
            if not self._threads:
                self.call = True
            if self._closed and self._sleeping:
                self._bell.ring()
        return not ends

    def _attempt(
        self, attempt: AnyAttempt, schedule: Schedule, timeout: float | None = None
    ) -> None:
        """
        Make *attempt*, and take in what came of it.

        Args:
            attempt: What `step` returned.
            schedule: Whose it is, as of the same moment: a close, or a fork, may have
                replaced it since, and then there is nothing to take in.
            timeout: Seconds that it may take.
        """
        lock = self._lock
        answer = _NONE
        what = ""
        started = ended = self._clock.monotonic()
        try:
            path, body, what = self._request(attempt, schedule)
            answer = self._transport.send(path, body, timeout=timeout)
        except Exception as error:
            # The transport promises not to; if it does, the event is not lost
            # and the thread does not die.
            answer = Answer(failure=Failure.INTERNAL, detail=type(error).__name__)
        finally:
            with lock:
                self._moved = ended = self._clock.monotonic()
                self._took += (ended - started - self._took) * _NEWEST
                if self._schedule is schedule:
                    self._settle(attempt, answer)
        for watch in request_watchers:
            with suppress(Exception):  # somebody else's
                watch(ended - started, answer)
        if self._settings.debug:
            outcome = answer.status if answer.failure is None else answer.failure.value
            self._say(None, f"debug: {what}: {outcome}")

    def _request(self, attempt: AnyAttempt, schedule: Schedule) -> tuple[str, bytes, str]:
        """Return path and body of *attempt*, and what it is in words."""
        if isinstance(attempt, Attempt):
            payload = attempt.held.payload
            body = payload.body
            return "/event", body, f"{payload.kind} of {len(body)} bytes"
        entries = [self._entry(held) for held in attempt.batch.events]
        fits = _fitting(entries, self._settings.batch_max_bytes)
        if fits < len(entries):
            assert isinstance(schedule, BatchSchedule)  # noqa: S101 - nobody else makes batches
            with self._lock:
                schedule.shorten(attempt, fits)
            del entries[fits:]
        body = b'{"events":[' + b",".join(entries) + b"]}"
        return "/raw/event", body, f"batch of {len(entries)}, {len(body)} bytes"

    def _entry(self, held: Held) -> bytes:
        payload = held.payload
        assert isinstance(payload, TrackPayload)  # noqa: S101 - the others go alone
        if payload.row and self._inlet is not None:
            # The same in whichever process, should this be sent by another one, too.
            return payload.entry(b"%b%012x" % (self._inlet.spool.ids, payload.row))
        return payload.entry(b"%b%012x" % (self._ids, held.seq))

    def _tell(self, loss: Loss) -> None:
        """Call `Settings.on_error`, whatever it does: on a thread where nothing waits for it."""
        on_error = self._settings.on_error
        assert on_error is not None  # noqa: S101 - or there would be nothing to tell
        try:
            on_error(loss)
        except BaseException as error:
            kind = type(error).__name__
            self._say("on_error", f"on_error raised {kind}, which is ignored")

    # ------------------------------------------------------------ flush and close

    def attend(self) -> bool:
        """
        Have what is in the spool delivered, though nothing was submitted here.

        Returns:
            Whether it is this process that delivers it.

        Raises:
            SpoolError: If it cannot be used. It is taken as it is: neither made nor put right.
        """
        inlet = self._inlet
        assert inlet is not None  # noqa: S101 - there is a spool
        if not inlet.held(inlet.attend, _STATS_PATIENCE):
            raise SpoolError(str(inlet.spool.path), "locked", "another thread is writing")
        self.ring()
        return inlet.draining

    def halt(self, timeout: float) -> bool:
        """
        Send nothing more, and wait for the answers to what is on its way.

        What was answered is not sent again by the next process; what is held stays in the spool.

        Args:
            timeout: Longest wait, in seconds.

        Returns:
            Whether all answers have come.
        """
        self._halted = True
        deadline = self._clock.monotonic() + timeout
        # Who sends does not sleep.
        while self._threads > self._sleeping:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            self._nap.wait(min(left, _ASIDE))
        return True

    def _hold_still(self, timeout: float) -> None:
        """
        Have nothing of the spool on its way when this process ends, or lets go of it.

        Others go on to log: what comes meanwhile is theirs, and what was sent here and had no
        answer yet would be sent again.
        """
        if self._outlet is not None:
            still = self.halt(max(0.0, timeout))
            self._outlet.pump(rushing=True)
            if still and not self._schedule.events:
                self._outlet.give_up()

    def flush(self, timeout: float, *, everybodys: bool = False) -> bool:
        """
        Wait until everything submitted before has an outcome.

        Args:
            timeout: Longest wait, in seconds.
            everybodys: Whether to wait for what other processes have put into the spool, too,
                if it is this one that delivers it.

        Returns:
            Whether everything has.
        """
        deadline = self._clock.monotonic() + timeout
        if is_own_thread():
            # From on_error: the worker that would deliver is the one that asks.
            return self.stats().pending == 0
        barrier = self._barrier(timeout)
        if barrier is None:
            return False
        try:
            if self._inlet is None:
                return self._wait_for(barrier, deadline)
            if not self._flush_spool(self._inlet, deadline, everybodys=everybodys):
                return False
            if self._inlet.down is None:
                return self._wait_for(barrier, deadline)
        finally:
            self._take_away(barrier)
        # What could not be written has come into the lanes meanwhile.
        later = self._barrier(deadline - self._clock.monotonic())
        return later is not None and self._wait_and_take_away(later, deadline)

    def _wait_and_take_away(self, barrier: _Barrier, deadline: float) -> bool:
        try:
            return self._wait_for(barrier, deadline)
        finally:
            self._take_away(barrier)

    def _take_away(self, barrier: _Barrier) -> None:
        with suppress(ValueError):  # in a child forked meanwhile, by a signal handler
            self._barriers.remove(barrier)

    def _wait_for(self, barrier: _Barrier, deadline: float) -> bool:
        done, left = barrier.done, deadline - self._clock.monotonic()
        while True:
            # When the interpreter is taken down, threads are frozen where they are.
            if not done.is_set() and (sys.is_finalizing() or not self.start()):
                self._deliver_inline(barrier, deadline)
            # In pieces: the last worker may end meanwhile, and no other be had.
            left = min(left, deadline - self._clock.monotonic())
            if done.wait(max(0.0, min(left, _LOOK))) or left <= _LOOK:
                return done.is_set()
            left -= _LOOK

    def _flush_spool(self, inlet: Inlet, deadline: float, *, everybodys: bool) -> bool:
        """Wait until all that was written before is out of the spool, whoever takes it out."""
        now = self._clock.monotonic
        inlet.held(inlet.sweep, max(0.0, min(_PATIENCE, deadline - now())))
        outlet, last = self._outlet, None
        assert outlet is not None  # noqa: S101 - there are two ends
        came = inlet.gone + inlet.unwritten
        # Listed for all to see that there is a hurry; nothing lowers it.
        haste = _Barrier(-1, 1)
        self._barriers.append(haste)
        try:
            while not outlet.stopped:
                if last is None and inlet.gone >= came:
                    everybodys = everybodys and inlet.draining
                    last = outlet.last() if everybodys else inlet.last
                # What was withdrawn to memory is the lanes' affair.
                if last is not None and (not last or outlet.passed(last, everybodys=everybodys)):
                    return True
                left = deadline - now()
                if left <= 0:
                    return False
                if sys.is_finalizing() or not self.start():
                    self._step_inline(left)
                else:
                    self._wake_all()
                    self._nap.wait(min(left, _ASIDE))
        finally:
            self._take_away(haste)
        return True

    def _barrier(self, timeout: float) -> _Barrier | None:
        with self._locked(timeout) as locked:
            if not locked:
                return None
            self._admit(self._clock.monotonic())
            barrier = _Barrier(self._schedule.last_seq, self._schedule.events)
            self._barriers.append(barrier)
        if self._sleeping:
            self._bell.ring()
        return barrier

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[bool]:
        # Bounded: a signal handler that flushes may have interrupted the very
        # thread that holds the lock.
        locked = self._lock.acquire(timeout=max(0.0, timeout))
        try:
            yield locked
        finally:
            if locked:
                self._lock.release()

    def _deliver_inline(self, barrier: _Barrier, deadline: float) -> None:
        """Deliver on this thread: no other can be had (3.12 at exit, or the machine is full)."""
        while not barrier.done.is_set():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._step_inline(left)

    def _step_inline(self, left: float) -> None:
        """Do on this thread what a worker does between two looks; for *left* seconds at most."""
        with lent_thread():
            watch = left
            if self._outlet is not None:
                watch = self._outlet.pump(rushing=True) or _ASIDE
            with self._locked(left) as locked:
                schedule = self._schedule
                found = self.step() if locked else left
            if found is None or isinstance(found, float):
                self._nap.wait(min(left, watch, left if found is None else found))
                return
            try:
                self._attempt(found, schedule, timeout=left)
            except MemoryError:
                # It is tried again; whatever else comes up is the caller's
                # own, raised by a signal handler.
                self._nap.wait(min(left, _REST))

    def hurry(self) -> None:
        """Give what waits for a retry one more try at once."""
        with self._locked(_PATIENCE) as locked:
            if locked:
                self._schedule.hurry(self._clock.monotonic())
        self._wake_all()

    def _wake_all(self) -> None:
        # Who wakes wakes the next, as long as there is something to do, or to end.
        self._bell.ring()

    def finish(self, timeout: float) -> bool:
        """
        Deliver what is held; count what could not be as dropped, and say so in one line.

        Args:
            timeout: Longest wait, in seconds.

        Returns:
            Whether everything that was held had an outcome in time.
        """
        deadline = self._clock.monotonic() + timeout
        self.hurry()
        left = self._leave_to_others(timeout) if self._others_deliver else self._deliver(timeout)
        if not is_own_thread():  # it may be on_error that closes
            left_seconds = max(_LAST_WORDS, deadline - self._clock.monotonic())
            self._losses.finish(left_seconds, self._lend_a_worker)
        return left == 0

    @property
    def _others_deliver(self) -> bool:
        """Whether another process of this host drains the spool: then an exit need not wait."""
        inlet = self._inlet
        return inlet is not None and inlet.down is None and not inlet.draining

    def _leave_to_others(self, timeout: float) -> int | None:
        """
        Leave what is in the spool to the process that drains; return what `_deliver` does.

        Not without a look: at the end of a service all of its processes go, and one of
        those that are still there has to see to the rest.
        """
        inlet = self._inlet
        assert inlet is not None  # noqa: S101 - see `_others_deliver`
        patience = min(timeout, _GLIMPSE)
        if self.flush(patience, everybodys=True):
            return 0
        if not self._others_deliver or inlet.unwritten or self._schedule.events:
            return self._deliver(timeout - patience)
        return 0

    def _deliver(self, timeout: float) -> int | None:
        """Deliver what is held; return how much could not be, None if it cannot be told."""
        # Whoever drains last sees to everybody's: there may be nobody after it.
        if self.flush(timeout, everybodys=True):
            return 0
        kept = self._keep()
        if kept is not None:
            return kept
        left = self._abandon()
        if left is None and self._inlet is not None:
            self._say(
                f"shutdown {id(self)}",
                f"{_events(self._inlet.unwritten)} could not be written to the spool "
                f"{self._inlet.spool.path} in time",
            )
        if left:
            # Limited, for the exit hooks that log one event after the other.
            self._say(
                f"shutdown {id(self)}",
                f"{_events(left)} could not be delivered in time: lost",
            )
        return left

    def _keep(self) -> int | None:
        """Leave what is held in the spool; return how much, None if some of it is not there."""
        inlet, outlet = self._inlet, self._outlet
        if inlet is None or outlet is None:
            return None
        outlet.pump(rushing=True)
        with self._locked(_PATIENCE) as locked:
            held = self._schedule.payloads() if locked else []
        if inlet.down is not None or inlet.unwritten or not all(one.row for one in held):
            return None
        kept = self.stats().pending
        if kept:
            self._say(
                f"shutdown {id(self)}",
                f"{_events(kept)} could not be delivered in time: kept in the spool "
                f"{inlet.spool.path}, for the next process that uses it",
            )
        return kept

    def _lend_a_worker(self) -> None:
        """Have on_error called by a worker, if there is one: it may hang, and an exit must not."""
        self._lent = True
        self._wake_all()
        if not self._threads:
            self._losses.do_here()

    def _abandon(self) -> int | None:
        """Count what is still held as dropped; return how many, None if it cannot be told."""
        if self._inlet is not None and self._outlet is not None:
            self._outlet.stop()
            found: list[AnyPayload | RawTrack] = []
            self._inlet.held(partial(_move, self._inlet.withdraw, found), _PATIENCE)
            self.buffer.inbox.extend(found)
            self._inlet.left += len(found)
        with self._locked(_PATIENCE) as locked:
            if not locked:
                return None
            self._admit(self._clock.monotonic())
            # What has a row stays there.
            left = [one for one in self._schedule.payloads() if not one.row]
            # Numbers go on: what is logged later, at the exit, has an id of its own.
            self._schedule = self._make_schedule(self._schedule.last_seq)
            self._weigh()
        for payload in left:
            self.ledger.count("dropped", "shutdown")
            loss = Loss(reason="shutdown", problem="the process ended", body=payload.body)
            self._note_loss(loss, at_exit=True)
        for barrier in list(self._barriers):
            barrier.done.set()
        if self._inlet is not None and self._inlet.unwritten:
            return None  # somebody is in the middle of writing them
        return len(left)

    def close(self, timeout: float) -> bool:
        """Deliver what is held, take no more, let threads and connections go; see `finish`."""
        self._closed = True
        self.buffer.shut()
        started = self._clock.monotonic()
        finished = self.finish(timeout)
        if self._outlet is not None:
            self._hold_still(timeout - (self._clock.monotonic() - started))
            self._abandon()
            self._outlet.close(_PATIENCE)
        self._wake_all()
        self._transport.close()
        return finished

    def finish_at_exit(self, seconds: float, last_words: Callable[[], None]) -> None:
        """
        Do as `finish`, and from now on deliver each event before `submit` returns.

        Other exit hooks may still log; nobody comes after them to wait.

        Args:
            seconds: Longest wait, for this and all that comes later together. Time that other
                hooks take does not count: an event after a slow one still has its chance.
            last_words: Writes what was said, called after each later event.
        """
        started = self._clock.monotonic()
        accepted = self.stats().accepted
        self._finish_and_hold_still(seconds)
        self._last_words = last_words
        self.buffer.shut()
        self._exit_seconds = max(0.0, seconds - (self._clock.monotonic() - started))
        if self._exit_seconds and not self._closed and self.stats().accepted > accepted:
            # Of another thread, while we waited, too late for that and too early
            # to wait by itself: a queue that its owner empties at the exit.
            self._finish_and_hold_still(self._exit_seconds)
            self._exit_seconds = max(0.0, seconds - (self._clock.monotonic() - started))

    def _finish_and_hold_still(self, seconds: float) -> None:
        started = self._clock.monotonic()
        self._halted = False
        self.finish(seconds)
        self._hold_still(seconds - (self._clock.monotonic() - started))

    def _deliver_at_exit(self) -> None:
        if self._exit_seconds is not None and not is_own_thread():
            self.finish_at_exit(self._exit_seconds, self._last_words)
            self._last_words()

    def oldest_age(self) -> float:
        """Return the age of the oldest event that is held, in seconds; 0.0 if none is."""
        with self._locked(_STATS_PATIENCE) as locked:
            if not locked:
                return 0.0
            self._admit_now()
            return self._schedule.oldest_age(self._clock.monotonic(), self._clock.wall())

    def stats(self) -> Stats:
        """Return what became of every event so far."""
        with self._locked(_STATS_PATIENCE) as locked:
            if locked:
                self._admit_now()
            counts = self.ledger.read()
            # An event is taken in before anything else can happen to it.
            counts["accepted", ""] += self._admitted + len(self.buffer.inbox)
            if self._inlet is not None:
                counts["accepted", ""] += self._inlet.accepted
                counts["spooled", ""] += self._inlet.spooled
                counts["unspooled", ""] += self._inlet.unspooled
            return make_stats(
                counts,
                pending_bytes=self.buffer.held_bytes,
                threads=self._threads,
                held_back=self._schedule.closed,
            )


def _events(number: int) -> str:
    return f"{number} event{'' if number == 1 else 's'}"


def _move(source: Callable[[], list[T]], target: list[T]) -> None:
    target += source()


def _nothing() -> None:
    """Write nothing: somebody else does."""


def _events_of(attempt: AnyAttempt) -> list[Held]:
    return [attempt.held] if isinstance(attempt, Attempt) else list(attempt.batch.events)


def _policy(settings: Settings) -> Policy:
    pace = settings.max_events_per_minute
    return Policy(
        waits=Waits(
            base=settings.backoff_base,
            cap=settings.backoff_cap,
            retry_after_cap=settings.retry_after_cap,
            probe_interval=settings.probe_interval,
        ),
        max_attempts=settings.max_attempts,
        # In a spool events outlive a longer outage than memory is good for.
        retry_for=settings.retry_for if settings.spool is None else settings.spool_max_age,
        spacing=0.0 if pace is None else 60.0 / pace,
        evicts=settings.overflow == "drop_oldest",
    )


def _fitting(entries: list[bytes], most: int) -> int:
    """Return how many of *entries* a batch of *most* bytes has room for; one at least."""
    size = len(b'{"events":[]}')
    for number, entry in enumerate(entries):
        size += len(entry) + (number > 0)
        if size > most:
            return max(1, number)
    return len(entries)
