"""The loguru entrances: a sink, and a handler of logging as one; with the real loguru."""

from __future__ import annotations

import copy
import logging
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from helpers import PATIENCE, ScriptedServer, run_python
from loguru import logger

from userlens_instrument import Identify, SettingsError, Track, UserlensHandler, configure
from userlens_instrument._core import loguru_line
from userlens_instrument._delivery import rulebook
from userlens_instrument.integrations import loguru
from userlens_instrument.integrations.loguru import make_sink, sink
from userlens_instrument.processors import _RECORD_NAMES


WAYS = {"sink": make_sink, "handler": UserlensHandler}


@pytest.fixture(autouse=True)
def bare_loguru():
    """loguru has no sinks, and has bound nothing; as it is left, too."""
    loguru._default_way.cache_clear()
    logger.remove()
    yield
    logger.remove()
    logger.configure(extra={}, patcher=lambda record: None)
    for name in ("app", "urllib3.app"):
        stdlib = logging.getLogger(name)
        stdlib.handlers.clear()
        stdlib.propagate = True


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    """Return each of the two entrances: a maker of something for ``logger.add``."""
    return request.param


@pytest.fixture
def added(way, client):
    """Return a function that says what arrived; each line goes through one of the entrances."""
    logger.add(way(client=client))
    return lambda: arrived(client)


def arrived(client):
    """Return the events, each as (name, user, properties); less their times."""
    assert client.flush(PATIENCE)
    return [brief(event) for event in client.sender._transport.events]


def brief(event):
    return event.get("event", event["type"]), event["userId"], event.get("properties", {})


class InterceptHandler(logging.Handler):
    """From logging to loguru, as loguru's own documentation has it."""

    def emit(self, record):
        frame, depth = sys._getframe(1), 1
        while frame and frame.f_globals["__name__"] == "logging":
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(
            record.levelname, record.getMessage()
        )


class PropagateHandler(logging.Handler):
    """From loguru to logging, as loguru's own documentation has it."""

    def emit(self, record):
        logging.getLogger("app").handle(record)


def stdlib_logger(*handlers, name="app"):
    stdlib = logging.getLogger(name)
    stdlib.handlers[:] = handlers
    stdlib.setLevel(logging.DEBUG)
    stdlib.propagate = False
    return stdlib


# ---------------------------------------------------------------- what a line becomes


def test_keyword_arguments_are_the_properties(added):
    """What is given in the call is captured as it was given."""
    logger.info("Plan Upgraded", userlens_event=True, user_id=7, plan="pro", name="n", args=[1])

    assert [("Plan Upgraded", "7", {"plan": "pro", "name": "n", "args": [1]})] == added()


def test_every_record_attribute_name_is_data(added):
    """What logging reserves is the application's own in loguru, whichever entrance it meets."""
    fields = dict.fromkeys(sorted(_RECORD_NAMES), "v")
    logger.bind(**fields).info("E", userlens_event=True, user_id="u1")

    assert [("E", "u1", fields)] == added()


def test_bound_and_surrounding_fields_are_properties(added):
    """A user may be bound, and what surrounds the call is told of a track."""
    logger.configure(extra={"service": "api"})
    with logger.contextualize(request_id="r1"):
        logger.bind(user_id="u1", userlens_event="Plan Upgraded").info("line")

    assert [("Plan Upgraded", "u1", {"service": "api", "request_id": "r1"})] == added()


def test_what_surrounds_an_identify_is_no_trait(added, client):
    """contextualize and configure tell of the request, not of the person; ids are taken from it."""
    logger.configure(extra={"service": "api"})
    with logger.contextualize(request_id="r1", user_id="u1"):
        logger.bind(plan="pro").info("line", userlens_event="identify", email="a@b.c")

    assert [("identify", "u1", {})] == added()
    (event,) = client.sender._transport.events
    assert {"plan": "pro", "email": "a@b.c"} == event["traits"]


def test_structlogs_contextvars_serve_loguru_too(added):
    """A user that a middleware has bound with structlog is the user of the line."""
    structlog.contextvars.bind_contextvars(user_id="u9")
    logger.info("Plan Upgraded", userlens_event=True)

    assert [("Plan Upgraded", "u9", {})] == added()


