"""
The one door to urllib3: bytes in, status or failure out, no judgement.

urllib3's own retries and redirects are off: one place decides on a retry, and
credentials never follow a redirect.
"""

from __future__ import annotations

import base64

# What the first connection would import, on a sender thread: a fork in the
# middle of that leaves the child with an import lock that nobody gives back.
import encodings.idna  # noqa: F401
import http.client
import io
import logging
import os
import queue
import ssl
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
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
from userlens_instrument._version import __version__


if TYPE_CHECKING:
    import socket

    from userlens_instrument.settings import Settings


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
    """What the connection classes below tell of the request that this thread is making."""

    connected = False


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


class _PlainConnection(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        _exchange.connected = True
        super().connect()
        _open.add(self)


class _TLSConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        _exchange.connected = True
        super().connect()
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


class UrllibTransport:
    """
    Sends over HTTP with kept-alive connections, one for each thread that sends at a time.

    Args:
        settings: URLs, time-outs and the write code.
    """

    def __init__(self, settings: Settings) -> None:
        """Work out headers and targets; open nothing."""
        code = settings.write_code or ""
        # b64encode, not encodebytes: that one breaks a long code into lines.
        token = base64.b64encode(f"{code}:".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"userlens-instrument/{__version__}",
        }
        self._connect_timeout = settings.connect_timeout
        self._read_timeout = settings.read_timeout
        self._connections = settings.max_workers
        self._bases = {"/event": settings.events_url, "/raw/event": settings.raw_url}
        self._managers: dict[str, urllib3.PoolManager] = {}

    def __repr__(self) -> str:
        """Say where to; the write code is in no repr."""
        return f"<UrllibTransport to {self._bases['/event']}>"

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:
        """
        Send one request and return the answer; see `Transport.send`.

        Args:
            path: ``/event`` or ``/raw/event``.
            body: A JSON document in UTF-8.
            timeout: Bound in seconds, if tighter than the settings'.
        """
        url = self._bases[path] + path
        _exchange.connected = False
        try:
            return self._exchange(url, body, timeout)
        except Exception as error:
            return Answer(failure=_failure(error), detail=type(error).__name__)

    def _exchange(self, url: str, body: bytes, timeout: float | None) -> Answer:
        bound = float("inf") if timeout is None else max(0.01, timeout)
        response = self._manager(url).urlopen(
            "POST",
            url,
            body=body,
            headers=self._headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(
                connect=min(self._connect_timeout, bound), read=min(self._read_timeout, bound)
            ),
            preload_content=False,
            decode_content=False,
        )
        status = response.status
        excerpt, whole = b"", False
        try:
            if not 100 <= status < 200:
                excerpt = response.read(_MOST_READ) or b""
                whole = not excerpt or not response.read(1)
        except (HTTPError, OSError, http.client.HTTPException):
            pass  # the status line has come, and it decides
        finally:
            if not whole:
                # What is left unread would be taken for the next answer.
                response.close()
            response.release_conn()
        if 100 <= status < 200:
            # 102 or 103: http.client takes it for the answer, whose own status
            # is still to come.
            return Answer(failure=Failure.MALFORMED, detail=f"interim {status}")
        return Answer(
            status=status, retry_after=response.headers.get("Retry-After"), excerpt=excerpt
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        base = url[: url.index("/", 8)] if "/" in url[8:] else url
        manager = self._managers.get(base)
        if manager is None:
            # Two threads may make one at the same time; the dict keeps one.
            manager = self._managers.setdefault(base, self._make_manager(base))
        return manager

    def _make_manager(self, base: str) -> urllib3.PoolManager:
        parts = urlsplit(base)
        # A proxy is for the way out; what is on this machine is not there.
        proxy = None if _is_this_machine(parts.hostname) else getproxies().get(parts.scheme)
        options: dict[str, Any] = {"maxsize": self._connections, "block": False, "retries": False}
        if proxy and not proxy_bypass(parts.netloc):
            manager: urllib3.PoolManager = _proxy_manager(proxy, options)
        else:
            manager = urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close every idle connection; the next `send` opens new ones."""
        managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()

    def forget(self) -> None:
        """
        Let go of what a fork has copied, without taking a lock that it may have copied held.

        This process' copies of the sockets are closed; the parent's connections
        stay as they are.
        """
        self._managers = {}
        for connection in list(_open):
            with suppress(Exception):  # such as: the socket was closed already
                # Not close(): that would wait for a response that is being read.
                os.close(connection.sock.detach())


def _is_this_machine(host: str | None) -> bool:
    return host in ("localhost", "::1") or str(host).startswith("127.")


def _proxy_manager(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    """Return a manager for *proxy*, which need not name a scheme, and may name a user."""
    url = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if url.auth is not None:
        headers = urllib3.make_headers(proxy_basic_auth=unquote(url.auth))
    # Without the user: what is not in there cannot come out in an error.
    return urllib3.ProxyManager(url._replace(auth=None).url, proxy_headers=headers, **options)


def _failure(error: Exception) -> Failure:
    """Return which failure an exception of urllib3, or below it, stands for."""
    if isinstance(error, ProxyError):
        return Failure.PROXY
    if isinstance(error, (SSLError, ssl.SSLError)):
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
