"""
The peers, each set up as its own documentation does, with its defaults.

Only the address and a made-up key are given: a benchmark of somebody's tuned
settings would say little of what one pays after ``pip install``.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.subjects import (
    CALLS,
    DELIVERY,
    EVENT,
    USERS,
    Running,
    Subject,
    function_floor,
    properties,
    stdlib_call,
    stdlib_floor,
)


if TYPE_CHECKING:
    from collections.abc import Callable


# Made up; a sink asks nobody for a key.
_KEY = "benchmark"
_MANY = len(USERS)
_BOTH = frozenset({CALLS, DELIVERY})

# Longest that a peer may take to deliver, in seconds.
_PATIENCE = 30.0


def _posthog(url: str) -> Running:
    client = import_module("posthog").Posthog(_KEY, host=url)
    return Running(
        call=lambda n: client.capture(EVENT, distinct_id=USERS[n % _MANY], properties=properties()),
        flush=client.flush,
    )


def _segment(url: str, module: str = "segment.analytics.client") -> Running:
    client = import_module(module).Client(_KEY, host=url)
    return Running(
        call=lambda n: client.track(USERS[n % _MANY], EVENT, properties()), flush=client.flush
    )


def _rudder(url: str) -> Running:
    # A descendant of Segment's library, with its interface.
    return _segment(url, "rudderstack.analytics.client")


def _amplitude(url: str) -> Running:
    package = import_module("amplitude")
    client = package.Amplitude(_KEY, package.Config(server_url=f"{url}/2/httpapi"))

    def call(n: int) -> None:
        client.track(
            package.BaseEvent(
                event_type=EVENT, user_id=USERS[n % _MANY], event_properties=properties()
            )
        )

    def flush() -> None:
        for future in client.flush():
            if future is not None:
                future.result(_PATIENCE)

    return Running(call=call, flush=flush)


def _sentry(url: str) -> Running:
    package = import_module("sentry_sdk")
    dsn = url.replace("http://", "http://public@") + "/1"
    package.init(dsn=dsn, enable_logs=True)
    # Its integration patches `logging`: a logger needs no handler of it.
    return Running(
        call=stdlib_call(logging.NullHandler(), tagged=False),
        flush=lambda: package.flush(_PATIENCE),
    )


def _opentelemetry(url: str) -> Running:
    logs = import_module("opentelemetry.sdk._logs")
    export = import_module("opentelemetry.sdk._logs.export")
    otlp = import_module("opentelemetry.exporter.otlp.proto.http._log_exporter")
    provider = logs.LoggerProvider()
    exporter = otlp.OTLPLogExporter(endpoint=f"{url}/v1/logs")
    provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter))
    with warnings.catch_warnings():
        # On its way to another distribution, where it is the same code.
        warnings.simplefilter("ignore", DeprecationWarning)
        handler: logging.Handler = logs.LoggingHandler(logger_provider=provider)
    return Running(call=stdlib_call(handler, tagged=False), flush=provider.force_flush)


def _logfire_module(url: str) -> Any:
    logfire = import_module("logfire")
    logfire.configure(
        token=_KEY,
        send_to_logfire=True,
        console=False,
        advanced=logfire.AdvancedOptions(base_url=url),
    )
    return logfire


def _logfire(url: str) -> Running:
    logfire = _logfire_module(url)
    return Running(
        call=lambda n: logfire.info(
            EVENT,
            user_id=USERS[n % _MANY],
            from_plan="free",
            to_plan="pro",
            seats=12,
            amount=49.5,
            trial=False,
            source_page="pricing",
        ),
        flush=logfire.force_flush,
    )


def _logtail(url: str) -> Running:
    handler: logging.Handler = import_module("logtail").LogtailHandler(source_token=_KEY, host=url)
    return Running(call=stdlib_call(handler, tagged=False), flush=handler.flush)


def _first_party(url: str) -> Running:
    tracker = import_module("userlens.event_tracker").EventTracker(_KEY)
    # The constructor has no option for it.
    tracker.INGESTOR_URL = url
    return Running(
        call=lambda n: tracker.track(USERS[n % _MANY], EVENT, properties()), flush=lambda: None
    )


def _peer(
    name: str,
    title: str,
    distribution: str,
    start: Callable[[str], Running],
    scripts: tuple[str, str],
    *,
    floor: Callable[[], Callable[[int], object]] = function_floor,
    patches: bool = False,
    **numbers: int,
) -> Subject:
    imports, starts = scripts
    return Subject(
        name=name,
        title=title,
        distribution=distribution,
        start=start,
        floor=floor,
        measures=_BOTH,
        patches=patches,
        import_script=imports,
        start_script=f"{imports}\n{starts}",
        calls=numbers.get("calls", 5_000),
        events=numbers.get("events", 2_000),
    )


PEERS = (
    _peer(
        "posthog",
        "posthog: capture()",
        "posthog",
        _posthog,
        ("import posthog", "posthog.Posthog('benchmark', host='{url}')"),
    ),
    _peer(
        "segment",
        "segment: track()",
        "segment-analytics-python",
        _segment,
        ("import segment.analytics as a", "a.Client('benchmark', host='{url}')"),
    ),
    _peer(
        "rudder",
        "rudder: track()",
        "rudder-sdk-python",
        _rudder,
        ("import rudderstack.analytics as a", "a.Client('benchmark', host='{url}')"),
    ),
    _peer(
        "amplitude",
        "amplitude: track()",
        "amplitude-analytics",
        _amplitude,
        ("import amplitude as a", "a.Amplitude('benchmark', a.Config(server_url='{url}'))"),
    ),
    _peer(
        "sentry",
        "sentry: logs, stdlib",
        "sentry-sdk",
        _sentry,
        (
            "import sentry_sdk",
            "sentry_sdk.init(dsn='{url}/1'.replace('//', '//public@'), enable_logs=True)",
        ),
        floor=stdlib_floor,
        patches=True,
    ),
    _peer(
        "opentelemetry",
        "opentelemetry: logs, stdlib",
        "opentelemetry-exporter-otlp-proto-http",
        _opentelemetry,
        (
            (
                "from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler\n"
                "from opentelemetry.sdk._logs.export import BatchLogRecordProcessor\n"
                "from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter"
            ),
            (
                "p = LoggerProvider()\n"
                "e = OTLPLogExporter(endpoint='{url}/v1/logs')\n"
                "p.add_log_record_processor(BatchLogRecordProcessor(e))\n"
                "LoggingHandler(logger_provider=p)"
            ),
        ),
        floor=stdlib_floor,
    ),
    _peer(
        "logfire",
        "logfire: info()",
        "logfire",
        _logfire,
        (
            "import logfire",
            (
                "logfire.configure(token='benchmark', send_to_logfire=True, console=False, "
                "advanced=logfire.AdvancedOptions(base_url='{url}'))"
            ),
        ),
    ),
    _peer(
        "logtail",
        "logtail: stdlib",
        "logtail-python",
        _logtail,
        ("import logtail", "logtail.LogtailHandler(source_token='benchmark', host='{url}')"),
        floor=stdlib_floor,
    ),
    # It waits for two answers in each call: few of them are enough, and take long.
    _peer(
        "userlens-sdk",
        "userlens-analytics-sdk: track()",
        "userlens-analytics-sdk",
        _first_party,
        (
            "from userlens.event_tracker import EventTracker",
            "EventTracker('benchmark')",
        ),
        calls=300,
        events=300,
    ),
)
