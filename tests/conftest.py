"""What every test starts from: no client, no settings in the environment, logging as it was."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import sys

import forkable  # noqa: F401 - its hooks come before those of the package, imported below
import pytest
import structlog
from helpers import SPOOLED, WRITE_CODE, ScriptedServer, examples, new_spool
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from userlens_instrument import Settings
from userlens_instrument import client as client_module
from userlens_instrument._delivery import diagnostics, rulebook
from userlens_instrument.client import Client
from userlens_instrument.testing import CapturingTransport


# No deadline, and slow input is fine: this machine may be busy, and no test here is about time.
hypothesis_settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("house")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Have a process that has nothing left take over from the others: tests differ in length."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items):
    """Leave out, where the tests run with a spool, what is about events in memory alone."""
    if SPOOLED:
        skip = pytest.mark.skip(reason="about memory alone")
        for item in items:
            if item.get_closest_marker("memory"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Each test finds the process as it is at its start, and leaves it so."""
    for name in list(os.environ):
        if name.startswith("USERLENS_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable
    yield
    client_module.shutdown(timeout=0)
    client_module.registry.__init__()
    diagnostics.forget_inherited()
    rulebook.books.clear()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.disable(disabled)
    for logger in list(logging.root.manager.loggerDict.values()):
        logger.disabled = False  # a dictConfig disables those it does not name


@pytest.fixture
def server():
    """Return a real HTTP server that answers 200 to everything."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def transport():
    return CapturingTransport()


@pytest.fixture
def make_client_of_events(server):
    """Return a maker of clients that deliver to *server*, closed at the end."""
    made = []

    def make(*, transport=None, clock=None, **settings):
        settings = {
            "write_code": WRITE_CODE,
            "events_url": server.url,
            "raw_url": server.url,
            "backoff_base": 0.01,
            "backoff_cap": 0.05,
            "spool": new_spool(),
        } | settings
        client = Client(Settings(**settings), transport=transport, clock=clock)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close(timeout=0)


@pytest.fixture
def make_client(make_client_of_events):
    """Return the same; the tests of delivery have one that makes clients of batches, too."""
    return make_client_of_events


@pytest.fixture
def client(make_client, transport):
    """Return a client whose events land in *transport*."""
    return make_client(transport=transport)


class Lines(queue.Queue):
    """A queue that shows where every thread is, if the line that a test waits for does not come."""

    def get(self, block=True, timeout=None):
        try:
            return super().get(block, timeout)
        except queue.Empty:
            faulthandler.dump_traceback(sys.__stderr__)
            logger, voice = logging.getLogger("userlens_instrument"), diagnostics.voice
            state = (logger.disabled, logger.level, logger.handlers, vars(voice))
            raise AssertionError(f"no line; {state}") from None


@pytest.fixture
def diagnostics_lines():
    """Return a queue that gets each line of diagnostics, as (level name, text)."""
    lines = Lines()

    class Catcher(logging.Handler):
        def emit(self, record):
            lines.put((record.levelname, record.getMessage()))

    catcher = Catcher()
    logger = logging.getLogger("userlens_instrument")
    logger.addHandler(catcher)
    yield lines
    logger.removeHandler(catcher)
