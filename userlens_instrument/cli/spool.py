"""
``userlens-instrument spool PATH``: look into a spool, deliver what is in it, see to dead letters.

Safe beside the processes that use it: the file is taken as it is, neither made
where there is none nor put right where it is damaged. Whoever drains it goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from userlens_instrument.cli.terminal import printable, say
from userlens_instrument.exceptions import SettingsError, SpoolError, UserlensError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from userlens_instrument._delivery.spool import DeadLetter, Spool
    from userlens_instrument._delivery.stats import Stats
    from userlens_instrument.client import Client
    from userlens_instrument.settings import Settings

T = TypeVar("T")

# Seconds for which a writing command tries again while others write.
_PATIENCE: Final = 5.0
# Seconds between two looks at how far the delivery is.
_TICK: Final = 0.25
# Seconds between two lines about it, where there is no progress bar.
_EVERY: Final = 3.0
# Seconds that the answers to what is on its way may take at the end.
_GRACE: Final = 5.0
# Seconds that are left, once all was delivered, to what has come meanwhile: somebody may log
# all the time.
_LATE: Final = 10.0
# Dead letters read, moved or deleted at a time: others write in between.
_CHUNK: Final = 200
# The largest number of a row.
_HIGHEST: Final = 2**63 - 1
# The largest settings there are: what is drained is delivered, however much or old it is.
_MOST_BYTES: Final = 2**40
_OLDEST: Final = 365 * 86_400.0
# Width of a terminal that does not know it.
_COLUMNS: Final = 80
# Names longer than this tell nothing more in a terminal.
_MAX_NAME: Final = 60

_WHY: Final = {
    "timeout": "the time is up",
    "interrupted": "it was stopped",
    "busy": "they came meanwhile, and more come all the time",
    "taken": "another process delivers it now",
    "unavailable": "the time is up, and Userlens cannot be reached or takes no events at present",
    "unauthorized": "Userlens refuses the write code",
    "redirect": "Userlens' address answers with a redirect, which is not followed",
    "tls": "the certificate behind events_url is not trusted",
}
# Nothing will be delivered before a person has done something.
_HOPELESS: Final = frozenset({"unauthorized", "redirect", "tls"})

_EPILOG: Final = """\
PATH is the file that the setting spool (USERLENS_SPOOL) names.

exit codes:
  0  done; of drain: the spool is empty
  1  of drain: events are left, or another process delivers them already;
     of dead-letters retry: some cannot be sent
  2  bad input: no such file, not a spool, no such dead letter, a wrong setting
"""

_DRAIN_EPILOG: Final = """\
The settings are those of the environment (USERLENS_WRITE_CODE, ...), but that no
event is dropped for its age, unless USERLENS_SPOOL_MAX_AGE is set. Ctrl+C stops it:
what is left stays in the spool. Events that Userlens refuses become dead letters.
"""


# ---------------------------------------------------------------- the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add this command's options.

    There is none for a write code: everybody on the machine can read a command line.

    Args:
        parser: The parser of the command.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser.formatter_class = raw
    parser.epilog = _EPILOG
    parser.add_argument("path", metavar="PATH", help="the spool")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    status = _add(actions, "status", _status, "what the spool holds, and who delivers it")
    _add_json(status, "one JSON object: ages in seconds, sizes in bytes")

    drain = _add(actions, "drain", _drain, "deliver what is in the spool")
    drain.formatter_class = raw
    drain.epilog = _DRAIN_EPILOG
    drain.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="send nothing after that time (default: until the spool is empty)",
    )
    drain.add_argument(
        "--adopt",
        action="store_true",
        help="deliver events that were taken with another write code, too",
    )
    _add_json(drain, "a JSON object at the end")

    dead = _add(actions, "dead-letters", _list, "events that were set aside, and why")
    _add_list_options(dead)
    whats = dead.add_subparsers(title="what to do", metavar="WHAT")
    _add_list_options(_add(whats, "list", _list, "one line each, the oldest first (default)"))
    show = _add(whats, "show", _show, "all that is known of one")
    show.add_argument("id", metavar="ID", type=_number, help="its number")
    _add_json(show, "one JSON object")
    for name, act, summary in (
        ("retry", _retry, "have them sent again, with the next delivery"),
        ("purge", _purge, "delete them for good"),
    ):
        one = _add(whats, name, act, summary)
        one.add_argument("ids", metavar="ID", type=_number, nargs="*", help="their numbers")
        one.add_argument("--all", action="store_true", help="all that there are")
        _add_json(one, "one JSON object")


def _add(
    parent: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    act: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = parent.add_parser(
        name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False
    )
    parser.set_defaults(act=act)
    return parser


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"for scripts: {what}")


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    # No default: that of the inner parser would take back what the outer one was given.
    none = argparse.SUPPRESS
    parser.add_argument(
        "--json",
        action="store_true",
        default=none,
        help="for scripts: one JSON object a line, with the body",
    )
    parser.add_argument(
        "--limit", type=_number, metavar="N", default=none, help="only the N newest"
    )


def _number(text: str) -> int:
    """Parse a number of a dead letter, or of dead letters."""
    if text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= _HIGHEST:
        return int(text[:20])
    raise argparse.ArgumentTypeError("must be a number from 1 on")


def _seconds(text: str) -> float:
    """Parse a length of time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if 0.0 <= seconds <= _OLDEST:
        return seconds
    raise argparse.ArgumentTypeError("must be a number of seconds")


