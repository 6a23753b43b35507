"""
What goes next, and when to look again: lanes, the gate, the pace.

A lane holds one user's payloads in the order in which they were logged; at
most one of them is on its way at a time, so lanes keep order and run side by
side. The gate closes when the endpoint is down: then one event at a time goes
out as a probe, whoever it belongs to, until one arrives.

No clock, no lock and no dice in here: they are arguments. The sender holds its
lock around every call.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from userlens_instrument._core.outcome import (
    Answer,
    Delivered,
    EndpointDown,
    Refused,
    RetryLater,
    Waits,
    classify,
)


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from userlens_instrument._core.encode import AnyPayload


# A body that fails alone says nothing of the endpoint; this many users failing
# one after the other, and nobody succeeding in between, do. With two, a single
# poisonous body and one stroke of bad luck would hold everyone up.
_SUSPECTS = 3


class Policy(NamedTuple):
    """
    What the settings say of delivery.

    Attributes:
        waits: How long to wait before a retry.
        max_attempts: Failed attempts after which an event is set aside, if others passed.
        retry_for: Age in seconds after which an event that fails is set aside.
        spacing: Least seconds between two attempts; 0.0 for as fast as it goes.
        evicts: Whether `Schedule.evict` will be called, which costs memory per event.
    """

    waits: Waits
    max_attempts: int
    retry_for: float
    spacing: float = 0.0
    evicts: bool = False


class Held:
    """A payload in its lane."""

    __slots__ = ("next", "payload", "seq", "since")

    def __init__(self, payload: AnyPayload, seq: int, since: float) -> None:
        self.payload = payload
        self.seq = seq
        self.since = since
        self.next: Held | None = None


class LaneState(Enum):
    READY = 1
    IN_FLIGHT = 2
    WAITING = 3


class Lane:
    """One user's payloads: a linked list, for a deque of one entry weighs 600 bytes."""

    __slots__ = ("attempts", "blame", "delivered_before", "head", "state", "tail", "user_id")

    def __init__(self, held: Held) -> None:
        self.user_id = held.payload.user_id
        self.head: Held | None = held
        self.tail = held
        self.state = LaneState.READY
        #: Failed attempts of the head.
        self.attempts = 0
        #: How many of these may be its own fault: the first, and each before which others passed.
        self.blame = 0
        #: How many events had been delivered when the head last failed.
        self.delivered_before = 0

    def __iter__(self) -> Iterator[Held]:
        held = self.head
        while held is not None:
            yield held
            held = held.next


class Attempt(NamedTuple):
    """
    One event, to be sent now and reported by `Schedule.settle`.

    Attributes:
        lane: Whose it is.
        held: What it is.
        epoch: Which state of the gate it was made under.
        probe: Whether the gate is closed and this tries it.
    """

    lane: Lane
    held: Held
    epoch: int
    probe: bool


class Batch:
    """
    Events that go out together, and those that have to go after them.

    Attributes:
        events: What goes next.
        later: What came of dividing it: pieces, the next one last.
        attempts: Failed attempts of *events*.
        blame: As of `Lane`.
        delivered_before: How many events had been delivered when they last failed.
    """

    __slots__ = ("attempts", "blame", "delivered_before", "events", "later")

    def __init__(self, events: list[Held]) -> None:
        self.events = events
        self.later: list[list[Held]] = []
        self.attempts = 0
        self.blame = 0
        self.delivered_before = 0


class BatchAttempt(NamedTuple):
    """
    Events of many users, to be sent now and reported by `Schedule.settle`.

    Attributes:
        batch: What they are.
        epoch: As of `Attempt`.
        probe: As of `Attempt`.
    """

    batch: Batch
    epoch: int
    probe: bool


AnyAttempt: TypeAlias = Attempt | BatchAttempt
Waiting: TypeAlias = Lane | Batch


class Wait(NamedTuple):
    """
    Nothing can go now.

    Attributes:
        until: When to look again, on the monotonic clock; None for when something happens.
    """

    until: float | None


class Settled(NamedTuple):
    """
    What an attempt led to.

    Attributes:
        ended: The events for which this was the end, each with why it was not
            delivered, as statistics count it; None if it was.
        retried: Whether the rest is tried again.
        closed: Why the gate has closed, if it just has, or for another reason than before.
        opened: Whether the gate has just opened.
    """

    ended: tuple[tuple[Held, str | None], ...] = ()
    retried: bool = False
    closed: str | None = None
    opened: bool = False


