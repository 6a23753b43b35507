"""``userlens-instrument spool``: safe beside running processes, and never a traceback."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import PATIENCE, WRITE_CODE, Reply, ScriptedServer, closed_port, environment

from userlens_instrument import Settings
from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.stored import to_columns
from userlens_instrument._delivery import spool as spool_module
from userlens_instrument._delivery.spool import Burial, Spool
from userlens_instrument.cli import main
from userlens_instrument.cli import spool as command
from userlens_instrument.client import Client
from userlens_instrument.exceptions import SpoolError


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="spools need POSIX file locks")

PREFIX = "userlens-instrument spool: "
NOW = 1_790_000_000.0
ANOTHER = (
    "write_code is not the one that the events in the spool were taken with; "
    "give that one, or --adopt to deliver them with this one"
)
HOSTILE = "\x1b[2J\x07\r\n\u202egpj.exe"


def columns(user, name, at=None, data=b""):
    return to_columns(
        TrackPayload(user, name, data, None), at=time.time() if at is None else at, origin=1
    )


def fill(path, *, events=0, users=1, dead=(), code=WRITE_CODE, at=None, died=None):
    """Make a spool at *path* with so many events, and with dead letters of those columns."""
    spool = Spool(str(path), destination=code)
    spool.open()
    rows = [columns(f"u{one % users}", f"Event {one}", at) for one in range(events)]
    for start in range(0, events, 500):
        spool.insert(rows[start : start + 500], [])
    died = time.time() if died is None else died
    spool.remove([], [Burial(0, one, "rejected", 400, '{"error":"no"}', died) for one in dead])
    spool.close()


def look(path):
    """Return what the spool at *path* holds."""
    spool = Spool(str(path))
    spool.open(create=False)
    try:
        return spool.status()
    finally:
        spool.close()


def arguments(path, *more):
    return ["-m", "userlens_instrument", "spool", str(path), *more]


def run_command(path, *more, url="http://127.0.0.1:9", **options):
    """Run the command in a Python of its own; return the finished process."""
    return subprocess.run(
        [sys.executable, *arguments(path, *more)],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        **options,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool.db"


@pytest.fixture
def delivering(monkeypatch, server):
    """Have the environment of this process say where to deliver to; return the server."""
    for name, value in environment(server.url).items():
        if name.startswith("USERLENS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("USERLENS_BACKOFF_BASE", "0.01")
    return server


@pytest.fixture
def run(path, capsys):
    """Return a way to run the command in this process: its exit code, stdout and stderr."""

    def run(*more, at=path):
        try:
            code = main(["spool", str(at), *more])
        except SystemExit as ended:
            code = ended.code
        return (code, *capsys.readouterr())

    return run


def refusal(ended):
    """Return the one line on stderr of a command that refused to do anything."""
    code, out, err = ended
    assert (2, "") == (code, out)
    assert err.startswith("userlens-instrument spool")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    return err.partition(": ")[2][:-1]


# ---------------------------------------------------------------- status


def test_status_for_people(run, path):
    """How much waits and since when, how large the file is, who delivers, what was set aside."""
    fill(path, events=3, dead=[columns("u", "Dead")], at=time.time() - 7_300)
    code, out, err = run("status")

    size = look(path).file_size / 1000
    assert (0, "") == (code, err)
    assert [
        str(path),
        "  waiting       3 events, taken 2 h to 2 h ago",
        f"  size          {size:.1f} kB in use, the file has {size:.1f} kB",
        "  dead letters  1",
        "  delivered by  nobody at present",
        "  schema        version 2",
    ] == out.splitlines()


def test_status_of_an_empty_spool(run, path):
    """Nothing waits, and nothing is said of ages."""
    fill(path)

    assert "  waiting       0 events\n" in run("status")[1]
    assert {"events": 0, "oldest_age": None, "newest_age": None}.items() <= json.loads(
        run("status", "--json")[1]
    ).items()


def test_status_for_scripts(run, path):
    """--json prints one object, with plain numbers."""
    fill(path, events=2, dead=[columns("u", "Dead")], at=time.time() - 60)
    code, out, err = run("status", "--json")

    shown = json.loads(out)
    ages = [shown.pop("oldest_age"), shown.pop("newest_age")]
    status = look(path)
    assert (0, "", 1) == (code, err, out.count("\n"))
    assert all(60 <= age < 60 + PATIENCE for age in ages)
    assert {
        "path": str(path),
        "events": 2,
        "used_bytes": status.size,
        "file_bytes": status.file_size,
        "dead_letters": 1,
        "schema": 2,
        "drainer": None,
    } == shown


def test_status_changes_nothing(run, path, tmp_path):
    """It creates no file, and leaves every byte as it was."""
    fill(path, events=10, dead=[columns("u", "Dead")])
    before = path.read_bytes()
    names = set(tmp_path.iterdir())

    assert 0 == run("status")[0]
    assert (before, names) == (path.read_bytes(), set(tmp_path.iterdir()))


def test_status_says_who_delivers(run, path):
    """The process that drains is named by its number, if it is known."""
    fill(path)
    drainer = Spool(str(path))
    drainer.open()
    try:
        assert drainer.lock()
        known = run("status")[1], json.loads(run("status", "--json")[1])["drainer"]
        os.truncate(f"{path}.lock", 0)
        unknown = run("status")[1], json.loads(run("status", "--json")[1])["drainer"]
    finally:
        drainer.close()

    assert f"  delivered by  process {os.getpid()}\n" in known[0]
    assert os.getpid() == known[1]
    assert "  delivered by  another process\n" in unknown[0]
    assert 0 == unknown[1]


@pytest.mark.parametrize("at", ["long ago", float("inf"), -1.0])
def test_status_of_what_is_damaged(run, path, at):
    """A time that is none is not shown, and no traceback."""
    fill(path, events=1)
    spoil(path, "queue", at=at)

    assert "  waiting       1 event\n" in run("status")[1]
    assert json.loads(run("status", "--json")[1])["oldest_age"] is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 days")],
)
def test_ages_in_words(seconds, words):
    """An age is said in the unit that people would take."""
    assert words == command._age(seconds)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (3e9, "3.0 GB")],
)
def test_sizes_in_words(size, words):
    """A size is said in the unit that people would take."""
    assert words == command._size(size)


# ---------------------------------------------------------------- bad input


@pytest.fixture
def bad_files(tmp_path):
    """Return paths of what is no spool."""
    (tmp_path / "empty.db").touch()
    (tmp_path / "garbage.db").write_bytes(os.urandom(5_000))
    (tmp_path / "damaged.db").write_bytes(os.urandom(5_000))
    (tmp_path / "damaged.db.lock").touch()
    os.mkfifo(tmp_path / "fifo.db")
    with sqlite3.connect(tmp_path / "foreign.db") as connection:
        connection.execute("CREATE TABLE theirs (value)")
    connection.close()
    fill(tmp_path / "later.db")
    with sqlite3.connect(tmp_path / "later.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    return tmp_path


ACTIONS = [
    ["status"],
    ["status", "--json"],
    ["drain"],
    ["dead-letters"],
    ["dead-letters", "list", "--json"],
    ["dead-letters", "show", "1"],
    ["dead-letters", "retry", "--all"],
    ["dead-letters", "purge", "1"],
]


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.db", "No such file or directory"),
        ("missing/spool.db", "No such file or directory"),
        ("", "is a directory"),
        ("fifo.db", "it is not a file"),
        ("empty.db", "it is no spool"),
        ("garbage.db", "it is a file, and no spool"),
        ("damaged.db", "file is not a database"),
        ("foreign.db", "it is another program's database"),
        ("later.db", "a later version wrote it"),
        ("line\nbreak\x1b.db", "No such file or directory"),
        (os.fsdecode(b"\xff.db"), "No such file or directory"),
    ],
)
def test_what_is_no_spool_is_one_line(run, bad_files, delivering, name, problem, action):
    """Whatever the file is: exit code 2, one line on stderr, and it is left as it was."""
    before = {one: one.read_bytes() for one in bad_files.iterdir() if one.is_file()}
    ended = run(*action, at=bad_files / name)

    assert problem in refusal(ended)
    assert before == {one: one.read_bytes() for one in bad_files.iterdir() if one.is_file()}


def test_no_path_is_one_line(run):
    """An empty path, as of a variable that is not set, is not the directory one is in."""
    assert "spool is not set; give the path of the file" == refusal(run("status", at=""))


def test_a_name_that_is_no_text_is_a_name(run, tmp_path):
    """A file whose name is not UTF-8 can be a spool."""
    path = tmp_path / os.fsdecode(b"\xff.db")
    fill(path, events=1)
    code, out, err = run("status", at=path)

    assert (0, "") == (code, err)
    assert "\\udcff.db" in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: ACTION"),
        (["explode"], "invalid choice: 'explode'"),
        (["drain", "--timeout", "soon"], "argument --timeout: must be a number of seconds"),
        (["drain", "--timeout", "nan"], "argument --timeout: must be a number of seconds"),
        (["drain", "--timeout", "-1"], "argument --timeout: must be a number of seconds"),
        (["dead-letters", "--limit", "0"], "argument --limit: must be a number from 1 on"),
        (["dead-letters", "show", "1.5"], "argument ID: must be a number from 1 on"),
        (["dead-letters", "retry", str(2**63)], "argument ID: must be a number from 1 on"),
        (["dead-letters", "retry", "9" * 9_999], "argument ID: must be a number from 1 on"),
        (["dead-letters", "purge"], "give the numbers of dead letters, or --all"),
        (["dead-letters", "retry"], "give the numbers of dead letters, or --all"),
        (["dead-letters", "purge", "1", "--all"], "give the numbers of dead letters, or --all"),
        (["dead-letters", "show", "7"], "there is no dead letter 7"),
        (["dead-letters", "retry", "1", "9", "8"], "there is no dead letter 8, 9"),
        (["dead-letters", "purge", *"234567"], "there is no dead letter 2, 3, 4, 5, 6, …"),
    ],
)
def test_bad_arguments_are_one_line(run, path, arguments, problem):
    """What is wrong with the command line is said in one line, and nothing is done."""
    fill(path, dead=[columns("u", "Dead")])

    assert problem in refusal(run(*arguments))
    assert 1 == look(path).dead


@pytest.fixture
def path_of_another_user():
    """Return a path that everybody may look at, and be another user while a test runs."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "spool.db")
        fill(path, dead=[columns("u", "Dead")])
        path.chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65_534)
        yield path
        os.seteuid(before)


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_no_permission_is_one_line(run, delivering, path_of_another_user, action):
    """A file of another user is exit code 2 and one line."""
    path = path_of_another_user

    assert f"the spool {path}: unable to open database file" == refusal(run(*action, at=path))


