"""``userlens-instrument rules``: check a file of rules; everything wrong with it, at once."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING

from userlens_instrument.cli.terminal import printable
from userlens_instrument.exceptions import RulesError


if TYPE_CHECKING:
    import argparse

    from userlens_instrument._core.rulefile import Problem
    from userlens_instrument._core.rules import Ruleset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="say everything that is wrong with a file of rules",
        description="Say everything that is wrong with a file of rules, each with its line and "
        "the fix; and what is worth a look, as a note. Exit code 0 if nothing is wrong, 1 if "
        "something is, 2 if there is no such file.",
        allow_abbrev=False,
    )
    check.add_argument("file", metavar="FILE", help="a TOML file, see docs/rules.md")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.set_defaults(action=_check)
    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema of such files, for editors",
        description="Print the JSON Schema of such files, for editors.",
        allow_abbrev=False,
    )
    schema.set_defaults(action=_schema)


def run(args: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    code: int = args.action(args)
    return code


def _check(args: argparse.Namespace) -> int:
    from userlens_instrument._core.redact import compile_redactor  # noqa: PLC0415 - see cli
    from userlens_instrument._core.rulefile import locate, notes, read_text  # noqa: PLC0415 - as above
    from userlens_instrument._core.rules import Ruleset  # noqa: PLC0415 - as above
    from userlens_instrument._delivery.rulebook import read_file  # noqa: PLC0415 - as above
    from userlens_instrument.settings import Settings  # noqa: PLC0415 - as above

    if not args.file.strip():
        # A variable of a script that is not set; as a path it would be this directory.
        raise RulesError("FILE", ("it is empty; give the path of a rules file",))
    # The file by its own merits: what the environment asks for is not read.
    settings = Settings.load({"rules": None})
    text = read_file(args.file)
    rules, problems = read_text(text, compile_redactor(settings.redact))
    ruleset = Ruleset(rules)
    remarks = [] if problems else notes(rules, locate(text))
    if not problems:
        problems = _slow(ruleset, text)
    if args.json:
        document = {
            "file": args.file,
            "rules": len(ruleset),
            "problems": [{"severity": "error", **problem._asdict()} for problem in problems],
            "notes": [{"severity": "note", **remark._asdict()} for remark in remarks],
        }
        print(json.dumps(document))
    else:
        for remark in remarks:
            print(printable(f"{args.file}: note: {remark}"))
        for problem in problems:
            print(printable(f"{args.file}: {problem}"))
        if not problems:
            print(printable(f"{args.file}: ok, {_counted(ruleset)}"))
    return 1 if problems else 0


def _counted(ruleset: Ruleset) -> str:
    by_regex = sum(rule.regex is not None for rule in ruleset.rules)
    by_logger = sum(rule.regex is None and rule.message is None for rule in ruleset.rules)
    number = len(ruleset)
    parts = [
        f"{found} by {how}"
        for found, how in (
            (number - by_regex - by_logger, "message"),
            (by_regex, "regex"),
            (by_logger, "logger alone"),
        )
        if found
    ]
    detail = f" ({', '.join(parts)})" if parts else ""
    return f"{number} rule{'' if number == 1 else 's'}{detail}"


# Lines on which a pattern with repeats inside of repeats, or with alternatives
# that mean the same, takes exponentially long: many of a kind, and an end that
# does not fit.
_PROBES = tuple(kind * 60 + "\0" for kind in ("a", "0", " ", "a ", "0.", "a0_", "/a", "="))


def _slow(ruleset: Ruleset, text: str) -> list[Problem]:
    """Return a problem for each regex that runs into the time limit on one of the probes."""
    from userlens_instrument._core.rulefile import Problem, locate  # noqa: PLC0415 - see cli
    from userlens_instrument._core.rules import PATIENCE  # noqa: PLC0415 - as above

    places = locate(text)
    problems = []
    for rule in ruleset.rules:
        if rule.regex is None:
            continue
        try:
            for probe in _PROBES:
                rule.regex.match(probe, timeout=PATIENCE)
        except TimeoutError:
            located = len(places) == len(ruleset) + 1
            line = places[rule.number].line_of("regex") if located else None
            problem = f"takes longer than {PATIENCE * 1000:.0f} ms on some lines of 60 characters"
            fix = "write it without repeats inside of repeats"
            problems.append(Problem(line, rule.number, rule.title, "regex", problem, fix))
    return problems


def _schema(args: argparse.Namespace) -> int:  # noqa: ARG001 - every action has them
    place = resources.files("userlens_instrument").joinpath("rules.schema.json")
    print(place.read_text("utf-8"), end="")
    return 0
