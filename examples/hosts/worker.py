"""A worker that runs until it is told to end: docs/hosts/worker.md."""

from __future__ import annotations

import logging
import logging.config
import time
from pathlib import Path

import yaml
from billing import pay


logging.config.dictConfig(yaml.safe_load(Path("logging.yaml").read_text("utf-8")))

inbox = Path("inbox")
inbox.mkdir(exist_ok=True)

while True:
    for job in sorted(inbox.glob("*.job")):
        pay(*job.read_text("utf-8").split())
        job.unlink()
    time.sleep(0.05)
