"""
Why records of a logger would not arrive: a look at logging, structlog, loguru and the client.

It only looks: no logger, handler, client or thread is made, nothing is logged, and
of what is not loaded, as loguru or OpenTelemetry may not be, nothing is imported.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from userlens_instrument import auto
from userlens_instrument._auto.lines import is_taken_at
from userlens_instrument.client import registry
from userlens_instrument.exceptions import UserlensError
from userlens_instrument.handlers import UserlensHandler, is_own_logger
from userlens_instrument.processors import UserlensProcessor
from userlens_instrument.settings import Settings, misspelled_variables


if TYPE_CHECKING:
    from collections.abc import Iterator

    from userlens_instrument.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One thing that keeps events from arriving, or may.

    Attributes:
        code: A short word for it, such as ``propagate``; docs/troubleshooting.md lists all.
        severity: ``lost`` if records do not become events, or events are not sent, because of
            it; ``maybe`` if that depends on the record; ``note`` for what is good to know.
        where: The logger, handler, chain or setting.
        problem: What is the case.
        fix: What to do about it.

    .. versionadded:: 0.1.0
    """

    code: str
    severity: str
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        """Return all of it, in one line."""
        return f"{self.severity}: {self.where}: {self.problem}; {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """
    What `diagnose` has found.

    Attributes:
        subject: What was looked at.
        findings: What was found, what loses events first.

    .. versionadded:: 0.1.0
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def arrives(self) -> bool:
        """Whether nothing was found that loses every event."""
        return not any(finding.severity == "lost" for finding in self.findings)

    def __str__(self) -> str:
        """Return a line for each finding."""
        verdict = "nothing stands in the way" if self.arrives else "events do not arrive"
        lines = [f"{self.subject}: {verdict}", *(f"  {finding}" for finding in self.findings)]
        return "\n".join(lines)


