"""
Fork, exit and SIGTERM: what has to happen once for a process, for every sender in it.

The hooks are registered when the first entrance or client is made, never by
``import userlens_instrument``, and hold their senders by weak references: a
hook cannot be unregistered, and must not keep a dead client alive.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from userlens_instrument._delivery import diagnostics
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._delivery.threads import unmark_own_thread, veto_threads
from userlens_instrument._delivery.transport import is_loaded, load_before_fork


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from userlens_instrument._delivery.sender import Sender


# Seconds for the last lines of diagnostics, past the deadline of delivery.
_LAST_WORDS = 0.25
# Seconds for which each of several senders is waited for at first, at most.
_SHARE = 1.0
# Seconds between two signals to a main thread that has not heard the first.
_AGAIN = 0.05


class _Process:
    """What is known of the running process."""

    def __init__(self) -> None:
        self.senders: weakref.WeakKeyDictionary[Sender, float] = weakref.WeakKeyDictionary()
        self.fork_hooks: list[Callable[[], None]] = []
        self.held_for_fork: list[threading.Lock] = []
        self.exiting = False
        self.known_to_multiprocessing = False
        self.known_to_celery = False
        self.known_to_uwsgi = False
        self.terminated = threading.Event()
        self.handed_on = threading.Event()


_process = _Process()


def register(sender: Sender, shutdown_timeout: float) -> None:
    """
    Have *sender* reset in forked children and finished at exit.

    Args:
        sender: Kept by a weak reference.
        shutdown_timeout: How long the exit may wait for it, in seconds.
    """
    _process.senders[sender] = shutdown_timeout
    _tell_multiprocessing()
    _tell_celery()
    _tell_uwsgi()
    _ready_gevent()
    if _process.exiting or is_in_exit_hook():
        sender.finish_at_exit(shutdown_timeout, _last_words)


def is_in_exit_hook() -> bool:
    """
    Return whether this is the main thread on its way out.

    A client that is made there comes too late for a hook of ours: Python calls
    none that is registered by another. A thread that outlives the main one has
    all the time in the world, and our hook after it.
    """
    main = threading.main_thread()
    return not main.is_alive() and main.ident == threading.get_ident()


def _tell_multiprocessing() -> None:
    """
    Have the exit hook run in children of multiprocessing, too.

    They end by `os._exit`: those that fork and forkserver make run no exit
    hooks before Python 3.13, but finalizers of their own.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is None or _process.known_to_multiprocessing:
        return
    _process.known_to_multiprocessing = True
    # A child starts by forgetting its parent's finalizers, and then calls this.
    util.register_after_fork(_process, _add_finalizer)
    if sys.modules["multiprocessing.process"].parent_process() is not None:
        _add_finalizer(_process)


def _add_finalizer(process: _Process) -> None:  # noqa: ARG001 - multiprocessing's signature
    # After all others (theirs are -5 and up), which may still log.
    sys.modules["multiprocessing.util"].Finalize(None, _at_exit, exitpriority=-100)


def _tell_celery() -> None:
    """
    Have the exit hook run in the prefork children of Celery, too.

    They end by `os._exit` after that signal, whether the worker shuts down or
    a child has had its number of tasks, and run neither exit hooks nor finalizers.
    """
    # Who has not imported it has no such children.
    signals = sys.modules.get("celery.signals")
    ends = getattr(signals, "worker_process_shutdown", None)  # it may be half imported
    if ends is None or _process.known_to_celery:
        return
    with suppress(Exception):  # nothing here may raise, whatever Celery makes of it one day
        ends.connect(_at_celery_exit, weak=False, dispatch_uid="userlens_instrument")
        _process.known_to_celery = True


def _at_celery_exit(**kwargs: object) -> None:  # noqa: ARG001 - Celery's signature
    # Celery catches what this raises. What receivers after this one log is
    # delivered before the log call returns, as after the exit hook.
    _at_exit()


