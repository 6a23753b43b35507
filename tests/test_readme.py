"""The README is true: its code runs, its JSON is what arrives, its table is the settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from helpers import WRITE_CODE, ScriptedServer, environment

from userlens_instrument import Settings, Track
from userlens_instrument._core.encode import Encoder
from userlens_instrument._core.extract import normalize
from userlens_instrument._delivery.stats import Stats


README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text("utf-8")
BLOCKS = re.findall(r"^(?:<!-- (\S+) -->\n)?```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SETTINGS = TEXT.split("## Settings")[1].split("\n## ")[0]
PYTHON = [code for _, language, code in BLOCKS if language == "python"]


def run(code, server, folder):
    for name, language, text in BLOCKS:
        if language == "yaml":
            (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(server.url),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def bodies(server):
    found = server.events
    for body in found:
        body.pop("timestamp", None)
    return found


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_every_python_block_runs(code, tmp_path):
    """Each block is a program of its own, and ends with exit code 0."""
    with ScriptedServer() as server:
        done = run(code, server, tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_screen_is_what_arrives(tmp_path):
    """The JSON under the first block is what the first block sends; the line still prints."""
    shown = next(json.loads(text) for _, language, text in BLOCKS if language == "json")
    with ScriptedServer() as server:
        done = run(PYTHON[0], server, tmp_path)
        (event,) = server.events

    assert list(shown) == list(event)
    assert {**shown, "timestamp": event["timestamp"]} == event
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert {"user_id": "u_42", "to_plan": "pro", "event": "Subscription Upgraded"} == json.loads(
        done.stdout
    )


def test_the_first_screen_is_short():
    """Twelve lines of code at most."""
    assert len(PYTHON[0].strip().splitlines()) <= 12


def test_the_quickstarts_send_what_they_say(tmp_path):
    """structlog's and dictConfig's quickstart deliver the events that the text promises."""
    with ScriptedServer() as server:
        run(PYTHON[1], server, tmp_path)
        structlog_sent = bodies(server)
    with ScriptedServer() as server:
        run(PYTHON[2], server, tmp_path)
        stdlib_sent = bodies(server)
    with ScriptedServer() as server:
        run(PYTHON[4], server, tmp_path)
        direct_sent = bodies(server)

    assert [("track", "Report Exported"), ("track", "Plan Changed"), ("identify", None)] == [
        (body["type"], body.get("event")) for body in structlog_sent
    ]
    assert {"plan": "pro"} == structlog_sent[2]["traits"]
    assert [("Exported %d rows", "u_42")] == [
        (body["event"], body["userId"]) for body in stdlib_sent
    ]
    assert ["identify", "group", "track"] == [body["type"] for body in direct_sent]


def test_the_table_of_statistics_has_every_one():
    """What stats() returns is in the table, and nothing else."""
    table = TEXT.split("| of `stats()` | |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE)))

    assert {item.name for item in fields(Stats)} == set(named)


def test_every_name_that_is_said_to_be_hidden_is():
    """The names in the text are hidden, by themselves and within a longer one."""
    text = TEXT.split("### What never leaves the process")[1].split("`redact=(")[0]
    names = [name for name in re.findall(r"`([^`]+)`", text) if name.isprintable()][1:]
    event = normalize(Track("u", "E", dict.fromkeys(names, "x")), default_time=0.0)
    body = json.loads(Encoder(Settings()).encode(event).payload.body)

    assert len(names) > 30
    assert dict.fromkeys(names, "[redacted]") == body["properties"]


def test_the_table_has_every_setting_with_its_default():
    """A setting that is missing from the table, or another default, fails here."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", SETTINGS, re.MULTILINE))
    expected = {}
    for item in fields(Settings):
        default = item.default
        if default is None or default == ():
            shown = "none"
        elif isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, tuple):
            shown = f"`{','.join(default)}`"
        elif isinstance(default, str):
            shown = f"`{default}`"
        else:
            shown = str(default)
        expected[item.name] = shown

    assert expected == {name: rows[name] for name in expected}
    assert set(rows) == set(expected)


def test_the_two_commands_are_there_and_single_lines():
    """One command runs the main job, one passes the tests; the gate runs the latter."""
    commands = {name: text.strip() for name, language, text in BLOCKS if language == "sh" and name}

    assert {"demo", "tests"} == set(commands)
    assert all(len(text.splitlines()) == 1 for text in commands.values())


def test_no_secret_is_shown():
    """Examples in the README carry no write code."""
    assert WRITE_CODE not in TEXT
