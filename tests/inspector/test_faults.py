"""Which faults there are, and which are refused with what to do about it."""

import pytest

from userlens_instrument.exceptions import SettingsError
from userlens_instrument.inspector import Fault
from userlens_instrument.inspector.faults import parse_fault


def test_all_keys():
    """A fault's JSON form names every part, and reads back as the same fault."""
    asked = {
        "accept": True,
        "count": 3,
        "delay": 0.2,
        "drop": False,
        "location": "http://127.0.0.1/elsewhere",
        "path": "/event",
        "retry_after": "2",
        "status": 503,
        "userId": "u-1",
    }
    expected = Fault(
        accept=True,
        count=3,
        delay=0.2,
        location="http://127.0.0.1/elsewhere",
        path="/event",
        retry_after="2",
        status=503,
        user_id="u-1",
    )

    assert expected == parse_fault(asked)
    assert asked == expected.as_dict()


def test_null_is_left_out():
    """A key with null means what it means when it is left out."""
    assert Fault(drop=True) == parse_fault({"drop": True, "status": None, "path": None})


def test_retry_after_as_a_number():
    """Seconds may be given as a number."""
    assert Fault(status=429, retry_after="7") == parse_fault({"status": 429, "retry_after": 7})


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("503", 'fault is not an object; send one such as {"status": 503}'),
        ({"state": 503}, "fault has an unknown key; the keys are accept, count, delay, drop,"),
        ({}, "fault does nothing; give it a status, a delay or drop"),
        ({"count": 3}, "fault does nothing; give it a status, a delay or drop"),
        ({"delay": 0}, "fault does nothing; give it a status, a delay or drop"),
        ({"status": 199}, "fault.status is no final status; use 200 to 599"),
        ({"status": 600}, "fault.status is no final status; use 200 to 599"),
        ({"status": "503"}, "fault.status is no final status; use 200 to 599"),
        ({"status": True}, "fault.status is no final status; use 200 to 599"),
        ({"delay": -1}, "fault.delay is no such time; use 0 to 300 seconds"),
        ({"delay": 301}, "fault.delay is no such time; use 0 to 300 seconds"),
        ({"delay": True}, "fault.delay is no such time; use 0 to 300 seconds"),
        ({"delay": float("nan")}, "fault.delay is no such time; use 0 to 300 seconds"),
        ({"delay": "1"}, "fault.delay is no such time; use 0 to 300 seconds"),
        ({"drop": True, "count": 0}, "fault.count is no such number; use 1 to 1000000"),
        ({"drop": True, "count": 1.5}, "fault.count is no such number; use 1 to 1000000"),
        ({"drop": "yes"}, "fault.drop is not a boolean; use true or false"),
        ({"status": 500, "accept": 1}, "fault.accept is not a boolean; use true or false"),
        ({"status": 429, "retry_after": "1\r\nx: y"}, "fault.retry_after is no header value;"),
        ({"status": 429, "retry_after": "später"}, "fault.retry_after is no header value;"),
        ({"status": 429, "retry_after": " 1"}, "fault.retry_after is no header value;"),
        ({"status": 429, "retry_after": "1" * 1001}, "fault.retry_after is no header value;"),
        ({"status": 429, "retry_after": 1.5}, "fault.retry_after is no header value;"),
        ({"status": 302, "location": ["/"]}, "fault.location is no header value;"),
        ({"status": 500, "path": "/other"}, "fault.path is unknown; use /event or /raw/event"),
        ({"status": 500, "path": ["/event"]}, "fault.path is unknown; use /event or /raw/event"),
        ({"status": 500, "userId": ""}, "fault.userId is no user id; use a string"),
        ({"status": 500, "userId": 7}, "fault.userId is no user id; use a string"),
        ({"drop": True, "status": 500}, "fault has both status and drop; a dropped answer has"),
        ({"delay": 1, "accept": True}, "fault.accept is of no use; without status or drop all"),
        ({"drop": True, "retry_after": "1"}, "fault has an answer's header but no status;"),
        ({"delay": 1, "location": "/"}, "fault has an answer's header but no status;"),
    ],
)
def test_bad_faults(asked, problem):
    """What is no fault is refused in one line that says what to do."""
    with pytest.raises(SettingsError) as caught:
        parse_fault(asked)

    assert problem == str(caught.value)[: len(problem)]


@pytest.mark.parametrize(
    ("fault", "swallows"),
    [
        (Fault(status=503), True),
        (Fault(drop=True), True),
        (Fault(delay=1), False),
        (Fault(status=503, accept=True), False),
        (Fault(drop=True, accept=True), False),
    ],
)
def test_what_is_not_looked_at(fault, swallows):
    """A request that gets another answer is not looked at, unless the fault says so."""
    assert swallows == fault.swallows


@pytest.mark.parametrize(
    ("fault", "fits"),
    [
        (Fault(status=500), True),
        (Fault(status=500, path="/event"), True),
        (Fault(status=500, path="/raw/event"), False),
        (Fault(status=500, user_id="u-1"), True),
        (Fault(status=500, user_id="u-2"), False),
        (Fault(status=500, user_id="u-1", path="/raw/event"), False),
    ],
)
def test_whom_it_is_for(fault, fits):
    """A fault can be for one path, for one user, or for one user on one path."""
    assert fits == fault.fits("/event", frozenset({"u-1"}))