def test_the_name_is_the_template(added):
    """A name for each number of rows would drown Userlens."""
    logger.info("Exported {} rows as {kind}", 5, kind="csv", userlens_event=True, user_id="u1")

    assert [("Exported {} rows as {kind}", "u1", {"kind": "csv"})] == added()


def test_a_line_without_arguments_keeps_its_braces(added):
    """Without arguments loguru formats nothing, and the text is the name."""
    logger.bind(userlens_event=True, user_id="u1").info("A {brace}")

    assert [("A {brace}", "u1", {})] == added()


@pytest.mark.parametrize(
    ("options", "said", "name"),
    [
        ({"lazy": True}, ("Rows {}", lambda: 5), "Rows {}"),
        ({"colors": True}, ("<red>Rows</red> {}", 5), "<red>Rows</red> {}"),
        ({"colors": True}, ("<red>Rows</red>",), "Rows"),
        ({"raw": True}, ("Rows {}\n", 5), "Rows {}\n"),
        ({"record": True}, ("Rows {} at {record[line]}", 5), "Rows {} at {record[line]}"),
        ({"depth": 1}, ("Rows {}", 5), "Rows {}"),
        ({"exception": True}, ("Rows {}", 5), "Rows {}"),
    ],
    ids=["lazy", "colors", "colors alone", "raw", "record", "depth", "exception"],
)
def test_options_change_nothing(added, options, said, name):
    """Whatever `opt` is told, it is the same event; nothing of loguru's becomes a property."""
    logger.bind(userlens_event=True, user_id="u1").opt(**options).info(*said)

    assert [(name, "u1", {})] == added()


def test_an_exception_is_no_property(added):
    """A line with a traceback is an event like any other."""
    try:
        raise ValueError("secret")
    except ValueError:
        logger.exception("Export Failed", userlens_event=True, user_id="u1")

    assert [("Export Failed", "u1", {})] == added()


def test_a_patcher_adds_fields(added):
    """What a patcher puts into extra is on the record."""
    logger.patch(lambda record: record["extra"].update(host="h1")).info(
        "Plan Upgraded", userlens_event=True, user_id="u1"
    )

    assert [("Plan Upgraded", "u1", {"host": "h1"})] == added()


def test_what_a_patcher_hides_stays_hidden(added):
    """Where it has changed the text, neither the template nor its arguments are gone by."""
    hiding = logger.patch(lambda record: record.update(message="Paid [hidden]"))
    hiding.info("Paid by {}", "a@b.c", userlens_event=True, user_id="u1")

    assert [("Paid [hidden]", "u1", {})] == added()


class Counted:
    """A value whose text costs something, and says how often it was asked for."""

    def __init__(self):
        self.times = 0

    def __str__(self):
        self.times += 1
        if self.times > 1:
            raise ValueError
        return "5"

    def __format__(self, spec):
        return str(self)

    __repr__ = __str__


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("Rows {}", "Rows {}"),
        ("Rows {0!r:>3} of {1}", "Rows {0!r:>3} of {1}"),
        ("Rows {0.times} {0}", "Rows {0.times} {0}"),
        ("{}{other}{}", "{}{other}{}"),
        ("Rows {:{width}}", "Rows {:{width}}"),
        ("{0} at {2} of {2} at {1}", "{0} at {2} of {2} at {1}"),
        # Its text is needed to make the other: there is no telling what that would be.
        ("Rows {1:{0}}", "Rows     6"),
    ],
)
def test_no_value_is_asked_for_its_text_again(added, template, name):
    """loguru has formatted it; that may have been a query, and its lock is held."""
    value, more = Counted(), [1]
    line = {"userlens_event": True, "user_id": "u1", "other": 7, "width": 1}
    logger.info(template, value, 6, more, **line)

    assert [(name, "u1", {"other": 7, "width": 1})] == added()
    assert 1 == value.times


def test_a_template_that_looks_behind_a_value_leaves_its_text(added):
    """What stands for a value has no special attributes: it cannot be told, and the text is."""

    class Row:
        __table__ = "rows"

    logger.info("Read {.__table__}", Row(), userlens_event=True, user_id="u1")

    assert [("Read rows", "u1", {})] == added()


