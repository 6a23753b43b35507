"""What holds for events by themselves holds for batches: every test here runs with both."""

from __future__ import annotations

import pytest
from helpers import BRIEF, unwrapped


class Unwrapping:
    """Hands a batch of one on as the event that it holds."""

    def __init__(self, inner):
        self.inner = inner

    def send(self, path, body, *, timeout=None):
        return self.inner.send("/event", unwrapped(path, body), timeout=timeout)

    def close(self):
        self.inner.close()

    def forget(self):
        self.inner.forget()


@pytest.fixture
def make_batch_client(make_client_of_events):
    """Return a maker of clients that send batches."""
    return lambda **settings: make_client_of_events(delivery="batch", **settings)


@pytest.fixture(params=["event"] if BRIEF else ["event", "batch"])
def make_client(request, make_client_of_events):
    """Return a maker of clients that send each event by itself, or in a batch of one."""
    if request.param == "event":
        return make_client_of_events

    def make(*, transport=None, **settings):
        settings = {"delivery": "batch", "batch_max_events": 1} | settings
        if "events_url" in settings:
            settings["raw_url"] = settings["events_url"]
        wrapped = None if transport is None else Unwrapping(transport)
        return make_client_of_events(transport=wrapped, **settings)

    return make
