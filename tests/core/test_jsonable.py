"""Any Python value to JSON."""

from __future__ import annotations

import array
import collections
import dataclasses
import decimal
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import (
    HASHABLE,
    HOSTILE,
    VALUES,
    AnswersAll,
    Attrs,
    Colour,
    EndlessMapping,
    Level,
    Model,
    Name,
    Plain,
    Point,
    RaisingField,
    RaisingMapping,
    Right,
    Slotted,
    any_mappings,
    cycle,
    hostile,
    strict,
    walk,
)

from userlens_instrument._core import jsonable
from userlens_instrument._core.jsonable import CYCLE, TRUNCATED, Cleaner, Limits, dumps
from userlens_instrument._core.redact import REDACTED, compile_redactor


LIMITS = Limits(max_string=64, max_properties=16, max_depth=4)
NO_LIMITS = Limits(max_string=10_000_000, max_properties=100_000, max_depth=64)
IS_SECRET = compile_redactor(())


@pytest.fixture(params=["orjson", "json"])
def encoder(request, monkeypatch):
    """With orjson, and without."""
    if request.param == "json":
        monkeypatch.setattr(jsonable, "orjson", None)
    else:
        assert jsonable.orjson is not None
    return request.param


both = pytest.mark.usefixtures("encoder")


def cleaner(limits=LIMITS):
    return Cleaner(limits, IS_SECRET)


def sent(value, limits=NO_LIMITS):
    """Return what arrives of *value*."""
    return strict(dumps(cleaner(limits).clean({"value": value})))["value"]


def assert_within(tree, limits):
    """Assert that no value of *tree* is larger than *limits* let it be."""
    for depth, value in walk(tree):
        if isinstance(value, str):
            assert len(value) <= max(limits.max_string, 230) + 8  # the marker of a type's name
        elif isinstance(value, (dict, list)):
            assert depth < limits.max_depth
            assert len(value) <= limits.max_properties + 1


# ---------------------------------------------------------------- one value each


