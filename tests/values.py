"""Values as strange as an application can log: strategies for Hypothesis, and hostile objects."""

from __future__ import annotations

import array
import collections
import dataclasses
import decimal
import enum
import itertools
import json
import types
import uuid
from collections import UserDict, UserList, UserString
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple
from unittest.mock import MagicMock, Mock

import attrs
import pydantic
from hypothesis import strategies as st


# ---------------------------------------------------------------- strict JSON


def strict(body):
    """Return what *body* means, or fail: UTF-8, no NaN, no key twice, no half a character."""

    def pairs(items):
        assert len(items) == len(dict(items)), "a key is there twice"
        return dict(items)

    def constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert isinstance(body, bytes)
    tree = json.loads(body.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    json.dumps(tree, ensure_ascii=False).encode("utf-8")
    return tree


def walk(tree):
    """Yield every value of a JSON *tree*, keys included, each with its depth."""
    left = [(0, tree)]
    while left:
        depth, value = left.pop()
        yield depth, value
        if isinstance(value, dict):
            left += [(depth + 1, item) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            left += [(depth + 1, item) for item in value]


# ---------------------------------------------------------------- well-meant, but many


class Colour(enum.Enum):
    RED = "red"
    NOTHING = None
    PAIR = ("a", 1)


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Name(str, enum.Enum):
    UPGRADED = "Plan Upgraded"


class Point(NamedTuple):
    x: object
    password: object = "hunter2"


@dataclasses.dataclass
class Plain:
    value: object = 1
    hidden: object = dataclasses.field(default="hunter2", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    value: object = 1


@attrs.define
class Attrs:
    value: object = 1
    hidden: object = attrs.field(default="hunter2", repr=False)


class Model(pydantic.BaseModel):
    value: object = 1
    hidden: object = pydantic.Field(default="hunter2", repr=False)
    excluded: object = pydantic.Field(default="hunter2", exclude=True)


ATTRIBUTES = st.text(min_size=1, max_size=10)
FLOATS = st.floats()
INTEGERS = st.integers() | st.integers(min_value=2**63 - 2, max_value=2**64 + 2)
DECIMALS = st.decimals() | st.sampled_from(
    [
        decimal.Decimal("sNaN"),
        decimal.Decimal("-NaN123"),
        decimal.Decimal("1E+999999"),
        decimal.Decimal("-1E-999999"),
        decimal.Decimal("0E+999999"),
        decimal.Decimal("-0"),
        decimal.Decimal(1) / 3,
    ]
)
# Half of a character, alone, reversed, and split over two.
SURROGATES = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3)
TEXTS = st.text(max_size=20) | SURROGATES
LEAVES = (
    st.none()
    | st.booleans()
    | INTEGERS
    | FLOATS
    | TEXTS
    | st.binary(max_size=20)
    | DECIMALS
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=-5))]))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.complex_numbers()
    | st.sampled_from([*Colour, *Level, *Name, Right.READ | Right.WRITE, Right(0)])
    | st.sampled_from([int, Colour, object, len, ..., NotImplemented, decimal, range(3)])
    | st.binary(max_size=8).map(bytearray)
    | st.binary(max_size=8).map(memoryview)
    | st.builds(ValueError, TEXTS)
    | st.sampled_from([object, Mock, MagicMock, types.SimpleNamespace]).map(lambda make: make())
)
HASHABLE = (
    st.none()
    | st.booleans()
    | INTEGERS
    | FLOATS
    | TEXTS
    | st.binary(max_size=10)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.sampled_from([*Colour, *Level, *Name])
    | st.tuples(st.integers(), st.text(max_size=5))
    | st.frozensets(st.integers(), max_size=3)
)


def _containers(values):
    return (
        st.lists(values, max_size=5)
        | st.dictionaries(HASHABLE, values, max_size=5)
        | st.lists(values, max_size=5).map(tuple)
        | st.lists(values, max_size=5).map(collections.deque)
        | st.lists(values, max_size=5).map(UserList)
        | st.sets(HASHABLE, max_size=5)
        | st.frozensets(HASHABLE, max_size=5)
        | st.dictionaries(HASHABLE, values, max_size=5).map(UserDict)
        | st.dictionaries(HASHABLE, values, max_size=5).map(types.MappingProxyType)
        | st.dictionaries(HASHABLE, values, max_size=5).map(dict.items)
        | st.dictionaries(HASHABLE, values, max_size=5).map(dict.values)
        | st.dictionaries(HASHABLE, values, max_size=5).map(dict.keys)
        | st.builds(Point, values)
        | st.builds(Plain, values)
        | st.builds(Slotted, values)
        | st.builds(Attrs, values)
        | st.builds(lambda value: Model(value=value), values)
        | st.builds(lambda value: types.SimpleNamespace(value=value), values)
    )


