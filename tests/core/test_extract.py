"""Record fields to events, or the reason why not."""

# ruff: noqa: DTZ001 - times without a zone are what applications log

from __future__ import annotations

import enum
import itertools
import types
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema import assert_valid
from values import (
    ANY_VALUES,
    HASHABLE,
    HOSTILE,
    AnswersAll,
    Endless,
    EndlessMapping,
    LyingMapping,
    Name,
    RaisingMapping,
    Untrue,
    any_mappings,
    explode,
    hostile,
    strict,
)

from userlens_instrument._core.encode import Encoder
from userlens_instrument._core.extract import (
    LONGEST_ID,
    Plumbing,
    Reader,
    Record,
    identifier,
    normalize,
)
from userlens_instrument.events import Group, Identify, Track
from userlens_instrument.exceptions import InvalidEventError
from userlens_instrument.settings import Settings


# 2026-11-23 18:00:00 UTC.
NOW = 1_795_456_800.0
EARLIER = 1_700_000_000.0

PLUMBING = Plumbing(
    frozenset({"event", "level", "timestamp", "logger"}),
    callsite=frozenset({"module", "process"}),
    names_of_callsite=frozenset({"lineno", "pathname"}),
)
READER = Reader(
    user_id_keys=("user_id", "userId", "userlens_user_id"),
    group_id_keys=("group_id", "groupId", "userlens_group_id"),
    plumbing=PLUMBING,
)


def record(fields=None, *, message="Plan Upgraded", context=None, created=NOW):
    return Record(
        fields={} if fields is None else fields,
        message=message,
        created=created,
        context=lambda: context or {},
    )


def read(tag, fields=None, **options):
    return READER.read(tag, record(fields, **options))


def one(tag, fields=None, **options):
    """Return the one event of *tag*."""
    (event,) = read(tag, fields, **options)
    if isinstance(event, InvalidEventError):
        raise event
    return event


def reason(tag, fields=None, **options):
    """Return why *tag* makes no event."""
    (error,) = read(tag, fields, **options)
    assert isinstance(error, InvalidEventError), error
    return error.reason


# ---------------------------------------------------------------- the table of design.md


@pytest.mark.parametrize("tag", [True, "track", hostile(str, "track")], ids=["True", "str", "sub"])
def test_track_named_by_the_message(tag):
    """
    True, or "track": a track named by the log message.
    """
    assert Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW) == one(
        tag, {"user_id": "u1", "plan": "pro"}
    )


def test_identify():
    """
    "identify": the record's fields are the traits.
    """
    assert Identify("u1", {"plan": "pro"}, NOW) == one("identify", {"user_id": "u1", "plan": "pro"})


def test_group():
    """
    "group": needs a group id; the record's fields are the traits.
    """
    fields = {"user_id": "u1", "group_id": "g1", "plan": "pro"}

    assert Group("g1", "u1", {"plan": "pro"}, NOW) == one("group", fields)
    assert "missing_group_id" == reason("group", {"user_id": "u1"})
    assert "missing_user_id" == reason("group", {"group_id": "g1"})


