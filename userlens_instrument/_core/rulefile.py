"""The text of a rules file, or its dicts, to rules: every problem at once, each with its place."""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from userlens_instrument._core.patterns import count_places, group_given_twice, named_field
from userlens_instrument._core.rules import Rule
from userlens_instrument._core.shadow import shadow_of
from userlens_instrument._core.template import Path, Template, TemplateError, as_text, make_path
from userlens_instrument.settings import nearest


if TYPE_CHECKING:
    from collections.abc import Callable


# Where pyproject.toml and the like keep ours.
TABLE = "userlens-instrument"

KINDS = ("track", "identify", "group")

LEVELS = {
    "NOTSET": 0,
    "DEBUG": 10,
    "INFO": 20,
    "WARN": 30,
    "WARNING": 30,
    "ERROR": 40,
    "CRITICAL": 50,
    "FATAL": 50,
}

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n"})

# Shown of what somebody wrote; a rule's title is in diagnostics.
_SHOWN = 64
# Ten times what a large service has; each costs memory and, without a
# template, time.
_MOST_RULES = 10_000
_LONGEST_PATTERN = 4_096
# Sixty-four is the most that `max_depth` can be set to.
_DEEPEST = 64

# usr and user are nearer; user_name and user_id, which are two things, are not.
_NEAR = 0.7

_UNKNOWN = "is no key of a rule"


class Problem(NamedTuple):
    """
    What is wrong with a rules file.

    Attributes:
        line: Where, counted from 1; None where that is not known, such as for dicts.
        rule: Which rule, counted from 1; None for the file itself.
        title: What the rule is called; empty if it has no name yet.
        key: Which of its keys; None for the rule as a whole.
        problem: What is wrong.
        fix: What to do about it.
    """

    line: int | None
    rule: int | None
    title: str
    key: str | None
    problem: str
    fix: str

    def __str__(self) -> str:
        """Return all of it, in one line."""
        where = [] if self.line is None else [f"line {self.line}"]
        if self.rule is not None:
            where.append(f"rule {self.rule}" + (f' "{self.title}"' if self.title else ""))
        what = self.problem if self.key is None else f"{self.key} {self.problem}"
        return f"{', '.join(where)}: {what}; {self.fix}" if where else f"{what}; {self.fix}"


class _WrongError(Exception):
    """A key's value is wrong: the problem and the fix."""


class _SeveralWrongError(Exception):
    """Several things in a key's value are: a problem and a fix for each."""


class Place(NamedTuple):
    """
    Where a rule, or the whole document, is in a text.

    Attributes:
        line: Its own, counted from 1.
        keys: Those of its keys, by name.
    """

    line: int
    keys: dict[str, int]

    def line_of(self, key: str | None) -> int:
        """Return the line of *key*, or its own if that is written in some other way."""
        return self.keys.get(key or "", self.line)


def read_text(
    text: str, is_secret: Callable[[str], bool]
) -> tuple[tuple[Rule, ...], list[Problem]]:
    """
    Return the rules of a TOML document, and every problem; no rule is right while there is one.

    Args:
        text: The document.
        is_secret: Tells by its name whether a field is never sent in clear.
    """
    # The same parser by its former name; who has no rules does not pay for it.
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document = toml.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, too
        return (), [_not_toml(str(error), text)]
    table = document.get("tool")
    header = "[[rule]]"
    if isinstance(table, Mapping) and TABLE in table:
        document = table[TABLE]
        header = f"[[tool.{TABLE}.rule]]"
    return read_document(document, is_secret, locate(text), header)


# What the parser says, in lower case, and how to put it right: first come, first served.
_MENDED = (
    ("unescaped '\\'", "write text with a backslash in single quotes: regex = '…'"),
    ("hex value", "write text with a backslash in single quotes: regex = '…'"),
    ("unterminated string", "close the quote that is open on this line"),
    ("character '\\n'", "close the quote that is open on this line"),
    ("expected \"'", "close the quote that is open on this line"),
    ("cannot declare", "give a table once; each rule begins with [[rule]]"),
    ("cannot overwrite", "a key is there twice: keep one, or begin the next rule with [[rule]]"),
    ("duplicate inline table key", "keep one of the two"),
    ("invalid value", "put text in quotes; true and false are written small"),
    ("after a statement", "one key = value a line; text with quotes in it goes into '''…'''"),
    ("expected '='", "write key = value, the key in one word"),
    ("expected ']", "write [[rule]] on a line of its own"),
    ("unclosed array", "close the list with ]"),
    ("inline table", "write { a = 1, b = 2 } in one line"),
)


