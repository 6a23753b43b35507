"""
The table of faults in ``docs/reliability.md``, made from the table that the tests run.

    python tests/reliability_page.py          # writes it into the page
"""

from __future__ import annotations

import re
from pathlib import Path

from fault_table import FAULTS


PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
BETWEEN = re.compile(r"(<!-- faults -->\n).*?(\n<!-- /faults -->)", re.DOTALL)


def table():
    """Return the table: a row for each fault, with its figures."""
    lines = ["| fault | what has to come of it | figures |", "| --- | --- | --- |"]
    lines += [f"| {one.name} | {one.must} | {figures(one.figures)} |" for one in FAULTS]
    return "\n".join(lines)


def figures(one):
    """Return in words what a row asserts beside what every row does."""
    twice = "twice: 0" if one.duplicates == "none" else "twice: the answers lost"
    parts = [f"fault at least {one.fired} times", twice]
    for what, numbers in (("refused", one.refused), ("dropped", one.dropped)):
        parts += [f"{what} as {reason}: {number}" for reason, number in numbers.items()]
    if one.attempts is not None:
        parts.append(f"failed attempts: {one.attempts}")
    if one.waits is not None:
        shown = ", ".join(f"{wait:g}" for wait in dict.fromkeys(one.waits))
        parts.append(f"waits: {shown} s")
    if one.lines is not None:
        parts.append(f"lines of diagnostics: {one.lines}")
    if one.memory is not None:
        parts.append(f"memory at most {one.memory // 2**20} MiB more")
    return "; ".join(parts)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(BETWEEN.sub(lambda found: found[1] + table() + found[2], text), "utf-8")
