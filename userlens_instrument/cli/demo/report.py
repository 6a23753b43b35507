"""
Tells the demo's story as plain text: headings, and two columns where two things are compared.

For a terminal, a pipe and a CI log alike: no colours, no cursor movements.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from typing import TYPE_CHECKING

from userlens_instrument.cli.demo import scenario, service
from userlens_instrument.cli.demo.verdict import describe, timeless


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from userlens_instrument.cli.demo.play import Answer, Evidence
    from userlens_instrument.cli.demo.scenario import Body, Line, Step
    from userlens_instrument.inspector import Entry


_MARGIN = "   "
_BETWEEN = " | "


class Page:
    """
    Where the story is told.

    Args:
        width: Of the text, in columns.
    """

    def __init__(self, width: int) -> None:
        """Put the title on it."""
        self.width = width
        self._sections = 0
        say("From a log line to an event in Userlens: a small shop, on this machine only.")

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._sections += 1
        say(f"\n{self._sections}. {text}\n")

    def text(self, text: str) -> None:
        """Write a paragraph."""
        for line in textwrap.wrap(" ".join(text.split()), self.width - len(_MARGIN)):
            say(_MARGIN + line)

    def table(self, rows: Sequence[Sequence[object]]) -> None:
        """Write *rows* in columns, the last of which may be long."""
        columns = list(zip(*rows, strict=True))[:-1]
        widths = [max(len(str(cell)) for cell in column) for column in columns]
        for *cells, text in rows:
            start = _MARGIN + "".join(
                str(cell).ljust(width + 2) for cell, width in zip(cells, widths, strict=True)
            )
            last = textwrap.wrap(str(text), self.width - len(start)) or [""]
            say((start + last[0]).rstrip())
            for line in last[1:]:
                say(" " * len(start) + line)

    def beside(self, left: str, right: str) -> None:
        """Write two texts side by side; each is wrapped within its column."""
        room = (self.width - len(_MARGIN) - len(_BETWEEN)) // 2
        lefts, rights = _wrapped(left, room), _wrapped(right, room)
        for number in range(max(len(lefts), len(rights))):
            one = lefts[number] if number < len(lefts) else ""
            other = rights[number] if number < len(rights) else ""
            say(f"{_MARGIN}{one.ljust(room)}{_BETWEEN}{other}".rstrip())

    def rule(self) -> None:
        """Draw the line below the heads of two columns."""
        room = (self.width - len(_MARGIN) - len(_BETWEEN)) // 2
        say(f"{_MARGIN}{'-' * room}-+-{'-' * room}")

    # ------------------------------------------------------------ while it runs

    def what_runs(self, userlens: str, shop: str) -> None:
        """Introduce who takes part."""
        self.heading("What runs")
        where = service.__name__.replace(".", "/") + ".py"
        self.table(
            [
                ("Userlens", userlens, "the local inspector: answers like it, checks each body"),
                ("the shop", shop, f"Starlette under uvicorn: {where}"),
            ]
        )
        say()
        self.text(
            "The shop logs with structlog and with stdlib logging. Set up are one processor for "
            "the former and one handler for the latter (see configure_logging there); from then "
            "on, a line that is tagged with userlens_event becomes an event:"
        )
        say()
        say(textwrap.indent(inspect.getsource(service.change_plan).rstrip(), _MARGIN * 2))

    def first_act(self, answers: Mapping[str, Answer]) -> None:
        """Tell what was asked for while all was well."""
        self.heading("Three users and a visitor, all at once")
        self._requests(scenario.FIRST_ACT, answers)

    def second_act(self, answers: Mapping[str, Answer], *, waiting: int) -> None:
        """Tell what was asked for while Userlens was in trouble."""
        self.heading("They go on, and Userlens is in trouble")
        self.text(
            f"The next {scenario.FAULTS} requests to Userlens are answered with 503 and "
            f'"Retry-After: {scenario.RETRY_AFTER}".'
        )
        say()
        self._requests(scenario.SECOND_ACT, answers)
        say()
        slowest = max(answers[step.request_id].seconds for step in scenario.SECOND_ACT)
        self.text(
            f"No page waited for that: the slowest took {slowest * 1000:.0f} ms. {waiting} events "
            "are held in memory. Now the shop ends, its jobs too; flush() waits for delivery ..."
        )

    def _requests(self, steps: Sequence[Step], answers: Mapping[str, Answer]) -> None:
        rows = []
        for step in steps:
            status = answers[step.request_id].status
            form = "" if step.form is None else json.dumps(step.form)
            rows.append((step.who, f"{step.method} {step.path}", status, form))
        self.table(rows)


def say(text: str = "") -> None:
    """Print *text* now, in whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def show(page: Page, evidence: Evidence, problems: Sequence[str]) -> None:
    """
    Show what was logged and what arrived, and how it came out.

    Args:
        page: Where to.
        evidence: What happened.
        problems: What did not happen as it should.
    """
    page.heading("What was logged, and what arrived")
    _show_log(page, evidence)
    page.heading("Order: each user's events arrive as they were logged")
    _show_order(page, evidence)
    page.heading("For whoever is on call")
    _show_counts(page, evidence)
    page.heading("Result")
    total = sum(len(scenario.events_of(who)) for who in scenario.people())
    if not problems:
        page.text(
            f"OK: {total} of {total} events arrived, each exactly once, each user's in order, "
            "every body valid."
        )
        return
    page.text(f"NOT OK: {len(problems)} of the things that should have happened did not.")
    say()
    for problem in problems:
        say(f"{_MARGIN}- {problem}")