def _not_toml(said: str, text: str) -> Problem:
    """Return the problem that the parser's *said* is, with the line and a fix."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", said)
    line = int(found[1]) if found else max(1, len(text.splitlines()))
    what = said.partition(" (at ")[0]
    what = f"{what[:1].lower()}{what[1:]}"
    fix = next((fix for begin, fix in _MENDED if begin in what.lower()), "see https://toml.io")
    if found is None and fix.startswith("close the quote"):
        # The parser has looked for its other half to the end of the file.
        lines = enumerate(_blanked(text).split("\n"), 1)
        line = next((number for number, rest in lines if "'" in rest or '"' in rest), line)
    return Problem(line, None, "", None, f"this is not TOML: {what}", fix)


def read_document(
    document: object,
    is_secret: Callable[[str], bool],
    places: Sequence[Place] = (),
    header: str = "[[rule]]",
) -> tuple[tuple[Rule, ...], list[Problem]]:
    """
    Return the rules of a parsed document: a mapping with the key ``rule``, or a list of rules.

    Args:
        document: What a TOML or YAML parser made, or somebody's code.
        is_secret: As of `read_text`.
        places: As from `locate`, if there is a text.
        header: What a rule begins with.
    """
    problems: list[Problem] = []
    entries: object = document
    if isinstance(document, Mapping):
        entries = document.get("rule", ())
        for key in document:
            if key != "rule":
                shown = str(key)[:_SHOWN]
                near = nearest(shown, ["rule"], cutoff=0.5)
                fix = f"did you mean {header}?" if near else f"a rule begins with {header}"
                line = places[0].keys.get(shown) if places else None
                problems.append(Problem(line, None, "", shown, "is no key", fix))
        if isinstance(entries, Mapping):
            problems.append(
                Problem(None, None, "", "rule", "is one table", f"write {header} for each rule")
            )
            entries = ()
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        problems.append(Problem(None, None, "", None, "these are no rules", "give a list of them"))
        entries = ()
    if len(entries) > _MOST_RULES:
        fix = "find many lines with one regex, or by their logger"
        problems.append(
            Problem(None, None, "", None, f"there are more than {_MOST_RULES:,} rules", fix)
        )
        entries = ()
    rules = []
    firsts: dict[object, int] = {}
    for number, entry in enumerate(entries, 1):
        place = _place_of(number, places, len(entries))
        rule, wrong = _Reader(number, place, is_secret).read(entry)
        problems += sorted(wrong, key=_rank)
        rules.append(rule)
        if rule is not None:
            first = firsts.setdefault(_content(rule), number)
            if first != number:
                problems.append(_twice(rule, first, place, _place_of(first, places, len(entries))))
    return (() if problems else tuple(rule for rule in rules if rule is not None)), problems


def notes(rules: Sequence[Rule], places: Sequence[Place] = ()) -> list[Problem]:
    """
    Return what may be meant as it is, and is worth a look.

    Args:
        rules: As from `read_text`.
        places: As from `locate`, if there is a text.
    """
    if not rules:
        return [Problem(None, None, "", None, "no rule in it", "a rule begins with [[rule]]")]
    found = []
    for rule in rules:
        place = _place_of(rule.number, places, len(rules))
        for key, problem, fix in (*_message_notes(rule), *_name_notes(rule)):
            line = None if place is None else place.line_of(key)
            found.append(Problem(line, rule.number, rule.title, key, problem, fix))
    return found


def _message_notes(rule: Rule) -> list[tuple[str, str, str]]:
    name = None if rule.message is None else named_field(rule.message)
    if name is None:
        return []
    problem = f"has {{{name}}}: right for loguru's templates"
    fix = "an f-string is finished text before it is logged: use regex"
    return [("message", problem, fix)]


def _name_notes(rule: Rule) -> list[tuple[str, str, str]]:
    """Return the fields that are nearly what the rule itself has named."""
    named = {*rule.args, *(() if rule.regex is None else rule.regex.groupindex)}
    paths = [("where", path) for path, _ in rule.where]
    for key in ("event", "user_id", "group_id", "properties"):
        paths += [(key, path) for path in _paths(getattr(rule, key))]
    found = []
    for key, path in paths:
        if not {path.first, path.whole} & named:
            near = nearest(path.first, named, cutoff=_NEAR)
            if near is not None:
                where = "args" if rule.regex is None else "args or groups"
                problem = f"takes {{{path.whole}}}, which is none of the rule's {where}"
                found.append((key, problem, f"did you mean {{{near}}}?"))
    return found


def _place_of(number: int, places: Sequence[Place], rules: int) -> Place | None:
    return places[number] if len(places) == rules + 1 else None


def _rank(problem: Problem) -> tuple[bool, int]:
    """Return where it goes: a misspelled key first, as others may come of it; then by line."""
    return problem.problem != _UNKNOWN, problem.line or 0


def _twice(rule: Rule, first: int, place: Place | None, place_of_first: Place | None) -> Problem:
    where = "" if place_of_first is None else f" (line {place_of_first.line})"
    return Problem(
        None if place is None else place.line,
        rule.number,
        rule.title,
        None,
        f"says the same as rule {first}{where}: each line would be two events",
        "remove one of the two",
    )


def _content(rule: Rule) -> object:
    """Return all that *rule* says, but for what it is called; equal for rules that do the same."""
    told = {name: getattr(rule, name) for name in Rule.__dataclass_fields__}
    told["where"] = {path.whole: values for path, values in rule.where}
    return _frozen({name: told[name] for name in told if name not in {"number", "title"}})


def _frozen(value: Any) -> object:
    if isinstance(value, Template):
        return Template, value.text
    if isinstance(value, Mapping):
        return tuple((name, _frozen(value[name])) for name in sorted(value))
    if isinstance(value, frozenset):
        return tuple(sorted(value))
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    if hasattr(value, "pattern"):
        return value.pattern
    # True, 1 and 1.0 are equal, and not the same.
    return value if callable(value) else repr(value)


def locate(text: str) -> list[Place]:
    """
    Return where things are in a TOML document: the document itself first, then each rule.

    As far as a look at the lines tells; rules in one array have no place.
    """
    places = [Place(1, {})]
    depth = 0
    for number, line in enumerate(_blanked(text).split("\n"), 1):
        if depth == 0:
            if _HEADER.match(line):
                places.append(Place(number, {}))
                continue
            if table := _TABLE.match(line):
                of_rule = table[1].startswith("rule.") or ".rule." in table[1]
                name = table[1].rpartition("rule.")[2] if of_rule else table[1]
                name = name.removeprefix(f"tool.{TABLE}.")
                places[-1 if of_rule else 0].keys.setdefault(name.partition(".")[0], number)
                continue
            if key := _KEY.match(line):
                places[-1].keys.setdefault(key[1], number)
        depth = max(0, depth + sum(line.count(c) for c in "[{") - sum(line.count(c) for c in "]}"))
    return places


# Strings and comments, longest first: nothing inside of them is structure.
_TEXTS = re.compile(
    r"'''.*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*", re.DOTALL
)
_HEADER = re.compile(r"\s*\[\[\s*(?:tool\s*\.\s*\S+\s*\.\s*)?rule\s*\]\]")
_TABLE = re.compile(r"\s*\[{1,2}\s*([\w.-]+)\s*\]{1,2}\s*$")
_KEY = re.compile(r"\s*([\w-]+)\s*[.=]")


def _blanked(text: str) -> str:
    return _TEXTS.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


class _Reader:
    """Reads one rule, and goes on when something is wrong with it."""

    def __init__(self, number: int, place: Place | None, is_secret: Callable[[str], bool]) -> None:
        self._number = number
        self._place = place
        self._is_secret = is_secret
        self._title = ""
        # Keys that are meant by one that is misspelled.
        self._meant: set[str] = set()
        self._problems: list[Problem] = []

    def read(self, entry: object) -> tuple[Rule | None, list[Problem]]:
        if not isinstance(entry, Mapping):
            self._wrong(None, "is not a table", "write [[rule]] and its keys below")
            return None, self._problems
        self._title = _title(entry)
        self._unknown_keys(entry)
        values: dict[str, Any] = {}
        for key, check in _KEYS.items():
            if key not in entry:
                continue
            try:
                values[key] = check(entry[key])
            except _WrongError as error:
                self._wrong(key, *error.args)
            except TemplateError as error:
                self._wrong(key, error.problem, error.fix)
            except _SeveralWrongError as error:
                for problem, fix in error.args:
                    self._wrong(key, problem, fix)
        self._combinations(entry, values)
        self._secrets(values)
        if self._problems:
            return None, self._problems
        return self._made(values), []

    def _wrong(self, key: str | None, problem: str, fix: str) -> None:
        line = None if self._place is None else self._place.line_of(key)
        self._problems.append(Problem(line, self._number, self._title, key, problem, fix))

    def _unknown_keys(self, entry: Mapping[Any, Any]) -> None:
        for key in entry:
            if key not in _KEYS:
                shown = str(key)[:_SHOWN]
                near = nearest(shown, _KEYS)
                if near:
                    self._meant.add(near)
                fix = f"did you mean {near}?" if near else f"the keys are {', '.join(_KEYS)}"
                self._wrong(shown, _UNKNOWN, fix)

    def _combinations(self, entry: Mapping[Any, Any], values: Mapping[str, Any]) -> None:
        meant = self._meant | set(entry)
        if not {"logger", "message", "regex"} & meant:
            fix = "give message, regex or logger"
            self._wrong(None, "would take every line of the program", fix)
        for one, other, fix in _EXCLUSIVE:
            if one in entry and other in entry:
                self._wrong(one, f"cannot stand beside {other}", fix)
        self._arguments(values)
        if "type" in meant and "type" not in values:
            return  # which type is not known
        kind = values.get("type", "track")
        if kind != "track" and "event" in entry:
            self._wrong("event", f"is of no use for type = {kind!r}", "take it out")
        if kind != "group" and "group_id" in entry:
            self._wrong("group_id", f"is of no use for type = {kind!r}", "take it out")
        if kind == "track" and not {"event", "message"} & meant:
            fix = 'give a name such as event = "Invoice Paid"'
            self._wrong("event", "is missing: events would be named by whole lines", fix)
        if kind == "track" and "traits" in entry:
            self._wrong("traits", "is of no use for type = 'track'", "call it properties")

    def _arguments(self, values: Mapping[str, Any]) -> None:
        """Refuse more names than a call with this message has arguments."""
        names, message = values.get("args", ()), values.get("message")
        most = None if message is None else count_places(message)
        if most is None or len(names) <= most:
            return
        said = f"{len(names)} name{'s' if len(names) > 1 else ''}"
        places = f"{most or 'no'} placeholder{'' if most == 1 else 's'}"
        fix = "give one for each %s or {} of it, in their order" if most else "take them out"
        self._wrong("args", f"has {said}, and message has {places}", fix)

    def _secrets(self, values: Mapping[str, Any]) -> None:
        """Refuse what would send a secret under another name, past redaction."""
        for key in ("event", "user_id", "group_id", "properties", "traits"):
            for path in _paths(values.get(key)):
                secret = next(
                    (name for name in (path.first, *path.rest) if self._is_secret(name)), None
                )
                if secret is not None:
                    self._wrong(
                        key,
                        f"would send {{{path.whole}}}, which looks like a secret",
                        f"take it out, or set redact to '-{secret}' if it is none",
                    )

    def _made(self, values: dict[str, Any]) -> Rule:
        kind = values.get("type", "track")
        return Rule(
            number=self._number,
            title=self._title,
            loggers=values.get("logger"),
            level=values.get("level", 0),
            message=values.get("message"),
            regex=values.get("regex"),
            args=values.get("args", ()),
            kind=kind,
            event=values.get("event"),
            user_id=values.get("user_id"),
            group_id=values.get("group_id"),
            properties=values.get("properties", values.get("traits")),
            include=values.get("include"),
            exclude=values.get("exclude", frozenset()),
            types=values.get("types"),
            where=values.get("where", ()),
            sample=values.get("sample", 1.0),
            stop=values.get("stop", False),
        )


def _title(entry: Mapping[Any, Any]) -> str:
    for key in ("name", "event", "message", "regex"):
        value = entry.get(key)
        if isinstance(value, str) and value.strip():
            shown = " ".join(value.split())
            return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return ""


def _paths(value: object) -> list[Path]:
    if isinstance(value, Template):
        return list(value.paths)
    if isinstance(value, Mapping):
        return [path for inner in value.values() for path in _paths(inner)]
    return []


# ---------------------------------------------------------------- what each key may be


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        raise _WrongError("is not text", "give text, not a list")
    if isinstance(value, Mapping):
        raise _WrongError("is not text", "give text, not a table")
    if not isinstance(value, str):
        raise _WrongError("is not text", "put it in quotes")
    if not value.strip():
        raise _WrongError("is empty", "fill it in, or take it out")
    return value


def _globs(value: object) -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(fnmatch.translate(_text(glob)))
        for glob in _listed(value, "give a name or a glob such as 'billing.*', or a list of them")
    )


def _listed(value: object, fix: str) -> Sequence[Any]:
    """Return a lone text as a list of one, for keys that take both."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise _WrongError("is neither text nor a list of it", fix)
    return value


