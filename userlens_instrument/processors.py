"""The structlog entrance: a processor that lets every event dict pass, and captures the tagged."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from userlens_instrument._core.extract import LONGEST_ID, Plumbing, Reader, Record
from userlens_instrument._core.shape import FLAT, flat_id, is_stamp
from userlens_instrument._core.times import parse_time
from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.threads import is_own_thread, own_thread
from userlens_instrument.client import (
    Client,
    Road,
    call_site,
    check_client,
    default_client,
    registry,
    structlog_context,
    unreadable,
)


if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping


TAG = "userlens_event"

# What structlog itself, and its own processors, put beside the fields of a
# call. A field "name" is data here: only the call-site names below are shared
# with a LogRecord, and some of them an application may well use itself.
PLUMBING = Plumbing(
    frozenset(
        {
            "event",
            "level",
            "level_number",
            "logger",
            "timestamp",
            "exc_info",
            "exception",
            "stack",
            "stack_info",
            "stacklevel",
            "positional_args",
        }
    ),
    callsite=frozenset({"filename", "module", "process", "thread"}),
    names_of_callsite=frozenset(
        {
            "func_name",
            "lineno",
            "pathname",
            "process_name",
            "qual_module",
            "qual_name",
            "task_name",
            "thread_name",
        }
    ),
)

# A line within a ProcessorFormatter may be a handler's, too.
_NEVER = frozenset({"_record"})

_wall = SystemClock.wall


class UserlensProcessor:
    """
    Turn tagged event dicts into Userlens events; hand on every one as it is.

    Put it after ``merge_contextvars`` and before anything that renders. It
    returns the very object that it was given, whatever its type, and never
    raises an `Exception`.

    Args:
        client: Where to; the default client, found at the first event, if absent.
        tag: Name of the field that tags a line.
        keep_tag: Whether the tag stays on the event dict and is rendered; only
            beside a message of two or more characters, which marks it as captured.

    Raises:
        SettingsError: If *client* is none, or a setting of the environment is wrong.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self, client: Client | None = None, *, tag: str = TAG, keep_tag: bool = False
    ) -> None:
        """Take over the options; start nothing."""
        check_client(client)
        self._client = client
        self._tag = tag
        self._keep_tag = keep_tag
        self._reader: tuple[Client | None, Reader | None] = (None, None)
        self._road: Road | None = None

    def __repr__(self) -> str:
        """Show the options."""
        return f"UserlensProcessor(client={self._client!r}, tag={self._tag!r})"

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:  # noqa: ARG002 - structlog's call
        """Capture *event_dict* if it is tagged, and return it."""
        # One lookup decides for the untagged. After a renderer it is a str,
        # bytes or a tuple, which we only hand on; before, it is whatever
        # structlog's context_class makes, and dict by default.
        try:
            if type(event_dict) is dict:
                if self._tag in event_dict and not self._take(event_dict):
                    self._capture(event_dict)
            elif isinstance(event_dict, MutableMapping) and self._tag in event_dict:
                self._capture(event_dict)
        except Exception as error:
            unreadable(self._find_client, error, call_site)
        return event_dict

    def _take(self, event_dict: dict[str, Any]) -> bool:  # noqa: C901 - a call costs, a branch does not
        """
        Take the common line in one pass: a track of a known shape, all of its values flat.

        Returns:
            Whether it was taken. If not, nothing has happened yet.
        """
        road = self._road
        if road is None or road.client is not (self._client or registry.default):
            return False
        shapes = road.shapes
        shape = shapes.known.get(tuple(event_dict))
        name = event_dict.get("event")
        if (
            not shape
            or event_dict[self._tag] is not True
            or type(name) is not str
            or name not in shapes.events
            or own_thread.ours
            or road.once.marks
        ):
            return False
        user = event_dict[shape.user]
        # As `flat_id` has it for the most common kind, without the call.
        if (
            type(user) is not str
            or not user.isascii()
            or user.isspace()
            or not 0 < len(user) <= LONGEST_ID
        ):
            user = flat_id(user)
        when: Any = _wall() if shapes.sends_time else None
        if shape.timed and when is not None:
            stamp = event_dict["timestamp"]
            if not is_stamp(stamp):
                return False
            when = (stamp, when)
        properties = event_dict.copy()
        for other in shape.others:
            del properties[other]
        if user is None or not FLAT.issuperset(map(type, properties.values())):
            return False
        try:
            data = road.encode(properties)[1:-1]  # a copy, see `compact`
        except (TypeError, ValueError):
            return False
        sender = road.sender
        buffer = sender.buffer
        if len(data) > shapes.most or len(buffer.inbox) >= buffer.room:
            return False
        del event_dict[self._tag]
        buffer.put((user, name, data, when))
        if sender.call:
            sender.ring()
        return True

    def _find_client(self) -> Client:
        return self._client or default_client()

    def _capture(self, event_dict: MutableMapping[str, Any]) -> None:
        tag = event_dict[self._tag]
        names = tuple(event_dict) if tag is True and not self._keep_tag else None
        if not self._keep_tag:
            del event_dict[self._tag]
        if tag is None or tag is False:
            return
        client = self._find_client()
        if is_own_thread():
            client.sender.ledger.count("invalid", "own_thread")
            return
        # Within a ProcessorFormatter: the stdlib record, or a copy of it.
        record: logging.LogRecord | None = event_dict.get("_record")
        if not self._first(client, event_dict, record):
            client.sender.ledger.count("duplicates")
            return
        text = event_dict.get("event")
        if text is None:  # renamed by EventRenamer
            text = event_dict.get("message", event_dict.get("msg"))
        fields: Mapping[str, Any] = event_dict
        if self._keep_tag:
            fields = {name: event_dict[name] for name in event_dict if name != self._tag}
        created = parse_time(getattr(record, "created", None))
        found = Record(
            fields=fields,
            message=text,
            created=_wall() if created is None else created,
            context=structlog_context,
        )
        reader = self._reader_for(client)
        client.capture(reader, tag, found, call_site)
        if names is not None:
            road = self._road
            if road is None or road.client is not client:
                # Swapped whole, for the threads that share this processor.
                road = self._road = client.road(reader, tag=self._tag, text="event", never=_NEVER)
            if road is not None:
                road.shapes.learn(names, text)

    def _first(self, client: Client, event_dict: MutableMapping[str, Any], record: Any) -> bool:
        """Return whether no other entrance has had this record, and note that we had it."""
        once = client.once
        if once.has_seen(event_dict.get("event")):
            return False  # an event dict of ours, tag kept, in a second processor
        if record is not None and not once.claim(getattr(record, "relativeCreated", record)):
            return False
        if self._keep_tag:
            # The tag travels on to handlers. An equal but new text in the place
            # of the event tells them that we had it, in every copy and through
            # every bridge, and prints the same.
            text = event_dict.get("event")
            if type(text) is str and len(text) > 1:
                event_dict["event"] = fresh = (text + " ")[:-1]
                once.marks = True
                once.claim(fresh)
            else:
                # The interpreter shares shorter texts; a tag without a mark
                # would be an event twice.
                del event_dict[self._tag]
        return True

    def _reader_for(self, client: Client) -> Reader:
        known, reader = self._reader
        if known is not client or reader is None:
            reader = client.reader(PLUMBING)
            # One tuple, swapped whole: threads share this processor.
            self._reader = (client, reader)
        return reader
