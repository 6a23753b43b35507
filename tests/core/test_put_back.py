"""Taking in an answer may fail half-way, for lack of memory: nothing is lost, or reordered."""

from __future__ import annotations

from collections import defaultdict

import pytest

from userlens_instrument._core.batches import Batching, BatchSchedule
from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.outcome import Answer, Failure, Waits
from userlens_instrument._core.schedule import Attempt, Policy, Schedule, Wait
from userlens_instrument.events import Payload


WAITS = Waits(base=1.0, cap=30.0, retry_after_cap=600.0, probe_interval=60.0)

ANSWERS = {
    "delivered": Answer(status=200),
    "refused": Answer(status=400),
    "to be retried": Answer(status=500),
    "down": Answer(status=503),
    "stale": Answer(failure=Failure.STALE),
}
# What `settle` is made of; each fails before it has begun, or when it is done.
STEPS = [
    "settle",
    "_take_failure",
    "_given_up",
    "_open",
    "_close",
    "_finish",
    "_forget",
    "_end",
    "_end_one",
    "_halve",
    "_line_up",
]


def make_schedule(kind, *, evicts=False, retry_for=1e9):
    policy = Policy(waits=WAITS, max_attempts=3, retry_for=retry_for, evicts=evicts)
    if kind == "event":
        return Schedule(policy)
    return BatchSchedule(policy, Batching(max_events=4, max_bytes=500_000, linger=0.0))


def fill(schedule, alone=4):
    """Add events of four users, one or several each, number *alone* an identify; return them."""
    lanes = defaultdict(list)
    for number, user in enumerate("aabcabdd"):
        payload = TrackPayload(user, str(number), b"", None)
        if number == alone:
            payload = Payload(user, b"%d" % number, "identify")
        schedule.add(payload, 0.0)
        lanes[user].append(number)
    return lanes


def test_an_event_that_went_alone_is_put_back_among_batches():
    """An identify whose answer could not be taken in goes out again."""
    schedule = make_schedule("batch")
    schedule.add(Payload("u1", b"0", "identify"), 0.0)
    attempt = schedule.next(0.0)
    assert isinstance(attempt, Attempt)
    schedule.put_back(attempt)

    again = schedule.next(0.0)
    assert attempt.held is again.held


def number_of(held):
    return int(held.payload.name if held.payload.kind == "track" else held.payload.body)


def events_of(attempt):
    return [attempt.held] if isinstance(attempt, Attempt) else list(attempt.batch.events)


def settle(schedule, attempt, answer, now):
    return schedule.settle(attempt, answer, now=now, wall=1e9, draw=lambda: 0.5)


def drain(schedule, now):
    """Deliver all that is left, a bounded number of attempts; return it by user."""
    sent = defaultdict(list)
    for _ in range(100):
        found = schedule.next(now)
        if isinstance(found, Wait):
            if found.until is None:
                break
            now = max(now, found.until)
            continue
        for held in events_of(found):
            sent[held.payload.user_id].append(number_of(held))
        settle(schedule, found, ANSWERS["delivered"], now)
    return sent


def failing(method, when, times):
    """Return *method* as it is, but that its call number *times* runs out of memory."""
    left = [times]

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and when == "before":
            raise MemoryError
        result = method(*args, **kwargs)
        if left[0] == 0:
            raise MemoryError
        return result

    return call


@pytest.mark.parametrize("evicts", [False, True])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("alone", [0, 4])
@pytest.mark.parametrize("kind", ["event", "batch"])
def test_what_is_still_held_goes_out_again_in_order(monkeypatch, kind, answer, evicts, alone):
    """
    Whichever step fails: all that is held afterwards is delivered, each user's
    in order; what is not had its end; and the numbers are right.
    """
    for step in STEPS:
        for when in ("before", "after"):
            for times in (1, 2, 3):
                schedule = make_schedule(kind, evicts=evicts)
                lanes = fill(schedule, alone)
                check(monkeypatch, schedule, lanes, (step, when, times), ANSWERS[answer])


