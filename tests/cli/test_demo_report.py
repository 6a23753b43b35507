"""The demo's page: plain text that lines up, whatever happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from userlens_instrument.cli.demo.report import Page, show


@pytest.fixture
def page(capsys):
    made = Page(60)
    capsys.readouterr()
    return made


def test_texts_stand_side_by_side(page, capsys):
    """Each is wrapped within its own column, and an empty cell stays empty."""
    page.beside("one two three four five six seven", "1")
    page.beside("a", "first\nsecond")

    assert (
        "   one two three four five six | 1\n"
        "       seven                   |\n"
        "   a                           | first\n"
        "                               | second\n"
    ) == capsys.readouterr().out


def test_table_lines_up(page, capsys):
    """Columns are as wide as they need to be; a long last one goes on below itself."""
    page.table(
        [
            ("a", 1, "short"),
            ("bcd", 22, "a long text that does not fit into one line"),
            ("e", 3, ""),
        ]
    )

    assert (
        "   a    1   short\n   bcd  22  a long text that does not fit into one line\n   e    3\n"
    ) == capsys.readouterr().out


def test_long_cell_is_wrapped(page, capsys):
    """No line is wider than the page."""
    page.table([("name", "x " * 100)])

    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_what_is_missing_is_shown_where_it_should_be(page, capsys, evidence_of):
    """Nothing logged and nothing arrived: the page says so, and the result lists the problems."""
    show(page, replace(evidence_of([]), log=()), ["missing: ada: identify", "and more"])

    shown = capsys.readouterr().out
    assert "(not logged)" in shown
    assert "MISSING: identify" in shown
    assert "in full" not in shown
    assert "NOT OK: 2 of the things" in shown
    assert "   - missing: ada: identify\n   - and more\n" in shown
