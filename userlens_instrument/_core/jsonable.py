"""Any Python value to JSON, without raising; the one door to orjson."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import UserList, deque
from collections.abc import ItemsView, Mapping, MappingView
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from userlens_instrument._core.redact import REDACTED
from userlens_instrument._core.shadow import shadow_of


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

orjson: Any = None
if shadow_of("orjson") is None:
    with suppress(ImportError):  # PyPy, and platforms without a wheel
        import orjson


TRUNCATED = "[truncated]"
CYCLE = "[cycle]"

# What a 64-bit JSON number can hold (orjson's range). Larger ones become text,
# with both encoders.
_LEAST_INT = -(2**63)
_MOST_INT = 2**64 - 1

# Containers within containers multiply: 128 entries six levels deep are more
# than memory holds. A body of the default size has room for fewer than this.
_MOST_NODES = 10_000

# Another thread may change a dict while it is read; by then it has settled.
_READ_TRIES = 5

# Floats hold every whole number up to here.
_EXACT = 2**53

# The most digits that are written out. Python itself refuses past 4300 digits
# (CVE-2020-10735), and time grows with their square.
_MOST_BITS = 4_096

# Lists in all but name. Not every Sequence: to iterate one can be to query a
# database (a page of Django's paginator is one).
_LISTS = (list, tuple, set, frozenset, deque, UserList, range, MappingView)

# The common kinds, spared the questions.
_CONTAINERS = frozenset({dict, list, tuple, set})
_LEAVES = frozenset({bytes, datetime, date, time, timedelta, Decimal, UUID})

# Where an object lies in memory says nothing to anybody, and the same input
# makes the same bytes.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

# Stands for a field that its author hides.
_HIDDEN = object()


class Limits(NamedTuple):
    """
    How much of a value is kept.

    Attributes:
        max_string: Characters of a text.
        max_properties: Entries of a mapping, items of a list.
        max_depth: Levels of nesting; 1 is a flat mapping.
    """

    max_string: int
    max_properties: int
    max_depth: int


class Cleaner:
    """
    Turns any mapping into one that every JSON encoder takes, and counts what it left out.

    One is made for each event, on the caller's thread; it holds no state that
    outlives the call.

    Attributes:
        cut: How many values were shortened, left out, or had no JSON form.
        redacted: How many values were hidden for their names.
    """

    __slots__ = ("_is_secret", "_limits", "_nodes", "_path", "_unsorted", "cut", "redacted")

    def __init__(self, limits: Limits, is_secret: Callable[[str], bool]) -> None:
        """Start with nothing cut and nothing hidden."""
        self._limits = limits
        self._is_secret = is_secret
        self._nodes = _MOST_NODES
        self._path: list[int] = []
        self._unsorted = 0
        self.cut = 0
        self.redacted = 0

    def clean(
        self, properties: Mapping[Any, Any], only: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """
        Return *properties* as a fresh dict of JSON values; never raises an `Exception`.

        Args:
            properties: Any mapping.
            only: The only names to take from it, in this order; all if absent.
        """
        try:
            if only is not None:
                properties = {name: properties[name] for name in only if name in properties}
            self._path.append(id(properties))
            return self._mapping(properties)
        except Exception as error:
            self.cut += 1
            return {"[unserialisable]": _type_name(type(error))}

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return value if len(value) <= self._limits.max_string else self._cut_text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if _LEAST_INT <= value <= _MOST_INT else self._big_int(value)
        if kind is float:
            # The one number that differs from itself, and the two beyond all
            # others, have no JSON.
            return value if math.isfinite(value) else None
        try:
            return self._complex(value, kind)
        except Exception:
            self.cut += 1
            return f"[unserialisable: {_type_name(kind)}]"

    def _complex(self, value: Any, kind: type) -> Any:
        if kind in _CONTAINERS:
            return self._container(value)
        if kind in _LEAVES:
            return self._leaf(value)
        if issubclass(kind, Enum):
            return self._value(value.value)
        # What a subclass holds underneath, whatever it overrides. Asked of the
        # type: an object can pretend to another class by its __class__.
        for base, exact in ((str, str.__str__), (int, int.__int__), (float, float.__float__)):
            if issubclass(kind, base):
                return self._value(exact(value))
        if isinstance(value, (Mapping, *_LISTS)):
            return self._container(value)
        names = _field_names(kind)
        if names is not None:
            return self._container(_Fields(value, names))
        if issubclass(kind, SimpleNamespace):
            return self._container(value.__dict__)
        return self._leaf(value)

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, (datetime, date, time)):
            return self._value(value.isoformat())
        if isinstance(value, Decimal):
            return self._value(_decimal(value))
        if isinstance(value, timedelta):
            return self._value(value.total_seconds())
        if isinstance(value, (bytes, bytearray, memoryview)):
            # A character is at most four bytes of UTF-8; one more, to see that there is more.
            most = 4 * (self._limits.max_string + 1)
            return self._cut_text(bytes(value[:most]).decode("utf-8", "replace"))
        if issubclass(type(value), type):
            return self._cut_text(_type_name(value))
        if isinstance(value, BaseException):
            return self._text(f"{_type_name(type(value))}: {value}")
        if str(type(value).__module__).partition(".")[0] == "numpy":
            return self._numpy(value)
        return self._text(str(value))

    def _numpy(self, value: Any) -> Any:
        if value.shape:
            # Read like a list: cut before it is made into Python objects.
            return self._container(value)
        plain = value.tolist()
        # A longdouble is its own best Python value.
        return self._text(str(value)) if type(plain) is type(value) else self._value(plain)

    def _container(self, value: Any) -> Any:
        identity = id(value.owner) if type(value) is _Fields else id(value)
        if identity in self._path:
            self.cut += 1
            return CYCLE
        if len(self._path) >= self._limits.max_depth or self._nodes <= 0:
            self.cut += 1
            return TRUNCATED
        self._path.append(identity)
        try:
            if type(value) is _Fields:
                return self._entries(value.entries(), len(value.names))
            if isinstance(value, Mapping):
                return self._mapping(value)
            if isinstance(value, ItemsView):
                return self._entries(self._first(lambda: value), len(value))
            names = getattr(value, "_fields", None) if isinstance(value, tuple) else None
            if isinstance(names, tuple):
                return self._entries(list(zip(names, value, strict=False)), len(names))
            return self._items(value)
        finally:
            self._path.pop()

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        if issubclass(type(value), dict):
            # A dict's own methods, whatever a subclass overrides: the entries are facts.
            known: dict[Any, Any] = value  # type: ignore[assignment]  # mypy reads no issubclass of a type()
            return self._entries(self._first(lambda: dict.items(known)), dict.__len__(known))
        return self._entries(self._first(value.items), len(value))

    def _first(self, read: Callable[[], Iterable[Any]], most: int | None = None) -> list[Any]:
        """Return the first of what *read* returns, though another thread may be writing to it."""
        if most is None:
            most = self._limits.max_properties
        for _ in range(_READ_TRIES):
            try:
                return list(islice(read(), most))
            except RuntimeError:  # noqa: PERF203 - changed size during iteration; the loop is the retry
                continue
        return list(islice(read(), most))

    def _entries(self, entries: list[tuple[Any, Any]], total: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        most = self._limits.max_properties
        longest = self._limits.max_string
        is_secret = self._is_secret
        self._nodes -= len(entries)
        odd: list[tuple[Any, Any]] = []
        for key, value in entries[:most]:
            if type(key) is str and len(key) <= longest:
                hidden = value is _HIDDEN or (value is not None and is_secret(key))
                result[key] = self._hide() if hidden else self._value(value)
            else:
                odd.append((key, value))
        if odd:
            self._odd_entries(odd, result)
        left = total - most
        if left > 0:
            self.cut += left
            result[TRUNCATED] = left
        return result

    def _odd_entries(self, entries: list[tuple[Any, Any]], result: dict[str, Any]) -> None:
        """Add entries of odd keys, so that a key that needs no change keeps its name: 1 and "1"."""
        distinct = _Distinct(result)
        for key, value in entries:
            name = self._key(key)
            # By the whole of its name: what says "password" may be cut off.
            secret = self._is_secret(key if type(key) is str else name)
            hidden = value is _HIDDEN or (value is not None and secret)
            result[distinct(name)] = self._hide() if hidden else self._value(value)

    def _hide(self) -> str:
        self.redacted += 1
        return REDACTED

    def _items(self, value: Any) -> list[Any]:
        most = self._limits.max_properties
        total = len(value)
        if isinstance(value, (set, frozenset)):
            result = self._sorted(value, total)
            del result[most:]
        else:
            items = self._first(lambda: value)
            self._nodes -= len(items)
            result = [self._value(item) for item in items]
        left = total - most
        if left > 0:
            self.cut += left
            result.append(TRUNCATED)
        return result

    def _sorted(self, value: Iterable[Any], total: int) -> list[Any]:
        """
        Return the items of a set, in an order of their own.

        Its own order differs from process to process, and the same input makes
        the same bytes. So all of it is looked at before it is cut, or none of it.
        """
        unsorted = self._unsorted
        if total < self._nodes:
            items = self._first(lambda: value, total)
            self._nodes -= len(items)
            result = [self._value(item) for item in items]
            # If there was not enough for all of it, then which of its items
            # came too late is chance.
            if self._nodes > 0 and self._unsorted == unsorted:
                result.sort(key=lambda item: (type(item).__name__, str(item)))
                return result
            self._nodes = 0
        self._unsorted += 1
        self.cut += 1
        return [TRUNCATED]

    def _key(self, key: Any) -> str:
        """Return the text of a *key* that is not one, or too long a one."""
        value = self._value(key)
        if value is True or value is False or value is None:
            return json.dumps(value)
        return value if isinstance(value, str) else self._cut_text(str(value))

    def _text(self, text: str) -> str:
        return self._cut_text(_ADDRESS.sub("", str.__str__(text)))

    def _cut_text(self, text: str) -> str:
        longest = self._limits.max_string
        if len(text) <= longest:
            return text
        self.cut += 1
        return text[: longest - len(TRUNCATED)] + TRUNCATED

    def _big_int(self, value: int) -> str:
        if value.bit_length() <= _MOST_BITS:
            return self._cut_text(str(value))
        self.cut += 1
        return f"[integer of {value.bit_length()} bits]"


class _Distinct:
    """Finds a free name for each one that is taken: ``name#2``, ``name#3``."""

    __slots__ = ("_counts", "_taken")

    def __init__(self, taken: Mapping[str, Any]) -> None:
        self._taken = taken
        self._counts: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        free = name
        # Goes on where it left off: clashing names by the thousand stay cheap.
        count = self._counts.get(name, 1)
        while free in self._taken:
            count += 1
            free = f"{name}#{count}"
        self._counts[name] = count
        return free


