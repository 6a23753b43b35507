"""The structlog entrance: a processor that lets every event dict pass, and captures the tagged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from userlens_instrument._core.extract import LONGEST_ID, Plumbing, Reader, Record
from userlens_instrument._core.once import token_of
from userlens_instrument._core.rulefile import LEVELS
from userlens_instrument._core.rules import Line
from userlens_instrument._core.shape import FLAT, flat_id, is_stamp
from userlens_instrument._core.times import parse_time
from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.rulebook import books
from userlens_instrument._delivery.threads import is_own_thread, own_thread
from userlens_instrument.client import (
    Client,
    Road,
    book_of_environment,
    call_site,
    check_client,
    default_client,
    registry,
    structlog_context,
    unreadable,
)


if TYPE_CHECKING:
    from userlens_instrument._core.rules import Match, Ruleset
    from userlens_instrument._delivery.rulebook import Book
    from userlens_instrument.exceptions import InvalidEventError
    from userlens_instrument.settings import Settings


TAG = "userlens_event"

# What structlog itself, and its own processors, put beside the fields of a
# call. A field "name" is data here: only the call-site names below are shared
# with a LogRecord, and some of them an application may well use itself.
PLUMBING = Plumbing(
    frozenset(
        {
            "event",
            "level",
            "level_number",
            "logger",
            "timestamp",
            "exc_info",
            "exception",
            "stack",
            "stack_info",
            "stacklevel",
            "positional_args",
        }
    ),
    callsite=frozenset({"filename", "module", "process", "thread"}),
    names_of_callsite=frozenset(
        {
            "func_name",
            "lineno",
            "pathname",
            "process_name",
            "qual_module",
            "qual_name",
            "task_name",
            "thread_name",
        }
    ),
)

# Of a record: read off a real one, so that a name that a later Python adds is
# known; and the three that are there only at times: after formatting, and from
# 3.12 on.
_RECORD_NAMES = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "asctime",
    "message",
    "taskName",
}
RECORD_PLUMBING = Plumbing(_RECORD_NAMES | {"level", "logger", "timestamp"})

# A line within a ProcessorFormatter may be a handler's, too.
_NEVER = frozenset({"_record"})

_wall = SystemClock.wall


class UserlensProcessor:
    """
    Turn tagged event dicts, and those that a rule means, into events; hand on every one as it is.

    Put it after ``merge_contextvars`` and before anything that renders. It
    returns the very object that it was given, whatever its type, and never
    raises an `Exception`.

    Args:
        client: Where to; the default client, found at the first event, if absent.
        tag: Name of the field that tags a line.
        keep_tag: Whether the tag stays on the event dict and is rendered; only
            beside a message of two or more characters, which marks it as captured.

    Raises:
        SettingsError: If *client* is none, or a setting of the environment is wrong.
        RulesError: If the rules that the environment names are.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self, client: Client | None = None, *, tag: str = TAG, keep_tag: bool = False
    ) -> None:
        """Take over the options; start nothing."""
        check_client(client)
        self._client = client
        self._tag = tag
        self._keep_tag = keep_tag
        self._reader: tuple[Client | None, Reader | None] = (None, None)
        self._road: Road | None = None
        self._book: tuple[Client | None, Book | None] = (None, self._find_book(client))

    def __repr__(self) -> str:
        """Show the options."""
        return f"UserlensProcessor(client={self._client!r}, tag={self._tag!r})"

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:
        """Capture *event_dict* if it is tagged or a rule means it, and return it."""
        # One lookup decides for the untagged, if there are no rules. After a
        # renderer it is a str, bytes or a tuple, which we only hand on; before,
        # it is whatever structlog's context_class makes, and dict by default.
        try:
            if type(event_dict) is dict:
                if self._tag in event_dict:
                    if not self._take(event_dict):
                        self._capture(event_dict)
                elif books:
                    self._go_by_rules(logger, method_name, event_dict)
            elif isinstance(event_dict, MutableMapping):
                if self._tag in event_dict:
                    self._capture(event_dict)
                elif books:
                    self._go_by_rules(logger, method_name, event_dict)
        except Exception as error:
            unreadable(self._find_client, error, call_site)
        return event_dict

    def _take(self, event_dict: dict[str, Any]) -> bool:  # noqa: C901 - a call costs, a branch does not
        """
        Take the common line in one pass: a track of a known shape, all of its values flat.

        Returns:
            Whether it was taken. If not, nothing has happened yet.
        """
        road = self._road
        if road is None or road.client is not (self._client or registry.default):
            return False
        shapes = road.shapes
        shape = shapes.known.get(tuple(event_dict))
        name = event_dict.get("event")
        if (
            not shape
            or event_dict[self._tag] is not True
            or type(name) is not str
            or name not in shapes.events
            or own_thread.ours
            or road.once.marks
            or (books and self._may_match(name))
        ):
            return False
        user = event_dict[shape.user]
        # As `flat_id` has it for the most common kind, without the call.
        if (
            type(user) is not str
            or not user.isascii()
            or user.isspace()
            or not 0 < len(user) <= LONGEST_ID
        ):
            user = flat_id(user)
        when: Any = _wall() if shapes.sends_time else None
        if shape.timed and when is not None:
            stamp = event_dict["timestamp"]
            if not is_stamp(stamp):
                return False
            when = (stamp, when)
        properties = event_dict.copy()
        for other in shape.others:
            del properties[other]
        if user is None or not FLAT.issuperset(map(type, properties.values())):
            return False
        try:
            data = road.encode(properties)[1:-1]  # a copy, see `compact`
        except (TypeError, ValueError):
            return False
        sender = road.sender
        buffer = sender.buffer
        if len(data) > shapes.most or len(buffer.inbox) >= buffer.room:
            return False
        del event_dict[self._tag]
        buffer.put((user, name, data, when))
        if sender.call:
            sender.ring()
        return True

    @property
    def settings(self) -> Settings | None:
        """Those of its client; None for those of the default client."""
        return None if self._client is None else self._client.settings

    def _find_client(self) -> Client:
        return self._client or default_client()

    def _capture(self, event_dict: MutableMapping[str, Any]) -> None:
        tag = event_dict[self._tag]
        names = tuple(event_dict) if tag is True and not self._keep_tag else None
        if not self._keep_tag:
            del event_dict[self._tag]
        if tag is None or tag is False:
            return
        client = self._find_client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return
        # Within a ProcessorFormatter: the stdlib record, or a copy of it.
        record: logging.LogRecord | None = event_dict.get("_record")
        if not self._first(client, event_dict, record):
            client.sender.ledger.count("duplicates")
            return
        text = text_of(event_dict)
        fields: Mapping[str, Any] = event_dict
        if self._keep_tag:
            fields = {name: event_dict[name] for name in event_dict if name != self._tag}
        found = Record(
            fields=fields, message=text, created=_time_of(record), context=structlog_context
        )
        reader = self._reader_for(client)
        client.capture(reader, tag, found, call_site)
        if names is not None:
            road = self._road
            if road is None or road.client is not client:
                # Swapped whole, for the threads that share this processor.
                road = self._road = client.road(reader, tag=self._tag, text="event", never=_NEVER)
            if road is not None:
                road.shapes.learn(names, text)

    def _first(self, client: Client, event_dict: MutableMapping[str, Any], record: Any) -> bool:
        """Return whether no other entrance has had this record, and note that we had it."""
        once = client.once
        if once.has_seen(event_dict.get("event")):
            return False  # an event dict of ours, tag kept, in a second processor
        if record is not None and not once.claim(token_of(record)):
            return False
        if self._keep_tag:
            # The tag travels on to handlers.
            if mark(client, event_dict):
                once.marks = True
            else:
                # A tag without a mark would be an event twice.
                del event_dict[self._tag]
        elif books and self._may_match(event_dict.get("event")):
            mark(client, event_dict)
        return True

    # ------------------------------------------------------------ rules

    def _rules(self) -> Ruleset | None:
        """Return the rules to go by; without a client yet, those that the environment names."""
        known, book = self._book
        client = self._client or registry.default
        if known is not client:
            # One tuple, swapped whole: threads share this processor.
            self._book = (client, book := self._find_book(client))
        if book is None:
            return None
        if book.reloads:
            book.look(_wall())
        return book.rules

    @staticmethod
    def _find_book(client: Client | None) -> Book | None:
        return book_of_environment() if client is None else client.book

    def _may_match(self, text: object) -> bool:
        """Return whether a rule may mean a line of *text* at another entrance."""
        rules = self._rules()
        return rules is not None and (
            rules.others is not None or (type(text) is str and text in rules.messages)
        )

    def _go_by_rules(
        self,
        logger: Any,
        method_name: str,
        event_dict: MutableMapping[str, Any],
        said: tuple[object, tuple[object, ...]] | None = None,
    ) -> bool:
        """
        Capture an event dict without a tag if a rule means it.

        Args:
            logger: What structlog wraps.
            method_name: Of the logger.
            event_dict: The line; its text is replaced by an equal one if it was captured.
            said: The text before formatting and its positional arguments, where the
                event dict has lost them.

        Returns:
            Whether it was captured now.
        """
        rules = self._rules()
        if rules is None:
            return False
        text = event_dict.get("event")
        if text is None:
            text = text_of(event_dict)
        name = event_dict.get("logger")
        record = event_dict.get("_record")
        if record is not None:
            # Within a ProcessorFormatter. What it has formatted, arguments gone,
            # is left to a handler: a template's values are not here.
            name = record.name
        elif type(name) is not str:
            name = _name_of(logger)
        message = text if said is None else said[0]
        # Two lookups decide for the others.
        if (type(message) is not str or message not in rules.messages) and (
            rules.others is None or not rules.others[name]
        ):
            return False
        args = event_dict.get("positional_args") if said is None else said[1]
        line = Line(
            name,
            _level_of(method_name, event_dict),
            message,
            args if isinstance(args, tuple) else (),
            get_text=lambda: _formatted(text, event_dict.get("positional_args")),
            get_fields=lambda: _fields_of(event_dict, record),
            context=structlog_context,
        )
        matches = rules.match(line)
        return bool(matches) and self._capture_matches(matches, line, event_dict)

    def _capture_matches(
        self,
        matches: list[Match | InvalidEventError],
        line: Line,
        event_dict: MutableMapping[str, Any],
    ) -> bool:
        client = self._find_client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return False
        record: logging.LogRecord | None = event_dict.get("_record")
        once = client.once
        if once.has_seen(text_of(event_dict)) or not (
            record is None or once.claim(token_of(record))
        ):
            client.sender.ledger.count("duplicates")
            return False
        found = Record(
            fields=line.fields,
            message=line.message,
            created=_time_of(record),
            context=structlog_context,
        )
        client.capture_matches(self._reader_for(client), matches, found, call_site)
        mark(client, event_dict)
        return True

    def _reader_for(self, client: Client) -> Reader:
        known, reader = self._reader
        if known is not client or reader is None:
            reader = client.reader(PLUMBING)
            # One tuple, swapped whole: threads share this processor.
            self._reader = (client, reader)
        return reader


