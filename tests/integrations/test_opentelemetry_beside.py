"""OpenTelemetry's own instrumentations beside us: they trace the program, and nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

import pytest
from helpers import PATIENCE, environment


LAUNCHER = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
LINES = 20
USERS = ["u0", "u1", "u2"]
FORKED = ["child", "parent"]

# Prints its spans when it ends. The statement and the request of its own say that
# sqlite3 and urllib3 are traced indeed.
PROGRAM = f"""
import logging, os, sqlite3, sys, threading
import urllib3
import userlens_instrument
from opentelemetry import trace

def log(user):
    with trace.get_tracer("program").start_as_current_span(user):
        for number in range({LINES}):
            logging.warning("Done", extra={{
                "userlens_event": "Done", "user_id": user, "number": number}})

sqlite3.connect(":memory:").cursor().execute("SELECT 42")
urllib3.PoolManager().request("POST", sys.argv[1], body=b"null")
threads = [threading.Thread(target=log, args=[user]) for user in {USERS}]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
child = os.fork()
log("parent" if child else "child")
if child == 0:
    userlens_instrument.flush({PATIENCE})
    trace.get_tracer_provider().force_flush()
    os._exit(0)
os.waitpid(child, 0)
"""


def spans(text):
    """Return the name and the statement of each span that the console's exporter printed."""
    found, decoder, place = [], json.JSONDecoder(), text.find("{")
    while place >= 0:
        span, end = decoder.raw_decode(text, place)
        found.append((span["name"], span["attributes"].get("db.statement", "")))
        place = text.find("{", end)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("way", ["memory", "spool", "proxy"])
def test_what_is_traced_is_the_programs_alone(server, tmp_path, way):
    """
    sqlite3, urllib3 and threading are traced, and events arrive once and in order, over a fork.
    No span is of a spool or a delivery, and no request of ours carries a trace's ids.
    """
    extra = {"OTEL_TRACES_EXPORTER": "console"}
    extra |= {f"OTEL_{signal}_EXPORTER": "none" for signal in ("METRICS", "LOGS")}
    if way == "spool":
        extra["USERLENS_SPOOL"] = str(tmp_path / "spool")
    if way == "proxy":
        extra |= {"http_proxy": server.url, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [LAUNCHER, sys.executable, "-c", PROGRAM, f"{server.url}/theirs"],
        env=environment("http://userlens.internal" if way == "proxy" else server.url, **extra),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    ours = [request for request in server.requests if request.path != "/theirs"]
    arrived = defaultdict(list)
    for request in ours:
        arrived[request.json["userId"]].append(request.json["properties"]["number"])

    assert 0 == done.returncode, done.stderr
    assert {user: list(range(LINES)) for user in [*USERS, *FORKED]} == dict(arrived)
    theirs = [("SELECT", "SELECT 42"), ("POST", ""), *((user, "") for user in USERS + FORKED)]
    assert sorted(theirs) == sorted(spans(done.stdout))
    assert not any("traceparent" in map(str.lower, request.headers) for request in ours)