def run(args: argparse.Namespace) -> int:
    """
    Do what was asked for.

    Args:
        args: What `add_arguments` asked for.

    Returns:
        The exit code, see the help.

    Raises:
        SpoolError: If the file cannot be used as a spool.
        SettingsError: If a setting of the environment is wrong, or the write code missing.
        UserlensError: If there is no such dead letter.
    """
    code: int = args.act(args)
    return code


# ---------------------------------------------------------------- the file


def _path_of(given: str) -> str:
    """Return the path of what may be a spool."""
    from userlens_instrument._delivery.spool import translate  # noqa: PLC0415 - imports SQLite
    from userlens_instrument.settings import Settings  # noqa: PLC0415 - not for --help

    path = Settings(spool=given).spool
    if path is None:
        raise SettingsError("spool", "is not set", "give the path of the file")
    try:
        found = os.stat(path)  # noqa: PTH116 - Settings made it text
    except OSError as error:
        raise translate(error, path) from None
    if not stat.S_ISREG(found.st_mode):
        raise SpoolError(path, "foreign", "it is not a file")
    return path


@contextmanager
def _opened(given: str) -> Iterator[Spool]:
    """Open the spool as it is."""
    from userlens_instrument._delivery.spool import Spool  # noqa: PLC0415 - imports SQLite

    spool = Spool(_path_of(given))
    try:
        spool.open(create=False)
        yield spool
    finally:
        spool.close()


