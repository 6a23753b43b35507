"""The results as tables for people, and as JSON for programs."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import targets
from benchmarks.runner import LATENCY, Plan, Results, least, middle


if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.subjects import Subject
    from benchmarks.targets import Target


# What a table has in the place of a figure that there is not.
_NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    When, where and how the figures came about.

    Attributes:
        date: When it began, in UTC.
        command: What was typed.
        python: Implementation and version.
        system: Operating system and architecture.
        cores: How many the process may use.
        load: Load average over a minute, at the beginning and at the end, where
            the system knows it; more than the run's own two is other work.
        seconds: How long it took.
    """

    date: str
    command: str
    python: str
    system: str
    cores: int
    load: tuple[float | None, float | None]
    seconds: float


def python_version() -> str:
    """Return implementation and version of this interpreter."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def over_floor(rounds: list[dict[str, Any]]) -> float | None:
    """Return the microseconds of a call over those of the same call with nothing behind it."""
    call, floor = least(rounds, "median_us"), least(rounds, "floor_us")
    return None if call is None or floor is None else call - floor


def as_json(run: Run, plan: Plan, results: Results) -> dict[str, Any]:
    """Return everything that was measured, raw."""
    return {"run": asdict(run), "plan": asdict(plan), "results": asdict(results)}


# ---------------------------------------------------------------- tables


def table(title: str, note: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is flush left, the others flush right."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join([title, "=" * len(title), *([note] if note else []), "", *text, ""])


def number(value: float | None, digits: int) -> str:
    """Return *value* for a table, or a dash if there is none."""
    return _NONE if value is None else f"{value:,.{digits}f}"


def verdict(found: dict[str, Target], name: str, best: float | None, usual: float | None) -> str:
    """Return what a table says of the target that *name* has, if it has one."""
    target = found.get(name)
    return "" if target is None else target.verdict(best, usual)


def delivered(rounds: list[dict[str, Any]]) -> str:
    """Return how much of what a subject was given has arrived, over all rounds."""
    given = sum(found.get("given", 0) for found in rounds)
    arrived = sum(found.get("delivered", 0) for found in rounds)
    if not given:
        return "none, as it should" if not arrived else f"{arrived} too many"
    if arrived > given:
        return f"{arrived - given} twice"
    # Rounded up: "lost 0 %" would be "all".
    return "all" if arrived == given else f"lost {-(-100 * (given - arrived) // given)} %"


def _failures(rounds: list[dict[str, Any]]) -> list[str]:
    return [found["error"] for found in rounds if "error" in found]


def _failed_row(title: str, columns: int) -> list[str]:
    return [title, "failed", *[""] * (columns - 2)]


def header(run: Run, plan: Plan, results: Results) -> str:
    """Return what the figures have to be read with."""
    lines = [
        f"{run.date}  {run.command}",
        f"{run.python}, {run.system}, {run.cores} cores, rounds: {plan.rounds}"
        + (" (quick: fewer calls and events)" if plan.quick else ""),
    ]
    if run.load[0] is not None and run.load[1] is not None:
        lines.append(f"load average before {run.load[0]:.1f}, after {run.load[1]:.1f}")
    lines.append(", ".join(f"{name} {found}" for name, found in sorted(results.versions.items())))
    if results.missing:
        lines.append("not installed: " + "; ".join(results.missing))
    return "\n".join([*lines, ""])


def calls_table(chosen: Sequence[Subject], results: Results) -> str:
    """Return what a call costs its caller."""
    headers = (
        "",
        "floor",
        "call",
        "over floor",
        "(median)",
        "p99",
        "delivered",
        "target",
        "p99 target",
    )
    ranked = []
    for subject in chosen:
        rounds = results.calls.get(subject.name)
        if rounds is None:
            continue
        cost, p99 = over_floor(rounds), middle(rounds, "p99_us")
        if cost is None:
            ranked.append((float("inf"), _failed_row(subject.title, len(headers))))
            continue
        gaps = [
            {"gap": found["median_us"] - found["floor_us"]} for found in rounds if "calls" in found
        ]
        usual = middle(gaps, "gap")
        row = [
            subject.title,
            number(least(rounds, "floor_us"), 2),
            number(least(rounds, "median_us"), 2),
            number(cost, 2),
            number(usual, 2),
            number(p99, 1),
            delivered(rounds),
            verdict(targets.CALL, subject.name, cost, usual),
            verdict(targets.PERCENTILE, subject.name, p99, p99),
        ]
        ranked.append((cost, row))
    note = (
        "µs of single calls in a burst, six flat properties. Floor: the same call with a\n"
        "processor or handler that does nothing; for a function, a function that does nothing.\n"
        "Floor, call and over floor: the median of the calls, in the least disturbed round of\n"
        "each; (median) and p99: the median over the rounds. Met at best: in such a round only."
    )
    rows = [row for _, row in sorted(ranked, key=lambda entry: entry[0])]
    return table("What a call costs", note, headers, rows)


def delivery_table(chosen: Sequence[Subject], results: Results) -> str:
    """Return what delivery costs the process."""
    headers = (
        "",
        "CPU µs/event",
        "(median)",
        "less the floor",
        "events/s",
        "bytes/event",
        "events/request",
        "delivered",
        "target",
    )
    ranked = []
    for subject in chosen:
        rounds = results.delivery.get(subject.name)
        if rounds is None:
            continue
        cpu, floor = least(rounds, "cpu_us"), least(rounds, "floor_cpu_us")
        if cpu is None or floor is None:
            ranked.append((float("inf"), _failed_row(subject.title, len(headers))))
            continue
        last = [found for found in rounds if found.get("delivered")][-1]
        row = [
            subject.title,
            number(cpu, 1),
            number(middle(rounds, "cpu_us"), 1),
            number(cpu - floor, 1),
            number(middle(rounds, "per_s"), 0),
            number(last["bytes"] / last["delivered"], 0),
            number(last["delivered"] / last["requests"], 1),
            delivered(rounds),
            verdict(targets.CPU, subject.name, cpu, middle(rounds, "cpu_us")),
        ]
        ranked.append((cpu, row))
    note = (
        "CPU of the whole process for each event that arrived, the call included; best round.\n"
        "The floor is the CPU of the call with nothing behind it. Bytes as they are on the wire."
    )
    rows = [row for _, row in sorted(ranked, key=lambda entry: entry[0])]
    return table("What delivery costs", note, headers, rows)


def slow_server_table(chosen: Sequence[Subject], results: Results) -> str:
    """Return the throughput against a server that takes its time."""
    rows = []
    for subject in chosen:
        rounds = results.slow_server.get(subject.name)
        if rounds is None:
            continue
        rates = [-found["per_s"] for found in rounds if "per_s" in found]
        best = -min(rates) if rates else None
        rows.append(
            [
                subject.title,
                number(best, 0),
                number(middle(rounds, "per_s"), 0),
                number(middle(rounds, "given"), 0),
                delivered(rounds),
                verdict(targets.THROUGHPUT, subject.name, best, middle(rounds, "per_s")),
            ]
        )
    return table(
        f"Throughput, the server answers after {LATENCY * 1000:g} ms",
        "",
        ("", "events/s", "(median)", "events", "delivered", "target"),
        rows,
    )


def memory_table(results: Results) -> str:
    """Return what a held event takes."""
    rows = []
    for found in results.memory:
        title = f"{found['entrance']}, {found['users']:,} users"
        if "error" in found:
            rows.append(_failed_row(title, 6))
            continue
        most = max(found["fresh_bytes"], found["settled_bytes"])
        rows.append(
            [
                title,
                f"{found['held']:,}",
                number(found["body_bytes"], 0),
                number(found["fresh_bytes"], 0),
                number(found["settled_bytes"], 0),
                targets.MEMORY.verdict(most, most),
            ]
        )
    return table(
        "Memory per held event",
        "Bytes that tracemalloc sees, of every kind: just logged, and waiting for delivery.",
        ("", "held", "body", "just logged", "waiting", "target"),
        rows,
    )


def import_table(results: Results) -> str:
    """Return what an import takes."""
    rows = []
    for title, found in results.imports.items():
        times: list[dict[str, Any]] = [{"ms": value} for value in found]
        best = least(times, "ms")
        rows.append(
            [
                title,
                number(best, 1),
                number(middle(times, "ms"), 1),
                verdict(targets.IMPORT, title, best, middle(times, "ms")),
            ]
        )
    note = (
        "ms in a fresh interpreter, beyond the interpreter itself. A first processor and a first\n"
        "event come after structlog is imported, a first handler after logging is."
    )
    return table("What an import takes", note, ("", "best", "median", "target"), rows)


def growth_tables(results: Results) -> str:
    """Return whether anything grows with what is held, or with the users."""
    text = []
    for delivery in dict.fromkeys(found["delivery"] for found in results.growth):
        pairs: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for found in results.growth:
            if found["delivery"] == delivery:
                pairs.setdefault((found["held"], found["users"]), []).append(found)
        figures = [
            (held, users, least(rounds, "call_us"), least(rounds, "delivery_us"))
            for (held, users), rounds in pairs.items()
        ]
        rows = [
            [f"{held:,} held, {users:,} users", number(call, 2), number(delivered_us, 2)]
            for held, users, call, delivered_us in figures
        ]
        calls = [call for _, _, call, _ in figures if call]
        sent = [found for _, _, _, found in figures if found]
        rows.append(["largest / smallest", _ratio(calls), _ratio(sent)])
        note = (
            "µs of a call while so much is held, and µs of CPU for each event when it is let go,\n"
            "without a socket; best round. What took longer the more there is would do so a\n"
            "thousandfold here; up to twice is other work on the machine."
        )
        headers = ("", "call", "delivery")
        text.append(table(f"Growth, delivery={delivery}", note, headers, rows))
    return "\n".join(text)


def _ratio(values: list[float]) -> str:
    return number(max(values) / min(values), 2) if values else _NONE


def failures(results: Results) -> str:
    """Return one line for each measurement that came to nothing."""
    lines = []
    sections = (
        ("calls", results.calls),
        ("delivery", results.delivery),
        ("slow server", results.slow_server),
    )
    for section, found in sections:
        for name, rounds in found.items():
            lines += [f"{section}, {name}: {error}" for error in _failures(rounds)]
    lines += [f"memory: {found['error']}" for found in results.memory if "error" in found]
    lines += [f"growth: {found['error']}" for found in results.growth if "error" in found]
    lines += [
        f"{title}: did not come about" for title, times in results.imports.items() if None in times
    ]
    return "\n".join(["Failures", "========", *lines, ""]) if lines else ""


def write(run: Run, plan: Plan, results: Results, chosen: Sequence[Subject]) -> None:
    """Print everything on standard output."""
    parts = [header(run, plan, results)]
    if results.calls:
        parts.append(calls_table(chosen, results))
    if results.delivery:
        parts.append(delivery_table(chosen, results))
    if results.slow_server:
        parts.append(slow_server_table(chosen, results))
    if results.memory:
        parts.append(memory_table(results))
    if results.imports:
        parts.append(import_table(results))
    if results.growth:
        parts.append(growth_tables(results))
    parts.append(failures(results))
    parts.append(f"took {run.seconds:.0f} s\n")
    sys.stdout.write("\n".join(part for part in parts if part))
