"""
The faults: what is done to the package, and the figures that it has to come out with.

This table is the whole of it: ``tests/faults`` runs each row, and the documentation lists them.
Every row also has to show, whatever its figures: no event lost, each user's order kept, no call
of the application that raised, and books that balance to the unit.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE
from hostile import OK, Rule, answer


if TYPE_CHECKING:
    from collections.abc import Mapping


#: Replaced by the URL of another server, which must not hear of anything.
ELSEWHERE = "http://elsewhere.invalid"
#: Where the wall clock of a row without threads starts, in seconds since the epoch.
EPOCH = 1_795_000_000
#: The property of the one event of a row that no server takes.
POISON = "poison"
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What a row has to come out with.

    Attributes:
        fired: How often the fault has to have happened at least, for the run to show anything.
        duplicates: Events taken twice: ``none``, or one for each event whose ``answer was lost``.
        again: Most requests beyond one for each event and each failure.
        refused: Events that Userlens will never take, by reason.
        dropped: Events lost on this side, by reason.
        pending: Events that are still held at the end.
        attempts: Requests made, or tried, while nothing could arrive, exactly; without threads.
        waits: What was waited between these, exactly, in seconds of the virtual clock.
        lines: Lines of diagnostics, exactly; None for any number.
        hung_up: Whether each answer is cut off by us.
        unread: Most bytes of each answer's body that the network took, ours and the server's
            buffers included; None for any number.
        memory: Most that this process' memory grows, in bytes; None where it is not measured.
    """

    fired: int = 3
    duplicates: str = "none"
    again: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    attempts: int | None = None
    waits: tuple[float, ...] | None = None
    lines: int | None = None
    hung_up: bool = False
    unread: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A row.

    Attributes:
        name: What goes wrong.
        must: What has to become of it.
        script: What the server does.
        figures: What the row has to come out with.
        settings: Beyond those that make a run short.
        place: Where the server is at first: ``up``, ``down`` (refused), ``full`` (its backlog),
            ``nameless`` (its name does not resolve), ``untrusted``, ``misnamed`` or ``cut``
            (TLS), or ``leaving`` (up, and down in the middle of it); all is well after *failures*
            attempts that failed.
        failures: See *place*.
        roads: How the events go there: each by itself (``event``), together (``batch``), or
            each by itself through a proxy (``proxied``).
        is_timed: Whether answers are lost that nobody can count beforehand: a time-out is part of
            it, which a busy machine may cause by itself, or the server dies.
        is_forever: Whether nothing is ever well; the client is closed in the middle of it.
        lasts: Seconds on a virtual clock, and without threads, for which the script holds while
            each user logs an event a second; then all is well. None for a row with threads.
        jumps: What the wall clock is moved by before each attempt, in turn, in seconds.
    """

    name: str
    must: str
    script: tuple[Rule, ...] = ()
    figures: Figures = field(default_factory=Figures)
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: str = "up"
    failures: int = 0
    roads: tuple[str, ...] = ("event", "batch", "proxied")
    is_timed: bool = False
    is_forever: bool = False
    lasts: int | None = None
    jumps: tuple[float, ...] = ()


# Of a row with threads: small enough that nobody waits, and time-outs so long that
# none happens by itself.
SHORT = {
    "max_workers": 4,
    "batch_max_events": 4,
    "batch_linger": 0.005,
    "backoff_base": 0.004,
    "backoff_cap": 0.02,
    "retry_after_cap": 0.02,
    "probe_interval": 0.02,
    "connect_timeout": PATIENCE,
    "read_timeout": PATIENCE,
}
# Of a row without threads: as they come. So are the waits, with dice that always show a half.
VIRTUAL = {"max_workers": 1}
# 0.5 s, doubled up to 30 s, half of it: what is waited between the probes of an outage.
WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)

LOST = Figures(duplicates="answer was lost")


_CHUNK = b"x" * 65_536


def _bomb() -> bytes:
    """Return a MiB that unpacks to a GiB: the same gzip member, 64 times over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return (packer.compress(bytes(16 * MIB)) + packer.flush()) * 64


