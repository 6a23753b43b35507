"""The command line as a user meets it: one line for what is wrong, never a traceback."""

from __future__ import annotations

import errno
import os
import runpy
import subprocess
import sys

import pytest
from helpers import PATIENCE

from userlens_instrument import SettingsError, __version__, cli
from userlens_instrument.cli import main


def run_command_line(*arguments, code=None, **options):
    """Run the command line in a Python of its own; return the finished process."""
    program = ["-m", "userlens_instrument"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=3 * PATIENCE,
        **options,
    )


class Failing:
    """A command that raises."""

    def __init__(self, error):
        self.error = error

    def add_arguments(self, parser):
        parser.add_argument("--size", type=int)

    def run(self, args):
        raise self.error


@pytest.fixture
def fail_with(monkeypatch):
    """Return a way to make ``userlens-instrument fail`` raise an error."""

    def fail_with(error):
        monkeypatch.setattr(cli, "_COMMANDS", (("fail", "fail", Failing(error)),))

    return fail_with


def test_without_a_command_the_help_is_shown(capsys):
    """``userlens-instrument`` alone is a mistake: help on stderr, exit code 2."""
    assert 2 == main([])

    shown = capsys.readouterr()
    assert "" == shown.out
    assert "demo" in shown.err
    assert "inspector" in shown.err


@pytest.mark.parametrize("name", [name for name, _, _ in cli._COMMANDS])
def test_every_command_has_help(name, capsys):
    """``COMMAND --help`` says what it does, and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert 0 == ended.value.code
    assert f"usage: userlens-instrument {name}" in capsys.readouterr().out


def test_version(capsys):
    """``--version`` says which one this is."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert 0 == ended.value.code
    assert f"userlens-instrument {__version__}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["inspect"], "userlens-instrument: "),
        (["--write-code"], "userlens-instrument: "),
        (["demo", "fast"], "userlens-instrument: "),
        (["demo", "--fast"], "userlens-instrument: "),
        (["fail", "--size", "many"], "userlens-instrument fail: "),
        (["fail", "--size", "a\nb"], "userlens-instrument fail: "),
        (["fail", "--siz", "1"], "userlens-instrument: "),
    ],
)
def test_bad_arguments_are_one_line(arguments, start, capsys, monkeypatch):
    """What is wrong with the command line is said in one line, with exit code 2."""
    extended = (*cli._COMMANDS, ("fail", "fail", Failing(None)))
    monkeypatch.setattr(cli, "_COMMANDS", extended)

    with pytest.raises(SystemExit) as ended:
        main(arguments)

    shown = capsys.readouterr()
    assert 2 == ended.value.code
    assert "" == shown.out
    assert shown.err.startswith(start)
    assert 1 == shown.err.count("\n")


def test_an_error_of_ours_is_one_line(fail_with, capsys):
    """A `UserlensError` is its message in one line on stderr, with exit code 2."""
    fail_with(SettingsError("port", "is taken\nalready", "choose another"))

    assert 2 == main(["fail"])

    shown = capsys.readouterr()
    assert "" == shown.out
    assert "userlens-instrument fail: port is taken already; choose another\n" == shown.err


def test_a_defect_is_a_traceback(fail_with):
    """An error that nobody foresaw is not hidden."""
    fail_with(ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        main(["fail"])


def test_ctrl_c_is_quiet(fail_with, capsys):
    """Ctrl+C ends any command without a word, with the exit code that shells expect."""
    fail_with(KeyboardInterrupt())

    assert 130 == main(["fail"])
    assert ("", "") == tuple(capsys.readouterr())


def closed_pipe():
    """Return the end to write to, of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def buffered():
    """Return an environment in which output is; argparse, unbuffered, hides what fails."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


def test_a_reader_that_has_gone_is_quiet(monkeypatch, capsys):
    """``userlens-instrument … | head`` ends with 1 and no word on stderr."""
    with os.fdopen(closed_pipe(), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        assert 1 == main(["inspector", "--help"])
        monkeypatch.undo()
    assert "" == capsys.readouterr().err


def test_a_reader_that_has_gone_is_quiet_to_the_end():
    """Nor is there one when the interpreter flushes at its exit."""
    stdout = closed_pipe()
    try:
        done = run_command_line("--help", stdout=stdout, env=buffered())
    finally:
        os.close(stdout)

    assert (1, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("arguments", [["rules", "schema"], ["--help"]])
def test_a_full_disk_is_one_line(arguments):
    """What cannot be written is exit code 1, and no traceback."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = run_command_line(*arguments, stdout=full, env=buffered())

    said = "userlens-instrument: cannot write the output: No space left on device\n"
    assert (1, said) == (done.returncode, done.stderr)


def test_an_error_of_the_system_that_is_not_the_outputs_is_not_hidden(fail_with):
    """It is a defect of the command, which did not see to it."""
    fail_with(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))

    with pytest.raises(ConnectionRefusedError):
        main(["fail"])


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["rules schema", "run -- true", "run -- sh -c 'exit 3'"])
def test_closed_streams_are_nobodys_fault(arguments, closed):
    """A command does its work without them, and a program gets them as they were."""
    line = f"{sys.executable} -m userlens_instrument {arguments} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=3 * PATIENCE
    )

    assert ("", 3 if "exit" in arguments else 0) == (done.stderr, done.returncode)


def test_a_missing_extra_is_one_line():
    """Without the extra, the demo says what to install."""
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from userlens_instrument.cli import main; sys.exit(main(['demo']))"
    )
    done = run_command_line(code=code, stdout=subprocess.PIPE)

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("userlens-instrument demo: ")
    assert "pip install 'userlens-instrument[inspector]'" in done.stderr
    assert 1 == done.stderr.count("\n")


def test_import_is_light():
    """Only a command that runs pays for what it needs."""
    code = (
        "import sys, userlens_instrument.cli\n"
        "heavy = {'urllib3', 'structlog', 'starlette', 'uvicorn', 'jsonschema', 'asyncio'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = run_command_line(code=code)

    assert (0, "") == (done.returncode, done.stderr)


def test_python_m(monkeypatch, capsys):
    """``python -m userlens_instrument`` is the same program."""
    monkeypatch.setattr(sys, "argv", ["-m", "--version"])
    monkeypatch.delitem(sys.modules, "userlens_instrument.__main__", raising=False)

    with pytest.raises(SystemExit) as ended:
        runpy.run_module("userlens_instrument", run_name="__main__")

    assert 0 == ended.value.code
    assert f"userlens-instrument {__version__}\n" == capsys.readouterr().out


def test_main_can_be_imported():
    """A tool that imports every module does not run the program."""
    import userlens_instrument.__main__ as module

    assert module.main is main