@pytest.mark.parametrize("args", [(), (5,)], ids=["alone", "with an argument"])
def test_nor_is_a_message_that_is_no_text(added, args):
    """What is logged may be an object, with a text of its own, or a way of its own to format."""

    class Message(Counted):
        def format(self, *args):
            return "5"

    message = Message()
    logger.bind(userlens_event=True, user_id="u1").opt(capture=False).info(message, *args)

    assert ([("5", "u1", {})], 1) == (added(), message.times)


def test_a_line_that_no_rule_means_is_only_looked_up(way, make_client, transport, monkeypatch):
    """Rules by template cost the others two lookups; nothing is made of what was said."""
    client = make_client(transport=transport, rules=[{"message": "Rows {}", "event": "Rows"}])
    logger.add(way(client=client))
    read, calls = loguru_line._made, []
    monkeypatch.setattr(loguru_line, "_made", lambda *call: calls.append(call) or read(*call))
    logger.info("Lines {}", 5, user_id="u1")
    assert [] == calls
    logger.info("Rows {}", 5, user_id="u1")

    assert ([("Rows", "u1", {})], 1) == (arrived(client), len(calls))


def test_a_value_whose_text_logs_logs_once(added, capsys):
    """Asked for it again, it would log again; and loguru refuses that within a sink."""

    class Money:
        def __format__(self, spec):
            logger.info("Money Formatted", userlens_event=True, user_id="u2")
            return "5 EUR"

    logger.info("Paid {}", Money(), userlens_event=True, user_id="u1")

    assert [("Money Formatted", "u2", {}), ("Paid {}", "u1", {})] == sorted(added())
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "changed", "name"),
    [
        ("Paid {0} by {2}", "Paid 5 by [hidden]", "Paid 5 by [hidden]"),
        ("Paid {} to a@b.c by {}", "Paid 5 to [hidden] by 6", "Paid 5 to [hidden] by 6"),
        ("Paid {} to a@b.c", "Paid [hidden]", "Paid [hidden]"),
        ("{} a {} a", "5 a", "5 a"),
        ("{} a {} a {}", "5 b 6 a 6", "5 b 6 a 6"),
        ("Paid {}", "Sold 5", "Sold 5"),
        ("Paid {}", None, None),
    ],
)
def test_a_changed_text_is_known_by_what_stands_around_such_a_value(added, template, changed, name):
    """The value is not asked again; what must stand around it in the text does not."""
    hiding = logger.patch(lambda record: record.update(message=changed))
    hiding.info(template, Counted(), [6], 6, userlens_event=True, user_id="u1")

    assert ([] if name is None else [(name, "u1", {})]) == added()


@pytest.mark.parametrize("patched", [False, True])
def test_a_value_that_a_patcher_may_have_hidden_is_for_no_rule(
    way, make_client, transport, monkeypatch, patched
):
    """Whether it stands in the text as it was cannot be told; without any patcher it does."""
    rule = {
        "message": "Paid {} by {a} {b}",
        "args": ["user"],
        "event": "Paid",
        "user_id": "u1",
        "properties": {"user": "{user}", "a": "{a}", "b": "{b}"},
    }
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client))
    monkeypatch.setattr(logger._core, "patcher", None)
    paying = logger.opt(capture=False)
    if patched:
        paying = paying.patch(lambda record: record.update(message="Paid [hidden] by [hidden] 1"))
    paying.info("Paid {} by {a} {b}", ["a@b.c"], a=["d@e.f"], b=1)

    properties = {"b": 1} if patched else {"user": ["a@b.c"], "a": ["d@e.f"], "b": 1}
    assert [("Paid", "u1", properties)] == arrived(client)


@pytest.mark.parametrize("bind", [False, True], ids=["given", "bound"])
def test_what_a_patcher_takes_away_is_gone(way, make_client, transport, bind):
    """A rule that names a field gets what is on the record, and not what was there before."""
    rule = {"message": "Paid {}", "event": "Paid", "properties": {"card": "{card}", "n": "{n}"}}
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client))
    logger.configure(patcher=lambda record: record["extra"].pop("card", None))
    if bind:
        logger.bind(card="4111").info("Paid {}", 5, n=1, user_id="u1")
    else:
        logger.info("Paid {}", 5, n=1, user_id="u1", card="4111")

    assert [("Paid", "u1", {"n": 1})] == arrived(client)


