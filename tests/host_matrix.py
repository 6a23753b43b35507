"""
Starts the programs of examples/hosts as docs/hosts says, and looks at what comes of it.

A `Host` is a row of the table: a program, and what is done with it while it
runs. Everything else is the page's: the snippets, and what is typed.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers import PATIENCE, environment
from host_pages import PROGRAMS, read_page, unwrapped


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


# The console scripts of this environment: celery, gunicorn, userlens-instrument.
SCRIPTS = sysconfig.get_path("scripts")
# Frameworks take seconds to start on a busy machine.
START = 6 * PATIENCE


def nothing_beside(folder, environ):
    """Need nothing beside the host."""
    return contextlib.nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """
    One row.

    Attributes:
        name: What the table calls it.
        page: Which page of docs/hosts says how.
        drive: Uses the running host; returns for how many invoices it asked.
        options: More words for the command; ``{folder}`` is the working directory, and
            ``{port}`` a free port.
        swapped: Words of the command, and what they are here.
        files: What lies beside the programs.
        appended: What the end of a program is, beside that.
        prepare: A context manager around the run, of folder and environment.
        stop: The signal that ends it; None if it ends by itself.
        ctrl_c: Whether that goes to all its processes, as a terminal's Ctrl+C does.
        settled: Whether all has to have arrived before it is told to end, and why.
        statuses: Exit statuses of a clean stop.
        in_turn: Whether one thread prints: else the order of lines is chance.
        twice: Why an event may arrive twice, if it may.
        needs: Modules and programs without which the row is skipped.
        without: Ways that do not apply, with the reason.
    """

    name: str
    page: str
    drive: Callable[[Running], int]
    options: tuple[str, ...] = ()
    swapped: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    appended: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, dict], contextlib.AbstractContextManager] = nothing_beside
    stop: signal.Signals | None = signal.SIGTERM
    ctrl_c: bool = False
    settled: str = ""
    statuses: frozenset[int] = frozenset({0})
    in_turn: bool = False
    twice: str = ""
    needs: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict)


def bill(number):
    """Return the events of one invoice, as the rules make them."""
    return [
        ("Invoice Opened", {"invoice": f"i-{number}"}),
        ("Invoice Paid", {"invoice": f"i-{number}", "seconds": 0.25}),
    ]


@dataclass
class Running:
    """A host that runs: where, and how one gets at it."""

    host: Host
    folder: Path
    server: object
    process: subprocess.Popen
    port: int

    def console(self):
        """Return what it has printed so far: standard output, standard error."""
        return [(self.folder / f"console-{each}").read_text("utf-8") for each in ("out", "error")]

    def until_console_has(self, text, times=1):
        """Wait until *text* is on the console so often."""
        self.until(lambda: sum(each.count(text) for each in self.console()) >= times)

    def until_arrived(self, invoices):
        """Wait until the events of so many invoices have arrived, if they are delivered at all."""
        if self.server is not None:
            self.until(lambda: len(self.server.events) >= 2 * invoices)

    def until(self, holds):
        """Wait until *holds* returns something true; a host that ends before is an error."""
        deadline = time.monotonic() + START
        while not (found := holds()):
            assert self.process.poll() is None, self.console()
            assert time.monotonic() < deadline, self.console()
            time.sleep(0.01)
        return found

    def post(self, number, connect):
        """Ask for an invoice by HTTP, as soon as somebody listens."""

        def answered():
            connection = connect()
            try:
                connection.request("POST", f"/pay/i-{number}/u-{number}", body=b"")
                answer = connection.getresponse()
                assert (200, True) == (answer.status, b"paid" in answer.read()), self.console()
            except ConnectionError:
                return False
            except FileNotFoundError:  # no socket yet
                return False
            finally:
                connection.close()
            return True

        self.until(answered)

    def at_socket(self):
        """Return a connection to the socket in the folder."""
        return UnixConnection(self.folder / "socket")

    def at_port(self):
        """Return a connection to the port that the command was given."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def edit(self, name, noticed):
        """
        Let a program look as if it had been edited, until the console says *noticed*.

        A reloader does not notice what is edited before it has looked for the
        first time, and does not say when that is.
        """
        path = self.folder / name
        edited = 0.0

        def was_noticed():
            nonlocal edited
            if time.monotonic() - edited > 1.5:  # longer than a reloader's round
                edited = time.monotonic()
                later = path.stat().st_mtime + 2
                os.utime(path, (later, later))
            return noticed in "".join(self.console())

        self.until(was_noticed)

    def end(self):
        """Tell it to end."""
        if self.host.ctrl_c:
            os.killpg(self.process.pid, self.host.stop)
        elif self.host.stop is not None:
            self.process.send_signal(self.host.stop)


class UnixConnection(http.client.HTTPConnection):
    """A connection to a socket in the file system, which no other test can have taken."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: the exit status, the console, how many invoices it was asked for."""

    status: int
    out: object
    error: object
    invoices: int
    text: str = field(compare=False)

    def difference(self, other):
        """Return in what the two differ, for a person to read; empty if in nothing."""
        found = [] if self.status == other.status else [f"{self.status} {other.status}"]
        for one, two in ((self.out, other.out), (self.error, other.error)):
            if isinstance(one, Counter):
                found += [f"- {line!r}" for line in one - two]
                found += [f"+ {line!r}" for line in two - one]
            elif one != two:
                lines = difflib.ndiff(one.splitlines(), two.splitlines())
                found += [line for line in lines if line[0] in "+-"]
        return "\n".join(found)


