"""Batches: which tracks travel together, when, and what holds up what."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from helpers import examples
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from userlens_instrument._core.batches import Batching, BatchSchedule
from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.outcome import Answer, Failure, Waits
from userlens_instrument._core.schedule import Attempt, BatchAttempt, Policy, Wait
from userlens_instrument.events import Payload


WALL = 1_795_456_800.0
WAITS = Waits(base=1.0, cap=30.0, retry_after_cap=600.0, probe_interval=60.0)
OK = Answer(status=200)
BAD = Answer(status=400)
LARGE = Answer(status=413)
GONE = Answer(status=404)
ERROR = Answer(status=500)
BUSY = Answer(status=503)
BUSY_7 = Answer(status=503, retry_after="7")
UNAUTHORIZED = Answer(status=401)
NOBODY = Answer(failure=Failure.CONNECT)
TIMEOUT = Answer(failure=Failure.TIMEOUT)
STALE = Answer(failure=Failure.STALE)


def track(user, name):
    return TrackPayload(user, str(name), b"", None)


def identify(user, name):
    return Payload(user, str(name).encode(), "identify")


def name_of(held):
    payload = held.payload
    return payload.name if payload.kind == "track" else payload.body.decode()


class Desk:
    """A schedule of batches with a clock to turn by hand."""

    def __init__(self, *, max_events=100, max_bytes=500_000, linger=1.0, **policy):
        policy = {"waits": WAITS, "max_attempts": 3, "retry_for": 1e9} | policy
        batching = Batching(max_events=max_events, max_bytes=max_bytes, linger=linger)
        self.schedule = BatchSchedule(Policy(**policy), batching)
        self.now = 1000.0
        self.number = 0

    def add(self, *users, make=track):
        for user in users:
            self.number += 1
            self.schedule.add(make(user, self.number), self.now)

    def identify(self, *users):
        self.add(*users, make=identify)

    def next(self):
        return self.schedule.next(self.now)

    def settle(self, attempt, answer):
        return self.schedule.settle(attempt, answer, now=self.now, wall=WALL, draw=lambda: 0.5)

    def drain(self, answer=lambda names: OK):
        """Answer everything until nothing is left; return what was sent, and what was lost."""
        sent, lost = [], []
        while self.schedule.events:
            found = self.next()
            if isinstance(found, Wait):
                assert found.until > self.now
                self.now = found.until
                continue
            names = names_in(found)
            sent.append(names)
            settled = self.settle(found, answer(names))
            lost += [(name_of(held), loss) for held, loss in settled.ended if loss]
        return sent, lost


def names_in(attempt):
    if isinstance(attempt, Attempt):
        return name_of(attempt.held)
    return [name_of(held) for held in attempt.batch.events]


# ---------------------------------------------------------------- when


def test_a_batch_waits_for_company():
    """The first event's age decides; what came meanwhile goes with it."""
    desk = Desk(linger=1.0)
    desk.add("a")
    assert desk.schedule.lingers
    assert Wait(until=1001.0) == desk.next()
    desk.now += 0.9
    desk.add("b")
    assert Wait(until=1001.0) == desk.next()
    desk.now = 1001.0

    assert ["1", "2"] == names_in(desk.next())
    assert not desk.schedule.lingers


@pytest.mark.parametrize("limit", [{"max_events": 3}, {"max_bytes": 3 * track("a", 1).size}])
def test_a_full_batch_goes_at_once(limit):
    """By events or by bytes; the rest lingers."""
    desk = Desk(**limit)
    desk.add("a", "b", "c", "d")

    assert desk.schedule.more(desk.now)
    assert ["1", "2", "3"] == names_in(desk.next())
    assert Wait(until=1001.0) == desk.next()


def test_a_flush_waits_for_no_company():
    """While somebody flushes, what is there goes."""
    desk = Desk(linger=600.0)
    desk.add("a")
    desk.schedule.rushing = True

    assert not desk.schedule.lingers
    assert ["1"] == names_in(desk.next())


def test_a_large_event_goes_alone():
    """Whatever the bound says: one event is the least that can go."""
    desk = Desk(max_bytes=10)
    desk.add("a", "a", "b")

    assert [["1"], ["3"], ["2"]] == desk.drain()[0]


def test_nothing():
    """Where nothing is held, there is nothing to wait for but an event."""
    desk = Desk()

    assert Wait(until=None) == desk.next()
    assert not desk.schedule.more(desk.now)
    assert desk.schedule.evict() is None


