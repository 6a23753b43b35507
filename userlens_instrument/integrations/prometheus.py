"""
What became of every event, for Prometheus.

.. code-block:: python

    from prometheus_client import REGISTRY
    from userlens_instrument.integrations.prometheus import UserlensCollector

    REGISTRY.register(UserlensCollector())
"""

from __future__ import annotations

from bisect import bisect_left
from importlib import import_module
from typing import TYPE_CHECKING, Any

from userlens_instrument._delivery import lifecycle
from userlens_instrument._delivery.sender import request_watchers
from userlens_instrument._delivery.stats import Ledger
from userlens_instrument.exceptions import MissingExtraError
from userlens_instrument.integrations.figures import (
    BUCKETS,
    DURATION,
    DURATION_MEANS,
    FIGURES,
    OUTCOMES,
    Snapshot,
    outcome_of,
)


if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from userlens_instrument._core.outcome import Answer
    from userlens_instrument.integrations.figures import Figure
else:
    try:
        from prometheus_client.registry import Collector
    except ImportError:  # `UserlensCollector` says so
        Collector = object

__all__ = ["UserlensCollector"]

_DURATION = DURATION.replace(".", "_") + "_seconds"


class _Durations:
    """
    How long the requests of this process took, counted without a lock.

    By outcome and bucket; the sum in whole microseconds, because a `Ledger`
    counts whole numbers.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start at zero: at the beginning, and in a forked child."""
        self._ledger = Ledger()

    def watch(self, seconds: float, answer: Answer) -> None:
        """Count a request."""
        outcome = outcome_of(answer)
        self._ledger.count(outcome, str(bisect_left(BUCKETS, seconds)))
        self._ledger.count(outcome, "micros", round(seconds * 1e6))

    def read(self, outcome: str) -> tuple[list[tuple[str, int]], float]:
        """Return the buckets, each with the number of requests up to its bound, and the sum."""
        counts = self._ledger.read()
        buckets, total = [], 0
        for place, bound in enumerate((*map(str, BUCKETS), "+Inf")):
            total += counts[outcome, str(place)]
            buckets.append((bound, total))
        return buckets, counts[outcome, "micros"] / 1e6


_durations = _Durations()
lifecycle.on_fork(_durations.reset)


class UserlensCollector(Collector):
    """
    A collector with the figures of this process, see docs/opentelemetry.md.

    Several of them show the same figures. The duration of requests is counted
    from the first one on.

    Raises:
        MissingExtraError: If ``prometheus_client`` is not installed.

    .. versionadded:: 0.1.0
    """

    def __init__(self) -> None:
        """Have requests timed."""
        try:
            # By name: who has no such extra imports this module all the same.
            self._core: Any = import_module("prometheus_client.core")
        except ImportError:
            raise MissingExtraError("prometheus") from None
        if _durations.watch not in request_watchers:
            request_watchers.append(_durations.watch)

    def describe(self) -> Iterator[Metric]:
        """Yield every metric without a figure: a registry asks when it takes a collector."""
        for figure in FIGURES:
            yield self._family(figure)
        yield self._histogram()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with the figures of this moment."""
        snapshot = Snapshot.take()
        for figure in FIGURES:
            family = self._family(figure)
            for reason, number in figure.read(snapshot).items():
                family.add_metric([reason] if figure.by_reason else [], number)
            yield family
        histogram = self._histogram()
        for outcome in OUTCOMES.values():
            buckets, seconds = _durations.read(outcome)
            histogram.add_metric([outcome], buckets, seconds)
        yield histogram

    def _family(self, figure: Figure) -> Any:
        kind = "CounterMetricFamily" if figure.kind == "counter" else "GaugeMetricFamily"
        labels = ["reason"] if figure.by_reason else []
        return getattr(self._core, kind)(figure.prometheus_name, figure.means, labels=labels)

    def _histogram(self) -> Any:
        return self._core.HistogramMetricFamily(_DURATION, DURATION_MEANS, labels=["outcome"])
