"""
gunicorn for real: sync workers, with and without ``--preload``.

The server holds every answer until gunicorn has been told to end: so no
request waits for Userlens, the workers are forked while the master has an
event in flight, and it is the exit of each process that delivers what it
holds. gunicorn's sync workers run exit hooks, so the application needs no
code for that.
"""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections import Counter, defaultdict

import pytest
from children import Program
from helpers import PATIENCE, Reply, closed_port
from schema import assert_valid


pytest.importorskip("gunicorn")

WORKERS = 2
REQUESTS = 20
USERS = 3

# Both entrances; the request's number and user come in its path.
APP = """
import logging
import logging.config
import os

import structlog
import userlens_instrument as userlens

logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"userlens": {"class": "userlens_instrument.UserlensHandler"}},
    "root": {"level": "INFO", "handlers": ["userlens"]},
})
structlog.configure(processors=[
    structlog.contextvars.merge_contextvars,
    userlens.UserlensProcessor(),
    structlog.processors.JSONRenderer(),
])
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
        stdlib.info("File Exported", extra={**fields, "user_id": user})
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

# gunicorn's own log goes to standard error; these lines are for the test.
CONFIG = """
def post_worker_init(worker):
    print("a worker is up", flush=True)

def child_exit(server, worker):
    print("a worker is gone", flush=True)
"""


class Gunicorn(Program):
    """gunicorn with the application above, on a port of its own."""

    def __init__(self, folder, url, *options):
        (folder / "app.py").write_text(APP)
        (folder / "hooks.py").write_text(CONFIG)
        self.port = closed_port()
        self._seen = b""
        arguments = ["-m", "gunicorn", "--config=hooks.py", f"--workers={WORKERS}"]
        arguments += [f"--bind=127.0.0.1:{self.port}", "--worker-class=sync", *options, "app:app"]
        # HOME: gunicorn 25 and later put a control socket there.
        super().__init__(None, url, arguments=arguments, cwd=folder, HOME=str(folder))

    def wait_for_lines(self, line, number):
        """Read standard output until *line* has been printed *number* times in all."""
        while (missing := number - self._lines[line]) > 0:
            assert missing <= number
            self.wait_for(line)

    def finish(self):
        status, out, error = super().finish()
        return status, out + error


@pytest.fixture
def held(server):
    """Return the event that has *server* answer."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    yield release
    release.set()
