"""Flask, to be run by gunicorn: docs/hosts/flask.md."""

from __future__ import annotations

import logging

from billing import pay
from flask import Flask


logging.basicConfig(level=logging.INFO)

app = Flask(__name__)


@app.post("/pay/<invoice>/<user>")
def pay_invoice(invoice: str, user: str) -> str:
    """Take the money."""
    pay(invoice, user)
    return "paid\n"