class Schedule:
    """
    The lanes of one sender.

    Every operation takes the same time however much is held.

    Args:
        policy: What the settings say.
        last_seq: The number of the last event before the first one here: ids are made of it.

    .. versionadded:: 0.1.0
    """

    def __init__(self, policy: Policy, *, last_seq: int = 0) -> None:
        """Start empty, with the gate open."""
        self._policy = policy
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        # Lanes in it that `evict` has emptied.
        self._emptied = 0
        # When, whose; and whether the server asked for it.
        self._waiting: list[tuple[float, int, Waiting, bool]] = []
        self._seq = last_seq
        self._delivered = 0
        # A dict that has lost its first entries walks over their graves each
        # time it is asked for the first; an OrderedDict does not.
        self._by_age: OrderedDict[int, Held] = OrderedDict()
        self._next_slot = 0.0
        # The gate.
        self._probe_at: float | None = None
        self._probing = False
        self._stated = False
        self._answered = False
        self._reason = ""
        self._failures = 0
        self._epoch = 0
        self._suspects: set[str] = set()
        #: Whether what could wait for company goes at once: somebody flushes.
        self.rushing = False
        #: Events held, those on their way included.
        self.events = 0
        #: Bytes of their bodies.
        self.size = 0

    def __repr__(self) -> str:
        """Show what is held and how the gate stands."""
        gate = "open" if self._probe_at is None else f"closed ({self._reason})"
        return f"<Schedule {self.events} events in {len(self._lanes)} lanes, gate {gate}>"

    @property
    def last_seq(self) -> int:
        """The number of the event added last; numbers grow by one."""
        return self._seq

    @property
    def lingers(self) -> bool:
        """Whether something waits for company, so that more need not be announced."""
        return False

    @property
    def closed(self) -> str | None:
        """Why the gate is closed, or None if it is open."""
        return None if self._probe_at is None else self._reason

    def add(self, payload: AnyPayload, now: float) -> None:
        """Put *payload* at the end of its user's lane."""
        held = Held(payload, self._seq + 1, now)
        lane = self._lanes.get(payload.user_id)
        # What may fail for lack of memory comes before it is counted, so that
        # an event is either in here or still with the caller.
        if lane is None:
            lane = self._make_lane(held)
            self._line_up(lane)
            self._lanes[payload.user_id] = lane
        else:
            lane.tail.next = held
            lane.tail = held
        if self._policy.evicts:
            self._by_age[held.seq] = held
        self._seq += 1
        self.events += 1
        self.size += payload.size

    def _make_lane(self, held: Held) -> Lane:
        return Lane(held)

    def _line_up(self, lane: Lane) -> None:
        """Have *lane* wait for its turn."""
        lane.state = LaneState.READY
        self._ready.append(lane)

    def more(self, now: float) -> bool:
        """Return whether another worker would find something to send right now."""
        return bool(self._ready) and self._probe_at is None and now >= self._next_slot

    def next(self, now: float) -> AnyAttempt | Wait:
        """Return what to send now, or how long there is nothing to send."""
        while self._waiting and self._waiting[0][0] <= now:
            self._wake(heapq.heappop(self._waiting)[2])
        if self._probe_at is not None:
            if self._probing:
                return Wait(until=None)
            if now < self._probe_at:
                return Wait(until=self._probe_at)
        return self._pick(now)

    def _pick(self, now: float) -> AnyAttempt | Wait:
        """Do as `next`, where the gate lets something through."""
        while self._ready and self._ready[0].head is None:
            self._ready.popleft()
            self._emptied -= 1
        if not self._ready:
            return Wait(until=self._waiting[0][0] if self._waiting else None)
        if now < self._next_slot:
            return Wait(until=self._next_slot)
        lane = self._ready.popleft()
        assert lane.head is not None  # noqa: S101 - see the loop above
        lane.state = LaneState.IN_FLIGHT
        probe = self._leave(now, 1)
        return Attempt(lane=lane, held=lane.head, epoch=self._epoch, probe=probe)

    def _leave(self, now: float, number: int) -> bool:
        """Take note that *number* events go out; return whether they are a probe."""
        self._next_slot = now + self._policy.spacing * number
        probe = self._probe_at is not None
        # One that went out before the gate was opened, by another's success,
        # may still be on its way.
        self._probing = self._probing or probe
        return probe

    def _wake(self, waiting: Waiting) -> None:
        # A lane may have been woken by `hurry`, or evicted, since it was put there.
        assert isinstance(waiting, Lane)  # noqa: S101 - here nothing else waits
        if waiting.state is LaneState.WAITING and waiting.head is not None:
            self._line_up(waiting)

    def settle(
        self,
        attempt: AnyAttempt,
        answer: Answer,
        *,
        now: float,
        wall: float,
        draw: Callable[[], float],
    ) -> Settled:
        """
        Take in the *answer* to *attempt*, and return what it led to.

        Args:
            attempt: What `next` returned.
            answer: What the transport saw.
            now: The monotonic clock, in seconds.
            wall: Seconds since the epoch.
            draw: Returns a float in [0.0, 1.0).
        """
        assert isinstance(attempt, Attempt)  # noqa: S101 - there is no other, see `BatchSchedule`
        lane = attempt.lane
        if attempt.probe:
            self._probing = False
        outcome = classify(
            answer,
            attempt=max(lane.attempts, self._failures) + 1,
            now=now,
            wall=wall,
            draw=draw,
            waits=self._policy.waits,
        )
        if isinstance(outcome, (Delivered, Refused)):
            # A refusal, too, is a sign of life.
            opened = self._open(attempt, now)
            self._delivered += isinstance(outcome, Delivered)
            loss = outcome.reason if isinstance(outcome, Refused) else None
            return Settled(ended=((self._finish(lane), loss),), opened=opened)
        if isinstance(outcome, RetryLater) and outcome.free:
            lane.state = LaneState.READY
            self._ready.appendleft(lane)
            return Settled(retried=True)
        return self._failed(attempt, answer, outcome, now)

    def _failed(
        self, attempt: Attempt, answer: Answer, outcome: RetryLater | EndpointDown, now: float
    ) -> Settled:
        lane = attempt.lane
        closed, counts = self._take_failure(attempt, lane.user_id, answer, outcome)
        loss = self._given_up(self._blame(lane, counts=counts), attempt.held, now)
        if loss is not None:
            return Settled(ended=((self._finish(lane), loss),), closed=closed)
        if isinstance(outcome, RetryLater) and self._probe_at is None:
            lane.state = LaneState.WAITING
            heapq.heappush(self._waiting, (outcome.at, attempt.held.seq, lane, outcome.stated))
        else:
            # The gate decides when; at the end of the line, so that the next
            # probe is another user's: one poisonous body cannot hold it shut.
            self._line_up(lane)
        return Settled(retried=True, closed=closed)

    def _take_failure(
        self,
        attempt: AnyAttempt,
        user_id: str,
        answer: Answer,
        outcome: RetryLater | EndpointDown,
    ) -> tuple[str | None, bool]:
        """Return why the gate closes, if that is news, and whether the event may be to blame."""
        if isinstance(outcome, EndpointDown):
            # What was not read cannot be to blame, nor what only came too soon.
            counts = answer.status not in (None, 429) and outcome.reason == "unavailable"
            if self._probe_at is None and attempt.epoch != self._epoch and not outcome.stated:
                # It went out before an outage that is over: one outage, counted
                # once. It has its turn now like any other.
                return None, counts
            return self._close(attempt, answer, outcome), counts
        self._suspects.add(user_id)
        if attempt.probe or len(self._suspects) >= _SUSPECTS:
            down = EndpointDown(at=outcome.at, reason="unavailable", stated=outcome.stated)
            return self._close(attempt, answer, down), True
        return None, True

    def _blame(self, failed: Lane | Batch, *, counts: bool) -> bool:
        """
        Count a failure, if it *counts*; return whether that was one too many while others passed.

        What nobody passes before is an outage, however often an event that is probed with
        fails in it: a single success that was on its way when it began proves nothing.
        """
        again = failed.attempts > 0
        passed = again and counts and self._delivered > failed.delivered_before
        failed.blame = failed.blame + passed if again else 1
        failed.attempts += counts
        failed.delivered_before = self._delivered
        return passed and failed.blame >= self._policy.max_attempts

    def _given_up(self, is_to_blame: bool, held: Held, now: float) -> str | None:  # noqa: FBT001 - the only one
        if now - held.since > self._policy.retry_for:
            return "expired"
        return "attempts_exhausted" if is_to_blame else None

    def put_back(self, attempt: AnyAttempt) -> None:
        """
        Have what is left of *attempt* tried again: `settle` raised in the middle of it.

        The more is held, the longer it takes: this is for when memory runs out.
        """
        assert isinstance(attempt, Attempt)  # noqa: S101 - there is no other, see `BatchSchedule`
        if attempt.probe:
            self._probing = False
        self._restore(attempt.lane)
        self._reckon()

    def _restore(self, lane: Lane) -> None:
        """Put *lane* where it belongs, if it is nowhere."""
        if lane.head is None:
            self._lanes.pop(lane.user_id, None)
        elif not self._is_lined_up(lane):
            self._line_up(lane)

    def _is_lined_up(self, lane: Lane) -> bool:
        return lane in self._ready or self._waits(lane)

    def _waits(self, waiting: Waiting) -> bool:
        return any(one[2] is waiting for one in self._waiting)

    def _reckon(self) -> None:
        """Work out anew what is kept beside the lanes."""
        held = sorted((one for lane in self._lanes.values() for one in lane), key=_seq)
        self.events = len(held)
        self.size = sum(one.payload.size for one in held)
        if self._policy.evicts:
            self._by_age = OrderedDict((one.seq, one) for one in held)

    def holds(self, held: Held) -> bool:
        """Return whether *held* has had no end yet."""
        lane = self._lanes.get(held.payload.user_id)
        return lane is not None and any(one is held for one in lane)

    def held_up_to(self, seq: int) -> int:
        """Return how many are held of those that were added up to number *seq*."""
        return sum(one.seq <= seq for lane in self._lanes.values() for one in lane)

    def _finish(self, lane: Lane) -> Held:
        """Take the head off *lane* and put the lane where it now belongs."""
        held = lane.head
        assert held is not None  # noqa: S101 - it was in flight, and nothing else removes that
        self._forget(held)
        lane.head = held.next
        lane.attempts = 0
        if lane.head is None:
            del self._lanes[lane.user_id]
        else:
            self._line_up(lane)
        return held

    def _forget(self, held: Held) -> None:
        self.events -= 1
        self.size -= held.payload.size
        self._by_age.pop(held.seq, None)

    def _close(self, attempt: AnyAttempt, answer: Answer, outcome: EndpointDown) -> str | None:
        """Close the gate, or keep it closed for longer; return why, if that is news."""
        news = outcome.reason if self._reason != outcome.reason else None
        if self._probe_at is not None and attempt.epoch != self._epoch:
            # It went out before the gate closed: one outage, counted once. What
            # the server asks for still counts.
            if outcome.stated:
                self._probe_at = max(self._probe_at, outcome.at)
                self._stated = True
            return None
        self._probe_at = outcome.at
        self._stated = outcome.stated
        self._answered = answer.status is not None
        self._reason = outcome.reason
        self._failures += 1
        self._epoch += 1
        return news

    def _open(self, attempt: AnyAttempt, now: float) -> bool:
        """Take note of a sign of life; return whether that opens the gate."""
        if self._probe_at is None:
            self._suspects.clear()
            return False
        if attempt.epoch != self._epoch:
            # It went out before the gate closed.
            if self._stated:
                return False  # the server has asked for a wait: that was its last word
            if not self._answered:
                # Nobody was there any more: that it was answered does not say
                # that somebody is again, and everybody at once is too much of
                # a question. But one asks at once.
                if attempt.epoch == self._epoch - 1:
                    self._probe_at = min(self._probe_at, now)
                return False
            # Some get a 503 and some do not: whoever is there is there.
        self._probe_at = None
        self._reason = ""
        self._failures = 0
        self._suspects.clear()
        return True

    def hurry(self, now: float) -> None:
        """
        Give everything that waits one more try at once: the sender closes.

        What the server asked to wait for, or a wrong setting, is kept to.
        """
        for one in self._waiting:
            if not one[3]:
                self._wake(one[2])
        self._waiting = [one for one in self._waiting if one[3]]
        heapq.heapify(self._waiting)
        if self._probe_at is not None and not self._stated:
            self._probe_at = min(self._probe_at, now)

    def evict(self) -> Held | None:
        """Remove the oldest event that is not on its way, and return it, or None."""
        for held in self._by_age.values():  # at most the ones on their way are passed over
            lane = self._lanes[held.payload.user_id]
            if lane.state is not LaneState.IN_FLIGHT:
                lane.head = held.next
                lane.attempts = 0
                if lane.head is None:
                    del self._lanes[lane.user_id]
                    self._leave_line(lane)
            elif lane.head is not held:
                # Its predecessor is the head, which is on its way.
                self._unlink_second(lane)
            else:
                continue
            self._forget(held)
            return held
        return None

    def _leave_line(self, lane: Lane) -> None:
        # Behind a closed gate nobody moves up: the line is tidied once half of
        # it is empty lanes, or they would pile up for as long as an outage lasts.
        self._emptied += lane.state is LaneState.READY
        if self._emptied * 2 > len(self._ready):
            self._ready = deque(lane for lane in self._ready if lane.head is not None)
            self._emptied = 0

    @staticmethod
    def _unlink_second(lane: Lane) -> None:
        head = lane.head
        assert head is not None  # noqa: S101 - it is in flight
        assert head.next is not None  # noqa: S101 - it is what is evicted
        if head.next is lane.tail:
            lane.tail = head
        head.next = head.next.next

    def oldest_age(self, now: float, wall: float) -> float:
        """
        Return the age of the oldest event that is held, in seconds; 0.0 if none is.

        Args:
            now: The monotonic time, in seconds.
            wall: Seconds since the epoch: what a spool has kept is older than this process.
        """
        ages = [
            wall - head.payload.at if head.payload.at else now - head.since
            for head in (lane.head for lane in self._lanes.values())
            if head is not None
        ]
        return max(0.0, *ages) if ages else 0.0

    def payloads(self) -> list[AnyPayload]:
        """Return everything that is held, in the order in which it was added."""
        held = sorted((one for lane in self._lanes.values() for one in lane), key=_seq)
        return [one.payload for one in held]


def _seq(held: Held) -> int:
    return held.seq
