"""diagnose(): why the records of a logger would not arrive."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import re
import sys
import threading
from pathlib import Path
from unittest import mock

import loguru
import pytest
import structlog
from helpers import PATIENCE, WRITE_CODE, Reply, ScriptedServer, run_python
from opentelemetry._logs import _internal as opentelemetry_logs
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider

import userlens_instrument as userlens
from userlens_instrument import UserlensHandler, UserlensProcessor, diagnose
from userlens_instrument.diagnosis import REASONS, Diagnosis, Finding
from userlens_instrument.integrations.loguru import make_sink, sink
from userlens_instrument.integrations.opentelemetry import UserlensLogRecordProcessor


@pytest.fixture(autouse=True)
def no_handlers():
    """Take away what other tests have left on loggers of theirs."""
    for one in [logging.root, *logging.Logger.manager.loggerDict.values()]:
        if isinstance(one, logging.Logger):
            one.handlers[:] = [
                each for each in one.handlers if not isinstance(each, UserlensHandler)
            ]


@pytest.fixture
def configured():
    """A client that would send, so that nothing of it is found."""
    return userlens.configure(WRITE_CODE, events_url="http://127.0.0.1:1")


@pytest.fixture
def logger():
    """A logger with a handler of ours and a level of its own."""
    logger = logging.Logger.manager.getLogger("diagnosed.one")
    logger.handlers[:] = [UserlensHandler()]
    logger.filters.clear()
    logger.setLevel(logging.INFO)
    logger.propagate, logger.disabled = True, False
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def codes(found):
    return [finding.code for finding in found.findings]


def test_all_is_well(configured, logger):
    """
    A logger whose records arrive has no finding; that is what is printed, too.
    """
    for asked in (logger, "diagnosed.one"):
        found = diagnose(asked)

        assert (True, ()) == (found.arrives, found.findings)
        assert "logger diagnosed.one: nothing stands in the way" == str(found)


def test_it_prints_well():
    """
    A line for each finding: severity, where, problem, fix; what loses events first.
    """
    finding = Finding(code="a", severity="lost", where="here", problem="broken", fix="mend it")
    found = Diagnosis(subject="logger x", findings=(finding,))

    assert "lost: here: broken; mend it" == str(finding)
    assert "logger x: events do not arrive\n  lost: here: broken; mend it" == str(found)


def test_nothing_changes():
    """
    No logger, handler, client or thread is made, whatever is asked.
    """
    before = (
        dict(logging.root.manager.loggerDict),
        logging.root.handlers[:],
        threading.active_count(),
    )

    for asked in (None, "never.heard.of", logging.getLogger(), structlog.get_logger()):
        diagnose(asked)

    assert before == (
        dict(logging.root.manager.loggerDict),
        logging.root.handlers[:],
        threading.active_count(),
    )
    assert userlens.client.registry.default is None
    assert {} == userlens.client.registry.clients


# ---------------------------------------------------------------- logging


@pytest.mark.parametrize(("level", "expected"), [("info", []), (20, []), ("DEBUG", ["level"])])
def test_the_level(configured, logger, level, expected):
    """
    A level below the logger's; who set it is named.
    """
    found = diagnose(logger, level=level)

    assert expected == codes(found)
    if expected:
        assert "DEBUG is below INFO, the level of diagnosed.one" == found.findings[0].problem


def test_the_level_of_root(configured, logger):
    """
    Without a level of its own it is that of root, WARNING by default.
    """
    logger.setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)

    assert "INFO is below WARNING, the level of root" == diagnose(logger).findings[0].problem


@pytest.mark.parametrize("level", ["nonsense", None, object()])
def test_no_level(level):
    """
    What is no level is an error of the caller.
    """
    with pytest.raises(ValueError, match="level is none"):
        diagnose(level=level)


def test_logging_is_disabled(configured, logger):
    """
    logging.disable() holds for everybody.
    """
    logging.disable(logging.INFO)

    assert ["logging_disabled"] == codes(diagnose(logger))
    assert "logging_disabled" in codes(diagnose())


def test_the_logger_is_disabled(configured, logger):
    """
    What a dictConfig() without disable_existing_loggers=False leaves behind.
    """
    logger.disabled = True

    found = diagnose(logger)

    assert ["logger_disabled"] == codes(found)
    assert "disable_existing_loggers" in found.findings[0].fix
    assert "logger_disabled" in codes(diagnose())


def test_filters(configured, logger):
    """
    Filters of the logger and of the handler may keep records back.
    """
    logger.addFilter(lambda record: True)
    logger.handlers[0].addFilter(lambda record: True)
    logger.handlers[0].addFilter(logging.Filter("x"))

    found = diagnose(logger)

    assert ["logger_filter", "handler_filter"] == codes(found)
    assert ["it has 1 filter", "it has 2 filters"] == [
        finding.problem for finding in found.findings
    ]
    assert found.arrives


@pytest.mark.parametrize(("others", "severity"), [(0, "lost"), (1, "maybe")])
def test_the_level_of_the_handler(configured, logger, others, severity):
    """
    The only handler takes only what is above; another one of ours takes the rest.
    """
    logger.handlers[0].setLevel(logging.ERROR)
    for _ in range(others):
        logger.addHandler(UserlensHandler())

    assert [("handler_level", severity)] == [
        (finding.code, finding.severity) for finding in diagnose(logger).findings
    ]


def test_no_handler(configured, logger, monkeypatch):
    """
    No handler of ours on the way up.
    """
    monkeypatch.delitem(sys.modules, "celery", raising=False)
    logger.handlers[:] = [logging.NullHandler()]

    found = diagnose(logger)

    assert ["no_handler"] == codes(found)
    assert not found.arrives


def test_propagate(configured, logger):
    """
    A handler above a logger that does not propagate is not met; where that is is named.
    """
    logger.handlers.clear()
    logging.getLogger().addHandler(UserlensHandler())
    child = logging.getLogger("diagnosed.one.child")
    assert [] == codes(diagnose(child))
    logger.propagate = False

    found = diagnose(child)

    assert ["propagate"] == codes(found)
    assert "logger diagnosed.one" == found.findings[0].where


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("uvicorn.access", "log_config"),
        ("gunicorn.error", "logconfig_dict"),
        ("django.request", "in LOGGING"),
    ],
)
def test_frameworks(configured, name, said):
    """
    For a framework's own loggers the fix says where its configuration is.
    """
    logger = logging.Logger.manager.getLogger(name)
    level, propagate = logger.level, logger.propagate
    logging.getLogger().addHandler(UserlensHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        found = diagnose(name)
    finally:
        logger.setLevel(level)
        logger.propagate = propagate

    assert "propagate" == found.findings[0].code
    assert said in found.findings[0].fix


def test_celery(configured, logger, monkeypatch):
    """
    Where Celery is, it may have taken the handler away.
    """
    monkeypatch.setitem(sys.modules, "celery", object())
    logger.handlers.clear()

    finding = diagnose(logger).findings[0]

    assert "Celery takes the handlers of root away" in finding.problem
    assert "worker_hijack_root_logger=False" in finding.fix
    assert "Celery takes the handlers of root away" in str(diagnose())


def test_a_logger_that_there_is_not_yet(configured, logger):
    """
    What holds for the nearest one above will hold for it.
    """
    found = diagnose("diagnosed.one.of.tomorrow")

    assert [("no_such_logger", True)] == [
        (finding.code, found.arrives) for finding in found.findings
    ]
    assert "what holds for diagnosed.one will" in found.findings[0].problem
    assert "nobody has asked for it yet" in str(found)


@pytest.mark.parametrize("name", ["", "root"])
def test_root(configured, name):
    """
    Root, by its name or none.
    """
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(UserlensHandler())

    assert "logger root: nothing stands in the way" == str(diagnose(name))


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "userlens_instrument"])
def test_our_own_loggers(configured, name):
    """
    What we, or urllib3, log is never an event.
    """
    assert "own_logger" in codes(diagnose(name))


class Odd(logging.Logger):
    def callHandlers(self, record):  # noqa: N802 - logging's name
        pass


def test_a_class_of_its_own(configured):
    """
    A logger whose class does things its own way.
    """
    logger = Odd("odd", logging.INFO)
    logger.addHandler(UserlensHandler())

    found = diagnose(logger)

    assert ["logger_class"] == codes(found)
    assert "its class Odd has a callHandlers() of its own" == found.findings[0].problem


@pytest.mark.parametrize("merges", [False, True])
def test_an_adapter(configured, logger, merges):
    """
    A LoggerAdapter drops the extra of the call, unless it merges.
    """
    adapter = logging.LoggerAdapter(logger, {"a": 1})
    if merges:
        adapter.merge_extra = True

    assert ([] if merges else ["adapter"]) == codes(diagnose(adapter))


class Merging(logging.LoggerAdapter):
    def process(self, msg, kwargs):
        return msg, kwargs


def test_an_adapter_of_an_adapter(configured, logger):
    """
    Every layer drops what it is given.
    """
    adapter = logging.LoggerAdapter(logging.LoggerAdapter(logger, {}), {})

    assert ["adapter", "adapter"] == codes(diagnose(adapter))


def test_a_handler_behind_another(configured, logger):
    """
    A MemoryHandler hands on to ours.
    """
    logger.handlers[:] = [logging.handlers.MemoryHandler(10, target=UserlensHandler())]

    assert [] == codes(diagnose(logger))


def test_a_handler_that_hands_on_to_itself(configured, logger):
    """
    Looking goes round in no circle.
    """
    circle = logging.handlers.MemoryHandler(10)
    circle.target = circle
    logger.handlers[:] = [circle]

    assert ["no_handler"] == codes(diagnose(logger))
    circle.target = None


def test_our_handler_far_above(configured, logger):
    """
    However far above the logger that does not propagate it is.
    """
    logger.handlers.clear()
    logging.getLogger("diagnosed").handlers.clear()
    logging.getLogger().addHandler(UserlensHandler())
    logger.propagate = False

    finding = diagnose(logger).findings[0]

    assert ("propagate", True) == (finding.code, "above, on root" in finding.problem)


def test_where_structlog_is_not_imported(configured, logger, monkeypatch):
    """
    There is nothing of it to look at, and it is not imported for that.
    """
    monkeypatch.delitem(sys.modules, "structlog")
    logging.getLogger().setLevel(logging.INFO)

    assert [] == codes(diagnose())
    assert ["no_logger"] == codes(diagnose(object()))
    assert "structlog" not in sys.modules


def test_an_adapter_of_its_own(configured, logger):
    """
    One with a process() of its own knows what it does.
    """
    assert [] == codes(diagnose(Merging(logger, {})))


def test_behind_a_queue(configured, logger):
    """
    Our handler behind a QueueHandler gets what is left of the record.
    """
    handler = logging.handlers.QueueHandler(queue.SimpleQueue())
    handler.listener = logging.handlers.QueueListener(handler.queue, UserlensHandler())
    logger.handlers[:] = [handler]

    assert ["behind_a_queue"] == codes(diagnose(logger))


def test_a_queue_of_somebody_else(configured, logger):
    """
    A QueueHandler without a handler of ours behind it does not help.
    """
    logger.handlers[:] = [logging.handlers.QueueHandler(queue.SimpleQueue())]

    queue_handler = logger.handlers[0]
    queue_handler.listener = logging.handlers.QueueListener(
        queue_handler.queue, logging.NullHandler()
    )
    assert ["no_handler"] == codes(diagnose(logger))
    queue_handler.listener = None
    assert ["behind_a_queue"] == codes(diagnose(logger))


# ---------------------------------------------------------------- all of it


def test_no_entrance(configured):
    """
    Neither a handler nor a processor anywhere.
    """
    logging.getLogger().setLevel(logging.INFO)

    assert ["no_entrance"] == codes(diagnose())
    structlog.configure(processors=[UserlensProcessor(), structlog.processors.JSONRenderer()])

    assert [] == codes(diagnose())


def test_auto_instrumentation():
    """
    Under `run`, or after auto.install(), no handler is needed.
    """
    done = run_python(
        """
