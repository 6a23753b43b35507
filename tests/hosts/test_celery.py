"""
A Celery worker for real: prefork, two children, the filesystem broker.

Celery's children end by `os._exit` and run no exit hooks. What they hold is
delivered all the same, by a receiver of ours (``signals.worker_process_shutdown``);
an application may deliver it earlier by `userlens_instrument.flush`, such as at
the end of each task (``signals.task_postrun``).
"""

from __future__ import annotations

import signal
import threading
from collections import defaultdict

import pytest
from children import Program, run_file
from helpers import PATIENCE, Reply
from schema import assert_valid


pytest.importorskip("celery")

TASKS = 10

# Both entrances in each task, and one line of the parent's, before it forks.
APP = """
import logging
import pathlib
import sys

import structlog
import userlens_instrument as userlens
from celery import Celery, signals
from celery.utils.log import get_task_logger

here = pathlib.Path(__file__).parent
for name in ("queue", "control"):
    (here / name).mkdir(exist_ok=True)

app = Celery("jobs", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(here / "queue"),
        "data_folder_out": str(here / "queue"),
        "control_folder": str(here / "control"),
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_redirect_stdouts=False,
)
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        userlens.UserlensProcessor(),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)
native = structlog.get_logger()

@signals.worker_init.connect
def started(**kwargs):
    stdlib.info("Worker Started", extra={"userlens_event": True, "user_id": "parent"})

@app.task(name="export")
def export(user):
    with structlog.contextvars.bound_contextvars(user_id=user):
        native.info("Export Started", userlens_event=True)
        stdlib.info("Export Finished", extra={"userlens_event": True, "rows": 5})
"""

ON_ROOT = """
# Celery takes the root's handlers away, unless told not to.
app.conf.worker_hijack_root_logger = False
logging.basicConfig(level=logging.INFO, handlers=[userlens.UserlensHandler()])
stdlib = logging.getLogger("app")
"""

ON_NAMED_LOGGER = """
stdlib = get_task_logger("app")
stdlib.setLevel(logging.INFO)  # "worker_init" comes before Celery sets a level
stdlib.addHandler(userlens.UserlensHandler())
"""

AT_THE_END_OF_THE_PROCESS = """
@signals.worker_process_shutdown.connect
def deliver(**kwargs):
    print("a child is about to flush", flush=True)
    userlens.flush(timeout=20)
    sys.stderr.write(f"pending after the flush: {userlens.stats().pending}\\n")
    sys.stderr.flush()
"""

FIRST_WORDS = "a child has started"
SAYING_WHEN_A_CHILD_STARTS = f"""
@signals.worker_process_init.connect
def greet(**kwargs):
    print({FIRST_WORDS!r}, flush=True)
"""

LAST_WORDS = "a child is about to end"
SAYING_WHEN_A_CHILD_ENDS = f"""
@signals.worker_process_shutdown.connect
def say(**kwargs):
    print({LAST_WORDS!r}, flush=True)
    stdlib.info("Child Ended", extra={{"userlens_event": True, "user_id": "children"}})
"""

AT_THE_END_OF_THE_TASK = """
@signals.task_postrun.connect
def deliver(**kwargs):
    userlens.flush(timeout=20)
"""

SEND = """
if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        export.delay(f"u{number}")
"""


def write_app(folder, *parts):
    """Write the application, and queue its tasks."""
    path = folder / "jobs.py"
    path.write_text("".join([APP, *parts, SEND]))
    return path


def queue_tasks(path, url, number=TASKS):
    sent = run_file(path, str(number), url=url)
    assert sent.returncode == 0, sent.stderr


