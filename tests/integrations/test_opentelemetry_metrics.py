"""OpenTelemetry's metrics where there are several providers, or none any more, or a fork."""

from __future__ import annotations

import gc

import pytest
from children import in_fork
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from userlens_instrument import client as client_module
from userlens_instrument._core.outcome import Answer
from userlens_instrument._delivery.sender import request_watchers
from userlens_instrument.integrations.opentelemetry import instrument_metrics
from userlens_instrument.integrations.opentelemetry import metrics as metrics_module
from userlens_instrument.integrations.opentelemetry.metrics import uninstrument_metrics


@pytest.fixture(autouse=True)
def fresh_metrics():
    yield
    uninstrument_metrics()
    metrics_module._metrics.__init__()
    request_watchers.clear()


@pytest.fixture
def default():
    """Return the default client of this process; it sends nothing."""
    return client_module.configure("wc", dry_run=True)


def instrumented():
    """Return a reader of a provider of its own, with our metrics, and that provider."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument_metrics(provider)
    return reader, provider


def accepted(reader):
    """Return what *reader* is told of events accepted."""
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    (metric,) = (one for one in scope.metrics if one.name == "userlens.events.accepted")
    return [point.value for point in metric.data.data_points]


def test_each_provider_is_told_the_figures_of_the_moment(default):
    """Not those of the last collection of another one, however long ago that was."""
    (first, one), (second, other) = instrumented(), instrumented()
    default.track("u1", "Seen")
    assert [1] == accepted(first)
    default.track("u1", "Seen")

    assert [2] == accepted(second)
    assert [2] == accepted(first)
    one.shutdown()
    other.shutdown()


def test_a_providers_figures_in_a_forked_child_start_at_zero(default):
    """Of one that was made before, and of one that is made in the child."""
    reader, provider = instrumented()
    default.track("u1", "Seen")
    assert [1] == accepted(reader)

    assert [[0], [0]] == in_fork(lambda: [accepted(instrumented()[0]), accepted(reader)])
    assert [1] == accepted(reader)
    provider.shutdown()


def test_a_collection_that_a_fork_interrupts_is_not_continued(default):
    """What has been read of it was the parent's: the child reads its own."""
    meter = metrics_module._Meter(None)
    metrics_module._metrics.meters.add(meter)
    default.track("u1", "Seen")
    assert 1 == meter.snapshot("userlens.events.accepted").stats.accepted

    assert 0 == in_fork(lambda: meter.snapshot("userlens.events.delivered").stats.accepted)
    assert 1 == meter.snapshot("userlens.events.delivered").stats.accepted
    metrics_module._metrics.reset()
    default.track("u1", "Seen")
    assert 2 == meter.snapshot("userlens.events.dropped").stats.accepted


def test_a_provider_that_is_gone_leaves_nothing_behind():
    """A program that makes many does not record each request into all that there ever were."""
    reader, provider = instrumented()
    for _ in range(5):
        instrumented()[1].shutdown()
    gc.collect()

    assert 1 == len(metrics_module._metrics.meters)
    metrics_module._metrics.watch(0.25, Answer(status=200))
    (resource,) = reader.get_metrics_data().resource_metrics
    names = [metric.name for scope in resource.scope_metrics for metric in scope.metrics]
    assert "userlens.request.duration" in names
    provider.shutdown()
