"""One line, one event: whichever entrances it meets beside OpenTelemetry's, and in which order."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue

import pytest
import structlog
from helpers import PATIENCE, examples
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.structlog import StructlogProcessor
from opentelemetry.sdk._logs import ConcurrentMultiLogRecordProcessor, LoggerProvider
from structlog.stdlib import ProcessorFormatter

from userlens_instrument import Settings, UserlensHandler, UserlensProcessor, auto
from userlens_instrument import client as client_module
from userlens_instrument.client import Client
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor
from userlens_instrument.testing import CapturingTransport


RULES = [{"message": "Plan %s", "args": ["plan"], "event": "Ruled"}, {"message": "Plan"}]
BRIDGES = {
    "wrap_for_formatter": ProcessorFormatter.wrap_for_formatter,
    "render_to_log_kwargs": structlog.stdlib.render_to_log_kwargs,
    "json": structlog.processors.JSONRenderer(),
}


class World:
    """A client, and what leads to it; everything is taken down at the end."""

    def __init__(self, *, concurrent, processors):
        self.transport = CapturingTransport()
        settings = Settings(write_code="wc", rules=RULES)
        self.client = Client(settings, transport=self.transport)
        self.client.once.__init__()
        client_module.registry.default = self.client
        several = ConcurrentMultiLogRecordProcessor() if concurrent else None
        self.pool = several and several._executor
        self.provider = LoggerProvider(shutdown_on_exit=False, multi_log_record_processor=several)
        for _ in range(processors):
            self.provider.add_log_record_processor(UserlensLogRecordProcessor(self.client))
        self.logger = logging.getLogger("otel.once")
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)
        self.listener = None

    def handler(self, name):
        if name == "ours":
            return UserlensHandler(client=self.client)
        if name == "otel":
            return LoggingHandler(logger_provider=self.provider)
        records = queue.SimpleQueue()
        target = self.handler("otel")
        self.listener = logging.handlers.QueueListener(records, target)
        self.listener.start()
        return logging.handlers.QueueHandler(records)

    def processor(self, name):
        if name == "ours":
            return UserlensProcessor(self.client)
        if name == "kept":
            return UserlensProcessor(self.client, keep_tag=True)
        if name == "copy":
            return lambda logger, method, event_dict: dict(event_dict)
        return StructlogProcessor(logger_provider=self.provider)

    def names(self):
        if self.listener is not None:
            self.listener.stop()
        assert self.client.flush(PATIENCE)
        return [event["event"] for event in self.transport.events]

    def end(self):
        self.logger.handlers.clear()
        self.client.close(timeout=0)
        if self.pool:
            self.pool.shutdown()
        client_module.registry.default = None
        structlog.reset_defaults()


HANDLERS = st.lists(st.sampled_from(["ours", "otel"]), max_size=3)
CHAINS = st.lists(st.sampled_from(["ours", "kept", "otel", "copy"]), max_size=4)


@given(
    handlers=HANDLERS,
    queued=st.booleans(),
    concurrent=st.booleans(),
    processors=st.integers(1, 2),
    wrapped=st.booleans(),
    tagged=st.booleans(),
)
@hypothesis_settings(max_examples=examples(60))
def test_any_handlers(handlers, queued, concurrent, processors, wrapped, tagged):
    """Handlers of both kinds, in any order and behind a queue; tagged or by a rule."""
    world = World(concurrent=concurrent, processors=processors)
    try:
        if wrapped:
            auto.install()
        world.logger.handlers[:] = [world.handler(name) for name in handlers]
        if queued:
            world.logger.addHandler(world.handler("queue"))
        extra = {"user_id": "u1"} | ({"userlens_event": "Tagged"} if tagged else {})
        for plan in ("pro", "free"):
            world.logger.info("Plan %s", plan, extra=extra)
        names = world.names()
    finally:
        auto.uninstall()
        world.end()

    # Behind a queue alone, the template is gone, and no rule means what is left.
    met = bool(handlers) or wrapped or (queued and tagged)
    assert ["Tagged" if tagged else "Ruled"] * 2 * met == names


@given(
    chain=CHAINS,
    bridge=st.sampled_from(sorted(BRIDGES)),
    handlers=HANDLERS,
    concurrent=st.booleans(),
    wrapped=st.booleans(),
    tagged=st.booleans(),
)
@hypothesis_settings(max_examples=examples(150))
def test_any_chain(chain, bridge, handlers, concurrent, wrapped, tagged):
    """Processors of both kinds, in any order, and then handlers of both kinds."""
    world = World(concurrent=concurrent, processors=1)
    try:
        if wrapped:
            auto.install()
        world.logger.handlers[:] = [world.handler(name) for name in handlers]
        structlog.configure(
            processors=[*map(world.processor, chain), BRIDGES[bridge]],
            logger_factory=lambda *args: world.logger,
        )
        fields = {"user_id": "u1"} | ({"userlens_event": True} if tagged else {})
        for _ in range(2):
            structlog.get_logger().info("Plan", **fields)
        names = world.names()
    finally:
        auto.uninstall()
        world.end()

    met = {*chain} - {"copy"} or wrapped or (handlers and bridge != "json")
    assert ["Plan"] * 2 * bool(met) == names


@given(handlers=HANDLERS, number=st.integers(1, 3), timed=st.booleans())
@hypothesis_settings(max_examples=examples(30))
def test_what_a_handler_logs_of_its_own_is_another_line(handlers, number, timed):
    """A handler that emits records of its own to OpenTelemetry: each is an event."""
    world = World(concurrent=False, processors=2)

    class Audits(logging.Handler):
        def emit(self, record):
            for at in range(number):
                time = int(record.created * 1e9) + 1_000_000 if timed else None
                attributes = {"userlens_event": True, "user_id": f"u{at}"}
                audited = LogRecord(body="Audited", timestamp=time, attributes=attributes)
                world.provider.get_logger("audit").emit(audited)

    try:
        world.logger.handlers[:] = [world.handler(name) for name in handlers]
        world.logger.handlers.insert(len(handlers) // 2, Audits())
        world.logger.info("Plan", extra={"user_id": "u1"})
        names = world.names()
    finally:
        world.end()

    assert ["Audited"] * number + ["Plan"] * bool(handlers) == sorted(names)


def test_a_processor_that_has_learned_the_line_does_not_send_it_again():
    """The short way is for lines that have met no other entrance."""
    world = World(concurrent=False, processors=1)
    ours = world.processor("ours")
    try:
        for before in ([], [], [world.processor("otel")]):
            structlog.configure(
                processors=[*before, ours, BRIDGES["json"]],
                logger_factory=structlog.ReturnLoggerFactory(),
            )
            # No rule means it: that would be the long way.
            structlog.get_logger().info("Bought", userlens_event=True, user_id="u1")
        names = world.names()
    finally:
        world.end()

    assert ["Bought"] * 3 == names


def test_what_a_processor_logs_of_its_own_is_another_line():
    """A processor of structlog's that emits a record of its own to OpenTelemetry."""
    world = World(concurrent=False, processors=1)

    def audit(logger, method_name, event_dict):
        attributes = {"userlens_event": True, "user_id": "u1"}
        world.provider.get_logger("audit").emit(LogRecord(body="Audited", attributes=attributes))
        return event_dict

    try:
        structlog.configure(
            processors=[audit, world.processor("otel"), audit, BRIDGES["json"]],
            logger_factory=structlog.ReturnLoggerFactory(),
        )
        structlog.get_logger().info("Plan", user_id="u1")
        names = world.names()
    finally:
        world.end()

    assert ["Audited", "Plan", "Audited"] == names


