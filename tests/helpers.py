"""What several tests need: a real HTTP server that answers by script, and a way to run children."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


WRITE_CODE = "wc-7f3a9d-secret"
BASIC = base64.b64encode(f"{WRITE_CODE}:".encode()).decode()

# How long a test waits for what must happen, in seconds: long enough for the
# slowest machine, and never waited for when all is well.
PATIENCE = 20.0

# Hypothesis tries all its examples on one Python, and fewer on the others, and
# there the tests of delivery run without those of batches: what differs between
# Pythons is not found by more of the same.
BRIEF = os.environ.get("TESTS_BRIEF") == "1"


# The same tests once more, each client with a spool of its own: what holds for
# events in memory holds for those on disk.
SPOOLED = os.environ.get("TESTS_SPOOL") == "1"
_spools = tempfile.TemporaryDirectory(prefix="userlens-tests-") if SPOOLED else None
_numbers = itertools.count()


def new_spool():
    """Return the path of a spool that there is not yet; None if the tests run without."""
    return None if _spools is None else f"{_spools.name}/{os.getpid()}-{next(_numbers)}/spool.db"


def examples(number):
    """Return how many examples to try instead of *number*."""
    return number // 5 if BRIEF else number


@dataclass
class Request:
    """What the server got."""

    path: str
    headers: dict[str, str]
    body: bytes
    number: int

    @property
    def json(self):
        return json.loads(unwrapped(self.path, self.body))


def as_tracks(body):
    """Return the events of a batch as the bodies that they would have been by themselves."""
    tracks = []
    for entry in json.loads(body)["events"]:
        assert entry.pop("is_raw") is False
        assert entry.pop("id")
        properties = entry.pop("properties")
        track = {"type": "track", "userId": entry.pop("userId"), "source": "userlens-restapi"}
        track["event"] = entry.pop("event")
        if properties:
            track["properties"] = properties
        tracks.append(track | entry)
    return tracks


def unwrapped(path, body):
    """Return a batch of one as if the event had been sent by itself; all else as it is."""
    if path != "/raw/event":
        return body
    tracks = as_tracks(body)
    return json.dumps(tracks[0]).encode() if len(tracks) == 1 else body


@dataclass
class Reply:
    """
    What the server does with a request.

    `hold` is waited for before anything else; `act` is "reply", "reset" (RST
    with no answer), "close" (FIN with no answer), or "raw" (send `body` as it
    is and close).
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"ok":true}'
    act: str = "reply"
    hold: threading.Event | None = None


def until(holds):
    """
    Wait until *holds* returns something true, and return that.

    Between two looks the processor is others': who is waited for gets on the
    sooner for it.
    """
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (found := holds()):
        assert time.monotonic() < deadline, "it has not come about"
        pause.wait(0.001)
    return found


class ScriptedServer:
    """
    A real HTTP server on a loopback port; keeps every request, answers as `script` says.

    `script` takes a `Request` and returns a `Reply`. It is called under no
    lock, on the connection's own thread. `tls` is an `ssl.SSLContext`.
    """

    def __init__(self, script=None, *, tls=None):
        self.script = script or (lambda request: Reply())
        self.requests: list[Request] = []
        self.arrived = threading.Condition()
        self._connections: set[socket.socket] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = None
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                with outer.arrived:
                    outer._connections.add(self.request)

            def finish(self):
                with contextlib.suppress(OSError):
                    super().finish()
                with outer.arrived:
                    outer._connections.discard(self.request)
                    outer.arrived.notify_all()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with outer.arrived:
                    request = Request(self.path, dict(self.headers), body, len(outer.requests) + 1)
                    outer.requests.append(request)
                    outer.arrived.notify_all()
                outer._act(self, outer.script(request))

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # a client that goes away in mid-request is part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls is not None:
            # The handshake is the connection's own thread's, not the listener's.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @staticmethod
    def _act(handler, reply):
        if reply.hold is not None:
            reply.hold.wait(PATIENCE * 3)
        if reply.act == "reset":
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            handler.close_connection = True
            handler.rfile.close()
            handler.wfile.close()
            handler.connection.close()
            return
        if reply.act in ("close", "raw"):
            handler.close_connection = True
            if reply.act == "raw":
                handler.wfile.write(reply.body)
                handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(reply.status)
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body)

    @property
    def events(self):
        with self.arrived:
            return [request.json for request in self.requests]

    @property
    def connections(self):
        """How many connections are open."""
        return len(self._connections)

    def wait_until_connections_are(self, number):
        """Return whether there come to be *number* connections, where there were more."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self._connections) == number, PATIENCE)

    def drop_connections(self):
        """Close every connection, as a server does with those that are idle."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, number, timeout=PATIENCE):
        """Wait until *number* requests have arrived; return whether they have."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.requests) >= number, timeout)

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


# Bound and not listening: nobody answers there, and nobody else gets the port.
_taken = []


def closed_port():
    """Return a loopback port on which nobody listens, and nobody will while the tests run."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    _taken.append(holder)
    return holder.getsockname()[1]


def refuse_our_threads(monkeypatch):
    """Make every start of a sender thread fail as it does at the exit of Python 3.12."""
    start = threading.Thread.start

    def refuse(self):
        if self.name.startswith("userlens"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def environment(url, **extra):
    """Return an environment for a child that delivers to *url*, free of this one's settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("USERLENS_")}
    if SPOOLED:
        clean["USERLENS_SPOOL"] = new_spool()
    return clean | {
        "USERLENS_WRITE_CODE": WRITE_CODE,
        "USERLENS_EVENTS_URL": url,
        "USERLENS_RAW_URL": url,
        **extra,
    }


def run_python(code, url, *, timeout=60, **extra):
    """Run *code* in a Python of its own that delivers to *url*; return the finished process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(url, **extra),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
