"""
The process in which one subject is measured once: ``python -m benchmarks.worker JOB``.

*JOB* is a JSON object; the result goes to the file that it names, as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import growth, measure, peers, subjects
from benchmarks.sink import Sink


def find(name: str) -> subjects.Subject:
    """Return the subject called *name*."""
    every = (*subjects.OURS, *subjects.BASELINES, *peers.PEERS)
    return next(subject for subject in every if subject.name == name)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return the result of *job*."""
    kind = job["kind"]
    if kind == "growth":
        return growth.measure(job["held"], job["users"], job["delivery"])
    if kind == "memory":
        return measure.memory(job["entrance"], job["users"], job["count"])
    subject, sink = find(job["name"]), Sink(job["port"])
    sink.reset()
    if kind == "calls":
        return measure.calls(subject, sink, job["count"])
    return measure.delivery(subject, sink, job["count"], job["latency"])


def main() -> None:
    """Do the job, and end at once: how a peer behaves at exit is not measured here."""
    job = json.loads(sys.argv[1])
    # Should whoever started this be gone by then.
    faulthandler.dump_traceback_later(job["limit"] + 5.0, exit=True)
    # Some peers look for settings, or leave files, in the current directory.
    os.chdir(job["scratch"])
    try:
        result = run(job)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"[:200]}
    Path(job["out"]).write_text(json.dumps(result), encoding="utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
