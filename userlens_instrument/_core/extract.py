"""
Record fields to events, or the reason why not.

Pure: what the record holds, what surrounds it and when it was made are
arguments. Nothing here knows structlog or logging; the two entrances hand in
the names that are plumbing there.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from userlens_instrument._core.times import parse_time
from userlens_instrument.events import Event, Group, Identify, Track
from userlens_instrument.exceptions import InvalidEventError
from userlens_instrument.settings import nearest


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument._core.rules import Match, Rule


# Identity is never shortened (two users would become one), so a longer id is
# refused. Both numbers are this project's: the API names no limit.
LONGEST_ID = 512
LONGEST_NAME = 512

# Written on records by other people's instrumentation, on either entrance.
_FOREIGN_PREFIXES = ("_", "dd.", "otel", "sentry")
_FOREIGN = frozenset({"color_message"})

# Names are few and short, they come from source code; a program that makes
# them up gets no cache rather than all the memory.
_MOST_REMEMBERED = 4_096
_LONGEST_REMEMBERED = 256

# A plan change is two events. A list this long is a slip, and making all of
# its events would hold up the log call.
_MOST_EVENTS = 100

_MAPPING_KEYS = frozenset(
    {
        "type",
        "event",
        "user_id",
        "userId",
        "group_id",
        "groupId",
        "properties",
        "traits",
        "timestamp",
    }
)


class Plumbing:
    """
    Tells a record's own fields from what every record carries.

    Args:
        names: What is plumbing at this entrance.
        callsite: Names that are plumbing only beside one of *names_of_callsite*:
            an application may well have a ``module`` or a ``process`` to tell of.
        names_of_callsite: Names that nobody but a call-site processor writes.
    """

    __slots__ = ("_callsite", "_known", "_names", "_names_of_callsite")

    def __init__(
        self,
        names: frozenset[str],
        *,
        callsite: frozenset[str] = frozenset(),
        names_of_callsite: frozenset[str] = frozenset(),
    ) -> None:
        self._names = names | _FOREIGN | names_of_callsite
        self._callsite = callsite
        self._names_of_callsite = names_of_callsite
        self._known: dict[object, bool] = {}

    def own_fields(self, fields: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return *fields* without the plumbing, in their order."""
        known = self._known
        own = {}
        for name, value in fields.items():
            verdict = known.get(name)
            if not (self._learn(name) if verdict is None else verdict):
                own[name] = value
        if self._callsite and not self._names_of_callsite.isdisjoint(fields):
            for name in self._callsite.intersection(own):
                del own[name]
        return own

    def _learn(self, name: object) -> bool:
        if type(name) is not str:
            return False
        verdict = name in self._names or name.startswith(_FOREIGN_PREFIXES)
        if len(self._known) < _MOST_REMEMBERED and len(name) <= _LONGEST_REMEMBERED:
            self._known[name] = verdict
        return verdict


class Record(NamedTuple):
    """
    What a log call made, as both entrances see it.

    Attributes:
        fields: Everything on it.
        message: Its text before any formatting: the template.
        created: When it was made, in seconds since the epoch.
        context: Returns what surrounds the call: structlog's contextvars.
    """

    fields: Mapping[Any, Any]
    message: object
    created: float
    context: Callable[[], Mapping[str, Any]]


class _NotFoundError(InvalidEventError):
    """There is no id: advice for who writes the program, or by whom it is found, the rule."""

    def __init__(self, what: str, key: str, empty: str | None) -> None:
        self._what = what
        self._empty = empty
        super().__init__(
            f"missing_{what}_id",
            f"there is no {what} id" if empty is None else f"{empty} is None",
            f"put it on the line ({key}=… with structlog, extra={{'{key}': …}} with "
            f"logging), or bind it with structlog.contextvars.bind_contextvars({key}=…)",
        )

    def by(self, rule: Rule) -> InvalidEventError:
        """Return the same of an event of *rule*: who writes it may not be who writes the code."""
        what = self._what
        problem = f"{rule.called} finds no {what} id"
        fix = f'give it {what}_id = "{{…}}"'
        if self._empty is not None:
            problem, fix = f"{problem}: {self._empty} is None", f"{fix} of another field"
        elif rule.regex is not None:
            fix = f"{fix}, or a group (?P<{what}_id>…)"
        elif rule.message is not None:
            fix = f"{fix}, or a name in args"
        return InvalidEventError(self.reason, problem, fix)


