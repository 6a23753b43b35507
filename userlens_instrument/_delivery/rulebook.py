"""
The rules that a process goes by: read once for all who go by them, and again when the file changes.

A file that changes is noticed by whoever logs, at most every ten seconds, and
read on a thread that is there while it lasts: a log call waits for no disk, and
a program that logs nothing holds no thread for it.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from userlens_instrument._core.redact import compile_redactor
from userlens_instrument._core.rulefile import Problem, read_document, read_text
from userlens_instrument._core.rules import Ruleset
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._delivery.errands import Errands
from userlens_instrument.exceptions import RulesError
from userlens_instrument.settings import InlineRules


if TYPE_CHECKING:
    from collections.abc import Collection

    from userlens_instrument.settings import Settings


#: Seconds between two looks at the file.
INTERVAL = 10.0
# A rule is some hundred bytes. More than this is another kind of file.
_LARGEST_FILE = 10 * 2**20


class Book:
    """
    The rules of one file, or of one list.

    Args:
        source: The file, or the list.
        redact: As of `Settings`: what may not be sent under another name.
        reloads: Whether it is read again when the file changes.

    Attributes:
        rules: The newest ones that were right.
        reloads: As given.

    Raises:
        RulesError: If they are wrong, or cannot be read.
    """

    __slots__ = ("_due", "_redact", "_seen", "_source", "reloads", "rules")

    def __init__(
        self, source: str | InlineRules, redact: Collection[str], *, reloads: bool
    ) -> None:
        """Read them."""
        self._source = source
        self._redact = tuple(redact)
        self.reloads = reloads and isinstance(source, str)
        self._due = 0.0
        # Before it is read: what changes meanwhile is read once more.
        self._seen = _state(source) if isinstance(source, str) else None
        self.rules: Ruleset = load(source, self._redact)

    def __repr__(self) -> str:
        """Show where from, and how many."""
        return f"<Book of {len(self.rules)} rules from {_shown(self._source)}>"

    def look(self, now: float) -> None:
        """
        Have the file looked at soon, if that was not done in the last seconds.

        Args:
            now: The time of a record, in seconds since the epoch. A clock that is
                set back brings the next look forward.
        """
        if not self._due - INTERVAL <= now < self._due:
            is_first = not self._due
            self._due = now + INTERVAL
            if not is_first:  # it has just been read
                _errands.put(self)

    def read_again(self) -> None:
        """Take new rules, if the file has changed and they are right."""
        state = _state(self._source) if isinstance(self._source, str) else None
        if state == self._seen:
            return
        self._seen = state
        shown = _shown(self._source)
        try:
            rules = load(self._source, self._redact)
        except RulesError as error:
            voice.say(None, f"the rules stay as they were: {error}", logging.ERROR)
            return
        if len(self.rules) and not len(rules):
            # As an editor leaves a file for a moment, before it writes the new text.
            voice.say(None, f"the rules stay as they were: {shown} has none", logging.ERROR)
            return
        self.rules = rules
        voice.say(None, f"{len(rules)} rule{'s' * (len(rules) != 1)} read again from {shown}")


_errands: Errands[Book] = Errands("userlens-rules", Book.read_again)

#: All rules of this process, by what asks for them; empty as long as nobody goes by any.
books: dict[object, Book] = {}


def forget_inherited() -> None:
    """Start afresh in a forked child: the thread did not come along."""
    _errands.reset()


def shared_book(settings: Settings) -> Book | None:
    """
    Return the rules that *settings* ask for, the same for all that ask for the same.

    Raises:
        RulesError: If they are wrong, or cannot be read.
    """
    source = settings.rules
    if source is None:
        return None
    key = (source, settings.redact, settings.rules_reload)
    book = books.get(key)
    if book is None:
        made = Book(source, settings.redact, reloads=settings.rules_reload)
        book = books.setdefault(key, made)
    return book


def load(source: str | InlineRules, redact: Collection[str]) -> Ruleset:
    """
    Return the rules of a file or a list.

    Raises:
        RulesError: If any of them is wrong, or the file cannot be read; with every problem.
    """
    is_secret = compile_redactor(redact)
    if isinstance(source, InlineRules):
        rules, problems = read_document(source.document, is_secret)
    else:
        rules, problems = read_text(read_file(source), is_secret)
    if problems:
        raise RulesError(_shown(source), tuple(map(str, problems)))
    return Ruleset(rules, is_own=voice.has_said)


def read_file(path: str) -> str:
    """
    Return the text of a file of rules.

    Raises:
        RulesError: If it cannot be read.
    """
    wrong = {
        FileNotFoundError: ("there is no such file", "give the path of a rules file"),
        IsADirectoryError: ("this is a directory", "give the path of a file in it"),
        PermissionError: ("this may not be read", "let the user of this process read it"),
        UnicodeDecodeError: ("this is not UTF-8", "save it as UTF-8, as TOML is"),
    }
    try:
        _refuse_pipe(path)
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(_LARGEST_FILE)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        what, fix = wrong.get(type(error), (f"this cannot be read ({error})", "look at the path"))
        problem = Problem(None, None, "", None, what, fix)
        raise RulesError(path, (str(problem),)) from None
    if len(text) == _LARGEST_FILE:
        problem = Problem(None, None, "", None, "this is too large for rules", "look at the path")
        raise RulesError(path, (str(problem),))
    return text


def _refuse_pipe(path: str) -> None:
    if stat.S_ISFIFO(Path(path).stat().st_mode):
        raise ValueError("a pipe, which may never end")


def _state(path: str) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from the next."""
    try:
        found = os.stat(path)  # noqa: PTH116 - text in, numbers out
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _shown(source: str | InlineRules) -> str:
    return source if isinstance(source, str) else "rules"
