"""Workers that run out of memory, are told to end, or cannot start: noticed, replaced, counted."""

from __future__ import annotations

import threading

import pytest
from helpers import PATIENCE, closed_port, refuse_our_threads, run_python, until

from userlens_instrument._delivery import stats as stats_module
from userlens_instrument.testing import Answer, CapturingTransport


def fail_once(
    monkeypatch, owner, name, *, when="before", error=MemoryError, only=lambda *args: True
):
    """Have the first call of *owner*'s *name* that is meant run out of memory."""
    original, left = getattr(owner, name), [1]

    def call(*args, **kwargs):
        fires = left[0] and only(*args)
        left[0] -= bool(fires)
        if fires and when == "before":
            raise error
        result = original(*args, **kwargs)
        if fires:
            raise error
        return result

    monkeypatch.setattr(owner, name, call)
    return left


def names(transport, user="u1"):
    return [event["event"] for event in transport.events if event["userId"] == user]


# Each with how often the event may arrive: twice, where its answer was not taken in.
FAULTS = {
    "before the answer is taken in": (lambda s: (s._schedule, "settle", "before"), 2),
    "in the middle of it": (lambda s: (s._schedule, "_forget", "before"), 2),
    "when the event has left its lane": (lambda s: (s._schedule, "settle", "after"), 1),
    "when it is counted": (lambda s: (s, "_lower_barriers", "before"), 1),
    "when the time is looked at": (lambda s: (s, "_watch_pace", "before"), 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_memory_for_an_answer(make_client, monkeypatch, diagnostics_lines, fault):
    """
    A worker that runs out of memory while it takes in an answer goes on: no
    user's lane is blocked, nothing is lost or overtaken, every count is right,
    a flush ends, and one line says so.
    """
    gate = threading.Event()

    def answer(body):
        gate.wait(PATIENCE)
        return Answer(status=200)

    transport = CapturingTransport(answer)
    client = make_client(transport=transport, max_workers=1)
    place, times = FAULTS[fault]
    owner, name, when = place(client.sender)
    left = fail_once(monkeypatch, owner, name, when=when)
    for number in range(3):
        client.track("u1", f"Event {number}")
    flushed = []
    flusher = threading.Thread(target=lambda: flushed.append(client.flush(PATIENCE)))
    flusher.start()
    until(lambda: client.sender._barriers)
    gate.set()
    flusher.join(PATIENCE)
    client.track("u1", "Later")

    assert [0] == left
    assert [True] == flushed
    assert client.flush(PATIENCE)
    arrived = names(transport)
    assert ["Event 0", "Event 1", "Event 2", "Later"] == sorted(set(arrived), key=arrived.index)
    assert len(arrived) <= 3 + times
    stats = client.stats()
    assert (4, 4, 0, 0) == (stats.accepted, stats.delivered, stats.pending, stats.pending_bytes)
    assert "MemoryError" in diagnostics_lines.get(timeout=PATIENCE)[1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_spool_hears_of_what_ended_without_memory(make_client, monkeypatch, tmp_path, when):
    """With a spool nothing of that is delivered again, or held, for ever."""
    transport = CapturingTransport()
    client = make_client(transport=transport, max_workers=1, spool=str(tmp_path / "spool.db"))
    left = fail_once(monkeypatch, client.sender._schedule, "settle", when=when)
    client.track("u1", "First")
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert [0] == left
    assert (2, 0) == (client.stats().delivered, client.stats().pending)
    arrived = names(transport)
    assert ["First", "Second"] == sorted(set(arrived))
    assert len(arrived) == 2 + (when == "before")


def test_what_ended_without_memory_to_say_why_is_counted(make_client, monkeypatch):
    """An event refused just when memory ran out is counted as dropped, and not tried again."""
    transport = CapturingTransport(
        lambda body: Answer(status=400 if "Poison" in str(body) else 200)
    )
    client = make_client(transport=transport, max_workers=1)
    fail_once(monkeypatch, client.sender._schedule, "settle", when="after")
    client.track("u1", "Poison")
    client.track("u1", "Good")

    assert client.flush(PATIENCE)
    assert ["Poison", "Good"] == names(transport)
    stats = client.stats()
    assert (1, {"internal": 1}, 0) == (stats.delivered, stats.dropped, stats.pending)


def test_no_memory_for_a_count(make_client, monkeypatch):
    """Where even the count of what was delivered fails, it is made once more, and once only."""
    client = make_client(transport=CapturingTransport(), max_workers=1)
    left = fail_once(
        monkeypatch, stats_module.Ledger, "count", only=lambda ledger, what, *_: what == "delivered"
    )
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert [0] == left
    assert (1, 0) == (client.stats().delivered, client.stats().pending)


def test_no_memory_while_a_worker_sleeps(make_client, monkeypatch):
    """A sleep that fails is not taken for one that goes on: the next event has its worker."""
    client = make_client(transport=CapturingTransport(), max_workers=1)
    client.track("u1", "First")
    assert client.flush(PATIENCE)
    bell = client.sender._bell

    class Broken:
        def wait(self, timeout):
            client.sender._bell = bell
            raise MemoryError

        def ring(self):
            bell.ring()

    client.sender._bell = Broken()
    bell.ring()
    until(lambda: client.sender._bell is bell)
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert 2 == client.stats().delivered
    assert 1 == client.stats().threads


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_worker_that_is_told_to_end_is_replaced(make_client, error):
    """What ends a thread from outside (an async SystemExit) ends one worker; the event is kept."""
    calls, threads = [], []

    def answer(body):
        calls.append(body["event"])
        threads.append(threading.current_thread())
        if len(calls) == 1:
            raise error
        return Answer(status=200)

    client = make_client(transport=CapturingTransport(answer), max_workers=1)
    client.track("u1", "First")
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert ["First", "First", "Second"] == calls
    assert threads[0] is not threads[1] is threads[2]
    assert (2, 1) == (client.stats().delivered, client.stats().threads)


def test_a_worker_that_ends_with_nothing_to_do_is_replaced_by_the_next_event(make_client):
    """Nobody starts a thread for nothing; the next event does."""
    client = make_client(transport=CapturingTransport(), max_workers=1)
    client.track("u1", "First")
    assert client.flush(PATIENCE)
    bell = client.sender._bell

    class Ending:
        def wait(self, timeout):
            client.sender._bell = bell
            raise SystemExit

        def ring(self):
            bell.ring()

    client.sender._bell = Ending()
    bell.ring()
    until(lambda: not client.stats().threads)
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert 2 == client.stats().delivered


def test_a_flush_goes_on_by_itself_when_the_last_worker_ends(make_client, monkeypatch):
    """If the worker that a flush waits for dies, and no other can be had, the flush delivers."""
    dying = threading.Event()

    def answer(body):
        if threading.current_thread().name == "userlens-sender":
            dying.wait(PATIENCE)
            raise SystemExit
        return Answer(status=200)

    client = make_client(transport=CapturingTransport(answer), max_workers=1)
    client.track("u1", "First")
    client.track("u1", "Second")
    until(lambda: client.stats().threads)
    refuse_our_threads(monkeypatch)
    results = []
    flusher = threading.Thread(target=lambda: results.append(client.flush(PATIENCE)))
    flusher.start()
    until(lambda: client.sender._barriers)
    dying.set()
    flusher.join(PATIENCE * 2)

    assert [True] == results
    assert (2, 0) == (client.stats().delivered, client.stats().threads)


def test_no_memory_while_a_flush_delivers_by_itself(make_client, monkeypatch):
    """A flush that has no thread, and runs out of memory once, delivers all the same."""
    refuse_our_threads(monkeypatch)
    client = make_client(transport=CapturingTransport(), max_workers=1)
    fail_once(monkeypatch, client.sender._schedule, "settle")
    client.track("u1", "First")
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert 2 == client.stats().delivered


def test_a_signal_handler_that_raises_in_a_flush_is_heard(make_client, monkeypatch):
    """What is not ours (a task's time limit) ends the flush; the event is not lost by it."""

    class TimeLimitError(Exception):
        pass

    refuse_our_threads(monkeypatch)
    client = make_client(transport=CapturingTransport(), max_workers=1)
    fail_once(monkeypatch, client.sender._schedule, "settle", error=TimeLimitError)
    client.track("u1", "Event")

    with pytest.raises(TimeLimitError):
        client.flush(PATIENCE)
    assert client.flush(PATIENCE)
    assert 1 == client.stats().delivered


def test_a_thread_that_cannot_even_be_made_costs_no_event(make_client, monkeypatch):
    """Where there is no memory for a second worker, the first goes on."""
    client = make_client(transport=CapturingTransport(), max_workers=2)
    thread, made = threading.Thread, []

    class Thread(thread):
        def __init__(self, *args, **kwargs):
            if kwargs.get("name") == "userlens-sender":
                made.append(self)
                if len(made) == 2:
                    raise MemoryError
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(threading, "Thread", Thread)
    for number in range(20):
        client.track(f"u{number}", "Event")

    assert client.flush(PATIENCE)
    assert len(made) >= 2
    assert (20, 0) == (client.stats().delivered, client.stats().pending)


def test_threads_refused_for_good_are_said_once(
    make_client, server, monkeypatch, diagnostics_lines
):
    """Each event tries again, in vain; one line says what that means, and a flush delivers all."""
    original = threading.Thread.start

    def refuse(self):
        # Not the one that writes the line.
        if self.name == "userlens-sender":
            raise RuntimeError("can't start new thread")
        original(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    client = make_client()
    for number in range(5):
        client.track("u1", f"Event {number}")
    _, line = diagnostics_lines.get(timeout=PATIENCE)

    assert "no thread can be started (RuntimeError)" in line
    assert [] == server.requests
    assert client.flush(PATIENCE)
    assert [f"Event {n}" for n in range(5)] == [event["event"] for event in server.events]
    assert 5 <= client.sender.ledger.read()["workers_failed", "refused"]
    assert diagnostics_lines.empty()


def test_a_flush_by_itself_keeps_its_deadline(make_client, monkeypatch):
    """With no thread to be had and nobody there, it gives up in time; all is held on."""
    refuse_our_threads(monkeypatch)
    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}")
    client.track("u1", "Event")

    assert not client.flush(0.1)
    assert 1 == client.stats().pending


NO_STACK = """
import logging, sys, threading
import userlens_instrument as userlens

client = userlens.configure()
threading.stack_size(1 << 46)  # more than there is: the system itself refuses
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    sys.exit("a thread has started all the same")
for number in range(3):
    client.track("u1", f"Event {number}")
assert client.stats().threads == 0
"""

THEN = {
    "a flush": "assert userlens.flush(20)\nassert client.stats().delivered == 3",
    "the exit": "",
    "a later event": """
threading.stack_size(0)
client.track("u1", "Event 3")
assert client.stats().threads
""",
}


@pytest.mark.parametrize("then", THEN)
def test_threads_refused_by_the_system(server, then):
    """Without threads, a flush or the exit delivers; once there are some, the next event does."""
    process = run_python(NO_STACK + THEN[then], server.url, USERLENS_SHUTDOWN_TIMEOUT=str(PATIENCE))

    assert 0 == process.returncode, process.stderr
    expected = [f"Event {number}" for number in range(3 + (then == "a later event"))]
    assert expected == [event["event"] for event in server.events]
    assert process.stderr.startswith("no thread can be started (RuntimeError)"), process.stderr
    assert 1 == process.stderr.count("\n")


# Runs out of memory at the first line of what takes in an answer, at the second,
# and so on, until that is past the end of it.
SWEEP = """
import gc, threading
from userlens_instrument import Settings
from userlens_instrument._delivery import sender as module
from userlens_instrument.client import Client
from userlens_instrument.testing import Answer, CapturingTransport

gc.disable()  # what it calls is not what runs out of memory here
module._REST = 0.0
TAKES_IN = module.Sender._take_in.__code__
# A count is one step, as far as memory goes.
NOT_HERE = {module.Sender._account.__code__, module.Ledger.count.__code__}

class Fault:
    def __init__(self, at):
        self.left = at

    def __call__(self, frame, event, arg):
        if event == "call" and frame.f_code is TAKES_IN:
            return self.trace
        if event == "call" and self.is_inside(frame) and frame.f_code not in NOT_HERE:
            return self.trace
        return None

    def is_inside(self, frame):
        if "userlens_instrument" not in frame.f_code.co_filename:
            return False
        while frame is not None and frame.f_code is not TAKES_IN:
            frame = frame.f_back
        return frame is not None

    def trace(self, frame, event, arg):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise MemoryError
        return self.trace

def run(at, delivery):
    seen = []
    def answer(body):
        events = [one["event"] for one in body.get("events", [body])]
        seen.extend((one["userId"], one["event"]) for one in body.get("events", [body]))
        if "Poison" in events:
            return Answer(status=400)
        if "Twice" in events and [name for _, name in seen].count("Twice") == 1:
            return Answer(status=500)
        return Answer(status=200)

    settings = Settings(
        write_code="c", delivery=delivery, batch_linger=0.0, backoff_base=0.001,
        backoff_cap=0.001, max_workers=1, max_queue_events=100, overflow="drop_oldest",
    )
    client = Client(settings, transport=CapturingTransport(answer))
    fault = Fault(at)
    threading.settrace(fault)
    for user, name in EVENTS:
        client.track(user, name)
    flushed = client.flush(20)
    threading.settrace(None)
    stats = client.stats()
    client.close(0)
    lanes = {}
    for user, name in seen:
        lanes.setdefault(user, []).append(name)
    where = (at, delivery, seen, stats)
    assert flushed, where
    ended = stats.delivered + sum(stats.refused.values()) + sum(stats.dropped.values())
    assert (stats.accepted, ended, stats.pending, stats.pending_bytes) == (5, 5, 0, 0), where
    assert stats.delivered >= 4, where
    for user, lane in lanes.items():
        expected = [name for one, name in EVENTS if one == user]
        assert sorted(set(lane), key=lane.index) == expected, where
        # One more for the fault, and one for the status of 500; a batch is divided, too.
        assert delivery == "batch" or len(lane) <= len(expected) + 2, where
    return fault.left <= 0

EVENTS = [("u1", "First"), ("u2", "Poison"), ("u1", "Twice"), ("u3", "Only"), ("u1", "Last")]

for delivery in ("event", "batch"):
    at = 1
    while run(at, delivery):
        at += 1
        assert at < 2_000
    print(delivery, at)
"""


def test_no_memory_at_any_line_that_takes_in_an_answer(server):
    """Wherever it happens, once: a flush ends, all is counted, and each user's order is kept."""
    process = run_python(SWEEP, server.url, COVERAGE_PROCESS_CONFIG="")

    assert 0 == process.returncode, process.stderr[-3000:]
    lines = dict(line.split() for line in process.stdout.splitlines())
    assert {"event", "batch"} == set(lines)
    assert all(int(number) > 100 for number in lines.values()), lines
