"""The text of a rules file to rules: every problem at once, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

import userlens_instrument
from userlens_instrument._core import rulefile
from userlens_instrument._core.redact import compile_redactor
from userlens_instrument._core.rulefile import (
    _KEYS,
    Problem,
    locate,
    notes,
    read_document,
    read_text,
)


SECRET = compile_redactor(())
SCHEMA = json.loads(
    (Path(userlens_instrument.__file__).parent / "rules.schema.json").read_text("utf-8")
)

# The file of the documentation.
GOOD = r"""
[[rule]]
logger = "billing.*"
level = "INFO"
message = "Invoice %s paid by %s"
args = ["invoice_id", "user_id"]
type = "track"
event = "Invoice Paid"
user_id = "{user_id}"
properties = { invoice = "{invoice_id}", plan = "{account.plan}" }

[[rule]]
logger = ["worker.export", "worker.export.*"]
level = 20
regex = 'Export (?P<format>\w+) finished for user (?P<user_id>\d+) in (?P<seconds>[\d.]+)s'
name = "exports"
event = "Data Export Completed"
types = { seconds = "float" }
where = { status = "ok", code = [200, 201], done = true }
include = ["format", "seconds"]
sample = 0.5
stop = true

[[rule]]
message = "Company of %s"
args = ["user_id"]
type = "group"
group_id = "{company.id}"
traits = { name = "{company.name}", "size of it" = 3, nested = { a = 1.5 } }

