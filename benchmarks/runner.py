"""Runs each measurement in a fresh process, with a time limit, in interleaved rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import growth, subjects
from benchmarks.imports import import_time
from benchmarks.subjects import CALLS, DELIVERY, SLOW_SERVER, Subject
from userlens_instrument import __version__


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.sink import Sink


# Settings of ours or of a peer that the shell happens to have, and proxies: a
# sink on the loopback interface is reached without one. And what keeps Python
# from storing bytecode: installers store that of peers, so a checkout's must be, too.
_NOT_FOR_CHILDREN = (
    "USERLENS_",
    "OTEL_",
    "SENTRY_",
    "LOGFIRE_",
    "POSTHOG_",
    "AMPLITUDE_",
    "PYTHONDONTWRITEBYTECODE",
)
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})

# How long the slow server takes to answer, in seconds.
LATENCY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    How much is measured.

    Attributes:
        rounds: How often every subject has its turn.
        quick: Whether to measure less of everything.
        limit: Longest that one measurement may take, in seconds.
    """

    rounds: int
    quick: bool
    limit: float

    def count(self, number: int) -> int:
        """Return how many calls or events stand for *number* of a full run."""
        return max(100, number // 4) if self.quick else number


@dataclass(slots=True, kw_only=True)
class Results:
    """
    What was measured, raw: each list has one result per round.

    Attributes:
        calls: By name of the subject.
        delivery: By name of the subject.
        slow_server: By name of the subject.
        memory: One for each arrangement.
        imports: By title; milliseconds of each repetition.
        growth: One for each arrangement and round.
        versions: Of what was measured, by distribution.
        missing: Titles of what is not installed.
    """

    calls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    delivery: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    slow_server: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    memory: list[dict[str, Any]] = field(default_factory=list)
    imports: dict[str, list[float | None]] = field(default_factory=dict)
    growth: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def least(rounds: list[dict[str, Any]], key: str) -> float | None:
    """
    Return the smallest *key* of the *rounds* that have it.

    What else the machine does only ever adds to a time; so the least disturbed
    round is nearest to what the thing itself takes.
    """
    values = [found[key] for found in rounds if found.get(key) is not None]
    return min(values) if values else None


def middle(rounds: list[dict[str, Any]], key: str) -> float | None:
    """Return the median of *key* over the *rounds* that have it."""
    values = [found[key] for found in rounds if found.get(key) is not None]
    return median(values) if values else None


def installed(subject: Subject) -> str | None:
    """Return the version of what *subject* needs, or None if it is not installed."""
    if subject.ours:  # a checkout will do
        return __version__
    try:
        return metadata.version(subject.distribution)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, str]:
    """Return the environment of a measurement: ours, less what would change it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_FOR_CHILDREN) and name.lower() not in _PROXIES
    }


class Runner:
    """
    Runs measurements, and says on standard error which one.

    Args:
        sink: To whom the subjects deliver.
        plan: How much.
    """

    def __init__(self, sink: Sink, plan: Plan) -> None:
        """Start nothing yet."""
        self._sink = sink
        self._plan = plan
        self._env = environment()
        self._root = Path(__file__).resolve().parent.parent
        self._shows = sys.stderr.isatty()

    def run(self, chosen: list[Subject]) -> Results:
        """Measure everything about the *chosen* subjects."""
        results = Results()
        present = []
        for subject in chosen:
            version = installed(subject)
            if version is None:
                results.missing.append(subject.title)
            else:
                results.versions[subject.distribution] = version
                present.append(subject)
        self._rounds(present, results)
        if any(subject.ours for subject in present):
            self._memory(results)
            self._growth(results)
        self._imports(present, results)
        self._note("")
        return results

    def _rounds(self, present: list[Subject], results: Results) -> None:
        sections: list[tuple[str, dict[str, list[dict[str, Any]]]]] = [
            (CALLS, results.calls),
            (DELIVERY, results.delivery),
            (SLOW_SERVER, results.slow_server),
        ]
        if not self._plan.quick:
            # They are what most depends on a moment without other work.
            sections.append((CALLS, results.calls))
        for turn in range(1, self._plan.rounds + 1):
            for section, found in sections:
                for subject in present:
                    if section in subject.measures:
                        self._note(f"round {turn}, {section}: {subject.name}")
                        result = self._job(_job_of(subject, section, self._plan))
                        found.setdefault(subject.name, []).append(result)

    def _memory(self, results: Results) -> None:
        count = self._plan.count(10_000)
        for entrance, users in (("structlog", 100), ("structlog", count), ("stdlib", 100)):
            self._note(f"memory: {entrance}, {users} users")
            job = {"kind": "memory", "entrance": entrance, "users": users, "count": count}
            found = {"entrance": entrance, "users": users, **self._job(job)}
            results.memory.append(found)

    def _growth(self, results: Results) -> None:
        deliveries = ("event", "batch") if subjects.has_batch() else ("event",)
        for _ in range(self._plan.rounds):
            for delivery in deliveries:
                for held, users in growth.plan(quick=self._plan.quick):
                    self._note(f"growth: {delivery}, {held} events, {users} users")
                    job = {"kind": "growth", "held": held, "users": users, "delivery": delivery}
                    results.growth.append({**job, **self._job(job)})

    def _imports(self, present: Iterable[Subject], results: Results) -> None:
        repeat = 2 if self._plan.quick else 7
        scripts = _import_scripts(present, self._sink.url)
        measured: dict[str, list[float | None]] = {title: [] for title, _, _ in scripts}
        # The first time compiles, and reads from the disk.
        for turn in range(repeat + 1):
            for title, before, timed in scripts:
                self._note(f"import {turn}: {title}")
                found = import_time(
                    before, timed, root=str(self._root), env=self._env, limit=self._plan.limit
                )
                if turn:
                    measured[title].append(found)
        results.imports.update(measured)

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the result of *job*, or one line on why there is none."""
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
            out = Path(scratch, "result.json")
            said = Path(scratch, "output.txt")
            full = {
                **job,
                "port": self._sink.port,
                "scratch": scratch,
                "out": str(out),
                "limit": self._plan.limit,
            }
            started = time.monotonic()
            with said.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own module
                    [sys.executable, "-m", "benchmarks.worker", json.dumps(full)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._root,
                    env=self._env,
                )
                try:
                    process.wait(self._plan.limit)
                except subprocess.TimeoutExpired:
                    return {"error": f"no result within {self._plan.limit:g} s"}
                finally:
                    # An interrupt, too, leaves no process behind.
                    with suppress(ProcessLookupError):
                        process.kill()
                    process.wait()
            if not out.exists():
                last = said.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
                return {"error": f"ended with {process.returncode}: {last}"[:200]}
            result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            result["took_s"] = time.monotonic() - started
            return result

    def _note(self, text: str) -> None:
        """Show what is being done, where a line can be written over."""
        if self._shows:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()


