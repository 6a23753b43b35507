"""
Whether a call and a delivery cost the same however much is held, and by how many users.

Ours alone, in one process, without sockets: the transport is a gate. While it
is shut everything is held; once it is open every request succeeds at once.
"""

from __future__ import annotations

import gc
import threading
import time
from importlib import import_module
from statistics import median
from typing import Any

from benchmarks import subjects
from benchmarks.measure import WARM_UP


# Longest that the gate stays shut, and longest that a flush may take, in seconds.
_PATIENCE = 60.0

# A measurement of little is repeated until it is of this many events.
_ENOUGH = 2_000

# Calls that are timed while so much is held: a tenth of it, and no more than this.
_MOST_CALLS = 2_000


class Gate:
    """A transport that answers success, once it is open."""

    def __init__(self) -> None:
        """Start open."""
        self.open = threading.Event()
        self.open.set()
        self._answer = import_module("userlens_instrument.testing").Answer(status=200)

    def send(self, path: str, body: bytes, *, timeout: float | None = None) -> Any:  # noqa: ARG002 - the protocol's
        """Answer success, as soon as the gate is open."""
        self.open.wait(_PATIENCE)
        return self._answer

    def close(self) -> None:
        """Nothing to let go of."""

    def forget(self) -> None:
        """Nothing to let go of."""


def measure(held: int, users: int, delivery: str) -> dict[str, Any]:
    """
    Return what a call and a delivery cost while *held* events of *users* users are held.

    Args:
        held: Events that wait when the calls are timed.
        users: Users among whom they are shared out.
        delivery: ``event`` or ``batch``.
    """
    package = import_module("userlens_instrument")
    options: dict[str, Any] = {"delivery": delivery} if subjects.has_batch() else {}
    settings = package.Settings(
        write_code="benchmark",
        max_queue_events=10_000_000,
        max_queue_bytes=2**32,
        # One: threads that wait for the interpreter's lock would be the noise here.
        max_workers=1,
        **options,
    )
    gate = Gate()
    client = package.Client(settings, transport=gate)
    processor = package.UserlensProcessor(client)
    clock = time.perf_counter_ns

    def make(user: str) -> int:
        fields = {
            "user_id": user,
            "userlens_event": True,
            **subjects.properties(),
            "event": subjects.EVENT,
        }
        start = clock()
        processor(None, "info", fields)
        return clock() - start

    for n in range(WARM_UP):
        make(f"user_{n % users:06}")
    client.flush(_PATIENCE)
    calls = max(50, min(_MOST_CALLS, held // 10))
    taken: list[int] = []
    cpu = 0.0
    delivered = 0
    for _ in range(max(1, _ENOUGH // (held + calls))):
        gate.open.clear()
        for n in range(held):
            make(f"user_{n % users:06}")
        # It cannot succeed, but moves what was logged to where it waits.
        client.flush(0.05)
        gc.collect()
        taken += [make(f"user_{n % users:06}") for n in range(calls)]
        before = client.stats().delivered
        start = time.process_time()
        gate.open.set()
        client.flush(_PATIENCE)
        cpu += time.process_time() - start
        delivered += client.stats().delivered - before
    client.close(_PATIENCE)
    return {
        "delivery": delivery,
        "held": held,
        "users": users,
        "call_us": median(taken) / 1000,
        "delivery_us": cpu / max(1, delivered) * 1e6,
        "delivered": delivered,
    }


def plan(*, quick: bool) -> list[tuple[int, int]]:
    """Return the pairs of held events and users to measure; *quick* leaves out the largest."""
    most = 10_000 if quick else 100_000
    by_held = [(held, 1_000) for held in (100, 1_000, 10_000, 100_000) if held <= most]
    by_users = [(most, users) for users in (1, 100_000) if users <= most]
    return by_held + by_users