@pytest.mark.parametrize(
    "tag",
    ["Report Exported", Name.UPGRADED, hostile(str, "Seat Added")],
    ids=["plain", "enum", "hostile"],
)
def test_any_other_string(tag):
    """
    Any other string: a track of that name. Of a str subclass, an Enum say, it is the value.
    """
    expected = str.__str__(tag)

    assert Track("u1", expected, {}, NOW) == one(tag, {"user_id": "u1"})


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ({}, Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW)),
        ({"type": "track"}, Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW)),
        ({"type": None, "event": None}, Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW)),
        ({"event": "Seat Added"}, Track("u1", "Seat Added", {"plan": "pro"}, NOW)),
        ({"user_id": "u2"}, Track("u2", "Plan Upgraded", {"user_id": "u1", "plan": "pro"}, NOW)),
        ({"userId": 7}, Track("7", "Plan Upgraded", {"user_id": "u1", "plan": "pro"}, NOW)),
        ({"properties": {"a": 1}}, Track("u1", "Plan Upgraded", {"a": 1}, NOW)),
        ({"properties": {}}, Track("u1", "Plan Upgraded", {}, NOW)),
        ({"traits": {"a": 1}}, Track("u1", "Plan Upgraded", {"a": 1}, NOW)),
        ({"timestamp": EARLIER}, Track("u1", "Plan Upgraded", {"plan": "pro"}, EARLIER)),
        ({"timestamp": "soon"}, Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW)),
        ({"type": "identify"}, Identify("u1", {"plan": "pro"}, NOW)),
        ({"type": "identify", "traits": {"a": 1}}, Identify("u1", {"a": 1}, NOW)),
        ({"type": "identify", "properties": {"a": 1}}, Identify("u1", {"a": 1}, NOW)),
        ({"type": "group", "group_id": "g1"}, Group("g1", "u1", {"plan": "pro"}, NOW)),
        ({"type": "group", "groupId": 5, "traits": {}}, Group("5", "u1", {}, NOW)),
        (
            types.MappingProxyType({"type": hostile(str, "identify")}),
            Identify("u1", {"plan": "pro"}, NOW),
        ),
    ],
)
def test_mapping(tag, expected):
    """
    A mapping: exactly that; what it leaves out comes from the record.
    """
    assert expected == one(tag, {"user_id": "u1", "plan": "pro"})


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (Track(5, "Seat Added"), Track("5", "Seat Added", {}, NOW)),
        (
            Track("u2", "Seat Added", {"a": 1}, EARLIER),
            Track("u2", "Seat Added", {"a": 1}, EARLIER),
        ),
        (Identify("u2", {"a": 1}), Identify("u2", {"a": 1}, NOW)),
        (Group(uuid.UUID(int=1), "u2"), Group(str(uuid.UUID(int=1)), "u2", {}, NOW)),
    ],
)
def test_typed(tag, expected):
    """
    Track(…), Identify(…), Group(…): exactly that, whatever else is on the record.
    """
    assert expected == one(tag, {"user_id": "u1", "plan": "pro"})


@pytest.mark.parametrize("kind", [list, tuple])
def test_list(kind):
    """
    A list of any of these: several events, in that order; what is wrong does not stop the others.
    """
    tag = kind([True, None, "identify", False, Track("u2", "Seat Added"), 5, {"event": "Done"}])

    found = read(tag, {"user_id": "u1"})

    assert [
        Track("u1", "Plan Upgraded", {}, NOW),
        Identify("u1", {}, NOW),
        Track("u2", "Seat Added", {}, NOW),
    ] == found[:3]
    assert "invalid_tag" == found[3].reason
    assert [Track("u1", "Done", {}, NOW)] == found[4:]


@pytest.mark.parametrize("tag", [False, None, [], (), [None, False]], ids=str)
def test_not_an_event(tag):
    """
    False and None: not an event.
    """
    assert [] == read(tag, {"user_id": "u1"})


@pytest.mark.parametrize(
    "tag",
    [0, 1, 1.0, b"track", object(), {"a"}, Track, [["track"]], len],
    ids=lambda tag: type(tag).__name__,
)
def test_invalid_tag(tag):
    """
    Anything else: not an event, for a reason that names the type and what would be right.
    """
    (error,) = read(tag, {"user_id": "u1"})

    assert "invalid_tag" == error.reason
    assert "tag with True, 'identify', 'group', an event name" in error.fix


@pytest.mark.parametrize("make", [list, Endless])
def test_too_many_events(make):
    """
    Of a list of a hundred events and more, the first hundred are made, and it is said once.
    """
    found = read(make([True] * 150 if make is list else []), {"user_id": "u1"})

    assert 101 == len(found)
    assert "too_many_events" == found[-1].reason


def test_million_events():
    """
    A list of ten million tags does not hold up the log call.
    """
    assert 101 == len(read([None, *[True] * 99] + [True] * 10**7, {"user_id": "u1"})) + 1


# ---------------------------------------------------------------- every way to be wrong