def _level(value: object) -> int:
    fix = "give DEBUG, INFO, WARNING, ERROR or CRITICAL, or a number"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _WrongError("is no level", fix)
    level = LEVELS.get(value.strip().upper())
    if level is None:
        near = nearest(value.strip().upper()[:_SHOWN], LEVELS)
        raise _WrongError("is no level", f"did you mean {near}?" if near else fix)
    return level


def _regex(value: object) -> Any:
    text = _text(value)
    if len(text) > _LONGEST_PATTERN:
        fix = f"give one of at most {_LONGEST_PATTERN:,} characters"
        raise _WrongError("is too long", fix)
    if "\b" in text:
        # Between double quotes \b is this character, to TOML and Python alike, and no log line
        # has it; the word boundary that was meant needs its backslash.
        fix = r"write it in single quotes: regex = '\b…' (in Python r'\b…')"
        raise _WrongError(r"has a backspace, which is what \b is between double quotes", fix)
    hidden = shadow_of("regex")
    if hidden is not None:
        problem = f"cannot be used: {hidden} hides the library of that name from us"
        raise _WrongError(problem, "rename that file")
    import regex  # noqa: PLC0415 - who has no regex does not pay for it

    try:
        pattern = regex.compile(text)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        said = " ".join(str(error).split())
        raise _WrongError(f"is no regular expression: {said}", "put that right") from None
    # With spaces and comments in it, it takes more than a glance.
    twice = None if pattern.flags & regex.VERBOSE else group_given_twice(text)
    if twice is not None:
        raise _WrongError(f"has two groups named {twice}", "give each a name of its own")
    return pattern


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise _WrongError("is not a list", "give a list of names")
    if not all(isinstance(name, str) and name.strip() for name in value):
        raise _WrongError("has an entry that is no name", "give names in quotes")
    if len(set(value)) != len(value):
        raise _WrongError("has a name twice", "give each once")
    return tuple(value)


