"""
What arrived, and what to answer: the inspector's memory.

Bounded by count and by bytes, safe to read from any thread while the server writes.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Final, Literal

from userlens_instrument.inspector.faults import Fault
from userlens_instrument.inspector.validate import Verdict, branch_of_raw


# A person looks at the last few; a test that delivers more says so.
MAX_EVENTS: Final = 1_000
# The bodies of what is kept; a laptop does not notice.
MAX_BYTES: Final = 64 * 1024 * 1024

# What a raw event is called in the words of POST /event, so that one filter finds both.
_RAW_TYPES: Final = {"click": "click", "custom": "track", "pageview": "pageview", None: None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One event that arrived, or one request that was refused.

    A good batch is one entry per event; anything else is one entry per request.

    Attributes:
        seq: Number of the entry, from 1, in the order of arrival; a reset does not restart it.
        request: Number of the request that brought it; a batch's events share it.
        connection: Number of the TCP connection; None if the server does not number them.
        received_at: When its body was complete: ISO 8601 in UTC.
        path: ``/event`` or ``/raw/event``.
        type: ``identify``, ``group``, ``track``, ``pageview`` or ``click``, if it can be told.
        event: Name of the event, if it can be told.
        user_id: Whose event, if it can be told.
        group_id: Which group, if it can be told.
        verdict: Whether the contract accepts it.
        reason: Why not; empty if good.
        reason_path: Where, as a JSON path; empty if good.
        status: The status that was answered; None for a connection that was dropped.
        size: Length of the payload, in bytes.
        headers: The headers worth showing; never the write code.
        payload: The JSON, as bytes: a tenth of what the parsed value would hold in memory.
            Empty if it was not JSON, or not looked at.
    """

    seq: int
    request: int
    connection: int | None
    received_at: str
    path: str
    type: str | None
    event: str | None
    user_id: str | None
    group_id: str | None
    verdict: Literal["good", "bad"]
    reason: str
    reason_path: str
    status: int | None
    size: int
    headers: Mapping[str, str]
    payload: bytes = field(repr=False)

    @property
    def body(self) -> Any:
        """The parsed payload, a fresh copy each time; None if there is none."""
        return json.loads(self.payload) if self.payload else None

    def as_dict(self) -> dict[str, Any]:
        """Return it in the form that ``GET /api/events`` answers."""
        return {
            "seq": self.seq,
            "request": self.request,
            "connection": self.connection,
            "received_at": self.received_at,
            "path": self.path,
            "type": self.type,
            "event": self.event,
            "userId": self.user_id,
            "groupId": self.group_id,
            "verdict": self.verdict,
            "reason": self.reason,
            "reason_path": self.reason_path,
            "status": self.status,
            "size": self.size,
            "headers": dict(self.headers),
            "body": self.body,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    Counters since the start or the last reset.

    Attributes:
        requests: Requests to the two endpoints, whatever became of them.
        good: Events that were accepted; a batch counts each of its events.
        bad: Requests that were refused.
        bad_by_reason: Those by a short word, such as ``missing`` or ``unauthorized``.
        by_status: Requests by the status answered, as text; ``dropped`` for no answer.
        faults_fired: Requests that met a fault.
        faults_pending: Requests that still will.
        held: Entries in memory.
        held_bytes: The payloads of those, in bytes.
        evicted: Entries that had to make room for newer ones.
    """

    requests: int
    good: int
    bad: int
    bad_by_reason: Mapping[str, int]
    by_status: Mapping[str, int]
    faults_fired: int
    faults_pending: int
    held: int
    held_bytes: int
    evicted: int

    def as_dict(self) -> dict[str, Any]:
        """Return it in the form that ``GET /api/stats`` answers."""
        return {
            "requests": self.requests,
            "good": self.good,
            "bad": self.bad,
            "bad_by_reason": dict(self.bad_by_reason),
            "by_status": dict(self.by_status),
            "faults_fired": self.faults_fired,
            "faults_pending": self.faults_pending,
            "held": self.held,
            "held_bytes": self.held_bytes,
            "evicted": self.evicted,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What can be told of an event without trusting it."""

    type: str | None = None
    event: str | None = None
    user_id: str | None = None
    group_id: str | None = None
    payload: bytes = b""


class Store:
    """The newest entries, the counters, and the faults that wait. Thread-safe."""

    def __init__(
        self,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        on_entry: Callable[[Entry], None] | None = None,
    ) -> None:
        """
        Make an empty one.

        Args:
            max_events: How many entries to keep.
            max_bytes: How many bytes of payload to keep; the newest entry is kept in any case.
            now: Returns the time, in UTC.
            on_entry: Is handed every new entry, on the server's thread, outside the lock; it
                must be quick and must not raise.
        """
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._now = now
        self._on_entry = on_entry
        self._changed = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._faults: deque[Fault] = deque()
        self._seq = 0
        self._request = 0
        self._clear()

    def __repr__(self) -> str:
        """Show the counters."""
        stats = self.stats()
        return f"<Store held={stats.held} good={stats.good} bad={stats.bad}>"

    def timestamp(self) -> str:
        """Return the time as ISO 8601 in UTC, to the millisecond."""
        return self._now().isoformat(timespec="milliseconds")[:23] + "Z"

    def add(
        self,
        *,
        path: str,
        raw: bytes,
        verdict: Verdict,
        status: int | None,
        received_at: str,
        headers: Mapping[str, str],
        connection: int | None = None,
    ) -> tuple[Entry, ...]:
        """
        Take in one request that was judged.

        Args:
            path: ``/event`` or ``/raw/event``.
            raw: The bytes of the body.
            verdict: What was said about it.
            status: The status that is answered; None if the connection is dropped.
            received_at: When it came, ISO 8601 in UTC.
            headers: The headers worth keeping, without the write code.
            connection: Number of the TCP connection.

        Returns:
            The new entries, in the order of the batch.
        """
        told = _tell(path, raw, verdict)
        added = []
        with self._changed:
            self._count_request(status)
            for each in told:
                self._seq += 1
                entry = Entry(
                    seq=self._seq,
                    request=self._request,
                    connection=connection,
                    received_at=received_at,
                    path=path,
                    type=each.type,
                    event=each.event,
                    user_id=each.user_id,
                    group_id=each.group_id,
                    verdict="good" if verdict.good else "bad",
                    reason=verdict.reason,
                    reason_path=verdict.path,
                    status=status,
                    size=len(each.payload),
                    headers=headers,
                    payload=each.payload,
                )
                added.append(entry)
                self._keep(entry)
            if verdict.good:
                self._good += len(added)
            else:
                self._bad[verdict.code] += 1
            self._changed.notify_all()
        if self._on_entry is not None:
            for entry in added:
                self._on_entry(entry)
        return tuple(added)

    def swallow(self, *, status: int | None) -> None:
        """
        Count a request that met a fault and was not looked at.

        Args:
            status: The status that is answered; None if the connection is dropped.
        """
        with self._changed:
            self._count_request(status)
            self._changed.notify_all()

    def events(
        self,
        *,
        limit: int | None = None,
        type: str | None = None,  # noqa: A002 -- the contract's own word
        event: str | None = None,
        user_id: str | None = None,
        verdict: str | None = None,
    ) -> tuple[Entry, ...]:
        """
        Return what is kept, the newest first.

        Args:
            limit: At most so many.
            type: Only of this type.
            event: Only of this name.
            user_id: Only of this user.
            verdict: Only ``good``, or only ``bad``.
        """
        with self._changed:
            held = tuple(self._entries)
        wanted = [
            entry
            for entry in reversed(held)
            if type in (None, entry.type)
            and event in (None, entry.event)
            and user_id in (None, entry.user_id)
            and verdict in (None, entry.verdict)
        ]
        return tuple(wanted[:limit])

    def wait_for(self, good: int, *, timeout: float) -> bool:
        """
        Wait until so many events were accepted since the start or the last reset.

        Args:
            good: How many.
            timeout: For how long at most, in seconds.

        Returns:
            Whether they were.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._good >= good, timeout)

    def wait_for_requests(self, requests: int, *, timeout: float) -> bool:
        """
        Wait until so many requests came in since the start or the last reset, good, bad or faulty.

        Args:
            requests: How many.
            timeout: For how long at most, in seconds.

        Returns:
            Whether they did.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._requests >= requests, timeout)

    def stats(self) -> Stats:
        """Return the counters, all of the same moment."""
        with self._changed:
            return Stats(
                requests=self._requests,
                good=self._good,
                bad=sum(self._bad.values()),
                bad_by_reason=dict(self._bad),
                by_status=dict(self._by_status),
                faults_fired=self._faults_fired,
                faults_pending=sum(fault.count for fault in self._faults),
                held=len(self._entries),
                held_bytes=self._bytes,
                evicted=self._evicted,
            )

    def reset(self) -> None:
        """Forget the entries, the counters and the faults."""
        with self._changed:
            self._clear()

    def add_faults(self, *faults: Fault) -> None:
        """Queue *faults* up behind those that wait, all of them at once."""
        with self._changed:
            self._faults.extend(faults)

    def faults(self) -> tuple[Fault, ...]:
        """Return the faults that wait; the count of each is what is left of it."""
        with self._changed:
            return tuple(self._faults)

    def clear_faults(self) -> None:
        """Forget the faults that wait."""
        with self._changed:
            self._faults.clear()

    def take_fault(self, path: str, user_ids: Callable[[], frozenset[str]]) -> Fault | None:
        """
        Use up one request of the first fault that fits.

        Args:
            path: Where the request went.
            user_ids: Returns the users whose events it holds; called only if a fault waits.

        Returns:
            The fault to meet it with, or None.
        """
        if not self.faults():
            return None
        users = user_ids()  # outside the lock: it parses the body
        with self._changed:
            for index, fault in enumerate(self._faults):
                if fault.fits(path, users):
                    if fault.count > 1:
                        self._faults[index] = replace(fault, count=fault.count - 1)
                    else:
                        del self._faults[index]
                    self._faults_fired += 1
                    return fault
        return None

    def _clear(self) -> None:
        """Set everything to nothing but the numbers of entries and requests."""
        self._entries.clear()
        self._faults.clear()
        self._bytes = 0
        self._requests = 0
        self._good = 0
        self._bad: Counter[str] = Counter()
        self._by_status: Counter[str] = Counter()
        self._faults_fired = 0
        self._evicted = 0

    def _count_request(self, status: int | None) -> None:
        """Count a request by its answer."""
        self._request += 1
        self._requests += 1
        self._by_status["dropped" if status is None else str(status)] += 1

    def _keep(self, entry: Entry) -> None:
        """Append *entry*; the oldest make room."""
        self._entries.append(entry)
        self._bytes += entry.size
        while len(self._entries) > self._max_events or (
            self._bytes > self._max_bytes and len(self._entries) > 1
        ):
            self._bytes -= self._entries.popleft().size
            self._evicted += 1


