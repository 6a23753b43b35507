"""FastAPI, to be run by uvicorn: docs/hosts/fastapi.md."""

from __future__ import annotations

import logging

from billing import pay
from fastapi import FastAPI


logging.basicConfig(level=logging.INFO)

app = FastAPI()


@app.post("/pay/{invoice}/{user}")
async def pay_invoice(invoice: str, user: str) -> str:
    """Take the money."""
    pay(invoice, user)
    return "paid"