class Reader(NamedTuple):
    """
    How records are read at one entrance, for one client.

    Attributes:
        user_id_keys: Names under which a record may hold the user id, best first.
        group_id_keys: The same for the group id.
        plumbing: Tells what is not a property.
    """

    user_id_keys: tuple[str, ...]
    group_id_keys: tuple[str, ...]
    plumbing: Plumbing

    def read(self, tag: object, record: Record) -> list[Event | InvalidEventError]:
        """
        Return the events that *tag* makes of *record*, in order, each or the reason why not.

        Args:
            tag: The value under ``userlens_event``.
            record: What it stands on.
        """
        if tag is False or tag is None:
            return []
        if not isinstance(tag, (list, tuple)):
            return [self._one(tag, record)]
        events = [
            self._one(item, record)
            for item in islice(tag, _MOST_EVENTS)
            if item is not None and item is not False
        ]
        if len(tag) > _MOST_EVENTS:
            events.append(
                InvalidEventError(
                    "too_many_events",
                    f"the tag lists more than {_MOST_EVENTS} events",
                    "log a line for each",
                )
            )
        return events

    def read_match(self, match: Match, record: Record) -> Event | InvalidEventError:
        """
        Return the event that a rule makes of *record*, or the reason why not.

        Args:
            match: What the rule has found.
            record: Where.
        """
        if match.named:
            record = record._replace(fields={**record.fields, **match.named})
        try:
            return self._build(match.rule.kind, match.given, record, match)
        except InvalidEventError as error:
            called = match.rule.called
            problem = error.problem
            if called not in problem:
                problem = f"{problem}, by {called}"
            return InvalidEventError(error.reason, problem, error.fix)

    def _one(self, tag: object, record: Record) -> Event | InvalidEventError:
        try:
            return self._event(tag, record)
        except InvalidEventError as error:
            return error

    def _event(self, tag: object, record: Record) -> Event:
        if isinstance(tag, (Track, Identify, Group)):
            return normalize(tag, default_time=_time_of(record))
        if tag is True:
            return self._build("track", {}, record)
        if isinstance(tag, str):
            tag = _text(tag)
            if tag in ("track", "identify", "group"):
                return self._build(tag, {}, record)
            return self._build("track", {"event": tag}, record)
        if isinstance(tag, Mapping):
            return self._build(_kind(tag), tag, record)
        raise InvalidEventError(
            "invalid_tag",
            f"the tag is of type {type(tag).__name__}",
            "tag with True, 'identify', 'group', an event name, a mapping, "
            "or Track(…), Identify(…), Group(…)",
        )

    def _build(
        self,
        kind: str,
        given: Mapping[str, Any],
        record: Record,
        match: Match | None = None,
    ) -> Event:
        used: list[str] = []
        try:
            user = self._id("user", self.user_id_keys, given, record, used)
            group: Any = None
            if kind == "group":
                group = self._id("group", self.group_id_keys, given, record, used)
        except _NotFoundError as error:
            raise error if match is None else error.by(match.rule) from None
        extra = given.get("properties" if kind == "track" else "traits")
        if extra is None:
            extra = given.get("traits" if kind == "track" else "properties")
        if extra is None:
            extra = self._properties_of(kind, record, used)
            if match is not None:
                # What a rule has named is no plumbing, whatever it is called.
                named = {name: match.named[name] for name in match.named if name not in used}
                extra = {
                    name: value
                    for name, value in {**extra, **named}.items()
                    if match.rule.keeps(name)
                }
        moment = parse_time(given.get("timestamp"))
        if kind == "identify":
            event: Event = Identify(user, extra, moment)
        elif kind == "group":
            event = Group(group, user, extra, moment)
        else:
            name: Any = given.get("event")
            if name is None:
                name = record.message
            event = Track(user, name, extra, moment)
        return normalize(event, default_time=_time_of(record))

    def _id(
        self,
        what: str,
        keys: tuple[str, ...],
        given: Mapping[str, Any],
        record: Record,
        used: list[str],
    ) -> Any:
        """Return the first id found, best place first; add the field that held it to *used*."""
        for key in (f"{what}_id", f"{what}Id"):
            if given.get(key) is not None:
                return given[key]
        for key in keys:
            if record.fields.get(key) is not None:
                used.append(key)
                return record.fields[key]
        context = record.context()
        for key in keys:
            if context.get(key) is not None:
                return context[key]
        empty = next((key for key in keys if key in record.fields or key in context), None)
        raise _NotFoundError(what, keys[0], empty)

    def _properties_of(self, kind: str, record: Record, used: list[str]) -> Mapping[Any, Any]:
        """Return the record's own fields: the properties of a track, the traits of the others."""
        exact = record.fields.get("properties" if kind == "track" else "traits")
        if isinstance(exact, Mapping):
            return exact
        own = self.plumbing.own_fields(record.fields)
        for key in used:
            own.pop(key, None)
        if kind != "track":
            # A request id or a path that surrounds the call does not describe
            # a person. Identity tells what was merged in from what was said:
            # merging hands on the very object.
            for key, value in record.context().items():
                if key in own and own[key] is value:
                    del own[key]
        return own


