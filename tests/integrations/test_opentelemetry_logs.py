"""Log records of OpenTelemetry that are tagged, or that a rule means, become events."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import structlog
from helpers import PATIENCE, run_python
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.structlog import StructlogProcessor
from opentelemetry.sdk import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider

from userlens_instrument import (
    Group,
    Identify,
    MissingExtraError,
    SettingsError,
    Track,
    UserlensError,
)
from userlens_instrument import client as client_module
from userlens_instrument._delivery.threads import lent_thread
from userlens_instrument.integrations import opentelemetry as integration
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor, logs


TAGGED = {"userlens_event": True, "user_id": "u1"}


def provider_of(*processors):
    provider = LoggerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider


@pytest.fixture
def provider(client):
    return provider_of(UserlensLogRecordProcessor(client))


@pytest.fixture
def log(provider):
    """Return a logger of `logging` whose records go to OpenTelemetry, and nowhere else."""
    return logger_to(provider)


def logger_to(provider, name="otel"):
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.handlers[:] = [LoggingHandler(logger_provider=provider, log_code_attributes=True)]
    return logger


def emit(provider, body="Plan Upgraded", scope="shop", **options):
    attributes = options.pop("attributes", TAGGED)
    record = LogRecord(body=body, attributes=attributes, **options)
    provider.get_logger(scope).emit(record)


def sent(client, transport):
    """Return each event that was sent, as (name, user, properties)."""
    assert client.flush(PATIENCE)
    return [
        (event.get("event"), event["userId"], event.get("properties", event.get("traits", {})))
        for event in transport.events
    ]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (True, ("track", "Plan Upgraded")),
        ("track", ("track", "Plan Upgraded")),
        ("Upgraded", ("track", "Upgraded")),
        ("identify", ("identify", None)),
        ({"event": "Upgraded", "type": "track"}, ("track", "Upgraded")),
        (("Upgraded",), ("track", "Upgraded")),
        (False, None),
        (None, None),
    ],
)
def test_a_tagged_record_is_an_event(client, transport, provider, tag, expected):
    """The attribute means what the tag means at every entrance."""
    emit(provider, attributes={"userlens_event": tag, "user_id": "u1", "seats": 3})
    emit(provider, attributes={"user_id": "u1"})
    emit(provider, attributes=None)

    assert client.flush(PATIENCE)
    found = [(event["type"], event.get("event")) for event in transport.events]
    assert ([] if expected is None else [expected]) == found


def test_attributes_are_properties_less_the_plumbing(client, transport, log):
    """What OpenTelemetry adds to a record is no property; what the call gave is."""
    try:
        raise KeyError("x")
    except KeyError:
        extra = {**TAGGED, "plan": "pro", "nested": {"a": [1]}, "thread.id": 5}
        log.exception("Export Failed", extra=extra)

    expected = [("Export Failed", "u1", {"plan": "pro", "nested": {"a": [1]}})]
    assert expected == sent(client, transport)


def test_the_name_is_the_template(client, transport, log):
    """Not the text with the numbers in it: that would be an event of its own for each number."""
    log.info("Exported %d rows", 5, extra=TAGGED)
    log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.info("Exported %d rows", 6, extra=TAGGED)
    log.info("Exported %(rows)d rows", {"rows": 7}, extra=TAGGED)

    assert [
        ("Exported %d rows", "u1", {}),
        ("Exported %d rows", "u1", {}),
        ("Exported %(rows)d rows", "u1", {"rows": 7}),
    ] == sent(client, transport)


class Redact(_logs.LogRecordProcessor):
    """Takes out of a record what must not leave the process, as a processor before ours may."""

    def on_emit(self, log_record):
        log_record.log_record.body = "Mail to [hidden]"
        log_record.log_record.attributes = {**log_record.log_record.attributes, "email": "[hidden]"}

    def shutdown(self):
        """Do nothing."""

    def force_flush(self, timeout_millis=30000):
        return True


def test_what_a_processor_before_it_has_changed_stays_changed(client, transport):
    """Neither the attributes nor the text are read from anywhere else."""
    log = logger_to(provider_of(Redact(), UserlensLogRecordProcessor(client)))
    log.info("Mail to %s", "ann@example.com", extra={**TAGGED, "email": "ann@example.com"})

    assert [("Mail to [hidden]", "u1", {"email": "[hidden]"})] == sent(client, transport)


def test_the_users_id_may_be_where_semantic_conventions_put_it(client, transport, provider):
    """``user.id`` counts, after the names of the settings."""
    emit(provider, attributes={"userlens_event": True, "user.id": "u2"})
    emit(provider, attributes={"userlens_event": True, "user.id": "u2", "user_id": "u1"})

    assert {("Plan Upgraded", "u2"), ("Plan Upgraded", "u1")} == {
        event[:2] for event in sent(client, transport)
    }


def test_an_event_of_opentelemetry_has_its_name(client, transport, provider):
    """A record with an ``event_name`` is called by it; a body that is a mapping holds fields."""
    emit(provider, body="text", event_name="user.upgraded")
    emit(provider, body={"event": "Upgraded", "plan": "pro", "userlens_event": True})
    emit(provider, body={"event": "Not Tagged"}, attributes={"user_id": "u1"})

    assert [("user.upgraded", "u1", {}), ("Upgraded", "u1", {"plan": "pro"})] == sent(
        client, transport
    )


def test_the_time_is_the_records(client, transport, provider):
    """The time of the record, or else when it was observed."""
    emit(provider, timestamp=1_764_000_000_250_000_000)
    emit(provider, observed_timestamp=1_764_000_001_000_000_000)

    assert client.flush(PATIENCE)
    assert ["2025-11-24T16:00:00.250000Z", "2025-11-24T16:00:01.000000Z"] == [
        event["timestamp"] for event in transport.events
    ]


def test_structlog_in_a_record_of_logging(client, transport, log):
    """The dict that `wrap_for_formatter` puts into ``msg`` arrives as text, and is read."""
    extra = {"_logger": None, "_name": "info"}
    log.info({"event": "Plan Upgraded", "plan": "pro", **TAGGED}, extra=extra)

    assert [("Plan Upgraded", "u1", {"plan": "pro"})] == sent(client, transport)


def test_an_object_as_tag_is_taken_from_where_it_is(client, transport, provider, log):
    """An attribute holds the repr of an object: that is no name, and may show what is secret."""
    log.info("x", extra={"userlens_event": Track("u1", "Upgraded", {"password": "p"})})
    log.info(
        {"event": "x", "userlens_event": Group("g1", "u1", {"seats": 2})}, extra={"_name": "info"}
    )
    emit(provider, attributes={"userlens_event": Track("u1", "Upgraded", {"password": "p"})})

    assert [("Upgraded", "u1", {"password": "[redacted]"}), (None, "u1", {"seats": 2})] == sent(
        client, transport
    )
    assert {"invalid_tag": 1} == client.stats().invalid


@dataclass
class Account:
    """An object of the application's, with something secret in it."""

    password: str = "hunter2"
    plan: str = "pro"


