"""The end of a program: what is held is delivered, within a deadline, and nothing is in the way."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections import Counter, defaultdict

import pytest
from children import REPORTING, conserved, left_over, run_in_time, run_reporting
from helpers import SPOOLED, Reply, closed_port, refuse_our_threads, run_python

from userlens_instrument._delivery import lifecycle


EVENTS, USERS = 950, 50

MANY = f"""
for number in range({EVENTS}):
    log(f"Event {{number}}", f"u{{number % {USERS}}}")
end()
"""

THROUGH_THE_PROCESSOR = """
import structlog
structlog.configure(
    processors=[userlens.UserlensProcessor(), structlog.processors.JSONRenderer()],
    logger_factory=structlog.ReturnLoggerFactory(),
)
structlogger = structlog.get_logger()

def log(name, user="u1"):
    structlogger.info(name, userlens_event=True, user_id=user)
"""

ENTRANCES = {"handler": "attach()\n", "processor": THROUGH_THE_PROCESSOR}

LOST = re.compile(
    r"^(\d+) events? could not be delivered in time: "
    + (r"kept in the spool .*, for the next process that uses it$" if SPOOLED else "lost$")
)


def lost(process):
    """Return the numbers of lost events that were said; fail for any other line but one."""
    numbers = []
    for line in process.stderr.splitlines():
        found = LOST.match(line)
        if found:
            numbers.append(int(found[1]))
        else:
            assert line.startswith("Userlens cannot be reached"), process.stderr
    return numbers


@pytest.fixture
def silent(server):
    """Return a server that takes requests and never answers."""
    never = threading.Event()
    server.script = lambda request: Reply(hold=never)
    yield server
    never.set()


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_everything_is_delivered_without_a_shutdown(server, entrance):
    """A program that just returns from main has every event delivered, once, and in order."""
    process, report = run_reporting(ENTRANCES[entrance] + MANY, server.url)

    lanes = defaultdict(list)
    for event in server.events:
        lanes[event["userId"]].append(int(event["event"].split()[1]))
    assert {f"u{n}": list(range(n, EVENTS, USERS)) for n in range(USERS)} == lanes
    assert (0, "") == (process.returncode, process.stderr)
    assert (EVENTS, EVENTS, 0) == (report["accepted"], report["delivered"], report["pending"])


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_nobody_there_costs_the_deadline_and_one_line(entrance):
    """With nobody there, the exit takes shutdown_timeout at most, and says how many were lost."""
    process, report = run_in_time(
        1,
        ENTRANCES[entrance] + MANY,
        f"http://127.0.0.1:{closed_port()}",
        USERLENS_SHUTDOWN_TIMEOUT="1",
    )

    assert (0, [EVENTS]) == (process.returncode, lost(process))
    assert (EVENTS, EVENTS) == (report["accepted"], left_over(report))


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_server_that_hangs_costs_the_deadline_and_one_line(silent, entrance):
    """A server that never answers holds the exit up no longer than shutdown_timeout."""
    process, report = run_in_time(
        1, ENTRANCES[entrance] + MANY, silent.url, USERLENS_SHUTDOWN_TIMEOUT="1"
    )

    assert (0, [EVENTS]) == (process.returncode, lost(process))
    assert EVENTS == left_over(report)


def test_a_deadline_of_nothing_is_kept(silent):
    """shutdown_timeout=0 waits for nothing at all."""
    process, report = run_in_time(0, "attach()" + MANY, silent.url, USERLENS_SHUTDOWN_TIMEOUT="0")

    assert 0 == process.returncode
    assert conserved(report)


def test_ctrl_c_ends_the_wait_and_says_what_is_lost(silent):
    """Whoever presses it has waited enough: no traceback, and what is left is counted."""
    process, report = run_reporting(
        """
import os, signal, threading
from userlens_instrument._delivery import lifecycle

def press():
    frame = None
    while frame is None or frame.f_code is not lifecycle._finish_all.__code__:
        frame = frame and frame.f_back or sys._current_frames()[threading.main_thread().ident]
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
attach()
for number in range(5):
    log(f"Event {number}")
threading.Thread(target=press, daemon=True).start()
""",
        silent.url,
        USERLENS_SHUTDOWN_TIMEOUT="600",
    )

    assert (0, [5]) == (process.returncode, lost(process))
    assert (5, 5) == (report["accepted"], left_over(report))


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_program_that_ctrl_c_ends_dies_of_it(server, entrance):
    """Its status is what a shell goes by; the first event, in its exit, changes nothing of it."""
    process = run_python(
        f"""
import logging, os, signal, time
import userlens_instrument as userlens
{REPORTING[REPORTING.index("def log") :]}
{ENTRANCES[entrance]}
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
finally:
    log("Stopped")
