"""An asyncio service that logs by structlog through logging: docs/hosts/asyncio.md."""

from __future__ import annotations

import asyncio
import logging.config
import signal
from pathlib import Path

import structlog
import yaml


logging.config.dictConfig(yaml.safe_load(Path("logging.yaml").read_text("utf-8")))
processors = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]
structlog.configure(
    processors=processors,
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
log = structlog.get_logger("billing")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a user pay an invoice: a connection each."""
    invoice, user = (await reader.readline()).decode().split()
    with structlog.contextvars.bound_contextvars(user_id=user):
        log.info("Invoice opened", invoice=invoice)
        await asyncio.sleep(0)
        log.info("Charging the card")
        log.info("Invoice paid", invoice=invoice, seconds=0.25)
    writer.write(b"paid\n")
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with await asyncio.start_unix_server(serve, "socket"):
        await stopped.wait()


asyncio.run(main())
