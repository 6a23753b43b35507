"""The client: the direct road, the default one, the clients of a process, and what fails alone."""

from __future__ import annotations

import importlib
import io
import json
import logging
import queue
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
import urllib3
from helpers import (
    PATIENCE,
    WRITE_CODE,
    Reply,
    ScriptedServer,
    closed_port,
    refuse_our_threads,
    run_python,
    until,
)
from test_architecture import MODULES

import userlens_instrument as userlens
from userlens_instrument import Client, Settings, Stats, UserlensHandler
from userlens_instrument._core.outcome import Failure
from userlens_instrument._delivery import connections
from userlens_instrument._delivery import stats as stats_module
from userlens_instrument._delivery.diagnostics import Voice
from userlens_instrument._delivery.threads import lent_thread
from userlens_instrument._delivery.transport import UrllibTransport
from userlens_instrument.client import call_site, registry, shared_client
from userlens_instrument.testing import CapturingTransport, FakeClock


def test_the_direct_road_needs_no_log_line(server):
    """track, identify and group deliver through the default client, in order."""
    userlens.configure(WRITE_CODE, events_url=server.url)
    userlens.identify("u1", {"plan": "trial"})
    userlens.group("g1", "u1", {"name": "Acme"})
    userlens.track("u1", "Signed Up", {"source": "invite"}, timestamp="2026-01-02T03:04:05Z")

    assert userlens.flush(PATIENCE)
    source = {"source": "userlens-restapi"}
    assert [
        {"type": "identify", "userId": "u1", **source, "traits": {"plan": "trial"}},
        {"type": "group", "groupId": "g1", "userId": "u1", **source, "traits": {"name": "Acme"}},
        {
            "type": "track",
            "userId": "u1",
            **source,
            "event": "Signed Up",
            "properties": {"source": "invite"},
            "timestamp": "2026-01-02T03:04:05.000000Z",
        },
    ] == server.events


def test_send_timestamp_off_is_the_body_as_documented(make_client, transport):
    """Without send_timestamp the body has the documented fields alone."""
    client = make_client(transport=transport, send_timestamp=False)
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert "timestamp" not in transport.events[0]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda client: client.track(None, "Event"), "invalid_user_id"),
        (lambda client: client.track("u1", ""), "missing_event_name"),
        (lambda client: client.track("u1", "Event", ["no mapping"]), "invalid_properties"),
        (lambda client: client.track("u1", "Event", timestamp="soon"), "invalid_timestamp"),
        (lambda client: client.identify("u1", 7), "invalid_traits"),
        (lambda client: client.group("", "u1"), "invalid_group_id"),
    ],
)
def test_a_wrong_call_is_counted_and_said_and_raises_nothing(
    client, transport, diagnostics_lines, call, reason
):
    """What is not an event is counted by reason and said with the place of the call."""
    call(client)

    assert client.flush(PATIENCE)
    assert ([], {reason: 1}) == (transport.events, client.stats().invalid)
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert __file__ in line


def test_an_event_that_cannot_be_read_is_counted(client):
    """An object that raises where an id belongs costs the caller nothing."""

    class Hostile(str):
        __slots__ = ()

        def isspace(self):
            raise ValueError("never")

    class Id(int):
        def __index__(self):
            raise ValueError("never")

    class Properties:
        @property
        def __class__(self):
            raise ValueError("never")

    client.track(Id(5), "Event")
    client.track(Hostile("u1"), "Event")
    client.track("u1", "Event", Properties())

    stats = client.stats()
    assert 3 == stats.accepted + sum(stats.invalid.values())
    assert stats.invalid["unreadable"] >= 1


def test_a_client_is_a_context_manager(transport):
    """On the way out of the block what is held is delivered, and the client closed."""
    with Client(Settings(write_code="x"), transport=transport) as client:
        client.track("u1", "Event")

    assert (True, 1) == (client.closed, len(transport.events))
    assert "closed" in repr(client)


def test_cut_and_redacted_values_are_counted(client):
    """Statistics tell how many values were shortened and how many hidden."""
    client.track("u1", "Event", {"password": "x", "token": "y", "long": "z" * 10_000})

    assert (2, 1) == (client.stats().redacted, client.stats().cut)


