"""The one door to time: the monotonic clock for waits, the wall clock for stamps."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    # Looked up once: a log call pays for every attribute on its way.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