def diagnose(logger: Any = None, *, level: int | str = "INFO") -> Diagnosis:
    """
    Say why tagged records of *logger* would not arrive.

    Args:
        logger: A logger's name, a `logging.Logger`, a `logging.LoggerAdapter`, a logger of
            structlog, or loguru's; None for what concerns all of them.
        level: The level at which is logged, a number or a name.

    Returns:
        Everything that was found; print it.

    Raises:
        ValueError: If *level* is none.

    .. versionadded:: 0.1.0
    """
    number = _level_of(level)
    if number is None:
        raise ValueError(f"level is none: {str(level)[:32]!r}; give a number or a name")
    asked, adapters = _unwrapped(logger)
    subject = _subject_of(asked)
    if subject is None or (asked is None and adapters):
        shown = f"an object of type {type(logger).__name__}"
        return Diagnosis(subject=shown, findings=(_of_no_logger(asked, adapters),))
    looks = [_of_adapter(adapter, subject) for adapter in adapters]
    if asked is None:
        looks += [_of_root(number), _of_chain(None, number)]
    elif _is(asked, (str, logging.Logger)):
        looks.append(_of_logger(asked, number))
    elif _is_of_loguru(asked):
        looks.append(_of_loguru(asked, number))
    else:
        looks.append(_of_chain(asked, number))
    looks.append(_of_clients(asked))
    findings = [finding for look in looks for finding in _without_raising(look, subject)]
    order = ("lost", "maybe", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Diagnosis(subject=subject, findings=tuple(findings))


def _unwrapped(logger: Any) -> tuple[Any, list[logging.LoggerAdapter[Any]]]:
    """Return what is below the adapters, and the adapters; None below those that wrap nothing."""
    adapters: list[logging.LoggerAdapter[Any]] = []
    while _is(logger, logging.LoggerAdapter) and len(adapters) < _DEEPEST:
        adapters.append(logger)
        logger = _read(logger, "logger")
    return logger, adapters


def _subject_of(asked: Any) -> str | None:
    """Return what is looked at, in words; None if it is no logger."""
    if asked is None:
        return "all loggers"
    if _is(asked, str):
        return f"logger {asked or 'root'}"
    if _is(asked, logging.Logger):
        name = _read(asked, "name")
        if isinstance(name, str):
            return f"logger {name}"
        # A Mock of one says that it is one; its attributes are Mocks.
        return "a logger" if issubclass(type(asked), logging.Logger) else None
    if _is_of_loguru(asked):
        return "logger of loguru"
    return "logger of structlog" if _is_of_structlog(asked) else None


def _of_no_logger(asked: object, adapters: list[logging.LoggerAdapter[Any]]) -> Finding:
    return Finding(
        code="no_logger",
        severity="lost",
        where="LoggerAdapter" if adapters else "what was given",
        problem="what it wraps is no logger, or cannot be read"
        if adapters
        else f"it is no logger, but of type {type(asked).__name__}",
        fix="give a logger's name, a logging.Logger, a LoggerAdapter or a logger of structlog "
        "or loguru; nothing for what concerns all of them",
    )


def _without_raising(look: Iterator[Finding], subject: str) -> Iterator[Finding]:
    """Yield what a look finds, up to the attribute that raises: it may be anybody's object."""
    try:
        yield from look
    except Exception as error:
        yield Finding(
            code="cannot_look",
            severity="maybe",
            where=subject,
            problem=f"to look at it, or at what is around it, raises {type(error).__name__}; "
            "there may be more than what is said here",
            fix="see that its attributes can be read",
        )


def _read(owner: object, name: str, default: Any = None) -> Any:
    """Return an attribute; *default* if there is none, or if it raises."""
    try:
        return getattr(owner, name, default)
    except Exception:
        return default


def _is(asked: object, kinds: type[Any] | tuple[type[Any], ...]) -> bool:
    """Return what `isinstance` does, which reads ``__class__``; False if that raises."""
    try:
        return isinstance(asked, kinds)
    except Exception:
        return False


def _level_of(level: object) -> int | None:
    if isinstance(level, str):
        level = logging.getLevelName(level.strip().upper())
    return level if isinstance(level, int) else None


# ---------------------------------------------------------------- logging


def _of_adapter(adapter: logging.LoggerAdapter[Any], subject: str) -> Iterator[Finding]:
    merges = _read(adapter, "merge_extra")
    if adapter.__class__.process is logging.LoggerAdapter.process and not merges:
        yield Finding(
            code="adapter",
            severity="lost",
            where=f"LoggerAdapter of {subject}",
            problem="it puts its own extra in the place of the call's, and with it the tag is gone",
            fix="make it with merge_extra=True (Python 3.13), override process(), "
            "or put the tag into the adapter's extra",
        )


def _find(logger: str | logging.Logger) -> tuple[logging.Logger, bool]:
    """Return the logger of a name, or the nearest above that there is, and whether it is itself."""
    if isinstance(logger, logging.Logger):
        return logger, True
    manager = logging.Logger.manager
    name = logger
    while name and name != "root":
        found = manager.loggerDict.get(name)
        if isinstance(found, logging.Logger):
            return found, name == logger
        name = name.rpartition(".")[0]
    return manager.root, logger in {"", "root"}


def _of_logger(asked: str | logging.Logger, level: int) -> Iterator[Finding]:
    logger, is_itself = _find(asked)
    where = f"logger {logger.name}"
    if is_own_logger(asked if isinstance(asked, str) else asked.name):
        yield Finding(
            code="own_logger",
            severity="lost",
            where=where,
            problem="its records are ours, or of what we send with, and are never events",
            fix="log by a logger of your own",
        )
    if not is_itself:
        yield Finding(
            code="no_such_logger",
            severity="note",
            where=f"logger {asked}",
            problem=f"nobody has asked for it yet; what holds for {logger.name} will hold for it",
            fix="look again once it has logged",
        )
    yield from _of_level(logger, level, is_itself=is_itself)
    if logger.filters:
        yield Finding(
            code="logger_filter",
            severity="maybe",
            where=where,
            problem=f"it has {_counted(len(logger.filters), 'filter')}",
            fix="see what they let through",
        )
    yield from _of_class(logger)
    if not auto.is_installed():
        yield from _of_handlers(logger, level)


def _of_level(logger: logging.Logger, level: int, *, is_itself: bool) -> Iterator[Finding]:
    name = logging.getLevelName(level)
    disabled = logger.manager.disable
    if disabled >= level and disabled <= logging.NOTSET:
        yield Finding(
            code="level",
            severity="lost",
            where="logging",
            problem=f"{name} is not above NOTSET, and never logged",
            fix="log at a level from 1 on",
        )
    elif disabled >= level:
        yield Finding(
            code="logging_disabled",
            severity="lost",
            where="logging",
            problem=f"logging.disable({logging.getLevelName(disabled)}) holds for all loggers",
            fix="call logging.disable(logging.NOTSET)",
        )
    if logger.disabled and is_itself:
        yield Finding(
            code="logger_disabled",
            severity="lost",
            where=f"logger {logger.name}",
            problem="it is disabled: a dictConfig() or fileConfig() that does not name it did that",
            fix="set disable_existing_loggers to False there",
        )
    effective = logger.getEffectiveLevel()
    if effective > level:
        setter: logging.Logger | None = logger
        while setter is not None and not setter.level:
            setter = setter.parent
        by = logger.name if setter is None else setter.name
        yield Finding(
            code="level",
            severity="lost",
            where=f"logger {logger.name}",
            problem=f"{name} is below {logging.getLevelName(effective)}, the level of {by}",
            fix=f"set the level to {name} there, or use userlens_instrument.track(): "
            "what is not logged is no event",
        )


def _of_class(logger: logging.Logger) -> Iterator[Finding]:
    kind = type(logger)
    base = logging.RootLogger if isinstance(logger, logging.RootLogger) else logging.Logger
    changed = [
        name
        for name in ("handle", "callHandlers", "filter")
        if getattr(kind, name) is not getattr(base, name)
    ]
    if changed:
        yield Finding(
            code="logger_class",
            severity="maybe",
            where=f"logger {logger.name}",
            problem=f"its class {kind.__name__} has a {' and a '.join(changed)}() of its own",
            fix="see that records still come to handlers",
        )


def _of_handlers(logger: logging.Logger, level: int) -> Iterator[Finding]:
    ours, queues, stop = _on_the_way(logger)
    for handler in ours:
        if handler.level > level:
            yield Finding(
                code="handler_level",
                severity="lost" if len(ours) == 1 else "maybe",
                where=_shown(handler),
                problem=f"it takes {logging.getLevelName(handler.level)} and above",
                fix="give it a lower level",
            )
        if handler.filters:
            yield Finding(
                code="handler_filter",
                severity="maybe",
                where=_shown(handler),
                problem=f"it has {_counted(len(handler.filters), 'filter')}",
                fix="see what they let through",
            )
    if ours:
        return
    if any(map(_may_be_behind, queues)):
        yield Finding(
            code="behind_a_queue",
            severity="maybe",
            where=f"logger {logger.name}",
            problem="a handler of ours behind its QueueHandler, if there is one, gets formatted "
            "records: template, arguments, dicts in msg and contextvars are gone there",
            fix="attach it to the logger itself: it never waits, and needs no queue",
        )
        return
    above = _above(stop)
    if above is not None and stop is not None:
        yield Finding(
            code="propagate",
            severity="lost",
            where=f"logger {stop.name}",
            problem=f"it has propagate=False, and our handler is above, on {above.name}",
            fix=f"attach the handler to {stop.name} as well{_of_framework(stop.name)}",
        )
        return
    if any(map(_is_opentelemetrys, _handlers_on_the_way(logger))) and _processor_class():
        yield Finding(
            code="behind_opentelemetry",
            severity="maybe",
            where=f"logger {logger.name}",
            problem="its records go to OpenTelemetry, and whether a UserlensLogRecordProcessor of "
            "ours is behind that cannot be told",
            fix="see that it is added to the LoggerProvider of the handler",
        )
        return
    yield Finding(
        code="no_handler",
        severity="lost",
        where=f"logger {logger.name}",
        problem="there is no handler of ours on its way" + _why_gone(),
        fix="add UserlensHandler() to it or to root, or start the program by "
        "userlens-instrument run" + _of_framework(logger.name),
    )


def _shown(owner: object) -> str:
    try:
        return repr(owner)
    except Exception:
        return f"<{type(owner).__name__}>"


def _on_the_way(
    logger: logging.Logger,
) -> tuple[list[logging.Handler], list[logging.handlers.QueueHandler], logging.Logger | None]:
    """Return our handlers that its records meet, queues, and the logger where they end early."""
    ours: list[logging.Handler] = []
    queues: list[logging.handlers.QueueHandler] = []
    place: logging.Logger | None = logger
    while place is not None:
        ours += _ours_on(place)
        queues += [one for one in place.handlers if isinstance(one, logging.handlers.QueueHandler)]
        if not place.propagate:
            return ours, queues, place
        place = place.parent
    return ours, queues, None


def _handlers_on_the_way(logger: logging.Logger) -> Iterator[logging.Handler]:
    place: logging.Logger | None = logger
    while place is not None:
        yield from map(_target_of, place.handlers)
        place = place.parent if place.propagate else None


def _ours_on(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that a logger's records come to us by: ours, and OpenTelemetry's."""
    targets = map(_target_of, _read(logger, "handlers", ()))
    return [handler for handler in targets if _entrances_behind(handler)]


def _entrances_behind(handler: logging.Handler) -> list[UserlensHandler]:
    if isinstance(handler, UserlensHandler):
        return [handler]
    return _of_processors(handler) if _is_opentelemetrys(handler) else []


def _target_of(handler: logging.Handler) -> logging.Handler:
    """Return what a handler hands its records on to, as a MemoryHandler does; else itself."""
    for _ in range(_DEEPEST):
        target = _read(handler, "target")
        if not isinstance(target, logging.Handler):
            break
        handler = target
    return handler


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    known = list(root.manager.loggerDict.values())
    return [root, *(one for one in known if isinstance(one, logging.Logger))]


def _above(stop: logging.Logger | None) -> logging.Logger | None:
    """Return the first logger above *stop* with a handler of ours."""
    place = None if stop is None else stop.parent
    while place is not None:
        if _ours_on(place):
            return place
        place = place.parent
    return None


def _may_be_behind(queue: logging.handlers.QueueHandler) -> bool:
    listener = _read(queue, "listener")
    handlers = _read(listener, "handlers")
    if not isinstance(handlers, (list, tuple)):
        return True  # before 3.12, or by hand: nobody knows
    return any(map(_entrances_behind, map(_target_of, handlers)))


def _why_gone() -> str:
    if "celery" in sys.modules:
        return "; Celery takes the handlers of root away when a worker starts"
    return ""


def _of_framework(name: str) -> str:
    if name.partition(".")[0] == "uvicorn":
        return " (uvicorn: in its log_config; it sets propagate to False)"
    if name.partition(".")[0] == "gunicorn":
        return " (gunicorn: in its logconfig_dict or --log-config)"
    if name.partition(".")[0] == "django":
        return " (Django: in LOGGING)"
    if "celery" in sys.modules:
        return (
            " (Celery: to a logger with a name, in signals.after_setup_logger, or with "
            "worker_hijack_root_logger=False)"
        )
    return ""


def _of_root(level: int) -> Iterator[Finding]:
    root, loggers = logging.getLogger(), _loggers()
    of_logging = any(map(_ours_on, loggers))
    # Neither structlog nor loguru need go by a level of logging.
    others = _has_processor() or _has_sink() or bool(_of_processors(None))
    for finding in _of_level(root, level, is_itself=True):
        is_all = of_logging or not others or auto.is_installed()
        yield finding if is_all else replace(finding, severity="maybe")
    if auto.is_installed():
        yield Finding(
            code="auto",
            severity="note",
            where="this process",
            problem="what is logged is taken without handlers: userlens-instrument run, or "
            "auto.install()",
            fix="nothing to do",
        )
        return
    if not of_logging and not others:
        yield Finding(
            code="no_entrance",
            severity="lost",
            where="this process",
            problem="no logger has a handler of ours, structlog no processor, loguru no sink"
            + _why_gone(),
            fix="add UserlensHandler(), UserlensProcessor() or the sink for loguru, or start the "
            "program by userlens-instrument run",
        )
    for one in loggers:
        if _read(one, "disabled") and _read(one, "handlers"):
            yield from _of_level(one, logging.CRITICAL, is_itself=True)


# A handler that hands on to a handler that hands on: no more than this.
_DEEPEST = 8


# ---------------------------------------------------------------- OpenTelemetry


def _processor_class() -> Any:
    """Return our class of log record processors; None if nobody has asked for it."""
    ours = sys.modules.get("userlens_instrument.integrations.opentelemetry.logs")
    return _read(ours, "UserlensLogRecordProcessor")


def _is_opentelemetrys(handler: logging.Handler) -> bool:
    """Return whether it is the handler that brings records of logging to OpenTelemetry."""
    return any(
        kind.__name__ == "LoggingHandler" and kind.__module__.startswith("opentelemetry.")
        for kind in type(handler).__mro__
    )


def _of_processors(handler: logging.Handler | None) -> list[UserlensHandler]:
    """
    Return what our log record processors go by that are behind OpenTelemetry's *handler*.

    Args:
        handler: The handler; None for whatever goes to the provider of the process.
    """
    kind = _processor_class()
    if kind is None:
        return []
    provider = _read(handler, "_logger_provider")
    # Asked for the provider of the process, OpenTelemetry would make it.
    api = sys.modules.get("opentelemetry._logs._internal")
    if provider is None or type(provider).__name__ == "ProxyLoggerProvider":
        provider = _read(api, "_LOGGER_PROVIDER")
    chain = _read(_read(provider, "_multi_log_record_processor"), "_log_record_processors")
    processors = chain if isinstance(chain, (list, tuple)) else ()
    return [each._way for each in processors if isinstance(each, kind)]  # noqa: SLF001 - our own


# ---------------------------------------------------------------- loguru


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sink:
    """
    A sink of ours that was added to loguru.

    Attributes:
        number: What ``logger.add`` has returned.
        level: The number of the lowest level that it takes.
        is_filtered: Whether it has a filter.
        is_queued: Whether it was added with ``enqueue=True``.
        settings: Its own settings; None for those of the default client.
    """

    number: int
    level: int
    is_filtered: bool
    is_queued: bool
    settings: Settings | None

    def __repr__(self) -> str:
        return f"loguru's sink {self.number}"


def _is_of_loguru(logger: object) -> bool:
    kind = type(logger)
    return kind.__name__ == "Logger" and kind.__module__.startswith("loguru.")


def _handlers_of_loguru(logger: Any) -> list[Any]:
    return list(logger._core.handlers.values())  # noqa: SLF001 - it has no public list


def _way_of(added: Any) -> Any:
    """Return what loguru's handler *added* hands its messages to: a function, or a handler."""
    inner = _read(added, "_sink")
    return _read(inner, "_function") or _read(inner, "_handler")


def _sinks_of(logger: Any) -> list[_Sink]:
    """Return what of us has been added to loguru: as it is known from 0.5 to 0.7."""
    default = _read(sys.modules.get("userlens_instrument.integrations.loguru"), "sink")
    sinks = []
    for added in _handlers_of_loguru(logger):
        way = _way_of(added)
        owner = way if isinstance(way, UserlensHandler) else _read(way, "__self__")
        is_ours = isinstance(owner, UserlensHandler)
        if is_ours or (way is not None and way is default):
            sinks.append(
                _Sink(
                    number=added._id,  # noqa: SLF001 - as above
                    level=added._levelno,  # noqa: SLF001
                    is_filtered=added._filter is not None,  # noqa: SLF001
                    is_queued=added._enqueue,  # noqa: SLF001
                    settings=owner.settings if is_ours else None,
                )
            )
    return sinks


def _has_sink() -> bool:
    logger = _read(sys.modules.get("loguru"), "logger")
    return _is_of_loguru(logger) and bool(_sinks_of(logger))


def _of_loguru(logger: Any, level: int) -> Iterator[Finding]:
    sinks = _sinks_of(logger)
    if not sinks:
        yield _of_no_sink(logger)
    for sink in sinks:
        if sink.level > level:
            yield Finding(
                code="sink_level",
                severity="lost" if len(sinks) == 1 else "maybe",
                where=repr(sink),
                problem=f"it takes level {sink.level} and above",
                fix="give logger.add() a lower level",
            )
        if sink.is_filtered:
            yield Finding(
                code="sink_filter",
                severity="maybe",
                where=repr(sink),
                problem="it has a filter",
                fix="see what it lets through",
            )
        if sink.is_queued:
            yield Finding(
                code="sink_enqueue",
                severity="note",
                where=repr(sink),
                problem="it was added with enqueue=True: template and arguments are gone there",
                fix="leave that out: the sink never waits",
            )
    off = [name for name, is_on in logger._core.activation_list if not is_on]  # noqa: SLF001
    if off:
        names = ", ".join(name.rstrip(".") or "all modules" for name in off)
        yield Finding(
            code="loguru_disabled",
            severity="maybe",
            where="loguru",
            problem=f"logger.disable() holds for {names}",
            fix="call logger.enable() for what is to be logged",
        )


def _of_no_sink(logger: Any) -> Finding:
    # A stream or a file ends there; a function, or a handler of logging, may do anything.
    if any(_way_of(added) is not None for added in _handlers_of_loguru(logger)):
        return Finding(
            code="behind_loguru",
            severity="maybe",
            where="loguru",
            problem="it has no sink of ours; whether one of its own hands lines on to a handler "
            "of ours cannot be told",
            fix="add the sink to loguru itself: logger.add(sink)",
        )
    return Finding(
        code="no_sink",
        severity="lost",
        where="loguru",
        problem="it has no sink of ours"
        + ("; what is taken without one is logging and structlog" if auto.is_installed() else ""),
        fix="from userlens_instrument.integrations.loguru import sink; logger.add(sink)",
    )


# ---------------------------------------------------------------- structlog


# What makes text, or a call's arguments, of an event dict.
_RENDERERS = frozenset(
    {
        "ConsoleRenderer",
        "JSONRenderer",
        "KeyValueRenderer",
        "LogfmtRenderer",
        "render_to_log_args_and_kwargs",
        "render_to_log_kwargs",
        "wrap_for_formatter",
    }
)


def _name_of(processor: object) -> str:
    return _read(processor, "__name__") or type(processor).__name__


def _is_ours(processor: object) -> bool:
    return isinstance(processor, UserlensProcessor) or is_taken_at(processor)


def _loaded_structlog() -> Any:
    """Return structlog, if it is loaded; None too if it is a module of that name alone."""
    structlog = sys.modules.get("structlog")
    is_it = all(_read(structlog, name) for name in ("get_config", "is_configured"))
    return structlog if is_it and "structlog._config" in sys.modules else None


def _has_processor() -> bool:
    structlog = _loaded_structlog()
    return structlog is not None and any(map(_is_ours, structlog.get_config()["processors"]))


def _is_of_structlog(logger: object) -> bool:
    structlog = _loaded_structlog()
    if structlog is None:
        return False
    if _is(
        logger, (sys.modules["structlog._config"].BoundLoggerLazyProxy, structlog.BoundLoggerBase)
    ):
        return True
    # A class of somebody's own, as of the protocol BindableLogger. The class is
    # asked: a Mock has every attribute.
    return all(_read(type(logger), name) for name in ("bind", "unbind", "new"))


def _bound(logger: Any) -> Any:
    """
    Return the bound logger that a logger of structlog is, or has cached; None if there is none.

    A lazy proxy is not bound to find out: with cache_logger_on_first_use that
    would fix its chain for good.
    """
    proxy = sys.modules["structlog._config"].BoundLoggerLazyProxy
    if not isinstance(logger, proxy):
        return logger
    return logger.bind() if "bind" in vars(logger) else None


def _chain_of(logger: Any) -> list[Any]:
    structlog = _loaded_structlog()
    if structlog is None:
        return []
    chain = None
    if logger is not None:
        chain = _read(_bound(logger), "_processors") or _read(logger, "_processors")
    return list(structlog.get_config()["processors"] if chain is None else chain)


def _of_chain(logger: Any, level: int) -> Iterator[Finding]:
    structlog = _loaded_structlog()
    if structlog is None:
        return
    configured = list(structlog.get_config()["processors"])
    chain = _chain_of(logger)
    places = [place for place, each in enumerate(chain) if _is_ours(each)]
    if not places:
        is_own = list(map(id, chain)) != list(map(id, configured))
        yield from _of_missing_processor(chain, configured, is_own=is_own, asked=logger)
        return
    yield from _of_order(chain, places[0])
    yield from _of_bound_level(logger, level)
    wrapped = _read(_bound(logger), "_logger") if logger is not None else None
    if wrapped is None:
        wrapped = _wrapped_by(logger)
    if isinstance(wrapped, logging.Logger) and "filter_by_level" in map(_name_of, chain):
        yield from _of_level(wrapped, level, is_itself=True)


def _wrapped_by(proxy: Any) -> logging.Logger | None:
    """Return the stdlib logger that a lazy proxy will wrap, if there is one of its name."""
    structlog = sys.modules["structlog"]
    factory = structlog.get_config()["logger_factory"]
    args = getattr(proxy, "_logger_factory_args", ())
    if "stdlib" in type(factory).__module__ and args and isinstance(args[0], str):
        return _find(args[0])[0]
    return None


def _of_missing_processor(
    chain: list[Any], configured: list[Any], *, is_own: bool, asked: object
) -> Iterator[Finding]:
    bridged = any(
        _name_of(each) in {"render_to_log_kwargs", "wrap_for_formatter"} for each in chain
    )
    if asked is None and not sys.modules["structlog"].is_configured():
        return
    if bridged:
        yield Finding(
            code="bridged",
            severity="note",
            where="structlog's chain",
            problem="it has no processor of ours; its lines go on to logging with their fields",
            fix="see that our handler is there: diagnose() with the name of the stdlib logger",
        )
    elif is_own and any(map(_is_ours, configured)):
        yield Finding(
            code="cached_chain",
            severity="lost",
            where="this logger's chain",
            problem="it is older than the configuration, or its own: cache_logger_on_first_use "
            "keeps what was configured at the first line, wrap_logger() what it was given",
            fix="configure structlog before the first line is logged, or put UserlensProcessor() "
            "into the chain of wrap_logger()",
        )
    else:
        yield Finding(
            code="no_processor",
            severity="lost",
            where="structlog's chain",
            problem="it has no processor of ours",
            fix="put UserlensProcessor() before the renderer, or start the program by "
            "userlens-instrument run",
        )


def _of_order(chain: list[Any], ours: int) -> Iterator[Finding]:
    names = [_name_of(each) for each in chain]
    renderer = next((place for place, name in enumerate(names) if name in _RENDERERS), None)
    if renderer is not None and renderer < ours:
        yield Finding(
            code="after_renderer",
            severity="lost",
            where="structlog's chain",
            problem=f"our processor comes after {names[renderer]}, which leaves no fields",
            fix="put it before",
        )
    if "filter_by_level" in names[ours:]:
        yield Finding(
            code="before_filter",
            severity="note",
            where="structlog's chain",
            problem="our processor comes before filter_by_level: an event is sent of a line that "
            "is not printed",
            fix="put it after",
        )
    if "PositionalArgumentsFormatter" in names[:ours]:
        yield Finding(
            code="after_formatting",
            severity="note",
            where="structlog's chain",
            problem="our processor comes after PositionalArgumentsFormatter: rules see no template",
            fix="put it before, if rules go by message",
        )
    if "merge_contextvars" in names[ours:]:
        yield Finding(
            code="before_context",
            severity="note",
            where="structlog's chain",
            problem="our processor comes before merge_contextvars: what is bound there is found "
            "for ids, and is no property",
            fix="put it after",
        )


def _of_bound_level(logger: Any, level: int) -> Iterator[Finding]:
    structlog = sys.modules["structlog"]
    bound = None if logger is None else _bound(logger)
    kind: Any = type(bound)
    if bound is None:
        kind = getattr(logger, "_wrapper_class", None) or structlog.get_config()["wrapper_class"]
    method = getattr(kind, logging.getLevelName(level).lower(), None)
    if getattr(method, "__name__", "") == "_nop":
        yield Finding(
            code="structlog_level",
            severity="lost",
            where=f"structlog's {kind.__name__}",
            problem=f"make_filtering_bound_logger() leaves out {logging.getLevelName(level)}",
            fix="give it a lower level, or use userlens_instrument.track()",
        )


# ---------------------------------------------------------------- the client


# What a counter of `Stats` means, by its reason, and what to do.
REASONS = {
    "missing_user_id": (
        "lines without a user",
        "bind user_id with structlog.contextvars, or log it on the line",
    ),
    "missing_group_id": ("groups without an id", "log group_id on the line"),
    "missing_event_name": ("events without a name", "log a message, or name the event in the tag"),
    "invalid_user_id": ("user ids that are none", "give text, an integer or a UUID"),
    "invalid_group_id": ("group ids that are none", "give text, an integer or a UUID"),
    "invalid_tag": ("tags that are none", "tag with True, a name, a mapping, or Track(…)"),
    "invalid_timestamp": ("times that are none", "give a datetime, seconds, or ISO 8601"),
    "invalid_properties": ("properties that are no mapping", "give a mapping"),
    "invalid_traits": ("traits that are no mapping", "give a mapping"),
    "unknown_key": ("tags with a key that they cannot have", "put it under properties"),
    "unknown_type": ("tags of an unknown type", "give track, identify or group"),
    "too_many_events": ("tags with over 100 events", "log a line for each"),
    "regex_timeout": ("lines on which a rule's regex took too long", "write it more simply"),
    "unreadable": ("lines with a value that raises when it is read", "log plain values"),
    "own_thread": ("lines that on_error logged", "do not log events there"),
    "no_write_code": ("events without a write code", "set USERLENS_WRITE_CODE"),
    "disabled": ("events while disabled", "take the setting disabled away"),
    "queue_full": ("events that found the buffer full", "see why delivery is slow, or set spool"),
    "expired": ("events that were too old", "see why delivery failed for so long"),
    "attempts_exhausted": ("events that failed while others passed", "see spool dead-letters"),
    "shutdown": ("events the exit had no time for", "raise shutdown_timeout, or set spool"),
    "closed": ("events after shutdown()", "log before it"),
    "internal": ("events lost by an error of ours", "report it"),
    "spool_full": ("events that had to make room in the spool", "raise spool_max_bytes"),
    "spool_expired": ("events too old in the spool", "raise spool_max_age"),
    "spool_damaged": ("events of a damaged spool", "look at the disk"),
    "rejected": (
        "events that Userlens refused",
        "see the reason on the userlens_instrument logger",
    ),
    "too_large": ("events too large for Userlens", "send less, see max_body_bytes"),
}
_HELD_BACK = {
    "unavailable": ("Userlens cannot be reached, or is down", "userlens-instrument check"),
    "unauthorized": ("Userlens refuses the write code", "copy it again from Userlens' settings"),
    "redirect": ("the URL redirects", "correct events_url and raw_url"),
    "tls": ("the certificate cannot be verified", "userlens-instrument check"),
}


def _entrances_of(logger: Any) -> list[UserlensHandler | UserlensProcessor | _Sink]:
    """Return the handlers, processors and sinks of ours that lines of *logger* meet."""
    if isinstance(logger, (str, logging.Logger)):
        met = _on_the_way(_find(logger)[0])[0]
        return [entrance for handler in met for entrance in _entrances_behind(handler)]
    if _is_of_loguru(logger):
        return list(_sinks_of(logger))
    processors = [each for each in _chain_of(logger) if isinstance(each, UserlensProcessor)]
    if logger is not None:
        return list(processors)
    met = [handler for one in _loggers() for handler in _ours_on(one)]
    handlers = [entrance for handler in met for entrance in _entrances_behind(handler)]
    loguru = _read(sys.modules.get("loguru"), "logger")
    sinks = _sinks_of(loguru) if _is_of_loguru(loguru) else []
    return [*handlers, *processors, *sinks]


def _of_clients(asked: Any) -> Iterator[Finding]:
    for name, near in misspelled_variables():
        yield Finding(
            code="misspelled",
            severity="maybe",
            where=f"variable {name}",
            problem="it is no setting, and ignored",
            fix=f"did you mean {near}?",
        )
    in_use: dict[str, Settings] = {}
    entrances = _entrances_of(asked)
    uses_default = not entrances
    for entrance in entrances:
        own = entrance.settings
        uses_default = uses_default or own is None
        if own is not None:
            in_use[_shown(entrance)] = own
    if uses_default:
        default = registry.default
        try:
            settings = Settings.load({}) if default is None else default.settings
        except UserlensError as error:
            problem, _, fix = str(error).partition("; ")
            yield Finding(
                code="settings",
                severity="lost",
                where="the environment",
                problem=problem,
                fix=fix,
            )
        else:
            in_use["the environment" if default is None else "the default client"] = settings
    for where, each in in_use.items():
        yield from _of_settings(each, where)
    for client in list(registry.clients.values()):
        yield from _of_stats(client)


def _of_settings(settings: Settings, where: str) -> Iterator[Finding]:
    if settings.disabled:
        yield Finding(
            code="disabled",
            severity="lost",
            where=where,
            problem="disabled is set: every event is counted as dropped",
            fix="take it away",
        )
    elif settings.dry_run:
        yield Finding(
            code="dry_run",
            severity="lost",
            where=where,
            problem="dry_run is set: nothing is sent",
            fix="take it away",
        )
    elif settings.write_code is None:
        yield Finding(
            code="no_write_code",
            severity="lost",
            where=where,
            problem="there is no write code",
            fix="set USERLENS_WRITE_CODE, or call configure(write_code=…)",
        )


def _of_stats(client: Client) -> Iterator[Finding]:
    stats = client.stats()
    where = client.settings.events_url
    if stats.held_back is not None:
        problem, fix = _HELD_BACK[stats.held_back]
        yield Finding(
            code="held_back",
            severity="lost",
            where=where,
            problem=f"{problem}: {stats.pending} events are held, and tried again",
            fix=fix,
        )
    for kind in ("invalid", "dropped", "refused"):
        for reason, number in getattr(stats, kind).items():
            problem, fix = REASONS.get(reason, (f"{kind}: {reason}", "see the README"))
            yield Finding(
                code=reason,
                severity="maybe",
                where=where,
                problem=f"{number} so far: {problem}",
                fix=fix,
            )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
