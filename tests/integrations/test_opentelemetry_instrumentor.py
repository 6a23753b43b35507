"""opentelemetry-instrument starts us: no code, once, and in nobody's way."""

from __future__ import annotations

import logging
import subprocess
import sys
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers import PATIENCE, environment
from opentelemetry.instrumentation.auto_instrumentation import _load
from opentelemetry.instrumentation.distro import DefaultDistro
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from userlens_instrument import auto
from userlens_instrument import client as client_module
from userlens_instrument._delivery.sender import request_watchers
from userlens_instrument.integrations.opentelemetry import UserlensInstrumentor
from userlens_instrument.integrations.opentelemetry import metrics as metrics_module
from userlens_instrument.integrations.opentelemetry.stand_in import BaseInstrumentor as StandIn


LAUNCHER = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
QUIET = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
logging.getLogger("billing").info("Invoice %s paid by %s", "i1", "u1")
logging.getLogger("app").info("Seen", extra={"userlens_event": True, "user_id": "u2"})
import structlog
structlog.configure(processors=[structlog.processors.JSONRenderer()])
structlog.get_logger().info("Line", userlens_event=True, user_id="u3")
"""
PRINTED = (
    "INFO Invoice i1 paid by u1\n"
    "INFO Seen\n"
    '{"userlens_event": true, "user_id": "u3", "event": "Line"}\n'
)
RULES = """
[[rule]]
message = "Invoice %s paid by %s"
args = ["invoice", "user_id"]
event = "Invoice Paid"
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "userlens.toml"
    path.write_text(RULES, "utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def off_again(monkeypatch):
    for name, text in QUIET.items():
        monkeypatch.setenv(name, text)
    yield
    logging.disable(logging.CRITICAL)  # it warns, where it is off
    UserlensInstrumentor().uninstrument()
    logging.disable(logging.NOTSET)
    metrics_module._metrics.__init__()
    request_watchers.clear()


def launch(server, *, code=PROGRAM, before=(), options=(), **extra):
    words = [*before, LAUNCHER, sys.executable, *options, "-c", code]
    return subprocess.run(
        list(map(str, words)),
        env=environment(server.url, **(QUIET | extra)),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )


# Its own handler starts a thread when logging is shut down, which these Pythons
# refuse with a traceback (opentelemetry-python#4752): with or without us.
exits = pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 3), reason="OpenTelemetry cannot exit in silence"
)


def names(server):
    return sorted(event["event"] for event in server.events)


@exits
def test_a_program_is_captured_without_code(server, rules):
    """Records and lines, by tag and by rule, each once; and what is printed stays the same."""
    done = launch(server, USERLENS_RULES=rules)

    assert (PRINTED, "", 0) == (done.stdout, done.stderr, done.returncode)
    assert ["Invoice Paid", "Line", "Seen"] == names(server)


def test_under_the_wrapper_too_each_line_is_one_event(server, rules):
    """``userlens-instrument run`` before it, or behind it."""
    wrapper = [sys.executable, "-m", "userlens_instrument", "run", "--"]
    done = launch(server, before=wrapper, USERLENS_RULES=rules)

    assert (PRINTED, 0) == (done.stdout, done.returncode), done.stderr
    assert ["Invoice Paid", "Line", "Seen"] == names(server)


@exits
@pytest.mark.parametrize("names_off", ["userlens", "other, userlens", "*"])
def test_a_variable_turns_it_off(server, rules, names_off):
    """As any other instrumentation."""
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": names_off}
    done = launch(server, USERLENS_RULES=rules, **off)

    assert (PRINTED, "", 0) == (done.stdout, done.stderr, done.returncode)
    assert [] == server.events


def test_an_interpreter_without_environment_runs_as_it_is(server, rules):
    """``python -E`` reads no PYTHONPATH: neither is started, and nothing is said."""
    done = launch(server, options=["-E"], USERLENS_RULES=rules)

    assert (PRINTED, "", 0) == (done.stdout, done.stderr, done.returncode)
    assert [] == server.events


@exits
@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("USERLENS_MAX_WORKERS", "many", "USERLENS_MAX_WORKERS) is not a whole number"),
        ("USERLENS_RULES", "/nowhere/userlens.toml", "there is no such file"),
    ],
)
@pytest.mark.parametrize("exporter", ["console", "none"])
def test_what_is_set_wrong_is_one_line_and_off(server, variable, text, said, exporter):
    """
    The program runs, nothing is captured, and the other instrumentations are there.

    Wherever OpenTelemetry sends log lines: this one is on standard error.
    """
    check = "import logging; print('LoggingHandler' in str(logging.root.handlers))\n"
    log = "logging.warning('Seen', extra={'userlens_event': True, 'user_id': 'u2'})"
    done = launch(server, code=check + log, OTEL_LOGS_EXPORTER=exporter, **{variable: text})

    assert (True, 0) == (done.stdout.startswith("True\n"), done.returncode)
    (line,) = [line for line in done.stderr.splitlines() if "userlens" in line.lower()]
    assert line.startswith("userlens-instrument: nothing is captured: ")
    assert said in line
    assert "Traceback" not in done.stderr
    assert [] == server.events


