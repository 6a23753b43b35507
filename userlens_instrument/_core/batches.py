"""
The schedule of ``delivery="batch"``: tracks of many users travel together.

Per user nothing overtakes: what is in a batch, on its way or waiting for a
retry, holds up its users' later events, and an identify or group goes alone,
after the tracks before it and before those after it. A batch goes when it is
full, or its oldest event has lingered, or somebody flushes.

A batch that is refused is halved, and the halves go one after the other (a
user may be in both), until the bad event stands alone: n events with one bad
among them take about 2 log2(n) requests.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from userlens_instrument._core.outcome import (
    Answer,
    Delivered,
    EndpointDown,
    Refused,
    RetryLater,
    classify,
)
from userlens_instrument._core.schedule import (
    AnyAttempt,
    Attempt,
    Batch,
    BatchAttempt,
    Held,
    Lane,
    LaneState,
    Policy,
    Schedule,
    Settled,
    Wait,
    Waiting,
)


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument._core.encode import AnyPayload


# Refused for what is in the body: then some of it may be good. Any other
# refusal (404, 501) is of the request, and no part of it fares better.
_OF_THE_BODY = frozenset({400, 413, 422})

# Batches that take turns while the gate is closed, so that one that is
# poisonous cannot hold it shut.
_MOST_TRIED = 3


class Batching(NamedTuple):
    """
    What the settings say of batches.

    Attributes:
        max_events: Most events of one.
        max_bytes: Most bytes of their payloads.
        linger: How long an event waits for company, in seconds.
    """

    max_events: int
    max_bytes: int
    linger: float


class TrackLane(Lane):
    """
    A lane that knows its tracks.

    Attributes:
        run: Tracks at its front, less those in a batch.
        weight: What they count for in bytes.
        singles: How many of its events go alone.
        reserved: How many of its first events are in a batch.
        last: The last of these.
    """

    __slots__ = ("last", "reserved", "run", "singles", "weight")

    def __init__(self, held: Held) -> None:
        super().__init__(held)
        self.singles = int(_goes_alone(held))
        self.reserved = 0
        self.last: Held | None = None
        self.count(held)

    def count(self, held: Held | None) -> None:
        """Count the tracks from *held* on. Each event is walked over once in its life."""
        self.run = self.weight = 0
        while held is not None and not _goes_alone(held):
            self.run += 1
            self.weight += held.payload.size
            held = held.next

    def take(self, held: Held) -> None:
        """Take *held*, the first of the run, out of it."""
        self.run -= 1
        self.weight -= held.payload.size


def _goes_alone(held: Held) -> bool:
    return held.payload.kind != "track"


class BatchSchedule(Schedule):
    """
    The lanes of a sender that sends tracks in batches.

    Every operation takes the same time for each event, however much is held.

    .. versionadded:: 0.1.0
    """

    def __init__(self, policy: Policy, batching: Batching, *, last_seq: int = 0) -> None:
        """Start empty, with the gate open."""
        super().__init__(policy, last_seq=last_seq)
        self._batching = batching
        # Lanes that wait with a track at their front; the others' line is `_ready`.
        self._tracks: deque[TrackLane] = deque()
        self._emptied_tracks = 0
        # What the runs of these come to.
        self._run = 0
        self._weight = 0
        # Pieces of batches, and batches that have waited for a retry.
        self._again: deque[Batch] = deque()
        self._alone_next = False
        self._again_next = False

    @property
    def lingers(self) -> bool:
        """Whether something waits for company, so that more need not be announced."""
        return self._run > 0 and not self.rushing and not self._is_full

    @property
    def _is_full(self) -> bool:
        batching = self._batching
        return self._run >= batching.max_events or self._weight >= batching.max_bytes

    def _make_lane(self, held: Held) -> Lane:
        return TrackLane(held)

    def add(self, payload: AnyPayload, now: float) -> None:
        """Put *payload* at the end of its user's lane."""
        lane = self._lanes.get(payload.user_id)
        super().add(payload, now)
        if lane is None:
            return
        assert isinstance(lane, TrackLane)  # noqa: S101 - `_make_lane` makes no other
        if payload.kind != "track":
            lane.singles += 1
        elif not lane.singles:
            lane.run += 1
            lane.weight += payload.size
            if lane.state is LaneState.READY:
                self._run += 1
                self._weight += payload.size

    def _line_up(self, lane: Lane) -> None:
        assert isinstance(lane, TrackLane)  # noqa: S101 - as above
        assert lane.head is not None  # noqa: S101 - it would be gone
        if _goes_alone(lane.head):
            super()._line_up(lane)
            return
        lane.state = LaneState.READY
        self._tracks.append(lane)
        self._run += lane.run
        self._weight += lane.weight

    def more(self, now: float) -> bool:
        """Return whether another worker would find something to send right now."""
        if self._probe_at is not None or now < self._next_slot:
            return False
        return bool(self._ready or self._again or self._is_due(now))

    def _is_due(self, now: float) -> bool:
        due = self._due_at()
        return due is not None and due <= now

    def _due_at(self) -> float | None:
        """Return when a batch is to go; None if there is none."""
        while self._tracks and self._tracks[0].head is None:
            self._tracks.popleft()
            self._emptied_tracks -= 1
        if not self._tracks:
            return None
        head = self._tracks[0].head
        assert head is not None  # noqa: S101 - see the loop above
        # A probe is one request either way.
        at_once = self.rushing or self._is_full or self._probe_at is not None
        return head.since if at_once else head.since + self._batching.linger

    def _pick(self, now: float) -> AnyAttempt | Wait:
        due = self._due_at()
        is_due = due is not None and due <= now and not self._holds_enough
        if not (self._again or is_due) or self._alone_next:
            found = super()._pick(now)
            # By turns, so that neither keeps the other waiting; and behind a
            # closed gate none is the only one that is tried.
            self._alone_next = False
            if isinstance(found, Attempt) or not (self._again or is_due):
                return found if self._holds_enough else _earlier(found, due)
        if now < self._next_slot:
            return Wait(until=self._next_slot)
        self._alone_next = True
        self._again_next = not self._again_next
        from_again = self._again and (self._again_next or not is_due)
        batch = self._again.popleft() if from_again else self._form()
        probe = self._leave(now, len(batch.events))
        return BatchAttempt(batch=batch, epoch=self._epoch, probe=probe)

    @property
    def _holds_enough(self) -> bool:
        """
        Whether there are batches enough to try while the gate is closed.

        More would be more events that cannot make room for newer ones.
        """
        return self._probe_at is not None and len(self._again) >= _MOST_TRIED

    def _form(self) -> Batch:
        """Return a batch of what stands first in line. There is something."""
        batching = self._batching
        events: list[Held] = []
        size = 0
        while self._tracks and len(events) < batching.max_events:
            lane = self._tracks[0]
            held = lane.head
            if held is None:
                self._tracks.popleft()
                self._emptied_tracks -= 1
                continue
            if events and size + held.payload.size > batching.max_bytes:
                break
            self._tracks.popleft()
            self._run -= lane.run
            self._weight -= lane.weight
            lane.state = LaneState.IN_FLIGHT
            while (
                held is not None
                and lane.run
                and len(events) < batching.max_events
                and (not events or size + held.payload.size <= batching.max_bytes)
            ):
                events.append(held)
                size += held.payload.size
                lane.take(held)
                lane.reserved += 1
                lane.last = held
                # What is on its way makes no room.
                self._by_age.pop(held.seq, None)
                held = held.next
        return Batch(events)

    def shorten(self, attempt: BatchAttempt, number: int) -> None:
        """Have the first *number* events go, and the rest of the batch after them."""
        batch = attempt.batch
        batch.later.append(batch.events[number:])
        del batch.events[number:]

    def settle(
        self,
        attempt: AnyAttempt,
        answer: Answer,
        *,
        now: float,
        wall: float,
        draw: Callable[[], float],
    ) -> Settled:
        """Take in the *answer* to *attempt*, and return what it led to; see `Schedule.settle`."""
        if isinstance(attempt, Attempt):
            return super().settle(attempt, answer, now=now, wall=wall, draw=draw)
        batch = attempt.batch
        if attempt.probe:
            self._probing = False
        outcome = classify(
            answer,
            attempt=max(batch.attempts, self._failures) + 1,
            now=now,
            wall=wall,
            draw=draw,
            waits=self._policy.waits,
        )
        if isinstance(outcome, Delivered):
            opened = self._open(attempt, now)
            self._delivered += len(batch.events)
            return Settled(ended=self._end(batch, None), opened=opened)
        if isinstance(outcome, Refused):
            opened = self._open(attempt, now)
            if len(batch.events) > 1 and answer.status in _OF_THE_BODY:
                self._halve(batch)
                return Settled(retried=True, opened=opened)
            return Settled(ended=self._end(batch, outcome.reason), opened=opened)
        if isinstance(outcome, RetryLater) and outcome.free:
            self._again.appendleft(batch)
            return Settled(retried=True)
        return self._batch_failed(attempt, answer, outcome, now)

    def _batch_failed(
        self, attempt: BatchAttempt, answer: Answer, outcome: RetryLater | EndpointDown, now: float
    ) -> Settled:
        batch = attempt.batch
        user_id = batch.events[0].payload.user_id
        closed, counts = self._take_failure(attempt, user_id, answer, outcome)
        is_to_blame = self._blame(batch, counts=counts)
        expired = [one for one in batch.events if now - one.since > self._policy.retry_for]
        ended = tuple((self._end_one(one), "expired") for one in expired)
        batch.events = [one for one in batch.events if now - one.since <= self._policy.retry_for]
        if not batch.events:
            return Settled(ended=(*ended, *self._end(batch, None)), closed=closed)
        if is_to_blame:
            # Others passed meanwhile: something in here does not.
            if len(batch.events) == 1:
                lost = self._end(batch, "attempts_exhausted")
                return Settled(ended=(*ended, *lost), closed=closed)
            self._halve(batch)
        elif isinstance(outcome, RetryLater) and self._probe_at is None:
            place = (outcome.at, batch.events[0].seq, batch, outcome.stated)
            heapq.heappush(self._waiting, place)
        else:
            self._again.append(batch)
        return Settled(ended=ended, retried=True, closed=closed)

    def put_back(self, attempt: AnyAttempt) -> None:
        """Have what is left of *attempt* tried again; see `Schedule.put_back`."""
        if isinstance(attempt, Attempt):
            super().put_back(attempt)
            return
        if attempt.probe:
            self._probing = False
        batch = attempt.batch
        if not (batch in self._again or self._waits(batch)):
            # Each user's events are in order in the lane: the batch is formed anew.
            for held in chain(batch.events, *batch.later):
                lane = self._lanes.get(held.payload.user_id)
                if lane is not None:
                    self._restore(lane)
        self._reckon()

    def _restore(self, lane: Lane) -> None:
        assert isinstance(lane, TrackLane)  # noqa: S101 - as above
        if not self._is_lined_up(lane):
            lane.singles = sum(map(_goes_alone, lane))
            lane.reserved = 0
            lane.last = None
            lane.count(lane.head)
        super()._restore(lane)

    def _is_lined_up(self, lane: Lane) -> bool:
        return lane in self._tracks or super()._is_lined_up(lane)

    def _reckon(self) -> None:
        super()._reckon()
        for lane in self._lanes.values():
            assert isinstance(lane, TrackLane)  # noqa: S101 - as above
            for held in islice(lane, lane.reserved):
                self._by_age.pop(held.seq, None)
        self._run = sum(lane.run for lane in self._tracks)
        self._weight = sum(lane.weight for lane in self._tracks)

    def _halve(self, batch: Batch) -> None:
        half = (len(batch.events) + 1) // 2
        batch.later.append(batch.events[half:])
        batch.events = batch.events[:half]
        batch.attempts = 0
        self._again.appendleft(batch)

    def _end(self, batch: Batch, loss: str | None) -> tuple[tuple[Held, str | None], ...]:
        """Take the events of *batch* off their lanes, and go on with what has to go after them."""
        ended = tuple((self._end_one(held), loss) for held in batch.events)
        batch.events = []
        batch.attempts = 0
        if batch.later:
            batch.events = batch.later.pop()
            self._again.appendleft(batch)
        return ended

    def _end_one(self, held: Held) -> Held:
        lane = self._lanes[held.payload.user_id]
        assert isinstance(lane, TrackLane)  # noqa: S101 - as above
        # The oldest of a user's are the first to be delivered, refused, or too old.
        assert lane.head is held  # noqa: S101 - see above
        lane.head = held.next
        self._forget(held)
        lane.reserved -= 1
        if lane.head is None:
            del self._lanes[lane.user_id]
        elif not lane.reserved:
            self._line_up(lane)
        return held

    def _wake(self, waiting: Waiting) -> None:
        if isinstance(waiting, Batch):
            self._again.append(waiting)
        else:
            super()._wake(waiting)

    def _finish(self, lane: Lane) -> Held:
        """Take the head off *lane*: one that goes alone."""
        assert isinstance(lane, TrackLane)  # noqa: S101 - as above
        assert lane.head is not None  # noqa: S101 - it was in flight
        lane.singles -= 1
        lane.count(lane.head.next)
        return super()._finish(lane)

    def evict(self) -> Held | None:
        """Remove the oldest event that is not on its way, and return it, or None."""
        for held in self._by_age.values():  # at most the ones that went alone are passed over
            lane = self._lanes[held.payload.user_id]
            assert isinstance(lane, TrackLane)  # noqa: S101 - as above
            if lane.state is not LaneState.IN_FLIGHT:
                self._evict_head(lane, held)
            elif lane.head is held:
                continue
            else:
                self._evict_behind(lane, lane.last if lane.reserved else lane.head, held)
            self._forget(held)
            return held
        return None

    def _evict_head(self, lane: TrackLane, held: Held) -> None:
        lined_up = lane.state is LaneState.READY
        alone = _goes_alone(held)
        if lined_up and not alone:
            self._run -= lane.run
            self._weight -= lane.weight
        lane.head = held.next
        lane.attempts = 0
        self._recount(lane, held)
        if lane.head is None:
            del self._lanes[lane.user_id]
            self._leave_line(lane, held)
        elif lined_up and alone != _goes_alone(lane.head):
            # It stands in the wrong line now. Rare, so the walk is no matter.
            if alone:
                self._ready.remove(lane)
            else:
                self._tracks.remove(lane)
            self._line_up(lane)
        elif lined_up and not alone:
            self._run += lane.run
            self._weight += lane.weight

    def _evict_behind(self, lane: TrackLane, before: Held | None, held: Held) -> None:
        """Take *held* out, whose predecessor *before* is on its way."""
        assert before is not None  # noqa: S101 - something is in flight
        before.next = held.next
        if lane.tail is held:
            lane.tail = before
        self._recount(lane, held)

    @staticmethod
    def _recount(lane: TrackLane, held: Held) -> None:
        """Take *held*, which was the first that is not in a batch, out of the counts."""
        if _goes_alone(held):
            lane.singles -= 1
            lane.count(held.next)
        else:
            lane.take(held)

    def _leave_line(self, lane: Lane, held: Held | None = None) -> None:
        if held is None or _goes_alone(held) or lane.state is not LaneState.READY:
            super()._leave_line(lane)
            return
        self._emptied_tracks += 1
        if self._emptied_tracks * 2 > len(self._tracks):
            self._tracks = deque(lane for lane in self._tracks if lane.head is not None)
            self._emptied_tracks = 0


def _earlier(found: AnyAttempt | Wait, due: float | None) -> AnyAttempt | Wait:
    """Return *found*; if it is a wait, one that does not pass *due*."""
    if isinstance(found, Wait) and due is not None and (found.until is None or due < found.until):
        return Wait(until=due)
    return found
