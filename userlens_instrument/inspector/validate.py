"""
Judge a body: bytes in, a verdict out. The one door to jsonschema.

The JSON Schemas beside this file are the authority. What is added here is only what a schema
cannot say: that the bytes are strict JSON at all, and a reason that a person can act on. A body
is judged by the branch of the union that it names (its ``type``, its ``is_raw``), so the reason
is about that branch, not about all of them. A property test shows that this gives the same
verdict as the whole schema.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, NoReturn

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from userlens_instrument.exceptions import UserlensError


# Deeper than any event and most pages' DOM trees (a DOM level costs two). Without a bound, a body
# that could be parsed could exhaust the stack where it is validated or shown.
MAX_DEPTH: Final = 100

# A reason is for a terminal line and a log line of the sender; it never becomes the whole body.
_MAX_REASON: Final = 300

_BOM: Final = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*", re.ASCII)

_TYPE_NAMES: Final = {
    "array": "an array",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_BRANCH_LABELS: Final = {"click": "click", "custom": "custom event", "pageview": "page view"}


class BodyError(UserlensError):
    """
    A body is not what the contract asks for.

    Attributes:
        code: A short word that statistics count by, such as ``syntax``; there are only a few.
        reason: What is wrong, for a person; never the whole body.
        path: Where, as a JSON path such as ``$.userId``.
    """

    def __init__(self, code: str, reason: str, path: str = "$") -> None:
        """Clip the reason: parts of it (a key, a path) can be the sender's own text."""
        self.code = code
        self.reason = reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 1] + "…"
        self.path = path if len(path) <= _MAX_REASON else path[: _MAX_REASON - 1] + "…"
        super().__init__(self.reason)

    def __reduce__(self) -> tuple[type["BodyError"], tuple[str, str, str]]:
        """Rebuild from the parts."""
        return type(self), (self.code, self.reason, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What is to be said about one body.

    Attributes:
        good: Whether the contract accepts it.
        code: A short word that statistics count by, such as ``missing``; empty if good.
        reason: What is wrong, for a person; empty if good.
        path: Where, as a JSON path; empty if good.
        body: The parsed body; None if the bytes are not strict JSON.
        parsed: Whether the bytes are strict JSON; tells a body ``null`` from no body.
    """

    good: bool
    code: str = ""
    reason: str = ""
    path: str = ""
    body: Any = None
    parsed: bool = False


def strict_json(raw: bytes) -> Any:
    """
    Parse *raw* as RFC 8259 means it, stricter than `json.loads` is.

    Refused are invalid UTF-8, a byte order mark, NaN and the infinities, numbers that do not fit
    a double, duplicate keys, lone surrogates (none of them survive every parser on the way), and
    more than `MAX_DEPTH` levels.

    Args:
        raw: The bytes of the body.

    Returns:
        The value.

    Raises:
        BodyError: If it is not strict JSON; says where.
    """
    if raw.startswith(_BOM):
        raise BodyError("encoding", "the body begins with a byte order mark; send plain UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BodyError("encoding", f"the body is not UTF-8: see byte {error.start}") from None
    if not text.strip(" \t\r\n"):
        raise BodyError("syntax", "the body is empty; send one JSON object")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BodyError("syntax", f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise _deep() from None
    # Counting brackets is far cheaper than walking the value, and enough for nearly every body.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_deep(value):
        raise _deep()
    if _SURROGATE_ESCAPE.search(raw):
        for parts in _lone_surrogates(value):
            raise BodyError(
                "encoding", "a string holds half a surrogate pair (\\ud83d alone)", _path(parts)
            )
    return value


def validate_event(raw: bytes) -> Verdict:
    """
    Judge the body of a ``POST /event``.

    Args:
        raw: The bytes of the body.

    Returns:
        The verdict; never raises.
    """
    return _verdict(raw, _check_event)


def validate_raw(raw: bytes) -> Verdict:
    """
    Judge the body of a ``POST /raw/event``; one bad event makes the batch bad.

    Args:
        raw: The bytes of the body.

    Returns:
        The verdict; never raises.
    """
    return _verdict(raw, _check_raw)


def load_schema(name: str) -> dict[str, Any]:
    """
    Return one of the two JSON Schemas that ship with this package.

    Args:
        name: ``event`` or ``raw_event``.

    Returns:
        The schema, a fresh copy.
    """
    resource = files("userlens_instrument.inspector").joinpath(f"{name}.schema.json")
    schema: dict[str, Any] = json.loads(resource.read_text("utf-8"))
    return schema


def branch_of_raw(event: Any) -> str | None:
    """
    Tell which kind of raw event *event* says it is.

    The order makes it the same as the schema's ``anyOf``: what is invalid as the kind that is
    named here is invalid as the other two as well.

    Args:
        event: One item of ``events``; anything.

    Returns:
        ``custom``, ``pageview``, ``click``, or None if it does not say.
    """
    if not isinstance(event, dict):
        return None
    is_raw = event.get("is_raw")
    if is_raw is False:
        return "custom"
    if event.get("event") == "$ul_pageview":
        return "pageview"
    return "click" if is_raw is True else None


def _verdict(raw: bytes, check: Callable[[Any], None]) -> Verdict:
    """Parse, then *check*; turn what is raised into a verdict."""
    try:
        body = strict_json(raw)
    except BodyError as error:
        return Verdict(good=False, code=error.code, reason=error.reason, path=error.path)
    try:
        check(body)
    except BodyError as error:
        return Verdict(
            good=False,
            code=error.code,
            reason=error.reason,
            path=error.path,
            body=body,
            parsed=True,
        )
    return Verdict(good=True, body=body, parsed=True)


def _check_event(body: Any) -> None:
    """Raise BodyError unless *body* is one identify, group or track."""
    _check(_EVENT_ENVELOPE, body)
    kind = body["type"]
    _check(_EVENT_BRANCHES[kind], body, label=kind)


def _check_raw(body: Any) -> None:
    """Raise BodyError unless *body* is a batch of raw events."""
    _check(_RAW_ENVELOPE, body)
    for index, event in enumerate(body["events"]):
        at: list[str | int] = ["events", index]
        branch = branch_of_raw(event)
        if branch is not None:
            _check(_RAW_BRANCHES[branch], event, label=_BRANCH_LABELS[branch], at=at)
            continue
        name = f"events[{index}]"
        if not isinstance(event, dict):
            problem = f"must be an object, not {_type_of(event)}"
            raise BodyError("type", f"'{name}' {problem}", _path(at))
        code, problem = ("type", "must be") if "is_raw" in event else ("missing", "is missing:")
        fix = "false (a custom event) or true (an auto-captured click)"
        raise BodyError(code, f"{name}: 'is_raw' {problem} {fix}", _path([*at, "is_raw"]))


def _check(
    validator: Validator, value: Any, *, label: str = "", at: Iterable[str | int] = ()
) -> None:
    """Raise the first thing that *validator* finds; the schema's own order decides which."""
    try:
        error = next(validator.iter_errors(value), None)
    except RecursionError:  # under a caller that is itself deep; MAX_DEPTH leaves some room
        raise _deep() from None
    if error is not None:
        code, problem, parts = _explain(error)
        name = _path(parts)[1:].lstrip(".")
        subject = f"'{name}'" if name else "the body"
        prefix = f"{label}: " if label else ""
        raise BodyError(code, f"{prefix}{subject} {problem}", _path([*at, *parts]))


def _explain(error: ValidationError) -> tuple[str, str, list[str | int]]:
    """
    Put an error of jsonschema into words.

    Never quotes a value of the body: it may be long, and it may be a secret.

    Returns:
        The code, the problem, and the path to it.
    """
    parts = list(error.absolute_path)
    found: Any = error.instance
    rule = error.validator
    wanted: Any = error.validator_value
    schema: Any = error.schema
    if rule == "required":
        missing = next(name for name in wanted if name not in found)
        return "missing", "is missing", [*parts, missing]
    if rule == "type":
        problem = f"must be {_TYPE_NAMES[wanted]}, not {_type_of(found)}"
        return "type", problem, parts
    if rule == "minLength":
        return "value", "must not be empty", parts
    if rule == "enum":
        return "value", "must be " + " or ".join(json.dumps(choice) for choice in wanted), parts
    # Only pattern and format are left: a const is what the branch was chosen by. The schema's
    # description of the field says what would fit.
    return "value", f"must be {schema['description']}", parts


def _type_of(value: Any) -> str:
    """Name the JSON type of *value*, with its article."""
    if value is None:
        return "null"
    names = {bool: "boolean", dict: "object", float: "number", int: "integer", list: "array"}
    return _TYPE_NAMES[names.get(type(value), "string")]


def _path(parts: Iterable[str | int]) -> str:
    """Write *parts* as a JSON path (RFC 9535), in ASCII."""
    path = "$"
    for part in parts:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            path += f".{part}"
        else:
            path += f"[{json.dumps(part)}]"
    return path


def _deep() -> BodyError:
    """Make the error for a body that is nested too deeply."""
    return BodyError("depth", f"the body is nested more than {MAX_DEPTH} levels deep")


def _is_deep(value: Any) -> bool:
    """Tell whether *value* has more than `MAX_DEPTH` levels of containers, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in _children(parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    """Return what a container holds."""
    return value.values() if isinstance(value, dict) else value


def _lone_surrogates(value: Any) -> Iterator[list[str | int]]:
    """Yield the path of each string or key that has no UTF-8 form."""
    held: list[tuple[list[str | int], Any]] = [([], value)]
    while held:
        parts, current = held.pop()
        if isinstance(current, str) and _SURROGATE.search(current):
            yield parts
        elif isinstance(current, dict):
            for key, child in current.items():
                held += [([*parts, key], key), ([*parts, key], child)]
        elif isinstance(current, list):
            held += [([*parts, index], child) for index, child in enumerate(current)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, but not from keys that repeat: parsers differ in which one they keep."""
    value = dict(pairs)
    if len(value) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BodyError("duplicate_key", f"the key {json.dumps(key)} is there twice in one object")
    return value


def _constant(text: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python's parser would take."""
    raise BodyError("number", f"{text} is not JSON; send null or leave it out")


def _float(text: str) -> float:
    """Refuse a number that would become an infinity."""
    value = float(text)
    if math.isinf(value):
        raise BodyError("number", "a number is too large for a double")
    return value


def _int(text: str) -> int:
    """Refuse an integer that would become an infinity elsewhere, before it costs time here."""
    if len(text) > 308:  # 10**308 is the largest power of ten that a double holds
        _float(text)
    return int(text)


_FORMATS: Final = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date(value: object) -> bool:
    """
    Tell whether the day exists: a pattern cannot know February.

    Only the first 19 characters are read: Python 3.10 takes neither a ``Z`` nor nanoseconds, and
    the pattern has seen to the rest.
    """
    if isinstance(value, str):
        datetime.fromisoformat(value[:19])
    return True


def _without(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """Return *schema* less one keyword."""
    return {name: rule for name, rule in schema.items() if name != key}


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_int
)

# Compiled once: building a validator costs more than using it.
_EVENT_SCHEMA: Final = load_schema("event")
_RAW_SCHEMA: Final = load_schema("raw_event")
EVENT_VALIDATOR: Final = Draft202012Validator(_EVENT_SCHEMA, format_checker=_FORMATS)
RAW_VALIDATOR: Final = Draft202012Validator(_RAW_SCHEMA, format_checker=_FORMATS)

_EVENT_ENVELOPE: Final = EVENT_VALIDATOR.evolve(schema=_without(_EVENT_SCHEMA, "oneOf"))
_EVENT_BRANCHES: Final = {
    kind: EVENT_VALIDATOR.evolve(schema=_EVENT_SCHEMA["$defs"][kind])
    for kind in ("identify", "group", "track")
}
_RAW_ENVELOPE: Final = RAW_VALIDATOR.evolve(
    schema={
        **_RAW_SCHEMA,
        "properties": {"events": _without(_RAW_SCHEMA["properties"]["events"], "items")},
    }
)
_RAW_BRANCHES: Final = {
    kind: RAW_VALIDATOR.evolve(schema=_RAW_SCHEMA["$defs"][kind]) for kind in _BRANCH_LABELS
}
