"""What the tests of the demo's judge and of its report start from: a run in which all went well."""

from __future__ import annotations

import json

import pytest

from userlens_instrument import Stats
from userlens_instrument.cli.demo import scenario
from userlens_instrument.cli.demo.play import Answer, Evidence
from userlens_instrument.inspector import Store, validate_event


TIMESTAMP = "2026-01-02T03:04:05.678901Z"


def entries(bodies):
    """Return *bodies* as the local Userlens keeps them; tracks get a time."""
    store = Store()
    for body in bodies:
        raw = json.dumps(
            body | {"timestamp": TIMESTAMP} if body["type"] == "track" else body
        ).encode()
        store.add(
            path="/event",
            raw=raw,
            verdict=validate_event(raw),
            status=200,
            received_at=store.timestamp(),
            headers={},
        )
    for _ in range(scenario.FAULTS):
        store.swallow(status=503)
    return store


def make_evidence(bodies):
    """Return what a run keeps in which all is as it should be, but that *bodies* arrived."""
    store = entries(bodies)
    total = sum(len(scenario.events_of(who)) for who in scenario.people())
    return Evidence(
        answers={
            step.request_id: Answer(status=step.status, seconds=0.01) for step in scenario.STEPS
        },
        log=(
            *(" ".join(line.logged) for step in scenario.STEPS for line in step.lines),
            *["WARNING userlens_instrument: ..."] * scenario.DIAGNOSTICS,
        ),
        arrived=tuple(reversed(store.events(verdict="good"))),
        rejected=tuple(reversed(store.events(verdict="bad"))),
        flushed=True,
        stats=Stats(
            accepted=total,
            delivered=total,
            retried=scenario.FAULTS,
            invalid=dict(scenario.INVALID),
            redacted=1,
        ),
        inspector=store.stats(),
    )


@pytest.fixture
def all_bodies():
    """Return every body that has to arrive, user by user."""
    return [body for who in scenario.people() for body in scenario.events_of(who)]


@pytest.fixture
def evidence_of():
    return make_evidence


@pytest.fixture
def evidence(all_bodies):
    return make_evidence(all_bodies)
