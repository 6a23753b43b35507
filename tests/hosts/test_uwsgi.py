"""
uWSGI, for real where it is installed (`pip install uwsgi` compiles it), and a stand-in of it.

It loads an application before it forks its workers, and forks in C: what
Python does around a fork does not happen there, unless uWSGI is told to.
"""

from __future__ import annotations

import os
import signal
import sys
import types
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from children import Program
from helpers import PATIENCE

from userlens_instrument._delivery import lifecycle, threads


UWSGI = Path(sys.executable).with_name("uwsgi")

real = pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed here")

APP = """
import logging, os, signal, socket, sys
import userlens_instrument as userlens
import uwsgi

logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(userlens.UserlensHandler())
diagnostics = logging.getLogger("userlens_instrument")
diagnostics.addHandler(logging.StreamHandler(sys.stdout))

def log(name, user):
    logger.info(name, extra={"userlens_event": True, "user_id": user})

def application(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    log("Request", f"u{os.getpid()}")
    if environ["PATH_INFO"] == "/flush":
        userlens.flush(20)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

log("Loaded", "loader")
own = socket.socket(fileno=os.dup(uwsgi.sockets[0]))
print(f"port={own.getsockname()[1]} threads={int(bool(uwsgi.has_threads))} ready", flush=True)
own.close()
"""

# All that it writes is in one place: its standard output is where it does not look for it.
EXEC = "import os, sys; os.dup2(1, 2); os.execv(sys.argv[1], sys.argv[1:])"


class Server(Program):
    """A uWSGI with the application above."""

    def __init__(self, folder, url, *options):
        (folder / "jobs.py").write_text(APP)
        arguments = ["-c", EXEC, str(UWSGI), "--http-socket=127.0.0.1:0", "--wsgi-file=jobs.py"]
        arguments += ["--master", "--need-app", "--die-on-term", "--no-orphans"]
        arguments += [f"--virtualenv={sys.prefix}"]
        # Its workers are not Pythons that coverage could start in.
        super().__init__(
            None,
            url,
            arguments=[*arguments, *options],
            cwd=folder,
            PYTHONPATH=os.pathsep.join(sys.path),
            USERLENS_SHUTDOWN_TIMEOUT=str(PATIENCE),
            COVERAGE_PROCESS_CONFIG="",
        )
        found = dict(word.split("=") for word in self.wait_for(" ready").split() if "=" in word)
        self.port = int(found["port"])
        self.has_threads = found["threads"] == "1"

    def wait_for(self, text, timeout=PATIENCE):
        line = b""
        while not line.decode().strip().endswith(text.strip()):
            line = self.process.stdout.readline()
            assert line, "it ended"
        return line.decode()

    def get(self, path="/"):
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert answer.read() == b"done"

    def stop(self):
        self.send_signal(signal.SIGTERM)
        return self.finish()


def names(server):
    return Counter(event["event"] for event in server.events)


@real
@pytest.mark.parametrize(
    "options",
    [[], ["--processes=2"], ["--lazy-apps"], ["--py-call-uwsgi-fork-hooks"]],
    ids=lambda options: " ".join(options) or "plain",
)
def test_with_threads_events_arrive_between_requests(server, tmp_path, options):
    """What was logged while the application was loaded, and in requests, arrives once, soon."""
    with Server(tmp_path, server.url, "--enable-threads", *options) as uwsgi:
        assert uwsgi.has_threads
        for _ in range(3):
            uwsgi.get()
        assert server.wait_for(4)
        status, out, _ = uwsgi.stop()

    assert status == 0, out
    assert {"Loaded": 1, "Request": 3} == names(server)
    assert "userlens_instrument" not in out


@pytest.mark.memory  # of a spool, one that is killed repeats what it had no time to delete
@real
def test_a_worker_that_comes_after_another_repeats_nothing(server, tmp_path):
    """A worker that dies is replaced by a copy of what was loaded, less the events of then."""
    with Server(tmp_path, server.url, "--enable-threads") as uwsgi:
        uwsgi.get()
        assert server.wait_for(2)
        with suppress(OSError):  # it does not answer that
            uwsgi.get("/die")
        uwsgi.get()
        assert server.wait_for(3)
        status, out, _ = uwsgi.stop()

    assert status == 0, out
    assert {"Loaded": 1, "Request": 2} == names(server)


