"""
For tests: a transport that captures instead of sending, and a clock that one turns by hand.

.. code-block:: python

    transport = CapturingTransport()
    client = Client(Settings(write_code="test"), transport=transport)
    client.track("u1", "Plan Upgraded")
    assert client.flush()
    assert transport.events[0]["event"] == "Plan Upgraded"
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from userlens_instrument._core.outcome import Answer, Failure


if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["Answer", "CapturingTransport", "Failure", "FakeClock"]


class CapturingTransport:
    """
    Keeps every body in memory, and answers as it is told; opens no socket.

    Args:
        answer: Returns the answer to a body; success for all if absent. It is
            called on a sender thread and may wait, raise, or count.

    Attributes:
        bodies: Every body sent, in the order of arrival; bytes of JSON.

    .. versionadded:: 0.1.0
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Answer] | None = None) -> None:
        """Start with nothing captured."""
        self._answer = answer
        self._lock = threading.Lock()
        self.bodies: list[bytes] = []

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:  # noqa: ARG002 - the protocol's
        """Keep *body*, and answer."""
        with self._lock:
            self.bodies.append(body)
        return Answer(status=200) if self._answer is None else self._answer(json.loads(body))

    def close(self) -> None:
        """Nothing to let go of."""

    def forget(self) -> None:
        """Start afresh in a forked child."""
        self._lock = threading.Lock()
        self.bodies = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event sent, parsed, in the order of arrival; those of a batch one by one."""
        with self._lock:
            bodies = [json.loads(body) for body in self.bodies]
        return [event for body in bodies for event in body.get("events", [body])]


class FakeClock:
    """
    Two clocks that stand still until they are told how much time has passed.

    Args:
        monotonic: Where the monotonic clock starts, in seconds.
        wall: Where the wall clock starts, in seconds since the epoch.

    .. versionadded:: 0.1.0
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_795_000_000.0) -> None:
        """Set both clocks."""
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Return the time for waits, in seconds."""
        return self._monotonic

    def wall(self) -> float:
        """Return the time for stamps, in seconds since the epoch."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        self._monotonic += seconds
        self._wall += seconds