def _job_of(subject: Subject, section: str, plan: Plan) -> dict[str, Any]:
    if section == CALLS:
        return {"kind": "calls", "name": subject.name, "count": plan.count(subject.calls)}
    return {
        "kind": "delivery",
        "name": subject.name,
        "count": plan.count(subject.events),
        "latency": LATENCY if section == SLOW_SERVER else 0.0,
    }


def _import_scripts(present: Iterable[Subject], url: str) -> list[tuple[str, str, str]]:
    """Return what to time: a title, what comes before and is not timed, and what is."""
    found = []
    structlog = "import structlog; structlog.get_logger().bind()"
    ours = "import userlens_instrument as u"
    configure = f"u.configure(write_code='benchmark', events_url='{url}', raw_url='{url}')"
    if any(subject.ours for subject in present):
        event = "{'event': 'A', 'user_id': 'u', 'userlens_event': True}"
        found = [
            ("ours: import", "", "import userlens_instrument"),
            ("ours: first processor", structlog, f"{ours}; u.UserlensProcessor()"),
            ("ours: first handler", "import logging", f"{ours}; u.UserlensHandler()"),
            (
                "ours: first event",
                structlog,
                f"{ours}; {configure}; u.UserlensProcessor()(None, 'info', {event})",
            ),
        ]
    for subject in present:
        if subject.import_script:
            name = subject.title.partition(":")[0]
            found += [
                (f"{name}: import", "", subject.import_script),
                (f"{name}: set up", "", subject.start_script.replace("{url}", url)),
            ]
    return found


def choose(only: str | None, every: Iterable[Subject]) -> Callable[[Subject], bool]:
    """
    Return which subjects *only* asks for: names, or ``ours``, ``peers``, ``baselines``.

    Raises:
        ValueError: If a name is that of nothing.
    """
    if only is None:
        return lambda _: True
    every = list(every)
    names = {name.strip() for name in only.split(",") if name.strip()}
    groups = {"ours", "peers", "baselines"}
    known = {subject.name for subject in every} | groups
    unknown = sorted(names - known)
    if unknown or not names:
        what = f"{', '.join(unknown)}: unknown" if unknown else "no name is given"
        raise ValueError(f"--only: {what}; the names are {', '.join(sorted(known))}")
    return lambda subject: subject.name in names or _group(subject) in names


def _group(subject: Subject) -> str:
    if subject.ours:
        return "ours"
    return "baselines" if subject in subjects.BASELINES else "peers"
