"""
The values that attributes of OpenTelemetry were made of.

An attribute holds text in the place of an object, and a text shows what the
object hides: no field of it can be told by its name any more. Where the values
themselves are at hand they are read again, but only in the places where the
attribute is still what OpenTelemetry has made of them: a processor may have
changed it, or taken it away, because it must not leave the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from userlens_instrument._core.redact import REDACTED


# How the text of an event of ours begins, wherever it stands in another.
_EVENTS = ("Track(user_id=", "Identify(user_id=", "Group(group_id=")

# What OpenTelemetry makes no text of.
_KEPT = (str, bool, int, float, bytes, type(None))


def restored(value: Any, given: Any) -> Any:
    """
    Return *value* with objects in the place of their texts. Never raises an `Exception`.

    Args:
        value: An attribute's value.
        given: What it was made of, if it has not been changed since.
    """
    if value is given:
        return value
    try:
        return _restored(value, given)
    except Exception:  # an object's own methods
        return value


def _restored(value: Any, given: Any) -> Any:
    if isinstance(value, str):
        is_text_of = not isinstance(given, _KEPT) and str(given) == value
        return given if is_text_of else value
    if isinstance(value, tuple) and isinstance(given, Sequence) and len(value) == len(given):
        # One whose fields have names is told by them what is secret.
        items = [restored(one, of) for one, of in zip(value, given, strict=True)]
        names = getattr(given, "_fields", None)
        if isinstance(given, tuple) and isinstance(names, tuple):
            return dict(zip(names, items, strict=True))
        return tuple(items)
    if isinstance(value, Mapping) and isinstance(given, Mapping):
        by_name = {key if isinstance(key, str) else str(key): one for key, one in given.items()}
        return {key: restored(one, by_name.get(key, one)) for key, one in value.items()}
    return value


def shows_an_event(value: Any) -> bool:
    """Return whether there is text in *value*, however deep, that shows a Track and the like."""
    if isinstance(value, str):
        return any(start in value for start in _EVENTS)
    if isinstance(value, Mapping):
        return any(shows_an_event(key) or shows_an_event(one) for key, one in value.items())
    return isinstance(value, (tuple, list)) and any(map(shows_an_event, value))


def hide_events(value: Any) -> Any:
    """Return *value* with the text that shows a Track and the like hidden, however deep it is."""
    if not shows_an_event(value):
        return value
    if isinstance(value, Mapping):
        return {
            REDACTED if shows_an_event(key) else key: hide_events(one) for key, one in value.items()
        }
    return REDACTED if isinstance(value, str) else tuple(map(hide_events, value))
