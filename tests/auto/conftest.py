"""What the tests of `auto` within this process start from: it is installed, and goes again."""

from __future__ import annotations

import pytest

from userlens_instrument import auto
from userlens_instrument import client as client_module


RULES = [
    {
        "logger": "billing*",
        "message": "Invoice %s paid by %s",
        "args": ["invoice", "user_id"],
        "event": "Invoice Paid",
    },
    {"logger": "worker", "event": "Work Done", "user_id": "{user_id}"},
]


@pytest.fixture
def installed(make_client, transport):
    """Return the default client, which everything that is logged goes to; it has `RULES`."""
    client = make_client(transport=transport, rules=RULES)
    client_module.registry.default = client
    auto.install()
    yield client
    auto.uninstall()


@pytest.fixture
def events(installed, transport):
    """Return a function that returns each event that was sent, as (name, properties)."""

    def events():
        assert installed.flush()
        return [
            (event["event"], event.get("properties", {}), event["userId"])
            for event in transport.events
        ]

    return events
