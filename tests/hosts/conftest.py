"""The matrix of hosts: collected when it is asked for, and shown as a table at the end."""

from __future__ import annotations

import os


# Minutes, and frameworks that the quick tests do without: `tox -e hosts`.
collect_ignore = (
    [] if os.environ.get("TESTS_HOSTS") == "1" else ["test_matrix.py", "test_unmodified.py"]
)

SIGNS = {"passed": "green", "failed": "RED", "error": "RED", "skipped": "n.a."}
WAYS = ("code", "dictConfig", "wrapper")


def pytest_terminal_summary(terminalreporter):
    """Print the table host by way, of the tests that have recorded their "cell" of it."""
    cells, notes, places = {}, [], {}
    for outcome, sign in SIGNS.items():
        for report in terminalreporter.stats.get(outcome, []):
            recorded = dict(getattr(report, "user_properties", ()))
            if "cell" not in recorded:
                continue
            place, host, way = recorded["cell"]
            places[host] = place
            note = recorded.get("note")
            if outcome == "skipped":
                note = report.longrepr[2].removeprefix("Skipped: ")
            if note and note not in notes:
                notes.append(note)
            cells[host, way] = f"{sign} [{notes.index(note) + 1}]" if note else sign
    if not cells:
        return
    width = max(map(len, places))
    terminalreporter.section("hosts")
    terminalreporter.line(" ".join([" " * width, *(f"{way:>12}" for way in WAYS)]))
    for host in sorted(places, key=places.get):
        row = [f"{cells.get((host, way), '-'):>12}" for way in WAYS]
        terminalreporter.line(" ".join([f"{host:<{width}}", *row]))
    for number, note in enumerate(notes, 1):
        terminalreporter.line(f"[{number}] {note}")
