"""Who we talk to, by which way, and what nobody ever gets to see."""

from __future__ import annotations

import base64
import contextlib
import logging
import pickle
import socket
import ssl
import threading
import traceback

import pytest
import trustme
from helpers import BASIC, PATIENCE, WRITE_CODE, Reply, ScriptedServer, closed_port, run_python

import userlens_instrument
from userlens_instrument import (
    Settings,
    SettingsError,
    UserlensHandler,
    UserlensProcessor,
    configure,
)
from userlens_instrument._delivery.transport import UrllibTransport


SEND = """
import userlens_instrument as userlens
userlens.track("u1", "Event")
assert userlens.flush({timeout}) is {delivered}, userlens.stats()
print(userlens.stats().held_back)
"""


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def tls(authority, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def test_a_trusted_server_is_talked_to(authority, trusted):
    """TLS with a certificate of an authority that the machine trusts."""
    with ScriptedServer(tls=tls(authority, "127.0.0.1")) as server:
        done = run_python(
            SEND.format(timeout=PATIENCE, delivered=True), server.url, SSL_CERT_FILE=trusted
        )

        assert ("None\n", "") == (done.stdout, done.stderr)
        assert ["Event"] == [event["event"] for event in server.events]


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_a_server_says_too_much_is_no_answer_to_the_next(
    authority, trusted, monkeypatch, encrypted
):
    """TLS may have decrypted what a look at the socket does not show."""
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    # As much as is read at a time, and then what looks like an answer.
    stray = b"ok".ljust(8_192) + b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(tls=tls(authority, "127.0.0.1") if encrypted else None) as server:
        server.script = lambda request: Reply(headers={"Content-Length": "2"}, body=stray)
        transport = UrllibTransport(Settings(write_code=WRITE_CODE, events_url=server.url))

        assert [200] * 4 == [transport.send("/event", b"{}").status for _ in range(4)]
        transport.close()


@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    make_client, authority, trusted, fault, diagnostics_lines, monkeypatch
):
    """No byte of an event goes there; everything is held, and one line says what to check."""
    names = ["127.0.0.1"] if fault == "unknown authority" else ["wrong.example"]
    if fault == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", trusted)
    with ScriptedServer(tls=tls(authority, *names)) as server:
        client = make_client(events_url=server.url)
        client.track("u1", "Event")

        assert not client.flush(0.5)
        assert ("tls", 1, []) == (
            client.stats().held_back,
            client.stats().pending,
            server.requests,
        )
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert "certificate" in line


def test_a_server_without_tls_where_tls_is_expected(make_client, server):
    """A handshake with a plain server fails, and is tried again; nothing is sent in clear."""
    client = make_client(events_url=server.url.replace("http:", "https:"))
    client.track("u1", "Event")

    assert not client.flush(0.3)
    assert (1, []) == (client.stats().pending, server.requests)


# ---------------------------------------------------------------- proxies


@pytest.mark.parametrize("form", ["http://{}", "{}"], ids=["with scheme", "without scheme"])
def test_a_proxy_of_the_environment_is_used(server, form):
    """http_proxy, with a scheme or without: the request goes there, for the host that is meant."""
    done = run_python(
        SEND.format(timeout=PATIENCE, delivered=True),
        "http://userlens.internal",
        http_proxy=form.format(f"127.0.0.1:{server.port}"),
        no_proxy="",
    )

    assert "" == done.stderr
    (request,) = server.requests
    assert "http://userlens.internal/event" == request.path


@pytest.mark.parametrize("how", ["no_proxy", "loopback"])
def test_no_proxy_is_honoured_and_this_machine_needs_none(server, how):
    """A host in no_proxy, and whatever is on this machine, is reached directly."""
    proxy = f"http://127.0.0.1:{closed_port()}"
    extra = {"no_proxy": "127.0.0.1"} if how == "no_proxy" else {"no_proxy": ""}
    done = run_python(
        SEND.format(timeout=PATIENCE, delivered=True), server.url, http_proxy=proxy, **extra
    )

    assert "" == done.stderr
    assert 1 == len(server.requests)


def test_https_goes_through_a_tunnel(authority, trusted):
    """https_proxy: CONNECT, then TLS with the server itself; the proxy sees no write code."""
    seen = []

    def relay(source, target):
        with contextlib.suppress(OSError):  # the other direction has ended
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with (
        ScriptedServer(tls=tls(authority, "userlens.internal")) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):

        def proxy():
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", server.port)) as upstream:
                seen.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=relay, args=(upstream, client))
                back.start()
                relay(client, upstream)
                back.join(PATIENCE)

        thread = threading.Thread(target=proxy)
        thread.start()
        done = run_python(
            SEND.format(timeout=PATIENCE, delivered=True),
            "https://userlens.internal",
            SSL_CERT_FILE=trusted,
            https_proxy=f"http://me:p%40ss@127.0.0.1:{listener.getsockname()[1]}",
            no_proxy="",
        )
        thread.join(PATIENCE)

        assert "" == done.stderr
        assert ["Event"] == [event["event"] for event in server.events]
    (connect,) = seen
    assert connect.startswith(b"CONNECT userlens.internal:443 HTTP/1.")
    assert base64.b64encode(b"me:p@ss") in connect
    assert BASIC.encode() not in connect


