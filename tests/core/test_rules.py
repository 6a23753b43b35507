"""Rules: which lines that are already logged become which events."""

from __future__ import annotations

import time
import uuid

import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from values import ANY_VALUES, HOSTILE

from userlens_instrument._core.extract import Plumbing, Reader, Record
from userlens_instrument._core.redact import compile_redactor
from userlens_instrument._core.rulefile import read_document
from userlens_instrument._core.rules import LONGEST_TEXT, PATIENCE, Line, Match, Ruleset
from userlens_instrument.events import Group, Identify, Track
from userlens_instrument.exceptions import InvalidEventError


NOW = 1_795_456_800.0
READER = Reader(
    user_id_keys=("user_id", "userId"),
    group_id_keys=("group_id",),
    plumbing=Plumbing(frozenset({"name", "levelname", "msg", "args"})),
)


def ruleset(*rules):
    made, problems = read_document(list(rules), compile_redactor(()))
    assert [] == problems
    return Ruleset(made)


def line(message="Invoice %s paid by %s", *args, logger="app", level=20, context=None, **fields):
    def text():
        return str(message) % args if args else str(message)

    return Line(
        logger,
        level,
        message,
        args,
        get_text=text,
        get_fields=lambda: fields,
        context=lambda: context or {},
    )


def events(rules, logged):
    """Return what comes of a line: events, or the reasons why not."""
    record = Record(
        fields=logged.fields, message=logged.message, created=NOW, context=logged.context
    )
    return [
        match if isinstance(match, InvalidEventError) else READER.read_match(match, record)
        for match in rules.match(logged)
    ]


INVOICE = {
    "logger": "billing.*",
    "level": "INFO",
    "message": "Invoice %s paid by %s",
    "args": ["invoice_id", "user_id"],
    "event": "Invoice Paid",
    "user_id": "{user_id}",
    "properties": {"invoice": "{invoice_id}", "plan": "{account.plan}"},
}
EXPORT = {
    "logger": "worker.export",
    "regex": r"Export (?P<format>\w+) finished for user (?P<user_id>\d+) in (?P<seconds>[\d.]+)s",
    "event": "Data Export Completed",
    "types": {"seconds": "float"},
    "where": {"status": "ok"},
    "sample": 1.0,
}


def test_a_template():
    """
    A template finds its line; its arguments have names; dotted paths reach inside.
    """
    logged = line(INVOICE["message"], "i-1", "u1", logger="billing.core", account={"plan": "pro"})

    assert [Track("u1", "Invoice Paid", {"invoice": "i-1", "plan": "pro"}, NOW)] == events(
        ruleset(INVOICE), logged
    )


def test_a_regex():
    """
    A regex finds its line by the formatted text; named groups are fields, of the type that is
    asked for.
    """
    logged = line(
        "Export %s finished for user 42 in 1.5s", "csv", logger="worker.export", status="ok"
    )

    assert [
        Track("42", "Data Export Completed", {"status": "ok", "format": "csv", "seconds": 1.5}, NOW)
    ] == events(ruleset(EXPORT), logged)


@pytest.mark.parametrize(
    ("logger", "expected"),
    [("billing.core", 1), ("billing.a.b", 1), ("billing", 0), ("Billing.core", 0), ("", 0)],
)
def test_the_logger_is_a_glob(logger, expected):
    """
    ``billing.*`` means every logger below billing, in the case that is written; not billing itself.
    """
    logged = line(INVOICE["message"], "i", "u", logger=logger)

    assert expected == len(ruleset(INVOICE).match(logged))
    assert ruleset(INVOICE).may_match(logger, INVOICE["message"]), "the logger is looked at later"


def test_several_loggers():
    """
    A list of globs means each of them.
    """
    rules = ruleset(INVOICE | {"logger": ["billing", "shop.*"]})

    assert [1, 1, 0] == [
        len(rules.match(line(INVOICE["message"], "i", "u", logger=name)))
        for name in ("billing", "shop.x", "billing.x")
    ]