class Login(NamedTuple):
    """A tuple whose fields have names."""

    user: str
    password: str


class Odd:
    """Raises whenever it is asked for its text but the first time, which is OpenTelemetry's."""

    def __init__(self):
        self.asked = 0

    def __str__(self):
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError
        return "odd"


ACCOUNT = {"password": "[redacted]", "plan": "pro"}


def test_a_list_of_objects_as_tag_is_taken_from_where_it_is(client, transport, log):
    """Each of them as it was given: their texts are no names, and show what is secret."""
    tag = [Track("u1", "Upgraded", {"api_key": "sk"}), "Seen", Identify("u1", {"password": "p"})]
    log.info("x", extra={"userlens_event": tag, "user_id": "u1"})

    assert [
        ("Upgraded", "u1", {"api_key": "[redacted]"}),
        ("Seen", "u1", {}),
        (None, "u1", {"password": "[redacted]"}),
    ] == sent(client, transport)


def test_objects_within_a_mapping_as_tag_are_read(client, transport, log):
    """What is secret in them is hidden by its name."""
    before = Track("u1", "Seen", {"api_key": "sk"})
    properties = {"before": before, "accounts": [Account()]}
    log.info("x", extra={**TAGGED, "userlens_event": {"event": "E", "properties": properties}})

    ((name, user, found),) = sent(client, transport)
    assert ("E", "u1") == (name, user)
    assert {"api_key": "[redacted]"} == found["before"]["properties"]
    assert [ACCOUNT] == found["accounts"]


