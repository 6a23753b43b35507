"""The bell: no wait for ever, no ring lost, and none that blocks."""

from __future__ import annotations

import random
import threading

import pytest
from helpers import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

from userlens_instrument._core.outcome import Answer
from userlens_instrument._delivery.bell import Bell
from userlens_instrument.testing import CapturingTransport


@pytest.mark.parametrize("timeout", [0.0, 1e-9, 1e-6, 1e-4])
def test_a_wait_ends_however_short_it_is(timeout):
    """Where a queue's get would wait for ever: its time is over before it looks again."""
    bell = Bell()

    assert not any(bell.wait(timeout) for _ in range(5_000))


@given(st.integers(1, 5))
def test_rings_before_a_wait_are_one(number):
    """Whoever wakes looks at everything; one waking is enough."""
    bell = Bell()
    for _ in range(number):
        bell.ring()

    assert bell.wait(PATIENCE)
    assert not bell.wait(0.0)


def test_a_ring_wakes_one_that_waits():
    """From another thread."""
    bell, woken = Bell(), threading.Event()
    thread = threading.Thread(target=lambda: bell.wait(PATIENCE) and woken.set())
    thread.start()
    bell.ring()
    thread.join(PATIENCE)

    assert woken.is_set()


def test_a_retry_that_is_due_in_a_moment_is_made(make_client):
    """Waits of microseconds after a ring, by one worker, with no event and no flush after them."""
    dice = random.Random(1)
    seen, arrived = set(), threading.Semaphore(0)

    def answer(body):
        again = body["event"] in seen
        seen.add(body["event"])
        if again:
            arrived.release()
        return Answer(status=200 if again else 500)

    client = make_client(
        transport=CapturingTransport(answer),
        backoff_base=0.001,
        backoff_cap=0.001,
        batch_linger=0.0,
        max_workers=1,
    )
    client.sender._draw = lambda: dice.random() / 10  # of a millisecond
    for number in range(1_500):
        client.track("u1", str(number))
        assert arrived.acquire(timeout=PATIENCE), number
