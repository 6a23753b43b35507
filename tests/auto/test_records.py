"""Records of `logging` under the wrapper: taken whatever becomes of handlers, and once."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import os
import queue
import sys
import threading
import types

import pytest
from children import in_fork
from helpers import PATIENCE
from wrapping import run, run_code, write_rules

from userlens_instrument import UserlensHandler, auto
from userlens_instrument._auto import records


def log(name="billing", invoice="i1", user="u1", level=logging.WARNING):
    logging.getLogger(name).log(level, "Invoice %s paid by %s", invoice, user)


def paid(invoice="i1", user="u1"):
    return ("Invoice Paid", {"invoice": invoice}, user)


def empty_root():
    """Do what Celery does with the root logger."""
    logging.getLogger().handlers = []


@pytest.mark.parametrize(
    "configure",
    [
        lambda: None,
        lambda: logging.basicConfig(level=logging.INFO, force=True),
        lambda: logging.config.dictConfig({"version": 1}),
        lambda: logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}}
        ),
        empty_root,
    ],
    ids=["none", "basicConfig", "dictConfig", "dictConfig of root", "a hijack"],
)
@pytest.mark.parametrize("propagates", [True, False])
def test_whatever_is_configured_records_are_taken(events, configure, propagates):
    """No handler of ours is there to be taken away."""
    configure()
    logger = logging.getLogger("billing")
    logger.disabled = False  # dictConfig disables what it does not name
    logger.propagate = propagates
    try:
        log()
    finally:
        logger.propagate = True

    assert [paid()] == events()


def test_a_tag_needs_no_rule(events):
    """A tagged record is an event, as with a handler."""
    logging.getLogger("app").warning("Signed Up", extra={"userlens_event": True, "user_id": 7})
    logging.getLogger("app").warning("plain")

    assert [("Signed Up", {}, "7")] == events()


def test_levels_and_filters_of_loggers_decide(events):
    """What the logger does not let through is no event; what handlers do is their business."""
    logger = logging.getLogger("billing.filtered")
    logger.setLevel(logging.ERROR)
    log(logger.name)
    logger.setLevel(logging.NOTSET)
    refuse = logging.Filter("other")
    logger.addFilter(refuse)
    log(logger.name)
    logger.removeFilter(refuse)
    logger.disabled = True
    log(logger.name)
    logger.disabled = False
    assert [] == events()

    handler = logging.NullHandler(logging.CRITICAL)
    handler.addFilter(refuse)
    logger.addHandler(handler)
    log(logger.name)
    logger.removeHandler(handler)

    assert [paid()] == events()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters replace records from 3.12 on")
def test_a_record_that_a_filter_puts_in_its_place_is_the_one(events):
    """From Python 3.12 on a filter may return another record."""

    def replace(record):
        return logging.makeLogRecord({**vars(record), "args": ("i2", "u2")})

    logger = logging.getLogger("billing")
    logger.addFilter(replace)
    log()
    logger.removeFilter(replace)

    assert [paid("i2", "u2")] == events()


def test_handlers_come_after(events):
    """What a handler makes of a record, such as a queue's, is not what is taken."""
    logs = queue.Queue()
    logger = logging.getLogger("billing")
    handler = logging.handlers.QueueHandler(logs)
    logger.addHandler(handler)
    log()
    logger.removeHandler(handler)
    assert "Invoice i1 paid by u1" == logs.get(timeout=PATIENCE).getMessage()

    assert [paid()] == events()


def test_a_handler_of_ones_own_beside_it_makes_no_second_event(events):
    """Be it on the logger, on root, or behind a queue."""
    logs = queue.Queue()
    ours = [UserlensHandler(), UserlensHandler()]
    listener = logging.handlers.QueueListener(logs, UserlensHandler())
    listener.start()
    billing, root = logging.getLogger("billing"), logging.getLogger()
    queued = logging.handlers.QueueHandler(logs)
    billing.addHandler(ours[0])
    root.addHandler(ours[1])
    root.addHandler(queued)
    log()
    logging.getLogger("app").warning("Signed Up", extra={"userlens_event": True, "user_id": "u1"})
    listener.stop()
    billing.removeHandler(ours[0])
    root.removeHandler(ours[1])
    root.removeHandler(queued)

    assert [paid(), ("Signed Up", {}, "u1")] == events()


