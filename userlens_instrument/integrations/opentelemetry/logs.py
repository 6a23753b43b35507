"""The OpenTelemetry entrance: a log record processor that captures tagged log records."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from userlens_instrument import processors
from userlens_instrument._core.extract import Plumbing, Reader, Record
from userlens_instrument._core.once import token_of
from userlens_instrument._core.rulefile import LEVELS
from userlens_instrument._core.rules import Line
from userlens_instrument._delivery.lifecycle import is_in_exit_hook
from userlens_instrument._delivery.rulebook import books
from userlens_instrument._delivery.threads import is_own_thread
from userlens_instrument.client import call_site, registry, structlog_context, unreadable
from userlens_instrument.exceptions import InvalidEventError, MissingExtraError, UserlensError
from userlens_instrument.handlers import TAG, UserlensHandler, is_own_logger
from userlens_instrument.integrations.opentelemetry.origin import origin_of
from userlens_instrument.integrations.opentelemetry.restore import (
    hide_events,
    restored,
    shows_an_event,
)


if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk._logs import LogRecordProcessor

    from userlens_instrument._core.rules import Ruleset
    from userlens_instrument.client import Client
    from userlens_instrument.integrations.opentelemetry.origin import Origin
else:
    try:
        from opentelemetry.sdk._logs import LogRecordProcessor
    except ImportError:  # `UserlensLogRecordProcessor` says so
        LogRecordProcessor = object

__all__ = ["UserlensLogRecordProcessor"]

# What OpenTelemetry puts beside the attributes of a call: its semantic
# conventions keep these names for themselves.
_PREFIXES = ("code.", "exception.", "log.", "thread.")
_PLUMBING = Plumbing(frozenset({"timestamp"}))
# Where semantic conventions put the user.
_USER_ID = "user.id"
# What a template names of a mapping: ``%(rows)d``, but not ``%%(rows)d``.
_NAMED = re.compile(r"%(?:%|\(([^()]*)\))")


class _Said(NamedTuple):
    """
    What an OpenTelemetry log record says, apart from its attributes.

    Attributes:
        message: Its text before formatting, where that is known.
        body: Its body; what that was made of, where the body is still that.
        args: What was formatted into it, by position, where that is known.
        named: The same, by name.
        get_text: Returns its text.
    """

    message: object
    body: Any
    args: tuple[object, ...]
    named: Mapping[Any, Any]
    get_text: Callable[[], str]


class _Seen(NamedTuple):
    """
    An OpenTelemetry log record, as readers see it.

    Attributes:
        fields: Its attributes, less what is plumbing.
        message: Its text before formatting, where that is known.
        plumbing: What else is plumbing.
    """

    fields: dict[Any, Any]
    message: object
    plumbing: Plumbing


class _Way(UserlensHandler):
    """A handler that is attached nowhere: what an entrance knows of clients, rules and records."""

    def find_client(self) -> Client:
        """Return where to."""
        return self._client()

    def find_rules(self, created: float) -> Ruleset | None:
        """Return the rules to go by, as of *created*, in seconds since the epoch."""
        book = self._find_book(self._given or self._own or registry.default)
        if book is None:
            return None
        if book.reloads:
            book.look(created)
        return book.rules

    def names_hidden(self, record: logging.LogRecord) -> set[str]:
        """Return the names on *record* that are no fields: what others put beside their own."""
        return set(vars(record)).difference(self._fields_of(record)[1])


class UserlensLogRecordProcessor(LogRecordProcessor):
    """
    Turn OpenTelemetry's log records that are tagged, or that a rule means, into events.

    For ``LoggerProvider.add_log_record_processor``. It changes nothing on a
    record, and neither blocks nor raises in `on_emit`. What a handler or a
    processor of ours has had is not sent again, nor what comes to them after.

    Args:
        client: Where to; by *settings*, or the default client, if absent.
        tag: Name of the attribute that tags a record.
        **settings: See `Settings`. With any, it has the client of this process
            for these settings, and not the default one.

    Raises:
        MissingExtraError: If ``opentelemetry-sdk`` is not installed.
        UserlensError: If the one that is has no log record processors as known here.
        SettingsError: If a setting is unknown or wrong.
        RulesError: If the rules are wrong, or cannot be read.

    .. versionadded:: 0.1.0
    """

    def __init__(self, client: Client | None = None, *, tag: str = TAG, **settings: Any) -> None:
        """Check the settings; start nothing."""
        if LogRecordProcessor is object:
            raise _missing()
        self._tag = tag
        self._way = _Way(client=client, tag=tag, **settings)
        self._readers: tuple[Client | None, dict[int, Reader]] = (None, {})

    def __repr__(self) -> str:
        """Show the options."""
        return f"UserlensLogRecordProcessor(client={self._way.settings!r}, tag={self._tag!r})"

    def on_emit(self, log_record: Any) -> None:
        """
        Capture *log_record* if it is tagged or a rule means it. Never raises an `Exception`.

        Args:
            log_record: What the SDK hands over: a log record and its instrumentation scope.
        """
        try:
            inner = log_record.log_record
            attributes = inner.attributes or {}
            # structlog's dict in ``msg`` comes with a ``_name``, and as text.
            if (
                self._tag in attributes
                or books
                or "_name" in attributes
                or (isinstance(inner.body, Mapping) and self._tag in inner.body)
            ):
                scope = getattr(log_record.instrumentation_scope, "name", None) or ""
                self._look_at(inner, attributes, scope)
        except Exception as error:
            unreadable(self._way.find_client, error, call_site)

    # Before 1.35.
    emit = on_emit

    def _look_at(self, log_record: Any, attributes: Mapping[str, Any], scope: str) -> None:
        if is_own_logger(scope):
            return
        origin = origin_of(log_record)
        said = _said(log_record, origin)

        def see() -> _Seen:
            return self._read(attributes, said, origin)

        body: Any = said.body if isinstance(said.body, Mapping) else {}
        if self._tag in attributes or self._tag in body or self._tag in said.named:
            seen = see()
            # None: a tag by one of the names that are left out is no tag.
            tag = seen.fields.pop(self._tag, None)
            if tag is not None and tag is not False:
                self._capture(tag, seen, log_record, origin, _site(attributes, origin))
            return
        rules = self._way.find_rules(_time_of(log_record)) if books else None
        if rules is None or not rules.may_match(scope, said.message):
            return
        seen = see()
        line = Line(
            scope,
            _level_of(log_record, origin),
            seen.message,
            said.args,
            get_text=said.get_text,
            get_fields=lambda: seen.fields,
            context=structlog_context,
        )
        matches = rules.match(line)
        client = self._first(log_record, origin) if matches else None
        if client is not None:
            found, site = _found(seen, log_record), _site(attributes, origin)
            with _span_of(log_record, client):
                client.capture_matches(self._reader(client, seen), matches, found, site)
            if isinstance(origin, Mapping):
                processors.mark(client, origin)

    def _capture(
        self,
        tag: object,
        seen: _Seen,
        log_record: Any,
        origin: Origin,
        site: Callable[[], str],
    ) -> None:
        client = self._first(log_record, origin)
        if client is None:
            return
        found = _found(seen, log_record)
        with _span_of(log_record, client):
            if isinstance(tag, InvalidEventError):
                client.capture_matches(self._reader(client, seen), [tag], found, site)
            else:
                client.capture(self._reader(client, seen), tag, found, site)
        if isinstance(origin, Mapping):
            # The tag travels on to our processor, and to handlers.
            if processors.mark(client, origin):
                client.once.marks = True
            else:
                # A tag without a mark would be an event twice.
                origin.pop(self._tag, None)

    def _first(self, log_record: Any, origin: Origin) -> Client | None:
        """Return the client that is to have *log_record*; None if it has had it, or must not."""
        client = self._way.find_client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return None
        once = client.once
        # There may be two of us, and a processor for structlog marks the text.
        is_first = once.claim(log_record) and not once.has_seen(log_record.body)
        if isinstance(origin, logging.LogRecord):
            # As `UserlensHandler` knows it.
            is_first = once.claim(token_of(origin)) and is_first
            is_first = is_first and not once.has_seen(processors.text_of(origin.msg))
        if not is_first:
            client.sender.ledger.count("duplicates")
            return None
        return client

    def _read(self, attributes: Mapping[Any, Any], said: _Said, origin: Origin) -> _Seen:
        """
        Return what there is to read.

        Of the attributes and the body, which another processor may have changed
        or taken away before; of *origin* no more than what they are made of.
        """
        fields: dict[Any, Any] = {
            name: value
            for name, value in attributes.items()
            if not (isinstance(name, str) and name.startswith(_PREFIXES))
        }
        plumbing, given = _PLUMBING, origin
        if isinstance(origin, logging.LogRecord):
            plumbing, given = processors.RECORD_PLUMBING, vars(origin)
            for name in self._way.names_hidden(origin).intersection(fields):
                del fields[name]
        elif origin is not None:
            plumbing = processors.PLUMBING
        if isinstance(given, Mapping):
            for name, value in fields.items():
                fields[name] = restored(value, given.get(name, value))
        for name, value in fields.items():
            fields[name] = _checked(value) if name == self._tag else hide_events(value)
        if isinstance(said.body, Mapping):
            plumbing = processors.PLUMBING
            fields = {**fields, **said.body}
        return _Seen({**said.named, **fields}, said.message, plumbing)

    def _reader(self, client: Client, seen: _Seen) -> Reader:
        known, readers = self._readers
        if known is not client:
            # One tuple, swapped whole: threads share this processor.
            readers = {}
            self._readers = (client, readers)
        reader = readers.get(id(seen.plumbing))
        if reader is None:
            reader = client.reader(seen.plumbing)
            reader = reader._replace(user_id_keys=(*reader.user_id_keys, _USER_ID))
            readers[id(seen.plumbing)] = reader
        return reader

    def shutdown(self) -> None:
        """
        Wait until what was taken is delivered, at most `shutdown_timeout`.

        At the exit of the process it does not wait: there is an exit hook of our own.

        What is logged later is taken all the same. OpenTelemetry's specification has
        a processor ignore that if it can, because its exporter is gone. Ours is the
        client, which goes on: for handlers of ours, and in the exit hooks that run
        after the provider's own. Once it is closed it counts what comes, as ever.
        """
        if not is_in_exit_hook():
            self.force_flush(None)

    def force_flush(self, timeout_millis: int | None = 30_000) -> bool:
        """
        Wait until everything that was taken before has an outcome.

        Args:
            timeout_millis: Longest wait, in milliseconds; None for `shutdown_timeout`.

        Returns:
            Whether everything has.
        """
        client = self._way.find_client()
        if timeout_millis is None:
            return client.flush(client.settings.shutdown_timeout)
        return client.flush(timeout_millis / 1000)


def _missing() -> UserlensError:
    try:
        import_module("opentelemetry.sdk._logs")
    except ImportError:
        return MissingExtraError("opentelemetry")
    return UserlensError(
        "this opentelemetry-sdk has no LogRecordProcessor where it is looked for, in "
        "opentelemetry.sdk._logs; install another version of it, 1.28 or later"
    )


def _checked(tag: object) -> object:
    """Return *tag*, or why it is none: text in it that shows an event may show what is secret."""
    if not shows_an_event(tag):
        return tag
    return InvalidEventError(
        "invalid_tag",
        "the tag has a Track, an Identify or a Group in it, which an attribute holds as text only",
        "give mappings in their place ({'type': 'identify', 'traits': …}), or log it with "
        "`logging` or structlog, where the object itself is found",
    )


def _said(log_record: Any, origin: Origin) -> _Said:
    """Return what *log_record* says: in the words of *origin*, if its body is still of these."""
    body: Any = log_record.body
    if isinstance(origin, logging.LogRecord):
        formatted = _formatted(origin) if isinstance(body, str) else None
        if formatted is not None and formatted in body:
            msg, args = origin.msg, origin.args
            return _Said(
                processors.text_of(msg),
                msg,
                args if isinstance(args, tuple) else (),
                _named(msg, args),
                lambda: formatted,
            )
    message = body
    if origin is None and getattr(log_record, "event_name", None):
        message = log_record.event_name
    if isinstance(body, Mapping):
        message = processors.text_of(body)
    return _Said(message, body, (), {}, lambda: _text_of(body))


def _named(msg: object, args: object) -> Mapping[Any, Any]:
    """Return what the template *msg* shows of a mapping argument: no more of it is in the body."""
    if not (isinstance(msg, str) and isinstance(args, Mapping)):
        return {}
    return {name: args[name] for name in _NAMED.findall(msg) if name and name in args}


def _text_of(body: object) -> str:
    try:
        return str(body)
    except Exception:
        return ""


def _found(seen: _Seen, log_record: Any) -> Record:
    return Record(
        fields=seen.fields,
        message=seen.message,
        created=_time_of(log_record),
        context=structlog_context,
    )


def _time_of(log_record: Any) -> float:
    """Return when it happened, or was seen, in seconds since the epoch."""
    return float(log_record.timestamp or log_record.observed_timestamp or 0) / 1e9


def _level_of(log_record: Any, origin: Origin) -> int:
    """Return the number of the level as `logging` has it: to each, OpenTelemetry has four."""
    if isinstance(origin, logging.LogRecord):
        return origin.levelno
    severity = log_record.severity_number
    number = int(getattr(severity, "value", severity) or 0)
    if number:
        # From DEBUG on as OpenTelemetry's handler counts; TRACE is below.
        return (number - 1) // 4 * 10 + (number - 1) % 4
    return LEVELS.get(str(log_record.severity_text).upper(), LEVELS["INFO"])


def _formatted(record: logging.LogRecord) -> str | None:
    try:
        return record.getMessage()
    except Exception:
        return None


def _site(attributes: Mapping[str, Any], origin: Origin) -> Callable[[], str]:
    if isinstance(origin, logging.LogRecord):
        return lambda: f"{origin.pathname}:{origin.lineno}"
    path = attributes.get("code.file.path")
    if path is not None:
        return lambda: f"{path}:{attributes.get('code.line.number')}"
    return call_site


@contextmanager
def _span_of(log_record: Any, client: Client) -> Iterator[None]:
    """Have the span of *log_record* be the current one, if events are to carry its ids."""
    surroundings = getattr(log_record, "context", None)
    if not client.settings.trace_context or surroundings is None:
        yield
        return
    api: Any = import_module("opentelemetry.context")
    token = api.attach(surroundings)
    try:
        yield
    finally:
        api.detach(token)