import logging, structlog
from userlens_instrument import auto, diagnose
auto.install()
logging.getLogger().setLevel("INFO")
print(diagnose("app"))
print(diagnose())
print(diagnose(structlog.get_logger()))
""",
        "http://127.0.0.1:1",
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert [
        "logger app: nothing stands in the way",
        "all loggers: nothing stands in the way",
        "logger of structlog: nothing stands in the way",
    ] == [line for line in done.stdout.splitlines() if not line.startswith(" ")]


# ---------------------------------------------------------------- structlog


def chain(*processors, **more):
    return structlog.wrap_logger(structlog.ReturnLogger(), processors=list(processors), **more)


JSON = structlog.processors.JSONRenderer()


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        (lambda: [UserlensProcessor(), JSON], []),
        (lambda: [JSON, UserlensProcessor()], ["after_renderer"]),
        (lambda: [JSON], ["no_processor"]),
        (lambda: [structlog.stdlib.render_to_log_kwargs], ["bridged"]),
        (lambda: [UserlensProcessor(), structlog.stdlib.filter_by_level, JSON], ["before_filter"]),
        (
            lambda: [structlog.stdlib.PositionalArgumentsFormatter(), UserlensProcessor(), JSON],
            ["after_formatting"],
        ),
        (
            lambda: [UserlensProcessor(), structlog.contextvars.merge_contextvars, JSON],
            ["before_context"],
        ),
    ],
)
def test_a_chain(configured, processors, expected):
    """
    Whether our processor is in a chain, and whether it is in its place.
    """
    assert expected == codes(diagnose(chain(*processors())))
    structlog.configure(processors=processors())
    logging.getLogger().addHandler(UserlensHandler())
    logging.getLogger().setLevel(logging.INFO)
    assert expected == codes(diagnose())
    assert expected == codes(diagnose(structlog.get_logger()))


def test_a_cached_chain(configured):
    """
    A logger that was used before structlog was configured with us keeps its chain.
    """
    structlog.configure(processors=[JSON], cache_logger_on_first_use=True)
    log = structlog.get_logger()
    log.info("First")
    structlog.configure(processors=[UserlensProcessor(), JSON])

    assert ["cached_chain"] == codes(diagnose(log))
    assert ["cached_chain"] == codes(diagnose(log.bind()))
    assert ["cached_chain"] == codes(diagnose(chain(JSON)))


def test_to_look_at_a_logger_does_not_bind_it(configured):
    """
    One that was never used gets its chain later, from whatever is configured then.
    """
    structlog.configure(processors=[JSON], cache_logger_on_first_use=True)
    log = structlog.get_logger()
    assert ["no_processor"] == codes(diagnose(log))

    structlog.configure(processors=[UserlensProcessor(), JSON])

    assert [] == codes(diagnose(log))


@pytest.mark.parametrize("used", [False, True])
def test_a_chain_that_goes_by_the_level_of_the_stdlib_logger(configured, logger, used):
    """
    filter_by_level asks the logger that is wrapped.
    """
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, UserlensProcessor(), JSON],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger(logger.name)
    if used:
        log = log.bind()
    assert [] == codes(diagnose(log))
    logger.setLevel(logging.ERROR)

    assert ["level"] == codes(diagnose(log))
    assert [] == codes(diagnose(log, level="ERROR"))


def test_a_level_that_is_configured_for_all(configured):
    """
    The class that is configured leaves out what is below its level, for every logger.
    """
    structlog.configure(
        processors=[UserlensProcessor(), JSON],
        wrapper_class=structlog.make_filtering_bound_logger("ERROR"),
    )
    logging.getLogger().setLevel(logging.INFO)

    for asked in (None, structlog.get_logger()):
        assert ["structlog_level"] == codes(diagnose(asked))


def test_the_level_of_a_structlog_logger(configured):
    """
    make_filtering_bound_logger() leaves out what is below its level.
    """
    log = chain(
        UserlensProcessor(), JSON, wrapper_class=structlog.make_filtering_bound_logger("ERROR")
    )

    assert ["structlog_level"] == codes(diagnose(log))
    assert [] == codes(diagnose(log, level="ERROR"))


class Broken:
    def bind(self):
        raise RuntimeError


class Hostile:
    """Raises whatever is read of it, its class too."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: 3,
        lambda: b"billing",
        dict,
        object,
        Broken,
        Hostile,
        mock.Mock,
        mock.MagicMock,
        lambda: mock.Mock(spec=logging.Logger),
    ],
)
def test_what_is_no_logger(configured, make):
    """
    Anything else is one finding, which names its type and says what is taken.
    """
    asked = make()

    found = diagnose(asked)

    kind = type(asked).__name__
    assert f"an object of type {kind}" == found.subject
    (finding,) = found.findings
    assert ("lost", "what was given") == (finding.severity, finding.where)
    assert f"it is no logger, but of type {kind}" == finding.problem
    assert finding.fix.startswith("give a logger's name, a logging.Logger, a LoggerAdapter or a")