@both
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**4096 - 1, str(2**4096 - 1)),
        (2**4096, "[integer of 4097 bits]"),
        (-(10**5000), "[integer of 16610 bits]"),
        (0.5, 0.5),
        (-0.0, 0.0),
        (1e308, 1e308),
        (5e-324, 5e-324),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        ("text", "text"),
        ("", ""),
        ("naïve 漢字 😀 \x00 \u2028", "naïve 漢字 😀 \x00 \u2028"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),
        (b"bytes", "bytes"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (bytearray(b"bytes"), "bytes"),
        (memoryview(b"bytes"), "bytes"),
        (datetime(2026, 11, 23, 18), "2026-11-23T18:00:00"),  # noqa: DTZ001
        (datetime(2026, 11, 23, 18, tzinfo=timezone.utc), "2026-11-23T18:00:00+00:00"),
        (date(2026, 11, 23), "2026-11-23"),
        (time(18, 0, 0, 1), "18:00:00.000001"),
        (timedelta(minutes=1, microseconds=500_000), 60.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal(7), 7),
        (decimal.Decimal("-0"), 0),
        (decimal.Decimal("1E+3"), 1000),
        (decimal.Decimal("0.1"), 0.1),
        (decimal.Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (decimal.Decimal(9007199254740993), "9007199254740993"),
        (decimal.Decimal("1E+22"), 1e22),
        (decimal.Decimal("1E+999999"), "1E+999999"),
        (decimal.Decimal("1E-999999"), "1E-999999"),
        (decimal.Decimal("NaN"), None),
        (decimal.Decimal("sNaN"), None),
        (decimal.Decimal("-Infinity"), None),
        (Colour.RED, "red"),
        (Colour.NOTHING, None),
        (Colour.PAIR, ["a", 1]),
        (Level.LOW, 1),
        (Right.READ | Right.WRITE, 3),
        (Name.UPGRADED, "Plan Upgraded"),
        ([1, [2]], [1, [2]]),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.UserList([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1, "token": 2}.items(), {"a": 1, "token": REDACTED}),
        (collections.UserString("text"), "text"),
        (Point(1), {"x": 1, "password": REDACTED}),
        (Plain(), {"value": 1, "hidden": REDACTED}),
        (Slotted(), {"value": 1}),
        (Attrs(), {"value": 1, "hidden": REDACTED}),
        (Model(), {"value": 1, "hidden": REDACTED, "excluded": REDACTED}),
        (types.SimpleNamespace(a=1, token="x"), {"a": 1, "token": REDACTED}),
        (ValueError("no"), "ValueError: no"),
        (KeyError("no"), "KeyError: 'no'"),
        (int, "int"),
        (Colour, "Colour"),
        (1 + 2j, "(1+2j)"),
        (..., "Ellipsis"),
        (object(), "<object object>"),
        (array.array("b", [1]), "array('b', [1])"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_of_each(value, expected):
    """
    Each kind of value has one form in JSON, the one that people expect.
    """
    assert expected == sent(value)


@both
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (hostile(str, "text"), "text"),
        (hostile(int, 7), 7),
        (hostile(float, 0.5), 0.5),
        (hostile(dict, {"a": 1}), {"a": 1}),
    ],
    ids=["str", "int", "float", "dict"],
)
def test_what_a_subclass_holds(value, expected):
    """
    A subclass of a plain type is sent as what it holds, whatever its methods do.
    """
    assert expected == sent(value)


@both
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile(number):
    """
    An object that raises whatever it is asked becomes JSON, and what it raised is not in it.
    """
    value = HOSTILE[number]()

    body = dumps(cleaner().clean({"value": value, "list": [value], "after": 1}))

    tree = strict(body)
    assert ["value", "list", "after"] == list(tree)
    assert 1 == tree["after"]
    assert b"hunter2" not in body
    assert_within(tree, LIMITS)


def test_unserialisable_says_what_it_was():
    """
    A value that cannot be read leaves the name of its type, and is counted.
    """
    one = cleaner()

    assert {"a": "[unserialisable: RaisingMapping]"} == one.clean({"a": RaisingMapping()})
    assert 1 == one.cut


def test_hostile_mapping():
    """
    A mapping that cannot be read leaves the name of what it raised, and is counted.
    """
    one = cleaner()

    assert {"[unserialisable]": "ValueError"} == one.clean(RaisingMapping())
    assert 1 == one.cut


def test_field_that_raises():
    """
    A field that cannot be read does not take the others with it.
    """
    assert {"good": 1, "bad": "[unserialisable: ValueError]"} == sent(RaisingField())


def test_pretender():
    """
    A lazy proxy, which says that it is of the class that it stands for, is read through.
    """

    class Lazy:
        def __init__(self, make):
            object.__setattr__(self, "made", make())

        def __getattribute__(self, name):
            return getattr(object.__getattribute__(self, "made"), name)

        def __str__(self):
            return str(object.__getattribute__(self, "made"))

        def __len__(self):
            return len(object.__getattribute__(self, "made"))

        def __iter__(self):
            return iter(object.__getattribute__(self, "made"))

    assert "text" == sent(Lazy(lambda: "text"))
    assert {"a": 1, "token": REDACTED} == sent(Lazy(lambda: {"a": 1, "token": 2}))
    assert [1, 2] == sent(Lazy(lambda: [1, 2]))
    assert "2026-11-23" == sent(Lazy(lambda: date(2026, 11, 23)))


def test_keyboard_interrupt():
    """
    What is no Exception goes through: somebody wants the process to end.
    """

    class Interrupting:
        def __str__(self):
            raise KeyboardInterrupt

    class InterruptingMapping(RaisingMapping):
        def __len__(self):
            raise KeyboardInterrupt

        __iter__ = __len__

    with pytest.raises(KeyboardInterrupt):
        cleaner().clean({"a": [Interrupting()]})
    with pytest.raises(KeyboardInterrupt):
        cleaner().clean(InterruptingMapping())


def test_generator_is_not_consumed():
    """
    A generator belongs to the application: it is named, not drained.
    """
    numbers = (n for n in range(3))

    assert sent(numbers).startswith("<generator object")
    assert [0, 1, 2] == list(numbers)


def test_no_address():
    """
    Where in memory an object lies is not sent: it would differ from process to process.
    """
    assert "0x" not in json.dumps(sent([object(), AnswersAll(), lambda: None, print]))


def test_mocks():
    """
    A class with a mapping where pydantic has its fields, or attributes for every name, is no model.
    """

    class Unrelated:
        model_fields = dict(a=1)  # noqa: C408, RUF012
        a = 2

    assert {"a": 2} == sent(Unrelated())
    assert "<" == sent(AnswersAll())[0]


@attrs.define
class Secretive:
    password: str = "hunter2"
    nested: object = dataclasses.field(default_factory=dict)


@both
@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2"},
        {"a": [{"b": {"Password": "hunter2"}}]},
        {b"password": "hunter2"},
        {("password",): "hunter2"},
        {hostile(str, "password"): "hunter2"},
        {"x" * 100 + "_password": "hunter2"},
        {"x_" * 20_000 + "password": "hunter2"},
        {"password": {"a": "hunter2"}},
        {"password": ["hunter2"]},
        {"pass\ud800word": "hunter2"},
        Point("x"),
        Plain(),
        Attrs(),
        Model(),
        Secretive(),
        [Secretive()],
        types.SimpleNamespace(password="hunter2"),
        {"password": "hunter2"}.items(),
        collections.ChainMap({"password": "hunter2"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_redaction(value):
    """
    What a secret's name hides is in no part of the body, and is counted.
    """
    one = cleaner(NO_LIMITS)

    body = dumps(one.clean({"value": value}))

    assert b"hunter2" not in body
    assert 1 <= one.redacted


def test_hidden_field_of_a_long_name():
    """
    A field that its author hides stays hidden where its name has to be cut.
    """

    @attrs.define
    class Long:
        a_name_of_more_than_sixteen_letters: str = attrs.field(default="hunter2", repr=False)

    one = cleaner(LIMITS._replace(max_string=16))

    assert {"a": {"a_nam[truncated]": REDACTED}} == one.clean({"a": Long()})
    assert 1 == one.redacted


def test_redacted_none():
    """
    That a secret is not set is worth knowing, and hides nothing.
    """
    one = cleaner()

    assert {"password": None, "token": REDACTED} == one.clean({"password": None, "token": ""})
    assert 1 == one.redacted


# ---------------------------------------------------------------- keys


@both
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: "a"}, {"1": "a"}),
        ({1: "a", "1": "b"}, {"1": "b", "1#2": "a"}),
        ({"1": "b", 1: "a", decimal.Decimal(2): "c"}, {"1": "b", "1#2": "a", "2": "c"}),
        ({None: 1, True: 2, False: 3}, {"null": 1, "true": 2, "false": 3}),
        ({math.nan: 1, math.inf: 2}, {"null": 1, "null#2": 2}),
        ({b"a": 1, "a": 2}, {"a": 2, "a#2": 1}),
        ({"b": 1, uuid.UUID(int=1): 2}, {"b": 1, "00000000-0000-0000-0000-000000000001": 2}),
        ({date(2026, 1, 1): 1}, {"2026-01-01": 1}),
        ({(1, "x"): 1}, {"[1, 'x']": 1}),
        ({Colour.RED: 1, "red": 2}, {"red": 2, "red#2": 1}),
        ({hostile(str, "a"): 1}, {"a": 1}),
        ({"": 1}, {"": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys(value, expected):
    """
    A key that is no text becomes one; where that is taken, it gets a number, and nothing is lost.
    """
    assert expected == sent(value)
    assert list(expected) == list(sent(value))


@pytest.mark.parametrize("same", ["null", "a"])
def test_many_clashing_keys(same):
    """
    Clashing keys by the ten thousand are all kept, and do not take the square of their time.
    """
    keys = [float("nan") for _ in range(20_000)] if same == "null" else ["x" * 20_000]
    one = Cleaner(NO_LIMITS._replace(max_string=64), IS_SECRET)

    found = one.clean({**dict.fromkeys(keys, 1), **{f"{'x' * 90}{n}": n for n in range(20_000)}})

    assert 20_000 + len(keys) == len(found)


def test_long_keys():
    """
    A long key is cut and marked; keys that are alike then stay apart.
    """
    one = cleaner()

    found = one.clean({"k" * 100 + "1": 1, "k" * 100 + "2": 2, "k" * 64: 3})

    short = "k" * 53 + TRUNCATED
    assert {"k" * 64: 3, short: 1, f"{short}#2": 2} == found
    assert 2 == one.cut


@both
def test_surrogate_keys():
    """
    Keys that differ in half a character only stay apart.
    """
    first, second = map(chr, (0xD800, 0xDC00))
    tree = {first: 1, second: 2, "\ufffd": 3, "nested": [{first: 1, second: 2}]}

    found = strict(dumps(cleaner().clean(tree)))

    assert [1, 2, 3] == [found.pop("\ufffd"), found.pop("\ufffd#2"), found.pop("\ufffd#3")]
    assert {"nested": [{"\ufffd": 1, "\ufffd#2": 2}]} == found


@given(any_mappings())
def test_no_entry_is_lost(properties):
    """
    Any keys at all leave as many entries as there were.
    """
    if isinstance(properties, dict):
        whole = dict.__len__(properties)

        assert whole == len(strict(dumps(cleaner(NO_LIMITS).clean(properties))))


# ---------------------------------------------------------------- limits


def test_long_text():
    """
    A long text is cut to the limit, marked and counted; one that fits is not.
    """
    one = cleaner()

    assert {"a": "x" * 53 + TRUNCATED, "b": "x" * 64} == one.clean({"a": "x" * 65, "b": "x" * 64})
    assert 1 == one.cut


@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_long_bytes(letter, kind):
    """
    Long bytes are cut like a text, marked and counted, without decoding all of them.
    """
    for length, cut in [(64, 0), (65, 1), (10_000, 1)]:
        one = cleaner()
        found = one.clean({"a": kind((letter * length).encode())})["a"]

        assert (64, cut) == (len(found), one.cut)
        assert cut == found.endswith(TRUNCATED)


def test_many_entries():
    """
    A large mapping keeps its first entries, and says how many it lost.
    """
    one = cleaner()

    found = one.clean({str(n): n for n in range(20)})

    assert {str(n): n for n in range(16)} | {TRUNCATED: 4} == found
    assert 4 == one.cut


@pytest.mark.parametrize("kind", [list, tuple, collections.deque, range])
def test_many_items(kind):
    """
    A long list keeps its first items, is marked, and the others are counted.
    """
    one = cleaner()

    value = range(20) if kind is range else kind(range(20))

    assert {"a": [*range(16), TRUNCATED]} == one.clean({"a": value})
    assert 4 == one.cut


def test_large_set():
    """
    A large set keeps the first of its items in the order in which they are sent.
    """
    one = cleaner()

    found = one.clean({"a": {f"{n:02}" for n in range(20)}})

    assert {"a": [f"{n:02}" for n in range(16)] + [TRUNCATED]} == found
    assert 4 == one.cut


@pytest.mark.parametrize(
    "value",
    [
        set(range(10_001)),
        {frozenset(range(n, n + 200)) for n in range(100)},
    ],
    ids=["many", "nested"],
)
def test_set_too_large_to_sort(value):
    """
    Of a set too large to be put in order, nothing is sent: which of its items would be chance.
    """
    assert [TRUNCATED] == sent(value)


def test_depth():
    """
    What is nested too deeply is cut, marked and counted.
    """
    one = cleaner()

    found = one.clean({"a": {"b": {"c": {"d": 1}, "e": 2}}})

    assert {"a": {"b": {"c": TRUNCATED, "e": 2}}} == cleaner(LIMITS._replace(max_depth=3)).clean(
        {"a": {"b": {"c": {"d": 1}, "e": 2}}}
    )
    assert {"a": {"b": {"c": {"d": 1}, "e": 2}}} == found
    assert 0 == one.cut


def test_flat():
    """
    A depth of 1 is a flat mapping.
    """
    one = cleaner(LIMITS._replace(max_depth=1))

    assert {"a": 1, "b": TRUNCATED} == one.clean({"a": 1, "b": [1]})
    assert 1 == one.cut


def test_cycle():
    """
    A value within itself is marked at the first return, whatever leads back to it.
    """
    one = cleaner()
    ring = cycle()
    plain = Plain()
    plain.value = [plain]
    top = {}
    top["top"] = top

    assert {"a": {"again": [CYCLE, {"ring": CYCLE}]}} == one.clean({"a": ring})
    assert 2 == one.cut
    assert {"value": [CYCLE], "hidden": REDACTED} == sent(plain)
    assert {"top": CYCLE} == cleaner().clean(top)


def test_twice_is_no_cycle():
    """
    A value that is there twice side by side is sent twice.
    """
    shared = {"a": 1}

    assert [{"a": 1}, {"a": 1}] == sent([shared, shared])


def test_million_deep():
    """
    A dict a million levels deep is cut like any other.
    """
    value = {}
    for _ in range(1_000_000):
        value = {"a": value}

    assert TRUNCATED in json.dumps(sent(value, LIMITS))

    while value:  # taken apart level by level, lest the interpreter recurse
        value = value.pop("a")


@both
def test_billion_laughs():
    """
    Thirty lists, each of which holds the next one twice, are cut long before 2 ** 30 values.
    """
    value = ["ha"]
    for _ in range(30):
        value = [value, value]

    body = dumps(cleaner(NO_LIMITS).clean({"a": value}))

    strict(body)
    assert len(body) < 1_000_000


def test_ten_million_items():
    """
    Of ten million items only the first ones are looked at.
    """
    value = [None] * 10**7

    assert [None] * 16 + [TRUNCATED] == sent(value, LIMITS)
    assert {TRUNCATED: 10**7 - 16} == {
        key: item for key, item in sent(dict.fromkeys(range(10**7)), LIMITS).items() if item
    }


def test_endless():
    """
    A mapping without an end is cut like any other.
    """
    found = sent(EndlessMapping(), LIMITS)

    assert {f"key{n}": f"key{n}" for n in range(16)} | {TRUNCATED: 2**62 - 16} == found


def test_ten_megabytes_of_text():
    """
    A text of ten megabytes is cut, as a value, as bytes, as a key and in an exception.
    """
    text = "x" * 10**7

    body = dumps(cleaner().clean({"a": text, "b": text.encode(), text: 1, "e": ValueError(text)}))

    assert len(body) < 600
    strict(body)


# ---------------------------------------------------------------- another thread


def test_changed_while_read():
    """
    A dict, list, set or deque to which another thread writes is read nonetheless.
    """
    shared = {"dict": {}, "list": [], "set": set(), "deque": collections.deque()}
    stop = threading.Event()

    def write():
        dice = random.Random(7)
        while not stop.is_set():
            n = dice.randrange(100)
            shared["dict"][str(n)] = n
            shared["dict"].pop(str(dice.randrange(100)), None)
            shared["list"].append(n)
            del shared["list"][100:]
            shared["set"] ^= {n}
            shared["deque"].append(n)
            if len(shared["deque"]) > 100:
                shared["deque"].popleft()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert b"unserialisable" not in dumps(cleaner().clean(shared))
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(("failures", "expected"), [(5, {"a": 1}), (6, None)])
def test_read_again(failures, expected):
    """
    A mapping that changes while it is read is read again, and given up after five times.
    """

    class Busy(Mapping):
        left = failures

        def __getitem__(self, key):
            return 1

        def __len__(self):
            return 1

        def __iter__(self):
            if Busy.left:
                Busy.left -= 1
                raise RuntimeError("dictionary changed size during iteration")
            return iter(["a"])

    assert (expected or "[unserialisable: Busy]") == sent(Busy())


# ---------------------------------------------------------------- any value


@both
@given(any_mappings())
def test_any_value(properties):
    """
    Any mapping of anything becomes strict JSON within the limits, and nothing is raised.
    """
    body = dumps(cleaner().clean(properties))

    tree = strict(body)
    assert isinstance(tree, dict)
    assert_within(tree, LIMITS)
    assert b"hunter2" not in body.replace(b"Point", b"")


@given(st.dictionaries(HASHABLE, VALUES, max_size=5))
def test_same_with_both_encoders(properties):
    """
    With and without orjson, any value means the same.
    """
    tree = cleaner().clean(properties)
    with pytest.MonkeyPatch.context() as patch:
        bodies = []
        for library in (jsonable.orjson or _orjson(), None):
            patch.setattr(jsonable, "orjson", library)
            bodies.append(strict(dumps(tree)))

    assert _exactly(bodies[0]) == _exactly(bodies[1])


@given(st.dictionaries(HASHABLE, VALUES, max_size=5))
def test_same_each_time(properties):
    """
    The same value makes the same bytes each time.
    """
    assert dumps(cleaner().clean(properties)) == dumps(cleaner().clean(properties))


@both
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text()
        # json reads -0.0 as a number equal to 0.0, which is all that is asked
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda values: st.lists(values) | st.dictionaries(st.text(), values),
        max_leaves=20,
    )
)
@example({"[truncated]": 1})
def test_json_is_itself(value):
    """
    What is JSON already arrives as it is.
    """
    tree = {"value": value}

    assert tree == strict(dumps(Cleaner(NO_LIMITS, lambda name: False).clean(tree)))


@given(VALUES)
def test_input_is_not_changed(value):
    """
    The application's own values are only looked at.
    """
    before = repr(value)

    cleaner().clean({"value": value})

    assert before == repr(value)


def test_a_file_of_the_programs_in_the_place_of_orjson():
    """
    The standard library's encoder does as well.
    """
    code = """
import sys, types
sys.modules["orjson"] = types.ModuleType("orjson")
from userlens_instrument._core import jsonable
assert jsonable.orjson is None
sys.stdout.buffer.write(jsonable.dumps({"a": 1}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)

    assert (b'{"a":1}', b"") == (done.stdout, done.stderr)


def test_sets_are_the_same_in_every_process(encoder):
    """
    The same input makes the same bytes under any PYTHONHASHSEED, also where a set is cut.
    """
    code = f"""
import sys
from userlens_instrument._core import jsonable
from userlens_instrument._core.jsonable import Cleaner, Limits, dumps
if {encoder!r} == "json":
    jsonable.orjson = None
value = {{
    "words": {{f"word {{n}}" for n in range(100)}},
    "mixed": {{1, "1", 1.5, None, True, b"1", (1, 2), frozenset({{"a", "b", "c"}})}},
    "large": {{str(n) for n in range(9_000)}},
    "too large": {{str(n) for n in range(20_000)}},
    "nested": {{frozenset(str(m) for m in range(n, n + 50)) for n in range(300)}},
    "objects": [object(), sys.stdout.write, lambda: 1],
    "after": [[1], [2]],
}}
limits = Limits(max_string=64, max_properties=16, max_depth=4)
sys.stdout.buffer.write(dumps(Cleaner(limits, lambda name: False).clean(value)))
"""
    bodies = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }

    assert 1 == len(bodies)
    assert 4 <= len(strict(bodies.pop()))


def test_without_orjson(monkeypatch):
    """
    Where orjson has no wheel, the standard library's json does.
    """
    monkeypatch.setitem(sys.modules, "orjson", None)
    spec = importlib.util.spec_from_file_location("jsonable_alone", jsonable.__file__)
    alone = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "jsonable_alone", alone)
    spec.loader.exec_module(alone)

    assert alone.orjson is None
    assert b'{"a":"\xe6\xbc\xa2"}' == alone.dumps({"a": "漢"})


# ---------------------------------------------------------------- numpy


def test_numpy():
    """
    numpy's numbers are numbers, its arrays lists; a large array is cut before it is converted.
    """
    numpy = pytest.importorskip("numpy")
    table = numpy.zeros((3, 1_000_000), dtype="int8")

    assert 7 == sent(numpy.int64(7))
    assert 0.5 == sent(numpy.float32(0.5))
    assert 0.5 == sent(numpy.float64(0.5))
    assert sent(numpy.float32("nan")) is None
    assert sent(numpy.bool_(True)) is True
    assert "text" == sent(numpy.str_("text"))
    assert "2026-11-23T18:00:00" == sent(numpy.datetime64("2026-11-23T18:00:00"))
    assert sent(numpy.datetime64("NaT")) is None
    assert "1.5" == sent(numpy.longdouble("1.5"))
    assert [1, 2] == sent(numpy.array([1, 2]))
    assert 5 == sent(numpy.array(5))
    assert [[1.0, None]] == sent(numpy.array([[1.0, math.nan]]))
    assert [[0] * 16 + [TRUNCATED]] * 3 == sent(table, LIMITS)
    assert sent(numpy.random.default_rng()).startswith("[unserialisable")


def test_like_numpy():
    """
    What comes from numpy is told by where its type comes from: numpy itself is never imported.
    """

    class Array(list):
        __module__ = "numpy"
        shape = (2,)

    class Scalar:
        __module__ = "numpy"
        shape = ()

        def __init__(self, value):
            self.value = value

        def tolist(self):
            return self if self.value is None else self.value

        def __str__(self):
            return "1.5"

    class Table:
        __module__ = "numpy"
        shape = (2, 1)

        def __len__(self):
            return 2

        def __iter__(self):
            return iter([Array([1]), Scalar(7)])

    assert [[1], 7] == sent(Table())
    assert "1.5" == sent(Scalar(None))


def _orjson():
    import orjson

    return orjson


def _exactly(value):
    """Return *value* so that equal means of equal type: 1 is not 1.0, True is not 1."""
    if isinstance(value, dict):
        return [(key, _exactly(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [_exactly(item) for item in value]
    return type(value), repr(value)