[[rule]]
message = "Seen"
type = "identify"
exclude = ["noise"]
"""


def problems(text):
    rules, found = read_text(text, SECRET)

    assert not (rules and found), "no rule is right while there is a problem"
    return found


def test_a_file_without_problems():
    """
    Every key there is, read into a rule; and the schema that editors use agrees.
    """
    rules, found = read_text(GOOD, SECRET)

    assert [] == found
    assert [1, 2, 3, 4] == [rule.number for rule in rules]
    assert ["Invoice Paid", "exports", "Company of %s", "Seen"] == [rule.title for rule in rules]
    assert ["track", "track", "group", "identify"] == [rule.kind for rule in rules]
    assert [20, 20, 0, 0] == [rule.level for rule in rules]
    assert (0.5, True) == (rules[1].sample, rules[1].stop)
    written = {key for line in GOOD.splitlines() for key in [line.partition(" ")[0]] if key}
    assert set(_KEYS) == written - {"[[rule]]"}


def loads(text):
    try:
        import tomllib
    except ImportError:
        import tomli as tomllib

    return tomllib.loads(text)


def test_the_schema_takes_what_is_right():
    """
    The shipped JSON Schema knows the keys, all of them and no others.
    """
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    jsonschema.validate(loads(GOOD), SCHEMA)

    assert list(_KEYS) == list(SCHEMA["definitions"]["rule"]["properties"])


def test_the_table_of_pyproject():
    """
    The rules may be within a larger file, under ``tool.userlens-instrument``.
    """
    text = '[project]\nname = "x"\n' + GOOD.replace("[[rule]]", "[[tool.userlens-instrument.rule]]")

    rules, found = read_text(text, SECRET)

    assert ([], 4) == (found, len(rules))
    wrong = text.replace('level = "INFO"', 'level = "INF"')
    assert [text[: text.index("level")].count("\n") + 1] == [one.line for one in problems(wrong)]


def test_no_rules():
    """
    An empty file, or an empty list, has no rules and nothing wrong with it.
    """
    assert ((), []) == read_text("", SECRET) == read_text("# nothing\n", SECRET)
    assert ((), []) == read_document([], SECRET) == read_document({"rule": []}, SECRET)


# A rule that is right but for the lines below.
RIGHT = 'message = "A"\n'

WRONG = [
    ("levl = 3", "levl", "is no key of a rule; did you mean level?"),
    ("zzz = 3", "zzz", "is no key of a rule; the keys are name, logger, level,"),
    ('level = "INF"', "level", "is no level; did you mean INFO?"),
    ('level = "x"', "level", "is no level; give DEBUG,"),
    ("level = true", "level", "is no level; give DEBUG,"),
    ("level = 1.5", "level", "is no level; give DEBUG,"),
    ("logger = 3", "logger", "is neither text nor a list of it; give a name or a glob"),
    ("logger = []", "logger", "is neither text nor a list of it; give a name or a glob"),
    ("logger = [3]", "logger", "is not text; put it in quotes"),
    ('event = ["a"]', "event", "is not text; give text, not a list"),
    ("event = { a = 1 }", "event", "is not text; give text, not a table"),
    ('logger = ""', "logger", "is empty; fill it in, or take it out"),
    ("name = 3", "name", "is not text; put it in quotes"),
    ('name = " "', "name", "is empty; fill it in, or take it out"),
    ('args = "x"', "args", "is not a list; give a list of names"),
    ("args = [1]", "args", "has an entry that is no name; give names in quotes"),
    ('args = ["a", "a"]', "args", "has a name twice; give each once"),
    ('args = [""]', "args", "has an entry that is no name; give names in quotes"),
    ('args = ["user id"]', "args", "has 'user id', which is no name; give it in one word"),
    ('args = ["{user}"]', "args", "has '{user}', which is no name; give it in one word"),
    ('args = ["a"]', "args", "has 1 name, and message has no placeholders; take them out"),
    ('type = "tracks"', "type", "is no type of event; did you mean track?"),
    ("type = 7", "type", "is no type of event; give track, identify or group"),
    ('event = "{"', "event", "has a brace without its other half; write {field}"),
    ('event = "{a!r}"', "event", "has a format after a name; write the name alone"),
    ("event = 3", "event", "is not text; put it in quotes"),
    ('user_id = "{}"', "user_id", "has braces without a name; write {field}"),
    ("properties = 3", "properties", "is not a table; give names and values"),
    ("properties = { a = [1] }", "properties", "has a value under a that is none; give text"),
    ('properties = { "" = 1 }', "properties", "has a name that is none; give names"),
    ('properties = { a = "{b" }', "properties", "has a brace without its other half (under a); wr"),
    ('traits = { a = "b" }', "traits", "is of no use for type = 'track'; call it properties"),
    ("include = []", "include", "is empty; fill it in, or take it out"),
    ('exclude = "a"', "exclude", "is not a list; give a list of names"),
    ("types = {}", "types", "is not a table; give names and types"),
    ('types = { a = "date" }', "types", "has no such type for a; give int, float, bool, str"),
    ("types = { a = 1 }", "types", "has no such type for a; give int, float, bool, str"),
    ("where = {}", "where", "is not a table; give fields and values"),
    ("where = { a = [] }", "where", "has a value for a that no field equals; give text"),
    ("where = { a = { b = 1 } }", "where", "has a value for a that no field equals; give text"),
    ('where = { ".a" = 1 }', "where", "'.a' is not a name; give a field, or a path"),
    ("sample = 0", "sample", "is no share; give a number above 0 and at most 1"),
    ("sample = 1.5", "sample", "is no share; give a number above 0 and at most 1"),
    ("sample = true", "sample", "is no share; give a number above 0 and at most 1"),
    ("sample = nan", "sample", "is no share; give a number above 0 and at most 1"),
    ('stop = "yes"', "stop", "is neither true nor false; give true or false"),
    ('group_id = "{g}"', "group_id", "is of no use for type = 'track'; take it out"),
    ('type = "identify"\nevent = "A"', "event", "is of no use for type = 'identify'; take it out"),
    ('regex = "A"', "regex", "cannot stand beside message; a rule finds lines by one"),
    ('include = ["a"]\nexclude = ["b"]', "include", "cannot stand beside exclude; include alone"),
    (
        'include = ["a"]\nproperties = { a = 1 }',
        "include",
        "cannot stand beside properties; properties alone",
    ),
    (
        'type = "identify"\ntraits = { a = 1 }\nproperties = { a = 1 }',
        "properties",
        "cannot stand beside traits; they are the same",
    ),
    (
        'properties = { a = "{password}" }',
        "properties",
        "would send {password}, which looks like a secret; take it out, or set redact to '-pass",
    ),
    (
        'properties = { a = { b = "x {card.api_key}" } }',
        "properties",
        "would send {card.api_key}, which looks like a secret; take it out, or set redact",
    ),
    ('user_id = "{session_id}"', "user_id", "would send {session_id}, which looks like a secret"),
]


@pytest.mark.parametrize(("text", "key", "said"), WRONG, ids=[text for text, _, _ in WRONG])
def test_what_is_wrong_with_a_key(text, key, said):
    """
    One problem: the line, the rule, the key, what is wrong and how to put it right.
    """
    found = problems(f"\n[[rule]]\n{RIGHT}{text}\n")

    assert [key] == [problem.key for problem in found]
    line = next(
        number
        for number, one in enumerate(f"\n[[rule]]\n{RIGHT}{text}\n".split("\n"), 1)
        if one.startswith(key)
    )
    assert str(found[0]).startswith(f'line {line}, rule 1 "')
    assert f"{key} {said}" in str(found[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("level = 3", "would take every line of the program; give message, regex or logger"),
        ('logger = "a"', "event is missing: events would be named by whole lines; give a name"),
        ('regex = "a"', "event is missing: events would be named by whole lines; give a name"),
        (
            'event = "A"\nregex = "(a"',
            "regex is no regular expression: missing ) at position 2; put that right",
        ),
        (
            'message = "a"\n[rule.properties.' + ".".join("a" * 100) + "]\nx = 1",
            "properties is nested too deeply; nest 64 tables at most",
        ),
        (f'event = "A"\nregex = "{"a" * 5000}"', "regex is too long; give one of at most 4,096"),
        (
            "event = 'A'\nregex = '(?P<a>x) (?P<a>y)'",
            "regex has two groups named a; give each a name of its own",
        ),
        (
            'event = "A"\nregex = "\\bfoo"',
            r"regex has a backspace, which is what \b is between double quotes",
        ),
    ],
)
def test_what_is_wrong_with_a_rule(text, said):
    """
    A rule that would take everything, or name events by whole lines, or whose pattern is none.
    """
    found = problems(f"[[rule]]\n{text}\n")

    assert any(said in str(problem) for problem in found), found
    assert all(problem.line for problem in found)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ('mesage = "x"', "mesage", "message"),
        ('mesage = "x %s"\nargs = ["a"]', "mesage", "message"),
        ('event = "A"\nloger = "x"', "loger", "logger"),
        ('regex = "x"\nevnt = "A"', "evnt", "event"),
        ('message = "x"\ntpye = "identify"\ntraits = { a = 1 }', "tpye", "type"),
    ],
)
def test_a_misspelled_key_and_not_what_comes_of_it(text, key, near):
    """
    That a rule lacks what is misspelled is no second problem.
    """
    found = problems(f"[[rule]]\n{text}\n")

    assert [(key, f"did you mean {near}?")] == [(one.key, one.fix) for one in found]


def test_a_misspelled_type_alone():
    """
    Which keys go with a type that is not known, is not known.
    """
    assert ["type"] == [
        one.key for one in problems('[[rule]]\nmessage = "x"\ntype = "ident"\ntraits = { a = 1 }')
    ]


def test_misspelled_keys_come_first():
    """
    Start-up shows one problem: the one that others may come of.
    """
    found = problems('[[rule]]\nlevel = "x"\nevent = "A"\nregexes = "x"\nzzz = 1\n')

    assert ["regexes", "zzz", "level"] == [one.key for one in found]


TWICE = """
[[rule]]
logger = "a"
message = "Paid %s"
args = ["user_id"]
event = "Paid"
where = { a = 1, b = true }
properties = { plan = "{plan}", x = { y = 1 } }

