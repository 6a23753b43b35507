"""An event to its payload: redacted, limited, JSON bytes that nothing changes any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from userlens_instrument._core.extract import LONGEST_NAME
from userlens_instrument._core.jsonable import TRUNCATED, Cleaner, Limits, dumps
from userlens_instrument._core.redact import compile_redactor
from userlens_instrument._core.times import format_time
from userlens_instrument.events import Event, Group, Identify, Payload, Track
from userlens_instrument.exceptions import InvalidEventError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from userlens_instrument.settings import Settings


# "source" is fixed for all that is sent over the HTTP API (wire contract, doc).
SOURCE = "userlens-restapi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """
    A payload, and what it cost the event.

    Attributes:
        payload: What is sent.
        cut: How many values were shortened or left out.
        redacted: How many values were hidden for their names.
    """

    payload: Payload
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
            kind, tree = self._tree(event, cleaner)
            body = dumps(tree)
            if len(body) <= self._most_bytes:
                payload = Payload(str(event.user_id), body, kind)
                cut = cleaner.cut + cut_name + (step > 0)
                return Encoded(payload=payload, cut=cut, redacted=cleaner.redacted)
        kind, tree = self._tree(event, None)
        body = dumps(tree)
        if len(body) > self._most_bytes:
            raise InvalidEventError(
                "too_large", "the event's ids and name are too large", "raise max_body_bytes"
            )
        return Encoded(payload=Payload(str(event.user_id), body, kind), cut=1, redacted=0)

    def _tree(self, event: Event, cleaner: Cleaner | None) -> tuple[str, dict[str, Any]]:
        """Return the body with its keys in the contract's order; no *cleaner*, no properties."""
        if isinstance(event, Track):
            tree: dict[str, Any] = {
                "type": "track",
                "userId": event.user_id,
                "source": SOURCE,
                "event": self._name(event.event),
            }
            properties = self._clean(event.properties, cleaner)
            if properties:
                tree["properties"] = properties
            if self._send_timestamp and isinstance(event.timestamp, float):
                tree["timestamp"] = format_time(event.timestamp)
            return "track", tree
        traits = self._clean(event.traits, cleaner)
        if isinstance(event, Identify):
            return "identify", {
                "type": "identify",
                "userId": event.user_id,
                "source": SOURCE,
                "traits": traits,
            }
        tree = _group(event)
        if traits:
            tree["traits"] = traits
        return "group", tree

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
