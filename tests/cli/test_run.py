"""``userlens-instrument run`` as a command: it checks, and becomes the program."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import venv

import pytest
from helpers import WRITE_CODE
from hypothesis import assume, given
from hypothesis import strategies as st
from wrapping import RUN, command_line, run, run_code, what_is_seen, write_rules

from userlens_instrument.cli import _make_parser, main
from userlens_instrument.cli import run as command


# Prints what the program was started with.
SHOW = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"


def executable(path, text):
    """Write a script that can be run; return its path."""
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path


# ---------------------------------------------------------------- the command line, and its cost


def program_of(words):
    """Return the program's own words: some versions of argparse keep the ``--``."""
    return words[1:] if words[:1] == ["--"] else words


OPTIONS = ["--rules", "--spool", "--dry-run", "--debug"]
OTHER_WORDS = ["--", "-", "-x", "-1", "--rules=a", "--help", "--no", "a", "b c", "run", "", " "]


@given(st.lists(st.sampled_from([*OPTIONS, *OTHER_WORDS]), max_size=7))
def test_every_plain_command_line_is_read_as_the_parser_reads_it(words):
    """Without argparse, which is slow to load, the same comes out; or argparse is asked."""
    plain = command.plain_arguments(words)

    assume(plain is not None)
    parsed = _make_parser("run").parse_args(["run", *words])
    expected = {name: getattr(parsed, name) for name in ("rules", "spool", "dry_run", "debug")}
    assert {**expected, "program": program_of(parsed.program)} == vars(plain)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--rules"], ["--rules", " "], ["--rules=a"], ["--", "--", "a"], ["-x", "a"]],
)
def test_a_parser_reads_what_is_not_usual(words):
    """Its help, its errors, and its corners are its own."""
    assert command.plain_arguments(words) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--dry-run", "--", "true"],
        ["--dry-run", "true", "--help"],
        ["--rules", "FILE", "--spool", "other", "--debug", "--", "true"],
    ],
)
def test_the_usual_command_lines_are_plain(words):
    """Who starts a program in the ways that the help shows does not wait for argparse."""
    assert command.plain_arguments(words) is not None


def test_the_wrapper_loads_no_more_than_it_needs(tmp_path):
    """
    Every start of a program waits for what the wrapper loads: the engine of its rules' regexes,
    but nothing that delivers or logs, and nothing for unusual settings.
    """
    code = f"""
import os, sys
before = set(sys.modules)  # a coverage measurement has imported some of its own
os.execvpe = lambda *_: print(*sorted(set(sys.modules) - before))
from userlens_instrument.cli import main
main(["run", "--rules", {write_rules(tmp_path)!r}, "--", "true"])
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("USERLENS_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60
    )
    loaded = set(done.stdout.split())

    assert "" == done.stderr
    assert {"regex", "userlens_instrument._core.rulefile"} <= loaded
    assert set() == loaded & {
        "argparse",
        "difflib",
        "gettext",
        "ipaddress",
        "json",
        "logging",
        "orjson",
        "pathlib",
        "random",
        "shutil",
        "socket",
        "structlog",
        "subprocess",
        "urllib.parse",
        "urllib3",
        "userlens_instrument._delivery",
        "userlens_instrument.client",
        "uuid",
    }


def test_the_collector_is_left_as_it_was(monkeypatch):
    """The wrapper looks for no garbage while it checks; who calls `main()` is left as is."""
    monkeypatch.setenv("USERLENS_DELIVERY", "pigeon")

    assert 2 == main(["run", "--", "true"])
    assert gc.isenabled()
    gc.disable()
    try:
        assert 2 == main(["run", "--", "true"])
        assert not gc.isenabled()
    finally:
        gc.enable()


# ---------------------------------------------------------------- the program takes the place


def test_the_program_takes_the_place_of_the_wrapper():
    """No process stays between: the program has the wrapper's pid, and so its signals."""
    process = subprocess.Popen(
        command_line(sys.executable, "-c", SHOW), stdout=subprocess.PIPE, text=True
    )
    pid, _, _ = json.loads(process.communicate()[0])

    assert process.pid == pid


@pytest.mark.parametrize("status", [0, 3, 255])
def test_the_exit_status_is_the_programs(status):
    """Whatever the program ends with is what the caller gets."""
    assert ("", "", status) == what_is_seen(run_code(f"raise SystemExit({status})"))


