"""
Every host for real, in every way: docs/hosts as it is written, examples/hosts as they are.

Run by ``tox -e hosts``, which ends with the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE, Reply
from host_matrix import (
    START,
    Host,
    arrived,
    expected,
    lacks,
    nothing_beside,
    run,
    run_as,
    variables,
)
from host_pages import DICT_CONFIG, PAGES, WAYS, read_page
from schema import assert_valid


INVOICES = 6


# ---------------------------------------------------------------- how each is used


def by_http(connect="at_socket", *, until_ready, reload=None):
    """
    Return what asks for invoices by HTTP.

    Args:
        connect: Which method of `Running` connects.
        until_ready: What the console says once it can be told to end, and how often.
        reload: What brings a reload about, halfway: a signal, or the name of a program that
            is edited and what the console says of that. Then the console says again that
            the host is ready.
    """

    def drive(running):
        connection = getattr(running, connect)
        text, times = until_ready
        for number in range(INVOICES):
            running.post(number, connection)
            if reload and number == INVOICES // 2:
                running.until_console_has(text, times)
                if isinstance(reload, signal.Signals):
                    running.process.send_signal(reload)
                else:
                    running.until_arrived(number + 1)
                    running.edit(*reload)
                times *= 2
                running.until_console_has(text, times)
        running.until_console_has(text, times)
        return INVOICES

    return drive


def by_files(running):
    """Put a file for each invoice into the inbox; return once they have gone."""
    inbox = running.folder / "inbox"
    running.until(inbox.is_dir)
    for number in range(INVOICES):
        new = inbox / f"{number}.new"
        new.write_text(f"i-{number} u-{number}", "utf-8")
        new.rename(inbox / f"{number}.job")
    running.until(lambda: not list(inbox.iterdir()))
    return INVOICES


def by_lines(running):
    """Send a line for each invoice, over a connection each; return once they are answered."""
    path = running.folder / "socket"
    running.until(path.exists)
    for number in range(INVOICES):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(f"i-{number} u-{number}\n".encode())
            assert b"paid\n" == connection.recv(100)
    return INVOICES


def by_itself(invoices):
    """Return what waits for a host that does it all by itself."""

    def drive(running):
        running.process.wait(START)
        return invoices

    return drive


def until_printed(text, times):
    """Return what waits until the console has *text* so often: as many invoices."""

    def drive(running):
        running.until_console_has(text, times)
        return times

    return drive


@contextlib.contextmanager
def queued(folder, environ):
    """Queue Celery's tasks."""
    subprocess.run(
        [sys.executable, "celery_app.py", str(INVOICES)],
        cwd=folder,
        env=environ | {"USERLENS_DISABLED": "true"},
        check=True,
        timeout=START,
    )
    yield


ENQUEUE = """
import sys
from redis import Redis
from rq import Queue
queue = Queue(connection=Redis(unix_socket_path="redis.sock"))
for number in range(int(sys.argv[1])):
    queue.enqueue("rq_jobs.pay", f"i-{number}", f"u-{number}")
"""


@contextlib.contextmanager
def enqueued(folder, environ):
    """Run a Redis of its own, with RQ's jobs in it."""
    command = ["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--save", ""]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as redis:
        try:
            for line in redis.stdout:
                if "eady to accept connections" in line:
                    break
            subprocess.run(
                [sys.executable, "-c", ENQUEUE, str(INVOICES)],
                cwd=folder,
                env=environ,
                check=True,
                timeout=START,
            )
            yield
        finally:
            redis.kill()


@functools.cache
def airflow_database():
    """Return an empty database of Airflow, made once: that takes it five seconds."""
    folder = tempfile.TemporaryDirectory(prefix="userlens-airflow-")
    path = Path(folder.name, "airflow.db")
    environ = variables(None, airflow_settings(folder.name))
    command = ["airflow", "db", "migrate"]
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=START)
    return folder, path


def airflow_settings(folder):
    return {
        "AIRFLOW_HOME": f"{folder}/airflow",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        # For the module that has the logging configuration.
        "PYTHONPATH": str(folder),
    }


@contextlib.contextmanager
def migrated(folder, environ):
    """Put a database for Airflow into the folder."""
    environ |= airflow_settings(folder)
    _, path = airflow_database()
    shutil.copy(path, folder)
    yield


# ---------------------------------------------------------------- the rows

# A socket in the home folder, which gunicorns that run side by side would share; and
# until a worker says this it does not hear that it is to end.
GUNICORN_CONFIG = """
control_socket_disable = True

def post_worker_init(worker):
    print("a worker is ready", flush=True)
"""
READY = ("a worker is ready", 2)


def gunicorn(name, *options, **more):
    return Host(
        name=name,
        page="flask",
        drive=by_http(until_ready=READY, reload=more.pop("reload", None)),
        options=("--bind=unix:socket", "--config=hooks.py", *options),
        files={"hooks.py": GUNICORN_CONFIG},
        needs=("gunicorn", "flask"),
        **more,
    )


def uvicorn(name, *options, ready=1, **more):
    return Host(
        name=name,
        page="fastapi",
        drive=by_http(
            until_ready=("Application startup complete", ready), reload=more.pop("reload", None)
        ),
        options=("--uds=socket", *options),
        settled="uvicorn ends itself by the signal that it was sent, and no exit hook runs",
        needs=("uvicorn", "fastapi"),
        **more,
    )


def celery(name, *options, **more):
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    more.setdefault("prepare", queued)
    more.setdefault("drive", until_printed("succeeded in", INVOICES))
    return Host(
        name=name,
        page="celery",
        options=("--concurrency=2", *quiet, *options),
        needs=("celery",),
        **more,
    )


