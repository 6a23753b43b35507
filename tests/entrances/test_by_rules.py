"""Lines without a tag become events by rules, at both entrances, and once."""

from __future__ import annotations

import itertools
import logging
import logging.config
import logging.handlers
import queue
import time

import pytest
import structlog
from helpers import PATIENCE, WRITE_CODE, run_python
from structlog.stdlib import ProcessorFormatter

import userlens_instrument as userlens
from userlens_instrument import Client, RulesError, Settings, UserlensHandler, UserlensProcessor
from userlens_instrument._delivery import rulebook
from userlens_instrument._delivery.diagnostics import Voice, voice
from userlens_instrument._delivery.threads import lent_thread


RULES = [
    {
        "logger": "billing*",
        "level": "INFO",
        "message": "Invoice %s paid by %s",
        "args": ["invoice", "user_id"],
        "event": "Invoice Paid",
    },
    {
        "logger": ["worker.*", "billing*"],
        "regex": r"Export (?P<format>\w+) finished for user (?P<user_id>\d+)",
        "event": "Export Finished",
    },
    {"message": "Plan Changed"},
]


@pytest.fixture
def client(transport):
    with Client(Settings(write_code=WRITE_CODE, rules=RULES), transport=transport) as made:
        yield made


@pytest.fixture
def log(client):
    logger = logging.getLogger("billing.core")
    logger.handlers[:] = [UserlensHandler(client=client)]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    return logger


def taken(client, transport):
    assert client.flush(PATIENCE)
    return [
        (event["event"], event["userId"], event.get("properties")) for event in transport.events
    ]


def chain(client, *more, method=None):
    return structlog.wrap_logger(
        method or structlog.ReturnLogger(),
        processors=[*more, UserlensProcessor(client), lambda logger, name, fields: fields["event"]],
    )


# ---------------------------------------------------------------- the handler


def test_a_stdlib_line_by_its_template(client, transport, log):
    """
    The template is msg, whatever the arguments are; the record is left as it is.
    """
    log.info("Invoice %s paid by %s", "i-1", "u1", extra={"amount": 3})
    log.debug("Invoice %s paid by %s", "i-2", "u1")
    log.info("Invoice i-3 paid by u1")

    assert [("Invoice Paid", "u1", {"amount": 3, "invoice": "i-1"})] == taken(client, transport)


def test_a_stdlib_line_by_a_regex(client, transport, log):
    """
    The regex sees what is printed.
    """
    log.info("Export %s finished for user %d", "csv", 7)
    log.info("Other")

    assert [("Export Finished", "7", {"format": "csv"})] == taken(client, transport)


def test_arguments_that_do_not_fit(client, transport):
    """
    logging itself says so when it prints the line; we look at the text as it stands.
    """
    handler = UserlensHandler(client=client)
    template = "Export csv finished for user 8 %s %s"

    handler.handle(logging.LogRecord("worker.x", 20, __file__, 1, template, (1,), None))
    chain(client).info(template, positional_args=(1,), logger="worker.x")

    assert [("Export Finished", "8", {"format": "csv"})] * 2 == taken(client, transport)


def test_what_is_no_text_is_looked_at_as_well(client, transport, log):
    """
    A lone mapping as arguments, and an object in the place of the message.
    """
    log.info("Plan Changed", {"user_id": "u1", "to": "pro"})  # noqa: PLE1205 - a lone mapping
    log.info(ValueError("Export csv finished for user 8"))

    assert [
        ("Export Finished", "8", {"format": "csv"}),
        ("Plan Changed", "u1", {"to": "pro"}),
    ] == sorted(taken(client, transport))


@pytest.mark.parametrize("tag", ["Other Name", True, False, None])
def test_a_tag_wins_over_rules(client, transport, log, tag):
    """
    A tagged line is what its tag says, at either entrance; a tag that says no is a no.
    """
    fields = {"userlens_event": tag, "user_id": "u1"}
    expected = [] if not tag else [("Plan Changed" if tag is True else tag, "u1", None)]

    log.info("Plan Changed", extra=fields)
    chain(client).info("Plan Changed", **fields)

    assert expected * 2 == taken(client, transport)


