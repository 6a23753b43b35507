"""
Lines of structlog, taken just before they are rendered.

In every chain of processors that structlog is configured with, whichever
function does it and however early that was imported, something of ours stands
in the place of the renderer: it looks, and the renderer is called as ever.
Nothing is inserted: another thread may be going through the very list just now,
and goes by the index.
"""

from __future__ import annotations

import sys
from _collections_abc import Mapping, MutableSequence

from userlens_instrument._auto.gate import forget_repeats, gate, of_thread, say


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
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


# What a processor makes of an event dict that is the last to have fields.
_RENDERED = frozenset({str, bytes, bytearray, tuple})

# Processors that were seen to make text of event dicts, though nothing says that
# they do; the first ones, because a program that makes them anew with each
# configuration would have us keep them all.
_seen_renderers: list[object] = []
_MOST_SEEN = 100


def take_line(logger: Any, method_name: str, event_dict: Any) -> Any:
    """Take an event dict, and return it: a processor."""
    if of_thread.repeats is not None:
        forget_repeats()
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


def pass_on(logger: Any, method_name: str, event_dict: Any) -> Any:  # noqa: ARG001 - structlog's call
    """Return an event dict: what stands in a chain that had no processor."""
    return event_dict


class Standing:
    """
    Stands in the place of a processor: looks at the line, and has the processor called.

    Not even a traceback shows it: within structlog's own loop, `__call__` is
    looked up, with a look at the line in passing, and is the processor. For
    everybody else it is as much that processor as can be.
    """

    __slots__ = ("__look", "__original", "__weakref__")

    __look: Callable[[Any, str, Any], object]
    __original: Any

    def __init__(self, original: Any, look: Callable[[Any, str, Any], object]) -> None:
        object.__setattr__(self, "_Standing__original", original)
        object.__setattr__(self, "_Standing__look", look)

    @property
    def __call__(self) -> Any:
        frame = sys._getframe(1)  # noqa: SLF001 - see above
        if frame.f_code is not _Loop.code:
            return self.__call_through
        names = frame.f_locals
        line = names["event_dict"]
        if type(line) in _RENDERED and self.__look is take_line:
            _note_renderer(self, names["self"])
        self.__look(names["self"]._logger, names["method_name"], line)  # noqa: SLF001
        return self.__original

    def __call_through(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 3:
            self.__look(*args)
        return self.__original(*args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.__original.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__original, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__original, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__original, name)

    def __eq__(self, other: object) -> Any:
        return self.__original == original_of(other)

    def __hash__(self) -> int:
        return hash(self.__original)

    def __repr__(self) -> str:
        return repr(self.__original)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Standing, (self.__original, self.__look)


class _Loop:
    """How structlog goes through a chain."""

    #: Of the method that does; None if it is not as it is known.
    code: CodeType | None = None


def original_of(processor: Any) -> Any:
    """Return the processor in whose place one of ours stands; any other as it is."""
    if type(processor) is Standing:
        return processor._Standing__original  # noqa: SLF001 - its own
    return processor


def look_of(processor: Any) -> object:
    """Return what looks at the line in the place of *processor*: one of the above, or None."""
    if type(processor) is Standing:
        return processor._Standing__look  # noqa: SLF001 - its own
    return None


def is_taken_at(processor: Any) -> bool:
    """Return whether lines are taken in the place of *processor*."""
    return look_of(processor) is take_line


def _note_renderer(standing: Standing, bound_logger: Any) -> None:
    """Have lines taken before what has made text of this one, from the next one on."""
    try:
        chain = bound_logger._processors  # noqa: SLF001 - structlog's
        place = [id(each) for each in chain].index(id(standing))
        if not place or len(_seen_renderers) >= _MOST_SEEN:
            return
        renderer = original_of(chain[place - 1])
        if not any(each is renderer for each in _seen_renderers):
            _seen_renderers.append(renderer)
        if isinstance(chain, tuple):
            configuration = sys.modules["structlog._config"]._CONFIG  # noqa: SLF001 - see `watch`
            if configuration.default_processors is chain:
                configuration.default_processors = chain  # arranged anew on the way
        else:
            with_ours(chain)
    except Exception:
        return  # somebody has changed the chain meanwhile


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
    _Loop.code = _loop_of(sys.modules.get("structlog._base"))
    undo = _watch_configuration(configuration)
    undo_loggers = _watch_loggers(proxy)

    def undo_both() -> None:
        undo_loggers()
        undo()

    return undo_both


def _loop_of(module: Any) -> CodeType | None:
    """Return the code of the method that calls one processor after the other, if it is known."""
    base = getattr(module, "BoundLoggerBase", None)
    code: CodeType | None = getattr(getattr(base, "_process_event", None), "__code__", None)
    known = {"self", "method_name", "event_dict"}
    return code if code is not None and known <= {*code.co_varnames} else None


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

    A list is changed in place, one element at a time: loggers that are cached
    have this very object.

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
        _change(processors, before, after)
    except Exception:
        say("these processors of structlog cannot be changed: their lines are not captured")
    return processors


def _change(processors: MutableSequence[Any], before: list[Any], after: list[Any]) -> None:
    if not before:
        processors.extend(after)  # whoever goes through it just now is at its end
        return
    if not after:
        processors.clear()  # it had nothing but one of ours, which changes nothing
        return
    changes = [
        (place, old, new)
        for place, (old, new) in enumerate(zip(before, after))  # noqa: B905 - of one length
        if old is not new
    ]
    # First what is put in: a line that comes between is taken twice rather than
    # never, which the second time is known.
    changes.sort(key=lambda change: type(change[2]) is not Standing)
    for place, old, new in changes:
        if processors[place] is old:
            processors[place] = new


def _stripped(chain: list[Any]) -> list[Any]:
    originals = [original_of(each) for each in chain]
    return [] if originals == [pass_on] else originals


def _arranged(chain: list[Any]) -> list[Any]:
    """Return *chain* with ours in the place of the renderer, and of what formats the text."""
    originals = [original_of(each) for each in chain]
    names = [_names_of(each) for each in originals]
    if any("LogCapture" in each for each in names):
        return chain  # a test's, which wants to see the line as it is logged
    if any("UserlensProcessor" in each for each in names):
        return originals  # the application's own
    if not chain:
        return [Standing(pass_on, take_line)]
    place = next(
        (
            at
            for at, each in enumerate(originals)
            if _RENDERERS & names[at] or any(each is seen for seen in _seen_renderers)
        ),
        len(originals) - 1,
    )
    looks = {place: take_line}
    for at, each in enumerate(names[:place]):
        if "PositionalArgumentsFormatter" in each:
            looks[at] = note_template
            break
    return [
        each
        if look_of(each) is looks.get(at)
        else Standing(originals[at], looks[at])
        if at in looks
        else originals[at]
        for at, each in enumerate(chain)
    ]


def _names_of(processor: Any) -> set[str]:
    names = {each.__name__ for each in type(processor).__mro__}
    names.add(getattr(processor, "__name__", ""))
    return names
