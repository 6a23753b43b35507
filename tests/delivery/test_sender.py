"""The sender against a real HTTP server: order, retries, the gate, bounds, flush and close."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict

import pytest
from helpers import PATIENCE, Reply, ScriptedServer, closed_port, refuse_our_threads, until

from userlens_instrument import Loss
from userlens_instrument._core.outcome import Answer, Failure
from userlens_instrument._delivery import sender as sender_module
from userlens_instrument.testing import CapturingTransport, FakeClock


def sent(server):
    """Return the names that arrived with a 200, by user, in the order of arrival."""
    lanes = defaultdict(list)
    for event in server.events:
        lanes[event["userId"]].append(event["event"])
    return dict(lanes)


def test_events_of_one_user_arrive_in_the_order_in_which_they_were_logged(make_client, server):
    """One user's events are delivered one after the other, in order."""
    client = make_client()
    for number in range(100):
        client.track("u1", f"Event {number}")

    assert client.flush(PATIENCE)
    assert {"u1": [f"Event {number}" for number in range(100)]} == sent(server)


def test_users_do_not_wait_for_one_another(make_client, server):
    """A user whose request hangs holds up nobody else."""
    release = threading.Event()
    server.script = lambda request: Reply(
        hold=release if request.json["userId"] == "slow" else None
    )
    client = make_client()
    client.track("slow", "Stuck")
    assert server.wait_for(1)
    for number in range(20):
        client.track(f"u{number}", "Passed")

    assert server.wait_for(21)
    assert 20 == len({event["userId"] for event in server.events} - {"slow"})
    release.set()
    assert client.flush(PATIENCE)


def test_one_user_has_at_most_one_request_on_its_way(make_client, server):
    """However many workers there are, a user's next event waits for the one before."""
    lock, busy, overlaps = threading.Lock(), Counter(), []

    def script(request):
        user = request.json["userId"]
        with lock:
            busy[user] += 1
            overlaps.append(busy[user])
        with lock:
            busy[user] -= 1
        return Reply()

    server.script = script
    client = make_client()
    for number in range(200):
        client.track(f"u{number % 3}", "Event")

    assert client.flush(PATIENCE)
    assert {1} == set(overlaps)


def test_threads_grow_with_the_backlog_up_to_the_bound(make_client, server):
    """With more users than workers, max_workers requests are on their way at a time."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    client = make_client(max_workers=5)
    for number in range(50):
        client.track(f"u{number}", "Event")

    assert server.wait_for(5)
    assert 5 == client.stats().threads
    release.set()
    assert client.flush(PATIENCE)
    assert 50 == client.stats().delivered


def test_idle_threads_end_but_one(make_client, monkeypatch):
    """An idle sender holds one thread."""
    monkeypatch.setattr(sender_module, "_IDLE", 0.05)
    ended = threading.Semaphore(0)
    client = make_client(max_workers=4)
    original = client.sender._sleep

    def sleep(*seconds):
        goes_on = original(*seconds)
        if not goes_on:
            ended.release()
        return goes_on

    monkeypatch.setattr(client.sender, "_sleep", sleep)
    for number in range(40):
        client.track(f"u{number}", "Event")
    assert client.flush(PATIENCE)
    while client.stats().threads > 1:
        assert ended.acquire(timeout=PATIENCE)

    assert 1 == client.stats().threads


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_in_order(make_client, server, status):
    """A status that may pass is tried again, and the user's later events wait for it."""
    server.script = lambda request: Reply(status=status if request.number <= 2 else 200)
    client = make_client()
    client.track("u1", "First")
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert {"u1": ["First", "First", "First", "Second"]} == sent(server)
    assert (2, 2) == (client.stats().delivered, client.stats().retried)


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "rejected"), (404, "rejected"), (413, "too_large")]
)
def test_what_is_refused_is_set_aside_at_once(make_client, server, status, reason):
    """A refused event is never retried, counted by reason, told to on_error; the others go on."""
    losses, told = [], threading.Event()

    def on_error(loss):
        losses.append(loss)
        told.set()

    server.script = lambda request: Reply(
        status=status if request.json["event"] == "Poison" else 200
    )
    client = make_client(on_error=on_error)
    client.track("u1", "Poison")
    client.track("u1", "Good")

    assert client.flush(PATIENCE)
    assert {"u1": ["Poison", "Good"]} == sent(server)
    assert {reason: 1} == client.stats().refused
    assert told.wait(PATIENCE)
    assert [(reason, status, True)] == [
        (loss.reason, loss.status, b'"Poison"' in loss.body) for loss in losses
    ]


