"""What goes next, and when to look again."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import NamedTuple

import pytest
from helpers import examples
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from userlens_instrument._core.outcome import Answer, Failure, Waits
from userlens_instrument._core.schedule import Attempt, Held, Policy, Schedule, Settled, Wait
from userlens_instrument.events import Payload


WALL = 1_795_456_800.0
WAITS = Waits(base=1.0, cap=30.0, retry_after_cap=600.0, probe_interval=60.0)
DAY = 86_400.0

OK = Answer(status=200)
BAD = Answer(status=400)
LARGE = Answer(status=413)
ERROR = Answer(status=500)
BUSY = Answer(status=503)
BUSY_7 = Answer(status=503, retry_after="7")
UNAUTHORIZED = Answer(status=401)
REDIRECT = Answer(status=302)
TLS = Answer(failure=Failure.TLS)
NOBODY = Answer(failure=Failure.CONNECT)
TIMEOUT = Answer(failure=Failure.TIMEOUT)
STALE = Answer(failure=Failure.STALE)


class End(NamedTuple):
    held: Held | None
    loss: str | None


def end(settled):
    """Return the one event for which that was the end, and why; two times None if it goes on."""
    return End(*settled.ended[0]) if settled.ended else End(None, None)


class Desk:
    """A schedule with a clock to turn by hand."""

    def __init__(self, **policy):
        policy = {"waits": WAITS, "max_attempts": 3, "retry_for": 100 * DAY} | policy
        self.schedule = Schedule(Policy(**policy))
        self.now = 1000.0
        self.numbers = itertools.count(1)

    def add(self, *users):
        for user in users:
            body = b"%d" % next(self.numbers)
            self.schedule.add(Payload(user, body, "track"), self.now)

    def next(self):
        return self.schedule.next(self.now)

    def settle(self, attempt, answer, draw=0.5):
        return self.schedule.settle(attempt, answer, now=self.now, wall=WALL, draw=lambda: draw)

    def send(self, answer, draw=0.5):
        """Send what is next, and return to whom, and what it led to."""
        attempt = self.next()
        return attempt.lane.user_id, self.settle(attempt, answer, draw)

    def drain(self, answer=OK):
        """Answer everything until nothing is left, and return what arrived, in order."""
        arrived = []
        while self.schedule.events:
            found = self.next()
            if isinstance(found, Wait):
                assert found.until > self.now
                self.now = found.until
                continue
            if end(self.settle(found, answer)).loss is None:
                arrived.append((found.lane.user_id, int(found.held.payload.body)))
        return arrived


# ---------------------------------------------------------------- lanes


def test_nothing():
    """
    Where nothing is held, there is nothing to wait for but an event.
    """
    desk = Desk()

    assert Wait(until=None) == desk.next()
    assert not desk.schedule.more(desk.now)
    assert desk.schedule.evict() is None
    assert [] == desk.schedule.payloads()


def test_lanes_run_side_by_side():
    """
    While one user's event is on its way, other users' events go, but not the user's next one.
    """
    desk = Desk()
    desk.add("a", "a", "b")

    first, second, third = desk.next(), desk.next(), desk.next()

    assert (b"1", b"3") == (first.held.payload.body, second.held.payload.body)
    assert Wait(until=None) == third
    desk.settle(first, OK)
    assert b"2" == desk.next().held.payload.body


def test_users_take_turns():
    """
    A user with much to tell does not keep the others waiting.
    """
    desk = Desk()
    desk.add("a", "a", "a", "b", "c")

    assert [("a", 1), ("b", 4), ("c", 5), ("a", 2), ("a", 3)] == desk.drain()


def test_counts():
    """
    Events and bytes are held from when they are added until they have an outcome.
    """
    desk = Desk()
    desk.schedule.add(Payload("a", b"x" * 100, "track"), desk.now)
    desk.schedule.add(Payload("b", b"x" * 10, "track"), desk.now)
    attempt = desk.next()

    assert (2, 110, 2) == (desk.schedule.events, desk.schedule.size, desk.schedule.last_seq)
    desk.settle(attempt, OK)
    assert (1, 10, 2) == (desk.schedule.events, desk.schedule.size, desk.schedule.last_seq)


def test_payloads():
    """
    What is held is listed in the order in which it was added, whoever it belongs to.
    """
    desk = Desk()
    desk.add("b", "a", "b", "a")
    desk.next()

    assert [b"1", b"2", b"3", b"4"] == [payload.body for payload in desk.schedule.payloads()]


def test_repr():
    """
    A repr shows what is held, and how the gate stands.
    """
    desk = Desk()
    desk.add("a", "a", "b")

    assert "<Schedule 3 events in 2 lanes, gate open>" == repr(desk.schedule)
    desk.send(BUSY)
    assert "<Schedule 3 events in 2 lanes, gate closed (unavailable)>" == repr(desk.schedule)


def test_more():
    """
    Another worker is worth having while a lane is ready, the gate is open, and the pace allows it.
    """
    desk = Desk(spacing=1.0)
    desk.add("a", "b")

    assert desk.schedule.more(desk.now)
    attempt = desk.next()
    assert not desk.schedule.more(desk.now)
    assert desk.schedule.more(desk.now + 1.0)
    desk.settle(attempt, BUSY)
    assert not desk.schedule.more(desk.now + 1.0)


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize(("answer", "loss"), [(OK, None), (BAD, "rejected"), (LARGE, "too_large")])
def test_the_end_of_it(answer, loss):
    """
    What was taken, or will never be, is finished, and the user's next event goes.
    """
    desk = Desk()
    desk.add("a", "a")

    _, settled = desk.send(answer)

    assert Settled(ended=((end(settled).held, loss),)) == settled
    assert b"1" == end(settled).held.payload.body
    assert b"2" == desk.next().held.payload.body


def test_retry():
    """
    An event that failed is tried again after its wait, and before the user's next one.
    """
    desk = Desk()
    desk.add("a", "a", "b")

    user, settled = desk.send(ERROR)

    assert ("a", Settled(retried=True)) == (user, settled)
    assert [("b", 3), ("a", 1), ("a", 2)] == desk.drain()
    assert 1000.5 == desk.now


def test_backoff_grows():
    """
    Each failure of an event doubles the wait for it, up to the cap; the user's next starts afresh.
    """
    desk = Desk(max_attempts=100)
    desk.add("a", "a")
    waits = []
    for _ in range(7):
        desk.send(ERROR, draw=0.9)
        waits.append(desk.next().until - desk.now)
        desk.now = desk.next().until

    # The first failure leaves the gate open; by the second, with nobody else
    # to tell, the lane alone still decides.
    assert [0.9, 1.8, 3.6, 7.2, 14.4, 27.0, 27.0] == pytest.approx(waits)
    desk.send(OK)
    desk.send(ERROR, draw=0.9)
    assert 0.9 == pytest.approx(desk.next().until - desk.now)


def test_stale_connection():
    """
    A kept-alive connection that had been closed costs neither a wait nor an attempt nor the turn.
    """
    desk = Desk(max_attempts=1)
    desk.add("a", "b")

    _, settled = desk.send(STALE)

    assert Settled(retried=True) == settled
    assert [("a", 1), ("b", 2)] == desk.drain()


def test_poison():
    """
    A body that alone keeps failing while others pass is set aside after max_attempts.
    """
    desk = Desk(max_attempts=3)
    desk.add("poison", "poison")
    fates = []
    while len(fates) < 3:
        desk.add("good")
        desk.now += 10.0
        found = desk.next()
        if found.lane.user_id == "good":
            desk.settle(found, OK)
        else:
            fates.append(end(desk.settle(found, ERROR)).loss)

    assert [None, None, "attempts_exhausted"] == fates
    assert ("poison", 2) in desk.drain()


def test_one_that_passed_as_an_outage_began_proves_nothing():
    """
    An event that fails through an outage is not set aside for what was delivered at its start.
    """
    desk = Desk(max_attempts=3)
    desk.add("a", "b")
    a, b = desk.next(), desk.next()
    desk.settle(a, ERROR)
    desk.settle(b, OK)

    for _ in range(50):
        desk.now += 100.0
        assert desk.send(ERROR)[1].retried

    assert [("a", 1)] == desk.drain()


def test_alone():
    """
    Where nobody else's events pass either, an event is not set aside: it is not to blame.
    """
    desk = Desk(max_attempts=3)
    desk.add("a")

    for _ in range(50):
        desk.now += 100.0
        assert desk.send(ERROR)[1].retried

    assert [("a", 1)] == desk.drain()


@pytest.mark.parametrize("answer", [ERROR, BUSY, NOBODY, UNAUTHORIZED, TLS, REDIRECT, TIMEOUT])
def test_expired(answer):
    """
    An event that fails when it is older than retry_for is given up, whatever it failed of.
    """
    desk = Desk(retry_for=100.0)
    desk.add("a", "a")
    desk.now += 100.0
    assert desk.send(answer)[1].retried
    desk.now += 60.0

    user, settled = desk.send(answer)

    assert ("a", "expired") == (user, end(settled).loss)
    assert b"1" == end(settled).held.payload.body


def test_old_but_good():
    """
    An old event is tried once before it is given up: its age alone does no harm.
    """
    desk = Desk(retry_for=0.0)
    desk.add("a")
    desk.now += 7 * DAY

    assert [("a", 1)] == desk.drain()


@pytest.mark.parametrize(
    "answer", [NOBODY, UNAUTHORIZED, TLS, REDIRECT, Answer(status=429, retry_after="1")]
)
def test_not_to_blame(answer):
    """
    Where an event cannot have been read, or came too soon, the attempt does not count against it.
    """
    desk = Desk(max_attempts=1)
    desk.add("a")
    for _ in range(5):
        desk.add("b")
        user, settled = desk.send(answer)
        assert ("a", True) == (user, settled.retried)
        desk.now += 60.0
        assert "b" == desk.send(OK)[0]

    assert [("a", 1)] == desk.drain()


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize(
    ("answer", "reason", "wait"),
    [
        (BUSY, "unavailable", 0.5),
        (BUSY_7, "unavailable", 7.0),
        (Answer(status=429), "unavailable", 0.5),
        (NOBODY, "unavailable", 0.5),
        (UNAUTHORIZED, "unauthorized", 60.0),
        (REDIRECT, "redirect", 60.0),
        (TLS, "tls", 60.0),
    ],
)
def test_closes(answer, reason, wait):
    """
    A sign that nothing can arrive holds everyone's events until it is time for a probe.
    """
    desk = Desk()
    desk.add("a", "b")

    _, settled = desk.send(answer)

    assert Settled(retried=True, closed=reason) == settled
    assert reason == desk.schedule.closed
    assert Wait(until=desk.now + wait) == desk.next()
    assert not desk.schedule.more(desk.now + wait)


def test_one_probe():
    """
    While the gate is closed one event goes out at a time, another user's each time.
    """
    desk = Desk()
    desk.add("a", "b", "c")
    desk.send(BUSY)
    users = []
    for _ in range(4):
        desk.now += 60.0
        probe = desk.next()
        assert probe.probe
        assert Wait(until=None) == desk.next()
        users.append(probe.lane.user_id)
        assert not desk.settle(probe, BUSY).opened

    assert ["b", "c", "a", "b"] == users


@pytest.mark.parametrize("answer", [OK, BAD, LARGE])
def test_opens(answer):
    """
    A probe that is answered, were it by a refusal, opens the gate for everyone.
    """
    desk = Desk()
    desk.add("a", "b", "c", "d")
    desk.send(BUSY)
    desk.now += 0.5

    user, settled = desk.send(answer)

    assert ("b", True) == (user, settled.opened)
    assert desk.schedule.closed is None
    assert ["c", "d", "a"] == [desk.next().lane.user_id for _ in range(3)]


def test_opened_is_said_once():
    """
    Only what opens the gate says so.
    """
    desk = Desk()
    desk.add("a", "b")

    assert [False, False] == [desk.send(OK)[1].opened for _ in range(2)]


def test_probe_of_a_poisonous_body():
    """
    A probe that fails alone keeps the gate closed, and the next probe is another user's.
    """
    desk = Desk()
    desk.add("a", "poison")
    desk.send(BUSY)
    desk.now += 0.5

    assert ("poison", Settled(retried=True)) == desk.send(ERROR)
    desk.now += 30.0
    assert "a" == desk.next().lane.user_id


def test_outage_is_counted_once():
    """
    Attempts that were on their way when the gate closed do not make the wait longer.
    """
    desk = Desk()
    desk.add(*"abcdefgh")
    attempts = [desk.next() for _ in range(8)]

    news = [desk.settle(attempt, NOBODY, draw=0.9).closed for attempt in attempts]

    assert ["unavailable", *[None] * 7] == news
    assert Wait(until=desk.now + 0.9) == desk.next()


def test_wish_of_a_late_answer():
    """
    A Retry-After counts, also where the gate was closed already.
    """
    desk = Desk()
    desk.add("a", "b")
    first, second = desk.next(), desk.next()
    desk.settle(first, NOBODY)

    desk.settle(second, BUSY_7)

    assert Wait(until=desk.now + 7.0) == desk.next()
    desk.schedule.hurry(desk.now)
    assert Wait(until=desk.now + 7.0) == desk.next()


@pytest.mark.parametrize("answer", [OK, BAD])
@pytest.mark.parametrize("wish", [BUSY_7, Answer(status=401)])
def test_a_success_of_before_does_not_cut_a_wish_short(wish, answer):
    """
    What was answered after the server asked for a wait may have been sent before.
    """
    desk = Desk()
    desk.add("a", "b", "c")
    first, second = desk.next(), desk.next()
    desk.settle(first, wish)
    until = desk.next().until

    assert not desk.settle(second, answer).opened
    assert Wait(until=until) == desk.next()
    desk.now = until
    assert desk.settle(desk.next(), answer).opened


@pytest.mark.parametrize("answer", [OK, BAD])
def test_a_success_of_before_has_one_probe_go_at_once_where_nobody_was(answer):
    """
    It went out before the endpoint was gone, so it proves nothing; but it may be over.
    """
    desk = Desk()
    desk.add(*"abcde")
    first, second, third, fourth = (desk.next() for _ in range(4))
    desk.settle(first, NOBODY)

    assert not desk.settle(second, answer).opened
    probe = desk.next()
    assert probe.probe
    assert Wait(until=None) == desk.next(), "nobody goes with it"

    # What the probe met is news; those that went out before it are not.
    desk.settle(probe, NOBODY)
    until = desk.next().until
    assert desk.now < until
    assert [False, False] == [desk.settle(one, OK).opened for one in (third, fourth)]
    assert Wait(until=until) == desk.next()
    desk.now = until
    assert desk.settle(desk.next(), OK).opened


def test_a_probe_that_is_out_is_not_hurried_by_a_success_of_before():
    """
    There is no second one beside it, and what it finds decides.
    """
    desk = Desk()
    desk.add(*"abcdef")
    late, down = desk.next(), desk.next()
    desk.settle(down, NOBODY)
    desk.now += 0.5
    probe = desk.next()

    assert not desk.settle(late, OK).opened

    assert Wait(until=None) == desk.next()
    desk.settle(probe, NOBODY)
    assert desk.now < desk.next().until


def test_a_success_of_before_ends_a_guess():
    """
    An endpoint that answers some with 503, and asks for no wait, is there for the others.
    """
    desk = Desk()
    desk.add("a", "b", "c")
    first, second = desk.next(), desk.next()
    desk.settle(first, BUSY)

    assert desk.settle(second, OK).opened


@pytest.mark.parametrize("failure", [BUSY, NOBODY])
def test_a_failure_of_before_does_not_close_what_a_probe_has_opened(failure):
    """
    One outage is counted once; that event is at the end of the line.
    """
    desk = Desk()
    desk.add("a", "b", "c", "d")
    first, second = desk.next(), desk.next()
    desk.settle(first, failure)
    desk.now = desk.next().until
    assert desk.settle(desk.next(), OK).opened

    settled = desk.settle(second, failure)

    assert (True, None) == (settled.retried, settled.closed)
    assert desk.schedule.closed is None
    assert ["d", "a", "b"] == [desk.next().lane.user_id for _ in range(3)]


def test_a_wish_of_before_counts_all_the_same():
    """
    Whatever the server asks for with it, it has just asked for.
    """
    desk = Desk()
    desk.add("a", "b", "c")
    first, second = desk.next(), desk.next()
    desk.settle(first, BUSY)
    desk.now = desk.next().until
    desk.settle(desk.next(), OK)

    assert "unavailable" == desk.settle(second, BUSY_7).closed
    assert Wait(until=desk.now + 7.0) == desk.next()


def test_new_reason():
    """
    The gate says why it is closed once for each reason, not once for each attempt.
    """
    desk = Desk()
    desk.add("a")
    news = []
    for answer in (BUSY, NOBODY, UNAUTHORIZED, UNAUTHORIZED, BUSY):
        news.append(desk.send(answer)[1].closed)
        desk.now += 60.0

    assert ["unavailable", None, "unauthorized", None, "unavailable"] == news


@pytest.mark.parametrize("answer", [ERROR, TIMEOUT, Answer(failure=Failure.RESET)])
def test_suspects(answer):
    """
    Three users who fail in a row, with no success in between, close the gate; two do not.
    """
    desk = Desk()
    desk.add("a", "b", "c", "d")

    closed = [desk.send(answer)[1].closed for _ in range(3)]

    assert [None, None, "unavailable"] == closed
    assert isinstance(desk.next(), Wait)


def test_success_clears_the_suspects():
    """
    A success in between shows that the endpoint lives.
    """
    desk = Desk()
    desk.add("a", "b", "c", "d")

    assert [None] * 4 == [desk.send(answer)[1].closed for answer in (ERROR, ERROR, OK, ERROR)]


def test_same_suspect():
    """
    One user who fails again and again is one suspect.
    """
    desk = Desk(max_attempts=100)
    desk.add("a")
    for _ in range(10):
        assert desk.send(ERROR)[1].closed is None
        desk.now += 30.0


def test_success_while_a_probe_is_out():
    """
    A late success opens the gate for everyone at once, though a probe is still on its way; and
    should the gate close again, there is no second probe beside it.
    """
    desk = Desk()
    desk.add(*"abcdef")
    late, down = desk.next(), desk.next()
    desk.settle(down, BUSY)
    desk.now += 0.5
    probe = desk.next()
    assert probe.probe

    assert desk.settle(late, OK).opened

    after = desk.next()
    assert isinstance(after, Attempt)
    assert not after.probe
    desk.settle(after, BUSY)
    desk.now += 30.0
    assert Wait(until=None) == desk.next()
    desk.settle(probe, ERROR)
    assert desk.next().probe


# ---------------------------------------------------------------- pace


def test_pace():
    """
    With a pace, two attempts are at least its spacing apart, retries included.
    """
    desk = Desk(spacing=2.0)
    desk.add("a", "b")

    assert "a" == desk.send(ERROR)[0]
    assert Wait(until=1002.0) == desk.next()
    desk.now = 1002.0
    assert "b" == desk.send(OK)[0]
    assert Wait(until=1004.0) == desk.next()
    desk.now = 1004.0
    assert "a" == desk.next().lane.user_id


# ---------------------------------------------------------------- closing


def test_hurry():
    """
    A sender that closes gives what waits one more try at once.
    """
    desk = Desk()
    desk.add("a", "b")
    desk.send(ERROR)
    desk.send(ERROR)
    assert isinstance(desk.next(), Wait)

    desk.schedule.hurry(desk.now)

    assert [("a", 1), ("b", 2)] == desk.drain()
    assert 1000.0 == desk.now


def test_hurry_keeps_a_lane_to_what_the_server_asked_for():
    """
    A wait of one user's that the server asked for is kept to; the others' are cut short.
    """
    desk = Desk()
    desk.add("a", "b", "c", "c")
    desk.send(ERROR)
    desk.send(Answer(status=500, retry_after="70"))
    desk.send(OK)

    desk.schedule.hurry(desk.now)

    assert [("c", 4), ("a", 1), ("b", 2)] == desk.drain()
    assert 1070.0 == desk.now


def test_hurry_opens_no_gate():
    """
    A sender that closes cuts our own guess short, with one probe, and not what was asked of us.
    """
    guessed, stated, wrong = Desk(), Desk(), Desk()
    for desk, answer in ((guessed, NOBODY), (stated, BUSY_7), (wrong, UNAUTHORIZED)):
        desk.add("a", "b")
        desk.send(answer)
        desk.schedule.hurry(desk.now)

    assert guessed.next().probe
    assert Wait(until=None) == guessed.next()
    assert Wait(until=1007.0) == stated.next()
    assert Wait(until=1060.0) == wrong.next()


# ---------------------------------------------------------------- eviction


def test_evict():
    """
    The oldest event that is not on its way makes room, wherever in its lane it stands.
    """
    desk = Desk(evicts=True)
    desk.add("a", "a", "a", "b", "c", "c")
    on_its_way = desk.next()

    evicted = [desk.schedule.evict() for _ in range(6)]

    assert [b"2", b"3", b"4", b"5", b"6"] == [held.payload.body for held in evicted[:5]]
    assert evicted[5] is None
    assert (1, 1) == (desk.schedule.events, desk.schedule.size)
    desk.add("a", "b")
    desk.settle(on_its_way, OK)
    assert [("b", 8), ("a", 7)] == desk.drain()


def test_evict_one_that_waits():
    """
    A user whose waiting event was evicted has no share in its wait, if it was the last one.
    """
    desk = Desk(evicts=True)
    desk.add("a")
    desk.send(ERROR)

    desk.schedule.evict()
    desk.add("a")

    assert [("a", 2)] == desk.drain()
    assert 1000.0 == desk.now
    desk.now += 100.0
    assert Wait(until=None) == desk.next()


def test_evict_the_head_of_a_waiting_lane():
    """
    Its successor waits as long, and starts with attempts of its own.
    """
    desk = Desk(evicts=True, max_attempts=1)
    desk.add("a", "a")
    desk.send(ERROR)
    desk.schedule.evict()

    assert Wait(until=1000.5) == desk.next()
    assert [("a", 2)] == desk.drain()


def test_evicted_lanes_do_not_pile_up():
    """
    However long an outage lasts, users whose events were all evicted leave nothing behind; and
    the first event after it is found without recursion.
    """
    desk = Desk(evicts=True)
    desk.add("first")
    desk.send(NOBODY)
    for number in range(50_000):
        desk.add(f"user {number}")
        if desk.schedule.events > 100:
            desk.schedule.evict()
            assert len(desk.schedule._ready) <= 202
    while desk.schedule.events > 1:
        desk.schedule.evict()

    desk.now += 60.0

    assert [("user 49999", 50_001)] == desk.drain()


def test_evicted_lanes_in_front():
    """
    Lanes that were emptied while they stood in line are passed over.
    """
    desk = Desk(evicts=True)
    desk.add(*(f"user {number}" for number in range(5_000)))
    for _ in range(2_000):
        desk.schedule.evict()

    arrived = desk.drain()
    assert ("user 2000", 2_001) == arrived[0]
    assert 3_000 == len(arrived)


# ---------------------------------------------------------------- a week


@pytest.mark.parametrize("answer", [NOBODY, BUSY, ERROR, TIMEOUT, UNAUTHORIZED])
def test_week_of_outage(answer):
    """
    A week without Userlens costs a probe now and then, and nothing else: after it, everything is
    delivered, each user's events in order.
    """
    desk = Desk(max_attempts=1_000_000)
    users = [f"user {number % 50}" for number in range(1_000)]
    desk.add(*users)
    week = desk.now + 7 * DAY
    attempts = 0
    while desk.now < week:
        found = desk.next()
        if isinstance(found, Wait):
            assert found.until <= desk.now + 60.0
            desk.now = found.until
            continue
        attempts += 1
        assert end(desk.settle(found, answer)).held is None

    # Once the waits have grown: one each 15 seconds on average, or each minute.
    assert attempts <= 7 * DAY / (60.0 if answer is UNAUTHORIZED else 15.0) + 10
    arrived = desk.drain()
    assert sorted(enumerate(users, start=1)) == sorted((n, user) for user, n in arrived)
    for user in set(users):
        mine = [number for who, number in arrived if who == user]
        assert sorted(mine) == mine
    assert desk.now < week + 120.0


def test_week_of_outage_and_eviction():
    """
    A week of outage with a full buffer keeps the newest events, and what it holds stays bounded.
    """
    desk = Desk(evicts=True, max_attempts=1_000_000)
    evicted = []
    end = desk.now + 7 * DAY
    while desk.now < end:
        desk.add(f"user {int(desk.now) % 997}")
        while desk.schedule.events > 50:
            evicted.append(int(desk.schedule.evict().payload.body))
        found = desk.next()
        if isinstance(found, Attempt):
            desk.settle(found, NOBODY)
        desk.now += 60.0
        assert len(desk.schedule._ready) <= 2 * 50 + 1
        assert len(desk.schedule._lanes) <= 50
        assert len(desk.schedule._by_age) == desk.schedule.events

    arrived = [number for _, number in desk.drain()]
    assert sorted(evicted) == evicted
    assert set(evicted).isdisjoint(arrived)
    assert 10_080 == len(evicted) + len(arrived)


# ---------------------------------------------------------------- the model


ANSWERS = st.sampled_from(
    [OK] * 6
    + [BAD, LARGE, ERROR, ERROR, BUSY, BUSY_7, UNAUTHORIZED, REDIRECT, TLS, NOBODY, TIMEOUT, STALE]
)
# How long these hold everything, at least, unless somebody succeeds.
STATED = {BUSY_7: 7.0, UNAUTHORIZED: 60.0, REDIRECT: 60.0, TLS: 60.0}


class Lanes(RuleBasedStateMachine):
    """The schedule beside a dict of lists."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.lanes = {}
        self.flying = []
        self.since = {}
        self.counts = Counter()
        self.order = []
        self.not_before = 0.0
        self.last_attempt = -1e9
        self.delivered = 0

    @initialize(
        spacing=st.sampled_from([0.0, 0.0, 1.5]),
        max_attempts=st.integers(1, 3),
        retry_for=st.sampled_from([0.0, 50.0, 1e9]),
    )
    def start(self, spacing, max_attempts, retry_for):
        self.policy = Policy(
            waits=WAITS,
            max_attempts=max_attempts,
            retry_for=retry_for,
            spacing=spacing,
            evicts=True,
        )
        self.schedule = Schedule(self.policy)

    # What happens.

    @rule(user=st.sampled_from("abcde"), size=st.integers(0, 30))
    def add(self, user, size):
        self.counts["added"] += 1
        number = self.counts["added"]
        payload = Payload(user, b"%d" % number + b"x" * size, "track")
        self.schedule.add(payload, self.now)
        self.lanes.setdefault(user, []).append(payload)
        self.order.append(payload)
        self.since[payload.body] = self.now

    @rule()
    def next(self):
        found = self.schedule.next(self.now)
        if isinstance(found, Wait):
            self._check_wait(found)
            return
        user = found.lane.user_id
        assert user not in self._users_flying(), "two of one user are on their way"
        assert found.held.payload is self.lanes[user][0], "not the user's oldest"
        assert found.probe == (self.schedule.closed is not None)
        assert self.now >= self.not_before, "the server asked for more patience"
        assert self.now >= self.last_attempt + self.policy.spacing
        self.last_attempt = self.now
        self.flying.append(found)

    def _check_wait(self, found):
        idle = [user for user in self.lanes if user not in self._users_flying()]
        if found.until is None:
            assert self.flying or not idle, "nothing will ever wake this up"
        else:
            assert self.now < found.until <= self.now + 600.0

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), answer=ANSWERS, draw=st.floats(0, 1, exclude_max=True))
    def settle(self, data, answer, draw):
        attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        was_closed = self.schedule.closed
        # What went out before the gate closed says little: nothing where the server has asked
        # for a wait since, or where nobody was there any more.
        stale = attempt.epoch != self.schedule._epoch and (
            self.schedule._stated or not self.schedule._answered
        )
        settled = self.schedule.settle(attempt, answer, now=self.now, wall=WALL, draw=lambda: draw)
        payload = attempt.held.payload
        assert (end(settled).held is None) == settled.retried
        if answer in (OK, BAD, LARGE):
            assert settled.opened == (was_closed is not None and not stale)
            if was_closed is not None:
                assert self.schedule.closed == (was_closed if stale else None)
            if settled.opened:
                self.not_before = 0.0
        elif answer in STATED:
            self.not_before = max(self.not_before, self.now + STATED[answer])
            assert self.schedule.closed is not None
        if settled.closed is not None:
            assert settled.closed == self.schedule.closed != was_closed
        if end(settled).held is None:
            return
        assert end(settled).held is attempt.held
        self.counts[end(settled).loss] += 1
        self.delivered += end(settled).loss is None
        assert {OK: None, BAD: "rejected", LARGE: "too_large"}.get(
            answer, end(settled).loss
        ) == end(settled).loss
        if end(settled).loss == "expired":
            assert self.now - self.since[payload.body] > self.policy.retry_for
        if end(settled).loss == "attempts_exhausted":
            assert self.delivered > 0
        self._remove(payload)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 30.0, 61.0]))
    def tick(self, seconds):
        self.now += seconds

    @rule()
    def hurry(self):
        self.schedule.hurry(self.now)

    @rule()
    def evict(self):
        on_their_way = [attempt.held.payload for attempt in self.flying]
        oldest = next((one for one in self.order if one not in on_their_way), None)

        held = self.schedule.evict()

        assert oldest is (held and held.payload)
        if oldest is not None:
            self.counts["evicted"] += 1
            self._remove(oldest)

    def _remove(self, payload):
        self.order.remove(payload)
        self.lanes[payload.user_id].remove(payload)
        if not self.lanes[payload.user_id]:
            del self.lanes[payload.user_id]

    def _users_flying(self):
        return [attempt.lane.user_id for attempt in self.flying]

    # What is always true.

    @invariant()
    def held_is_what_came_less_what_went(self):
        if not hasattr(self, "schedule"):
            return
        gone = sum(self.counts.values()) - self.counts["added"]
        assert self.counts["added"] - gone == self.schedule.events == len(self.order)
        assert sum(len(payload.body) for payload in self.order) == self.schedule.size
        assert self.order == self.schedule.payloads()

    @invariant()
    def one_probe_at_a_time(self):
        assert sum(attempt.probe for attempt in self.flying) <= 1

    @invariant()
    def nothing_piles_up(self):
        if hasattr(self, "schedule"):
            assert len(self.schedule._ready) <= 2 * len(self.lanes) + 1
            assert len(self.schedule._by_age) == len(self.order)

    def teardown(self):
        """Once the endpoint recovers, everything is delivered, in each user's order."""
        if not hasattr(self, "schedule"):
            return
        expected = {user: list(lane) for user, lane in self.lanes.items()}
        arrived = {}
        waits = 0
        while self.schedule.events:
            found = self.schedule.next(self.now)
            if isinstance(found, Attempt):
                self.flying.append(found)
            elif found.until is not None and not self.flying:
                waits += 1
                assert waits <= 10 + 2 * len(self.order)
                self.now = found.until
            else:
                attempt = self.flying.pop(0)
                settled = self.schedule.settle(
                    attempt, OK, now=self.now, wall=WALL, draw=lambda: 0.5
                )
                assert end(settled).held is attempt.held
                arrived.setdefault(attempt.lane.user_id, []).append(attempt.held.payload)
        assert expected == arrived
        assert 0 == self.schedule.size
        assert isinstance(self.schedule.next(self.now), Wait)


TestLanes = Lanes.TestCase
TestLanes.settings = hypothesis_settings(max_examples=examples(100), stateful_step_count=60)