class Closed(logging.LoggerAdapter):
    """An adapter that nobody may look into."""

    def __init__(self):
        pass

    def __getattr__(self, name):
        raise RuntimeError(name)


def circle():
    adapter = logging.LoggerAdapter(None, {})
    adapter.logger = adapter
    return adapter


@pytest.mark.parametrize(
    "make",
    [
        lambda: logging.LoggerAdapter(3, {}),
        lambda: logging.LoggerAdapter(None, {}),
        lambda: logging.LoggerAdapter(Hostile(), {}),
        lambda: mock.Mock(spec=logging.LoggerAdapter),
        Closed,
        circle,
    ],
)
def test_an_adapter_of_no_logger(configured, make):
    """
    An adapter that wraps no logger, itself, or what cannot be read, is one finding.
    """
    (finding,) = diagnose(make()).findings

    assert ("no_logger", "LoggerAdapter") == (finding.code, finding.where)
    assert "what it wraps is no logger, or cannot be read" == finding.problem


class Half(logging.Logger):
    """A logger that cannot say whether it is enabled, nor, if asked, what it is called."""

    nameless = False

    def __getattribute__(self, name):
        if name == "getEffectiveLevel" or (name == "name" and type(self).nameless):
            raise RuntimeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("nameless", [False, True])
def test_a_logger_with_attributes_that_raise(configured, monkeypatch, nameless):
    """
    What raises is a finding; what comes after it, such as the settings, is looked at all the same.
    """
    logger = Half("half")
    monkeypatch.setattr(Half, "nameless", nameless)
    userlens.configure(dry_run=True)

    found = diagnose(logger)

    assert "a logger" if nameless else "logger half" == found.subject
    assert ["dry_run", "cannot_look"] == codes(found)
    assert "raises RuntimeError" in found.findings[1].problem


