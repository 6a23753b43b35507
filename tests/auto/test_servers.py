"""Servers with several processes under the wrapper, their applications as they are."""

from __future__ import annotations

import http.client
import signal
import socket
import sys
import time
from collections import Counter
from functools import partial

import pytest
from children import Program
from helpers import PATIENCE
from wrapping import command_line


RULES = """
[[rule]]
logger = "shop"
message = "Order %s placed by %s"
args = ["order", "user_id"]
event = "Order Placed"

[[rule]]
message = "Shop opened by %s"
args = ["user_id"]
event = "Shop Opened"
"""

WSGI = """
import logging
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.info("Shop opened by %s", "owner")

def app(environ, start_response):
    log.info("Order %s placed by %s", environ["PATH_INFO"][1:], "u1")
    start_response("200 OK", [("Content-Length", "2"), ("Connection", "close")])
    return [b"ok"]
"""

ASGI = """
import logging
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.info("Shop opened by %s", "owner")

async def app(scope, receive, send):
    log.info("Order %s placed by %s", scope["path"][1:], "u1")
    headers = [(b"content-length", b"2"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""

# Until then a worker of gunicorn does not hear that it is to end.
CONFIG = """
import pathlib

# A socket in the home folder, which gunicorns that run side by side would share.
control_socket_disable = True

def post_worker_init(worker):
    pathlib.Path(f"{worker.pid}.ready").touch()
"""

# How often each of them opens the shop: once in each process that imports the application.
GUNICORN = ["gunicorn", "--config=hooks.py", "--workers=2", "--bind=unix:socket"]
SERVERS = {
    "gunicorn": (WSGI, [*GUNICORN, "shop:app"], 2),
    "gunicorn preload": (WSGI, [*GUNICORN, "--preload", "shop:app"], 1),
    "gunicorn threads": (WSGI, [*GUNICORN, "--threads=4", "shop:app"], 2),
    "uvicorn": (ASGI, ["uvicorn", "--uds=socket", "--lifespan=off", "shop:app"], 1),
    "uvicorn workers": (
        ASGI,
        ["uvicorn", "--uds=socket", "--lifespan=off", "--workers=2", "shop:app"],
        2,
    ),
}
ORDERS = 10


class UnixConnection(http.client.HTTPConnection):
    """A connection to a socket in the file system, which no other test can have taken."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def within_patience(attempt):
    """Call *attempt* until it returns something true."""
    deadline = time.monotonic() + PATIENCE
    while not attempt():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def order(path, number):
    """Send a request; return whether somebody listens."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", f"/{number}")
        assert b"ok" == connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


@pytest.mark.parametrize("name", SERVERS)
def test_each_process_of_a_server_is_covered(server, tmp_path, name):
    """Forked or spawned, with what it logs before and after: each event once."""
    application, words, openings = SERVERS[name]
    pytest.importorskip(words[0])
    (tmp_path / "shop.py").write_text(application, "utf-8")
    (tmp_path / "hooks.py").write_text(CONFIG, "utf-8")
    (tmp_path / "rules.toml").write_text(RULES, "utf-8")
    command = command_line(sys.executable, "-m", *words, options=["--rules", "rules.toml"])
    with Program(
        None,
        server.url,
        arguments=command[1:],
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
        USERLENS_SHUTDOWN_TIMEOUT=str(PATIENCE),
    ) as program:
        for number in range(ORDERS):
            within_patience(partial(order, tmp_path / "socket", number))
        if words[0] == "gunicorn":
            within_patience(lambda: 2 == len(list(tmp_path.glob("*.ready"))))
        server.wait_for(ORDERS + openings)
        program.send_signal(signal.SIGTERM)
        status, _, error = program.finish()

    events = Counter(
        (event["event"], event.get("properties", {}).get("order")) for event in server.events
    )
    expected = Counter({("Order Placed", str(number)): 1 for number in range(ORDERS)})
    expected["Shop Opened", None] = openings
    assert expected == events, error
    # A lone uvicorn ends by the signal that it was sent.
    assert status in {0, -signal.SIGTERM}
