"""How tests start programs under ``userlens-instrument run``, and the same ones without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers import PATIENCE, environment

import userlens_instrument


RULES = """
[[rule]]
logger = "billing"
message = "Invoice %s paid by %s"
args = ["invoice", "user_id"]
event = "Invoice Paid"

[[rule]]
logger = "worker.*"
regex = 'Export of (?P<format>\\w+) finished for (?P<user_id>\\w+)'
event = "Export Finished"
"""

HOME = Path(userlens_instrument.__file__).parents[1]

RUN = [sys.executable, "-m", "userlens_instrument", "run"]


def write_rules(folder):
    """Write `RULES` to a file in *folder*; return its path as text."""
    path = folder / "userlens.toml"
    path.write_text(RULES, "utf-8")
    return str(path)


def command_line(*command, options=()):
    """Return the words that run *command* under the wrapper."""
    return [*RUN, *map(str, options), "--", *map(str, command)]


def run(command, url="http://127.0.0.1:9", *, options=(), plain=False, cwd=HOME, **extra):
    """
    Run *command* under the wrapper; return the finished process.

    Args:
        command: Its words.
        url: Where it delivers to.
        options: Of the wrapper.
        plain: Whether it is run without the wrapper.
        cwd: Its working directory; the one with the very package that is tested, for
            Python 3.10 puts it first, be that a checkout or what is installed.
        **extra: Variables of its environment; None takes one away.
    """
    environ = environment(url, **extra)
    return subprocess.run(
        list(map(str, command)) if plain else command_line(*command, options=options),
        env={name: text for name, text in environ.items() if text is not None},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )


def run_code(code, url="http://127.0.0.1:9", **options):
    """Run Python *code* under the wrapper, see `run`."""
    return run([sys.executable, "-c", code], url, **options)


def what_is_seen(done):
    """Return what a person sees of a process that has ended."""
    return done.stdout, done.stderr, done.returncode


def put_on_path(*folders):
    """Return a PYTHONPATH of *folders*, and of what is on it."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, folders), *([before] if before else [])])