def test_configure_again_is_the_same_client_if_nothing_changed(server):
    """Equal settings are one client; other settings make another, and both deliver."""
    first = userlens.configure(WRITE_CODE, events_url=server.url)
    same = userlens.configure(WRITE_CODE, events_url=server.url)
    other = userlens.configure(WRITE_CODE, events_url=server.url, max_workers=2)

    assert first is same
    assert first is not other
    assert other is registry.default


def test_on_error_callables_are_told_apart_by_identity(server):
    """A callable need not be hashable to be a setting."""

    class Collector(list):
        def __call__(self, loss):
            self.append(loss)

    collector = Collector()
    settings = {"write_code": WRITE_CODE, "events_url": server.url}
    first = shared_client(Settings(**settings, on_error=collector))

    assert first is shared_client(Settings(**settings, on_error=collector))
    assert first is not shared_client(Settings(**settings, on_error=Collector()))


def test_after_shutdown_events_are_counted_and_configure_starts_afresh(server):
    """shutdown delivers, then drops and counts; a later configure makes a new client."""
    userlens.configure(WRITE_CODE, events_url=server.url)
    log = logging.getLogger("client.shutdown")
    log.propagate = False
    log.handlers[:] = [UserlensHandler(write_code="own", events_url=server.url)]
    fields = {"userlens_event": True, "user_id": "u1"}
    log.warning("Own", extra=fields)
    userlens.track("u1", "First")

    assert userlens.shutdown(PATIENCE)
    userlens.track("u1", "Late")
    log.warning("Late", extra=fields)
    assert 2 == userlens.stats().delivered
    assert {"closed": 1} == userlens.stats().dropped
    userlens.configure(WRITE_CODE, events_url=server.url)
    userlens.track("u1", "Second")
    assert userlens.flush(PATIENCE)
    assert {"Own", "First", "Second"} == {event["event"] for event in server.events}


def test_flush_and_stats_of_a_process_without_a_client():
    """Nothing was configured and nothing logged: there is nothing to wait for or to count."""
    assert userlens.flush(0)
    assert userlens.shutdown(0)
    assert Stats() == userlens.stats()
    assert None is registry.default


def test_stats_add_up():
    """The statistics of a process are the sum over its clients."""
    one = Stats(accepted=2, delivered=1, dropped={"queue_full": 1}, held_back="tls")
    other = Stats(accepted=1, dropped={"queue_full": 1, "expired": 2})

    assert Stats(
        accepted=3, delivered=1, dropped={"queue_full": 2, "expired": 2}, held_back="tls"
    ) == (one + other)


def test_without_structlog_imported_there_is_no_context(server):
    """The handler alone does not import structlog to find nothing bound in it."""
    done = run_python(
        """
import logging, sys
import userlens_instrument as userlens
logging.getLogger().addHandler(userlens.UserlensHandler())
fields = {"userlens_event": True}
logging.getLogger("app").warning("Event", extra={**fields, "user_id": "u1"})
logging.getLogger("app").warning("Nobody", extra=fields)
assert userlens.flush(20)
assert "structlog" not in sys.modules
print(userlens.stats().delivered, dict(userlens.stats().invalid))
""",
        server.url,
    )

    assert "1 {'missing_user_id': 1}\n" == done.stdout