def check(monkeypatch, schedule, lanes, fault, answer):
    step, *when = fault
    attempts = [schedule.next(1.0), schedule.next(1.0)]
    in_flight = [events_of(one) if not isinstance(one, Wait) else [] for one in attempts]
    with monkeypatch.context() as patch:
        if hasattr(schedule, step):
            patch.setattr(schedule, step, failing(getattr(schedule, step), *when))
        try:
            settle(schedule, attempts[0], answer, 1.0)
        except MemoryError:
            schedule.put_back(attempts[0])
    held = {held.seq for lane in schedule._lanes.values() for held in lane}

    assert len(held) == schedule.events == schedule.held_up_to(len("aabcabdd"))
    assert schedule.held_up_to(4) == sum(seq <= 4 for seq in held)
    ended = {one.seq for one in in_flight[0]} - held
    left = {
        user: [number for number in numbers if number + 1 not in ended]
        for user, numbers in lanes.items()
    }
    # The other attempt is somebody else's, and still on its way.
    away = {one.seq for one in in_flight[1]}
    now = 2.0
    before = drain(schedule, now)
    for user, numbers in before.items():
        assert not away & {number + 1 for number in numbers}, fault
        assert numbers == [one for one in left[user] if one in numbers]
    if not isinstance(attempts[1], Wait):
        settle(schedule, attempts[1], ANSWERS["delivered"], now)
    after = drain(schedule, 1e6)
    for user, numbers in left.items():
        others = [one.seq - 1 for one in in_flight[1] if one.payload.user_id == user]
        assert sorted(numbers) == sorted(before[user] + others + after[user]), fault
        assert after[user] == sorted(after[user])
    assert (0, 0) == (schedule.events, schedule.size)
    assert repr(schedule).startswith("<Schedule 0 events in 0 lanes")
    assert schedule.evict() is None


@pytest.mark.parametrize("step", ["_end_one", "_forget"])
@pytest.mark.parametrize("times", [1, 2])
def test_events_that_expire_together_and_fail_in_the_middle(monkeypatch, step, times):
    """A batch of which some are too old is taken apart, and goes on as what is left of it."""
    schedule = make_schedule("batch", retry_for=10.0)
    for number, user in enumerate("ab"):
        schedule.add(TrackPayload(user, str(number), b"", None), 0.0)
    for number, user in enumerate("cd", 2):
        schedule.add(TrackPayload(user, str(number), b"", None), 15.0)
    attempt = schedule.next(16.0)
    with monkeypatch.context() as patch:
        patch.setattr(schedule, step, failing(getattr(schedule, step), "after", times))
        with pytest.raises(MemoryError):
            settle(schedule, attempt, ANSWERS["to be retried"], 16.0)
        schedule.put_back(attempt)
    left = {held.payload.user_id for lane in schedule._lanes.values() for held in lane}

    assert left >= {"c", "d"}
    assert left == set(drain(schedule, 17.0))
    assert (0, 0) == (schedule.events, schedule.size)


@pytest.mark.parametrize("kind", ["event", "batch"])
def test_what_went_back_can_make_room(kind):
    """With drop_oldest, events that go out again are evicted in the order of their age."""
    schedule = make_schedule(kind, evicts=True)
    fill(schedule)
    attempt = schedule.next(1.0)
    schedule.put_back(attempt)

    evicted = [number_of(schedule.evict()) for _ in range(8)]
    assert list(range(8)) == evicted
    assert isinstance(schedule.next(2.0), Wait)


@pytest.mark.parametrize("kind", ["event", "batch"])
def test_a_probe_that_went_back_is_followed_by_the_next(kind):
    """Behind a closed gate, too: the probe that failed half-way does not keep it shut for good."""
    schedule = make_schedule(kind)
    fill(schedule)
    settle(schedule, schedule.next(1.0), ANSWERS["down"], 1.0)
    found = schedule.next(1000.0)
    assert found.probe
    schedule.put_back(found)

    assert schedule.next(1000.0).probe
