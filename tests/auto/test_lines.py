"""Lines of structlog under the wrapper: taken before they are rendered, in every chain."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import types
from collections import OrderedDict, UserDict, deque
from operator import itemgetter

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog import configure, configure_once, get_logger, reset_defaults, wrap_logger
from structlog.processors import EventRenamer, JSONRenderer, KeyValueRenderer, add_log_level
from structlog.stdlib import (
    BoundLogger,
    LoggerFactory,
    PositionalArgumentsFormatter,
    ProcessorFormatter,
    render_to_log_kwargs,
)
from structlog.testing import capture_logs
from wrapping import run_code, write_rules

from userlens_instrument import UserlensProcessor, auto
from userlens_instrument import client as client_module
from userlens_instrument._auto import lines
from userlens_instrument._auto.gate import of_thread
from userlens_instrument._auto.lines import note_template, take_line, with_ours


STDLIB = {"wrapper_class": BoundLogger, "logger_factory": LoggerFactory()}
PAID = ("Invoice Paid", {"invoice": "i1"}, "u1")


def log_both(log):
    """Log a line that a rule means, and one with a tag."""
    log.warning("Invoice %s paid by %s", "i1", "u1")
    log.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")


BOTH = [PAID, ("Signed Up", {"plan": "pro"}, "u2")]

BRIDGES = {
    "JSON": [add_log_level, PositionalArgumentsFormatter(), JSONRenderer()],
    "wrap_for_formatter": [PositionalArgumentsFormatter(), ProcessorFormatter.wrap_for_formatter],
    "kwargs": [PositionalArgumentsFormatter(), render_to_log_kwargs],
    "renamed": [PositionalArgumentsFormatter(), EventRenamer("msg"), JSONRenderer()],
    "another dict": [PositionalArgumentsFormatter(), lambda *line: {**line[2]}, JSONRenderer()],
}


if hasattr(structlog.stdlib, "render_to_log_args_and_kwargs"):  # from 25.1 on
    BRIDGES["args and kwargs"] = [structlog.stdlib.render_to_log_args_and_kwargs]


def plain(events):
    """Return *events* without what a chain has added, by user: their order is each user's."""
    return sorted(
        (
            (name, {k: v for k, v in fields.items() if k in ("invoice", "plan")}, user)
            for name, fields, user in events
        ),
        key=itemgetter(2),
    )


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_line_that_goes_on_to_logging_is_one_event(events, bridge):
    """By a rule or by a tag, in whatever shape it goes on."""
    configure(processors=BRIDGES[bridge][:], **STDLIB)
    log_both(get_logger("billing"))

    assert BOTH == plain(events())


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_line_that_logging_does_not_want_hides_no_other(events, bridge):
    """The next record of that logger is an event of its own."""
    logging.getLogger("billing").setLevel(logging.ERROR)
    configure(processors=BRIDGES[bridge][:], **STDLIB)
    log_both(get_logger("billing"))
    logging.getLogger("billing").setLevel(logging.NOTSET)
    logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")

    assert [PAID, *BOTH] == plain(events())


def test_a_line_that_a_filter_of_logging_refuses_hides_no_other(events):
    """Neither does this one."""
    refuse = logging.Filter("other")
    logging.getLogger("billing").addFilter(refuse)
    configure(processors=BRIDGES["JSON"][:], **STDLIB)
    log_both(get_logger("billing"))
    logging.getLogger("billing").removeFilter(refuse)
    logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")

    assert [PAID, *BOTH] == plain(events())


def test_a_record_of_another_logger_is_no_repetition(events):
    """What a processor, or a renderer, logs on the way is taken for itself."""

    def talk(logger, name, event_dict):
        logging.getLogger("billing.other").warning("Invoice %s paid by %s", "i2", "u3")
        return str(event_dict)

    configure(processors=[add_log_level, talk], **STDLIB)
    get_logger("billing").warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1], ("Invoice Paid", {"invoice": "i2"}, "u3")] == plain(events())


def test_a_rule_by_logger_alone_makes_one_event(events):
    """Also where the record is the line as JSON, which such a rule means as well."""
    configure(processors=[JSONRenderer()], **STDLIB)
    get_logger("worker").warning("anything", user_id="u1")
    get_logger("worker").exception("anything", user_id="u2")

    assert ["u1", "u2"] == sorted(user for _, _, user in events())


