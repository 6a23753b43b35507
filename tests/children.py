"""How tests run processes: programs of their own, forks of this one, and what they report."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback

from helpers import PATIENCE, SPOOLED, environment, run_python


# What the requirement allows past a deadline, in seconds.
GRACE = 0.5

# A program that reports how its exit went. The report is the first exit hook
# to be registered, so the last to run.
REPORTING = """
import atexit, json, sys, time

ended = []

@atexit.register
def report():
    took = time.monotonic() - ended[0] if ended else None
    stats = userlens.stats()
    print(json.dumps({
        "took": took, "accepted": stats.accepted, "delivered": stats.delivered,
        "refused": dict(stats.refused), "dropped": dict(stats.dropped), "pending": stats.pending,
        "recovered": stats.recovered, "spooled": stats.spooled,
    }), flush=True)

import logging
import userlens_instrument as userlens

def log(name, user="u1", logger=logging.getLogger("app")):
    logger.warning(name, extra={"userlens_event": True, "user_id": user})

def attach(**settings):
    logger = logging.getLogger("app")
    logger.propagate = False
    logger.addHandler(userlens.UserlensHandler(**settings))

def end():
    ended.append(time.monotonic())
"""


def run_reporting(code, url, **extra):
    """Run *code* after `REPORTING`; return the finished process and its report."""
    process = run_python(REPORTING + code, url, **extra)
    assert process.stdout, process.stderr
    return process, json.loads(process.stdout.splitlines()[-1])


def in_time(deadline, run):
    """
    Return what *run* returns: seconds that an exit took, and more; assert that it kept *deadline*.

    A busy machine may add to it, so it has three tries; what waits for what
    does not come does so each time.
    """
    for _ in range(3):
        took, *rest = run()
        if took <= deadline + GRACE:
            return rest
    raise AssertionError(f"the exit took {took} seconds, and the deadline was {deadline}")


def run_in_time(deadline, code, url, **extra):
    """Do as `run_reporting`, and assert that the exit took no longer than it may."""

    def run():
        process, report = run_reporting(code, url, **extra)
        return report["took"], process, report

    return in_time(deadline, run)


def run_file(path, *arguments, url, **extra):
    """Run the program at *path* with *arguments*; return the finished process."""
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        # Forking a process with threads is what these programs are about.
        env=environment(url, PYTHONWARNINGS="ignore::DeprecationWarning", **extra),
        capture_output=True,
        text=True,
        timeout=60,
    )


def conserved(report):
    """Return whether every accepted event of *report* has one outcome, or is pending."""
    came = report["accepted"] + report["recovered"]
    outcomes = report["delivered"] + report["spooled"] + sum(report["refused"].values())
    return came == outcomes + sum(report["dropped"].values()) + report["pending"]


def left_over(report):
    """Return how many events the exit had no time for: lost, or in the spool."""
    return report["pending"] if SPOOLED else report["dropped"].get("shutdown", 0)


def in_fork(work):
    """
    Run *work* in a fork of this process; return what it returned, as JSON has it.

    A child that hangs shows where, and ends; the test fails.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            # Not dump_traceback_later: it hangs in a fork of a fork, waiting for
            # its own thread, which did not come along.
            faulthandler.register(signal.SIGALRM, file=sys.__stderr__, chain=True)
            signal.alarm(int(PATIENCE))
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {os.waitstatus_to_exitcode(status)}"
    return json.loads(text)


class Program:
    """A Python program that runs beside the test, and is killed at the end of it."""

    def __init__(self, code, url, *, arguments=None, cwd=None, **extra):
        self.process = subprocess.Popen(
            [sys.executable, *(arguments if arguments is not None else ["-c", code])],
            env=environment(url, **extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
        )

    def wait_for(self, text, timeout=PATIENCE):
        """Read standard output up to a line with *text* in it, and return what was read."""
        deadline = time.monotonic() + timeout
        seen = b""
        descriptor = self.process.stdout.fileno()
        while text.encode() not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {seen!r}"
            if select.select([descriptor], [], [], left)[0]:
                more = os.read(descriptor, 65536)
                assert more, f"it ended: {seen!r} {self.process.stderr.read()!r}"
                seen += more
        return seen.decode()

    def send_signal(self, number):
        self.process.send_signal(number)

    def finish(self, timeout=PATIENCE):
        """Wait for the end; return status, standard output and error."""
        out, error = self.process.communicate(timeout=timeout)
        return self.process.returncode, out.decode(), error.decode()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