def test_our_own_lines_are_never_meant(transport):
    """
    Not by the widest of rules: what we or urllib3 log, and what is logged on a thread of ours.
    """
    settings = Settings(
        write_code=WRITE_CODE, rules=[{"logger": "*", "event": "Any", "user_id": "u1"}]
    )
    with Client(settings, transport=transport) as client:
        handler = UserlensHandler(client=client)
        for name in ("urllib3.util.retry", "userlens_instrument", "app"):
            handler.handle(logging.makeLogRecord({"name": name, "msg": "x"}))
        with lent_thread():
            handler.handle(logging.makeLogRecord({"name": "app", "msg": "x"}))
            chain(client).info("x")

        assert [("Any", "u1", None)] == taken(client, transport)
        assert {"own_thread": 2} == client.stats().invalid


@pytest.mark.parametrize("way", ["renamed", "behind a queue", "its text alone"])
def test_our_own_lines_are_known_by_their_text(transport, way):
    """
    By another name, on another thread, through a bridge to another library: no line of ours is
    an event, whose delivery would be the next line.
    """
    settings = Settings(
        write_code=WRITE_CODE,
        rules=[{"logger": "*", "event": "Any", "user_id": "u1"}],
        debug=True,
    )
    with Client(settings, transport=transport) as client:
        handler = UserlensHandler(client=client)
        met = queue.Queue()

        class Bridge(logging.Handler):
            def emit(self, record):
                line = {**vars(record), "name": "app"}
                if way == "behind a queue":
                    line |= {"msg": record.getMessage(), "args": None}
                elif way == "its text alone":
                    line = {"name": "root", "msg": record.getMessage()}
                met.put(logging.makeLogRecord(line))

        log, bridge = logging.getLogger("userlens_instrument"), Bridge()
        log.addHandler(bridge)
        level = log.level
        log.setLevel(logging.DEBUG)
        try:
            client.track("u1", "First")
            assert client.flush(PATIENCE)
            line = met.get(timeout=PATIENCE)
            handler.handle(line)
            handler.handle(logging.makeLogRecord({"name": "app", "msg": "theirs"}))
        finally:
            log.removeHandler(bridge)
            log.setLevel(level)

        assert line.getMessage().startswith("debug: track of")
        assert ["First", "Any"] == [name for name, *_ in taken(client, transport)]


def test_what_was_said_long_ago_is_forgotten():
    """However many lines are said, no more than some thousands are remembered."""
    voice, lines = Voice(), logging.getLogger("userlens_instrument")
    lines.disabled = True
    try:
        for number in range(10_000):
            voice.say(None, f"line {number}")
            voice.drain(PATIENCE)
    finally:
        lines.disabled = False

    assert voice.has_said("line 9999")
    assert not voice.has_said("line 0")
    assert 4_096 == sum(voice.has_said(f"line {number}") for number in range(10_000))


def test_a_record_without_a_name(client, transport):
    """
    What makeLogRecord() makes of nothing is no event, and no error.
    """
    handler = UserlensHandler(client=client)

    handler.handle(logging.makeLogRecord({"name": None, "msg": "Plan Changed", "user_id": "u1"}))
    handler.handle(logging.makeLogRecord({"msg": "Something"}))

    assert [("Plan Changed", "u1", None)] == taken(client, transport)


def test_what_a_rule_cannot_make_an_event_of(client, transport, caplog):
    """
    A line that a rule means and that lacks its user: counted, and said with the call site.
    """
    UserlensHandler(client=client).handle(
        logging.LogRecord("app", 20, __file__, 7, "Plan Changed", (), None)
    )

    assert [] == taken(client, transport)
    assert {"missing_user_id": 1} == client.stats().invalid
    voice.drain(PATIENCE)
    assert [True] == [line.startswith(f"not an event, at {__file__}:") for line in caplog.messages]