def _patiently(act: Callable[[], T]) -> T:
    """Return what *act* returns, once others leave the file alone for long enough."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except SpoolError as error:  # noqa: PERF203 - that is what the loop is for
            if error.kind != "locked" or time.monotonic() > deadline:
                raise


# ---------------------------------------------------------------- status


def _status(args: argparse.Namespace) -> int:
    with _opened(args.path) as spool:
        status = spool.status()
        now = time.time()
    oldest, newest = (
        None if (seconds := _moment(moment)) is None else max(0.0, now - seconds)
        for moment in (status.oldest, status.newest)
    )
    if args.json:
        _print_json(
            path=str(spool.path),
            events=status.events,
            oldest_age=oldest,
            newest_age=newest,
            used_bytes=status.size,
            file_bytes=status.file_size,
            dead_letters=status.dead,
            schema=status.version,
            drainer=status.drainer,
        )
        return 0
    waiting = _events(status.events)
    if oldest is not None and newest is not None:
        waiting += f", taken {_age(oldest)} to {_age(newest)} ago"
    drainer = "nobody at present"
    if status.drainer is not None:
        drainer = f"process {status.drainer}" if status.drainer else "another process"
    say(printable(str(spool.path)))
    say(f"  waiting       {waiting}")
    say(f"  size          {_size(status.size)} in use, the file has {_size(status.file_size)}")
    say(f"  dead letters  {status.dead}")
    say(f"  delivered by  {drainer}")
    say(f"  schema        version {status.version}")
    return 0


# ---------------------------------------------------------------- drain


def _drain(args: argparse.Namespace) -> int:
    from userlens_instrument.client import Client, check_drain  # noqa: PLC0415 - not for --help

    settings = _settings_of(_path_of(args.path))
    check_drain(settings)
    with _opened(args.path) as spool:
        pid = spool.drainer()
        if pid is not None:
            _complain(f"process {pid or 'unknown'} delivers what is in it already")
            return 1
        waiting = spool.status().events
        if waiting and not args.adopt and not spool.is_for(settings.write_code or ""):
            raise SettingsError(
                "write_code",
                "is not the one that the events in the spool were taken with",
                "give that one, or --adopt to deliver them with this one",
            )
        with _noted_signals() as signals, _progress(waiting) as progress:
            client = Client(settings)
            try:
                why = _deliver(client, spool, progress, signals, args.timeout)
            finally:
                # Said below, in one line.
                progress.hushed = True
                client.sender.halt(_GRACE)
                client.close(0.0)
            stats = client.stats()
            progress.show(stats)
        left = spool.status().events
    if not left:
        why = None
    if args.json:
        _print_json(
            delivered=stats.delivered,
            refused=dict(stats.refused),
            dropped=dict(stats.dropped),
            left=left,
            why=why,
        )
    else:
        say(_summary(stats, left, why))
    if signals and left:
        return 128 + signals[0]
    return 1 if left else 0


def _settings_of(path: str) -> Settings:
    from userlens_instrument.settings import Settings  # noqa: PLC0415 - not for --help

    # What the services were told in code is not known here: nothing is dropped for a default.
    given: dict[str, Any] = {"spool": path, "spool_max_bytes": _MOST_BYTES}
    if not os.environ.get("USERLENS_SPOOL_MAX_AGE", "").strip():
        given["spool_max_age"] = _OLDEST
    # Signals are this command's own.
    return Settings.load(given | {"flush_on_sigterm": False})


def _deliver(
    client: Client, spool: Spool, progress: _Progress, signals: list[int], timeout: float | None
) -> str | None:
    """Deliver what is in *spool*; return why some of it is left, None if none is."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = threading.Event()
    latest: float | None = None
    while True:
        left = _TICK if deadline is None else max(0.0, min(_TICK, deadline - time.monotonic()))
        done = client.drain(left)
        stats = client.stats()
        progress.show(stats)
        if done:
            if spool.first(_HIGHEST) is None:
                return None
            latest = time.monotonic() + _LATE if latest is None else latest
            if time.monotonic() >= latest:
                return "busy"
        if signals:
            return "interrupted"
        if stats.held_back in _HOPELESS:
            return stats.held_back
        if deadline is not None and time.monotonic() >= deadline:
            return stats.held_back or "timeout"
        pid = spool.drainer()
        if pid not in {None, os.getpid()}:
            return "taken"
        if pid is None:
            pause.wait(left)  # the lock will be ours again in a moment


