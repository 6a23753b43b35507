"""The sink as seen from the benchmark: started, asked, reset, and always ended."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


# Seconds in which a sink that was asked to has ended.
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """
    What arrived since the last reset.

    Attributes:
        requests: POST requests.
        size: Bytes of their bodies, as they came over the wire.
        events: Events in them.
        last: When the last answer went out, on the monotonic clock; 0.0 for never.
    """

    requests: int
    size: int
    events: int
    last: float


class Sink:
    """
    Asks the sink that listens at *port*.

    Args:
        port: On the loopback interface.
    """

    def __init__(self, port: int) -> None:
        """Open nothing yet."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def reset(self, latency: float = 0.0) -> None:
        """Forget what has arrived; answer after *latency* seconds from now on."""
        self._ask(f"/-/reset?latency={latency}")

    def counts(self) -> Counts:
        """Return what has arrived."""
        found = json.loads(self._ask("/-/counts"))
        return Counts(
            requests=found["requests"],
            size=found["bytes"],
            events=found["events"],
            last=found["last"],
        )

    def settled(self, expected: int, *, quiet: float = 1.0, limit: float = 30.0) -> Counts:
        """
        Wait until *expected* events have arrived, or nothing does any more.

        Args:
            expected: How many were given to the client.
            quiet: Seconds without a further event after which none is waited for.
            limit: Longest wait altogether, in seconds.
        """
        deadline = time.monotonic() + limit
        found = self.counts()
        changed = time.monotonic()
        while found.events < expected and time.monotonic() < min(deadline, changed + quiet):
            time.sleep(0.05)
            before, found = found, self.counts()
            if found.events != before.events:
                changed = time.monotonic()
        return found

    def _ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


class SinkProcess:
    """The sink in a process of its own, for the length of a ``with``."""

    def __init__(self) -> None:
        """Start it, and wait for its port."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sink_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        said = self._process.stdout.readline()
        if not said.strip().isdigit():
            self.stop()
            raise RuntimeError("the sink did not start")
        self.sink = Sink(int(said))

    def __enter__(self) -> Self:
        """Return the process itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the sink."""
        self.stop()

    def stop(self) -> None:
        """End the sink: by the end of its input, by force if that does not do."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
