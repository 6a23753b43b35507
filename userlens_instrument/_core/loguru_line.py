"""
What loguru's record does not say of its line: the template, its arguments, and whence it came.

loguru formats before any sink has the record, and a handler of `logging` gets
no more than the text. But it calls its sinks before the log call returns, so
that the call is on the stack, with everything that was said; unless the sink
was added with ``enqueue=True`` and has the record, pickled, on another thread.
Nothing is imported of loguru: who logs with it has done so.

Whether the text is still the one that loguru had made is told without making it
again. A value's own ``__str__`` or ``__format__`` may ask a database, or log a
line, and would do so under the lock of loguru's handler.
"""

from __future__ import annotations

import re
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType


# Frames between an entrance and what it looks for, at most. From a bridge's
# handler through loguru, and a bridge back into `logging`, they are some twenty.
_NEAR = 40


# Whose text costs nothing, and is the same each time. Of exactly these types: a
# subclass may have a text of its own.
_NUMBERS = (int, float, complex, bool, Decimal)
_TIMES = (datetime, date, time, timedelta)
_PLAIN = frozenset((str, bytes, type(None), UUID, *_NUMBERS, *_TIMES))
# Stands for the text of any other value.
_ANYTHING = "\0anything\0"
# A conversion of logging's own templates, or the percent sign.
_CONVERSION = re.compile(r"%(?:%|(?:\(.*?\))?[-#0 +]*[*\d]*(?:\.[*\d]*)?[hlL]?[a-zA-Z])", re.DOTALL)


class Said(NamedTuple):
    """
    What a call of loguru has said.

    Attributes:
        message: The template; the formatted text where that is not known.
        args: Its positional arguments.
        kwargs: Its keyword arguments, if they are not captured (``capture=False``); what
            is captured is in the record's ``extra``, or a patcher has taken it away.
        surroundings: What is in its ``extra`` and was neither bound nor given:
            from ``contextualize``, ``configure`` and patchers.
        hidden: Names of what was bound or given, and is not in its ``extra`` any more.
        origin: The record of `logging` that a bridge has made the call of; None if of none.
        is_changed: Whether a patcher or a filter has put another text in its place, to
            hide what must not leave the process: then the text is all there is.
        elapsed: The time since the start as the call has it, of which each has its own
            object; None if that is not known.
    """

    message: object
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, Any] = {}
    surroundings: Mapping[str, Any] = {}
    hidden: frozenset[str] = frozenset()
    origin: Any = None
    is_changed: bool = False
    elapsed: object = None


def record_of(extra: object) -> dict[str, Any] | None:
    """
    Return loguru's record, if it is loguru that handed over a `logging` record with *extra*.

    loguru puts its fields into one attribute of that name. Anybody may use such
    a name; only loguru, on the stack, holds this very dict as the ``extra`` of a record.
    """
    if type(extra) is dict:
        for frame in _frames_from(sys._getframe(1)):  # noqa: SLF001 - as logging's own findCaller
            if _is_of_loguru(frame):
                for value in frame.f_locals.values():
                    if type(value) is dict and value.get("extra") is extra:
                        return value
    return None


def is_bridged() -> bool:
    """Return whether a handler of `logging` is at work on this thread: it may be a bridge."""
    return _handling(sys._getframe(1)) is not None  # noqa: SLF001 - as above


def template_of(record: dict[str, Any]) -> object:
    """Return the template that loguru's *record* was made of, whatever became of it; or None."""
    call, _ = _call_of(record, sys._getframe(1))  # noqa: SLF001 - as above
    return call.get("message")


def said_of(record: dict[str, Any]) -> Said:
    """Return what the call that made loguru's *record* has said; if it is gone, the text."""
    call, caller = _call_of(record, sys._getframe(1))  # noqa: SLF001 - as above
    return _read(call, record, caller) if call else Said(record["message"])


def token_of_line(record: dict[str, Any], said: Said) -> object:
    """
    Return what tells loguru's *record* from any other, for `OnceGuard.claim`.

    loguru makes a timedelta new with each record, and all sinks share it. It is the
    call's, if that can be found: a patcher may give many records the same. Not the
    record itself, unless there is nothing else: the guard keeps it for a while, and
    it may hold a traceback.
    """
    elapsed = record.get("elapsed") if said.elapsed is None else said.elapsed
    return elapsed if type(elapsed) is timedelta else record


def _call_of(
    record: dict[str, Any], frame: FrameType | None
) -> tuple[Mapping[str, Any], FrameType | None]:
    """Return what the call that made *record* has at hand, and its caller; {} if it is gone."""
    for near in _frames_from(frame):
        if near.f_code.co_name == "_log" and _is_of_loguru(near):
            call = near.f_locals  # made anew each time
            if call.get("log_record") is record:
                return call, near.f_back
    return {}, None