@pytest.mark.parametrize(("level", "expected"), [(19, 0), (20, 1), (50, 1)])
def test_the_level_is_the_lowest(level, expected):
    """
    A line below the level is not meant.
    """
    rules = ruleset(INVOICE)

    logged = line(INVOICE["message"], "i", "u", logger="billing.x", level=level)

    assert expected == len(rules.match(logged))


def test_a_regex_begins_where_the_text_begins():
    """
    What only quotes the line, or renders it, is another line; the end is free.
    """
    rules = ruleset(EXPORT)
    text = "Export csv finished for user 42 in 1.5s"

    assert [1, 1, 0, 0] == [
        len(rules.match(line(said, logger="worker.export", status="ok")))
        for said in (text, f"{text} and more", f" {text}", f'{{"event": "{text}"}}')
    ]


def test_the_defaults():
    """
    A rule that says nothing of the event: a track named by the template, of the usual user, with
    all fields.
    """
    rules = ruleset({"message": "Plan Changed"})

    assert [Track("u1", "Plan Changed", {"to": "pro"}, NOW)] == events(
        rules, line("Plan Changed", user_id="u1", to="pro", levelname="INFO")
    )


def test_what_surrounds_the_call():
    """
    The user, and any value, may come from contextvars.
    """
    rules = ruleset({"message": "Done", "properties": {"path": "{path}"}})

    assert [Track("u1", "Done", {"path": "/x"}, NOW)] == events(
        rules, line("Done", context={"user_id": "u1", "path": "/x"})
    )


def test_identify_and_group():
    """
    The other types: traits instead of properties, by either name; and a group's id.
    """
    identify = ruleset(
        {"message": "Seen", "type": "identify", "user_id": "{who}", "traits": {"plan": "{plan}"}}
    )
    group = ruleset(
        {"message": "Seen", "type": "group", "group_id": "acme-{org}", "include": ["plan"]}
    )
    logged = line("Seen", who="u1", user_id="u2", org=7, plan="pro", noise=1)

    assert [Identify("u1", {"plan": "pro"}, NOW)] == events(identify, logged)
    assert [Group("acme-7", "u2", {"plan": "pro"}, NOW)] == events(group, logged)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, {"a": 1, "b": 2, "x": "X"}),
        ({"include": ["a", "x"]}, {"a": 1, "x": "X"}),
        ({"exclude": ["a", "x"]}, {"b": 2}),
        (
            {"properties": {"c": "{a}", "d": "{absent}", "e": "is {b}", "f": {"g": 3}}},
            {"c": 1, "e": "is 2", "f": {"g": 3}},
        ),
        (
            {"properties": {"n": 1, "t": True, "s": "text", "in": {"a": "{a}"}}},
            {"n": 1, "t": True, "s": "text", "in": {"a": 1}},
        ),
    ],
)
def test_which_properties(rule, expected):
    """
    All of them, some of them, or exactly those that are written; what is not there is left out.
    """
    rules = ruleset({"message": "Seen %s", "args": ["x"]} | rule)

    assert [expected] == [
        event.properties for event in events(rules, line("Seen %s", "X", a=1, b=2, user_id="u1"))
    ]


def test_include_holds_for_a_field_of_properties_as_well():
    """
    A line that brings its properties as one mapping is picked from just the same, and named
    arguments join it.
    """
    rules = ruleset({"message": "Seen %s", "args": ["x"], "exclude": ["a"]})

    logged = line("Seen %s", "X", user_id="u1", properties={"a": 1, "b": 2}, c=3)

    assert [{"b": 2, "x": "X"}] == [event.properties for event in events(rules, logged)]


