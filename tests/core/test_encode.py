"""An event to its payload."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from schema import assert_valid
from values import (
    HASHABLE,
    HOSTILE,
    VALUES,
    EndlessMapping,
    LyingMapping,
    RaisingMapping,
    any_mappings,
    cycle,
    hostile,
    strict,
    walk,
)

from userlens_instrument._core import jsonable
from userlens_instrument._core.encode import Encoder
from userlens_instrument._core.extract import LONGEST_ID, LONGEST_NAME, normalize
from userlens_instrument._core.jsonable import TRUNCATED
from userlens_instrument._core.redact import BUILT_IN, REDACTED
from userlens_instrument.events import Group, Identify, Track
from userlens_instrument.exceptions import InvalidEventError
from userlens_instrument.settings import Settings


# 2026-11-23 18:00:00.25 UTC.
NOW = 1_795_456_800.25


@pytest.fixture(params=["orjson", "json"])
def encoder(request, monkeypatch):
    """With orjson, and without."""
    if request.param == "json":
        monkeypatch.setattr(jsonable, "orjson", None)
    return request.param


both = pytest.mark.usefixtures("encoder")


def encode(event, **settings):
    return Encoder(Settings(**settings)).encode(normalize(event, default_time=NOW))


def body_of(event, **settings):
    return encode(event, **settings).payload.body


# ---------------------------------------------------------------- the wire form


@both
def test_track():
    """
    A track is what the contract says, byte for byte.
    """
    body = body_of(Track("u-1", "Plan Upgraded", {"to_plan": "pro", "seats": 5}))

    assert (
        b'{"type":"track","userId":"u-1","source":"userlens-restapi","event":"Plan Upgraded",'
        b'"properties":{"to_plan":"pro","seats":5},"timestamp":"2026-11-23T18:00:00.250000Z"}'
    ) == body


@both
def test_identify():
    """
    An identify is what the contract says, byte for byte.
    """
    body = body_of(Identify("u-1", {"email": "ada@example.com"}))

    assert (
        b'{"type":"identify","userId":"u-1","source":"userlens-restapi",'
        b'"traits":{"email":"ada@example.com"}}'
    ) == body


@both
def test_group():
    """
    A group is what the contract says, byte for byte.
    """
    body = body_of(Group("g-1", "u-1", {"name": "Acme"}))

    assert (
        b'{"type":"group","groupId":"g-1","userId":"u-1","source":"userlens-restapi",'
        b'"traits":{"name":"Acme"}}'
    ) == body


@pytest.mark.parametrize(
    ("event", "last"),
    [
        (Track("u", "e"), "timestamp"),
        (Track("u", "e", {}), "timestamp"),
        (Identify("u"), "traits"),
        (Group("g", "u"), "source"),
        (Group("g", "u", {}), "source"),
    ],
)
def test_nothing_to_tell(event, last):
    """
    What is optional and empty is left out; the traits of an identify are not optional.
    """
    body = json.loads(body_of(event))

    assert_valid(body)
    assert last == list(body)[-1]


def test_payload():
    """
    A payload knows its lane and its kind, and its lane is the userId of its body.
    """
    payload = encode(Track(5, "e")).payload

    assert ("5", "track") == (payload.user_id, payload.kind)
    assert "5" == json.loads(payload.body)["userId"]
    assert "identify" == encode(Identify("u")).payload.kind
    assert "group" == encode(Group("g", "u")).payload.kind


def test_no_timestamp():
    """
    With send_timestamp off, the body is exactly the documented one.
    """
    body = json.loads(body_of(Track("u", "e", {"a": 1}), send_timestamp=False))

    assert {
        "type": "track",
        "userId": "u",
        "source": "userlens-restapi",
        "event": "e",
        "properties": {"a": 1},
    } == body


def test_no_time_known():
    """
    An event of which nobody knows the time is sent without one.
    """
    event = normalize(Track("u", "e"), default_time=float("nan"))

    assert "timestamp" not in json.loads(Encoder(Settings()).encode(event).payload.body)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("length", "max_string", "kept"),
    [(512, 4096, 512), (513, 4096, 512), (64, 64, 64), (65, 64, 64)],
)
def test_long_name(length, max_string, kept):
    """
    An event's name is cut to 512 characters or to max_string, whichever is less, and counted.
    """
    encoded = encode(Track("u", "n" * length), max_string=max_string)

    name = json.loads(encoded.payload.body)["event"]
    assert (kept, length > kept) == (len(name), encoded.cut)
    assert (length > kept) == name.endswith("…")


def test_ids_are_never_cut():
    """
    Two long ids that differ at their ends stay two: max_string is not for identity.
    """
    body = json.loads(body_of(Group("g" * LONGEST_ID, "u" * LONGEST_ID), max_string=16))

    assert ("g" * LONGEST_ID, "u" * LONGEST_ID) == (body["groupId"], body["userId"])


# ---------------------------------------------------------------- what is left out


def test_allow():
    """
    With an allow-list, nothing else is sent, in the order of the list.
    """
    event = Track("u", "e", {"plan": "pro", "email": "x", "seats": 5, "password": "hunter2"})

    body = json.loads(body_of(event, allow=["seats", "plan", "password", "gone"]))

    assert [("seats", 5), ("plan", "pro"), ("password", REDACTED)] == list(
        body["properties"].items()
    )


def test_allow_nothing():
    """
    An empty allow-list sends no property at all.
    """
    assert "properties" not in json.loads(body_of(Track("u", "e", {"a": 1}), allow=()))


@pytest.mark.parametrize("make", [EndlessMapping, RaisingMapping, LyingMapping, cycle])
def test_allow_of_a_hostile_mapping(make):
    """
    An allow-list is looked up, name by name: a mapping without end, or that raises, does no harm.
    """
    body = strict(body_of(Track("u", "e", make()), allow=["key1", "again"]))

    assert_valid(body)


def test_redact():
    """
    The names to hide come from the settings, and are counted.
    """
    encoded = encode(Track("u", "e", {"homeAddress": "x", "token": "y"}), redact=["home_address"])

    assert {"homeAddress": REDACTED, "token": REDACTED} == json.loads(encoded.payload.body)[
        "properties"
    ]
    assert 2 == encoded.redacted


SECRET = "hunter2-7f3a9d"

CONTAINERS = {
    "dict": lambda value: {"inner": value},
    "list": lambda value: [1, value],
    "tuple": lambda value: (value, "x"),
    "pairs": lambda value: {"a": [{"b": value}]},
}


@given(
    st.sampled_from(BUILT_IN),
    st.data(),
    st.lists(st.sampled_from(sorted(CONTAINERS)), max_size=3),
    st.sampled_from([SECRET, [SECRET], {"a": SECRET}, SECRET.encode(), (1, SECRET), {SECRET}]),
    st.sampled_from([Track, Identify, Group]),
)
def test_planted_secret(name, data, path, value, kind):
    """
    A value under any casing of a secret's name, at any depth, is in no body.
    """
    letters = [data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name]
    before = data.draw(st.sampled_from(["", "user_", "x-"]))
    planted = {before + "".join(letters): value}
    for step in path:
        planted = CONTAINERS[step](planted)
    values = planted if isinstance(planted, dict) else {"outer": planted}
    event = kind("u", "e", values) if kind is not Identify else Identify("u", values)

    encoded = encode(event, max_depth=16)

    assert SECRET.encode() not in encoded.payload.body
    assert REDACTED.encode() in encoded.payload.body
    assert 1 <= encoded.redacted


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("letter", ["x", "漢", "\x00", "😀", "\ud800", '"', "\\"])
@pytest.mark.parametrize("max_body_bytes", [8192, 20_000, 64 * 1024])
def test_large_body(letter, max_body_bytes):
    """
    A body that would be too large is encoded with less and less in it until it fits.
    """
    encoded = encode(
        Track("u", "e", {str(n): letter * 4096 for n in range(128)}), max_body_bytes=max_body_bytes
    )

    tree = strict(encoded.payload.body)
    assert_valid(tree)
    assert len(encoded.payload.body) <= max_body_bytes
    assert 0 < encoded.cut


@pytest.mark.parametrize("letter", ["x", "漢", "\x00", "😀", '"', "\x7f", "\u202e"])
@pytest.mark.parametrize("kind", [Track, Identify, Group])
@both
def test_smallest_body_holds_the_largest_ids(letter, kind):
    """
    The smallest max_body_bytes has room for the longest ids and name, if not for a property.
    """
    longest = [letter * LONGEST_ID, letter * LONGEST_NAME][: 1 + (kind is not Identify)]
    values = {str(n): {"\x00" * 1024: "\x00" * 1024} for n in range(128)}

    encoded = encode(kind(*longest, values), max_body_bytes=8192, max_string=10_000)

    tree = strict(encoded.payload.body)
    assert_valid(tree)
    assert letter * LONGEST_ID == tree["userId"]
    assert len(encoded.payload.body) <= 8192


def test_no_room_for_any_property():
    """
    Where not even little fits beside long ids, the properties are one mark.
    """
    values = {f"{n}{'漢' * 60}": "\x00" * 60 for n in range(16)}
    event = Track("\x00" * 512, "\x00" * 512, values)

    encoded = encode(event, max_body_bytes=8192)

    assert {TRUNCATED: "too large"} == json.loads(encoded.payload.body)["properties"]
    assert (1, 0) == (encoded.cut, encoded.redacted)


def test_not_normalized():
    """
    Ids longer than `normalize` lets through are refused here at the latest, never sent too large.
    """
    with pytest.raises(InvalidEventError, match="too large") as caught:
        Encoder(Settings(max_body_bytes=8192)).encode(Track("u" * 10_000, "e", None, NOW))

    assert "too_large" == caught.value.reason


@given(
    any_mappings(),
    st.sampled_from([Track, Identify, Group]),
    st.integers(16, 200),
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(8192, 20_000),
    st.none() | st.lists(st.text(min_size=1), max_size=3),
)
@both
def test_any_properties(values, kind, max_string, max_properties, max_depth, size, allow):
    """
    Any mapping becomes a valid body within every limit, and nothing is raised.
    """
    event = Identify("u", values) if kind is Identify else kind("u", "e", values)

    encoded = encode(
        event,
        max_string=max_string,
        max_properties=max_properties,
        max_depth=max_depth,
        max_body_bytes=size,
        allow=allow,
    )

    tree = strict(encoded.payload.body)
    assert_valid(tree)
    assert len(encoded.payload.body) <= size
    for depth, value in walk(tree.get("properties", tree.get("traits", {}))):
        if isinstance(value, (dict, list)):
            assert depth < max_depth
            assert len(value) <= max_properties + 1


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_values(number):
    """
    An object that raises whatever it is asked does not keep its event from being sent.
    """
    body = strict(body_of(Track("u", "e", {"value": HOSTILE[number](), "plan": "pro"})))

    assert_valid(body)
    assert "pro" == body["properties"]["plan"]


@pytest.mark.parametrize("make", [RaisingMapping, LyingMapping, lambda: hostile(dict, {"a": 1})])
def test_hostile_mapping(make):
    """
    Properties that raise when they are asked whether there are any do not lose their event.
    """
    assert_valid(strict(body_of(Track("u", "e", make()))))


# ---------------------------------------------------------------- fixed at the log call


def test_payload_is_fixed():
    """
    What the application changes after the log call does not change the body.
    """
    inner = [1, {"a": bytearray(b"before")}]
    values = {"inner": inner, "plan": "pro"}
    encoded = encode(Track("u", "e", values))
    before = bytes(encoded.payload.body)

    values["plan"] = "free"
    inner[1]["a"][:] = b"after!"
    inner.clear()
    values.clear()

    assert before == encoded.payload.body
    assert {"inner": [1, {"a": "before"}], "plan": "pro"} == json.loads(before)["properties"]
    assert type(encoded.payload.body) is bytes


@given(st.dictionaries(HASHABLE, VALUES, max_size=4), st.text(min_size=1), st.floats(0, 4e9))
def test_same_bytes_each_time(values, name, moment):
    """
    The same event makes the same bytes, whatever was encoded before.
    """
    assume(not name.isspace())
    encoder = Encoder(Settings())
    event = normalize(Track("u", name, values, moment), default_time=NOW)

    first = encoder.encode(event)
    body = first.payload.body
    encoder.encode(Track("other", "Other", {"a": [1]}, 0.0))
    again = encoder.encode(dataclasses.replace(event))

    assert body == first.payload.body == again.payload.body
    assert (first.cut, first.redacted) == (again.cut, again.redacted)


@given(st.dictionaries(HASHABLE, VALUES, max_size=4), st.text(min_size=1))
def test_both_encoders_mean_the_same(values, name):
    """
    With and without orjson, a body has the same keys, values and order.
    """
    assume(not name.isspace())
    event = normalize(Track("u", name, values), default_time=NOW)
    found = []
    for library in (jsonable.orjson, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonable, "orjson", library)
            found.append(json.dumps(strict(Encoder(Settings()).encode(event).payload.body)))

    assert found[0] == found[1]


def test_same_bytes_in_every_process(encoder):
    """
    The same event makes the same bytes under any PYTHONHASHSEED.
    """
    code = f"""
import sys
from userlens_instrument._core import jsonable
from userlens_instrument._core.encode import Encoder
from userlens_instrument.events import Track
from userlens_instrument.settings import Settings
if {encoder!r} == "json":
    jsonable.orjson = None
values = {{"tags": {{"a", "b", "c", 1, None}}, "plan": "pro", 1: 2, "1": 3}}
settings = Settings(allow={{"tags", "plan", "other"}}, redact={{"x", "y", "z"}})
for s in (settings, Settings()):
    sys.stdout.buffer.write(Encoder(s).encode(Track("u", "e", values, 1.5)).payload.body)
"""
    bodies = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }

    assert 1 == len(bodies)


def test_keyboard_interrupt():
    """
    What is no Exception goes through the encoder: somebody wants the process to end.
    """

    class Interrupting:
        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(Track("u", "e", {"a": Interrupting()}))