# ---------------------------------------------------------------- hostile


def explode(*args, **kwargs):
    """Raise what no caller expects; the text must never be seen either."""
    raise ValueError("hunter2")


_METHODS = [
    "__bool__",
    "__bytes__",
    "__contains__",
    "__delitem__",
    "__eq__",
    "__float__",
    "__format__",
    "__ge__",
    "__getitem__",
    "__gt__",
    "__index__",
    "__int__",
    "__iter__",
    "__le__",
    "__len__",
    "__lt__",
    "__ne__",
    "__repr__",
    "__setitem__",
    "__str__",
    "copy",
    "decode",
    "encode",
    "get",
    "isoformat",
    "isspace",
    "items",
    "keys",
    "lower",
    "pop",
    "startswith",
    "strip",
    "timestamp",
    "tolist",
    "total_seconds",
    "values",
    "is_finite",
]
BOOM = dict.fromkeys(_METHODS, explode)


def hostile(base, *args, **extra):
    """Return an object of a subclass of *base* of which every method raises."""
    keep = {"__hash__": base.__hash__} if base.__hash__ else {}
    kind = type(f"Hostile_{base.__name__}", (base,), BOOM | keep | extra)
    return base.__new__(kind, *args) if base not in _FILLED else _filled(base, kind, *args)


_FILLED = (dict, list, set, collections.deque, bytearray)


def _filled(base, kind, *args):
    made = base.__new__(kind)
    base.__init__(made, *args)
    return made


class Unreadable:
    """Raises whenever anything at all is read off it, its class included."""

    def __getattribute__(self, name):
        raise ValueError("hunter2")

    __repr__ = __str__ = __len__ = __iter__ = __bool__ = explode


class Untrue:
    """Raises when it is asked for its class, or for its truth."""

    __class__ = property(explode)
    __bool__ = __eq__ = __repr__ = explode
    __hash__ = object.__hash__


class Pretender:
    """Says that it is of another class, and is not."""

    def __init__(self, kind):
        self.kind = kind

    @property
    def __class__(self):
        return self.kind


class AnswersAll:
    """Has every attribute that it is asked for."""

    def __getattr__(self, name):
        return self

    def __call__(self, *args, **kwargs):
        return self


class RaisingMapping(Mapping):
    __getitem__ = __iter__ = __len__ = explode


class EndlessMapping(Mapping):
    def __getitem__(self, key):
        return key

    def __iter__(self):
        return (f"key{n}" for n in itertools.count())

    def __len__(self):
        return 2**62


class LyingMapping(Mapping):
    """Has another length each time, and an entry that it does not know of."""

    def __init__(self):
        self.lengths = itertools.cycle([0, 2**62, 1])

    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        return iter(["ghost"])

    def __len__(self):
        return next(self.lengths)


class Endless(list):
    def __iter__(self):
        return itertools.repeat(1)

    def __len__(self):
        return 2**62


class RaisingMeta(type):
    __name__ = property(explode)
    __module__ = property(explode)

    def __getattribute__(cls, name):
        raise ValueError("hunter2")

    __instancecheck__ = __subclasscheck__ = __hash__ = __eq__ = __repr__ = explode


class OfRaisingMeta(metaclass=RaisingMeta):
    pass


class RaisingZone(tzinfo):
    utcoffset = dst = tzname = explode


class WrongDate(date):
    def isoformat(self):
        return object()


class Mirror(date):
    """Is its own ISO format."""

    def isoformat(self):
        return self


class RaisingValue(enum.Enum):
    A = 1

    @property
    def value(self):
        raise ValueError("hunter2")


class OwnValue(enum.Enum):
    A = 1

    @property
    def value(self):
        return self


@dataclasses.dataclass
class RaisingField:
    good: int = 1

    @property
    def bad(self):
        raise ValueError("hunter2")


RaisingField.__dataclass_fields__["bad"] = dataclasses.field()
RaisingField.__dataclass_fields__["bad"].name = "bad"
RaisingField.__dataclass_fields__["bad"]._field_type = dataclasses._FIELD


class SaysStrangeThings:
    """Its text is a text of which every method raises."""

    def __str__(self):
        return hostile(str, "strange")


