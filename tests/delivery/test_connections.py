"""Connections over real sockets: kept, bounded, closed; the same straight and through a proxy."""

from __future__ import annotations

import socket
import threading

import pytest
from helpers import PATIENCE, WRITE_CODE, Reply

from userlens_instrument import Settings
from userlens_instrument._core.outcome import Failure
from userlens_instrument._delivery import connections, transport
from userlens_instrument._delivery.transport import UrllibTransport


BODY = b'{"type":"track"}'


@pytest.fixture(params=["direct", "proxied"])
def make(request, server, monkeypatch):
    """Return a maker of transports that reach *server*, straight or as the proxy of somewhere."""
    url = server.url
    if request.param == "proxied":
        url = "http://userlens.internal"
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")
    made = []

    def make(**settings):
        settings = {"write_code": WRITE_CODE, "events_url": url, "raw_url": url} | settings
        made.append(UrllibTransport(Settings(**settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def listener():
    """Return a socket that listens on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def test_one_connection_serves_many_requests(make, server):
    """Each answer is read to its end, so that the next request can follow it."""
    transport = make()
    for _ in range(20):
        assert 200 == transport.send("/event", BODY).status

    assert 20 == len(server.requests)
    assert 1 == server.connections


def test_no_request_waits_for_the_acknowledgement_of_its_head(make):
    """Nagle's algorithm is off, through a proxy as well: it costs 40 ms a request."""
    assert 200 == make().send("/event", BODY).status

    options = [
        connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for connection in connections._open
        if connection.sock is not None
    ]
    assert [1] == [min(option, 1) for option in options]


def test_the_same_is_asked_straight_and_through_a_proxy(make, server):
    """Headers, path and body; a base URL may have a path of its own."""
    transport = make()
    base = transport._targets["/event"][0]
    make(events_url=f"{base}/eu/v2").send("/event", BODY)
    (request,) = server.requests

    assert request.path.removeprefix(base) == "/eu/v2/event"
    assert request.body == BODY
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers.pop("authorization").startswith("Basic ")
    assert headers.pop("user-agent").startswith("userlens-instrument/")
    assert headers == {
        "host": base.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
    }


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
BODIES = {
    "huge": (b"x" * 200_000, {}, 200),
    "exactly as much as is read": (b"x" * 4_096, {}, 200),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\nok", None, 200),
    "shorter than it says": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", None, 200),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        None,
        200,
    ),
    "broken chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None, 200),
    "a negative chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nok\r\n0\r\n\r\n",
        None,
        200,
    ),
    "interim": (b"HTTP/1.1 102 Processing\r\n\r\n", None, Failure.MALFORMED),
    "continue first": (
        b"HTTP/1.1 100 Continue\r\n\r\n" + NO_CONTENT,
        None,
        204,
    ),
    "others first": (
        b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS + NO_CONTENT,
        None,
        204,
    ),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", None, Failure.MALFORMED),
    "a header without end": (
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
        None,
        Failure.MALFORMED,
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_whatever_the_answer_is_the_next_request_has_its_own(make, server, body):
    """What is left unread of an answer is not taken for the next one."""
    content, headers, expected = BODIES[body]
    act = "reply" if headers is not None else "raw"
    server.script = lambda request: (
        Reply(act=act, body=content) if request.number == 1 else Reply(status=418)
    )
    transport = make()
    answer = transport.send("/event", BODY)

    assert expected == (answer.status if answer.failure is None else answer.failure)
    assert len(answer.excerpt) <= 4_096
    # A request that meets a connection as it closes is tried again by the sender.
    assert act == "reply" or server.wait_until_connections_are(0)
    assert 418 == transport.send("/event", BODY).status


def test_a_connection_that_the_server_has_closed_is_not_used_again(make, server):
    """It is noticed before anything is written, so nothing can be lost that way."""
    transport = make()
    for number in (1, 2, 3):
        assert 200 == transport.send("/event", BODY).status
        server.drop_connections()
        assert server.wait_until_connections_are(0)
        assert number == len(server.requests)


def test_idle_connections_are_bounded_and_closed(make, server):
    """As many as there are workers are kept; the rest, and at the end all, are closed."""
    held, number = threading.Event(), 4
    server.script = lambda request: Reply(hold=held)
    transport = make(max_workers=2)
    threads = [
        threading.Thread(target=transport.send, args=("/event", BODY)) for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    assert server.wait_for(number)
    assert number == server.connections
    held.set()
    for thread in threads:
        thread.join(PATIENCE)

    assert server.wait_until_connections_are(2)
    transport.close()
    assert server.wait_until_connections_are(0)


def test_a_connection_in_use_is_closed_when_it_is_not_any_more(make, server):
    """A transport that is closed in the middle of a request leaves nothing open behind it."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held)
    transport, answers = make(), []
    thread = threading.Thread(target=lambda: answers.append(transport.send("/event", BODY)))
    thread.start()
    assert server.wait_for(1)
    transport.close()
    held.set()
    thread.join(PATIENCE)

    assert [200] == [answer.status for answer in answers]
    assert server.wait_until_connections_are(0)


def test_a_server_that_answers_before_it_has_read_and_closes(listener):
    """The answer counts, although the rest of the request cannot be written any more."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1_000)
            connection.sendall(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(65_536)  # so that no reset overtakes the answer
            while received:
                received = connection.recv(65_536)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    transport = UrllibTransport(Settings(write_code=WRITE_CODE, events_url=url))
    answer = transport.send("/event", b"x" * 4_000_000)
    thread.join(PATIENCE)

    assert 413 == answer.status


def test_a_server_that_does_not_read_costs_the_time_out(listener):
    """A body that is larger than what the system takes is bounded in time, too."""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = Settings(write_code=WRITE_CODE, events_url=url)
    transport = UrllibTransport(settings)
    answer = transport.send("/event", b"x" * 64_000_000, timeout=0.2)

    assert Failure.TIMEOUT is answer.failure


def test_an_ipv6_address_is_reached():
    """Brackets are for the URL and the Host header, not for the socket."""
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6")
    heads = []

    def serve():
        connection, _ = listening.accept()
        with connection:
            heads.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    port = listening.getsockname()[1]
    with listening:
        transport = UrllibTransport(
            Settings(write_code=WRITE_CODE, events_url=f"http://[::1]:{port}")
        )
        assert 200 == transport.send("/event", BODY).status
        thread.join(PATIENCE)
    transport.close()

    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]


def test_a_file_of_the_programs_in_the_place_of_urllib3(monkeypatch, diagnostics_lines):
    """It is named at once, and not run by a request, which fails for now."""
    monkeypatch.setattr(transport, "shadow_of", lambda name: f"/app/{name}.py")
    made = UrllibTransport(Settings(write_code=WRITE_CODE))

    level, line = diagnostics_lines.get(timeout=PATIENCE)
    assert ("ERROR", True) == (level, line.startswith("no event can be sent: /app/urllib3.py"))
    with pytest.raises(ImportError):
        made.send("/event", b"{}")
