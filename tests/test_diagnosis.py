"""diagnose(): why the records of a logger would not arrive."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import re
import sys
import threading
from pathlib import Path

import pytest
import structlog
from helpers import PATIENCE, WRITE_CODE, Reply, ScriptedServer, run_python

import userlens_instrument as userlens
from userlens_instrument import UserlensHandler, UserlensProcessor, diagnose
from userlens_instrument.diagnosis import REASONS, Diagnosis, Finding


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
    assert [] == codes(diagnose(object()))
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


def test_what_is_no_logger(configured):
    """
    Anything else is looked at as if it were structlog's, and nothing raises.
    """

    class Broken:
        def bind(self):
            raise RuntimeError

    assert isinstance(diagnose(Broken()), Diagnosis)
    assert isinstance(diagnose(3), Diagnosis)


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
