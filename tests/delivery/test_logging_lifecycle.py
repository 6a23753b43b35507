"""Reloads, shutdowns and locks of logging while events are on their way."""

from __future__ import annotations

import copy
import io
import logging
import logging.config
import threading

import pytest
from helpers import PATIENCE, SPOOLED, WRITE_CODE, Reply

import userlens_instrument
from userlens_instrument import UserlensHandler, configure
from userlens_instrument._delivery import diagnostics
from userlens_instrument.client import registry


FIELDS = {"userlens_event": True, "user_id": "u1"}


def config(server, **settings):
    """Return a dictConfig as YAML would give it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "userlens": {
                "class": "userlens_instrument.UserlensHandler",
                "write_code": WRITE_CODE,
                "events_url": server.url,
                **settings,
            }
        },
        "root": {"level": "DEBUG", "handlers": ["userlens"]},
    }


def log_event(name):
    logging.getLogger("app").info(name, extra=FIELDS)


def quietly(act):
    """Run *act* on another thread; return whether it ended by itself."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


@pytest.fixture
def held(server):
    """Have the server hold every request until the returned event is set."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    yield release
    release.set()


FILE = """
[loggers]
keys=root
[handlers]
keys=userlens
[formatters]
keys=
[logger_root]
level=DEBUG
handlers=userlens
[handler_userlens]
class=userlens_instrument.UserlensHandler
kwargs={{"write_code": {code!r}, "events_url": {url!r}}}
"""


def file_config(server):
    text = FILE.format(code=WRITE_CODE, url=server.url)
    logging.config.fileConfig(io.StringIO(text), disable_existing_loggers=False)


RELOADS = {
    "dictConfig": lambda server: logging.config.dictConfig(config(server)),
    "dictConfig without ours": lambda server: logging.config.dictConfig(
        {"version": 1, "root": {"level": "INFO", "handlers": []}}
    ),
    "fileConfig": file_config,
    "shutdown": lambda server: logging.shutdown(
        [ref for ref in logging._handlerList if isinstance(ref(), UserlensHandler)]
    ),
}


@pytest.mark.parametrize("name", RELOADS)
def test_a_reload_returns_while_requests_hang_and_loses_nothing(server, held, name):
    """
    dictConfig and logging.shutdown return at once, with a request on its way.

    Root at DEBUG, so that urllib3 logs through our handler, too.
    """
    logging.config.dictConfig(config(server))
    for number in range(3):
        log_event(f"Event {number}")
    assert server.wait_for(1)

    assert quietly(lambda: RELOADS[name](server))
    assert 1 == len(server.requests), "it returned while the server still held the first"
    held.set()
    assert userlens_instrument.flush(PATIENCE)
    assert [f"Event {number}" for number in range(3)] == [e["event"] for e in server.events]


def test_the_handler_works_from_a_file_config(server):
    """The old format, too: the class by its path, the settings as keyword arguments."""
    file_config(server)
    log_event("Event")

    assert userlens_instrument.flush(PATIENCE)
    assert ["Event"] == [event["event"] for event in server.events]


def test_a_config_that_disables_existing_loggers_loses_what_is_held_no_more_than_another(
    server, held
):
    """disable_existing_loggers silences old loggers, and takes nothing that was logged before."""
    logging.config.dictConfig(config(server))
    old = logging.getLogger("app.disabled_by_config")
    old.info("Before", extra=FIELDS)
    assert server.wait_for(1)
    again = config(server) | {"disable_existing_loggers": True}
    assert quietly(lambda: logging.config.dictConfig(again))
    old.info("Silenced", extra=FIELDS)
    logging.getLogger("app.made_after_the_config").info("After", extra=FIELDS)
    held.set()

    assert userlens_instrument.flush(PATIENCE)
    assert ["Before", "After"] == [event["event"] for event in server.events]


def test_reloads_with_equal_settings_share_one_client(server):
    """Fifty reloads: one client, no more threads, nothing lost, order kept."""
    for number in range(50):
        logging.config.dictConfig(config(server))
        log_event(f"Event {number}")

    assert userlens_instrument.flush(PATIENCE)
    assert [f"Event {number}" for number in range(50)] == [e["event"] for e in server.events]
    assert 1 == len(registry.clients)
    threads = userlens_instrument.stats().threads
    assert threads <= 8, "those of one client, however many reloads there were"


def test_a_reload_with_other_settings_delivers_what_the_old_client_held(server, held):
    """Each client delivers its own, once."""
    logging.config.dictConfig(config(server))
    logging.getLogger("app").info("Old", extra=FIELDS)
    logging.config.dictConfig(config(server, max_workers=2))
    logging.getLogger("app").info("New", extra=FIELDS)
    held.set()

    assert userlens_instrument.flush(PATIENCE)
    assert {"Old", "New"} == {event["event"] for event in server.events}
    assert 2 == len(server.events)


def test_a_closed_handler_that_is_still_attached_works(server):
    """uvicorn's default config, applied after ours, closes our handler and leaves it in place."""
    from uvicorn.config import LOGGING_CONFIG

    logging.config.dictConfig(config(server))
    logging.config.dictConfig(copy.deepcopy(LOGGING_CONFIG))
    logging.getLogger("app").info("After uvicorn", extra=FIELDS)

    assert userlens_instrument.flush(PATIENCE)
    assert ["After uvicorn"] == [event["event"] for event in server.events]
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_root_at_debug_is_one_request_for_one_line(server):
    """What urllib3 and we log, on our threads or by name, never becomes an event."""
    logging.config.dictConfig(config(server))
    root = logging.getLogger()

    def tag_everything(record):
        record.userlens_event, record.user_id = True, "u1"
        return True

    root.handlers[0].addFilter(tag_everything)
    logging.getLogger("app").info("Only this", extra=FIELDS)
    logging.getLogger("userlens_instrument").warning("not this")
    logging.getLogger("urllib3.util.retry").debug("nor this")

    assert userlens_instrument.flush(PATIENCE)
    assert ["Only this"] == [
        event["event"] for event in server.events if event["event"] != "asyncio"
    ]


