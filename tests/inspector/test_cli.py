"""The command: what it prints, how it starts, how it ends."""

import argparse
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from inspector.client import TIMEOUT, TRACK, basic

from userlens_instrument.cli import inspector as command
from userlens_instrument.inspector import InspectorServer


PROGRAM = """
import argparse, sys
from userlens_instrument.cli import inspector
parser = argparse.ArgumentParser(prog="userlens-instrument inspector")
inspector.add_arguments(parser)
sys.exit(inspector.run(parser.parse_args()))
"""
PREFIX = "userlens-instrument inspector: "


def parse(*arguments):
    """Parse a command line."""
    parser = argparse.ArgumentParser(prog="inspector")
    command.add_arguments(parser)
    return parser.parse_args(arguments)


@contextmanager
def running(*arguments, **environment):
    """Run the command; yields the process and its port, once it has said that it listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        encoding="utf-8",
    )
    # Whatever goes wrong, a test does not wait for ever.
    guard = threading.Timer(TIMEOUT, process.kill)
    guard.start()
    try:
        first = process.stdout.readline()
        url = re.fullmatch(r"Userlens inspector on (\S+) \(Ctrl\+C stops it\)\n", first)
        assert url, first + process.stderr.read()
        yield process, SimpleNamespace(port=int(url[1].rpartition(":")[2]), url=url[1])
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_start_to_end(connect, tmp_path, number):
    """It says where it is, prints a line for each event, records, and ends at a signal with 0."""
    file = tmp_path / "events.jsonl"
    with running("--record", str(file)) as (process, server):
        hint = process.stdout.readline()
        connect(server).deliver(TRACK)
        connect(server).deliver({"type": "group", "groupId": "g-1", "userId": "u-1"})
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(number)
        rest = process.communicate(timeout=TIMEOUT)

    url = server.url
    assert (
        f"Point a service at it: USERLENS_EVENTS_URL={url} USERLENS_RAW_URL={url}"
        " USERLENS_WRITE_CODE=anything\n"
    ) == hint
    assert [
        "  track     Plan Upgraded  user u-1  good\n",
        "  group     g-1  user u-1  bad: group: 'source' is missing\n",
    ] == [re.sub(r"^\d\d:\d\d:\d\d\.\d{3}Z", "", line) for line in lines]
    assert (("", ""), 0) == (rest, process.returncode)
    assert [TRACK] == [json.loads(line)["body"] for line in file.read_text("utf-8").splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes of this kind")
def test_nobody_reads_on():
    """When the reader of its output is gone, it ends without a word."""
    with running() as (process, server):
        process.stdout.close()
        # Its second line, or the first event's, meets the closed pipe.
        connection = __import__("http.client").client.HTTPConnection("127.0.0.1", server.port)
        try:
            connection.request("POST", "/event", b"{}", {"authorization": basic("wc:")})
            connection.getresponse().read()
        except OSError:
            pass  # it was gone already
        finally:
            connection.close()
        code = process.wait(TIMEOUT)
        problem = process.stderr.read()

    assert (0, "") == (code, problem)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")
def test_checks_the_write_code(connect):
    """The write code to check comes from the environment, and is not printed."""
    with running("--check-write-code", USERLENS_WRITE_CODE="secret") as (process, server):
        hint = process.stdout.readline()
        right = connect(server).deliver(TRACK, authorization=basic("secret:"))
        wrong = connect(server).deliver(TRACK, authorization=basic("other:"))
        process.terminate()
        out, err = process.communicate(timeout=TIMEOUT)

    assert (200, 401) == (right.status, wrong.status)
    assert "USERLENS_WRITE_CODE=<the one in your environment>\n" == hint[-50:]
    assert "secret" not in hint + out + err
    assert "/event    -  user -  bad: this is not the write code that is asked for\n" in out


@pytest.mark.parametrize("value", [None, ""])
def test_no_write_code_to_check(monkeypatch, capsys, value):
    """To check a write code that is not there is an error, not an open door."""
    monkeypatch.delenv("USERLENS_WRITE_CODE", raising=False)
    if value is not None:
        monkeypatch.setenv("USERLENS_WRITE_CODE", value)

    assert 2 == command.run(parse("--check-write-code"))
    assert (
        f"{PREFIX}--check-write-code needs USERLENS_WRITE_CODE in the environment\n"
        == capsys.readouterr().err
    )


@pytest.mark.parametrize("record", [False, True])
def test_port_in_use(server, capsys, tmp_path, record):
    """A port that is in use is one line and exit code 2."""
    more = ["--record", str(tmp_path / "events.jsonl")] if record else []

    assert 2 == command.run(parse("--port", str(server.port), *more))
    assert (
        f"{PREFIX}cannot listen on 127.0.0.1:{server.port}: Address already in use;"
        " choose another --host or --port\n"
    ) == capsys.readouterr().err


def test_no_host_name(capsys):
    """A name that cannot be one is one line and exit code 2."""
    assert 2 == command.run(parse("--host", "a..b"))
    assert (
        f"{PREFIX}cannot listen on a..b:8899: this is no such name;"
        " choose another --host or --port\n"
    ) == capsys.readouterr().err


def test_unwritable_record(capsys, tmp_path):
    """A file that cannot be written is one line and exit code 2, before anything is served."""
    assert 2 == command.run(parse("--record", f"{tmp_path}/none/\x1b[31m.jsonl"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{PREFIX}cannot write to ")
    assert line.isprintable()


def test_without_the_extra(monkeypatch, capsys):
    """Without the extra, the command says what to install."""
    for name in [name for name in sys.modules if name.startswith("userlens_instrument.inspector")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert 2 == command.run(parse())
    assert (
        f"{PREFIX}this needs the 'inspector' extra: pip install 'userlens-instrument[inspector]'\n"
        == capsys.readouterr().err
    )


def test_open_to_others(monkeypatch, capsys):
    """An address that other machines can reach is served with one line of warning."""
    monkeypatch.setattr(command, "_serve", lambda server, lines, checks: server.stop() or 0)

    assert 0 == command.run(parse("--host", "0.0.0.0", "--port", "0"))
    assert (
        f"{PREFIX}other machines can reach this inspector and read what it is sent\n"
        == capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "65536"], "argument --port: must be a number from 0 to 65535"),
        (["--port", "-1"], "argument --port: must be a number from 0 to 65535"),
        (["--port", "http"], "argument --port: must be a number from 0 to 65535"),
        (["--max-events", "0"], "argument --max-events: must be a number from 1 to 10000000"),
        (["--max-events", "²"], "argument --max-events: must be a number from 1 to 10000000"),
        (["--write-code", "secret"], "unrecognized arguments: --write-code secret"),
    ],
)
def test_bad_arguments(capsys, arguments, problem):
    """A bad argument is exit code 2 and one line that says what would be right."""
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)

    assert 2 == caught.value.code
    assert f"inspector: error: {problem}" == capsys.readouterr().err.splitlines()[-1]


def test_import_is_light():
    """The options can be shown without loading a server."""
    program = (
        "import sys, userlens_instrument.cli.inspector\n"
        "print(sorted({'uvicorn', 'starlette', 'jsonschema', 'asyncio'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_hostile_name(client):
    """An event's name cannot move the cursor, colour the terminal or reorder the line."""
    client.deliver(TRACK | {"event": "\x1b[2J\x07\n\u202egpj.exe", "userId": "u" * 100})
    (entry,) = client.server.store.events()
    line = command._line(entry)

    assert line.isprintable()
    assert "  track     \\x1b[2J\\x07\\n\\u202egpj.exe  user " in line
    assert line.endswith("user " + "u" * 59 + "…  good")


def test_paused_terminal(client):
    """Lines that nobody reads do not fill the memory; the events are kept all the same."""
    lines = queue.SimpleQueue()
    for _ in range(command._MAX_LINES):
        lines.put("")
    client.deliver(TRACK)
    (entry,) = client.server.store.events()
    show = command._shower(lines)
    show(entry)
    full = lines.qsize()
    lines.get()
    show(entry)

    assert (command._MAX_LINES, command._MAX_LINES) == (full, lines.qsize())


def test_looks_up_now_and_then(capsys):
    """A signal that wakes nobody is not lost: the wait for a line has an end, and begins again."""

    class Lines:
        takes = iter([queue.Empty(), "a line", queue.Empty(), None])

        def get(self, timeout):
            assert timeout == 0.5
            take = next(self.takes)
            if isinstance(take, queue.Empty):
                raise take
            return take

    command._show(Lines())

    assert "a line\n" == capsys.readouterr().out


def test_main_thread_gets_its_handlers_back():
    """The signal handlers of who called it are put back."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    lines = queue.SimpleQueue()
    lines.put(None)
    code = command._serve(InspectorServer(), lines, checks=False)

    assert (0, before) == (
        code,
        [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
    )