def test_the_call_site_of_a_thread_of_nobody():
    """Where no frame is the application's, the site is unknown."""
    source = "def site(find):\n    return find()\n"
    names = {"__name__": "structlog.fake"}
    exec(source, names)  # the only way to a frame of another module
    code = (
        "__name__ = 'logging.x'; from userlens_instrument.client import call_site as c; print(c())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "unknown\n" == done.stdout
    assert names["site"](call_site).startswith(__file__)


def test_a_record_that_cannot_be_looked_at_is_counted(client):
    """A record without its attributes is no reason to raise into the application."""
    record = logging.LogRecord("app", 20, "f", 1, "E", (), None)
    del record.__dict__["msg"]
    UserlensHandler(client=client).handle(record)

    assert {"unreadable": 1} == client.stats().invalid


# What is run, and never imported.
PROGRAMS = ("__main__", "_bootstrap.sitecustomize")


@pytest.mark.parametrize("name", [name for name, _ in MODULES if name not in PROGRAMS])
def test_every_module_can_be_imported_first(name):
    """No module needs another one to have been imported before it."""
    assert importlib.import_module(f"userlens_instrument.{name}")


# ---------------------------------------------------------------- small parts below


def test_the_capturing_transport_forgets_in_a_fork(transport):
    """What the parent captured is not the child's."""
    transport.send("/event", b"{}")
    transport.forget()

    assert [] == transport.bodies


def test_idle_connections_are_bounded():
    """A pool keeps as many idle connections as there are workers, and no more."""
    stack = connections._Stack(1)
    stack.put("one")

    with pytest.raises(queue.Full):
        stack.put("two")
    assert (1, "one") == (stack.qsize(), stack.get())
    with pytest.raises(queue.Empty):
        stack.get()


def test_forgetting_closes_this_process_copies_only(make_client, server):
    """After a fork the connections are dropped; the next request opens its own."""
    client = make_client()
    client.track("u1", "First")
    assert client.flush(PATIENCE)
    held = client.sender._transport._routes  # as a frame of the parent's holds it in a child
    client.sender._transport.forget()
    assert held
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert 2 == len(server.events)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (urllib3.exceptions.ProxyError("x", OSError()), Failure.STALE),
        (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("x")), Failure.TLS),
        (urllib3.exceptions.SSLError("handshake"), Failure.RESET),
        (urllib3.exceptions.NameResolutionError("h", None, OSError()), Failure.DNS),
        (urllib3.exceptions.NewConnectionError(None, "x"), Failure.CONNECT),
        (urllib3.exceptions.ConnectTimeoutError(None, "x"), Failure.CONNECT_TIMEOUT),
        (urllib3.exceptions.ReadTimeoutError(None, None, "x"), Failure.TIMEOUT),
        (TimeoutError(), Failure.TIMEOUT),
        (urllib3.exceptions.ProtocolError("x", ConnectionResetError()), Failure.STALE),
        (urllib3.exceptions.ProtocolError("x", ValueError()), Failure.MALFORMED),
        (ValueError(), Failure.MALFORMED),
        (MemoryError(), Failure.INTERNAL),
    ],
    ids=lambda value: value.name if isinstance(value, Failure) else type(value).__name__,
)
def test_each_exception_of_urllib3_is_one_failure(monkeypatch, error, failure):
    """Foreign exceptions are translated once, at their door; here: over an idle connection."""
    monkeypatch.setattr(connections._exchange, "connected", False)
    monkeypatch.setattr(connections._exchange, "opening", False)
    assert failure is connections._failure(error)


def test_a_proxy_that_does_not_connect_is_the_proxys_failure(monkeypatch):
    """While the connection is being opened; later it is a connection like any other."""
    monkeypatch.setattr(connections._exchange, "opening", True)
    assert Failure.PROXY is connections._failure(urllib3.exceptions.ProxyError("x", OSError()))


def test_a_name_that_does_not_resolve(make_client):
    """DNS failure is the endpoint's, not the event's: everything is held."""
    client = make_client(events_url="https://userlens.invalid", connect_timeout=2.0)
    client.track("u1", "Event")

    assert not client.flush(0.5)
    assert 1 == client.stats().pending


def test_an_answer_past_its_deadline_is_not_read():
    """However a server drips, no byte is read after the deadline."""
    raw = connections._Deadline(io.BytesIO(b"late"), None, at=0.0)

    assert raw.readable()
    with pytest.raises(TimeoutError):
        raw.readinto(bytearray(4))
    raw.close()


def test_the_transport_says_where_to(make_client, server):
    """Its repr names the endpoint."""
    assert f"<UrllibTransport to {server.url}>" == repr(UrllibTransport(make_client().settings))


def test_a_voice_says_each_kind_once_a_minute_and_how_many_it_kept_back(diagnostics_lines):
    """One line of a kind a minute, with the number of those in between."""
    clock = FakeClock()
    voice = Voice(clock)
    for _ in range(5):
        voice.say("kind", "something happened")
    clock.advance(61)
    voice.say("kind", "something happened")
    voice.say("other", "something else")
    voice.drain(PATIENCE)

    assert [
        "something happened",
        "something happened (and 4 more like it since the last line)",
        "something else",
    ] == [diagnostics_lines.get(timeout=PATIENCE)[1] for _ in range(3)]


