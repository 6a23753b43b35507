"""
A background job, in a plain worker with the standard library's logging: no structlog, no framework.

    pip install -e '.[inspector]'
    python examples/background_job.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer


log = logging.getLogger("worker")

console = logging.StreamHandler(sys.stdout)
logging.basicConfig(level=logging.INFO, handlers=[console, userlens.UserlensHandler()])


def export(user_id: str, rows: int) -> None:
    """Write the report, and log that it is done."""
    log.info("export of %d rows starts", rows)  # not tagged: stays a log line
    log.info(
        "Exported %d rows",
        rows,
        # A name of its own: the message would be another event for each wording.
        extra={"userlens_event": "Report Exported", "user_id": user_id, "rows": rows},
    )


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        with ThreadPoolExecutor() as workers:
            for user_id, rows in (("u-1", 1200), ("u-2", 7), ("u-3", 88)):
                workers.submit(export, user_id, rows)
        # The exit of the interpreter does this as well, within its own deadline.
        userlens.flush(timeout=5.0)
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    # Different users are delivered side by side, so in any order.
    if {(body["event"], body["userId"], body["properties"]["rows"]) for body in arrived} != {
        ("Report Exported", "u-1", 1200),
        ("Report Exported", "u-2", 7),
        ("Report Exported", "u-3", 88),
    }:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
