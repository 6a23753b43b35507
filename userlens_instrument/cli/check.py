"""``userlens-instrument check``: can this machine deliver, and if not, what to do about it."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from userlens_instrument._version import __version__
from userlens_instrument.cli.terminal import printable, say
from userlens_instrument.exceptions import RulesError, SpoolError


if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from urllib.parse import SplitResult

    from userlens_instrument._core.outcome import Answer
    from userlens_instrument.settings import Settings


_EPILOG: Final = """\
The settings are those of the environment (USERLENS_WRITE_CODE and so on); --rules
wins over it. Nothing is left behind: the write code is tried with an empty body, which
Userlens refuses for its emptiness alone, and a spool that is not there yet in a folder
that is removed again. With --send, one identify is sent, of the user
userlens-instrument-check. With USERLENS_DRY_RUN or USERLENS_DISABLED nothing is sent.

exit codes:
  0  all is well
  1  something is not: see the lines that begin with FAIL
  2  bad arguments
"""

# Whose identify --send sends: nobody's.
TEST_USER: Final = "userlens-instrument-check"
_TEST_BODY: Final = {
    "type": "identify",
    "userId": TEST_USER,
    "source": "userlens-restapi",
    "traits": {"test": True, "sent_by": f"userlens-instrument {__version__}"},
}
# A certificate with less than this many days left is somebody's next outage.
_FEW_DAYS: Final = 14
_DAY: Final = 86_400.0
# Of a value that is shown.
_MOST_SHOWN: Final = 120

_COLOURS: Final = {"ok": "32", "FAIL": "31", "warn": "33", "skip": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    What was found about one thing.

    Attributes:
        state: ``ok``, ``warn``, ``FAIL``, or ``skip`` for what was not looked at.
        topic: What it is about.
        text: What was found.
        fix: What to do about it; empty if there is nothing to do.
    """

    state: str
    topic: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add this command's options.

    There is none for a write code: everybody on the machine can read a command line.

    Args:
        parser: The parser of the command.
    """
    import argparse  # noqa: PLC0415 - whoever calls has it

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--rules", metavar="FILE", help="rules to check (USERLENS_RULES)")
    parser.add_argument(
        "--send",
        action="store_true",
        help=f"send one identify of the user {TEST_USER}, to be sure of the write code",
    )
    parser.add_argument("--json", action="store_true", help="for scripts: one JSON document")


def run(args: argparse.Namespace) -> int:
    """
    Check everything, and say a line about each.

    Args:
        args: What `add_arguments` asked for.

    Returns:
        The exit code: 0 if all is well, 1 if something is not.
    """
    lines = []
    for line in check({} if args.rules is None else {"rules": args.rules}, send=args.send):
        lines.append(line)
        if not args.json:
            say(_shown(line, colours=sys.stdout.isatty()))
    failed = sum(line.state == "FAIL" for line in lines)
    if args.json:
        print(json.dumps({"ok": not failed, "lines": [asdict(line) for line in lines]}))
    return 1 if failed else 0


def _shown(line: Line, *, colours: bool) -> str:
    fix = f"; fix: {line.fix}" if line.fix else ""
    state = f"{line.state:<4}"
    if colours and "NO_COLOR" not in os.environ:
        state = f"\033[{_COLOURS[line.state]}m{state}\033[0m"
    return f"{state} {line.topic}: {printable(line.text + fix)}"


def check(given: dict[str, Any], *, send: bool) -> Iterator[Line]:
    """
    Yield what is found, one thing after the other.

    Args:
        given: Settings by name; the environment fills in what is absent.
        send: Whether an identify may be sent.
    """
    from userlens_instrument.settings import (  # noqa: PLC0415 - see cli
        load_what_is_right,
        misspelled_variables,
    )

    yield Line(state="ok", topic="versions", text=_versions())
    for name, near in misspelled_variables():
        yield Line(
            state="warn",
            topic="settings",
            text=f"the variable {name} is no setting, and ignored",
            fix=f"did you mean {near}?",
        )
    settings, errors = load_what_is_right(given)
    for error in errors:
        where = "" if error.origin == "argument" else f" (from {error.origin})"
        if error.setting in given:
            where = f" (from --{error.setting})"
        text = f"{error.setting}{where} {error.problem}"
        yield Line(state="FAIL", topic="settings", text=text, fix=error.fix)
    wrong = {error.setting for error in errors}
    yield from _of_settings(settings, given, wrong)
    yield from _of_urls(settings, wrong, send=send)
    yield _skipped("spool", "spool") if "spool" in wrong else _of_spool(settings)
    yield _skipped("rules", "rules") if "rules" in wrong else _of_rules(settings)


def _skipped(topic: str, setting: str) -> Line:
    return Line(state="skip", topic=topic, text=f"not looked at: the setting {setting} is wrong")


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see cli

    found = [f"userlens-instrument {__version__}", f"Python {platform.python_version()}"]
    for name in ("structlog", "urllib3", "orjson", "regex"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # noqa: PERF203 - four of them
            found.append(f"no {name}")
    return ", ".join(found)


# ---------------------------------------------------------------- settings


def _of_settings(
    settings: Settings, given: dict[str, Any], wrong: AbstractSet[str]
) -> Iterator[Line]:
    for item in fields(settings):
        if item.name in wrong:
            continue
        value = getattr(settings, item.name)
        variable = f"USERLENS_{item.name.upper()}"
        if item.name in given:
            origin = f"--{item.name}"
        elif os.environ.get(variable, "").strip():
            origin = variable
        else:
            continue
        shown = repr(value)[:_MOST_SHOWN]
        if item.name == "write_code":
            shown = f"{len(value or '')} characters, not shown"
        elif item.name == "on_error":
            shown = os.environ.get(variable, "")[:_MOST_SHOWN]
        yield Line(state="ok", topic="settings", text=f"{item.name} = {shown} (from {origin})")
    yield Line(state="ok", topic="settings", text="all others are at their defaults")
    if settings.disabled:
        yield Line(
            state="FAIL",
            topic="settings",
            text="disabled is set: every event is dropped",
            fix="take USERLENS_DISABLED away",
        )
    if settings.dry_run:
        yield Line(
            state="FAIL",
            topic="settings",
            text="dry_run is set: nothing is sent",
            fix="take USERLENS_DRY_RUN away",
        )
    if settings.write_code is None and "write_code" not in wrong:
        yield Line(
            state="FAIL",
            topic="write code",
            text="there is none: no event is sent",
            fix="set USERLENS_WRITE_CODE, or call configure(write_code=…) in the program",
        )


# ---------------------------------------------------------------- the way to Userlens


def _of_urls(settings: Settings, wrong: AbstractSet[str], *, send: bool) -> Iterator[Line]:
    """Yield what is found at each URL that events go to: the way there, and the write code."""
    names = [("events_url", "/event")]
    if settings.delivery == "batch" or "delivery" in wrong:
        names.append(("raw_url", "/raw/event"))
    untried = _why_untried(settings, wrong)
    for name, path in names:
        # Whether the second URL is used is not known if that setting is wrong.
        setting = "delivery" if path != "/event" and "delivery" in wrong else name
        reachable = setting not in wrong
        if reachable:
            for line in _of_way(name, getattr(settings, name), settings):
                reachable = reachable and line.state != "FAIL"
                yield line
        else:
            yield _skipped(name, setting)
        if untried or not reachable:
            why = untried or f"the way to {name} has to be right first"
            yield Line(state="skip", topic="write code", text=f"not tried: {why}")
        else:
            yield _of_write_code(settings, path, send=send and path == "/event")


def _why_untried(settings: Settings, wrong: AbstractSet[str]) -> str:
    """Return why no write code may be tried anywhere; nothing if it may."""
    for name in ("dry_run", "disabled"):
        if getattr(settings, name):
            return f"{name} is set, so nothing is sent"
        # Whoever gave it did not mean "send".
        if name in wrong:
            return f"the setting {name} is wrong, so nothing is sent"
    if "write_code" in wrong:
        return "the setting write_code is wrong"
    return "" if settings.write_code else "there is none"


def _of_way(name: str, url: str, settings: Settings) -> Iterator[Line]:
    """Yield what is found on the way to *url*: proxy, name, connection, certificate."""
    import socket  # noqa: PLC0415 - see cli
    from urllib.parse import urlsplit  # noqa: PLC0415 - as above

    from userlens_instrument._delivery.connections import proxy_of  # noqa: PLC0415 - loads urllib3

    parts = urlsplit(url)
    proxy = proxy_of(url)
    if proxy is not None:
        shown = urlsplit(proxy)
        where = f"{shown.hostname}:{shown.port or 80}"
        yield Line(state="ok", topic=name, text=f"{url} by way of the proxy {where}")
        parts = shown
    else:
        yield Line(state="ok", topic=name, text=f"{url}, without a proxy")
    # To a proxy there is none; what is behind it is the transport's to see.
    secured = proxy is None and parts.scheme == "https"
    no_certificate = [
        Line(state="skip", topic="TLS", text="not looked at: there is no connection")
    ] * secured
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield Line(
            state="FAIL",
            topic="DNS",
            text=f"{host} does not resolve ({error.strerror or type(error).__name__})",
            fix=f"look at {name} and at this machine's resolver",
        )
        yield Line(state="skip", topic="connection", text="not tried: there is no address")
        yield from no_certificate
        return
    addresses = sorted({entry[4][0] for entry in found})
    yield Line(state="ok", topic="DNS", text=f"{host} is {', '.join(map(str, addresses[:4]))}")
    try:
        connection = socket.create_connection((host, port), timeout=settings.connect_timeout)
    except OSError as error:
        yield Line(
            state="FAIL",
            topic="connection",
            text=f"{host}:{port} cannot be reached ({error.strerror or 'no answer in time'})",
            fix="let this machine out to it: firewall, proxy (https_proxy), or the URL",
        )
        yield from no_certificate
        return
    with connection:
        yield Line(state="ok", topic="connection", text=f"{host}:{port} is there")
        if secured:
            yield _of_certificate(connection, parts)


def _of_certificate(connection: Any, parts: SplitResult) -> Line:
    import ssl  # noqa: PLC0415 - see cli
    import time  # noqa: PLC0415 - as above

    context = ssl.create_default_context()
    try:
        with context.wrap_socket(connection, server_hostname=parts.hostname) as secured:
            certificate: Any = secured.getpeercert() or {}
            version = secured.version()
    except ssl.SSLCertVerificationError as error:
        return Line(
            state="FAIL",
            topic="TLS",
            text=f"the certificate is not trusted: {error.verify_message}",
            fix="look at the URL and this machine's clock and authorities (SSL_CERT_FILE); "
            "verification cannot be switched off",
        )
    except OSError as error:
        return Line(
            state="FAIL",
            topic="TLS",
            text=f"no secure connection ({type(error).__name__})",
            fix="see whether this port speaks TLS",
        )
    issuer = {key: value for pair in certificate.get("issuer", ()) for key, value in pair}
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = (ends - time.time()) / _DAY
    by = issuer.get("organizationName") or issuer.get("commonName") or "an authority"
    return Line(
        state="ok" if days >= _FEW_DAYS else "warn",
        topic="TLS",
        text=f"{version}, certificate of {by}, good for {days:.0f} days",
    )


def _of_write_code(settings: Settings, path: str, *, send: bool) -> Line:
    from userlens_instrument._delivery.transport import UrllibTransport  # noqa: PLC0415 - see cli

    body = json.dumps(_TEST_BODY if send else {}).encode()
    transport = UrllibTransport(settings)
    try:
        answer = transport.send(path, body)
    finally:
        transport.close()
    return _verdict(answer, send=send)


def _verdict(answer: Answer, *, send: bool) -> Line:
    """Return what *answer* says of the write code."""
    status = answer.status
    if status == 401:
        return Line(
            state="FAIL",
            topic="write code",
            text="Userlens refuses it (401)",
            fix="copy it again from the Userlens settings",
        )
    if send and status is not None and 200 <= status < 300:
        return Line(
            state="ok", topic="write code", text=f"an identify of {TEST_USER} was taken ({status})"
        )
    if not send and status is not None and (status == 400 or 200 <= status < 300):
        return Line(
            state="ok",
            topic="write code",
            text=f"it is not refused ({status} to an empty body); --send sends an identify",
        )
    if status is not None and 300 <= status < 400:
        return Line(
            state="FAIL",
            topic="write code",
            text=f"the URL redirects ({status}), which is not followed",
            fix="give the URL that it redirects to",
        )
    if status is None:
        reason = "no answer" if answer.failure is None else answer.failure.value
        return Line(
            state="FAIL",
            topic="write code",
            text=f"not tried: {reason} ({answer.detail})",
            fix="try again; if it stays so, look at what is between here and Userlens",
        )
    return Line(
        state="FAIL",
        topic="write code",
        text=f"not tried: Userlens answered {status}",
        fix="try again later" if status >= 500 or status in {408, 429} else "look at the URL",
    )


# ---------------------------------------------------------------- spool and rules


def _of_spool(settings: Settings) -> Line:
    if settings.spool is None:
        return Line(state="skip", topic="spool", text="none: events are in memory alone")
    from userlens_instrument._delivery.spool import Spool  # noqa: PLC0415 - imports SQLite

    path = settings.spool
    is_empty = os.path.isfile(path) and not os.path.getsize(path)  # noqa: PTH113, PTH202 - text in
    if is_empty or not os.path.exists(path):  # noqa: PTH110 - as above
        return _of_new_spool(path)
    spool = Spool(path)
    try:
        spool.open(create=False)
        status = spool.status()
    except SpoolError as error:
        return Line(
            state="FAIL",
            topic="spool",
            text=f"{path}: {error.problem}",
            fix="let the user of the service read and write it; events are in memory until then",
        )
    finally:
        spool.close()
    drainer = "nobody delivers it at present"
    if status.drainer is not None:
        drainer = f"process {status.drainer} delivers it" if status.drainer else "it is delivered"
    dead = f"{status.dead} dead letters" if status.dead != 1 else "1 dead letter"
    return Line(
        state="warn" if status.dead else "ok",
        topic="spool",
        text=f"{path}: version {status.version}, {status.events} events, {dead}, "
        f"{status.file_size:,} bytes; {drainer}",
        fix=f"userlens-instrument spool {path} dead-letters" if status.dead else "",
    )


def _of_new_spool(path: str) -> Line:
    """Return whether a spool that there is not yet can be made: one is made beside, and removed."""
    import tempfile  # noqa: PLC0415 - see cli

    from userlens_instrument._delivery.spool import Spool, translate  # noqa: PLC0415 - imports SQLite

    folder = os.path.dirname(path)  # noqa: PTH120 - text in
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)  # noqa: PTH120 - as above
    try:
        # What access() allows to root need not be possible: in /proc, on a file system that is
        # mounted to be read, or that has no locks. And a folder of the real names, made and
        # removed, could be taken away from a service that starts just now.
        with tempfile.TemporaryDirectory(prefix=".userlens-", dir=folder) as scratch:
            spool = Spool(os.path.join(scratch, os.path.relpath(path, folder)))  # noqa: PTH118 - as above
            try:
                spool.open()
            finally:
                spool.close()
    except (OSError, SpoolError) as error:
        found = translate(error, path) if isinstance(error, OSError) else error
        return Line(
            state="FAIL",
            topic="spool",
            text=f"{path} cannot be made in {folder} ({found.problem})",
            fix="make room there"
            if found.kind == "full"
            else "give a path on a local disk, in a folder that the user of the service may write",
        )
    return Line(
        state="ok", topic="spool", text=f"{path} is made with the first event; not there yet"
    )


def _of_rules(settings: Settings) -> Line:
    if settings.rules is None:
        return Line(state="skip", topic="rules", text="none: tagged lines alone are events")
    from userlens_instrument._delivery.rulebook import load  # noqa: PLC0415 - see cli

    try:
        rules = load(settings.rules, settings.redact)
    except RulesError as error:
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        return Line(
            state="FAIL",
            topic="rules",
            text=f"{error.source}: {error.problems[0]}{more}",
            fix=f"userlens-instrument rules check {error.source}",
        )
    number = "1 rule" if len(rules) == 1 else f"{len(rules)} rules"
    return Line(state="ok", topic="rules", text=f"{settings.rules}: {number}")
