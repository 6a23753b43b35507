"""
Templates of a rule: where a value comes from, such as ``"{account.plan}"`` or ``"{first} {last}"``.

Nothing is ever called and no attribute is read: a path reaches inside mappings
and lists, and an object of the application's stays closed.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from collections.abc import Callable

    # Returns the value of a path, or `MISSING`.
    Lookup = Callable[["Path"], Any]


class _Missing:
    """What a path leads to if it leads nowhere."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()

# Deeper than any field of a log line; a bound for what is walked in a log call.
_DEEPEST = 16


# Modules of the standard library whose values have one text, short and harmless.
_PLAIN = frozenset({"datetime", "decimal", "uuid"})


class TemplateError(ValueError):
    """A template cannot be read: what is wrong, and how to put it right."""

    def __init__(self, problem: str, fix: str) -> None:
        """Keep both parts."""
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}")


class Path(NamedTuple):
    """
    The way to a value.

    Attributes:
        whole: As it was written; a field may have just that name, dots and all.
        first: The field.
        rest: What to take inside of it, one after the other.
    """

    whole: str
    first: str
    rest: tuple[str, ...]

    def inside(self, value: Any) -> Any:
        """Return what `rest` leads to within *value*, or `MISSING`."""
        for part in self.rest:
            if isinstance(value, Mapping):
                value = value.get(part, MISSING)
            elif isinstance(value, (list, tuple)) and part.isdecimal() and len(part) < _DEEPEST:
                place = int(part)
                value = value[place] if place < len(value) else MISSING
            else:
                return MISSING
        return value


def make_path(text: str) -> Path:
    """
    Return the path that *text* writes.

    Raises:
        TemplateError: If it is none.
    """
    first, *rest = text.split(".")
    if not first.strip() or not all(rest) or text != text.strip():
        raise TemplateError(f"{text!r} is not a name", "give a field, or a path such as a.b.c")
    if len(rest) >= _DEEPEST:
        raise TemplateError("a path is too long", f"give one of at most {_DEEPEST} names")
    return Path(text, first, tuple(rest))


class Template:
    """
    Text with paths in it.

    One that is a path and nothing else stands for the value itself, of
    whatever type; any other is text, and is `MISSING` as soon as one path is.

    Args:
        text: Such as ``"{first} {last}"``; a brace itself is written twice.

    Attributes:
        paths: What it takes its values from.

    Raises:
        TemplateError: If it cannot be read.
    """

    __slots__ = ("_parts", "paths", "text")

    def __init__(self, text: str) -> None:
        """Take it apart, once."""
        self.text = text
        self._parts: tuple[tuple[str, Path | None], ...] = tuple(_parts(text))
        self.paths = tuple(path for _, path in self._parts if path is not None)

    def __repr__(self) -> str:
        """Show the text."""
        return f"Template({self.text!r})"

    def fill(self, lookup: Lookup) -> Any:
        """Return what it stands for, or `MISSING`."""
        parts = self._parts
        if len(parts) == 1 and not parts[0][0] and parts[0][1] is not None:
            return lookup(parts[0][1])
        text = []
        for literal, path in parts:
            text.append(literal)
            if path is not None:
                value = as_text(lookup(path))
                if value is None:
                    return MISSING
                text.append(value)
        return "".join(text)


def as_text(value: object) -> str | None:
    """
    Return the text of a plain value, or None.

    A mapping or a list has none: as text, what is secret inside of it would get
    past redaction. Nor has an object of the application's: its ``__str__`` is
    not called.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        try:
            return _number_text(value)
        except ValueError:  # Python refuses to write out thousands of digits
            return None
    return str(value) if type(value).__module__ in _PLAIN else None


def _number_text(number: float) -> str:
    if isinstance(number, bool):
        return str(number)
    # Of a subclass, such as an IntEnum, the number that it holds.
    return int.__repr__(number) if isinstance(number, int) else float.__repr__(number)


def _parts(text: str) -> list[tuple[str, Path | None]]:
    fix = "write {field}, {a.path.inside}, or {{ for a brace"
    parts: list[tuple[str, Path | None]] = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError:
        raise TemplateError("has a brace without its other half", fix) from None
    for literal, name, spec, conversion in pieces:
        if name is None:
            parts.append((literal, None))
            continue
        if spec or conversion:
            raise TemplateError("has a format after a name", "write the name alone in its braces")
        if not name or any(mark in name for mark in "[]{}"):
            raise TemplateError("has braces without a name", fix)
        parts.append((literal, make_path(name)))
    return parts
