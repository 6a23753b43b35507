"""What is kept, what is counted, and which fault is next."""

import json
import threading
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userlens_instrument.inspector import Fault, Stats, Store, validate_event, validate_raw
from userlens_instrument.inspector.store import user_ids_of


TIMEOUT = 30.0


def track(user="u-1", event="Plan Upgraded", **more):
    """Return the body of a track."""
    return {
        "type": "track",
        "userId": user,
        "source": "userlens-restapi",
        "event": event,
        **more,
    }


def add(store, body, *, status=200, path="/event"):
    """Add a request to *store*."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return store.add(
        path=path,
        raw=raw,
        verdict=(validate_event if path == "/event" else validate_raw)(raw),
        status=status,
        received_at=store.timestamp(),
        headers={"host": "127.0.0.1"},
        connection=7,
    )


def noon():
    """Return a fixed time."""
    return datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=timezone.utc)


def test_entry():
    """An entry says everything there is to say about an event."""
    (entry,) = add(Store(now=noon), track())

    expected = {
        "seq": 1,
        "request": 1,
        "connection": 7,
        "received_at": "2026-01-31T12:00:00.123Z",
        "path": "/event",
        "type": "track",
        "event": "Plan Upgraded",
        "userId": "u-1",
        "groupId": None,
        "verdict": "good",
        "reason": "",
        "reason_path": "",
        "status": 200,
        "size": len(json.dumps(track())),
        "headers": {"host": "127.0.0.1"},
        "body": track(),
    }

    assert expected == entry.as_dict()


def test_batch():
    """A good batch is one entry for each of its events, in order, under one request's number."""
    events = [
        {"event": "Täst", "is_raw": False, "userId": "u-1"},
        {"event": "$ul_pageview", "properties": {}},
        {"event": "/html/a", "is_raw": True, "snapshot": [], "properties": {}},
    ]
    store = Store()
    add(store, track())

    entries = add(store, {"events": events}, path="/raw/event")

    assert [
        (2, 2, "track", "Täst", "u-1"),
        (3, 2, "pageview", "$ul_pageview", None),
        (4, 2, "click", "/html/a", None),
    ] == [(each.seq, each.request, each.type, each.event, each.user_id) for each in entries]
    assert events == [each.body for each in entries]
    assert [len(each.payload) for each in entries] == [each.size for each in entries]


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b"{", "/event", (None, None, None, "syntax")),
        (b"{", "/raw/event", (None, None, None, "syntax")),
        ([1], "/event", (None, None, [1], "type")),
        ({"events": 1}, "/raw/event", (None, None, {"events": 1}, "type")),
        (track(user=7), "/event", ("track", None, track(user=7), "type")),
    ],
)
def test_bad_request(body, path, expected):
    """A bad request is one entry, with what can be told of it and its body if it is JSON."""
    store = Store()

    (entry,) = add(store, body, path=path, status=400)

    *told, code = expected
    assert told == [entry.type, entry.user_id, entry.body]
    assert ("bad", 400) == (entry.verdict, entry.status)
    assert {code: 1} == store.stats().bad_by_reason


def test_body_is_a_copy():
    """What a test does to a body that it was given changes nothing in the store."""
    store = Store()
    add(store, track())
    store.events()[0].body.clear()

    assert track() == store.events()[0].body


def test_repr_holds_no_body():
    """An entry in a failing test is readable: its payload is left out."""
    (entry,) = add(Store(), track(properties={"long": "x" * 1000}))

    assert len(repr(entry)) < 500


def test_count_is_bounded():
    """The oldest entries make room when there are more than asked for, and are counted."""
    store = Store(max_events=2)
    for user in ("u-1", "u-2", "u-3"):
        add(store, track(user))

    stats = store.stats()
    assert ["u-3", "u-2"] == [entry.user_id for entry in store.events()]
    assert (3, 2, 1) == (stats.good, stats.held, stats.evicted)


def test_bytes_are_bounded():
    """The oldest entries make room when their payloads hold more than asked for."""
    size = len(json.dumps(track()))
    store = Store(max_bytes=2 * size)
    for user in ("u-1", "u-2", "u-3"):
        add(store, track(user))

    assert (2, 2 * size, 1) == (
        store.stats().held,
        store.stats().held_bytes,
        store.stats().evicted,
    )


