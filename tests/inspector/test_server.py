"""The inspector as a thing to start and stop."""

import asyncio
import gc
import logging
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from inspector.client import TIMEOUT, TRACK

from userlens_instrument.inspector import InspectorServer, Store


def test_starts_and_stops(connect):
    """It answers as soon as it is started, and its port is free as soon as it is stopped."""
    with InspectorServer() as server:
        assert 200 == connect(server).deliver(TRACK).status
        port, url = server.port, server.url
    with InspectorServer(port=port) as server:
        assert 200 == connect(server).deliver(TRACK).status

    assert f"http://127.0.0.1:{port}" == url


LEAVES_NOTHING = """
import logging, signal, threading
from userlens_instrument.inspector import InspectorServer

def world():
    signals = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    return threading.active_count(), signals, logging.root.handlers[:], logging.root.level

before = world()
with InspectorServer() as server:
    assert server.store.stats().requests == 0
    assert world() != before
assert world() == before, (before, world())
"""


def test_leaves_nothing_behind():
    """No thread is left, no signal handler is changed, and no logger gets a handler or level."""
    # In a process of its own: other tests' threads come and go in this one.
    process = subprocess.run(
        [sys.executable, "-c", LEAVES_NOTHING], capture_output=True, text=True, timeout=60
    )

    assert (0, "") == (process.returncode, process.stderr)


def test_port_is_known_before_the_start():
    """The port is bound at once, so that a configuration can name it before anything runs."""
    server = InspectorServer()
    server.stop()

    assert server.port > 0
    assert f":{server.port}" in repr(server)


def test_port_in_use(server):
    """A port that is in use is an error at once."""
    with pytest.raises(OSError, match=r"in use|permitted"):
        InspectorServer(port=server.port)


def test_stop_twice(server):
    """To stop it twice is no error."""
    server.stop()
    server.stop()

    assert not server._thread.is_alive()


def test_own_store(connect):
    """A store of one's own can hold more, and outlives the server."""
    store = Store(max_events=5_000)
    with InspectorServer(store=store) as server:
        batch = {"events": [{"event": "A", "is_raw": False}] * 1_500}
        connect(server).deliver(batch, "/raw/event")

    assert (1_500, 1_500) == (store.stats().good, len(store.events()))


def test_failure_to_start():
    """A server that cannot start says so, instead of leaving everybody waiting."""
    server = InspectorServer()
    server._socket.close()
    with pytest.raises(RuntimeError, match="could not start"):
        server.start()
    server.stop()


def test_idle_and_half_open_connections(server, caplog):
    """Connections that are idle, or in the middle of a request, do not hold up the end."""
    address = ("127.0.0.1", server.port)
    with (
        closing(socket.create_connection(address)) as idle,
        closing(socket.create_connection(address, TIMEOUT)) as half,
    ):
        half.sendall(b"POST /event HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n")
        half.sendall(b"expect: 100-continue\r\n\r\n")
        assert b"HTTP/1.1 100 " == half.recv(1024)[:13]
        server.stop()

        assert (b"", b"") == (half.recv(1), idle.recv(1))
    assert [] == caplog.records


@pytest.mark.parametrize("turns", range(5))
def test_connection_in_the_last_moment(server, caplog, turns):
    """A connection that comes in while the server stops, however far it gets, is closed as well."""
    loop = server._server._loop
    connected, blocked = threading.Event(), threading.Event()

    def stop_after(more):
        if more:
            loop.call_soon(stop_after, more - 1)
        else:
            server._server._stopping.set()

    def block():
        blocked.set()
        connected.wait(TIMEOUT)
        stop_after(turns)

    loop.call_soon_threadsafe(block)
    blocked.wait(TIMEOUT)
    with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)):
        connected.set()
        server.stop()
        # A transport that was forgotten says so when it is collected.
        gc.collect()

    assert (set(), []) == (server._server.server_state.connections, caplog.records)


def test_answers_are_quick(server):
    """Small answers are not held back: Nagle's algorithm would cost 40 ms each."""
    made = []
    protocol = server._server.config.http_protocol_class

    class Watched(protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            sock = transport.get_extra_info("socket")
            made.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    server._server.config.http_protocol_class = Watched
    with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert sock.recv(1)

    assert [True] == [bool(each) for each in made]


def test_ipv6(connect):
    """It listens on the loopback address of IPv6 as well."""
    try:
        server = InspectorServer(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        address = server.url.removeprefix("http://[::1]:")

    assert (str(server.port), True) == (address, server.is_loopback)


def test_any_address():
    """A server on all addresses has a URL that can be used on this machine."""
    server = InspectorServer(host="0.0.0.0")
    server.stop()

    assert (f"http://127.0.0.1:{server.port}", False) == (server.url, server.is_loopback)


@pytest.mark.parametrize("missing", ["jsonschema", "starlette", "uvicorn"])
def test_without_the_extra(missing):
    """Without its libraries, the import says which extra to install, and nothing else."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try:\n    import userlens_instrument.inspector\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, error.__suppress_context__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    expected = (
        "MissingExtraError this needs the 'inspector' extra:"
        " pip install 'userlens-instrument[inspector]' True\n"
    )
    assert (expected, "") == (done.stdout, done.stderr)


def test_loop_is_its_own(server):
    """The thread that starts it needs no event loop, and gets none."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

    assert server._thread.daemon


def test_a_hosts_log_does_not_tell_of_it(caplog):
    """It runs inside other programs: starting and stopping it writes nothing to their log."""
    with caplog.at_level("DEBUG"), InspectorServer():
        pass

    assert [] == [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert [] == logging.getLogger("uvicorn.error").filters
