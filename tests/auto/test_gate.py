"""The gate: loads the entrances with the first line that needs them, and loses none meanwhile."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import UserDict

import pytest
from children import in_fork
from helpers import PATIENCE
from wrapping import run_code

from userlens_instrument import processors
from userlens_instrument._auto import gate as gate_module
from userlens_instrument._auto.gate import TAG, Gate, is_under_way, of_thread, say, skip_record


def tagged(name="x"):
    return logging.makeLogRecord({"msg": name, TAG: True})


class Entrances:
    """Keeps what it takes; is made as often as *fails* says without success."""

    def __init__(self, gate=None, fails=0, while_made=lambda: None):
        self.taken = []
        self.made = 0
        self._fails = fails
        self._while_made = while_made
        if gate is not None:
            gate.open(self.make)

    def make(self):
        self.made += 1
        self._while_made()
        if self.made <= self._fails:
            raise ImportError("half imported")
        return (
            lambda record: self.taken.append(record.msg),
            lambda logger, name, line: self.taken.append(dict(line)),
        )


@pytest.fixture
def gate():
    return Gate()


def test_the_tag_is_the_one_of_the_entrances():
    """It is written down here once more, because they are heavy to import."""
    assert processors.TAG == TAG


def test_a_closed_gate_takes_nothing(gate):
    """As it is before `install`, and after `uninstall`."""
    gate.take_record(tagged())
    entrances = Entrances(gate)
    gate.close()
    gate.take_record(tagged())
    gate.take_line(None, "info", {TAG: True})

    assert (0, []) == (entrances.made, entrances.taken)


class Angry(UserDict):
    def __contains__(self, key):
        raise ValueError


LINES = [
    ({"msg": "x", TAG: None}, True),
    ({"msg": {TAG: "x"}}, True),
    ({"msg": UserDict({TAG: "x"})}, True),
    ({"msg": "x", "args": {TAG: "x"}}, True),
    ({"msg": Angry()}, True),
    ({"msg": "x", "args": (1,)}, False),
    ({"msg": {"event": "x"}}, False),
    ({"msg": None}, False),
    ({"msg": TAG}, False),
]


@pytest.fixture
def not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "userlens_instrument.client")


@pytest.mark.parametrize(("fields", "matters"), LINES)
@pytest.mark.usefixtures("not_imported")
def test_without_rules_only_a_tag_matters(gate, fields, matters):
    """What has none loads nothing, wherever it would stand."""
    entrances = Entrances(gate)
    gate.take_record(logging.makeLogRecord(fields))

    assert int(matters) == entrances.made == len(entrances.taken)


@pytest.mark.parametrize(
    ("line", "matters"),
    [({TAG: 1}, True), (UserDict({TAG: 1}), True), ({"event": "x"}, False), ("text", False)],
)
@pytest.mark.usefixtures("not_imported")
def test_without_rules_only_a_tag_matters_on_lines(gate, line, matters):
    """Of structlog, too; what is text already has none."""
    entrances = Entrances(gate)
    gate.take_line(None, "info", line)

    assert int(matters) == entrances.made == len(entrances.taken)


@pytest.mark.usefixtures("not_imported")
def test_with_rules_every_line_matters(gate, monkeypatch):
    """Which ones, only the entrances know. The environment is asked once."""
    monkeypatch.setenv("USERLENS_RULES", "rules.toml")
    entrances = Entrances(gate)
    gate.take_record(logging.makeLogRecord({"msg": "x"}))

    assert ["x"] == entrances.taken


def test_a_program_that_has_a_client_may_have_rules(gate):
    """It may have given them to configure()."""
    entrances = Entrances(gate)
    gate.take_record(logging.makeLogRecord({"msg": "x"}))

    assert ["x"] == entrances.taken


def test_what_is_logged_while_loading_is_taken_afterwards(gate):
    """By a signal handler, or an object that is collected, on the thread that loads."""

    def log():
        gate.take_record(tagged("inner"))
        gate.take_line(logging.getLogger("billing"), "info", {"event": "line", TAG: True})
        gate.take_line(None, "info", Angry())

    entrances = Entrances(gate, while_made=log)
    gate.take_record(tagged("outer"))
    of_thread.repeats, repeats = None, of_thread.repeats

    assert 1 == entrances.made
    assert ["inner", {"event": "line", TAG: True}, "outer"] == entrances.taken
    assert ("billing", None, None) == repeats


def test_another_thread_waits_for_the_one_that_loads(gate):
    """And loads nothing a second time."""
    loading, finish = threading.Event(), threading.Event()

    def wait():
        loading.set()
        finish.wait(PATIENCE)

    entrances = Entrances(gate, while_made=wait)
    threads = [
        threading.Thread(target=gate.take_record, args=(tagged(name),)) for name in ("a", "b")
    ]
    threads[0].start()
    loading.wait(PATIENCE)
    threads[1].start()
    finish.set()
    for thread in threads:
        thread.join()

    assert 1 == entrances.made
    assert ["a", "b"] == sorted(entrances.taken)


def test_another_thread_does_not_wait_for_ever(gate, monkeypatch):
    """Its line is taken by the one that loads; no log call waits longer than a moment."""
    monkeypatch.setattr(gate_module, "_PATIENCE", 0.01)
    loading, finish = threading.Event(), threading.Event()

    def wait():
        loading.set()
        finish.wait(PATIENCE)

    entrances = Entrances(gate, while_made=wait)
    thread = threading.Thread(target=gate.take_record, args=(tagged("a"),))
    thread.start()
    loading.wait(PATIENCE)
    gate.take_record(tagged("b"))
    monkeypatch.setattr(gate_module, "_PATIENCE", 10 * PATIENCE)
    gate.take_record(tagged("c"))  # does not wait at all any more
    assert [] == entrances.taken

    finish.set()
    thread.join()
    assert ["b", "c", "a"] == entrances.taken


def test_what_waits_is_bounded(gate, monkeypatch, diagnostics_lines):
    """A thread that never gets on costs no memory: capturing is given up, which is told once."""
    monkeypatch.setattr(gate_module, "_PATIENCE", 0.01)
    monkeypatch.setattr(gate_module, "_MOST_WAITING", 3)
    loading, finish = threading.Event(), threading.Event()

    def wait():
        loading.set()
        finish.wait(PATIENCE)

    entrances = Entrances(gate, while_made=wait)
    thread = threading.Thread(target=gate.take_record, args=(tagged("a"),))
    thread.start()
    loading.wait(PATIENCE)
    for _ in range(6):
        gate.take_record(tagged("b"))
    assert "does not get on" in diagnostics_lines.get(timeout=PATIENCE)[1]
    assert [] == gate._waiting

    # Should it finish after all, what is logged from then on is taken.
    finish.set()
    thread.join()
    gate.take_record(tagged("c"))
    assert ["a", "c"] == entrances.taken
    assert diagnostics_lines.empty()


def test_a_line_that_comes_too_late_to_wait_is_taken_at_once(gate):
    """Between the look and the queue, the other thread may have finished."""
    entrances = Entrances(gate)
    gate.take_record(tagged("a"))
    gate._wait(lambda: gate.take_record(tagged("b")))

    assert ["a", "b"] == entrances.taken


def test_two_threads_that_take_what_waits(gate):
    """One of them may find nothing left."""

    class Raced(list):
        def pop(self, place):
            raise IndexError

    gate._waiting = Raced([None])

    assert gate._take_waiting() is None


def test_an_import_that_fails_is_tried_again(gate):
    """What somebody else was half-way through importing can be imported with the next line."""
    entrances = Entrances(gate, fails=3)
    for number in range(5):
        gate.take_record(tagged(number))

    assert 4 == entrances.made
    assert [0, 1, 2, 3, 4] == entrances.taken


def test_an_import_that_fails_for_good_is_told_once(gate, diagnostics_lines):
    """And the program is left alone from then on."""
    entrances = Entrances(gate, fails=1_000)
    for number in range(20):
        gate.take_record(tagged(number))

    assert ("ERROR", "nothing is captured: ImportError: half imported") == diagnostics_lines.get(
        timeout=PATIENCE
    )
    assert (10, []) == (entrances.made, entrances.taken)
    assert diagnostics_lines.empty()


def test_a_gate_that_is_closed_while_it_loads_stays_closed(gate):
    """Whoever calls `uninstall` has the last word."""
    entrances = Entrances(gate, while_made=gate.close)
    gate.take_record(tagged())

    assert (1, []) == (entrances.made, entrances.taken)


def test_what_still_waits_at_the_exit_is_taken(gate):
    """If whoever was to load the entrances did not get to the end."""
    entrances = Entrances(gate, fails=1)
    gate.at_exit()
    assert 0 == entrances.made
    gate.take_record(tagged())
    assert [] == entrances.taken

    gate.at_exit()
    assert ["x"] == entrances.taken


def test_what_cannot_be_taken_at_the_exit_either_is_told(gate, diagnostics_lines):
    """A program that logs one line does not get to the number of tries."""
    entrances = Entrances(gate, fails=1_000)
    gate.take_record(tagged())
    assert diagnostics_lines.empty()
    gate.at_exit()
    gate.at_exit()

    assert ("ERROR", "nothing is captured: ImportError: half imported") == diagnostics_lines.get(
        timeout=PATIENCE
    )
    assert diagnostics_lines.empty()
    assert [] == entrances.taken


def test_the_first_line_of_all_at_the_exit(server):
    """A program that logs nothing until its last moment has its event delivered, too."""
    code = (
        "import atexit, logging\n"
        "atexit.register(logging.warning, 'Ended', extra={'userlens_event': 1 == 1, 'user_id': 1})"
    )
    done = run_code(code, server.url)

    assert ("", "WARNING:root:Ended\n", 0) == (done.stdout, done.stderr, done.returncode)
    assert ["Ended"] == [event["event"] for event in server.events]


# ---------------------------------------------------------------- forks


@pytest.fixture
def forking(gate):
    """Return a gate whose hooks are called at each fork of this process."""
    gate.watch_forks()
    gate.watch_forks()
    yield gate
    gate.close()  # a hook cannot be taken back; it does no harm
    gate._lock = threading.RLock()


def test_a_fork_waits_for_a_thread_that_loads(forking, monkeypatch):
    """In the child, what it was importing would stay locked for good."""
    monkeypatch.setattr(gate_module, "_PATIENCE", PATIENCE)
    loading, finish = threading.Event(), threading.Event()

    def wait():
        loading.set()
        finish.wait(PATIENCE)

    entrances = Entrances(forking, while_made=wait)
    thread = threading.Thread(target=forking.take_record, args=(tagged("a"),))
    thread.start()
    loading.wait(PATIENCE)
    threading.Timer(0.01, finish.set).start()

    def work():
        forking.take_record(tagged("child"))
        return entrances.taken

    assert ["a", "child"] == in_fork(work)
    thread.join()
    forking.take_record(tagged("parent"))
    assert ["a", "parent"] == entrances.taken


def test_a_fork_does_not_wait_for_ever(forking, monkeypatch):
    """A child that would hang captures nothing, and says so; the parent goes on."""
    monkeypatch.setattr(gate_module, "_PATIENCE", 0.01)
    loading, finish = threading.Event(), threading.Event()

    def wait():
        loading.set()
        finish.wait(PATIENCE)

    entrances = Entrances(forking, while_made=wait)
    thread = threading.Thread(target=forking.take_record, args=(tagged("a"),))
    thread.start()
    loading.wait(PATIENCE)
    forking.take_record(tagged("waits"))

    def work():
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        logging.getLogger("userlens_instrument").addHandler(handler)
        forking.take_record(tagged("child"))
        forking.take_record(tagged("child"))
        return [said, entrances.taken, len(forking._waiting)]

    assert [
        ["nothing is captured: the process was forked while a thread was loading what captures"],
        [],
        0,
    ] == in_fork(work)
    finish.set()
    thread.join()
    assert ["waits", "a"] == entrances.taken


def test_a_child_starts_with_nothing_that_waits(gate):
    """The parent takes it."""
    entrances = Entrances(gate, fails=1)
    gate.take_record(tagged("parent"))
    gate.before_fork()
    gate.after_fork_in_child()
    gate.take_record(tagged("child"))

    assert ["child"] == entrances.taken
    gate._loading_by = threading.get_ident() + 1
    gate.after_fork_in_child()
    gate.take_record(tagged("child"))
    assert ["child"] == entrances.taken


def test_a_fork_out_of_loading_itself(forking):
    """Both go on where they are; what waited is the parent's."""
    results = []

    def fork():
        forking.take_record(tagged("waits"))
        if not results:
            results.append(None)
            results[0] = in_fork(lambda: len(forking._waiting))

    entrances = Entrances(forking, while_made=fork)
    forking.take_record(tagged("a"))

    assert [0] == results
    assert ["waits", "a"] == entrances.taken


