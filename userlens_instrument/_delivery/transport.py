"""
Where a request goes and what it carries: bytes in, status or failure out, no judgement.

What opens connections is a module of its own, loaded before the first request,
on the thread that sends it: it takes longer than all of our own together, and
nobody's start waits for it.
"""

from __future__ import annotations

import base64
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from userlens_instrument._core.shadow import shadow_of
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._version import __version__


if TYPE_CHECKING:
    from userlens_instrument._core.outcome import Answer
    from userlens_instrument._delivery.connections import Route
    from userlens_instrument.settings import Settings


def _load() -> type[Route]:
    if shadow_of("urllib3") is not None:
        raise ImportError  # that file is none of our business; who made the transport has said so
    from userlens_instrument._delivery.connections import Route  # noqa: PLC0415 - see above

    return Route


def is_loaded() -> bool:
    """Return whether what opens connections is loaded, to the end."""
    module = sys.modules.get("userlens_instrument._delivery.connections")
    return hasattr(module, "Route")


def load_before_fork() -> None:
    """
    Load what opens connections, if it will be needed: a forked child may not be able to.

    Whatever module another thread is importing at the fork, the child has the
    lock of, and nobody who gives it back.
    """
    if UrllibTransport.made:
        with suppress(Exception):  # the first request says what is wrong
            _load()


class UrllibTransport:
    """
    Sends over HTTP with kept-alive connections, one for each thread that sends at a time.

    Args:
        settings: URLs, time-outs and the write code.
    """

    #: Whether there is, or was, one in this process.
    made = False

    def __init__(self, settings: Settings) -> None:
        """Work out headers and targets; open nothing."""
        UrllibTransport.made = True
        hidden = shadow_of("urllib3")
        if hidden is not None:
            voice.say(
                "shadow",
                f"no event can be sent: {hidden} hides the library urllib3 from us; "
                "rename that file",
                logging.ERROR,
            )
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
        self._targets = {
            "/event": _split(settings.events_url),
            "/raw/event": _split(settings.raw_url),
        }
        self._routes: dict[str, Route] = {}

    def __repr__(self) -> str:
        """Say where to; the write code is in no repr."""
        return f"<UrllibTransport to {self._targets['/event'][0]}>"

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:
        """
        Send one request and return the answer; see `Transport.send`.

        Args:
            path: ``/event`` or ``/raw/event``.
            body: A JSON document in UTF-8.
            timeout: Bound in seconds, if tighter than the settings'.
        """
        bound = float("inf") if timeout is None else max(0.01, timeout)
        connect, read = min(self._connect_timeout, bound), min(self._read_timeout, bound)
        base, prefix = self._targets[path]
        return self._route(base).send(prefix + path, body, connect, read)

    def _route(self, base: str) -> Route:
        # Two threads may make one at the same time; the dict keeps one.
        return self._routes.get(base) or self._routes.setdefault(
            base, _load().to(base, self._headers, self._connections)
        )

    def close(self) -> None:
        """Close every idle connection; the next `send` opens new ones."""
        routes, self._routes = self._routes, {}
        for route in routes.values():
            route.close()

    def forget(self) -> None:
        """Let go of what a fork has copied, without taking a lock that it may have copied held."""
        routes, self._routes = self._routes, {}
        for route in routes.values():
            route.forget()


def _split(url: str) -> tuple[str, str]:
    """Return the URL of the host of *url*, and the path on it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path