def test_locked_is_one_line(run, path, monkeypatch):
    """A file that another program has for itself is exit code 2 and one line."""
    monkeypatch.setattr(spool_module, "OPENING", 0.01)
    fill(path)
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        ended = run("status")
    finally:
        other.close()

    assert f"the spool {path}: database is locked" == refusal(ended)


def test_waits_for_who_writes():
    """A write is tried again while another process writes, for a while, and nothing else is."""
    locked = SpoolError("path", "locked", "database is locked")
    takes = iter([locked, locked, 7, SpoolError("path", "full", "no room")])

    def act():
        take = next(takes)
        if isinstance(take, SpoolError):
            raise take
        return take

    assert 7 == command._patiently(act)
    with pytest.raises(SpoolError, match="no room"):
        command._patiently(act)


def test_waits_no_longer_than_it_says(monkeypatch):
    """Who writes for ever is not waited for for ever."""
    monkeypatch.setattr(command, "_PATIENCE", -1.0)

    def act():
        raise SpoolError("path", "locked", "database is locked")

    with pytest.raises(SpoolError, match="database is locked"):
        command._patiently(act)


# ---------------------------------------------------------------- drain


@pytest.mark.parametrize("delivery", ["event", "batch"])
def test_drain_delivers_all_in_order(run, path, delivering, monkeypatch, delivery):
    """Everything arrives once, each user's events in their order; the spool is empty then."""
    monkeypatch.setenv("USERLENS_DELIVERY", delivery)
    fill(path, events=300, users=7)
    code, out, err = run("drain")

    arrived = [
        (event["userId"], event["event"])
        for body in delivering.events
        for event in body.get("events", [body])
    ]
    assert (0, "300 delivered; the spool is empty\n", "") == (code, out, err)
    for user in range(7):
        mine = [name for who, name in arrived if who == f"u{user}"]
        assert [f"Event {one}" for one in range(user, 300, 7)] == mine
    assert 0 == look(path).events