def test_a_tag_in_a_body_is_read_as_it_was_given(client, transport, log):
    """A body is no attribute: its values are of any kind, and may hold themselves."""
    properties = {"password": "p"}
    properties["self"] = properties
    tag = {"event": "E", "properties": properties}
    log.info({"event": "x", **TAGGED, "userlens_event": tag}, extra={"_name": "info"})

    expected = {"password": "[redacted]", "self": "[cycle]"}
    assert [("E", "u1", expected)] == sent(client, transport)


TRACK = Track("u1", "Seen", {"api_key": "sk_live_1"})


@pytest.mark.parametrize(
    "tag",
    [
        [TRACK],
        ["Seen", Group("g1", "u1", {"api_key": "sk_live_1"})],
        {"event": "Seen", "properties": {"before": TRACK}},
        {"event": "Seen", "properties": {"rows": [{"before": TRACK}]}},
        {"event": "Seen", "properties": {f"{TRACK}": 1}},
        f"Order(of={TRACK})",
    ],
)
def test_a_tag_that_shows_an_event_is_none(client, transport, provider, diagnostics_lines, tag):
    """Where the object is not to be had, its text is never sent, however deep it is."""
    emit(provider, attributes={**TAGGED, "userlens_event": tag})

    assert "give mappings in their place" in (line := diagnostics_lines.get(timeout=PATIENCE)[1])
    assert "sk_live_1" not in line
    assert [] == sent(client, transport)
    assert {"invalid_tag": 1} == client.stats().invalid


def test_a_property_that_shows_an_event_is_hidden(client, transport, provider):
    """The event itself is sent, and what else it has."""
    attributes = {**TAGGED, "one": TRACK, "deep": [{"a": TRACK, f"{TRACK}": 1}, "x"], "plan": "pro"}
    emit(provider, attributes=attributes)

    expected = {
        "one": "[redacted]",
        "deep": [{"a": "[redacted]", "[redacted]": 1}, "x"],
        "plan": "pro",
    }
    assert [("Plan Upgraded", "u1", expected)] == sent(client, transport)


def test_objects_in_properties_are_read(client, transport, log):
    """By their own fields, as at the other entrances, and not as the text of OpenTelemetry."""
    given = {
        "account": Account(),
        "deep": [{"account": Account(), 1: Account()}],
        "login": Login("ann", "hunter2"),
        "price": Decimal("1.50"),
        "odd": Odd(),
        "track": TRACK,
    }
    log.info("Seen", extra={**TAGGED, **given})

    ((_, _, found),) = sent(client, transport)
    assert {"api_key": "[redacted]"} == found.pop("track")["properties"]
    assert {
        "account": ACCOUNT,
        "deep": [{"account": ACCOUNT, "1": ACCOUNT}],
        "login": {"user": "ann", "password": "[redacted]"},
        "price": 1.5,
        "odd": "odd",
    } == found