def test_a_signal_ends_the_program_as_it_would_without():
    """A program that SIGTERM kills is reported as killed by SIGTERM."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()"

    assert ("", "", -signal.SIGTERM) == what_is_seen(run_code(code))


def test_streams_are_the_programs():
    """It reads the wrapper's standard input and writes its outputs, byte by byte."""
    code = (
        "import sys; data = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])"
    )
    data = bytes(range(256))
    done = subprocess.run(
        command_line(sys.executable, "-c", code), input=data, capture_output=True, timeout=60
    )

    assert (data, data[::-1], 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--rules", "x", "--dry-run", "--", "-h", "--version"],
        ["--"],
        ["", " ", "é", "a\nb", "*"],
        ["run", "--", "run"],
    ],
)
@pytest.mark.parametrize("dashes", [["--"], []])
def test_arguments_are_handed_on_as_they_are(dashes, arguments):
    """What stands behind the program is the program's, even where it looks like ours."""
    words = [*RUN, "--debug", *dashes, sys.executable, "-c", SHOW, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)

    assert ("", 0) == (done.stderr, done.returncode)
    assert arguments == json.loads(done.stdout)[1]


def test_a_program_that_is_not_python_runs_unharmed():
    """The wrapper is in the way of nobody."""
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"])

    assert ("out\n", "err\n", 7) == what_is_seen(done)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_signal_is_left_ignored():
    """What Python ignores for itself, such as SIGPIPE, is not ignored in the program."""
    words = ["grep", "SigIgn", "/proc/self/status"]
    # Those from 32 on are the C library's own.
    plain, wrapped = (
        int(run(words, plain=plain).stdout.split()[1], 16) & 0x7FFFFFFF for plain in (True, False)
    )

    assert plain == wrapped


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("given", [None, "C.UTF-8"])
def test_the_environment_is_the_programs(given):
    """Besides PYTHONPATH and a mark nothing in it is other than without; nor is LC_CTYPE set."""
    words = ["cat", "/proc/self/environ"]
    locale = {"LC_ALL": None, "LANG": None, "LC_CTYPE": given}
    plain, wrapped = (
        set(run(words, plain=plain, PYTHONPATH="/a:/b", **locale).stdout.split("\0"))
        # A coverage measurement has variables of its own.
        for plain in (True, False)
    )
    names = {entry.partition("=")[0] for entry in plain ^ wrapped}

    assert {"PYTHONPATH", "_USERLENS_INSTRUMENT_RUN"} == {
        name for name in names if not name.startswith("COVERAGE_")
    }


# ---------------------------------------------------------------- what it adds to the environment


def environ_of(done):
    assert ("", 0) == (done.stderr, done.returncode)
    return json.loads(done.stdout)[2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, []),
        ("", []),
        ("/a", ["/a"]),
        (f"/a{os.pathsep}/b", ["/a", "/b"]),
        (f"/a{os.pathsep}{command.FOLDER}", ["/a"]),
    ],
)
def test_our_folder_comes_first_on_the_path(before, after):
    """And only once; what was on PYTHONPATH stays on it, in its order."""
    environ = environ_of(run_code(SHOW, PYTHONPATH=before))

    assert [command.FOLDER, *after] == environ["PYTHONPATH"].split(os.pathsep)


def test_a_wrapper_in_a_wrapper_is_one(server, tmp_path):
    """Nested, it is there once, and an event is sent once."""
    code = (
        "import logging; logging.getLogger('billing').warning('Invoice %s paid by %s', 'i', 'u')\n"
        + SHOW
    )
    rules = write_rules(tmp_path)
    nested = [*RUN, "--rules", rules, "--", sys.executable, "-c", code]
    done = run(nested, server.url, options=["--rules", rules])
    environ = json.loads(done.stdout)[2]

    assert [command.FOLDER] == environ["PYTHONPATH"].split(os.pathsep)
    assert ["Invoice Paid"] == [event["event"] for event in server.events]


def test_options_become_variables(tmp_path):
    """A program, and every process that it starts, finds the options in its environment."""
    rules = write_rules(tmp_path)
    spool = str(tmp_path / "spool.db")
    options = ["--rules", rules, "--spool", spool, "--dry-run", "--debug"]
    environ = environ_of(run_code(SHOW, options=options))

    assert {
        "USERLENS_RULES": rules,
        "USERLENS_SPOOL": spool,
        "USERLENS_DRY_RUN": "true",
        "USERLENS_DEBUG": "true",
    }.items() <= environ.items()