[[rule]]
name = "another"
level = 0
where = { b = true, a = 1 }
properties = { x = { y = 1 }, plan = "{plan}" }
event = "Paid"
args = ["user_id"]
message = "Paid %s"
logger = ["a"]
"""


def test_a_rule_that_is_there_twice():
    """
    Each line would be two events, whatever the rules are called and in whichever order it stands.
    """
    assert [
        (
            'line 10, rule 2 "another": says the same as rule 1 (line 2): each line would be two '
            "events; remove one of the two"
        )
    ] == [str(one) for one in problems(TWICE)]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"message": "A"}, {"message": "B"}),
        ({"message": "A"}, {"message": "A", "event": "B"}),
        ({"message": "A", "where": {"a": 1}}, {"message": "A", "where": {"a": True}}),
        ({"message": "A", "where": {"a": 1}}, {"message": "A", "where": {"b": 1}}),
        ({"message": "A", "types": {"a": "int"}}, {"message": "A", "types": {"a": "float"}}),
        ({"regex": "A", "event": "E"}, {"regex": "B", "event": "E"}),
        ({"message": "A", "properties": {"a": "{b}"}}, {"message": "A", "properties": {"a": "b"}}),
    ],
)
def test_rules_that_are_nearly_the_same(one, two):
    """
    Two events of a line may be meant; only what is in no way different is a slip.
    """
    assert 2 == len(read_document([one, two], SECRET)[0])


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("A", 0),
        ("%s and %d", 2),
        ("%5.2f%% of %-*s", 3),
        ("%.*f", 2),
        ("100%", 0),
        ("%%s", 0),
        ("{} of {}", 2),
        ("{0} {0} {2.name}", 3),
        ("{user} {}", 1),
        ("{:{}}", 2),
        ("{{}} {", 0),
        ("{} {} at 5% of", 2),
    ],
)
def test_as_many_arguments_as_placeholders(message, most):
    """
    More names than a call has arguments would never be found; fewer are right.
    """
    names = [f"a{number}" for number in range(most + 1)]
    few, found = read_document([{"message": message, "args": names[:most]}], SECRET)
    _, more = read_document([{"message": message, "args": names}], SECRET)

    assert (1, []) == (len(few), found)
    assert ["args"] == [problem.key for problem in more]
    assert f"and message has {most or 'no'} placeholder" in more[0].problem


def test_arguments_that_are_one_mapping():
    """
    How many a ``%(name)s`` takes is not told by it.
    """
    assert [] == read_document([{"message": "%(a)s", "args": ["x", "y"]}], SECRET)[1]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<a>x)|(?P<a>y)",
        r"(?:in (?P<a>x)|on (?:the (?P<a>y)|(?P<a>z))) (?P<b>.)",
        r"(?P<a>x) \(?P<a>y\)|[(?P<a>)]",
        r"(?P<a>[)(]) (?#(?P<a>) (?P<b>\))",
        "(?x) (?P<a>x) # not (?P<a>y)",
    ],
)
def test_groups_of_one_name_in_alternatives(pattern):
    """
    Only one of them matches: that is what the engine allows it for.
    """
    assert [] == read_document([{"regex": pattern, "event": "E"}], SECRET)[1]


@pytest.mark.parametrize(
    "pattern",
    [r"(?P<a>x)(?P<a>y)", r"(?P<a>x(?<a>y))", r"(?:(?P<a>x)|y)(?P<a>z)", r"[](](?P<a>x)\((?P<a>y)"],
)
def test_groups_of_one_name_beside_each_other(pattern):
    """
    The later would hide the earlier.
    """
    _, found = read_document([{"regex": pattern, "event": "E"}], SECRET)

    assert ["has two groups named a"] == [problem.problem for problem in found]


def test_every_property_that_is_wrong():
    """
    Several in one table are told at once.
    """
    found = problems(
        '[[rule]]\nmessage = "A"\nproperties = { a = "{", b = "{x!r}", c = { d = "{}" }, e = [] }\n'
    )

    assert [
        "has a brace without its other half (under a)",
        "has a format after a name (under b)",
        "has braces without a name (under d)",
        "has a value under e that is none",
    ] == [problem.problem for problem in found]


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        (
            'message = "Seen {user}"',
            "message",
            (
                "has {user}: right for loguru's templates; an f-string is finished text before it "
                "is logged: use regex"
            ),
        ),
        (
            'message = "Seen %s"\nargs = ["user"]\nuser_id = "{usr}"',
            "user_id",
            "takes {usr}, which is none of the rule's args; did you mean {user}?",
        ),
        (
            "regex = 'Seen (?P<user>.)'\nevent = 'A'\nproperties = { x = '{User.id}' }",
            "properties",
            "takes {User.id}, which is none of the rule's args or groups; did you mean {user}?",
        ),
        (
            "regex = 'Seen (?P<status>.)'\nevent = 'A'\nwhere = { plan = 1, stats = 1 }",
            "where",
            "takes {stats}, which is none of the rule's args or groups; did you mean {status}?",
        ),
    ],
)
def test_what_is_worth_a_note(rule, key, said):
    """
    It may be meant as it is, so it is no problem: the line, the rule, the key, and why.
    """
    text = f"\n[[rule]]\n{rule}\n"
    rules, found = read_text(text, SECRET)
    noted = notes(rules, locate(text))

    assert [] == found
    assert [key] == [note.key for note in noted]
    assert f"{key} {said}" in str(noted[0])
    assert text.split("\n")[noted[0].line - 1].startswith(key)
    assert noted[0]._replace(line=None) == notes(rules)[0]


@pytest.mark.parametrize(
    "rule",
    [
        {"message": 'Seen {"user": 1} {} {0}'},
        {"message": "Seen {user} %s"},
        {"message": "Seen %s", "args": ["user"], "user_id": "{user}"},
        {"message": "Seen %s", "args": ["user"], "user_id": "{user.id}"},
        {"message": "Seen %s", "args": ["user_id"], "properties": {"name": "{user_name}"}},
        {"regex": "A", "event": "{b}"},
    ],
)
def test_what_is_worth_none(rule):
    """
    Fields of the line may have any name, and braces may be text.
    """
    rules, found = read_document([rule], SECRET)

    assert ([], []) == (found, notes(rules))


def test_every_problem_at_once_in_the_order_of_the_file():
    """
    Whoever mends a file mends it once.
    """
    text = """# [[rule]] in a comment