# Due once, and then in an hour.
BEAT = """
import datetime
app.conf.beat_schedule = {
    f"bill {number}": {
        "task": "bill",
        "args": [number],
        "schedule": 3600.0,
        "last_run_at": datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc),
    }
    for number in range(3)
}
"""


def pools(method):
    return Host(
        name=f"multiprocessing: {method}",
        page="multiprocessing",
        drive=by_itself(11),
        swapped={"fork": method},
        stop=None,
    )


HOSTS = [
    Host(
        name="Django: runserver, a reload",
        page="django",
        drive=by_http(
            "at_port",
            until_ready=("Quit the server with", 1),
            reload=("django_urls.py", "changed, reloading"),
        ),
        options=("127.0.0.1:{port}",),
        stop=signal.SIGINT,
        ctrl_c=True,
        settled="runserver kills its process a quarter of a second after Ctrl+C",
        needs=("django",),
    ),
    uvicorn("FastAPI: uvicorn", statuses=frozenset({-signal.SIGTERM})),
    uvicorn("FastAPI: uvicorn --workers 2", "--workers=2", ready=2),
    uvicorn(
        "FastAPI: uvicorn --reload, a reload",
        "--reload",
        reload=("fastapi_app.py", "detected changes"),
    ),
    gunicorn("Flask: gunicorn sync, a reload", reload=signal.SIGHUP),
    gunicorn("Flask: gunicorn gthread", "--threads=4"),
    gunicorn("Flask: gunicorn --preload", "--preload"),
    celery("Celery: prefork"),
    celery(
        "Celery: prefork, no root hijack",
        appended={"celery_app.py": "\napp.conf.worker_hijack_root_logger = False\n"},
    ),
    celery("Celery: threads", "--pool=threads"),
    celery(
        "Celery: beat",
        "--beat",
        "--schedule=schedule",
        appended={"celery_app.py": BEAT},
        prepare=nothing_beside,
        drive=until_printed("succeeded in", 3),
    ),
    Host(
        name="APScheduler",
        page="apscheduler",
        needs=("apscheduler",),
        drive=by_itself(3),
        stop=None,
    ),
    Host(
        name="RQ",
        page="rq",
        drive=by_itself(INVOICES),
        options=("--burst", "--url=unix://{folder}/redis.sock"),
        prepare=enqueued,
        twice="twice arrives what is on its way when a work-horse ends by os._exit",
        stop=None,
        needs=("rq", "redis-server"),
    ),
    Host(
        name="a worker: while True",
        page="worker",
        drive=by_files,
        statuses=frozenset({-signal.SIGTERM}),
        in_turn=True,
    ),
    Host(
        name="an asyncio service, structlog",
        page="asyncio",
        drive=by_lines,
        in_turn=True,
    ),
    Host(
        name="Airflow: a task",
        page="airflow",
        drive=by_itself(1),
        prepare=migrated,
        stop=None,
        needs=("airflow",),
    ),
    pools("fork"),
    pools("forkserver"),
    pools("spawn"),
]


# ---------------------------------------------------------------- the test


@pytest.fixture(scope="session")
def consoles(tmp_path_factory):
    """Return what runs a host as it is, once for all ways whose command is the same."""
    done = {}

    def console(host, way):
        # The wrapper's command is that of the two lines of code, behind the wrapper.
        key = host.name, way == DICT_CONFIG
        if key not in done:
            done[key] = run(host, way, tmp_path_factory.mktemp("plain"), None)
        return done[key]

    return console


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_host(server, tmp_path, record_property, consoles, host, way):
    """
    Exactly the expected events arrive, each user's in the order of the log calls.

    Each once, unless the row says why one may arrive twice.

    Over a reload, and over a clean stop, at which the host has been told to end
    with events still held, unless the row says why not. Standard output,
    standard error and exit status are those of the same host without us.
    """
    record_property("cell", (HOSTS.index(host), host.name, way))
    record_property("note", host.twice)
    if way in host.without:
        pytest.skip(host.without[way])
    missing = lacks(host)
    if missing:
        pytest.skip(f"there is no {missing} here")
    plain = consoles(host, way)

    outcome = run(host, way, tmp_path, server)
    for body in server.events:
        assert_valid(body)
    assert expected(host, outcome.invoices) == arrived(server, host), outcome.text
    assert "" == plain.difference(outcome)
    assert outcome.status in host.statuses, outcome.text


def test_a_flush_in_the_lifespan_delivers_what_is_held_when_uvicorn_ends(server, tmp_path):
    """
    uvicorn ends by its signal and runs no exit hook; what docs/hosts/fastapi.md says helps.

    The server answers nobody before uvicorn has heard that it is to end.
    """
    host = next(host for host in HOSTS if host.name == "FastAPI: uvicorn")
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)

    def drive(running):
        running.post(0, running.at_socket)
        running.process.send_signal(signal.SIGTERM)
        running.until_console_has("Waiting for application shutdown")
        release.set()
        return 1

    page = (PAGES / "fastapi.md").read_text("utf-8")
    snippet = re.search(r"<!-- lifespan -->\n```python\n(.*?)```", page, re.DOTALL)[1]
    said = read_page("fastapi")["code"]
    said.insertions.append(("fastapi_app.py", "app = FastAPI()", snippet))
    try:
        outcome = run_as(
            said, dataclasses.replace(host, drive=drive, settled="", stop=None), tmp_path, server
        )
    finally:
        release.set()

    assert expected(host, 1) == arrived(server, host), outcome.text
    assert -signal.SIGTERM == outcome.status