def test_a_voice_remembers_a_bounded_number_of_kinds(diagnostics_lines):
    """A program with ever new kinds of trouble does not grow our memory."""
    voice = Voice(FakeClock())
    for number in range(5_000):
        voice.say(f"kind {number}", "line")
    held = len(voice._lines)
    voice.drain(PATIENCE)

    assert len(voice._last) <= 1_024
    assert len(voice._kinds) <= 1_024
    assert held <= 256


def test_a_voice_with_a_host_handler_that_raises_goes_on(diagnostics_lines):
    """A host's handler that raises costs the line, not the thread."""

    class Raising(logging.Handler):
        def handle(self, record):
            raise RuntimeError("boom")

    raising = Raising()
    logging.getLogger("userlens_instrument").addHandler(raising)
    voice = Voice(FakeClock())
    voice.say(None, "first")
    voice.say(None, "second")
    voice.drain(PATIENCE)
    logging.getLogger("userlens_instrument").removeHandler(raising)

    assert ["first", "second"] == [diagnostics_lines.get(timeout=PATIENCE)[1] for _ in range(2)]


def test_a_voice_whose_thread_does_not_run_writes_at_the_end_itself(diagnostics_lines, monkeypatch):
    """As when the interpreter is taken down: the exit hook writes, if no handler has the thread."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    voice = Voice(FakeClock())
    voice.say(None, "last words")
    voice.drain(0.01)

    assert "last words" == diagnostics_lines.get(timeout=PATIENCE)[1]


def test_a_voice_that_hangs_in_a_handler_is_not_joined_there(diagnostics_lines, monkeypatch):
    """What a handler of the application holds up is given up at the end."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    voice = Voice(FakeClock())
    voice.say(None, "never written")
    writing, release = threading.Event(), threading.Event()

    def hang():
        with voice._writing:
            writing.set()
            release.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.undo()
        pool.submit(hang)
        assert writing.wait(PATIENCE)
        voice.drain(0.01)
        release.set()

    assert diagnostics_lines.empty()


def test_structlog_and_json_agree_on_what_arrives(client, transport):
    """What the processor captures is what a JSON log line of the same call says."""
    structlog.configure(
        processors=[userlens.UserlensProcessor(client), structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    line = structlog.get_logger().info("E", userlens_event=True, user_id="u1", a=[1, {"b": None}])

    assert client.flush(PATIENCE)
    assert {"event": "E", "user_id": "u1", **transport.events[0]["properties"]} == json.loads(line)


def test_a_capturing_transport_answers_as_told():
    """The public test double: bodies in, scripted answers out."""
    answers = CapturingTransport(lambda body: userlens.testing.Answer(status=400))

    assert 400 == answers.send("/event", b"{}").status


def test_a_capturing_transport_shows_the_events_of_a_batch_one_by_one(make_client):
    """A user's test need not know how they travelled."""
    transport = CapturingTransport()
    client = make_client(transport=transport, delivery="batch")
    client.track("u1", "First")
    client.track("u2", "Second")

    assert client.flush(PATIENCE)
    assert {"First", "Second"} == {event["event"] for event in transport.events}


# ---------------------------------------------------------------- the sender's corners


@pytest.fixture
def locked(client):
    """Return a client whose sender's lock another thread holds, as after an interruption."""
    client.sender._lock.acquire()
    yield client
    client.sender._lock.release()


def test_a_flush_that_cannot_get_the_lock_gives_up_in_time(locked):
    """A signal handler that flushes may have interrupted the holder of the lock."""
    locked.track("u1", "Event")

    assert not locked.flush(0.05)
    assert not locked.sender.finish(0.05)
    assert 1 == locked.stats().pending


def test_without_threads_a_flush_keeps_to_its_timeout(make_client, monkeypatch):
    """Delivering by itself, a flush goes on until its time is up, and no longer."""
    refuse_our_threads(monkeypatch)
    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}")
    client.track("u1", "Event")

    assert not client.flush(0.1)
    assert 1 == client.stats().pending


@pytest.mark.memory
def test_without_threads_on_error_is_called_all_the_same(make_client, monkeypatch):
    """What is lost at the end is told on the thread that closes, if there is no other."""
    refuse_our_threads(monkeypatch)
    losses = []
    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}", on_error=losses.append)
    client.track("u1", "Event")

    assert not client.close(0.1)
    assert ["shutdown"] == [loss.reason for loss in losses]