def _args(value: object) -> tuple[str, ...]:
    names = _names(value)
    for name in names:
        if re.search(r"[\s{}]", name):
            raise _WrongError(f"has {name[:_SHOWN]!r}, which is no name", "give it in one word")
    return names


def _name_set(value: object) -> frozenset[str]:
    names = _names(value)
    if not names:
        raise _WrongError("is empty", "fill it in, or take it out")
    return frozenset(names)


def _kind(value: object) -> str:
    if not isinstance(value, str) or value not in KINDS:
        near = nearest(str(value)[:_SHOWN], KINDS)
        fix = f"did you mean {near}?" if near else "give track, identify or group"
        raise _WrongError("is no type of event", fix)
    return value


def _template(value: object) -> Template:
    return Template(_text(value))


def _properties(value: object) -> dict[str, Any]:
    wrong: list[tuple[str, str]] = []
    made = _nested(value, wrong)
    if wrong:
        raise _SeveralWrongError(*wrong)
    return made


def _nested(value: object, wrong: list[tuple[str, str]], depth: int = 0) -> dict[str, Any]:
    """Return the properties in *value*, and add to *wrong* what is, with the fix."""
    made: dict[str, Any] = {}
    if depth == _DEEPEST:
        wrong.append(("is nested too deeply", f"nest {_DEEPEST} tables at most"))
        return made
    if not isinstance(value, Mapping):
        wrong.append(("is not a table", 'give names and values: { plan = "{account.plan}" }'))
        return made
    for name, inner in value.items():
        if not isinstance(name, str) or not name:
            wrong.append(("has a name that is none", "give names in quotes"))
        elif isinstance(inner, str):
            try:
                made[name] = Template(inner) if "{" in inner or "}" in inner else inner
            except TemplateError as error:
                wrong.append((f"{error.problem} (under {name[:_SHOWN]})", error.fix))
        elif isinstance(inner, Mapping):
            made[name] = _nested(inner, wrong, depth + 1)
        elif isinstance(inner, (bool, int, float)) or inner is None:
            made[name] = inner
        else:
            wrong.append(
                (
                    f"has a value under {name[:_SHOWN]} that is none",
                    "give text, a number, true or false, or a table of these",
                )
            )
    return made