# ---------------------------------------------------------------- order


def test_an_identify_waits_for_the_tracks_before_it_and_holds_those_after_it():
    """For its user; the others go on."""
    desk = Desk(linger=0.0)
    desk.add("a", "a")
    desk.identify("a")
    desk.add("a", "b")

    first = desk.next()
    assert ["1", "2", "5"] == names_in(first)
    assert Wait(until=None) == desk.next()
    desk.settle(first, OK)
    second = desk.next()
    assert "3" == names_in(second)
    assert Wait(until=None) == desk.next()
    desk.settle(second, OK)
    assert ["4"] == names_in(desk.next())


def test_one_user_is_in_one_batch_at_a_time():
    """Even where more of that user wait than a batch holds."""
    desk = Desk(max_events=2, linger=0.0)
    desk.add("a", "a", "a", "b")

    first, second = desk.next(), desk.next()
    assert (["1", "2"], ["4"]) == (names_in(first), names_in(second))
    assert Wait(until=None) == desk.next()
    desk.settle(first, OK)
    assert ["3"] == names_in(desk.next())


def test_batches_and_what_goes_alone_take_turns():
    """Neither keeps the other waiting."""
    desk = Desk(max_events=1, linger=0.0)
    desk.add("a", "b", "c")
    desk.identify("x", "y", "z")
    kinds = [type(desk.next()) for _ in range(6)]

    assert Counter({Attempt: 3, BatchAttempt: 3}) == Counter(kinds)
    assert all(kinds[n] is not kinds[n + 1] for n in range(5))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_bad_event_is_found_in_few_requests(size, place):
    """Its neighbours are delivered, in order; n events cost about 2 log2(n) requests."""
    desk = Desk(max_events=1000, linger=0.0)
    desk.add(*(f"user {number % 40}" for number in range(size)))
    bad = str({"first": 1, "middle": size // 2 + 1, "last": size}[place])
    arrived = []

    def answer(names):
        if bad in names:
            return BAD
        arrived.extend(names)
        return OK

    sent, lost = desk.drain(answer)

    assert [(bad, "rejected")] == lost
    assert sorted(map(int, arrived)) == [n for n in range(1, size + 1) if str(n) != bad]
    for user in range(40):
        mine = [int(name) for name in arrived if (int(name) - 1) % 40 == user]
        assert sorted(mine) == mine
    assert len(sent) <= 2 * math.ceil(math.log2(size)) + 1


@pytest.mark.parametrize("fits", [1, 2, 7, 50, 99])
def test_a_batch_that_is_too_large_is_halved(fits):
    """Until it fits; nothing is lost."""
    desk = Desk(linger=0.0)
    desk.add(*(f"user {number % 10}" for number in range(100)))
    arrived = []

    def answer(names):
        if len(names) > fits:
            return LARGE
        arrived.extend(names)
        return OK

    _, lost = desk.drain(answer)

    assert [] == lost
    assert 100 == len(set(arrived))


def test_an_event_that_is_too_large_by_itself_is_refused():
    """As without batches."""
    desk = Desk(linger=0.0)
    desk.add("a", "b")

    assert [("1", "too_large"), ("2", "too_large")] == sorted(desk.drain(lambda names: LARGE)[1])


def test_what_is_refused_for_another_reason_is_not_divided():
    """A wrong path refuses the halves as well."""
    desk = Desk(linger=0.0)
    desk.add("a", "b", "c")
    sent, lost = desk.drain(lambda names: GONE)

    assert [["1", "2", "3"]] == sent
    assert [("1", "rejected"), ("2", "rejected"), ("3", "rejected")] == lost


# ---------------------------------------------------------------- what fails


def test_a_batch_that_fails_is_the_same_the_next_time():
    """The same events in the same order, after a wait; other users go on meanwhile."""
    desk = Desk(linger=0.0)
    desk.add("a", "a", "b")
    first = desk.next()
    settled = desk.settle(first, ERROR)
    assert (True, ()) == (settled.retried, settled.ended)
    desk.add("c", "a")
    assert ["4"] == names_in(desk.next())
    assert isinstance(desk.next(), Wait)
    desk.now += 60.0

    assert ["1", "2", "3"] == names_in(desk.next())


def test_a_stale_connection_costs_nothing():
    """Nothing can have been read: at once again."""
    desk = Desk(linger=0.0)
    desk.add("a")
    desk.settle(desk.next(), STALE)

    assert ["1"] == names_in(desk.next())


def test_one_that_alone_keeps_failing_is_found_and_set_aside():
    """A body that makes the server fail, while others pass, does not hold its neighbours up."""
    desk = Desk(linger=0.0, max_attempts=2)
    desk.add(*(f"user {number}" for number in range(16)))
    passed = []

    def answer(names):
        if "5" in names:
            return ERROR
        passed.extend(names)
        return OK

    lost = []
    for _ in range(2_000):
        desk.now += 1.0
        desk.add(f"other {desk.now}")  # somebody else passes all the time
        found = desk.next()
        if not isinstance(found, Wait):
            settled = desk.settle(found, answer(names_in(found)))
            lost += [(name_of(held), loss) for held, loss in settled.ended if loss]
        if not any("user" in user for user in desk.schedule._lanes):
            break
    assert [("5", "attempts_exhausted")] == lost
    assert {str(number) for number in range(1, 17) if number != 5} <= set(passed)
    assert "5" not in passed


def test_a_closed_gate_lets_one_batch_through_at_a_time():
    """One probe, also of what would still linger; a success opens it for all."""
    desk = Desk(linger=600.0, max_events=2)
    desk.add("a", "b", "c", "d", "e")
    desk.settle(desk.next(), BUSY_7)
    assert Wait(until=1007.0) == desk.next()
    desk.now = 1007.0
    probe = desk.next()

    assert probe.probe
    assert Wait(until=None) == desk.next()
    assert desk.settle(probe, OK).opened


def test_a_batch_of_before_does_not_cut_a_servers_wish_short():
    """It went out before the server asked for a wait."""
    desk = Desk(linger=0.0, max_events=1)
    desk.add("a", "b", "c")
    first, second = desk.next(), desk.next()
    desk.settle(first, BUSY_7)

    assert not desk.settle(second, OK).opened
    assert Wait(until=1007.0) == desk.next()


def test_an_outage_ties_up_few_batches():
    """What is not in a batch can make room, or wait for its turn, however long it lasts."""
    desk = Desk(linger=0.0, max_events=2, evicts=True)
    desk.add(*(f"user {number}" for number in range(100)))
    seen = Counter()
    for _ in range(200):
        found = desk.next()
        if isinstance(found, Wait):
            desk.now = found.until
            continue
        seen[tuple(names_in(found))] += 1
        desk.settle(found, NOBODY)

    assert len(seen) == 3
    assert max(seen.values()) - min(seen.values()) <= 2
    assert 94 == sum(desk.schedule.evict() is not None for _ in range(100))


def test_what_is_too_old_goes_by_itself():
    """Only the events that have failed past their age are given up; the others are tried again."""
    desk = Desk(linger=0.0, retry_for=50.0)
    desk.add("a", "b")
    desk.now += 40.0
    desk.add("a", "b", "c")
    first = desk.next()
    desk.now += 20.0
    settled = desk.settle(first, ERROR)

    assert [("1", "expired"), ("2", "expired")] == [(name_of(h), loss) for h, loss in settled.ended]
    sent, lost = desk.drain()
    assert ["3", "4", "5"] == sorted(name for names in sent for name in names)
    assert [] == lost


def test_a_batch_all_of_which_is_too_old_is_gone():
    """Nothing of it is tried again, and its users' later events go on."""
    desk = Desk(linger=0.0, retry_for=50.0)
    desk.add("a", "b")
    first = desk.next()
    desk.now += 60.0
    desk.add("a")
    settled = desk.settle(first, ERROR)

    assert [("1", "expired"), ("2", "expired")] == [(name_of(h), loss) for h, loss in settled.ended]
    assert not settled.retried
    assert ["3"] == names_in(desk.next())


def test_a_batch_is_shortened_and_the_rest_goes_after_it():
    """As for one whose JSON is larger than was thought."""
    desk = Desk(linger=0.0)
    desk.add("a", "a", "b")
    attempt = desk.next()
    desk.schedule.shorten(attempt, 1)
    assert ["1"] == names_in(attempt)
    assert Wait(until=None) == desk.next()
    desk.settle(attempt, OK)

    assert ["2", "3"] == names_in(desk.next())


def test_hurry_wakes_batches():
    """A sender that closes gives what waits one more try at once."""
    desk = Desk(linger=0.0)
    desk.add("a", "b")
    desk.settle(desk.next(), ERROR)
    assert isinstance(desk.next(), Wait)
    desk.schedule.hurry(desk.now)

    assert ["1", "2"] == names_in(desk.next())


def test_hurry_wakes_what_goes_alone():
    """As without batches."""
    desk = Desk(linger=0.0)
    desk.identify("a")
    desk.settle(desk.next(), ERROR)
    assert isinstance(desk.next(), Wait)
    desk.schedule.hurry(desk.now)

    assert "1" == names_in(desk.next())


def test_a_pace_counts_events():
    """A batch takes the time of its events."""
    desk = Desk(linger=0.0, spacing=2.0, max_events=3)
    desk.add("a", "b", "c", "d")
    desk.settle(desk.next(), OK)

    assert not desk.schedule.more(desk.now)
    assert Wait(until=1006.0) == desk.next()


# ---------------------------------------------------------------- eviction


def test_what_is_on_its_way_makes_no_room():
    """Neither in a batch nor alone; the oldest of the rest goes, wherever it stands."""
    desk = Desk(linger=0.0, evicts=True, max_events=2)
    desk.identify("x")
    desk.add("x", "a", "a", "a")
    desk.identify("a")
    desk.add("a")
    alone, batch = (desk.next(), desk.next())
    if isinstance(alone, BatchAttempt):
        alone, batch = batch, alone
    assert ("1", ["3", "4"]) == (names_in(alone), names_in(batch))

    assert ["2", "5", "6", "7", None] == [
        held and name_of(held) for held in (desk.schedule.evict() for _ in range(5))
    ]
    desk.settle(alone, OK)
    desk.settle(batch, OK)
    assert 0 == desk.schedule.events == len(desk.schedule._lanes)


def test_a_lane_whose_first_event_is_evicted_stands_in_the_right_line():
    """Track or not: what is then its first decides how it goes."""
    desk = Desk(linger=0.0, evicts=True)
    desk.add("a")
    desk.identify("a", "b")
    desk.add("b")
    assert ["1", "2", "3"] == [name_of(desk.schedule.evict()) for _ in range(3)]
    desk.identify("a")

    assert [["4"], "5"] == sorted(desk.drain()[0], key=str, reverse=True)


def test_a_lane_that_was_emptied_in_line_is_passed_over():
    """Wherever it stands: what comes behind it is in the same batch as what stands before it."""
    desk = Desk(linger=0.0, evicts=True)
    desk.add("a", "b", "a", "c")
    assert ["1", "2"] == [name_of(desk.schedule.evict()) for _ in range(2)]

    assert ["3", "4"] == names_in(desk.next())
    assert Wait(until=None) == desk.next()


def test_a_lane_stays_in_line_when_what_is_evicted_goes_alone_and_so_does_the_next():
    """It has its turn as before."""
    desk = Desk(linger=0.0, evicts=True)
    desk.identify("a", "b", "a")
    assert "1" == name_of(desk.schedule.evict())

    assert ["3", "2"] == desk.drain()[0]


# ---------------------------------------------------------------- anything, in any order


FAILURES = [BAD, BAD, LARGE, GONE, ERROR, BUSY, BUSY_7, UNAUTHORIZED, NOBODY, TIMEOUT, STALE]
ANSWERS = st.just(OK) | st.sampled_from(FAILURES)


class Lanes(RuleBasedStateMachine):
    """The schedule beside a dict of lists."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.lanes = {}
        self.order = []
        self.flying = []
        self.tied = set()
        self.counts = Counter()

    @initialize(
        spacing=st.sampled_from([0.0, 0.0, 0.5]),
        max_attempts=st.integers(1, 3),
        retry_for=st.sampled_from([0.0, 50.0, 1e9]),
        max_events=st.integers(1, 5),
        max_bytes=st.sampled_from([1, 300, 100_000]),
        linger=st.sampled_from([0.0, 1.0, 40.0]),
    )
    def start(self, spacing, max_attempts, retry_for, max_events, max_bytes, linger):
        self.policy = Policy(
            waits=WAITS,
            max_attempts=max_attempts,
            retry_for=retry_for,
            spacing=spacing,
            evicts=True,
        )
        self.batching = Batching(max_events=max_events, max_bytes=max_bytes, linger=linger)
        self.schedule = BatchSchedule(self.policy, self.batching)

    @rule(user=st.sampled_from("abcde"), make=st.sampled_from([track, track, track, identify]))
    def add(self, user, make):
        self.counts["added"] += 1
        payload = make(user, self.counts["added"])
        self.schedule.add(payload, self.now)
        self.lanes.setdefault(user, []).append(payload)
        self.order.append(payload)

    @rule()
    def next(self):
        self._take(self.schedule.next(self.now))

    def _take(self, found):
        if isinstance(found, Wait):
            if found.until is None:
                assert self.flying or not self.order, "nothing will ever wake this up"
            else:
                assert self.now < found.until <= self.now + 600.0
            return
        events = [found.held] if isinstance(found, Attempt) else found.batch.events
        payloads = [held.payload for held in events]
        flying = {user for users, _ in self.flying for user in users}
        users = {payload.user_id for payload in payloads}
        assert not users & flying, "two of one user are on their way"
        for user in users:
            mine = [payload for payload in payloads if payload.user_id == user]
            assert mine == self.lanes[user][: len(mine)], "not the user's oldest"
        if isinstance(found, Attempt):
            assert payloads[0].kind == "identify"
        else:
            assert all(payload.kind == "track" for payload in payloads)
            assert len(payloads) <= self.batching.max_events
            size = sum(payload.size for payload in payloads)
            assert size <= self.batching.max_bytes or len(payloads) == 1
        if isinstance(found, BatchAttempt):
            self.tied.update(payloads)
        assert found.probe == (self.schedule.closed is not None)
        self.flying.append((users, found))

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        answer=ANSWERS,
    )
    def settle(self, data, answer):
        _, attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if isinstance(attempt, BatchAttempt) and len(attempt.batch.events) > 1:
            number = data.draw(st.integers(1, len(attempt.batch.events)))
            if number < len(attempt.batch.events):
                self.schedule.shorten(attempt, number)
        settled = self.schedule.settle(attempt, answer, now=self.now, wall=WALL, draw=lambda: 0.5)
        assert settled.ended or settled.retried
        for held, loss in settled.ended:
            self.counts["ended"] += 1
            if answer is OK:
                assert loss is None
            assert held.payload is self.lanes[held.payload.user_id][0] or loss == "expired"
            self._remove(held.payload)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 30.0, 61.0]))
    def tick(self, seconds):
        self.now += seconds

    @rule()
    def hurry(self):
        self.schedule.hurry(self.now)

    @rule(value=st.booleans())
    def rush(self, value):
        self.schedule.rushing = value

    @rule()
    def evict(self):
        """What is in a batch is tied to it; of the rest the oldest that is not flying goes."""
        flying = [a.held.payload for _, a in self.flying if isinstance(a, Attempt)]
        free = [one for one in self.order if one not in flying and one not in self.tied]
        held = self.schedule.evict()
        assert (free[0] if free else None) is (held and held.payload)
        if held is not None:
            self.counts["ended"] += 1
            self._remove(held.payload)

    def _remove(self, payload):
        self.order.remove(payload)
        self.tied.discard(payload)
        self.lanes[payload.user_id].remove(payload)
        if not self.lanes[payload.user_id]:
            del self.lanes[payload.user_id]

    @invariant()
    def accounts(self):
        if hasattr(self, "schedule"):
            assert self.order == self.schedule.payloads()
            assert len(self.order) == self.schedule.events
            assert sum(one.size for one in self.order) == self.schedule.size
            assert self.counts["added"] == self.counts["ended"] + self.schedule.events

    def teardown(self):
        """Whatever happened: from now on all is well, and everything arrives, in order."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(20_000):
            while self.flying:
                _, attempt = self.flying.pop()
                settled = self.schedule.settle(
                    attempt, OK, now=self.now, wall=WALL, draw=lambda: 0.5
                )
                for held, loss in settled.ended:
                    assert loss is None
                    assert held.payload is self.lanes[held.payload.user_id][0]
                    self._remove(held.payload)
            found = self.schedule.next(self.now)
            if not isinstance(found, Wait):
                self._take(found)
            elif found.until is None:
                break
            else:
                self.now = found.until
        assert not self.order
        assert 0 == self.schedule.size == len(self.schedule._lanes)
        assert 0 == self.schedule._run == self.schedule._weight


TestLanes = Lanes.TestCase
TestLanes.settings = hypothesis_settings(max_examples=examples(300), stateful_step_count=60)
