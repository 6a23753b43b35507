"""
A payload as a row of the spool, and back again: with a checksum, for disks forget and lie.

SQLite does not notice a flipped bit within a value (157 of 200 files with one
passed its integrity check, measured): what does not add up is never sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zlib import crc32

from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.jsonable import scrub
from userlens_instrument.events import Payload


if TYPE_CHECKING:
    from userlens_instrument._core.encode import AnyPayload

    #: What `TrackPayload` is made of: cheaper for the log call than the object.
    RawTrack: TypeAlias = tuple[str, str, bytes, "float | tuple[object, float] | None"]

    #: kind, user, name, data, moment, at, origin, checksum: the columns of a row in the spool.
    Columns: TypeAlias = tuple[str, str, str, bytes, "float | None", float, int, int]

#: The kind of a row that holds no event: it keeps the numbers growing.
MARK = "mark"

_KINDS = frozenset({"track", "identify", "group"})


class Row(NamedTuple):
    """
    What the spool holds of an event.

    Attributes:
        id: Its number; a later event of the host has a higher one.
        kind: ``track``, ``identify`` or ``group``; `MARK` for none.
        user: Decides the lane.
        name: A track's event name.
        data: A track's properties as JSON, without the braces; the whole body of the others.
        moment: When it happened, in seconds since the epoch, if its body says so.
        at: When it was taken, in seconds since the epoch.
        origin: Which process took it: a number that it has drawn.
        checksum: Of all that stands before it, but for the `id`.
    """

    id: int
    kind: str
    user: str
    name: str
    data: bytes
    moment: float | None
    at: float
    origin: int
    checksum: int


def to_columns(payload: AnyPayload | RawTrack, *, at: float, origin: int) -> Columns:
    """
    Return the row that *payload* is, without its number.

    Args:
        payload: Or what a track is made of.
        at: Seconds since the epoch.
        origin: As of `Row`.
    """
    moment: float | None
    if type(payload) is tuple:
        user, name, data, when = payload
        # A field that may be a time is looked at now: nothing but values is stored.
        moment = TrackPayload(*payload).moment if type(when) is tuple else when  # type: ignore[assignment]  # no tuple any more
        kind = "track"
    elif isinstance(payload, TrackPayload):
        kind, user, name = "track", payload.user_id, payload.name
        data, moment = payload.data, payload.moment
    else:
        assert isinstance(payload, Payload)  # noqa: S101 - there is no other
        kind, user, name, data, moment = payload.kind, payload.user_id, "", payload.body, None
    if moment is not None:
        moment += 0.0  # -0.0, which SQLite does not know
    try:
        return (kind, user, name, data, moment, at, origin, checksum(
            kind, user, name, data, moment, at, origin
        ))  # fmt: skip
    except UnicodeEncodeError:
        # Half a character somewhere: what the body would have in its place.
        return to_columns(_scrubbed(kind, user, name, data, moment), at=at, origin=origin)


def _scrubbed(kind: str, user: str, name: str, data: bytes, moment: float | None) -> AnyPayload:
    user = str(scrub(user))
    if kind == "track":
        return TrackPayload(user, str(scrub(name)), data, moment)
    return Payload(user, data, kind)


def checksum(  # noqa: PLR0917 - a row's columns, in their order, on the log call's way
    kind: str,
    user: str,
    name: str,
    data: bytes,
    moment: float | None,
    at: float,
    origin: int,
) -> int:
    """Return the checksum (CRC-32) of a row's columns."""
    # The lengths, so that nothing can move from one column to the next.
    head = f"{kind} {len(user)} {len(name)} {moment!r} {at!r} {origin} {user}{name}"
    return crc32(data, crc32(head.encode()))


def from_row(row: Row) -> AnyPayload | None:
    """Return the payload that *row* holds, or None: it is not as it was written."""
    try:
        expected = checksum(row.kind, row.user, row.name, row.data, row.moment, row.at, row.origin)
        if row.checksum != expected or row.kind not in _KINDS:
            return None
        if row.kind == "track":
            return TrackPayload(row.user, row.name, row.data, row.moment, row.id, row.at)
        return Payload(row.user, row.data, row.kind, row.id, row.at)
    except (TypeError, ValueError, AttributeError):  # a column of another type
        return None
