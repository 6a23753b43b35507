"""
The one door to urllib3: it opens connections, and where a proxy is in between does all the rest.

Its own retries and redirects are off: one place decides on a retry, and
credentials never follow a redirect. Answers are read by http.client; what is
the same in every request is put together once, and each goes out in one piece.
"""

from __future__ import annotations

# What the first connection would import: by then a fork may come in the middle.
import encodings.idna  # noqa: F401
import http.client
import io
import logging
import os
import queue
import ssl
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_match_hostname import CertificateError

from userlens_instrument._core.outcome import Answer, Failure
from userlens_instrument._delivery.threads import is_own_thread


if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from contextlib import AbstractContextManager


# An answer says "ok" or why not, in a line. More is left unread: the body may
# be a gigabyte, or a bomb that unpacks to one (nothing here unpacks).
_MOST_READ = 4_096


def _not_on_our_threads(record: logging.LogRecord) -> bool:  # noqa: ARG001 - logging's call
    return not is_own_thread()


# What urllib3 logs for a request of ours would go through the host's handlers
# on a sender thread: one that is slow, or waits for a flush, would hold up
# delivery. The host's own requests are logged as ever. A logger's filters do not
# see its children's records, hence each by its name.
for _name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_name}").addFilter(_not_on_our_threads)


class _Exchange(threading.local):
    # Whether a connection had to be opened, and whether that is still going on.
    connected = False
    opening = False


# Of the request that this thread is making.
_exchange = _Exchange()

# What a fork would copy. Idle connections go with their pools; the frame that
# is in the middle of a request in the parent stays for good, and so would its
# socket: the parent's close would not close the connection.
_open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()


class _Deadline(io.RawIOBase):
    """
    A socket's bytes, until a point in time.

    A socket's own timeout starts anew with each byte, so that a server can
    hold a thread for hours by dripping.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, at: float) -> None:
        self._raw = raw
        self._sock = sock
        self._at = at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedSocket:
    """Stands in for the socket where `http.client.HTTPResponse` asks for a file of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        # urllib3 has set the read timeout just before it makes the response:
        # what is one read's bound there is the whole answer's bound here.
        timeout = self._sock.gettimeout()
        raw = self._sock.makefile(mode, buffering=0)  # type: ignore[call-overload]
        at = time.monotonic() + (timeout if timeout is not None else 0.0)
        return io.BufferedReader(_Deadline(raw, self._sock, at))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_BoundedSocket(sock), *args, **kwargs)  # type: ignore[arg-type]

    def begin(self) -> None:
        super().begin()
        # http.client passes over 100 alone. An event whose answer comes after a
        # 102 or 103 would be sent again and again, and be taken each time.
        while 101 < self.status < 200:
            interim = self.headers
            self.headers = None  # type: ignore[assignment]  # what `begin` takes for: not begun
            try:
                super().begin()
            except http.client.RemoteDisconnected:
                # That was all, and no answer: see `_read`.
                self.headers = self.msg = interim
                return


class _PlainConnection(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        _exchange.connected = _exchange.opening = True
        super().connect()
        _exchange.opening = False
        _open.add(self)


class _TLSConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        _exchange.connected = _exchange.opening = True
        super().connect()
        _exchange.opening = False
        _open.add(self)


class _Stack:
    """
    Stands in for `queue.LifoQueue` as a pool's store of idle connections.

    That one has a mutex. A fork that finds it held leaves it held in the child
    for good, and urllib3's own exit hook takes it there: the exit would hang.
    """

    def __init__(self, maxsize: int) -> None:
        self._most = maxsize
        self._items: deque[Any] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - urllib3's calls
        if len(self._items) >= self._most:
            raise queue.Full
        self._items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002, FBT001, FBT002 - urllib3's calls
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._items)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection
    QueueCls = _Stack  # type: ignore[assignment]  # of the same shape, and that is all it needs


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection
    QueueCls = _Stack  # type: ignore[assignment]  # as above


_POOLS = {"http": _PlainPool, "https": _TLSPool}


