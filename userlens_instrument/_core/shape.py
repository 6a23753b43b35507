"""
What the names of a line's fields imply, worked out once for each shape of line.

A program logs from few places, and a place's fields have the same names each
time. Which of them is the user, which are plumbing, whether one may be a
secret: that is decided when a shape is first seen, by the same code that reads
every other line. A line of a known shape with flat values is then a track in
one pass, with the same bytes.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from userlens_instrument._core.extract import LONGEST_ID, LONGEST_NAME
from userlens_instrument._core.redact import compile_redactor


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from userlens_instrument._core.extract import Reader
    from userlens_instrument.settings import Settings


# Names of fields and of events come from source code; a program that makes
# them up gets the long way rather than all the memory.
_MOST_SHAPES = 1_024
_MOST_NAMES = 4_096
_MOST_FIELDS = 256
_LONGEST_FIELD = 256

# Most bytes of properties: then no text in it is longer than `max_string`
# allows, and the payload is a light one, see `LIGHT` of the buffer.
_MOST_DATA = 4_096
# What a body may have beside them: an escaped character is six bytes.
_MOST_FRAME = 6 * (LONGEST_ID + LONGEST_NAME) + 256

#: What is JSON as it is, and cannot change any more.
FLAT: frozenset[type] = frozenset({str, int, float, bool, type(None)})
# ISO 8601 with nanoseconds and a name of a time zone is shorter.
_LONGEST_STAMP = 64
# Python's own limits on integers are far away.
_MOST_INT = 2**63


class Shape:
    """
    The names of the fields of a line.

    Attributes:
        user: The one that holds the user id.
        timed: Whether there is a ``timestamp``.
        names: The properties.
        values: Returns the values of these.
        others: All that is no property.
    """

    __slots__ = ("names", "others", "timed", "user", "values")

    def __init__(self, fields: tuple[str, ...], names: tuple[str, ...], user: str) -> None:
        self.user = user
        self.timed = "timestamp" in fields
        self.names = names
        self.values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = _getter(names)
        self.others = tuple(name for name in fields if name not in names)


def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    # An itemgetter of one name returns no tuple.
    return lambda fields: tuple(fields[name] for name in names)


class Shapes:
    """
    The shapes of the lines of one entrance, for one client.

    Args:
        reader: How the entrance reads.
        settings: The client's.
        tag: The field that tags a line.
        text: The field that names the event.
        never: Fields that take a line the long way, because their values decide.

    Attributes:
        known: A `Shape` for each tuple of names; False for those that go the long way.
        events: Names of events that are right.
        loggers: Names of loggers whose lines need no closer look.
        most: Most bytes of properties.
        sends_time: Whether a track carries its time.
    """

    __slots__ = (
        "_is_secret",
        "_longest_name",
        "_most_properties",
        "_needed",
        "_never",
        "_reader",
        "_tag",
        "_usable",
        "events",
        "known",
        "loggers",
        "most",
        "sends_time",
    )

    def __init__(
        self, reader: Reader, settings: Settings, *, tag: str, text: str, never: frozenset[str]
    ) -> None:
        """Know no shape yet."""
        self._reader = reader
        self._tag = tag
        self._needed = {tag, text}
        self._never = never | {"properties"}
        self._is_secret = compile_redactor(settings.redact)
        self._longest_name = min(LONGEST_NAME, settings.max_string)
        self._most_properties = settings.max_properties
        self._usable = settings.allow is None
        self.known: dict[tuple[Any, ...], Shape | Literal[False]] = {}
        self.events: set[str] = set()
        self.loggers: set[str] = set()
        self.most = min(_MOST_DATA, settings.max_string, settings.max_body_bytes - _MOST_FRAME)
        self.sends_time = settings.send_timestamp

    def learn(self, fields: tuple[Any, ...], text: object) -> None:
        """
        Take note of a line that made an event the long way.

        Args:
            fields: The names of its fields, the tag's among them.
            text: What named the event.
        """
        if fields not in self.known and len(self.known) < _MOST_SHAPES:
            self.known[fields] = self._shape(fields) or False
        if type(text) is str and len(self.events) < _MOST_NAMES and self._is_name(text):
            self.events.add(text)

    def learn_logger(self, name: str) -> None:
        """Take note of a logger whose lines need no closer look."""
        if len(self.loggers) < _MOST_NAMES:
            self.loggers.add(name)

    def _shape(self, fields: tuple[Any, ...]) -> Shape | None:
        if not self._usable or len(fields) > _MOST_FIELDS or not self._needed.issubset(fields):
            return None
        if not self._never.isdisjoint(fields) or not all(map(_is_plain, fields)):
            return None
        user = next((key for key in self._reader.user_id_keys if key in fields), None)
        own = self._reader.plumbing.own_fields(dict.fromkeys(fields))
        names = tuple(name for name in own if name not in (user, self._tag))
        if user is None or len(names) > self._most_properties or any(map(self._is_secret, names)):
            return None
        return Shape(fields, names, user)

    def _is_name(self, text: str) -> bool:
        return (
            text.isascii()
            and len(text) <= self._longest_name
            and not (text.isspace() or text == "")
        )


def _is_plain(name: object) -> bool:
    return type(name) is str and len(name) <= _LONGEST_FIELD


def flat_id(value: object) -> str | None:
    """Return the id that *value* is at a glance, or None: it needs a closer look."""
    if type(value) is str:
        if 0 < len(value) <= LONGEST_ID and value.isascii() and not value.isspace():
            return value
    elif type(value) is int and 0 <= value < _MOST_INT:
        return str(value)
    return None


def is_stamp(value: object) -> bool:
    """Return whether *value* may wait to be read as a time: it is small, and cannot change."""
    return type(value) is float or (type(value) is str and len(value) <= _LONGEST_STAMP)
