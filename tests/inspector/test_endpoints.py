"""What the two endpoints answer, over a real socket."""

import base64
import json
import socket
from contextlib import closing

import pytest
from inspector.client import TIMEOUT, TRACK, basic

from userlens_instrument.inspector import Fault, InspectorServer, Recorder


BATCH = {"events": [{"event": "A", "is_raw": False}, {"event": "B", "is_raw": False}]}


def test_event(client):
    """A good event is answered 200 and kept, body and all."""
    answer = client.deliver(TRACK)

    (entry,) = client.server.store.events()
    assert (200, {"status": "ok"}) == (answer.status, answer.json)
    assert (TRACK, "good", 200, "/event") == (entry.body, entry.verdict, entry.status, entry.path)


def test_batch(client):
    """A good batch is answered 200, and each of its events is kept."""
    answer = client.deliver(BATCH, "/raw/event")

    assert (200, {"status": "ok"}) == (answer.status, answer.json)
    assert BATCH["events"] == client.server.bodies()


def test_order(client):
    """Bodies are read back in the order in which they arrived, the good ones only."""
    first, second = TRACK | {"event": "First"}, TRACK | {"event": "Second"}
    client.deliver(first)
    client.deliver({})
    client.deliver(second)

    assert [first, second] == client.server.bodies()


@pytest.mark.parametrize("path", ["/event", "/raw/event"])
def test_bad_body(client, path):
    """A bad body is answered 400 with the reason and the place, and kept as bad."""
    answer = client.deliver({"type": "track", "events": "none"}, path)

    (entry,) = client.server.store.events(verdict="bad")
    assert (400, {"error": entry.reason, "path": entry.reason_path}) == (answer.status, answer.json)
    assert (400, [], {"type": "track", "events": "none"}) == (
        entry.status,
        client.server.bodies(),
        entry.body,
    )


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"content_type": None}, "Content-Type must be application/json"),
        ({"content_type": "text/plain"}, "Content-Type must be application/json"),
        (
            {"content_encoding": "gzip"},
            "Content-Encoding must be left out; the contract knows no compression",
        ),
    ],
)
def test_not_declared_as_json(client, headers, reason):
    """The contract asks for plain JSON, and for saying so."""
    answer = client.deliver(TRACK, **headers)

    assert (400, {"error": reason}) == (answer.status, answer.json)


def test_charset_is_allowed(client):
    """A parameter of the content type changes nothing."""
    answer = client.deliver(TRACK, content_type="Application/JSON; charset=utf-8")

    assert 200 == answer.status


HOW = "send Basic base64('<write code>:')"


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, f"Authorization is missing; {HOW}"),
        ("Bearer wc", f"Authorization must be one Basic; {HOW}"),
        ("Basic ä", f"Authorization is not base64; {HOW}"),
        ("Basic !!!!", f"Authorization is not base64; {HOW}"),
        ("Basic d2M", f"Authorization is not base64; {HOW}"),
        (basic("wc"), f"the colon behind the write code is missing; {HOW}"),
        (basic(":"), f"the write code is empty; {HOW}"),
        (basic("wc:password"), f"the password must be empty; {HOW}"),
    ],
)
def test_no_write_code(client, authorization, reason):
    """Without a write code, or with one in another form, the answer is 401 and says why."""
    answer = client.deliver(TRACK, authorization=authorization)

    (entry,) = client.server.store.events()
    assert (401, {"error": reason}) == (answer.status, answer.json)
    assert 'Basic realm="userlens"' == answer.headers["WWW-Authenticate"]
    assert ("bad", 401, None) == (entry.verdict, entry.status, entry.body)
    assert {"unauthorized": 1} == client.server.store.stats().bad_by_reason


def test_two_write_codes(server):
    """Two Authorization headers are none."""
    request = b"POST /event HTTP/1.1\r\nhost: x\r\nauthorization: %b\r\nauthorization: %b\r\n"
    code = basic("wc:").encode()
    with closing(socket.create_connection(("127.0.0.1", server.port), TIMEOUT)) as sock:
        sock.sendall(request % (code, code) + b"connection: close\r\ncontent-length: 0\r\n\r\n")

        assert b"HTTP/1.1 401 Unauthorized" == sock.makefile("rb").readline().strip()


def test_any_write_code(client):
    """Without a write code to check, any will do, whatever its letters."""
    assert (
        200 == client.deliver(TRACK, authorization=basic("ä ö:").replace("Basic", "basic")).status
    )


def test_wrong_write_code(connect):
    """With a write code to check, only that one will do, byte for byte."""
    with InspectorServer(write_code="ri\udcffght") as server:
        client = connect(server)
        right = "Basic " + base64.b64encode(b"ri\xffght:").decode()
        wrong = client.deliver(TRACK, authorization=basic("wrong:"))

        assert (401, "this is not the write code that is asked for") == (
            wrong.status,
            wrong.json["error"],
        )
        assert 200 == client.deliver(TRACK, authorization=right).status


