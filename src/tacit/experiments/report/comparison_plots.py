"""Pictures of a comparison: accuracy with intervals, over the stream, against cost. The rest is in comparison_maps.

Builds on cells, comparison_figures, plot_labels and drawing. Of more methods than a reader can tell apart, a few are
drawn in full and the rest in grey. Pictures are narrow enough to be read on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogLocator, MaxNLocator

from tacit.experiments.report import drawing, plot_labels
from tacit.experiments.report.cells import KINDS, Result, Stream, marks, short, where
from tacit.experiments.report.comparison_figures import curve
from tacit.experiments.report.drawing import DPI, SIZE, cost_axis, course, figure, ink, legend, percent_axis, png
from tacit.experiments.report.figures import Figures, Floats
from tacit.experiments.report.page import Picture

WIDTH = 5.0
"""Inches."""

LOOKS = {
    "frozen": (drawing.GREY, "o", "no learning"),
    "text": (drawing.GREEN, "s", "shown again"),
    "trained": (drawing.VERMILION, "^", "trained"),
    "memories": (drawing.BLUE, "D", "latent memories"),
    "controls": (drawing.PURPLE, "v", "controls"),
    "bounds": (drawing.ORANGE, "P", "upper bounds"),
    "other": (drawing.SKY, "h", "others"),
}
"""Of each kind of methods: colour, marker, and name."""

REST = "#c9ccd0"

LINES: tuple[dict[str, Any], ...] = (
    {"color": drawing.GREY, "linestyle": "-"},
    {"color": drawing.BLACK, "linestyle": (0, (1, 1.2))},
    {"color": drawing.GREEN, "linestyle": "-."},
    {"color": drawing.VERMILION, "linestyle": (0, (5, 1.5))},
    {"color": drawing.BLUE, "linestyle": "-", "linewidth": 2.4},
    {"color": drawing.SKY, "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    {"color": drawing.PURPLE, "linestyle": (0, (2, 2))},
)
"""Of zero-shot, majority, the best by texts, the best trained one, elm, the best other memory, the best control."""


def narrow_axis(ax: Axes, which: str = "y") -> None:
    """A percent axis of a narrow picture."""
    percent_axis(ax, which)
    ax.tick_params(labelsize=SIZE)


def marked(row: Mapping[str, Any]) -> str:
    """The method's name with its marks."""
    return f"{row['method']} {marks(row)}".rstrip()


def slug(data: str, order: str) -> str:
    """A stream's name in the name of a file."""
    return "".join(c if c.isalnum() else "-" for c in where(short(data), order)).strip("-").replace("--", "-").lower()


def streams_of(rows: Sequence[Figures]) -> list[tuple[str, str]]:
    """(data, order) of the rows that have an accuracy, in order."""
    return list(dict.fromkeys((row["data"], row["order"]) for row in rows if "accuracy" in row))


def highlighted(rows: Sequence[Figures]) -> dict[str, dict[str, Any]]:
    """Methods drawn in full, with their line: at most seven, the same in every picture.

    "Best" is by sampled accuracy over all streams; a choice for the eye, not a test. Lines whose part nobody plays go
    to other methods, in the order of the table.
    """
    scores: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for row in rows:
        if "accuracy" in row:
            scores.setdefault(row["method"], []).append(row["accuracy"])
            kinds[row["method"]] = row["kind"]

    def best(kind: str) -> str | None:
        of_kind = [name for name in scores if kinds[name] == kind and name not in ("zero-shot", "majority", "elm")]
        return max(of_kind, key=lambda name: float(np.mean(scores[name])), default=None)

    chosen = ("zero-shot", "majority", best("text"), best("trained"), "elm", best("memories"), best("controls"))
    lines = {name: line for name, line in zip(chosen, LINES, strict=True) if name is not None and name in scores}
    free = [line for line in LINES if line not in lines.values()]
    rest = [name for name in scores if name not in lines and kinds[name] != "bounds"]
    return lines | dict(zip(rest, free, strict=False))


# -- accuracy ---------------------------------------------------------------------------------------------------