def test_drain_for_scripts(run, path, delivering):
    """--json prints what became of the events; those that are refused become dead letters."""
    delivering.script = lambda request: Reply(
        status=400 if request.json["event"] == "Event 1" else 200
    )
    fill(path, events=3)
    code, out, err = run("drain", "--json")

    assert 0 == code
    assert {
        "delivered": 2,
        "refused": {"rejected": 1},
        "dropped": {},
        "left": 0,
        "why": None,
    } == json.loads(out)
    assert err.startswith(f"{PREFIX}an event is not delivered: Userlens refuses it (status 400)")
    assert ["Event 1"] == [json.loads(run("dead-letters", "--json")[1])["event"]]


def test_drain_says_what_was_refused(run, path, delivering):
    """The line for people has the same, by reason."""
    delivering.script = lambda request: Reply(status=400)
    fill(path, events=2)

    assert (0, "0 delivered, 2 refused (rejected); the spool is empty\n") == run("drain")[:2]


def test_drain_of_nothing(run, path, delivering):
    """An empty spool is a success."""
    fill(path)

    assert (0, "0 delivered; the spool is empty\n", "") == run("drain")


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("USERLENS_WRITE_CODE", "", "write_code is missing; set USERLENS_WRITE_CODE"),
        ("USERLENS_DRY_RUN", "1", "dry_run is set: nothing would be sent; take it away"),
        ("USERLENS_DISABLED", "1", "disabled is set: nothing would be sent; take it away"),
        (
            "USERLENS_MAX_WORKERS",
            "no",
            "max_workers (from USERLENS_MAX_WORKERS) is not a whole number; give digits only",
        ),
        (
            "USERLENS_WRITE_CODE",
            "another",
            ANOTHER,
        ),
    ],
)
def test_drain_with_wrong_settings_is_one_line(
    run, path, delivering, monkeypatch, variable, value, problem
):
    """Where nothing, or the wrong thing, would be delivered, nothing is touched."""
    monkeypatch.setenv(variable, value)
    fill(path, events=2)

    assert problem == refusal(run("drain"))
    assert (2, []) == (look(path).events, delivering.requests)