def test_options_win_over_variables(tmp_path):
    """As an argument wins over the environment everywhere."""
    rules = write_rules(tmp_path)
    environ = environ_of(run_code(SHOW, options=["--rules", rules], USERLENS_RULES="/nowhere"))

    assert rules == environ["USERLENS_RULES"]


@pytest.mark.parametrize("by_option", [True, False])
def test_paths_become_absolute(tmp_path, by_option):
    """The program may change its directory before it logs: a relative path is meant from here."""
    write_rules(tmp_path)
    given = (
        {"options": ["--rules", "userlens.toml", "--spool", "spool.db"]}
        if by_option
        else {"USERLENS_RULES": "userlens.toml", "USERLENS_SPOOL": "spool.db"}
    )
    environ = environ_of(run_code(SHOW, cwd=tmp_path, **given))

    assert [str(tmp_path / "userlens.toml"), str(tmp_path / "spool.db")] == [
        environ["USERLENS_RULES"],
        environ["USERLENS_SPOOL"],
    ]


# ---------------------------------------------------------------- bad input


def fails(done, status):
    """Assert that nothing ran and one line says why; return the line."""
    assert ("", status) == (done.stdout, done.returncode)
    assert done.stderr.startswith("userlens-instrument run: ")
    assert 1 == done.stderr.count("\n")
    return done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "there is no program"),
        (["--"], "there is no program"),
        (["--rules"], "expected one argument"),
        (["--rules", "", "--", "true"], "give the path of a file"),
        (["--spool", " ", "--", "true"], "give the path of a file"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, told):
    """With exit code 2."""
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=60)

    assert told in fails(done, 2)


