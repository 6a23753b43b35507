"""``userlens-instrument rules``: everything that is wrong with a file of rules, at once."""

from __future__ import annotations

import json
import logging.config
from pathlib import Path

import pytest

from userlens_instrument.cli import main


EXAMPLES = Path(__file__).parents[2] / "examples" / "rules"
GOOD = """
[[rule]]
message = "Invoice %s paid by %s"
args = ["invoice", "user_id"]

[[rule]]
regex = 'Export (?P<format>\\w+)'
event = "Export Finished"

[[rule]]
logger = "audit"
event = "Audited"
"""
BAD = """
[[rule]]
message = "A"
levl = 3
stop = "x"
[[rule]]
event = "B"
"""


STOP = "stop is neither true nor false; give true or false, without quotes"
EVERY_LINE = "would take every line of the program; give message, regex or logger"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "userlens.toml"
    path.write_text(GOOD)
    return path


def test_a_good_file(file, capsys):
    """
    One line that says what is in it; exit code 0.
    """
    assert 0 == main(["rules", "check", str(file)])

    expected = f"{file}: ok, 3 rules (1 by message, 1 by regex, 1 by logger alone)\n"
    assert (expected, "") == tuple(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["note: no rule in it; a rule begins with [[rule]]", "ok, 0 rules"]),
        ('[[rule]]\nmessage = "A"', ["ok, 1 rule (1 by message)"]),
    ],
)
def test_how_many(file, capsys, text, said):
    """
    No rule, which is worth a note, and one.
    """
    file.write_text(text)

    assert 0 == main(["rules", "check", str(file)])

    assert [f"{file}: {line}" for line in said] == capsys.readouterr().out.splitlines()


def test_a_bad_file(file, capsys):
    """
    A line for each problem, with line, rule, reason and fix; exit code 1.
    """
    file.write_text(BAD)

    assert 1 == main(["rules", "check", str(file)])

    assert [
        f'{file}: line 4, rule 1 "A": levl is no key of a rule; did you mean level?',
        f'{file}: line 5, rule 1 "A": {STOP}',
        f'{file}: line 6, rule 2 "B": {EVERY_LINE}',
    ] == capsys.readouterr().out.splitlines()


def test_json(file, capsys):
    """
    The same for scripts, as one document.
    """
    file.write_text(BAD)

    assert 1 == main(["rules", "check", "--json", str(file)])

    document = json.loads(capsys.readouterr().out)
    assert (str(file), 0, 3) == (document["file"], document["rules"], len(document["problems"]))
    assert {
        "severity": "error",
        "line": 4,
        "rule": 1,
        "title": "A",
        "key": "levl",
        "problem": "is no key of a rule",
        "fix": "did you mean level?",
    } == document["problems"][0]
    assert [] == document["notes"]


NOTED = """
[[rule]]
event = "Seen"
message = "Seen {user}"
"""


def test_a_note(file, capsys):
    """
    What may be meant is no error: a line that says what to look at, and exit code 0.
    """
    file.write_text(NOTED)

    assert 0 == main(["rules", "check", str(file)])

    note = (
        "message has {user}: right for loguru's templates; an f-string is finished text before it "
        "is logged: use regex"
    )
    assert [
        f'{file}: note: line 4, rule 1 "Seen": {note}',
        f"{file}: ok, 1 rule (1 by message)",
    ] == capsys.readouterr().out.splitlines()


def test_a_note_for_scripts(file, capsys):
    """
    In JSON it stands by itself: whoever looks at problems alone finds none.
    """
    file.write_text(NOTED)

    assert 0 == main(["rules", "check", "--json", str(file)])

    document = json.loads(capsys.readouterr().out)
    assert (1, []) == (document["rules"], document["problems"])
    assert [("note", 4, "message")] == [
        (note["severity"], note["line"], note["key"]) for note in document["notes"]
    ]