def test_objects_of_a_line_of_structlog_are_read(client, transport, provider):
    """The same through OpenTelemetry's processor for structlog."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[
            StructlogProcessor(logger_provider=provider),
            structlog.processors.KeyValueRenderer(),
        ],
    )
    log.info("Seen", account=Account(), **TAGGED)

    assert [("Seen", "u1", {"account": ACCOUNT})] == sent(client, transport)


class Scrub(Redact):
    """Hides what is secret in the texts that OpenTelemetry has made, and takes one away."""

    def on_emit(self, log_record):
        attributes = dict(log_record.log_record.attributes)
        del attributes["mail"]
        attributes["account"] = "Account([hidden])"
        attributes["rows"] = ({"login": "[hidden]"}, *attributes["rows"][1:])
        attributes["price"] = 0
        attributes["gone"] = attributes["gone"][1:]
        attributes["userlens_event"] = "Scrubbed"
        log_record.log_record.attributes = attributes


def test_objects_that_a_processor_before_it_has_changed_stay_changed(client, transport):
    """Only what is still the text of an object is that object."""
    log = logger_to(provider_of(Scrub(), UserlensLogRecordProcessor(client)))
    rows = [{"login": Account("a"), "mail": "a@b.c"}, Account("b")]
    extra = {"account": Account(), "rows": rows, "mail": "a@b.c", "userlens_event": TRACK}
    others = {"price": Decimal("1.50"), "gone": ["a@b.c", "left"]}
    log.info("Seen", extra={**TAGGED, **extra, **others})

    expected = {
        "account": "Account([hidden])",
        "rows": [{"login": "[hidden]"}, ACCOUNT],
        "price": 0,
        "gone": ["left"],
    }
    assert [("Scrubbed", "u1", expected)] == sent(client, transport)


def test_of_a_mapping_as_argument_only_what_the_template_names_is_read(client, transport, log):
    """The rest is neither in the body nor in the attributes, and what is secret is hidden."""
    log.info(
        "Paid %(amount)d of 100%% with %(token)s, %%(card)s",
        {"amount": 5, "token": "t", "card": "4111", "": "empty"},
        extra=TAGGED,
    )
    log.info({"event": "Paid"}, {"card": "4111"}, extra={**TAGGED, "_name": "info"})

    expected = {"amount": 5, "token": "[redacted]"}
    name = "Paid %(amount)d of 100%% with %(token)s, %%(card)s"
    assert [(name, "u1", expected), ("Paid", "u1", {})] == sent(client, transport)


def test_objects_of_frameworks_are_no_properties(client, transport, provider):
    """What a handler of ours leaves out of a record of `logging` is left out here."""
    log = logger_to(provider, "django.otel")
    log.info("Seen", extra={**TAGGED, "request": object, "status_code": 200, "plan": "pro"})

    assert [("Seen", "u1", {"plan": "pro"})] == sent(client, transport)


@pytest.mark.parametrize("scope", ["urllib3.connectionpool", "userlens_instrument"])
def test_our_own_lines_are_no_events(client, transport, provider, scope):
    """Nor those of what we send with, nor anything on a thread of ours."""
    emit(provider, scope=scope)
    with lent_thread():
        emit(provider)

    assert [] == sent(client, transport)
    assert {"own_thread": 1} == client.stats().invalid


def test_what_is_no_event_is_told_with_its_place(client, provider, log, diagnostics_lines):
    """No user: counted, and said with the line that logged it."""
    log.info("A", extra={"userlens_event": True})
    assert "test_opentelemetry_logs.py:" in diagnostics_lines.get(timeout=PATIENCE)[1]
    place = {"code.file.path": "shop.go", "code.line.number": 7}
    provider.get_logger("other").emit(
        LogRecord(body="B", attributes={"userlens_event": "identify", **place})
    )
    assert "at test_" not in (line := diagnostics_lines.get(timeout=PATIENCE)[1])
    assert "not an event, at " in line
    emit(provider, attributes={"userlens_event": True})
    diagnostics_lines.get(timeout=PATIENCE)

    assert {"missing_user_id": 3} == client.stats().invalid


def test_what_is_not_known_raises_nothing(client, diagnostics_lines):
    """Another SDK's record is counted, and said."""
    UserlensLogRecordProcessor(client).on_emit(object())

    assert "AttributeError" in diagnostics_lines.get(timeout=PATIENCE)[1]
    assert {"unreadable": 1} == client.stats().invalid


