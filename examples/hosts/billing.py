"""What the programs in this folder do: they bill, and log what they do. Nobody edits this file."""

from __future__ import annotations

import logging


log = logging.getLogger("billing")


def pay(invoice: str, user: str) -> None:
    """Let *user* pay *invoice*."""
    log.info("Invoice %s opened by %s", invoice, user)
    log.info("Charging the card of %s", user)
    log.info("Invoice %s paid by %s in %.2f s", invoice, user, 0.25)
