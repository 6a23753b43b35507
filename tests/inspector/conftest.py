"""An inspector on a loopback port, and a client of it."""

import pytest
from inspector.client import Client

from userlens_instrument.inspector import InspectorServer


@pytest.fixture
def server():
    """Return an inspector that accepts any write code."""
    with InspectorServer() as running:
        yield running


@pytest.fixture
def client(server):
    """Return a client of that inspector."""
    return Client(server)


@pytest.fixture
def connect():
    """Return what makes a client of any inspector."""
    return Client
