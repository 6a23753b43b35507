"""How a program under the wrapper starts: as it would without, and so does what it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from wrapping import put_on_path, run, run_code, what_is_seen, write_rules

from userlens_instrument.cli.run import FOLDER


# What a program can see of the way it was started.
LOOK = """
import sys
try:
    import sitecustomize
except ImportError as error:
    print(repr(error), error.name)
else:
    spec = sitecustomize.__spec__
    print(sitecustomize.__file__, spec.name, spec.origin, spec.cached, type(spec.loader))
    print(type(sitecustomize.__loader__), sorted(vars(sitecustomize)))
print(sys.modules.get("sitecustomize"), getattr(sys, "marks", None), sys.path)
"""


@pytest.mark.parametrize(
    "text",
    [
        None,
        "import sys\nsys.marks = [__name__, __file__]",
        "import sys\nsys.marks = sorted(sys.modules)",
        "raise ValueError('mine')",
        "import nonsense",
        "this is no Python",
        "import sys\nsys.path.append('/somewhere')",
        "import sys\ndel sys.modules[__name__]",
    ],
)
def test_a_sitecustomize_of_ones_own_runs_as_ever(tmp_path, text):
    """It is run, imported, or fails, as it would without us; `sys.path` is the same, too."""
    if text is not None:
        (tmp_path / "sitecustomize.py").write_text(text, "utf-8")
    # Not by the command, which is a Python of the same environment: it runs it, too.
    plain, wrapped = (
        what_is_seen(run([sys.executable, "-c", LOOK], plain=True, PYTHONPATH=path))
        for path in (put_on_path(tmp_path), put_on_path(FOLDER, tmp_path))
    )

    assert plain == wrapped


def test_it_runs_before_us(tmp_path, server):
    """So what it sets up is there when we look: an environment, logging, a path."""
    text = "import os\nos.environ['USERLENS_EVENTS_URL'] = os.environ['GOOD_URL']\n"
    (tmp_path / "sitecustomize.py").write_text(text, "utf-8")
    code = (
        "import logging\nlogging.warning('Seen', extra={'userlens_event': True, 'user_id': 'u'})\n"
    )
    run_code(code, PYTHONPATH=put_on_path(tmp_path), GOOD_URL=server.url)

    assert ["Seen"] == [event["event"] for event in server.events]


def test_one_that_fails_does_not_keep_us_out(tmp_path, server):
    """Python goes on after an error in sitecustomize, and so do we."""
    (tmp_path / "sitecustomize.py").write_text("raise ValueError", "utf-8")
    code = (
        "import logging\nlogging.warning('Seen', extra={'userlens_event': True, 'user_id': 'u'})\n"
    )
    run_code(code, server.url, PYTHONPATH=put_on_path(tmp_path))

    assert ["Seen"] == [event["event"] for event in server.events]


def modules_of(done):
    assert ("", 0) == (done.stderr, done.returncode)
    return json.loads(done.stdout)


# Imports nothing itself before it has looked.
STATE = """
import sys
modules = list(sys.modules)
import json
print(json.dumps(modules))
"""


def test_a_program_that_never_logs_pays_next_to_nothing():
    """No logging, no structlog, no urllib3, nothing of ours but the hooks; and no thread."""
    code = "import threading\nassert threading.active_count() == 1\n"
    words = [sys.executable, "-c", STATE + code]
    plain, wrapped = (
        set(modules_of(run(words, plain=plain, COVERAGE_PROCESS_CONFIG=None)))
        for plain in (True, False)
    )

    assert {
        "userlens_instrument",
        "userlens_instrument._version",
        "userlens_instrument.auto",
        "userlens_instrument._auto",
        "userlens_instrument._auto.gate",
        "userlens_instrument._auto.imports",
        "userlens_instrument._auto.lines",
        "userlens_instrument._auto.records",
        "__future__",
        "atexit",
    } >= wrapped - plain


def test_a_program_that_logs_what_is_no_event_loads_nothing():
    """Without rules, a line without a tag cannot matter, be it of logging or structlog."""
    code = (
        "import logging, structlog, sys, threading\n"
        "logging.error('plain %s', 1)\n"
        "structlog.get_logger().error('plain')\n"
        "heavy = {'urllib3', 'userlens_instrument.client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert threading.active_count() == 1\n"
    )

    assert 0 == run_code(code).returncode


def test_a_program_that_logs_what_is_no_event_starts_no_thread(tmp_path):
    """With rules, neither, if none of them means it."""
    code = (
        "import logging, sys, threading\n"
        "logging.error('plain %s', 1)\n"
        "assert 'userlens_instrument.handlers' in sys.modules\n"
        "assert 'urllib3' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
    )

    assert 0 == run_code(code, options=["--rules", write_rules(tmp_path)]).returncode


@pytest.mark.parametrize("option", ["-E", "-I", "-S"])
def test_where_python_does_not_see_us_nothing_is_captured(server, option):
    """And nothing is broken."""
    code = "import logging; logging.warning('x', extra={'userlens_event': 'E', 'user_id': 'u'})"
    done = run([sys.executable, option, "-c", code], server.url)

    assert 0 == done.returncode
    assert [] == server.events


# ---------------------------------------------------------------- processes that it starts

CHILD = """
import logging, multiprocessing, subprocess, sys

