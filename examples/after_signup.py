"""
After a sign-up: two log lines, and Userlens knows the person and the company.

    pip install -e '.[inspector]'
    python examples/after_signup.py

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


def sign_up(user_id: int, name: str, email: str, company: str) -> None:
    """Create the account, and log it; the fields of each line become the traits."""
    log.info("User Signed Up", userlens_event="identify", user_id=user_id, name=name, email=email)
    log.info(
        "Company Joined", userlens_event="group", user_id=user_id, group_id=company, plan="free"
    )


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        sign_up(42, "Ada", "ada@acme.test", "acme")
        userlens.flush()
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    expected = [
        {
            "type": "identify",
            "userId": "42",
            "source": "userlens-restapi",
            "traits": {"name": "Ada", "email": "ada@acme.test"},
        },
        {
            "type": "group",
            "groupId": "acme",
            "userId": "42",
            "source": "userlens-restapi",
            "traits": {"plan": "free"},
        },
    ]
    if arrived != expected:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