def test_a_name_that_is_plumbing_elsewhere():
    """
    What a rule has named is a property, be it called as an attribute of every record.
    """
    rules = ruleset({"message": "Seen %s", "args": ["name"]})

    assert [{"name": "Ada"}] == [
        event.properties
        for event in events(rules, line("Seen %s", "Ada", user_id="u1", levelname="x"))
    ]


def test_arguments_that_do_not_fit_their_names():
    """
    Fewer arguments than names, or more: those that are there are named.
    """
    named = {"args": ["x", "y"], "properties": {"x": "{x}", "y": "{y}"}}
    rules = ruleset({"message": "A %s %s"} | named)

    assert [{}, {"x": 1}, {"x": 1, "y": 2}] == [
        event.properties
        for args in ((), (1,), (1, 2, 3))
        for event in events(
            rules,
            Line(
                "",
                20,
                "A %s %s",
                args,
                get_text=str,
                get_fields=lambda: {"user_id": "u"},
                context=dict,
            ),
        )
    ]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "42", 42),
        ("int", "4x", None),
        ("int", "9" * 5_000, None),
        ("float", "1.5", 1.5),
        ("float", "much", None),
        ("bool", "Yes", True),
        ("bool", "0", False),
        ("bool", "maybe", None),
        ("bool", 1, True),
        ("str", 42, "42"),
        ("str", {"password": "hunter2"}, None),
        ("int", [], None),
        ("float", 10**400, None),
    ],
)
def test_types(kind, text, expected):
    """
    A figure as a figure; what is none is null rather than another type.
    """
    rules = ruleset({"message": "A", "types": {"x": kind}})

    assert [{"x": expected}] == [
        event.properties for event in events(rules, line("A", user_id="u", x=text))
    ]


def test_types_of_what_is_not_there():
    """
    A type for a field that a line does not have changes nothing.
    """
    rules = ruleset({"message": "A", "types": {"x": "int"}})

    assert [{}] == [event.properties for event in events(rules, line("A", user_id="u"))]


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("ok", "ok", True),
        ("ok", "no", False),
        (200, 200, True),
        (200, 200.0, True),
        (200, "200", False),
        (1, True, False),
        (True, True, True),
        (True, 1, False),
        (["ok", "done"], "done", True),
        (["ok", "done"], "no", False),
        ("ok", None, False),
        ("ok", ["ok"], False),
        ("00000000-0000-0000-0000-000000000001", uuid.UUID(int=1), True),
    ],
)
def test_where(wanted, value, expected):
    """
    Fields that must equal, or be one of a list; True is not 1.
    """
    rules = ruleset({"message": "A", "where": {"x": wanted}})

    assert expected == bool(rules.match(line("A", x=value)))


def test_where_looks_everywhere():
    """
    In arguments, groups and what surrounds the call, and inside of mappings; after types.
    """
    rules = ruleset(
        {
            "regex": r"A (?P<code>\d+)",
            "event": "A",
            "types": {"code": "int"},
            "where": {"code": 200, "account.plan": "pro", "tenant": "t"},
        }
    )

    assert [1, 0, 0, 0] == [
        len(rules.match(logged))
        for logged in (
            line("A 200", account={"plan": "pro"}, context={"tenant": "t"}),
            line("A 500", account={"plan": "pro"}, context={"tenant": "t"}),
            line("A 200", account={"plan": "pro"}),
            line("A 200", context={"tenant": "t"}),
        )
    ]


def test_all_rules_fire_in_the_order_of_the_file():
    """
    Several rules may mean a line, however they find it; each makes its event.
    """
    rules = ruleset(
        {"logger": "a*", "event": "By Logger"},
        {"message": "Plan Changed", "event": "By Message"},
        {"regex": "Plan", "event": "By Regex"},
        {"message": "Plan Changed", "type": "identify"},
        {"message": "Other"},
    )

    found = events(rules, line("Plan Changed", user_id="u1", logger="app"))

    assert [
        Track("u1", "By Logger", {}, NOW),
        Track("u1", "By Message", {}, NOW),
        Track("u1", "By Regex", {}, NOW),
        Identify("u1", {}, NOW),
    ] == found