class Odder(logging.NullHandler):
    """A handler that raises for an attribute it does not have."""

    def __getattr__(self, name):
        raise RuntimeError(name)


def test_a_handler_with_attributes_that_raise(configured, logger):
    """
    A handler of somebody else that cannot be read hides none of ours.
    """
    logger.handlers.insert(0, Odder())

    assert [] == codes(diagnose(logger))


def test_adapters_with_attributes_that_raise(configured, logger):
    """
    An adapter that raises for what it does not have, such as merge_extra, is one as any other.
    """

    class Strict(logging.LoggerAdapter):
        def __getattribute__(self, name):
            if name == "merge_extra":
                raise RuntimeError(name)
            return super().__getattribute__(name)

    found = diagnose(Strict(logger, {}))

    assert ["adapter"] == codes(found)
    assert "LoggerAdapter of logger diagnosed.one" == found.findings[0].where


@pytest.mark.parametrize("level", [0, -1])
def test_a_level_that_is_never_logged(configured, logger, level):
    """
    logging leaves out NOTSET and what is below: that is no logging.disable() of anybody's.
    """
    found = diagnose(logger, level=level)

    assert "level" == codes(found)[0]
    assert "logging_disabled" not in codes(found)
    assert "is not above NOTSET, and never logged" in found.findings[0].problem