@pytest.mark.memory
def test_a_flush_ends_when_what_it_waits_for_is_given_up(make_client, server):
    """close with no time left ends a flush that is waiting on another thread."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held)
    client = make_client()
    client.track("u1", "Event")
    assert server.wait_for(1)
    results = []
    thread = threading.Thread(target=lambda: results.append(client.flush(PATIENCE)))
    thread.start()
    until(lambda: client.sender._barriers)
    client.close(0)
    thread.join(PATIENCE)
    held.set()

    assert [True] == results
    assert {"shutdown": 1} == client.stats().dropped


@pytest.mark.parametrize("act", ["flush", "close"])
@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12])
def test_for_ever_is_a_timeout(make_client, server, act, seconds):
    """Longer than the system's clocks can wait is as long as it takes."""
    client = make_client()
    client.track("u1", "Event")

    assert getattr(client, act)(seconds)
    assert ["Event"] == [event["event"] for event in server.events]


@pytest.mark.parametrize("act", ["flush", "close"])
@pytest.mark.parametrize("seconds", [float("nan"), -1, float("-inf")])
def test_what_is_no_time_is_none_at_all(make_client, server, act, seconds):
    """Nothing waits for it."""
    server.script = lambda request: Reply(hold=threading.Event())
    client = make_client()
    client.track("u1", "Event")

    assert not getattr(client, act)(seconds)


def test_later_events_do_not_end_a_flush_early(make_client, server):
    """A flush waits for the events before it, however many after it have an outcome."""
    held = threading.Event()
    server.script = lambda request: Reply(hold=held if request.json["userId"] == "u1" else None)
    client = make_client()
    client.track("u1", "Before")
    assert server.wait_for(1)
    results = []
    thread = threading.Thread(target=lambda: results.append(client.flush(PATIENCE)))
    thread.start()
    until(lambda: client.sender._barriers)
    for number in range(5):
        client.track(f"v{number}", "After")
    assert server.wait_for(6)
    until(lambda: client.stats().delivered >= 5)
    assert [] == results
    held.set()
    thread.join(PATIENCE)

    assert [True] == results


def test_what_on_error_sends_at_exit_does_not_wait_for_itself(client, transport):
    """After the exit hook an event is delivered before its call returns; not so on our threads."""
    client.sender.finish_at_exit(PATIENCE, lambda: None)
    client.track("u1", "Waits")
    assert ["Waits"] == [event["event"] for event in transport.events]
    with lent_thread():
        client.track("u1", "Does not")

    assert client.flush(PATIENCE)
    assert 2 == len(transport.events)


def test_what_is_logged_on_our_own_threads_is_counted_not_sent(client, transport):
    """An event made of what delivery logs could go on for ever; it is counted instead."""
    record = logging.LogRecord("app", 20, "f", 1, "E", (), None)
    record.__dict__.update(userlens_event=True, user_id="u1")
    with lent_thread():
        UserlensHandler(client=client).handle(record)
        userlens.UserlensProcessor(client)(
            None, "info", {"event": "E", "userlens_event": True, "user_id": "u1"}
        )

    assert client.flush(PATIENCE)
    assert ([], {"own_thread": 2}) == (transport.events, client.stats().invalid)


