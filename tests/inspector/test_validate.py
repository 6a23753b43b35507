"""What is a good body, what is a bad one, and what is said about it."""

# ruff: noqa: E501 -- a table reads best with one row a line

import inspect
import json
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from userlens_instrument.inspector import Verdict, validate_event, validate_raw
from userlens_instrument.inspector.validate import (
    EVENT_VALIDATOR,
    MAX_DEPTH,
    RAW_VALIDATOR,
    BodyError,
    load_schema,
    strict_json,
)


SOURCE = "userlens-restapi"
IDENTIFY = {"type": "identify", "userId": "u-1", "source": SOURCE, "traits": {"plan": "pro"}}
GROUP = {"type": "group", "groupId": "g-1", "userId": "u-1", "source": SOURCE}
TRACK = {"type": "track", "userId": "u-1", "source": SOURCE, "event": "Plan Upgraded"}
CUSTOM = {"event": "Plan Upgraded", "is_raw": False}
PAGEVIEW = {"event": "$ul_pageview", "properties": {"$ul_page": "https://example.com/"}}
NODE = {"tag_name": "a", "nth_child": 1, "nth_of_type": 1, "attributes": {"attr__href": "/"}}
CLICK = {"event": "/html/a", "is_raw": True, "snapshot": [NODE], "properties": {}}
UUID = "0b2d3a1e-8f4c-4d55-9a77-2f1c6f0e9b3d"

NO_TIME = "must be an ISO 8601 time in UTC that ends in Z, such as 2026-01-31T12:00:00.000Z"
NO_SOURCE = 'must be "userlens-restapi" or "userlens-js-analytics-sdk"'


def encode(value):
    """Return *value* as a body."""
    return json.dumps(value).encode()


def without(event, key):
    """Return *event* less one key."""
    return {name: value for name, value in event.items() if name != key}


@pytest.mark.parametrize("name", ["event", "raw_event"])
def test_schemas_are_schemas(name):
    """The two files that ship with the package are JSON Schemas of the draft that they name."""
    schema = load_schema(name)

    Draft202012Validator.check_schema(schema)

    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]


@pytest.mark.parametrize(
    "body",
    [
        IDENTIFY,
        IDENTIFY | {"traits": {}},
        IDENTIFY | {"source": "userlens-js-analytics-sdk"},
        GROUP,
        GROUP | {"traits": {"name": "Acme"}},
        TRACK,
        TRACK | {"properties": {"to": "pro", "seats": 3, "nested": {"a": [None, 1.5, True]}}},
        TRACK | {"timestamp": "2026-01-31T12:00:00Z"},
        TRACK | {"timestamp": "2024-02-29T23:59:59.123456789Z"},
        TRACK | {"something": "else"},
        TRACK | {"event": "Täst 🎉"},
    ],
)
def test_good_events(body):
    """Every form that the contract names is good; so are keys that it does not name."""
    expected = Verdict(good=True, body=body, parsed=True)

    assert expected == validate_event(encode(body))


@pytest.mark.parametrize(
    "events",
    [
        [],
        [CUSTOM],
        [CUSTOM | {"id": UUID, "timestamp": "2026-01-31T12:00:00.000Z", "userId": "u-1"}],
        [CUSTOM | {"properties": {"$ul_lib": "x"}}, PAGEVIEW, CLICK],
        [PAGEVIEW | {"is_raw": False}],
        [PAGEVIEW | {"is_raw": True}],
        [{"event": "$ul_pageview", "is_raw": False}],
        [CLICK | {"snapshot": [NODE | {"children": [NODE | {"is_target": True}]}]}],
    ],
)
def test_good_batches(events):
    """Every form that the contract names is good, in any mixture."""
    expected = Verdict(good=True, body={"events": events}, parsed=True)

    assert expected == validate_raw(encode({"events": events}))


