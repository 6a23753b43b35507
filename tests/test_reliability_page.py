"""docs/reliability.md says what the tests do."""

from __future__ import annotations

import re
from pathlib import Path

from reliability_page import BETWEEN, PAGE, table


TEXT = PAGE.read_text("utf-8")
ROOT = PAGE.parent.parent


def test_the_table_of_faults_is_the_one_that_is_run():
    """A row that is missing, or has other figures; `tests/reliability_page.py` writes them."""
    assert table() == BETWEEN.search(TEXT)[0].split("\n", 1)[1].rsplit("\n", 1)[0]


def test_the_tests_that_it_names_are_there():
    """Each file and each test that the page points to."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)

    assert len(named) > 10
    for path, test in named:
        source = Path(ROOT, path).read_text("utf-8")
        assert not test or f"def {test}(" in source, f"{path}::{test}"