def test_stop():
    """
    No rule is tried after one that says stop and means the line; one that does not mean it stops
    nothing.
    """
    first = {"message": "A", "event": "First", "stop": True, "where": {"x": 1}}
    rules = ruleset(first, {"message": "A", "event": "Second"})

    assert [["First"], ["Second"]] == [
        [event.event for event in events(rules, line("A", user_id="u", x=x))] for x in (1, 2)
    ]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"user_id": "{who}"}, "missing_user_id"),
        ({"event": "Plan {plan}"}, "missing_event_name"),
        ({"type": "group", "group_id": "{org}"}, "missing_group_id"),
    ],
)
def test_what_a_rule_names_has_to_be_there(rule, reason):
    """
    An id that the line lacks is never guessed from elsewhere: the event would be somebody else's.
    """
    rules = ruleset({"name": "mine", "message": "A"} | rule)

    found = events(rules, line("A", user_id="somebody else"))

    assert [reason] == [error.reason for error in found]
    assert "rule 1 (mine)" in str(found[0])


def test_a_template_names_the_event():
    """
    An event's name may be put together of fields.
    """
    rules = ruleset({"message": "A", "event": "Plan {plan}"})

    assert ["Plan pro"] == [
        event.event for event in events(rules, line("A", user_id="u", plan="pro"))
    ]


class Raising:
    def __eq__(self, other):
        raise RuntimeError("hunter2")

    __hash__ = None

    def __int__(self):
        raise RuntimeError("hunter2")


def test_a_value_that_raises_costs_its_own_rule_alone():
    """
    Another rule that does not look at it makes its event; the other says why not, without the
    content.
    """
    rules = ruleset(
        {"message": "A", "types": {"a": "int"}}, {"message": "A", "event": "B", "include": ["b"]}
    )

    error, event = events(rules, line("A", user_id="u", a=Raising(), b=1))

    assert ("unreadable", "B") == (error.reason, event.event)
    assert "reading it for rule 1 (A) raised RuntimeError; log plain values" == str(error)


# ---------------------------------------------------------------- the sample


@given(st.text(min_size=1), st.floats(min_value=0.001, max_value=1.0))
def test_the_sample_is_of_users_and_stable(user, share):
    """
    The same user is in the sample or not, of every rule with that share, and in every larger one.
    """
    smaller = ruleset({"message": "A", "sample": share / 2}).rules[0]
    one = ruleset({"message": "A", "sample": share}).rules[0]
    other = ruleset({"message": "B"}, {"message": "C", "sample": share}).rules[1]

    assert one.takes(user) == other.takes(user)
    assert one.takes(user) >= smaller.takes(user)


def test_the_share_is_that_of_the_sample():
    """
    A tenth of ten thousand users is a thousand, give or take.
    """
    rule = ruleset({"message": "A", "sample": 0.1}).rules[0]

    taken = sum(rule.takes(f"user-{number}") for number in range(10_000))

    # Four standard deviations of a fair draw: sqrt(10_000 · 0.1 · 0.9) = 30.
    assert 880 < taken < 1_120
    # Fixed for good: another sample would come in the middle of somebody's experiment.
    assert [8, 10, 15, 16] == [number for number in range(20) if rule.takes(f"user-{number}")]


# ---------------------------------------------------------------- what it costs


class Counting:
    """A regex that counts how often it is tried."""

    def __init__(self, inner):
        self.tries = 0
        self._inner = inner

    def match(self, text, timeout):
        self.tries += 1
        return self._inner.match(text, timeout=timeout)


