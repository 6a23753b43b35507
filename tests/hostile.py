"""
A hostile Userlens on raw sockets: it does to each request what its script says, and keeps books.

A script is a list of `Rule`, in which the first that fires is what happens; a request for which
none does is read, taken and answered with success::

    with HostileServer([Rule(every=5, end="reset", takes=True, lost=True)]) as server:
        ...

Nothing in here knows of the package; it speaks HTTP as badly as it is told.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from helpers import BASIC, PATIENCE


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def answer(status=200, body=b'{"ok":true}', **headers):
    """Return an answer's bytes; an underscore in a header's name is a hyphen."""
    lines = {"Content-Length": len(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body


OK = answer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    What is done to which requests.

    Attributes:
        every: Fires for each so-many-th request that comes by.
        after: So many are let pass first.
        times: How often it fires at most; None for ever.
        holding: Only requests with this in their body come by; needs ``read="all"``.
        read: How much of the request is read: ``all``, ``head``, or ``nothing``.
        hold: Whether to wait for `HostileServer.release` before anything is said.
        send: What is said.
        more: What is said after that, over and over.
        more_times: How often.
        pace: Seconds before each *more*.
        end: What follows: ``keep`` the connection, ``close`` it, ``reset`` it, close this
            direction only (``half``), or wait in ``silence`` for the client to hang up.
        takes: Whether the server has taken the events by then.
        lost: Whether the client cannot know that it has.
    """

    every: int = 1
    after: int = 0
    times: int | None = None
    holding: bytes = b""
    read: str = "all"
    hold: bool = False
    send: bytes = b""
    more: bytes = b""
    more_times: int = 0
    pace: float = 0.0
    end: str = "keep"
    takes: bool = False
    lost: bool = False


_ORDINARY = Rule(send=OK, takes=True)


class Taken(NamedTuple):
    """An event that the server has taken: whose, and which of that user's."""

    user: str
    number: int | None


