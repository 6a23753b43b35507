"""A client that speaks plain HTTP to an inspector."""

import base64
import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import Any


# Long enough for the slowest machine; nothing here waits for it to pass.
TIMEOUT = 30.0

TRACK = {"type": "track", "userId": "u-1", "source": "userlens-restapi", "event": "Plan Upgraded"}


def basic(user_and_password):
    """Return an Authorization header."""
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the inspector answered."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        """The body, parsed."""
        return json.loads(self.body)


class Client:
    """One connection for each request, closed after it."""

    def __init__(self, server):
        """Talk to *server*."""
        self.server = server

    def send(self, method, path, body=None, **headers):
        """Send a request; a keyword with None leaves that header out."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        wanted = {"content-type": "application/json" if body is not None else None}
        wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in wanted.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        with closing(connection):
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=answer.headers, body=answer.read())

    def deliver(self, body, path="/event", **headers):
        """Post a body with a write code, as a sender does."""
        return self.send("POST", path, body, **{"authorization": basic("wc:")} | headers)

    def fault(self, **fault):
        """Inject a fault."""
        answer = self.send("POST", "/api/faults", fault)
        assert 200 == answer.status, answer.body
