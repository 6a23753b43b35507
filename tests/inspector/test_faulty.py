"""How it answers badly when it is told to."""

import http.client
import socket
import threading
import time
from contextlib import closing

import pytest
from inspector.client import TIMEOUT, TRACK, basic

from userlens_instrument.inspector import Fault, InspectorServer


def test_status(client):
    """The next requests are answered with the status that was chosen, and are not looked at."""
    client.fault(status=503, count=2)
    answers = [
        client.deliver(TRACK).status,
        client.deliver({}).status,
        client.deliver(TRACK).status,
    ]

    stats = client.server.store.stats()
    assert [503, 503, 200] == answers
    assert [TRACK] == client.server.bodies()
    assert ({"503": 2, "200": 1}, 2, 3) == (stats.by_status, stats.faults_fired, stats.requests)


def test_status_needs_no_write_code(client):
    """A gateway that is down does not ask for a write code."""
    client.fault(status=502)

    assert 502 == client.deliver(TRACK, authorization=None).status


def test_retry_after(client):
    """A status can come with a wish for when to try again."""
    client.fault(status=429, retry_after="7")
    answer = client.deliver(TRACK)

    assert (429, "7") == (answer.status, answer.headers["Retry-After"])


def test_redirect(client):
    """A redirect can be sent, for a sender to refuse to follow."""
    client.fault(status=307, location="http://127.0.0.1/elsewhere")
    answer = client.deliver(TRACK)

    assert (307, "http://127.0.0.1/elsewhere") == (answer.status, answer.headers["Location"])


@pytest.mark.parametrize("status", [200, 201, 204, 205, 304, 400, 599])
def test_any_final_status(client, status):
    """Any final status can be chosen; one that allows no body has none."""
    client.fault(status=status)
    answer = client.deliver(TRACK)

    assert status == answer.status
    assert (status in {204, 205, 304}) == (not answer.body)
    assert [] == client.server.bodies()


@pytest.mark.parametrize(("accept", "kept"), [(False, []), (True, [TRACK])])
def test_drop(server, accept, kept):
    """A dropped connection ends without a byte; the event is kept if the fault says so."""
    server.store.add_faults(Fault(drop=True, accept=accept))
    with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)) as sock:
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = sock
        connection.request("POST", "/event", *_track())

        assert b"" == sock.recv(1)
    stats = server.store.stats()
    assert kept == server.bodies()
    assert ({"dropped": 1}, 1) == (stats.by_status, stats.faults_fired)
    assert [None] * len(kept) == [entry.status for entry in server.store.events()]


def test_drop_is_what_a_client_calls_a_dropped_connection(client, caplog):
    """The client library reports a lost connection, and the server has nothing to complain of."""
    client.fault(drop=True, delay=0.001)
    with pytest.raises(http.client.RemoteDisconnected):
        client.deliver(TRACK)

    assert 200 == client.deliver(TRACK).status
    client.server.stop()
    assert [] == caplog.records


def test_lost_answer(client):
    """With accept the event is kept although the answer says otherwise; so is a bad one."""
    client.fault(status=500, accept=True, count=3)
    answers = [
        client.deliver(TRACK).status,
        client.deliver({}).status,
        client.deliver(TRACK, authorization=None).status,
    ]

    entries = client.server.store.events()
    assert [500, 500, 500] == answers
    assert [("bad", 500), ("bad", 500), ("good", 500)] == [
        (entry.verdict, entry.status) for entry in entries
    ]
    assert {"500": 3} == client.server.store.stats().by_status


def test_delay(client):
    """An answer can be late; it is the ordinary answer, and not earlier than asked for."""
    client.fault(delay=0.05, count=2)
    started = time.monotonic()
    answers = [client.deliver(TRACK).status, client.deliver({}).status]

    assert [200, 400] == answers
    assert time.monotonic() - started >= 0.1


def test_client_that_does_not_wait(client, caplog):
    """The event of a client that loses patience is kept, and nobody complains."""
    client.fault(delay=300)
    with closing(http.client.HTTPConnection("127.0.0.1", client.server.port)) as connection:
        connection.request("POST", "/event", *_track())
        assert client.server.store.wait_for(1, timeout=TIMEOUT)

    assert 200 == client.deliver(TRACK).status
    client.server.stop()
    assert [] == caplog.records


def test_delay_with_a_body_that_is_too_large(caplog):
    """The rest of a body that is too large does not end a delay; the client's leaving does."""
    head = b"POST /event HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with InspectorServer(max_body=1) as server:
        server.store.add_faults(Fault(delay=300))
        with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)) as sock:
            sock.sendall(head + b"2\r\n{}\r\n")
            assert server.store.wait_for_requests(1, timeout=TIMEOUT)
            sock.sendall(b"2\r\n{}\r\n0\r\n\r\n")

    assert {"401": 1} == server.store.stats().by_status
    assert [] == caplog.records


def test_stop_ends_a_delay(client):
    """A server that stops does not wait for its own delays; it drops them."""
    client.fault(delay=300, status=503)
    caught = []

    def deliver():
        try:
            client.deliver(TRACK)
        except (http.client.RemoteDisconnected, ConnectionResetError) as error:
            caught.append(error)

    thread = threading.Thread(target=deliver)
    thread.start()
    assert client.server.store.wait_for_requests(1, timeout=TIMEOUT)
    client.server.stop()
    thread.join()

    assert 1 == len(caught)


def test_one_user(client):
    """A fault for one user leaves the others alone, and a body that nobody can read as well."""
    client.fault(status=500, userId="u-2", count=10)
    batch = {"events": [{"event": "A", "is_raw": False, "userId": user} for user in ("u-1", "u-2")]}

    assert [200, 500, 500, 400] == [
        client.deliver(TRACK).status,
        client.deliver(TRACK | {"userId": "u-2"}).status,
        client.deliver(batch, "/raw/event").status,
        client.deliver(b"{").status,
    ]


def test_one_path(client):
    """A fault for one endpoint leaves the other alone."""
    client.fault(status=500, path="/raw/event")

    assert [200, 500] == [
        client.deliver(TRACK).status,
        client.deliver({"events": []}, "/raw/event").status,
    ]


def _track():
    """Return body and headers of a request."""
    headers = {"authorization": basic("wc:"), "content-type": "application/json"}
    return (
        b'{"type":"track","userId":"u-1","source":"userlens-restapi","event":"Plan Upgraded"}',
        headers,
    )
