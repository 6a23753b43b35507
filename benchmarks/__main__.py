"""
``python -m benchmarks``: what we and our peers cost a program.

Exit status: 0 if the measuring itself worked, whatever the figures; 2, with one
line, for arguments that make no sense.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks import plot, report
from benchmarks.peers import PEERS
from benchmarks.runner import Plan, Runner, choose
from benchmarks.sink import SinkProcess
from benchmarks.subjects import BASELINES, NEED_BATCH, OURS, has_batch


if TYPE_CHECKING:
    from collections.abc import Sequence


_EVERY = (*OURS, *BASELINES, *PEERS)

_MOST_ROUNDS = 100


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _arguments(argv: Sequence[str] | None) -> tuple[_Parser, argparse.Namespace]:
    parser = _Parser(
        prog="python -m benchmarks",
        description="Measure what this package and its peers cost the program that hosts them. "
        "Peers that are not installed are left out; nothing is installed, and nothing leaves "
        "the loopback interface.",
        epilog="names: " + ", ".join(subject.name for subject in _EVERY),
        allow_abbrev=False,
    )
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured, raw")
    parser.add_argument("--plot", metavar="FILE.png", help="draw what a call costs (matplotlib)")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each has its turn (3)")
    parser.add_argument(
        "--only", metavar="NAME,…", help="measure these alone; or ours, peers, baselines"
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of everything, in less than a minute"
    )
    return parser, parser.parse_args(argv)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for, and return the exit status."""
    parser, asked = _arguments(argv)
    rounds = asked.rounds if asked.rounds is not None else 1 if asked.quick else 3
    if not 1 <= rounds <= _MOST_ROUNDS:
        parser.error(f"--rounds: give 1 to {_MOST_ROUNDS}")
    try:
        wanted = choose(asked.only, _EVERY)
    except ValueError as error:
        parser.error(str(error))
    for name, path in (("--json", asked.json), ("--plot", asked.plot)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            parser.error(f"{name}: there is no directory to write {path} to")
    if asked.plot is not None and not asked.plot.endswith(".png"):
        parser.error("--plot: give a name that ends with .png")
    plots = asked.plot is not None
    if plots and not plot.available():
        sys.stderr.write("no picture will be drawn: install matplotlib for --plot\n")
        plots = False
    chosen = [
        subject
        for subject in _EVERY
        if wanted(subject) and (subject.name not in NEED_BATCH or has_batch())
    ]
    plan = Plan(rounds=rounds, quick=asked.quick, limit=20.0 if asked.quick else 60.0)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    load, started = _load(), time.monotonic()
    with SinkProcess() as process:
        results = Runner(process.sink, plan).run(chosen)
    typed = sys.argv[1:] if argv is None else argv
    run = report.Run(
        date=date,
        command=" ".join(["python -m benchmarks", *typed]),
        python=report.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(),
        load=(load, _load()),
        seconds=time.monotonic() - started,
    )
    report.write(run, plan, results, chosen)
    if asked.json is not None:
        text = json.dumps(report.as_json(run, plan, results), indent=1, ensure_ascii=False)
        Path(asked.json).write_text(text + "\n", encoding="utf-8")
    if plots:
        plot.draw(asked.plot, run, results, chosen)
    return 0


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone has it
        return os.cpu_count() or 1


if __name__ == "__main__":
    # As Ctrl-C: what has been started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