def test_a_proxy_that_is_not_there(make_client, monkeypatch, diagnostics_lines):
    """Everything is held, as if the endpoint were down; no password of a proxy is told."""
    monkeypatch.setenv("http_proxy", f"http://me:hunter2@127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "")
    client = make_client(events_url="http://userlens.internal")
    client.track("u1", "Event")

    assert not client.flush(0.3)
    assert "unavailable" == client.stats().held_back
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert "the proxy does not connect" in line
    assert "hunter2" not in line


# ---------------------------------------------------------------- secrets


def test_the_write_code_is_in_no_repr_error_or_pickle(server):
    """Whatever is printed in a traceback or a debugger."""
    client = configure(WRITE_CODE, events_url=server.url)
    things = [
        client,
        client.settings,
        client.sender,
        client.sender._schedule,
        UrllibTransport(client.settings),
        UserlensHandler(write_code=WRITE_CODE),
        UserlensProcessor(client),
        userlens_instrument.stats(),
    ]
    errors = []
    for wrong in [
        {"write_code": f"{WRITE_CODE}\r\nX-Evil: 1"},
        {"write_code": WRITE_CODE.encode()},
        {WRITE_CODE: 1},
        {"events_url": f"https://{WRITE_CODE}@events.userlens.io"},
        {"overflow": WRITE_CODE},
        {"max_workers": WRITE_CODE},
    ]:
        with pytest.raises(SettingsError) as caught:
            UserlensHandler(**wrong)
        errors += [
            str(caught.value),
            repr(caught.value),
            *traceback.format_exception_only(caught.value),
        ]
        errors.append(str(pickle.loads(pickle.dumps(caught.value))))

    text = " ".join([*map(repr, things), *map(str, things), *errors])
    assert WRITE_CODE not in text
    assert BASIC not in text


CHILD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
import userlens_instrument as userlens
def on_error(loss):
    print(loss)
    raise RuntimeError("on_error failed")
# One worker: each fault of the list comes by itself, in its order.
client = userlens.configure(debug=True, on_error=on_error, read_timeout=1, max_workers=1,
                            backoff_base=0.01, backoff_cap=0.02, probe_interval=0.02)
handler = userlens.UserlensHandler()
logging.getLogger().addHandler(handler)
log = logging.getLogger("app")
for n in range(12):
    log.info("Event", extra={"userlens_event": True, "user_id": f"u{n}", "password": "planted-pw"})
log.info("Nobody", extra={"userlens_event": True})
print(userlens.flush(20), client, client.settings, client.sender, handler, userlens.stats())
"""


def test_the_write_code_is_in_no_line_whatever_goes_wrong():
    """
    Root at DEBUG, debug on: 401, redirect, 400, resets, malformed answers, a
    time-out and a raising on_error, and nowhere in the output is the code, its
    encoded form, or the body's hidden property.
    """
    never = threading.Event()
    script = {
        1: Reply(status=401),
        2: Reply(status=307, headers={"Location": "http://elsewhere.invalid/"}),
        3: Reply(act="reset"),
        4: Reply(act="raw", body=b"garbage"),
        5: Reply(hold=never, act="close"),
        6: Reply(status=429, headers={"Retry-After": "0"}),
        7: Reply(status=500),
    }

    def answer(request):
        # By the user: on a busy machine any answer may come too late, and count for nothing.
        refused = Reply(status=400 if request.json["userId"] == "u9" else 200)
        return script.get(request.number, refused)

    with ScriptedServer(answer) as server:
        done = run_python(CHILD, server.url)
        never.set()
        bodies = b"".join(request.body for request in server.requests).decode()

    output = done.stdout + done.stderr
    assert 0 == done.returncode, done.stderr
    assert "on_error raised RuntimeError" in output
    assert "USERLENS_WRITE_CODE" in output
    assert WRITE_CODE not in output + bodies
    assert BASIC not in output + bodies
    assert "planted-pw" not in output + bodies
    assert "[redacted]" in bodies


def test_properties_are_in_no_diagnostic(make_client, server, diagnostics_lines):
    """What is lost, invalid or refused is said without its content."""
    server.script = lambda request: Reply(status=400)
    # Full from the start: with a spool nothing else is.
    client = make_client(max_queue_events=1, max_workers=1, spool=None)
    for _ in range(20):
        client.track("user-of-mine", "Event", {"plan": "planted-value"})
    client.track("user-of-mine", "", {"plan": "planted-value"})
    client.track(object(), "Event", {"plan": "planted-value"})
    assert client.flush(PATIENCE)
    diagnostics = [diagnostics_lines.get(timeout=PATIENCE)[1] for _ in range(4)]

    assert 4 == len(diagnostics)
    assert "planted-value" not in " ".join(diagnostics)
    assert "user-of-mine" not in " ".join(diagnostics)


def test_a_log_line_of_ours_goes_to_our_logger_only(make_client, caplog):
    """Diagnostics go to `userlens_instrument`, which a host can silence or route."""
    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}")
    with caplog.at_level(logging.WARNING):
        client.track("u1", "Event")
        client.flush(0.2)
        client.close(0)
        userlens_instrument._delivery.diagnostics.voice.drain(PATIENCE)

    assert {"userlens_instrument"} == {record.name for record in caplog.records}