def test_what_a_patcher_takes_away_does_not_come_back_through_a_bridge(added):
    """A bridge that binds the extra of logging's record: what is gone is not read off that."""

    class Binding(logging.Handler):
        def emit(self, record):
            logger.bind(card=record.card).info(record.getMessage())

    logger.configure(patcher=lambda record: record["extra"].pop("card", None))
    fields = {"userlens_event": True, "user_id": "u1", "card": "4111", "n": 1}
    stdlib_logger(Binding()).info("Paid %d", 5, extra=fields)

    assert [("Paid %d", "u1", {"n": 1})] == added()


def test_the_time_is_the_records(added, client):
    """The event has the time at which loguru says it was logged; a timestamp of its own wins."""
    records = []
    logger.add(lambda message: records.append(message.record))
    logger.info("E", userlens_event=True, user_id="u1")
    logger.info("E", userlens_event=True, user_id="u1", timestamp="2024-01-02T03:04:05Z")

    assert [("E", "u1", {})] * 2 == added()
    first, second = [event["timestamp"] for event in client.sender._transport.events]
    seconds = datetime.fromisoformat(first.replace("Z", "+00:00")).timestamp()
    assert pytest.approx(records[0]["time"].timestamp(), abs=0.001) == seconds
    assert "2024-01-02T03:04:05" == second[:19]


@pytest.mark.parametrize("tag", [False, None])
def test_an_untagged_line_is_nothing(added, client, tag):
    """Neither is one whose tag says no, and neither is counted."""
    logger.info("line", user_id="u1")
    logger.info("line {}", 1, user_id="u1", userlens_event=tag)

    assert ([], 0, {}) == (added(), client.stats().accepted, client.stats().invalid)


def test_an_invalid_line_is_counted_and_named(added, client, diagnostics_lines):
    """It is said where the line is: in the application's file, not in loguru's."""
    logger.info("Plan Upgraded", userlens_event=True)

    assert {"missing_user_id": 1} == client.stats().invalid
    assert "test_loguru.py:" in diagnostics_lines.get(timeout=PATIENCE)[1]


def test_a_typed_tag_is_exactly_that(added):
    """Track and Identify may be given, and a list of both is two events."""
    logger.info(
        "line", userlens_event=[Track("u1", "Plan Upgraded"), Identify("u1", {"plan": "pro"})]
    )

    assert [("Plan Upgraded", "u1", {}), ("identify", "u1", {})] == added()


def test_levels_and_filters_are_logurus(way, client):
    """What `add` was told to leave out is left out."""
    logger.add(
        way(client=client), level="WARNING", filter=lambda record: "skip" not in record["extra"]
    )
    tagged = logger.bind(userlens_event=True, user_id="u1")
    tagged.info("too low")
    tagged.error("filtered", skip=1)
    tagged.log(35, "of a level by number")

    assert [("of a level by number", "u1", {})] == arrived(client)


@pytest.mark.parametrize(
    "options", [{"serialize": True}, {"format": "{time} {message}"}, {"colorize": True}]
)
def test_what_is_printed_is_nothing_to_us(way, client, options):
    """The format of a sink, or JSON, changes no event."""
    logger.add(way(client=client), **options)
    logger.info("Rows {}", 5, userlens_event=True, user_id="u1")

    assert [("Rows {}", "u1", {})] == arrived(client)


def test_a_line_handed_on_later_is_read_by_its_text(client):
    """The call on the stack is another one then, and nothing of it is taken for this line's."""
    held = []
    take = make_sink(client=client)

    def one_late(message):
        held.append(message)
        if len(held) > 1:
            take(held[-2])

    logger.add(one_late)
    logger.info("Rows {}", 5, userlens_event=True, user_id="u1")
    logger.info("Last {}", 6)

    assert [("Rows 5", "u1", {})] == arrived(client)


def test_code_without_a_module_logs_too(added):
    """loguru knows no name for it."""
    exec(
        "logger.info('E', userlens_event=True, user_id='u1')", {"logger": logger, "__name__": None}
    )

    assert [("E", "u1", {})] == added()


def test_the_name_of_a_tag_is_a_setting(way, client):
    """It may be called otherwise at this entrance."""
    logger.add(way(client=client, tag="to_userlens"))
    logger.info("E", to_userlens=True, user_id="u1", userlens_event=1)

    assert [("E", "u1", {"userlens_event": 1})] == arrived(client)


# ---------------------------------------------------------------- enqueue


