"""
The client: wires settings, encoder, sender and transport; and finds the right one for a caller.

One client per distinct settings in a process: handlers and processors that are
configured alike share it, and a reload of the logging config finds it again.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from userlens_instrument._core.encode import Encoder
from userlens_instrument._core.extract import Reader, normalize
from userlens_instrument._core.jsonable import flat_encoder
from userlens_instrument._core.once import OnceGuard
from userlens_instrument._core.outcome import Answer
from userlens_instrument._core.shape import Shapes
from userlens_instrument._delivery import lifecycle
from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._delivery.rulebook import forget_inherited, shared_book
from userlens_instrument._delivery.sender import Sender
from userlens_instrument._delivery.stats import Stats
from userlens_instrument._delivery.transport import UrllibTransport
from userlens_instrument.events import Event, Group, Identify, Track
from userlens_instrument.exceptions import (
    InvalidEventError,
    RulesError,
    SettingsError,
)
from userlens_instrument.settings import Settings, misspelled_variables


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from userlens_instrument._core.extract import Plumbing, Record
    from userlens_instrument._core.rules import Match
    from userlens_instrument._delivery.rulebook import Book
    from userlens_instrument.events import Id, Time
    from userlens_instrument.typing import Clock, Transport


# Frames of these are between a log call and us; the one before is the call site.
_BETWEEN = ("structlog", "userlens_instrument", "logging", "opentelemetry")
_DEMO = "userlens_instrument.cli.demo"
# Thirty years, in seconds: for who says "for ever", which the system's clocks cannot.
_LONGEST = 1e9


class Road:
    """
    What an entrance needs at hand to take the common line in one pass.

    Attributes:
        client: Where to.
        sender: Its sender.
        once: Its guard against second entrances.
        shapes: The lines that are known at this entrance.
        encode: As of `flat_encoder`.
    """

    __slots__ = ("client", "encode", "once", "sender", "shapes")

    def __init__(
        self, client: Client, shapes: Shapes, encode: Callable[[dict[str, Any]], bytes]
    ) -> None:
        """Take everything in hand."""
        self.client = client
        self.sender = client.sender
        self.once = client.once
        self.shapes = shapes
        self.encode = encode


class DryRun:
    """The transport of ``dry_run``: answers success, and opens no socket."""

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:  # noqa: ARG002 - the protocol's
        """Answer success."""
        return Answer(status=200)

    def close(self) -> None:
        """Nothing to let go of."""

    def forget(self) -> None:
        """Nothing to let go of."""


class Client:
    """
    Takes events and delivers them in the background.

    `configure` and the entrances make the clients of a process; making one by
    hand is for tests and for a second Userlens.

    Args:
        settings: As from `Settings.load`.
        transport: Puts bytes on the wire; urllib3 if absent.
        clock: Both clocks; the machine's if absent.

    Attributes:
        book: The rules that its lines go by; None without.

    Raises:
        RulesError: If the rules of the settings are wrong, or cannot be read.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Work out everything that the settings imply; start nothing."""
        self.settings = settings
        self.book = shared_book(settings)
        self._clock = clock or SystemClock()
        self._encoder = Encoder(settings)
        self._mute = _mute(settings)
        if settings.spool is not None and _sends_nothing(settings):
            # What is taken out of a spool counts as delivered: it is others' events, too.
            settings = settings.evolve(spool=None)
        self.sender = Sender(settings, transport or _transport(settings), self._clock, voice.say)
        self.once = _once_guard(settings)
        self._closed = False
        lifecycle.register(self.sender, settings.shutdown_timeout)
        if settings.flush_on_sigterm:
            lifecycle.flush_on_sigterm()
        for name, near in misspelled_variables():
            voice.say(f"variable {name}", f"{name} is not a setting, and ignored: {near} is one")
        if self._mute == "no_write_code":
            voice.say(
                "no write code",
                "there is no write code: no event is sent; set USERLENS_WRITE_CODE "
                "or call configure(write_code=…), or set disabled=True to silence this",
            )

    def __repr__(self) -> str:
        """Show the state; the write code is in no repr."""
        state = self._mute or ("closed" if self._closed else "open")
        return f"<Client {state}, {self.settings.events_url}, {self.sender!r}>"

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Deliver what is held, and close."""
        self.close()

    # ------------------------------------------------------------ events in

    def reader(self, plumbing: Plumbing) -> Reader:
        """Return how records are read for this client, at an entrance with such *plumbing*."""
        return Reader(
            user_id_keys=self.settings.user_id_keys,
            group_id_keys=self.settings.group_id_keys,
            plumbing=plumbing,
        )

    def road(self, reader: Reader, *, tag: str, text: str, never: frozenset[str]) -> Road | None:
        """Return the short way for an entrance, see `Shapes`; None if no event is sent at all."""
        encode = flat_encoder()
        if self._mute is not None or encode is None or self.settings.trace_context:
            return None
        shapes = Shapes(reader, self.settings, tag=tag, text=text, never=never)
        return Road(self, shapes, encode)

    def capture(self, reader: Reader, tag: object, record: Record, site: Callable[[], str]) -> None:
        """
        Take the events that *tag* makes of *record*. Never raises an `Exception`.

        Args:
            reader: As from `reader`.
            tag: The value under ``userlens_event``.
            record: What it stands on.
            site: Returns the call site, as ``path:line``; asked only for a diagnostic.
        """
        try:
            if self._mute is not None:
                self._drop_unread(tag)
                return
            for event in reader.read(tag, record):
                if isinstance(event, InvalidEventError):
                    self._invalid(event, site)
                else:
                    self._send(event)
        except Exception as error:
            self.hostile(error, site)

    def capture_matches(
        self,
        reader: Reader,
        matches: list[Match | InvalidEventError],
        record: Record,
        site: Callable[[], str],
    ) -> None:
        """
        Take the events that rules have found on *record*. Never raises an `Exception`.

        Args:
            reader: As from `reader`.
            matches: As from `Ruleset.match`.
            record: What they were found on.
            site: As of `capture`.
        """
        try:
            if self._mute is not None:
                self._drop_unread(matches)
                return
            for match in matches:
                self._take_match(reader, match, record, site)
        except Exception as error:
            self.hostile(error, site)

    def _take_match(
        self,
        reader: Reader,
        match: Match | InvalidEventError,
        record: Record,
        site: Callable[[], str],
    ) -> None:
        if isinstance(match, InvalidEventError):
            self._invalid(match, site)
            return
        event = reader.read_match(match, record)
        if isinstance(event, InvalidEventError):
            self._invalid(event, site)
        elif match.rule.takes(str(event.user_id)):
            self._send(event)
        else:
            self.sender.ledger.count("sampled")

    def track(
        self,
        user_id: Id,
        event: str,
        properties: Mapping[str, object] | None = None,
        *,
        timestamp: Time | None = None,
    ) -> None:
        """Take a `Track`, as if a tagged line had been logged. Never raises an `Exception`."""
        self._take(Track(user_id, event, properties, timestamp))

    def identify(
        self, user_id: Id, traits: Mapping[str, object] | None, *, timestamp: Time | None = None
    ) -> None:
        """Take an `Identify`, as if a tagged line had been logged. Never raises an `Exception`."""
        self._take(Identify(user_id, traits, timestamp))

    def group(
        self,
        group_id: Id,
        user_id: Id,
        traits: Mapping[str, object] | None = None,
        *,
        timestamp: Time | None = None,
    ) -> None:
        """Take a `Group`, as if a tagged line had been logged. Never raises an `Exception`."""
        self._take(Group(group_id, user_id, traits, timestamp))

    def _take(self, event: Event) -> None:
        try:
            if self._mute is not None:
                self._drop_unread(event)
            else:
                self._send(normalize(event, default_time=self._clock.wall()))
        except InvalidEventError as error:
            self._invalid(error, call_site)
        except Exception as error:
            self.hostile(error, call_site)

    def _send(self, event: Event) -> None:
        if self.settings.trace_context and isinstance(event, Track):
            event = _traced(event)
        encoded = self._encoder.encode(event)
        ledger = self.sender.ledger
        if encoded.cut:
            ledger.count("cut", "", encoded.cut)
        if encoded.redacted:
            ledger.count("redacted", "", encoded.redacted)
        self.sender.submit(encoded.payload)

    def _drop_unread(self, tag: object) -> None:
        # One for each event that it would have been, as far as a glance tells.
        number = len(tag) if isinstance(tag, (list, tuple)) else int(tag not in (None, False))
        self.sender.ledger.count("accepted", "", number)
        self.sender.ledger.count("dropped", str(self._mute), number)

    def _invalid(self, error: InvalidEventError, site: Callable[[], str]) -> None:
        self.sender.ledger.count("invalid", error.reason)
        where = site()
        voice.say(f"invalid {error.reason} {where}", f"not an event, at {where}: {error}")

    def hostile(self, error: Exception, site: Callable[[], str]) -> None:
        """Count what could not be read, and say so without its content."""
        self.sender.ledger.count("invalid", "unreadable")
        where = site()
        # The type alone: the text of a foreign exception may hold anything.
        kind = type(error).__name__
        voice.say(f"unreadable {where}", f"not an event, at {where}: reading it raised {kind}")

    # ------------------------------------------------------------ the other end

    def flush(self, timeout: float = 5.0) -> bool:
        """
        Wait until everything accepted before the call has an outcome.

        Args:
            timeout: Longest wait, in seconds.

        Returns:
            Whether everything has.
        """
        return self.sender.flush(_seconds(timeout))

    def close(self, timeout: float = 5.0) -> bool:
        """
        Deliver what is held, then take no more; what is left then is counted as dropped.

        Args:
            timeout: Longest wait, in seconds.

        Returns:
            Whether everything had an outcome in time.
        """
        self._closed = True
        return self.sender.close(_seconds(timeout))

    def drain(self, timeout: float = 5.0) -> bool:
        """
        Deliver what is in the spool, whichever process has put it there.

        For a process that logs nothing itself. The file is taken as it is: it is neither made
        where there is none, nor put right where it is damaged.

        Args:
            timeout: Longest wait, in seconds; delivery goes on behind it, until `close`.

        Returns:
            Whether everything that was in it has an outcome; False if it is another process
            that delivers it.

        Raises:
            SettingsError: If there is no spool, or nothing would be sent: see `check_drain`.
            SpoolError: If the spool cannot be used.

        .. versionadded:: 0.1.0
        """
        check_drain(self.settings)
        if self._closed:
            return False
        return self.sender.attend() and self.sender.flush(_seconds(timeout), everybodys=True)

    @property
    def closed(self) -> bool:
        """Whether `close` was called: events are counted as dropped."""
        return self._closed

    def stats(self) -> Stats:
        """Return what became of every event so far."""
        return self.sender.stats()

    def oldest_age(self) -> float:
        """
        Return the age of the oldest event that is held, in seconds; 0.0 if none is.

        .. versionadded:: 0.1.0
        """
        return self.sender.oldest_age()


