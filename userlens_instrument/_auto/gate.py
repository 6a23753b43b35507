"""The gate between what is logged and the entrances, which are loaded late."""

from __future__ import annotations

import _thread
import os
import sys
from _collections_abc import Mapping


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any, TypeAlias

    # A frame that calls something: by its identity, because whoever holds a frame
    # holds everything that is in it; its code; and the instruction.
    Call: TypeAlias = tuple[int, CodeType, int]
    # The very text of a line, if that is its own; else the identities of the
    # tag and of the text, which tell it within the call.
    Mark: TypeAlias = str | tuple[int, int]

    TakeRecord = Callable[[logging.LogRecord], object]
    TakeLine = Callable[[Any, str, Any], object]


TAG = "userlens_event"

# Seconds that a line, or a fork, waits while another thread loads the
# entrances. It takes a tenth of that.
_PATIENCE = 1.0
# Times that loading may fail, each with a line, before it is given up: what is
# being imported just now by somebody else can be imported a moment later.
_MOST_ATTEMPTS = 10
# Lines that wait for a thread that has not finished in that time.
_MOST_WAITING = 1_000


class _OfThread(_thread._local):  # noqa: SLF001 - threading's, without its weight
    """What one processor, or processor and logger, have to tell each other on a thread."""

    #: The event dict, its text before formatting, and the arguments, of the line under way.
    said: tuple[object, object, tuple[object, ...]] | None = None
    #: The logger's name, the call within which a line that has been taken is its next
    #: record, and what tells that record as well, see `Mark`.
    repeats: tuple[str, Call | None, Mark | None] | None = None


of_thread = _OfThread()


# Frames between a processor and what calls the chain, and between that and a
# record, at most: structlog's own are three and six.
_NEAR = 32


def skip_record(logger: Any, level: int | None, mark: Mark | None = None) -> None:
    """
    Have the record that *logger* is about to make of a line on this thread not taken again.

    Args:
        logger: What structlog wraps; if it is none of `logging`, there is no record.
        level: The level's number; None if it is not known.
        mark: What tells the record, as long as the line is not rendered; None if nothing does.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return
    while isinstance(logger, logging.LoggerAdapter):
        logger = logger.logger
    if not isinstance(logger, logging.Logger):
        return
    if level is None or logger.isEnabledFor(level):
        of_thread.repeats = (logger.name, _calls_chain(), mark)


def forget_repeats() -> None:
    """
    Forget a line that did not become a record, now that another one comes.

    Its frame is gone, and the memory may be that of another such call by now:
    the one that calls this chain. A line within a line is in another frame.
    """
    repeats, here = of_thread.repeats, _calls_chain()
    if repeats is None or repeats[1] is None or here is None or repeats[1][0] == here[0]:
        of_thread.repeats = None


def _calls_chain() -> Call | None:
    """Return what runs the chain, and then calls the logger; None if it is not known."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as logging's own findCaller
    for _ in range(_NEAR):
        if frame is None or frame.f_code.co_name == "_process_event":
            break
        frame = frame.f_back
    else:
        return None
    frame = None if frame is None else frame.f_back
    return None if frame is None else (id(frame), frame.f_code, frame.f_lasti)


def is_under_way(call: Call | None) -> bool:
    """
    Return whether *call* is on this thread's stack, and past the chain; or unknown.

    A renderer may raise, and then there is no record of the line: the next one
    of that logger is another. And so is what is logged within the chain.
    """
    if call is None:
        return True
    known, code, at = call
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as above
    for _ in range(_NEAR):
        if frame is None:
            break
        if id(frame) == known and frame.f_code is code:
            return frame.f_lasti != at
        frame = frame.f_back
    return False


