"""Lines of structlog under the wrapper: taken before they are rendered, in every chain."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import logging
import pickle
import sys
import threading
import traceback
import types
import weakref
from collections import OrderedDict, UserDict, deque
from collections.abc import MutableMapping
from operator import itemgetter

import pytest
import structlog
from helpers import PATIENCE
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
from userlens_instrument._auto.lines import (
    Standing,
    is_taken_at,
    look_of,
    note_template,
    original_of,
    pass_on,
    take_line,
    with_ours,
)


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
    assert [False, True] == [is_taken_at(each) for each in processors]
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
    looks = [look_of(each) for each in changed]
    place = looks.index(take_line)
    rendered = any(isinstance(each, (JSONRenderer, KeyValueRenderer)) for each in changed[:place])

    assert not rendered
    assert (chain or [pass_on]) == [original_of(each) for each in changed]
    assert place == len(changed) - 1 or isinstance(changed[place], JSONRenderer)
    assert [note_template] * ("Positional" in repr(chain)) == [
        each for each in looks if each not in (None, take_line)
    ]


processors = st.sampled_from(
    [
        add_log_level,
        PositionalArgumentsFormatter(),
        JSONRenderer(),
        render_to_log_kwargs,
        ProcessorFormatter.wrap_for_formatter,
        Standing(JSONRenderer(), take_line),
        Standing(add_log_level, take_line),
        Standing(PositionalArgumentsFormatter(), note_template),
        Standing(pass_on, take_line),
    ]
)


@given(st.lists(processors))
def test_any_chain_gets_ours_once(chain):
    """And the rest keeps its order; doing it again changes nothing."""
    rest = [original_of(each) for each in chain]
    changed = with_ours(chain)
    looks = [look_of(each) for each in changed]
    again = list(map(id, changed))

    assert changed is chain
    assert 1 == looks.count(take_line)
    assert 1 >= looks.count(note_template)
    assert (rest or [pass_on]) == [original_of(each) for each in changed]
    assert again == list(map(id, with_ours(changed)))


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

    assert not any(map(is_taken_at, structlog.get_config()["processors"]))
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


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch):
    """Have no renderer known from another test."""
    monkeypatch.setattr(lines, "_seen_renderers", [])


# ---------------------------------------------------------------- a chain that is gone through


def chain_of(kind, place, act):
    """Return a chain of three, the last of which renders; the one at *place* calls *act* first."""

    def acting(processor):
        def process(*line):
            act()
            return processor(*line)

        return process

    chain = [add_log_level, lambda *line: {**line[2], "more": 1}, JSONRenderer(sort_keys=True)]
    chain[place] = acting(chain[place])
    return kind(chain)


TEXT = '{"event": "x", "level": "info", "more": 1}'
CHANGES = {
    "install": (auto.install,),
    "uninstall": (auto.uninstall,),
    "both": (auto.install, auto.uninstall),
    "both, the other way": (auto.uninstall, auto.install),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [list, tuple, deque])
@pytest.mark.parametrize("cached", [False, True])
def test_a_line_under_way_meets_each_processor_once(change, kind, place, cached):
    """A list that is gone through just now keeps its length and its order, whatever we do."""

    def act():
        for each in CHANGES[change]:
            each()

    configure(
        processors=chain_of(kind, place, act),
        logger_factory=structlog.testing.ReturnLoggerFactory(),
        cache_logger_on_first_use=cached,
    )
    if change.startswith(("uninstall", "both, ")):
        auto.install()
    log = get_logger()
    try:
        assert [TEXT] * 3 == [log.info("x") for _ in range(3)]
    finally:
        auto.uninstall()
    assert not any(map(look_of, structlog.get_config()["processors"]))


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_a_line_that_is_just_taken_meets_the_renderer(installed, monkeypatch, kind):
    """Also if we are gone when that comes: nothing but text may come to the logger."""
    configure(
        processors=kind([add_log_level, JSONRenderer(sort_keys=True)]),
        logger_factory=structlog.testing.ReturnLoggerFactory(),
    )
    monkeypatch.setattr(auto.gate, "take_line", lambda *line: auto.uninstall())

    assert '{"event": "x", "level": "info"}' == get_logger().info("x")
    assert not auto.is_installed()


@pytest.mark.parametrize("change", CHANGES)
def test_a_line_of_another_thread_meets_each_processor_once(change):
    """It waits in the middle of the chain, meanwhile that is changed."""
    inside, go, texts = threading.Event(), threading.Event(), []

    def act():
        inside.set()
        go.wait(PATIENCE)

    configure(
        processors=chain_of(list, 1, act), logger_factory=structlog.testing.ReturnLoggerFactory()
    )
    if change.startswith(("uninstall", "both, ")):
        auto.install()
    thread = threading.Thread(target=lambda: texts.append(get_logger().info("x")))
    thread.start()
    inside.wait(PATIENCE)
    for each in CHANGES[change]:
        each()
    go.set()
    thread.join()
    auto.uninstall()

    assert [TEXT] == texts


def test_a_chain_that_was_empty_is_empty_again(events):
    """Ours stands for a processor that changes nothing; what was added meanwhile stays."""
    chain = []
    configure(processors=chain, logger_factory=structlog.testing.ReturnLoggerFactory())
    line = {"event": "Signed Up", "userlens_event": True, "user_id": "u2", "plan": "pro"}
    assert ((), line) == get_logger().info(**line)
    auto.uninstall()
    assert [] == chain

    auto.install()
    chain.append(add_log_level)
    auto.uninstall()
    assert [pass_on, add_log_level] == chain
    assert [BOTH[1]] == plain(events())


def test_a_chain_that_is_changed_by_others_meanwhile_is_not_spoiled():
    """What stands in a place by now is not replaced by what stood there."""
    chain = [JSONRenderer()]
    lines._change(chain, [add_log_level], [pass_on])

    assert isinstance(chain[0], JSONRenderer)


# ---------------------------------------------------------------- what stands in a place


def test_what_stands_in_the_place_of_a_processor_looks_like_it(installed):
    """An application may look at its own chain, compare, and set attributes there."""
    renderer = KeyValueRenderer(sort_keys=True)
    chain = [add_log_level, renderer]
    configure(processors=chain)
    ours = chain[1]

    assert ours is not renderer
    assert isinstance(ours, KeyValueRenderer)
    assert ours == renderer
    assert renderer == ours
    assert (repr(renderer), hash(renderer)) == (repr(ours), hash(ours))
    assert 1 == chain.index(renderer) == chain.index(ours)
    assert ours._repr is renderer._repr
    ours.mine = 7
    assert 7 == renderer.mine
    del ours.mine
    assert not hasattr(renderer, "mine")
    assert "x=1" == ours(None, "info", {"x": 1})


def test_what_stands_in_the_place_of_a_function_has_its_signature(installed):
    """And is called as it is, by whoever calls it."""

    def render(logger, name, event_dict, *, upper=False):
        return str(event_dict).upper() if upper else str(event_dict)

    chain = [render]
    configure(processors=chain)

    assert inspect.signature(render) == inspect.signature(chain[0])
    assert "render" == chain[0].__name__
    assert "{'A': 1}" == chain[0](None, "info", event_dict={"a": 1}, upper=True)


def test_who_calls_a_processor_by_hand_has_the_line_taken(events):
    """A bound logger of one's own may go through the chain in a way of its own."""
    chain = [KeyValueRenderer()]
    configure(processors=chain)
    line = {"event": "Signed Up", "userlens_event": True, "user_id": "u2", "plan": "pro"}
    assert "plan='pro'" in chain[0](None, "info", line)

    assert [BOTH[1]] == plain(events())


