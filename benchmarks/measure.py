"""What is measured in a process of the subject's own: calls, delivery, memory."""

from __future__ import annotations

import gc
import logging
import socket
import time
import tracemalloc
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import subjects


if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.sink import Sink
    from benchmarks.subjects import Subject


# Calls before any that counts: imports, threads and connections are paid for once.
WARM_UP = 50

# Blocks in which the floor and a call that costs next to nothing take turns:
# a clock rate that changes in between meets both.
_TURNS = 10


def burst(call: Callable[[int], object], count: int) -> list[int]:
    """Make *count* calls one after the other; return what each took, in nanoseconds."""
    clock = time.perf_counter_ns
    taken = []
    for n in range(count):
        start = clock()
        call(n)
        taken.append(clock() - start)
    return taken


def percentile(values: list[int], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not pass."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))])


def calls(subject: Subject, sink: Sink, count: int) -> dict[str, Any]:
    """
    Return what a call costs, and what the same call costs with nothing behind it.

    Times are in microseconds; those of the caller's thread, while the subject's
    own threads deliver.
    """
    floor_call = subject.floor()
    burst(floor_call, WARM_UP)
    # Before the subject is set up: some of them patch what the floor goes through.
    floors = [burst(floor_call, max(count, 1_000))]
    running = subject.start(sink.url)
    burst(running.call, WARM_UP)
    running.flush()
    sink.settled(0 if subject.quiet else WARM_UP)
    sink.reset()
    gc.collect()
    if subject.quiet:
        given = 0
        floors, taken = _in_turns(floor_call, running.call, count)
    else:
        given = count
        taken = burst(running.call, count)
    running.flush()
    delivered = sink.settled(given).events
    if not subject.quiet and not subject.patches:
        # Once more: other work may have come or gone on this machine.
        floors.append(burst(floor_call, max(count, 1_000)))
    return {
        "floor_us": min(median(times) for times in floors) / 1000,
        "floor_p99_us": min(percentile(times, 99) for times in floors) / 1000,
        "median_us": median(taken) / 1000,
        "p99_us": percentile(taken, 99) / 1000,
        "max_us": max(taken) / 1000,
        "calls": count,
        "given": given,
        "delivered": delivered,
    }


def _in_turns(
    floor_call: Callable[[int], object], call: Callable[[int], object], count: int
) -> tuple[list[list[int]], list[int]]:
    """Return the times of the floor, as one list of lists, and of *call*, made by turns."""
    floors: list[int] = []
    taken: list[int] = []
    for _ in range(_TURNS):
        floors += burst(floor_call, count // _TURNS)
        taken += burst(call, count // _TURNS)
    return [floors], taken


def delivery(subject: Subject, sink: Sink, count: int, latency: float) -> dict[str, Any]:
    """
    Return what delivering *count* events cost the whole process.

    Args:
        subject: Who delivers.
        sink: To whom.
        count: How many events.
        latency: How long the sink takes to answer, in seconds.
    """
    floor_call = subject.floor()
    burst(floor_call, WARM_UP)
    before = time.process_time()
    for n in range(count):
        floor_call(n)
    floor = time.process_time() - before
    running = subject.start(sink.url)
    burst(running.call, WARM_UP)
    running.flush()
    sink.settled(WARM_UP)
    sink.reset(latency)
    gc.collect()
    start = time.monotonic()
    before = time.process_time()
    for n in range(count):
        running.call(n)
    made = time.monotonic() - start
    running.flush()
    # Some clients return from a flush before everything has arrived. What
    # watching the sink costs this thread is not the subject's.
    watching = time.thread_time()
    found = sink.settled(count)
    watched = time.thread_time() - watching
    cpu = time.process_time() - before - watched
    delivered = found.events
    return {
        "given": count,
        "delivered": delivered,
        "requests": found.requests,
        "bytes": found.size,
        "latency_s": latency,
        "made_s": made,
        "cpu_s": cpu,
        "floor_cpu_s": floor,
        "cpu_us": cpu / delivered * 1e6 if delivered else None,
        "floor_cpu_us": floor / count * 1e6,
        "wall_s": max(found.last - start, 1e-6),
        "per_s": delivered / max(found.last - start, 1e-6),
    }


def memory(entrance: str, users: int, count: int) -> dict[str, Any]:
    """
    Return how much memory each of *count* held events takes.

    They are held because nobody listens where they are to go. Everything that
    was allocated since before the first of them counts, whatever it is for.
    """
    client = subjects.our_client(_nowhere(), max_queue_events=count + 1_000)
    make = _memory_call(entrance, client)
    for _ in range(WARM_UP):
        make("warm-up")
    client.flush(0.1)
    held_before = client.stats().pending
    bytes_before = client.stats().pending_bytes
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(count):
        # A new text each time, as an application has it from a request: it counts.
        make(f"user_{n % users:06}")
    gc.collect()
    fresh = tracemalloc.get_traced_memory()[0] - before
    # A flush that cannot succeed: it moves what was logged to where it waits.
    client.flush(0.5)
    gc.collect()
    settled = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    stats = client.stats()
    held = stats.pending - held_before
    return {
        "entrance": entrance,
        "users": users,
        "held": held,
        "body_bytes": (stats.pending_bytes - bytes_before) / held,
        "fresh_bytes": fresh / held,
        "settled_bytes": settled / held,
    }


def _memory_call(entrance: str, client: Any) -> Callable[[str], object]:
    """Return a call that makes an event of a user that it is given, by *entrance*."""
    package = import_module("userlens_instrument")
    if entrance == "structlog":
        processor = package.UserlensProcessor(client)
        return lambda user: processor(
            None,
            "info",
            {
                "user_id": user,
                "userlens_event": True,
                **subjects.properties(),
                "event": subjects.EVENT,
            },
        )
    log = logging.Logger("shop.billing", logging.INFO)  # noqa: LOG001 - outside of the tree
    log.addHandler(package.UserlensHandler(client=client))
    return lambda user: log.info(
        subjects.EVENT, extra={"user_id": user, "userlens_event": True, **subjects.properties()}
    )


def _nowhere() -> str:
    """Return the URL of a loopback port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
