"""Append every accepted request to a file, one JSON line each."""

import json
import os
from collections.abc import Callable
from typing import Any


class Recorder:
    """
    A file of accepted requests: ``{"received_at": …, "path": …, "body": …}``, one a line.

    Each line is on its way to the disk before the request is answered. There is no buffer of
    ours: what a buffer could not write when the disk was full, it would write again later, in
    the middle of another line.

    A later failure (the disk is full) is said once, not once per request; when the file takes
    lines again, so is the next failure.
    """

    def __init__(self, file: str | os.PathLike[str], *, complain: Callable[[str], None]) -> None:
        """
        Open *file* for appending.

        The file is made readable for its owner only: events are about people.

        Args:
            file: Where to write.
            complain: Is told, in one line, that a write failed.

        Raises:
            OSError: If the file cannot be opened.
        """
        self._name = os.fspath(file)
        self._complain = complain
        # "a+" and not "a": the last byte says whether an earlier run was cut off in a line.
        self._file = open(file, "a+b", buffering=0, opener=_private)  # noqa: SIM115 -- see close()
        self._torn = self._ends_within_a_line()
        self._failing = False

    def __repr__(self) -> str:
        """Show where it writes and whether it can."""
        return f"<Recorder file={self._name!r} failing={self._failing}>"

    def write(self, *, received_at: str, path: str, body: Any) -> None:
        """
        Append one request.

        Args:
            received_at: When it came, ISO 8601 in UTC.
            path: Where it went: ``/event`` or ``/raw/event``.
            body: Its parsed body.
        """
        entry = {"received_at": received_at, "path": path, "body": body}
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            written = self._file.write(line)
        except OSError as error:
            self._say(error.strerror or type(error).__name__)
            return
        if written == len(line):
            self._torn = self._failing = False
        else:
            # A disk that fills up takes a part; the next line must not continue this one.
            self._torn = True
            self._say("only a part of a line could be written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _say(self, problem: str) -> None:
        """Complain, unless that was the last thing that happened."""
        if not self._failing:
            self._failing = True
            self._complain(f"cannot record to {self._name!r}: {problem}; going on without")

    def _ends_within_a_line(self) -> bool:
        """Tell whether the file holds something and does not end in a line break."""
        if not self._file.seekable() or self._file.tell() == 0:
            return False  # a pipe, a device, or a new file
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) != b"\n"


def _private(file: str, flags: int) -> int:
    """Open *file* with no access for others, should it be new."""
    return os.open(file, flags, 0o600)