def test_a_structlog_that_goes_through_a_chain_in_another_way(events, monkeypatch):
    """Lines are taken all the same."""
    assert lines._loop_of(structlog._base) is lines._Loop.code
    assert lines._loop_of(types.ModuleType("structlog._base")) is None
    assert lines._loop_of(None) is None
    monkeypatch.setattr(lines._Loop, "code", None)
    configure(processors=[add_log_level, KeyValueRenderer()])
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] == plain(events())


def test_no_frame_of_ours_is_around_a_renderer(installed):
    """Neither when it looks who calls it, nor in a traceback out of it."""

    def render(logger, name, event_dict):
        assert "_process_event" == sys._getframe(1).f_code.co_name
        raise RuntimeError("mine")

    configure(processors=[add_log_level, render])
    with pytest.raises(RuntimeError) as caught:
        get_logger().info("Signed Up", userlens_event=True, user_id="u2")

    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert ["_process_event", "render"] == names[-2:]


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_of_a_chain_takes_lines_too(events, make):
    """Loggers are copied, and pickled for another process."""
    configure(processors=make(with_ours([add_log_level, KeyValueRenderer()])))
    get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] == plain(events())


def test_lines_of_coroutines_are_taken(events):
    """They are rendered on another thread."""
    configure(processors=[add_log_level, KeyValueRenderer()])
    asyncio.run(get_logger().ainfo("Signed Up", userlens_event=True, user_id="u2", plan="pro"))

    assert [BOTH[1]] == plain(events())