def test_on_another_thread(way, client):
    """With ``enqueue=True`` the record is pickled, the typed tag with it; the name is the text."""
    logger.add(way(client=client), enqueue=True)
    logger.info("Rows {}", 5, userlens_event=True, user_id="u1", plan="pro")
    logger.info("line", userlens_event=Track("u2", "Typed", {"a": 1}))
    logger.complete()

    assert [("Rows 5", "u1", {"plan": "pro"}), ("Typed", "u2", {"a": 1})] == sorted(arrived(client))


@pytest.mark.parametrize("first", ["userlens_instrument", "loguru"])
@pytest.mark.parametrize("add", ["sink", "UserlensHandler()"])
def test_what_is_in_the_queue_at_the_exit_arrives(add, first):
    """
    A program that ends at once, and a queue that loguru empties at its exit: nothing is lost.

    Whoever was imported first: its exit hook runs last.
    """
    with ScriptedServer() as server:
        done = run_python(
            f"import {first}\n"
            "from userlens_instrument.handlers import UserlensHandler\n"
            "from userlens_instrument.integrations.loguru import sink\n"
            "from loguru import logger\n"
            "logger.remove()\n"
            f"logger.add({add}, enqueue=True)\n"
            "for number in range(50):\n"
            "    logger.info('E', userlens_event=True, user_id='u1', number=number)\n",
            server.url,
        )

        assert ("", 0) == (done.stderr, done.returncode)
        assert list(range(50)) == [event["properties"]["number"] for event in server.events]


# ---------------------------------------------------------------- rules


def test_a_rule_by_template(way, make_client, transport):
    """The template and its positional arguments are those of the call."""
    rule = {"message": "Invoice {} paid by {}", "args": ["invoice", "user_id"], "event": "Paid"}
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client))
    logger.info("Invoice {} paid by {}", 7, "u1", plan="pro")
    logger.info("Invoice {} sent to {}", 8, "u2")

    assert [("Paid", "u1", {"plan": "pro", "invoice": 7})] == arrived(client)


def test_a_rule_by_logger_level_and_text(way, make_client, transport):
    """The logger is the module, as loguru names it; a regex sees the text that is printed."""
    rule = {"logger": __name__, "level": "ERROR", "regex": r"Rows (?P<rows>\d+)", "event": "Rows"}
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client), format="{level} {message}")
    logger.error("Rows {}", 5, user_id="u1")
    logger.info("Rows {}", 6, user_id="u1")

    assert [("Rows", "u1", {"rows": "5"})] == arrived(client)


def test_what_is_not_captured_is_there_for_rules_alone(way, make_client, transport):
    """With ``capture=False`` arguments are no properties, unless a rule says so."""
    rule = {"message": "Paid {a} {b}", "user_id": "{a}"}
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client))
    logger.opt(capture=False).info("Paid {a} {b}", a="u1", b="x")

    assert [("Paid {a} {b}", "u1", {})] == arrived(client)


def test_a_tag_wins_over_rules(way, make_client, transport):
    """A tag that says no is not overruled."""
    client = make_client(transport=transport, rules=[{"message": "E"}])
    logger.add(way(client=client))
    logger.info("E", userlens_event=False, user_id="u1")
    logger.info("E", userlens_event="Tagged", user_id="u1")

    assert [("Tagged", "u1", {})] == arrived(client)


def test_others_rules_are_not_ours(way, make_client, transport):
    """Rules of another client mean nothing here."""
    make_client(rules=[{"message": "E"}])
    client = make_client(transport=transport)
    logger.add(way(client=client))
    logger.info("E", user_id="u1")

    assert [] == arrived(client)


def test_rules_are_read_again(way, make_client, transport, tmp_path):
    """With `rules_reload` a file that has changed is looked at, by the time of loguru's lines."""
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nmessage = "Old"\n')
    client = make_client(transport=transport, rules=str(file), rules_reload=True)
    logger.add(way(client=client))
    logger.info("Old", user_id="u1")
    file.write_text('[[rule]]\nmessage = "Newer"\n')
    later = timedelta(seconds=rulebook.INTERVAL + 1)
    logger.patch(lambda record: record.update(time=record["time"] + later)).info("line")
    assert rulebook._errands.finish(PATIENCE)
    logger.info("Newer", user_id="u1")

    assert [("Old", "u1", {}), ("Newer", "u1", {})] == arrived(client)


