"""Writers that are killed over and over: the soak of tests/soak.py, in short."""

from __future__ import annotations

from soak import run_kills


def test_kills_lose_nothing_and_repeat_a_group_at_most():
    """
    Three processes on one spool, a server that fails in every way, and a SIGKILL
    every half second: all that a log call returned for arrives, in order.
    """
    report = run_kills(kills=6, seconds=3.0, seed=7)

    assert report.good, report
    assert 6 == report.kills
    assert report.noted > 100
