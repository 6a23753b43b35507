"""What this package promises, figure by figure, and whether a run kept it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    A bound on a figure of ours.

    Attributes:
        figure: What is bounded.
        unit: Of the bound.
        bound: The bound itself.
        at_least: Whether larger is better.
    """

    figure: str
    unit: str
    bound: float
    at_least: bool = False

    def met_by(self, value: float | None) -> bool:
        """Return whether *value* keeps the bound."""
        if value is None:
            return False
        return value >= self.bound if self.at_least else value <= self.bound

    def verdict(self, best: float | None, usual: float | None) -> str:
        """
        Return the bound and whether it is kept, for a table.

        Args:
            best: The figure of the least disturbed round.
            usual: Its median over the rounds.
        """
        bound = f"{'≥' if self.at_least else '≤'} {self.bound:g}"
        if best is None:
            return f"{bound}: not measured"
        if self.met_by(usual):
            return f"{bound}: met"
        # On a busy machine; or on a quiet one by luck.
        return f"{bound}: {'met at best' if self.met_by(best) else 'missed'}"


#: Over the floor, by name of the subject.
CALL = {
    "structlog": Target(figure="structlog call, tagged, over the floor", unit="µs", bound=2.0),
    "stdlib": Target(figure="stdlib call, tagged, over the floor", unit="µs", bound=3.0),
    "structlog-untagged": Target(
        figure="structlog call, not tagged, over the floor", unit="µs", bound=0.15
    ),
    "stdlib-untagged": Target(
        figure="stdlib call, not tagged, over the floor", unit="µs", bound=0.30
    ),
}

#: The whole call, by name of the subject.
PERCENTILE = {
    "structlog": Target(figure="structlog call, tagged, 99th percentile", unit="µs", bound=30.0),
    "stdlib": Target(figure="stdlib call, tagged, 99th percentile", unit="µs", bound=30.0),
}

#: CPU of the process, by name of the subject.
CPU = {
    "event": Target(figure="CPU per delivered event, delivery=event", unit="µs", bound=125.0),
    "batch": Target(figure="CPU per delivered event, delivery=batch", unit="µs", bound=10.0),
}

#: Against a server that takes 100 ms, by name of the subject.
THROUGHPUT = {
    "event-100ms": Target(
        figure="throughput at 100 ms, delivery=event", unit="events/s", bound=75.0, at_least=True
    ),
    "batch-100ms": Target(
        figure="throughput at 100 ms, delivery=batch",
        unit="events/s",
        bound=5_000.0,
        at_least=True,
    ),
}

#: For each arrangement.
MEMORY = Target(figure="memory per held event", unit="bytes", bound=1024.0)

#: By title of what is imported.
IMPORT = {
    "ours: import": Target(figure="import userlens_instrument", unit="ms", bound=15.0),
    "ours: first processor": Target(figure="first processor made", unit="ms", bound=40.0),
    "ours: first handler": Target(figure="first handler made", unit="ms", bound=40.0),
}
