"""For the type checker alone: the public API as a user types it."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

import userlens_instrument as userlens
from userlens_instrument.testing import Answer, CapturingTransport, FakeClock


if TYPE_CHECKING:
    from collections.abc import Mapping


def on_error(loss: userlens.Loss) -> None:
    """Take every field of a loss."""
    reason: str = loss.reason
    problem: str = loss.problem
    status: int | None = loss.status
    body: bytes | None = loss.body
    logging.getLogger("app").warning("%s %s %s %s", reason, problem, status, body)


client: userlens.Client = userlens.configure(write_code="x", max_workers=2, on_error=on_error)
client = userlens.configure("x")

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        userlens.UserlensProcessor(),
        userlens.UserlensProcessor(client, tag="event_tag", keep_tag=True),
        structlog.processors.JSONRenderer(),
    ]
)
handler: logging.Handler = userlens.UserlensHandler()
handler = userlens.UserlensHandler(logging.INFO, client=client, tag="x")
handler = userlens.UserlensHandler("INFO", write_code="x", max_queue_events=5)

userlens.track("u1", "Plan Upgraded", {"plan": "pro"}, timestamp=datetime.now(timezone.utc))
userlens.track(7, "Plan Upgraded", timestamp=1_700_000_000.0)
userlens.identify(uuid4(), {"plan": "pro"})
userlens.group("g", "u1", timestamp="2026-01-02T03:04:05Z")
userlens.group("g", "u1", {"name": "Acme"})

flushed: bool = userlens.flush()
flushed = userlens.flush(timeout=1.0)
closed: bool = userlens.shutdown(timeout=2.5)

stats: userlens.Stats = userlens.stats()
delivered: int = stats.delivered
dropped: Mapping[str, int] = stats.dropped

tagged: list[userlens.Track | userlens.Identify | userlens.Group] = [
    userlens.Track("u1", "Plan Upgraded", {"a": 1}),
    userlens.Identify("u1", {"plan": "pro"}),
    userlens.Group("g", "u1"),
]
settings = userlens.Settings(write_code="x", redact=("iban",), allow=None)
transport = CapturingTransport(lambda body: Answer(status=200 if body else 400))
with userlens.Client(settings, transport=transport, clock=FakeClock()) as mine:
    mine.track("u1", "Event")
    assert mine.flush(1.0)
    drained: bool = mine.drain(1.0)

try:
    userlens.configure(max_workers=0)
except userlens.SettingsError as error:
    fix: str = error.fix
except userlens.UserlensError:
    raise

userlens.track(None, "Event")  # type: ignore[arg-type]  # a user there must be
userlens.flush("soon")  # type: ignore[arg-type]  # a timeout is a number
