"""After os.fork the child starts clean, whatever the parent was at; nothing is delivered twice."""

from __future__ import annotations

import gc
import io
import logging
import os
import socket
import stat
import sys
import textwrap
import threading
import weakref
from collections import Counter
from contextlib import contextmanager, suppress

import pytest
from children import in_fork, run_file, run_reporting
from helpers import PATIENCE, SPOOLED, Reply, run_python, until

from userlens_instrument import UserlensHandler
from userlens_instrument import client as client_module
from userlens_instrument._delivery import diagnostics, lifecycle
from userlens_instrument.testing import CapturingTransport


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def names(server):
    return Counter(event["event"] for event in server.events)


def log_some(client, number=5, prefix="Child", user="child"):
    """Log *number* events and deliver them; return whether they were, and the statistics."""
    for one in range(number):
        client.track(user, f"{prefix} {one}")
    delivered = client.flush(PATIENCE)
    stats = client.stats()
    # With a spool it is the parent that delivers what is in it.
    return [delivered, stats.accepted, stats.delivered + stats.spooled, stats.pending]


class Unforgetting(CapturingTransport):
    """Of an application: raises in a forked child."""

    def forget(self):
        raise RuntimeError("no")


def test_a_transport_that_raises_keeps_no_other_client_from_its_fresh_start(make_client):
    """Nor from the hooks: whoever reads figures in the child reads the child's."""
    bad = make_client(transport=Unforgetting())
    good = make_client(transport=CapturingTransport())
    bad.track("u1", "Parent")
    good.track("u1", "Parent")
    assert bad.flush(PATIENCE)
    assert good.flush(PATIENCE)

    assert [0, 0] == in_fork(lambda: [one.stats().accepted for one in (bad, good)])


def hold_the_parent(server):
    """Have *server* hold each request of the parent until the event that is returned is set."""
    release = threading.Event()
    server.script = lambda request: Reply(
        hold=release if request.json["userId"] == "parent" else None
    )
    return release


@contextmanager
def held_by_another_thread(lock):
    """Have a thread of its own hold *lock*."""
    held, release = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    try:
        yield
    finally:
        release.set()
        thread.join()


