"""One picture: what a call costs over its floor, every subject side by side."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks.report import over_floor


if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report import Run
    from benchmarks.runner import Results
    from benchmarks.subjects import Subject


_OURS, _OTHERS = "#d1495b", "#9aa5b1"

# A bar on a logarithmic scale needs a length: what is not to be told from the
# floor ends here, in microseconds. Its label says what was measured.
_SMALLEST = 0.02


def available() -> bool:
    """Return whether a picture can be drawn."""
    return find_spec("matplotlib") is not None


def draw(path: str, run: Run, results: Results, chosen: Sequence[Subject]) -> None:
    """Write a PNG of the medians to *path*."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")  # there may be no screen
    pyplot = import_module("matplotlib.pyplot")
    found = []
    for subject in chosen:
        cost = over_floor(results.calls.get(subject.name, []))
        if cost is not None:
            found.append((cost, subject))
    found.sort(key=lambda entry: entry[0], reverse=True)
    lengths = [max(cost, _SMALLEST) for cost, _ in found]
    figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.38 * len(found)), layout="constrained")
    bars = axes.barh(
        [subject.title for _, subject in found],
        lengths,
        color=[_OURS if subject.ours else _OTHERS for _, subject in found],
        height=0.72,
    )
    axes.bar_label(bars, labels=[_label(cost) for cost, _ in found], padding=4, fontsize=9)
    for label, (_, subject) in zip(axes.get_yticklabels(), found, strict=True):
        label.set_fontweight("bold" if subject.ours else "normal")
    axes.set_xscale("log")
    axes.set_xlim(_SMALLEST / 2, max(lengths, default=1.0) * 4)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.set_xlabel(
        "µs per call over the floor, median of single calls, least disturbed round "
        "(logarithmic; less is better)"
    )
    figure.suptitle("What an event costs the thread that logs it", fontweight="bold")
    axes.set_title(f"{run.date}, {run.python}, {run.cores} cores\n{run.command}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e3e7eb")
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=144)
    pyplot.close(figure)


def _label(cost: float) -> str:
    return f"{cost:.2f}" if cost < 10 else f"{cost:,.0f}"
