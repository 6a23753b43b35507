"""What metrics tell, once for every system of metrics: names, units, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from userlens_instrument._core.outcome import (
    Delivered,
    EndpointDown,
    Refused,
    RetryLater,
    Waits,
    classify,
)
from userlens_instrument.client import registry, stats


if TYPE_CHECKING:
    from collections.abc import Mapping

    from userlens_instrument._core.outcome import Answer
    from userlens_instrument._delivery.stats import Stats


#: Why nothing may be sent at the moment: the values of `Stats.held_back`.
HELD_BACK = ("unavailable", "unauthorized", "redirect", "tls")

#: Upper bounds of the buckets of a request's duration, in seconds: those that
#: OpenTelemetry's semantic conventions give for HTTP clients.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

DURATION = "userlens.request.duration"
DURATION_MEANS = "Time from the start of a request to its answer, or its failure"


class Snapshot(NamedTuple):
    """
    Everything that is told, of one moment.

    Attributes:
        stats: What became of every event of this process.
        oldest: The age of the oldest event that is held, in seconds; 0.0 if none is.
    """

    stats: Stats
    oldest: float

    @classmethod
    def take(cls) -> Snapshot:
        """Return that of this moment, over every client of this process."""
        ages = [client.oldest_age() for client in list(registry.clients.values())]
        return cls(stats(), max(ages, default=0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """
    One metric.

    Attributes:
        name: As OpenTelemetry has it.
        kind: ``counter`` only grows in a process; ``updowncounter`` adds up over
            processes; ``gauge`` does not.
        unit: In UCUM, as OpenTelemetry has it.
        means: What it tells.
        field: The field of `Stats`; empty for the age of the oldest event.
        by_reason: Whether there is a number for each reason.
    """

    name: str
    kind: Literal["counter", "updowncounter", "gauge"]
    unit: str
    means: str
    field: str
    by_reason: bool = False

    @property
    def prometheus_name(self) -> str:
        """The name that OpenTelemetry's own way to Prometheus gives it."""
        ending = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        total = "_total" if self.kind == "counter" else ""
        return self.name.replace(".", "_") + ending + total

    def read(self, snapshot: Snapshot) -> Mapping[str, float]:
        """Return the number for each reason; for the reason ``""`` if there are none."""
        if not self.field:
            return {"": snapshot.oldest}
        value = getattr(snapshot.stats, self.field)
        if self.field == "held_back":
            return {reason: float(reason == value) for reason in HELD_BACK}
        return value if self.by_reason else {"": value}


def _counter(name: str, unit: str, field: str, means: str, *, by_reason: bool = False) -> Figure:
    return Figure(
        name=name, kind="counter", unit=unit, field=field, means=means, by_reason=by_reason
    )


def _level(name: str, unit: str, field: str, means: str) -> Figure:
    return Figure(name=name, kind="updowncounter", unit=unit, field=field, means=means)


FIGURES = (
    _counter("userlens.events.accepted", "{event}", "accepted", "Valid events handed over"),
    _counter("userlens.events.delivered", "{event}", "delivered", "Events that have arrived"),
    _counter(
        "userlens.events.refused",
        "{event}",
        "refused",
        "Events that Userlens will never take",
        by_reason=True,
    ),
    _counter(
        "userlens.events.dropped",
        "{event}",
        "dropped",
        "Events lost on this side",
        by_reason=True,
    ),
    _counter(
        "userlens.events.sampled", "{event}", "sampled", "Events that a rule's sample left out"
    ),
    _level("userlens.events.pending", "{event}", "pending", "Events held, or on their way"),
    Figure(
        name="userlens.events.oldest.age",
        kind="gauge",
        unit="s",
        field="",
        means="Age of the oldest event held",
    ),
    _level("userlens.buffer.size", "By", "pending_bytes", "Size of the events held in memory"),
    _level(
        "userlens.events.spooled",
        "{event}",
        "spooled",
        "Events in the spool for another process to deliver",
    ),
    _level(
        "userlens.events.recovered",
        "{event}",
        "recovered",
        "Events of other processes taken out of the spool",
    ),
    _counter(
        "userlens.events.unspooled",
        "{event}",
        "unspooled",
        "Events in memory alone, though there is a spool",
    ),
    _counter("userlens.requests.retried", "{request}", "retried", "Requests to be made again"),
    _counter(
        "userlens.records.invalid",
        "{record}",
        "invalid",
        "Tagged records that were no events",
        by_reason=True,
    ),
    _counter(
        "userlens.records.duplicate",
        "{record}",
        "duplicates",
        "Records that met a second entrance",
    ),
    _counter("userlens.values.cut", "{value}", "cut", "Values shortened or left out"),
    _counter("userlens.values.redacted", "{value}", "redacted", "Values hidden for their names"),
    _level("userlens.workers.active", "{thread}", "threads", "Sender threads alive"),
    _counter(
        "userlens.workers.failed",
        "{thread}",
        "workers_failed",
        "Sender threads that failed",
        by_reason=True,
    ),
    Figure(
        name="userlens.delivery.held_back",
        kind="gauge",
        unit="{state}",
        field="held_back",
        means="Whether nothing is sent at the moment: 1 for the reason",
        by_reason=True,
    ),
)

# When to try again is not told here.
_NO_WAITS = Waits(base=0.0, cap=0.0, retry_after_cap=0.0, probe_interval=0.0)

OUTCOMES = {
    Delivered: "delivered",
    Refused: "refused",
    RetryLater: "retry_later",
    EndpointDown: "endpoint_down",
}


def outcome_of(answer: Answer) -> str:
    """Return what came of a request, in a word of `OUTCOMES`."""
    outcome = classify(answer, attempt=1, now=0.0, wall=0.0, draw=lambda: 0.0, waits=_NO_WAITS)
    return OUTCOMES[type(outcome)]
