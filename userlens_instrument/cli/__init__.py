"""
The command line: ``userlens-instrument COMMAND``.

A command is a module with `add_arguments` and `run`, and a line in the table
below. Only the one that is asked for is imported; and what it needs, when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from userlens_instrument._version import __version__
from userlens_instrument.cli.terminal import one_line
from userlens_instrument.exceptions import UserlensError


if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import SimpleNamespace


PROGRAM = "userlens-instrument"

# What a shell reports for a program that SIGINT ended: 128 and the signal's number.
_INTERRUPTED = 130
# What is wrong where output cannot be written: nobody reads it, or the disk is full.
_UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Command(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options to its *parser*."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


# Name, one line of help, and the module, or its name.
_COMMANDS: tuple[tuple[str, str, Command | str], ...] = (
    ("check", "see whether this machine can deliver, and if not, what to do about it", "check"),
    ("demo", "see log lines become events, on this machine, in a few seconds", "demo"),
    ("inspector", "run a local Userlens that checks and shows what it is sent", "inspector"),
    ("rules", "check a file of rules: which lines that are logged become which events", "rules"),
    ("run", "start a program so that what it logs becomes events, its code untouched", "run"),
    ("spool", "look into a spool, deliver what is in it, see to its dead letters", "spool"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv: The arguments; those of the process if absent.

    Returns:
        The exit code: 0 for success, 1 for a command that found a fault or
        whose output nobody reads any more, 2 for bad input, 130 for Ctrl+C.

    Raises:
        SystemExit: As `argparse` does, after ``--help``, ``--version`` or bad arguments.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for good, without pathlib
    try:
        try:
            return _dispatch(argv)
        finally:
            # Here, because a reader that has gone is noticed when the buffer is
            # written; at exit, Python would print that as a traceback.
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        # See "Note on SIGPIPE" in the documentation of the signal module: the
        # exit flushes once more, and must not fail again.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        if not isinstance(error, BrokenPipeError):
            print(f"{PROGRAM}: cannot write the output: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _dispatch(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    args: Any = _plain(words)
    if args is None:
        # No option before the command takes a value.
        parser = _make_parser(next((word for word in words if not word.startswith("-")), None))
        args = parser.parse_args(words)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    command: Command = args.command
    try:
        return command.run(args)
    except UserlensError as error:
        print(f"{PROGRAM} {args.name}: {one_line(str(error))}", file=sys.stderr)
        return 2


def _plain(words: Sequence[str]) -> SimpleNamespace | None:
    """
    Return what a parser would make of *words*, or None if that takes one.

    For `run` alone: it stands before a program that somebody waits for, and a
    parser takes ten milliseconds to load and to make.
    """
    if not words or words[0] != "run":
        return None
    from userlens_instrument.cli import run  # noqa: PLC0415 - only what is asked for

    args = run.plain_arguments(words[1:])
    if args is not None:
        args.command, args.name = run, "run"
    return args


def _make_parser(asked: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the arguments of the one that is asked for."""
    from userlens_instrument.cli.parser import Parser  # noqa: PLC0415 - see there

    # No abbreviations: an option that is added later would change what they mean.
    parser = Parser(
        prog=PROGRAM,
        description="Product events for Userlens out of the logs that your service already writes.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(command=None)
    # With its *prog*, or argparse would format a usage for it: a twentieth of a start.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog=PROGRAM)
    for name, summary, module in _COMMANDS:
        sub = commands.add_parser(
            name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False
        )
        if name == asked:
            command = _imported(module)
            sub.set_defaults(command=command, name=name)
            command.add_arguments(sub)
    return parser


def _imported(module: Command | str) -> Command:
    if isinstance(module, str):
        command: Any = import_module(f"{__name__}.{module}")
        return command  # type: ignore[no-any-return]
    return module
