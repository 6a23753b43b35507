"""The entrances of a program that `auto` looks at: a tenth of a second to import."""

from __future__ import annotations

from collections.abc import MutableMapping
from os import getpid
from typing import TYPE_CHECKING, Any

from userlens_instrument._auto.gate import TAG, is_under_way, of_thread, skip_record
from userlens_instrument._auto.lines import said_of
from userlens_instrument.client import call_site, default_client, unreadable
from userlens_instrument.exceptions import UserlensError
from userlens_instrument.handlers import UserlensHandler
from userlens_instrument.processors import UserlensProcessor


if TYPE_CHECKING:
    import logging

    from userlens_instrument._auto.gate import TakeLine, TakeRecord


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


class RecordHandler(UserlensHandler):
    """A handler that is attached nowhere: it is handed every record of this process."""

    def take(self, record: logging.LogRecord) -> None:
        """Capture *record*, unless that is done elsewhere. Never raises an `Exception`."""
        fields = record.__dict__
        process = fields.get("process")
        if process is not None and process != getpid():
            # Out of a queue or a socket: it has been taken where it was logged.
            return
        if of_thread.repeats is None:
            self.emit(record)
            return
        (logger, call), of_thread.repeats = of_thread.repeats, None
        if logger != fields.get("name") or not is_under_way(call):
            self.emit(record)
            return
        client = self._client()
        # For a handler of the application's own that meets it, too.
        client.once.claim(fields.get("relativeCreated", record))
        client.sender.ledger.count("duplicates")


class LineProcessor(UserlensProcessor):
    """
    A processor that changes nothing of what is printed, and knows what was formatted.

    A line may go on to `logging`, in whatever shape, with its tag; that it has
    been captured is known there by the thread.
    """

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:
        """Capture *event_dict* if it is tagged or a rule means it, and return it."""
        try:
            if isinstance(event_dict, MutableMapping) and TAG in event_dict:
                copy: Any = event_dict.copy()  # type: ignore[attr-defined]
                super().__call__(logger, method_name, copy)
                skip_record(logger, _LEVELS.get(method_name))
                return event_dict
        except Exception as error:
            unreadable(self._find_client, error, call_site)
            return event_dict
        return super().__call__(logger, method_name, event_dict)

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
            skip_record(logger, _LEVELS.get(method_name))
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