def _summary(stats: Stats, left: int, why: str | None) -> str:
    parts = [f"{stats.delivered} delivered"]
    for what, by_reason in (("refused", stats.refused), ("dropped", stats.dropped)):
        parts += [f"{number} {what} ({reason})" for reason, number in by_reason.items()]
    if not left:
        return f"{', '.join(parts)}; the spool is empty"
    parts.append(f"{left} left")
    return f"{', '.join(parts)}: {_WHY[why or 'busy']}"


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Take note of Ctrl+C and SIGTERM; a second one does as ever."""
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.signal(each, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """
    Shows how far the delivery is: with a bar on a terminal, in a line now and then elsewhere.

    Args:
        total: How many events there are to deliver, as far as is known.

    Attributes:
        hushed: Whether diagnostics are not shown any more.
    """

    def __init__(self, total: int) -> None:
        self.hushed = False
        self._total = total
        self._ended = 0
        self._next = time.monotonic() + _EVERY
        self._bar = _bar(total)

    def show(self, stats: Stats) -> None:
        """Show what *stats* say."""
        ended = stats.delivered + sum(stats.refused.values()) + sum(stats.dropped.values())
        # More may have come meanwhile.
        self._total = max(self._total, stats.recovered)
        step, self._ended = ended - self._ended, ended
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.update(step)
        elif step and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            _complain(f"{ended} of {self._total} delivered")

    def note(self, text: str) -> None:
        """Show a line of diagnostics."""
        if self.hushed:
            return
        if self._bar is None:
            _complain(text)
        else:
            self._bar.write(_line(text), file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _bar(total: int) -> Any:
    """Return a progress bar, or None where there can be none."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    # No thread of its own, nor multiprocessing's lock: on Python 3.14 that is a process.
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    # A terminal in a container may not know its width.
    columns = os.get_terminal_size(sys.stderr.fileno()).columns
    return tqdm(
        total=total,
        desc="delivered",
        unit=" events",
        dynamic_ncols=columns > 0,
        ncols=None if columns else _COLUMNS,
    )


@contextmanager
def _progress(total: int) -> Iterator[_Progress]:
    """Show progress, and what the sender has to say."""
    from userlens_instrument._delivery.diagnostics import LOGGER, voice  # noqa: PLC0415

    progress = _Progress(total)

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.note(record.getMessage())

    echo, logger = Echo(), logging.getLogger(LOGGER)
    logger.addHandler(echo)
    try:
        yield progress
    finally:
        voice.drain(_TICK)
        logger.removeHandler(echo)
        progress.close()


# ---------------------------------------------------------------- dead letters


def _list(args: argparse.Namespace) -> int:
    limit = getattr(args, "limit", None)
    as_json = getattr(args, "json", False)
    with _opened(args.path) as spool:
        numbers = spool.dead_numbers()
        if limit is not None:
            numbers = numbers[-limit:]
        for letter in _letters(spool, numbers):
            if as_json:
                _print_json(**_as_json(letter))
            else:
                say(_letter_line(letter))
    if not numbers and not as_json:
        say("no dead letters")
    return 0


def _letters(spool: Spool, numbers: Sequence[int]) -> Iterator[DeadLetter]:
    """Yield the dead letters of consecutive *numbers*, but for those that others take meanwhile."""
    if not numbers:
        return
    after, last = numbers[0] - 1, numbers[-1]
    while found := spool.dead_letters(after, _CHUNK):
        for letter in found:
            after = letter.row.id
            if after > last:
                return
            yield letter


def _show(args: argparse.Namespace) -> int:
    with _opened(args.path) as spool:
        letter = spool.dead_letter(args.id)
    if letter is None:
        raise _unknown([args.id])
    if args.json:
        _print_json(**_as_json(letter))
        return 0
    row = letter.row
    body = _body(letter)
    say(f"dead letter {row.id}")
    for name, value in (
        ("died", _when(letter.died)),
        ("reason", letter.reason),
        ("status", letter.status),
        ("answer", letter.excerpt),
        ("taken", _when(row.at)),
        ("type", row.kind),
        ("user", row.user),
        ("event", row.name),
    ):
        say(f"  {name:<8}  {_text(value)}")
    if body is None:
        say("its row is not as it was written: it cannot be sent")
    else:
        # In the letters that people read; what a terminal must not get is escaped.
        for line in json.dumps(body, indent=2, ensure_ascii=False).split("\n"):
            say(printable(line))
    return 0


def _retry(args: argparse.Namespace) -> int:
    with _opened(args.path) as spool:
        numbers = _numbers_of(args, spool)
        moved = _in_chunks(numbers, lambda some: spool.retry(some, at=time.time()))
        stuck = len(set(numbers) & set(spool.dead_numbers())) if moved < len(numbers) else 0
        drained = spool.drainer() is not None
    if args.json:
        _print_json(retried=moved, stuck=stuck)
    else:
        hint = "" if drained or not moved else "; nobody delivers at present: see drain"
        say(f"{_letters_of(moved)} to be sent again{hint}")
        if stuck:
            _complain(f"{_letters_of(stuck)} cannot be sent: not as they were written")
    return 1 if stuck else 0


