"""
Settings: one frozen dataclass, each field with its unit.

A wrong value is one `SettingsError` at start-up that names the setting, the
problem and the fix. No message ever echoes a value: it could be the write code.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from userlens_instrument.exceptions import SettingsError


if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

    from userlens_instrument.events import Loss


ENVIRONMENT_PREFIX = "USERLENS_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

# Two ids, a name and the fixed words of a body, at their own limits, fit well
# within this; a smaller bound could refuse an event that has no properties.
_SMALLEST_BODY = 8 * 1024
# A day. Longer waits than that are typing mistakes (milliseconds for seconds).
_LONGEST_WAIT = 86_400.0
# A thousand times what Userlens asks to be told of.
_FASTEST_PACE = 10_000_000


@dataclass(frozen=True, slots=True)
class InlineRules:
    """
    Rules that were given as a list of dicts, fixed when they were given.

    Attributes:
        text: What was given as JSON: a value that compares, and that nobody changes later.
    """

    text: str

    @property
    def document(self) -> Any:
        """What was given: a list, or a mapping with the key ``rule``."""
        import json  # noqa: PLC0415 - for rules in code only: nobody else's start pays for it

        return json.loads(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Everything that can be set. Durations are seconds, sizes are bytes.

    Each field has an environment variable, ``USERLENS_`` and its name in
    capitals, that fills in where no argument is given; an argument wins.

    Attributes:
        write_code: The secret that authenticates to Userlens. Without one: one
            warning, then every event is counted as dropped and none is sent.
        events_url: Base URL for ``POST /event``.
        raw_url: Base URL for ``POST /raw/event``.
        delivery: ``event`` sends each event by itself; ``batch`` sends tracks of many
            users together, to ``raw_url``.
        batch_max_events: Most events of a batch.
        batch_max_bytes: Largest body of a batch, in bytes; a larger event goes alone.
        batch_linger: How long an event waits for company, in seconds; a flush cuts it short.
        max_workers: Most sender threads at a time. An idle sender holds one; where answers
            come at once, more than two would only contend, and stand aside.
        max_queue_events: Most events held in memory.
        max_queue_bytes: Most bytes of event bodies held in memory.
        overflow: What goes when the buffer is full: ``drop_newest`` or ``drop_oldest``.
        connect_timeout: Longest wait for a connection, in seconds.
        read_timeout: Longest wait for a whole answer, in seconds, however slowly it drips.
        max_attempts: Attempts that Userlens answered with a failure after which
            an event is set aside, if other events were delivered meanwhile.
        retry_for: Age in seconds after which an event that fails is not tried again.
        backoff_base: Upper bound of the first wait before a retry, in seconds.
        backoff_cap: Upper bound of every wait before a retry, in seconds.
        retry_after_cap: Longest wait that a ``Retry-After`` header can ask for, in seconds.
        probe_interval: Seconds between attempts while Userlens refuses the write
            code, redirects, or cannot prove who it is.
        shutdown_timeout: Longest that the interpreter's exit waits for delivery, in seconds.
        max_events_per_minute: Pace of delivery; ``None`` for as fast as it goes.
        send_timestamp: Whether a track carries the time when it happened. The
            published page does not list the field, the first-party SDK sends it.
        redact: Names of properties never sent in clear, beside the built-in
            ones; ``-name`` takes a built-in one away, ``-*`` all of them.
        allow: If given, the only properties and traits that are sent.
        max_string: Longest text of a property, in characters; the rest is cut and marked.
        max_properties: Most entries of a mapping or items of a list.
        max_depth: Deepest nesting of properties; 1 is a flat mapping.
        max_body_bytes: Largest body of one event, in bytes.
        user_id_keys: Names under which a record may hold the user id, best first.
        group_id_keys: Names under which a record may hold the group id, best first.
        spool: Path of a file that keeps events over the end of the process and through
            outages; all processes of a host may share it. ``None`` for memory alone.
        spool_sync: What an event survives once its log call has returned: ``process``, the
            end of the process, SIGKILL included; ``power``, a power cut; ``relaxed``, what
            comes some milliseconds later, for a log call that costs no disk access.
        spool_max_bytes: Largest size of the spool, in bytes; the oldest events make room.
        spool_max_age: Age in seconds after which an event in the spool is dropped. With a
            spool it takes the place of *retry_for*.
        rules: Path of a TOML file of rules, or a list of rules as dicts: which lines that
            are logged without a tag become events, see docs/rules.md.
        rules_reload: Read the file again when it has changed, looking at most every ten seconds.
        trace_context: Give each track the ``trace_id`` and ``span_id`` of OpenTelemetry's current
            span, if there is one.
        flush_on_sigterm: Deliver what is held when SIGTERM comes and nobody else handles it.
        dry_run: Do everything but open a socket; every event counts as delivered. A spool is
            left alone: what is in it is to be delivered in earnest.
        debug: Say each delivery in a line of diagnostics (never its properties).
        disabled: Do nothing at all; every event is counted as dropped.
        on_error: Called on a thread of ours with each `Loss`; what it raises is
            swallowed. A function, or its place as text: ``package.module:function``.

    Raises:
        SettingsError: If a value is wrong.

    .. versionadded:: 0.1.0
    """

    write_code: str | None = field(default=None, repr=False)
    events_url: str = "https://events.userlens.io"
    raw_url: str = "https://raw.userlens.io"
    delivery: str = "event"
    # 100: the most that the browser SDK keeps. 500 kB: what segment sends at most.
    batch_max_events: int = 100
    batch_max_bytes: int = 500_000
    batch_linger: float = 1.0
    max_workers: int = 8
    max_queue_events: int = 10_000
    max_queue_bytes: int = 32 * 1024 * 1024
    overflow: str = "drop_newest"
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    max_attempts: int = 10
    retry_for: float = 86_400.0
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    retry_after_cap: float = 600.0
    probe_interval: float = 60.0
    shutdown_timeout: float = 5.0
    max_events_per_minute: int | None = None
    send_timestamp: bool = True
    redact: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    # 128 attributes: OpenTelemetry's OTEL_ATTRIBUTE_COUNT_LIMIT. The rest are
    # this project's choice: generous for an event, small for a buffer.
    max_string: int = 4_096
    max_properties: int = 128
    max_depth: int = 6
    max_body_bytes: int = 64 * 1024
    user_id_keys: tuple[str, ...] = ("user_id", "userId", "userlens_user_id")
    group_id_keys: tuple[str, ...] = ("group_id", "groupId", "userlens_group_id")
    spool: str | None = None
    spool_sync: str = "process"
    # A gigabyte is some seven million events; a week is a long weekend's outage, twice.
    spool_max_bytes: int = 2**30
    spool_max_age: float = 7 * 86_400.0
    rules: str | InlineRules | None = None
    rules_reload: bool = False
    trace_context: bool = False
    flush_on_sigterm: bool = False
    dry_run: bool = False
    debug: bool = False
    disabled: bool = False
    on_error: Callable[[Loss], object] | None = None

    def __post_init__(self) -> None:
        """Check every field; the first wrong one is the error."""
        for item in fields(self):
            value = _CHECKS[item.name](item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        if self.backoff_cap < self.backoff_base:
            raise SettingsError(
                "backoff_cap", "is smaller than backoff_base", "give a larger number of seconds"
            )

    @classmethod
    def load(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """
        Return the settings that *given* and the environment make; *given* wins.

        Args:
            given: Settings by name, as passed to ``configure()`` or to a handler.
            environ: The environment; ``os.environ`` if absent.

        Raises:
            SettingsError: If a name is unknown or a value wrong, wherever it came from.
        """
        names = [item.name for item in fields(cls)]
        for name in given:
            if name not in names:
                raise _unknown(name, names)
        values = dict(given)
        origin = {}
        for name in names:
            variable = ENVIRONMENT_PREFIX + name.upper()
            text = (os.environ if environ is None else environ).get(variable, "")
            # An empty variable is how a deployment says "not set".
            if name in values or not text.strip():
                continue
            values[name] = _from_text(name, text, variable)
            origin[name] = variable
        try:
            return cls(**values)
        except SettingsError as error:
            if error.setting not in origin:
                raise
            raise SettingsError(
                error.setting, error.problem, error.fix, origin[error.setting]
            ) from None

    def evolve(self, **changes: Any) -> Settings:
        """Return settings that differ from these in *changes*, checked again."""
        return replace(self, **changes)


def load_what_is_right(
    given: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[SettingsError]]:
    """
    Return the settings without those that are wrong, and everything that is wrong.

    For who reports on settings: a program that starts is better told by `Settings.load`.

    Args:
        given: As of `Settings.load`.
        environ: As of `Settings.load`.

    Returns:
        Settings in which each wrong one has a value that hides no other error, mostly its
        default; and an error for each, in the order in which they are found.

    Raises:
        SettingsError: If a name of *given* is unknown.
    """
    taken = dict(given)
    wrong: list[SettingsError] = []
    while True:
        try:
            return Settings.load(taken, environ), wrong
        except SettingsError as error:  # noqa: PERF203 - a turn for each that is wrong
            item = Settings.__dataclass_fields__.get(error.setting)
            if item is None:
                raise
            wrong.append(error)
            # What is given wins, so each turn there is one wrong setting less.
            taken[item.name] = _HARMLESS.get(item.name, item.default)


def misspelled_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """
    Return variables that are nearly a setting's, each with the one that may have been meant.

    Not an error: the prefix is not ours alone, and an application's own
    ``USERLENS_TEAM_CHANNEL`` must not keep it from starting.
    """
    known = [ENVIRONMENT_PREFIX + item.name.upper() for item in fields(Settings)]
    found = []
    for name in os.environ if environ is None else environ:
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name not in known:
            near = nearest(name.upper(), known, cutoff=0.85)
            found += [(name, near)] if near else []
    return found


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return which of *known* was probably meant by *name*, or None if none was."""
    import difflib  # noqa: PLC0415 - for errors only: nobody else's start pays for it

    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return near[0] if near else None


def _unknown(name: object, names: list[str]) -> SettingsError:
    # Echoed only where it is nearly a setting's name: somebody may have put
    # the write code where a name belongs.
    near = nearest(str(name)[:64], names)
    if near:
        return SettingsError(str(name)[:64], "is not a setting", f"did you mean {near}?")
    return SettingsError(
        "a name", "is not that of a setting", f"the settings are {', '.join(names)}"
    )


def _from_text(name: str, text: str, variable: str) -> Any:
    """Return the value that an environment variable's *text* means."""
    default = Settings.__dataclass_fields__[name].default
    if name in _INTEGERS or name == "max_events_per_minute":
        number = _number(int, text)
        if number is None:
            raise SettingsError(name, "is not a whole number", "give digits only", variable)
        return number
    if isinstance(default, bool):
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise SettingsError(name, "is neither true nor false", "give true or false", variable)
        return word in _TRUE
    if isinstance(default, float):
        number = _number(float, text)
        if number is None:
            raise SettingsError(name, "is not a number", "give seconds", variable)
        return number
    if name == "allow" or isinstance(default, tuple):
        if any(mark in text for mark in "[]\"'"):
            raise SettingsError(name, "is not a list", "give names with commas between", variable)
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text.strip()


def _number(kind: type[float], text: str) -> float | None:
    # None, so that no error that echoes the text is the context of ours.
    try:
        return kind(text)
    except ValueError:
        return None


def _check_write_code(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise SettingsError(name, "is not text", "give the write code as a string")
    code = str.strip(value)
    if not code:
        return None
    if not (code.isascii() and code.isprintable()) or any(c in code for c in " :"):
        # It becomes the user name of HTTP basic authentication, where a colon
        # ends it; a line break would be another header.
        raise SettingsError(
            name,
            "has a character that no write code has",
            "copy it again from the Userlens settings, without spaces, colons or line breaks",
        )
    return code


def _check_url(name: str, value: Any) -> str:
    default = Settings.__dataclass_fields__[name].default
    if type(value) is str and value == default:
        return value  # almost everybody's, and known to be right
    fix = "give a URL such as https://events.userlens.io"
    parts = _split(value) if isinstance(value, str) else None
    if parts is None:
        raise SettingsError(name, "is not a URL", fix)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise SettingsError(name, "is not an http or https URL", fix)
    if parts.username is not None or "?" in value or "#" in value:
        raise SettingsError(name, "has a user, a query or a fragment", fix)
    if parts.scheme == "http" and not _is_local(parts.hostname):
        raise SettingsError(
            name,
            "would send the write code in clear over the internet",
            "use https (http is for a Userlens on this machine or on a private network)",
        )
    return str.rstrip(value, "/")


def _split(url: str) -> SplitResult | None:
    """Return the parts of *url*, or None if it is not one."""
    # Nothing that could end the line of a header, and nothing on which two
    # parsers of URLs disagree.
    if not url.isascii() or not url.isprintable() or any(c in url for c in ' %\\"<>^`{|}'):
        return None
    from urllib.parse import urlsplit  # noqa: PLC0415 - who has the usual URLs does not pay for it

    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return parts


def _is_local(host: str) -> bool:
    import ipaddress  # noqa: PLC0415 - as above

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot is another container of the same compose file
        # (unless it is a number, an old way to write any address); .internal
        # and .local are reserved for private networks (RFC 6762, ICANN).
        return host.endswith((".localhost", ".internal", ".local")) or (
            not any(c in host for c in ".:") and not host.isdigit() and not host.startswith("0x")
        )
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:8.8.8.8 is anywhere
    return (mapped or address).is_private


def _check_whole(name: str, value: Any) -> int:
    least, most = _INTEGERS[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(name, "is not a whole number", f"give {least} to {most}")
    if not least <= value <= most:
        raise SettingsError(name, "is out of range", f"give {least} to {most}")
    return value


def _check_pace(name: str, value: Any) -> int | None:
    if value is None:
        return None
    fix = f"give 1 to {_FASTEST_PACE}, or None"
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(name, "is not a whole number", fix)
    if not 1 <= value <= _FASTEST_PACE:
        raise SettingsError(name, "is out of range", fix)
    return value


def _check_seconds(name: str, value: Any) -> float:
    least, most = _SECONDS[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(name, "is not a number of seconds", f"give {least:g} to {most:g}")
    if not least <= value <= most:  # also refuses NaN
        raise SettingsError(name, "is out of range", f"give {least:g} to {most:g} seconds")
    return float(value)


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(name, "is neither true nor false", "give True or False")
    return value


def _check_overflow(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in {"drop_newest", "drop_oldest"}:
        raise SettingsError(name, "is no policy", "give 'drop_newest' or 'drop_oldest'")
    return value


def _check_delivery(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in {"event", "batch"}:
        raise SettingsError(name, "is no way of delivery", "give 'event' or 'batch'")
    return value


def _check_spool(name: str, value: Any) -> str | None:
    if value is None:
        return None
    fix = "give the path of a file on a local disk"
    if not isinstance(value, (str, os.PathLike)):
        raise SettingsError(name, "is not a path", fix)
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        raise SettingsError(name, "is not a path", fix)
    if not text.strip():
        return None
    if os.name != "posix":  # pragma: no cover - Windows
        raise SettingsError(name, "needs POSIX file locks", "leave it out on this system")
    path = _absolute(name, text)
    if text.endswith(os.sep) or os.path.isdir(path):  # noqa: PTH112 - as above
        raise SettingsError(name, "is a directory", "give the path of a file in it")
    return path


def _absolute(name: str, text: str) -> str:
    """Return the absolute path of this moment: a service may change its directory later."""
    try:
        return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - text in, text out
    except OSError:
        pass  # outside of the handler: a person gets one line
    raise SettingsError(name, "is relative to a directory that is gone", "give an absolute path")


def _check_rules(name: str, value: Any) -> str | InlineRules | None:
    if value is None or isinstance(value, InlineRules):
        return value
    fix = "give the path of a TOML file, or a list of rules as dicts"
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        if not isinstance(text, str) or "\0" in text:
            raise SettingsError(name, "is not a path", fix)
        if not text.strip():
            return None
        return _absolute(name, text)
    if isinstance(value, bytes):
        raise SettingsError(name, "is neither a path nor a list of rules", fix)
    import json  # noqa: PLC0415 - as above

    try:
        if isinstance(value, Mapping):
            document: Any = dict(value) if "rule" in value else [dict(value)]
        else:
            document = list(value)
        return InlineRules(json.dumps(document, default=_as_json))
    except (TypeError, ValueError, RecursionError):
        pass  # outside of the handler: the error's own text may echo the value
    raise SettingsError(name, "is neither a path nor a list of rules", fix)


def _as_json(value: object) -> object:
    # What logging's dictConfig makes of the dicts and lists of a configuration.
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def _check_sync(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in {"process", "power", "relaxed"}:
        raise SettingsError(name, "is no degree of safety", "give 'process', 'power' or 'relaxed'")
    return value


def _check_names(name: str, value: Any) -> tuple[str, ...]:
    # A lone text is a sequence of letters: the mistake everyone makes once.
    if isinstance(value, (str, bytes)):
        raise SettingsError(name, "is not a list of names", "put the name in a list")
    if not isinstance(value, Iterable):
        raise SettingsError(name, "is not a list of names", "give a list of names")
    names = tuple(value)
    if not all(isinstance(item, str) and item for item in names):
        raise SettingsError(name, "has an entry that is no name", "give non-empty strings only")
    # A set has another order in each process: equal settings stay equal.
    return tuple(sorted(names)) if isinstance(value, AbstractSet) else names


def _check_redact(name: str, value: Any) -> tuple[str, ...]:
    names = _check_names(name, value)
    # Names are compared by their letters and digits; one without any would
    # hide nothing, and nobody would notice.
    if not all(any(c.isalnum() for c in item) or item == "-*" for item in names):
        raise SettingsError(
            name, "has an entry without a letter", "give names of properties, or '-*'"
        )
    return names


def _check_keys(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, AbstractSet):
        raise SettingsError(name, "has no order", "give a list, the best name first")
    names = _check_names(name, value)
    if not names:
        raise SettingsError(name, "is empty", "give at least one name")
    return names


def _check_allow(name: str, value: Any) -> tuple[str, ...] | None:
    return None if value is None else _check_names(name, value)


def _check_callable(name: str, value: Any) -> Any:
    found = _imported(name, value) if isinstance(value, str) else value
    if found is not None and not callable(found):
        raise SettingsError(name, "cannot be called", "give a function of one argument")
    return found


def check_place(name: str, place: str, origin: str = "argument") -> tuple[str, str]:
    """
    Return the two parts of ``package.module:function``, without importing anything.

    Args:
        name: The setting.
        place: Its value.
        origin: Where it comes from: an environment variable's name, say.

    Raises:
        SettingsError: If it is no such text.
    """
    module, _, attribute = place.strip().partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        return module, attribute
    raise SettingsError(
        name, "names nothing that can be imported", "give package.module:function", origin
    )


def _imported(name: str, place: str) -> Any:
    """Return what ``package.module:function`` names: text is all that YAML or a variable holds."""
    module, attribute = check_place(name, place)
    try:
        return operator.attrgetter(attribute)(import_module(module))
    except Exception as error:
        kind = type(error).__name__
    # Outside of the handler: the error's own text may echo the value.
    raise SettingsError(
        name, f"names nothing that can be imported ({kind})", "give package.module:function"
    )


# Smallest and largest sensible value of each.
_INTEGERS: dict[str, tuple[int, int]] = {
    "batch_max_events": (1, 10_000),
    "batch_max_bytes": (1024, 2**30),
    "max_workers": (1, 256),
    "max_queue_events": (1, 10_000_000),
    "max_queue_bytes": (1024, 2**40),
    "max_attempts": (1, 1_000_000),
    "max_string": (16, 10_000_000),
    "max_properties": (1, 100_000),
    "max_depth": (1, 64),
    "max_body_bytes": (_SMALLEST_BODY, 2**30),
    # A few bodies of the largest size have to fit in.
    "spool_max_bytes": (2**20, 2**40),
}
_SECONDS: dict[str, tuple[float, float]] = {
    "batch_linger": (0.0, 600.0),
    "connect_timeout": (0.01, 600.0),
    "read_timeout": (0.01, 600.0),
    "retry_for": (0.0, 30 * _LONGEST_WAIT),
    "backoff_base": (0.001, 600.0),
    "backoff_cap": (0.001, _LONGEST_WAIT),
    "retry_after_cap": (0.0, _LONGEST_WAIT),
    "probe_interval": (0.01, _LONGEST_WAIT),
    "shutdown_timeout": (0.0, 600.0),
    "spool_max_age": (1.0, 365 * _LONGEST_WAIT),
}
# The smallest and the largest: a default could be wrong beside the other one.
_HARMLESS = {
    "backoff_base": _SECONDS["backoff_base"][0],
    "backoff_cap": _SECONDS["backoff_cap"][1],
}
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "write_code": _check_write_code,
    "events_url": _check_url,
    "raw_url": _check_url,
    "delivery": _check_delivery,
    "overflow": _check_overflow,
    "spool": _check_spool,
    "spool_sync": _check_sync,
    "max_events_per_minute": _check_pace,
    "send_timestamp": _check_flag,
    "redact": _check_redact,
    "allow": _check_allow,
    "user_id_keys": _check_keys,
    "group_id_keys": _check_keys,
    "rules": _check_rules,
    "rules_reload": _check_flag,
    "trace_context": _check_flag,
    "flush_on_sigterm": _check_flag,
    "dry_run": _check_flag,
    "debug": _check_flag,
    "disabled": _check_flag,
    "on_error": _check_callable,
    **dict.fromkeys(_INTEGERS, _check_whole),
    **dict.fromkeys(_SECONDS, _check_seconds),
}
