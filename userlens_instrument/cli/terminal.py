"""What every command prints with: foreign text cannot do anything to a terminal."""

from __future__ import annotations

import sys


def printable(text: str, limit: int | None = None) -> str:
    """
    Make *text* safe for a terminal.

    A user id or an event's name comes from anywhere. Control characters (they move
    the cursor, set the window's title) and characters that reorder a line are shown escaped.

    Args:
        text: Anything.
        limit: Most characters of it; the rest is cut, and marked.

    Returns:
        Text that `str.isprintable` has nothing against: one line.
    """
    shown = (
        text
        if text.isprintable()
        else "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )
    )
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def one_line(text: str) -> str:
    """Return *text* in one line that is safe for a terminal."""
    return printable(" ".join(text.split()))


def say(line: str) -> None:
    """Print *line* now, in whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
