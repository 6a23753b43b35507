"""
``userlens-instrument inspector``: a local Userlens in a terminal.

One line per event as it arrives. Ctrl+C or SIGTERM stops it.
"""

import argparse
import os
import queue
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final

from userlens_instrument.cli.terminal import printable, say
from userlens_instrument.exceptions import MissingExtraError


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument.inspector import Entry, InspectorServer, Recorder

    Lines = queue.SimpleQueue[str | None]

_DEFAULT_HOST: Final = "127.0.0.1"
_DEFAULT_PORT: Final = 8899

# Lines that wait for a terminal that is paused (Ctrl+S) or a slow pipe; then they are left out.
_MAX_LINES: Final = 10_000
# Names longer than this tell nothing more in a terminal.
_MAX_NAME: Final = 60

_EPILOG: Final = """\
while it runs:
  GET    /api/events   the newest events, each with its body, verdict and reason
  GET    /api/stats    how many arrived, and what became of them
  POST   /api/reset    forget them
  POST   /api/faults   {"status": 503, "retry_after": "2", "count": 3}: how the
                       next requests are answered; also delay, drop, location,
                       accept, path, userId
  DELETE /api/faults   answer as ever
"""

# How often to look up from waiting for a line, in seconds. A signal wakes the main thread at once,
# nearly always: when two come together, Linux may run both C handlers on the server's thread, and
# then the main thread sleeps on, though its Python handlers are due. On Windows it always does.
_TICK: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add this command's options.

    There is none for a write code: everybody on the machine can read a command line.

    Args:
        parser: The parser of the command.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--host",
        default=_DEFAULT_HOST,
        help="address to listen on; only this machine by default (%(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=_DEFAULT_PORT,
        help="port to listen on; 0 takes any free one (%(default)s)",
    )
    parser.add_argument(
        "--record",
        metavar="FILE.jsonl",
        help="append every accepted request to this file, one JSON line each",
    )
    parser.add_argument(
        "--max-events",
        type=_positive,
        default=1_000,
        metavar="N",
        help="how many events to keep in memory (%(default)s)",
    )
    parser.add_argument(
        "--check-write-code",
        action="store_true",
        help="accept only the write code in the environment variable USERLENS_WRITE_CODE",
    )


def run(args: argparse.Namespace) -> int:
    """
    Serve until Ctrl+C or SIGTERM.

    Args:
        args: What `add_arguments` asked for.

    Returns:
        The exit code: 0 when stopped, 2 if it could not start.
    """
    try:
        from userlens_instrument.inspector import (  # noqa: PLC0415 -- heavy, and an extra
            InspectorServer,
            Recorder,
            Store,
        )
    except MissingExtraError as error:
        return _refuse(str(error))
    write_code = None
    if args.check_write_code:
        write_code = os.environ.get("USERLENS_WRITE_CODE")
        if not write_code:
            return _refuse("--check-write-code needs USERLENS_WRITE_CODE in the environment")
    lines: Lines = queue.SimpleQueue()
    recorder = None
    try:
        if args.record is not None:
            recorder = Recorder(args.record, complain=_complain)
        server = InspectorServer(
            host=args.host,
            port=args.port,
            store=Store(max_events=args.max_events, on_entry=_shower(lines)),
            write_code=write_code,
            recorder=recorder,
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name such as "a..b"
        problem = _why(error)
        if args.record is not None and recorder is None:
            return _refuse(f"cannot write to {printable(args.record)}: {problem}")
        _close(recorder)
        where = f"{printable(args.host)}:{args.port}"
        return _refuse(f"cannot listen on {where}: {problem}; choose another --host or --port")
    if not server.is_loopback:
        _complain("other machines can reach this inspector and read what it is sent")
    try:
        return _serve(server, lines, checks=write_code is not None)
    finally:
        _close(recorder)


def _serve(server: "InspectorServer", lines: "Lines", *, checks: bool) -> int:
    """Run *server* and print *lines* until a signal ends them."""

    def end(_number: int, _frame: FrameType | None) -> None:
        # A SimpleQueue's put may interrupt its get in the same thread; no other queue's may.
        lines.put(None)

    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server:
            code = "<the one in your environment>" if checks else "anything"
            say(f"Userlens inspector on {server.url} (Ctrl+C stops it)")
            say(
                "Point a service at it:"
                f" USERLENS_EVENTS_URL={server.url} USERLENS_RAW_URL={server.url}"
                f" USERLENS_WRITE_CODE={code}"
            )
            _show(lines)
    except BrokenPipeError:
        # Who read the output is gone (| head). Python would complain once more as it flushes
        # on its way out; see "Note on SIGPIPE" in the documentation of the signal module.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _show(lines: "Lines") -> None:
    """Print *lines* as they come, until None comes."""
    while True:
        try:
            line = lines.get(timeout=_TICK)
        except queue.Empty:
            continue
        if line is None:
            return
        say(line)


def _shower(lines: "Lines") -> "Callable[[Entry], None]":
    """Return what turns an entry into a line, on the server's thread, without ever waiting."""

    def show(entry: "Entry") -> None:
        if lines.qsize() < _MAX_LINES:
            lines.put(_line(entry))

    return show


def _line(entry: "Entry") -> str:
    """Say in one line what arrived."""
    name = entry.event if entry.event is not None else entry.group_id
    parts = [
        entry.received_at[11:],
        printable(entry.type or entry.path, _MAX_NAME).ljust(8),
        printable(name or "-", _MAX_NAME),
        f"user {printable(entry.user_id or '-', _MAX_NAME)}",
        entry.verdict if not entry.reason else f"{entry.verdict}: {printable(entry.reason, 300)}",
    ]
    return "  ".join(parts)


def _complain(problem: str) -> None:
    """Say *problem* in one line on stderr."""
    print(f"userlens-instrument inspector: {problem}", file=sys.stderr, flush=True)


def _refuse(problem: str) -> int:
    """Say why it does not start; return the exit code."""
    _complain(problem)
    return 2


def _why(error: OSError | UnicodeError) -> str:
    """Return the system's own words, less the address that Python adds in brackets."""
    words = error.strerror if isinstance(error, OSError) else None
    return (words or "this is no such name").partition(" (")[0]


def _close(recorder: "Recorder | None") -> None:
    """Close *recorder*, if there is one."""
    if recorder is not None:
        recorder.close()


def _port(text: str) -> int:
    """Parse a port number."""
    return _number(text, lowest=0, highest=65_535)


def _positive(text: str) -> int:
    """Parse a number of events."""
    return _number(text, lowest=1, highest=10_000_000)


def _number(text: str, *, lowest: int, highest: int) -> int:
    """Parse a decimal number within bounds."""
    if text.isascii() and text.isdigit() and len(text) <= 8 and lowest <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from {lowest} to {highest}")
