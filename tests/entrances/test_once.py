"""Once only: a record that meets several entrances becomes one event."""

from __future__ import annotations

import itertools
import logging
import logging.handlers
import queue
import threading

import pytest
import structlog
from helpers import PATIENCE
from structlog.stdlib import ExtraAdder, ProcessorFormatter

from userlens_instrument import Track, UserlensHandler, UserlensProcessor
from userlens_instrument._core.once import OnceGuard


FIELDS = {"user_id": "user-1", "plan": "pro"}
BRIDGES = {
    "wrap_for_formatter": ProcessorFormatter.wrap_for_formatter,
    "render_to_log_kwargs": structlog.stdlib.render_to_log_kwargs,
}


class Sink(logging.Handler):
    """Formats every record, as a stream handler does, and keeps the text."""

    def __init__(self, formatter):
        super().__init__()
        self.setFormatter(formatter)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def formatter(client):
    """Return a ProcessorFormatter that has our processor in both of its chains."""
    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder(), UserlensProcessor(client)],
        processors=[
            UserlensProcessor(client),
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def handlers_in(order, client):
    made = {
        "ours": lambda: UserlensHandler(client=client),
        "sink": lambda: Sink(formatter(client)),
    }
    return [made[name]() for name in order]


ORDERS = [
    *itertools.islice(itertools.permutations(["ours", "sink", "ours", "sink"]), 6),
    ["sink"],
    ["ours"],
]


@pytest.mark.parametrize("tag", [True, "Plan Upgraded", {"event": "Plan Upgraded"}, ["track"]])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_stdlib_record_meets_handlers_and_formatters(client, transport, order, tag):
    """Root and child handlers, two formatters, foreign_pre_chain: one event, in any order."""
    handlers = handlers_in(order, client)
    child = logging.getLogger("once.child")
    half = len(handlers) // 2
    child.handlers[:] = handlers[:half]
    logging.getLogger("once").handlers[:] = handlers[half:]
    logging.getLogger("once").propagate = False
    child.setLevel(logging.INFO)
    child.info("Plan Upgraded", extra={"userlens_event": tag, **FIELDS})
    child.info("Plan Upgraded", extra={"userlens_event": tag, **FIELDS})

    assert client.flush(PATIENCE)
    assert ["Plan Upgraded"] * 2 == [event["event"] for event in transport.events]
    assert [{"plan": "pro"}] * 2 == [event["properties"] for event in transport.events]


@pytest.mark.parametrize("keep_tag", [False, True])
@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("in_chain", [False, True])
@pytest.mark.parametrize("tag", [True, "Plan Upgraded", {"event": "Plan Upgraded"}, ["track"]])
def test_a_structlog_line_goes_through_stdlib(
    client, transport, keep_tag, bridge, queued, in_chain, tag
):
    """Processor, bridge, QueueHandler, formatter and handlers: one event, whichever are there."""
    ours, sink = UserlensHandler(client=client), Sink(formatter(client))
    log = logging.getLogger("once.structlog")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [sink, ours]
    listener = None
    if queued:
        records = queue.SimpleQueue()
        log.handlers.append(logging.handlers.QueueHandler(records))
        listener = logging.handlers.QueueListener(records, UserlensHandler(client=client))
        listener.start()
    processors = [UserlensProcessor(client, keep_tag=keep_tag)] if in_chain else []
    structlog.configure(processors=[*processors, BRIDGES[bridge]], logger_factory=lambda *args: log)
    for _ in range(3):
        structlog.get_logger().info("Plan Upgraded", userlens_event=tag, **FIELDS)
    if listener is not None:
        listener.stop()

    assert client.flush(PATIENCE)
    assert ["Plan Upgraded"] * 3 == [event["event"] for event in transport.events]
    assert [{"plan": "pro"}] * 3 == [event["properties"] for event in transport.events]


@pytest.mark.parametrize("tag", [True, "Plan Upgraded", {"event": "Plan Upgraded"}])
@pytest.mark.parametrize("bridge", BRIDGES)
def test_only_behind_a_queue_and_tag_kept(client, transport, tag, bridge):
    """A processor that keeps the tag, and the handler behind a queue only: one event."""
    records = queue.SimpleQueue()
    log = logging.getLogger("once.queue")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [logging.handlers.QueueHandler(records)]
    listener = logging.handlers.QueueListener(records, UserlensHandler(client=client))
    listener.start()
    structlog.configure(
        processors=[UserlensProcessor(client, keep_tag=True), BRIDGES[bridge]],
        logger_factory=lambda *args: log,
    )
    structlog.get_logger().info("Plan Upgraded", userlens_event=tag, **FIELDS)
    listener.stop()

    assert client.flush(PATIENCE)
    assert 1 == len(transport.events)


def test_two_processors_in_one_chain(client, transport):
    """The same event dict, twice, with the tag kept: one event."""
    structlog.configure(
        processors=[
            UserlensProcessor(client, keep_tag=True),
            UserlensProcessor(client),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    line = structlog.get_logger().info("Plan Upgraded", userlens_event=True, **FIELDS)

    assert client.flush(PATIENCE)
    assert 1 == len(transport.events)
    assert "userlens_event" not in line


def test_clients_of_one_destination_count_as_one_road(make_client, transport):
    """Handlers that differ in settings but send to the same place send a record once."""
    log = logging.getLogger("once.destination")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [
        UserlensHandler(client=make_client(transport=transport, max_workers=workers))
        for workers in (1, 2)
    ]
    log.info("E", extra={"userlens_event": True, **FIELDS})
    for handler in log.handlers:
        assert handler._given.flush(PATIENCE)

    assert 1 == len(transport.events)


def test_clients_of_two_destinations_both_send(make_client, transport):
    """Two write codes are two workspaces: each gets the event."""
    log = logging.getLogger("once.destinations")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [
        UserlensHandler(client=make_client(transport=transport, write_code=code))
        for code in ("one", "two")
    ]
    log.info("E", extra={"userlens_event": True, **FIELDS})
    for handler in log.handlers:
        assert handler._given.flush(PATIENCE)

    assert 2 == len(transport.events)


def test_a_frozen_clock_does_not_make_records_equal(client, transport, monkeypatch):
    """Records made at the very same time are different records."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
    log = logging.getLogger("once.frozen")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client), UserlensHandler(client=client)]
    for _ in range(3):
        log.info("E", extra={"userlens_event": True, **FIELDS})

    assert client.flush(PATIENCE)
    assert 3 == len(transport.events)


@pytest.mark.parametrize("changed", [None, 0, "12 ms", int], ids=repr)
def test_what_a_filter_makes_of_the_time_does_not_make_records_equal(client, transport, changed):
    """A filter that sets `relativeCreated`, to the same for many: each is a record of its own."""

    def change(record):
        record.relativeCreated = changed(record.relativeCreated % 1) if changed is int else changed
        return True

    log = logging.getLogger("once.changed")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client), UserlensHandler(client=client)]
    log.filters[:] = [change]
    for _ in range(3):
        log.info("E", extra={"userlens_event": True, **FIELDS})

    assert client.flush(PATIENCE)
    assert 3 == len(transport.events)
    assert 3 == client.stats().duplicates


@pytest.mark.parametrize("held", [1_000, 20_000])
def test_records_that_are_held_back_are_recognised_however_many(client, transport, held):
    """A MemoryHandler before one handler, and another beside it: each record is one event."""
    log = logging.getLogger("once.held")
    log.propagate = False
    log.setLevel(logging.INFO)
    memory = logging.handlers.MemoryHandler(held, target=UserlensHandler(client=client))
    log.handlers[:] = [UserlensHandler(client=client), memory]
    for _ in range(held):
        log.info("E", extra={"userlens_event": True, **FIELDS})

    assert not memory.buffer
    assert held == client.stats().duplicates
    assert held == client.stats().accepted


def test_the_guard_remembers_what_is_held_and_little_else():
    """What nobody holds is forgotten; its place in memory may be another record's."""
    guard = OnceGuard()
    held = [float(number) for number in range(1_000)]
    assert all(guard.claim(token) for token in held)
    for number in range(10_000):
        assert guard.claim(float(number))
        assert len(guard) <= 2 * (len(held) + 64)

    assert not any(guard.claim(token) for token in held)
    held.clear()
    for number in range(3_000):
        assert guard.claim(float(number))
    assert len(guard) <= 65


def test_the_guard_is_one_for_threads_that_claim_and_sweep_at_once():
    """Of the threads that bring a record, one claims it; whatever is swept meanwhile."""
    guard = OnceGuard()
    together = threading.Barrier(4)
    shared = [float(number) for number in range(20_000)]
    won = [0, 0, 0, 0]

    def bring(which):
        together.wait(PATIENCE)
        for token in shared:
            won[which] += guard.claim(token)
            guard.claim(-token - 1.0)  # nobody else's: there to be swept

    threads = [threading.Thread(target=bring, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(shared) == sum(won)


def test_what_is_not_sent_twice_is_counted(client, transport):
    """The second entrance of a record is a duplicate in the statistics."""
    log = logging.getLogger("once.counted")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client), UserlensHandler(client=client)]
    log.info("E", extra={"userlens_event": True, **FIELDS})

    assert 1 == client.stats().duplicates


@pytest.mark.parametrize("tag", [True, Track("user-1", "Plan Upgraded"), "Plan Upgraded"])
@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("message", ["Plan Upgraded", "x"])
def test_a_kept_tag_beside_a_processor_that_copies(client, transport, message, bridge, tag):
    """The mark survives a copy of the event dict; where no mark can be, the tag is not kept."""
    log = logging.getLogger("once.copied")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client)]
    structlog.configure(
        processors=[
            UserlensProcessor(client, keep_tag=True),
            lambda logger, name, event_dict: dict(sorted(event_dict.items())),
            BRIDGES[bridge],
        ],
        logger_factory=lambda *args: log,
    )
    structlog.get_logger().info(message, userlens_event=tag, **FIELDS)

    assert client.flush(PATIENCE)
    assert 1 == len(transport.events)