def _mute(settings: Settings) -> str | None:
    """Return why no event is sent at all, or None."""
    if settings.disabled:
        return "disabled"
    if settings.write_code is None and not settings.dry_run:
        return "no_write_code"
    return None


def check_drain(settings: Settings) -> None:
    """
    Check that to drain a spool with *settings* delivers what is in it.

    What counts as delivered is deleted there: a dry run would lose it all.

    Raises:
        SettingsError: If it does not.
    """
    if settings.spool is None:
        raise SettingsError("spool", "is not set", "give the path of the file")
    if settings.disabled:
        raise SettingsError("disabled", "is set: nothing would be sent", "take it away")
    if settings.dry_run:
        raise SettingsError("dry_run", "is set: nothing would be sent", "take it away")
    if settings.write_code is None:
        raise SettingsError("write_code", "is missing", "set USERLENS_WRITE_CODE")


def _sends_nothing(settings: Settings) -> bool:
    return settings.dry_run or _mute(settings) is not None


def _transport(settings: Settings) -> Transport:
    return DryRun() if _sends_nothing(settings) else UrllibTransport(settings)


def _seconds(timeout: float) -> float:
    """Return *timeout* as clocks can wait for it; nothing for what is no number."""
    return min(timeout, _LONGEST) if timeout > 0 else 0.0