@pytest.mark.parametrize(
    ("tag", "fields", "expected", "fix"),
    [
        (True, {}, "missing_user_id", "user_id=…"),
        (True, {"user_id": None}, "missing_user_id", "bind_contextvars"),
        (True, {"user_id": ""}, "invalid_user_id", "non-empty"),
        (True, {"user_id": " \t"}, "invalid_user_id", "non-empty"),
        (True, {"user_id": True}, "invalid_user_id", "non-empty"),
        (True, {"user_id": False}, "invalid_user_id", "non-empty"),
        (True, {"user_id": 1.0}, "invalid_user_id", "an integer or a UUID"),
        (True, {"user_id": Decimal(1)}, "invalid_user_id", "an integer or a UUID"),
        (True, {"user_id": b"u1"}, "invalid_user_id", "an integer or a UUID"),
        (True, {"user_id": ["u1"]}, "invalid_user_id", "an integer or a UUID"),
        (True, {"user_id": object()}, "invalid_user_id", "an integer or a UUID"),
        (True, {"user_id": "u" * 513}, "invalid_user_id", "id alone"),
        (True, {"user_id": "\ud800"}, "invalid_user_id", "id alone"),
        (True, {"user_id": 10**5000}, "invalid_user_id", "id alone"),
        ("group", {"user_id": "u1"}, "missing_group_id", "group_id=…"),
        ("group", {"user_id": "u1", "group_id": ""}, "invalid_group_id", "non-empty"),
        ("group", {"user_id": "u1", "group_id": 1.5}, "invalid_group_id", "an integer or a UUID"),
        ({"type": "page"}, {}, "unknown_type", "'track', 'identify' or 'group'"),
        ({"type": True}, {}, "unknown_type", "'track', 'identify' or 'group'"),
        ({"type": "x" * 10**7}, {}, "unknown_type", "'track', 'identify' or 'group'"),
        ({"usr_id": "u1"}, {}, "unknown_key", "did you mean user_id?"),
        ({"plan": "pro"}, {}, "unknown_key", "'properties' or 'traits'"),
        ({5: "pro"}, {}, "unknown_key", "'properties' or 'traits'"),
        ({"x" * 10**7: "pro"}, {}, "unknown_key", "'properties' or 'traits'"),
        ({"properties": 5}, {"user_id": "u1"}, "invalid_properties", "mapping"),
        ({"properties": [("a", 1)]}, {"user_id": "u1"}, "invalid_properties", "mapping"),
        ({"type": "identify", "traits": "x"}, {"user_id": "u1"}, "invalid_traits", "mapping"),
        (Track("u1", "e", 5), {}, "invalid_properties", "mapping"),
        (Identify("u1", "e"), {}, "invalid_traits", "mapping"),
        (Group("g1", "u1", 5), {}, "invalid_traits", "mapping"),
        (Track("u1", "e", None, "soon"), {}, "invalid_timestamp", "datetime"),
        (Track("u1", "e", None, -1), {}, "invalid_timestamp", "datetime"),
        (Identify("u1", {}, True), {}, "invalid_timestamp", "datetime"),
        (Track("u1", ""), {}, "missing_event_name", "log a message"),
        (Track("u1", None), {}, "missing_event_name", "log a message"),
        (Track("u1", " \n"), {}, "missing_event_name", "log a message"),
        ({"event": {"a": 1}}, {"user_id": "u1"}, "missing_event_name", "log a message"),
        ("", {"user_id": "u1"}, "missing_event_name", "log a message"),
        (Group("", "u1"), {}, "invalid_group_id", "non-empty"),
        (Group(None, "u1"), {}, "invalid_group_id", "non-empty"),
        (Track(None, "e"), {}, "invalid_user_id", "non-empty"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reasons(tag, fields, expected, fix):
    """
    Each way to be wrong has its own word, and a fix.
    """
    (error,) = read(tag, fields)

    assert expected == error.reason
    assert fix in error.fix
    assert len(str(error)) < 300


def test_no_value_in_a_reason():
    """
    The value of an id or of a property is in no message: it is somebody's, and may be a secret.
    """
    for tag, fields in [
        (True, {"user_id": ["hunter2"]}),
        (True, {"user_id": "hunter2" * 200}),
        ({"properties": "hunter2"}, {"user_id": "u1"}),
        (Track("u1", "e", None, "hunter2"), {}),
    ]:
        (error,) = read(tag, fields)
        assert "hunter2" not in str(error)


# ---------------------------------------------------------------- ids


class Kind(str, enum.Enum):
    ONE = "u1"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("u1", "u1"),
        (" u1 ", " u1 "),
        ("naïve 漢字 😀", "naïve 漢字 😀"),
        ("u" * LONGEST_ID, "u" * LONGEST_ID),
        (0, "0"),
        (-5, "-5"),
        (2**64, "18446744073709551616"),
        (2**1024 - 1, str(2**1024 - 1)),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Kind.ONE, "u1"),
        (Number.ONE, "1"),
        (hostile(str, "u1"), "u1"),
        (hostile(int, 7), "7"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ids(value, expected):
    """
    A string, an integer or a UUID is an id, and travels as a plain string.
    """
    found = identifier(value, "user")

    assert expected == found
    assert type(found) is str


def test_numpy_ids():
    """
    numpy's integers are integers; its booleans and floats are no ids.
    """
    numpy = pytest.importorskip("numpy")

    assert "7" == identifier(numpy.int64(7), "user")
    assert "7" == identifier(numpy.uint8(7), "user")
    for value in (numpy.bool_(True), numpy.float64(7), numpy.array(7), numpy.array([7])):
        with pytest.raises(InvalidEventError):
            identifier(value, "user")


@pytest.mark.parametrize("value", [MagicMock(), AnswersAll()], ids=["mock", "all"])
def test_mock_is_no_id(value):
    """
    A Mock, which has a number for every question, is no id.
    """
    with pytest.raises(InvalidEventError, match="of type"):
        identifier(value, "user")


@given(st.text(), st.sampled_from(["user", "group"]))
def test_any_text_as_an_id(text, what):
    """
    Any text is an id as it is, or is refused with a reason.
    """
    if text.strip() and len(text) <= LONGEST_ID and _encodes(text):
        assert text == identifier(text, what)
    else:
        with pytest.raises(InvalidEventError) as caught:
            identifier(text, what)
        assert f"invalid_{what}_id" == caught.value.reason


@given(st.integers())
def test_any_integer_as_an_id(number):
    """
    Any integer of a sensible size is an id: its digits.
    """
    assert str(number) == identifier(number, "user")


@pytest.mark.parametrize("name", READER.user_id_keys)
def test_names_of_the_user_id(name):
    """
    The user id is found under each of its names, and is no property then.
    """
    assert Track("u1", "Plan Upgraded", {"plan": "pro"}, NOW) == one(
        True, {name: "u1", "plan": "pro"}
    )


@pytest.mark.parametrize("name", READER.group_id_keys)
def test_names_of_the_group_id(name):
    """
    The group id is found under each of its names, and is no trait then; a track keeps it.
    """
    fields = {"user_id": "u1", name: "g1"}

    assert Group("g1", "u1", {}, NOW) == one("group", fields)
    assert Track("u1", "Plan Upgraded", {name: "g1"}, NOW) == one(True, fields)


def test_best_name_first():
    """
    Of several names the first one counts; the others stay properties.
    """
    assert Track("u1", "Plan Upgraded", {"userId": "u2"}, NOW) == one(
        True, {"userId": "u2", "user_id": "u1"}
    )


def test_names_are_settings():
    """
    What the ids are called is up to the settings.
    """
    reader = Reader(user_id_keys=("customer",), group_id_keys=("account",), plumbing=PLUMBING)

    found = reader.read("group", record({"customer": 1, "account": 2, "user_id": 3}))

    assert [Group("2", "1", {"user_id": 3}, NOW)] == found
    (error,) = reader.read(True, record({"user_id": 3}))
    assert "customer=…" in error.fix


def test_ids_of_the_context():
    """
    What the record does not say of who it was, the context says.
    """
    context = {"user_id": "u9", "group_id": "g9"}

    assert Track("u9", "Plan Upgraded", {}, NOW) == one(True, context=context)
    assert Track("u1", "Plan Upgraded", {}, NOW) == one(True, {"userId": "u1"}, context=context)
    assert Group("g9", "u1", {}, NOW) == one("group", {"user_id": "u1"}, context=context)


def test_none_is_as_good_as_absent():
    """
    An id of None on the record or in the tag leaves the word to the next place.
    """
    context = {"user_id": "u9"}

    assert (
        "u9" == one({"user_id": None}, {"user_id": None, "userId": None}, context=context).user_id
    )


def test_empty_is_not_absent():
    """
    An empty id on the record is a mistake, and not a leave to take another user's.
    """
    assert "invalid_user_id" == reason(True, {"user_id": ""}, context={"user_id": "u9"})


# ---------------------------------------------------------------- properties and traits


def test_properties_taken_exactly():
    """
    A field "properties" that is a mapping is exactly the properties, and nothing else is.
    """
    exact = {"a": 1, "user_id": "x", "level": "y"}

    assert exact is one(True, {"user_id": "u1", "properties": exact, "b": 2}).properties
    assert {"traits": {"a": 1}} == one(True, {"user_id": "u1", "traits": {"a": 1}}).properties
    assert {"properties": 5} == one(True, {"user_id": "u1", "properties": 5}).properties


@pytest.mark.parametrize("kind", ["identify", "group"])
def test_traits_taken_exactly(kind):
    """
    A field "traits" that is a mapping is exactly the traits, and nothing else is.
    """
    exact = {"a": 1}
    fields = {"user_id": "u1", "group_id": "g1", "b": 2}

    assert exact is one(kind, fields | {"traits": exact}).traits
    assert {"b": 2, "properties": exact} | ({} if kind == "group" else {"group_id": "g1"}) == one(
        kind, fields | {"properties": exact}
    ).traits


def test_context_is_no_trait():
    """
    What merely surrounds the call is a property of a track, but describes nobody.
    """
    context = {"request_id": "r-123456", "path": "/upgrade", "user_id": "u1", "tenant": "t"}
    fields = {**context, "plan": "pro", "tenant": "another"}

    assert {"request_id": "r-123456", "path": "/upgrade", "tenant": "another", "plan": "pro"} == (
        one(True, fields, context=context).properties
    )
    assert {"plan": "pro", "tenant": "another"} == one("identify", fields, context=context).traits
    assert {"plan": "pro", "tenant": "another"} == (
        one("group", {**fields, "group_id": "g"}, context=context).traits
    )


def test_context_is_no_property_of_its_own():
    """
    What was not merged onto the record is no property of it.
    """
    assert {} == one(True, {"user_id": "u1"}, context={"path": "/"}).properties


@pytest.mark.parametrize(
    "name",
    [
        *("event", "level", "timestamp", "logger", "color_message", "lineno", "pathname"),
        *("_record", "_from_structlog", "_", "otelTraceID", "otelSpanID", "dd.trace_id", "dd.env"),
        *("sentry_trace", "sentry"),
    ],
)
def test_plumbing(name):
    """
    What every record carries, and what other people's instrumentation writes, is no property.
    """
    assert {"plan": "pro"} == one(True, {"user_id": "u1", name: "x", "plan": "pro"}).properties


@pytest.mark.parametrize("name", ["module", "process"])
def test_call_site(name):
    """
    A name shared with the call site is data, unless the call site is there.
    """
    fields = {"user_id": "u1", name: "billing"}

    assert {name: "billing"} == one(True, fields).properties
    assert {} == one(True, fields | {"lineno": 5}).properties


def test_names_that_are_no_text():
    """
    A field of which the name is no text is a property: nobody's plumbing has such names.
    """
    fields = {"user_id": "u1", 5: "a", None: "b", ("x",): "c", True: "d"}

    assert {5: "a", None: "b", ("x",): "c", True: "d"} == one(True, fields).properties


@pytest.mark.parametrize("length", [10, 1000])
def test_more_names_than_are_remembered(length):
    """
    Names made up by the thousand are told apart as rightly as the first ones.
    """
    plumbing = Plumbing(frozenset({"level"}))

    for n in range(6_000):
        name = f"{n:0{length}}"
        assert {name: 1} == plumbing.own_fields({name: 1, f"_{name}": 2, "level": 3})


def test_nothing_is_changed():
    """
    The application's own dicts are only looked at.
    """
    inner = {"a": 1}
    tag = {"event": "e", "type": "identify"}
    fields = {"user_id": "u1", "inner": inner, "level": "info", "timestamp": "x"}
    context = {"user_id": "u2", "inner": inner}
    before = repr((tag, fields, context))

    one(tag, fields, context=context)

    assert before == repr((tag, fields, context))


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Plan Upgraded", "Plan Upgraded"),
        ("Exported %d rows", "Exported %d rows"),
        (b"Plan Upgraded", "Plan Upgraded"),
        (b"\xff", "\ufffd"),
        (Name.UPGRADED, "Plan Upgraded"),
        (hostile(str, "text"), "text"),
        (ValueError("no plan"), "no plan"),
        (404, "404"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_names(message, expected):
    """
    The name of a track is the text of the message, whatever the message is made of.
    """
    found = one(True, {"user_id": "u1"}, message=message).event

    assert expected == found
    assert type(found) is str


@pytest.mark.parametrize(
    "message",
    [
        None,
        "",
        "  ",
        {"password": "hunter2"},
        ["a"],
        ("a",),
        {"a"},
        Track("u1", "Named", {"api_key": "sk_live_1"}),
        dataclass(type("Login", (), {"__annotations__": {"password": str}}))("hunter2"),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_name(message):
    """
    A dict or a list that was logged is data, and no name; nor is an object without a text of its
    own, or nothing.
    """
    assert "missing_event_name" == reason(True, {"user_id": "u1"}, message=message)
    assert Identify("u1", {}, NOW) == one("identify", {"user_id": "u1"}, message=message)


# ---------------------------------------------------------------- times


UTC_TIME = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)


@pytest.mark.parametrize("value", [EARLIER, int(EARLIER), UTC_TIME, "2023-11-14T22:13:20Z"])
@pytest.mark.parametrize("tag", [True, "identify", "group", Track("u1", "e"), {"event": "e"}])
def test_timestamp_of_the_record(tag, value):
    """
    A timestamp on the record that parses is the event's time, and no property.
    """
    fields = {"user_id": "u1", "group_id": "g1", "timestamp": value}

    assert EARLIER == one(tag, fields).timestamp


@pytest.mark.parametrize(
    "value", ["soon", None, True, -1, 10**400, datetime(1, 1, 1), {}, float("nan")]
)
def test_timestamp_that_does_not_parse(value):
    """
    A timestamp on the record or in a mapping that does not parse leaves when the record was made.
    """
    assert NOW == one({"timestamp": value}, {"user_id": "u1", "timestamp": value}).timestamp


def test_best_time_first():
    """
    The tag's own time goes before the record's.
    """
    fields = {"user_id": "u1", "timestamp": NOW - 1}

    assert EARLIER == one({"timestamp": EARLIER}, fields).timestamp
    assert EARLIER == one(Track("u1", "e", None, EARLIER), fields).timestamp
    assert NOW - 1 == one(Track("u1", "e"), fields).timestamp


@pytest.mark.parametrize("created", [None, float("nan"), -1.0, "soon", 10**400])
def test_no_time_at_all(created):
    """
    A record that was made at no time has an event without one: better than none.
    """
    assert one(True, {"user_id": "u1"}, created=created).timestamp is None


# ---------------------------------------------------------------- normalize


EVENTS = st.one_of(
    st.builds(Track, *[HASHABLE] * 2, st.none() | any_mappings(), HASHABLE),
    st.builds(Identify, HASHABLE, st.none() | any_mappings(), HASHABLE),
    st.builds(Group, *[HASHABLE] * 2, st.none() | any_mappings(), HASHABLE),
)


@given(EVENTS)
def test_normalize(event):
    """
    Any event becomes one of plain strings and a float, the same if done again; or is refused.
    """
    try:
        found = normalize(event, default_time=NOW)
    except InvalidEventError:
        return

    assert type(event) is type(found)
    assert type(found.user_id) is str
    assert type(found.timestamp) is float
    assert found.__class__ is not Group or type(found.group_id) is str
    again = normalize(found, default_time=0.0)
    assert (found.user_id, found.timestamp) == (again.user_id, again.timestamp)


# ---------------------------------------------------------------- any tag, any fields


TAGS = (
    st.sampled_from([True, "track", "identify", "group", "Plan Upgraded"])
    | ANY_VALUES
    | EVENTS
    | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["track", "identify", "group"]) | ANY_VALUES,
            "event": ANY_VALUES,
            "user_id": HASHABLE,
            "userId": ANY_VALUES,
            "group_id": ANY_VALUES,
            "properties": any_mappings() | ANY_VALUES,
            "traits": any_mappings(),
            "timestamp": ANY_VALUES,
        },
    )
)
RECORDS = st.builds(
    lambda fields, message, context, ids: record(
        {**fields, **ids}, message=message, context={**context, **ids}
    ),
    st.dictionaries(st.text(max_size=5), ANY_VALUES, max_size=4),
    ANY_VALUES,
    st.dictionaries(st.text(max_size=5), ANY_VALUES, max_size=2),
    st.sampled_from([{}, {"user_id": "u1"}, {"user_id": 5, "group_id": "g1"}]),
)
ENCODER = Encoder(Settings())


def _read_and_encode(tag, made):
    """Do what `Client.capture` does; return the bodies, or None where it would have caught."""
    try:
        found = READER.read(tag, made)
    except Exception:
        return None
    return [
        ENCODER.encode(event).payload.body
        for event in found
        if not isinstance(event, InvalidEventError)
    ]


@given(TAGS | st.lists(TAGS, max_size=3), RECORDS)
def test_any_tag_on_any_record(tag, made):
    """
    Any tag on any record makes valid bodies, or reasons; what is raised is an Exception at most.
    """
    for body in _read_and_encode(tag, made) or []:
        tree = strict(body)
        assert_valid(tree)
        assert {str} == {type(tree[key]) for key in ("userId", "groupId") if key in tree}


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_everywhere(number):
    """
    An object that raises whatever it is asked does no harm, wherever it stands.
    """
    bad = HOSTILE[number]()
    good = {"user_id": "u1", "plan": "pro"}
    places = [
        (bad, good, "e"),
        ([bad], good, "e"),
        ({"type": bad}, good, "e"),
        ({"event": bad}, good, "e"),
        (True, {"user_id": bad}, "e"),
        (True, good, bad),
        (True, {**good, "bad": bad}, "e"),
        (True, {**good, "timestamp": bad}, "e"),
    ]

    made = [_read_and_encode(tag, record(fields, message=text)) for tag, fields, text in places]

    for body in itertools.chain.from_iterable(bodies or [] for bodies in made):
        assert_valid(strict(body))
    # As a mere field it does not even keep its event from being sent.
    assert [1, 1] == [len(bodies) for bodies in made[-2:]]


@pytest.mark.parametrize("make", [RaisingMapping, EndlessMapping, LyingMapping])
@pytest.mark.parametrize("tag", [True, "identify"])
def test_hostile_properties(make, tag):
    """
    Properties that raise or never end do not lose their event.
    """
    (body,) = _read_and_encode(
        tag, record({"user_id": "u1", "properties": make(), "traits": make()})
    )

    assert_valid(strict(body))


def test_hostile_context():
    """
    A context that raises is the caller's to catch; one that is not needed is not asked.
    """
    made = Record(fields={"user_id": "u1"}, message="e", created=NOW, context=explode)

    assert [Track("u1", "e", {}, NOW)] == READER.read(True, made)
    with pytest.raises(ValueError, match="hunter2"):
        READER.read("identify", made)


def test_untrue_fields():
    """
    A value that will not be compared is a property, and found in the context without a comparison.
    """
    same = Untrue()

    assert {} == one("identify", {"user_id": "u1", "a": same}, context={"a": same}).traits
    found = one("identify", {"user_id": "u1", "a": same}, context={"a": Untrue()}).traits
    assert found["a"] is same


def test_keyboard_interrupt():
    """
    What is no Exception goes through: somebody wants the process to end.
    """

    class Interrupting:
        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(True, {"user_id": "u1"}, message=Interrupting())


def _encodes(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