def test_an_unknown_option_is_one_line(capsys):
    """With exit code 2; it is not taken for the program."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--ruls", "x", "--", "true"])

    assert 2 == ended.value.code
    assert "--ruls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"USERLENS_MAX_WORKERS": "many"}, "max_workers (from USERLENS_MAX_WORKERS)"),
        ({"USERLENS_WRITE_CODE": f"{WRITE_CODE}:x"}, "write_code (from USERLENS_WRITE_CODE)"),
        ({"USERLENS_RULES": "/nowhere/rules.toml"}, "/nowhere/rules.toml"),
        ({"USERLENS_SPOOL": "/"}, "spool"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_runs(variables, told):
    """In one line, with exit code 2, and without the write code."""
    line = fails(run_code("print('ran')", **variables), 2)

    assert told in line
    assert WRITE_CODE not in line


@pytest.mark.parametrize("text", ["[[rule]]\nevent = 1\n", "[[rule]\n", ""])
def test_wrong_rules_are_told_before_anything_runs(tmp_path, text):
    """In one line with the file and the first problem, with exit code 2; an empty file is none."""
    path = tmp_path / "userlens.toml"
    path.write_text(text, "utf-8")
    done = run_code("print('ran')", options=["--rules", path])

    if text:
        assert str(path) in fails(done, 2)
    else:
        assert ("ran\n", "", 0) == what_is_seen(done)


def test_a_callback_of_the_programs_is_not_looked_for_here():
    """`on_error` names a function that only the program can import."""
    done = run_code("print('ran')", USERLENS_ON_ERROR="worker.hooks:lost")

    assert ("ran\n", "", 0) == what_is_seen(done)


@pytest.mark.parametrize("place", ["x", ":", "a.b:c:d", "a b:c", "worker."])
def test_a_callback_that_can_be_no_function_is_exit_code_2(place):
    """That much can be told without an import."""
    done = run_code("print('ran')", USERLENS_ON_ERROR=place)

    assert "USERLENS_ON_ERROR" in fails(done, 2)
    assert "package.module:function" in done.stderr


def test_rules_from_a_pipe_are_exit_code_2_and_leave_it_alone(tmp_path):
    """They may never come, and whoever reads them takes them from the program."""
    pipe = tmp_path / "rules.toml"
    os.mkfifo(pipe)

    assert "a pipe" in fails(run_code("print('ran')", options=["--rules", pipe]), 2)


def test_rules_that_are_no_text_are_exit_code_2(tmp_path):
    """And say what text is."""
    (tmp_path / "rules.toml").write_bytes("# Stra\u00dfe".encode("latin-1"))
    done = run_code("print('ran')", options=["--rules", tmp_path / "rules.toml"])

    assert "save it as UTF-8" in fails(done, 2)


def test_a_program_that_is_not_there_is_127(tmp_path):
    """In one line, as a shell would have it."""
    assert "nonsense" in fails(run(["nonsense"]), 127)
    assert "nonsense" in fails(run([tmp_path / "nonsense"]), 127)
    file = tmp_path / "file"
    file.touch()
    assert "nonsense" in fails(run([file / "nonsense"]), 127)


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("#!/bin/sh\n", 0o644, "is not executable"),
        ("#!/nowhere/python\n", 0o755, "interpreter"),
        ("neither a script nor a program\n", 0o755, "Exec format error"),
    ],
)
def test_a_program_that_cannot_be_run_is_126(tmp_path, text, mode, told):
    """In one line that says why, as a shell would have it."""
    path = tmp_path / "program"
    path.write_text(text, "utf-8")
    path.chmod(mode)

    assert told in fails(run([path]), 126)


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("option", ["--rules", "--rules="])
@pytest.mark.parametrize(
    ("mode", "told"), [(0o755, "Exec format error"), (0o644, "is not executable")]
)
def test_a_program_that_cannot_be_run_is_said_by_the_process_itself(
    tmp_path, monkeypatch, capsys, mode, told, option, collects
):
    """For coverage: a measurement of the process above ends with its exec, failed or not."""
    monkeypatch.setenv("USERLENS_DRY_RUN", "1")
    path = executable(tmp_path / "program", "neither a script nor a program\n")
    path.chmod(mode)
    rules = [option + str(write_rules(tmp_path))]
    if option == "--rules":
        rules = [option, str(write_rules(tmp_path))]
    known = {each: signal.getsignal(each) for each in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        if not collects:
            gc.disable()
        assert 126 == main(["run", *rules, "--", str(path)])
        assert collects is gc.isenabled()
    finally:
        gc.enable()
        for each, handler in known.items():
            signal.signal(each, handler)

    assert told in capsys.readouterr().err


# ---------------------------------------------------------------- what would be in vain

IN_VAIN = "userlens-instrument run: nothing will be captured: "


@pytest.mark.parametrize(
    ("options", "letter"),
    [
        (["-E"], "E"),
        (["-I"], "I"),
        (["-S"], "S"),
        (["-uI"], "I"),
        (["-u", "-W", "ignore", "-X", "dev", "-E"], "E"),
        (["-Wignore", "-bES"], "E"),
        (["--check-hash-based-pycs", "never", "-I"], "I"),
    ],
)
def test_an_interpreter_that_does_not_see_us_is_told(options, letter):
    """``python -E`` and the like: one line on stderr says what is in vain and why; it runs."""
    done = run([sys.executable, *options, "-c", "print('ran')"])

    assert ("ran\n", 0) == (done.stdout, done.returncode)
    assert done.stderr.startswith(f"{IN_VAIN}-{letter} has Python ")
    assert 1 == done.stderr.count("\n")


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "print('ran')", "-I"],
        ["-W", "ignore", "-X", "utf8", "-u", "-c", "print('ran')", "-E"],
        ["-Xutf8", "-cprint('ran')", "-S"],
        ["-bsuc", "print('ran')"],
        ["--check-hash-based-pycs", "default", "-c", "print('ran')", "-E"],
    ],
)
def test_options_of_the_program_are_none_of_the_interpreters(words):
    """What stands behind the script, the module or the code is not Python's to read."""
    assert ("ran\n", "", 0) == what_is_seen(run([sys.executable, *words]))


def test_a_script_that_is_read_from_standard_input():
    """``python -`` and ``python script.py -E`` take no option from what follows."""
    assert command._blinding_option(["python3.12", "-", "-E"]) is None
    assert command._blinding_option(["/usr/bin/python", "script.py", "-I"]) is None
    assert command._blinding_option(["python"]) is None
    assert command._blinding_option(["python", "--version"]) is None
    assert command._blinding_option(["pypy3", "-E", "x.py"]) == "E"
    assert command._blinding_option(["python3.13t", "-I", "x.py"]) == "I"
    assert command._blinding_option(["perl", "-E", "1"]) is None
    assert command._blinding_option(["pythonic", "-E"]) is None


