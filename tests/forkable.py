"""
Coverage measurement that survives a fork: the tests fork a process with busy threads.

Its tracer takes a lock at each file that it has not seen. A fork that finds the
lock held leaves it held in the child, which then hangs in the tracer. So no
other thread holds it at a fork: importing this module registers hooks for that.
They have to be the first to be registered: of those that run before a fork, the
last; in the child, the first. What other hooks run in between is traced, and
would wait for the lock.
"""

from __future__ import annotations

import os
import sys


def coverage_lock():
    """Return the lock of the running measurement, or None."""
    coverage = sys.modules.get("coverage")
    current = None if coverage is None else coverage.Coverage.current()
    return getattr(getattr(current, "_collector", None), "data_lock", None)


lock = coverage_lock()
if lock is not None:
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