_BOMB = _bomb()


# ---------------------------------------------------------------- nobody is there

_OUTAGES = [
    Fault(
        name="connection refused, then back",
        must="one probe a backoff, then everything in order",
        place="down",
        failures=6,
        roads=("event", "batch"),
    ),
    Fault(
        name="server gone in mid-work, then back",
        must="as refused; twice only what had its answer lost",
        place="leaving",
        failures=20,
        is_timed=True,
    ),
    Fault(
        name="name does not resolve, then does",
        must="as refused",
        place="nameless",
        failures=6,
        roads=("event", "batch"),
    ),
    Fault(
        name="name that does not exist",
        must="as refused; what is left at the end is counted",
        place="nameless",
        failures=4,
        is_forever=True,
        figures=Figures(dropped={"shutdown": 97}),
        roads=("event", "batch"),
    ),
    Fault(
        name="no connection in time: the backlog is full",
        must="as refused, after connect_timeout",
        place="full",
        failures=5,
        settings={"connect_timeout": 0.1},
        roads=("event", "batch"),
        is_timed=True,
    ),
    Fault(
        name="certificate of an unknown authority, then a good one",
        must="not a byte of an event leaves; held and probed, then everything",
        place="untrusted",
        failures=5,
        figures=Figures(lines=2),
        roads=("event", "batch"),
    ),
    Fault(
        name="certificate of another host, then a good one",
        must="not a byte of an event leaves; held and probed, then everything",
        place="misnamed",
        failures=5,
        figures=Figures(lines=2),
        roads=("event", "batch"),
    ),
    Fault(
        name="TLS handshake cut, then whole",
        must="tried again with backoff",
        place="cut",
        failures=20,
        roads=("event", "batch"),
    ),
]

# ---------------------------------------------------------------- connections that break

_BROKEN = [
    Fault(
        name="reset before the request is read",
        must="tried again; nothing twice",
        script=(Rule(every=5, read="nothing", end="reset"),),
    ),
    Fault(
        name="reset after the request is read, and not taken",
        must="tried again; nothing twice",
        script=(Rule(every=5, end="reset"),),
    ),
    Fault(
        name="reset after the request is read, and taken",
        must="tried again; twice only what had its answer lost",
        script=(Rule(every=5, end="reset", takes=True, lost=True),),
        figures=LOST,
    ),
    Fault(
        name="closed after the request is read, and taken",
        must="tried again; twice only what had its answer lost",
        script=(Rule(every=5, end="close", takes=True, lost=True),),
        figures=LOST,
    ),
    Fault(
        name="reset in the status line",
        must="tried again; twice only what had its answer lost",
        script=(Rule(every=5, send=OK[:10], end="reset", takes=True, lost=True),),
        figures=LOST,
    ),
    Fault(
        name="closed in the status line",
        must="tried again; twice only what had its answer lost",
        script=(Rule(every=5, send=OK[:10], end="close", takes=True, lost=True),),
        figures=LOST,
    ),
    Fault(
        name="reset in the body of the answer",
        must="delivered: the status line decides",
        script=(Rule(every=5, send=OK[:-5], end="reset", takes=True),),
    ),
    Fault(
        name="truncated answer",
        must="delivered: the status line decides",
        script=(Rule(every=5, send=OK[:-5], end="close", takes=True),),
    ),
    *[
        Fault(
            name=f"kept-alive connection {how} while idle",
            must="a new one at once: no backoff, no line, nothing twice",
            script=(Rule(every=3, send=OK, end=end, takes=True),),
            # Whoever waited here would never be done.
            settings={"backoff_base": 600.0, "backoff_cap": 600.0},
            figures=Figures(lines=0),
        )
        for how, end in [("closed", "close"), ("half closed", "half"), ("reset", "reset")]
    ],
]

