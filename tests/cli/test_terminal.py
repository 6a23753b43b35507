"""What commands print with: nothing foreign reaches the terminal as it is."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st

from userlens_instrument.cli.terminal import printable, say


ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
@example("\x1b[2J\x07\x7f\x9b\r\n\u202e\u2066\u200b\u2028\ud800\U000e0001\U0010ffff")
def test_nothing_unprintable_is_left(text):
    """For any text, half characters and all: no control character, no bidi override."""
    assert printable(text).isprintable()


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_what_is_printable_stays_as_it_is(text):
    """Letters of any alphabet are shown as they are."""
    assert text == printable(text)


@given(ANY_TEXT, st.integers(1, 50))
def test_what_is_too_long_is_cut(text, limit):
    """No more than the limit is shown, and what is cut is marked."""
    whole, shown = printable(text), printable(text, limit)

    assert len(shown) <= limit
    assert (shown == whole) or (shown == whole[: limit - 1] + "…")


def test_terminal_without_the_letter(monkeypatch):
    """A terminal that cannot show a letter gets its escape, not an exception."""
    written = []
    stream = SimpleNamespace(encoding="ascii", write=written.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", stream)
    say("Käse")

    assert "K\\xe4se\n" == "".join(written)
