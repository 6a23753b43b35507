"""The inspector on a port: uvicorn in a thread, started and stopped without a poll or a sleep."""

import asyncio
import contextlib
import itertools
import logging
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from userlens_instrument.inspector.app import ABORT_KEY, CONNECTION_KEY, MAX_BODY, create_app
from userlens_instrument.inspector.record import Recorder
from userlens_instrument.inspector.store import Store


if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


# Longer than any pause in a test or a demo: an idle connection that is closed just as the client
# reuses it would be a fault that nobody asked for. In seconds.
_KEEP_ALIVE: Final = 120

_UVICORN_LOG: Final = logging.getLogger("uvicorn.error")


class _Protocol(H11Protocol):
    """A connection that the application can tell from others and can drop."""

    _numbers = itertools.count(1)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the parent
        """Hand the number and the means to abort to the application, by way of the scope."""
        super().connection_made(transport)
        # asyncio does this only for sockets that were made with an explicit protocol number,
        # and an accepted socket is like its listener. Without it, Nagle's algorithm and the
        # client's delayed acknowledgement cost 40 ms for each answer.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {
            **self.app_state,
            CONNECTION_KEY: next(self._numbers),
            ABORT_KEY: transport.abort,
        }


class _Server(uvicorn.Server):
    """
    uvicorn, less its clock tick.

    uvicorn looks ten times a second whether it should stop; this one is told. And what is still
    open when it stops (a request without an end, an answer that waits for its delay) is
    aborted, not waited for.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        """Make one that was not started."""
        super().__init__(config)
        self.ready = threading.Event()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits for it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Wait until told to stop."""
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything and wait for what it wakes."""
        # asyncio makes a connection in a task of its own, in several turns, and forgets the socket
        # if the listener is closed meanwhile. So: accept no more, abort until no task is left, and
        # only then close.
        for listener in sockets or ():
            with contextlib.suppress(NotImplementedError):  # Windows; there the rest has to do
                asyncio.get_running_loop().remove_reader(listener)
        while True:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if not others:
                break
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        for server in self.servers:
            server.close()

    def stop(self) -> None:
        """Tell it to stop, from another thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
                self._loop.call_soon_threadsafe(self._stopping.set)


class InspectorServer:
    """
    An inspector on a port of this machine, in a daemon thread, as a context manager.

    ::

        with InspectorServer() as server:
            deliver_to(server.url)
            assert server.bodies() == [...]

    It installs no signal handlers and configures no logging.

    Attributes:
        store: What arrived, the counters, and the faults.
        url: Where it listens, such as ``http://127.0.0.1:40123``.
        port: The port.
        is_loopback: Whether only this machine can reach it.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: Store | None = None,
        write_code: str | None = None,
        recorder: Recorder | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        """
        Bind the port; answers begin with `start`.

        Args:
            host: The address to listen on.
            port: The port; 0 takes any that is free.
            store: Where to keep what arrives; a new one by default.
            write_code: The only write code to accept; None accepts any that is not empty.
            recorder: Where to record accepted requests; stays open when the server stops.
            max_body: The largest body to read, in bytes.

        Raises:
            OSError: If the address cannot be bound.
        """
        self.store = Store() if store is None else store
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.create_server(address[:2], family=family)
        bound, self.port = self._socket.getsockname()[:2]
        self.is_loopback = bound.startswith("127.") or bound == "::1"
        # Nobody can connect to "any address"; this machine is one of them.
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)  # noqa: S104 -- compared
        self.url = (
            f"http://[{shown}]:{self.port}" if ":" in shown else f"http://{shown}:{self.port}"
        )
        app = create_app(
            self.store,
            write_code=write_code,
            recorder=recorder,
            loopback=self.is_loopback,
            max_body=max_body,
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
            )
        )
        self._thread = threading.Thread(target=self._run, name="userlens-inspector", daemon=True)
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        """Show where it listens and what it holds."""
        return f"<InspectorServer url={self.url!r} store={self.store!r}>"

    def __enter__(self) -> "Self":
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """
        Start the thread, and return once it accepts connections.

        Raises:
            RuntimeError: If it cannot start, or was started before.
        """
        # uvicorn tells the host's log when it starts and stops; the host did not
        # ask for this server, and may run another one whose lines it wants.
        _UVICORN_LOG.addFilter(self._is_of_another_server)
        self._thread.start()
        self._server.ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise RuntimeError("the inspector could not start") from self._failure

    def stop(self) -> None:
        """Stop it, and return once every socket is closed; may be called twice."""
        self._server.stop()
        if self._thread.ident is not None:
            self._thread.join()
        _UVICORN_LOG.removeFilter(self._is_of_another_server)
        self._socket.close()

    def _is_of_another_server(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread.ident or record.levelno >= logging.WARNING

    def bodies(self) -> list[Any]:
        """Return the bodies of the good events that are kept, in the order of their arrival."""
        return [entry.body for entry in reversed(self.store.events(verdict="good"))]

    def _run(self) -> None:
        """Serve until told to stop."""
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # SystemExit, too: uvicorn's way to say that it failed
            self._failure = error
        finally:
            self._server.ready.set()