@pytest.mark.parametrize("act", ["reset", "close"])
def test_a_broken_connection_is_tried_again(make_client, server, act):
    """A connection that breaks before the answer is an attempt that failed, not a loss."""
    server.script = lambda request: Reply(act=act if request.number == 1 else "reply")
    client = make_client()
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert {"u1": ["Event", "Event"]} == sent(server)
    assert 1 == client.stats().delivered


def test_a_kept_alive_connection_that_was_closed_costs_no_backoff(make_client, server):
    """A connection closed while idle is replaced at once: no wait, no line, no counted attempt."""
    server.script = lambda request: Reply(act="close" if request.number == 2 else "reply")
    client = make_client(backoff_base=600.0, backoff_cap=600.0)
    client.track("u1", "First")
    assert client.flush(PATIENCE)
    client.track("u1", "Second")

    assert client.flush(PATIENCE)
    assert {"u1": ["First", "Second", "Second"]} == sent(server)


def test_a_server_that_does_not_answer_is_given_up_on(make_client, server):
    """A request without an answer within read_timeout is tried again."""
    never = threading.Event()
    server.script = lambda request: Reply(hold=never if request.number == 1 else None)
    client = make_client(read_timeout=0.2)
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert 1 == client.stats().delivered
    never.set()


def test_an_answer_that_drips_is_cut_off_at_the_deadline(make_client):
    """read_timeout bounds the whole answer: one byte at a time does not extend it."""
    import socket

    dripping = threading.Event()
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                dripping.set()
                try:
                    while not gone.wait(0.02):
                        connection.sendall(b"H")
                except OSError:
                    gone.set()

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = make_client(events_url=url, read_timeout=0.3)
        client.track("u1", "Event")
        assert dripping.wait(PATIENCE)
        # The sender hangs up; the server, which would drip for ever, sees it.
        assert gone.wait(PATIENCE)
        thread.join(PATIENCE)
    client.close(timeout=0)


@pytest.mark.memory
def test_while_the_endpoint_is_down_one_probe_goes_out_not_one_for_each_worker(make_client):
    """Connection refused holds everything; there is one attempt a backoff, over all users."""
    clock = FakeClock()
    attempts = []

    def refuse(body):
        attempts.append(body["userId"])
        return Answer(failure=Failure.CONNECT)

    client = make_client(transport=CapturingTransport(refuse), clock=clock, backoff_cap=30.0)
    sender = client.sender
    sender._threads = 99  # no thread: this test steps by hand
    sender._draw = lambda: 0.999
    for number in range(10):
        client.track(f"u{number}", "Event")
    clock_at_attempt = []
    for _ in range(20):
        found = sender.step()
        if not isinstance(found, float):
            clock_at_attempt.append(clock.monotonic())
            sender._attempt(found, sender._schedule)
        else:
            clock.advance(found)

    waits = [b - a for a, b in itertools.pairwise(clock_at_attempt)]
    assert len(clock_at_attempt) == len(attempts) >= 8
    assert sorted(waits) == waits, "each wait is at least as long as the one before"
    # Batches take turns, too, but few of them.
    users = 5 if client.settings.delivery == "event" else 2
    assert len(set(attempts)) > users, "a probe goes out for one user after the other"
    sender._threads = 0


