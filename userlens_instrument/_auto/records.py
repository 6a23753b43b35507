"""
Records of `logging`, taken in `Logger.filter`.

That is the step before `Logger.callHandlers`: the logger has let the record
through, and no handler has had it. Around `callHandlers` itself, a frame of ours
would be on the stack while the handlers run, and in every traceback out of them.
"""

from __future__ import annotations

from userlens_instrument._auto.gate import gate, of_thread


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def watch(module: ModuleType) -> Callable[[], object] | None:
    """
    Look at each record that a logger lets through.

    Args:
        module: `logging`, or what else the application calls so.

    Returns:
        What takes it back.
    """
    logger_class = getattr(module, "Logger", None)
    if logger_class is None:
        return None
    own = logger_class.__dict__.get("filter")
    patched = _make_filter(logger_class.filter, module.LogRecord)
    gate.watch_forks()
    logger_class.filter = patched

    def undo() -> None:
        if logger_class.__dict__.get("filter") is not patched:
            return  # somebody else has wrapped it, and goes on with a closed gate
        if own is None:
            del logger_class.filter
        else:
            logger_class.filter = own

    return undo


def _make_filter(original: Any, record_class: type[Any]) -> Any:
    def filter(self: Any, record: Any) -> Any:  # noqa: A001 - logging's name
        passed: Any = original(self, record)  # pragma: no cover - counted as a line of logging's
        if passed:  # pragma: no cover - as above
            gate.take_record(passed if isinstance(passed, record_class) else record)
        else:  # pragma: no cover - as above
            of_thread.repeats = None
        return passed  # pragma: no cover - as above

    # Whoever looks for the first frame outside of logging goes by the file's name.
    code = getattr(original, "__code__", None)
    if code is not None:
        filter.__code__ = filter.__code__.replace(
            co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
        )
    for name in ("__module__", "__qualname__", "__doc__", "__annotations__"):
        value = getattr(original, name, None)
        if value is not None:
            setattr(filter, name, value)
    return filter