@pytest.mark.parametrize(
    ("body", "code", "reason", "path"),
    [
        ([], "type", "the body must be an object, not an array", "$"),
        (None, "type", "the body must be an object, not null", "$"),
        ({}, "missing", "'type' is missing", "$.type"),
        ({"type": "page"}, "value", "'type' must be \"identify\" or \"group\" or \"track\"", "$.type"),
        ({"type": ["track"]}, "value", "'type' must be \"identify\" or \"group\" or \"track\"", "$.type"),
        (TRACK | {"userId": 7}, "type", "track: 'userId' must be a string, not an integer", "$.userId"),
        (TRACK | {"userId": True}, "type", "track: 'userId' must be a string, not a boolean", "$.userId"),
        (TRACK | {"userId": 1.5}, "type", "track: 'userId' must be a string, not a number", "$.userId"),
        (TRACK | {"userId": ""}, "value", "track: 'userId' must not be empty", "$.userId"),
        (TRACK | {"event": ""}, "value", "track: 'event' must not be empty", "$.event"),
        (without(TRACK, "event"), "missing", "track: 'event' is missing", "$.event"),
        (without(TRACK, "source"), "missing", "track: 'source' is missing", "$.source"),
        (TRACK | {"source": "me"}, "value", f"track: 'source' {NO_SOURCE}", "$.source"),
        (TRACK | {"properties": []}, "type", "track: 'properties' must be an object, not an array", "$.properties"),
        (TRACK | {"timestamp": "yesterday"}, "value", f"track: 'timestamp' {NO_TIME}", "$.timestamp"),
        (TRACK | {"timestamp": "2026-01-31T12:00:00+00:00"}, "value", f"track: 'timestamp' {NO_TIME}", "$.timestamp"),
        (TRACK | {"timestamp": "2026-01-31T12:00:00Z\n"}, "value", f"track: 'timestamp' {NO_TIME}", "$.timestamp"),
        (TRACK | {"timestamp": "2026-02-30T12:00:00Z"}, "value", f"track: 'timestamp' {NO_TIME}", "$.timestamp"),
        (TRACK | {"timestamp": 1}, "type", "track: 'timestamp' must be a string, not an integer", "$.timestamp"),
        (without(IDENTIFY, "traits"), "missing", "identify: 'traits' is missing", "$.traits"),
        (IDENTIFY | {"traits": "pro"}, "type", "identify: 'traits' must be an object, not a string", "$.traits"),
        (without(GROUP, "groupId"), "missing", "group: 'groupId' is missing", "$.groupId"),
        (without(GROUP, "userId"), "missing", "group: 'userId' is missing", "$.userId"),
        (GROUP | {"groupId": ""}, "value", "group: 'groupId' must not be empty", "$.groupId"),
    ],
)  # fmt: skip
def test_bad_events(body, code, reason, path):
    """A bad event is refused with a reason about the type that it says it is, and a place."""
    expected = Verdict(good=False, code=code, reason=reason, path=path, body=body, parsed=True)

    assert expected == validate_event(encode(body))


@pytest.mark.parametrize(
    ("events", "code", "reason", "path"),
    [
        (None, "type", "'events' must be an array, not null", "$.events"),
        ([CUSTOM, 5], "type", "'events[1]' must be an object, not an integer", "$.events[1]"),
        (
            [without(CUSTOM, "is_raw")],
            "missing",
            "events[0]: 'is_raw' is missing: false (a custom event) or true (an auto-captured click)",
            "$.events[0].is_raw",
        ),
        (
            [CUSTOM | {"is_raw": 0}],
            "type",
            "events[0]: 'is_raw' must be false (a custom event) or true (an auto-captured click)",
            "$.events[0].is_raw",
        ),
        ([CUSTOM, CUSTOM | {"event": ""}], "value", "custom event: 'event' must not be empty", "$.events[1].event"),
        (
            [CUSTOM | {"id": "7"}],
            "value",
            "custom event: 'id' must be a UUID, such as 0b2d3a1e-8f4c-4d55-9a77-2f1c6f0e9b3d",
            "$.events[0].id",
        ),
        ([CUSTOM | {"timestamp": "now"}], "value", f"custom event: 'timestamp' {NO_TIME}", "$.events[0].timestamp"),
        ([without(PAGEVIEW, "properties")], "missing", "page view: 'properties' is missing", "$.events[0].properties"),
        ([without(CLICK, "snapshot")], "missing", "click: 'snapshot' is missing", "$.events[0].snapshot"),
        (
            [CLICK | {"snapshot": [NODE | {"children": [without(NODE, "tag_name")]}]}],
            "missing",
            "click: 'snapshot[0].children[0].tag_name' is missing",
            "$.events[0].snapshot[0].children[0].tag_name",
        ),
        (
            [CLICK | {"snapshot": [NODE | {"attributes": {"a b": 1}}]}],
            "type",
            "click: 'snapshot[0].attributes[\"a b\"]' must be a string, not an integer",
            '$.events[0].snapshot[0].attributes["a b"]',
        ),
        (
            [CLICK | {"snapshot": [NODE | {"nth_child": 1.5}]}],
            "type",
            "click: 'snapshot[0].nth_child' must be an integer, not a number",
            "$.events[0].snapshot[0].nth_child",
        ),
    ],
)  # fmt: skip
def test_bad_batches(events, code, reason, path):
    """A bad batch is refused with a reason about the first bad event, and a place."""
    body = {"events": events}
    expected = Verdict(good=False, code=code, reason=reason, path=path, body=body, parsed=True)

    assert expected == validate_raw(encode(body))