def lacks(host):
    """Return what *host* needs and this environment does not have."""
    for name in host.needs:
        if importlib.util.find_spec(name) is None and shutil.which(name) is None:
            return name
    return None


def run(host, way, folder, server):
    """
    Start *host* as the page says for *way*, use it, and end it; return the `Outcome`.

    Without a *server* it is the same command in the folder as it is, without
    the page's snippets and without the wrapper: what it prints then is what it
    has to print with them.
    """
    return run_as(read_page(host.page)[way], host, folder, server)


def run_as(said, host, folder, server):
    """Do as `run`, by a page's `Way`."""
    for path in PROGRAMS.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for name, text in host.files.items():
        (folder / name).write_text(text, "utf-8")
    for name, text in host.appended.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)
    command, *afterwards = said.commands
    if server is None:
        command, afterwards = unwrapped(command), []
    else:
        said.apply(folder)
    environ = variables(server, said.variables)
    with host.prepare(folder, environ):
        outcome = start(host, folder, server, [*command, *host.options], environ)
        for words in afterwards:
            done = subprocess.run(
                words, cwd=folder, env=environ, capture_output=True, text=True, timeout=START
            )
            assert done.returncode == 0, (done.stdout, done.stderr, outcome.text)
    return outcome


def variables(server, more):
    """Return the environment of a program that delivers to *server*, or to nobody."""
    url = "http://127.0.0.1:9" if server is None else server.url
    environ = environment(url, **more, USERLENS_SHUTDOWN_TIMEOUT=str(PATIENCE))
    environ["PATH"] = f"{SCRIPTS}{os.pathsep}{environ['PATH']}"
    # What is printed is there at once, and what a killed process has printed, too.
    environ["PYTHONUNBUFFERED"] = "1"
    # None has to compile everything anew; and the programs have their folder on the path.
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH"):
        environ.pop(name, None)
    return environ


def free_port():
    """Return a port that was free a moment ago: for a host that has to be told one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(host, folder, server, words, environ):
    """Start *host* by *words*, use it, and end it; return the `Outcome`."""
    port = free_port()
    words = [
        word.replace("{folder}", str(folder)).replace("{port}", str(port))
        for word in (host.swapped.get(word, word) for word in words)
    ]
    with (
        (folder / "console-out").open("wb") as out,
        (folder / "console-error").open("wb") as error,
    ):
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            # A group of its own, so that nothing is left of it.
            start_new_session=True,
            # A shell has what it starts in the background ignore Ctrl+C, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    running = Running(host, folder, server, process, port)
    try:
        invoices = host.drive(running)
        if host.settled:
            running.until_arrived(invoices)
        running.end()
        try:
            status = process.wait(START)
        except subprocess.TimeoutExpired:
            raise AssertionError(running.console()) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    printed = running.console()
    seen = [alike(each, folder, in_turn=host.in_turn) for each in printed]
    return Outcome(status, *seen, invoices, "\n".join(printed))


# What differs from run to run by its nature.
_BY_NATURE = [
    (r"\b\d:\d\d:\d\d\.\d+s", "SECONDS"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?[+-]\d\d:?\d\d| UTC|Z)?", "TIME"),
    (r"\d\d/\w{3}/\d{4}[: ]\d\d:\d\d:\d\d", "TIME"),
    (r"\w+ \d\d, \d{4} - \d\d:\d\d:\d\d", "TIME"),
    (r"\d\d:\d\d:\d\d", "TIME"),
    (r"datetime\(\d{4}(?:, \d+){5,6}", "TIME"),
    (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{32}\b", "UUID"),
    (r"0x[0-9a-f]{6,}", "ADDRESS"),
    (r"127\.0\.0\.1:\d+", "PORT"),
    (r"\b\d\.\d{3,}(?:e-\d+)?s", "SECONDS"),
    (r"(?<=TIME )\d+(?= [A-Z]+ )", "PID"),
    (r"(?<=[\[ ])\d{2,}(?=\])", "PID"),
    (r"(?i)(?<=pid: )\d+|(?<=process )\d+|(?<=pid )\d+|(?<=PID:)\d+|(?<=pid=)\d+", "PID"),
    (r"(?<=unix:socket \()\d+|(?<=http://PORT \()\d+", "PID"),
    # Of what Python itself writes into the folder, too.
    (r"(?m)^.*watchfiles\.main: \d+ changes? detected\n", ""),
    (r"(?<=ForkPoolWorker-)\d+", "N"),
    (r"(?<=seconds=)[\d.]+", "SECONDS"),
]


def alike(text, folder, *, in_turn):
    """
    Return *text* without what differs by its nature: times, process ids, ports, the folder.

    Returns:
        Text if its lines come *in_turn*; how often each line is there, if several
        processes print and the order is chance.
    """
    text = text.replace(str(folder), "FOLDER")
    for pattern, name in _BY_NATURE:
        text = re.sub(pattern, name, text)
    return text if in_turn else Counter(text.splitlines(keepends=True))


def arrived(server, host):
    """Return the events that arrived of each user, in that order; repeated ones if none may be."""
    found = defaultdict(list)
    for body in server.events:
        event = body["event"], body.get("properties", {})
        if not (host.twice and event in found[body["userId"]]):
            found[body["userId"]].append(event)
    return dict(found)


def expected(host, invoices):
    """Return the events of so many *invoices*, by user: what `arrived` is to be."""
    return {f"u-{number}": bill(number) for number in range(invoices)}