rulez = 1

[[rule]]
levl = "INFO"
message = '''
[[rule]]
level = 3'''
level = "INF"

[[rule]]
  regex = "(a"
event = "{x"

[rule.where]
a = []
"""

    assert [
        (2, None, "rulez"),
        (5, 1, "levl"),
        (9, 1, "level"),
        (12, 2, "regex"),
        (13, 2, "event"),
        (15, 2, "where"),
    ] == [(problem.line, problem.rule, problem.key) for problem in problems(text)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[[rule]]\nmessage = \n", 2),
        ("[[rule]]\nmessage = 'a\n", 2),
        ('x = """never ends\n\n', 1),
        ("a = " + "[" * 2_000, 1),
        ("a = " + "9" * 5_000, 1),
    ],
)
def test_what_is_not_toml(text, line):
    """
    The parser's own reason, and where.
    """
    found = problems(text)

    assert ["this is not TOML"] == [str(one.problem).partition(":")[0] for one in found]
    assert line == found[0].line


def test_a_file_of_the_programs_in_the_place_of_the_engine(monkeypatch):
    """
    It is named: who has it next to the program does not think of it.
    """
    monkeypatch.setattr(rulefile, "shadow_of", lambda name: f"/app/{name}.py")
    (found,) = problems("[[rule]]\nevent = 'Paid'\nregex = 'a'")

    assert "regex cannot be used: /app/regex.py hides the library" in str(found)
    assert "rename that file" == found.fix