def test_a_handler_of_ours_that_cannot_be_shown(configured, logger):
    """
    A subclass whose repr raises is named by its class, and looked at like any other.
    """

    class Unshown(UserlensHandler):
        def __repr__(self):
            raise RuntimeError

    logger.handlers[:] = [Unshown(logging.ERROR, write_code=WRITE_CODE, disabled=True)]

    assert [("handler_level", "<Unshown>"), ("disabled", "<Unshown>")] == [
        (finding.code, finding.where) for finding in diagnose(logger).findings
    ]


def test_a_target_that_raises(configured, logger):
    """
    A handler whose target cannot be read hands on to nobody; ours beside it is found.
    """

    class Aimless(logging.NullHandler):
        @property
        def target(self):
            raise RuntimeError

    logger.handlers.insert(0, Aimless())

    assert [] == codes(diagnose(logger))


@pytest.mark.parametrize("handlers", [None, 3, mock.Mock()])
def test_a_listener_of_somebody_elses(configured, logger, handlers):
    """
    What is behind a QueueHandler whose listener has no list of handlers, nobody knows.
    """
    handler = logging.handlers.QueueHandler(queue.SimpleQueue())
    handler.listener = mock.Mock(handlers=handlers)
    logger.handlers[:] = [handler]

    assert ["behind_a_queue"] == codes(diagnose(logger))