def test_an_on_error_that_hangs_holds_up_nothing(make_client, server):
    """Delivery goes on, even with one worker; the losses wait, a bounded number of them."""
    release, hangs = threading.Event(), threading.Event()

    def on_error(loss):
        hangs.set()
        release.wait(PATIENCE)

    server.script = lambda request: Reply(status=400 if request.json["event"] == "Bad" else 200)
    client = make_client(on_error=on_error, max_workers=1)
    for number in range(400):
        client.track(f"u{number}", "Bad")
    assert hangs.wait(PATIENCE)
    for number in range(20):
        client.track(f"v{number}", "Good")

    assert client.flush(PATIENCE)
    assert 20 == client.stats().delivered
    assert {"rejected": 400} == client.stats().refused
    assert len(client.sender._losses) <= 256
    release.set()


def test_close_waits_for_on_error(make_client, server):
    """What was refused a moment ago is told before the program ends, if there is time."""
    losses = []

    def on_error(loss):
        until(lambda: client.closed)  # it is at it when the end comes
        losses.append(loss.reason)

    server.script = lambda request: Reply(status=400)
    client = make_client(on_error=on_error)
    for number in range(4):
        client.track(f"u{number}", "Bad")

    assert client.close(PATIENCE)
    assert ["rejected"] * 4 == losses


@pytest.mark.memory
def test_a_worker_calls_on_error_where_no_thread_can_start(make_client, monkeypatch):
    """As at the exit of Python 3.12: one that hangs costs the worker, and not the exit."""
    start = threading.Thread.start

    def refuse(self):
        if self.name == "userlens-on-error":
            raise RuntimeError("can't start new thread")
        start(self)

    release, told = threading.Event(), queue.Queue()

    def on_error(loss):
        told.put(threading.current_thread().name)
        release.wait(PATIENCE)

    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}", on_error=on_error)
    client.track("u1", "Event")
    until(lambda: client.stats().retried)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert not client.close(0.1)
    assert "userlens-sender" == told.get(timeout=PATIENCE)
    release.set()


def test_on_error_may_close_the_client(make_client, server):
    """It does not wait for itself."""
    results = []
    server.script = lambda request: Reply(status=400)
    client = make_client(on_error=lambda loss: results.append(client.close(PATIENCE)))
    client.track("u1", "Bad")

    assert client.flush(PATIENCE)
    assert client.close(PATIENCE)
    assert [True] == results


def test_a_thread_that_fails_to_start_is_not_counted(make_client, server, monkeypatch):
    """An Exception of Thread.start is kept, any other goes on; the next event starts one."""
    client = make_client()
    for error in (MemoryError(), KeyboardInterrupt()):

        def refuse(self, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            if isinstance(error, Exception):
                client.track("u1", "Event")
            else:
                with pytest.raises(KeyboardInterrupt):
                    client.track("u1", "Event")
        assert 0 == client.stats().threads
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert 3 == client.stats().delivered


def test_stats_may_be_asked_for_while_they_are_counted(client, monkeypatch):
    """A signal handler that asks may have interrupted the very fold that it would wait for."""
    monkeypatch.setattr(stats_module, "_PATIENCE", 0.01)
    with client.sender.ledger._lock:
        assert 0 == client.stats().accepted


def test_the_hosts_handlers_do_not_see_our_requests(make_client, caplog):
    """urllib3's lines for requests of ours do not go through the host's handlers; others do."""
    with ScriptedServer() as server, caplog.at_level(logging.DEBUG):
        client = make_client(events_url=server.url)
        client.track("u1", "Event")
        assert client.flush(PATIENCE)
        assert [] == [record for record in caplog.records if record.name.startswith("urllib3")]
        urllib3.PoolManager().request("POST", server.url, body=b"{}")

    assert [record for record in caplog.records if record.name.startswith("urllib3")]


def test_statistics_outlive_a_client_that_is_configured_again(server):
    """What a closed client had counted stays in the sum."""
    for _ in range(3):
        userlens.configure(WRITE_CODE, events_url=server.url)
        userlens.track("u1", "Event")
        assert userlens.shutdown(PATIENCE)

    assert 3 == userlens.stats().delivered


def test_a_signal_handler_that_raises_while_a_thread_starts(make_client, server, monkeypatch):
    """The exception goes on to the application; the thread that has started stays counted."""
    client = make_client()
    start = threading.Thread.start

    def interrupted(self):
        start(self)
        if threading.current_thread() is threading.main_thread():  # where handlers run
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.track("u1", "Event")
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert 2 == client.stats().delivered
