"""
The parts of the hot path, one by one: ``python -m benchmarks.micro``, by pyperf.

For a comparison before and after a change, on one machine, within minutes:

    python -m benchmarks.micro --fast -o before.json
    python -m benchmarks.micro --fast -o after.json
    python -m pyperf compare_to before.json after.json

``--help`` tells the rest. Unlike the other benchmarks this reaches into the package.
"""

from __future__ import annotations

import logging
import sys
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks import subjects
from benchmarks.growth import Gate


if TYPE_CHECKING:
    from collections.abc import Callable


# Calls that are timed before what they have left behind is cleared away.
_MOST = 20_000


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
        self.gate.open.set()
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


class _Part:
    """
    A call to time, and what it needs around it.

    Args:
        call: What is timed.
        bench: Whose client it gives events to, if to any.
    """

    def __init__(self, call: Callable[[], object], bench: _Bench | None = None) -> None:
        """Take both over."""
        self.call = call
        self.bench = bench


def _take(loops: int, make: Callable[[], _Part]) -> float:
    """Return the seconds that *loops* calls of a part take, in pyperf's own process."""
    part = make()
    call, bench = part.call, part.bench
    taken, left = 0.0, loops
    while left:
        if bench is not None:
            bench.prepare(call)
        some = range(min(left, _MOST))
        left -= len(some)
        started = time.perf_counter()
        for _ in some:
            call()
        taken += time.perf_counter() - started
        if bench is not None:
            bench.drain()
    if bench is not None:
        bench.end()
    return taken


def _processor(*, tagged: bool) -> _Part:
    bench, fields = _Bench(), _fields(tagged=tagged)
    take = bench.processor
    return _Part(lambda: take(None, "info", fields.copy()), bench)


def _no_processor() -> _Part:
    fields = _fields(tagged=True)
    return _Part(lambda: subjects.hand_on(None, "info", fields.copy()))


def _log_call() -> _Part:
    bench = _Bench()
    return _Part(partial(subjects.stdlib_call(bench.handler, tagged=True), 1), bench)


def _no_handler() -> _Part:
    return _Part(partial(subjects.stdlib_floor(tagged=True), 1))


def _untagged_record() -> _Part:
    bench = _Bench()
    record = logging.makeLogRecord({"msg": subjects.EVENT, **_fields(tagged=False)})
    return _Part(lambda: bench.handler.handle(record), bench)


def _track() -> _Part:
    bench = _Bench()
    take = bench.client.track
    return _Part(lambda: take("user_0001", subjects.EVENT, subjects.properties()), bench)


def _encode() -> _Part:
    package = import_module("userlens_instrument")
    encoder = import_module("userlens_instrument._core.encode").Encoder(
        package.Settings(write_code="benchmark")
    )
    event = package.Track("user_0001", subjects.EVENT, subjects.properties(), 1_795_000_000.0)
    return _Part(lambda: encoder.encode(event).payload.body)


def _schedule() -> _Part:
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

    return _Part(call)


PARTS: tuple[tuple[str, Callable[[], _Part]], ...] = (
    ("floor: a processor that does nothing", _no_processor),
    ("processor, tagged", partial(_processor, tagged=True)),
    ("processor, not tagged", partial(_processor, tagged=False)),
    ("floor: log call, a handler that does nothing", _no_handler),
    ("log call with handler, tagged", _log_call),
    ("handler, not tagged", _untagged_record),
    ("Client.track()", _track),
    ("encode one track, and its body", _encode),
    ("schedule: add, next, settle", _schedule),
)


def main() -> None:
    """Time every part, as pyperf does it."""
    if find_spec("pyperf") is None:
        sys.stderr.write("python -m benchmarks.micro: install pyperf (the group bench has it)\n")
        sys.exit(2)
    # So many events a minute are worth a warning, elsewhere.
    logging.getLogger("userlens_instrument").addHandler(logging.NullHandler())
    runner = import_module("pyperf").Runner(program_args=("-m", "benchmarks.micro"))
    for title, make in PARTS:
        runner.bench_time_func(title, _take, make)


if __name__ == "__main__":
    main()
