"""
``userlens-instrument run``: start a program so that what it logs becomes events.

The program takes the place of this process: signals, the exit status and the
terminal are its own. What is put into it is described in `userlens_instrument.auto`.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from userlens_instrument.cli.terminal import printable


if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from userlens_instrument.settings import Settings


#: What goes on PYTHONPATH.
FOLDER: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "_bootstrap")  # noqa: PTH118, PTH120 - text in, text out

# What a shell reports for what it cannot find, and for what it cannot run.
_NOT_FOUND: Final = 127
_NOT_RUN: Final = 126

# Tells our `sitecustomize` that it is in the program itself: it has our pid.
_MARK: Final = "_USERLENS_INSTRUMENT_RUN"

_PLACE: Final = "USERLENS_ON_ERROR"

_PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*t?")
# What each option of the interpreter does to PYTHONPATH, or to what is on it.
_BLINDING: Final = {
    "E": "has Python ignore PYTHONPATH",
    "I": "has Python ignore PYTHONPATH",
    "S": "has Python run no sitecustomize",
}
# Linux reads no more of a line with an interpreter.
_LONGEST_SHEBANG: Final = 256

_OPTIONS: Final = frozenset({"--rules", "--spool", "--dry-run", "--debug"})

# A rule is some hundred characters.
_USUAL_RULES: Final = 2**20

_EPILOG: Final = """\
examples:
  userlens-instrument run --rules userlens.toml -- python worker.py
  userlens-instrument run --rules userlens.toml -- gunicorn app:app
  userlens-instrument run --rules userlens.toml -- celery -A app worker
  userlens-instrument run --spool events.db -- python -m module

The settings are those of the environment (USERLENS_WRITE_CODE and so on); the
options above win over it. Processes that the program starts are covered, too.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add this command's options.

    There is none for a write code: everybody on the machine can read a command line.

    Args:
        parser: The parser of the command.
    """
    import argparse  # noqa: PLC0415 - whoever calls has it

    parser.usage = "%(prog)s [options] -- COMMAND [ARGUMENT ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--rules",
        metavar="FILE",
        type=_path,
        help="rules for lines that are logged without a tag (USERLENS_RULES)",
    )
    parser.add_argument(
        "--spool",
        metavar="FILE",
        type=_path,
        help="keep events in this file until they are delivered (USERLENS_SPOOL)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="do everything but send (USERLENS_DRY_RUN)",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="say each delivery in a line of diagnostics (USERLENS_DEBUG)",
    )
    parser.add_argument(
        "program",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="the program, and its arguments",
    )


def plain_arguments(words: Sequence[str]) -> SimpleNamespace | None:
    """
    Return what `add_arguments` has a parser make of *words*; None if that takes a parser.

    What it does not know, down to ``--rules=FILE``, is the parser's: for its
    help, its errors and its corners.

    Args:
        words: What follows ``run``.
    """
    args = SimpleNamespace(rules=None, spool=None, dry_run=False, debug=False)
    rest = list(words)
    while rest and rest[0] in _OPTIONS:
        word = rest.pop(0)
        if word in {"--dry-run", "--debug"}:
            setattr(args, word[2:].replace("-", "_"), True)
            continue
        if not rest or rest[0].startswith("-") or not rest[0].strip():
            return None
        setattr(args, word[2:], rest.pop(0))
    if rest and rest[0] == "--":
        rest.pop(0)
        if rest and rest[0] == "--":
            return None
    elif rest and rest[0].startswith("-"):
        return None
    args.program = rest
    return args


def run(args: argparse.Namespace | SimpleNamespace) -> int:
    """
    Become the program. Does not return, unless it cannot be started.

    Args:
        args: What `add_arguments` asked for, or `plain_arguments` found.

    Returns:
        The exit code: 2 for bad input, 126 for a program that cannot be run, 127 for one
        that is not there.

    Raises:
        SettingsError: If a setting is wrong, be it an option or a variable.
        RulesError: If the rules are.
    """
    program = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not program:
        _complain("there is no program; give one, as in: userlens-instrument run -- python app.py")
        return 2
    # What is loaded now stays until exec: to look for garbage in it takes milliseconds.
    collects = gc.isenabled()
    gc.disable()
    try:
        environ = _environment(args)
    finally:
        if collects:
            gc.enable()
    reason = _why_not(program, environ)
    if reason is not None:
        _complain(f"nothing will be captured: {reason}")
    environ["PYTHONPATH"] = _with_folder(environ.get("PYTHONPATH", ""))
    environ[_MARK] = str(os.getpid())
    return _become(program, environ)


def _environment(args: argparse.Namespace | SimpleNamespace) -> dict[str, str]:
    """Return the program's environment, with settings that have been checked."""
    from userlens_instrument.settings import Settings, check_place  # noqa: PLC0415 - see cli

    environ = dict(os.environ)
    given: dict[str, Any] = {}
    for name in ("rules", "spool"):
        if getattr(args, name) is not None:
            given[name] = getattr(args, name)
    for name in ("dry_run", "debug"):
        if getattr(args, name):
            given[name] = True
            environ[f"USERLENS_{name.upper()}"] = "true"
    # This one names a function of the program's, which cannot be imported here.
    checked = {name: text for name, text in environ.items() if name != _PLACE}
    if environ.get(_PLACE, "").strip():
        check_place("on_error", environ[_PLACE], _PLACE)
    settings = Settings.load(given, checked)
    _check_rules(settings)
    # As absolute paths: the program may change its directory before it logs.
    for name in ("rules", "spool"):
        path = getattr(settings, name)
        if path is not None:
            environ[f"USERLENS_{name.upper()}"] = path
    _forget_coercion(environ)
    return environ


