"""Judges the demo: what should have happened against what did. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from userlens_instrument.cli.demo import scenario


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from userlens_instrument.cli.demo.play import Evidence
    from userlens_instrument.cli.demo.scenario import Body


def find_problems(evidence: Evidence) -> list[str]:
    """Return what did not happen as it should, a line each; nothing if all is well."""
    return [
        *_wrong_answers(evidence),
        *_wrong_lines(evidence),
        *_wrong_events(evidence),
        *_wrong_counts(evidence),
    ]


def describe(body: Body) -> str:
    """Say in a few words which event *body* is."""
    if body["type"] == "track":
        return f'track "{body["event"]}"'
    if body["type"] == "group":
        return f"group {body['groupId']}"
    return "identify"


def timeless(body: Body) -> Body:
    """Return *body* less its timestamp, which no script can foresee."""
    return {name: value for name, value in body.items() if name != "timestamp"}


def compare(who: str, expected: Sequence[Body], arrived: Sequence[Body]) -> list[str]:
    """
    Return how the events that *arrived* of one user differ from those *expected*.

    Args:
        who: The user.
        expected: In the order in which they were logged, less timestamps.
        arrived: In the order of arrival.
    """
    wanted, found = [_key(body) for body in expected], [_key(body) for body in arrived]
    missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    problems = [f"missing: {who}: {_said(key)}" for key in missing.elements()]
    problems += [
        f"{'arrived twice' if key in wanted else 'not expected'}: {who}: {_said(key)}"
        for key in extra.elements()
    ]
    if not problems and wanted != found:
        order = " > ".join(describe(body) for body in arrived)
        problems.append(f"out of order: {who}: {order}")
    problems += [
        f"without a time: {who}: {describe(body)}"
        for body in arrived
        if body["type"] == "track" and "timestamp" not in body
    ]
    return problems


def _key(body: Body) -> str:
    return json.dumps(timeless(body), sort_keys=True)


def _said(key: str) -> str:
    body = json.loads(key)
    return f"{describe(body)} {json.dumps(body.get('properties', body.get('traits')))}"


def _wrong_answers(evidence: Evidence) -> Iterator[str]:
    for step in scenario.STEPS:
        status = evidence.answers[step.request_id].status
        if status != step.status:
            yield f"answered {status}, not {step.status}: {step.who}: {step.method} {step.path}"


def _wrong_lines(evidence: Evidence) -> Iterator[str]:
    for step in scenario.STEPS:
        for line in step.lines:
            number = sum(line.is_in(text) for text in evidence.log)
            if number != 1:
                yield f"logged {number} times, not once: {step.who}: {', '.join(line.logged)}"
    if any("userlens_event" in text for text in evidence.log):
        yield "the tag was printed, and should have been taken off the line"


def _wrong_events(evidence: Evidence) -> Iterator[str]:
    bodies = [entry.body for entry in evidence.arrived]
    known = [who for who in scenario.people() if scenario.events_of(who)]
    for who in known:
        yield from compare(
            who, scenario.events_of(who), [body for body in bodies if body["userId"] == who]
        )
    for body in bodies:
        if body["userId"] not in known:
            yield f"not expected: {body['userId']}: {describe(body)}"
    for entry in evidence.rejected:
        yield f"not valid: {entry.user_id}: {entry.reason}"


def _wrong_counts(evidence: Evidence) -> Iterator[str]:
    stats, total = evidence.stats, sum(len(scenario.events_of(who)) for who in scenario.people())
    if not evidence.flushed:
        yield f"flush() gave up: {stats.pending} events are still held"
    if stats.delivered != total:
        yield f"counted as delivered: {stats.delivered}, not {total}"
    if stats.refused or stats.dropped:
        yield f"lost: {dict(stats.refused)} refused, {dict(stats.dropped)} dropped"
    if dict(stats.invalid) != scenario.INVALID:
        yield f"counted as invalid: {dict(stats.invalid)}, not {scenario.INVALID}"
    faults = evidence.inspector.by_status.get("503", 0)
    if faults != scenario.FAULTS:
        yield f"answered 503: {faults} times, not {scenario.FAULTS}"
    if stats.retried < faults:
        yield f"tried again: {stats.retried} times, not {faults}"
    if len(evidence.diagnostics) < scenario.DIAGNOSTICS:
        yield f"lines of diagnostics: {len(evidence.diagnostics)}, not {scenario.DIAGNOSTICS}"
