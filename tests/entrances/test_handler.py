"""The logging entrance: what becomes of tagged records, and what stays as it was."""

from __future__ import annotations

import copy
import logging
import logging.handlers
import queue
import sys
import threading
import warnings

import pytest
import structlog
from helpers import PATIENCE, examples
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import userlens_instrument
from userlens_instrument import (
    Client,
    Settings,
    SettingsError,
    UserlensHandler,
    UserlensProcessor,
    configure,
)
from userlens_instrument.client import registry
from userlens_instrument.processors import _RECORD_NAMES
from userlens_instrument.testing import CapturingTransport


@pytest.fixture
def log(client):
    """Return a stdlib logger with our handler, whose events land in `transport`."""
    return attach(UserlensHandler(client=client))


def attach(handler, name="app.billing"):
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


def test_a_tagged_record_is_a_track_named_by_its_template(log, client, transport):
    """The name is the template, not the formatted text; extra are the properties."""
    log.info("Exported %d rows", 5, extra={"userlens_event": True, "user_id": 7, "format": "csv"})

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert event.pop("timestamp").endswith("Z")
    assert {
        "type": "track",
        "userId": "7",
        "source": "userlens-restapi",
        "event": "Exported %d rows",
        "properties": {"format": "csv"},
    } == event


def test_the_events_time_is_the_records(client, transport):
    """An event that waits in a queue carries the time at which it was logged."""
    record = logging.LogRecord("app", 20, "f", 1, "E", (), None)
    record.__dict__.update(created=1_700_000_000.25, userlens_event=True, user_id="u1")
    UserlensHandler(client=client).handle(record)

    assert client.flush(PATIENCE)
    assert "2023-11-14T22:13:20.250000Z" == transport.events[0]["timestamp"]


def test_an_untagged_record_is_nothing(log, client, transport):
    """Without the tag nothing is sent or counted, whatever the message and its arguments."""
    log.info("Plain %s", "x", extra={"user_id": "u1"})
    log.info({"event": "dict"})
    log.info("%(a)s", {"a": 1})
    log.info("Off", extra={"userlens_event": False, "user_id": "u1"})

    assert client.flush(PATIENCE)
    assert ([], 0, {}) == (transport.events, client.stats().accepted, client.stats().invalid)


def test_a_mapping_under_the_tag(log, client, transport):
    """One tag whose value is a mapping holds it all, clear of reserved names."""
    log.info(
        "line",
        extra={
            "userlens_event": {
                "event": "Plan Upgraded",
                "user_id": "u1",
                "properties": {"name": "x", "message": "y", "args": [1]},
            }
        },
    )

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert "Plan Upgraded" == event["event"]
    assert {"name": "x", "message": "y", "args": [1]} == event["properties"]


@given(name=st.sampled_from(sorted(_RECORD_NAMES)), value=st.integers() | st.text())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_record_attribute_name_is_data_inside_the_mapping(make_client, name, value):
    """For any attribute name of a LogRecord: within the tag's mapping it is a property."""
    transport = CapturingTransport()
    client = make_client(transport=transport)
    attach(UserlensHandler(client=client)).info(
        "E", extra={"userlens_event": {"user_id": "u1", "properties": {name: "v"}}}
    )

    assert client.close(PATIENCE)
    assert {name: "v"} == transport.events[0]["properties"]


@given(name=st.sampled_from(sorted(_RECORD_NAMES)))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_record_attribute_is_a_property(make_client, name):
    """For any attribute name of a LogRecord: what logging puts there is no property."""
    transport = CapturingTransport()
    client = make_client(transport=transport)
    record = logging.LogRecord("app", 20, "f", 1, "E", (), None, "func", "stack")
    record.__dict__.update(userlens_event=True, user_id="u1", taskName="t", own=1)
    record.asctime = record.message = "formatted"
    assert name in record.__dict__
    UserlensHandler(client=client).handle(record)

    assert client.close(PATIENCE)
    assert {"own": 1} == transport.events[0]["properties"]