class HostileServer:
    """
    Listens on a loopback port, which stays its own while it is down.

    Args:
        script: What is done to which requests; may be set anew at any time.
        tls: Returns the context for a connection, given its number from 1 on; None resets
            it at once.
        up: Whether it listens from the start.

    Attributes:
        taken: Every event taken, in the order in which that happened.
        requests: Requests that were begun, those of which nothing was read included.
        fired: How often each rule has fired.
        lost: Events that were taken and whose answer was withheld.
        connections: Connections accepted.
        refused_us: TLS handshakes that failed.
        hung_up: Answers that the client did not hear to their end, by closing the connection.
        said: Bytes of *more* that the system took.
        most_at_once: Most requests between their first byte and their answer's, at a time.
        wrong: What is wrong with the client's own requests, in words.
        changed: Notified of every change of the above.
        release: Lets go of what a rule holds.
    """

    def __init__(
        self,
        script: Iterable[Rule] = (),
        *,
        tls: Callable[[int], ssl.SSLContext | None] | None = None,
        up: bool = True,
    ) -> None:
        self.script = tuple(script)
        self.taken: list[Taken] = []
        self.requests = 0
        self.fired: Counter[Rule] = Counter()
        self.lost = 0
        self.connections = 0
        self.refused_us = 0
        self.hung_up = 0
        self.said = 0
        self.most_at_once = 0
        self.wrong: list[str] = []
        self.changed = threading.Condition()
        self.release = threading.Event()
        self._tls = tls
        self._asked: Counter[Rule] = Counter()
        self._at_once = 0
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._coming_or_going = threading.RLock()
        # Bound and never listening: nobody else gets the port while this is down.
        self._holder = _bound(0)
        self.port = self._holder.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if up:
            self.up()

    # ------------------------------------------------------------ there or not

    def up(self) -> None:
        """Begin to listen, and to accept."""
        with self._coming_or_going:
            if self._listener is None:
                self._listener = _bound(self.port)
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Be gone: connections are refused, and those that are open are reset."""
        with self._coming_or_going:
            listener, self._listener = self._listener, None
            if listener is not None:
                # Closing alone does not wake who accepts.
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
            with self.changed:
                connections = list(self._open)
            for connection in connections:
                with contextlib.suppress(OSError):
                    _reset_on_close(connection)
                    # Wakes the thread that reads it, which closes it.
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def full_backlog(self):
        """Listen without accepting, and with no room for another connection, until `up`."""
        self._listener = _bound(self.port)
        self._listener.listen(0)
        with contextlib.ExitStack() as stack:
            while True:
                filler = stack.enter_context(socket.socket())
                filler.settimeout(0.1)
                try:
                    filler.connect(("127.0.0.1", self.port))
                except TimeoutError:
                    break
            yield

    def stop(self) -> None:
        self._stopping.set()
        self.release.set()
        self.down()
        self._holder.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def wait_until(self, what) -> bool:
        """Return whether *what* comes to be true of this server."""
        with self.changed:
            return self.changed.wait_for(lambda: what(self), PATIENCE)

    # ------------------------------------------------------------ connections

    def _accept(self, listener) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # it is down
            with self.changed:
                if self._listener is not listener:
                    # It went down between the two lines above: the last one in is out, too.
                    _reset_on_close(connection)
                    connection.close()
                    return
                self.connections += 1
                number = self.connections
                self._open.add(connection)
                self.changed.notify_all()
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection, number) -> None:
        sock = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._shake_hands(connection, number)
                with self.changed:
                    self._open.discard(connection)
                    self._open.update({sock} - {None})
            goes_on = sock is not None
            while goes_on:
                goes_on = self._exchange(sock)
        except OSError:
            pass  # the client went away, which it may
        finally:
            with self.changed:
                self._open -= {sock, connection}
                self.changed.notify_all()
            for one in (sock, connection):
                with contextlib.suppress(OSError, AttributeError):
                    one.close()

    def _shake_hands(self, connection, number):
        context = self._tls(number)
        if context is None:
            _reset_on_close(connection)
            connection.recv(1)  # the handshake has begun
            self._note(refused_us=1)
            return None
        try:
            return context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError):
            self._note(refused_us=1)
            return None

    def _note(self, **more) -> None:
        with self.changed:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)
            self.changed.notify_all()

    # ------------------------------------------------------------ requests

    def _exchange(self, sock) -> bool:
        """Do to one request what the script says; return whether another may follow."""
        if not isinstance(sock, ssl.SSLSocket) and not sock.recv(1, socket.MSG_PEEK):
            return False
        began = False
        try:
            with self.changed:
                rule = self._rule("nothing")
                if rule is not None:
                    self.requests += 1
            if rule is None:
                received = _read_head(sock)
                if received is None:
                    return False
                began = True
                with self.changed:
                    self.requests += 1
                    self._at_once += 1
                    self.most_at_once = max(self.most_at_once, self._at_once)
                rule = self._judge(sock, *received)
            if rule.hold:
                self.release.wait(PATIENCE * 3)
        finally:
            with self.changed:
                self._at_once -= began
                self.changed.notify_all()
        return self._act(sock, rule)

    def _judge(self, sock, head: bytes, rest: bytes) -> Rule:
        """Return what to do to a request whose *head* has been read, and take its events."""
        with self.changed:
            rule = self._rule("head")
        if rule is not None:
            return rule
        line, headers = _parse(head)
        body = rest + _read(sock, int(headers.get("content-length", 0)) - len(rest))
        with self.changed:
            rule = self._rule("all", body) or _ORDINARY
            self._look_at(line, headers)
            if rule.takes:
                events = _events(body)
                self.taken += events
                self.lost += len(events) * rule.lost
        return rule

    def _rule(self, read: str, body: bytes = b"") -> Rule | None:
        """Return the rule that fires at this stage, if one does. The lock must be held."""
        for rule in self.script:
            if rule.read != read or rule.holding not in body:
                continue
            if rule.times is not None and self.fired[rule] >= rule.times:
                continue
            self._asked[rule] += 1
            number = self._asked[rule] - rule.after
            if number > 0 and number % rule.every == 0:
                self.fired[rule] += 1
                return rule
        return None

    def _look_at(self, line: str, headers: dict[str, str]) -> None:
        method, target, _ = line.split(" ")
        if method != "POST" or not target.endswith(("/event", "/raw/event")):
            self.wrong.append(line)
        if headers.get("authorization") != f"Basic {BASIC}":
            self.wrong.append("no write code, or another")

    def _act(self, sock, rule: Rule) -> bool:
        try:
            sock.sendall(rule.send)
            for _ in range(rule.more_times):
                if rule.pace and self._stopping.wait(rule.pace):
                    return False
                sock.sendall(rule.more)
                self.said += len(rule.more)
            if rule.end == "silence":
                _drain(sock)
                self._note(hung_up=1)
        except OSError:
            self._note(hung_up=1)
            return False
        if rule.end == "reset":
            _reset_on_close(sock)
        if rule.end == "half":
            sock.shutdown(socket.SHUT_WR)
            _drain(sock)
        return rule.end == "keep"


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _reset_on_close(sock) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read_head(sock):
    """Return a request's head and what came with it of the body; None at the end."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = sock.recv(65_536)
        if not more:
            return None
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _read(sock, number: int) -> bytes:
    received = b""
    while len(received) < number:
        more = sock.recv(number - len(received))
        if not more:
            raise ConnectionAbortedError
        received += more
    return received


def _drain(sock) -> None:
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65_536):
            pass


def _parse(head: bytes):
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (one.partition(":") for one in lines)
    return line, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _events(body: bytes) -> list[Taken]:
    found = json.loads(body)
    return [
        Taken(event["userId"], (event.get("properties") or event.get("traits") or {}).get("number"))
        for event in found.get("events", [found])
    ]
