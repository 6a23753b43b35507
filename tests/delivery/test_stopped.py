"""A process that is stopped in mid-request, as AWS Lambda freezes one, and goes on later."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, defaultdict

import pytest
from children import Program
from helpers import Reply


pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")

# Longer than the read timeout of a second, which is what matters. For a soak
# run, ten and more.
STOPPED = float(os.environ.get("TESTS_STOPPED_SECONDS", "1.5"))

USERS, EACH = 2, 5

PROGRAM = f"""
import sys
import userlens_instrument as userlens

userlens.configure(read_timeout=1, backoff_base=0.01, backoff_cap=0.05)
for number in range({EACH}):
    for user in range({USERS}):
        userlens.track(f"u{{user}}", f"Event {{number}}")
sys.stdin.readline()
stats = userlens.stats()
assert userlens.flush(20), stats
stats = userlens.stats()
print(stats.accepted, stats.delivered, stats.pending)
"""


@pytest.mark.parametrize("answered", ["while it is stopped", "when it goes on", "never"])
def test_a_process_that_is_stopped_in_mid_request(server, answered):
    """
    It goes on where it was: everything is delivered, each user's in order, and
    no event twice but those that were on their way.

    Whether the server answered meanwhile, answers when the process goes on, or
    has never answered what was on its way.
    """
    release, never = threading.Event(), threading.Event()
    stopped_at = []

    def script(request):
        if answered == "never" and request.number <= USERS:
            return Reply(hold=never)
        return Reply(hold=release)

    server.script = script
    try:
        with Program(PROGRAM, server.url) as program:
            assert server.wait_for(USERS)
            program.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(program.process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            stopped_at.extend(request.json for request in server.requests)
            if answered == "while it is stopped":
                release.set()
            threading.Event().wait(STOPPED)
            program.send_signal(signal.SIGCONT)
            release.set()
            program.process.stdin.write(b"\n")
            program.process.stdin.flush()
            status, out, error = program.finish()
    finally:
        release.set()
        never.set()

    assert (0, "") == (status, error)
    assert f"{USERS * EACH} {USERS * EACH} 0" == out.strip()
    lanes = defaultdict(list)
    for event in server.events:
        lanes[event["userId"]].append(event["event"])
    expected = [f"Event {number}" for number in range(EACH)]
    on_their_way = Counter((one["userId"], one["event"]) for one in stopped_at)
    for user, lane in lanes.items():
        # In order, and a second copy before anything that comes after it.
        assert sorted(lane) == lane
        assert expected == sorted(set(lane))
        for name, times in Counter(lane).items():
            assert times <= 1 + (on_their_way[user, name] > 0), (lane, on_their_way)
    assert {f"u{number}" for number in range(USERS)} == set(lanes)
