"""
Lines of structlog, taken by a processor before the renderer.

It is put into every chain of processors that structlog is configured with,
whichever function does it and however early that was imported.
"""

from __future__ import annotations

from _collections_abc import Mapping, MutableSequence

from userlens_instrument._auto.gate import gate, of_thread, say


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


# What makes text, or a call's arguments, of an event dict: behind it there are
# no fields. Of a class by its name, of a function by its own.
_RENDERERS = frozenset(
    {
        "ConsoleRenderer",
        "JSONRenderer",
        "KeyValueRenderer",
        "LogfmtRenderer",
        "EventAdapter",
        "render_to_log_args_and_kwargs",
        "render_to_log_kwargs",
        "wrap_for_formatter",
    }
)


def take_line(logger: Any, method_name: str, event_dict: Any) -> Any:
    """Take an event dict, and return it: a processor."""
    gate.take_line(logger, method_name, event_dict)
    if of_thread.said is not None:
        of_thread.said = None
    return event_dict


def note_template(logger: Any, method_name: str, event_dict: Any) -> Any:  # noqa: ARG001 - structlog's call
    """Note the text and its arguments, which the next processor formats: a processor."""
    if isinstance(event_dict, Mapping):
        args = event_dict.get("positional_args")
        if args and type(args) is tuple:
            of_thread.said = (event_dict, event_dict.get("event"), args)
    return event_dict


def said_of(event_dict: Mapping[str, Any]) -> tuple[object, tuple[object, ...]] | None:
    """
    Return the text before formatting and its arguments, if they were noted of *event_dict*.

    A processor may have made another dict meanwhile, or logged a line of its own.
    """
    said = of_thread.said
    if said is None:
        return None
    noted, template, args = said
    if noted is not event_dict:
        single = args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args
        try:
            if template % single != event_dict.get("event"):  # type: ignore[operator]
                return None
        except Exception:
            return None
    return template, args


def watch(module: ModuleType) -> Callable[[], object]:
    """
    Look at each line of every chain that structlog is configured with, now and later.

    Args:
        module: ``structlog._config``.

    Returns:
        What takes it back.
    """
    configuration, proxy = module._CONFIG, module.BoundLoggerLazyProxy  # noqa: SLF001 - see there
    undo = _watch_configuration(configuration)
    undo_loggers = _watch_loggers(proxy)

    def undo_both() -> None:
        undo_loggers()
        undo()

    return undo_both


def _watch_configuration(configuration: Any) -> Callable[[], object]:
    # Where every way to configure it ends, `from structlog import configure`
    # before us included. No function is wrapped: what they warn of, or raise,
    # names the same lines as ever.
    original = type(configuration)

    class Watched(original):  # type: ignore[misc, valid-type]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, with_ours(value) if name == "default_processors" else value)

    Watched.__name__, Watched.__qualname__ = original.__name__, original.__qualname__
    Watched.__module__ = original.__module__
    configuration.__class__ = Watched
    configuration.default_processors = configuration.default_processors

    def undo() -> None:
        configuration.__class__ = original
        configuration.default_processors = _edited(configuration.default_processors, _stripped)

    return undo


def _watch_loggers(proxy: Any) -> Callable[[], object]:
    # Of wrap_logger(), with processors of its own.
    original = proxy.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it is one
        original(self, *args, **kwargs)
        if self._processors is not None:
            self._processors = with_ours(self._processors)

    __init__.__wrapped__ = original  # type: ignore[attr-defined]
    __init__.__doc__ = original.__doc__
    proxy.__init__ = __init__

    def undo() -> None:
        proxy.__init__ = original

    return undo


def with_ours(processors: Any) -> Any:
    """
    Return a chain of processors with ours in it, once.

    A list is changed in place: loggers that are cached have this very object.

    Args:
        processors: As structlog is given them; what is neither list nor tuple is left alone.
    """
    return _edited(processors, _arranged)


def _edited(processors: Any, edit: Callable[[list[Any]], list[Any]]) -> Any:
    try:
        if not isinstance(processors, (MutableSequence, tuple)):
            return processors
        before = list(processors)
        after = edit(before)
        # By identity: to compare a processor is its own business.
        if list(map(id, before)) == list(map(id, after)):
            return processors
        if isinstance(processors, tuple):
            return tuple(after)
        if isinstance(processors, list):
            processors[:] = after  # in one step, for who goes through it just now
        else:
            processors.clear()
            processors.extend(after)
    except Exception:
        say("these processors of structlog cannot be changed: their lines are not captured")
    return processors


def _stripped(chain: list[Any]) -> list[Any]:
    return [each for each in chain if each is not take_line and each is not note_template]


def _arranged(chain: list[Any]) -> list[Any]:
    """Return *chain* with ours before the renderer, and before what formats the text."""
    arranged = _stripped(chain)
    names = [_names_of(each) for each in arranged]
    if any("LogCapture" in each for each in names):
        return chain  # a test's, which wants to see the line as it is logged
    if any("UserlensProcessor" in each for each in names):
        return arranged  # the application's own
    last = max(len(arranged) - 1, 0)
    place = next((at for at, each in enumerate(names) if _RENDERERS & each), last)
    arranged.insert(place, take_line)
    for at, each in enumerate(names[:place]):
        if "PositionalArgumentsFormatter" in each:
            arranged.insert(at, note_template)
            break
    return arranged


def _names_of(processor: Any) -> set[str]:
    names = {each.__name__ for each in type(processor).__mro__}
    names.add(getattr(processor, "__name__", ""))
    return names
