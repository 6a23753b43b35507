"""Pools of processes: docs/hosts/multiprocessing.md."""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml
from billing import pay


logging.config.dictConfig(yaml.safe_load(Path("logging.yaml").read_text("utf-8")))


def bill(number: int) -> None:
    """Let a user pay an invoice."""
    pay(f"i-{number}", f"u-{number}")


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    bill(0)
    with context.Pool(2) as pool:
        pool.map(bill, range(1, 6))
        # Without these two, the end of the block kills the processes.
        pool.close()
        pool.join()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(bill, range(6, 11)))