def user_ids_of(body: Any) -> frozenset[str]:
    """
    Return the users that *body* names, whether or not it is good.

    Args:
        body: A parsed body of either endpoint; anything.
    """
    if not isinstance(body, dict):
        return frozenset()
    events = body.get("events")
    candidates = [body, *events] if isinstance(events, list) else [body]
    users = (_text(each, "userId") for each in candidates if isinstance(each, dict))
    return frozenset(user for user in users if user is not None)


def _tell(path: str, raw: bytes, verdict: Verdict) -> list[_Told]:
    """Say what there is to keep of one request."""
    body = verdict.body
    if path == "/raw/event":
        if verdict.good:
            return [
                _Told(
                    type=_RAW_TYPES[branch_of_raw(event)],
                    event=_text(event, "event"),
                    user_id=_text(event, "userId"),
                    payload=json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(),
                )
                for event in body["events"]
            ]
        # Which event of a bad batch is meant stands in the reason.
        return [_Told(payload=raw if verdict.parsed else b"")]
    if not isinstance(body, dict):
        return [_Told(payload=raw if verdict.parsed else b"")]
    return [
        _Told(
            type=_text(body, "type"),
            event=_text(body, "event"),
            user_id=_text(body, "userId"),
            group_id=_text(body, "groupId"),
            payload=raw,
        )
    ]


def _text(value: dict[str, Any], key: str) -> str | None:
    """Return what *value* has under *key*, if it is text."""
    found = value.get(key)
    return found if isinstance(found, str) else None
