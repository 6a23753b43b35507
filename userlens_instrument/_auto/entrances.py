"""The entrances of a program that `auto` looks at: a tenth of a second to import."""

from __future__ import annotations

import string
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from os import getpid
from typing import TYPE_CHECKING, Any

from userlens_instrument._auto.gate import (
    TAG,
    is_tagged,
    is_tagged_text,
    is_under_way,
    of_thread,
    skip_record,
)
from userlens_instrument._auto.lines import said_of
from userlens_instrument._core.once import OnceGuard, token_of
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument.client import call_site, default_client, unreadable
from userlens_instrument.exceptions import UserlensError
from userlens_instrument.handlers import UserlensHandler
from userlens_instrument.processors import UserlensProcessor, mark, text_of


if TYPE_CHECKING:
    import logging

    from userlens_instrument._auto.gate import Call, Mark, TakeLine, TakeRecord


# By the method of a stdlib logger that structlog calls.
_LEVELS = {
    "debug": 10,
    "info": 20,
    "warn": 30,
    "warning": 30,
    "error": 40,
    "exception": 40,
    "critical": 50,
    "fatal": 50,
}


# What no renderer escapes.
_PLAIN = frozenset(string.ascii_letters + string.digits + " _.-")


# For who has looked for marks already.
_UNMARKED = OnceGuard()


class RecordHandler(UserlensHandler):
    """A handler that is attached nowhere: it is handed every record of this process."""

    def take(self, record: logging.LogRecord) -> None:
        """Capture *record*, unless that is done elsewhere. Never raises an `Exception`."""
        try:
            fields = record.__dict__
            process = fields.get("process")
            # A filter may have put a name there.
            if type(process) is int and process != getpid():
                # Out of a queue or a socket: it has been taken where it was logged.
                return
            repeats = of_thread.repeats
            if repeats is not None and self._is_repeated(record, fields, repeats):
                client = self._client()
                # For a handler of the application's own that meets it, too.
                client.once.claim(token_of(record))
                client.sender.ledger.count("duplicates")
                return
        except Exception as error:
            unreadable(self._client, error, call_site)
            return
        self.emit(record)

    def _is_repeated(
        self,
        record: logging.LogRecord,
        fields: dict[str, Any],
        repeats: tuple[str, Call | None, Mark | None],
    ) -> bool:
        """Return whether *record* is what became of the line that was taken on this thread."""
        logger, call, mark = repeats
        text = text_of(record.msg)
        # Under whatever name, if it is known for sure.
        if text is not mark or mark is None:
            if not is_under_way(call):
                return False
            if mark != (id(_tag_of(record)), id(text)) and not (
                logger == fields.get("name") and (mark is None or _may_be_rendered(record, mark))
            ):
                return False  # of who listens in, or of a filter: ours may still come
        of_thread.repeats = None
        return True


def _tag_of(record: logging.LogRecord) -> object:
    """Return the tag of *record*, wherever that is; None without."""
    for place in (record.__dict__, record.msg, record.args):
        if isinstance(place, Mapping) and TAG in place:
            return place[TAG]
    return None


def _may_be_rendered(record: logging.LogRecord, mark: Mark) -> bool:
    """Return whether *record* may be all that a renderer has made of a line with *mark*."""
    if record.args or is_tagged(record):
        return False
    # As it is, unless it had to be escaped.
    return isinstance(mark, tuple) or not _PLAIN.issuperset(mark) or mark in str(record.msg)


class LineProcessor(UserlensProcessor):
    """
    A processor that changes nothing of what is printed, and knows what was formatted.

    A line may go on to `logging`, in whatever shape, with its tag. That it has
    been captured is told by its text, an equal but new one; and, where the
    text is rendered, known by the thread.
    """

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:
        """Capture *event_dict* if it is tagged or a rule means it, and return it."""
        try:
            if isinstance(event_dict, MutableMapping):
                if TAG in event_dict:
                    self._take_tagged(logger, method_name, event_dict)
                    return event_dict
            elif is_tagged_text(event_dict):
                self._find_client().sender.ledger.count("invalid", "unreadable")
                where = call_site()
                voice.say(
                    f"rendered {where}",
                    f"not an event, at {where}: a processor of structlog has made text of the line "
                    "before it was read; the next ones are read before that, or, if this is "
                    "said again, with a UserlensProcessor in front of it",
                )
                return event_dict
        except Exception as error:
            unreadable(self._find_client, error, call_site)
            return event_dict
        return super().__call__(logger, method_name, event_dict)

    def _take_tagged(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> None:
        copies = getattr(event_dict, "copy", None)
        copy: Any = dict(event_dict) if copies is None else copies()
        if self._road is not None:
            # Asked here, so that the short way need not be left for it.
            if self._find_client().once.has_seen(event_dict.get("event")):
                self._road = None
            else:
                self._road.once = _UNMARKED
        super().__call__(logger, method_name, copy)
        # structlog's own loggers print, and that is that.
        if type(logger).__module__ != "structlog._output":
            client = self._find_client()
            with suppress(Exception):  # of a mapping that takes nothing
                if mark(client, event_dict):
                    client.once.marks = True
        self._skip_record(logger, method_name, event_dict)

    def _skip_record(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> None:
        text = text_of(event_dict)
        told_by: Mark | None = None
        if type(text) is str and self._find_client().once.has_seen(text):
            told_by = text
        elif TAG in event_dict:
            told_by = id(event_dict[TAG]), id(text)
        skip_record(logger, _LEVELS.get(method_name), told_by)

    def _go_by_rules(
        self,
        logger: Any,
        method_name: str,
        event_dict: MutableMapping[str, Any],
        said: tuple[object, tuple[object, ...]] | None = None,
    ) -> bool:
        captured = super()._go_by_rules(
            logger, method_name, event_dict, said or said_of(event_dict)
        )
        if captured:
            self._skip_record(logger, method_name, event_dict)
        return captured


def make_entrances() -> tuple[TakeRecord, TakeLine]:
    """
    Return what takes records, and what takes lines of structlog.

    Settings of the environment that are wrong are one line of diagnostics, and
    every event is counted as dropped.
    """
    try:
        return _make()
    except UserlensError:
        # Says what is wrong, and stands in.
        default_client()
        return _make()


def _make() -> tuple[TakeRecord, TakeLine]:
    return RecordHandler().take, LineProcessor()
