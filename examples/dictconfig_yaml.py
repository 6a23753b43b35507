"""
A service whose logging is configured in YAML: see ``logging.yaml`` beside this file.

    pip install -e '.[inspector]' pyyaml
    python examples/dictconfig_yaml.py

Offline: the events go to a local Userlens that the example starts itself.
"""

from __future__ import annotations

import json
import logging.config
import os
import sys
from pathlib import Path

import userlens_instrument as userlens
from userlens_instrument.inspector import InspectorServer


try:
    import yaml
except ImportError:
    sys.exit("this example reads YAML: pip install pyyaml")


log = logging.getLogger("shop.billing")


def pay_invoice(user_id: str, amount: float, email: str) -> None:
    """Take the money, and log it as ever; with the tag in *extra* it is an event."""
    log.info(
        "Invoice Paid",
        extra={"userlens_event": True, "user_id": user_id, "amount": amount, "email": email},
    )


def main() -> None:
    """Start as a deployment does: the environment, then the config, then the work."""
    with InspectorServer() as local:
        os.environ["USERLENS_WRITE_CODE"] = "anything"
        os.environ["USERLENS_EVENTS_URL"] = local.url  # not set for the real Userlens

        config = Path(__file__).with_name("logging.yaml").read_text("utf-8")
        logging.config.dictConfig(yaml.safe_load(config))
        pay_invoice("u-1", 40.0, "ada@acme.test")

        userlens.flush()
        (arrived,) = local.bodies()

    print("\nArrived:", json.dumps(arrived), sep="\n")
    if (arrived["event"], arrived["properties"]) != (
        "Invoice Paid",
        {"amount": 40.0, "email": "[redacted]"},
    ):
        sys.exit("that is not what should have arrived")


if __name__ == "__main__":
    main()
