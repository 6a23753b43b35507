"""The logging entrance: a handler that captures tagged records, and never waits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from userlens_instrument import processors
from userlens_instrument._core.extract import LONGEST_ID, Plumbing, Reader, Record
from userlens_instrument._core.loguru_line import (
    is_bridged,
    record_of,
    said_of,
    template_of,
    token_of_line,
)
from userlens_instrument._core.once import token_of
from userlens_instrument._core.rules import Line
from userlens_instrument._core.shape import FLAT, flat_id, is_stamp
from userlens_instrument._delivery.rulebook import books, shared_book
from userlens_instrument._delivery.threads import is_own_thread, own_thread
from userlens_instrument.client import (
    Client,
    Road,
    book_of_environment,
    check_client,
    default_client,
    registry,
    shared_client,
    structlog_context,
    unreadable,
)
from userlens_instrument.settings import Settings


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument._core.loguru_line import Said
    from userlens_instrument._core.rules import Match, Ruleset
    from userlens_instrument._delivery.rulebook import Book
    from userlens_instrument.exceptions import InvalidEventError


TAG = processors.TAG

PLUMBING = processors.RECORD_PLUMBING

# loguru's ``extra`` is all the application's own; but a time is a time.
_LOGURU_PLUMBING = Plumbing(frozenset({"timestamp"}))

# Records of these are ours, or of what we send with. By prefix: urllib3 logs
# under names such as urllib3.util.retry, too.
_OWN = ("urllib3", "userlens_instrument")
# Celery and Django put objects of theirs beside their own lines, see `_from_extra`.
_SPECIAL = (*_OWN, "celery", "django")
# A field of this name may be a request object: its value decides.
_NEVER = frozenset({"request"})


def is_own_logger(name: str) -> bool:
    """Return whether the records of a logger are ours, or of what we send with: never events."""
    return name.startswith(_OWN)


class UserlensHandler(logging.Handler):
    """
    Turn tagged log records, and those that a rule means, into Userlens events.

    It takes no lock, does nothing but append to a buffer, and neither
    `flush` nor `close` waits: ``dictConfig`` calls both while it holds the
    lock that every logger needs.

    Args:
        level: As of any handler; a number or a name.
        client: Where to; by *settings*, or the default client, if absent.
        tag: Name of the attribute (``extra={"userlens_event": …}``) that tags a record.
        **settings: See `Settings`. With any, the handler has the client of this
            process for these settings, and not the default one.

    Raises:
        SettingsError: If a setting is unknown or wrong.
        RulesError: If the rules are wrong, or cannot be read.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        *,
        client: Client | None = None,
        tag: str = TAG,
        **settings: Any,
    ) -> None:
        """Check the settings; start nothing."""
        super().__init__(level)
        if not settings:
            check_client(client)
        self._given = client
        self._own: Client | None = None
        self._settings = Settings.load(settings) if settings else None
        self._tag = tag
        self._reader: tuple[Client | None, Reader | None] = (None, None)
        self._road: Road | None = None
        self._book: tuple[Client | None, Book | None] = (None, self._find_book(client))
        # Unless a subclass has a mind of its own.
        self._filters_nothing = type(self).filter is logging.Handler.filter

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Have no lock: nothing needs one, and at exit logging holds it while it flushes."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter *record*, and capture it if it is tagged."""
        if self._filters_nothing and not self.filters:
            self.emit(record)
            return True
        result: object = self.filter(record)
        if isinstance(result, logging.LogRecord):  # a filter may replace it, from 3.12 on
            record = result
        if result:
            self.emit(record)
        return result

    def emit(self, record: logging.LogRecord) -> None:
        """Capture *record* if it is tagged. Never raises an `Exception`, never writes on it."""
        try:
            fields = record.__dict__
            if self._tag in fields:
                if not self._take(fields):
                    self._capture(fields[self._tag], record)
            elif "extra" in fields and (loguru := record_of(fields["extra"])) is not None:
                self.take_loguru(loguru)
            elif type(fields["msg"]) is str and type(fields["args"]) is tuple:
                if books:
                    self._go_by_rules(fields["msg"], record)
            elif not self._look_deeper(record) and books:
                self._go_by_rules(processors.text_of(fields["msg"]), record)
        except Exception as error:
            unreadable(self._client, error, _site(record))

    def _take(self, fields: dict[str, Any]) -> bool:  # noqa: C901 - a call costs, a branch does not
        """
        Take the common line in one pass: a track of a known shape, all of its values flat.

        Args:
            fields: The record's own dict, of which nothing is changed.

        Returns:
            Whether it was taken. If not, nothing has happened yet.
        """
        road = self._road
        if road is None or road.client is not (self._given or self._own or registry.default):
            return False
        shapes = road.shapes
        shape = shapes.known.get(tuple(fields))
        name = fields["msg"]
        if (
            not shape
            or fields[self._tag] is not True
            or type(name) is not str
            or name not in shapes.events
            or type(fields["args"]) is not tuple
            or fields["name"] not in shapes.loggers
            or own_thread.ours
            or road.once.marks
        ):
            return False
        user = fields[shape.user]
        # As `flat_id` has it for the most common kind, without the call.
        if (
            type(user) is not str
            or not user.isascii()
            or user.isspace()
            or not 0 < len(user) <= LONGEST_ID
        ):
            user = flat_id(user)
        values = shape.values(fields)
        when: Any = fields["created"]
        if user is None or not FLAT.issuperset(map(type, values)) or type(when) is not float:
            return False
        if shape.timed:
            if not is_stamp(fields["timestamp"]):
                return False
            when = (fields["timestamp"], when)
        try:
            # Without `strict`, which would cost a tenth of it: there are as many.
            properties = dict(zip(shape.names, values))  # noqa: B905
            data = road.encode(properties)[1:-1]  # a copy, see `compact`
        except (TypeError, ValueError):
            return False
        sender = road.sender
        buffer = sender.buffer
        if len(data) > shapes.most or len(buffer.inbox) >= buffer.room:
            return False
        token = fields["relativeCreated"]
        if type(token) is not float:  # see `token_of`
            return False
        if not road.once.claim(token):
            sender.ledger.count("duplicates")
            return True
        buffer.put((user, name, data, when if shapes.sends_time else None))
        if sender.call:
            sender.ring()
        return True

    def _look_deeper(self, record: logging.LogRecord) -> bool:
        """
        Capture a record whose tag is in a dict: structlog's in ``msg``, or the lone argument.

        Returns:
            Whether there is a tag.
        """
        for place in (record.msg, record.args):
            if isinstance(place, Mapping) and self._tag in place:
                self._capture(place[self._tag], record)
                return True
        return False

    def _capture(self, tag: object, record: logging.LogRecord) -> None:
        name = record.name or ""  # makeLogRecord() leaves it out
        if tag is None or tag is False or name.startswith(_OWN):
            return
        message = processors.text_of(record.msg)
        client = self._first(message, record)
        if client is None:
            return
        plumbing, fields = self._fields_of(record)
        fields.pop(self._tag, None)
        found = Record(
            fields=fields, message=message, created=record.created, context=structlog_context
        )
        reader = self._reader_for(client, plumbing)
        client.capture(reader, tag, found, _site(record))
        if tag is True and plumbing is PLUMBING:
            self._learn(client, reader, record)

    def _first(self, message: object, record: logging.LogRecord) -> Client | None:
        """Return the client that is to have *record*; None if it has had it, or must not."""
        client = self._client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return None
        once = client.once
        # Claimed in any case: a copy of the record may come without what was seen.
        is_first = once.claim(token_of(record))
        if not is_first or once.has_seen(message):
            client.sender.ledger.count("duplicates")
            return None
        return client

    def _go_by_rules(self, message: object, record: logging.LogRecord) -> None:
        """Capture a record without a tag if a rule means it."""
        known, book = self._book
        client = self._given or self._own or registry.default
        if known is not client:
            # One tuple, swapped whole: threads share this handler.
            self._book = (client, book := self._find_book(client))
        if book is None:
            return
        if book.reloads:
            book.look(record.created)
        rules = book.rules
        # Two lookups decide for the others.
        if (type(message) is str and message in rules.messages) or (
            rules.others is not None and rules.others[record.name]
        ):
            self._capture_matches(rules, message, record)

    def _capture_matches(self, rules: Ruleset, message: object, record: logging.LogRecord) -> None:
        name = record.name or ""
        if name.startswith(_OWN):
            return
        args = record.args if isinstance(record.args, tuple) else ()
        line = Line(
            name,
            record.levelno or 0,  # makeLogRecord() leaves it out
            message,
            args,
            get_text=lambda: _formatted(message, record),
            get_fields=lambda: self._fields_of(record)[1],
            context=structlog_context,
        )
        matches = rules.match(line)
        client = self._first(message, record) if matches else None
        if client is None:
            return
        found = Record(
            fields=line.fields, message=message, created=record.created, context=structlog_context
        )
        plumbing = processors.PLUMBING if isinstance(record.msg, Mapping) else PLUMBING
        client.capture_matches(self._reader_for(client, plumbing), matches, found, _site(record))

    # ------------------------------------------------------------ loguru

    def take_loguru(self, record: dict[str, Any]) -> None:
        """
        Capture a record of loguru's if it is tagged, or if a rule means it.

        Args:
            record: As loguru hands it to its sinks, and within what it makes of it for `logging`.
        """
        extra: dict[Any, Any] = record["extra"]
        if not self._may_concern(record):
            return
        said = said_of(record)
        logger, level = record["name"] or "", record["level"].no  # exec() may have no name
        plumbing, fields = _LOGURU_PLUMBING, extra.copy()
        if said.origin is not None and not said.is_changed:
            # As it was logged: a bridge hands on no more than the text.
            logger, level = said.origin.name or "", said.origin.levelno
            plumbing, logged = self._fields_of(said.origin)
            fields = _less(logged, said.hidden) | extra
            args = said.origin.args
            said = said._replace(
                message=processors.text_of(said.origin.msg),
                args=args if isinstance(args, tuple) else (),
            )
        if logger.startswith(_OWN):
            return
        created: float = record["time"].timestamp()

        def context() -> dict[str, Any]:
            return {**structlog_context(), **said.surroundings}

        matches: list[Match | InvalidEventError] = []
        is_tagged = self._tag in fields
        tag = fields.pop(self._tag, None)
        if not is_tagged:
            line = Line(
                logger,
                level,
                said.message,
                said.args,
                get_text=lambda: record["message"],
                # What is not captured is no property, unless a rule asks for it.
                get_fields=lambda: {**said.kwargs, **fields},
                context=context,
            )
            matches = self._matches(line, created)
        if not matches and (tag is None or tag is False):
            return
        client = self._first_of_loguru(record, said)
        if client is None:
            return
        found = Record(fields=fields, message=said.message, created=created, context=context)
        reader = self._reader_for(client, plumbing)

        def site() -> str:
            return f"{record['file'].path}:{record['line']}"

        if is_tagged:
            client.capture(reader, tag, found, site)
        else:
            client.capture_matches(reader, matches, found, site)

    def _first_of_loguru(self, record: dict[str, Any], said: Said) -> Client | None:
        """Return the client that is to have a line; None if it has had it, or must not."""
        client = self._client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return None
        once, origin = client.once, said.origin
        is_first = once.claim(token_of_line(record, said))
        if origin is not None:
            # As `_first` knows it, and claimed in any case.
            is_first = once.claim(token_of(origin)) and is_first
            is_first = is_first and not once.has_seen(processors.text_of(origin.msg))
        if not is_first:
            client.sender.ledger.count("duplicates")
            return None
        return client

    def _may_concern(self, record: dict[str, Any]) -> bool:
        """Return whether *record* is tagged or bridged, or a rule may mean it: a few lookups."""
        if self._tag in record["extra"] or is_bridged():
            return True
        rules = self._rules_at(record["time"].timestamp()) if books else None
        logger = record["name"] or ""
        return rules is not None and (
            rules.may_match(logger, record["message"])
            or rules.may_match(logger, template_of(record))
        )

    def _matches(self, line: Line, created: float) -> list[Match | InvalidEventError]:
        """Return what the rules find in *line*, which was logged at *created* (epoch seconds)."""
        rules = self._rules_at(created)
        if rules is None or not rules.may_match(line.logger, line.message):
            return []
        return rules.match(line)

    def _rules_at(self, created: float) -> Ruleset | None:
        """Return the rules for what was logged at *created* (epoch seconds)."""
        book = self._find_book(self._given or self._own or registry.default)
        if book is None:
            return None
        if book.reloads:
            book.look(created)
        return book.rules

    def _find_book(self, client: Client | None) -> Book | None:
        """Return the rules to go by; without a client yet, those that its settings will ask for."""
        if self._settings is not None:
            return shared_book(self._settings)
        return book_of_environment() if client is None else client.book

    def _learn(self, client: Client, reader: Reader, record: logging.LogRecord) -> None:
        """Take note of a line that has been read, for the short way."""
        road = self._road
        if road is None or road.client is not client:
            # Swapped whole, for the threads that share this handler.
            road = self._road = client.road(reader, tag=self._tag, text="msg", never=_NEVER)
        if road is not None:
            road.shapes.learn(tuple(record.__dict__), record.msg)
            if record.name and not record.name.startswith(_SPECIAL):
                road.shapes.learn_logger(record.name)

    def _fields_of(self, record: logging.LogRecord) -> tuple[Plumbing, dict[Any, Any]]:
        """Return everything on *record*, and what is plumbing there."""
        msg: object = record.msg
        if isinstance(msg, Mapping):
            return processors.PLUMBING, self._from_dict(msg, record)
        return PLUMBING, self._from_extra(record)

    @staticmethod
    def _from_dict(msg: Mapping[Any, Any], record: logging.LogRecord) -> dict[Any, Any]:
        """Read structlog's event dict, which `wrap_for_formatter` puts into ``msg``, and extra."""
        fields = dict(msg)
        for name, value in PLUMBING.own_fields(record.__dict__).items():
            fields.setdefault(name, value)
        return fields

    @staticmethod
    def _from_extra(record: logging.LogRecord) -> dict[Any, Any]:
        """Read extra, and the lone dict argument of ``log.info("%(rows)d rows", {"rows": 5})``."""
        fields = dict(record.__dict__)
        if isinstance(record.args, Mapping):
            for name, value in record.args.items():
                fields.setdefault(name, value)
        # Other people's objects: Celery puts a task's context under "data",
        # Django a request, and what becomes of it, beside its own lines.
        name = record.name or ""
        if name.startswith("celery"):
            fields.pop("data", None)
        if name.startswith("django"):
            for name in ("request", "server_time", "status_code"):
                fields.pop(name, None)
        elif not isinstance(fields.get("request"), (str, int, dict, type(None))):
            del fields["request"]
        return fields

    @property
    def settings(self) -> Settings | None:
        """Its own settings, or those of its client; None for those of the default client."""
        return self._settings if self._given is None else self._given.settings

    def _client(self) -> Client:
        if self._given is not None:
            return self._given
        if self._settings is None:
            return default_client()
        if self._own is None:
            # Two threads find the same one: it is shared.
            self._own = shared_client(self._settings)
        return self._own

    def _reader_for(self, client: Client, plumbing: Plumbing) -> Reader:
        known, reader = self._reader
        if known is not client or reader is None or reader.plumbing is not plumbing:
            reader = client.reader(plumbing)
            # One tuple, swapped whole: threads share this handler.
            self._reader = (client, reader)
        return reader

    def flush(self) -> None:
        """Do nothing: see `userlens_instrument.flush` for waiting."""

    def close(self) -> None:
        """
        Take the handler off logging's list; wait for nothing, lose nothing.

        The client goes on and delivers: a closed handler may still be attached
        (a ``dictConfig`` without ``root`` does that), and the exit has a hook of its own.
        """
        super().close()

    def __repr__(self) -> str:
        """Show level and client."""
        level = logging.getLevelName(self.level)
        return f"<UserlensHandler ({level}) tag={self._tag!r} client={self._given!r}>"


def _less(fields: dict[Any, Any], names: frozenset[str]) -> dict[Any, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _formatted(message: object, record: logging.LogRecord) -> str:
    """Return what is printed of *record*; logging itself says so if its arguments do not fit."""
    if isinstance(record.msg, Mapping):
        return str(message)
    try:
        return record.getMessage()
    except Exception:
        return str(message)


def _site(record: logging.LogRecord) -> Callable[[], str]:
    return lambda: f"{record.pathname}:{record.lineno}"
