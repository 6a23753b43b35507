"""
OpenTelemetry's log records become events; its own exporters get them as ever.

What goes through OpenTelemetry's handler, and what a program gives OpenTelemetry
itself, is taken by a log record processor beside the others.

    pip install -e '.[inspector]' opentelemetry-sdk opentelemetry-instrumentation-logging
    python examples/opentelemetry_logs.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import logging
import sys

from opentelemetry._logs import LogRecord
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor


exporter = ConsoleLogRecordExporter(
    formatter=lambda record: f"exported: {record.log_record.body!r}\n"
)
provider = LoggerProvider()
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
provider.add_log_record_processor(UserlensLogRecordProcessor())
logging.basicConfig(level=logging.INFO, handlers=[LoggingHandler(logger_provider=provider)])


def serve() -> None:
    """Log one line with `logging` and one with OpenTelemetry."""
    logging.getLogger("export").info(
        "Exported %d rows", 5, extra={"userlens_event": True, "user_id": "u-1", "format": "pdf"}
    )
    order = LogRecord(
        body="Order Placed",
        attributes={"userlens_event": True, "user.id": "u-1", "total": 99.5},
    )
    provider.get_logger("shop").emit(order)
    logging.getLogger("shop").info("not an event")


def main() -> None:
    """Deliver to a local Userlens; for the real one: no *events_url*, and your write code."""
    with InspectorServer() as local:
        userlens.configure(write_code="anything", events_url=local.url)
        serve()
        provider.force_flush()
        arrived = local.bodies()

    print("\nArrived:", *map(json.dumps, arrived), sep="\n")
    if [(body["userId"], body["event"], body["properties"]) for body in arrived] != [
        ("u-1", "Exported %d rows", {"format": "pdf"}),
        ("u-1", "Order Placed", {"total": 99.5}),
    ]:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