def test_drain_with_another_write_code_if_told_to(run, path, delivering):
    """--adopt delivers what was taken with a write code that has been replaced since."""
    fill(path, events=2, code="the-old-one")
    code, out, err = run("drain", "--adopt")

    assert (0, "2 delivered; the spool is empty\n") == (code, out)
    assert "holds events that were taken with another write code" in err
    assert "the-old-one" not in err
    assert WRITE_CODE not in err


def test_drain_drops_nothing_for_its_age(run, path, delivering):
    """After an outage of weeks, what the service has kept is delivered."""
    fill(path, events=2, at=time.time() - 20 * 86_400)

    assert (0, "2 delivered; the spool is empty\n", "") == run("drain")


def test_drain_drops_what_the_environment_says_is_too_old(run, path, delivering, monkeypatch):
    """Who sets a largest age means it: what is older, and fails, becomes a dead letter."""
    monkeypatch.setenv("USERLENS_SPOOL_MAX_AGE", "86400")
    delivering.script = lambda request: Reply(status=503)
    fill(path, events=2, at=time.time() - 20 * 86_400)

    line = "0 delivered, 2 dropped (expired); the spool is empty\n"
    assert (0, line) == run("drain")[:2]
    assert 2 == look(path).dead


def test_drain_beside_a_process_that_delivers(run, path, delivering):
    """One process delivers at a time: exit code 1, and one line that says which one it is."""
    fill(path, events=2)
    other = Spool(str(path))
    other.open()
    try:
        assert other.lock()
        ended = run("drain")
    finally:
        other.close()

    line = f"{PREFIX}process {os.getpid()} delivers what is in it already\n"
    assert (1, "", line) == ended
    assert (2, []) == (look(path).events, delivering.requests)


def test_drain_in_the_time_it_has(run, path, delivering, monkeypatch):
    """When the time is up while Userlens cannot be reached, all is kept, and it says why."""
    monkeypatch.setenv("USERLENS_EVENTS_URL", f"http://127.0.0.1:{closed_port()}")
    fill(path, events=5)
    code, out, err = run("drain", "--timeout", "0.3")

    why = "the time is up, and Userlens cannot be reached or takes no events at present"
    assert (1, f"0 delivered, 5 left: {why}\n") == (code, out)
    assert f"{PREFIX}Userlens cannot be reached" in err
    assert "could not be delivered in time" not in err
    assert 5 == look(path).events


def test_drain_in_no_time(run, path, delivering):
    """A time of nothing is not for ever; whatever was answered by then is not left."""
    delivering.script = lambda request: Reply(hold=release)
    release = threading.Event()
    threading.Timer(0.2, release.set).start()
    fill(path, events=5)
    code, out, err = run("drain", "--timeout", "0", "--json")

    shown = json.loads(out)
    assert (1, "", "timeout") == (code, err, shown["why"])
    assert 5 == shown["delivered"] + shown["left"]
    assert (len(delivering.requests), shown["left"]) == (shown["delivered"], look(path).events)


def test_drain_with_a_write_code_that_is_refused(run, path, delivering):
    """Nothing will come of waiting: it ends at once, and says what to do."""
    delivering.script = lambda request: Reply(status=401)
    fill(path, events=5)
    code, out, err = run("drain")

    assert (1, "0 delivered, 5 left: Userlens refuses the write code\n") == (code, out)
    assert "correct USERLENS_WRITE_CODE" in err
    assert WRITE_CODE not in out + err
    assert 5 == look(path).events


def damage(path):
    """Make a spool in the middle of which there is nonsense."""
    fill(path, events=5_000)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4_096)


