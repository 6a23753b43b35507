"""
Rules: which lines that are already logged become which events.

Compiled once. A template is found by one dict lookup; regular expressions are
tried for the loggers and levels they are meant for, and for no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from userlens_instrument._core.template import MISSING, Path, Template
from userlens_instrument.exceptions import InvalidEventError


if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from regex import Pattern


# A regular expression sees this much of a line, in characters, and has this
# long for it, in seconds: no pattern holds up a log call for longer. The engine
# (`regex`) keeps to it however the pattern backtracks; Python's own cannot.
LONGEST_TEXT = 8_192
PATIENCE = 0.05
# So often in all, because a machine may be busy; then the rule is off.
_STRIKES = 3

# Names of loggers come from source code; a program that makes them up gets
# no cache rather than all the memory.
_MOST_LOGGERS = 4_096


class Line:
    """
    What rules look at; what costs something is worked out when a rule asks for it.

    Args:
        logger: The logger's name; empty if it has none.
        level: The number of its level.
        message: Its text before any formatting.
        args: Its positional arguments.
        get_text: Returns its text after formatting.
        get_fields: Returns everything on it.
        context: Returns what surrounds the call: structlog's contextvars.
    """

    __slots__ = (
        "_fields",
        "_get_fields",
        "_get_text",
        "_text",
        "args",
        "context",
        "level",
        "logger",
        "message",
    )

    def __init__(
        self,
        logger: str,
        level: int,
        message: object,
        args: tuple[object, ...],
        *,
        get_text: Callable[[], str],
        get_fields: Callable[[], Mapping[Any, Any]],
        context: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Take over what costs nothing."""
        self.logger = logger
        self.level = level
        self.message = message
        self.args = args
        self.context = context
        self._get_text = get_text
        self._get_fields = get_fields
        self._text: str | None = None
        self._fields: Mapping[Any, Any] | None = None

    @property
    def text(self) -> str:
        """The line as it is printed, without what a formatter puts around it."""
        if self._text is None:
            self._text = self._get_text()
        return self._text

    @property
    def fields(self) -> Mapping[Any, Any]:
        """Everything on the line, by name."""
        if self._fields is None:
            self._fields = self._get_fields()
        return self._fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One rule, checked and compiled.

    Attributes:
        number: Its place in the file; the first is 1.
        title: What it is called in diagnostics.
        loggers: Tells by its name whether a logger is meant; None for any.
        level: The lowest level that is meant.
        message: The template that is meant; None for any.
        regex: What the formatted text begins with; None for anything.
        args: Names for the positional arguments.
        kind: ``track``, ``identify`` or ``group``.
        event: The event's name; None for the message.
        user_id: Where the user's id is; None for the usual names.
        group_id: Where the group's id is; None for the usual names.
        properties: What is sent, by name: a `Template`, a value, or more of the
            same inside; None for every field of the line.
        include: The only fields that are sent; None for all.
        exclude: Fields that are not sent.
        types: What to make of the text under a name.
        where: Paths, each with the values that are meant.
        sample: The share of users whose events are sent.
        stop: Whether no later rule is tried.
    """

    number: int
    title: str
    loggers: tuple[re.Pattern[str], ...] | None = None
    level: int = 0
    message: str | None = None
    regex: Pattern[str] | None = None
    args: tuple[str, ...] = ()
    kind: str = "track"
    event: Template | None = None
    user_id: Template | None = None
    group_id: Template | None = None
    properties: Mapping[str, Any] | None = None
    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    types: Mapping[str, Callable[[Any], Any]] | None = None
    where: tuple[tuple[Path, tuple[object, ...]], ...] = ()
    sample: float = 1.0
    stop: bool = False

    @property
    def called(self) -> str:
        """What it is called within a sentence."""
        return f"rule {self.number} ({self.title})" if self.title else f"rule {self.number}"

    def means(self, logger: str) -> bool:
        """Return whether lines of *logger* are meant."""
        return self.loggers is None or any(glob.match(logger) for glob in self.loggers)

    def keeps(self, name: object) -> bool:
        """Return whether the field *name* is sent, where the rule does not say what is."""
        return name not in self.exclude and (self.include is None or name in self.include)

    def takes(self, user_id: str) -> bool:
        """Return whether events of *user_id* are in the sample: the same ones in every process."""
        if self.sample >= 1.0:
            return True
        import hashlib  # noqa: PLC0415 - a command that only checks rules starts without it

        digest = hashlib.blake2b(user_id.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.sample * 2**64


class Match(NamedTuple):
    """
    A line that a rule has found.

    Attributes:
        rule: The rule.
        given: What the rule says of the event, as a mapping tag would.
        named: What the rule has named: positional arguments, groups, converted fields.
    """

    rule: Rule
    given: Mapping[str, Any]
    named: Mapping[str, Any]


class _Others(dict[str, tuple[Rule, ...]]):
    """The rules without a template that are meant for a logger, by its name."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, logger: object) -> tuple[Rule, ...]:
        if not isinstance(logger, str):  # makeLogRecord() takes anything, or leaves it out
            return self[""]
        found = tuple(rule for rule in self._rules if rule.means(logger))
        if len(self) < _MOST_LOGGERS:
            self[logger] = found
        return found