@pytest.mark.parametrize("user", ["secret-write-code:", "secret-write-code:secret-write-code"])
def test_write_code_is_nowhere(connect, tmp_path, caplog, capfd, user):
    """The write code is not kept, not shown, not recorded and not logged, right or wrong."""
    caplog.set_level(1)
    file = tmp_path / "events.jsonl"
    recorder = Recorder(file, complain=print)
    with closing(recorder), InspectorServer(recorder=recorder) as server:
        client = connect(server)
        answer = client.deliver(TRACK, authorization=basic(user), cookie=basic(user))
        seen = [
            answer.body + str(answer.headers).encode(),
            client.send("GET", "/api/events").body,
            client.send("GET", "/api/stats").body,
            repr((server, server.store.events())).encode(),
            file.read_bytes(),
            caplog.text.encode(),
            "".join(capfd.readouterr()).encode(),
        ]
        headers = server.store.events()[0].headers

    assert "Basic [hidden]" == headers["authorization"]
    for secret in (b"secret-write-code", basic(user)[6:26].encode()):
        assert not [text for text in seen if secret in text]


def test_other_schemes_are_hidden_too(client):
    """Whatever is sent as Authorization, none of it is kept."""
    client.deliver(TRACK, authorization="Bearer secret")

    assert "[hidden]" == client.server.store.events()[0].headers["authorization"]


def test_headers(client):
    """The headers that tell something about the sender are kept, clipped; no others."""
    client.deliver(TRACK, user_agent="me/1 " + "x" * 500, x_token="secret")

    expected = {
        "host": f"127.0.0.1:{client.server.port}",
        "accept-encoding": "identity",
        "content-length": str(len(json.dumps(TRACK))),
        "content-type": "application/json",
        "user-agent": ("me/1 " + "x" * 500)[:200],
        "authorization": "Basic [hidden]",
    }
    assert expected == client.server.store.events()[0].headers


def test_too_large(connect):
    """A body above the limit is answered 413, whether or not its length was declared."""
    with InspectorServer(max_body=100) as server:
        client = connect(server)
        body = json.dumps(TRACK | {"properties": {"long": "x" * 100}}).encode()
        declared = client.deliver(body)
        chunks = b"".join(b"1\r\nx\r\n" for _ in range(101)) + b"0\r\n\r\n"
        chunked = client.deliver(chunks, transfer_encoding="chunked")
        fits = client.deliver(json.dumps(TRACK).encode())

        expected = (413, {"error": "the body is larger than 100 bytes"})
        assert [expected, expected] == [(each.status, each.json) for each in (declared, chunked)]
        assert 200 == fits.status
        assert {"too_large": 2} == server.store.stats().bad_by_reason


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/event", 405, "POST"),
        ("PUT", "/raw/event", 405, "POST"),
        ("POST", "/api/events", 405, "GET, HEAD"),
        ("GET", "/api/reset", 405, "POST"),
        ("PATCH", "/api/faults", 405, "DELETE, GET, HEAD, POST"),
        ("GET", "/", 404, None),
        ("POST", "/event/", 404, None),
        ("POST", "/event/../raw/event", 404, None),
    ],
)
def test_elsewhere(client, method, path, status, allowed):
    """Other methods and paths are answered in JSON, with what would be right."""
    answer = client.send(method, path)
    header = answer.headers["Allow"]

    assert status == answer.status
    assert allowed == (header and ", ".join(sorted(header.split(", "))))
    assert ("takes" if allowed else "nothing is here") in answer.json["error"]


def test_connections_are_told_apart(client):
    """An entry says over which connection it came: pooling can be seen."""
    client.deliver(TRACK)
    client.deliver(BATCH, "/raw/event")

    second, third, first = (entry.connection for entry in client.server.store.events())
    assert (second, True) == (third, first < second)


def test_record(connect, tmp_path):
    """What is accepted is recorded, one line a request; what is refused is not."""
    file = tmp_path / "events.jsonl"
    recorder = Recorder(file, complain=print)
    with closing(recorder), InspectorServer(recorder=recorder) as server:
        client = connect(server)
        client.deliver(TRACK)
        client.deliver({})
        client.deliver(TRACK, authorization=None)
        client.deliver(BATCH, "/raw/event")
        server.store.add_faults(Fault(status=503), Fault(status=503, accept=True))
        client.deliver({"type": "lost"})
        client.deliver(TRACK)
        times = [entry.received_at for entry in server.store.events(verdict="good")]

    expected = [
        {"received_at": times[3], "path": "/event", "body": TRACK},
        {"received_at": times[2], "path": "/raw/event", "body": BATCH},
        {"received_at": times[0], "path": "/event", "body": TRACK},
    ]
    assert expected == [json.loads(line) for line in file.read_text("utf-8").splitlines()]
