"""
The application: the two endpoints of Userlens, and an API to see what came and to inject faults.

======================== ===================================================================
``POST /event``          one identify, group or track: 200, 400 with the reason, 401, 413
``POST /raw/event``      a batch: the same
``GET /api/events``      what came, newest first; ``limit`` (1 to 10000, 100 if left out),
                         ``type``, ``event``, ``userId`` and ``verdict`` (good or bad) choose
``GET /api/stats``       the counters
``POST /api/reset``      forget events, counters and faults
``GET /api/faults``      the faults that wait
``POST /api/faults``     queue up one fault or a list of them; see the module ``faults``
``DELETE /api/faults``   forget the faults that wait
======================== ===================================================================

Every answer is JSON; every refusal is ``{"error": …}`` with what is wrong, and ``path`` where a
place in the body is meant. The write code is compared and forgotten: it is never stored, shown,
recorded or logged.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from userlens_instrument.exceptions import SettingsError
from userlens_instrument.inspector.faults import PATHS, Fault, parse_fault
from userlens_instrument.inspector.record import Recorder
from userlens_instrument.inspector.store import Store, user_ids_of
from userlens_instrument.inspector.validate import (
    BodyError,
    Verdict,
    strict_json,
    validate_event,
    validate_raw,
)


# The largest body that is read, in bytes. Userlens states no limit; gateways have about this one.
MAX_BODY: Final = 10 * 1024 * 1024
# The largest body that the API reads: a thousand faults fit.
_MAX_API_BODY: Final = 256 * 1024

# Keys that the ASGI server puts into the scope's state; see the module server.
CONNECTION_KEY: Final = "userlens_connection"
ABORT_KEY: Final = "userlens_abort"

_OK: Final = b'{"status":"ok"}'
_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 10_000
_MAX_HEADER: Final = 200

# What says something about the sender. Not here: cookies, forwarded addresses, tokens.
_SHOWN_HEADERS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"transfer-encoding",
        b"user-agent",
    }
)
_HIDDEN: Final = {b"basic ": "Basic [hidden]"}

_JUDGES: Final[Mapping[str, Callable[[bytes], Verdict]]] = {
    "/event": validate_event,
    "/raw/event": validate_raw,
}

Handler = Callable[[Request], Awaitable[Response]]


class _TooLargeError(Exception):
    """A body exceeds its limit."""


class _Silence(Response):
    """No answer: closes the connection, or leaves it to the client, who is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- nothing is sent
        """
        Abort the connection, and return once the server knows.

        ASGI has no message for this. The server hands over a function that aborts the
        transport; to wait for the disconnect after it keeps the server from answering 500 for
        an application that returned without an answer.
        """
        scope["state"][ABORT_KEY]()
        await _disconnect(receive)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspector:
    """The handlers, and what they share."""

    store: Store
    recorder: Recorder | None
    write_code: bytes | None
    loopback: bool
    max_body: int

    def routes(self) -> list[Route]:
        """Return the routes."""
        table: list[tuple[str, Handler, list[str]]] = [
            *((path, self.deliver, ["POST"]) for path in PATHS),
            ("/api/events", self._guarded(self.events), ["GET"]),
            ("/api/stats", self._guarded(self.stats), ["GET"]),
            ("/api/reset", self._guarded(self.reset), ["POST"]),
            ("/api/faults", self._guarded(self.faults), ["GET", "POST", "DELETE"]),
        ]
        return [Route(path, handler, methods=methods) for path, handler, methods in table]

    async def deliver(self, request: Request) -> Response:
        """Answer ``POST /event`` and ``POST /raw/event``."""
        path = request.scope["path"]
        too_large = False
        try:
            raw = await _read(request, limit=self.max_body)
        except ClientDisconnect:
            return _Silence()
        except _TooLargeError:
            raw, too_large = b"", True
        # Faults come first, before the write code: a gateway that is down asks for none. But the
        # body was read, so that a dropped connection is a clean end and not a reset half-way.
        fault = self.store.take_fault(path, lambda: _users(raw))
        if fault is not None and fault.swallows:
            self.store.swallow(status=fault.status)
        else:
            status, verdict = self._judge(request, path, raw, too_large=too_large)
            self._keep(request, path, raw, verdict, status=_answered(fault, status))
        if fault is not None:
            # The event is kept by now: that a client loses patience does not undo it.
            if fault.delay and await _left_within(request, fault.delay):
                return _Silence()
            if fault.drop:
                return _Silence()
            if fault.status is not None:
                return _faulty(fault, fault.status)
        if verdict.good:
            return Response(_OK, media_type="application/json")
        return _refusal(status, verdict)

    async def events(self, request: Request) -> Response:
        """Answer ``GET /api/events``."""
        wanted: dict[str, Any] = {"limit": _DEFAULT_LIMIT}
        for key, value in request.query_params.multi_items():
            if key not in {"limit", "type", "event", "userId", "verdict"}:
                return _error(400, "the parameters are limit, type, event, userId and verdict")
            if key == "limit":
                if not (value.isascii() and value.isdigit() and len(value) <= 5):
                    return _error(400, f"limit must be a number from 1 to {_MAX_LIMIT}")
                wanted["limit"] = int(value)
            else:
                wanted["user_id" if key == "userId" else key] = value
        if len(request.query_params.multi_items()) != len(request.query_params):
            return _error(400, "each parameter can be there only once")
        if not 1 <= wanted["limit"] <= _MAX_LIMIT:
            return _error(400, f"limit must be a number from 1 to {_MAX_LIMIT}")
        if wanted.get("verdict", "good") not in {"good", "bad"}:
            return _error(400, "verdict must be good or bad")
        found = self.store.events(**wanted)
        return JSONResponse({"events": [entry.as_dict() for entry in found]})

    async def stats(self, request: Request) -> Response:  # noqa: ARG002 -- all the same
        """Answer ``GET /api/stats``."""
        return JSONResponse(self.store.stats().as_dict())

    async def reset(self, request: Request) -> Response:  # noqa: ARG002 -- the body is of no interest
        """Answer ``POST /api/reset``."""
        self.store.reset()
        return Response(_OK, media_type="application/json")

    async def faults(self, request: Request) -> Response:
        """Answer ``/api/faults``."""
        if request.method == "DELETE":
            self.store.clear_faults()
        elif request.method == "POST":
            try:
                asked = strict_json(await _read(request, limit=_MAX_API_BODY))
                faults = [parse_fault(each) for each in (asked if _is_list(asked) else [asked])]
            except (BodyError, SettingsError) as error:
                return _error(400, str(error))
            except _TooLargeError:
                return _error(413, f"the body is larger than {_MAX_API_BODY} bytes")
            except ClientDisconnect:
                return _Silence()
            self.store.add_faults(*faults)
        return JSONResponse({"faults": [fault.as_dict() for fault in self.store.faults()]})

    def _judge(
        self, request: Request, path: str, raw: bytes, *, too_large: bool
    ) -> tuple[int, Verdict]:
        """Return the status and the verdict that the contract asks for."""
        problem = _why_unauthorized(request.headers.getlist("authorization"), self.write_code)
        if problem:
            return 401, Verdict(good=False, code="unauthorized", reason=problem)
        if too_large:
            reason = f"the body is larger than {self.max_body} bytes"
            return 413, Verdict(good=False, code="too_large", reason=reason)
        problem = _why_no_json(request)
        if problem:
            return 400, Verdict(good=False, code="content_type", reason=problem)
        verdict = _JUDGES[path](raw)
        return (200 if verdict.good else 400), verdict

    def _keep(
        self, request: Request, path: str, raw: bytes, verdict: Verdict, *, status: int | None
    ) -> None:
        """Store the request, and record it if it is good."""
        received_at = self.store.timestamp()
        self.store.add(
            path=path,
            raw=raw,
            verdict=verdict,
            status=status,
            received_at=received_at,
            headers=_shown(request),
            connection=request.scope.get("state", {}).get(CONNECTION_KEY),
        )
        if verdict.good and self.recorder is not None:
            self.recorder.write(received_at=received_at, path=path, body=verdict.body)

    def _guarded(self, handler: Handler) -> Handler:
        """
        Keep web pages out of the API.

        Any page that a developer visits can send requests to a port on this machine. It cannot
        set an Origin of its choice; and a page whose name was rebound to 127.0.0.1 cannot set a
        Host of its choice.
        """

        async def guarded(request: Request) -> Response:
            host = request.headers.get("host", "")
            if self.loopback and not _is_loopback(host):
                return _error(403, "Host is not this machine; use http://127.0.0.1 or localhost")
            origin = request.headers.get("origin")
            if origin is not None and origin != f"{request.url.scheme}://{host}":
                return _error(403, "Origin is another site")
            kind = request.headers.get("content-type")
            if request.method == "POST" and (
                kind is not None or request.scope["path"] == "/api/faults"
            ):
                problem = _why_no_json(request)
                if problem:
                    return _error(415, problem)
            return await handler(request)

        return guarded