def test_records_of_other_processes_are_left_to_them(events):
    """
    A record out of a multiprocessing queue has been taken where it was logged.

    Its loggers are asked once more in the process that writes it down.
    """
    for process in (os.getpid() + 1, os.getpid(), None):
        record = logging.getLogger("billing").makeRecord(
            "billing", 30, "f", 1, "Invoice %s paid by %s", (f"of {process}", "u"), None
        )
        record.process = process
        logging.getLogger("billing").handle(record)

    assert [paid(f"of {os.getpid()}", "u"), paid("of None", "u")] == events()


class Angry:
    """What cannot be compared, nor read."""

    def __eq__(self, other):
        raise RuntimeError

    __ne__ = __eq__
    __hash__ = None


@pytest.mark.parametrize("process", ["web-1", Angry(), True, 1.5, None])
def test_a_process_that_is_no_id_is_no_other_process(installed, events, process):
    """A filter may put the name of a worker there."""

    def name_process(record):
        record.process = process
        return True

    logger = logging.getLogger("billing")
    logger.addFilter(name_process)
    log()
    logger.removeFilter(name_process)

    assert [paid()] == events()
    assert {} == dict(installed.stats().invalid)


def test_what_is_no_record_raises_nothing(installed, events):
    """It is counted; what `logging` makes of it is its own business."""

    class Slots:
        __slots__ = ("levelno", "msg", "name")

    record = Slots()
    record.name, record.levelno, record.msg = "billing", 30, "x"
    assert logging.getLogger("billing").filter(record)

    assert [] == events()
    assert {"unreadable": 1} == dict(installed.stats().invalid)


def test_our_own_lines_are_no_events(events):
    """Nor are those of what we send with: they would go on for ever."""
    for name in ("urllib3.connectionpool", "userlens_instrument"):
        logging.getLogger(name).error("x", extra={"userlens_event": "x", "user_id": "u"})

    assert [] == events()


def test_a_logger_class_of_ones_own_is_taken(events):
    """Even one that calls no handler."""

    class Quiet(logging.Logger):
        def callHandlers(self, record):  # noqa: N802 - logging's
            pass

    Quiet("billing.quiet").warning("Invoice %s paid by %s", "i1", "u1")

    assert [paid()] == events()


