"""
The sink: a process that answers 200 to everything, and counts what it got.

As little work per request as Python allows, so that it is not what is measured:
bodies are kept as they come, and looked into only when somebody asks. It ends
when its standard input does, and so never outlives the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any
from urllib.parse import parse_qs

from benchmarks.bodies import count_events


# Satisfies each client: Amplitude reads "code", logfire the project, others the status.
_ANSWER = json.dumps(
    {
        "status": "ok",
        "success": True,
        "code": 200,
        "project_name": "benchmark",
        "project_url": "http://127.0.0.1/",
    }
).encode()
_END = b"\r\n\r\n"


def _response(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        kind,
        len(body),
        body,
    )


_JSON = _response(b"application/json", _ANSWER)
# An empty message is a complete success, in the words of OTLP.
_PROTOBUF = _response(b"application/x-protobuf", b"")


class Tally:
    """What has arrived since the last reset."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.reset(0.0)

    def reset(self, latency: float) -> None:
        """Forget everything; answer after *latency* seconds from now on."""
        self.latency = latency
        self.requests = 0
        self.size = 0
        self.events = 0
        self.last = 0.0
        self._unread: list[tuple[str, str, str, bytes]] = []

    def take(self, path: str, kind: str, coding: str, body: bytes) -> None:
        """Keep *body* for a later look."""
        self.requests += 1
        self.size += len(body)
        self._unread.append((path, kind, coding, body))

    def answered(self) -> None:
        """Note the time of an answer; the monotonic clock is the same in every process."""
        self.last = time.monotonic()

    def report(self) -> bytes:
        """Return the counts as JSON."""
        unread, self._unread = self._unread, []
        self.events += sum(count_events(*entry) for entry in unread)
        counts = {
            "requests": self.requests,
            "bytes": self.size,
            "events": self.events,
            "last": self.last,
        }
        return json.dumps(counts).encode()


class Connection(asyncio.Protocol):
    """One kept-alive connection; requests come one after the other, never pipelined."""

    def __init__(self, tally: Tally) -> None:
        """Count into *tally*."""
        self._tally = tally
        self._data = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the other end."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = self._data[:end].decode("latin-1")
            start = end + len(_END)
            first, *lines = head.split("\r\n")
            headers = dict(_header(line) for line in lines)
            if headers.get("transfer-encoding", "").lower() == "chunked":
                found = _dechunk(self._data, start)
                if found is None:
                    return
                body, after = found
            else:
                after = start + int(headers.get("content-length") or 0)
                if len(self._data) < after:
                    if headers.get("expect", "").lower() == "100-continue":
                        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    return
                body = bytes(self._data[start:after])
            del self._data[:after]
            self._answer(first, headers, body)

    def _answer(self, first: str, headers: dict[str, str], body: bytes) -> None:
        method, target = first.split(" ")[:2]
        path, _, query = target.partition("?")
        tally = self._tally
        if path.startswith("/-/"):
            if path == "/-/reset":
                tally.reset(float(parse_qs(query).get("latency", ["0"])[0]))
            self._transport.write(_response(b"application/json", tally.report()))
            return
        kind = headers.get("content-type", "").lower()
        if method == "POST":
            tally.take(path, kind, headers.get("content-encoding", "").lower(), body)
        response = _PROTOBUF if "protobuf" in kind else _JSON
        if tally.latency:
            loop = asyncio.get_running_loop()
            loop.call_later(tally.latency, self._write, response)
        else:
            self._write(response)

    def _write(self, response: bytes) -> None:
        self._transport.write(response)
        self._tally.answered()


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _dechunk(data: bytearray, at: int) -> tuple[bytes, int] | None:
    """Return the chunked body at *at* and where it ends, or None if more is to come."""
    parts: list[bytes] = []
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end].split(b";")[0], 16)
        start = end + 2
        at = start + size + 2
        if len(data) < at:
            return None
        if size == 0:
            return b"".join(parts), at  # none of the clients sends trailers
        parts.append(bytes(data[start : start + size]))
    return None


async def serve() -> None:
    """Serve on a free port of the loopback interface, said on standard output."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    server = await loop.create_server(lambda: Connection(tally), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # Blocks a thread, not the loop: the parent closes it, or dies.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    # Ctrl-C is for the benchmark, which ends this in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())