BACKSLASH = "write text with a backslash in single quotes: regex = '…'"
QUOTE = "close the quote that is open on this line"
TWO = "a key is there twice: keep one, or begin the next rule with [[rule]]"


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ('regex = "\\d+"', 2, BACKSLASH),
        ('regex = "\\u12"', 2, BACKSLASH),
        ('event = "a\nmessage = "b"', 2, QUOTE),
        ("event = 'a\nlevel = 1\n", 2, QUOTE),
        ("event = 'a\nmessage = 'b'\n", 2, QUOTE),
        ('level = 1\nevent = "a', 3, QUOTE),
        ("level = 1\nlevel = 2\nstop = true\n", 3, TWO),
        ("[rule]\n", 2, "give a table once; each rule begins with [[rule]]"),
        ("where = { a = 1, a = 2 }\n", 2, "keep one of the two"),
        ("event = Paid\n", 2, "put text in quotes; true and false are written small"),
        ("event = 'it's'\n", 2, "one key = value a line; text with quotes in it goes into '''…'''"),
        ("user id = 1\n", 2, "write key = value, the key in one word"),
        ("[[rule]\n", 2, "write [[rule]] on a line of its own"),
        ("args = ['a'\n", 2, "close the list with ]"),
        ("where = { a = 1 b = 2 }\n", 2, "write { a = 1, b = 2 } in one line"),
    ],
)
def test_how_to_mend_what_is_not_toml(text, line, fix):
    """
    In words for who does not know TOML.
    """
    found = problems(f"[[rule]]\n{text}")

    assert [(line, fix)] == [(one.line, one.fix) for one in found]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\n[[rules]]\n", 2, "rules is no key; did you mean [[rule]]?"),
        (
            "[project]\n\n[[tool.userlens-instrument.rules]]\n",
            3,
            "rules is no key; did you mean [[tool.userlens-instrument.rule]]?",
        ),
        (
            "[tool.userlens-instrument.zzz]\n",
            1,
            "zzz is no key; a rule begins with [[tool.userlens-instrument.rule]]",
        ),
    ],
)
def test_a_table_of_another_name(text, line, said):
    """
    Its line, and what a rule begins with in such a file.
    """
    assert [f"line {line}: {said}"] == [str(one) for one in problems(text)]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"rules": []}, "rules is no key; did you mean [[rule]]?"),
        ({"zzz": []}, "zzz is no key; a rule begins with [[rule]]"),
        ([{"message": "A"}] * 2, 'rule 2 "A": says the same as rule 1: each line would be'),
        ({"rule": {"message": "A"}}, "rule is one table; write [[rule]] for each rule"),
        ({"rule": "A"}, "these are no rules; give a list of them"),
        ("A", "these are no rules; give a list of them"),
        (3, "these are no rules; give a list of them"),
        ([3], "rule 1: is not a table; write [[rule]] and its keys below"),
        ([{"message": "A"}] * 10_001, "there are more than 10,000 rules; find many lines"),
        ([{"message": "A", 3: 4}], 'rule 1 "A": 3 is no key of a rule; the keys are'),
    ],
)
def test_documents_that_are_no_rules(document, said):
    """
    The same for what a YAML parser or somebody's code has made, without lines.
    """
    rules, found = read_document(document, SECRET)

    assert () == rules
    assert [True] == [str(problem).startswith(said) for problem in found], found


