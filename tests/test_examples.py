"""Every program in examples/ runs as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE


FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    """It needs nothing but itself, checks what arrived, ends with 0, and warns of nothing."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("USERLENS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / name],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "\n" in done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_says_how_to_run_it(name):
    """Its first screen has the two commands that a visitor types."""
    first_screen = (FOLDER / name).read_text("utf-8").splitlines()[:20]

    assert f"    python examples/{name}" in first_screen
    assert any(line.startswith("    pip install -e '.[inspector]'") for line in first_screen)


def test_published_use_cases_are_there():
    """The use cases that Userlens publishes have an example each."""
    assert {"after_signup.py", "subscription_change.py", "background_job.py"} <= set(EXAMPLES)
