"""
Track, Identify and Group: what a log record becomes, as frozen values.

Making one never raises over its content (it happens inside the application's
log call): a wrong user id is found later, counted, and said once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    # What may stand where an id is asked for. Integers and UUIDs become strings.
    Id = str | int | UUID
    # A point in time: an aware or naive (then: local) datetime, seconds since
    # the epoch, or an ISO 8601 text.
    Time = datetime | float | int | str


@dataclass(frozen=True, slots=True)
class Track:
    """
    Something that a user did.

    Args:
        user_id: Who did it.
        event: What it was; Userlens recommends past tense in Title Case: ``"Plan Upgraded"``.
        properties: What else is known about it.
        timestamp: When it happened; when the record was made, if absent.

    .. versionadded:: 0.1.0
    """

    user_id: Id
    event: str
    properties: Mapping[str, object] | None = None
    timestamp: Time | None = None


@dataclass(frozen=True, slots=True)
class Identify:
    """
    What is known about a user.

    Args:
        user_id: Who it is.
        traits: What is known, such as name, email or plan.
        timestamp: When it was known. The API has no place for it; it is kept for sinks that do.

    .. versionadded:: 0.1.0
    """

    user_id: Id
    traits: Mapping[str, object] | None = None
    timestamp: Time | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """
    A user belongs to a company, and what is known about the company.

    Args:
        group_id: Which company.
        user_id: Who belongs to it.
        traits: What is known about the company, such as name or industry.
        timestamp: When it was known. The API has no place for it; it is kept for sinks that do.

    .. versionadded:: 0.1.0
    """

    group_id: Id
    user_id: Id
    traits: Mapping[str, object] | None = None
    timestamp: Time | None = None


Event = Track | Identify | Group


@dataclass(frozen=True, slots=True)
class Payload:
    """
    An event's JSON bytes, fixed at the log call.

    Args:
        user_id: Decides the lane, and with it the order.
        body: The JSON document, UTF-8.
        kind: ``track``, ``identify`` or ``group``.
        row: Its number in the spool; 0 if it is in memory alone.
        at: When the spool took it, in seconds since the epoch.
    """

    user_id: str
    body: bytes
    kind: str
    row: int = 0
    at: float = 0.0

    @property
    def size(self) -> int:
        """What it counts for in ``max_queue_bytes``."""
        return len(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """
    An event that was not delivered: what `Settings.on_error` is called with.

    Args:
        reason: A short word, the same that statistics count by, such as ``queue_full``.
        problem: What happened, in one line without the event's content.
        status: The HTTP status of the last answer, if there was one.
        body: The event's JSON, if it got as far as one.

    .. versionadded:: 0.1.0
    """

    reason: str
    problem: str
    status: int | None = None
    body: bytes | None = None
