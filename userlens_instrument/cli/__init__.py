"""
The command line: ``userlens-instrument COMMAND``.

A command is a module with `add_arguments` and `run`, and a line in the table
below. Only the one that is asked for is imported; and what it needs, when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from userlens_instrument._version import __version__
from userlens_instrument.cli.terminal import printable
from userlens_instrument.exceptions import UserlensError


if TYPE_CHECKING:
    from collections.abc import Sequence


PROGRAM = "userlens-instrument"

# What a shell reports for a program that SIGINT ended: 128 and the signal's number.
_INTERRUPTED = 130


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


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")


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
    try:
        try:
            return _dispatch(argv)
        finally:
            # Here, because a reader that has gone is noticed when the buffer is
            # written; at exit, Python would print that as a traceback.
            sys.stdout.flush()
    except BrokenPipeError:
        # See "Note on SIGPIPE" in the documentation of the signal module: the
        # exit flushes once more, and must not fail again.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _dispatch(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
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
        print(f"{PROGRAM} {args.name}: {_one_line(str(error))}", file=sys.stderr)
        return 2


def _make_parser(asked: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the arguments of the one that is asked for."""
    # No abbreviations: an option that is added later would change what they mean.
    parser = _Parser(
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


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
