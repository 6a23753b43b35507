"""
Where a log record of OpenTelemetry comes from: a record of `logging`, or a line of structlog.

OpenTelemetry's handler, and its processor for structlog, make a record of what
other entrances may have had, or are about to have, and hand it on before they
return. So what it was made of is on the stack, and tells exactly whether it is
the same line: no text, and no time, does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from userlens_instrument import processors


if TYPE_CHECKING:
    from types import FrameType


Origin: TypeAlias = logging.LogRecord | MutableMapping[str, Any] | None

# Frames between a handler and us, at most: the SDK's own are three.
_NEAR = 40
# OpenTelemetry counts whole nanoseconds since the epoch, a record has a float.
_NANOSECONDS = 1e9
_ROUNDING = 1_000.0
# Whose frames hold a line of structlog: its own, which call each processor, and
# those of OpenTelemetry's processor.
_STRUCTLOG = ("structlog.", "opentelemetry.instrumentation.structlog.")
# Where the SDK's ConcurrentMultiLogRecordProcessor calls us from, while the
# thread that logs waits.
_POOL = "concurrent.futures.thread"


def origin_of(log_record: Any) -> Origin:
    """Return what *log_record*, which is being emitted, was made of; None if of nothing else."""
    origin, is_on_pool = _search(sys._getframe(1), log_record)  # noqa: SLF001 - as logging's own findCaller
    if origin is None and is_on_pool:
        for frame in sys._current_frames().values():  # noqa: SLF001 - as above
            origin, _ = _search(frame, log_record)
            if origin is not None:
                break
    return origin


def _search(frame: FrameType | None, log_record: Any) -> tuple[Origin, bool]:
    """Return what was found from *frame* on, and whether it ends in a pool of threads."""
    for _ in range(_NEAR):
        if frame is None:
            break
        names = frame.f_code.co_varnames
        if "record" in names:
            record = frame.f_locals.get("record")
            if isinstance(record, logging.LogRecord) and _is_of(record, log_record):
                return record, False
        if "event_dict" in names and _is_structlogs(frame):
            line = frame.f_locals.get("event_dict")
            if isinstance(line, MutableMapping) and _is_text(line, log_record.body):
                return line, False
        if frame.f_code.co_name == "_worker" and frame.f_globals.get("__name__") == _POOL:
            return None, True
        frame = frame.f_back
    return None, False


def _is_of(record: logging.LogRecord, log_record: Any) -> bool:
    """Return whether *log_record* has the time of *record*: a handler may log lines of its own."""
    time = log_record.timestamp
    return time is not None and abs(time - record.created * _NANOSECONDS) <= _ROUNDING


def _is_structlogs(frame: FrameType) -> bool:
    """Return whether *frame* runs structlog: anybody may call a variable as its authors do."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and f"{name}.".startswith(_STRUCTLOG)


def _is_text(line: MutableMapping[str, Any], body: object) -> bool:
    text = processors.text_of(line)
    return text is body or (type(text) is str and type(body) is str and text == body)