def _purge(args: argparse.Namespace) -> int:
    with _opened(args.path) as spool:
        purged = _in_chunks(_numbers_of(args, spool), spool.purge)
    if args.json:
        _print_json(purged=purged)
    else:
        say(f"{_letters_of(purged)} deleted")
    return 0


def _numbers_of(args: argparse.Namespace, spool: Spool) -> list[int]:
    """Return the numbers of the dead letters that are meant, each of which there is."""
    if bool(args.ids) == args.all:
        raise UserlensError("give the numbers of dead letters, or --all")
    known = spool.dead_numbers()
    if args.all:
        return known
    unknown = sorted(set(args.ids) - set(known))
    if unknown:
        raise _unknown(unknown)
    return sorted(set(args.ids))


def _in_chunks(numbers: Sequence[int], act: Callable[[Sequence[int]], int]) -> int:
    total = 0
    for start in range(0, len(numbers), _CHUNK):
        some = numbers[start : start + _CHUNK]
        total += _patiently(lambda some=some: act(some))  # type: ignore[misc]  # bound at once
    return total


def _unknown(numbers: Sequence[int]) -> UserlensError:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return UserlensError(f"there is no dead letter {shown}")


# ---------------------------------------------------------------- in words


def _body(letter: DeadLetter) -> object:
    """Return the event as it would be sent; None if it is not as it was written."""
    from userlens_instrument._core.stored import from_row  # noqa: PLC0415 - not for --help

    payload = from_row(letter.row)
    if payload is None:
        return None
    text = payload.body.decode("utf-8", "replace")
    try:
        body: object = json.loads(text)
    except ValueError:  # a number longer than Python reads
        return text
    return body


def _as_json(letter: DeadLetter) -> dict[str, object]:
    row = letter.row
    return {
        "id": row.id,
        "died": _moment(letter.died),
        "reason": letter.reason,
        "status": letter.status,
        "answer": letter.excerpt,
        "taken": _moment(row.at),
        "type": row.kind,
        "user_id": row.user,
        "event": row.name or None,
        "body": _body(letter),
    }


def _letter_line(letter: DeadLetter) -> str:
    row = letter.row
    parts = [
        f"{row.id:>5}",
        _when(letter.died),
        _text(letter.reason).ljust(len("attempts_exhausted")),
        _text(letter.status),
        _text(row.kind).ljust(len("identify")),
        f"user {_text(row.user)}",
        _text(row.name),
    ]
    return "  ".join(parts)


def _text(value: object) -> str:
    """Return *value*, of a file that anybody may have written, for a line."""
    return printable("-" if value is None or value == "" else str(value), _MAX_NAME)


def _moment(value: object) -> float | None:
    """Return the seconds since the epoch that *value* is; None if it is damaged."""
    from userlens_instrument._core.times import parse_time  # noqa: PLC0415 - not for --help

    return parse_time(value) if isinstance(value, (int, float)) else None


def _when(value: object) -> str:
    from userlens_instrument._core.times import format_time  # noqa: PLC0415 - as above

    seconds = _moment(value)
    return "-" if seconds is None else format_time(seconds).partition(".")[0] + "Z"


def _age(seconds: float) -> str:
    for unit, length, most in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _size(size: float) -> str:
    if size < 1_000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1_000
        if size < 1_000:
            return f"{size:.1f} {unit}"
    return f"{size / 1_000:.1f} GB"


def _events(number: int) -> str:
    return f"{number} event{'' if number == 1 else 's'}"


def _letters_of(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"


def _print_json(**values: object) -> None:
    """Print one JSON object in a line; what is not ASCII is escaped, for whatever terminal."""
    print(json.dumps(values, default=repr))


def _line(text: str) -> str:
    return f"userlens-instrument spool: {printable(text)}"


def _complain(text: str) -> None:
    """Say *text* in one line on stderr."""
    print(_line(text), file=sys.stderr, flush=True)