""",
        server.url,
        # Not measured: coverage writes its file in a later exit hook.
        COVERAGE_PROCESS_CONFIG="",
    )

    assert -signal.SIGINT == process.returncode
    assert "KeyboardInterrupt" == process.stderr.splitlines()[-1]
    assert ["Stopped"] == [event["event"] for event in server.events]


@pytest.mark.parametrize("last", [KeyboardInterrupt, ZeroDivisionError, None])
def test_the_status_is_kept_without_a_trace(monkeypatch, last):
    """The interrupt that is raised for it stays within."""
    monkeypatch.setattr(sys, "last_type", last, raising=False)
    lifecycle._keep_status()
    exec("pass")  # or this process would die of it


def test_on_error_that_hangs_does_not_hold_the_exit_up():
    """An on_error that never returns costs the exit nothing past the deadline."""
    process, _ = run_in_time(
        0.5,
        """
import threading
never = threading.Event()
attach(on_error=lambda loss: never.wait())
from userlens_instrument import client
log("Event")
# Time for a thread to start: at the exit of 3.12 none can.
while not userlens.stats().retried:
    pass
end()
""",
        f"http://127.0.0.1:{closed_port()}",
        USERLENS_SHUTDOWN_TIMEOUT="0.5",
    )

    assert (0, [1]) == (process.returncode, lost(process))


def test_a_host_handler_that_hangs_on_our_line_does_not_hold_the_exit_up():
    """A handler of the application that never returns from our line does not keep us waiting."""
    process, _ = run_in_time(
        0.5,
        """
import threading
never = threading.Event()

class Hanging(logging.Handler):
    def createLock(self):
        self.lock = None
    def emit(self, record):
        never.wait()

logging.getLogger("userlens_instrument").addHandler(Hanging())
attach()
log("Event")
while not userlens.stats().retried:
    pass
end()
""",
        f"http://127.0.0.1:{closed_port()}",
        USERLENS_SHUTDOWN_TIMEOUT="0.5",
    )

    assert 0 == process.returncode


def test_events_of_exit_hooks_on_both_sides_of_ours_are_delivered(server):
    """What other exit hooks log is delivered, whether they run before our hook or after it."""
    process, report = run_reporting(
        """
atexit.register(lambda: log("After ours"))  # registered before: runs after
attach()
log("Main")
atexit.register(lambda: log("Before ours"))
""",
        server.url,
    )

    assert {"Main": 1, "Before ours": 1, "After ours": 1} == Counter(
        event["event"] for event in server.events
    )
    assert (0, "", 3) == (process.returncode, process.stderr, report["delivered"])


@pytest.mark.parametrize("step", ["finish", "_hold_still"])
def test_another_thread_that_logs_while_the_exit_waits_loses_nothing(server, step):
    """
    Too late to be waited for, too early to be delivered on the thread that logs.

    A queue that its owner empties in an exit hook of its own, after ours, does that.
    """
    process, report = run_reporting(
        f"""
import queue, threading
from userlens_instrument._delivery.sender import Sender

asked, done = queue.SimpleQueue(), queue.SimpleQueue()

def listen():
    log(asked.get())
    done.put(None)

def meanwhile(self, *args, real=Sender.{step}):
    result = real(self, *args)
    Sender.{step} = real
    asked.put("Meanwhile")
    done.get()
    return result

threading.Thread(target=listen, daemon=True).start()
attach()
log("Main")
Sender.{step} = meanwhile
""",
        server.url,
    )

    assert {"Main": 1, "Meanwhile": 1} == Counter(event["event"] for event in server.events)
    assert (0, "", 2) == (process.returncode, process.stderr, report["delivered"])


def test_without_threads_a_client_whose_server_is_gone_leaves_time_to_the_others(
    make_client, server, monkeypatch
):
    """They are waited for one after the other, and yet none of them for all of the time."""
    gone = make_client(events_url=f"http://127.0.0.1:{closed_port()}", shutdown_timeout=1.0)
    client = make_client(shutdown_timeout=1.0)
    refuse_our_threads(monkeypatch)
    gone.track("u1", "Lost")
    client.track("u1", "Event")
    lifecycle._finish_all(lambda sender, seconds: sender.finish(seconds))

    assert ["Event"] == [event["event"] for event in server.events]
    assert 1 == client.stats().delivered
    assert 0 == gone.stats().delivered


def test_an_exit_hook_that_is_slow_does_not_use_up_our_time(server):
    """The deadline counts our own waiting: an event after another hook's long work arrives."""
    process, report = run_reporting(
        """
import threading

@atexit.register
def slow():
    threading.Event().wait(2.2)
    log("Late")

attach()
log("Main")
""",
        server.url,
        USERLENS_SHUTDOWN_TIMEOUT="2",
    )

    assert ["Main", "Late"] == [event["event"] for event in server.events]
    assert (0, "", 2) == (process.returncode, process.stderr, report["delivered"])