WAYS = {
    "configure": lambda chain: configure(processors=chain),
    "configure_once": lambda chain: configure_once(processors=chain),
    "configure twice": lambda chain: [configure(processors=chain), configure(processors=chain)],
    "after a reset": lambda chain: [reset_defaults(), configure(processors=chain)],
    "by attribute": lambda chain: structlog.configure(processors=chain),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_every_way_to_configure_is_covered(events, way, kind):
    """Also a function that was imported before us; and there is one of ours in the chain."""
    chain = kind([add_log_level, KeyValueRenderer()])
    WAYS[way](chain)
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    processors = structlog.get_config()["processors"]

    assert [BOTH[1]] == plain(events())
    assert kind is type(processors)
    assert 1 == list(processors).count(take_line)
    assert (processors is chain) == (kind is not tuple)


def test_what_is_there_already_is_covered(events):
    """The built-in defaults, and a logger that is cached and bound."""
    configure(
        processors=[KeyValueRenderer()],
        cache_logger_on_first_use=True,
        logger_factory=lambda *args: structlog.PrintLogger(),
    )
    auto.uninstall()
    log = get_logger()
    bound = log.bind(plan="pro")
    log.info("before")
    auto.install()
    bound.info("Signed Up", userlens_event=True, user_id="u2")
    log.info("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    reset_defaults()
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] * 3 == plain(events())


@pytest.mark.parametrize("kind", [list, tuple])
def test_loggers_with_processors_of_their_own_are_covered(events, kind):
    """`wrap_logger` takes a chain, too."""
    log = wrap_logger(structlog.ReturnLogger(), processors=kind([KeyValueRenderer()]))
    log.info("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] == plain(events())


@pytest.mark.parametrize(
    "chain",
    [
        [PositionalArgumentsFormatter(), JSONRenderer()],
        [JSONRenderer(), lambda logger, name, text: text.upper()],
        [add_log_level],
        [],
        [KeyValueRenderer()],
        [lambda logger, name, event_dict: json.dumps(event_dict)],
    ],
)
def test_ours_stands_before_the_renderer(chain):
    """Before what makes text of the line, wherever that stands; else before the last."""
    changed = with_ours(chain[:])
    place = changed.index(take_line)
    rendered = any(isinstance(each, (JSONRenderer, KeyValueRenderer)) for each in changed[:place])

    assert not rendered
    assert chain == [each for each in changed if each not in (take_line, note_template)]
    assert len(changed) - 2 <= max(place, 0) or isinstance(changed[place + 1], JSONRenderer)


processors = st.sampled_from(
    [
        add_log_level,
        PositionalArgumentsFormatter(),
        JSONRenderer(),
        render_to_log_kwargs,
        ProcessorFormatter.wrap_for_formatter,
        take_line,
        note_template,
    ]
)


@given(st.lists(processors))
def test_any_chain_gets_ours_once(chain):
    """And the rest keeps its order; doing it again changes nothing."""
    rest = [each for each in chain if each not in (take_line, note_template)]
    changed = with_ours(chain)

    assert changed is chain
    assert 1 == changed.count(take_line)
    assert 1 >= changed.count(note_template)
    assert rest == [each for each in changed if each not in (take_line, note_template)]
    assert changed[:] == with_ours(changed)


@pytest.mark.parametrize("chain", [None, iter([add_log_level]), {"a": 1}, 7])
def test_what_is_no_list_of_processors_is_left_alone(chain):
    """It is structlog's to complain of."""
    assert with_ours(chain) is chain


def test_a_chain_that_cannot_be_changed_is_left_alone(diagnostics_lines):
    """It is told, and the application goes on."""

    class Frozen(list):
        def __setitem__(self, place, value):
            raise TypeError("frozen")

    chain = Frozen([add_log_level])
    assert with_ours(chain) is chain

    assert "cannot be changed" in diagnostics_lines.get(timeout=5)[1]


def test_a_processor_of_ones_own_makes_ours_superfluous(installed, events):
    """An application that has a `UserlensProcessor` in its chain is served by that one."""
    configure(processors=[UserlensProcessor(), KeyValueRenderer()])
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert take_line not in structlog.get_config()["processors"]
    assert [BOTH[1]] == plain(events())


def test_a_line_that_is_dropped_is_no_event(events):
    """A processor that raises DropEvent decides, as a level does."""

    def drop(logger, name, event_dict):
        raise structlog.DropEvent

    configure(processors=[PositionalArgumentsFormatter(), drop, JSONRenderer()], **STDLIB)
    log_both(get_logger("billing"))
    assert [] == events()

    # What was noted of it is not taken for a part of the next line.
    configure(processors=[lambda *line: line[2], JSONRenderer()], **STDLIB)
    get_logger("billing").warning("Invoice %s paid by %s", user_id="u1")
    assert [("Invoice Paid", {}, "u1")] == events()
    assert of_thread.said is None


def test_a_line_that_a_processor_logs_on_the_way_does_not_confuse(events):
    """The template of the inner line is not taken for the outer one's."""

    def talk(logger, name, event_dict):
        if event_dict["event"] == "Invoice i1 paid by u1":
            get_logger("billing").warning("%s paid by %s for %s", "i1", "u1", "u2")
        return event_dict

    configure(processors=[PositionalArgumentsFormatter(), talk, JSONRenderer()], **STDLIB)
    get_logger("billing").warning("Invoice %s paid by %s", "i1", "u1")
    # Nobody notes the template twice: the rule does not know this line.
    assert [] == events()

    get_logger("worker").warning("Worked for %(user_id)s", {"user_id": "u9"}, user_id="u9")
    assert ["Work Done"] == [name for name, _, _ in events()]


@pytest.mark.parametrize(
    ("noted", "event_dict", "found"),
    [
        (("%s paid", ("i1",)), {"event": "i1 paid"}, ("%s paid", ("i1",))),
        (("%(a)s paid", ({"a": 1},)), {"event": "1 paid"}, ("%(a)s paid", ({"a": 1},))),
        (("%s paid", ("i1",)), {"event": "i2 paid"}, None),
        (("%d paid", ("i1",)), {"event": "i1 paid"}, None),
        (("%s paid", ({},)), {"event": "{} paid"}, ("%s paid", ({},))),
    ],
)
def test_a_note_is_taken_for_the_line_that_it_fits(noted, event_dict, found):
    """Where the dict is another one, the text tells."""
    of_thread.said = ({}, *noted)
    try:
        assert found == lines.said_of(event_dict)
    finally:
        of_thread.said = None


def test_a_line_without_arguments_is_not_noted():
    """Nor one whose arguments are none that structlog gives, nor what is no dict."""
    for line in ({"event": "x"}, {"event": "x", "positional_args": ["a"]}, "text"):
        assert line is note_template(None, "info", line)
        assert of_thread.said is None


def test_tests_see_lines_as_they_are_logged(events):
    """`capture_logs` is not in our way, nor are we in its."""
    configure(processors=[add_log_level, KeyValueRenderer()])
    before = structlog.get_config()["processors"][:]
    with capture_logs() as captured:
        get_logger().info("Signed Up", userlens_event=True, user_id="u2")
    assert [] == events()
    assert {"userlens_event": True, "user_id": "u2"}.items() <= captured[0].items()
    assert before == structlog.get_config()["processors"]

    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    assert [BOTH[1]] == plain(events())


def test_a_context_of_ones_own_kind_is_taken(events):
    """structlog lets an application choose what its event dicts are."""
    configure(
        processors=[lambda *line: dict(line[2]), KeyValueRenderer()], context_class=OrderedDict
    )
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    line = OrderedDict(event="Signed Up", userlens_event=True, user_id="u2", plan="pro")
    assert line is take_line(None, "info", line)
    assert "userlens_event" in line

    assert [BOTH[1]] * 2 == plain(events())


def test_a_context_that_cannot_be_copied_is_told(installed, events, diagnostics_lines):
    """It is counted, and said once; the line goes on."""

    class Odd(UserDict):
        def copy(self):
            raise RuntimeError

    get_logger().info("x", userlens_event=True, user_id="u2")
    line = Odd(event="Signed Up", userlens_event=True, user_id="u2")
    assert line is take_line(None, "info", line)

    assert 1 == len(events())
    assert {"unreadable": 1} == dict(installed.stats().invalid)
    assert "RuntimeError" in diagnostics_lines.get(timeout=5)[1]


@pytest.mark.parametrize("tagged", [False, True])
def test_a_renderer_that_raises_costs_no_later_record(installed, events, tagged):
    """The record that does not come of a line is not taken for the next one of its logger."""

    def explode(logger, name, fields):
        raise RuntimeError

    configure(processors=[explode], **STDLIB)
    more = {"userlens_event": True} if tagged else {}
    with pytest.raises(RuntimeError):
        get_logger("worker").warning("Work Done", user_id="u1", **more)
    logging.getLogger("worker").warning(
        "Work Done", extra={"userlens_event": True, "user_id": "u2"}
    )

    assert [("Work Done", "u1"), ("Work Done", "u2")] == sorted(
        (name, user) for name, _, user in events()
    )
    assert 0 == installed.stats().duplicates


def test_our_processors_can_be_copied_and_pickled():
    """A bound logger, which holds the chain, can be handed to another process as before."""
    for ours in (take_line, note_template):
        assert ours is pickle.loads(pickle.dumps(ours))
        assert ours is copy.deepcopy(ours)


def test_structlog_is_as_it_was_afterwards(events):
    """`uninstall` takes ours out of the chain, and takes no line any more."""
    chain = [add_log_level, KeyValueRenderer()]
    kept = chain[:]
    configure(processors=chain)
    auto.uninstall()
    configuration = structlog._config._CONFIG

    assert kept == chain
    assert structlog._config._Configuration is type(configuration)
    assert not hasattr(structlog._config.BoundLoggerLazyProxy.__init__, "__wrapped__")
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    assert [] == events()


def test_a_structlog_that_is_not_known_is_told(diagnostics_lines, monkeypatch):
    """A later one may be arranged otherwise: its import goes on, and a line says what is amiss."""
    module = types.ModuleType("structlog._config")
    auto._watcher.hooks["structlog._config"](module)

    assert "structlog._config is not as it is known" in diagnostics_lines.get(timeout=5)[1]
    assert client_module.registry.default is None


def test_a_program_of_structlog_alone(server, tmp_path):
    """Nothing configured, the first line of all is taken; printed it is as ever."""
    code = (
        "from structlog import get_logger\n"
        "get_logger('billing').info('Signed Up', userlens_event=True, user_id='u1')\n"
        "get_logger().bind(logger='billing').info('Invoice %s paid by %s', user_id='u2')\n"
    )
    done = run_code(code, server.url, options=["--rules", write_rules(tmp_path)])

    assert 0 == done.returncode
    assert "userlens_event" in done.stdout
    assert ["Invoice Paid", "Signed Up"] == sorted(event["event"] for event in server.events)
