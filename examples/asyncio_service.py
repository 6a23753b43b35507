"""
An asyncio service: the user is bound once a request, and `ainfo` works like `info`.

    pip install -e '.[inspector]'
    python examples/asyncio_service.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import asyncio
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


async def handle(user_id: str, pages: list[str]) -> None:
    """Serve one user; what is bound in one task is not seen by another."""
    structlog.contextvars.bind_contextvars(user_id=user_id)
    for page in pages:
        await log.ainfo("Page Opened", userlens_event=True, page=page)
    log.info("Visit Ended", userlens_event=True, pages=len(pages))


async def serve() -> None:
    """Serve three users at the same time."""
    await asyncio.gather(
        handle("u-1", ["home", "pricing"]),
        handle("u-2", ["docs", "docs/install", "docs/first-event"]),
        handle("u-3", ["status"]),
    )
    # In a thread, because it waits; logging itself never does.
    await asyncio.to_thread(userlens.flush)


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        asyncio.run(serve())
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    pages = [body["properties"].get("page") for body in arrived if body["userId"] == "u-2"]
    if len(arrived) != 9 or pages != ["docs", "docs/install", "docs/first-event", None]:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
