"""
A worker is killed while Userlens is down: with a spool, the next one delivers what it had logged.

    pip install -e '.[inspector]'
    python examples/crash_and_spool.py

Offline: the events go to a local Userlens that the example starts itself, once
the worker is dead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer


# What runs in the worker. Nobody listens on port 9 (RFC 863) here.
WORKER = """
import logging, os, signal
import userlens_instrument as userlens

logging.basicConfig(handlers=[userlens.UserlensHandler()], level=logging.INFO)
for number in range(5):
    extra = {"userlens_event": "Report Exported", "user_id": "u-1", "number": number}
    logging.info("exported report %d", number, extra=extra)
os.kill(os.getpid(), signal.SIGKILL)
"""


def main() -> None:
    """Kill a worker, and look what arrives from the next."""
    with tempfile.TemporaryDirectory() as folder, InspectorServer() as local:
        spool = Path(folder, "userlens.db")
        settings = {
            "USERLENS_WRITE_CODE": "anything",
            "USERLENS_EVENTS_URL": "http://127.0.0.1:9",
            "USERLENS_SPOOL": str(spool),
        }
        worker = subprocess.run(  # noqa: S603 - the text above
            [sys.executable, "-c", WORKER], env={**os.environ, **settings}, check=False
        )
        print(f"The worker was killed: {worker.returncode == -signal.SIGKILL}.")
        print(f"Nothing has arrived yet: {not local.bodies()}.")

        client = userlens.configure(write_code="anything", events_url=local.url, spool=spool)
        userlens.track("u-2", "Worker Started")
        delivered = client.drain(timeout=30.0)
        stats = userlens.stats()
        print(f"The next one delivered {stats.delivered} events,", end=" ")
        print(f"{stats.recovered} of them the dead one's.")
        numbers = [
            body["properties"]["number"] for body in local.bodies() if body["userId"] == "u-1"
        ]
        print("They arrived in the order of the log calls:", numbers)
        userlens.shutdown()
    if not delivered or numbers != list(range(5)):
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
