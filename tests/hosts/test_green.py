"""gevent and eventlet, patched in before and after us: events arrive, and no hub stands still."""

from __future__ import annotations

import threading
from collections import defaultdict
from importlib.util import find_spec

import pytest
from children import Program
from helpers import PATIENCE, Reply


EVENTS, USERS = 30, 3

# Warnings: eventlet is deprecated; ssl was loaded before. And a busy machine takes its time.
SETTINGS = {"PYTHONWARNINGS": "ignore", "USERLENS_SHUTDOWN_TIMEOUT": str(PATIENCE)}

PATCHES = {
    "gevent": "from gevent import monkey, sleep, spawn\nmonkey.patch_all()",
    "eventlet": "import eventlet\nfrom eventlet import sleep, spawn\neventlet.monkey_patch()",
}

# Not importorskip: to load eventlet here is to have every fork of this process warn.
KINDS = [
    pytest.param(
        kind, marks=pytest.mark.skipif(not find_spec(kind), reason=f"{kind} is not installed here")
    )
    for kind in PATCHES
]

LOADING = """
import logging, sys
import userlens_instrument as userlens
from userlens_instrument.client import configure

logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.propagate = False

def log(name, user):
    logger.info(name, extra={"userlens_event": True, "user_id": user})
"""

STARTING = """
logger.addHandler(userlens.UserlensHandler(max_workers=4))
"""

FIRST = """
log("First", "first")
"""

DELIVERED = """
assert userlens.flush(20)
"""

ON_ITS_WAY = """
print("logged", flush=True)
sys.stdin.readline()
"""

# While the server answers nothing, other greenlets go on.
WORKING = f"""
def tick():
    for number in range({EVENTS}):
        log(f"Event {{number}}", f"u{{number % {USERS}}}")
        sleep(0.001)

ticking = spawn(tick)
while userlens.stats().accepted < {EVENTS} + 1:
    sleep(0.001)
print("ticked", flush=True)
"""

ENDING = {
    "exits": "",
    "flushes": """
assert userlens.flush(20), userlens.stats()
assert userlens.stats().pending == 0
log("Late", "late")
""",
}

# Each with how the program ends.
WHEN = {
    "before our import": (["patch", LOADING, STARTING, FIRST], "exits"),
    "after our import": ([LOADING, "patch", STARTING, FIRST], "flushes"),
    "after a handler is made": ([LOADING, STARTING, "patch", FIRST], "exits"),
    "after the first event": ([LOADING, STARTING, FIRST, DELIVERED, "patch"], "exits"),
    # Not "exits": gevent cannot load there what it needs for its first request.
    "in the middle of a request": ([LOADING, STARTING, FIRST, ON_ITS_WAY, "patch"], "flushes"),
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("kind", KINDS)
def test_patched_at_any_time(server, kind, when):
    """
    Each event arrives once, each user's in order; the program ends by itself.

    Other greenlets go on while requests wait for their answers: the server
    answers none before they have.
    """
    parts, end = WHEN[when]
    release = threading.Event()
    first_waits = when == "in the middle of a request"
    server.script = lambda request: Reply(
        hold=None if request.json["event"] == "First" and not first_waits else release
    )
    code = "".join(PATCHES[kind] if part == "patch" else part for part in parts)
    try:
        with Program(code + WORKING + ENDING[end], server.url, **SETTINGS) as program:
            if first_waits:
                program.wait_for("logged")
                assert server.wait_for(1)
                program.process.stdin.write(b"\n")
                program.process.stdin.flush()
            program.wait_for("ticked")
            release.set()
            status, _, error = program.finish()
    finally:
        release.set()

    assert (0, "") == (status, error)
    lanes = defaultdict(list)
    for event in server.events:
        lanes[event["userId"]].append(event["event"])
    expected = {f"u{n}": [f"Event {one}" for one in range(n, EVENTS, USERS)] for n in range(USERS)}
    expected["first"] = ["First"]
    if end == "flushes":
        expected["late"] = ["Late"]
    assert expected == lanes


# A worker that was there before finds nothing to do, and ends, after all was patched.
IDLE = """
from userlens_instrument._delivery import sender
sender._IDLE = 1.0
"""
UNTIL_ONE_IS_LEFT = """
while userlens.stats().threads > 1:
    sleep(0.01)
print("one is left", flush=True)
log("Second", "second")
assert userlens.flush(20), userlens.stats()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_of_before_ends_quietly(server, kind):
    """
    `threading` looks for it by a number that it had before: no traceback on the program's stderr.
    """
    code = [LOADING, IDLE, STARTING, FIRST, ON_ITS_WAY, PATCHES[kind], UNTIL_ONE_IS_LEFT]
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    try:
        with Program("".join(code), server.url, **SETTINGS) as program:
            program.wait_for("logged")
            assert server.wait_for(1)
            program.process.stdin.write(b"\n")
            program.process.stdin.flush()
            program.wait_for("one is left")
            release.set()
            status, _, error = program.finish()
    finally:
        release.set()

    assert (0, "") == (status, error)
    assert ["First", "Second"] == [event["event"] for event in server.events]


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_logs_and_ends_at_once(server, kind):
    """Its events are delivered at the exit, where gevent cannot load any more what it needs."""
    code = PATCHES[kind] + LOADING + STARTING + FIRST
    with Program(code, server.url, **SETTINGS) as program:
        status, _, error = program.finish()

    assert (0, "") == (status, error)
    assert ["First"] == [event["event"] for event in server.events]
