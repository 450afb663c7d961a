"""How the pictures of runs and comparisons are drawn: canvas, colours, axes, legends, courses, means with bars.

Builds on figures, page's Picture and matplotlib's Agg canvas, without pyplot's global state: safe in threads and
without a display. Colours are Okabe and Ito's, told apart by colour-blind readers; what differs by colour differs by
dash or marker too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tacit.experiments.report.figures import Floats, prefix_accuracy, prefix_band

DPI = 150
SIZE = 8.5
"""Points of the letters, where a picture is narrow."""
GREY, BLACK, GREEN, VERMILION = "#5f6368", "#000000", "#009E73", "#D55E00"
BLUE, SKY, PURPLE, ORANGE = "#0072B2", "#56B4E9", "#CC79A7", "#E69F00"
FIRST = 10
"""Prefixes shorter than this are not drawn: their accuracy says nothing and would stretch the axis."""


def figure(width: float, height: float) -> Figure:
    """A white figure of so many inches, with a canvas of its own."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def png(made: Figure) -> bytes:
    """The figure's bytes, equal for equal data: without the stamp of matplotlib's version."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def ink(colour: str) -> str:
    """A colour dark enough to be read as text on white."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    light = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    shade = min(1.0, 0.42 / light) if light else 1.0
    return "#" + "".join(f"{round(part * shade):02x}" for part in (red, green, blue))


def frame(ax: Axes, which: str = "both") -> None:
    """A faint grid along one axis or both, and no lines above and on the right."""
    ax.grid(axis=which, alpha=0.25)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def percent_axis(ax: Axes, which: str = "y") -> None:
    """Percent along one axis, framed."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    frame(ax, "both" if which == "y" else "x")


def cost_axis(ax: Axes, shown: Any) -> None:
    """A logarithmic axis of tokens."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def legend(ax: Axes, columns: int | None = None, size: float = 8) -> None:
    """Above the plot, so that it never covers a line."""
    if count := len(ax.get_legend_handles_labels()[0]):
        columns = columns or min(3 if count in (3, 5, 6) else 4, count)
        ax.legend(frameon=False, fontsize=size, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns)


def course(ax: Axes, values: Floats, style: Mapping[str, Any], *, band: bool, seed: int = 0) -> float:
    """Accuracy of all problems so far, with a pointwise 95 % band if wanted; returns where it ends."""
    first = min(FIRST, len(values) // 2)
    x, so_far = np.arange(1, len(values) + 1)[first:], prefix_accuracy(values)
    if band:
        low, high = prefix_band(values, seed=seed)
        ax.fill_between(x, low[first:], high[first:], color=style["color"], alpha=0.13, linewidth=0)
    ax.plot(x, so_far[first:], **style)
    return float(so_far[-1])


def scatter(
    ax: Axes,
    pairs: Sequence[tuple[float, float]],
    rng: np.random.Generator,
    dots: Mapping[str, Any],
    look: Mapping[str, Any],
) -> None:
    """Faint dots, and the means of bins with equally many."""
    table = np.array(sorted(pairs))
    # Gains are multiples of 1 / samples: a little scatter shows how many dots lie on one another.
    shaken = table[:, 1] + rng.uniform(-0.02, 0.02, len(table))
    ax.plot(table[:, 0], shaken, linestyle="", markeredgewidth=0, **dots)
    means(ax, np.array_split(table, min(8, max(1, len(table) // 10))), look)


def means(ax: Axes, parts: Sequence[Any], look: Mapping[str, Any], *, shares: bool = False) -> None:
    """Means of parts [n, 2] with 95 % intervals: Wilson's for shares of yes and no, else 1.96 standard errors."""
    x, y = (np.array([part[:, at].mean() for part in parts]) for at in (0, 1))
    n = np.array([len(part) for part in parts])
    if shares:
        z = 1.96
        centre = (y + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(y * (1 - y) / n + z**2 / (4 * n**2))
        errors = np.maximum(0, [y - (centre - half), centre + half - y])
    else:
        spread = np.array([part[:, 1].std(ddof=1) if len(part) > 1 else 0.0 for part in parts])
        errors = np.tile(1.96 * spread / np.sqrt(n), (2, 1))
    ax.errorbar(x, y, yerr=errors, linewidth=1.6, capsize=2.5, markersize=5.5, zorder=3, **look)