def test_other_peoples_plumbing_is_no_property(log, client, transport):
    """Trace ids, uvicorn's colours, Celery's data and Django's request are not properties."""
    log.info(
        "E",
        extra={
            "userlens_event": True,
            "user_id": "u1",
            "own": 1,
            "otelTraceID": "0",
            "otelSpanID": "0",
            "otelServiceName": "s",
            "dd.trace_id": "1",
            "dd.env": "p",
            "sentry_id": "x",
            "_logger": log,
            "color_message": "c",
            "request": object(),
        },
    )
    for name, fields in [
        ("celery.app.trace", {"data": {"id": 1}}),
        ("django.request", {"request": "r", "status_code": 500, "server_time": "t"}),
    ]:
        foreign = attach(log.handlers[0], name)
        foreign.info("E", extra={"userlens_event": True, "user_id": "u1", "own": 1, **fields})

    assert client.flush(PATIENCE)
    assert [{"own": 1}] * 3 == [event["properties"] for event in transport.events]


def test_a_lone_dict_argument_is_read(log, client, transport):
    """logging's mapping argument gives fields, and may hold the tag itself."""
    log.info("Paid %(amount)s", {"amount": 5}, extra={"userlens_event": True, "user_id": "u1"})
    log.info("Paid %(amount)s", {"amount": 6, "userlens_event": True, "user_id": "u1"})

    assert client.flush(PATIENCE)
    assert [("Paid %(amount)s", {"amount": 5}), ("Paid %(amount)s", {"amount": 6})] == [
        (event["event"], event["properties"]) for event in transport.events
    ]


def test_structlogs_event_dict_in_msg_is_read(log, client, transport):
    """wrap_for_formatter puts the event dict into msg; without the processor we read it there."""
    structlog.configure(
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *args: log,
    )
    structlog.get_logger().info("Wrapped", userlens_event=True, user_id="u1", name="data")

    assert client.flush(PATIENCE)
    assert [("Wrapped", {"name": "data"})] == [
        (event["event"], event["properties"]) for event in transport.events
    ]


def test_render_to_log_kwargs_is_read(log, client, transport):
    """render_to_log_kwargs puts the fields into extra."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs], logger_factory=lambda *args: log
    )
    structlog.get_logger().info("Rendered", userlens_event=True, user_id="u1", plan="pro")

    assert client.flush(PATIENCE)
    assert [("Rendered", {"plan": "pro"})] == [
        (event["event"], event["properties"]) for event in transport.events
    ]


def test_contextvars_serve_the_handler_too(log, client, transport):
    """The user that is bound with structlog's contextvars is the user of stdlib lines."""
    structlog.contextvars.bind_contextvars(user_id="around", request_id="r1")
    log.info("E", extra={"userlens_event": True, "own": 1})

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert ("around", {"own": 1}) == (event["userId"], event["properties"])


def test_a_logger_adapter(log, client, transport):
    """LoggerAdapter replaces a call's extra with its own: the tag works there."""
    adapter = logging.LoggerAdapter(log, {"userlens_event": True, "user_id": "u1"})
    adapter.info("Kept", extra={"lost": 1})

    assert client.flush(PATIENCE)
    assert [("Kept", None)] == [
        (event["event"], event.get("properties")) for event in transport.events
    ]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="merge_extra came with 3.13")
def test_a_logger_adapter_that_merges(log, client, transport):
    """With merge_extra the call's own tag arrives."""
    adapter = logging.LoggerAdapter(log, {"user_id": "u1"}, merge_extra=True)
    adapter.info("Merged", extra={"userlens_event": True})

    assert client.flush(PATIENCE)
    assert ["Merged"] == [event["event"] for event in transport.events]


def test_logger_exception_and_is_enabled_for(log, client, transport):
    """logger.exception with a tag is an event; a level that filters the line filters the event."""
    log.setLevel(logging.ERROR)
    if log.isEnabledFor(logging.INFO):
        pytest.fail("the level is ERROR")
    log.info("Quiet", extra={"userlens_event": True, "user_id": "u1"})
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("Import Failed", extra={"userlens_event": True, "user_id": "u1", "rows": 3})

    assert client.flush(PATIENCE)
    assert [("Import Failed", {"rows": 3})] == [
        (event["event"], event["properties"]) for event in transport.events
    ]


def test_the_handlers_own_level_and_filters(client, transport):
    """Level and filters of the handler apply, and a filter may replace the record (3.12)."""
    handler = UserlensHandler(logging.WARNING, client=client)
    handler.addFilter(lambda record: "skip" not in record.msg)
    log = attach(handler)
    fields = {"userlens_event": True, "user_id": "u1"}
    log.info("too low", extra=fields)
    log.error("skip this", extra=fields)
    log.error("Passed", extra=fields)
    if sys.version_info >= (3, 12):

        def replaced(record):
            other = copy.copy(record)
            other.msg = "Replaced"
            return other

        handler.addFilter(replaced)
        log.error("Original", extra=fields)

    assert client.flush(PATIENCE)
    expected = ["Passed"] + (["Replaced"] if sys.version_info >= (3, 12) else [])
    assert expected == [event["event"] for event in transport.events]