@pytest.mark.parametrize("stub", [object(), mock.Mock(get_config=None)])
def test_a_module_that_is_called_structlog(configured, logger, monkeypatch, stub):
    """
    A stub in the place of structlog is not structlog, and hides nothing of the rest.
    """
    logger.handlers.clear()
    logging.getLogger().setLevel(logging.INFO)
    monkeypatch.setitem(sys.modules, "structlog", stub)

    assert ["no_entrance"] == codes(diagnose())
    assert ["no_logger"] == codes(diagnose(object()))


def test_an_adapter_around_structlog(configured):
    """
    What it wraps is looked at as what it is; an adapter is one around loguru's logger, too.
    """
    for wrapped, name in (
        (chain(UserlensProcessor(), JSON), "structlog"),
        (loguru.logger, "loguru"),
    ):
        found = diagnose(logging.LoggerAdapter(wrapped, {}))

        assert f"logger of {name}" == found.subject
        assert "adapter" == codes(found)[0]


class OfTheirOwn:
    """A bound logger that is not derived from structlog's: the protocol is all that it has."""

    def bind(self, **_):
        return self

    unbind = try_unbind = new = bind


def test_a_bound_logger_of_a_class_of_its_own(configured):
    """
    What has the methods of structlog's protocol BindableLogger is a logger of structlog.
    """
    assert "logger of structlog" == diagnose(OfTheirOwn()).subject


# ---------------------------------------------------------------- loguru


@pytest.fixture
def loguru_logger():
    """loguru's logger without any sink, as it is left, too."""
    loguru.logger.remove()
    yield loguru.logger
    loguru.logger.remove()
    loguru.logger.enable("")


