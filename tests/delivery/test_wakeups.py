"""Races between a log call, a worker that falls asleep, and a flush: each by hand, not by luck."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from helpers import PATIENCE

from userlens_instrument._core.outcome import Answer
from userlens_instrument._delivery import sender as sender_module
from userlens_instrument._delivery.threads import is_own_thread
from userlens_instrument.testing import CapturingTransport


def test_an_event_wakes_the_worker_that_is_just_falling_asleep(make_client, monkeypatch):
    """An event that comes after a worker's last look, before it sleeps, does not wait."""
    monkeypatch.setattr(sender_module, "_IDLE", 600.0)
    names, second = [], threading.Event()

    def answer(body):
        names.append(body["event"])
        if len(names) == 2:
            second.set()
        return Answer(status=200)

    client = make_client(transport=CapturingTransport(answer), max_workers=1)

    class Inbox(deque):
        armed = True

        def __bool__(self):
            found = len(self) > 0
            if self.armed and not found and names and is_own_thread():
                self.armed = False
                client.track("u1", "Second")  # after the look, and before the sleep
            return found

    client.sender.buffer.inbox = Inbox()
    client.track("u1", "First")

    assert second.wait(PATIENCE)
    assert ["First", "Second"] == names


@pytest.mark.memory
def test_a_flush_that_goes_away_takes_no_other_with_it(make_client):
    """A flush whose time is up, while an event finishes, does not hide that from the next flush."""
    go = threading.Event()
    transport = CapturingTransport(lambda body: go.wait(PATIENCE) and Answer(status=200))
    client = make_client(transport=transport)
    client.track("u1", "Event")
    first, second = client.sender._barrier(PATIENCE), client.sender._barrier(PATIENCE)

    class Leaving(threading.Event):
        def set(self):
            super().set()
            client.sender._barriers.remove(first)

    first.done = Leaving()
    go.set()

    assert second.done.wait(PATIENCE)
    assert [second] == client.sender._barriers
    client.sender._barriers.clear()


def test_a_flush_in_a_fork_may_lose_its_barrier(make_client, transport, monkeypatch):
    """A flush that a signal handler forks away from ends in the child without an error."""
    client = make_client(transport=transport)
    original = client.sender._barrier

    def forked(timeout):
        barrier = original(timeout)
        client.sender.reset_after_fork()
        return barrier

    monkeypatch.setattr(client.sender, "_barrier", forked)

    assert client.flush(PATIENCE)