def _types(value: object) -> dict[str, Callable[[Any], Any]]:
    if not isinstance(value, Mapping) or not value:
        raise _WrongError("is not a table", 'give names and types: { seconds = "float" }')
    made = {}
    for name, kind in value.items():
        if not isinstance(kind, str) or kind not in _CONVERTERS:
            raise _WrongError(
                f"has no such type for {str(name)[:_SHOWN]}", f"give {', '.join(_CONVERTERS)}"
            )
        made[str(name)] = _CONVERTERS[kind]
    return made


def _where(value: object) -> tuple[tuple[Path, tuple[object, ...]], ...]:
    if not isinstance(value, Mapping) or not value:
        raise _WrongError("is not a table", 'give fields and values: { status = "ok" }')
    made = []
    for name, wanted in value.items():
        values = tuple(wanted) if isinstance(wanted, (list, tuple)) else (wanted,)
        if not values or not all(isinstance(one, (str, int, float)) for one in values):
            raise _WrongError(
                f"has a value for {str(name)[:_SHOWN]} that no field equals",
                "give text, a number, true or false, or a list of these",
            )
        made.append((make_path(str(name)), values))
    return tuple(made)


def _sample(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise _WrongError("is no share", "give a number above 0 and at most 1: 0.1 is a tenth")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _WrongError("is neither true nor false", "give true or false, without quotes")
    return value


def _to_bool(value: object) -> bool:
    if isinstance(value, (bool, int, float)):
        return bool(value)
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(word)
    return word in _TRUE


def _to_text(value: object) -> str:
    text = as_text(value)
    if text is None:
        raise TypeError
    return text


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bool": _to_bool,
    "str": _to_text,
}

# In the order in which they are explained.
_KEYS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "logger": _globs,
    "level": _level,
    "message": _text,
    "regex": _regex,
    "args": _args,
    "where": _where,
    "type": _kind,
    "event": _template,
    "user_id": _template,
    "group_id": _template,
    "properties": _properties,
    "traits": _properties,
    "include": _name_set,
    "exclude": _name_set,
    "types": _types,
    "sample": _sample,
    "stop": _flag,
}

_EXCLUSIVE = (
    ("regex", "message", "a rule finds lines by one of them"),
    ("include", "exclude", "include alone says what is sent"),
    ("include", "properties", "properties alone says what is sent"),
    ("exclude", "properties", "properties alone says what is sent"),
    ("include", "traits", "traits alone says what is sent"),
    ("exclude", "traits", "traits alone says what is sent"),
    ("properties", "traits", "they are the same: keep one"),
)