def worker(folder, url, *more):
    arguments = ["-m", "celery", "--app=jobs", "worker", "--pool=prefork", "--concurrency=2"]
    arguments += ["--loglevel=INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    arguments += more
    # A lane for each user that the tests have, and time for a busy machine.
    settings = {"USERLENS_MAX_WORKERS": "16", "USERLENS_SHUTDOWN_TIMEOUT": str(PATIENCE)}
    return Program(None, url, arguments=arguments, cwd=folder, **settings)


def assert_each_event_once_and_in_order(server, error, tasks=TASKS, *, ended=0):
    found = defaultdict(list)
    for body in server.events:
        assert_valid(body)
        found[body["userId"]].append((body["event"], body.get("properties", {})))
    expected = {"parent": [("Worker Started", {})]}
    if ended:
        expected["children"] = [("Child Ended", {})] * ended
    for number in range(tasks):
        expected[f"u{number}"] = [("Export Started", {}), ("Export Finished", {"rows": 5})]
    assert expected == found, error
    assert 1 + 2 * tasks + ended == len(server.events)


def test_what_children_hold_at_a_warm_shutdown_arrives_once(server, tmp_path):
    """
    Handler on the root, flush in ``worker_process_shutdown``: each event arrives exactly once.

    The server answers nobody before a child is at its end: so no task waits
    for an answer, the parent's own event is in flight while it forks (and its
    children do not repeat it), and the flush delivers the rest. Celery ends
    with status 0.
    """
    path = write_app(tmp_path, ON_ROOT, AT_THE_END_OF_THE_PROCESS)
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    queue_tasks(path, server.url)
    try:
        with worker(tmp_path, server.url) as celery:
            assert server.wait_for(1 + TASKS)
            celery.send_signal(signal.SIGTERM)
            celery.wait_for("a child is about to flush")
            release.set()
            status, _, error = celery.finish()
    finally:
        release.set()
    assert status == 0, error
    assert error.count("pending after the flush: 0\n") == 2, error
    assert_each_event_once_and_in_order(server, error)


def test_without_a_flush_what_a_child_holds_arrives(server, tmp_path):
    """
    No flush anywhere: what children hold at the end arrives once, and so does
    what the application logs in ``worker_process_shutdown``.

    The server answers nobody before the first child is at its end, so that one
    holds everything that its tasks logged.
    """
    path = write_app(tmp_path, ON_ROOT, SAYING_WHEN_A_CHILD_ENDS)
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    queue_tasks(path, server.url)
    try:
        with worker(tmp_path, server.url) as celery:
            assert server.wait_for(1 + TASKS)
            celery.send_signal(signal.SIGTERM)
            celery.wait_for(LAST_WORDS)
            release.set()
            status, _, error = celery.finish()
    finally:
        release.set()
    assert status == 0, error
    assert_each_event_once_and_in_order(server, error, ended=2)


def test_what_a_child_holds_that_has_had_its_tasks_arrives(server, tmp_path):
    """
    The same where each child ends after one task, and another takes its place.

    One at a time: of two, Celery's pool (billiard 4.3) loses a task or stands
    still now and then, with or without us. It starts the next when the one
    before is gone; so the first three are when there is a fourth.
    """
    tasks = 3
    path = write_app(tmp_path, ON_ROOT, SAYING_WHEN_A_CHILD_STARTS, SAYING_WHEN_A_CHILD_ENDS)
    release = threading.Event()
    server.script = lambda request: Reply(hold=release)
    queue_tasks(path, server.url, tasks)
    try:
        with worker(tmp_path, server.url, "--concurrency=1", "--max-tasks-per-child=1") as celery:
            said = celery.wait_for(LAST_WORDS)
            release.set()
            while said.count(FIRST_WORDS) < tasks + 1:
                said += celery.wait_for(FIRST_WORDS)
            assert server.wait_for(1 + 3 * tasks)
            # The fourth has not ended. It will, and may say so, when its parent is killed.
            assert_each_event_once_and_in_order(server, said, tasks, ended=tasks)
    finally:
        release.set()


def test_a_flush_at_the_end_of_each_task_delivers_its_events(server, tmp_path):
    """
    Handler on the logger of `get_task_logger`, flush in ``task_postrun``: the same.

    That logger keeps its handler whatever Celery does to the root's, and its
    lines still reach Celery's own log.
    """
    path = write_app(tmp_path, ON_NAMED_LOGGER, AT_THE_END_OF_THE_TASK)
    queue_tasks(path, server.url)
    with worker(tmp_path, server.url) as celery:
        assert server.wait_for(1 + 2 * TASKS)
        celery.send_signal(signal.SIGTERM)
        status, _, error = celery.finish()
    assert status == 0, error
    assert_each_event_once_and_in_order(server, error)
    assert TASKS == error.count("Export Finished")
