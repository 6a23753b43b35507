"""Track, Identify and Group: frozen values."""

from __future__ import annotations

import dataclasses
import pickle
import typing
from datetime import datetime, timezone

import pytest
from hypothesis import given
from values import ANY_VALUES

from userlens_instrument.events import Event, Group, Identify, Loss, Payload, Track


ONE_OF_EACH = [
    Track("u1", "Plan Upgraded", {"plan": "pro"}, datetime(2026, 11, 23, tzinfo=timezone.utc)),
    Identify("u1", {"plan": "pro"}, 1.5),
    Group("g1", "u1", {"plan": "pro"}, "2026-11-23T18:00:00Z"),
    Payload("u1", b"{}", "track"),
    Loss(reason="queue_full", problem="the buffer is full"),
]


@given(ANY_VALUES, ANY_VALUES, ANY_VALUES, ANY_VALUES)
def test_making_one_never_raises(user, name, values, moment):
    """
    An event takes anything at all as its parts: it is made within the application's log call.
    """
    track = Track(user, name, values, moment)
    identify = Identify(user, values, moment)
    group = Group(name, user, values, moment)

    assert track.user_id is identify.user_id is group.user_id is user
    assert track.event is group.group_id is name
    assert track.properties is identify.traits is group.traits is values
    assert track.timestamp is identify.timestamp is group.timestamp is moment


@pytest.mark.parametrize("event", ONE_OF_EACH)
def test_frozen(event):
    """
    An event cannot be changed, so that threads can share it.
    """
    name = dataclasses.fields(event)[0].name

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, "other")


@pytest.mark.parametrize("event", ONE_OF_EACH)
def test_equal(event):
    """
    Events of equal parts are equal, also after a journey to another process.
    """
    assert event == dataclasses.replace(event)
    assert event == pickle.loads(pickle.dumps(event))


def test_positional():
    """
    The parts stand in the order in which a person says them.
    """
    assert ["user_id", "event", "properties", "timestamp"] == _names(Track)
    assert ["user_id", "traits", "timestamp"] == _names(Identify)
    assert ["group_id", "user_id", "traits", "timestamp"] == _names(Group)


def test_event():
    """
    An event is one of the three, and the alias says so at run time.
    """
    assert {Track, Identify, Group} == set(typing.get_args(Event))
    assert isinstance(Track("u1", "Plan Upgraded"), Event)


def _names(kind):
    return [field.name for field in dataclasses.fields(kind)]