class Route(ABC):
    """The way to one host."""

    @staticmethod
    def to(base: str, headers: Mapping[str, str], most: int) -> Route:
        """
        Return the way there, as the environment says.

        Args:
            base: The URL without its path.
            headers: Those of every request.
            most: Most idle connections kept.
        """
        proxy = proxy_of(base)
        if proxy is not None:
            return _Proxied(base, proxy, headers, most)
        return _Direct(base, headers, most)

    def send(self, path: str, body: bytes, connect: float, read: float) -> Answer:
        """
        Send *body*, and return the answer, or why there is none.

        Args:
            path: On this host, the base URL's own included.
            body: A JSON document in UTF-8.
            connect: Seconds to connect in, and to send in.
            read: Seconds for the whole answer.
        """
        _exchange.connected = _exchange.opening = False
        try:
            return self._exchange(path, body, connect, read)
        except Exception as error:
            return Answer(failure=_failure(error), detail=type(error).__name__)

    @abstractmethod
    def _exchange(self, path: str, body: bytes, connect: float, read: float) -> Answer:
        """Do as `send`, and raise whatever urllib3, http.client and sockets do."""

    @abstractmethod
    def close(self) -> None:
        """Close every idle connection."""

    @staticmethod
    def forget() -> None:
        """
        Close this process' copies of every connection: it is a fork, and they are its parent's.

        The parent's connections stay as they are, and no lock is taken that may have been held.
        """
        for connection in list(_open):
            with suppress(Exception):  # such as: the socket was closed already
                # Not close(): that would wait for a response that is being read.
                os.close(connection.sock.detach())


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment has for *url*; None for the direct way."""
    parts = urlsplit(url)
    # A proxy is for the way out; what is on this machine is not there.
    proxy = None if _is_this_machine(parts.hostname) else getproxies().get(parts.scheme)
    return proxy if proxy and not proxy_bypass(parts.netloc) else None


def _is_this_machine(host: str | None) -> bool:
    return host in ("localhost", "::1") or str(host).startswith("127.")


class _Direct(Route):
    """Over kept-alive connections, one for each thread that sends at a time."""

    def __init__(self, base: str, headers: Mapping[str, str], most: int) -> None:
        url = urllib3.util.parse_url(base)
        self._is_tls = url.scheme == "https"
        self._host = (url.host or "").strip("[]")
        self._port = url.port
        # Nothing here unpacks.
        every = {"Host": url.netloc, "Accept-Encoding": "identity", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
        self._lines = f" HTTP/1.1\r\n{lines}Content-Length: ".encode()
        self._most = most
        # No lock: a fork that finds it held leaves it held in the child.
        self._idle: deque[HTTPConnection] = deque()
        self._closed = False

    def _exchange(self, path: str, body: bytes, connect: float, read: float) -> Answer:
        connection = self._open(connect)
        kept = False
        try:
            sock = connection.sock
            assert sock is not None  # noqa: S101 - it is open
            sock.settimeout(connect)
            # Who refuses what it has not read to its end may have closed the
            # connection; but it has answered before.
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(
                    b"POST %b%b%d\r\n\r\n%b" % (path.encode(), self._lines, len(body), body)
                )
            sock.settimeout(read)
            response = _Response(sock, method="POST")
            try:
                response.begin()
                answer, whole = _read(response)
                kept = whole and not response.will_close
            finally:
                response.close()
        finally:
            if kept:
                self._keep(connection)
            else:
                # What is left unread would be taken for the next answer.
                connection.close()
        return answer

    def _open(self, timeout: float) -> HTTPConnection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_connected and not _pending(connection):
                    return connection
                # The server has closed it, or said something that nobody asked for.
                connection.close()
        kind = _TLSConnection if self._is_tls else _PlainConnection
        connection = kind(self._host, self._port, timeout=timeout)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, connection: HTTPConnection) -> None:
        self._idle.append(connection)
        if self._closed or len(self._idle) > self._most:
            self._drop_one()

    def _drop_one(self) -> bool:
        try:
            self._idle.popleft().close()
        except IndexError:
            return False
        return True

    def close(self) -> None:
        # Those in use are closed once they are not.
        self._closed = True
        while self._drop_one():
            pass


def _pending(connection: HTTPConnection) -> int:
    """Return how many bytes TLS has decrypted that nobody has read."""
    sock = connection.sock
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0


def _untraced() -> AbstractContextManager[None]:
    """
    Return what keeps OpenTelemetry from tracing a request of ours.

    It replaces `urlopen`: each request would be a span of whoever logged first,
    and carry the ids of that trace to Userlens. Connections of our own it does not see.
    """
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    return getattr(utils, "suppress_instrumentation", nullcontext)()


class _Proxied(Route):
    """Through a proxy, whose URL need not name a scheme, and may name a user."""

    def __init__(self, base: str, proxy: str, headers: Mapping[str, str], most: int) -> None:
        url = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        proxy_headers = None
        if url.auth is not None:
            proxy_headers = urllib3.make_headers(proxy_basic_auth=unquote(url.auth))
        # Without the user: what is not in there cannot come out in an error.
        self._manager = urllib3.ProxyManager(
            url._replace(auth=None).url,
            proxy_headers=proxy_headers,
            maxsize=most,
            block=False,
            retries=False,
            # As urllib3 has them without a proxy. With one it leaves Nagle's algorithm
            # on, and then each request waits 40 ms for the acknowledgement of its head.
            socket_options=HTTPConnection.default_socket_options,
        )
        self._manager.pool_classes_by_scheme = _POOLS
        self._base = base
        self._headers = headers

    def _exchange(self, path: str, body: bytes, connect: float, read: float) -> Answer:
        with _untraced():
            response = self._manager.urlopen(
                "POST",
                self._base + path,
                body=body,
                headers=self._headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=connect, read=read),
                preload_content=False,
                decode_content=False,
            )
        whole = False
        try:
            answer, whole = _read(response)
        finally:
            if not whole:
                response.close()
            response.release_conn()
        return answer

    def close(self) -> None:
        self._manager.clear()


def _read(response: http.client.HTTPResponse | urllib3.BaseHTTPResponse) -> tuple[Answer, bool]:
    """Return the answer that *response* is, and whether there is no more of it to come."""
    status = response.status
    if 100 <= status < 200:
        # 101, which nobody asked for; or 102 and 103, if nothing came after it.
        return Answer(failure=Failure.MALFORMED, detail=f"interim {status}"), False
    excerpt, whole = b"", False
    # The status line has come, and it decides, whatever comes after it.
    with suppress(Exception):
        excerpt = response.read(_MOST_READ) or b""
        whole = not excerpt or not response.read(1)
    retry_after = response.headers.get("Retry-After")
    return Answer(status=status, retry_after=retry_after, excerpt=excerpt), whole


def _failure(error: Exception) -> Failure:
    """Return which failure an exception of urllib3, or below it, stands for."""
    if isinstance(error, ProxyError):
        if _exchange.opening:
            return Failure.PROXY
        # urllib3 calls everything so that comes of a connection which http.client
        # has closed by then: also one that the proxy had closed while it was idle.
        error = error.original_error
    if isinstance(error, (SSLError, ssl.SSLError, CertificateError)):
        return Failure.TLS if _is_verification(error) else Failure.RESET
    if isinstance(error, NameResolutionError):
        return Failure.DNS
    if isinstance(error, NewConnectionError):
        return Failure.CONNECT
    if isinstance(error, ConnectTimeoutError):
        return Failure.CONNECT_TIMEOUT
    if isinstance(error, (ReadTimeoutError, TimeoutError)):
        return Failure.TIMEOUT
    cause = error.args[-1] if isinstance(error, ProtocolError) and error.args else error
    if isinstance(cause, OSError):
        # Nothing came back over a connection that had been idle: in all
        # likelihood the server had closed it before we wrote.
        return Failure.RESET if _exchange.connected else Failure.STALE
    if isinstance(error, (HTTPError, http.client.HTTPException, ValueError)):
        return Failure.MALFORMED
    return Failure.INTERNAL


def _is_verification(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ssl.SSLCertVerificationError, CertificateError)):
            return True
        inner = seen.args[0] if seen.args and isinstance(seen.args[0], BaseException) else None
        seen = inner or seen.__cause__
    return False
