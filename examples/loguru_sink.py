"""
A service that logs with loguru: one sink more, and its tagged lines are events.

    pip install -e '.[inspector]' loguru
    python examples/loguru_sink.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import sys

from loguru import logger

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer
from userlens_instrument.integrations.loguru import sink


logger.remove()
logger.add(sys.stdout, format="{level} {message}")  # the service's own, as ever
logger.add(sink)


def export(user_id: str, rows: int) -> None:
    """Write the report, and log that it is done."""
    with logger.contextualize(user_id=user_id):
        logger.info("export of {} rows starts", rows)  # not tagged: stays a log line
        # The name is the template: no event of its own for each number.
        logger.info("Exported {rows} rows", rows=rows, userlens_event=True)


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        export("u-1", 1200)
        # The exit of the interpreter does this as well, within its own deadline.
        userlens.flush(timeout=5.0)
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    if [(body["event"], body["userId"], body["properties"]) for body in arrived] != [
        ("Exported {rows} rows", "u-1", {"rows": 1200}),
    ]:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
