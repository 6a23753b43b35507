"""The short way: a line of a known shape is the same event, byte for byte, in one pass."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
import tracemalloc

import pytest
from helpers import examples
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from values import VALUES

from userlens_instrument import Client, Settings, UserlensHandler, UserlensProcessor, processors
from userlens_instrument._core import jsonable, shape
from userlens_instrument._core.extract import Reader
from userlens_instrument._core.shape import Shapes, flat_id
from userlens_instrument.processors import _RECORD_NAMES
from userlens_instrument.testing import CapturingTransport


NOW = 1_764_000_000.25
LINE = {"event": "Plan Upgraded", "userlens_event": True, "user_id": "u1", "plan": "pro"}
FLAT = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(min_size=4_000, max_size=4_200),
    st.sampled_from(["\ud800", "é", "\x00", 2**63, 2**64, -(2**63) - 1, float("nan"), -0.0]),
)
FIELD_NAMES = """
    plan seats password api_key userId user_id userlens_user_id level logger timestamp properties
    traits request module lineno dd.trace_id otelTraceID exc_info é
"""
NAMES = st.sampled_from([*FIELD_NAMES.split(), "\ud800", "k" * 300]) | st.text(max_size=5)
FIELDS = st.dictionaries(NAMES, st.one_of(FLAT, FLAT, VALUES), max_size=9)
EVENTS = st.one_of(st.sampled_from(["Plan Upgraded", "", " ", "é", "n" * 600]), FLAT, VALUES)
USERS = st.one_of(st.sampled_from(["u1", 7, -7, 2**70, "", " ", "é", True, None]), FLAT, VALUES)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "send_timestamp": st.booleans(),
        "max_string": st.sampled_from([16, 64, 4_096, 10_000]),
        "max_properties": st.sampled_from([1, 3, 128]),
        "max_body_bytes": st.sampled_from([8_192, 65_536]),
        "redact": st.sampled_from([(), ("plan",), ("-*",), ("-password",)]),
        "allow": st.sampled_from([None, ("plan",)]),
        "user_id_keys": st.sampled_from([("userId", "user_id"), ("user_id",)]),
    },
)


def quiet_client(**settings):
    """Return a client that starts no thread: what comes in stays where it can be looked at."""
    client = Client(Settings(write_code="wc", **settings), transport=CapturingTransport())
    client.sender.call = False
    return client


def taken(client):
    """Return what has come in since the last time: kind, user and body of each."""
    sender = client.sender
    sender._admit_now()
    found = [(one.kind, one.user_id, one.body) for one in sender._schedule.payloads()]
    counts = sender.ledger.read()
    sender.reset()
    sender.call = False
    return found, {key: number for key, number in counts.items() if key[0] != "accepted"}


def read(processor, client, fields):
    event_dict = dict(fields)
    assert processor(None, "info", event_dict) is event_dict
    return taken(client), event_dict


def handle(handler, client, extra, msg, args):
    record = logging.LogRecord("app", 20, "app.py", 1, msg, args, None)
    record.created = NOW
    record.__dict__.update(extra)
    before = dict(record.__dict__)
    handler.handle(record)
    assert before == record.__dict__
    return taken(client)


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    monkeypatch.setattr(processors, "_wall", lambda: NOW)


@given(FIELDS, EVENTS, USERS, SETTINGS)
@hypothesis_settings(max_examples=examples(300))
def test_an_event_dict_is_the_same_event_the_second_time(fields, name, user, settings):
    """Whatever the line holds: the same bytes, the same counts, the same dict handed on."""
    client = quiet_client(**settings)
    processor = UserlensProcessor(client)
    line = {"event": name, "user_id": user, **fields, "userlens_event": True}

    first = read(processor, client, line)
    assume(not any(value != value for value in line.values() if type(value) is float))  # noqa: PLR0124

    assert first == read(processor, client, line) == read(processor, client, line)


@given(FIELDS, EVENTS, USERS, SETTINGS, st.sampled_from([(), (1,), ({"rows": 5},), None]))
@hypothesis_settings(max_examples=examples(300))
def test_a_record_is_the_same_event_the_second_time(fields, name, user, settings, args):
    """Whatever the record holds: the same bytes, the same counts."""
    client = quiet_client(**settings)
    handler = UserlensHandler(client=client)
    extra = {"user_id": user, **fields, "userlens_event": True}
    extra = {key: value for key, value in extra.items() if key not in _RECORD_NAMES}

    first = handle(handler, client, extra, name, args)

    assert first == handle(handler, client, extra, name, args)
    assert first == handle(handler, client, extra, name, args)


COMMON = {
    "six properties": {"a": 1, "b": "x", "c": 2.5, "d": None, "e": True, "f": "y"},
    "no property": {},
    "one property": {"a": 1},
    "the plumbing": {"level": "info", "logger": "app", "timestamp": "2026-11-23T18:00:00Z"},
    "an integer user": {"user_id": 12},
    "empty text": {"a": ""},
    "other languages": {"a": "日本", "ключ": 1},
}
ODD = {
    "a list": {"a": [1]},
    "a mapping": {"a": {"b": 1}},
    "a secret": {"password": "x"},
    "a date": {"a": __import__("datetime").date(2026, 11, 23)},
    "a text of its own kind": {"a": type("Text", (str,), {})("x")},
    "a large integer": {"a": 2**70},
    "half a character": {"a": "\ud800"},
    "a long text": {"a": "x" * 5_000},
    "a user in other letters": {"user_id": "é"},
    "no user": {"user_id": None},
    "exact properties": {"properties": {"a": 1}},
    "a timestamp that is an object": {"timestamp": object()},
}


@pytest.mark.parametrize("name", [*COMMON, *ODD])
@pytest.mark.parametrize("entrance", ["processor", "handler"])
def test_which_lines_go_the_short_way(name, entrance):
    """The common ones from the second time on; what needs a closer look never."""
    client = quiet_client()
    if entrance == "processor":
        made = UserlensProcessor(client)
        line = LINE | (COMMON | ODD)[name]
        read(made, client, line)
        short = made._take(dict(line))
    else:
        made = UserlensHandler(client=client)
        extra = {key: value for key, value in LINE.items() if key != "event"}
        extra |= (COMMON | ODD)[name]
        handle(made, client, extra, "Plan Upgraded", ())
        record = logging.LogRecord("app", 20, "app.py", 1, "Plan Upgraded", (), None)
        short = made._take(vars(record) | extra)

    assert (name in COMMON) is short


@pytest.mark.parametrize(
    ("stamp", "moment"),
    [
        ("2026-11-23T18:00:00Z", "2026-11-23T18:00:00.000000Z"),
        (1_764_000_000, "2025-11-24T16:00:00.000000Z"),
        ("soon", "2025-11-24T16:00:00.250000Z"),  # when it was logged
    ],
)
@pytest.mark.parametrize("entrance", ["processor", "handler"])
def test_a_timestamp_on_the_line_is_the_events(stamp, moment, entrance):
    """Read by a sender thread, and the same as if the log call had read it."""
    client = quiet_client()
    made = UserlensProcessor(client) if entrance == "processor" else UserlensHandler(client=client)
    line = LINE | {"timestamp": stamp}
    extra = {key: value for key, value in line.items() if key != "event"}
    for _ in range(3):
        if entrance == "processor":
            found, _ = read(made, client, line)[0]
        else:
            found, _ = handle(made, client, extra, "Plan Upgraded", ())
        assert moment == json.loads(found[0][2])["timestamp"]


def test_a_name_of_an_event_is_looked_at_before_it_is_known():
    """A shape that is known with a name that is not goes the long way, once."""
    client = quiet_client()
    processor = UserlensProcessor(client)
    read(processor, client, LINE)
    other = LINE | {"event": "Plan Cancelled"}

    assert not processor._take(dict(other))
    read(processor, client, other)
    assert processor._take(dict(other))


@pytest.mark.parametrize("kind", ["celery.task", "django.request", "urllib3.connectionpool"])
def test_loggers_of_others_go_the_long_way(kind):
    """Celery and Django put objects of theirs beside their lines."""
    client = quiet_client()
    handler = UserlensHandler(client=client)
    extra = {key: value for key, value in LINE.items() if key != "event"}
    handle(handler, client, extra, "Plan Upgraded", ())
    record = logging.LogRecord(kind, 20, "app.py", 1, "Plan Upgraded", (), None)

    assert not handler._take(vars(record) | extra)


def test_a_second_handler_sends_nothing_twice_the_short_way():
    """The record is recognised at its second entrance, whichever way it goes there."""
    client = quiet_client()
    first, second = UserlensHandler(client=client), UserlensHandler(client=client)
    extra = {key: value for key, value in LINE.items() if key != "event"}
    for _ in range(3):
        record = logging.LogRecord("app", 20, "app.py", 1, "Plan Upgraded", (), None)
        record.__dict__.update(extra)
        for handler in (first, second, first):
            handler.handle(record)

    assert 3 == client.stats().accepted
    assert 6 == client.stats().duplicates


def test_where_nothing_is_sent_there_is_no_short_way():
    """Each event is counted as dropped, and why."""
    client = quiet_client(disabled=True)
    processor, handler = UserlensProcessor(client), UserlensHandler(client=client)
    extra = {key: value for key, value in LINE.items() if key != "event"}
    for _ in range(3):
        processor(None, "info", dict(LINE))
        handler.handle(record_of(extra))

    assert {"disabled": 6} == dict(client.stats().dropped)


def test_a_line_within_a_formatter_goes_the_long_way():
    """There a handler may have had the record, or may be about to."""
    client = quiet_client()
    processor = UserlensProcessor(client)
    line = LINE | {"_record": record_of({})}
    read(processor, client, line)

    assert not processor._take(dict(line))


def test_a_kept_tag_anywhere_sends_every_line_the_long_way():
    """Beside a processor that keeps the tag, a text may be the mark of an event that is taken."""
    client = quiet_client()
    processor = UserlensProcessor(client)
    read(processor, client, LINE)
    assert processor._take(dict(LINE))
    UserlensProcessor(client, keep_tag=True)(None, "info", dict(LINE))

    assert not processor._take(dict(LINE))


def test_a_full_buffer_is_told_the_long_way():
    """The short way counts nothing: what does not fit is dropped, and said, where that is done."""
    client = quiet_client(max_queue_events=3)
    processor = UserlensProcessor(client)
    for _ in range(5):
        processor(None, "info", dict(LINE))
    stats = client.stats()

    assert (5, 3, {"queue_full": 2}) == (stats.accepted, stats.pending, stats.dropped)


def test_another_default_client_has_a_short_way_of_its_own(monkeypatch):
    """configure() after the first events: the old road is left at once."""
    old, new = quiet_client(), quiet_client()
    monkeypatch.setattr(processors.registry, "default", old)
    processor, handler = UserlensProcessor(), UserlensHandler()
    extra = {key: value for key, value in LINE.items() if key != "event"}
    for client in (old, new):
        monkeypatch.setattr(processors.registry, "default", client)
        for _ in range(3):
            processor(None, "info", dict(LINE))
            record = logging.LogRecord("app", 20, "app.py", 1, "Plan Upgraded", (), None)
            record.__dict__.update(extra)
            handler.handle(record)

    assert 6 == old.stats().accepted == new.stats().accepted


def test_without_orjson_every_line_goes_the_long_way(monkeypatch):
    """The other encoder takes what orjson refuses."""
    monkeypatch.setattr(jsonable, "orjson", None)
    client = quiet_client()
    processor = UserlensProcessor(client)
    read(processor, client, LINE)

    assert not processor._take(dict(LINE))


def test_the_memory_of_shapes_is_bounded():
    """A program that makes up names of fields and events gets no more than a bounded memory."""
    reader = Reader(user_id_keys=("user_id",), group_id_keys=(), plumbing=processors.PLUMBING)
    shapes = Shapes(reader, Settings(), tag="userlens_event", text="event", never=frozenset())
    for number in range(6_000):
        shapes.learn((*LINE, f"field{number}"), f"Event {number}")
        shapes.learn_logger(f"app.{number}")

    assert shape._MOST_SHAPES == len(shapes.known)
    assert shape._MOST_NAMES == len(shapes.events) == len(shapes.loggers)


@given(USERS)
def test_an_id_at_a_glance_is_the_id(value):
    """What is taken at a glance is what the closer look would have made of it."""
    from userlens_instrument._core.extract import identifier

    found = flat_id(value)

    assert found is None or found == identifier(value, "user")


def count_calls(act):
    """Return the functions that *act* calls, Python's and C's, by name."""
    python, c = [], []

    def profile(frame, event, arg):
        if event == "call":
            python.append(frame.f_code.co_name)
        elif event == "c_call":
            c.append(arg.__name__)

    gc.disable()  # what a collection calls is none of ours
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    # Its own lambda, and the end of the measurement.
    return python[1:], c[:-1]


def record_of(extra):
    record = logging.LogRecord("app", 20, "app.py", 1, "Plan Upgraded", (), None)
    record.__dict__.update(extra)
    return record


COSTS = {
    # Python's functions, and at most so many of C's.
    ("structlog", "tagged"): (["__call__", "_take"], 14),
    ("structlog", "untagged"): (["__call__"], 0),
    ("logging", "tagged"): (["handle", "emit", "_take", "claim"], 14),
    ("logging", "untagged"): (["handle", "emit"], 0),
}


@pytest.mark.parametrize(("entrance", "line"), COSTS)
def test_what_a_line_costs_the_caller(entrance, line, monkeypatch):
    """Function calls do not grow, and no lock is taken: the guard of the hot path."""
    client = quiet_client()
    fields = LINE | {"seats": 5}
    extra = {key: value for key, value in fields.items() if key != "event"}
    if entrance == "structlog":
        processor = UserlensProcessor(client)
        act, first, second = (lambda given: processor(None, "info", given)), fields, dict(fields)
        names = second
    else:
        act, first, second = (
            UserlensHandler(client=client).handle,
            record_of(extra),
            record_of(extra),
        )
        names = vars(second)
    act(first)
    monkeypatch.setattr(processors, "_wall", time.time)
    if line == "untagged":
        del names["userlens_event"]
    python, c = count_calls(lambda: act(second))
    python = [name for name in python if name != "<lambda>"]  # this test's own

    expected, most = COSTS[entrance, line]
    assert expected == python
    assert len(c) <= most
    assert not {"acquire", "release", "__enter__", "__exit__"} & set(c)
    assert (2 if line == "tagged" else 1) == client.stats().accepted


def test_what_a_held_event_weighs():
    """A track with 250 bytes of properties holds less than a KiB, with all that is around it."""
    client = quiet_client(max_queue_events=100_000)
    processor = UserlensProcessor(client)
    fields = {f"field{number}": "x" * 30 for number in range(6)}
    read(processor, client, LINE | fields)
    tracemalloc.start()
    try:
        for number in range(5_000):
            processor(None, "info", {**LINE, **fields, "user_id": f"user {number}"})
        client.sender._admit_now()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 5_000 == client.stats().pending
    assert held / 5_000 < 1_024


@pytest.mark.parametrize("stamp", ["2026-11-24T00:00:00Z".ljust(65), 10**400, "x" * 10**6])
def test_a_long_timestamp_is_read_at_once(stamp):
    """What waits to be read is not weighed, so it is small."""
    client = quiet_client()
    processor, handler = UserlensProcessor(client), UserlensHandler(client=client)
    line = {**LINE, "timestamp": "2026-11-24T00:00:00Z"}
    for _ in range(2):
        processor(None, "info", dict(line))
        handler.handle(record_of({key: line[key] for key in line if key != "event"}))
    client.stats()
    assert processor._take(dict(line))
    assert handler._take(vars(record_of({key: line[key] for key in line if key != "event"})))
    line["timestamp"] = stamp

    assert not processor._take(dict(line))
    assert not handler._take(vars(record_of({key: line[key] for key in line if key != "event"})))