# ---------------------------------------------------------------- answers that take their time

_SLOW = [
    Fault(
        name="headers dripped past read_timeout",
        must="cut off at the deadline of the whole answer, tried again",
        script=(
            Rule(
                every=8,
                times=3,
                send=b"HTTP/1.1 200 OK\r\nX-Drip: ",
                more=b"x",
                more_times=10_000,
                pace=0.05,
                takes=True,
                lost=True,
            ),
        ),
        settings={"read_timeout": 0.5},
        figures=dataclasses.replace(LOST, hung_up=True),
        is_timed=True,
    ),
    Fault(
        name="body dripped past read_timeout",
        must="cut off at the deadline of the whole answer, delivered: the status line decides",
        script=(
            Rule(
                every=8,
                times=3,
                send=answer(body=b"", Content_Length=100_000),
                more=b"x",
                more_times=10_000,
                pace=0.05,
                takes=True,
            ),
        ),
        settings={"read_timeout": 0.5},
        figures=Figures(hung_up=True),
        is_timed=True,
    ),
    Fault(
        name="reads, and never answers",
        must="given up on at read_timeout, tried again",
        script=(Rule(every=8, times=3, end="silence", takes=True, lost=True),),
        settings={"read_timeout": 0.5},
        figures=dataclasses.replace(LOST, hung_up=True),
        is_timed=True,
    ),
    Fault(
        name="interim answers without end",
        must="given up on at read_timeout, tried again",
        script=(
            Rule(
                every=8,
                times=3,
                more=b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
                more_times=10_000,
                pace=0.02,
                takes=True,
                lost=True,
            ),
        ),
        settings={"read_timeout": 0.5},
        figures=dataclasses.replace(LOST, hung_up=True),
        is_timed=True,
    ),
    Fault(
        name="answers nobody until every call has returned",
        must="no call waits for an answer, none is made twice",
        script=(Rule(hold=True, send=OK, takes=True),),
        figures=Figures(lines=0),
    ),
]

# ---------------------------------------------------------------- answers that are too much

_LARGE = [
    Fault(
        name=name,
        must="the status counts, the body is left unread and the connection closed",
        script=(
            Rule(
                every=8,
                send=answer(body=b"", **headers),
                more=chunk,
                more_times=times,
                takes=True,
            ),
        ),
        figures=Figures(hung_up=True, unread=unread, memory=20 * MIB),
    )
    for name, headers, chunk, times, unread in [
        ("body of 100 MB", {"Content_Length": 100_000_000}, _CHUNK, 1_600, 16 * MIB),
        ("body without end", {"Content_Length": None}, _CHUNK, 10**9, 16 * MIB),
        (
            "chunk without end",
            {"Content_Length": None, "Transfer_Encoding": "chunked"},
            b"fffffffffff\r\n" + _CHUNK,
            10**9,
            16 * MIB,
        ),
    ]
]
_LARGE.append(
    Fault(
        name="gzip bomb: a MiB that unpacks to a GiB",
        must="nothing is unpacked",
        script=(
            Rule(
                every=8,
                send=answer(body=b"", Content_Length=len(_BOMB), Content_Encoding="gzip"),
                more=_BOMB,
                more_times=1,
                takes=True,
            ),
        ),
        figures=Figures(memory=20 * MIB),
    )
)

# ---------------------------------------------------------------- answers that are none