def test_batch_without_events():
    """A batch needs its events."""
    verdict = validate_raw(b"{}")

    assert ("missing", "'events' is missing", "$.events") == (
        verdict.code,
        verdict.reason,
        verdict.path,
    )


@pytest.mark.parametrize(
    ("raw", "code", "reason", "path"),
    [
        (b"", "syntax", "the body is empty; send one JSON object", "$"),
        (b" \r\n", "syntax", "the body is empty; send one JSON object", "$"),
        (b'{"a":', "syntax", "the body is not JSON: Expecting value at line 1, column 6", "$"),
        (b"{} {}", "syntax", "the body is not JSON: Extra data at line 1, column 4", "$"),
        (b"\xef\xbb\xbf{}", "encoding", "the body begins with a byte order mark; send plain UTF-8", "$"),
        (b'{"a":"\xff"}', "encoding", "the body is not UTF-8: see byte 6", "$"),
        (b'{"a":"\xed\xa0\x80"}', "encoding", "the body is not UTF-8: see byte 6", "$"),
        (b'{"a":NaN}', "number", "NaN is not JSON; send null or leave it out", "$"),
        (b'{"a":-Infinity}', "number", "-Infinity is not JSON; send null or leave it out", "$"),
        (b'{"a":1e999}', "number", "a number is too large for a double", "$"),
        (b'{"a":' + b"9" * 10_000 + b"}", "number", "a number is too large for a double", "$"),
        (b'{"a":1,"b":2,"b":3}', "duplicate_key", 'the key "b" is there twice in one object', "$"),
        (b'{"a":["\\ud83d"]}', "encoding", "a string holds half a surrogate pair (\\ud83d alone)", "$.a[0]"),
        (b'{"\\uDC00":1}', "encoding", "a string holds half a surrogate pair (\\ud83d alone)", '$["\\udc00"]'),
        (b"[" * 100_000, "depth", "the body is nested more than 100 levels deep", "$"),
        (b"[" * 101 + b"]" * 101, "depth", "the body is nested more than 100 levels deep", "$"),
    ],
)  # fmt: skip
def test_not_strict_json(raw, code, reason, path):
    """What is not JSON by the letter is refused, even where Python's parser would take it."""
    expected = Verdict(good=False, code=code, reason=reason, path=path)

    assert expected == validate_event(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"[" * 100 + b"]" * 100, 100),
        (b"[" + b"[]," * 200 + b"[]]", 2),
    ],
)
def test_deep_enough(raw, value):
    """A hundred levels are fine, and so are many brackets side by side."""
    depth, level = 0, [strict_json(raw)]
    while level:
        depth, level = depth + 1, [child for parent in level for child in parent]

    assert value == depth


@pytest.mark.parametrize("value", ["🎉", {"🎉": ["\ud83c\udf89", "ok"]}])
def test_surrogate_pairs_are_fine(value):
    """An emoji as an escaped pair is as good as the emoji itself."""
    raw = json.dumps(value).encode()

    assert b"\\ud83c\\udf89" in raw
    assert json.loads(raw) == strict_json(raw)


