"""
structlog on top of the standard library, one formatter for both: each event is sent once.

The processor takes what structlog logs, the handler what other libraries and
older code log; no line is taken twice, although structlog's pass the handler too.

    pip install -e '.[inspector]'
    python examples/structlog_through_stdlib.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import logging
import sys

import structlog

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer


shared = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]

structlog.configure(
    processors=[
        *shared,
        userlens.UserlensProcessor(),  # before wrap_for_formatter
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
formatter = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=shared,
    processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(),
    ],
)
console = logging.StreamHandler(sys.stdout)
console.setFormatter(formatter)
logging.basicConfig(level=logging.INFO, handlers=[console, userlens.UserlensHandler()])


def serve() -> None:
    """Log with both, for the same user, who was bound once."""
    structlog.contextvars.bind_contextvars(user_id="u-1")
    structlog.get_logger("shop").info("Cart Opened", userlens_event=True, items=3)
    logging.getLogger("legacy").info("Order Placed", extra={"userlens_event": True, "total": 99.5})


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        serve()
        userlens.flush()
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    if [(body["userId"], body["event"], body["properties"]) for body in arrived] != [
        ("u-1", "Cart Opened", {"items": 3}),
        ("u-1", "Order Placed", {"total": 99.5}),
    ]:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