def _time_of(record: Record) -> float:
    moment = parse_time(record.fields.get("timestamp"))
    return record.created if moment is None else moment


def _kind(tag: Mapping[Any, Any]) -> str:
    """Return the type that a mapping *tag* asks for, once its keys are known to be right."""
    for key in tag:
        if key not in _MAPPING_KEYS:
            shown = str(key)[:64]
            near = nearest(shown, _MAPPING_KEYS)
            fix = f"did you mean {near}?" if near else "put it under 'properties' or 'traits'"
            # Echoed only where it is nearly a key: it may be an event's content.
            what = (
                f"the tag has a key {shown!r}" if near else "the tag has a key that it cannot have"
            )
            raise InvalidEventError("unknown_key", what, fix)
    kind = tag.get("type")
    if kind is None:
        return "track"
    if isinstance(kind, str) and _text(kind) in ("track", "identify", "group"):
        return _text(kind)
    raise InvalidEventError(
        "unknown_type",
        "the tag's type is none that there is",
        "give 'track', 'identify' or 'group'",
    )


def normalize(event: Event, *, default_time: float) -> Event:
    """
    Return *event* with its ids as strings, its name checked and its time in seconds.

    Args:
        event: As the application made it.
        default_time: When it happened if it does not say, in seconds since the
            epoch. If that is no time either, the event has none.

    Raises:
        InvalidEventError: If it cannot be one.
    """
    user = identifier(event.user_id, "user")
    moment = parse_time(default_time if event.timestamp is None else event.timestamp)
    if moment is None and event.timestamp is not None:
        raise InvalidEventError(
            "invalid_timestamp",
            "the timestamp is not a time",
            "give a datetime, seconds since the epoch, or ISO 8601 text",
        )
    if isinstance(event, Track):
        return Track(user, _name(event.event), _mapping(event.properties, "properties"), moment)
    traits = _mapping(event.traits, "traits")
    if isinstance(event, Identify):
        return Identify(user, traits, moment)
    return Group(identifier(event.group_id, "group"), user, traits, moment)


def identifier(value: object, what: str) -> str:
    """
    Return an id as the string that it travels as.

    Args:
        value: A string, an integer or a UUID.
        what: ``user`` or ``group``, for the message.

    Raises:
        InvalidEventError: If it is none of these, empty, or longer than `LONGEST_ID` characters.
    """
    if type(value) is str:
        text = value
    elif value is None:
        text = ""
    elif isinstance(value, (str, UUID)):
        text = _text(value)
    else:
        text = _digits(value, what)
    if not text or text.isspace():
        raise InvalidEventError(
            f"invalid_{what}_id",
            f"the {what} id is empty",
            "give a non-empty string, an integer or a UUID",
        )
    if len(text) > LONGEST_ID or not _encodes(text):
        raise InvalidEventError(
            f"invalid_{what}_id",
            f"the {what} id is longer than {LONGEST_ID} characters or not valid text",
            "give the id alone",
        )
    return text


def _digits(value: object, what: str) -> str:
    # Not everything with an __index__ is an integer: a Mock has one.
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidEventError(
            f"invalid_{what}_id",
            f"the {what} id is of type {type(value).__name__}",
            "give a non-empty string, an integer or a UUID",
        )
    number = operator.index(value)  # numpy's integers answer
    # 64-bit keys and the integers of UUIDs are well within; more is no id, and
    # Python refuses to write out the digits of really large ones.
    return str(number) if number.bit_length() <= 1024 else "9" * (LONGEST_ID + 1)


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _name(value: object) -> str:
    text = "" if _is_data(value) else _text(value)
    if not text or text.isspace():
        raise InvalidEventError(
            "missing_event_name",
            "the event has no name",
            "give a name, log a message, or tag the line with the event's name",
        )
    return text


def _is_data(value: object) -> bool:
    """
    Return whether *value* has no text of its own: what would be one may show what is secret.

    As a dict or a list that was logged; or an object, a dataclass for example, whose
    text is what `repr` shows of it.
    """
    if isinstance(value, (Mapping, AbstractSet, list, tuple)):
        return True
    kind = type(value)
    return kind.__str__ is object.__str__ and not isinstance(value, (int, float))


def _text(value: object) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # Of a subclass, such as an Enum of names, the text that it holds.
    if issubclass(type(value), str):
        return str.__str__(value)
    return "" if value is None else str.__str__(str(value))


def _mapping(value: object, what: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidEventError(
            f"invalid_{what}",
            f"the {what} are of type {type(value).__name__}",
            "give a mapping",
        )
    return value