class Gate:
    """
    Hands on what is logged to the entrances; loads them with the first line that may need them.

    Attributes:
        take_record: Takes a record of `logging`. Never raises an `Exception`.
        take_line: Takes what structlog calls a processor with. Never raises an `Exception`.
    """

    def __init__(self) -> None:
        """Start closed."""
        self.take_record: TakeRecord = _ignore
        self.take_line: TakeLine = _ignore
        self._make_entrances: Callable[[], tuple[TakeRecord, TakeLine]]
        self._is_open = False
        self._is_loaded = False
        self._loading_by: int | None = None
        self._is_slow = False
        self._has_rules: bool | None = None
        self._attempts = 0
        self._reason = ""
        # Reentrant: a signal handler may log while this thread loads.
        self._lock = _thread.RLock()
        self._held_by: int | None = None
        self._watches_forks = False
        self._waiting: list[Callable[[], object]] = []

    def open(self, make_entrances: Callable[[], tuple[TakeRecord, TakeLine]]) -> None:
        """
        Take what comes.

        Args:
            make_entrances: Imports and makes what takes records, and what takes lines of
                structlog. Called once, if it does not raise.
        """
        self._make_entrances = make_entrances
        self._is_open = True
        self._is_loaded = False
        self._attempts = 0
        self._has_rules = None
        self.take_record = self._first_record
        self.take_line = self._first_line

    def close(self) -> None:
        """Take nothing any more."""
        self._is_open = False
        self.take_record = self.take_line = _ignore

    def _first_record(self, record: logging.LogRecord) -> None:
        if is_tagged(record) or self._may_have_rules():
            if self._load():
                self.take_record(record)
            else:
                self._wait(lambda: self.take_record(record))

    def _first_line(self, logger: Any, method_name: str, event_dict: Any) -> None:
        if not (self._may_have_rules() or _has_tag(event_dict) or is_tagged_text(event_dict)):
            return
        if self._load():
            self.take_line(logger, method_name, event_dict)
        elif type(event_dict) is dict:
            copy = event_dict.copy()  # the line is about to be rendered
            skip_record(logger, None)
            self._wait(lambda: self.take_line(logger, method_name, copy))

    def _may_have_rules(self) -> bool:
        """Return whether a line without a tag may matter."""
        if "userlens_instrument.client" in sys.modules:
            return True  # whoever has imported it may have given it rules
        if self._has_rules is None:
            # Asked once: a look into the environment costs more than all the rest here.
            self._has_rules = bool(os.environ.get("USERLENS_RULES"))
        return self._has_rules

    def _load(self) -> bool:
        """
        Load the entrances, if that has not been done.

        Returns:
            Whether they are loaded. Not if this thread is at it just now, further
            up, nor if another one is and takes too long.
        """
        lock = self._lock  # a fork in here has another one in the child
        if lock.acquire(timeout=0 if self._is_slow else _PATIENCE):
            try:
                if not self._is_loaded and self._loading_by is None:
                    self._load_now()
            finally:
                lock.release()
        else:
            self._is_slow = True  # no line waits a second time
        return self._is_loaded

    def _load_now(self) -> None:
        self._loading_by = _thread.get_ident()
        try:
            take_record, take_line = self._make_entrances()
        except Exception as error:
            self._attempts += 1
            self._reason = f"{type(error).__name__}: {error}"
            if self._attempts < _MOST_ATTEMPTS:
                return
            self._give_up(self._reason)
        else:
            if self._is_open:
                self.take_record, self.take_line = take_record, take_line
        finally:
            self._loading_by = None
        self._is_loaded = True
        self._take_waiting()

    def _give_up(self, reason: str) -> None:
        self._reason = reason
        self._waiting.clear()
        self.take_record = self.take_line = self._refuse

    def _refuse(self, *taken: object) -> None:  # noqa: ARG002 - whatever there is to take
        """Say once why nothing is captured."""
        self.take_record = self.take_line = _ignore
        say(f"nothing is captured: {self._reason}")

    def _wait(self, take: Callable[[], object]) -> None:
        """Have *take* called once the entrances are loaded."""
        if len(self._waiting) >= _MOST_WAITING:
            self._give_up("a thread that was to load what captures does not get on")
            return
        self._waiting.append(take)
        if self._is_loaded:  # meanwhile, by another thread
            self._take_waiting()

    def _take_waiting(self) -> None:
        while self._waiting:
            try:
                take = self._waiting.pop(0)
            except IndexError:  # another thread was faster
                return
            take()

    def at_exit(self) -> None:
        """Take what still waits: whoever was to load the entrances did not get to the end."""
        if not self._waiting:
            return
        if self._load():
            self._take_waiting()
        else:
            self._give_up(self._reason or "a thread that was to load what captures does not get on")
            self._refuse()

    def before_fork(self) -> None:
        """
        Let nobody be in the midst of loading.

        In the child, what the thread was importing would stay locked for good.
        """
        if self._lock.acquire(timeout=_PATIENCE):
            self._held_by = _thread.get_ident()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held_by == _thread.get_ident():
            self._held_by = None
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with nothing that waits: it is the parent's."""
        self._waiting = []
        self._is_slow = False
        self._lock = _thread.RLock()
        self._held_by = None
        if self._loading_by not in (None, _thread.get_ident()):
            # Whoever imported it then hangs: that thread is not here.
            self._give_up("the process was forked while a thread was loading what captures")

    def watch_forks(self) -> None:
        """
        Have the above called, once.

        Not before logging has registered hooks of its own: they run in reverse,
        and to wait for a thread that loads, with the lock of logging held,
        would be in vain.
        """
        if not self._watches_forks and hasattr(os, "register_at_fork"):
            self._watches_forks = True
            os.register_at_fork(
                before=self.before_fork,
                after_in_parent=self.after_fork_in_parent,
                after_in_child=self.after_fork_in_child,
            )


def _ignore(*taken: object) -> None:
    """Take nothing."""


gate = Gate()


def is_tagged(record: logging.LogRecord) -> bool:
    """Return whether there is a tag anywhere on *record*; what cannot be read may have one."""
    try:
        fields = record.__dict__
        msg, args = fields.get("msg"), fields.get("args")
        return (
            TAG in fields
            or (type(msg) is not str and _has_tag(msg))
            or (type(args) is not tuple and _has_tag(args))
        )
    except Exception:
        return True  # as below


def is_tagged_text(line: object) -> bool:
    """Return whether *line* has been rendered, and with a tag in it."""
    return (type(line) is str and TAG in line) or (type(line) is bytes and TAG.encode() in line)


def _has_tag(place: object) -> bool:
    try:
        return isinstance(place, Mapping) and TAG in place
    except Exception:
        return True  # an entrance finds out, and counts it


def say(line: str) -> None:
    """Say what no entrance is there to say."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger("userlens_instrument").error("%s", line)