def test_a_filter_may_replace_the_record(client, transport):
    """What a filter returns instead of the record is what is captured (logging from 3.12 on)."""

    class Replacing(UserlensHandler):
        def filter(self, record):
            other = copy.copy(record)
            other.msg = "Replaced"
            return other

    attach(Replacing(client=client)).info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert client.flush(PATIENCE)
    assert ["Replaced"] == [event["event"] for event in transport.events]


def test_records_of_urllib3_and_of_ours_never_become_events(log, client, transport):
    """By prefix of the logger's name, whatever they carry."""
    handler = log.handlers[0]
    for name in ["urllib3", "urllib3.util.retry", "urllib3.connectionpool", "userlens_instrument"]:
        record = logging.LogRecord(name, 20, "f", 1, "E", (), None)
        record.__dict__.update(userlens_event=True, user_id="u1")
        handler.handle(record)

    assert client.flush(PATIENCE)
    assert ([], 0) == (transport.events, client.stats().accepted)


@pytest.mark.parametrize(
    ("msg", "args", "extra"),
    [
        (
            "E %(a)s",
            {"a": {"token": 1}},
            {"userlens_event": {"event": "E", "properties": {"password": "p", "deep": [1]}}},
        ),
        ({"event": "E", "userlens_event": True, "password": [1]}, (), {}),
        ("E", (), {"userlens_event": ["identify"], "traits": {"password": "p"}}),
    ],
)
def test_the_record_and_the_callers_dicts_stay_as_they_were(client, transport, msg, args, extra):
    """The handler writes on nothing that is not its own."""
    record = logging.LogRecord("app", 20, "f", 1, msg, (), None)
    record.args = args
    record.__dict__.update(extra, user_id="u1")
    snapshot, deep = dict(record.__dict__), copy.deepcopy(record.__dict__)
    UserlensHandler(client=client).handle(record)

    assert client.flush(PATIENCE)
    assert 1 == len(transport.events)
    assert snapshot == deep == record.__dict__


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    tag=anything,
    msg=anything,
    args=st.tuples() | st.tuples(anything) | st.dictionaries(st.text(), anything, max_size=3),
    extra=st.dictionaries(st.text(min_size=1), anything, max_size=4),
)
@hypothesis_settings(
    max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_raises_and_everything_is_accounted_for(make_client, tag, msg, args, extra):
    """For any record: no exception, no diagnosis but a count, every event delivered."""
    client = make_client(transport=CapturingTransport())
    record = logging.LogRecord("app", 20, "f", 1, msg, (), None)
    record.args = args
    record.__dict__.update({k: v for k, v in extra.items() if k not in _RECORD_NAMES})
    record.__dict__.update(userlens_event=tag, user_id="u1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UserlensHandler(client=client).handle(record)

    assert client.close(PATIENCE)
    assert client.stats().accepted == client.stats().delivered


def test_behind_a_queue_handler_what_survives_works(client, transport):
    """A QueueHandler formats the text and keeps extra; the listener's handler reads that."""
    records = queue.SimpleQueue()
    log = attach(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, UserlensHandler(client=client))
    listener.start()
    log.info("Exported %d rows", 5, extra={"userlens_event": True, "user_id": "u1", "x": 1})
    listener.stop()

    assert client.flush(PATIENCE)
    assert [("Exported 5 rows", {"x": 1})] == [
        (event["event"], event["properties"]) for event in transport.events
    ]


def test_it_takes_no_lock(client):
    """The handler has no lock: logging holds a handler's lock while it flushes at exit."""
    handler = UserlensHandler(client=client)

    assert handler.lock is None
    handler.acquire()
    handler.release()


def test_flush_and_close_wait_for_nothing(make_client, server):
    """They return while a request is held by the server; the event is delivered all the same."""
    release = threading.Event()
    from helpers import Reply

    server.script = lambda request: Reply(hold=release)
    client = make_client()
    handler = UserlensHandler(client=client)
    log = attach(handler)
    log.info("E", extra={"userlens_event": True, "user_id": "u1"})
    assert server.wait_for(1)
    handler.flush()
    handler.close()
    log.info("After close", extra={"userlens_event": True, "user_id": "u1"})
    release.set()

    assert client.flush(PATIENCE)
    assert 2 == client.stats().delivered


def test_equal_settings_share_a_client_and_different_ones_do_not(server):
    """One client per distinct settings, found at the first event."""
    settings = {"write_code": "a", "events_url": server.url}
    for given_settings in [settings, dict(settings), {**settings, "max_workers": 3}]:
        attach(UserlensHandler(**given_settings)).info(
            "E", extra={"userlens_event": True, "user_id": "u1"}
        )

    assert userlens_instrument.flush(PATIENCE)
    assert 2 == len(registry.clients)
    assert 3 == userlens_instrument.stats().delivered


def test_configure_may_come_after_logging_is_set_up(server):
    """A handler without settings finds the default client at its first event."""
    log = attach(UserlensHandler())
    configure("code", events_url=server.url)
    log.info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert userlens_instrument.flush(PATIENCE)
    assert ["E"] == [event["event"] for event in server.events]


def test_without_configure_the_environment_configures(server, monkeypatch):
    """USERLENS_* alone make the default client."""
    monkeypatch.setenv("USERLENS_WRITE_CODE", "code")
    monkeypatch.setenv("USERLENS_EVENTS_URL", server.url)
    attach(UserlensHandler()).info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert userlens_instrument.flush(PATIENCE)
    assert ["E"] == [event["event"] for event in server.events]


def test_a_wrong_environment_is_one_line_and_a_client_that_drops(monkeypatch, diagnostics_lines):
    """On the logging path a wrong environment raises nothing; events are counted as dropped."""
    log = attach(UserlensHandler())
    monkeypatch.setenv("USERLENS_MAX_WORKERS", "many")
    for _ in range(3):
        log.info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert {"disabled": 3} == dict(userlens_instrument.stats().dropped)
    level, line = diagnostics_lines.get(timeout=PATIENCE)
    assert ("ERROR", True) == (level, "max_workers (from USERLENS_MAX_WORKERS)" in line)


def test_a_misspelled_variable_is_one_line_without_its_value(monkeypatch, diagnostics_lines):
    """The typo in the deployment is named, and what may have been meant."""
    monkeypatch.setenv("USERLENS_WRITECODE", "wc-secret")
    attach(UserlensHandler()).info("E", extra={"userlens_event": True, "user_id": "u1"})

    lines = {diagnostics_lines.get(timeout=PATIENCE)[1] for _ in range(2)}
    assert "USERLENS_WRITECODE is not a setting, and ignored: USERLENS_WRITE_CODE is one" in lines
    assert not any("wc-secret" in line for line in lines)


def test_a_missing_write_code_is_said_once(diagnostics_lines):
    """Without a write code: one warning, then a no-op that counts."""
    log = attach(UserlensHandler())
    for _ in range(3):
        log.info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert {"no_write_code": 3} == dict(userlens_instrument.stats().dropped)
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert "USERLENS_WRITE_CODE" in line
    assert diagnostics_lines.empty()


def test_a_wrong_setting_is_an_error_at_start_up():
    """A handler with a wrong setting is not made; the error names setting, problem and fix."""
    with pytest.raises(SettingsError, match="max_workers is out of range; give 1 to 256"):
        UserlensHandler(max_workers=0)
    with pytest.raises(SettingsError, match="did you mean max_workers"):
        UserlensHandler(max_worker=2)


@pytest.mark.parametrize("entrance", [UserlensHandler, UserlensProcessor])
def test_what_is_wrong_at_start_up_is_an_error_there(monkeypatch, entrance):
    """A wrong environment, or a client that is none, does not wait for the first event."""
    with pytest.raises(SettingsError, match="client is of type str; give what configure"):
        entrance(client="a write code")
    monkeypatch.setenv("USERLENS_MAX_WORKERS", "many")
    with pytest.raises(SettingsError, match="from USERLENS_MAX_WORKERS"):
        entrance()
    assert entrance(client=Client(Settings(write_code="x")))


def test_the_repr_tells_the_options_and_no_secret():
    """A handler shows up in logging's own tools; the write code does not."""
    handler = UserlensHandler(write_code="s3cr3t")

    assert "UserlensHandler (NOTSET)" in repr(handler)
    assert "s3cr3t" not in repr(handler)