@given(st.lists(st.text()))
def test_any_command_line_can_be_looked_at(words):
    """Whatever the words are, there is an answer to whether they call a Python that sees us."""
    assert command._blinding_option(["python", *words]) in {None, "E", "I", "S"}
    assert command._past_env(["env", *words]) is not None


@pytest.mark.parametrize(
    "first",
    [
        "#!{python} -E",
        "#!{python} -sE",
        "#!/usr/bin/env -S {python} -E",
        "#!/usr/bin/env -S A=1 {python} -uE",
    ],
)
def test_a_console_script_that_does_not_see_us_is_told(tmp_path, first):
    """Its first line may call Python with such an option."""
    script = executable(
        tmp_path / "script", f"{first.format(python=sys.executable)}\nprint('ran')\n"
    )
    for words, path in (([script], None), (["script"], f"{tmp_path}:{os.environ['PATH']}")):
        done = run(words, **({"PATH": path} if path else {}))

        assert ("ran\n", 0) == (done.stdout, done.returncode)
        assert done.stderr.startswith(f"{IN_VAIN}-E ")


def test_env_is_looked_through():
    """``env NAME=value python -I`` calls Python as well."""
    done = run(["env", "A=1", sys.executable, "-I", "-c", "print('ran')"])

    assert ("ran\n", 0) == (done.stdout, done.returncode)
    assert done.stderr.startswith(f"{IN_VAIN}-I ")


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 0\n", "#!\n", ""])
def test_a_script_of_another_kind_is_not_our_business(tmp_path, text):
    """A first line that names no Python says nothing."""
    script = executable(tmp_path / "script", text)

    assert command._why_not([str(script)], dict(os.environ)) is None


def test_a_program_that_cannot_be_read_is_not_our_business(tmp_path):
    """A file that may be run but not read may be anything."""
    assert command._shebang(str(tmp_path)) == []
    assert command._why_not(["env", "A=1"], dict(os.environ)) is None


def test_an_environment_without_us_is_told(tmp_path, server):
    """A Python that cannot import us runs unharmed; one line says so, of the program alone."""
    venv.create(tmp_path / "other", with_pip=False, symlinks=True)
    python = tmp_path / "other" / "bin" / "python"
    code = (
        "import logging, subprocess, sys; logging.warning('x', extra={'userlens_event': 'y'})\n"
        "print('ran', flush=True)\n"
        "if len(sys.argv) < 2: subprocess.run([sys.executable, __file__, 'child'])\n"
    )
    script = tmp_path / "program.py"
    script.write_text(code, "utf-8")
    # A coverage measurement puts itself on the path.
    done = run([python, script], server.url, PYTHONPATH=None)

    assert ("ran\nran\n", 0) == (done.stdout, done.returncode)
    assert [f"{IN_VAIN}userlens_instrument is not installed for {python}"] == [
        line for line in done.stderr.splitlines() if "WARNING" not in line
    ]
    assert [] == server.events


HIDDEN = {
    "orjson": ("", ["Hit", "Paid"]),  # the standard library's encoder does as well
    "regex": ("regex cannot be used", []),
    "urllib3": ("no event can be sent", []),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_file_of_the_programs_with_the_name_of_a_library_is_not_run(tmp_path, server, name):
    """Its folder stands first on the path when a log call loads what it needs."""
    told, arrives = HIDDEN[name]
    (tmp_path / f"{name}.py").write_text("print('run'); raise SystemExit(9)", "utf-8")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[[rule]]\nmessage = 'Hit %s'\nargs = ['user_id']\nevent = 'Hit'\n"
        "[[rule]]\nregex = 'Paid by (?P<user_id>.*)'\nevent = 'Paid'\n",
        "utf-8",
    )
    script = tmp_path / "program.py"
    script.write_text(
        "import logging\nlogging.warning('Hit %s', 'ada')\nlogging.warning('Paid by ada')\n"
        "print('ran')\n",
        "utf-8",
    )
    done = run(
        [sys.executable, script],
        server.url,
        options=["--rules", rules],
        USERLENS_SHUTDOWN_TIMEOUT="0.5",
        # A coverage measurement puts itself on the path.
        PYTHONPATH=None,
        COVERAGE_PROCESS_CONFIG="",
        PYTHONSAFEPATH=None,
    )

    assert ("ran\n", 0) == (done.stdout, done.returncode)
    assert arrives == [event["event"] for event in server.events]
    assert told in done.stderr
    assert (f"{name}.py hides the library" in done.stderr) == bool(told)