def test_newest_is_kept_in_any_case():
    """An event that is larger than the whole memory is shown until the next one comes."""
    store = Store(max_bytes=1)
    add(store, track("u-1"))
    add(store, track("u-2"))

    assert ["u-2"] == [entry.user_id for entry in store.events()]


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 5), st.integers(1, 900))
def test_bounds_hold_for_any_sequence(lengths, max_events, max_bytes):
    """Whatever arrives, no more is held than asked for, and what is held is the newest."""
    store = Store(max_events=max_events, max_bytes=max_bytes)
    for length in lengths:
        add(store, track("u" * (length + 1)))

    held, stats = store.events(), store.stats()
    assert len(held) <= max_events
    assert stats.held_bytes <= max_bytes or len(held) == 1
    assert stats.held_bytes == sum(entry.size for entry in held)
    assert stats.held + stats.evicted == len(lengths)
    assert [entry.seq for entry in held] == list(range(len(lengths), stats.evicted, -1))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [4, 3, 2, 1]),
        ({"limit": 2}, [4, 3]),
        ({"type": "track"}, [4, 3, 1]),
        ({"type": "group"}, []),
        ({"user_id": "u-1"}, [2, 1]),
        ({"event": "Plan Upgraded"}, [4, 1]),
        ({"verdict": "good"}, [3, 2, 1]),
        ({"verdict": "bad"}, [4]),
        ({"type": "track", "user_id": "u-1", "limit": 5}, [1]),
    ],
)
def test_filters(wanted, expected):
    """What is read can be narrowed down; the newest comes first."""
    store = Store()
    add(store, track())
    identify = {"type": "identify", "userId": "u-1", "source": "userlens-restapi", "traits": {}}
    add(store, identify)
    add(store, track("u-2", "Report Exported"))
    add(store, track(""), status=400)

    assert expected == [entry.seq for entry in store.events(**wanted)]


def test_stats():
    """Everything is counted: good events, bad requests by reason, answers by status, faults."""
    store = Store()
    store.add_faults(Fault(status=503), Fault(drop=True, count=3))
    add(store, track())
    add(store, b"{", status=400)
    add(store, {"events": [{"event": "A", "is_raw": False}] * 2}, path="/raw/event")
    store.take_fault("/event", frozenset)
    store.swallow(status=503)
    store.take_fault("/event", frozenset)
    store.swallow(status=None)

    expected = Stats(
        requests=5,
        good=3,
        bad=1,
        bad_by_reason={"syntax": 1},
        by_status={"200": 2, "400": 1, "503": 1, "dropped": 1},
        faults_fired=2,
        faults_pending=2,
        held=4,
        held_bytes=sum(entry.size for entry in store.events()),
        evicted=0,
    )
    assert expected == store.stats()
    assert "<Store held=4 good=3 bad=1>" == repr(store)


def test_reset():
    """A reset forgets everything but the numbers, so that no two events have the same one."""
    store = Store(max_events=1)
    store.add_faults(Fault(status=503, count=2))
    store.take_fault("/event", frozenset)
    add(store, track())
    add(store, b"{", status=400)
    store.reset()

    assert Store().stats() == store.stats()
    assert ((), ()) == (store.events(), store.faults())
    assert 3 == add(store, track())[0].seq


def test_waiting_for_events():
    """A test can wait for events from another thread, and is told when they do not come."""
    store = Store()
    thread = threading.Thread(target=lambda: [add(store, track()) for _ in range(3)])
    thread.start()

    assert store.wait_for(3, timeout=TIMEOUT)
    thread.join()
    assert not store.wait_for(4, timeout=0)


def test_waiting_for_requests():
    """A test can wait for requests that are no good events, too."""
    store = Store()
    thread = threading.Thread(target=lambda: store.swallow(status=503))
    thread.start()

    assert store.wait_for_requests(1, timeout=TIMEOUT)
    thread.join()
    assert not store.wait_for_requests(2, timeout=0)


def test_watching():
    """Who watches is handed each entry, and may read the store meanwhile."""
    seen = []
    store = Store(on_entry=lambda entry: seen.append((entry.seq, store.stats().held)))
    add(store, {"events": [{"event": "A", "is_raw": False}] * 2}, path="/raw/event")

    assert [(1, 2), (2, 2)] == seen


def test_faults_queue_up():
    """Each request uses up one of the first fault that fits it."""
    store = Store()
    first = Fault(status=500, path="/raw/event")
    second = Fault(status=503, count=2)
    third = Fault(status=429, user_id="u-1")
    store.add_faults(first, second, third)

    def take(path, *users):
        fault = store.take_fault(path, lambda: frozenset(users))
        return fault and fault.status

    assert [503, 500, 503, None, 429, None] == [
        take("/event"),
        take("/raw/event"),
        take("/raw/event"),
        take("/event", "u-2"),
        take("/event", "u-2", "u-1"),
        take("/event", "u-1"),
    ]
    assert 4 == store.stats().faults_fired


def test_faults_that_wait():
    """The list of faults shows what is left of each, and can be emptied."""
    store = Store()
    store.add_faults(Fault(status=500, count=3))
    store.take_fault("/event", frozenset)
    left = store.faults()
    store.clear_faults()

    assert ((Fault(status=500, count=2),), ()) == (left, store.faults())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, set()),
        ([track()], set()),
        (track(), {"u-1"}),
        (track(user=7), set()),
        ({"events": [track("a"), track("b"), 5, {}]}, {"a", "b"}),
        ({"events": 5, "userId": "u"}, {"u"}),
    ],
)
def test_users_of_a_body(body, expected):
    """The users of a body are found even if it is bad."""
    assert expected == user_ids_of(body)