def test_large_numbers_that_fit():
    """An integer of 309 digits fits a double as long as it is not above its largest value."""
    assert [10**308, 1e308] == strict_json(b"[1" + b"0" * 308 + b",1e308]")


def test_deep_page_under_a_deep_caller():
    """A body that exhausts the stack while it is validated is refused, not raised about."""
    node = NODE
    for _ in range(40):
        node = NODE | {"children": [node]}
    raw = encode({"events": [CLICK | {"snapshot": [node]}]})

    def descend(levels):
        return descend(levels - 1) if levels else validate_raw(raw)

    room = 200  # enough to parse it, too little to validate it
    verdict = descend(sys.getrecursionlimit() - len(inspect.stack(0)) - room)

    assert validate_raw(raw).good
    assert f"the body is nested more than {MAX_DEPTH} levels deep" == verdict.reason


def test_reason_never_holds_the_body():
    """A value that is wrong is not repeated: it may be a secret, and it may be long."""
    for key in TRACK:
        verdict = validate_event(encode(TRACK | {"timestamp": "hunter2", key: "hunter2"}))

        assert not verdict.good
        assert "hunter2" not in verdict.reason


def test_reason_is_clipped():
    """A key can be as long as the sender likes; a reason and a path cannot."""
    verdict = validate_event(encode({}).replace(b"}", b'"%s":1,' % (b"k" * 999) * 2 + b'"a":1}'))
    error = BodyError("code", "reason", "$." + "k" * 999)

    assert (300, "…") == (len(verdict.reason), verdict.reason[-1])
    assert (300, "…") == (len(error.path), error.path[-1])


def test_body_error_can_be_pickled():
    """The error survives a process pool."""
    error = pickle.loads(pickle.dumps(BodyError("type", "no", "$.a")))

    assert ("type", "no", "$.a") == (error.code, error.reason, error.path)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)  # fmt: skip
odd = st.sampled_from([None, True, False, 0, 1, "", "x", [], {}])
names = st.sampled_from(["track", "identify", "group"])
times = st.sampled_from(["2026-01-31T12:00:00Z", "2026-02-30T12:00:00Z", "now"])
near_events = st.fixed_dictionaries(
    {},
    optional={
        "type": names | odd,
        "userId": st.just("u-1") | odd,
        "groupId": st.just("g-1") | odd,
        "source": st.just(SOURCE) | odd,
        "event": st.just("Plan Upgraded") | odd,
        "properties": st.just({}) | odd,
        "traits": st.just({}) | odd,
        "timestamp": times | odd,
    },
)
near_raw_events = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["Plan Upgraded", "$ul_pageview"]) | odd,
        "is_raw": st.booleans() | odd,
        "id": st.just(UUID) | odd,
        "timestamp": times | odd,
        "userId": st.just("u-1") | odd,
        "snapshot": st.just([NODE]) | odd,
        "properties": st.sampled_from([{}, {"$ul_page": 1}, {"$ul_browser": 1}]) | odd,
    },
)


@given(near_events | values)
def test_events_agree_with_the_schema(body):
    """Any event is good exactly if the JSON Schema that ships with the package says so."""
    expected = EVENT_VALIDATOR.is_valid(body)

    assert expected == validate_event(encode(body)).good


@given(
    st.fixed_dictionaries({"events": st.lists(near_raw_events | odd, max_size=3) | odd}) | values
)
def test_batches_agree_with_the_schema(body):
    """Any batch is good exactly if the JSON Schema that ships with the package says so."""
    expected = RAW_VALIDATOR.is_valid(body)

    assert expected == validate_raw(encode(body)).good


@given(st.binary() | values.map(encode))
def test_any_bytes_get_a_verdict(raw):
    """Any bytes at all get a verdict, and if it is bad, a reason of one short line."""
    for verdict in (validate_event(raw), validate_raw(raw)):
        assert verdict.good == (not verdict.reason)
        assert len(verdict.reason) <= 300
        assert verdict.reason.isprintable()


@given(values)
def test_any_json_is_taken_as_it_is(value):
    """Any value that JSON can hold is parsed to what Python's own parser makes of it."""
    raw = encode(value)

    assert json.loads(raw) == strict_json(raw)
