"""What can be told of a message or a regular expression by reading it."""

from __future__ import annotations

import re
import string
from typing import NamedTuple


# As Python's own formatting reads it; a star takes an argument, too.
_CONVERSION = re.compile(
    r"%(?P<key>\([^)]*\))?[#0 +-]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?[hlL]?"
    r"(?P<kind>[diouxXeEfFgGcrsa%])"
)
# What decides which groups stand beside which, longest first: the rest is text.
_PARTS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)|\(\?P?<(?P<name>[^\W\d]\w*)>|[()|]",
    re.DOTALL,
)


def count_places(message: str) -> int | None:
    """
    Return how many positional arguments *message* has a place for; None if that is not told.

    In whichever style there are more: a percent sign may be just that for who
    logs with ``{}``, and braces may be just that for who logs with ``%s``.
    """
    percents = 0
    for found in _CONVERSION.finditer(message):
        if found["kind"] == "%":
            continue
        if found["key"] is not None:
            return None  # it takes a mapping
        percents += 1 + (found["width"] == "*") + (found["digits"] == "*")
    return max(percents, _count_braces(message))


def _count_braces(message: str) -> int:
    found = 0
    for field, spec in _fields(message):
        first = re.split(r"[.\[]", field, maxsplit=1)[0]
        if first.isdecimal():
            found = max(found, int(first) + 1)
        elif not first:
            found += 1
        found += sum(not name for name, _ in _fields(spec))
    return found


def _fields(message: str) -> list[tuple[str, str]]:
    """Return the names and the formats of the fields in braces; none if they do not pair up."""
    try:
        pieces = list(string.Formatter().parse(message))
    except ValueError:
        return []
    return [(name, spec or "") for _, name, spec, _ in pieces if name is not None]


def named_field(message: str) -> str | None:
    """Return the first ``{name}`` in *message*, as f-strings have it, or None."""
    if any(found["kind"] != "%" for found in _CONVERSION.finditer(message)):
        return None
    return next((name for name, _ in _fields(message) if re.match(r"[^\W\d]", name)), None)


class _Place(NamedTuple):
    """A group that is open, and which of its alternatives is being read."""

    group: int
    branch: int


def group_given_twice(pattern: str) -> str | None:
    """
    Return the name of two groups that one text may match both: the later hides the earlier.

    Two of a name in two alternatives are right: only one of them matches.
    """
    places = [_Place(0, 0)]
    groups = 0
    seen: dict[str, list[dict[int, int]]] = {}
    for part in _PARTS.finditer(pattern):
        text = part[0]
        if name := part["name"]:
            here = dict(places)
            for other in seen.setdefault(name, []):
                if all(here.get(group, branch) == branch for group, branch in other.items()):
                    return name
            seen[name].append(here)
        if text == "|":
            places[-1] = _Place(places[-1].group, places[-1].branch + 1)
        elif text == ")":
            places[1:] = places[1:-1]
        elif name or text == "(":
            groups += 1
            places.append(_Place(groups, 0))
    return None
