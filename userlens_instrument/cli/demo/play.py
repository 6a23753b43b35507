"""Puts the demo on stage: the local Userlens, the service, the requests; and keeps the evidence."""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import uvicorn

from userlens_instrument._delivery.diagnostics import LOGGER
from userlens_instrument.cli.demo import scenario, service
from userlens_instrument.client import Client
from userlens_instrument.inspector import Fault, InspectorServer
from userlens_instrument.settings import Settings


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from userlens_instrument._delivery.stats import Stats
    from userlens_instrument.cli.demo.report import Page
    from userlens_instrument.cli.demo.scenario import Step
    from userlens_instrument.inspector import Entry, Store
    from userlens_instrument.inspector import Stats as InspectorStats


# How long to wait for what must happen, in seconds: long enough for a busy
# machine, and never waited for when all is well.
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What a request to the shop got.

    Attributes:
        status: The status.
        seconds: How long it took; to be shown, never to be judged.
    """

    status: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What happened.

    Attributes:
        answers: What each request got, by its request id.
        log: The lines of the service's log.
        arrived: What the local Userlens accepted, in the order of arrival.
        rejected: What it did not.
        flushed: Whether everything had an outcome in time.
        stats: What the sender counted.
        inspector: What the local Userlens counted.
    """

    answers: Mapping[str, Answer]
    log: tuple[str, ...]
    arrived: tuple[Entry, ...]
    rejected: tuple[Entry, ...]
    flushed: bool
    stats: Stats
    inspector: InspectorStats

    @property
    def diagnostics(self) -> list[str]:
        """The lines of the log that the package wrote itself."""
        return [line for line in self.log if _is_diagnostic(line)]


class _Log(io.StringIO):
    """The stream that the service logs to."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text: str) -> int:
        with self._changed:
            self._changed.notify_all()
            return super().write(text)

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    def wait_for_diagnostics(self, number: int) -> None:
        """Wait until there are so many: a thread of their own writes them."""
        with self._changed:
            self._changed.wait_for(
                lambda: sum(map(_is_diagnostic, self.lines())) >= number, _PATIENCE
            )


def play(page: Page, store: Store) -> Evidence:
    """
    Run it, and tell on *page* what happens.

    Args:
        page: Where to tell.
        store: What the local Userlens keeps events in.

    Returns:
        What happened. Whether it is what should have is not judged here.
    """
    log = _Log()
    answers: dict[str, Answer] = {}
    with ExitStack() as stage:
        inspector = stage.enter_context(InspectorServer(store=store))
        client = _client_for(inspector.url)
        stage.enter_context(_logging_to(log, client))
        # Closed before logging is put back: what it still has to say, if the
        # demo is interrupted, belongs in the shop's log and not on the terminal.
        stage.enter_context(client)
        with _serving() as port:
            page.what_runs(inspector.url, f"http://127.0.0.1:{port}")
            with _browsers(port) as browsers:
                answers |= _act(scenario.FIRST_ACT, browsers)
                page.first_act(answers)
                client.flush(_PATIENCE)
                store.add_faults(
                    Fault(
                        status=503,
                        retry_after=str(scenario.RETRY_AFTER),
                        count=scenario.FAULTS,
                    )
                )
                answers |= _act(scenario.SECOND_ACT, browsers)
                page.second_act(answers, waiting=client.stats().pending)
        # The service has ended, as it does at a deployment: its jobs are done.
        flushed = client.flush(_PATIENCE)
        log.wait_for_diagnostics(scenario.DIAGNOSTICS)
        return Evidence(
            answers=answers,
            log=tuple(log.lines()),
            arrived=tuple(reversed(store.events(verdict="good"))),
            rejected=tuple(reversed(store.events(verdict="bad"))),
            flushed=flushed,
            stats=client.stats(),
            inspector=store.stats(),
        )


def _is_diagnostic(line: str) -> bool:
    return f" {LOGGER}: " in line


def _client_for(url: str) -> Client:
    settings = {
        "write_code": "demo",
        "events_url": url,
        "raw_url": url,
        # Short waits, for the demo's sake; it is the Retry-After that counts.
        "backoff_base": 0.05,
        "backoff_cap": 0.5,
    }
    # Not of the environment: who has a real write code there sees the same demo.
    return Client(Settings.load(settings, environ={}))


@contextmanager
def _logging_to(log: _Log, client: Client) -> Iterator[None]:
    """Let the service set up logging as if it were alone, and undo that afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    service.configure_logging(client, log)
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


@contextmanager
def _serving() -> Iterator[int]:
    """Serve the application under uvicorn; hand out the port."""
    # Named TCP: only then asyncio turns Nagle's algorithm off on what is
    # accepted, and an answer does not wait 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    # From here on connections queue up: nobody has to wait for uvicorn to be ready.
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            service.app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), name="demo-service")
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def _browsers(port: int) -> Iterator[Mapping[str, http.client.HTTPConnection]]:
    """Open a connection for each person: one's requests come in order, as a browser's do."""
    browsers = {
        who: http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        for who in scenario.people()
    }
    try:
        yield browsers
    finally:
        for browser in browsers.values():
            browser.close()


def _act(
    steps: tuple[Step, ...], browsers: Mapping[str, http.client.HTTPConnection]
) -> dict[str, Answer]:
    """Make the requests of *steps*, all people at the same time; return the answers."""

    def click_through(who: str) -> dict[str, Answer]:
        return {step.request_id: _ask(browsers[who], step) for step in steps if step.who == who}

    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(len(browsers)) as pool:
        for some in pool.map(click_through, browsers):
            answers |= some
    return answers


def _ask(browser: http.client.HTTPConnection, step: Step) -> Answer:
    headers = {"X-Request-ID": step.request_id}
    if step.signed_in:
        headers["Cookie"] = f"session=session-of-{step.who}"
    start = time.perf_counter()
    browser.request(step.method, step.path, json.dumps(step.form), headers)
    response = browser.getresponse()
    response.read()
    return Answer(status=response.status, seconds=time.perf_counter() - start)