def test_a_fork_by_a_thread_that_did_not_get_the_lock(forking, monkeypatch):
    """It gives nothing back that it has not taken."""
    monkeypatch.setattr(gate_module, "_PATIENCE", 0.01)
    forking._lock.acquire()
    forked = []
    thread = threading.Thread(target=lambda: forked.append(in_fork(lambda: 1)))
    thread.start()
    thread.join()
    forking._lock.release()

    assert [1] == forked
    assert forking._held_by is None


def test_a_system_that_does_not_fork(gate, monkeypatch):
    """There is nothing to watch."""
    monkeypatch.delattr(os, "register_at_fork")
    gate.watch_forks()

    assert not gate._watches_forks


# ---------------------------------------------------------------- without logging


def test_nothing_is_said_where_nobody_logs(monkeypatch):
    """A program that has not imported logging has no place for a line."""
    monkeypatch.delitem(sys.modules, "logging")

    assert say("x") is None
    assert not skip_record(None, None)


def test_a_call_that_is_not_known_may_be_under_way():
    """Who runs a chain by hand has no call that could be found again."""
    assert is_under_way(None)


def call_of(frame):
    return id(frame), frame.f_code, frame.f_lasti


def test_a_call_is_under_way_while_it_is_on_the_stack():
    """Past the place where it was noted, and itself: not another frame in the same memory."""
    frame = sys._getframe()
    noted = call_of(frame)

    assert is_under_way(noted)
    assert not is_under_way((noted[0], call_of.__code__, noted[2]))
    assert not is_under_way((noted[0] + 1, *noted[1:]))

    def at_once():
        return is_under_way(call_of(frame))  # it is still at the very instruction

    assert not at_once()