# ---------------------------------------------------------------- renderers of one's own


def to_json(logger, name, event_dict):
    return json.dumps(event_dict)


def add_newline(logger, name, text):
    return text + "\n"


def to_bytes(logger, name, text):
    return text.encode()


def sign_up():
    return get_logger().info("Signed Up", userlens_event=True, user_id="u2", plan="pro")


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_renderer_of_ones_own_in_the_middle_is_found(installed, events, diagnostics_lines, kind):
    """By the first line that has become text; that one is counted, and said."""
    returns = structlog.testing.ReturnLoggerFactory()
    configure(processors=kind([add_log_level, to_json, add_newline]), logger_factory=returns)
    texts = [sign_up() for _ in range(3)]

    assert 1 == len(set(texts))
    assert {"unreadable": 1} == dict(installed.stats().invalid)
    assert "has made text of the line" in diagnostics_lines.get(timeout=PATIENCE)[1]
    assert [BOTH[1]] * 2 == plain(events())
    # Known from then on, in chains that are made anew as well.
    configure(processors=kind([to_json, add_newline]), logger_factory=returns)
    sign_up()
    assert [BOTH[1]] * 3 == plain(events())


def test_a_renderer_before_several_is_found_step_by_step(installed, events):
    """One line for each; lines without a tag find it as well."""
    configure(
        processors=[to_json, add_newline, to_bytes],
        logger_factory=structlog.testing.ReturnLoggerFactory(),
    )
    get_logger().info("started")
    get_logger().info("started")
    sign_up()

    assert [BOTH[1]] == plain(events())
    assert {} == dict(installed.stats().invalid)


def test_a_renderer_that_cannot_be_found_is_told_each_time(installed, events):
    """In a tuple that a logger has for itself, or called by hand: the lines are counted."""
    log = wrap_logger(
        structlog.testing.ReturnLogger(),
        processors=(to_json, to_bytes, pass_on),
    )
    for _ in range(2):
        log.info("Signed Up", userlens_event=True, user_id="u2")
    with_ours([pass_on])[0](None, "info", "userlens_event")

    assert [] == events()
    assert {"unreadable": 3} == dict(installed.stats().invalid)


@pytest.mark.parametrize("bound", [None, types.SimpleNamespace(_processors=[])])
def test_a_chain_that_is_gone_is_not_looked_into(bound):
    """Somebody has changed it meanwhile."""
    assert lines._note_renderer(Standing(to_json, take_line), bound) is None
    assert [] == lines._seen_renderers


def test_renderers_are_remembered_within_bounds(monkeypatch):
    """A program that makes one with each configuration costs no memory."""
    monkeypatch.setattr(lines, "_MOST_SEEN", 1)
    for _ in range(3):
        chain = with_ours([lambda *line: "text", pass_on])
        lines._note_renderer(chain[1], types.SimpleNamespace(_processors=chain))

    assert 1 == len(lines._seen_renderers)


