"""
Faults: how the inspector is told to answer badly.

A fault is one JSON object in ``POST /api/faults`` (or a list of them), or a `Fault` in Python:

=============== ============================== ==============================================
key             value                          meaning
=============== ============================== ==============================================
``status``      200 to 599                     answer with this status
``delay``       0 to 300, in seconds           answer that much later
``drop``        true                           close the connection; not one byte of an answer
``retry_after`` text or a whole number         send it as ``Retry-After``; needs ``status``
``location``    text                           send it as ``Location``; needs ``status``
``accept``      true                           judge and keep the request all the same: the
                                               answer is lost, the event is not; needs
                                               ``status`` or ``drop``
``count``       1 to 1 000 000, default 1      for so many requests
``path``        ``/event`` or ``/raw/event``   only for requests to this path
``userId``      text (Python: ``user_id``)     only for requests that hold this user's events
=============== ============================== ==============================================

At least one of ``status``, ``delay`` and ``drop`` is needed. With a ``delay`` alone the request
is judged and kept as always, and answered late. Faults queue up: each request uses up one of the
first fault that fits it.
"""

from dataclasses import dataclass
from typing import Any, Final

from userlens_instrument.exceptions import SettingsError


PATHS: Final = ("/event", "/raw/event")

# Longer than any client's timeout; a forgotten fault of an hour would look like a hang.
_MAX_DELAY: Final = 300.0
_MAX_COUNT: Final = 1_000_000
_MAX_TEXT: Final = 1_000

_NAMES: Final = {
    "accept": "accept",
    "count": "count",
    "delay": "delay",
    "drop": "drop",
    "location": "location",
    "path": "path",
    "retry_after": "retry_after",
    "status": "status",
    "userId": "user_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A way to answer badly, for the next requests that fit.

    Attributes:
        status: The status to answer with; None for the ordinary answer.
        delay: How much later to answer, in seconds.
        drop: Whether to close the connection without an answer.
        retry_after: The ``Retry-After`` to send, as is: nonsense is a case worth testing.
        location: The ``Location`` to send, for a redirect that nobody should follow.
        accept: Whether to judge and keep the request although the answer is the fault.
        count: For how many requests.
        path: Only for requests to this path; None for both.
        user_id: Only for requests that hold an event of this user; None for all.
    """

    status: int | None = None
    delay: float = 0.0
    drop: bool = False
    retry_after: str | None = None
    location: str | None = None
    accept: bool = False
    count: int = 1
    path: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        """
        Check the parts and that they go together.

        Raises:
            SettingsError: If not; says what to do about it.
        """
        self._check_values()
        if self.status is None and not self.drop and not self.delay:
            raise SettingsError("fault", "does nothing", "give it a status, a delay or drop")
        if self.drop and self.status is not None:
            raise SettingsError("fault", "has both status and drop", "a dropped answer has none")
        if self.accept and self.status is None and not self.drop:
            raise SettingsError(
                "fault.accept", "is of no use", "without status or drop all requests are judged"
            )
        if self.status is None and (self.retry_after, self.location) != (None, None):
            raise SettingsError(
                "fault", "has an answer's header but no status", "give it a status, such as 429"
            )

    @property
    def swallows(self) -> bool:
        """Whether a request is answered without being looked at."""
        return (self.status is not None or self.drop) and not self.accept

    def fits(self, path: str, user_ids: frozenset[str]) -> bool:
        """
        Tell whether this is for a request.

        Args:
            path: Where the request went.
            user_ids: The users whose events it holds.
        """
        return self.path in (None, path) and (self.user_id is None or self.user_id in user_ids)

    def as_dict(self) -> dict[str, Any]:
        """Return it in the form that ``POST /api/faults`` takes."""
        return {key: getattr(self, name) for key, name in _NAMES.items()}

    def _check_values(self) -> None:
        """Check each part by itself; in Python, too, they come from anywhere."""
        delay: Any = self.delay
        user_id: Any = self.user_id
        if self.status is not None and not (_is_int(self.status) and 200 <= self.status <= 599):
            raise SettingsError("fault.status", "is no final status", "use 200 to 599")
        if (
            not (_is_int(delay) or isinstance(delay, float))
            or not 0 <= delay <= _MAX_DELAY  # NaN is not, either
        ):
            raise SettingsError("fault.delay", "is no such time", "use 0 to 300 seconds")
        if not (_is_int(self.count) and 1 <= self.count <= _MAX_COUNT):
            raise SettingsError("fault.count", "is no such number", "use 1 to 1000000")
        for name in ("drop", "accept"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"fault.{name}", "is not a boolean", "use true or false")
        for name in ("retry_after", "location"):
            if not _is_header(getattr(self, name)):
                raise SettingsError(f"fault.{name}", "is no header value", "use printable ASCII")
        if self.path not in (None, *PATHS):
            raise SettingsError("fault.path", "is unknown", "use /event or /raw/event")
        if user_id is not None and not (isinstance(user_id, str) and user_id):
            raise SettingsError("fault.userId", "is no user id", "use a string that is not empty")


def parse_fault(value: Any) -> Fault:
    """
    Build a fault from its JSON form.

    Args:
        value: What ``POST /api/faults`` was sent; a key with null counts as left out.

    Returns:
        The fault.

    Raises:
        SettingsError: If it is none; says what to do about it.
    """
    if not isinstance(value, dict):
        raise SettingsError("fault", "is not an object", 'send one such as {"status": 503}')
    given = {key: part for key, part in value.items() if part is not None}
    if not given.keys() <= _NAMES.keys():
        raise SettingsError("fault", "has an unknown key", "the keys are " + ", ".join(_NAMES))
    if _is_int(given.get("retry_after")):
        given["retry_after"] = str(given["retry_after"])
    return Fault(**{_NAMES[key]: part for key, part in given.items()})


def _is_int(value: object) -> bool:
    """Tell whether *value* is an integer; True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_header(value: object) -> bool:
    """Tell whether *value* can be sent as a header; a line break would be a header of its own."""
    return value is None or (
        isinstance(value, str)
        and value.isascii()
        and value.isprintable()
        and len(value) <= _MAX_TEXT
        and value == value.strip()
    )
