"""Rows of the spool: what goes in comes out, and what does not add up is nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userlens_instrument._core.encode import Encoder, TrackPayload
from userlens_instrument._core.stored import MARK, Row, from_row, to_columns
from userlens_instrument.events import Group, Identify, Payload, Track
from userlens_instrument.settings import Settings


# Half characters, too: a log line may hold anything.
TEXTS = st.text(st.characters(), min_size=1, max_size=40)
TIMES = st.floats(0, 4e9)
ORIGINS = st.integers(0, 2**56)


@st.composite
def payloads(draw):
    """Return a payload of any kind, as the encoder makes it."""
    user = draw(TEXTS)
    fields = draw(st.dictionaries(TEXTS, TEXTS, max_size=3))
    event = draw(
        st.sampled_from(
            [
                Track(user, draw(TEXTS), fields, draw(TIMES)),
                Identify(user, fields),
                Group(draw(TEXTS), user, fields),
            ]
        )
    )
    return Encoder(Settings()).encode(event).payload


@given(payloads(), TIMES, ORIGINS)
def test_a_payload_comes_out_as_it_went_in(payload, at, origin):
    """Whatever the event: the same body, for the same lane, and it knows its row and its time."""
    found = from_row(Row(7, *to_columns(payload, at=at, origin=origin)))

    assert payload.body == found.body
    assert (payload.kind, 7, at) == (found.kind, found.row, found.at)
    user = json.loads(payload.body)["userId"]
    assert user == found.user_id


@given(TEXTS, TEXTS, TIMES, st.one_of(st.none(), TIMES, st.tuples(TEXTS, TIMES)))
def test_what_a_track_is_made_of_is_the_same_as_the_track(user, name, at, when):
    """The log call's short way, whose time may not have been looked at yet."""
    raw = (user, name, b'"n":1', when)
    found = from_row(Row(1, *to_columns(raw, at=at, origin=5)))

    assert TrackPayload(*raw).body == found.body


@given(payloads(), st.integers(0, 7), st.data())
def test_no_column_can_change_unnoticed(payload, column, data):
    """A row of which any column is another, or of another type, is nothing to send."""
    columns = list(to_columns(payload, at=5.0, origin=9))
    before = columns[column]
    other = data.draw(
        st.one_of(st.none(), st.integers(), st.floats(), TEXTS, st.binary(max_size=20))
    )
    if type(before) is bytes and before and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(before) - 1))
        flipped = before[place] ^ (1 << data.draw(st.integers(0, 7)))
        other = before[:place] + bytes([flipped]) + before[place + 1 :]
    columns[column] = other

    if repr(other) == repr(before):
        assert from_row(Row(1, *columns)) is not None
    else:
        assert from_row(Row(1, *columns)) is None


def test_text_cannot_move_from_one_column_to_the_next():
    """An id and a name that read the same one after the other are not the same row."""
    one = to_columns(TrackPayload("ab", "c", b"", None), at=1.0, origin=1)
    other = to_columns(TrackPayload("a", "bc", b"", None), at=1.0, origin=1)

    assert one[-1] != other[-1]


@pytest.mark.parametrize("kind", [MARK, "page", ""])
def test_what_is_no_event_is_nothing_to_send(kind):
    """A mark, or a kind that a later version may have, is not delivered."""
    columns = to_columns(Payload("u1", b"{}", kind), at=1.0, origin=1)

    assert from_row(Row(1, *columns)) is None


def test_half_a_character_is_stored_as_its_body_has_it():
    """UTF-8 has no form for it, and neither has SQLite."""
    half = "a\ud800"
    for payload in (TrackPayload(half, half, b"", None), Payload(half, b"{}", "identify")):
        found = from_row(Row(1, *to_columns(payload, at=1.0, origin=1)))

        assert payload.body == found.body
        assert "a\ufffd" == found.user_id


def test_minus_zero_is_zero():
    """SQLite knows one zero; the checksum does, too."""
    columns = to_columns(TrackPayload("u1", "Event", b"", -0.0), at=1.0, origin=1)

    assert "0.0" == repr(columns[4])
