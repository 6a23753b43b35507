"""Which records have been captured: each becomes one event, however many entrances it meets."""

from __future__ import annotations

import math
import sys


# Tagged records that are remembered before those that are gone are looked for:
# so few that to look takes no log call long (10 µs, measured).
_SWEEP = 64


def token_of(record: object) -> object:
    """
    Return what tells *record* from any other, for `OnceGuard.claim`.

    `logging` makes the float of ``relativeCreated`` new with each record, and every
    copy of it shares that; `created` itself is not always (a frozen clock hands out
    one object). A filter may have put something else there, which others share.
    """
    token = getattr(record, "relativeCreated", None)
    return token if type(token) is float else record


class OnceGuard:
    """
    Recognises a record at its second entrance, however much later that is.

    By the identity of an object that is made new for each record and that every
    copy of the record shares. Nothing is written on the record: other handlers
    would print it. The guard keeps what it has seen alive, so that an identity
    cannot come to mean another object; and forgets it once nobody else has it,
    because then no copy of the record is left that could come.
    """

    __slots__ = ("_most", "_seen", "marks")

    def __init__(self) -> None:
        """Start with nothing seen."""
        #: Whether event texts are claimed, too: a tag is kept somewhere.
        self.marks = False
        self._seen: dict[int, tuple[object]] = {}
        self._most: float = _SWEEP

    def __len__(self) -> int:
        """Return how many are remembered: those that somebody holds, and a few."""
        return len(self._seen)

    def claim(self, token: object) -> bool:
        """Return whether *token* is seen for the first time. Atomic, without a lock."""
        mine = (token,)
        if self._seen.setdefault(id(token), mine) is not mine:
            return False
        if len(self._seen) > self._most:
            self._sweep()
        return True

    def has_seen(self, *tokens: object) -> bool:
        """Return whether any of *tokens* has been claimed."""
        return any(id(token) in self._seen for token in tokens)

    def _sweep(self) -> None:
        """Forget what nobody else holds. Callable from any thread, and within itself."""
        seen = self._seen
        self._most = math.inf  # one at a time is enough; two at a time do no harm
        try:
            for key in list(seen):
                entry = seen.get(key)
                # What nobody else holds, nobody else can get hold of meanwhile.
                if entry is not None and _references(entry) <= _ALONE:
                    seen.pop(key, None)
        finally:
            # Twice what had to stay: the cost of each record is the same
            # however many are held.
            self._most = max(_SWEEP, 2 * len(seen))


def _references(entry: tuple[object]) -> int:
    return sys.getrefcount(entry[0])


# What `_references` returns for an object that only its entry holds.
_ALONE = _references((object(),))