def test_a_regex_is_tried_for_its_own_loggers_and_levels_alone():
    """
    A line costs the regexes of its own logger, and no others.
    """
    rules = ruleset(
        *({"logger": f"svc{n}", "level": "INFO", "regex": "x", "event": "X"} for n in range(20))
    )
    for rule in rules.rules:
        object.__setattr__(rule, "regex", Counting(rule.regex))

    rules.match(line("y", logger="svc3"))
    rules.match(line("y", logger="svc4", level=10))
    rules.match(line("y", logger="elsewhere"))

    assert [3] == [rule.number - 1 for rule in rules.rules if rule.regex.tries]
    assert not rules.may_match("elsewhere", "y")
    assert rules.may_match("svc4", "y")


def test_what_costs_something_is_worked_out_when_it_is_asked_for_and_once():
    """
    Text and fields of a line that no rule means are never put together.
    """
    made = []

    def logged(message):
        return Line(
            "app",
            20,
            message,
            (),
            get_text=lambda: made.append("text") or "Export",
            get_fields=lambda: made.append("fields") or {},
            context=dict,
        )

    rules = ruleset(
        {"regex": "Import", "event": "I"},
        {"regex": "Export", "event": "E", "where": {"a": 1}},
        {"regex": "Exp", "event": "E", "where": {"a": 1}},
        {"message": "T", "where": {"a": 1}},
    )

    rules.match(logged("T"))

    assert ["text", "fields"] == made
    made.clear()
    ruleset({"message": "T"}).match(logged("U"))
    assert [] == made


def test_a_program_that_makes_up_names_of_loggers_gets_no_cache():
    """
    Memory is bounded: past some thousand names, each is looked at anew, to the same effect.
    """
    rules = ruleset({"logger": "svc.*", "event": "A"})

    for number in range(5_000):
        assert 1 == len(rules.match(line("x", logger=f"svc.{number}")))

    assert 4_096 == len(rules.others)


@pytest.mark.parametrize("name", [None, 3])
def test_a_logger_without_a_name(name):
    """
    What makeLogRecord() makes has no name, or any object: as if it were empty.
    """
    rules = ruleset({"logger": "svc.*", "event": "A"})

    assert () == rules.others[name]


def test_how_many():
    """
    A ruleset knows how many rules it has; an empty one means no line.
    """
    assert [0, 2] == [len(ruleset()), len(ruleset(INVOICE, EXPORT))]
    assert not ruleset().may_match("a", "b")
    assert [] == ruleset().match(line("A"))


# ---------------------------------------------------------------- patterns that backtrack


# Two alternatives that mean the same: twice as long for each character.
CATASTROPHE = {"regex": "(a|aa)+$", "event": "Slow", "name": "mine"}
LONG = "a" * 200 + "b"


def test_a_pattern_that_backtracks_without_end_is_stopped():
    """
    It is stopped in time, said with the rule, and after three times off; other rules go on.
    """
    rules = ruleset(CATASTROPHE, {"logger": "app", "event": "Fast"})
    began = time.process_time()

    found = [events(rules, line(LONG, user_id="u")) for _ in range(5)]

    # Bounded at all, which is the point: without it this is 10^40 steps.
    assert time.process_time() - began < 100 * 3 * PATIENCE
    errors = [first for first, *_ in found[:3]]
    assert ["regex_timeout"] * 3 == [error.reason for error in errors]
    assert "the regex of rule 1 (mine) took longer than 50 ms" in str(errors[0])
    assert [False, False, True] == ["is off" in str(error) for error in errors]
    assert [["Fast"]] * 5 == [[event.event for event in one[-1:]] for one in found]
    assert [2, 2, 2, 1, 1] == [len(one) for one in found]


def test_a_line_is_looked_at_up_to_a_length():
    """
    A megabyte of text is not searched: a regex sees the beginning.
    """
    rules = ruleset({"regex": ".*needle", "event": "Found"})

    assert [1, 0] == [
        len(rules.match(line(" " * (LONGEST_TEXT - add) + "needle"))) for add in (6, 5)
    ]