def test_without_a_write_code_the_program_runs(server):
    """One warning, and every event is counted as dropped."""
    done = launch(server, USERLENS_WRITE_CODE="")

    printed = [line for line in done.stdout.splitlines() if "no write code" not in line]
    assert (PRINTED.splitlines(), 0) == (printed, done.returncode)
    assert 1 == (done.stdout + done.stderr).count("there is no write code")
    assert [] == server.events


def test_it_is_an_instrumentor_that_the_launcher_finds():
    """By its entry point, as one of OpenTelemetry's own."""
    (point,) = entry_points(group="opentelemetry_instrumentor", name="userlens")

    assert point.load() is UserlensInstrumentor
    assert issubclass(UserlensInstrumentor, BaseInstrumentor)
    assert () == UserlensInstrumentor().instrumentation_dependencies()


def test_called_twice_it_is_installed_once(monkeypatch, caplog):
    """There is one instrumentor, which says whether it is on."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "logging,structlog")
    before = logging.Logger.filter
    _load._load_instrumentors(DefaultDistro())
    once = logging.Logger.filter
    assert UserlensInstrumentor() is UserlensInstrumentor()
    assert UserlensInstrumentor().is_instrumented_by_opentelemetry
    assert auto.is_installed()

    UserlensInstrumentor().instrument()
    assert once is logging.Logger.filter
    assert ["Attempting to instrument while already instrumented"] == caplog.messages

    UserlensInstrumentor().uninstrument()
    assert before is logging.Logger.filter
    assert not auto.is_installed()
    assert not UserlensInstrumentor().is_instrumented_by_opentelemetry
    assert [] == request_watchers


def test_what_the_wrapper_has_installed_stays():
    """Taken away is what it has installed itself."""
    auto.install()
    UserlensInstrumentor().instrument()
    UserlensInstrumentor().uninstrument()
    assert auto.is_installed()

    auto.uninstall()


def test_metrics_are_those_of_the_provider_that_is_given():
    """As other instrumentors take one."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    UserlensInstrumentor().instrument(meter_provider=provider)
    (resource,) = reader.get_metrics_data().resource_metrics
    provider.shutdown()

    assert "userlens.events.delivered" in {
        metric.name for metric in resource.scope_metrics[0].metrics
    }


@pytest.mark.parametrize("error", [RuntimeError("no"), ImportError("no"), AttributeError("no")])
def test_nothing_that_goes_wrong_stops_the_others(monkeypatch, caplog, capsys, error):
    """Whatever fails is one line."""

    def fail(*args):
        raise error

    monkeypatch.setattr(metrics_module, "instrument_metrics", fail)
    UserlensInstrumentor().instrument(skip_dep_check=True)
    assert auto.is_installed()
    assert ["there are no metrics of what is captured: no"] == caplog.messages

    caplog.clear()
    monkeypatch.setattr(auto, "uninstall", fail)
    UserlensInstrumentor().uninstrument()
    assert ["what is logged may still be captured: no"] == caplog.messages
    monkeypatch.undo()
    UserlensInstrumentor().uninstrument()

    caplog.clear()
    monkeypatch.setattr(auto, "install", fail)
    UserlensInstrumentor().instrument()
    assert [] == caplog.messages
    assert "userlens-instrument: nothing is captured: no\n" == capsys.readouterr().err
    assert not UserlensInstrumentor().is_instrumented_by_opentelemetry


def test_the_stand_in_leaves_it_to_its_children():
    """By itself it is no instrumentor."""
    with pytest.raises(NotImplementedError):
        StandIn().instrument()
    with pytest.raises(NotImplementedError):
        StandIn()._uninstrument()


def test_a_client_of_the_program_gets_what_is_captured(transport, make_client):
    """A default client that the program configures is the one, as under the wrapper."""
    client_module.registry.default = client = make_client(transport=transport)
    UserlensInstrumentor().instrument()
    logging.getLogger("otel").warning("Seen", extra={"userlens_event": True, "user_id": "u1"})

    assert client.flush(PATIENCE)
    assert ["Seen"] == [event["event"] for event in transport.events]
