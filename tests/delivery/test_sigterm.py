"""SIGTERM: left alone by default; delivered before it, where that is asked for."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from children import Program, in_time
from helpers import PATIENCE, SPOOLED, Reply, refuse_our_threads

from userlens_instrument._delivery import lifecycle


START = """
import logging, os, signal, sys, threading, time
import userlens_instrument as userlens
{before}
client = userlens.configure({settings})
{after}

def wait():
    {wait}

def say_when_it_waits():
    # A signal that comes just as the main thread is about to wait is handled
    # when the wait is over: so does Python. This is not about that.
    seen, main = 0, threading.main_thread()
    while seen < 3 and main.is_alive():
        time.sleep(0.02)
        seen += sys._current_frames()[main.ident].f_code is wait.__code__
    print("ready", flush=True)

# No daemon: the exit would find the lock of the output held, in the middle of "ready".
threading.Thread(target=say_when_it_waits).start()
wait()
"""

WAIT = "time.sleep(600)"


def start(server, *, settings="", before="", after="", wait=WAIT, events=5, **extra):
    track = f"for n in range({events}): client.track('u1', f'Event {{n}}')"
    code = START.format(settings=settings, before=before, after=f"{track}\n{after}", wait=wait)
    # Not measured: a signal that interrupts coverage's tracer finds its lock held.
    return Program(code, server.url, COVERAGE_PROCESS_CONFIG="", **extra)


def test_by_default_sigterm_is_none_of_our_business(server):
    """configure() touches no signal handler, and the process dies of the signal."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held)
    check = "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL"
    with start(server, after=check) as program:
        program.wait_for("ready")
        program.send_signal(signal.SIGTERM)
        status, _, error = program.finish()
    held.set()

    assert (-signal.SIGTERM, "") == (status, error)


WAITS = {
    "sleeping": "time.sleep(600)",
    "in a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "busy": "while True: pass",
}


@pytest.mark.parametrize("wait", WAITS)
def test_with_the_setting_what_is_held_is_delivered_first(server, wait):
    """Wherever the main thread is, events are delivered; then the process dies of the signal."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held)
    with start(server, settings="flush_on_sigterm=True", wait=WAITS[wait]) as program:
        program.wait_for("ready")
        assert server.wait_for(1)
        program.send_signal(signal.SIGTERM)
        held.set()
        status, _, error = program.finish()

    assert (-signal.SIGTERM, "") == (status, error)
    assert [f"Event {n}" for n in range(5)] == [event["event"] for event in server.events]


def terminate_in_time(deadline, server, **how):
    """Start a program, and terminate it; return its status and standard error."""

    def run():
        with start(server, **how) as program:
            program.wait_for("ready")
            assert server.wait_for(1)
            sent = time.monotonic()
            program.send_signal(signal.SIGTERM)
            status, _, error = program.finish()
            return time.monotonic() - sent, status, error

    return in_time(deadline, run)


def test_a_hanging_server_costs_the_deadline(server):
    """It dies within shutdown_timeout, and says in one line what was lost."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held)
    settings = "flush_on_sigterm=True, shutdown_timeout=1.0"
    status, error = terminate_in_time(1.0, server, settings=settings)
    held.set()

    assert -signal.SIGTERM == status
    (line,) = error.splitlines()
    kept = "kept in the spool" if SPOOLED else "lost"
    assert line.startswith(f"5 events could not be delivered in time: {kept}")


@pytest.mark.memory
def test_a_main_thread_that_holds_our_lock_costs_the_deadline(server):
    """However the signal falls, perhaps within a lock of ours, the process dies in time."""
    wait = "with client.sender._lock: time.sleep(600)"
    settings = "flush_on_sigterm=True, shutdown_timeout=0.5"
    status, _ = terminate_in_time(0.5, server, settings=settings, wait=wait)

    assert -signal.SIGTERM == status


