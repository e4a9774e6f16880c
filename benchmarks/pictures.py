"""
Plots of what grows, as SVG: a line for each server, its median, and around it all that was measured.

They have no background, and are drawn in colours that can be read on white and on black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from attrs import evolve, frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .growth import SERIES
from .runs import Run, in_order, middle, of
from .workloads import KB, MB

_INK = "#808080"
_COLOURS = ("#d9822b", "#2f7ed8", "#4c9f70", "#a64ca6", "#b0a030", "#50b0b0")
_STYLE = {
    # Text stays text: small, and in the reader's font.
    "svg.fonttype": "none",
    # The same results make the same file.
    "svg.hashsalt": "lmtpsvc",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@frozen
class Panel:
    """
    One of the plots in a picture: what it shows of a run, and whether its steps are factors.
    """

    title: str
    what: Callable[[Run], float | None]
    logarithmic: bool = False


_RATE = Panel("deliveries per second", lambda run: run.rate)
_LATE = Panel(
    "99 of 100 replies within, ms",
    lambda run: None if run.late is None else run.late * 1000,
    logarithmic=True,
)
_CPU = Panel("CPU per delivery, µs", lambda run: run.cpu_per_delivery, logarithmic=True)
_MEGABYTES = Panel("MB per second", lambda run: run.megabytes, logarithmic=True)
_MEMORY = Panel("memory of the server, MB", lambda run: run.memory, logarithmic=True)
_PEAK = Panel("peak memory of the server, MB", lambda run: run.peak)
_MANY = evolve(_RATE, logarithmic=True)

_PANELS: dict[str, Sequence[Panel]] = {
    "sessions": (_RATE, _LATE, _MEMORY),
    "recipients": (_MANY, _CPU),
    "octets": (_MEGABYTES, _PEAK),
    "users": (_RATE, _CPU),
    "new-users": (_RATE, _CPU),
    "messages": (_RATE, _CPU),
}


def draw(name: str, runs: Sequence[Run], path: Path) -> None:
    """
    Draw the series *name* into the file *path*.
    """
    panels = _PANELS[name]
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are a list of literals
        figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(1, len(panels), number)
            _plot(axes, panel, runs)
            axes.set_xlabel(SERIES[name].title)
            if name == "octets":
                axes.set_xticks([KB, 16 * KB, 256 * KB, 4 * MB, 50 * MB])
                axes.xaxis.set_major_formatter(FuncFormatter(_octets))
        lines, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside upper left", ncols=len(names), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _plot(axes: Axes, panel: Panel, runs: Sequence[Run]) -> None:
    for server, colour in zip(in_order(run.server for run in runs), _COLOURS, strict=False):
        points = in_order(run.point for run in runs if run.server == server)
        found = [of(runs, server, point) for point in points]
        where = [float(point) for point in points]
        values = [[panel.what(run) or 0.0 for run in each] for each in found]
        axes.plot(
            where,
            [middle(each, panel.what) for each in found],
            color=colour,
            marker="o",
            markersize=3,
            label=server,
        )
        axes.fill_between(
            where, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.2, lw=0
        )
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xscale("log")
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_locator(NullLocator())
    axes.grid(visible=True)


def _octets(value: float, _: object) -> str:
    for size, unit in ((MB, "MB"), (KB, "KB")):
        if value >= size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f}"
