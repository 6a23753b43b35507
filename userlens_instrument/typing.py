"""The seams, as protocols: what a test, or a sink of another kind, can put in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol


if TYPE_CHECKING:
    from userlens_instrument._core.outcome import Answer


class Clock(Protocol):
    """Two clocks, both in seconds."""

    def monotonic(self) -> float:
        """Return a time that only grows; for waits and deadlines."""
        ...

    def wall(self) -> float:
        """Return the seconds since the epoch; for stamps."""
        ...


class Transport(Protocol):
    """
    Puts bytes on the wire and reports what it saw. It never judges and never raises.

    Called from several threads at a time.
    """

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:
        """
        Send one request and return the answer.

        Args:
            path: Where to: ``/event`` or ``/raw/event``.
            body: A JSON document in UTF-8.
            timeout: Bound on the whole exchange in seconds, if tighter than the settings'.
        """
        ...

    def close(self) -> None:
        """Let go of every connection; the next `send` opens new ones."""
        ...

    def forget(self) -> None:
        """Let go of every connection in a forked child: take no lock, tell no peer."""
        ...
