"""
A change of plan: one log line becomes a track (it happened) and an identify (it is so now).

    pip install -e '.[inspector]'
    python examples/subscription_change.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import sys

import structlog

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer


log = structlog.get_logger()

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        userlens.UserlensProcessor(),  # before the renderer
        structlog.processors.JSONRenderer(),
    ]
)


def change_plan(user_id: str, old: str, new: str) -> None:
    """Charge, switch, and log it."""
    log.info(
        "Subscription Upgraded",
        userlens_event=["track", {"type": "identify", "traits": {"plan": new}}],
        user_id=user_id,
        from_plan=old,
        to_plan=new,
    )


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        change_plan("u-1", "free", "pro")
        userlens.flush()
        track, identify = local.bodies()

    print("\nArrived:", json.dumps(track), json.dumps(identify), sep="\n")
    if (track["event"], track["properties"], identify["traits"]) != (
        "Subscription Upgraded",
        {"from_plan": "free", "to_plan": "pro"},
        {"plan": "pro"},
    ):
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
