"""
A program that knows nothing of Userlens, started by the wrapper: its lines become events.

    pip install -e '.[inspector]'
    python examples/code_untouched.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from userlens_instrument.inspector import InspectorServer


# Somebody else's, and not to be touched.
PROGRAM = """
import logging
import sys

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
log = logging.getLogger("billing.invoices")

for invoice, user in (("i-1", "u-1"), ("i-2", "u-2")):
    log.info("Opening %s", invoice)
    log.info("Invoice %s paid by %s", invoice, user)
"""

RULES = """
[[rule]]
logger = "billing.*"
message = "Invoice %s paid by %s"
args = ["invoice", "user_id"]
event = "Invoice Paid"
"""


def run(*command: str, url: str) -> str:
    """Run *command*, which delivers to *url*; return all that it prints."""
    environ = {**os.environ, "USERLENS_WRITE_CODE": "anything", "USERLENS_EVENTS_URL": url}
    done = subprocess.run(  # noqa: S603 - this file's own
        command, env=environ, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def main() -> None:
    """Run the program without the wrapper and with it."""
    program = [sys.executable, "-c", PROGRAM]
    wrapper = [sys.executable, "-m", "userlens_instrument", "run"]
    with tempfile.TemporaryDirectory() as folder, InspectorServer() as local:
        rules = Path(folder, "userlens.toml")
        rules.write_text(RULES, "utf-8")
        plain = run(*program, url=local.url)
        wrapped = run(*wrapper, "--rules", str(rules), "--", *program, url=local.url)
        arrived = local.bodies()

    print(wrapped)
    print("Arrived:", *map(json.dumps, arrived), sep="\n")
    if plain != wrapped:
        sys.exit("that is not what it prints without the wrapper")
    if {(body["event"], body["userId"], body["properties"]["invoice"]) for body in arrived} != {
        ("Invoice Paid", "u-1", "i-1"),
        ("Invoice Paid", "u-2", "i-2"),
    }:
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