# Where the text of a line is; EventRenamer may have put it elsewhere.
_TEXT_KEYS = ("event", "message", "msg")


def text_of(said: object) -> object:
    """Return the text of what was logged: of an event dict its event, else *said* itself."""
    if isinstance(said, Mapping):
        for key in _TEXT_KEYS:
            if said.get(key) is not None:
                return said[key]
        return None
    return said


def _fields_of(event_dict: Mapping[str, Any], record: Any) -> Mapping[Any, Any]:
    """Return everything on a line; of a stdlib record in a formatter, its extra as well."""
    if record is None or event_dict.get("_from_structlog"):
        return event_dict
    return {**RECORD_PLUMBING.own_fields(vars(record)), **event_dict}


def mark(client: Client, event_dict: MutableMapping[str, Any]) -> bool:
    """
    Tell later entrances that this line has been captured, and return whether that is possible.

    An equal but new text in the place of the event tells it, in every copy and
    through every bridge, and prints the same. The interpreter shares texts of
    one character.
    """
    for key in _TEXT_KEYS:
        text = event_dict.get(key)
        if type(text) is str and len(text) > 1:
            event_dict[key] = fresh = (text + " ")[:-1]
            client.once.claim(fresh)
            return True
        if text is not None:
            break
    return False


def _time_of(record: logging.LogRecord | None) -> float:
    created = parse_time(getattr(record, "created", None))
    return _wall() if created is None else created


def _name_of(logger: object) -> str:
    """Return the name of a stdlib logger; structlog's own have none, unless a processor adds it."""
    name = getattr(logger, "name", None)
    return name if isinstance(name, str) else ""


def _level_of(method_name: str, event_dict: Mapping[str, Any]) -> int:
    """Return the number of the level; of a method of the application's own, what it has added."""
    level = _LEVELS.get(method_name)
    if level is None:
        level = event_dict.get("level_number")
    if not isinstance(level, int):
        level = _LEVELS.get(str(event_dict.get("level")).lower(), LEVELS["INFO"])
    return level


_LEVELS = {name.lower(): level for name, level in LEVELS.items()} | {"exception": LEVELS["ERROR"]}


def _formatted(text: object, args: object) -> str:
    """Return the text as PositionalArgumentsFormatter will; without arguments it is left alone."""
    if isinstance(text, str) and args:
        try:
            return text % args
        except Exception:
            return text
    return str(text)