def _show_log(page: Page, evidence: Evidence) -> None:
    left = list(evidence.arrived)
    page.text(
        "Left, the shop's log as it is, password and all; only the tag is taken off. Right, what "
        "became of each line; #1 is what arrived first."
    )
    say()
    page.beside("LOGGED BY THE SHOP", "ARRIVED AT USERLENS")
    for who in scenario.people():
        page.rule()
        for line in scenario.lines_of(who):
            logged = next((text for text in evidence.log if line.is_in(text)), "(not logged)")
            page.beside(logged, _arrivals(line, left))
    page.rule()
    say()
    for entry in [entry for entry in evidence.arrived if entry.type == "track"][:1]:
        page.text(f"#{entry.seq} in full, as it came in POST {entry.path}:")
        page.text(json.dumps(entry.body))


def _arrivals(line: Line, left: list[Entry]) -> str:
    """Say what has become of *line*; take that out of what is *left*."""
    if not line.events:
        return f"-   {line.remark}"
    return "\n".join(_arrival(body, left) for body in line.events)


def _arrival(body: Body, left: list[Entry]) -> str:
    for entry in left:
        if timeless(entry.body) == body:
            left.remove(entry)
            return f"#{entry.seq:<2} {describe(body)} {_details(body)}"
    return f"MISSING: {describe(body)} {_details(body)}"


def _details(body: Body) -> str:
    return json.dumps(body["properties" if body["type"] == "track" else "traits"])


def _show_order(page: Page, evidence: Evidence) -> None:
    rows = []
    for who in scenario.people():
        mine = [entry for entry in evidence.arrived if entry.user_id == who]
        if mine:
            order = " > ".join(f"#{entry.seq} {_name(entry)}" for entry in mine)
            rows.append((who, f"{len(mine)} of {len(scenario.events_of(who))}", order))
    page.table(rows)


def _name(entry: Entry) -> str:
    return entry.event or str(entry.type)


def _show_counts(page: Page, evidence: Evidence) -> None:
    stats, inspector = evidence.stats, evidence.inspector
    statuses = ", ".join(
        f"{number} x {status}" for status, number in sorted(inspector.by_status.items())
    )
    page.text("userlens.stats() says:")
    page.table(
        [
            ("  accepted", stats.accepted, "events that log lines became"),
            ("  delivered", stats.delivered, f"of these; Userlens answered {statuses}"),
            ("  retried", stats.retried, "attempts that failed and were made again"),
            ("  pending", stats.pending, "events still held"),
            ("  refused", *_by_reason("events that Userlens will never take", stats.refused)),
            ("  dropped", *_by_reason("events lost on this side", stats.dropped)),
            ("  invalid", *_by_reason("tagged lines that are no events", stats.invalid)),
            ("  redacted", stats.redacted, 'values that travelled as "[redacted]"'),
        ]
    )
    say()
    page.text("In the shop's log, the logger userlens_instrument says:")
    for line in evidence.diagnostics:
        for part in _wrapped(line, page.width - len(_MARGIN) - 2):
            say(f"{_MARGIN}  {part}")


def _by_reason(what: str, counts: Mapping[str, int]) -> tuple[int, str]:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in counts.items())
    return sum(counts.values()), f"{what}: {reasons}" if reasons else what


def _wrapped(text: str, room: int) -> list[str]:
    return list(_lines(text, room))


def _lines(text: str, room: int) -> Iterator[str]:
    for paragraph in text.split("\n"):
        yield from textwrap.wrap(
            paragraph,
            room,
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