def test_arguments_that_do_not_fit(client, transport, provider):
    """Where logging cannot format a record, its body is what there is."""
    record = logging.LogRecord("app", 20, "app.py", 1, "%d rows", ("x",), None)

    def handle(record):
        emit(provider, "rows", timestamp=int(record.created * 1e9))

    handle(record)

    assert [("rows", "u1", {})] == sent(client, transport)


class Counted:
    """Counts how often it is asked for its text, and has none."""

    asked = 0

    def __repr__(self):
        Counted.asked += 1
        raise RuntimeError


def test_nobody_asks_for_a_text_that_nobody_needs(client, transport, provider, monkeypatch):
    """Neither for an untagged record, nor where the tag names the event: a body may be large."""
    monkeypatch.setattr(Counted, "asked", 0)
    emit(provider, body={"event": Counted()}, attributes=None)
    emit(provider, body=Counted(), attributes={"user_id": "u1"})
    emit(provider, body=Counted(), attributes={**TAGGED, "userlens_event": "Upgraded"})

    assert [("Upgraded", "u1", {})] == sent(client, transport)
    assert (0, {}) == (Counted.asked, client.stats().invalid)


def test_a_body_without_a_text_is_no_error_of_a_rule(make_client, transport):
    """No rule finds anything in it, and the record does not count as one that could not be read."""
    client = make_client(transport=transport, rules=RULES)
    provider = provider_of(UserlensLogRecordProcessor(client))
    emit(provider, Counted(), "billing", attributes=None, severity_number=SeverityNumber.WARN)

    assert [] == sent(client, transport)
    assert {} == client.stats().invalid


def test_a_name_that_is_no_text_is_no_error(client, transport):
    """Whoever makes a record without the SDK's attributes may have any."""
    record = LogRecord(body="Seen", attributes={1: 2, **TAGGED}, timestamp=1)
    UserlensLogRecordProcessor(client).on_emit(
        SimpleNamespace(log_record=record, instrumentation_scope=None)
    )

    assert [("Seen", "u1", {"1": 2})] == sent(client, transport)


# ---------------------------------------------------------------- rules

RULES = [
    {
        "logger": "otel",
        "message": "Invoice %s paid by %s",
        "args": ["invoice", "user_id"],
        "event": "Invoice Paid",
    },
    {
        "logger": "billing*",
        "level": "WARNING",
        "regex": r"Export of (?P<format>\w+) for (?P<user_id>\w+)",
        "event": "Exported",
    },
]


@pytest.fixture
def ruled(make_client, transport):
    return make_client(transport=transport, rules=RULES)


def test_a_template_is_matched_through_opentelemetrys_handler(ruled, transport):
    """The handler has formatted it; the template and its arguments are those of the record."""
    log = logger_to(provider_of(UserlensLogRecordProcessor(ruled)))
    log.info("Invoice %s paid by %s", "i1", "u1")
    log.info("Invoice %s seen by %s", "i1", "u1")
    log.info("Invoice %s paid by %s", "i1", "u1", extra={"userlens_event": False})

    assert [("Invoice Paid", "u1", {"invoice": "i1"})] == sent(ruled, transport)


@pytest.mark.parametrize(
    ("options", "matches"),
    [
        ({"severity_number": SeverityNumber.WARN}, True),
        ({"severity_number": SeverityNumber.FATAL4}, True),
        ({"severity_number": SeverityNumber.INFO4}, False),
        ({"severity_number": SeverityNumber.TRACE}, False),
        ({"severity_text": "error"}, True),
        ({"severity_number": SeverityNumber.UNSPECIFIED, "severity_text": "odd"}, False),
        ({}, False),
    ],
)
def test_a_regex_is_matched_on_the_body(ruled, transport, options, matches):
    """For a record that comes from OpenTelemetry alone; the severity is the level."""
    provider = provider_of(UserlensLogRecordProcessor(ruled))
    emit(provider, "Export of pdf for u1", "billing.export", attributes=None, **options)
    emit(provider, "Export of pdf for u1", "other", attributes=None, **options)

    expected = [("Exported", "u1", {"format": "pdf"})] if matches else []
    assert expected == sent(ruled, transport)