def test_a_401_stops_delivery_is_said_once_and_loses_nothing(
    make_client, server, diagnostics_lines
):
    """While the write code is refused nothing is lost; one line says what to do."""
    wrong = True
    server.script = lambda request: Reply(status=401 if wrong else 200)
    client = make_client(probe_interval=0.05)
    for number in range(10):
        client.track(f"u{number}", "Event")
    assert server.wait_for(3)
    wrong = False

    assert client.flush(PATIENCE), client.stats()
    assert 10 == client.stats().delivered
    level, line = diagnostics_lines.get(timeout=PATIENCE)
    assert ("WARNING", True) == (level, "USERLENS_WRITE_CODE" in line), line


def test_a_401_is_probed_rarely(make_client, server):
    """Between probes nothing is sent, however much is held."""
    server.script = lambda request: Reply(status=401)
    client = make_client(probe_interval=600.0, max_workers=1)
    for number in range(50):
        client.track(f"u{number}", "Event")
    assert server.wait_for(1)

    assert not client.flush(0.3)
    assert 1 == len(server.requests)
    assert "unauthorized" == client.stats().held_back


def test_a_server_wish_is_kept_to(make_client, server):
    """After a 429 or 503 with Retry-After nothing goes out before that time."""
    times = []

    def script(request):
        times.append(time.monotonic())
        first = request.number == 1
        return Reply(status=503 if first else 200, headers={"Retry-After": "1"} if first else {})

    server.script = script
    client = make_client(max_workers=1)
    for number in range(5):
        client.track(f"u{number}", "Event")

    assert client.flush(PATIENCE)
    assert times[1] - times[0] >= 0.95
    assert 5 == client.stats().delivered


def test_a_server_wish_is_kept_to_whatever_was_on_its_way(make_client, server):
    """A success that was sent before the 503 came does not cut the wait short."""
    on_its_way = threading.Event()
    times = []

    def script(request):
        times.append(time.monotonic())
        if request.number == 1:
            return Reply(hold=on_its_way)
        if request.number == 2:
            return Reply(status=503, headers={"Retry-After": "1"})
        return Reply()

    server.script = script
    client = make_client(max_workers=2)
    client.track("u1", "Slow")
    assert server.wait_for(1)
    client.track("u2", "Refused")
    client.track("u3", "Held")
    assert server.wait_for(2)
    until(lambda: client.stats().held_back)
    on_its_way.set()

    assert client.flush(PATIENCE)
    assert times[2] - times[1] >= 0.95
    assert 3 == client.stats().delivered


def test_a_body_that_alone_keeps_failing_does_not_hold_its_user_for_ever(make_client, server):
    """An event that fails max_attempts times while others pass is set aside."""
    server.script = lambda request: Reply(status=500 if request.json["event"] == "Poison" else 200)
    client = make_client(max_attempts=3, backoff_base=0.01, backoff_cap=0.01)
    client.track("u1", "Poison")
    client.track("u1", "After")
    for number in range(30):
        client.track(f"other{number % 3}", "Fine")
        client.flush(0.02)
        if client.stats().dropped:
            break

    assert client.flush(PATIENCE)
    assert {"attempts_exhausted": 1} == client.stats().dropped
    assert "After" in sent(server)["u1"]


@pytest.mark.memory
def test_an_event_that_fails_at_old_age_is_set_aside(make_client, server):
    """retry_for bounds the age at which an event is tried again."""
    server.script = lambda request: Reply(status=500)
    client = make_client(retry_for=0.0)
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert {"expired": 1} == client.stats().dropped