def _frames_from(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(_NEAR):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _is_of_loguru(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("loguru.")


def _read(call: Mapping[str, Any], record: dict[str, Any], caller: FrameType | None) -> Said:
    # As they are called in loguru 0.5 to 0.7; of another one, the text will do.
    args, kwargs, bound = call.get("args"), call.get("kwargs"), call.get("extra")
    text, extra, elapsed = record["message"], record["extra"], call.get("elapsed")
    if args is None or kwargs is None or bound is None:
        return Said(text, elapsed=elapsed)
    surroundings = {
        name: value for name, value in extra.items() if name not in bound and name not in kwargs
    }
    is_captured = call.get("capture", True)
    hidden = frozenset((*bound, *kwargs) if is_captured else bound).difference(extra)
    made = _made(call, text)
    said = Said(
        text,
        surroundings=surroundings,
        hidden=hidden,
        origin=_origin(caller, made),
        elapsed=elapsed,
    )
    if made is None or not _fits(text, made):
        return said._replace(is_changed=True)
    if _ANYTHING in made and _is_patched(call):
        # It may be such a value that a patcher has hidden in the text.
        args = ()
        kwargs = {name: value for name, value in kwargs.items() if _is_plain(value)}
    # ``opt(record=True)`` gives itself as one.
    named = {
        name: value for name, value in kwargs.items() if not is_captured and value is not record
    }
    # Without arguments loguru leaves braces alone: the text, less any markup.
    message = call["message"] if call["args"] or call["kwargs"] else text
    return said._replace(message=message, args=tuple(args), kwargs=named)


def _is_patched(call: Mapping[str, Any]) -> bool:
    # `patcher` until 0.5.
    patchers = (
        getattr(call.get("core"), "patcher", None),
        call.get("patchers", call.get("patcher")),
    )
    return any(patchers)


def _is_plain(value: object) -> bool:
    return type(value) in _PLAIN


class _Unread:
    """
    In the place of a value that is not asked for its text: itself, and all of its parts.

    But for its special attributes: whoever looks through all objects there are (eventlet,
    when it patches) asks each for its class.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> Any:
        return self

    def __format__(self, spec: str) -> str:
        return _ANYTHING

    def __repr__(self) -> str:
        return _ANYTHING


_UNREAD = _Unread()


def _readable(value: object) -> object:
    return value if _is_plain(value) else _UNREAD


def _made(call: Mapping[str, Any], text: object) -> str | None:
    """Return the text that loguru had made before any patcher; None if it cannot be told."""
    colored = call.get("colored_message")
    message: Any = call["message"]
    args: Iterable[object] = call["args"]
    kwargs: Mapping[str, object] = call["kwargs"]
    made: object = None
    try:
        if colored is not None:
            made = colored.stripped
        elif not args and not kwargs:
            # Of an object it is all there is to go by, in any case.
            made = message if type(message) is str else text
        elif isinstance(message, str):
            named = {name: _readable(value) for name, value in kwargs.items()}
            made = str.format(message, *map(_readable, args), **named)
    except Exception:  # of a template that asks more of a value than its text
        return None
    return made if isinstance(made, str) else None


def _fits(text: object, made: str) -> bool:
    """Return whether *text* is what was *made*, whatever `_ANYTHING` in it stands for."""
    if not isinstance(text, str):
        return False
    first, *others = made.split(_ANYTHING)
    if not others:
        return text == made
    last = others.pop()
    place, end = len(first), len(text) - len(last)
    if not (text.startswith(first) and text.endswith(last) and place <= end):
        return False
    for part in others:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _handling(frame: FrameType | None) -> FrameType | None:
    """Return the nearest frame from *frame* on in which `logging` calls its handlers."""
    for near in _frames_from(frame):
        if near.f_code.co_name == "callHandlers":
            return near
    return None


def _origin(frame: FrameType | None, text: str | None) -> Any:
    """Return the record of `logging` with such a *text* that is being handled; None if none is."""
    handling = _handling(frame)
    record = None if handling is None else handling.f_locals.get("record")
    try:
        # A handler may log lines of its own.
        return record if record is not None and _fits(text, _printed(record)) else None
    except Exception:
        return None


def _printed(record: Any) -> str:
    """Return what is printed of a record of `logging`, `_ANYTHING` for what is not asked."""
    args = record.args or ()
    values = args.values() if isinstance(args, dict) else args
    if type(record.msg) is str and all(map(_is_plain, values)):
        return str(record.getMessage())
    if type(record.msg) is not str or type(record).getMessage.__module__ != "logging":
        # A bridge is likelier than a handler that logs at such a record.
        return _ANYTHING
    return _CONVERSION.sub(lambda found: "%" if found[0] == "%%" else _ANYTHING, record.msg)
