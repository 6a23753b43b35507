"""
gunicorn for real: a master and two sync workers, with and without ``--preload``.

gunicorn's sync workers and its master run exit hooks, so the application has
no code for the end: what a process holds when it is told to end is delivered
by our own hook.
"""

from __future__ import annotations

import http.client
import signal
import socket
import threading
from collections import Counter, defaultdict

import pytest
from children import Program
from helpers import PATIENCE, SPOOLED, Reply
from schema import assert_valid


pytest.importorskip("gunicorn")

WORKERS = 2
BOOTED = ("Booted", "master", None)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PRELOAD = pytest.mark.parametrize(
    "options", [("--preload",), ()], ids=["preload", "without preload"]
)

# Both entrances: one route logs by structlog, the other by the standard library.
APP = """
import logging
import logging.config
import os
import sys

import structlog
import userlens_instrument as userlens

logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"userlens": {"class": "userlens_instrument.UserlensHandler"}},
    "root": {"level": "INFO", "handlers": ["userlens"]},
})
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        userlens.UserlensProcessor(),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)
stdlib, native = logging.getLogger("app"), structlog.get_logger()
stdlib.info("Booted", extra={"userlens_event": True, "user_id": "master"})

def app(environ, start_response):
    environ["wsgi.input"].read()
    _, route, user, number = environ["PATH_INFO"].split("/")
    fields = {"number": int(number), "worker": os.getpid(), "userlens_event": True}
    if route == "structlog":
        with structlog.contextvars.bound_contextvars(user_id=user):
            native.info("Page Viewed", **fields)
    else:
        stdlib.info("File Exported", extra={"user_id": user, **fields})
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

# What the test waits for comes on standard output; gunicorn's own log does not.
CONFIG = """
import itertools
import pathlib

# A socket in the home folder, which gunicorns that run side by side would share.
control_socket_disable = True
ended = itertools.count(1)

def when_ready(server):
    pathlib.Path("port").write_text(str(server.LISTENERS[0].sock.getsockname()[1]))
    print("listening", flush=True)

def worker_exit(server, worker):
    print("a worker is about to run its exit hooks", flush=True)

def child_exit(server, worker):
    print(f"{next(ended)} ended", flush=True)
"""


class Gunicorn(Program):
    """gunicorn with the application above, on a port that the system chose."""

    def __init__(self, folder, url, *options):
        (folder / "app.py").write_text(APP)
        (folder / "hooks.py").write_text(CONFIG)
        arguments = ["-m", "gunicorn", "--config=hooks.py", "--bind=127.0.0.1:0"]
        arguments += [f"--workers={WORKERS}", "--worker-class=sync", *options, "app:app"]
        # A busy machine may need longer than the five seconds of the default.
        super().__init__(
            None, url, arguments=arguments, cwd=folder, USERLENS_SHUTDOWN_TIMEOUT=str(PATIENCE)
        )
        self._port = folder / "port"

    def drive(self, numbers):
        """
        Send a request for each of *numbers*, by turns to two workers; return the events to expect.

        Of each two requests the first keeps its worker busy, waiting for the
        body, until another has answered the second.
        """
        self.expected = []
        port = int(self._port.read_text())
        for number in numbers[::2]:
            busy = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            other = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            busy.putrequest("POST", self._path(number))
            busy.putheader("Content-Length", "1")
            busy.putheader("Expect", "100-continue")
            busy.endheaders()
            assert CONTINUE == busy.sock.recv(len(CONTINUE), socket.MSG_WAITALL)
            other.request("POST", self._path(number + 1), body=b"")
            self._read(other)
            busy.send(b"x")
            self._read(busy)
        return self.expected

    def _path(self, number):
        user = f"u{number % 3}"
        route, event = [("structlog", "Page Viewed"), ("stdlib", "File Exported")][number // 2 % 2]
        self.expected.append((event, user, number))
        return f"/{route}/{user}/{number}"

    @staticmethod
    def _read(connection):
        response = connection.getresponse()
        assert (200, b"ok") == (response.status, response.read())
        connection.close()


def arrived(server):
    """Return how often each event arrived, all of them being valid."""
    for body in server.events:
        assert_valid(body)
    return Counter(
        (body["event"], body["userId"], body.get("properties", {}).get("number"))
        for body in server.events
    )


def orders(server):
    """Return the numbers of the requests as they arrived, for each worker and user."""
    found = defaultdict(list)
    for body in server.events:
        if body["event"] != "Booted":
            found[body["properties"]["worker"], body["userId"]].append(body["properties"]["number"])
    return found


def assert_in_order(server, *, workers):
    found = orders(server)
    assert workers == len({worker for worker, _ in found})
    assert {key: sorted(numbers) for key, numbers in found.items()} == found


@PRELOAD
def test_what_master_and_workers_hold_at_sigterm_arrives_once(server, tmp_path, options):
    """
    Every event of a request arrives exactly once, and in each process's order for its user.

    What the module logs at import arrives once per process that imported it:
    with ``--preload`` that is the master, which has it in flight while it
    forks its workers, and they do not repeat it. No answer comes from the
    server before a worker is about to run its exit hooks: so no request waits
    for one, and the exit delivers the rest. gunicorn ends with status 0.
    """
    if SPOOLED and not options:
        pytest.skip("with a spool one of the workers delivers, and one user's events by turns")
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    booted = 1 if options else WORKERS
    try:
        with Gunicorn(tmp_path, server.url, *options) as gunicorn:
            gunicorn.wait_for("listening")
            assert server.wait_for(booted)
            expected = gunicorn.drive(range(20))
            gunicorn.send_signal(signal.SIGTERM)
            gunicorn.wait_for("a worker is about to run its exit hooks")
            release.set()
            status, _, error = gunicorn.finish()
    finally:
        release.set()
    assert status == 0, error
    assert Counter(expected) + Counter({BOOTED: booted}) == arrived(server), error
    assert_in_order(server, workers=WORKERS)


@PRELOAD
def test_workers_that_a_reload_replaces_lose_and_repeat_nothing(server, tmp_path, options):
    """
    SIGHUP replaces the workers: the old ones deliver what they logged, the new ones deliver.

    A preloaded module is not imported again, so "Booted" stays one event;
    otherwise each new worker imports it, and it is one more event for each.
    """
    booted = 1 if options else 2 * WORKERS
    with Gunicorn(tmp_path, server.url, *options) as gunicorn:
        gunicorn.wait_for("listening")
        expected = [*gunicorn.drive(range(10))]
        gunicorn.send_signal(signal.SIGHUP)
        gunicorn.wait_for(f"{WORKERS} ended")
        assert Counter(expected) <= arrived(server)
        expected += gunicorn.drive(range(10, 20))
        gunicorn.send_signal(signal.SIGTERM)
        status, _, error = gunicorn.finish()
    assert status == 0, error
    assert Counter(expected) + Counter({BOOTED: booted}) == arrived(server), error
    assert_in_order(server, workers=2 * WORKERS)
