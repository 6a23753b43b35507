"""APScheduler: docs/hosts/apscheduler.md. It bills three times, and ends."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

import yaml
from apscheduler.schedulers.blocking import BlockingScheduler
from billing import pay


logging.config.dictConfig(yaml.safe_load(Path("logging.yaml").read_text("utf-8")))

scheduler = BlockingScheduler(timezone="UTC")
numbers = iter(range(3))


@scheduler.scheduled_job("interval", seconds=0.2, misfire_grace_time=None)
def bill() -> None:
    """Let a user pay an invoice."""
    number = next(numbers, None)
    if number is None:
        scheduler.shutdown(wait=False)
    else:
        pay(f"i-{number}", f"u-{number}")


scheduler.start()
