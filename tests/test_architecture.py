"""The shape of the package: who imports whom, and what importing does not do."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import userlens_instrument


PACKAGE = Path(importlib.util.find_spec("userlens_instrument").origin).parent

# From the bottom to the top; what stands on a line may import from the lines
# above it, and from those on its own line that stand before the bar.
LAYERS = [
    ["exceptions", "_version"],
    ["events"],
    ["settings"],
    [
        "_core.shadow",
        "_core.backoff",
        "_core.redact",
        "_core.times",
        "_core.jsonable",
        "_core.template",
        "_core.patterns",
        "_core.rules",
        "_core.rulefile",
        "_core.extract",
        "_core.encode",
        "_core.stored",
        "_core.shape",
        "_core.once",
        "_core.loguru_line",
        "_core.outcome",
        "_core.schedule",
        "_core.batches",
    ],
    ["typing"],
    [
        "_delivery.clock",
        "_delivery.threads",
        "_delivery.bell",
        "_delivery.errands",
        "_delivery.stats",
        "_delivery.diagnostics",
        "_delivery.buffer",
        "_delivery.rulebook",
        "_delivery.lines",
        "_delivery.connections",
        "_delivery.transport",
        "_delivery.spool",
        "_delivery.inlet",
        "_delivery.outlet",
        "_delivery.sender",
        "_delivery.lifecycle",
    ],
    ["client"],
    ["testing"],
    ["processors", "handlers"],
    [
        "_auto.gate",
        "_auto.imports",
        "_auto.records",
        "_auto.lines",
        "_auto.entrances",
        "auto",
        "_bootstrap.sitecustomize",
    ],
    ["integrations"],
    ["diagnosis"],
    ["inspector"],
    ["cli", "__main__"],
]
ORDER = [name for layer in LAYERS for name in layer]

# Each outside thing has one door.
DOORS = {
    "urllib3": {"_delivery.connections"},
    "orjson": {"_core.jsonable"},
    "socket": {"_delivery.connections", "inspector", "cli"},
    "time": {
        "_delivery.clock",
        "_delivery.connections",
        "_delivery.lifecycle",
        "_delivery.spool",
        "client",
        "inspector",
        "cli",
    },
    "random": set(),
    "threading": {"_delivery", "client", "testing", "inspector", "cli"},
    "jsonschema": {"inspector"},
    "starlette": {"inspector", "cli"},
    "uvicorn": {"inspector", "cli"},
    "structlog": {"cli"},
    "sqlite3": {"_delivery.spool"},
    "regex": {"_core.rulefile"},
    "tqdm": {"cli"},
    "loguru": set(),
    "opentelemetry": {"integrations.opentelemetry"},
    "prometheus_client": {"integrations.prometheus"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path):
    """Yield each module that is imported while the program runs; what only types need is not."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name):
    """Return the entry of ORDER that *name* belongs to."""
    return next((entry for entry in ORDER if name == entry or name.startswith(f"{entry}.")), None)


MODULES = [
    (name, path)
    for name, path in modules()
    if name not in ("__init__", "_auto", "_core", "_delivery")
]


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_down(name, path):
    """A module imports what stands below it in the picture, never what stands above."""
    mine = layer_of(name)
    assert mine is not None, "a new module has a place in the picture"
    for module in imports(path):
        if module.startswith("userlens_instrument."):
            other = layer_of(module.removeprefix("userlens_instrument."))
            if other is not None and other != mine:
                assert ORDER.index(other) < ORDER.index(mine), f"{name} imports {module}"


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_each_outside_thing_has_one_door(name, path):
    """A library is imported where the picture says so, and nowhere else."""
    for module in imports(path):
        doors = DOORS.get(module.partition(".")[0])
        if doors is not None:
            assert any(name == door or name.startswith(f"{door}.") for door in doors), module


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_the_core_thinks_and_does_not_act(name, path):
    """_core has no thread, clock, socket, file or random draw."""
    if name.startswith("_core."):
        banned = {
            "threading",
            "time",
            "socket",
            "random",
            "os",
            "io",
            "logging",
            "queue",
            "asyncio",
        }
        assert set() == banned & {module.partition(".")[0] for module in imports(path)}


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )


def test_importing_starts_nothing_and_changes_nothing():
    """No thread, no urllib3 or structlog, no handler, level, logger, environment or signal."""
    code = """
import logging, os, signal, sys, threading
modules = set(sys.modules)  # a coverage measurement has imported some of its own
before = (dict(os.environ), [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)],
          logging.root.handlers[:], logging.root.level, dict(logging.root.manager.loggerDict))
import userlens_instrument
dir(userlens_instrument)
after = (dict(os.environ), [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)],
         logging.root.handlers[:], logging.root.level, dict(logging.root.manager.loggerDict))
assert before == after
assert threading.active_count() == 1
heavy = {"urllib3", "structlog", "orjson", "ssl", "socket", "http"} & (set(sys.modules) - modules)
assert not heavy, heavy
"""
    done = python(code)

    assert ("", 0) == (done.stderr, done.returncode)


@pytest.mark.parametrize("entrance", ["UserlensProcessor", "UserlensHandler"])
def test_making_an_entrance_starts_no_thread_and_imports_no_urllib3(entrance):
    """Both wait for the first event."""
    done = python(f"""
import sys, threading, userlens_instrument
userlens_instrument.{entrance}()
assert threading.active_count() == 1
assert "urllib3" not in sys.modules
""")

    assert ("", 0) == (done.stderr, done.returncode)


def test_the_public_names_are_sorted_and_all_there():
    """__all__ is what the package offers, and each name loads."""
    names = userlens_instrument.__all__

    assert sorted(names) == names == sorted([*userlens_instrument._HOMES, "__version__"])
    for name in names:
        assert getattr(userlens_instrument, name) is not None
    assert set(names) <= set(dir(userlens_instrument))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        userlens_instrument.nonsense  # noqa: B018 - the access is the test


def test_every_test_says_what_it_requires():
    """The docstrings of the tests, listed together, are the manual."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