@real
def test_without_threads_a_flush_delivers(server, tmp_path):
    """
    Where uWSGI lets no thread run between requests (before 2.0.29 or so, without
    --enable-threads), one line says what to do, and a flush in a request delivers.
    """
    with Server(tmp_path, server.url) as uwsgi:
        for _ in range(3):
            uwsgi.get()
        uwsgi.get("/flush")
        arrived = names(server)
        status, out, _ = uwsgi.stop()

    assert status == 0, out
    assert {"Loaded": 1, "Request": 4} == arrived
    assert (not uwsgi.has_threads) == ("uWSGI runs without threads" in out)


# ---------------------------------------------------------------- a stand-in


@pytest.fixture
def uwsgi(monkeypatch):
    """Return a stand-in, in the middle of loading an application."""
    module = types.ModuleType("uwsgi")
    module.has_threads = 1
    module.opt = {}
    module.number = 0
    module.worker_id = lambda: module.number
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setattr(lifecycle._process, "known_to_uwsgi", False)
    monkeypatch.setattr(threads, "_vetoes", [])
    return module


def test_no_thread_runs_before_the_fork(uwsgi, make_client, server):
    """
    Neither a sender nor a diagnostic starts a thread while the application is
    loaded; the first worker delivers what was logged then.
    """
    client = make_client()
    client.track("u1", "Loaded")
    client.track("", "Invalid")
    assert (0, 1) == (client.stats().threads, client.stats().pending)
    uwsgi.number = 1
    uwsgi.post_fork_hook()
    client.track("u1", "Request")

    assert client.flush(PATIENCE)
    assert client.stats().threads
    assert ["Loaded", "Request"] == [event["event"] for event in server.events]


@pytest.mark.memory  # from a spool, whichever worker comes first delivers it
def test_other_workers_start_clean(uwsgi, make_client, server):
    """What the first worker delivers, no other does; other hooks are called as ever."""
    called = []
    uwsgi.post_fork_hook = lambda: called.append("theirs")
    client = make_client()
    client.track("u1", "Loaded")
    uwsgi.number = 2
    uwsgi.post_fork_hook()
    client.track("u1", "Request")

    assert client.flush(PATIENCE)
    assert ["Request"] == [event["event"] for event in server.events]
    assert ["theirs"] == called


def test_a_flush_while_the_application_is_loaded_delivers_by_itself(uwsgi, make_client, server):
    """Without a thread, as elsewhere."""
    client = make_client()
    client.track("u1", "Loaded")

    assert client.flush(PATIENCE)
    assert (1, 0) == (len(server.events), client.stats().threads)


def test_without_threads_one_line_says_so(uwsgi, make_client, diagnostics_lines):
    """uWSGI without threads is one line that says what to do; a second client adds none."""
    uwsgi.has_threads = 0
    uwsgi.number = 1
    make_client()
    make_client(max_workers=2)

    assert "--enable-threads" in diagnostics_lines.get(timeout=PATIENCE)[1]
    assert diagnostics_lines.empty()
    assert not hasattr(uwsgi, "post_fork_hook")


def test_uwsgi_that_calls_pythons_hooks_is_left_alone(uwsgi, make_client, server):
    """With py-call-uwsgi-fork-hooks a fork is like any other."""
    uwsgi.opt = {"py-call-uwsgi-fork-hooks": True}
    client = make_client()
    client.track("u1", "Loaded")

    assert server.wait_for(1)
    assert not hasattr(uwsgi, "post_fork_hook")


def test_a_module_of_that_name_that_is_something_else(monkeypatch, uwsgi, make_client, server):
    """Whatever is called uwsgi breaks nothing."""
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    client = make_client()
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