def accuracy(rows: Sequence[Figures], data: str, order: str) -> Picture:
    """Sampled and greedy accuracy of every method on one stream, with intervals."""
    held = [row for row in rows if (row["data"], row["order"]) == (data, order) and "accuracy" in row]
    held.sort(key=lambda row: list(KINDS).index(row["kind"]))
    made = figure(WIDTH, 1.1 + 0.27 * len(held))
    ax = made.add_subplot()
    y = -np.arange(len(held), dtype=np.float64)
    for gap in (at for at in range(1, len(held)) if held[at]["kind"] != held[at - 1]["kind"]):
        y[gap:] -= 0.5
    for row, at in zip(held, y, strict=True):
        colour, marker, _ = LOOKS[row["kind"]]
        ax.plot([row["low"], row["high"]], [at + 0.14] * 2, color=colour, linewidth=2)
        ax.plot(row["accuracy"], at + 0.14, marker, color=colour, markersize=6)
        ax.plot([row["greedy_low"], row["greedy_high"]], [at - 0.2] * 2, color=colour, linewidth=1, alpha=0.7)
        ax.plot(row["greedy"], at - 0.2, marker, color=colour, markersize=4.5, markerfacecolor="white")
        text = f"{100 * row['accuracy']:.1f} / {100 * row['greedy']:.1f}"
        ax.annotate(text, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=SIZE)
    for row in held:
        if row["method"] == "zero-shot":
            ax.axvline(row["accuracy"], color=drawing.GREY, linewidth=1, alpha=0.6, zorder=0)
            ax.axvline(row["greedy"], color=drawing.GREY, linewidth=1, alpha=0.6, linestyle=":", zorder=0)
    ax.set_yticks(y, [marked(row) for row in held])
    ax.set_ylim(y[-1] - 0.7, 0.7)
    narrow_axis(ax, "x")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("right answers: filled, one sampled answer; hollow, the greedy one", fontsize=SIZE)
    ax.annotate("sampled / greedy", (1.01, 0.85), xycoords=("axes fraction", "data"), fontsize=SIZE)
    top = max(held, key=lambda row: (row["kind"] != "bounds", row["accuracy"]))
    return Picture(
        f"accuracy-{slug(data, order)}",
        f"Accuracy on {where(data, order)}",
        "Dots are accuracies, bars 95 % intervals over problems. Vertical lines: zero-shot, sampled (solid) and greedy "
        "(dotted). † uses labels, ‡ trains before the first problem, § gives one answer. Methods are compared by the "
        "paired gains in the tables: intervals that overlap here may still differ clearly there.",
        f"Dot chart of {len(held)} methods on {where(data, order)}; highest sampled accuracy, upper bounds aside: "
        f"{top['method']}, {100 * top['accuracy']:.1f} percent. The main table has all figures.",
        png(made),
    )


# -- over the stream --------------------------------------------------------------------------------------------


def prefix(
    rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]], data: str, order: str
) -> Picture | None:
    """Accuracy of all problems so far, sampled and greedy; None for a stream too short to have a course."""
    lines = highlighted(rows)
    names = [row["method"] for row in rows if (row["data"], row["order"]) == (data, order)]
    made = figure(WIDTH, 7.2)
    axes = made.subplots(2, 1, sharex=True)
    ends: list[dict[str, float]] = []
    for ax, mark in zip(axes, ("correct", "greedy_correct"), strict=True):
        curves = {name: curve(streams[name, data, order], mark) for name in names}
        curves = {name: values for name, values in curves.items() if len(values) >= 4}
        if not curves:
            return None
        ends.append(_courses(ax, curves, lines, {row["method"] for row in rows if row["kind"] == "bounds"}))
        ax.set_ylabel(f"{'one sampled' if mark == 'correct' else 'the greedy'} answer right, so far", fontsize=SIZE)
    axes[1].set_xlabel("problems seen", fontsize=SIZE)
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    made.draw_without_rendering()
    for ax, values in zip(axes, ends, strict=True):
        _label_ends(ax, values, lines)
    others = len(names) - sum(name in lines for name in names)
    final = ", ".join(f"{name} {100 * value:.0f}" for name, value in ends[0].items())
    return Picture(
        f"prefix-{slug(data, order)}",
        f"Accuracy over the stream, {where(data, order)}",
        "Share of right answers among all problems so far, the mean over seeds: sampled above, greedy below. A method "
        "that learns rises; all are noisy at the start. Bands: pointwise 95 % intervals of zero-shot and elm."
        + (f" Grey: the other {others} methods; of each kind the best on the whole is in colour." if others else ""),
        f"Line chart. Final sampled accuracy in percent: {final}.",
        png(made),
    )


def _courses(
    ax: Axes, curves: Mapping[str, Floats], lines: Mapping[str, dict[str, Any]], bounds: set[str]
) -> dict[str, float]:
    ends: dict[str, float] = {}
    for name, values in sorted(curves.items(), key=lambda item: item[0] in lines):
        if name in lines:
            style = {"linewidth": 1.7, "zorder": 3, **lines[name]}
            ends[name] = course(ax, values, style, band=name in ("zero-shot", "elm"))
        elif name not in bounds:  # always right, and far above all others
            course(ax, values, {"color": REST, "linewidth": 0.9, "zorder": 1}, band=False)
    ax.margins(x=0)
    narrow_axis(ax)
    return ends


