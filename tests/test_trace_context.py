"""trace_context: events that can be found in the trace that made them."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import structlog
from helpers import PATIENCE, WRITE_CODE, Reply, closed_port
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from userlens_instrument import Client, Settings, UserlensHandler, UserlensProcessor
from userlens_instrument._core.outcome import Failure
from userlens_instrument._delivery import sender as sender_module
from userlens_instrument.testing import FakeClock


@pytest.fixture
def tracer():
    return TracerProvider().get_tracer("tests")


@pytest.fixture
def make(transport):
    made = []

    def make(**settings):
        made.append(Client(Settings(write_code=WRITE_CODE, **settings), transport=transport))
        return made[-1]

    yield make
    for client in made:
        client.close(0)


def log_everywhere(client, **fields):
    """Log one event by each entrance, twice: the second may go a shorter way."""
    handler, processor = UserlensHandler(client=client), UserlensProcessor(client)
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[processor, lambda logger, name, line: line["event"]]
    )
    logger = logging.Logger("app")  # noqa: LOG001 - nobody else's
    logger.addHandler(handler)
    for _ in range(2):
        log.info("Event", userlens_event=True, user_id="u1", **fields)
        logger.info("Event", extra={"userlens_event": True, "user_id": "u1", **fields})
        client.track("u1", "Event", fields)


def test_tracks_have_the_ids_of_the_span(make, transport, tracer):
    """
    At every entrance, as W3C Trace Context writes them.
    """
    client = make(trace_context=True)
    with tracer.start_as_current_span("request") as span:
        log_everywhere(client, plan="pro")

    context = span.get_span_context()
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    assert client.flush(PATIENCE)
    assert [{"plan": "pro", **ids}] * 6 == [event["properties"] for event in transport.events]


def test_what_the_application_says_wins(make, transport, tracer):
    """
    A property of that name is the application's own.
    """
    client = make(trace_context=True)
    with tracer.start_as_current_span("request"):
        log_everywhere(client, trace_id="mine")

    assert client.flush(PATIENCE)
    assert ["mine"] * 6 == [event["properties"]["trace_id"] for event in transport.events]


@pytest.mark.parametrize("traced", [False, True])
def test_without_a_span_or_without_the_setting(make, transport, tracer, traced):
    """
    No span is current, or nobody has asked for its ids: there are none.
    """
    client = make(trace_context=traced)
    if traced:
        log_everywhere(client)
    else:
        with tracer.start_as_current_span("request"):
            log_everywhere(client)

    assert client.flush(PATIENCE)
    assert [None] * 6 == [event.get("properties") for event in transport.events]


def test_people_and_companies_have_no_trace(make, transport, tracer):
    """
    A trait describes who somebody is, which no request does.
    """
    client = make(trace_context=True)
    with tracer.start_as_current_span("request"):
        client.identify("u1", {"plan": "pro"})
        client.group("acme", "u1", {"plan": "pro"})

    assert client.flush(PATIENCE)
    assert [{"plan": "pro"}] * 2 == [event["traits"] for event in transport.events]


class Span(trace.NonRecordingSpan):
    """A span of somebody's own, whose context is what *find* returns."""

    def __init__(self, find):
        self.get_span_context = find


def failing():
    raise RuntimeError


@pytest.mark.parametrize(
    "find",
    [
        failing,
        lambda: None,
        *(
            lambda ids=ids: SimpleNamespace(is_valid=True, trace_id=ids[0], span_id=ids[1])
            for ids in [("a", "b"), (None, None), (1 << 128, 1), (1, 1 << 64), (1, -1), (0, 1)]
        ),
    ],
)
def test_an_odd_span_costs_no_more_than_its_ids(make, transport, find):
    """
    Whatever it raises, and whatever ids it gives that are none: the event is delivered.
    """
    client = make(trace_context=True)
    with trace.use_span(Span(find)):
        log_everywhere(client, plan="pro")

    assert client.flush(PATIENCE)
    assert [{"plan": "pro"}] * 6 == [event["properties"] for event in transport.events]
    assert {} == client.stats().invalid


def test_without_opentelemetry(make, transport, monkeypatch):
    """
    Where it is not imported there is no span, and nothing is imported to find out.
    """
    monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
    client = make(trace_context=True)

    log_everywhere(client)

    assert client.flush(PATIENCE)
    assert 6 == len(transport.events)


# ---------------------------------------------------------------- what metrics are made of


def test_each_request_is_told_of(make_client_of_events, server, monkeypatch):
    """
    Whoever watches hears how long each request took, and what came of it; what it raises is its
    own.
    """
    heard = []

    def watch(seconds, answer):
        heard.append((seconds >= 0, answer.status))
        raise RuntimeError

    monkeypatch.setattr(sender_module, "request_watchers", [watch, watch])
    server.script = lambda request: Reply(status=400 if request.number == 2 else 200)
    client = make_client_of_events()
    for _ in range(3):
        client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert [(True, status) for status in (200, 200, 400, 400, 200, 200)] == heard


def test_a_request_without_an_answer_is_told_of(monkeypatch):
    """
    The same where nobody is there.
    """
    heard = []
    monkeypatch.setattr(
        sender_module, "request_watchers", [lambda seconds, answer: heard.append(answer.failure)]
    )
    settings = Settings(write_code=WRITE_CODE, events_url=f"http://127.0.0.1:{closed_port()}")
    with Client(settings) as client:
        client.track("u1", "Event")
        client.flush(0.2)
        client.close(0)

    assert Failure.CONNECT == heard[0]


def test_the_age_of_the_oldest(transport):
    """
    Of all that are held; 0.0 if none is.
    """
    clock = FakeClock()
    client = Client(Settings(write_code=WRITE_CODE), transport=transport, clock=clock)
    client.sender.start = lambda: False
    assert 0.0 == client.oldest_age()
    client.track("u1", "Event")
    assert 0.0 == client.oldest_age()
    clock.advance(10)
    client.track("u2", "Event")
    client.oldest_age()
    clock.advance(5)

    assert 15.0 == client.oldest_age()
    client.close(0)


def test_the_age_of_the_oldest_cannot_be_told(transport):
    """
    Whoever interrupted the very thread that holds the lock is not held up.
    """
    client = Client(Settings(write_code=WRITE_CODE), transport=transport)
    with client.sender._lock:
        assert 0.0 == client.oldest_age()
    client.close(0)


def test_the_age_of_what_a_spool_has_kept(tmp_path, server):
    """
    An event of a spool is as old as its log call, whichever process made it.
    """
    path = str(tmp_path / "spool.db")
    nobody = f"http://127.0.0.1:{closed_port()}"
    settings = Settings(write_code=WRITE_CODE, events_url=nobody, spool=path)
    earlier = FakeClock(wall=1_000_000.0)
    with Client(settings, clock=earlier) as client:
        client.track("u1", "Event")
        client.close(0)
    later = FakeClock(wall=1_000_500.0)
    client = Client(settings, clock=later)
    client.track("u1", "Another")
    outlet = client.sender._outlet
    while not client.oldest_age():
        outlet.pump()

    assert 500.0 == client.oldest_age()
    client.close(0)