# ---------------------------------------------------------------- one line, one event


def renamed(logger):
    def rename(record):
        record.name = "short"
        return True

    logger.addFilter(rename)
    return logger


def listening(logger):
    """Have a filter log lines of its own on the way, one with a tag."""

    def listen(record):
        if "seen" not in str(record.msg):
            logger.warning("seen %d", 1)
            logger.warning("seen", extra={"userlens_event": "Seen", "user_id": "u2"})
            logger.warning("seen %(user_id)s", {"user_id": "u2"})
        return True

    logger.addFilter(listen)
    return logger


class Handing(logging.Logger):
    def warning(self, *args, **kwargs):
        logging.getLogger("plans").warning(*args, **kwargs)


class Proxy:
    def __init__(self, logger):
        self.logger = logger

    def __getattr__(self, name):
        return getattr(self.logger, name)


class Adapter(logging.LoggerAdapter):
    def process(self, msg, kwargs):
        return msg, kwargs


WRAPPED = {
    "a filter renames": renamed,
    "a filter logs": listening,
    "an adapter": lambda logger: Adapter(logger, {}),
    "a proxy": Proxy,
    "another logger": lambda logger: Handing("other"),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize(
    "bridge", [render_to_log_kwargs, ProcessorFormatter.wrap_for_formatter, KeyValueRenderer()]
)
def test_a_tagged_line_is_one_event_whatever_makes_its_record(events, wrapped, bridge):
    """Its text tells, wherever and under whatever name the record comes about."""
    logger = logging.getLogger("plans")
    log = wrap_logger(
        WRAPPED[wrapped](logger), processors=[bridge], wrapper_class=structlog.BoundLogger
    )
    log.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    logger.filters.clear()

    seen = ["Seen"] * (wrapped == "a filter logs")
    assert ["Signed Up", *seen] == [name for name, _, _ in events()]


def test_a_tagged_line_that_is_logged_later_is_one_event(events):
    """A bound logger may hand on what was processed to another thread."""
    handed = []

    class Later(structlog.BoundLoggerBase):
        def warning(self, event, **kw):
            handed.append(self._process_event("warning", event, kw))

    log = wrap_logger(
        logging.getLogger("plans"), processors=[render_to_log_kwargs], wrapper_class=Later
    )
    log.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")
    for args, kwargs in handed:
        thread = threading.Thread(
            target=logging.getLogger("plans").warning, args=args, kwargs=kwargs
        )
        thread.start()
        thread.join()

    assert [BOTH[1]] == plain(events())


def test_what_a_factory_logs_is_no_repetition_of_a_rendered_line(events):
    """It has not the line's text, nor its mark."""
    factory = logging.getLogRecordFactory()
    made = []

    def make(*args, **kwargs):
        if not made:
            made.append(args)
            logging.getLogger("worker").warning("made", extra={"user_id": "u3"})
        return factory(*args, **kwargs)

    logging.setLogRecordFactory(make)
    try:
        configure(processors=[JSONRenderer()], **STDLIB)
        get_logger("worker").warning("Signed Up", userlens_event=True, user_id="u2")
    finally:
        logging.setLogRecordFactory(factory)

    assert [("Signed Up", "u2"), ("Work Done", "u3")] == sorted(
        (name, user) for name, _, user in events()
    )


@pytest.mark.parametrize("text", ["x", 'Signed "Up"'])
def test_a_text_that_is_rendered_in_another_way_is_one_event(installed, events, text):
    """A renderer escapes what it must: it is the next record of that logger."""
    configure(processors=[JSONRenderer()], **STDLIB)
    get_logger("worker").warning(text, userlens_event=True, user_id="u2")

    assert [text] == [name for name, _, _ in events()]
    assert 1 == installed.stats().duplicates


def test_a_rendered_line_of_an_adapter_is_one_event(events):
    """Also by a rule that means whatever its logger logs."""
    adapter = Adapter(Adapter(logging.getLogger("worker"), {}), {})
    log = wrap_logger(adapter, processors=[JSONRenderer()], wrapper_class=structlog.BoundLogger)
    log.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] == plain(events())