class RaisingError(Exception):
    __str__ = explode


def cycle():
    ring = {}
    ring["again"] = [ring, {"ring": ring}]
    return ring


def released():
    view = memoryview(b"gone")
    view.release()
    return view


def generator():
    yield from itertools.count()


def named_strangely():
    kind = type("Strange", (), {"__str__": explode})
    kind.__name__ = hostile(str, "Strange")
    return kind()


# Each makes a new one: nothing hostile is shared between two examples.
HOSTILE = [
    Unreadable,
    Untrue,
    AnswersAll,
    RaisingMapping,
    EndlessMapping,
    LyingMapping,
    Endless,
    Mock,
    MagicMock,
    lambda: Mock(spec=dict),
    lambda: MagicMock(spec=str),
    *[
        lambda kind=kind: Pretender(kind)
        for kind in (
            *(str, int, float, bool, dict, list, tuple, set, bytes, type, datetime, timedelta),
            *(uuid.UUID, decimal.Decimal, enum.Enum, type(None), Exception, Mapping),
        )
    ],
    lambda: hostile(str, "text"),
    lambda: hostile(int, 7),
    lambda: hostile(float, 0.5),
    lambda: hostile(bytes, b"bytes"),
    lambda: hostile(bytearray, b"bytes"),
    lambda: hostile(tuple, (1, 2)),
    lambda: hostile(list, [1, 2]),
    lambda: hostile(set, {1, 2}),
    lambda: hostile(frozenset, {1, 2}),
    lambda: hostile(dict, {"a": 1}),
    lambda: hostile(collections.deque, [1, 2]),
    lambda: hostile(datetime, 2026, 1, 2),
    lambda: hostile(date, 2026, 1, 2),
    lambda: hostile(timedelta, 1),
    lambda: hostile(decimal.Decimal, "1.5"),
    lambda: hostile(Exception, "text"),
    lambda: datetime(2026, 1, 2, tzinfo=RaisingZone()),
    lambda: WrongDate(2026, 1, 2),
    lambda: Mirror(2026, 1, 2),
    lambda: RaisingValue.A,
    lambda: OwnValue.A,
    RaisingField,
    SaysStrangeThings,
    RaisingError,
    named_strangely,
    cycle,
    released,
    generator,
    lambda: iter([1]),
    lambda: lambda: None,
    lambda: UserString("text"),
    lambda: array.array("d", [1.5]),
    lambda: range(10**30),
    lambda: 10**5000,
    type("OfNoModule", (), {"__module__": None}),
]
_HOSTILE_KEYS = [
    Untrue,
    lambda: hostile(str, "key"),
    lambda: hostile(int, 7),
    lambda: hostile(frozenset, {1}),
    SaysStrangeThings,
    named_strangely,
    object,
    lambda: (1, hostile(str, "key")),
    lambda: 10**5000,
]


def _any_of(makers):
    # By number: Hypothesis prints what it can choose from, and some of these cannot be.
    makers = tuple(makers)
    return st.integers(0, len(makers) - 1).map(lambda number: makers[number]())


HOSTILE_VALUES = _any_of(HOSTILE)
# Hypothesis itself compares the types of what it draws, and this one raises then.
HOSTILE += [OfRaisingMeta, lambda: OfRaisingMeta]
HOSTILE_KEYS = _any_of(_HOSTILE_KEYS)

HOSTILE_MAPPINGS = _any_of(
    [
        RaisingMapping,
        EndlessMapping,
        LyingMapping,
        lambda: hostile(dict, {"a": 1, "password": "hunter2"}),
        cycle,
    ]
)

VALUES = st.recursive(LEAVES, _containers, max_leaves=12)
ANY_VALUES = st.recursive(LEAVES | HOSTILE_VALUES, _containers, max_leaves=12)
MAPPINGS = st.dictionaries(HASHABLE, VALUES, max_size=6)


@st.composite
def any_mappings(draw):
    """Draw a mapping of anything, under any key, hostile ones included; or a hostile mapping."""
    if draw(st.integers(0, 9)) == 0:
        return draw(HOSTILE_MAPPINGS)
    made = dict(draw(MAPPINGS))
    for value in draw(st.lists(ANY_VALUES, max_size=3)):
        made[draw(ATTRIBUTES)] = value
    for key in draw(st.lists(HOSTILE_KEYS, max_size=2)):
        with suppress(ValueError):  # it was compared with a key of the same hash
            made[key] = draw(LEAVES)
    return made
