"""A program under the wrapper prints what it prints without: byte by byte, errors and all."""

from __future__ import annotations

import sys

import pytest
from wrapping import run, what_is_seen, write_rules


# Each of them has lines that a rule or a tag makes events of.
PROGRAMS = {
    "basicConfig": """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(lineno)d %(message)s")
def work():
    logging.getLogger("billing").info("Invoice %s paid by %s", "i1", "u1", extra={"a": 1})
work()
""",
    "no configuration": """
import logging
logging.getLogger("billing").info("Invoice %s paid by %s", "i1", "u1")
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
logging.getLogger("billing").warning("tagged", extra={"userlens_event": True, "user_id": "u"})
logging.lastResort = None
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
""",
    "every attribute": """
import logging, json
class Everything(logging.Formatter):
    def format(self, record):
        return json.dumps(sorted((name, str(value)) for name, value in vars(record).items()
            if name not in ("created", "msecs", "relativeCreated", "process", "thread")))
handler = logging.StreamHandler()
handler.setFormatter(Everything())
log = logging.getLogger("billing")
log.addHandler(handler)
log.warning("Invoice %s paid by %s", "i1", "u1", extra={"b": [2]}, stack_info=True)
log.warning("tagged", extra={"userlens_event": {"event": "E"}, "user_id": "u"}, stacklevel=2)
""",
    "errors in handlers": """
import logging
class Bad:
    def __str__(self):
        raise ValueError("bad")
    def __repr__(self):
        return "Bad()"
def work():
    log = logging.getLogger("billing")
    log.warning("Invoice %s paid by %s", Bad(), "u1")
    log.warning("Invoices: %d", "i1")
    log.warning("Invoices: %s %s", "i1", extra={"userlens_event": "Listed", "user_id": "u1"})
logging.basicConfig()
work()
""",
    "handlers that raise": """
import logging, traceback
class Raising(logging.Handler):
    def emit(self, record):
        raise RuntimeError(record.getMessage())
log = logging.getLogger("billing")
log.addHandler(Raising())
try:
    log.warning("Invoice %s paid by %s", "i1", "u1")
except RuntimeError:
    traceback.print_exc()
log.warning("Invoice %s paid by %s", "i2", "u1")
""",
    "handlers that look at the stack": """
import inspect, logging, traceback, sys
class Looking(logging.Handler):
    def emit(self, record):
        traceback.print_stack()
        # As handlers for loguru find the depth of the caller.
        frame, depth = inspect.currentframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame, depth = frame.f_back, depth + 1
        print(depth, frame.f_code.co_name, sys._getframe(5).f_code.co_name)
log = logging.getLogger("billing")
log.addHandler(Looking())
def work():
    log.warning("Invoice %s paid by %s", "i1", "u1")
work()
""",
    "filters that look at the stack": """
import logging, sys
class Looking(logging.Filter):
    def filter(self, record):
        frame = sys._getframe(1)
        while frame.f_code.co_filename == logging.__file__:
            frame = frame.f_back
        record.caller = frame.f_code.co_name
        return True
log = logging.getLogger("billing")
log.addFilter(Looking())
logging.basicConfig(format="%(caller)s %(message)s")
def work():
    log.warning("Invoice %s paid by %s", "i1", "u1")
work()
""",
    "filters": """
import logging
log = logging.getLogger("billing")
log.addFilter(lambda record: "i1" in record.args)
logging.basicConfig(format="%(message)s")
log.warning("Invoice %s paid by %s", "i1", "u1")
log.warning("Invoice %s paid by %s", "i2", "u1")
print(log.filter(logging.makeLogRecord({"args": ["i1"]})) is not False, log.filter.__name__)
""",
    "exceptions": """
import logging
logging.basicConfig()
def work():
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("billing").exception("Invoice %s paid by %s", "i1", "u1")
work()
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
raise SystemExit(4)
""",
    "dictConfig": """
import logging.config
logging.config.dictConfig({"version": 1,
    "formatters": {"f": {"format": "%(name)s %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "loggers": {"billing": {"handlers": ["h"], "propagate": False}}})
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
logging.getLogger("other").warning("plain")
print(logging.getLogger().handlers, logging.getLogger("billing").handlers, logging.root.level)
""",
    "a queue": """
import logging, logging.handlers, queue
logs = queue.Queue()
target = logging.StreamHandler()
listener = logging.handlers.QueueListener(logs, target)
log = logging.getLogger("billing")
log.addHandler(logging.handlers.QueueHandler(logs))
listener.start()
log.warning("Invoice %s paid by %s", "i1", "u1")
listener.stop()
""",
    "structlog as it comes": """
import structlog
structlog.configure(processors=[each for each in structlog.get_config()["processors"]
    if type(each).__name__ != "TimeStamper"])
log = structlog.get_logger("billing")
log.info("tagged", userlens_event=True, user_id="u1", n=1)
log.warning("plain", stack_info=True)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("Invoice paid", user_id="u1")
print(log)
""",
    "structlog as JSON to logging": """
import logging, structlog
logging.basicConfig(format="%(levelname)s %(name)s %(funcName)s %(message)s", level=0)
structlog.configure(processors=[structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(), structlog.processors.JSONRenderer()],
    wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())
log = structlog.get_logger("billing")
def work():
    log.info("Invoice %s paid by %s", "i1", "u1", more=1)
    log.info("tagged", userlens_event=True, user_id="u1")
    log.bind(x=1).error("Invoice %s paid by %s", "i1", "u1")
work()
""",
    "structlog through a ProcessorFormatter": """
import logging, structlog
shared = [structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level]
structlog.configure(processors=[*shared, structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True)
handler = logging.StreamHandler()
handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[
    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    structlog.dev.ConsoleRenderer(colors=False)]))
logging.getLogger().addHandler(handler)
structlog.get_logger("billing").warning("Invoice %s paid by %s", "i1", "u1")
structlog.get_logger("billing").warning("tagged", userlens_event=True, user_id="u1")
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
""",
    "structlog as keyword arguments of logging": """
import logging, structlog
logging.basicConfig(format="%(name)s %(message)s %(user_id)s")
structlog.configure(processors=[structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger)
structlog.get_logger("billing").warning("Invoice paid", user_id="u1")
structlog.get_logger("billing").warning("tagged", userlens_event=True, user_id="u1")
""",
    "structlog around what is no logger of logging": """
import logging, structlog
logging.basicConfig(format="%(name)s %(message)s %(user_id)s %(userlens_event)s %(svc)s")
class Merge(logging.LoggerAdapter):
    def process(self, msg, kwargs):
        return msg, {**kwargs, "extra": {**self.extra, **kwargs["extra"]}}
def short(record):
    record.name = record.name.split(".")[-1]
    return True
logging.getLogger("app.billing").addFilter(short)
log = structlog.wrap_logger(Merge(logging.getLogger("app.billing"), {"svc": "x"}),
    processors=[structlog.stdlib.render_to_log_kwargs], wrapper_class=structlog.stdlib.BoundLogger)
log.warning("tagged", userlens_event=True, user_id="u1")
log.warning("tagged", userlens_event={"event": "E"}, user_id="u1")
""",
    "structlog with renderers that raise": """
import structlog, traceback
def render(logger, name, event_dict):
    traceback.print_stack()
    raise ValueError("mine")
def to_json(logger, name, event_dict):
    return repr(event_dict)
def add_newline(logger, name, text):
    return text + "\\n"
structlog.configure(processors=[structlog.stdlib.add_log_level, to_json, add_newline])
structlog.get_logger().info("plain")
for number in range(3):
    structlog.get_logger().info("tagged", userlens_event=True, user_id="u1", n=number)
structlog.configure(processors=[structlog.stdlib.add_log_level, render])
print(structlog.get_config()["processors"][1].__name__)
structlog.get_logger().info("tagged", userlens_event=True, user_id="u1")
""",
    "structlog that is misused": """
import structlog, traceback, warnings
structlog.configure(processors=(structlog.processors.JSONRenderer(),))
structlog.configure_once(processors=[])
print(type(structlog.get_config()["processors"]))
def fails(logger, name, event_dict):
    raise RuntimeError("mine")
for wrong in (lambda: structlog.configure(nonsense=1), lambda: structlog.wrap_logger(),
              lambda: structlog.wrap_logger(None, processors=[fails, fails]).info("x")):
    try:
        wrong()
    except Exception:
        traceback.print_exc()
structlog.reset_defaults()
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
structlog.get_logger().info("x")
structlog.configure(processors=[])
try:
    structlog.get_logger().info("x", userlens_event=True, user_id="u")
except TypeError as error:
    print(error)
""",
    "structlog under test": """
import structlog
from structlog.testing import capture_logs
with capture_logs() as lines:
    structlog.get_logger().info("tagged", userlens_event=True, user_id="u1")
print(lines)
""",
    "imports that are looked at": """
import importlib, importlib.util, inspect, logging, structlog, structlog._config
for module in (logging, structlog, structlog._config):
    spec = module.__spec__
    print(type(module.__loader__), type(spec.loader), spec.origin, module.__file__)
    print(type(importlib.util.find_spec(module.__name__).loader).__mro__[-1])
print(inspect.signature(structlog.configure), structlog.configure.__module__)
print(inspect.signature(structlog.wrap_logger), type(structlog._config._CONFIG).__qualname__)
print(inspect.signature(structlog._config.BoundLoggerLazyProxy))
print(inspect.signature(logging.Logger.filter), logging.Logger.filter.__qualname__)
print(sorted(vars(structlog)), sorted(vars(logging)))
""",
    "a pickled logger": """
import pickle, copy, structlog
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
log = structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level,
    structlog.processors.JSONRenderer()])
chain = structlog.get_config()["processors"]
print(copy.deepcopy(chain)[-1].__class__, pickle.loads(pickle.dumps(log))._logger)
log.info("tagged", userlens_event=True, user_id="u1")
""",
    "Ctrl+C": """
import logging, os, signal
logging.getLogger("billing").warning("plain")
os.kill(os.getpid(), signal.SIGINT)
""",
    "SIGTERM": """
import logging, os, signal
logging.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
os.kill(os.getpid(), signal.SIGTERM)
""",
    "logging at the exit": """
import atexit, logging
logging.basicConfig(format="%(message)s")
atexit.register(logging.getLogger("billing").warning, "Invoice %s paid by %s", "i1", "u1")
""",
    "a file of its own by the name": """
import logging, sys
logging.basicConfig(format="%(message)s")
sys.modules.pop("logging")
import logging as again
print(again is logging)
again.basicConfig(format="again %(message)s")
again.getLogger("billing").warning("Invoice %s paid by %s", "i1", "u1")
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_prints_is_the_same(server, tmp_path, name):
    """Standard output, standard error and the exit status, be what is logged an event or not."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[name], "utf-8")
    words = [sys.executable, program]
    options = ["--rules", write_rules(tmp_path)]
    plain = what_is_seen(run(words, server.url, plain=True))

    assert plain == what_is_seen(run(words, server.url, options=options))