def _tell_uwsgi() -> None:
    """
    Live with uWSGI's forks; and say so, if it lets no thread run.

    It forks in C: hooks of `os.register_at_fork` are not called, unless it is
    told to (py-call-uwsgi-fork-hooks), and a thread that has the interpreter's
    lock just then leaves it taken in the worker, which hangs for good (seen
    with 2.0.31). So no thread is started while it loads the application, and
    its first worker delivers what was logged then.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or _process.known_to_uwsgi:
        return
    _process.known_to_uwsgi = True
    with suppress(Exception):  # it may be a stand-in, for tests
        if uwsgi.worker_id() == 0 and not uwsgi.opt.get("py-call-uwsgi-fork-hooks"):
            load_before_fork()
            master = os.getpid()
            veto_threads(lambda: os.getpid() == master and not uwsgi.worker_id())
            uwsgi.post_fork_hook = _in_uwsgi_worker(uwsgi, getattr(uwsgi, "post_fork_hook", None))
        if not uwsgi.has_threads:
            voice.say(
                "uwsgi",
                "uWSGI runs without threads: events are held, and lost with the worker; start it "
                "with --enable-threads, or call userlens_instrument.flush() in each request",
            )


def _in_uwsgi_worker(uwsgi: Any, others: Callable[[], object] | None) -> Callable[[], None]:
    import mmap  # noqa: PLC0415 - nobody else needs it

    # Shared by all forks. A worker that dies is replaced by another copy.
    taken = mmap.mmap(-1, 1)

    def hook() -> None:
        with suppress(Exception):
            if uwsgi.worker_id() != 1 or taken[0]:
                _after_fork_in_child()
            else:
                taken[0] = 1
            for sender, _ in _senders():
                sender.ring()
            _last_words()
        if others is not None:
            others()

    return hook


def _ready_gevent() -> None:
    """
    Have gevent load now what it resolves names with.

    It does so at the first name, and cannot at the exit any more: a program
    that logs and ends would lose its events.
    """
    monkey = sys.modules.get("gevent.monkey")
    with suppress(Exception):
        if monkey is not None and monkey.is_module_patched("socket"):
            hub = sys.modules["gevent"].get_hub()
            _ = hub.resolver
            hub.threadpool.spawn(int)


def on_fork(hook: Callable[[], None]) -> None:
    """Have *hook* called in forked children, after the senders are reset."""
    _process.fork_hooks.append(hook)


def _before_fork() -> None:
    # A line that is half-way through a host's handler holds the lock of a file
    # buffer, which Python does not free in the child: its next line would hang.
    load_before_fork()
    # Here, not in the child: its signals have a lock, which may be held at the fork.
    _tell_celery()
    for sender, _ in _senders():
        _process.held_for_fork += sender.hold_for_fork(_LAST_WORDS)
    voice.pause(_LAST_WORDS)


def _after_fork_in_parent() -> None:
    voice.resume()
    while _process.held_for_fork:
        _process.held_for_fork.pop().release()


def _after_fork_in_child() -> None:
    # Nothing here logs, starts a thread, or takes a lock that may have been held.
    unmark_own_thread()
    diagnostics.forget_inherited()
    # Each sender makes its own anew.
    _process.held_for_fork.clear()
    _process.exiting = False
    _process.terminated = threading.Event()
    _process.handed_on = threading.Event()
    for act in (*(sender.reset_after_fork for sender, _ in _senders()), *_process.fork_hooks):
        with suppress(Exception):  # a transport of the application's keeps no other from it
            act()
    _tell_multiprocessing()


def _at_exit() -> None:
    """Deliver what is held, all senders side by side, each within its deadline."""
    _process.exiting = True
    was_loaded = is_loaded()
    try:
        _finish_all(lambda sender, seconds: sender.finish_at_exit(seconds, _last_words))
    except KeyboardInterrupt:
        # Whoever presses Ctrl+C has waited enough: what is left is counted and
        # said, as at the end of the time.
        for sender, _ in _senders():
            sender.finish_at_exit(0.0, _last_words)
        _last_words()
    if not was_loaded:
        _keep_status()


def _keep_status() -> None:
    """
    Have a program that Ctrl+C has ended die of SIGINT, as it would without us.

    CPython takes note of that while it runs text (a script, exec), and forgets
    it when it next does. A namedtuple's class is made of text, so to load what
    the first delivery needs, in the exit, made 1 of the status 130 by which a
    shell knows to stop, too.
    """
    if getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1"):
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - see above


def _finish_all(finish: Callable[[Sender, float], object]) -> None:
    started = time.monotonic()
    senders = _senders()
    for sender, _ in senders:
        sender.hurry()
    if len(senders) > 1:
        # Without threads each delivers only while it is waited for: one whose
        # server is gone must not take the time of them all.
        for sender, timeout in senders:
            sender.flush(min(_SHARE, timeout / (2 * len(senders))))
    for sender, timeout in senders:
        finish(sender, max(0.0, started + timeout - time.monotonic()))
    _last_words()


def _senders() -> list[tuple[Sender, float]]:
    # keyrefs() is one step; to loop over the dictionary while another thread
    # makes a client is an error.
    found = [ref() for ref in _process.senders.keyrefs()]
    return [(one, _process.senders[one]) for one in found if one is not None]


def _last_words() -> None:
    voice.drain(_LAST_WORDS)


# Both stay registered for good; neither does anything for a process that has
# no sender.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX, where there is a fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def flush_on_sigterm() -> None:
    """
    Deliver what is held when SIGTERM comes, then die of it as if nobody had listened.

    Only where nobody else handles SIGTERM, and only on the main thread (Python
    sets no handler anywhere else); otherwise one line says so.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        if signal.getsignal(signal.SIGTERM) is not _on_sigterm:
            voice.say(
                "sigterm",
                "flush_on_sigterm has no effect: the application handles SIGTERM itself; "
                "call userlens_instrument.flush() there",
            )
        return
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # not on the main thread of the main interpreter
        voice.say(
            "sigterm",
            "flush_on_sigterm has no effect: configure() was not called on the main thread",
        )


def _on_sigterm(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's call
    # This interrupts the main thread anywhere, perhaps within a lock of ours:
    # the work is another thread's, and this one goes on with what it was at.
    if _process.terminated.is_set():
        _process.handed_on.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return
    try:
        threading.Thread(target=_terminate, name="userlens-sigterm", daemon=True).start()
    except RuntimeError:  # no thread is to be had
        _terminate()


def _terminate() -> None:
    _finish_all(lambda sender, seconds: sender.finish(seconds))
    _process.terminated.set()
    # Once more, and to the main thread: only there can the handler be taken away.
    # And again until it is: a signal that comes just before a system call that
    # blocks does not interrupt it.
    heard = False
    while not heard:
        signal.pthread_kill(_main_thread_id(), signal.SIGTERM)
        heard = _process.handed_on.wait(_AGAIN)


def _main_thread_id() -> int:
    ident = threading.main_thread().ident
    assert ident is not None  # noqa: S101 - it runs
    return ident