@pytest.mark.parametrize("text", ["x", 7])
@pytest.mark.parametrize("bridge", ["kwargs", "wrap_for_formatter"])
@pytest.mark.parametrize("wrapped", ["a filter renames", "a filter logs", "an adapter"])
def test_a_line_without_a_text_of_its_own_is_one_event(events, text, bridge, wrapped):
    """There is no place for a mark; its tag and its text tell, within the call."""
    logger = logging.getLogger("plans")
    log = wrap_logger(
        WRAPPED[wrapped](logger),
        processors=BRIDGES[bridge][-1:],
        wrapper_class=structlog.BoundLogger,
    )
    log.warning(text, userlens_event="Signed Up", user_id="u2", plan="pro")
    logger.filters.clear()

    seen = [("Seen", {}, "u2")] * (wrapped == "a filter logs")
    assert [*seen, BOTH[1]] == sorted(plain(events()))


def test_a_tagged_line_that_meets_two_chains_is_one_event(installed, events):
    """structlog around structlog: its text is known, also of a line of a known shape."""
    inner = wrap_logger(logging.getLogger("plans"), processors=[render_to_log_kwargs])
    outer = wrap_logger(
        inner, processors=[lambda *line: line[2]], wrapper_class=structlog.BoundLogger
    )
    for _ in range(3):
        outer.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] * 3 == plain(events())
    assert 6 == installed.stats().duplicates


def test_a_line_of_a_rule_without_a_text_of_its_own_is_one_event(events):
    """It has no tag either: it is the next record of its logger."""
    configure(processors=[JSONRenderer()], **STDLIB)
    get_logger("worker").warning("x", user_id="u2")

    assert [("Work Done", "u2")] == [(name, user) for name, _, user in events()]


def test_a_line_that_cannot_be_marked_is_one_event(installed, events):
    """Nor is it counted as one that cannot be read."""

    class Fixed(dict):
        def __setitem__(self, key, value):
            raise TypeError

    log = wrap_logger(
        logging.getLogger("plans"),
        processors=[lambda *line: Fixed(line[2]), render_to_log_kwargs],
        wrapper_class=structlog.BoundLogger,
    )
    log.warning("Signed Up", userlens_event=True, user_id="u2", plan="pro")

    assert [BOTH[1]] == plain(events())
    assert {} == dict(installed.stats().invalid)


def test_a_line_that_is_dropped_holds_nothing(installed):
    """Neither the caller's frame nor anything in it outlives the call."""

    class Held:
        pass

    def drop(logger, name, event_dict):
        raise structlog.DropEvent

    def log():
        held = Held()
        get_logger("plans").warning("Signed Up", userlens_event=True, user_id="u2", object=held)
        return weakref.ref(held)

    configure(processors=[render_to_log_kwargs, drop], **STDLIB)
    held = log()
    gc.collect()

    assert held() is None
    # The next line, in the same memory perhaps, is one of its own.
    configure(processors=[KeyValueRenderer()], **STDLIB)
    get_logger("worker").warning("anything")
    assert of_thread.repeats is None


def test_a_mapping_that_has_no_copy_is_taken(events):
    """structlog wants of a context that it can be copied; a processor may make anything."""

    class Plain(MutableMapping):
        def __init__(self, line):
            self.line = line

        def __getitem__(self, key):
            return self.line[key]

        def __setitem__(self, key, value):
            self.line[key] = value

        def __delitem__(self, key):
            del self.line[key]

        def __iter__(self):
            return iter(self.line)

        def __len__(self):
            return len(self.line)

    configure(processors=[lambda *line: Plain(line[2]), lambda *line: str(dict(line[2]))])
    sign_up()

    assert [BOTH[1]] == plain(events())


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
