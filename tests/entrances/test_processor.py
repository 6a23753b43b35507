"""The structlog entrance: what becomes of tagged event dicts, and what stays as it was."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import OrderedDict, UserDict

import pytest
import structlog
from helpers import PATIENCE, examples
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from userlens_instrument import Group, Identify, Track, UserlensProcessor, configure
from userlens_instrument.client import default_client
from userlens_instrument.testing import CapturingTransport


@pytest.fixture
def log(client):
    """Return a structlog logger with our processor, whose events land in `transport`."""
    return chain(UserlensProcessor(client))


def chain(processor, **options):
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, processor, render],
        **options,
    )
    return structlog.get_logger()


def render(logger, name, event_dict):
    """Print nothing: what is printed is not what these tests are about."""
    raise structlog.DropEvent


def test_a_tagged_line_is_a_track_named_by_its_message(log, client, transport):
    """True makes a track; the fields are its properties, the ids and the plumbing are not."""
    log.info(
        "Subscription Upgraded",
        userlens_event=True,
        user_id="u1",
        to_plan="pro",
        level="info",
        logger="app",
        name="this is data",
    )

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert event.pop("timestamp").endswith("Z")
    assert {
        "type": "track",
        "userId": "u1",
        "source": "userlens-restapi",
        "event": "Subscription Upgraded",
        "properties": {"to_plan": "pro", "name": "this is data"},
    } == event


def test_an_untagged_line_is_nothing(log, client, transport):
    """Without the tag, or with False or None, nothing is sent and nothing is counted."""
    log.info("Plain", user_id="u1")
    log.info("Off", user_id="u1", userlens_event=False)
    log.info("Off", user_id="u1", userlens_event=None)

    assert client.flush(PATIENCE)
    assert ([], 0, {}) == (transport.events, client.stats().accepted, client.stats().invalid)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("track", [("track", "Message")]),
        ("Plan Upgraded", [("track", "Plan Upgraded")]),
        ("identify", [("identify", None)]),
        ("group", [("group", None)]),
        ({"event": "Named"}, [("track", "Named")]),
        ({"type": "identify", "userId": "u2"}, [("identify", None)]),
        (Track("u3", "Typed"), [("track", "Typed")]),
        (Identify("u4", {"a": 1}), [("identify", None)]),
        (Group("g", "u5"), [("group", None)]),
        (["track", "identify"], [("track", "Message"), ("identify", None)]),
        ([], []),
    ],
)
def test_the_tag_decides(log, client, transport, tag, expected):
    """Each value of the tag means what the table of the README says, in order."""
    log.info("Message", userlens_event=tag, user_id="u1", group_id="g1")

    assert client.flush(PATIENCE)
    assert expected == [(event["type"], event.get("event")) for event in transport.events]
    assert {} == client.stats().invalid


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"userlens_event": True}, "missing_user_id"),
        ({"userlens_event": True, "user_id": ""}, "invalid_user_id"),
        ({"userlens_event": True, "user_id": True}, "invalid_user_id"),
        ({"userlens_event": 7, "user_id": "u1"}, "invalid_tag"),
        ({"userlens_event": {"type": "page"}, "user_id": "u1"}, "unknown_type"),
        ({"userlens_event": {"propertis": {}}, "user_id": "u1"}, "unknown_key"),
        ({"userlens_event": "group", "user_id": "u1"}, "missing_group_id"),
    ],
)
def test_what_is_no_event_is_counted_and_said_with_its_call_site(
    log, client, transport, diagnostics_lines, fields, reason
):
    """A tagged line that is no event is counted by reason and said once, with place and fix."""
    for _ in range(5):
        log.info("Message", **fields)

    assert client.flush(PATIENCE)
    assert ([], {reason: 5}) == (transport.events, client.stats().invalid)
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert f"{__file__}:" in line
    assert diagnostics_lines.empty()


def test_the_tag_is_taken_off_before_rendering(client):
    """The rendered line shows no tag; with keep_tag it does, equal to what was given."""
    processor, keeping = UserlensProcessor(client), UserlensProcessor(client, keep_tag=True)
    taken = processor(None, "info", {"event": "E", "userlens_event": True, "user_id": 1})
    kept = keeping(None, "info", {"event": "Ev", "userlens_event": ["track"], "user_id": 1})

    assert {"event": "E", "user_id": 1} == taken
    assert {"event": "Ev", "userlens_event": ["track"], "user_id": 1} == kept


def test_another_name_for_the_tag(client, transport):
    """The tag's name is an option."""
    log = chain(UserlensProcessor(client, tag="product"))
    log.info("Yes", product=True, user_id="u1")
    log.info("No", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert ["Yes"] == [event["event"] for event in transport.events]


@pytest.mark.parametrize("thing", ["text", b"bytes", (("args",), {}), None, 7, ["list"], object()])
def test_whatever_comes_is_handed_on_as_it_is(client, thing):
    """After a renderer there is no event dict; the processor returns its very input."""
    processor = UserlensProcessor(client)

    assert processor(None, "info", thing) is thing


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([object(), type, len, Ellipsis, NotImplemented, Exception("boom")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(tag=hostile, fields=st.dictionaries(st.text(), hostile, max_size=6), message=hostile)
@hypothesis_settings(
    max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_raises_and_everything_is_accounted_for(make_client, tag, fields, message):
    """For any tag, message and fields: the event dict comes back, and every event has a count."""
    client = make_client(transport=CapturingTransport())
    event_dict = {**fields, "event": message, "userlens_event": tag, "user_id": "u1"}

    assert UserlensProcessor(client)(None, "info", event_dict) is event_dict
    assert client.close(PATIENCE)
    stats = client.stats()
    assert stats.accepted == stats.delivered
    if tag is None or tag is False:
        assert 0 == stats.accepted + sum(stats.invalid.values())
    elif not isinstance(tag, list):
        assert 1 == stats.accepted + sum(stats.invalid.values())


def test_an_object_that_raises_when_read_is_counted(client):
    """A mapping that raises is no event; the reason is counted, and the line goes on."""

    class Hostile(dict):
        def __iter__(self):
            raise ValueError("never")

    event_dict = {"event": "E", "userlens_event": Hostile(type="track"), "user_id": "u1"}

    assert UserlensProcessor(client)(None, "info", event_dict) is event_dict
    assert {"unreadable": 1} == client.stats().invalid


def test_the_application_may_interrupt(client):
    """A BaseException from the application's own objects goes through: it is not ours to keep."""

    class Interrupt:
        def __str__(self):
            raise KeyboardInterrupt

    event_dict = {"event": "E", "userlens_event": True, "user_id": "u1", "x": Interrupt()}
    with pytest.raises(KeyboardInterrupt):
        UserlensProcessor(client)(None, "info", event_dict)


def test_what_the_caller_changes_later_does_not_change_the_event(log, client, transport):
    """The payload is fixed at the log call."""
    held = threading.Event()
    transport._answer = lambda body: held.wait(PATIENCE) and type(transport)().send("", b"{}")
    items = [1]
    log.info("First", userlens_event=True, user_id="u1")
    log.info("Second", userlens_event=True, user_id="u1", items=items)
    items.append(2)
    held.set()

    assert client.flush(PATIENCE)
    assert [1] == transport.events[1]["properties"]["items"]


# ---------------------------------------------------------------- where the user comes from


def test_the_user_comes_from_bind_or_contextvars(log, client, transport):
    """log.bind and bind_contextvars both serve, with and without merge_contextvars."""
    log.bind(user_id="bound").info("A", userlens_event=True)
    structlog.contextvars.bind_contextvars(userId="around")
    log.info("B", userlens_event=True)
    unmerged = structlog.wrap_logger(None, processors=[UserlensProcessor(client), render])
    unmerged.info("C", userlens_event=True)

    assert client.flush(PATIENCE)
    assert [("bound", "A"), ("around", "B"), ("around", "C")] == sorted(
        ((event["userId"], event["event"]) for event in transport.events), key=lambda e: e[1]
    )


def test_what_surrounds_a_call_is_a_property_but_never_a_trait(log, client, transport):
    """A request id bound to the context describes the event, not the person."""
    structlog.contextvars.bind_contextvars(request_id="r1", user_id="u1")
    log.info("E", userlens_event=["track", "identify"], plan="pro")

    assert client.flush(PATIENCE)
    track, identify = transport.events
    assert {"request_id": "r1", "plan": "pro"} == track["properties"]
    assert {"plan": "pro"} == identify["traits"]


def test_ainfo_sees_the_callers_context(client, transport):
    """The asynchronous methods run the chain on another thread, under the caller's context."""
    log = chain(UserlensProcessor(client), wrapper_class=structlog.make_filtering_bound_logger(0))

    async def serve(user):
        structlog.contextvars.bind_contextvars(user_id=user)
        await log.ainfo("Async", userlens_event=True)

    async def main():
        await asyncio.gather(*(serve(f"u{number}") for number in range(5)))

    asyncio.run(main())

    assert client.flush(PATIENCE)
    assert {f"u{number}" for number in range(5)} == {e["userId"] for e in transport.events}


def test_threads_share_the_processor_without_mixing_events(log, client, transport):
    """The processor keeps nothing between calls: each event carries its own fields."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    barrier = threading.Barrier(8)

    def work(me):
        barrier.wait(PATIENCE)
        for number in range(100):
            log.info("E", userlens_event=True, user_id=f"u{me}", me=me, number=number)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    sys.setswitchinterval(interval)

    assert client.flush(PATIENCE)
    assert 800 == len(transport.events)
    for me in range(8):
        mine = [e["properties"] for e in transport.events if e["userId"] == f"u{me}"]
        assert [{"me": me, "number": number} for number in range(100)] == mine


# ---------------------------------------------------------------- loggers of every kind


def test_a_level_that_filters_the_line_filters_the_event(client, transport):
    """Events ride on logs: a filtered line is no event."""
    log = chain(
        UserlensProcessor(client),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    log.info("Quiet", userlens_event=True, user_id="u1")
    log.warning("Loud", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert ["Loud"] == [event["event"] for event in transport.events]


@pytest.mark.parametrize("factory", [structlog.PrintLogger, structlog.BytesLogger])
def test_loggers_without_stdlib_work(client, transport, tmp_path, factory):
    """PrintLogger and BytesLogger never make a LogRecord; the processor sees them all the same."""
    mode = "wb" if factory is structlog.BytesLogger else "w"
    with open(tmp_path / "log", mode) as file:  # noqa: PTH123 - what structlog takes
        dumps = (lambda d, **_: str(d).encode()) if mode == "wb" else (lambda d, **_: str(d))
        log = structlog.wrap_logger(
            factory(file),
            processors=[
                UserlensProcessor(client),
                structlog.processors.JSONRenderer(serializer=dumps),
            ],
        )
        log.info("E", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert ["E"] == [event["event"] for event in transport.events]
    assert "userlens_event" not in (tmp_path / "log").read_text()


def test_positional_arguments_with_the_stdlib_logger_name_by_the_template(client, transport):
    """structlog.stdlib.BoundLogger hands over the template; the native ones have formatted it."""
    log = chain(UserlensProcessor(client), wrapper_class=structlog.stdlib.BoundLogger)
    log.info("Exported %d rows", 5, userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert ("Exported %d rows", False) == (event["event"], "properties" in event)


def test_exceptions_go_along(log, client, transport):
    """log.exception with a tag is an event like any other; exc_info is no property."""
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("Import Failed", userlens_event=True, user_id="u1", rows=3)

    assert client.flush(PATIENCE)
    assert {"rows": 3} == transport.events[0]["properties"]


def test_callsite_parameters_are_no_properties_but_a_module_is_data(client, transport):
    """What CallsiteParameterAdder writes is plumbing; the same names by hand are data."""
    names = set(structlog.processors.CallsiteParameter)
    if sys.version_info < (3, 11):
        names -= {structlog.processors.CallsiteParameter.QUAL_NAME}
    adder = structlog.processors.CallsiteParameterAdder(names)
    structlog.configure(processors=[adder, UserlensProcessor(client), render])
    structlog.get_logger().info("A", userlens_event=True, user_id="u1", x=1)
    structlog.configure(processors=[UserlensProcessor(client), render])
    structlog.get_logger().info("B", userlens_event=True, user_id="u1", module="billing")

    assert client.flush(PATIENCE)
    assert [{"x": 1}, {"module": "billing"}] == [e["properties"] for e in transport.events]


def test_a_timestamp_that_parses_is_the_events_time(client, transport):
    """TimeStamper's text is the time of the event, and no property."""
    log = chain(UserlensProcessor(client))
    log.info("E", userlens_event=True, user_id="u1", timestamp="2026-01-02T03:04:05Z")

    assert client.flush(PATIENCE)
    (event,) = transport.events
    assert ("2026-01-02T03:04:05.000000Z", False) == (event["timestamp"], "properties" in event)


def test_a_renamed_event_still_has_a_name(client, transport):
    """After EventRenamer the message is found under its new name."""
    structlog.configure(
        processors=[
            structlog.processors.EventRenamer("msg"),
            UserlensProcessor(client),
            render,
        ]
    )
    structlog.get_logger().info("Renamed", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert "Renamed" == transport.events[0]["event"]


def test_capture_logs_replaces_the_chain_and_sends_nothing(log, client, transport):
    """structlog's own test helper takes our processor out with the rest: tests send nothing."""
    with structlog.testing.capture_logs() as captured:
        log.info("E", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert (1, []) == (len(captured), transport.events)


def test_the_default_client_is_found_at_the_first_event(server):
    """configure() may come after logging is set up."""
    log = chain(UserlensProcessor())
    configure("code", events_url=server.url)
    log.info("E", userlens_event=True, user_id="u1")

    assert default_client().flush(PATIENCE)
    assert ["E"] == [event["event"] for event in server.events]


def test_a_reconfigured_default_is_found_again(server):
    """After a second configure() events go to the new client."""
    log = chain(UserlensProcessor())
    configure("one", events_url=server.url)
    log.info("A", userlens_event=True, user_id="u1")
    second = configure("two", events_url=server.url)
    log.info("B", userlens_event=True, user_id="u1")

    assert second.flush(PATIENCE)
    assert 1 == second.stats().delivered


def test_the_repr_tells_the_options_and_no_secret(client):
    """A processor shows up in tracebacks and debuggers; the write code does not."""
    assert "tag='userlens_event'" in repr(UserlensProcessor(client))
    assert client.settings.write_code not in repr(UserlensProcessor(client))


class Odd(UserDict):
    """A context class that is no dict."""


@pytest.mark.parametrize("context_class", [OrderedDict, Odd])
def test_other_context_classes_work(client, transport, context_class):
    """Whatever mapping structlog is configured to use for its context."""
    event_dict = context_class(event="E", userlens_event=True, user_id="u1", x=1)

    assert UserlensProcessor(client)(None, "info", event_dict) is event_dict
    assert client.flush(PATIENCE)
    assert [{"x": 1}] == [event["properties"] for event in transport.events]


def test_an_event_dict_that_raises_when_looked_at_is_counted(client):
    """Even a context class that raises on every look costs the application nothing."""

    class Hostile(dict):
        def __contains__(self, key):
            raise ValueError("never")

    event_dict = Hostile(event="E", userlens_event=True, user_id="u1")

    assert UserlensProcessor(client)(None, "info", event_dict) is event_dict
    assert {"unreadable": 1} == client.stats().invalid