class Ruleset:
    """
    All rules of a file, in the order of the file.

    Args:
        rules: The rules.
        is_own: Returns whether a text is a line of our own, which is never an event.

    Attributes:
        rules: The rules.
        messages: Every template that a rule means.
        others: The rules without one, by the name of a logger; None if there are none at all.
    """

    __slots__ = ("_is_own", "_strikes", "messages", "others", "rules")

    def __init__(
        self, rules: tuple[Rule, ...], is_own: Callable[[str], bool] | None = None
    ) -> None:
        """Sort them by how they are found."""
        self._is_own = is_own
        self.rules = rules
        self.messages: dict[str, tuple[Rule, ...]] = {}
        for rule in rules:
            if rule.message is not None:
                self.messages[rule.message] = (*self.messages.get(rule.message, ()), rule)
        others = tuple(rule for rule in rules if rule.message is None)
        self.others = _Others(others) if others else None
        self._strikes: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many rules there are."""
        return len(self.rules)

    def may_match(self, logger: str, message: object) -> bool:
        """Return whether any rule may be meant for such a line: two lookups."""
        if type(message) is str and message in self.messages:
            return True
        return self.others is not None and bool(self.others[logger])

    def match(self, line: Line) -> list[Match | InvalidEventError]:
        """Return what the rules find in *line*, in their order, each or the reason why not."""
        found: list[Match | InvalidEventError] = []
        for rule in self._candidates(line):
            if line.level < rule.level or not rule.means(line.logger):
                continue
            try:
                match = self._try(rule, line)
            except InvalidEventError as error:
                found.append(error)
                continue
            except Exception as error:
                # A value that raises when it is read: other rules do without it.
                found.append(_unreadable(rule, error))
                continue
            if match is not None:
                found.append(match)
                if rule.stop:
                    break
        return [] if found and self._is_ours(line) else found

    def _is_ours(self, line: Line) -> bool:
        text = line.message
        if text == "%s" and len(line.args) == 1:
            text = line.args[0]
        return type(text) is str and self._is_own is not None and self._is_own(text)

    def _candidates(self, line: Line) -> tuple[Rule, ...]:
        message = line.message
        by_message = self.messages.get(message, ()) if type(message) is str else ()
        others = () if self.others is None else self.others[line.logger]
        if by_message and others:
            return tuple(sorted((*by_message, *others), key=lambda rule: rule.number))
        return by_message or others

    def _try(self, rule: Rule, line: Line) -> Match | None:
        named: dict[str, Any] = dict(zip(rule.args, line.args, strict=False))
        if rule.regex is not None:
            groups = self._groups(rule, rule.regex, line)
            if groups is None:
                return None
            named.update(groups)
        fields = line.fields
        if rule.types:
            _convert(rule.types, named, fields)

        def lookup(path: Path) -> Any:
            return _look_up(path, named, fields, line.context)

        for path, values in rule.where:
            if not _is_one_of(lookup(path), values):
                return None
        return Match(rule, _given(rule, lookup), named)

    def _groups(self, rule: Rule, regex: Pattern[str], line: Line) -> dict[str, Any] | None:
        """Return what the named groups have matched, or None if the text does not match."""
        if self._strikes.get(rule.number, 0) >= _STRIKES:
            return None
        try:
            match = regex.match(line.text[:LONGEST_TEXT], timeout=PATIENCE)
        except TimeoutError:
            strikes = self._strikes[rule.number] = self._strikes.get(rule.number, 0) + 1
            ending = "" if strikes < _STRIKES else "; the rule is off until it is loaded again"
            raise InvalidEventError(
                "regex_timeout",
                f"the regex of {rule.called} took longer than {PATIENCE * 1000:.0f} ms{ending}",
                "write it without repeats inside of repeats",
            ) from None
        if match is None:
            return None
        return {name: text for name, text in match.groupdict().items() if text is not None}


def _unreadable(rule: Rule, error: Exception) -> InvalidEventError:
    # The type alone: the text of a foreign exception may hold anything.
    kind = type(error).__name__
    return InvalidEventError(
        "unreadable",
        f"reading it for {rule.called} raised {kind}",
        "log plain values",
    )


def _look_up(
    path: Path,
    named: Mapping[str, Any],
    fields: Mapping[Any, Any],
    context: Callable[[], Mapping[str, Any]],
) -> Any:
    for source in (named, fields, context()):
        if path.whole in source:
            return source[path.whole]
        if path.rest and path.first in source:
            return path.inside(source[path.first])
    return MISSING


def _convert(
    types: Mapping[str, Callable[[Any], Any]], named: dict[str, Any], fields: Mapping[Any, Any]
) -> None:
    """Convert what *types* names; what cannot be is None: no figure rather than a wrong one."""
    for name, convert in types.items():
        value = named.get(name, fields.get(name))
        if value is not None:
            try:
                named[name] = convert(value)
            except (TypeError, ValueError, OverflowError):
                named[name] = None


def _is_one_of(value: object, values: tuple[object, ...]) -> bool:
    """Return whether *value* is one of *values*, True and 1 being two things."""
    if type(value).__name__ == "UUID":
        value = str(value)
    if not isinstance(value, (str, int, float)):
        return False
    is_flag = isinstance(value, bool)
    return any(value == other for other in values if is_flag == isinstance(other, bool))


def _given(rule: Rule, lookup: Callable[[Path], Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, template in (
        ("event", rule.event),
        ("user_id", rule.user_id),
        ("group_id", rule.group_id),
    ):
        if template is None:
            continue
        value = template.fill(lookup)
        if value is MISSING or value is None:
            # To fall back would give the event to whoever surrounds the call.
            reason = "missing_event_name" if key == "event" else f"missing_{key}"
            raise InvalidEventError(
                reason,
                f"the line has no {template.text} for the {key} of {rule.called}",
                "name a field that is there, or narrow the rule with where",
            )
        given[key] = value
    if rule.properties is not None:
        given["properties"] = _filled(rule.properties, lookup)
    return given


def _filled(properties: Mapping[str, Any], lookup: Callable[[Path], Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, value in properties.items():
        if isinstance(value, Template):
            value = value.fill(lookup)  # noqa: PLW2901 - what the name stands for
            if value is MISSING:
                continue
        elif isinstance(value, dict):
            value = _filled(value, lookup)  # noqa: PLW2901 - as above
        filled[name] = value
    return filled
