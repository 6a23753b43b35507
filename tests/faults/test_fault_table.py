"""
Every fault of the table, with its figures: counts, never times.

Where waits are seconds, as they come, a row has no threads and a clock that the test turns; where
workers have to come in each other's way, it has both, and waits a hundred times shorter than the
defaults. The server is real, and so are the sockets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import socket
import ssl
import threading
import tracemalloc
from collections import defaultdict

import pytest
import structlog
import trustme
from fault_table import ELSEWHERE, EPOCH, FAULTS, POISON, SHORT, VIRTUAL
from helpers import BRIEF, PATIENCE, WRITE_CODE
from hostile import HostileServer, Taken

from userlens_instrument import Client, Settings, UserlensHandler, UserlensProcessor
from userlens_instrument._delivery.clock import SystemClock
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._delivery.transport import UrllibTransport
from userlens_instrument.testing import Failure, FakeClock


USERS = tuple(f"u{number}" for number in range(6))
EACH = 16
# Places where the very first attempt shows that nobody else's would arrive.
NOBODY_THERE = ("down", "full", "nameless", "untrusted", "misnamed")
# More than any row without threads makes.
MOST_ATTEMPTS = 10_000
# What a row with a virtual clock logs each second, an event for each.
VIRTUAL_USERS = USERS[:4]


def rows(*, threads):
    """Return the rows with threads, or those without, on each road that they are for."""
    return [
        pytest.param(fault, road, id=f"{fault.name}-{road}")
        for fault in FAULTS
        for road in fault.roads
        if (fault.lasts is None) == threads and (road == "event" or not BRIEF)
    ]


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


# ---------------------------------------------------------------- what sees it all


class Watch:
    """
    A transport that counts what another one does.

    *on_failure* is called with the number of attempts without an answer so far, before the
    sender hears of the last one.
    """

    def __init__(self, inner, clock, soonest, on_failure):
        self._inner = inner
        self._clock = clock
        self._soonest = soonest
        self._on_failure = on_failure
        self._last_failure = None
        self.changed = threading.Condition()
        #: When each attempt began, and what came of it.
        self.attempts = []
        #: Those that failed, and those that met a connection closed meanwhile: no failure.
        self.failures = 0
        self.stale = 0
        #: Events sent of which no answer came.
        self.unanswered = 0
        #: Attempts that came sooner after one that failed than any backoff allows.
        self.early = 0

    def send(self, path, body, *, timeout=None):
        began = self._clock.monotonic()
        with self.changed:
            last = self._last_failure
            self.early += last is not None and began < last + self._soonest
        answer = self._inner.send(path, body, timeout=timeout)
        with self.changed:
            self.attempts.append((began, answer))
            if answer.status is None:
                self.unanswered += len(json.loads(body).get("events", [None]))
                self._take_failure(answer)
            self.changed.notify_all()
        return answer

    def _take_failure(self, answer):
        if answer.failure is Failure.STALE:
            self.stale += 1
            return
        self._last_failure = self._clock.monotonic()
        self.failures += 1
        self._on_failure(self.failures)

    def wait_for_failures(self, number):
        with self.changed:
            return self.changed.wait_for(lambda: self.failures >= number, PATIENCE)

    def close(self):
        self._inner.close()

    def forget(self):
        self._inner.forget()


class Application:
    """
    Logs numbered events of every user, a third of them by each public entrance, on its own thread.

    Args:
        client: Where to.
    """

    def __init__(self, client):
        self._logger = logging.Logger("app.of.the.fault.suite")  # noqa: LOG001 - nobody else's
        self._logger.addHandler(UserlensHandler(client=client))
        self._structlog = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[UserlensProcessor(client), lambda logger, name, fields: fields["event"]],
        )
        self._client = client
        self._entrances = [self._by_client, self._by_handler, self._by_processor]
        self._next = dict.fromkeys(USERS, 0)
        self.called = []
        self.returned = 0
        self.raised = []

    def log(self, number):
        """Log *number* more events of every user, and wait until all calls have returned."""
        threads = [
            threading.Thread(target=self._log_some, args=(entrance, USERS[place::3], number))
            for place, entrance in enumerate(self._entrances)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    def log_one(self, user):
        """Log one more event of *user*, here."""
        self._log_some(self._entrances[USERS.index(user) % 3], [user], 1)

    def _log_some(self, entrance, users, number):
        for _ in range(number):
            for user in users:
                place = self._next[user]
                self._next[user] = place + 1
                self.called.append(Taken(user, place))
                kind = POISON if (user, place) == ("u0", 5) else "good"
                try:
                    entrance(user, {"number": place, "kind": kind}, is_track=place % 8 != 0)
                    self.returned += 1
                except Exception as error:
                    self.raised.append(error)

    def _by_client(self, user, fields, *, is_track):
        if is_track:
            self._client.track(user, "Event", fields)
        else:
            self._client.identify(user, fields)

    def _by_handler(self, user, fields, *, is_track):
        tag = True if is_track else "identify"
        self._logger.info("Event", extra={"userlens_event": tag, "user_id": user, **fields})

    def _by_processor(self, user, fields, *, is_track):
        tag = True if is_track else "identify"
        line = self._structlog.info("Event", userlens_event=tag, user_id=user, **fields)
        assert "Event" == line, "the log line still prints"


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What came of a row."""

    server: HostileServer
    watch: Watch
    application: Application
    stats: object = None
    lines: list = dataclasses.field(default_factory=list)
    grew: int = 0

    @property
    def fired(self):
        return sum(self.server.fired.values()) or self.watch.failures


