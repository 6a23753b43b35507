"""
What ``userlens-instrument run`` puts into a program: it looks on while the program logs.

The program's logging stays as it is: no handler is attached and no level is set,
and nothing that the program or a framework sets up later takes this away.

A program that never logs pays for none of it. `logging` and structlog are not
imported here but waited for, and the entrances, which take a tenth of a second
to import, are loaded by the first line that may become an event.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys

from userlens_instrument._auto import lines, records
from userlens_instrument._auto.gate import gate, say
from userlens_instrument._auto.imports import Watcher


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from userlens_instrument._auto.gate import TakeLine, TakeRecord


def install() -> None:
    """
    Take what this process logs from now on, by the settings of the environment.

    For who cannot start a program by ``userlens-instrument run``. Called twice,
    it is installed once. Never raises.

    .. versionadded:: 0.1.0
    """
    _change(wanted=True)


def uninstall() -> None:
    """
    Take nothing any more, and leave `logging` and structlog as they were.

    .. versionadded:: 0.1.0
    """
    _change(wanted=False)


def is_installed() -> bool:
    """
    Return whether what this process logs is taken.

    .. versionadded:: 0.1.0
    """
    return _watcher in sys.meta_path


class _State:
    """What is wanted, and who is at it."""

    def __init__(self) -> None:
        self.wanted = False
        self.is_changing = False
        # Reentrant: a signal handler may call either function within either.
        self.lock = _thread.RLock()


_state = _State()


def _change(*, wanted: bool) -> None:
    """Install or take back, one caller at a time; the last one who wants something gets it."""
    _state.wanted = wanted
    with _state.lock:
        if _state.is_changing:
            return  # further up on this thread, where it is seen
        _state.is_changing = True
        try:
            while _state.wanted != is_installed():
                if _state.wanted:
                    _put_in()
                else:
                    _take_back()
        finally:
            _state.is_changing = False


def _put_in() -> None:
    while _undo:  # of a module that was imported while it was taken back
        _undo.pop()()
    gate.open(_load)
    sys.meta_path.insert(0, _watcher)
    for name, hook in _watcher.hooks.items():
        module = sys.modules.get(name)
        if module is not None:
            hook(module)


def _take_back() -> None:
    gate.close()
    sys.meta_path.remove(_watcher)
    while _undo:
        _undo.pop()()


def _after_fork_in_child() -> None:
    # Whoever held the lock, or was half-way, is not here.
    _state.lock = _thread.RLock()
    _state.is_changing = False


def _load() -> tuple[TakeRecord, TakeLine]:
    from userlens_instrument._auto.entrances import make_entrances  # noqa: PLC0415 - see above

    return make_entrances()


_undo: list[Callable[[], object]] = []


def _by(watch: Callable[[ModuleType], Callable[[], object] | None]) -> Callable[[ModuleType], None]:
    def hook(module: ModuleType) -> None:
        try:
            undo = watch(module)
        except Exception as error:
            # It is the application's import that would fail.
            say(f"{module.__name__} is not as it is known ({error!r}): it is not captured")
            return
        if undo is not None:
            _undo.append(undo)

    return hook


_watcher = Watcher({"logging": _by(records.watch), "structlog._config": _by(lines.watch)})

# The first hook to be registered, so the last to run.
atexit.register(gate.at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch - POSIX, where there is a fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