LOCKS = {
    "sender": lambda client: client.sender._lock,
    "ledger": lambda client: client.sender.ledger._lock,
    "voice": lambda client: diagnostics.voice._writing,
    "registry": lambda client: client_module.registry.lock,
    "a host's handler": lambda client: logging.getLogger("app").handlers[0].lock,
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_fork_in_the_middle_of_a_request_with_any_lock_held(make_client, server, name):
    """
    The child delivers its own, the parent its own, each event once, though a
    request was on its way and another thread held a lock at the fork.
    """
    if SPOOLED and name == "sender":
        pytest.skip("with a spool it is the parent that delivers, and it has not got its lock")
    release = hold_the_parent(server)
    client = make_client()
    logger = logging.getLogger("app")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    handler = UserlensHandler(client=client)
    logger.addHandler(handler)
    try:
        for number in range(5):
            client.track("parent", f"Parent {number}")
        assert server.wait_for(1)

        def child():
            logger.warning("Logged", extra={"userlens_event": True, "user_id": "child"})
            client_module.stats()
            return [*log_some(client), client_module.shared_client(client.settings) is not None]

        with held_by_another_thread(LOCKS[name](client)):
            result = in_fork(child)
        release.set()

        assert [True, 6, 6, 0, True] == result
        assert client.flush(PATIENCE)
        expected = [f"Child {n}" for n in range(5)] + [f"Parent {n}" for n in range(5)]
        assert Counter([*expected, "Logged"]) == names(server)
    finally:
        logger.handlers.clear()


IMPORTING = """
import importlib.abc, os, sys, threading
import userlens_instrument as userlens

assert "email.message" not in sys.modules
started = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "email.message":
            started.set()
            threading.Event().wait(0.3)

client = userlens.configure()
sys.meta_path.insert(0, Slow())
threading.Thread(target=lambda: __import__("email.message")).start()
started.wait()
child = os.fork()
if not child:
    client.track("child", "Child")
    os._exit(0 if client.flush(10) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_while_another_thread_imports_what_a_request_needs(server):
    """The child has the lock of that module, and nobody who gives it back; it needs none."""
    process = run_python(IMPORTING, server.url, COVERAGE_PROCESS_CONFIG="")

    assert (0, "") == (process.returncode, process.stderr)
    assert Counter(["Child"]) == names(server)


def test_a_fork_loads_nothing_for_a_client_that_sends_nothing(server):
    """A dry run needs no connections; a fork costs it nothing."""
    code = """
import os, sys
import userlens_instrument as userlens
userlens.configure(dry_run=True)
if not os.fork():
    os._exit(0)
os.wait()
sys.exit("urllib3" in sys.modules)
"""
    assert 0 == run_python(code, server.url).returncode


def test_a_child_of_an_idle_parent(make_client, server):
    """A parent whose worker sleeps on the bell has a child that delivers all the same."""
    client = make_client()
    client.track("parent", "Parent")
    assert client.flush(PATIENCE)
    until(lambda: client.sender._sleeping)

    assert [True, 5, 5, 0] == in_fork(lambda: log_some(client))
    assert Counter(["Parent", *(f"Child {n}" for n in range(5))]) == names(server)


def test_a_child_starts_with_nothing(make_client, server):
    """At its start a child has no thread of ours, holds nothing, and has counted nothing."""
    release = hold_the_parent(server)
    client = make_client()
    for _ in range(3):
        client.track("parent", "Parent")
    client.track("", "Invalid")
    assert server.wait_for(1)

    def child():
        stats = client.stats()
        return [
            [thread.name for thread in threading.enumerate()],
            [stats.accepted, stats.delivered, stats.pending, stats.pending_bytes, stats.threads],
            dict(stats.invalid),
            client_module.stats().accepted,
        ]

    assert [[threading.current_thread().name], [0, 0, 0, 0, 0], {}, 0] == in_fork(child)
    release.set()


def connections_to(port):
    """Return how many connections to loopback *port* this process has open."""
    found = 0
    for descriptor in range(256):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    found += copy.getpeername()[1] == port
    return found


def test_a_child_has_none_of_its_parents_connections(make_client, server):
    """Neither an idle connection nor the one of a request on its way stays open in a child."""
    release = hold_the_parent(server)
    client = make_client()
    client.track("other", "Other")
    assert client.flush(PATIENCE)  # an idle connection
    client.track("parent", "First")
    assert server.wait_for(2)
    client.track("parent", "Second")
    at_parent = connections_to(server.port)

    assert at_parent >= 1
    assert 0 == in_fork(lambda: connections_to(server.port))
    assert at_parent == connections_to(server.port)
    release.set()
    assert client.flush(PATIENCE)
    assert {"Other": 1, "First": 1, "Second": 1} == names(server)


def test_a_fork_within_a_fork_within_a_fork(make_client, server):
    """Three deep, each process delivers its own."""
    release = hold_the_parent(server)
    client = make_client()
    client.track("parent", "Parent")
    assert server.wait_for(1)

    def generation(depth):
        client.track(f"u{depth}", f"Before {depth}")
        below = in_fork(lambda: generation(depth + 1)) if depth < 3 else []
        return [log_some(client, 2, f"Depth {depth}"), *below]

    result = in_fork(lambda: generation(1))
    release.set()

    assert [[True, 3, 3, 0]] * 3 == result
    assert client.flush(PATIENCE)
    expected = [f"Depth {d} {n}" for d in (1, 2, 3) for n in (0, 1)]
    assert Counter([*expected, "Parent", "Before 1", "Before 2", "Before 3"]) == names(server)


def test_a_fork_from_a_thread(make_client, server):
    """A child that a thread has forked delivers its own."""
    client = make_client()
    client.track("parent", "Parent")
    results = []
    thread = threading.Thread(target=lambda: results.append(in_fork(lambda: log_some(client))))
    thread.start()
    thread.join()

    assert [[True, 5, 5, 0]] == results
    assert client.flush(PATIENCE)
    assert Counter(["Parent", *(f"Child {n}" for n in range(5))]) == names(server)


def test_a_fork_from_on_error(make_client, server):
    """A child forked on a thread of ours is the application's: its tagged lines are events."""
    results, told = [], threading.Event()
    server.script = lambda request: Reply(status=400 if "Poison" in str(request.json) else 200)

    def child():
        logging.getLogger("app").warning("L", extra={"userlens_event": True, "user_id": "u2"})
        return log_some(client, 1)

    def on_error(loss):
        results.append(in_fork(child))
        told.set()

    client = make_client(on_error=on_error)
    logging.getLogger().addHandler(UserlensHandler(client=client))
    client.track("u1", "Poison")

    assert told.wait(PATIENCE)
    assert [[True, 2, 2, 0]] == results
    assert {"Poison": 1, "L": 1, "Child 0": 1} == names(server)


class _Halfway(logging.Handler):
    """A handler of the application, in the middle of a line of ours until told to go on."""

    def __init__(self):
        super().__init__()
        self.entered, self.go, self.busy = threading.Event(), threading.Event(), False

    def emit(self, record):
        self.busy = True
        self.entered.set()
        self.go.wait(PATIENCE)
        self.busy = False


@pytest.fixture
def halfway():
    handler = _Halfway()
    logging.getLogger("userlens_instrument").addHandler(handler)
    diagnostics.voice.say(None, "A line")
    assert handler.entered.wait(PATIENCE)
    yield handler
    handler.go.set()
    logging.getLogger("userlens_instrument").removeHandler(handler)


def test_a_fork_waits_for_a_line_that_is_being_written(make_client, halfway, monkeypatch):
    """
    No child starts half-way through a line of ours: the lock of a file buffer,
    held by the thread that writes, would stay held in the child for good.
    """
    client = make_client()
    writing = diagnostics.voice._writing

    class Lock:
        def acquire(self, timeout):
            halfway.go.set()  # the fork has come this far
            return writing.acquire(timeout=PATIENCE)

        def release(self):
            writing.release()

    monkeypatch.setattr(diagnostics.voice, "_writing", Lock())

    assert [False, [True, 5, 5, 0]] == in_fork(lambda: [halfway.busy, log_some(client)])
    assert writing.acquire(timeout=PATIENCE)
    writing.release()


def test_a_fork_does_not_wait_for_ever_for_a_line_that_hangs(make_client, halfway, monkeypatch):
    """A handler of the application that hangs on a line of ours does not keep it from forking."""
    monkeypatch.setattr(lifecycle, "_LAST_WORDS", 0.01)
    client = make_client()

    assert [True, [True, 5, 5, 0]] == in_fork(lambda: [halfway.busy, log_some(client)])
    assert not diagnostics.voice._writing.acquire(blocking=False), "it is still writing"


def test_fifty_forks_under_load(make_client, server):
    """While four threads log, fifty children each deliver their own; every event arrives once."""
    client = make_client()
    stop = threading.Event()
    logged = [0, 0, 0, 0]

    def log(which):
        while not stop.is_set():
            if client.stats().pending < 50:  # as fast as the server takes them
                client.track(f"parent{which}", f"Parent {which} {logged[which]}")
                logged[which] += 1

    threads = [threading.Thread(target=log, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(50):
            work = lambda n=number: log_some(client, 1, f"Child {n}")  # noqa: E731
            assert [True, 1, 1, 0] == in_fork(work)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert client.flush(PATIENCE * 3)
    parents = Counter(f"Parent {which} {n}" for which in range(4) for n in range(logged[which]))
    assert parents + Counter(f"Child {number} 0" for number in range(50)) == names(server)
    stats = client.stats()
    assert sum(logged) == stats.delivered - stats.recovered


def test_hooks_keep_no_client_alive(server):
    """A hundred clients that nobody holds are gone: neither fork nor exit hooks keep them."""
    made = []
    for number in range(100):
        client = client_module.Client(
            client_module.Settings(write_code=f"code{number}", events_url=server.url)
        )
        made += [weakref.ref(client), weakref.ref(client.sender)]
    del client
    gc.collect()

    assert [] == [one for one in made if one() is not None]


def test_a_child_that_ends_normally_delivers_its_own(server):
    """A forked child that returns from main delivers what it logged, and only that."""
    process, report = run_reporting(
        """
import os
attach()
log("Parent")
child = os.fork()
if not child:
    for number in range(20):
        log(f"Child {number}")
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
""",
        server.url,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (0, "") == (process.returncode, process.stderr)
    assert (21 if SPOOLED else 1) == report["delivered"]
    assert Counter(["Parent", *(f"Child {n}" for n in range(20))]) == names(server)


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 does not fork at its exit")
def test_a_fork_in_an_exit_hook(server):
    """A child forked in an exit hook of the parent delivers its own."""
    process, report = run_reporting(
        """
import os

@atexit.register
def fork():
    child = os.fork()
    if not child:
        log("Child")
        os._exit(0 if userlens.flush() else 1)
    _, status = os.waitpid(child, 0)
    log(f"Child ended with {status}")

attach()
log("Parent")
""",
        server.url,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (0, "") == (process.returncode, process.stderr)
    # From a spool either of the two may deliver the child's.
    assert report["delivered"] in ((2, 3) if SPOOLED else (2,))
    assert {"Parent": 1, "Child": 1, "Child ended with 0": 1} == names(server)


MULTIPROCESSING = textwrap.dedent("""
    import multiprocessing
    import sys
    from concurrent.futures import ProcessPoolExecutor

    import userlens_instrument as userlens

    def task(number, flush):
        for one in range(10):
            userlens.track(f"u{number}", f"Task {number} {one}")
        if flush:
            assert userlens.flush()

    if __name__ == "__main__":
        how, method = sys.argv[1:]
        context = multiprocessing.get_context(method)
        userlens.track("parent", "Parent")
        if how == "pool":
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(task, range(3), [False] * 3))
        elif how == "recycled":
            with context.Pool(2, maxtasksperchild=1) as pool:
                pool.starmap(task, [(number, False) for number in range(3)], chunksize=1)
                pool.close()
                pool.join()
        elif how == "terminated":
            # Without close() and join() a pool kills its children.
            with context.Pool(2) as pool:
                pool.starmap(task, [(number, True) for number in range(3)], chunksize=1)
        else:
            processes = [
                context.Process(target=task, args=(number, how == "flush")) for number in range(3)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
                assert process.exitcode == 0
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("how", ["flush", "return", "pool", "recycled", "terminated"])
def test_multiprocessing(server, tmp_path, how, method):
    """
    Children of multiprocessing and of process pools deliver their own,
    whether their task ends with flush() or just returns, on every Python and
    with every way to start them (children that fork make run no exit hooks
    before Python 3.13); those of a `multiprocessing.Pool`, too, unless it is
    terminated: that kills them, and only what was flushed is delivered.
    """
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    # A busy machine takes its time to load what the first request needs.
    patience = {"USERLENS_SHUTDOWN_TIMEOUT": str(PATIENCE)}
    process = run_file(program, how, method, url=server.url, **patience)

    assert (0, "") == (process.returncode, process.stderr)
    assert Counter(
        ["Parent", *(f"Task {number} {one}" for number in range(3) for one in range(10))]
    ) == names(server)