# ---------------------------------------------------------------- the clients of this process


class _Registry:
    """The clients of this process."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may log its first event within a first event.
        self.lock = threading.RLock()
        self.clients: dict[object, Client] = {}
        self.guards: dict[object, OnceGuard] = {}
        self.default: Client | None = None
        #: What the clients that were closed had counted.
        self.closed_stats = Stats()

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        self.closed_stats = Stats()


registry = _Registry()
lifecycle.on_fork(registry.after_fork)
lifecycle.on_fork(forget_inherited)


def _once_guard(settings: Settings) -> OnceGuard:
    """Return the guard of a destination: two clients with one destination are one road twice."""
    where = (settings.write_code, settings.events_url, settings.dry_run)
    return registry.guards.setdefault(where, OnceGuard())


def shared_client(settings: Settings) -> Client:
    """Return the client of this process for *settings*, making it if there is none."""
    # A callable need not be hashable, and is the same only if it is the same.
    key = (replace(settings, on_error=None), id(settings.on_error))
    with registry.lock:
        client = registry.clients.get(key)
        if client is not None and client.closed:
            registry.closed_stats += client.stats()
            client = None
        if client is None:
            client = registry.clients[key] = Client(settings)
        return client


def configure(write_code: str | None = None, **settings: Any) -> Client:
    """
    Make the process-wide default client, and return it.

    It may come before or after logging is set up: entrances without settings
    of their own look for it at their first event. Environment variables
    ``USERLENS_*`` fill in what is absent.

    Args:
        write_code: The write code of the Userlens workspace.
        **settings: See `Settings`.

    Raises:
        SettingsError: If a setting is unknown or wrong.

    .. versionadded:: 0.1.0
    """
    if write_code is not None:
        settings["write_code"] = write_code
    client = shared_client(Settings.load(settings))
    registry.default = client
    return client


def default_client() -> Client:
    """
    Return the process-wide default client, making it of the environment if there is none.

    Never raises: on the logging path a wrong environment is one line of
    diagnostics and a client that drops, and counts, every event.
    """
    client = registry.default
    if client is not None:
        return client
    with registry.lock:
        # Another thread may have been here first.
        registry.default = registry.default or _client_of_environment()
        return registry.default


def check_client(client: object) -> None:
    """
    Check at start-up what an entrance will need at its first event.

    Args:
        client: What it was given; None means the default client.

    Raises:
        SettingsError: If it is no client, or a setting of the environment is wrong.
        RulesError: If the rules that the environment names are.
    """
    if client is None:
        if registry.default is None:
            shared_book(Settings.load({}))
    elif not isinstance(client, Client):
        raise SettingsError(
            "client",
            f"is of type {type(client).__name__}",
            "give what configure() returns; the write code goes to configure()",
        )


def _client_of_environment() -> Client:
    try:
        settings = Settings.load({})
    except SettingsError as error:
        voice.say("settings", f"no event is sent: {error}", logging.ERROR)
        return shared_client(Settings(disabled=True))
    try:
        return shared_client(settings)
    except RulesError as error:
        # What is tagged is delivered all the same.
        voice.say("rules", f"rules are ignored: {error}", logging.ERROR)
        return shared_client(settings.evolve(rules=None))


def book_of_environment() -> Book | None:
    """
    Return the rules that the environment names, for who has no client yet. Never raises.

    A client is made at the first event: `configure` may still come, and a
    program that only logs needs no write code.
    """
    if not os.environ.get("USERLENS_RULES", "").strip():
        return None
    try:
        return shared_book(Settings.load({}))
    except SettingsError as error:
        # The words, and the kind, of the client to come: it is said once.
        voice.say("settings", f"no event is sent: {error}", logging.ERROR)
    except RulesError as error:
        voice.say("rules", f"rules are ignored: {error}", logging.ERROR)
    return None


def flush(timeout: float = 5.0) -> bool:
    """
    Wait until everything accepted before the call has an outcome, for every client.

    Args:
        timeout: Longest wait for all of them together, in seconds.

    Returns:
        Whether everything has.

    .. versionadded:: 0.1.0
    """
    return _all(lambda client, left: client.flush(left), timeout)


def shutdown(timeout: float = 5.0) -> bool:
    """
    Deliver what is held, then take no more, for every client.

    What is left then is counted as dropped. A later `configure` starts afresh;
    entrances without settings of their own find the new client.

    Args:
        timeout: Longest wait for all of them together, in seconds.

    Returns:
        Whether everything had an outcome in time.

    .. versionadded:: 0.1.0
    """
    for client in list(registry.clients.values()):
        client.sender.hurry()
    finished = _all(lambda client, left: client.close(left), timeout)
    with registry.lock:
        for key, client in list(registry.clients.items()):
            if client.closed and client is not registry.default:
                registry.closed_stats += client.stats()
                del registry.clients[key]
    return finished


def _all(act: Callable[[Client, float], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    results = [
        act(client, max(0.0, deadline - time.monotonic()))
        for client in list(registry.clients.values())
    ]
    return all(results)


def stats() -> Stats:
    """
    Return what became of every event of this process so far, over every client.

    .. versionadded:: 0.1.0
    """
    total = registry.closed_stats
    for client in list(registry.clients.values()):
        total += client.stats()
    return total


def track(
    user_id: Id,
    event: str,
    properties: Mapping[str, object] | None = None,
    *,
    timestamp: Time | None = None,
) -> None:
    """
    Take a `Track` without a log line: for what must not depend on a log level.

    Never blocks and never raises; what is wrong is counted, and said once.

    .. versionadded:: 0.1.0
    """
    default_client().track(user_id, event, properties, timestamp=timestamp)


def identify(
    user_id: Id, traits: Mapping[str, object] | None, *, timestamp: Time | None = None
) -> None:
    """
    Take an `Identify` without a log line; see `track`.

    .. versionadded:: 0.1.0
    """
    default_client().identify(user_id, traits, timestamp=timestamp)


def group(
    group_id: Id,
    user_id: Id,
    traits: Mapping[str, object] | None = None,
    *,
    timestamp: Time | None = None,
) -> None:
    """
    Take a `Group` without a log line; see `track`.

    .. versionadded:: 0.1.0
    """
    default_client().group(group_id, user_id, traits, timestamp=timestamp)


# ---------------------------------------------------------------- what surrounds a log call


def structlog_context() -> Mapping[str, Any]:
    """
    Return structlog's contextvars, for either entrance.

    Without importing structlog: who has not imported it has bound nothing.
    """
    module = sys.modules.get("structlog.contextvars")
    if module is None:
        return {}
    context: Mapping[str, Any] = module.get_contextvars()
    return context


def _traced(event: Track) -> Track:
    """
    Return *event* with the ids of OpenTelemetry's current span, where it has none of these names.

    Without importing it: who has not imported it has no span.
    """
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return event
    try:
        span = module.get_current_span().get_span_context()
        if not span.is_valid or not (0 < span.trace_id < 1 << 128 and 0 < span.span_id < 1 << 64):
            return event
        # As W3C Trace Context writes them.
        ids = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    except Exception:  # somebody's own kind of span: the event is worth more than the ids
        return event
    return replace(event, properties={**ids, **(event.properties or {})})


def unreadable(find: Callable[[], Client], error: Exception, site: Callable[[], str]) -> None:
    """Count a record that an entrance could not even look at; the last resort, and silent."""
    with suppress(Exception):
        find().hostile(error, site)


def call_site() -> str:
    """Return ``path:line`` of the innermost frame outside of logging, structlog and us."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as logging's own findCaller
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        # The demo's service is within our package, and calls as a user does.
        if name.partition(".")[0] not in _BETWEEN or name.startswith(_DEMO):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown"