def test_sampled_lines_are_counted(transport):
    """
    What a rule's sample leaves out is neither delivered nor lost: ``sampled`` says how many.
    """
    rules = [{"message": "A", "sample": 0.5}, {"message": "A", "event": "All"}]
    with Client(Settings(write_code=WRITE_CODE, rules=rules), transport=transport) as client:
        log = chain(client)
        for number in range(100):
            log.info("A", user_id=f"u{number}")
        found = [name for name, _, _ in taken(client, transport)]

        assert (100, 100) == (found.count("All"), found.count("A") + client.stats().sampled)
        assert 0 < client.stats().sampled < 100


@pytest.mark.parametrize("settings", [{"disabled": True}, {}])
def test_a_client_that_sends_nothing_counts_what_rules_would_have_made(settings):
    """
    Disabled, or without a write code: each event is a drop with its reason.
    """
    rules = [{"message": "A"}, {"message": "A", "event": "B"}]
    with Client(Settings(rules=rules, **settings)) as client:
        chain(client).info("A", user_id="u1")

        assert {2} == set(client.stats().dropped.values())


# ---------------------------------------------------------------- the processor


def test_a_structlog_line_by_its_text(client, transport):
    """
    The text is the event; what is rendered is what was logged.
    """
    assert "Plan Changed" == chain(client).info("Plan Changed", user_id="u1", to="pro")
    assert [("Plan Changed", "u1", {"to": "pro"})] == taken(client, transport)


def test_a_structlog_line_by_template_and_arguments(client, transport):
    """
    With stdlib.BoundLogger, and before PositionalArgumentsFormatter, the template is still there.
    """
    lines = []
    log = structlog.wrap_logger(
        logging.getLogger("billing.core"),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.add_logger_name,
            UserlensProcessor(client),
            structlog.stdlib.PositionalArgumentsFormatter(),
            lambda logger, name, fields: lines.append(fields["event"]) or "",
        ],
    )

    log.info("Invoice %s paid by %s", "i-1", "u1")
    log.debug("Invoice %s paid by %s", "i-1", "u1")
    log.info("Export %s finished for user %d", "csv", 7)

    assert [
        ("Export Finished", "7", {"format": "csv"}),
        ("Invoice Paid", "u1", {"invoice": "i-1"}),
    ] == sorted(taken(client, transport))
    assert "Invoice i-1 paid by u1" == lines[0]


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("info", {}, 20),
        ("warn", {}, 30),
        ("exception", {}, 40),
        ("fatal", {}, 50),
        ("notice", {"level_number": 25}, 25),
        ("notice", {"level": "error"}, 40),
        ("notice", {"level": "odd"}, 20),
        ("notice", {}, 20),
    ],
)
def test_the_level_of_a_structlog_line(transport, method, fields, expected):
    """
    That of its method; of a method of the application's own, what a processor has added.
    """
    rules = [
        {"message": "A", "level": level, "event": str(level)} for level in (20, 25, 30, 40, 50)
    ]
    with Client(Settings(write_code=WRITE_CODE, rules=rules), transport=transport) as client:
        UserlensProcessor(client)(None, method, {"event": "A", "user_id": "u", **fields})

        assert str(expected) == taken(client, transport)[-1][0]


@pytest.mark.parametrize("key", ["message", "msg"])
def test_a_renamed_event(client, transport, key):
    """
    After EventRenamer the text is elsewhere, and is found there.
    """
    fields = {key: "Plan Changed", "user_id": "u1", "to": "pro"}
    processor = UserlensProcessor(client)

    assert processor(None, "info", fields) is fields
    assert "Plan Changed" == fields[key]
    processor(None, "info", fields)

    assert ["Plan Changed"] == [name for name, _, _ in taken(client, transport)]


@pytest.mark.parametrize(
    "fields", [{}, {"event": None}, {"event": 3}, {"event": "x"}, {"event": ()}]
)
def test_lines_that_nobody_means(client, transport, fields):
    """
    No text, or another one: handed on as it is.
    """
    given = dict(fields)

    assert given is UserlensProcessor(client)(object(), "info", given)
    assert fields == given
    assert [] == taken(client, transport)


class OtherDict(dict):
    """What structlog's context_class may make."""