def test_rules_in_one_array_have_no_line():
    """
    Written as one array, a rule is told by its number.
    """
    found = problems('rule = [{ message = "A", level = "x" }]\n')

    assert [(None, 1, "level")] == [(one.line, one.rule, one.key) for one in found]


def test_a_line_within_an_array_of_several_is_no_key_of_its_rule():
    """
    Nor is it the head of a table: only what stands at the left of a value is.
    """
    text = '[[rule]]\nargs = [\n  "a",\n  [\n    "b",\n  ],\n]\nevent = "E"\n'

    assert {"args": 2, "event": 8} == locate(text)[1].keys


def test_a_long_title_is_cut():
    """
    What a rule is called in diagnostics has a bound, and no line breaks.
    """
    rules, _ = read_document([{"message": "A\n" + "b" * 100}], SECRET)

    assert "A " + "b" * 62 + "…" == rules[0].title


def test_a_problem_in_one_line():
    """
    Line, rule, key, problem and fix; what is not known is left out.
    """
    assert "a; b" == str(Problem(None, None, "", None, "a", "b"))
    assert 'line 3, rule 2 "T": k a; b' == str(Problem(3, 2, "T", "k", "a", "b"))
    assert "line 3: a; b" == str(Problem(3, None, "", None, "a", "b"))


# ---------------------------------------------------------------- anything at all


@given(st.text())
def test_any_text(text):
    """
    Any text is rules or problems, each in one line, and raises nothing.
    """
    rules, found = read_text(text, SECRET)

    assert not (rules and found)
    assert all(str(problem) and problem.fix for problem in found)
    assert len(locate(text)) >= 1


# What TOML, YAML and JSON make; `Settings` lets nothing else in.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.dictionaries(
    st.sampled_from(sorted(_KEYS)) | st.text(),
    st.sampled_from(["A", "{a}", "(", ["a"], {"a": "b"}, {"a": "int"}, 1, 0.5, True]) | JSON_VALUES,
)


@settings(max_examples=examples(500))
@given(st.lists(ENTRIES, max_size=3))
def test_any_entries(entries):
    """
    Whatever the keys hold, a list of rules is read or refused, and what the schema refuses is
    refused.
    """
    rules, found = read_document(entries, SECRET)

    assert bool(rules) == bool(entries and not found)
    assert all(problem.rule in range(1, len(entries) + 1) for problem in found)
    assert all(str(problem) for problem in found)


@settings(max_examples=examples(300))
@given(
    st.fixed_dictionaries(
        {"message": st.just("A")},
        optional={
            key: st.sampled_from(
                ["A", "track", "INFO", ["a"], [], {"a": "int"}, {}, 1, 0, 0.5, True]
            )
            for key in set(_KEYS) - {"message"}
        },
    )
)
def test_what_is_read_is_right_by_the_schema(entry):
    """
    An editor that goes by the schema marks nothing that we take.
    """
    rules, _ = read_document([entry], SECRET)

    if rules:
        jsonschema.validate({"rule": [entry]}, SCHEMA)