def test_a_file_that_is_not_there(tmp_path, capsys):
    """
    Bad input: exit code 2 and one line, and nothing on standard output.
    """
    assert 2 == main(["rules", "check", str(tmp_path / "none")])

    expected = f"userlens-instrument rules: {tmp_path}/none: there is no such file; give the path"
    out, error = capsys.readouterr()
    assert ("", f"{expected} of a rules file\n") == (out, error)


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_name(given, capsys):
    """
    A variable that is not set: exit code 2, and one line that says that it is empty.
    """
    assert 2 == main(["rules", "check", given])

    expected = "userlens-instrument rules: FILE: it is empty; give the path of a rules file\n"
    assert ("", expected) == tuple(capsys.readouterr())


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_directory(tmp_path, capsys, options):
    """
    A directory is bad input, too: exit code 2 and one line.
    """
    assert 2 == main(["rules", "check", *options, str(tmp_path)])

    expected = f"userlens-instrument rules: {tmp_path}: this is a directory; give the path"
    assert ("", f"{expected} of a file in it\n") == tuple(capsys.readouterr())


def test_a_relative_path_of_a_configuration(tmp_path, monkeypatch):
    """
    In a dictConfig a path is relative to the working directory; an error names it whole.
    """
    monkeypatch.chdir(tmp_path)
    handler = {"class": "userlens_instrument.UserlensHandler", "rules": "conf/userlens.toml"}

    with pytest.raises(ValueError, match="Unable to configure handler 'userlens'") as caught:
        logging.config.dictConfig({"version": 1, "handlers": {"userlens": handler}})

    expected = f"{tmp_path}/conf/userlens.toml: there is no such file; give the path"
    assert str(caught.value.__cause__).startswith(expected)


def test_a_pattern_that_backtracks_without_end(file, capsys):
    """
    A regex that runs into the time limit on a short line is a problem, before it costs anything.
    """
    file.write_text(GOOD + "[[rule]]\nevent = 'X'\nregex = '(a|aa)+$'\n")

    assert 1 == main(["rules", "check", str(file)])

    line = len(file.read_text().splitlines())
    assert (
        f'{file}: line {line}, rule 4 "X": regex takes longer than 50 ms on some lines of 60 '
        "characters; write it without repeats inside of repeats\n"
    ) == capsys.readouterr().out


def test_one_without_a_line(file, capsys):
    """
    Rules that are written as one array are told by their number.
    """
    file.write_text("rule = [{ event = 'X', regex = '(a|aa)+$' }]")

    assert 1 == main(["rules", "check", str(file)])

    assert capsys.readouterr().out.startswith(f'{file}: rule 1 "X": regex takes longer')


def test_what_the_file_says_is_printed_as_text(file, capsys):
    """
    Control characters of a file are shown, not obeyed.
    """
    file.write_text('[[rule]]\nmessage = "A"\n"\\u001b[31m" = 1\n')

    assert 1 == main(["rules", "check", str(file)])

    assert "\x1b" not in capsys.readouterr().out


def test_secrets_by_the_settings(file, monkeypatch, capsys):
    """
    What looks like a secret is that of the environment's redact; rules of the environment do not
    matter.
    """
    file.write_text('[[rule]]\nmessage = "A"\nproperties = { a = "{token}", b = "{plan}" }\n')
    monkeypatch.setenv("USERLENS_RULES", "/nowhere")

    assert 1 == main(["rules", "check", str(file)])
    monkeypatch.setenv("USERLENS_REDACT", "-token")
    assert 0 == main(["rules", "check", str(file)])
    monkeypatch.setenv("USERLENS_REDACT", "-token,plan")
    assert 1 == main(["rules", "check", str(file)])

    lines = capsys.readouterr().out.splitlines()
    assert [True, False, True] == [
        "would send {token}" in lines[0],
        "would send" in lines[1],
        "would send {plan}" in lines[2],
    ]


def test_the_schema(capsys):
    """
    The JSON Schema for editors, as it is shipped.
    """
    assert 0 == main(["rules", "schema"])

    assert "Rules of userlens-instrument" == json.loads(capsys.readouterr().out)["title"]


@pytest.mark.parametrize("arguments", [["rules"], ["rules", "check"], ["rules", "nonsense"]])
def test_bad_arguments(arguments, capsys):
    """
    One line and exit code 2.
    """
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert 2 == caught.value.code
    assert 1 == len(capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_rules_of_the_examples(path, capsys):
    """
    Each file of examples/rules is right.
    """
    assert 0 == main(["rules", "check", str(path)]), capsys.readouterr().out