def test_rules_are_those_of_the_environment_until_there_is_a_client(monkeypatch, tmp_path):
    """They are read again when the file changes, if it is said so."""
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "Seen"\nuser_id = "u1"\n', "utf-8")
    monkeypatch.setenv("USERLENS_RULES", str(path))
    monkeypatch.setenv("USERLENS_RULES_RELOAD", "1")
    monkeypatch.setenv("USERLENS_DRY_RUN", "1")
    provider = provider_of(UserlensLogRecordProcessor())
    emit(provider, "Seen", attributes=None)
    emit(provider, "Unseen", attributes=None)

    assert client_module.flush(PATIENCE)
    assert 1 == client_module.stats().delivered


def test_rules_elsewhere_are_not_its_own(client, ruled, transport):
    """Another client's rules mean nothing to it."""
    assert ruled.book is not None
    emit(provider_of(UserlensLogRecordProcessor(client)), "Export of pdf for u1", "billing")

    assert [("Export of pdf for u1", "u1", {})] == sent(client, transport)
    emit(provider_of(UserlensLogRecordProcessor(client)), "x", "billing", attributes=None)
    assert 1 == len(sent(client, transport))


# ---------------------------------------------------------------- the rest of it


def test_the_ids_of_the_trace_are_the_records(make_client, transport):
    """With trace_context, of the context that the record was emitted with; otherwise none."""
    traced = make_client(transport=transport, trace_context=True)
    provider = provider_of(UserlensLogRecordProcessor(traced))
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        context = trace.set_span_in_context(span)
        ids = span.get_span_context()
    emit(provider, context=context)

    expected = {"trace_id": f"{ids.trace_id:032x}", "span_id": f"{ids.span_id:016x}"}
    assert [("Plan Upgraded", "u1", expected)] == sent(traced, transport)


def test_flush_and_shutdown_wait(client, transport, provider):
    """A forced flush of the provider delivers, its shutdown too; what comes later is not lost."""
    emit(provider)
    assert provider.force_flush(int(PATIENCE * 1000))
    assert 1 == len(transport.events)

    emit(provider, "Second")
    provider.shutdown()
    assert 2 == len(transport.events)
    emit(provider, "Third")
    assert ["Plan Upgraded", "Second", "Third"] == [name for name, *_ in sent(client, transport)]
    client.close(PATIENCE)
    emit(provider, "Fourth")
    assert {"closed": 1} == client.stats().dropped


def test_a_flush_that_takes_too_long_says_so(make_client):
    """It waits no longer than it is told to."""
    held = threading.Event()

    class Slow:
        def send(self, path, body, *, timeout=None):
            held.wait(PATIENCE)
            return client_module.Answer(status=200)

        def close(self):
            """Do nothing."""

    client = make_client(transport=Slow())
    provider = provider_of(UserlensLogRecordProcessor(client))
    emit(provider)

    assert not provider.force_flush(1)
    held.set()
    assert provider.force_flush(int(PATIENCE * 1000))


def test_at_the_exit_its_shutdown_leaves_it_to_ours(server):
    """The provider's own exit hook does not wait beside ours; the event arrives."""
    code = """
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor
provider = LoggerProvider()
provider.add_log_record_processor(UserlensLogRecordProcessor())
provider.get_logger("a").emit(
    LogRecord(body="Seen", attributes={"userlens_event": True, "user_id": "u1"})
)
"""
    done = run_python(code, server.url)

    assert ("", 0) == (done.stderr, done.returncode)
    assert ["Seen"] == [event["event"] for event in server.events]


