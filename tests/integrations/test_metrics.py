"""What became of every event, in the metrics of OpenTelemetry and of Prometheus."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from children import in_fork
from helpers import PATIENCE, WRITE_CODE, new_spool, until
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from userlens_instrument import client as client_module
from userlens_instrument._core.outcome import Answer, Failure
from userlens_instrument._delivery.sender import request_watchers
from userlens_instrument.integrations import figures, prometheus
from userlens_instrument.integrations.figures import FIGURES, Snapshot, outcome_of
from userlens_instrument.integrations.opentelemetry import instrument_metrics
from userlens_instrument.integrations.opentelemetry import metrics as metrics_module
from userlens_instrument.integrations.opentelemetry.metrics import uninstrument_metrics
from userlens_instrument.integrations.prometheus import UserlensCollector
from userlens_instrument.testing import CapturingTransport


@pytest.fixture(autouse=True)
def fresh_metrics():
    yield
    uninstrument_metrics()
    metrics_module._metrics.__init__()
    prometheus._durations.reset()
    request_watchers.clear()


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def configured(server):
    """Return the default client of this process."""
    return client_module.configure(
        WRITE_CODE, events_url=server.url, raw_url=server.url, spool=new_spool()
    )


def points(reader):
    """Return what *reader* collects: by name, the points as (attributes, value or count)."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert "userlens_instrument" == scope.scope.name
    return {
        metric.name: {
            tuple(sorted(point.attributes.items())): getattr(point, "value", None)
            if hasattr(point, "value")
            else point.count
            for point in metric.data.data_points
        }
        for metric in scope.metrics
    }


def test_what_became_of_every_event(configured, provider, reader):
    """Delivered, invalid by its reason, and how long the request took."""
    instrument_metrics(provider)
    configured.track("u1", "Seen")
    configured.track(None, "Seen")
    assert configured.flush(PATIENCE)
    found = until(lambda: "userlens.request.duration" in (seen := points(reader)) and seen)

    assert {(): 1} == found["userlens.events.accepted"] == found["userlens.events.delivered"]
    assert {(): 0} == found["userlens.events.pending"]
    assert {(): 0.0} == found["userlens.events.oldest.age"]
    reason = (("userlens.reason", "invalid_user_id"),)
    assert {reason: 1} == found["userlens.records.invalid"]
    attributes = (("http.response.status_code", 200), ("userlens.outcome", "delivered"))
    assert {attributes: 1} == found["userlens.request.duration"]
    held_back = found["userlens.delivery.held_back"]
    assert dict.fromkeys(held_back, 0.0) == held_back


def test_every_metric_is_a_figure(configured, provider, reader, server):
    """There are no others; those without a number are not shown."""
    instrument_metrics(provider)
    names = {figure.name for figure in FIGURES}

    without_a_number = {figure.name for figure in FIGURES if figure.by_reason}
    assert names - without_a_number <= set(points(reader)) <= names


def test_what_is_held_back_and_how_old_it_is(make_client, monkeypatch):
    """While Userlens refuses the write code, the reason is 1, and the oldest event ages."""
    client = make_client(transport=CapturingTransport(lambda body: Answer(status=401)))
    monkeypatch.setitem(client_module.registry.clients, "one", client)
    client.track("u1", "Seen")
    until(lambda: client.stats().held_back)
    snapshot = until(lambda: (taken := Snapshot.take()).oldest > 0 and taken)
    by_name = {figure.name: figure.read(snapshot) for figure in FIGURES}

    states = {"unavailable": 0.0, "unauthorized": 1.0, "redirect": 0.0, "tls": 0.0}
    assert states == by_name["userlens.delivery.held_back"]
    assert {"": snapshot.oldest} == by_name["userlens.events.oldest.age"]
    assert {"": 1} == by_name["userlens.events.pending"]


def test_sums_come_out_in_each_collection(configured, provider, reader):
    """While others log, all figures of a collection are of one moment."""
    instrument_metrics(provider)
    ended = threading.Event()

    def log():
        while not ended.is_set():
            configured.track("u1", "Seen")

    thread = threading.Thread(target=log)
    thread.start()
    try:
        collections = [points(reader)]
        until(lambda: collections.append(points(reader)) or grown(collections))
        collections += [points(reader) for _ in range(30)]
    finally:
        ended.set()
        thread.join()

    for found in collections:
        number = {name: sum(found.get(name, {}).values()) for name in (*found, DROPPED, REFUSED)}
        came = number["userlens.events.accepted"] + number["userlens.events.recovered"]
        went = number["userlens.events.delivered"] + number[DROPPED] + number[REFUSED]
        held = number["userlens.events.spooled"] + number["userlens.events.pending"]
        assert came == went + held
    accepted = [sum(found["userlens.events.accepted"].values()) for found in collections]
    assert sorted(accepted) == accepted


def grown(collections):
    """Return whether more was accepted at the last of them than at the first."""
    first, last = (
        found["userlens.events.accepted"][()] for found in (collections[0], collections[-1])
    )
    return first < last


DROPPED, REFUSED = "userlens.events.dropped", "userlens.events.refused"


def test_called_twice_they_are_there_once(configured, provider, reader, caplog):
    """For the same provider, and for the global one; two providers are two."""
    other = InMemoryMetricReader()
    second = MeterProvider([other], shutdown_on_exit=False)
    for _ in range(2):
        instrument_metrics(provider)
        instrument_metrics(second)
        instrument_metrics()
        instrument_metrics(api.get_meter_provider())
    configured.track("u1", "Seen")
    assert configured.flush(PATIENCE)
    until(lambda: "userlens.request.duration" in points(reader))

    assert 1 == request_watchers.count(metrics_module._metrics.watch)
    for one in (reader, other):
        assert {(): 1} == points(one)["userlens.events.delivered"]
        assert [1] == list(points(one)["userlens.request.duration"].values())
    assert [] == caplog.records
    second.shutdown()