def test_an_event_dict_of_another_class(client, transport):
    """
    Any mutable mapping is looked at.
    """
    UserlensProcessor(client)(None, "info", OtherDict(event="Plan Changed", user_id="u1"))

    assert [("Plan Changed", "u1", None)] == taken(client, transport)


def test_what_cannot_be_read_is_counted(client):
    """
    Whatever raises while events are made of what rules have found is counted, and goes no further.
    """
    client.capture_matches(client.reader(None), [object()], None, lambda: "here:1")

    assert {"unreadable": 1} == client.stats().invalid


def test_a_line_without_a_text(transport):
    """
    A rule may mean a logger whatever it logs: there is nothing to mark, and one event.
    """
    rules = [{"logger": "*", "event": "Any"}]
    with Client(Settings(write_code=WRITE_CODE, rules=rules), transport=transport) as client:
        UserlensProcessor(client)(None, "info", {"user_id": "u1"})

        assert ["Any"] == [name for name, _, _ in taken(client, transport)]


def test_another_class_where_nobody_has_rules(transport):
    """
    Without a tag, and without rules, any mapping is handed on.
    """
    with Client(Settings(write_code=WRITE_CODE), transport=transport) as client:
        line = OtherDict(event="Plan Changed", user_id="u1")

        assert line is UserlensProcessor(client)(None, "info", line)
        assert [] == taken(client, transport)


# ---------------------------------------------------------------- once