def test_redirects_are_not_followed_and_carry_no_credentials(make_client, server):
    """A redirect to another host is a wrong setting: nothing is sent there."""
    with ScriptedServer() as elsewhere:
        server.script = lambda request: Reply(
            status=307, headers={"Location": f"{elsewhere.url}/event"}
        )
        client = make_client(probe_interval=600.0)
        client.track("u1", "Event")
        assert server.wait_for(1)
        assert not client.flush(0.2)

        assert ([], "redirect") == (elsewhere.requests, client.stats().held_back)


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"",
        b"HTTP/1.",
        b"\x00\xff" * 100,
    ],
)
def test_what_is_not_an_answer_is_tried_again(make_client, server, body):
    """An interim or malformed answer is no answer, and never the end of a thread."""
    server.script = lambda request: Reply(
        **({"act": "raw", "body": body} if request.number == 1 else {})
    )
    client = make_client()
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert (1, 2) == (client.stats().delivered, len(server.requests))


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000,
    ],
)
def test_the_status_line_decides_whatever_the_body(make_client, server, body):
    """A 2xx with a broken, huge or lying body is delivered, once."""
    server.script = lambda request: Reply(act="raw", body=body)
    client = make_client()
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert (1, 1) == (client.stats().delivered, len(server.requests))


@pytest.mark.memory
def test_a_full_buffer_drops_the_newest_and_counts_it(make_client):
    """drop_newest: what does not fit is counted, what is held stays."""
    held = threading.Event()
    transport = CapturingTransport(lambda body: held.wait(PATIENCE) and Answer(status=200))
    client = make_client(transport=transport, max_queue_events=10, max_workers=1)
    for number in range(25):
        client.track("u1", f"Event {number}")
    held.set()

    assert client.flush(PATIENCE)
    assert {"queue_full": 15} == client.stats().dropped
    assert [f"Event {number}" for number in range(10)] == [
        event["event"] for event in transport.events
    ]


@pytest.mark.memory
def test_a_full_buffer_drops_the_oldest_and_counts_it(make_client):
    """drop_oldest: a new event makes room for itself; what is on its way stays."""
    held, arrived = threading.Event(), threading.Event()

    def answer(body):
        arrived.set()
        held.wait(PATIENCE)
        return Answer(status=200)

    transport = CapturingTransport(answer)
    client = make_client(
        transport=transport, max_queue_events=64, max_workers=1, overflow="drop_oldest"
    )
    client.track("u1", "Event 0")
    assert arrived.wait(PATIENCE)
    for number in range(1, 200):
        client.track(f"u{number % 3}", f"Event {number}")
    held.set()

    assert client.flush(PATIENCE)
    stats = client.stats()
    names = [int(event["event"].split()[1]) for event in transport.events]
    assert 200 == stats.delivered + stats.dropped["queue_full"]
    assert 0 == names[0], "it was on its way"
    assert set(names[1:]) == set(range(200 - len(names) + 1, 200)), "the newest are kept"
    assert 64 <= stats.delivered <= 64 * 2


@pytest.mark.memory
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_the_bounds_hold_while_a_worker_takes_in_what_has_come(make_client, monkeypatch, overflow):
    """Threads that log in the middle of it see what is held already, not what was before."""
    client = make_client(
        transport=CapturingTransport(), max_queue_events=10, max_workers=1, overflow=overflow
    )
    sender = client.sender
    monkeypatch.setattr(sender, "_threads", 99)  # no thread: this test steps by hand
    add, most = sender._schedule.add, []

    def add_while_others_log(payload, now):
        add(payload, now)
        for _ in range(3):
            client.track("u2", "Meanwhile")
        most.append(sender._schedule.events)

    monkeypatch.setattr(sender._schedule, "add", add_while_others_log)
    for number in range(10):
        client.track("u1", f"Event {number}")
    for _ in range(3):
        with sender._lock:
            sender._admit_now()
        most.append(client.stats().pending)
    stats = client.stats()

    assert stats.pending == 10
    # drop_oldest makes room after the event has come in.
    assert max(most) <= (10 if overflow == "drop_newest" else 20)
    assert stats.accepted == 10 + stats.dropped["queue_full"] >= 10 + 3 * 10
    monkeypatch.setattr(sender, "_threads", 0)