def test_an_interruption_goes_through(installed, monkeypatch):
    """Ctrl+C while a record is taken ends the program, as anywhere."""

    def interrupt(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(auto.gate, "take_record", interrupt)

    with pytest.raises(KeyboardInterrupt):
        log()


def test_logging_is_as_it_was_afterwards(events):
    """`uninstall` takes nothing any more and leaves nothing behind."""
    assert "filter" in vars(logging.Logger)
    assert auto.is_installed()
    auto.install()
    log()
    auto.uninstall()
    log()
    auto.uninstall()

    assert not auto.is_installed()
    assert "filter" not in vars(logging.Logger)
    assert [paid()] == events()


@pytest.fixture
def within_install(monkeypatch):
    """Return a function that has something done in the midst of `install`."""
    is_open = auto.gate.open

    def have(act):
        def open_gate(*args):
            monkeypatch.setattr(auto.gate, "open", is_open)
            act()
            is_open(*args)

        monkeypatch.setattr(auto.gate, "open", open_gate)

    yield have
    auto.uninstall()


def number_of_watchers():
    return sum(finder is auto._watcher for finder in sys.meta_path)


def test_installed_within_itself_it_is_installed_once(within_install):
    """By a signal handler, say."""
    within_install(auto.install)
    auto.install()
    assert 1 == number_of_watchers()

    auto.uninstall()
    assert 0 == number_of_watchers()
    assert "filter" not in vars(logging.Logger)


def test_uninstalled_within_install_it_is_not_installed(within_install):
    """The last word counts."""
    within_install(auto.uninstall)
    auto.install()

    assert not auto.is_installed()
    assert "filter" not in vars(logging.Logger)


def test_one_thread_at_a_time_installs(within_install):
    """Any other waits until it is done."""
    free = []

    def ask():
        thread = threading.Thread(target=lambda: free.append(auto._state.lock.acquire(False)))
        thread.start()
        thread.join()

    within_install(ask)
    auto.install()

    assert [False] == free


def test_threads_that_install_and_uninstall_at_once():
    """It is there once, or not at all."""
    barrier = threading.Barrier(4)

    def work(number):
        for _ in range(50):
            barrier.wait(PATIENCE)
            auto.install()
            barrier.wait(PATIENCE)
            numbers.add(number_of_watchers())
            barrier.wait(PATIENCE)
            auto.uninstall()
            barrier.wait(PATIENCE)
            numbers_after.add(number_of_watchers())

    numbers, numbers_after = set(), set()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ({1}, {0}) == (numbers, numbers_after)
    assert "filter" not in vars(logging.Logger)


def test_a_fork_while_another_thread_installs(within_install):
    """The child does not wait for who is not there, and can install and take back."""
    results = []

    def work():
        auto.install()
        installed = number_of_watchers()
        auto.uninstall()
        return [installed, number_of_watchers(), "filter" in vars(logging.Logger)]

    def fork():
        thread = threading.Thread(target=lambda: results.append(in_fork(work)))
        thread.start()
        thread.join()

    within_install(fork)
    auto.install()

    assert [[1, 0, False]] == results
    assert auto.is_installed()


def test_a_child_has_a_lock_of_its_own():
    """Whoever holds the parent's is not there to give it back."""
    state = auto._state
    inherited, state.is_changing = state.lock, True
    auto._after_fork_in_child()

    assert inherited is not state.lock
    assert not state.is_changing


def test_a_patch_that_comes_too_late_is_taken_back_later(within_install):
    """Of a module whose import had begun before `uninstall`."""
    auto.install()
    auto.uninstall()
    auto._watcher.hooks["logging"](logging)
    auto.install()
    auto.uninstall()

    assert "filter" not in vars(logging.Logger)


def test_who_wraps_it_after_us_stays(installed):
    """Somebody else's patch is not taken away; what is below it takes nothing any more."""
    ours = logging.Logger.filter

    def theirs(self, record):
        return ours(self, record)

    logging.Logger.filter = theirs
    auto.uninstall()
    try:
        log()
        assert logging.Logger.filter is theirs
    finally:
        del logging.Logger.filter


def test_who_wraps_it_before_us_is_called(events):
    """Whatever kind of callable it is."""
    seen = []

    class Theirs:
        def __get__(self, instance, owner):
            return self if instance is None else types.MethodType(self, instance)

        def __call__(self, logger, record):
            seen.append(record.getMessage())
            return True

    auto.uninstall()
    theirs = logging.Logger.filter = Theirs()
    auto.install()
    log()
    auto.uninstall()
    assert logging.Logger.__dict__["filter"] is theirs
    del logging.Logger.filter

    assert ["Invoice i1 paid by u1"] == seen
    assert [paid()] == events()


def test_a_module_of_that_name_may_be_anything():
    """An application may call a module of its own logging."""
    module = types.ModuleType("logging")

    assert records.watch(module) is None
    assert auto._watcher.hooks["logging"](module) is None


def test_the_programs_own_settings_are_gone_by(server):
    """A program that calls configure() itself gets what it asks for, its rules included."""
    code = """
import logging, sys
import userlens_instrument
userlens_instrument.configure(write_code="x", events_url=sys.argv[1], rules=[
    {"message": "Paid", "user_id": "u"}])
logging.warning("Paid")
"""
    done = run(
        [sys.executable, "-c", code, server.url], "http://127.0.0.1:9", USERLENS_WRITE_CODE=None
    )

    assert ("", 0) == (done.stdout, done.returncode)
    assert ["Paid"] == [event["event"] for event in server.events]


def test_a_setting_that_goes_wrong_later_is_one_line(tmp_path):
    """A program that spoils its environment still runs, and is told in a line of diagnostics."""
    code = (
        "import logging, os\n"
        "os.environ['USERLENS_MAX_WORKERS'] = 'many'\n"
        "logging.warning('x', extra={'userlens_event': 'E', 'user_id': 'u'})\n"
        "logging.warning('y', extra={'userlens_event': 'E', 'user_id': 'u'})\n"
        "import userlens_instrument; print(userlens_instrument.stats().dropped)\n"
    )
    done = run_code(code)

    assert ("{'disabled': 2}\n", 0) == (done.stdout, done.returncode)
    assert 1 == done.stderr.count("max_workers")


def test_rules_that_go_wrong_later_are_one_line(tmp_path, server):
    """What is tagged is delivered all the same."""
    code = (
        "import logging, os\n"
        "os.remove(os.environ['USERLENS_RULES'])\n"
        "logging.warning('x', extra={'userlens_event': 'E', 'user_id': 'u'})\n"
    )
    done = run_code(code, server.url, options=["--rules", write_rules(tmp_path)])

    assert 1 == done.stderr.count("there is no such file")
    assert ["E"] == [event["event"] for event in server.events]


def test_threads_that_log_at_once_are_taken(events):
    """The first lines of many threads load the entrances once, and none is lost."""
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait(PATIENCE)
        log(invoice=f"i{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [f"i{number}" for number in range(8)] == sorted(
        properties["invoice"] for _, properties, _ in events()
    )