def test_exit_hooks_that_log_to_nobody_share_one_deadline():
    """However much is logged after our hook, all of the exit keeps to one deadline."""
    process, report = run_in_time(
        0.5,
        """
@atexit.register
def many():
    for number in range(50):
        log(f"Late {number}")

attach()
log("Main")
end()
""",
        f"http://127.0.0.1:{closed_port()}",
        USERLENS_SHUTDOWN_TIMEOUT="0.5",
    )

    assert (0, [1]) == (process.returncode, lost(process))
    assert (51, 51) == (report["accepted"], left_over(report))


def test_the_first_event_ever_may_be_logged_in_an_exit_hook(server):
    """The first event of all, logged by an exit hook through a handler made before, arrives."""
    process, report = run_reporting(
        """
attach()
atexit.register(lambda: log("First and last"))
""",
        server.url,
    )

    assert ["First and last"] == [event["event"] for event in server.events]
    assert (0, "", 1) == (process.returncode, process.stderr, report["delivered"])


def test_the_package_may_be_imported_in_an_exit_hook(server):
    """Even a program that first imports this package in an exit hook has its event delivered."""
    process = run_python(
        """
import atexit, logging

@atexit.register
def last():
    import userlens_instrument
    logging.getLogger("app").addHandler(userlens_instrument.UserlensHandler())
    logging.getLogger("app").warning("Last", extra={"userlens_event": True, "user_id": "u1"})
    userlens_instrument.track("u1", "Really last")
""",
        server.url,
    )

    assert ["Last", "Really last"] == [event["event"] for event in server.events]
    assert 0 == process.returncode


@pytest.mark.memory
def test_on_error_that_logs_at_the_exit_does_not_go_round_in_circles():
    """An on_error that logs a tagged line of each loss ends, at the exit as elsewhere."""
    process, report = run_reporting(
        """
attach(on_error=lambda loss: log("Lost one"))
atexit.register(lambda: log("Only"))
end()
""",
        f"http://127.0.0.1:{closed_port()}",
        USERLENS_SHUTDOWN_TIMEOUT="0.3",
    )

    assert 0 == process.returncode
    assert (1, {"shutdown": 1}) == (report["accepted"], report["dropped"])


def test_a_thread_that_outlives_main_is_served(server):
    """Events of a non-daemon thread that goes on after main are delivered."""
    process, report = run_reporting(
        """
import threading

def later():
    threading.main_thread().join()
    for number in range(20):
        log(f"Event {number}")

attach()
threading.Thread(target=later).start()
""",
        server.url,
    )

    assert [f"Event {number}" for number in range(20)] == [
        event["event"] for event in server.events
    ]
    assert (0, "", 20) == (process.returncode, process.stderr, report["delivered"])


def test_a_thread_that_outlives_main_is_not_on_the_deadline_of_the_exit(server):
    """
    The deadline begins when the program ends: a thread that makes the first
    client after main, and works for longer than shutdown_timeout, loses nothing.
    """
    process, report = run_reporting(
        """
import threading

def later():
    threading.main_thread().join()
    log("First")
    threading.Event().wait(2.2)
    for number in range(20):
        log(f"Event {number}")

attach()
threading.Thread(target=later).start()
""",
        server.url,
        USERLENS_SHUTDOWN_TIMEOUT="2",
    )

    assert (0, "", 21) == (process.returncode, process.stderr, report["delivered"])


@pytest.mark.parametrize(
    ("ending", "status", "says"),
    [("sys.exit(3)", 3, ""), ("raise RuntimeError('boom')", 1, "RuntimeError: boom")],
)
def test_the_exit_status_is_the_programs_own(server, ending, status, says):
    """sys.exit(3) ends with 3 and an unhandled exception with 1; the events arrive either way."""
    process, report = run_reporting(f"attach()\nlog('Event')\n{ending}\n", server.url)

    assert (status, 1) == (process.returncode, report["delivered"])
    assert process.stderr.strip().endswith(says)


def test_several_clients_share_the_deadline(silent):
    """Clients are finished side by side: two that hang cost one deadline, and say so each."""
    process, _ = run_in_time(
        0.5,
        """
attach()
logging.getLogger("other").propagate = False
logging.getLogger("other").addHandler(userlens.UserlensHandler(max_workers=1))
log("One")
log("Two", logger=logging.getLogger("other"))
end()
""",
        silent.url,
        USERLENS_SHUTDOWN_TIMEOUT="0.5",
    )

    # Two that share a spool have one that drains it.
    assert (0, [2] if SPOOLED else [1, 1]) == (process.returncode, lost(process))


def test_after_a_shutdown_the_exit_has_nothing_to_do(server):
    """A program that calls shutdown() itself ends at once, and late events are counted."""
    process, report = run_reporting(
        """
attach()
log("Event")
assert userlens.shutdown()
log("Late")
end()
""",
        server.url,
    )

    assert 0 == process.returncode
    assert (1, {"closed": 1}) == (report["delivered"], report["dropped"])
