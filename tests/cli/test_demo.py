"""The demo: it tells the story, ends by itself, and its exit code can be relied on."""

from __future__ import annotations

import argparse
import io
import logging
import os
import subprocess
import sys
import threading

import pytest
import structlog
from helpers import PATIENCE, closed_port

from userlens_instrument.cli import demo, main
from userlens_instrument.cli.demo import scenario
from userlens_instrument.inspector import Fault, Store


NO_ARGUMENTS = argparse.Namespace()


@pytest.fixture
def impatient(monkeypatch):
    """Have the local Userlens ask for no second of waiting."""
    monkeypatch.setattr(scenario, "RETRY_AFTER", 0)


def test_demo_from_a_shell():
    """``python -m userlens_instrument demo`` ends with 0, and no warning, not even at exit."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("USERLENS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-m", "userlens_instrument", "demo"],
        env=clean,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "OK: 13 of 13 events arrived" in done.stdout


def test_demo_tells_the_story(impatient, capsys, monkeypatch):
    """What was logged stands beside what arrived; then order, statistics and diagnostics."""
    monkeypatch.setenv("COLUMNS", "132")  # wide enough for the lines looked for below
    assert 0 == main(["demo"])

    shown = capsys.readouterr()
    story = " ".join(shown.out.split())
    assert "" == shown.err
    for part in [
        'userlens_event=["track", {"type": "identify"',  # how a line is tagged
        "POST /subscription 200",
        'event="Account Created" user_id=ada',
        'identify {"name": "Ada", "plan": "free"}',
        "| - not tagged: stays a log line",
        "| - tagged, but nobody's: counted as invalid",
        "password=hunter2",
        '"password": "[redacted]"',
        "bob 4 of 4",
        "delivered 13",
        "13 x 200, 2 x 503",
        "1 x missing_user_id",
        "service.py:",  # where the line without a user is
        "Userlens takes events again",
        "OK: 13 of 13 events arrived, each exactly once, each user's in order, every body valid.",
    ]:
        assert part in story


def test_demo_notices_a_lost_event(impatient, capsys):
    """An event that Userlens refuses is named, and the exit code is 1."""
    store = Store()
    store.add_faults(Fault(status=400, user_id="bob"))

    assert 1 == demo.run(NO_ARGUMENTS, store=store)

    result = capsys.readouterr().out.partition("Result")[2]
    assert "NOT OK: 3 " in result
    assert '- missing: bob: track "Profile Saved"' in result
    assert "- counted as delivered: 12, not 13" in result
    assert "- lost: {'rejected': 1} refused, {} dropped" in result


def test_demo_notices_a_duplicate(impatient, capsys):
    """An event whose answer was lost arrives twice; that is named, and the exit code is 1."""
    store = Store()
    store.add_faults(Fault(status=500, accept=True, user_id="ada"))

    assert 1 == demo.run(NO_ARGUMENTS, store=store)

    result = capsys.readouterr().out.partition("Result")[2]
    assert "NOT OK: 1 " in result
    assert "- arrived twice: ada: identify" in result


def test_demo_is_the_same_everywhere(impatient, capsys, monkeypatch):
    """Neither settings in the environment nor a proxy reach it: it stays on this machine."""
    monkeypatch.setenv("USERLENS_DISABLED", "true")
    monkeypatch.setenv("USERLENS_ALLOW", "nothing")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "example.test")

    assert 0 == main(["demo"])


def test_demo_works_where_the_terminal_knows_only_ascii(impatient, monkeypatch):
    """A diagnostic has an ellipsis in it; it is shown escaped."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "20")

    assert 0 == main(["demo"])

    shown.seek(0)
    assert "\\u2026" in shown.read()


def test_demo_leaves_nothing_behind(impatient, capsys, monkeypatch):
    """No thread, and logging, structlog and the environment as they were."""
    monkeypatch.delenv("no_proxy", raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level, dict(os.environ)
    threads = set(threading.enumerate())

    assert 0 == main(["demo"])

    assert before == (root.handlers, root.level, dict(os.environ))
    assert not structlog.is_configured()
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread for thread in left if thread.is_alive()]
