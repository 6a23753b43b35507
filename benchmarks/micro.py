"""
The parts of the hot path, one by one: ``python -m benchmarks.micro``.

For a comparison before and after a change, on one machine, within minutes:
the least of several repetitions, in nanoseconds. Unlike the rest of the
benchmarks this reaches into the package, so a part that has moved is said to
be missing, and the others are still timed.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import timeit
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks import report, subjects
from benchmarks.growth import Gate


if TYPE_CHECKING:
    from collections.abc import Callable


# Each part is timed in this many repetitions of so many calls: short ones, many
# of them, for one between two disturbances is enough.
_REPEAT, _NUMBER = 150, 500


def nanoseconds(
    call: Callable[[], object],
    floor: Callable[[], object] | None = None,
    after: Callable[[], object] = gc.collect,
) -> tuple[float, float | None]:
    """
    Return the least nanoseconds that *call* took, and that *floor* did, by turns.

    Args:
        call: What is timed.
        floor: What is needed for a call, and is no part of what is to be known.
        after: What puts everything back after each repetition, and is not timed.
    """
    timers = [timeit.Timer(found) for found in (call, floor) if found is not None]
    best = [float("inf")] * len(timers)
    for _ in range(_REPEAT):
        for place, timer in enumerate(timers):
            best[place] = min(best[place], timer.timeit(_NUMBER) / _NUMBER * 1e9)
        after()
    return best[0], best[1] if floor is not None else None


class _Bench:
    """A client whose transport is shut while calls are timed, and opened in between."""

    def __init__(self) -> None:
        package = import_module("userlens_instrument")
        self.gate = Gate()
        settings = package.Settings(
            write_code="benchmark", max_workers=1, max_queue_events=1_000_000
        )
        self.client: Any = package.Client(settings, transport=self.gate)
        self.processor = package.UserlensProcessor(self.client)
        self.handler = package.UserlensHandler(client=self.client)

    def prepare(self, call: Callable[[], object]) -> None:
        """Let *call* be known, and the one worker wait at the gate."""
        call()
        self.client.flush(10.0)
        self.gate.open.clear()
        for _ in range(10):
            call()

    def drain(self) -> None:
        """Deliver what is held, and shut the gate again behind the next."""
        self.gate.open.set()
        self.client.flush(30.0)
        self.gate.open.clear()

    def end(self) -> None:
        """Deliver what is held, and take no more."""
        self.gate.open.set()
        self.client.close(30.0)


def _fields(*, tagged: bool) -> dict[str, Any]:
    tag = {"userlens_event": True} if tagged else {}
    return {"user_id": "user_0001", **tag, **subjects.properties(), "event": subjects.EVENT}


def processor(*, tagged: bool) -> tuple[float, float | None]:
    """Time the processor, given a fresh event dict; the floor gives it to one that does nothing."""
    bench, fields = _Bench(), _fields(tagged=tagged)
    take = bench.processor

    def call() -> None:
        take(None, "info", fields.copy())

    def floor() -> None:
        subjects.hand_on(None, "info", fields.copy())

    bench.prepare(call)
    found = nanoseconds(call, floor, bench.drain)
    bench.end()
    return found


def handler() -> tuple[float, float | None]:
    """Time a log call with the handler; the floor is the call with logging's own null handler."""
    bench = _Bench()
    ours = partial(subjects.stdlib_call(bench.handler, tagged=True), 1)
    floor = partial(subjects.stdlib_floor(tagged=True), 1)
    bench.prepare(ours)
    found = nanoseconds(ours, floor, bench.drain)
    bench.end()
    return found


def untagged_handler() -> tuple[float, float | None]:
    """Time the handler alone on a record without a tag; the floor is logging's null handler."""
    bench = _Bench()
    record = logging.makeLogRecord({"msg": subjects.EVENT, **_fields(tagged=False)})
    null = logging.NullHandler()
    found = nanoseconds(lambda: bench.handler.handle(record), lambda: null.handle(record))
    bench.end()
    return found


def track() -> tuple[float, float | None]:
    """Time ``Client.track()``; the floor is a function that does nothing."""
    bench = _Bench()
    take = bench.client.track

    def call() -> None:
        take("user_0001", subjects.EVENT, subjects.properties())

    bench.prepare(call)
    found = nanoseconds(call, partial(subjects.function_floor(), 1), bench.drain)
    bench.end()
    return found


def encode() -> tuple[float, float | None]:
    """Time the encoder on one track, and the body that is put together later."""
    package = import_module("userlens_instrument")
    encoder = import_module("userlens_instrument._core.encode").Encoder(
        package.Settings(write_code="benchmark")
    )
    event = package.Track("user_0001", subjects.EVENT, subjects.properties(), 1_795_000_000.0)
    return nanoseconds(lambda: encoder.encode(event).payload.body)


def schedule() -> tuple[float, float | None]:
    """Time an event's way through the schedule: added, next, settled."""
    module = import_module("userlens_instrument._core.schedule")
    outcome = import_module("userlens_instrument._core.outcome")
    payload = import_module("userlens_instrument._core.encode").TrackPayload(
        "user_0001", subjects.EVENT, b'"to_plan":"pro"', None
    )
    waits = outcome.Waits(base=0.5, cap=30.0, retry_after_cap=600.0, probe_interval=60.0)
    plan = module.Schedule(module.Policy(waits=waits, max_attempts=10, retry_for=86_400.0))
    answer = outcome.Answer(status=200)

    def call() -> None:
        plan.add(payload, 1.0)
        attempt = plan.next(1.0)
        plan.settle(attempt, answer, now=1.0, wall=1.0, draw=lambda: 0.5)

    call()
    return nanoseconds(call)


PARTS: tuple[tuple[str, Callable[[], tuple[float, float | None]]], ...] = (
    ("processor, tagged", partial(processor, tagged=True)),
    ("processor, not tagged", partial(processor, tagged=False)),
    ("log call with handler, tagged", handler),
    ("handler, not tagged", untagged_handler),
    ("Client.track()", track),
    ("encode one track, and its body", encode),
    ("schedule: add, next, settle", schedule),
)


def main() -> None:
    """Time every part, and print a table."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.micro", description="Time each part of a tagged log call."
    ).parse_args()
    # So many events a minute are worth a warning, elsewhere.
    logging.getLogger("userlens_instrument").addHandler(logging.NullHandler())
    rows = []
    for title, measure in PARTS:
        try:
            taken, floor = measure()
        except (AttributeError, ImportError, TypeError) as error:
            rows.append([title, "missing", "", str(error)[:60]])
            continue
        over = None if floor is None else taken - floor
        rows.append([title, report.number(taken, 0), report.number(over, 0), ""])
    note = f"{report.python_version()}; ns, the least of {_REPEAT} repetitions of {_NUMBER:,} calls"
    headers = ("", "ns", "over the floor", "")
    sys.stdout.write(report.table("The hot path", note, headers, rows))


if __name__ == "__main__":
    main()
