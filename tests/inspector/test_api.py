"""The API to look at what came, and who may use it."""

import http.client
import socket
from contextlib import closing

import pytest
from inspector.client import TIMEOUT, TRACK

from userlens_instrument.inspector import Fault, InspectorServer


IDENTIFY = {"type": "identify", "userId": "u-2", "source": "userlens-restapi", "traits": {}}
NO_FAULT = "fault does nothing; give it a status, a delay or drop"


def test_events(client):
    """The newest events come first, with everything that is known of them."""
    client.deliver(TRACK)
    client.deliver(IDENTIFY)
    answer = client.send("GET", "/api/events")

    assert 200 == answer.status
    assert "application/json" == answer.headers["Content-Type"]
    assert [IDENTIFY, TRACK] == [event["body"] for event in answer.json["events"]]
    assert {"events": [each.as_dict() for each in client.server.store.events()]} == answer.json


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [3, 2, 1]),
        ("limit=1", [3]),
        ("limit=10000", [3, 2, 1]),
        ("type=track", [1]),
        ("userId=u-2", [2]),
        ("event=Plan%20Upgraded", [1]),
        ("verdict=bad", [3]),
        ("verdict=good&type=identify", [2]),
        ("type=", []),
    ],
)
def test_filters(client, query, expected):
    """What is shown can be narrowed down."""
    for body in (TRACK, IDENTIFY, {}):
        client.deliver(body)
    answer = client.send("GET", f"/api/events?{query}")

    assert expected == [event["seq"] for event in answer.json["events"]]


def test_default_limit(client):
    """A hundred events are shown unless more are asked for."""
    batch = {"events": [{"event": "A", "is_raw": False}] * 101}
    client.deliver(batch, "/raw/event")

    assert 100 == len(client.send("GET", "/api/events").json["events"])
    assert 101 == len(client.send("GET", "/api/events?limit=101").json["events"])


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limit=0", "limit must be a number from 1 to 10000"),
        ("limit=10001", "limit must be a number from 1 to 10000"),
        ("limit=-1", "limit must be a number from 1 to 10000"),
        ("limit=%C2%B2", "limit must be a number from 1 to 10000"),
        ("limit=" + "9" * 5000, "limit must be a number from 1 to 10000"),
        ("verdict=fine", "verdict must be good or bad"),
        ("user=u-1", "the parameters are limit, type, event, userId and verdict"),
        ("type=track&type=group", "each parameter can be there only once"),
    ],
)
def test_bad_filters(client, query, problem):
    """A filter that means nothing is refused in one line, not ignored."""
    answer = client.send("GET", f"/api/events?{query}")

    assert (400, {"error": problem}) == (answer.status, answer.json)


def test_stats(client):
    """The counters can be read."""
    client.deliver(TRACK)
    client.deliver({})
    answer = client.send("GET", "/api/stats")

    expected = {
        "requests": 2,
        "good": 1,
        "bad": 1,
        "bad_by_reason": {"missing": 1},
        "by_status": {"200": 1, "400": 1},
        "faults_fired": 0,
        "faults_pending": 0,
        "held": 2,
        "held_bytes": sum(entry.size for entry in client.server.store.events()),
        "evicted": 0,
    }
    assert (200, expected) == (answer.status, answer.json)


@pytest.mark.parametrize("body", [None, {}])
def test_reset(client, body):
    """A reset forgets events, counters and faults; it needs no body."""
    client.deliver(TRACK)
    client.fault(status=503)
    answer = client.send("POST", "/api/reset", body)

    assert (200, {"status": "ok"}) == (answer.status, answer.json)
    assert (0, 0, ()) == (
        client.server.store.stats().requests,
        client.server.store.stats().held,
        client.server.store.faults(),
    )


def test_faults(client):
    """Faults are queued up, one or several at once, can be read and can be cleared."""
    first = client.send("POST", "/api/faults", {"status": 503})
    second = client.send("POST", "/api/faults", [{"drop": True}, {"delay": 1, "count": 2}])
    expected = [
        fault.as_dict() for fault in (Fault(status=503), Fault(drop=True), Fault(delay=1, count=2))
    ]

    assert (200, {"faults": expected[:1]}) == (first.status, first.json)
    assert (200, {"faults": expected}) == (second.status, second.json)
    assert {"faults": expected} == client.send("GET", "/api/faults").json
    assert {"faults": []} == client.send("DELETE", "/api/faults").json
    assert () == client.server.store.faults()


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({}, 400, NO_FAULT),
        ([{"status": 503}, {}], 400, NO_FAULT),
        ({"status": 99}, 400, "fault.status is no final status; use 200 to 599"),
        (b"{", 400, "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b"", 400, "the body is empty; send one JSON object"),
        (b" " * 300_000, 413, "the body is larger than 262144 bytes"),
    ],
)
def test_bad_faults(client, body, status, problem):
    """A fault that is none is refused in one line with what to do, and none of its list counts."""
    answer = client.send("POST", "/api/faults", body)

    assert (status, problem) == (answer.status, answer.json["error"][: len(problem)])
    assert () == client.server.store.faults()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/faults", None),
        ("/api/faults", "text/plain"),
        ("/api/reset", "application/x-www-form-urlencoded"),
    ],
)
def test_only_json(client, path, kind):
    """What a form on a web page can send is refused: it could be any page's form."""
    answer = client.send("POST", path, b'{"status":503}', content_type=kind)

    assert (415, {"error": "Content-Type must be application/json"}) == (answer.status, answer.json)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("127.8.8.8", 200),
        ("localhost:8899", 200),
        ("LOCALHOST", 200),
        ("[::1]:8899", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:8899", 403),
        ("192.168.0.1", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("path", ["/api/stats", "/api/events", "/api/faults"])
def test_host(client, path, host, status):
    """A name that was rebound to this machine opens no door: the API knows its own names only."""
    assert status == client.send("GET", path, host=host).status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:{port}", 200),
        ("https://127.0.0.1:{port}", 403),
        ("http://127.0.0.1:1", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_origin(client, origin, status):
    """A page of another site can change nothing."""
    client.deliver(TRACK)
    origin = origin.format(port=client.server.port)
    answers = [
        client.send("POST", "/api/reset", origin=origin).status,
        client.send("POST", "/api/faults", {"status": 503}, origin=origin).status,
        client.send("DELETE", "/api/faults", origin=origin).status,
    ]

    assert [status] * 3 == answers
    assert (1 if status == 403 else 0) == client.server.store.stats().requests


def test_host_when_others_may_connect(connect):
    """A server that is open to other machines answers to any name; to another site, still not."""
    with InspectorServer(host="0.0.0.0") as server:
        client = connect(server)

        assert 200 == client.send("GET", "/api/stats", host="inspector:8899").status
        assert (
            403
            == client.send(
                "POST", "/api/reset", host="inspector:8899", origin="http://evil.example"
            ).status
        )


@pytest.mark.parametrize("path", ["/api/faults", "/event"])
def test_client_that_leaves(server, caplog, path):
    """A client that leaves in the middle of its body is nothing to complain of."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: 9\r\nexpect: 100-continue\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)) as sock:
        sock.sendall(head.encode())
        # The answer says that the application waits for the body.
        assert b"HTTP/1.1 100 " == sock.recv(1024)[:13]
        sock.sendall(b"{")

    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("GET", "/api/stats")
        connection.getresponse().read()
    server.stop()
    assert (0, []) == (server.store.stats().requests, caplog.records)
