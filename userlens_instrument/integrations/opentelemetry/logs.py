"""The OpenTelemetry entrance: a log record processor that captures tagged log records."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from userlens_instrument import processors
from userlens_instrument._core.extract import Plumbing, Reader, Record
from userlens_instrument._core.rulefile import LEVELS
from userlens_instrument._core.rules import Line
from userlens_instrument._delivery.lifecycle import is_in_exit_hook
from userlens_instrument._delivery.rulebook import books
from userlens_instrument._delivery.threads import is_own_thread
from userlens_instrument.client import call_site, registry, structlog_context, unreadable
from userlens_instrument.exceptions import InvalidEventError, MissingExtraError, UserlensError
from userlens_instrument.handlers import TAG, UserlensHandler, is_own_logger
from userlens_instrument.integrations.opentelemetry.origin import origin_of


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
# What its attributes make of an object is text, and may show what is secret.
_FLATTENED = ("Track(user_id=", "Identify(user_id=", "Group(group_id=")


class _Seen(NamedTuple):
    """
    An OpenTelemetry log record, as rules and readers see it.

    Attributes:
        logger: The name of its instrumentation scope.
        fields: Its attributes, less what is plumbing.
        message: Its text before formatting, where that is known.
        args: What was formatted into it, where that is known.
        text: Its text.
        plumbing: What else is plumbing.
    """

    logger: str
    fields: dict[Any, Any]
    message: object
    args: tuple[object, ...]
    text: str
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
        self._stopped = False
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
        if self._stopped:
            return
        try:
            inner = log_record.log_record
            attributes = inner.attributes or {}
            # structlog's dict in ``msg`` comes with a ``_name``, and as text.
            if (
                self._tag in attributes
                or books
                or isinstance(inner.body, Mapping)
                or "_name" in attributes
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
        seen = self._read(log_record, attributes, scope, origin)
        if self._tag in seen.fields:
            tag = _tag_of(seen.fields.pop(self._tag), self._tag, origin)
            if tag is not None and tag is not False:
                self._capture(tag, seen, log_record, origin, _site(attributes, origin))
            return
        rules = self._way.find_rules(_time_of(log_record)) if books else None
        if rules is None or not rules.may_match(scope, seen.message):
            return
        line = Line(
            scope,
            _level_of(log_record, origin),
            seen.message,
            seen.args,
            get_text=lambda: seen.text,
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
            token = getattr(origin, "relativeCreated", origin)
            is_first = once.claim(token) and is_first
            is_first = is_first and not once.has_seen(processors.text_of(origin.msg))
        if not is_first:
            client.sender.ledger.count("duplicates")
            return None
        return client

    def _read(
        self, log_record: Any, attributes: Mapping[str, Any], scope: str, origin: Origin
    ) -> _Seen:
        """
        Return what there is to read.

        Of the attributes and the body, which another processor may have changed
        or taken away before; of *origin* no more than what they are made of.
        """
        fields: dict[Any, Any] = {
            name: value for name, value in attributes.items() if not name.startswith(_PREFIXES)
        }
        body: Any = log_record.body
        message, text = body, str(body)
        args: tuple[object, ...] = ()
        plumbing = _PLUMBING
        if isinstance(origin, logging.LogRecord):
            plumbing = processors.RECORD_PLUMBING
            for name in self._way.names_hidden(origin).intersection(fields):
                del fields[name]
            formatted = _formatted(origin)
            if formatted is not None and formatted in text:
                message, text, body = origin.msg, formatted, origin.msg
                args = origin.args if isinstance(origin.args, tuple) else ()
                if isinstance(origin.args, Mapping):
                    fields = {**origin.args, **fields}
        elif origin is not None:
            plumbing = processors.PLUMBING
        elif getattr(log_record, "event_name", None):
            message = log_record.event_name
        if isinstance(body, Mapping):
            plumbing = processors.PLUMBING
            fields = {**fields, **body}
            message = processors.text_of(body)
        return _Seen(scope, fields, message, args, text, plumbing)

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
        Take no more, and wait until what was taken is delivered, at most `shutdown_timeout`.

        At the exit of the process it does not wait: there is an exit hook of our own.
        """
        self._stopped = True
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


def _tag_of(value: object, name: str, origin: Origin) -> object:
    """Return the tag as it was given: what attributes make of an object is its repr."""
    if isinstance(value, str) and value.startswith(_FLATTENED):
        places: tuple[Any, ...] = (origin,)
        if isinstance(origin, logging.LogRecord):
            places = (vars(origin), origin.msg)
        for place in places:
            if isinstance(place, Mapping) and place.get(name) is not None:
                return place[name]
        return InvalidEventError(
            "invalid_tag",
            "the tag was an object, which an attribute cannot hold",
            "tag with True, 'identify', 'group', an event name, or a mapping",
        )
    return value


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