def test_drain_of_a_file_that_is_damaged_further_on(run, path, tmp_path, delivering):
    """What no look at the beginning shows is one line as well, and the file stays in its place."""
    damage(path)
    code, out, err = run("drain")

    assert (2, "", 1) == (code, out, err.count("\n"))
    assert err.startswith(f"{PREFIX}the spool {path}: ")
    assert {path} == set(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_drain_can_be_stopped(path, number):
    """
    Ctrl+C and SIGTERM keep what is left, and wait for the answer to what is on its way.

    Drained again, each event has arrived exactly once.
    """
    release = threading.Event()
    with ScriptedServer(
        lambda request: Reply(hold=release if request.number == 3 else None)
    ) as server:
        fill(path, events=200, users=50)
        process = subprocess.Popen(
            [sys.executable, *arguments(path, "drain", "--json")],
            env=environment(server.url, USERLENS_MAX_EVENTS_PER_MINUTE="600"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.wait_for(3)
        process.send_signal(number)
        release.set()
        out, err = process.communicate(timeout=PATIENCE)
        first = json.loads(out)
        again = run_command(path, "drain", "--json", url=server.url)
        names = Counter(event["event"] for event in server.events)

    assert (128 + number, "", "interrupted") == (process.returncode, err, first["why"])
    assert 200 == first["delivered"] + first["left"]
    assert first["left"] == json.loads(again.stdout)["delivered"] > 0
    assert {f"Event {one}": 1 for one in range(200)} == names


def test_drain_says_how_far_it_is(run, path, delivering, monkeypatch):
    """Without a terminal: a plain line now and then, on stderr."""
    monkeypatch.setattr(command, "_EVERY", 0.0)
    fill(path, events=3)
    code, out, err = run("drain")

    assert (0, "3 delivered; the spool is empty\n") == (code, out)
    assert f"{PREFIX}3 of 3 delivered" == err.splitlines()[-1]


def test_drain_says_little(run, path, delivering):
    """No more than a line every few seconds."""
    fill(path, events=300)

    assert "" == run("drain")[2]


def on_a_terminal(path, url, code=None, columns=80):
    """Drain with stderr on a terminal; return exit code, stdout and what the terminal got."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    program = arguments(path, "drain") if code is None else ["-c", code, str(path)]
    process = subprocess.Popen(
        [sys.executable, *program],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=inner,
        text=True,
    )
    os.close(inner)
    shown = b""
    while True:
        piece = b""
        with suppress(OSError):  # Linux says so when the last writer has gone
            piece = os.read(outer, 4096)
        if not piece:
            break
        shown += piece
    os.close(outer)
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out, shown.decode()


@pytest.mark.parametrize("columns", [80, 0])  # a terminal in a container may know no width
def test_drain_has_a_progress_bar_on_a_terminal(path, server, columns):
    """On a terminal a bar shows how far it is; diagnostics stand above it in lines of their own."""
    server.script = lambda request: Reply(status=400 if request.json["event"] == "Event 7" else 200)
    fill(path, events=50)
    code, out, shown = on_a_terminal(path, server.url, columns=columns)

    assert (0, "49 delivered, 1 refused (rejected); the spool is empty\n") == (code, out)
    assert "delivered: 100%|" in shown
    assert "| 50/50 [" in shown
    assert f"\r{PREFIX}an event is not delivered" in shown.replace("\n", "\r")


def test_drain_needs_no_progress_bar(path, server):
    """Without the extra there are plain lines, on a terminal as well."""
    code = (
        "import sys; sys.modules['tqdm'] = None\n"
        "from userlens_instrument.cli import main, spool; spool._EVERY = 0.0\n"
        "sys.exit(main(['spool', sys.argv[1], 'drain']))"
    )
    fill(path, events=5)
    code, out, shown = on_a_terminal(path, server.url, code)

    assert (0, "5 delivered; the spool is empty\n") == (code, out)
    assert f"{PREFIX}5 of 5 delivered" == shown.splitlines()[-1]


def scripted(drains, *, held_back=None):
    """Return a client for `_deliver`, each of whose `drain` returns the next of *drains*."""
    takes = iter(drains)
    stats = SimpleNamespace(held_back=held_back)
    return SimpleNamespace(drain=lambda timeout: next(takes), stats=lambda: stats)


def holding(first, *drainers):
    """Return a spool for `_deliver`, whose drainer is the next of *drainers*."""
    takes = iter(drainers)
    return SimpleNamespace(first=lambda up_to: first, drainer=lambda: next(takes, os.getpid()))


SILENT = SimpleNamespace(show=lambda stats: None)


def test_drain_ends_though_somebody_logs_all_the_time(monkeypatch):
    """What comes after everything was delivered is not waited for for ever."""
    monkeypatch.setattr(command, "_LATE", 0.0)
    client = scripted([True])

    assert "busy" == command._deliver(client, holding(5), SILENT, [], None)


def test_drain_delivers_what_comes_meanwhile():
    """What came while the last was delivered is delivered, too."""
    firsts = iter([5, None])
    spool = SimpleNamespace(first=lambda up_to: next(firsts), drainer=os.getpid)

    assert command._deliver(scripted([True, True]), spool, SILENT, [], None) is None


def test_drain_ends_when_another_takes_over():
    """Should another process have got the lock, it is the one to deliver."""
    client = scripted([False])

    assert "taken" == command._deliver(client, holding(5, 1), SILENT, [], None)


def test_drain_waits_a_moment_for_a_lock_that_nobody_has(monkeypatch):
    """Another process that looks who delivers may have it for a moment."""
    monkeypatch.setattr(command, "_TICK", 0.001)
    client = scripted([False, False, True])

    assert command._deliver(client, holding(None, None), SILENT, [], None) is None


def test_a_second_signal_does_as_ever():
    """Who cannot wait presses Ctrl+C twice."""
    # What starts the tests in the background may have it ignored.
    theirs = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with command._noted_signals() as noted:
            signal.raise_signal(signal.SIGINT)
            assert [signal.SIGINT] == noted
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

        assert signal.default_int_handler == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, theirs)


# ---------------------------------------------------------------- dead letters


def test_dead_letters_are_listed(run, path):
    """One line each: number, when it died, why, the status, and what it was."""
    fill(path, dead=[columns("ada", "Plan Upgraded"), columns("u" * 99, "Käse")], died=NOW)
    when = "2026-09-21T14:13:20Z"
    lines = [
        f"    1  {when}  rejected            400  track     user ada  Plan Upgraded\n",
        f"    2  {when}  rejected            400  track     user {'u' * 59}…  Käse\n",
    ]

    assert (0, "".join(lines), "") == run("dead-letters")
    assert (0, "".join(lines), "") == run("dead-letters", "list")
    assert (0, lines[1], "") == run("dead-letters", "--limit", "1")
    assert (0, lines[1], "") == run("dead-letters", "list", "--limit", "1")


def test_no_dead_letters(run, path):
    """None is said to people; scripts get nothing."""
    fill(path)

    assert (0, "no dead letters\n", "") == run("dead-letters")
    assert (0, "", "") == run("dead-letters", "--json")


@pytest.mark.parametrize("arguments", [["--json"], ["list", "--json"], ["--json", "list"]])
def test_dead_letters_for_scripts(run, path, arguments):
    """--json prints one object a line, with the whole body, in ASCII."""
    fill(
        path,
        dead=[columns("ada", "Käse", NOW - 60, b'"size":12'), columns(HOSTILE, HOSTILE)],
        died=NOW,
    )
    code, out, err = run("dead-letters", *arguments)

    first, second = map(json.loads, out.splitlines())
    assert (0, "") == (code, err)
    assert out.replace("\n", "").isascii()
    assert out.replace("\n", "").isprintable()
    assert {
        "id": 1,
        "died": NOW,
        "reason": "rejected",
        "status": 400,
        "answer": '{"error":"no"}',
        "taken": NOW - 60,
        "type": "track",
        "user_id": "ada",
        "event": "Käse",
        "body": {
            "type": "track",
            "userId": "ada",
            "source": "userlens-restapi",
            "event": "Käse",
            "properties": {"size": 12},
        },
    } == first
    assert (HOSTILE, HOSTILE) == (second["user_id"], second["body"]["event"])


def test_many_dead_letters_are_read_bit_by_bit(run, path, monkeypatch):
    """All are listed, once each, and no more than those that there were when it began."""
    monkeypatch.setattr(command, "_CHUNK", 3)
    fill(path, dead=[columns("u", f"Event {one}") for one in range(10)])
    spool = Spool(str(path))
    spool.open()
    try:
        some = [letter.row.id for letter in command._letters(spool, [3, 4, 5, 6, 7])]
    finally:
        spool.close()

    numbers = [int(line.split()[0]) for line in run("dead-letters")[1].splitlines()]
    assert list(range(1, 11)) == numbers
    assert [3, 4, 5, 6, 7] == some


def test_one_dead_letter(run, path):
    """show prints all that is known, and the body as people read it."""
    fill(path, dead=[columns("ada", "Käse", NOW - 60, b'"size":12')], died=NOW)
    code, out, err = run("dead-letters", "show", "1")

    assert (0, "") == (code, err)
    assert (
        """\
dead letter 1
  died      2026-09-21T14:13:20Z
  reason    rejected
  status    400
  answer    {"error":"no"}
  taken     2026-09-21T14:12:20Z
  type      track
  user      ada
  event     Käse
{
  "type": "track",
  "userId": "ada",
  "source": "userlens-restapi",
  "event": "Käse",
  "properties": {
    "size": 12
  }
}
"""
        == out
    )
    assert json.loads(run("dead-letters", "--json")[1]) == json.loads(
        run("dead-letters", "show", "1", "--json")[1]
    )


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["list", "--json"]])
def test_what_is_foreign_does_nothing_to_a_terminal(run, path, arguments):
    """No control character and no bidi override of an id, a name, a value or an answer gets out."""
    spool = Spool(str(path))
    spool.open()
    body = json.dumps({"value": HOSTILE + "\x7f\x9b"}, ensure_ascii=False)[1:-1].encode()
    row = columns(HOSTILE, HOSTILE, data=body)
    spool.remove([], [Burial(0, row, HOSTILE, 400, HOSTILE, NOW)])
    spool.close()
    code, out, err = run("dead-letters", *arguments)

    assert (0, "") == (code, err)
    assert all(line.isprintable() for line in out.split("\n"))
    assert "\\x1b[2J" in out or "\\u001b[2J" in out


def spoil(path, table="dead", **values):
    """Write *values* into the columns of every row, as a disk or a person might."""
    connection = sqlite3.connect(path)
    with connection:
        for name, value in values.items():
            connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
    connection.close()


@pytest.mark.parametrize(
    "values",
    [
        {"data": b"other"},
        {"kind": 7, "user": b"\xff", "name": None},
        {
            "died": "yesterday",
            "at": float("inf"),
            "reason": b"\x1b[2J",
            "status": "?",
            "excerpt": 1.5,
        },
    ],
)
def test_a_damaged_dead_letter_is_shown_as_far_as_it_goes(run, path, values):
    """Whatever the file holds, it is shown, not sent, and no traceback."""
    fill(path, dead=[columns("u", "Dead")])
    spoil(path, **values)
    listed, shown, sent = (
        run("dead-letters", *words) for words in (["--json"], ["show", "1"], ["retry", "1"])
    )

    assert json.loads(listed[1], parse_constant=pytest.fail)["body"] is None
    assert 0 == run("dead-letters")[0] == shown[0]
    assert all(line.isprintable() for line in shown[1].split("\n"))
    assert "its row is not as it was written: it cannot be sent\n" in shown[1]
    assert (1, "0 dead letters to be sent again\n") == sent[:2]
    assert f"{PREFIX}1 dead letter cannot be sent: not as they were written\n" == sent[2]
    assert {"retried": 0, "stuck": 1} == json.loads(
        run("dead-letters", "retry", "--all", "--json")[1]
    )
    assert (0, 1) == (look(path).events, look(path).dead)


def test_a_body_that_python_cannot_read_is_shown_as_text(run, path):
    """A number of five thousand digits is no reason for a traceback."""
    fill(path, dead=[columns("u", "Dead", data=b'"n":' + b"1" * 5_000)])

    body = json.loads(run("dead-letters", "--json")[1])["body"]
    assert isinstance(body, str) == hasattr(sys, "get_int_max_str_digits")
    assert 0 == run("dead-letters", "show", "1")[0]


def test_retry_has_them_sent_again(run, path, delivering):
    """Those that are named wait again, and no others; the next delivery has them."""
    fill(path, dead=[columns("u", f"Dead {one}") for one in range(4)])
    code, out, err = run("dead-letters", "retry", "2", "1", "2")

    assert (0, "") == (code, err)
    assert "2 dead letters to be sent again; nobody delivers at present: see drain\n" == out
    assert (2, 2) == (look(path).events, look(path).dead)
    assert {"retried": 2, "stuck": 0} == json.loads(
        run("dead-letters", "retry", "--all", "--json")[1]
    )
    assert 0 == run("drain")[0]
    assert [f"Dead {one}" for one in range(4)] == [event["event"] for event in delivering.events]


def test_retry_of_none(run, path):
    """--all is all, and be it none."""
    fill(path)

    assert (0, "0 dead letters to be sent again\n", "") == run("dead-letters", "retry", "--all")


def test_a_dead_letter_of_long_ago_can_be_sent_again(run, path, make_client_of_events, server):
    """It is older than a spool keeps its events, and is not dropped for that."""
    fill(path, dead=[columns("u", "Dead", time.time() - 20 * 86_400)])
    assert 0 == run("dead-letters", "retry", "1")[0]
    client = make_client_of_events(spool=str(path))
    assert client.drain(PATIENCE)

    assert ["Dead"] == [event["event"] for event in server.events]


def test_purge_deletes_them(run, path, monkeypatch):
    """Those that are named are gone for good, and no others."""
    monkeypatch.setattr(command, "_CHUNK", 2)
    fill(path, dead=[columns("u", f"Dead {one}") for one in range(7)])

    assert (0, "1 dead letter deleted\n", "") == run("dead-letters", "purge", "2")
    assert (6, 0) == (look(path).dead, look(path).events)
    assert (0, '{"purged": 6}\n', "") == run("dead-letters", "purge", "--all", "--json")
    assert 0 == look(path).dead


# ---------------------------------------------------------------- beside running processes


WRITER = """
import sys
from userlens_instrument import Settings
from userlens_instrument.client import Client

client = Client(Settings.load({"spool": sys.argv[1]}))
print("ready", flush=True)
number = 0
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(10):
        client.track(f"u{number % 5}", f"Live {number}")
        number += 1
assert client.flush(60)
client.close()
stats = client.stats()
print(number, stats.delivered, sum(stats.dropped.values()), flush=True)
"""


def test_beside_a_process_that_logs_and_delivers(run, path, server):
    """
    Every command can be run while a service is at work, and none of it costs an event.

    The service loses nothing and sends nothing twice; dead letters that are
    retried meanwhile are delivered by it.
    """
    fill(path, dead=[columns("u", f"Dead {one}") for one in range(20)])
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        env=environment(server.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "ready\n" == process.stdout.readline()
        assert server.wait_for(5)
        codes = []
        for number in range(1, 11):
            codes += [
                run("status", "--json")[0],
                run("dead-letters", "--json")[0],
                run("dead-letters", "retry", str(number))[0],
                run("drain")[0],
            ]
        codes.append(run("dead-letters", "purge", "--all")[0])
        drainer = json.loads(run("status", "--json")[1])["drainer"]
        out, err = process.communicate("stop", timeout=3 * PATIENCE)
    finally:
        process.kill()

    logged, delivered, dropped = map(int, out.split())
    expected = [f"Live {one}" for one in range(logged)] + [f"Dead {one}" for one in range(10)]
    assert [0, 0, 0, 2] * 10 + [0] == codes  # no write code here
    assert (0, process.pid) == (process.returncode, drainer)
    assert (logged + 10, 0) == (delivered, dropped), err
    assert Counter(expected) == Counter(event["event"] for event in server.events)
    assert (0, 0) == (look(path).events, look(path).dead)


def test_from_a_shell(path, server):
    """The program does as much, and warns of nothing at its exit."""
    fill(path, events=20, dead=[columns("u", "Dead")])
    status, drain, dead = (
        run_command(path, *words, url=server.url)
        for words in (["status"], ["drain"], ["dead-letters", "purge", "--all"])
    )

    assert [0, 0, 0] == [done.returncode for done in (status, drain, dead)]
    assert ["", "", ""] == [done.stderr for done in (status, drain, dead)]
    assert "20 delivered; the spool is empty\n" == drain.stdout


def test_help_needs_no_sqlite():
    """The options can be shown without loading what they are about."""
    program = (
        "import sys\n"
        "modules = set(sys.modules)  # a coverage measurement has imported some of its own\n"
        "import userlens_instrument.cli.spool\n"
        "print(sorted({'sqlite3', 'urllib3', 'tqdm'} & (set(sys.modules) - modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ("[]\n", "") == (done.stdout, done.stderr)


# ---------------------------------------------------------------- what the command stands on


def settings(path, server, **more):
    return Settings(
        write_code=WRITE_CODE, events_url=server.url, raw_url=server.url, spool=str(path), **more
    )


def test_a_client_drains_what_others_have_logged(path, server):
    """`Client.drain` delivers what is in the spool, though nothing is logged here."""
    fill(path, events=5)
    with Client(settings(path, server)) as client:
        assert client.drain(PATIENCE)
        assert client.drain(0.0)  # there is nothing
        stats = client.stats()

    assert (5, 5, 0) == (stats.recovered, stats.delivered, stats.accepted)
    assert not client.drain()  # it is closed


def test_a_client_leaves_it_to_the_one_that_drains(path, server):
    """Where another process has the lock, `Client.drain` says so at once."""
    fill(path, events=5)
    other = Spool(str(path))
    other.open()
    assert other.lock()
    try:
        with Client(settings(path, server)) as client:
            assert not client.drain(PATIENCE)
    finally:
        other.close()

    assert [] == server.requests


def test_a_client_without_a_spool_has_nothing_to_drain(server):
    """That is a mistake in the settings, and said so."""
    with (
        Client(Settings(write_code=WRITE_CODE, events_url=server.url)) as client,
        pytest.raises(Exception, match="spool is not set; give the path of the file"),
    ):
        client.drain()


@pytest.mark.parametrize("spoiled", ["missing", "garbage", "tables"])
def test_who_only_drains_puts_nothing_right(path, server, spoiled):
    """A file that is missing or damaged is an error, and left as it is."""
    if spoiled == "garbage":
        path.write_bytes(b"garbage" * 1_000)
    elif spoiled == "tables":
        fill(path)
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE dead")
        connection.commit()
        connection.close()
    before = {one: one.read_bytes() for one in path.parent.iterdir()}
    client = Client(settings(path, server))
    with pytest.raises(SpoolError):
        client.drain()

    assert before == {one: one.read_bytes() for one in path.parent.iterdir()}


def test_who_only_drains_sets_no_file_aside(path, server):
    """A damaged file, too, is left to the services that use it: they save what can be read."""
    damage(path)
    client = Client(settings(path, server))
    try:
        with pytest.raises(SpoolError, match="malformed"):
            all(client.drain(0.05) is not None for _ in range(400))
    finally:
        client.close(0.0)

    assert {path, Path(f"{path}.lock")} >= {
        one for one in path.parent.iterdir() if not one.name.endswith(("-wal", "-shm"))
    }


def test_who_only_drains_makes_no_new_file_for_one_that_is_deleted(path, server):
    """Deleted in the middle of it, the spool is an error, not a new file."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    fill(path, events=5)
    client = Client(settings(path, server))
    try:
        assert not client.drain(0.0)
        assert server.wait_for(1)
        path.unlink()
        with pytest.raises(SpoolError, match="it was deleted while in use"):
            all(client.drain(0.05) is not None for _ in range(400))
        assert not path.exists()
    finally:
        release.set()
        client.close(PATIENCE)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(path, server):
    """`Sender.halt` has a bound; what is on its way then stays in the spool."""
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    fill(path, events=5)
    client = Client(settings(path, server))
    try:
        assert not client.drain(0.0)
        assert server.wait_for(1)
        assert not client.sender.halt(0.05)
        client.close(0.0)
        assert 5 == look(path).events
    finally:
        release.set()


def test_a_busy_inlet_is_an_error(path, server):
    """An inlet that another thread has for too long is one that is locked."""
    fill(path)
    client = Client(settings(path, server))
    client.sender._inlet.held = lambda act, patience: False

    with pytest.raises(SpoolError, match="another thread is writing"):
        client.drain()