def _label_ends(ax: Axes, ends: Mapping[str, float], lines: Mapping[str, dict[str, Any]]) -> None:
    """The names of lines beside their ends, in their colours; apart, with a thread where they had to move."""
    scale = ax.get_window_extent().height
    low, high = ax.get_ylim()
    height = 1.35 * SIZE * DPI / 72
    wanted = [(value - low) / (high - low) * scale for value in ends.values()]
    for (name, value), at in zip(ends.items(), plot_labels.spread(wanted, height, 0, scale), strict=True):
        colour = ink(lines[name]["color"])
        ax.annotate(
            f"{name}  {100 * value:.1f}",
            (1.0, value),
            (1.05, at / scale),
            xycoords=("axes fraction", "data"),
            textcoords="axes fraction",
            va="center",
            fontsize=SIZE,
            color=colour,
            fontweight="bold" if name == "elm" else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0},
        )


# -- against cost -----------------------------------------------------------------------------------------------


def tokens(rows: Sequence[Figures], data: str, order: str) -> Picture | None:
    """Accuracy against all tokens generated, a dot per method, sampled and greedy; None if nothing was generated."""
    held = [row for row in rows if (row["data"], row["order"]) == (data, order) and "accuracy" in row]
    drawn = [row for row in held if row["tokens_per_problem"] > 0]
    if not drawn:
        return None
    made = figure(WIDTH, 8.6)
    axes = made.subplots(2, 1, sharex=True)
    for ax, key in zip(axes, ("accuracy", "greedy"), strict=True):
        for row in drawn:
            colour, marker, _ = LOOKS[row["kind"]]
            ax.plot(row["tokens_per_problem"], row[key], marker, color=colour, markersize=6, zorder=3)
        cost_axis(ax, "{:,.0f}".format)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.margins(0.12, 0.12)
        narrow_axis(ax)
        ax.set_ylabel("one sampled answer right" if key == "accuracy" else "the greedy answer right", fontsize=SIZE)
    axes[1].set_xlabel("tokens generated per problem, answering and learning (logarithmic)", fontsize=SIZE)
    for kind in (kind for kind in KINDS if any(row["kind"] == kind for row in drawn)):
        colour, marker, name = LOOKS[kind]
        axes[0].plot([], [], marker, color=colour, markersize=6, label=name)
    legend(axes[0], 3, SIZE)
    made.draw_without_rendering()
    made.set_layout_engine("none")  # laid out: labels are placed for good
    for ax, key in zip(axes, ("accuracy", "greedy"), strict=True):
        label_dots(ax, [(row["tokens_per_problem"], row[key], marked(row), LOOKS[row["kind"]][0]) for row in drawn])
    left_out = [row["method"] for row in held if row not in drawn]
    note = f" Not drawn, having generated nothing: {', '.join(left_out)}." if left_out else ""
    return Picture(
        f"tokens-{slug(data, order)}",
        f"Accuracy against cost, {where(data, order)}",
        "All that a method generated, answers and learning, against its accuracy over the whole stream; higher and "
        "further left is better. Sampled above, greedy below. † uses labels, ‡ trains before the first problem, "
        f"§ gives one answer.{note}",
        f"Scatter chart of {len(drawn)} methods on {where(data, order)}: accuracy against tokens per problem. "
        "The tables of accuracy and cost have the figures.",
        png(made),
    )


def label_dots(ax: Axes, dots: Sequence[tuple[float, float, str, str]]) -> None:
    """Name dots (x, y, name, colour) of laid-out axes, no name on another or on a dot; distant ones get a thread."""
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())  # threads move nothing
    canvas = ax.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    box = ax.get_window_extent()
    corner = np.array([box.x0, box.y0])
    places = ax.transData.transform([(x, y) for x, y, _, _ in dots]) - corner
    texts = [ax.text(0, 0, name, fontsize=SIZE, color=ink(colour), zorder=4) for _, _, name, colour in dots]
    sizes = np.array([[extent.width, extent.height] for extent in (text.get_window_extent(renderer) for text in texts)])
    # Dots with many neighbours first: they have the fewest places to choose from.
    near = (np.abs(places[:, None] - places[None]) < 1.5 * sizes[:, None]).all(axis=2).sum(axis=1)
    order = np.argsort(-near, kind="stable")
    corners = np.empty_like(places)
    corners[order] = plot_labels.beside(places[order], sizes[order], (box.width, box.height), radius=8.0)
    for text, dot, (x, y, _, colour), low, size in zip(texts, places, dots, corners, sizes, strict=True):
        across, up = ax.transAxes.inverted().transform(low + corner)
        text.set_position((across, up))
        text.set(transform=ax.transAxes, va="bottom", ha="left")
        text.set_in_layout(False)
        nearest = np.clip(dot, low, low + size)
        if np.hypot(*(nearest - dot)) > 16:
            end = ax.transData.inverted().transform(nearest + corner)
            ax.plot([x, end[0]], [y, end[1]], color=colour, linewidth=0.6, alpha=0.7, zorder=2)