def create_app(
    store: Store,
    *,
    write_code: str | None = None,
    recorder: Recorder | None = None,
    loopback: bool = True,
    max_body: int = MAX_BODY,
) -> Starlette:
    """
    Build the application.

    It runs on any ASGI server; to drop a connection it needs the one of `InspectorServer`.

    Args:
        store: Where to keep what arrives, and where the faults are.
        write_code: The only write code to accept; None accepts any that is not empty. What an
            environment variable holds beyond UTF-8 is taken back to its bytes.
        recorder: Where to record accepted requests; None records nothing.
        loopback: Whether the server listens on a loopback address; then the API answers only to
            names of this machine.
        max_body: The largest body to read, in bytes.

    Returns:
        The application.
    """
    inspector = _Inspector(
        store=store,
        recorder=recorder,
        write_code=None if write_code is None else write_code.encode("utf-8", "surrogateescape"),
        loopback=loopback,
        max_body=max_body,
    )
    app = Starlette(
        routes=list(inspector.routes()), exception_handlers={HTTPException: _http_error}
    )
    # Userlens redirects nobody, and no sender follows.
    app.router.redirect_slashes = False
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 as JSON."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for nothing else
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return _error(405, f"{request.url.path} takes {allowed}", error.headers)
    return _error(
        error.status_code,
        "nothing is here; there are POST /event, POST /raw/event, and GET /api/events",
        error.headers,
    )