_MALFORMED = [
    Fault(
        name=f"malformed answer: {name}",
        must="tried again; twice only what had its answer lost",
        script=(Rule(every=5, send=said, end="close", takes=True, lost=True),),
        figures=LOST,
    )
    for name, said in {
        "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
        "noise": b"\x00\xff" * 500,
        "no status": b"HTTP/1.1 banana\r\n\r\n",
        "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
        "header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        "a thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1_000 + b"\r\n",
        "interim answer alone": b"HTTP/1.1 102 Processing\r\n\r\n",
        "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    }.items()
]
_ODD = [
    Fault(
        name=f"odd answer: {name}",
        must="delivered: the status line decides, and the next request has its own answer",
        script=(Rule(every=5, send=said, end=end, takes=True),),
    )
    for name, said, end in [
        ("a second one that nobody asked for", OK + answer(400), "keep"),
        ("no length", b"HTTP/1.1 200 OK\r\n\r\nok", "close"),
        ("negative length", answer(Content_Length=-5), "close"),
        ("length of garbage", answer(Content_Length="many"), "close"),
        (
            "broken chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "close",
        ),
        ("gzip that is none", answer(Content_Encoding="gzip"), "keep"),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", "keep"),
        ("100 before it", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "keep"),
        ("103 before it", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, "keep"),
        ("102 twice before it", b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + OK, "keep"),
    ]
]
_REDIRECTS = [
    Fault(
        name=f"redirect {status} to {where}",
        must="not followed, held and probed; nobody else hears of it; then everything",
        script=(Rule(times=8, send=answer(status, Location=location)),),
        figures=Figures(fired=8, lines=2),
    )
    for status, where, location in [
        *[(status, "another host", f"{ELSEWHERE}/event") for status in (301, 302, 303, 307, 308)],
        (307, "the same host", "/elsewhere"),
    ]
]

# ---------------------------------------------------------------- answers that say no

_ERRORS = [
    *[
        Fault(
            name=f"bursts of {status} with Retry-After: {wish[:20]}",
            must="waited for, up to a cap; nothing lost",
            script=(Rule(every=6, send=answer(status, Retry_After=wish)),),
        )
        for status, wish in [
            (429, "1"),
            (429, "1000000000000"),
            (429, "-5"),
            (429, "soon"),
            (503, formatdate(EPOCH + 10**9, usegmt=True)),
            (500, "9" * 5_000),
        ]
    ],
    Fault(
        name="429 for three requests of four",
        must="tried again however often: it says nothing of the event",
        script=(Rule(every=4, send=OK, takes=True), Rule(send=answer(429))),
        settings={"max_attempts": 3},
    ),
    Fault(
        name="bursts of 500",
        must="tried again with backoff, one request for each failure",
        script=(
            Rule(times=20, send=answer(500)),
            Rule(after=30, times=20, send=answer(500, b"")),
        ),
        figures=Figures(fired=40),
    ),
    Fault(
        name="401, then right again",
        must="held, said once, probed; nothing lost",
        script=(Rule(after=20, times=8, send=answer(401)),),
        figures=Figures(fired=8, lines=2),
    ),
    Fault(
        name="400 for one event among good ones",
        must="it alone is refused, at once",
        script=(Rule(holding=POISON.encode(), send=answer(400)),),
        # A batch of four is halved twice.
        figures=Figures(fired=1, refused={"rejected": 1}, again=4),
    ),
    Fault(
        name="500 for one event among good ones",
        must="it alone is given up, after max_attempts",
        script=(Rule(holding=POISON.encode(), send=answer(500)),),
        settings={"max_attempts": 3},
        figures=Figures(fired=3, dropped={"attempts_exhausted": 1}),
        # Alone, it is held until others pass: so is a batch that it is in.
        roads=("event", "proxied"),
    ),
    Fault(
        name="413 before the body is read",
        must="it alone is refused, at once",
        script=(
            Rule(after=3, times=1, read="head", send=answer(413, Connection="close"), end="half"),
        ),
        figures=Figures(fired=1, refused={"too_large": 1}),
        roads=("event", "proxied"),
    ),
]

# ---------------------------------------------------------------- long ones, on a virtual clock

_LONG = [
    Fault(
        name="server gone for 60 s under load",
        must="one probe a backoff, then everything in order",
        place="down",
        lasts=60,
        figures=Figures(attempts=9, waits=WAITS),
        roads=("event", "batch"),
    ),
    Fault(
        name="503 for an hour under load",
        must="one probe a backoff, memory bounded, what does not fit counted",
        script=(Rule(send=answer(503)),),
        settings={"max_queue_events": 500},
        lasts=3_600,
        figures=Figures(
            # Six in the first 15.75 s, then one in 15 s.
            attempts=6 + 239,
            dropped={"queue_full": 4 * 3_600 - 500},
            fired=245,
        ),
        roads=("event", "batch"),
    ),
    Fault(
        name="503 for ever",
        must="as for an hour; what is left at the end is counted",
        script=(Rule(send=answer(503)),),
        settings={"max_queue_events": 500},
        lasts=600,
        figures=Figures(
            attempts=6 + 39,
            dropped={"queue_full": 4 * 600 - 500, "shutdown": 500},
            fired=45,
        ),
        is_forever=True,
        roads=("event", "batch"),
    ),
    Fault(
        name="500 for an hour under load",
        must="as 503, once three users have failed",
        script=(Rule(send=answer(500)),),
        settings={"max_queue_events": 500},
        lasts=3_600,
        figures=Figures(dropped={"queue_full": 4 * 3_600 - 500}, attempts=247, fired=247),
        roads=("event",),
    ),
    Fault(
        name="401 for ten minutes under load",
        must="a probe a minute, nothing lost, then everything",
        script=(Rule(send=answer(401)),),
        lasts=600,
        figures=Figures(attempts=10, waits=(60.0,) * 10, fired=10),
        roads=("event", "batch"),
    ),
    *[
        Fault(
            name=f"429 with Retry-After: {name}",
            must=must,
            script=(Rule(times=1, send=answer(429, Retry_After=wish)),),
            lasts=20,
            figures=Figures(fired=1, attempts=1, waits=(wait,)),
            jumps=jumps,
            roads=("event",),
        )
        for name, wish, wait, must, jumps in [
            ("seconds", "7", 7.0, "waited for exactly", ()),
            ("a date", formatdate(EPOCH + 7, usegmt=True), 7.0, "waited for exactly", ()),
            ("a date that is past", formatdate(EPOCH - 7, usegmt=True), 0.25, "backoff", ()),
            ("0", "0", 0.25, "backoff: no leave to hammer", ()),
            ("negative", "-5", 0.25, "backoff", ()),
            ("garbage", "soon", 0.25, "backoff", ()),
            ("a fraction", "1.5", 0.25, "backoff", ()),
            ("nothing", "", 0.25, "backoff", ()),
            ("10^12", "1000000000000", 600.0, "waited for up to retry_after_cap", ()),
            ("5000 digits", "9" * 5_000, 600.0, "waited for up to retry_after_cap", ()),
            ("year 99999", "Mon, 01 Jan 99999 00:00:00 GMT", 0.25, "backoff", ()),
            (
                "a date, and the clock is an hour slow",
                formatdate(EPOCH + 7, usegmt=True),
                600.0,
                "waited for up to retry_after_cap",
                (-3_600.0,),
            ),
            (
                "a date, and the clock is an hour fast",
                formatdate(EPOCH + 7, usegmt=True),
                0.25,
                "backoff",
                (3_600.0,),
            ),
        ]
    ],
    Fault(
        name="clock set back and forward by an hour",
        must="no wait is longer or shorter for it",
        script=(Rule(send=answer(503)),),
        lasts=60,
        figures=Figures(attempts=9, waits=WAITS, fired=9),
        jumps=(-3_600.0, 3_600.0, 3_600.0, -3_600.0),
        roads=("event", "batch"),
    ),
]

FAULTS = [
    *_OUTAGES,
    *_BROKEN,
    *_SLOW,
    *_LARGE,
    *_MALFORMED,
    *_ODD,
    *_REDIRECTS,
    *_ERRORS,
    *_LONG,
]
