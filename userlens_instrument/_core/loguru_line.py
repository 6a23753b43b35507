"""
What loguru's record does not say of its line: the template, its arguments, and whence it came.

loguru formats before any sink has the record, and a handler of `logging` gets
no more than the text. But it calls its sinks before the log call returns, so
that the call is on the stack, with everything that was said; unless the sink
was added with ``enqueue=True`` and has the record, pickled, on another thread.
Nothing is imported of loguru: who logs with it has done so.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType


# Frames between an entrance and what it looks for, at most. From a bridge's
# handler through loguru, and a bridge back into `logging`, they are some twenty.
_NEAR = 40


class Said(NamedTuple):
    """
    What a call of loguru has said.

    Attributes:
        message: The template; the formatted text where that is not known.
        args: Its positional arguments.
        kwargs: Its keyword arguments, captured (``capture=True``) or not.
        surroundings: What is in its ``extra`` and was neither bound nor given:
            from ``contextualize``, ``configure`` and patchers.
        origin: The record of `logging` that a bridge has made the call of; None if of none.
        is_changed: Whether a patcher or a filter has put another text in its place, to
            hide what must not leave the process: then the text is all there is.
    """

    message: object
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, Any] = {}
    surroundings: Mapping[str, Any] = {}
    origin: Any = None
    is_changed: bool = False


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


def said_of(record: dict[str, Any]) -> Said:
    """Return what the call that made loguru's *record* has said; if it is gone, the text."""
    for frame in _frames_from(sys._getframe(1)):  # noqa: SLF001 - as above
        if frame.f_code.co_name == "_log" and _is_of_loguru(frame):
            call = frame.f_locals
            if call.get("log_record") is record:
                return _read(call, record, frame.f_back)
    return Said(record["message"])


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
    text = record["message"]
    if args is None or kwargs is None or bound is None:
        return Said(text)
    surroundings = {
        name: value
        for name, value in record["extra"].items()
        if name not in bound and name not in kwargs
    }
    made = _text_of(call)
    origin = _origin(caller, made)
    if made != text:
        return Said(text, (), {}, surroundings, origin, is_changed=True)
    # Without arguments loguru leaves braces alone: the text, less any markup.
    message = call["message"] if args or kwargs else text
    # ``opt(record=True)`` gives itself as one.
    named = {name: value for name, value in kwargs.items() if value is not record}
    return Said(message, tuple(args), named, surroundings, origin)


def _text_of(call: Mapping[str, Any]) -> object:
    """Return the text that loguru had made before any patcher; None if it cannot be told."""
    colored = call.get("colored_message")
    try:
        if colored is not None:
            return colored.stripped
        if call["args"] or call["kwargs"]:
            return call["message"].format(*call["args"], **call["kwargs"])
        return str(call["message"])
    except Exception:  # of a value that formats once and not twice
        return None


def _handling(frame: FrameType | None) -> FrameType | None:
    """Return the nearest frame from *frame* on in which `logging` calls its handlers."""
    for near in _frames_from(frame):
        if near.f_code.co_name == "callHandlers":
            return near
    return None


def _origin(frame: FrameType | None, text: object) -> Any:
    """Return the record of `logging` with such a *text* that is being handled; None if none is."""
    handling = _handling(frame)
    record = None if handling is None else handling.f_locals.get("record")
    try:
        # A handler may log lines of its own.
        return record if record is not None and record.getMessage() == text else None
    except Exception:
        return None
