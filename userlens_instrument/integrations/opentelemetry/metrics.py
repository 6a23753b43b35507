"""What became of every event, as metrics of OpenTelemetry."""

from __future__ import annotations

import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

from userlens_instrument._delivery import lifecycle
from userlens_instrument._delivery.sender import request_watchers
from userlens_instrument._version import __version__
from userlens_instrument.exceptions import MissingExtraError
from userlens_instrument.integrations.figures import (
    BUCKETS,
    DURATION,
    DURATION_MEANS,
    FIGURES,
    Snapshot,
    outcome_of,
)


if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider

    from userlens_instrument._core.outcome import Answer
    from userlens_instrument.integrations.figures import Figure


class _Metrics:
    """
    What has been made, and whether it tells anything.

    An instrument cannot be taken away again: without `on`, it observes nothing.
    """

    def __init__(self) -> None:
        self.on = False
        self.is_global = False
        self.providers: weakref.WeakSet[Any] = weakref.WeakSet()
        #: Those whose instruments somebody holds: a program may make and drop many providers.
        self.meters: weakref.WeakSet[_Meter] = weakref.WeakSet()

    def watch(self, seconds: float, answer: Answer) -> None:
        """Record a request."""
        attributes: dict[str, Any] = {"userlens.outcome": outcome_of(answer)}
        if answer.status is not None:
            attributes["http.response.status_code"] = answer.status
        if answer.failure is not None:
            attributes["error.type"] = answer.failure.name.lower()
        elif not 200 <= (answer.status or 0) < 300:
            attributes["error.type"] = str(answer.status)
        for meter in list(self.meters):
            meter.histogram.record(seconds, attributes)

    def reset(self) -> None:
        """Take the figures anew in a forked child: what its meters have read was the parent's."""
        for meter in list(self.meters):
            meter.reset()


class _Meter:
    """
    What the instruments of one meter share. They hold it, and whoever drops them drops it.

    Attributes:
        histogram: Where its requests are recorded.
    """

    def __init__(self, histogram: Any) -> None:
        self.histogram = histogram
        self.reset()

    def reset(self) -> None:
        """Have read nothing."""
        # What the instruments read of a collection, and which have read it.
        self._snapshot: Snapshot | None = None
        self._readers: set[str] = set()

    def snapshot(self, reader: str) -> Snapshot:
        """
        Return the figures of this collection: the same for each instrument of it.

        So that sums come out to the unit, and events are counted once. Who asks
        a second time begins the next one. Of this meter alone: another may be
        asked much later, or never again.
        """
        snapshot = self._snapshot
        if snapshot is None or reader in self._readers:
            snapshot = self._snapshot = Snapshot.take()
            self._readers.clear()
        self._readers.add(reader)
        return snapshot


_metrics = _Metrics()
lifecycle.on_fork(_metrics.reset)


def instrument_metrics(meter_provider: MeterProvider | None = None) -> None:
    """
    Make the metrics that docs/opentelemetry.md lists. Called twice, they are there once.

    Args:
        meter_provider: Whose they are; OpenTelemetry's global one if absent, which
            may be set later.

    Raises:
        MissingExtraError: If ``opentelemetry-api`` is not installed.

    .. versionadded:: 0.1.0
    """
    try:
        # By name: who has no such extra gets to the error below.
        api: Any = import_module("opentelemetry.metrics")
    except ImportError:
        raise MissingExtraError("opentelemetry") from None
    if not _metrics.on:
        _metrics.on = True
        request_watchers.append(_metrics.watch)
    if meter_provider is None or meter_provider is api.get_meter_provider():
        if _metrics.is_global:
            return
        _metrics.is_global = True
        meter_provider = None
    elif meter_provider in _metrics.providers:
        return
    else:
        _metrics.providers.add(meter_provider)
    _make(api, api.get_meter("userlens_instrument", __version__, meter_provider))


def uninstrument_metrics() -> None:
    """Have the metrics tell nothing any more."""
    if _metrics.on:
        _metrics.on = False
        request_watchers.remove(_metrics.watch)


def _make(api: Any, meter: Any) -> None:
    makers = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    options: dict[str, Any] = {"unit": "s", "description": DURATION_MEANS}
    try:
        histogram = meter.create_histogram(
            DURATION, explicit_bucket_boundaries_advisory=list(BUCKETS), **options
        )
    except TypeError:  # before 1.30
        histogram = meter.create_histogram(DURATION, **options)
    shared = _Meter(histogram)
    for figure in FIGURES:
        observe = _observer(api.Observation, figure, shared)
        makers[figure.kind](
            figure.name, callbacks=[observe], unit=figure.unit, description=figure.means
        )
    _metrics.meters.add(shared)


def _observer(observation: Any, figure: Figure, meter: _Meter) -> Callable[[Any], list[Any]]:
    def observe(options: Any) -> list[Any]:  # noqa: ARG001 - OpenTelemetry's call
        if not _metrics.on:
            return []
        numbers = figure.read(meter.snapshot(figure.name))
        return [
            observation(number, {"userlens.reason": reason} if figure.by_reason else {})
            for reason, number in numbers.items()
        ]

    return observe