# ---------------------------------------------------------------- once


def test_two_entrances_are_one_event(client, transport):
    """A sink, a second one, a handler, and one behind a bridge into logging: one event."""
    stdlib_logger(UserlensHandler(client=client))
    logger.add(make_sink(client=client))
    logger.add(make_sink(client=client))
    logger.add(UserlensHandler(client=client))
    logger.add(PropagateHandler(), format="{message}")
    logger.info("Rows {}", 5, userlens_event=True, user_id="u1")

    assert [("Rows {}", "u1", {})] == arrived(client)
    assert 3 == client.stats().duplicates


@pytest.mark.parametrize("elapsed", [None, 0, timedelta(1)])
@pytest.mark.parametrize("enqueue", [False, True])
def test_what_a_patcher_shares_is_no_identity(way, client, elapsed, enqueue):
    """A patcher that gives each record the same ``elapsed`` loses no event."""
    for _ in range(2):
        logger.add(way(client=client), enqueue=enqueue)
        if enqueue:
            break
    logger.configure(patcher=lambda record: record.update(elapsed=elapsed))
    for name in "EF":
        logger.info(name, userlens_event=True, user_id="u1")
    logger.complete()

    assert [("E", "u1", {}), ("F", "u1", {})] == arrived(client)
    assert (0 if enqueue else 2) == client.stats().duplicates


def test_two_equal_lines_are_two_events(added):
    """Nothing but the record itself tells one line from another."""
    for _ in range(2):
        logger.info("E", userlens_event=True, user_id="u1")

    assert [("E", "u1", {})] * 2 == added()


def test_a_shared_extra_is_no_shared_record(added):
    """A patcher that gives each record the same dict loses no event."""
    shared = {"userlens_event": True, "user_id": "u1"}
    patched = logger.patch(lambda record: record.update(extra=shared))
    patched.info("E")
    patched.info("F")

    assert [("E", "u1", {}), ("F", "u1", {})] == added()


@pytest.mark.parametrize("order", [0, 1], ids=["handler first", "bridge first"])
def test_a_bridge_into_loguru_is_no_second_road(make_client, transport, way, order):
    """By a rule or a tag, a record of logging that goes on to loguru is one event."""
    client = make_client(
        transport=transport, rules=[{"regex": "Rows (?P<rows>.*)", "event": "Rows"}]
    )
    logger.add(way(client=client))
    handlers = [UserlensHandler(client=client), InterceptHandler()]
    log = stdlib_logger(*handlers[:: -1 if order else 1])
    log.info("Tagged %d", 5, extra={"userlens_event": True, "user_id": "u1"})
    log.info("Rows %d", 5, extra={"user_id": "u1"})

    assert [
        ("Tagged %d", "u1", {}),
        ("Rows", "u1", {"rows": "5"}),
    ] == arrived(client)


def test_a_text_that_was_changed_on_the_way_is_no_second_line(make_client, transport, way):
    """What a patcher has hidden is not read off the record of logging; and it is one event."""
    rules = [{"regex": "Rows (?P<rows>.*)", "event": "Rows", "properties": {}}]
    client = make_client(transport=transport, rules=rules)
    logger.add(way(client=client))
    logger.configure(patcher=lambda record: record.update(message="Rows [hidden]"))
    log = stdlib_logger(UserlensHandler(client=client), InterceptHandler())
    with logger.contextualize(user_id="u2"):
        log.info("Rows %d", 5, extra={"user_id": "u1"})
        assert [("Rows", "u1", {})] == arrived(client)

        log.handlers.pop(0)
        log.info("Rows %d", 6, extra={"user_id": "u1"})

    assert [("Rows", "u1", {}), ("Rows", "u2", {})] == arrived(client)


def test_a_bridged_record_is_read_as_it_was_logged(make_client, transport, way):
    """The bridge hands on the text alone: template, arguments, extra and logger are found."""
    rule = {"logger": "app", "message": "Rows %d", "args": ["rows"]}
    client = make_client(transport=transport, rules=[rule])
    logger.add(way(client=client))
    log = stdlib_logger(InterceptHandler())
    with logger.contextualize(user_id="u1"):
        log.info("Rows %d", 5, extra={"plan": "pro"})
        log.info("Of %(what)s", {"what": "x"}, extra={"userlens_event": True})

    assert [
        ("Rows %d", "u1", {"plan": "pro", "rows": 5}),
        ("Of %(what)s", "u1", {"what": "x"}),
    ] == (arrived(client))