def _error(status: int, problem: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a problem, in one line."""
    return JSONResponse({"error": problem}, status_code=status, headers=headers)


def _refusal(status: int, verdict: Verdict) -> Response:
    """Answer a request that was not accepted."""
    body = {"error": verdict.reason}
    if verdict.path:
        body["path"] = verdict.path
    # RFC 9110 asks for the challenge with a 401.
    challenge = {"WWW-Authenticate": 'Basic realm="userlens"'} if status == 401 else None
    return JSONResponse(body, status_code=status, headers=challenge)


def _faulty(fault: Fault, status: int) -> Response:
    """Answer as a fault says."""
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    if fault.location is not None:
        headers["Location"] = fault.location
    if status in {204, 205, 304}:
        return Response(status_code=status, headers=headers)
    body = {"status": "ok"} if status < 300 else {"error": "a fault, as POST /api/faults asked"}
    return JSONResponse(body, status_code=status, headers=headers)


def _answered(fault: Fault | None, status: int) -> int | None:
    """Return the status that goes out, given a fault; None for none."""
    if fault is None or (fault.status is None and not fault.drop):
        return status
    return fault.status


async def _read(request: Request, *, limit: int) -> bytes:
    """
    Return the body.

    Raises:
        _TooLargeError: If it is larger than *limit* bytes; no more than that is held.
        ClientDisconnect: If the client went away before its end.
    """
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


async def _disconnect(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass  # the rest of a body that was too large


async def _left_within(request: Request, delay: float) -> bool:
    """Wait for *delay* seconds; tell at once if the client leaves before, or the server stops."""
    try:
        await asyncio.wait_for(_disconnect(request.receive), delay)
    except asyncio.TimeoutError:
        return False
    return True


def _users(raw: bytes) -> frozenset[str]:
    """Return the users whose events a body holds, if it can be read at all."""
    try:
        return user_ids_of(strict_json(raw))
    except BodyError:
        return frozenset()


def _why_unauthorized(values: list[str], write_code: bytes | None) -> str:
    """
    Tell what is wrong with the ``Authorization`` headers; empty if nothing is.

    Never says anything about the code that was sent.
    """
    if not values:
        return "Authorization is missing; send Basic base64('<write code>:')"
    scheme, _, encoded = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "basic":
        return "Authorization must be one Basic; send Basic base64('<write code>:')"
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return "Authorization is not base64; send Basic base64('<write code>:')"
    user, colon, password = decoded.partition(b":")
    if not colon:
        return "the colon behind the write code is missing; send Basic base64('<write code>:')"
    if password:
        return "the password must be empty; send Basic base64('<write code>:')"
    if not user:
        return "the write code is empty; send Basic base64('<write code>:')"
    if write_code is not None and not hmac.compare_digest(user, write_code):
        return "this is not the write code that is asked for"
    return ""


def _why_no_json(request: Request) -> str:
    """Tell why a body is not declared as plain JSON; empty if it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return "Content-Type must be application/json"
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        return "Content-Encoding must be left out; the contract knows no compression"
    return ""


def _shown(request: Request) -> dict[str, str]:
    """Return the headers worth showing, clipped, without the write code."""
    shown = {}
    for name, value in request.headers.raw:
        if name in _SHOWN_HEADERS:
            shown[name.decode("ascii")] = value[:_MAX_HEADER].decode("latin-1")
        elif name == b"authorization":
            shown["authorization"] = _HIDDEN.get(value[:6].lower(), "[hidden]")
    return shown


def _is_loopback(host: str) -> bool:
    """Tell whether a ``Host`` header names this machine by a name that cannot be rebound."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_list(value: object) -> bool:
    """Tell whether *value* is a list."""
    return isinstance(value, list)
