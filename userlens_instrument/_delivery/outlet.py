"""
The way out of the spool: rows to the lanes, and out of the file once they have an outcome.

Of all the processes of a host one drains: the one that holds the lock. The
others look for it twice a second. Workers do all of this by turns, in between
requests; nobody has a thread for it.

What is delivered is deleted after the answer, in groups: killed in between,
the next process repeats one group at most.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from userlens_instrument._core.stored import MARK, from_row, to_columns
from userlens_instrument._delivery.inlet import UNFORESEEN, hold
from userlens_instrument._delivery.spool import OPENING, Burial, weight
from userlens_instrument.exceptions import SpoolError


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from userlens_instrument._core.encode import AnyPayload
    from userlens_instrument._core.outcome import Answer
    from userlens_instrument._core.stored import RawTrack, Row
    from userlens_instrument._delivery.inlet import Inlet
    from userlens_instrument._delivery.stats import Ledger
    from userlens_instrument.typing import Clock


#: Events with an outcome that are deleted together: what a SIGKILL can repeat.
GROUP = 64
# Seconds that the first of a group waits for others.
_LINGER = 0.02
# Seconds after which the drainer looks for other processes' rows.
_GLANCE = 0.25
# Seconds after which another process looks for the lock: a quarter of the two
# that a take-over may take.
_LOOK = 0.5
# Seconds for which a process that has given it up does not look for the lock.
_AWAY = 600.0
# Seconds between two rounds of housekeeping.
_HOUSE = 1.0
# Seconds between two looks at the dead letters.
_GRAVES = 60.0
# Rows read, or dropped, at a time, and where to stop by their bytes.
_CHUNK = 500
_CHUNK_BYTES = 2 * 2**20
# How often at a time: then the lanes have their turn again.
_MOST_CHUNKS = 20
# Unused pages given back to the disk at a time.
_PAGES = 512
# Part of the bound that is made free at once, so that it is not done for each event.
_SLACK = 0.02
# Bytes of a row beside its texts.
_ROW = 64
# Dead letters kept: as many as somebody may still look at.
_MOST_DEAD = 10_000
# Seconds for which they are kept.
_OLDEST_DEAD = 30 * 86_400.0
# Characters of an answer kept with a dead letter.
_EXCERPT = 512
# Size of SQLite's log at which somebody must have stopped the drainer in the middle.
_MOST_WAL = 64 * 2**20
# Seconds to wait for the inlet's lock. It is held for one commit.
_PATIENCE = 1.0
# Seconds for which events in memory wait for their users' earlier ones, in another process.
_MOST_BEHIND = 5.0

_BEYOND_USE = frozenset({"damaged", "newer"})
_DEADLY = frozenset({"rejected", "too_large", "expired", "attempts_exhausted"})


class Ended(NamedTuple):
    """
    An event that has its outcome.

    Attributes:
        payload: Which.
        loss: Why it was not delivered; None if it was.
        status: Of the last answer.
        excerpt: The beginning of that answer.
    """

    payload: AnyPayload
    loss: str | None
    status: int | None
    excerpt: bytes


class Desk(NamedTuple):
    """
    What the outlet needs of the sender.

    Attributes:
        feed: Takes payloads from the spool into the lanes, and returns whether it could.
        take: Takes payloads that are in memory alone into the lanes.
        room: Returns how many events and how many bytes more there is room for.
        unfed: Returns how many events of ours are in the spool and not in the lanes.
        lose: Called with each loss, for ``on_error``.
        hide: Takes secrets out of an answer.
    """

    feed: Callable[[Sequence[AnyPayload]], bool]
    take: Callable[[Sequence[AnyPayload | RawTrack]], None]
    room: Callable[[], tuple[int, int]]
    unfed: Callable[[], int]
    lose: Callable[[str, str, bytes | None], None]
    hide: Callable[[bytes], str]


class Outlet:
    """
    Takes rows out of a spool for one sender.

    Args:
        inlet: The other end.
        desk: The sender's.
        ledger: Where events are counted.
        say: As of the `Sender`.
        clock: Both clocks.
        origin: As of the `Inlet`.
        max_bytes: Largest size of the spool, in bytes.
        max_age: Age in seconds at which a row is dropped.
    """

    def __init__(
        self,
        inlet: Inlet,
        desk: Desk,
        ledger: Ledger,
        say: Callable[[str | None, str], None],
        clock: Clock,
        *,
        origin: int,
        max_bytes: int,
        max_age: float,
    ) -> None:
        """Drain nothing yet."""
        self._inlet = inlet
        self._spool = inlet.spool
        self._desk = desk
        self._ledger = ledger
        self._say = say
        self._now = clock.monotonic
        self._wall = clock.wall
        self._origin = origin
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._turn = threading.Lock()
        self._taker = 0
        self._ended: deque[Ended] = deque()
        self._ended_at = 0.0
        # The number of the last row that was fed, and of the last that this
        # process wrote before it began to drain.
        self._cursor = 0
        self._since = 0
        # The number of a row up to which none of ours is left.
        self._passed = 0
        # Which file it is that is drained.
        self._file = b""
        self._more = False
        # Whether the lanes have no room for what there is more.
        self._crowded = False
        # What is in the lanes, by its number.
        self._fed: dict[int, AnyPayload] = {}
        self._next_look = 0.0
        # Whether the drain is others', see `give_up`.
        self._gave_up = False
        self._next_glance = 0.0
        self._next_house = 0.0
        self._next_graves = 0.0
        self._down_at: float | None = None
        # Whether the last checkpoint has moved a part only: the disk was full.
        self._checkpoint_failed = False
        #: Whether what is in the spool stays there, for the next process.
        self.stopped = False
        #: Whether the last look at it has found rows.
        self.has_fed = False
        inlet.on_open = self._opened

    @property
    def draining(self) -> bool:
        """Whether it is this process that delivers what is in the spool."""
        return self._inlet.draining

    @property
    def _is_guest(self) -> bool:
        """Whether nothing was handed over here: then the file is others' to put right."""
        return not self._inlet.accepted and not self._inlet.left

    # ------------------------------------------------------------ what workers do by turns

    def pump(self, *, rushing: bool = False) -> float | None:
        """
        Do what there is to do, unless another thread is at it.

        Args:
            rushing: Whether somebody waits for the deletion of what is delivered.

        Returns:
            Seconds after which there may be more; None if another thread is at it.
        """
        if self._taker == threading.get_ident():
            return None
        found: list[float] = []
        hold(self._turn, lambda: found.append(self._owned(rushing=rushing)), 0.0)
        return found[0] if found else None

    def _owned(self, *, rushing: bool) -> float:
        self._taker = threading.get_ident()
        try:
            return self._pump(rushing=rushing)
        except SpoolError as error:
            self._fail(error)
        except UNFORESEEN as error:
            self._fail(SpoolError(str(self._spool.path), "failed", type(error).__name__))
        finally:
            self._taker = 0
        return self._inlet.retry_in or _LINGER

    def _pump(self, *, rushing: bool) -> float:
        inlet = self._inlet
        self.has_fed = False
        # Before anything is looked at: what comes meanwhile is fresh again.
        fresh, inlet.fresh = inlet.fresh, False
        if inlet.suspended:
            inlet.held(inlet.resume, _PATIENCE)
        if inlet.unwritten or inlet.down is not None:
            if inlet.draining and inlet.is_full and not inlet.retry_in:
                # First of all: a log that starts over needs no more room, and one
                # that grows into the room that there is leaves none for the file.
                self._checkpoint()
            inlet.held(partial(inlet.sweep, OPENING), _PATIENCE)
        now = self._now()
        if inlet.down is not None:
            return self._without(now)
        self._down_at = None
        if now >= self._next_look or (rushing and not inlet.draining):
            # Somebody waits: for the one that drains, or for its lock.
            self._gave_up = False
            self._look(now)
        if not inlet.draining:
            self._settle()  # dead letters of what was delivered from memory
            return max(0.0, self._next_look - self._now())
        if self._ended and (
            rushing or len(self._ended) >= GROUP or now - self._ended_at >= _LINGER
        ):
            self._settle()
        if fresh or self._more or now >= self._next_glance:
            self._feed(now)
        if now >= self._next_house:
            self._keep_house(now)
        return self._next_turn()

    def _next_turn(self) -> float:
        now = self._now()
        at = min(self._next_glance, self._next_house, self._next_look)
        if self._ended:
            at = min(at, self._ended_at + _LINGER)
        if self._inlet.retry_in or self._inlet.unwritten:
            at = min(at, now + max(_LINGER, self._inlet.retry_in))
        if self._more and not self._crowded:
            at = now
        return max(0.0, at - now)

    def _look(self, now: float) -> None:
        """See whether it is ours to drain, and whether the file is still the one that we have."""
        self._next_look = now + _LOOK
        spool = self._spool
        if self.stopped or not spool.is_open:
            return
        if self._inlet.draining and not spool.holds_lock():
            # Somebody has deleted the lock's file.
            spool.unlock()
            if not spool.lock():
                self._inlet.held(self._stop_draining, _PATIENCE)
        if not spool.is_in_place():
            self._see_to_the_file()
        if not self._inlet.draining and spool.lock():
            self._inlet.held(self._begin, _PATIENCE)
        if not self._inlet.draining and spool.wal_bytes() > max(_MOST_WAL, self._max_bytes):
            problem = "nobody moves its log into the file"
            raise SpoolError(str(spool.path), "full", problem)

    def _see_to_the_file(self) -> None:
        """Go on with the file that is at the path now; if there is none, who drains makes it."""
        spool = self._spool
        if spool.is_there():
            self._inlet.held(self._reopen, _PATIENCE)
        elif self._inlet.draining or spool.lock():
            if self._is_guest:
                raise SpoolError(str(spool.path), "failed", "it was deleted while in use")
            self._repair("it was deleted while it was in use")

    def _reopen(self) -> None:
        """Go on with another file: what is in the lanes is in memory alone now."""
        self._stop_draining()
        self._fed.clear()
        self._ended.clear()
        self._passed = 0
        self._spool.close()
        self._spool.open()
        self._opened()

    def _opened(self) -> None:
        """Take note that the file was opened. The inlet's lock is held."""
        if self._inlet.draining and self._spool.ids != self._file:
            # It is another one: what was in the file before is out of reach.
            lost = max(0, self._desk.unfed())
            if lost:
                self._ledger.count("dropped", "spool_damaged", lost)
            self._inlet.draining = False
            self._fed.clear()
            self._ended.clear()
            self._passed = 0
        if not self.stopped and not self._gave_up and self._spool.lock():
            self._begin()

    def _begin(self) -> None:
        """Begin to drain. The inlet's lock is held, so that nothing is written meanwhile."""
        if self._inlet.draining:
            return
        self._since = self._spool.last()
        self._file = self._spool.ids
        self._cursor = 0
        self._more = True
        self._inlet.draining = True
        if self._spool.was_anothers:
            self._spool.was_anothers = False
            self._say(
                "spool anothers",
                f"the spool {self._spool.path} holds events that were taken with another write "
                "code; they are delivered with this one",
            )

    def _stop_draining(self) -> None:
        if self._inlet.draining:
            self._inlet.draining = False
            self._inlet.handed_over += max(0, self._desk.unfed())
            self._spool.unlock()

    # ------------------------------------------------------------ rows to the lanes

    def _feed(self, now: float) -> None:
        self._next_glance = now + _GLANCE
        if self.stopped:
            self._more = False
            return
        events, size = self._desk.room()
        self._crowded = events <= 0 or size <= 0
        if self._crowded:
            self._more = True
            return
        most, most_bytes = min(_CHUNK, events), min(size, _CHUNK_BYTES)
        rows = self._spool.read(self._cursor, most, most_bytes)
        self._more = len(rows) == most or sum(map(weight, rows)) > most_bytes
        fed: dict[int, AnyPayload] = {}
        recovered = 0
        for row in rows:
            payload = self._payload(row)
            if payload is not None:
                fed[row.id] = payload
                recovered += not self._is_mine(row)
        if fed:
            # Before a worker can have delivered them.
            self._fed.update(fed)
            self._ledger.count("recovered", "", recovered)
            if not self._desk.feed(list(fed.values())):
                # A signal handler, which has interrupted who has the lock: later.
                self._ledger.count("recovered", "", -recovered)
                self._more = True
                return
        if rows:
            self._cursor = rows[-1].id
            self.has_fed = True

    def _payload(self, row: Row) -> AnyPayload | None:
        """Return what *row* holds, and count it; None if that is nothing to send."""
        if row.kind == MARK:
            self._spool.note_mark(row.id)
            return None
        payload = from_row(row)
        if payload is None:
            self._drop_row(row, "spool_damaged", "its row in the spool is not as it was written")
            self._remove([row.id])
        return payload

    def _is_mine(self, row: Row) -> bool:
        return row.origin == self._origin and row.id > self._since

    def _drop_row(self, row: Row, reason: str, problem: str) -> None:
        if not self._is_mine(row):
            self._ledger.count("recovered")
        self._ledger.count("dropped", reason)
        self._say(f"dropped {reason}", f"an event was dropped: {problem}")
        payload = from_row(row)
        self._desk.lose(reason, problem, None if payload is None else payload.body)

    # ------------------------------------------------------------ rows out

    def ended(self, payload: AnyPayload, loss: str | None, answer: Answer | None) -> None:
        """Take note that *payload* has its outcome. Never waits, and never raises."""
        if payload.row:
            # The number may be another event's by now, in another file.
            if self._fed.get(payload.row) is not payload:
                return
            del self._fed[payload.row]
        elif loss not in _DEADLY or len(self._ended) >= _MOST_DEAD:
            return
        if not self._ended:
            self._ended_at = self._now()
        status, excerpt = (None, b"") if answer is None else (answer.status, answer.excerpt)
        self._ended.append(Ended(payload, loss, status, excerpt))

    def _settle(self) -> None:
        """Delete what has an outcome."""
        ended = self._ended
        while ended:
            group = list(ended)[:_CHUNK]
            burials = [self._burial(one) for one in group if one.loss in _DEADLY]
            self._remove([one.payload.row for one in group if one.payload.row], burials)
            for _ in group:
                ended.popleft()

    def _remove(self, ids: list[int], burials: Sequence[Burial] = ()) -> None:
        if not self._inlet.held(partial(self._spool.remove, ids, burials), _PATIENCE):
            raise SpoolError(str(self._spool.path), "locked", "another thread is writing")

    def _burial(self, ended: Ended) -> Burial:
        row = ended.payload.row
        wall = self._wall()
        return Burial(
            row_id=row,
            columns=None if row else to_columns(ended.payload, at=wall, origin=self._origin),
            reason=str(ended.loss),
            status=ended.status,
            # In this order: half a secret is a secret.
            excerpt=self._desk.hide(ended.excerpt)[:_EXCERPT],
            died=wall,
        )

    def passed(self, row_id: int, *, everybodys: bool = False) -> bool:
        """
        Return whether no event up to *row_id* is left in the spool.

        Args:
            row_id: The number of the last that counts.
            everybodys: Whether those of other processes count, too.
        """
        if self._inlet.down is not None and self._inlet.draining:
            # It may be that nothing can be taken out, though it has been delivered.
            return self._cursor >= row_id and not any(fed <= row_id for fed in list(self._fed))
        found: list[int | None] = []
        origin = None if everybodys else self._origin
        after = 0 if everybodys else self._passed
        look = partial(self._spool.first, row_id, after=after, origin=origin)
        try:
            self._inlet.held(lambda: found.append(look()), _PATIENCE)
        except SpoolError:
            return False
        if found and not everybodys:
            # Those below are not looked at again: there may be a million of others'.
            self._passed = max(self._passed, row_id if found[0] is None else found[0] - 1)
        return found == [None]

    def last(self) -> int:
        """Return the number of the last row of anybody; 0 if it cannot be told."""
        found = [0]
        with suppress(SpoolError):
            self._inlet.held(lambda: found.append(self._spool.last()), _PATIENCE)
        return found[-1]

    # ------------------------------------------------------------ without the spool

    def _fail(self, error: SpoolError) -> None:
        self._inlet.held(partial(self._inlet.fail, error), _PATIENCE)

    def _without(self, now: float) -> float:
        """Deliver from memory, as long as the spool cannot be used; have it repaired."""
        inlet, error = self._inlet, self._inlet.down
        if self._down_at is None:
            self._down_at = now
        beyond_use = error is not None and error.kind in _BEYOND_USE and not self._is_guest
        if error is not None and beyond_use and self._spool.lock():
            # Somebody may write for long: then others have their turn in between.
            return 0.0 if self._repair(error.problem) else _LINGER
        written = inlet.written
        if inlet.unwritten and self._may_overtake(now):
            found: list[AnyPayload | RawTrack] = []

            def withdraw() -> None:
                # Who flushes may have had some written meanwhile, and then not
                # the rest: those are in no lane yet, and go first.
                if inlet.written == written:
                    found.extend(inlet.withdraw())

            inlet.held(withdraw, _PATIENCE)
            self._desk.take(found)
            inlet.left += len(found)
        if inlet.draining:
            # To take something out may still work; and if it is our own bound
            # that was reached, it has to.
            with suppress(SpoolError):
                # What is in the file itself makes room in the log.
                self._checkpoint()
                self._settle()
                if inlet.is_full and self._make_room():
                    inlet.retry_now()
        return min(_LOOK, inlet.retry_in or _LOOK, _LINGER if inlet.unwritten else _LOOK)

    def _may_overtake(self, now: float) -> bool:
        """Return whether all that was logged before is in the lanes, or out of reach."""
        spool = self._spool
        if not spool.is_open:
            return True
        try:
            if self._inlet.draining:
                # What can still be read goes first.
                self._feed(now)
                return not self._more
            return now - (self._down_at or now) > _MOST_BEHIND or self.passed(self._inlet.last)
        except SpoolError:
            return True

    def _repair(self, problem: str) -> bool:
        """
        Put a new file in the place of one that is beyond use, with what can be read of it.

        Returns:
            Whether that was done; nothing is while a log call writes.
        """
        inlet, spool = self._inlet, self._spool
        was_draining = inlet.draining
        result: list[tuple[str | None, int, int]] = []

        def replace() -> None:
            unfed = max(0, self._desk.unfed()) if was_draining else 0
            result.append(spool.replace())
            self._passed = 0
            self._file = spool.ids
            if not was_draining:
                self._begin()
            else:
                self._count_missing(unfed)

        inlet.held(replace, _PATIENCE)
        if not result:
            return False
        aside, saved, lost = result[0]
        where = "" if aside is None else f"; it is {aside} now"
        self._say(
            "spool repaired",
            f"the spool {spool.path} could not be used ({problem}){where}; a new one holds the "
            f"{saved} events that could be read; at most {lost} could not",
        )
        self._more = True
        inlet.retry_now()
        return True

    def _count_missing(self, unfed: int) -> None:
        """Count those of our events that did not come along as dropped."""
        cursor, found = self._cursor, 0
        while rows := self._spool.read(cursor, _CHUNK, _CHUNK_BYTES):
            found += sum(self._is_mine(row) for row in rows)
            cursor = rows[-1].id
        if unfed > found:
            self._ledger.count("dropped", "spool_damaged", unfed - found)

    # ------------------------------------------------------------ keeping house

    def _keep_house(self, now: float) -> None:
        self._next_house = now + _HOUSE
        spool, inlet = self._spool, self._inlet
        self._drop_old()
        self._make_room()
        more: list[bool] = []
        inlet.held(lambda: more.append(spool.shrink(_PAGES)), _PATIENCE)
        if now >= self._next_graves:
            self._next_graves = now + _GRAVES
            before = self._wall() - _OLDEST_DEAD
            inlet.held(lambda: spool.trim_dead(_MOST_DEAD, before), _PATIENCE)
        self._checkpoint()
        if any(more):
            self._next_house = now

    def _checkpoint(self) -> None:
        if self._spool.has_changed() or self._checkpoint_failed:
            self._checkpoint_failed = True
            self._spool.checkpoint()
            self._checkpoint_failed = False
            # What was committed before the end of the checkpoint is no reason
            # for the next one: see `Spool.checkpoint`.
            self._spool.has_changed()

    def _drop_old(self) -> None:
        before = self._wall() - self._max_age
        for _ in range(_MOST_CHUNKS):
            rows = self._spool.read(self._cursor, _CHUNK, _CHUNK_BYTES)
            old = list(takewhile(partial(_is_older, before), rows))
            if not self._drop_rows(old, "spool_expired", "it was in the spool for spool_max_age"):
                return
        self._next_house = self._now()

    def _make_room(self) -> bool:
        """Drop the oldest events while there are too many; return whether there were."""
        used: list[int] = []
        self._inlet.held(lambda: used.append(self._spool.used_bytes()), _PATIENCE)
        if not used or used[0] <= self._max_bytes:
            return False
        left = used[0] - self._max_bytes * (1 - _SLACK)
        while left > 0:
            rows = self._spool.read(self._cursor, _CHUNK, _CHUNK_BYTES)
            left -= sum(_weight(row) for row in rows)
            why = "the spool is full, and the oldest made room"
            if not self._drop_rows(rows, "spool_full", why):
                break
        return True

    def _drop_rows(self, rows: list[Row], reason: str, problem: str) -> bool:
        """Drop *rows*, the next to be fed; return whether there was any event among them."""
        events = [row for row in rows if row.kind != MARK]
        for row in rows:
            if row.kind == MARK:
                self._spool.note_mark(row.id)
        if not events:
            return False
        self._remove([row.id for row in events])
        for row in events:
            self._drop_row(row, reason, problem)
        self._cursor = rows[-1].id
        return True

    # ------------------------------------------------------------ the end

    def give_up(self) -> None:
        """Let another process drain from now on, until somebody here is in a hurry again."""
        hold(self._turn, self._give_up, _PATIENCE)

    def _give_up(self) -> None:
        # First, so that neither a look nor a file that is opened again after a
        # fork takes the lock back: this process sends nothing any more.
        self._gave_up = True
        self._next_look = self._now() + _AWAY
        self._inlet.held(self._stop_draining, _PATIENCE)

    def stop(self) -> None:
        """Feed nothing any more."""
        self.stopped = True

    def close(self, patience: float) -> None:
        """
        Write and delete what is left to be, and let another process go on.

        Args:
            patience: Longest wait for another thread that is at it, in seconds.
        """
        self.stopped = True

        def finish() -> None:
            self._inlet.held(self._inlet.sweep, patience)
            try:
                self._settle()
            except SpoolError as error:
                self._fail(error)
            self._inlet.held(self._let_go, patience)

        hold(self._turn, finish, patience)

    def _let_go(self) -> None:
        self._inlet.closed = True
        self._stop_draining()
        self._spool.close()

    # ------------------------------------------------------------ fork

    def hold_for_fork(self, patience: float) -> list[threading.Lock]:
        """Return the locks, taken: then no thread is in the middle of SQLite at the fork."""
        if self._taker == threading.get_ident() or not self._turn.acquire(timeout=patience):
            return []
        taken = [self._turn, *self._inlet.hold_for_fork(patience)]
        if len(taken) > 1:
            self._spool.suspend()
        return taken


def _is_older(before: float, row: Row) -> bool:
    # What is damaged may have anything there; who feeds it will notice.
    at: object = row.at
    return isinstance(at, float) and at < before


def _weight(row: Row) -> int:
    return _ROW + weight(row)