def test_taken_away_they_tell_nothing(configured, provider, reader):
    """Instruments cannot be taken away, but they observe nothing; and again, if they are wanted."""
    instrument_metrics(provider)
    uninstrument_metrics()
    uninstrument_metrics()
    assert {} == points(reader)
    assert [] == request_watchers

    instrument_metrics(provider)
    assert {(): 0} == points(reader)["userlens.events.delivered"]


def test_an_older_api_has_no_bounds_to_advise(provider, reader, monkeypatch):
    """The histogram is there, with the SDK's own buckets."""
    meter = provider.get_meter("userlens_instrument")
    create = meter.create_histogram
    made = []

    def create_histogram(name, unit="", description=""):
        made.append(name)
        return create(name, unit, description)

    monkeypatch.setattr(meter, "create_histogram", create_histogram)
    metrics_module._make(api, meter)

    assert ["userlens.request.duration"] == made


@pytest.mark.parametrize(
    ("answer", "outcome", "expected"),
    [
        (Answer(status=204), "delivered", {"http.response.status_code": 204}),
        (
            Answer(status=400),
            "refused",
            {"http.response.status_code": 400, "error.type": "400"},
        ),
        (
            Answer(status=502),
            "retry_later",
            {"http.response.status_code": 502, "error.type": "502"},
        ),
        (Answer(failure=Failure.TIMEOUT), "retry_later", {"error.type": "timeout"}),
        (Answer(failure=Failure.CONNECT), "endpoint_down", {"error.type": "connect"}),
    ],
)
def test_what_a_request_came_to(answer, outcome, expected):
    """The outcome by the schedule's own judgement, and what was answered."""
    recorded = []

    class Histogram:
        def record(self, seconds, attributes):
            recorded.append((seconds, attributes))

    meter = metrics_module._Meter(Histogram())
    metrics_module._metrics.meters.add(meter)
    metrics_module._metrics.watch(0.25, answer)

    assert outcome == outcome_of(answer)
    assert [(0.25, {"userlens.outcome": outcome, **expected})] == recorded


# ---------------------------------------------------------------- Prometheus


def scraped():
    """Return what a scrape shows: each sample's name and labels, and its number."""
    registry = CollectorRegistry()
    registry.register(UserlensCollector())
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(number)
        for name, _, number in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_prometheus_shows_the_same(configured):
    """The names of OpenTelemetry's own way to Prometheus, and a label for the reason."""
    UserlensCollector()
    configured.track("u1", "Seen")
    configured.track(None, "Seen")
    assert configured.flush(PATIENCE)
    name = 'userlens_request_duration_seconds_count{outcome="delivered"}'
    found = until(lambda: (seen := scraped())[name] and seen)

    assert 1.0 == found["userlens_events_delivered_total"]
    assert 1.0 == found['userlens_records_invalid_total{reason="invalid_user_id"}']
    assert 0.0 == found["userlens_events_pending"]
    assert 0.0 == found["userlens_events_oldest_age_seconds"]
    assert 0.0 == found["userlens_buffer_size_bytes"]
    assert 0.0 == found['userlens_delivery_held_back{reason="tls"}']
    assert 1.0 == found[name]
    duration = found['userlens_request_duration_seconds_sum{outcome="delivered"}']
    assert 0 < duration < PATIENCE


def test_prometheus_counts_each_request_in_its_bucket():
    """On the bound of a bucket is within it, and each bucket holds those before."""
    for seconds in (0.005, 0.006, 11.0):
        prometheus._durations.watch(seconds, Answer(status=200))
    found = scraped()
    bucket = 'userlens_request_duration_seconds_bucket{le="%s",outcome="delivered"}'

    assert (1.0, 2.0, 2.0, 3.0) == tuple(
        found[bucket % bound] for bound in ("0.005", "0.01", "10.0", "+Inf")
    )
    assert 11.011 == pytest.approx(
        found['userlens_request_duration_seconds_sum{outcome="delivered"}']
    )


def test_a_registry_takes_one_collector():
    """It knows the names before it collects: the second is refused."""
    registry = CollectorRegistry()
    registry.register(UserlensCollector())

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(UserlensCollector())


def test_a_forked_child_starts_at_zero(configured):
    """What the parent has counted is the parent's."""
    UserlensCollector()
    configured.track("u1", "Seen")
    assert configured.flush(PATIENCE)
    name = 'userlens_request_duration_seconds_count{outcome="delivered"}'
    until(lambda: scraped()[name])
    delivered = "userlens_events_delivered_total"

    assert [0.0, 0.0] == in_fork(lambda: [scraped()[delivered], scraped()[name]])
    assert [1.0, 1.0] == [scraped()[delivered], scraped()[name]]


def test_without_the_library_it_says_what_to_install():
    """The module can be imported, the collector cannot be made."""
    code = """
import sys
sys.modules["prometheus_client"] = None
from userlens_instrument.integrations.prometheus import UserlensCollector
UserlensCollector()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )

    assert done.stderr.endswith("pip install 'userlens-instrument[prometheus]'\n")


def test_both_have_the_same_names():
    """A name for Prometheus is OpenTelemetry's, with its unit; no two are the same."""
    names = [figure.prometheus_name for figure in FIGURES]

    assert len(set(names)) == len(names)
    assert all(name.startswith("userlens_") for name in names)
    assert set(figures.OUTCOMES.values()) == {
        "delivered",
        "refused",
        "retry_later",
        "endpoint_down",
    }