def test_a_bridged_tag_needs_no_rules(added):
    """logging's tag is found through the bridge where there is no rule at all."""
    log = stdlib_logger(InterceptHandler())
    log.info("Rows %d", 5, extra={"userlens_event": True, "user_id": "u1"})
    log.info("untagged")

    assert [("Rows %d", "u1", {})] == added()


class BraceRecord(logging.LogRecord):
    """A record that formats in a way of its own."""

    def getMessage(self):  # noqa: N802 - logging's name
        return self.msg.format(*self.args)


@pytest.mark.parametrize(
    ("msg", "args", "times"),
    [
        ("100 %% of %-5s %s", lambda value: (value, 1), 1),
        # There it is a property as well, and that is text.
        ("Rows %(rows)s", lambda value: ({"rows": value},), 2),
        ("Rows {}", lambda value: (value,), 1),
        (None, lambda value: (), 1),
    ],
    ids=["args", "dict", "braces", "object"],
)
def test_a_bridged_record_is_not_formatted_again(added, msg, args, times):
    """The bridge has asked its values for their text; what stands around them is enough."""
    value = Counted()
    stdlib_logger(InterceptHandler())
    make = BraceRecord if msg == "Rows {}" else logging.LogRecord
    record = make("app", logging.INFO, __file__, 1, msg or value, args(value), None)
    vars(record).update(userlens_event=msg or "Named", user_id="u1")
    logging.getLogger("app").handle(record)

    assert [msg or "Named"] == [event[0] for event in added()]
    assert times == value.times


@pytest.mark.parametrize(
    "args", [(), ("no number",), (Counted(),)], ids=["another text", "no text", "another value"]
)
def test_a_handler_that_logs_lines_of_its_own_is_no_bridge(added, args):
    """Its line is not the record that it is handling, and does not get the tag of that."""

    class Counter(logging.Handler):
        def emit(self, record):
            logger.info("a line of its own")

    tagged = {"userlens_event": True, "user_id": "u1"}
    stdlib_logger(Counter()).info("Rows %d", *args, extra=tagged)

    assert [] == added()


# ---------------------------------------------------------------- no recursion, no raise


@pytest.mark.parametrize("enqueue", [False, True])
def test_our_diagnostics_through_a_bridge_do_not_come_back(way, client, enqueue, make_client):
    """What we say goes to loguru, is printed there, and never is an event, by whatever rule."""
    client = make_client(
        transport=client.sender._transport, rules=[{"regex": ".*", "event": "Any"}]
    )
    lines, there = [], threading.Event()

    def printed(message):
        lines.append(str(message))
        if "not an event" in lines[-1]:
            there.set()

    logger.add(way(client=client), enqueue=enqueue)
    logger.add(printed, format="{message}")
    ours = logging.getLogger("userlens_instrument")
    bridge = InterceptHandler()
    ours.addHandler(bridge)
    try:
        logger.info("Plan Upgraded", userlens_event=True)
        assert there.wait(PATIENCE)
        logger.complete()
    finally:
        ours.removeHandler(bridge)

    assert ([], {"missing_user_id": 1}) == (arrived(client), client.stats().invalid)


def test_what_we_send_with_is_no_event(added):
    """Lines of urllib3 through a bridge are not taken, tagged or not."""
    log = stdlib_logger(InterceptHandler(), name="urllib3.app")
    log.info("E", extra={"userlens_event": True, "user_id": "u1"})

    assert [] == added()


def test_lines_of_our_threads_are_no_events(added, client):
    """Whatever runs on a sender's thread, and is tagged, is counted and not taken."""
    from userlens_instrument._delivery.threads import lent_thread

    with lent_thread():
        logger.info("E", userlens_event=True, user_id="u1")

    assert ([], {"own_thread": 1}) == (added(), client.stats().invalid)


@pytest.mark.parametrize("message", ["text", SimpleNamespace(record={})])
def test_what_is_no_message_is_counted(client, message):
    """A sink that is handed something else raises nothing into the caller."""
    make_sink(client=client)(message)

    assert {"unreadable": 1} == client.stats().invalid