@pytest.mark.memory
def test_threads_that_come_at_once_may_pass_the_bounds_by_one_event_each(make_client):
    """Nothing can be evicted without drop_oldest: what came in stays, and the next is dropped."""
    client = make_client(transport=CapturingTransport(), max_queue_events=10, max_workers=1)
    sender = client.sender
    sender._threads = 99  # no thread
    for _ in range(10):
        client.track("u1", "Event")
    sender.buffer.inbox.append(("u1", "Another thread's", b"", None))
    client.track("u1", "One too many")
    stats = client.stats()
    sender._threads = 0

    assert (12, 11, {"queue_full": 1}) == (stats.accepted, stats.pending, stats.dropped)
    assert client.flush(PATIENCE)
    assert 11 == client.stats().delivered


@pytest.mark.memory
def test_what_a_worker_was_about_to_send_when_the_client_gave_up_is_counted_once(make_client):
    """Between taking an event and sending it, the client may be closed; the worker goes on."""
    client = make_client(transport=CapturingTransport(), max_workers=1)
    sender = client.sender
    attempt, closed = sender._attempt, threading.Event()

    def close_first(found, schedule, timeout=None):
        client.close(timeout=0)
        attempt(found, schedule, timeout)
        closed.set()

    sender._attempt = close_first
    client.track("u1", "Event")
    assert closed.wait(PATIENCE)
    sender._attempt = attempt
    stats = client.stats()

    assert (1, 0, 0, {"shutdown": 1}) == (
        stats.accepted,
        stats.delivered,
        stats.pending,
        stats.dropped,
    )


@pytest.mark.memory
def test_the_buffer_is_bounded_by_bytes(make_client):
    """Few large events fill it as many small ones do."""
    held = threading.Event()
    transport = CapturingTransport(lambda body: held.wait(PATIENCE) and Answer(status=200))
    client = make_client(transport=transport, max_queue_bytes=100_000, max_workers=1)
    for _ in range(100):
        client.track("u1", "Event", {f"p{n}": "x" * 4000 for n in range(5)})

    assert client.stats().pending_bytes <= 100_000
    assert client.stats().dropped["queue_full"] >= 94
    held.set()
    assert client.flush(PATIENCE)


@pytest.mark.memory
def test_the_pace_is_kept(make_client):
    """max_events_per_minute spaces attempts evenly."""
    clock = FakeClock()
    client = make_client(transport=CapturingTransport(), clock=clock, max_events_per_minute=60)
    sender = client.sender
    sender._threads = 99  # no thread: this test steps by hand
    for number in range(4):
        client.track(f"u{number}", "Event")
    trace = []
    for _ in range(7):
        found = sender.step()
        if not isinstance(found, float):
            sender._attempt(found, sender._schedule)
            trace.append("sent")
        else:
            trace.append(found)
            clock.advance(found)
    sender._threads = 0

    assert ["sent", 1.0, "sent", 1.0, "sent", 1.0, "sent"] == trace


def test_the_documented_pace_is_warned_of_once(make_client, diagnostics_lines, monkeypatch):
    """Without pacing, passing 10,000 events a minute is one warning."""
    monkeypatch.setattr(sender_module, "_DOCUMENTED_PACE", 5)
    client = make_client(transport=CapturingTransport())
    for number in range(20):
        client.track(f"u{number}", "Event")

    assert client.flush(PATIENCE)
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert "max_events_per_minute" in line


