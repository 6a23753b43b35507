"""What we ask of hosts that are odd, told by stand-ins; the real ones are in tests/hosts."""

from __future__ import annotations

import _thread
import functools
import sys
import threading
import types

import pytest
from helpers import PATIENCE

from userlens_instrument._delivery import lifecycle, threads
from userlens_instrument._delivery.errands import Errands


class Signal:
    """Stands in for one of Celery's."""

    def __init__(self, error=None):
        self.receivers = {}
        self.error = error

    def connect(self, receiver, *, weak, dispatch_uid):
        if self.error is not None:
            raise self.error
        assert not weak
        assert dispatch_uid not in self.receivers
        self.receivers[dispatch_uid] = receiver

    def send(self):
        for receiver in self.receivers.values():
            receiver(signal=self, sender="worker1", pid=1, exitcode=0)


@pytest.fixture
def celery(monkeypatch):
    """Return a function that puts a stand-in of `celery.signals` in place."""
    monkeypatch.setattr(lifecycle._process, "known_to_celery", False)

    def put(**names):
        module = types.ModuleType("celery.signals")
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, "celery.signals", module)

    return put


def test_celery_is_told_once(celery, make_client, monkeypatch):
    """However many clients there are, one receiver of ours does what the exit hook does."""
    exits = []
    monkeypatch.setattr(lifecycle, "_at_exit", lambda: exits.append("exit"))
    signal = Signal()
    celery(worker_process_shutdown=signal)
    make_client()
    make_client(max_workers=2)
    signal.send()

    assert ["exit"] == exits


def test_celery_imported_after_the_client_is_told_before_a_fork(celery, make_client):
    """The order of imports does not matter: the parent is told before it forks a child."""
    celery()  # half imported, say
    make_client()
    signal = Signal()
    celery(worker_process_shutdown=signal)
    lifecycle._before_fork()
    lifecycle._after_fork_in_parent()

    assert {"userlens_instrument": lifecycle._at_celery_exit} == signal.receivers


def test_a_celery_that_has_changed_breaks_nothing(celery, make_client):
    """What its signals raise one day is not the application's to see."""
    celery(worker_process_shutdown=Signal(error=TypeError("an argument too many")))

    assert make_client().stats().accepted == 0


def test_celery_is_never_imported(make_client, monkeypatch):
    """Who does not use it does not pay for it."""
    monkeypatch.delitem(sys.modules, "celery.signals", raising=False)
    monkeypatch.setattr(lifecycle._process, "known_to_celery", False)
    make_client()

    assert "celery.signals" not in sys.modules


@pytest.mark.parametrize("patched", [True, False])
def test_gevent_loads_early_what_it_cannot_load_at_the_exit(make_client, monkeypatch, patched):
    """Only where its patches are in place."""
    calls = []

    class Hub:
        threadpool = types.SimpleNamespace(spawn=calls.append)

        @property
        def resolver(self):
            calls.append("resolver")

    package, monkey = types.ModuleType("gevent"), types.ModuleType("gevent.monkey")
    package.get_hub = Hub
    monkey.is_module_patched = lambda name: patched and name == "socket"
    monkeypatch.setitem(sys.modules, "gevent", package)
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    make_client()

    assert (["resolver", int] if patched else []) == calls


@pytest.fixture
def patch_threads(monkeypatch):
    """Return a function that does to threads what tells that gevent was patched in."""

    def patch():
        monkeypatch.setattr(_thread, "get_ident", functools.partial(_thread.get_ident))

    return patch


def test_threads_of_before_a_patch_end(make_client, server, patch_threads):
    """
    Once gevent or eventlet is patched in, the sender's threads end as soon as
    they are through with what they are at, and what comes next is its own kind.
    """
    client = make_client(max_workers=2)
    client.track("u1", "First")
    assert client.flush(PATIENCE)
    before = {one for one in threading.enumerate() if one.name == "userlens-sender"}
    lock = client.sender._lock
    patch_threads()
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    for thread in before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert client.sender._lock is not lock
    assert ["First", "Second"] == [event["event"] for event in server.events]


def test_errands_after_a_patch_wait_on_a_bell_of_its_kind(patch_threads):
    """The old bell would stop every greenlet; what was put meanwhile is done."""
    done = threading.Event()
    errands = Errands("userlens-test", lambda item: done.set())
    bell = errands._bell
    patch_threads()
    errands.put("an item")

    assert done.wait(PATIENCE)
    assert errands._bell is not bell


def test_the_mark_is_a_greenlets_own_after_a_patch(monkeypatch):
    """What was a thread's own is all greenlets': so the mark moves to what is a greenlet's own."""

    class Local(threading.local):
        """Stands in for gevent's."""

    monkeypatch.setattr(threading, "local", Local)
    threads._late_mark.cache_clear()
    with threads.lent_thread():
        assert threads.is_own_thread()
        assert not threads.own_thread.ours

    assert not threads.is_own_thread()


def test_a_thread_that_a_patch_has_renamed_ends_quietly(monkeypatch):
    """`threading` finds an entry under the new number; others are left as they are."""

    class Local(threading.local):
        """Stands in for gevent's."""

    threads.end_of_thread()
    monkeypatch.setattr(threading, "local", Local)
    monkeypatch.setattr(threading, "get_ident", lambda: -1)
    threads.end_of_thread()

    assert threading._active.pop(-1) is threading.main_thread()
