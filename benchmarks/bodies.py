"""
How many events a request body holds, for each kind of body that a subject sends.

The sink counts what arrived instead of believing what a client says it sent.
"""

from __future__ import annotations

import gzip
import json
import zlib


# Fields of the envelopes around a batch: ours and Amplitude's, then that of
# PostHog, Segment and RudderStack.
_LISTS = ("events", "batch")

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def count_events(path: str, kind: str, coding: str, body: bytes) -> int:
    """
    Return how many events *body* holds, as far as that can be told.

    Args:
        path: Where it was sent to.
        kind: The ``Content-Type``, in lower case.
        coding: The ``Content-Encoding``, in lower case.
        body: As it came over the wire.
    """
    try:
        if coding == "gzip":
            body = gzip.decompress(body)
        elif coding == "deflate":
            body = zlib.decompress(body)
        if "protobuf" in kind:
            return _otlp(body)
        if "msgpack" in kind:
            return _msgpack(body)
        if path.endswith("/envelope/"):
            return _envelope(body)
        return _json(body)
    except (ValueError, IndexError, OSError, EOFError, zlib.error):
        return 0


def _json(body: bytes) -> int:
    """Count a list, a list in an envelope, or a lone track; an identify is not counted."""
    tree = json.loads(body)
    if isinstance(tree, list):
        return len(tree)
    if not isinstance(tree, dict):
        return 0
    for name in _LISTS:
        if isinstance(tree.get(name), list):
            return len(tree[name])
    return int(tree.get("type") == "track")


def _msgpack(body: bytes) -> int:
    """Read the length of the outermost array (msgpack specification, "array format family")."""
    first = body[0]
    if first >> 4 == 0x9:
        return first & 0x0F
    width = {0xDC: 2, 0xDD: 4}.get(first, 0)
    return int.from_bytes(body[1 : 1 + width], "big")


def _envelope(body: bytes) -> int:
    """Add up the logs of a Sentry envelope: lines of JSON, each item's header before it."""
    number = 0
    for line in body.split(b"\n"):
        # An item's header is short and says how many; a payload may hold anything.
        if b'"item_count"' in line[:400]:
            header = json.loads(line)
            if header.get("type") == "log":
                number += int(header["item_count"])
    return number


def _otlp(body: bytes) -> int:
    """
    Count the log records, or the spans, of an OTLP export request.

    In both they are field 2 of field 2 of field 1: resource, scope, record
    (opentelemetry-proto, ``logs_service.proto`` and ``trace_service.proto``).
    """
    return sum(
        len(_nested(scope, 2)) for resource in _nested(body, 1) for scope in _nested(resource, 2)
    )


def _nested(message: bytes, wanted: int) -> list[bytes]:
    """Return each occurrence of the length-delimited field *wanted* of a protobuf *message*."""
    found = []
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _LENGTH:
            length, at = _varint(message, at)
            if key >> 3 == wanted:
                found.append(message[at : at + length])
            at += length
        else:
            raise ValueError(f"wire type {wire}")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the base-128 number at *at*, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
