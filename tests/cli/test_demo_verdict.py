"""The demo's judge: whatever does not happen as it should is named in a line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from userlens_instrument.cli.demo import scenario
from userlens_instrument.cli.demo.play import Answer
from userlens_instrument.cli.demo.verdict import compare, find_problems


IDENTIFY = {"type": "identify", "userId": "ada", "traits": {"plan": "free"}}
TRACK = {
    "type": "track",
    "userId": "ada",
    "event": "Plan Upgraded",
    "properties": {"plan": "pro"},
}
GROUP = {"type": "group", "userId": "ada", "groupId": "acme", "traits": {}}


def timed(body):
    return body | {"timestamp": "2026-01-02T03:04:05.678901Z"}


@pytest.mark.parametrize(
    ("arrived", "problems"),
    [
        ([IDENTIFY, timed(TRACK), GROUP], []),
        ([IDENTIFY, GROUP], ['missing: ada: track "Plan Upgraded" {"plan": "pro"}']),
        (
            [],
            [
                f"missing: ada: {what}"
                for what in (
                    'identify {"plan": "free"}',
                    'track "Plan Upgraded" {"plan": "pro"}',
                    "group acme {}",
                )
            ],
        ),
        (
            [IDENTIFY, timed(TRACK), timed(TRACK), GROUP],
            ['arrived twice: ada: track "Plan Upgraded" {"plan": "pro"}'],
        ),
        (
            [IDENTIFY, timed(TRACK), GROUP, IDENTIFY | {"traits": {}}],
            ["not expected: ada: identify {}"],
        ),
        (
            [timed(TRACK), IDENTIFY, GROUP],
            ['out of order: ada: track "Plan Upgraded" > identify > group acme'],
        ),
        ([IDENTIFY, TRACK, GROUP], ['without a time: ada: track "Plan Upgraded"']),
    ],
)
def test_compare(arrived, problems):
    """Each event once and in order, and every track with its time; all else is a problem."""
    assert problems == compare("ada", [IDENTIFY, TRACK, GROUP], arrived)


def test_all_well(evidence):
    """A run as the script has it has no problem."""
    assert [] == find_problems(evidence)


def test_order_between_users_is_free(evidence_of, all_bodies):
    """Users travel side by side: only each one's own order counts."""
    mixed = sorted(all_bodies, key=lambda body: body["userId"], reverse=True)

    assert [] == find_problems(evidence_of(mixed))


def test_stranger(evidence_of, all_bodies):
    """An event of somebody who is not in the script is a problem."""
    stranger = {**all_bodies[0], "userId": "eve"}

    assert ["not expected: eve: identify"] == find_problems(evidence_of([*all_bodies, stranger]))


def test_body_that_is_not_valid(evidence_of, all_bodies):
    """A body that the local Userlens rejects is a problem, with its reason."""
    bad = {**all_bodies[0], "traits": "none"}

    assert ["not valid: ada: identify: 'traits' must be an object, not a string"] == (
        find_problems(evidence_of([*all_bodies, bad]))
    )


def test_wrong_answer(evidence):
    """A page that fails is a problem."""
    answers = {**evidence.answers, "ada-2": Answer(status=500, seconds=0.01)}

    assert ["answered 500, not 200: ada: GET /reports"] == (
        find_problems(replace(evidence, answers=answers))
    )


def test_line_that_was_not_logged(evidence):
    """The log line still has to be there: an event takes nothing from the log."""
    log = tuple(line for line in evidence.log if "reports listed" not in line)

    assert ["logged 0 times, not once: ada: reports listed"] == (
        find_problems(replace(evidence, log=log))
    )


def test_tag_that_was_printed(evidence):
    """The tag is taken off the line."""
    log = (*evidence.log, "level=info userlens_event=True")

    assert ["the tag was printed, and should have been taken off the line"] == (
        find_problems(replace(evidence, log=log))
    )


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"delivered": 12}, "counted as delivered: 12, not 13"),
        ({"dropped": {"expired": 1}}, "lost: {} refused, {'expired': 1} dropped"),
        ({"invalid": {}}, "counted as invalid: {}, not {'missing_user_id': 1}"),
        ({"retried": 1}, "tried again: 1 times, not 2"),
    ],
)
def test_wrong_count(counts, problem, evidence):
    """The sender's own statistics have to say the same as what arrived."""
    stats = replace(evidence.stats, **counts)

    assert [problem] == find_problems(replace(evidence, stats=stats))


def test_flush_that_gave_up(evidence):
    """A flush that runs into its timeout is a problem."""
    stats = replace(evidence.stats, pending=3)

    assert ["flush() gave up: 3 events are still held"] == (
        find_problems(replace(evidence, stats=stats, flushed=False))
    )


def test_faults_that_did_not_fire(evidence):
    """A demo of retries without a failure would show nothing."""
    inspector = replace(evidence.inspector, by_status={"200": 13})

    assert ["answered 503: 0 times, not 2"] == (
        find_problems(replace(evidence, inspector=inspector))
    )


def test_silence(evidence):
    """The lines of diagnostics are part of the promise."""
    log = tuple(line for line in evidence.log if "WARNING" not in line)

    assert [f"lines of diagnostics: 0, not {scenario.DIAGNOSTICS}"] == (
        find_problems(replace(evidence, log=log))
    )