def say(who):
    logging.getLogger("billing").warning("Invoice %s paid by %s", who, "u1")

if __name__ == "__main__":
    {start}
    say("parent")
"""
STARTS = {
    "subprocess": (
        "subprocess.run([sys.executable, '-c', 'import logging;"
        'logging.getLogger("billing").warning("Invoice %s paid by %s", "child", "u1")\'])'
    ),
    "changed environment": (
        "import os; subprocess.run([sys.executable, '-c', 'import logging;"
        'logging.getLogger("billing").warning("Invoice %s paid by %s", "child", "u1")\'],'
        " env=dict(os.environ, A='1'), cwd='/')"
    ),
    "shell": (
        "subprocess.run(f'{sys.executable} -c \"import logging;"
        "logging.getLogger(\\'billing\\').warning(\\'Invoice %s paid by %s\\',"
        " \\'child\\', \\'u1\\')\"', shell=True)"
    ),
} | {
    method: (
        f"context = multiprocessing.get_context('{method}');"
        "child = context.Process(target=say, args=('child',)); child.start(); child.join()"
    )
    for method in ("fork", "spawn", "forkserver")
}


@pytest.mark.parametrize("way", STARTS)
def test_processes_that_it_starts_are_covered(server, tmp_path, way):
    """However they are started, as long as they get the environment; each event once."""
    program = tmp_path / "program.py"
    program.write_text(CHILD.format(start=STARTS[way]), "utf-8")
    options = ["--rules", write_rules(tmp_path)]
    done = run([sys.executable, program], server.url, options=options)

    assert ("", 0) == (done.stdout, done.returncode)
    assert ["child", "parent"] == sorted(event["properties"]["invoice"] for event in server.events)


def test_a_forked_child_of_a_process_that_has_logged_is_covered(server, tmp_path):
    """What the parent has loaded, and what it holds, is not the child's to send."""
    code = """
import logging, os
log = logging.getLogger("billing")
log.warning("Invoice %s paid by %s", "before", "u1")
if not os.fork():
    log.warning("Invoice %s paid by %s", "child", "u1")
    import userlens_instrument
    userlens_instrument.flush()
    os._exit(0)
os.wait()
log.warning("Invoice %s paid by %s", "after", "u1")
"""
    run_code(code, server.url, options=["--rules", write_rules(tmp_path)], PYTHONWARNINGS="ignore")

    assert ["after", "before", "child"] == sorted(
        event["properties"]["invoice"] for event in server.events
    )


LAUNCHER = """
import os, sys
sys.other = True
# As OpenTelemetry's does: out of the way while it starts, and then first again.
here = os.path.dirname(__file__)
path = os.environ["PYTHONPATH"].split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([here] + [each for each in path if each != here])
"""


def test_another_launcher_on_the_path_runs_too(server, tmp_path):
    """As ``opentelemetry-instrument userlens-instrument run -- …``: both, in children, too."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text(LAUNCHER, "utf-8")
    code = (
        "import logging, subprocess, sys; assert sys.other\n"
        "logging.warning('Seen', extra={'userlens_event': True, 'user_id': sys.argv[1]})\n"
    )
    start = "subprocess.run([sys.executable, '-c', sys.argv[2], 'child'], check=True)\n"
    words = [sys.executable, "-c", code + start, "parent", code]
    done = run(words, server.url, PYTHONPATH=put_on_path(other))

    assert 0 == done.returncode
    assert ["child", "parent"] == sorted(event["userId"] for event in server.events)


def test_without_the_wrapper_the_folder_alone_does_it(server):
    """PYTHONPATH is the whole of it: a container may set it once for all programs."""
    code = "import logging; logging.warning('S', extra={'userlens_event': True, 'user_id': 'u'})"
    path = put_on_path(FOLDER)
    done = run([sys.executable, "-c", code], server.url, plain=True, PYTHONPATH=path)

    assert ("", "WARNING:root:S\n", 0) == what_is_seen(done)
    assert ["S"] == [event["event"] for event in server.events]


@pytest.mark.parametrize("broken", ["raise RuntimeError", "raise ImportError('no')"])
def test_an_installation_that_is_broken_harms_nobody(tmp_path, broken):
    """Whatever goes wrong with us, the program starts, and children say nothing of it."""
    package = tmp_path / "userlens_instrument"
    package.mkdir()
    (package / "__init__.py").write_text(broken, "utf-8")
    path = put_on_path(FOLDER, tmp_path)
    words = [sys.executable, "-c", "print('ran')"]
    environ = {**os.environ, "PYTHONPATH": path, "COVERAGE_PROCESS_CONFIG": ""}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)

    assert ("ran\n", "", 0) == what_is_seen(done)