def _check_rules(settings: Settings) -> None:
    """
    Check the rules of *settings*, if there are any.

    Raises:
        RulesError: If they are wrong, or cannot be read.
    """
    if settings.rules is None:
        return
    from userlens_instrument._core.redact import compile_redactor  # noqa: PLC0415 - as above
    from userlens_instrument._core.rulefile import read_text  # noqa: PLC0415 - as above

    text, path = "", str(settings.rules)
    try:
        # To open a pipe may take for ever, and what is read from one is gone.
        if os.path.isfile(path):  # noqa: PTH113 - as above
            with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123 - as above
                text = file.read(_USUAL_RULES)
    except (OSError, ValueError):
        text = ""
    if 0 < len(text) < _USUAL_RULES and not read_text(text, compile_redactor(settings.redact))[1]:
        return
    # For what is unusual or wrong, and says so: it takes as long to import as all the rest.
    from userlens_instrument._delivery.rulebook import shared_book  # noqa: PLC0415 - as above

    shared_book(settings)


def _forget_coercion(environ: dict[str, str]) -> None:
    """
    Take away what Python has put into the environment for itself.

    In the C locale it sets LC_CTYPE (PEP 538), for its children, too. The
    program decides that for itself.
    """
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - without pathlib's import
            given = file.read().split(b"\0")
    except OSError:  # pragma: no cover - not Linux
        return
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        environ.pop("LC_CTYPE", None)


def _with_folder(path: str) -> str:
    """Return a PYTHONPATH with our folder first, and only there."""
    if not path:  # an empty entry would be the working directory
        return FOLDER
    others = [entry for entry in path.split(os.pathsep) if entry != FOLDER]
    return os.pathsep.join([FOLDER, *others])


def _become(program: list[str], environ: dict[str, str]) -> int:
    if os.name != "posix":  # pragma: no cover - Windows, where exec leaves this process
        import subprocess  # noqa: PLC0415 - for there only

        return subprocess.run(program, env=environ, check=False).returncode  # noqa: S603 - what was asked for
    sys.stdout.flush()
    sys.stderr.flush()
    for name in ("SIGPIPE", "SIGXFSZ"):
        # Python ignores them, and what is ignored stays so in the program.
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    name = printable(program[0])
    try:
        os.execvpe(program[0], program, environ)  # noqa: S606 - what was asked for
    except (FileNotFoundError, NotADirectoryError):
        if _find(program[0], environ) is None:
            _complain(f"{name}: there is no such program; look at its name and at PATH")
            return _NOT_FOUND
        _complain(f"{name}: cannot be run: the interpreter that its first line names is not there")
    except PermissionError:
        _complain(f"{name}: cannot be run: it is not executable; chmod +x it, or name its python")
    except OSError as error:
        _complain(f"{name}: cannot be run: {error.strerror}")
    return _NOT_RUN


# ---------------------------------------------------------------- what would be in vain


def _why_not(program: list[str], environ: dict[str, str]) -> str | None:
    """Return why nothing will be captured, as far as the command line tells; None if it will."""
    if os.pathsep in FOLDER:  # pragma: no cover - nobody installs it there twice
        return f"{FOLDER} cannot be put on PYTHONPATH"
    words = _past_env(program)
    option = _blinding_option(words)
    if option is None and words:
        # A console script names its interpreter, and how to call it, in its first line.
        option = _blinding_option(_past_env(_shebang(_find(words[0], environ))))
    if option is None:
        return None
    return f"-{option} {_BLINDING[option]}, which is the way in; leave it out"


def _blinding_option(words: list[str]) -> str | None:
    """Return the option by which the Python that *words* call would not see us."""
    if not words or not _PYTHON.fullmatch(os.path.basename(words[0])):  # noqa: PTH119 - as above
        return None
    rest = iter(words[1:])
    for word in rest:
        if word == "--check-hash-based-pycs":
            next(rest, None)
        elif word[:1] != "-" or word in {"-", "--"}:
            return None
        elif not word.startswith("--"):
            for letter, value in _letters(word):
                if letter in _BLINDING:
                    return letter
                if letter in "cm":
                    return None
                if letter in "WX" and not value:
                    next(rest, None)
    return None


def _letters(word: str) -> Iterator[tuple[str, str]]:
    """Yield each option of a word such as ``-uWerror``; with what follows, if it takes a value."""
    for place, letter in enumerate(word[1:], 2):
        yield letter, word[place:]
        if letter in "WX":
            return


def _past_env(words: list[str]) -> list[str]:
    """Return the command that ``env`` is told to run, or the one that is there."""
    if not words or os.path.basename(words[0]) != "env":  # noqa: PTH119 - as above
        return words
    rest = words[1:]
    while rest and (rest[0].startswith("-") or "=" in rest[0]):
        rest = rest[1:]
    return rest


def _shebang(path: str | None) -> list[str]:
    """Return the words of the line that says what runs the script at *path*."""
    if path is None:
        return []
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            line = file.readline(_LONGEST_SHEBANG)
    except OSError:
        return []
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []


def _find(name: str, environ: dict[str, str]) -> str | None:
    """Return the file that is run as *name*."""
    folders = [""] if os.sep in name else os.get_exec_path(environ)
    for folder in folders:
        path = os.path.join(folder, name)  # noqa: PTH118 - as above
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - as above
            return path
    return None


def _path(text: str) -> str:
    if not text.strip():
        import argparse  # noqa: PLC0415 - whoever calls has it

        raise argparse.ArgumentTypeError("give the path of a file")
    return text


def _complain(problem: str) -> None:
    """Say *problem* in one line on stderr."""
    print(f"userlens-instrument run: {problem}", file=sys.stderr, flush=True)
