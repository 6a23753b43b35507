"""An event to its payload: redacted, limited, JSON bytes that nothing changes any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from userlens_instrument._core.extract import LONGEST_NAME
from userlens_instrument._core.jsonable import TRUNCATED, Cleaner, Limits, compact, dumps
from userlens_instrument._core.redact import compile_redactor
from userlens_instrument._core.times import format_time, parse_time
from userlens_instrument.events import Event, Group, Identify, Payload, Track
from userlens_instrument.exceptions import InvalidEventError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from userlens_instrument.settings import Settings


# "source" is fixed for all that is sent over the HTTP API (wire contract, doc).
SOURCE = "userlens-restapi"

# Bytes of a track's body beside its ids, name and properties: keys, source, time.
_FRAME = 128


class TrackPayload:
    """
    A track fixed at the log call: its properties as JSON, the rest as it is put around them later.

    What is immutable can wait for a sender thread, where nobody pays for it.

    Args:
        user_id: Decides the lane, and with it the order.
        name: The event's.
        data: The properties as JSON in UTF-8, without the braces around them; empty for none.
        when: Seconds since the epoch, or None for no time; or what stood in a
            field ``timestamp``, with the seconds that count if it is no time.
        row: Its number in the spool; 0 if it is in memory alone.
        at: When the spool took it, in seconds since the epoch.
    """

    __slots__ = ("at", "data", "moment", "name", "row", "size", "user_id")

    kind = "track"

    def __init__(  # noqa: PLR0917 - what a track is made of, in a tuple's order
        self,
        user_id: str,
        name: str,
        data: bytes,
        when: float | tuple[object, float] | None,
        row: int = 0,
        at: float = 0.0,
    ) -> None:
        if type(when) is tuple:
            field, created = when
            moment = parse_time(field)
            when = parse_time(created) if moment is None else moment
        self.user_id = user_id
        self.name = name
        self.data = data
        self.moment: float | None = when  # type: ignore[assignment]  # no tuple any more
        self.row = row
        self.at = at
        #: What it counts for in ``max_queue_bytes``.
        self.size = _FRAME + len(user_id) + len(name) + len(data)

    @property
    def body(self) -> bytes:
        """The JSON document of ``POST /event``, keys in the contract's order."""
        parts = [
            b'{"type":"track","userId":',
            dumps(self.user_id),
            b',"source":"userlens-restapi","event":',
            dumps(self.name),
        ]
        if self.data:
            parts += (b',"properties":{', self.data, b"}")
        if self.moment is not None:
            parts += (b',"timestamp":"', format_time(self.moment).encode(), b'"')
        parts.append(b"}")
        return b"".join(parts)

    def entry(self, event_id: bytes) -> bytes:
        """
        Return it as one of the ``events`` of ``POST /raw/event``: a custom event.

        Args:
            event_id: A UUID, the same each time this is sent.
        """
        parts = [b'{"id":"', event_id]
        if self.moment is not None:
            parts += (b'","timestamp":"', format_time(self.moment).encode())
        parts += (
            b'","event":',
            dumps(self.name),
            b',"is_raw":false,"userId":',
            dumps(self.user_id),
            b',"properties":{',
            self.data,
            b"}}",
        )
        return b"".join(parts)


#: What is delivered.
AnyPayload: TypeAlias = Payload | TrackPayload


class Encoded(NamedTuple):
    """
    A payload, and what it cost the event.

    Attributes:
        payload: What is sent.
        cut: How many values were shortened or left out.
        redacted: How many values were hidden for their names.
    """

    payload: AnyPayload
    cut: int
    redacted: int


class Encoder:
    """
    Encodes events as one client's settings say.

    Everything that the settings imply is worked out here, once.

    .. versionadded:: 0.1.0
    """

    def __init__(self, settings: Settings) -> None:
        """Take over the limits and the names to hide."""
        self._is_secret = compile_redactor(settings.redact)
        self._allow = settings.allow
        self._send_timestamp = settings.send_timestamp
        self._most_bytes = settings.max_body_bytes
        self._longest_name = min(LONGEST_NAME, settings.max_string)
        # A body that is too large is encoded again with less and less in it;
        # the last step has no property at all, and fits whatever the settings.
        full = Limits(
            max_string=settings.max_string,
            max_properties=settings.max_properties,
            max_depth=settings.max_depth,
        )
        self._ladder = (full, *_smaller(full, (1024, 64, 4), (256, 32, 2), (64, 16, 1)))

    def encode(self, event: Event) -> Encoded:
        """
        Return the payload of *event*, which must be normalized.

        Raises:
            InvalidEventError: If even its ids and name are larger than a body may be.
        """
        cut_name = isinstance(event, Track) and len(event.event) > self._longest_name
        for step, limits in enumerate(self._ladder):
            cleaner = Cleaner(limits, self._is_secret)
            payload = self._payload(event, cleaner)
            if len(payload.body) <= self._most_bytes:
                cut = cleaner.cut + cut_name + (step > 0)
                return Encoded(payload=payload, cut=cut, redacted=cleaner.redacted)
        payload = self._payload(event, None)
        if len(payload.body) > self._most_bytes:
            raise InvalidEventError(
                "too_large", "the event's ids and name are too large", "raise max_body_bytes"
            )
        return Encoded(payload=payload, cut=1, redacted=0)

    def _payload(self, event: Event, cleaner: Cleaner | None) -> AnyPayload:
        """Return the payload, keys in the contract's order; no *cleaner*, no properties."""
        user = str(event.user_id)
        if isinstance(event, Track):
            properties = self._clean(event.properties, cleaner)
            data = dumps(properties)[1:-1]
            return TrackPayload(user, self._name(event.event), data, self._moment(event.timestamp))
        traits = self._clean(event.traits, cleaner)
        if isinstance(event, Identify):
            tree: dict[str, Any] = {"type": "identify", "userId": user, "source": SOURCE}
            tree["traits"] = traits
            return Payload(user, compact(dumps(tree)), "identify")
        tree = _group(event)
        if traits:
            tree["traits"] = traits
        return Payload(user, compact(dumps(tree)), "group")

    def _moment(self, timestamp: object) -> float | None:
        return timestamp if self._send_timestamp and isinstance(timestamp, float) else None

    def _clean(self, values: Mapping[str, object] | None, cleaner: Cleaner | None) -> Any:
        if cleaner is None:
            return {TRUNCATED: "too large"}
        return {} if values is None else cleaner.clean(values, self._allow)

    def _name(self, name: str) -> str:
        longest = self._longest_name
        if len(name) <= longest:
            return name
        return name[: longest - 1] + "…"


def _group(event: Group) -> dict[str, Any]:
    return {
        "type": "group",
        "groupId": event.group_id,
        "userId": event.user_id,
        "source": SOURCE,
    }


def _smaller(full: Limits, *steps: tuple[int, int, int]) -> list[Limits]:
    return [
        Limits(
            max_string=min(full.max_string, string),
            max_properties=min(full.max_properties, properties),
            max_depth=min(full.max_depth, depth),
        )
        for string, properties, depth in steps
    ]