def test_the_host_prints_what_it_printed(added, capsys):
    """A tag is a field among fields; loguru's other sinks are none the wiser."""
    logger.add(sys.stdout, format="{message} {extra}")
    logger.info("Rows {}", 5, userlens_event=True, user_id="u1")

    assert [("Rows {}", "u1", {})] == added()
    assert "Rows 5 {'userlens_event': True, 'user_id': 'u1'}\n" == capsys.readouterr().out


# ---------------------------------------------------------------- whose extra it is


def test_an_attribute_called_extra_is_the_applications(client):
    """Without loguru on the way, it is a field like any other."""
    log = stdlib_logger(UserlensHandler(client=client))
    inner = {"userlens_event": "Inner", "user_id": "u2"}
    log.info("E", extra={"extra": inner})
    log.info("E", extra={"extra": inner, "userlens_event": True, "user_id": "u1"})
    log.info("E", extra={"extra": "text"})

    assert [("E", "u1", {"extra": inner})] == arrived(client)


def test_it_is_so_within_a_sink_of_loguru_as_well(client):
    """A line that a sink logs with logging, an extra of its own on it, is not loguru's."""
    log = stdlib_logger(UserlensHandler(client=client))
    logger.add(lambda message: log.info("E", extra={"extra": copy.copy(message.record["extra"])}))
    logger.info("E", userlens_event=True, user_id="u1")

    assert [] == arrived(client)


def deep(levels, act):
    return act() if levels == 0 else deep(levels - 1, act)


def test_the_stack_is_searched_nearby(client):
    """From far within, whose extra it is is not looked for: a log call takes no long walk."""
    assert loguru_line.record_of({}) is None
    assert deep(50, lambda: loguru_line.record_of({})) is None


def test_a_record_of_another_loguru_is_read_by_its_text():
    """Where a call does not look as it is known here, the text is the name."""
    record = {"message": "Rows 5", "extra": {}}

    assert loguru_line.Said("Rows 5") == loguru_line._read({}, record, None)


def test_a_stack_that_ends_ends_the_search():
    """On the first frame of a thread there is nothing further out."""
    found = []
    code = "found.append((record_of({}), is_bridged(), said_of({'message': 'E'})))"
    names = {**vars(loguru_line), "found": found}
    thread = threading.Thread(target=exec, args=(code, names))
    thread.start()
    thread.join(PATIENCE)

    assert [(None, False, loguru_line.Said("E"))] == found


# ---------------------------------------------------------------- whose client it is


def test_the_sink_goes_to_the_default_client(server):
    """`configure` may come after ``logger.add``."""
    logger.add(sink)
    logger.info("line")
    client = configure("wc", events_url=server.url)
    logger.info("E", userlens_event=True, user_id="u1")

    assert client.flush(PATIENCE)
    assert ["E"] == [event["event"] for event in server.events]


def test_a_wrong_environment_is_one_line(monkeypatch, diagnostics_lines):
    """The sink never raises; what is wrong is said."""
    monkeypatch.setenv("USERLENS_MAX_WORKERS", "many")
    logger.add(sink, catch=False)
    logger.info("E", userlens_event=True, user_id="u1")

    level, line = diagnostics_lines.get(timeout=PATIENCE)
    assert ("ERROR", True) == (level, "max_workers" in line)


def test_a_wrong_setting_raises_where_the_sink_is_made():
    """Start-up is the time to say so."""
    with pytest.raises(SettingsError, match="max_workers"):
        make_sink(max_worker=3)


def test_settings_of_its_own(server):
    """With settings, it is the client of this process for these settings."""
    logger.add(make_sink(write_code="wc", events_url=server.url))
    logger.info("E", userlens_event=True, user_id="u1")

    assert server.wait_for(1)
    assert "E" == server.events[0]["event"]


def test_the_page_does_what_it_says():
    """The lines at the top of docs/loguru.md, copied into a file, deliver the event."""
    page = (Path(__file__).parents[2] / "docs" / "loguru.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    with ScriptedServer() as server:
        done = run_python(f"{code}\nlogger.complete()\n", server.url)

        assert 0 == done.returncode
        assert [("Plan Upgraded", "u1", {"plan": "pro"})] == [brief(one) for one in server.events]
