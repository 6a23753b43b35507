"""A Celery application: docs/hosts/celery.md. Its broker is a folder, to need no server."""

from __future__ import annotations

import logging
import logging.config
import sys
from pathlib import Path

import yaml
from billing import pay
from celery import Celery


logging.config.dictConfig(yaml.safe_load(Path("logging.yaml").read_text("utf-8")))

app = Celery("shop", broker="filesystem://")
app.conf.task_ignore_result = True
app.conf.broker_transport_options = {
    "data_folder_in": "queue",
    "data_folder_out": "queue",
    "control_folder": "queue",
    "polling_interval": 0.05,
}
Path("queue").mkdir(exist_ok=True)


@app.task(name="bill")
def bill(number: int) -> None:
    """Let a user pay an invoice."""
    pay(f"i-{number}", f"u-{number}")


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        bill.delay(each)