class _Fields:
    """The named fields of a dataclass, an attrs class or a pydantic model, read like a mapping."""

    __slots__ = ("names", "owner")

    def __init__(self, owner: Any, names: tuple[tuple[str, bool], ...]) -> None:
        self.owner = owner
        self.names = names

    def entries(self) -> list[tuple[str, Any]]:
        # A field that its author keeps out of the repr is none to publish.
        return [
            (name, _attribute(self.owner, name) if shown else _HIDDEN) for name, shown in self.names
        ]


def _attribute(owner: object, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception as error:  # one that is computed, or loaded from a database that is gone
        return f"[unserialisable: {_type_name(type(error))}]"


def _field_names(kind: type) -> tuple[tuple[str, bool], ...] | None:
    """Return the fields of such a class, each with whether it may be shown, or None."""
    if dataclasses.is_dataclass(kind):
        return tuple((item.name, item.repr) for item in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        return tuple((item.name, bool(item.repr)) for item in attributes)
    model = getattr(kind, "model_fields", None)  # pydantic 2; in 1 it is __fields__
    if isinstance(model, dict):
        return tuple((name, _is_shown(item)) for name, item in model.items())
    return None


def _is_shown(item: object) -> bool:
    return getattr(item, "repr", True) is not False and getattr(item, "exclude", None) is not True


def _decimal(value: Decimal) -> float | int | str | None:
    """Return a number where one means exactly the same, else the text."""
    if not value.is_finite():
        return None
    number = float(value)
    # An exponent beyond a float's range, or digits beyond its precision.
    if not math.isfinite(number) or Decimal(repr(number)) != value:
        return str(value)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _type_name(kind: type) -> str:
    # `type` reads the C slot: a metaclass that overrides __name__ is not asked.
    return str.__str__(type.__dict__["__name__"].__get__(kind))[:200]


def dumps(tree: dict[str, Any] | str) -> bytes:
    """
    Return *tree* as JSON in UTF-8, compact, keys in their order.

    Args:
        tree: What `Cleaner.clean` returned, a mapping of such, or a text.
    """
    encode = dumps_stdlib if orjson is None else orjson.dumps
    try:
        return encode(tree)
    except (TypeError, ValueError):
        # A lone surrogate somewhere: half a character, which UTF-8 has no form
        # for. Rare enough to find out by trying.
        scrubbed: dict[str, Any] | str = scrub(tree)
        return encode(scrubbed)


def flat_encoder() -> Callable[[dict[str, Any]], bytes] | None:
    """
    Return what encodes texts, numbers, booleans and None as `dumps` does; None if nothing can.

    It raises `TypeError` or `ValueError` for what needs a closer look: half a
    character, or an integer of more than 64 bits.
    """
    return None if orjson is None else orjson.dumps


def compact(data: bytes) -> bytes:
    """
    Return *data* in memory of its own size.

    orjson (3.13, measured) hands out a block of 4 KiB, however little is in it: ten thousand
    events that are held would be 40 MB and not 3.
    """
    return data[:-1] + data[-1:]


def dumps_stdlib(tree: dict[str, Any] | str) -> bytes:
    """Return *tree* as JSON in UTF-8, as orjson would, without it."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def scrub(value: Any) -> Any:
    """Return *value* with each lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [scrub(item) for item in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    distinct = _Distinct(result)
    for key, item in value.items():
        result[distinct(scrub(key))] = scrub(item)
    return result