def test_flush_says_whether_everything_has_an_outcome(make_client, server):
    """flush waits for what was accepted before it, no longer than its timeout."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    client = make_client()
    client.track("u1", "Event")

    assert not client.flush(0.1)
    release.set()
    assert client.flush(PATIENCE)
    assert client.flush(0)


def test_flush_does_not_wait_for_what_comes_after_it(make_client, server):
    """Events accepted later do not keep a flush from returning."""
    release, later = threading.Event(), threading.Event()
    server.script = lambda request: Reply(
        hold=release if request.json["event"] == "First" else later
    )
    client = make_client()
    client.track("u1", "First")
    assert server.wait_for(1)
    result = []
    flusher = threading.Thread(target=lambda: result.append(client.flush(PATIENCE)))
    flusher.start()
    # The flush has its barrier once it is listed; then comes the later event.
    until(lambda: client.sender._barriers)
    client.track("u1", "Second")
    release.set()
    flusher.join(PATIENCE)

    assert [True] == result
    later.set()
    assert client.flush(PATIENCE)


def test_close_delivers_then_drops_and_counts(make_client, server):
    """close delivers what is held; what comes later is counted as dropped."""
    client = make_client()
    for number in range(50):
        client.track(f"u{number}", "Event")

    assert client.close(PATIENCE)
    client.track("u1", "Late")
    stats = client.stats()
    assert (50, {"closed": 1}, 0) == (stats.delivered, stats.dropped, stats.pending)


@pytest.mark.memory
def test_close_with_nobody_there_counts_what_is_left(make_client, diagnostics_lines):
    """What could not be sent by the deadline is counted, said in one line, told to on_error."""
    losses = []
    client = make_client(events_url=f"http://127.0.0.1:{closed_port()}", on_error=losses.append)
    for number in range(30):
        client.track(f"u{number}", "Event")

    assert not client.close(0.2)
    stats = client.stats()
    assert ({"shutdown": 30}, 0) == (stats.dropped, stats.pending)
    assert ["shutdown"] * 30 == [loss.reason for loss in losses]
    assert all(isinstance(loss, Loss) for loss in losses)
    lines = [diagnostics_lines.get(timeout=PATIENCE)[1] for _ in range(2)]
    assert any("30 events could not be delivered" in line for line in lines)


def test_close_cuts_a_backoff_short(make_client, server):
    """A retry that would come after the deadline is made once, now."""
    server.script = lambda request: Reply(status=500 if request.number == 1 else 200)
    client = make_client(backoff_base=600.0, backoff_cap=600.0)
    client.sender._draw = lambda: 0.9
    client.track("u1", "Event")
    assert server.wait_for(1)
    until(lambda: client.stats().retried)

    assert client.close(PATIENCE)
    assert 1 == client.stats().delivered


@pytest.mark.parametrize("misdeed", ["raises", "exits", "flushes", "logs"])
def test_on_error_cannot_kill_or_hang_a_worker(make_client, server, misdeed):
    """on_error may raise, flush or log a tagged line; delivery goes on and nothing loops."""
    called = threading.Event()
    results = []

    def on_error(loss):
        try:
            if misdeed == "raises":
                raise RuntimeError("boom")
            if misdeed == "exits":
                raise SystemExit(1)
            if misdeed == "flushes":
                results.append(client.flush(PATIENCE))
            if misdeed == "logs":
                import logging

                logging.getLogger("app").warning(
                    "Lost", extra={"userlens_event": True, "user_id": "u1"}
                )
        finally:
            called.set()

    server.script = lambda request: Reply(status=400 if request.json["event"] == "Poison" else 200)
    client = make_client(on_error=on_error, max_workers=1)
    if misdeed == "logs":
        import logging

        from userlens_instrument import UserlensHandler

        logging.getLogger().addHandler(UserlensHandler(client=client))
    client.track("u1", "Poison")
    client.track("u1", "Good")

    assert client.flush(PATIENCE)
    assert called.wait(PATIENCE)
    client.track("u2", "Later")
    assert client.flush(PATIENCE)
    assert {"u1": ["Poison", "Good"], "u2": ["Later"]} == sent(server)


def test_a_transport_that_raises_does_not_cost_the_event_or_the_thread(make_client):
    """Whatever the transport does, the event is tried again and the worker lives."""
    calls = []

    def answer(body):
        calls.append(body)
        if len(calls) == 1:
            raise MemoryError
        return Answer(status=200)

    client = make_client(transport=CapturingTransport(answer))
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert (1, 2) == (client.stats().delivered, len(calls))


def test_workers_that_only_get_in_each_others_way_end(make_client):
    """Where answers take no time, one worker sends, and one looks whether it gets on."""
    together, first = threading.Barrier(8), iter(range(8))

    def answer(body):
        if next(first, None) is not None:
            together.wait(PATIENCE)  # all eight are there
        return Answer(status=200)

    # On this clock no time passes.
    client = make_client(transport=CapturingTransport(answer), clock=FakeClock())
    for number in range(5_000):
        client.track(f"u{number % 100}", f"Event {number}")

    assert client.flush(PATIENCE)
    assert client.stats().threads <= 2
    assert 5_000 == client.stats().delivered


def test_a_request_that_hangs_does_not_hold_up_the_others(make_client, server):
    """However fast answers came before: the worker that stood aside takes over."""
    hang = threading.Event()
    server.script = lambda request: Reply(hold=hang if b"Hang" in request.body else None)
    client = make_client()
    client.sender._took = 0.0
    for number in range(100):
        client.track(f"u{number}", f"Event {number}")
    assert client.flush(PATIENCE)
    client.track("u-1", "Hang")
    client.track("u-2", "Hang")
    for number in range(100):
        client.track(f"u{number}", f"Event {number}")

    assert server.wait_for(202)
    hang.set()
    assert client.flush(PATIENCE)


def test_without_threads_a_flush_delivers_by_itself(make_client, server, monkeypatch):
    """Where no thread can be started, nothing is lost and nothing raises."""
    refuse_our_threads(monkeypatch)
    server.script = lambda request: Reply(status=500 if request.number == 1 else 200)
    client = make_client()
    for number in range(5):
        client.track(f"u{number}", "Event")

    assert 0 == client.stats().threads
    assert client.flush(PATIENCE)
    assert 5 == client.stats().delivered


def test_a_thread_is_tried_again_once_one_can_be_had(make_client, server, monkeypatch):
    """A refused thread is asked for again by the next event."""
    client = make_client()
    with monkeypatch.context() as patch:
        refuse_our_threads(patch)
        client.track("u1", "First")
    client.track("u1", "Second")

    assert server.wait_for(2)
    assert client.flush(PATIENCE)
    assert {"u1": ["First", "Second"]} == sent(server)


def test_dry_run_does_everything_but_open_a_socket(make_client, server):
    """dry_run counts events as delivered and sends nothing; it needs no write code."""
    client = make_client(dry_run=True, write_code=None)
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    assert (1, []) == (client.stats().delivered, server.requests)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"write_code": None}, "no_write_code"), ({"disabled": True}, "disabled")],
)
def test_a_client_that_sends_nothing_counts_every_event(make_client, server, settings, reason):
    """Without a write code, or disabled, every event is counted as dropped, and no thread runs."""
    client = make_client(**settings)
    client.track("u1", "Event")
    client.identify("u1", {})

    stats = client.stats()
    assert (2, {reason: 2}, 0, []) == (
        stats.accepted,
        stats.dropped,
        stats.threads,
        server.requests,
    )


def test_debug_says_each_delivery_without_its_content(make_client, diagnostics_lines):
    """debug tells of each attempt, never of properties."""
    client = make_client(transport=CapturingTransport(), debug=True)
    client.track("u-secret", "Event", {"plan": "hidden"})

    assert client.flush(PATIENCE)
    _, line = diagnostics_lines.get(timeout=PATIENCE)
    assert line.startswith(("debug: track of", "debug: batch of 1"))
    assert "hidden" not in line
    assert "u-secret" not in line
