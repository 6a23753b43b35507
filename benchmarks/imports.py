"""How long an import takes, in a fresh interpreter, beyond the interpreter itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile


# Nothing but the clock is imported before, so nothing is found already imported.
# os._exit, for a client that was set up may take its time at exit.
_SCRIPT = """\
import os, sys, time
sys.path.insert(0, {root!r})
{before}
started = time.perf_counter()
{timed}
sys.__stdout__.write("\\n%.9f\\n" % (time.perf_counter() - started))
sys.__stdout__.flush()
os._exit(0)
"""


def import_time(
    before: str, timed: str, *, root: str, env: dict[str, str], limit: float
) -> float | None:
    """
    Return the milliseconds that *timed* takes; None if it fails, or takes too long.

    Args:
        before: Statements that come first and do not count.
        timed: Statements that do.
        root: Where our own package is found, if it is not installed.
        env: The environment.
        limit: Longest to wait, in seconds.
    """
    script = _SCRIPT.format(root=root, before=before, timed=timed)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
            found = subprocess.run(  # noqa: S603 - this interpreter, and our own script
                [sys.executable, "-c", script],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                cwd=scratch,
                env=env,
                timeout=limit,
            )
        return float(found.stdout.strip().rpartition("\n")[2]) * 1000
    except (subprocess.SubprocessError, ValueError):
        return None
