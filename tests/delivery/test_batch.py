"""Batch delivery, end to end: what travels together over a real connection, and what does not."""

from __future__ import annotations

import json
import re

import pytest
from helpers import PATIENCE, SPOOLED, Reply, as_tracks, until

from userlens_instrument.inspector.validate import validate_raw


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def make(make_batch_client):
    """Return a maker of clients whose batches wait for company until somebody flushes."""
    defaults = {"batch_max_events": 100, "batch_linger": 600.0}
    return lambda **settings: make_batch_client(**(defaults | settings))


def batches(server):
    """Return the names in each batch, in the order of arrival; of others what they are."""
    return [
        [track["event"] for track in as_tracks(request.body)]
        if request.path == "/raw/event"
        else json.loads(request.body)["type"]
        for request in server.requests
    ]


def test_tracks_of_many_users_share_a_request_and_a_flush_waits_for_no_company(make, server):
    """One request with all that is there, valid against the schema, and no more than that."""
    client = make()
    for number in range(20):
        client.track(f"u{number % 5}", f"Event {number}", {"number": number})

    assert client.flush(PATIENCE)
    arrived = sorted(
        (name for batch in batches(server) for name in batch), key=lambda n: int(n[6:])
    )
    assert [f"Event {number}" for number in range(20)] == arrived
    # From a spool they come into the lanes by and by.
    assert len(server.requests) <= (20 if SPOOLED else 2)
    for request in server.requests:
        assert validate_raw(request.body).good
        for entry in json.loads(request.body)["events"]:
            assert ["id", "timestamp", "event", "is_raw", "userId", "properties"] == list(entry)
            assert UUID.fullmatch(entry["id"])


def test_what_is_logged_after_events_were_given_up_has_ids_of_its_own(make, server):
    """Exit hooks log after the exit has given up on what came before: no id comes twice."""
    down = True
    server.script = lambda request: Reply(status=500 if down else 200)
    client = make()
    client.track("u1", "Given up")
    assert not client.sender.finish(0.2)
    down = False
    client.track("u1", "Later")

    assert client.flush(PATIENCE)
    entries = [one for request in server.requests for one in json.loads(request.body)["events"]]
    assert {"Given up", "Later"} == {one["event"] for one in entries}
    assert 2 == len({one["id"] for one in entries})


def test_a_batch_that_lingers_goes_by_itself(make, server):
    """Nobody flushes: after batch_linger it goes."""
    client = make(batch_linger=0.05)
    client.track("u1", "Event")

    assert server.wait_for(1)
    assert [["Event"]] == batches(server)


def test_a_full_batch_does_not_linger(make, server):
    """By the number of its events."""
    client = make(batch_max_events=10)
    for number in range(10):
        client.track(f"u{number}", f"Event {number}")

    assert server.wait_for(1)
    assert 10 == len(batches(server)[0])


@pytest.mark.parametrize("text", ["x" * 200, 'é\n"' * 60])
def test_no_batch_is_larger_than_it_may_be(make, server, text):
    """Counted in the bytes that travel, escapes and all."""
    client = make(batch_max_bytes=5_000)
    for number in range(100):
        client.track(f"u{number}", f"Event {number}", {"text": text})

    assert client.flush(PATIENCE)
    assert 100 == sum(len(batch) for batch in batches(server))
    assert max(len(request.body) for request in server.requests) <= 5_000
    assert len(server.requests) < 40


def test_an_event_that_is_larger_than_a_batch_goes_alone(make, server):
    """One is the least that can go."""
    client = make(batch_max_bytes=1_024)
    client.track("u1", "Large", {"text": "x" * 3_000})
    client.track("u1", "Small")

    assert client.flush(PATIENCE)
    assert [["Large"], ["Small"]] == batches(server)


def test_identify_and_group_keep_their_place_among_the_tracks(make, server):
    """Per user nothing overtakes; the body of each is as ever."""
    client = make()
    client.track("u1", "Before")
    client.identify("u1", {"plan": "pro"})
    client.group("g1", "u1", {"name": "Acme"})
    client.track("u1", "After")

    assert client.flush(PATIENCE)
    assert [["Before"], "identify", "group", ["After"]] == batches(server)


def test_an_id_stays_the_same_over_retries(make, server):
    """Whoever sees an event twice can tell."""
    server.script = lambda request: Reply(status=500 if request.number < 3 else 200)
    client = make()
    for number in range(3):
        client.track(f"u{number}", f"Event {number}")

    assert client.flush(PATIENCE)
    ids = [[e["id"] for e in json.loads(request.body)["events"]] for request in server.requests]
    assert 3 == len({one for some in ids for one in some})


def test_one_bad_event_among_a_thousand(make, server):
    """It is found, refused, told and counted; the 999 others arrive, each once."""
    told = []

    def script(request):
        return Reply(status=400 if b'"Event 500"' in request.body else 200)

    server.script = script
    client = make(batch_max_events=1_000, on_error=told.append)
    with client.sender._lock:  # until all are there
        for number in range(1_000):
            client.track(f"u{number % 50}", f"Event {number}")

    assert client.flush(PATIENCE)
    assert client.close(PATIENCE)
    stats = client.stats()
    assert (999, {"rejected": 1}) == (stats.delivered, dict(stats.refused))
    (loss,) = told
    assert (400, "Event 500") == (loss.status, json.loads(loss.body)["event"])
    good = [
        name
        for request in server.requests
        if b'"Event 500"' not in request.body
        for name in (track["event"] for track in as_tracks(request.body))
    ]
    assert 999 == len(good) == len(set(good))
    assert len(server.requests) <= 40


@pytest.mark.parametrize("most", [700, 3_000, 20_000])
def test_a_server_with_a_limit_of_its_own(make, server, most):
    """A 413 halves the batch until it passes; nothing is lost."""
    server.script = lambda request: Reply(status=413 if len(request.body) > most else 200)
    client = make()
    for number in range(200):
        client.track(f"u{number % 7}", f"Event {number}", {"text": "x" * 100})

    assert client.flush(PATIENCE)
    assert 200 == client.stats().delivered


def test_without_a_time_an_entry_has_none(make, server):
    """send_timestamp=False, here as elsewhere."""
    client = make(send_timestamp=False)
    client.track("u1", "Event")

    assert client.flush(PATIENCE)
    (entry,) = json.loads(server.requests[0].body)["events"]
    assert "timestamp" not in entry
    assert validate_raw(server.requests[0].body).good


def test_a_burst_beyond_the_buffers_room_is_taken_in_meanwhile(make, server):
    """While a batch lingers nobody rings for each event, and yet none is dropped for that."""
    client = make(max_queue_events=400, batch_max_events=100)
    for number in range(2_000):
        client.track(f"u{number % 20}", f"Event {number}")
        until(lambda: client.stats().pending <= 300)  # as fast as the server takes them

    assert client.flush(PATIENCE)
    assert 2_000 == client.stats().delivered
