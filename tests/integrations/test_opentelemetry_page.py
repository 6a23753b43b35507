"""docs/opentelemetry.md is true: its code runs, its table is the metrics."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

from userlens_instrument.integrations.figures import (
    DURATION,
    DURATION_MEANS,
    FIGURES,
    HELD_BACK,
    OUTCOMES,
)


TEXT = (Path(__file__).parents[2] / "docs" / "opentelemetry.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_every_python_block_runs(code):
    """Each block is a program of its own, and warns of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment("http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_the_table_has_every_metric():
    """Name, kind, unit, the name for Prometheus and what it tells, in the order of the code."""
    rows = re.findall(
        r"^\| `(userlens\.\S+)` \| (\w+) \| `(\S+)` \| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE
    )
    expected = [
        (
            figure.name,
            figure.kind,
            figure.unit,
            figure.prometheus_name,
            figure.means + (", by reason" if figure.by_reason else ""),
        )
        for figure in FIGURES
    ]

    last = (DURATION, "histogram", "s", "userlens_request_duration_seconds", DURATION_MEANS)
    assert [*expected, last] == rows


def test_every_outcome_is_named():
    """The words that a request may end with."""
    assert all(f"`{outcome}`" in TEXT for outcome in OUTCOMES.values())
    assert "unauthorized" in HELD_BACK