def forward(message):
    """Stand for a bridge of the host."""


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda add: add(sink), []),
        (lambda add: add(make_sink()), []),
        (lambda add: add(UserlensHandler()), []),
        (lambda add: None, [("no_sink", "lost")]),
        (lambda add: add(sys.stdout), [("no_sink", "lost")]),
        (lambda add: add(forward), [("behind_loguru", "maybe")]),
        (lambda add: add(logging.NullHandler()), [("behind_loguru", "maybe")]),
        (lambda add: add(sink, level="ERROR"), [("sink_level", "lost")]),
        (lambda add: (add(sink, level="ERROR"), add(make_sink())), [("sink_level", "maybe")]),
        (lambda add: add(sink, filter=lambda record: True), [("sink_filter", "maybe")]),
        (lambda add: add(sink, enqueue=True), [("sink_enqueue", "note")]),
        (lambda add: add(make_sink(write_code="x", disabled=True)), [("disabled", "lost")]),
    ],
)
def test_the_sinks_of_loguru(configured, loguru_logger, add, expected):
    """
    loguru's logger has an answer of its own: whether there is a sink of ours, and what it takes.
    """
    add(loguru_logger.add)

    found = diagnose(loguru_logger.bind(a=1))

    assert "logger of loguru" == found.subject
    assert expected == [(finding.code, finding.severity) for finding in found.findings]


@pytest.mark.parametrize(("name", "said"), [("a.b", "a.b"), ("", "all modules")])
def test_what_loguru_does_not_log(configured, loguru_logger, name, said):
    """
    logger.disable() holds for modules: it depends on who logs.
    """
    loguru_logger.add(sink)
    loguru_logger.disable(name)
    try:
        found = diagnose(loguru_logger)
    finally:
        loguru_logger.enable(name)

    assert ["loguru_disabled"] == codes(found)
    assert found.findings[0].problem.endswith(f"holds for {said}")


def test_another_loguru(configured):
    """
    One whose insides are not as they are known is said to be unknown; nothing raises.
    """
    unknown = type("Logger", (), {"__module__": "loguru._logger"})()

    assert {"cannot_look"} == set(codes(diagnose(unknown)))


def test_loguru_is_an_entrance(configured, loguru_logger):
    """
    A sink alone is one, and of its lines logging's levels say nothing.
    """
    logging.getLogger().setLevel(logging.WARNING)
    loguru_logger.add(sink)

    found = diagnose()

    assert [("level", "maybe")] == [(one.code, one.severity) for one in found.findings]
    assert found.arrives
    loguru_logger.remove()
    assert ["level", "no_entrance"] == codes(diagnose())


def test_loguru_under_auto_instrumentation():
    """
    What is taken without a handler is logging and structlog; to look imports nothing.
    """
    done = run_python(
        """
import sys
from userlens_instrument import auto, diagnose
auto.install()
diagnose(); diagnose("app")
print({"loguru", "opentelemetry", "structlog"} & set(sys.modules))
from loguru import logger
print(diagnose(logger))
""",
        "http://127.0.0.1:1",
    )

    assert (0, "") == (done.returncode, done.stderr)
    imported, verdict, finding = done.stdout.splitlines()
    assert ("set()", "logger of loguru: events do not arrive") == (imported, verdict)
    assert "no sink of ours; what is taken without one is logging and structlog" in finding


# ---------------------------------------------------------------- OpenTelemetry


def provider_of(*processors):
    provider = LoggerProvider(shutdown_on_exit=False)
    for each in processors:
        provider.add_log_record_processor(each)
    return provider


def test_behind_opentelemetry(configured, logger):
    """
    OpenTelemetry's handler is an entrance, with a processor of ours behind it: level and settings.
    """
    ours = UserlensLogRecordProcessor(write_code=WRITE_CODE, disabled=True)
    handler = LoggingHandler(logger_provider=provider_of(ours))
    logger.handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)

    assert ["disabled"] == codes(diagnose(logger))
    assert ["disabled"] == codes(diagnose())
    handler.setLevel(logging.ERROR)

    assert ["handler_level", "disabled"] == codes(diagnose(logger))


def test_behind_the_provider_of_the_process(configured, logger, monkeypatch):
    """
    A handler that was made before the provider goes to that; nothing is made to find it.
    """
    monkeypatch.setattr(opentelemetry_logs, "_LOGGER_PROVIDER", None)
    logger.handlers[:] = [LoggingHandler(logger_provider=opentelemetry_logs.ProxyLoggerProvider())]
    logging.getLogger().setLevel(logging.INFO)
    assert ["behind_opentelemetry"] == codes(diagnose(logger))
    assert opentelemetry_logs._LOGGER_PROVIDER is None

    provider = provider_of(UserlensLogRecordProcessor())
    monkeypatch.setattr(opentelemetry_logs, "_LOGGER_PROVIDER", provider)

    assert [] == codes(diagnose(logger))
    logger.handlers.clear()
    assert [] == codes(diagnose())