@contextlib.contextmanager
def caught_lines():
    """Return a list that gets each line of diagnostics."""
    lines = []

    class Catcher(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger, catcher = logging.getLogger("userlens_instrument"), Catcher()
    logger.addHandler(catcher)
    yield lines
    logger.removeHandler(catcher)


# ---------------------------------------------------------------- where the server is


class Place:
    """A server at the *place* of a row, and how to put right what is wrong with it."""

    def __init__(self, fault, server_stack, authority, monkeypatch, tmp_path):
        self.well = False
        self._failures = None if fault.is_forever else fault.failures
        self._authority = authority
        self._place = fault.place
        by_tls = fault.place in ("untrusted", "misnamed", "cut")
        self.elsewhere = None
        script = fault.script
        if any(ELSEWHERE.encode() in rule.send for rule in script):
            self.elsewhere = server_stack.enter_context(HostileServer())
            script = [_sent_to(rule, self.elsewhere.url) for rule in script]
        self.server = server_stack.enter_context(
            HostileServer(
                script,
                tls=self._context if by_tls else None,
                up=by_tls or fault.place in ("up", "nameless", "leaving"),
            )
        )
        self.url = self.server.url
        if by_tls:
            authority.cert_pem.write_to_path(tmp_path / "ca.pem")
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        elif fault.place == "full":
            server_stack.enter_context(self.server.full_backlog())
        elif fault.place == "nameless":
            self.url = f"http://userlens.internal:{self.server.port}"
            self._look_up = socket.getaddrinfo
            monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def failed(self, failures):
        """Put everything right, if so many attempts that failed are enough."""
        if self._failures == failures:
            self.put_right()

    def put_right(self):
        self.well = True
        self.server.script = ()
        if self._place in ("down", "full", "leaving"):
            self.server.up()

    def _context(self, number):
        if self._place == "cut" and not self.well:
            return None
        is_known = self.well or self._place != "untrusted"
        name = "127.0.0.1" if self.well or self._place != "misnamed" else "wrong.example"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (self._authority if is_known else trustme.CA()).issue_cert(name).configure_cert(context)
        return context

    def _resolve(self, host, *args, **kwargs):
        # RFC 6761: no name below .invalid ever resolves.
        name = "127.0.0.1" if self.well else "userlens.invalid"
        return self._look_up(name, *args, **kwargs)


def _sent_to(rule, url):
    return dataclasses.replace(rule, send=rule.send.replace(ELSEWHERE.encode(), url.encode()))


def make_client(place, road, settings, monkeypatch, clock, soonest):
    url = place.url
    if road == "proxied":
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        url = "http://userlens.internal"
    complete = Settings(
        write_code=WRITE_CODE,
        events_url=url,
        raw_url=url,
        delivery="batch" if road == "batch" else "event",
        **settings,
    )
    watch = Watch(UrllibTransport(complete), clock, soonest, place.failed)
    return Client(complete, transport=watch, clock=clock), watch


# ---------------------------------------------------------------- the figures


def misordered(taken):
    """Return how many events arrived for the first time after a later one of the same user."""
    newest, seen, wrong = defaultdict(lambda: -1), set(), 0
    for event in taken:
        if event not in seen:
            seen.add(event)
            wrong += event.number < newest[event.user]
            newest[event.user] = max(newest[event.user], event.number)
    return wrong


def check(fault, road, outcome):
    """Assert every figure of *fault*."""
    figures, stats, server = fault.figures, outcome.stats, outcome.server
    called, taken = outcome.application.called, server.taken
    accounted = sum(stats.refused.values()) + sum(stats.dropped.values()) + stats.pending

    assert outcome.fired >= figures.fired, "the fault has happened"
    assert ([], len(called)) == (outcome.application.raised, outcome.application.returned)
    assert [] == server.wrong
    # Nothing is lost, and the books balance.
    assert len(set(called) - set(taken)) == accounted
    assert set() == set(taken) - set(called)
    assert len(called) == stats.accepted == stats.delivered + accounted
    assert (figures.refused, figures.dropped, figures.pending) == (
        stats.refused,
        stats.dropped,
        stats.pending,
    )
    assert 0 == misordered(taken)
    check_duplicates(fault, outcome)
    check_requests(fault, road, outcome)
    if figures.lines is not None:
        assert figures.lines == len(outcome.lines), outcome.lines


def check_duplicates(fault, outcome):
    taken, server = outcome.server.taken, outcome.server
    duplicates = len(taken) - len(set(taken))
    expected = server.lost if fault.figures.duplicates == "answer was lost" else 0
    assert (server.lost > 0) == (fault.figures.duplicates == "answer was lost")
    if fault.is_timed:
        assert expected <= duplicates <= outcome.watch.unanswered
    else:
        assert expected == duplicates


def check_requests(fault, road, outcome):
    server, figures = outcome.server, fault.figures
    stats = outcome.stats
    sent = len(outcome.application.called) - sum(stats.dropped.values())
    missed = sum(
        number for rule, number in server.fired.items() if rule.lost or not rule.takes
    ) - sum(stats.refused.values())
    if fault.is_timed:
        missed = max(missed, outcome.watch.failures + outcome.watch.stale)
    if road == "batch" or fault.is_timed:
        assert server.requests <= sent + missed + figures.again
    else:
        assert sent + missed == server.requests


# ---------------------------------------------------------------- rows with threads


@pytest.mark.parametrize(("fault", "road"), rows(threads=True))
def test_a_fault_costs_what_it_may_and_no_more(fault, road, monkeypatch, tmp_path, authority):
    """
    Whatever the network or the server does: no event lost, each user's order kept, twice only
    what had its answer lost, requests bounded, and the application's calls as ever.
    """
    settings = SHORT | fault.settings
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(caught_lines())
        place = Place(fault, stack, authority, monkeypatch, tmp_path)
        clock = SystemClock()
        client, watch = make_client(
            place, road, settings, monkeypatch, clock, settings["backoff_base"] / 2
        )
        client.sender._draw = lambda: 0.5
        application = Application(client)
        outcome = Outcome(server=place.server, watch=watch, application=application, lines=lines)
        with measured_memory(fault, outcome):
            run(fault, client, outcome)
        client.close(PATIENCE if not fault.is_forever else 0)
        outcome.stats = client.stats()
        voice.drain(PATIENCE)
        check(fault, road, outcome)
        check_connection(fault, place, outcome)


def run(fault, client, outcome):
    """Log under the fault, until everything has an outcome."""
    server, watch, application = outcome.server, outcome.watch, outcome.application
    if fault.place in NOBODY_THERE:
        # Alone, so that nothing else is on its way when the gate closes.
        application.log_one("u0")
        assert watch.wait_for_failures(2)
    application.log(EACH // 2)
    if fault.place == "leaving":
        assert server.wait_until(lambda server: server.requests > len(USERS))
        server.down()
    if fault.place == "up":
        assert server.wait_until(lambda server: server.requests)
    else:
        assert watch.wait_for_failures(3)
    application.log(EACH - EACH // 2)
    if any(rule.hold for rule in fault.script):
        assert (len(USERS) * EACH, 0) == (application.returned, client.stats().delivered)
        server.release.set()
    if fault.is_forever:
        assert watch.wait_for_failures(fault.failures)
    else:
        assert client.flush(PATIENCE), client.stats()


@contextlib.contextmanager
def measured_memory(fault, outcome):
    if fault.figures.memory is None:
        yield
        return
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    outcome.grew = most - before


def check_connection(fault, place, outcome):
    """Assert the figures of connections, and of attempts that met nobody."""
    figures, server, watch = fault.figures, outcome.server, outcome.watch
    fired, others = sum(server.fired.values()), SHORT["max_workers"] - 1
    if figures.hung_up:
        assert server.wait_until(lambda server: server.hung_up >= fired), server.hung_up
    if figures.unread is not None:
        assert server.said <= fired * figures.unread
    if figures.memory is not None:
        assert outcome.grew <= figures.memory
    if place.elsewhere is not None:
        assert 0 == place.elsewhere.connections
    if fault.place in NOBODY_THERE:
        # One probe at a time, and a backoff between two.
        assert 0 == watch.early
        if not fault.is_forever:
            assert fault.failures <= watch.failures <= fault.failures + others * fault.is_timed
    elif fault.place != "up":
        # Before the gate closes, all that is on its way may end, and then another goes out for
        # each, which finds a connection closed, or nobody. Then there is one probe at once, if
        # something was answered after all; and each that fails now makes a probe look early.
        workers = others + 1
        assert watch.failures <= fault.failures + others
        assert watch.early <= workers + watch.stale + 1 + others < fault.failures - others


# ---------------------------------------------------------------- rows without threads


class Wanderer(FakeClock):
    """A clock whose wall moves by itself."""

    def __init__(self):
        super().__init__(wall=float(EPOCH))
        self.moved = 0.0

    def wall(self):
        return super().wall() + self.moved


class ByHand:
    """Does what a worker does, in this thread, and turns the clock where that would wait."""

    def __init__(self, client, clock, jumps):
        self._sender = client.sender
        self._clock = clock
        self._jumps = jumps
        self._made = 0
        self._sender._threads = 99  # enough: none is started
        self._sender._draw = lambda: 0.5

    def run(self, seconds):
        """Let *seconds* pass."""
        end = self._clock.monotonic() + seconds
        while True:
            found = self._sender.step()
            if found is None or isinstance(found, float):
                left = end - self._clock.monotonic()
                if found is None or found >= left:
                    self._clock.advance(left)
                    return
                self._clock.advance(found)
            else:
                if self._jumps:
                    self._clock.moved += self._jumps[self._made % len(self._jumps)]
                self._made += 1
                assert self._made < MOST_ATTEMPTS, "it hammers, and the clock stands still"
                self._sender._attempt(found, self._sender._schedule)

    def leave(self):
        self._sender._threads = 0


@pytest.mark.parametrize(("fault", "road"), rows(threads=False))
def test_a_long_fault_costs_what_it_may_and_no_more(fault, road, monkeypatch, tmp_path, authority):
    """
    With the waits of the defaults, to the attempt: a probe a backoff while nothing arrives,
    what the server asks for is kept to, and whatever the wall clock shows, no wait changes.
    """
    with contextlib.ExitStack() as stack:
        place = Place(
            dataclasses.replace(fault, is_forever=True), stack, authority, monkeypatch, tmp_path
        )
        clock = Wanderer()
        client, watch = make_client(place, road, VIRTUAL | fault.settings, monkeypatch, clock, 0.25)
        hand = ByHand(client, clock, fault.jumps)
        stack.callback(hand.leave)
        application = Application(client)
        for _ in range(fault.lasts):
            for user in VIRTUAL_USERS:
                application.log_one(user)
            hand.run(1.0)
        if not fault.is_forever:
            place.put_right()
            hand.run(1_000.0)
        client.close(0)
        outcome = Outcome(server=place.server, watch=watch, application=application)
        outcome.stats = client.stats()
        check(fault, road, outcome)
        check_attempts(fault, outcome)


def check_attempts(fault, outcome):
    """Assert how often, and how soon after one another, attempts failed."""
    made = [(began, answer.status == 200) for began, answer in outcome.watch.attempts]
    failed = [place for place, (_, is_good) in enumerate(made) if not is_good]
    assert fault.figures.attempts == len(failed)
    if fault.figures.waits is not None:
        waits = tuple(made[place + 1][0] - made[place][0] for place in failed)
        assert fault.figures.waits == waits
