"""Any Python value to JSON, without raising; the one door to orjson."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from userlens_instrument._core.redact import REDACTED


if TYPE_CHECKING:
    from collections.abc import Callable, Collection

try:
    import orjson
except ImportError:  # PyPy, and platforms without a wheel
    orjson = None  # type: ignore[assignment]


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
_READ_TRIES = 3

# Floats hold every whole number up to here.
_EXACT = 2**53

# The most digits that are written out. Python itself refuses past 4300 digits
# (CVE-2020-10735), and time grows with their square.
_MOST_BITS = 4_096

_PLAIN = frozenset({bool, type(None)})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
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

    __slots__ = ("_is_secret", "_limits", "_nodes", "_path", "cut", "redacted")

    def __init__(self, limits: Limits, is_secret: Callable[[str], bool]) -> None:
        """Start with nothing cut and nothing hidden."""
        self._limits = limits
        self._is_secret = is_secret
        self._nodes = _MOST_NODES
        self._path: list[int] = []
        self.cut = 0
        self.redacted = 0

    def clean(self, properties: Mapping[Any, Any]) -> dict[str, Any]:
        """Return *properties* as a fresh dict of JSON values; never raises an `Exception`."""
        try:
            return self._mapping(properties)
        except Exception as error:
            self.cut += 1
            return {"[unserialisable]": _type_name(error)}

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return value if len(value) <= self._limits.max_string else self._cut_text(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if _LEAST_INT <= value <= _MOST_INT else self._big_int(value)
        if kind is float:
            # The one number that differs from itself, and the two beyond all
            # others, have no JSON.
            return value if math.isfinite(value) else None
        try:
            return self._complex(value)
        except Exception:
            self.cut += 1
            return f"[unserialisable: {_type_name(value)}]"

    def _complex(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self._value(value.value)
        if isinstance(value, (Mapping, list, tuple, set, frozenset, deque)):
            return self._container(value)
        if isinstance(value, type):
            return self._cut_text(_type_name(value, of_instance=False))
        names = _field_names(type(value))
        if names is not None:
            return self._container(_Fields(value, names))
        return self._scalar(value)

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, str):
            # The exact text of a subclass, whatever it overrides.
            return self._value(str.__str__(value))
        if isinstance(value, int):
            return self._value(int.__int__(value))
        if isinstance(value, float):
            return self._value(float.__float__(value))
        if isinstance(value, (bytes, bytearray, memoryview)):
            longest = 4 * self._limits.max_string  # a character is at most four bytes of UTF-8
            self.cut += len(value) > longest
            return self._cut_text(bytes(value[:longest]).decode("utf-8", "replace"))
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Decimal):
            return self._value(_decimal(value))
        if isinstance(value, BaseException):
            return self._cut_text(f"{_type_name(value)}: {value}")
        item = getattr(value, "item", None)
        if callable(item) and type(value).__module__.partition(".")[0] == "numpy":
            return self._numpy(value)
        return self._cut_text(str(value))

    def _numpy(self, value: Any) -> Any:
        # A scalar is a number that says it is not; an array is a list, and one
        # that is cut before it is made into Python objects.
        if not value.shape:
            return self._value(value.tolist())
        left = len(value) - self._limits.max_properties
        items = self._value(value[: self._limits.max_properties].tolist())
        if left > 0:
            self.cut += left
            items.append(TRUNCATED)
        return items

    def _container(self, value: Any) -> Any:
        identity = id(value.owner) if isinstance(value, _Fields) else id(value)
        if identity in self._path:
            self.cut += 1
            return CYCLE
        if len(self._path) >= self._limits.max_depth or self._nodes <= 0:
            self.cut += 1
            return TRUNCATED
        self._path.append(identity)
        try:
            if isinstance(value, _Fields):
                return self._entries(value.entries(), len(value.names))
            if isinstance(value, Mapping):
                return self._entries(_items(value, self._limits.max_properties), len(value))
            fields = getattr(value, "_fields", None)
            if isinstance(value, tuple) and isinstance(fields, tuple):
                return self._entries(list(zip(fields, value, strict=False)), len(fields))
            return self._items(value)
        finally:
            self._path.pop()

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        self._path.append(id(value))
        try:
            return self._entries(_items(value, self._limits.max_properties), len(value))
        finally:
            self._path.pop()

    def _entries(self, entries: list[tuple[Any, Any]], total: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        most = self._limits.max_properties
        is_secret = self._is_secret
        self._nodes -= len(entries)
        odd: list[tuple[Any, Any]] = []
        for key, value in entries[:most]:
            if type(key) is not str:
                odd.append((key, value))
                continue
            name = key
            if len(name) > self._limits.max_string:
                name = self._cut_text(name)
            if value is not None and is_secret(name):
                self.redacted += 1
                result[name] = REDACTED
            else:
                result[name] = self._value(value)
        if odd:
            # Last, so that a key that is a string keeps its name: {1: …, "1": …}.
            named = [(self._key(key, result), value) for key, value in odd]
            result.update(self._entries(named, len(named)))
        left = total - most
        if left > 0:
            self.cut += left
            result[TRUNCATED] = left
        return result

    def _items(self, value: Collection[Any]) -> list[Any]:
        most = self._limits.max_properties
        unordered = isinstance(value, (set, frozenset))
        # All of a set is looked at before it is cut (within reason): its order
        # differs from process to process, and the same input makes the same bytes.
        items = list(islice(value, _MOST_NODES if unordered else most))
        self._nodes -= len(items)
        result = [self._value(item) for item in items]
        if unordered:
            result.sort(key=lambda item: (type(item).__name__, str(item)))
            del result[most:]
        left = len(value) - most
        if left > 0:
            self.cut += left
            result.append(TRUNCATED)
        return result

    def _key(self, key: Any, taken: dict[str, Any]) -> str:
        """Return the text of a *key* that is not one, distinct from those *taken*."""
        value = self._value(key)
        if value is True or value is False or value is None:
            value = json.dumps(value)
        name = base = value if isinstance(value, str) else str(value)
        count = 1
        while name in taken:
            count += 1
            name = f"{base}#{count}"
        return name

    def _cut_text(self, text: str) -> str:
        longest = self._limits.max_string
        if len(text) <= longest:
            return text
        self.cut += 1
        return text[: max(0, longest - len(TRUNCATED))] + TRUNCATED

    def _big_int(self, value: int) -> str:
        if value.bit_length() <= _MOST_BITS:
            return self._cut_text(str(value))
        self.cut += 1
        return f"[integer of {value.bit_length()} bits]"


class _Fields:
    """The named fields of a dataclass, an attrs class or a pydantic model, read like a mapping."""

    __slots__ = ("names", "owner")

    def __init__(self, owner: Any, names: tuple[tuple[str, bool], ...]) -> None:
        self.owner = owner
        self.names = names

    def entries(self) -> list[tuple[str, Any]]:
        # A field that its author keeps out of the repr is none to publish.
        return [
            (name, getattr(self.owner, name, None) if shown else REDACTED)
            for name, shown in self.names
        ]


def _field_names(kind: type) -> tuple[tuple[str, bool], ...] | None:
    """Return the fields of such a class, each with whether it may be shown, or None."""
    if dataclasses.is_dataclass(kind):
        return tuple((item.name, item.repr) for item in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        return tuple((item.name, bool(item.repr)) for item in attributes)
    model = getattr(kind, "model_fields", None)  # pydantic 2; in 1 it is __fields__
    if isinstance(model, dict):
        return tuple((name, bool(getattr(item, "repr", True))) for name, item in model.items())
    return None


def _items(value: Mapping[Any, Any], most: int) -> list[tuple[Any, Any]]:
    """Return the first entries of *value*, though another thread may be writing to it."""
    # A dict's own method, whatever a subclass overrides: the entries are facts.
    entries = dict.items if isinstance(value, dict) else type(value).items
    for _ in range(_READ_TRIES - 1):
        try:
            return list(islice(entries(value), most))
        except RuntimeError:  # changed size during iteration
            continue
    return list(islice(entries(value), most))


def _decimal(value: Decimal) -> float | int | str | None:
    """Return a number where one means exactly the same, else the text."""
    if not value.is_finite():
        return None
    number = float(value)
    # An exponent beyond a float's range, or digits beyond its precision.
    if not math.isfinite(number) or Decimal(repr(number)) != value:
        return str(value)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _type_name(value: Any, *, of_instance: bool = True) -> str:
    # `type` reads the C slot: a metaclass that overrides __name__ is not asked.
    kind = type(value) if of_instance else value
    return str(type.__dict__["__name__"].__get__(kind))[:200]


def dumps(tree: dict[str, Any]) -> bytes:
    """
    Return *tree* as JSON in UTF-8, compact, keys in their order.

    Args:
        tree: What `Cleaner.clean` returned, or a mapping of such.
    """
    encode = _dumps_orjson if orjson is not None else dumps_stdlib
    try:
        return encode(tree)
    except (TypeError, ValueError):
        # A lone surrogate somewhere: half a character, which UTF-8 has no form
        # for. Rare enough to find out by trying.
        scrubbed: dict[str, Any] = _scrub(tree)
        return encode(scrubbed)


def _dumps_orjson(tree: dict[str, Any]) -> bytes:
    return orjson.dumps(tree)


def dumps_stdlib(tree: dict[str, Any]) -> bytes:
    """Return *tree* as JSON in UTF-8, as orjson would, without it."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def _scrub(value: Any) -> Any:
    """Return *value* with each lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    return value