def test_an_applications_own_handler_stays(server):
    """Where somebody else handles SIGTERM we do not, and one line says so."""
    before = "signal.signal(signal.SIGTERM, lambda *a: (os.write(1, b'mine'), sys.exit(7)))"
    with start(server, settings="flush_on_sigterm=True", before=before) as program:
        program.wait_for("ready")
        program.send_signal(signal.SIGTERM)
        status, out, error = program.finish()

    assert (7, True) == (status, "mine" in out), error
    assert "flush_on_sigterm has no effect: the application handles SIGTERM itself" in error
    assert 5 == len(server.events), "the exit hook delivers"


def test_an_ignored_sigterm_stays_ignored(server):
    """SIG_IGN is a decision of somebody else's, too."""
    before = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    settings, wait = "flush_on_sigterm=True", "sys.stdin.read()"
    with start(server, settings=settings, before=before, wait=wait) as program:
        program.wait_for("ready")
        program.send_signal(signal.SIGTERM)
        status, _, error = program.finish()  # which closes its standard input

    assert 0 == status, error


def test_on_another_thread_it_cannot_be_set(server):
    """Python sets signal handlers on the main thread only: one line, no exception."""
    code = """
import threading
import userlens_instrument as userlens
thread = threading.Thread(target=lambda: userlens.configure(flush_on_sigterm=True))
thread.start(); thread.join()
"""
    with Program(code, server.url) as program:
        status, _, error = program.finish()

    assert (0, 1) == (status, len(error.splitlines()))
    assert "configure() was not called on the main thread" in error


def test_two_clients_with_the_setting_are_both_delivered(server):
    """The handler is set once, and is the whole process'."""
    after = "other = userlens.configure('other', flush_on_sigterm=True)\nother.track('u2', 'Other')"
    with start(server, settings="flush_on_sigterm=True", after=after) as program:
        program.wait_for("ready")
        program.send_signal(signal.SIGTERM)
        status, _, _ = program.finish(PATIENCE)

    assert -signal.SIGTERM == status
    assert 6 == len(server.events)


def test_the_second_signal_is_the_default(make_client, server, monkeypatch):
    """
    The first signal delivers on another thread and sends a second one to the
    main thread, which hands it on to the system's own handler.

    In this process, where the last step is caught.
    """
    killed = threading.Event()
    monkeypatch.setattr("os.kill", lambda pid, number: killed.set())
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        client = make_client(flush_on_sigterm=True)
        make_client(flush_on_sigterm=True)
        client.track("u1", "Event")
        signal.raise_signal(signal.SIGTERM)
        while not killed.is_set():  # the second signal interrupts this very loop
            assert threading.main_thread() is threading.current_thread()

        assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
        assert ["Event"] == [event["event"] for event in server.events]
    finally:
        for thread in threading.enumerate():
            if thread.name == "userlens-sigterm":
                thread.join(PATIENCE)
        signal.signal(signal.SIGTERM, before)
        lifecycle._process.terminated.clear()
        lifecycle._process.handed_on.clear()


def test_without_threads_the_main_thread_delivers(make_client, server, monkeypatch):
    """Where no thread can be started, the signal handler does the work itself."""
    sent = []

    def not_heard_at_first(ident, number):
        sent.append(number)
        if len(sent) == 2:
            lifecycle._process.handed_on.set()

    monkeypatch.setattr(signal, "pthread_kill", not_heard_at_first)
    client = make_client()
    with monkeypatch.context() as patch:
        refuse_our_threads(patch)
        client.track("u1", "Event")
        lifecycle._on_sigterm(signal.SIGTERM, None)
    lifecycle._process.terminated.clear()
    lifecycle._process.handed_on.clear()

    assert [signal.SIGTERM] * 2 == sent
    assert ["Event"] == [event["event"] for event in server.events]


def test_a_handler_of_the_applications_is_found_and_left(make_client, diagnostics_lines):
    """One line says that the setting has no effect; the handler stays."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        make_client(flush_on_sigterm=True)

        assert "handles SIGTERM itself" in diagnostics_lines.get(timeout=PATIENCE)[1]
        assert signal.SIG_IGN is signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