@pytest.mark.parametrize("ours", [False, True])
def test_what_is_behind_opentelemetry_cannot_always_be_told(configured, logger, monkeypatch, ours):
    """
    Where a processor of ours may be wrapped in another; where none was imported, there is none.
    """
    logger.handlers[:] = [LoggingHandler(logger_provider=provider_of(mock.Mock()))]
    if not ours:
        monkeypatch.delitem(sys.modules, "userlens_instrument.integrations.opentelemetry.logs")

    found = diagnose(logger)

    assert ["behind_opentelemetry" if ours else "no_handler"] == codes(found)
    assert ours is found.arrives


# ---------------------------------------------------------------- the client


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "no_write_code"),
        ({"USERLENS_WRITE_CODE": "x", "USERLENS_DISABLED": "1"}, "disabled"),
        ({"USERLENS_WRITE_CODE": "x", "USERLENS_DRY_RUN": "1"}, "dry_run"),
        ({"USERLENS_WRITE_CODE": "x", "USERLENS_MAX_WORKERS": "many"}, "settings"),
        ({"USERLENS_WRITECODE": "x"}, "misspelled"),
    ],
)
def test_settings(logger, monkeypatch, variables, expected):
    """
    What the environment says, or does not say.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    found = diagnose(logger)

    assert expected in codes(found)
    assert "x" not in [finding.problem for finding in found.findings]


def test_a_client_of_its_own(logger):
    """
    What counts are the settings of the handlers and processors on the way, not the default's.
    """
    userlens.configure(dry_run=True)
    logger.handlers[:] = [UserlensHandler(write_code=WRITE_CODE)]
    assert [] == codes(diagnose(logger))
    logger.addHandler(UserlensHandler(write_code=WRITE_CODE, disabled=True))
    assert ["disabled"] == codes(diagnose(logger))
    client = userlens.Client(userlens.Settings(write_code=WRITE_CODE))

    assert [] == codes(diagnose(chain(UserlensProcessor(client), JSON)))
    assert ["dry_run"] == codes(diagnose(chain(UserlensProcessor(), JSON)))
    client.close(0)


def test_what_has_been_counted(logger):
    """
    Losses so far, each with its number, what it means, and what to do.
    """
    userlens.configure(dry_run=True, max_body_bytes=8192)
    logger.info("A", extra={"userlens_event": True})
    logger.info("B", extra={"userlens_event": 3, "user_id": "u"})
    userlens.shutdown(PATIENCE)
    userlens.track("u", "C")

    found = diagnose(logger)

    assert ["dry_run", "invalid_tag", "missing_user_id", "closed"] == codes(found)
    assert "1 so far: lines without a user" == found.findings[2].problem


def test_held_back(logger):
    """
    While Userlens refuses the write code, that is what stands in the way.
    """
    with ScriptedServer(lambda request: Reply(status=401)) as server:
        client = userlens.configure(WRITE_CODE, events_url=server.url)
        logger.info("A", extra={"userlens_event": True, "user_id": "u"})
        assert server.wait_for(1)
        client.flush(0.2)

        found = diagnose(logger)

        assert ["held_back"] == codes(found)
        assert "Userlens refuses the write code: 1 events are held" in str(found)
        assert WRITE_CODE not in str(found)


def test_the_page_lists_every_finding():
    """
    docs/troubleshooting.md tells of each code, and of no other.
    """
    root = Path(__file__).parents[1]
    source = (root / "userlens_instrument" / "diagnosis.py").read_text("utf-8")
    made = set(re.findall(r'code="(\w+)"', source)) | set(REASONS)
    page = (root / "docs" / "troubleshooting.md").read_text("utf-8")

    assert made == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