@pytest.mark.parametrize("text", ["Invoice Paid", "x"])
def test_a_variable_of_the_application_is_no_line_of_structlog(text):
    """Whatever it is called: each record is an event, and what is the application's stays as is."""
    world = World(concurrent=False, processors=1)
    line = {"event": text, "userlens_event": True}
    before = line.copy()

    def publish(event_dict, users):
        for user in users:
            attributes = {"userlens_event": True, "user_id": user}
            emitted = LogRecord(body=event_dict["event"], attributes=attributes)
            world.provider.get_logger("app").emit(emitted)

    try:
        publish(line, ["u1", "u2", "u3"])
        names = world.names()
    finally:
        world.end()

    assert [text] * 3 == names
    assert before == line
    assert before["event"] is line["event"]


@pytest.mark.parametrize("order", [["otel", "ours"], ["ours", "otel"]])
def test_it_is_the_same_event_whichever_has_it_first(order):
    """Values that JSON has, by a handler or by OpenTelemetry's: the same body."""
    bodies = []
    for handlers in (order[:1], order):
        world = World(concurrent=False, processors=1)
        try:
            world.logger.handlers[:] = [world.handler(name) for name in handlers]
            extra = {"userlens_event": True, "user_id": 7, "a": [1, {"b": None}], "c": 1.5}
            world.logger.info("Plan %s", "pro", extra=extra)
            world.names()
            (body,) = world.transport.bodies
            bodies.append({**json.loads(body), "timestamp": None})
        finally:
            world.end()

    assert bodies[0] == bodies[1]
    assert {"a": [1, {"b": None}], "c": 1.5} == bodies[0]["properties"]


@pytest.mark.parametrize("text", ["x", "Plan"])
def test_the_line_prints_as_it_did(text):
    """The mark is not seen; only beside a text of one character is the tag taken off instead."""
    world = World(concurrent=False, processors=1)
    try:
        structlog.configure(
            processors=[world.processor("otel"), world.processor("ours"), BRIDGES["json"]],
            logger_factory=structlog.ReturnLoggerFactory(),
        )
        line = structlog.get_logger().info(text, userlens_event=True, user_id="u1")
        assert [text] == world.names()
    finally:
        world.end()

    assert {"event": text, "user_id": "u1"} == json.loads(line)