BRIDGES = {
    "wrap_for_formatter": ProcessorFormatter.wrap_for_formatter,
    "render_to_log_kwargs": structlog.stdlib.render_to_log_kwargs,
    "text": lambda logger, name, fields: fields["event"],
    "json": structlog.processors.JSONRenderer(),
}


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("places", ["here", "queue", "both"])
@pytest.mark.parametrize("text", ["Plan Changed", "Export csv finished for user 7"])
def test_a_structlog_line_goes_through_stdlib_once(client, transport, tagged, bridge, places, text):
    """
    Processor, bridge, handlers here and behind a QueueHandler: each line is one event, tagged or
    not.
    """
    log = logging.getLogger("billing.through")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [UserlensHandler(client=client)] if places != "queue" else []
    listener = None
    if places != "here":
        records = queue.SimpleQueue()
        log.addHandler(logging.handlers.QueueHandler(records))
        listener = logging.handlers.QueueListener(records, UserlensHandler(client=client))
        listener.start()
    bound = structlog.wrap_logger(log, processors=[UserlensProcessor(client), BRIDGES[bridge]])
    for _ in range(3):
        bound.info(text, user_id="7", **({"userlens_event": True} if tagged else {}))
    if listener is not None:
        listener.stop()

    name = "Export Finished" if text.startswith("Export") and not tagged else text
    assert [name] * 3 == [found for found, _, _ in taken(client, transport)]


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 2])))
def test_a_stdlib_line_meets_several_handlers_once(client, transport, order):
    """
    Handlers on the logger, above it, and a formatter with our processor: one event, in any order.
    """
    formatter = ProcessorFormatter(
        foreign_pre_chain=[UserlensProcessor(client)],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    stream = logging.Handler()
    stream.emit = stream.format
    stream.setFormatter(formatter)
    handlers = [UserlensHandler(client=client), UserlensHandler(client=client), stream]
    parent, child = logging.getLogger("billing"), logging.getLogger("billing.child")
    parent.propagate = False
    child.setLevel(logging.INFO)
    child.handlers[:] = [handlers[order[0]]]
    parent.handlers[:] = [handlers[place] for place in order[1:]]

    child.info("Invoice %s paid by %s", "i", "u1")
    child.info("Plan Changed", extra={"user_id": "u1"})

    parent.handlers.clear()
    assert ["Invoice Paid", "Plan Changed"] == [name for name, _, _ in taken(client, transport)]


def test_two_processors_in_one_chain(client, transport):
    """
    The second one finds that the first has had the line.
    """
    log = chain(client, UserlensProcessor(client), UserlensProcessor(client))

    assert "Plan Changed" == log.info("Plan Changed", user_id="u1")

    assert 1 == len(taken(client, transport))
    assert 2 == client.stats().duplicates


def test_the_same_line_twice_is_two_events(client, transport, log):
    """
    Once means once for each log call: what is logged again is another event.
    """
    for _ in range(3):
        log.info("Plan Changed", extra={"user_id": "u1"})
        chain(client).info("Plan Changed", user_id="u1")

    assert 6 == len(taken(client, transport))


@pytest.mark.parametrize("text", ["A", ""])
def test_a_text_too_short_to_be_marked(transport, text):
    """
    A line of one character cannot be marked; it is an event, and printed as it is.
    """
    rules = [{"regex": "A?", "event": "Short"}]
    with Client(Settings(write_code=WRITE_CODE, rules=rules), transport=transport) as client:
        assert text == chain(client).info(text, user_id="u1")

        assert ["Short"] == [name for name, _, _ in taken(client, transport)]


def test_other_clients_have_other_rules(client, transport):
    """
    A processor without rules of its own lets pass what somebody else's would mean.
    """
    with Client(Settings(write_code=WRITE_CODE), transport=transport) as other:
        chain(other).info("Plan Changed", user_id="u1")
        UserlensHandler(client=other).handle(
            logging.makeLogRecord({"name": "x", "msg": "Plan Changed", "user_id": "u1"})
        )

        assert [] == taken(other, transport)


def test_the_file_is_looked_at_while_lines_come(tmp_path, transport):
    """
    With rules_reload both entrances give the file its look, by the time of the line.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\n')
    settings = Settings(write_code=WRITE_CODE, rules=path, rules_reload=True)
    with Client(settings, transport=transport) as client:
        handler = UserlensHandler(client=client)
        now = time.time()
        for since, text in ((0, "B"), (11, "B")):
            path.write_text(path.read_text() + f'[[rule]]\nmessage = "B"\nevent = "{since}"\n')
            record = {"name": "x", "msg": text, "user_id": "u1", "created": now + since}
            handler.handle(logging.makeLogRecord(record))
            chain(client).info(text, user_id="u1")
        assert rulebook._errands.finish(PATIENCE)
        chain(client).info("B", user_id="u2")

        assert ["0", "11"] == [name for name, user, _ in taken(client, transport) if user == "u2"]


# ---------------------------------------------------------------- where rules come from


def test_settings_of_a_handler(tmp_path):
    """
    dictConfig: a path or a list of rules; what is wrong is an error when logging is set up.
    """

    def configure(rules):
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "userlens": {
                        "class": "userlens_instrument.UserlensHandler",
                        "dry_run": True,
                        "rules": rules,
                    }
                },
                "loggers": {"dictconfig": {"handlers": ["userlens"], "level": "INFO"}},
            }
        )

    for rules in ([{"message": "A"}], str(tmp_path / "userlens.toml")):
        (tmp_path / "userlens.toml").write_text('[[rule]]\nmessage = "A"\n')
        before = userlens.stats().accepted
        configure(rules)
        logging.getLogger("dictconfig").info("A", extra={"user_id": "u1"})
        logging.getLogger("dictconfig").info("B", extra={"user_id": "u1"})
        assert before + 1 == userlens.stats().accepted
    with pytest.raises(ValueError, match="Unable to configure handler 'userlens'") as caught:
        configure([{"message": "A", "levl": 3}])
    assert isinstance(caught.value.__cause__, RulesError)


def test_a_handler_with_settings_goes_by_its_own_rules(transport):
    """
    Whatever the default client goes by, before and after the first event of either.
    """
    handler = UserlensHandler(dry_run=True, rules=[{"message": "A"}])
    userlens.configure(dry_run=True, rules=[{"message": "B"}])
    for _ in range(2):
        for text in "AB":
            handler.handle(logging.makeLogRecord({"name": "x", "msg": text, "user_id": "u1"}))
            UserlensHandler().handle(
                logging.makeLogRecord({"name": "x", "msg": text, "user_id": "u1"})
            )

    assert 4 == userlens.stats().accepted
    assert [2, 2] == [one.stats().accepted for one in userlens.client.registry.clients.values()]


def test_rules_of_the_environment(tmp_path, monkeypatch):
    """
    USERLENS_RULES serves entrances without settings; no client is made before a line is meant.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\n')
    monkeypatch.setenv("USERLENS_RULES", str(path))
    handler = UserlensHandler()
    processor = UserlensProcessor()
    handler.handle(logging.makeLogRecord({"name": "x", "msg": "B", "user_id": "u1"}))
    assert userlens.client.registry.default is None

    handler.handle(logging.makeLogRecord({"name": "x", "msg": "A", "user_id": "u1"}))
    processor(None, "info", {"event": "A", "user_id": "u1"})

    assert {"no_write_code": 2} == userlens.stats().dropped


def test_configure_may_come_later(tmp_path, monkeypatch):
    """
    From then on its rules hold, not those of the environment.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\n')
    monkeypatch.setenv("USERLENS_RULES", str(path))
    handler, processor = UserlensHandler(), UserlensProcessor()
    for text in "AB":
        handler.handle(logging.makeLogRecord({"name": "x", "msg": text, "user_id": "u1"}))
        processor(None, "info", {"event": text, "user_id": "u1"})
    assert 2 == userlens.stats().accepted

    userlens.configure(dry_run=True, rules=[{"message": "B"}])
    for text in "AB":
        handler.handle(logging.makeLogRecord({"name": "x", "msg": text, "user_id": "u1"}))
        processor(None, "info", {"event": text, "user_id": "u1"})

    assert (4, 2) == (
        userlens.stats().accepted,
        userlens.stats().delivered + userlens.stats().pending,
    )


def test_a_wrong_file_of_the_environment(tmp_path, monkeypatch):
    """
    One error at start-up that says what, where and how to fix it.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\nlevl = 3\n')
    monkeypatch.setenv("USERLENS_RULES", str(path))

    for make in (UserlensHandler, UserlensProcessor):
        with pytest.raises(RulesError, match="line 3, rule 1"):
            make()


def test_a_file_that_breaks_later_costs_no_tagged_event(tmp_path, monkeypatch, caplog):
    """
    On the logging path it is one line; what is tagged is delivered all the same.
    """
    path = tmp_path / "userlens.toml"
    path.write_text('[[rule]]\nmessage = "A"\n')
    handler, processor = UserlensHandler(), UserlensProcessor()
    monkeypatch.setenv("USERLENS_RULES", str(path))
    monkeypatch.setenv("USERLENS_DRY_RUN", "true")
    path.write_text("nonsense")
    rulebook.books["another"] = object()

    handler.handle(logging.makeLogRecord({"name": "x", "msg": "A", "user_id": "u1"}))
    userlens.track("u1", "By Hand")
    processor(None, "info", {"event": "A", "user_id": "u1", "userlens_event": True})
    handler.handle(logging.makeLogRecord({"name": "x", "msg": "A", "user_id": "u1"}))

    assert 2 == userlens.stats().accepted
    voice.drain(PATIENCE)
    assert [True] == ["rules are ignored: " in line for line in caplog.messages]


def test_a_program_end_to_end(server, tmp_path):
    """
    For real: no tag and no setting in the code, rules from a file, events at a server.
    """
    path = tmp_path / "userlens.toml"
    path.write_text(
        '[[rule]]\nlogger = "billing.*"\nmessage = "Invoice %s paid by %s"\n'
        'args = ["invoice", "user_id"]\nevent = "Invoice Paid"\n'
    )
    done = run_python(
        """
import logging
import userlens_instrument as userlens
handlers = [logging.StreamHandler(), userlens.UserlensHandler()]
logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(message)s")
logging.getLogger("billing.core").info("Invoice %s paid by %s", "i-1", "u1")
logging.getLogger("other").info("Invoice %s paid by %s", "i-2", "u1")
""",
        server.url,
        USERLENS_RULES=str(path),
    )

    assert (0, "Invoice i-1 paid by u1\nInvoice i-2 paid by u1\n") == (done.returncode, done.stderr)
    assert [("Invoice Paid", "u1", {"invoice": "i-1"})] == [
        (body["event"], body["userId"], body["properties"]) for body in server.events
    ]