@pytest.mark.parametrize(
    ("rule", "fields", "said"),
    [
        (
            {"message": "Seen %s", "args": ["x"], "event": "Seen"},
            {},
            'rule 1 (Seen) finds no user id; give it user_id = "{…}", or a name in args',
        ),
        (
            {"regex": "Seen (?P<x>.)", "event": "Seen"},
            {},
            'rule 1 (Seen) finds no user id; give it user_id = "{…}", or a group (?P<user_id>…)',
        ),
        (
            {"logger": "app", "event": "{y}"},
            {"y": "Seen"},
            'rule 1 ({y}) finds no user id; give it user_id = "{…}"',
        ),
        (
            {"logger": "app", "type": "identify"},
            {},
            'rule 1 finds no user id; give it user_id = "{…}"',
        ),
        (
            {"message": "Seen %s", "event": "Seen"},
            {"user_id": None},
            (
                "rule 1 (Seen) finds no user id: user_id is None; "
                'give it user_id = "{…}" of another field'
            ),
        ),
        (
            {"message": "Seen %s", "type": "group"},
            {"user_id": "u1"},
            'rule 1 (Seen %s) finds no group id; give it group_id = "{…}", or a name in args',
        ),
        (
            {"message": "Seen %s", "event": "Seen", "user_id": "{who}"},
            {},
            (
                "the line has no {who} for the user_id of rule 1 (Seen); "
                "name a field that is there, or narrow the rule with where"
            ),
        ),
        (
            {"message": "Seen %s", "event": "Seen"},
            {"user_id": " "},
            "the user id is empty, by rule 1 (Seen); give a non-empty string, an integer or a UUID",
        ),
    ],
)
def test_what_a_rule_lacks_is_said_of_the_rule(rule, fields, said):
    """
    Who writes rules may not be who writes the program: the advice is what to write in the rule.
    """
    logged = line("Seen %s", "X", **fields)

    assert [said] == [str(error) for error in events(ruleset(rule), logged)]


# ---------------------------------------------------------------- anything at all


TEXTS = st.sampled_from(["A", "A %s %s", "B", "Export csv", ""]) | st.text()
FIELDS = st.dictionaries(st.sampled_from(["a", "b", "x", "y", "g", "user_id"]), ANY_VALUES)
SOME_RULES = ruleset(
    {"message": "A %s %s", "args": ["x", "y"], "where": {"x": 1}},
    {"message": "A", "event": "{x} {y.z}", "types": {"y": "int"}},
    {"regex": r"(?P<word>\w+)", "event": "{word}", "user_id": "{a.b}", "types": {"word": "bool"}},
    {"logger": "*", "type": "group", "group_id": "{g}", "exclude": ["a"]},
    {"logger": "*", "type": "identify", "properties": {"a": "{a}", "b": "b {b}"}},
)


@settings(max_examples=examples(300))
@given(TEXTS, st.lists(ANY_VALUES, max_size=4).map(tuple), FIELDS, TEXTS)
def test_any_line(message, args, fields, logger):
    """
    Whatever a line holds, each rule makes an event of it, or says why not.
    """
    logged = Line(
        logger,
        20,
        message,
        args,
        get_text=lambda: message,
        get_fields=lambda: fields,
        context=dict,
    )

    try:
        found = events(SOME_RULES, logged)
    except Exception:
        return  # a value that raises when it is looked at: counted as unreadable, by the client

    assert all(isinstance(one, (Track, Identify, Group, InvalidEventError)) for one in found)


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_values(place):
    """
    A value that raises when it is touched is not touched by matching, or raises an `Exception`
    alone.
    """
    value = HOSTILE[place]()
    logged = line("A", user_id="u", x=value, y=value, a=value, b=value)

    try:
        found = SOME_RULES.match(logged)
    except Exception:
        return  # as above

    assert all(isinstance(one, (Match, InvalidEventError)) for one in found)
