"""
Userlens is down for a while: the service goes on, nothing is lost, each user's order holds.

    pip install -e '.[inspector]'
    python examples/outage_and_recovery.py

Offline: the events go to a local Userlens that the example starts itself, and
that fails as it is told.
"""

from __future__ import annotations

import logging
import sys

import userlens_instrument as userlens
from userlens_instrument.inspector import Fault, InspectorServer


log = logging.getLogger("shop")

console = logging.StreamHandler(sys.stdout)
logging.basicConfig(level=logging.INFO, handlers=[console, userlens.UserlensHandler()])

USERS = ("u-1", "u-2", "u-3")
STEPS = ["Cart Opened", "Address Entered", "Order Placed", "Order Paid"]


def show_stats(when: str) -> None:
    """Print what became of the events so far."""
    stats = userlens.stats()
    print(
        f"\n{when}: {stats.accepted} accepted, {stats.delivered} delivered, "
        f"{stats.retried} attempts tried again, {stats.pending} still held, "
        f"{sum(stats.dropped.values())} dropped.\n"
    )


def main() -> None:
    """Log through an outage, and look what arrived."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url, backoff_base=0.05)
        local.store.add_faults(
            Fault(status=503, retry_after="1", count=2),  # a gateway that asks for a second
            Fault(status=500, count=3),
            Fault(drop=True),  # a connection that breaks
        )
        for event in STEPS:
            for user_id in USERS:
                log.info(event, extra={"userlens_event": True, "user_id": user_id})

        show_stats("After the last log line")
        all_delivered = userlens.flush(timeout=30.0)
        show_stats("After flush()")
        arrived = local.bodies()

    for user_id in USERS:
        events = [body["event"] for body in arrived if body["userId"] == user_id]
        print(user_id, "->", ", ".join(events))
        if events != STEPS:
            sys.exit("that is not what should have arrived")
    if not all_delivered:
        sys.exit("flush() gave up")


if __name__ == "__main__":
    main()