def test_the_whole_stack_is_looked_at_where_it_is_short():
    """As in a thread that a C library has started."""
    found = []
    thread = threading.Thread(target=lambda: found.append(is_under_way((0, call_of.__code__, 0))))
    thread.start()
    thread.join()

    assert [False] == found


@pytest.mark.parametrize("depth", [0, 31])
def test_a_call_that_is_too_far_up_is_not_looked_for(depth):
    """The way to it is bounded."""

    def descend(levels):
        return descend(levels - 1) if levels else is_under_way(noted)

    noted = call_of(sys._getframe())

    assert (depth == 0) == descend(depth)


def test_a_chain_that_is_too_far_up_is_not_looked_for():
    """The way to what calls it is bounded, too: then it is not known."""

    def descend(levels):
        if levels:
            descend(levels - 1)
        else:
            skip_record(logging.getLogger("billing"), None)

    descend(40)
    of_thread.repeats, repeats = None, of_thread.repeats

    assert ("billing", None, None) == repeats


class Unreadable:
    """A record, as somebody imagines one."""

    __slots__ = ()


@pytest.mark.usefixtures("not_imported")
def test_a_record_without_fields_is_left_to_an_entrance(gate):
    """It finds out, and counts it; nothing is raised into the log call."""
    entrances = Entrances(gate)
    gate.open(lambda: (entrances.taken.append, None))
    record = Unreadable()
    gate.take_record(record)

    assert [record] == entrances.taken