# As in test_opentelemetry_instrumentor.py.
@pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 3), reason="OpenTelemetry cannot exit in silence"
)
def test_what_an_exit_hook_logs_after_the_providers_own_arrives(server):
    """Exit hooks run last in, first out: the provider is shut down before an earlier one logs."""
    code = """
import atexit, logging
import userlens_instrument
userlens_instrument.track("u1", "First")  # our own exit hook: it is the last
atexit.register(lambda: logging.getLogger("app").info(
    "Ended", extra={"userlens_event": True, "user_id": "u1"}))
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor
provider = LoggerProvider()
provider.add_log_record_processor(UserlensLogRecordProcessor())
logging.basicConfig(level="INFO", handlers=[LoggingHandler(logger_provider=provider)])
"""
    done = run_python(code, server.url)

    assert ("", 0) == (done.stderr, done.returncode)
    assert ["First", "Ended"] == [event["event"] for event in server.events]


def test_settings_are_a_client_of_its_own(make_client):
    """As of a handler; what is wrong is an error at once, and its repr shows no secret."""
    processor = UserlensLogRecordProcessor(dry_run=True, write_code="wc-secret")
    emit(provider_of(processor))

    assert client_module.flush(PATIENCE)
    assert 1 == client_module.stats().delivered
    assert "wc-secret" not in repr(processor)
    with pytest.raises(SettingsError, match="did you mean dry_run"):
        UserlensLogRecordProcessor(dry_runs=True)
    with pytest.raises(SettingsError, match="client"):
        UserlensLogRecordProcessor("wc-secret")


def test_without_the_sdk_it_says_what_to_install():
    """The module can be imported, the processor cannot be made."""
    code = """
import sys
sys.modules["opentelemetry"] = None
from userlens_instrument.integrations.opentelemetry import (
    UserlensInstrumentor, UserlensLogRecordProcessor, instrument_metrics)
from userlens_instrument import MissingExtraError
for make in (UserlensLogRecordProcessor, instrument_metrics):
    try:
        make()
    except MissingExtraError as error:
        print(error.extra)
UserlensInstrumentor().instrument(skip_dep_check=True)
assert UserlensInstrumentor().is_instrumented_by_opentelemetry
UserlensInstrumentor().instrument()
UserlensInstrumentor().uninstrument()
UserlensInstrumentor().uninstrument()
assert not UserlensInstrumentor().is_instrumented_by_opentelemetry
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )

    assert (0, ["opentelemetry"] * 2) == (done.returncode, done.stdout.split()), done.stderr
    assert "there are no metrics of what is captured" in done.stderr


def test_an_sdk_that_is_not_as_it_is_known_is_an_error(monkeypatch):
    """One line says which part of it is missing, and what to do."""
    monkeypatch.setattr(logs, "LogRecordProcessor", object)

    with pytest.raises(
        UserlensError, match="no LogRecordProcessor where it is looked for"
    ) as found:
        UserlensLogRecordProcessor()
    assert not isinstance(found.value, MissingExtraError)


def test_there_are_three_names():
    """Nothing else is offered."""
    assert sorted(integration.__all__) == sorted(integration._HOMES)
    for name in integration.__all__:
        assert getattr(integration, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        integration.nonsense  # noqa: B018 - the access is the test


def test_threads_of_a_pool_wait_for_it(client, transport):
    """With the SDK's concurrent processor another thread calls us: the record is known."""
    from opentelemetry.sdk._logs import ConcurrentMultiLogRecordProcessor

    several = ConcurrentMultiLogRecordProcessor()
    provider = LoggerProvider(shutdown_on_exit=False, multi_log_record_processor=several)
    provider.add_log_record_processor(UserlensLogRecordProcessor(client))
    log = logger_to(provider)
    log.info("Exported %d rows", 5, extra=TAGGED)
    emit(provider)
    several._executor.shutdown()

    assert [("Exported %d rows", "u1", {}), ("Plan Upgraded", "u1", {})] == sent(client, transport)