def test_a_level_change_while_sending(server, held):
    """setLevel clears logging's cache under its lock; sender threads that log do not suffer."""
    logging.config.dictConfig(config(server))
    for number in range(20):
        logging.getLogger("app").info("Event", extra={**FIELDS, "user_id": f"u{number}"})
    assert server.wait_for(1)
    held.set()
    for level in [logging.INFO, logging.DEBUG] * 50:
        logging.getLogger("urllib3").setLevel(level)
    logging.getLogger("urllib3").setLevel(logging.NOTSET)

    assert userlens_instrument.flush(PATIENCE)
    assert 20 == len(server.events)


@pytest.mark.parametrize("first", ["configure", "logging"])
def test_configure_before_or_after_logging_is_set_up(server, first):
    """A handler without settings finds the default client, whichever was there first."""
    plain = config(server)
    plain["handlers"]["userlens"] = {"class": "userlens_instrument.UserlensHandler"}
    steps = [
        lambda: configure(WRITE_CODE, events_url=server.url),
        lambda: logging.config.dictConfig(plain),
    ]
    for step in steps if first == "configure" else reversed(steps):
        step()
    logging.getLogger("app").info("Event", extra=FIELDS)

    assert userlens_instrument.flush(PATIENCE)
    assert ["Event"] == [event["event"] for event in server.events]
    assert 1 == len(registry.clients)


def test_a_wrong_setting_in_the_config_names_setting_and_fix(server):
    """dictConfig raises its own error, caused by ours."""
    with pytest.raises(ValueError, match="userlens") as caught:
        logging.config.dictConfig(config(server, max_workers="many"))

    assert "max_workers is not a whole number; give 1 to 256" in str(caught.value.__cause__)


def test_disabled_loggers_and_levels_filter_events(server):
    """Events ride on logs: what logging.disable or a disabled logger drops is no event."""
    logging.config.dictConfig(config(server))
    logging.disable(logging.INFO)
    logging.getLogger("app").info("Disabled", extra=FIELDS)
    logging.disable(logging.NOTSET)
    logging.getLogger("app.off").disabled = True
    logging.getLogger("app.off").info("Disabled", extra=FIELDS)
    logging.getLogger("app").info("Enabled", extra=FIELDS)

    assert userlens_instrument.flush(PATIENCE)
    assert ["Enabled"] == [event["event"] for event in server.events]


def test_a_host_handler_that_hangs_holds_up_neither_log_calls_nor_delivery(make_client, server):
    """A handler that never returns from our diagnostics costs the diagnostics, nothing else."""
    entered, release = threading.Event(), threading.Event()

    class Hanging(logging.Handler):
        def emit(self, record):
            entered.set()
            release.wait(PATIENCE)

    hanging = Hanging()
    logging.getLogger(diagnostics.LOGGER).addHandler(hanging)
    logging.getLogger(diagnostics.LOGGER).propagate = False
    try:
        client = make_client()
        client.track("", "Invalid")
        assert entered.wait(PATIENCE)
        for number in range(20):
            client.track("", f"Invalid {number}")
            client.track("u1", f"Event {number}")

        assert client.flush(PATIENCE)
        assert 20 == len(server.events)
    finally:
        release.set()
        logging.getLogger(diagnostics.LOGGER).removeHandler(hanging)
        logging.getLogger(diagnostics.LOGGER).propagate = True


def test_an_object_that_logs_when_it_is_collected(client, transport):
    """A __del__ that logs a tagged line, in the middle of a log call, cannot deadlock it."""
    import gc

    log = logging.getLogger("app.gc")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client)]

    collected = []

    class Chatty:
        def __init__(self):
            self.me = self  # a cycle: it goes when the collector runs, anywhere

        def __del__(self):
            log.info("Collected", extra=FIELDS)
            collected.append(1)

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            Chatty()
            log.info("Logged", extra=FIELDS)
    finally:
        gc.set_threshold(*thresholds)
    while len(collected) < 300:  # a collection on another thread turns this one away
        gc.collect()

    assert client.flush(PATIENCE)
    names = [event["event"] for event in transport.events]
    # The collector runs on any thread; what is logged on ours is counted, not sent.
    on_ours = client.stats().invalid.get("own_thread", 0)
    assert (300, 300) == (names.count("Logged"), names.count("Collected") + on_ours)


def test_a_signal_handler_that_logs(client, transport):
    """A signal handler that logs tagged lines interrupts log calls anywhere; nothing deadlocks."""
    import signal

    log = logging.getLogger("app.signal")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client)]
    fired = []

    def on_alarm(number, frame):
        fired.append(number)
        log.info("Signalled", extra=FIELDS)

    before = signal.signal(signal.SIGALRM, on_alarm)
    # Not so often that a busy machine has handlers within handlers without end.
    pause = 0.005 if SPOOLED else 0.001
    signal.setitimer(signal.ITIMER_REAL, pause, pause)
    try:
        for _ in range(3_000):
            log.info("Logged", extra=FIELDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert client.flush(PATIENCE)
    names = [event["event"] for event in transport.events]
    assert fired
    found = (names.count("Logged"), names.count("Signalled"))
    assert (3_000, len(fired)) == found, client.stats()
